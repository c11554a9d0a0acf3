/* hf_config.c - from config.json to the keys of a GGUF.
 *
 * What the file does not say, HF's config class does; what it asks for and this program's
 * row of that architecture does not do is refused: a model that runs must be the model that
 * was trained. Keys that change no result (dropout, cache, initialisers) are left alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/json.h"
#include "model/hf_impl.h"

enum { CONFIG_VALUES_MAX = 100000 };

/* ---- small readers ------------------------------------------------------ */

json_t *nm__conf_get(const struct nm__conf *c, const char *key) {
  json_t *v = json_object_get(c->c, key);
  return json_is_null(v) ? NULL : v;
}

int nm__conf_refuse(const struct nm__conf *c, const char *key, const char *why) {
  json_t *v = json_object_get(c->c, key);
  char *s = v ? json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT) : NULL, shown[60];
  nm__printable(shown, sizeof shown, s ? s : "", s ? strlen(s) : 0);
  free(s);
  return nm__fail(c->err, NM_EFORMAT, "%s: %s %s: %s", c->name, key, shown, why);
}

bool nm__conf_number(const struct nm__conf *c, const char *key, double *out, int *st) {
  json_t *v = nm__conf_get(c, key);
  if (!v || *st) return false;
  *out = json_number_value(v);
  if (json_is_number(v) && *out - *out == 0) return true;
  *st = nm__conf_refuse(c, key, "must be a number");
  return false;
}

bool nm__conf_uint(const struct nm__conf *c, const char *key, uint32_t *out, int *st) {
  json_t *v = nm__conf_get(c, key);
  if (!v || *st) return false;
  json_int_t i = json_integer_value(v);
  *out = (uint32_t)i;
  if (json_is_integer(v) && i >= 0 && i <= INT32_MAX) return true;
  *st = nm__conf_refuse(c, key, "must be an integer that is not negative");
  return false;
}

int nm__conf_put_u32(const struct nm__conf *c, const char *gguf, uint32_t v) {
  char k[96];
  snprintf(k, sizeof k, "%s.%s", c->f->arch, gguf);
  return nm__gguf_add_u32(c->g, k, v, c->err);
}

int nm__conf_put_f32(const struct nm__conf *c, const char *gguf, double v) {
  char k[96];
  snprintf(k, sizeof k, "%s.%s", c->f->arch, gguf);
  return nm__gguf_add_f32(c->g, k, (float)v, c->err);
}

static int put_string(const struct nm__conf *c, const char *key, const char *s) {
  return nm__gguf_add_string(c->g, key, s, strlen(s), c->err);
}

/* ---- one spelling, and defaults ------------------------------------------- */

static int merge(struct nm__conf *c, const json_t *file) {
  json_t *defaults = json_loads(c->f->defaults, 0, NULL), *v;
  c->c = json_copy((json_t *)(uintptr_t)file);
  bool good = defaults && c->c;
  for (size_t i = 0; good && nm__hf_spellings[i].one; i++) {
    v = nm__conf_get(c, nm__hf_spellings[i].other);
    if (v) good = !json_object_set(c->c, nm__hf_spellings[i].one, v);
  }
  good = good && !json_object_update_missing(c->c, defaults);
  json_decref(defaults);
  return good ? NM_OK : nm__fail_memory(c->err, "a config", 0);
}


/* ---- keys ----------------------------------------------------------------------- */

static int put_plain(const struct nm__conf *c) {
  int st = NM_OK;
  for (const struct nm__hf_key *k = nm__hf_plain; k->hf && !st; k++) {
    uint32_t u;
    double d;
    if (!nm__hf_family_has(c->f, k->hf)) continue;
    if (!k->is_float && nm__conf_uint(c, k->hf, &u, &st)) st = nm__conf_put_u32(c, k->gguf, u);
    else if (k->is_float && nm__conf_number(c, k->hf, &d, &st))
      st = nm__conf_put_f32(c, k->gguf, d);
  }
  uint32_t d = 0, f;
  bool given = nm__conf_uint(c, "intermediate_size", &f, &st);
  if (!given && !st && nm__conf_uint(c, "hidden_size", &d, &st)) f = 4 * d;
  return st ? st : nm__conf_put_u32(c, "feed_forward_length", f);
}

/* ---- what is refused ------------------------------------------------------------ */

/* A key is fine when it is absent, null, or as said here. */
static const struct { const char *key; enum { FALSE, TRUE, UNSET, EMPTY, ZERO, ONE } fine;
                      const char *arch; } checked[] = {
    {"quantization_config", UNSET, NULL},
    {"use_sliding_window", FALSE, NULL},
    {"is_encoder_decoder", FALSE, NULL},
    {"is_decoder", FALSE, "bert"},
    {"add_cross_attention", FALSE, NULL},
    {"use_bidirectional_attention", FALSE, NULL},
    {"clip_qkv", UNSET, NULL},
    {"partial_rotary_factor", ONE, "llama"},
    {"partial_rotary_factor", ONE, "qwen2"},
    {"partial_rotary_factor", ONE, "qwen3"},
    {"partial_rotary_factor", ONE, "gemma"},
    {"partial_rotary_factor", ONE, "gemma2"},
    {"partial_rotary_factor", ONE, "gemma3"},
    {"partial_rotary_factor", ONE, "olmo2"},
    {"partial_rotary_factor", ONE, "nomic-bert"},
    {"partial_rotary_factor", ONE, "qwen2moe"},
    {"partial_rotary_factor", ONE, "qwen3moe"},
    {"partial_rotary_factor", ONE, "starcoder2"},
    {"decoder_sparse_step", ONE, NULL},
    {"mlp_only_layers", EMPTY, NULL},
    {"use_bias", TRUE, "starcoder2"},
    {"scale_attn_by_inverse_layer_idx", FALSE, "gpt2"},
    {"scale_attn_weights", TRUE, "gpt2"},
    {"rotary_emb_interleaved", FALSE, "nomic-bert"},
    {"rotary_emb_scale_base", UNSET, "nomic-bert"},
    {"rotary_scaling_factor", UNSET, "nomic-bert"},
    {"use_rms_norm", FALSE, "nomic-bert"},
    {"prenorm", FALSE, "nomic-bert"},
    {"causal", FALSE, "nomic-bert"},
    {"parallel_block", FALSE, "nomic-bert"},
    {"qkv_proj_bias", FALSE, "nomic-bert"},
    {"mlp_fc1_bias", FALSE, "nomic-bert"},
    {"mlp_fc2_bias", FALSE, "nomic-bert"},
    {"moe_every_n_layers", ZERO, "nomic-bert"},
};

static int check_flags(const struct nm__conf *c) {
  for (size_t i = 0; i < sizeof checked / sizeof *checked; i++) {
    const json_t *v = nm__conf_get(c, checked[i].key);
    if (!v || (checked[i].arch && strcmp(checked[i].arch, c->f->arch))) continue;
    double x = json_number_value(v);
    bool fine = checked[i].fine == FALSE  ? json_is_false(v)
                : checked[i].fine == TRUE ? json_is_true(v)
                : checked[i].fine == EMPTY ? json_is_array(v) && !json_array_size(v)
                : checked[i].fine == ZERO ? json_is_number(v) && x >= 0 && x <= 0
                : checked[i].fine == ONE  ? json_is_number(v) && x >= 1 && x <= 1
                                          : false;
    if (!fine)
      return nm__conf_refuse(c, checked[i].key, "is not supported yet; running without it would "
                             "give wrong results");
  }
  const char *pos = json_string_value(nm__conf_get(c, "position_embedding_type"));
  if (pos && !strcmp(c->f->arch, "bert") && strcmp(pos, "absolute"))
    return nm__conf_refuse(c, "position_embedding_type", "only 'absolute' is supported");
  return NM_OK;
}

static const struct { const char *name; enum nm__act act; } acts[] = {
    {"silu", NM__ACT_SILU},           {"swish", NM__ACT_SILU},
    {"swiglu", NM__ACT_SILU},         {"gelu_pytorch_tanh", NM__ACT_GELU_TANH},
    {"gelu_new", NM__ACT_GELU_TANH},  {"gelu_fast", NM__ACT_GELU_TANH},
    {"gelu", NM__ACT_GELU_ERF},       {"gelu_python", NM__ACT_GELU_ERF},
};

/* Gemma's first configs say "gelu" and mean, as HF reads them, its tanh form. */
static int check_act(const struct nm__conf *c) {
  const struct nm__arch *a = nm__arch_find(c->f->arch, strlen(c->f->arch));
  const char *name = json_string_value(nm__conf_get(c, "hidden_act"));
  if (!a) return NM_OK;            /* opening will say that it cannot be run */
  for (size_t i = 0; name && i < sizeof acts / sizeof *acts; i++)
    if (!strcmp(acts[i].name, name) &&
        (acts[i].act == a->act || (!strcmp(name, "gelu") && a->embd_scale))) return NM_OK;
  return nm__conf_refuse(c, "hidden_act", "is not the activation that this architecture has here");
}

/* ---- windows ---------------------------------------------------------------------- */

/* Which blocks have the window: written only where it is not what the architecture does. */
static int put_layer_types(const struct nm__conf *c, const struct nm__arch *a) {
  json_t *types = nm__conf_get(c, "layer_types"), *v;
  uint32_t L = 0;
  int st = NM_OK, every = a && a->global_every ? a->global_every : 1;
  if (!types || !nm__conf_uint(c, "num_hidden_layers", &L, &st)) return st;
  if (!json_is_array(types) || json_array_size(types) != L)
    return nm__fail(c->err, NM_EFORMAT, "%s: layer_types must list the kinds of all %u layers",
                    c->name, L);
  uint8_t *windowed = nm__alloc(L ? L : 1, 1);
  if (!windowed) return nm__fail_memory(c->err, "the kinds of layers", L);
  bool differ = false;
  size_t i;
  json_array_foreach(types, i, v) {
    const char *s = json_is_string(v) ? json_string_value(v) : "";
    windowed[i] = !strcmp(s, "sliding_attention");
    if (!windowed[i] && strcmp(s, "full_attention") && !st)
      st = nm__fail(c->err, NM_EFORMAT, "%s: layer_types: '%.40s' is not a kind of attention that "
                    "is supported", c->name, s);
    differ |= windowed[i] != ((int)i % every != every - 1);
  }
  if (!st && differ && !nm__hf_family_has(c->f, "sliding_window"))
    st = nm__fail(c->err, NM_EFORMAT, "%s: layer_types asks for sliding windows, which %s has not "
                  "here", c->name, c->f->arch);
  char key[96];
  snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", c->f->arch);
  struct nm__gguf_kv kv = {.key = key, .type = NM__GGUF_ARRAY, .elem_type = NM__GGUF_BOOL, .n = L,
                           .raw = windowed};
  if (!st && differ && nm__conf_get(c, "sliding_window")) st = nm__gguf_add_kv(c->g, &kv, c->err);
  free(windowed);
  return st;
}

static int put_windows(const struct nm__conf *c) {
  const struct nm__arch *a = nm__arch_find(c->f->arch, strlen(c->f->arch));
  uint32_t every;
  int st = NM_OK;
  if (nm__conf_get(c, "layer_types")) return put_layer_types(c, a);
  if (!nm__hf_family_has(c->f, "sliding_window_pattern") ||
      !nm__conf_uint(c, "sliding_window_pattern", &every, &st)) return st;
  if (a && (int)every == a->global_every) return NM_OK;
  return nm__conf_put_u32(c, "attention.sliding_window_pattern", every);
}

/* ---- what only some families have ---------------------------------------------------- */

/* Scores are divided by sqrt(query_pre_attn_scalar); a key says so only where that is not what
 * everyone takes from the sizes. */
static int put_score_scale(const struct nm__conf *c) {
  const struct nm__arch *a = nm__arch_find(c->f->arch, strlen(c->f->arch));
  double s;
  uint32_t L = 0, D = 0, H = 1, hd = 0;
  int st = NM_OK;
  if (!nm__hf_family_has(c->f, "query_pre_attn_scalar") ||
      !nm__conf_number(c, "query_pre_attn_scalar", &s, &st)) return st;
  if (!(s > 0)) return nm__conf_refuse(c, "query_pre_attn_scalar", "must be positive");
  nm__conf_uint(c, "num_hidden_layers", &L, &st);
  nm__conf_uint(c, "hidden_size", &D, &st);
  nm__conf_uint(c, "num_attention_heads", &H, &st);
  nm__conf_uint(c, "head_dim", &hd, &st);
  bool wide = a && a->wide_scale_at && (int)L == a->wide_scale_at;
  double usual = wide && H ? (double)D / H : hd;
  if (st || (s >= usual && s <= usual)) return st;
  return nm__conf_put_f32(c, "attention.scale", 1 / __builtin_sqrt(s));
}

static int put_special(const struct nm__conf *c) {
  json_t *parallel = nm__conf_get(c, "use_parallel_residual");
  uint32_t n;
  int st = NM_OK;
  if (nm__hf_family_has(c->f, "use_parallel_residual")) {
    if (!json_is_boolean(parallel))
      return nm__conf_refuse(c, "use_parallel_residual", "must be true or false");
    st = nm__gguf_add_bool(c->g, "gptneox.use_parallel_residual", json_is_true(parallel), c->err);
  }
  if (!st && nm__hf_family_has(c->f, "norm_topk_prob")) {
    json_t *norm = nm__conf_get(c, "norm_topk_prob");
    char k[96];
    if (!json_is_boolean(norm))
      return nm__conf_refuse(c, "norm_topk_prob", "must be true or false");
    snprintf(k, sizeof k, "%s.expert_weights_norm", c->f->arch);
    st = nm__gguf_add_bool(c->g, k, json_is_true(norm), c->err);
  }
  if (!st && nm__hf_family_has(c->f, "type_vocab_size")) {
    char k[96];
    snprintf(k, sizeof k, "%s.attention.causal", c->f->arch);
    st = nm__gguf_add_bool(c->g, k, false, c->err);
    if (!st && nm__conf_uint(c, "type_vocab_size", &n, &st))
      st = nm__gguf_add_u32(c->g, "tokenizer.ggml.token_type_count", n, c->err);
  }
  return st ? st : put_score_scale(c);
}

/* ---- the whole ------------------------------------------------------------------------ */

/* A model of several kinds of input keeps its language model's config in one of its own. */
static int find_family(struct nm__conf *c, const json_t *top, const json_t **text) {
  const json_t *inner = json_object_get(top, "text_config");
  const char *type = json_string_value(json_object_get(top, "model_type"));
  *text = json_is_object(inner) ? inner : top;
  const char *own = json_string_value(json_object_get(*text, "model_type"));
  if (!type && !own)
    return nm__fail(c->err, NM_EFORMAT, "%s: has no model_type, which says what the model is",
                    c->name);
  c->f = own ? nm__hf_family_find(own) : NULL;
  if (!c->f && type) c->f = nm__hf_family_find(type);
  /* Of models that see, only gemma3's names are known here. */
  if (c->f && *text != top && strcmp(c->f->arch, "gemma3")) c->f = NULL;
  if (c->f) return NM_OK;
  struct nm__buf known;
  char shown[60];
  nm__buf_init(&known, 400);
  nm__hf_family_names(&known);
  type = type ? type : own;
  int st = nm__fail(c->err, NM_EFORMAT, "%s: model_type '%s' is not supported yet (known: %s)",
                    c->name, nm__printable(shown, sizeof shown, type, strlen(type)),
                    known.s ? known.s : "");
  nm__buf_done(&known);
  return st;
}

static int put_all(const struct nm__conf *c) {
  int st = check_flags(c);
  if (!st) st = check_act(c);
  if (!st) st = put_string(c, "general.architecture", c->f->arch);
  if (!st) st = put_plain(c);
  if (!st) st = put_windows(c);
  if (!st) st = put_special(c);
  if (!st && nm__hf_family_has(c->f, "rope_theta")) st = nm__conf_rope(c);
  return st;
}

static bool is_tied(const struct nm__conf *c, const json_t *top) {
  const json_t *v = json_object_get(top, "tie_word_embeddings");
  return json_is_true(json_is_boolean(v) ? v : json_object_get(c->c, "tie_word_embeddings"));
}

int nm__hf_keys(const char *name, const char *text, size_t n, struct nm__gguf *g,
                struct nm__hf_facts *out, nm_err *err) {
  nm_err own = {0};
  struct nm__conf c = {.name = name, .g = g, .err = &own};
  const json_t *config = NULL;
  json_t *top = nm__json_parse(name, text, n, CONFIG_VALUES_MAX, &own);
  int st = top ? find_family(&c, top, &config) : own.status;
  if (!st && json_object_get(top, "quantization_config") && config != top) {
    c.c = top;
    st = nm__conf_refuse(&c, "quantization_config", "is not supported");
    c.c = NULL;
  }
  if (!st) st = merge(&c, config);
  if (!st) st = put_all(&c);
  if (!st) *out = (struct nm__hf_facts){c.f, is_tied(&c, top)};
  json_decref(c.c);
  json_decref(top);
  if (st && err) *err = own;
  return st;
}
