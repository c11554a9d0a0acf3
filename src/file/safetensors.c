/* safetensors.c - reading the safetensors container, with every claim checked.
 *
 * The header is one JSON object. It is not parsed as a whole: its entries are read one by
 * one, each with a bound of its own, so that a header of a million empty lists costs no more
 * than one of a few tensors, and what is kept is the tensors' names and sizes.
 *
 * Spans must tile the data section: no holes, no overlaps, nothing behind the last. So a
 * file can not be something else besides, and no two tensors share bytes. */
#include "file/safetensors.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_MAX = 100000000, ENTRY_MAX = 1 << 16, META_MAX = 1 << 24 };

static const struct dtype { const char *name; int bits, type; } dtypes[] = {
    {"F64", 64, NM__F64},       {"F32", 32, NM__F32},   {"F16", 16, NM__F16},
    {"BF16", 16, NM__BF16},     {"I64", 64, NM__I64},   {"I32", 32, NM__I32},
    {"I16", 16, NM__I16},       {"I8", 8, NM__I8},      {"BOOL", 8, -1},
    {"U8", 8, -1},              {"U16", 16, -1},        {"U32", 32, -1},
    {"U64", 64, -1},            {"C64", 64, -1},        {"F8_E4M3", 8, -1},
    {"F8_E5M2", 8, -1},         {"F8_E8M0", 8, -1},     {"F8_E4M3FNUZ", 8, -1},
    {"F8_E5M2FNUZ", 8, -1},     {"F6_E2M3", 6, -1},     {"F6_E3M2", 6, -1},
    {"F4", 4, -1},
};
enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

static const struct dtype *dtype_named(const char *name) {
  for (int i = 0; i < N_DTYPES; i++)
    if (!strcmp(dtypes[i].name, name)) return &dtypes[i];
  return NULL;
}

const char *nm__st_dtype(uint32_t type, int *bits) {
  for (int i = 0; i < N_DTYPES; i++)
    if (dtypes[i].type == (int)type) return *bits = dtypes[i].bits, dtypes[i].name;
  return NULL;
}

/* ---- the reader ------------------------------------------------------ */

struct reader {
  struct nm__st *s;
  const char *text;                /* the file; `end` is the end of the header */
  size_t at, end;
  char place[128];                 /* what is being read, for messages */
  size_t cap;
  bool metadata_seen;
  nm_err *err;
};

__attribute__((format(printf, 2, 3)))
static int bad(const struct reader *r, const char *fmt, ...) {
  char detail[320];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(detail, sizeof detail, fmt, ap);
  va_end(ap);
  return nm__fail(r->err, NM_EFORMAT, "%s: cannot read %s at byte %zu: %s", r->s->path, r->place,
                  r->at, detail);
}

static void skip_space(struct reader *r) {
  while (r->at < r->end && strchr(" \t\r\n", r->text[r->at]) && r->text[r->at]) r->at++;
}

/* Goes past c, or says what stands there. */
static int expect(struct reader *r, char c) {
  skip_space(r);
  if (r->at < r->end && r->text[r->at] == c) return r->at++, NM_OK;
  char shown[8];
  return bad(r, r->at < r->end ? "'%c' is due, found '%s'" : "'%c' is due, but the header ends%s",
             c, r->at < r->end ? nm__printable(shown, sizeof shown, r->text + r->at, 1) : "");
}

/* One JSON value of at most `max` bytes; NULL with a sentence. */
static json_t *value(struct reader *r, size_t max) {
  json_error_t je;
  skip_space(r);
  size_t n = r->end - r->at < max ? r->end - r->at : max;
  json_t *v = json_loadb(r->text + r->at, n,
                         JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, &je);
  if (v) {
    r->at += (size_t)je.position;
    return v;
  }
  char shown[160];
  bad(r, "not valid JSON%s: %s", n == max ? " within the bytes an entry may have" : "",
      nm__printable(shown, sizeof shown, je.text, strlen(je.text)));
  return NULL;
}

/* ---- one tensor ------------------------------------------------------ */

static bool get_size(const json_t *j, uint64_t *out) {
  if (!json_is_integer(j) || json_integer_value(j) < 0) return false;
  *out = (uint64_t)json_integer_value(j);
  return true;
}

/* A size of 0 makes an empty tensor, but must not hide an overflow of the others. */
static int read_shape(struct reader *r, const json_t *shape, int bits, struct nm__st_tensor *t,
                      uint64_t *bytes) {
  uint64_t n = 1, ne;
  bool empty = false;
  if (!json_is_array(shape)) return bad(r, "its \"shape\" must be a list of sizes");
  if (json_array_size(shape) > NM__ST_DIMS_MAX)
    return bad(r, "it has %zu dimensions, at most %d are read", json_array_size(shape),
               NM__ST_DIMS_MAX);
  t->n_dims = (int)json_array_size(shape);
  for (int i = 0; i < t->n_dims; i++) {
    if (!get_size(json_array_get(shape, (size_t)i), &ne))
      return bad(r, "size %d of its shape must be an integer that is not negative", i);
    if (__builtin_mul_overflow(n, ne ? ne : 1, &n) || n > INT64_MAX / 64)
      return bad(r, "the number of elements overflows (size %d is %llu)", i,
                 (unsigned long long)ne);
    t->shape[i] = (int64_t)ne;
    empty |= ne == 0;
  }
  n = empty ? 0 : n * (uint64_t)bits;
  if (n % 8) return bad(r, "%llu bits are not whole bytes", (unsigned long long)n);
  *bytes = n / 8;
  return NM_OK;
}

static int read_entry(struct reader *r, const json_t *e, struct nm__st_tensor *t) {
  const json_t *name = json_object_get(e, "dtype"), *at = json_object_get(e, "data_offsets");
  uint64_t begin, end, bytes = 0, room = r->s->map.size - r->end;
  if (!json_is_object(e)) return bad(r, "an object with dtype, shape and data_offsets is due");
  if (!json_is_string(name)) return bad(r, "its \"dtype\" must be a string");
  const struct dtype *d = dtype_named(json_string_value(name));
  char shown[40];
  if (!d)
    return bad(r, "its dtype '%s' is not known",
               nm__printable(shown, sizeof shown, json_string_value(name),
                             json_string_length(name)));
  int st = read_shape(r, json_object_get(e, "shape"), d->bits, t, &bytes);
  if (st) return st;
  if (!json_is_array(at) || json_array_size(at) != 2 || !get_size(json_array_get(at, 0), &begin) ||
      !get_size(json_array_get(at, 1), &end))
    return bad(r, "its \"data_offsets\" must be two integers that are not negative");
  if (begin > end || end > room)
    return bad(r, "its span %llu to %llu does not lie in the data section of %llu bytes",
               (unsigned long long)begin, (unsigned long long)end, (unsigned long long)room);
  if (end - begin != bytes)
    return bad(r, "its shape needs %llu bytes of %s, its span has %llu",
               (unsigned long long)bytes, d->name, (unsigned long long)(end - begin));
  t->dtype = d->name;
  t->type = d->type;
  t->begin = begin;
  t->bytes = bytes;
  if (bytes) t->data = r->s->map.data + r->end + begin;
  return NM_OK;
}

/* The list doubles as entries come: its length is bounded by the header's. */
static int add_tensor(struct reader *r, const char *name) {
  struct nm__st *s = r->s;
  if (s->n == r->cap) {
    size_t cap = r->cap ? 2 * r->cap : 64;
    struct nm__st_tensor *v = nm__realloc(s->t, cap, sizeof *v);
    if (!v) return nm__fail_memory(r->err, "the tensor list", cap * sizeof *v);
    s->t = v;
    r->cap = cap;
  }
  s->t[s->n] = (struct nm__st_tensor){.name = nm__strdup(name)};
  if (!s->t[s->n].name) return nm__fail_memory(r->err, "a tensor name", strlen(name));
  json_t *e = value(r, ENTRY_MAX);
  int st = e ? read_entry(r, e, &s->t[s->n]) : NM_EFORMAT;
  s->n++;
  json_decref(e);
  return st;
}

/* ---- __metadata__ ------------------------------------------------------ */

static int add_metadata(struct reader *r) {
  json_t *o = value(r, META_MAX), *v;
  const char *key;
  size_t n = json_object_size(o);
  int st = o ? NM_OK : NM_EFORMAT;
  if (!st && (!json_is_object(o) || r->metadata_seen))
    st = bad(r, r->metadata_seen ? "it occurs twice" : "an object of strings is due");
  r->metadata_seen = true;
  if (!st && !(r->s->meta = nm__alloc(n ? n : 1, sizeof *r->s->meta)))
    st = nm__fail_memory(r->err, "metadata", n * sizeof *r->s->meta);
  if (!st) json_object_foreach(o, key, v) {
    if (!json_is_string(v)) {
      st = bad(r, "its values must be strings");
      break;
    }
    struct nm__st_meta *m = &r->s->meta[r->s->n_meta++];
    m->key = nm__strdup(key);
    m->value = nm__strdup(json_string_value(v));
    if (!m->key || !m->value) {
      st = nm__fail_memory(r->err, "metadata", json_string_length(v));
      break;
    }
  }
  json_decref(o);
  return st;
}

/* ---- the header ------------------------------------------------------ */

static int read_pair(struct reader *r) {
  char quoted[80];
  snprintf(r->place, sizeof r->place, "entry %zu of the header", r->s->n + 1);
  json_t *key = value(r, ENTRY_MAX);
  int st = key ? NM_OK : NM_EFORMAT;
  if (!st && !json_is_string(key)) st = bad(r, "a name is due");
  if (!st) {
    const char *name = json_string_value(key);
    bool meta = !strcmp(name, "__metadata__");
    snprintf(r->place, sizeof r->place, "%s '%s'", meta ? "entry" : "tensor",
             nm__printable(quoted, sizeof quoted, name, strlen(name)));
    st = expect(r, ':');
    if (!st) st = meta ? add_metadata(r) : add_tensor(r, name);
  }
  json_decref(key);
  return st;
}

static int read_header(struct reader *r) {
  int st = expect(r, '{');
  skip_space(r);
  bool more = r->at < r->end && r->text[r->at] != '}';
  while (!st && more) {
    st = read_pair(r);
    skip_space(r);
    more = !st && r->at < r->end && r->text[r->at] == ',';
    r->at += more;
  }
  snprintf(r->place, sizeof r->place, "the header");
  if (!st) st = expect(r, '}');
  skip_space(r);
  return !st && r->at < r->end ? bad(r, "only spaces may follow the object") : st;
}

static int read_length(struct reader *r) {
  uint64_t n;
  size_t size = r->s->map.size;
  snprintf(r->place, sizeof r->place, "the length of the header");
  if (size < 8) return bad(r, "a safetensors file has at least 8 bytes, this one has %zu", size);
  memcpy(&n, r->text, 8);
  if (n > HEADER_MAX)
    return bad(r, "it is %llu, at most %d bytes are allowed (is this a safetensors file?)",
               (unsigned long long)n, HEADER_MAX);
  if (n > size - 8)
    return bad(r, "it is %llu, but %zu bytes are left in the file", (unsigned long long)n,
               size - 8);
  r->at = 8;
  r->end = 8 + (size_t)n;
  snprintf(r->place, sizeof r->place, "the header");
  if (n < 2 || r->text[8] != '{') return bad(r, "it must begin with '{'");
  return NM_OK;
}

/* ---- spans and names --------------------------------------------------- */

static int by_span(const void *a, const void *b) {
  const struct nm__st_tensor *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int check_tiling(struct reader *r) {
  struct nm__st *s = r->s;
  uint64_t at = 0, room = s->map.size - r->end;
  if (s->n) qsort(s->t, s->n, sizeof *s->t, by_span);
  for (size_t i = 0; i <= s->n; i++) {
    uint64_t begin = i < s->n ? s->t[i].begin : room;
    char shown[80] = "end of the file";
    if (i < s->n) nm__printable(shown, sizeof shown, s->t[i].name, strlen(s->t[i].name));
    snprintf(r->place, sizeof r->place, "the data section");
    r->at = r->end + (size_t)at;
    if (begin != at)
      return bad(r, begin > at ? "%llu bytes before '%s' belong to no tensor"
                               : "%llu bytes of '%s' belong to another tensor, too",
                 (unsigned long long)(begin > at ? begin - at : at - begin), shown);
    if (i < s->n) at += s->t[i].bytes;
  }
  return NM_OK;
}

static int by_name(const void *a, const void *b) {
  return strcmp((*(struct nm__st_tensor *const *)a)->name,
                (*(struct nm__st_tensor *const *)b)->name);
}

static int index_names(struct reader *r) {
  struct nm__st *s = r->s;
  s->by_name = nm__alloc(s->n ? s->n : 1, sizeof *s->by_name);
  if (!s->by_name) return nm__fail_memory(r->err, "the names", s->n * sizeof *s->by_name);
  for (size_t i = 0; i < s->n; i++) s->by_name[i] = &s->t[i];
  if (s->n) qsort(s->by_name, s->n, sizeof *s->by_name, by_name);
  for (size_t i = 1; i < s->n; i++) {
    if (by_name(&s->by_name[i - 1], &s->by_name[i])) continue;
    char shown[80];
    const char *name = s->by_name[i]->name;
    return bad(r, "the name '%s' occurs twice",
               nm__printable(shown, sizeof shown, name, strlen(name)));
  }
  return NM_OK;
}

const struct nm__st_tensor *nm__st_find(const struct nm__st *s, const char *name) {
  struct nm__st_tensor key = {.name = (char *)(uintptr_t)name}, *k = &key, **found;
  found = s->n ? bsearch(&k, s->by_name, s->n, sizeof k, by_name) : NULL;
  return found ? *found : NULL;
}

/* ---- opening and closing --------------------------------------------- */

int nm__st_parse(const char *name, const void *bytes, size_t n, struct nm__st **out, nm_err *err) {
  struct nm__st *s = nm__alloc(1, sizeof *s);
  nm_err own = {0};
  *out = NULL;
  if (!s || !(s->path = nm__strdup(name))) {
    free(s);
    return nm__fail_memory(err, "a safetensors file", sizeof *s);
  }
  s->map = (struct nm__map){bytes, n};
  s->borrowed = true;
  struct reader r = {.s = s, .text = bytes, .err = &own};
  int st = read_length(&r);
  if (!st) st = read_header(&r);
  if (!st) st = check_tiling(&r);
  if (!st) st = index_names(&r);
  if (!st) return *out = s, NM_OK;
  nm__st_close(s);
  if (err) *err = own;
  return own.status;
}

int nm__st_open(const char *path, struct nm__st **out, nm_err *err) {
  struct nm__map map;
  *out = NULL;
  int st = nm__map_open(path, &map, err);
  if (st) return st;
  st = nm__st_parse(path, map.data, map.size, out, err);
  if (st) nm__map_close(&map);
  else (*out)->borrowed = false;
  return st;
}

void nm__st_close(struct nm__st *s) {
  if (!s) return;
  for (size_t i = 0; i < s->n; i++) free(s->t[i].name);
  for (size_t i = 0; i < s->n_meta; i++) {
    free(s->meta[i].key);
    free(s->meta[i].value);
  }
  free(s->t);
  free(s->meta);
  free(s->by_name);
  free(s->path);
  if (!s->borrowed) nm__map_close(&s->map);
  free(s);
}
