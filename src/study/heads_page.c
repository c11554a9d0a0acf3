/* heads_page.c - scores and masks for people: terminal, heads.json, scores.json, ranking.csv, the
 * heat map of layers and heads, the maps of lengths and depths, report.html. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "model/plan.h"
#include "report/report.h"
#include "study/heads.h"

enum { BEST = 10 };

static const char *mask_name(const struct nm__headrun *R) {
  return R->o.mask && !strcmp(R->o.mask, "zero") ? "their output is zero"
                                                 : "they look evenly at all they see, as released";
}

/* ---- words ------------------------------------------------------------------------- */

static void score_text(char out[24], double v) {
  if (isnan(v)) snprintf(out, 24, "-");
  else snprintf(out, 24, "%.1f", v);
}

static void facts_of(const struct nm__headrun *R, struct nm__buf *b) {
  const nm_heads_result *r = R->r;
  struct nm__heads_sum q = nm__heads_sum(&R->kept);
  nm__buf_printf(b, "%zu of %zu trials answered (more than half of the needle's words) and "
                 "counted; %d layers of %d heads. %zu heads copy (mean score 0.1 and more: "
                 "%.1f %%), %zu with 0.5 and more, %zu never copied a token; %zu copied in at "
                 "least 90 %% of trials, %zu in every one.", r->n_kept, r->n_trials, r->L, r->H,
                 q.copying,
                 100.0 * (double)q.copying / (double)q.heads, q.half, q.never, q.mostly, q.always);
}

static const char *verdict_text(const nm_heads_result *r) {
  if (!r->n_masks) return "nothing was masked, so nothing is said about causes";
  if (r->verdict == NM_OK)
    return "masking the best heads takes more of the needles than any draw of others did";
  return "a draw of other heads takes as much of the needles as the best heads do";
}

static const char *const HEADS[] = {"head", "mean score", "trials with >= 0.1", "highest"};
static const char *const MASKS[] = {"masked", "needles, best", "needles, drawn (lowest to highest)",
                                    "facts, best", "facts, drawn"};
enum { HEAD_COLS = 4, MASK_COLS = 5 };

static void head_row(const struct nm__headrun *R, size_t i, char mem[HEAD_COLS][64]) {
  const struct nm__head *q = &R->kept.v[R->rank[i]];
  snprintf(mem[0], 64, "%u-%u", R->rank[i] / (uint32_t)R->m->H, R->rank[i] % (uint32_t)R->m->H);
  snprintf(mem[1], 64, "%.3f", q->mean);
  snprintf(mem[2], 64, "%.1f %%", 100 * q->freq);
  snprintf(mem[3], 64, "%.3f", q->max);
}

static void mask_row(const struct nm__headrun *R, int i, char mem[MASK_COLS][64]) {
  const nm_heads_mask *q = i < 0 ? NULL : &R->r->mask[i];
  char a[24], b[24];
  score_text(a, q ? q->facts : R->r->facts);
  score_text(b, q ? q->random_facts : R->r->facts);
  snprintf(mem[0], 64, "%d head%s", q ? q->k : 0, q && q->k == 1 ? "" : "s");
  snprintf(mem[1], 64, "%.1f", q ? q->needle : R->r->needle);
  if (q) snprintf(mem[2], 64, "%.1f (%.1f to %.1f)", q->random, q->low, q->high);
  else snprintf(mem[2], 64, "%.1f", R->r->needle);
  snprintf(mem[3], 64, "%s", a);
  snprintf(mem[4], 64, "%s", b);
}

/* A table's cells as the two printers want them: mem [rows][cols]. */
static void to_grid(const char *const *heads, int cols, char (*mem)[64], int rows,
                    struct nm__buf *b) {
  struct nm__grid *g = nm__grid_new(heads, cols);
  for (int i = 0; g && i < rows * cols; i++) nm__grid_cell(g, "%s", mem[i]);
  if (g) nm__grid_print(g, b);
  nm__grid_free(g);
}

static void to_page(const char *const *heads, int cols, char (*mem)[64], int rows,
                    struct nm__page *p) {
  const char **cell = nm__alloc((size_t)(rows * cols), sizeof *cell);
  for (int i = 0; cell && i < rows * cols; i++) cell[i] = mem[i];
  if (cell) nm__page_table(p, heads, cols, cell, rows);
  free(cell);
}

/* ---- terminal and JSON ------------------------------------------------------------- */

struct tables { char (*best)[64], (*mask)[64]; int n_best, n_mask; };

static int make_tables(const struct nm__headrun *R, struct tables *t, nm_err *err) {
  size_t n = (size_t)R->m->L * (size_t)R->m->H;
  t->n_best = n < BEST ? (int)n : BEST;
  t->n_mask = R->r->n_masks + 1;
  t->best = nm__alloc((size_t)t->n_best * HEAD_COLS, sizeof *t->best);
  t->mask = nm__alloc((size_t)t->n_mask * MASK_COLS, sizeof *t->mask);
  if (!t->best || !t->mask) return nm__fail_memory(err, "tables", 0);
  for (int i = 0; i < t->n_best; i++) head_row(R, (size_t)i, t->best + i * HEAD_COLS);
  for (int i = 0; i < t->n_mask; i++) mask_row(R, i - 1, t->mask + i * MASK_COLS);
  return NM_OK;
}

static int make_text(struct nm__headrun *R, const struct tables *t, nm_err *err) {
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 24);
  facts_of(R, &b);
  nm__buf_puts(&b, "\n\nThe best heads (layer-head)\n");
  to_grid(HEADS, HEAD_COLS, t->best, t->n_best, &b);
  nm__buf_printf(&b, "\nAsked again with heads masked (%s)\nneedles: mean recall x 100 of all "
                 "trials; facts: percent right; drawn: %d draws outside the best\n", mask_name(R),
                 R->o.draws);
  to_grid(MASKS, MASK_COLS, t->mask, t->n_mask, &b);
  nm__buf_printf(&b, "so: %s\n", verdict_text(R->r));
  R->r->text = b.failed ? NULL : nm__strdup(b.s);
  nm__buf_done(&b);
  nm__buf_init(&b, 4096);
  nm__buf_printf(&b, "%zu of %zu trials, %d heads copy, best %d-%d %.3f", R->r->n_kept,
                 R->r->n_trials, R->r->n_copying, R->r->best_layer, R->r->best_head,
                 R->kept.v[R->rank[0]].mean);
  R->r->summary = b.failed ? NULL : nm__strdup(b.s);
  nm__buf_done(&b);
  return R->r->text && R->r->summary ? NM_OK : nm__fail_memory(err, "the tables", 0);
}

static json_t *real(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static int make_json(struct nm__headrun *R, nm_err *err) {
  nm_heads_result *r = R->r;
  json_t *best = json_array(), *masks = json_array();
  for (size_t i = 0; i < (size_t)r->L * (size_t)r->H && i < 100; i++) {
    const struct nm__head *q = &R->kept.v[R->rank[i]];
    json_array_append_new(best, json_pack("{s:i, s:i, s:f, s:f, s:f}", "layer",
                                          (int)R->rank[i] / r->H, "head", (int)R->rank[i] % r->H,
                                          "mean", q->mean, "frequency", q->freq, "max", q->max));
  }
  for (int i = 0; i < r->n_masks; i++) {
    const nm_heads_mask *q = &r->mask[i];
    json_array_append_new(
        masks, json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "heads", q->k, "needles",
                         real(q->needle), "facts", real(q->facts), "random", real(q->random),
                         "random_low", real(q->low), "random_high", real(q->high), "random_facts",
                         real(q->random_facts)));
  }
  json_t *j = json_pack(
      "{s:s, s:o, s:i, s:i, s:I, s:I, s:I, s:i, s:s, s:s, s:i, s:o, s:o, s:s, s:o, s:o}", "noema",
      NM_VERSION, "model", nm__json_text(R->m->path), "layers", r->L, "heads", r->H, "trials",
      (json_int_t)r->n_trials, "kept", (json_int_t)r->n_kept, "facts_asked", (json_int_t)r->n_facts,
      "copying", r->n_copying, "count", R->o.unique ? "unique" : "released", "mask",
      R->o.mask ? R->o.mask : "uniform", "draws", R->o.draws, "needles", real(r->needle), "facts",
      real(r->facts), "verdict", r->verdict == NM_OK ? "ok" : r->verdict == NM_ECHECK
      ? "a draw of other heads does as much" : "cannot conclude", "best", best, "masks", masks);
  r->json = j ? json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(10)) : NULL;
  json_decref(j);
  return r->json ? NM_OK : nm__fail_memory(err, "the results", 0);
}

/* ---- figures ----------------------------------------------------------------------- */

static char **names(const char *form, const int *v, int n) {
  char **s = nm__alloc((size_t)n, sizeof *s);
  for (int i = 0; s && i < n; i++) {
    char t[32];
    snprintf(t, sizeof t, form, v ? v[i] : i);
    s[i] = nm__strdup(t);
  }
  return s;
}

static void names_free(char **s, int n) {
  for (int i = 0; s && i < n; i++) free(s[i]);
  free(s);
}

static void put(struct nm__headrun *R, const char *name, struct nm__buf *b, struct nm__page *p,
                int *st, nm_err *err) {
  char *path = nm__path_join(R->r->dir, name);
  if (!*st)
    *st = path && !b->failed ? nm__write_file(path, b->s, b->len, err)
                             : nm__fail_memory(err, name, b->len);
  if (!*st && p) nm__page_svg(p, b->s);
  nm__buf_done(b);
  free(path);
}

static int heat_map(struct nm__headrun *R, struct nm__page *p, nm_err *err) {
  int L = R->m->L, H = R->m->H, st = NM_OK;
  double *v = nm__alloc((size_t)L * (size_t)H, sizeof *v);
  char **row = names("%d", NULL, H), sub[200];
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 27);
  for (int l = 0; v && l < L; l++)
    for (int h = 0; h < H; h++) v[h * L + l] = fmin(R->r->mean[l * H + h], 1);
  snprintf(sub, sizeof sub, "%.80s, mean of %zu trials; the best head is framed",
           nm__path_base(R->m->path), R->r->n_kept);
  struct nm__heat h = {.title = "Which heads copy the needle", .subtitle = sub, .x_label = "layer",
                       .y_label = "head", .value_label = "retrieval score", .n_rows = H,
                       .n_cols = L, .row = (const char *const *)row, .v = v,
                       .mark_row = R->r->best_head, .mark_col = R->r->best_layer};
  if (v && row) nm__heat_svg(&h, &b);
  else b.failed = true;
  put(R, "heads.svg", &b, p, &st, err);
  names_free(row, H);
  free(v);
  return st;
}

/* Different values of length or depth, ascending. */
static int values_of(const struct nm__trials *t, bool depth, int *v, int most) {
  int n = 0;
  for (size_t i = 0; i < t->n; i++) {
    int x = depth ? t->v[i].depth : t->v[i].length, at = n;
    while (at && v[at - 1] >= x) at--;
    if ((at < n && v[at] == x) || n == most) continue;
    memmove(v + at + 1, v + at, (size_t)(n - at) * sizeof *v);
    v[at] = x;
    n++;
  }
  return n;
}

enum { AXIS = 64 };

/* Recall by length and depth in one set. */
static int grid_map(struct nm__headrun *R, int set, const char *file, const char *what,
                    struct nm__page *p, nm_err *err) {
  int len[AXIS], dep[AXIS], nl = values_of(&R->trials, false, len, AXIS),
      nd = values_of(&R->trials, true, dep, AXIS), st = NM_OK;
  double v[AXIS * AXIS] = {0}, n[AXIS * AXIS] = {0};
  size_t items = R->trials.n + R->facts.n;
  if (nl < 2 && nd < 2) return NM_OK;
  for (size_t i = 0; i < R->trials.n; i++) {
    const struct nm__trial *t = &R->trials.v[i];
    int x = 0, y = 0;
    while (x < nl - 1 && len[x] != t->length) x++;
    while (y < nd - 1 && dep[y] != t->depth) y++;
    v[y * nl + x] += R->value[(size_t)set * items + i];
    n[y * nl + x]++;
  }
  for (int i = 0; i < nl * nd; i++) v[i] = n[i] ? v[i] / n[i] : NAN;
  char **row = names("%d %%", dep, nd), **col = names("%d", len, nl);
  struct nm__heat h = {.title = what, .subtitle = "recall of the needle by length and depth",
                       .x_label = "tokens of context", .y_label = "depth",
                       .value_label = "recall", .n_rows = nd, .n_cols = nl,
                       .row = (const char *const *)row, .col = (const char *const *)col, .v = v,
                       .mark_row = -1, .mark_col = -1};
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 27);
  if (row && col) nm__heat_svg(&h, &b);
  else b.failed = true;
  put(R, file, &b, p, &st, err);
  names_free(row, nd);
  names_free(col, nl);
  return st;
}

static int figures(struct nm__headrun *R, struct nm__page *p, nm_err *err) {
  int st = heat_map(R, p, err), last = R->r->n_masks - 1;
  if (!st) st = grid_map(R, 0, "needles.svg", "Nothing masked", p, err);
  if (st || last < 0) return st;
  int set = 1 + last * (R->o.draws + 1);
  st = grid_map(R, set, "needles-best.svg", "The best heads masked", p, err);
  return st ? st : grid_map(R, set + 1, "needles-random.svg", "As many others masked (first draw)",
                            p, err);
}

/* ---- everything -------------------------------------------------------------------- */

static int files(struct nm__headrun *R, nm_err *err) {
  struct nm__buf b;
  int st = NM_OK;
  nm__buf_init(&b, (size_t)1 << 30);
  nm__head_scores_json(&R->kept, &b);
  put(R, "scores.json", &b, NULL, &st, err);
  nm__buf_init(&b, (size_t)1 << 28);
  nm__head_scores_csv(&R->kept, &b);
  put(R, "ranking.csv", &b, NULL, &st, err);
  nm__buf_init(&b, (size_t)1 << 28);
  nm__buf_puts(&b, R->r->json);
  put(R, "heads.json", &b, NULL, &st, err);
  return st;
}

static int page(struct nm__headrun *R, const struct tables *t, struct nm__page *p, nm_err *err) {
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 16);
  nm__buf_printf(&b, "Model %s. A head copies a generated token when the position it looks at most "
                 "lies in the needle and holds that token; its score is how often, over the "
                 "needle's %s. ", R->m->path, R->o.unique ? "different tokens, each counted once"
                                                          : "length");
  facts_of(R, &b);
  nm__page_para(p, b.s);
  nm__buf_done(&b);
  to_page(HEADS, HEAD_COLS, t->best, t->n_best, p);
  nm__page_heading(p, "Asked again with heads masked");
  char line[200];
  snprintf(line, sizeof line, "Masked: %s. Drawn: %d draws outside the best heads.", mask_name(R),
           R->o.draws);
  nm__page_para(p, line);
  to_page(MASKS, MASK_COLS, t->mask, t->n_mask, p);
  nm__page_para(p, verdict_text(R->r));
  int st = figures(R, p, err);
  nm__page_heading(p, "The exact command");
  nm__page_code(p, R->o.command ? R->o.command : "");
  return st;
}

int nm__heads_page(struct nm__headrun *R, nm_err *err) {
  struct tables t = {0};
  int st = make_tables(R, &t, err);
  if (!st) st = make_text(R, &t, err);
  if (!st) st = make_json(R, err);
  if (!st) st = files(R, err);
  struct nm__page *p = nm__page_new("Heads that copy out of the context");
  char *path = nm__path_join(R->r->dir, "report.html");
  if (!st && (!p || !path)) st = nm__fail_memory(err, "a report", 0);
  if (!st) st = page(R, &t, p, err);
  if (!st) st = nm__page_write(p, path, err);
  nm__page_free(p);
  free(path);
  free(t.best);
  free(t.mask);
  return st;
}
