/* quantise.c - writers of quantised blocks: what dtype.c and quants.c read. The numbers come from
 * quantise_fit.c, here they are packed; Q8_0 alone is a formula, the one every writer uses. A
 * block's bytes depend on its values alone. */
#include "tensor/quants.h"

#include <string.h>

#include "tensor/quantise_fit.h"

static void put_half(uint8_t *b, float f) {
  uint16_t h = nm__f32_to_half(f);
  b[0] = (uint8_t)h;
  b[1] = (uint8_t)(h >> 8);
}

/* ---- blocks of 32 ------------------------------------------------------------ */

static int nearest_int(float x) {          /* ties away from zero */
  return (int)(x < 0 ? x - 0.5f : x + 0.5f);
}

void nm__q8_0_in(void *b, const float *x, int64_t n) {
  uint8_t *p = b;
  for (; n > 0; n -= 32, p += 34, x += 32) {
    float top = 0;
    for (int i = 0; i < 32; i++)
      top = top > (x[i] < 0 ? -x[i] : x[i]) ? top : (x[i] < 0 ? -x[i] : x[i]);
    float d = top / 127.0f, inv = nm__f32_to_half(d) ? 1.0f / d : 0.0f;    /* a reader finds 0 */
    put_half(p, d);
    for (int i = 0; i < 32; i++) p[2 + i] = (uint8_t)(int8_t)nearest_int(x[i] * inv);
  }
}

static void put_nibbles(uint8_t *p, const uint8_t *q) {
  for (int i = 0; i < 16; i++) p[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
}

/* The fifth bit of element i as bit i of a word, before the nibbles. */
static void put_fives(uint8_t *p, const uint8_t *q) {
  memset(p, 0, 4);
  for (int i = 0; i < 32; i++) p[i / 8] |= (uint8_t)((q[i] >> 4) << (i % 8));
  put_nibbles(p + 4, q);
}

void nm__round_in(void *b, const float *x, int64_t n, int bits) {
  uint8_t *p = b, q[32];
  int m = (1 << (bits - 1)) - 1;
  for (; n > 0; n -= 32, x += 32) {
    float top = 0;
    for (int i = 0; i < 32; i++)
      top = top > (x[i] < 0 ? -x[i] : x[i]) ? top : (x[i] < 0 ? -x[i] : x[i]);
    float d = nm__half_to_f32(nm__f32_to_half(top / (float)m));
    put_half(p, d);
    p += 2;
    for (int i = 0; i < 32; i++) {
      int k = d > 0 ? nearest_int(x[i] / d) : 0;
      k = k > m ? m : k < -m ? -m : k;
      if (bits > 4) *p++ = (uint8_t)(int8_t)k;
      else q[i] = (uint8_t)(k + 8);
    }
    if (bits > 4) continue;
    put_nibbles(p, q);
    p += 16;
  }
}

void nm__q4_0_in(void *b, const float *x, int64_t n) {
  uint8_t *p = b, q[32];
  for (; n > 0; n -= 32, p += 18, x += 32) {
    put_half(p, nm__fit_scale(x, 8, q));
    put_nibbles(p + 2, q);
  }
}

void nm__q5_0_in(void *b, const float *x, int64_t n) {
  uint8_t *p = b, q[32];
  for (; n > 0; n -= 32, p += 22, x += 32) {
    put_half(p, nm__fit_scale(x, 16, q));
    put_fives(p + 2, q);
  }
}

static void put_line(uint8_t *p, const float *x, int top, uint8_t *q) {
  float d, m;
  nm__fit_line(x, top, &d, &m, q);
  put_half(p, d);
  put_half(p + 2, m);
}

void nm__q4_1_in(void *b, const float *x, int64_t n) {
  uint8_t *p = b, q[32];
  for (; n > 0; n -= 32, p += 20, x += 32) {
    put_line(p, x, 15, q);
    put_nibbles(p + 4, q);
  }
}

void nm__q5_1_in(void *b, const float *x, int64_t n) {
  uint8_t *p = b, q[32];
  for (; n > 0; n -= 32, p += 24, x += 32) {
    put_line(p, x, 31, q);
    put_fives(p + 4, q);
  }
}

/* ---- blocks of 256 ------------------------------------------------------------- */

/* d, dmin and the eight pairs of six bits: the first sixteen bytes of Q4_K and Q5_K. */
static void put_lines(uint8_t *p, const struct nm__lines *b) {
  uint8_t *s = p + 4;
  put_half(p, b->d);
  put_half(p + 2, b->dmin);
  for (int j = 0; j < 4; j++) {
    s[j] = (uint8_t)(b->sc[j] | (b->sc[j + 4] >> 4) << 6);
    s[j + 4] = (uint8_t)(b->mn[j] | (b->mn[j + 4] >> 4) << 6);
    s[j + 8] = (uint8_t)((b->sc[j + 4] & 15) | (b->mn[j + 4] & 15) << 4);
  }
}

/* 32 bytes serve 64 elements: the low nibbles one group, the high ones the next. */
static void put_pairs(uint8_t *p, const uint8_t *q) {
  for (int i = 0; i < 128; i++) {
    const uint8_t *two = q + 64 * (i / 32) + i % 32;
    p[i] = (uint8_t)((two[0] & 15) | (two[32] & 15) << 4);
  }
}

void nm__q4_k_in(void *blocks, const float *x, int64_t n) {
  struct nm__lines b;
  uint8_t *p = blocks;
  for (; n > 0; n -= 256, p += 144, x += 256) {
    nm__fit_lines(x, 15, &b);
    put_lines(p, &b);
    put_pairs(p + 16, b.q);
  }
}

void nm__q5_k_in(void *blocks, const float *x, int64_t n) {
  struct nm__lines b;
  uint8_t *p = blocks;
  for (; n > 0; n -= 256, p += 176, x += 256) {
    nm__fit_lines(x, 31, &b);
    put_lines(p, &b);
    memset(p + 16, 0, 32);
    for (int i = 0; i < 256; i++) p[16 + i % 32] |= (uint8_t)((b.q[i] >> 4) << (i / 32));
    put_pairs(p + 48, b.q);
  }
}

void nm__q6_k_in(void *blocks, const float *x, int64_t n) {
  struct nm__scales b;
  uint8_t *p = blocks;
  for (; n > 0; n -= 256, p += 210, x += 256) {
    nm__fit_scales(x, &b);
    memset(p, 0, 192);
    for (int i = 0; i < 256; i++) {
      int half = i / 128, r = i % 128;
      p[64 * half + r % 64] |= (uint8_t)((b.q[i] & 15) << (r < 64 ? 0 : 4));
      p[128 + 32 * half + r % 32] |= (uint8_t)((b.q[i] >> 4) << (2 * (r / 32)));
    }
    for (int j = 0; j < 16; j++) p[192 + j] = (uint8_t)(int8_t)b.sc[j];
    put_half(p + 208, b.d);
  }
}
