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

/* How one product is cut into tiles: a tile is `tile_rows` rows of w for all rows of x, or for one
 * of `chunks` parts of very many.
 *
 *   x  [m, k]  packed once, as f32 or bf16 (kern.h); with a single row and f32 as it lies
 *   w  a tile is made f32 or bf16 once, in scratch of the thread, and then serves all positions;
 *      one that is stored so is read where it lies, but for rows that are whole pages apart,
 *      which would all fall on the same few lines of the first-level cache */
struct product {
  struct nm__ops *o;
  const struct nm__op_args *a;
  const struct nm__t *y;
  uint8_t *x, *w;                  /* packed rows; a tile a thread, or NULL */
  size_t ldw, unit;                /* of a tile: from row to row; bytes of an element */
  int64_t tile_rows, chunks, chunk_rows;
  bool bf16, alone;
};

enum { TILE_BYTES = 512 << 10, CHUNK = 768 };

static struct product cut(struct nm__ops *o, const struct nm__op_args *a, const struct nm__t *y) {
  struct product p = {.o = o, .a = a, .y = y, .bf16 = o->bf16, .chunks = 1};
  int64_t m = a->x.rows, strip = o->kern->strip;
  p.alone = m == 1 && !p.bf16;
  p.unit = p.bf16 ? sizeof(uint16_t) : sizeof(float);
  p.ldw = nm__packed(a->w.cols) + 32;
  p.tile_rows = (int64_t)(TILE_BYTES / p.unit / p.ldw) & ~3;
  p.tile_rows = p.tile_rows < 4 ? 4 : p.tile_rows > TILE_ROWS ? TILE_ROWS : p.tile_rows;
  p.chunks = (m + CHUNK - 1) / CHUNK;
  p.chunk_rows = p.chunks ? (m + p.chunks - 1) / p.chunks : 0;
  p.chunk_rows = (p.chunk_rows + strip - 1) / strip * strip;
  return p;
}

static bool read_in_place(const struct product *p) {
  const struct nm__w *w = &p->a->w;
  return p->alone || (w->type == (p->bf16 ? NM__BF16 : NM__F32) &&
                      (w->row_bytes % 4096 || p->a->x.rows == 1));
}

static void add_bias(const struct product *p, int64_t first, int64_t end, int64_t begin_row,
                     int64_t end_row) {
  float b[TILE_ROWS];
  struct nm__w w = p->a->bias;
  size_t unit = (size_t)nm__dtype(w.type)->bytes;      /* vectors are F32, F16 or BF16 */
  nm__dtype(w.type)->to_f32(b, w.data + (size_t)first * unit, end - first);
  for (int64_t i = begin_row; i < end_row; i++) {
    float *y = nm__row(p->y, i) + first;
    p->o->kern->add(y, y, b, end - first);
  }
}

static void pack_strips(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const struct product *p = v;
  const struct nm__kern *kern = p->o->kern;
  const struct nm__t *x = &p->a->x;
  int64_t first = begin * kern->strip, last = end * kern->strip;
  int m = (int)((last < x->rows ? last : x->rows) - first);
  void *to = p->x + (size_t)first * nm__packed(x->cols) * p->unit;
  if (p->bf16) kern->pack_bf16(to, nm__row(x, first), (size_t)x->cols, m, (int)x->cols);
  else kern->pack(to, nm__row(x, first), (size_t)x->cols, m, (int)x->cols);
}

/* Rows first..end of w as the product reads them. */
static const void *weight_tile(const struct product *p, int64_t first, int64_t end, int thread,
                               size_t *ldw) {
  const struct nm__w *w = &p->a->w;
  *ldw = (size_t)w->cols;
  if (!p->w) return w->data + (size_t)first * w->row_bytes;
  uint8_t *tile = p->w + (size_t)thread * (size_t)p->tile_rows * p->ldw * p->unit;
  for (int64_t r = first; r < end; r++) {
    const uint8_t *row = w->data + (size_t)r * w->row_bytes;
    void *to = tile + (size_t)(r - first) * p->ldw * p->unit;
    if (p->bf16) p->o->kern->to_bf16(to, row, w->cols, w->type);
    else p->o->kern->to_f32(to, row, w->cols, w->type);
  }
  *ldw = p->ldw;
  return tile;
}

static void matmul_tile(void *v, int t, int thread) {
  const struct product *p = v;
  const struct nm__w *w = &p->a->w;
  const struct nm__kern *kern = p->o->kern;
  int64_t tiles = (w->rows + p->tile_rows - 1) / p->tile_rows, m = p->a->x.rows;
  int64_t first = t % tiles * p->tile_rows, end = first + p->tile_rows;
  int64_t row = t / tiles * p->chunk_rows, end_row = row + p->chunk_rows;
  if (end > w->rows) end = w->rows;
  if (end_row > m) end_row = m;
  float *y = nm__row(p->y, row) + first;
  int n = (int)(end - first), k = (int)w->cols;
  if (p->alone) {
    kern->gemv(y, p->a->x.d, w->data + (size_t)first * w->row_bytes, w->row_bytes, n, k, w->type);
  } else {
    size_t ldw, ldy = (size_t)p->y->cols;
    const void *tile = weight_tile(p, first, end, thread, &ldw);
    const void *x = p->x + (size_t)row * nm__packed(k) * p->unit;
    if (p->bf16) kern->gemm_bf16(y, ldy, x, 0, (int)(end_row - row), tile, ldw, n, k);
    else kern->gemm(y, ldy, x, 0, (int)(end_row - row), tile, ldw, n, k);
  }
  if (p->a->bias.data) add_bias(p, first, end, row, end_row);
}

/* Scratch for packed rows and weight tiles, in every mode. */
static void take_scratch(struct product *p) {
  struct nm__ops *o = p->o;
  size_t x = (size_t)p->a->x.rows * nm__packed(p->a->x.cols) * p->unit;
  size_t w = (size_t)nm__pool_size(o->pool) * (size_t)p->tile_rows * p->ldw * p->unit;
  if (!p->alone) p->x = (uint8_t *)nm__scratch(o, (x + 3) / 4, "packed positions");
  if (!read_in_place(p)) p->w = (uint8_t *)nm__scratch(o, (w + 3) / 4, "a weight tile");
}

void nm__matmul_room(struct nm__ops *o, const struct nm__op_args *a) {
  size_t mark = o->arena.used;
  struct product p = cut(o, a, NULL);
  take_scratch(&p);
  o->arena.used = mark;
}

void nm__matmul(struct nm__ops *o, const struct nm__op_args *a, const struct nm__t *y) {
  struct product p = cut(o, a, y);
  size_t mark = o->arena.used;
  take_scratch(&p);
  if (!o->err.status && o->mode != NM__MEASURE) {
    int64_t strips = (a->x.rows + o->kern->strip - 1) / o->kern->strip;
    int64_t tiles = (a->w.rows + p.tile_rows - 1) / p.tile_rows;
    if (!p.alone) nm__rows_parallel(o, strips, 4, pack_strips, &p);
    nm__pool_run(o->pool, (int)(tiles * p.chunks), matmul_tile, &p);
  }
  o->arena.used = mark;
}

static void matmul_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__matmul(o, a, y);
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
