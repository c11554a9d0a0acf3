/* heads.h - which attention heads copy out of the context (Wu et al., Retrieval Head
 * Mechanistically Explains Long-Context Factuality, arXiv 2404.15574).
 *
 *   heads.c       files of scores a head and trial, their statistics
 *   copying.c     one answer drawn greedily, every head's row of attention looked at
 *   rouge.c       how much of a reference an answer holds
 *
 * While token w is generated, a head copies it when the position it looks at most holds w and lies
 * in the needle. A head's score in a trial is how often that happens, over the needle's length. */
#ifndef NM_LOOK_HEADS_H
#define NM_LOOK_HEADS_H

#include "core/core.h"

/* ---- heads.c: scores --------------------------------------------------------------- */

enum { NM__HEADS_MOST = 1 << 20 }; /* heads of a file */
#define NM__HEADS_COPIES 0.1       /* a retrieval head's mean score is at least this */

struct nm__head { double mean, freq, max; };   /* freq: share of trials with 0.1 and more */
struct nm__head_scores {
  int L, H;
  size_t trials;
  struct nm__head *v;              /* [L, H] */
  double *score;                   /* [L, H, trials]; NULL: only the statistics are known */
};
/* Room for so many trials, all scores zero; then nm__head_scores_fit makes the statistics. */
int nm__head_scores_new(int L, int H, size_t trials, struct nm__head_scores *out, nm_err *err);
void nm__head_scores_fit(struct nm__head_scores *s);
void nm__head_scores_done(struct nm__head_scores *s);

/* The published JSON, {"LAYER-HEAD": [score of a kept trial, ...]}, or a CSV of statistics with the
 * columns layer, head, mean_score, trials, freq_score_ge_0.1, max_score. Every head must be there
 * once. NM_EFORMAT names what is not. */
int nm__head_scores_parse(const char *name, const char *text, size_t n,
                          struct nm__head_scores *out, nm_err *err);
int nm__head_scores_read(const char *path, struct nm__head_scores *out, nm_err *err);
/* The same forms; heads of the CSV are ranked. */
void nm__head_scores_json(const struct nm__head_scores *s, struct nm__buf *b);
void nm__head_scores_csv(const struct nm__head_scores *s, struct nm__buf *b);

/* Heads by mean score, highest first, equal ones by layer and head. Free with free. */
uint32_t *nm__head_ranking(const struct nm__head_scores *s);

struct nm__heads_sum {
  size_t heads, copying, half, never;          /* mean >= 0.1, >= 0.5; no trial above 0 */
  size_t mostly, always;                       /* 0.1 and more in 90 % of trials; in every one */
};
struct nm__heads_sum nm__heads_sum(const struct nm__head_scores *s);
/* Correlation of the mean scores; NaN when the shapes differ or one has no spread. */
double nm__heads_pearson(const struct nm__head_scores *a, const struct nm__head_scores *b);
/* How many of the k best heads are the same. */
size_t nm__heads_shared(const struct nm__head_scores *a, const struct nm__head_scores *b, size_t k);

/* ---- copying.c: answers and who copied them ---------------------------------------- */

struct nm__copy_opts {
  int most;                        /* tokens of an answer */
  bool unique;                     /* a token of the needle counts once, over the needle's different
                                      tokens; else as released: every time, over its length */
  bool blind;                      /* answers only: nobody looks at heads */
  bool (*stop)(void *arg, int32_t id);         /* ends an answer, and is no part of it; or NULL */
  void *arg;
};
struct nm__copier;
/* Answers under `edits`, which must outlive it. */
int nm__copier_new(nm_engine *e, const nm_model *m, nm_edits *edits, const struct nm__copy_opts *o,
                   struct nm__copier **out, nm_err *err);
void nm__copier_free(struct nm__copier *c);

/* A prompt whose tokens from .. to-1 are the needle. most: tokens of this answer; 0: the usual. */
struct nm__needle { nm_seq prompt; int from, to, most; };
/* answer: room for `most` tokens. score [L, H], or NULL. Prompts with a common beginning after one
 * another cost that beginning once. */
int nm__copy_answer(struct nm__copier *c, const struct nm__needle *q, int32_t *answer, int *n,
                    double *score, nm_err *err);

/* Edits that mask n heads (layer * H + head) at all positions. how: "zero" (the head's output is
 * zero), "uniform" (as released: it looks evenly at all it sees). */
int nm__mask_heads(const nm_model *m, const uint32_t *head, size_t n, const char *how,
                   nm_edits **out, nm_err *err);
/* k heads drawn from those behind the first `outside` of a ranking. */
int nm__random_heads(const uint32_t *rank, size_t heads, size_t outside, size_t k, uint64_t seed,
                     uint64_t draw, uint32_t *out, nm_err *err);

/* ---- rouge.c ----------------------------------------------------------------------- */

/* Share of the reference's words (stemmed, as often as they stand there) that the answer holds;
 * 0 for a reference of no words, NaN for want of memory. */
double nm__rouge1_recall(const char *reference, const char *answer);
/* Porter's stemmer (1980) on a word of lower-case letters, in place. */
void nm__stem(char *word);

#endif
