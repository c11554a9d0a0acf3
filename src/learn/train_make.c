/* train_make.c - what a recipe names, made: folder, model, parameters, data, optimiser. */
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "learn/train.h"

static const json_t *key(const struct nm__training *t, const char *name) {
  return json_object_get(t->r.y.root, name);
}

/* ---- the folder ----------------------------------------------------------------- */

static int open_folder(struct nm__training *t, const char *recipe, nm_err *err) {
  const char *out = t->o->out ? t->o->out : t->r.out;
  char name[80];
  snprintf(name, sizeof name, "runs/%.60s", nm__path_base(recipe));
  char *dot = strrchr(name, '.');
  if (dot && dot > name + 5) *dot = 0;
  t->dir = nm__strdup(out ? out : name);
  for (size_t n = t->dir ? strlen(t->dir) : 0; n > 1 && t->dir[n - 1] == '/';) t->dir[--n] = 0;
  char *slash = t->dir ? strrchr(t->dir, '/') : NULL;
  t->root = slash && slash > t->dir ? nm__strndup(t->dir, (size_t)(slash - t->dir))
                                    : nm__strdup(slash ? "/" : ".");
  if (!t->dir || !t->root) return nm__fail_memory(err, "a folder name", 0);
  char *metrics = nm__path_join(t->dir, "metrics.jsonl");
  bool used = metrics && nm__exists(metrics);
  free(metrics);
  if (used && !t->o->resume && !t->o->dry_run)
    return nm__fail(err, NM_EUSAGE, "%s already holds a run: choose another --out, or go on with "
                    "it by --resume", t->dir);
  return NM_OK;
}

/* ---- the model ------------------------------------------------------------------- */

static int make_model(struct nm__training *t, nm_err *err) {
  struct nm__gguf *g;
  int st = nm__training_container(t, &g, err);
  if (!st) st = nm__training_params(t, g, err);
  if (st) return st;
  if (!t->m->output.data)
    return nm__fail(err, NM_EUSAGE, "%s is an encoder, which has no next token to learn",
                    t->m->path);
  if (t->r.length + t->p.n_prompt > t->m->n_ctx)
    return nm__yaml_fail(&t->r.y, key(t, "length"), err, "a length of %d%s is more than the "
                         "model's context, %d", t->r.length,
                         t->p.n_prompt ? " behind the soft prompt" : "", t->m->n_ctx);
  double n = 0;                    /* weights that are multiplied: all but a table's */
  for (size_t i = 0; i < t->m->g->n_tensors; i++) {
    const struct nm__gguf_tensor *w = &t->m->g->tensors[i];
    if (w->n_dims > 1 && (!strstr(w->name, "_embd") ||
                          (t->m->tied && !strcmp(w->name, "token_embd.weight"))))
      n += (double)(w->ne[0] * w->ne[1]);
  }
  t->flops_per_token = 4 * n + 2 * ((double)t->p.n_floats < n ? (double)t->p.n_floats : n);
  if (t->r.base) return nm_model_hash(t->m, t->at.base, err);
  return NM_OK;
}

/* ---- the optimiser ------------------------------------------------------------------ */

static int choose_groups(struct nm__training *t, nm_err *err) {
  t->group = nm__alloc((size_t)t->p.n + 1, sizeof *t->group);
  t->kind = nm__alloc((size_t)t->p.n + 1, sizeof *t->kind);
  if (!t->group || !t->kind) return nm__fail_memory(err, "the groups", (size_t)t->p.n * 8);
  for (int i = 0; i < t->p.n; i++) {
    int k = 0;
    for (bool hit = false; k < t->r.n_groups; k++) {
      const struct nm__texts_list *m = &t->r.group[k].match;
      hit = m->n == 0;
      for (int j = 0; j < m->n && !hit; j++) hit = !fnmatch(m->v[j], t->p.v[i].name, 0);
      if (hit) break;
    }
    if (k == t->r.n_groups)
      return nm__yaml_fail(&t->r.y, key(t, "optimizer"), err, "tensor %s is in no group: let the "
                           "last one have no 'match'", t->p.v[i].name);
    t->group[i] = k;
    t->kind[i] = t->r.group[k].optim.kind;
    if (t->kind[i] == NM__MUON && t->p.v[i].rows < 2)
      return nm__yaml_fail(&t->r.y, t->r.group[k].at, err, "muon is for matrices and %s is none: "
                           "put a group for it before", t->p.v[i].name);
  }
  return NM_OK;
}

/* Muon keeps three matrices and two squares of the smaller side. */
static size_t scratch(const struct nm__training *t) {
  size_t most = 0;
  for (int i = 0; i < t->p.n; i++) {
    size_t r = (size_t)t->p.v[i].rows, c = (size_t)t->p.v[i].cols, side = r < c ? r : c;
    size_t need = t->kind[i] == NM__MUON ? sizeof(float) * (3 * r * c + 2 * side * side) : 0;
    if (need > most) most = need;
  }
  return most + 4096;
}

static int make_optimiser(struct nm__training *t, nm_err *err) {
  int st = choose_groups(t, err);
  if (!st) st = nm__moments_make(&t->p, t->kind, &t->moments, err);
  if (!st) st = nm__stepper_init(&t->s, t->m, &t->p, t->o->threads, t->o->kernels, err);
  if (st) return st;
  t->s.again = t->r.recompute;
  t->s.ops.bf16 = t->r.precision == 1;
  t->opt = (struct nm__ops){.mode = NM__RUN, .kern = t->s.ops.kern, .pool = t->s.ops.pool};
  return nm__arena_init(&t->opt.arena, scratch(t), err);
}

/* ---- data ---------------------------------------------------------------------------- */

static int make_sets(struct nm__training *t, const struct nm__sources *s, struct nm__set **out,
                     bool pack, nm_err *err) {
  struct nm__set_opts o = {t->r.length, pack, t->r.eos, s == &t->r.data ? &t->r : NULL, &t->chat};
  *out = nm__alloc((size_t)s->n + 1, sizeof **out);
  if (!*out) return nm__fail_memory(err, "the data", (size_t)s->n * sizeof **out);
  int st = NM_OK;
  for (int i = 0; i < s->n && !st; i++)
    st = nm__set_make(&t->r.y, &s->v[i], t->m, &o, &(*out)[i], err);
  return st;
}

/* The recipe without what changes no trained value. */
static int hash_recipe(struct nm__training *t, nm_err *err) {
  static const char *const beside[] = {"out", "save", "checkpoint", "eval", "recompute",
                                       "taps", "probes"};
  json_t *copy = json_copy(t->r.y.root);
  for (size_t i = 0; copy && i < sizeof beside / sizeof *beside; i++)
    json_object_del(copy, beside[i]);
  char *text = copy ? json_dumps(copy, JSON_SORT_KEYS | JSON_COMPACT) : NULL;
  if (text) nm__hash_hex(text, strlen(text), t->at.recipe);
  json_decref(copy);
  free(text);
  return text ? NM_OK : nm__fail_memory(err, "the recipe", 0);
}

static int make_data(struct nm__training *t, nm_err *err) {
  int st = nm__chat_how(&t->r, t->m, &t->chat, err);
  if (!st) st = make_sets(t, &t->r.data, &t->set, t->r.pack, err);
  if (!st) st = make_sets(t, &t->r.eval, &t->eval, false, err);
  if (!st) st = nm__stream_init(&t->stream, &t->r, t->set, t->m, err);
  t->batch = nm__alloc(2 * (size_t)t->r.batch, sizeof *t->batch);
  if (!st && !t->batch) st = nm__fail_memory(err, "a batch", (size_t)t->r.batch * 8);
  if (st) return st;
  nm__sets_hash(t->set, t->r.data.n, t->at.data);
  t->at.seed = (uint64_t)t->r.seed;
  return hash_recipe(t, err);
}

/* ---- all ------------------------------------------------------------------------------ */

int nm__training_open(struct nm__training *t, const char *recipe, nm_err *err) {
  t->eval_loss = -1;
  int st = nm__recipe_read(recipe, &t->r, err);
  if (!st) st = open_folder(t, recipe, err);
  if (!st) st = make_model(t, err);
  if (!st) st = make_optimiser(t, err);
  if (!st) st = make_data(t, err);
  if (!st) st = nm__training_losses(t, err);
  return st ? st : nm__watch_open(t, err);
}

void nm__training_close(struct nm__training *t) {
  if (t->metrics) fclose(t->metrics);
  nm__stream_done(&t->stream);
  for (int i = 0; t->set && i < t->r.data.n; i++) nm__set_done(&t->set[i]);
  for (int i = 0; t->eval && i < t->r.eval.n; i++) nm__set_done(&t->eval[i]);
  free(t->set);
  free(t->eval);
  free(t->batch);
  nm__watch_done(t);
  nm__training_losses_done(t);
  nm__chat_how_done(&t->chat);
  nm__arena_done(&t->opt.arena);
  nm__stepper_done(&t->s);
  nm__moments_done(&t->moments, &t->p);
  free(t->group);
  free(t->kind);
  nm_model_close(t->m);
  nm__params_done(&t->p);
  nm__gguf_close(t->base);
  nm__runs_close(t->runs);
  nm__recipe_done(&t->r);
  free(t->dir);
  free(t->root);
}

enum { PEAK_TURNS = 400000 };

static void peak_tile(void *v, int tile, int thread) {
  (void)tile, (void)thread;
  volatile float sink = ((const struct nm__kern *)v)->fma_peak(PEAK_TURNS);
  (void)sink;
}

double nm__training_peak(struct nm__training *t) {
  int tiles = 4 * nm__pool_size(t->s.ops.pool);
  double best = 0;
  for (int i = 0; i < 3; i++) {
    double start = nm__now();
    nm__pool_run(t->s.ops.pool, tiles, peak_tile, (void *)t->s.ops.kern);
    double rate = 24.0 * t->s.ops.kern->lanes * PEAK_TURNS * tiles / (nm__now() - start);
    if (rate > best) best = rate;
  }
  return best;
}
