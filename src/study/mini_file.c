/* mini_file.c - a miniature's weights: kept in a file, taken from it, rounded. */
#include <string.h>

#include "study/mini.h"

static const char *const recipe_key = "general.description";

int nm__mini_save(const struct nm__mini *t, const char *path, const char *recipe, nm_err *err) {
  struct nm__gguf_writer *w;
  int st = nm__gguf_writer_new(&w, err);
  if (st) return st;
  for (size_t i = 0; i < t->start->n_kv; i++)
    if (strcmp(t->start->kv[i].key, recipe_key)) nm__gguf_put_kv(w, &t->start->kv[i]);
  nm__gguf_put_string(w, recipe_key, recipe);
  nm__gguf_put_f32s(w, "miniature.training",
                    (float[]){(float)t->late_from, (float)t->loss, (float)t->tokens}, 3);
  for (int i = 0; i < t->p.n; i++)
    nm__gguf_announce(w, t->p.v[i].name, NM__F32, t->p.v[i].rows > 1 ? 2 : 1,
                      (int64_t[]){t->p.v[i].cols, t->p.v[i].rows});
  st = nm__gguf_begin(w, path, err);
  for (int i = 0; i < t->p.n && !st; i++)
    st = nm__gguf_data(w, t->p.values + t->p.v[i].at,
                       sizeof(float) * (size_t)(t->p.v[i].rows * t->p.v[i].cols), err);
  if (!st) st = nm__gguf_finish(w, err);
  nm__gguf_writer_free(w);
  return st;
}

/* Every tensor is there, in the size it must have. */
static bool fits(const struct nm__mini *t, const struct nm__gguf *g, const char *recipe) {
  struct nm__str s;
  if (nm__gguf_string(g, recipe_key, &s, NULL) || s.n != strlen(recipe) ||
      memcmp(s.s, recipe, s.n))
    return false;
  for (int i = 0; i < t->p.n; i++) {
    const struct nm__gguf_tensor *x = nm__gguf_tensor(g, t->p.v[i].name);
    if (!x || x->type != NM__F32 || x->ne[0] != t->p.v[i].cols ||
        x->ne[1] * x->ne[2] * x->ne[3] != t->p.v[i].rows)
      return false;
  }
  return true;
}

bool nm__mini_load(struct nm__mini *t, const char *path, const char *recipe) {
  struct nm__gguf *g;
  if (!nm__exists(path) || nm__gguf_open(path, &g, NULL)) return false;
  bool good = fits(t, g, recipe);
  for (int i = 0; i < t->p.n && good; i++)
    memcpy(t->p.values + t->p.v[i].at, nm__gguf_tensor(g, t->p.v[i].name)->data,
           sizeof(float) * (size_t)(t->p.v[i].rows * t->p.v[i].cols));
  const struct nm__gguf_kv *kv = nm__gguf_find(g, "miniature.training");
  double v[3] = {-1, 0, 0};
  for (uint64_t i = 0; kv && i < 3; i++) nm__gguf_float_at(kv, i, &v[i]);
  nm__gguf_close(g);
  if (good) t->late_from = (int)v[0], t->loss = v[1], t->tokens = v[2];
  return good;
}

/* ---- rounding --------------------------------------------------------------------------- */

static bool in_block(const struct nm__learned *v) {
  return !strncmp(v->name, "blk.", 4) && v->rows > 1;
}

static double nearest(double x) {
  return x < 0 ? -(double)(int64_t)(0.5 - x) : (double)(int64_t)(x + 0.5);
}

void nm__mini_round(struct nm__params *p, int bits) {
  double levels = (double)((1 << (bits - 1)) - 1);
  for (int i = 0; i < p->n; i++) {
    const struct nm__learned *v = &p->v[i];
    if (!in_block(v)) continue;
    for (int64_t r = 0; r < v->rows; r++) {
      float *x = p->values + v->at + r * v->cols;
      double most = 0;
      for (int64_t k = 0; k < v->cols; k++) {
        double a = x[k] < 0 ? -(double)x[k] : (double)x[k];
        if (a > most) most = a;
      }
      for (int64_t k = 0; k < v->cols && most > 0; k++)
        x[k] = (float)(nearest((double)x[k] / most * levels) * most / levels);
    }
  }
}

static int different(const float *x, int64_t n, int enough) {
  float seen[64];
  int k = 0;
  for (int64_t i = 0; i < n && k < enough; i++) {
    int j = 0;
    while (j < k && seen[j] != x[i]) j++;
    if (j == k) seen[k++] = x[i];
  }
  return k;
}

int nm__mini_most_values(const struct nm__params *p) {
  int most = 0;
  for (int i = 0; i < p->n; i++)
    for (int64_t r = 0; in_block(&p->v[i]) && r < p->v[i].rows; r++) {
      int k = different(p->values + p->v[i].at + r * p->v[i].cols, p->v[i].cols, 64);
      if (k > most) most = k;
    }
  return most;
}
