/* adapter_peft.c - adapters as Hugging Face's PEFT keeps them: a folder of adapter_config.json and
 * adapter_model.safetensors, whose tensors are named after modules:
 *
 *   base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight   [rank, inputs]
 *   base_model.model.model.layers.3.self_attn.q_proj.lora_B.weight   [outputs, rank]
 *   base_model.model.model.embed_tokens.lora_embedding_A             [rank, vocabulary]
 *
 * Rows of B are those of the weight in Hugging Face's order. */
#include "model/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "model/hf.h"

#define PREFIX "base_model.model."
enum { CONFIG_MAX = 1 << 22, RANK_MAX = 1 << 16 };

static char *beside(const char *path, const char *name) {
  const char *base = nm__path_base(path);
  bool file = !strcmp(base, "adapter_config.json") || !strcmp(base, "adapter_model.safetensors");
  if (!file) return nm__path_join(path, name);
  char *dir = base == path ? nm__strdup(".") : nm__strndup(path, (size_t)(base - path));
  char *whole = dir ? nm__path_join(dir, name) : NULL;
  free(dir);
  return whole;
}

bool nm__adapter_is_peft(const char *path) {
  char *config = beside(path, "adapter_config.json");
  bool there = config && nm__exists(config);
  free(config);
  return there;
}

/* ---- the config ------------------------------------------------------------------ */

struct config { const char *path; json_t *j; double r, alpha; bool rslora; };

static int bad_config(const struct config *c, const char *key, const char *why, nm_err *err) {
  return nm__fail(err, NM_EFORMAT, "%s: adapter_config.json: %s %s", c->path, key, why);
}

static int read_config(struct config *c, nm_err *err) {
  static const char *const refused[] = {"use_dora", "use_qalora", "alora_invocation_tokens",
                                        "layer_replication", "lora_bias", "use_bdlora"};
  const char *type = json_string_value(json_object_get(c->j, "peft_type"));
  json_t *r = json_object_get(c->j, "r"), *alpha = json_object_get(c->j, "lora_alpha");
  if (!type || strcmp(type, "LORA"))
    return bad_config(c, "peft_type", "must be \"LORA\", the only kind that is known", err);
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    json_t *v = json_object_get(c->j, refused[i]);
    if (v && !json_is_null(v) && !json_is_false(v))
      return bad_config(c, refused[i], "is set, which is not supported", err);
  }
  if (!json_is_integer(r) || json_integer_value(r) < 1 || json_integer_value(r) > RANK_MAX)
    return bad_config(c, "r", "must be a rank, 1 to 65536", err);
  if (!json_is_number(alpha) || !isfinite(json_number_value(alpha)) ||
      fabs(json_number_value(alpha)) > 1e9)
    return bad_config(c, "lora_alpha", "must be a number", err);
  c->r = (double)json_integer_value(r);
  c->alpha = json_number_value(alpha);
  c->rslora = json_is_true(json_object_get(c->j, "use_rslora"));
  return NM_OK;
}

/* What a pattern of the config says for a module: its keys are ends of module names. Those that are
 * regular expressions are refused. */
static int pattern(const struct config *c, const char *key, const char *module, double *out,
                   nm_err *err) {
  const char *end;
  json_t *v;
  size_t n = strlen(module);
  json_object_foreach(json_object_get(c->j, key), end, v) {
    size_t k = strlen(end);
    if (strpbrk(end, "*+?[](){}|^$\\"))
      return bad_config(c, key, "holds a regular expression, which is not supported", err);
    if (!json_is_number(v) || !(fabs(json_number_value(v)) < 1e9))
      return bad_config(c, key, "must hold numbers", err);
    if (k && k <= n && !strcmp(module + n - k, end) && (k == n || module[n - k - 1] == '.')) {
      *out = json_number_value(v);
      return NM_OK;
    }
  }
  return NM_OK;
}

/* ---- tensors --------------------------------------------------------------------- */

/* "PREFIX" MODULE ".lora_A" [".default"] [".weight"], of A or B; `embedding`: lora_embedding_A. */
struct named { char module[160]; bool embedding; char which; size_t letter; };

static bool read_name(const char *s, struct named *out) {
  const char *at = strstr(s, ".lora_"), *rest, *from = s;
  if (!at) return false;
  rest = at + 6;
  out->embedding = !strncmp(rest, "embedding_", 10);
  if (out->embedding) rest += 10;
  out->which = *rest;
  if (out->which != 'A' && out->which != 'B') return false;
  out->letter = (size_t)(rest++ - s);
  if (!strncmp(rest, ".default", 8)) rest += 8;
  if (*rest && strcmp(rest, ".weight")) return false;
  if (!strncmp(from, PREFIX, sizeof PREFIX - 1)) from += sizeof PREFIX - 1;
  if (at <= from || (size_t)(at - from) > sizeof out->module - 10) return false;
  snprintf(out->module, sizeof out->module, "%.*s", (int)(at - from), from);
  return true;
}

struct reading {
  const struct config *c;
  const struct nm__st *s;
  const struct nm__gguf *g;        /* the base, or NULL */
  const struct nm__hf_family *f;
  struct nm__adapter *out;
  nm_err *err;
};

static int bad_tensor(const struct reading *r, const struct nm__st_tensor *t, const char *why) {
  char shown[160];
  return nm__fail(r->err, NM_EFORMAT, "%s: tensor '%s' %s", r->c->path,
                  nm__printable(shown, sizeof shown, t->name, strlen(t->name)), why);
}

/* Element i of a tensor. */
static float value(const struct nm__st_tensor *t, int64_t i) {
  const struct nm__dtype_info *d = nm__dtype((uint32_t)t->type);
  float x;
  uint64_t aligned = 0;
  memcpy(&aligned, t->data + (size_t)i * (size_t)d->bytes, (size_t)d->bytes);
  d->to_f32(&x, (const uint8_t *)&aligned, 1);
  return x;
}

/* The scale that PEFT gives a module of this rank. */
static int scale_of(const struct reading *r, const struct named *n, int64_t rank, float *out) {
  double want = r->c->r, alpha = r->c->alpha;
  int st = pattern(r->c, "rank_pattern", n->module, &want, r->err);
  if (!st) st = pattern(r->c, "alpha_pattern", n->module, &alpha, r->err);
  if (st) return st;
  if (want != (double)rank) {
    char shown[120];
    return nm__fail(r->err, NM_EFORMAT, "%s: the config gives %s rank %g, its matrices have %lld",
                    r->c->path, nm__printable(shown, sizeof shown, n->module, strlen(n->module)),
                    want, (long long)rank);
  }
  *out = (float)(alpha / (r->c->rslora ? sqrt((double)rank) : (double)rank));
  return NM_OK;
}

/* Where a module's weight is in a GGUF: its name there and how its rows are turned. */
static int place(const struct reading *r, const struct nm__st_tensor *t, const struct named *n,
                 char name[160], int *expert, enum nm__hf_change *change) {
  char hf[180], gguf[64], stacked[80], front[80];
  *expert = -1;
  *change = NM__HF_SAME;
  if (!r->g) {
    snprintf(name, 160, "%.150s", n->module);
    return NM_OK;
  }
  snprintf(hf, sizeof hf, "%s.weight", n->module);
  if (!r->f || !nm__hf_to_gguf(r->f, hf, gguf, change)) {
    char why[160];
    snprintf(why, sizeof why, "adapts a module that a model of type %s does not have here",
             r->f ? r->f->model_type : "this");
    return bad_tensor(r, t, why);
  }
  *expert = nm__expert_of(gguf, stacked, front);
  snprintf(name, 160, "%s", *expert >= 0 ? stacked : gguf);
  if (!strcmp(name, "token_embd.weight") == n->embedding) return NM_OK;
  return bad_tensor(r, t, n->embedding ? "is of an embedding, and the module is none"
                                       : "is of an embedding, whose adapters are lora_embedding_A");
}

static int add_pair(const struct reading *r, const struct nm__st_tensor *a,
                    const struct nm__st_tensor *b, const struct named *n) {
  char name[160];
  int expert;
  enum nm__hf_change change;
  float scale = 0;
  if (a->n_dims != 2 || b->n_dims != 2 || a->shape[0] != b->shape[1] || a->shape[0] < 1 ||
      a->shape[0] > RANK_MAX || a->shape[1] < 1 || b->shape[0] < 1)
    return bad_tensor(r, a, "and its B must be matrices that share their rank");
  if (a->type < 0 || b->type < 0 || !nm__dtype((uint32_t)a->type)->from_f32 ||
      !nm__dtype((uint32_t)b->type)->from_f32)
    return bad_tensor(r, a, "and its B must hold floating-point numbers");
  int64_t rank = a->shape[0], in = a->shape[1], out = b->shape[0];
  int st = scale_of(r, n, rank, &scale);
  if (!st) st = place(r, a, n, name, &expert, &change);
  if (st) return st;
  struct nm__adapter_part *p = nm__adapter_add(r->out, name, expert, n->embedding, rank,
                                               n->embedding ? in : out, n->embedding ? out : in,
                                               r->err);
  if (!p) return NM_EMEMORY;
  p->scale = scale;
  int n_head = r->g ? nm__hf_n_head(r->g, name) : 0;
  for (int64_t k = 0; k < rank; k++)
    for (int64_t i = 0; i < in; i++)
      p->a[n->embedding ? i * rank + k : k * in + i] = value(a, k * in + i);
  for (int64_t i = 0; i < out; i++) {
    int64_t from = n->embedding ? i : nm__hf_row(change, true, n_head, out, i);
    for (int64_t k = 0; k < rank; k++) p->b[i * rank + k] = value(b, from * rank + k);
  }
  return NM_OK;
}

static int read_tensors(const struct reading *r) {
  size_t n_a = 0, n_b = 0;
  int st = NM_OK;
  for (size_t i = 0; i < r->s->n && !st; i++) {
    const struct nm__st_tensor *t = &r->s->t[i];
    struct named n;
    if (!read_name(t->name, &n))
      return bad_tensor(r, t, "is no LoRA matrix (MODULE.lora_A.weight, .lora_B.weight); biases, "
                              "magnitudes and modules saved whole are not supported");
    n_a += n.which == 'A';
    n_b += n.which == 'B';
    if (n.which == 'B') continue;
    char *other = nm__strdup(t->name);
    if (!other) return nm__fail_memory(r->err, "a name", strlen(t->name));
    other[n.letter] = 'B';
    const struct nm__st_tensor *b = nm__st_find(r->s, other);
    free(other);
    st = b ? add_pair(r, t, b, &n) : bad_tensor(r, t, "has no lora_B beside it");
  }
  if (!st && n_a != n_b)
    st = nm__fail(r->err, NM_EFORMAT, "%s: has %zu lora_A and %zu lora_B: some have no partner",
                  r->c->path, n_a, n_b);
  return st;
}

/* Experts in their order, beside each other; other parts by name. */
static int by_place(const void *x, const void *y) {
  const struct nm__adapter_part *a = x, *b = y;
  int c = strcmp(a->name, b->name);
  return c ? c : (a->expert > b->expert) - (a->expert < b->expert);
}

int nm__adapter_from_peft(const char *path, const char *json, size_t n, const struct nm__st *s,
                          const struct nm__gguf *base, struct nm__adapter *out, nm_err *err) {
  nm_err own = {0};
  if (!err) err = &own;
  struct config c = {.path = path, .j = nm__json_parse(path, json, n, 100000, err)};
  struct reading r = {&c, s, base, base ? nm__hf_family_of(base) : NULL, out, err};
  out->form = "PEFT";
  int st = c.j ? read_config(&c, err) : err->status;
  if (!st) st = read_tensors(&r);
  json_decref(c.j);
  if (st) return st;
  if (out->n) qsort(out->part, out->n, sizeof *out->part, by_place);
  return nm__adapter_check(out, err);
}

int nm__adapter_open_peft(const char *path, const struct nm__gguf *base, struct nm__adapter *out,
                          nm_err *err) {
  char *config = beside(path, "adapter_config.json"),
       *weights = beside(path, "adapter_model.safetensors");
  struct nm__map map = {0};
  struct nm__st *s = NULL;
  int st = config && weights ? nm__map_open(config, &map, err)
                             : nm__fail_memory(err, "a path", strlen(path));
  if (!st && map.size > CONFIG_MAX)
    st = nm__fail(err, NM_EFORMAT, "%s: has %zu bytes, a config has at most %d", config, map.size,
                  CONFIG_MAX);
  if (!st && !nm__exists(weights))
    st = nm__fail(err, NM_EFORMAT, "%s: is missing beside adapter_config.json (adapters kept as "
                  ".bin are not read)", weights);
  if (!st) st = nm__st_open(weights, &s, err);
  if (!st) st = nm__adapter_from_peft(path, (const char *)map.data, map.size, s, base, out, err);
  nm__st_close(s);
  if (map.data) nm__map_close(&map);
  free(config);
  free(weights);
  return st;
}
