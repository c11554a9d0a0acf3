/* params.c - the numbers that are learned. A container is made whose chosen tensors are f32 and
 * lie one after the other in one run of memory: the model reads them where the optimiser writes
 * them, a checkpoint writes them, and sums over all of them are sums over one array. */
#include "learn/learn.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/delta.h"

enum { ALIGN = 16 };               /* floats: rows start on a cache line */

static size_t padded(size_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

bool nm__params_decays(const struct nm__learned *v) { return v->rows > 1; }

static bool chosen(const struct nm__gguf_tensor *t, const char *const *globs, int n) {
  if (!strncmp(t->name, "rope_f", 6)) return false;    /* divisors of angles: facts */
  for (int i = 0; i < n; i++)
    if (!fnmatch(globs[i], t->name, 0)) return true;
  return false;
}

/* ---- a container ---------------------------------------------------------- */

static int list(const struct nm__gguf *g, const char *const *globs, int n_globs,
                struct nm__params *p, nm_err *err) {
  p->v = nm__alloc(g->n_tensors + 1, sizeof *p->v);
  if (!p->v) return nm__fail_memory(err, "the list of parameters", g->n_tensors * sizeof *p->v);
  for (size_t i = 0; i < g->n_tensors; i++) {
    const struct nm__gguf_tensor *t = &g->tensors[i];
    if (!chosen(t, globs, n_globs)) continue;
    if (!nm__dtype(t->type)->to_f32)
      return nm__fail(err, NM_EFORMAT, "%s: tensor %s is stored as %s and cannot be trained",
                      g->path, t->name, nm__dtype(t->type)->name);
    struct nm__learned *v = &p->v[p->n++];
    snprintf(v->name, sizeof v->name, "%s", t->name);
    v->cols = t->ne[0];
    v->rows = t->ne[1] * t->ne[2] * t->ne[3];
    v->at = p->n_floats;
    p->n_floats += padded((size_t)(v->rows * v->cols));
  }
  return NM_OK;
}

static void read_values(const struct nm__gguf_tensor *t, float *out) {
  const struct nm__dtype_info *d = nm__dtype(t->type);
  int64_t rows = t->ne[1] * t->ne[2] * t->ne[3];
  size_t bytes = (size_t)(t->ne[0] / d->block) * (size_t)d->bytes;
  for (int64_t r = 0; r < rows; r++)
    d->to_f32(out + r * t->ne[0], t->data + (size_t)r * bytes, t->ne[0]);
}

static int fill(const struct nm__gguf *g, struct nm__gguf *to, struct nm__params *p, nm_err *err) {
  int st = NM_OK, k = 0;
  to->hf_rows = g->hf_rows;        /* rows stay where they lie */
  for (size_t i = 0; i < g->n_kv && !st; i++)
    if (strcmp(g->kv[i].key, "general.alignment")) st = nm__gguf_add_kv(to, &g->kv[i], err);
  for (size_t i = 0; i < g->n_tensors && !st; i++) {
    const struct nm__gguf_tensor *t = &g->tensors[i];
    if (k < p->n && !strcmp(p->v[k].name, t->name)) {
      float *values = p->values + p->v[k++].at;
      read_values(t, values);
      st = nm__gguf_add_tensor(to, t->name, NM__F32, t->n_dims, t->ne, (const uint8_t *)values,
                               err);
    } else {
      st = nm__gguf_add_tensor(to, t->name, t->type, t->n_dims, t->ne, t->data, err);
    }
  }
  return st;
}

int nm__params_make(const struct nm__gguf *g, const char *const *globs, int n_globs,
                    struct nm__gguf **out, struct nm__params *p, nm_err *err) {
  *p = (struct nm__params){0};
  *out = NULL;
  int st = list(g, globs, n_globs, p, err);
  if (!st) st = nm__gguf_new(g->path, g->format, out, err);
  if (!st) p->values = nm__alloc_lines(p->n_floats + ALIGN, sizeof *p->values);
  if (!st && !p->values)
    st = nm__fail_memory(err, "the parameters", p->n_floats * sizeof *p->values);
  if (!st) st = fill(g, *out, p, err);
  if (!st) return NM_OK;
  nm__gguf_close(*out);
  *out = NULL;
  nm__params_done(p);
  return st;
}

void nm__params_done(struct nm__params *p) {
  for (int i = 0; i < p->n; i++) free(p->v[i].only);
  free(p->v);
  free(p->values);
  free(p->lora);
  *p = (struct nm__params){0};
}

/* ---- adapters --------------------------------------------------------------- */

/* "attn_q" stands for blk.*.attn_q.weight; anything with a dot or a star is a glob of its own. */
static bool is_target(const char *name, const struct nm__lora_opts *o) {
  char glob[120];
  for (int i = 0; i < o->n_targets; i++) {
    bool own = strpbrk(o->targets[i], ".*") != NULL;
    snprintf(glob, sizeof glob, own ? "%s" : "blk.*.%s.weight", o->targets[i]);
    if (!fnmatch(glob, name, 0)) return true;
  }
  return false;
}

static struct nm__learned *add_learned(struct nm__params *p, const char *name, const char *end,
                                       int64_t rows, int64_t cols) {
  struct nm__learned *v = &p->v[p->n++];
  *v = (struct nm__learned){.at = p->n_floats, .rows = rows, .cols = cols};
  snprintf(v->name, sizeof v->name, "%.60s.%s", name, end);
  p->n_floats += padded((size_t)(rows * cols));
  return v;
}

/* Uniform with variance 1 / cols: every number a function of (seed, name, element). */
static void draw(float *out, int64_t rows, int64_t cols, uint64_t seed, uint64_t stream) {
  double unit = __builtin_sqrt(3.0 / (double)cols);
  for (int64_t i = 0; i < rows * cols; i++)
    out[i] = (float)(unit * ((double)(nm__rand_at(seed, stream, (uint64_t)i) >> 11) * 0x1p-52 - 1));
}

/* Beside every product with rows of the weight: of a fused one (q, k, v) there are several. */
static int put_beside(struct nm__params *p, struct nm__deltas *d, const nm_model *m,
                      const char *name, const struct nm__learned *ab, float scale, nm_err *err) {
  struct nm__low_rank c = {p->values + ab[0].at, p->values + ab[1].at, ab[0].rows, scale};
  struct nm__place at;
  int n = 0;
  int st = nm__place_of(m, name, -1, &at) ? nm__deltas_beside(d, m, &at, &c, false, &n, err)
                                          : NM_OK;
  if (st || n) return st;
  return nm__fail(err, NM_EUSAGE, "%s: tensor %s is no matrix of its own that the model multiplies "
                  "with: no adapter is trained beside it", m->path, name);
}

/* Only without other parameters: their values must not move. */
int nm__params_lora(struct nm__params *p, const nm_model *m, const struct nm__lora_opts *o,
                    uint64_t seed, nm_err *err) {
  size_t most = 0;
  for (size_t i = 0; i < m->g->n_tensors; i++) most += is_target(m->g->tensors[i].name, o);
  if (p->n)
    return nm__fail(err, NM_EUSAGE, "adapters and other parameters are not trained together");
  if (!most || o->rank < 1)
    return nm__fail(err, NM_EUSAGE, "%s: no weight matches the adapters' targets", m->path);
  free(p->v);
  free(p->values);
  *p = (struct nm__params){.v = nm__alloc(2 * most, sizeof *p->v)};
  const char **name = nm__alloc(most, sizeof *name);
  if (!p->v || !name) return free(name), nm__fail_memory(err, "the adapters", most * sizeof *p->v);
  for (size_t i = 0; i < m->g->n_tensors; i++) {
    const struct nm__gguf_tensor *t = &m->g->tensors[i];
    if (!is_target(t->name, o)) continue;
    name[p->n / 2] = t->name;
    add_learned(p, t->name, "lora_a", o->rank, t->ne[0]);
    add_learned(p, t->name, "lora_b", t->ne[1], o->rank);
  }
  struct nm__deltas d = {0};
  p->values = nm__alloc_lines(p->n_floats + ALIGN, sizeof *p->values);
  int st = p->values ? NM_OK
                     : nm__fail_memory(err, "the adapters", p->n_floats * sizeof *p->values);
  for (int i = 0; i < p->n && !st; i += 2) {
    const struct nm__learned *a = &p->v[i];
    draw(p->values + a->at, a->rows, a->cols, seed, nm__hash(a->name, strlen(a->name), 0));
    if (!strcmp(name[i / 2], "token_embd.weight"))
      st = nm__fail(err, NM_EUSAGE, "adapters beside the embedding are not trained");
    else st = put_beside(p, &d, m, name[i / 2], a, o->alpha / (float)o->rank, err);
  }
  p->lora = d.v;                   /* nothing else was made for the list */
  p->n_lora = d.n;
  free(name);
  return st;
}
