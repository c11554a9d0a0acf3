/* shape.c - keys and tensors of a model of given sizes. What a family's block holds follows from
 * its row of the architecture table; what only other programs ask for is in the table here. */
#include "model/shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

/* The families that can be made, and whether the output matrix may be the embedding (as llama.cpp
 * expects it of the family). */
enum { TIED_MAYBE, TIED_NEVER, TIED_ALWAYS };
static const struct family { const char *arch; int tied; } families[] = {
    {"llama", TIED_MAYBE},   {"qwen2", TIED_MAYBE},  {"qwen3", TIED_MAYBE},
    {"gemma", TIED_ALWAYS},  {"gemma2", TIED_ALWAYS}, {"gemma3", TIED_MAYBE},
    {"olmo2", TIED_NEVER},   {"phi3", TIED_MAYBE},   {"gptneox", TIED_NEVER},
    {"gpt2", TIED_MAYBE},    {"bert", TIED_ALWAYS},  {"nomic-bert", TIED_ALWAYS},
};
enum { N_FAMILY = sizeof families / sizeof *families };

void nm__shape_archs(struct nm__buf *b) {
  for (int i = 0; i < N_FAMILY; i++) nm__buf_printf(b, "%s%s", i ? ", " : "", families[i].arch);
}

static const struct nm__arch *row_of(const struct nm__shape *s) {
  return nm__arch_find(s->arch, strlen(s->arch));
}

/* ---- sizes ------------------------------------------------------------------ */

static int unknown(const struct nm__shape *s, nm_err *err) {
  struct nm__buf b;
  nm__buf_init(&b, 300);
  nm__shape_archs(&b);
  int st = nm__fail(err, NM_EUSAGE, "a new model of family '%.40s' cannot be made (known: %s)",
                    s->arch ? s->arch : "", b.s ? b.s : "");
  nm__buf_done(&b);
  return st;
}

static void fill_in(struct nm__shape *s, const struct nm__arch *a) {
  if (!s->K) s->K = s->H;
  if (!s->head_dim) s->head_dim = s->H ? s->D / s->H : 0;
  if (!s->F) s->F = a->gated ? (8 * s->D / 3 + 31) / 32 * 32 : 4 * s->D;
  if (!s->rope_base) s->rope_base = 10000;
  if (!(s->eps > 0)) s->eps = a->encoder ? 1e-12f : 1e-5f;
  if (!(s->std > 0)) s->std = 0.02f;
  bool windows = a->global_every && a->global_every != NM__NEVER;
  if (windows && !s->window) s->window = s->ctx;
}

/* Every size is at most 2^24, so that products of two fit. */
static int sizes_fit(const struct nm__shape *s, nm_err *err) {
  const struct { const char *name; int v, most; } size[] = {
      {"layers", s->L, 1 << 12}, {"width", s->D, 1 << 20},        {"heads", s->H, 1 << 12},
      {"kv heads", s->K, s->H},  {"head width", s->head_dim, 1024}, {"mlp width", s->F, 1 << 22},
      {"vocabulary", s->V, 1 << 24}, {"context", s->ctx, 1 << 24}};
  for (size_t i = 0; i < sizeof size / sizeof *size; i++)
    if (size[i].v < 1 || size[i].v > size[i].most)
      return nm__fail(err, NM_EUSAGE, "a new model's %s must be 1 to %d, not %d", size[i].name,
                      size[i].most, size[i].v);
  if (s->H % s->K)
    return nm__fail(err, NM_EUSAGE, "%d heads cannot share %d kv heads evenly", s->H, s->K);
  if (s->head_dim % 2)
    return nm__fail(err, NM_EUSAGE, "the width of a head must be even, not %d (width %d, %d heads)",
                    s->head_dim, s->D, s->H);
  if ((int64_t)s->L * 16 > 1 << 16)
    return nm__fail(err, NM_EUSAGE, "%d layers are too many", s->L);
  return NM_OK;
}

int nm__shape_check(struct nm__shape *s, nm_err *err) {
  const struct family *f = NULL;
  for (int i = 0; i < N_FAMILY && s->arch; i++)
    if (!strcmp(families[i].arch, s->arch)) f = &families[i];
  if (!f) return unknown(s, err);
  const struct nm__arch *a = row_of(s);
  if (s->D > 0 && s->H > 0 && !s->head_dim && s->D % s->H)
    return nm__fail(err, NM_EUSAGE, "a width of %d is not shared evenly by %d heads", s->D, s->H);
  fill_in(s, a);
  int st = sizes_fit(s, err);
  if (st) return st;
  if (f->tied != TIED_MAYBE && s->untied != (f->tied == TIED_NEVER))
    return nm__fail(err, NM_EUSAGE, "models of family %s %s: set tied to %s", s->arch,
                    s->untied ? "use the embedding as output matrix"
                              : "have an output matrix of their own",
                    s->untied ? "true" : "false");
  if (s->window && !a->global_every)
    return nm__fail(err, NM_EUSAGE, "models of family %s have no window", s->arch);
  if (s->window < 0 || s->every < 0 || (s->every && !s->window))
    return nm__fail(err, NM_EUSAGE, "a window of %d in all but every block %d is no window",
                    s->window, s->every);
  if (a->encoder && s->K != s->H)
    return nm__fail(err, NM_EUSAGE, "encoders have as many kv heads as heads");
  return NM_OK;
}

/* ---- tensors ---------------------------------------------------------------- */

struct list { struct nm__specs *t; int block; };       /* block < 0: outside the blocks */

static void put(struct list *l, const char *stem, const char *end, enum nm__role role, int64_t rows,
                int64_t cols) {
  struct nm__spec *s = &l->t->v[l->t->n++];
  if (l->block < 0) snprintf(s->name, sizeof s->name, "%s.%s", stem, end);
  else snprintf(s->name, sizeof s->name, "blk.%d.%s.%s", l->block, stem, end);
  s->role = role;
  s->rows = rows;
  s->cols = cols;
}

static void matrix(struct list *l, const char *stem, int64_t rows, int64_t cols) {
  put(l, stem, "weight", NM__ROLE_MATRIX, rows, cols);
}

static void bias(struct list *l, const char *stem, int64_t n, bool there) {
  if (there) put(l, stem, "bias", NM__ROLE_BIAS, 1, n);
}

static void norm(struct list *l, const char *stem, int64_t n, bool with_bias) {
  put(l, stem, "weight", NM__ROLE_NORM, 1, n);
  bias(l, stem, n, with_bias);
}

/* Back to the stream. */
static void residual(struct list *l, const char *stem, int64_t rows, int64_t cols, bool with_bias) {
  put(l, stem, "weight", NM__ROLE_RESIDUAL, rows, cols);
  bias(l, stem, rows, with_bias);
}

/* Encoders keep each bias beside its matrix, decoders after the three; files are compared. */
static void qkv(struct list *l, const struct nm__shape *s, const struct nm__arch *a) {
  int64_t nq = (int64_t)s->H * s->head_dim, nk = (int64_t)s->K * s->head_dim;
  const struct { const char *stem; int64_t n; } part[] = {
      {"attn_q", nq}, {"attn_k", nk}, {"attn_v", nk}};
  if (a->fused_qkv) {
    matrix(l, "attn_qkv", nq + 2 * nk, s->D);
    bias(l, "attn_qkv", nq + 2 * nk, a->qkv_bias);
    return;
  }
  for (int i = 0; i < 3; i++) {
    matrix(l, part[i].stem, part[i].n, s->D);
    if (a->encoder) bias(l, part[i].stem, part[i].n, a->qkv_bias);
  }
  for (int i = 0; i < 3 && !a->encoder; i++) bias(l, part[i].stem, part[i].n, a->qkv_bias);
  bool whole = a->qk_norm == NM__QK_NORM_WHOLE;
  if (a->qk_norm) norm(l, "attn_q_norm", whole ? nq : s->head_dim, false);
  if (a->qk_norm) norm(l, "attn_k_norm", whole ? nk : s->head_dim, false);
}

static void block(struct list *l, const struct nm__shape *s, const struct nm__arch *a) {
  bool all = a->all_bias, pre = !a->no_pre_norm;
  if (pre) norm(l, "attn_norm", s->D, a->layernorm);
  qkv(l, s, a);
  residual(l, "attn_output", s->D, (int64_t)s->H * s->head_dim, all);
  if (a->post_norm) norm(l, "post_attention_norm", s->D, false);
  if (a->sum_norm) norm(l, "attn_output_norm", s->D, a->layernorm);
  if (pre) norm(l, "ffn_norm", s->D, a->layernorm);
  if (a->gated && !a->fused_gate) matrix(l, "ffn_gate", s->F, s->D);
  matrix(l, "ffn_up", a->fused_gate ? 2 * (int64_t)s->F : s->F, s->D);
  bias(l, "ffn_up", s->F, all);
  residual(l, "ffn_down", s->D, s->F, all);
  if (a->post_norm) norm(l, "post_ffw_norm", s->D, false);
  if (a->sum_norm) norm(l, "layer_output_norm", s->D, a->layernorm);
}

int nm__shape_tensors(const struct nm__shape *s, struct nm__specs *t, nm_err *err) {
  const struct nm__arch *a = row_of(s);
  size_t most = (size_t)s->L * 20 + 8;
  *t = (struct nm__specs){nm__alloc(most, sizeof *t->v), 0};
  if (!t->v) return nm__fail_memory(err, "the list of tensors", most * sizeof *t->v);
  struct list l = {t, -1};
  put(&l, "token_embd", "weight", NM__ROLE_TABLE, s->V, s->D);
  if (!a->encoder) norm(&l, "output_norm", s->D, a->layernorm);
  if (a->learned_pos) put(&l, "position_embd", "weight", NM__ROLE_TABLE, s->ctx, s->D);
  if (a->encoder) put(&l, "token_types", "weight", NM__ROLE_TABLE, 2, s->D);
  if (a->encoder) norm(&l, "token_embd_norm", s->D, true);
  if (s->untied) matrix(&l, "output", s->V, s->D);
  for (l.block = 0; l.block < s->L; l.block++) block(&l, s, a);
  return NM_OK;
}

/* ---- keys ------------------------------------------------------------------- */

struct keys { const struct nm__shape *s; nm__shape_put *put; void *arg; nm_err *err; int st; };

static void key(struct keys *k, enum nm__shape_kind kind, const char *name, const char *text,
                double v) {
  struct nm__shape_key x = {.kind = kind, .text = text, .v = v};
  bool whole = !strncmp(name, "general.", 8) || !strncmp(name, "tokenizer.", 10);
  snprintf(x.name, sizeof x.name, "%s%s%s", whole ? "" : k->s->arch, whole ? "" : ".", name);
  if (!k->st) k->st = k->put(k->arg, &x, k->err);
}

static void size_keys(struct keys *k) {
  const struct nm__shape *s = k->s;
  const struct { const char *name; int v; bool there; } size[] = {
      {"context_length", s->ctx, true},
      {"embedding_length", s->D, true},
      {"block_count", s->L, true},
      {"feed_forward_length", s->F, true},
      {"attention.head_count", s->H, true},
      {"attention.head_count_kv", s->K, true},
      {"attention.key_length", s->head_dim, s->head_dim * s->H != s->D},
      {"attention.value_length", s->head_dim, s->head_dim * s->H != s->D},
      {"attention.sliding_window", s->window, s->window > 0},
      {"attention.sliding_window_pattern", s->every, s->every > 0}};
  for (size_t i = 0; i < sizeof size / sizeof *size; i++)
    if (size[i].there) key(k, NM__KEY_U32, size[i].name, NULL, size[i].v);
}

int nm__shape_keys(const struct nm__shape *s, nm__shape_put *put_key, void *arg, nm_err *err) {
  struct keys k = {s, put_key, arg, err, NM_OK};
  const struct nm__arch *a = row_of(s);
  key(&k, NM__KEY_TEXT, "general.architecture", s->arch, 0);
  if (s->name) key(&k, NM__KEY_TEXT, "general.name", s->name, 0);
  size_keys(&k);
  key(&k, NM__KEY_F32, a->eps_key, NULL, (double)s->eps);
  if (!a->learned_pos) key(&k, NM__KEY_F32, "rope.freq_base", NULL, (double)s->rope_base);
  if (a->may_be_parallel) key(&k, NM__KEY_BOOL, "use_parallel_residual", NULL, 1);
  if (a->may_be_parallel || a->fused_gate)
    key(&k, NM__KEY_U32, "rope.dimension_count", NULL, s->head_dim);
  /* Gemma 2's published caps, which other programs take when the file does not say. */
  if (!strcmp(s->arch, "gemma2")) key(&k, NM__KEY_F32, "attn_logit_softcapping", NULL, 50);
  if (!strcmp(s->arch, "gemma2")) key(&k, NM__KEY_F32, "final_logit_softcapping", NULL, 30);
  if (!a->encoder) return k.st;
  key(&k, NM__KEY_BOOL, "attention.causal", NULL, 0);
  key(&k, NM__KEY_U32, "pooling_type", NULL, NM_POOL_MEAN - NM_POOL_NONE);
  key(&k, NM__KEY_U32, "tokenizer.ggml.token_type_count", NULL, 2);
  return k.st;
}
