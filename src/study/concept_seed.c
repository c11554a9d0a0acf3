/* concept_seed.c - one seed of the study: two models trained from nothing (or taken from the
 * folder), every variant of the measurement, and the figures kept as JSON, so that a study that
 * was cut off goes on with the next seed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "study/concept.h"

/* Items of examinations come from seeds that no training uses. */
static uint64_t exam_seed(uint64_t seed) { return seed ^ 0x40000000u; }

struct seed_run {
  const struct nm__study_run *r;
  const struct nm__concept_plan *plan;
  uint64_t seed;
  struct nm__pool *pool;
  struct nm__concept_seed *out;
};

/* ---- the models ------------------------------------------------------------------- */

static void recipe_text(const struct nm__mini_recipe *r, uint64_t seed, char out[320]) {
  const struct nm__mini_shape *s = &r->shape;
  snprintf(out, 320, "miniature 1: L %d D %d H %d F %d base %g gain %g nats %g steps %d tokens %d "
           "lr %g warmup %g tail %g decay %g clip %g late %d before %d pass %g share %g seed %llu",
           s->L, s->D, s->H, s->F, s->rope_base, s->final_gain, s->nats, r->steps, r->tokens,
           r->lr, r->warmup, r->tail, r->decay, r->clip, r->late, r->before, r->pass,
           r->late_share, (unsigned long long)seed);
}

/* A model of the recipe, trained now or before. */
static int get_model(struct seed_run *s, const struct nm__mini_recipe *r, const char *name,
                     const struct nm__mini_level *l, int n, struct nm__mini *t, nm_err *err) {
  char text[320], file[64], label[64];
  recipe_text(r, s->seed, text);
  snprintf(file, sizeof file, "%s-%llu.gguf", name, (unsigned long long)s->seed);
  snprintf(label, sizeof label, "seed %llu: training %s", (unsigned long long)s->seed, name);
  char *path = nm__path_join(s->r->out->dir, file);
  if (!path) return nm__fail_memory(err, "a file name", 0);
  int st = nm__mini_new(r, l, n, NM__CONCEPT_W, s->seed, t, err);
  if (!st && !nm__mini_load(t, path, text)) {
    st = nm__mini_train(t, l, n, NM__CONCEPT_W, s->seed, s->r->o->threads, label,
                        s->r->o->progress, err);
    if (!st) st = nm__mini_save(t, path, text, err);
    if (st) nm__mini_done(t);
  }
  free(path);
  return st;
}

/* ---- measuring ---------------------------------------------------------------------- */

static int measure(struct seed_run *s, const struct nm__mini *t, int level,
                   enum nm__concept_variant v, nm_err *err) {
  struct nm__concept_level *out = &s->out->level[level];
  struct nm__mini_items items;
  struct nm__concept_acts a = {0};
  struct nm__concept_splits splits = {0};
  int fault = s->r->fault;
  int st = nm__mini_items_make(&nm__concept_levels[level], NM__CONCEPT_W, exam_seed(s->seed),
                               s->plan->items, v == NM__PREFIX, &t->words, &items, err);
  if (st) return st;
  st = nm__concept_capture(t->m, &items, fault, s->r->o->threads, &a, err);
  if (!st) st = nm__concept_splits_make(&items, s->plan->splits, fault, &splits, err);
  if (!st && v == NM__BLIND)
    memset(a.x, 0, sizeof *a.x * (size_t)a.n_rows * a.n * (size_t)a.D);
  if (!st)
    st = nm__concept_curve(&a, items.label, v == NM__SHUFFLED, &splits, fault, level, s->pool,
                           out->acc[v], err);
  if (!st && v == NM__REAL) {
    out->exact = a.exact;
    out->by_label = a.by_label;
    out->shared = (double)splits.shared;
    out->strays = (double)nm__concept_strays(&a, &items);
    s->out->n_rows = a.n_rows;
    s->out->D = a.D;
    s->out->train_rows = (double)splits.v[0].n_train;
  }
  nm__concept_splits_done(&splits);
  nm__concept_acts_done(&a);
  nm__mini_items_done(&items);
  return st;
}

static int all_levels(struct seed_run *s, const struct nm__mini *t, enum nm__concept_variant v,
                      int *done, nm_err *err) {
  char what[64];
  int st = NM_OK;
  for (int level = 0; level < NM__HEART && !st; level++) {
    st = measure(s, t, level, v, err);
    snprintf(what, sizeof what, "seed %llu: probing", (unsigned long long)s->seed);
    if (!st)
      st = nm__progress(s->r->o->progress, what, ++*done, NM__VARIANTS * NM__HEART, err);
  }
  return st;
}

static int rounded(struct seed_run *s, struct nm__mini *t, int *done, nm_err *err) {
  static const int bits[] = {8, 4, 3, 2};
  float *kept = nm__alloc(t->p.n_floats, sizeof *kept);
  if (!kept) return nm__fail_memory(err, "the weights", t->p.n_floats * sizeof *kept);
  memcpy(kept, t->p.values, t->p.n_floats * sizeof *kept);
  int st = NM_OK;
  for (int i = 0; i < 4 && !st; i++) {
    if (s->r->fault != NM__NOOP_QUANT) nm__mini_round(&t->p, bits[i]);
    st = all_levels(s, t, (enum nm__concept_variant)(NM__BITS8 + i), done, err);
    if (bits[i] == 2) s->out->most_values = nm__mini_most_values(&t->p);
    memcpy(t->p.values, kept, t->p.n_floats * sizeof *kept);
  }
  free(kept);
  return st;
}

static int trained_part(struct seed_run *s, nm_err *err) {
  struct nm__mini t, first;
  int done = 0, n = NM__HEART;
  int st = get_model(s, &s->plan->recipe, "model", nm__concept_levels, n, &t, err);
  if (st) return st;
  s->out->late_from = t.late_from;
  s->out->loss = t.loss;
  s->out->tokens = t.tokens;
  s->out->seconds = t.seconds;
  st = all_levels(s, &t, NM__REAL, &done, err);
  if (!st) st = all_levels(s, &t, NM__SHUFFLED, &done, err);
  if (!st) st = all_levels(s, &t, NM__PREFIX, &done, err);
  if (!st) st = all_levels(s, &t, NM__BLIND, &done, err);
  if (!st) st = rounded(s, &t, &done, err);
  nm__mini_done(&t);
  if (st) return st;
  st = nm__mini_new(&s->plan->recipe, nm__concept_levels, n, NM__CONCEPT_W, s->seed, &first, err);
  if (st) return st;
  st = all_levels(s, &first, NM__UNTRAINED, &done, err);
  nm__mini_done(&first);
  return st;
}

/* L0 is learned beside it, as in the other model. */
static int heart_part(struct seed_run *s, nm_err *err) {
  const struct nm__mini_level l[2] = {nm__concept_levels[NM__L0], nm__concept_levels[NM__HEART]};
  struct nm__mini t;
  int st = get_model(s, &s->plan->heart, "by-heart", l, 2, &t, err);
  if (st) return st;
  st = measure(s, &t, NM__HEART, NM__REAL, err);
  nm__mini_done(&t);
  return st;
}

/* ---- what is kept ------------------------------------------------------------------------ */

static json_t *to_json(const struct nm__concept_seed *s, const char *key) {
  json_t *levels = json_array();
  for (int i = 0; i < NM__CONCEPT_LEVELS; i++) {
    const struct nm__concept_level *l = &s->level[i];
    json_t *rows = json_array();
    for (int v = 0; v < NM__VARIANTS; v++) {
      json_t *row = json_array();
      for (int k = 0; k < s->n_rows; k++) json_array_append_new(row, json_real(l->acc[v][k]));
      json_array_append_new(rows, row);
    }
    json_array_append_new(levels, json_pack("{s:f, s:f, s:f, s:f, s:o}", "exact", l->exact,
                                            "by_label", l->by_label, "shared_twins", l->shared,
                                            "strays", l->strays, "acc", rows));
  }
  return json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "key", key, "rows",
                   s->n_rows, "D", s->D, "train_rows", s->train_rows, "most_values",
                   s->most_values, "late_from", s->late_from, "loss", s->loss, "tokens", s->tokens,
                   "seconds", s->seconds, "levels", levels);
}

static double number(const json_t *o, const char *key) {
  return json_number_value(json_object_get(o, key));
}

static bool from_json(const json_t *j, const char *key, struct nm__concept_seed *s) {
  const char *k = json_string_value(json_object_get(j, "key"));
  double rows = number(j, "rows");
  if (!k || strcmp(k, key) || !(rows >= 2 && rows <= NM__CONCEPT_ROWS)) return false;
  *s = (struct nm__concept_seed){
      .n_rows = (int)rows, .D = (int)number(j, "D"), .train_rows = number(j, "train_rows"),
      .most_values = number(j, "most_values"), .late_from = number(j, "late_from"),
      .loss = number(j, "loss"), .tokens = number(j, "tokens"), .seconds = number(j, "seconds")};
  for (size_t i = 0; i < NM__CONCEPT_LEVELS; i++) {
    const json_t *l = json_array_get(json_object_get(j, "levels"), i);
    struct nm__concept_level *to = &s->level[i];
    if (!l) return false;
    to->exact = number(l, "exact");
    to->by_label = number(l, "by_label");
    to->shared = number(l, "shared_twins");
    to->strays = number(l, "strays");
    for (size_t v = 0; v < NM__VARIANTS; v++)
      for (size_t n = 0; n < (size_t)s->n_rows; n++)
        to->acc[v][n] = json_number_value(
            json_array_get(json_array_get(json_object_get(l, "acc"), v), n));
  }
  return true;
}

/* Everything the figures depend on. */
static void make_key(const struct seed_run *s, char out[800]) {
  char a[320], b[320];
  recipe_text(&s->plan->recipe, s->seed, a);
  recipe_text(&s->plan->heart, s->seed, b);
  snprintf(out, 800, "measured 2: %s | %s | items %zu splits %d fault %s", a, b, s->plan->items,
           s->plan->splits, s->r->o->fault ? s->r->o->fault : "none");
}

static bool load(const char *path, const char *key, struct nm__concept_seed *out) {
  struct nm__map m;
  if (!nm__exists(path) || nm__map_open(path, &m, NULL)) return false;
  json_t *j = nm__json_parse(path, (const char *)m.data, m.size, 1 << 16, NULL);
  bool good = j && from_json(j, key, out);
  json_decref(j);
  nm__map_close(&m);
  return good;
}

static int save(const char *path, const char *key, const struct nm__concept_seed *s, nm_err *err) {
  json_t *j = to_json(s, key);
  char *text = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
  int st = text ? nm__write_file(path, text, strlen(text), err)
                : nm__fail_memory(err, "the figures of a seed", sizeof *s);
  free(text);
  json_decref(j);
  return st;
}

int nm__concept_seed_run(const struct nm__study_run *r, const struct nm__concept_plan *plan,
                         uint64_t seed, struct nm__concept_seed *out, nm_err *err) {
  struct seed_run s = {.r = r, .plan = plan, .seed = seed, .out = out};
  char key[800], file[64];
  make_key(&s, key);
  snprintf(file, sizeof file, "seed-%llu.json", (unsigned long long)seed);
  char *path = nm__path_join(r->out->dir, file);
  if (!path) return nm__fail_memory(err, "a file name", 0);
  int st = NM_OK;
  if (!load(path, key, out)) {
    *out = (struct nm__concept_seed){0};
    st = nm__pool_new(r->o->threads ? r->o->threads : 2, &s.pool, err);
    if (!st) st = trained_part(&s, err);
    if (!st) st = heart_part(&s, err);
    if (!st) st = save(path, key, out, err);
    nm__pool_free(s.pool);
  }
  free(path);
  return st;
}
