/* mini.c - a small decoder of the qwen2 family: its first values, its training run, its answers. */
#include "study/mini.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/shape.h"
#include "tensor/math.h"

enum { CONTEXT = NM__MINI_LONGEST, LOOK_EVERY = 50, LOOK_ITEMS = 256 };

/* ---- first values ------------------------------------------------------------- */

/* Rotation turns pair i of a query at p and of a key at j by p t_i and j t_i. With q =
 * a (cos b t_i, -sin b t_i) and k = (a, 0) in every pair, their product is the sum over
 * a^2 cos((p - j - b) t_i): most at the token b before. `nats` is how far its score lies
 * above those next to it. */
static void token_before(const struct nm__mini_shape *s, int b, float *q, float *k) {
  int hd = s->D / s->H, half = hd / 2;
  double drop = 0;
  for (int i = 0; i < half; i++)
    drop += 1 - nm__cos(nm__pow(s->rope_base, -2.0 * i / hd));
  double a = nm__sqrt(s->nats * nm__sqrt((double)hd) / drop);
  for (int i = 0; i < half; i++) {
    double t = nm__pow(s->rope_base, -2.0 * i / hd);
    q[i] = (float)(a * nm__cos(b * t));
    q[i + half] = (float)(-a * nm__sin(b * t));
    k[i] = (float)a;
    k[i + half] = 0;
  }
}

static float *values(const struct nm__params *p, const char *name, size_t *n) {
  for (int i = 0; i < p->n; i++) {
    if (strcmp(p->v[i].name, name)) continue;
    *n = (size_t)(p->v[i].rows * p->v[i].cols);
    return p->values + p->v[i].at;
  }
  *n = 0;
  return NULL;
}

static float *of_block(const struct nm__params *p, int block, const char *name, size_t *n) {
  char full[64];
  snprintf(full, sizeof full, "blk.%d.%s", block, name);
  return values(p, full, n);
}

static void scale(float *v, size_t n, double by) {
  for (size_t i = 0; i < n; i++) v[i] = (float)((double)v[i] * by);
}

/* The preset heads write the tokens they look at in one way, and all other heads have keys that are
 * their queries (Trockman and Kolter, Mimetic Initialization, arXiv 2305.09828): so what was
 * written as "the token before" here is like what was written as "two before" there, and the
 * search for what is alike need not be found first. They write what they read (the transpose of how
 * they read it): all begin as faint copiers. Rows of matrices are outputs. */
static void alike(const struct nm__mini *t, int block, const float *q, float *k) {
  const struct nm__mini_shape *s = &t->r.shape;
  size_t n, D = (size_t)s->D, hd = D / (size_t)s->H, from = (size_t)s->back * hd;
  float *v = of_block(&t->p, block, "attn_v.weight", &n),
        *o = of_block(&t->p, block, "attn_output.weight", &n);
  memcpy(k + from * D, q + from * D, (D - from) * D * sizeof *k);
  for (size_t h = 1; h < (size_t)s->back; h++) memcpy(v + h * hd * D, v, hd * D * sizeof *v);
  for (size_t r = 0; r < D; r++)
    for (size_t c = 0; c < D; c++)
      o[r * D + c] = c >= from ? v[c * D + r] : c >= hd ? o[r * D + c % hd] : 3 * o[r * D + c];
}

/* Matrices have a standard deviation of 1 / sqrt(D). Embeddings are as large as the norms make
 * them, queries and keys small, so that the biases of the first heads decide what they look at. */
static void first_values(struct nm__mini *t) {
  const struct nm__mini_shape *s = &t->r.shape;
  size_t n, m;
  float *v = values(&t->p, "token_embd.weight", &n), *k;
  scale(v, n, nm__sqrt((double)s->D));
  v = values(&t->p, "output_norm.weight", &n);
  scale(v, n, s->final_gain);
  for (int i = 0; i < s->L; i++) {
    v = of_block(&t->p, i, "attn_q.weight", &n);
    k = of_block(&t->p, i, "attn_k.weight", &m);
    if (s->alike) alike(t, i, v, k);
    scale(v, n, s->alike ? 1 : 0.5);
    scale(k, m, s->alike ? 1 : 0.5);
    v = of_block(&t->p, i, "attn_q.bias", &n);
    k = of_block(&t->p, i, "attn_k.bias", &m);
    for (int h = 0; n && m && h < (s->back ? s->back : 1); h++)
      token_before(s, h + 1, v + h * (s->D / s->H), k + h * (s->D / s->H));
  }
}

static int make_model(struct nm__mini *t, int V, uint64_t seed, nm_err *err) {
  static const char *const all[] = {"*"};
  struct nm__gguf *g = NULL;
  const struct nm__mini_shape *h = &t->r.shape;
  struct nm__shape s = {.arch = "qwen2", .name = "miniature", .L = h->L, .D = h->D, .H = h->H,
                        .F = h->F, .V = V, .ctx = CONTEXT,
                        .rope_base = (float)h->rope_base, .eps = 1e-6f,
                        .std = (float)(1 / nm__sqrt((double)h->D))};
  int st = nm__fresh(&s, NULL, seed, &t->start, err);
  if (!st) st = nm__params_make(t->start, all, 1, &g, &t->p, err);
  if (!st) first_values(t);
  if (!st) st = nm__model_from(g, &t->m, err);
  if (st) nm__mini_done(t);
  return st;
}

int nm__mini_blank(const struct nm__mini_recipe *r, int V, uint64_t seed, struct nm__mini *t,
                   nm_err *err) {
  *t = (struct nm__mini){.r = *r, .late_from = -1};
  return make_model(t, V, seed, err);
}

int nm__mini_new(const struct nm__mini_recipe *r, const struct nm__mini_level *l, int n_levels,
                 uint64_t W, uint64_t seed, struct nm__mini *t, nm_err *err) {
  *t = (struct nm__mini){.r = *r, .late_from = -1};
  int st = nm__mini_words_make(l, n_levels, W, &t->words, err);
  if (!st) return make_model(t, t->words.n, seed, err);
  nm__mini_done(t);
  return st;
}

void nm__mini_done(struct nm__mini *t) {
  nm_model_close(t->m);
  nm__params_done(&t->p);
  nm__gguf_close(t->start);
  nm__mini_words_done(&t->words);
  *t = (struct nm__mini){0};
}

/* ---- batches --------------------------------------------------------------------- */

enum { MAX_SAMPLES = 1024 };

struct corpus {
  struct nm__mini *t;
  const struct nm__mini_level *l;
  int n_levels;
  nm_world *world[NM__MINI_LEVELS];
  uint64_t next[NM__MINI_LEVELS];
  double share[NM__MINI_LEVELS];
  struct nm__rng rng;
  nm_world_item item;
  int32_t *ids;                    /* of all samples of a batch */
  float *weight;
  int room;
  struct nm__sample sample[MAX_SAMPLES];
  const struct nm__sample *batch[MAX_SAMPLES];
  int n, n_tokens, threads;
  uint64_t W, seed;
};

static void set_shares(struct corpus *c, bool joined) {
  const struct nm__mini_recipe *r = &c->t->r;
  for (int i = 0; i < c->n_levels; i++) c->share[i] = c->l[i].share;
  if (r->late < 0) return;
  double both = c->l[r->late].share + c->l[r->before].share;
  c->share[r->late] = joined ? both * r->late_share : 0;
  c->share[r->before] = joined ? both * (1 - r->late_share) : both;
}

static int corpus_open(struct corpus *c, nm_err *err) {
  c->rng = (struct nm__rng){c->seed, 77, 0};
  c->room = c->t->r.tokens + NM__MINI_LONGEST;
  c->ids = nm__alloc((size_t)c->room, sizeof *c->ids);
  c->weight = nm__alloc((size_t)c->room, sizeof *c->weight);
  int st = c->ids && c->weight ? NM_OK : nm__fail_memory(err, "a batch", (size_t)c->room * 8);
  for (int i = 0; i < c->n_levels && !st; i++)
    if (c->l[i].share > 0) st = nm__mini_world(&c->l[i], false, c->W, c->seed, &c->world[i], err);
  set_shares(c, false);
  return st;
}

static void corpus_done(struct corpus *c) {
  for (int i = 0; i < c->n_levels; i++) nm_world_close(c->world[i]);
  nm_world_item_done(&c->item);
  free(c->ids);
  free(c->weight);
}

static int draw_level(struct corpus *c) {
  double sum = 0, at;
  for (int i = 0; i < c->n_levels; i++) sum += c->share[i];
  at = nm__rng_unit(&c->rng) * sum;
  int last = 0;
  for (int i = 0; i < c->n_levels; i++) {
    if (c->share[i] <= 0) continue;
    last = i;
    if ((at -= c->share[i]) < 0) break;
  }
  return last;
}

static int put_item(struct corpus *c, int level, nm_err *err) {
  struct nm__sample *s = &c->sample[c->n];
  *s = (struct nm__sample){.ids = c->ids + c->n_tokens, .weight = c->weight + c->n_tokens};
  int st = nm_world_make(c->world[level], c->next[level]++, &c->item, err);
  if (!st)
    st = nm__mini_sample(&c->t->words, &c->l[level], &c->item, s, NM__MINI_LONGEST, err);
  c->batch[c->n++] = s;
  c->n_tokens += s->n;
  return st;
}

/* A level is drawn for every 48 tokens: short items come several at a time, so that the shares are
 * shares of tokens. */
static int next_batch(struct corpus *c, nm_err *err) {
  int st = NM_OK;
  c->n = c->n_tokens = 0;
  while (!st && c->n_tokens < c->t->r.tokens && c->n < MAX_SAMPLES) {
    int level = draw_level(c), from = c->n_tokens;
    while (!st && c->n_tokens - from < 40 && c->n_tokens < c->t->r.tokens && c->n < MAX_SAMPLES)
      st = put_item(c, level, err);
  }
  return st;
}

/* ---- training ---------------------------------------------------------------------- */

static int update(struct nm__mini *t, struct nm__stepper *s, float *state, int64_t step) {
  const struct nm__mini_recipe *r = &t->r;
  const struct nm__optim adamw = {NM__ADAMW, 0.9f, 0.95f, 1e-8f};
  const struct nm__schedule sched = {.kind = NM__WSD, .lr = r->lr, .tail = r->tail,
                                     .warmup = (int64_t)r->warmup, .steps = r->steps};
  float lr = (float)nm__schedule_at(&sched, step);
  nm__step_clip(s, r->clip);
  nm__tape_reset(&s->ops);
  for (int i = 0; i < t->p.n; i++) {
    struct nm__learned *v = &t->p.v[i];
    nm__params_step(&s->ops, &adamw, &t->p, i, s->grad, state + 2 * v->at, lr,
                    nm__params_decays(v) ? (float)r->decay : 0, step + 1);
  }
  return s->ops.err.status;
}

/* Whether the late level may join: the one before it is examined on items of another seed. */
static int look(struct corpus *c, int64_t step, nm_err *err) {
  struct nm__mini *t = c->t;
  struct nm__mini_items items;
  double share;
  if (t->r.late < 0 || t->late_from >= 0) return NM_OK;
  int st = nm__mini_items_make(&c->l[t->r.before], c->W, c->seed ^ 0x100000u, LOOK_ITEMS, false,
                               &t->words, &items, err);
  if (st) return st;
  st = nm__mini_exact(t->m, &items, c->threads, &share, err);
  nm__mini_items_done(&items);
  if (st || share < t->r.pass) return st;
  t->late_from = (int)step;
  set_shares(c, true);
  return NM_OK;
}

static int say(struct nm__mini *t, int64_t step, double loss, double start, const char *label,
               const nm_progress *p, nm_err *err) {
  char what[96];
  t->loss = step ? 0.95 * t->loss + 0.05 * loss : loss;
  t->seconds = nm__now() - start;
  snprintf(what, sizeof what, "%.40s, loss %.3f, %.1f k tokens/s, step", label, t->loss,
           t->tokens / t->seconds / 1e3);
  return nm__progress(p, what, (double)step + 1, t->r.steps, err);
}

int nm__mini_learn(struct nm__mini *t, const struct nm__mini_source *from, int threads,
                   const char *label, const nm_progress *p, nm_err *err) {
  struct nm__stepper s = {0};
  float *state = nm__alloc(2 * t->p.n_floats + 1, sizeof *state);
  double loss = 0, weight, start = nm__now();
  int st = state ? NM_OK : nm__fail_memory(err, "training", t->p.n_floats * 8);
  if (!st) st = nm__stepper_init(&s, t->m, &t->p, threads, NULL, err);
  for (int64_t step = 0; step < t->r.steps && !st; step++) {
    struct nm__mini_batch b = {0};
    st = from->next(from->arg, step, &b, err);
    if (!st) st = nm__step_batch(&s, b.v, b.n, 1, NULL, 0, true, &loss, &weight, err);
    if (!st && (st = update(t, &s, state, step)) && err) *err = s.ops.err;
    t->tokens += b.n_tokens;
    if (!st) st = say(t, step, loss, start, label, p, err);
    if (!st && from->after) st = from->after(from->arg, step, err);
  }
  nm__stepper_done(&s);
  free(state);
  return st;
}

int nm__mini_get(struct nm__mini *t, const char *dir, const char *file, const char *recipe,
                 const struct nm__mini_source *from, int threads, const nm_progress *p,
                 nm_err *err) {
  char label[64];
  char *path = nm__path_join(dir, file);
  snprintf(label, sizeof label, "training %.40s", file);
  int st = path ? NM_OK : nm__fail_memory(err, "a file name", 0);
  if (!st && !nm__mini_load(t, path, recipe)) {
    st = nm__mini_learn(t, from, threads, label, p, err);
    if (!st) st = nm__mini_save(t, path, recipe, err);
  }
  if (st) nm__mini_done(t);
  free(path);
  return st;
}

static int corpus_next(void *arg, int64_t step, struct nm__mini_batch *b, nm_err *err) {
  struct corpus *c = arg;
  (void)step;
  int st = next_batch(c, err);
  *b = (struct nm__mini_batch){c->batch, c->n, c->n_tokens};
  return st;
}

static int corpus_after(void *arg, int64_t step, nm_err *err) {
  return step % LOOK_EVERY == LOOK_EVERY - 1 ? look(arg, step, err) : NM_OK;
}

int nm__mini_train(struct nm__mini *t, const struct nm__mini_level *l, int n_levels, uint64_t W,
                   uint64_t seed, int threads, const char *label, const nm_progress *p,
                   nm_err *err) {
  struct corpus *c = nm__alloc(1, sizeof *c);
  if (!c) return nm__fail_memory(err, "training", sizeof *c);
  c->t = t, c->l = l, c->n_levels = n_levels;
  c->W = W, c->seed = seed, c->threads = threads;
  int st = corpus_open(c, err);
  if (!st)
    st = nm__mini_learn(t, &(struct nm__mini_source){corpus_next, corpus_after, c}, threads, label,
                        p, err);
  corpus_done(c);
  free(c);
  return st;
}

/* ---- examining --------------------------------------------------------------------- */

struct exam { const struct nm__mini_items *t; size_t right; };

static int exam_row(void *arg, const nm_row *r, nm_err *err) {
  struct exam *x = arg;
  int64_t best = 0;
  (void)err;
  for (int64_t i = 1; i < r->n; i++)
    if (r->data[i] > r->data[best]) best = i;
  x->right += best == x->t->answer[r->seq];
  return NM_OK;
}

int nm__mini_exact(const nm_model *m, const struct nm__mini_items *t, int threads, double *share,
                   nm_err *err) {
  nm_engine *e;
  struct exam x = {t, 0};
  nm_tap tap = {"logits", "last"};
  nm_request r = {.seqs = t->seq, .n_seqs = t->n, .taps = &tap, .n_taps = 1, .row = exam_row,
                  .arg = &x};
  int st = nm_engine_new(m, &(nm_engine_opts){.threads = threads}, &e, err);
  if (!st) st = nm_run(e, &r, err);
  nm_engine_free(e);
  *share = st ? 0 : (double)x.right / (double)t->n;
  return st;
}
