/* loss.h - losses by name over groups of samples, and their weighted sum.
 *
 *   struct nm__loss_spec sum[] = {
 *       {.name = "npo", .weight = 1, .group = 1, .beta = 0.1},
 *       {.name = "kl", .weight = 0.5, .group = 0}};
 *   nm__loss_reference(&s, samples, n, err);             once: log-probabilities before training
 *   nm__step_batch(&s, batch, n, slots, sum, 2, true, &loss, &weight, err);
 *
 * Every loss is a mean over its units in the whole batch: tokens by weight, samples, pairs of
 * samples, or tapped places. A batch without a unit of some loss leaves that one out. The formulas
 * are in docs/losses.md.
 *
 *   loss.c     the table of losses, and how one is put together from a slot's logits
 *   taps.c     losses of tapped activations, and edits whose vector is learned
 *   frozen.c   the model before training: its log-probabilities and its logits */
#ifndef NM_LEARN_LOSS_H
#define NM_LEARN_LOSS_H

#include "learn/learn.h"

enum { NM__ALL_GROUPS = -1, NM__MOST_LOSSES = 16 };

/* What a loss does not read may be zero. */
struct nm__loss_spec {
  const char *name;                /* a row of the table: nm__loss_names */
  double weight;                   /* in the sum; may be negative */
  int group;                       /* samples of this group, or NM__ALL_GROUPS */
  int retain;                      /* gradient_difference: the group to keep */
  double beta;                     /* dpo, ipo, simpo, npo: must be above 0 */
  double gamma;                    /* simpo: the margin that is asked for */
  double smooth;                   /* cross_entropy: label smoothing; dpo, simpo: the part of
                                      pairs taken to be the wrong way round; 0 <= smooth < 1 */
  const char *site, *at;           /* tap_*: which activations; at NULL: all */
  const float *target;             /* tap_*: one row for all samples; NULL: each sample's own, */
  int target_at;                   /* which begins at target[target_at] there */
  struct nm__w probe, probe_bias;  /* tap_probe: [labels, width] and [1, labels] in F32; trained
                                      when they are views of learned tensors, else frozen */
};

/* What the last batch gave for one spec. */
struct nm__loss_seen {
  double value;                    /* its mean, without the spec's weight */
  double over;                     /* what the mean is over */
  double margin;                   /* samples, pairs: mean of x, see docs (ipo: x / beta) */
};

/* "cross_entropy, dpo, ..." */
void nm__loss_names(struct nm__buf *b);

/* Fills ref of every sample (allocated with nm__alloc where NULL; freed by the caller) with the
 * log-probability of each token with a weight under the frozen model: s->frozen, else the model
 * without its adapters. Samples may be in any order; the bits do not depend on it. */
int nm__loss_reference(struct nm__stepper *s, struct nm__sample *const *v, int n, nm_err *err);

/* ---- edits on the tape -------------------------------------------------------- */

/* x += scale * vector at the positions `at` of every sample, at every site of the glob. vector:
 * [1, width], or a row for each selected site, F32; a view of a learned tensor is trained. Sites
 * with one row a position (no scores, patterns, experts, final_norm, logits), whole rows. */
struct nm__learned_edit {
  const char *site, *at;           /* at NULL: all */
  float scale;
  struct nm__w vector;
};

#endif
