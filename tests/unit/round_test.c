/* round_test.c - rounding to so many bits: against the formula worked in double, and what it loses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"
#include "tensor/dtype.h"
#include "tensor/quants.h"

enum { N = 32 * 200 };

static void rounded(const float *x, int bits, float *out) {
  static uint8_t blocks[N / 32 * 34];
  nm__round_in(blocks, x, N, bits);
  nm__dtype(bits > 4 ? NM__Q8_0 : NM__Q4_0)->to_f32(out, blocks, N);
}

static void test_formula(void **state) {
  (void)state;
  static float x[N], y[N];
  struct nm__rng r = {3, 0, 0};
  for (int i = 0; i < N; i++) x[i] = (float)((nm__rng_unit(&r) - 0.5) * exp(i / 32 % 20 - 10));
  memset(x + 64, 0, 32 * sizeof *x);           /* a block of zeros stays one */
  double before = 0;
  for (int bits = 2; bits <= 8; bits++) {
    double m = (1 << (bits - 1)) - 1, lost = 0;
    rounded(x, bits, y);
    for (int b = 0; b < N; b += 32) {
      float top = 0;
      for (int i = 0; i < 32; i++) top = fabsf(x[b + i]) > top ? fabsf(x[b + i]) : top;
      double d = (double)nm__half_to_f32(nm__f32_to_half(top / (float)m));
      for (int i = 0; i < 32; i++) {
        double k = d > 0 ? (double)y[b + i] / d : 0, e = fabs((double)(x[b + i] - y[b + i]));
        assert_true(k == nearbyint(k) && fabs(k) <= m);      /* a whole number of steps */
        assert_true(e <= d * 0.5001 || fabs(k) == m);        /* the nearest, or the last */
        if (d > 6.2e-5) assert_true(e <= d * 0.5001 + (double)top * 1e-3);   /* a full half */
        if (top > 0) lost += e / (double)top;
      }
    }
    if (bits > 2) assert_true(lost < 0.75 * before);
    before = lost;
  }
  for (int i = 64; i < 96; i++) assert_true(y[i] == 0);
}

/* By hand: the largest 3 and m = 3 at 3 bits make d = 1. */
static void test_by_hand(void **state) {
  (void)state;
  static float x[N], y[N];
  const float in[] = {3, -3, 1.4f, 1.6f, -0.4f, -0.6f, 2.5f}, out[] = {3, -3, 1, 2, 0, -1, 3};
  memcpy(x, in, sizeof in);
  rounded(x, 3, y);
  for (int i = 0; i < 7; i++) assert_true(y[i] == out[i]);
  rounded(x, 2, y);                /* d = 3: -3, 0 and 3 are left */
  const float two[] = {3, -3, 0, 3, 0, 0, 3};
  for (int i = 0; i < 7; i++) assert_true(y[i] == two[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_formula),
                                     cmocka_unit_test(test_by_hand)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
