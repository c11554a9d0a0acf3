/* plain_ops.h - every operation once more, in the plainest way and in double: what the fast
 * ones are compared with, and where gradients are checked against differences. One sequence of
 * keys; weights are matrices of doubles. */
#ifndef PLAIN_OPS_H
#define PLAIN_OPS_H

#include "tensor/math.h"
#include "tensor/moe.h"

struct plain {
  int64_t rows, cols;              /* of x */
  int64_t out_rows, out_cols;
  const double *x, *y, *w, *bias;
  const int32_t *ids;
  int64_t n_ids;
  const double *weight;
  uint64_t seed;
  const struct nm__route *route;   /* experts, combine; w: [experts][out_cols][cols] */
  bool all_keys;                   /* attention: a span sees all its keys */
  int k_kept;                      /* top_k */
  bool renormalise;
  double eps, scale, cap;
  enum nm__act act;
  int n_head, n_kv, head_dim, rope_pair, rope_n, window;
  const double *rope;
  const double *k, *v;             /* attention: [keys][n_kv * head_dim] */
  int first;                       /* position of row 0 */
  double *dx, *dy, *dw, *dbias, *dk, *dv;      /* backwards: added to; NULL: not wanted */
};

/* erf by its series below 3, by a continued fraction above: for checking, not for speed. */
static double plain_erf(double x) {
  double a = x < 0 ? -x : x, sum = a, term = a, e;
  if (a < 3) {
    for (int n = 1; n < 120; n++) {
      term *= -a * a / n;
      sum += term / (2 * n + 1);
    }
    e = 1.1283791670955126 * sum;
  } else {
    double f = 0;
    for (int n = 80; n > 0; n--) f = n / 2.0 / (a + f);
    e = 1 - nm__exp(-a * a) / ((a + f) * 1.772453850905516);
  }
  return x < 0 ? -e : e;
}

static double plain_act(double x, enum nm__act kind) {
  double u = 0.7978845608028654 * (x + 0.044715 * x * x * x);
  if (kind == NM__ACT_SILU) return x / (1 + nm__exp(-x));
  if (kind == NM__ACT_GELU_TANH) return 0.5 * x * (1 + nm__tanh(u));
  return 0.5 * x * (1 + plain_erf(x * 0.7071067811865476));
}

static double plain_act_d(double x, enum nm__act kind) {
  double s = 1 / (1 + nm__exp(-x)), u = 0.7978845608028654 * (x + 0.044715 * x * x * x);
  double t = nm__tanh(u), du = 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
  if (kind == NM__ACT_SILU) return s * (1 + x * (1 - s));
  if (kind == NM__ACT_GELU_TANH) return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du;
  return 0.5 * (1 + plain_erf(x * 0.7071067811865476)) +
         x * 0.3989422804014327 * nm__exp(-0.5 * x * x);
}

/* ---- forwards ----------------------------------------------------------- */

static void plain_norm(const struct plain *a, double *z, bool center) {
  for (int64_t i = 0; i < a->rows; i++) {
    const double *x = a->x + i * a->cols;
    double mean = 0, sq = 0;
    for (int64_t c = 0; c < a->cols; c++) mean += center ? x[c] / a->cols : 0;
    for (int64_t c = 0; c < a->cols; c++) sq += (x[c] - mean) * (x[c] - mean);
    double r = 1 / nm__sqrt(sq / a->cols + a->eps);
    for (int64_t c = 0; c < a->cols; c++)
      z[i * a->cols + c] = ((x[c] - mean) * r * a->w[c] +
                                  (a->bias ? a->bias[c] : 0));
  }
}

/* Probabilities of one query over keys 0..pos; p[j] is 0 where it does not see. */
static void plain_pattern(const struct plain *a, int64_t i, int h, double *p, double *capped) {
  int at = a->first + (int)i, hd = a->head_dim, kh = h / (a->n_head / a->n_kv);
  int pos = a->all_keys ? a->first + (int)a->rows - 1 : at;
  int first = a->window && at >= a->window ? at - a->window + 1 : 0;
  double top = -1e300, sum = 0;
  for (int j = 0; j <= pos; j++) {
    double s = 0;
    for (int e = 0; e < hd; e++)
      s += a->x[i * a->cols + h * hd + e] * a->k[(j * a->n_kv + kh) * hd + e];
    s *= a->scale;
    if (a->cap > 0) s = a->cap * nm__tanh(s / a->cap);
    capped[j] = s;
    if (j >= first && s > top) top = s;
  }
  for (int j = 0; j <= pos; j++) {
    p[j] = j < first ? 0 : nm__exp(capped[j] - top);
    sum += p[j];
  }
  for (int j = 0; j <= pos; j++) p[j] /= sum;
}

enum { PLAIN_KEYS = 256 };

static int plain_keys(const struct plain *a, int64_t i) {
  return a->first + (int)(a->all_keys ? a->rows : i + 1);
}

static void plain_attention(const struct plain *a, double *z) {
  double p[PLAIN_KEYS], s[PLAIN_KEYS];
  int hd = a->head_dim;
  for (int64_t i = 0; i < a->rows; i++)
    for (int h = 0; h < a->n_head; h++) {
      plain_pattern(a, i, h, p, s);
      for (int e = 0; e < hd; e++) {
        double y = 0;
        for (int j = 0; j < plain_keys(a, i); j++)
          y += p[j] * a->v[(j * a->n_kv + h / (a->n_head / a->n_kv)) * hd + e];
        z[i * a->cols + h * hd + e] = y;
      }
    }
}

static void plain_rope(const struct plain *a, const double *from, double *to, int sign, bool add) {
  int half = a->rope_n / 2;
  for (int64_t i = 0; i < a->rows; i++)
    for (int64_t h = 0; h < a->cols; h += a->head_dim)
      for (int e = 0; e < a->head_dim; e++) {
        int64_t at = i * a->cols + h + e;
        double y = from[at];
        if (e < half || (e >= a->rope_pair && e < a->rope_pair + half)) {
          int j = e < half ? e : e - a->rope_pair;
          double co = a->rope[i * a->rope_n + 2 * j];
          double si = sign * a->rope[i * a->rope_n + 2 * j + 1];
          y = e < half ? y * co - from[at + a->rope_pair] * si
                       : from[at - a->rope_pair] * si + y * co;
        }
        to[at] = (y + (add ? to[at] : 0));
      }
}

static void plain_matmul(const struct plain *a, double *z) {
  for (int64_t i = 0; i < a->rows; i++)
    for (int64_t r = 0; r < a->out_cols; r++) {
      double y = a->bias ? a->bias[r] : 0;
      for (int64_t c = 0; c < a->cols; c++)
        y += a->x[i * a->cols + c] * a->w[r * a->cols + c];
      z[i * a->out_cols + r] = y;
    }
}

/* What goes element by element; false: not one of those. */
static bool plain_element(enum nm__op_id id, const struct plain *a, double x, double y, double *z) {
  switch (id) {
    case NM__OP_ADD: *z = x + y; return true;
    case NM__OP_SCALE: *z = a->scale * x; return true;
    case NM__OP_SOFT_CAP: *z = a->cap * nm__tanh(x / a->cap); return true;
    case NM__OP_ACT: *z = plain_act(x, a->act); return true;
    case NM__OP_ACT_MUL: *z = plain_act(x, a->act) * y; return true;
    case NM__OP_MUL: *z = x * y; return true;
    case NM__OP_SIGMOID: *z = 1 / (1 + nm__exp(-x)); return true;
    default: return false;
  }
}

/* ---- losses: one number a row ------------------------------------------- */

static double plain_log_sum(const double *x, int64_t n) {
  double top = x[0], sum = 0;
  for (int64_t k = 1; k < n; k++) top = x[k] > top ? x[k] : top;
  for (int64_t k = 0; k < n; k++) sum += nm__exp(x[k] - top);
  return top + nm__log(sum);
}

static double plain_dot(const double *x, const double *y, int64_t n) {
  double s = 0;
  for (int64_t k = 0; k < n; k++) s += x[k] * y[k];
  return s;
}

static double plain_loss(enum nm__op_id id, const struct plain *a, int64_t i) {
  int64_t n = a->cols;
  const double *x = a->x + i * n, *y = a->y ? a->y + i * n : NULL;
  double s = 0, lx, ly, row[64];
  switch (id) {
    case NM__OP_CROSS_ENTROPY:                         /* eps is spread over all columns */
      if (a->ids[i] < 0) return 0;
      for (int64_t k = 0; k < n; k++) s += a->eps * x[k] / (double)n;
      return plain_log_sum(x, n) - (1 - a->eps) * x[a->ids[i]] - s;
    case NM__OP_KL:
      lx = plain_log_sum(x, n), ly = plain_log_sum(y, n);
      for (int64_t k = 0; k < n; k++) s += nm__exp(y[k] - ly) * (y[k] - ly - x[k] + lx);
      return s;
    case NM__OP_BCE:
      for (int64_t k = 0; k < n; k++) s += nm__log1p(nm__exp(x[k])) - x[k] * y[k];
      return s / (double)n;
    case NM__OP_MSE:
      for (int64_t k = 0; k < n; k++) s += (x[k] - y[k]) * (x[k] - y[k]);
      return s / (double)n;
    case NM__OP_HUBER:
      for (int64_t k = 0; k < n; k++) {
        double e = x[k] > y[k] ? x[k] - y[k] : y[k] - x[k];
        s += e <= a->cap ? e * e / 2 : a->cap * (e - a->cap / 2);
      }
      return s / (double)n;
    case NM__OP_COSINE:
      return plain_dot(x, y, n) /
             nm__sqrt((plain_dot(x, x, n) + a->eps) * (plain_dot(y, y, n) + a->eps));
    case NM__OP_INFO_NCE:
      for (int64_t j = 0; j < a->rows; j++) row[j] = a->scale * plain_dot(x, a->y + j * n, n);
      return plain_log_sum(row, a->rows) - row[i];
    default: return 0;
  }
}

/* experts and combine, forwards (dz NULL: into z) or backwards (from dz). */
static void plain_route(enum nm__op_id id, const struct plain *a, double *z, const double *dz) {
  const struct nm__route *r = a->route;
  int64_t n = id == NM__OP_EXPERTS ? a->out_cols : a->cols;
  for (int64_t k = 0; !dz && k < a->out_rows * n; k++) z[k] = 0;
  for (int64_t t = 0; t < r->T; t++)
    for (int i = 0; i < r->k; i++) {
      int64_t slot = r->slot[t * r->k + i], e = r->expert[t * r->k + i], gate = t * r->n_expert + e;
      for (int64_t o = 0; o < n; o++)
        for (int64_t c = 0; c < (id == NM__OP_EXPERTS ? a->cols : 1); c++) {
          int64_t x = id == NM__OP_EXPERTS ? slot * a->cols + c : slot * n + o;
          int64_t out = id == NM__OP_EXPERTS ? slot * n + o : t * n + o, w = (e * n + o) * a->cols + c;
          double f = id == NM__OP_EXPERTS ? a->w[w] : a->y[gate];
          if (!dz) z[out] += f * a->x[x];
          if (!dz) continue;
          a->dx[x] += f * dz[out];
          if (id == NM__OP_EXPERTS) a->dw[w] += dz[out] * a->x[x];
          else a->dy[gate] += dz[out] * a->x[x];
        }
    }
}

/* Row i of top_k, forwards (dz NULL) or backwards. */
static void plain_top_k(const struct plain *a, int64_t i, double *z, const double *dz) {
  int64_t n = a->cols;
  const double *x = a->x + i * n;
  double sum = 0, dot = 0;
  bool in[64];
  for (int64_t k = 0; k < n; k++) {
    int larger = 0;
    for (int64_t j = 0; j < n; j++) larger += x[j] > x[k];
    in[k] = larger < a->k_kept;
    sum += in[k] ? x[k] : 0;
    dot += in[k] && dz ? dz[i * n + k] * x[k] : 0;
  }
  for (int64_t k = 0; k < n; k++) {
    bool norm = a->renormalise && sum > 0;
    if (!dz) z[i * n + k] = in[k] ? norm ? x[k] / sum : x[k] : 0;
    else if (in[k]) a->dx[i * n + k] += norm ? (dz[i * n + k] - dot / sum) / sum : dz[i * n + k];
  }
}

/* ---- the forward of any op ----------------------------------------------- */

static bool plain_forward(enum nm__op_id id, const struct plain *a, double *z) {
  int half = a->head_dim / 2;
  double e;
  if (plain_element(id, a, 0, 0, &e)) {
    for (int64_t k = 0; k < a->rows * a->cols; k++) {
      plain_element(id, a, a->x[k], a->y ? a->y[k] : 0, &e);
      z[k] = e;
    }
    return true;
  }
  switch (id) {
    case NM__OP_EMBED:
    case NM__OP_GATHER:
      for (int64_t i = 0; i < a->out_rows; i++)
        for (int64_t c = 0; c < a->out_cols; c++)
          z[i * a->out_cols + c] = (id == NM__OP_EMBED ? a->w : a->x)[a->ids[i] * a->out_cols + c];
      return true;
    case NM__OP_MATMUL: plain_matmul(a, z); return true;
    case NM__OP_RMSNORM:
    case NM__OP_LAYERNORM: plain_norm(a, z, id == NM__OP_LAYERNORM); return true;
    case NM__OP_UNPERMUTE:
      for (int64_t k = 0; k < a->rows * a->cols; k += a->head_dim)
        for (int j = 0; j < half; j++) {
          z[k + j] = a->x[k + 2 * j];
          z[k + j + half] = a->x[k + 2 * j + 1];
        }
      return true;
    case NM__OP_ROPE: plain_rope(a, a->x, z, 1, false); return true;
    case NM__OP_ATTENTION: plain_attention(a, z); return true;
    case NM__OP_SCATTER:
      for (int64_t k = 0; k < a->out_rows * a->cols; k++) z[k] = 0;
      for (int64_t k = 0; k < a->rows * a->cols; k++)
        z[a->ids[k / a->cols] * a->cols + k % a->cols] += a->x[k];
      return true;
    case NM__OP_ADD_VEC:
      for (int64_t k = 0; k < a->rows * a->cols; k++) z[k] = a->x[k];
      for (int64_t i = 0; i < a->n_ids; i++)
        for (int64_t c = 0; c < a->cols; c++) z[a->ids[i] * a->cols + c] += a->scale * a->y[c];
      return true;
    case NM__OP_WSUM:
      z[0] = plain_dot(a->x, a->weight, a->rows);
      return true;
    case NM__OP_SOFTMAX:
      for (int64_t i = 0; i < a->rows; i++)
        for (int64_t k = i * a->cols; k < (i + 1) * a->cols; k++)
          z[k] = nm__exp(a->x[k] - plain_log_sum(a->x + i * a->cols, a->cols));
      return true;
    case NM__OP_ROW_SCALE:
      for (int64_t k = 0; k < a->rows * a->cols; k++) z[k] = a->x[k] * a->y[k / a->cols];
      return true;
    case NM__OP_EXPERTS:
    case NM__OP_COMBINE: plain_route(id, a, z, NULL); return true;
    case NM__OP_TOP_K:
      for (int64_t i = 0; i < a->rows; i++) plain_top_k(a, i, z, NULL);
      return true;
    case NM__OP_GUMBEL: return false;              /* not smooth: looked at by hand */
    default:
      for (int64_t i = 0; i < a->rows; i++) z[i] = plain_loss(id, a, i);
      return true;
  }
}

/* ---- backwards ----------------------------------------------------------- */

static void plain_norm_back(const struct plain *a, const double *dz, bool center) {
  double n = a->cols;
  for (int64_t i = 0; i < a->rows; i++) {
    const double *x = a->x + i * a->cols, *g = dz + i * a->cols;
    double mean = 0, sq = 0, mg = 0, mgh = 0;
    for (int64_t c = 0; c < a->cols; c++) mean += center ? x[c] / n : 0;
    for (int64_t c = 0; c < a->cols; c++) sq += (x[c] - mean) * (x[c] - mean) / n;
    double r = 1 / nm__sqrt(sq + a->eps);
    for (int64_t c = 0; c < a->cols; c++) {
      double wg = a->w[c] * g[c];
      mg += center ? wg / n : 0;
      mgh += wg * (x[c] - mean) * r / n;
    }
    for (int64_t c = 0; c < a->cols; c++) {
      double h = (x[c] - mean) * r;
      if (a->dx)
        a->dx[i * a->cols + c] += (r * (a->w[c] * g[c] - mg - h * mgh));
      if (a->dw) a->dw[c] += (g[c] * h);
      if (a->dbias) a->dbias[c] += g[c];
    }
  }
}

static void plain_attention_back(const struct plain *a, const double *dz) {
  double p[PLAIN_KEYS], s[PLAIN_KEYS], dp[PLAIN_KEYS];
  int hd = a->head_dim;
  for (int64_t i = 0; i < a->rows; i++)
    for (int h = 0; h < a->n_head; h++) {
      int n = plain_keys(a, i), kh = h / (a->n_head / a->n_kv);
      const double *g = dz + i * a->cols + h * hd, *q = a->x + i * a->cols + h * hd;
      double sum = 0;
      plain_pattern(a, i, h, p, s);
      for (int j = 0; j < n; j++) {
        dp[j] = 0;
        for (int e = 0; e < hd; e++)
          dp[j] += g[e] * a->v[(j * a->n_kv + kh) * hd + e];
        sum += p[j] * dp[j];
      }
      for (int j = 0; j < n; j++) {
        double ds = p[j] * (dp[j] - sum) * a->scale, t = s[j] / a->cap;
        if (a->cap > 0) ds *= 1 - t * t;
        for (int e = 0; e < hd; e++) {
          int64_t at = (j * a->n_kv + kh) * hd + e;
          if (a->dx) a->dx[i * a->cols + h * hd + e] += (ds * a->k[at]);
          if (a->dk) a->dk[at] += (ds * q[e]);
          if (a->dv) a->dv[at] += (p[j] * g[e]);
        }
      }
    }
}

static void plain_matmul_back(const struct plain *a, const double *dz) {
  for (int64_t i = 0; i < a->rows; i++)
    for (int64_t r = 0; r < a->out_cols; r++) {
      double g = dz[i * a->out_cols + r];
      if (a->dbias) a->dbias[r] += g;
      for (int64_t c = 0; c < a->cols; c++) {
        if (a->dx) a->dx[i * a->cols + c] += g * a->w[r * a->cols + c];
        if (a->dw) a->dw[r * a->cols + c] += g * a->x[i * a->cols + c];
      }
    }
}

static void plain_loss_back(enum nm__op_id id, const struct plain *a, int64_t i, double g) {
  int64_t n = a->cols;
  const double *x = a->x + i * n, *y = a->y ? a->y + i * n : NULL;
  double *dx = a->dx + i * n, *dy = a->dy ? a->dy + i * n : NULL, row[64];
  double lx = plain_log_sum(x, n), ly = y ? plain_log_sum(y, n) : 0, kl, xy, xx, yy, r;
  switch (id) {
    case NM__OP_CROSS_ENTROPY:
      if (a->ids[i] < 0) return;
      for (int64_t k = 0; k < n; k++)
        dx[k] += g * (nm__exp(x[k] - lx) - (1 - a->eps) * (k == a->ids[i]) - a->eps / (double)n);
      return;
    case NM__OP_KL:
      kl = plain_loss(id, a, i);
      for (int64_t k = 0; k < n; k++) {
        dx[k] += g * (nm__exp(x[k] - lx) - nm__exp(y[k] - ly));
        dy[k] += g * nm__exp(y[k] - ly) * (y[k] - ly - x[k] + lx - kl);
      }
      return;
    case NM__OP_BCE:
    case NM__OP_MSE:
    case NM__OP_HUBER:
      for (int64_t k = 0; k < n; k++) {
        double e = x[k] - y[k], h = e > a->cap ? a->cap : e < -a->cap ? -a->cap : e;
        double d = id == NM__OP_BCE ? 1 / (1 + nm__exp(-x[k])) - y[k] : id == NM__OP_MSE ? 2 * e : h;
        dx[k] += g / (double)n * d;
        dy[k] += g / (double)n * (id == NM__OP_BCE ? -x[k] : -d);
      }
      return;
    case NM__OP_COSINE:
      xy = plain_dot(x, y, n), xx = plain_dot(x, x, n) + a->eps, yy = plain_dot(y, y, n) + a->eps;
      r = g / nm__sqrt(xx * yy);
      for (int64_t k = 0; k < n; k++) {
        dx[k] += r * (y[k] - xy / xx * x[k]);
        dy[k] += r * (x[k] - xy / yy * y[k]);
      }
      return;
    case NM__OP_INFO_NCE:
      for (int64_t j = 0; j < a->rows; j++) row[j] = a->scale * plain_dot(x, a->y + j * n, n);
      r = plain_log_sum(row, a->rows);
      for (int64_t j = 0; j < a->rows; j++) {
        double p = g * a->scale * (nm__exp(row[j] - r) - (j == i));
        for (int64_t k = 0; k < n; k++) {
          dx[k] += p * a->y[j * n + k];
          a->dy[j * n + k] += p * x[k];
        }
      }
      return;
    default: return;
  }
}

static void plain_element_back(enum nm__op_id id, const struct plain *a, int64_t k, double g) {
  double x = a->x[k], y = a->y ? a->y[k] : 0, dx = g, dy = g, t;
  switch (id) {
    case NM__OP_SCALE: dx = a->scale * g; break;
    case NM__OP_SOFT_CAP:
      t = nm__tanh(x / a->cap);
      dx = g * (1 - t * t);
      break;
    case NM__OP_ACT: dx = g * plain_act_d(x, a->act); break;
    case NM__OP_ACT_MUL:
      dx = g * y * plain_act_d(x, a->act);
      dy = g * plain_act(x, a->act);
      break;
    case NM__OP_MUL: dx = g * y, dy = g * x; break;
    case NM__OP_SIGMOID:
      t = 1 / (1 + nm__exp(-x));
      dx = g * t * (1 - t);
      break;
    default: break;
  }
  if (a->dx) a->dx[k] += dx;
  if (a->dy) a->dy[k] += dy;
}

static void plain_backward(enum nm__op_id id, const struct plain *a, const double *dz) {
  int half = a->head_dim / 2;
  double e;
  if (plain_element(id, a, 0, 0, &e)) {
    for (int64_t k = 0; k < a->rows * a->cols; k++) plain_element_back(id, a, k, dz[k]);
    return;
  }
  switch (id) {
    case NM__OP_EMBED:
    case NM__OP_GATHER:
      for (int64_t i = 0; i < a->out_rows; i++)
        for (int64_t c = 0; c < a->out_cols; c++)
          (id == NM__OP_EMBED ? a->dw : a->dx)[a->ids[i] * a->out_cols + c] +=
              dz[i * a->out_cols + c];
      return;
    case NM__OP_MATMUL: plain_matmul_back(a, dz); return;
    case NM__OP_RMSNORM:
    case NM__OP_LAYERNORM: plain_norm_back(a, dz, id == NM__OP_LAYERNORM); return;
    case NM__OP_UNPERMUTE:
      for (int64_t k = 0; k < a->rows * a->cols; k += a->head_dim)
        for (int j = 0; j < half; j++) {
          a->dx[k + 2 * j] += dz[k + j];
          a->dx[k + 2 * j + 1] += dz[k + j + half];
        }
      return;
    case NM__OP_ROPE: plain_rope(a, dz, a->dx, -1, true); return;
    case NM__OP_ATTENTION: plain_attention_back(a, dz); return;
    case NM__OP_SCATTER:
      for (int64_t k = 0; k < a->rows * a->cols; k++)
        a->dx[k] += dz[a->ids[k / a->cols] * a->cols + k % a->cols];
      return;
    case NM__OP_ADD_VEC:
      for (int64_t k = 0; k < a->rows * a->cols; k++) a->dx[k] += dz[k];
      for (int64_t i = 0; i < a->n_ids; i++)
        for (int64_t c = 0; c < a->cols; c++) a->dy[c] += a->scale * dz[a->ids[i] * a->cols + c];
      return;
    case NM__OP_WSUM:
      for (int64_t i = 0; i < a->rows; i++) a->dx[i] += dz[0] * a->weight[i];
      return;
    case NM__OP_SOFTMAX:
      for (int64_t i = 0; i < a->rows; i++) {
        const double *x = a->x + i * a->cols, *g = dz + i * a->cols;
        double l = plain_log_sum(x, a->cols), dot = 0;
        for (int64_t k = 0; k < a->cols; k++) dot += nm__exp(x[k] - l) * g[k];
        for (int64_t k = 0; k < a->cols; k++)
          a->dx[i * a->cols + k] += nm__exp(x[k] - l) * (g[k] - dot);
      }
      return;
    case NM__OP_ROW_SCALE:
      for (int64_t k = 0; k < a->rows * a->cols; k++) {
        a->dx[k] += dz[k] * a->y[k / a->cols];
        a->dy[k / a->cols] += dz[k] * a->x[k];
      }
      return;
    case NM__OP_EXPERTS:
    case NM__OP_COMBINE: plain_route(id, a, NULL, dz); return;
    case NM__OP_TOP_K:
      for (int64_t i = 0; i < a->rows; i++) plain_top_k(a, i, NULL, dz);
      return;
    default:
      for (int64_t i = 0; i < a->rows; i++) plain_loss_back(id, a, i, dz[i]);
      return;
  }
}

#endif
