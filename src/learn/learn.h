/* learn.h - training: which numbers of a model are learned, from what, and one step of it.
 *
 *   fresh.c    a new model of a given shape
 *   params.c   a container whose chosen tensors are f32 in one run of memory, with adapters
 *   recipe.h   what a run is; data.h: documents, samples, the stream; train.h: the run
 *   step.c     the gradient of one batch, cut into slots, and the optimiser's step
 *
 * The global batch of a step is cut into S slots (a power of two). Each slot is one forward and one
 * way back; the gradients of the slots are summed in a fixed binary tree. So threads, and later
 * ranks, give the same bits. */
#ifndef NM_LEARN_LEARN_H
#define NM_LEARN_LEARN_H

#include "model/model.h"
#include "tensor/optim.h"
#include "tensor/tape.h"

/* ---- fresh.c ----------------------------------------------------------- */

/* A new model as a container in memory: all keys, and F32 tensors initialised as `shape` says
 * (zeros in it are filled in, see model/shape.h). `tokenizer` lends its "tokenizer." keys and,
 * where shape->V is 0, the size of the vocabulary; NULL: a model of ids only. The caller closes
 * *out; nm__model_from or nm__params_make go on from there. */
struct nm__shape;
int nm__fresh(const struct nm__shape *shape, const struct nm__gguf *tokenizer, uint64_t seed,
              struct nm__gguf **out, nm_err *err);

/* ---- params.c ---------------------------------------------------------- */

/* One learned tensor: rows first .. first + n of the values of all. */
struct nm__learned {
  char name[80];
  size_t at;                       /* its first float in values and gradients */
  int64_t rows, cols;
};

struct nm__params {
  struct nm__learned *v;
  int n;
  float *values;                   /* all of them; the model reads them where they lie */
  size_t n_floats;                 /* with the padding between them, which stays zero */
  struct nm__lora *lora;           /* sorted by the weight they stand beside; NULL: none */
  int n_lora;
};

struct nm__lora_opts { int rank; float alpha; const char *const *targets; int n_targets; };

/* A container like g, whose tensors that match one of the globs ("*", "blk.*.attn_*") are f32 in
 * p->values; the others stay where they lie in g, which must outlive it. */
int nm__params_make(const struct nm__gguf *g, const char *const *globs, int n_globs,
                    struct nm__gguf **out, struct nm__params *p, nm_err *err);
/* Adds A (uniform, variance 1 / columns, by seed) and B (zero) beside every weight of m that
 * matches a target ("attn_q": blk.*.attn_q.weight). Hu et al. (arXiv 2106.09685). Values move:
 * call it before anything points at them. */
int nm__params_lora(struct nm__params *p, const nm_model *m, const struct nm__lora_opts *o,
                    uint64_t seed, nm_err *err);
void nm__params_done(struct nm__params *p);
/* Is weight decay usual for it: matrices, not norms and biases. */
bool nm__params_decays(const struct nm__learned *v);

/* ---- samples ----------------------------------------------------------- */

/* A sequence; weight[i] counts the prediction of ids[i] from what stands before it (weight[0] is
 * not used). */
struct nm__sample {
  int32_t *ids;
  float *weight;
  int n;
  int32_t *input;                  /* what goes in instead of ids (noise); NULL: ids */
};

/* ---- step.c ------------------------------------------------------------- */

/* Everything one step needs besides the numbers themselves. */
struct nm__stepper {
  nm_model *m;
  struct nm__params *p;
  struct nm__tape tape;
  struct nm__ops ops;
  struct nm__kv kv;
  float *grad;                     /* [p->n_floats]: what the last batch gave */
  float *level[16];                /* the tree over slots */
  bool again;                      /* blocks are computed again on the way back */
  double right;                    /* of the last batch without backward: the weight of tokens that
                                      are the most probable one */
};
int nm__stepper_init(struct nm__stepper *s, nm_model *m, struct nm__params *p, int threads,
                     const char *kernels, nm_err *err);
void nm__stepper_done(struct nm__stepper *s);

/* Mean cross entropy of the batch (weighted by the samples), and its gradient in s->grad. n samples
 * fall into n_slots slots in order; n_slots is a power of two up to 32768. `backward` false: the
 * loss alone. *weight_sum: what the mean was taken over. */
int nm__step_batch(struct nm__stepper *s, const struct nm__sample *const *batch, int n,
                   int n_slots, bool backward, double *loss, double *weight_sum, nm_err *err);

/* Bytes of arena and cache that the largest slot of the batch needs, from the same forward and way
 * back in measure mode. */
int nm__step_measure(struct nm__stepper *s, const struct nm__sample *const *batch, int n,
                     int n_slots, size_t *bytes, nm_err *err);

/* Norm of s->grad, summed in double in a fixed order; it is scaled down to `clip` if it is larger
 * (0: never). */
double nm__step_clip(struct nm__stepper *s, double clip);

#endif
