/* slot.h - one slot of a batch, shared by the files of this folder: its rows, and the terms of the
 * loss that read them. */
#ifndef NM_LEARN_SLOT_H
#define NM_LEARN_SLOT_H

#include "learn/loss.h"

/* ---- what is fixed for a whole batch ---------------------------------------- */

struct nm__loss_kind;

/* Sites and positions behind a pair of strings, and the samples' positions there. */
struct nm__places { struct nm__sels sels; struct nm__at at; };

struct nm__loss_plan {
  const struct nm__loss_spec *spec;
  int n;
  const struct nm__loss_kind *kind[NM__MOST_LOSSES];
  double over[NM__MOST_LOSSES], retain[NM__MOST_LOSSES];
  struct nm__places places[NM__MOST_LOSSES];             /* of tap_* */
  struct nm__places *edit;                               /* [s->n_edits] */
};
/* Checks specs and samples, and counts what the means are over. */
int nm__loss_plan(struct nm__stepper *s, const struct nm__loss_spec *specs, int n_specs,
                  const struct nm__sample *const *batch, int n, struct nm__loss_plan *out,
                  nm_err *err);
int nm__edits_places(struct nm__stepper *s, struct nm__loss_plan *p, nm_err *err);
void nm__loss_plan_done(struct nm__loss_plan *p, int n_edits);
/* Are the logits of this sample's predictions read by any loss? */
bool nm__loss_reads(const struct nm__loss_plan *p, const struct nm__sample *v);

/* ---- one slot ------------------------------------------------------------------ */

/* One loss in one slot. Rows are those of the head; a list that a loss does not need is NULL. */
struct nm__term {
  int i;                           /* of the spec */
  struct nm__t sum;                /* so far; rows 0: none */
  int32_t *target;                 /* [n_rows]; -1: not a row of this loss */
  float *coef, *ref;               /* [n_rows]: its part in its unit's sum; log p of the frozen */
  int32_t *unit; int n_units;      /* [n_rows]: the sample or pair it belongs to */
  float *shift, *label, *unit_weight;                    /* [n_units] */
  int32_t *pick; int n_pick;       /* kl: its rows; tap_*: rows of the batch */
  float *logits;                   /* kl: [n_pick, V] of the frozen model */
  float *want, *pick_weight;       /* tap_*: [n_pick, width]; [n_pick] */
};

struct nm__slot {
  struct nm__stepper *s;
  const struct nm__loss_plan *plan;
  const struct nm__sample *const *v;
  int n;
  int front;                       /* rows of the soft prompt before every sample */
  struct nm__span *spans;
  int n_spans, T, longest, n_rows;
  int32_t *ids, *first;            /* [T]; [n]: the batch row of a sample's first token */
  int32_t *rows, *of, *next;       /* rows of the head: batch row, sample, place it predicts */
  int32_t *prompt_at, *prompt_row; /* [n_prompt] batch rows that the prompt fills, with what */
  int n_prompt;
  int32_t **edit_rows;             /* [s->n_edits]: batch rows */
  int *n_edit_rows;
  struct nm__term term[NM__MOST_LOSSES];
  int at;                          /* rows whose logits have come */
  bool count;                      /* see nm__stepper.right */
  struct nm__collect *collect;     /* NULL: nothing is read out */
};
/* Activations that are read out: rows of the batch at places, as [n][sels][width]. */
struct nm__collect { const struct nm__places *p; const int32_t *rows; int n; float *to; };
void nm__collect_visit(const struct nm__slot *l, int site, int layer, const struct nm__t *x);
/* slot.c: rows of samples v[0..n-1]; those of the head are the predictions with a weight that
 * some loss reads (plan NULL: all). */
int nm__slot_fill(struct nm__slot *l, nm_err *err);
void nm__slot_done(struct nm__slot *l);

/* loss.c */
int nm__terms_make(struct nm__slot *l, nm_err *err);
void nm__terms_done(struct nm__slot *l);
void nm__terms_begin(struct nm__slot *l);
void nm__terms_logits(struct nm__slot *l, struct nm__t x);         /* of the next rows */
void nm__terms_add(struct nm__slot *l, struct nm__term *t, struct nm__t x);
/* The slot's loss [1, 1]; rows 0: no unit of any loss is here. In record mode `seen` counts. */
struct nm__t nm__terms_end(struct nm__slot *l);

/* taps.c */
int nm__places_open(const nm_model *m, const char *what, const char *site, const char *at,
                    bool blocks, struct nm__places *out, nm_err *err);
void nm__places_done(struct nm__places *p);
int nm__places_of(const struct nm__places *p, const nm_model *m, const struct nm__sample *v,
                  int **pos, int *n, nm_err *err);
/* Batch rows of the samples of a group at the places, and which sample each belongs to. */
int nm__places_rows(const struct nm__slot *l, const struct nm__places *p, int group,
                    int32_t **rows, int32_t **of, int *n, nm_err *err);
int nm__edits_make(struct nm__slot *l, nm_err *err);
void nm__edits_done(struct nm__slot *l);
int nm__tap_check(const struct nm__stepper *s, const struct nm__loss_spec *e,
                  const struct nm__sample *v, int64_t width, nm_err *err);
int nm__tap_make(struct nm__slot *l, struct nm__term *t, nm_err *err);
void nm__tap_visit(struct nm__slot *l, int site, int layer, struct nm__t *x);
bool nm__tap_wants(const struct nm__slot *l, int site, int layer);

/* step.c: the activations of the model as it is (adapters, prompt and edits included) at places of
 * the samples, in their order: *out [*n_rows][sels][width], which the caller frees. */
int nm__step_read(struct nm__stepper *s, const struct nm__sample *const *v, int n,
                  const struct nm__places *p, float **out, int *n_rows, nm_err *err);

/* frozen.c: the frozen model's logits of the rows of a kl term, in t->logits. */
int nm__frozen_logits(struct nm__slot *l, struct nm__term *t, int group, nm_err *err);
void nm__frozen_done(struct nm__stepper *s);

/* The rows of the table. */
enum nm__loss_unit { NM__TOKENS, NM__SAMPLES, NM__PAIRS, NM__PLACES };
struct nm__loss_kind {
  const char *name, *formula;
  enum nm__loss_unit unit;
  enum nm__op_id op;               /* makes a number of a row; samples, pairs: of their x */
  bool beta, ref, frozen;          /* needs a beta; the samples' ref; the frozen model itself */
  bool per_token;                  /* the sum of a sample is a mean over its tokens' weights */
  bool two_groups;
};
const struct nm__loss_kind *nm__loss_kind_of(const char *name);        /* NULL: none */

#endif
