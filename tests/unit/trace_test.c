/* noema trace-graph inside: hostile files, words, walks, scores and silence of heads, runs that go
 * on. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "look/trace.h"
#include "study/mini.h"

static nm_err err;

#define says(part) \
  do { \
    if (!strstr(err.text, part)) fail_msg("'%s' does not say '%s'", err.text, part); \
  } while (0)

/* ---- files ---------------------------------------------------------------------- */

static void grams(void **state) {
  (void)state;
  static const struct { const char *text, *says; } t[] = {
      {"w,a,b,c\na,1,0,0\nb,0,1,0\nc,0,0,1\n", "3 rows of 4 columns"},
      {"w,a,b,c,d\na,1,0,0,0\nb,0,1,0,0\nc,0,0,1,0\nd,0,0,0\n", "d"},
      {"w,a,b,c,d\na,1,0,0,0\nb,0,1,0,0\nd,0,0,1,0\nc,0,0,0,1\n", ":4: 'd' in column 1 is not"},
      {"w,a,b,c,d\na,1,0,0,0\nb,0,1,0,0\nc,0,0,nan,0\nd,0,0,0,1\n", ":4: 'nan' in column 4"},
      {"w,a,b,c,d\na,1,0,0,0\nb,0,1,0,0\nc,0,0,0x1,0\nd,0,0,0,1\n", "'0x1' in column 4"},
      {"w,a,b,c,d\na,1,0,0,0\nb,0,1,0,0\nc,0,0,1e999,0\nd,0,0,0,1\n", "'1e999'"},
      {"w,a,b,c,d\na,1,0.5,0,0\nb,0,1,0,0\nc,0,0,1,0\nd,0,0,0,1\n", "nodes 1 and 0 is 0 one way"},
      {"[{\"w\": 1}]", "columns"}, {"", "empty"}};
  struct nm__gram_file g;
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    assert_int_equal(nm__gram_parse("g.csv", t[i].text, strlen(t[i].text), &g, &err), NM_EFORMAT);
    says(t[i].says);
  }
}

static void accuracies(void **state) {
  (void)state;
  static const struct { const char *text, *says; } t[] = {
      {"position,a\n0,0.5\n1,1.5\n", ":3: '1.5' in column 2 is not an accuracy"},
      {"position,a\n0,0.5\n1,-0.1\n", "'-0.1'"},
      {"position,a\n0,0.5\n0,0.1\n", ":3: '0' in column 1 is not a position behind"},
      {"position,a\nx,0.5\n", "'x' in column 1"},
      {"position\n1\n", "columns"}};
  struct nm__accuracy_file a;
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    assert_int_equal(nm__accuracy_parse("a.csv", t[i].text, strlen(t[i].text), &a, &err),
                     NM_EFORMAT);
    says(t[i].says);
  }
  const char *good = "position,a,b\n0,,0.5\n3,1,0.25\n";
  assert_int_equal(nm__accuracy_parse("a", good, strlen(good), &a, &err), NM_OK);
  assert_true(a.n == 2 && a.walks == 2 && isnan(a.acc[0]) && a.acc[3] == 0.25);
  nm__accuracy_done(&a);
}

/* What is taken is finite, symmetric, in bounds. */
static void mutated(void **state) {
  (void)state;
  static const char gram[] = "w,a,b,c,d\na,2,-1,0,0\nb,-1,2,-1,0\nc,0,-1,2,-1\nd,0,0,-1,2\n",
                    acc[] = "position,walk0,walk1\n0,0.1,0.2\n1,0.3,\n2,0.5,0.6\n";
  struct nm__rng r = {5, 1, 0};
  int taken[2] = {0, 0};
  for (int k = 0; k < 20000; k++) {
    char s[sizeof gram];
    size_t n = (k & 1 ? sizeof acc : sizeof gram) - 1;
    memcpy(s, k & 1 ? acc : gram, n);
    for (int i = 0, m = 1 + (int)nm__rng_below(&r, 3); i < m; i++)
      s[nm__rng_below(&r, n)] = "0123456789.,-\n\"eEa\0\377b+"[nm__rng_below(&r, 23)];
    if (!nm__rng_below(&r, 8)) n = nm__rng_below(&r, n);
    struct nm__gram_file g;
    struct nm__accuracy_file a;
    err.text[0] = 0;
    if (k & 1) {
      int st = nm__accuracy_parse("a", s, n, &a, &err);
      if (st) assert_true(err.text[0]);
      for (size_t i = 0; !st && i < a.n * (size_t)a.walks; i++)
        assert_true(isnan(a.acc[i]) || (a.acc[i] >= 0 && a.acc[i] <= 1.001));
      taken[1] += !st;
      nm__accuracy_done(&a);
    } else {
      int st = nm__gram_parse("g", s, n, &g, &err);
      if (st) assert_true(err.text[0]);
      for (int i = 0; !st && i < g.n * g.n; i++) assert_true(isfinite(g.gram[i]));
      taken[0] += !st;
      nm__gram_done(&g);
    }
  }
  assert_true(taken[0] > 100 && taken[1] > 100);
}

static void words(void **state) {
  (void)state;
  static const struct { const char *text, *says;
  } t[] = {{"a\nb\na\n", "w:3: 'a' stands twice"},
           {"a b\n", "w:1: 'a b' is not one word"},
           {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "longer than 63"}};
  char (*v)[NM__TRACE_WORD];
  int n;
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    assert_int_equal(nm__trace_word_list("w", t[i].text, strlen(t[i].text), &v, &n, &err),
                     NM_EFORMAT);
    says(t[i].says);
    assert_null(v);
  }
  assert_int_equal(nm__trace_word_list("w", "sun\r\n\nmoon", 10, &v, &n, &err), NM_OK);
  assert_int_equal(n, 2);
  assert_string_equal(v[0], "sun");
  assert_string_equal(v[1], "moon");
  free(v);
}

/* ---- walks ------------------------------------------------------------------------- */

static const struct nm__mini_recipe tiny = {
    {3, 32, 2, 64, 100, 0.4, 4, 1, false}, 1, 480, 3e-3, 10, 0.3, 0.01, 1, -1, -1, 0, 0};
static struct nm__graph g;
static struct nm__walks w;

static void draw(bool fresh) {
  int32_t vocab[20];
  for (int i = 0; i < 20; i++) vocab[i] = 19 - i;
  nm__graph_grid(&g, 3, 3);
  assert_int_equal(nm__walks_draw(&g, 4, 40, 0, vocab, 20, fresh, 3, &w, &err), NM_OK);
}

static void walking(void **state) {
  (void)state;
  int count[2][9] = {{0}}, same = 0;
  draw(false);
  assert_true(nm__walks_joined(&w) >= 1);
  for (int i = 0; i < 9; i++) assert_int_equal(w.word[i], 19 - i);
  for (int i = 0; i < 40; i++) count[0][w.node[i]]++;
  int before[40];
  memcpy(before, w.node, sizeof before);
  nm__walks_shuffle(&w, 1);
  assert_true(nm__walks_joined(&w) < 0.5);
  for (int i = 0; i < 40; i++) {
    count[1][w.node[i]]++;
    same += before[i] == w.node[i];
    assert_int_equal(w.ids[1 + i], w.word[w.node[i]]);
  }
  assert_int_equal(w.ids[0], 0);
  assert_memory_equal(count[0], count[1], sizeof count[0]);
  assert_true(same < 30);
  nm__walks_done(&w);
  draw(true);
  assert_memory_not_equal(w.word, w.word + 9, 9 * sizeof *w.word);
  nm__walks_done(&w);
}

struct last { float *z; };
static int take_last(void *arg, const nm_row *r, nm_err *e) {
  (void)e;
  memcpy(((struct last *)arg)->z, r->data, (size_t)r->n * sizeof(float));
  return NM_OK;
}

/* Accuracies are those of the logits; means of the embedding are the embeddings. */
static void traced(void **state) {
  (void)state;
  struct nm__mini t;
  struct nm__traced x;
  nm_engine *e;
  float z[32];
  double lp[32], other = 0, back, *acc;
  assert_int_equal(nm__mini_blank(&tiny, 32, 1, &t, &err), NM_OK);
  assert_int_equal(nm_engine_new(t.m, &(nm_engine_opts){.threads = 1}, &e, &err), NM_OK);
  draw(true);
  int length[2] = {8, 40};
  assert_int_equal(nm__traced_new(t.m, &w, "embed|blk.*.resid_post", length, 2, 10, false, &x,
                                  &err), NM_OK);
  assert_int_equal(nm__traced_run(e, &w, "embed|blk.*.resid_post", NULL, &x, NULL, NULL, &err),
                   NM_OK);
  assert_int_equal(x.n_rows, 4);
  nm_seq seq = {w.ids + 2 * 41, 31};           /* walk 2 up to word 29 */
  nm_tap tap = {"logits", "last"};
  struct last last = {z};
  nm_request r = {.seqs = &seq, .n_seqs = 1, .taps = &tap, .n_taps = 1, .row = take_last,
                  .arg = &last};
  assert_int_equal(nm_run(e, &r, &err), NM_OK);
  nm_log_softmax(z, 32, lp);
  const int *node = w.node + 2 * 40;
  back = nm_exp(lp[w.word[2 * 9 + node[28]]]);
  for (int i = 0; i < g.degree[node[29]]; i++)
    other += nm_exp(lp[w.word[2 * 9 + g.next[node[29]][i]]]);
  acc = x.acc + 2 * (2 * 40 + 29);
  assert_true(fabs(acc[0] - other) < 1e-9);
  assert_true(fabs(acc[1] - (other - back) / (1 - back)) < 1e-9);
  for (int l = 0; l < 2; l++) {
    double sum = 0;
    for (int i = 0; i < 9; i++) sum += x.count[l * 9 + i];
    assert_true(sum == (l ? 10 : 8));          /* a window, or all there is of it */
  }
  const struct nm__learned *table = nm__params_find(&t.p, "token_embd.weight");
  for (int i = 0; i < 9; i++)
    for (int d = 0; d < 32 && x.count[9 + i] > 0; d++) {
      float want = t.p.values[table->at + (size_t)w.word[i] * 32 + (size_t)d];
      double got = x.sum[((1 * 4 + 0) * 9 + i) * 32 + d] / x.count[9 + i];
      assert_true(fabs(got - (double)want) < 1e-5);
    }
  nm__traced_done(&x);
  nm__walks_done(&w);
  nm_engine_free(e);
  nm__mini_done(&t);
}

/* Head 0 of every block is a previous-token head by its biases. */
static void heads(void **state) {
  (void)state;
  struct nm__mini t;
  struct nm__head *h, drawn[3];
  nm_engine *e;
  nm_edits *off;
  assert_int_equal(nm__mini_blank(&tiny, 32, 1, &t, &err), NM_OK);
  assert_int_equal(nm_engine_new(t.m, &(nm_engine_opts){.threads = 1}, &e, &err), NM_OK);
  for (int32_t bos = -1; bos < 1; bos++) {
    assert_int_equal(nm__head_scores(e, t.m, bos, 1, NULL, &h, &err), NM_OK);
    nm__head_sort(h, 6, NM__PREVIOUS);
    for (int i = 0; i < 6; i++) {
      assert_int_equal(h[i].head, i >= 3);
      assert_true(i < 3 ? h[i].previous > 0.7 : h[i].previous < 0.3);
      assert_true(h[i].induction < 0.2);
    }
    if (bos < 0) free(h);
  }
  assert_int_equal(nm__heads_random(h, 6, 1, 2, 1, drawn), 2);
  assert_true(drawn[0].layer != drawn[1].layer || drawn[0].head != drawn[1].head);
  for (int i = 0; i < 2; i++)
    assert_false(drawn[i].layer == h[0].layer && drawn[i].head == h[0].head);
  assert_true(nm__heads_random(h, 6, 6, 1, 1, drawn) == 0);
  assert_int_equal(nm__heads_off(h, 2, &off, &err), NM_OK);
  int length = 40;
  struct nm__traced x, plain;
  draw(true);
  assert_int_equal(nm__traced_new(t.m, &w, "blk.2.resid_post", &length, 1, 40, true, &x, &err), 0);
  assert_int_equal(nm__traced_new(t.m, &w, "blk.2.resid_post", &length, 1, 40, true, &plain, &err),
                   0);
  assert_int_equal(nm__traced_run(e, &w, "blk.2.resid_post", off, &x, NULL, NULL, &err), 0);
  assert_int_equal(nm__traced_run(e, &w, "blk.2.resid_post", NULL, &plain, NULL, NULL, &err), 0);
  assert_true(nm__heads_silenced(off) == 2 * 4 * 41);
  assert_memory_not_equal(x.acc, plain.acc, x.n_acc * sizeof *x.acc);
  nm__traced_done(&x);
  nm__traced_done(&plain);
  nm__walks_done(&w);
  nm_edits_free(off);
  free(h);
  nm_engine_free(e);
  nm__mini_done(&t);
}

/* ---- runs ------------------------------------------------------------------------------ */

static int stop_after(void *arg, const char *what, double done, double total) {
  (void)what, (void)done, (void)total;
  return --*(int *)arg == 0;
}

/* A run that was stopped goes on where it was, to the same bytes; a damaged file is no file. */
static void goes_on(void **state) {
  (void)state;
  char dir[] = "/tmp/trace_test_XXXXXX", a[64], b[64], part[80];
  assert_non_null(mkdtemp(dir));
  snprintf(a, sizeof a, "%s/a", dir);
  snprintf(b, sizeof b, "%s/b", dir);
  snprintf(part, sizeof part, "%s/walks-0.bin", b);
  nm_model *m;
  nm_engine *e;
  nm_trace_result whole, again;
  int length[2] = {6, 12}, left = 7;     /* 4 calls are of the scores of heads */
  nm_progress p = {stop_after, &left};
  nm_trace_opts o = {.graph = "ring:5", .words = "auto", .lengths = length, .n_lengths = 2,
                     .walks = 5, .seed = 2, .ablate = "prev:1", .out = a};
  assert_int_equal(nm_model_open("models/planted.gguf", &m, &err), NM_OK);
  assert_int_equal(nm_engine_new(m, &(nm_engine_opts){.threads = 2}, &e, &err), NM_OK);
  if (nm_trace_graph(e, &o, &whole, &err)) fail_msg("%s", err.text);
  assert_int_equal(whole.verdict, NM_EUNSURE);
  assert_int_equal(nm_trace_graph(e, &o, &again, &err), NM_EUSAGE);
  says("already holds a finished run");
  o.out = b;
  o.progress = &p;
  assert_int_equal(nm_trace_graph(e, &o, &again, &err), NM_EINTR);
  assert_true(nm__exists(part));
  o.progress = NULL;
  assert_int_equal(nm_trace_graph(e, &o, &again, &err), NM_OK);
  assert_string_equal(whole.json, again.json);
  assert_false(nm__exists(part));
  nm_trace_result_free(&whole);
  nm_trace_result_free(&again);
  nm_engine_free(e);
  nm_model_close(m);
  char line[120];
  snprintf(line, sizeof line, "rm -r %s", dir);
  assert_int_equal(system(line), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(grams),   cmocka_unit_test(accuracies), cmocka_unit_test(mutated),
      cmocka_unit_test(words),   cmocka_unit_test(walking),    cmocka_unit_test(traced),
      cmocka_unit_test(heads),   cmocka_unit_test(goes_on)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
