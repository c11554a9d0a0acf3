/* load.c - from a GGUF to a model: sizes from the metadata, checked; tensors
 * bound where they lie in the map, their shapes checked against the sizes. */
#include "model/adapter.h"
#include "model/hf.h"
#include "model/load.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/hf_keys.h"

/* ---- metadata -------------------------------------------------------- */

static int size_key(const nm_model *m, const char *name, long long absent, int *out, nm_err *err) {
  char k[96];
  uint64_t v;
  snprintf(k, sizeof k, "%s.%s", m->arch->name, name);
  const struct nm__gguf_kv *kv = nm__gguf_find(m->g, k);
  if (!kv && absent > 0) {
    *out = (int)absent;
    return NM_OK;
  }
  int64_t first;
  if (kv && kv->type == NM__GGUF_ARRAY) {      /* one entry per block: must all be equal here */
    if (!nm__gguf_int_at(kv, 0, &first) || first <= 0)
      return nm__fail(err, NM_EFORMAT, "%s: key %s: must hold positive integers", m->path, k);
    for (uint64_t i = 1; i < kv->n; i++) {
      int64_t x;
      if (!nm__gguf_int_at(kv, i, &x) || x != first)
        return nm__fail(err, NM_EFORMAT, "%s: key %s: differs from block to block, which is not "
                        "supported for %s", m->path, k, m->arch->name);
    }
    v = (uint64_t)first;
  } else {
    int st = nm__gguf_uint(m->g, k, &v, err);
    if (st) return st;
  }
  if (v == 0 || v > 1 << 24)
    return nm__fail(err, NM_EFORMAT, "%s: key %s: %llu is not a usable size", m->path, k,
                    (unsigned long long)v);
  *out = (int)v;
  return NM_OK;
}

static int sizes(nm_model *m, nm_err *err) {
  int st, vd;
  if ((st = size_key(m, "block_count", 0, &m->L, err))) return st;
  if ((st = size_key(m, "embedding_length", 0, &m->D, err))) return st;
  if ((st = size_key(m, "feed_forward_length", 0, &m->F, err))) return st;
  if ((st = size_key(m, "attention.head_count", 0, &m->H, err))) return st;
  if ((st = size_key(m, "attention.head_count_kv", m->H, &m->K, err))) return st;
  if ((st = size_key(m, "context_length", 0, &m->n_ctx, err))) return st;
  if ((st = size_key(m, "attention.key_length", m->D / m->H ? m->D / m->H : 1, &m->hd, err)))
    return st;
  if ((st = size_key(m, "attention.value_length", m->hd, &vd, err))) return st;
  if (m->H % m->K || vd != m->hd || m->hd % 2 || m->hd > 1024)
    return nm__fail(err, NM_EFORMAT,
                    "%s: %d heads, %d kv heads, key length %d, value length %d do not "
                    "fit together",
                    m->path, m->H, m->K, m->hd, vd);
  if (m->L > 1 << 12 || (size_t)m->L > m->g->n_tensors)
    return nm__fail(err, NM_EFORMAT, "%s: %d blocks are announced but the file has %zu tensors",
                    m->path, m->L, m->g->n_tensors);
  char k[96];
  double eps;
  snprintf(k, sizeof k, "%s.%s", m->arch->name, m->arch->eps_key);
  if ((st = nm__gguf_float(m->g, k, &eps, err))) return st;
  if (!(eps >= 0 && eps < 1))
    return nm__fail(err, NM_EFORMAT, "%s: key %s: %g is not usable", m->path, k, eps);
  m->eps = (float)eps;
  return NM_OK;
}

static const struct nm__gguf_kv *find_key(const nm_model *m, const char *name) {
  char k[96];
  snprintf(k, sizeof k, "%s.%s", m->arch->name, name);
  return nm__gguf_find(m->g, k);
}

/* A key that changes the result and that this family's row does not carry out. */
static int refuse_unknown(nm_model *m, nm_err *err) {
  const struct { const char *key; bool carried; } keys[] = {
      {"expert_count", m->arch->experts != NM__EXPERTS_NONE},
      {"attention.sliding_window", m->arch->global_every != 0},
      {"attn_logit_softcapping", m->arch->soft_caps},
      {"final_logit_softcapping", m->arch->soft_caps},
      {"logit_scale", false},
      {"embedding_scale", false},
      {"residual_scale", false},
  };
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    double v = 0;
    const struct nm__gguf_kv *kv = find_key(m, keys[i].key);
    if (!keys[i].carried && kv && nm__gguf_float_at(kv, 0, &v) && v != 0)
      return nm__fail(err, NM_EFORMAT, "%s: key %s = %g is not supported yet; running without it "
                      "would give wrong results", m->path, kv->key, v);
  }
  return NM_OK;
}

static int soft_cap(nm_model *m, const char *name, float *out, nm_err *err) {
  double v = 0;
  const struct nm__gguf_kv *kv = find_key(m, name);
  if (!kv) return NM_OK;
  if (!nm__gguf_float_at(kv, 0, &v) || !(v >= 0 && v < 1e9) || (v > 0 && v < 1e-6))
    return nm__fail(err, NM_EFORMAT, "%s: key %s: %g is not a usable cap", m->path, kv->key, v);
  *out = (float)v;
  return NM_OK;
}

/* Entry i of an array of bools or integers. */
static bool flag_at(const struct nm__gguf_kv *kv, int i, bool *out) {
  int64_t v = 0;
  if (kv->elem_type == NM__GGUF_BOOL && (uint64_t)i < kv->n) v = kv->raw[i];
  else if (!nm__gguf_int_at(kv, (uint64_t)i, &v)) return false;
  *out = v != 0;
  return true;
}

/* Which blocks have the window: the row says it, or the file by a number or block by block. */
static int mark_windowed(nm_model *m, bool *windowed, nm_err *err) {
  const struct nm__gguf_kv *kv = find_key(m, "attention.sliding_window_pattern");
  int64_t every = m->arch->global_every;
  bool by_block = kv && kv->type == NM__GGUF_ARRAY;
  if (kv && !by_block && (!nm__gguf_int_at(kv, 0, &every) || every < 0))
    return nm__fail(err, NM_EFORMAT, "%s: key %s must be a number of blocks", m->path, kv->key);
  if (every == 0) every = NM__NEVER;
  for (int i = 0; i < m->L; i++) {
    windowed[i] = i % every != every - 1;
    if (by_block && !flag_at(kv, i, &windowed[i]))
      return nm__fail(err, NM_EFORMAT, "%s: key %s must say for each of %d blocks whether it has a "
                      "window", m->path, kv->key, m->L);
  }
  return NM_OK;
}

static int windows(nm_model *m, nm_err *err) {
  const struct nm__gguf_kv *kv = find_key(m, "attention.sliding_window");
  int64_t w = 0;
  if (kv && (kv->type == NM__GGUF_ARRAY || !nm__gguf_int_at(kv, 0, &w) || w < 0))
    return nm__fail(err, NM_EFORMAT, "%s: key %s must be a number of positions", m->path, kv->key);
  if (w == 0 || !m->arch->global_every) return NM_OK;
  if (w > 1 << 24) w = 1 << 24;    /* longer than any context */
  bool *windowed = nm__alloc((size_t)m->L, sizeof *windowed);
  if (!windowed) return nm__fail_memory(err, "the windows of the blocks", (size_t)m->L);
  int st = mark_windowed(m, windowed, err);
  for (int i = 0; i < m->L && !st; i++) {
    m->layer[i].window = windowed[i] ? (int)w : 0;
    m->layer[i].rope = windowed[i] && m->arch->local_rope;
  }
  free(windowed);
  return st;
}

/* A factor of the scores that the sizes do not tell; 0 stands for none, as elsewhere. */
static int score_scale(nm_model *m, nm_err *err) {
  double v = 0;
  const struct nm__gguf_kv *kv = find_key(m, "attention.scale");
  if (!kv) return NM_OK;
  if (!nm__gguf_float_at(kv, 0, &v) || !(v >= 0 && v < 1e6))
    return nm__fail(err, NM_EFORMAT, "%s: key %s: %g is not a usable scale", m->path, kv->key, v);
  if (v > 0) m->score_scale = (float)v;
  return NM_OK;
}

/* Whether positions see those after them, and how sentence vectors are made of them. */
static int directions(nm_model *m, nm_err *err) {
  const struct nm__gguf_kv *causal = find_key(m, "attention.causal"),
                           *pooling = find_key(m, "pooling_type");
  int64_t v = 0;
  int st;
  m->causal = !m->arch->encoder;
  if (causal && (st = nm__gguf_bool(m->g, causal->key, &m->causal, err))) return st;
  if (pooling && (pooling->type == NM__GGUF_ARRAY || !nm__gguf_int_at(pooling, 0, &v) || v < 0 ||
                  v > NM_POOL_RANK - NM_POOL_NONE))
    return nm__fail(err, NM_EFORMAT, "%s: key %s must be 0 (none), 1 (mean), 2 (cls), 3 (last) or "
                    "4 (rank), not %lld", m->path, pooling->key, (long long)v);
  m->pooling = pooling ? (enum nm_pooling)(NM_POOL_NONE + (int)v) : NM_POOL_DEFAULT;
  for (int i = 0; i < m->L && !m->causal; i++)
    if (m->layer[i].window)
      return nm__fail(err, NM_EFORMAT, "%s: a sliding window in attention that is not causal is "
                      "not supported yet", m->path);
  return NM_OK;
}

/* What the row leaves to the file, once the sizes are known. */
static int facts(nm_model *m, nm_err *err) {
  const struct nm__arch *a = m->arch;
  int st;
  const struct nm__gguf_kv *kv = find_key(m, "use_parallel_residual");
  m->parallel = a->may_be_parallel;
  if (kv && m->parallel && (st = nm__gguf_bool(m->g, kv->key, &m->parallel, err))) return st;
  if (a->one_norm && !m->parallel)
    return nm__fail(err, NM_EFORMAT, "%s: key %s is false, which %s has no form for", m->path,
                    kv->key, a->name);
  bool wide = a->wide_scale_at && m->L == a->wide_scale_at;
  m->score_scale = 1.0f / __builtin_sqrtf(wide ? (float)m->D / (float)m->H : (float)m->hd);
  m->permuted = a->permuted && !m->g->hf_rows;
  if ((st = score_scale(m, err))) return st;
  if (a->soft_caps && ((st = soft_cap(m, "attn_logit_softcapping", &m->attn_cap, err)) ||
                       (st = soft_cap(m, "final_logit_softcapping", &m->final_cap, err))))
    return st;
  st = windows(m, err);
  return st ? st : directions(m, err);
}

/* ---- tensors --------------------------------------------------------- */

static int fail_type(const nm_model *m, const char *name, const struct nm__dtype_info *d,
                     nm_err *err) {
  struct nm__buf known;
  nm__buf_init(&known, 400);
  nm__dtype_names(&known);
  int st = nm__fail(err, NM_EFORMAT,
                    "%s: tensor %s is stored as %s, which cannot be computed on (known: %s)",
                    m->path, name, d->name, known.s ? known.s : "");
  nm__buf_done(&known);
  return st;
}

int nm__bind(nm_model *m, const char *name, int64_t n, int64_t rows, int64_t cols, bool must,
             struct nm__w *out, nm_err *err) {
  *out = (struct nm__w){0};
  const struct nm__gguf_tensor *t = nm__gguf_tensor(m->g, name);
  if (!t && !must) return NM_OK;
  if (!t) return nm__fail(err, NM_EFORMAT, "%s: tensor %s is missing", m->path, name);
  if (rows < 0) rows = t->ne[1];
  if (t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != n || t->ne[3] != 1)
    return nm__fail(err, NM_EFORMAT,
                    "%s: tensor %s is [%lld, %lld, %lld, %lld], the metadata asks for "
                    "[%lld, %lld, %lld]",
                    m->path, name, (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2],
                    (long long)t->ne[3], (long long)cols, (long long)rows, (long long)n);
  const struct nm__dtype_info *d = nm__dtype(t->type);
  if (!d->to_f32) return fail_type(m, name, d, err);
  if (rows == 1 && d->block != 1)
    return nm__fail(err, NM_EFORMAT,
                    "%s: tensor %s is stored as %s, which cannot be computed on for a vector",
                    m->path, name, d->name);
  size_t row = (size_t)(cols / d->block) * (size_t)d->bytes;
  *out = (struct nm__w){t->data, t->type, n * rows, cols, row};
  return NM_OK;
}

static int bind(nm_model *m, const char *name, int64_t rows, int64_t cols, bool must,
                struct nm__w *out, nm_err *err) {
  return nm__bind(m, name, 1, rows, cols, must, out, err);
}

/* blk.N.STEM.weight and, where the file has one, .bias */
static int bind_pair(nm_model *m, int il, const char *stem, int64_t rows, int64_t cols, bool must_b,
                     struct nm__w *w, struct nm__w *b, nm_err *err) {
  char name[96];
  snprintf(name, sizeof name, "blk.%d.%s.weight", il, stem);
  int st = bind(m, name, rows, cols, true, w, err);
  if (st) return st;
  snprintf(name, sizeof name, "blk.%d.%s.bias", il, stem);
  return bind(m, name, 1, rows > 1 ? rows : cols, must_b, b, err);
}

/* Rows first..first+n of a fused matrix, and their part of its bias. */
static void part(struct nm__w w, struct nm__w b, int64_t first, int64_t n, struct nm__w *w_out,
                 struct nm__w *b_out) {
  *w_out = nm__w_rows(w, first, n);
  *b_out = b;
  if (!b.data) return;
  b_out->data += (size_t)nm__dtype(b.type)->bytes * (size_t)first;
  b_out->cols = n;
}

static int bind_qkv(nm_model *m, int il, struct nm__layer *l, nm_err *err) {
  int64_t nq = (int64_t)m->H * m->hd, nk = (int64_t)m->K * m->hd;
  const struct nm__arch *a = m->arch;
  int st;
  if (a->fused_qkv) {
    struct nm__w w, b;
    if ((st = bind_pair(m, il, "attn_qkv", nq + 2 * nk, m->D, a->qkv_bias, &w, &b, err))) return st;
    part(w, b, 0, nq, &l->q, &l->q_b);
    part(w, b, nq, nk, &l->k, &l->k_b);
    part(w, b, nq + nk, nk, &l->v, &l->v_b);
    return NM_OK;
  }
  if ((st = bind_pair(m, il, "attn_q", nq, m->D, a->qkv_bias, &l->q, &l->q_b, err))) return st;
  if ((st = bind_pair(m, il, "attn_k", nk, m->D, a->qkv_bias, &l->k, &l->k_b, err))) return st;
  return bind_pair(m, il, "attn_v", nk, m->D, a->qkv_bias, &l->v, &l->v_b, err);
}

/* A norm's weight, without bias. */
static int bind_norm(nm_model *m, int il, const char *stem, int64_t cols, struct nm__w *w,
                     nm_err *err) {
  char name[96];
  snprintf(name, sizeof name, "blk.%d.%s.weight", il, stem);
  return bind(m, name, 1, cols, true, w, err);
}

/* The norms that only some families have. */
static int bind_extra_norms(nm_model *m, int il, struct nm__layer *l, nm_err *err) {
  const struct nm__arch *a = m->arch;
  bool whole = a->qk_norm == NM__QK_NORM_WHOLE;
  int64_t nq = whole ? (int64_t)m->H * m->hd : m->hd, nk = whole ? (int64_t)m->K * m->hd : m->hd;
  int st = NM_OK;
  if (a->qk_norm) st = bind_norm(m, il, "attn_q_norm", nq, &l->q_norm, err);
  if (a->qk_norm && !st) st = bind_norm(m, il, "attn_k_norm", nk, &l->k_norm, err);
  if (a->post_norm && !st) st = bind_norm(m, il, "post_attention_norm", m->D, &l->attn_post, err);
  if (a->post_norm && !st) st = bind_norm(m, il, "post_ffw_norm", m->D, &l->mlp_post, err);
  if (!a->sum_norm || st) return st;
  st = bind_pair(m, il, "attn_output_norm", 1, m->D, a->layernorm, &l->attn_sum, &l->attn_sum_b,
                 err);
  if (st) return st;
  return bind_pair(m, il, "layer_output_norm", 1, m->D, a->layernorm, &l->mlp_sum, &l->mlp_sum_b,
                   err);
}

static int bind_gate_up(nm_model *m, int il, struct nm__layer *l, nm_err *err) {
  bool all = m->arch->all_bias;
  int st;
  if (m->arch->fused_gate) {
    struct nm__w w, b;
    if ((st = bind_pair(m, il, "ffn_up", 2 * (int64_t)m->F, m->D, all, &w, &b, err))) return st;
    part(w, b, 0, m->F, &l->gate, &l->gate_b);
    part(w, b, m->F, m->F, &l->up, &l->up_b);
    return NM_OK;
  }
  if (m->arch->gated &&
      (st = bind_pair(m, il, "ffn_gate", m->F, m->D, all, &l->gate, &l->gate_b, err))) return st;
  return bind_pair(m, il, "ffn_up", m->F, m->D, all, &l->up, &l->up_b, err);
}

/* What attention and the MLP read through. Where one norm may feed both, a second one says that
 * the first is the MLP's; all blocks must agree. */
static int bind_pre_norms(nm_model *m, int il, struct nm__layer *l, nm_err *err) {
  bool ln = m->arch->layernorm;
  const char *attn = "attn_norm", *mlp = "ffn_norm";
  char name[96];
  snprintf(name, sizeof name, "blk.%d.attn_norm_2.weight", il);
  bool second = m->arch->one_norm && nm__gguf_tensor(m->g, name);
  if (second) attn = "attn_norm_2", mlp = "attn_norm";
  if (m->arch->one_norm && il == 0) m->one_norm = !second;
  if (m->arch->one_norm && m->one_norm == second)
    return nm__fail(err, NM_EFORMAT, "%s: tensor %s is %s, unlike in block 0", m->path, name,
                    second ? "there" : "missing");
  int st = bind_pair(m, il, attn, 1, m->D, ln, &l->attn_norm, &l->attn_norm_b, err);
  if (st || m->one_norm) return st;
  return bind_pair(m, il, mlp, 1, m->D, ln, &l->mlp_norm, &l->mlp_norm_b, err);
}

static int bind_layer(nm_model *m, int il, nm_err *err) {
  struct nm__layer *l = &m->layer[il];
  bool all = m->arch->all_bias, pre = !m->arch->no_pre_norm;
  int st;
  if (pre && (st = bind_pre_norms(m, il, l, err))) return st;
  if ((st = bind_qkv(m, il, l, err)) || (st = bind_extra_norms(m, il, l, err))) return st;
  if ((st = bind_pair(m, il, "attn_output", m->D, (int64_t)m->H * m->hd, all, &l->o, &l->o_b, err)))
    return st;
  if (m->moe.n) return nm__experts_bind(m, il, l, err);
  if ((st = bind_gate_up(m, il, l, err))) return st;
  return bind_pair(m, il, "ffn_down", m->D, m->F, all, &l->down, &l->down_b, err);
}

/* What the embedding is a sum of, and the norm that may follow. */
static int bind_embedding(nm_model *m, nm_err *err) {
  const struct nm__gguf_kv *types = nm__gguf_find(m->g, "tokenizer.ggml.token_type_count");
  int64_t n_types = 0;
  int st;
  if ((st = bind(m, "token_embd.weight", -1, m->D, true, &m->embd, err))) return st;
  if (m->embd.rows > 1 << 24 || m->embd.rows < 1)
    return nm__fail(err, NM_EFORMAT, "%s: a vocabulary of %lld", m->path, (long long)m->embd.rows);
  m->V = (int)m->embd.rows;
  if (m->arch->learned_pos &&
      (st = bind(m, "position_embd.weight", -1, m->D, true, &m->pos, err))) return st;
  if (m->arch->learned_pos && m->n_ctx > m->pos.rows) m->n_ctx = (int)m->pos.rows;
  if (!m->arch->embd_norm) return NM_OK;
  bool typed = types && nm__gguf_int_at(types, 0, &n_types) && n_types > 0;
  if ((st = bind(m, "token_types.weight", -1, m->D, typed, &m->type_embd, err))) return st;
  if ((st = bind(m, "token_embd_norm.weight", 1, m->D, true, &m->embd_norm, err))) return st;
  return bind(m, "token_embd_norm.bias", 1, m->D, m->arch->layernorm, &m->embd_norm_b, err);
}

static int bind_head(nm_model *m, nm_err *err) {
  int st;
  if (m->arch->encoder) return NM_OK;
  if ((st = bind(m, "output_norm.weight", 1, m->D, true, &m->out_norm, err))) return st;
  if ((st = bind(m, "output_norm.bias", 1, m->D, m->arch->layernorm, &m->out_norm_b, err)))
    return st;
  if ((st = bind(m, "output.weight", m->V, m->D, false, &m->output, err))) return st;
  m->tied = !m->output.data;
  if (m->tied) m->output = m->embd;
  return NM_OK;
}

static int bind_all(nm_model *m, nm_err *err) {
  int st = bind_embedding(m, err);
  if (!st) st = bind_head(m, err);
  if (st) return st;
  m->layer = nm__alloc((size_t)m->L, sizeof *m->layer);
  if (!m->layer) return nm__fail_memory(err, "the layer table", (size_t)m->L * sizeof *m->layer);
  for (int i = 0; i < m->L && !st; i++) st = bind_layer(m, i, err);
  return st;
}

/* ---- open, describe, close -------------------------------------------- */

static void count_types(nm_model *m) {
  int n[NM__DTYPE_END] = {0};
  for (size_t i = 0; i < m->g->n_tensors; i++) {
    const struct nm__gguf_tensor *t = &m->g->tensors[i];
    n[t->type]++;
    m->n_params += (uint64_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
    m->weight_bytes += t->bytes;
  }
  size_t at = 0;
  for (int i = 0; i < NM__DTYPE_END; i++)
    if (n[i] && at + 24 < sizeof m->types)
      at += (size_t)snprintf(m->types + at, sizeof m->types - at, "%s%s %d", at ? ", " : "",
                             nm__dtype((uint32_t)i)->name, n[i]);
}

static int load_tokenizer(nm_model *m, nm_err *err) {
  if (m->g->no_tokenizer)
    snprintf(m->warning, sizeof m->warning, "no text in or out: %.350s", m->g->no_tokenizer);
  if (!nm__tok_here(m->g)) return NM_OK;
  nm_err why = {0}, warn = {0};
  if (nm__tok_open(m->g, &m->tok, &warn, &why)) {
    if (why.status == NM_EMEMORY) return *err = why, why.status;
    snprintf(m->warning, sizeof m->warning, "no text in or out: %.350s", why.text);
  } else if (warn.text[0]) {
    snprintf(m->warning, sizeof m->warning, "%.390s", warn.text);
  }
  return NM_OK;
}

static int load(nm_model *m, nm_err *err) {
  struct nm__str arch;
  if (nm__adapter_is(m->g))
    return nm__fail(err, NM_EFORMAT, "%s: is an adapter, no model: give the model, and this by "
                    "--lora; noema adapter merge makes one model of both", m->path);
  if (!m->g->n_tensors)
    return nm__fail(err, NM_EFORMAT, "%s: holds no tensors%s", m->path,
                    m->tok ? ", only a vocabulary" : "");
  int st = nm__gguf_string(m->g, "general.architecture", &arch, err);
  if (st) return st;
  m->arch = nm__arch_find(arch.s, arch.n);
  if (!m->arch) {
    char shown[40];
    struct nm__buf names;
    nm__buf_init(&names, 400);
    nm__arch_names(&names);
    st =
        nm__fail(err, NM_EFORMAT, "%s: architecture '%s' is not supported yet (known: %s)", m->path,
                 nm__printable(shown, sizeof shown, arch.s, arch.n), names.s ? names.s : "");
    nm__buf_done(&names);
    return st;
  }
  struct nm__str name;
  if (!nm__gguf_string(m->g, "general.name", &name, NULL))
    nm__printable(m->name, sizeof m->name, name.s, name.n);
  if ((st = sizes(m, err)) || (st = refuse_unknown(m, err))) return st;
  if ((st = nm__experts_load(m, err)) || (st = bind_all(m, err))) return st;
  if ((st = facts(m, err)) || (st = nm__rope_load(m, err))) return st;
  if (m->tok && nm__tok_size(m->tok) > m->V)
    return nm__fail(err, NM_EFORMAT,
                    "%s: the tokenizer has %d tokens but the embedding only %d rows", m->path,
                    nm__tok_size(m->tok), m->V);
  return NM_OK;
}

/* The container g becomes a model, which owns it from now on. */
static int open_container(const char *path, struct nm__gguf *g, bool vocab_only, nm_model **out,
                          nm_err *err) {
  *out = NULL;
  nm_model *m = nm__alloc(1, sizeof *m);
  if (!m || !(m->path = nm__strdup(path))) {
    free(m);
    nm__gguf_close(g);
    return nm__fail_memory(err, "a model", sizeof *m);
  }
  m->g = g;
  int st = load_tokenizer(m, err);
  if (!st) count_types(m);
  if (!st && !vocab_only) st = load(m, err);
  if (!st && vocab_only && !m->tok)
    st = nm__fail(err, NM_EFORMAT, "%s: %s", path, m->warning[0] ? m->warning : "has no tokenizer");
  if (st) nm_model_close(m);
  else *out = m;
  return st;
}

int nm__model_from(struct nm__gguf *g, nm_model **out, nm_err *err) {
  return open_container(g->path, g, false, out, err);
}

static int open_with(const char *path, bool vocab_only, nm_model **out, nm_err *err) {
  struct nm__gguf *g;
  bool alone = vocab_only && nm__hf_tokenizer_path(path);      /* no weights are needed */
  *out = NULL;
  int st = alone ? nm__hf_tokenizer_open(path, &g, err) : nm__model_map(path, &g, err);
  if (!st && nm__adapter_is(g)) return nm__adapter_model(g, out, err);
  return st ? st : open_container(g->path, g, vocab_only, out, err);
}

int nm_model_open(const char *path, nm_model **out, nm_err *err) {
  return open_with(path, false, out, err);
}
int nm_tokenizer_open(const char *path, nm_model **out, nm_err *err) {
  return open_with(path, true, out, err);
}

void nm_model_close(nm_model *m) {
  if (!m) return;
  nm_adapters_free(m->adapters);
  nm__tok_free(m->tok);
  nm__gguf_close(m->g);
  for (int i = 0; m->layer && i < m->L; i++) free(m->layer[i].expert[0]);
  free(m->layer);
  free(m->theta);
  free(m->path);
  free(m);
}

void nm_model_describe(const nm_model *m, nm_model_info *o) {
  *o = (nm_model_info){.path = m->path, .name = m->name, .arch = m->arch ? m->arch->name : "",
                       .L = m->L, .D = m->D, .H = m->H, .K = m->K, .head_dim = m->hd, .F = m->F,
                       .V = m->V, .n_ctx = m->n_ctx, .n_params = m->n_params,
                       .weight_bytes = m->weight_bytes, .file_bytes = nm__gguf_bytes(m->g),
                       .tied = m->tied, .encoder = m->arch && m->arch->encoder,
                       .pooling = m->pooling, .tokenizer = m->tok ? nm__tok_family(m->tok) : "",
                       .pre = m->tok ? nm__tok_pre(m->tok) : "", .warning = m->warning,
                       .n_experts = m->moe.n, .n_experts_used = m->moe.used,
                       .expert_F = m->moe.F, .shared_F = m->moe.shared_F};
  for (int i = 0; m->layer && i < m->L; i++) {
    o->n_windowed += m->layer[i].window > 0;
    if (m->layer[i].window) o->window = m->layer[i].window;
  }
  snprintf(o->types, sizeof o->types, "%s", m->types);
  snprintf(o->rope, sizeof o->rope, "%s", m->rope_text);
}

/* The only thing of a model that is found out later; threads that share it may ask at once. */
int nm_model_hash(nm_model *m, char hex[33], nm_err *err) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  (void)err;
  pthread_mutex_lock(&lock);
  if (!m->hash[0]) nm__gguf_hash(m->g, m->hash);
  memcpy(hex, m->hash, 33);
  pthread_mutex_unlock(&lock);
  return NM_OK;
}

bool nm__find_bad_weight(const nm_model *m, char *out, size_t n) {
  float block[256];
  for (size_t i = 0; i < m->g->n_tensors; i++) {
    const struct nm__gguf_tensor *t = &m->g->tensors[i];
    const struct nm__dtype_info *d = nm__dtype(t->type);
    if (!d->to_f32) continue;
    for (uint64_t b = 0, blocks = t->bytes / (uint64_t)d->bytes; b < blocks; b++) {
      d->to_f32(block, t->data + b * (uint64_t)d->bytes, d->block);
      for (int j = 0; j < d->block; j++)
        if (block[j] - block[j] != 0) {
          snprintf(out, n, "tensor %s, element %llu is %s", t->name,
                   (unsigned long long)(b * (uint64_t)d->block) + (unsigned)j,
                   block[j] != block[j] ? "nan" : "infinite");
          return true;
        }
    }
  }
  return false;
}

/* ---- tokens through the public face ------------------------------------- */

int nm_tokenize(const nm_model *m, const char *text, size_t n, int flags, int32_t **ids,
                size_t *n_ids, nm_err *err) {
  *ids = NULL;
  *n_ids = 0;
  if (!m->tok)
    return nm__fail(err, NM_EFORMAT, "%s: has no tokenizer noema can use (%s): give ids instead",
                    m->path, m->warning[0] ? m->warning : "no tokenizer.ggml.model key");
  struct nm__ids v = {0};
  struct nm__tok_opts o = {flags & NM_NO_BOS, flags & NM_PARSE_SPECIAL};
  int st = nm__tok_encode(m->tok, text, n, o, &v, err);
  if (st) {
    nm__ids_done(&v);
    return st;
  }
  *ids = v.id;
  *n_ids = v.n;
  return NM_OK;
}

int nm_detokenize(const nm_model *m, const int32_t *ids, size_t n_ids, char **text, size_t *n,
                  nm_err *err) {
  *text = NULL;
  *n = 0;
  if (!m->tok) return nm__fail(err, NM_EFORMAT, "%s: has no tokenizer noema can use", m->path);
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 30);
  nm__buf_puts(&b, "");
  int st = nm__tok_decode(m->tok, ids, n_ids, false, &b, err);
  if (!st && b.failed) st = nm__fail_memory(err, "the text", b.len);
  if (st) {
    nm__buf_done(&b);
    return st;
  }
  *text = b.s;
  *n = b.len;
  return NM_OK;
}
