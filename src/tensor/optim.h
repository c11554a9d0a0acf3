/* optim.h - optimisers over one f32 parameter matrix each, and the learning rate as a function of
 * the step. Every element's new value depends on its own state alone (Muon: on its matrix), so
 * threads change nothing. */
#ifndef NM_TENSOR_OPTIM_H
#define NM_TENSOR_OPTIM_H

#include "tensor/ops.h"

enum nm__optim_kind { NM__SGD, NM__ADAMW, NM__MUON };

/* adamw: Loshchilov, Hutter (arXiv 1711.05101), as PyTorch computes it: p *= 1 - lr decay, then
 * p -= lr m^ / (sqrt v^ + eps). sgd: momentum beta1, same decay. muon: Jordan et al. 2024: the
 * momentum's direction is made orthogonal by five Newton-Schulz steps; lr is scaled by
 * sqrt(max(1, rows / cols)). */
struct nm__optim {
  enum nm__optim_kind kind;
  float beta1, beta2, eps;
};
/* Floats of state that one parameter of n elements needs: adamw 2 n, the others n. */
size_t nm__optim_state(enum nm__optim_kind kind, size_t n);

/* One step of p [rows, cols] with gradient g; `step` counts from 1. Scratch comes from o's arena
 * (muon). A failure is sticky in o->err. */
void nm__optim_step(struct nm__ops *o, const struct nm__optim *k, float *p, const float *g,
                    float *state, int64_t rows, int64_t cols, float lr, float decay,
                    int64_t step);

/* constant; linear (down to `floor` of lr at the last step); cosine (the same ends); wsd: constant,
 * then down linearly over the last `tail` of all steps. All rise over `warmup` steps first. */
enum nm__schedule_kind { NM__CONSTANT, NM__LINEAR, NM__COSINE, NM__WSD };
struct nm__schedule { enum nm__schedule_kind kind; double lr, floor, tail; int64_t warmup, steps; };
double nm__schedule_at(const struct nm__schedule *s, int64_t step);      /* step from 0 */

#endif
