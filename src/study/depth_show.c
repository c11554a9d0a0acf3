/* depth_show.c - the study's result for people: a terminal table, CSV, JSON, the
 * figure, and the page. All from nm_depth_result alone. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/json.h"
#include "report/report.h"
#include "study/depth.h"

/* ---- terminal -------------------------------------------------------------- */

static void layer_name(int layer, char out[16]) {
  if (layer < 0) snprintf(out, 16, "embed");
  else snprintf(out, 16, "%d", layer);
}

static void grid_of(struct nm__buf *b, const nm_depth_curve *c) {
  static const char *const heads[] = {"layer", "accuracy", "95 %",          "F1",
                                      "AUC",   "shuffled", "random weights"};
  struct nm__grid *g = nm__grid_new(heads, 7);
  for (int l = 0; g && l < c->n_layers; l++) {
    const nm_depth_layer *r = &c->layer[l];
    char name[16];
    layer_name(r->layer, name);
    nm__grid_cell(g, "%s", name);
    nm__grid_cell(g, "%.3f", r->acc.mean);
    nm__grid_cell(g, "%.3f to %.3f", r->acc.lo, r->acc.hi);
    nm__grid_cell(g, "%.3f", r->f1.mean);
    nm__grid_cell(g, "%.3f", r->auc.mean);
    nm__grid_cell(g, "%.3f", r->shuffled.mean);
    if (c->random) nm__grid_cell(g, "%.3f", c->random[l].acc.mean);
    else nm__grid_cell(g, "-");
  }
  if (g) nm__grid_print(g, b);
  nm__grid_free(g);
}

static void place(struct nm__buf *b, const nm_depth_curve *c, const char *what, int layer,
                  double lo, double hi) {
  int L = c->n_layers - 1;
  char from[24] = "none", to[24] = "none";
  if (layer < 0) {
    nm__buf_printf(b, "  %-22s none\n", what);
    return;
  }
  if (lo >= 0) snprintf(from, sizeof from, "%.0f", lo);
  if (hi >= 0) snprintf(to, sizeof to, "%.0f", hi);
  nm__buf_printf(b, "  %-22s block %d, %.2f of the depth (95 %% of splits: %s to %s)%s\n", what,
                 layer, (layer + 1.0) / L, from, to,
                 c->above_controls ? "" : "; means nothing: see the controls");
}

static double random_top(const nm_depth_curve *c) {
  double top = 0;
  for (int l = 0; c->random && l < c->n_layers; l++)
    top = c->random[l].acc.mean > top ? c->random[l].acc.mean : top;
  return top;
}

static void causal_text(struct nm__buf *b, const nm_depth_curve *c) {
  if (!c->causal.n) {
    nm__buf_printf(b, "  %-22s not tested: %s\n", "used?",
                   c->n_labels > 2 ? "it is defined for two labels"
                   : c->no_answer  ? c->no_answer
                                   : "the site is not on the residual stream");
    return;
  }
  nm__buf_printf(b, "  %-22s the direction added at %s, %d texts\n", "used?", c->causal.site,
                 c->causal.n);
  nm__buf_printf(b, "  %-22s log-odds of yes: %+.2f; with + %+.2f, with - %+.2f\n", "",
                 c->causal.before, c->causal.plus, c->causal.minus);
  nm__buf_printf(b, "  %-22s difference %.2f, of random directions at most %.2f: %s\n", "",
                 c->causal.plus - c->causal.minus, c->causal.random,
                 c->causal.moved ? "the direction moves the answer"
                                 : "readable, but it does not move the answer");
}

static void anchor_text(struct nm__buf *b, const nm_depth_anchor *a) {
  nm__buf_printf(b, "  %-22s %s, %.3f: ", "anchor", a->name, a->acc);
  if (a->reached < 0) nm__buf_puts(b, "no block's probe reaches it\n");
  else nm__buf_printf(b, "the probe reaches it at block %d\n", a->reached);
}

static void curve_text(struct nm__buf *b, const nm_depth_curve *c) {
  double *acc = nm__alloc((size_t)c->n_layers, sizeof *acc);
  nm__buf_printf(b, "\n%s: %zu texts, ", c->name, c->n);
  if (c->n_labels == 2)
    nm__buf_printf(b, "%zu and %zu of the two labels\n", c->n_label[0], c->n_label[1]);
  for (int k = 0; k < c->n_labels && c->n_labels > 2; k++)
    nm__buf_printf(b, "%s%zu of %s%s", k ? ", " : "", c->n_label[k], c->label_name[k],
                   k + 1 < c->n_labels ? "" : "\n");
  nm__buf_printf(b, "  %s\n  prompt '%s': %s\n  %s\n", c->how, c->prompt_name, c->prompt, c->split);
  if (!strcmp(c->probe, "forest"))
    nm__buf_puts(b, "  probe: a random forest (100 trees, sqrt(D) features a node, Gini); bag of "
                    "words stays linear\n");
  if (c->n_labels > 2)
    nm__buf_printf(b, "  %d labels: %schance is %.3f, F1 and AUC are means over the labels\n",
                   c->n_labels,
                   strcmp(c->probe, "forest") ? "one probe against all others for each; " : "",
                   c->chance);
  nm__buf_puts(b, "\n  ");
  for (int l = 0; acc && l < c->n_layers; l++) acc[l] = c->layer[l].acc.mean;
  if (acc) {
    double lo = c->n_labels > 2 ? 0.8 * c->chance : 0.4;
    nm__sparkline(b, acc, (size_t)c->n_layers, lo, 1.0);
    nm__buf_printf(b, "  accuracy from the embedding to the last block, %.3g to 1\n\n", lo);
  }
  free(acc);
  grid_of(b, c);
  nm__buf_printf(b, "\n  %-22s %.3f at block %d\n", "peak", c->layer[c->peak + 1].acc.mean,
                 c->peak);
  place(b, c, "jump", c->jump, c->jump_lo, c->jump_hi);
  place(b, c, "converging point", c->converge, c->converge_lo, c->converge_hi);
  if (c->literal >= 0)
    nm__buf_printf(
        b, "  %-22s block %d (the paper's formula taken literally: nearly always the last)\n",
        "literal reading", c->literal);
  nm__buf_printf(b, "  %-22s %.3f: the peak is %s it\n", "bag of words", c->words.mean,
                 c->above_words ? "above" : "not above");

  nm__buf_printf(b, "  %-22s largest over layers %.3f on average; the row %s chance\n",
                 "shuffled labels", c->shuffled_max, c->shuffled_ok ? "covers" : "does NOT cover");
  if (c->random) nm__buf_printf(b, "  %-22s at most %.3f\n", "random weights", random_top(c));
  nm__buf_printf(b, "  %-22s %s\n", "so",
                 c->above_controls
                     ? "the concept is readable: the curve stands above all its controls"
                     : "nothing was shown: a curve counts only above bag of words, shuffled labels "
                       "and random weights");
  if (c->n_answer)
    nm__buf_printf(b, "  %-22s %.3f right (%.3f to %.3f)\n", "the model's own answer",
                   c->answer.mean, c->answer.lo, c->answer.hi);
  else
    nm__buf_printf(b, "  %-22s none: %s\n", "the model's own answer",
                   c->no_answer ? c->no_answer : "it was not asked");
  for (int i = 0; i < c->n_anchors; i++) anchor_text(b, &c->anchor[i]);
  causal_text(b, c);
}

char *nm_depth_text(const nm_depth_result *r) {
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 28);
  for (int i = 0; i < r->n_curves; i++) curve_text(&b, &r->curve[i]);
  return b.s;
}

/* ---- JSON and CSV ------------------------------------------------------------- */

static json_t *interval_json(nm_interval v) { return json_pack("[f,f,f]", v.mean, v.lo, v.hi); }
static json_t *block_json(int layer) { return layer < 0 ? json_null() : json_integer(layer); }

static json_t *layers_json(const nm_depth_layer *l, int n, bool shuffled) {
  json_t *a = json_array();
  for (int i = 0; l && i < n; i++) {
    json_t *o =
        json_pack("{s:i, s:o, s:o, s:o}", "layer", l[i].layer, "accuracy", interval_json(l[i].acc),
                  "f1", interval_json(l[i].f1), "auc", interval_json(l[i].auc));
    if (shuffled) json_object_set_new(o, "shuffled", interval_json(l[i].shuffled));
    json_array_append_new(a, o);
  }
  return a;
}

static json_t *counts_json(const nm_depth_curve *c) {
  json_t *a = json_array();
  for (int k = 0; k < c->n_labels; k++)
    json_array_append_new(a, json_integer((json_int_t)c->n_label[k]));
  return a;
}

static json_t *names_json(const nm_depth_curve *c) {
  json_t *a = json_array();
  for (int k = 0; k < c->n_labels; k++) json_array_append_new(a, nm__json_text(c->label_name[k]));
  return a;
}

/* Rows: the label of the file; columns: what the probe of the peak said. */
static json_t *confusion_json(const nm_depth_curve *c) {
  json_t *rows = json_array();
  for (int k = 0; k < c->n_labels; k++) {
    json_t *row = json_array();
    for (int j = 0; j < c->n_labels; j++)
      json_array_append_new(row, json_integer((json_int_t)c->confusion[k * c->n_labels + j]));
    json_array_append_new(rows, row);
  }
  return rows;
}

static json_t *anchors_json(const nm_depth_curve *c) {
  json_t *a = json_array();
  for (int i = 0; i < c->n_anchors; i++)
    json_array_append_new(a, json_pack("{s:o, s:f, s:o}", "name", nm__json_text(c->anchor[i].name),
                                       "accuracy", c->anchor[i].acc, "reached",
                                       block_json(c->anchor[i].reached)));
  return a;
}

static json_t *curve_json(const nm_depth_curve *c) {
  json_t *o = json_object();
  const struct { const char *k; json_t *v;
  } kv[] = {{"name", nm__json_text(c->name)},
            {"file", nm__json_text(c->file)},
            {"data", nm__json_text(c->how)},
            {"prompt_name", nm__json_text(c->prompt_name)},
            {"prompt", nm__json_text(c->prompt)},
            {"split", nm__json_text(c->split)},
            {"n", json_integer((json_int_t)c->n)},
            {"probe", json_string(c->probe)},
            {"n_label", counts_json(c)},
            {"labels", names_json(c)},
            {"chance", json_real(c->chance)},
            {"confusion_at_peak", confusion_json(c)},
            {"anchors", anchors_json(c)},
            {"layers", layers_json(c->layer, c->n_layers, true)},
            {"random_weights", layers_json(c->random, c->n_layers, false)},
            {"bag_of_words", interval_json(c->words)},
            {"own_answer", c->n_answer ? interval_json(c->answer) : json_null()},
            {"shuffled_max", json_real(c->shuffled_max)},
            {"peak", block_json(c->peak)},
            {"jump", block_json(c->jump)},
            {"converging", block_json(c->converge)},
            {"converging_literal", block_json(c->literal)},
            {"jump_95", json_pack("[f,f]", c->jump_lo, c->jump_hi)},
            {"converging_95", json_pack("[f,f]", c->converge_lo, c->converge_hi)},
            {"above_bag_of_words", json_boolean(c->above_words)},
            {"above_all_controls", json_boolean(c->above_controls)},
            {"shuffled_covers_chance", json_boolean(c->shuffled_ok)},
            {"direction", c->vector ? nm__json_text(c->vector) : json_null()},
            {"edit", c->edit ? nm__json_text(c->edit) : json_null()}};
  for (size_t i = 0; i < sizeof kv / sizeof *kv; i++) json_object_set_new(o, kv[i].k, kv[i].v);
  if (c->causal.n)
    json_object_set_new(o, "causal",
                        json_pack("{s:s, s:i, s:f, s:f, s:f, s:f, s:b}", "site", c->causal.site,
                                  "n", c->causal.n, "before", c->causal.before, "plus",
                                  c->causal.plus, "minus", c->causal.minus, "random",
                                  c->causal.random, "moved", c->causal.moved));
  return o;
}

char *nm_depth_json(const nm_depth_result *r) {
  json_t *a = json_array();
  for (int i = 0; i < r->n_curves; i++) json_array_append_new(a, curve_json(&r->curve[i]));
  json_t *o = json_pack("{s:s, s:o, s:o, s:o}", "noema", NM_VERSION, "run", nm__json_text(r->dir),
                        "summary", nm__json_text(r->summary), "curves", a);
  char *s = o ? json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
  json_decref(o);
  return s;
}

static void csv_field(struct nm__buf *b, const char *s) {
  nm__buf_putc(b, '"');
  for (; *s; s++) {
    if (*s == '"') nm__buf_putc(b, '"');
    nm__buf_putc(b, *s);
  }
  nm__buf_putc(b, '"');
}

static void csv(struct nm__buf *b, const nm_depth_result *r) {
  nm__buf_puts(b, "data,layer,acc,acc_lo,acc_hi,f1,auc,shuffled_acc,random_weights_acc,bag_of_"
                  "words_acc,own_answer_acc\n");
  for (int i = 0; i < r->n_curves; i++)
    for (int l = 0; l < r->curve[i].n_layers; l++) {
      const nm_depth_curve *c = &r->curve[i];
      const nm_depth_layer *k = &c->layer[l];
      csv_field(b, c->name);
      nm__buf_printf(b, ",%d,%.6f,%.6f,%.6f,%.6f,%.6f,%.6f,", k->layer, k->acc.mean, k->acc.lo,
                     k->acc.hi, k->f1.mean, k->auc.mean, k->shuffled.mean);
      if (c->random) nm__buf_printf(b, "%.6f", c->random[l].acc.mean);
      nm__buf_printf(b, ",%.6f,", c->words.mean);
      if (c->n_answer) nm__buf_printf(b, "%.6f", c->answer.mean);
      nm__buf_putc(b, '\n');
    }
}

/* ---- the figure ------------------------------------------------------------------ */

struct figure {
  struct nm__series *s;
  struct nm__hline *h;
  struct nm__vmark *v;
  double *num;
  char *text;
  int n_s, n_h, n_v;
  double chance;                   /* of the last line drawn for it */
};

static char *label(struct figure *f, const char *name, const char *what) {
  char *at = f->text;
  int n = snprintf(at, 150, "%.60s%s%s", name, *what ? ": " : "", what);
  f->text += n + 1;
  return at;
}

static void add_series(struct figure *f, const nm_depth_curve *c, int colour, int kind) {
  static const char *const what[] = {"", "shuffled labels", "random weights"};
  int n = c->n_layers;
  double *x = f->num, *y = x + n, *lo = y + n, *hi = lo + n;
  f->num += 4 * n;
  for (int l = 0; l < n; l++) {
    nm_interval v = kind == 0   ? c->layer[l].acc
                    : kind == 1 ? c->layer[l].shuffled
                                : c->random[l].acc;
    x[l] = c->layer[l].layer;
    y[l] = v.mean;
    lo[l] = v.lo;
    hi[l] = v.hi;
  }
  f->s[f->n_s++] = (struct nm__series){label(f, c->name, what[kind]),
                                       x,
                                       y,
                                       kind ? NULL : lo,
                                       kind ? NULL : hi,
                                       n,
                                       colour,
                                       kind == 0   ? NM__LINE_SOLID
                                       : kind == 1 ? NM__LINE_DOTTED
                                                   : NM__LINE_DASHED,
                                       kind != 0};
}

static void add_curve(struct figure *f, const nm_depth_curve *c, int colour) {
  add_series(f, c, colour, 0);
  add_series(f, c, colour, 1);
  if (c->random) add_series(f, c, colour, 2);
  f->h[f->n_h++] =
      (struct nm__hline){c->words.mean, label(f, c->name, "bag of words"), NM__LINE_SOLID, colour};
  for (int i = 0; i < c->n_anchors; i++) {
    const nm_depth_anchor *a = &c->anchor[i];
    if (strcmp(a->name, "bag of words"))
      f->h[f->n_h++] =
          (struct nm__hline){a->acc, label(f, c->name, a->name), NM__LINE_DOTTED, colour};
  }
  if (!f->n_h || f->chance != c->chance) {
    char what[40];
    snprintf(what, sizeof what, "1/%d", c->n_labels);
    f->h[f->n_h++] =
        (struct nm__hline){c->chance, label(f, "chance", what), NM__LINE_DASHED, colour};
    f->chance = c->chance;
  }
  if (!c->above_controls) return;  /* no layer to mark where nothing was shown */
  if (c->jump >= 0)
    f->v[f->n_v++] = (struct nm__vmark){
        c->jump, label(f, c->name, c->jump == c->converge ? "jump, converged" : "jump"), colour};
  if (c->converge >= 0 && c->converge != c->jump)
    f->v[f->n_v++] = (struct nm__vmark){c->converge, label(f, c->name, "converged"), colour};
}

/* The axis starts at 0.4, or lower when something lies there. */
static double lowest(const nm_depth_curve *c, double lo) {
  double least = c->words.mean < c->chance ? c->words.mean : c->chance;
  for (int i = 0; i < c->n_anchors; i++)
    least = c->anchor[i].acc < least ? c->anchor[i].acc : least;
  for (int l = 0; l < c->n_layers; l++) {
    const double v[] = {c->layer[l].acc.mean, c->layer[l].shuffled.mean,
                        c->random ? c->random[l].acc.mean : 1};
    for (int i = 0; i < 3; i++) least = v[i] < least ? v[i] : least;
  }
  return least < lo + 0.01 ? least - 0.02 : lo;
}

static void svg(struct nm__buf *b, const nm_depth_result *r, const char *model) {
  size_t n = (size_t)r->n_curves, layers = (size_t)r->curve[0].n_layers;
  struct figure f = {nm__alloc(3 * n, sizeof *f.s),
                     nm__alloc((2 + NM_DEPTH_ANCHORS) * n, sizeof *f.h),
                     nm__alloc(2 * n, sizeof *f.v),
                     nm__alloc(12 * n * layers, sizeof *f.num),
                     nm__alloc(n * (8 + NM_DEPTH_ANCHORS), 160),
                     0,
                     0,
                     0,
                     0};
  double *num = f.num;
  char *text = f.text, title[160];
  double lo = 0.4;
  if (f.s && f.h && f.v && f.num && f.text) {
    for (int i = 0; i < r->n_curves; i++) {
      add_curve(&f, &r->curve[i], i);
      lo = lowest(&r->curve[i], lo);
    }
    const char *about = strcmp(r->curve[0].probe, "forest")
                            ? "linear probe on the last token; bands: 95 % over repeated splits"
                            : "random forest on the last token; bands: 95 % over repeated splits";
    snprintf(title, sizeof title, "At which layer is it readable? %.100s", model);
    nm__chart_svg(
        &(struct nm__chart){title,
                            about,
                            "block (-1: embedding)", "accuracy on held-out texts", lo, 1.02, 0, 0,
                            f.s, f.n_s, f.h, f.n_h, f.v, f.n_v},
        b);
  }
  free(f.s);
  free(f.h);
  free(f.v);
  free(num);
  free(text);
}

/* ---- the page ------------------------------------------------------------------------ */

static void page_table(struct nm__page *p, const nm_depth_curve *c) {
  static const char *const heads[] = {"layer", "accuracy", "from",     "to",
                                      "F1",    "AUC",      "shuffled", "random weights"};
  int n = c->n_layers;
  char (*text)[16] = nm__alloc((size_t)n * 8, sizeof *text);
  const char **cell = nm__alloc((size_t)n * 8, sizeof *cell);
  for (int l = 0; text && cell && l < n; l++) {
    const nm_depth_layer *k = &c->layer[l];
    const double v[] = {k->acc.mean,
                        k->acc.lo,
                        k->acc.hi,
                        k->f1.mean,
                        k->auc.mean,
                        k->shuffled.mean,
                        c->random ? c->random[l].acc.mean : 0};
    layer_name(k->layer, text[l * 8]);
    for (int i = 0; i < 7; i++) snprintf(text[l * 8 + 1 + i], 16, "%.3f", v[i]);
    for (int i = 0; i < 8; i++) cell[l * 8 + i] = i == 7 && !c->random ? "-" : text[l * 8 + i];
  }
  if (text && cell) nm__page_table(p, heads, 8, cell, n);
  free(text);
  free(cell);
}

static void page_confusion(struct nm__page *p, const nm_depth_curve *c) {
  int K = c->n_labels, w = K + 1;
  char (*text)[24] = nm__alloc((size_t)(K * w), sizeof *text);
  const char **cell = nm__alloc((size_t)(K * w), sizeof *cell), *heads[NM_DEPTH_LABELS + 1];
  heads[0] = "label, and what was said";
  for (int k = 0; k < K && text && cell; k++) {
    heads[k + 1] = c->label_name[k];
    cell[k * w] = c->label_name[k];
    for (int j = 0; j < K; j++) {
      snprintf(text[k * w + j], sizeof *text, "%llu", (unsigned long long)c->confusion[k * K + j]);
      cell[k * w + 1 + j] = text[k * w + j];
    }
  }
  nm__page_para(p, "What the probe of the peak said, over the test rows of all splits:");
  if (text && cell) nm__page_table(p, heads, w, cell, K);
  free(text);
  free(cell);
}

static int page(const nm_depth_result *r, const nm_model *m, const nm_depth_opts *o,
                const char *figure, const char *path, nm_err *err) {
  nm_model_info i;
  char line[1000];
  nm_model_describe(m, &i);
  struct nm__page *p = nm__page_new("Concept depth");
  snprintf(line, sizeof line,
           "Model %.200s (%s, %d layers, width %d; %s). A %s is fitted on the activation "
           "of the "
           "last token at %s of every block. A curve means something only above its controls: "
           "shuffled labels, bag of "
           "words, the embedding, and the same architecture with random weights.",
           i.path, i.arch, i.L, i.D, i.types, o->forest ? "random forest" : "linear probe",
           o->site);
  nm__page_para(p, line);
  nm__page_svg(p, figure);
  for (int k = 0; k < r->n_curves; k++) {
    struct nm__buf b;
    nm__buf_init(&b, 1 << 24);
    curve_text(&b, &r->curve[k]);
    nm__page_heading(p, r->curve[k].name);
    /* What stands in the terminal after the table: the readings and verdicts. */
    char *tail = b.s ? strstr(b.s, "\n  peak ") : NULL;
    nm__page_para(p, r->curve[k].how);
    snprintf(line, sizeof line, "Prompt '%s': %.400s", r->curve[k].prompt_name, r->curve[k].prompt);
    nm__page_para(p, line);
    nm__page_para(p, r->curve[k].split);
    if (tail) nm__page_code(p, tail + 1);
    page_table(p, &r->curve[k]);
    if (r->curve[k].n_labels > 2) page_confusion(p, &r->curve[k]);
    nm__buf_done(&b);
  }
  nm__page_heading(p, "The exact command");
  nm__page_code(p, o->command ? o->command : "");
  int st = nm__page_write(p, path, err);
  nm__page_free(p);
  return st;
}

static int write_in(const char *dir, const char *name, const char *s, size_t n, nm_err *err) {
  char *path = nm__path_join(dir, name);
  int st = path && s ? nm__write_file(path, s, n, err) : nm__fail_memory(err, name, n);
  free(path);
  return st;
}

int nm__depth_write(const nm_depth_result *r, const nm_model *m, const nm_depth_opts *o,
                    nm_err *err) {
  struct nm__buf b, figure;
  nm__buf_init(&b, (size_t)1 << 28);
  nm__buf_init(&figure, (size_t)1 << 28);
  csv(&b, r);
  char *json = nm_depth_json(r), *html = nm__path_join(r->dir, "report.html");
  svg(&figure, r, nm__path_base(m->path));
  int st = write_in(r->dir, "depth.csv", b.s, b.len, err);
  if (!st) st = write_in(r->dir, "depth.json", json, json ? strlen(json) : 0, err);
  if (!st) st = write_in(r->dir, "depth.svg", figure.s, figure.len, err);
  if (!st) st = html ? page(r, m, o, figure.s, html, err) : nm__fail_memory(err, "a file name", 0);
  free(html);
  free(json);
  nm__buf_done(&b);
  nm__buf_done(&figure);
  return st;
}
