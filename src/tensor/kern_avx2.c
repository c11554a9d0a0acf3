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
static inline v16 v_of_i8(__m128i q) {
  return (v16){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)),
               _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8)))};
}
static inline v16 v_from_i8(const int8_t *p) {
  return v_of_i8(_mm_loadu_si128((const __m128i *)p));
}
static inline v16 v_from_six(const uint8_t *q, int s, const uint8_t *high, int t) {
  return v_of_i8(six_bits16(q, s, high, t));
}
/* table[i[k] & 15]: from each half of the table, and bit 3 chooses. */
static inline __m256 pick8(v16 table, __m256i i) {
  __m256 high = _mm256_castsi256_ps(_mm256_slli_epi32(i, 28));
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.a, i),
                          _mm256_permutevar8x32_ps(table.b, i), high);
}
/* table[four bits of q[i] from bit s on] */
static inline v16 v_pick(v16 table, const uint8_t *q, int s) {
  __m128i i = _mm_srl_epi16(_mm_loadu_si128((const __m128i *)q), _mm_cvtsi32_si128(s));
  return (v16){pick8(table, _mm256_cvtepu8_epi32(i)),
               pick8(table, _mm256_cvtepu8_epi32(_mm_srli_si128(i, 8)))};
}
static inline __m256 mask_of8(uint32_t bits) {
  const __m256i one = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  __m256i set = _mm256_and_si256(_mm256_set1_epi32((int)bits), one);
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, one));
}
/* From `high` where bit i of `which` is set. */
static inline v16 v_pick2(v16 low, v16 high, const uint8_t *q, int s, uint32_t which) {
  v16 x = v_pick(low, q, s), y = v_pick(high, q, s);
  return (v16){_mm256_blendv_ps(x.a, y.a, mask_of8(which)),
               _mm256_blendv_ps(x.b, y.b, mask_of8(which >> 8))};
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
#define P_KEEP(x) "+x"(x)

static inline __m128i bf16_of8(__m256 v) {
  __m256i u = _mm256_castps_si256(v), odd = _mm256_srli_epi32(_mm256_slli_epi32(u, 15), 31);
  __m256i r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  r = _mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan);
  r = _mm256_srli_epi32(r, 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
/* Rounds to bf16, the high half of a float: nearest, ties to even. */
static inline void v_store_bf16(uint16_t *p, v16 v) {
  _mm_storeu_si128((__m128i *)p, bf16_of8(v.a));
  _mm_storeu_si128((__m128i *)(p + 8), bf16_of8(v.b));
}

typedef __m256i pair;              /* eight pairs of bf16 */
static inline pair pair_load(const uint16_t *x, int p) {
  return _mm256_loadu_si256((const __m256i *)(x + 16 * p));
}
static inline part pair_dot(part a, pair x, pair w) {
  const __m256i high = _mm256_set1_epi32((int)0xffff0000);
  a = p_fma(_mm256_castsi256_ps(_mm256_and_si256(x, high)),
            _mm256_castsi256_ps(_mm256_and_si256(w, high)), a);
  return p_fma(_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)),
               _mm256_castsi256_ps(_mm256_slli_epi32(w, 16)), a);
}
static inline void v_sum4(float *o, v16 a, v16 b, v16 c, v16 d) {
  o[0] = v_sum(a);
  o[1] = v_sum(b);
  o[2] = v_sum(c);
  o[3] = v_sum(d);
}
#define pair_sum v_sum
#define pair_sum4 v_sum4

#define KERN_SET nm__kern_avx2
#define KERN_NAME "avx2"
#define KERN_USABLE (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#define TILE_X 3
#define TILE_W 2
#include "tensor/kern_body.h"
#endif
