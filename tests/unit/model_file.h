/* model_file.h - random model files of many families in small odd sizes, for the tests. Include
 * after setjmp.h and cmocka.h. */
#ifndef MODEL_FILE_H
#define MODEL_FILE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "file/gguf.h"

enum { MOST = 96, V = 61, L = 3 };

/* A family in a shape. Rows of 0 are what the family does not have. */
struct shape {
  const char *title, *arch;
  int D, H, K, hd, F, n_rot, window;
  bool layernorm, erf, plain_mlp, bias, qkv_bias, neighbours, qk_norm, fused, parallel, one_norm,
      two_norms, tied;
  int E, used, expert_F, shared_F;
  bool renormalise, apart, silent; /* apart: a tensor an expert; silent: no keys of the widths */
  uint32_t type;                   /* of the experts' matrices */
  const char *extra; int extra_v;  /* one key more; -1, -2: a bool, true, false */
};

struct tensor { char name[96]; int n, rows, cols; uint32_t type; float *v; };
struct file { struct tensor t[MOST]; int n; };

/* ---- a random file ------------------------------------------------------------ */

static inline struct tensor *new_tensor(struct file *f, int n, int rows, int cols, double mean,
                                        double sd) {
  struct tensor *t = &f->t[f->n];
  assert_true(f->n < MOST);
  int all = n * rows * cols;
  *t = (struct tensor){"", n, rows, cols, NM__F32, malloc(sizeof(float) * (size_t)all)};
  for (int i = 0; i < all; i++) {
    double u = (double)(nm__rand_at(77, (uint64_t)f->n, (uint64_t)i) >> 11) / 9007199254740992.0;
    t->v[i] = (float)(mean + sd * (2 * u - 1) * 1.7320508075688772);
  }
  f->n++;
  return t;
}

#define NAME(t_, ...) snprintf((t_)->name, sizeof (t_)->name, __VA_ARGS__)

static inline void matrix(struct file *f, int il, const char *stem, int rows, int cols, double gain,
                   bool bias) {
  NAME(new_tensor(f, 1, rows, cols, 0, gain / sqrt(cols)), "blk.%d.%s.weight", il, stem);
  if (bias) NAME(new_tensor(f, 1, 1, rows, 0, 0.3), "blk.%d.%s.bias", il, stem);
}

static inline void norm_of(struct file *f, int il, const char *stem, int n, bool bias) {
  NAME(new_tensor(f, 1, 1, n, 1, 0.2), "blk.%d.%s.weight", il, stem);
  if (bias) NAME(new_tensor(f, 1, 1, n, 0, 0.3), "blk.%d.%s.bias", il, stem);
}

/* Rounded to what the stored type can hold, so that both forwards have the same numbers. */
static inline void store_as(struct tensor *t, uint32_t type) {
  const struct nm__dtype_info *d = nm__dtype(type);
  uint8_t *row = malloc((size_t)(t->cols / d->block * d->bytes) + 1);
  assert_int_equal(t->cols % d->block, 0);
  t->type = type;
  for (int r = 0; r < t->n * t->rows; r++) {
    d->from_f32(row, t->v + r * t->cols, t->cols);
    d->to_f32(t->v + r * t->cols, row, t->cols);
  }
  free(row);
}

static inline void experts_of(struct file *f, const struct shape *s, int il) {
  static const char *const stem[3] = {"ffn_gate", "ffn_up", "ffn_down"};
  char name[64];
  matrix(f, il, "ffn_gate_inp", s->E, s->D, 2, false);
  for (int i = 0; i < 3; i++) {
    int rows = i == 2 ? s->D : s->expert_F, cols = i == 2 ? s->expert_F : s->D;
    for (int e = 0; e < (s->apart ? s->E : 1); e++) {
      struct tensor *t = new_tensor(f, s->apart ? 1 : s->E, rows, cols, 0, 1.5 / sqrt(cols));
      if (s->apart) NAME(t, "blk.%d.%s.%d.weight", il, stem[i], e);
      else NAME(t, "blk.%d.%s_exps.weight", il, stem[i]);
      store_as(t, s->type);
    }
    snprintf(name, sizeof name, "%s_shexp", stem[i]);
    if (s->shared_F)
      matrix(f, il, name, i == 2 ? s->D : s->shared_F, i == 2 ? s->shared_F : s->D, 1.5, false);
  }
  if (s->shared_F) matrix(f, il, "ffn_gate_inp_shexp", 1, s->D, 2, false);
}

static inline void block_of(struct file *f, const struct shape *s, int il) {
  int nq = s->H * s->hd, nk = s->K * s->hd;
  norm_of(f, il, "attn_norm", s->D, s->layernorm);
  if (s->two_norms) norm_of(f, il, "attn_norm_2", s->D, s->layernorm);
  if (!s->one_norm && !s->two_norms) norm_of(f, il, "ffn_norm", s->D, s->layernorm);
  if (s->fused) {
    matrix(f, il, "attn_qkv", nq + 2 * nk, s->D, 1.4, s->qkv_bias);
  } else {
    matrix(f, il, "attn_q", nq, s->D, 1.6, s->qkv_bias);
    matrix(f, il, "attn_k", nk, s->D, 1.6, s->qkv_bias);
    matrix(f, il, "attn_v", nk, s->D, 1, s->qkv_bias);
  }
  if (s->qk_norm) norm_of(f, il, "attn_q_norm", s->hd, false);
  if (s->qk_norm) norm_of(f, il, "attn_k_norm", s->hd, false);
  matrix(f, il, "attn_output", s->D, nq, 1.2, s->bias);
  if (s->E) {
    experts_of(f, s, il);
    return;
  }
  if (!s->plain_mlp) matrix(f, il, "ffn_gate", s->F, s->D, 1.5, s->bias);
  matrix(f, il, "ffn_up", s->F, s->D, 1.5, s->bias);
  matrix(f, il, "ffn_down", s->D, s->F, 1.5, s->bias);
}

static inline struct file file_of(const struct shape *s) {
  struct file f = {0};
  NAME(new_tensor(&f, 1, V, s->D, 0, s->tied ? 0.4 : 1), "token_embd.weight");
  NAME(new_tensor(&f, 1, 1, s->D, 1, 0.2), "output_norm.weight");
  if (s->layernorm) NAME(new_tensor(&f, 1, 1, s->D, 0, 0.3), "output_norm.bias");
  if (!s->tied) NAME(new_tensor(&f, 1, V, s->D, 0, 2 / sqrt(s->D)), "output.weight");
  for (int i = 0; i < L; i++) block_of(&f, s, i);
  return f;
}

static inline void file_done(struct file *f) {
  for (int i = 0; i < f->n; i++) free(f->t[i].v);
}

static inline void put(struct nm__gguf_writer *w, const struct shape *s, const char *key, int v) {
  char k[96];
  snprintf(k, sizeof k, "%s.%s", s->arch, key);
  if (v) nm__gguf_put_u32(w, k, (uint32_t)v);
}

static inline void write_tensor(struct nm__gguf_writer *w, const struct tensor *t) {
  const struct nm__dtype_info *d = nm__dtype(t->type);
  size_t bytes = (size_t)(t->cols / d->block * d->bytes);
  uint8_t *row = malloc(bytes);
  for (int r = 0; r < t->n * t->rows; r++) {
    if (t->type == NM__F32) memcpy(row, t->v + r * t->cols, bytes);
    else d->from_f32(row, t->v + r * t->cols, t->cols);
    assert_int_equal(nm__gguf_data(w, row, bytes, NULL), 0);
  }
  free(row);
}

/* Writes what file_of made. */
static inline void write_file(const struct shape *s, const struct file *f, const char *path) {
  struct nm__gguf_writer *w;
  char k[96];
  assert_int_equal(nm__gguf_writer_new(&w, NULL), 0);
  nm__gguf_put_string(w, "general.architecture", s->arch);
  put(w, s, "context_length", 64);
  put(w, s, "embedding_length", s->D);
  put(w, s, "block_count", L);
  put(w, s, "feed_forward_length", s->F);
  put(w, s, "attention.head_count", s->H);
  put(w, s, "attention.head_count_kv", s->K);
  if (s->hd != s->D / s->H) put(w, s, "attention.key_length", s->hd);
  if (s->hd != s->D / s->H) put(w, s, "attention.value_length", s->hd);
  put(w, s, "rope.dimension_count", s->n_rot);
  put(w, s, "attention.sliding_window", s->window);
  snprintf(k, sizeof k, "%s.%s", s->arch, s->extra ? s->extra : "");
  if (s->extra && s->extra_v < 0) nm__gguf_put_bool(w, k, s->extra_v == -1);
  if (s->extra && s->extra_v >= 0) nm__gguf_put_u32(w, k, (uint32_t)s->extra_v);
  put(w, s, "expert_count", s->E);
  put(w, s, "expert_used_count", s->used);
  if (!s->silent) put(w, s, "expert_feed_forward_length", s->expert_F);
  if (!s->silent) put(w, s, "expert_shared_feed_forward_length", s->shared_F);
  snprintf(k, sizeof k, "%s.attention.layer_norm_%sepsilon", s->arch, s->layernorm ? "" : "rms_");
  nm__gguf_put_f32(w, k, 1e-5f);
  snprintf(k, sizeof k, "%s.rope.freq_base", s->arch);
  nm__gguf_put_f32(w, k, 10000);
  for (int i = 0; i < f->n; i++) {
    const struct tensor *t = &f->t[i];
    nm__gguf_announce(w, t->name, t->type, t->n > 1 ? 3 : t->rows > 1 ? 2 : 1,
                      (const int64_t[]){t->cols, t->rows, t->n});
  }
  assert_int_equal(nm__gguf_begin(w, path, NULL), 0);
  for (int i = 0; i < f->n; i++) write_tensor(w, &f->t[i]);
  assert_int_equal(nm__gguf_finish(w, NULL), 0);
  nm__gguf_writer_free(w);
}

/* Families that have no recorded vectors, or sizes these do not show. */
static const struct shape shapes[] = {
    {.title = "mistral", .arch = "llama", .D = 60, .H = 4, .K = 2, .hd = 22, .F = 51,
     .window = 7, .neighbours = true},
    {.title = "mixtral", .arch = "llama", .D = 54, .H = 6, .K = 2, .hd = 14, .F = 37,
     .neighbours = true, .E = 5, .used = 2, .expert_F = 37, .renormalise = true, .silent = true},
    {.title = "mixtral, experts apart", .arch = "llama", .D = 54, .H = 3, .K = 1, .hd = 18,
     .F = 37, .window = 9, .neighbours = true, .tied = true, .E = 4, .used = 3, .expert_F = 37,
     .renormalise = true, .silent = true, .apart = true},
    {.title = "mixtral in Q8_0", .arch = "llama", .D = 64, .H = 4, .K = 2, .hd = 16, .F = 96,
     .neighbours = true, .E = 6, .used = 2, .expert_F = 96, .renormalise = true,
     .type = NM__Q8_0},
    {.title = "mixtral in F16, apart", .arch = "llama", .D = 64, .H = 4, .K = 2, .hd = 16,
     .F = 33, .neighbours = true, .E = 3, .used = 1, .expert_F = 33, .renormalise = true,
     .apart = true, .type = NM__F16},
    {.title = "qwen2moe", .arch = "qwen2moe", .D = 60, .H = 6, .K = 3, .hd = 10, .F = 111,
     .qkv_bias = true, .E = 7, .used = 3, .expert_F = 21, .shared_F = 35},
    {.title = "qwen2moe, no widths", .arch = "qwen2moe", .D = 44, .H = 2, .K = 2, .hd = 22,
     .F = 58, .qkv_bias = true, .tied = true, .E = 3, .used = 2, .expert_F = 29, .shared_F = 58,
     .silent = true},
    {.title = "qwen2moe, sum 1", .arch = "qwen2moe", .D = 44, .H = 2, .K = 1, .hd = 22, .F = 58,
     .qkv_bias = true, .E = 4, .used = 2, .expert_F = 19, .shared_F = 30, .renormalise = true,
     .extra = "expert_weights_norm", .extra_v = -1},
    {.title = "qwen3moe", .arch = "qwen3moe", .D = 60, .H = 4, .K = 2, .hd = 24, .F = 200,
     .qk_norm = true, .E = 9, .used = 4, .expert_F = 27, .renormalise = true},
    {.title = "falcon", .arch = "falcon", .D = 60, .H = 5, .K = 1, .hd = 12, .F = 240,
     .layernorm = true, .erf = true, .plain_mlp = true, .fused = true, .parallel = true,
     .one_norm = true, .tied = true},
    {.title = "falcon, two norms", .arch = "falcon", .D = 60, .H = 6, .K = 2, .hd = 10, .F = 77,
     .layernorm = true, .erf = true, .plain_mlp = true, .fused = true, .parallel = true,
     .two_norms = true},
    {.title = "starcoder2", .arch = "starcoder2", .D = 48, .H = 4, .K = 2, .hd = 12, .F = 101,
     .window = 6, .layernorm = true, .plain_mlp = true, .bias = true, .qkv_bias = true,
     .tied = true},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

#endif
