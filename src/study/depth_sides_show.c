/* depth_sides_show.c - several runs beside each other, for people: tables, JSON, CSV, figures and a
 * page. All from nm_depth_sides alone. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "study/depth_sides.h"

static bool by_model(const nm_depth_sides *s) { return !strcmp(s->by, "model"); }

static const nm_depth_curve *curve(const nm_depth_sides *s, int side, int data) {
  const nm_depth_result *r = &s->side[side].r;
  return data < r->n_curves ? &r->curve[data] : NULL;
}

static double share(int block, const nm_depth_curve *c) {
  return (block + 1.0) / (c->n_layers - 1);
}

/* ---- the table ---------------------------------------------------------------------- */

enum { N_HEADS = 9 };
static const char *const heads[N_HEADS] = {
    "",      "peak",         "95 %",          "block", "converging", "of depth",
    "shift", "peak changes", "above controls"};

/* Between two curves of which one means nothing a shift would mean nothing. */
static void put_shift(const nm_depth_sides *s, const nm_depth_shift *d, bool both, char *out,
                      size_t n) {
  const nm_interval *v = by_model(s) ? &d->share : &d->blocks;
  int digits = by_model(s) ? 2 : 1;
  snprintf(out, n, "-");
  if (both && d->paired && d->n > 1)
    snprintf(out, n, "%+.*f (%+.*f to %+.*f)", digits, v->mean, digits, v->lo, digits, v->hi);
}

/* The cells of one side, each of 48 bytes. */
static void cells_of(const nm_depth_sides *s, int side, int data, char (*cell)[48]) {
  const nm_depth_curve *c = curve(s, side, data), *base = curve(s, 0, data);
  const nm_interval *peak = &c->layer[c->peak + 1].acc;
  nm_depth_shift d = nm__depth_shift(base, c);
  snprintf(cell[0], 48, "%.40s", s->side[side].name);
  snprintf(cell[1], 48, "%.3f", peak->mean);
  snprintf(cell[2], 48, "%.3f to %.3f", peak->lo, peak->hi);
  snprintf(cell[3], 48, "%d", c->peak);
  if (c->converge < 0) snprintf(cell[4], 48, "none");
  else if (c->converge_lo < 0)
    snprintf(cell[4], 48, "%d (none to %.0f)", c->converge, c->converge_hi);
  else snprintf(cell[4], 48, "%d (%.0f to %.0f)", c->converge, c->converge_lo, c->converge_hi);
  if (c->converge < 0) snprintf(cell[5], 48, "-");
  else snprintf(cell[5], 48, "%.2f", share(c->converge, c));
  put_shift(s, &d, base->above_controls && c->above_controls, cell[6], 48);
  snprintf(cell[7], 48, "-");
  if (d.paired)
    snprintf(cell[7], 48, "%+.3f (%+.3f to %+.3f)", d.peak.mean, d.peak.lo, d.peak.hi);
  if (!side) snprintf(cell[6], 48, "base"), snprintf(cell[7], 48, "base");
  snprintf(cell[8], 48, "%s", c->above_controls ? "yes" : "no");
}

/* ---- the order ------------------------------------------------------------------------ */

static double depth_of(const nm_depth_sides *s, int side, int data) {
  const nm_depth_curve *c = curve(s, side, data);
  return by_model(s) ? share(c->converge, c) : c->converge;
}

/* Sides whose curve may be ranked, earliest first, equals in the order given; how many. */
static int ranked(const nm_depth_sides *s, int data, int *out) {
  int n = 0;
  for (int i = 0; i < s->n; i++) {
    const nm_depth_curve *c = curve(s, i, data);
    if (!c || !c->above_controls || c->converge < 0) continue;
    int k = n++;
    for (; k > 0 && depth_of(s, out[k - 1], data) > depth_of(s, i, data); k--) out[k] = out[k - 1];
    out[k] = i;
  }
  return n;
}

static void order_text(struct nm__buf *b, const nm_depth_sides *s, int data) {
  int rank[NM_DEPTH_SIDES], n = ranked(s, data, rank), left = 0;
  nm__buf_puts(b, n ? "converges, earliest first: " : "no curve is above its controls");
  for (int i = 0; i < n; i++) {
    bool same = i && depth_of(s, rank[i], data) <= depth_of(s, rank[i - 1], data);
    nm__buf_printf(b, "%s%s (%.*f)", !i ? "" : same ? " = " : " < ", s->side[rank[i]].name,
                   by_model(s) ? 2 : 0, depth_of(s, rank[i], data));
  }
  for (int i = 0; i < s->n && n; i++) {
    const nm_depth_curve *c = curve(s, i, data);
    if (c && c->above_controls && c->converge >= 0) continue;
    nm__buf_printf(b, "%s%s", left++ ? ", " : "; not ranked, being not above all controls: ",
                   s->side[i].name);
  }
  nm__buf_putc(b, '\n');
}

static void note_text(struct nm__buf *b, const nm_depth_sides *s, int data) {
  const nm_depth_curve *base = curve(s, 0, data);
  int unpaired = 0;
  for (int i = 1; i < s->n; i++)
    unpaired += curve(s, i, data) && !nm__depth_shift(base, curve(s, i, data)).paired;
  nm__buf_printf(b, "shift: of the converging point from %s, %s, mean of the differences in %d "
                 "splits of the same rows (95 %%, corrected for their overlap)\n", s->side[0].name,
                 by_model(s) ? "in shares of the depth" : "in blocks", base->n_splits);
  if (unpaired)
    nm__buf_printf(b, "%d of the others read other rows (a longer text was left out), so that "
                   "their splits cannot be paired: -\n", unpaired);
}

static void data_text(struct nm__buf *b, const nm_depth_sides *s, int data) {
  struct nm__grid *g = nm__grid_new(heads, N_HEADS);
  char cell[N_HEADS][48];
  nm__buf_printf(b, "\n%s, by %s\n\n", curve(s, 0, data)->name, s->by);
  for (int i = 0; g && i < s->n; i++) {
    if (!curve(s, i, data)) continue;
    cells_of(s, i, data, cell);
    for (int k = 0; k < N_HEADS; k++) nm__grid_cell(g, "%s", cell[k]);
  }
  if (g) nm__grid_print(g, b);
  nm__grid_free(g);
  nm__buf_putc(b, '\n');
  order_text(b, s, data);
  note_text(b, s, data);
}

char *nm_depth_sides_text(const nm_depth_sides *s) {
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 26);
  for (int j = 0; j < s->side[0].r.n_curves; j++) data_text(&b, s, j);
  return b.s;
}

char *nm__depth_sides_summary(const nm_depth_sides *s) {
  struct nm__buf b;
  nm__buf_init(&b, 8000);
  for (int j = 0; j < s->side[0].r.n_curves; j++) {
    nm__buf_printf(&b, "%s%s: ", j ? "; " : "", curve(s, 0, j)->name);
    order_text(&b, s, j);
    if (b.s && b.len && b.s[b.len - 1] == '\n') b.s[--b.len] = 0;
  }
  return b.s;
}

/* ---- JSON, CSV -------------------------------------------------------------------------- */

static json_t *interval_json(nm_interval v) { return json_pack("[f,f,f]", v.mean, v.lo, v.hi); }
static json_t *block_json(int layer) { return layer < 0 ? json_null() : json_integer(layer); }

static json_t *splits_json(const nm_depth_curve *c) {
  json_t *a = json_array();
  for (int r = 0; r < c->n_splits; r++) json_array_append_new(a, block_json(c->split_converge[r]));
  return a;
}

static json_t *acc_json(const nm_depth_curve *c) {
  json_t *a = json_array();
  for (int l = 0; l < c->n_layers; l++) json_array_append_new(a, interval_json(c->layer[l].acc));
  return a;
}

static json_t *side_json(const nm_depth_sides *s, int side, int data) {
  const nm_depth_curve *c = curve(s, side, data);
  nm_depth_shift d = nm__depth_shift(curve(s, 0, data), c);
  bool shifted = d.paired && d.n > 1 && side;
  return json_pack(
      "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:i, s:o, s:o, s:o}", "name",
      nm__json_text(s->side[side].name), "accuracy", acc_json(c), "peak_accuracy",
      interval_json(c->layer[c->peak + 1].acc), "peak", block_json(c->peak), "converging",
      block_json(c->converge), "converging_share",
      c->converge < 0 ? json_null() : json_real(share(c->converge, c)), "converging_95",
      json_pack("[f,f]", c->converge_lo, c->converge_hi), "converging_splits", splits_json(c),
      "own_answer", c->n_answer ? interval_json(c->answer) : json_null(), "above_all_controls",
      c->above_controls, "paired", d.paired, "pairs", d.n, "shift_blocks",
      shifted && d.same_depth ? interval_json(d.blocks) : json_null(), "shift_share",
      shifted ? interval_json(d.share) : json_null(), "peak_change",
      d.paired && side ? interval_json(d.peak) : json_null());
}

static json_t *data_json(const nm_depth_sides *s, int data) {
  int rank[NM_DEPTH_SIDES], n = ranked(s, data, rank);
  json_t *sides = json_array(), *order = json_array();
  for (int i = 0; i < s->n; i++)
    if (curve(s, i, data)) json_array_append_new(sides, side_json(s, i, data));
  for (int i = 0; i < n; i++) json_array_append_new(order, nm__json_text(s->side[rank[i]].name));
  return json_pack("{s:o, s:o, s:o}", "name", nm__json_text(curve(s, 0, data)->name), "sides",
                   sides, "order", order);
}

char *nm_depth_sides_json(const nm_depth_sides *s) {
  json_t *data = json_array(), *runs = json_array();
  for (int j = 0; j < s->side[0].r.n_curves; j++) json_array_append_new(data, data_json(s, j));
  for (int i = 0; i < s->n; i++)
    json_array_append_new(runs, json_pack("{s:o, s:o, s:i, s:i, s:I, s:s}", "name",
                                          nm__json_text(s->side[i].name), "run",
                                          nm__json_text(s->side[i].r.dir), "blocks", s->side[i].L,
                                          "width", s->side[i].D, "parameters",
                                          (json_int_t)s->side[i].n_params, "types",
                                          s->side[i].types));
  json_t *o = json_pack("{s:s, s:o, s:s, s:o, s:o}", "noema", NM_VERSION, "run",
                        nm__json_text(s->dir), "by", s->by, "runs", runs, "data", data);
  char *text = o ? json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
  json_decref(o);
  return text;
}

static void quoted(struct nm__buf *b, const char *s) {
  nm__buf_putc(b, '"');
  for (; *s; s++) {
    if (*s == '"') nm__buf_putc(b, '"');
    nm__buf_putc(b, *s);
  }
  nm__buf_putc(b, '"');
}

static void csv(struct nm__buf *b, const nm_depth_sides *s) {
  nm__buf_printf(b, "%s,data,layer,of_depth,acc,acc_lo,acc_hi,f1,auc,shuffled_acc\n", s->by);
  for (int i = 0; i < s->n; i++)
    for (int j = 0; j < s->side[i].r.n_curves; j++)
      for (int l = 0; l < curve(s, i, j)->n_layers; l++) {
        const nm_depth_curve *c = curve(s, i, j);
        const nm_depth_layer *k = &c->layer[l];
        quoted(b, s->side[i].name);
        nm__buf_putc(b, ',');
        quoted(b, c->name);
        nm__buf_printf(b, ",%d,%.6f,%.6f,%.6f,%.6f,%.6f,%.6f,%.6f\n", k->layer, share(k->layer, c),
                       k->acc.mean, k->acc.lo, k->acc.hi, k->f1.mean, k->auc.mean,
                       k->shuffled.mean);
      }
}

/* ---- figures ------------------------------------------------------------------------------ */

struct figure {
  struct nm__series s[NM_DEPTH_SIDES];
  struct nm__vmark v[NM_DEPTH_SIDES];
  struct nm__hline h[2 + NM_DEPTH_SIDES * NM_DEPTH_ANCHORS];
  int n_s, n_v, n_h;
  double *num, lo;
  char own[NM_DEPTH_SIDES][80];
};

static double place(const nm_depth_sides *s, int layer, const nm_depth_curve *c) {
  return by_model(s) ? share(layer, c) : layer;
}

static void add_side(struct figure *f, const nm_depth_sides *s, int side, int data) {
  const nm_depth_curve *c = curve(s, side, data);
  int n = c->n_layers;
  double *x = f->num, *y = x + n, *lo = y + n, *hi = lo + n;
  f->num += 4 * n;
  for (int l = 0; l < n; l++) {
    x[l] = place(s, c->layer[l].layer, c);
    y[l] = c->layer[l].acc.mean;
    lo[l] = c->layer[l].acc.lo;
    hi[l] = c->layer[l].acc.hi;
    f->lo = y[l] - 0.02 < f->lo ? y[l] - 0.02 : f->lo;
  }
  f->s[f->n_s++] = (struct nm__series){s->side[side].name, x, y, lo, hi, n, side, NM__LINE_SOLID,
                                       false};
  for (int i = 0; i < c->n_anchors; i++) {     /* a number of the user's is the same for all */
    bool own = !strcmp(c->anchor[i].name, "own answer");
    if (!own && (side || !strcmp(c->anchor[i].name, "bag of words"))) continue;
    snprintf(f->own[side], sizeof f->own[side], "%.60s: own answer", s->side[side].name);
    f->h[f->n_h++] = (struct nm__hline){c->anchor[i].acc, own ? f->own[side] : c->anchor[i].name,
                                        NM__LINE_DOTTED, side};
    f->lo = c->anchor[i].acc - 0.02 < f->lo ? c->anchor[i].acc - 0.02 : f->lo;
  }
  if (c->above_controls && c->converge >= 0)
    f->v[f->n_v++] = (struct nm__vmark){place(s, c->converge, c), s->side[side].name, side};
}

static void svg(struct nm__buf *b, const nm_depth_sides *s, int data) {
  const nm_depth_curve *base = curve(s, 0, data);
  size_t n = 0;
  for (int i = 0; i < s->n; i++) n += curve(s, i, data) ? (size_t)curve(s, i, data)->n_layers : 0;
  struct figure *f = nm__alloc(1, sizeof *f);
  double *num = nm__alloc(4 * n, sizeof *num);
  char title[120];
  snprintf(title, sizeof title, "%.60s, by %s", base->name, s->by);
  if (f && num) {
    *f = (struct figure){.num = num, .lo = base->chance < 0.4 ? base->chance - 0.05 : 0.4};
    f->h[f->n_h++] = (struct nm__hline){base->words.mean, "bag of words", NM__LINE_SOLID, 9};
    f->h[f->n_h++] = (struct nm__hline){base->chance, "chance", NM__LINE_DASHED, 9};
    f->lo = base->words.mean - 0.02 < f->lo ? base->words.mean - 0.02 : f->lo;
    for (int i = 0; i < s->n; i++)
      if (curve(s, i, data)) add_side(f, s, i, data);
    nm__chart_svg(&(struct nm__chart){title,
                                      "bands: 95 % over repeated splits; upright: where a curve "
                                      "above its controls converges",
                                      by_model(s) ? "share of the depth (0: embedding)"
                                                  : "block (-1: embedding)",
                                      "accuracy on held-out texts", f->lo, 1.02, 0, 0, f->s, f->n_s,
                                      f->h, f->n_h, f->v, f->n_v},
                  b);
  } else {
    b->failed = true;
  }
  free(num);
  free(f);
}

/* ---- the page ------------------------------------------------------------------ */

static void page_data(struct nm__page *p, const nm_depth_sides *s, int data, const char *figure) {
  struct nm__buf b;
  char (*text)[48] = nm__alloc((size_t)s->n * N_HEADS, sizeof *text);
  const char **cell = nm__alloc((size_t)s->n * N_HEADS, sizeof *cell);
  int n = 0;
  nm__page_heading(p, curve(s, 0, data)->name);
  nm__page_svg(p, figure);
  for (int i = 0; text && cell && i < s->n; i++) {
    if (!curve(s, i, data)) continue;
    cells_of(s, i, data, text + n * N_HEADS);
    for (int k = 0; k < N_HEADS; k++) cell[n * N_HEADS + k] = text[n * N_HEADS + k];
    n++;
  }
  if (text && cell) nm__page_table(p, heads, N_HEADS, cell, n);
  nm__buf_init(&b, 1 << 20);
  order_text(&b, s, data);
  note_text(&b, s, data);
  nm__page_code(p, b.s ? b.s : "");
  nm__buf_done(&b);
  free(text);
  free(cell);
}

static void page_head(struct nm__page *p, const nm_depth_sides *s) {
  char line[1000];
  snprintf(line, sizeof line, "%d runs beside each other, by %s. Each is a run in a folder of its "
           "own, with its controls; a curve counts only above them.", s->n, s->by);
  nm__page_para(p, line);
  for (int i = 0; i < s->n; i++) {
    snprintf(line, sizeof line, "%s: %d blocks, width %d, %s; %s/report.html", s->side[i].name,
             s->side[i].L, s->side[i].D, s->side[i].types, s->side[i].name);
    nm__page_para(p, line);
  }
  if (!strcmp(s->by, "bits"))
    nm__page_para(p, "Matrices of the blocks are rounded to nearest, one scale for 32 values; "
                     "embedding, norms, biases and head stay. f32 is the model as it is stored.");
}

int nm__depth_sides_write(const nm_depth_sides *s, const nm_depth_sides_opts *o,
                          const struct nm__record *rec, nm_err *err) {
  struct nm__buf b;
  struct nm__page *p = nm__page_new("Concept depth, compared");
  char *json = nm_depth_sides_json(s), *html = nm__path_join(rec->dir, "report.html"), name[40];
  struct nm__buf whole = {.s = json, .len = json ? strlen(json) : 0};
  int st = html ? NM_OK : nm__fail_memory(err, "a file name", 0);
  page_head(p, s);
  for (int j = 0; j < s->side[0].r.n_curves && !st; j++) {
    nm__buf_init(&b, (size_t)1 << 26);
    svg(&b, s, j);
    snprintf(name, sizeof name, j ? "depth-%d.svg" : "depth.svg", j + 1);
    st = nm__record_put(rec, name, &b, err);
    if (!st) page_data(p, s, j, b.s);
    nm__buf_done(&b);
  }
  nm__buf_init(&b, (size_t)1 << 28);
  csv(&b, s);
  if (!st) st = nm__record_put(rec, "depth.csv", &b, err);
  nm__buf_done(&b);
  nm__page_heading(p, "The exact command");
  nm__page_code(p, o->depth.command ? o->depth.command : "");
  if (!st) st = nm__page_write(p, html, err);
  nm__page_free(p);
  if (!st) st = nm__record_put(rec, "depth.json", &whole, err);      /* last: it says finished */
  free(json);
  free(html);
  return st;
}
