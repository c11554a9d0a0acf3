/* vector_show.c - steering vectors for people: the terminal's table, JSON, the figure, the page. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "study/vector.h"

static void grid_of(const nm_vector_result *r, struct nm__buf *b) {
  static const char *const heads[] = {"block", "AUC", "95 %", "accuracy", "95 %", "shuffled",
                                      "random", "its 95 %", "length", "stream"};
  struct nm__grid *g = nm__grid_new(heads, 10);
  for (int i = 0; g && i < r->n_layers; i++) {
    const nm_vector_layer *l = &r->layer[i];
    nm__grid_cell(g, "%d", l->layer);
    nm__grid_cell(g, "%.3f", l->auc.mean);
    nm__grid_cell(g, "%.3f to %.3f", l->auc.lo, l->auc.hi);
    nm__grid_cell(g, "%.3f", l->acc.mean);
    nm__grid_cell(g, "%.3f to %.3f", l->acc.lo, l->acc.hi);
    nm__grid_cell(g, "%.3f", l->shuffled.mean);
    nm__grid_cell(g, "%.3f", l->random);
    nm__grid_cell(g, "%.3f", l->random_high);
    nm__grid_cell(g, "%.4g", l->length);
    nm__grid_cell(g, "%.4g", l->stream);
  }
  if (g) nm__grid_print(g, b);
  nm__grid_free(g);
}

static void verdict(const nm_vector_result *r, struct nm__buf *b) {
  nm__buf_printf(
      b, "\n  %-22s block %d\n  %-22s largest over blocks %.3f on average\n  %-22s %s\n",
      "separates best", r->layer[r->best].layer, "shuffled classes", r->shuffled_max, "so",
      r->above_controls ? "the vector separates texts it was not fitted on, above all its controls"
                        : "nothing was shown: the best block does not stand above its controls");
}

char *nm_vector_text(const nm_vector_result *r) {
  struct nm__buf b;
  nm__buf_init(&b, 1 << 24);
  grid_of(r, &b);
  verdict(r, &b);
  if (!b.failed) return b.s;
  nm__buf_done(&b);
  return NULL;
}

static json_t *interval(nm_interval v) { return json_pack("[f,f,f]", v.mean, v.lo, v.hi); }

char *nm_vector_json(const nm_vector_result *r) {
  json_t *a = json_array();
  for (int i = 0; i < r->n_layers; i++) {
    const nm_vector_layer *l = &r->layer[i];
    json_array_append_new(a, json_pack("{s:i, s:o, s:o, s:o, s:f, s:f, s:f, s:f}", "layer",
                                       l->layer, "auc", interval(l->auc), "accuracy",
                                       interval(l->acc), "shuffled_auc", interval(l->shuffled),
                                       "random_auc", l->random, "random_auc_95", l->random_high,
                                       "length", l->length, "stream", l->stream));
  }
  json_t *o = json_pack("{s:s, s:o, s:o, s:i, s:f, s:b, s:o}", "noema", NM_VERSION, "run",
                        nm__json_text(r->dir), "summary", nm__json_text(r->summary), "best",
                        r->layer[r->best].layer, "shuffled_max", r->shuffled_max, "above_controls",
                        r->above_controls, "layers", a);
  char *s = o ? json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
  json_decref(o);
  return s;
}

/* ---- figure and page -------------------------------------------------------------- */

static void figure(const nm_vector_result *r, const nm_model *m, const nm_vector_opts *o,
                   struct nm__buf *b) {
  int n = r->n_layers;
  double *v = nm__alloc(6 * (size_t)n, sizeof *v);
  char title[200], sub[200];
  b->failed |= !v;
  if (!v) return;
  for (int i = 0; i < n; i++) {
    const nm_vector_layer *l = &r->layer[i];
    const double y[] = {l->layer,  l->auc.mean,      l->auc.lo,
                        l->auc.hi, l->shuffled.mean, l->random_high};
    for (int k = 0; k < 6; k++) v[k * n + i] = y[k];
  }
  struct nm__series s[3] = {
      {.name = "the vector", .x = v, .y = v + n, .lo = v + 2 * n, .hi = v + 3 * n, .n = n},
      {.name = "shuffled classes", .x = v, .y = v + 4 * n, .n = n, .style = NM__LINE_DOTTED,
       .faint = true},
      {.name = "random directions (95 %)", .x = v, .y = v + 5 * n, .n = n, .colour = 9,
       .style = NM__LINE_DASHED, .faint = true}};
  struct nm__vmark best = {r->layer[r->best].layer, "best", 0};
  snprintf(title, sizeof title, "Where does a direction separate the texts? %.100s",
           nm__path_base(m->path));
  snprintf(sub, sizeof sub, "%s at %.60s; AUC on held-out texts, bands: 95 %% over repeated splits",
           o->method, o->site);
  nm__chart_svg(&(struct nm__chart){.title = title, .subtitle = sub, .x_label = "block",
                                    .y_label = "AUC on held-out texts", .y_lo = 0.3, .y_hi = 1.02,
                                    .series = s, .n_series = 3, .vmarks = &best,
                                    .n_vmarks = r->above_controls}, b);
  free(v);
}

static int page(const nm_vector_result *r, const nm_model *m, const nm_contrast *c,
                const nm_vector_opts *o, const struct nm__record *rec, const char *svg,
                nm_err *err) {
  char line[1400];
  struct nm__buf b;
  struct nm__page *p = nm__page_new("Steering vector");
  nm__buf_init(&b, 1 << 24);
  snprintf(line, sizeof line,
           "Model %.300s (%s, %d layers, width %d). %.600s; method %s at %.60s, "
           "positions %.60s.",
           m->path, m->arch->name, m->L, m->D, c->how, o->method, o->site, o->at);
  nm__page_para(p, line);
  nm__page_para(p, r->summary);
  nm__page_svg(p, svg);
  grid_of(r, &b);
  verdict(r, &b);
  nm__page_heading(p, "By block");
  nm__page_code(p, b.s);
  nm__page_heading(p, "Files");
  nm__page_para(p,
                "vector.npy: a row a block. vector.gguf: the same as a control vector (only at "
                "resid_post; blocks from 1 on). best.npy and edit.json: the best block, ready for "
                "--edit.");
  int st = nm__page_finish(p, rec->dir, o->command, err);
  nm__buf_done(&b);
  return st;
}

int nm__vector_write(const nm_vector_result *r, const nm_model *m, const nm_contrast *c,
                     const nm_vector_opts *o, const struct nm__record *rec, nm_err *err) {
  struct nm__buf svg, json;
  nm__buf_init(&svg, 1 << 24);
  nm__buf_init(&json, 1 << 24);
  figure(r, m, o, &svg);
  char *s = nm_vector_json(r);
  nm__buf_puts(&json, s ? s : "");
  json.failed |= !s;
  int st = nm__record_put(rec, "separation.svg", &svg, err);
  if (!st) st = page(r, m, c, o, rec, svg.s, err);
  if (!st) st = nm__record_put(rec, "vector.json", &json, err);        /* last: the run is whole */
  free(s);
  nm__buf_done(&svg);
  nm__buf_done(&json);
  return st;
}
