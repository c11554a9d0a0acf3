/* convert_hf.c - a model written as a Hugging Face directory: config.json, and the weights in
 * model.safetensors or in several files with an index. Quantised tensors become F32. */
#include "model/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- which tensors ----------------------------------------------------------- */

/* What config.json says in another way. */
static bool is_fact(const char *name) {
  return !strcmp(name, "rope_freqs.weight") || !strncmp(name, "rope_factors_", 13);
}

static int unknown(const struct nm__plan *p, const struct nm__gguf_tensor *t, nm_err *err) {
  return nm__fail(err, NM_EFORMAT, "%s: tensor '%s' has no name in a Hugging Face directory "
                  "of this family", p->g->path, t->name);
}

/* Where the rows of a change lie, and the sizes of the result. */
static int shape(const struct nm__plan *p, const struct nm__gguf_tensor *t,
                 enum nm__hf_change change, struct nm__item *it, nm_err *err) {
  it->change = change == NM__HF_ROTARY && p->g->hf_rows ? NM__HF_SAME : change;
  it->n_head = nm__hf_n_head(p->g, t->name);
  if (it->change == NM__HF_SAME || it->change == NM__HF_PLUS_ONE) return NM_OK;
  int st = nm__item_rows(it, t, err);
  if (!st && it->change == NM__HF_TRANSPOSE) {
    it->ne[0] = it->rows;
    it->ne[1] = it->cols;
  }
  return st;
}

/* A stack of experts becomes a tensor each. */
static int add_experts(struct nm__plan *p, const struct nm__hf_family *f,
                       const struct nm__gguf_tensor *t, uint32_t to, nm_err *err) {
  const char *exps = strstr(t->name, "_exps.");
  enum nm__hf_change change;
  struct nm__item *it;
  char one[160], name[160];
  int st = NM_OK;
  for (int64_t e = 0; e < t->ne[2] && !st; e++) {
    snprintf(one, sizeof one, "%.*s.%lld.%s", (int)(exps - t->name), t->name, (long long)e,
             exps + 6);
    if (!nm__hf_from_gguf(f, one, name, sizeof name, &change)) return unknown(p, t, err);
    st = nm__plan_add(p, name, t, to, 2, (int64_t[]){t->ne[0], t->ne[1], 1, 1}, 1, &it, err);
    if (!st) it->part[0] = t->data + (uint64_t)e * (t->bytes / (uint64_t)t->ne[2]);
  }
  return st;
}

static int add_one(struct nm__plan *p, const struct nm__hf_family *f,
                   const struct nm__recipe_facts *facts, const struct nm__gguf_tensor *t,
                   nm_err *err) {
  enum nm__hf_change change;
  struct nm__item *it;
  char name[160];
  uint32_t to;
  if (is_fact(t->name)) return NM_OK;
  int st = nm__plan_type(p, facts, t, &to, err);
  if (st) return st;
  if (!p->recipe && nm__dtype(to)->block > 1) to = NM__F32;
  if (!nm__st_dtype(to, &(int){0}))
    return nm__fail(err, NM_EUSAGE, "tensor '%s' cannot be %s in safetensors: F32, F16 and "
                    "BF16 can", t->name, nm__dtype(to)->name);
  if (strstr(t->name, "_exps.") && t->ne[2] > 0) return add_experts(p, f, t, to, err);
  if (!nm__hf_from_gguf(f, t->name, name, sizeof name, &change)) return unknown(p, t, err);
  st = nm__plan_add(p, name, t, to, t->n_dims, t->ne, 1, &it, err);
  if (st) return st;
  it->part[0] = t->data;
  return shape(p, t, change, it, err);
}

int nm__plan_hf(struct nm__plan *p, const struct nm__recipe_facts *facts, nm_err *err) {
  const struct nm__hf_family *f = nm__hf_family_of(p->g);
  int st = NM_OK;
  if (!f) {
    struct nm__buf known;
    nm__buf_init(&known, 1000);
    nm__hf_family_names(&known);
    st = nm__fail(err, NM_EFORMAT, "%s: this architecture has no Hugging Face form here (known: "
                  "%s)",
                  p->g->path, known.s ? known.s : "");
    nm__buf_done(&known);
    return st;
  }
  for (size_t i = 0; i < p->g->n_tensors && !st; i++)
    st = add_one(p, f, facts, &p->g->tensors[i], err);
  return st ? st
            : nm__plan_files(p, "model.safetensors", "model-%05zu-of-%05zu.safetensors", err);
}

/* ---- writing ------------------------------------------------------------------- */

static int sink(void *w, const void *bytes, size_t n, nm_err *err) {
  return nm__st_data(w, bytes, n, err);
}

static int write_weights(struct nm__plan *p, const struct nm__plan_file *f, nm_err *err) {
  struct nm__st_writer *w;
  int64_t k;
  int st = nm__st_writer_new(&w, err);
  if (st) return st;
  nm__st_put(w, "format", "pt");
  for (size_t i = f->first; i < f->first + f->n; i++) {
    const struct nm__item *it = &p->item[i];
    int64_t dims[4];
    for (int d = 0; d < it->n_dims; d++) dims[d] = it->ne[it->n_dims - 1 - d];
    nm__st_announce(w, it->name, it->to, it->n_dims, dims);
  }
  char *path = nm__path_join(p->o->out, f->path);
  st = path ? nm__st_begin(w, path, err) : nm__fail_memory(err, "a path", 0);
  while (!st && (k = nm__st_next(w)) >= 0)
    st = nm__item_stream(p, &p->item[f->first + (size_t)k], sink, w, err);
  if (!st) st = nm__st_finish(w, err);
  nm__st_writer_free(w);
  free(path);
  return st;
}

static int write_json(const struct nm__plan *p, const char *name, json_t *j, nm_err *err) {
  char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL, *path = nm__path_join(p->o->out, name);
  int st = text && path ? nm__write_file(path, text, strlen(text), err)
                        : nm__fail_memory(err, name, 0);
  free(text);
  free(path);
  json_decref(j);
  return st;
}

static int write_index(struct nm__plan *p, nm_err *err) {
  json_t *j = json_object(), *map = json_object();
  uint64_t total = 0;
  for (size_t i = 0; i < p->n_files; i++)
    for (size_t k = p->file[i].first; k < p->file[i].first + p->file[i].n; k++) {
      json_object_set_new(map, p->item[k].name, json_string(p->file[i].path));
      total += p->item[k].bytes;
    }
  json_object_set_new(j, "metadata", json_pack("{s:I}", "total_size", (json_int_t)total));
  json_object_set_new(j, "weight_map", map);
  return write_json(p, "model.safetensors.index.json", j, err);
}

/* What most of the weights are. */
static const char *torch_dtype(const struct nm__plan *p) {
  uint64_t n16 = 0, nb = 0, n = 0;
  for (size_t i = 0; i < p->n; i++) {
    n16 += p->item[i].to == NM__F16 ? p->item[i].bytes : 0;
    nb += p->item[i].to == NM__BF16 ? p->item[i].bytes : 0;
    n += p->item[i].bytes;
  }
  return 2 * n16 > n ? "float16" : 2 * nb > n ? "bfloat16" : "float32";
}

/* config.json comes last: a directory that was cut off holds no model. */
int nm__write_hf(struct nm__plan *p, nm_err *err) {
  json_t *config;
  int st = nm__hf_config(p->g, &config, err);
  if (st) return st;
  json_object_set_new(config, "torch_dtype", json_string(torch_dtype(p)));
  st = nm__mkdirs(p->o->out, err);
  for (size_t i = 0; i < p->n_files && !st; i++)
    if (!(st = write_weights(p, &p->file[i], err))) p->n_written++;
  if (!st && p->n_files > 1) st = write_index(p, err);
  if (!st) st = nm__write_tokenizer(p, err);
  if (st) json_decref(config);
  return st ? st : write_json(p, "config.json", config, err);
}
