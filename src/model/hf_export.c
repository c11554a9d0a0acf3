/* hf_export.c - from the keys of a GGUF to a config.json: the way back of hf_config.c. The
 * config class's defaults are written out, and over them what the GGUF says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model/hf_impl.h"
#include "tensor/math.h"

struct out { const struct nm__gguf *g; const struct nm__hf_family *f; json_t *c; nm_err *err; };

static const struct nm__gguf_kv *find(const struct out *o, const char *name) {
  char k[96];
  snprintf(k, sizeof k, "%s.%s", o->f->arch, name);
  return nm__gguf_find(o->g, k);
}

/* The first of an array, where all blocks have the same. */
static bool number(const struct out *o, const char *name, double *out) {
  const struct nm__gguf_kv *kv = find(o, name);
  double x;
  if (!kv || !nm__gguf_float_at(kv, 0, out)) return false;
  for (uint64_t i = 1; i < kv->n; i++)
    if (!nm__gguf_float_at(kv, i, &x) || x < *out || x > *out) return false;
  return *out - *out == 0;
}

/* 9.99999975e-06 is what a float holds of 1e-05: the shortest decimal that gives the float. */
static json_t *short_real(double x) {
  char s[40];
  for (int digits = 1; digits <= 9; digits++) {
    snprintf(s, sizeof s, "%.*g", digits, x);
    if ((float)strtod(s, NULL) == (float)x) return json_real(strtod(s, NULL));
  }
  return json_real(x);
}

static void set_int(const struct out *o, const char *key, double x) {
  if (x >= 0 && x <= 9e15) json_object_set_new(o->c, key, json_integer((json_int_t)x));
}

/* ---- sizes --------------------------------------------------------------- */

static void put_plain(const struct out *o) {
  double x;
  for (const struct nm__hf_key *k = nm__hf_plain; k->hf; k++) {
    if (!nm__hf_family_has(o->f, k->hf)) continue;
    bool may_be_none = strstr(k->hf, "softcapping") || !strcmp(k->hf, "sliding_window");
    if (!number(o, k->gguf, &x)) {
      if (may_be_none) json_object_set_new(o->c, k->hf, json_null());
    } else if (k->is_float) json_object_set_new(o->c, k->hf, short_real(x));
    else set_int(o, k->hf, x);
  }
}

/* What GGUF leaves to be understood. */
static int put_sizes(const struct out *o) {
  double D = 0, H = 0, L = 0, F = 0, n;
  const struct nm__gguf_tensor *embd = nm__gguf_tensor(o->g, "token_embd.weight"),
                               *types = nm__gguf_tensor(o->g, "token_types.weight");
  if (!number(o, "embedding_length", &D) || !number(o, "attention.head_count", &H) || !(H >= 1) ||
      !number(o, "block_count", &L) || !number(o, "feed_forward_length", &F))
    return nm__fail(o->err, NM_EFORMAT, "%s: lacks sizes that are the same for all blocks, which a "
                    "config.json needs", o->g->path);
  put_plain(o);
  set_int(o, "intermediate_size", F);
  if (embd) set_int(o, "vocab_size", (double)embd->ne[1]);
  if (types && nm__hf_family_has(o->f, "type_vocab_size"))
    set_int(o, "type_vocab_size", (double)types->ne[1]);
  if (nm__hf_family_has(o->f, "num_key_value_heads"))
    set_int(o, "num_key_value_heads", number(o, "attention.head_count_kv", &n) ? n : H);
  if (nm__hf_family_has(o->f, "head_dim"))
    set_int(o, "head_dim", number(o, "attention.key_length", &n) ? n : (double)(int64_t)(D / H));
  return NM_OK;
}

/* ---- windows, scales, flags -------------------------------------------------- */

static void put_windows(const struct out *o) {
  const struct nm__gguf_kv *kv = find(o, "attention.sliding_window_pattern");
  double every;
  int64_t flag;
  if (kv && kv->type != NM__GGUF_ARRAY && number(o, "attention.sliding_window_pattern", &every) &&
      nm__hf_family_has(o->f, "sliding_window_pattern"))
    set_int(o, "sliding_window_pattern", every);
  if (!kv || kv->type != NM__GGUF_ARRAY || kv->strings) return;
  json_t *types = json_array();
  for (uint64_t i = 0; i < kv->n; i++) {
    bool windowed = kv->elem_type == NM__GGUF_BOOL ? kv->raw[i]
                                                   : nm__gguf_int_at(kv, i, &flag) && flag;
    json_array_append_new(types, json_string(windowed ? "sliding_attention" : "full_attention"));
  }
  json_object_set_new(o->c, "layer_types", types);
}

static void put_flags(const struct out *o) {
  const struct nm__arch *a = nm__arch_find(o->f->arch, strlen(o->f->arch));
  double s, D = 0, H = 1, L = 0, hd = 0;
  bool parallel = true;
  number(o, "embedding_length", &D);
  number(o, "attention.head_count", &H);
  number(o, "block_count", &L);
  hd = number(o, "attention.key_length", &hd) ? hd : D / H;
  if (nm__hf_family_has(o->f, "query_pre_attn_scalar")) {
    bool wide = a && a->wide_scale_at && L >= a->wide_scale_at && L <= a->wide_scale_at;
    bool said = number(o, "attention.scale", &s) && s > 0;
    json_t *usual = json_integer((json_int_t)(wide ? D / H : hd));
    json_object_set_new(o->c, "query_pre_attn_scalar", said ? short_real(1 / (s * s)) : usual);
    if (said) json_decref(usual);
  }
  if (nm__hf_family_has(o->f, "use_parallel_residual")) {
    nm__gguf_bool(o->g, "gptneox.use_parallel_residual", &parallel, NULL);
    json_object_set_new(o->c, "use_parallel_residual", json_boolean(parallel));
  }
  if (nm__hf_family_has(o->f, "norm_topk_prob")) {
    bool norm = a && !a->keep_top_k;
    char key[96];
    snprintf(key, sizeof key, "%s.expert_weights_norm", o->f->arch);
    nm__gguf_bool(o->g, key, &norm, NULL);
    json_object_set_new(o->c, "norm_topk_prob", json_boolean(norm));
  }
  if (o->f->head)
    json_object_set_new(o->c, "tie_word_embeddings",
                        json_boolean(!nm__gguf_tensor(o->g, "output.weight")));
}

static void put_special_ids(const struct out *o) {
  static const char *const ids[][2] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"},
                                       {"tokenizer.ggml.eos_token_id", "eos_token_id"},
                                       {"tokenizer.ggml.padding_token_id", "pad_token_id"}};
  uint64_t v;
  for (int i = 0; i < 3; i++)
    if (!nm__gguf_uint(o->g, ids[i][0], &v, NULL)) set_int(o, ids[i][1], (double)v);
}

/* ---- rotary embeddings ---------------------------------------------------------- */

static double head_dim(const struct out *o) {
  double hd = json_number_value(json_object_get(o->c, "head_dim"));
  if (hd > 0) return hd;
  json_int_t D = json_integer_value(json_object_get(o->c, "hidden_size")),
             H = json_integer_value(json_object_get(o->c, "num_attention_heads"));
  return H > 0 ? (double)(D / H) : 0;
}

static json_t *factors(const struct nm__gguf_tensor *t) {
  json_t *list = json_array();
  for (int64_t j = 0; j < t->ne[0] && t->type == NM__F32; j++) {
    float v;
    memcpy(&v, t->data + 4 * j, 4);
    json_array_append_new(list, short_real((double)v));
  }
  return list;
}

/* Whether these divisors are what llama3's rule gives for a factor and a first context. */
static bool is_llama3(const struct nm__gguf_tensor *t, double base, double f, double orig) {
  int64_t n = 2 * t->ne[0];
  for (int64_t j = 0; j < n / 2; j++) {
    float v;
    memcpy(&v, t->data + 4 * j, 4);
    double wave = 6.283185307179586 / nm__pow(base, -2.0 * (double)j / (double)n);
    double s = (orig / wave - 1) / 3;
    s = s < 0 ? 0 : s > 1 ? 1 : s;
    double want = 1 / ((1 - s) / f + s), d = (double)v - want;
    if (!(d <= 1e-5 * want && -d <= 1e-5 * want)) return false;
  }
  return true;
}

/* The rule's numbers are not in a GGUF; all models that use it have the waves' bounds 1 and 4 and
 * a power of two as the first context, so these are tried. */
static json_t *llama3(const struct nm__gguf_tensor *t, double base) {
  float f = 0, v;
  for (int64_t j = 0; j < t->ne[0] && t->type == NM__F32; j++) {
    memcpy(&v, t->data + 4 * j, 4);
    if (v > f) f = v;
  }
  for (int orig = 16; f > 0 && orig <= 1 << 20; orig *= 2)
    if (is_llama3(t, base, (double)f, orig))
      return json_pack("{s:s, s:o, s:f, s:f, s:i}", "rope_type", "llama3", "factor",
                       short_real((double)f), "low_freq_factor", 1.0, "high_freq_factor", 4.0,
                       "original_max_position_embeddings", orig);
  return NULL;
}

static json_t *longrope(const struct out *o, const struct nm__gguf_tensor *longs) {
  const struct nm__gguf_tensor *shorts = nm__gguf_tensor(o->g, "rope_factors_short.weight");
  double orig, attn;
  if (!shorts || !number(o, "rope.scaling.original_context_length", &orig)) return NULL;
  set_int(o, "original_max_position_embeddings", orig);
  json_t *r = json_pack("{s:s, s:o, s:o}", "rope_type", "longrope", "long_factor", factors(longs),
                        "short_factor", factors(shorts));
  if (number(o, "rope.scaling.attn_factor", &attn))
    json_object_set_new(r, "attention_factor", short_real(attn));
  return r;
}

/* Scalings by a key: linear, yarn. */
static json_t *scaled(const struct out *o, struct nm__str type) {
  double f, orig, attn;
  bool yarn = type.n == 4 && !memcmp(type.s, "yarn", 4);
  bool linear = type.n == 6 && !memcmp(type.s, "linear", 6);
  if (!number(o, "rope.scaling.factor", &f) || (!yarn && !linear)) return NULL;
  json_t *r = json_pack("{s:s, s:o}", "rope_type", yarn ? "yarn" : "linear", "factor",
                        short_real(f));
  if (yarn && number(o, "rope.scaling.original_context_length", &orig))
    json_object_set_new(r, "original_max_position_embeddings", json_integer((json_int_t)orig));
  if (yarn && number(o, "rope.scaling.attn_factor", &attn))
    json_object_set_new(r, "attention_factor", short_real(attn * (1 + 0.1 * nm__log(f))));
  return r;
}

static int put_rope(const struct out *o) {
  const struct nm__gguf_tensor *freqs = nm__gguf_tensor(o->g, "rope_freqs.weight"),
                               *longs = nm__gguf_tensor(o->g, "rope_factors_long.weight");
  double base = 10000, hd = head_dim(o), n = hd;
  struct nm__str type = {"none", 4};
  char key[96];
  number(o, "rope.freq_base", &base);
  json_object_set_new(o->c, "rope_theta", short_real(base));
  number(o, "rope.dimension_count", &n);
  if (nm__hf_family_has(o->f, "partial_rotary_factor"))
    json_object_set_new(o->c, "partial_rotary_factor", json_real(n / hd));
  else if (n < hd || n > hd)
    return nm__fail(o->err, NM_EFORMAT, "%s: %g of %g dimensions are rotated, which a config of "
                    "%s cannot say", o->g->path, n, hd, o->f->model_type);
  snprintf(key, sizeof key, "%s.rope.scaling.type", o->f->arch);
  nm__gguf_string(o->g, key, &type, NULL);
  bool by_key = type.n != 4 || memcmp(type.s, "none", 4);
  if (!freqs && !longs && !by_key) return NM_OK;
  json_t *r = freqs ? llama3(freqs, base) : longs ? longrope(o, longs) : scaled(o, type);
  if (!r || (freqs && (longs || by_key)))
    return json_decref(r), nm__fail(o->err, NM_EFORMAT, "%s: its rope scaling cannot be said in a "
                                    "config.json", o->g->path);
  json_object_set_new(o->c, "rope_scaling", r);
  return NM_OK;
}

/* ---- the whole ------------------------------------------------------------------------ */

static bool has_word(const char *words, const char *word) {
  size_t n = strlen(word);
  for (const char *at = words; (at = strstr(at, word)); at += n)
    if ((at == words || at[-1] == ' ') && (at[n] == ' ' || !at[n])) return true;
  return false;
}

static void spell(const struct out *o) {
  for (const struct nm__hf_spelling *s = nm__hf_spellings; s->one; s++) {
    json_t *v = json_object_get(o->c, s->one);
    if (!v || !has_word(s->families, o->f->model_type)) continue;
    json_object_set(o->c, s->other, v);
    json_object_del(o->c, s->one);
  }
}

int nm__hf_config(const struct nm__gguf *g, json_t **out, nm_err *err) {
  nm_err own = {0};
  struct out o = {g, nm__hf_family_of(g), NULL, &own};
  *out = NULL;
  if (!o.f)
    return nm__fail(err, NM_EFORMAT, "%s: its architecture has no Hugging Face form here", g->path);
  json_t *defaults = json_loads(o.f->defaults, 0, NULL);
  o.c = json_pack("{s:[s], s:s}", "architectures", o.f->class_name, "model_type", o.f->model_type);
  if (!o.c || !defaults || json_object_update_missing(o.c, defaults))
    nm__fail_memory(&own, "a config", 0);
  json_decref(defaults);
  int st = own.status ? own.status : put_sizes(&o);
  if (!st) put_windows(&o);
  if (!st) put_flags(&o);
  if (!st) put_special_ids(&o);
  if (!st && nm__hf_family_has(o.f, "rope_theta")) st = put_rope(&o);
  if (!st) spell(&o);
  if (!st) return *out = o.c, NM_OK;
  json_decref(o.c);
  if (err) *err = own;
  return st;
}
