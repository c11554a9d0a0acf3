/* adapter_gguf.c - adapters as llama.cpp reads them: NAME.lora_a [cols, rank] and NAME.lora_b
 * [rank, rows] beside the name of a tensor, sizes fastest first; alpha in a key. Of token_embd
 * the sizes are lora_a [rank, vocabulary] and lora_b [rank, width]. Experts are stacked in a
 * third one. */
#include "model/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/hf.h"

enum { RANK_MAX = 1 << 16 };

bool nm__adapter_is(const struct nm__gguf *g) {
  struct nm__str s;
  return nm__gguf_find(g, "general.type") && !nm__gguf_string(g, "general.type", &s, NULL) &&
         s.n == 7 && !memcmp(s.s, "adapter", 7);
}

static int check_keys(const struct nm__gguf *g, struct nm__adapter *a, float *alpha, nm_err *err) {
  struct nm__str kind, arch;
  double v = 0;
  char shown[40];
  if (!nm__adapter_is(g))
    return nm__fail(err, NM_EFORMAT, "%s: is no adapter: its key general.type does not say so",
                    g->path);
  int st = nm__gguf_string(g, "adapter.type", &kind, err);
  if (!st) st = nm__gguf_string(g, "general.architecture", &arch, err);
  if (st) return st;
  if (kind.n != 4 || memcmp(kind.s, "lora", 4))
    return nm__fail(err, NM_EFORMAT, "%s: is an adapter of type '%s'; only lora is known", g->path,
                    nm__printable(shown, sizeof shown, kind.s, kind.n));
  if (nm__gguf_find(g, "adapter.alora.invocation_tokens"))
    return nm__fail(err, NM_EFORMAT, "%s: is a LoRA that begins at certain tokens (aLoRA), which "
                    "is not supported", g->path);
  nm__printable(a->arch, sizeof a->arch, arch.s, arch.n);
  if (nm__gguf_find(g, "adapter.lora.alpha") &&
      (st = nm__gguf_float(g, "adapter.lora.alpha", &v, err))) return st;
  if (!isfinite(v)) return nm__fail(err, NM_EFORMAT, "%s: alpha is %g", g->path, v);
  *alpha = (float)v;
  return NM_OK;
}

static int bad_tensor(const struct nm__gguf *g, const char *name, const char *why, nm_err *err) {
  char shown[100];
  return nm__fail(err, NM_EFORMAT, "%s: tensor '%s' %s", g->path,
                  nm__printable(shown, sizeof shown, name, strlen(name)), why);
}

/* Rows first .. first + n of t, as floats. */
static void read_rows(const struct nm__gguf_tensor *t, int64_t first, int64_t n, float *out) {
  const struct nm__dtype_info *d = nm__dtype(t->type);
  size_t row = (size_t)(t->ne[0] / d->block) * (size_t)d->bytes;
  for (int64_t i = 0; i < n; i++)
    d->to_f32(out + i * t->ne[0], t->data + (size_t)(first + i) * row, t->ne[0]);
}

/* The pair a, b as parts: one, or one an expert. */
static int add_pair(const struct nm__gguf *g, const char *base, const struct nm__gguf_tensor *a,
                    const struct nm__gguf_tensor *b, float alpha, struct nm__adapter *out,
                    nm_err *err) {
  char stacked[80], front[80];
  bool lookup = !strcmp(base, "token_embd.weight");
  int alone = nm__expert_of(base, stacked, front);
  int64_t rank = b->ne[0], n = a->ne[2];
  if (!nm__dtype(a->type)->to_f32 || !nm__dtype(b->type)->to_f32 || a->n_dims < 2 ||
      b->n_dims < 2)
    return bad_tensor(g, a->name, "and its lora_b must be matrices of numbers", err);
  if (a->ne[lookup ? 0 : 1] != rank || b->ne[2] != n || a->ne[3] != 1 || b->ne[3] != 1 ||
      rank < 1 || rank > RANK_MAX)
    return bad_tensor(g, a->name, "and its lora_b do not fit together: they share no rank", err);
  if (a->ne[0] < 1 || a->ne[1] < 1 || b->ne[1] < 1 || n < 1)
    return bad_tensor(g, a->name, "and its lora_b hold nothing", err);
  if (n > 1 && !strstr(base, "_exps.weight"))
    return bad_tensor(g, a->name, "has three dimensions, as only experts have", err);
  bool experts = strstr(base, "_exps.weight") != NULL;
  for (int64_t e = 0; e < n; e++) {
    struct nm__adapter_part *p =
        nm__adapter_add(out, alone >= 0 ? stacked : base, experts ? (int)e : alone, lookup, rank,
                        lookup ? a->ne[1] : b->ne[1], lookup ? b->ne[1] : a->ne[0], err);
    if (!p) return err ? err->status : NM_EMEMORY;
    read_rows(a, e * a->ne[1], a->ne[1], p->a);
    read_rows(b, e * b->ne[1], b->ne[1], p->b);
    p->scale = alpha != 0 ? alpha / (float)rank : 1;
  }
  return NM_OK;
}

int nm__adapter_from_gguf(const struct nm__gguf *g, struct nm__adapter *out, nm_err *err) {
  nm_err own = {0};
  float alpha = 0;
  size_t n_b = 0, n_a = 0;
  if (!err) err = &own;
  out->form = "GGUF";
  int st = check_keys(g, out, &alpha, err);
  for (size_t i = 0; i < g->n_tensors && !st; i++) {
    const struct nm__gguf_tensor *t = &g->tensors[i];
    char name[160], other[160];
    size_t n = strlen(t->name), cut = sizeof ".lora_a" - 1;
    bool a = n > cut && !strcmp(t->name + n - cut, ".lora_a");
    bool b = n > cut && !strcmp(t->name + n - cut, ".lora_b");
    n_a += a;
    n_b += b;
    if (n >= sizeof name || (!a && !b))
      return bad_tensor(g, t->name, "is no part of a LoRA (NAME.lora_a, NAME.lora_b)", err);
    if (!a) continue;
    snprintf(name, sizeof name, "%.*s", (int)(n - cut), t->name);
    snprintf(other, sizeof other, "%.*sb", (int)(n - 1), t->name);
    const struct nm__gguf_tensor *pair = nm__gguf_tensor(g, other);
    st = pair ? add_pair(g, name, t, pair, alpha, out, err)
              : bad_tensor(g, t->name, "has no lora_b beside it", err);
  }
  if (!st && n_a != n_b) st = nm__fail(err, NM_EFORMAT, "%s: has %zu lora_a and %zu lora_b: some "
                                       "have no partner", g->path, n_a, n_b);
  return st ? st : nm__adapter_check(out, err);
}

/* ---- writing ------------------------------------------------------------------- */

/* The alpha of all parts; where they differ 0, and then each B carries its factor. */
static float common_alpha(const struct nm__adapter *a) {
  float alpha = a->part[0].scale * (float)a->part[0].rank;
  for (size_t i = 1; i < a->n; i++)
    if (a->part[i].scale * (float)a->part[i].rank != alpha ||
        alpha / (float)a->part[i].rank != a->part[i].scale)
      return 0;
  return alpha;
}

/* Parts i .. i + n are the experts of one stack, ascending and whole, of one rank; else n is 1. */
static size_t stack_of(const struct nm__adapter *a, size_t i) {
  size_t n = 1;
  const struct nm__adapter_part *p = &a->part[i];
  while (p->expert >= 0 && i + n < a->n && !strcmp(p[n].name, p->name)) n++;
  return n;
}

static int check_stack(const struct nm__adapter_part *p, size_t n, int n_expert, nm_err *err) {
  if (p->expert >= 0 && n != (size_t)n_expert)
    return nm__fail(err, NM_EFORMAT, "%s: a GGUF file stacks the adapters of all %d experts; here "
                    "are %zu", p->name, n_expert, n);
  for (size_t e = 0; e < n && p->expert >= 0; e++)
    if (p[e].expert != (int)e || p[e].rank != p->rank || p[e].rows != p->rows ||
        p[e].cols != p->cols)
      return nm__fail(err, NM_EFORMAT, "%s: a GGUF file stacks the adapters of all experts, and "
                      "these have not the same rank or begin behind the first expert", p->name);
  return NM_OK;
}

static void announce(struct nm__gguf_writer *w, const struct nm__adapter_part *p, size_t n,
                     char end) {
  char name[180];
  int64_t a[2], b[2];
  nm__adapter_sizes(p, a, b);
  const int64_t *s = end == 'a' ? a : b;
  snprintf(name, sizeof name, "%.160s.lora_%c", p->name, end);
  nm__gguf_announce(w, name, NM__F32, p->expert >= 0 ? 3 : 2,
                    (int64_t[]){s[1], s[0], (int64_t)n});
}

static int write_stack(struct nm__gguf_writer *w, const struct nm__adapter_part *p, size_t n,
                       bool is_b, bool folded, nm_err *err) {
  int st = NM_OK;
  for (size_t e = 0; e < n && !st; e++) {
    int64_t a[2], b[2];
    nm__adapter_sizes(&p[e], a, b);
    size_t k = (size_t)(is_b ? b[0] * b[1] : a[0] * a[1]);
    float *v = nm__alloc(k + 1, sizeof *v);
    if (!v) return nm__fail_memory(err, "an adapter", k * sizeof *v);
    for (size_t i = 0; i < k; i++) v[i] = (is_b ? p[e].b : p[e].a)[i];
    for (size_t i = 0; i < k && is_b && folded; i++) v[i] *= p[e].scale;
    st = nm__gguf_data(w, v, k * sizeof *v, err);
    free(v);
  }
  return st;
}

int nm__adapter_write_gguf(const struct nm__adapter *a, const char *arch, int n_expert,
                           const char *path, nm_err *err) {
  struct nm__gguf_writer *w;
  float alpha = common_alpha(a);
  int st = nm__gguf_writer_new(&w, err);
  if (st) return st;
  nm__gguf_put_string(w, "general.type", "adapter");
  nm__gguf_put_string(w, "general.architecture", arch);
  nm__gguf_put_string(w, "adapter.type", "lora");
  nm__gguf_put_f32(w, "adapter.lora.alpha", alpha);
  for (size_t i = 0, n; i < a->n && !st; i += n) {
    n = stack_of(a, i);
    st = check_stack(&a->part[i], n, n_expert, err);
    announce(w, &a->part[i], n, 'a');
    announce(w, &a->part[i], n, 'b');
  }
  if (!st) st = nm__gguf_begin(w, path, err);
  for (size_t i = 0, n; i < a->n && !st; i += n) {
    n = stack_of(a, i);
    st = write_stack(w, &a->part[i], n, false, false, err);
    if (!st) st = write_stack(w, &a->part[i], n, true, alpha == 0, err);
  }
  if (!st) st = nm__gguf_finish(w, err);
  nm__gguf_writer_free(w);
  return st;
}
