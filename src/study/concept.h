/* concept.h - the study concept-depth (Jin et al., arXiv 2404.07066) in miniature: levels of known
 * depth, a model trained on them from nothing, a probe after every block.
 *
 *   concept_probe.c   vectors of all blocks, splits, curves, depth
 *   concept_seed.c    one seed: training, every variant, what is kept on disk
 *   concept.c         the levels and recipes, claims, tables, the figure */
#ifndef NM_STUDY_CONCEPT_H
#define NM_STUDY_CONCEPT_H

#include "look/probe.h"
#include "study/mini.h"
#include "study/study.h"

enum { NM__CONCEPT_ROWS = 12, NM__CONCEPT_SPLITS = 5 };
/* by heart: the hops of h2 over one cycle that never changes, learned by a model of its own. */
enum { NM__L0, NM__L1, NM__H1, NM__H2, NM__HEART, NM__CONCEPT_LEVELS };
enum nm__concept_variant {
  NM__REAL, NM__SHUFFLED, NM__UNTRAINED, NM__BITS8, NM__BITS4, NM__BITS3, NM__BITS2, NM__PREFIX,
  NM__BLIND, NM__VARIANTS
};
/* In the order of the study's table of faults. */
enum nm__concept_fault {
  NM__NO_FAULT = -1, NM__SPLIT_TWINS, NM__TRAIN_ACCURACY, NM__MEAN_OVER_TOKENS, NM__ANSWER_TOKEN,
  NM__FAKE_CURVE, NM__NOOP_QUANT
};

/* ---- concept_probe.c -------------------------------------------------------------- */

/* x [n_rows][n][D]: row 0 is the embedding, row i + 1 resid_post of block i, at the last token. */
struct nm__concept_acts {
  float *x;
  int n_rows, D;
  size_t n;
  double exact, by_label;          /* the model's own: the answer, the class of its answer */
};
int nm__concept_capture(const nm_model *m, const struct nm__mini_items *t, int fault, int threads,
                        struct nm__concept_acts *out, nm_err *err);
/* Items whose first row is not that of other items with the same last token. */
size_t nm__concept_strays(const struct nm__concept_acts *a, const struct nm__mini_items *t);
void nm__concept_acts_done(struct nm__concept_acts *a);

/* 60 / 40, whole twins on one side. `shared`: twins that lie on both sides. */
struct nm__concept_splits { struct nm__split v[NM__CONCEPT_SPLITS]; int n; size_t shared; };
int nm__concept_splits_make(const struct nm__mini_items *t, int n, int fault,
                            struct nm__concept_splits *out, nm_err *err);
void nm__concept_splits_done(struct nm__concept_splits *s);

/* acc[n_rows]: held-out accuracy, mean over the splits. `shuffle`: of permuted labels. */
int nm__concept_curve(const struct nm__concept_acts *a, const uint8_t *label, bool shuffle,
                      const struct nm__concept_splits *s, int fault, int level,
                      struct nm__pool *pool, double *acc, nm_err *err);
/* First block whose accuracy reaches 0.5 + 0.9 (peak - 0.5); and the peak over blocks. */
int nm__concept_depth(const double *acc, int n_rows);
double nm__concept_peak(const double *acc, int n_rows);

/* ---- concept_seed.c ----------------------------------------------------------------- */

struct nm__concept_plan {
  struct nm__mini_recipe recipe, heart;
  size_t items;
  int splits;
};
struct nm__concept_level {
  double exact, by_label, shared, strays;
  double acc[NM__VARIANTS][NM__CONCEPT_ROWS];
};
struct nm__concept_seed {
  int n_rows, D;
  double train_rows, most_values;  /* different ones in a row of a matrix at 2 bits */
  double late_from, loss, tokens, seconds;
  struct nm__concept_level level[NM__CONCEPT_LEVELS];
};
extern const struct nm__mini_level nm__concept_levels[NM__CONCEPT_LEVELS];
enum { NM__CONCEPT_W = 7 };        /* the truth of all worlds */

/* Trains (or takes from the folder what was trained) and measures one seed. */
int nm__concept_seed_run(const struct nm__study_run *r, const struct nm__concept_plan *plan,
                         uint64_t seed, struct nm__concept_seed *out, nm_err *err);

#endif
