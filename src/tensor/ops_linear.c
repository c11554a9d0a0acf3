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

/* How one product is cut into tiles: a tile is `tile_rows` rows of w for all rows of x, or for one
 * of `chunks` parts of very many.
 *
 *   x  [m, k]  packed once, as f32 or bf16 (kern.h); with a single row and f32 as it lies
 *   w  a tile is made f32 or bf16 once, in scratch of the thread, and then serves all positions;
 *      what is stored so already is copied too when many rows of x meet it: a file aligns
 *      nothing to cache lines, and rows whole pages apart fall on the same few of them */
struct product {
  struct nm__ops *o;
  const struct nm__op_args *a;
  const struct nm__t *y;
  uint8_t *x, *w;                  /* packed rows; a tile a thread, or NULL */
  size_t ldw, unit;                /* of a tile: from row to row; bytes of an element */
  int64_t tile_rows, chunks, chunk_rows;
  bool bf16, alone;
};

enum { TILE_BYTES = 512 << 10, CHUNK = 768, FEW = 16 };

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
  return p->a->x.rows == 1 ||
         (w->type == (p->bf16 ? NM__BF16 : NM__F32) && p->a->x.rows <= FEW);
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
  } else if (m == 1 && w->type != NM__BF16) {
    kern->gemv_bf16(y, (const uint16_t *)(const void *)p->x,
                    w->data + (size_t)first * w->row_bytes, w->row_bytes, n, k, w->type);
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
