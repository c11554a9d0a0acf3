/* train.h - the inside of a training run (src/learn only).
 *
 *   train.c        the loop: a step, evaluations, checkpoints
 *   train_make.c   the model, what is learned of it, data and optimiser
 *   train_learn.c  which numbers are learned, and by which losses
 *   train_watch.c  taps and probes while it trains
 *   train_keep.c   metrics.jsonl, loss.svg, report.html
 *   train_save.c   the trained model, adapters, vectors */
#ifndef NM_LEARN_TRAIN_H
#define NM_LEARN_TRAIN_H

#include <stdio.h>

#include "learn/ckpt.h"
#include "file/npy.h"
#include "learn/data.h"
#include "learn/loss.h"
#include "report/report.h"

struct nm__training {
  const nm_train_opts *o;
  struct nm__recipe r;
  char *dir, *root;
  struct nm__gguf *base;           /* what the container points into; NULL: the model owns it */
  nm_model *m;
  struct nm__params p;
  struct nm__moments moments;
  struct nm__stepper s;
  struct nm__ops opt;              /* of the optimiser, with an arena of its own */
  int *group;                      /* of each learned tensor */
  enum nm__optim_kind *kind;
  struct nm__set *set, *eval;      /* one a source */
  struct nm__stream stream;
  const struct nm__sample **batch;             /* [2 batch] */
  struct nm__chat_how chat;
  nm_model *reference;             /* the frozen model where it is one of its own */
  struct nm__loss_spec spec[NM__MOST_LOSSES];
  struct { struct nm__npy target, probe, bias; } of_spec[NM__MOST_LOSSES];
  struct nm__learned_edit *edits;
  struct nm__probing *probing;     /* one a probe of the recipe */
  struct nm__ckpt at;              /* where the run stands, and what it is */
  double flops_per_token, peak;    /* operations a second of the machine; 0: not measured yet */
  double loss, eval_loss, eval_accuracy;       /* eval_*: of the first source; below 0: none */
  FILE *metrics;
  struct nm__runs *runs;
  int64_t run_id;
};

/* ---- train_make.c ----------------------------------------------------------- */

int nm__training_open(struct nm__training *t, const char *recipe, nm_err *err);
void nm__training_close(struct nm__training *t);
/* Multiply-adds of all threads a second, times two. */
double nm__training_peak(struct nm__training *t);

/* ---- train_lora.c ----------------------------------------------------------- */

/* What a run with adapters trains, as llama.cpp reads it, and the model it is for. */
int nm__training_adapter(struct nm__training *t, struct nm__gguf **out, nm_err *err);

/* ---- train_learn.c ---------------------------------------------------------- */

/* A container of the base, or of a new model; the caller closes it. */
int nm__training_container(struct nm__training *t, struct nm__gguf **out, nm_err *err);
/* The model and its parameters, from the container, which it takes. */
int nm__training_params(struct nm__training *t, struct nm__gguf *g, nm_err *err);
/* Edits and losses for the stepper, once data and stepper are there. */
int nm__training_losses(struct nm__training *t, nm_err *err);
void nm__training_losses_done(struct nm__training *t);
/* Log-probabilities of the frozen model where a loss needs them and they are not known yet. `test`:
 * of samples of an evaluation, which are of no group. */
int nm__training_reference(struct nm__training *t, const struct nm__sample *const *v, int n,
                           bool test, nm_err *err);

/* ---- train_watch.c ---------------------------------------------------------- */

int nm__watch_open(struct nm__training *t, nm_err *err);
void nm__watch_done(struct nm__training *t);
/* What is due after the step that was done (or before the first) goes to metrics.jsonl. */
int nm__watch_step(struct nm__training *t, nm_err *err);

/* ---- train_keep.c ----------------------------------------------------------- */

/* metrics.jsonl, ready for the next line; lines behind where the run stands are dropped. */
int nm__metrics_open(struct nm__training *t, nm_err *err);
int nm__metrics_line(struct nm__training *t, json_t *line, nm_err *err);   /* takes `line` */
/* loss.svg and report.html from metrics.jsonl. */
int nm__training_report(struct nm__training *t, const char *summary, nm_err *err);

/* ---- train_save.c ----------------------------------------------------------- */

/* What was learned, in the run's folder: model.gguf in the type the recipe says, adapter.gguf,
 * edits.json and its vectors. */
int nm__training_save(struct nm__training *t, nm_err *err);

#endif
