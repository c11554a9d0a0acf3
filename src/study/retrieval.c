/* retrieval.c - the study retrieval-heads in miniature: what is trained, what is claimed of it, and
 * what a reader is shown. The claims are the spec's; docs/studies/retrieval-heads.md tells which
 * recipes were tried before this one. */
#include "study/retrieval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Short haystacks with few different values come first: who cannot look up a key learns nothing
 * from long ones. Many questions a haystack are many lessons for one reading. */
const struct nm__mini_level nm__retrieval_levels[NM__RETRIEVAL_LEVELS] = {
    {"short", "one value behind a key, up to four needles in 24 words", "needle",
     {"context=24", "needles=4", "queries=16", "span=1", "values=16"},
     {"context=24", "needles=4", "span=1", "values=16"}, 0.45},
    {"facts", "a city lies in a country", "facts", {NULL}, {NULL}, 0.1},
    {"long", "four of 64 values behind a key, up to three needles in 96 words", "needle",
     {"context=96", "needles=3", "queries=8", "span=4"}, {"context=96", "needles=3", "span=4"},
     0.45}};

static const struct nm__retrieval_plan full = {
    {{4, 128, 8, 256, 10000, 0.05, 8, 2, true}, 4400, 480, 1.5e-3, 50, 0.3, 0.01, 1, NM__LONG,
     NM__SHORT, 0.8, 0.8}, 200};
static const struct nm__retrieval_plan quick = {
    {{3, 32, 4, 64, 10000, 0.1, 8, 2, true}, 40, 480, 3e-3, 10, 0.3, 0.01, 1, NM__LONG, NM__SHORT,
     0.8, 0.8}, 20};

/* ---- figures of a seed ------------------------------------------------------------- */

struct view { struct nm__study_run *r; const struct nm__retrieval_seed *s; int n, heads; };
typedef double figure(const struct nm__retrieval_seed *s, int heads);

static double f_copied(const struct nm__retrieval_seed *s, int n) { return (void)n, s->copied; }
static double f_facts(const struct nm__retrieval_seed *s, int n) { return (void)n, s->facts; }
static double f_copying(const struct nm__retrieval_seed *s, int n) { return (void)n, s->n_copying; }
static double most_of(const double *v, int n) {
  double most = 0;
  for (int i = 0; i < n; i++) most = fmax(most, v[i]);
  return most;
}
static double f_top(const struct nm__retrieval_seed *s, int n) { return most_of(s->mean, n); }
static double f_freq(const struct nm__retrieval_seed *s, int n) { return most_of(s->freq, n); }
static int up(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}
static double f_median(const struct nm__retrieval_seed *s, int n) {
  double v[NM__RETRIEVAL_HEADS];
  memcpy(v, s->mean, (size_t)n * sizeof *v);
  qsort(v, (size_t)n, sizeof *v, up);
  return (v[(n - 1) / 2] + v[n / 2]) / 2;
}
static double f_masked(const struct nm__retrieval_seed *s, int n) {
  return (void)n, s->masked_copied;
}
static double f_masked_facts(const struct nm__retrieval_seed *s, int n) {
  return (void)n, s->masked_facts;
}
static double f_drawn(const struct nm__retrieval_seed *s, int n) {
  double sum = 0;
  for (int i = 0; i < NM__RETRIEVAL_DRAWS; i++) sum += s->drawn_copied[i];
  return (void)n, sum / NM__RETRIEVAL_DRAWS;
}
static double f_drawn_worst(const struct nm__retrieval_seed *s, int n) {
  double least = 1;
  for (int i = 0; i < NM__RETRIEVAL_DRAWS; i++) least = fmin(least, s->drawn_copied[i]);
  return (void)n, least;
}
static double f_shared(const struct nm__retrieval_seed *s, int n) {
  return (void)n, s->drawn_shared;
}
static double f_wrong(const struct nm__retrieval_seed *s, int n) { return (void)n, s->wrong_span; }
static double f_first(const struct nm__retrieval_seed *s, int n) { return (void)n, s->untrained; }
static double f_first_kept(const struct nm__retrieval_seed *s, int n) {
  return (void)n, s->untrained_kept;
}
static double f_previous(const struct nm__retrieval_seed *s, int n) {
  return (void)n, s->two_previous - s->two_scores;
}
static double f_norm(const struct nm__retrieval_seed *s, int n) {
  return (void)n, s->two_norm - s->two_scores;
}

/* ---- claims ------------------------------------------------------------------------ */

/* What is found in a model that did not learn the task says nothing. */
static bool learned(const struct view *v) {
  for (int i = 0; i < v->n; i++)
    if (v->s[i].copied < 0.95 || v->s[i].facts < 0.98) return false;
  return true;
}

static void claims(const struct view *v) {
  static const struct row {
    struct nm__claim c;
    figure *f;
    bool always;                     /* also of models that did not learn */
  } rows[] = {
      {{"copied", "tokens of needles right", NM__CONDITION, 0.95, HUGE_VAL}, f_copied, true},
      {{"facts", "facts right", NM__CONDITION, 0.98, HUGE_VAL}, f_facts, true},
      {{"sparse", "heads with a score of 0.1 and more", NM__EFFECT, 1, 8}, f_copying, false},
      {{"top head", "its score", NM__EFFECT, 0.5, HUGE_VAL}, f_top, false},
      {{"median head", "its score", NM__EFFECT, -HUGE_VAL, 0.02}, f_median, false},
      {{"steady", "trials in which the steadiest head has 0.1", NM__EFFECT, 0.9, HUGE_VAL},
       f_freq, false},
      {{"masked", "tokens right without the heads that copy", NM__EFFECT, -HUGE_VAL, 0.25},
       f_masked, false},
      {{"knowledge", "facts right without them", NM__CONTROL, 0.9, HUGE_VAL}, f_masked_facts,
       false},
      {{"drawn heads", "tokens right without as many others, mean of 5 draws", NM__CONTROL, 0.9,
        HUGE_VAL}, f_drawn, false},
      {{"worst draw", "the same, worst draw", NM__CONTROL, 0.8, HUGE_VAL}, f_drawn_worst, false},
      {{"apart", "drawn heads that copy", NM__CONTROL, 0, 0}, f_shared, true},
      {{"wrong span", "highest score on another key's values", NM__CONTROL, -HUGE_VAL, 0.05},
       f_wrong, false},
      {{"untrained", "highest score before training", NM__CONTROL, -HUGE_VAL, 0.05}, f_first,
       true},
      {{"no answers", "trials that count before training", NM__CONTROL, -HUGE_VAL, 0.05},
       f_first_kept, true},
      {{"previous token", "tokens more that 2 heads so ranked leave right", NM__CONTROL, 0.001,
        HUGE_VAL}, f_previous, false},
      {{"output norm", "the same, heads ranked by their output's length", NM__CONTROL, 0.001,
        HUGE_VAL}, f_norm, false}};
  double x[NM__STUDY_SEEDS];
  bool good = learned(v);
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    for (int i = 0; i < v->n; i++) x[i] = rows[k].f(&v->s[i], v->heads);
    nm__study_claim(v->r, &rows[k].c, x, good || rows[k].always ? v->n : 0);
  }
}

/* ---- what is shown ----------------------------------------------------------------- */

static void show_training(const struct view *v) {
  char line[320];
  for (int i = 0; i < v->n; i++) {
    const struct nm__retrieval_seed *s = &v->s[i];
    snprintf(line, sizeof line, "seed %llu: %.2f M tokens in %.0f s, loss %.3f, long haystacks "
             "from step %.0f; %.3f of needle tokens right, %.3f of facts; %.0f heads copy; two "
             "masked by score leave %.3f, by previous token %.3f, by output %.3f",
             (unsigned long long)v->r->seeds[i], s->tokens / 1e6, s->seconds, s->loss,
             s->late_from, s->copied, s->facts, s->n_copying, s->two_scores, s->two_previous,
             s->two_norm);
    nm__study_para(v->r, line);
  }
}

/* Scores from the best head down, a curve a seed. */
static int show_figure(const struct view *v, nm_err *err) {
  static double x[NM__RETRIEVAL_HEADS];
  double (*y)[NM__RETRIEVAL_HEADS] = nm__alloc((size_t)v->n, sizeof *y);
  struct nm__series *s = nm__alloc((size_t)v->n, sizeof *s);
  char (*name)[32] = nm__alloc((size_t)v->n, sizeof *name);
  int st = y && s && name ? NM_OK : nm__fail_memory(err, "a figure", 0);
  for (int i = 0; i < v->n && !st; i++) {
    memcpy(y[i], v->s[i].mean, (size_t)v->heads * sizeof **y);
    qsort(y[i], (size_t)v->heads, sizeof **y, up);
    for (int k = 0; k < v->heads / 2; k++) {
      double t = y[i][k];
      y[i][k] = y[i][v->heads - 1 - k];
      y[i][v->heads - 1 - k] = t;
    }
    snprintf(name[i], sizeof *name, "seed %llu", (unsigned long long)v->r->seeds[i]);
    s[i] = (struct nm__series){.name = name[i], .x = x, .y = y[i], .n = v->heads, .colour = i};
  }
  for (int k = 0; k < v->heads; k++) x[k] = k + 1;
  struct nm__hline line = {NM__HEADS_COPIES, "copies from here", NM__LINE_DASHED, 9};
  struct nm__chart c = {.title = "How many heads copy",
                        .subtitle = "retrieval score, best head first",
                        .x_label = "rank of the head", .y_label = "share of the needle it copied",
                        .y_lo = 0, .y_hi = 1.02, .series = s, .n_series = v->n, .hlines = &line,
                        .n_hlines = 1};
  if (!st) st = nm__study_figure(v->r, "scores", &c, err);
  free(y);
  free(s);
  free(name);
  return st;
}

static void keep_figures(const struct view *v, int H) {
  json_t *all = json_array();
  for (int i = 0; i < v->n; i++) {
    json_t *heads = json_object();
    for (int h = 0; h < v->heads; h++) {
      char name[24];
      snprintf(name, sizeof name, "%d-%d", h / H, h % H);
      if (v->s[i].mean[h] > 0) json_object_set_new(heads, name, json_real(v->s[i].mean[h]));
    }
    json_array_append_new(all, heads);
  }
  json_object_set_new(v->r->figures, "scores", all);
}

static int run(struct nm__study_run *r, nm_err *err) {
  const struct nm__retrieval_plan *plan = r->o->quick ? &quick : &full;
  struct nm__retrieval_seed *s = nm__alloc((size_t)r->n_seeds, sizeof *s);
  struct view v = {r, s, r->n_seeds, plan->recipe.shape.L * plan->recipe.shape.H};
  int st = s ? NM_OK : nm__fail_memory(err, "the seeds", (size_t)r->n_seeds * sizeof *s);
  for (int i = 0; i < r->n_seeds && !st; i++)
    st = nm__retrieval_seed_run(r, plan, r->seeds[i], &s[i], err);
  if (!st) {
    show_training(&v);
    st = show_figure(&v, err);
  }
  if (!st) {
    claims(&v);
    keep_figures(&v, plan->recipe.shape.H);
  }
  free(s);
  return st;
}

static const nm_study_fault faults[] = {
    {"failed-answers", "trials count whatever was answered"},
    {"drawn-from-best", "the drawn heads come out of the best ones too"},
    {"shifted-heads", "heads are masked one block behind where they are"},
    {"wrong-needle", "scores are taken on another key's values"},
    {0}};

const struct nm__study nm__study_retrieval_heads = {
    {"retrieval-heads",
     "Few attention heads copy out of the context; without them that ability goes, and knowledge "
     "stays.",
     "Wu et al., Retrieval Head Mechanistically Explains Long-Context Factuality (arXiv "
     "2404.15574); docs/studies/retrieval-heads.md",
     faults},
    run};
