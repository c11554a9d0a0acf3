/* retrieval.h - the study retrieval-heads (Wu et al., arXiv 2404.15574) in miniature: a model that
 * learns to look up and copy, and some facts by heart; which heads copy, and what masking them
 * takes away.
 *
 *   retrieval_seed.c  one seed: training, scores, masks, what is kept on disk
 *   retrieval.c       the recipe, claims, tables, the figure */
#ifndef NM_STUDY_RETRIEVAL_H
#define NM_STUDY_RETRIEVAL_H

#include "look/heads.h"
#include "study/mini.h"
#include "study/study.h"

enum { NM__RETRIEVAL_HEADS = 64, NM__RETRIEVAL_DRAWS = 5, NM__RETRIEVAL_W = 7 };
enum { NM__SHORT, NM__FACTS, NM__LONG, NM__RETRIEVAL_LEVELS };
/* In the order of the study's table of faults. */
enum nm__retrieval_fault {
  NM__FAILED_ANSWERS, NM__DRAWN_FROM_BEST, NM__SHIFTED_HEADS, NM__WRONG_NEEDLE
};

struct nm__retrieval_plan { struct nm__mini_recipe recipe; size_t items; };
/* All numbers, so that they are kept as a list. */
struct nm__retrieval_seed {
  double copied, facts;            /* share of tokens right; of facts */
  double mean[NM__RETRIEVAL_HEADS], freq[NM__RETRIEVAL_HEADS];
  double kept, n_copying;
  double wrong_span, untrained, untrained_kept;        /* highest mean scores; share of trials */
  double masked_copied, masked_facts;
  double drawn_copied[NM__RETRIEVAL_DRAWS], drawn_facts, drawn_shared;
  double two_scores, two_previous, two_norm;           /* copied, 2 heads masked, by ranking */
  double late_from, loss, tokens, seconds;
};
extern const struct nm__mini_level nm__retrieval_levels[NM__RETRIEVAL_LEVELS];
/* Trains (or takes from the folder what was trained) and measures one seed. */
int nm__retrieval_seed_run(const struct nm__study_run *r, const struct nm__retrieval_plan *plan,
                           uint64_t seed, struct nm__retrieval_seed *out, nm_err *err);

#endif
