/* vector.c - a steering vector for every block, from texts of two classes.
 *
 *   texts ── run, taps at the site ── x [layers][texts][D] ─┬─ repeats x layers: fit on one side of
 *                                                           │  a split, test on the other; with
 *                                                           │  shuffled classes; random directions
 *                                                           └─ fit on all ── files
 *
 * Repeats and layers run in parallel; each is sequential, so threads change no bit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "file/npy.h"
#include "look/direction.h"
#include "look/linalg.h"
#include "study/depth.h"
#include "study/vector.h"
#include "tensor/math.h"

enum { N_RANDOM = 20, REPEATS_MAX = 200 };

struct vector {
  nm_engine *e;
  const nm_model *m;
  const nm_contrast *c;
  nm_vector_opts o;                /* defaults filled in */
  enum nm__method method;
  nm_vector_result *r;
  nm_site *site;
  float *x;                        /* [layers][n][D] */
  uint32_t *count;                 /* [n] rows that x holds the sum of, at the first layer */
  struct nm__split *split;         /* [repeats] */
  uint8_t *shuffled;               /* [repeats][n] */
  struct job { struct nm__metrics real, fake; double random[N_RANDOM]; nm_err err; } *job;
};

static struct job *job_of(const struct vector *v, int layer, int repeat) {
  return &v->job[layer * v->o.repeats + repeat];
}

/* Pairs whose classes were swapped are still pairs. */
static struct nm__cloud cloud_of(const struct vector *v, int layer, const uint8_t *label) {
  size_t D = (size_t)v->r->D;
  return (struct nm__cloud){v->x + (size_t)layer * v->c->n * D, D, v->r->D, v->c->n, label,
                            v->c->group, v->c->n_groups, v->c->paired};
}

/* ---- capture ------------------------------------------------------------------- */

static int add_row(void *arg, const nm_row *row, nm_err *err) {
  struct vector *v = arg;
  float *to = v->x + ((size_t)row->site * v->c->n + row->seq) * (size_t)v->r->D;
  (void)err;
  for (int d = 0; d < v->r->D; d++) to[d] += row->data[d];
  if (!row->site) v->count[row->seq]++;
  return NM_OK;
}

static int find_sites(struct vector *v, nm_err *err) {
  char glob[128];
  snprintf(glob, sizeof glob, "blk.*.%.100s", v->o.site);
  if (strpbrk(v->o.site, "*?|["))
    return nm__fail(err, NM_EUSAGE, "--site takes one name inside the block, such as resid_post");
  nm_tap tap = {glob, v->o.at};
  int st = nm_run_sites(v->m, &tap, 1, &v->site, &v->r->n_layers, err);
  if (!st && v->site[0].width < 1)
    st = nm__fail(err, NM_EUSAGE, "--site %s: its rows have as many values as there are positions",
                  v->o.site);
  if (!st) v->r->D = (int)v->site[0].width;
  return st;
}

static int capture(struct vector *v, nm_err *err) {
  char glob[128];
  int st = find_sites(v, err);
  if (st) return st;
  size_t L = (size_t)v->r->n_layers, n = v->c->n, D = (size_t)v->r->D;
  v->x = nm__alloc(L * n * D, sizeof *v->x);
  v->count = nm__alloc(n, sizeof *v->count);
  if (!v->x || !v->count) return nm__fail_memory(err, "the activations", L * n * D * sizeof *v->x);
  snprintf(glob, sizeof glob, "blk.*.%.100s", v->o.site);
  nm_tap tap = {glob, v->o.at};
  nm_request q = {.seqs = v->c->seq, .n_seqs = n, .taps = &tap, .n_taps = 1, .edits = v->o.edits,
                  .share_prefix = true, .row = add_row, .arg = v, .progress = v->o.progress};
  st = nm_run(v->e, &q, err);
  for (size_t i = 0; i < n && !st; i++)
    for (size_t l = 0; l < L && v->count[i] > 1; l++)
      for (size_t d = 0; d < D; d++) v->x[(l * n + i) * D + d] /= (float)v->count[i];
  return st;
}

/* ---- held-out separation -------------------------------------------------------- */

/* Pairs swap their classes by coin; other labels are permuted. */
static void shuffle(const struct vector *v, int repeat, uint8_t *out) {
  uint64_t seed = v->o.seed + (uint64_t)repeat;
  if (!v->c->paired) {
    nm__shuffle_labels(v->c->label, v->c->n, seed, out);
    return;
  }
  for (size_t i = 0; i < v->c->n; i++)
    out[i] = v->c->label[i] ^ (uint8_t)(nm__rand_at(seed, 0x5af, v->c->group[i]) & 1);
}

static int make_splits(struct vector *v, nm_err *err) {
  size_t R = (size_t)v->o.repeats, n = v->c->n;
  v->split = nm__alloc(R, sizeof *v->split);
  v->shuffled = nm__alloc(R * n, 1);
  v->job = nm__alloc(R * (size_t)v->r->n_layers, sizeof *v->job);
  if (!v->split || !v->shuffled || !v->job) return nm__fail_memory(err, "the splits", R * n);
  for (size_t r = 0; r < R; r++) {
    int st = nm__split_make(n, v->c->label, v->c->group, v->c->n_groups, v->o.test_share,
                            v->o.seed + r, &v->split[r], err);
    if (st) return st;
    shuffle(v, (int)r, v->shuffled + r * n);
  }
  return NM_OK;
}

/* Random directions are turned by the training side, like any other. */
static void try_random(const struct vector *v, const struct nm__cloud *c, const struct nm__split *s,
                       int repeat, double *u, struct job *j) {
  for (int k = 0; k < N_RANDOM; k++) {
    nm__direction_random(v->o.seed, (uint64_t)repeat * N_RANDOM + (uint64_t)k, c->D, u);
    double train = nm__direction_test(c, s->train, s->n_train, u, 0, &j->err).auc;
    double test = nm__direction_test(c, s->test, s->n_test, u, 0, &j->err).auc;
    j->random[k] = train < 0.5 ? 1 - test : test;
  }
}

/* One repeat of the layer that arg's x and job begin with. */
static void fit_tile(void *arg, int tile, int thread) {
  const struct vector *v = arg;
  struct job *j = &v->job[tile];
  const struct nm__split *s = &v->split[tile];
  struct nm__cloud real = cloud_of(v, 0, v->c->label),
                   fake = cloud_of(v, 0, v->shuffled + (size_t)tile * v->c->n);
  double *u = nm__alloc((size_t)v->r->D, sizeof *u), middle = 0;
  (void)thread;
  if (!u) {
    nm__fail_memory(&j->err, "a direction", 0);
    return;
  }
  if (!nm__direction_fit(&real, s->train, s->n_train, v->method, u, &middle, &j->err))
    j->real = nm__direction_test(&real, s->test, s->n_test, u, middle, &j->err);
  if (!j->err.status &&
      !nm__direction_fit(&fake, s->train, s->n_train, v->method, u, &middle, &j->err))
    j->fake = nm__direction_test(&fake, s->test, s->n_test, u, middle, &j->err);
  if (!j->err.status) try_random(v, &real, s, tile, u, j);
  free(u);
}

/* The t interval of figures that lie in 0..1 may reach beyond. */
static nm_interval share_interval(const struct vector *v, const double *x) {
  nm_interval i = nm__depth_interval(x, v->o.repeats, (double)v->split[0].n_test,
                                     (double)v->split[0].n_train);
  if (i.lo < 0) i.lo = 0;
  if (i.hi > 1) i.hi = 1;
  return i;
}

static void layer_figures(const struct vector *v, int layer) {
  nm_vector_layer *l = &v->r->layer[layer];
  int R = v->o.repeats;
  double acc[REPEATS_MAX], auc[REPEATS_MAX], fake[REPEATS_MAX], random[REPEATS_MAX * N_RANDOM];
  for (int r = 0; r < R; r++) {
    const struct job *j = job_of(v, layer, r);
    acc[r] = j->real.acc;
    auc[r] = j->real.auc;
    fake[r] = j->fake.auc;
    memcpy(random + r * N_RANDOM, j->random, sizeof j->random);
  }
  l->layer = v->site[layer].layer;
  l->acc = share_interval(v, acc);
  l->auc = share_interval(v, auc);
  l->shuffled = share_interval(v, fake);
  l->random = nm__mean(random, (size_t)R * N_RANDOM);
  l->random_high = nm__quantile(random, (size_t)R * N_RANDOM, 0.95);
}

static bool better(const nm_vector_layer *a, const nm_vector_layer *b) {
  if (a->auc.mean != b->auc.mean) return a->auc.mean > b->auc.mean;
  return a->acc.mean > b->acc.mean;
}

static void judge(const struct vector *v) {
  nm_vector_result *r = v->r;
  for (int k = 0; k < v->o.repeats; k++) {
    double top = 0;
    for (int l = 0; l < r->n_layers; l++)
      top = job_of(v, l, k)->fake.auc > top ? job_of(v, l, k)->fake.auc : top;
    r->shuffled_max += top / v->o.repeats;
  }
  for (int l = 1; l < r->n_layers; l++)
    if (better(&r->layer[l], &r->layer[r->best])) r->best = l;
  const nm_vector_layer *b = &r->layer[r->best];
  r->above_controls = b->auc.lo > b->shuffled.hi && b->auc.lo > r->shuffled_max &&
                      b->auc.lo > b->random;
}

/* ---- the vectors ------------------------------------------------------------------ */

static int fit_all(struct vector *v, nm_err *err) {
  nm_vector_result *r = v->r;
  size_t n = v->c->n, D = (size_t)r->D;
  uint32_t *rows = nm__alloc(n, sizeof *rows);
  double *u = nm__alloc(D, sizeof *u), middle;
  r->v = nm__alloc((size_t)r->n_layers * D, sizeof *r->v);
  int st = rows && u && r->v ? NM_OK : nm__fail_memory(err, "the vectors", 0);
  for (size_t i = 0; rows && i < n; i++) rows[i] = (uint32_t)i;
  for (int l = 0; l < r->n_layers && !st; l++) {
    struct nm__cloud c = cloud_of(v, l, v->c->label);
    if ((st = nm__direction_fit(&c, rows, n, v->method, u, &middle, err))) break;
    for (size_t d = 0; d < D; d++) r->v[(size_t)l * D + d] = (float)u[d];
    r->layer[l].length = nm__sqrt(nm__dot(u, u, (int)D));
    for (size_t i = 0; i < n; i++) {
      double sq = 0;
      for (size_t d = 0; d < D; d++) sq += (double)c.x[i * D + d] * (double)c.x[i * D + d];
      r->layer[l].stream += nm__sqrt(sq) / (double)n;
    }
    st = nm__progress(v->o.progress, "fitting the vectors", l + 1.0, r->n_layers, err);
  }
  free(rows);
  free(u);
  return st;
}

static int separate(struct vector *v, nm_err *err) {
  int st = make_splits(v, err), n = v->r->n_layers * v->o.repeats;
  if (st) return st;
  v->r->layer = nm__alloc((size_t)v->r->n_layers, sizeof *v->r->layer);
  if (!v->r->layer) return nm__fail_memory(err, "the layers", 0);
  for (int l = 0; l < v->r->n_layers && !st; l++) { /* a layer at a time, so that Ctrl-C is heard */
    struct vector part = *v;
    part.job = job_of(v, l, 0);
    part.x += (size_t)l * v->c->n * (size_t)v->r->D;
    nm__pool_run(nm__engine_pool(v->e), v->o.repeats, fit_tile, &part);
    st = nm__progress(v->o.progress, "testing on held-out texts", (l + 1.0) * v->o.repeats, n, err);
  }
  for (int i = 0; i < n && !st; i++)
    if (v->job[i].err.status) {
      if (err) *err = v->job[i].err;
      st = v->job[i].err.status;
    }
  for (int l = 0; l < v->r->n_layers && !st; l++) layer_figures(v, l);
  if (!st) judge(v);
  return st;
}

/* ---- files -------------------------------------------------------------------------- */

static int write_edit(const struct vector *v, const struct nm__record *rec, nm_err *err) {
  struct nm__buf b;
  nm__buf_init(&b, 1000);
  nm__buf_printf(&b,
                 "{\"site\": \"%s\", \"at\": \"all\", \"op\": \"add\", \"vector\": \"best.npy\", "
                 "\"scale\": 1}\n",
                 v->site[v->r->best].name);
  int st = nm__record_put(rec, "edit.json", &b, err);
  nm__buf_done(&b);
  return st;
}

static int write_vectors(const struct vector *v, const struct nm__record *rec, nm_err *err) {
  nm_vector_result *r = v->r;
  int64_t ne[2] = {r->n_layers, r->D};
  const float *best = r->v + (int64_t)r->best * r->D;
  char *all = nm__path_join(rec->dir, "vector.npy"), *one = nm__path_join(rec->dir, "best.npy"),
       *gguf = nm__path_join(rec->dir, "vector.gguf");
  uint8_t *has = nm__alloc((size_t)r->n_layers, 1);
  struct nm__dirs d = {r->v, r->n_layers, 1, r->D, has};
  int st = all && one && gguf && has ? NM_OK : nm__fail_memory(err, "a file name", 0);
  if (has) memset(has, 1, (size_t)r->n_layers);
  if (!st) st = nm__npy_write(all, 2, ne, r->v, err);
  if (!st) st = nm__npy_write(one, 1, ne + 1, best, err);
  bool control = !strcmp(v->o.site, "resid_post") && r->n_layers > 1 && v->m->causal;
  if (!st && control) st = nm__dirs_write_gguf(gguf, v->m->arch->name, &d, err);
  if (!st) st = write_edit(v, rec, err);
  free(all);
  free(one);
  free(gguf);
  free(has);
  return st;
}

static int summarise(struct vector *v, nm_err *err) {
  const nm_vector_layer *b = &v->r->layer[v->r->best];
  char text[400];
  snprintf(text, sizeof text,
           "%s at %s: AUC %.3f (%.3f to %.3f) on held-out texts; shuffled %.3f, random "
           "directions %.3f: %s",
           v->o.method, v->site[v->r->best].name, b->auc.mean, b->auc.lo, b->auc.hi,
           b->shuffled.mean, b->random,
           v->r->above_controls ? "the vector separates" : "no more than its controls");
  v->r->summary = nm__strdup(text);
  return v->r->summary ? NM_OK : nm__fail_memory(err, "the summary", 0);
}

static int run_vector(struct vector *v, const struct nm__record *rec, nm_err *err) {
  int st = capture(v, err);
  if (!st) st = separate(v, err);
  if (!st) st = fit_all(v, err);
  if (!st) st = summarise(v, err);
  if (!st) st = write_vectors(v, rec, err);
  return st ? st : nm__vector_write(v->r, v->m, v->c, &v->o, rec, err);
}

static int check_opts(struct vector *v, nm_err *err) {
  nm_vector_opts *o = &v->o;
  if (!o->site) o->site = "resid_post";
  if (!o->at) o->at = "last";
  if (!o->method) o->method = "mean";
  if (!o->repeats) o->repeats = 10;
  if (o->test_share == 0) o->test_share = 0.4;
  if (!nm__method_by_name(o->method, &v->method))
    return nm__fail(err, NM_EUSAGE, "method '%.40s' is not known (known: mean, pca, probe)",
                    o->method);
  if (o->repeats < 2 || o->repeats > REPEATS_MAX)
    return nm__fail(err, NM_EUSAGE, "repeats must lie between 2 and %d", REPEATS_MAX);
  if (!(o->test_share > 0 && o->test_share < 1))
    return nm__fail(err, NM_EUSAGE, "the test share must lie between 0 and 1");
  return NM_OK;
}

int nm_vector_make(nm_engine *e, const nm_contrast *c, const nm_vector_opts *o,
                   nm_vector_result *out, nm_err *err) {
  struct vector v = {.e = e, .m = nm__engine_model(e), .c = c, .o = *o, .r = out};
  struct nm__record rec = {0};
  nm_err own;
  if (!err) err = &own;
  *out = (nm_vector_result){0};
  int st = check_opts(&v, err);
  if (!st)
    st = nm__record_begin(&rec, "vector", o->out, "vector.json", v.m->path, o->command,
                         nm__engine_record(v.e), err);
  if (!st) st = (out->dir = nm__strdup(rec.dir)) ? NM_OK : nm__fail_memory(err, "a name", 0);
  if (!st) st = run_vector(&v, &rec, err);
  nm__record_end(&rec, st, out->summary, err);
  for (int i = 0; v.split && i < v.o.repeats; i++) nm__split_done(&v.split[i]);
  free(v.split);
  free(v.shuffled);
  free(v.job);
  free(v.x);
  free(v.count);
  nm_free(v.site);
  if (st) nm_vector_result_free(out);
  return st;
}

void nm_vector_result_free(nm_vector_result *r) {
  free(r->layer);
  free(r->v);
  free(r->dir);
  free(r->summary);
  *r = (nm_vector_result){0};
}
