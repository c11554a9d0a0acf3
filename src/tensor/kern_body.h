/* kern_body.h - every kernel, written once over the 16-lane vector `v16` that
 * the including file defines, together with KERN_SET, KERN_NAME, KERN_USABLE and
 * the register tile TILE_X x TILE_W of the products (kern_gemm.h). Compiled with
 * -ffp-contract=off, so that the only fused operations are the v_fma written here. */
#include "tensor/kern.h"

#include <string.h>

#include "tensor/iq_tables.h"
#include "tensor/quants.h"

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define INLINE __attribute__((always_inline)) static inline

/* ---- products -------------------------------------------------------- */

enum { BLOCK = 4096 };             /* bytes of a row that are taken together */

INLINE void f32_step(float *to, const float *x, int n) {
  v_store(to, n == 16 ? v_load(x) : v_load_n(x, n));
}
INLINE void bf16_step(uint16_t *to, const float *x, int n) {
  v_store_bf16(to, n >= 16 ? v_load(x) : v_load_n(x, n));
  v_store_bf16(to + 16, n == 32 ? v_load(x + 16) : v_load_n(x + 16, n > 16 ? n - 16 : 0));
}

#define NAME(f) f32_##f
#define ELEM float
#define STEP 16
#define PART part
#define LOAD_P p_load
#define DOT_P(acc, x, w) p_fma(x, w, acc)
#define SUM v_sum
#define CONVERT f32_step
#define SUM4 v_sum4
#include "tensor/kern_gemm.h"

/* The bf16 formula (kern.h). What is fused and rounded is the same in every set; subnormal
 * numbers count as zero in all of it, the tree included. */
#define NAME(f) bf16_##f
#define ELEM uint16_t
#define STEP 32
#define PART pair
#define LOAD_P pair_load
#define DOT_P pair_dot
#define SUM pair_sum
#define CONVERT bf16_step
#define SUM4 pair_sum4
#include "tensor/kern_gemm.h"

static void gemm_bf16(float *c, size_t ldc, const uint16_t *x, size_t ldx, int m,
                      const uint16_t *w, size_t ldw, int n, int k) {
  unsigned before = flush_begin();
  bf16_gemm(c, ldc, x, ldx, m, w, ldw, n, k);
  flush_end(before);
}

/* Twelve independent chains of register-only multiply-adds: the peak of the set. */
static float fma_peak(int64_t n) {
  part a[12], x = p_zero();
  UNROLL for (int i = 0; i < 12; i++) {
    a[i] = p_zero();
    __asm__ volatile("" : P_KEEP(a[i]));       /* twelve values the compiler cannot merge */
  }
  for (int64_t s = 0; s < n; s++) {
    UNROLL for (int i = 0; i < 12; i++) a[i] = p_fma(x, x, a[i]);
    __asm__ volatile("" : P_KEEP(x));
  }
  float sum = 0;
  UNROLL for (int i = 0; i < 12; i++) sum += p_first(a[i]);
  return sum;
}

/* ---- rows ------------------------------------------------------------ */

/* Runs `body` for every 16 elements; in the last, short piece LOAD and STORE are
 * masked. The tail takes the same polynomial as the rest. */
#define ROWS(n, ...)                                                                               \
  do {                                                                                             \
    int64_t i_ = 0;                                                                                \
    for (; i_ + 16 <= (n); i_ += 16) {                                                             \
      enum { FULL = 1 };                                                                           \
      const int64_t i = i_;                                                                        \
      const int left = 16;                                                                         \
      (void)left;                                                                                  \
      __VA_ARGS__                                                                                  \
    }                                                                                              \
    if (i_ < (n)) {                                                                                \
      enum { FULL = 0 };                                                                           \
      const int64_t i = i_;                                                                        \
      const int left = (int)((n)-i_);                                                              \
      __VA_ARGS__                                                                                  \
    }                                                                                              \
  } while (0)
#define LOAD(p) (FULL ? v_load((p) + i) : v_load_n((p) + i, left))
#define STORE(p, v)                                                                                \
  do {                                                                                             \
    if (FULL)                                                                                      \
      v_store((p) + i, (v));                                                                       \
    else                                                                                           \
      v_store_n((p) + i, (v), left);                                                               \
  } while (0)

static void add(float *y, const float *a, const float *b, int64_t n) {
  ROWS(n, STORE(y, v_add(LOAD(a), LOAD(b))););
}

static void axpy(float *y, float s, const float *v, int64_t n) {
  v16 vs = v_set(s);
  ROWS(n, STORE(y, v_fma(vs, LOAD(v), LOAD(y))););
}

static void mul(float *y, float s, const float *v, int64_t n) {
  v16 vs = v_set(s);
  ROWS(n, STORE(y, v_mul(vs, LOAD(v))););
}

static float dot(const float *a, const float *b, int64_t n) {
  v16 acc = v_set(0.0f);
  ROWS(n, acc = v_fma(LOAD(a), LOAD(b), acc););
  return v_sum(acc);
}

static void rmsnorm(float *y, const float *x, const float *w, int d, float eps) {
  float inv = 1.0f / __builtin_sqrtf(dot(x, x, d) / (float)d + eps);
  v16 vi = v_set(inv);
  ROWS(d, STORE(y, v_mul(v_mul(LOAD(x), vi), LOAD(w))););
}

static void layernorm(float *y, const float *x, const float *w, const float *b, int d, float eps) {
  v16 sum = v_set(0.0f), sq = v_set(0.0f);
  ROWS(d, sum = v_add(sum, LOAD(x)););
  v16 mean = v_set(v_sum(sum) / (float)d);
  int64_t whole = d & ~15;
  for (int64_t i = 0; i < whole; i += 16) {
    v16 c = v_sub(v_load(x + i), mean);
    sq = v_fma(c, c, sq);
  }
  if (whole < d) {                 /* the lanes past the end are zero, not -mean */
    float c[16] = {0}, m[16];
    v_store(m, mean);
    for (int64_t i = whole; i < d; i++) c[i - whole] = x[i] - m[0];
    sq = v_fma(v_load(c), v_load(c), sq);
  }
  v16 inv = v_set(1.0f / __builtin_sqrtf(v_sum(sq) / (float)d + eps));
  ROWS(d, STORE(y, v_fma(v_mul(v_sub(LOAD(x), mean), inv), LOAD(w), LOAD(b))););
}

/* exp by 2^k e^r, |r| <= ln2/2, Taylor to r^7: relative error below 1e-7. Below
 * -87 the result is 0, so nothing is ever subnormal. */
static inline v16 v_exp(v16 x) {
  v16 c = v_min(v_max(x, v_set(-87.0f)), v_set(88.0f));
  v16 k = v_round(v_mul(c, v_set(0x1.715476p0f)));
  v16 r = v_fma(k, v_set(-0x1.62e4p-1f), c);
  r = v_fma(k, v_set(-0x1.7f7d1cp-20f), r);
  v16 p = v_set(1.0f / 5040);
  p = v_fma(p, r, v_set(1.0f / 720));
  p = v_fma(p, r, v_set(1.0f / 120));
  p = v_fma(p, r, v_set(1.0f / 24));
  p = v_fma(p, r, v_set(1.0f / 6));
  p = v_fma(p, r, v_set(0.5f));
  p = v_fma(p, r, v_set(1.0f));
  p = v_fma(p, r, v_set(1.0f));
  return v_zero_below(x, -87.0f, v_mul(p, v_pow2(k)));
}

static void softmax_parts(float *p, const float *s, int n, float *top_out, float *sum_out) {
  float top = s[0];
  v16 vtop = v_set(top), sum = v_set(0.0f);
  for (int i = 0; i + 16 <= n; i += 16) vtop = v_max(v_load(s + i), vtop);
  top = v_top(vtop);
  for (int i = n & ~15; i < n; i++) top = s[i] > top ? s[i] : top;
  vtop = v_set(top);
  ROWS(n, {
    v16 e = v_exp(v_sub(LOAD(s), vtop));
    if (!FULL) {                   /* lanes past the end hold exp(-top): drop them */
      float t[16];
      v_store(t, e);
      e = v_load_n(t, left);
    }
    sum = v_add(sum, e);
    STORE(p, e);
  });
  *top_out = top;
  *sum_out = v_sum(sum);
  v16 inv = v_set(1.0f / *sum_out);
  ROWS(n, STORE(p, v_mul(LOAD(p), inv)););
}

static void softmax(float *s, int n) {
  float top, sum;
  softmax_parts(s, s, n, &top, &sum);
}

static inline v16 v_silu(v16 x) {
  v16 one = v_set(1.0f);
  return v_div(x, v_add(one, v_exp(v_sub(v_set(0.0f), x))));
}

/* 0.5 x (1 + tanh u) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3) */
static inline v16 v_gelu_tanh(v16 x) {
  v16 cube = v_mul(v_mul(x, x), x);
  v16 u2 = v_mul(v_set(-1.5957691216057308f), v_fma(v_set(0.044715f), cube, x));
  return v_div(x, v_add(v_set(1.0f), v_exp(u2)));
}

static inline v16 v_abs(v16 x) { return v_max(x, v_sub(v_set(0.0f), x)); }

/* erfc(t) for t >= 0: u exp(-t^2) P(u), u = 1 / (1 + 0.45 t). P is the interpolation of
 * erfc(t) exp(t^2) / u in the ten Chebyshev points of u for t = 0..9.3: relative error 2e-8. */
static inline v16 v_erfc(v16 t) {
  static const float c[] = {-0.0295494903f, 0.127584192f, -0.15576615f, -0.0448782046f,
                            0.127567431f,   0.0431545527f, 0.200341766f, 0.223244145f,
                            0.254442784f,   0.253858969f};
  v16 u = v_div(v_set(1.0f), v_fma(v_set(0.45f), t, v_set(1.0f))), p = v_set(c[0]);
  UNROLL for (int i = 1; i < 10; i++) p = v_fma(p, u, v_set(c[i]));
  return v_mul(v_mul(p, u), v_exp(v_sub(v_set(0.0f), v_mul(t, t))));
}

/* 0.5 x (1 + erf(x / sqrt 2)) = max(x, 0) - 0.5 |x| erfc(|x| / sqrt 2): nothing cancels. */
static inline v16 v_gelu_erf(v16 x) {
  v16 a = v_abs(x), half = v_mul(v_set(0.5f), a);
  return v_sub(v_max(x, v_set(0.0f)), v_mul(half, v_erfc(v_mul(a, v_set(0x1.6a09e6p-1f)))));
}

/* Below 0.625 an odd polynomial (x + x^3 P(x^2), P interpolated in Chebyshev points, 5e-9),
 * above it 1 - 2 / (1 + exp 2x). Each half is zero where the other holds. */
static inline v16 v_tanh(v16 x) {
  static const float c[] = {0.00229274494f, -0.00834394567f, 0.0217689187f,
                            -0.0539592596f, 0.133333036f,    -0.333333332f};
  v16 a = v_abs(x), z = v_mul(x, x), p = v_set(c[0]), one = v_set(1.0f);
  UNROLL for (int i = 1; i < 6; i++) p = v_fma(p, z, v_set(c[i]));
  v16 low = v_fma(v_mul(x, z), p, x);
  v16 high = v_sub(one, v_div(v_set(2.0f), v_add(one, v_exp(v_add(x, x)))));
  return v_add(v_zero_below(v_sub(v_set(0.0f), a), -0x1.3ffffep-1f, low),
               v_zero_below(a, 0.625f, high));
}

static void soft_cap(float *y, float cap, const float *v, int64_t n) {
  v16 vc = v_set(cap);
  ROWS(n, STORE(y, v_mul(v_tanh(v_div(LOAD(v), vc)), vc)););
}

static void act(float *y, const float *x, int64_t n, enum nm__act kind) {
  switch (kind) {
    case NM__ACT_SILU: ROWS(n, STORE(y, v_silu(LOAD(x)));); break;
    case NM__ACT_GELU_TANH: ROWS(n, STORE(y, v_gelu_tanh(LOAD(x)));); break;
    case NM__ACT_GELU_ERF: ROWS(n, STORE(y, v_gelu_erf(LOAD(x)));); break;
  }
}

static void act_mul(float *y, const float *g, const float *u, int64_t n, enum nm__act kind) {
  switch (kind) {
    case NM__ACT_SILU: ROWS(n, STORE(y, v_mul(v_silu(LOAD(g)), LOAD(u)));); break;
    case NM__ACT_GELU_TANH: ROWS(n, STORE(y, v_mul(v_gelu_tanh(LOAD(g)), LOAD(u)));); break;
    case NM__ACT_GELU_ERF: ROWS(n, STORE(y, v_mul(v_gelu_erf(LOAD(g)), LOAD(u)));); break;
  }
}

/* out[d] = fma chain over j on top of what out holds, so a sum can be continued. Each
 * output is one chain, so the result does not depend on how keys or
 * outputs are grouped. Four vectors at a time hide the latency of the chain. */
static void weighted_sum(float *out, const float *p, const float *v, size_t ldv, int n, int d) {
  int e = 0;
  for (; e + 64 <= d; e += 64) {
    v16 a0 = v_load(out + e), a1 = v_load(out + e + 16);
    v16 a2 = v_load(out + e + 32), a3 = v_load(out + e + 48);
    for (int j = 0; j < n; j++) {
      const float *row = v + (size_t)j * ldv + e;
      v16 pj = v_set(p[j]);
      a0 = v_fma(pj, v_load(row), a0);
      a1 = v_fma(pj, v_load(row + 16), a1);
      a2 = v_fma(pj, v_load(row + 32), a2);
      a3 = v_fma(pj, v_load(row + 48), a3);
    }
    v_store(out + e, a0);
    v_store(out + e + 16, a1);
    v_store(out + e + 32, a2);
    v_store(out + e + 48, a3);
  }
  for (; e < d; e += 16) {
    int left = d - e < 16 ? d - e : 16;
    v16 a = v_load_n(out + e, left);
    for (int j = 0; j < n; j++)
      a = v_fma(v_set(p[j]), v_load_n(v + (size_t)j * ldv + e, left), a);
    v_store_n(out + e, a, left);
  }
}

#include "tensor/kern_blocks.h"
#include "tensor/kern_grad.h"

static bool usable(void) { return KERN_USABLE; }

const struct nm__kern KERN_SET = {
    .name = KERN_NAME, .usable = usable, .lanes = (int)(sizeof(part) / 4), .strip = TILE_X,
    .gemm = f32_gemm, .pack = f32_pack, .gemm_bf16 = gemm_bf16, .pack_bf16 = bf16_pack,
    .fma_peak = fma_peak, .add = add, .axpy = axpy, .mul = mul,
    .soft_cap = soft_cap, .dot = dot, .rmsnorm = rmsnorm, .layernorm = layernorm,
    .softmax = softmax, .softmax_parts = softmax_parts, .act = act, .act_mul = act_mul,
    .weighted_sum = weighted_sum, .to_f32 = to_f32, .to_bf16 = to_bf16, .gemv = gemv,
    .act_back = act_back, .act_mul_back = act_mul_back,
    .soft_cap_back = soft_cap_back, .mul_add = mul_add, .rmsnorm_back = rmsnorm_back,
    .layernorm_back = layernorm_back, .norm_weight_back = norm_weight_back,
    .softmax_back = softmax_back, .adamw = adamw,
};
