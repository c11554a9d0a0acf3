/* quantise_fit.c - the search behind the quantised types: which scales and least values make the
 * least squared error. Errors count alike whatever the size of a weight: in a product they add up
 * as their squares.
 *
 * A group of 16 or 32 values has a scale, or a scale and a least value. The search alternates
 * between what can be solved: with the codes fixed, the best scale is a least-squares fit; with
 * the scale fixed, the best code is the nearest. It begins from several scales, since the nearest
 * minimum need not be a good one. The K types hold 256 values in groups whose scales are integers
 * themselves, times one half-precision number of the block:
 *
 *   1. each group alone;
 *   2. d (and dmin) of the block from the largest of them; every group takes the best among its
 *      integers and their neighbours; d and dmin are fitted again to all 256 values; once more
 *      while the error falls.
 *
 * All sums run in one order (eight lanes, then a fixed tree), so that the bytes are the same on
 * every machine, and no value depends on another block. */
#include "tensor/quantise_fit.h"

enum { LANES = 8, ROUNDS = 4 };

struct group { const float *x; int n; float low, high; double sum; };
struct sums { double q, qq, qx; };

static float fold(const float *s) {
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

static float as_half(float x) { return nm__half_to_f32(nm__f32_to_half(x)); }
static float inverse(float x) { return x ? 1.0f / x : 0.0f; }
static int clamp(int v, int low, int high) { return v < low ? low : v > high ? high : v; }

/* To the nearest code from 0 to top; a number that is none becomes 0. */
static inline float code_of(float v, float top) {
  v = v + 0.5f;
  v = v > 0 ? v : 0;
  v = v < top ? v : top;
  return (float)(int)v;
}

static struct group group_at(const float *x, int n) {
  struct group g = {.x = x, .n = n, .low = x[0], .high = x[0]};
  float s[LANES] = {0};
  for (int i = 0; i < n; i++) {
    g.low = x[i] < g.low ? x[i] : g.low;
    g.high = x[i] > g.high ? x[i] : g.high;
    s[i % LANES] += x[i];
  }
  g.sum = (double)fold(s);
  return g;
}

/* ---- a scale and a least value: x is about scale q - least ------------------------ */

struct line { float scale, least, error; };

static struct sums line_sums(const struct group *g, float inv, float least, float top) {
  float q[LANES] = {0}, qq[LANES] = {0}, qx[LANES] = {0};
  for (int i = 0; i < g->n; i += LANES)
    for (int l = 0; l < LANES; l++) {
      float c = code_of((g->x[i + l] + least) * inv, top);
      q[l] += c;
      qq[l] += c * c;
      qx[l] += c * g->x[i + l];
    }
  return (struct sums){(double)fold(q), (double)fold(qq), (double)fold(qx)};
}

static float line_error(const struct group *g, float scale, float least, float top) {
  float e[LANES] = {0}, inv = inverse(scale);
  for (int i = 0; i < g->n; i += LANES)
    for (int l = 0; l < LANES; l++) {
      float c = code_of((g->x[i + l] + least) * inv, top);
      float r = scale * c - least - g->x[i + l];
      e[l] += r * r;
    }
  return fold(e);
}

static void line_codes(const struct group *g, float scale, float least, float top, uint8_t *q) {
  float inv = inverse(scale);
  for (int i = 0; i < g->n; i++) q[i] = (uint8_t)code_of((g->x[i] + least) * inv, top);
}

/* Fits the line to the codes that (inv, least) gives; *f takes it if it is better. The K types
 * cannot hold a negative least value (`bounded`). */
static bool try_line(const struct group *g, float inv, float least, float top, bool bounded,
                     struct line *f) {
  struct sums s = line_sums(g, inv, least, top);
  double det = g->n * s.qq - s.q * s.q;
  if (!(det > 0)) return false;
  double a = (g->n * s.qx - g->sum * s.q) / det, m = (s.q * s.qx - s.qq * g->sum) / det;
  if (bounded && m < 0) {
    m = 0;
    a = s.qx / s.qq;
  }
  if (!(a > 0)) return false;
  float e = line_error(g, (float)a, (float)m, top);
  if (!(e < f->error)) return false;
  *f = (struct line){(float)a, (float)m, e};
  return true;
}

static struct line best_line(const struct group *g, float top, bool bounded) {
  float low = bounded && g->low > 0 ? 0 : g->low, range = g->high - low;
  struct line f = {range / top, -low, 0};
  if (!(range > 0)) return (struct line){0, -low, 0};
  f.error = line_error(g, f.scale, f.least, top);
  for (int i = -10; i <= 10; i++)
    try_line(g, (top + 0.1f * (float)i) / range, -low, top, bounded, &f);
  for (int i = 0; i < ROUNDS && try_line(g, inverse(f.scale), f.least, top, bounded, &f);) i++;
  return f;
}

void nm__fit_line(const float *x, int top, float *d, float *m, uint8_t *q) {
  struct group g = group_at(x, 32);
  struct line f = best_line(&g, (float)top, false);
  *d = as_half(f.scale);
  *m = as_half(-f.least);
  line_codes(&g, *d, -*m, (float)top, q);
}

/* ---- eight lines whose numbers are integers ---------------------------------------- */

/* For every group the best integers near those it has; returns the error of the block. */
static float choose_lines(const struct group *g, float top, struct nm__lines *b) {
  float total = 0;
  for (int j = 0; j < 8; j++) {
    float best = -1;
    int sc = b->sc[j], mn = b->mn[j];
    for (int s = clamp(sc - 1, 0, 63); s <= clamp(sc + 1, 0, 63); s++)
      for (int m = clamp(mn - 1, 0, 63); m <= clamp(mn + 1, 0, 63); m++) {
        float e = line_error(&g[j], b->d * (float)s, b->dmin * (float)m, top);
        if (best >= 0 && !(e < best)) continue;
        best = e;
        b->sc[j] = s;
        b->mn[j] = m;
      }
    total += best;
  }
  return total;
}

/* d and dmin fitted to all values, codes and integers as they are: two equations. */
static void refit_lines(const struct group *g, float top, struct nm__lines *b) {
  double ss = 0, sm = 0, mm = 0, sx = 0, mx = 0;
  for (int j = 0; j < 8; j++) {
    double sc = b->sc[j], mn = b->mn[j];
    struct sums s = line_sums(&g[j], inverse(b->d * (float)sc), b->dmin * (float)mn, top);
    ss += sc * sc * s.qq;
    sm += sc * mn * s.q;
    mm += mn * mn * g[j].n;
    sx += sc * s.qx;
    mx += mn * g[j].sum;
  }
  double det = ss * mm - sm * sm, d = ss > 0 ? sx / ss : 0, dmin = 0;
  if (det > 0 && sm * sx - ss * mx > 0) {
    d = (sx * mm - sm * mx) / det;
    dmin = (sm * sx - ss * mx) / det;
  }
  b->d = as_half((float)d);
  b->dmin = as_half((float)dmin);
}

static int nearest(float v, float unit) {
  float r = unit > 0 ? v / unit + 0.5f : 0;
  return r < 63 ? (int)r : 63;
}

void nm__fit_lines(const float *x, int top_code, struct nm__lines *out) {
  struct group g[8];
  struct line f[8];
  struct nm__lines b;
  float top = (float)top_code, scale = 0, least = 0;
  for (int j = 0; j < 8; j++) {
    g[j] = group_at(x + 32 * j, 32);
    f[j] = best_line(&g[j], top, true);
    scale = f[j].scale > scale ? f[j].scale : scale;
    least = f[j].least > least ? f[j].least : least;
  }
  b.d = as_half(scale / 63);
  b.dmin = as_half(least / 63);
  for (int j = 0; j < 8; j++) {
    b.sc[j] = nearest(f[j].scale, b.d);
    b.mn[j] = nearest(f[j].least, b.dmin);
  }
  float error = choose_lines(g, top, &b);
  for (int i = 0; i < ROUNDS; i++) {
    struct nm__lines next = b;
    refit_lines(g, top, &next);
    float e = choose_lines(g, top, &next);
    if (!(e < error)) break;
    b = next;
    error = e;
  }
  for (int j = 0; j < 8; j++)
    line_codes(&g[j], b.d * (float)b.sc[j], b.dmin * (float)b.mn[j], top, b.q + 32 * j);
  *out = b;
}

/* ---- a scale alone: x is about scale (q - zero) -------------------------------------- */

static struct sums scale_sums(const struct group *g, float inv, float zero) {
  float qq[LANES] = {0}, qx[LANES] = {0}, top = 2 * zero - 1;
  for (int i = 0; i < g->n; i += LANES)
    for (int l = 0; l < LANES; l++) {
      float c = code_of(g->x[i + l] * inv + zero, top) - zero;
      qq[l] += c * c;
      qx[l] += c * g->x[i + l];
    }
  return (struct sums){0, (double)fold(qq), (double)fold(qx)};
}

static float scale_error(const struct group *g, float scale, float zero) {
  float e[LANES] = {0}, inv = inverse(scale), top = 2 * zero - 1;
  for (int i = 0; i < g->n; i += LANES)
    for (int l = 0; l < LANES; l++) {
      float c = code_of(g->x[i + l] * inv + zero, top);
      float r = scale * (c - zero) - g->x[i + l];
      e[l] += r * r;
    }
  return fold(e);
}

static void scale_codes(const struct group *g, float scale, float zero, uint8_t *q) {
  float inv = inverse(scale);
  for (int i = 0; i < g->n; i++) q[i] = (uint8_t)code_of(g->x[i] * inv + zero, 2 * zero - 1);
}

/* A fitted scale takes qx^2 / qq off the sum of squares. */
static bool try_scale(const struct group *g, float inv, float zero, double *gain, float *scale) {
  struct sums s = scale_sums(g, inv, zero);
  if (!(s.qq > 0) || !(s.qx * s.qx > *gain * s.qq)) return false;
  *gain = s.qx * s.qx / s.qq;
  *scale = (float)(s.qx / s.qq);
  return true;
}

/* The codes reach one step further on one side, which either end may take. */
static float best_scale(const struct group *g, float zero) {
  float far = g->high > -g->low ? g->high : g->low, best = 0;
  double gain = 0;
  if (!far) return 0;
  for (int i = -5; i <= 3; i++) {
    float more = 0.3f * (float)i;
    try_scale(g, -(zero + more) / far, zero, &gain, &best);
    try_scale(g, (zero - 1 + more) / far, zero, &gain, &best);
  }
  for (int i = 0; i < ROUNDS && try_scale(g, inverse(best), zero, &gain, &best);) i++;
  return best;
}

float nm__fit_scale(const float *x, int zero, uint8_t *q) {
  struct group g = group_at(x, 32);
  float d = as_half(best_scale(&g, (float)zero));
  scale_codes(&g, d, (float)zero, q);
  return d;
}

static float choose_scales(const struct group *g, struct nm__scales *b) {
  float total = 0;
  for (int j = 0; j < 16; j++) {
    float best = -1;
    int sc = b->sc[j];
    for (int s = clamp(sc - 1, -128, 127); s <= clamp(sc + 1, -128, 127); s++) {
      float e = scale_error(&g[j], b->d * (float)s, 32);
      if (best >= 0 && !(e < best)) continue;
      best = e;
      b->sc[j] = s;
    }
    total += best;
  }
  return total;
}

static void refit_scales(const struct group *g, struct nm__scales *b) {
  double ss = 0, sx = 0;
  for (int j = 0; j < 16; j++) {
    double sc = b->sc[j];
    struct sums s = scale_sums(&g[j], inverse(b->d * (float)sc), 32);
    ss += sc * sc * s.qq;
    sx += sc * s.qx;
  }
  b->d = ss > 0 ? as_half((float)(sx / ss)) : 0;
}

void nm__fit_scales(const float *x, struct nm__scales *out) {
  struct group g[16];
  struct nm__scales b;
  float f[16], far = 0;
  for (int j = 0; j < 16; j++) {
    g[j] = group_at(x + 16 * j, 16);
    f[j] = best_scale(&g[j], 32);
    far = __builtin_fabsf(f[j]) > __builtin_fabsf(far) ? f[j] : far;
  }
  b.d = as_half(far / -128);       /* signed, so that the largest is the integer -128 */
  for (int j = 0; j < 16; j++) {
    float r = f[j] * inverse(b.d);
    b.sc[j] = r > -128 && r < 127 ? (int)(r < 0 ? r - 0.5f : r + 0.5f) : r < 0 ? -128 : 127;
  }
  float error = choose_scales(g, &b);
  for (int i = 0; i < ROUNDS; i++) {
    struct nm__scales next = b;
    refit_scales(g, &next);
    float e = choose_scales(g, &next);
    if (!(e < error)) break;
    b = next;
    error = e;
  }
  for (int j = 0; j < 16; j++) scale_codes(&g[j], b.d * (float)b.sc[j], 32, b.q + 16 * j);
  *out = b;
}
