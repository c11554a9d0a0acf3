/* kern_fold.h - the end of the fixed tree, the maximum of 16 lanes and the flushing of
 * subnormal numbers, for the sets with 256-bit registers. The including file defines v16,
 * v_store and v_half_sum (the first level: lanes l and l + 8). */
static inline float v_sum(v16 v) {
  __m256 s8 = v_half_sum(v);
  __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

static inline float v_top(v16 v) {
  float f[16];
  v_store(f, v);
  for (int i = 1; i < 16; i++) f[0] = f[i] > f[0] ? f[i] : f[0];
  return f[0];
}

/* Subnormal operands and results are zero between the two. */
static inline unsigned flush_begin(void) {
  unsigned before = _mm_getcsr();
  _mm_setcsr(before | _MM_FLUSH_ZERO_ON | 0x0040);     /* and operands: "denormals are zero" */
  return before;
}
static inline void flush_end(unsigned before) { _mm_setcsr(before); }

/* Bit j of 16 bytes. */
static inline uint32_t bit_of16(const uint8_t *p, int j) {
  __m128i v = _mm_loadu_si128((const __m128i *)p);
  return (uint32_t)_mm_movemask_epi8(_mm_sll_epi16(v, _mm_cvtsi32_si128(7 - j)));
}

/* Four bits of q from bit s on and two of `high` from bit t on above them, less 32. */
static inline __m128i six_bits16(const uint8_t *q, int s, const uint8_t *high, int t) {
  __m128i low = _mm_srl_epi16(_mm_loadu_si128((const __m128i *)q), _mm_cvtsi32_si128(s));
  __m128i two = _mm_srl_epi16(_mm_loadu_si128((const __m128i *)high), _mm_cvtsi32_si128(t));
  low = _mm_and_si128(low, _mm_set1_epi8(15));
  two = _mm_slli_epi16(_mm_and_si128(two, _mm_set1_epi8(3)), 4);
  return _mm_sub_epi8(_mm_or_si128(low, two), _mm_set1_epi8(32));
}
