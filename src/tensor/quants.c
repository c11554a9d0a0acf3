/* quants.c - blocks without a codebook: the types of 32 to 128 elements beside those of
 * dtype.c, the K types and the ternary ones. Every product is taken from left to right and
 * rounded to single each time, so that a value has the bits every other reader gives it. */
#include "tensor/quants.h"

#include <string.h>

#include "tensor/iq_tables.h"

/* ---- blocks of 32: low nibbles are elements 0..15, high nibbles 16..31 ----- */

void nm__q4_1_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 32, p += 20, o += 32) {
    float d = nm__half_at(p), m = nm__half_at(p + 2);
    for (int i = 0; i < 16; i++) {
      o[i] = (float)(p[4 + i] & 15) * d + m;
      o[i + 16] = (float)(p[4 + i] >> 4) * d + m;
    }
  }
}

/* The fifth bit of element i is bit i of the word at byte 4. */
void nm__q5_1_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 32, p += 24, o += 32) {
    float d = nm__half_at(p), m = nm__half_at(p + 2);
    uint32_t high = nm__u32_at(p + 4);
    for (int i = 0; i < 16; i++) {
      int lo = (p[8 + i] & 15) | (int)(high >> i & 1) << 4;
      int hi = (p[8 + i] >> 4) | (int)(high >> (i + 16) & 1) << 4;
      o[i] = (float)lo * d + m;
      o[i + 16] = (float)hi * d + m;
    }
  }
}

void nm__iq4_nl_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 32, p += 18, o += 32) {
    float d = nm__half_at(p);
    for (int i = 0; i < 16; i++) {
      o[i] = d * (float)nm__iq4_level[p[2 + i] & 15];
      o[i + 16] = d * (float)nm__iq4_level[p[2 + i] >> 4];
    }
  }
}

/* ---- four-bit floats ---------------------------------------------------- */

/* The sixteen E2M1 numbers, doubled to be integers; whoever uses them halves the scale.
 * Code 8, which would be minus zero, is read as zero everywhere. */
static const int8_t e2m1_twice[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* 2^(e-128): half of the scale an exponent byte stands for. It is a normal number from
 * e = 2 on; the two below are written as the bits of a subnormal. */
static float half_power(uint8_t e) {
  uint32_t u = e < 2 ? (uint32_t)0x00200000 << e : (uint32_t)(e - 1) << 23;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

void nm__mxfp4_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 32, p += 17, o += 32) {
    float d = half_power(p[0]);
    for (int i = 0; i < 16; i++) {
      o[i] = (float)e2m1_twice[p[1 + i] & 15] * d;
      o[i + 16] = (float)e2m1_twice[p[1 + i] >> 4] * d;
    }
  }
}

/* Half of an unsigned E4M3 number (four bits of exponent, three of mantissa). Code 0x7f, which
 * would be "not a number", counts as zero. Bit 7 is not read, so that 0xff is an ordinary 480:
 * no writer sets it, but this is how such a block is read elsewhere. */
static float half_e4m3(uint8_t code) {
  int e = code >> 3 & 15, m = code & 7;
  if (code == 0x7f) return 0;
  if (e == 0) return (float)m * 0x1p-10f;
  return (float)(8 + m) * (float)(1 << e) * 0x1p-11f;
}

/* Blocks of 64: four sub-blocks of 16, each with its own scale and nibble halves. */
void nm__nvfp4_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 64, p += 36)
    for (int s = 0; s < 4; s++, o += 16) {
      const uint8_t *q = p + 4 + 8 * s;
      float d = half_e4m3(p[s]);
      for (int i = 0; i < 8; i++) {
        o[i] = (float)e2m1_twice[q[i] & 15] * d;
        o[i + 8] = (float)e2m1_twice[q[i] >> 4] * d;
      }
    }
}

/* ---- one and two bits ---------------------------------------------------- */

void nm__q1_0_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 128, p += 18, o += 128) {
    float d = nm__half_at(p);
    for (int i = 0; i < 128; i++) o[i] = p[2 + i / 8] >> (i % 8) & 1 ? d : -d;
  }
}

void nm__q2_0_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 64, p += 18, o += 64) {
    float d = nm__half_at(p);
    for (int i = 0; i < 64; i++) o[i] = (float)((p[2 + i / 4] >> (2 * (i % 4)) & 3) - 1) * d;
  }
}

/* ---- ternary, blocks of 256 ------------------------------------------------ */

void nm__tq2_0_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 66) {
    float d = nm__half_at(p + 64);
    for (int row = 0; row < 8; row++, o += 32) {       /* bytes 0..31 hold rows 0..3 */
      const uint8_t *q = p + 32 * (row / 4);
      for (int i = 0; i < 32; i++) o[i] = (float)((q[i] >> (2 * (row % 4)) & 3) - 1) * d;
    }
  }
}

/* A byte is a fraction of 256 written in base three, most significant digit first: multiplied
 * by a power of three it has the wanted digit before the point. */
static float *trits(float *o, const uint8_t *q, int n_bytes, int n_trits, float d) {
  static const uint8_t power[5] = {1, 3, 9, 27, 81};
  for (int k = 0; k < n_trits; k++, o += n_bytes)
    for (int i = 0; i < n_bytes; i++) {
      int digit = (uint8_t)(q[i] * power[k]) * 3 >> 8;
      o[i] = (float)(digit - 1) * d;
    }
  return o;
}

void nm__tq1_0_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 54) {
    float d = nm__half_at(p + 52);
    o = trits(o, p, 32, 5, d);
    o = trits(o, p + 32, 16, 5, d);
    o = trits(o, p + 48, 4, 4, d);
  }
}

/* ---- K types: blocks of 256 in 16 groups of 16 or 8 groups of 32 ---------------
 *
 * Quants of two bits, 64 bytes: a run of 32 bytes serves four rows of 32 elements, the
 * lowest two bits first. So group j of 16 reads the 16 bytes at 32 (j/8) + 16 (j%2), shifted
 * by 2 (j/2 % 4). */

static int two_bit_at(int j) { return 32 * (j / 8) + 16 * (j % 2); }
static int two_bit_shift(int j) { return 2 * (j / 2 % 4); }

void nm__q2_k_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 84) {
    float d = nm__half_at(p + 80), dmin = nm__half_at(p + 82);
    for (int j = 0; j < 16; j++, o += 16) {
      const uint8_t *q = p + 16 + two_bit_at(j);
      float scale = d * (float)(p[j] & 15), least = dmin * (float)(p[j] >> 4);
      for (int i = 0; i < 16; i++) o[i] = scale * (float)(q[i] >> two_bit_shift(j) & 3) - least;
    }
  }
}

/* Six bits of scale j: the low four in nibbles of bytes 0..7, the high two in bytes 8..11. */
static int q3_k_scale(const uint8_t *s, int j) {
  int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
  return (low | (s[8 + j % 4] >> (2 * (j / 4)) & 3) << 4) - 32;
}

/* A clear high bit takes 4 away: the quant is -4..3. */
void nm__q3_k_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 110) {
    float d = nm__half_at(p + 108);
    for (int j = 0; j < 16; j++, o += 16) {
      const uint8_t *q = p + 32 + two_bit_at(j), *high = p + 16 * (j % 2);
      float scale = d * (float)q3_k_scale(p + 96, j);
      for (int i = 0; i < 16; i++) {
        int low = q[i] >> two_bit_shift(j) & 3;
        o[i] = scale * (float)(low - (high[i] >> (j / 2) & 1 ? 0 : 4));
      }
    }
  }
}

void nm__q4_k_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 144) {
    float d = nm__half_at(p), dmin = nm__half_at(p + 2), scale, least;
    for (int j = 0; j < 8; j++, o += 32) {
      const uint8_t *q = p + 16 + 32 * (j / 2);
      nm__six_bits(p + 4, j, d, dmin, &scale, &least);
      for (int i = 0; i < 32; i++) o[i] = scale * (float)(q[i] >> (4 * (j % 2)) & 15) - least;
    }
  }
}

void nm__q5_k_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 176) {
    float d = nm__half_at(p), dmin = nm__half_at(p + 2), scale, least;
    for (int j = 0; j < 8; j++, o += 32) {
      const uint8_t *q = p + 48 + 32 * (j / 2), *high = p + 16;
      nm__six_bits(p + 4, j, d, dmin, &scale, &least);
      for (int i = 0; i < 32; i++) {
        int v = (q[i] >> (4 * (j % 2)) & 15) | (high[i] >> j & 1) << 4;
        o[i] = scale * (float)v - least;
      }
    }
  }
}

/* Low nibbles of 64 bytes are 64 elements, their high nibbles the next 64. */
void nm__q6_k_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 210) {
    float d = nm__half_at(p + 208);
    for (int j = 0; j < 16; j++, o += 16) {
      const uint8_t *q = p + 64 * (j / 8) + 16 * (j % 4), *high = p + 128 + two_bit_at(j);
      float scale = d * (float)(int8_t)p[192 + j];
      for (int i = 0; i < 16; i++) {
        int v = (q[i] >> (4 * (j / 4 % 2)) & 15) | (high[i] >> two_bit_shift(j) & 3) << 4;
        o[i] = scale * (float)(v - 32);
      }
    }
  }
}
