/* train_save.c - what a run has learned, in forms that are opened again: a model, adapters as
 * llama.cpp reads them, a soft prompt, vectors as an edit file. */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "learn/train.h"
#include "model/hf.h"

/* ---- the trained model -------------------------------------------------------- */

/* The tensor of the base of which only some rows or columns were learned; NULL: all of it was, or
 * none. A block of a quantised type goes along a row, so columns of such a one stay F32. */
static const struct nm__gguf_tensor *kept_of(const struct nm__training *t, const char *name,
                                             const struct nm__learned **v) {
  *v = nm__params_find(&t->p, name);
  if (!*v || !(*v)->only) return NULL;
  const struct nm__gguf_tensor *base = nm__gguf_tensor(t->base, name);
  const struct nm__dtype_info *d = base ? nm__dtype(base->type) : NULL;
  return d && (base->type == NM__F32 || (d->from_f32 && (d->block == 1 || !(*v)->by_column)))
             ? base : NULL;
}

/* What was trained (F32) is stored in the type asked for where its rows are whole blocks; what was
 * trained in parts, as it was. */
static uint32_t type_of(const struct nm__training *run, const struct nm__gguf_tensor *t,
                        uint32_t save) {
  const struct nm__learned *v;
  const struct nm__gguf_tensor *base = kept_of(run, t->name, &v);
  if (base || (v && v->only)) return base ? base->type : t->type;
  bool matrix = t->n_dims > 1 && t->type == NM__F32;
  return matrix && t->ne[0] % nm__dtype(save)->block == 0 ? save : t->type;
}

static int write_rows(struct nm__gguf_writer *w, const struct nm__gguf_tensor *t, uint32_t type,
                      const uint8_t *data, nm_err *err) {
  if (type == t->type) return nm__gguf_data(w, data, (size_t)t->bytes, err);
  const struct nm__dtype_info *d = nm__dtype(type);
  int64_t rows = t->ne[1] * t->ne[2] * t->ne[3];
  size_t bytes = (size_t)(t->ne[0] / d->block) * (size_t)d->bytes;
  uint8_t *row = nm__alloc(bytes + 1, 1);
  int st = row ? NM_OK : nm__fail_memory(err, t->name, bytes);
  for (int64_t r = 0; r < rows && !st; r++) {
    d->from_f32(row, (const float *)data + r * t->ne[0], t->ne[0]);
    st = nm__gguf_data(w, row, bytes, err);
  }
  free(row);
  return st;
}

/* The base's own bytes, with the rows that were learned in their place. */
static int write_kept(struct nm__gguf_writer *w, const struct nm__training *t,
                      const struct nm__gguf_tensor *base, const struct nm__learned *v,
                      nm_err *err) {
  const struct nm__dtype_info *d = nm__dtype(base->type);
  struct nm__gguf_tensor made = *base;
  size_t bytes = (size_t)base->bytes / (size_t)v->rows;
  uint8_t *all = nm__alloc((size_t)base->bytes + 1, 1), *own = NULL;
  if (!all) return nm__fail_memory(err, base->name, (size_t)base->bytes);
  memcpy(all, base->data, (size_t)base->bytes);
  for (int64_t i = 0; i < (v->by_column ? v->rows : v->n_only); i++) {
    int64_t row = v->by_column ? i : v->only[i];
    const float *x = t->p.values + v->at + row * v->cols;
    if (base->type == NM__F32) memcpy(all + (size_t)row * bytes, x, bytes);
    else d->from_f32(all + (size_t)row * bytes, x, v->cols);
  }
  made.data = all;
  const uint8_t *data = nm__hf_file_order(t->base, &made, &own, err);
  int st = data ? nm__gguf_data(w, data, (size_t)base->bytes, err) : NM_EMEMORY;
  free(own);
  free(all);
  return st;
}

/* Rows in the order of a file. */
static int write_tensor(struct nm__gguf_writer *w, const struct nm__gguf *g,
                        const struct nm__gguf_tensor *t, uint32_t type, nm_err *err) {
  uint8_t *made;
  const uint8_t *data = nm__hf_file_order(g, t, &made, err);
  int st = data || !t->bytes ? write_rows(w, t, type, data, err) : NM_EMEMORY;
  free(made);
  return st;
}

static int save_model(struct nm__training *t, struct nm__gguf_writer *w, const char *path,
                      nm_err *err) {
  const struct nm__gguf *g = t->m->g;
  uint32_t save = (uint32_t)nm__dtype_by_name(t->r.save);
  nm__ckpt_put_keys(w, g);
  for (size_t i = 0; i < g->n_tensors; i++)
    nm__gguf_announce(w, g->tensors[i].name, type_of(t, &g->tensors[i], save), g->tensors[i].n_dims,
                      g->tensors[i].ne);
  int st = nm__gguf_begin(w, path, err);
  for (size_t i = 0; i < g->n_tensors && !st; i++) {
    const struct nm__learned *v;
    const struct nm__gguf_tensor *base = kept_of(t, g->tensors[i].name, &v);
    st = base ? write_kept(w, t, base, v, err)
              : write_tensor(w, g, &g->tensors[i], type_of(t, &g->tensors[i], save), err);
  }
  return st;
}

/* As llama.cpp reads adapters: two matrices a weight, named after it. A soft prompt is a tensor
 * "prompt" beside them, which llama.cpp and --lora refuse: without it the adapters are not what was
 * learned. */
static int save_adapter(struct nm__training *t, struct nm__gguf_writer *w, const char *path,
                        nm_err *err) {
  struct nm__gguf *g;
  int st = nm__training_adapter(t, &g, err);
  if (st) return st;
  nm__ckpt_put_keys(w, g);
  for (size_t i = 0; i < g->n_tensors; i++)
    nm__gguf_announce(w, g->tensors[i].name, NM__F32, 2, g->tensors[i].ne);
  st = nm__gguf_begin(w, path, err);
  for (size_t i = 0; i < g->n_tensors && !st; i++)
    st = nm__gguf_data(w, g->tensors[i].data, (size_t)g->tensors[i].bytes, err);
  nm__gguf_close(g);
  return st;
}

typedef int writes(struct nm__training *t, struct nm__gguf_writer *w, const char *path,
                   nm_err *err);
static int save_as(struct nm__training *t, const char *name, writes *fn, nm_err *err) {
  char *path = nm__path_join(t->dir, name);
  struct nm__gguf_writer *w = NULL;
  int st = path ? nm__gguf_writer_new(&w, err) : nm__fail_memory(err, "a path", 0);
  if (!st) st = fn(t, w, path, err);
  if (!st) st = nm__gguf_finish(w, err);
  nm__gguf_writer_free(w);
  free(path);
  return st;
}

/* edits.json and a NAME.npy a vector: what `--edit` of logits and acts takes. */
static int save_edits(struct nm__training *t, nm_err *err) {
  json_t *list = json_array();
  int st = list ? NM_OK : nm__fail_memory(err, "the edits", 0);
  for (int i = 0; i < t->r.n_vectors && !st; i++) {
    const struct nm__vector_key *e = &t->r.vector[i];
    char name[120];
    snprintf(name, sizeof name, "%s.npy", e->name);
    char *path = nm__path_join(t->dir, name);
    json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:f}", "site", e->site, "at",
                                          e->where ? e->where : "all", "op", "add", "vector", name,
                                          "scale", e->scale));
    snprintf(name, sizeof name, "vector.%s", e->name);
    st = path ? nm__params_write(&t->p, name, path, err) : nm__fail_memory(err, "a path", 0);
    free(path);
  }
  char *s = st ? NULL : json_dumps(list, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
  char *path = s ? nm__path_join(t->dir, "edits.json") : NULL;
  if (!st) st = path ? nm__write_file(path, s, strlen(s), err) : nm__fail_memory(err, "a path", 0);
  json_decref(list);
  free(s);
  free(path);
  return st;
}

int nm__training_save(struct nm__training *t, nm_err *err) {
  int st = NM_OK;
  if (t->base) st = save_as(t, "model.gguf", save_model, err);
  if (!st && (t->p.n_lora || t->p.n_prompt)) st = save_as(t, "adapter.gguf", save_adapter, err);
  if (!st && t->r.n_vectors) st = save_edits(t, err);
  return st;
}
