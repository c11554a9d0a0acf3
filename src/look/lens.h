/* lens.h - the logit lens inside src/look: what lens.c computes and lens_show.c shows. */
#ifndef NM_LOOK_LENS_H
#define NM_LOOK_LENS_H

#include "core/json.h"
#include "model/model.h"
#include "report/report.h"

/* The n tokens with the largest logits (largest false: the smallest), best first, ties by id.
 * lp: ln of their probability when log_sum is the log-sum-exp, or their logit minus it. */
void nm__top_tokens(const float *logits, int V, int n, bool largest, double log_sum,
                    nm_lens_token *out);
double nm__log_sum_exp(const float *logits, int V);
/* 1 for the largest logit; ties go to the lower id. */
int nm__rank_of(const float *logits, int V, int32_t id);
/* What a token adds to a text, zero-terminated; NULL: nothing, or it cannot be told. Free it. */
char *nm__token_bytes(const nm_model *m, int32_t id, size_t *n);
/* The same as a short line of visible text: spaces as open boxes, <id> for nothing. */
char *nm__token_text(const nm_model *m, int32_t id);
json_t *nm__token_json(const nm_model *m, int32_t id);
/* lens.json, lens.svg, layers.svg, report.html in the folder. */
int nm__lens_write(const nm_lens_result *r, const nm_model *m, const nm_lens_opts *o,
                   const struct nm__record *rec, nm_err *err);

#endif
