/* drive.h - the state of a run, for what drives the forward inside src/model: run.c takes whole
 * sequences through it, session.c one that grows. */
#ifndef NM_MODEL_DRIVE_H
#define NM_MODEL_DRIVE_H

#include "model/delta.h"
#include "model/plan.h"

struct active {                    /* a sequence of the current group */
  size_t seq;
  int len, at, slot;               /* positions done so far; first own cache slot */
  int n_prompt;                    /* what lies behind was generated: position n_prompt is the
                                      answer's token 0. len where nothing is generated */
  uint8_t **tap_mask;              /* [n_taps][len]: 1 where tapped */
  uint8_t **edit_mask;             /* [n_edits][len] */
};

struct nm_engine {
  const nm_model *m;
  const struct nm__kern *kern;
  struct nm__pool *pool;
  int n_ctx, chunk, batch;
  enum nm__gelu gelu;
  const nm_adapters *adapters;
  struct nm__deltas beside;        /* of the model's own adapters and of these */
  bool bf16;
};

struct nm__run {
  nm_engine *e;
  const nm_request *r;
  int chunk;
  struct nm__plan plan;
  size_t group; bool begun;        /* the next group of the plan, and whether it is active */
  struct nm__deltas beside;        /* the engine's adapters, and edits of weights */
  struct nm__ops ops;
  struct nm__kv kv;
  struct active *act; size_t n_act;
  struct nm__span *spans;
  int32_t *ids, *head_rows, *row_act, *row_pos;
  float *key_rows[2];              /* rows of the layer's scores and of its pattern */
  int32_t *key_slot;               /* batch row -> slot in key_rows, -1 none */
  int64_t key_width;
  int n_rows;
  uint64_t done;
  int status;
  nm_err *err;
};

/* The index of the answer's token at a position of the text; -1 for those of a prompt. */
static inline int nm__generated_index(const struct active *a, int pos) {
  return pos < a->n_prompt ? -1 : pos - a->n_prompt;
}

/* Arrays and arena for the plan's largest forward; the cache is the caller's to make. */
int nm__run_init(struct nm__run *R);
void nm__run_done(struct nm__run *R);
/* Puts the span's tokens ids[first..] into the batch: rows row0 ..; i_act is its sequence. */
void nm__run_rows(struct nm__run *R, int i_act, const struct nm__span *sp, const int32_t *ids);
/* One forward of spans 0..n_spans-1, taps and edits done. The status stays in R->status. */
int nm__run_forward(struct nm__run *R, int n_spans);
/* Edit i's vector may have one row a position: has it one for each masked position from .. n-1? */
int nm__run_check_edit(const struct nm__edit *e, int i, const uint8_t *mask, int from, int n,
                       nm_err *err);
int nm__engine_chunk(const nm_engine *e);

#endif
