/* forest.c - random forests: growing trees and asking them.
 *
 * A node's rows are a run of the tree's list of rows. For every feature looked at, the run is
 * sorted by that feature and swept once, the counts of the classes to the left and right kept up to
 * date, so that all thresholds of a feature cost one sort. What is best among them is the largest
 * sum over both sides of (squared counts of the classes) / (rows), which is the lowest Gini
 * impurity. A feature that takes one value in the node does not count as looked at: another is
 * drawn. */
#include "look/forest.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CLASSES = 256 };

struct keyed { float v; uint32_t at; };        /* a value and a place in the list of rows */

struct grower {
  const float *x;
  size_t ld, n;                    /* rows in the bag, each once */
  int d, n_classes, n_features;
  const uint8_t *label;
  uint32_t *row, *weight;          /* [n] rows and how often each was drawn */
  uint32_t *feature;               /* [d] in some order; those of a node are drawn from its front */
  struct keyed *sorted;            /* [n] */
  uint32_t *side;                  /* [2 n] scratch of a partition */
  struct nm__tree *tree;
  uint32_t cap_nodes, cap_leaves;
  struct nm__rng rng;
};

struct part { uint32_t node; size_t from, to; };
struct cut { int feature; float threshold; double worth; };

/* ---- sorting -------------------------------------------------------------------- */

static bool before(const struct keyed *a, const struct keyed *b) {
  return a->v < b->v || (a->v == b->v && a->at < b->at);
}

static void swap(struct keyed *a, struct keyed *b) {
  struct keyed t = *a;
  *a = *b;
  *b = t;
}

static void sift(struct keyed *v, size_t i, size_t n) {
  for (size_t k; (k = 2 * i + 1) < n; i = k) {
    if (k + 1 < n && before(&v[k], &v[k + 1])) k++;
    if (!before(&v[i], &v[k])) return;
    swap(&v[i], &v[k]);
  }
}

static void heap_sort(struct keyed *v, size_t n) {
  for (size_t i = n / 2; i-- > 0;) sift(v, i, n);
  for (size_t i = n; i-- > 1;) {
    swap(&v[0], &v[i]);
    sift(v, 0, i);
  }
}

static void insertion_sort(struct keyed *v, size_t n) {
  for (size_t i = 1; i < n; i++) {
    struct keyed t = v[i];
    size_t k = i;
    for (; k > 0 && before(&t, &v[k - 1]); k--) v[k] = v[k - 1];
    v[k] = t;
  }
}

/* Quicksort about the median of three; runs that split badly too often go to the heap. */
static void sort(struct keyed *v, size_t n, int tries) {
  while (n > 16) {
    if (tries-- == 0) {
      heap_sort(v, n);
      return;
    }
    if (before(&v[n / 2], &v[0])) swap(&v[n / 2], &v[0]);
    if (before(&v[n - 1], &v[0])) swap(&v[n - 1], &v[0]);
    if (before(&v[n - 1], &v[n / 2])) swap(&v[n - 1], &v[n / 2]);
    struct keyed pivot = v[n / 2];
    size_t i = 0, j = n - 1;
    for (;; i++, j--) {
      while (before(&v[i], &pivot)) i++;
      while (before(&pivot, &v[j])) j--;
      if (i >= j) break;
      swap(&v[i], &v[j]);
    }
    sort(v, j + 1, tries);         /* v[0..j] <= pivot <= v[j+1..] */
    v += j + 1;
    n -= j + 1;
  }
  insertion_sort(v, n);
}

/* ---- one node --------------------------------------------------------------------- */

static void count_classes(const struct grower *g, size_t from, size_t to, double *count) {
  memset(count, 0, sizeof *count * (size_t)g->n_classes);
  for (size_t i = from; i < to; i++) count[g->label[g->row[i]]] += g->weight[i];
}

/* Halfway between two values, and below the larger one also after rounding. */
static float between(float a, float b) {
  float m = a * 0.5f + b * 0.5f;
  return m >= b || m < a ? a : m;
}

/* The best threshold of one feature; false when all rows have the same value. */
static bool try_feature(struct grower *g, size_t from, size_t to, int f, const double *all,
                        struct cut *best) {
  struct keyed *s = g->sorted;
  size_t n = to - from;
  int tries = 4;
  bool varies = false;
  for (size_t i = 0; i < n; i++) {
    s[i] = (struct keyed){g->x[g->row[from + i] * g->ld + (size_t)f], (uint32_t)(from + i)};
    varies |= s[i].v != s[0].v;
  }
  if (!varies) return false;
  for (size_t k = n; k; k >>= 1) tries += 2;
  sort(s, n, tries);
  double left[MAX_CLASSES] = {0}, n_left = 0, n_right = 0, sq_left = 0, sq_right = 0;
  for (int c = 0; c < g->n_classes; c++) n_right += all[c], sq_right += all[c] * all[c];
  for (size_t i = 0; i + 1 < n; i++) {         /* counts are whole numbers: sums are exact */
    int c = g->label[g->row[s[i].at]];
    double w = g->weight[s[i].at], r = all[c] - left[c];
    sq_left += w * (2 * left[c] + w);
    sq_right -= w * (2 * r - w);
    left[c] += w;
    n_left += w;
    n_right -= w;
    if (!(s[i].v < s[i + 1].v)) continue;
    double worth = sq_left / n_left + sq_right / n_right;
    if (worth > best->worth)
      *best = (struct cut){f, between(s[i].v, s[i + 1].v), worth};
  }
  return true;
}

/* Draws features until n_features that vary were looked at, or none is left. */
static struct cut find_cut(struct grower *g, size_t from, size_t to, const double *all) {
  struct cut best = {-1, 0, -1};
  int looked = 0;
  for (int k = 0; k < g->d && looked < g->n_features; k++) {
    size_t j = (size_t)k + (size_t)nm__rng_below(&g->rng, (uint64_t)(g->d - k));
    uint32_t f = g->feature[j];
    g->feature[j] = g->feature[k];
    g->feature[k] = f;
    looked += try_feature(g, from, to, (int)f, all, &best);
  }
  return best;
}

/* Rows to the left first, the order within a side kept; where the right begins. */
static size_t partition(struct grower *g, size_t from, size_t to, const struct cut *c) {
  uint32_t *row = g->side, *weight = g->side + g->n;
  size_t left = from, right = 0;
  for (size_t i = from; i < to; i++) {
    uint32_t r = g->row[i], w = g->weight[i];
    if (g->x[r * g->ld + (size_t)c->feature] <= c->threshold) {
      g->row[left] = r;
      g->weight[left++] = w;
    } else {
      row[right] = r;
      weight[right++] = w;
    }
  }
  memcpy(g->row + left, row, right * sizeof *row);
  memcpy(g->weight + left, weight, right * sizeof *weight);
  return left;
}

/* ---- one tree ----------------------------------------------------------------------- */

/* Room for one more element of `size` bytes after n. */
static bool room(void **v, uint32_t n, uint32_t more, uint32_t *cap, size_t size) {
  if (n + more <= *cap) return true;
  uint32_t bigger = *cap ? 2 * *cap : 64;
  void *p = nm__realloc(*v, bigger, size);
  if (!p) return false;
  *v = p;
  *cap = bigger;
  return true;
}

static bool leaf(struct grower *g, uint32_t node, const double *count, double total) {
  struct nm__tree *t = g->tree;
  size_t k = (size_t)g->n_classes;
  if (!room((void **)&t->share, t->n_leaves, 1, &g->cap_leaves, k * sizeof *t->share)) return false;
  for (size_t c = 0; c < k; c++) t->share[t->n_leaves * k + c] = (float)(count[c] / total);
  t->node[node] = (struct nm__node){-1, 0, t->n_leaves++};
  return true;
}

/* Decides one node: a leaf, or two parts still to be decided, put on the stack. */
static bool decide(struct grower *g, struct part p, struct part *stack, size_t *n_stack) {
  struct nm__tree *t = g->tree;
  double count[MAX_CLASSES], total = 0, most = 0;
  count_classes(g, p.from, p.to, count);
  for (int c = 0; c < g->n_classes; c++) {
    total += count[c];
    most = count[c] > most ? count[c] : most;
  }
  struct cut cut = {-1, 0, 0};
  if (most < total) cut = find_cut(g, p.from, p.to, count);
  if (cut.feature < 0) return leaf(g, p.node, count, total);
  if (!room((void **)&t->node, t->n_nodes, 2, &g->cap_nodes, sizeof *t->node)) return false;
  size_t middle = partition(g, p.from, p.to, &cut);
  uint32_t next = t->n_nodes;
  t->node[p.node] = (struct nm__node){cut.feature, cut.threshold, next};
  t->n_nodes += 2;
  stack[(*n_stack)++] = (struct part){next + 1, middle, p.to};
  stack[(*n_stack)++] = (struct part){next, p.from, middle};
  return true;
}

/* Which rows, and how often: as many draws as there are rows, or each row once. */
static void draw_bag(struct grower *g, const uint32_t *rows, size_t n, bool whole) {
  uint32_t *times = g->side;
  memset(times, 0, n * sizeof *times);
  for (size_t i = 0; i < n; i++) times[whole ? i : nm__rng_below(&g->rng, n)]++;
  g->n = 0;
  for (size_t i = 0; i < n; i++) {
    if (!times[i]) continue;
    g->row[g->n] = rows ? rows[i] : (uint32_t)i;
    g->weight[g->n++] = times[i];
  }
}

static bool grow(struct grower *g) {
  struct part *stack = nm__alloc(g->n + 2, sizeof *stack);   /* parts do not overlap */
  size_t n_stack = 1;
  bool good = stack && room((void **)&g->tree->node, 0, 1, &g->cap_nodes, sizeof *g->tree->node);
  if (good) {
    stack[0] = (struct part){0, 0, g->n};
    g->tree->n_nodes = 1;
  }
  while (good && n_stack) good = decide(g, stack[--n_stack], stack, &n_stack);
  free(stack);
  return good;
}

/* ---- the forest ----------------------------------------------------------------------- */

struct fit {
  const float *x;
  size_t ld, n;
  const uint32_t *rows;
  const uint8_t *label;
  const struct nm__forest_opts *o;
  int n_features;
  struct nm__forest *out;
  bool *good;
};

static void one_tree(void *arg, int t, int thread) {
  struct fit *f = arg;
  size_t n = f->n;
  (void)thread;
  struct grower g = {.x = f->x, .ld = f->ld, .d = f->out->d, .n_classes = f->out->n_classes,
                     .n_features = f->n_features, .label = f->label, .tree = &f->out->tree[t],
                     .rng = {f->o->seed, 0x74726565u + (uint64_t)t, 0}};
  g.row = nm__alloc(n, sizeof *g.row);
  g.weight = nm__alloc(n, sizeof *g.weight);
  g.side = nm__alloc(2 * n, sizeof *g.side);
  g.sorted = nm__alloc(n, sizeof *g.sorted);
  g.feature = nm__alloc((size_t)g.d, sizeof *g.feature);
  if (g.row && g.weight && g.side && g.sorted && g.feature) {
    for (int k = 0; k < g.d; k++) g.feature[k] = (uint32_t)k;
    draw_bag(&g, f->rows, n, f->o->whole);
    f->good[t] = grow(&g);
  }
  free(g.row);
  free(g.weight);
  free(g.side);
  free(g.sorted);
  free(g.feature);
}

static int check(const struct fit *f, nm_err *err) {
  const struct nm__forest *out = f->out;
  if (out->d < 1 || f->n < 1 || f->n > INT32_MAX || out->n_classes < 2 ||
      out->n_classes > MAX_CLASSES || out->n_trees < 1)
    return nm__fail(err, NM_EUSAGE, "a forest of %d trees on %zu rows of %d features and %d "
                    "classes cannot be grown", out->n_trees, f->n, out->d, out->n_classes);
  for (size_t i = 0; i < f->n; i++) {
    size_t row = f->rows ? f->rows[i] : i;
    if (f->label[row] >= out->n_classes)
      return nm__fail(err, NM_EUSAGE, "row %zu has class %d of %d", row, f->label[row],
                      out->n_classes);
    for (int k = 0; k < out->d; k++) {
      float v = f->x[row * f->ld + (size_t)k];
      if (!(v - v == 0))
        return nm__fail(err, NM_EFORMAT, "feature %d of row %zu is not a finite number", k, row);
    }
  }
  return NM_OK;
}

int nm__forest_fit(const float *x, size_t ld, int d, const uint32_t *rows, size_t n,
                   const uint8_t *label, int n_classes, const struct nm__forest_opts *o,
                   struct nm__forest *out, nm_err *err) {
  *out = (struct nm__forest){.d = d, .n_classes = n_classes,
                             .n_trees = o->n_trees ? o->n_trees : 100};
  int root = o->n_features;
  if (!root)
    for (root = 1; (int64_t)(root + 1) * (root + 1) <= d; root++) {}
  struct fit f = {x, ld, n, rows, label, o, root < d ? root : d, out, NULL};
  int st = check(&f, err);
  if (st) return out->n_trees = 0, st;
  out->tree = nm__alloc((size_t)out->n_trees, sizeof *out->tree);
  f.good = nm__alloc((size_t)out->n_trees, sizeof *f.good);
  if (out->tree && f.good) nm__pool_run(o->pool, out->n_trees, one_tree, &f);
  for (int t = 0; t < out->n_trees && !st; t++)
    if (!out->tree || !f.good || !f.good[t]) st = nm__fail_memory(err, "a forest", n * 40);
  free(f.good);
  if (st) nm__forest_done(out);
  return st;
}

void nm__forest_shares(const struct nm__forest *f, const float *x, double *p) {
  size_t k = (size_t)f->n_classes;
  memset(p, 0, k * sizeof *p);
  for (int t = 0; t < f->n_trees; t++) {
    const struct nm__tree *tree = &f->tree[t];
    const struct nm__node *v = tree->node;
    while (v->feature >= 0) v = &tree->node[v->next + !(x[v->feature] <= v->threshold)];
    for (size_t c = 0; c < k; c++) p[c] += (double)tree->share[v->next * k + c];
  }
  for (size_t c = 0; c < k; c++) p[c] /= f->n_trees;
}

void nm__forest_done(struct nm__forest *f) {
  for (int t = 0; f->tree && t < f->n_trees; t++) {
    free(f->tree[t].node);
    free(f->tree[t].share);
  }
  free(f->tree);
  *f = (struct nm__forest){0};
}
