/* patch_run.c - one pair: the source's activations, the base, every cell as a patched run. Cells go
 * layer by layer through all components, so that neighbours in a batch begin at the same block. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "study/patch.h"
#include "tensor/math.h"

enum { N_UNRELATED = 4 };              /* prompts of random tokens a pair */

/* ---- activations of a text ------------------------------------------------------- */

struct acts {
  const struct nm__patching *P;
  float **v;                       /* [comp]: [L, n, width] */
  float *first, *embed, *logits;   /* [n, D] before block 0; [n, D]; [V] */
  size_t n;
};

static int keep(void *arg, const nm_row *r, nm_err *err) {
  struct acts *a = arg;
  size_t L = (size_t)a->P->m->L, s = (size_t)r->site, w = (size_t)r->n;
  size_t last = L * (size_t)a->P->n_comp;
  float *to = s < last ? a->v[s / L] + ((s % L) * a->n + (size_t)r->pos) * w
              : s == last ? a->first + (size_t)r->pos * w
              : s == last + 1 ? a->embed + (size_t)r->pos * w : a->logits;
  (void)err;
  memcpy(to, r->data, w * sizeof(float));
  return NM_OK;
}

static void acts_done(struct acts *a) {
  for (int c = 0; a->v && c < a->P->n_comp; c++) free(a->v[c]);
  free(a->v);
  free(a->first);
  free(a->embed);
  free(a->logits);
}

static int acts_read(const struct nm__patching *P, nm_seq s, struct acts *a, nm_err *err) {
  size_t L = (size_t)P->m->L, D = (size_t)P->m->D;
  nm_tap taps[32] = {{0}};
  char glob[32][80];
  bool ok = true;
  *a = (struct acts){P, nm__alloc((size_t)P->n_comp, sizeof *a->v), nm__alloc(s.n * D, 4),
                     nm__alloc(s.n * D, 4), nm__alloc((size_t)P->m->V, 4), s.n};
  for (int c = 0; a->v && c < P->n_comp; c++) {
    a->v[c] = nm__alloc(L * s.n, (size_t)P->comp[c].width * sizeof(float));
    ok &= a->v[c] != NULL;
    snprintf(glob[c], sizeof glob[c], "blk.*.%s", P->comp[c].name);
    taps[c] = (nm_tap){glob[c], "all"};
  }
  if (!a->v || !ok || !a->first || !a->embed || !a->logits)
    return nm__fail_memory(err, "the activations", L * s.n * D * 4);
  taps[P->n_comp] = (nm_tap){"blk.0.resid_pre", "all"};
  taps[P->n_comp + 1] = (nm_tap){"embed", "all"};
  taps[P->n_comp + 2] = (nm_tap){"logits", "last"};
  nm_request r = {.seqs = &s, .n_seqs = 1, .taps = taps, .n_taps = P->n_comp + 3, .row = keep,
                  .arg = a};
  return nm_run(P->e, &r, err);
}

/* ---- noise ---------------------------------------------------------------------------- */

static double gauss(uint64_t seed, uint64_t stream, uint64_t i) {
  double u = (double)((nm__rand_at(seed, stream, 2 * i) >> 11) + 1) * 0x1p-53;
  double t = (double)(nm__rand_at(seed, stream, 2 * i + 1) >> 11) * 0x1p-53;
  return nm__sqrt(-2 * nm__log(u)) * nm__cos(6.283185307179586 * t);
}

struct moments { double n, sum, sq; const struct nm__pair *p; };

static int add_moments(void *arg, const nm_row *r, nm_err *err) {
  struct moments *m = arg;
  (void)err;
  for (int64_t i = 0; i < r->n && r->pos >= m->p->first && r->pos < m->p->end; i++) {
    m->sum += (double)r->data[i];
    m->sq += (double)r->data[i] * (double)r->data[i];
    m->n++;
  }
  return NM_OK;
}

/* The standard deviation of all values of the embeddings of the subjects' tokens. */
int nm__patch_sigma(struct nm__patching *P, nm_err *err) {
  struct moments m = {0};
  nm_tap tap = {"embed", "all"};
  int st = NM_OK;
  for (size_t i = 0; i < P->pairs.n && !st; i++) {
    m.p = &P->pairs.v[i];
    nm_request r = {.seqs = &m.p->base, .n_seqs = 1, .taps = &tap, .n_taps = 1,
                    .row = add_moments, .arg = &m};
    st = nm_run(P->e, &r, err);
  }
  double mean = m.n > 0 ? m.sum / m.n : 0;
  P->sigma = m.n > 0 ? nm__sqrt(m.sq / m.n - mean * mean) : 0;
  return st;
}

/* The base of a tracing run: the subject's embeddings with noise. *values belongs to the caller. */
static int noisy(const struct nm__patching *P, const struct nm__pair *p, const struct acts *a,
                 uint64_t stream, struct nm__patch **patch, float **values, nm_err *err) {
  int n = p->end - p->first, D = P->m->D;
  *patch = nm__alloc((size_t)n, sizeof **patch);
  *values = nm__alloc((size_t)n * (size_t)D, sizeof **values);
  if (!*patch || !*values) return nm__fail_memory(err, "noise", (size_t)n * (size_t)D * 4);
  for (int i = 0; i < n; i++) {
    float *v = *values + (size_t)i * (size_t)D;
    for (int d = 0; d < D; d++)
      v[d] = (float)((double)a->embed[(size_t)(p->first + i) * (size_t)D + (size_t)d] +
                     P->o.noise * P->sigma * gauss(P->o.seed, stream, (uint64_t)(i * D + d)));
    (*patch)[i] = (struct nm__patch){{NM__S_EMBED, -1, 0, 0}, p->first + i, v};
  }
  return NM_OK;
}

/* ---- cells as runs ----------------------------------------------------------------------- */

struct item { int comp, layer, col, n; size_t from; };
struct todo {
  struct nm__patching *P;
  size_t pair;
  int seed;
  struct nm__patch *p; size_t n_p, cap_p;
  struct item *item; size_t n, cap;
  double *out;                     /* [n]: values of the runs; NULL: they are cells */
};

static int add_patch(struct todo *t, struct nm__patch p, nm_err *err) {
  if (t->n_p == t->cap_p) {
    size_t cap = t->cap_p ? 2 * t->cap_p : 1024;
    struct nm__patch *v = nm__realloc(t->p, cap, sizeof *v);
    if (!v) return nm__fail_memory(err, "the patches", cap * sizeof *v);
    t->p = v;
    t->cap_p = cap;
  }
  t->p[t->n_p++] = p;
  return NM_OK;
}

static bool patched_at(const struct nm__pair *p, bool all, int col, int pos) {
  return (all ? pos >= p->first : pos == col) && p->from[pos] >= 0;
}

/* A cell: its component in a window of layers, at its positions, with the values of a. */
static int add_cell(struct todo *t, const struct acts *a, int comp, int layer, int col,
                    nm_err *err) {
  const struct nm__patching *P = t->P;
  const struct nm__pair *p = &P->pairs.v[t->pair];
  const struct nm__comp *c = &P->comp[comp];
  int T = (int)p->base.n, w = P->o.window, from = layer - (w - 1) / 2, to = layer + w / 2;
  if (t->n == t->cap) {
    size_t cap = t->cap ? 2 * t->cap : 256;
    struct item *v = nm__realloc(t->item, cap, sizeof *v);
    if (!v) return nm__fail_memory(err, "the runs", cap * sizeof *v);
    t->item = v;
    t->cap = cap;
  }
  struct item *it = &t->item[t->n++];
  *it = (struct item){comp, layer, col, 0, t->n_p};
  int st = NM_OK;
  for (int l = from < 0 ? 0 : from; l <= to && l < P->m->L && !st; l++)
    for (int pos = 0; pos < T && !st; pos++) {
      if (!patched_at(p, c->heads || col == T, col, pos)) continue;
      struct nm__sel sel = c->sel[l];
      const float *v = a->v[comp] + ((size_t)l * a->n + (size_t)p->from[pos]) * (size_t)c->width;
      if (c->heads) sel.index = col, sel.index_n = 1, v += (size_t)col * (size_t)P->m->hd;
      st = add_patch(t, (struct nm__patch){sel, pos, v}, err);
      it->n++;
    }
  return st;
}

static double metric(const struct nm__patching *P, const struct nm__pair *p, const float *z) {
  if (p->wrong_id >= 0) return (double)z[p->answer_id] - (double)z[p->wrong_id];
  double top = (double)z[0], sum = 0;
  for (int v = 1; v < P->m->V; v++) top = (double)z[v] > top ? (double)z[v] : top;
  for (int v = 0; v < P->m->V; v++) sum += nm__exp((double)z[v] - top);
  return (double)z[p->answer_id] - top - nm__log(sum);
}

static int take(void *arg, size_t run, const float *z, nm_err *err) {
  struct todo *t = arg;
  const struct item *it = &t->item[run];
  struct nm__patching *P = t->P;
  double m = metric(P, &P->pairs.v[t->pair], z);
  if (t->out) t->out[run] = m;
  if (t->out) return NM_OK;
  int st = nm__patch_keep(P, t->pair, t->seed, it->comp, it->layer, it->col, m, err);
  P->n_done++;
  return st ? st : nm__progress(P->o.progress, "patched runs", (double)P->n_done,
                                (double)P->r->n_runs, err);
}

static int run_todo(struct todo *t, struct nm__base *b, nm_err *err) {
  struct nm__patched *r = nm__alloc(t->n, sizeof *r);
  if (!r) return nm__fail_memory(err, "the runs", t->n * sizeof *r);
  for (size_t i = 0; i < t->n; i++)
    r[i] = (struct nm__patched){t->p + t->item[i].from, t->item[i].n};
  int st = nm__base_run(b, r, t->n, take, t, err);
  free(r);
  t->n = t->n_p = 0;
  return st;
}

static void todo_done(struct todo *t) {
  free(t->p);
  free(t->item);
}

/* ---- the base and what must hold exactly --------------------------------------------------- */

static int open_base(const struct nm__patching *P, size_t pair, int seed, const struct acts *a,
                     struct nm__patch **noise, float **values, struct nm__base **b, nm_err *err) {
  const struct nm__pair *p = &P->pairs.v[pair];
  *noise = NULL;
  *values = NULL;
  *b = NULL;
  int st = !P->pairs.tracing ? NM_OK
                             : noisy(P, p, a, pair * 4096 + (uint64_t)seed, noise, values, err);
  return st ? st : nm__base_open(P->e, p->base, *noise, *noise ? p->end - p->first : 0, b, err);
}

struct exact { const float *want[2]; size_t V; bool same[2]; };

static int compare(void *arg, size_t run, const float *z, nm_err *err) {
  struct exact *x = arg;
  (void)err;
  x->same[run] = !memcmp(z, x->want[run], x->V * sizeof(float));
  return NM_OK;
}

/* Nothing patched must give the base, everything before block 0 the source, bit for bit. */
static int look_exact(struct nm__patching *P, const struct nm__pair *p, struct nm__base *b,
                      const struct acts *a, nm_err *err) {
  size_t n = p->base.n, D = (size_t)P->m->D;
  struct exact x = {{nm__base_logits(b), a->logits}, (size_t)P->m->V, {false, false}};
  struct nm__patch *all = nm__alloc(n, sizeof *all);
  if (!all) return nm__fail_memory(err, "the patches", n * sizeof *all);
  for (size_t i = 0; i < n; i++)
    all[i] = (struct nm__patch){{NM__S_RESID_PRE, 0, 0, 0}, (int)i, a->first + i * D};
  struct nm__patched runs[2] = {{NULL, 0}, {all, (int)n}};
  int st = nm__base_run(b, runs, p->same_length ? 2 : 1, compare, &x, err);
  P->r->exact_nothing &= x.same[0];
  P->r->can_everything |= p->same_length;
  if (p->same_length) P->r->exact_everything &= x.same[1];
  free(all);
  return st;
}

/* ---- a pair --------------------------------------------------------------------------------- */

int nm__patch_cols(const struct nm__patching *P, const struct nm__pair *p, int comp) {
  return P->comp[comp].heads ? P->m->H : (int)p->base.n + 1;
}

bool nm__patch_same(const struct nm__patching *P, const struct nm__pair *p, int comp, int col) {
  return !P->comp[comp].heads && col < p->first;
}

static bool to_run(const struct nm__patching *P, const struct nm__pair *p, int comp, int col) {
  int T = (int)p->base.n;
  if (nm__patch_same(P, p, comp, col)) return false;
  return P->comp[comp].heads || col == T || p->from[col] >= 0;
}

static int all_cells(struct todo *t, const struct acts *a, struct nm__base *b, nm_err *err) {
  struct nm__patching *P = t->P;
  const struct nm__pair *p = &P->pairs.v[t->pair];
  double base = metric(P, p, nm__base_logits(b));
  int st = NM_OK;
  for (int l = 0; l < P->m->L && !st; l++) {
    for (int c = 0; c < P->n_comp && !st; c++) {
      int cols = nm__patch_cols(P, p, c);
      double *cell = nm__patch_cell(P, t->pair, t->seed, c) + (size_t)l * (size_t)cols;
      for (int k = 0; k < cols && !st; k++) {
        if (nm__patch_same(P, p, c, k)) cell[k] = base;
        else if (isnan(cell[k]) && to_run(P, p, c, k)) st = add_cell(t, a, c, l, k, err);
      }
    }
    if (!st && t->n) st = run_todo(t, b, err);
  }
  return st;
}

static int one_seed(struct nm__patching *P, size_t pair, int seed, const struct acts *a,
                    nm_err *err) {
  struct nm__pair *p = &P->pairs.v[pair];
  struct nm__patch *noise;
  float *values;
  struct nm__base *b;
  struct todo t = {.P = P, .pair = pair, .seed = seed};
  int st = open_base(P, pair, seed, a, &noise, &values, &b, err);
  if (!st) {
    double base = metric(P, p, nm__base_logits(b)), source = metric(P, p, a->logits);
    p->m_clean = P->o.noising ? base : source;
    p->m_corrupt[seed] = P->o.noising ? source : base;
    if (!P->pairs.tracing) p->left_out = p->m_clean - p->m_corrupt[seed] < 1e-6;
    st = look_exact(P, p, b, a, err);
  }
  if (!st && !p->left_out) st = all_cells(&t, a, b, err);
  todo_done(&t);
  nm__base_close(b);
  free(noise);
  free(values);
  return st;
}

int nm__patch_pair(struct nm__patching *P, size_t pair, nm_err *err) {
  struct acts a;
  int st = acts_read(P, P->pairs.v[pair].source, &a, err);
  for (int s = 0; s < P->n_seeds && !st; s++) st = one_seed(P, pair, s, &a, err);
  acts_done(&a);
  return st;
}

/* ---- the control --------------------------------------------------------------- */

/* Tokens drawn from the vocabulary, none of them a control token, behind the same first token. */
static void random_prompt(const struct nm__patching *P, const struct nm__pair *p, uint64_t stream,
                          int32_t *ids) {
  uint64_t draw = 0;
  ids[0] = p->source.ids[0];
  for (size_t i = 1; i < p->source.n; i++)
    for (int tries = 0; tries < 200; tries++) {
      ids[i] = (int32_t)(nm__rand_at(P->o.seed, stream, draw++) % (uint64_t)P->m->V);
      char *text = nm_token_text(P->m, ids, i, false);
      bool good = text && *text;
      nm_free(text);
      if (good) break;
    }
}

static int add_top(struct todo *t, const struct acts *a, int comp, nm_err *err) {
  const struct nm__patching *P = t->P;
  const struct nm__pair *p = &P->pairs.v[t->pair];
  const nm_patch_map *map = &P->r->map[comp];
  int cols = nm__patch_cols(P, p, comp), st = NM_OK;
  for (int k = 0; k < cols && !st; k++)
    if (to_run(P, p, comp, k) && nm__patch_col_of(P, p, comp, k) == map->top_col)
      st = add_cell(t, a, comp, map->top_layer, k, err);
  return st;
}

static int unrelated_seed(struct nm__patching *P, size_t pair, int seed, const struct acts *own,
                          const struct acts *other, nm_err *err) {
  struct nm__patch *noise;
  float *values;
  struct nm__base *b;
  struct todo t = {.P = P, .pair = pair, .seed = seed};
  int st = open_base(P, pair, seed, own, &noise, &values, &b, err);
  for (int c = 0; c < P->n_comp && !st; c++) {
    double *to = &P->unrelated[(pair * (size_t)P->n_seeds + (size_t)seed) * (size_t)P->n_comp +
                               (size_t)c];
    if (P->r->map[c].top_col < 0) continue;
    st = add_top(&t, other, c, err);
    size_t n = t.n;
    if (!n) *to = NAN;                   /* this pair has no such cell */
    if (st || !n) continue;
    t.out = nm__alloc(n, sizeof *t.out);
    st = t.out ? run_todo(&t, b, err) : nm__fail_memory(err, "the control", 0);
    for (size_t i = 0; !st && i < n; i++) *to += t.out[i] / (double)(n * N_UNRELATED);
    free(t.out);
    t.out = NULL;
  }
  todo_done(&t);
  nm__base_close(b);
  free(noise);
  free(values);
  return st;
}

int nm__patch_unrelated(struct nm__patching *P, size_t pair, nm_err *err) {
  const struct nm__pair *p = &P->pairs.v[pair];
  struct acts own = {.P = P};
  int32_t *ids = nm__alloc(p->source.n, sizeof *ids);
  int st = ids ? acts_read(P, p->source, &own, err) : nm__fail_memory(err, "a prompt", 0);
  for (uint64_t k = 0; k < N_UNRELATED && !st; k++) {
    struct acts other;
    random_prompt(P, p, (1ull << 40) + pair * N_UNRELATED + k, ids);
    st = acts_read(P, (nm_seq){ids, p->source.n}, &other, err);
    for (int s = 0; s < P->n_seeds && !st; s++) st = unrelated_seed(P, pair, s, &own, &other, err);
    acts_done(&other);
  }
  acts_done(&own);
  free(ids);
  return st;
}
