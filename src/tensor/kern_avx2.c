/* kern_avx2.c - the 16-lane vector as two 256-bit registers (AVX2, FMA, F16C). */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

typedef struct { __m256 a, b; } v16;

static inline v16 v_load(const float *p) {
  return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
static inline __m256i mask8(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline v16 v_load_n(const float *p, int n) {
  return (v16){_mm256_maskload_ps(p, mask8(n)),
               n > 8 ? _mm256_maskload_ps(p + 8, mask8(n - 8)) : _mm256_setzero_ps()};
}
static inline void v_store(float *p, v16 v) {
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
}
static inline void v_store_n(float *p, v16 v, int n) {
  _mm256_maskstore_ps(p, mask8(n), v.a);
  if (n > 8) _mm256_maskstore_ps(p + 8, mask8(n - 8), v.b);
}
static inline v16 v_set(float x) { return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline v16 v_fma(v16 x, v16 y, v16 z) {
  return (v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
#define BOTH(name, op) \
  static inline v16 name(v16 x, v16 y) { return (v16){op(x.a, y.a), op(x.b, y.b)}; }
BOTH(v_add, _mm256_add_ps)
BOTH(v_sub, _mm256_sub_ps)
BOTH(v_mul, _mm256_mul_ps)
BOTH(v_div, _mm256_div_ps)
static inline v16 v_sqrt(v16 x) { return (v16){_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
BOTH(v_max, _mm256_max_ps)
BOTH(v_min, _mm256_min_ps)
static inline __m256 zero_below8(__m256 x, float limit, __m256 r) {
  r = _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(limit), _CMP_LT_OQ), r);
  return _mm256_blendv_ps(r, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}
static inline v16 v_zero_below(v16 x, float limit, v16 r) {
  return (v16){zero_below8(x.a, limit, r.a), zero_below8(x.b, limit, r.b)};
}
static inline v16 v_round(v16 v) {
  v16 big = v_set(0x1.8p23f);
  return v_sub(v_add(v, big), big);
}
static inline __m256 pow2_8(__m256 k) {
  __m256i e = _mm256_add_epi32(_mm256_cvttps_epi32(k), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}
static inline v16 v_pow2(v16 k) { return (v16){pow2_8(k.a), pow2_8(k.b)}; }
static inline __m256 v_half_sum(v16 v) { return _mm256_add_ps(v.a, v.b); }
#include "tensor/kern_fold.h"
static inline v16 v_from_i8(const int8_t *p) {
  __m128i q = _mm_loadu_si128((const __m128i *)p);
  return (v16){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)),
               _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8)))};
}
static inline __m256 bf16_8(const uint8_t *p) {
  __m256i w = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
}
static inline v16 v_from_bf16(const uint8_t *p) { return (v16){bf16_8(p), bf16_8(p + 16)}; }
static inline v16 v_from_half(const uint8_t *p) {
  return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
               _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 16)))};
}

typedef __m256 part;
enum { PARTS = 2 };
static inline part p_zero(void) { return _mm256_setzero_ps(); }
static inline part p_load(const float *x, int p) { return _mm256_loadu_ps(x + 8 * p); }
static inline part p_fma(part a, part b, part c) { return _mm256_fmadd_ps(a, b, c); }
static inline v16 p_join(const part *a) { return (v16){a[0], a[1]}; }
static inline float p_first(part a) { return _mm256_cvtss_f32(a); }
static inline part p_set(float x) { return _mm256_set1_ps(x); }
static inline part p_add(part a, part b) { return _mm256_add_ps(a, b); }
static inline void p_store(float *x, part a) { _mm256_storeu_ps(x, a); }
#define P_KEEP(x) "+x"(x)

#define KERN_SET nm__kern_avx2
#define KERN_NAME "avx2"
#define KERN_USABLE (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#define CHAIN_W 2
#define TILE_X 3
#define TILE_W 2
#include "tensor/kern_body.h"
#endif
