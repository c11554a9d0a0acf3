/* math.c - exp, log, sin, cos, tanh in double, from their series after exact
 * argument reduction. No libm: the same bits wherever IEEE double is. Products
 * and sums are plain (never contracted: -ffp-contract=off). */
#include "tensor/math.h"

#include "core/core.h"

#include <float.h>
#include <stdint.h>
#include <string.h>

static double from_bits(uint64_t u) {
  double d;
  memcpy(&d, &u, sizeof d);
  return d;
}

static uint64_t to_bits(double d) {
  uint64_t u;
  memcpy(&u, &d, sizeof u);
  return u;
}

double nm__sqrt(double x) { return __builtin_sqrt(x); }

/* Nearest integer for |x| < 2^51, by the shift trick (round to even). */
static double nearest(double x) {
  const double big = 0x1.8p52;
  return (x + big) - big;
}

/* 2^k * x in steps that neither overflow early nor round twice for normal results. */
static double scale2(double x, int k) {
  if (k > 1023) { x *= 0x1p1023; k -= 1023; }
  if (k < -1022) { x *= 0x1p-969; k += 969; }
  if (k < -1022) return 0.0;
  return x * from_bits((uint64_t)(k + 1023) << 52);
}

/* exp(r) - 1 for |r| <= ln2/2: Taylor to r^13 (remainder below 2e-17 relative). */
static double expm1_small(double r) {
  static const double inv[] = {1.0 / 2, 1.0 / 3, 1.0 / 4, 1.0 / 5, 1.0 / 6, 1.0 / 7, 1.0 / 8,
                               1.0 / 9, 1.0 / 10, 1.0 / 11, 1.0 / 12, 1.0 / 13};
  double s = 1.0;
  for (int i = 11; i >= 0; i--) s = 1.0 + r * inv[i] * s;
  return r * s;
}

static const double LN2_HI = 0x1.62e42fefa39efp-1, LN2_LO = 0x1.abc9e3b39803fp-56;
/* The first 33 bits of ln 2, so that k * LN2_33 is exact for |k| < 2^20. */
static const double LN2_33 = 0x1.62e42feep-1, LN2_REST = 0x1.a39ef35793c76p-33;

double nm__exp(double x) {
  if (x != x) return x;
  if (x > 709.8) return DBL_MAX * 2.0;
  if (x < -745.2) return 0.0;
  double k = nearest(x * 0x1.71547652b82fep0);
  double r = (x - k * LN2_33) - k * LN2_REST;
  return scale2(1.0 + expm1_small(r), (int)k);
}

/* log(1+f)-like core: x = 2^k m with m in [sqrt(1/2), sqrt(2)), s = (m-1)/(m+1),
 * log m = 2 atanh(s) = 2 (s + s^3/3 + ...). */
static double log_ratio(double s) {
  double z = s * s, p = 0.0;
  for (int i = 25; i >= 3; i -= 2) p = (p + 1.0 / i) * z;
  return 2.0 * (s + s * p);
}

double nm__log(double x) {
  if (!(x > 0.0)) return x == 0.0 ? -DBL_MAX * 2.0 : from_bits(0x7ff8000000000000u);
  if (x > DBL_MAX) return x;
  int k = 0;
  if (x < DBL_MIN) { x *= 0x1p54; k = -54; }
  uint64_t u = to_bits(x);
  k += (int)(u >> 52) - 1023;
  double m = from_bits((u & 0xfffffffffffffu) | 0x3ff0000000000000u);
  if (m > 0x1.6a09e667f3bcdp0) { m *= 0.5; k++; }
  return k * LN2_HI + (log_ratio((m - 1.0) / (m + 1.0)) + k * LN2_LO);
}

double nm__log1p(double x) {
  if (x > -0.25 && x < 0.25) return log_ratio(x / (2.0 + x));
  return nm__log(1.0 + x);
}

double nm__pow(double x, double y) {
  /* log x in two parts keeps the error of exp(y log x) near one unit: the exponent
   * part is exact and the product's error is recovered with an exact split. */
  double l = nm__log(x), p = y * l;
  double err = __builtin_fma(y, l, -p);
  return nm__exp(p) * (1.0 + err);
}

double nm__tanh(double x) {
  double a = x < 0 ? -x : x;
  if (a > 20.0) return x < 0 ? -1.0 : 1.0;
  if (a < 0.3) {                   /* (e^2a - 1) / (e^2a + 1) without cancellation */
    double e = expm1_small(a), m = e * (2.0 + e);
    double t = m / (m + 2.0);
    return x < 0 ? -t : t;
  }
  double e = nm__exp(2.0 * a), t = 1.0 - 2.0 / (e + 1.0);
  return x < 0 ? -t : t;
}

/* ---- sin and cos ----------------------------------------------------- */

/* pi/2 in pieces of 33 bits: k * piece is exact for |k| < 2^20; for larger k the
 * error stays near |x| * 1e-16, that of the argument itself. */
static double reduce(double x, int *quadrant) {
  static const double P1 = 0x1.921fb544p0, P2 = 0x1.0b4611a6p-34, P3 = 0x1.3198a2e037073p-69;
  double k = nearest(x * 0x1.45f306dc9c883p-1);
  *quadrant = k > -0x1p62 && k < 0x1p62 ? (int)((int64_t)k & 3) : 0;   /* beyond: no meaning left */
  return ((x - k * P1) - k * P2) - k * P3;
}

static double sin_core(double r) {
  double z = r * r, s = 1.0;
  for (int i = 16; i >= 2; i -= 2) s = 1.0 - z / (double)(i * (i + 1)) * s;
  return r * s;
}

static double cos_core(double r) {
  double z = r * r, s = 1.0;
  for (int i = 17; i >= 1; i -= 2) s = 1.0 - z / (double)(i * (i + 1)) * s;
  return s;
}

double nm__sin(double x) {
  int q;
  double r = reduce(x, &q);
  double v = q & 1 ? cos_core(r) : sin_core(r);
  return q & 2 ? -v : v;
}

double nm__cos(double x) {
  int q;
  double r = reduce(x, &q);
  double v = q & 1 ? sin_core(r) : cos_core(r);
  return q == 1 || q == 2 ? -v : v;
}

/* Two normal values from two uniform ones (Box and Muller 1958). */
void nm__normals(float *x, int64_t n, double std, uint64_t seed, uint64_t stream) {
  for (int64_t i = 0; i < n; i += 2) {
    double u = ((double)(nm__rand_at(seed, stream, (uint64_t)i) >> 11) + 1) * 0x1p-53;
    double v = (double)(nm__rand_at(seed, stream, (uint64_t)i + 1) >> 11) * 0x1p-53;
    double r = std * nm__sqrt(-2 * nm__log(u)), angle = 6.283185307179586 * v;
    x[i] = (float)(r * nm__cos(angle));
    if (i + 1 < n) x[i + 1] = (float)(r * nm__sin(angle));
  }
}

/* ---- for callers (noema.h) -------------------------------------------------- */

void nm_log_softmax(const float *logits, int V, double *out) {
  double top = (double)logits[0], sum = 0;
  for (int v = 1; v < V; v++) top = (double)logits[v] > top ? (double)logits[v] : top;
  for (int v = 0; v < V; v++) sum += nm__exp((double)logits[v] - top);
  double log_sum = nm__log(sum);
  for (int v = 0; v < V; v++) out[v] = (double)logits[v] - top - log_sum;
}

double nm_exp(double x) { return nm__exp(x); }
double nm_log(double x) { return nm__log(x); }
