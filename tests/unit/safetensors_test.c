/* safetensors_test.c - the safetensors container: what must be read, what must be refused,
 * what the writer writes, and that no damage does more than be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "file/safetensors.h"

#define SHARED "../shared/data/"
static char scratch[64];

/* The bytes of a file with this header and n bytes of data. */
static uint8_t *make(const char *header, size_t n, size_t *size) {
  uint64_t len = strlen(header);
  uint8_t *b = calloc(8 + len + n, 1);
  memcpy(b, &len, 8);
  memcpy(b + 8, header, len);
  for (size_t i = 0; i < n; i++) b[8 + len + i] = (uint8_t)i;
  *size = 8 + len + n;
  return b;
}

static void refuses(const char *header, size_t n, const char *why) {
  size_t size;
  uint8_t *b = make(header, n, &size);
  struct nm__st *s = (void *)1;
  nm_err err = {0};
  int st = nm__st_parse("f", b, size, &s, &err);
  if (st != NM_EFORMAT || s || !strstr(err.text, why) || strncmp(err.text, "f: ", 3))
    fail_msg("%s: status %d, '%s', expected '%s'", header, st, err.text, why);
  free(b);
}

#define ONE "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
static void refusals(void **state) {
  (void)state;
  refuses("[]", 0, "must begin with '{'");
  refuses(" {}", 0, "must begin with '{'");
  refuses("{}x", 0, "only spaces");
  refuses("{", 0, "must begin");
  refuses("{ ", 0, "'}' is due");
  refuses("{}", 1, "belong to no tensor");
  refuses("{\"a\"", 0, "':' is due");
  refuses("{\"a\":}", 0, "not valid JSON");
  refuses(ONE ",}", 8, "not valid JSON");
  refuses(ONE, 8, "'}' is due");
  refuses(ONE "}", 7, "does not lie in the data");
  refuses(ONE ",\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}", 16,
          "occurs twice");
  refuses(ONE ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "too");
  refuses(ONE ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}", 16,
          "no tensor");
  refuses("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4,
          "duplicate");
  refuses("{\"a\":{\"dtype\":\"Q8\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, "'Q8' is not known");
  refuses("{\"a\":{\"dtype\":1,\"shape\":[],\"data_offsets\":[0,4]}}", 4, "must be a string");
  refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "integer");
  refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1e0],\"data_offsets\":[0,4]}}", 4, "integer");
  refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[true],\"data_offsets\":[0,4]}}", 4, "integer");
  refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "integer");
  refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]}}", 4,
          "big integer");
  refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[0,4294967296,4294967296],\"data_offsets\":[0,0]}}",
          0, "overflows");
  refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
          "9 dimensions");
  refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, "two integers");
  refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.0]}}", 4, "two integers");
  refuses("{\"a\":{\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "whole bytes");
  refuses("{\"a\":7}", 0, "an object");
  refuses("{\"a\\u0000b\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "\\u0000");
  refuses("{\"\xff\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "decode byte");
  refuses("{\"__metadata__\":{\"a\":1}}", 0, "strings");
  refuses("{\"__metadata__\":[]}", 0, "strings");
  refuses("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice");
  struct nm__st *s;
  nm_err err = {0};
  assert_int_equal(nm__st_parse("f", "\377\377\377\377\377\377\377\377{}", 10, &s, &err),
                   NM_EFORMAT);
  assert_non_null(strstr(err.text, "at most 100000000"));
}

/* A header of empty lists must not cost a multiple of its size. */
static void memory_is_bounded(void **state) {
  (void)state;
  size_t n = 1 << 23, size;
  char *h = malloc(n + 1);
  memset(h, '[', n);
  memcpy(h, "{\"a\":", 5);
  h[n] = 0;
  refuses(h, 0, "not valid JSON");
  for (size_t i = 6; i < n; i++) h[i] = "[],"[(i - 6) % 3];
  refuses(h, 0, "within the bytes an entry may have");
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  uint8_t *b = make(h, 0, &size);
  free(b);
  free(h);
  print_message("measured: %ld kB resident at most, headers of %zu kB\n", u.ru_maxrss, n >> 10);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  assert_true(u.ru_maxrss < 64 << 10);
#endif
}

static void reads(void **state) {
  (void)state;
  size_t size;
  uint8_t *b = make("{\"__metadata__\":{\"format\":\"pt\"},"
                    "\"late\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[5,11]},\"none\":"
                    "{\"dtype\":\"U64\",\"shape\":[4,0],\"data_offsets\":[5,5]},"
                    " \"\\u00e9\" : { \"shape\":[], \"data_offsets\":[ 4, 5 ], \"dtype\":\"BOOL\"},"
                    "\"x\":{\"dtype\":\"F4\",\"shape\":[2,4],\"data_offsets\":[0,4]}}  \n",
                    11, &size);
  struct nm__st *s;
  nm_err err = {0};
  if (nm__st_parse("f", b, size, &s, &err)) fail_msg("%s", err.text);
  assert_int_equal(s->n, 4);
  assert_string_equal(s->t[0].name, "x");
  assert_int_equal(s->t[0].type, -1);
  const struct nm__st_tensor *t = nm__st_find(s, "late");
  assert_true(t && t->type == NM__F16 && t->n_dims == 1 && t->shape[0] == 3 && t->bytes == 6);
  assert_memory_equal(t->data, "\5\6\7\10\11\12", 6);
  t = nm__st_find(s, "\xc3\xa9");
  assert_true(t && t->n_dims == 0 && t->bytes == 1 && t->data[0] == 4);
  t = nm__st_find(s, "none");
  assert_true(t && !t->data && t->n_dims == 2);
  assert_null(nm__st_find(s, "lat"));
  assert_int_equal(s->n_meta, 1);
  assert_string_equal(s->meta[0].value, "pt");
  nm__st_close(s);
  free(b);
}

/* The collection says of each file whether it is valid. */
static void malformed(void **state) {
  (void)state;
  const char *dir = SHARED "models/malformed/safetensors";
  if (!nm__exists(dir)) {
    print_message("skipped: ../shared is not here\n");
    skip();
  }
  char *path = nm__path_join(dir, "index.json");
  json_t *index = json_load_file(path, 0, NULL), *entry;
  free(path);
  size_t i;
  json_array_foreach(index, i, entry) {
    struct nm__st *s;
    nm_err err = {0};
    path = nm__path_join(dir, json_string_value(json_object_get(entry, "file")));
    bool valid = nm__st_open(path, &s, &err) == 0;
    if (valid != json_is_true(json_object_get(entry, "valid")))
      fail_msg("%s is %s: %s", path, valid ? "read" : "refused", err.text);
    if (!valid) assert_non_null(strstr(err.text, path));
    nm__st_close(s);
    free(path);
  }
  assert_true(i >= 23);
  json_decref(index);
}

/* ---- writing --------------------------------------------------------- */

static const struct {
  const char *name;
  uint32_t type;
  int n_dims;
  int64_t shape[3];
} some[] = {
    {"b.weight", NM__F16, 2, {3, 5}}, {"c", NM__F32, 0, {0}},      {"a\"\xc3\xa9", NM__F16, 1, {7}},
    {"none", NM__F32, 3, {2, 0, 3}},  {"i", NM__I8, 3, {1, 2, 3}}, {"d", NM__F32, 1, {2}},
    {"w", NM__F64, 1, {1}},           {"l", NM__BF16, 2, {1, 1}},
};
enum { N_SOME = sizeof some / sizeof *some };

static void write_some(const char *path) {
  struct nm__st_writer *w;
  nm_err err = {0};
  assert_int_equal(nm__st_writer_new(&w, &err), 0);
  nm__st_put(w, "format", "pt");
  for (int i = 0; i < N_SOME; i++)
    nm__st_announce(w, some[i].name, some[i].type, some[i].n_dims, some[i].shape);
  if (nm__st_begin(w, path, &err)) fail_msg("%s", err.text);
  for (int64_t i; (i = nm__st_next(w)) >= 0;) {
    uint8_t byte = (uint8_t)(16 * i);
    if (nm__st_data(w, &byte, 1, &err)) fail_msg("%s", err.text);
  }
  assert_int_equal(nm__st_data(w, "", 1, &err), NM_EFAIL);
  if (nm__st_finish(w, &err)) fail_msg("%s", err.text);
  nm__st_writer_free(w);
}

static void round_trip(void **state) {
  (void)state;
  static const char *const order[] = {"w", "c", "d", "none", "a\"\xc3\xa9", "b.weight", "l", "i"};
  struct nm__st *s;
  nm_err err = {0};
  write_some(scratch);
  if (nm__st_open(scratch, &s, &err)) fail_msg("%s", err.text);
  assert_int_equal(s->n, N_SOME);
  assert_int_equal((s->map.size - (size_t)(s->t[0].data - s->map.data)) + 0,
                   8 + 4 + 8 + 14 + 30 + 2 + 6);
  assert_int_equal((s->t[0].data - s->map.data) % 8, 0);
  for (int i = 0, at = 0; i < N_SOME; i++) {
    const struct nm__st_tensor *t = nm__st_find(s, some[i].name);
    assert_true(t && t->type == (int)some[i].type && t->n_dims == some[i].n_dims);
    for (int d = 0; d < t->n_dims; d++) assert_int_equal(t->shape[d], some[i].shape[d]);
    for (uint64_t k = 0; k < t->bytes; k++) assert_int_equal(t->data[k], 16 * i);
    const struct nm__st_tensor *o = nm__st_find(s, order[i]);
    assert_true(!o->bytes || (int)o->begin == at);
    at += (int)o->bytes;
  }
  nm__st_close(s);
  unlink(scratch);
}

static void write_refused(uint32_t type, int n_dims, int64_t ne, int times, const char *why) {
  struct nm__st_writer *w;
  nm_err err = {0};
  assert_int_equal(nm__st_writer_new(&w, &err), 0);
  for (int i = 0; i < times; i++)
    nm__st_announce(w, "a", type, n_dims, (int64_t[]){ne, ne, ne, ne, ne, ne, ne, ne, ne});
  assert_int_equal(nm__st_begin(w, scratch, &err), NM_EFAIL);
  if (!strstr(err.text, why)) fail_msg("'%s', expected '%s'", err.text, why);
  nm__st_writer_free(w);
  assert_false(nm__exists(scratch));
}

static void writer_refuses(void **state) {
  (void)state;
  write_refused(NM__Q8_0, 1, 32, 1, "Q8_0");
  write_refused(99, 1, 1, 1, "unknown");
  write_refused(NM__F32, 9, 1, 1, "at most 8");
  write_refused(NM__F32, 1, -1, 1, "cannot be stored");
  write_refused(NM__F32, 3, 1 << 24, 1, "cannot be stored");
  write_refused(NM__F32, 1, 1, 2, "given twice");
  struct nm__st_writer *w;
  nm_err err = {0};
  assert_int_equal(nm__st_writer_new(&w, &err), 0);
  nm__st_announce(w, "a", NM__F32, 1, (int64_t[]){2});
  assert_int_equal(nm__st_data(w, "abcd", 4, &err), NM_EFAIL);
  assert_int_equal(nm__st_begin(w, scratch, &err), 0);
  assert_int_equal(nm__st_data(w, "abcd", 4, &err), 0);
  assert_int_equal(nm__st_finish(w, &err), NM_EFAIL);
  assert_non_null(strstr(err.text, "lacks data"));
  nm__st_writer_free(w);
  assert_false(nm__exists(scratch));
}

/* ---- damage ------------------------------------------------------------ */

static uint64_t touch(const struct nm__st *s) {
  uint64_t sum = 0, bytes = 0;
  for (size_t i = 0; i < s->n; i++) {
    const struct nm__st_tensor *t = &s->t[i];
    assert_ptr_equal(nm__st_find(s, t->name), t);
    for (uint64_t k = 0; k < t->bytes; k++) sum += t->data[k];
    bytes += t->bytes;
  }
  assert_true(bytes <= s->map.size);
  return sum;
}

/* Bytes changed, swapped for others of the header, or cut off. */
static void mutations(void **state) {
  (void)state;
  struct nm__map map;
  int n_read = 0;
  write_some(scratch);
  assert_int_equal(nm__map_open(scratch, &map, NULL), 0);
  for (uint64_t i = 0; i < 10000; i++) {
    struct nm__rng r = {.seed = 7, .stream = i};
    size_t n = map.size - (i % 5 ? 0 : nm__rng_below(&r, map.size));
    uint8_t *b = malloc(n ? n : 1); /* exact, so that a read behind it is seen */
    memcpy(b, map.data, n);
    for (uint64_t k = nm__rng_below(&r, 3) + (i % 5 != 0); n && k; k--)
      b[nm__rng_below(&r, n)] =
          i % 2 ? (uint8_t)nm__rng_u64(&r) : map.data[nm__rng_below(&r, map.size)];
    struct nm__st *s;
    nm_err err = {0};
    if (!nm__st_parse("f", b, n, &s, &err))
      n_read++, touch(s);
    else
      assert_true(!s && err.status && err.text[0]);
    nm__st_close(s);
    free(b);
  }
  print_message("measured: %d of 10000 damaged files are read\n", n_read);
  assert_true(n_read > 0 && n_read < 5000);
  nm__map_close(&map);
  unlink(scratch);
}

int main(void) {
  snprintf(scratch, sizeof scratch, "/tmp/noema_safetensors_test.%ld", (long)getpid());
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(memory_is_bounded),
      cmocka_unit_test(refusals),
      cmocka_unit_test(reads),
      cmocka_unit_test(malformed),
      cmocka_unit_test(round_trip),
      cmocka_unit_test(writer_refuses),
      cmocka_unit_test(mutations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
