/* fresh.c - a new model in memory: keys and tensors of a shape, every number a function of (seed,
 * name of the tensor, element), so that a model does not change when another family's tensors come
 * in another order. Matrices and tables are normal with one standard deviation, what is added to
 * the stream is divided by sqrt(2 L) (Radford et al. 2019); norms are 1, biases 0. */
#include "learn/learn.h"

#include <stdlib.h>
#include <string.h>

#include "model/shape.h"
#include "tensor/math.h"

static int put_key(void *arg, const struct nm__shape_key *k, nm_err *err) {
  struct nm__gguf *g = arg;
  switch (k->kind) {
    case NM__KEY_TEXT: return nm__gguf_add_string(g, k->name, k->text, strlen(k->text), err);
    case NM__KEY_U32: return nm__gguf_add_u32(g, k->name, (uint32_t)k->v, err);
    case NM__KEY_F32: return nm__gguf_add_f32(g, k->name, (float)k->v, err);
    default: return nm__gguf_add_bool(g, k->name, k->v != 0, err);
  }
}

static int add_tensor(struct nm__gguf *g, const struct nm__shape *s, const struct nm__spec *t,
                      uint64_t seed, nm_err *err) {
  int64_t n = t->rows * t->cols;
  float *x = nm__gguf_own(g, (size_t)n, sizeof *x, err);
  if (!x) return NM_EMEMORY;
  double std = (double)s->std;
  if (t->role == NM__ROLE_RESIDUAL) std /= nm__sqrt(2.0 * s->L);
  if (t->role == NM__ROLE_NORM)
    for (int64_t i = 0; i < n; i++) x[i] = 1;
  else if (t->role != NM__ROLE_BIAS)
    nm__normals(x, n, std, seed, nm__hash(t->name, strlen(t->name), 0));
  return nm__gguf_add_tensor(g, t->name, NM__F32, t->rows > 1 ? 2 : 1,
                             (int64_t[]){t->cols, t->rows, 1, 1}, (const uint8_t *)x, err);
}

/* The vocabulary has as many rows as the tokenizer has pieces. */
static int take_tokenizer(struct nm__gguf *g, const struct nm__gguf *tok, struct nm__shape *s,
                          nm_err *err) {
  const struct nm__gguf_kv *pieces = tok ? nm__gguf_find(tok, "tokenizer.ggml.tokens") : NULL;
  if (pieces && !s->V) s->V = (int)pieces->n;
  if (pieces && (uint64_t)s->V != pieces->n)
    return nm__fail(err, NM_EUSAGE, "a vocabulary of %d does not fit a tokenizer of %llu pieces",
                    s->V, (unsigned long long)pieces->n);
  int st = nm__shape_check(s, err);
  if (!st) st = nm__shape_keys(s, put_key, g, err);
  for (size_t i = 0; tok && i < tok->n_kv && !st; i++)
    if (!strncmp(tok->kv[i].key, "tokenizer.", 10) && !nm__gguf_find(g, tok->kv[i].key))
      st = nm__gguf_add_kv(g, &tok->kv[i], err);
  return st;
}

int nm__fresh(const struct nm__shape *shape, const struct nm__gguf *tokenizer, uint64_t seed,
              struct nm__gguf **out, nm_err *err) {
  struct nm__shape s = *shape;
  struct nm__specs t = {0};
  int st = nm__gguf_new(s.name ? s.name : "a new model", "GGUF v3", out, err);
  if (!st) st = take_tokenizer(*out, tokenizer, &s, err);
  if (!st) st = nm__shape_tensors(&s, &t, err);
  for (int i = 0; i < t.n && !st; i++) st = add_tensor(*out, &s, &t.v[i], seed, err);
  free(t.v);
  if (!st) return NM_OK;
  nm__gguf_close(*out);
  *out = NULL;
  return st;
}
