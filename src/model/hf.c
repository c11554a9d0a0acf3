/* hf.c - a Hugging Face directory shown as a GGUF made in memory. */
#include "model/hf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "core/json.h"
#include "model/hf_impl.h"
#include "model/series.h"
#include "text/hf_keys.h"
#include "text/spmodel.h"

enum { CONFIG_MAX = 1 << 22 };

/* ---- tensors ----------------------------------------------------------- */

struct made { struct nm__gguf *g; struct nm__hf_facts facts; const struct nm__st *file;
              nm_err *err; };

static int bad_tensor(const struct made *m, const struct nm__st_tensor *t, const char *why) {
  char shown[80];
  return nm__fail(m->err, NM_EFORMAT, "%s: tensor '%s' %s", m->file->path,
                  nm__printable(shown, sizeof shown, t->name, strlen(t->name)), why);
}

/* Memory for a changed copy, filled. The sizes in ne are those of the result. */
static const uint8_t *changed(const struct made *m, enum nm__hf_change c, const char *name,
                              const struct nm__st_tensor *t, int64_t ne[4], uint32_t *type) {
  int64_t rows = t->n_dims == 2 ? t->shape[0] : ne[0], cols = t->n_dims == 2 ? t->shape[1] : 1;
  const struct nm__dtype_info *d = nm__dtype(*type);
  int n_head = nm__hf_n_head(m->g, name);
  size_t size = (size_t)d->bytes;
  const char *why = t->n_dims < 1 || t->n_dims > 2 ? "must be a matrix or a vector" : NULL;
  if (c == NM__HF_TRANSPOSE && t->n_dims != 2) why = "must be a matrix";
  if (c == NM__HF_QKV && (n_head < 1 || rows % (3 * (int64_t)n_head)))
    why = "has not three rows a head and dimension, as the config asks";
  if (c == NM__HF_PLUS_ONE && !d->from_f32) why = "is not stored as floating-point numbers";
  if (why) return bad_tensor(m, t, why), NULL;
  if (c == NM__HF_TRANSPOSE) {
    ne[0] = rows;
    ne[1] = cols;
  }
  if (c == NM__HF_PLUS_ONE) *type = NM__F32, size = sizeof(float);
  uint8_t *out = nm__gguf_own(m->g, (size_t)(t->bytes / (uint64_t)d->bytes), size, m->err);
  if (out && t->bytes)
    nm__hf_apply(c, true, n_head, (uint32_t)t->type, rows, cols, t->data, out);
  return out;
}

/* Kernels read numbers where they may lie in a C program; a header that is not padded can put
 * them elsewhere. */
static const uint8_t *aligned(const struct made *m, const struct nm__st_tensor *t) {
  size_t size = (size_t)nm__dtype((uint32_t)t->type)->bytes;
  if ((uintptr_t)t->data % size == 0) return t->data;
  uint8_t *out = nm__gguf_own(m->g, (size_t)t->bytes, 1, m->err);
  if (out) memcpy(out, t->data, t->bytes);
  return out;
}

static int add_tensor(const struct made *m, const struct nm__st_tensor *t) {
  char name[64];
  enum nm__hf_change change;
  int64_t ne[4] = {1, 1, 1, 1};
  if (nm__hf_ignored(m->facts.f, t->name)) return NM_OK;
  if (!nm__hf_to_gguf(m->facts.f, t->name, name, &change)) {
    char why[120];
    snprintf(why, sizeof why, "is not one that a model of type %s has here",
             m->facts.f->model_type);
    return bad_tensor(m, t, why);
  }
  if (m->facts.tied && !strcmp(name, "output.weight")) return NM_OK;
  if (t->type < 0 || t->n_dims < 1 || t->n_dims > 4) {
    char why[120];
    snprintf(why, sizeof why, "is stored as %s in %d dimensions, which cannot be computed on",
             t->dtype, t->n_dims);
    return bad_tensor(m, t, why);
  }
  for (int i = 0; i < t->n_dims; i++) ne[i] = t->shape[t->n_dims - 1 - i];
  uint32_t type = (uint32_t)t->type;
  bool stays = change == NM__HF_SAME || change == NM__HF_ROTARY;
  const uint8_t *data = stays ? aligned(m, t) : changed(m, change, name, t, ne, &type);
  if (!data && (t->bytes || !stays)) return m->err->status;
  return nm__gguf_add_tensor(m->g, name, type, t->n_dims, ne, data, m->err);
}

/* All tensors of all files, which then belong to g. */
static int add_files(struct nm__gguf *g, struct nm__hf_facts facts, struct nm__hf_files *files,
                     nm_err *err) {
  int st = NM_OK;
  for (size_t i = 0; i < files->n && !st; i++) {
    struct made m = {g, facts, files->v[i], err};
    for (size_t k = 0; k < files->v[i]->n && !st; k++) st = add_tensor(&m, &files->v[i]->t[k]);
    if (!st) st = nm__gguf_take_map(g, &files->v[i]->map, err);
  }
  if (!st && facts.f->head && !facts.tied && !nm__gguf_tensor(g, "output.weight"))
    st = nm__fail(err, NM_EFORMAT, "%s: holds no %s.weight, and config.json does not say "
                  "tie_word_embeddings", g->path, facts.f->head);
  return st;
}

/* ---- keys -------------------------------------------------------------- */

static char *text_of(const char *dir, const char *name, struct nm__map *map, nm_err *err) {
  char *path = nm__path_join(dir, name);
  if (!path) return nm__fail_memory(err, "a file name", strlen(dir)), NULL;
  if (!nm__exists(path)) {
    nm__fail(err, NM_EFORMAT, "%s: is a folder without %s: a Hugging Face model's folder or a GGUF "
             "file is needed", dir, name);
    free(path);
    return NULL;
  }
  if (nm__map_open(path, map, err)) {
    free(path);
    return NULL;
  }
  if (map->size <= CONFIG_MAX) return path;
  nm__fail(err, NM_EFORMAT, "%s: has %zu bytes, a config has at most %d", path, map->size,
           CONFIG_MAX);
  nm__map_close(map);
  free(path);
  return NULL;
}

/* sentence-transformers keep beside an encoder how its vectors become one. */
static int add_pooling(const char *dir, struct nm__hf_facts facts, struct nm__gguf *g,
                       nm_err *err) {
  static const struct { const char *key; uint32_t type; } modes[] = {
      {"pooling_mode_mean_tokens", 1},
      {"pooling_mode_cls_token", 2},
      {"pooling_mode_lasttoken", 3}};
  struct nm__map map;
  if (facts.f->head) return NM_OK;
  char *probe = nm__path_join(dir, "1_Pooling/config.json");
  bool there = probe && nm__exists(probe);
  free(probe);
  if (!there) return NM_OK;
  char *path = text_of(dir, "1_Pooling/config.json", &map, err);
  if (!path) return err->status;
  json_t *j = nm__json_parse(path, (const char *)map.data, map.size, 1000, err);
  int st = j ? NM_OK : err->status, n = 0;
  uint32_t type = 0;
  for (int i = 0; i < 3; i++)
    if (json_is_true(json_object_get(j, modes[i].key))) type = modes[i].type, n++;
  char key[96];
  snprintf(key, sizeof key, "%s.pooling_type", facts.f->arch);
  if (!st && n > 1)
    st = nm__fail(err, NM_EFORMAT, "%s: asks for several poolings at once, which is not supported",
                  path);
  if (!st && n) st = nm__gguf_add_u32(g, key, type, err);
  json_decref(j);
  nm__map_close(&map);
  free(path);
  return st;
}

static int add_keys(const char *dir, struct nm__gguf *g, struct nm__hf_facts *facts, nm_err *err) {
  struct nm__map map;
  char *path = text_of(dir, "config.json", &map, err);
  if (!path) return err->status;
  int st = nm__hf_keys(path, (const char *)map.data, map.size, g, facts, err);
  if (!st) st = nm__gguf_take_map(g, &map, err);        /* part of what the model is: hashed */
  nm__map_close(&map);
  free(path);
  const char *name = nm__path_base(dir);
  if (!st) st = nm__gguf_add_string(g, "general.name", name, strlen(name), err);
  return st ? st : add_pooling(dir, *facts, g, err);
}

/* A tokenizer that cannot be read leaves a model that runs on ids. */
static int add_tokenizer(const char *dir, struct nm__gguf *g, nm_err *err) {
  nm_err why = {0};
  size_t n = g->n_kv;
  int st = nm__hf_tokenizer_keys(dir, g, &why);
  if (!st) return NM_OK;
  nm__gguf_forget_kv(g, n);
  g->no_tokenizer = nm__strdup(why.text);
  if (st == NM_EMEMORY || !g->no_tokenizer) return nm__fail_memory(err, "a tokenizer", 0);
  return NM_OK;
}

/* ---- opening ------------------------------------------------------------- */

static bool is_dir(const char *path) {
  struct stat sb;
  return !stat(path, &sb) && S_ISDIR(sb.st_mode);
}

static bool ends(const char *s, const char *tail) {
  size_t n = strlen(s), k = strlen(tail);
  return n >= k && !strcmp(s + n - k, tail);
}

bool nm__hf_is(const char *path) {
  const char *base = nm__path_base(path);
  if (is_dir(path)) return true;
  return !strcmp(base, "config.json") || !strcmp(base, "model.safetensors.index.json") ||
         (!strncmp(base, "model", 5) && ends(base, ".safetensors"));
}

/* The folder meant by path, without a slash at its end. */
static char *folder_of(const char *path) {
  size_t n = is_dir(path) ? strlen(path) : (size_t)(nm__path_base(path) - path);
  while (n > 1 && path[n - 1] == '/') n--;
  return n ? nm__strndup(path, n) : nm__strdup(".");
}

int nm__hf_map(const char *path, struct nm__gguf **out, nm_err *err) {
  nm_err own = {0};
  struct nm__hf_files files = {0};
  struct nm__hf_facts facts;
  struct nm__gguf *g = NULL;
  char *dir = folder_of(path);
  *out = NULL;
  char *shown = is_dir(path) ? NULL : nm__strdup(path);          /* a folder without the slash */
  int st = dir ? nm__gguf_new(shown ? shown : dir, "safetensors", &g, &own)
               : nm__fail_memory(&own, "a file name", strlen(path));
  if (!st) st = add_keys(dir, g, &facts, &own);
  if (!st) g->hf_rows = true;
  if (!st) st = nm__hf_files_open(dir, &files, &own);
  if (!st) st = add_files(g, facts, &files, &own);
  if (!st) st = add_tokenizer(dir, g, &own);
  nm__hf_files_done(&files);
  free(dir);
  free(shown);
  if (!st) return *out = g, NM_OK;
  nm__gguf_close(g);
  if (err) *err = own;
  return st;
}

int nm__hf_files_of(const char *path, struct nm__hf_files *out, nm_err *err) {
  char *dir = folder_of(path);
  if (!dir) return nm__fail_memory(err, "a file name", strlen(path));
  int st = nm__hf_files_open(dir, out, err);
  free(dir);
  return st;
}

static int map_file(const char *path, struct nm__gguf **out, nm_err *err) {
  if (nm__hf_is(path)) return nm__hf_map(path, out, err);
  *out = NULL;
  if (ends(path, ".safetensors"))
    return nm__fail(err, NM_EFORMAT, "%s: tensors alone are no model: a folder with config.json "
                    "and model.safetensors is", path);
  if (!nm__spmodel_is(path)) return nm__gguf_open(path, out, err);
  int st = nm__gguf_new(path, "SentencePiece", out, err);     /* a vocabulary only */
  if (!st) st = nm__spmodel_keys(path, *out, err);
  if (st) nm__gguf_close(*out), *out = NULL;
  return st;
}

int nm__model_map(const char *path, struct nm__gguf **out, nm_err *err) {
  char *step;
  *out = NULL;
  int st = nm__series_path(path, &step, err);
  if (!st) st = map_file(step ? step : path, out, err);
  free(step);
  return st;
}
