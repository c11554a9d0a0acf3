/* geometry.c - vectors of nodes against their graph (Park et al., arXiv 2501.00070); baselines. */
#include "look/geometry.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "look/direction.h"
#include "tensor/math.h"

enum { PERMUTATIONS = 100, DRAWS = 20 };

/* ---- places ------------------------------------------------------------------ */

/* Vectors 2 and 3 of the Laplacian, as columns of out. */
static int laplacian(const struct nm__graph *g, double (*out)[2], nm_err *err) {
  int n = g->n;
  size_t nn = (size_t)n * (size_t)n;
  double *a = nm__alloc(2 * nn + (size_t)n, sizeof *a);
  if (!a) return nm__fail_memory(err, "a Laplacian", nn * sizeof *a);
  for (int i = 0; i < n; i++) {
    a[i * n + i] = g->degree[i];
    for (int k = 0; k < g->degree[i]; k++) a[i * n + g->next[i][k]] = -1;
  }
  int st = nm__eigen_sym(a, n, a + 2 * nn, a + nn, err);
  for (int i = 0; i < n && !st; i++)
    for (int k = 0; k < 2; k++) out[i][k] = n > 2 ? a[nn + (size_t)((n - 2 - k) * n + i)] : 0;
  free(a);
  return st;
}

struct work {
  const struct nm__graph *g;
  int n, at[NM__GRAPH_NODES];      /* nodes that are there */
  double *c, *w, *v;               /* centred products, their eigenvalues and vectors */
  int *steps;                      /* of the graph, [g->n, g->n] */
  double place[NM__GRAPH_NODES][2], spectral[NM__GRAPH_NODES][2];
};

static void centre(double (*p)[2], int n) {
  for (int k = 0; k < 2; k++) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += p[i][k];
    for (int i = 0; i < n; i++) p[i][k] -= sum / n;
  }
}

/* Share of the squares of p, centred, that the first k vectors explain. `order` permutes p. */
static double explained(const struct work *w, int k, const uint32_t *order) {
  double all = 0, in = 0;
  for (int d = 0; d < 2; d++) {
    for (int i = 0; i < w->n; i++) all += w->place[i][d] * w->place[i][d];
    for (int j = 0; j < k && j < w->n; j++) {
      double s = 0;
      if (!(w->w[j] > 1e-12 * w->w[0])) break;
      for (int i = 0; i < w->n; i++)
        s += w->v[j * w->n + i] * w->place[order ? (int)order[i] : i][d];
      in += s * s;
    }
  }
  return all > 0 ? in / all : NAN;
}

static double permuted(const struct work *w) {
  struct nm__rng r = {7, 1, 0};
  uint32_t order[NM__GRAPH_NODES];
  double sum = 0;
  for (uint32_t i = 0; i < (uint32_t)w->n; i++) order[i] = i;
  for (int k = 0; k < PERMUTATIONS; k++) {
    nm__rng_shuffle(&r, order, (size_t)w->n);
    sum += explained(w, 2, order) / PERMUTATIONS;
  }
  return sum;
}

/* ---- distances ----------------------------------------------------------------- */

static double distance2(const struct work *w, int i, int j) {
  double d = w->c[i * w->n + i] + w->c[j * w->n + j] - 2 * w->c[i * w->n + j];
  return d > 0 ? d : 0;
}

static double energy(const struct work *w) {
  double edge = 0, all = 0;
  int n_edges = 0, pairs = w->n * (w->n - 1) / 2;
  for (int i = 0; i < w->n; i++)
    for (int j = 0; j < i; j++) {
      double d = distance2(w, i, j);
      all += d;
      if (nm__graph_adjacent(w->g, w->at[i], w->at[j])) edge += d, n_edges++;
    }
  return n_edges && all > 0 ? edge / n_edges / (all / pairs) : NAN;
}

struct ranked { double v; int at; };

static int by_value(const void *a, const void *b) {
  const struct ranked *x = a, *y = b;
  return x->v < y->v ? -1 : x->v > y->v ? 1 : x->at - y->at;
}

/* Replaces v by ranks, equal ones by the mean of theirs. */
static void rank(struct ranked *t, double *v, int n) {
  for (int i = 0; i < n; i++) t[i] = (struct ranked){v[i], i};
  qsort(t, (size_t)n, sizeof *t, by_value);
  for (int i = 0, j; i < n; i = j) {
    for (j = i; j < n && t[j].v <= t[i].v; j++) {}
    for (int k = i; k < j; k++) v[t[k].at] = (i + j - 1) / 2.0;
  }
}

static double correlation(const double *a, const double *b, int n) {
  double ma = nm__mean(a, (size_t)n), mb = nm__mean(b, (size_t)n), ab = 0, aa = 0, bb = 0;
  for (int i = 0; i < n; i++) {
    ab += (a[i] - ma) * (b[i] - mb);
    aa += (a[i] - ma) * (a[i] - ma);
    bb += (b[i] - mb) * (b[i] - mb);
  }
  return aa > 0 && bb > 0 ? ab / nm__sqrt(aa * bb) : NAN;
}

static int spearman(const struct work *w, double *out, nm_err *err) {
  int pairs = w->n * (w->n - 1) / 2, k = 0;
  double *a = nm__alloc(2 * (size_t)pairs, sizeof *a), *b = a + pairs;
  struct ranked *t = nm__alloc((size_t)pairs, sizeof *t);
  int st = a && t ? NM_OK : nm__fail_memory(err, "distances", (size_t)pairs * 32);
  for (int i = 0; i < w->n && !st; i++)
    for (int j = 0; j < i; j++, k++) {
      a[k] = distance2(w, i, j);
      b[k] = w->steps[w->at[i] * w->g->n + w->at[j]];
    }
  if (!st) {
    rank(t, a, pairs);
    rank(t, b, pairs);
    *out = correlation(a, b, pairs);
  }
  free(a);
  free(t);
  return st;
}

/* ---- the whole --------------------------------------------------------------- */

static int open_work(const struct nm__graph *g, const bool *there, struct work *w, nm_err *err) {
  double (*lap)[2] = nm__alloc((size_t)g->n, sizeof *lap);
  size_t nn = (size_t)g->n * (size_t)g->n;
  *w = (struct work){.g = g, .c = nm__alloc(2 * nn + (size_t)g->n, sizeof *w->c),
                     .steps = nm__alloc(nn, sizeof *w->steps)};
  int st = lap && w->c && w->steps ? laplacian(g, lap, err)
                                   : nm__fail_memory(err, "a matrix of nodes", nn * 20);
  for (int i = 0; i < g->n && !st; i++) {
    if (there && !there[i]) continue;
    const double *p = g->placed ? g->xy[i] : lap[i];
    memcpy(w->place[w->n], p, sizeof *w->place);
    memcpy(w->spectral[w->n], lap[i], sizeof *w->spectral);
    w->at[w->n++] = i;
  }
  free(lap);
  if (st) return st;
  w->v = w->c + nn;
  w->w = w->v + nn;
  centre(w->place, w->n);
  nm__graph_distances(g, w->steps);
  return NM_OK;
}

static void close_work(struct work *w) {
  free(w->c);
  free(w->steps);
}

static void take_products(const double *gram, struct work *w) {
  int n = w->n;
  double mean[NM__GRAPH_NODES] = {0}, all = 0;
  for (int i = 0; i < n; i++) {
    for (int j = 0; j < n; j++) mean[i] += gram[w->at[i] * w->g->n + w->at[j]] / n;
    all += mean[i] / n;
  }
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++)
      w->c[i * n + j] = (gram[w->at[i] * w->g->n + w->at[j]] +
                         gram[w->at[j] * w->g->n + w->at[i]]) / 2 - mean[i] - mean[j] + all;
}

static void measure(struct work *w, struct nm__geometry *out) {
  double all = 0, both = 0;
  for (int i = 0; i < w->n; i++) {
    out->rank += w->w[i] > 1e-9 * w->w[0];
    all += w->w[i] > 0 ? w->w[i] : 0;
    for (int k = 0; k < 2; k++)
      out->pc[w->at[i]][k] = nm__sqrt(w->w[k] > 0 ? w->w[k] : 0) * w->v[k * w->n + i];
  }
  out->r2 = explained(w, 2, NULL);
  out->r2_six = explained(w, NM__GEOMETRY_PCS, NULL);
  out->permuted = permuted(w);
  out->share = (w->w[0] + w->w[1]) / all;
  out->energy = energy(w);
  for (int k = 0; k < 2; k++)
    for (int d = 0; d < 2; d++) {
      double s = 0;
      for (int i = 0; i < w->n; i++) s += w->v[k * w->n + i] * w->spectral[i][d];
      both += s * s / 2;
    }
  if (w->n == w->g->n) out->overlap = both;
}

int nm__geometry_of(const double *gram, const struct nm__graph *g, const bool *there,
                    struct nm__geometry *out, nm_err *err) {
  struct work w;
  *out = (struct nm__geometry){.r2 = NAN, .r2_six = NAN, .permuted = NAN, .spearman = NAN,
                               .energy = NAN, .overlap = NAN, .share = NAN};
  for (int i = 0; i < g->n; i++) out->pc[i][0] = out->pc[i][1] = NAN;
  int st = open_work(g, there, &w, err);
  if (!st) {
    out->n = w.n;
    take_products(gram, &w);
    double size = 0;
    for (int i = 0; i < w.n; i++) size += w.c[i * w.n + i];
    if (!isfinite(size))
      st = nm__fail(err, NM_EFORMAT, "a vector of a node holds a value that is not finite");
    if (!st && w.n >= 4 && size > 0) {
      /* The work of the eigenvectors destroys the products. */
      double *copy = nm__alloc((size_t)(w.n * w.n), sizeof *copy);
      if (copy) memcpy(copy, w.c, sizeof *copy * (size_t)(w.n * w.n));
      st = copy ? nm__eigen_sym(copy, w.n, w.w, w.v, err)
                : nm__fail_memory(err, "a matrix of nodes", 0);
      free(copy);
      if (!st) measure(&w, out);
      if (!st) st = spearman(&w, &out->spearman, err);
    }
  }
  close_work(&w);
  return st;
}

/* ---- products ---------------------------------------------------------------------- */

/* A dimension in which the nodes do not differ says nothing: zeros. */
static void standardise(double *x, int n, int D, const bool *there) {
  for (int d = 0; d < D; d++) {
    double sum = 0, sq = 0;
    int k = 0;
    for (int i = 0; i < n; i++)
      if (!there || there[i]) sum += x[(size_t)i * (size_t)D + (size_t)d], k++;
    for (int i = 0; i < n; i++) {
      double *v = &x[(size_t)i * (size_t)D + (size_t)d];
      *v -= k ? sum / k : 0;
      if (!there || there[i]) sq += *v * *v;
    }
    double s = sq > 0 ? 1 / nm__sqrt(sq / k) : 0;
    for (int i = 0; i < n; i++) x[(size_t)i * (size_t)D + (size_t)d] *= s;
  }
}

int nm__gram_of(const double *x, int n, int D, const bool *there, bool standard, double *gram,
                nm_err *err) {
  size_t cells = (size_t)n * (size_t)D;
  double *own = standard ? nm__alloc(cells, sizeof *own) : NULL;
  if (standard && !own) return nm__fail_memory(err, "vectors of nodes", cells * sizeof *own);
  if (standard) {
    memcpy(own, x, cells * sizeof *own);
    standardise(own, n, D, there);
    x = own;
  }
  for (int i = 0; i < n; i++)
    for (int j = 0; j <= i; j++)
      gram[i * n + j] = gram[j * n + i] =
          nm__dot(x + (size_t)i * (size_t)D, x + (size_t)j * (size_t)D, D);
  free(own);
  return NM_OK;
}

/* ---- baselines ----------------------------------------------------------------------- */

static void mix(const struct nm__graph *g, const double *x, double *to, int D) {
  for (int i = 0; i < g->n; i++) {
    double *row = to + (size_t)i * (size_t)D;
    memcpy(row, x + (size_t)i * (size_t)D, sizeof *row * (size_t)D);
    for (int k = 0; k < g->degree[i]; k++)
      for (int d = 0; d < D; d++)
        row[d] += x[(size_t)g->next[i][k] * (size_t)D + (size_t)d] / g->degree[i];
  }
}

static void add_share(struct nm__geometry *to, const struct nm__geometry *q, double share) {
  to->r2 += share * q->r2;
  to->r2_six += share * q->r2_six;
  to->permuted += share * q->permuted;
  to->spearman += share * q->spearman;
  to->energy += share * q->energy;
  to->overlap += share * q->overlap;
  to->share += share * q->share;
}

int nm__geometry_random(const struct nm__graph *g, const bool *there, int D, bool mixed,
                        uint64_t seed, struct nm__geometry *out, nm_err *err) {
  size_t n = (size_t)g->n, cells = n * (size_t)D;
  double *x = nm__alloc(2 * cells + n * n, sizeof *x), *y = x + cells, *gram = y + cells;
  struct nm__geometry *one = nm__alloc(1, sizeof *one);
  int st = x && one ? NM_OK : nm__fail_memory(err, "random vectors", cells * 16);
  for (int k = 0; k < DRAWS && !st; k++) {
    for (size_t i = 0; i < n; i++)
      nm__direction_random(seed, (uint64_t)k * n + i, D, x + i * (size_t)D);
    mix(g, x, y, D);
    st = nm__gram_of(mixed ? y : x, g->n, D, there, false, gram, err);
    if (!st) st = nm__geometry_of(gram, g, there, one, err);
    if (!st && !k) *out = *one, add_share(out, one, -1);
    if (!st) add_share(out, one, 1.0 / DRAWS);
  }
  free(x);
  free(one);
  return st;
}

/* ---- behaviour ---------------------------------------------------------------------- */

void nm__rule_accuracy(const struct nm__graph *g, const double *p, int node, int left,
                       double out[2]) {
  double all = 0, back = left >= 0 ? p[left] : 0;
  int others = g->degree[node] - (left >= 0 && nm__graph_adjacent(g, node, left));
  for (int i = 0; i < g->degree[node]; i++) all += p[g->next[node][i]];
  double other = all - (left >= 0 && nm__graph_adjacent(g, node, left) ? back : 0);
  out[0] = all;
  out[1] = others && back < 1 ? other / (1 - back) : NAN;
}

/* A walk stands at a node as often as it has neighbours, and left each of these evenly. */
void nm__rule_by_chance(const struct nm__graph *g, double out[2]) {
  double p[NM__GRAPH_NODES], weight[2] = {0}, one[2];
  out[0] = out[1] = 0;
  for (int i = 0; i < g->n; i++) p[i] = g->degree[i] / (2.0 * g->n_edges);
  for (int i = 0; i < g->n; i++)
    for (int k = 0; k < g->degree[i]; k++) {
      nm__rule_accuracy(g, p, i, g->next[i][k], one);
      for (int j = 0; j < 2; j++) {
        if (isnan(one[j])) continue;
        out[j] += one[j];
        weight[j]++;
      }
    }
  for (int j = 0; j < 2; j++) out[j] = weight[j] > 0 ? out[j] / weight[j] : NAN;
}
