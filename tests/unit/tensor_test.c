/* tensor_test.c - element types and kernels: blocks against recorded truth bit for bit,
 * every kernel set against the plain one byte for byte (odd sizes, tails, special values),
 * products against the f32 formula written out here, curves against double. ops_test.c
 * has the operations and the functions in double. */
#include "tensor/kern.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define QUANTS "../shared/data/models/quants/"

static const int sizes[] = {1, 2, 15, 16, 17, 31, 33, 100, 896};
enum { N_SIZES = sizeof sizes / sizeof *sizes, MAX = 896, GUARD = 20 };

/* ---- values ------------------------------------------------------------ */

static uint32_t bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

/* Ordinary values; with `special`, one in four is one that needs care. */
static void fill(float *x, size_t n, uint64_t seed, bool special) {
  static const float care[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 0x1p-149f, -0x1.8p-130f,
                               0x1.fffffep127f, -0x1.fffffep127f, 88.5f, -87.5f, 0x1p-126f};
  for (size_t i = 0; i < n; i++) {
    uint64_t r = nm__rand_at(seed, 1, i);
    x[i] = (float)((int)(r & 0xffff) - 32768) / 8192.0f;
    if (special && (r >> 20) % 4 == 0) x[i] = care[(r >> 32) % (sizeof care / sizeof *care)];
  }
}

/* Byte equality; only the payload and sign of a NaN are nobody's business. */
static void assert_same(const float *a, const float *b, size_t n, const char *set, const char *what,
                        int size) {
  for (size_t i = 0; i < n; i++)
    if (bits(a[i]) != bits(b[i]) && !(a[i] != a[i] && b[i] != b[i]))
      fail_msg("%s %s, size %d: [%zu] is %a, portable has %a", set, what, size, i, (double)a[i],
               (double)b[i]);
}

/* ---- one result of every kernel ------------------------------------------ */

/* Heap copies of the exact size, so that the sanitizer sees a step too far. */
struct in { float *a, *b, *c, *out; int n; };

static float *exact(size_t n, uint64_t seed, bool special) {
  float *x = malloc(n * sizeof *x);
  fill(x, n, seed, special);
  return x;
}

static struct in inputs(int n, bool special) {
  size_t z = (size_t)n;
  struct in v = {exact(z, 1, special), exact(z, 2, special), exact(z, 3, special),
                 calloc(z + GUARD, sizeof(float)), n};
  return v;
}

static void inputs_done(struct in *v) {
  free(v->a);
  free(v->b);
  free(v->c);
  free(v->out);
}

typedef void (*kernel_fn)(const struct nm__kern *k, struct in *v);
static void do_add(const struct nm__kern *k, struct in *v) { k->add(v->out, v->a, v->b, v->n); }
static void do_mul(const struct nm__kern *k, struct in *v) { k->mul(v->out, 1.7f, v->a, v->n); }
static void do_axpy(const struct nm__kern *k, struct in *v) {
  memcpy(v->out, v->b, (size_t)v->n * 4);
  k->axpy(v->out, -0.3f, v->a, v->n);
}
static void do_dot(const struct nm__kern *k, struct in *v) { v->out[0] = k->dot(v->a, v->b, v->n); }
static void do_rms(const struct nm__kern *k, struct in *v) {
  k->rmsnorm(v->out, v->a, v->b, v->n, 1e-5f);
}
static void do_layernorm(const struct nm__kern *k, struct in *v) {
  k->layernorm(v->out, v->a, v->b, v->c, v->n, 1e-5f);
}
static void do_softmax(const struct nm__kern *k, struct in *v) {
  memcpy(v->out, v->a, (size_t)v->n * 4);
  k->softmax(v->out, v->n);
}
static void do_silu(const struct nm__kern *k, struct in *v) {
  k->act(v->out, v->a, v->n, NM__ACT_SILU);
}
static void do_gelu(const struct nm__kern *k, struct in *v) {
  k->act(v->out, v->a, v->n, NM__ACT_GELU_TANH);
}
static void do_silu_mul(const struct nm__kern *k, struct in *v) {
  k->act_mul(v->out, v->a, v->b, v->n, NM__ACT_SILU);
}
static void do_gelu_mul(const struct nm__kern *k, struct in *v) {
  k->act_mul(v->out, v->a, v->b, v->n, NM__ACT_GELU_TANH);
}

static void do_gelu_erf(const struct nm__kern *k, struct in *v) {
  k->act(v->out, v->a, v->n, NM__ACT_GELU_ERF);
}
static void do_gelu_erf_mul(const struct nm__kern *k, struct in *v) {
  k->act_mul(v->out, v->a, v->b, v->n, NM__ACT_GELU_ERF);
}
static void do_soft_cap(const struct nm__kern *k, struct in *v) {
  k->soft_cap(v->out, 0.5f, v->a, v->n);
}

static const struct { const char *name; kernel_fn fn; } kernels[] = {
    {"add", do_add}, {"mul", do_mul}, {"axpy", do_axpy}, {"dot", do_dot}, {"rmsnorm", do_rms},
    {"layernorm", do_layernorm}, {"softmax", do_softmax}, {"silu", do_silu}, {"gelu", do_gelu},
    {"silu_mul", do_silu_mul}, {"gelu_mul", do_gelu_mul}, {"gelu_erf", do_gelu_erf},
    {"gelu_erf_mul", do_gelu_erf_mul}, {"soft_cap", do_soft_cap},
};

static void compare_kernel(const struct nm__kern *k, size_t which, int n, bool special) {
  struct in want = inputs(n, special), got = inputs(n, special);
  kernels[which].fn(&nm__kern_portable, &want);
  kernels[which].fn(k, &got);
  assert_same(got.out, want.out, (size_t)n, k->name, kernels[which].name, n);
  for (int i = n; i < n + GUARD; i++)
    if (bits(got.out[i]))
      fail_msg("%s %s, size %d: wrote past the end", k->name, kernels[which].name, n);
  inputs_done(&want);
  inputs_done(&got);
}

static void sets_agree(void **state) {
  (void)state;
  int n_sets = 0;
  for (int i = 0; nm__kern_at(i); i++) {
    const struct nm__kern *k = nm__kern_at(i);
    if (!k->usable()) {
      print_message("skipped: %s cannot run here\n", k->name);
      continue;
    }
    n_sets++;
    for (size_t w = 0; w < sizeof kernels / sizeof *kernels; w++)
      for (int s = 0; s < N_SIZES; s++)
        for (int special = 0; special < 2; special++) compare_kernel(k, w, sizes[s], special);
  }
  assert_true(n_sets >= 1);
}

static void finds_sets(void **state) {
  (void)state;
  assert_ptr_equal(nm__kern_find("portable"), &nm__kern_portable);
  assert_null(nm__kern_find("mmx"));
  assert_null(nm__kern_find(""));
  const struct nm__kern *best = nm__kern_find(NULL);
  assert_true(best && best->usable());
  for (int i = 0; nm__kern_at(i); i++)
    assert_true(!nm__kern_at(i)->usable() || nm__kern_find(nm__kern_at(i)->name) == nm__kern_at(i));
  assert_true(nm__kern_portable.fma_peak(10) == 0.0f);
}

/* ---- products -------------------------------------------------------------- */

/* The formula of docs/numerics.md. */
static float formula(const float *x, const float *w, int k) {
  float a[16] = {0};
  for (int s = 0; s < (k + 15) / 16 * 16; s++)
    a[s % 16] = fmaf(s < k ? x[s] : 0.0f, s < k ? w[s] : 0.0f, a[s % 16]);
  for (int h = 8; h; h /= 2)
    for (int l = 0; l < h; l++) a[l] += a[l + h];
  return a[0];
}

static void one_product(const struct nm__kern *k, int m, int n, int len, bool special) {
  size_t ldx = (size_t)len + 3, ldw = (size_t)len + 1, ldc = (size_t)n + 2;
  float *x = exact((size_t)(m - 1) * ldx + (size_t)len, 5, special);
  float *w = exact((size_t)(n - 1) * ldw + (size_t)len, 6, special);
  float *c = calloc((size_t)m * ldc, sizeof *c);
  k->gemm(c, ldc, x, ldx, m, w, ldw, n, len);
  for (int i = 0; i < m; i++)
    for (int j = 0; j < n; j++) {
      float want = formula(x + (size_t)i * ldx, w + (size_t)j * ldw, len);
      float alone = k->dot(x + (size_t)i * ldx, w + (size_t)j * ldw, len);
      assert_same(&c[(size_t)i * ldc + (size_t)j], &want, 1, k->name, "gemm", len);
      assert_same(&alone, &want, 1, k->name, "dot", len);
    }
  float *packed = calloc((size_t)m * nm__packed(len), sizeof *packed);
  float *again = calloc((size_t)m * ldc, sizeof *again);
  k->pack(packed, x, ldx, m, len);
  k->gemm(again, ldc, packed, 0, m, w, ldw, n, len);
  assert_same(again, c, (size_t)m * ldc, k->name, "gemm of packed rows", len);
  free(packed);
  free(again);
  for (size_t i = 0; i < (size_t)m * ldc; i++)
    if (i % ldc >= (size_t)n) assert_true(bits(c[i]) == 0);
  free(x);
  free(w);
  free(c);
}

static void all_products(void (*one)(const struct nm__kern *, int, int, int, bool)) {
  static const int rows[] = {1, 2, 3, 4, 5, 6, 7, 13}, cols[] = {1, 2, 3, 4, 5, 9};
  for (int i = 0; nm__kern_at(i); i++) {
    if (!nm__kern_at(i)->usable()) continue;
    for (int s = 0; s < N_SIZES; s++)
      for (size_t m = 0; m < sizeof rows / sizeof *rows; m++)
        for (size_t n = 0; n < sizeof cols / sizeof *cols; n++)
          if (sizes[s] < 896 || (m % 3 == 0 && n % 2))
            for (int special = 0; special < 2; special++)
              one(nm__kern_at(i), rows[m], cols[n], sizes[s], special);
    for (int k = 2047; k < 2080; k += 16) one(nm__kern_at(i), 8, 38, k, false);  /* two blocks */
    one(nm__kern_at(i), 7, 35, 4500, true);
  }
}

static void products_are_the_formula(void **state) {
  (void)state;
  all_products(one_product);
}

static float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }

/* The bf16 formula, from the rounded values. */
static float formula_bf16(const uint16_t *x, const uint16_t *w, int k) {
  float a[16] = {0};
  for (int s = 0; s < (k + 31) / 32 * 32; s += 2)
    for (int odd = 1; odd >= 0; odd--) {
      float u = s + odd < k ? flushed(nm__bf16_to_f32(x[s + odd])) : 0.0f;
      float v = s + odd < k ? flushed(nm__bf16_to_f32(w[s + odd])) : 0.0f;
      a[s / 2 % 16] = flushed(fmaf(u, v, a[s / 2 % 16]));
    }
  for (int h = 8; h; h /= 2)
    for (int l = 0; l < h; l++) a[l] = flushed(a[l] + a[l + h]);
  return a[0];
}

static void one_bf16_product(const struct nm__kern *k, int m, int n, int len, bool special) {
  size_t ld = (size_t)len + 1, ldc = (size_t)n + 2, M = (size_t)m, N = (size_t)n;
  float *x = exact(M * ld, 5, special), *w = exact(N * ld, 6, special);
  if (!special)                    /* the neighbourhood of what is flushed */
    for (size_t i = 0; i < M * ld; i++) x[i] *= i / ld % 3 ? 1.0f : 0x1p-127f;
  uint16_t *xs = malloc(2 * M * ld), *ws = malloc(2 * N * ld);
  uint16_t *packed = calloc(M * nm__packed(len), 2);
  for (size_t i = 0; i < M * ld; i++) xs[i] = nm__f32_to_bf16(x[i]);
  for (size_t i = 0; i < N * ld; i++) ws[i] = nm__f32_to_bf16(w[i]);
  float *c = calloc(M * ldc, sizeof *c), *again = calloc(M * ldc, sizeof *c);
  k->gemm_bf16(c, ldc, xs, ld, m, ws, ld, n, len);
  for (int i = 0; i < m; i++)
    for (int j = 0; j < n; j++) {
      float want = formula_bf16(xs + (size_t)i * ld, ws + (size_t)j * ld, len);
      assert_same(&c[(size_t)i * ldc + (size_t)j], &want, 1, k->name, "gemm_bf16", len);
    }
  k->pack_bf16(packed, x, ld, m, len);
  k->gemm_bf16(again, ldc, packed, 0, m, ws, ld, n, len);
  assert_same(again, c, M * ldc, k->name, "gemm_bf16 of packed rows", len);
  volatile float tiny = 0x1p-130f;
  assert_true(tiny * 0.5f > 0);    /* flushing has ended */
  free(x), free(w), free(xs), free(ws), free(packed), free(c), free(again);
}

static void bf16_products_are_the_formula(void **state) {
  (void)state;
  all_products(one_bf16_product);
}

/* Each output is one ascending chain, continued over what it held. */
static void weighted_sum_is_a_chain(void **state) {
  (void)state;
  for (int i = 0; nm__kern_at(i); i++)
    for (int s = 0; s < N_SIZES && nm__kern_at(i)->usable(); s++)
      for (int n = 0; n < 7; n += 3) {
        int d = sizes[s], ld = d + 5;
        float *p = exact((size_t)n + 1, 7, false), *v = exact((size_t)n * (size_t)ld + 1, 8, s % 2);
        float *out = exact((size_t)d, 9, false), *want = exact((size_t)d, 9, false);
        nm__kern_at(i)->weighted_sum(out, p, v, (size_t)ld, n, d);
        for (int e = 0; e < d; e++)
          for (int j = 0; j < n; j++)
            want[e] = fmaf(p[j], v[(size_t)j * (size_t)ld + (size_t)e], want[e]);
        assert_same(out, want, (size_t)d, nm__kern_at(i)->name, "weighted_sum", d);
        free(p);
        free(v);
        free(out);
        free(want);
      }
}

/* ---- curves against double --------------------------------------------------- */

static double silu(double x) { return x / (1 + exp(-x)); }
static double gelu(double x) {
  return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

static void curves(void **state) {
  (void)state;
  enum { N = 4001 };
  static float x[N], y[N];
  double worst[2] = {0};
  for (int i = 0; i < N; i++) x[i] = (float)(i - 2000) / 100.0f;
  for (int kind = 0; kind < 2; kind++) {
    nm__kern_find(NULL)->act(y, x, N, kind ? NM__ACT_GELU_TANH : NM__ACT_SILU);
    for (int i = 0; i < N; i++) {
      double want = kind ? gelu((double)x[i]) : silu((double)x[i]), e = fabs((double)y[i] - want);
      if (e > worst[kind] * (fabs(want) + 1e-3)) worst[kind] = e / (fabs(want) + 1e-3);
    }
  }
  print_message("silu %.2g, gelu %.2g (relative, floor 1e-3)\n", worst[0], worst[1]);
  assert_true(worst[0] < 3e-7 && worst[1] < 1e-6);
}

/* The largest error of tanh (relative) and of erf through its gelu (absolute over |x|). */
static void more_curves(void **state) {
  (void)state;
  enum { N = 40001 };
  static float x[N], y[N], z[N];
  double cap = 0, erf_worst = 0;
  for (int i = 0; i < N; i++) x[i] = (float)(i - N / 2) / 2500.0f;
  nm__kern_find(NULL)->soft_cap(y, 1, x, N);
  nm__kern_find(NULL)->act(z, x, N, NM__ACT_GELU_ERF);
  for (int i = 0; i < N; i++) {
    double a = (double)x[i], t = tanh(a), g = 0.5 * a * erfc(-a / sqrt(2.0));
    double et = fabs((double)y[i] - t) / (fabs(t) + 1e-30), eg = fabs((double)z[i] - g);
    if (et > cap) cap = et;
    if (eg > erf_worst * (fabs(a) + 1e-6)) erf_worst = eg / (fabs(a) + 1e-6);
  }
  print_message("tanh %.2g relative, gelu by erf %.2g of |x|\n", cap, erf_worst);
  assert_true(cap < 3e-7 && erf_worst < 1.5e-7);
  float edge[4] = {INFINITY, -INFINITY, 0, NAN}, out[4];
  nm__kern_find(NULL)->soft_cap(out, 3, edge, 4);
  assert_true(out[0] == 3 && out[1] == -3 && out[2] == 0 && out[3] != out[3]);
}

static void softmax_against_double(void **state) {
  (void)state;
  double worst = 0;
  for (int s = 0; s < N_SIZES; s++) {
    int n = sizes[s];
    float x[MAX];
    double sum = 0, total = 0;
    fill(x, (size_t)n, 11, false);
    for (int i = 0; i < n; i++) x[i] *= 5;
    double want[MAX];
    for (int i = 0; i < n; i++) sum += want[i] = exp((double)x[i]);
    nm__kern_find(NULL)->softmax(x, n);
    for (int i = 0; i < n; i++) {
      double e = fabs((double)x[i] - want[i] / sum) / (want[i] / sum + 1e-12);
      worst = e > worst ? e : worst;
      total += (double)x[i];
    }
    assert_true(fabs(total - 1) < 1e-6);
  }
  float low[3] = {0, -86.9f, -1000}, gone[2] = {-INFINITY, 3};
  nm__kern_find(NULL)->softmax(low, 3);
  nm__kern_find(NULL)->softmax(gone, 2);
  assert_true(low[0] == 1 && low[1] > 0 && low[2] == 0 && gone[0] == 0 && gone[1] == 1);
  print_message("softmax %.2g relative\n", worst);
  assert_true(worst < 1e-6);
}

/* ---- stored types -------------------------------------------------------------- */

static float *slurp(const char *name, const char *tail, size_t *n) {
  char path[160];
  snprintf(path, sizeof path, QUANTS "%s.%s", name, tail);
  struct nm__map m;
  if (nm__map_open(path, &m, NULL)) return NULL;
  float *copy = malloc(m.size);
  memcpy(copy, m.data, m.size);
  *n = m.size;
  nm__map_close(&m);
  return copy;
}

static bool block_file(const char *name, uint32_t type) {
  size_t n_q, n_f;
  float *q = slurp(name, "q", &n_q), *want = slurp(name, "f32", &n_f);
  if (!q || !want) return free(q), free(want), false;
  const struct nm__dtype_info *d = nm__dtype(type);
  size_t n = n_f / 4;
  assert_int_equal(n / (size_t)d->block * (size_t)d->bytes, n_q);
  float *got = malloc(n_f);
  d->to_f32(got, q, (int64_t)n);
  for (size_t i = 0; i < n; i++)
    if (bits(got[i]) != bits(want[i]))
      fail_msg("%s [%zu] is %a, recorded %a", name, i, (double)got[i], (double)want[i]);
  for (int i = 0; nm__kern_at(i); i++) {
    if (!nm__kern_at(i)->usable()) continue;
    memset(got, 0x55, n_f);
    nm__kern_at(i)->to_f32(got, q, (int64_t)n, type);
    assert_memory_equal(got, want, n_f);
  }
  free(q);
  free(want);
  free(got);
  return true;
}

/* Table name and file name; the first N_WRITTEN can be written, too. */
static const char *const types[][2] = {
    {"F16", "f16"}, {"BF16", "bf16"}, {"Q8_0", "q8_0"}, {"Q4_0", "q4_0"}, {"Q5_0", "q5_0"},
    {"Q4_1", "q4_1"}, {"Q5_1", "q5_1"}, {"IQ4_NL", "iq4_nl"}, {"MXFP4", "mxfp4"},
    {"NVFP4", "nvfp4"}, {"Q1_0", "q1_0"}, {"Q2_0", "q2_0"}, {"Q2_K", "q2_K"}, {"Q3_K", "q3_K"},
    {"Q4_K", "q4_K"}, {"Q5_K", "q5_K"}, {"Q6_K", "q6_K"}, {"TQ1_0", "tq1_0"}, {"TQ2_0", "tq2_0"},
    {"IQ2_XXS", "iq2_xxs"}, {"IQ2_XS", "iq2_xs"}, {"IQ2_S", "iq2_s"}, {"IQ3_XXS", "iq3_xxs"},
    {"IQ3_S", "iq3_s"}, {"IQ1_S", "iq1_s"}, {"IQ1_M", "iq1_m"}, {"IQ4_XS", "iq4_xs"}};
enum { N_TYPES = sizeof types / sizeof *types, N_FORMULA = 3 };

/* What a refusal lists is what has a dequantiser, and every one of these is in `types`. */
static void types_are_listed(void **state) {
  (void)state;
  struct nm__buf b;
  int n = 0;
  nm__buf_init(&b, 1000);
  nm__dtype_names(&b);
  for (const char *at = b.s; at; at = strchr(at, ','), at = at ? at + 2 : NULL) {
    char name[16] = {0};
    memcpy(name, at, strcspn(at, ","));
    int type = nm__dtype_by_name(name), in_types = !strcmp(name, "F32");
    assert_true(type >= 0 && nm__dtype((uint32_t)type)->to_f32);
    for (int i = 0; i < N_TYPES; i++) in_types += !strcmp(name, types[i][0]);
    assert_int_equal(in_types, 1);
    n++;
  }
  assert_int_equal(n, N_TYPES + 1);
  nm__buf_done(&b);
}

static void blocks_recorded(void **state) {
  (void)state;
  if (!nm__exists("../shared/data")) {
    print_message("skipped: ../shared is not here\n");
    skip();
  }
  for (int i = 0; i < N_TYPES; i++) {
    int type = nm__dtype_by_name(types[i][0]);
    char rand_name[32];
    snprintf(rand_name, sizeof rand_name, "%s.rand", types[i][1]);
    if (type < 0 || !block_file(types[i][1], (uint32_t)type)) fail_msg("%s", types[i][0]);
    assert_true(block_file(rand_name, (uint32_t)type) == (i > 1));   /* plain types have none */
  }
}

/* Where the format leaves no choice, the writer's bytes are the recorded ones. (The others search:
 * quantise_test.c.) */
static void blocks_written(void **state) {
  (void)state;
  size_t n_x, n_q;
  float *x = slurp("input", "f32", &n_x);
  for (int i = 0; x && i < N_FORMULA; i++) {
    float *want = slurp(types[i][1], "q", &n_q);
    uint8_t *got = malloc(n_q);
    nm__dtype((uint32_t)nm__dtype_by_name(types[i][0]))->from_f32(got, x, (int64_t)n_x / 4);
    assert_memory_equal(got, want, n_q);
    free(want);
    free(got);
  }
  if (!x) skip();
  free(x);
}

/* Every half and bfloat: fast sets as the plain one; narrowing undoes widening. */
static void every_half(void **state) {
  (void)state;
  static uint16_t h[65536];
  static float plain[65536], fast[65536];
  for (int i = 0; i < 65536; i++) h[i] = (uint16_t)i;
  for (int t = 0; t < 2; t++) {
    uint32_t type = t ? NM__BF16 : NM__F16;
    nm__dtype(type)->to_f32(plain, h, 65536);
    for (int i = 0; nm__kern_at(i); i++) {
      if (!nm__kern_at(i)->usable()) continue;
      nm__kern_at(i)->to_f32(fast, h, 65536, type);
      assert_same(fast, plain, 65536, nm__kern_at(i)->name, nm__dtype(type)->name, 65536);
    }
    for (int i = 0; i < 65536; i++) {
      uint16_t back = t ? nm__f32_to_bf16(plain[i]) : nm__f32_to_half(plain[i]);
      assert_true(plain[i] != plain[i] ? nm__half_to_f32(back) != nm__half_to_f32(back) || t
                                       : back == i);
    }
  }
  assert_int_equal(nm__f32_to_half(65519.0f), 0x7bff);
  assert_int_equal(nm__f32_to_half(65520.0f), 0x7c00);
  assert_int_equal(nm__f32_to_half(0x1p-25f), 0);                 /* tie to even */
  assert_int_equal(nm__f32_to_half(0x1.000002p-25f), 1);
}

/* Rows of random bytes, so of all scales and quants, some of them no numbers. */
static void one_stored_row(const struct nm__kern *k, uint32_t type, int n) {
  const struct nm__dtype_info *t = nm__dtype(type);
  size_t bytes = (size_t)(n / t->block * t->bytes), N = (size_t)n;
  uint8_t *w = malloc(3 * bytes);
  float *x = exact(N, 11, false), *plain = malloc(3 * N * sizeof *x), *fast = malloc(N * sizeof *x);
  uint16_t *half = malloc(2 * N);
  float y[3];
  for (size_t i = 0; i < 3 * bytes; i++) w[i] = (uint8_t)nm__rand_at(12, type, i);
  t->to_f32(plain, w, 3 * n);
  k->gemv(y, x, w, bytes, 3, n, type);
  for (int j = 0; j < 3; j++) {
    const float *row = plain + j * n;
    float want = formula(x, row, n);
    assert_same(&y[j], &want, 1, k->name, t->name, n);
    k->to_f32(fast, w + (size_t)j * bytes, n, type);
    assert_same(fast, row, N, k->name, t->name, n);
    k->to_bf16(half, w + (size_t)j * bytes, n, type);
    for (int i = 0; i < n; i++) {
      fast[i] = nm__bf16_to_f32(half[i]);
      plain[j * n + i] = nm__bf16_to_f32(nm__f32_to_bf16(row[i]));
    }
    assert_same(fast, row, N, k->name, t->name, n);
  }
  free(w), free(x), free(plain), free(fast), free(half);
}

static void stored_rows(void **state) {
  (void)state;
  int n_types = 0;
  for (int i = 0; nm__kern_at(i); i++)
    for (uint32_t type = 0; type < NM__DTYPE_END && nm__kern_at(i)->usable(); type++) {
      const struct nm__dtype_info *t = nm__dtype(type);
      if (!t || !t->to_f32) continue;
      n_types += i == 0;
      for (int n = t->block; n <= 2000; n = n * 2 + t->block)
        one_stored_row(nm__kern_at(i), type, n);
    }
  assert_true(n_types > 20);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(finds_sets), cmocka_unit_test(sets_agree),
    cmocka_unit_test(products_are_the_formula), cmocka_unit_test(bf16_products_are_the_formula),
    cmocka_unit_test(weighted_sum_is_a_chain),
    cmocka_unit_test(curves), cmocka_unit_test(more_curves),
    cmocka_unit_test(softmax_against_double), cmocka_unit_test(types_are_listed),
    cmocka_unit_test(blocks_recorded), cmocka_unit_test(blocks_written),
    cmocka_unit_test(every_half), cmocka_unit_test(stored_rows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
