/* quants.h - the dequantisers and quantisers behind the table in dtype.c, and how they read and
 * write a block. They take the arguments of nm__dtype_info's to_f32 and from_f32. */
#ifndef NM_TENSOR_QUANTS_H
#define NM_TENSOR_QUANTS_H

#include "tensor/dtype.h"

static inline uint16_t nm__u16_at(const uint8_t *b) { return (uint16_t)(b[0] | b[1] << 8); }
static inline uint32_t nm__u32_at(const uint8_t *b) {
  return (uint32_t)nm__u16_at(b) | (uint32_t)nm__u16_at(b + 2) << 16;
}
static inline float nm__half_at(const uint8_t *b) { return nm__half_to_f32(nm__u16_at(b)); }

/* Q4_K and Q5_K keep eight scales and eight minima of six bits in twelve bytes. */
static inline void nm__six_bits(const uint8_t *s, int j, float d, float dmin, float *scale,
                                float *least) {
  int sc = s[j] & 63, mn = s[j + 4] & 63;
  if (j >= 4) {
    sc = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    mn = (s[j + 4] >> 4) | (s[j] >> 6) << 4;
  }
  *scale = d * (float)sc;
  *least = dmin * (float)mn;
}

#define NM__DEQUANTISER(name) void nm__##name##_out(float *o, const void *blocks, int64_t n)
NM__DEQUANTISER(q4_1);      /* quants.c */
NM__DEQUANTISER(q5_1);
NM__DEQUANTISER(iq4_nl);
NM__DEQUANTISER(mxfp4);
NM__DEQUANTISER(nvfp4);
NM__DEQUANTISER(q1_0);
NM__DEQUANTISER(q2_0);
NM__DEQUANTISER(q2_k);
NM__DEQUANTISER(q3_k);
NM__DEQUANTISER(q4_k);
NM__DEQUANTISER(q5_k);
NM__DEQUANTISER(q6_k);
NM__DEQUANTISER(tq1_0);
NM__DEQUANTISER(tq2_0);
NM__DEQUANTISER(iq2_xxs);   /* quants_iq.c */
NM__DEQUANTISER(iq2_xs);
NM__DEQUANTISER(iq2_s);
NM__DEQUANTISER(iq3_xxs);
NM__DEQUANTISER(iq3_s);
NM__DEQUANTISER(iq1_s);
NM__DEQUANTISER(iq1_m);
NM__DEQUANTISER(iq4_xs);

#define NM__QUANTISER(name) void nm__##name##_in(void *blocks, const float *x, int64_t n)
NM__QUANTISER(q8_0);        /* quantise.c */
NM__QUANTISER(q4_0);
NM__QUANTISER(q5_0);
NM__QUANTISER(q4_1);
NM__QUANTISER(q5_1);
NM__QUANTISER(q4_k);
NM__QUANTISER(q5_k);
NM__QUANTISER(q6_k);

/* Rounding to nearest in blocks of 32, the ladder of studies: with m = 2^(bits - 1) - 1 and d the
 * largest magnitude of the block over m, as a half, x becomes d times the whole number nearest to
 * x / d, within -m..m. Written as Q8_0 (bits 5 to 8) or Q4_0 (bits 2 to 4) blocks, whose readers
 * give just that. */
void nm__round_in(void *blocks, const float *x, int64_t n, int bits);

#endif
