/* sampling_test.c - drawing tokens: the same choice as a slow plain twin that sorts everything, and
 * frequencies that are those of the distribution. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/core.h"

/* ---- the twin ------------------------------------------------------------ */

struct cand { double logit; int id; };

static int by_rank(const void *a, const void *b) {
  const struct cand *x = a, *y = b;
  if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
  return x->id - y->id;
}

/* The survivors of all filters with their probabilities; returns how many. */
static int twin(const float *logits, int V, const nm_sampler *p, nm_seq text, struct cand *c,
                double *prob) {
  int last = p->repeat_last_n < 0 ? (int)text.n : p->repeat_last_n ? p->repeat_last_n : 64, n = V;
  for (int i = 0; i < V; i++) {
    bool stood = false;
    for (int k = 0; k < last && k < (int)text.n; k++)
      stood = stood || text.ids[text.n - 1 - (size_t)k] == i;
    float z = logits[i], by = (float)p->repeat_penalty;
    if (stood && by > 0) z = z > 0 ? z / by : z * by;
    c[i] = (struct cand){(double)z, i};
  }
  qsort(c, (size_t)V, sizeof *c, by_rank);
  if (p->temp <= 0) return 1;
  if (p->top_k > 0 && p->top_k < n) n = p->top_k;
  if (p->top_p > 0 && p->top_p < 1) {
    double all = 0, sum = 0;
    for (int i = 0; i < n; i++) all += exp(c[i].logit - c[0].logit);
    int keep = 0;
    while (keep < n && sum < p->top_p * all) sum += exp(c[keep++].logit - c[0].logit);
    n = keep;
  }
  if (p->min_p > 0) {
    int keep = 1;
    while (keep < n && c[keep].logit - c[0].logit >= log(p->min_p)) keep++;
    n = keep;
  }
  double all = 0;
  for (int i = 0; i < n; i++) all += prob[i] = exp((c[i].logit - c[0].logit) / p->temp);
  for (int i = 0; i < n; i++) prob[i] /= all;
  return n;
}

static int twin_draw(const struct cand *c, const double *prob, int n, const nm_sampler *p,
                     uint64_t sample, uint64_t step) {
  double u = (double)(nm__rand_at(p->seed, sample, step) >> 11) / 9007199254740992.0, sum = 0;
  for (int i = 0; i + 1 < n; i++)
    if ((sum += prob[i]) > u) return c[i].id;
  return c[n - 1].id;
}

/* ---- the same choice ------------------------------------------------------- */

enum { MOST = 400 };
static struct nm__rng rng = {5, 1, 0};
static int below(int n) { return (int)nm__rng_below(&rng, (uint64_t)n); }
static double pick(const double *v, int n) { return v[below(n)]; }

static nm_sampler some_sampler(void) {
  static const double temps[] = {0, 0.1, 0.8, 1, 1.7, 30}, ps[] = {0, 1, 0.1, 0.5, 0.9, 0.95, 0.999},
                      mins[] = {0, 0, 0.05, 0.3, 1}, reps[] = {0, 1, 1.1, 2, 0.5};
  return (nm_sampler){.temp = pick(temps, 6), .top_k = below(3) ? below(60) : 0,
                      .top_p = pick(ps, 7), .min_p = pick(mins, 5), .repeat_penalty = pick(reps, 5),
                      .repeat_last_n = below(40) - 1, .seed = (uint64_t)below(1000)};
}

static void same_choice(void **state) {
  (void)state;
  static float z[MOST];
  static struct cand c[MOST];
  static double prob[MOST];
  static nm_ranked work[MOST];
  int32_t text[50];
  int differs_from_top = 0;
  for (int round = 0; round < 30000; round++) {
    int V = 1 + below(round % 3 ? 20 : MOST), n_text = below(50);
    float scale = (float)(1 + below(10));
    bool ties = round % 2;
    for (int i = 0; i < V; i++) {
      z[i] = scale * ((float)nm__rng_unit(&rng) - 0.5f);
      if (ties) z[i] = roundf(z[i]);
    }
    for (int i = 0; i < n_text; i++) text[i] = below(V);
    nm_sampler p = some_sampler();
    nm_seq seq = {text, (size_t)n_text};
    int n = twin(z, V, &p, seq, c, prob);
    int want = p.temp > 0 ? twin_draw(c, prob, n, &p, 3, (uint64_t)round) : c[0].id;
    int got = nm_sample_token(z, V, &p, seq, 3, (uint64_t)round, work);
    if (got != want) fail_msg("round %d: %d, the twin says %d", round, got, want);
    differs_from_top += want != c[0].id;
  }
  assert_true(differs_from_top > 5000);                /* the draws were draws */
}

/* ---- the right frequencies ------------------------------------------------- */

static void frequencies(void **state) {
  (void)state;
  static const float z[8] = {1.5f, -0.5f, 0.2f, 2.0f, -3.0f, 0.2f, 1.0f, -1.0f};
  static const nm_sampler cases[] = {
      {.temp = 1}, {.temp = 0.5, .seed = 7}, {.temp = 2.5}, {.temp = 1, .top_k = 3},
      {.temp = 0.8, .top_p = 0.9}, {.temp = 1.2, .min_p = 0.1},
      {.temp = 0.8, .top_k = 6, .top_p = 0.95, .min_p = 0.05, .repeat_penalty = 1.3, .seed = 9}};
  enum { N = 100000 };
  int32_t said[] = {3, 1};
  nm_seq text = {said, 2};
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    struct cand c[8];
    double prob[8], worst = 0;
    nm_ranked work[8];
    int count[8] = {0}, n = twin(z, 8, &cases[k], text, c, prob);
    for (int i = 0; i < N; i++)          /* half of them samples of one step, half steps */
      count[nm_sample_token(z, 8, &cases[k], text, i % 2 ? (uint64_t)i : 0,
                            i % 2 ? 5 : (uint64_t)i, work)]++;
    int kept = 0;
    for (int i = 0; i < n; i++) {
      double sigma = sqrt(N * prob[i] * (1 - prob[i])) + 1e-9;
      double d = fabs(count[c[i].id] - N * prob[i]) / sigma;
      worst = d > worst ? d : worst;
      kept += count[c[i].id];
    }
    print_message("case %zu: %d tokens left, farthest frequency %.2f sigma\n", k, n, worst);
    assert_int_equal(kept, N);           /* nothing that was filtered is ever drawn */
    assert_true(worst < 4);
  }
}

static void corners(void **state) {
  (void)state;
  nm_ranked w[4];
  nm_seq none = {0};
  nm_sampler greedy = {0}, one = {.temp = 1, .top_k = 1}, hot = {.temp = 1e5}, floor = {.temp = 1, .min_p = 1};
  float tie[4] = {1, 3, 3, 2}, masked[4] = {-INFINITY, 0, -INFINITY, -INFINITY};
  int32_t said[1] = {1};
  assert_int_equal(nm_sample_token(tie, 4, &greedy, none, 0, 0, w), 1);
  assert_int_equal(nm_sample_token(tie, 4, &one, none, 0, 0, w), 1);
  assert_int_equal(nm_sample_token(tie, 1, &hot, none, 0, 0, w), 0);
  for (uint64_t i = 0; i < 200; i++) {
    assert_int_equal(nm_sample_token(masked, 4, &hot, none, 0, i, w), 1);
    int32_t id = nm_sample_token(tie, 4, &floor, none, 0, i, w);
    assert_true(id == 1 || id == 2);     /* as likely as the likeliest */
  }
  nm_sampler again = {.repeat_penalty = 1.5}, late = {.repeat_penalty = 1.5, .repeat_last_n = 1};
  assert_int_equal(nm_sample_token(tie, 4, &again, (nm_seq){said, 1}, 0, 0, w), 2);
  int32_t two[2] = {1, 2};
  assert_int_equal(nm_sample_token(tie, 4, &again, (nm_seq){two, 2}, 0, 0, w), 1);
  assert_int_equal(nm_sample_token(tie, 4, &late, (nm_seq){two, 2}, 0, 0, w), 1);
  float cold[2] = {-1, -1.2f};           /* below zero a penalty multiplies */
  int32_t zero[1] = {0};
  assert_int_equal(nm_sample_token(cold, 2, &again, (nm_seq){zero, 1}, 0, 0, w), 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(same_choice), cmocka_unit_test(frequencies),
                                     cmocka_unit_test(corners)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
