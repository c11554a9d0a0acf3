/* train.h - the inside of a training run (src/learn only).
 *
 *   train.c        the loop: a step, evaluations, checkpoints
 *   train_make.c   the model, what is learned of it, data and optimiser
 *   train_keep.c   metrics.jsonl, loss.svg, report.html, the trained model */
#ifndef NM_LEARN_TRAIN_H
#define NM_LEARN_TRAIN_H

#include <stdio.h>

#include "learn/ckpt.h"
#include "learn/data.h"
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
  const struct nm__sample **batch;
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

/* ---- train_keep.c ----------------------------------------------------------- */

/* metrics.jsonl, ready for the next line; lines behind where the run stands are dropped. */
int nm__metrics_open(struct nm__training *t, nm_err *err);
int nm__metrics_line(struct nm__training *t, json_t *line, nm_err *err);   /* takes `line` */
/* loss.svg and report.html from metrics.jsonl. */
int nm__training_report(struct nm__training *t, const char *summary, nm_err *err);
/* model.gguf (or adapter.gguf) in the run's folder, in the type the recipe says. */
int nm__training_save(struct nm__training *t, nm_err *err);

#endif
