/* walks.h - walks in a graph as prompts: what a model does and what its states look like, and the
 * heads that could do it.
 *
 *   walks.c   drawing and shuffling walks; accuracy, and means of states by node, at lengths
 *   heads.c   induction and previous-token scores of all heads, edits that silence heads
 *
 * Everything comes out of one forward a walk: a shorter walk is the beginning of a longer one. */
#ifndef NM_LOOK_WALKS_H
#define NM_LOOK_WALKS_H

#include "look/geometry.h"

enum { NM__WALK_LENGTHS = 16, NM__RULE_SPAN = 16 };

struct nm__walks {
  const struct nm__graph *g;
  int n, T, lead;                  /* walks, words of each, ids in front of them (a begin token) */
  int *node;                       /* [n, T] */
  int32_t *word;                   /* [n, g->n]: which id stands for a node */
  int32_t *ids;                    /* [n, lead + T] */
};
/* Node i is vocab[i] in all of n walks, or (`fresh`) in every walk one drawn of the n_vocab. bos
 * below 0: none. The walks are a function of the seed and of nothing else. */
int nm__walks_draw(const struct nm__graph *g, int n, int T, int32_t bos, const int32_t *vocab,
                   int n_vocab, bool fresh, uint64_t seed, struct nm__walks *out, nm_err *err);
/* The control: the words of each walk in an order drawn evenly. */
void nm__walks_shuffle(struct nm__walks *w, uint64_t seed);
/* Share of the steps of all walks that follow an edge: 1, or when shuffled what chance gives. */
double nm__walks_joined(const struct nm__walks *w);
void nm__walks_done(struct nm__walks *w);

/* What one forward a walk gives. Sums are by node over the last `window` words up to a length. */
struct nm__traced {
  int n_lengths, length[NM__WALK_LENGTHS], window, n_rows, D;
  char (*row)[64];                 /* [n_rows]: names of the sites */
  bool pooled;                     /* sums over all walks together, else of each */
  int done;                        /* walks finished */
  size_t n_acc, n_sum, n_count;
  double *acc;                     /* [walks, T, 2]: see nm__rule_accuracy */
  double *sum;                     /* [groups, n_lengths, n_rows, nodes, D] */
  double *count;                   /* [groups, n_lengths, nodes] */
};
/* `sites`: a glob of rows of width D. Lengths ascending, the last at most w->T. */
int nm__traced_new(const nm_model *m, const struct nm__walks *w, const char *sites,
                   const int *length, int n_lengths, int window, bool pooled,
                   struct nm__traced *out, nm_err *err);
void nm__traced_done(struct nm__traced *t);
/* Runs the walks from t->done on. `each` (or NULL) is called when one is finished. */
int nm__traced_run(nm_engine *e, const struct nm__walks *w, const char *sites, nm_edits *edits,
                   struct nm__traced *t, int (*each)(void *arg, nm_err *err), void *arg,
                   nm_err *err);
/* A walk's accuracy k (0: all neighbours, 1: but the word just left) over the last NM__RULE_SPAN
 * words before a length; NaN: none counts. */
double nm__traced_accuracy(const struct nm__traced *t, const struct nm__walks *w, int walk, int T,
                           int k);
double nm__traced_mean_accuracy(const struct nm__traced *t, const struct nm__walks *w, int T,
                                int k);
/* The vectors of a group, length and row: their geometry, as they are and (standard, may be NULL)
 * with every dimension of size 1. */
int nm__traced_geometry(const struct nm__traced *t, const struct nm__graph *g, int group,
                        int length, int row, struct nm__geometry *out, double *standard_energy,
                        nm_err *err);

/* ---- heads.c ------------------------------------------------------------------ */

struct nm__head { int layer, head; double induction, previous; };
enum nm__head_kind { NM__INDUCTION, NM__PREVIOUS };
/* Mean attention, over the second half of blocks of 32 random ids said twice, to the token after
 * the first saying (31 back) and to the token before. *out [L * H] by layer and head: free it. */
int nm__head_scores(nm_engine *e, const nm_model *m, int32_t bos, uint64_t seed,
                    const nm_progress *p, struct nm__head **out, nm_err *err);
/* Sorted by a score, highest first; ties by layer and head. */
void nm__head_sort(struct nm__head *h, int n, enum nm__head_kind kind);
/* k heads drawn from those that are not among the first `keep` of either kind. */
int nm__heads_random(const struct nm__head *h, int n, int keep, int k, uint64_t seed,
                     struct nm__head *out);
/* mask_head with output 0 of each of k heads. */
int nm__heads_off(const struct nm__head *h, int k, nm_edits **out, nm_err *err);
/* Positions of heads that the runs so far silenced. */
double nm__heads_silenced(const nm_edits *e);

#endif
