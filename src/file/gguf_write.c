/* gguf_write.c - writing GGUF version 3, streamed.
 *
 * Metadata and tensor infos are gathered in two byte strings; when the file begins they
 * are complete, so that offsets are final and the data can follow without seeking back.
 * What is written here is what gguf.c accepts: names are unique, rows are whole blocks,
 * offsets are padded to the default alignment of 32. */
#include "file/gguf.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 32, TENSOR_NAME_MAX = 63 };
#define META_MAX ((size_t)1 << 31)

struct names { char **v; size_t n, cap; };

struct nm__gguf_writer {
  struct nm__buf meta, infos;
  struct names keys, tensors;
  uint64_t *bytes;                 /* of each announced tensor */
  size_t cap_bytes;
  uint64_t offset;                 /* where the next announced tensor goes */
  nm_err sticky;                   /* first failure of a put or announce; status 0: none */
  struct nm__out out;
  bool begun;
  size_t i_tensor;                 /* whose data is being written */
  uint64_t written;                /* bytes of it so far */
};

int nm__gguf_writer_new(struct nm__gguf_writer **out, nm_err *err) {
  struct nm__gguf_writer *w = *out = nm__alloc(1, sizeof *w);
  if (!w) return nm__fail_memory(err, "a GGUF writer", sizeof *w);
  nm__buf_init(&w->meta, META_MAX);
  nm__buf_init(&w->infos, META_MAX);
  return NM_OK;
}

static void names_done(struct names *s) {
  for (size_t i = 0; i < s->n; i++) free(s->v[i]);
  free(s->v);
}

void nm__gguf_writer_free(struct nm__gguf_writer *w) {
  if (!w) return;
  if (w->begun) nm__out_abort(&w->out);
  nm__buf_done(&w->meta);
  nm__buf_done(&w->infos);
  names_done(&w->keys);
  names_done(&w->tensors);
  free(w->bytes);
  free(w);
}

/* ---- metadata -------------------------------------------------------- */

/* Keeps the name for the search for repeated ones; false, with a sentence, when it cannot
 * be taken. */
static bool names_add(struct nm__gguf_writer *w, struct names *s, const char *name) {
  if (w->sticky.status) return false;
  if (w->begun)
    return nm__fail(&w->sticky, NM_EFAIL, "'%s' comes after the data began", name), false;
  if (s->n == s->cap) {
    size_t cap = s->cap ? 2 * s->cap : 32;
    char **v = nm__realloc(s->v, cap, sizeof *v);
    if (!v) return nm__fail_memory(&w->sticky, "GGUF names", cap * sizeof *v), false;
    s->v = v;
    s->cap = cap;
  }
  if (!(s->v[s->n] = nm__strdup(name)))
    return nm__fail_memory(&w->sticky, "a GGUF name", strlen(name)), false;
  s->n++;
  return true;
}

static void put_bytes(struct nm__buf *b, struct nm__str s) {
  uint64_t n = s.n;
  nm__buf_put(b, &n, sizeof n);
  nm__buf_put(b, s.s, s.n);
}

static void put_string(struct nm__buf *b, const char *s) {
  put_bytes(b, (struct nm__str){s, strlen(s)});
}

static void put_u32(struct nm__buf *b, uint32_t v) { nm__buf_put(b, &v, sizeof v); }
static void put_u64(struct nm__buf *b, uint64_t v) { nm__buf_put(b, &v, sizeof v); }

static bool put_key(struct nm__gguf_writer *w, const char *key, uint32_t type) {
  if (!*key && !w->sticky.status) nm__fail(&w->sticky, NM_EFAIL, "a GGUF key is empty");
  if (!names_add(w, &w->keys, key)) return false;
  put_string(&w->meta, key);
  put_u32(&w->meta, type);
  return true;
}

static void put_scalar(struct nm__gguf_writer *w, const char *key, uint32_t type, const void *v,
                       size_t size) {
  if (put_key(w, key, type)) nm__buf_put(&w->meta, v, size);
}

static bool put_array(struct nm__gguf_writer *w, const char *key, uint32_t elem_type, size_t n) {
  if (!put_key(w, key, NM__GGUF_ARRAY)) return false;
  put_u32(&w->meta, elem_type);
  put_u64(&w->meta, n);
  return true;
}

void nm__gguf_put_u32(struct nm__gguf_writer *w, const char *key, uint32_t v) {
  put_scalar(w, key, NM__GGUF_U32, &v, sizeof v);
}

void nm__gguf_put_i32(struct nm__gguf_writer *w, const char *key, int32_t v) {
  put_scalar(w, key, NM__GGUF_I32, &v, sizeof v);
}

void nm__gguf_put_f32(struct nm__gguf_writer *w, const char *key, float v) {
  put_scalar(w, key, NM__GGUF_F32, &v, sizeof v);
}

void nm__gguf_put_bool(struct nm__gguf_writer *w, const char *key, bool v) {
  uint8_t byte = v;
  put_scalar(w, key, NM__GGUF_BOOL, &byte, 1);
}

void nm__gguf_put_string(struct nm__gguf_writer *w, const char *key, const char *v) {
  if (put_key(w, key, NM__GGUF_STRING)) put_string(&w->meta, v);
}

void nm__gguf_put_strings(struct nm__gguf_writer *w, const char *key, const char *const *v,
                          size_t n) {
  if (!put_array(w, key, NM__GGUF_STRING, n)) return;
  for (size_t i = 0; i < n; i++) put_string(&w->meta, v[i]);
}

void nm__gguf_put_f32s(struct nm__gguf_writer *w, const char *key, const float *v, size_t n) {
  if (put_array(w, key, NM__GGUF_F32, n)) nm__buf_put(&w->meta, v, n * sizeof *v);
}

void nm__gguf_put_i32s(struct nm__gguf_writer *w, const char *key, const int32_t *v, size_t n) {
  if (put_array(w, key, NM__GGUF_I32, n)) nm__buf_put(&w->meta, v, n * sizeof *v);
}

void nm__gguf_put_kv(struct nm__gguf_writer *w, const struct nm__gguf_kv *kv) {
  size_t size = nm__gguf_type_size(kv->type == NM__GGUF_ARRAY ? kv->elem_type : kv->type);
  if (kv->type != NM__GGUF_ARRAY && kv->type != NM__GGUF_STRING) {
    put_scalar(w, kv->key, kv->type, kv->raw, size);
  } else if (kv->type == NM__GGUF_STRING) {
    if (put_key(w, kv->key, kv->type)) put_bytes(&w->meta, nm__gguf_text(kv));
  } else if (put_array(w, kv->key, kv->elem_type, kv->n)) {
    for (uint64_t i = 0; kv->strings && i < kv->n; i++) put_bytes(&w->meta, kv->strings[i]);
    if (!kv->strings) nm__buf_put(&w->meta, kv->raw, kv->n * size);
  }
}

/* ---- tensor infos ---------------------------------------------------- */

/* Bytes of a tensor, or a sticky sentence. */
static bool tensor_bytes(struct nm__gguf_writer *w, const char *name, uint32_t type, int n_dims,
                         const int64_t *ne, uint64_t *out) {
  bool good = n_dims >= 1 && n_dims <= 4 && *name && strlen(name) <= TENSOR_NAME_MAX;
  if (good && nm__gguf_tensor_bytes(type, n_dims, ne, out) && *out <= INT64_MAX / 2) return true;
  nm__fail(&w->sticky, NM_EFAIL, "tensor '%s' (type %u, %d dimensions) cannot be stored: a name "
           "of 1 to 63 bytes, a known type, 1 to 4 sizes that do not overflow and rows of whole "
           "blocks are needed", name, type, n_dims);
  return false;
}

void nm__gguf_announce(struct nm__gguf_writer *w, const char *name, uint32_t type, int n_dims,
                       const int64_t *ne) {
  uint64_t bytes;
  if (w->sticky.status || !tensor_bytes(w, name, type, n_dims, ne, &bytes)) return;
  if (!names_add(w, &w->tensors, name)) return;
  if (w->tensors.n > w->cap_bytes) {
    uint64_t *v = nm__realloc(w->bytes, w->tensors.cap, sizeof *v);
    if (!v) {
      nm__fail_memory(&w->sticky, "the tensor list", w->tensors.cap * sizeof *v);
      return;
    }
    w->bytes = v;
    w->cap_bytes = w->tensors.cap;
  }
  w->bytes[w->tensors.n - 1] = bytes;
  put_string(&w->infos, name);
  put_u32(&w->infos, (uint32_t)n_dims);
  for (int i = 0; i < n_dims; i++) put_u64(&w->infos, (uint64_t)ne[i]);
  put_u32(&w->infos, type);
  put_u64(&w->infos, w->offset);
  uint64_t padded = (bytes + ALIGN - 1) / ALIGN * ALIGN;
  if (__builtin_add_overflow(w->offset, padded, &w->offset))
    nm__fail(&w->sticky, NM_EFAIL, "the tensors together are too large to be stored");
}

/* ---- the file -------------------------------------------------------- */

static int by_text(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorting the names is enough: they are kept for this alone. */
static int refuse_repeated(struct names *s, const char *path, const char *what, nm_err *err) {
  if (s->n) qsort(s->v, s->n, sizeof *s->v, by_text);
  for (size_t i = 1; i < s->n; i++)
    if (strcmp(s->v[i - 1], s->v[i]) == 0)
      return nm__fail(err, NM_EFAIL, "%s: cannot be written: %s '%s' was given twice", path, what,
                      s->v[i]);
  return NM_OK;
}

static int write_padding(struct nm__gguf_writer *w, uint64_t at, nm_err *err) {
  static const char zeros[ALIGN];
  return nm__out_write(&w->out, zeros, (size_t)((ALIGN - at % ALIGN) % ALIGN), err);
}

/* Tensors without bytes need no data; so the current one is always one that lacks some. */
static void skip_empty(struct nm__gguf_writer *w) {
  while (w->i_tensor < w->tensors.n && w->bytes[w->i_tensor] == 0) w->i_tensor++;
}

static int write_head(struct nm__gguf_writer *w, nm_err *err) {
  struct { char magic[4]; uint32_t version; uint64_t n_tensors, n_kv; } head = {
    {'G', 'G', 'U', 'F'}, 3, w->tensors.n, w->keys.n};
  int st = nm__out_write(&w->out, &head, sizeof head, err);
  if (!st) st = nm__out_write(&w->out, w->meta.s, w->meta.len, err);
  if (!st) st = nm__out_write(&w->out, w->infos.s, w->infos.len, err);
  return st ? st : write_padding(w, sizeof head + w->meta.len + w->infos.len, err);
}

int nm__gguf_begin(struct nm__gguf_writer *w, const char *path, nm_err *err) {
  if (w->sticky.status)
    return nm__fail(err, w->sticky.status, "%s: cannot be written: %s", path, w->sticky.text);
  if (w->meta.failed || w->infos.failed)
    return nm__fail_memory(err, "GGUF metadata", w->meta.len + w->infos.len);
  if (w->begun) return nm__fail(err, NM_EFAIL, "%s: this writer has begun already", path);
  int st = refuse_repeated(&w->keys, path, "key", err);
  if (!st) st = refuse_repeated(&w->tensors, path, "tensor", err);
  if (!st) st = nm__out_open(path, &w->out, err);
  if (st) return st;
  w->begun = true;
  skip_empty(w);
  return write_head(w, err);
}

/* Whether writing can go on: not before begin, nor after a failed write closed the file. */
static int check_open(const struct nm__gguf_writer *w, nm_err *err) {
  if (w->begun && w->out.f) return NM_OK;
  return nm__fail(err, NM_EFAIL, "a GGUF file is not open for writing");
}

int nm__gguf_data(struct nm__gguf_writer *w, const void *bytes, size_t n, nm_err *err) {
  int st = check_open(w, err);
  if (st || n == 0) return st;
  uint64_t room = w->i_tensor < w->tensors.n ? w->bytes[w->i_tensor] - w->written : 0;
  if (n > room)
    return nm__fail(err, NM_EFAIL, "%s: %zu bytes of data given, but the current tensor lacks only "
                    "%llu", w->out.path, n, (unsigned long long)room);
  if ((st = nm__out_write(&w->out, bytes, n, err))) return st;
  w->written += n;
  if (w->written < w->bytes[w->i_tensor]) return NM_OK;
  st = write_padding(w, w->written, err);
  w->i_tensor++;
  w->written = 0;
  skip_empty(w);
  return st;
}

int nm__gguf_finish(struct nm__gguf_writer *w, nm_err *err) {
  int st = check_open(w, err);
  if (st) return st;
  if (w->i_tensor < w->tensors.n)
    return nm__fail(err, NM_EFAIL, "%s: cannot be finished: %zu of %zu tensors lack data",
                    w->out.path, w->tensors.n - w->i_tensor, w->tensors.n);
  st = nm__out_close(&w->out, err);
  w->begun = false;
  return st;
}
