/* optim_test.c - optimisers against the same formulas in double, the same bits whatever threads
 * and kernels, Muon's step is nearly orthogonal, and schedules at their corners. */
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/optim.h"

enum { R = 24, C = 40, N = R * C };

static double draw(uint64_t stream, int i) {
  return (double)(nm__rand_at(3, stream, (uint64_t)i) >> 11) * 0x1p-52 - 1;
}

static struct nm__ops context(const char *kernels, int threads) {
  struct nm__ops o = {.mode = NM__RUN, .kern = nm__kern_find(kernels)};
  assert_int_equal(nm__pool_new(threads, &o.pool, NULL), 0);
  assert_int_equal(nm__arena_init(&o.arena, 1 << 20, NULL), 0);
  return o;
}

static void done(struct nm__ops *o) {
  nm__arena_done(&o->arena);
  nm__pool_free(o->pool);
}

/* Ten steps with gradients that change; the same start for all. */
static void ten_steps(const struct nm__optim *k, const char *kernels, int threads, float *p) {
  static float state[2 * N], g[N];
  struct nm__ops o = context(kernels, threads);
  memset(state, 0, sizeof state);
  for (int i = 0; i < N; i++) p[i] = (float)draw(0, i);
  for (int t = 1; t <= 10; t++) {
    for (int i = 0; i < N; i++) g[i] = (float)draw((uint64_t)t, i);
    nm__optim_step(&o, k, p, g, state, R, C, 0.02f, 0.1f, t);
  }
  assert_int_equal(o.err.status, 0);
  done(&o);
}

static void against_double(void **s) {
  (void)s;
  static float p[N];
  static double q[N], m[N], v[N];
  for (int kind = NM__SGD; kind <= NM__ADAMW; kind++) {
    struct nm__optim k = {kind, 0.9f, 0.95f, 1e-5f};
    ten_steps(&k, NULL, 1, p);
    memset(m, 0, sizeof m);
    memset(v, 0, sizeof v);
    double b1 = (double)k.beta1, b2 = (double)k.beta2, lr = (double)0.02f, wd = (double)0.1f;
    for (int i = 0; i < N; i++) q[i] = (double)(float)draw(0, i);
    for (int t = 1; t <= 10; t++)
      for (int i = 0; i < N; i++) {
        double g = (double)(float)draw((uint64_t)t, i);
        q[i] *= 1 - lr * wd;
        if (kind == NM__SGD) {
          m[i] = b1 * m[i] + g;
          q[i] -= lr * m[i];
          continue;
        }
        m[i] = b1 * m[i] + (1 - b1) * g;
        v[i] = b2 * v[i] + (1 - b2) * g * g;
        q[i] -= lr * (m[i] / (1 - pow(b1, t))) / (sqrt(v[i] / (1 - pow(b2, t))) + (double)k.eps);
      }
    double worst = 0;
    for (int i = 0; i < N; i++) worst = fmax(worst, fabs(q[i] - (double)p[i]));
    print_message("%s: ten steps differ from double by %.1e\n", kind ? "adamw" : "sgd", worst);
    assert_true(worst < 2e-6);
  }
}

static void same_bits(void **s) {
  (void)s;
  static float a[N], b[N];
  for (int kind = NM__SGD; kind <= NM__MUON; kind++) {
    struct nm__optim k = {kind, 0.9f, 0.95f, 1e-8f};
    ten_steps(&k, "portable", 1, a);
    for (int i = 0; nm__kern_at(i); i++)
      for (int threads = 1; threads <= 3; threads++) {
        ten_steps(&k, nm__kern_at(i)->name, threads, b);
        assert_memory_equal(a, b, sizeof a);
      }
  }
}

/* All singular values of a step of Muon lie near 1: |step v| / |v| for many v. */
static void muon_is_orthogonal(void **s) {
  (void)s;
  static float p[N], g[N], state[N];
  for (int tall = 0; tall < 2; tall++) {
    int rows = tall ? C : R, cols = tall ? R : C;
    struct nm__ops o = context(NULL, 2);
    memset(state, 0, sizeof state);
    memset(p, 0, sizeof p);
    for (int i = 0; i < N; i++) g[i] = (float)(draw(1, i) + 3 * draw(2, i / cols) * draw(4, i % cols));
    struct nm__optim k = {NM__MUON, 0.95f, 0, 0};
    nm__optim_step(&o, &k, p, g, state, rows, cols, 1.0f, 0, 1);
    double lo = 1e9, hi = 0, gain = tall ? sqrt((double)rows / cols) : 1;
    for (int t = 0; t < 50; t++) {
      double in = 0, out = 0;
      for (int j = 0; j < (tall ? cols : rows); j++) in += pow(draw(9 + (uint64_t)t, j), 2);
      for (int i = 0; i < (tall ? rows : cols); i++) {
        double y = 0;
        for (int j = 0; j < (tall ? cols : rows); j++)
          y += draw(9 + (uint64_t)t, j) * (double)(tall ? p[i * cols + j] : p[j * cols + i]);
        out += y * y;
      }
      double r = sqrt(out / in) / gain;
      lo = fmin(lo, r), hi = fmax(hi, r);
    }
    print_message("muon %dx%d: gains %.2f to %.2f\n", rows, cols, lo, hi);
    assert_true(lo > 0.6 && hi < 1.25);
    done(&o);
  }
}

static void schedules(void **s) {
  (void)s;
  struct nm__schedule c = {NM__CONSTANT, 2, 0, 0, 10, 100};
  assert_true(nm__schedule_at(&c, 0) == 0.2 && nm__schedule_at(&c, 9) == 2);
  assert_true(nm__schedule_at(&c, 10) == 2 && nm__schedule_at(&c, 99) == 2);
  struct nm__schedule l = {NM__LINEAR, 2, 0.1, 0, 10, 110};
  assert_true(fabs(nm__schedule_at(&l, 60) - 2 * (1 - 0.5 * 0.9)) < 1e-12);
  assert_true(fabs(nm__schedule_at(&l, 500) - 0.2) < 1e-12);
  struct nm__schedule k = {NM__COSINE, 2, 0, 0, 0, 100};
  assert_true(nm__schedule_at(&k, 0) == 2 && fabs(nm__schedule_at(&k, 50) - 1) < 1e-12);
  struct nm__schedule w = {NM__WSD, 2, 0, 0.3, 10, 100};
  assert_true(nm__schedule_at(&w, 70) == 2 && fabs(nm__schedule_at(&w, 85) - 1) < 1e-12);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(against_double),
      cmocka_unit_test(same_bits),
      cmocka_unit_test(muon_is_orthogonal),
      cmocka_unit_test(schedules),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
