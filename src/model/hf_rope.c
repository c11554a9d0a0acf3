/* hf_rope.c - rotary embeddings of a config.json as GGUF says them.
 *
 * Configs have had three forms: rope_theta beside "rope_scaling": {"type"|"rope_type": ...}; the
 * newer "rope_parameters", which holds the base, too; and in models with local attention one
 * such object a kind of layer. */
#include <stdio.h>
#include <string.h>
#include "model/hf_impl.h"
#include "tensor/math.h"

static const double TWO_PI = 6.283185307179586;

/* A rope object, read with the functions of a config. */
struct rope { struct nm__conf o; const struct nm__conf *c; double base; uint32_t n;
              char name[400]; };

static int refuse(const struct rope *r, const char *key, const char *why) {
  return nm__conf_refuse(&r->o, key, why);
}

/* The number, or what stands for it; a status where it is not a positive one. */
static int positive(const struct rope *r, const char *key, double absent, double *out) {
  int st = NM_OK;
  *out = absent;
  nm__conf_number(&r->o, key, out, &st);
  return !st && !(*out > 0 && *out < 1e12) ? refuse(r, key, "must be a positive number") : st;
}

/* ---- made tensors --------------------------------------------------------- */

static int put_factors(const struct rope *r, const char *name, const float *f) {
  return nm__gguf_add_tensor(r->c->g, name, NM__F32, 1, (int64_t[]){r->n / 2}, (const uint8_t *)f,
                             r->c->err);
}

static float *own_factors(const struct rope *r) {
  return nm__gguf_own(r->c->g, r->n / 2, sizeof(float), r->c->err);
}

/* theta_j is divided by f where its wave is longer than the context it was trained on, kept
 * where it is short, and mixed between. */
static int llama3(const struct rope *r) {
  double f, low, high, orig;
  int st = positive(r, "factor", 0, &f);
  if (!st) st = positive(r, "low_freq_factor", 0, &low);
  if (!st) st = positive(r, "high_freq_factor", 0, &high);
  if (!st) st = positive(r, "original_max_position_embeddings", 0, &orig);
  if (!st && !(high > low))
    st = refuse(r, "high_freq_factor", "must be larger than low_freq_factor");
  float *v = st ? NULL : own_factors(r);
  for (uint32_t j = 0; v && j < r->n / 2; j++) {
    double theta = nm__pow(r->base, -2.0 * j / r->n), wave = TWO_PI / theta;
    double s = (orig / wave - low) / (high - low);
    s = s < 0 ? 0 : s > 1 ? 1 : s;
    v[j] = (float)(1 / ((1 - s) / f + s));
  }
  return v ? put_factors(r, "rope_freqs.weight", v) : r->c->err->status;
}

static int list(const struct rope *r, const char *key, const char *tensor) {
  json_t *list = nm__conf_get(&r->o, key), *x;
  size_t j;
  if (!json_is_array(list) || json_array_size(list) != r->n / 2)
    return nm__fail(r->c->err, NM_EFORMAT, "%s: rope: %s must be a list of %u numbers", r->c->name,
                    key, r->n / 2);
  float *v = own_factors(r);
  if (!v) return r->c->err->status;
  json_array_foreach(list, j, x) {
    v[j] = (float)json_number_value(x);
    if (!(v[j] > 0)) return refuse(r, key, "its numbers must be positive");
  }
  return put_factors(r, tensor, v);
}

/* The lists stand in the order of HF's and GGUF's writers: long, then short. */
static int longrope(const struct rope *r) {
  double longest = 0, orig = 0, attn;
  int st = NM_OK;
  nm__conf_number(r->c, "max_position_embeddings", &longest, &st);
  if (!nm__conf_number(&r->o, "original_max_position_embeddings", &orig, &st))
    nm__conf_number(r->c, "original_max_position_embeddings", &orig, &st);
  if (!st && (!(orig > 1) || orig > 1e9))
    st = nm__fail(r->c->err, NM_EFORMAT, "%s: rope: longrope needs "
                  "original_max_position_embeddings, a context above 1", r->c->name);
  if (nm__conf_get(&r->o, "long_mscale") || nm__conf_get(&r->o, "short_mscale"))
    return refuse(r, "long_mscale", "(or short_mscale) is not supported");
  double usual = longest > orig ? nm__sqrt(1 + nm__log(longest / orig) / nm__log(orig)) : 1;
  if (!st) st = positive(r, "attention_factor", usual, &attn);
  if (!st) st = list(r, "long_factor", "rope_factors_long.weight");
  if (!st) st = list(r, "short_factor", "rope_factors_short.weight");
  if (!st) st = nm__conf_put_u32(r->c, "rope.scaling.original_context_length", (uint32_t)orig);
  return st ? st : nm__conf_put_f32(r->c, "rope.scaling.attn_factor", attn);
}

/* ---- kinds of scaling -------------------------------------------------------- */

static int put_type(const struct rope *r, const char *type) {
  char k[96];
  snprintf(k, sizeof k, "%s.rope.scaling.type", r->c->f->arch);
  return nm__gguf_add_string(r->c->g, k, type, strlen(type), r->c->err);
}

static int linear(const struct rope *r) {
  double f;
  int st = positive(r, "factor", 0, &f);
  if (!st) st = put_type(r, "linear");
  return st ? st : nm__conf_put_f32(r->c, "rope.scaling.factor", f);
}

static int yarn(const struct rope *r) {
  double f, orig, fast, slow, attn, context = 0;
  int st = positive(r, "factor", 0, &f);
  nm__conf_number(r->c, "max_position_embeddings", &context, &st);
  if (!st) st = positive(r, "original_max_position_embeddings", context, &orig);
  if (!st) st = positive(r, "beta_fast", 32, &fast);
  if (!st) st = positive(r, "beta_slow", 1, &slow);
  double usual = !st && f > 1 ? 1 + 0.1 * nm__log(f) : 1;
  if (!st) st = positive(r, "attention_factor", usual, &attn);
  if (st) return st;
  if (fast < 32 || fast > 32) return refuse(r, "beta_fast", "only 32 is supported");
  if (slow < 1 || slow > 1) return refuse(r, "beta_slow", "only 1 is supported");
  if (nm__conf_get(&r->o, "mscale")) return refuse(r, "mscale", "is not supported");
  if (json_is_false(nm__conf_get(&r->o, "truncate")))
    return refuse(r, "truncate", "is not supported");
  if (orig > 1e9) return refuse(r, "original_max_position_embeddings", "is not a context");
  st = put_type(r, "yarn");
  if (!st) st = nm__conf_put_f32(r->c, "rope.scaling.factor", f);
  if (!st) st = nm__conf_put_u32(r->c, "rope.scaling.original_context_length", (uint32_t)orig);
  if (st || (attn >= usual && attn <= usual && f > 1)) return st;
  /* GGUF's factor comes on top of yarn's own. */
  return nm__conf_put_f32(r->c, "rope.scaling.attn_factor", attn / (1 + 0.1 * nm__log(f)));
}

static int none(const struct rope *r) {
  (void)r;
  return NM_OK;
}

static int scaling(const struct rope *r) {
  static const struct { const char *name; int (*put)(const struct rope *r); } kinds[] = {
      {"default", none}, {"linear", linear}, {"yarn", yarn}, {"llama3", llama3},
      {"longrope", longrope}, {"su", longrope}};
  const char *key = nm__conf_get(&r->o, "rope_type") ? "rope_type" : "type";
  json_t *type = nm__conf_get(&r->o, key);
  if (!type) return NM_OK;
  for (size_t i = 0; json_is_string(type) && i < sizeof kinds / sizeof *kinds; i++)
    if (!strcmp(kinds[i].name, json_string_value(type))) return kinds[i].put(r);
  if (json_is_string(type) && !strcmp(json_string_value(type), "dynamic"))
    return refuse(r, key, "dynamic scaling, whose base follows the length of the text, is not "
                  "supported; a config with \"linear\" or \"yarn\" is");
  return refuse(r, key, "is not a scaling that is known (default, linear, yarn, llama3, longrope)");
}

/* ---- the whole ------------------------------------------------------------------ */

/* Bases: beside the object, in it, or one a kind of layer. */
static int bases(struct rope *r, json_t *parameters) {
  json_t *full = json_object_get(parameters, "full_attention"),
         *local = json_object_get(parameters, "sliding_attention");
  double swa;
  int st = NM_OK;
  if (json_is_object(full)) r->o.c = full;
  nm__conf_number(r->c, "rope_theta", &r->base, &st);
  nm__conf_number(&r->o, "rope_theta", &r->base, &st);
  if (!st && !(r->base > 1 && r->base < 1e15))
    st = nm__fail(r->c->err, NM_EFORMAT, "%s: rope_theta %g must be a number above 1", r->name,
                  r->base);
  if (!st) st = nm__conf_put_f32(r->c, "rope.freq_base", r->base);
  struct nm__conf l = {.name = r->o.name, .c = local, .err = r->o.err};
  if (!json_is_object(local) || !nm__conf_number(&l, "rope_theta", &swa, &st)) return st;
  const char *kind = json_string_value(json_object_get(local, "rope_type"));
  if (kind && strcmp(kind, "default"))
    return nm__conf_refuse(&l, "rope_type", "of local layers: only 'default' is supported");
  char k[96];
  snprintf(k, sizeof k, "%s.rope.freq_base_swa", r->c->f->arch);
  const struct nm__gguf_kv *kv = nm__gguf_find(r->c->g, k);
  if (!kv) return refuse(r, "sliding_attention", "is not supported for this model");
  float v = (float)swa;
  memcpy((uint8_t *)(uintptr_t)kv->raw, &v, sizeof v);       /* in g's own memory */
  return NM_OK;
}

int nm__conf_rope(const struct nm__conf *c) {
  json_t *p = nm__conf_get(c, "rope_parameters"), *empty = json_object();
  if (!json_is_object(p)) p = nm__conf_get(c, "rope_scaling");
  struct rope r = {.o = *c, .c = c};
  r.o.c = json_is_object(p) ? p : empty;
  snprintf(r.name, sizeof r.name, "%s: rope", c->name);
  r.o.name = r.name;
  uint32_t D = 0, H = 0, hd = 0;
  double part = 1;
  int st = bases(&r, p);
  nm__conf_uint(c, "hidden_size", &D, &st);
  nm__conf_uint(c, "num_attention_heads", &H, &st);
  if (!nm__conf_uint(c, "head_dim", &hd, &st)) hd = H ? D / H : 0;
  nm__conf_number(c, "partial_rotary_factor", &part, &st);
  nm__conf_number(&r.o, "partial_rotary_factor", &part, &st);
  if (!st && (!(part > 0 && part <= 1) || hd < 2 || hd > 1 << 16 || (uint32_t)(hd * part) < 2))
    st = nm__fail(c->err, NM_EFORMAT, "%s: heads of %u, of which the part %g is rotated, cannot be",
                  c->name, hd, part);
  if (!st && part < 1 && !strcmp(c->f->arch, "llama"))
    st = nm__fail(c->err, NM_EFORMAT, "%s: heads of which only a part is rotated are not supported "
                  "for %s", c->name, c->f->model_type);
  if (!st) r.n = (uint32_t)(hd * part);
  if (!st) st = nm__conf_put_u32(c, "rope.dimension_count", r.n);
  if (!st) st = scaling(&r);
  json_decref(empty);
  return st;
}
