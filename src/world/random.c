/* random.c - writes models of random weights, in a named shape or in the shape of
 * another file. Values depend on (seed, tensor, element) alone. */
#include "world/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model/hf.h"
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

struct shape { const char *name, *arch; int L, D, H, K, F, V, ctx; float base; };
static const struct shape shapes[] = {
    {"tiny", "llama", 2, 64, 4, 2, 160, 512, 512, 10000},
    {"smollm2-135m", "llama", 30, 576, 9, 3, 1536, 49152, 8192, 100000},
    {"qwen2.5-0.5b", "qwen2", 24, 896, 14, 2, 4864, 151936, 32768, 1000000},
    {"llama3.2-1b", "llama", 16, 2048, 32, 8, 8192, 128256, 8192, 500000},
    {"tiny-bert", "bert", 2, 64, 4, 4, 160, 512, 512, 0},
    {"minilm-l6", "bert", 6, 384, 12, 12, 1536, 30522, 512, 0},
    {"nomic-embed", "nomic-bert", 12, 768, 12, 12, 3072, 30528, 2048, 1000},
};

struct spec { char name[64]; uint32_t type; int64_t rows, cols; };

static bool is_encoder(const struct shape *s) { return strstr(s->arch, "bert") != NULL; }

/* The tensors in order; block < 0: outside the blocks. */
struct list { struct spec *v; int n, block; uint32_t type; };

static void mat(struct list *t, const char *name, int64_t rows, int64_t cols) {
  struct spec *s = &t->v[t->n++];
  if (t->block < 0) snprintf(s->name, sizeof s->name, "%s", name);
  else snprintf(s->name, sizeof s->name, "blk.%d.%s", t->block, name);
  s->type = rows == 1 ? NM__F32 : cols % nm__dtype(t->type)->block ? NM__F16 : t->type;
  s->rows = rows;
  s->cols = cols;
}

static void vec(struct list *t, const char *name, int64_t cols) { mat(t, name, 1, cols); }

static void encoder_block(struct list *t, const struct shape *s) {
  bool bert = !strcmp(s->arch, "bert");
  if (!bert) mat(t, "attn_qkv.weight", 3 * s->D, s->D);
  if (bert) mat(t, "attn_q.weight", s->D, s->D), vec(t, "attn_q.bias", s->D);
  if (bert) mat(t, "attn_k.weight", s->D, s->D), vec(t, "attn_k.bias", s->D);
  if (bert) mat(t, "attn_v.weight", s->D, s->D), vec(t, "attn_v.bias", s->D);
  mat(t, "attn_output.weight", s->D, s->D);
  if (bert) vec(t, "attn_output.bias", s->D);
  vec(t, "attn_output_norm.weight", s->D);
  vec(t, "attn_output_norm.bias", s->D);
  if (!bert) mat(t, "ffn_gate.weight", s->F, s->D);
  mat(t, "ffn_up.weight", s->F, s->D);
  if (bert) vec(t, "ffn_up.bias", s->F);
  mat(t, "ffn_down.weight", s->D, s->F);
  if (bert) vec(t, "ffn_down.bias", s->D);
  vec(t, "layer_output_norm.weight", s->D);
  vec(t, "layer_output_norm.bias", s->D);
}

static void decoder_block(struct list *t, const struct shape *s) {
  int hd = s->D / s->H;
  bool bias = !strcmp(s->arch, "qwen2");
  vec(t, "attn_norm.weight", s->D);
  mat(t, "attn_q.weight", s->H * hd, s->D);
  mat(t, "attn_k.weight", s->K * hd, s->D);
  mat(t, "attn_v.weight", s->K * hd, s->D);
  if (bias) vec(t, "attn_q.bias", s->H * hd);
  if (bias) vec(t, "attn_k.bias", s->K * hd);
  if (bias) vec(t, "attn_v.bias", s->K * hd);
  mat(t, "attn_output.weight", s->D, s->H * hd);
  vec(t, "ffn_norm.weight", s->D);
  mat(t, "ffn_gate.weight", s->F, s->D);
  mat(t, "ffn_up.weight", s->F, s->D);
  mat(t, "ffn_down.weight", s->D, s->F);
}

static int list_tensors(const struct shape *s, uint32_t type, struct spec *out) {
  struct list t = {out, 0, -1, type};
  mat(&t, "token_embd.weight", s->V, s->D);
  if (!is_encoder(s)) {
    vec(&t, "output_norm.weight", s->D);
  } else {
    if (!strcmp(s->arch, "bert")) mat(&t, "position_embd.weight", s->ctx, s->D);
    mat(&t, "token_types.weight", 2, s->D);
    vec(&t, "token_embd_norm.weight", s->D);
    vec(&t, "token_embd_norm.bias", s->D);
  }
  for (t.block = 0; t.block < s->L; t.block++)
    if (is_encoder(s)) encoder_block(&t, s);
    else decoder_block(&t, s);
  return t.n;
}

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

static void put_sizes(struct nm__gguf_writer *w, const struct shape *s) {
  char k[96];
  const struct { const char *name; int v;
  } keys[] = {{"context_length", s->ctx},     {"embedding_length", s->D},
              {"block_count", s->L},          {"feed_forward_length", s->F},
              {"attention.head_count", s->H}, {"attention.head_count_kv", s->K}};
  nm__gguf_put_string(w, "general.architecture", s->arch);
  nm__gguf_put_string(w, "general.name", s->name);
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    snprintf(k, sizeof k, "%s.%s", s->arch, keys[i].name);
    nm__gguf_put_u32(w, k, (uint32_t)keys[i].v);
  }
  snprintf(k, sizeof k, "%s.attention.layer_norm_%sepsilon", s->arch, is_encoder(s) ? "" : "rms_");
  nm__gguf_put_f32(w, k, is_encoder(s) ? 1e-12f : 1e-6f);
  snprintf(k, sizeof k, "%s.rope.freq_base", s->arch);
  if (s->base > 0) nm__gguf_put_f32(w, k, s->base);
  if (!is_encoder(s)) return;
  snprintf(k, sizeof k, "%s.attention.causal", s->arch);
  nm__gguf_put_bool(w, k, false);
  snprintf(k, sizeof k, "%s.pooling_type", s->arch);
  nm__gguf_put_u32(w, k, NM_POOL_MEAN - NM_POOL_NONE);
  nm__gguf_put_u32(w, "tokenizer.ggml.token_type_count", 2);
}

static int write_tensors(struct nm__gguf_writer *w, const struct spec *t, int n, uint64_t seed,
                         const nm_progress *p, nm_err *err) {
  float *x = nm__alloc(1 << 18, sizeof *x);
  uint8_t *row = nm__alloc(1 << 18, 4);
  int st = x && row ? NM_OK : nm__fail_memory(err, "a row", 1 << 20);
  for (int i = 0; i < n && !st; i++) {
    for (int64_t r = 0; r < t[i].rows && !st; r++) {
      int64_t b = make_row(t[i].name, t[i].type, t[i].cols, seed, (uint64_t)i, (uint64_t)r, x, row);
      st = nm__gguf_data(w, row, (size_t)b, err);
    }
    if (!st) st = nm__progress(p, "drawing random weights", i + 1, n, err);
  }
  free(x);
  free(row);
  return st;
}

int nm_write_random(const char *name, const char *type_name, uint64_t seed, const char *path,
                    const nm_progress *p, nm_err *err) {
  const struct shape *s = NULL;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    if (!strcmp(shapes[i].name, name)) s = &shapes[i];
  int type = nm__dtype_by_name(type_name);
  if (!s)
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
  struct spec *t = nm__alloc((size_t)s->L * 16 + 5, sizeof *t);
  int st = t ? nm__gguf_writer_new(&w, err) : nm__fail_memory(err, "the tensor list", 0);
  int n = st ? 0 : list_tensors(s, (uint32_t)type, t);
  if (!st) put_sizes(w, s);
  if (!st) st = put_vocab(w, s->V, err);
  for (int i = 0; i < n; i++)
    nm__gguf_announce(w, t[i].name, t[i].type, t[i].rows > 1 ? 2 : 1,
                      (int64_t[]){t[i].cols, t[i].rows});
  if (!st) st = nm__gguf_begin(w, path, err);
  if (!st) st = write_tensors(w, t, n, seed, p, err);
  if (!st) st = nm__gguf_finish(w, err);
  nm__gguf_writer_free(w);
  free(t);
  return st;
}
