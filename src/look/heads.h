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

/* ---- rouge.c ------------------------------------------------------------------------- */

/* Share of the reference's words (stemmed, as often as they stand there) that the answer holds;
 * 0 for a reference of no words, NaN for want of memory. */
double nm__rouge1_recall(const char *reference, const char *answer);
/* Porter's stemmer (1980) on a word of lower-case letters, in place. */
void nm__stem(char *word);

#endif
