/* vector.h - steering vectors inside src/study: contrast.c reads texts, vector.c fits, sweep.c
 * measures strength, vector_show.c and sweep.c show. */
#ifndef NM_STUDY_VECTOR_H
#define NM_STUDY_VECTOR_H

#include "core/json.h"
#include "model/model.h"
#include "report/report.h"

/* vector.json, separation.svg, report.html. */
int nm__vector_write(const nm_vector_result *r, const nm_model *m, const nm_contrast *c,
                     const nm_vector_opts *o, const struct nm__record *rec, nm_err *err);
/* sweep.json, sweep.svg, report.html. */
int nm__sweep_write(const nm_sweep_result *r, const nm_model *m, const nm_sweep_opts *o,
                    const struct nm__record *rec, nm_err *err);

#endif
