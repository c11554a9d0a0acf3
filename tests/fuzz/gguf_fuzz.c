/* gguf_fuzz.c - any bytes given to the GGUF reader are refused with a sentence or read;
 * what was read can be walked from end to end. For libFuzzer. */
#include "file/gguf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static volatile uint64_t sink;

static void walk_kv(const struct nm__gguf_kv *kv) {
  int64_t v;
  double d;
  for (uint64_t i = 0; i < kv->n; i++) {
    if (nm__gguf_int_at(kv, i, &v)) sink += (uint64_t)v;
    if (nm__gguf_float_at(kv, i, &d)) sink += d > 0;
    for (size_t k = 0; kv->strings && k < kv->strings[i].n; k++)
      sink += (uint8_t)kv->strings[i].s[k];
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  struct nm__gguf *g;
  nm_err err = {0};
  if (nm__gguf_parse("fuzz", bytes, n, &g, &err)) {
    if (!err.text[0]) abort();
    return 0;
  }
  for (size_t i = 0; i < g->n_kv; i++) {
    struct nm__str s;
    walk_kv(&g->kv[i]);
    if (!nm__gguf_string(g, g->kv[i].key, &s, &err) && s.n) sink += (uint8_t)s.s[s.n - 1];
  }
  for (size_t i = 0; i < g->n_tensors; i++) {
    const struct nm__gguf_tensor *t = &g->tensors[i];
    if (nm__gguf_tensor(g, t->name) != t) abort();
    if (t->bytes) sink += t->data[0] + t->data[t->bytes - 1];
  }
  nm__gguf_close(g);
  return 0;
}
