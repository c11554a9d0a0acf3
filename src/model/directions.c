/* directions.c - vectors for edits, out of three kinds of files told by their content:
 *
 *   .npy          [n], [sites, n] or [sites, positions, n]
 *   safetensors   one tensor of such a shape
 *   GGUF          a control vector: tensors direction.K [n], K the block after which llama.cpp
 *                 adds it (from 1 on; block 0 never gets one) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "file/npy.h"
#include "file/safetensors.h"
#include "model/model.h"

enum { BLOCKS_MAX = 4096 };

void nm__dirs_done(struct nm__dirs *d) {
  free(d->v);
  free(d->has);
  *d = (struct nm__dirs){0};
}

/* The shape of an array as rows, positions, values. */
static int shape_of(const char *name, int n_dims, const int64_t *ne, struct nm__dirs *d,
                    nm_err *err) {
  if (n_dims > 3)
    return nm__fail(err, NM_EFORMAT, "%s: an array of %d dimensions is no vector (they have [n], "
                    "[sites, n] or [sites, positions, n])", name, n_dims);
  d->n = n_dims ? ne[n_dims - 1] : 1;
  d->rows = n_dims > 1 ? ne[0] : 1;
  d->pos = n_dims > 2 ? ne[1] : 1;
  if (d->n < 1 || d->rows < 1 || d->pos < 1)
    return nm__fail(err, NM_EFORMAT, "%s: the vector is empty", name);
  return NM_OK;
}

static int from_npy(const char *name, const void *bytes, size_t n, struct nm__dirs *d,
                    nm_err *err) {
  struct nm__npy a;
  int st = nm__npy_parse(name, bytes, n, &a, err);
  if (st) return st;
  if (!(st = shape_of(name, a.n_dims, a.ne, d, err))) {
    d->v = a.data;
    a.data = NULL;
  }
  nm__npy_done(&a);
  return st;
}

/* ---- safetensors ------------------------------------------------------------ */

static int find_tensor(const char *name, const struct nm__st *s, const char *want,
                       const struct nm__st_tensor **out, nm_err *err) {
  char shown[80];
  *out = want ? nm__st_find(s, want) : s->n == 1 ? s->t : NULL;
  if (*out && (*out)->type >= 0 && nm__dtype((uint32_t)(*out)->type)->to_f32) return NM_OK;
  if (*out)
    return nm__fail(err, NM_EFORMAT, "%s: tensor '%s' has the type %s, which is no vector's", name,
                    nm__printable(shown, sizeof shown, (*out)->name, strlen((*out)->name)),
                    (*out)->dtype);
  if (!want)
    return nm__fail(err, NM_EFORMAT, "%s: holds %zu tensors; say which with \"tensor\"", name,
                    s->n);
  return nm__fail(err, NM_EFORMAT, "%s: has no tensor '%s'", name,
                  nm__printable(shown, sizeof shown, want, strlen(want)));
}

static int from_safetensors(const char *name, const void *bytes, size_t n, const char *want,
                            struct nm__dirs *d, nm_err *err) {
  struct nm__st *s;
  const struct nm__st_tensor *t;
  int st = nm__st_parse(name, bytes, n, &s, err);
  if (st) return st;
  st = find_tensor(name, s, want, &t, err);
  if (!st) st = shape_of(name, t->n_dims, t->shape, d, err);
  if (!st) {
    size_t all = (size_t)(d->rows * d->pos * d->n);    /* the parser compared it with the file */
    d->v = nm__alloc(all, sizeof(float));
    if (d->v) nm__dtype((uint32_t)t->type)->to_f32(d->v, t->data, (int64_t)all);
    else st = nm__fail_memory(err, "a vector", all * sizeof(float));
  }
  nm__st_close(s);
  return st;
}

/* ---- control vectors ---------------------------------------------------------- */

/* K of "direction.K"; 0: it is none. */
static int block_of(const char *name) {
  char *end;
  if (strncmp(name, "direction.", 10) || name[10] < '1' || name[10] > '9') return 0;
  long k = strtol(name + 10, &end, 10);
  return *end || k >= BLOCKS_MAX ? 0 : (int)k;
}

static int check_direction(const char *name, const struct nm__gguf_tensor *t, int64_t n,
                           nm_err *err) {
  char shown[80];
  nm__printable(shown, sizeof shown, t->name, strlen(t->name));
  if (!block_of(t->name))
    return nm__fail(err, NM_EFORMAT, "%s: tensor '%s' is no direction of a control vector "
                    "(direction.1, direction.2, ...; block 0 has none)", name, shown);
  if (t->type != NM__F32 || t->n_dims != 1)
    return nm__fail(err, NM_EFORMAT, "%s: tensor '%s' must be a row of F32", name, shown);
  if (t->ne[0] != n || n < 1)
    return nm__fail(err, NM_EFORMAT, "%s: tensor '%s' has %lld values, others have %lld", name,
                    shown, (long long)t->ne[0], (long long)n);
  return NM_OK;
}

/* Rows up to the last block with a direction. Memory stays in proportion to the file: blocks that
 * have none may not outnumber those that do a thousandfold. */
static int fill_directions(const char *name, const struct nm__gguf *g, struct nm__dirs *d,
                           nm_err *err) {
  d->n = g->tensors[0].ne[0];
  d->pos = 1;
  for (size_t i = 0; i < g->n_tensors; i++) {
    int st = check_direction(name, &g->tensors[i], d->n, err);
    if (st) return st;
    if (block_of(g->tensors[i].name) >= d->rows) d->rows = block_of(g->tensors[i].name) + 1;
  }
  if ((uint64_t)d->rows > 64 * (g->n_tensors + 4))
    return nm__fail(err, NM_EFORMAT, "%s: %zu directions, but the last is for block %lld", name,
                    g->n_tensors, (long long)d->rows - 1);
  d->v = nm__alloc((size_t)d->rows * (size_t)d->n, sizeof(float));
  d->has = nm__alloc((size_t)d->rows, 1);
  if (!d->v || !d->has) return nm__fail_memory(err, "a control vector", (size_t)d->n);
  for (size_t i = 0; i < g->n_tensors; i++) {
    int k = block_of(g->tensors[i].name);
    memcpy(d->v + k * d->n, g->tensors[i].data, sizeof(float) * (size_t)d->n);
    d->has[k] = 1;
  }
  return NM_OK;
}

static int from_gguf(const char *name, const void *bytes, size_t n, struct nm__dirs *d,
                     nm_err *err) {
  struct nm__gguf *g;
  struct nm__str arch = {"", 0};
  int st = nm__gguf_parse(name, bytes, n, &g, err);
  if (st) return st;
  nm__gguf_string(g, "general.architecture", &arch, NULL);
  if (arch.n != 13 || memcmp(arch.s, "controlvector", 13))
    st = nm__fail(err, NM_EFORMAT, "%s: is no control vector (its general.architecture is not "
                  "\"controlvector\")", name);
  else if (!g->n_tensors) st = nm__fail(err, NM_EFORMAT, "%s: holds no direction", name);
  else st = fill_directions(name, g, d, err);
  nm__gguf_close(g);
  return st;
}

int nm__dirs_write_gguf(const char *path, const char *model_arch, const struct nm__dirs *d,
                        nm_err *err) {
  struct nm__gguf_writer *w;
  char name[40];
  int n = 0, st = nm__gguf_writer_new(&w, err);
  if (st) return st;
  for (int64_t k = 1; k < d->rows; k++) n += d->has[k];
  nm__gguf_put_string(w, "general.architecture", "controlvector");
  nm__gguf_put_string(w, "controlvector.model_hint", model_arch);
  nm__gguf_put_u32(w, "controlvector.layer_count", (uint32_t)n);
  for (int64_t k = 1; k < d->rows; k++) {
    snprintf(name, sizeof name, "direction.%d", (int)k);
    if (d->has[k]) nm__gguf_announce(w, name, NM__F32, 1, &d->n);
  }
  st = n ? nm__gguf_begin(w, path, err)
         : nm__fail(err, NM_EUSAGE, "%s: a control vector begins at block 1, and there is no "
                    "direction for it or a later one", path);
  for (int64_t k = 1; k < d->rows && !st; k++)
    if (d->has[k])
      st = nm__gguf_data(w, d->v + k * d->n, sizeof(float) * (size_t)d->n, err);
  if (!st) st = nm__gguf_finish(w, err);
  nm__gguf_writer_free(w);
  return st;
}

/* ---- any of them ----------------------------------------------------------------- */

int nm__dirs_parse(const char *name, const void *bytes, size_t n, const char *tensor,
                   struct nm__dirs *out, nm_err *err) {
  *out = (struct nm__dirs){0};
  bool npy = n >= 6 && !memcmp(bytes, "\x93NUMPY", 6), gguf = n >= 4 && !memcmp(bytes, "GGUF", 4);
  int st = npy    ? from_npy(name, bytes, n, out, err)
           : gguf ? from_gguf(name, bytes, n, out, err)
                  : from_safetensors(name, bytes, n, tensor, out, err);
  for (int64_t i = 0; !st && i < out->rows * out->pos * out->n; i++)
    if (out->v[i] - out->v[i] != 0)
      st = nm__fail(err, NM_EFORMAT, "%s: the vector holds a value that is not finite", name);
  if (st) nm__dirs_done(out);
  return st;
}

int nm__dirs_read(const char *path, const char *tensor, struct nm__dirs *out, nm_err *err) {
  struct nm__map m;
  *out = (struct nm__dirs){0};
  int st = nm__map_open(path, &m, err);
  if (st) return st;
  st = nm__dirs_parse(path, m.data, m.size, tensor, out, err);
  nm__map_close(&m);
  return st;
}
