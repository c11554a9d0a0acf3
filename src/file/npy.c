/* npy.c - NumPy's .npy files: float32 out; the usual number types in.
 *
 *   "\x93NUMPY" | major, minor | header length (2 or 4 bytes) | header | data
 *
 * The header is a Python dict literal. It is read by a parser of just that literal:
 * three known keys, each once, nothing else. Sizes are compared with the file's
 * length before anything is allocated. Values that are not finite are let through:
 * what they mean is for the caller to say. */
#include "file/npy.h"

#include "tensor/dtype.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- element types --------------------------------------------------- */

#define CONVERT(name, type, value) \
  static void name(float *out, const uint8_t *in, int64_t n) { \
    for (int64_t i = 0; i < n; i++) { \
      type v; \
      memcpy(&v, in + (size_t)i * sizeof v, sizeof v); \
      out[i] = value; \
    } \
  }
CONVERT(from_f4, float, v)
CONVERT(from_f8, double, (float)v)
CONVERT(from_f2, uint16_t, nm__half_to_f32(v))
CONVERT(from_i4, int32_t, (float)v)
CONVERT(from_i8, int64_t, (float)v)
CONVERT(from_u1, uint8_t, (float)v)
CONVERT(from_b1, uint8_t, v != 0 ? 1.0f : 0.0f)

struct elem {
  const char *descr;
  size_t size;
  void (*convert)(float *out, const uint8_t *in, int64_t n);
};
static const struct elem elems[] = {
  {"<f4", 4, from_f4}, {"<f8", 8, from_f8}, {"<f2", 2, from_f2}, {"<i4", 4, from_i4},
  {"<i8", 8, from_i8}, {"|u1", 1, from_u1}, {"|b1", 1, from_b1},
};

/* ---- the header's literal -------------------------------------------- */

struct literal {
  const char *name;                /* of the file */
  const char *s, *end, *start;
  nm_err *err;
};

struct header {
  const struct elem *elem;
  bool fortran;
  int n_dims;
  int64_t ne[4];
  bool seen_descr, seen_order, seen_shape;
};

static int bad(const struct literal *l, const char *what) {
  nm__fail(l->err, NM_EFORMAT, "%s: cannot read the npy header at its byte %td: %s", l->name,
           l->s - l->start, what);
  return NM_EFORMAT;
}

static void skip_space(struct literal *l) {
  while (l->s < l->end && (*l->s == ' ' || *l->s == '\t' || *l->s == '\n')) l->s++;
}

/* Takes the word if it stands here. */
static bool accept(struct literal *l, const char *word) {
  skip_space(l);
  size_t n = strlen(word);
  if ((size_t)(l->end - l->s) < n || memcmp(l->s, word, n) != 0) return false;
  l->s += n;
  return true;
}

/* A quoted string without escapes: none of the strings that may stand here needs one. */
static int read_quoted(struct literal *l, char *out, size_t n) {
  skip_space(l);
  char quote = l->s < l->end ? *l->s : 0;
  if (quote != '\'' && quote != '"') return bad(l, "a quoted string is needed");
  const char *from = ++l->s;
  while (l->s < l->end && *l->s != quote && *l->s != '\\') l->s++;
  if (l->s == l->end || *l->s == '\\') return bad(l, "a string does not end");
  size_t len = (size_t)(l->s++ - from);
  if (len >= n) return bad(l, "a string is too long to be known");
  memcpy(out, from, len);
  out[len] = 0;
  return NM_OK;
}

static int read_descr(struct literal *l, struct header *h) {
  char descr[16], shown[16];
  skip_space(l);
  if (l->s < l->end && (*l->s == '[' || *l->s == '('))
    return bad(l, "arrays of records are not read");
  int st = read_quoted(l, descr, sizeof descr);
  if (st) return st;
  for (size_t i = 0; i < sizeof elems / sizeof *elems; i++)
    if (strcmp(descr, elems[i].descr) == 0) h->elem = &elems[i];
  if (h->elem) return NM_OK;
  return nm__fail(l->err, NM_EFORMAT, "%s: element type '%s' is not read; <f4, <f8, <f2, <i4, <i8, "
                  "|u1 and |b1 are: save the array as float32", l->name,
                  nm__printable(shown, sizeof shown, descr, strlen(descr)));
}

static int read_order(struct literal *l, struct header *h) {
  h->fortran = accept(l, "True");
  return h->fortran || accept(l, "False") ? NM_OK : bad(l, "fortran_order must be True or False");
}

static int read_int(struct literal *l, int64_t *out) {
  skip_space(l);
  if (l->s == l->end || *l->s < '0' || *l->s > '9') return bad(l, "a size is needed");
  int64_t v = 0;
  for (; l->s < l->end && *l->s >= '0' && *l->s <= '9'; l->s++)
    if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *l->s - '0', &v))
      return bad(l, "a size overflows 63 bits");
  *out = v;
  return NM_OK;
}

/* "()", "(3,)", "(3, 4)" with an optional comma at the end. "(3)" is no tuple, and refused. */
static int read_shape(struct literal *l, struct header *h) {
  if (!accept(l, "(")) return bad(l, "the shape must be a tuple");
  bool comma = true;
  while (!accept(l, ")")) {
    if (!comma) return bad(l, "a comma is needed between sizes");
    if (h->n_dims == 4) return bad(l, "at most 4 dimensions are read");
    int st = read_int(l, &h->ne[h->n_dims++]);
    if (st) return st;
    comma = accept(l, ",");
  }
  if (h->n_dims == 1 && !comma) return bad(l, "a shape of one size needs a comma");
  return NM_OK;
}

static int read_entry(struct literal *l, struct header *h) {
  char key[16];
  int st = read_quoted(l, key, sizeof key);
  if (st) return st;
  if (!accept(l, ":")) return bad(l, "a colon is needed after a key");
  bool *seen;
  int (*read)(struct literal *, struct header *);
  if (strcmp(key, "descr") == 0) seen = &h->seen_descr, read = read_descr;
  else if (strcmp(key, "fortran_order") == 0) seen = &h->seen_order, read = read_order;
  else if (strcmp(key, "shape") == 0) seen = &h->seen_shape, read = read_shape;
  else return bad(l, "a key other than descr, fortran_order and shape");
  if (*seen) return bad(l, "a key occurs twice");
  *seen = true;
  return read(l, h);
}

static int read_literal(struct literal *l, struct header *h) {
  if (!accept(l, "{")) return bad(l, "the header must be a dict");
  bool comma = true;
  while (!accept(l, "}")) {
    if (!comma) return bad(l, "a comma is needed between keys");
    int st = read_entry(l, h);
    if (st) return st;
    comma = accept(l, ",");
  }
  skip_space(l);
  if (l->s != l->end) return bad(l, "something follows the dict");
  if (!h->seen_descr || !h->seen_order || !h->seen_shape)
    return bad(l, "descr, fortran_order and shape are all needed");
  return NM_OK;
}

/* ---- reading --------------------------------------------------------- */

/* Finds the header's text and where the data starts. */
static int find_header(const char *name, const uint8_t *p, size_t n, struct literal *l,
                       nm_err *err) {
  if (n < 10 || memcmp(p, "\x93NUMPY", 6) != 0)
    return nm__fail(err, NM_EFORMAT, "%s: this is not an npy file (the first bytes are not "
                    "\\x93NUMPY, or it has fewer than 10 of them)", name);
  if (p[6] < 1 || p[6] > 3 || p[7] != 0)
    return nm__fail(err, NM_EFORMAT, "%s: npy version %d.%d is not known, 1.0 to 3.0 are read",
                    name, p[6], p[7]);
  size_t at = p[6] == 1 ? 10 : 12;
  uint64_t len = (uint64_t)p[8] | (uint64_t)p[9] << 8;
  if (at == 12 && n >= 12) len |= (uint64_t)p[10] << 16 | (uint64_t)p[11] << 24;
  if (n < at || len > n - at)
    return nm__fail(err, NM_EFORMAT, "%s: the npy header claims %llu bytes, but the file has %zu "
                    "in all", name, (unsigned long long)len, n);
  const char *s = (const char *)p + at;
  *l = (struct literal){name, s, s + len, s, err};
  return NM_OK;
}

static int check_size(const char *name, const struct header *h, size_t have, int64_t *n,
                      nm_err *err) {
  if (h->fortran && h->n_dims > 1)
    return nm__fail(err, NM_EFORMAT, "%s: the array is in Fortran order, only C order is read: "
                    "save numpy.ascontiguousarray of it", name);
  /* A size of 0 counts as 1 here so that it cannot hide an overflow of the others. */
  int64_t all = 1, bytes;
  bool over = false, empty = false;
  for (int i = 0; i < h->n_dims; i++) {
    empty |= h->ne[i] == 0;
    over |= __builtin_mul_overflow(all, h->ne[i] ? h->ne[i] : 1, &all);
  }
  over |= __builtin_mul_overflow(all, (int64_t)h->elem->size, &bytes);
  if (over) return nm__fail(err, NM_EFORMAT, "%s: the shape's size overflows 63 bits", name);
  if (empty) all = bytes = 0;
  if ((uint64_t)bytes != have)
    return nm__fail(err, NM_EFORMAT, "%s: the shape needs %lld bytes of data, but the file holds "
                    "%zu", name, (long long)bytes, have);
  *n = all;
  return NM_OK;
}

int nm__npy_parse(const char *name, const void *bytes, size_t n, struct nm__npy *out,
                  nm_err *err) {
  struct literal l;
  struct header h = {0};
  *out = (struct nm__npy){0};
  int st = find_header(name, bytes, n, &l, err);
  if (!st) st = read_literal(&l, &h);
  if (st) return st;
  const uint8_t *data = (const uint8_t *)l.end;
  size_t have = n - (size_t)(data - (const uint8_t *)bytes);
  if ((st = check_size(name, &h, have, &out->n, err))) return st;
  out->data = nm__alloc((size_t)out->n, sizeof(float));
  if (!out->data) return nm__fail_memory(err, "an npy array", (size_t)out->n * sizeof(float));
  out->n_dims = h.n_dims;
  for (int i = 0; i < 4; i++) out->ne[i] = i < h.n_dims ? h.ne[i] : 1;
  h.elem->convert(out->data, data, out->n);
  return NM_OK;
}

int nm__npy_read(const char *path, struct nm__npy *out, nm_err *err) {
  struct nm__map m;
  *out = (struct nm__npy){0};
  int st = nm__map_open(path, &m, err);
  if (st) return st;
  st = nm__npy_parse(path, m.data, m.size, out, err);
  nm__map_close(&m);
  return st;
}

void nm__npy_done(struct nm__npy *a) {
  free(a->data);
  *a = (struct nm__npy){0};
}

/* ---- writing --------------------------------------------------------- */

size_t nm__npy_header(char out[256], int n_dims, const int64_t *ne) {
  char shape[112] = "";
  size_t k = 0;
  for (int i = 0; i < n_dims && i < 4; i++)
    k += (size_t)snprintf(shape + k, sizeof shape - k, "%s%lld%s", i ? ", " : "", (long long)ne[i],
                          n_dims == 1 ? "," : "");
  k = 10 + (size_t)snprintf(out + 10, 246,
                            "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }", shape);
  size_t total = (k + 1 + 63) / 64 * 64;
  memcpy(out, "\x93NUMPY\x01\x00", 8);
  out[8] = (char)((total - 10) & 0xff);
  out[9] = (char)((total - 10) >> 8);
  memset(out + k, ' ', total - k);
  out[total - 1] = '\n';
  return total;
}

int nm__npy_write(const char *path, int n_dims, const int64_t *ne, const float *data,
                  nm_err *err) {
  if (n_dims < 0 || n_dims > 4)
    return nm__fail(err, NM_EFAIL, "%s: an array of %d dimensions cannot be written, at most 4 can",
                    path, n_dims);
  char head[256];
  size_t n = 1;
  bool over = false;
  for (int i = 0; i < n_dims; i++) over |= __builtin_mul_overflow(n, (size_t)ne[i], &n);
  if (over || __builtin_mul_overflow(n, sizeof *data, &n))
    return nm__fail(err, NM_EFAIL, "%s: the array's size overflows", path);
  struct nm__out o;
  int st = nm__out_open(path, &o, err);
  if (!st) st = nm__out_write(&o, head, nm__npy_header(head, n_dims, ne), err);
  if (!st) st = nm__out_write(&o, data, n, err);
  return st ? st : nm__out_close(&o, err);
}
