/* lens_show.c - a lens for people: the terminal's table, JSON, two figures, the page. All from
 * nm_lens_result. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "look/lens.h"
#include "tensor/math.h"

/* ---- the terminal ------------------------------------------------------------- */

enum { CELL = 9 };                 /* characters of a cell */

/* A word in exactly CELL columns, so that coloured cells meet. */
static void put_word(struct nm__buf *b, const char *s) {
  int n = 0;
  for (; s && *s && n < CELL - 1; s++) {
    if (((unsigned char)*s & 0xc0) != 0x80) n++;
    nm__buf_putc(b, *s);
    while (((unsigned char)s[1] & 0xc0) == 0x80) nm__buf_putc(b, *++s);
  }
  for (; n < CELL; n++) nm__buf_putc(b, ' ');
}

/* Backgrounds of the terminal's colour cube, from faint to strong, each with its ink. */
static void shade(struct nm__buf *b, double p) {
  static const char *const set[] = {"", "\033[48;5;17;38;5;15m", "\033[48;5;18;38;5;15m",
                                    "\033[48;5;25;38;5;15m", "\033[48;5;32;38;5;15m",
                                    "\033[48;5;39;38;5;16m"};
  int i = p < 0.05 ? 0 : p < 0.2 ? 1 : p < 0.4 ? 2 : p < 0.6 ? 3 : p < 0.8 ? 4 : 5;
  nm__buf_puts(b, set[i]);
}

static void word(struct nm__buf *b, const nm_model *m, int32_t id) {
  char *s = nm__token_text(m, id);
  put_word(b, s);
  free(s);
}

static void text_row(struct nm__buf *b, const nm_lens_result *r, const nm_model *m, int row,
                     size_t first, bool colour) {
  nm__buf_printf(b, "%-18s", r->row[row].name);
  for (size_t c = first; c < r->n_cols; c++) {
    const nm_lens_cell *x = &r->cell[(size_t)row * r->n_cols + c];
    if (colour) shade(b, nm__exp(x->top[0].lp));
    word(b, m, x->top[0].id);
    if (colour) nm__buf_puts(b, "\033[0m");
  }
  nm__buf_putc(b, '\n');
}

/* Of a single position there is room for more than the likeliest token. */
static void text_one(struct nm__buf *b, const nm_lens_result *r, const nm_model *m, int row,
                     bool colour) {
  const nm_lens_cell *x = &r->cell[row];
  nm__buf_printf(b, "%-18s", r->row[row].name);
  for (int i = 0; i < r->top && i < 8; i++) {
    double p = nm__exp(x->top[i].lp);
    if (colour) shade(b, p);
    word(b, m, x->top[i].id);
    nm__buf_printf(b, "%5.1f%%", 100 * p);
    if (colour) nm__buf_puts(b, "\033[0m");
    nm__buf_puts(b, "  ");
  }
  nm__buf_putc(b, '\n');
}

static void text_layers(struct nm__buf *b, const nm_lens_result *r) {
  static const char *const heads[] = {"layer", "answer leads", "median rank", "permuted: leads",
                                      "median rank", "entropy", "KL to the end", "target rank",
                                      "ln p(target)"};
  bool target = r->target >= 0;
  struct nm__grid *g = nm__grid_new(heads, target ? 9 : 7);
  for (int i = 0; g && i < r->n_rows; i++) {
    const nm_lens_layer *l = &r->layer[i];
    nm__grid_cell(g, "%s", r->row[i].name);
    nm__grid_cell(g, "%.0f %%", 100 * l->agree);
    nm__grid_cell(g, "%.6g", l->rank);
    nm__grid_cell(g, "%.0f %%", 100 * l->control_agree);
    nm__grid_cell(g, "%.6g", l->control_rank);
    nm__grid_cell(g, "%.3f", l->entropy);
    nm__grid_cell(g, "%.3f", l->kl);
    if (target) nm__grid_cell(g, "%.6g", l->target_rank);
    if (target) nm__grid_cell(g, "%.3f", l->target_lp);
  }
  if (g) nm__grid_print(g, b);
  nm__grid_free(g);
}

char *nm_lens_text(const nm_lens_result *r, const nm_model *m, int width, bool colour) {
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 28);
  size_t fit = width > 18 + CELL ? (size_t)(width - 18) / CELL : 1;
  size_t first = r->n_cols > fit ? r->n_cols - fit : 0;
  if (first) nm__buf_printf(&b, "the last %zu of %zu positions\n", fit, r->n_cols);
  nm__buf_printf(&b, "%-18s", "reads");
  for (size_t c = first; c < r->n_cols; c++) word(&b, m, r->col[c].id);
  nm__buf_putc(&b, '\n');
  for (int i = 0; i < r->n_rows; i++)
    if (r->n_cols == 1) text_one(&b, r, m, i, colour);
    else text_row(&b, r, m, i, first, colour);
  nm__buf_printf(&b, "%-18s", "the model says");
  for (size_t c = first; c < r->n_cols; c++) word(&b, m, r->col[c].answer);
  nm__buf_puts(&b, "\n\n");
  text_layers(&b, r);
  nm__buf_printf(&b, "\n%s\n", r->summary);
  if (!b.failed) return b.s;
  nm__buf_done(&b);
  return NULL;
}

/* ---- JSON ------------------------------------------------------------------------ */

json_t *nm__token_json(const nm_model *m, int32_t id) {
  size_t n;
  char *s = nm__token_bytes(m, id, &n);
  json_t *o = nm__json_text_n(s ? s : "", n);
  free(s);
  return o;
}

static json_t *top_json(const nm_model *m, const nm_lens_token *t, int n) {
  json_t *a = json_array();
  for (int i = 0; i < n; i++)
    json_array_append_new(a, json_pack("{s:i, s:o, s:f}", "id", t[i].id, "token",
                                       nm__token_json(m, t[i].id), "lp", t[i].lp));
  return a;
}

static json_t *cell_json(const nm_lens_result *r, const nm_model *m, int row, size_t c) {
  const nm_lens_cell *x = &r->cell[(size_t)row * r->n_cols + c];
  json_t *o = json_pack("{s:f, s:f, s:i, s:f, s:i, s:o}", "entropy", x->entropy, "kl", x->kl,
                        "answer_rank", x->rank, "answer_lp", x->lp, "permuted_rank", x->control,
                        "top", top_json(m, x->top, r->top));
  if (r->target >= 0) {
    json_object_set_new(o, "target_rank", json_integer(x->target_rank));
    json_object_set_new(o, "target_lp", json_real(x->target_lp));
  }
  return o;
}

static json_t *layer_json(const nm_lens_result *r, const nm_model *m, int i) {
  const nm_lens_layer *l = &r->layer[i];
  json_t *cells = json_array();
  for (size_t c = 0; c < r->n_cols; c++) json_array_append_new(cells, cell_json(r, m, i, c));
  return json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "site", r->row[i].name,
                   "answer_leads", l->agree, "median_rank", l->rank, "permuted_leads",
                   l->control_agree, "permuted_median_rank", l->control_rank, "entropy", l->entropy,
                   "kl", l->kl, "positions", cells);
}

char *nm_lens_json(const nm_lens_result *r, const nm_model *m) {
  json_t *cols = json_array(), *layers = json_array();
  for (size_t c = 0; c < r->n_cols; c++) {
    const nm_lens_column *k = &r->col[c];
    json_array_append_new(
        cols,
        json_pack("{s:I, s:i, s:i, s:o, s:{s:i, s:o, s:f}, s:o}", "seq", (json_int_t)k->seq,
                  "position", k->pos, "id", k->id, "token", nm__token_json(m, k->id), "answer",
                  "id", k->answer, "token", nm__token_json(m, k->answer), "lp", k->answer_lp,
                  "decided", k->decided < 0 ? json_null() : json_string(r->row[k->decided].name)));
  }
  for (int i = 0; i < r->n_rows; i++) json_array_append_new(layers, layer_json(r, m, i));
  json_t *o = json_pack("{s:s, s:o, s:s, s:o, s:o}", "noema", NM_VERSION, "model",
                        nm__json_text(m->path), "summary", r->summary, "columns", cols, "layers",
                        layers);
  if (o && r->target >= 0)
    json_object_set_new(o, "target", json_pack("{s:i, s:o}", "id", r->target, "token",
                                               nm__token_json(m, r->target)));
  char *s = o ? json_dumps(o, JSON_REAL_PRECISION(9)) : NULL;
  json_decref(o);
  return s;
}

/* ---- figures ------------------------------------------------------------------------ */

enum { MOST_COLS = 48 };           /* of the grid: more is no figure */

static char *hover(const nm_lens_result *r, const nm_model *m, int row, size_t c) {
  const nm_lens_cell *x = &r->cell[(size_t)row * r->n_cols + c];
  struct nm__buf b;
  nm__buf_init(&b, 1 << 16);
  nm__buf_printf(&b, "%s, position %d\n", r->row[row].name, r->col[c].pos);
  for (int i = 0; i < r->top; i++) {
    char *s = nm__token_text(m, x->top[i].id);
    nm__buf_printf(&b, "%s  %.1f %%\n", s ? s : "", 100 * nm__exp(x->top[i].lp));
    free(s);
  }
  nm__buf_printf(&b, "rank of the model's answer %d (permuted row: %d)\nentropy %.2f nats", x->rank,
                 x->control, x->entropy);
  return b.s;
}

/* Strings of the grid, in one list so that they are released together. */
struct strings { char **v; size_t n; bool failed; };
static const char *keep(struct strings *s, char *one) {
  s->failed |= !one;
  if (!one) return "";
  return s->v[s->n++] = one;
}

static void grid_svg(const nm_lens_result *r, const nm_model *m, struct nm__buf *b) {
  size_t n_x = r->n_cols < MOST_COLS ? r->n_cols : MOST_COLS, n_y = (size_t)r->n_rows;
  struct strings s = {nm__alloc(n_x + 2 * n_x * n_y, sizeof *s.v), 0, false};
  struct nm__word_cell *cell = nm__alloc(n_x * n_y, sizeof *cell);
  const char **x = nm__alloc(n_x, sizeof *x), **y = nm__alloc(n_y, sizeof *y);
  char title[200], note[200];
  b->failed |= !s.v || !cell || !x || !y;
  for (size_t c = 0; !b->failed && c < n_x; c++) x[c] = keep(&s, nm__token_text(m, r->col[c].id));
  for (size_t i = 0; !b->failed && i < n_y; i++) {
    y[i] = r->row[i].name;
    for (size_t c = 0; c < n_x; c++) {
      const nm_lens_cell *k = &r->cell[i * r->n_cols + c];
      cell[i * n_x + c] = (struct nm__word_cell){
          nm__exp(k->top[0].lp), keep(&s, nm__token_text(m, k->top[0].id)),
          keep(&s, hover(r, m, (int)i, c)), k->rank == 1};
    }
  }
  snprintf(title, sizeof title, "What each layer would say next: %.120s", nm__path_base(m->path));
  snprintf(note, sizeof note, "framed: the model's own answer leads%s",
           n_x < r->n_cols ? "; the first 48 positions" : "");
  if (!b->failed && !s.failed)
    nm__words_svg(&(struct nm__words){title,
                                    "the likeliest token after each token read (columns); the "
                                    "darker, the likelier",
                                    note, x, y, (int)n_x, (int)n_y, cell},
                 b);
  b->failed |= s.failed;
  for (size_t i = 0; i < s.n; i++) free(s.v[i]);
  free(s.v);
  free(cell);
  free(x);
  free(y);
}

static void layers_svg(const nm_lens_result *r, const nm_model *m, struct nm__buf *b) {
  int n = r->n_rows;
  double *v = nm__alloc(4 * (size_t)n, sizeof *v);
  char title[200];
  b->failed |= !v;
  if (!v) return;
  bool blocks = true;              /* one row a block: they go by its number, the embedding is -1 */
  for (int i = 1; i < n; i++) blocks &= r->row[i].layer > r->row[i - 1].layer;
  for (int i = 0; i < n; i++) {
    v[i] = blocks ? r->row[i].layer : i;
    v[n + i] = r->layer[i].agree;
    v[2 * n + i] = r->layer[i].control_agree;
    v[3 * n + i] = r->target >= 0 ? nm__exp(r->layer[i].target_lp) : 0;
  }
  struct nm__series s[3] = {
      {.name = "the model's answer leads", .x = v, .y = v + n, .n = n, .colour = 0},
      {.name = "permuted rows", .x = v, .y = v + 2 * n, .n = n, .colour = 0, .faint = true,
       .style = NM__LINE_DASHED},
      {.name = "probability of the target", .x = v, .y = v + 3 * n, .n = n, .colour = 1}};
  snprintf(title, sizeof title, "At which layer is the answer there? %.100s",
           nm__path_base(m->path));
  nm__chart_svg(&(struct nm__chart){.title = title, .subtitle = "logit lens, share of positions",
                                    .x_label = blocks ? "block (-1: embedding)"
                                                      : "row of the lens (0: the first)",
                                    .y_label = "share", .y_lo = 0, .y_hi = 1.02, .series = s,
                                    .n_series = r->target >= 0 ? 3 : 2}, b);
  free(v);
}

/* ---- the folder ------------------------------------------------------------------------ */

static int page(const nm_lens_result *r, const nm_model *m, const nm_lens_opts *o,
                const struct nm__record *rec, const char *grid, const char *layers, nm_err *err) {
  char line[900];
  struct nm__page *p = nm__page_new("Logit lens");
  snprintf(
      line, sizeof line,
      "Model %.300s (%s, %d layers). The final norm and the vocabulary head "
      "are applied to the residual stream after every layer. The row of the last block is what "
      "the model itself says. The control permutes the values of each row: what leads there is "
      "no reading of this model.",
      m->path, m->arch->name, m->L);
  nm__page_para(p, line);
  nm__page_para(p, r->summary);
  nm__page_svg(p, grid);
  nm__page_svg(p, layers);
  struct nm__buf b;
  nm__buf_init(&b, 1 << 24);
  text_layers(&b, r);
  nm__page_heading(p, "By layer");
  nm__page_code(p, b.s);
  nm__buf_done(&b);
  int st = nm__page_finish(p, rec->dir, o->command, err);
  return st;
}

int nm__lens_write(const nm_lens_result *r, const nm_model *m, const nm_lens_opts *o,
                   const struct nm__record *rec, nm_err *err) {
  struct nm__buf grid, layers, json;
  nm__buf_init(&grid, (size_t)1 << 28);
  nm__buf_init(&layers, 1 << 24);
  nm__buf_init(&json, (size_t)1 << 30);
  grid_svg(r, m, &grid);
  layers_svg(r, m, &layers);
  char *s = nm_lens_json(r, m);
  nm__buf_puts(&json, s ? s : "");
  json.failed |= !s;
  int st = nm__record_put(rec, "lens.svg", &grid, err);
  if (!st) st = nm__record_put(rec, "layers.svg", &layers, err);
  if (!st) st = page(r, m, o, rec, grid.s, layers.s, err);
  if (!st) st = nm__record_put(rec, "lens.json", &json, err);
  free(s);
  nm__buf_done(&grid);
  nm__buf_done(&layers);
  nm__buf_done(&json);
  return st;
}
