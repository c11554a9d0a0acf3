/* kern_avx512.c - the 16-lane vector as one 512-bit register (AVX-512 F, BW, VL, DQ). */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

typedef __m512 v16;

static inline v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline v16 v_load_n(const float *p, int n) {
  return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
static inline void v_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
static inline void v_store_n(float *p, v16 a, int n) {
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}
static inline v16 v_set(float x) { return _mm512_set1_ps(x); }
static inline v16 v_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
static inline v16 v_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
static inline v16 v_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
static inline v16 v_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
static inline v16 v_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
static inline v16 v_sqrt(v16 a) { return _mm512_sqrt_ps(a); }
static inline v16 v_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
static inline v16 v_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
static inline v16 v_zero_below(v16 x, float limit, v16 r) {
  __mmask16 low = _mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_LT_OQ);
  __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  r = _mm512_mask_mov_ps(r, low, _mm512_setzero_ps());
  return _mm512_mask_mov_ps(r, nan, x);
}
static inline v16 v_round(v16 v) {
  v16 big = _mm512_set1_ps(0x1.8p23f);
  return _mm512_sub_ps(_mm512_add_ps(v, big), big);
}
static inline v16 v_pow2(v16 k) {
  __m512i e = _mm512_add_epi32(_mm512_cvttps_epi32(k), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}
static inline __m256 v_half_sum(v16 v) {
  return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}
#include "tensor/kern_fold.h"
static inline v16 v_from_i8(const int8_t *p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline v16 v_from_bf16(const uint8_t *p) {
  __m512i w = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}
static inline v16 v_from_half(const uint8_t *p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

typedef v16 part;
enum { PARTS = 1 };
static inline part p_zero(void) { return _mm512_setzero_ps(); }
static inline part p_load(const float *x, int p) { (void)p; return v_load(x); }
static inline part p_fma(part a, part b, part c) { return v_fma(a, b, c); }
static inline v16 p_join(const part *a) { return a[0]; }
static inline float p_first(part a) { return _mm512_cvtss_f32(a); }
static inline part p_set(float x) { return v_set(x); }
static inline part p_add(part a, part b) { return v_add(a, b); }
static inline void p_store(float *x, part a) { v_store(x, a); }
#define P_KEEP(x) "+v"(x)

#define KERN_SET nm__kern_avx512
#define KERN_NAME "avx512"
#define KERN_USABLE (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && \
                     __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
#define TILE_X 6
#define TILE_W 4
#define CHAIN_W 4
#include "tensor/kern_body.h"
#endif
