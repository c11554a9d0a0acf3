/* safetensors_write.c - writing safetensors, streamed.
 *
 * Tensors are gathered first; when the file begins their order is settled, the header is
 * complete and the data follows without seeking back. The order is that of the reference
 * writer: wide elements first, so that all of them stay aligned, then by name. */
#include "file/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_MAX ((size_t)100000000)

struct item { char *name; const char *dtype; int bits, n_dims; int64_t shape[NM__ST_DIMS_MAX];
              uint64_t bytes; int64_t i; };

struct nm__st_writer {
  json_t *meta;
  struct item *v;                  /* as announced; by nm__st_begin in the order of the file */
  size_t n, cap;
  nm_err sticky;
  struct nm__out out;
  bool begun;
  size_t at;                       /* whose data is being written */
  uint64_t written;                /* bytes of it so far */
};

int nm__st_writer_new(struct nm__st_writer **out, nm_err *err) {
  struct nm__st_writer *w = *out = nm__alloc(1, sizeof *w);
  if (w && (w->meta = json_object())) return NM_OK;
  free(w);
  *out = NULL;
  return nm__fail_memory(err, "a safetensors writer", sizeof *w);
}

void nm__st_writer_free(struct nm__st_writer *w) {
  if (!w) return;
  if (w->begun) nm__out_abort(&w->out);
  for (size_t i = 0; i < w->n; i++) free(w->v[i].name);
  free(w->v);
  json_decref(w->meta);
  free(w);
}

/* ---- announcing ------------------------------------------------------ */

static bool can_take(struct nm__st_writer *w, const char *name) {
  if (w->sticky.status) return false;
  if (w->begun) nm__fail(&w->sticky, NM_EFAIL, "'%s' comes after the data began", name);
  return !w->begun;
}

void nm__st_put(struct nm__st_writer *w, const char *key, const char *value) {
  if (can_take(w, key) && json_object_set_new(w->meta, key, json_string(value)))
    nm__fail(&w->sticky, NM_EFAIL, "metadata '%.40s' is not UTF-8", key);
}

static bool count_bytes(struct item *t, uint32_t type) {
  uint64_t n = 1;
  t->dtype = nm__st_dtype(type, &t->bits);
  bool good = t->dtype && t->n_dims >= 0 && t->n_dims <= NM__ST_DIMS_MAX && *t->name;
  for (int i = 0; good && i < t->n_dims; i++)
    good = t->shape[i] >= 0 && !__builtin_mul_overflow(n, (uint64_t)t->shape[i], &n);
  good = good && n <= INT64_MAX / 64;
  t->bytes = good ? n * (uint64_t)t->bits / 8 : 0;
  return good;
}

void nm__st_announce(struct nm__st_writer *w, const char *name, uint32_t type, int n_dims,
                     const int64_t *shape) {
  if (!can_take(w, name)) return;
  if (w->n == w->cap) {
    size_t cap = w->cap ? 2 * w->cap : 64;
    struct item *v = nm__realloc(w->v, cap, sizeof *v);
    if (!v) {
      nm__fail_memory(&w->sticky, "the tensor list", cap * sizeof *v);
      return;
    }
    w->v = v;
    w->cap = cap;
  }
  struct item t = {.name = nm__strdup(name), .n_dims = n_dims, .i = (int64_t)w->n};
  for (int i = 0; i < n_dims && i < NM__ST_DIMS_MAX; i++) t.shape[i] = shape[i];
  if (t.name && count_bytes(&t, type)) {
    w->v[w->n++] = t;
    return;
  }
  nm__fail(&w->sticky, NM_EFAIL, "tensor '%.100s' (type %s, %d dimensions) cannot be stored as "
           "safetensors: F64, F32, F16, BF16, I64, I32, I16, I8 and at most %d dimensions can",
           name, nm__dtype(type) && nm__dtype(type)->name ? nm__dtype(type)->name : "unknown",
           n_dims, NM__ST_DIMS_MAX);
  free(t.name);
}

/* ---- the header ------------------------------------------------------ */

static int in_file(const void *a, const void *b) {
  const struct item *x = a, *y = b;
  return x->bits != y->bits ? y->bits - x->bits : strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) {
  return strcmp((*(const struct item *const *)a)->name, (*(const struct item *const *)b)->name);
}

static int refuse_repeated(const struct nm__st_writer *w, const char *path, nm_err *err) {
  const struct item **v = nm__alloc(w->n ? w->n : 1, sizeof *v);
  if (!v) return nm__fail_memory(err, "the names", w->n * sizeof *v);
  int st = NM_OK;
  for (size_t i = 0; i < w->n; i++) v[i] = &w->v[i];
  if (w->n) qsort(v, w->n, sizeof *v, by_name);
  for (size_t i = 1; i < w->n && !st; i++)
    if (!by_name(&v[i - 1], &v[i]))
      st = nm__fail(err, NM_EFAIL, "%s: cannot be written: tensor '%s' was given twice", path,
                    v[i]->name);
  free(v);
  return st;
}

/* "key":VALUE, with a comma in front where one is due. False: not UTF-8, or no memory. */
static bool put_pair(struct nm__buf *b, const char *key, json_t *v) {
  json_t *name = json_string(key);
  char *k = name ? json_dumps(name, JSON_ENCODE_ANY) : NULL;
  char *s = v ? json_dumps(v, JSON_COMPACT) : NULL;
  if (k && s) nm__buf_printf(b, "%s%s:%s", b->len > 1 ? "," : "", k, s);
  bool good = k && s;
  free(k);
  free(s);
  json_decref(name);
  json_decref(v);
  return good;
}

static json_t *entry(const struct item *t, uint64_t at) {
  json_t *shape = json_array();
  for (int i = 0; i < t->n_dims; i++) json_array_append_new(shape, json_integer(t->shape[i]));
  return json_pack("{s:s, s:o, s:[I, I]}", "dtype", t->dtype, "shape", shape, "data_offsets",
                   (json_int_t)at, (json_int_t)(at + t->bytes));
}

/* Padded with spaces, so that the data begins at a multiple of 8. */
static int make_header(struct nm__st_writer *w, const char *path, struct nm__buf *b, nm_err *err) {
  uint64_t at = 0;
  nm__buf_putc(b, '{');
  bool good = !json_object_size(w->meta) ||
              put_pair(b, "__metadata__", json_incref(w->meta));
  for (size_t i = 0; i < w->n && good; i++) {
    good = put_pair(b, w->v[i].name, entry(&w->v[i], at)) && at <= INT64_MAX / 2;
    at += w->v[i].bytes;
  }
  nm__buf_putc(b, '}');
  while (b->len % 8 && !b->failed) nm__buf_putc(b, ' ');
  if (good && !b->failed) return NM_OK;
  return nm__fail(err, NM_EFAIL, "%s: cannot be written: %s", path, b->failed ?
                  "its header is larger than the format allows, 100 MB" :
                  "a name is not UTF-8, or the tensors together are too large");
}

/* ---- the file -------------------------------------------------------- */

static void skip_empty(struct nm__st_writer *w) {
  while (w->at < w->n && !w->v[w->at].bytes) w->at++;
}

int nm__st_begin(struct nm__st_writer *w, const char *path, nm_err *err) {
  if (w->sticky.status)
    return nm__fail(err, w->sticky.status, "%s: cannot be written: %s", path, w->sticky.text);
  if (w->begun) return nm__fail(err, NM_EFAIL, "%s: this writer has begun already", path);
  struct nm__buf b;
  nm__buf_init(&b, HEADER_MAX);
  int st = refuse_repeated(w, path, err);
  if (!st && w->n) qsort(w->v, w->n, sizeof *w->v, in_file);
  if (!st) st = make_header(w, path, &b, err);
  if (!st) st = nm__out_open(path, &w->out, err);
  if (!st) {
    uint64_t n = b.len;
    w->begun = true;
    skip_empty(w);
    st = nm__out_write(&w->out, &n, sizeof n, err);
  }
  if (!st) st = nm__out_write(&w->out, b.s, b.len, err);
  nm__buf_done(&b);
  return st;
}

int64_t nm__st_next(const struct nm__st_writer *w) { return w->at < w->n ? w->v[w->at].i : -1; }

/* Whether writing can go on: not before begin, nor after a failed write closed the file. */
static int check_open(const struct nm__st_writer *w, nm_err *err) {
  if (w->begun && w->out.f) return NM_OK;
  return nm__fail(err, NM_EFAIL, "a safetensors file is not open for writing");
}

int nm__st_data(struct nm__st_writer *w, const void *bytes, size_t n, nm_err *err) {
  int st = check_open(w, err);
  if (st || n == 0) return st;
  uint64_t room = w->at < w->n ? w->v[w->at].bytes - w->written : 0;
  if (n > room)
    return nm__fail(err, NM_EFAIL, "%s: %zu bytes of data given, but the current tensor lacks only "
                    "%llu", w->out.path, n, (unsigned long long)room);
  if ((st = nm__out_write(&w->out, bytes, n, err))) return st;
  w->written += n;
  if (w->written < w->v[w->at].bytes) return NM_OK;
  w->at++;
  w->written = 0;
  skip_empty(w);
  return NM_OK;
}

int nm__st_finish(struct nm__st_writer *w, nm_err *err) {
  int st = check_open(w, err);
  if (st) return st;
  if (w->at < w->n)
    return nm__fail(err, NM_EFAIL, "%s: cannot be finished: tensor '%s' lacks data", w->out.path,
                    w->v[w->at].name);
  st = nm__out_close(&w->out, err);
  w->begun = false;
  return st;
}
