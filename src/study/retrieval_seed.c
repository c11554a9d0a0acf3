/* retrieval_seed.c - one seed of the study: a model trained from nothing (or taken from the
 * folder), scores of its heads, masks, controls. */
#include "study/retrieval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "tensor/math.h"

/* Items of examinations come from seeds that no training uses. */
static uint64_t exam_seed(uint64_t seed) { return seed ^ 0x40000000u; }

enum { ANSWER = 8, LOOKED_AT = 32 };           /* texts that the other rankings read */

/* Questions with their answers as tokens; of needles also where they lie. */
struct items {
  struct nm__needle *v, *wrong;    /* wrong: values of another key; from 0 to 0: there is none */
  int32_t (*answer)[ANSWER];
  int *n_answer;
  size_t n;
  bool needles;
};

struct seed_run {
  const struct nm__study_run *r;
  const struct nm__retrieval_plan *plan;
  uint64_t seed;
  struct nm__retrieval_seed *out;
  struct items needles, facts;
  int L, H;
};

/* ---- questions --------------------------------------------------------------------- */

/* Values stand behind "KEY :", and so do those of the key that is asked. */
static void find_needles(struct items *t, size_t i, int32_t colon) {
  const int32_t *ids = t->v[i].prompt.ids;
  int n = (int)t->v[i].prompt.n, k = t->n_answer[i];
  for (int p = 1; p + k < n - 3; p++) {
    if (ids[p] != colon) continue;
    struct nm__needle *q = ids[p - 1] == ids[n - 2] ? &t->v[i] : &t->wrong[i];
    if (!q->to) q->from = p + 1, q->to = p + 1 + k;
  }
}

static int one_item(struct items *t, size_t i, const struct nm__mini_level *l,
                    const nm_world_item *it, const struct nm__mini_words *w, nm_err *err) {
  int32_t ids[NM__MINI_LONGEST];
  float weight[NM__MINI_LONGEST];
  struct nm__sample s = {.ids = ids, .weight = weight};
  nm_world_item first = *it;
  first.n_parts = 2;
  int n = 0, st = nm__mini_sample(w, l, &first, &s, NM__MINI_LONGEST, err);
  if (st) return st;
  while (n < s.n && !weight[n]) n++;
  int k = s.n - n < ANSWER ? s.n - n : ANSWER;
  int32_t *kept = nm__alloc((size_t)n, sizeof *kept);
  if (!kept) return nm__fail_memory(err, "an item", (size_t)n * sizeof *kept);
  memcpy(kept, ids, (size_t)n * sizeof *kept);
  memcpy(t->answer[i], ids + n, (size_t)k * sizeof *ids);
  t->n_answer[i] = k;
  t->v[i].prompt = (nm_seq){kept, (size_t)n};
  t->v[i].most = k;
  t->wrong[i].prompt = t->v[i].prompt;
  t->wrong[i].most = k;
  if (t->needles) find_needles(t, i, nm__mini_word(w, ":", 1));
  return NM_OK;
}

static void items_done(struct items *t) {
  for (size_t i = 0; t->v && i < t->n; i++) free((void *)(uintptr_t)t->v[i].prompt.ids);
  free(t->v);
  free(t->wrong);
  free(t->answer);
  free(t->n_answer);
  *t = (struct items){0};
}

static int items_make(const struct seed_run *s, int level, const struct nm__mini_words *w,
                      struct items *t, nm_err *err) {
  const struct nm__mini_level *l = &nm__retrieval_levels[level];
  size_t n = s->plan->items;
  nm_world *world;
  nm_world_item it = {0};
  *t = (struct items){nm__alloc(n, sizeof *t->v), nm__alloc(n, sizeof *t->wrong),
                      nm__alloc(n, sizeof *t->answer), nm__alloc(n, sizeof *t->n_answer), n,
                      level != NM__FACTS};
  if (!t->v || !t->wrong || !t->answer || !t->n_answer) return nm__fail_memory(err, "items", n);
  int st = nm__mini_world(l, true, NM__RETRIEVAL_W, exam_seed(s->seed), &world, err);
  if (st) return st;
  for (size_t i = 0; i < n && !st; i++) {
    st = nm_world_make(world, i, &it, err);
    if (!st) st = one_item(t, i, l, &it, w, err);
  }
  nm_world_item_done(&it);
  nm_world_close(world);
  return st;
}

/* ---- answers ----------------------------------------------------------------------- */

/* Share of the answer's tokens that stand where they must. */
static double right_share(const struct items *t, size_t i, const int32_t *answer, int n) {
  int right = 0;
  for (int k = 0; k < t->n_answer[i] && k < n; k++) right += answer[k] == t->answer[i][k];
  return (double)right / t->n_answer[i];
}

/* Mean share of tokens that are right with k heads masked. */
static int accuracy(const struct seed_run *s, const nm_model *m, const struct items *t,
                    const uint32_t *head, size_t k, double *out, nm_err *err) {
  struct nm__copy_opts o = {.most = ANSWER, .blind = true};
  struct nm__copier *c = NULL;
  nm_edits *mask = NULL;
  nm_engine *e = NULL;
  int32_t answer[ANSWER];
  int n, st = nm_engine_new(m, &(nm_engine_opts){.threads = s->r->o->threads}, &e, err);
  if (!st && k) st = nm__mask_heads(m, head, k, "zero", &mask, err);
  if (!st) st = nm__copier_new(e, m, mask, &o, &c, err);
  *out = 0;
  for (size_t i = 0; i < t->n && !st; i++) {
    st = nm__copy_answer(c, &t->v[i], answer, &n, NULL, err);
    if (!st) *out += right_share(t, i, answer, n) / (double)t->n;
  }
  nm__copier_free(c);
  nm_edits_free(mask);
  nm_engine_free(e);
  return st;
}

/* Scores by trials that were answered (more than half of the tokens); all: by every trial. */
static int score(const struct seed_run *s, const nm_model *m, bool wrong, bool all,
                 struct nm__head_scores *out, double *kept, nm_err *err) {
  struct nm__copy_opts o = {.most = ANSWER};
  const struct items *t = &s->needles;
  struct nm__copier *c = NULL;
  nm_engine *e = NULL;
  size_t heads = (size_t)s->L * (size_t)s->H, n_kept = 0;
  wrong |= s->r->fault == NM__WRONG_NEEDLE;
  double *row = nm__alloc(heads, sizeof *row);
  int32_t answer[ANSWER];
  int n, st = nm__head_scores_new(s->L, s->H, t->n, out, err);
  if (!st && !row) st = nm__fail_memory(err, "scores", heads * sizeof *row);
  if (!st) st = nm_engine_new(m, &(nm_engine_opts){.threads = s->r->o->threads}, &e, err);
  if (!st) st = nm__copier_new(e, m, NULL, &o, &c, err);
  for (size_t i = 0; i < t->n && !st; i++) {
    const struct nm__needle *q = wrong ? &t->wrong[i] : &t->v[i];
    if (!q->to) continue;
    st = nm__copy_answer(c, q, answer, &n, row, err);
    bool good = right_share(t, i, answer, n) > 0.5 || s->r->fault == NM__FAILED_ANSWERS;
    *kept += good / (double)t->n;
    if (!good && !all) continue;
    for (size_t h = 0; h < heads; h++) out->score[h * t->n + n_kept] = row[h];
    n_kept++;
  }
  for (size_t h = 0; h < heads && !st; h++)                  /* closed up to the kept ones */
    memmove(out->score + h * n_kept, out->score + h * t->n, n_kept * sizeof *row);
  out->trials = n_kept;
  if (!st && n_kept) nm__head_scores_fit(out);
  nm__copier_free(c);
  nm_engine_free(e);
  free(row);
  return st;
}

static double highest(const struct nm__head_scores *s) {
  double most = 0;
  for (int i = 0; i < s->L * s->H; i++) most = fmax(most, s->v[i].mean);
  return most;
}

/* ---- other rankings ---------------------------------------------------------------- */

/* mean of a head: attention on the position before; length of its output. */
struct other { struct nm__head_scores previous, norm; int H, hd; };

static int look(void *arg, const nm_row *r, nm_err *err) {
  struct other *o = arg;
  int L = o->norm.L, layer = r->site % L;
  (void)err;
  for (int h = 0; h < o->H; h++) {
    if (r->site < L) {
      int64_t n = r->n / o->H;
      if (r->pos) o->previous.v[layer * o->H + h].mean += (double)r->data[h * n + r->pos - 1];
    } else {
      double sum = 0;
      for (int d = 0; d < o->hd; d++) {
        double x = (double)r->data[h * o->hd + d];
        sum += x * x;
      }
      o->norm.v[layer * o->H + h].mean += nm__sqrt(sum);
    }
  }
  return NM_OK;
}

static int other_rankings(const struct seed_run *s, const nm_model *m, struct other *o,
                          nm_err *err) {
  static const nm_tap taps[] = {{"blk.*.attn.pattern", "all"}, {"blk.*.attn.head", "all"}};
  nm_seq seqs[LOOKED_AT];
  size_t n = s->needles.n < LOOKED_AT ? s->needles.n : LOOKED_AT;
  nm_engine *e = NULL;
  for (size_t i = 0; i < n; i++) seqs[i] = s->needles.v[i].prompt;
  *o = (struct other){.H = s->H, .hd = s->plan->recipe.shape.D / s->H};
  int st = nm__head_scores_new(s->L, s->H, 1, &o->previous, err);
  if (!st) st = nm__head_scores_new(s->L, s->H, 1, &o->norm, err);
  if (!st) st = nm_engine_new(m, &(nm_engine_opts){.threads = s->r->o->threads}, &e, err);
  if (!st)
    st = nm_run(e, &(nm_request){.seqs = seqs, .n_seqs = n, .taps = taps, .n_taps = 2, .row = look,
                                 .arg = o}, err);
  nm_engine_free(e);
  return st;
}

static int two_masked(const struct seed_run *s, const nm_model *m, nm_err *err) {
  struct other o;
  int st = other_rankings(s, m, &o, err);
  uint32_t *a = st ? NULL : nm__head_ranking(&o.previous),
           *b = st ? NULL : nm__head_ranking(&o.norm);
  if (!st && (!a || !b)) st = nm__fail_memory(err, "rankings", 0);
  if (!st) st = accuracy(s, m, &s->needles, a, 2, &s->out->two_previous, err);
  if (!st) st = accuracy(s, m, &s->needles, b, 2, &s->out->two_norm, err);
  free(a);
  free(b);
  nm__head_scores_done(&o.previous);
  nm__head_scores_done(&o.norm);
  return st;
}

/* ---- what masking takes ------------------------------------------------------------ */

static int drawn(const struct seed_run *s, const nm_model *m, const uint32_t *rank, size_t k,
                 nm_err *err) {
  size_t heads = (size_t)s->L * (size_t)s->H;
  uint32_t v[NM__RETRIEVAL_HEADS];
  bool from_best = s->r->fault == NM__DRAWN_FROM_BEST;
  int st = NM_OK;
  for (uint64_t d = 0; d < NM__RETRIEVAL_DRAWS && !st; d++) {
    double facts;
    st = nm__random_heads(rank, heads, from_best ? 0 : k, k, s->seed, d, v, err);
    for (size_t i = 0; i < k && !st; i++)
      for (size_t j = 0; j < k; j++) s->out->drawn_shared += v[i] == rank[j];
    if (!st) st = accuracy(s, m, &s->needles, v, k, &s->out->drawn_copied[d], err);
    if (!st) st = accuracy(s, m, &s->facts, v, k, &facts, err);
    if (!st) s->out->drawn_facts += facts / NM__RETRIEVAL_DRAWS;
  }
  return st;
}

static int masked(const struct seed_run *s, const nm_model *m, const struct nm__head_scores *q,
                  nm_err *err) {
  uint32_t *rank = nm__head_ranking(q), best[NM__RETRIEVAL_HEADS];
  size_t k = (size_t)s->out->n_copying, heads = (size_t)s->L * (size_t)s->H;
  if (!rank) return nm__fail_memory(err, "a ranking", 0);
  for (size_t i = 0; i < heads; i++)
    best[i] = s->r->fault == NM__SHIFTED_HEADS ? (rank[i] + (uint32_t)s->H) % (uint32_t)heads
                                               : rank[i];
  int st = NM_OK;
  s->out->masked_copied = 1;         /* where no mask or no draw is possible nothing is shown */
  if (k && 2 * k <= heads) {
    st = accuracy(s, m, &s->needles, best, k, &s->out->masked_copied, err);
    if (!st) st = accuracy(s, m, &s->facts, best, k, &s->out->masked_facts, err);
    if (!st) st = drawn(s, m, rank, k, err);
  }
  if (!st) st = accuracy(s, m, &s->needles, best, 2, &s->out->two_scores, err);
  free(rank);
  return st ? st : two_masked(s, m, err);
}

/* ---- a seed ------------------------------------------------------------------------ */

static void recipe_text(const struct nm__mini_recipe *r, uint64_t seed, char out[320]) {
  const struct nm__mini_shape *s = &r->shape;
  snprintf(out, 320, "miniature 1: L %d D %d H %d F %d base %g gain %g nats %g back %d alike %d "
           "steps %d tokens %d lr %g warmup %g tail %g decay %g clip %g late %d before %d pass %g "
           "share %g seed %llu",
           s->L, s->D, s->H, s->F, s->rope_base, s->final_gain, s->nats, s->back, s->alike,
           r->steps, r->tokens, r->lr, r->warmup, r->tail, r->decay, r->clip, r->late, r->before,
           r->pass, r->late_share, (unsigned long long)seed);
}

static int new_model(const struct seed_run *s, struct nm__mini *t, nm_err *err) {
  return nm__mini_new(&s->plan->recipe, nm__retrieval_levels, NM__RETRIEVAL_LEVELS,
                      NM__RETRIEVAL_W, s->seed, t, err);
}

static int get_model(const struct seed_run *s, struct nm__mini *t, nm_err *err) {
  char text[320], file[64], label[64];
  recipe_text(&s->plan->recipe, s->seed, text);
  snprintf(file, sizeof file, "model-%llu.gguf", (unsigned long long)s->seed);
  snprintf(label, sizeof label, "seed %llu: training", (unsigned long long)s->seed);
  char *path = nm__path_join(s->r->out->dir, file);
  if (!path) return nm__fail_memory(err, "a file name", 0);
  int st = new_model(s, t, err);
  if (!st && !nm__mini_load(t, path, text)) {
    st = nm__mini_train(t, nm__retrieval_levels, NM__RETRIEVAL_LEVELS, NM__RETRIEVAL_W, s->seed,
                        s->r->o->threads, label, s->r->o->progress, err);
    if (!st) st = nm__mini_save(t, path, text, err);
    if (st) nm__mini_done(t);
  }
  free(path);
  return st;
}

static int trained(const struct seed_run *s, const nm_model *m, nm_err *err) {
  struct nm__retrieval_seed *o = s->out;
  struct nm__head_scores q = {0}, wrong = {0};
  double ignored = 0;
  int st = accuracy(s, m, &s->needles, NULL, 0, &o->copied, err);
  if (!st) st = accuracy(s, m, &s->facts, NULL, 0, &o->facts, err);
  if (!st) st = score(s, m, false, false, &q, &o->kept, err);
  if (!st) st = score(s, m, true, false, &wrong, &ignored, err);
  if (!st) {
    o->n_copying = q.trials ? (double)nm__heads_sum(&q).copying : 0;
    o->wrong_span = highest(&wrong);
    for (int h = 0; h < s->L * s->H; h++) {
      o->mean[h] = q.v[h].mean;
      o->freq[h] = q.v[h].freq;
    }
    st = masked(s, m, &q, err);
  }
  nm__head_scores_done(&q);
  nm__head_scores_done(&wrong);
  return st;
}

static int untrained(const struct seed_run *s, nm_err *err) {
  struct nm__mini t;
  struct nm__head_scores q = {0};
  int st = new_model(s, &t, err);
  if (st) return st;
  st = score(s, t.m, false, true, &q, &s->out->untrained_kept, err);
  if (!st) s->out->untrained = highest(&q);
  nm__head_scores_done(&q);
  nm__mini_done(&t);
  return st;
}

static int measure(struct seed_run *s, nm_err *err) {
  struct nm__mini t;
  int st = get_model(s, &t, err);
  if (st) return st;
  s->out->late_from = t.late_from;
  s->out->loss = t.loss;
  s->out->tokens = t.tokens;
  s->out->seconds = t.seconds;
  st = items_make(s, NM__LONG, &t.words, &s->needles, err);
  if (!st) st = items_make(s, NM__FACTS, &t.words, &s->facts, err);
  if (!st) st = trained(s, t.m, err);
  nm__mini_done(&t);
  if (!st) st = untrained(s, err);
  items_done(&s->needles);
  items_done(&s->facts);
  return st;
}

/* ---- what is kept ------------------------------------------------------------------ */

enum { NUMBERS = sizeof(struct nm__retrieval_seed) / sizeof(double) };

static bool load(const char *path, const char *key, struct nm__retrieval_seed *out) {
  struct nm__map m;
  double v[NUMBERS];
  if (!nm__exists(path) || nm__map_open(path, &m, NULL)) return false;
  json_t *j = nm__json_parse(path, (const char *)m.data, m.size, 1 << 12, NULL),
         *list = json_object_get(j, "figures");
  const char *k = json_string_value(json_object_get(j, "key"));
  bool good = k && !strcmp(k, key) && json_array_size(list) == NUMBERS;
  for (size_t i = 0; good && i < NUMBERS; i++) v[i] = json_number_value(json_array_get(list, i));
  if (good) memcpy(out, v, sizeof v);
  json_decref(j);
  nm__map_close(&m);
  return good;
}

static int save(const char *path, const char *key, const struct nm__retrieval_seed *s,
                nm_err *err) {
  double v[NUMBERS];
  json_t *list = json_array();
  memcpy(v, s, sizeof v);
  for (size_t i = 0; i < NUMBERS; i++) json_array_append_new(list, json_real(v[i]));
  json_t *j = json_pack("{s:s, s:o}", "key", key, "figures", list);
  char *text = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
  int st = text ? nm__write_file(path, text, strlen(text), err)
                : nm__fail_memory(err, "the figures of a seed", sizeof v);
  free(text);
  json_decref(j);
  return st;
}

int nm__retrieval_seed_run(const struct nm__study_run *r, const struct nm__retrieval_plan *plan,
                           uint64_t seed, struct nm__retrieval_seed *out, nm_err *err) {
  struct seed_run s = {.r = r, .plan = plan, .seed = seed, .out = out, .L = plan->recipe.shape.L,
                       .H = plan->recipe.shape.H};
  char text[320], key[480], file[64];
  recipe_text(&plan->recipe, seed, text);
  snprintf(key, sizeof key, "measured 2: %s items %zu fault %s", text, plan->items,
           r->o->fault ? r->o->fault : "none");
  snprintf(file, sizeof file, "seed-%llu.json", (unsigned long long)seed);
  char *path = nm__path_join(r->out->dir, file);
  if (!path) return nm__fail_memory(err, "a file name", 0);
  int st = NM_OK;
  if (!load(path, key, out)) {
    *out = (struct nm__retrieval_seed){0};
    st = measure(&s, err);
    if (!st) st = save(path, key, out, err);
  }
  free(path);
  return st;
}
