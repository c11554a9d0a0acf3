/* wide_body.h - the functions of wide.h for one instruction set: WIDE_NAME(x) names them, WIDE_FOR
 * is the attribute that chooses the set. Included several times by wide.c. */

WIDE_FOR static void WIDE_NAME(from_f32)(double *out, const float *x, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    f8 a;
    memcpy(&a, x + i, sizeof a);
    d8 b = __builtin_convertvector(a, d8);
    memcpy(out + i, &b, sizeof b);
  }
  for (; i < n; i++) out[i] = (double)x[i];
}

WIDE_FOR static void WIDE_NAME(dot4)(double t[4], const double *x, size_t ldx, const double *w,
                                     int k) {
  d8 a0 = {0}, b0 = {0}, c0 = {0}, e0 = {0}, a1 = {0}, b1 = {0}, c1 = {0}, e1 = {0};
  const double *xa = x, *xb = x + ldx, *xc = x + 2 * ldx, *xe = x + 3 * ldx;
  int j = 0;
  for (; j + 16 <= k; j += 16) {
    d8 w0, w1, v;
#define LOAD(p) (memcpy(&v, (p), sizeof v), v)
    memcpy(&w0, w + j, sizeof w0);
    memcpy(&w1, w + j + 8, sizeof w1);
    a0 += LOAD(xa + j) * w0;
    b0 += LOAD(xb + j) * w0;
    c0 += LOAD(xc + j) * w0;
    e0 += LOAD(xe + j) * w0;
    a1 += LOAD(xa + j + 8) * w1;
    b1 += LOAD(xb + j + 8) * w1;
    c1 += LOAD(xc + j + 8) * w1;
    e1 += LOAD(xe + j + 8) * w1;
#undef LOAD
  }
  d8 s[4] = {a0 + a1, b0 + b1, c0 + c1, e0 + e1};
  for (int i = 0; i < 4; i++) {
    const double *r = x + (size_t)i * ldx;
    t[i] = ((s[i][0] + s[i][4]) + (s[i][2] + s[i][6])) +
           ((s[i][1] + s[i][5]) + (s[i][3] + s[i][7]));
    for (int l = j; l < k; l++) t[i] += r[l] * w[l];
  }
}

WIDE_FOR static double WIDE_NAME(dot1)(const float *x, const double *w, int k) {
  d8 s0 = {0}, s1 = {0};
  int j = 0;
  for (; j + 16 <= k; j += 16) {
    f8 a, b;
    d8 w0, w1;
    memcpy(&a, x + j, sizeof a);
    memcpy(&b, x + j + 8, sizeof b);
    memcpy(&w0, w + j, sizeof w0);
    memcpy(&w1, w + j + 8, sizeof w1);
    s0 += __builtin_convertvector(a, d8) * w0;
    s1 += __builtin_convertvector(b, d8) * w1;
  }
  d8 s = s0 + s1;
  double t = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
  for (; j < k; j++) t += (double)x[j] * w[j];
  return t;
}

WIDE_FOR static void WIDE_NAME(add4)(double *g, const double p[4], const double *x, size_t ldx,
                                     int k) {
  const double *xa = x, *xb = x + ldx, *xc = x + 2 * ldx, *xe = x + 3 * ldx;
  int j = 0;
  for (; j + 8 <= k; j += 8) {
    d8 a, b, c, e, s;
    memcpy(&a, xa + j, sizeof a);
    memcpy(&b, xb + j, sizeof b);
    memcpy(&c, xc + j, sizeof c);
    memcpy(&e, xe + j, sizeof e);
    memcpy(&s, g + j, sizeof s);
    s += (a * p[0] + b * p[1]) + (c * p[2] + e * p[3]);
    memcpy(g + j, &s, sizeof s);
  }
  for (; j < k; j++) g[j] += (xa[j] * p[0] + xb[j] * p[1]) + (xc[j] * p[2] + xe[j] * p[3]);
}

WIDE_FOR static void WIDE_NAME(bf16)(uint16_t *out, float *q, const float *x, const float *shift,
                                     int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    f8 a, b, s;
    u8 u;
    memcpy(&a, x + i, sizeof a);
    memcpy(&b, shift + i, sizeof b);
    memcpy(&s, q + i, sizeof s);
    a += b;
    memcpy(&u, &a, sizeof u);
    u += 0x7fffu + ((u >> 16) & 1);
    h8 h = __builtin_convertvector(u >> 16, h8);
    memcpy(out + i, &h, sizeof h);
    s += a * a;
    memcpy(q + i, &s, sizeof s);
  }
  for (; i < n; i++) {
    float a = x[i] + shift[i];
    uint32_t u;
    memcpy(&u, &a, sizeof u);
    out[i] = (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
    q[i] += a * a;
  }
}

static const struct nm__wide WIDE_NAME(set) = {WIDE_NAME(from_f32), WIDE_NAME(dot4),
                                               WIDE_NAME(dot1), WIDE_NAME(add4),
                                               WIDE_NAME(bf16)};
#undef WIDE_NAME
#undef WIDE_FOR
