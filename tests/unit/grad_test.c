/* grad_test.c - gradients. Every row of the op table: the plain backward in double against
 * differences of the plain forward (1e-6), then the fast one against the plain one, the same
 * bits for every kernel set and number of threads; then the tape. */
#include "tensor/tape.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plain_ops.h"

/* ---- cases: one or more for every op ---------------------------------------- */

enum { X, Y, W, B, K, V, N_IN, MAX = 4096 };

struct gcase {
  const char *what;
  enum nm__op_id id;
  int rows, cols, out_cols;        /* out_cols 0: as x */
  int n_ids, n_w;                  /* ids; rows of w for embed */
  enum nm__act act;
  int n_head, n_kv, hd, pair, n_rot, window, first;
  double scale, cap, eps;          /* eps 0: 1e-5 */
  bool y, w, bias;                 /* which inputs there are besides x */
  bool vec, loss, weight;          /* y is one row; one number a row; of each row */
  bool norm;                       /* top_k: renormalise */
  bool one_a_row, gates, all_keys; /* y is a column; y is [positions, experts] */
  int out_rows, k, n_expert;
};

static const struct gcase cases[] = {
    {.what = "embed", .id = NM__OP_EMBED, .rows = 0, .cols = 13, .n_ids = 7, .n_w = 5, .w = true},
    {.what = "gather", .id = NM__OP_GATHER, .rows = 6, .cols = 17, .n_ids = 9},
    {.what = "matmul", .id = NM__OP_MATMUL, .rows = 7, .cols = 19, .out_cols = 37, .w = true,
     .bias = true},
    {.what = "matmul, one row", .id = NM__OP_MATMUL, .rows = 1, .cols = 5, .out_cols = 3, .w = true},
    {.what = "matmul, 300 outputs", .id = NM__OP_MATMUL, .rows = 3, .cols = 6, .out_cols = 300,
     .w = true},
    {.what = "add", .id = NM__OP_ADD, .rows = 5, .cols = 21, .y = true},
    {.what = "scale", .id = NM__OP_SCALE, .rows = 3, .cols = 18, .scale = -1.7},
    {.what = "soft_cap", .id = NM__OP_SOFT_CAP, .rows = 4, .cols = 23, .cap = 1.5},
    {.what = "rmsnorm", .id = NM__OP_RMSNORM, .rows = 6, .cols = 29, .w = true},
    {.what = "layernorm", .id = NM__OP_LAYERNORM, .rows = 6, .cols = 29, .w = true, .bias = true},
    {.what = "silu", .id = NM__OP_ACT, .rows = 3, .cols = 31, .act = NM__ACT_SILU},
    {.what = "gelu tanh", .id = NM__OP_ACT, .rows = 3, .cols = 31, .act = NM__ACT_GELU_TANH},
    {.what = "gelu erf", .id = NM__OP_ACT, .rows = 3, .cols = 31, .act = NM__ACT_GELU_ERF},
    {.what = "silu gate", .id = NM__OP_ACT_MUL, .rows = 3, .cols = 31, .y = true},
    {.what = "gelu tanh gate", .id = NM__OP_ACT_MUL, .rows = 3, .cols = 31, .y = true,
     .act = NM__ACT_GELU_TANH},
    {.what = "gelu erf gate", .id = NM__OP_ACT_MUL, .rows = 3, .cols = 31, .y = true,
     .act = NM__ACT_GELU_ERF},
    {.what = "unpermute", .id = NM__OP_UNPERMUTE, .rows = 3, .cols = 24, .hd = 8},
    {.what = "rope", .id = NM__OP_ROPE, .rows = 5, .cols = 24, .hd = 8, .pair = 4, .n_rot = 8},
    {.what = "rope of a part", .id = NM__OP_ROPE, .rows = 5, .cols = 24, .hd = 12, .pair = 2,
     .n_rot = 4},
    {.what = "rope of far pairs", .id = NM__OP_ROPE, .rows = 5, .cols = 24, .hd = 12, .pair = 6,
     .n_rot = 8},
    {.what = "kv_append", .id = NM__OP_KV_APPEND, .rows = 5, .cols = 12, .y = true, .hd = 6,
     .n_kv = 2, .n_head = 2, .first = 3},
    {.what = "attention", .id = NM__OP_ATTENTION, .rows = 19, .cols = 24, .hd = 6, .n_head = 4,
     .n_kv = 2, .scale = 0.4},
    {.what = "attention, later", .id = NM__OP_ATTENTION, .rows = 7, .cols = 15, .hd = 5,
     .n_head = 3, .n_kv = 1, .scale = 0.5, .first = 9},
    {.what = "attention, window", .id = NM__OP_ATTENTION, .rows = 21, .cols = 12, .hd = 6,
     .n_head = 2, .n_kv = 2, .scale = 0.4, .window = 4, .first = 2},
    {.what = "attention, capped", .id = NM__OP_ATTENTION, .rows = 18, .cols = 12, .hd = 6,
     .n_head = 2, .n_kv = 1, .scale = 0.9, .cap = 1.2},
    {.what = "mul", .id = NM__OP_MUL, .rows = 4, .cols = 21, .y = true},
    {.what = "scatter", .id = NM__OP_SCATTER, .rows = 7, .cols = 19, .n_ids = 7, .out_rows = 5},
    {.what = "add_vec", .id = NM__OP_ADD_VEC, .rows = 7, .cols = 19, .n_ids = 4, .scale = 0.7,
     .vec = true},
    {.what = "top_k", .id = NM__OP_TOP_K, .rows = 5, .cols = 9, .k = 3},
    {.what = "top_k to sum 1", .id = NM__OP_TOP_K, .rows = 7, .cols = 9, .k = 4, .norm = true},
    {.what = "top_k of a route", .id = NM__OP_TOP_K, .rows = 5, .cols = 6, .k = 2, .n_expert = 6},
    {.what = "softmax", .id = NM__OP_SOFTMAX, .rows = 5, .cols = 19},
    {.what = "sigmoid", .id = NM__OP_SIGMOID, .rows = 5, .cols = 19},
    {.what = "row_scale", .id = NM__OP_ROW_SCALE, .rows = 5, .cols = 19, .one_a_row = true},
    {.what = "experts", .id = NM__OP_EXPERTS, .rows = 12, .cols = 9, .out_cols = 7, .n_w = 5,
     .w = true, .n_expert = 5, .k = 2},
    {.what = "combine", .id = NM__OP_COMBINE, .rows = 12, .cols = 9, .out_rows = 6, .gates = true,
     .n_expert = 5, .k = 2},
    {.what = "attention, all keys", .id = NM__OP_ATTENTION, .rows = 19, .cols = 24, .hd = 6,
     .n_head = 4, .n_kv = 2, .scale = 0.4, .all_keys = true},
    {.what = "gumbel", .id = NM__OP_GUMBEL, .rows = 5, .cols = 9, .scale = 0.8},
    {.what = "cross_entropy", .id = NM__OP_CROSS_ENTROPY, .rows = 6, .cols = 37, .loss = true,
     .n_ids = 6},
    {.what = "smoothed cross_entropy", .id = NM__OP_CROSS_ENTROPY, .rows = 6, .cols = 37,
     .loss = true, .n_ids = 6, .eps = 0.1},
    {.what = "kl", .id = NM__OP_KL, .rows = 6, .cols = 37, .y = true, .loss = true},
    {.what = "bce", .id = NM__OP_BCE, .rows = 6, .cols = 11, .y = true, .loss = true},
    {.what = "mse", .id = NM__OP_MSE, .rows = 6, .cols = 11, .y = true, .loss = true},
    {.what = "huber", .id = NM__OP_HUBER, .rows = 6, .cols = 11, .y = true, .loss = true, .cap = 0.9},
    {.what = "cosine", .id = NM__OP_COSINE, .rows = 6, .cols = 23, .y = true, .loss = true},
    {.what = "info_nce", .id = NM__OP_INFO_NCE, .rows = 6, .cols = 23, .y = true, .loss = true,
     .scale = 0.6},
    {.what = "wsum", .id = NM__OP_WSUM, .rows = 9, .cols = 1, .out_rows = 1, .weight = true},
};
enum { N_CASES = sizeof cases / sizeof *cases };

struct made {
  struct plain a;
  double in[N_IN][MAX], grad[N_IN][MAX], rope[MAX], z[MAX], dz[MAX];
  int64_t n[N_IN], n_z;            /* n 0: this input does not exist */
  int32_t ids[64];
  struct nm__route route;
  int32_t pairs[3][64], firsts[16];
};

static double draw(uint64_t stream, int64_t i) {
  return (double)(nm__rand_at(17, stream, (uint64_t)i) >> 11) * 0x1p-52 - 1;
}

/* Position t goes through the experts t % E and (t + 2) % E, but none through expert 3. */
static void make_route(const struct gcase *c, struct made *m) {
  struct nm__route *r = &m->route;
  *r = (struct nm__route){.n_expert = c->n_expert, .k = c->k, .T = c->rows / c->k,
                          .expert = m->pairs[0], .slot = m->pairs[1], .pos = m->pairs[2],
                          .first = m->firsts};
  if (c->id == NM__OP_TOP_K) r->T = c->rows;
  int at = 0;
  for (int t = 0; t < r->T; t++) {
    int a = t % 3, b = (t % 2) * 2 + 2;                /* below 3, and 2 or 4 */
    r->expert[2 * t] = a < b ? a : 0;
    r->expert[2 * t + 1] = b;
  }
  for (int e = 0; e < c->n_expert; e++) {
    r->first[e] = at;
    for (int p = 0; p < 2 * r->T; p++)
      if (r->expert[p] == e) r->slot[p] = at, r->pos[at++] = p / 2;
  }
  r->first[c->n_expert] = at;
}

static void make_case(const struct gcase *c, struct made *m) {
  memset(m, 0, sizeof *m);
  int keys = c->first + c->rows;
  m->n[X] = (int64_t)c->rows * c->cols;
  m->n[Y] = c->y ? m->n[X] : c->vec ? c->cols : c->one_a_row ? c->rows : 0;
  if (c->gates) m->n[Y] = (int64_t)c->out_rows * c->n_expert;
  int n_w = c->n_w * (c->n_expert ? c->out_cols : 1);
  m->n[W] = !c->w ? 0 : n_w ? n_w * c->cols : c->out_cols ? c->out_cols * c->cols : c->cols;
  m->n[B] = !c->bias ? 0 : c->out_cols ? c->out_cols : c->cols;
  if (c->id == NM__OP_ATTENTION) m->n[K] = m->n[V] = (int64_t)keys * c->n_kv * c->hd;
  for (int k = 0; k < N_IN; k++) {
    assert_true(m->n[k] <= MAX);
    /* Floats: what both compute with is the same number. */
    for (int64_t i = 0; i < m->n[k]; i++) m->in[k][i] = (double)(float)(1.5 * draw((uint64_t)k, i));
  }
  for (int i = 0; i < c->n_ids; i++) m->ids[i] = (i * 7 + 2) % (c->n_w ? c->n_w : c->out_rows ? c->out_rows : c->rows);
  for (int i = 0; i < c->rows * c->n_rot; i++)
    m->rope[i] = (double)(float)(i % 2 ? sin(0.3 * (i / 2)) : cos(0.3 * (i / 2)));
  if (c->id == NM__OP_CROSS_ENTROPY) m->ids[2] = -1;
  if (c->n_expert) make_route(c, m);
  int64_t out_rows = c->out_rows ? c->out_rows : c->n_ids && !c->vec ? c->n_ids : c->rows;
  int64_t out_cols = c->loss ? 1 : c->out_cols ? c->out_cols : c->cols;
  m->n_z = c->id == NM__OP_KV_APPEND ? 0 : out_rows * out_cols;
  for (int64_t i = 0; i < MAX; i++) m->dz[i] = (double)(float)draw(99, i);
  m->a = (struct plain){
      .rows = c->rows, .cols = c->cols, .out_rows = out_rows, .out_cols = out_cols,
      .x = m->in[X], .y = m->n[Y] ? m->in[Y] : NULL, .w = m->in[W], .bias = c->bias ? m->in[B] : NULL,
      .ids = m->ids, .n_ids = c->n_ids, .weight = m->dz + 40, .seed = 5, .eps = c->eps > 0 ? c->eps : 1e-5,
      .route = c->n_expert ? &m->route : NULL, .all_keys = c->all_keys, .k_kept = c->k, .renormalise = c->norm, .scale = c->scale, .cap = c->cap, .act = c->act,
      .n_head = c->n_head, .n_kv = c->n_kv, .head_dim = c->hd, .rope_pair = c->pair,
      .rope_n = c->n_rot, .window = c->window, .rope = m->rope, .k = m->in[K], .v = m->in[V],
      .first = c->first, .dx = m->n[X] ? m->grad[X] : NULL, .dy = m->n[Y] ? m->grad[Y] : NULL,
      .dw = c->w ? m->grad[W] : NULL, .dbias = c->bias ? m->grad[B] : NULL, .dk = m->grad[K],
      .dv = m->grad[V]};
}

static double loss_of(const struct gcase *c, struct made *m) {
  double s = 0;
  assert_true(plain_forward(c->id, &m->a, m->z));
  for (int64_t i = 0; i < m->n_z; i++) s += m->z[i] * m->dz[i];
  return s;
}

/* ---- in double against differences -------------------------------------------- */

static void differences(void **state) {
  (void)state;
  static struct made m;
  bool seen[NM__N_OPS] = {false};
  for (int k = 0; k < N_CASES; k++) {
    const struct gcase *c = &cases[k];
    seen[c->id] = true;
    if (c->id == NM__OP_KV_APPEND || c->id == NM__OP_GUMBEL)
      continue;                                        /* not smooth, or no result: see below */
    make_case(c, &m);
    plain_backward(c->id, &m.a, m.dz);
    double worst = 0;
    for (int in = 0; in < N_IN; in++)
      for (int64_t i = 0; i < m.n[in]; i++) {
        double h = 1e-5, was = m.in[in][i];
        m.in[in][i] = was + h;
        double up = loss_of(c, &m);
        m.in[in][i] = was - h;
        double e = fabs((up - loss_of(c, &m)) / (2 * h) - m.grad[in][i]);
        m.in[in][i] = was;
        e /= 1 + fabs(m.grad[in][i]);
        if (!(e <= worst)) worst = e;
      }
    print_message("%-22s differences %.1e\n", c->what, worst);
    assert_true(worst < 1e-6);
  }
  for (int i = 0; i < NM__N_OPS; i++)
    if (!seen[i]) fail_msg("op %s has no case here", nm__op_table[i]->name);
}

/* ---- the fast ones against the plain ones ------------------------------------------ */

struct fast {
  float in[N_IN][MAX], grad[N_IN][MAX], rope[MAX], z[MAX], dz[MAX];
  struct nm__kv kv;
  struct nm__span span;
  struct nm__w experts[8];
};

static void to_float(float *out, const double *in, int64_t n) {
  for (int64_t i = 0; i < n; i++) out[i] = (float)in[i];
}

static struct nm__op_args fast_args(const struct gcase *c, struct made *m, struct fast *f) {
  memset(f, 0, sizeof *f);
  for (int k = 0; k < N_IN; k++) to_float(f->in[k], m->in[k], m->n[k]);
  to_float(f->rope, m->rope, MAX);
  to_float(f->dz, m->dz, MAX);
  int keys = c->first + c->rows;
  f->kv = (struct nm__kv){.n_layer = 1, .n_slots = keys, .width = (int64_t)c->n_kv * c->hd,
                          .k = f->in[K], .v = f->in[V], .dk = f->grad[K], .dv = f->grad[V]};
  f->span = (struct nm__span){.first = c->first, .n = c->rows};
  int64_t w_rows = c->n_w ? c->n_w : c->out_cols ? c->out_cols : 1;
  struct nm__op_args a = {
      .x = {.d = f->in[X], .rows = c->rows, .cols = c->cols}, .ids = m->ids, .n_ids = c->n_ids,
      .eps = c->eps > 0 ? (float)c->eps : 1e-5f, .act = c->act, .n_head = c->n_head, .n_kv = c->n_kv, .head_dim = c->hd,
      .rope_pair = c->pair, .rope_n = c->n_rot, .rope = f->rope, .scale = (float)c->scale,
      .cap = (float)c->cap, .window = c->window, .spans = &f->span, .n_spans = 1,
      .max_keys = keys, .kv = c->n_kv ? &f->kv : NULL,
      .rows = c->k ? c->k : c->out_rows, .weight = f->dz + 40, .seed = 5};
  int64_t y_rows = c->vec ? 1 : c->gates ? c->out_rows : c->rows;
  if (m->n[Y]) a.y = (struct nm__t){.d = f->in[Y], .rows = y_rows, .cols = m->n[Y] / y_rows};
  if (c->w)
    a.w = (struct nm__w){(const uint8_t *)f->in[W], NM__F32, w_rows, c->cols,
                         sizeof(float) * (size_t)c->cols};
  a.all_keys = c->all_keys;
  a.renormalise = c->norm;
  a.route = c->n_expert ? &m->route : NULL;
  for (int e = 0; c->id == NM__OP_EXPERTS && e < c->n_expert; e++) {
    f->experts[e] = a.w;
    f->experts[e].data += sizeof(float) * (size_t)(e * c->out_cols * c->cols);
    f->experts[e].rows = c->out_cols;
    a.experts = f->experts;
  }
  if (a.experts) a.w = (struct nm__w){0};
  if (c->bias)
    a.bias = (struct nm__w){(const uint8_t *)f->in[B], NM__F32, 1, m->n[B],
                            sizeof(float) * (size_t)m->n[B]};
  return a;
}

static void run_fast(const struct gcase *c, struct made *m, struct fast *f, const char *kernels,
                     int threads) {
  struct nm__op_args a = fast_args(c, m, f);
  struct nm__tape tape = {0};
  struct nm__ops o = {.mode = NM__RUN, .kern = nm__kern_find(kernels), .tape = &tape};
  assert_int_equal(nm__pool_new(threads, &o.pool, NULL), 0);
  assert_int_equal(nm__arena_init(&o.arena, 1 << 22, NULL), 0);
  if (a.experts)                                       /* it looks for their gradients itself */
    nm__tape_param(&tape, f->in[W], sizeof(float) * (size_t)m->n[W], f->grad[W], NULL);
  struct nm__t y = nm__op(&o, c->id, &a);
  struct nm__back b = {.out = y, .d_out = f->dz, .dx = c->rows ? f->grad[X] : NULL,
                       .dy = m->n[Y] ? f->grad[Y] : NULL, .dw = c->w ? f->grad[W] : NULL,
                       .dbias = c->bias ? f->grad[B] : NULL};
  if (c->id == NM__OP_KV_APPEND) {                     /* what attention would have left */
    to_float(f->grad[K], m->dz, f->kv.n_slots * f->kv.width);
    to_float(f->grad[V], m->dz + 5, f->kv.n_slots * f->kv.width);
  }
  nm__op_table[c->id]->backward(&o, &a, &b);
  if (o.err.status) fail_msg("%s: %s", c->what, o.err.text);
  for (int64_t i = 0; i < m->n_z; i++) f->z[i] = y.d[i];
  nm__tape_done(&tape);
  nm__arena_done(&o.arena);
  nm__pool_free(o.pool);
}

static void compare(const struct gcase *c, const struct made *m, const struct fast *f) {
  static const char *const names[] = {"x", "y", "w", "bias", "k", "v"};
  double worst = 0;
  for (int64_t i = 0; i < m->n_z; i++) worst = fmax(worst, fabs((double)f->z[i] - m->z[i]));
  print_message("%-22s forward %.1e", c->what, worst);
  assert_true(worst < 3e-6 * 10);
  for (int in = 0; in < N_IN; in++) {
    double off = 0, size = 0;
    for (int64_t i = 0; i < m->n[in]; i++) {
      off += pow((double)f->grad[in][i] - m->grad[in][i], 2);
      size += m->grad[in][i] * m->grad[in][i];
    }
    if (!m->n[in]) continue;
    print_message("  d%s %.1e", names[in], sqrt(off / size));
    assert_true(sqrt(off / size) < 2e-6);
  }
  print_message("\n");
}

/* One-hot rows; the gradient is that of a softmax: it sums to zero over a row, and among many
 * draws of equal logits every column comes up. */
static void gumbel_by_hand(const struct gcase *c, const struct made *m, const struct fast *f) {
  for (int i = 0; i < c->rows; i++) {
    double ones = 0, sum = 0, size = 0;
    for (int j = 0; j < c->cols; j++) {
      int64_t at = i * c->cols + j;
      assert_true(f->z[at] == 0 || f->z[at] == 1);
      ones += (double)f->z[at];
      sum += (double)f->grad[X][at];
      size += fabs((double)f->grad[X][at]);
    }
    assert_true(ones == 1 && fabs(sum) < 1e-6 && size > 1e-3);
  }
  struct nm__ops o = {.mode = NM__RUN, .kern = nm__kern_find(NULL)};
  static float x[900 * 9];
  int n[9] = {0};
  assert_int_equal(nm__arena_init(&o.arena, 1 << 20, NULL), 0);
  for (uint64_t s = 0; s < 2; s++) {
    struct nm__op_args a = {.x = {.d = x, .rows = 900, .cols = 9}, .scale = 1, .seed = s};
    struct nm__t y = nm__op(&o, NM__OP_GUMBEL, &a);
    for (int k = 0; k < 900 * 9; k++) n[k % 9] += y.d[k] > 0;
  }
  for (int j = 0; j < 9; j++) assert_true(n[j] > 140 && n[j] < 260);       /* 200 expected */
  nm__arena_done(&o.arena);
  (void)m;
}

static void fast_is_plain(void **state) {
  (void)state;
  static struct made m;
  static struct fast f, other;
  for (int k = 0; k < N_CASES; k++) {
    const struct gcase *c = &cases[k];
    make_case(c, &m);
    run_fast(c, &m, &f, NULL, 1);
    if (c->id == NM__OP_KV_APPEND) {
      int64_t at = (int64_t)c->first * c->cols;
      for (int64_t i = 0; i < m.n[X]; i++) {
        assert_true(f.grad[X][i] == (float)m.dz[at + i] && f.grad[Y][i] == (float)m.dz[at + 5 + i]);
        assert_true(f.grad[K][at + i] == 0 && f.grad[V][at + i] == 0);
      }
      for (int64_t i = 0; i < at; i++) assert_true(f.grad[K][i] == (float)m.dz[i]);
    } else if (c->id == NM__OP_GUMBEL) {
      gumbel_by_hand(c, &m, &f);
    } else {
      loss_of(c, &m);
      plain_backward(c->id, &m.a, m.dz);
      compare(c, &m, &f);
    }
    for (int i = 0; nm__kern_at(i); i++)
      for (int threads = 1; threads <= 3; threads++) {
        run_fast(c, &m, &other, nm__kern_at(i)->name, threads);
        assert_memory_equal(f.grad, other.grad, sizeof f.grad);
      }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(differences),
      cmocka_unit_test(fast_is_plain),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
