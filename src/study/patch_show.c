/* patch_show.c - the maps for people: terminal table, patch.json, a heat map a component, the page.
 * All from nm_patch_result and the options. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/json.h"
#include "report/report.h"
#include "report/text.h"
#include "study/patch.h"

/* ---- terminal -------------------------------------------------------------------- */

/* Backgrounds of the 256-colour palette: blue below nothing, orange above. */
static int background(double v) {
  static const int up[] = {230, 223, 216, 209, 202}, down[] = {195, 153, 111, 75, 33};
  int k = (int)(fabs(v) * 5);
  k = k > 4 ? 4 : k;
  return fabs(v) < 0.05 ? 0 : v > 0 ? up[k] : down[k];
}

/* A cell in percent; what rounds to nothing is a dot, so that the eye finds the rest. */
static void cell_text(struct nm__buf *b, double v, bool colour) {
  int bg = isnan(v) || !colour ? 0 : background(v);
  if (bg) nm__buf_printf(b, "\033[30;48;5;%dm", bg);
  if (isnan(v)) nm__buf_puts(b, "    -");
  else if (fabs(v) < 0.005) nm__buf_puts(b, "    .");
  else nm__buf_printf(b, "%5.0f", 100 * v);
  if (bg) nm__buf_puts(b, "\033[0m");
}

static void pad_name(struct nm__buf *b, const char *name, int width) {
  struct nm__buf plain;
  nm__buf_init(&plain, 4096);
  nm__text_plain(&plain, name);
  for (int n = nm__text_cells(plain.s ? plain.s : ""); n < width; n++) nm__buf_putc(b, ' ');
  nm__buf_puts(b, plain.s ? plain.s : "");
  nm__buf_done(&plain);
}

static void map_text(const struct nm__patching *P, const nm_patch_map *m, struct nm__buf *b) {
  int width = 6;
  for (int c = 0; c < m->n_cols; c++) {
    int w = nm__text_cells(m->col[c]);
    if (w > width) width = w < 40 ? w : 40;
  }
  nm__buf_printf(b, "\n%s, %s; effect in percent: 0 corrupt, 100 clean%s\n", m->component,
                 m->heads ? "heads (at all positions) by layers" : "positions by layers",
                 P->o.window > 1 ? "; windows of layers" : "");
  pad_name(b, "layer", width);
  for (int l = 0; l < m->n_layers; l++) nm__buf_printf(b, "%5d", l);
  for (int c = 0; c < m->n_cols; c++) {
    nm__buf_putc(b, '\n');
    pad_name(b, m->col[c], width);
    for (int l = 0; l < m->n_layers; l++)
      cell_text(b, m->effect[(size_t)l * (size_t)m->n_cols + (size_t)c], P->o.colour);
  }
  nm__buf_putc(b, '\n');
}

static void interval_text(char out[64], nm_interval i) {
  if (isnan(i.mean)) snprintf(out, 64, "-");
  else if (i.hi > i.lo) snprintf(out, 64, "%.2f (%.2f to %.2f)", i.mean, i.lo, i.hi);
  else snprintf(out, 64, "%.2f", i.mean);
}

static const char *const TOP_HEADS[] = {"component", "layer", "position or head", "top cell",
                                        "unrelated prompt", "other cells", ""};
enum { TOP_COLS = 7 };

static const char *control_name(int control) {
  return control == NM_OK ? "ok" : control == NM_ECHECK ? "FAILS" : "unsure";
}

static void top_row(const nm_patch_map *m, char mem[5][64], const char *row[TOP_COLS]) {
  snprintf(mem[0], 64, "%d", m->top_layer);
  interval_text(mem[1], m->top);
  interval_text(mem[2], m->unrelated);
  interval_text(mem[3], m->random);
  snprintf(mem[4], 64, "%s", m->top_col < 0 ? "-" : m->col[m->top_col]);
  const char *v[TOP_COLS] = {m->component, m->top_layer < 0 ? "-" : mem[0], mem[4], mem[1], mem[2],
                             mem[3], !m->found ? "nothing found" : control_name(m->control)};
  memcpy(row, v, sizeof v);
}

static const char *verdict_text(const nm_patch_result *r, bool noising, char text[400]) {
  size_t at = 0;
  if (!r->exact_nothing || (r->can_everything && !r->exact_everything))
    return "a patched run is not what it must be: a defect of noema";
  bool found = false;
  for (int c = 0; c < r->n_maps; c++) found |= r->map[c].found;
  if (!found) return "no single cell has a tenth of the full effect";
  if (r->verdict == NM_EUNSURE)
    return "too few pairs or seeds to tell the top cells from their controls";
  for (int c = 0; c < r->n_maps && at < 200; c++)
    if (r->map[c].found && r->map[c].control == NM_ECHECK)
      at += (size_t)snprintf(text + at, 400 - at, "%s%.60s", at ? ", " : "", r->map[c].component);
  if (at) snprintf(text + at, 400 - at, ": a control does as much as the top cell, so the map says "
                   "nothing there");
  if (at) return text;
  return noising ? "the top cells break the answer, their controls do less"
                 : "the top cells restore the answer, their controls do less";
}

static void facts(const struct nm__patching *P, struct nm__buf *b) {
  const nm_patch_result *r = P->r;
  char clean[64], corrupt[64];
  interval_text(clean, r->clean);
  interval_text(corrupt, r->corrupt);
  nm__buf_printf(b, "%s, %zu pair%s", P->pairs.tracing ? "noise on the subject, clean put back"
                                      : P->o.noising ? "corrupt activations into the clean run"
                                                     : "clean activations into the corrupt run",
                 r->n_pairs - r->n_left_out, r->n_pairs - r->n_left_out == 1 ? "" : "s");
  if (P->pairs.tracing)
    nm__buf_printf(b, ", %d draws of noise of %g standard deviations (%.4g)", r->n_seeds,
                   P->o.noise, P->sigma);
  if (r->n_left_out)
    nm__buf_printf(b, "; %zu left out, in which the corruption does not lower the answer",
                   r->n_left_out);
  nm__buf_printf(b, "\nmetric: %s; clean %s, corrupt %s\n",
                 P->pairs.v[0].wrong_id >= 0 ? "logit of the answer less that of the wrong one"
                                             : "log-probability of the answer", clean, corrupt);
  nm__buf_printf(b, "nothing patched is the base bit for bit: %s; everything before layer 0 is the "
                    "source: %s\n", r->exact_nothing ? "yes" : "NO",
                 !r->can_everything ? "not of equal length" : r->exact_everything ? "yes" : "NO");
}

static int make_text(struct nm__patching *P, nm_err *err) {
  const nm_patch_result *r = P->r;
  char verdict[400];
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 28);
  facts(P, &b);
  for (int c = 0; c < r->n_maps; c++) map_text(P, &r->map[c], &b);
  struct nm__grid *g = nm__grid_new(TOP_HEADS, TOP_COLS);
  for (int c = 0; g && c < r->n_maps; c++) {
    char mem[5][64];
    const char *row[TOP_COLS];
    top_row(&r->map[c], mem, row);
    for (int i = 0; i < TOP_COLS; i++) nm__grid_cell(g, "%s", row[i]);
  }
  nm__buf_printf(&b, "\n%s, as a share of a full patch (95 %%)\n",
                 P->o.noising ? "Broken" : "Restored");
  if (g) nm__grid_print(g, &b);
  nm__grid_free(g);
  nm__buf_printf(&b, "so: %s\n", verdict_text(r, P->o.noising, verdict));
  P->r->text = b.failed ? NULL : nm__strdup(b.s);
  nm__buf_done(&b);
  return P->r->text ? NM_OK : nm__fail_memory(err, "the table", 0);
}

/* ---- JSON ------------------------------------------------------------------------------- */

static json_t *real(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static json_t *interval_json(nm_interval i) {
  return json_pack("{s:o, s:o, s:o}", "mean", real(i.mean), "lo", real(i.lo), "hi", real(i.hi));
}

static json_t *matrix(const nm_patch_map *m, const double *v) {
  json_t *rows = json_array();
  for (int l = 0; l < m->n_layers; l++) {
    json_t *row = json_array();
    for (int c = 0; c < m->n_cols; c++)
      json_array_append_new(row, real(v[(size_t)l * (size_t)m->n_cols + (size_t)c]));
    json_array_append_new(rows, row);
  }
  return rows;
}

static json_t *map_json(const nm_patch_map *m) {
  json_t *cols = json_array();
  for (int c = 0; c < m->n_cols; c++) json_array_append_new(cols, nm__json_text(m->col[c]));
  return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:i, s:i, s:o, s:o, s:o, s:b, s:s}",
                   "component", m->component, "columns_are", m->heads ? "heads" : "positions",
                   "columns", cols, "effect", matrix(m, m->effect), "lo", matrix(m, m->lo), "hi",
                   matrix(m, m->hi), "top_layer", m->top_layer, "top_column", m->top_col, "top",
                   interval_json(m->top), "unrelated", interval_json(m->unrelated), "other_cells",
                   interval_json(m->random), "found", m->found, "control",
                   control_name(m->control));
}

static int make_json(struct nm__patching *P, nm_err *err) {
  nm_patch_result *r = P->r;
  json_t *maps = json_array();
  for (int c = 0; c < r->n_maps; c++) json_array_append_new(maps, map_json(&r->map[c]));
  json_t *j = json_pack(
      "{s:s, s:o, s:s, s:I, s:I, s:i, s:I, s:I, s:i, s:f, s:I, s:o, s:o, s:b, s:o, s:s, s:o}",
      "noema", NM_VERSION, "model", nm__json_text(P->m->path), "direction",
      P->pairs.tracing ? "tracing" : P->o.noising ? "noising" : "denoising", "pairs",
      (json_int_t)r->n_pairs, "left_out", (json_int_t)r->n_left_out, "seeds", r->n_seeds, "runs",
      (json_int_t)r->n_runs, "positions", (json_int_t)r->n_positions, "window", P->o.window,
      "noise", P->o.noise, "seed", (json_int_t)P->o.seed, "clean", interval_json(r->clean),
      "corrupt", interval_json(r->corrupt), "exact_nothing", r->exact_nothing, "exact_everything",
      r->can_everything ? json_boolean(r->exact_everything) : json_null(), "verdict",
      r->verdict == NM_OK ? "ok" : r->verdict == NM_ECHECK ? "a control fails" : "cannot conclude",
      "maps", maps);
  r->json = j ? json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(10)) : NULL;
  json_decref(j);
  return r->json ? NM_OK : nm__fail_memory(err, "the results", 0);
}

/* ---- figures and the page ------------------------------------------------------- */

/* Rows are positions or heads, columns layers: names stand level, whatever their length. */
static int heat(struct nm__patching *P, const nm_patch_map *m, struct nm__buf *svg, nm_err *err) {
  size_t L = (size_t)m->n_layers, n = (size_t)m->n_cols;
  double *v = nm__alloc(3 * L * n, sizeof *v), *lo = v + L * n, *hi = lo + L * n;
  char title[160], sub[300], top[64];
  if (!v) return nm__fail_memory(err, "a figure", 3 * L * n * sizeof *v);
  for (size_t l = 0; l < L; l++)
    for (size_t c = 0; c < n; c++) {
      v[c * L + l] = m->effect[l * n + c];
      lo[c * L + l] = m->lo[l * n + c];
      hi[c * L + l] = m->hi[l * n + c];
    }
  interval_text(top, m->top);
  snprintf(title, sizeof title, "%s: which %s carry the answer", m->component,
           m->heads ? "heads" : "positions");
  snprintf(sub, sizeof sub, "%.80s, %zu pair%s. Top cell (framed): %s; random prompt's values "
           "there: %.2f", nm__path_base(P->m->path), P->r->n_pairs - P->r->n_left_out,
           P->r->n_pairs - P->r->n_left_out == 1 ? "" : "s", top, m->unrelated.mean);
  struct nm__heat h = {.title = title, .subtitle = sub, .x_label = "layer",
                       .y_label = m->heads ? "head" : "position",
                       .value_label = "effect: 0 corrupt, 1 clean", .n_rows = m->n_cols,
                       .n_cols = m->n_layers, .row = (const char *const *)m->col, .v = v,
                       .lo = lo, .hi = hi, .mark_row = m->top_col, .mark_col = m->top_layer};
  nm__heat_svg(&h, svg);
  free(v);
  return svg->failed ? nm__fail_memory(err, "a figure", svg->len) : NM_OK;
}

static int write_in(const char *dir, const char *name, const char *s, nm_err *err) {
  char *path = nm__path_join(dir, name);
  int st = path && s ? nm__write_file(path, s, strlen(s), err) : nm__fail_memory(err, name, 0);
  free(path);
  return st;
}

static void page_pairs(const struct nm__patching *P, struct nm__page *p) {
  static const char *const heads[] = {"clean", "corrupt", "answer", "wrong"};
  size_t n = P->pairs.n < 20 ? P->pairs.n : 20;
  const char **cell = nm__alloc(4 * n, sizeof *cell);
  for (size_t i = 0; cell && i < n; i++) {
    const struct nm__pair *q = &P->pairs.v[i];
    const char *row[4] = {q->clean, q->subject ? q->subject : q->corrupt, q->answer,
                          q->wrong ? q->wrong : ""};
    memcpy(cell + 4 * i, row, sizeof row);
  }
  nm__page_heading(p, P->pairs.n > n ? "The first pairs" : "The pairs");
  if (P->pairs.tracing)
    nm__page_para(p, "Under \"corrupt\" stands the subject that has the noise.");
  if (cell) nm__page_table(p, heads, 4, cell, (int)n);
  free(cell);
}

static void page_tops(const struct nm__patching *P, struct nm__page *p) {
  int n = P->r->n_maps;
  char (*mem)[5][64] = nm__alloc((size_t)n, sizeof *mem);
  const char **cell = nm__alloc((size_t)n * TOP_COLS, sizeof *cell);
  for (int c = 0; mem && cell && c < n; c++)
    top_row(&P->r->map[c], mem[c], cell + (size_t)c * TOP_COLS);
  if (mem && cell) nm__page_table(p, TOP_HEADS, TOP_COLS, cell, n);
  free(mem);
  free(cell);
}

static int page(struct nm__patching *P, struct nm__page *p, nm_err *err) {
  struct nm__buf b;
  nm_model_info i;
  char line[700];
  int st = NM_OK;
  nm_model_describe(P->m, &i);
  snprintf(line, sizeof line, "Model %.200s (%s, %d layers, %d heads, width %d). One activation at "
           "a time is put from one run into another; the effect is 0 where the answer stays as in "
           "the corrupt run and 1 where it is as in the clean one.", i.path, i.arch, i.L, i.H, i.D);
  nm__page_para(p, line);
  nm__buf_init(&b, 1 << 20);
  facts(P, &b);
  nm__page_para(p, b.s);
  nm__buf_done(&b);
  page_tops(P, p);
  nm__page_para(p, verdict_text(P->r, P->o.noising, line));
  for (int c = 0; c < P->r->n_maps && !st; c++) {
    char name[96];
    struct nm__buf svg;
    nm__buf_init(&svg, (size_t)1 << 27);
    st = heat(P, &P->r->map[c], &svg, err);
    snprintf(name, sizeof name, "%s.svg", P->r->map[c].component);
    if (!st) st = write_in(P->r->dir, name, svg.s, err);
    if (!st) nm__page_svg(p, svg.s);
    nm__buf_done(&svg);
  }
  page_pairs(P, p);
  nm__page_heading(p, "The exact command");
  nm__page_code(p, P->o.command ? P->o.command : "");
  return st;
}

int nm__patch_show(struct nm__patching *P, nm_err *err) {
  int st = make_text(P, err);
  if (!st) st = make_json(P, err);
  if (!st) st = write_in(P->r->dir, "patch.json", P->r->json, err);
  struct nm__page *p = nm__page_new(P->pairs.tracing ? "Causal tracing" : "Activation patching");
  char *path = nm__path_join(P->r->dir, "report.html");
  if (!st && (!p || !path)) st = nm__fail_memory(err, "a report", 0);
  if (!st) st = page(P, p, err);
  if (!st) st = nm__page_write(p, path, err);
  nm__page_free(p);
  free(path);
  return st;
}
