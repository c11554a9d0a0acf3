// peer_llama MODEL prefill|decode TOKENS THREADS: llama.cpp's speed through its public C API, in
// tokens a second (the last line). Prefill: one batch of TOKENS, logits of the last. Decode: TOKENS
// tokens one by one from an empty cache. The better of two after a warm-up.
// Build it against a llama.cpp of your own (static or shared):
//   g++ -O2 -I LLAMA/include -I LLAMA/ggml/include bench/peer_llama.cpp -o build/bench/peer_llama
//     -lllama and the ggml libraries of that build
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#include "llama.h"

static void quiet(ggml_log_level level, const char *text, void *) {
  if (level >= GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static bool read_tokens(llama_context *c, const llama_token *ids, int n) {
  std::vector<llama_token> copy(ids, ids + n);
  return !llama_decode(c, llama_batch_get_one(copy.data(), n));
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  bool decode = !strcmp(argv[2], "decode");
  int n = atoi(argv[3]), threads = atoi(argv[4]);
  llama_log_set(quiet, nullptr);
  llama_backend_init();
  llama_model_params mp = llama_model_default_params();
  llama_model *m = llama_model_load_from_file(argv[1], mp);
  if (!m) return 1;
  llama_context_params p = llama_context_default_params();
  p.n_ctx = n + 8;
  p.n_batch = p.n_ubatch = n > 512 ? 512 : n;
  p.n_threads = p.n_threads_batch = threads;
  llama_context *c = llama_init_from_model(m, p);
  if (!c) return 1;
  int V = llama_vocab_n_tokens(llama_model_get_vocab(m));
  std::vector<llama_token> ids(n);
  for (int i = 0; i < n; i++) ids[i] = (llama_token)(((long long)i * 7919 + 13) % V);
  double best = 0;
  for (int r = 0; r < 3; r++) {
    llama_memory_clear(llama_get_memory(c), true);
    double t0 = now();
    for (int at = 0; at < n;) {
      int k = decode ? 1 : n - at < 512 ? n - at : 512;
      if (!read_tokens(c, ids.data() + at, k)) return 1;
      at += k;
    }
    if (!llama_get_logits_ith(c, -1)) return 1;
    double rate = n / (now() - t0);
    if (r && rate > best) best = rate;                 // the first one faults the weights in
  }
  printf("%.2f\n", best);
  return 0;
}
