/* adapter_peft_write.c - an adapter written as a folder of PEFT's. */
#include "model/adapter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "model/hf.h"

/* The module of a part in the family's names ("model.layers.3.self_attn.q_proj"), and how rows of B
 * go back. */
static int module_of(const struct nm__adapter_part *p, const struct nm__hf_family *f,
                     char out[200], enum nm__hf_change *change, nm_err *err) {
  char name[180];
  const char *stack = strstr(p->name, "_exps.weight");
  if (p->expert >= 0 && stack)
    snprintf(name, sizeof name, "%.*s.%d.weight", (int)(stack - p->name), p->name, p->expert);
  else snprintf(name, sizeof name, "%s", p->name);
  if (!nm__hf_from_gguf(f, name, out, 200, change))
    return nm__fail(err, NM_EFORMAT, "%s: a model of type %s has no module for it", p->name,
                    f->model_type);
  size_t n = strlen(out), cut = sizeof ".weight" - 1;
  if (n > cut) out[n - cut] = 0;
  return NM_OK;
}

static void tensor_name(const struct nm__adapter_part *p, const char *module, char which,
                        char out[260]) {
  snprintf(out, 260, "base_model.model.%s.lora_%s%c%s", module, p->lookup ? "embedding_" : "",
           which, p->lookup ? "" : ".weight");
}

static int add_target(json_t *targets, const char *module) {
  const char *dot = strrchr(module, '.'), *last = dot ? dot + 1 : module;
  size_t i;
  json_t *v;
  json_array_foreach(targets, i, v) if (!strcmp(json_string_value(v), last)) return 0;
  return json_array_append_new(targets, json_string(last));
}

/* Ranks and alphas that differ from the first part's stand in patterns by module. */
static json_t *make_config(const struct nm__adapter *a, const struct nm__hf_family *f,
                           const char *base_path, nm_err *err) {
  json_t *targets = json_array(), *ranks = json_object(), *alphas = json_object();
  double rank = (double)a->part[0].rank, alpha = (double)a->part[0].scale * rank;
  int bad = 0;
  for (size_t i = 0; i < a->n; i++) {
    const struct nm__adapter_part *p = &a->part[i];
    char module[200];
    enum nm__hf_change change;
    if (module_of(p, f, module, &change, err)) bad = 1;
    else bad |= add_target(targets, module);
    double own = (double)p->scale * (double)p->rank;
    if (!bad && (double)p->rank != rank)
      bad |= json_object_set_new(ranks, module, json_integer(p->rank));
    if (!bad && own != alpha) bad |= json_object_set_new(alphas, module, json_real(own));
  }
  json_t *j = json_pack(
      "{s:s, s:s, s:I, s:f, s:f, s:s, s:b, s:b, s:s, s:o, s:o, s:o, s:o}", "peft_type", "LORA",
      "task_type", f->head ? "CAUSAL_LM" : "FEATURE_EXTRACTION", "r",
      (json_int_t)a->part[0].rank, "lora_alpha", alpha, "lora_dropout", 0.0, "bias", "none",
      "fan_in_fan_out", !strcmp(f->model_type, "gpt2"), "use_rslora", 0,
      "base_model_name_or_path", base_path, "target_modules", targets, "rank_pattern", ranks,
      "alpha_pattern", alphas, "modules_to_save", json_null());
  if (!bad && j) return j;
  json_decref(j);
  if (!j) nm__fail_memory(err, "a config", 0);
  return NULL;
}

static int write_config(const struct nm__adapter *a, const struct nm__hf_family *f,
                        const char *base_path, const char *path, nm_err *err) {
  json_t *j = make_config(a, f, base_path, err);
  if (!j) return err && err->status ? err->status : NM_EFAIL;
  char *text = json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
  int st = text ? nm__write_file(path, text, strlen(text), err)
                : nm__fail_memory(err, "a config", 0);
  free(text);
  json_decref(j);
  return st;
}

/* A matrix as PEFT has it, in fresh memory. */
static float *values(const struct nm__adapter_part *p, const struct nm__gguf *g, bool is_b,
                     enum nm__hf_change change, size_t *n) {
  int64_t a[2], b[2], n_head = nm__hf_n_head(g, p->name);
  nm__adapter_sizes(p, a, b);
  *n = (size_t)(is_b ? b[0] * b[1] : a[0] * a[1]);
  float *out = nm__alloc(*n + 1, sizeof *out);
  for (int64_t i = 0; out && i < (is_b ? b[0] : a[0]); i++)
    for (int64_t k = 0; k < (is_b ? b[1] : a[1]); k++) {
      int64_t from = is_b && !p->lookup ? nm__hf_row(change, false, (int)n_head, b[0], i) : i;
      if (is_b) out[i * b[1] + k] = p->b[from * b[1] + k];
      else if (p->lookup) out[k * a[0] + i] = p->a[i * a[1] + k];
      else out[i * a[1] + k] = p->a[i * a[1] + k];
    }
  return out;
}

static int write_tensors(const struct nm__adapter *a, const struct nm__gguf *g,
                         const struct nm__hf_family *f, const char *path, nm_err *err) {
  struct nm__st_writer *w;
  enum nm__hf_change change = NM__HF_SAME;
  char module[200], name[260];
  int st = nm__st_writer_new(&w, err);
  if (st) return st;
  nm__st_put(w, "format", "pt");
  for (size_t i = 0; i < 2 * a->n && !st; i++) {
    const struct nm__adapter_part *p = &a->part[i / 2];
    int64_t s[2][2], wide[2];
    nm__adapter_sizes(p, s[0], s[1]);
    bool turned = p->lookup && i % 2 == 0;         /* PEFT: [rank, vocabulary] */
    wide[0] = s[i % 2][turned];
    wide[1] = s[i % 2][!turned];
    st = module_of(p, f, module, &change, err);
    tensor_name(p, module, i % 2 ? 'B' : 'A', name);
    if (!st) nm__st_announce(w, name, NM__F32, 2, wide);
  }
  if (!st) st = nm__st_begin(w, path, err);
  for (int64_t i; !st && (i = nm__st_next(w)) >= 0;) {
    const struct nm__adapter_part *p = &a->part[i / 2];
    size_t n;
    st = module_of(p, f, module, &change, err);
    float *v = st ? NULL : values(p, g, i % 2, change, &n);
    if (!st) st = v ? nm__st_data(w, v, n * sizeof *v, err) : nm__fail_memory(err, p->name, 0);
    free(v);
  }
  if (!st) st = nm__st_finish(w, err);
  nm__st_writer_free(w);
  return st;
}

int nm__adapter_write_peft(const struct nm__adapter *a, const struct nm__gguf *g,
                           const char *base_path, const char *dir, nm_err *err) {
  const struct nm__hf_family *f = nm__hf_family_of(g);
  char *config = nm__path_join(dir, "adapter_config.json"),
       *weights = nm__path_join(dir, "adapter_model.safetensors");
  nm_err own = {0};
  if (!err) err = &own;
  int st = config && weights ? NM_OK : nm__fail_memory(err, "a path", strlen(dir));
  if (!st && !f)
    st = nm__fail(err, NM_EFORMAT, "%s: there is no Hugging Face family for this architecture",
                  g->path);
  if (!st) st = nm__mkdirs(dir, err);
  if (!st) st = write_tensors(a, g, f, weights, err);
  if (!st) st = write_config(a, f, base_path, config, err);
  free(config);
  free(weights);
  return st;
}
