/* train_learn.c - which numbers a run learns (all, chosen tensors, single rows or columns,
 * adapters, a soft prompt, vectors), and the losses that say what for. */
#include <stdlib.h>
#include <string.h>

#include "learn/slot.h"
#include "learn/train.h"
#include "model/hf.h"

static const json_t *key(const struct nm__training *t, const char *name) {
  return json_object_get(t->r.y.root, name);
}

/* ---- the model --------------------------------------------------------------- */

int nm__training_container(struct nm__training *t, struct nm__gguf **out,
                           nm_err *err) {
  struct nm__gguf *tokenizer = NULL;
  nm_err own = {0};
  *out = NULL;
  if (t->r.base) {
    if (!nm__model_map(t->r.base, out, &own)) return NM_OK;
    return nm__yaml_fail(&t->r.y, key(t, "base"), err, "%s", own.text);
  }
  int st = t->r.tokenizer ? nm__docs_tokenizer(&t->r, &tokenizer, err) : NM_OK;
  if (!st && nm__fresh(&t->r.shape, tokenizer, (uint64_t)t->r.seed, out, &own))
    st = nm__yaml_fail(&t->r.y, key(t, "model"), err, "%s", own.text);
  nm__gguf_close(tokenizer);
  return st;
}

/* ---- beside the weights: a soft prompt, vectors ------------------------------ */

/* Rows of an earlier prompt: an .npy, or the tensor "prompt" of an adapter.gguf. */
static int read_prompt(const char *path, int D, struct nm__npy *out, nm_err *err) {
  size_t n = strlen(path);
  int st = NM_OK;
  if (n > 4 && !strcmp(path + n - 4, ".npy")) {
    st = nm__npy_read(path, out, err);
  } else {
    struct nm__gguf *g;
    if ((st = nm__gguf_open(path, &g, err))) return st;
    const struct nm__gguf_tensor *t = nm__gguf_tensor(g, "prompt");
    if (!t || t->type != NM__F32 || t->n_dims != 2) {
      st = nm__fail(err, NM_EFORMAT, "%s: holds no soft prompt (a tensor 'prompt' in F32)", path);
    } else {
      *out = (struct nm__npy){2, {t->ne[1], t->ne[0]}, t->ne[1] * t->ne[0], NULL};
      out->data = nm__alloc((size_t)out->n + 1, sizeof *out->data);
      if (out->data) memcpy(out->data, t->data, (size_t)t->bytes);
      else st = nm__fail_memory(err, "a soft prompt", (size_t)t->bytes);
    }
    nm__gguf_close(g);
  }
  if (!st && (out->n_dims != 2 || out->ne[1] != D || out->ne[0] < 1 || out->ne[0] > 1 << 16))
    st = nm__fail(err, NM_EFORMAT, "%s: a soft prompt for this model has rows of %d numbers", path,
                  D);
  return st;
}

static int add_prompt(struct nm__training *t, const nm_model *m, struct nm__gguf *g, nm_err *err) {
  struct nm__ids ids = {0};
  struct nm__npy old = {0};
  nm_err own = {0};
  const char *text = t->r.prompt_init;
  int n = t->r.prompt_n, st = NM_OK;
  if (text && !m->tok) st = nm__fail(&own, NM_EFORMAT, "'init' needs a tokenizer");
  if (!st && text)
    st = nm__tok_encode(m->tok, text, strlen(text), (struct nm__tok_opts){.no_bos = true}, &ids,
                        &own);
  if (!st && t->r.prompt_from) st = read_prompt(t->r.prompt_from, m->D, &old, &own);
  if (!st && old.data) n = (int)old.ne[0];
  if (!st) st = nm__params_soft(&t->p, g, m, n, ids.id, (int)ids.n, (uint64_t)t->r.seed, &own);
  if (!st && old.data)
    memcpy(t->p.values + t->p.v[t->p.n - 1].at, old.data, (size_t)old.n * sizeof *old.data);
  nm__npy_done(&old);
  nm__ids_done(&ids);
  return st ? nm__yaml_fail(&t->r.y, key(t, "soft_prompt"), err, "%s", own.text) : NM_OK;
}

static int add_vector(struct nm__training *t, const struct nm__vector_key *e, const nm_model *m,
                      struct nm__gguf *g, nm_err *err) {
  struct nm__places p = {0};
  nm_err own = {0};
  char name[60];
  int st = nm__places_open(m, "a learned vector", e->site, e->where, true, &p, &own);
  snprintf(name, sizeof name, "vector.%s", e->name);
  if (!st)
    st = nm__params_add(&t->p, g, name, e->each ? p.sels.n : 1, nm__sel_width(m, p.sels.v[0], 1),
                        &own);
  nm__places_done(&p);
  return st ? nm__yaml_fail(&t->r.y, e->at, err, "%s", own.text) : NM_OK;
}

/* m: the model, or one like it, which is not looked at later. */
static int add_beside(struct nm__training *t, const nm_model *m, struct nm__gguf *g, nm_err *err) {
  bool prompt = t->r.prompt_n || t->r.prompt_from;
  int st = prompt ? add_prompt(t, m, g, err) : NM_OK;
  for (int i = 0; i < t->r.n_vectors && !st; i++) st = add_vector(t, &t->r.vector[i], m, g, err);
  return st;
}

/* ---- tensors of the model ---------------------------------------------------- */

static int set_only(struct nm__training *t, const struct nm__only_key *e, nm_err *err) {
  size_t n = json_array_size(e->list);
  int32_t *v = nm__alloc(n + 1, sizeof *v);
  nm_err own = {0};
  if (!v) return nm__fail_memory(err, "a list of rows", n * sizeof *v);
  for (size_t i = 0; i < n; i++) v[i] = (int32_t)json_integer_value(json_array_get(e->list, i));
  int st = nm__params_only(&t->p, e->tensor, e->by_column, v, (int)n, &own);
  free(v);
  return st ? nm__yaml_fail(&t->r.y, e->at, err, "%s", own.text) : NM_OK;
}

/* What 'train' names, and the tensors of 'rows' and 'columns'; nothing named: all. */
static int tensor_globs(struct nm__training *t, const struct nm__gguf *g, const char **v, int *n,
                        nm_err *err) {
  const struct nm__texts_list *w = &t->r.train;
  bool all = w->n == 1 && !strcmp(w->v[0], "all");
  *n = 0;
  for (int i = 0; i < w->n && !all; i++) v[(*n)++] = w->v[i];
  for (int i = 0; i < t->r.n_only; i++) {
    const struct nm__only_key *e = &t->r.only[i];
    if (!nm__gguf_tensor(g, e->tensor))
      return nm__yaml_fail(&t->r.y, e->at, err, "the model has no tensor '%.60s' (noema info lists "
                           "them)", e->tensor);
    v[(*n)++] = e->tensor;
  }
  if (all || !*n) v[0] = "*", *n = 1;
  return NM_OK;
}

/* A soft prompt and vectors are made with a model of the same shape that is not trained. */
static int beside_tensors(struct nm__training *t, struct nm__gguf *container, nm_err *err) {
  struct nm__gguf *g = NULL;
  nm_model *m = NULL;
  if (!t->r.prompt_n && !t->r.prompt_from && !t->r.n_vectors) return NM_OK;
  int st = nm__training_container(t, &g, err);
  if (!st) st = nm__model_from(g, &m, err);
  if (!st) st = add_beside(t, m, container, err);
  nm_model_close(m);
  return st;
}

static int learn_tensors(struct nm__training *t, struct nm__gguf *g, nm_err *err) {
  const char **globs = nm__alloc((size_t)(t->r.train.n + t->r.n_only) + 1, sizeof *globs);
  struct nm__gguf *container = NULL;
  int n = 0;
  t->base = g;
  int st = globs ? tensor_globs(t, g, globs, &n, err) : nm__fail_memory(err, "the globs", 0);
  if (!st) st = nm__params_make(g, globs, n, &container, &t->p, err);
  if (!st && !t->p.n)
    st = nm__yaml_fail(&t->r.y, key(t, "train"), err, "no tensor of the model matches 'train'");
  if (!st) st = beside_tensors(t, container, err);
  for (int i = 0; i < t->r.n_only && !st; i++) st = set_only(t, &t->r.only[i], err);
  if (!st) st = nm__model_from(container, &t->m, err);
  else nm__gguf_close(container);
  free(globs);
  return st;
}

int nm__training_params(struct nm__training *t, struct nm__gguf *g, nm_err *err) {
  bool beside = t->r.prompt_n || t->r.prompt_from || t->r.n_vectors;
  if (!t->r.lora_rank && !(beside && !t->r.train.n && !t->r.n_only))
    return learn_tensors(t, g, err);
  struct nm__lora_opts o = {t->r.lora_rank, (float)t->r.lora_alpha, t->r.lora_targets.v,
                            t->r.lora_targets.n};
  int st = nm__model_from(g, &t->m, err);
  if (!st && t->r.lora_rank) st = nm__params_lora(&t->p, t->m, &o, (uint64_t)t->r.seed, err);
  return st ? st : add_beside(t, t->m, NULL, err);
}

/* ---- losses ------------------------------------------------------------------ */

static bool in_loss(const struct nm__loss_spec *e, const struct nm__sample *v) {
  return e->group == NM__ALL_GROUPS || v->group == e->group;
}

/* The data must hold what the loss reads: its groups, pairs, targets. */
static int check_data(const struct nm__training *t, int i, int64_t width, nm_err *err) {
  const struct nm__loss_spec *e = &t->spec[i];
  const struct nm__loss_key *k = &t->r.loss[i];
  const struct nm__loss_kind *kind = nm__loss_kind_of(e->name);
  int64_t found = 0, kept = 0;
  for (int s = 0; s < t->r.data.n; s++)
    for (int j = 0; j < t->set[s].n; j++) {
      const struct nm__sample *v = &t->set[s].v[j];
      kept += kind->two_groups && v->group == e->retain;
      if (!in_loss(e, v)) continue;
      found++;
      if (kind->unit == NM__PAIRS && !v->pair)
        return nm__yaml_fail(&t->r.y, k->at, err, "loss %s needs pairs, and rows of '%.60s' are "
                             "none: {\"prompt\", \"chosen\", \"rejected\"}", e->name,
                             t->r.data.v[s].file ? t->r.data.v[s].file : t->r.data.v[s].world);
      if (kind->unit == NM__PLACES && !e->target && v->n_target != width)
        return nm__yaml_fail(&t->r.y, k->at, err, "loss %s needs a 'target', here or in each row, "
                             "of %lld numbers; a row of '%.60s' has %d", e->name, (long long)width,
                             t->r.data.v[s].file ? t->r.data.v[s].file : t->r.data.v[s].world,
                             v->n_target);
    }
  if (!found)
    return nm__yaml_fail(&t->r.y, k->at, err, "loss %s: no row of the data is of group '%.40s'",
                         e->name, k->group ? k->group : "");
  if (kind->two_groups && !kept)
    return nm__yaml_fail(&t->r.y, k->at, err, "loss %s: no row of the data is of group '%.40s'",
                         e->name, k->retain);
  return NM_OK;
}

static int read_target(const struct nm__loss_key *k, struct nm__npy *out, nm_err *err) {
  size_t n = json_array_size(k->target);
  if (json_is_string(k->target)) return nm__npy_read(json_string_value(k->target), out, err);
  if (!n) return nm__fail(err, NM_EFORMAT, "'target' is a list of numbers or the name of an .npy");
  *out = (struct nm__npy){1, {(int64_t)n}, (int64_t)n, nm__alloc(n, sizeof *out->data)};
  if (!out->data) return nm__fail_memory(err, "a target", n * sizeof *out->data);
  for (size_t i = 0; i < n; i++) {
    const json_t *x = json_array_get(k->target, i);
    out->data[i] = (float)json_number_value(x);
    if (!json_is_number(x)) return nm__fail(err, NM_EFORMAT, "'target' must hold numbers only");
  }
  return NM_OK;
}

static struct nm__w matrix(const struct nm__npy *a, int64_t rows, int64_t cols) {
  return (struct nm__w){(const uint8_t *)a->data, NM__F32, rows, cols,
                        sizeof(float) * (size_t)cols};
}

/* Site, target and probe of a tap_* loss; *width: of its target. */
static int make_tap(struct nm__training *t, int i, int64_t *width, nm_err *err) {
  const struct nm__loss_key *k = &t->r.loss[i];
  struct nm__loss_spec *e = &t->spec[i];
  struct nm__places p = {0};
  struct nm__npy *probe = &t->of_spec[i].probe, *bias = &t->of_spec[i].bias,
                 *target = &t->of_spec[i].target;
  int st = nm__places_open(t->m, e->name, k->site, k->where, !t->r.recompute, &p, err);
  *width = st ? 0 : nm__sel_width(t->m, p.sels.v[0], 1);
  nm__places_done(&p);
  if (!st && k->probe) st = nm__npy_read(k->probe, probe, err);
  if (!st && k->bias) st = nm__npy_read(k->bias, bias, err);
  if (!st && k->probe) {
    int64_t labels = *width ? probe->n / *width : 0;
    if (!labels || probe->n != labels * *width || (k->bias && bias->n != labels))
      return nm__fail(err, NM_EFORMAT, "a probe at %s is [labels, %lld] with a bias for each label",
                      k->site, (long long)*width);
    e->probe = matrix(probe, labels, *width);
    if (k->bias) e->probe_bias = matrix(bias, 1, labels);
    *width = labels;
  }
  if (!st && k->target) st = read_target(k, target, err);
  if (!st && k->target && target->n != *width)
    return nm__fail(err, NM_EFORMAT, "the target at %s must have %lld numbers, it has %lld",
                    k->site, (long long)*width, (long long)target->n);
  e->target = target->data;
  return st;
}

static int make_loss(struct nm__training *t, int i, nm_err *err) {
  const struct nm__loss_key *k = &t->r.loss[i];
  const struct nm__loss_kind *kind = nm__loss_kind_of(k->kind);
  nm_err own = {0};
  int64_t width = 0;
  t->spec[i] = (struct nm__loss_spec){
      .name = kind->name, .weight = k->weight, .beta = kind->beta ? k->beta : 0, .gamma = k->gamma,
      .smooth = k->smooth, .site = k->site, .at = k->where,
      .group = k->group ? nm__recipe_group(&t->r, k->group) : NM__ALL_GROUPS,
      .retain = k->retain ? nm__recipe_group(&t->r, k->retain) : 0};
  if (kind->unit == NM__PLACES && make_tap(t, i, &width, &own))
    return nm__yaml_fail(&t->r.y, k->at, err, "%s", own.text);
  return check_data(t, i, width, err);
}

/* The frozen model: the base as it was, or a file of its own. */
static int make_reference(struct nm__training *t, nm_err *err) {
  const json_t *at = key(t, "reference");
  bool asked = t->r.reference && strcmp(t->r.reference, "base") != 0, needed = false;
  struct nm__gguf *g;
  nm_err own = {0};
  for (int i = 0; i < t->r.n_losses; i++) {
    const struct nm__loss_kind *k = nm__loss_kind_of(t->spec[i].name);
    if (k->ref || k->frozen) at = at ? at : t->r.loss[i].at, needed = true;
  }
  if (!needed && t->r.reference)
    return nm__yaml_fail(&t->r.y, at, err, "no loss compares with a reference");
  if (!needed || (!asked && !t->base)) return NM_OK;   /* the model without what is beside it */
  if (!asked && !t->r.base)
    return nm__yaml_fail(&t->r.y, at, err, "a new model has no base to compare with: 'reference' "
                         "names a file");
  if (nm__model_map(asked ? t->r.reference : t->r.base, &g, &own) ||
      nm__model_from(g, &t->reference, &own))
    return nm__yaml_fail(&t->r.y, at, err, "%s", own.text);
  if (t->reference->V != t->m->V || !t->reference->output.data)
    return nm__yaml_fail(&t->r.y, at, err, "%s has %d tokens and cannot be the reference of a "
                         "model with %d", t->reference->path, t->reference->V, t->m->V);
  t->s.frozen = t->reference;
  return NM_OK;
}

/* What is read beside the data is part of what a run goes on with. */
static int hash_beside(struct nm__training *t, nm_err *err) {
  char hex[33], all[66];
  for (int i = 0; i < t->r.n_losses; i++) {
    const struct nm__npy *const v[] = {&t->of_spec[i].target, &t->of_spec[i].probe,
                                       &t->of_spec[i].bias};
    for (int k = 0; k < 3; k++) {
      if (!v[k]->data) continue;
      nm__hash_hex(v[k]->data, (size_t)v[k]->n * sizeof *v[k]->data, hex);
      snprintf(all, sizeof all, "%s%s", t->at.data, hex);
      nm__hash_hex(all, strlen(all), t->at.data);
    }
  }
  if (!t->reference || !t->r.reference) return NM_OK;
  int st = nm_model_hash(t->reference, hex, err);
  snprintf(all, sizeof all, "%s%s", t->at.data, hex);
  if (!st) nm__hash_hex(all, strlen(all), t->at.data);
  return st;
}

static int make_edits(struct nm__training *t, nm_err *err) {
  int n = t->r.n_vectors;
  t->edits = nm__alloc((size_t)n + 1, sizeof *t->edits);
  if (!t->edits) return nm__fail_memory(err, "the edits", 0);
  for (int i = 0; i < n; i++) {
    const struct nm__vector_key *e = &t->r.vector[i];
    char name[60];
    snprintf(name, sizeof name, "vector.%s", e->name);
    t->edits[i] = (struct nm__learned_edit){e->site, e->where, (float)e->scale,
                                            nm__params_view(&t->p, name)};
  }
  t->s.edits = t->edits;
  t->s.n_edits = n;
  return NM_OK;
}

int nm__training_losses(struct nm__training *t, nm_err *err) {
  int st = make_edits(t, err);
  for (int i = 0; i < t->r.n_losses && !st; i++) st = make_loss(t, i, err);
  if (!st) st = make_reference(t, err);
  bool pairs = false;
  for (int i = 0; i < t->r.n_losses && !st; i++)
    pairs |= nm__loss_kind_of(t->spec[i].name)->unit == NM__PAIRS;
  for (int i = 0; i < t->r.eval.n && !st; i++)
    if (t->eval[i].per == 2 && !pairs)
      st = nm__yaml_fail(&t->r.y, t->r.eval.v[i].at, err, "no loss reads pairs: there is nothing "
                         "to test on them");
  return st ? st : hash_beside(t, err);
}

void nm__training_losses_done(struct nm__training *t) {
  for (int i = 0; i < NM__MOST_LOSSES; i++) {
    nm__npy_done(&t->of_spec[i].target);
    nm__npy_done(&t->of_spec[i].probe);
    nm__npy_done(&t->of_spec[i].bias);
  }
  nm_model_close(t->reference);
  free(t->edits);
}

static bool needs_reference(const struct nm__training *t, const struct nm__sample *v, bool test) {
  for (int i = 0; i < t->r.n_losses; i++)
    if (nm__loss_kind_of(t->spec[i].name)->ref && (test || in_loss(&t->spec[i], v))) return true;
  return false;
}

/* The samples are the sets' own: what is found out about one is known in every later epoch. */
int nm__training_reference(struct nm__training *t, const struct nm__sample *const *v, int n,
                           bool test, nm_err *err) {
  struct nm__sample **todo = nm__alloc((size_t)n + 1, sizeof *todo);
  int k = 0, st = NM_OK;
  if (!todo) return nm__fail_memory(err, "a batch", (size_t)n * sizeof *todo);
  for (int i = 0; i < n; i++)
    if (!v[i]->ref && needs_reference(t, v[i], test))
      todo[k++] = (struct nm__sample *)(uintptr_t)v[i];
  if (k) st = nm__loss_reference(&t->s, todo, k, err);
  free(todo);
  return st;
}
