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
#include "tensor/ops.h"

#include <math.h>
#include <string.h>

enum { QUERIES = 16 };

bool nm__attention_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->x.rows;
  out[1] = (int64_t)a->n_head * a->head_dim;
  return a->kv && a->x.cols == out[1] && a->n_kv > 0 && a->n_head % a->n_kv == 0 &&
         a->kv->width == (int64_t)a->n_kv * a->head_dim;
}

struct job {
  struct nm__ops *o;
  const struct nm__op_args *a;
  struct nm__t *y;
  float *scratch;                  /* [threads][QUERIES][max_keys] */
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

/* One query: scores are in s; leaves the head's output in y. */
static void finish_query(struct job *j, const struct nm__span *sp, int row, int head, int pos,
                         float *s) {
  const struct nm__op_args *a = j->a;
  const struct nm__kern *k = j->o->kern;
  int n = end_key(a, sp, pos), hd = a->head_dim, first = first_key(a, pos), from = first & ~15;
  k->mul(s + first, a->scale, s + first, n - first);
  if (a->cap > 0) k->soft_cap(s + first, a->cap, s + first, n - first);
  if (a->hook) a->hook->fn(a->hook->arg, false, row, head, s, first, n);
  for (int j = from; j < first; j++) s[j] = -INFINITY;
  k->softmax(s + from, n - from);
  if (a->hook) a->hook->fn(a->hook->arg, true, row, head, s, first, n);
  float *y = j->y->d + (int64_t)row * j->y->cols + (int64_t)head * hd;
  memset(y, 0, sizeof(float) * (size_t)hd);
  struct runs v = runs_of(a, sp, a->kv->v, head / (a->n_head / a->n_kv), first, n);
  k->weighted_sum(y, s + first, v.p[0], (size_t)a->kv->width, v.n[0], hd);
  k->weighted_sum(y, s + first + v.n[0], v.p[1], (size_t)a->kv->width, v.n[1], hd);
}

/* QUERIES consecutive positions of one span and one head. */
static void query_tile(struct job *j, const struct nm__span *sp, int q0, int head, int thread) {
  const struct nm__op_args *a = j->a;
  int nq = sp->n - q0 < QUERIES ? sp->n - q0 : QUERIES, hd = a->head_dim;
  int row = sp->row0 + q0, pos = sp->first + q0;
  float *s = j->scratch + (size_t)thread * QUERIES * (size_t)j->max_keys;
  const float *q = a->x.d + (int64_t)row * a->x.cols + (int64_t)head * hd;
  int first = first_key(a, pos);
  int end = end_key(a, sp, pos + nq - 1);
  struct runs k = runs_of(a, sp, a->kv->k, head / (a->n_head / a->n_kv), first, end);
  for (int r = 0, at = first; r < 2; at += k.n[r++])
    j->o->kern->gemm(s + at, (size_t)j->max_keys, q, (size_t)a->x.cols, nq, k.p[r],
                     (size_t)a->kv->width, k.n[r], hd);
  for (int i = 0; i < nq; i++)
    finish_query(j, sp, row + i, head, pos + i, s + (size_t)i * (size_t)j->max_keys);
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

void nm__attention_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  size_t mark = o->arena.used;
  size_t bytes = sizeof(float) * (size_t)nm__pool_size(o->pool) * QUERIES * (size_t)a->max_keys;
  float *scratch = nm__arena_take(&o->arena, bytes);
  if (!scratch) {
    nm__fail(&o->err, NM_EMEMORY, "the arena is too small for attention scores");
  } else if (o->mode != NM__MEASURE) {
    struct job j = {o, a, y, scratch, a->max_keys, 0};
    for (int i = 0; i < a->n_spans; i++)
      j.tiles_per_head += (a->spans[i].n + QUERIES - 1) / QUERIES;
    nm__pool_run(o->pool, j.tiles_per_head * a->n_head, tile, &j);
  }
  o->arena.used = mark;
}
