/* hf_keys.c - a Hugging Face directory's tokenizer as keys of a GGUF. */
#include "text/hf_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "text/hf_slow.h"
#include "text/spmodel.h"

struct reading {
  const char *dir;
  struct nm__gguf *g;
  nm_err *err;
  json_t *tokenizer, *config, *map;
};

/* ---- files ------------------------------------------------------------- */

/* A file that is not there is an empty map. */
static int open_file(const struct reading *r, const char *name, struct nm__map *m) {
  *m = (struct nm__map){(const uint8_t *)"", 0};
  char *path = nm__path_join(r->dir, name);
  if (!path) return nm__fail_memory(r->err, "a path", strlen(name));
  int rc = nm__exists(path) ? nm__map_open(path, m, r->err) : NM_OK;
  free(path);
  return rc;
}

static int parse(const struct reading *r, const char *name, const struct nm__map *m,
                 json_t **out) {
  json_error_t why = {0};
  *out = json_loadb((const char *)m->data, m->size, JSON_ALLOW_NUL, &why);
  if (*out) return NM_OK;
  return nm__fail(r->err, NM_EFORMAT, "%s/%s: is no JSON: %s (line %d, column %d)", r->dir, name,
                  why.text, why.line, why.column);
}

static int read_json(const struct reading *r, const char *name, json_t **out) {
  struct nm__map m;
  *out = NULL;
  int rc = open_file(r, name, &m);
  if (!rc && m.size) rc = parse(r, name, &m, out);
  nm__map_close(&m);
  return rc;
}

/* ---- the vocabulary ---------------------------------------------------- */

static const char json_key[] = "tokenizer.huggingface.json";

/* Of the kinds of old tokenizers, which one? */
static const char *kind_of(const struct reading *r, json_t **config) {
  const char *s = json_string_value(json_object_get(r->config, "tokenizer_class"));
  if (s) return s;
  if (read_json(r, "config.json", config)) return "";
  s = json_string_value(json_object_get(*config, "model_type"));
  return s ? s : "";
}

static int add_made(struct reading *r, json_t *made) {
  if (!made) return r->err ? r->err->status : NM_EFORMAT;
  char *text = json_dumps(made, JSON_COMPACT);
  r->tokenizer = made;
  if (!text) return nm__fail_memory(r->err, "a tokenizer", 1);
  int rc = nm__gguf_add_string(r->g, json_key, text, strlen(text), r->err);
  free(text);
  return rc;
}

static int from_vocab_json(struct reading *r, const struct nm__map *vocab) {
  struct nm__map merges;
  json_t *v = NULL, *model = NULL;
  int rc = open_file(r, "merges.txt", &merges);
  if (!rc && !merges.size)
    rc = nm__fail(r->err, NM_EFORMAT, "%s: has a vocab.json but no merges.txt with it", r->dir);
  if (!rc) rc = parse(r, "vocab.json", vocab, &v);
  if (!rc) rc = add_made(r, nm__hf_from_vocab_json(r->dir, v, (struct nm__str){
    (const char *)merges.data, merges.size}, r->config, kind_of(r, &model), r->err));
  json_decref(v);
  json_decref(model);
  nm__map_close(&merges);
  return rc;
}

static int from_spmodel(const struct reading *r, bool *there) {
  char *path = nm__path_join(r->dir, "tokenizer.model");
  if (!path) return nm__fail_memory(r->err, "a path", strlen(r->dir));
  *there = nm__exists(path) && nm__spmodel_is(path);
  int rc = *there ? nm__spmodel_keys(path, r->g, r->err) : NM_OK;
  free(path);
  return rc;
}

static int add_vocabulary(struct reading *r) {
  struct nm__map m;
  bool done = false;
  int rc = open_file(r, "tokenizer.json", &m);
  if (!rc && m.size) {
    rc = nm__gguf_add_string(r->g, json_key, (const char *)m.data, m.size, r->err);
    if (!rc) rc = parse(r, "tokenizer.json", &m, &r->tokenizer);
    done = true;
  }
  nm__map_close(&m);
  if (!rc && !done) rc = from_spmodel(r, &done);
  if (!rc && !done && !(rc = open_file(r, "vocab.json", &m))) {
    done = m.size > 0;
    if (done) rc = from_vocab_json(r, &m);
    nm__map_close(&m);
  }
  if (!rc && !done && !(rc = open_file(r, "vocab.txt", &m))) {
    struct nm__str lines = {(const char *)m.data, m.size};
    if (m.size) rc = add_made(r, nm__hf_from_vocab_txt(lines, r->config, r->err));
    nm__map_close(&m);
  }
  return rc;
}

/* ---- ids --------------------------------------------------------------- */

/* The id of a token by its text, as the files list it; -1 for none. */
static json_int_t id_of(const struct reading *r, const char *text) {
  const json_t *added = json_object_get(r->tokenizer, "added_tokens");
  const json_t *vocab = json_object_get(json_object_get(r->tokenizer, "model"), "vocab");
  const json_t *v = json_object_get(vocab, text);
  for (size_t i = 0; !v && i < json_array_size(added); i++) {
    const json_t *a = json_array_get(added, i);
    const char *s = json_string_value(json_object_get(a, "content"));
    if (s && strcmp(s, text) == 0) v = json_object_get(a, "id");
  }
  for (size_t i = 0; !v && json_is_array(vocab) && i < json_array_size(vocab); i++) {
    const char *s = json_string_value(json_array_get(json_array_get(vocab, i), 0));
    if (s && strcmp(s, text) == 0) return (json_int_t)i;
  }
  return json_is_integer(v) ? json_integer_value(v) : -1;
}

static int add_id(const struct reading *r, const char *key, json_int_t id) {
  if (id < 0 || id > INT32_MAX || nm__gguf_find(r->g, key)) return NM_OK;
  return nm__gguf_add_u32(r->g, key, (uint32_t)id, r->err);
}

static const char *token_text(const struct reading *r, const char *name) {
  const json_t *from[] = {json_object_get(r->config, name), json_object_get(r->map, name)};
  for (int i = 0; i < 2; i++) {
    const json_t *v = json_is_object(from[i]) ? json_object_get(from[i], "content") : from[i];
    if (json_is_string(v)) return json_string_value(v);
  }
  return NULL;
}

static int add_ids(const struct reading *r) {
  static const char *const ids[][2] = {
    {"bos_token", "tokenizer.ggml.bos_token_id"}, {"eos_token", "tokenizer.ggml.eos_token_id"},
    {"unk_token", "tokenizer.ggml.unknown_token_id"},
    {"pad_token", "tokenizer.ggml.padding_token_id"},
    {"cls_token", "tokenizer.ggml.cls_token_id"},
    {"sep_token", "tokenizer.ggml.seperator_token_id"},
    {"mask_token", "tokenizer.ggml.mask_token_id"},
  };
  int rc = NM_OK;
  for (size_t i = 0; i < sizeof ids / sizeof *ids && !rc; i++) {
    const char *text = token_text(r, ids[i][0]);
    if (text) rc = add_id(r, ids[i][1], id_of(r, text));
  }
  return rc;
}

/* Where generation_config.json ends a text by more tokens than one, the second ends turns. */
static int add_ends(const struct reading *r) {
  static const char eos_key[] = "tokenizer.ggml.eos_token_id";
  json_t *gen;
  int rc = read_json(r, "generation_config.json", &gen);
  const json_t *v = json_object_get(gen, "eos_token_id");
  size_t n = json_is_array(v) ? json_array_size(v) : json_is_integer(v);
  for (size_t i = 0; i < n && !rc; i++) {
    const json_t *e = json_is_array(v) ? json_array_get(v, i) : v;
    uint64_t eos = UINT64_MAX;
    if (!json_is_integer(e)) continue;
    rc = add_id(r, eos_key, json_integer_value(e));
    if (!rc && nm__gguf_find(r->g, eos_key)) rc = nm__gguf_uint(r->g, eos_key, &eos, r->err);
    if (!rc && (uint64_t)json_integer_value(e) != eos)
      rc = add_id(r, "tokenizer.ggml.eot_token_id", json_integer_value(e));
  }
  json_decref(gen);
  return rc;
}

static int add_flags(const struct reading *r) {
  static const char *const flags[] = {"add_bos_token", "add_eos_token"};
  int rc = NM_OK;
  for (size_t i = 0; i < 2 && !rc; i++) {
    char key[64];
    const json_t *v = json_object_get(r->config, flags[i]);
    snprintf(key, sizeof key, "tokenizer.ggml.%s", flags[i]);
    if (json_is_boolean(v) && !nm__gguf_find(r->g, key))
      rc = nm__gguf_add_bool(r->g, key, json_is_true(v), r->err);
  }
  return rc;
}

/* ---- chat templates ---------------------------------------------------- */

static int add_template(const struct reading *r, const char *name, const char *text, size_t n) {
  char key[128] = "tokenizer.chat_template";
  if (name && strcmp(name, "default") && strlen(name) < 64)
    snprintf(key, sizeof key, "tokenizer.chat_template.%s", name);
  return nm__gguf_find(r->g, key) ? NM_OK : nm__gguf_add_string(r->g, key, text, n, r->err);
}

/* A file of its own counts before the config's; that has one text, or a list with names. */
static int add_templates(const struct reading *r) {
  struct nm__map m;
  int rc = open_file(r, "chat_template.jinja", &m);
  if (!rc && m.size) rc = add_template(r, NULL, (const char *)m.data, m.size);
  nm__map_close(&m);
  const json_t *v = json_object_get(r->config, "chat_template");
  if (!rc && json_is_string(v))
    rc = add_template(r, NULL, json_string_value(v), json_string_length(v));
  for (size_t i = 0; i < json_array_size(v) && !rc; i++) {
    const json_t *e = json_array_get(v, i), *text = json_object_get(e, "template");
    const char *name = json_string_value(json_object_get(e, "name"));
    if (name && json_is_string(text))
      rc = add_template(r, name, json_string_value(text), json_string_length(text));
  }
  return rc;
}

/* ---- all of it --------------------------------------------------------- */

static int add_beside(struct reading *r) {
  bool any = nm__gguf_find(r->g, json_key) || nm__gguf_find(r->g, "tokenizer.ggml.model");
  int rc = any ? add_ids(r) : NM_OK;
  if (!rc && any) rc = add_ends(r);
  if (!rc && any) rc = add_flags(r);
  return rc || !any ? rc : add_templates(r);
}

static void reading_done(struct reading *r) {
  json_decref(r->tokenizer);
  json_decref(r->config);
  json_decref(r->map);
}

int nm__hf_tokenizer_keys(const char *dir, struct nm__gguf *g, nm_err *err) {
  nm_err own = {0};
  struct reading r = {.dir = dir, .g = g, .err = &own};
  int rc = read_json(&r, "tokenizer_config.json", &r.config);
  if (!rc) rc = read_json(&r, "special_tokens_map.json", &r.map);
  if (!rc) rc = add_vocabulary(&r);
  if (!rc) rc = add_beside(&r);
  reading_done(&r);
  if (rc && err) *err = own;
  return rc;
}

static bool is_dir(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool nm__hf_tokenizer_path(const char *path) {
  size_t n = strlen(path);
  return is_dir(path) || (n > 5 && strcmp(path + n - 5, ".json") == 0);
}

/* A file of another name than tokenizer.json stands alone. */
static int open_json(const char *path, struct nm__gguf *g, nm_err *err) {
  const char *base = nm__path_base(path);
  if (strcmp(base, "tokenizer.json") == 0) {
    char *dir = base == path ? nm__strdup(".") : nm__strndup(path, (size_t)(base - path));
    int rc = dir ? nm__hf_tokenizer_keys(dir, g, err) : nm__fail_memory(err, "a path", 1);
    free(dir);
    return rc;
  }
  struct nm__map m;
  int rc = nm__map_open(path, &m, err);
  if (rc) return rc;
  rc = nm__gguf_add_string(g, json_key, (const char *)m.data, m.size, err);
  nm__map_close(&m);
  return rc;
}

int nm__hf_tokenizer_open(const char *path, struct nm__gguf **out, nm_err *err) {
  int rc = nm__gguf_new(path, "Hugging Face", out, err);
  if (rc) return rc;
  rc = is_dir(path) ? nm__hf_tokenizer_keys(path, *out, err) : open_json(path, *out, err);
  if (!rc) return NM_OK;
  nm__gguf_close(*out);
  *out = NULL;
  return rc;
}
