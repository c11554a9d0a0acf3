/* delta.h - low-rank changes that stand beside weights, which stay as they are stored: of adapters
 * (adapter.h) and of weight edits (edit_weight.c). */
#ifndef NM_MODEL_DELTA_H
#define NM_MODEL_DELTA_H

#include <jansson.h>
#include "model/model.h"

/* A list for a forward, and the memory that was made for it. */
struct nm__deltas {
  struct nm__lora *v;              /* sorted by data; beside one weight in the order added */
  int n, cap;
  void **own; size_t n_own;
};
void nm__deltas_done(struct nm__deltas *d);
/* Appends those of another list, which must outlive this one. */
int nm__deltas_join(struct nm__deltas *d, const struct nm__lora *v, int n, nm_err *err);
void *nm__deltas_own(struct nm__deltas *d, size_t n, size_t size, nm_err *err);  /* zeroed */

/* A tensor of a model by its name in a GGUF file, and, where experts are stacked in it, one of
 * these: `data` is where its rows begin. */
struct nm__place {
  const struct nm__gguf_tensor *t;
  const uint8_t *data;
  int64_t rows, cols;
  size_t row_bytes;
  int expert;                      /* -1: no expert's */
};
/* False: the model has no such matrix. Expert `expert` of `name` is found stacked or alone;
 * output.weight is also the head of a model that has none of its own. */
bool nm__place_of(const nm_model *m, const char *name, int expert, struct nm__place *out);

/* W += scale B A wherever the forward multiplies with rows of the place; where fused, the parts
 * (q, k, v) get theirs. a [r, cols], b [rows, r], borrowed. gguf_rows: b is in the order of a GGUF
 * file, whatever that of the model. *n is increased for each product it stands beside. */
struct nm__low_rank { const float *a, *b; int64_t r; float scale; };
int nm__deltas_beside(struct nm__deltas *d, const nm_model *m, const struct nm__place *at,
                      const struct nm__low_rank *c, bool gguf_rows, int *n, nm_err *err);
/* The same where rows are looked up: a [rows, r], b [cols, r]. */
int nm__deltas_lookup(struct nm__deltas *d, const nm_model *m, const struct nm__place *at,
                      const struct nm__low_rank *c, int *n, nm_err *err);

/* ---- edits of weights (edit_weight.c) ------------------------------------ */

enum nm__weight_op { NM__WEIGHT_ZERO, NM__WEIGHT_NOISE, NM__WEIGHT_ADD };
struct nm__weight_edit {
  char *weight, *what;
  int expert;                      /* -1: the tensor is one matrix */
  bool row;                        /* else a column */
  int64_t index;
  enum nm__weight_op op;
  float scale;
  uint64_t seed;
  struct nm__dirs vec;
  int number;                      /* in its file, for messages */
  uint64_t touched;
};
/* Takes what was read of edit `number` (from 1) of a file. */
struct nm__yaml;
int nm__weight_edit_read(const struct nm__yaml *y, int number, json_t *o,
                         struct nm__weight_edit *out, nm_err *err);
struct nm__weight_edit *nm__edits_push_weight(nm_edits *e);      /* zeroed; NULL: no memory */
/* edit_read.c: the vector of an edit. */
int nm__edit_vector(const struct nm__yaml *y, int number, json_t *o, struct nm__dirs *out,
                    nm_err *err);
void nm__weight_edit_done(struct nm__weight_edit *w);
void nm__weight_edit_key(const struct nm__weight_edit *w, struct nm__buf *b);
/* The edits as changes beside the weights of m, appended to d; sets `touched`. Those of scale 0
 * add nothing. */
int nm__weight_edits_apply(nm_edits *e, const nm_model *m, struct nm__deltas *d, nm_err *err);

#endif
