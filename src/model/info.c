/* info.c - what a model file or folder holds, for people and as JSON. Any valid container is
 * shown; one that noema cannot run says why. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/json.h"
#include "model/hf_impl.h"

static json_t *value_json(const struct nm__gguf *g, const struct nm__gguf_kv *kv) {
  struct nm__str s;
  int64_t i;
  double d;
  if (kv->type == NM__GGUF_STRING)
    return nm__gguf_string(g, kv->key, &s, NULL) ? json_null() : nm__json_text_n(s.s, s.n);
  if (kv->type == NM__GGUF_ARRAY)
    return json_pack("{s:s, s:I}", "array_of", nm__gguf_type_name(kv->elem_type), "n",
                     (json_int_t)kv->n);
  if (nm__gguf_int_at(kv, 0, &i)) return json_integer(i);
  if (nm__gguf_float_at(kv, 0, &d)) return d - d == 0 ? json_real(d) : json_string("not finite");
  return json_null();
}

static json_t *container_json(const struct nm__gguf *g) {
  json_t *keys = json_object(), *tensors = json_array();
  for (size_t i = 0; i < g->n_kv; i++) {
    char shown[200];
    nm__printable(shown, sizeof shown, g->kv[i].key, strlen(g->kv[i].key));
    json_object_set_new(keys, shown, value_json(g, &g->kv[i]));
  }
  for (size_t i = 0; i < g->n_tensors; i++) {
    const struct nm__gguf_tensor *t = &g->tensors[i];
    json_t *ne = json_array();
    for (int d = 0; d < t->n_dims; d++) json_array_append_new(ne, json_integer(t->ne[d]));
    json_array_append_new(tensors, json_pack("{s:o, s:s, s:o, s:I}", "name",
                                             nm__json_text_n(t->name, strlen(t->name)), "type",
                                             nm__dtype(t->type)->name, "shape", ne, "bytes",
                                             (json_int_t)t->bytes));
  }
  return json_pack("{s:s, s:s, s:I, s:o, s:o}", "file", nm__path_base(g->path), "format",
                   g->format, "bytes", (json_int_t)nm__gguf_bytes(g), "metadata", keys, "tensors",
                   tensors);
}

static void add_model_json(json_t *o, const nm_model *m) {
  nm_model_info i;
  nm_model_describe(m, &i);
  json_object_set_new(o, "model",
                      json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:s, "
                                "s:s, s:b, s:s, s:s, s:s}",
                                "name", i.name, "arch", i.arch, "layers", i.L, "width", i.D,
                                "heads", i.H, "kv_heads", i.K, "head_dim", i.head_dim, "mlp", i.F,
                                "vocab", i.V, "context", i.n_ctx, "parameters",
                                (json_int_t)i.n_params, "weight_bytes", (json_int_t)i.weight_bytes,
                                "types", i.types, "rope", i.rope, "tied", i.tied, "tokenizer",
                                i.tokenizer, "pre", i.pre, "warning", i.warning));
  json_t *more = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:s}", "window", i.window,
                           "windowed_layers", i.n_windowed, "experts", i.n_experts, "experts_used",
                           i.n_experts_used, "expert_mlp", i.expert_F, "shared_expert_mlp",
                           i.shared_F, "encoder", i.encoder, "pooling",
                           nm_pooling_name(i.pooling));
  if (more) json_object_update(json_object_get(o, "model"), more);
  json_decref(more);
}

/* ---- text ------------------------------------------------------------------ */

static const char *human(uint64_t bytes, char out[32]) {
  static const char *const unit[] = {"bytes", "kB", "MB", "GB", "TB"};
  double v = (double)bytes;
  int u = 0;
  while (v >= 1000 && u < 4) { v /= 1000; u++; }
  snprintf(out, 32, u ? "%.1f %s" : "%.0f %s", v, unit[u]);
  return out;
}

static void container_text(struct nm__buf *b, const struct nm__gguf *g) {
  char h[32];
  nm__buf_printf(b, "%s: %s, %s, %zu metadata keys, %zu tensors\n", g->path, g->format,
                 human(nm__gguf_bytes(g), h), g->n_kv, g->n_tensors);
}

static void model_text(struct nm__buf *b, const nm_model *m) {
  nm_model_info i;
  char h[32], h2[32];
  nm_model_describe(m, &i);
  int ctx = i.n_ctx < 4096 ? i.n_ctx : 4096;
  uint64_t kv = nm__kv_bytes(m->causal ? i.L : 1, ctx, (int64_t)i.K * i.head_dim);
  nm__buf_printf(b, "  architecture   %s%s%s\n", i.arch, *i.name ? ", " : "", i.name);
  nm__buf_printf(
      b, "  sizes          L %d layers, D %d, H %d heads of %d, K %d kv heads, F %d, V %d\n", i.L,
      i.D, i.H, i.head_dim, i.K, i.F, i.V);
  nm__buf_printf(b, "  parameters     %.3g M; head %s\n", (double)i.n_params / 1e6,
                 i.encoder ? "none" : i.tied ? "tied to the embedding" : "of its own");
  if (i.encoder)
    nm__buf_printf(b, "  encoder        %s; sentence vectors: %s\n",
                   m->causal ? "causal" : "all positions see each other",
                   nm_pooling_name(i.pooling));
  nm__buf_printf(b, "  stored as      %s\n", i.types);
  if (i.n_experts) {
    nm__buf_printf(b, "  experts        %d in every layer, %d of them used, F %d", i.n_experts,
                   i.n_experts_used, i.expert_F);
    if (i.shared_F) nm__buf_printf(b, "; and a shared one, F %d", i.shared_F);
    nm__buf_puts(b, "\n");
  }
  nm__buf_printf(b, "  positions      context %d, rotary %s\n", i.n_ctx, i.rope);
  if (i.window)
    nm__buf_printf(b, "  window         %d positions in %d of %d layers\n", i.window, i.n_windowed,
                   i.L);
  for (int k = 0; k < nm_adapters_n(m->adapters); k++)
    nm__buf_printf(b, "  adapter        %s\n", nm_adapters_what(m->adapters, k));
  nm__buf_printf(b, "  tokenizer      %s%s%s\n", *i.tokenizer ? i.tokenizer : "none",
                 *i.pre ? ", pre " : "", i.pre);
  nm__buf_printf(b, "  memory         weights %s (mapped, shared), KV cache %s at %d positions\n",
                 human(i.weight_bytes, h), human(kv, h2), ctx);
  if (*i.warning) nm__buf_printf(b, "  warning        %s\n", i.warning);
}

static void sites_text(struct nm__buf *b, const nm_model *m) {
  nm_site *s;
  int n;
  if (nm_sites(m, &s, &n)) return;
  nm__buf_printf(b, "\n  %-24s %-10s %s\n", "site", "width", "bytes a position");
  for (int i = 0; i < n; i++) {
    if (s[i].layer > 0) continue;
    char name[64];
    char *number = s[i].layer == 0 ? strstr(s[i].name, "blk.0.") : NULL;
    if (number) number[4] = 'N';
    snprintf(name, sizeof name, "%s", s[i].name);
    if (s[i].width)
      nm__buf_printf(b, "  %-24s %-10lld %lld\n", name, (long long)s[i].width,
                     (long long)s[i].width * 4);
    else nm__buf_printf(b, "  %-24s %-10s %s\n", name, "H x keys", "4 x H x keys");
  }
  nm__buf_printf(b, "  N = 0 to %d; the same for every layer\n", m->L - 1);
  free(s);
}

static void sites_json(json_t *o, const nm_model *m) {
  nm_site *s;
  int n;
  if (nm_sites(m, &s, &n)) return;
  json_t *list = json_array();
  for (int i = 0; i < n; i++)
    json_array_append_new(list, json_pack("{s:s, s:i, s:I}", "name", s[i].name, "layer", s[i].layer,
                                          "width", (json_int_t)s[i].width));
  json_object_set_new(o, "sites", list);
  free(s);
}

/* ---- safetensors that are no model ------------------------------------------- */

static json_t *st_tensor_json(const struct nm__st_tensor *t) {
  json_t *shape = json_array();
  for (int d = t->n_dims; d-- > 0;) json_array_append_new(shape, json_integer(t->shape[d]));
  return json_pack("{s:o, s:s, s:o, s:I}", "name", nm__json_text(t->name), "type", t->dtype,
                   "shape", shape, "bytes", (json_int_t)t->bytes);
}

/* Shapes stand as for GGUF, fastest first, so that one reader serves both. */
static json_t *files_json(const char *path, const struct nm__hf_files *s) {
  json_t *keys = json_object(), *tensors = json_array();
  uint64_t bytes = 0;
  for (size_t i = 0; i < s->n; i++) {
    const struct nm__st *f = s->v[i];
    bytes += f->map.size;
    for (size_t k = 0; k < f->n_meta; k++)
      json_object_set_new(keys, f->meta[k].key, nm__json_text(f->meta[k].value));
    for (size_t k = 0; k < f->n; k++) json_array_append_new(tensors, st_tensor_json(&f->t[k]));
  }
  return json_pack("{s:s, s:s, s:I, s:o, s:o}", "file", nm__path_base(path), "format",
                   "safetensors", "bytes", (json_int_t)bytes, "metadata", keys, "tensors", tensors);
}

static void files_text(struct nm__buf *b, const char *path, const struct nm__hf_files *s) {
  uint64_t bytes = 0;
  size_t meta = 0, n = 0;
  char h[32];
  for (size_t i = 0; i < s->n; i++) {
    bytes += s->v[i]->map.size;
    meta += s->v[i]->n_meta;
    n += s->v[i]->n;
  }
  nm__buf_printf(b, "%s: safetensors, %s, %zu metadata keys, %zu tensors\n", path, human(bytes, h),
                 meta, n);
}

/* ---- the whole ------------------------------------------------------------------ */

static void put_json(struct nm__buf *b, json_t *o, const nm_model *m, const nm_err *why,
                     bool sites) {
  if (o && m) add_model_json(o, m);
  else if (o) json_object_set_new(o, "no_model", nm__json_text(why->text));
  if (o && m && sites) sites_json(o, m);
  char *s = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
  nm__buf_printf(b, "%s\n", s ? s : "{}");
  free(s);
  json_decref(o);
}

/* A folder that is no model here is still shown where its weights can be read, and so is a
 * safetensors file of any name. */
static int open_container(const char *path, struct nm__gguf **g, struct nm__hf_files *files,
                          const nm_err *why, nm_err *err) {
  *files = (struct nm__hf_files){0};
  nm_err again;                    /* the model's sentence says more */
  int st = nm__model_map(path, g, &again);
  if (!st) return NM_OK;
  size_t n = strlen(path);
  bool one = n > 12 && !strcmp(path + n - 12, ".safetensors");
  if (one) {
    if (!(files->v = nm__alloc(1, sizeof *files->v))) return nm__fail_memory(err, "a file", 8);
    st = nm__st_open(path, &files->v[0], err);
    files->n = !st;
  } else if (nm__hf_is(path)) {
    st = nm__hf_files_of(path, files, NULL);
  }
  if (st && !one && err) *err = *why;
  return st;
}

int nm_info(const char *path, bool json, bool sites, char **out, nm_err *err) {
  struct nm__gguf *g = NULL;
  struct nm__hf_files files = {0};
  nm_model *m = NULL;
  nm_err why = {0};
  *out = NULL;
  int st = nm_model_open(path, &m, &why) ? open_container(path, &g, &files, &why, err) : NM_OK;
  const struct nm__gguf *shown = m ? m->g : g;
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 30);
  if (!st && json) {
    put_json(&b, shown ? container_json(shown) : files_json(path, &files), m, &why, sites);
  } else if (!st) {
    if (shown) container_text(&b, shown);
    else files_text(&b, path, &files);
    if (m) model_text(&b, m);
    else nm__buf_printf(&b, "  no model here: %s\n", why.text);
    if (m && sites) sites_text(&b, m);
  }
  nm_model_close(m);
  nm__gguf_close(g);
  nm__hf_files_done(&files);
  if (!st && b.failed) st = nm__fail_memory(err, "the description", b.len);
  if (st) nm__buf_done(&b);
  else *out = b.s;
  return st;
}
