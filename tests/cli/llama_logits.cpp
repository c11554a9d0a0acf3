// llama-logits [--lora F SCALE] MODEL ID...: the logits llama.cpp has at every position, one line
// each. For convert_test.sh and adapter_test.sh; built against a llama.cpp of your own:
//   g++ -O2 -I LLAMA/include -I LLAMA/ggml/include tests/cli/llama_logits.cpp -o llama-logits
//     with -lllama and the ggml libraries of that build; then LLAMA_CPP_BIN=FOLDER make check
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#include "llama.h"

static void quiet(ggml_log_level level, const char *text, void *) {
  if (level >= GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

int main(int argc, char **argv) {
  const char *lora = nullptr;
  float scale = 1;
  if (argc > 4 && !strcmp(argv[1], "--lora")) {
    lora = argv[2];
    scale = (float)atof(argv[3]);
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
