/* convert_stream.c - the numbers of one tensor from one stored form to another, in tiles.
 *
 * A tile is a run of elements of the output: whole blocks of either type, so that tiles do not
 * depend on each other and their bytes do not depend on who made them. Where rows move, a tile is
 * gathered run by run. Tiles of a chunk are made by the pool and then written in order. */
#include "model/convert.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/quants.h"

enum { TILE = 8192, TILES = 128 };         /* elements; tiles of a chunk */
#define HALF_MAX 65504.0f

struct chunk {
  const struct nm__item *it;
  const struct nm__dtype_info *in, *out;
  const float *whole;              /* the tensor dequantised, for a transposition; else NULL */
  int64_t n, first, end;           /* elements of the tensor; those of this chunk */
  float *x;                        /* TILE for each thread */
  uint8_t *bytes;
  int64_t bad[TILES];              /* first element of a tile that cannot be written, or -1 */
  float worst[TILES];              /* and its value */
};

/* Elements a..b of the output as floats. */
static void gather(const struct chunk *c, int64_t a, int64_t b, float *x) {
  const struct nm__item *it = c->it;
  if (c->whole) {                  /* row i of the output is column i of the input */
    for (int64_t e = a; e < b; e++) x[e - a] = c->whole[e % it->rows * it->cols + e / it->rows];
    return;
  }
  while (a < b) {
    int64_t row = a / it->cols, col = a % it->cols, part = row / it->rows;
    int64_t run = it->cols - col < b - a ? it->cols - col : b - a;
    int64_t from = nm__hf_row(it->change, it->to_gguf, it->n_head, it->rows, row % it->rows);
    int64_t at = (from * it->cols + col) / c->in->block * c->in->bytes;
    c->in->to_f32(x, it->part[part] + at, run);
    x += run;
    a += run;
  }
}

static void make_tile(void *arg, int tile, int thread) {
  struct chunk *c = arg;
  int64_t a = c->first + (int64_t)tile * TILE, b = a + TILE < c->end ? a + TILE : c->end;
  float *x = c->x + (size_t)thread * TILE;
  float most = c->it->to == NM__F32 || c->it->to == NM__BF16 ? 3.38e38f : HALF_MAX;
  gather(c, a, b, x);
  if (c->it->change == NM__HF_PLUS_ONE)
    for (int64_t i = 0; i < b - a; i++) x[i] += c->it->to_gguf ? 1.0f : -1.0f;
  if (c->it->n_added) nm__item_add(c->it, a, b - a, x);
  c->bad[tile] = -1;
  for (int64_t i = b - a - 1; i >= 0; i--)
    if (!(x[i] <= most && x[i] >= -most)) {
      c->bad[tile] = a + i;
      c->worst[tile] = x[i];
    }
  uint8_t *to = c->bytes + (a - c->first) / c->out->block * c->out->bytes;
  if (c->bad[tile] < 0 && c->it->bits) nm__round_in(to, x, b - a, c->it->bits);
  else if (c->bad[tile] < 0) c->out->from_f32(to, x, b - a);
}

static int refuse(const struct chunk *c, int tile, nm_err *err) {
  double v = (double)c->worst[tile];
  bool finite = v - v == 0;
  char shown[160];
  return nm__fail(err, NM_EFORMAT, "tensor '%s' cannot be written as %s: element %lld is %g%s",
                  nm__printable(shown, sizeof shown, c->it->name, strlen(c->it->name)),
                  c->out->name, (long long)c->bad[tile], v,
                  finite ? ", which is too large for it; BF16 or F32 can hold it"
                         : "; the model is damaged there, or was trained to nowhere");
}

static int check_tiles(const struct chunk *c, int n_tiles, nm_err *err) {
  for (int t = 0; t < n_tiles; t++)
    if (c->bad[t] >= 0) return refuse(c, t, err);
  return NM_OK;
}

/* One step of the progress; the pages read so far go back to the system. */
static int advance(struct nm__plan *p, uint64_t bytes, nm_err *err) {
  enum { DROP = 1 << 24 };
  uint64_t before = p->done;
  p->done += bytes;
  if (before / DROP != p->done / DROP) nm__gguf_drop(p->g);
  return nm__progress(p->o->progress, "converting MB", (double)p->done / 1e6,
                      (double)p->bytes_in / 1e6, err);
}

static int stream_made(struct nm__plan *p, struct chunk *c, nm__sink *sink, void *arg,
                       nm_err *err) {
  int st = NM_OK;
  for (c->first = 0; c->first < c->n && !st; c->first = c->end) {
    c->end = c->n - c->first < (int64_t)TILE * TILES ? c->n : c->first + (int64_t)TILE * TILES;
    int n_tiles = (int)((c->end - c->first + TILE - 1) / TILE);
    int64_t n = c->end - c->first;
    nm__pool_run(p->pool, n_tiles, make_tile, c);
    st = check_tiles(c, n_tiles, err);
    if (!st) st = sink(arg, c->bytes, (size_t)(n / c->out->block * c->out->bytes), err);
    if (!st) st = advance(p, (uint64_t)(n / c->in->block * c->in->bytes), err);
  }
  return st;
}

/* Bytes that stay as they are. */
static int stream_same(struct nm__plan *p, const struct nm__item *it, nm__sink *sink, void *arg,
                       nm_err *err) {
  enum { STEP = 1 << 22 };
  uint64_t bytes = it->bytes / it->n_parts;
  int st = NM_OK;
  for (size_t k = 0; k < it->n_parts && !st; k++)
    for (uint64_t at = 0; at < bytes && !st; at += STEP) {
      size_t n = bytes - at < STEP ? (size_t)(bytes - at) : STEP;
      st = sink(arg, it->part[k] + at, n, err);
      if (!st) st = advance(p, n, err);
    }
  return st;
}

int nm__item_stream(struct nm__plan *p, const struct nm__item *it, nm__sink *sink, void *arg,
                    nm_err *err) {
  struct chunk c = {.it = it, .in = nm__dtype(it->from), .out = nm__dtype(it->to)};
  if (it->from == it->to && it->change == NM__HF_SAME && !it->n_added && !it->bits)
    return stream_same(p, it, sink, arg, err);
  float *whole = NULL;
  c.n = it->rows * it->cols * (int64_t)it->n_parts;
  if (it->change == NM__HF_TRANSPOSE) {
    c.whole = whole = nm__alloc((size_t)c.n, sizeof *whole);
    if (!whole) return nm__fail_memory(err, "a transposed matrix", (size_t)c.n * 4);
    c.in->to_f32(whole, it->part[0], c.n);
  }
  int64_t room = c.n < (int64_t)TILE * TILES ? c.n : (int64_t)TILE * TILES;
  c.x = nm__alloc((size_t)nm__pool_size(p->pool) * TILE, sizeof *c.x);
  c.bytes = nm__alloc((size_t)(room / c.out->block + 1), (size_t)c.out->bytes);
  int st = c.x && c.bytes ? stream_made(p, &c, sink, arg, err)
                          : nm__fail_memory(err, "a piece of a tensor", (size_t)room * 4);
  free(whole);
  free(c.x);
  free(c.bytes);
  return st;
}
