/* trace_show.c - a traced graph for people: tables, JSON, figures, the page, and the verdict. The
 * rows of shuffled words, of random vectors and of mixed ones are in every table of states. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "look/trace.h"
#include "tensor/math.h"

enum { COLUMNS = 10, HALF = 25, TOP_HEADS = 8 };

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
static void put_table(struct nm__shown *s, struct table *t, bool page_only) {
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

static void show_accuracy(struct nm__shown *s) {
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

static int measure(struct nm__shown *s, nm_err *err) {
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
        st = nm__traced_geometry(&t->c[c].t, &t->g, 0, l, row, &s->geo[nm__geo_at(s, c, l, row)],
                                 &s->standard[nm__geo_at(s, c, l, row)], err);
  int last = t->n_lengths - 1;
  s->best = s->n_rows - 1;
  /* The embedding of a word is the same in every context: it is shown, never chosen. */
  for (int row = !strcmp(t->c[0].t.row[0], "embed"); row < s->n_rows; row++)
    if (s->geo[nm__geo_at(s, 0, last, row)].r2 > s->geo[nm__geo_at(s, 0, last, s->best)].r2)
      s->best = row;
  return st;
}

static void geo_rows(struct nm__shown *s, struct table *t, int c, int l, int row,
                     const char *what) {
  size_t at = nm__geo_at(s, c, l, row);
  char name[128];
  snprintf(name, sizeof name, "%.40s%s%.48s", s->t->c[0].t.row[row], what ? ", " : "",
           what ? what : "");
  geo_row(t, name, &s->geo[at], s->standard[at]);
}

static void show_geometry(struct nm__shown *s) {
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
        size_t at = nm__geo_at(s, c, l, row);
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

static void keep_baselines(struct nm__shown *s) {
  json_object_set_new(s->json, "random_vectors", geo_json(&s->t->plain, NAN));
  json_object_set_new(s->json, "random_mixed", geo_json(&s->t->mixed, NAN));
}

/* ---- heads --------------------------------------------------------------------------- */

static void show_heads(struct nm__shown *s) {
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

static int write_all(struct nm__shown *s, nm_err *err) {
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

static int judge(struct nm__shown *s, nm_err *err) {
  struct nm__trace *t = s->t;
  int last = t->n_lengths - 1, T = t->length[last];
  const struct nm__geometry *q = &s->geo[nm__geo_at(s, 0, last, s->best)];
  double e[2], own = over_walks(&t->c[0], T, 1, &e[0]),
               other = over_walks(&t->c[1], T, 1, &e[1]);
  double floor = fmax(other, t->chance[0]), gap = own - floor;
  bool knows = gap >= 0.2 && gap > 2 * nm__sqrt(e[0] * e[0] + e[1] * e[1]),
       above = above_mixing(t, q);
  char line[520];
  snprintf(line, sizeof line, "%s: without the word just left %.3f (shuffled %.3f, frequencies "
                              "%.3f); "
           "%s: R2 %.3f and Spearman %.3f (mixing alone %.3f and %.3f). %s",
           knows && above ? "re-organised" : "INCONCLUSIVE", own, other, t->chance[0],
           t->c[0].t.row[s->best], q->r2, q->spearman, t->mixed.r2, t->mixed.spearman,
           !knows ? "The model does not follow the graph beyond the word it came from, so its "
                    "states "
                    "cannot show a map of it."
           : above ? "The model follows the graph and its states draw it better than mixing does."
                   : "The model follows the graph; mixing of neighbours alone draws it as well "
                     "as its "
                     "states do.");
  t->r->verdict = knows && above ? NM_OK : NM_EUNSURE;
  t->r->summary = nm__strdup(line);
  return t->r->summary ? NM_OK : nm__fail_memory(err, "a summary", 0);
}

static void say_what(struct nm__shown *s) {
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

static int open_shown(struct nm__shown *s, struct nm__trace *t, nm_err *err) {
  *s = (struct nm__shown){.t = t, .page = nm__page_new("In-context representations"),
                      .json = json_object()};
  nm__buf_init(&s->text, (size_t)1 << 26);
  if (!s->page || !s->json) return nm__fail_memory(err, "a report", 0);
  json_object_set_new(s->json, "graph", json_string(t->g.name));
  if (t->m) json_object_set_new(s->json, "model", nm__json_text(t->m->path));
  say_what(s);
  keep_baselines(s);
  return NM_OK;
}

static void close_shown(struct nm__shown *s) {
  free(s->geo);
  free(s->standard);
  nm__buf_done(&s->text);
  nm__page_free(s->page);
  json_decref(s->json);
}

int nm__trace_show(struct nm__trace *t, nm_err *err) {
  struct nm__shown s;
  int st = open_shown(&s, t, err);
  if (!st) st = measure(&s, err);
  if (!st) {
    show_accuracy(&s);
    show_geometry(&s);
    show_heads(&s);
    st = nm__trace_figures(&s, err);
  }
  if (!st) st = judge(&s, err);
  if (!st) st = write_all(&s, err);
  close_shown(&s);
  return st;
}

/* ---- figures measured elsewhere ------------------------------------------------------------- */

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

static int file_accuracy(struct nm__shown *s, nm_err *err) {
  static const int usual[] = {10, 50, 100, 200, 400, 800, 1300};
  static const char *const heads[] = {"position", "all neighbours", "frequencies alone"};
  const struct nm__accuracy_file *a = &s->t->accuracy;
  const nm_trace_opts *o = s->t->o;
  struct table t = {"Rule accuracy of the file, positions within 25", heads, 3, 0, 0, NULL, false};
  struct nm__curves *c = nm__alloc(1, sizeof *c);
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
  if (!st) c->n = 1, c->m = a->n < NM__BINS ? (int)a->n : NM__BINS, c->name[0] = "all neighbours";
  for (int i = 0; !st && i < c->m; i++) {
    size_t from = a->n * (size_t)i / (size_t)c->m, to = a->n * (size_t)(i + 1) / (size_t)c->m;
    int n = 0;
    for (int k = 0; k < a->walks; k++) {
      double sum = 0;
      for (size_t at = from; at < to; at++) sum += a->acc[at * (size_t)a->walks + (size_t)k];
      if (!isnan(sum)) v[n++] = sum / (double)(to - from);
    }
    c->x[i] = (a->position[from] + a->position[to - 1]) / 2;
    nm__trace_point(c, 0, i, v, n);
  }
  if (!st) st = nm__trace_curves(s, c, "What follows in a walk (from a file)", err);
  free(c);
  free(v);
  return st;
}

static int file_geometry(struct nm__shown *s, struct nm__geometry *q, nm_err *err) {
  struct nm__trace *t = s->t;
  struct table table = {"Means of states by node, from a Gram matrix", geo_heads, COLUMNS, 0, 0,
                        NULL, false};
  int st = nm__geometry_of(t->gram.gram, &t->g, NULL, q, err);
  if (st) return st;
  geo_row(&table, nm__path_base(t->o->gram), q, NAN);
  baseline_rows(t, &table);
  put_table(s, &table, false);
  json_object_set_new(s->json, "states", geo_json(q, NAN));
  int last = nm__trace_draw(s, q, "pca.svg", "Means of states by node",
                        "components 1 and 2; lines: edges", err);
  return last ? last : nm__trace_draw(s, &t->mixed, "pca-mixing.svg",
                                  "Random vectors, neighbours mixed once",
                                  "no model and no learning: what such a picture is held against",
                                  err);
}

/* Files hold no accuracy without the word just left, so they can never show a map. */
static int judge_files(struct nm__shown *s, const struct nm__geometry *q, nm_err *err) {
  char line[400] = "INCONCLUSIVE: the file holds no accuracy without the word just left, so that "
                   "copying it cannot be told from knowing the graph.";
  size_t n = strlen(line);
  if (s->t->o->gram)
    snprintf(line + n, sizeof line - n, " R2 %.3f and Spearman %.3f, mixing of neighbours alone "
                                        "%.3f "
             "and %.3f: %s", q->r2, q->spearman, s->t->mixed.r2, s->t->mixed.spearman,
             above_mixing(s->t, q) ? "above it." : "not above it in both.");
  s->t->r->verdict = NM_EUNSURE;
  s->t->r->summary = nm__strdup(line);
  return s->t->r->summary ? NM_OK : nm__fail_memory(err, "a summary", 0);
}

int nm__trace_show_files(struct nm__trace *t, nm_err *err) {
  struct nm__shown s;
  struct nm__geometry q = {0};
  int st = open_shown(&s, t, err);
  if (!st && t->o->gram) st = file_geometry(&s, &q, err);
  if (!st && t->o->accuracy) st = file_accuracy(&s, err);
  if (!st) st = judge_files(&s, &q, err);
  if (!st) st = write_all(&s, err);
  close_shown(&s);
  return st;
}
