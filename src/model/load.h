/* load.h - what the files that load a model share. Inside src/model only. */
#ifndef NM_MODEL_LOAD_H
#define NM_MODEL_LOAD_H

#include "model/model.h"

/* The tensor `name` of n matrices [rows, cols] one after the other (n 1: one matrix; rows 1: a
 * vector; rows < 0: as many as it has), as one matrix of n rows rows. A tensor that is absent is
 * an error if it must be there, else out->data is NULL. */
int nm__bind(nm_model *m, const char *name, int64_t n, int64_t rows, int64_t cols, bool must,
             struct nm__w *out, nm_err *err);

/* load_experts.c: how many experts the metadata announces, and the experts of block il. */
int nm__experts_load(nm_model *m, nm_err *err);
int nm__experts_bind(nm_model *m, int il, struct nm__layer *l, nm_err *err);

#endif
