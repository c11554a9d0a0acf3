/* heads_show.c - files of head scores side by side: the published statistics, the best heads, how
 * alike two models are. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "look/heads.h"
#include "report/report.h"

enum { BEST = 20, SHARED = 20 };

struct file { const char *name; struct nm__head_scores s; struct nm__heads_sum sum; };

/* ---- terminal ---------------------------------------------------------------------- */

static void sums_text(const struct file *f, int n, struct nm__grid *g) {
  for (int i = 0; i < n; i++) {
    const struct nm__heads_sum *q = &f[i].sum;
    double of = 100.0 / (double)q->heads;
    nm__grid_cell(g, "%s", f[i].name);
    nm__grid_cell(g, "%zu", q->heads);
    nm__grid_cell(g, "%zu", f[i].s.trials);
    nm__grid_cell(g, "%zu", q->copying);
    nm__grid_cell(g, "%.1f %%", of * (double)q->copying);
    nm__grid_cell(g, "%zu", q->half);
    nm__grid_cell(g, "%.0f %%", of * (double)q->never);
    nm__grid_cell(g, "%zu", q->mostly);
    nm__grid_cell(g, "%zu", q->always);
  }
}

static size_t shown(const struct file *f) { return f->sum.heads < BEST ? f->sum.heads : BEST; }

static bool best_text(const struct file *f, struct nm__buf *b) {
  static const char *const heads[] = {"head", "mean", "trials with >= 0.1", "highest", "kind"};
  uint32_t *rank = nm__head_ranking(&f->s);
  struct nm__grid *g = nm__grid_new(heads, 5);
  for (size_t i = 0; rank && g && i < shown(f); i++) {
    const struct nm__head *q = &f->s.v[rank[i]];
    if (q->mean < NM__HEADS_COPIES && i >= 3) break;
    nm__grid_cell(g, "%u-%u", rank[i] / (uint32_t)f->s.H, rank[i] % (uint32_t)f->s.H);
    nm__grid_cell(g, "%.3f", q->mean);
    nm__grid_cell(g, "%.1f %%", 100 * q->freq);
    nm__grid_cell(g, "%.3f", q->max);
    nm__grid_cell(g, "%s", q->mean < NM__HEADS_COPIES ? "below 0.1"
                           : q->freq >= 0.9 ? "strong" : "weak");
  }
  bool good = rank && g;
  nm__buf_printf(b, "\n%s: the best heads (layer-head)\n", f->name);
  if (good) nm__grid_print(g, b);
  nm__grid_free(g);
  free(rank);
  return good;
}

static void alike_text(const struct file *f, int n, struct nm__buf *b) {
  for (int i = 0; i < n; i++)
    for (int k = i + 1; k < n; k++) {
      double r = nm__heads_pearson(&f[i].s, &f[k].s);
      nm__buf_printf(b, "%s%s and %s: ", i + k == 1 ? "\n" : "", f[i].name, f[k].name);
      if (isnan(r)) nm__buf_puts(b, "not of one shape, or all heads alike: no correlation\n");
      else
        nm__buf_printf(b, "correlation of mean scores %.3f, %zu of the best %d the same\n", r,
                       nm__heads_shared(&f[i].s, &f[k].s, shown(&f[i])), (int)shown(&f[i]));
    }
}

static bool text_of(const struct file *f, int n, struct nm__buf *b) {
  static const char *const heads[] = {"scores", "heads", "trials", ">= 0.1", "share", ">= 0.5",
                                      "never", ">= 0.1 in 90 %", "in every trial"};
  struct nm__grid *g = nm__grid_new(heads, 9);
  bool good = g;
  if (g) sums_text(f, n, g), nm__grid_print(g, b);
  nm__grid_free(g);
  for (int i = 0; i < n && good; i++) good = best_text(&f[i], b);
  alike_text(f, n, b);
  return good;
}

/* ---- JSON -------------------------------------------------------------------------- */

static json_t *file_json(const struct file *f) {
  uint32_t *rank = nm__head_ranking(&f->s);
  json_t *best = json_array();
  for (size_t i = 0; rank && i < shown(f); i++) {
    const struct nm__head *q = &f->s.v[rank[i]];
    json_array_append_new(
        best, json_pack("{s:i, s:i, s:f, s:f, s:f}", "layer", (int)(rank[i] / (uint32_t)f->s.H),
                        "head", (int)(rank[i] % (uint32_t)f->s.H), "mean", q->mean, "frequency",
                        q->freq, "max", q->max));
  }
  free(rank);
  return json_pack("{s:o, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:o}", "scores",
                   nm__json_text(f->name), "layers", f->s.L, "heads_a_layer", f->s.H, "trials",
                   (int)f->s.trials, "copying", (json_int_t)f->sum.copying, "half",
                   (json_int_t)f->sum.half, "never", (json_int_t)f->sum.never, "mostly",
                   (json_int_t)f->sum.mostly, "always", (json_int_t)f->sum.always, "best", best);
}

static json_t *alike_json(const struct file *f, int n) {
  json_t *pairs = json_array();
  for (int i = 0; i < n; i++)
    for (int k = i + 1; k < n; k++) {
      double r = nm__heads_pearson(&f[i].s, &f[k].s);
      json_array_append_new(
          pairs, json_pack("{s:i, s:i, s:o, s:I}", "a", i, "b", k, "pearson",
                           isnan(r) ? json_null() : json_real(r), "shared_best",
                           (json_int_t)(isnan(r) ? 0 : nm__heads_shared(&f[i].s, &f[k].s,
                                                                        shown(&f[i])))));
    }
  return pairs;
}

static bool json_of(const struct file *f, int n, struct nm__buf *b) {
  json_t *files = json_array();
  for (int i = 0; i < n; i++) json_array_append_new(files, file_json(&f[i]));
  json_t *j = json_pack("{s:o, s:o}", "files", files, "pairs", alike_json(f, n));
  char *s = j ? json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(10)) : NULL;
  if (s) nm__buf_puts(b, s);
  json_decref(j);
  free(s);
  return s;
}

int nm_heads_show(const char *const *path, int n, bool json, char **out, nm_err *err) {
  struct file *f = nm__alloc((size_t)n, sizeof *f);
  struct nm__buf b;
  int st = f ? NM_OK : nm__fail_memory(err, "files of scores", 0);
  nm__buf_init(&b, (size_t)1 << 26);
  for (int i = 0; i < n && !st; i++) {
    f[i].name = nm__path_base(path[i]);
    st = nm__head_scores_read(path[i], &f[i].s, err);
    if (!st) f[i].sum = nm__heads_sum(&f[i].s);
  }
  if (!st) {
    bool good = json ? json_of(f, n, &b) : text_of(f, n, &b);
    *out = good && !b.failed ? nm__strdup(b.s) : NULL;
    if (!*out) st = nm__fail_memory(err, "statistics of heads", b.len);
  }
  for (int i = 0; f && i < n; i++) nm__head_scores_done(&f[i].s);
  free(f);
  nm__buf_done(&b);
  return st;
}
