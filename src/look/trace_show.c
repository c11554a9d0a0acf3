/* trace_show.c - a traced graph for people: tables, JSON, figures, the page, and the verdict. The
 * rows of shuffled words, of random vectors and of mixed ones are in every table of states. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "look/trace.h"
#include "tensor/math.h"

enum { COLUMNS = 10, BINS = 48, HALF = 25, TOP_HEADS = 8 };

struct shown {
  struct nm__trace *t;
  struct nm__geometry *geo;        /* [conditions, lengths, rows] */
  double *standard;
  int n_rows, best;                /* row with the largest R2 at the full length */
  struct nm__buf text;
  struct nm__page *page;
  json_t *json;
};

static size_t geo_at(const struct shown *s, int c, int l, int row) {
  return (size_t)((c * s->t->n_lengths + l) * s->n_rows + row);
}

static json_t *real(double v) { return isfinite(v) ? json_real(v) : json_null(); }

/* ---- tables --------------------------------------------------------------------- */

struct table {
  const char *title, *const *heads;
  int n_cols, n, cap;
  char (*cell)[64];
  bool failed;
};

static void add(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct table *t, const char *fmt, ...) {
  va_list args;
  if (t->n == t->cap) {
    int cap = t->cap ? 2 * t->cap : 128;
    char (*v)[64] = nm__realloc(t->cell, (size_t)cap, sizeof *v);
    t->failed |= !v;
    if (!v) return;
    t->cell = v;
    t->cap = cap;
  }
  va_start(args, fmt);
  vsnprintf(t->cell[t->n++], sizeof *t->cell, fmt, args);
  va_end(args);
}

static void add_value(struct table *t, double v) {
  if (isnan(v)) add(t, "-");
  else add(t, "%.3f", v);
}

/* To the text (unless `page_only`) and the page. */
static void put_table(struct shown *s, struct table *t, bool page_only) {
  const char **cell = nm__alloc((size_t)t->n + 1, sizeof *cell);
  struct nm__grid *g = nm__grid_new(t->heads, t->n_cols);
  s->text.failed |= !cell || !g || t->failed;
  for (int i = 0; cell && i < t->n; i++) {
    cell[i] = t->cell[i];
    if (g) nm__grid_cell(g, "%s", cell[i]);
  }
  if (g && !page_only) {
    nm__buf_printf(&s->text, "%s\n", t->title);
    nm__grid_print(g, &s->text);
    nm__buf_putc(&s->text, '\n');
  }
  if (cell) {
    nm__page_heading(s->page, t->title);
    nm__page_table(s->page, t->heads, t->n_cols, cell, t->n / t->n_cols);
  }
  nm__grid_free(g);
  free(cell);
  free(t->cell);
}

static const char *const geo_heads[COLUMNS] = {"states", "nodes", "R2 PC1-2", "R2 6 PCs",
                                               "permuted", "Spearman", "energy", "standardised",
                                               "overlap", "variance PC1-2"};

static void geo_row(struct table *t, const char *name, const struct nm__geometry *q,
                    double standard) {
  add(t, "%s", name);
  add(t, "%d", q->n);
  const double v[] = {q->r2, q->r2_six, q->permuted, q->spearman, q->energy, standard, q->overlap,
                      q->share};
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) add_value(t, v[i]);
}

static void baseline_rows(const struct nm__trace *tr, struct table *t) {
  geo_row(t, "random vectors", &tr->plain, NAN);
  geo_row(t, "random, neighbours mixed once", &tr->mixed, NAN);
}

static json_t *geo_json(const struct nm__geometry *q, double standard) {
  return json_pack("{s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "nodes", q->n, "rank",
                   q->rank, "r2", real(q->r2), "r2_six", real(q->r2_six), "permuted",
                   real(q->permuted), "spearman", real(q->spearman), "energy", real(q->energy),
                   "standardised_energy", real(standard), "overlap", real(q->overlap), "share",
                   real(q->share));
}

/* ---- accuracy ------------------------------------------------------------------------ */

static double over_walks(const struct nm__condition *c, int T, int k, double *error) {
  double sum = 0, sq = 0;
  int n = 0;
  for (int i = 0; i < c->w->n; i++) {
    double v = nm__traced_accuracy(&c->t, c->w, i, T, k);
    if (!isnan(v)) sum += v, sq += v * v, n++;
  }
  double mean = n ? sum / n : NAN, var = n > 1 ? (sq / n - mean * mean) * n / (n - 1) : 0;
  *error = var > 0 ? nm__sqrt(var / n) : 0;
  return mean;
}

static void show_accuracy(struct shown *s) {
  const struct nm__trace *tr = s->t;
  const char *heads[NM__WALK_LENGTHS + 1];
  char head[NM__WALK_LENGTHS][24];
  json_t *all = json_object();
  heads[0] = "all neighbours / without the word just left";
  for (int l = 0; l < tr->n_lengths; l++) {
    snprintf(head[l], sizeof *head, "T=%d", tr->length[l]);
    heads[l + 1] = head[l];
  }
  struct table t = {"Probability of the words next to the last one (mean of the last 16)", heads,
                    tr->n_lengths + 1, 0, 0, NULL, false};
  for (int c = 0; c < tr->n_conditions; c++) {
    json_t *list = json_array();
    add(&t, "%s", tr->c[c].name);
    for (int l = 0; l < tr->n_lengths; l++) {
      double e[2], v[2];
      for (int k = 0; k < 2; k++) v[k] = over_walks(&tr->c[c], tr->length[l], k, &e[k]);
      add(&t, "%.3f / %.3f", v[0], v[1]);
      json_array_append_new(list, json_pack("{s:i, s:o, s:o, s:o, s:o}", "T", tr->length[l],
                                            "rule", real(v[0]), "rule_error", real(e[0]),
                                            "others", real(v[1]), "others_error", real(e[1])));
    }
    json_object_set_new(all, tr->c[c].name, list);
  }
  add(&t, "frequencies alone");
  for (int l = 0; l < tr->n_lengths; l++) add(&t, "%.3f / %.3f", tr->chance[0], tr->chance[1]);
  json_object_set_new(s->json, "accuracy", all);
  json_object_set_new(s->json, "frequencies_alone",
                      json_pack("[o, o]", real(tr->chance[0]), real(tr->chance[1])));
  put_table(s, &t, false);
}

/* ---- geometry ------------------------------------------------------------------------ */

static int measure(struct shown *s, nm_err *err) {
  struct nm__trace *t = s->t;
  s->n_rows = t->c[0].t.n_rows;
  size_t n = (size_t)(t->n_conditions * t->n_lengths * s->n_rows);
  s->geo = nm__alloc(n, sizeof *s->geo);
  s->standard = nm__alloc(n, sizeof *s->standard);
  if (!s->geo || !s->standard) return nm__fail_memory(err, "geometries", n * sizeof *s->geo);
  int st = NM_OK;
  for (int c = 0; c < t->n_conditions; c++)
    for (int l = 0; l < t->n_lengths; l++)
      for (int row = 0; row < s->n_rows && !st; row++)
        st = nm__traced_geometry(&t->c[c].t, &t->g, 0, l, row, &s->geo[geo_at(s, c, l, row)],
                                 &s->standard[geo_at(s, c, l, row)], err);
  int last = t->n_lengths - 1;
  s->best = s->n_rows - 1;
  for (int row = 0; row < s->n_rows; row++)
    if (s->geo[geo_at(s, 0, last, row)].r2 > s->geo[geo_at(s, 0, last, s->best)].r2) s->best = row;
  return st;
}

static void geo_rows(struct shown *s, struct table *t, int c, int l, int row, const char *what) {
  size_t at = geo_at(s, c, l, row);
  char name[128];
  snprintf(name, sizeof name, "%.40s%s%.48s", s->t->c[0].t.row[row], what ? ", " : "",
           what ? what : "");
  geo_row(t, name, &s->geo[at], s->standard[at]);
}

static void show_geometry(struct shown *s) {
  const struct nm__trace *tr = s->t;
  int last = tr->n_lengths - 1;
  char title[120], what[64];
  snprintf(title, sizeof title, "Means of states by node, last %d of %d words", tr->window,
           tr->length[last]);
  struct table t = {title, geo_heads, COLUMNS, 0, 0, NULL, false};
  for (int row = 0; row < s->n_rows; row++) geo_rows(s, &t, 0, last, row, NULL);
  for (int c = 1; c < tr->n_conditions; c++) geo_rows(s, &t, c, last, s->best, tr->c[c].name);
  baseline_rows(tr, &t);
  put_table(s, &t, false);
  struct table by = {"The same at each length, in the row with the largest R2", geo_heads, COLUMNS,
                     0, 0, NULL, false};
  for (int c = 0; c < 2; c++)
    for (int l = 0; l < tr->n_lengths; l++) {
      snprintf(what, sizeof what, "T=%d%s", tr->length[l], c ? ", shuffled" : "");
      geo_rows(s, &by, c, l, s->best, what);
    }
  baseline_rows(tr, &by);
  put_table(s, &by, false);
  struct table all = {"Every row at every length", geo_heads, COLUMNS, 0, 0, NULL, false};
  json_t *list = json_array();
  for (int c = 0; c < tr->n_conditions; c++)
    for (int l = 0; l < tr->n_lengths; l++)
      for (int row = 0; row < s->n_rows; row++) {
        size_t at = geo_at(s, c, l, row);
        snprintf(what, sizeof what, "T=%d, %.40s", tr->length[l], tr->c[c].name);
        geo_rows(s, &all, c, l, row, what);
        json_array_append_new(
            list, json_pack("{s:s, s:i, s:s, s:o}", "condition", tr->c[c].name, "T", tr->length[l],
                            "site", tr->c[0].t.row[row], "geometry",
                            geo_json(&s->geo[at], s->standard[at])));
      }
  json_object_set_new(s->json, "states", list);
  baseline_rows(tr, &all);
  put_table(s, &all, true);
}

static void keep_baselines(struct shown *s) {
  json_object_set_new(s->json, "random_vectors", geo_json(&s->t->plain, NAN));
  json_object_set_new(s->json, "random_mixed", geo_json(&s->t->mixed, NAN));
}

/* ---- heads --------------------------------------------------------------------------- */

static void show_heads(struct shown *s) {
  static const char *const heads[] = {"rank", "induction", "score", "previous token", "score"};
  struct nm__trace *tr = s->t;
  if (!tr->head) return;
  size_t n = (size_t)tr->n_heads;
  struct nm__head *prev = nm__alloc(n, sizeof *prev);
  s->text.failed |= !prev;
  if (!prev) return;
  struct table t = {"Heads by their scores on random tokens said twice", heads, 5, 0, 0, NULL,
                    false};
  nm__head_sort(tr->head, tr->n_heads, NM__INDUCTION);
  memcpy(prev, tr->head, n * sizeof *prev);
  nm__head_sort(prev, tr->n_heads, NM__PREVIOUS);
  json_t *list = json_array();
  for (int i = 0; i < tr->n_heads; i++) {
    const struct nm__head *a = &tr->head[i], *b = &prev[i];
    json_array_append_new(list, json_pack("{s:i, s:i, s:f, s:f}", "layer", a->layer, "head",
                                          a->head, "induction", a->induction, "previous_token",
                                          a->previous));
    if (i >= TOP_HEADS) continue;
    add(&t, "%d", i + 1);
    add(&t, "blk.%d head %d", a->layer, a->head);
    add(&t, "%.3f", a->induction);
    add(&t, "blk.%d head %d", b->layer, b->head);
    add(&t, "%.3f", b->previous);
  }
  json_object_set_new(s->json, "heads", list);
  put_table(s, &t, false);
  free(prev);
}

/* ---- figures ---------------------------------------------------------------------------- */

static int keep_svg(struct shown *s, const char *file, struct nm__buf *svg, nm_err *err) {
  int st = nm__record_put(&s->t->rec, file, svg, err);
  if (!st) nm__page_svg(s->page, svg->s);
  nm__buf_done(svg);
  return st;
}

/* n curves over m places, with bands of two standard errors over the walks. */
struct curves {
  double x[BINS], y[4][BINS], lo[4][BINS], hi[4][BINS];
  int n, m;
  const char *name[4];
};

static void point(struct curves *c, int k, int i, const double *v, int n) {
  double sum = 0, sq = 0;
  for (int j = 0; j < n; j++) sum += v[j], sq += v[j] * v[j];
  double mean = n ? sum / n : NAN, var = n > 1 ? (sq / n - mean * mean) / (n - 1) : 0;
  double half = var > 0 ? 2 * nm__sqrt(var) : 0;
  c->y[k][i] = mean, c->lo[k][i] = mean - half, c->hi[k][i] = mean + half;
}

static int draw_curves(struct shown *s, const struct curves *c, const char *title, nm_err *err) {
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

static int accuracy_figure(struct shown *s, nm_err *err) {
  static const char *const name[] = {"all neighbours", "without the word just left",
                                     "shuffled words", "shuffled, without"};
  struct nm__trace *t = s->t;
  struct curves *c = nm__alloc(1, sizeof *c);
  double *v = nm__alloc((size_t)t->n_walks, sizeof *v);
  int T = t->walk.T, st = c && v ? NM_OK : nm__fail_memory(err, "a figure", sizeof *c);
  if (!st) c->n = 4, c->m = T - 1 < BINS ? T - 1 : BINS;
  for (int k = 0; k < 4 && !st; k++) {
    c->name[k] = name[k];
    for (int i = 0; i < c->m; i++) {
      int from = 1 + (T - 1) * i / c->m, to = 1 + (T - 1) * (i + 1) / c->m, n = 0;
      for (int w = 0; w < t->n_walks; w++) {
        double a = in_bin(&t->c[k / 2], w, from, to, k % 2);
        if (!isnan(a)) v[n++] = a;
      }
      c->x[i] = (from + to - 1) / 2.0;
      point(c, k, i, v, n);
    }
  }
  if (!st) st = draw_curves(s, c, "What follows in a walk", err);
  free(c);
  free(v);
  return st;
}

static int draw_graph(struct shown *s, const struct nm__geometry *q, const char *file,
                      const char *title, const char *subtitle, nm_err *err) {
  const struct nm__graph *g = &s->t->g;
  int (*edge)[2] = nm__alloc((size_t)g->n_edges, sizeof *edge), n = 0;
  struct nm__buf svg;
  char note[160];
  if (!edge) return nm__fail_memory(err, "a figure", 0);
  for (int i = 0; i < g->n; i++)
    for (int k = 0; k < g->degree[i]; k++)
      if (g->next[i][k] > i) edge[n][0] = i, edge[n++][1] = g->next[i][k];
  snprintf(note, sizeof note, "R2 %.2f (permuted places %.2f; random vectors mixed once %.2f), "
           "Spearman %.2f (%.2f), %.0f %% of the variance", q->r2, q->permuted, s->t->mixed.r2,
           q->spearman, s->t->mixed.spearman, 100 * q->share);
  nm__buf_init(&svg, (size_t)1 << 24);
  nm__drawing_svg(&(struct nm__drawing){title, subtitle, note, g->n, n, q->pc, s->t->name, edge},
                  &svg);
  free(edge);
  return keep_svg(s, file, &svg, err);
}

static int drawings(struct shown *s, nm_err *err) {
  struct nm__trace *t = s->t;
  char file[40], title[120];
  int st = NM_OK;
  for (int l = 0; l < t->n_lengths && !st; l++) {
    const struct nm__geometry *q = &s->geo[geo_at(s, 0, l, s->best)];
    if (isnan(q->r2)) continue;
    snprintf(file, sizeof file, "pca-%d.svg", t->length[l]);
    snprintf(title, sizeof title, "%.40s after %d words", t->c[0].t.row[s->best], t->length[l]);
    st = draw_graph(s, q, file, title, "means of states by node, components 1 and 2; lines: edges",
                    err);
  }
  if (!st)
    st = draw_graph(s, &t->mixed, "pca-mixing.svg", "Random vectors, neighbours mixed once",
                    "no model and no learning: what any such picture must be held against", err);
  return st;
}

/* ---- files ------------------------------------------------------------------------------ */

/* In the form that --accuracy and --gram read. */
static int write_csv(struct shown *s, nm_err *err) {
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

static int write_gram(struct shown *s, nm_err *err) {
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

static int write_all(struct shown *s, nm_err *err) {
  struct nm__trace *t = s->t;
  json_object_set_new(s->json, "summary", json_string(t->r->summary));
  json_object_set_new(s->json, "verdict",
                      json_string(t->r->verdict == NM_OK ? "re-organised" : "inconclusive"));
  nm__buf_printf(&s->text, "%s\n", t->r->summary);
  nm__page_para(s->page, t->r->summary);
  char *j = json_dumps(s->json, JSON_INDENT(1) | JSON_REAL_PRECISION(10)),
       *page = nm__path_join(t->rec.dir, "report.html");
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 28);
  if (j) nm__buf_puts(&b, j);
  t->r->json = j ? nm__strdup(j) : NULL;
  t->r->text = s->text.failed ? NULL : nm__strdup(s->text.s);
  int st = page && t->r->json && t->r->text ? nm__page_write(s->page, page, err)
                                            : nm__fail_memory(err, "a report", 0);
  if (!st) st = nm__record_put(&t->rec, "trace.json", &b, err);
  nm__buf_done(&b);
  free(page);
  free(j);
  return st;
}

/* ---- the verdict ------------------------------------------------------------------------- */

/* Both above the baseline that no learning gives. */
static bool above_mixing(const struct nm__trace *t, const struct nm__geometry *q) {
  return q->r2 > t->mixed.r2 && q->spearman > t->mixed.spearman;
}

static int judge(struct shown *s, nm_err *err) {
  struct nm__trace *t = s->t;
  int last = t->n_lengths - 1, T = t->length[last];
  const struct nm__geometry *q = &s->geo[geo_at(s, 0, last, s->best)];
  double e[2], own = over_walks(&t->c[0], T, 1, &e[0]),
               other = over_walks(&t->c[1], T, 1, &e[1]);
  double floor = fmax(other, t->chance[0]), gap = own - floor;
  bool knows = gap >= 0.2 && gap > 2 * nm__sqrt(e[0] * e[0] + e[1] * e[1]),
       above = above_mixing(t, q);
  char line[520];
  snprintf(line, sizeof line, "%s: without the word just left %.3f (shuffled %.3f, frequencies %.3f); "
           "%s: R2 %.3f and Spearman %.3f (mixing alone %.3f and %.3f). %s",
           knows && above ? "re-organised" : "INCONCLUSIVE", own, other, t->chance[0],
           t->c[0].t.row[s->best], q->r2, q->spearman, t->mixed.r2, t->mixed.spearman,
           !knows ? "The model does not follow the graph beyond the word it came from, so its states "
                    "cannot show a map of it."
           : above ? "The model follows the graph and its states draw it better than mixing does."
                   : "The model follows the graph; mixing of neighbours alone draws it as well as its "
                     "states do.");
  t->r->verdict = knows && above ? NM_OK : NM_EUNSURE;
  t->r->summary = nm__strdup(line);
  return t->r->summary ? NM_OK : nm__fail_memory(err, "a summary", 0);
}

static void say_what(struct shown *s) {
  const struct nm__trace *t = s->t;
  struct nm__buf b;
  nm__buf_init(&b, 1 << 16);
  nm__buf_printf(&b, "%s, %d nodes:", t->g.name, t->g.n);
  for (int i = 0; i < t->g.n; i++) nm__buf_printf(&b, " %s", t->name[i] ? t->name[i] : "?");
  if (t->m) nm__buf_printf(&b, "; %d walks", t->n_walks);
  if (*t->words.left_out)
    nm__buf_printf(&b, ". Not one token each, left out: %s", t->words.left_out);
  if (!b.failed) {
    nm__buf_printf(&s->text, "%s\n\n", b.s);
    nm__page_para(s->page, b.s);
  }
  nm__buf_done(&b);
}

/* ---- the whole ----------------------------------------------------------------------------- */

static int open_shown(struct shown *s, struct nm__trace *t, nm_err *err) {
  *s = (struct shown){.t = t, .page = nm__page_new("In-context representations"),
                      .json = json_object()};
  nm__buf_init(&s->text, (size_t)1 << 26);
  if (!s->page || !s->json) return nm__fail_memory(err, "a report", 0);
  json_object_set_new(s->json, "graph", json_string(t->g.name));
  if (t->m) json_object_set_new(s->json, "model", nm__json_text(t->m->path));
  say_what(s);
  keep_baselines(s);
  return NM_OK;
}

static void close_shown(struct shown *s) {
  free(s->geo);
  free(s->standard);
  nm__buf_done(&s->text);
  nm__page_free(s->page);
  json_decref(s->json);
}

int nm__trace_show(struct nm__trace *t, nm_err *err) {
  struct shown s;
  int st = open_shown(&s, t, err);
  if (!st) st = measure(&s, err);
  if (!st) {
    show_accuracy(&s);
    show_geometry(&s);
    show_heads(&s);
    st = accuracy_figure(&s, err);
  }
  if (!st) st = drawings(&s, err);
  if (!st) st = write_csv(&s, err);
  if (!st) st = write_gram(&s, err);
  if (!st) st = judge(&s, err);
  if (!st) st = write_all(&s, err);
  close_shown(&s);
  return st;
}

/* ---- figures measured elsewhere --------------------------------------------------------------- */

/* The mean of all walks over the positions within HALF of one. */
static double around(const struct nm__accuracy_file *a, double position) {
  double sum = 0;
  int n = 0;
  for (size_t i = 0; i < a->n; i++)
    for (int k = 0; k < a->walks; k++) {
      double v = a->acc[i * (size_t)a->walks + (size_t)k];
      if (fabs(a->position[i] - position) > HALF || isnan(v)) continue;
      sum += v, n++;
    }
  return n ? sum / n : NAN;
}

static int file_accuracy(struct shown *s, nm_err *err) {
  static const int usual[] = {10, 50, 100, 200, 400, 800, 1300};
  static const char *const heads[] = {"position", "all neighbours", "frequencies alone"};
  const struct nm__accuracy_file *a = &s->t->accuracy;
  const nm_trace_opts *o = s->t->o;
  struct table t = {"Rule accuracy of the file, positions within 25", heads, 3, 0, 0, NULL, false};
  struct curves *c = nm__alloc(1, sizeof *c);
  double *v = nm__alloc((size_t)a->walks, sizeof *v);
  json_t *list = json_array();
  int st = c && v ? NM_OK : nm__fail_memory(err, "a figure", sizeof *c);
  for (int i = 0; i < (o->n_lengths ? o->n_lengths : 7); i++) {
    int T = o->n_lengths ? o->lengths[i] : usual[i];
    if (T > a->position[a->n - 1]) continue;
    add(&t, "%d", T);
    add_value(&t, around(a, T));
    add_value(&t, s->t->chance[0]);
    json_array_append_new(list, json_pack("{s:i, s:o}", "T", T, "rule", real(around(a, T))));
  }
  json_object_set_new(s->json, "accuracy", list);
  put_table(s, &t, false);
  if (!st) c->n = 1, c->m = a->n < BINS ? (int)a->n : BINS, c->name[0] = "all neighbours";
  for (int i = 0; !st && i < c->m; i++) {
    size_t from = a->n * (size_t)i / (size_t)c->m, to = a->n * (size_t)(i + 1) / (size_t)c->m;
    int n = 0;
    for (int k = 0; k < a->walks; k++) {
      double sum = 0;
      for (size_t at = from; at < to; at++) sum += a->acc[at * (size_t)a->walks + (size_t)k];
      if (!isnan(sum)) v[n++] = sum / (double)(to - from);
    }
    c->x[i] = (a->position[from] + a->position[to - 1]) / 2;
    point(c, 0, i, v, n);
  }
  if (!st) st = draw_curves(s, c, "What follows in a walk (from a file)", err);
  free(c);
  free(v);
  return st;
}

static int file_geometry(struct shown *s, struct nm__geometry *q, nm_err *err) {
  struct nm__trace *t = s->t;
  struct table table = {"Means of states by node, from a Gram matrix", geo_heads, COLUMNS, 0, 0,
                        NULL, false};
  int st = nm__geometry_of(t->gram.gram, &t->g, NULL, q, err);
  if (st) return st;
  geo_row(&table, nm__path_base(t->o->gram), q, NAN);
  baseline_rows(t, &table);
  put_table(s, &table, false);
  json_object_set_new(s->json, "states", geo_json(q, NAN));
  int last = draw_graph(s, q, "pca.svg", "Means of states by node",
                        "components 1 and 2; lines: edges", err);
  return last ? last : draw_graph(s, &t->mixed, "pca-mixing.svg",
                                  "Random vectors, neighbours mixed once",
                                  "no model and no learning: what such a picture is held against",
                                  err);
}

/* Files hold no accuracy without the word just left, so they can never show a map. */
static int judge_files(struct shown *s, const struct nm__geometry *q, nm_err *err) {
  char line[400] = "INCONCLUSIVE: the file holds no accuracy without the word just left, so that "
                   "copying it cannot be told from knowing the graph.";
  size_t n = strlen(line);
  if (s->t->o->gram)
    snprintf(line + n, sizeof line - n, " R2 %.3f and Spearman %.3f, mixing of neighbours alone %.3f "
             "and %.3f: %s", q->r2, q->spearman, s->t->mixed.r2, s->t->mixed.spearman,
             above_mixing(s->t, q) ? "above it." : "not above it in both.");
  s->t->r->verdict = NM_EUNSURE;
  s->t->r->summary = nm__strdup(line);
  return s->t->r->summary ? NM_OK : nm__fail_memory(err, "a summary", 0);
}

int nm__trace_show_files(struct nm__trace *t, nm_err *err) {
  struct shown s;
  struct nm__geometry q = {0};
  int st = open_shown(&s, t, err);
  if (!st && t->o->gram) st = file_geometry(&s, &q, err);
  if (!st && t->o->accuracy) st = file_accuracy(&s, err);
  if (!st) st = judge_files(&s, &q, err);
  if (!st) st = write_all(&s, err);
  close_shown(&s);
  return st;
}
