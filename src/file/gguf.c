/* gguf.c - reading the GGUF container, with every claim of the file checked.
 *
 *   | header 24 bytes | key/value pairs | tensor infos | padding | tensor data |
 *
 * A file from outside is hostile: no count is believed before the bytes it must
 * occupy have been compared with what is left of the file, so that the memory taken
 * is at most a small multiple of the file's size. The reader keeps one place ("key
 * 'x'", "tensor 'y'") and one offset, and every refusal names both.
 *
 * Integers are little-endian, as is every machine noema runs on; they are not aligned
 * in the file and are therefore copied out. */
#include "file/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { KEY_MAX = 65535, TENSOR_NAME_MAX = 63, KV_MIN = 12, TENSOR_MIN = 24 };
/* Slots hold 32-bit indices; no real file comes near this many keys or tensors. */
enum { COUNT_MAX = 1 << 24 };

struct reader {
  const char *name;                /* of the file, for messages */
  const uint8_t *data;
  size_t size, at;
  char place[128];                 /* what is being read, for messages */
  nm_err *err;
};

static const struct { const char *name; uint8_t size; } value_types[] = {
  {"u8", 1}, {"i8", 1}, {"u16", 2}, {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
  {"bool", 1}, {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8},
};
enum { N_VALUE_TYPES = sizeof value_types / sizeof *value_types };

const char *nm__gguf_type_name(uint32_t type) {
  return type < N_VALUE_TYPES ? value_types[type].name : "unknown";
}

size_t nm__gguf_type_size(uint32_t type) {
  return type < N_VALUE_TYPES ? value_types[type].size : 0;
}

/* ---- the reader ------------------------------------------------------ */

__attribute__((format(printf, 2, 3)))
static int bad(const struct reader *r, const char *fmt, ...) {
  char detail[320];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(detail, sizeof detail, fmt, ap);
  va_end(ap);
  nm__fail(r->err, NM_EFORMAT, "%s: cannot read %s at byte %zu: %s", r->name, r->place, r->at,
           detail);
  return NM_EFORMAT;
}

static void set_place(struct reader *r, const char *kind, struct nm__str s) {
  char quoted[80];
  nm__printable(quoted, sizeof quoted, s.s, s.n);
  snprintf(r->place, sizeof r->place, "%s '%s'", kind, quoted);
}

static size_t left(const struct reader *r) { return r->size - r->at; }

static int take(struct reader *r, void *out, size_t n, const char *what) {
  if (n > left(r))
    return bad(r, "the file ends inside %s (%zu bytes needed, %zu left)", what, n, left(r));
  memcpy(out, r->data + r->at, n);
  r->at += n;
  return NM_OK;
}

/* A string stays where it is in the file. */
static int take_str(struct reader *r, struct nm__str *out, const char *what) {
  uint64_t n = 0;
  size_t start = r->at;
  int st = take(r, &n, sizeof n, what);
  if (st) return st;
  if (n > left(r)) {
    size_t found = left(r);
    r->at = start;
    return bad(r, "%s claims %llu bytes, but %zu are left in the file", what,
               (unsigned long long)n, found);
  }
  *out = (struct nm__str){(const char *)r->data + r->at, (size_t)n};
  r->at += (size_t)n;
  return NM_OK;
}

/* Keys and names are handed on as C strings and printed as JSON: they must be UTF-8
 * without zero bytes, or two different names could look the same. */
static int check_name(const struct reader *r, struct nm__str s, const char *what) {
  if (s.n == 0) return bad(r, "%s is empty", what);
  if (memchr(s.s, 0, s.n)) return bad(r, "%s holds a zero byte", what);
  utf8proc_int32_t c;
  for (size_t i = 0; i < s.n;) {
    utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s.s + i,
                                          (utf8proc_ssize_t)(s.n - i), &c);
    if (k <= 0) return bad(r, "%s is not UTF-8 (byte %zu of it)", what, i);
    i += (size_t)k;
  }
  return NM_OK;
}

/* ---- names in a hash table ------------------------------------------- */

/* Keys and tensors both start with their name; `first` and `stride` let one table
 * serve both. Slots hold index + 1. */
static const char *name_of(const void *first, size_t stride, size_t i) {
  const char *name;
  memcpy(&name, (const char *)first + i * stride, sizeof name);
  return name;
}

static uint32_t *slots_new(size_t n, size_t *n_slots) {
  *n_slots = 16;
  while (*n_slots < 2 * n) *n_slots *= 2;
  return nm__alloc(*n_slots, sizeof(uint32_t));
}

/* The slot that holds `name`, or the free one where it would go. */
static size_t slots_find(const uint32_t *slots, size_t n_slots, const void *first,
                         size_t stride, const char *name) {
  size_t i = nm__hash(name, strlen(name), 0) & (n_slots - 1);
  while (slots[i] && strcmp(name_of(first, stride, slots[i] - 1), name) != 0)
    i = (i + 1) & (n_slots - 1);
  return i;
}

/* Enters item i; false when an earlier one has its name. */
static bool slots_add(uint32_t *slots, size_t n_slots, const void *first, size_t stride,
                      size_t i) {
  size_t k = slots_find(slots, n_slots, first, stride, name_of(first, stride, i));
  if (slots[k]) return false;
  slots[k] = (uint32_t)i + 1;
  return true;
}

/* ---- header ---------------------------------------------------------- */

static int check_count(struct reader *r, uint64_t n, size_t each, const char *what) {
  if (n > left(r) / each || n > COUNT_MAX)
    return bad(r, "the header claims %llu %s, but %zu bytes are left and each takes at least %zu",
               (unsigned long long)n, what, left(r), each);
  return NM_OK;
}

static int check_version(struct reader *r, uint32_t version) {
  if (version == 0x03000000 || version == 0x02000000)
    return bad(r, "the file is big-endian (version reads as 0x%08x), only little-endian files "
               "are read: convert it", version);
  if (version == 1) return bad(r, "version 1 is too old, 2 and 3 are read: convert it again");
  if (version != 2 && version != 3)
    return bad(r, "version %u is not known, 2 and 3 are read", version);
  return NM_OK;
}

static int read_header(struct reader *r, struct nm__gguf *g) {
  char magic[4];
  uint64_t n_tensors = 0, n_kv = 0;
  snprintf(r->place, sizeof r->place, "the GGUF header");
  int st = take(r, magic, 4, "the magic number");
  if (st) return st;
  if (memcmp(magic, "GGUF", 4) != 0) {
    char shown[8];
    r->at = 0;
    return bad(r, "this is not a GGUF file, it starts with '%s'",
               nm__printable(shown, sizeof shown, magic, 4));
  }
  uint32_t version = 0;
  if ((st = take(r, &version, 4, "the version"))) return st;
  if ((st = check_version(r, version))) return st;
  g->format = version == 2 ? "GGUF v2" : "GGUF v3";
  if ((st = take(r, &n_tensors, 8, "the number of tensors"))) return st;
  if ((st = take(r, &n_kv, 8, "the number of keys"))) return st;
  if ((st = check_count(r, n_kv, KV_MIN, "keys"))) return st;
  if ((st = check_count(r, n_tensors, TENSOR_MIN, "tensors"))) return st;
  g->n_kv = (size_t)n_kv;
  g->n_tensors = (size_t)n_tensors;
  return NM_OK;
}

/* ---- key/value pairs ------------------------------------------------- */

static int read_strings(struct reader *r, struct nm__gguf_kv *kv) {
  kv->strings = nm__alloc((size_t)kv->n, sizeof *kv->strings);
  if (!kv->strings)
    return nm__fail_memory(r->err, "an array of strings", (size_t)kv->n * sizeof *kv->strings);
  for (uint64_t i = 0; i < kv->n; i++) {
    int st = take_str(r, &kv->strings[i], "a string of the array");
    if (st) return st;
  }
  return NM_OK;
}

/* n packed numbers of `type`. A bool is one byte that must be 0 or 1: any other value
 * means that the file and its reader disagree about what stands here. */
static int read_numbers(struct reader *r, struct nm__gguf_kv *kv, uint32_t type) {
  size_t size = value_types[type].size;
  if (kv->n > left(r) / size)
    return bad(r, "%llu values of type %s claimed, but %zu bytes are left in the file",
               (unsigned long long)kv->n, value_types[type].name, left(r));
  if (type == NM__GGUF_BOOL) {
    for (size_t i = 0; i < kv->n; i++, r->at++)
      if (r->data[r->at] > 1) return bad(r, "a bool must be 0 or 1, found %u", r->data[r->at]);
    return NM_OK;
  }
  r->at += (size_t)kv->n * size;
  return NM_OK;
}

static int read_array(struct reader *r, struct nm__gguf_kv *kv) {
  int st = take(r, &kv->elem_type, 4, "the element type of the array");
  if (st) return st;
  if (kv->elem_type >= N_VALUE_TYPES) return bad(r, "unknown element type %u", kv->elem_type);
  if (kv->elem_type == NM__GGUF_ARRAY) return bad(r, "arrays of arrays are not read");
  if ((st = take(r, &kv->n, 8, "the length of the array"))) return st;
  kv->raw = r->data + r->at;
  if (kv->elem_type != NM__GGUF_STRING) return read_numbers(r, kv, kv->elem_type);
  /* Each string takes at least its length field. */
  if (kv->n > left(r) / 8)
    return bad(r, "%llu strings claimed, but %zu bytes are left in the file",
               (unsigned long long)kv->n, left(r));
  return read_strings(r, kv);
}

static int read_kv(struct reader *r, struct nm__gguf_kv *kv, size_t i) {
  struct nm__str key;
  snprintf(r->place, sizeof r->place, "key number %zu", i + 1);
  int st = take_str(r, &key, "the key");
  if (st) return st;
  if (key.n > KEY_MAX)
    return bad(r, "the key has %zu bytes, at most %d are allowed", key.n, KEY_MAX);
  if ((st = check_name(r, key, "the key"))) return st;
  set_place(r, "key", key);
  if (!(kv->key = nm__strndup(key.s, key.n))) return nm__fail_memory(r->err, "a key", key.n);
  if ((st = take(r, &kv->type, 4, "the value type"))) return st;
  if (kv->type >= N_VALUE_TYPES) return bad(r, "unknown value type %u", kv->type);
  if (kv->type == NM__GGUF_ARRAY) return read_array(r, kv);
  kv->n = 1;
  kv->raw = r->data + r->at;
  struct nm__str ignored;
  return kv->type == NM__GGUF_STRING ? take_str(r, &ignored, "the string")
                                     : read_numbers(r, kv, kv->type);
}

static int read_kvs(struct reader *r, struct nm__gguf *g) {
  size_t n_slots;
  g->kv = nm__alloc(g->n_kv, sizeof *g->kv);
  uint32_t *slots = slots_new(g->n_kv, &n_slots);
  int st = NM_OK;
  if (!g->kv || !slots) st = nm__fail_memory(r->err, "the keys", g->n_kv * sizeof *g->kv);
  for (size_t i = 0; !st && i < g->n_kv; i++) {
    st = read_kv(r, &g->kv[i], i);
    if (!st && !slots_add(slots, n_slots, g->kv, sizeof *g->kv, i))
      st = bad(r, "the key occurs twice");
  }
  free(slots);
  return st;
}

static int read_alignment(struct reader *r, struct nm__gguf *g) {
  const struct nm__gguf_kv *kv = nm__gguf_find(g, "general.alignment");
  int64_t a = 32;
  if (kv) {
    snprintf(r->place, sizeof r->place, "key 'general.alignment'");
    r->at = (size_t)(kv->raw - r->data);
    if (kv->type != NM__GGUF_U32)
      return bad(r, "its type must be u32, found %s", value_types[kv->type].name);
    nm__gguf_int_at(kv, 0, &a);
    if (a == 0 || (a & (a - 1)))
      return bad(r, "the alignment must be a power of two, found %lld", (long long)a);
  }
  g->alignment = (uint64_t)a;
  return NM_OK;
}

/* ---- tensor infos ---------------------------------------------------- */

static int read_shape(struct reader *r, struct nm__gguf_tensor *t) {
  uint32_t n_dims = 0;
  int st = take(r, &n_dims, 4, "the number of dimensions");
  if (st) return st;
  if (n_dims < 1 || n_dims > 4) return bad(r, "1 to 4 dimensions are allowed, found %u", n_dims);
  t->n_dims = (int)n_dims;
  /* A size of 0 makes an empty tensor, which is harmless; but it must not hide an
   * overflow of the others, so it counts as 1 here. */
  int64_t n = 1;
  for (int i = 0; i < 4; i++) t->ne[i] = 1;
  for (int i = 0; i < t->n_dims; i++) {
    uint64_t ne = 0;
    if ((st = take(r, &ne, 8, "the sizes"))) return st;
    if (ne > INT64_MAX || __builtin_mul_overflow(n, ne ? (int64_t)ne : 1, &n))
      return bad(r, "the number of elements overflows 63 bits (size %d is %llu)", i,
                 (unsigned long long)ne);
    t->ne[i] = (int64_t)ne;
  }
  return NM_OK;
}

bool nm__gguf_tensor_bytes(uint32_t type, int n_dims, const int64_t *ne, uint64_t *out) {
  const struct nm__dtype_info *info = nm__dtype(type);
  if (!info || !info->name || info->removed || ne[0] < 0 || ne[0] % info->block) return false;
  int64_t bytes;
  bool over = __builtin_mul_overflow(ne[0] / info->block, (int64_t)info->bytes, &bytes);
  for (int i = 1; i < n_dims; i++)
    over |= ne[i] < 0 || __builtin_mul_overflow(bytes, ne[i], &bytes);
  *out = (uint64_t)bytes;
  return !over;
}

static int count_bytes(const struct reader *r, struct nm__gguf_tensor *t) {
  const struct nm__dtype_info *info = nm__dtype(t->type);
  if (info && info->removed)
    return bad(r, "tensor type %u is not read: %s", t->type, info->removed);
  if (!info || !info->name) return bad(r, "unknown tensor type %u", t->type);
  if (t->ne[0] % info->block)
    return bad(r, "a row of %lld is not a multiple of the block of %s, which is %d",
               (long long)t->ne[0], info->name, info->block);
  if (!nm__gguf_tensor_bytes(t->type, 4, t->ne, &t->bytes))
    return bad(r, "the size in bytes overflows 63 bits");
  return NM_OK;
}

static int read_tensor(struct reader *r, struct nm__gguf_tensor *t, size_t i) {
  struct nm__str name;
  snprintf(r->place, sizeof r->place, "tensor number %zu", i + 1);
  int st = take_str(r, &name, "the tensor name");
  if (st) return st;
  if (name.n > TENSOR_NAME_MAX)
    return bad(r, "the tensor name has %zu bytes, at most %d are allowed", name.n, TENSOR_NAME_MAX);
  if ((st = check_name(r, name, "the tensor name"))) return st;
  set_place(r, "tensor", name);
  if (!(t->name = nm__strndup(name.s, name.n)))
    return nm__fail_memory(r->err, "a tensor name", name.n);
  if ((st = read_shape(r, t))) return st;
  if ((st = take(r, &t->type, 4, "the tensor type"))) return st;
  if ((st = count_bytes(r, t))) return st;
  return take(r, &t->offset, 8, "the tensor offset");
}

static int read_tensors(struct reader *r, struct nm__gguf *g) {
  int st = check_count(r, g->n_tensors, TENSOR_MIN, "tensors");
  if (st) return st;
  g->tensors = nm__alloc(g->n_tensors, sizeof *g->tensors);
  g->slots = slots_new(g->n_tensors, &g->n_slots);
  if (!g->tensors || !g->slots)
    return nm__fail_memory(r->err, "the tensor list", g->n_tensors * sizeof *g->tensors);
  for (size_t i = 0; i < g->n_tensors; i++) {
    if ((st = read_tensor(r, &g->tensors[i], i))) return st;
    if (!slots_add(g->slots, g->n_slots, g->tensors, sizeof *g->tensors, i))
      return bad(r, "the tensor name occurs twice");
  }
  return NM_OK;
}

/* ---- tensor data ----------------------------------------------------- */

/* Alignment is at most 2^31 and `at` at most the file's size: the sum cannot wrap. */
static int place_tensors(struct reader *r, struct nm__gguf *g) {
  g->data_start = (r->at + g->alignment - 1) & ~(g->alignment - 1);
  uint64_t room = g->data_start < r->size ? r->size - g->data_start : 0;
  r->at = (size_t)g->data_start;
  for (size_t i = 0; i < g->n_tensors; i++) {
    struct nm__gguf_tensor *t = &g->tensors[i];
    set_place(r, "tensor", (struct nm__str){t->name, strlen(t->name)});
    if (t->offset % g->alignment)
      return bad(r, "its offset %llu is not a multiple of the alignment %llu",
                 (unsigned long long)t->offset, (unsigned long long)g->alignment);
    if (t->offset > room || t->bytes > room - t->offset)
      return bad(r, "its %llu bytes at offset %llu run past the end of the data section, which "
                 "has %llu bytes", (unsigned long long)t->bytes, (unsigned long long)t->offset,
                 (unsigned long long)room);
    if (t->bytes) t->data = r->data + g->data_start + t->offset;
  }
  return NM_OK;
}

static int by_offset(const void *a, const void *b) {
  const struct nm__gguf_tensor *x = *(const struct nm__gguf_tensor *const *)a;
  const struct nm__gguf_tensor *y = *(const struct nm__gguf_tensor *const *)b;
  return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Any order and any gaps are fine, but two tensors on the same bytes are not. */
static int refuse_overlap(struct reader *r, const struct nm__gguf *g) {
  const struct nm__gguf_tensor **order = nm__alloc(g->n_tensors, sizeof *order);
  if (!order) return nm__fail_memory(r->err, "the tensor order", g->n_tensors * sizeof *order);
  size_t n = 0;
  for (size_t i = 0; i < g->n_tensors; i++)
    if (g->tensors[i].bytes) order[n++] = &g->tensors[i];
  if (n) qsort(order, n, sizeof *order, by_offset);
  int st = NM_OK;
  for (size_t i = 1; !st && i < n; i++) {
    if (order[i - 1]->offset + order[i - 1]->bytes <= order[i]->offset) continue;
    char other[80];
    set_place(r, "tensor", (struct nm__str){order[i]->name, strlen(order[i]->name)});
    nm__printable(other, sizeof other, order[i - 1]->name, strlen(order[i - 1]->name));
    st = bad(r, "its data at offset %llu overlaps tensor '%s'",
             (unsigned long long)order[i]->offset, other);
  }
  free(order);
  return st;
}

/* ---- opening and closing --------------------------------------------- */

static int parse(struct reader *r, struct nm__gguf *g) {
  int st = read_header(r, g);
  if (!st) st = read_kvs(r, g);
  size_t infos = r->at;
  if (!st) st = read_alignment(r, g);
  r->at = infos;
  if (!st) st = read_tensors(r, g);
  if (!st) st = place_tensors(r, g);
  if (!st) st = refuse_overlap(r, g);
  return st;
}

int nm__gguf_parse(const char *name, const void *bytes, size_t n, struct nm__gguf **out,
                   nm_err *err) {
  *out = NULL;
  struct nm__gguf *g = nm__alloc(1, sizeof *g);
  if (!g || !(g->path = nm__strdup(name)) || !(g->maps = nm__alloc(1, sizeof *g->maps))) {
    nm__gguf_close(g);
    return nm__fail_memory(err, "a GGUF file", sizeof *g);
  }
  g->maps[0] = (struct nm__map){bytes, n};
  g->n_maps = 1;
  g->borrowed = true;
  struct reader r = {.name = name, .data = bytes, .size = n, .err = err};
  int st = parse(&r, g);
  if (st) nm__gguf_close(g);
  else *out = g;
  return st;
}

int nm__gguf_open(const char *path, struct nm__gguf **out, nm_err *err) {
  struct nm__map map;
  *out = NULL;
  int st = nm__map_open(path, &map, err);
  if (st) return st;
  st = nm__gguf_parse(path, map.data, map.size, out, err);
  if (st) return nm__map_close(&map), st;
  (*out)->borrowed = false;
  if (!nm__gguf_is_piece(*out)) return NM_OK;
  struct nm__gguf *piece = *out;
  st = nm__gguf_open_pieces(piece, out, err);
  nm__gguf_close(piece);
  return st;
}

/* Counts are set before the lists are allocated, hence the tests for NULL. */
void nm__gguf_close(struct nm__gguf *g) {
  if (!g) return;
  for (size_t i = 0; g->kv && i < g->n_kv; i++) {
    free(g->kv[i].key);
    free(g->kv[i].strings);
  }
  for (size_t i = 0; g->tensors && i < g->n_tensors; i++) free(g->tensors[i].name);
  free(g->kv);
  free(g->tensors);
  free(g->slots);
  free(g->path);
  free(g->no_tokenizer);
  for (size_t i = g->borrowed; i < g->n_maps; i++) nm__map_close(&g->maps[i]);
  for (size_t i = 0; i < g->n_own; i++) free(g->own[i]);
  free(g->maps);
  free(g->own);
  free(g);
}

uint64_t nm__gguf_bytes(const struct nm__gguf *g) {
  uint64_t n = 0;
  for (size_t i = 0; i < g->n_maps; i++) n += g->maps[i].size;
  return n;
}

void nm__gguf_drop(const struct nm__gguf *g) {
  for (size_t i = 0; i < g->n_maps; i++) nm__map_drop(&g->maps[i], 0, g->maps[i].size);
}

void nm__gguf_hash(const struct nm__gguf *g, char hex[33]) {
  struct nm__buf all;
  nm__buf_init(&all, 64 * (size_t)COUNT_MAX);
  for (size_t i = 0; i < g->n_maps; i++) {
    nm__hash_map(&g->maps[i], hex);
    nm__buf_put(&all, hex, 32);
  }
  if (g->n_maps != 1) nm__hash_hex(all.s, all.len, hex);
  nm__buf_done(&all);
}

/* ---- looking things up ----------------------------------------------- */

/* A few dozen keys: a scan is quick enough. */
const struct nm__gguf_kv *nm__gguf_find(const struct nm__gguf *g, const char *key) {
  for (size_t i = 0; i < g->n_kv; i++)
    if (strcmp(g->kv[i].key, key) == 0) return &g->kv[i];
  return NULL;
}

const struct nm__gguf_tensor *nm__gguf_tensor(const struct nm__gguf *g, const char *name) {
  size_t k = slots_find(g->slots, g->n_slots, g->tensors, sizeof *g->tensors, name);
  return g->slots[k] ? &g->tensors[g->slots[k] - 1] : NULL;
}

bool nm__gguf_index(struct nm__gguf *g, size_t n) {
  size_t n_slots;
  uint32_t *slots = slots_new(n, &n_slots);
  if (!slots) return false;
  free(g->slots);
  g->slots = slots;
  g->n_slots = n_slots;
  for (size_t i = 0; i < g->n_tensors; i++)
    slots_add(slots, n_slots, g->tensors, sizeof *g->tensors, i);
  return true;
}

bool nm__gguf_index_last(struct nm__gguf *g) {
  return slots_add(g->slots, g->n_slots, g->tensors, sizeof *g->tensors, g->n_tensors - 1);
}
