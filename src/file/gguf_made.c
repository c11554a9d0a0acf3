/* gguf_made.c - a GGUF that no file holds: its keys are packed here as a file would pack
 * them, its tensors point into the maps of other files. */
#include "file/gguf.h"

#include <stdlib.h>
#include <string.h>

int nm__gguf_new(const char *path, const char *format, struct nm__gguf **out, nm_err *err) {
  struct nm__gguf *g = *out = nm__alloc(1, sizeof *g);
  if (g && (g->path = nm__strdup(path)) && (g->slots = nm__alloc(16, sizeof *g->slots))) {
    g->n_slots = 16;
    g->format = format;
    g->alignment = 32;
    return NM_OK;
  }
  nm__gguf_close(g);
  *out = NULL;
  return nm__fail_memory(err, "a GGUF", sizeof *g);
}

int nm__gguf_take_map(struct nm__gguf *g, struct nm__map *m, nm_err *err) {
  struct nm__map *v = nm__realloc(g->maps, g->n_maps + 1, sizeof *v);
  if (!v) return nm__fail_memory(err, "the list of files", (g->n_maps + 1) * sizeof *v);
  g->maps = v;
  v[g->n_maps++] = *m;
  *m = (struct nm__map){(const uint8_t *)"", 0};
  return NM_OK;
}

void *nm__gguf_own(struct nm__gguf *g, size_t n, size_t size, nm_err *err) {
  void **v = nm__realloc(g->own, g->n_own + 1, sizeof *v);
  if (v) g->own = v;
  void *p = v ? nm__alloc(n ? n : 1, size) : NULL;
  if (!p) return nm__fail_memory(err, "a part of a model", n * size), NULL;
  return g->own[g->n_own++] = p;
}

/* ---- keys ------------------------------------------------------------ */

/* The new key, its payload still missing; NULL with a sentence. */
static struct nm__gguf_kv *new_key(struct nm__gguf *g, const char *key, uint32_t type, uint64_t n,
                                   nm_err *err) {
  if (nm__gguf_find(g, key))
    return nm__fail(err, NM_EFORMAT, "%s: gives the key '%s' twice", g->path, key), NULL;
  if (g->n_kv == g->cap_kv) {
    size_t cap = g->cap_kv ? 2 * g->cap_kv : 32;
    struct nm__gguf_kv *v = nm__realloc(g->kv, cap, sizeof *v);
    if (!v) return nm__fail_memory(err, "the keys", cap * sizeof *v), NULL;
    g->kv = v;
    g->cap_kv = cap;
  }
  struct nm__gguf_kv *kv = &g->kv[g->n_kv];
  *kv = (struct nm__gguf_kv){.key = nm__strdup(key), .type = type, .n = n};
  if (!kv->key) return nm__fail_memory(err, "a key", strlen(key)), NULL;
  g->n_kv++;
  return kv;
}

static int fill(struct nm__gguf *g, struct nm__gguf_kv *kv, const void *v, size_t n, nm_err *err) {
  uint8_t *p = kv ? nm__gguf_own(g, n, 1, err) : NULL;
  if (!p) return err ? err->status : NM_EMEMORY;
  if (n) memcpy(p, v, n);
  kv->raw = p;
  return NM_OK;
}

static int add_scalar(struct nm__gguf *g, const char *key, uint32_t type, const void *v, size_t n,
                      nm_err *err) {
  nm_err own = {0};
  int st = fill(g, new_key(g, key, type, 1, &own), v, n, &own);
  if (st && err) *err = own;
  return st;
}

static int add_array(struct nm__gguf *g, const char *key, uint32_t elem, const void *v, size_t n,
                     size_t size, nm_err *err) {
  nm_err own = {0};
  struct nm__gguf_kv *kv = new_key(g, key, NM__GGUF_ARRAY, n, &own);
  if (kv) kv->elem_type = elem;
  int st = fill(g, kv, v, n * size, &own);
  if (st && err) *err = own;
  return st;
}

int nm__gguf_add_u32(struct nm__gguf *g, const char *key, uint32_t v, nm_err *err) {
  return add_scalar(g, key, NM__GGUF_U32, &v, sizeof v, err);
}

int nm__gguf_add_f32(struct nm__gguf *g, const char *key, float v, nm_err *err) {
  return add_scalar(g, key, NM__GGUF_F32, &v, sizeof v, err);
}

int nm__gguf_add_bool(struct nm__gguf *g, const char *key, bool v, nm_err *err) {
  uint8_t byte = v;
  return add_scalar(g, key, NM__GGUF_BOOL, &byte, 1, err);
}

int nm__gguf_add_i32s(struct nm__gguf *g, const char *key, const int32_t *v, size_t n,
                      nm_err *err) {
  return add_array(g, key, NM__GGUF_I32, v, n, sizeof *v, err);
}

int nm__gguf_add_f32s(struct nm__gguf *g, const char *key, const float *v, size_t n, nm_err *err) {
  return add_array(g, key, NM__GGUF_F32, v, n, sizeof *v, err);
}

/* n strings as a file packs them, each behind its length, in memory that goes with g. */
static uint8_t *pack(struct nm__gguf *g, const struct nm__str *v, size_t n, struct nm__str *where,
                     nm_err *err) {
  size_t bytes = 0;
  for (size_t i = 0; i < n; i++) bytes += sizeof(uint64_t) + v[i].n;
  uint8_t *start = nm__gguf_own(g, bytes, 1, err), *p = start;
  for (size_t i = 0; start && i < n; i++) {
    uint64_t len = v[i].n;
    memcpy(p, &len, sizeof len);
    p += sizeof len;
    if (len) memcpy(p, v[i].s, len);
    if (where) where[i] = (struct nm__str){(const char *)p, v[i].n};
    p += len;
  }
  return start;
}

int nm__gguf_add_string(struct nm__gguf *g, const char *key, const char *s, size_t n,
                        nm_err *err) {
  nm_err own = {0};
  struct nm__gguf_kv *kv = new_key(g, key, NM__GGUF_STRING, 1, &own);
  if (kv) kv->raw = pack(g, &(struct nm__str){s, n}, 1, NULL, &own);
  if (own.status && err) *err = own;
  return own.status;
}

int nm__gguf_add_strings(struct nm__gguf *g, const char *key, const struct nm__str *v, size_t n,
                         nm_err *err) {
  nm_err own = {0};
  struct nm__gguf_kv *kv = new_key(g, key, NM__GGUF_ARRAY, n, &own);
  if (kv) {
    kv->elem_type = NM__GGUF_STRING;
    kv->strings = nm__alloc(n ? n : 1, sizeof *kv->strings);
    if (kv->strings) kv->raw = pack(g, v, n, kv->strings, &own);
    else nm__fail_memory(&own, "an array of strings", n * sizeof *v);
  }
  if (own.status && err) *err = own;
  return own.status;
}

int nm__gguf_add_kv(struct nm__gguf *g, const struct nm__gguf_kv *kv, nm_err *err) {
  struct nm__str s;
  if (kv->type == NM__GGUF_STRING) {
    s = nm__gguf_text(kv);
    return nm__gguf_add_string(g, kv->key, s.s, s.n, err);
  }
  if (kv->type != NM__GGUF_ARRAY)
    return add_scalar(g, kv->key, kv->type, kv->raw, nm__gguf_type_size(kv->type), err);
  if (kv->elem_type == NM__GGUF_STRING)
    return nm__gguf_add_strings(g, kv->key, kv->strings, kv->n, err);
  return add_array(g, kv->key, kv->elem_type, kv->raw, kv->n, nm__gguf_type_size(kv->elem_type),
                   err);
}

void nm__gguf_forget_kv(struct nm__gguf *g, size_t first) {
  while (g->n_kv > first) {
    struct nm__gguf_kv *kv = &g->kv[--g->n_kv];
    free(kv->key);
    free(kv->strings);
  }
}

/* ---- tensors --------------------------------------------------------- */

static int room_for_tensor(struct nm__gguf *g, nm_err *err) {
  if (g->n_tensors < g->cap_tensors) return NM_OK;
  size_t cap = g->cap_tensors ? 2 * g->cap_tensors : 64;
  struct nm__gguf_tensor *v = nm__realloc(g->tensors, cap, sizeof *v);
  if (v) g->tensors = v;
  if (!v || !nm__gguf_index(g, 4 * cap))
    return nm__fail_memory(err, "the tensor list", cap * sizeof *v);
  g->cap_tensors = cap;
  return NM_OK;
}

int nm__gguf_add_tensor(struct nm__gguf *g, const char *name, uint32_t type, int n_dims,
                        const int64_t *ne, const uint8_t *data, nm_err *err) {
  struct nm__gguf_tensor t = {.type = type, .n_dims = n_dims, .ne = {1, 1, 1, 1}, .data = data};
  if (n_dims < 1 || n_dims > 4 || nm__gguf_tensor(g, name))
    return nm__fail(err, NM_EFORMAT, "%s: tensor '%s' %s", g->path, name,
                    nm__gguf_tensor(g, name) ? "occurs twice" : "has more than 4 sizes, or none");
  for (int i = 0; i < n_dims; i++) t.ne[i] = ne[i];
  if (!nm__gguf_tensor_bytes(type, n_dims, ne, &t.bytes))
    return nm__fail(err, NM_EFORMAT, "%s: tensor '%s' (rows of %lld) cannot be held as %s", g->path,
                    name, (long long)ne[0], nm__dtype(type) ? nm__dtype(type)->name : "that type");
  int st = room_for_tensor(g, err);
  if (st) return st;
  if (!(t.name = nm__strdup(name))) return nm__fail_memory(err, "a tensor name", strlen(name));
  t.offset = g->made_bytes;
  g->made_bytes += (t.bytes + g->alignment - 1) / g->alignment * g->alignment;
  g->tensors[g->n_tensors++] = t;
  if (!nm__gguf_index_last(g)) return nm__fail_memory(err, "the tensor list", g->n_slots);
  return NM_OK;
}
