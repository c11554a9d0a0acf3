/* learn.h - training: which numbers of a model are learned, from what, and one step of it.
 *
 *   fresh.c    a new model of a given shape
 *   params.c   a container whose chosen tensors are f32 in one run of memory, with adapters
 *   recipe.h   what a run is; data.h: documents, samples, the stream; train.h: the run
 *   extra.c    learned tensors beside the model's: soft prompts, vectors; single rows or columns
 *   step.c     the gradient of one batch, cut into slots, and the optimiser's step
 *   slot.c     the rows of one slot
 *   loss.h     losses by name, the frozen model, taps and edits
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
  int32_t *only;                   /* [n_only], ascending: just these rows or columns */
  int n_only;                      /* are trained; NULL: all */
  bool by_column;
};

struct nm__params {
  struct nm__learned *v;
  int n;
  float *values;                   /* all of them; the model reads them where they lie */
  size_t n_floats;                 /* with the padding between them, which stays zero */
  struct nm__lora *lora;           /* sorted by the weight they stand beside; NULL: none */
  int n_lora;
  int n_prompt;                    /* rows of the soft prompt, the tensor "prompt"; 0: none */
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

/* ---- extra.c ------------------------------------------------------------ */

/* Adds a tensor of zeros beside the others. All values move: g, the container that nm__params_make
 * gave (NULL: adapters or nothing else), and the adapters are set right, so call it after
 * nm__params_lora and before a model is made of g and before views and steppers are. */
int nm__params_add(struct nm__params *p, struct nm__gguf *g, const char *name, int64_t rows,
                   int64_t cols, nm_err *err);
/* A soft prompt: `rows` learned rows that stand before every sequence (Lester et al., arXiv
 * 2104.08691), as the tensor "prompt" [rows, D]. They are what enters block 0, and begin as what
 * m gives for ids[i % n_ids] at position i, or (n_ids 0) as noise of the size of its embeddings. */
int nm__params_soft(struct nm__params *p, struct nm__gguf *g, const nm_model *m, int rows,
                    const int32_t *ids, int n_ids, uint64_t seed, nm_err *err);
/* Writes one learned tensor as an .npy [rows, cols], or as a GGUF of one F32 tensor where the path
 * ends in .gguf. */
int nm__params_write(const struct nm__params *p, const char *name, const char *path, nm_err *err);
const struct nm__learned *nm__params_find(const struct nm__params *p, const char *name);
/* As an op reads it; without data when there is no such tensor. */
struct nm__w nm__params_view(const struct nm__params *p, const char *name);
/* Only these rows (or columns) of a tensor are trained from now on. */
int nm__params_only(struct nm__params *p, const char *name, bool by_column, const int32_t *v,
                    int n, nm_err *err);
/* Zeroes the gradient of what is not trained; nm__step_batch does. */
void nm__params_mask(const struct nm__params *p, float *grad);
/* nm__optim_step of tensor i, but what `only` leaves out keeps its bits, decay included. */
void nm__params_step(struct nm__ops *o, const struct nm__optim *k, const struct nm__params *p,
                     int i, const float *grad, float *state, float lr, float decay, int64_t step);

/* ---- samples ----------------------------------------------------------- */

/* A sequence; weight[i] counts the prediction of ids[i] from what stands before it (weight[0] is
 * not used). */
struct nm__sample {
  int32_t *ids;
  float *weight;
  int n;
  int32_t *input;                  /* what goes in instead of ids (noise); NULL: ids */
  int group;                       /* losses name the group they are of */
  int pair;                        /* not 0: of a pair; the chosen one comes first, next to it the
                                      rejected one with the same number */
  float *ref;                      /* [n]: log-probability of ids[i] under the frozen model, where
                                      weight[i] is not 0; see nm__loss_reference */
  float *target;                   /* [n_target]: for losses of tapped activations */
  int n_target;
};

/* ---- step.c ------------------------------------------------------------- */

struct nm__loss_spec;
struct nm__loss_seen;
struct nm__learned_edit;

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
  double right;                    /* of the last batch without backward: the share, by weight, of
                                      tokens that are the most probable one */
  const struct nm__learned_edit *edits;      /* applied in every forward of m, in this order */
  int n_edits;
  const nm_model *frozen;          /* the reference; NULL: m without adapters, prompt and edits */
  struct nm__ops frozen_ops;
  struct nm__kv frozen_kv;
  size_t frozen_bytes;             /* the most that arena, cache and kept logits took */
  struct nm__loss_seen *seen;      /* [NM__MOST_LOSSES]: what the last batch gave */
};
int nm__stepper_init(struct nm__stepper *s, nm_model *m, struct nm__params *p, int threads,
                     const char *kernels, nm_err *err);
void nm__stepper_done(struct nm__stepper *s);

/* The weighted sum of losses of the batch, and its gradient in s->grad; specs NULL: mean cross
 * entropy over all samples. n samples fall into n_slots slots in order, pairs never into two;
 * n_slots is a power of two up to 32768. `backward` false: the loss alone. *weight_sum: the tokens'
 * weights of the batch. */
int nm__step_batch(struct nm__stepper *s, const struct nm__sample *const *batch, int n,
                   int n_slots, const struct nm__loss_spec *specs, int n_specs, bool backward,
                   double *loss, double *weight_sum, nm_err *err);

/* Bytes of arena and cache that the largest slot of the batch needs, from the same forward and way
 * back in measure mode. */
int nm__step_measure(struct nm__stepper *s, const struct nm__sample *const *batch, int n,
                     int n_slots, const struct nm__loss_spec *specs, int n_specs, size_t *bytes,
                     nm_err *err);

/* Norm of s->grad, summed in double in a fixed order; it is scaled down to `clip` if it is larger
 * (0: never). */
double nm__step_clip(struct nm__stepper *s, double clip);

#endif
