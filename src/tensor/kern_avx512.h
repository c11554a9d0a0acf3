/* kern_avx512.h - the 16-lane vector as one 512-bit register, for the sets that have it. */
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
static inline v16 v_of_i8(__m128i q) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)); }
static inline v16 v_from_i8(const int8_t *p) {
  return v_of_i8(_mm_loadu_si128((const __m128i *)p));
}
static inline v16 v_from_six(const uint8_t *q, int s, const uint8_t *high, int t) {
  return v_of_i8(six_bits16(q, s, high, t));
}
/* table[four bits of q[i] from bit s on]: a permutation looks at the low four bits alone. */
static inline __m512i nibble16(const uint8_t *q, int s) {
  __m512i i = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)q));
  return s ? _mm512_srli_epi32(i, 4) : i;
}
static inline v16 v_pick(v16 table, const uint8_t *q, int s) {
  return _mm512_permutexvar_ps(nibble16(q, s), table);
}
/* From `high` where bit i of `which` is set. */
static inline v16 v_pick2(v16 low, v16 high, const uint8_t *q, int s, uint32_t which) {
  __m512i i = nibble16(q, s);
  return _mm512_mask_permutexvar_ps(_mm512_permutexvar_ps(i, low), (__mmask16)which, i, high);
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
#define P_KEEP(x) "+v"(x)

/* bf16: the high half of a float. Rounding adds half of the last place that stays, less one
 * where that place is even; what is no number keeps its sign and becomes quiet. */
static inline void v_store_bf16(uint16_t *p, v16 v) {
  __m512i u = _mm512_castps_si512(v), odd = _mm512_srli_epi32(_mm512_slli_epi32(u, 15), 31);
  __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  r = _mm512_mask_or_epi32(r, nan, u, _mm512_set1_epi32(0x400000));
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
}

/* The four sums of a, b, c, d: each level of the tree for all of them at once. */
static inline void v_sum4(float *o, v16 a, v16 b, v16 c, v16 d) {
  v16 ab = v_add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  v16 cd = v_add(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
  v16 s4 = v_add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  v16 s2 = v_add(s4, _mm512_permute_ps(s4, 0x4e));     /* lanes 0 and 1 of each 128 bits */
  v16 s1 = v_add(s2, _mm512_permute_ps(s2, 0xb1));
  const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm_storeu_ps(o, _mm512_castps512_ps128(_mm512_permutexvar_ps(first, s1)));
}

typedef __m512i pair;              /* 16 pairs of bf16 */
static inline pair pair_load(const uint16_t *x, int p) {
  (void)p;
  return _mm512_loadu_si512((const void *)x);
}
static inline part pair_dot(part a, pair x, pair w) {
#ifdef __AVX512BF16__
  return _mm512_dpbf16_ps(a, (__m512bh)x, (__m512bh)w);
#else
  const __m512i high = _mm512_set1_epi32((int)0xffff0000);
  a = v_fma(_mm512_castsi512_ps(_mm512_and_si512(x, high)),
            _mm512_castsi512_ps(_mm512_and_si512(w, high)), a);
  return v_fma(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
               _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)), a);
#endif
}
#define pair_sum v_sum
#define pair_sum4 v_sum4

#define AVX512_USABLE (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && \
                       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
#define TILE_X 6
#define TILE_W 4
