/* depth_fit.c - a probe per layer on repeated splits, with the rows that must not
 * show the concept: shuffled labels, bag of words, embedding, random weights.
 *
 * All repeats on the features of a layer are one call of many labels; its bits do not depend on
 * the number of threads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "study/depth.h"
#include "tensor/math.h"

enum kind { REAL, SHUFFLED, RANDOM, N_KINDS };

struct fit {
  const struct nm__depth_set *s;
  const struct nm__depth_vectors *v[N_KINDS];
  const nm_depth_opts *o;
  int R, L, K;                     /* repeats; rows of the curve (embedding first); labels */
  struct nm__split *split;         /* [R] */
  uint8_t **shuffled;              /* [R][n] */
  float **x[2];                    /* features of the layers in work: real, random weights */
  int first;                       /* layer of tile 0 */
  struct nm__metrics *m;           /* [L][R][N_KINDS] */
  uint64_t *confusion;             /* [L][K][K] */
};

static struct nm__metrics *cell(struct fit *f, int layer, int rep, int kind) {
  return &f->m[((size_t)layer * (size_t)f->R + (size_t)rep) * N_KINDS + (size_t)kind];
}

static void count_two(const double *score, const uint8_t *truth, size_t n, uint64_t *confusion) {
  for (size_t i = 0; i < n; i++) confusion[2 * truth[i] + (score[i] > 0)]++;
}

/* Scores of the held-out rows, and what they say. */
static int judge(struct fit *f, const float *x, const uint8_t *label, const struct nm__split *sp,
                 const struct nm__depth_probe *p, uint64_t *confusion, struct nm__metrics *out,
                 nm_err *err) {
  size_t d = (size_t)f->v[REAL]->D, width = f->K == 2 ? 1 : (size_t)f->K;
  double *score = nm__alloc(sp->n_test * width, sizeof *score);
  uint8_t *truth = nm__alloc(sp->n_test, 1);
  int st = score && truth ? NM_OK : nm__fail_memory(err, "scores", sp->n_test * width * 9);
  for (size_t i = 0; i < sp->n_test && !st; i++) {
    nm__depth_probe_score(p, x + (size_t)sp->test[i] * d, score + i * width);
    truth[i] = label[sp->test[i]];
  }
  if (!st && f->K > 2) *out = nm__metrics_many(score, truth, sp->n_test, f->K, confusion);
  if (!st && f->K == 2) {
    *out = nm__metrics_of(score, truth, sp->n_test);
    if (confusion) count_two(score, truth, sp->n_test, confusion);
  }
  free(score);
  free(truth);
  return st;
}

/* All repeats of the given kinds on one layer's features, in one call: a row outside a repeat's
 * training side is skipped by its label, so every reading of the features serves all fits. */
static int fit_layer(struct fit *f, struct nm__pool *pool, int slot, const int *kinds, int n_kinds,
                     nm_err *err) {
  int n = n_kinds * f->R, d = f->v[REAL]->D;
  size_t N = f->s->n, KK = (size_t)(f->K * f->K);
  const float *x = f->x[kinds[0] == RANDOM][slot];
  struct nm__depth_probe_opts po = {f->o->forest, f->o->C, f->o->seed, pool};
  struct nm__depth_probe *p = nm__alloc((size_t)n, sizeof *p);
  uint8_t *mine = nm__alloc((size_t)n * N, 1);
  const uint8_t **label = nm__alloc((size_t)n, sizeof *label);
  int st = p && mine && label ? NM_OK : nm__fail_memory(err, "labels", (size_t)n * N);
  for (int k = 0; k < n && !st; k++) {
    const uint8_t *all = kinds[k / f->R] == SHUFFLED ? f->shuffled[k % f->R] : f->s->lab.label;
    const struct nm__split *sp = &f->split[k % f->R];
    label[k] = memset(mine + (size_t)k * N, NM__LOGREG_SKIP, N);
    for (size_t i = 0; i < sp->n_train; i++)
      mine[(size_t)k * N + sp->train[i]] = all[sp->train[i]];
  }
  if (!st) st = nm__depth_probe_fit(x, d, N, label, n, f->K, &po, p, err);
  for (int k = 0; k < n && !st; k++) {
    int kind = kinds[k / f->R], rep = k % f->R, layer = f->first + slot;
    st = judge(f, x, kind == SHUFFLED ? f->shuffled[rep] : f->s->lab.label, &f->split[rep], &p[k],
               kind == REAL ? f->confusion + (size_t)layer * KK : NULL, cell(f, layer, rep, kind),
               err);
  }
  for (int k = 0; p && k < n; k++) nm__depth_probe_done(&p[k]);
  free(p);
  free(mine);
  free(label);
  return st;
}

static int make_splits(struct fit *f, nm_err *err) {
  const struct nm__labelled *l = &f->s->lab;
  double share = f->o->test_share > 0 ? f->o->test_share : 0.4;
  f->split = nm__alloc((size_t)f->R, sizeof *f->split);
  f->shuffled = nm__alloc((size_t)f->R, sizeof *f->shuffled);
  int st = f->split && f->shuffled ? NM_OK : nm__fail_memory(err, "the splits", 0);
  for (int r = 0; r < f->R && !st; r++) {
    uint64_t seed = f->o->seed + (uint64_t)r;
    st = nm__split_make(f->s->n, l->label, l->grouped ? l->group : NULL, l->n_groups, share, seed,
                        &f->split[r], err);
    f->shuffled[r] = nm__alloc(f->s->n, 1);
    if (!f->shuffled[r]) st = nm__fail_memory(err, "labels", f->s->n);
    if (!st) nm__shuffle_labels(l->label, f->s->n, seed + 1000003, f->shuffled[r]);
  }
  return st ? nm__fail_at(err, st, "%s", f->s->path) : NM_OK;
}

static void layers_free(struct fit *f, int most) {
  for (int k = 0; k < 2; k++) {
    for (int i = 0; f->x[k] && i < most; i++) free(f->x[k][i]);
    free(f->x[k]);
  }
}

/* Room for the features of `most` layers, real and (where there are any) of random weights. */
static int layers_alloc(struct fit *f, int most, nm_err *err) {
  size_t one = f->s->n * (size_t)f->v[REAL]->D;
  bool good = true;
  for (int k = 0; k < 2; k++) {
    f->x[k] = nm__alloc((size_t)most, sizeof *f->x[k]);
    good &= f->x[k] != NULL;
    for (int i = 0; good && i < most && (k == 0 || f->v[RANDOM]); i++)
      good = (f->x[k][i] = nm__alloc(one, sizeof(float))) != NULL;
  }
  return good ? NM_OK : nm__fail_memory(err, "features", one * 8 * (size_t)most);
}

/* Reads and fits layers first .. first + n - 1. */
static int fit_some(struct fit *f, struct nm__pool *pool, int n, nm_err *err) {
  int st = NM_OK;
  for (int i = 0; i < n && !st; i++) {
    st = nm__depth_vectors_read(f->v[REAL], f->first + i, f->x[0][i], err);
    if (!st && f->v[RANDOM])
      st = nm__depth_vectors_read(f->v[RANDOM], f->first + i, f->x[1][i], err);
  }
  for (int i = 0; i < n && !st; i++) {
    st = fit_layer(f, pool, i, (int[]){REAL, SHUFFLED}, 2, err);
    if (!st && f->v[RANDOM]) st = fit_layer(f, pool, i, (int[]){RANDOM}, 1, err);
  }
  return st;
}

/* A few layers at a time, as many as 1 GiB of features holds: between them Ctrl-C is heard. */
static int fit_layers(struct fit *f, struct nm__pool *pool, const nm_progress *p, nm_err *err) {
  size_t one = f->s->n * (size_t)f->v[REAL]->D;
  int most = (int)(((size_t)1 << 28) / (one * 2 + 1)) + 1;
  if (most > 4) most = 4;
  if (most > f->L) most = f->L;
  int st = layers_alloc(f, most, err);
  for (f->first = 0; f->first < f->L && !st; f->first += most) {
    int n = f->L - f->first < most ? f->L - f->first : most;
    st = fit_some(f, pool, n, err);
    if (!st) st = nm__progress(p, "fitting probes", f->first + n, f->L, err);
  }
  layers_free(f, most);
  return st;
}

/* ---- summaries ------------------------------------------------------------------- */

static double t_975(int df) {
  static const double t[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                             2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086};
  return df < 1 ? 0 : df <= 20 ? t[df - 1] : 1.96 + 2.4 / df;
}

nm_interval nm__depth_interval(const double *v, int r, double n_test, double n_train) {
  double mean = nm__mean(v, (size_t)r), s2 = 0;
  for (int i = 0; i < r; i++) s2 += (v[i] - mean) * (v[i] - mean);
  s2 = r > 1 ? s2 / (r - 1) : 0;
  double half = t_975(r - 1) * nm__sqrt((1.0 / r + n_test / n_train) * s2);
  return (nm_interval){mean, mean - half, mean + half};
}

enum metric { ACC, F1, AUC };

static nm_interval interval_of(struct fit *f, int layer, int kind, enum metric which) {
  double v[256];
  for (int r = 0; r < f->R; r++) {
    struct nm__metrics *m = cell(f, layer, r, kind);
    v[r] = which == ACC ? m->acc : which == F1 ? m->f1 : m->auc;
  }
  return nm__depth_interval(v, f->R, (double)f->split[0].n_test, (double)f->split[0].n_train);
}

/* Layers as block numbers; acc[0] is the embedding, acc[i + 1] block i. -1: none. */
static int jump_of(const double *acc, int L) {
  for (int i = 1; i < L; i++)
    if (acc[i] >= 1.1 * acc[i - 1]) return i - 1;
  return -1;
}
static int converge_of(const double *acc, int L) {
  double peak = 0;
  for (int i = 1; i < L; i++) peak = acc[i] > peak ? acc[i] : peak;
  int at = -1;
  for (int i = L - 1; i >= 1 && peak - acc[i] <= 0.03 * peak; i--) at = i - 1;
  return at;
}
/* The paper's wording taken literally: the last layer whose ratio to the one before is flat. */
static int literal_of(const double *acc, int L) {
  for (int i = L - 1; i >= 2; i--) {
    double beta = acc[i - 1] > 0 ? acc[i] / acc[i - 1] : 0;
    if (beta > 0.97 && beta < 1.03) return i - 1;
  }
  return -1;
}

static void spread(struct fit *f, nm_depth_curve *c) {
  double jump[256], conv[256], top[256], acc[4100] = {0};
  for (int r = 0; r < f->R; r++) {
    top[r] = 0;
    for (int l = 0; l < f->L; l++) {
      acc[l] = cell(f, l, r, REAL)->acc;
      double s = cell(f, l, r, SHUFFLED)->acc;
      top[r] = s > top[r] ? s : top[r];
    }
    jump[r] = jump_of(acc, f->L);
    conv[r] = c->split_converge[r] = converge_of(acc, f->L);
    for (int l = 1; l < f->L; l++)
      if (acc[l] > c->split_peak[r]) c->split_peak[r] = acc[l];
  }
  c->shuffled_max = nm__mean(top, (size_t)f->R);
  c->jump_lo = nm__quantile(jump, (size_t)f->R, 0.025);
  c->jump_hi = nm__quantile(jump, (size_t)f->R, 0.975);
  c->converge_lo = nm__quantile(conv, (size_t)f->R, 0.025);
  c->converge_hi = nm__quantile(conv, (size_t)f->R, 0.975);
}

static void verdicts(const struct fit *f, nm_depth_curve *c) {
  double majority = 0, sum = 0;
  for (int k = 0; k < f->K; k++) {
    double share = (double)c->n_label[k] / (double)c->n;
    majority = share > majority ? share : majority;
  }
  for (int l = 0; l < c->n_layers; l++) sum += c->layer[l].shuffled.mean;
  sum /= c->n_layers;
  /* Shuffled labels must come out between an even guess and always saying the larger class, give
   * or take three standard errors of the guess (and at least 0.05). */
  double slack = 1.5 / nm__sqrt((double)f->split[0].n_test * f->R);
  if (slack < 0.05) slack = 0.05;
  c->shuffled_ok = sum > c->chance - slack && sum < majority + slack;
  double random = 0;
  for (int l = 0; c->random && l < c->n_layers; l++)
    random = c->random[l].acc.mean > random ? c->random[l].acc.mean : random;
  const nm_interval *peak = &c->layer[c->peak + 1].acc;
  c->above_words = peak->lo > c->words.mean;
  c->above_controls = c->above_words && peak->mean > c->shuffled_max && peak->lo > random;
}

static int summarise(struct fit *f, nm_depth_curve *c, nm_err *err) {
  double acc[4100] = {0};
  c->n_layers = f->L;
  c->n_splits = f->R;
  c->split_converge = nm__alloc((size_t)f->R, sizeof *c->split_converge);
  c->split_peak = nm__alloc((size_t)f->R, sizeof *c->split_peak);
  c->confusion = nm__alloc((size_t)(f->K * f->K), sizeof *c->confusion);
  c->layer = nm__alloc((size_t)f->L, sizeof *c->layer);
  c->random = f->v[RANDOM] ? nm__alloc((size_t)f->L, sizeof *c->random) : NULL;
  if (!c->layer || (f->v[RANDOM] && !c->random) || !c->split_converge || !c->split_peak ||
      !c->confusion)
    return nm__fail_memory(err, "the curve", 0);
  c->peak = 0;
  for (int l = 0; l < f->L; l++) {
    c->layer[l] = (nm_depth_layer){l - 1, interval_of(f, l, REAL, ACC), interval_of(f, l, REAL, F1),
                                   interval_of(f, l, REAL, AUC), interval_of(f, l, SHUFFLED, ACC)};
    if (c->random)
      c->random[l] = (nm_depth_layer){l - 1,
                                      interval_of(f, l, RANDOM, ACC),
                                      interval_of(f, l, RANDOM, F1),
                                      interval_of(f, l, RANDOM, AUC),
                                      {0, 0, 0}};
    acc[l] = c->layer[l].acc.mean;
    if (l > 0 && acc[l] > acc[c->peak + 1]) c->peak = l - 1;
  }
  c->jump = jump_of(acc, f->L);
  c->converge = converge_of(acc, f->L);
  c->literal = literal_of(acc, f->L);
  size_t KK = (size_t)(f->K * f->K);
  memcpy(c->confusion, f->confusion + (size_t)(c->peak + 1) * KK, KK * sizeof *c->confusion);
  spread(f, c);
  return NM_OK;
}

/* ---- bag of words ------------------------------------------------------------------ */

static int words(struct fit *f, nm_depth_curve *c, nm_err *err) {
  struct nm__sparse x;
  double acc[256];
  int st = nm__bag_of_words(f->s->lab.text, f->s->n, &x, err);
  if (st) return st;
  for (int r = 0; r < f->R && !st; r++)
    st = nm__depth_words(&x, &f->split[r], f->s->lab.label, f->K, f->o->C, &acc[r], err);
  nm__sparse_done(&x);
  if (!st)
    c->words =
        nm__depth_interval(acc, f->R, (double)f->split[0].n_test, (double)f->split[0].n_train);
  return st;
}

static char *split_text(const struct fit *f) {
  char *s = nm__alloc(400, 1);
  if (s)
    snprintf(s, 400, "%d splits of %zu training and about %zu test rows, seeds %llu to %llu; %s%s",
             f->R, f->split[0].n_train, f->split[0].n_test, (unsigned long long)f->o->seed,
             (unsigned long long)(f->o->seed + (uint64_t)f->R - 1),
             f->s->lab.grouped ? "grouped: rows of one group stay on one side"
                               : "not grouped: no twins were found",
             f->split[0].n_train < (size_t)f->v[REAL]->D && !f->o->forest
                 ? "; fewer training rows than dimensions: any labels can be fitted, only held-out "
                   "rows count"
                 : "");
  return s;
}

/* Says of two curves whether their splits may be compared one by one. */
static int hash_splits(const struct fit *f, nm_depth_curve *c, nm_err *err) {
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 31);
  for (int r = 0; r < f->R; r++) {
    const struct nm__split *sp = &f->split[r];
    nm__buf_printf(&b, "|%zu:", sp->n_train);
    for (size_t i = 0; i < sp->n_train + sp->n_test; i++) {
      size_t row = i < sp->n_train ? sp->train[i] : sp->test[i - sp->n_train];
      nm__buf_put(&b, &f->s->origin[row], sizeof *f->s->origin);
    }
  }
  nm__buf_puts(&b, f->s->hash);
  nm__hash_hex(b.s, b.len, c->split_hash);
  int st = b.failed ? nm__fail_memory(err, "the splits", b.len) : NM_OK;
  nm__buf_done(&b);
  c->n_test = f->split[0].n_test;
  c->n_train = f->split[0].n_train;
  return st;
}

int nm__depth_fit(struct nm__pool *pool, const struct nm__depth_set *s,
                  const struct nm__depth_vectors *real, const struct nm__depth_vectors *random,
                  const nm_depth_opts *o, nm_depth_curve *c, nm_err *err) {
  struct fit f = {.s = s,
                  .v = {real, real, random},
                  .o = o,
                  .R = o->repeats ? o->repeats : 10,
                  .L = real->n_layers,
                  .K = s->lab.n_labels};
  if (f.R < 1 || f.R > 256) return nm__fail(err, NM_EUSAGE, "--repeats must be 1 to 256");
  f.m = nm__alloc((size_t)f.L * (size_t)f.R * N_KINDS, sizeof *f.m);
  f.confusion = nm__alloc((size_t)f.L * (size_t)(f.K * f.K), sizeof *f.confusion);
  int st = f.m && f.confusion ? make_splits(&f, err) : nm__fail_memory(err, "the metrics", 0);
  if (!st) st = fit_layers(&f, pool, o->progress, err);
  if (!st) st = summarise(&f, c, err);
  if (!st) st = words(&f, c, err);
  if (!st) st = hash_splits(&f, c, err);
  if (!st) {
    verdicts(&f, c);
    c->split = split_text(&f);
  }
  for (int r = 0; r < f.R; r++) {
    if (f.split) nm__split_done(&f.split[r]);
    if (f.shuffled) free(f.shuffled[r]);
  }
  free(f.split);
  free(f.shuffled);
  free(f.m);
  free(f.confusion);
  return st;
}
