/* logreg_dense.c - the products of a fit with dense rows, as fast as memory gives them.
 *
 * A gradient is exact: float rows, double sums, one visit of each row for score, loss and X^T r.
 * The products of conjugate gradients only have to find a direction, which the next gradient
 * judges. They read the rows as bfloat16, centred, half the bytes, and compute in the f32 formula
 * (docs/numerics.md); all labels of a call share one reading, so that many labels are a matrix
 * product. Where rounding to bfloat16 would be felt beside the penalty (features far larger than
 * 1, many rows), the products read the floats themselves.
 *
 * Rows are cut into blocks by their number alone; each block has sums of its own, added in order.
 * So the bits do not depend on threads, nor on how many labels are fitted together. */
#include "look/logreg.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/wide.h"

enum { MOST_BLOCKS = 16, COLUMNS = 256 };

struct dense {
  const float *v;
  size_t ld, wide;                 /* of the caller's rows; d rounded up to 16 */
  const struct nm__kern *kern;
  const struct nm__wide *in_double;
  size_t per_block;                /* rows */
  int n_blocks, strip;             /* rows that are unpacked at once */
  float *shift;                    /* [d] -centre */
  uint16_t *half;                  /* [n][d], or NULL: the floats are read */
  float *p;                        /* [most][wide] */
  float *sums;                     /* [blocks][most][wide]: squares, then h */
  double *dsums, *tail;            /* [blocks][most][d], [blocks][most][2] */
  int threads;
  double *rows4;                   /* [threads][4][d] */
  float *unpacked, *scores;        /* [threads][strip][wide], [threads][2][strip][most] */
  struct nm__lr_fit **f;
  int m, most;
};

static const float *row_at(const struct nm__lr_rows *x, size_t i) {
  const struct dense *e = x->own;
  return e->v + nm__lr_row(x, i < x->n ? i : x->n - 1) * e->ld;
}

static void block_ends(const struct nm__lr_rows *x, int block, size_t *from, size_t *to) {
  const struct dense *e = x->own;
  *from = (size_t)block * e->per_block;
  *to = *from + e->per_block < x->n ? *from + e->per_block : x->n;
}

/* ---- the exact gradient ------------------------------------------------ */

/* Past the end the last row is repeated; its weights there are zero. */
static void exact_block(void *arg, int block, int thread) {
  struct nm__lr_rows *x = arg;
  struct dense *e = x->own;
  size_t from, to, d = (size_t)x->d;
  double *rows4 = e->rows4 + (size_t)thread * 4 * d;
  block_ends(x, block, &from, &to);
  double *sums = e->dsums + (size_t)block * (size_t)e->most * d;
  double *tail = e->tail + (size_t)block * (size_t)e->most * 2;
  memset(sums, 0, (size_t)e->m * d * sizeof *sums);
  memset(tail, 0, (size_t)e->m * 2 * sizeof *tail);
  for (size_t i = from; i < to; i += 4) {
    for (size_t k = 0; k < 4; k++)
      e->in_double->from_f32(rows4 + k * d, row_at(x, i + k), (int64_t)d);
    size_t end = i + 4 < to ? i + 4 : to;
    for (int l = 0; l < e->m; l++) {
      struct nm__lr_fit *f = e->f[l];
      e->in_double->dot4(f->z + i, rows4, d, f->w, x->d);
      for (size_t k = i; k < end; k++) f->z[k] += f->b;
      nm__lr_loss(f, i, end);
      for (size_t k = i; k < end; k++) tail[2 * l] += f->r[k], tail[2 * l + 1] += f->D[k];
      e->in_double->add4(sums + (size_t)l * d, f->r + i, rows4, d, x->d);
    }
  }
}

static void exact_sum(void *arg, int l, int thread) {
  struct nm__lr_rows *x = arg;
  struct dense *e = x->own;
  struct nm__lr_fit *f = e->f[l];
  size_t d = (size_t)x->d;
  (void)thread;
  memset(f->g, 0, d * sizeof *f->g);
  f->g_b = f->S = 0;
  for (int k = 0; k < e->n_blocks; k++) {
    size_t at = (size_t)k * (size_t)e->most + (size_t)l;
    for (size_t j = 0; j < d; j++) f->g[j] += e->dsums[at * d + j];
    f->g_b += e->tail[2 * at];
    f->S += e->tail[2 * at + 1];
  }
}

static void exact(struct nm__lr_rows *x, struct nm__lr_fit **f, int m) {
  struct dense *e = x->own;
  e->f = f;
  e->m = m;
  nm__pool_run(x->pool, e->n_blocks, exact_block, x);
  nm__pool_run(x->pool, m, exact_sum, x);
}

/* ---- the products of conjugate gradients --------------------------------- */

static void unpack(const struct nm__lr_rows *x, size_t i, float *out) {
  const struct dense *e = x->own;
  if (e->half) e->kern->to_f32(out, e->half + i * (size_t)x->d, x->d, NM__BF16);
  else e->kern->add(out, row_at(x, i), e->shift, x->d);
}

/* h[l] += sum over rows of k[l][row] u[row], a stretch of columns at a time, which stays in the
 * first-level cache while all labels pass. */
static void back(const struct dense *e, float *h, const float *k, const float *u, int n, int d) {
  for (int j = 0; j < d; j += COLUMNS)
    for (int l = 0; l < e->m; l++)
      e->kern->weighted_sum(h + (size_t)l * e->wide + j, k + (size_t)l * (size_t)e->strip, u + j,
                            e->wide, n, d - j < COLUMNS ? d - j : COLUMNS);
}

static void curve_block(void *arg, int block, int thread) {
  struct nm__lr_rows *x = arg;
  struct dense *e = x->own;
  size_t from, to, strip = (size_t)e->strip, most = (size_t)e->most;
  block_ends(x, block, &from, &to);
  float *u = e->unpacked + (size_t)thread * strip * e->wide;
  float *t = e->scores + (size_t)thread * 2 * strip * most, *k = t + strip * most;
  float *h = e->sums + (size_t)block * most * e->wide;
  double *tail = e->tail + (size_t)block * most * 2;
  memset(h, 0, (size_t)e->m * e->wide * sizeof *h);
  memset(tail, 0, (size_t)e->m * 2 * sizeof *tail);
  for (size_t i = from; i < to; i += strip) {
    size_t n = to - i < strip ? to - i : strip;
    for (size_t r = 0; r < n; r++) unpack(x, i + r, u + r * e->wide);
    e->kern->gemm(t, strip, e->p, e->wide, e->m, u, e->wide, (int)n, x->d);
    for (int l = 0; l < e->m; l++) {
      struct nm__lr_fit *f = e->f[l];
      for (size_t r = 0; r < n; r++) {
        double s = (double)t[(size_t)l * strip + r] + f->p_c, w = f->D[i + r] * s;
        f->t[i + r] = s;
        tail[2 * l] += w;
        k[(size_t)l * strip + r] = (float)w;
      }
    }
    back(e, h, k, u, (int)n, x->d);
  }
}

static void curve_sum(void *arg, int l, int thread) {
  struct nm__lr_rows *x = arg;
  struct dense *e = x->own;
  struct nm__lr_fit *f = e->f[l];
  (void)thread;
  memset(f->h, 0, (size_t)x->d * sizeof *f->h);
  f->h_c = 0;
  for (int k = 0; k < e->n_blocks; k++) {
    size_t at = (size_t)k * (size_t)e->most + (size_t)l;
    for (size_t j = 0; j < (size_t)x->d; j++) f->h[j] += (double)e->sums[at * e->wide + j];
    f->h_c += e->tail[2 * at];
  }
}

static void curve(struct nm__lr_rows *x, struct nm__lr_fit **f, int m) {
  struct dense *e = x->own;
  e->f = f;
  e->m = m;
  for (int l = 0; l < m; l++)
    for (int j = 0; j < x->d; j++) e->p[(size_t)l * e->wide + (size_t)j] = (float)f[l]->p[j];
  nm__pool_run(x->pool, e->n_blocks, curve_block, x);
  nm__pool_run(x->pool, m, curve_sum, x);
}

/* ---- making them ----------------------------------------------------------- */

/* The mean of some 256 rows from all over: near enough to centre with. */
static void find_centre(struct nm__lr_rows *x) {
  struct dense *e = x->own;
  size_t step = x->n / 256 + 1, n = 0;
  for (size_t i = 0; i < x->n; i += step, n++) {
    const float *r = row_at(x, i);
    for (int j = 0; j < x->d; j++) x->centre[j] += (double)r[j];
  }
  for (int j = 0; j < x->d; j++) {
    e->shift[j] = -(float)(x->centre[j] / (double)n);
    x->centre[j] = -(double)e->shift[j];
  }
}

static void halve_block(void *arg, int block, int thread) {
  struct nm__lr_rows *x = arg;
  struct dense *e = x->own;
  size_t from, to, d = (size_t)x->d;
  (void)thread;
  block_ends(x, block, &from, &to);
  float *q = e->sums + (size_t)block * (size_t)e->most * e->wide;
  memset(q, 0, d * sizeof *q);
  for (size_t i = from; i < to; i++)
    e->in_double->bf16(e->half + i * d, q, row_at(x, i), e->shift, x->d);
}

/* Centres, rounds, and measures the spread; false when a value is not finite. */
static bool halve(struct nm__lr_rows *x, double C) {
  struct dense *e = x->own;
  double most = 0;
  find_centre(x);
  nm__pool_run(x->pool, e->n_blocks, halve_block, x);
  for (int k = 0; k < e->n_blocks; k++)
    for (int j = 0; j < x->d; j++)
      x->spread[j] += (double)e->sums[(size_t)k * (size_t)e->most * e->wide + (size_t)j];
  for (int j = 0; j < x->d; j++) {
    x->spread[j] /= (double)x->n;
    if (!(x->spread[j] - x->spread[j] == 0)) return false;
    most = x->spread[j] > most ? x->spread[j] : most;
  }
  /* Rounding adds about 2^-19 of a feature's curvature to the Hessian, the penalty is 1. */
  if (0.25 * C * (double)x->n * most * 0x1p-19 > 0.25) {
    free(e->half);
    e->half = NULL;
  }
  return true;
}

static int not_finite(const struct nm__lr_rows *x, nm_err *err) {
  for (size_t i = 0; i < x->n; i++)
    for (int j = 0; j < x->d; j++) {
      double v = (double)row_at(x, i)[j];
      if (v - v != 0)
        return nm__fail(err, NM_EFORMAT,
                        "logistic regression: row %zu, feature %d is %g; every value must be "
                        "finite",
                        nm__lr_row(x, i), j, v);
    }
  return nm__fail(err, NM_EFORMAT,
                  "logistic regression: values above 1e19 are too large to be squared in floats");
}

static bool allocate(struct nm__lr_rows *x) {
  struct dense *e = x->own;
  size_t d = (size_t)x->d, most = (size_t)e->most, b = (size_t)e->n_blocks;
  size_t th = (size_t)e->threads, strip = (size_t)e->strip;
  x->centre = nm__alloc(2 * d, sizeof *x->centre);
  x->spread = x->centre + d;
  e->shift = nm__alloc(d, sizeof *e->shift);
  e->half = nm__alloc(x->n * d, sizeof *e->half);
  e->p = nm__alloc(most * e->wide, sizeof *e->p);
  e->sums = nm__alloc(b * most * e->wide, sizeof *e->sums);
  e->dsums = nm__alloc(b * most * d, sizeof *e->dsums);
  e->tail = nm__alloc(b * most * 2, sizeof *e->tail);
  e->rows4 = nm__alloc(th * 4 * d, sizeof *e->rows4);
  e->unpacked = nm__alloc(th * strip * e->wide, sizeof *e->unpacked);
  e->scores = nm__alloc(th * 2 * strip * most, sizeof *e->scores);
  return x->centre && e->shift && e->half && e->p && e->sums && e->dsums && e->tail && e->rows4 &&
         e->unpacked && e->scores;
}

int nm__lr_dense_new(struct nm__lr_rows *x, const float *v, size_t ld, double C, int most,
                     nm_err *err) {
  struct dense *e = x->own = nm__alloc(1, sizeof *e);
  if (!e) return nm__fail_memory(err, "logistic regression", sizeof *e);
  size_t blocks = (x->n + 63) / 64 < MOST_BLOCKS ? (x->n + 63) / 64 : MOST_BLOCKS;
  *e = (struct dense){.v = v, .ld = ld, .wide = ((size_t)x->d + 15) / 16 * 16, .most = most,
                      .kern = nm__kern_find(NULL), .threads = nm__pool_size(x->pool)};
  e->in_double = nm__wide_of(e->kern);
  e->per_block = ((x->n + blocks - 1) / blocks + 3) / 4 * 4;
  e->n_blocks = (int)((x->n + e->per_block - 1) / e->per_block);
  e->strip = 4;
  x->exact = exact;
  x->curve = curve;
  if (!allocate(x)) return nm__fail_memory(err, "logistic regression", x->n * (size_t)x->d * 2);
  return halve(x, C) ? NM_OK : not_finite(x, err);
}

void nm__lr_dense_free(struct nm__lr_rows *x) {
  struct dense *e = x->own;
  if (!e) return;
  free(x->centre);
  free(e->shift);
  free(e->half);
  free(e->p);
  free(e->sums);
  free(e->dsums);
  free(e->tail);
  free(e->rows4);
  free(e->unpacked);
  free(e->scores);
  free(e);
}
