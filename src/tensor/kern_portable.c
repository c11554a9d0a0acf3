/* kern_portable.c - the 16-lane vector as a plain array: the twin every other
 * set is compared with. fmaf is exact by definition, whoever supplies it. */
#include <stdint.h>
#include <string.h>

#include "tensor/dtype.h"

typedef struct { float f[16]; } v16;
#define EACH for (int i = 0; i < 16; i++)

static inline v16 v_load(const float *p) { v16 r; memcpy(&r, p, 64); return r; }
static inline v16 v_load_n(const float *p, int n) {
  v16 r = {{0}};
  memcpy(&r, p, (size_t)n * 4);
  return r;
}
static inline void v_store(float *p, v16 a) { memcpy(p, &a, 64); }
static inline void v_store_n(float *p, v16 a, int n) { memcpy(p, &a, (size_t)n * 4); }
static inline v16 v_set(float x) { v16 r; EACH r.f[i] = x; return r; }
static inline v16 v_fma(v16 a, v16 b, v16 c) {
  EACH c.f[i] = __builtin_fmaf(a.f[i], b.f[i], c.f[i]);
  return c;
}
static inline v16 v_add(v16 a, v16 b) { EACH a.f[i] += b.f[i]; return a; }
static inline v16 v_sub(v16 a, v16 b) { EACH a.f[i] -= b.f[i]; return a; }
static inline v16 v_mul(v16 a, v16 b) { EACH a.f[i] *= b.f[i]; return a; }
static inline v16 v_div(v16 a, v16 b) { EACH a.f[i] /= b.f[i]; return a; }
static inline v16 v_sqrt(v16 a) { EACH a.f[i] = __builtin_sqrtf(a.f[i]); return a; }
static inline v16 v_max(v16 a, v16 b) { EACH a.f[i] = a.f[i] > b.f[i] ? a.f[i] : b.f[i]; return a; }
static inline v16 v_min(v16 a, v16 b) { EACH a.f[i] = a.f[i] < b.f[i] ? a.f[i] : b.f[i]; return a; }
/* x < limit ? 0 : r, and NaN stays NaN */
static inline v16 v_zero_below(v16 x, float limit, v16 r) {
  EACH r.f[i] = x.f[i] != x.f[i] ? x.f[i] : x.f[i] < limit ? 0.0f : r.f[i];
  return r;
}
static inline v16 v_round(v16 a) {
  EACH a.f[i] = (a.f[i] + 0x1.8p23f) - 0x1.8p23f;      /* |a| < 2^22, ties to even */
  return a;
}
/* 2^k for whole k in [-126, 127] */
static inline v16 v_pow2(v16 k) {
  EACH {
    uint32_t u = (uint32_t)((int32_t)k.f[i] + 127) << 23;
    memcpy(&k.f[i], &u, 4);
  }
  return k;
}
static inline float v_sum(v16 a) {
  for (int h = 8; h; h /= 2)
    for (int i = 0; i < h; i++) a.f[i] += a.f[i + h];
  return a.f[0];
}
static inline float v_top(v16 a) {
  for (int i = 1; i < 16; i++) a.f[0] = a.f[i] > a.f[0] ? a.f[i] : a.f[0];
  return a.f[0];
}
static inline v16 v_from_i8(const int8_t *p) { v16 r; EACH r.f[i] = (float)p[i]; return r; }
static inline v16 v_from_bf16(const uint8_t *p) {
  v16 r;
  EACH {
    uint32_t u = (uint32_t)p[2 * i] << 16 | (uint32_t)p[2 * i + 1] << 24;
    memcpy(&r.f[i], &u, 4);
  }
  return r;
}
#define V_NO_HALF
static inline v16 v_from_half(const uint8_t *p) {
  v16 r;
  EACH r.f[i] = nm__half_to_f32((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
  return r;
}
static inline v16 v_from_six(const uint8_t *q, int s, const uint8_t *high, int t) {
  v16 r;
  EACH r.f[i] = (float)(((q[i] >> s & 15) | (high[i] >> t & 3) << 4) - 32);
  return r;
}
/* table[four bits of q[i] from bit s on]; the second, from `high` where bit i of `which` is set */
static inline v16 v_pick(v16 table, const uint8_t *q, int s) {
  v16 r;
  EACH r.f[i] = table.f[q[i] >> s & 15];
  return r;
}
static inline v16 v_pick2(v16 low, v16 high, const uint8_t *q, int s, uint32_t which) {
  v16 r;
  EACH r.f[i] = (which >> i & 1 ? high : low).f[q[i] >> s & 15];
  return r;
}
static inline uint32_t bit_of16(const uint8_t *p, int j) {
  uint32_t r = 0;
  EACH r |= (uint32_t)(p[i] >> j & 1) << i;
  return r;
}

typedef v16 part;
enum { PARTS = 1 };
static inline part p_zero(void) { return v_set(0.0f); }
static inline part p_load(const float *x, int p) { (void)p; return v_load(x); }
static inline part p_fma(part a, part b, part c) { return v_fma(a, b, c); }
static inline v16 p_join(const part *a) { return a[0]; }
static inline float p_first(part a) { return a.f[0]; }
#define P_KEEP(x) "+m"(x)

static inline void v_store_bf16(uint16_t *p, v16 v) { EACH p[i] = nm__f32_to_bf16(v.f[i]); }

/* Subnormal numbers as zero of their sign. */
static inline float flush(float x) { return __builtin_fabsf(x) < 0x1p-126f ? 0.0f * x : x; }
/* x is flushed too when rounding without a smallest exponent would leave it below 2^-126: then
 * `near`, its value in double, lies below the last number that rounds up to that. */
static inline float flush_fma(float x, float w, float a) {
  x = flush(x);
  w = flush(w);
  float r = __builtin_fmaf(x, w, a);
  if (__builtin_fabsf(r) > 0x1p-126f) return r;
  double near = (double)x * (double)w + (double)a;
  return __builtin_fabs(near) < 0x1.ffffffp-127 ? 0.0f * r : r;
}
typedef struct { uint16_t e[32]; } pair;
static inline pair pair_load(const uint16_t *x, int p) {
  pair r;
  (void)p;
  memcpy(&r, x, 64);
  return r;
}
static inline part pair_dot(part a, pair x, pair w) {
  for (int o = 1; o >= 0; o--)
    EACH a.f[i] = flush_fma(nm__bf16_to_f32(x.e[2 * i + o]), nm__bf16_to_f32(w.e[2 * i + o]),
                            a.f[i]);
  return a;
}
static inline float pair_sum(v16 a) {
  for (int h = 8; h; h /= 2)
    for (int i = 0; i < h; i++) a.f[i] = flush(a.f[i] + a.f[i + h]);
  return a.f[0];
}
#define flush_begin() 0u
#define flush_end(before) (void)(before)
#define v_sum4(o, a, b, c, d) (void)(o)      /* rows of four are never taken: TILE_W is 2 */
#define pair_sum4 v_sum4

#define KERN_SET nm__kern_portable
#define KERN_NAME "portable"
#define KERN_USABLE 1
#define TILE_X 2
#define TILE_W 2
#include "tensor/kern_body.h"
