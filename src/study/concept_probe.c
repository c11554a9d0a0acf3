/* concept_probe.c - a linear probe after every block: the vectors, the splits, the curves. */
#include <stdlib.h>
#include <string.h>

#include "study/concept.h"

enum { SPLIT_SEED = 42, MAX_V = 4096 };

/* ---- vectors -------------------------------------------------------------------- */

struct capture {
  const struct nm__mini_items *t;
  struct nm__concept_acts *out;
  int row_of[NM__CONCEPT_ROWS + 4];            /* of a site; -1: logits */
  int8_t class_of[MAX_V];                      /* of an answer's id; -1: no answer */
  bool mean;
};

static void take_answer(struct capture *c, const nm_row *r) {
  int64_t best = 0, chosen = -1;
  for (int64_t i = 0; i < r->n; i++) {
    if (r->data[i] > r->data[best]) best = i;
    if (i < MAX_V && c->class_of[i] >= 0 && (chosen < 0 || r->data[i] > r->data[chosen]))
      chosen = i;
  }
  c->out->exact += best == c->t->answer[r->seq];
  c->out->by_label += chosen >= 0 && c->class_of[chosen] == c->t->label[r->seq];
}

static int take_row(void *arg, const nm_row *r, nm_err *err) {
  struct capture *c = arg;
  struct nm__concept_acts *a = c->out;
  int row = c->row_of[r->site];
  (void)err;
  if (row < 0) return take_answer(c, r), NM_OK;
  float *x = a->x + ((size_t)row * a->n + r->seq) * (size_t)a->D;
  if (!c->mean) return memcpy(x, r->data, sizeof *x * (size_t)a->D), NM_OK;
  float share = 1 / (float)c->t->seq[r->seq].n;
  for (int i = 0; i < a->D; i++) x[i] += share * r->data[i];
  return NM_OK;
}

static int find_sites(const nm_model *m, const nm_tap *taps, struct capture *c, nm_err *err) {
  nm_site *site;
  int n;
  int st = nm_run_sites(m, taps, 2, &site, &n, err);
  if (st) return st;
  if (n > NM__CONCEPT_ROWS + 1)
    st = nm__fail(err, NM_EUSAGE, "the study looks at models of at most %d blocks",
                  NM__CONCEPT_ROWS - 1);
  for (int i = 0; i < n && !st; i++)
    c->row_of[i] = !strcmp(site[i].name, "logits") ? -1 : site[i].layer + 1;
  nm_free(site);
  return st;
}

/* The trap of reading where the answer already stands. */
static int with_answers(const struct nm__mini_items *t, nm_seq **out, nm_err *err) {
  nm_seq *v = *out = nm__alloc(t->n, sizeof *v);
  if (!v) return nm__fail_memory(err, "items", t->n * sizeof *v);
  for (size_t i = 0; i < t->n; i++) {
    int32_t *ids = nm__alloc(t->seq[i].n + 1, sizeof *ids);
    if (!ids) return nm__fail_memory(err, "an item", t->seq[i].n * sizeof *ids);
    memcpy(ids, t->seq[i].ids, t->seq[i].n * sizeof *ids);
    ids[t->seq[i].n] = t->answer[i];
    v[i] = (nm_seq){ids, t->seq[i].n + 1};
  }
  return NM_OK;
}

/* Before the first block a vector is a function of its token: items that end alike look alike. */
size_t nm__concept_strays(const struct nm__concept_acts *a, const struct nm__mini_items *t) {
  size_t n = 0, first[MAX_V] = {0};            /* an item that ends in the token, plus 1 */
  for (size_t i = 0; i < t->n; i++) {
    int32_t last = t->seq[i].ids[t->seq[i].n - 1];
    size_t *f = &first[last % MAX_V], D = (size_t)a->D;
    if (!*f) *f = i + 1;
    else n += memcmp(a->x + i * D, a->x + (*f - 1) * D, D * sizeof *a->x) != 0;
  }
  return n;
}

static void free_seqs(nm_seq *v, size_t n) {
  for (size_t i = 0; v && i < n; i++) free((void *)(uintptr_t)v[i].ids);
  free(v);
}

static int run(const nm_model *m, struct capture *c, const nm_seq *seqs, int threads, nm_err *err) {
  nm_tap taps[2] = {{"embed|blk.*.resid_post", c->mean ? "all" : "last"}, {"logits", "last"}};
  nm_request r = {.seqs = seqs, .n_seqs = c->t->n, .taps = taps, .n_taps = 2, .row = take_row,
                  .arg = c};
  nm_engine *e = NULL;
  int st = find_sites(m, taps, c, err);
  if (!st) st = nm_engine_new(m, &(nm_engine_opts){.threads = threads}, &e, err);
  if (!st) st = nm_run(e, &r, err);
  nm_engine_free(e);
  return st;
}

int nm__concept_capture(const nm_model *m, const struct nm__mini_items *t, int fault, int threads,
                        struct nm__concept_acts *out, nm_err *err) {
  struct capture c = {.t = t, .out = out, .mean = fault == NM__MEAN_OVER_TOKENS};
  nm_seq *longer = NULL;
  *out = (struct nm__concept_acts){.n_rows = m->L + 1, .D = m->D, .n = t->n};
  memset(c.class_of, -1, sizeof c.class_of);
  for (size_t i = 0; i < t->n; i++)
    if (t->answer[i] < MAX_V) c.class_of[t->answer[i]] = (int8_t)t->label[i];
  size_t n = (size_t)out->n_rows * t->n * (size_t)m->D;
  out->x = nm__alloc(n, sizeof *out->x);
  int st = out->x ? NM_OK : nm__fail_memory(err, "the vectors", n * sizeof *out->x);
  if (!st && fault == NM__ANSWER_TOKEN) st = with_answers(t, &longer, err);
  if (!st) st = run(m, &c, longer ? longer : t->seq, threads, err);
  free_seqs(longer, t->n);
  out->exact /= (double)t->n;
  out->by_label /= (double)t->n;
  if (st) nm__concept_acts_done(out);
  return st;
}

void nm__concept_acts_done(struct nm__concept_acts *a) {
  free(a->x);
  *a = (struct nm__concept_acts){0};
}

/* ---- splits ------------------------------------------------------------------------ */

static size_t count_shared(const struct nm__mini_items *t, const struct nm__split *s,
                           uint8_t *side) {
  size_t n = 0;
  memset(side, 0, t->n_twins);
  for (size_t i = 0; i < s->n_train; i++) side[t->twin[s->train[i]]] |= 1;
  for (size_t i = 0; i < s->n_test; i++) side[t->twin[s->test[i]]] |= 2;
  for (size_t i = 0; i < t->n_twins; i++) n += side[i] == 3;
  return n;
}

int nm__concept_splits_make(const struct nm__mini_items *t, int n, int fault,
                            struct nm__concept_splits *out, nm_err *err) {
  const uint32_t *group = fault == NM__SPLIT_TWINS ? NULL : t->twin;
  uint8_t *side = nm__alloc(t->n_twins + 1, 1);
  *out = (struct nm__concept_splits){.n = n};
  int st = side ? NM_OK : nm__fail_memory(err, "the splits", t->n_twins);
  for (int i = 0; i < n && !st; i++) {
    st = nm__split_make(t->n, t->label, group, group ? t->n_twins : 0, 0.4,
                        SPLIT_SEED + (uint64_t)i, &out->v[i], err);
    if (!st) out->shared += count_shared(t, &out->v[i], side);
  }
  free(side);
  if (st) nm__concept_splits_done(out);
  return st;
}

void nm__concept_splits_done(struct nm__concept_splits *s) {
  for (int i = 0; i < s->n; i++) nm__split_done(&s->v[i]);
  *s = (struct nm__concept_splits){0};
}

/* ---- curves -------------------------------------------------------------------------- */

struct fits {
  const struct nm__concept_acts *a;
  const uint8_t *label[NM__CONCEPT_SPLITS];
  const struct nm__concept_splits *s;
  bool on_train;
  double acc[NM__CONCEPT_ROWS][NM__CONCEPT_SPLITS];
  nm_err err[NM__CONCEPT_ROWS][NM__CONCEPT_SPLITS];
};

static void fit(void *arg, int tile, int thread) {
  struct fits *f = arg;
  int row = tile / f->s->n, k = tile % f->s->n, D = f->a->D;
  const struct nm__split *s = &f->s->v[k];
  const float *x = f->a->x + (size_t)row * f->a->n * (size_t)D;
  const uint8_t *label = f->label[k];
  struct nm__logreg m = {0};
  (void)thread;
  if (nm__logreg_fit(x, (size_t)D, D, s->train, s->n_train, label, NULL, &m, &f->err[row][k]))
    return;
  const uint32_t *held = f->on_train ? s->train : s->test;
  size_t n = f->on_train ? s->n_train : s->n_test, right = 0;
  for (size_t i = 0; i < n; i++)
    right += (nm__logreg_score(&m, x + (size_t)held[i] * (size_t)D) > 0) == label[held[i]];
  f->acc[row][k] = (double)right / (double)n;
  nm__logreg_done(&m);
}

/* The trap of a curve that nobody measured: it rises where one would expect. */
static void make_up(int level, int n_rows, double *acc) {
  static const int at[NM__CONCEPT_LEVELS] = {1, 2, 2, 4, 4};
  for (int i = 0; i < n_rows; i++) acc[i] = i >= at[level] ? 1 : 0.5 + 0.1 * i / n_rows;
}

int nm__concept_curve(const struct nm__concept_acts *a, const uint8_t *label, bool shuffle,
                      const struct nm__concept_splits *s, int fault, int level,
                      struct nm__pool *pool, double *acc, nm_err *err) {
  struct fits *f = nm__alloc(1, sizeof *f);
  uint8_t *other = nm__alloc(a->n * (size_t)s->n + 1, 1);
  int st = f && other ? NM_OK : nm__fail_memory(err, "the probes", sizeof *f);
  if (!st && fault == NM__FAKE_CURVE && !shuffle) {
    make_up(level, a->n_rows, acc);
  } else if (!st) {
    *f = (struct fits){.a = a, .s = s, .on_train = fault == NM__TRAIN_ACCURACY};
    for (int k = 0; k < s->n; k++) {
      uint8_t *own = other + (size_t)k * a->n;
      if (shuffle) nm__shuffle_labels(label, a->n, 1000003 + (uint64_t)k, own);
      f->label[k] = shuffle ? own : label;
    }
    nm__pool_run(pool, a->n_rows * s->n, fit, f);
    for (int i = 0; i < a->n_rows && !st; i++) {
      for (int k = 0; k < s->n && !st; k++)
        if ((st = f->err[i][k].status) && err) *err = f->err[i][k];
      acc[i] = nm__mean(f->acc[i], (size_t)s->n);
    }
  }
  free(f);
  free(other);
  return st;
}

double nm__concept_peak(const double *acc, int n_rows) {
  double peak = 0;
  for (int i = 1; i < n_rows; i++) peak = acc[i] > peak ? acc[i] : peak;
  return peak;
}

int nm__concept_depth(const double *acc, int n_rows) {
  double need = 0.5 + 0.9 * (nm__concept_peak(acc, n_rows) - 0.5);
  int i = 1;
  while (i < n_rows && acc[i] < need) i++;
  return i - 1;
}
