/* walks.c - walks through a model: rule accuracy at every word, states summed by node. */
#include "look/walks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "look/lens.h"
#include "tensor/math.h"

/* ---- prompts ------------------------------------------------------------------ */

static void write_ids(struct nm__walks *w, int walk, int32_t bos) {
  int32_t *to = w->ids + (size_t)walk * (size_t)(w->lead + w->T);
  if (w->lead) to[0] = bos;
  for (int t = 0; t < w->T; t++)
    to[w->lead + t] = w->word[walk * w->g->n + w->node[walk * w->T + t]];
}

static int pick_words(struct nm__walks *w, const int32_t *vocab, int n_vocab, bool fresh,
                      uint64_t seed, nm_err *err) {
  uint32_t *order = nm__alloc((size_t)n_vocab, sizeof *order);
  if (!order) return nm__fail_memory(err, "words", (size_t)n_vocab * sizeof *order);
  for (int i = 0; i < w->n; i++) {
    struct nm__rng r = {seed, 2 * (uint64_t)i, 0};
    for (uint32_t k = 0; k < (uint32_t)n_vocab; k++) order[k] = k;
    if (fresh) nm__rng_shuffle(&r, order, (size_t)n_vocab);
    for (int k = 0; k < w->g->n; k++) w->word[i * w->g->n + k] = vocab[order[k]];
  }
  free(order);
  return NM_OK;
}

int nm__walks_draw(const struct nm__graph *g, int n, int T, int32_t bos, const int32_t *vocab,
                   int n_vocab, bool fresh, uint64_t seed, struct nm__walks *w, nm_err *err) {
  size_t cells = (size_t)n * (size_t)(T + 1);
  *w = (struct nm__walks){.g = g, .n = n, .T = T, .lead = bos >= 0,
                          .node = nm__alloc(cells, sizeof *w->node),
                          .word = nm__alloc((size_t)n * (size_t)g->n, sizeof *w->word),
                          .ids = nm__alloc(cells, sizeof *w->ids)};
  int st = w->node && w->word && w->ids ? NM_OK : nm__fail_memory(err, "walks", cells * 8);
  if (!st) st = pick_words(w, vocab, n_vocab, fresh, seed, err);
  for (int i = 0; i < n && !st; i++) {
    struct nm__rng r = {seed, 2 * (uint64_t)i + 1, 0};
    nm__graph_walk(g, &r, w->node + (size_t)i * (size_t)T, T);
    write_ids(w, i, bos);
  }
  if (st) nm__walks_done(w);
  return st;
}

void nm__walks_shuffle(struct nm__walks *w, uint64_t seed) {
  for (int i = 0; i < w->n; i++) {
    struct nm__rng r = {seed, (uint64_t)i, 0};
    nm__rng_shuffle(&r, (uint32_t *)w->node + (size_t)i * (size_t)w->T, (size_t)w->T);
    write_ids(w, i, w->ids[(size_t)i * (size_t)(w->lead + w->T)]);
  }
}

double nm__walks_joined(const struct nm__walks *w) {
  double sum = 0;
  for (int i = 0; i < w->n; i++)
    for (int t = 1; t < w->T; t++)
      sum += nm__graph_adjacent(w->g, w->node[i * w->T + t - 1], w->node[i * w->T + t]);
  return sum / ((double)w->n * (w->T - 1));
}

void nm__walks_done(struct nm__walks *w) {
  free(w->node);
  free(w->word);
  free(w->ids);
  *w = (struct nm__walks){0};
}

/* ---- what is kept ------------------------------------------------------------------ */

static int find_rows(const nm_model *m, const char *sites, struct nm__traced *t, nm_err *err) {
  nm_tap tap = {sites, "all"};
  nm_site *site;
  int n;
  int st = nm_run_sites(m, &tap, 1, &site, &n, err);
  if (st) return st;
  t->row = nm__alloc((size_t)n, sizeof *t->row);
  t->n_rows = n;
  if (!t->row) st = nm__fail_memory(err, "rows", 0);
  for (int i = 0; i < n && !st; i++) {
    memcpy(t->row[i], site[i].name, sizeof *t->row);
    if (site[i].width != m->D)
      st = nm__fail(err, NM_EUSAGE, "%s is %lld numbers a position; states of %d are compared",
                    site[i].name, (long long)site[i].width, m->D);
  }
  nm_free(site);
  return st;
}

int nm__traced_new(const nm_model *m, const struct nm__walks *w, const char *sites,
                   const int *length, int n_lengths, int window, bool pooled,
                   struct nm__traced *t, nm_err *err) {
  size_t groups = pooled ? 1 : (size_t)w->n, nodes = (size_t)w->g->n;
  *t = (struct nm__traced){.n_lengths = n_lengths, .window = window, .D = m->D, .pooled = pooled};
  memcpy(t->length, length, sizeof *length * (size_t)n_lengths);
  int st = find_rows(m, sites, t, err);
  if (st) return st;
  t->n_acc = 2 * (size_t)w->n * (size_t)w->T;
  t->n_count = groups * (size_t)n_lengths * nodes;
  t->n_sum = t->n_count * (size_t)t->n_rows * (size_t)m->D;
  t->acc = nm__alloc(t->n_acc, sizeof *t->acc);
  t->sum = nm__alloc(t->n_sum + 1, sizeof *t->sum);
  t->count = nm__alloc(t->n_count, sizeof *t->count);
  if (!t->acc || !t->sum || !t->count)
    return nm__fail_memory(err, "sums of states", t->n_sum * sizeof *t->sum);
  return NM_OK;
}

void nm__traced_done(struct nm__traced *t) {
  free(t->row);
  free(t->acc);
  free(t->sum);
  free(t->count);
  *t = (struct nm__traced){0};
}

/* ---- running ------------------------------------------------------------------------- */

struct pass {
  const struct nm__walks *w;
  struct nm__traced *t;
  int walk, V;
};

static void take_logits(struct pass *p, int at, const float *z) {
  const struct nm__walks *w = p->w;
  const int *node = w->node + (size_t)p->walk * (size_t)w->T;
  double prob[NM__GRAPH_NODES], log_sum = nm__log_sum_exp(z, p->V);
  for (int i = 0; i < w->g->n; i++)
    prob[i] = nm__exp((double)z[w->word[p->walk * w->g->n + i]] - log_sum);
  nm__rule_accuracy(w->g, prob, node[at], at ? node[at - 1] : -1,
                    p->t->acc + 2 * ((size_t)p->walk * (size_t)w->T + (size_t)at));
}

static int take(void *arg, const nm_row *r, nm_err *err) {
  struct pass *p = arg;
  struct nm__traced *t = p->t;
  int at = r->pos - p->w->lead, nodes = p->w->g->n, group = t->pooled ? 0 : p->walk;
  (void)err;
  if (at < 0) return NM_OK;
  if (r->site == t->n_rows) return take_logits(p, at, r->data), NM_OK;
  int node = p->w->node[(size_t)p->walk * (size_t)p->w->T + (size_t)at];
  for (int l = 0; l < t->n_lengths; l++) {
    if (at >= t->length[l] || at < t->length[l] - t->window) continue;
    size_t k = (size_t)(group * t->n_lengths + l);
    double *to = t->sum + ((k * (size_t)t->n_rows + (size_t)r->site) * (size_t)nodes +
                           (size_t)node) * (size_t)t->D;
    for (int d = 0; d < t->D; d++) to[d] += (double)r->data[d];
    if (!r->site) t->count[k * (size_t)nodes + (size_t)node]++;
  }
  return NM_OK;
}

int nm__traced_run(nm_engine *e, const struct nm__walks *w, const char *sites, nm_edits *edits,
                   struct nm__traced *t, int (*each)(void *arg, nm_err *err), void *arg,
                   nm_err *err) {
  nm_tap taps[2] = {{sites, "all"}, {"logits", "all"}};
  int st = NM_OK;
  while (t->done < w->n && !st) {
    struct pass p = {w, t, t->done, nm__engine_model(e)->V};
    size_t n = (size_t)(w->lead + w->T);
    nm_seq seq = {w->ids + (size_t)t->done * n, n};
    nm_request r = {.seqs = &seq, .n_seqs = 1, .taps = taps, .n_taps = 2, .edits = edits,
                    .row = take, .arg = &p};
    st = nm_run(e, &r, err);
    if (st) break;
    t->done++;
    if (each) st = each(arg, err);
  }
  return st;
}

/* ---- figures ----------------------------------------------------------------------------- */

double nm__traced_accuracy(const struct nm__traced *t, const struct nm__walks *w, int walk, int T,
                           int k) {
  double sum = 0;
  int n = 0;
  for (int at = T > NM__RULE_SPAN ? T - NM__RULE_SPAN : 1; at < T; at++) {
    double v = t->acc[2 * ((size_t)walk * (size_t)w->T + (size_t)at) + (size_t)k];
    if (!isnan(v)) sum += v, n++;
  }
  return n ? sum / n : NAN;
}

double nm__traced_mean_accuracy(const struct nm__traced *t, const struct nm__walks *w, int T,
                                int k) {
  double sum = 0;
  for (int i = 0; i < w->n; i++) sum += nm__traced_accuracy(t, w, i, T, k) / w->n;
  return sum;
}

int nm__traced_geometry(const struct nm__traced *t, const struct nm__graph *g, int group,
                        int length, int row, struct nm__geometry *out, double *standard_energy,
                        nm_err *err) {
  size_t k = (size_t)(group * t->n_lengths + length), n = (size_t)g->n, D = (size_t)t->D;
  const double *count = t->count + k * n,
               *sum = t->sum + (k * (size_t)t->n_rows + (size_t)row) * n * D;
  double *x = nm__alloc(n * D + n * n, sizeof *x), *gram = x + n * D;
  bool there[NM__GRAPH_NODES];
  struct nm__geometry standard;
  if (!x) return nm__fail_memory(err, "means of states", n * D * sizeof *x);
  for (size_t i = 0; i < n; i++) {
    there[i] = count[i] > 0;
    for (size_t d = 0; d < D && there[i]; d++) x[i * D + d] = sum[i * D + d] / count[i];
  }
  int st = nm__gram_of(x, g->n, t->D, there, false, gram, err);
  if (!st) st = nm__geometry_of(gram, g, there, out, err);
  if (!st && standard_energy) {
    st = nm__gram_of(x, g->n, t->D, there, true, gram, err);
    if (!st) st = nm__geometry_of(gram, g, there, &standard, err);
    *standard_energy = standard.energy;
  }
  free(x);
  return st;
}
