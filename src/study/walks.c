/* walks.c - the study in-context-representations: Park et al., ICLR: In-Context Learning of
 * Representations (arXiv 2501.00070), in miniature, as one file in the order of a paper.
 *
 * The paper shows words as nodes of an invented graph, through random walks in the prompt. A large
 * model comes to name the neighbours of the last word, and its states of the words come to lie as
 * the graph does. Both are asked here of a model of 0.2 M parameters whose training is known.
 *
 * Two ways of being wrong run through it. The word just left is always right, so who copies it
 * seems to know the graph: accuracy is also given without it. And any vectors whose neighbours were
 * mixed once draw the graph: "re-organised" is said only of states that are above that. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "look/walks.h"
#include "study/mini.h"
#include "study/study.h"

/* ---- 1. The world: walks in five graphs, words drawn anew for each ------------------- */

enum { WORDS = 32, EXAM_WALKS = 16, LENGTHS = 5, GRAPHS = 5, BLOCKS = 4, LAST = BLOCKS, ROWS };
enum fault { NO_FAULT = -1, BACK_COUNTS, ZERO_FILL, ONE_MAP, ORDERED, SHORT_WINDOW, NOOP_ABLATION };

static const char *const trained_on[GRAPHS] = {"grid:4x4", "grid:3x4", "grid:3x3", "ring:12",
                                               "ring:8"};

struct plan {
  struct nm__mini_recipe recipe;
  int T;                           /* words of a walk, in training and in the examination */
};

/* QKV biases as in qwen2; head 0 of every block begins as a previous-token head, so these heads
 * are given, not discovered. */
static const struct plan full = {
    {{BLOCKS, 64, 4, 160, 10000, 0.15, 4, 1, false},
     1220, 2048, 3e-3, 50, 0.3, 0.01, 1, -1, -1, 0, 0}, 256};
static const struct plan quick = {
    {{BLOCKS, 32, 2, 64, 100, 0.4, 4, 1, false},
     40, 512, 3e-3, 10, 0.3, 0.01, 1, -1, -1, 0, 0}, 128};

enum variant { REAL, SHUFFLED, UNTRAINED, TWO_OFF, ALL_OFF, INDUCTION_OFF, RANDOM_OFF, VARIANTS };
struct shape { double r2, r2_six, energy, spearman, permuted, standard, share, nodes; };

/* What is measured of one seed, in doubles alone: it is kept and read as a list of numbers. */
struct figures {
  double acc[VARIANTS][LENGTHS][2];            /* without and with leaving out the word just left */
  struct shape shape[VARIANTS][ROWS];          /* at the full length */
  double ring[LENGTHS][2], unseen[LENGTHS][2]; /* ring 12; honeycomb, which no training showed */
  double induction_heads, induction[4];        /* their number; the highest scores */
  double back, filled, behind, silenced, joined, same_words;   /* section 4: the instrument */
  double loss, tokens, seconds, whole;         /* whole: walks in which all nodes were seen */
};
enum { N_FIGURES = sizeof(struct figures) / sizeof(double) };

struct school {
  const struct plan *plan;
  struct nm__graph graph[GRAPHS];
  uint64_t seed;
  bool one_map;
  struct nm__walks w;
  struct nm__sample sample[64];
  const struct nm__sample *batch[64];
  float weight[NM__MINI_LONGEST];
};

/* A step is one graph. The first 30 % of the steps show walks of a quarter of the length. */
static int next_walks(void *arg, int64_t step, struct nm__mini_batch *b, nm_err *err) {
  struct school *s = arg;
  int32_t vocab[WORDS];
  uint64_t key = nm__rand_at(s->seed, 900, (uint64_t)step);
  int T = s->plan->T / ((double)step < 0.3 * s->plan->recipe.steps ? 4 : 1),
      n = s->plan->recipe.tokens / T;
  for (int i = 0; i < WORDS; i++) vocab[i] = i;
  nm__walks_done(&s->w);
  int st = nm__walks_draw(&s->graph[key % GRAPHS], n, T, -1, vocab, WORDS, !s->one_map, key, &s->w,
                          err);
  for (int i = 0; i < n && !st; i++) {
    s->sample[i] = (struct nm__sample){.ids = s->w.ids + i * T, .weight = s->weight, .n = T};
    s->batch[i] = &s->sample[i];
  }
  *b = (struct nm__mini_batch){s->batch, n, n * T};
  return st;
}

/* ---- 2. The model: trained from nothing, or taken from the folder ---------------------------- */

struct one_seed {
  const struct nm__study_run *r;
  const struct plan *plan;
  uint64_t seed;
  struct figures *f;
};

static void recipe_text(const struct one_seed *s, char out[240]) {
  const struct nm__mini_recipe *r = &s->plan->recipe;
  const struct nm__mini_shape *h = &r->shape;
  snprintf(out, 240, "walks 1: L %d D %d H %d F %d base %g gain %g nats %g steps %d tokens %d lr "
                     "%g "
           "T %d seed %llu fault %d", h->L, h->D, h->H, h->F, h->rope_base, h->final_gain, h->nats,
           r->steps, r->tokens, r->lr, s->plan->T, (unsigned long long)s->seed, s->r->fault);
}

static int get_model(const struct one_seed *s, struct nm__mini *t, nm_err *err) {
  struct school *c = nm__alloc(1, sizeof *c);
  char text[240], file[64];
  if (!c) return nm__fail_memory(err, "training", sizeof *c);
  *c = (struct school){.plan = s->plan, .seed = s->seed, .one_map = s->r->fault == ONE_MAP};
  for (int i = 0; i < NM__MINI_LONGEST; i++) c->weight[i] = 1;
  int st = NM_OK;
  for (int i = 0; i < GRAPHS && !st; i++) st = nm__graph_open(trained_on[i], &c->graph[i], err);
  recipe_text(s, text);
  snprintf(file, sizeof file, "model-%llu.gguf", (unsigned long long)s->seed);
  if (!st) st = nm__mini_blank(&s->plan->recipe, WORDS, s->seed, t, err);
  struct nm__mini_batch b;         /* of the first lesson: walks with the words of the first one */
  if (!st) st = next_walks(c, 0, &b, err);
  for (int i = 1, n = c->w.g->n; i < c->w.n && !st; i++)
    s->f->same_words += !memcmp(c->w.word + i * n, c->w.word, (size_t)n * sizeof *c->w.word);
  if (!st)
    st = nm__mini_get(t, s->r->out->dir, file, text, &(struct nm__mini_source){next_walks, NULL, c},
                      s->r->o->threads, s->r->o->progress, err);
  nm__walks_done(&c->w);
  free(c);
  return st;
}

/* ---- 3. The examination: fresh words, six states of the model ------------------------------- */

static const char *const variant_name[VARIANTS] = {
    "trained", "shuffled", "untrained", "2 previous-token off", "all previous-token off",
    "induction off", "2 random off"};

static void add_shape(struct shape *to, const struct nm__geometry *q, double standard) {
  const double v[] = {q->r2, q->r2_six, q->energy, q->spearman, q->permuted, standard, q->share,
                      q->n};
  double *x = &to->r2;
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) x[i] += v[i];
}

/* Means over the walks that saw every node: few points make any fit look good. */
static int all_shapes(const struct nm__traced *t, const struct nm__graph *g, struct shape *out,
                      double *whole, nm_err *err) {
  struct nm__geometry q;
  int n = 0, st = NM_OK;
  for (int w = 0; w < EXAM_WALKS && !st; w++)
    for (int row = 0; row < t->n_rows && !st; row++) {
      double standard;
      st = nm__traced_geometry(t, g, w, LENGTHS - 1, row, &q, &standard, err);
      if (st || q.n < g->n) break;
      n += !row;
      add_shape(&out[row], &q, standard);
    }
  for (int row = 0; row < t->n_rows; row++)
    for (double *x = &out[row].r2; x <= &out[row].nodes; x++) *x = n ? *x / n : NAN;
  *whole = n;
  return st;
}

/* Nodes that were never visited have no mean: how many came to count all the same, at the shortest
 * length; and how many words stand behind the means at the full one. */
static int look_at_means(const struct one_seed *s, struct nm__traced *t, const struct nm__walks *w,
                         nm_err *err) {
  struct nm__geometry q;
  int n = w->g->n, st = NM_OK;
  for (int k = 0; k < EXAM_WALKS && !st; k++) {
    double *count = t->count + k * LENGTHS * n, visited = 0;
    for (int i = 0; i < n; i++) {
      visited += count[i] > 0;
      s->f->behind += count[(LENGTHS - 1) * n + i] / EXAM_WALKS;
      if (s->r->fault == ZERO_FILL && count[i] <= 0) count[i] = 1;
    }
    st = nm__traced_geometry(t, w->g, k, 0, LAST, &q, NULL, err);
    s->f->filled += q.n - visited;
  }
  return st;
}

/* Runs walks of a graph through the model in one of its states. out: accuracies by length; shape
 * may be NULL. */
static int examine(const struct one_seed *s, const nm_model *m, const char *graph,
                   enum variant v, nm_edits *edits, double (*acc)[2], struct shape *shape,
                   nm_err *err) {
  int32_t vocab[WORDS];
  int length[LENGTHS], window = s->r->fault == SHORT_WINDOW ? 16 : s->plan->T / 2;
  struct nm__graph g;
  struct nm__walks w = {0};
  struct nm__traced t = {0};
  nm_engine *e = NULL;
  for (int i = 0; i < LENGTHS; i++) length[i] = s->plan->T >> (LENGTHS - 1 - i);
  for (int i = 0; i < WORDS; i++) vocab[i] = i;
  int st = nm__graph_open(graph, &g, err);
  if (!st)
    st = nm__walks_draw(&g, EXAM_WALKS, s->plan->T, -1, vocab, WORDS, true, s->seed ^ 0x40000000u,
                        &w, err);
  if (!st && v == SHUFFLED && s->r->fault != ORDERED) nm__walks_shuffle(&w, s->seed);
  if (!st)
    st = nm__traced_new(m, &w, "embed|blk.*.resid_post", length, LENGTHS, window, false, &t, err);
  if (!st) st = nm_engine_new(m, &(nm_engine_opts){.threads = s->r->o->threads}, &e, err);
  if (!st) st = nm__traced_run(e, &w, "embed|blk.*.resid_post", edits, &t, NULL, NULL, err);
  for (int l = 0; l < LENGTHS && !st; l++)
    for (int k = 0; k < 2; k++) acc[l][k] = nm__traced_mean_accuracy(&t, &w, length[l], k);
  if (v == SHUFFLED) s->f->joined = nm__walks_joined(&w);
  if (!st && shape) st = all_shapes(&t, &g, shape, &s->f->whole, err);
  if (!st && shape && v == REAL) st = look_at_means(s, &t, &w, err);
  nm_engine_free(e);
  nm__traced_done(&t);
  nm__walks_done(&w);
  return st;
}

/* ---- 4. The heads, and the instrument ------------------------------------------------------- */

static int silence(const struct one_seed *s, const nm_model *m, const struct nm__head *h, int n,
                   enum variant v, nm_err *err) {
  nm_edits *off = NULL;
  int st = n && s->r->fault != NOOP_ABLATION ? nm__heads_off(h, n, &off, err) : NM_OK;
  if (!st) st = examine(s, m, "grid:4x4", v, off, s->f->acc[v], s->f->shape[v], err);
  if (v == TWO_OFF)
    s->f->silenced = nm__heads_silenced(off) / ((double)n * EXAM_WALKS * s->plan->T);
  nm_edits_free(off);
  return st;
}

static int ablate(const struct one_seed *s, const nm_model *m, nm_err *err) {
  struct nm__head *h = NULL, drawn[2];
  struct figures *f = s->f;
  nm_engine *e = NULL;
  int n = m->L * m->H, k = 0,
      st = nm_engine_new(m, &(nm_engine_opts){.threads = s->r->o->threads}, &e, err);
  if (!st) st = nm__head_scores(e, m, -1, s->seed, NULL, &h, err);
  nm_engine_free(e);
  if (st) return st;
  nm__head_sort(h, n, NM__INDUCTION);
  while (k < n && h[k].induction > 0.3) k++;
  f->induction_heads = k;
  for (int i = 0; i < 4; i++) f->induction[i] = h[i].induction;
  int m_drawn = nm__heads_random(h, n, k > 2 ? k < 5 ? k : 5 : 2, 2, s->seed, drawn);
  st = silence(s, m, h, k, INDUCTION_OFF, err);
  nm__head_sort(h, n, NM__PREVIOUS);
  if (!st) st = silence(s, m, h, 2, TWO_OFF, err);
  for (k = 0; k < n && h[k].previous > 0.3;) k++;
  if (!st) st = silence(s, m, h, k, ALL_OFF, err);
  if (!st) st = silence(s, m, drawn, m_drawn, RANDOM_OFF, err);
  free(h);
  return st;
}

/* Whoever always goes back names a legal word each time and knows no graph. */
static double back_and_forth(const struct one_seed *s) {
  struct nm__graph g;
  double p[NM__GRAPH_NODES] = {0, 0.999}, out[2];
  nm__graph_grid(&g, 4, 4);
  nm__rule_accuracy(&g, p, 0, s->r->fault == BACK_COUNTS ? -1 : 1, out);
  return out[1];
}

static int measure(const struct one_seed *s, nm_err *err) {
  struct figures *f = s->f;
  struct nm__mini t, first;
  int st = get_model(s, &t, err);
  if (st) return st;
  f->loss = t.loss, f->tokens = t.tokens, f->seconds = t.seconds;
  st = examine(s, t.m, "grid:4x4", REAL, NULL, f->acc[REAL], f->shape[REAL], err);
  if (!st)
    st = examine(s, t.m, "grid:4x4", SHUFFLED, NULL, f->acc[SHUFFLED], f->shape[SHUFFLED], err);
  if (!st) st = ablate(s, t.m, err);
  if (!st) st = examine(s, t.m, "ring:12", REAL, NULL, f->ring, NULL, err);
  if (!st) st = examine(s, t.m, "hex:14", REAL, NULL, f->unseen, NULL, err);
  nm__mini_done(&t);
  f->back = back_and_forth(s);
  if (!st) st = nm__mini_blank(&s->plan->recipe, WORDS, s->seed, &first, err);
  if (st) return st;
  st = examine(s, first.m, "grid:4x4", UNTRAINED, NULL, f->acc[UNTRAINED], f->shape[UNTRAINED],
               err);
  nm__mini_done(&first);
  return st;
}

static int run_seed(const struct one_seed *s, nm_err *err) {
  char key[260] = "measured 2: ";              /* the number: what is measured, and its order */
  recipe_text(s, key + strlen(key));
  if (nm__study_kept(s->r, s->seed, key, (double *)s->f, N_FIGURES)) return NM_OK;
  *s->f = (struct figures){0};
  int st = measure(s, err);
  return st ? st : nm__study_keep(s->r, s->seed, key, (const double *)s->f, N_FIGURES, err);
}

/* ---- 5. What must be seen, stated before it was measured ------------------------------------ */

enum { END = LENGTHS - 1, NOTHING = N_FIGURES };
#define AT(field) (offsetof(struct figures, field) / sizeof(double))
#define RULE(v) AT(acc[v][END][0])
#define OTHERS(v) AT(acc[v][END][1])
#define MAP(v) AT(shape[v][LAST].r2_six)
#define NONE HUGE_VAL

/* A claim is about one figure, or about what it has more than another. No effect can be asked of a
 * model that did not learn: then it is not measured. */
static void claims(struct nm__study_run *r, const struct plan *plan, const struct figures *f,
                   double chance) {
  const double half = plan->T / 2, most = chance + 0.05;
  const struct { struct nm__claim c; size_t of, less; } all[] = {
      {{"learned", "rule accuracy, grid 4x4, fresh words", NM__CONDITION, 0.85, NONE},
       RULE(REAL), NOTHING},
      {{"learned, others", "without the word just left", NM__CONDITION, 0.75, NONE},
       OTHERS(REAL), NOTHING},
      {{"induction heads", "heads with a score above 0.3", NM__CONDITION, 1, NONE},
       AT(induction_heads), NOTHING},
      {{"walks", "of 16, those that saw every node", NM__CONDITION, 8, NONE}, AT(whole), NOTHING},
      {{"in context", "accuracy at all less an eighth of T", NM__EFFECT, 0.2, NONE},
       OTHERS(REAL), AT(acc[REAL][1][1])},
      {{"map", "R2 of places, 6 components", NM__EFFECT, 0.7, NONE}, MAP(REAL), NOTHING},
      {{"map above shuffled", "less that of shuffled tokens", NM__EFFECT, 0.2, NONE},
       MAP(REAL), MAP(SHUFFLED)},
      {{"previous off", "accuracy lost with the top 2", NM__EFFECT, 0.4, NONE},
       RULE(REAL), RULE(TWO_OFF)},
      {{"previous off, map", "R2, 6 components, lost", NM__EFFECT, 0.3, NONE},
       MAP(REAL), MAP(TWO_OFF)},
      {{"induction off", "accuracy lost with all of them", NM__EFFECT, 0.15, NONE},
       RULE(REAL), RULE(INDUCTION_OFF)},
      {{"random off", "accuracy lost with 2 others", NM__CONTROL, -NONE, 0.06},
       RULE(REAL), RULE(RANDOM_OFF)},
      {{"shuffled", "rule accuracy, shuffled tokens", NM__CONTROL, -NONE, most},
       RULE(SHUFFLED), NOTHING},
      {{"shuffled, others", "without the word before", NM__CONTROL, -NONE, most},
       OTHERS(SHUFFLED), NOTHING},
      {{"untrained", "rule accuracy without training", NM__CONTROL, -NONE, 0.05},
       RULE(UNTRAINED), NOTHING},
      {{"embedding", "R2, 6 components", NM__CONTROL, -NONE, 0.55},
       AT(shape[REAL][0].r2_six), NOTHING},
      {{"back and forth", "what always going back scores", NM__CONTROL, -NONE, 0.05},
       AT(back), NOTHING},
      {{"left out", "nodes never seen that count", NM__CONTROL, 0, 0}, AT(filled), NOTHING},
      {{"window", "words behind the means of a walk", NM__CONTROL, half, half},
       AT(behind), NOTHING},
      {{"silenced", "share of the heads to be silenced", NM__CONTROL, 1, 1}, AT(silenced), NOTHING},
      {{"order", "edges between shuffled tokens", NM__CONTROL, -NONE, 0.4}, AT(joined), NOTHING},
      {{"fresh words", "lessons with the first one's words", NM__CONTROL, 0, 0},
       AT(same_words), NOTHING},
      {{"all previous off", "accuracy lost", NM__NOTE, 0, 1}, RULE(REAL), RULE(ALL_OFF)},
      {{"R2, 2 components", "R2 of places", NM__NOTE, 0, 1}, AT(shape[REAL][LAST].r2), NOTHING},
      {{"energy", "edge / all-pair distance^2", NM__NOTE, 0, 1},
       AT(shape[REAL][LAST].energy), NOTHING},
      {{"Spearman", "distance against steps", NM__NOTE, 0, 1},
       AT(shape[REAL][LAST].spearman), NOTHING},
      {{"ring 12", "without the word just left", NM__NOTE, 0, 1}, AT(ring[END][1]), NOTHING},
      {{"unseen graph", "the same on a honeycomb", NM__NOTE, 0, 1}, AT(unseen[END][1]), NOTHING}};
  double v[NM__STUDY_SEEDS];
  bool met = true;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    const struct nm__claim *c = &all[i].c;     /* conditions come first */
    for (int k = 0; k < r->n_seeds; k++) {
      const double *x = (const double *)&f[k];
      v[k] = x[all[i].of] - (all[i].less == NOTHING ? 0 : x[all[i].less]);
      met &= c->kind != NM__CONDITION || v[k] >= c->low;
    }
    nm__study_claim(r, c, v, met || c->kind != NM__EFFECT ? r->n_seeds : 0);
  }
}

/* ---- 6. What is shown ----------------------------------------------------------------------- */

struct view {
  struct nm__study_run *r;
  const struct plan *plan;
  const struct figures *f;
  struct shape plain, mixed;       /* of random vectors in the model's width */
  double chance[2];                /* of who knows only how often each word comes */
};

static nm_interval over_seeds(const struct view *v, const double *of_first) {
  double x[NM__STUDY_SEEDS];
  size_t at = (size_t)(of_first - (const double *)v->f);
  for (int i = 0; i < v->r->n_seeds; i++) x[i] = ((const double *)&v->f[i])[at];
  return nm__study_interval(x, v->r->n_seeds);
}

static void shape_row(const struct view *v, const char *what, const struct shape *q, bool seeds) {
  nm__study_cell(v->r, "%s", what);
  for (const double *x = &q->r2; x <= &q->share; x++)
    nm__study_cell(v->r, "%.3f", seeds ? over_seeds(v, x).mean : *x);
}

static void show_tables(const struct view *v) {
  static const char *const acc_heads[] = {"rule accuracy / without the word just left", "T=1/16",
                                          "1/8", "1/4", "1/2", "all"};
  static const char *const heads[] = {"states", "R2 PC1-2", "R2 6 PCs", "energy", "Spearman",
                                      "permuted", "standardised", "variance PC1-2"};
  char name[64];
  for (int k = 0; k < VARIANTS; k++) {
    nm__study_cell(v->r, "%s", variant_name[k]);
    for (int l = 0; l < LENGTHS; l++)
      nm__study_cell(v->r, "%.2f / %.2f", over_seeds(v, &v->f->acc[k][l][0]).mean,
                     over_seeds(v, &v->f->acc[k][l][1]).mean);
  }
  nm__study_cell(v->r, "frequencies alone");
  for (int l = 0; l < LENGTHS; l++)
    nm__study_cell(v->r, "%.2f / %.2f", v->chance[0], v->chance[1]);
  nm__study_rows(v->r, "Grid 4x4, words drawn anew for each of 16 walks, mean of the last 16 words",
                 acc_heads, LENGTHS + 1);
  for (int row = 0; row < ROWS; row++) {
    snprintf(name, sizeof name, row ? "trained, block %d" : "trained, embedding", row - 1);
    shape_row(v, name, &v->f->shape[REAL][row], true);
  }
  for (int k = 1; k < VARIANTS; k++) shape_row(v, variant_name[k], &v->f->shape[k][LAST], true);
  shape_row(v, "random vectors", &v->plain, false);
  shape_row(v, "random, neighbours mixed once", &v->mixed, false);
  nm__study_rows(v->r, "Means of states by node over the last half of the walk (last block unless "
                 "said)", heads, 8);
}

/* Above the mixing baseline in both, and a map that shows in behaviour. */
static void say_verdict(const struct view *v) {
  char line[400];
  nm_interval r2 = over_seeds(v, &v->f->shape[REAL][LAST].r2),
              s = over_seeds(v, &v->f->shape[REAL][LAST].spearman),
              other = over_seeds(v, &v->f->acc[REAL][END][1]);
  bool knows = other.mean >= 0.75, above = r2.mean > v->mixed.r2 && s.mean > v->mixed.spearman;
  snprintf(line, sizeof line, "R2 on components 1 and 2 is %.2f (mixing alone %.2f), Spearman %.2f "
           "(%.2f), accuracy without the word just left %.2f: %s", r2.mean, v->mixed.r2, s.mean,
           v->mixed.spearman, other.mean,
           !knows ? "the model does not know the map, so its states cannot show one."
           : above ? "the states are re-organised, more than mixing of neighbours explains."
                   : "the model knows the map; its states are not re-organised.");
  nm__study_para(v->r, line);
  for (int i = 0; i < v->r->n_seeds; i++) {
    const struct figures *f = &v->f[i];
    snprintf(line, sizeof line, "seed %llu: %.2f M tokens in %.0f s, loss %.3f; accuracy %.3f / "
             "%.3f; %.0f induction heads, scores %.2f %.2f %.2f %.2f",
             (unsigned long long)v->r->seeds[i], f->tokens / 1e6, f->seconds, f->loss,
             f->acc[REAL][END][0], f->acc[REAL][END][1], f->induction_heads, f->induction[0],
             f->induction[1], f->induction[2], f->induction[3]);
    nm__study_para(v->r, line);
  }
}

static int show_figure(const struct view *v, nm_err *err) {
  static const struct { const char *name; enum variant v; int k, colour; bool faint; } line[] = {
      {"all neighbours", REAL, 0, 0, false}, {"without the word just left", REAL, 1, 1, false},
      {"2 previous-token off", TWO_OFF, 0, 2, false}, {"random off", RANDOM_OFF, 0, 5, true},
      {"induction off", INDUCTION_OFF, 0, 3, false}, {"shuffled", SHUFFLED, 0, 9, true}};
  enum { LINES = sizeof line / sizeof *line };
  double x[LENGTHS], y[LINES][LENGTHS], lo[LINES][LENGTHS], hi[LINES][LENGTHS];
  struct nm__series s[LINES];
  for (int i = 0; i < LINES; i++) {
    for (int l = 0; l < LENGTHS; l++) {
      nm_interval q = over_seeds(v, &v->f->acc[line[i].v][l][line[i].k]);
      x[l] = v->plan->T >> (LENGTHS - 1 - l);
      y[i][l] = q.mean, lo[i][l] = fmax(q.lo, 0), hi[i][l] = fmin(q.hi, 1);
    }
    bool band = v->r->n_seeds > 1;
    s[i] = (struct nm__series){line[i].name, x, y[i], band ? lo[i] : NULL, band ? hi[i] : NULL,
                               LENGTHS, line[i].colour, NM__LINE_SOLID, line[i].faint};
  }
  struct nm__hline chance = {v->chance[0], "frequencies alone", NM__LINE_DASHED, 9};
  struct nm__chart c = {.title = "A walk teaches its graph",
                        .subtitle = "grid 4x4, fresh words; mean of seeds, band: 95 % interval",
                        .x_label = "words of the walk", .y_label = "probability of neighbours",
                        .y_lo = 0, .y_hi = 1.02, .series = s, .n_series = LINES,
                        .hlines = &chance, .n_hlines = 1};
  return nm__study_figure(v->r, "accuracy", &c, err);
}

static int run(struct nm__study_run *r, nm_err *err) {
  struct nm__graph g;
  struct nm__geometry q = {0};
  struct figures *f = nm__alloc((size_t)r->n_seeds, sizeof *f);
  struct view v = {.r = r, .plan = r->o->quick ? &quick : &full, .f = f};
  int st = f ? nm__graph_open("grid:4x4", &g, err) : nm__fail_memory(err, "the seeds", 0);
  for (int i = 0; i < r->n_seeds && !st; i++)
    st = run_seed(&(struct one_seed){r, v.plan, r->seeds[i], &f[i]}, err);
  for (int k = 0; k < 2 && !st; k++) {
    st = nm__geometry_random(&g, NULL, v.plan->recipe.shape.D, k, 1, &q, err);
    add_shape(k ? &v.mixed : &v.plain, &q, NAN);
  }
  if (!st) {
    nm__rule_by_chance(&g, v.chance);
    say_verdict(&v);
    show_tables(&v);
    claims(r, v.plan, f, v.chance[0]);
    st = show_figure(&v, err);
  }
  free(f);
  return st;
}

static const nm_study_fault faults[] = {
    {"back-counts", "the word just left counts where it should be left out"},
    {"zero-fill", "nodes that were never visited count as zeros"},
    {"one-map", "training shows the same words for the same nodes every time"},
    {"ordered-control", "the shuffled control is not shuffled"},
    {"short-window", "means are taken over the last 16 words"},
    {"noop-ablation", "silencing heads does nothing"},
    {0}};

const struct nm__study nm__study_walks = {
    {"in-context-representations",
     "A walk in the prompt teaches its graph; whether the states come to lie as the graph does.",
     "Park et al., ICLR: In-Context Learning of Representations (arXiv 2501.00070); "
     "docs/studies/in-context-representations.md",
     faults},
    run};
