/* adapter_base.c - adapters that noema trained name the model they stand on, so that such a file
 * (or a step of a training run, DIR@STEP) opens as a model: that one, the adapter beside it. */
#include "model/adapter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/hf.h"

int nm__adapter_put_base(struct nm__gguf *to, nm_model *base, nm_err *err) {
  char hex[33];
  char *path = realpath(base->g->path, NULL);
  const char *known = path ? path : base->g->path;
  int st = nm_model_hash(base, hex, err);
  if (!st) st = nm__gguf_add_string(to, NM__BASE_PATH, known, strlen(known), err);
  if (!st) st = nm__gguf_add_string(to, NM__BASE_HASH, hex, 32, err);
  free(path);
  return st;
}

/* A model that is none of the kind again: a file may name itself. */
static int open_plain(const char *base, nm_model **out, nm_err *err) {
  struct nm__gguf *g;
  int st = nm__model_map(base, &g, err);
  return st ? st : nm__model_from(g, out, err);
}

static int open_base(const struct nm__gguf *g, nm_model **out, nm_err *err) {
  const char *path = g->path;
  struct nm__str at, hash;
  char hex[33];
  nm_err why = {0};
  if (!nm__gguf_find(g, NM__BASE_PATH) || nm__gguf_string(g, NM__BASE_PATH, &at, NULL) ||
      nm__gguf_string(g, NM__BASE_HASH, &hash, NULL) || hash.n != 32)
    return nm__fail(err, NM_EFORMAT, "%s: is an adapter, no model, and does not say of which: give "
                    "the model, and this by --lora", path);
  char *base = nm__strndup(at.s, at.n);
  if (!base) return nm__fail_memory(err, "a path", at.n);
  int st = open_plain(base, out, &why);
  if (st)
    nm__fail(err, st, "%s: is an adapter of the model %.200s, which cannot be opened there; give "
             "the model where it is now, and this by --lora. %.200s", path, base, why.text);
  if (!st) st = nm_model_hash(*out, hex, err);
  if (!st && memcmp(hex, hash.s, 32))
    st = nm__fail(err, NM_EFORMAT, "%s: is an adapter of the model %.200s as it was: its hash is "
                  "%.8s now and was %.8s", path, base, hex, hash.s);
  free(base);
  return st;
}

static int put_beside(const char *path, nm_model *m, nm_err *err) {
  nm_adapter_file f = {path, 1};
  nm_adapters *a;
  char text[80];
  int st = nm_adapters_load(m, &f, 1, &a, err);
  if (st) return st;
  char *own = nm__strdup(path);
  if (!own) return nm_adapters_free(a), nm__fail_memory(err, "a path", strlen(path));
  free(m->path);
  m->path = own;
  m->adapters = a;
  snprintf(text, sizeof text, "%s %s", m->hash, a->v[0].hash);
  nm__hash_hex(text, strlen(text), m->hash);
  return NM_OK;
}

int nm__adapter_model(struct nm__gguf *g, nm_model **out, nm_err *err) {
  *out = NULL;
  int st = open_base(g, out, err);
  if (!st) st = put_beside(g->path, *out, err);
  nm__gguf_close(g);
  if (!st) return NM_OK;
  nm_model_close(*out);
  *out = NULL;
  return st;
}
