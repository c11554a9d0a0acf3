/* kern.h - the kernels: everything that touches many floats, once per
 * instruction set, all with the same bits.
 *
 * The f32 formula (docs/numerics.md): an element of a product is
 *
 *     lane l = 0..15:  a[l] = fma(x[16 s + l], w[16 s + l], a[l]),  s ascending
 *     sum = tree(a):   8 pairs (l, l+8), 4 pairs (l, l+4), 2 pairs, 1 pair
 *
 * with x and w continued by zeros. It depends on nothing else: not on how many
 * rows or columns are computed together, nor on threads or instruction set.
 *
 * The bf16 formula: x and w are rounded to bf16 (nearest, ties to even), and
 *
 *     lane l = 0..15:  a[l] = fma(x[32 s + 2 l + 1], w[32 s + 2 l + 1], a[l])
 *                      a[l] = fma(x[32 s + 2 l],     w[32 s + 2 l],     a[l])
 *     sum = tree(a)    as above; subnormal numbers count as zero everywhere
 *
 * which is what one VDPBF16PS instruction does to 32 pairs; sets without it take its steps one
 * by one. kern_body.h is written once over a 16-lane vector and compiled for each set. */
#ifndef NM_TENSOR_KERN_H
#define NM_TENSOR_KERN_H

#include "tensor/dtype.h"

enum nm__act { NM__ACT_SILU, NM__ACT_GELU_TANH, NM__ACT_GELU_ERF };

struct nm__kern {
  const char *name;                /* "portable", "avx2", "avx512", "avx512bf16" */
  bool (*usable)(void);
  int lanes;                       /* floats in one register */
  /* n times twelve register-only fused multiply-adds: what the peak is measured with. */
  float (*fma_peak)(int64_t n);
  /* c[i][j] = x[i] . w[j], i < m, j < n, over k; strides in elements. ldx 0: x is packed. */
  void (*gemm)(float *c, size_t ldc, const float *x, size_t ldx, int m, const float *w,
               size_t ldw, int n, int k);
  /* The same by the bf16 formula. */
  void (*gemm_bf16)(float *c, size_t ldc, const uint16_t *x, size_t ldx, int m,
                    const uint16_t *w, size_t ldw, int n, int k);
  /* Rows of f32 into the order in which a product reads them, m * nm__packed(k) elements; one row
   * keeps its order. Every `strip` rows stand for themselves and may be packed apart. Worth it
   * when the rows meet many rows of w. */
  int strip;
  void (*pack)(float *to, const float *x, size_t ldx, int m, int k);
  void (*pack_bf16)(uint16_t *to, const float *x, size_t ldx, int m, int k);
  void (*add)(float *y, const float *a, const float *b, int64_t n);
  /* y += s * v */
  void (*axpy)(float *y, float s, const float *v, int64_t n);
  void (*mul)(float *y, float s, const float *v, int64_t n);             /* y = s * v */
  void (*soft_cap)(float *y, float cap, const float *v, int64_t n);      /* cap tanh(v / cap) */
  float (*dot)(const float *a, const float *b, int64_t n);               /* the f32 formula */
  void (*rmsnorm)(float *y, const float *x, const float *w, int d, float eps);
  void (*layernorm)(float *y, const float *x, const float *w, const float *b, int d, float eps);
  void (*softmax)(float *s, int n);                                      /* in place */
  /* p = softmax(s), and the largest s and the sum of exp(s - largest) */
  void (*softmax_parts)(float *p, const float *s, int n, float *top, float *sum);
  void (*act)(float *y, const float *x, int64_t n, enum nm__act kind);
  void (*act_mul)(float *y, const float *g, const float *u, int64_t n, enum nm__act kind);
  /* out[d] += sum_j p[j] v[j][d], j ascending, one fma each */
  void (*weighted_sum)(float *out, const float *p, const float *v, size_t ldv, int n, int d);
  /* out[n] from a row of blocks; same bits as nm__dtype(type)->to_f32, and these rounded. */
  void (*to_f32)(float *out, const void *row, int64_t n, uint32_t type);
  void (*to_bf16)(uint16_t *out, const void *row, int64_t n, uint32_t type);
  /* y[j] = x . row j of w as f32, j < n, over k, by the f32 formula: a product with a single x,
   * whose weights are never written out. */
  void (*gemv)(float *y, const float *x, const uint8_t *w, size_t row_bytes, int n, int k,
               uint32_t type);

  /* Backwards (kern_grad.h): all but the last add to their outputs. */
  void (*act_back)(float *dx, const float *x, const float *dz, int64_t n, enum nm__act kind);
  void (*act_mul_back)(float *dg, float *du, const float *g, const float *u, const float *dz,
                       int64_t n, enum nm__act kind);
  void (*soft_cap_back)(float *dx, float cap, const float *z, const float *dz, int64_t n);
  void (*mul_add)(float *dx, const float *a, const float *b, int64_t n);
  void (*rmsnorm_back)(float *dx, const float *x, const float *w, const float *dy, int d,
                       float eps);
  void (*layernorm_back)(float *dx, const float *x, const float *w, const float *dy, int d,
                         float eps);
  void (*norm_weight_back)(float *dw, const float *x, const float *dy, int d, float eps,
                           bool center);
  void (*softmax_back)(float *dp, const float *p, int n);
  /* k: beta1, beta2, eps, what is kept of p, lr / (1 - beta1^t), 1 / (1 - beta2^t). */
  void (*adamw)(float *p, float *m, float *v, const float *g, int64_t n, const float k[6]);
};

/* Elements of a packed row: k, rounded up. */
static inline size_t nm__packed(int64_t k) { return ((size_t)k + 31) / 32 * 32; }

/* Best one this machine can run; NULL name: the best. NULL when the name is not
 * known or not usable here. */
const struct nm__kern *nm__kern_find(const char *name);
int nm__kern_none(const char *name, nm_err *err);        /* NM_EUSAGE: which there are here */
extern const struct nm__kern nm__kern_portable, nm__kern_avx2, nm__kern_avx512,
    nm__kern_avx512bf16;
/* i = 0, 1, ...: all of them, best last; NULL after the end. */
const struct nm__kern *nm__kern_at(int i);

#endif
