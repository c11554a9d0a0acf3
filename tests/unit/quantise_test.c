/* quantise_test.c - writers of quantised blocks: their error against what ggml reaches on real
 * weights, on drawn ones and at the edges; and that a block depends on its own values alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "tensor/dtype.h"

#define QUANTS "../shared/data/models/quants/"
enum { N = 2048 };

/* `normal`: most of the relative error on normal values; a plain min-max rounding has more. */
static const struct { const char *name, *file; double normal; } types[] = {
    {"Q8_0", "q8_0", 0.0060}, {"Q6_K", "q6_K", 0.0185}, {"Q5_1", "q5_1", 0.0360},
    {"Q5_0", "q5_0", 0.0440}, {"Q5_K", "q5_K", 0.0360}, {"Q4_1", "q4_1", 0.0780},
    {"Q4_0", "q4_0", 0.0850}, {"Q4_K", "q4_K", 0.0780}};
enum { N_TYPES = sizeof types / sizeof *types };

static const struct nm__dtype_info *type_at(int i) {
  return nm__dtype((uint32_t)nm__dtype_by_name(types[i].name));
}

/* What a reader finds after a writer. */
static void there_and_back(int i, const float *x, float *y) {
  static uint8_t q[4 * N];
  type_at(i)->from_f32(q, x, N);
  type_at(i)->to_f32(y, q, N);
}

static double relative_error(const float *y, const float *x, int n) {
  double e = 0, s = 0;
  for (int i = 0; i < n; i++) {
    e += ((double)y[i] - (double)x[i]) * ((double)y[i] - (double)x[i]);
    s += (double)x[i] * (double)x[i];
  }
  return s > 0 ? sqrt(e / s) : sqrt(e);
}

static double recorded_error(const char *file) {
  json_t *j = json_load_file(QUANTS "index.json", 0, NULL), *t;
  size_t i;
  double out = 0;
  json_array_foreach(json_object_get(j, "types"), i, t)
    if (!strcmp(json_string_value(json_object_get(t, "name")), file))
      out = json_real_value(json_object_get(t, "rel_rmse_first1024"));
  json_decref(j);
  return out;
}

/* On trained weights no type has more error than ggml's writer, give or take two percent. */
static void errors_recorded(void **state) {
  (void)state;
  static float x[N], y[N];
  FILE *f = fopen(QUANTS "input.f32", "rb");
  if (!f) {
    print_message("skipped: ../shared is not here\n");
    skip();
  }
  assert_int_equal(fread(x, 4, N, f), N);
  fclose(f);
  print_message("type   relative error   ggml's   ratio\n");
  for (int i = 0; i < N_TYPES; i++) {
    there_and_back(i, x, y);
    double e = relative_error(y, x, 1024), want = recorded_error(types[i].file);
    print_message("measured %-5s %.6f %.6f %.3f\n", types[i].name, e, want, e / want);
    assert_true(want > 0 && e <= 1.02 * want);
  }
}

static void normal(float *x, uint64_t seed, float scale) {
  struct nm__rng r = {seed, 1, 0};
  for (int i = 0; i < N; i++) {
    double s = -6;
    for (int k = 0; k < 12; k++) s += nm__rng_unit(&r);
    x[i] = scale * (float)s;
  }
}

/* The error does not depend on the size of the values, as long as a half can hold the scale. */
static void errors_of_normal_values(void **state) {
  (void)state;
  static float x[N], y[N];
  static const float scales[] = {1e-3f, 0.02f, 1, 300};
  for (int i = 0; i < N_TYPES; i++)
    for (int k = 0; k < 4; k++) {
      normal(x, 5, scales[k]);
      there_and_back(i, x, y);
      double e = relative_error(y, x, N);
      if (!(e <= types[i].normal && e > types[i].normal / 2))
        fail_msg("%s at %g: %g", types[i].name, (double)scales[k], e);
    }
}

/* Values a type can hold exactly stay: zeros, a constant, what was read from such blocks. */
static void exact_values_stay(void **state) {
  (void)state;
  static float x[N], y[N], z[N];
  for (int i = 0; i < N_TYPES; i++) {
    memset(x, 0, sizeof x);
    there_and_back(i, x, y);
    assert_memory_equal(x, y, sizeof x);
    for (int k = 0; k < N; k++) x[k] = 0.5f;
    there_and_back(i, x, y);
    assert_true(relative_error(y, x, N) < 1e-3);
    normal(x, 7, 1);
    there_and_back(i, x, y);
    there_and_back(i, y, z);
    double e = relative_error(z, y, N);
    if (!strcmp(types[i].name, "Q8_0")) assert_memory_equal(y, z, sizeof y);
    if (e > types[i].normal / 2) fail_msg("%s once more: %g", types[i].name, e);
  }
}

/* Each block by itself gives the bytes it has in a row. */
static void blocks_are_alone(void **state) {
  (void)state;
  static float x[N];
  static uint8_t whole[4 * N], one[1024];
  normal(x, 9, 0.1f);
  for (int i = 0; i < N_TYPES; i++) {
    const struct nm__dtype_info *d = type_at(i);
    d->from_f32(whole, x, N);
    for (int b = 0; b < N / d->block; b++) {
      d->from_f32(one, x + b * d->block, d->block);
      assert_memory_equal(one, whole + b * d->bytes, (size_t)d->bytes);
    }
  }
}

/* Nothing crashes or hangs at the edges; what is too small for a half becomes zero, or nearly. */
static void edges(void **state) {
  (void)state;
  static float x[N], y[N];
  static const float odd[] = {1e-45f,  1e-38f, 1e-20f, 3e-8f, 6e-5f,    65504,
                              1e30f, FLT_MAX, INFINITY, -INFINITY, NAN, -0.0f};
  for (int i = 0; i < N_TYPES; i++)
    for (size_t k = 0; k < sizeof odd / sizeof *odd; k++)
      for (int alone = 0; alone < 2; alone++) {
        for (int j = 0; j < N; j++)
          x[j] = alone ? (j % 97 ? 0 : odd[k]) : (float)(j % 7 - 3) * odd[k];
        there_and_back(i, x, y);
        if (fabsf(odd[k]) < 1e-4f)
          for (int j = 0; j < N; j++) assert_true(fabsf(y[j]) < 1e-3f);
      }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(errors_recorded), cmocka_unit_test(errors_of_normal_values),
      cmocka_unit_test(exact_values_stay), cmocka_unit_test(blocks_are_alone),
      cmocka_unit_test(edges)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
