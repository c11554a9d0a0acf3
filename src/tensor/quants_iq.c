/* quants_iq.c - codebook types, 256 elements a block: eight sub-blocks of 32 (k), each of four
 * groups of eight (l). A group is an entry of a codebook times a scale, with signs of its
 * own; the codebooks and how an entry is packed are in iq_tables.h. */
#include "tensor/quants.h"

#include "tensor/iq_tables.h"

/* ---- parts ------------------------------------------------------------- */

/* Signs are kept as seven bits; the eighth makes the number of minus signs even. */
static unsigned with_parity(unsigned seven) {
  unsigned x = seven ^ seven >> 4;
  x ^= x >> 2;
  x ^= x >> 1;
  return seven | (x & 1) << 7;
}

/* Eight values, two bits each: 8, 25 or 43. A set sign bit is a minus. */
static float *eight(float *o, float db, unsigned entry, unsigned signs) {
  static const float level[4] = {8, 25, 43, 0};
  for (int j = 0; j < 8; j++) {
    float v = db * level[entry >> (2 * j) & 3];
    o[j] = signs >> j & 1 ? -v : v;
  }
  return o + 8;
}

/* Four values, three bits each, that stand for `level`. */
static float *four(float *o, float db, const uint8_t level[8], unsigned entry, unsigned signs) {
  for (int j = 0; j < 4; j++) {
    float v = db * (float)level[entry >> (3 * j) & 7];
    o[j] = signs >> j & 1 ? -v : v;
  }
  return o + 4;
}

/* Eight of -1, 0, 1, two bits each, moved by an eighth. */
static float *shifted(float *o, float dl, unsigned entry, bool down) {
  float delta = down ? -0.125f : 0.125f;
  for (int j = 0; j < 8; j++) o[j] = dl * ((float)((int)(entry >> (2 * j) & 3) - 1) + delta);
  return o + 8;
}

/* Nibble l / 2 of the scale byte: groups 0 and 1 share the low one, 2 and 3 the high one. */
static float quarter_scale(float d, uint8_t scales, int l) {
  return d * (0.5f + (float)(scales >> (4 * (l / 2)) & 15)) * 0.25f;
}

/* ---- two bits and a bit ------------------------------------------------------ */

void nm__iq2_xxs_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 66) {
    float d = nm__half_at(p);
    for (int k = 0; k < 8; k++) {
      const uint8_t *q = p + 2 + 8 * k;
      uint32_t w = nm__u32_at(q + 4);          /* the scale above four times seven signs */
      float db = d * (0.5f + (float)(w >> 28)) * 0.25f;
      for (int l = 0; l < 4; l++)
        o = eight(o, db, nm__iq2xxs_grid[q[l]], with_parity(w >> (7 * l) & 127));
    }
  }
}

void nm__iq2_xs_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 74) {
    float d = nm__half_at(p);
    for (int g = 0; g < 32; g++) {
      unsigned w = nm__u16_at(p + 2 + 2 * g);  /* nine bits of index, seven of signs */
      o = eight(o, quarter_scale(d, p[66 + g / 4], g % 4), nm__iq2xs_grid[w & 511],
                with_parity(w >> 9));
    }
  }
}

void nm__iq2_s_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 82) {
    float d = nm__half_at(p);
    for (int g = 0; g < 32; g++) {
      unsigned high = p[66 + g / 4] >> (2 * (g % 4)) & 3;
      o = eight(o, quarter_scale(d, p[74 + g / 4], g % 4), nm__iq2s_grid[p[2 + g] | high << 8],
                p[34 + g]);
    }
  }
}

/* ---- three bits: two codebook entries of four make a group --------------------- */

void nm__iq3_xxs_out(float *o, const void *b, int64_t n) {
  static const uint8_t level[8] = {4, 12, 20, 28, 36, 44, 52, 62};
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 98) {
    float d = nm__half_at(p);
    for (int k = 0; k < 8; k++) {
      uint32_t w = nm__u32_at(p + 66 + 4 * k);
      float db = d * (0.5f + (float)(w >> 28)) * 0.5f;
      for (int l = 0; l < 4; l++) {
        const uint8_t *q = p + 2 + 8 * k + 2 * l;
        unsigned signs = with_parity(w >> (7 * l) & 127);
        o = four(o, db, level, nm__iq3xxs_grid[q[0]], signs);
        o = four(o, db, level, nm__iq3xxs_grid[q[1]], signs >> 4);
      }
    }
  }
}

void nm__iq3_s_out(float *o, const void *b, int64_t n) {
  static const uint8_t level[8] = {1, 3, 5, 7, 9, 11, 13, 15};
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 110) {
    float d = nm__half_at(p);
    for (int k = 0; k < 8; k++) {
      float db = d * (float)(1 + 2 * (p[106 + k / 2] >> (4 * (k % 2)) & 15));
      for (int h = 0; h < 8; h++) {            /* halves of groups */
        unsigned index = p[2 + 8 * k + h] | (p[66 + k] >> h & 1u) << 8;
        o = four(o, db, level, nm__iq3s_grid[index], p[74 + 4 * k + h / 2] >> (4 * (h % 2)));
      }
    }
  }
}

/* ---- one bit and a half ------------------------------------------------------ */

void nm__iq1_s_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 50) {
    float d = nm__half_at(p);
    for (int k = 0; k < 8; k++) {
      unsigned w = nm__u16_at(p + 34 + 2 * k); /* four times three index bits, scale, shift */
      float dl = d * (float)(2 * (w >> 12 & 7) + 1);
      for (int l = 0; l < 4; l++) {
        unsigned index = p[2 + 4 * k + l] | (w >> (3 * l) & 7) << 8;
        o = shifted(o, dl, nm__iq1_grid[index], w >> 15);
      }
    }
  }
}

/* The scale of the block is spread over the top nibbles of the four words of scales. */
static float iq1_m_scale(const uint8_t *sc) {
  unsigned h = 0;
  for (int i = 0; i < 4; i++) h |= (unsigned)(sc[2 * i + 1] >> 4) << (4 * i);
  return nm__half_to_f32((uint16_t)h);
}

void nm__iq1_m_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 56) {
    float d = iq1_m_scale(p + 48);
    for (int g = 0; g < 32; g++) {
      int k = g / 4, l = g % 4;
      unsigned nibble = p[32 + g / 2] >> (4 * (g % 2)) & 15u;   /* three index bits, the shift */
      unsigned scale = nm__u16_at(p + 48 + 2 * (k / 2)) >> (6 * (k % 2) + 3 * (l / 2)) & 7;
      o = shifted(o, d * (float)(2 * scale + 1), nm__iq1_grid[p[g] | (nibble & 7) << 8],
                  nibble >> 3);
    }
  }
}

/* ---- four bits ------------------------------------------------------------- */

void nm__iq4_xs_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 256, p += 136) {
    float d = nm__half_at(p);
    unsigned high = nm__u16_at(p + 2);
    for (int k = 0; k < 8; k++, o += 32) {
      int s = (p[4 + k / 2] >> (4 * (k % 2)) & 15) | (int)(high >> (2 * k) & 3) << 4;
      const uint8_t *q = p + 8 + 16 * k;
      float dl = d * (float)(s - 32);
      for (int i = 0; i < 16; i++) {
        o[i] = dl * (float)nm__iq4_level[q[i] & 15];
        o[i + 16] = dl * (float)nm__iq4_level[q[i] >> 4];
      }
    }
  }
}
