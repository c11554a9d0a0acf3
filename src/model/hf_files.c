/* hf_files.c - the files of a Hugging Face directory that hold weights: one, or several with
 * an index that says which tensor lies where. The index comes from outside: a name in it may
 * not lead out of the directory, and it must say of every tensor what the files say. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/json.h"
#include "model/hf_impl.h"

enum { INDEX_MAX = 1 << 25, FILES_MAX = 10000 };

static int add_file(struct nm__hf_files *s, const char *dir, const char *name, nm_err *err) {
  struct nm__st **v = nm__realloc(s->v, s->n + 1, sizeof *v);
  if (!v) return nm__fail_memory(err, "the list of files", s->n * sizeof *v);
  s->v = v;
  char *path = nm__path_join(dir, name);
  if (!path) return nm__fail_memory(err, "a file name", strlen(name));
  int st = nm__st_open(path, &s->v[s->n], err);
  if (!st) s->n++;
  free(path);
  return st;
}

void nm__hf_files_done(struct nm__hf_files *s) {
  for (size_t i = 0; i < s->n; i++) nm__st_close(s->v[i]);
  free(s->v);
  *s = (struct nm__hf_files){0};
}

/* ---- the index ----------------------------------------------------------- */

static bool stays_inside(const char *name) {
  size_t n = strlen(name);
  return n > 12 && n < 200 && !strpbrk(name, "/\\") && name[0] != '.' &&
         !strcmp(name + n - 12, ".safetensors");
}

static struct nm__st *file_named(const struct nm__hf_files *s, const char *name) {
  for (size_t i = s->n; i-- > 0;)              /* neighbours lie in one file: the last is likely */
    if (!strcmp(nm__path_base(s->v[i]->path), name)) return s->v[i];
  return NULL;
}

/* Opens the file where it is new, and sees that the tensor lies in it. */
static int check_place(struct nm__hf_files *s, const char *dir, const char *index,
                       const char *tensor, const json_t *where, nm_err *err) {
  char shown[80];
  const char *name = json_string_value(where);
  nm__printable(shown, sizeof shown, tensor, strlen(tensor));
  if (!name || !stays_inside(name)) {
    char bad[80];
    return nm__fail(err, NM_EFORMAT, "%s: tensor '%s' is said to lie in '%s', which is not the "
                    "name of a safetensors file in this folder", index, shown,
                    nm__printable(bad, sizeof bad, name ? name : "(no name)",
                                  name ? strlen(name) : 9));
  }
  struct nm__st *f = file_named(s, name);
  if (!f && s->n == FILES_MAX)
    return nm__fail(err, NM_EFORMAT, "%s: names more than %d files", index, FILES_MAX);
  if (!f) {
    int st = add_file(s, dir, name, err);
    if (st) return nm__fail_at(err, st, "%s: names a file that cannot be read", index);
    f = s->v[s->n - 1];
  }
  if (nm__st_find(f, tensor)) return NM_OK;
  return nm__fail(err, NM_EFORMAT, "%s: tensor '%s' is said to lie in %s, which does not hold it",
                  index, shown, name);
}

/* And the other way round: no file holds a tensor of which the index says something else. */
static int check_tensors(const struct nm__hf_files *s, const char *index, json_t *map,
                         nm_err *err) {
  for (size_t i = 0; i < s->n; i++) {
    const char *name = nm__path_base(s->v[i]->path);
    for (size_t k = 0; k < s->v[i]->n; k++) {
      const char *where = json_string_value(json_object_get(map, s->v[i]->t[k].name));
      if (where && !strcmp(where, name)) continue;
      char shown[80];
      return nm__fail(err, NM_EFORMAT, "%s: %s holds tensor '%s', of which the index says that it "
                      "lies %s%s", index, name,
                      nm__printable(shown, sizeof shown, s->v[i]->t[k].name,
                                    strlen(s->v[i]->t[k].name)),
                      where ? "in " : "nowhere", where ? where : "");
    }
  }
  return NM_OK;
}

static int open_index(const char *dir, const char *path, struct nm__hf_files *out, nm_err *err) {
  struct nm__map map;
  int st = nm__map_open(path, &map, err);
  if (st) return st;
  json_t *j = NULL, *where;
  if (map.size > INDEX_MAX)
    st = nm__fail(err, NM_EFORMAT, "%s: has %zu bytes, an index has at most %d", path, map.size,
                  INDEX_MAX);
  else if (!(j = nm__json_parse(path, (const char *)map.data, map.size, map.size / 16 + 100, err)))
    st = NM_EFORMAT;
  nm__map_close(&map);
  json_t *weights = json_object_get(j, "weight_map");
  if (!st && !json_object_size(weights))
    st = nm__fail(err, NM_EFORMAT, "%s: has no weight_map, which says where tensors lie", path);
  const char *tensor;
  if (!st) json_object_foreach(weights, tensor, where) {
    if ((st = check_place(out, dir, path, tensor, where, err))) break;
  }
  if (!st) st = check_tensors(out, path, weights, err);
  json_decref(j);
  return st;
}

/* HF's own order: one file before an index. */
int nm__hf_files_open(const char *dir, struct nm__hf_files *out, nm_err *err) {
  char *one = nm__path_join(dir, "model.safetensors");
  char *index = nm__path_join(dir, "model.safetensors.index.json");
  char *pickled = nm__path_join(dir, "pytorch_model.bin");
  *out = (struct nm__hf_files){0};
  int st;
  if (!one || !index || !pickled) st = nm__fail_memory(err, "a file name", strlen(dir));
  else if (nm__exists(one)) st = add_file(out, dir, "model.safetensors", err);
  else if (nm__exists(index)) st = open_index(dir, index, out, err);
  else
    st = nm__fail(err, NM_EFORMAT, "%s: holds neither model.safetensors nor "
                  "model.safetensors.index.json%s", dir, nm__exists(pickled) ?
                  "; pytorch_model.bin is not read: save the model as safetensors" : "");
  if (st) nm__hf_files_done(out);
  free(one);
  free(index);
  free(pickled);
  return st;
}
