/* dtype.c - the table of tensor types, and the plain dequantisers that define what each block
 * means (those of the other quantised types are in quants.c and quants_iq.c). Faster ones in
 * the kernels give the same bits. Writers of blocks are in quantise.c. */
#include "tensor/dtype.h"

#include <string.h>
#include <strings.h>

#include "tensor/quants.h"

float nm__half_to_f32(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 1023, u;
  if (e == 31) {
    u = sign | 0x7f800000u | m << 13;
  } else if (e) {
    u = sign | (e + 112) << 23 | m << 13;
  } else if (m) {                  /* subnormal: shift the leading one into place */
    e = 113;
    while (!(m & 1024)) { m <<= 1; e--; }
    u = sign | e << 23 | (m & 1023) << 13;
  } else {
    u = sign;
  }
  float f;
  memcpy(&f, &u, 4);
  return f;
}

uint16_t nm__f32_to_half(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
  uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return sign | 0x7e00;
  if (a >= 0x477ff000u) return sign | 0x7c00;          /* rounds to infinity */
  if (a >= 0x38800000u) {
    uint32_t r = a - 0x38000000u + 0xfff + (a >> 13 & 1);
    return sign | (uint16_t)(r >> 13);
  }
  if (a < 0x33000000u) return sign;
  uint32_t e = a >> 23, m = (a & 0x7fffffu) | 0x800000u, shift = 126 - e;
  uint32_t half = 1u << (shift - 1), v = m >> shift, rest = m & ((1u << shift) - 1);
  if (rest > half || (rest == half && (v & 1))) v++;
  return sign | (uint16_t)v;
}

float nm__bf16_to_f32(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

uint16_t nm__f32_to_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40);
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* ---- plain types ----------------------------------------------------- */

static void f32_out(float *o, const void *b, int64_t n) { memcpy(o, b, (size_t)n * 4); }
static void f32_in(void *b, const float *x, int64_t n) { memcpy(b, x, (size_t)n * 4); }
static void f16_out(float *o, const void *b, int64_t n) {
  for (int64_t i = 0; i < n; i++) o[i] = nm__half_at((const uint8_t *)b + 2 * i);
}
static void u16_in(uint8_t *p, uint16_t v) {
  p[0] = (uint8_t)v;
  p[1] = (uint8_t)(v >> 8);
}
static void f16_in(void *b, const float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) u16_in((uint8_t *)b + 2 * i, nm__f32_to_half(x[i]));
}
static void bf16_out(float *o, const void *b, int64_t n) {
  for (int64_t i = 0; i < n; i++) o[i] = nm__bf16_to_f32(nm__u16_at((const uint8_t *)b + 2 * i));
}
static void bf16_in(void *b, const float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) u16_in((uint8_t *)b + 2 * i, nm__f32_to_bf16(x[i]));
}

/* ---- blocks of 32: [d: half][quants] ---------------------------------- */

static void q8_0_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 32, p += 34, o += 32) {
    float d = nm__half_at(p);
    for (int i = 0; i < 32; i++) o[i] = (float)(int8_t)p[2 + i] * d;
  }
}

static void q4_0_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 32, p += 18, o += 32) {
    float d = nm__half_at(p);
    for (int i = 0; i < 16; i++) {
      o[i] = (float)((p[2 + i] & 15) - 8) * d;
      o[i + 16] = (float)((p[2 + i] >> 4) - 8) * d;
    }
  }
}

/* The fifth bit of element i is bit i of the word at byte 2. */
static void q5_0_out(float *o, const void *b, int64_t n) {
  const uint8_t *p = b;
  for (; n > 0; n -= 32, p += 22, o += 32) {
    float d = nm__half_at(p);
    uint32_t high = nm__u32_at(p + 2);
    for (int i = 0; i < 16; i++) {
      int lo = (p[6 + i] & 15) | (int)(high >> i & 1) << 4;
      int hi = (p[6 + i] >> 4) | (int)(high >> (i + 16) & 1) << 4;
      o[i] = (float)(lo - 16) * d;
      o[i + 16] = (float)(hi - 16) * d;
    }
  }
}

/* ---- the table ------------------------------------------------------- */

#define GONE(n, why) [n] = {NULL, why, 0, 0, NULL, NULL}
static const struct nm__dtype_info table[NM__DTYPE_END] = {
    [NM__F32] = {"F32", NULL, 1, 4, f32_out, f32_in},
    [NM__F16] = {"F16", NULL, 1, 2, f16_out, f16_in},
    [NM__BF16] = {"BF16", NULL, 1, 2, bf16_out, bf16_in},
    [NM__Q8_0] = {"Q8_0", NULL, 32, 34, q8_0_out, nm__q8_0_in},
    [NM__Q4_0] = {"Q4_0", NULL, 32, 18, q4_0_out, nm__q4_0_in},
    [NM__Q5_0] = {"Q5_0", NULL, 32, 22, q5_0_out, nm__q5_0_in},
    [NM__Q4_1] = {"Q4_1", NULL, 32, 20, nm__q4_1_out, nm__q4_1_in},
    [NM__Q5_1] = {"Q5_1", NULL, 32, 24, nm__q5_1_out, nm__q5_1_in},
    [9] = {"Q8_1", NULL, 32, 36, NULL, NULL},
    [10] = {"Q2_K", NULL, 256, 84, nm__q2_k_out, NULL},
    [11] = {"Q3_K", NULL, 256, 110, nm__q3_k_out, NULL},
    [12] = {"Q4_K", NULL, 256, 144, nm__q4_k_out, nm__q4_k_in},
    [13] = {"Q5_K", NULL, 256, 176, nm__q5_k_out, nm__q5_k_in},
    [14] = {"Q6_K", NULL, 256, 210, nm__q6_k_out, nm__q6_k_in},
    [15] = {"Q8_K", NULL, 256, 292, NULL, NULL},
    [16] = {"IQ2_XXS", NULL, 256, 66, nm__iq2_xxs_out, NULL},
    [17] = {"IQ2_XS", NULL, 256, 74, nm__iq2_xs_out, NULL},
    [18] = {"IQ3_XXS", NULL, 256, 98, nm__iq3_xxs_out, NULL},
    [19] = {"IQ1_S", NULL, 256, 50, nm__iq1_s_out, NULL},
    [20] = {"IQ4_NL", NULL, 32, 18, nm__iq4_nl_out, NULL},
    [21] = {"IQ3_S", NULL, 256, 110, nm__iq3_s_out, NULL},
    [22] = {"IQ2_S", NULL, 256, 82, nm__iq2_s_out, NULL},
    [23] = {"IQ4_XS", NULL, 256, 136, nm__iq4_xs_out, NULL},
    [NM__I8] = {"I8", NULL, 1, 1, NULL, NULL},
    [NM__I16] = {"I16", NULL, 1, 2, NULL, NULL},
    [NM__I32] = {"I32", NULL, 1, 4, NULL, NULL},
    [NM__I64] = {"I64", NULL, 1, 8, NULL, NULL},
    [NM__F64] = {"F64", NULL, 1, 8, NULL, NULL},
    [29] = {"IQ1_M", NULL, 256, 56, nm__iq1_m_out, NULL},
    [34] = {"TQ1_0", NULL, 256, 54, nm__tq1_0_out, NULL},
    [35] = {"TQ2_0", NULL, 256, 66, nm__tq2_0_out, NULL},
    [39] = {"MXFP4", NULL, 32, 17, nm__mxfp4_out, NULL},
    [40] = {"NVFP4", NULL, 64, 36, nm__nvfp4_out, NULL},
    [41] = {"Q1_0", NULL, 128, 18, nm__q1_0_out, NULL},
    [42] = {"Q2_0", NULL, 64, 18, nm__q2_0_out, NULL},
    GONE(4, "Q4_2 was removed from the format"),
    GONE(5, "Q4_3 was removed from the format"),
    GONE(31, "Q4_0_4_4 was removed from the format"),
    GONE(32, "Q4_0_4_8 was removed from the format"),
    GONE(33, "Q4_0_8_8 was removed from the format"),
    GONE(36, "IQ4_NL_4_4 was removed from the format"),
    GONE(37, "IQ4_NL_4_8 was removed from the format"),
    GONE(38, "IQ4_NL_8_8 was removed from the format"),
};

const struct nm__dtype_info *nm__dtype(uint32_t type) {
  if (type >= NM__DTYPE_END || (!table[type].name && !table[type].removed)) return NULL;
  return &table[type];
}

int nm__dtype_by_name(const char *name) {
  for (int i = 0; i < NM__DTYPE_END; i++)
    if (table[i].name && !strcasecmp(table[i].name, name)) return i;
  return -1;
}

void nm__dtype_names(struct nm__buf *b) {
  const char *comma = "";
  for (int i = 0; i < NM__DTYPE_END; i++)
    if (table[i].to_f32) {
      nm__buf_printf(b, "%s%s", comma, table[i].name);
      comma = ", ";
    }
}

void nm__dtype_written(struct nm__buf *b) {
  const char *comma = "";
  for (int i = 0; i < NM__DTYPE_END; i++)
    if (table[i].from_f32) {
      nm__buf_printf(b, "%s%s", comma, table[i].name);
      comma = ", ";
    }
}
