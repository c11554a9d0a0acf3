/* sweep_show.c - strengths of an edit for people: table, JSON, two figures, the page. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "study/vector.h"

static void grid_of(const nm_sweep_result *r, struct nm__buf *b) {
  static const char *const heads[] = {"strength", "ln odds", "random: mean", "lowest", "highest",
                                      "beyond", "perplexity", "95 %", "random", "positions edited"};
  struct nm__grid *g = nm__grid_new(heads, 10);
  for (int i = 0; g && i < r->n; i++) {
    const nm_sweep_row *x = &r->row[i];
    nm__grid_cell(g, "%g", x->strength);
    nm__grid_cell(g, "%+.3f", x->effect);
    nm__grid_cell(g, "%+.3f", x->random_effect);
    nm__grid_cell(g, "%+.3f", x->random_low);
    nm__grid_cell(g, "%+.3f", x->random_high);
    nm__grid_cell(g, "%s", x->beyond ? "yes" : "no");
    if (r->ppl > 0) nm__grid_cell(g, "%.5g", x->ppl.mean);
    else nm__grid_cell(g, "-");
    if (r->ppl > 0) nm__grid_cell(g, "%.4g to %.4g", x->ppl.lo, x->ppl.hi);
    else nm__grid_cell(g, "-");
    if (r->ppl > 0) nm__grid_cell(g, "%.5g", x->random_ppl);
    else nm__grid_cell(g, "-");
    nm__grid_cell(g, "%llu", (unsigned long long)x->touched);
  }
  if (g) nm__grid_print(g, b);
  nm__grid_free(g);
  nm__buf_printf(b, "\nwithout: ln odds %+.3f", r->effect);
  if (r->ppl > 0) nm__buf_printf(b, ", perplexity %.5g", r->ppl);
  nm__buf_printf(b, "; %d random directions of the same length\n%s\n", r->n_random, r->summary);
}

char *nm_sweep_text(const nm_sweep_result *r) {
  struct nm__buf b;
  nm__buf_init(&b, 1 << 24);
  grid_of(r, &b);
  if (!b.failed) return b.s;
  nm__buf_done(&b);
  return NULL;
}

char *nm_sweep_json(const nm_sweep_result *r) {
  json_t *a = json_array();
  for (int i = 0; i < r->n; i++) {
    const nm_sweep_row *x = &r->row[i];
    json_array_append_new(
        a, json_pack("{s:f, s:f, s:[f,f,f], s:b, s:o, s:o, s:I}", "strength", x->strength,
                     "ln_odds", x->effect, "random_ln_odds", x->random_effect, x->random_low,
                     x->random_high, "beyond", x->beyond, "perplexity",
                     r->ppl > 0 ? json_pack("[f,f,f]", x->ppl.mean, x->ppl.lo, x->ppl.hi)
                                : json_null(),
                     "random_perplexity", r->ppl > 0 ? json_real(x->random_ppl) : json_null(),
                     "touched", (json_int_t)x->touched));
  }
  json_t *o = json_pack("{s:s, s:o, s:f, s:o, s:i, s:o}", "noema", NM_VERSION, "summary",
                        nm__json_text(r->summary), "ln_odds", r->effect, "perplexity",
                        r->ppl > 0 ? json_real(r->ppl) : json_null(), "n_random", r->n_random,
                        "strengths", a);
  char *s = o ? json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
  json_decref(o);
  return s;
}

/* ---- figures and page --------------------------------------------------------------- */

/* kind 0: the effect by strength, with the random ones' range; 1: the damage. */
static void figure(const nm_sweep_result *r, const nm_model *m, int kind, struct nm__buf *b) {
  int n = r->n;
  double *v = nm__alloc(7 * (size_t)n, sizeof *v);
  char title[200];
  b->failed |= !v;
  if (!v) return;
  for (int i = 0; i < n; i++) {
    const nm_sweep_row *x = &r->row[i];
    const double y[] = {x->strength, kind ? x->ppl.mean : x->effect, x->ppl.lo, x->ppl.hi,
                        kind ? x->random_ppl : x->random_effect, x->random_low, x->random_high};
    for (int k = 0; k < 7; k++) v[k * n + i] = y[k];
  }
  struct nm__series s[2] = {{.name = "the vector",
                             .x = v,
                             .y = v + n,
                             .lo = kind ? v + 2 * n : NULL,
                             .hi = kind ? v + 3 * n : NULL,
                             .n = n,
                             .colour = kind},
                            {.name = "random directions",
                             .x = v,
                             .y = v + 4 * n,
                             .lo = kind ? NULL : v + 5 * n,
                             .hi = kind ? NULL : v + 6 * n,
                             .n = n,
                             .colour = 9,
                             .style = NM__LINE_DASHED,
                             .faint = true}};
  struct nm__hline base = {kind ? r->ppl : r->effect, "without", NM__LINE_DOTTED, kind};
  snprintf(title, sizeof title, kind ? "What does steering cost? %.100s"
                                     : "What does steering do? %.100s", nm__path_base(m->path));
  nm__chart_svg(
      &(struct nm__chart){.title = title,
                          .subtitle = kind ? "perplexity of the texts; band: 95 % over texts"
                                           : "mean ln odds of the target; grey band: lowest "
                                             "to highest of the random directions",
                          .x_label = "strength",
                          .y_label = kind ? "perplexity" : "ln odds",
                          .series = s,
                          .n_series = 2,
                          .hlines = &base,
                          .n_hlines = 1},
      b);
  free(v);
}

static int page(const nm_sweep_result *r, const nm_model *m, const nm_sweep_opts *o,
                const struct nm__record *rec, const char *svg, const char *cost, nm_err *err) {
  char line[600];
  struct nm__buf b;
  struct nm__page *p = nm__page_new("Strength of steering");
  nm__buf_init(&b, 1 << 24);
  snprintf(
      line, sizeof line,
      "Model %.300s (%s, %d layers). The effect is the mean ln odds of the target "
      "at the last position of %zu prompts, the damage the perplexity of %zu other texts, all of "
      "whose positions are edited.",
      m->path, m->arch->name, m->L, o->n_prompts, o->n_texts);
  nm__page_para(p, line);
  nm__page_para(p, r->summary);
  nm__page_svg(p, svg);
  if (o->n_texts) nm__page_svg(p, cost);
  grid_of(r, &b);
  nm__page_heading(p, "By strength");
  nm__page_code(p, b.s);
  int st = nm__page_finish(p, rec->dir, o->command, err);
  nm__buf_done(&b);
  return st;
}

int nm__sweep_write(const nm_sweep_result *r, const nm_model *m, const nm_sweep_opts *o,
                    const struct nm__record *rec, nm_err *err) {
  struct nm__buf svg, cost, json;
  nm__buf_init(&svg, 1 << 24);
  nm__buf_init(&cost, 1 << 24);
  nm__buf_init(&json, 1 << 24);
  figure(r, m, 0, &svg);
  if (o->n_texts) figure(r, m, 1, &cost);
  char *s = nm_sweep_json(r);
  nm__buf_puts(&json, s ? s : "");
  json.failed |= !s;
  int st = nm__record_put(rec, "effect.svg", &svg, err);
  if (!st && o->n_texts) st = nm__record_put(rec, "damage.svg", &cost, err);
  if (!st) st = page(r, m, o, rec, svg.s, cost.s, err);
  if (!st) st = nm__record_put(rec, "sweep.json", &json, err);
  free(s);
  nm__buf_done(&svg);
  nm__buf_done(&cost);
  nm__buf_done(&json);
  return st;
}
