/* kern_body.h - every kernel, written once over the 16-lane vector `v16` that
 * the including file defines, together with KERN_SET, KERN_NAME, KERN_USABLE and
 * the register tile TILE_X x TILE_W. Compiled with -ffp-contract=off, so that the
 * only fused operations are the v_fma written here.
 *
 * The register tile of the product (AVX-512: 6 x 4, 24 of 32 registers):
 *
 *              w[j] w[j+1] w[j+2] w[j+3]     each [] is one v16 of 16 partial sums,
 *        x[i]   []    []     []     []       kept over the whole row length k and
 *        ...                                 folded by the fixed tree at the end
 *      x[i+5]   []    []     []     []
 */
#include "tensor/kern.h"

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* ---- products -------------------------------------------------------- */

/* One step of 16 elements is taken in PARTS pieces (AVX2: two halves), so that one
 * piece of every row of w and the sums fit the registers together. */
__attribute__((always_inline)) static inline void tile(float *c, size_t ldc, const float *x,
                                                       size_t ldx, const float *w, size_t ldw,
                                                       int k, const int nx, const int nw) {
  part acc[TILE_X][TILE_W][PARTS];
  UNROLL for (int i = 0; i < nx; i++) UNROLL for (int j = 0; j < nw; j++)
    UNROLL for (int p = 0; p < PARTS; p++) acc[i][j][p] = p_zero();
  int s = 0;
  for (; s + 16 <= k; s += 16) {
    UNROLL for (int p = 0; p < PARTS; p++) {
      part b[TILE_W];
      UNROLL for (int j = 0; j < nw; j++) b[j] = p_load(w + (size_t)j * ldw + s, p);
      UNROLL for (int i = 0; i < nx; i++) {
        part a = p_load(x + (size_t)i * ldx + s, p);
        __asm__("" : P_KEEP(a));   /* or gcc loads it again for each product */
        UNROLL for (int j = 0; j < nw; j++) acc[i][j][p] = p_fma(a, b[j], acc[i][j][p]);
      }
    }
  }
  UNROLL for (int i = 0; i < nx; i++) UNROLL for (int j = 0; j < nw; j++) {
    v16 a = p_join(acc[i][j]);
    if (s < k) a = v_fma(v_load_n(x + (size_t)i * ldx + s, k - s),
                         v_load_n(w + (size_t)j * ldw + s, k - s), a);
    c[(size_t)i * ldc + (size_t)j] = v_sum(a);
  }
}

/* TILE_X rows of x against n rows of w: the x rows stay in the first-level cache
 * while the rows of w stream past. */
#define STRIP(NX) \
  static void strip_##NX(float *c, size_t ldc, const float *x, size_t ldx, const float *w, \
                         size_t ldw, int n, int k) { \
    int j = 0; \
    for (; j + TILE_W <= n; j += TILE_W) \
      tile(c + j, ldc, x, ldx, w + (size_t)j * ldw, ldw, k, NX, TILE_W); \
    for (; j < n; j++) tile(c + j, ldc, x, ldx, w + (size_t)j * ldw, ldw, k, NX, 1); \
  }
/* A single row of x is bound by reading w: one row after the other is one
 * sequential stream, the fastest way to read memory that was measured. */
static void strip_1(float *c, size_t ldc, const float *x, size_t ldx, const float *w, size_t ldw,
                    int n, int k) {
  for (int j = 0; j < n; j++) tile(c + j, ldc, x, ldx, w + (size_t)j * ldw, ldw, k, 1, 1);
}
STRIP(2)
#if TILE_X >= 3
STRIP(3)
#endif
#if TILE_X >= 6
STRIP(4)
STRIP(5)
STRIP(6)
#endif

static void gemm(float *c, size_t ldc, const float *x, size_t ldx, int m, const float *w,
                 size_t ldw, int n, int k) {
  static void (*const strip[])(float *, size_t, const float *, size_t, const float *, size_t, int,
                               int) = {
      NULL, strip_1, strip_2,
#if TILE_X >= 3
      strip_3,
#endif
#if TILE_X >= 6
      strip_4, strip_5, strip_6,
#endif
  };
  for (int i = 0; i < m;) {
    int rows = m - i < TILE_X ? m - i : TILE_X;
    strip[rows](c + (size_t)i * ldc, ldc, x + (size_t)i * ldx, ldx, w, ldw, n, k);
    i += rows;
  }
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

/* ---- dequantising ---------------------------------------------------- */

static inline void block_out(float *o, const int8_t q[32], float d) {
  v16 vd = v_set(d);
  v_store(o, v_mul(v_from_i8(q), vd));
  v_store(o + 16, v_mul(v_from_i8(q + 16), vd));
}

/* A block's scale. The sets that have the instruction use it: a call would cost as much as the
 * block itself. */
static inline float scale_at(const uint8_t *b) {
  uint16_t h = (uint16_t)(b[0] | b[1] << 8);
#ifdef V_NO_HALF
  return nm__half_to_f32(h);
#else
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
#endif
}

static void q8_0_out(float *o, const uint8_t *b, int64_t n) {
  for (; n > 0; n -= 32, b += 34, o += 32) block_out(o, (const int8_t *)b + 2, scale_at(b));
}

static void q4_0_out(float *o, const uint8_t *b, int64_t n) {
  for (; n > 0; n -= 32, b += 18, o += 32) {
    int8_t q[32];
    for (int i = 0; i < 16; i++) {
      q[i] = (int8_t)((b[2 + i] & 15) - 8);
      q[i + 16] = (int8_t)((b[2 + i] >> 4) - 8);
    }
    block_out(o, q, scale_at(b));
  }
}

/* The fifth bits lie in four bytes, bit i for element i: spread byte i/8 over its
 * eight elements and test each with its own mask. */
static void q5_0_out(float *o, const uint8_t *b, int64_t n) {
  static const uint8_t bit[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  for (; n > 0; n -= 32, b += 22, o += 32) {
    int8_t q[32];
    for (int i = 0; i < 16; i++) {
      q[i] = (int8_t)(((b[6 + i] & 15) | (b[2 + i / 8] & bit[i % 8] ? 16 : 0)) - 16);
      q[i + 16] = (int8_t)(((b[6 + i] >> 4) | (b[4 + i / 8] & bit[i % 8] ? 16 : 0)) - 16);
    }
    block_out(o, q, scale_at(b));
  }
}

static void bf16_out(float *o, const uint8_t *b, int64_t n) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) v_store(o + i, v_from_bf16(b + 2 * i));
  nm__dtype(NM__BF16)->to_f32(o + i, b + 2 * i, n - i);
}

static void f16_out(float *o, const uint8_t *b, int64_t n) {
  int64_t i = 0;
#ifndef V_NO_HALF
  for (; i + 16 <= n; i += 16) v_store(o + i, v_from_half(b + 2 * i));
#endif
  nm__dtype(NM__F16)->to_f32(o + i, b + 2 * i, n - i);
}

static void to_f32(float *o, const void *row, int64_t n, uint32_t type) {
  switch (type) {
    case NM__Q8_0: q8_0_out(o, row, n); break;
    case NM__Q4_0: q4_0_out(o, row, n); break;
    case NM__Q5_0: q5_0_out(o, row, n); break;
    case NM__BF16: bf16_out(o, row, n); break;
    case NM__F16: f16_out(o, row, n); break;
    default: nm__dtype(type)->to_f32(o, row, n);
  }
}

#include "tensor/kern_chain.h"
#include "tensor/kern_grad.h"

static bool usable(void) { return KERN_USABLE; }

const struct nm__kern KERN_SET = {
    .name = KERN_NAME, .usable = usable, .gemm = gemm, .lanes = (int)(sizeof(part) / 4),
    .fma_peak = fma_peak, .add = add, .axpy = axpy, .mul = mul,
    .soft_cap = soft_cap, .dot = dot, .rmsnorm = rmsnorm, .layernorm = layernorm,
    .softmax = softmax, .softmax_parts = softmax_parts, .act = act, .act_mul = act_mul,
    .weighted_sum = weighted_sum,
    .to_f32 = to_f32, .act_back = act_back, .act_mul_back = act_mul_back,
    .soft_cap_back = soft_cap_back, .mul_add = mul_add, .rmsnorm_back = rmsnorm_back,
    .layernorm_back = layernorm_back, .norm_weight_back = norm_weight_back,
    .softmax_back = softmax_back, .adamw = adamw, .chain = chain,
};
