/* kern_grad.h - the kernels of the backward pass, over the same 16-lane vector; the end of
 * kern_body.h includes it. All add to what their output holds: a tensor that is used twice has
 * the sum of two gradients. Derivatives are written out beside each function. */

/* silu' = s (1 + x (1 - s)), s = 1 / (1 + e^-x) */
static inline v16 v_silu_d(v16 x) {
  v16 one = v_set(1.0f), s = v_div(one, v_add(one, v_exp(v_sub(v_set(0.0f), x))));
  return v_mul(s, v_fma(x, v_sub(one, s), one));
}

/* y = x s(2u): y' = s + x s (1 - s) 2u', 2u' = 2 sqrt(2/pi) (1 + 3 * 0.044715 x^2) */
static inline v16 v_gelu_tanh_d(v16 x) {
  v16 one = v_set(1.0f), sq = v_mul(x, x);
  v16 u2 = v_mul(v_set(-1.5957691216057308f), v_mul(x, v_fma(v_set(0.044715f), sq, one)));
  v16 s = v_div(one, v_add(one, v_exp(u2)));
  v16 du = v_mul(v_set(1.5957691216057308f), v_fma(v_set(0.134145f), sq, one));
  return v_fma(v_mul(v_mul(x, du), s), v_sub(one, s), s);
}

/* y' = P + x p, P the normal distribution's integral and p its density. With
 * t = erfc(|x| / sqrt 2) / 2 the integral is t below zero and 1 - t above:
 * t + (1 - 2t where x >= 0). */
static inline v16 v_gelu_erf_d(v16 x) {
  v16 t = v_mul(v_set(0.5f), v_erfc(v_mul(v_abs(x), v_set(0x1.6a09e6p-1f))));
  v16 above = v_zero_below(x, 0.0f, v_sub(v_sub(v_set(1.0f), t), t));
  v16 p = v_mul(v_set(0.3989422804014327f), v_exp(v_mul(v_set(-0.5f), v_mul(x, x))));
  return v_fma(x, p, v_add(t, above));
}

static inline v16 v_act(v16 x, enum nm__act kind) {
  switch (kind) {
    case NM__ACT_GELU_TANH: return v_gelu_tanh(x);
    case NM__ACT_GELU_ERF: return v_gelu_erf(x);
    default: return v_silu(x);
  }
}
static inline v16 v_act_d(v16 x, enum nm__act kind) {
  switch (kind) {
    case NM__ACT_GELU_TANH: return v_gelu_tanh_d(x);
    case NM__ACT_GELU_ERF: return v_gelu_erf_d(x);
    default: return v_silu_d(x);
  }
}

/* dx += dz act'(x) */
static void act_back(float *dx, const float *x, const float *dz, int64_t n, enum nm__act kind) {
  ROWS(n, STORE(dx, v_fma(LOAD(dz), v_act_d(LOAD(x), kind), LOAD(dx))););
}

/* z = act(g) u: dg += dz u act'(g), du += dz act(g); either may be NULL. */
static void act_mul_back(float *dg, float *du, const float *g, const float *u, const float *dz,
                         int64_t n, enum nm__act kind) {
  if (dg)
    ROWS(n, STORE(dg, v_fma(v_mul(LOAD(dz), LOAD(u)), v_act_d(LOAD(g), kind), LOAD(dg))););
  if (du) ROWS(n, STORE(du, v_fma(LOAD(dz), v_act(LOAD(g), kind), LOAD(du))););
}

/* z = c tanh(x / c): dx += dz (1 - (z / c)^2) */
static void soft_cap_back(float *dx, float cap, const float *z, const float *dz, int64_t n) {
  v16 vc = v_set(cap), one = v_set(1.0f);
  ROWS(n, {
    v16 t = v_div(LOAD(z), vc);
    STORE(dx, v_fma(LOAD(dz), v_sub(one, v_mul(t, t)), LOAD(dx)));
  });
}

/* dx += a * b, elementwise: products of gradients with what they were multiplied by. */
static void mul_add(float *dx, const float *a, const float *b, int64_t n) {
  ROWS(n, STORE(dx, v_fma(LOAD(a), LOAD(b), LOAD(dx))););
}

/* y = x r w, r = 1 / sqrt(mean x^2 + eps):
 * dx += r (w dy - x r^2 mean(w dy x)) */
static void rmsnorm_back(float *dx, const float *x, const float *w, const float *dy, int d,
                         float eps) {
  float r = 1.0f / __builtin_sqrtf(dot(x, x, d) / (float)d + eps);
  v16 acc = v_set(0.0f), vr = v_set(r);
  ROWS(d, acc = v_fma(v_mul(LOAD(w), LOAD(dy)), LOAD(x), acc););
  v16 c = v_set(-(v_sum(acc) / (float)d) * r * r);
  ROWS(d, STORE(dx, v_fma(vr, v_fma(LOAD(x), c, v_mul(LOAD(w), LOAD(dy))), LOAD(dx))););
}

/* Mean and 1 / sqrt(var + eps) as layernorm() takes them. */
static void layer_moments(const float *x, int d, float eps, float *mean, float *inv) {
  v16 sum = v_set(0.0f), sq = v_set(0.0f);
  ROWS(d, sum = v_add(sum, LOAD(x)););
  *mean = v_sum(sum) / (float)d;
  v16 m = v_set(*mean);
  ROWS(d, {
    v16 c = v_sub(LOAD(x), m);
    if (!FULL) {
      float t[16];
      v_store(t, c);
      c = v_load_n(t, left);
    }
    sq = v_fma(c, c, sq);
  });
  *inv = 1.0f / __builtin_sqrtf(v_sum(sq) / (float)d + eps);
}

/* y = h w + b, h = (x - mean) r, g = w dy: dx += r (g - mean g - h mean(g h)) */
static void layernorm_back(float *dx, const float *x, const float *w, const float *dy, int d,
                           float eps) {
  float mean, r;
  layer_moments(x, d, eps, &mean, &r);
  v16 vm = v_set(mean), vr = v_set(r), sg = v_set(0.0f), sgh = v_set(0.0f);
  ROWS(d, {
    v16 g = v_mul(LOAD(w), LOAD(dy));                  /* zero past the end */
    sg = v_add(sg, g);
    sgh = v_fma(g, v_mul(v_sub(LOAD(x), vm), vr), sgh);
  });
  v16 mg = v_set(v_sum(sg) / (float)d), mgh = v_set(v_sum(sgh) / (float)d);
  ROWS(d, {
    v16 h = v_mul(v_sub(LOAD(x), vm), vr), g = v_mul(LOAD(w), LOAD(dy));
    STORE(dx, v_fma(vr, v_sub(v_sub(g, mg), v_mul(h, mgh)), LOAD(dx)));
  });
}

/* dw += dy h for one row, h the normalised x; LayerNorm with `center`. */
static void norm_weight_back(float *dw, const float *x, const float *dy, int d, float eps,
                             bool center) {
  float mean = 0, r;
  if (center) layer_moments(x, d, eps, &mean, &r);
  else r = 1.0f / __builtin_sqrtf(dot(x, x, d) / (float)d + eps);
  v16 vm = v_set(mean), vr = v_set(r);
  ROWS(d, STORE(dw, v_fma(LOAD(dy), v_mul(v_sub(LOAD(x), vm), vr), LOAD(dw))););
}

/* p = softmax(s): ds = p (dp - sum p dp), in dp's place. */
static void softmax_back(float *dp, const float *p, int n) {
  v16 c = v_set(dot(p, dp, n));
  ROWS(n, STORE(dp, v_mul(LOAD(p), v_sub(LOAD(dp), c))););
}

/* m, v: running means of g and g^2; p = keep p - rate m / (sqrt(v unbias) + eps). */
static void adamw(float *p, float *m, float *v, const float *g, int64_t n, const float k[6]) {
  v16 b1 = v_set(k[0]), c1 = v_set(1.0f - k[0]), b2 = v_set(k[1]), c2 = v_set(1.0f - k[1]);
  v16 eps = v_set(k[2]), keep = v_set(k[3]), rate = v_set(-k[4]), unbias = v_set(k[5]);
  ROWS(n, {
    v16 gi = LOAD(g);
    v16 mi = v_fma(b1, LOAD(m), v_mul(c1, gi));
    v16 vi = v_fma(b2, LOAD(v), v_mul(c2, v_mul(gi, gi)));
    v16 step = v_div(mi, v_add(v_sqrt(v_mul(vi, unbias)), eps));
    STORE(m, mi);
    STORE(v, vi);
    STORE(p, v_fma(rate, step, v_mul(keep, LOAD(p))));
  });
}
