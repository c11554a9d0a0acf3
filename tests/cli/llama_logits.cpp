// llama-logits [--lora F SCALE | --control-vector F SCALE] MODEL ID...: the logits llama.cpp has at
// every position, one line each. For convert_test.sh, adapter_test.sh and vector_test.sh; built
// against a llama.cpp of your own:
//   g++ -O2 -I LLAMA/include -I LLAMA/ggml/include tests/cli/llama_logits.cpp -o llama-logits
//     with -lllama and the ggml libraries of that build; then LLAMA_CPP_BIN=FOLDER make check
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#include "gguf.h"
#include "llama.h"

static void quiet(ggml_log_level level, const char *text, void *) {
  if (level >= GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

// The directions of the file as llama.cpp's own tools lay them out: slot K - 1 holds direction.K.
static bool control_vector(llama_context *c, const char *path, float scale, int D, int L) {
  ggml_context *tensors = nullptr;
  gguf_context *g = gguf_init_from_file(path, {false, &tensors});
  if (!g) return false;
  std::vector<float> v((size_t)D * L, 0.0f);
  for (int64_t i = 0; i < gguf_get_n_tensors(g); i++) {
    const char *name = gguf_get_tensor_name(g, i);
    ggml_tensor *t = ggml_get_tensor(tensors, name);
    int k = strncmp(name, "direction.", 10) ? 0 : atoi(name + 10);
    if (k < 1 || k > L || t->type != GGML_TYPE_F32 || ggml_n_dims(t) != 1 || t->ne[0] != D)
      return false;
    for (int d = 0; d < D; d++) v[(size_t)(k - 1) * D + d] += scale * ((const float *)t->data)[d];
  }
  return !llama_apply_adapter_cvec(c, v.data(), v.size(), D, 1, L);
}

int main(int argc, char **argv) {
  const char *lora = nullptr, *vector = nullptr;
  float scale = 1;
  if (argc > 4 && (!strcmp(argv[1], "--lora") || !strcmp(argv[1], "--control-vector"))) {
    (argv[1][2] == 'l' ? lora : vector) = argv[2];
    scale = strtof(argv[3], nullptr);
    argv += 3;
    argc -= 3;
  }
  if (argc < 3) return 2;
  llama_log_set(quiet, nullptr);
  llama_backend_init();
  llama_model *m = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (!m) return 1;
  int n = argc - 2;
  llama_context_params p = llama_context_default_params();
  p.n_ctx = p.n_batch = p.n_ubatch = 256;
  p.n_threads = p.n_threads_batch = 1;
  p.type_k = p.type_v = GGML_TYPE_F32;
  llama_context *c = llama_init_from_model(m, p);
  if (!c) return 1;
  if (lora) {
    llama_adapter_lora *a = llama_adapter_lora_init(m, lora);
    if (!a || llama_set_adapter_lora(c, a, scale)) return 1;
  }
  if (vector && !control_vector(c, vector, scale, llama_model_n_embd(m), llama_model_n_layer(m)))
    return 1;
  llama_batch b = llama_batch_init(n, 0, 1);
  b.n_tokens = n;
  for (int i = 0; i < n; i++) {
    b.token[i] = atoi(argv[2 + i]);
    b.pos[i] = i;
    b.n_seq_id[i] = 1;
    b.seq_id[i][0] = 0;
    b.logits[i] = 1;
  }
  if (llama_decode(c, b)) return 1;
  int V = llama_vocab_n_tokens(llama_model_get_vocab(m));
  for (int i = 0; i < n; i++) {
    const float *l = llama_get_logits_ith(c, i);
    for (int v = 0; v < V; v++) printf("%.9g%c", (double)l[v], v + 1 < V ? ' ' : '\n');
  }
  return 0;
}
