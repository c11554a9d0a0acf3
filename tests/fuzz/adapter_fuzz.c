/* adapter_fuzz.c - any bytes given to the readers of adapters are refused with a sentence or become
 * an adapter whose parts have the sizes they say and finite numbers. The first byte chooses the form;
 * of PEFT's two bytes give the length of the config, the rest is the safetensors file.
 *
 *   clang -fsanitize=fuzzer,address,undefined ... tests/fuzz/adapter_fuzz.c */
#include <stdlib.h>
#include <string.h>

#include "model/adapter.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* The keys of a small llama, whose names and rows PEFT's are translated to. */
static struct nm__gguf *base(void) {
  static struct nm__gguf *g;
  if (g) return g;
  if (nm__gguf_new("base", "GGUF", &g, NULL) ||
      nm__gguf_add_string(g, "general.architecture", "llama", 5, NULL) ||
      nm__gguf_add_u32(g, "llama.attention.head_count", 4, NULL) ||
      nm__gguf_add_u32(g, "llama.attention.head_count_kv", 2, NULL))
    abort();
  return g;
}

static int from_gguf(const uint8_t *bytes, size_t n, struct nm__adapter *a, nm_err *err) {
  struct nm__gguf *g;
  int st = nm__gguf_parse("fuzz", bytes, n, &g, err);
  if (st) return st;
  st = nm__adapter_from_gguf(g, a, err);
  nm__gguf_close(g);
  return st;
}

static int from_peft(const uint8_t *bytes, size_t n, bool names, struct nm__adapter *a,
                     nm_err *err) {
  struct nm__st *s;
  size_t config = n < 2 ? 0 : bytes[0] + 256u * bytes[1];
  if (n < 2 || config > n - 2) return nm__fail(err, NM_EFORMAT, "no input");
  int st = nm__st_parse("fuzz", bytes + 2 + config, n - 2 - config, &s, err);
  if (st) return st;
  st = nm__adapter_from_peft("fuzz", (const char *)bytes + 2, config, s, names ? base() : NULL, a,
                             err);
  nm__st_close(s);
  return st;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  struct nm__adapter a = {.path = nm__strdup("fuzz")};
  nm_err err = {0};
  int kind = n ? bytes[0] % 3 : 0;
  if (!n) return free(a.path), 0;
  int st = kind == 0 ? from_gguf(bytes + 1, n - 1, &a, &err)
                     : from_peft(bytes + 1, n - 1, kind == 1, &a, &err);
  if (st ? !err.text[0] || err.status != st : a.n < 1) abort();
  for (size_t i = 0; i < a.n && !st; i++) {
    int64_t sa[2], sb[2];
    double sum = 0;
    nm__adapter_sizes(&a.part[i], sa, sb);
    for (int64_t k = 0; k < sa[0] * sa[1]; k++) sum += (double)a.part[i].a[k];
    for (int64_t k = 0; k < sb[0] * sb[1]; k++) sum += (double)a.part[i].b[k];
    if (sum - sum != 0 || a.part[i].rank < 1) abort();
  }
  char hex[33];
  if (!st) nm__adapter_hash(&a, hex);
  nm__adapter_done(&a);
  return 0;
}
