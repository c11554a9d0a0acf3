/* about_test.c - a run's config.json: the words of a command, what a run read, hostile records; and
 * folders of results, compared and removed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "report/report.h"

static char root[64];

static void put(const char *path, const char *text) {
  nm_err err = {0};
  if (nm__write_file(path, text, strlen(text), &err)) fail_msg("%s", err.text);
}

static void begin(const char *dir, const char *model, const char *command, json_t *settings) {
  struct nm__runs *r;
  nm_err err = {0};
  int64_t id;
  if (nm__runs_open("runs", &r, &err)) fail_msg("%s", err.text);
  nm__runs_settings(r, settings);
  if (nm__runs_begin(r, "depth", dir, model, command, &id, &err)) fail_msg("%s", err.text);
  nm__runs_end(r, id, "done", "well", 1, NULL);
  nm__runs_close(r);
}

static nm_run_about load(const char *dir) {
  nm_run_about a;
  nm_err err = {0};
  if (nm_run_about_load(dir, &a, &err)) fail_msg("%s", err.text);
  return a;
}

static bool reads(const nm_run_about *a, const char *path) {
  for (int i = 0; i < a->n_inputs; i++)
    if (!strcmp(a->input[i].path, path)) return true;
  return false;
}

static void test_words(void **state) {
  (void)state;
  begin("runs/w", NULL, "noema depth 'two words' 'it'\\''s' '' \\x'a'b -n 3 'new\nline'", NULL);
  nm_run_about a = load("runs/w");
  const char *const want[] = {"noema", "depth", "two words", "it's", "", "xab", "-n", "3",
                              "new\nline"};
  assert_int_equal(a.n_argv, 9);
  for (int i = 0; i < 9; i++) assert_string_equal(a.argv[i], want[i]);
  assert_string_equal(a.verb, "depth");
  assert_string_equal(a.noema, NM_VERSION);
  nm_run_about_free(&a);
}

static void test_inputs(void **state) {
  (void)state;
  put("m-00001-of-00002.gguf", "one");
  put("m-00002-of-00002.gguf", "two");
  put("data.tsv", "text\tlabel\n");
  nm__mkdirs("lists", NULL);
  put("lists/v.npy", "numbers");
  put("lists/e.json", "[{\"site\": \"embed\", \"op\": \"add\", \"vector\": \"v.npy\"}]");
  put("r.yaml", "data: [{file: data.tsv}]\nbase: ./m-00001-of-00002.gguf\nout: runs/i\n");
  nm__mkdirs("runs/i", NULL);
  put("runs/i/old.txt", "a file of the run itself is no input");
  begin("runs/i", "m-00001-of-00002.gguf",
        "noema depth m-00001-of-00002.gguf --data A=data.tsv --edit lists/e.json --lora "
        "data.tsv:0.5 r.yaml -o runs/i runs/i/old.txt /dev/null . nothing.txt",
        json_pack("{s:i, s:s}", "seed", 7, "verb", "another"));
  nm_run_about a = load("runs/i");
  const char *const want[] = {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "data.tsv",
                              "lists/e.json", "lists/v.npy", "r.yaml", "./m-00001-of-00002.gguf"};
  for (size_t i = 0; i < sizeof want / sizeof *want; i++)
    if (!reads(&a, want[i])) fail_msg("%s is not recorded", want[i]);
  assert_false(reads(&a, "runs/i/old.txt"));
  assert_false(reads(&a, "."));
  assert_false(reads(&a, "/dev/null"));
  assert_string_equal(a.verb, "depth");            /* a setting changes nothing of the record */
  assert_non_null(strstr(a.json, "\"seed\": 7"));
  char hex[33];
  assert_int_equal(nm_path_hash("data.tsv", hex, NULL), 0);
  for (int i = 0; i < a.n_inputs; i++)
    if (!strcmp(a.input[i].path, "data.tsv")) assert_string_equal(a.input[i].hash, hex);
  nm_run_about_free(&a);
}

/* A folder's hash is that of names and bytes. */
static void test_path_hash(void **state) {
  (void)state;
  char a[33], b[33];
  nm__mkdirs("h/sub", NULL);
  put("h/x", "1");
  put("h/sub/y", "2");
  assert_int_equal(nm_path_hash("h", a, NULL), 0);
  put("h/sub/y", "3");
  assert_int_equal(nm_path_hash("h", b, NULL), 0);
  assert_string_not_equal(a, b);
  put("h/sub/y", "2");
  assert_int_equal(nm_path_hash("h", b, NULL), 0);
  assert_string_equal(a, b);
  assert_int_equal(rename("h/x", "h/z"), 0);
  assert_int_equal(nm_path_hash("h", b, NULL), 0);
  assert_string_not_equal(a, b);
  nm_err err = {0};
  assert_int_equal(nm_path_hash("nowhere", a, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "nowhere"));
}

static void test_hostile(void **state) {
  (void)state;
  char good[20000], bad[20000];
  begin("runs/g", NULL, "noema depth m.gguf --data data.tsv", NULL);
  nm_run_about a = load("runs/g");
  size_t n = strlen(a.json), taken = 0;
  assert_true(n < sizeof good);
  memcpy(good, a.json, n);
  nm_run_about_free(&a);
  nm__mkdirs("bad", NULL);
  for (uint64_t i = 0; i < 10000; i++) {
    struct nm__rng r = {.seed = 5, .stream = i};
    size_t len = nm__rng_below(&r, 8) ? n : nm__rng_below(&r, n);
    memcpy(bad, good, len);
    for (uint64_t k = 1 + nm__rng_below(&r, 4); k && len; k--)
      bad[nm__rng_below(&r, len)] = "\"{}[],:0x\\\xff"[nm__rng_below(&r, 11)];
    FILE *f = fopen("bad/config.json", "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bad, 1, len, f), len);
    fclose(f);
    nm_err err = {0};
    int st = nm_run_about_load("bad", &a, &err);
    if (st && (st != NM_EFORMAT || !*err.text)) fail_msg("%d: %s", st, err.text);
    if (!st) taken++, nm_run_about_free(&a);
  }
  assert_true(taken > 10 && taken < 9000);
}

static enum nm_file_state state_of(const nm_file_pair *v, size_t n, const char *name) {
  for (size_t i = 0; i < n; i++)
    if (!strcmp(v[i].name, name)) return v[i].state;
  fail_msg("%s is not compared", name);
  return NM_FILE_DIFFERS;
}

static void test_compare(void **state) {
  (void)state;
  nm_file_pair *v;
  size_t n;
  begin("runs/c1", NULL, "noema depth <m> -o runs/c1", NULL);
  begin("runs/c2", NULL, "noema depth -o /abs/runs/c2 <m>", NULL);
  nm__mkdirs("runs/c1/sub", NULL);
  nm__mkdirs("runs/c2/sub", NULL);
  put("runs/c1/same.npy", "bits");
  put("runs/c2/same.npy", "bits");
  put("runs/c1/sub/a.json", "{\"run\": \"runs/c1\", \"f\": \"runs/c1/x.npy\", \"seconds\": 1.5,"
                            " \"at\": \"2026-01-31T12:00:00Z\", \"v\": 1}");
  put("runs/c2/sub/a.json", "{\"run\": \"runs/c2\", \"f\": \"runs/c2/x.npy\", \"seconds\": 22.75,"
                            " \"at\": \"2027-11-01T02:03:04Z\", \"v\": 1}");
  put("runs/c1/p.html", "<pre>noema depth &lt;m&gt; -o runs/c1</pre><title>c1</title><b>c2</b> 1");
  put("runs/c2/p.html", "<pre>noema depth -o /abs/runs/c2 &lt;m&gt;</pre><title>c2</title><b>c2</b> 1");
  put("runs/c1/q.json", "{\"seconds\": 1, \"loss\": 2.5}");
  put("runs/c2/q.json", "{\"seconds\": 1, \"loss\": 2.6}");
  put("runs/c1/n.npy", "2026-01-31T12:00:00Z");    /* no text: every byte counts */
  put("runs/c2/n.npy", "2026-01-31T12:00:01Z");
  put("runs/c1/mine", "");
  put("runs/c2/yours", "");
  assert_int_equal(nm_folders_compare("runs/c1", "runs/c2", &v, &n, NULL), 0);
  assert_int_equal(n, 7);
  assert_int_equal(state_of(v, n, "same.npy"), NM_FILE_EQUAL);
  assert_int_equal(state_of(v, n, "sub/a.json"), NM_FILE_ALIKE);
  assert_int_equal(state_of(v, n, "p.html"), NM_FILE_ALIKE);
  assert_int_equal(state_of(v, n, "q.json"), NM_FILE_DIFFERS);
  assert_int_equal(state_of(v, n, "n.npy"), NM_FILE_DIFFERS);
  assert_int_equal(state_of(v, n, "mine"), NM_FILE_ONLY_A);
  assert_int_equal(state_of(v, n, "yours"), NM_FILE_ONLY_B);
  nm_file_pairs_free(v, n);
  assert_int_equal(nm_folders_compare("runs/c1", "nowhere", &v, &n, NULL), NM_EFAIL);
}

static void test_remove(void **state) {
  (void)state;
  uint64_t bytes;
  nm_err err = {0};
  begin("runs/out", NULL, "noema depth m -o runs/out/", NULL);
  nm__mkdirs("runs/out/cache/deep", NULL);
  put("runs/out/cache/deep/x", "12345");
  put("kept", "k");
  assert_int_equal(symlink("../../kept", "runs/out/link"), 0);
  assert_int_equal(nm_run_bytes("runs/out", &bytes, &err), 0);
  assert_true(bytes > 5);
  /* The store itself, a folder that is no run's, and a link to a run's stay. */
  put("runs/config.json", "{\"noema\": \"0\", \"verb\": \"x\"}");
  assert_int_equal(nm_run_remove(".", "runs", &err), NM_EFAIL);
  assert_non_null(strstr(err.text, "runs.db"));
  unlink("runs/config.json");
  nm__mkdirs("runs/plain", NULL);
  put("runs/plain/f", "f");
  assert_int_equal(nm_run_remove("runs", "runs/plain", &err), NM_EFORMAT);
  assert_true(nm__exists("runs/plain/f"));
  assert_int_equal(symlink("out", "runs/alias"), 0);
  assert_int_equal(nm_run_remove("runs", "runs/alias", &err), NM_EFAIL);
  assert_int_equal(nm_run_remove("runs", "elsewhere/runs/out/", &err), 0);
  assert_false(nm__exists("runs/out"));
  assert_true(nm__exists("kept"));
  assert_int_equal(nm_run_remove("runs", "runs/out", &err), 0);      /* it is gone already */
}

static int enter(void **state) {
  (void)state;
  snprintf(root, sizeof root, "/tmp/noema-about-XXXXXX");
  return !mkdtemp(root) || chdir(root);
}

static int leave(void **state) {
  (void)state;
  char command[100];
  snprintf(command, sizeof command, "rm -rf %s", root);
  return chdir("/") || system(command);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_words),   cmocka_unit_test(test_inputs),
      cmocka_unit_test(test_path_hash), cmocka_unit_test(test_hostile),
      cmocka_unit_test(test_compare), cmocka_unit_test(test_remove),
  };
  return cmocka_run_group_tests(tests, enter, leave);
}
