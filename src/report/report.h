/* report.h - what a person sees of a result: tables in the terminal, SVG
 * charts, a self-contained HTML page, and the store of runs. No models here. */
#ifndef NM_REPORT_H
#define NM_REPORT_H

#include "core/core.h"
#include "core/json.h"

/* ---- terminal -------------------------------------------------------- */

/* Appends eight-level block characters for n values in [lo, hi]; NaN is a space. */
void nm__sparkline(struct nm__buf *b, const double *v, size_t n, double lo, double hi);

/* A table whose columns are as wide as their cells (UTF-8 aware, numbers right-aligned). */
struct nm__grid;
struct nm__grid *nm__grid_new(const char *const *heads, int n_cols);   /* NULL: no memory */
void nm__grid_cell(struct nm__grid *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void nm__grid_print(const struct nm__grid *g, struct nm__buf *b);
void nm__grid_free(struct nm__grid *g);

/* ---- charts ---------------------------------------------------------- */

enum nm__mark_style { NM__LINE_SOLID, NM__LINE_DASHED, NM__LINE_DOTTED };
struct nm__series {
  const char *name;                /* legend */
  const double *x, *y;             /* n points; NaN y breaks the line */
  const double *lo, *hi;           /* interval band, or NULL */
  int n;
  int colour;                      /* index into the house palette: same data set, same colour */
  enum nm__mark_style style;
  bool faint;                      /* controls: thinner, lighter */
};
struct nm__hline { double y; const char *name; enum nm__mark_style style; int colour; };
struct nm__vmark { double x; const char *name; int colour; };
struct nm__chart {
  const char *title, *subtitle, *x_label, *y_label;
  double y_lo, y_hi;               /* equal: from the data */
  int width, height;               /* 0: 860 x 460 */
  const struct nm__series *series; int n_series;
  const struct nm__hline *hlines; int n_hlines;
  const struct nm__vmark *vmarks; int n_vmarks;
};
/* A complete <svg> with real text, a <title> on every point (hover shows series, x, y and
 * interval) and a legend that does not cover the data. */
void nm__chart_svg(const struct nm__chart *c, struct nm__buf *b);

/* A grid of cells [n_y][n_x], each as dark as its value in 0..1, with a word in it. */
struct nm__word_cell { double value; const char *text, *hover; bool mark; };   /* mark: framed */
struct nm__words {
  const char *title, *subtitle, *note;             /* note: below the grid */
  const char *const *x_names, *const *y_names;
  int n_x, n_y;
  const struct nm__word_cell *cells;
};
void nm__words_svg(const struct nm__words *h, struct nm__buf *b);

/* A heat map: values in [-1, 1] as strength of two colours, 0 as paper. Columns are numbered from
 * x_first or named; rows are named and listed downwards. */
struct nm__heat {
  const char *title, *subtitle, *x_label, *y_label, *value_label;
  int n_rows, n_cols;
  const char *const *row;          /* [n_rows] */
  const char *const *col;          /* [n_cols], or NULL: numbers from 0 */
  const double *v;                 /* [n_rows, n_cols]; NaN is left empty and marked */
  const double *lo, *hi;           /* intervals, shown on hovering; or NULL */
  int mark_row, mark_col;          /* framed; -1: none */
};
/* A complete <svg> in the manner of nm__chart_svg: a <title> on every cell, figures in the cells
 * where there is room, a scale bar. */
void nm__heat_svg(const struct nm__heat *h, struct nm__buf *b);

/* A graph: nodes at places xy in one scale for both axes; nodes whose place is NaN are left out. */
struct nm__drawing {
  const char *title, *subtitle, *note;         /* note: below the drawing */
  int n, n_edges;
  const double (*xy)[2];
  const char *const *name;
  const int (*edge)[2];
};
void nm__drawing_svg(const struct nm__drawing *d, struct nm__buf *b);

/* ---- report.html ----------------------------------------------------- */

/* One self-contained page: no scripts from elsewhere, no fonts, prints well, dark-mode aware. */
struct nm__page;
struct nm__page *nm__page_new(const char *title);
void nm__page_heading(struct nm__page *p, const char *text);
void nm__page_para(struct nm__page *p, const char *text);         /* escaped */
void nm__page_code(struct nm__page *p, const char *text);         /* <pre>, escaped */
void nm__page_svg(struct nm__page *p, const char *svg);           /* inserted as it stands */
/* cells: [n_rows][n_cols] */
void nm__page_table(struct nm__page *p, const char *const *heads, int n_cols,
                    const char *const *cells, int n_rows);
int nm__page_write(struct nm__page *p, const char *path, nm_err *err);   /* atomic */
void nm__page_free(struct nm__page *p);
/* Ends a page with the exact command (NULL: none), writes DIR/report.html and frees it. */
int nm__page_finish(struct nm__page *p, const char *dir, const char *command, nm_err *err);
void nm__html_escape(struct nm__buf *b, const char *s);

/* ---- the store of runs ----------------------------------------------- */

/* A run is a folder and a row in DIR/runs.db (SQLite, WAL, safe with several writers). */
struct nm__run_row {
  int64_t id;
  char utc[32], verb[24], status[16];    /* status: running, done, failed, interrupted */
  char *dir, *model, *command, *summary; /* summary: one line */
  double seconds;
};
struct nm__runs;
int nm__runs_open(const char *root, struct nm__runs **out, nm_err *err);   /* creates it */
/* For reading: NM_EFORMAT when root holds no runs.db (or one that is not SQLite). */
int nm__runs_open_read(const char *root, struct nm__runs **out, nm_err *err);
void nm__runs_close(struct nm__runs *r);
/* What the verb adds to config.json of the run that begins next: options as they were taken,
 * seeds, kernels. Takes `settings` (NULL: nothing). */
void nm__runs_settings(struct nm__runs *r, json_t *settings);
/* Makes the folder, writes its config.json (about.c) and the row. `command` as a shell would read
 * it, "" where there was none. */
int nm__runs_begin(struct nm__runs *r, const char *verb, const char *dir, const char *model,
                   const char *command, int64_t *id, nm_err *err);
int nm__runs_end(struct nm__runs *r, int64_t id, const char *status, const char *summary,
                 double seconds, nm_err *err);
int nm__runs_forget(struct nm__runs *r, const char *dir, nm_err *err);     /* all rows of dir */
/* Newest first; `find` (may be NULL) matches in verb, model, command, summary, dir.
 * A row "running" whose process is gone reads "died". */
int nm__runs_list(struct nm__runs *r, const char *find, struct nm__run_row **rows, size_t *n,
                  nm_err *err);
void nm__runs_rows_free(struct nm__run_row *rows, size_t n);

/* about.c; for runs.c. `settings` may be NULL. */
int nm__about_write(const char *dir, const char *verb, const char *model, const char *command,
                    const json_t *settings, nm_err *err);

/* A run's folder with its row, for verbs that write one: DIR (NULL: runs/VERB-TIME-PID), made here.
 * `finished` is the file whose presence says that DIR holds a finished run, which is refused (NULL:
 * a run may go on in DIR). Takes `settings`: nm__runs_settings. */
struct nm__record { struct nm__runs *runs; int64_t id; char *dir; double start; };
int nm__record_begin(struct nm__record *r, const char *verb, const char *dir, const char *finished,
                     const char *model, const char *command, json_t *settings, nm_err *err);
/* st: how it ended; says `summary`, or the error. Releases everything. */
void nm__record_end(struct nm__record *r, int st, const char *summary, const nm_err *err);
/* A file of the folder: text, or a chart that failed for want of memory (NULL). */
int nm__record_put(const struct nm__record *r, const char *name, const struct nm__buf *b,
                   nm_err *err);

#endif
