/* file_test.c - the readers and writers of src/file: what they must read, what they must
 * refuse and how the sentence says so, and that damaged files never crash them. */
#include "file/gguf.h"
#include "file/npy.h"
#include "file/table.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#define SHARED "../shared/data/"

static char scratch[64];            /* a file of our own */

static struct nm__map slurp(const char *path) {
  struct nm__map m;
  nm_err err = {0};
  if (nm__map_open(path, &m, &err)) fail_msg("%s", err.text);
  return m;
}

static bool absent(const char *path) {
  if (nm__exists(path)) return false;
  print_message("skipped: %s is not here\n", path);
  return true;
}

/* ---- damage ---------------------------------------------------------- */

typedef bool (*parse_fn)(const void *bytes, size_t n);    /* whether it was read */

/* Every truncation at 1/64 and 10,000 single-byte changes must be survived. Each attempt
 * works on a heap copy of the exact size, so that the sanitizer sees a step too far. */
static void damage(const void *good, size_t n, uint64_t seed, parse_fn parse) {
  size_t n_read = 0;
  for (size_t i = 0; i <= 64; i++) {
    size_t len = n * i / 64;
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, good, len);
    n_read += parse(copy, len);
    free(copy);
  }
  assert_true(n_read > 0);          /* at least the whole of it */
  uint8_t *copy = malloc(n);
  memcpy(copy, good, n);
  for (uint64_t i = 0; i < 10000; i++) {
    uint64_t r = nm__rand_at(seed, 0, i);
    size_t at = (size_t)(r % n);
    uint8_t old = copy[at];
    copy[at] = (uint8_t)(r >> 40);
    n_read += parse(copy, n);
    copy[at] = old;
  }
  free(copy);
}

/* ---- GGUF ------------------------------------------------------------ */

static const float weights[64] = {1.5f, -2.0f, 3.25f};

static void write_sample(const char *path) {
  struct nm__gguf_writer *w;
  nm_err err = {0};
  const char *tokens[] = {"a", "", "bc"};
  assert_int_equal(nm__gguf_writer_new(&w, &err), 0);
  nm__gguf_put_string(w, "general.architecture", "llama");
  nm__gguf_put_u32(w, "llama.block_count", 7);
  nm__gguf_put_i32(w, "n.negative", -3);
  nm__gguf_put_f32(w, "eps", 0.5f);
  nm__gguf_put_bool(w, "flag", true);
  nm__gguf_put_strings(w, "tokens", tokens, 3);
  nm__gguf_put_f32s(w, "scores", weights, 3);
  nm__gguf_put_i32s(w, "types", (int32_t[]){1, -1}, 2);
  nm__gguf_announce(w, "a", NM__F32, 2, (int64_t[]){3, 3});
  nm__gguf_announce(w, "none", NM__F32, 1, (int64_t[]){0});
  nm__gguf_announce(w, "q", NM__Q8_0, 2, (int64_t[]){32, 2});
  assert_int_equal(nm__gguf_begin(w, path, &err), 0);
  assert_int_equal(nm__gguf_data(w, weights, 20, &err), 0);
  assert_int_equal(nm__gguf_data(w, (const char *)weights + 20, 16, &err), 0);
  assert_int_not_equal(nm__gguf_data(w, weights, 69, &err), 0);
  assert_int_not_equal(nm__gguf_finish(w, &err), 0);
  assert_int_equal(nm__gguf_data(w, weights, 68, &err), 0);
  if (nm__gguf_finish(w, &err)) fail_msg("%s", err.text);
  nm__gguf_writer_free(w);
}

static void gguf_round_trip(void **state) {
  (void)state;
  write_sample(scratch);
  struct nm__gguf *g;
  nm_err err = {0};
  if (nm__gguf_open(scratch, &g, &err)) fail_msg("%s", err.text);
  uint64_t u;
  double d;
  bool b;
  int64_t i;
  struct nm__str s;
  assert_int_equal(nm__gguf_uint(g, "llama.block_count", &u, &err), 0);
  assert_int_equal(u, 7);
  assert_int_equal(nm__gguf_uint(g, "n.negative", &u, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "n.negative"));
  assert_int_equal(nm__gguf_uint(g, "no.such", &u, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "missing"));
  assert_int_equal(nm__gguf_float(g, "eps", &d, &err), 0);
  assert_true(d == 0.5);
  assert_int_equal(nm__gguf_bool(g, "flag", &b, &err), 0);
  assert_true(b);
  assert_int_equal(nm__gguf_string(g, "general.architecture", &s, &err), 0);
  assert_true(s.n == 5 && memcmp(s.s, "llama", 5) == 0);
  const struct nm__gguf_kv *kv = nm__gguf_find(g, "tokens");
  assert_true(kv && kv->n == 3 && kv->strings[1].n == 0 && kv->strings[2].s[1] == 'c');
  kv = nm__gguf_find(g, "types");
  assert_true(nm__gguf_int_at(kv, 1, &i) && i == -1 && !nm__gguf_int_at(kv, 2, &i));
  const struct nm__gguf_tensor *t = nm__gguf_tensor(g, "a");
  assert_true(t && t->bytes == 36 && memcmp(t->data, weights, 36) == 0 && t->ne[3] == 1);
  t = nm__gguf_tensor(g, "q");
  assert_true(t && t->bytes == 68 && t->offset % 32 == 0 && memcmp(t->data, weights, 68) == 0);
  assert_null(nm__gguf_tensor(g, "none")->data);
  assert_null(nm__gguf_tensor(g, "b"));
  nm__gguf_close(g);
}

static void gguf_writer_refuses(void **state) {
  (void)state;
  nm_err err = {0};
  for (int k = 0; k < 4; k++) {
    struct nm__gguf_writer *w;
    assert_int_equal(nm__gguf_writer_new(&w, &err), 0);
    nm__gguf_put_u32(w, "x", 1);
    if (k == 0) nm__gguf_put_u32(w, "x", 2);
    if (k == 1) nm__gguf_announce(w, "t", NM__Q8_0, 1, (int64_t[]){33});
    if (k == 2) nm__gguf_announce(w, "t", 4, 1, (int64_t[]){32});
    if (k == 3) nm__gguf_put_u32(w, "", 2);
    assert_int_equal(nm__gguf_begin(w, scratch, &err), NM_EFAIL);
    nm__gguf_writer_free(w);
  }
}

static bool parse_gguf(const void *bytes, size_t n) {
  struct nm__gguf *g;
  nm_err err = {0};
  if (nm__gguf_parse("damaged", bytes, n, &g, &err)) {
    assert_true(err.text[0] != 0);
    return false;
  }
  nm__gguf_close(g);
  return true;
}

static void gguf_damage(void **state) {
  (void)state;
  write_sample(scratch);
  struct nm__map m = slurp(scratch);
  damage(m.data, m.size, 1, parse_gguf);
  nm__map_close(&m);
}

/* A single key with the given value bytes, and no tensors. */
static size_t one_key(uint8_t out[128], const char *key, uint32_t type, const void *v, size_t n) {
  uint64_t len = strlen(key);
  memcpy(out, "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0", 24);
  memcpy(out + 24, &len, 8);
  memcpy(out + 32, key, len);
  memcpy(out + 32 + len, &type, 4);
  memcpy(out + 36 + len, v, n);
  return 36 + len + n;
}

static void gguf_refuses(const void *bytes, size_t n, const char *part) {
  struct nm__gguf *g;
  nm_err err = {0};
  assert_int_equal(nm__gguf_parse("small", bytes, n, &g, &err), NM_EFORMAT);
  assert_null(g);
  if (!strstr(err.text, part)) fail_msg("'%s' is not in '%s'", part, err.text);
}

static void gguf_small_refusals(void **state) {
  (void)state;
  uint8_t b[128];
  gguf_refuses(b, one_key(b, "k", NM__GGUF_BOOL, "\2", 1), "0 or 1");
  gguf_refuses(b, one_key(b, "k", 13, "\2", 1), "unknown value type 13");
  gguf_refuses(b, one_key(b, "\xff", NM__GGUF_U8, "", 1), "UTF-8");
  gguf_refuses(b, one_key(b, "general.alignment", NM__GGUF_U32, "\0\0\0\0", 4), "power of two");
  gguf_refuses(b, one_key(b, "k", NM__GGUF_ARRAY, "\t\0\0\0\1\0\0\0\0\0\0\0", 12),
               "arrays of arrays");
  gguf_refuses(b, one_key(b, "k", NM__GGUF_STRING, "\5\0\0\0\0\0\0\0abc", 11), "3 are left");
  size_t n = one_key(b, "k", NM__GGUF_U8, "", 1);
  b[4] = 1;
  gguf_refuses(b, n, "version 1");
  b[4] = 2;
  assert_true(parse_gguf(b, n));
  memcpy(b + 4, "\0\0\0\3", 4);
  gguf_refuses(b, n, "big-endian");
}

/* The collection says of each file whether it is valid. */
static void gguf_malformed(void **state) {
  (void)state;
  const char *dir = SHARED "models/malformed/gguf";
  if (absent(dir)) skip();
  char *path = nm__path_join(dir, "index.json");
  json_t *index = json_load_file(path, 0, NULL), *entry;
  free(path);
  size_t i;
  json_array_foreach(index, i, entry) {
    struct nm__gguf *g;
    nm_err err = {0};
    path = nm__path_join(dir, json_string_value(json_object_get(entry, "file")));
    bool valid = nm__gguf_open(path, &g, &err) == 0;
    if (valid != json_is_true(json_object_get(entry, "valid")))
      fail_msg("%s is %s: %s", path, valid ? "read" : "refused", err.text);
    if (!valid) assert_non_null(strstr(err.text, path));
    nm__gguf_close(g);
    free(path);
  }
  assert_true(i >= 45);
  json_decref(index);
}

/* ---- npy ------------------------------------------------------------- */

static size_t npy_bytes(uint8_t *out, const char *dict, const void *data, size_t n) {
  size_t len = strlen(dict);
  memcpy(out, "\x93NUMPY\1\0", 8);
  out[8] = (uint8_t)len;
  out[9] = 0;
  memcpy(out + 10, dict, len);
  memcpy(out + 10 + len, data, n);
  return 10 + len + n;
}

static void npy_round_trip(void **state) {
  (void)state;
  struct nm__npy a;
  nm_err err = {0};
  assert_int_equal(nm__npy_write(scratch, 3, (int64_t[]){2, 1, 3}, weights, &err), 0);
  if (nm__npy_read(scratch, &a, &err)) fail_msg("%s", err.text);
  assert_true(a.n_dims == 3 && a.n == 6 && a.ne[0] == 2 && a.ne[2] == 3 && a.ne[3] == 1);
  assert_memory_equal(a.data, weights, 24);
  nm__npy_done(&a);
  char head[256];
  assert_int_equal(nm__npy_header(head, 0, NULL) % 64, 0);
  const int64_t huge[] = {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX};
  assert_int_equal(nm__npy_header(head, 4, huge) % 64, 0);
}

static void npy_types(void **state) {
  (void)state;
  static const struct { const char *descr; size_t size; const char *bytes; float want; } cases[] = {
    {"<f8", 8, "\0\0\0\0\0\0\xf8\x3f", 1.5f}, {"<f2", 2, "\0\x3e", 1.5f},
    {"<i4", 4, "\xfe\xff\xff\xff", -2}, {"<i8", 8, "\7\0\0\0\0\0\0\0", 7},
    {"|u1", 1, "\xff", 255}, {"|b1", 1, "\1", 1}, {"<f4", 4, "\0\0\xc0\x7f", 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    uint8_t b[200];
    char dict[100];
    struct nm__npy a;
    nm_err err = {0};
    snprintf(dict, sizeof dict, "{'shape': (1,), 'fortran_order': True, \"descr\": '%s'}\n",
             cases[i].descr);
    size_t n = npy_bytes(b, dict, cases[i].bytes, cases[i].size);
    if (nm__npy_parse("t", b, n, &a, &err)) fail_msg("%s", err.text);
    assert_true(a.data[0] == cases[i].want || a.data[0] != a.data[0]);
    nm__npy_done(&a);
  }
}

static void npy_refuses(void **state) {
  (void)state;
  static const struct { const char *dict, *part; } cases[] = {
    {"{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}", ">f4"},
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1)}", "Fortran"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1)}", "comma"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", "8 bytes"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1)}", "4 dimensions"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 8)}", "overflows"},
    {"{'descr': '<f4', 'fortran_order': False}", "all needed"},
    {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}", "twice"},
    {"{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': ()}", "records"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': ()} x", "follows"},
    {"__import__('os')", "dict"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    uint8_t b[200];
    struct nm__npy a;
    nm_err err = {0};
    assert_int_equal(nm__npy_parse("t", b, npy_bytes(b, cases[i].dict, weights, 4), &a, &err),
                     NM_EFORMAT);
    if (!strstr(err.text, cases[i].part)) fail_msg("'%s': %s", cases[i].part, err.text);
  }
}

static bool parse_npy(const void *bytes, size_t n) {
  struct nm__npy a;
  nm_err err = {0};
  if (nm__npy_parse("damaged", bytes, n, &a, &err)) return assert_true(err.text[0] != 0), false;
  nm__npy_done(&a);
  return true;
}

static void npy_damage(void **state) {
  (void)state;
  nm_err err = {0};
  assert_int_equal(nm__npy_write(scratch, 2, (int64_t[]){4, 4}, weights, &err), 0);
  struct nm__map m = slurp(scratch);
  damage(m.data, m.size, 2, parse_npy);
  nm__map_close(&m);
}

/* ---- tables ---------------------------------------------------------- */

static struct nm__table table_of(const char *s, enum nm__table_form form) {
  struct nm__table t;
  nm_err err = {0};
  if (nm__table_parse("t", s, strlen(s), &t, &err)) fail_msg("%s", err.text);
  assert_int_equal(t.form, form);
  return t;
}

static void assert_cell(const struct nm__table *t, size_t row, size_t col, const char *want) {
  assert_true(row < t->n_rows && col < t->n_cols);
  const char *found = t->cells[row * t->n_cols + col];
  if (want) assert_string_equal(found, want);
  else assert_null(found);
}

static void table_forms(void **state) {
  (void)state;
  struct nm__table t = table_of("\xef\xbb\xbf" "a,b\r\n\"x, \"\"y\"\"\nz\",1\r\n\r\n,2\r\n",
                                NM__TABLE_CSV);
  assert_int_equal(t.n_rows, 2);
  assert_cell(&t, 0, 0, "x, \"y\"\nz");
  assert_cell(&t, 1, 0, "");
  assert_true(t.line[0] == 2 && t.line[1] == 5);
  assert_int_equal(nm__table_col(&t, "b"), 1);
  nm__table_done(&t);
  t = table_of("text\tlabel\n\"He\" said, so\t1\n\"a\tb\"\t0\n", NM__TABLE_TSV);
  assert_cell(&t, 0, 0, "\"He\" said, so");
  assert_cell(&t, 1, 0, "a\tb");
  nm__table_done(&t);
  t = table_of("1 good , film\n0 bad\r\n\n1 x", NM__TABLE_STSA);
  assert_int_equal(t.n_rows, 3);
  assert_cell(&t, 1, 1, "bad");
  assert_int_equal(t.line[2], 4);
  nm__table_done(&t);
  t = table_of(" [{\"a\": true, \"b\": 1}, {\"c\": [1, 2], \"a\": null, \"b\": 0.1}]",
               NM__TABLE_JSON);
  assert_cell(&t, 0, 0, "true");
  assert_cell(&t, 0, 1, "1");
  assert_cell(&t, 0, 2, NULL);
  assert_cell(&t, 1, 0, NULL);
  assert_cell(&t, 1, 1, "0.1");
  assert_cell(&t, 1, 2, "[1,2]");
  nm__table_done(&t);
  t = table_of("{\"a\": 1}\n\n{\"a\": 2}\n", NM__TABLE_JSONL);
  assert_true(t.n_rows == 2 && t.line[0] == 1 && t.line[1] == 3);
  nm__table_done(&t);
  t = table_of("{\"v\": 1, \"rows\": [{\"q\": \"x\"}]}", NM__TABLE_JSON);
  assert_cell(&t, 0, 0, "x");
  nm__table_done(&t);
}

static void table_bigbench(void **state) {
  (void)state;
  struct nm__table t = table_of(
    "{\"examples\": [{\"input\": \"Q?\", \"target_scores\": {\"Yes\": 1, \"No\": 0},"
    " \"target\": \"Yes. Because.\"}, {\"input\": \"R?\","
    " \"target_scores\": {\"Yes\": 0, \"No\": 1}, \"target\": \"Nobody\"}]}", NM__TABLE_BIGBENCH);
  assert_cell(&t, 0, 0, "Q? Because.");
  assert_cell(&t, 0, 1, "Yes");
  assert_cell(&t, 1, 0, "R?");
  assert_cell(&t, 1, 1, "No");
  nm__table_done(&t);
}

static void table_refuses(const char *s, size_t n, const char *part) {
  struct nm__table t;
  nm_err err = {0};
  assert_int_equal(nm__table_parse("t", s, n, &t, &err), NM_EFORMAT);
  assert_int_equal(t.n_rows, 0);
  if (!strstr(err.text, part)) fail_msg("'%s' is not in '%s'", part, err.text);
}

static void table_refusals(void **state) {
  (void)state;
  static const char *const cases[][2] = {
    {"a,b\n1,2\n\n3\n", "line 4 has 1 cells, but the header has 2"},
    {"a,b\n\"x\ny\",2\n\"z", "line 4: a quote is opened"},
    {"a,b\n\"x\"y,2\n", "line 2: a closing quote"},
    {"a,a\n1,2\n", "two columns named 'a'"},
    {" \n\t\n", "is empty"},
    {"", "is empty"},
    {"{\"a\": 1}\n{\"a\": \n}", "line 3"},
    {"[1, 2]", "row 1: is not an object"},
    {"[{\"a\": 1}, 2]", "row 2: is not an object"},
    {"{\"examples\": [{\"input\": \"x\", \"target_scores\": {\"Yes\": 1, \"No\": 1}}]}",
     "exactly one answer"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    table_refuses(cases[i][0], strlen(cases[i][0]), cases[i][1]);
  table_refuses("a,b\n\0", 5, "byte 4 is zero");
  size_t n = 3 << 20;
  char *s = malloc(n);
  memset(s, '[', n);
  table_refuses(s, n, "not valid JSON");
  memset(s, 'x', n);
  memcpy(s, "a\n", 2);
  table_refuses(s, n, "a cell of line 2");
  free(s);
}

static bool parse_table(const void *bytes, size_t n) {
  struct nm__table t;
  struct nm__labelled l;
  nm_err err = {0};
  if (nm__table_parse("damaged", bytes, n, &t, &err)) return assert_true(err.text[0] != 0), false;
  if (nm__labelled_from("damaged", &t, NULL, &l, &err)) assert_true(err.text[0] != 0);
  else nm__labelled_done(&l);
  nm__table_done(&t);
  return true;
}

static void table_damage(void **state) {
  (void)state;
  const char *csv = "statement,label,city\n\"Lodz, is\",1,Lodz\nLodz \"\"is,0,Lodz\n"
                    "\"a \"\"b\"\"\nc\",1,B\r\nd,0,B\n";
  const char *json = "{\"name\": \"n\", \"examples\": [{\"text\": \"a\\u00e4\", \"label\": true},\n"
                     " {\"text\": \"b\", \"label\": false, \"x\": [1.5, {\"y\": null}]}]}\n";
  const char *lines = "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\", \"label\": 0}\n";
  damage(csv, strlen(csv), 3, parse_table);
  damage(json, strlen(json), 4, parse_table);
  damage(lines, strlen(lines), 5, parse_table);
}

/* ---- labels ---------------------------------------------------------- */

static struct nm__labelled labels_of(const char *s, const struct nm__labelled_opts *o) {
  struct nm__table t;
  struct nm__labelled l;
  nm_err err = {0};
  if (nm__table_parse("t", s, strlen(s), &t, &err)) fail_msg("%s", err.text);
  if (nm__labelled_from("t", &t, o, &l, &err)) fail_msg("%s", err.text);
  nm__table_done(&t);
  return l;
}

static void labelled_maps(void **state) {
  (void)state;
  struct nm__labelled l = labels_of("examples,label\na,True\nb,FALSE\nc,Neither\nd,true\n", NULL);
  assert_true(l.n == 3 && l.label[0] == 1 && l.label[1] == 0 && l.label[2] == 1 && !l.grouped);
  assert_string_equal(l.label_name[0], "FALSE");
  assert_non_null(strstr(l.how, "1 rows labelled 'Neither' left out"));
  nm__labelled_done(&l);
  l = labels_of("text,y\na,-1\nb, 1\n", NULL);
  assert_true(l.label[0] == 0 && l.label[1] == 1);
  nm__labelled_done(&l);
  l = labels_of("id,body,kind\n1,some long text,spam\n2,another text,ham\n3,a text,ham\n", NULL);
  assert_true(l.label[0] == 1 && l.label[1] == 0);
  assert_string_equal(l.text[1], "another text");
  assert_non_null(strstr(l.how, "sorted order"));
  nm__labelled_done(&l);
}

static void labelled_groups(void **state) {
  (void)state;
  const char *csv = "statement,label,city,split\na,1,L,x\nb,0,L,x\nc,1,M,x\nd,0,M,x\n"
                    "e,1,N,x\nf,0,N,x\na,0,O,x\ng,1,O,x\n";
  struct nm__labelled l = labels_of(csv, NULL);
  assert_true(l.grouped && l.n_groups == 3);
  /* L and O share the text "a", so all four rows are one group. */
  static const uint32_t want[] = {0, 0, 1, 1, 2, 2, 0, 0};
  assert_memory_equal(l.group, want, sizeof want);
  assert_non_null(strstr(l.how, "'city'"));
  nm__labelled_done(&l);
  l = labels_of(csv, &(struct nm__labelled_opts){.max_rows = 6});
  assert_true(l.n == 6 && l.n_groups == 2);
  assert_string_equal(l.text[4], "a");
  nm__labelled_done(&l);
  l = labels_of(csv, &(struct nm__labelled_opts){.group_col = "split"});
  assert_int_equal(l.n_groups, 1);
  nm__labelled_done(&l);
  l = labels_of("text,label\na,1\nb,0\nc,0\nd,0\ne,1\n",
                &(struct nm__labelled_opts){.max_rows = 4});
  assert_true(l.n == 4 && !l.grouped);
  assert_true(l.label[0] == 1 && l.label[1] == 0 && l.label[2] == 0 && l.label[3] == 1);
  assert_string_equal(l.text[3], "e");
  nm__labelled_done(&l);
}

static void labelled_refusals(void **state) {
  (void)state;
  static const struct { const char *s, *part; struct nm__labelled_opts o; } cases[] = {
    {"text,label\n", "holds no rows", {0}},
    {"text,label\na,1\nb,1\n", "'1' (2)", {0}},
    {"text,label\na,1\nb,2\nc,3\n", "'1' (1), '2' (1), '3' (1)", {0}},
    {"text,label\na,1\n\" \",0\n", "line 3: the text is empty", {0}},
    {"text,label\na,1\nb,0\nc,\n", "line 4: the label is missing", {0}},
    {"text,label\na,1\nb,0\n", "'text', 'label'", {.text_col = "body"}},
    {"text,label\na,1\nb,0\n", "cannot both", {.text_col = "label"}},
    {"text,u,v\na,1,1\nb,0,0\n", "several columns", {0}},
    {"text,u\na,1\nb,2\nc,3\n", "no column holds the labels", {0}},
    {"text,label\na,1\nb,0\n", "both labels are needed", {.max_rows = 1}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct nm__table t;
    struct nm__labelled l;
    nm_err err = {0};
    assert_int_equal(nm__table_parse("t", cases[i].s, strlen(cases[i].s), &t, &err), 0);
    assert_int_equal(nm__labelled_from("t", &t, &cases[i].o, &l, &err), NM_EFORMAT);
    if (!strstr(err.text, cases[i].part)) fail_msg("'%s': %s", cases[i].part, err.text);
    nm__table_done(&t);
  }
}

/* The published sets, with the counts their source states. */
static void labelled_published(void **state) {
  (void)state;
  static const struct { const char *file, *col; size_t n; enum nm__table_form form; } sets[] = {
    {"cities.csv", "'city'", 1050, NM__TABLE_CSV},
    {"counterfact.csv", "'subject'", 2800, NM__TABLE_CSV},
    {"common_claim.csv", "no twins", 4200, NM__TABLE_CSV},
    {"coin_flip.json", "'question'", 350, NM__TABLE_JSON},
    {"StrategyQA_task.json", "'No' is 0", 1603, NM__TABLE_BIGBENCH},
    {"stsa.binary.train", "'text'", 4844, NM__TABLE_STSA},
    {"stsa.binary.test", "'text'", 1275, NM__TABLE_STSA},
  };
  if (absent(SHARED "concept-depth")) skip();
  for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
    struct nm__table t;
    struct nm__labelled l;
    nm_err err = {0};
    char *path = nm__path_join(SHARED "concept-depth", sets[i].file);
    if (nm__table_read(path, &t, &err) || nm__labelled_from(path, &t, NULL, &l, &err))
      fail_msg("%s", err.text);
    assert_int_equal(t.form, sets[i].form);
    assert_int_equal(l.n, sets[i].n);
    if (!strstr(l.how, sets[i].col)) fail_msg("%s: %s", path, l.how);
    for (size_t k = 0; k < l.n && sets[i].form == NM__TABLE_BIGBENCH; k++)
      if (strstr(l.text[k], "? Yes.")) fail_msg("an answer is left in: %s", l.text[k]);
    nm__labelled_done(&l);
    nm__table_done(&t);
    free(path);
  }
}

int main(void) {
  snprintf(scratch, sizeof scratch, "/tmp/noema_file_test.%ld", (long)getpid());
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(gguf_round_trip), cmocka_unit_test(gguf_writer_refuses),
    cmocka_unit_test(gguf_damage), cmocka_unit_test(gguf_small_refusals),
    cmocka_unit_test(gguf_malformed),
    cmocka_unit_test(npy_round_trip), cmocka_unit_test(npy_types), cmocka_unit_test(npy_refuses),
    cmocka_unit_test(npy_damage),
    cmocka_unit_test(table_forms), cmocka_unit_test(table_bigbench),
    cmocka_unit_test(table_refusals), cmocka_unit_test(table_damage),
    cmocka_unit_test(labelled_maps), cmocka_unit_test(labelled_groups),
    cmocka_unit_test(labelled_refusals), cmocka_unit_test(labelled_published),
  };
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  unlink(scratch);
  return failed;
}
