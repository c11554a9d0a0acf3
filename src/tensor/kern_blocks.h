/* kern_blocks.h - stored rows: how each type's blocks become vectors of 16 floats, written once,
 * and the three things that are done with a vector: it is stored as f32, it is stored as
 * bf16, or it is multiplied into the sums of a product while it is still in its register. The
 * end of kern_body.h includes it. Values have the bits of the plain readers in dtype.c and
 * quants.c, whatever is done with them.
 *
 * A type of four or five bits has few values a block: they are computed once, as a table of 16
 * or 2 x 16 floats, and every element picks its own.
 *
 *      16 bytes     [ high:low | high:low | ... ]
 *      elements 0..15: table[low nibble]     elements 16..31: table[high nibble]            */

enum use { AS_F32, AS_BF16, TIMES_X };
struct sink {
  float *f32;
  uint16_t *bf16;
  const float *x;
  v16 sum;
};

/* Elements i .. i + 15 of the row are v. `use` is a constant wherever this is called. */
INLINE void put(struct sink *s, int64_t i, v16 v, const enum use use) {
  if (use == AS_F32) v_store(s->f32 + i, v);
  else if (use == AS_BF16) v_store_bf16(s->bf16 + i, v);
  else s->sum = v_fma(v_load(s->x + i), v, s->sum);
}

/* A block's scale. The sets that have the instruction use it: a call would cost as much as the
 * block itself. */
INLINE float scale_at(const uint8_t *b) {
#ifdef V_NO_HALF
  return nm__half_at(b);
#else
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(nm__u16_at(b))));
#endif
}

/* from, from + 1, ... from + 15, times d. */
INLINE v16 levels(float from, float d) {
  static const float count[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return v_mul(v_add(v_load(count), v_set(from)), v_set(d));
}

#define ROW(type) \
  INLINE void type##_row(struct sink *s, const uint8_t *b, int64_t n, const enum use use)

ROW(q8_0) {
  for (int64_t i = 0; i < n; i += 32, b += 34) {
    v16 d = v_set(scale_at(b));
    put(s, i, v_mul(v_from_i8((const int8_t *)b + 2), d), use);
    put(s, i + 16, v_mul(v_from_i8((const int8_t *)b + 18), d), use);
  }
}

/* 32 elements in 16 bytes, from a table of 16 values. */
INLINE void nibbles(struct sink *s, int64_t i, const uint8_t *q, v16 table, const enum use use) {
  put(s, i, v_pick(table, q, 0), use);
  put(s, i + 16, v_pick(table, q, 4), use);
}

ROW(q4_0) {
  for (int64_t i = 0; i < n; i += 32, b += 18) nibbles(s, i, b + 2, levels(-8, scale_at(b)), use);
}

ROW(q4_1) {
  for (int64_t i = 0; i < n; i += 32, b += 20)
    nibbles(s, i, b + 4, v_add(levels(0, scale_at(b)), v_set(scale_at(b + 2))), use);
}

ROW(iq4_nl) {
  v16 level = v_from_i8(nm__iq4_level);
  for (int64_t i = 0; i < n; i += 32, b += 18)
    nibbles(s, i, b + 2, v_mul(v_set(scale_at(b)), level), use);
}

/* Of five bits the fifth, bit k of the word for element k, chooses between two tables. */
INLINE void five_bits(struct sink *s, int64_t i, const uint8_t *q, uint32_t fifth, v16 low,
                      v16 high, const enum use use) {
  put(s, i, v_pick2(low, high, q, 0, fifth & 0xffff), use);
  put(s, i + 16, v_pick2(low, high, q, 4, fifth >> 16), use);
}

ROW(q5_0) {
  for (int64_t i = 0; i < n; i += 32, b += 22) {
    float d = scale_at(b);
    five_bits(s, i, b + 6, nm__u32_at(b + 2), levels(-16, d), levels(0, d), use);
  }
}

ROW(q5_1) {
  for (int64_t i = 0; i < n; i += 32, b += 24) {
    float d = scale_at(b);
    v16 m = v_set(scale_at(b + 2));
    five_bits(s, i, b + 8, nm__u32_at(b + 4), v_add(levels(0, d), m), v_add(levels(16, d), m), use);
  }
}

/* Groups 2 j and 2 j + 1 of 32 elements share 32 bytes: low nibbles, then high ones. */
ROW(q4_k) {
  for (int64_t i = 0; i < n; i += 256, b += 144) {
    float d = scale_at(b), dmin = scale_at(b + 2), scale, least;
    for (int j = 0; j < 8; j++) {
      const uint8_t *q = b + 16 + 32 * (j / 2);
      nm__six_bits(b + 4, j, d, dmin, &scale, &least);
      v16 table = v_sub(levels(0, scale), v_set(least));
      put(s, i + 32 * j, v_pick(table, q, 4 * (j % 2)), use);
      put(s, i + 32 * j + 16, v_pick(table, q + 16, 4 * (j % 2)), use);
    }
  }
}

/* The fifth bit of group j is bit j of the bytes at 16. */
ROW(q5_k) {
  for (int64_t i = 0; i < n; i += 256, b += 176) {
    float d = scale_at(b), dmin = scale_at(b + 2), scale, least;
    for (int j = 0; j < 8; j++) {
      const uint8_t *q = b + 48 + 32 * (j / 2);
      nm__six_bits(b + 4, j, d, dmin, &scale, &least);
      v16 m = v_set(least), low = v_sub(levels(0, scale), m), high = v_sub(levels(16, scale), m);
      put(s, i + 32 * j, v_pick2(low, high, q, 4 * (j % 2), bit_of16(b + 16, j)), use);
      put(s, i + 32 * j + 16, v_pick2(low, high, q + 16, 4 * (j % 2), bit_of16(b + 32, j)), use);
    }
  }
}

/* 64 bytes of low nibbles, then of high ones, give 128 elements their four low bits; two more
 * lie in 32 bytes, two bits for each run of 32 elements. */
ROW(q6_k) {
  for (int64_t i = 0; i < n; i += 256, b += 210) {
    float d = scale_at(b + 208);
    for (int j = 0; j < 16; j++) {
      const uint8_t *q = b + 64 * (j / 8) + 16 * (j % 4);
      const uint8_t *high = b + 128 + 32 * (j / 8) + 16 * (j % 2);
      v16 scale = v_set(d * (float)(int8_t)b[192 + j]);
      put(s, i + 16 * j,
          v_mul(scale, v_from_six(q, 4 * (j / 4 % 2), high, 2 * (j / 2 % 4))), use);
    }
  }
}

/* The last elements of a row of whole numbers of none: fewer than 16, continued by zeros. */
INLINE void put_tail(struct sink *s, int64_t i, int n, const float v[16], const enum use use) {
  if (use == AS_F32) memcpy(s->f32 + i, v, sizeof(float) * (size_t)n);
  else if (use == AS_BF16) for (int k = 0; k < n; k++) s->bf16[i + k] = nm__f32_to_bf16(v[k]);
  else s->sum = v_fma(v_load_n(s->x + i, n), v_load(v), s->sum);
}

#define PLAIN_ROW(type, id, bytes, load) \
  ROW(type) { \
    int64_t i = 0; \
    for (; i + 16 <= n; i += 16) put(s, i, load(b + bytes * i), use); \
    float rest[16] = {0}; \
    if (i == n) return; \
    nm__dtype(id)->to_f32(rest, b + bytes * i, n - i); \
    put_tail(s, i, (int)(n - i), rest, use); \
  }
#define load_f32(p) v_load((const float *)(const void *)(p))
PLAIN_ROW(f32, NM__F32, 4, load_f32)
PLAIN_ROW(bf16, NM__BF16, 2, v_from_bf16)
PLAIN_ROW(f16, NM__F16, 2, v_from_half)

/* Any other type: its plain reader, 256 elements at a time (every block divides that). */
INLINE void other_row(struct sink *s, const uint8_t *b, int64_t n, uint32_t type,
                      const enum use use) {
  const struct nm__dtype_info *t = nm__dtype(type);
  for (int64_t i = 0; i < n; i += 256) {
    float v[256] = {0};
    int64_t left = n - i < 256 ? n - i : 256, k = 0;
    t->to_f32(v, b + i / t->block * t->bytes, left);
    for (; k + 16 <= left; k += 16) put(s, i + k, v_load(v + k), use);
    if (k < left) put_tail(s, i + k, (int)(left - k), v + k, use);
  }
}

INLINE void row(struct sink *s, const uint8_t *b, int64_t n, uint32_t type, const enum use use) {
  switch (type) {
    case NM__F32: f32_row(s, b, n, use); break;
    case NM__F16: f16_row(s, b, n, use); break;
    case NM__BF16: bf16_row(s, b, n, use); break;
    case NM__Q8_0: q8_0_row(s, b, n, use); break;
    case NM__Q4_0: q4_0_row(s, b, n, use); break;
    case NM__Q4_1: q4_1_row(s, b, n, use); break;
    case NM__Q5_0: q5_0_row(s, b, n, use); break;
    case NM__Q5_1: q5_1_row(s, b, n, use); break;
    case NM__Q4_K: q4_k_row(s, b, n, use); break;
    case NM__Q5_K: q5_k_row(s, b, n, use); break;
    case NM__Q6_K: q6_k_row(s, b, n, use); break;
    case NM__IQ4_NL: iq4_nl_row(s, b, n, use); break;
    default: other_row(s, b, n, type, use);
  }
}

static void to_f32(float *out, const void *blocks, int64_t n, uint32_t type) {
  struct sink s = {.f32 = out};
  row(&s, blocks, n, type, AS_F32);
}

static void to_bf16(uint16_t *out, const void *blocks, int64_t n, uint32_t type) {
  struct sink s = {.bf16 = out};
  row(&s, blocks, n, type, AS_BF16);
}

static void gemv(float *y, const float *x, const uint8_t *w, size_t row_bytes, int n, int k,
                 uint32_t type) {
  if (type == NM__F32 && row_bytes == sizeof(float) * (size_t)k) {
    f32_row_of_x(y, x, (const float *)(const void *)w, (size_t)k, n, k);
    return;
  }
  for (int j = 0; j < n; j++, w += row_bytes) {
    struct sink s = {.x = x, .sum = v_set(0.0f)};
    row(&s, w, k, type, TIMES_X);
    y[j] = v_sum(s.sum);
  }
}
