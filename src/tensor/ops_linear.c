/* ops_linear.c - embed, matmul and gather, with their backwards.
 *
 * An element of a product of the backward is a sum of pieces, each one chain of NM__PIECE fused
 * multiply-adds, added ascending to what the gradient holds (docs/numerics.md):
 *   dx = dz W     the chain runs over outputs; rows of W of any stored type are made f32 first
 *   dW = dz^T x   the chain runs over positions
 * so neither depends on threads, and in neither is a matrix transposed. */
#include "tensor/ops_in.h"

#include <string.h>

enum { TILE_ROWS = 32, OUT = 256 };
/* Shapes of the blocks that the backward hands out. They change no bit; NM__PIECE would. */
enum { POS = 192, PANEL = 64, SOME = 24, MANY = 256 };

/* ---- embed: y[i] = w[ids[i]] ------------------------------------------ */

static bool embed_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->n_ids;
  out[1] = a->w.cols;
  return a->w.data != NULL;
}

static void embed_rows(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  struct nm__call *c = v;
  for (int64_t i = begin; i < end; i++)
    c->o->kern->to_f32(nm__row(c->y, i), c->a->w.data + (size_t)c->a->ids[i] * c->a->w.row_bytes,
                       c->a->w.cols, c->a->w.type);
}

static void embed_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__by_rows(o, a, y, embed_rows);
}

/* to[ids[i]] += from[i] over columns begin..end, i ascending: a token may occur twice. */
static void scatter_columns(struct nm__call *c, float *to, int64_t begin, int64_t end) {
  int64_t cols = c->b->out.cols;
  for (int64_t i = 0; i < c->a->n_ids; i++) {
    float *t = to + (int64_t)c->a->ids[i] * cols + begin;
    c->o->kern->add(t, t, c->b->d_out + i * cols + begin, end - begin);
  }
}

static void embed_columns(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  struct nm__call *c = v;
  scatter_columns(c, c->b->dw, begin, end);
}

static void embed_backward(struct nm__ops *o, const struct nm__op_args *a,
                           const struct nm__back *b) {
  if (b->dw)
    nm__rows_parallel(o, b->out.cols, TILE_ROWS, embed_columns,
                      &(struct nm__call){o, a, NULL, b, NULL});
}

/* ---- gather: y[i] = x[ids[i]] ------------------------------------------ */

static bool gather_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->n_ids;
  out[1] = a->x.cols;
  return true;
}

static void gather_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  (void)o;
  for (int64_t i = 0; i < y->rows; i++)
    memcpy(nm__row(y, i), nm__row(&a->x, a->ids[i]), sizeof(float) * (size_t)y->cols);
}

static void gather_columns(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  struct nm__call *c = v;
  scatter_columns(c, c->b->dx, begin, end);
}

static void gather_backward(struct nm__ops *o, const struct nm__op_args *a,
                            const struct nm__back *b) {
  if (b->dx)
    nm__rows_parallel(o, b->out.cols, TILE_ROWS, gather_columns,
                      &(struct nm__call){o, a, NULL, b, NULL});
}

/* ---- matmul: y = x w^T + bias ----------------------------------------- */

static bool matmul_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->x.rows;
  out[1] = a->w.rows;
  return a->w.data && a->x.cols == a->w.cols && (!a->bias.data || a->bias.cols == a->w.rows);
}

static void add_bias(struct nm__call *c, int64_t begin, int64_t end) {
  float b[TILE_ROWS];
  struct nm__w w = c->a->bias;
  size_t unit = (size_t)nm__dtype(w.type)->bytes;      /* vectors are F32, F16 or BF16 */
  nm__dtype(w.type)->to_f32(b, w.data + (size_t)begin * unit, end - begin);
  for (int64_t i = 0; i < c->y->rows; i++) {
    float *y = nm__row(c->y, i) + begin;
    c->o->kern->add(y, y, b, end - begin);
  }
}

/* A tile of weight rows is made f32 once (F32 files: used where it lies) and then serves
 * all positions. */
static void matmul_tile(void *v, int64_t begin, int64_t end, int thread) {
  struct nm__call *c = v;
  const struct nm__op_args *a = c->a;
  const float *w = (const float *)(const void *)(a->w.data + (size_t)begin * a->w.row_bytes);
  if (a->w.type != NM__F32) {
    float *s = c->scratch + (size_t)thread * TILE_ROWS * (size_t)a->w.cols;
    for (int64_t r = begin; r < end; r++)
      c->o->kern->to_f32(s + (r - begin) * a->w.cols, a->w.data + (size_t)r * a->w.row_bytes,
                         a->w.cols, a->w.type);
    w = s;
  }
  c->o->kern->gemm(c->y->d + begin, (size_t)c->y->cols, a->x.d, (size_t)a->x.cols, (int)a->x.rows,
                   w, (size_t)a->w.cols, (int)(end - begin), (int)a->w.cols);
  if (a->bias.data) add_bias(c, begin, end);
}

size_t nm__matmul_scratch(const struct nm__ops *o, struct nm__w w, int64_t T) {
  if (o->bf16) return nm__bf16_scratch(o, w, T);
  return w.type == NM__F32 ? 0 : (size_t)nm__pool_size(o->pool) * TILE_ROWS * (size_t)w.cols;
}

static void bias_tile(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  add_bias(v, begin, end);
}

void nm__matmul(struct nm__ops *o, const struct nm__op_args *a, const struct nm__t *y,
                float *scratch) {
  struct nm__call c = {o, a, y, NULL, scratch};
  if (o->bf16) nm__bf16_matmul(o, a, y, scratch);
  else nm__rows_parallel(o, a->w.rows, TILE_ROWS, matmul_tile, &c);
  if (o->bf16 && a->bias.data) nm__rows_parallel(o, a->w.rows, TILE_ROWS, bias_tile, &c);
}

static void matmul_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  size_t mark = o->arena.used, n = nm__matmul_scratch(o, a->w, a->x.rows);
  float *scratch = n ? nm__scratch(o, n, "a weight tile") : NULL;
  if (!o->err.status && o->mode != NM__MEASURE) nm__matmul(o, a, y, scratch);
  o->arena.used = mark;
}

/* ---- its backward ------------------------------------------------------ */

struct back {
  struct nm__ops *o;
  const struct nm__op_args *a;
  const struct nm__back *b;
  int64_t first, n;                /* the rows of W at hand */
  const float *w;                  /* they, as f32 */
  float *scratch;
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Rows first + begin .. of W made f32. */
static void plain_rows(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  struct back *j = v;
  const struct nm__w *w = &j->a->w;
  for (int64_t r = begin; r < end; r++)
    j->o->kern->to_f32(j->scratch + r * w->cols, w->data + (size_t)(j->first + r) * w->row_bytes,
                       w->cols, w->type);
}

/* Blocks of POS positions by PANEL columns of dx. */
static void input_block(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  struct back *j = v;
  int64_t T = j->a->x.rows, cols = j->a->w.cols, rows = j->a->w.rows;
  int64_t panels = (cols + PANEL - 1) / PANEL;
  for (int64_t i = begin; i < end; i++) {
    int64_t t = i / panels * POS, c = i % panels * PANEL;
    for (int64_t r = 0; r < j->n; r += NM__PIECE)
      j->o->kern->chain(j->b->dx + t * cols + c, (size_t)cols,
                        j->b->d_out + t * rows + j->first + r, (size_t)rows, 1,
                        (int)least(POS, T - t), j->w + r * cols + c, (size_t)cols,
                        (int)least(PANEL, cols - c), (int)least(NM__PIECE, j->n - r), false);
  }
}

static void back_input(struct back *j) {
  struct nm__ops *o = j->o;
  const struct nm__w *w = &j->a->w;
  int64_t blocks = (j->a->x.rows + POS - 1) / POS * ((w->cols + PANEL - 1) / PANEL);
  bool plain = w->type == NM__F32;
  if (!plain) j->scratch = nm__scratch(o, (size_t)(OUT * w->cols), "weight rows");
  for (j->first = 0; j->first < w->rows && !o->err.status; j->first += j->n) {
    j->n = plain ? w->rows : least(OUT, w->rows - j->first);
    j->w = plain ? (const float *)(const void *)w->data : j->scratch;
    if (o->mode == NM__MEASURE) break;
    if (!plain) nm__rows_parallel(o, j->n, 16, plain_rows, j);
    nm__rows_parallel(o, blocks, 1, input_block, j);
  }
}

/* Blocks of SOME rows by MANY columns of dw. The rows' gradients are copied together first. */
static void weight_block(void *v, int64_t begin, int64_t end, int thread) {
  struct back *j = v;
  int64_t T = j->a->x.rows, cols = j->a->w.cols, rows = j->a->w.rows;
  int64_t across = (cols + MANY - 1) / MANY;
  float *dz = j->scratch + (size_t)thread * NM__PIECE * SOME;
  for (int64_t i = begin; i < end; i++) {
    int64_t r = i / across * SOME, c = i % across * MANY, n = least(SOME, rows - r);
    for (int64_t t = 0; t < T; t += NM__PIECE) {
      int64_t k = least(NM__PIECE, T - t);
      for (int64_t s = 0; s < k; s++)
        memcpy(dz + s * SOME, j->b->d_out + (t + s) * rows + r, sizeof(float) * (size_t)n);
      j->o->kern->chain(j->b->dw + r * cols + c, (size_t)cols, dz, 1, SOME, (int)n,
                        j->a->x.d + t * cols + c, (size_t)cols, (int)least(MANY, cols - c), (int)k,
                        false);
    }
  }
}

static void back_weight(struct back *j) {
  struct nm__ops *o = j->o;
  size_t threads = (size_t)nm__pool_size(o->pool);
  int64_t cols = j->a->w.cols, rows = j->a->w.rows;
  j->scratch = nm__scratch(o, threads * NM__PIECE * SOME, "a tile of gradients");
  if (o->err.status || o->mode == NM__MEASURE) return;
  nm__rows_parallel(o, (rows + SOME - 1) / SOME * ((cols + MANY - 1) / MANY), 1, weight_block, j);
}

static void bias_columns(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  struct nm__call *c = v;
  float *db = c->b->dbias + begin;
  for (int64_t t = 0; t < c->b->out.rows; t++)
    c->o->kern->add(db, db, c->b->d_out + t * c->b->out.cols + begin, end - begin);
}

void nm__matmul_back(struct nm__ops *o, const struct nm__op_args *a, const struct nm__back *b) {
  struct back j = {.o = o, .a = a, .b = b};
  size_t mark = o->arena.used;
  if (o->bf16) {
    nm__bf16_back(o, a, b);
  } else {
    if (b->dx) back_input(&j);
    o->arena.used = mark;
    if (b->dw && !o->err.status) back_weight(&j);
  }
  o->arena.used = mark;
  if (b->dbias && !o->err.status && o->mode != NM__MEASURE)
    nm__rows_parallel(o, b->out.cols, TILE_ROWS, bias_columns,
                      &(struct nm__call){o, a, NULL, b, NULL});
}

const struct nm__op nm__op_embed = {.name = "embed", .formula = "y[i] = w[ids[i]]",
                                    .shape = embed_shape, .forward = embed_forward,
                                    .backward = embed_backward};
const struct nm__op nm__op_gather = {.name = "gather", .formula = "y[i] = x[ids[i]]",
                                     .shape = gather_shape, .forward = gather_forward,
                                     .backward = gather_backward};
const struct nm__op nm__op_matmul = {.name = "matmul", .formula = "y = x w^T + bias",
                                     .shape = matmul_shape, .forward = matmul_forward,
                                     .backward = nm__matmul_back, .scratch = true,
                                     .back_scratch = true};
