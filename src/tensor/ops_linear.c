/* ops_linear.c - embed, matmul and gather, with their backwards.
 *
 * The products of a backward follow the f32 formula of the forward (docs/numerics.md):
 *   dx = dz W     k runs over outputs, in pieces of OUT rows of W that are made f32 and
 *                 transposed once and then serve all positions; pieces are added ascending
 *   dW = dz^T x   k runs over positions
 * so neither depends on threads, and dx works for every stored type of W. */
#include "tensor/ops_in.h"

#include <string.h>

enum { TILE_ROWS = 32, OUT = 256, POS = 64 };

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

size_t nm__matmul_scratch(const struct nm__ops *o, struct nm__w w) {
  return w.type == NM__F32 ? 0 : (size_t)nm__pool_size(o->pool) * TILE_ROWS * (size_t)w.cols;
}

void nm__matmul(struct nm__ops *o, const struct nm__op_args *a, const struct nm__t *y,
                float *scratch) {
  nm__rows_parallel(o, a->w.rows, TILE_ROWS, matmul_tile,
                    &(struct nm__call){o, a, y, NULL, scratch});
}

static void matmul_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  size_t mark = o->arena.used, n = nm__matmul_scratch(o, a->w);
  float *scratch = n ? nm__scratch(o, n, "a weight tile") : NULL;
  if (!o->err.status && o->mode != NM__MEASURE) nm__matmul(o, a, y, scratch);
  o->arena.used = mark;
}

/* ---- its backward ------------------------------------------------------ */

struct back {
  struct nm__ops *o;
  const struct nm__op_args *a;
  const struct nm__back *b;
  int64_t first, n;                /* the piece of W's rows at hand */
  float *wt, *rows, *tmp;          /* [cols][OUT]; a row and a tile of results a thread */
  float *xt;                       /* [cols][T] */
};

/* Rows first + begin .. of W into wt, transposed. */
static void transpose_rows(void *v, int64_t begin, int64_t end, int thread) {
  struct back *j = v;
  const struct nm__w *w = &j->a->w;
  float *row = j->rows + (size_t)thread * (size_t)w->cols;
  for (int64_t r = begin; r < end; r++) {
    j->o->kern->to_f32(row, w->data + (size_t)(j->first + r) * w->row_bytes, w->cols, w->type);
    for (int64_t i = 0; i < w->cols; i++) j->wt[i * OUT + r] = row[i];
  }
}

/* Columns begin..end of dx get what the piece gives. */
static void input_columns(void *v, int64_t begin, int64_t end, int thread) {
  struct back *j = v;
  int64_t T = j->a->x.rows, cols = j->a->w.cols, n = end - begin;
  float *tmp = j->tmp + (size_t)thread * POS * TILE_ROWS;
  for (int64_t t = 0; t < T; t += POS) {
    int m = T - t < POS ? (int)(T - t) : POS;
    j->o->kern->gemm(tmp, TILE_ROWS, j->b->d_out + t * j->a->w.rows + j->first,
                     (size_t)j->a->w.rows, m, j->wt + begin * OUT, OUT, (int)n, (int)j->n);
    for (int i = 0; i < m; i++) {
      float *dx = j->b->dx + (t + i) * cols + begin;
      j->o->kern->add(dx, dx, tmp + i * TILE_ROWS, n);
    }
  }
}

static void back_input(struct back *j) {
  struct nm__ops *o = j->o;
  size_t threads = (size_t)nm__pool_size(o->pool), cols = (size_t)j->a->w.cols;
  j->wt = nm__scratch(o, cols * OUT, "transposed weights");
  j->rows = nm__scratch(o, threads * cols, "weight rows");
  j->tmp = nm__scratch(o, threads * POS * TILE_ROWS, "a tile of gradients");
  for (j->first = 0; j->first < j->a->w.rows && !o->err.status; j->first += OUT) {
    j->n = j->a->w.rows - j->first < OUT ? j->a->w.rows - j->first : OUT;
    if (o->mode == NM__MEASURE) break;
    nm__rows_parallel(o, j->n, 16, transpose_rows, j);
    nm__rows_parallel(o, j->a->w.cols, TILE_ROWS, input_columns, j);
  }
}

static void transpose_input(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  struct back *j = v;
  int64_t T = j->a->x.rows, cols = j->a->x.cols;
  for (int64_t t = 0; t < T; t++)
    for (int64_t i = begin; i < end; i++) j->xt[i * T + t] = j->a->x.d[t * cols + i];
}

/* Rows begin..end of dw. */
static void weight_rows(void *v, int64_t begin, int64_t end, int thread) {
  struct back *j = v;
  int64_t T = j->a->x.rows, cols = j->a->w.cols, rows = j->a->w.rows;
  float *dzt = j->rows + (size_t)thread * TILE_ROWS * (size_t)T;
  float *tmp = j->tmp + (size_t)thread * TILE_ROWS * (size_t)cols;
  for (int64_t t = 0; t < T; t++)
    for (int64_t r = begin; r < end; r++)
      dzt[(r - begin) * T + t] = j->b->d_out[t * rows + r];
  j->o->kern->gemm(tmp, (size_t)cols, dzt, (size_t)T, (int)(end - begin), j->xt, (size_t)T,
                   (int)cols, (int)T);
  float *dw = j->b->dw + begin * cols;
  j->o->kern->add(dw, dw, tmp, (end - begin) * cols);
}

static void back_weight(struct back *j) {
  struct nm__ops *o = j->o;
  size_t threads = (size_t)nm__pool_size(o->pool), cols = (size_t)j->a->w.cols;
  size_t T = (size_t)j->a->x.rows;
  j->xt = nm__scratch(o, cols * T, "transposed inputs");
  j->rows = nm__scratch(o, threads * TILE_ROWS * T, "transposed gradients");
  j->tmp = nm__scratch(o, threads * TILE_ROWS * cols, "a tile of gradients");
  if (o->err.status || o->mode == NM__MEASURE) return;
  nm__rows_parallel(o, j->a->w.cols, 16, transpose_input, j);
  nm__rows_parallel(o, j->a->w.rows, TILE_ROWS, weight_rows, j);
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
  if (b->dx) back_input(&j);
  o->arena.used = mark;
  if (b->dw && !o->err.status) back_weight(&j);
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
