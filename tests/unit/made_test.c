/* made_test.c - GGUFs that no single file holds: made in memory key by key, and split files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "model_run.h"
#include "world/random.h"

static char dir[64];

static const char *piece_path(const char *stem, int no, int count) {
  static char path[4][160];
  static int k;
  k = (k + 1) % 4;
  snprintf(path[k], sizeof path[k], "%s/%s-%05d-of-%05d.gguf", dir, stem, no + 1, count);
  return path[k];
}

static struct nm__gguf *open_gguf(const char *path) {
  struct nm__gguf *g;
  nm_err err = {0};
  if (nm__gguf_open(path, &g, &err)) fail_msg("%s", err.text);
  return g;
}

/* ---- made in memory ------------------------------------------------------ */

static struct nm__gguf *copy_in_memory(const struct nm__gguf *from) {
  struct nm__gguf *g;
  nm_err err = {0};
  assert_int_equal(nm__gguf_new("made", "made", &g, &err), 0);
  for (size_t i = 0; i < from->n_kv; i++)
    if (nm__gguf_add_kv(g, &from->kv[i], &err)) fail_msg("%s", err.text);
  for (size_t i = 0; i < from->n_tensors; i++) {
    const struct nm__gguf_tensor *t = &from->tensors[i];
    if (nm__gguf_add_tensor(g, t->name, t->type, t->n_dims, t->ne, t->data, &err))
      fail_msg("%s", err.text);
  }
  return g;
}

/* Keys and tensors first..n-1, every `step`-th tensor, and what `extra` puts besides. */
static void write_gguf(const struct nm__gguf *g, const char *path, bool keys, size_t first,
                       size_t step, int no, int count, int n_tensors) {
  struct nm__gguf_writer *w;
  nm_err err = {0};
  uint16_t n16[2] = {(uint16_t)no, (uint16_t)count};
  assert_int_equal(nm__gguf_writer_new(&w, &err), 0);
  for (size_t i = 0; keys && i < g->n_kv; i++) nm__gguf_put_kv(w, &g->kv[i]);
  if (count) {
    nm__gguf_put_kv(w, &(struct nm__gguf_kv){.key = (char[]){"split.no"},
                                             .type = NM__GGUF_U16,
                                             .n = 1,
                                             .raw = (const uint8_t *)&n16[0]});
    nm__gguf_put_kv(w, &(struct nm__gguf_kv){.key = (char[]){"split.count"},
                                             .type = NM__GGUF_U16,
                                             .n = 1,
                                             .raw = (const uint8_t *)&n16[1]});
    nm__gguf_put_i32(w, "split.tensors.count", n_tensors);
  }
  for (size_t i = first; i < g->n_tensors; i += step) {
    const struct nm__gguf_tensor *t = &g->tensors[i];
    nm__gguf_announce(w, t->name, t->type, t->n_dims, t->ne);
  }
  if (nm__gguf_begin(w, path, &err)) fail_msg("%s", err.text);
  for (size_t i = first; i < g->n_tensors; i += step)
    if (nm__gguf_data(w, g->tensors[i].data, g->tensors[i].bytes, &err)) fail_msg("%s", err.text);
  if (nm__gguf_finish(w, &err)) fail_msg("%s", err.text);
  nm__gguf_writer_free(w);
}

static void same_bytes(const char *a, const char *b) {
  char x[33], y[33];
  nm_err err = {0};
  assert_int_equal(nm__hash_file(a, x, &err), 0);
  assert_int_equal(nm__hash_file(b, y, &err), 0);
  assert_string_equal(x, y);
}

/* Copied into memory, written from there: the very file. */
static void round_trip(void **state) {
  (void)state;
  char path[120];
  snprintf(path, sizeof path, "%s/copy.gguf", dir);
  struct nm__gguf *g = open_gguf(PLANTED), *made = copy_in_memory(g);
  for (size_t i = 0; i < g->n_tensors; i++)
    assert_ptr_equal(nm__gguf_tensor(made, g->tensors[i].name), &made->tensors[i]);
  assert_null(nm__gguf_tensor(made, "no"));
  nm__gguf_close(g); /* keys are copies; data is not */
  g = open_gguf(PLANTED);
  for (size_t i = 0; i < g->n_tensors; i++) made->tensors[i].data = g->tensors[i].data;
  write_gguf(made, path, true, 0, 1, 0, 0, 0);
  same_bytes(path, PLANTED);
  nm__gguf_close(made);
  nm__gguf_close(g);
  unlink(path);
}

static void kinds_of_keys(void **state) {
  (void)state;
  static const struct nm__str words[] = {{"a", 1}, {"", 0}, {"b\0c", 3}};
  static const float f[] = {1.5f, -2};
  struct nm__gguf *g;
  nm_err err = {0};
  struct nm__str s;
  uint64_t u;
  double d;
  bool b;
  int64_t i;
  assert_int_equal(nm__gguf_new("made", "made", &g, &err), 0);
  assert_int_equal(nm__gguf_add_u32(g, "u", 7, &err), 0);
  assert_int_equal(nm__gguf_add_f32(g, "f", 0.5f, &err), 0);
  assert_int_equal(nm__gguf_add_bool(g, "b", true, &err), 0);
  assert_int_equal(nm__gguf_add_string(g, "s", "x\0y", 3, &err), 0);
  assert_int_equal(nm__gguf_add_strings(g, "ss", words, 3, &err), 0);
  assert_int_equal(nm__gguf_add_strings(g, "none", NULL, 0, &err), 0);
  assert_int_equal(nm__gguf_add_i32s(g, "is", (int32_t[]){3, -4}, 2, &err), 0);
  assert_int_equal(nm__gguf_add_f32s(g, "fs", f, 2, &err), 0);
  assert_true(!nm__gguf_uint(g, "u", &u, &err) && u == 7);
  assert_true(!nm__gguf_float(g, "f", &d, &err) && d == 0.5);
  assert_true(!nm__gguf_bool(g, "b", &b, &err) && b);
  assert_true(!nm__gguf_string(g, "s", &s, &err) && s.n == 3 && !memcmp(s.s, "x\0y", 3));
  const struct nm__gguf_kv *kv = nm__gguf_find(g, "ss");
  assert_true(kv->n == 3 && kv->strings[1].n == 0 && !memcmp(kv->strings[2].s, "b\0c", 3));
  assert_true(nm__gguf_int_at(nm__gguf_find(g, "is"), 1, &i) && i == -4);
  assert_true(nm__gguf_float_at(nm__gguf_find(g, "fs"), 1, &d) && d == -2);
  assert_int_equal(nm__gguf_add_u32(g, "u", 7, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "gives the key 'u' twice"));
  assert_int_equal(nm__gguf_add_strings(g, "ss", words, 1, &err), NM_EFORMAT);
  assert_int_equal(nm__gguf_add_f32s(g, "fs", f, 1, NULL), NM_EFORMAT);
  nm__gguf_close(g);
}

static void tensors_refused(void **state) {
  (void)state;
  static const uint8_t zeros[64];
  struct nm__gguf *g;
  nm_err err = {0};
  assert_int_equal(nm__gguf_new("made", "made", &g, &err), 0);
  assert_int_equal(nm__gguf_add_tensor(g, "a", NM__F32, 1, (int64_t[]){4}, zeros, &err), 0);
  assert_int_equal(nm__gguf_add_tensor(g, "a", NM__F32, 1, (int64_t[]){4}, zeros, &err),
                   NM_EFORMAT);
  assert_non_null(strstr(err.text, "occurs twice"));
  assert_int_equal(nm__gguf_add_tensor(g, "b", NM__Q8_0, 1, (int64_t[]){31}, zeros, &err),
                   NM_EFORMAT);
  assert_non_null(strstr(err.text, "Q8_0"));
  assert_int_equal(nm__gguf_add_tensor(g, "b", 99, 1, (int64_t[]){4}, zeros, &err), NM_EFORMAT);
  assert_int_equal(nm__gguf_add_tensor(g, "b", NM__F32, 0, NULL, zeros, &err), NM_EFORMAT);
  assert_int_equal(nm__gguf_add_tensor(g, "b", NM__F32, 5, (int64_t[]){1, 1, 1, 1}, zeros, &err),
                   NM_EFORMAT);
  assert_int_equal(g->n_tensors, 1);
  for (int i = 0; i < 1000; i++) { /* the table of names grows along */
    char name[24];
    snprintf(name, sizeof name, "t%d", i);
    assert_int_equal(nm__gguf_add_tensor(g, name, NM__F32, 1, (int64_t[]){1}, zeros, &err), 0);
  }
  assert_string_equal(nm__gguf_tensor(g, "t512")->name, "t512");
  nm__gguf_close(g);
}

/* ---- pieces ------------------------------------------------------------------ */

static void same_model(const char *path) {
  static const int32_t ids[] = {1, 5, 2, 9, 30, 7, 7, 3};
  nm_model *a = open_model(path), *b = open_model(PLANTED);
  nm_engine *x = new_engine(a, (nm_engine_opts){.threads = 1}),
            *y = new_engine(b, (nm_engine_opts){.threads = 1});
  struct rows r = tap_one(x, ids, 8, "*", "all", NULL), s = tap_one(y, ids, 8, "*", "all", NULL);
  assert_same_rows(&r, &s, path);
  int32_t *words[2];
  size_t n[2];
  assert_int_equal(nm_tokenize(a, "ann saw", 7, 0, &words[0], &n[0], NULL), 0);
  assert_int_equal(nm_tokenize(b, "ann saw", 7, 0, &words[1], &n[1], NULL), 0);
  assert_true(n[0] == n[1] && !memcmp(words[0], words[1], n[0] * sizeof *words[0]));
  nm_free(words[0]);
  nm_free(words[1]);
  rows_done(&r);
  rows_done(&s);
  nm_engine_free(x);
  nm_engine_free(y);
  nm_model_close(a);
  nm_model_close(b);
}

static void split(const char *stem, const struct nm__gguf *g) {
  for (int i = 0; i < 3; i++)
    write_gguf(g, piece_path(stem, i, 3), i == 0, (size_t)i, 3, i, 3, (int)g->n_tensors);
}

static void opens_all(void **state) {
  (void)state;
  struct nm__gguf *g = open_gguf(PLANTED);
  split("m", g);
  for (int i = 0; i < 3; i++) same_model(piece_path("m", i, 3));
  char *text;
  nm_err err = {0};
  if (nm_info(piece_path("m", 1, 3), false, false, &text, &err)) fail_msg("%s", err.text);
  assert_non_null(strstr(text, "GGUF in pieces"));
  assert_non_null(strstr(text, "57 tensors"));
  nm_free(text);
  /* All keys in the first piece, no tensors in it: also a way that files are split. */
  write_gguf(g, piece_path("m", 0, 3), true, g->n_tensors, 1, 0, 3, (int)g->n_tensors);
  write_gguf(g, piece_path("m", 1, 3), false, 0, 2, 1, 3, (int)g->n_tensors);
  write_gguf(g, piece_path("m", 2, 3), false, 1, 2, 2, 3, (int)g->n_tensors);
  same_model(piece_path("m", 2, 3));
  nm__gguf_close(g);
}

static void refused(const char *path, const char *why) {
  nm_model *m;
  nm_err err = {0};
  int st = nm_model_open(path, &m, &err);
  if (st != NM_EFORMAT || !strstr(err.text, why))
    fail_msg("status %d, '%s', expected '%s'", st, err.text, why);
}

static void wrong_pieces(void **state) {
  (void)state;
  struct nm__gguf *g = open_gguf(PLANTED);
  int n = (int)g->n_tensors;
  char odd[120];
  split("m", g);
  unlink(piece_path("m", 2, 3));
  refused(piece_path("m", 0, 3), "m-00003-of-00003.gguf: cannot be opened");
  refused(piece_path("m", 1, 3), "number 3 is missing");
  write_gguf(g, piece_path("m", 2, 3), false, 2, 3, 1, 3, n);
  refused(piece_path("m", 0, 3), "says that it is piece 2 of 3");
  write_gguf(g, piece_path("m", 2, 3), false, 2, 3, 2, 3, n + 1);
  refused(piece_path("m", 0, 3), "a model of 58 tensors");
  write_gguf(g, piece_path("m", 2, 3), false, 5, 3, 2, 3, n);
  refused(piece_path("m", 0, 3), "hold 56 tensors, but split.tensors.count says 57");
  write_gguf(g, piece_path("m", 2, 3), false, 1, 3, 2, 3, n);
  refused(piece_path("m", 0, 3), "occurs twice");
  write_gguf(g, piece_path("m", 2, 3), false, 2, 3, 0, 0, 0);
  refused(piece_path("m", 0, 3), "split.no' is missing");
  write_gguf(g, piece_path("m", 2, 3), false, 2, 3, 2, 3, n);
  snprintf(odd, sizeof odd, "%s/odd.gguf", dir);
  rename(piece_path("m", 1, 3), odd);
  refused(odd, "its name must end in -00002-of-00003.gguf");
  write_gguf(g, odd, true, 0, 1, 7, 3, n);
  refused(odd, "says that it is piece 8 of 3");
  unlink(odd);
  nm__gguf_close(g);
}

/* A piece with keys of its own must say what the first says. */
static const uint32_t wrong = 511;
static void another_model(void **state) {
  (void)state;
  struct nm__gguf *g = open_gguf(PLANTED), *other = copy_in_memory(g);
  int n = (int)g->n_tensors;
  split("m", g);
  write_gguf(g, piece_path("m", 2, 3), true, 2, 3, 2, 3, n);
  same_model(piece_path("m", 2, 3));
  for (size_t i = 0; i < other->n_kv; i++)
    if (!strcmp(other->kv[i].key, "llama.context_length"))
      other->kv[i].raw = (const uint8_t *)&wrong;
  write_gguf(other, piece_path("m", 2, 3), true, 2, 3, 2, 3, n);
  refused(piece_path("m", 0, 3), "is a piece of another model");
  refused(piece_path("m", 0, 3), "'llama.context_length' is not the same");
  nm__gguf_close(other);
  nm__gguf_close(g);
}

/* The random model of a split file is that of the whole one. */
static void random_like(void **state) {
  (void)state;
  char a[120], b[120];
  nm_err err = {0};
  struct nm__gguf *g = open_gguf(PLANTED);
  snprintf(a, sizeof a, "%s/a.gguf", dir);
  snprintf(b, sizeof b, "%s/b.gguf", dir);
  write_gguf(g, piece_path("m", 0, 2), true, 0, 2 * g->n_tensors, 0, 2, (int)g->n_tensors);
  write_gguf(g, piece_path("m", 1, 2), false, 1, 1, 1, 2, (int)g->n_tensors);
  if (nm__write_random_like(PLANTED, 5, a, NULL, &err)) fail_msg("%s", err.text);
  if (nm__write_random_like(piece_path("m", 1, 2), 5, b, NULL, &err)) fail_msg("%s", err.text);
  same_bytes(a, b);
  nm_model_close(open_model(b));
  nm__gguf_close(g);
  unlink(a);
  unlink(b);
  unlink(piece_path("m", 0, 2));
  unlink(piece_path("m", 1, 2));
}

static int begin(void **state) {
  (void)state;
  snprintf(dir, sizeof dir, "/tmp/noema_made_test.%ld", (long)getpid());
  return mkdir(dir, 0777);
}

static int end(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) unlink(piece_path("m", i, 3));
  return rmdir(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(round_trip),      cmocka_unit_test(kinds_of_keys),
      cmocka_unit_test(tensors_refused), cmocka_unit_test(opens_all),
      cmocka_unit_test(wrong_pieces),    cmocka_unit_test(another_model),
      cmocka_unit_test(random_like),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
