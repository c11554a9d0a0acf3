/* chain_test.c - products whose sum runs over rows: every kernel set gives the chains that plain C
 * writes out, in f32 and by the bf16 formula, for any shape of the block. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"
#include "tensor/kern.h"

static float *random_floats(size_t n, uint64_t stream) {
  float *v = malloc((n + 1) * sizeof *v);
  for (size_t i = 0; i < n; i++)
    v[i] = (float)((double)(nm__rand_at(3, stream, i) >> 11) * 0x1p-52 - 1);
  return v;
}

static void assert_same(const float *a, const float *b, size_t n, const char *what,
                        const struct nm__kern *k) {
  if (memcmp(a, b, n * sizeof *a)) fail_msg("%s differs in the set %s", what, k->name);
}

/* Both orders in which a may lie; c is wider than what is written, and its edge must stay. */
static void one_chain(const struct nm__kern *k, int m, int n, int len, bool turned, bool go_on) {
  size_t ai = turned ? 1 : (size_t)len + 3, as = turned ? (size_t)m + 2 : 1, ldb = (size_t)n + 1;
  size_t ldc = (size_t)n + 2, size = (size_t)m * ldc, na = (size_t)(m + 3) * (size_t)(len + 3);
  float *a = random_floats(na, 1), *b = random_floats((size_t)len * ldb, 2);
  float *c = random_floats(size, 3), *want = random_floats(size, 3);
  for (int i = 0; i < m; i++)
    for (int j = 0; j < n; j++) {
      float *to = &want[(size_t)i * ldc + (size_t)j], sum = go_on ? *to : 0.0f;
      for (int s = 0; s < len; s++)
        sum = fmaf(a[(size_t)i * ai + (size_t)s * as], b[(size_t)s * ldb + (size_t)j], sum);
      *to = go_on ? sum : *to + sum;
    }
  k->chain(c, ldc, a, ai, as, m, b, ldb, n, len, go_on);
  assert_same(c, want, size, "chain", k);
  free(a), free(b), free(c), free(want);
}

static float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }

static float step(uint32_t x, uint32_t w, float sum) {
  for (int half = 16; half >= 0; half -= 16)           /* the later of a pair first */
    sum = flushed(fmaf(flushed(nm__bf16_to_f32((uint16_t)(x >> half))),
                       flushed(nm__bf16_to_f32((uint16_t)(w >> half))), sum));
  return sum;
}

static void one_pair_chain(const struct nm__kern *k, int m, int n, int pairs) {
  size_t M = (size_t)m, N = (size_t)n, P = (size_t)pairs, ldc = N + 2;
  float *x = random_floats(2 * P * M, 4), *w = random_floats(2 * P * N, 5);
  float *c = random_floats(M * ldc, 6), *want = random_floats(M * ldc, 6);
  uint32_t *a = malloc(4 * P * M), *b = malloc(4 * P * N);
  for (size_t p = 0; p < P; p++) {
    k->pair_rows(a + p * M, x + 2 * p * M, p + 1 == P ? NULL : x + (2 * p + 1) * M, m);
    k->pair_rows(b + p * N, w + 2 * p * N, w + (2 * p + 1) * N, n);
    for (size_t i = 0; i < N; i++) {
      uint32_t both = nm__f32_to_bf16(w[2 * p * N + i]) |
                      (uint32_t)nm__f32_to_bf16(w[(2 * p + 1) * N + i]) << 16;
      assert_true(b[p * N + i] == both);
    }
  }
  for (size_t i = 0; i < M; i++)
    for (size_t j = 0; j < N; j++) {
      float sum = 0;
      for (size_t p = 0; p < P; p++) sum = step(a[p * M + i], b[p * N + j], sum);
      want[i * ldc + j] += sum;
    }
  k->chain_bf16(c, ldc, a, 1, M, m, b, N, n, pairs);
  assert_same(c, want, M * ldc, "chain_bf16", k);
  free(x), free(w), free(c), free(want), free(a), free(b);
}

static void chains(void **state) {
  static const int cols[] = {1, 15, 16, 31, 32, 48, 64, 70, 129}, lens[] = {1, 2, 31, 33, 128};
  (void)state;
  for (int i = 0; nm__kern_at(i); i++)
    for (int m = 1; m < 14 && nm__kern_at(i)->usable(); m += m > 6 ? 3 : 1)
      for (size_t n = 0; n < sizeof cols / sizeof *cols; n++)
        for (size_t s = 0; s < sizeof lens / sizeof *lens; s++) {
          for (int kind = 0; kind < 4; kind++)
            one_chain(nm__kern_at(i), m, cols[n], lens[s], kind & 1, kind & 2);
          one_pair_chain(nm__kern_at(i), m, cols[n], lens[s]);
        }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(chains)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
