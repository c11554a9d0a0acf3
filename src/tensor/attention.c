/* attention.c - attention of a ragged batch over the KV cache.
 *
 * One path for everything: the scores of a tile of queries lie in scratch, are soft-
 * maxed in two passes, and weigh the values. Each query sees exactly its own keys
 * first..pos (first is 0, or pos - window + 1 in a windowed block), or, with all_keys, to
 * the end of its span, which then holds a whole sequence; each score is one
 * f32-formula product, each output one chain of fused multiply-adds over ascending
 * absolute key positions. So nothing depends on chunking, batching, tiles or threads,
 * and a key after the query cannot even leak a NaN.
 *
 * Scores lie at their absolute key index, so the lane of a key in the sum of the softmax
 * is key mod 16 with a window too: the softmax starts at the last multiple of 16 before
 * `first`, where the few keys that are not seen are minus infinity and add zero. */
#include "tensor/ops_in.h"

#include <math.h>
#include <string.h>

enum { QUERIES = 16, HALF_ROWS = 64 };               /* rows of F16 that are floats at once */

static bool attention_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->x.rows;
  out[1] = (int64_t)a->n_head * a->head_dim;
  return a->kv && a->x.cols == out[1] && a->n_kv > 0 && a->n_head % a->n_kv == 0 &&
         a->kv->width == (int64_t)a->n_kv * a->head_dim;
}

struct job {
  struct nm__ops *o;
  const struct nm__op_args *a;
  struct nm__t *y;
  float *scratch;                  /* [threads]: scores [QUERIES][max_keys]; HALF_ROWS of floats */
  size_t scratch_n;
  int max_keys, tiles_per_head;
};

static int first_key(const struct nm__op_args *a, int pos) {
  return a->window && pos >= a->window ? pos - a->window + 1 : 0;
}

/* The keys that the query at pos sees end before this one. */
static int end_key(const struct nm__op_args *a, const struct nm__span *sp, int pos) {
  return a->all_keys ? sp->first + sp->n : pos + 1;
}

/* The keys (or values) first..n of one sequence and kv head are one or two runs of slots. */
struct runs { const float *p[2]; int n[2]; };

static struct runs runs_of(const struct nm__op_args *a, const struct nm__span *sp,
                           const float *base, int kv_head, int first, int n) {
  size_t width = (size_t)a->kv->width;
  const float *layer = base + (size_t)a->layer * (size_t)a->kv->n_slots * width +
                       (size_t)kv_head * (size_t)a->head_dim;
  int end = n < sp->n_prefix ? n : sp->n_prefix, shared = first < end ? end - first : 0;
  size_t own = (size_t)(sp->slot + first + shared - sp->n_prefix);
  if (first + shared < sp->n_prefix) own = (size_t)sp->slot;             /* an empty run */
  return (struct runs){{layer + (size_t)(sp->prefix_slot + first) * width, layer + own * width},
                       {shared, n - first - shared}};
}

/* out[i] += sum of p[i][key] v[key] over keys begin..end, for m queries that see them all. */
static void weigh_run(const struct nm__ops *o, const struct nm__op_args *a,
                      const struct nm__span *sp, const float *base, int kv_head, int begin, int end,
                      const float *p, size_t ld, int m, float *out) {
  if (begin >= end) return;
  struct runs v = runs_of(a, sp, base, kv_head, begin, end);
  for (int r = 0, key = begin; r < 2; key += v.n[r++])
    o->kern->chain(out, (size_t)a->x.cols, p + key, ld, 1, m, v.p[r], (size_t)a->kv->width,
                   a->head_dim, v.n[r], true);
}

/* out[i] += sum of p[i][key] v[key] over the keys each of nq queries sees, ascending: those that
 * only it sees before and behind those that all see. */
static void weigh(const struct nm__ops *o, const struct nm__op_args *a, const struct nm__span *sp,
                  const float *base, int kv_head, int pos, int nq, const float *p, size_t ld,
                  float *out) {
  int from = first_key(a, pos + nq - 1), to = end_key(a, sp, pos);
  if (from > to) from = to;
  for (int i = 0; i < nq; i++)
    weigh_run(o, a, sp, base, kv_head, first_key(a, pos + i), from, p + (size_t)i * ld, ld, 1,
              out + (int64_t)i * a->x.cols);
  weigh_run(o, a, sp, base, kv_head, from, to, p, ld, nq, out);
  for (int i = 0; i < nq; i++) {
    int first = first_key(a, pos + i);
    weigh_run(o, a, sp, base, kv_head, first > to ? first : to, end_key(a, sp, pos + i),
              p + (size_t)i * ld, ld, 1, out + (int64_t)i * a->x.cols);
  }
}

/* Keys (or values) i..i+n of a cache of F16 as floats [n, head_dim]; n <= HALF_ROWS. */
static const float *half_rows(struct job *j, const struct nm__span *sp, const uint16_t *base,
                              int kv_head, int i, int n, float *out) {
  const struct nm__op_args *a = j->a;
  for (int k = 0; k < n; k++) {
    int pos = i + k, own = sp->slot + pos - sp->n_prefix;
    size_t slot = (size_t)(pos < sp->n_prefix ? sp->prefix_slot + pos : own);
    slot += (size_t)a->layer * (size_t)a->kv->n_slots;
    j->o->kern->to_f32(out + k * a->head_dim,
                       base + slot * (size_t)a->kv->width + kv_head * a->head_dim, a->head_dim,
                       NM__F16);
  }
  return out;
}

/* s[i][key] = q[i] . k[key] for the keys first..end-1; rows: room for HALF_ROWS of floats. */
static void scores(struct job *j, const struct nm__span *sp, const float *q, int nq, int kv_head,
                   int first, int end, float *s, float *rows) {
  const struct nm__op_args *a = j->a;
  size_t ld = (size_t)j->max_keys, ldq = (size_t)a->x.cols, hd = (size_t)a->head_dim;
  if (a->kv->half_k) {
    for (int at = first, n; at < end; at += n) {
      n = end - at < HALF_ROWS ? end - at : HALF_ROWS;
      const float *k = half_rows(j, sp, a->kv->k16, kv_head, at, n, rows);
      j->o->kern->gemm(s + at, ld, q, ldq, nq, k, hd, n, a->head_dim);
    }
    return;
  }
  struct runs k = runs_of(a, sp, a->kv->k, kv_head, first, end);
  for (int r = 0, at = first; r < 2; at += k.n[r++])
    j->o->kern->gemm(s + at, ld, q, ldq, nq, k.p[r], (size_t)a->kv->width, k.n[r], a->head_dim);
}

/* y += sum of p[key] v[key] over the keys first..end-1 of a cache of F16, ascending. */
static void sum_half_values(struct job *j, const struct nm__span *sp, int kv_head, int first,
                            int end, const float *p, float *y, float *rows) {
  const struct nm__op_args *a = j->a;
  int hd = a->head_dim;
  for (int at = first, n; at < end; at += n) {
    n = end - at < HALF_ROWS ? end - at : HALF_ROWS;
    const float *v = half_rows(j, sp, a->kv->v16, kv_head, at, n, rows);
    j->o->kern->weighted_sum(y, p + at, v, (size_t)hd, n, hd);
  }
}

/* One query's scores in s become its probabilities. */
static void finish_query(struct job *j, const struct nm__span *sp, int row, int head, int pos,
                         float *s) {
  const struct nm__op_args *a = j->a;
  const struct nm__kern *k = j->o->kern;
  int n = end_key(a, sp, pos), first = first_key(a, pos), from = first & ~15;
  k->mul(s + first, a->scale, s + first, n - first);
  if (a->cap > 0) k->soft_cap(s + first, a->cap, s + first, n - first);
  if (a->hook) a->hook->fn(a->hook->arg, false, row, head, s, first, n);
  for (int j = from; j < first; j++) s[j] = -INFINITY;
  k->softmax(s + from, n - from);
  if (a->hook) a->hook->fn(a->hook->arg, true, row, head, s, first, n);
  memset(j->y->d + (int64_t)row * j->y->cols + (int64_t)head * a->head_dim, 0,
         sizeof(float) * (size_t)a->head_dim);
}

/* QUERIES consecutive positions of one span and one head. */
static void query_tile(struct job *j, const struct nm__span *sp, int q0, int head, int thread) {
  const struct nm__op_args *a = j->a;
  int nq = sp->n - q0 < QUERIES ? sp->n - q0 : QUERIES, hd = a->head_dim;
  int row = sp->row0 + q0, pos = sp->first + q0, kv_head = head / (a->n_head / a->n_kv);
  size_t ld = (size_t)j->max_keys;
  float *s = j->scratch + (size_t)thread * j->scratch_n, *rows = s + QUERIES * ld;
  int64_t at = (int64_t)row * a->x.cols + (int64_t)head * hd;
  scores(j, sp, a->x.d + at, nq, kv_head, first_key(a, pos), end_key(a, sp, pos + nq - 1), s, rows);
  for (int i = 0; i < nq; i++)
    finish_query(j, sp, row + i, head, pos + i, s + (size_t)i * ld);
  if (!a->kv->half_v) weigh(j->o, a, sp, a->kv->v, kv_head, pos, nq, s, ld, j->y->d + at);
  for (int i = 0; a->kv->half_v && i < nq; i++)
    sum_half_values(j, sp, kv_head, first_key(a, pos + i), end_key(a, sp, pos + i),
                    s + (size_t)i * ld, j->y->d + at + (int64_t)i * a->x.cols, rows);
}

static void tile(void *v, int t, int thread) {
  struct job *j = v;
  int head = t / j->tiles_per_head, left = t % j->tiles_per_head;
  for (int i = 0; i < j->a->n_spans; i++) {
    int n = (j->a->spans[i].n + QUERIES - 1) / QUERIES;
    if (left < n) {
      query_tile(j, &j->a->spans[i], left * QUERIES, head, thread);
      return;
    }
    left -= n;
  }
}

static void attention_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  size_t mark = o->arena.used;
  size_t n = QUERIES * (size_t)a->max_keys;
  if (a->kv->half_k || a->kv->half_v) n += HALF_ROWS * (size_t)a->head_dim;
  float *scratch = nm__scratch(o, (size_t)nm__pool_size(o->pool) * n, "attention scores");
  if (scratch && o->mode != NM__MEASURE) {
    struct job j = {o, a, y, scratch, n, a->max_keys, 0};
    for (int i = 0; i < a->n_spans; i++)
      j.tiles_per_head += (a->spans[i].n + QUERIES - 1) / QUERIES;
    nm__pool_run(o->pool, j.tiles_per_head * a->n_head, tile, &j);
  }
  o->arena.used = mark;
}

/* ---- the way back --------------------------------------------------------- */

/* One task is one kv head of one span: it alone touches that head's rows of dk and dv. Spans
 * that share keys take their turn in one task. Of a tile of queries the scores are computed
 * again; no matrix of all queries by all keys ever exists:
 *   dv[j] += p[i][j] dz[i]      dp[i][j] = dz[i] . v[j]     ds = p (dp - sum p dp)
 *   dq[i] += s ds[i][j] k[j]    dk[j] += s ds[i][j] q[i]    (through the soft cap if any)   */
struct back {
  struct nm__ops *o;
  const struct nm__op_args *a;
  const struct nm__back *b;
  float *scratch;                  /* three tiles a thread */
  bool shared;
};

/* rows[key] += sum over the tile's queries of w[i][key] v[i], for the keys of one or two runs. */
static void to_keys(const struct back *j, struct runs to, const float *w, size_t ld, int first,
                    const float *v, int nq) {
  for (int r = 0, key = first; r < 2; key += to.n[r++])
    j->o->kern->chain((float *)(uintptr_t)to.p[r], (size_t)j->a->kv->width, w + key, 1, ld,
                      to.n[r], v, (size_t)j->a->x.cols, j->a->head_dim, nq, true);
}

/* Scores and probabilities of a query as in the forward; then dp, in place, becomes ds. */
static void back_query(const struct back *j, int pos, int n, float *s, float *p, float *dp) {
  const struct nm__op_args *a = j->a;
  const struct nm__kern *k = j->o->kern;
  int first = first_key(a, pos), from = first & ~15, m = n - first;
  k->mul(s + first, a->scale, s + first, m);
  if (a->cap > 0) k->soft_cap(s + first, a->cap, s + first, m);
  for (int i = from; i < first; i++) s[i] = -INFINITY;
  memcpy(p + from, s + from, sizeof(float) * (size_t)(n - from));
  k->softmax(p + from, n - from);
  k->softmax_back(dp + first, p + first, m);
  if (a->cap > 0)
    for (int i = first; i < n; i++) {
      float t = s[i] / a->cap;
      dp[i] *= 1.0f - t * t;
    }
  k->mul(dp + first, a->scale, dp + first, m);
}

static void back_tile(const struct back *j, const struct nm__span *sp, int q0, int head,
                      float *scratch) {
  const struct nm__op_args *a = j->a;
  int nq = sp->n - q0 < QUERIES ? sp->n - q0 : QUERIES, hd = a->head_dim, pos = sp->first + q0;
  int kv_head = head / (a->n_head / a->n_kv), first = first_key(a, pos);
  int end = end_key(a, sp, pos + nq - 1);
  size_t ld = (size_t)a->max_keys, tile = QUERIES * ld, width = (size_t)a->kv->width;
  float *s = scratch, *p = s + tile, *dp = p + tile;
  int64_t at = (int64_t)(sp->row0 + q0) * a->x.cols + (int64_t)head * hd;
  const float *q = a->x.d + at, *dz = j->b->d_out + at;
  struct runs k = runs_of(a, sp, a->kv->k, kv_head, first, end);
  struct runs v = runs_of(a, sp, a->kv->v, kv_head, first, end);
  for (int r = 0, key = first; r < 2; key += k.n[r++]) {
    j->o->kern->gemm(s + key, ld, q, (size_t)a->x.cols, nq, k.p[r], width, k.n[r], hd);
    j->o->kern->gemm(dp + key, ld, dz, (size_t)a->x.cols, nq, v.p[r], width, v.n[r], hd);
  }
  for (int i = 0; i < nq; i++) {
    size_t row = (size_t)i * ld;
    int seen = first_key(a, pos + i), n = end_key(a, sp, pos + i);
    back_query(j, pos + i, n, s + row, p + row, dp + row);
    for (int key = first; key < end; key++)
      if (key < seen || key >= n) p[row + (size_t)key] = dp[row + (size_t)key] = 0;
  }
  if (j->b->dx) weigh(j->o, a, sp, a->kv->k, kv_head, pos, nq, dp, ld, j->b->dx + at);
  to_keys(j, runs_of(a, sp, a->kv->dv, kv_head, first, end), p, ld, first, dz, nq);
  to_keys(j, runs_of(a, sp, a->kv->dk, kv_head, first, end), dp, ld, first, q, nq);
}

static void back_span(const struct back *j, int s, int kv_head, float *scratch) {
  int group = j->a->n_head / j->a->n_kv;
  const struct nm__span *sp = &j->a->spans[s];
  for (int h = kv_head * group; h < (kv_head + 1) * group; h++)
    for (int q0 = 0; q0 < sp->n; q0 += QUERIES) back_tile(j, sp, q0, h, scratch);
}

static void back_task(void *v, int t, int thread) {
  const struct back *j = v;
  float *scratch = j->scratch + (size_t)thread * 3 * QUERIES * (size_t)j->a->max_keys;
  int n = j->a->n_spans;
  if (!j->shared) back_span(j, t % n, t / n, scratch);
  else for (int s = 0; s < n; s++) back_span(j, s, t, scratch);
}

static void attention_backward(struct nm__ops *o, const struct nm__op_args *a,
                               const struct nm__back *b) {
  size_t mark = o->arena.used;
  size_t n = (size_t)nm__pool_size(o->pool) * 3 * QUERIES * (size_t)a->max_keys;
  struct back j = {o, a, b, nm__scratch(o, n, "attention scores"), false};
  for (int i = 0; i < a->n_spans; i++) j.shared |= a->spans[i].n_prefix > 0;
  if (a->hook)
    nm__fail(&o->err, NM_EFAIL, "op attention: no gradient flows through scores that are edited");
  if (!o->err.status && o->mode != NM__MEASURE)
    nm__pool_run(o->pool, j.shared ? a->n_kv : a->n_kv * a->n_spans, back_task, &j);
  o->arena.used = mark;
}

const struct nm__op nm__op_attention = {
    .name = "attention", .formula = "y = softmax(cap(scale x k^T), causal, window) v",
    .shape = attention_shape, .forward = attention_forward, .backward = attention_backward,
    .scratch = true, .back_scratch = true};
