/* trace.h - noema trace-graph inside: one graph, several conditions, everything that is shown.
 *
 *   trace_words.c   which words are one token, the prompts' ids
 *   trace_files.c   Gram matrices and accuracies of CSV files
 *   trace.c         the conditions run one after another, kept so that a run can go on
 *   trace_show.c    tables, JSON, the page, the verdict
 *   trace_draw.c    figures and CSV files */
#ifndef NM_LOOK_TRACE_H
#define NM_LOOK_TRACE_H

#include "core/json.h"
#include "look/walks.h"
#include "model/model.h"
#include "report/report.h"

enum { NM__CONDITIONS = 6, NM__TRACE_WORD = 64 };

/* Words that stand for nodes. `lead`: they have a space in front to be one token. */
struct nm__trace_words {
  char (*word)[NM__TRACE_WORD];
  int32_t *id;
  int n;
  const char *lead;
  char left_out[400];              /* those that are not one token, as a list */
};
/* At least `need` words, in an order drawn by the seed. *bos: -1 where the file asks for none. */
int nm__trace_words(const nm_model *m, const char *source, int need, uint64_t seed,
                    struct nm__trace_words *out, int32_t *bos, nm_err *err);
void nm__trace_words_done(struct nm__trace_words *w);
/* The words of a file, one a line: no empty or repeated ones. *out [*n]: free it. */
int nm__trace_word_list(const char *name, const char *text, size_t size,
                        char (**out)[NM__TRACE_WORD], int *n, nm_err *err);

/* A CSV of products: a header of node names behind a first cell, then a row a node: its name and
 * n numbers. name, gram [n * n]. */
struct nm__gram_file { int n; char (*name)[NM__TRACE_WORD]; double *gram; };
int nm__gram_parse(const char *file, const char *text, size_t size, struct nm__gram_file *out,
                   nm_err *err);
void nm__gram_done(struct nm__gram_file *g);
/* A CSV of accuracies: position, then a column a walk, each 0 to 1 or empty. */
struct nm__accuracy_file { size_t n; int walks; double *position, *acc; };     /* acc [n, walks] */
int nm__accuracy_parse(const char *file, const char *text, size_t size,
                       struct nm__accuracy_file *out, nm_err *err);
void nm__accuracy_done(struct nm__accuracy_file *a);

struct nm__condition {
  char name[48];
  nm_edits *edits;
  const struct nm__walks *w;
  struct nm__traced t;
};

struct nm__trace {
  const nm_trace_opts *o;
  const nm_model *m;               /* NULL: files */
  nm_engine *e;
  nm_trace_result *r;
  struct nm__graph g;
  struct nm__trace_words words;
  const char *name[NM__GRAPH_NODES];           /* of nodes */
  int length[NM__WALK_LENGTHS], n_lengths, window, n_walks, D;
  char sites[512];
  struct nm__walks walk, shuffled;
  struct nm__condition c[NM__CONDITIONS];
  int n_conditions;
  struct nm__head *head;           /* NULL: nothing is ablated */
  int n_heads;
  struct nm__geometry plain, mixed;
  double chance[2];
  struct nm__gram_file gram;
  struct nm__accuracy_file accuracy;
  struct nm__record rec;
};
struct nm__shown {
  struct nm__trace *t;
  struct nm__geometry *geo;        /* [conditions, lengths, rows] */
  double *standard;
  int n_rows, best;                /* row with the largest R2 at the full length */
  struct nm__buf text;
  struct nm__page *page;
  json_t *json;
};
static inline size_t nm__geo_at(const struct nm__shown *s, int c, int l, int row) {
  return (size_t)((c * s->t->n_lengths + l) * s->n_rows + row);
}

/* ---- trace_draw.c ---- */

enum { NM__BINS = 48 };
/* n curves over m places, with bands of two standard errors over the walks. */
struct nm__curves {
  double x[NM__BINS], y[4][NM__BINS], lo[4][NM__BINS], hi[4][NM__BINS];
  int n, m;
  const char *name[4];
};
/* Mean of n values and two standard errors, as place i of curve k. */
void nm__trace_point(struct nm__curves *c, int k, int i, const double *v, int n);
/* accuracy.svg; FILE. */
int nm__trace_curves(struct nm__shown *s, const struct nm__curves *c, const char *title,
                     nm_err *err);
int nm__trace_draw(struct nm__shown *s, const struct nm__geometry *q, const char *file,
                   const char *title, const char *subtitle, nm_err *err);
/* All figures and files of a model. */
int nm__trace_figures(struct nm__shown *s, nm_err *err);

/* Fills r->text, json, summary, verdict, writes the folder. */
int nm__trace_show(struct nm__trace *t, nm_err *err);
int nm__trace_show_files(struct nm__trace *t, nm_err *err);

#endif
