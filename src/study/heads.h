/* heads.h - the parts of noema heads:
 *
 *   data   needles put into haystacks, prompts as tokens, where the needle lies   heads_data.c
 *   drive  folder, answers that are there already, scores, masks, records         heads.c
 *   show   terminal, JSON, heat map, report                                       heads_page.c
 *
 * A set is what is masked: set 0 nothing, then for every K the best K and the draws. An item is a
 * trial or, behind the trials, a fact. */
#ifndef NM_STUDY_HEADS_H
#define NM_STUDY_HEADS_H

#include "look/heads.h"
#include "model/model.h"

struct nm__trial {
  int32_t *ids;
  size_t n;
  int from, to;                    /* the needle's tokens; of a fact: none */
  char *answer;
  int32_t *want;                   /* a fact's answer as tokens */
  int n_want;
  int length, depth;               /* of context, in tokens; in percent. 0: rows of data */
};
struct nm__trials { struct nm__trial *v; size_t n; };
/* Trials, and facts behind them. */
int nm__trials_load(const nm_model *m, const nm_heads_opts *o, struct nm__trials *trials,
                    struct nm__trials *facts, nm_err *err);
void nm__trials_done(struct nm__trials *t);
/* The first window of as many tokens as `want` has that shares more than 0.9 of its different
 * tokens; false: none, *best is the largest share found. */
bool nm__find_span(const int32_t *ids, size_t n, const int32_t *want, size_t k, int *from,
                   double *best);

struct nm__headrun {
  nm_model *m;
  nm_engine *e;
  nm_heads_opts o;
  nm_heads_result *r;
  struct nm__trials trials, facts;
  struct nm__head_scores all, kept;            /* of all trials; of those that count */
  uint32_t *rank;
  int n_sets, *set_k;              /* [n_sets]: heads masked */
  uint32_t **set_head;
  double *value;                   /* [n_sets, items]: recall, or 1 where a fact is right */
  bool *known;
  double *row;                     /* [L, H]: of one trial */
  int32_t *answer;
  size_t n_done, n_answers;
  void *file;                      /* answers.jsonl */
};
int nm__heads_page(struct nm__headrun *R, nm_err *err);

#endif
