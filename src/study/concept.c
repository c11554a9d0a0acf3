/* concept.c - the study concept-depth in miniature: what is trained, what is claimed of it, and
 * what a reader is shown. The claims and their directions are the spec's; limits were set on seeds
 * 101 to 103 (docs/studies/concept-depth.md) before seeds 1 to 3 were run. */
#include "study/concept.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct nm__mini_level nm__concept_levels[NM__CONCEPT_LEVELS] = {
    {"L0", "class of the last word", "lexical", {NULL}, {NULL}, 0.075},
    {"L1", "a city lies in a country", "facts", {NULL}, {NULL}, 0.075},
    {"h=1", "one hop on", "chase", {"hops=1", "k_min=3", "k_max=8"}, {"hops=1", "k_min=8"}, 0.425},
    {"h=2", "two hops on", "chase", {"hops=2", "k_min=3", "k_max=8"}, {"hops=2", "k_min=8"}, 0.425},
    {"by heart", "two hops, one cycle for ever", "chase", {"hops=2", "k_max=12", "fixed=1"},
     {"hops=2", "k_max=12", "fixed=1"}, 0.85}};

#define SHAPE {6, 64, 2, 160, 100, 0.15, 4, 1, false}
static const struct nm__concept_plan full = {
    {SHAPE, 2000, 1920, 3e-3, 50, 0.3, 0.01, 1, NM__H2, NM__H1, 0.8, 0.75},
    {SHAPE, 150, 1920, 3e-3, 50, 0.3, 0.01, 1, -1, -1, 0, 0}, 1000, 5};
#define TINY {3, 32, 1, 64, 100, 0.15, 4, 1, false}
static const struct nm__concept_plan quick = {
    {TINY, 60, 960, 3e-3, 20, 0.3, 0.01, 1, NM__H2, NM__H1, 0.8, 0.75},
    {TINY, 40, 960, 3e-3, 20, 0.3, 0.01, 1, -1, -1, 0, 0}, 500, 3};

enum { SOLVED_PERCENT = 95 };

/* ---- what the claims are about -------------------------------------------------------- */

struct view {
  struct nm__study_run *r;
  const struct nm__concept_seed *s;
  int n;
};

static bool solved(const struct view *v, int level) {
  for (int i = 0; i < v->n; i++)
    if (v->s[i].level[level].exact * 100 < SOLVED_PERCENT) return false;
  return true;
}

static double depth(const struct nm__concept_seed *s, int level) {
  return nm__concept_depth(s->level[level].acc[NM__REAL], s->n_rows);
}

static double peak(const struct nm__concept_seed *s, int level, int variant) {
  return nm__concept_peak(s->level[level].acc[variant], s->n_rows);
}

typedef double figure(const struct nm__concept_seed *s, int a, int b);

/* A value a seed; none when one of the levels it needs (a bit each) is not solved. */
static void claim(const struct view *v, const char *name, const char *text,
                  enum nm__claim_kind kind, double low, double high, figure *f, int a, int b,
                  int needs) {
  double x[NM__STUDY_SEEDS];
  bool good = true;
  for (int i = 0; i < NM__CONCEPT_LEVELS; i++)
    if (needs >> i & 1) good &= solved(v, i);
  for (int i = 0; i < v->n; i++) x[i] = f(&v->s[i], a, b);
  nm__study_claim(v->r, &(struct nm__claim){name, text, kind, low, high}, x, good ? v->n : 0);
}

static double f_exact(const struct nm__concept_seed *s, int a, int b) {
  (void)b;
  return s->level[a].exact;
}
static double f_deeper(const struct nm__concept_seed *s, int a, int b) {
  return depth(s, b) - depth(s, a);
}
static double f_most(const struct nm__concept_seed *s, int variant, int b) {
  double most = 0;
  (void)b;
  for (int l = 0; l < NM__HEART; l++)
    for (int i = 0; i < s->n_rows; i++) most = fmax(most, s->level[l].acc[variant][i]);
  return most;
}
static double f_least(const struct nm__concept_seed *s, int variant, int b) {
  double least = 1;
  (void)b;
  for (int l = 0; l < NM__HEART; l++)
    for (int i = 0; i < s->n_rows; i++) least = fmin(least, s->level[l].acc[variant][i]);
  return least;
}
static double f_embedding(const struct nm__concept_seed *s, int a, int b) {
  double most = 0;
  (void)a, (void)b;
  for (int l = 0; l < NM__HEART; l++) most = fmax(most, s->level[l].acc[NM__REAL][0]);
  return most;
}
static double f_peak(const struct nm__concept_seed *s, int level, int variant) {
  return peak(s, level, variant);
}
/* Only levels that every seed solved (bits of `levels`). */
static double f_behaviour(const struct nm__concept_seed *s, int levels, int b) {
  double most = 0;
  (void)b;
  for (int l = 0; l < NM__HEART; l++)
    if (levels >> l & 1)
      most = fmax(most, fabs(s->level[l].by_label - s->level[l].acc[NM__REAL][s->n_rows - 1]));
  return most;
}
static double f_off(const struct nm__concept_seed *s, int levels, int variant) {
  double most = 0;
  for (int l = 0; l < NM__HEART; l++)
    for (int i = 0; levels >> l & 1 && i < s->n_rows; i++)
      most = fmax(most, fabs(s->level[l].acc[NM__REAL][i] - s->level[l].acc[variant][i]));
  return most;
}
static double f_lost(const struct nm__concept_seed *s, int level, int variant) {
  return peak(s, level, NM__REAL) - peak(s, level, variant);
}
static double f_shared(const struct nm__concept_seed *s, int a, int b) {
  double sum = 0;
  (void)a, (void)b;
  for (int l = 0; l < NM__CONCEPT_LEVELS; l++) sum += s->level[l].shared;
  return sum;
}
static double f_strays(const struct nm__concept_seed *s, int a, int b) {
  double sum = 0;
  (void)a, (void)b;
  for (int l = 0; l < NM__CONCEPT_LEVELS; l++) sum += s->level[l].strays;
  return sum;
}
static double f_rows(const struct nm__concept_seed *s, int a, int b) {
  (void)a, (void)b;
  return s->train_rows / s->D;
}
static double f_values(const struct nm__concept_seed *s, int a, int b) {
  (void)a, (void)b;
  return s->most_values;
}

/* ---- the claims -------------------------------------------------------------------------- */

#define BIT(level) (1 << (level))
static const double none = HUGE_VAL;

static void effects(const struct view *v) {
  claim(v, "solved L0", "the model's own answers: class of a word", NM__CONDITION, 0.95, none,
        f_exact, NM__L0, 0, 0);
  claim(v, "solved L1", "the same: a fact", NM__CONDITION, 0.95, none, f_exact, NM__L1, 0, 0);
  claim(v, "solved h=1", "the same: one hop", NM__CONDITION, 0.95, none, f_exact, NM__H1, 0, 0);
  claim(v, "h=2 answered", "the same: two hops (0.95 counts)", NM__NOTE, 0.95, none, f_exact,
        NM__H2, 0, 0);
  claim(v, "L0 before h=1", "blocks by which L0 is readable earlier", NM__EFFECT, 1, none,
        f_deeper, NM__L0, NM__H1, BIT(NM__L0) | BIT(NM__H1));
  claim(v, "L0, then L1", "blocks by which L0 is readable earlier", NM__EFFECT, 0, none, f_deeper,
        NM__L0, NM__L1, BIT(NM__L0) | BIT(NM__L1));
  claim(v, "L1, then h=1", "blocks by which L1 is readable earlier", NM__EFFECT, 0, none, f_deeper,
        NM__L1, NM__H1, BIT(NM__L1) | BIT(NM__H1));
  if (solved(v, NM__H2))
    claim(v, "h=1 before h=2", "blocks by which h=1 is readable earlier", NM__EFFECT, 1, none,
          f_deeper, NM__H1, NM__H2, BIT(NM__H1));
  else
    claim(v, "h=1 before h=2", "no claim: h=2 is not solved", NM__NOTE, 1, none, f_deeper, NM__H1,
          NM__H2, 0);
}

static void controls(const struct view *v) {
  claim(v, "shuffled, low", "lowest accuracy of shuffled labels", NM__CONTROL, 0.42, none, f_least,
        NM__SHUFFLED, 0, 0);
  claim(v, "shuffled, high", "highest accuracy of shuffled labels", NM__CONTROL, -none, 0.58,
        f_most, NM__SHUFFLED, 0, 0);
  claim(v, "blind, low", "lowest accuracy on vectors of zeros", NM__CONTROL, 0.42, none, f_least,
        NM__BLIND, 0, 0);
  claim(v, "blind, high", "highest accuracy on vectors of zeros", NM__CONTROL, -none, 0.58, f_most,
        NM__BLIND, 0, 0);
  claim(v, "embedding", "highest accuracy before the first block", NM__CONTROL, -none, 0.58,
        f_embedding, 0, 0, 0);
  claim(v, "untrained L0", "peak without training", NM__NOTE, 0, 1, f_peak, NM__L0, NM__UNTRAINED,
        0);
  claim(v, "untrained L1", "the same", NM__CONTROL, -none, 0.70, f_peak, NM__L1, NM__UNTRAINED, 0);
  claim(v, "untrained h=1", "the same", NM__CONTROL, -none, 0.65, f_peak, NM__H1, NM__UNTRAINED,
        0);
  claim(v, "untrained h=2", "the same", NM__CONTROL, -none, 0.58, f_peak, NM__H2, NM__UNTRAINED,
        0);
  claim(v, "by heart", "answered by the model that saw one cycle", NM__CONDITION, 0.95, none,
        f_exact, NM__HEART, 0, 0);
  claim(v, "order flips", "blocks by which two hops by heart are earlier than h=1", NM__CONTROL, 1,
        none, f_deeper, NM__HEART, NM__H1, BIT(NM__HEART) | BIT(NM__H1));
}

static void instrument(const struct view *v) {
  int levels = 0;
  for (int l = 0; l < NM__HEART; l++) levels |= solved(v, l) ? BIT(l) : 0;
  int core = BIT(NM__L0) | BIT(NM__L1) | BIT(NM__H1);
  claim(v, "behaviour", "model's answers by class against the last probe, solved levels",
        NM__EFFECT, -none, 0.05, f_behaviour, levels, 0, core);
  claim(v, "8 bits", "largest change of an accuracy, solved levels", NM__CONTROL, -none, 0.02,
        f_off, levels, NM__BITS8, core);
  claim(v, "2 bits", "what the peak of h=1 loses", NM__EFFECT, 0.1, none, f_lost, NM__H1,
        NM__BITS2, BIT(NM__H1));
  claim(v, "rounding", "different values in a row at 2 bits, at most", NM__CONTROL, -none, 3,
        f_values, 0, 0, 0);
  claim(v, "twins", "twins that lie on both sides of a split", NM__CONTROL, 0, 0, f_shared, 0, 0,
        0);
  claim(v, "last token", "items whose embedding is not that of their last token", NM__CONTROL, 0,
        0, f_strays, 0, 0, 0);
  claim(v, "rows", "training rows for every dimension", NM__CONTROL, 4, none, f_rows, 0, 0, 0);
  for (int l = 0; l < NM__HEART; l++) {
    static const char *const name[] = {"new token, L0", "new token, L1", "new token, h=1",
                                       "new token, h=2"};
    claim(v, name[l], "peak behind a token that was never trained", NM__NOTE, 0, 1, f_peak, l,
          NM__PREFIX, 0);
  }
}

/* ---- what is shown ------------------------------------------------------------------------ */

static double over_seeds(const struct view *v, int level, int variant, int row, nm_interval *out) {
  double x[NM__STUDY_SEEDS];
  for (int i = 0; i < v->n; i++) x[i] = v->s[i].level[level].acc[variant][row];
  *out = nm__study_interval(x, v->n);
  return out->mean;
}

static void put_depths(const struct view *v, int level, char out[64]) {
  size_t at = 0;
  for (int i = 0; i < v->n && at < 60; i++)
    at += (size_t)snprintf(out + at, 64 - at, "%s%g", i ? " " : "", depth(&v->s[i], level));
}

/* A row of the table of curves; by heart has only its own curve. */
enum { COLUMNS = NM__CONCEPT_ROWS + 4 };
static int curve_row(const struct view *v, int level, int variant, const char *what,
                     char (*cell)[64]) {
  int n_rows = v->s[0].n_rows, k = 0;
  nm_interval x;
  double exact = 0;
  for (int i = 0; i < v->n; i++) exact += v->s[i].level[level].exact / v->n;
  snprintf(cell[k++], 64, "%s", nm__concept_levels[level].name);
  snprintf(cell[k++], 64, "%s", what);
  if (variant == NM__REAL) snprintf(cell[k++], 64, "%.3f", exact);
  else snprintf(cell[k++], 64, "%s", "");
  for (int i = 0; i < n_rows; i++)
    snprintf(cell[k++], 64, "%.3f", over_seeds(v, level, variant, i, &x));
  if (variant == NM__REAL && (solved(v, level))) put_depths(v, level, cell[k++]);
  else snprintf(cell[k++], 64, "%s", variant == NM__REAL ? "not solved" : "");
  return k;
}

static int show_curves(const struct view *v, nm_err *err) {
  static const char *const what[NM__VARIANTS] = {"", "shuffled labels", "untrained", "8 bits",
                                                 "4 bits", "3 bits", "2 bits", "new token first",
                                                 "zeros"};
  int n_cols = v->s[0].n_rows + 4, n = 0;
  size_t most = NM__VARIANTS * NM__HEART + 1;
  char (*mem)[64] = nm__alloc(most * COLUMNS, sizeof *mem), head[NM__CONCEPT_ROWS][16];
  const char **cell = nm__alloc(most * (size_t)n_cols, sizeof *cell), *heads[COLUMNS];
  if (!mem || !cell) return free(mem), free(cell), nm__fail_memory(err, "the curves", most * 64);
  heads[0] = "level", heads[1] = "variant", heads[2] = "answered";
  for (int i = 0; i < v->s[0].n_rows; i++) {
    snprintf(head[i], sizeof head[i], i ? "block %d" : "embed", i - 1);
    heads[3 + i] = head[i];
  }
  heads[n_cols - 1] = "depth";
  for (int var = 0; var < NM__VARIANTS; var++)
    for (int l = 0; l < NM__CONCEPT_LEVELS; l++) {
      if (var == NM__BLIND || (l == NM__HEART && var != NM__REAL)) continue;
      curve_row(v, l, var, what[var], mem + n * n_cols);
      n++;
    }
  for (int i = 0; i < n * n_cols; i++) cell[i] = mem[i];
  nm__study_table(v->r, "Held-out accuracy of a linear probe on the last token, mean over seeds",
                  heads, n_cols, cell, n);
  free(mem);
  free(cell);
  return NM_OK;
}

static int show_figure(const struct view *v, nm_err *err) {
  double x[NM__CONCEPT_ROWS], y[6][NM__CONCEPT_ROWS], lo[6][NM__CONCEPT_ROWS],
      hi[6][NM__CONCEPT_ROWS];
  struct nm__series s[6];
  char name[6][64], subtitle[160];
  int n_rows = v->s[0].n_rows;
  for (int k = 0; k < 6; k++) {
    int level = k < NM__CONCEPT_LEVELS ? k : NM__H1, var = k == 5 ? NM__SHUFFLED : NM__REAL;
    for (int i = 0; i < n_rows; i++) {
      nm_interval q;
      x[i] = i - 1;
      y[k][i] = over_seeds(v, level, var, i, &q);
      lo[k][i] = fmax(q.lo, 0);
      hi[k][i] = fmin(q.hi, 1);
    }
    snprintf(name[k], 64, "%s%s%s", nm__concept_levels[level].name,
             k == 5 ? ", shuffled" : "", k < 5 && !solved(v, level) ? " (not solved)" : "");
    s[k] = (struct nm__series){name[k], x, y[k], v->n > 1 ? lo[k] : NULL, v->n > 1 ? hi[k] : NULL,
                               n_rows, k == 5 ? 9 : k, k == 4 ? NM__LINE_DASHED
                                                    : k == 5 ? NM__LINE_DOTTED : NM__LINE_SOLID,
                               k == 5};
  }
  snprintf(subtitle, sizeof subtitle,
           "probe on the last token, held-out items; mean of %d seed%s%s", v->n,
           v->n > 1 ? "s" : "", v->n > 1 ? ", band: 95 % interval" : "");
  struct nm__hline chance = {0.5, "chance", NM__LINE_DASHED, 9};
  struct nm__chart c = {.title = "What takes more steps becomes readable later",
                        .subtitle = subtitle, .x_label = "after block (-1: embedding)",
                        .y_label = "accuracy (share of items)", .y_lo = 0.4, .y_hi = 1.02,
                        .series = s, .n_series = 6, .hlines = &chance, .n_hlines = 1};
  return nm__study_figure(v->r, "curves", &c, err);
}

static void show_training(const struct view *v) {
  char line[240];
  for (int i = 0; i < v->n; i++) {
    const struct nm__concept_seed *s = &v->s[i];
    snprintf(line, sizeof line, "seed %llu: %.2f M tokens in %.0f s, loss %.3f, h=2 joined at step "
             "%.0f; answered L0 %.3f, L1 %.3f, h=1 %.3f, h=2 %.3f, by heart %.3f",
             (unsigned long long)v->r->seeds[i], s->tokens / 1e6, s->seconds, s->loss,
             s->late_from, s->level[0].exact, s->level[1].exact, s->level[2].exact,
             s->level[3].exact, s->level[4].exact);
    nm__study_para(v->r, line);
  }
}

static void keep_figures(const struct view *v) {
  for (int l = 0; l < NM__CONCEPT_LEVELS; l++) {
    json_t *row = json_array(), *d = json_array();
    for (int i = 0; i < v->s[0].n_rows; i++) {
      nm_interval q;
      over_seeds(v, l, NM__REAL, i, &q);
      json_array_append_new(row, json_pack("[f, f, f]", q.mean, q.lo, q.hi));
    }
    for (int i = 0; i < v->n; i++) json_array_append_new(d, json_real(depth(&v->s[i], l)));
    json_object_set_new(v->r->figures, nm__concept_levels[l].name,
                        json_pack("{s:b, s:o, s:o}", "solved", solved(v, l), "depth", d,
                                  "accuracy_lo_hi", row));
  }
}

static int run(struct nm__study_run *r, nm_err *err) {
  struct nm__concept_seed *s = nm__alloc((size_t)r->n_seeds, sizeof *s);
  struct view v = {r, s, r->n_seeds};
  int st = s ? NM_OK : nm__fail_memory(err, "the seeds", (size_t)r->n_seeds * sizeof *s);
  for (int i = 0; i < r->n_seeds && !st; i++)
    st = nm__concept_seed_run(r, r->o->quick ? &quick : &full, r->seeds[i], &s[i], err);
  if (!st) {
    show_training(&v);
    st = show_figure(&v, err);
  }
  if (!st) st = show_curves(&v, err);
  if (!st) {
    effects(&v);
    controls(&v);
    instrument(&v);
    keep_figures(&v);
  }
  free(s);
  return st;
}

static const nm_study_fault faults[] = {
    {"split-twins", "twins come to lie on both sides of a split"},
    {"train-accuracy", "accuracy is taken on the rows the probe was fitted to"},
    {"mean-over-tokens", "vectors are means over all tokens, not the last one's"},
    {"answer-token", "vectors are read where the answer already stands"},
    {"fake-curve", "a curve that rises where it should, and was never measured"},
    {"noop-quant", "rounding leaves the weights as they are"},
    {0}};

const struct nm__study nm__study_concept_depth = {
    {"concept-depth",
     "What takes more steps of computation becomes linearly readable in later blocks.",
     "Jin et al., Exploring Concept Depth (arXiv 2404.07066); docs/studies/concept-depth.md",
     faults},
    run};
