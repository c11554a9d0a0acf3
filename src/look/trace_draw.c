/* trace_draw.c - a traced graph as figures, and as the CSV files that trace-graph reads. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "look/trace.h"
#include "tensor/math.h"

/* ---- figures ---------------------------------------------------------------------------- */

static int keep_svg(struct nm__shown *s, const char *file, struct nm__buf *svg, nm_err *err) {
  int st = nm__record_put(&s->t->rec, file, svg, err);
  if (!st) nm__page_svg(s->page, svg->s);
  nm__buf_done(svg);
  return st;
}

void nm__trace_point(struct nm__curves *c, int k, int i, const double *v, int n) {
  double sum = 0, sq = 0;
  for (int j = 0; j < n; j++) sum += v[j], sq += v[j] * v[j];
  double mean = n ? sum / n : NAN, var = n > 1 ? (sq / n - mean * mean) / (n - 1) : 0;
  double half = var > 0 ? 2 * nm__sqrt(var) : 0;
  c->y[k][i] = mean, c->lo[k][i] = mean - half, c->hi[k][i] = mean + half;
}

int nm__trace_curves(struct nm__shown *s, const struct nm__curves *c, const char *title,
                     nm_err *err) {
  struct nm__series line[4];
  struct nm__buf svg;
  char subtitle[160];
  for (int k = 0; k < c->n; k++)
    line[k] = (struct nm__series){c->name[k], c->x, c->y[k], c->lo[k], c->hi[k], c->m,
                                  k < 2 ? k : 9, k & 1 ? NM__LINE_DASHED : NM__LINE_SOLID, k > 1};
  snprintf(subtitle, sizeof subtitle, "%s; mean of walks, band: two standard errors", s->t->g.name);
  struct nm__hline chance = {s->t->chance[0], "frequencies alone", NM__LINE_DOTTED, 9};
  struct nm__chart chart = {.title = title, .subtitle = subtitle, .x_label = "words of the walk",
                            .y_label = "probability", .y_lo = 0, .y_hi = 1.02, .series = line,
                            .n_series = c->n, .hlines = &chance, .n_hlines = 1};
  nm__buf_init(&svg, (size_t)1 << 26);
  nm__chart_svg(&chart, &svg);
  return keep_svg(s, "accuracy.svg", &svg, err);
}

/* One walk's accuracy in words from..to-1. */
static double in_bin(const struct nm__condition *c, int walk, int from, int to, int k) {
  double sum = 0;
  int n = 0;
  for (int at = from; at < to; at++) {
    double v = c->t.acc[2 * ((size_t)walk * (size_t)c->w->T + (size_t)at) + (size_t)k];
    if (!isnan(v)) sum += v, n++;
  }
  return n ? sum / n : NAN;
}

static int accuracy_figure(struct nm__shown *s, nm_err *err) {
  static const char *const name[] = {"all neighbours", "without the word just left",
                                     "shuffled words", "shuffled, without"};
  struct nm__trace *t = s->t;
  struct nm__curves *c = nm__alloc(1, sizeof *c);
  double *v = nm__alloc((size_t)t->n_walks, sizeof *v);
  int T = t->walk.T, st = c && v ? NM_OK : nm__fail_memory(err, "a figure", sizeof *c);
  if (!st) c->n = 4, c->m = T - 1 < NM__BINS ? T - 1 : NM__BINS;
  for (int k = 0; k < 4 && !st; k++) {
    c->name[k] = name[k];
    for (int i = 0; i < c->m; i++) {
      int from = 1 + (T - 1) * i / c->m, to = 1 + (T - 1) * (i + 1) / c->m, n = 0;
      for (int w = 0; w < t->n_walks; w++) {
        double a = in_bin(&t->c[k / 2], w, from, to, k % 2);
        if (!isnan(a)) v[n++] = a;
      }
      c->x[i] = (from + to - 1) / 2.0;
      nm__trace_point(c, k, i, v, n);
    }
  }
  if (!st) st = nm__trace_curves(s, c, "What follows in a walk", err);
  free(c);
  free(v);
  return st;
}

int nm__trace_draw(struct nm__shown *s, const struct nm__geometry *q, const char *file,
                      const char *title, const char *subtitle, nm_err *err) {
  const struct nm__graph *g = &s->t->g;
  int (*edge)[2] = nm__alloc((size_t)g->n_edges, sizeof *edge), n = 0;
  struct nm__buf svg;
  char note[160];
  if (!edge) return nm__fail_memory(err, "a figure", 0);
  for (int i = 0; i < g->n; i++)
    for (int k = 0; k < g->degree[i]; k++)
      if (g->next[i][k] > i) edge[n][0] = i, edge[n++][1] = g->next[i][k];
  snprintf(note, sizeof note, "R2 %.2f (permuted %.2f, mixing alone %.2f), Spearman %.2f (%.2f), "
           "%.0f %% of variance", q->r2, q->permuted, s->t->mixed.r2,
           q->spearman, s->t->mixed.spearman, 100 * q->share);
  nm__buf_init(&svg, (size_t)1 << 24);
  nm__drawing_svg(&(struct nm__drawing){title, subtitle, note, g->n, n, q->pc, s->t->name, edge},
                  &svg);
  free(edge);
  return keep_svg(s, file, &svg, err);
}

static int drawings(struct nm__shown *s, nm_err *err) {
  struct nm__trace *t = s->t;
  char file[40], title[120];
  int st = NM_OK;
  for (int l = 0; l < t->n_lengths && !st; l++) {
    const struct nm__geometry *q = &s->geo[nm__geo_at(s, 0, l, s->best)];
    if (isnan(q->r2)) continue;
    snprintf(file, sizeof file, "pca-%d.svg", t->length[l]);
    snprintf(title, sizeof title, "%.40s after %d words", t->c[0].t.row[s->best], t->length[l]);
    st = nm__trace_draw(s, q, file, title,
                        "means of states by node, components 1 and 2; lines: edges", err);
  }
  if (!st)
    st = nm__trace_draw(s, &t->mixed, "pca-mixing.svg", "Random vectors, neighbours mixed once",
                    "no model and no learning: what any such picture must be held against", err);
  return st;
}

/* ---- files ------------------------------------------------------------------------------ */

/* In the form that --accuracy and --gram read. */
static int write_csv(struct nm__shown *s, nm_err *err) {
  struct nm__trace *t = s->t;
  const struct nm__traced *c = &t->c[0].t;
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 28);
  nm__buf_puts(&b, "position");
  for (int i = 0; i < t->n_walks; i++) nm__buf_printf(&b, ",walk%d", i);
  for (int at = 0; at < t->walk.T; at++) {
    nm__buf_printf(&b, "\n%d", at);
    for (int i = 0; i < t->n_walks; i++)
      nm__buf_printf(&b, ",%.6f", c->acc[2 * ((size_t)i * (size_t)t->walk.T + (size_t)at)]);
  }
  nm__buf_putc(&b, '\n');
  int st = nm__record_put(&t->rec, "accuracy.csv", &b, err);
  nm__buf_done(&b);
  return st;
}

static int write_gram(struct nm__shown *s, nm_err *err) {
  struct nm__trace *t = s->t;
  const struct nm__traced *c = &t->c[0].t;
  size_t n = (size_t)t->g.n, D = (size_t)c->D, at = (size_t)(t->n_lengths - 1);
  const double *sum = c->sum + (at * (size_t)c->n_rows + (size_t)s->best) * n * D,
               *count = c->count + at * n;
  double *x = nm__alloc(n * D + n * n, sizeof *x);
  struct nm__buf b;
  int st = x ? NM_OK : nm__fail_memory(err, "products", n * D * 8);
  for (size_t i = 0; i < n && !st; i++) {
    if (count[i] <= 0) return free(x), NM_OK;  /* a node without a mean: no matrix */
    for (size_t d = 0; d < D; d++) x[i * D + d] = sum[i * D + d] / count[i];
  }
  if (!st) st = nm__gram_of(x, t->g.n, c->D, NULL, false, x + n * D, err);
  nm__buf_init(&b, (size_t)1 << 26);
  nm__buf_puts(&b, "word");
  for (size_t i = 0; i < n; i++) nm__buf_printf(&b, ",%s", t->name[i]);
  for (size_t i = 0; i < n && !st; i++) {
    nm__buf_printf(&b, "\n%s", t->name[i]);
    for (size_t j = 0; j < n; j++) nm__buf_printf(&b, ",%.12g", x[n * D + i * n + j]);
  }
  nm__buf_putc(&b, '\n');
  if (!st) st = nm__record_put(&t->rec, "gram.csv", &b, err);
  nm__buf_done(&b);
  free(x);
  return st;
}

int nm__trace_figures(struct nm__shown *s, nm_err *err) {
  int st = accuracy_figure(s, err);
  if (!st) st = drawings(s, err);
  if (!st) st = write_csv(s, err);
  return st ? st : write_gram(s, err);
}
