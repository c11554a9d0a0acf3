/* study.h - the harness of studies: what a study states, measures and shows, and the verdict.
 *
 * A study is one row in study.c: a name, the faults that must be noticed, and `run`, which trains
 * and measures and then calls, in the order of the report:
 *
 *   nm__study_claim(r, &(struct nm__claim){"order", "depth of A below depth of B", ...}, v, n)
 *   nm__study_table(r, "title", heads, n_cols, cells, n_rows)
 *   nm__study_figure(r, "curves", &chart)
 *
 * Claims are written before the figures are known. A claim is red when one seed lies outside. The
 * verdict: fail when a claim is red, else inconclusive when a condition is not met or there are
 * fewer than three seeds, else pass. */
#ifndef NM_STUDY_STUDY_H
#define NM_STUDY_STUDY_H

#include <jansson.h>
#include "report/report.h"

enum { NM__STUDY_SEEDS = 16, NM__STUDY_ENOUGH = 3 };

enum nm__claim_kind {
  NM__EFFECT,                      /* red outside */
  NM__CONTROL,                     /* the same; what must come out at nothing */
  NM__CONDITION,                   /* outside: the study cannot conclude */
  NM__NOTE                         /* shown, never judged */
};
struct nm__claim {
  const char *name, *text;
  enum nm__claim_kind kind;
  double low, high;
};

struct nm__study_run {
  const nm_study_opts *o;
  const uint64_t *seeds;
  int n_seeds, fault;              /* index into the study's faults, or -1 */
  nm_study_result *out;
  struct nm__page *page;
  struct nm__buf text;
  json_t *figures;                 /* what the study wants kept in study.json */
  bool failed;                     /* no memory for one of the calls below: sticky */
  char (*cell)[64];                /* of the table being filled */
  int n_cells, cap_cells;
};

struct nm__study {
  nm_study_info info;
  int (*run)(struct nm__study_run *r, nm_err *err);
};
extern const struct nm__study nm__study_concept_depth, nm__study_walks,
    nm__study_retrieval_heads;

/* v[n]: one value a seed; n 0: it could not be measured, `text` says what would have been. */
void nm__study_claim(struct nm__study_run *r, const struct nm__claim *c, const double *v, int n);
/* To terminal and report; cells [n_rows][n_cols]. */
void nm__study_table(struct nm__study_run *r, const char *title, const char *const *heads,
                     int n_cols, const char *const *cells, int n_rows);
/* The same, cell after cell, of at most 63 bytes each; nm__study_rows shows the table. */
void nm__study_cell(struct nm__study_run *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void nm__study_rows(struct nm__study_run *r, const char *title, const char *const *heads,
                    int n_cols);
void nm__study_para(struct nm__study_run *r, const char *text);
/* DIR/NAME.svg and the report. */
int nm__study_figure(struct nm__study_run *r, const char *name, const struct nm__chart *c,
                     nm_err *err);
/* Mean of v and its t interval at 95 %; n 1: no interval. */
nm_interval nm__study_interval(const double *v, int n);
/* The figures of a finished seed, DIR/seed-N.json: a list of numbers (NaN: none) under the key of
 * all they depend on, so that a study that was cut off goes on. False: none of the key. */
bool nm__study_kept(const struct nm__study_run *r, uint64_t seed, const char *key, double *v,
                    size_t n);
int nm__study_keep(const struct nm__study_run *r, uint64_t seed, const char *key, const double *v,
                   size_t n, nm_err *err);
/* What the claims so far come to; n_seeds of the run. */
int nm__study_verdict(const nm_study_claim *c, int n, int n_seeds);

#endif
