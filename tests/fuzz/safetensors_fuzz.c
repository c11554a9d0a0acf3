/* safetensors_fuzz.c - any bytes given to the safetensors reader are refused with a sentence
 * or read; what was read can be walked from end to end. For libFuzzer. */
#include "file/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static volatile uint64_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  struct nm__st *s;
  nm_err err = {0};
  if (nm__st_parse("fuzz", bytes, n, &s, &err)) {
    if (!err.text[0] || s) abort();
    return 0;
  }
  uint64_t at = 0;
  for (size_t i = 0; i < s->n; i++) {
    const struct nm__st_tensor *t = &s->t[i];
    if (nm__st_find(s, t->name) != t || t->begin != at) abort();
    if (t->bytes) sink += t->data[0] + t->data[t->bytes - 1];
    at += t->bytes;
  }
  for (size_t i = 0; i < s->n_meta; i++) sink += (uint8_t)s->meta[i].value[0];
  nm__st_close(s);
  return 0;
}
