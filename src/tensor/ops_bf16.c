/* ops_bf16.c - the way back of a product with both factors rounded to bf16 and f32 sums (the bf16
 * formula, kern.h). x, w and gradients stay f32 where they lie; what is rounded is scratch of one
 * call, made by all threads before the product or a tile at a time.
 *
 *   dx = dz w     dz in rows; two rows of w side by side, a pair an output
 *   dw = dz^T x   two positions of dz and of x side by side                             */
#include "tensor/ops_in.h"

enum { POSITIONS = 192, PANEL = 64, OUTPUTS = 1024, SOME = 24, MANY = 256,
       PAIRS = NM__PIECE / 2 };

struct job {
  struct nm__ops *o;
  const struct nm__op_args *a;
  const struct nm__back *b;
  uint16_t *x;                     /* rows of dz */
  uint32_t *zp, *xp, *wp;          /* pairs of rows of dz, x, w */
  float *rows;                     /* two rows of w as f32, a thread */
  int64_t first, n;                /* the rows of w at hand */
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Elements from one rounded row to the next: not a multiple of 4 KB, so that rows do not push each
 * other out of the cache. */
static size_t apart(int64_t k) {
  size_t n = nm__packed(k);
  return n % 2048 ? n : n + 32;
}

static float *take(struct nm__ops *o, size_t bytes) {
  return nm__scratch(o, (bytes + 3) / 4, "rounded factors");
}

/* ---- the way back ----------------------------------------------------------- */

static void round_dz(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  struct job *j = v;
  size_t rows = (size_t)j->a->w.rows, ld = apart((int64_t)rows);
  for (int64_t t = begin; t < end; t++)
    j->o->kern->pack_bf16(j->x + (size_t)t * ld, j->b->d_out + (size_t)t * rows, 0, 1, (int)rows);
}

static const float *row_of_w(const struct job *j, int64_t r, float *to) {
  const struct nm__w *w = &j->a->w;
  const uint8_t *row = w->data + (size_t)r * w->row_bytes;
  if (w->type == NM__F32) return (const float *)(const void *)row;
  j->o->kern->to_f32(to, row, w->cols, w->type);
  return to;
}

static void pair_w(void *v, int64_t begin, int64_t end, int thread) {
  struct job *j = v;
  int64_t cols = j->a->w.cols;
  float *two = j->rows ? j->rows + 2 * (size_t)thread * (size_t)cols : NULL;
  for (int64_t p = begin; p < end; p++) {
    int64_t r = j->first + 2 * p;
    const float *low = row_of_w(j, r, two);
    bool both = 2 * p + 1 < j->n;
    j->o->kern->pair_rows(j->wp + p * cols, low,
                          both ? row_of_w(j, r + 1, two ? two + cols : NULL) : NULL, cols);
  }
}

static void input_block(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  struct job *j = v;
  int64_t T = j->a->x.rows, cols = j->a->w.cols, panels = (cols + PANEL - 1) / PANEL;
  int64_t pairs = (j->n + 1) / 2;
  size_t ld = apart(j->a->w.rows) / 2;
  const uint32_t *dz = (const uint32_t *)(const void *)j->x + j->first / 2;
  for (int64_t i = begin; i < end; i++) {
    int64_t t = i / panels * POSITIONS, c = i % panels * PANEL;
    for (int64_t p = 0; p < pairs; p += PAIRS)
      j->o->kern->chain_bf16(j->b->dx + t * cols + c, (size_t)cols, dz + (size_t)t * ld + p, ld, 1,
                             (int)least(POSITIONS, T - t), j->wp + p * cols + c, (size_t)cols,
                             (int)least(PANEL, cols - c), (int)least(PAIRS, pairs - p));
  }
}

static void back_input(struct job *j) {
  struct nm__ops *o = j->o;
  int64_t T = j->a->x.rows, cols = j->a->w.cols, rows = j->a->w.rows, most = least(rows, OUTPUTS);
  int64_t blocks = (T + POSITIONS - 1) / POSITIONS * ((cols + PANEL - 1) / PANEL);
  size_t threads = (size_t)nm__pool_size(o->pool);
  j->x = (uint16_t *)(void *)take(o, 2 * (size_t)T * apart(rows));
  j->wp = (uint32_t *)(void *)take(o, 4 * (size_t)((most + 1) / 2 * cols));
  if (j->a->w.type != NM__F32) j->rows = take(o, 8 * threads * (size_t)cols);
  if (o->err.status || o->mode == NM__MEASURE) return;
  nm__rows_parallel(o, T, nm__grain(rows), round_dz, j);
  for (j->first = 0; j->first < rows; j->first += j->n) {
    j->n = least(OUTPUTS, rows - j->first);
    nm__rows_parallel(o, (j->n + 1) / 2, 16, pair_w, j);
    nm__rows_parallel(o, blocks, 1, input_block, j);
  }
}

static void pair_positions(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  struct job *j = v;
  int64_t T = j->a->x.rows, cols = j->a->w.cols, rows = j->a->w.rows;
  for (int64_t p = begin; p < end; p++) {
    const float *x = nm__row(&j->a->x, 2 * p), *dz = j->b->d_out + 2 * p * rows;
    bool both = 2 * p + 1 < T;
    j->o->kern->pair_rows(j->xp + p * cols, x, both ? x + cols : NULL, cols);
    j->o->kern->pair_rows(j->zp + p * rows, dz, both ? dz + rows : NULL, rows);
  }
}

static void weight_block(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  struct job *j = v;
  int64_t cols = j->a->w.cols, rows = j->a->w.rows, pairs = (j->a->x.rows + 1) / 2;
  int64_t across = (cols + MANY - 1) / MANY;
  for (int64_t i = begin; i < end; i++) {
    int64_t r = i / across * SOME, c = i % across * MANY;
    for (int64_t p = 0; p < pairs; p += PAIRS)
      j->o->kern->chain_bf16(j->b->dw + r * cols + c, (size_t)cols, j->zp + p * rows + r, 1,
                             (size_t)rows, (int)least(SOME, rows - r), j->xp + p * cols + c,
                             (size_t)cols, (int)least(MANY, cols - c),
                             (int)least(PAIRS, pairs - p));
  }
}

static void back_weight(struct job *j) {
  struct nm__ops *o = j->o;
  int64_t cols = j->a->w.cols, rows = j->a->w.rows, pairs = (j->a->x.rows + 1) / 2;
  j->xp = (uint32_t *)(void *)take(o, 4 * (size_t)(pairs * cols));
  j->zp = (uint32_t *)(void *)take(o, 4 * (size_t)(pairs * rows));
  if (o->err.status || o->mode == NM__MEASURE) return;
  nm__rows_parallel(o, pairs, nm__grain(rows), pair_positions, j);
  nm__rows_parallel(o, (rows + SOME - 1) / SOME * ((cols + MANY - 1) / MANY), 1, weight_block, j);
}

void nm__bf16_back(struct nm__ops *o, const struct nm__op_args *a, const struct nm__back *b) {
  struct job j = {.o = o, .a = a, .b = b};
  size_t mark = o->arena.used;
  if (b->dx) back_input(&j);
  o->arena.used = mark;
  if (b->dw && !o->err.status) back_weight(&j);
  o->arena.used = mark;
}
