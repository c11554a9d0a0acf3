/* random.c - writes models of random weights, in a named shape or in the shape of
 * another file. Values depend on (seed, tensor, element) alone. */
#include "world/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model/hf.h"
#include "model/shape.h"
#include "tensor/math.h"

enum { ROW_BYTES_MAX = 1 << 22 };

static bool ends(const char *s, const char *tail) {
  size_t n = strlen(s), k = strlen(tail);
  return n >= k && !strcmp(s + n - k, tail);
}

/* Four uniform values of variance `std`^2 from one hash. */
static void random_row(float *x, int64_t n, double std, uint64_t seed, uint64_t tensor,
                       uint64_t row) {
  float unit = (float)(std * 1.7320508075688772 / 32768.0);
  for (int64_t i = 0; i < n; i += 4) {
    uint64_t u = nm__rand_at(seed, tensor * 0x100000000u + row, (uint64_t)i);
    for (int k = 0; k < 4 && i + k < n; k++, u >>= 16)
      x[i + k] = (float)((int)(u & 0xffff) - 32768) * unit;
  }
}

/* One row, as stored. `out` has room for the row's bytes. */
static int64_t make_row(const char *name, uint32_t type, int64_t n, uint64_t seed, uint64_t tensor,
                        uint64_t row, float *x, uint8_t *out) {
  const struct nm__dtype_info *d = nm__dtype(type);
  bool table = strstr(name, "_embd.") != NULL;
  if (ends(name, "norm.weight") || ends(name, "norm_2.weight"))
    for (int64_t i = 0; i < n; i++) x[i] = 1;
  else if (ends(name, ".bias")) memset(x, 0, sizeof *x * (size_t)n);
  else random_row(x, n, table ? 1.0 : 1.0 / nm__sqrt((double)n), seed, tensor, row);
  d->from_f32(out, x, n);
  return n / d->block * d->bytes;
}

/* ---- the shape of another file --------------------------------------------- */

static int copy_tensor(struct nm__gguf_writer *w, const struct nm__gguf *g, size_t i,
                       uint64_t seed, float *x, uint8_t *row, nm_err *err) {
  const struct nm__gguf_tensor *t = &g->tensors[i];
  if (!strncmp(t->name, "rope_f", 6) || !nm__dtype(t->type)->from_f32)    /* facts, not weights */
    return nm__gguf_data(w, t->data, t->bytes, err);
  int64_t rows = t->bytes ? t->ne[1] * t->ne[2] * t->ne[3] : 0;
  int st = NM_OK;
  for (int64_t r = 0; r < rows && !st; r++) {
    int64_t n = make_row(t->name, t->type, t->ne[0], seed, i, (uint64_t)r, x, row);
    st = nm__gguf_data(w, row, (size_t)n, err);
  }
  return st;
}

/* All keys and sizes of g; where the tensors lie is the writer's business. */
static int announce_like(struct nm__gguf_writer *w, const struct nm__gguf *g, nm_err *err) {
  for (size_t i = 0; i < g->n_kv; i++)
    if (strcmp(g->kv[i].key, "general.alignment")) nm__gguf_put_kv(w, &g->kv[i]);
  for (size_t i = 0; i < g->n_tensors; i++) {
    const struct nm__gguf_tensor *t = &g->tensors[i];
    if (t->ne[0] > ROW_BYTES_MAX)
      return nm__fail(err, NM_EFORMAT, "%s: tensor %s has too long a row", g->path, t->name);
    nm__gguf_announce(w, t->name, t->type, t->n_dims, t->ne);
  }
  return NM_OK;
}

static int write_like(const struct nm__gguf *g, uint64_t seed, struct nm__gguf_writer *w,
                      const nm_progress *p, nm_err *err) {
  float *x = nm__alloc(ROW_BYTES_MAX, sizeof *x);
  uint8_t *row = nm__alloc(ROW_BYTES_MAX, 4);
  int st = x && row ? NM_OK : nm__fail_memory(err, "a random model", (size_t)ROW_BYTES_MAX * 8);
  for (size_t i = 0; i < g->n_tensors && !st; i++) {
    st = copy_tensor(w, g, i, seed, x, row, err);
    if (!st)
      st = nm__progress(p, "drawing random weights", (double)i + 1, (double)g->n_tensors, err);
  }
  free(x);
  free(row);
  return st;
}

int nm__write_random_like(const char *like, uint64_t seed, const char *path, const nm_progress *p,
                          nm_err *err) {
  struct nm__gguf *g;
  struct nm__gguf_writer *w = NULL;
  int st = nm__model_map(like, &g, err);
  if (!st) st = nm__gguf_writer_new(&w, err);
  if (!st) st = announce_like(w, g, err);
  if (!st) st = nm__gguf_begin(w, path, err);
  if (!st) st = write_like(g, seed, w, p, err);
  if (!st) st = nm__gguf_finish(w, err);
  nm__gguf_writer_free(w);
  nm__gguf_close(g);
  return st;
}

/* ---- named shapes ------------------------------------------------------------ */

static const struct nm__shape shapes[] = {
    {"llama", "tiny", .L = 2, .D = 64, .H = 4, .K = 2, .F = 160, .V = 512, .ctx = 512},
    {"llama", "smollm2-135m", .L = 30, .D = 576, .H = 9, .K = 3, .F = 1536, .V = 49152,
     .ctx = 8192, .rope_base = 100000},
    {"qwen2", "qwen2.5-0.5b", .L = 24, .D = 896, .H = 14, .K = 2, .F = 4864, .V = 151936,
     .ctx = 32768, .rope_base = 1000000},
    {"llama", "llama3.2-1b", .L = 16, .D = 2048, .H = 32, .K = 8, .F = 8192, .V = 128256,
     .ctx = 8192, .rope_base = 500000},
    {"bert", "tiny-bert", .L = 2, .D = 64, .H = 4, .F = 160, .V = 512, .ctx = 512},
    {"bert", "minilm-l6", .L = 6, .D = 384, .H = 12, .F = 1536, .V = 30522, .ctx = 512},
    {"nomic-bert", "nomic-embed", .L = 12, .D = 768, .H = 12, .F = 3072, .V = 30528, .ctx = 2048,
     .rope_base = 1000},
};

/* A word-level vocabulary: the bytes, then w256, w257, ...; enough to run texts of any bytes. */
static int put_vocab(struct nm__gguf_writer *w, int V, nm_err *err) {
  char **piece = nm__alloc((size_t)V, sizeof *piece), *text = nm__alloc((size_t)V, 12);
  float *score = nm__alloc((size_t)V, sizeof *score);
  int32_t *kind = nm__alloc((size_t)V, sizeof *kind);
  bool good = piece && text && score && kind;
  for (int i = 0; good && i < V; i++) {
    piece[i] = text + 12 * (size_t)i;
    snprintf(piece[i], 12,
             i == 0    ? "<unk>"
             : i == 1  ? "<s>"
             : i == 2  ? "</s>"
             : i < 259 ? "<0x%02X>"
                       : "w%d",
             i < 259 ? (unsigned)(i - 3) & 255 : (unsigned)i);
    kind[i] = i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1;
  }
  if (good) {
    nm__gguf_put_string(w, "tokenizer.ggml.model", "llama");
    nm__gguf_put_strings(w, "tokenizer.ggml.tokens", (const char *const *)piece, (size_t)V);
    nm__gguf_put_f32s(w, "tokenizer.ggml.scores", score, (size_t)V);
    nm__gguf_put_i32s(w, "tokenizer.ggml.token_type", kind, (size_t)V);
    nm__gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 1);
    nm__gguf_put_u32(w, "tokenizer.ggml.eos_token_id", 2);
  }
  free(piece);
  free(text);
  free(score);
  free(kind);
  return good ? NM_OK : nm__fail_memory(err, "a vocabulary", (size_t)V * 30);
}

static int put_key(void *arg, const struct nm__shape_key *k, nm_err *err) {
  struct nm__gguf_writer *w = arg;
  (void)err;                       /* the writer keeps it */
  if (k->kind == NM__KEY_TEXT) nm__gguf_put_string(w, k->name, k->text);
  else if (k->kind == NM__KEY_U32) nm__gguf_put_u32(w, k->name, (uint32_t)k->v);
  else if (k->kind == NM__KEY_F32) nm__gguf_put_f32(w, k->name, (float)k->v);
  else nm__gguf_put_bool(w, k->name, k->v != 0);
  return NM_OK;
}

/* Vectors stay F32; a matrix whose rows are no whole blocks is F16. */
static uint32_t type_of(const struct nm__spec *t, uint32_t type) {
  if (t->rows == 1) return NM__F32;
  return t->cols % nm__dtype(type)->block ? NM__F16 : type;
}

static int write_tensors(struct nm__gguf_writer *w, const struct nm__specs *t, uint32_t type,
                         uint64_t seed, const nm_progress *p, nm_err *err) {
  float *x = nm__alloc(1 << 18, sizeof *x);
  uint8_t *row = nm__alloc(1 << 18, 4);
  int st = x && row ? NM_OK : nm__fail_memory(err, "a row", 1 << 20);
  for (int i = 0; i < t->n && !st; i++) {
    const struct nm__spec *s = &t->v[i];
    for (int64_t r = 0; r < s->rows && !st; r++) {
      int64_t b = make_row(s->name, type_of(s, type), s->cols, seed, (uint64_t)i, (uint64_t)r, x,
                           row);
      st = nm__gguf_data(w, row, (size_t)b, err);
    }
    if (!st) st = nm__progress(p, "drawing random weights", i + 1, t->n, err);
  }
  free(x);
  free(row);
  return st;
}

int nm_write_random(const char *name, const char *type_name, uint64_t seed, const char *path,
                    const nm_progress *p, nm_err *err) {
  struct nm__shape s = {0};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    if (!strcmp(shapes[i].name, name)) s = shapes[i];
  int type = nm__dtype_by_name(type_name);
  if (!s.name)
    return nm__fail(err, NM_EUSAGE,
                    "shape '%.40s' is not known (known: tiny, smollm2-135m, qwen2.5-0.5b, "
                    "llama3.2-1b, tiny-bert, minilm-l6, nomic-embed)",
                    name);
  if (type < 0 || !nm__dtype((uint32_t)type)->from_f32) {
    struct nm__buf known;
    nm__buf_init(&known, 1000);
    nm__dtype_written(&known);
    int bad = nm__fail(err, NM_EUSAGE, "type '%.20s' cannot be written (known: %s)", type_name,
                       known.s ? known.s : "");
    nm__buf_done(&known);
    return bad;
  }
  struct nm__gguf_writer *w = NULL;
  struct nm__specs t = {0};
  if (!strstr(s.arch, "bert")) s.eps = 1e-6f;
  int st = nm__shape_check(&s, err);
  if (!st) st = nm__shape_tensors(&s, &t, err);
  if (!st) st = nm__gguf_writer_new(&w, err);
  if (!st) st = nm__shape_keys(&s, put_key, w, err);
  if (!st) st = put_vocab(w, s.V, err);
  for (int i = 0; i < t.n && !st; i++)
    nm__gguf_announce(w, t.v[i].name, type_of(&t.v[i], (uint32_t)type), t.v[i].rows > 1 ? 2 : 1,
                      (int64_t[]){t.v[i].cols, t.v[i].rows});
  if (!st) st = nm__gguf_begin(w, path, err);
  if (!st) st = write_tensors(w, &t, (uint32_t)type, seed, p, err);
  if (!st) st = nm__gguf_finish(w, err);
  nm__gguf_writer_free(w);
  free(t.v);
  return st;
}
