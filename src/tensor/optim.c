/* optim.c - the optimisers' steps. */
#include "tensor/optim.h"

#include <string.h>

#include "tensor/math.h"

enum { GRAIN = 4096 };

size_t nm__optim_state(enum nm__optim_kind kind, size_t n) {
  return kind == NM__ADAMW ? 2 * n : n;
}

struct step {
  const struct nm__kern *k;
  const struct nm__optim *o;
  float *p, *m, *v;
  const float *g;
  float keep, lr, rate, unbias;    /* 1 - lr decay; lr / (1 - beta1^t); 1 / (1 - beta2^t) */
};

/* ---- element by element ------------------------------------------------- */

static void adamw_part(void *a, int64_t b, int64_t e, int thread) {
  (void)thread;
  struct step *s = a;
  s->k->adamw(s->p + b, s->m + b, s->v + b, s->g + b, e - b,
              (float[]){s->o->beta1, s->o->beta2, s->o->eps, s->keep, s->rate, s->unbias});
}

static void sgd_part(void *a, int64_t b, int64_t e, int thread) {
  (void)thread;
  struct step *s = a;
  for (int64_t i = b; i < e; i++) {
    s->m[i] = s->o->beta1 * s->m[i] + s->g[i];
    s->p[i] = s->keep * s->p[i] - s->lr * s->m[i];
  }
}

/* ---- muon ---------------------------------------------------------------- */

static void transpose(float *out, const float *x, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < cols; j++) out[j * rows + i] = x[i * cols + j];
}

/* c = a b^T, all [n, *] small matrices; rows of c in parallel. */
struct product { const struct nm__kern *k; float *c; const float *a, *b; int64_t n, m, depth; };
static void product_rows(void *v, int64_t b, int64_t e, int thread) {
  (void)thread;
  struct product *p = v;
  p->k->gemm(p->c + b * p->m, (size_t)p->m, p->a + b * p->depth, (size_t)p->depth, (int)(e - b),
             p->b, (size_t)p->depth, (int)p->m, (int)p->depth);
}
static void product(struct nm__ops *o, float *c, const float *a, const float *b, int64_t n,
                    int64_t m, int64_t depth) {
  nm__rows_parallel(o, n, 24, product_rows, &(struct product){o->kern, c, a, b, n, m, depth});
}

/* x [n, m], n <= m: five steps x = a x + (b A + c A A) x with A = x x^T. */
static void newton_schulz(struct nm__ops *o, float *x, float *xt, float *A, float *B, int64_t n,
                          int64_t m) {
  const float a = 3.4445f, b = -4.7750f, c = 2.0315f;
  for (int i = 0; i < 5; i++) {
    product(o, A, x, x, n, n, m);
    product(o, B, A, A, n, n, n);                      /* A is symmetric */
    o->kern->mul(B, c, B, n * n);
    o->kern->axpy(B, b, A, n * n);
    transpose(xt, x, n, m);
    o->kern->mul(x, a, x, n * m);
    float *y = xt + n * m;
    product(o, y, B, xt, n, m, n);
    o->kern->add(x, x, y, n * m);
  }
}

static void muon(struct nm__ops *o, struct step *s, int64_t rows, int64_t cols) {
  int64_t n = rows < cols ? rows : cols, m = rows < cols ? cols : rows, all = rows * cols;
  size_t mark = o->arena.used;
  float *x = nm__arena_take(&o->arena, sizeof(float) * (size_t)(3 * all + 2 * n * n));
  if (!x) {
    nm__fail(&o->err, NM_EMEMORY, "the arena is too small for Muon's matrices");
    return;
  }
  float *xt = x + all, *A = xt + 2 * all, *B = A + n * n;
  o->kern->mul(s->m, s->o->beta1, s->m, all);
  o->kern->add(s->m, s->m, s->g, all);
  float *in = rows <= cols ? x : xt;
  memcpy(in, s->g, sizeof(float) * (size_t)all);       /* Nesterov: g + beta m */
  o->kern->axpy(in, s->o->beta1, s->m, all);
  if (rows > cols) transpose(x, xt, rows, cols);
  float size = __builtin_sqrtf(o->kern->dot(x, x, all));
  o->kern->mul(x, 1.0f / (size + 1e-7f), x, all);
  newton_schulz(o, x, xt, A, B, n, m);
  if (rows > cols) transpose(xt, x, n, m);
  float lr = s->lr * (rows > cols ? __builtin_sqrtf((float)rows / (float)cols) : 1.0f);
  o->kern->mul(s->p, s->keep, s->p, all);
  o->kern->axpy(s->p, -lr, rows > cols ? xt : x, all);
  o->arena.used = mark;
}

/* ---- one step -------------------------------------------------------------- */

void nm__optim_step(struct nm__ops *o, const struct nm__optim *k, float *p, const float *g,
                    float *state, int64_t rows, int64_t cols, float lr, float decay,
                    int64_t step) {
  int64_t n = rows * cols;
  struct step s = {.k = o->kern, .o = k, .p = p, .m = state, .v = state + n, .g = g,
                   .keep = (float)(1 - (double)lr * (double)decay), .lr = lr};
  if (o->err.status) return;
  if (k->kind == NM__MUON && rows > 1) {
    muon(o, &s, rows, cols);
  } else if (k->kind == NM__ADAMW) {
    s.rate = (float)((double)lr / (1 - nm__pow((double)k->beta1, (double)step)));
    s.unbias = (float)(1 / (1 - nm__pow((double)k->beta2, (double)step)));
    nm__rows_parallel(o, n, GRAIN, adamw_part, &s);
  } else {
    nm__rows_parallel(o, n, GRAIN, sgd_part, &s);
  }
}

/* ---- the learning rate ------------------------------------------------------- */

double nm__schedule_at(const struct nm__schedule *s, int64_t step) {
  if (step < s->warmup) return s->lr * (double)(step + 1) / (double)s->warmup;
  double start = s->kind == NM__WSD ? (1 - s->tail) * (double)s->steps : (double)s->warmup;
  double span = (double)s->steps - start, at = (double)step - start;
  if (s->kind == NM__CONSTANT || at <= 0 || span <= 0) return s->lr;
  double part = at < span ? at / span : 1;
  if (s->kind == NM__COSINE) part = 0.5 * (1 - nm__cos(3.141592653589793 * part));
  return s->lr * (1 - part * (1 - s->floor));
}
