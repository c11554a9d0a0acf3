/* score_test.c - log-likelihoods: the bits of logits, windows that score each token once, the
 * divergence by hand and of a model to itself, quantised models, intervals, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "model_run.h"

#define STORIES SHARED "models/stories260K/stories260K."
enum { N_SEQS = 5 };

static const nm_seq *texts(const nm_model *m) {
  static int32_t ids[N_SEQS][90];
  static nm_seq s[N_SEQS];
  static const size_t len[N_SEQS] = {17, 1, 90, 9, 2};
  for (size_t i = 0; i < N_SEQS; i++) {
    s[i] = (nm_seq){ids[i], len[i]};
    for (int k = 0; k < 90; k++) ids[i][k] = (k < 6 ? k * 11 + 1 : k * 31 + (int)i * 7 + 2) % m->V;
  }
  return s;
}

static nm_scores score(nm_engine *e, const nm_seq *s, const size_t *from, size_t n,
                       nm_score_opts o) {
  nm_scores v;
  nm_err err = {0};
  if (nm_score(e, s, from, n, &o, &v, &err)) fail_msg("%s", err.text);
  return v;
}

/* ln p of token `next` by nm_log_softmax of the logits before it, in a window from `begin`. */
static double by_hand(nm_engine *e, const nm_seq *s, size_t begin, size_t next, double *all) {
  const nm_model *m = nm__engine_model(e);
  struct rows r = tap_one(e, s->ids + begin, next - begin, "logits", "last", NULL);
  nm_log_softmax(row_of(&r, "logits", 0, (int)(next - begin) - 1, m->V), m->V, all);
  rows_done(&r);
  return all[s->ids[next]];
}

static void test_the_bits_of_logits(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  nm_engine *f = new_engine(m, (nm_engine_opts){.threads = 1, .chunk = 3, .batch = 1});
  const nm_seq *s = texts(m);
  const size_t from[N_SEQS] = {0, 1, 80, 4, 7};
  double *all = malloc((size_t)m->V * sizeof *all);
  nm_scores a = score(e, s, NULL, N_SEQS, (nm_score_opts){0});
  nm_scores b = score(f, s, from, N_SEQS, (nm_score_opts){0});
  assert_int_equal(a.first[N_SEQS], 16 + 0 + 89 + 8 + 1);
  assert_int_equal(b.first[N_SEQS], 16 + 0 + 10 + 5 + 0);
  for (size_t i = 0; i < N_SEQS; i++) {
    for (size_t k = a.first[i]; k < a.first[i + 1]; k++) {
      assert_int_equal(a.pos[k], (int)(1 + k - a.first[i]));
      assert_true(a.lp[k] == by_hand(e, &s[i], 0, (size_t)a.pos[k], all));
    }
    for (size_t k = b.first[i]; k < b.first[i + 1]; k++)
      assert_true(b.lp[k] == a.lp[a.first[i] + (size_t)b.pos[k] - 1]);
  }
  assert_null(a.kl);
  nm_scores_free(&a);
  nm_scores_free(&b);
  free(all);
  nm_engine_free(e);
  nm_engine_free(f);
  nm_model_close(m);
}

/* A prompt with several continuations is read once, and the bits are those of reading it again. */
static void test_a_shared_prompt(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  int32_t ids[3][20];
  nm_seq s[3];
  size_t from[3];
  for (int i = 0; i < 3; i++) {
    for (int k = 0; k < 20; k++) ids[i][k] = k < 12 ? 270 + k : 280 + 3 * i + k;
    s[i] = (nm_seq){ids[i], (size_t)(14 + i)};
    from[i] = 12;
  }
  nm_scores a = score(e, s, from, 3, (nm_score_opts){0});
  for (int i = 0; i < 3; i++) {
    nm_scores b = score(e, &s[i], &from[i], 1, (nm_score_opts){0});
    assert_int_equal(b.first[1], a.first[i + 1] - a.first[i]);
    assert_memory_equal(b.lp, a.lp + a.first[i], b.first[1] * sizeof(double));
    nm_scores_free(&b);
  }
  nm_scores_free(&a);
  nm_engine_free(e);
  nm_model_close(m);
}

static void test_windows(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  const nm_seq *s = texts(m) + 2;
  double *all = malloc((size_t)m->V * sizeof *all);
  const int windows[] = {20, 20, 20, 2, 89, 90}, strides[] = {0, 1, 19, 1, 0, 0};
  for (int w = 0; w < 6; w++) {
    size_t W = (size_t)windows[w], stride = strides[w] ? (size_t)strides[w] : W / 2, scored = 1;
    nm_scores a =
        score(e, s, NULL, 1, (nm_score_opts){.window = windows[w], .stride = strides[w]});
    assert_int_equal(a.first[1], s->n - 1);
    for (size_t begin = 0; scored < s->n; begin += stride)
      for (; scored < s->n && scored < begin + W; scored++)
        assert_true(a.lp[scored - 1] == by_hand(e, s, begin, scored, all));
    nm_scores_free(&a);
  }
  free(all);
  nm_engine_free(e);
  nm_model_close(m);
}

static void test_a_model_to_itself(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  const nm_seq *s = texts(m);
  nm_scores a = score(e, s, NULL, N_SEQS, (nm_score_opts){.base = e, .window = 30});
  for (size_t k = 0; k < a.first[N_SEQS]; k++) {
    assert_true(a.kl[k] == 0);
    assert_true(a.lp[k] == a.base_lp[k]);
    assert_true(a.same_top[k]);
  }
  nm_scores_free(&a);
  nm_engine_free(e);
  nm_model_close(m);
}

/* An edit against the same model without: the divergence of every token by its definition. */
static void test_divergence_by_hand(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  nm_edits *edits = parse_edits("{\"site\": \"blk.0.attn.pattern[3]\", \"op\": \"zero\"}");
  int32_t ids[] = {1, 340, 280, 300, 362, 290, 310};
  nm_seq s = {ids, 7};
  size_t V = (size_t)m->V;
  double *p = malloc(2 * V * sizeof *p), *q = p + V, some = 0;
  nm_scores a = score(e, &s, NULL, 1, (nm_score_opts){.edits = edits, .base = e});
  nm_scores b = score(e, &s, NULL, 1, (nm_score_opts){.edits = edits});
  assert_memory_equal(a.lp, b.lp, 6 * sizeof(double));
  for (size_t k = 0; k < 6; k++) {
    struct rows r = tap_one(e, ids, k + 1, "logits", "last", NULL);
    struct rows x = tap_one(e, ids, k + 1, "logits", "last", edits);
    nm_log_softmax(row_of(&r, "logits", 0, (int)k, m->V), m->V, p);
    nm_log_softmax(row_of(&x, "logits", 0, (int)k, m->V), m->V, q);
    double kl = 0;
    for (size_t v = 0; v < V; v++) kl += exp(p[v]) * (p[v] - q[v]);
    assert_true(fabs(a.kl[k] - kl) < 1e-9);
    assert_true(a.base_lp[k] == p[ids[k + 1]] && a.lp[k] == q[ids[k + 1]]);
    some += a.kl[k];
    rows_done(&r);
    rows_done(&x);
  }
  assert_true(some > 0.1);
  nm_scores_free(&a);
  nm_scores_free(&b);
  free(p);
  nm_edits_free(edits);
  nm_engine_free(e);
  nm_model_close(m);
}

/* A coarser type is farther from the model it was made of. */
static void test_quantised(void **state) {
  (void)state;
  static const char *const types[] = {"Q8_0", "Q5_0", "Q4_0"};
  if (no_shared()) return;
  nm_model *m = open_model(STORIES "f32.gguf");
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  const char *text = "Once upon a time, there was a little girl named Lily. She loved to play in "
                     "the park with her friends. One day, she saw a big red ball.";
  int32_t *ids;
  size_t n;
  double last = 0;
  assert_int_equal(nm_tokenize(m, text, strlen(text), 0, &ids, &n, NULL), 0);
  for (int i = 0; i < 3; i++) {
    char path[80];
    nm_err err = {0};
    nm_convert_result r;
    snprintf(path, sizeof path, "/tmp/noema_score_test.%ld.gguf", (long)getpid());
    if (nm_convert(&(nm_convert_opts){.in = STORIES "f32.gguf", .out = path, .type = types[i],
                                      .force = true}, &r, &err))
      fail_msg("%s", err.text);
    nm_convert_result_free(&r);
    nm_model *q = open_model(path);
    nm_engine *f = new_engine(q, (nm_engine_opts){.threads = 2});
    nm_seq s = {ids, n};
    nm_scores a = score(f, &s, NULL, 1, (nm_score_opts){.base = e});
    nm_score_sum sum;
    nm_score_total(&a, 0, 1, &sum);
    print_message("%s: KL %.3g nats a token, perplexity %.4f against %.4f\n", types[i],
                  sum.kl_mean.mean, sum.ppl.mean, sum.base_ppl.mean);
    assert_true(sum.kl_mean.mean > 2 * last);
    last = sum.kl_mean.mean;
    nm_scores_free(&a);
    nm_engine_free(f);
    nm_model_close(q);
    unlink(path);
  }
  nm_free(ids);
  nm_engine_free(e);
  nm_model_close(m);
}

/* Two texts with known sums: the ratio, its interval by the formula, bits a byte, one text. */
static void test_totals(void **state) {
  (void)state;
  size_t first[] = {0, 2, 6};
  double lp[] = {-1, -3, -2, -2, -1, -1}, bytes[] = {4, 8};
  nm_scores s = {.n = 2, .first = first, .lp = lp, .bytes = bytes};
  nm_score_sum t;
  nm_score_total(&s, 0, 2, &t);
  assert_int_equal(t.n_tokens, 6);
  assert_true(t.lp == -10 && t.bytes == 12);
  double r = 10.0 / 6, d0 = 4 - 2 * r, d1 = 6 - 4 * r;
  double half = 1.96 * sqrt(2.0 / 1 * (d0 * d0 + d1 * d1)) / 6;
  assert_true(fabs(t.ppl.mean - exp(r)) < 1e-12);
  assert_true(fabs(t.ppl.hi - exp(r + half)) < 1e-9 && fabs(t.ppl.lo - exp(r - half)) < 1e-9);
  assert_true(fabs(t.bits_per_byte.mean - 10 / log(2) / 12) < 1e-12);
  nm_score_total(&s, 1, 1, &t);
  double se = sqrt(4.0 / 3 * 4 * 0.25) / 4;            /* four residuals of one half */
  assert_true(fabs(log(t.ppl.hi) - (1.5 + 1.96 * se)) < 1e-9);
  assert_true(fabs(t.bits_per_byte.mean - 6 / log(2) / 8) < 1e-12);
}

static void refused(nm_engine *e, nm_score_opts o, int status, const char *word) {
  nm_model *m = (nm_model *)(uintptr_t)nm__engine_model(e);
  nm_scores v;
  nm_err err = {0};
  assert_int_equal(nm_score(e, texts(m), NULL, N_SEQS, &o, &v, &err), status);
  if (!strstr(err.text, word)) fail_msg("'%s' lacks '%s'", err.text, word);
}

static int stop(void *arg, const char *what, double done, double total) {
  (void)arg, (void)what, (void)done, (void)total;
  return 1;
}

static void test_refusals(void **state) {
  (void)state;
  char path[80];
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  nm_progress p = {stop, NULL};
  snprintf(path, sizeof path, "/tmp/noema_score_test.%ld.bert", (long)getpid());
  assert_int_equal(nm_write_random("tiny", "F32", 8, path, NULL, NULL), 0);
  nm_model *other = open_model(path);
  nm_engine *f = new_engine(other, (nm_engine_opts){.threads = 1});
  refused(e, (nm_score_opts){.base = f}, NM_EUSAGE, "vocabulary");
  refused(e, (nm_score_opts){.window = 257}, NM_EUSAGE, "window");
  refused(e, (nm_score_opts){.window = 1}, NM_EUSAGE, "window");
  refused(e, (nm_score_opts){.window = 20, .stride = 20}, NM_EUSAGE, "stride");
  refused(e, (nm_score_opts){.progress = &p}, NM_EINTR, "");
  nm_scores v = score(e, texts(m), NULL, 0, (nm_score_opts){0});
  assert_int_equal(v.first[0], 0);
  nm_scores_free(&v);
  nm_engine_free(f);
  nm_model_close(other);
  assert_int_equal(nm_write_random("tiny-bert", "F32", 8, path, NULL, NULL), 0);
  other = open_model(path);
  f = new_engine(other, (nm_engine_opts){.threads = 1});
  refused(f, (nm_score_opts){0}, NM_EUSAGE, "logits");
  nm_engine_free(f);
  nm_model_close(other);
  unlink(path);
  nm_engine_free(e);
  nm_model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_the_bits_of_logits), cmocka_unit_test(test_a_shared_prompt),
      cmocka_unit_test(test_windows),            cmocka_unit_test(test_a_model_to_itself),
      cmocka_unit_test(test_divergence_by_hand), cmocka_unit_test(test_quantised),
      cmocka_unit_test(test_totals),             cmocka_unit_test(test_refusals),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
