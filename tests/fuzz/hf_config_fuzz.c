/* hf_config_fuzz.c - any text given as a config.json is refused with a sentence or becomes keys;
 * where they can be written as a config.json again, that is read again. For libFuzzer. */
#include "model/hf.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static struct nm__gguf *keys(const char *text, size_t n, int *st, nm_err *err) {
  struct nm__gguf *g;
  struct nm__hf_facts facts;
  if (nm__gguf_new("fuzz", "safetensors", &g, err)) abort();
  *st = nm__hf_keys("fuzz", text, n, g, &facts, err);
  if (!*st && !facts.f) abort();
  return g;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  nm_err err = {0};
  json_t *c = NULL;
  int st;
  struct nm__gguf *g = keys((const char *)bytes, n, &st, &err), *again;
  if (st && !err.text[0]) abort();
  if (!st && !nm__hf_config(g, &c, &err)) {
    char *s = json_dumps(c, 0);
    again = keys(s, strlen(s), &st, &err);
    if (st) abort();
    nm__gguf_close(again);
    free(s);
  }
  json_decref(c);
  nm__gguf_close(g);
  return 0;
}
