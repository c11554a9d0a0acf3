/* recipe.c - the keys of a recipe, and what must hold between them. */
#include "learn/recipe.h"

#include <stdlib.h>
#include <string.h>

#define BIG 2147483647.0

/* ---- data -------------------------------------------------------------------- */

static const char *const orders[] = {"file", "shuffled", NULL};
static const char *const sides[] = {"both", "train", "test", NULL};

#define AT(field) offsetof(struct nm__source, field)
static const struct nm__key source_keys[] = {
    {"file", NM__K_TEXT, AT(file), 0, 0, NULL},
    {"world", NM__K_TEXT, AT(world), 0, 0, NULL},
    {"set", NM__K_TEXTS, AT(set), 0, 0, NULL},
    {"n", NM__K_INT, AT(n), 1, 1 << 24, NULL},
    {"W", NM__K_INT, AT(W), 0, BIG, NULL},
    {"seed", NM__K_INT, AT(seed), 0, BIG, NULL},
    {"split", NM__K_WORD, AT(split), 0, 0, sides},
    {"weight", NM__K_REAL, AT(weight), 0, 1e6, NULL},
    {"from_step", NM__K_INT, AT(from), 0, BIG, NULL},
    {"to_step", NM__K_INT, AT(to), 1, BIG, NULL},
    {"order", NM__K_WORD, AT(order), 0, 0, orders},
    {"group", NM__K_TEXT, AT(group), 0, 0, NULL},
    {0}};
#undef AT

static int read_source(const struct nm__yaml *y, const json_t *v, struct nm__source *s,
                       nm_err *err) {
  *s = (struct nm__source){.at = v, .n = 1000, .W = 1, .seed = 1, .weight = 1, .to = 2147483647};
  int st = nm__keys_read(y, v, "a source of data", source_keys, s, err);
  if (st) return st;
  if (!s->file == !s->world)
    return nm__yaml_fail(y, v, err, "a source of data has one of 'file' and 'world'");
  const char *const only_worlds[] = {"set", "n", "W", "seed", "split"};
  for (int i = 0; s->file && i < 5; i++)
    if (json_object_get(v, only_worlds[i]))
      return nm__yaml_fail(y, json_object_get(v, only_worlds[i]), err,
                           "'%s' belongs to a world, not to a file", only_worlds[i]);
  if (s->from >= s->to)
    return nm__yaml_fail(y, v, err, "from_step %d is not before to_step %d", s->from, s->to);
  return NM_OK;
}

static int read_sources(const struct nm__yaml *y, const json_t *v, struct nm__sources *out,
                        nm_err *err) {
  size_t n = json_array_size(v);
  if (!json_is_array(v) || !n)
    return nm__yaml_fail(y, v, err, "data must be a list of sources: '- file: F.jsonl'");
  out->v = nm__alloc(n, sizeof *out->v);
  if (!out->v) return nm__fail_memory(err, "the sources of data", n * sizeof *out->v);
  int st = NM_OK;
  for (size_t i = 0; i < n && !st; i++) {
    out->n++;
    st = read_source(y, json_array_get(v, i), &out->v[i], err);
  }
  return st;
}

static void sources_done(struct nm__sources *s) {
  for (int i = 0; i < s->n; i++) free(s->v[i].set.v);
  free(s->v);
}

/* Something can be drawn in every step; it changes only where a source begins or ends. */
static int always_something(const struct nm__recipe *r, nm_err *err) {
  for (int i = -1; i < 2 * r->data.n; i++) {
    const struct nm__source *s = i < 0 ? NULL : &r->data.v[i / 2];
    int step = !s ? 0 : i % 2 ? s->to : s->from;
    double sum = 0;
    if (step >= r->steps) continue;
    for (int k = 0; k < r->data.n; k++)
      if (r->data.v[k].from <= step && step < r->data.v[k].to) sum += r->data.v[k].weight;
    if (!(sum > 0))
      return nm__yaml_fail(&r->y, json_object_get(r->y.root, "data"), err,
                           "at step %d no source of data has a weight", step);
  }
  return NM_OK;
}

/* ---- the optimiser -------------------------------------------------------------- */

static const char *const kinds[] = {"sgd", "adamw", "muon", NULL};   /* as enum nm__optim_kind */
static const char *const schedules[] = {"constant", "linear", "cosine", "wsd", NULL};

#define AT(field) offsetof(struct nm__group, field)
static const struct nm__key group_keys[] = {
    {"match", NM__K_TEXTS, AT(match), 0, 0, NULL},
    {"kind", NM__K_WORD, AT(kind), 0, 0, kinds},
    {"lr", NM__K_REAL, AT(lr), 0, 1e6, NULL},
    {"decay", NM__K_REAL, AT(decay), 0, 1e3, NULL},
    {"beta1", NM__K_REAL, AT(beta1), 0, 0.999999, NULL},
    {"beta2", NM__K_REAL, AT(beta2), 0, 0.999999, NULL},
    {"eps", NM__K_REAL, AT(eps), 1e-30, 1, NULL},
    {0}};
#undef AT

static int read_group(const struct nm__yaml *y, const json_t *v, struct nm__group *g,
                      nm_err *err) {
  *g = (struct nm__group){.at = v, .kind = NM__ADAMW, .lr = 1, .beta1 = 0.9, .beta2 = 0.95,
                          .eps = 1e-8};
  int st = v ? nm__keys_read(y, v, "a group of the optimizer", group_keys, g, err) : NM_OK;
  g->optim = (struct nm__optim){(enum nm__optim_kind)g->kind, (float)g->beta1, (float)g->beta2,
                                (float)g->eps};
  return st;
}

/* One mapping, or a list of them. */
static int read_groups(struct nm__recipe *r, const json_t *v, nm_err *err) {
  size_t n = json_is_array(v) ? json_array_size(v) : 1;
  if (!n) return nm__yaml_fail(&r->y, v, err, "optimizer must not be empty");
  r->group = nm__alloc(n, sizeof *r->group);
  if (!r->group) return nm__fail_memory(err, "the groups", n * sizeof *r->group);
  int st = NM_OK;
  for (size_t i = 0; i < n && !st; i++) {
    r->n_groups++;
    st = read_group(&r->y, json_is_array(v) ? json_array_get(v, i) : v, &r->group[i], err);
  }
  return st;
}

/* ---- the whole ------------------------------------------------------------------- */

#define AT(field) offsetof(struct nm__recipe, field)
static const struct nm__key model_keys[] = {
    {"arch", NM__K_TEXT, AT(shape.arch), 0, 0, NULL},
    {"name", NM__K_TEXT, AT(shape.name), 0, 0, NULL},
    {"layers", NM__K_INT, AT(shape.L), 1, 4096, NULL},
    {"width", NM__K_INT, AT(shape.D), 1, 1 << 20, NULL},
    {"heads", NM__K_INT, AT(shape.H), 1, 4096, NULL},
    {"kv_heads", NM__K_INT, AT(shape.K), 1, 4096, NULL},
    {"head_width", NM__K_INT, AT(shape.head_dim), 2, 1024, NULL},
    {"mlp", NM__K_INT, AT(shape.F), 1, 1 << 22, NULL},
    {"context", NM__K_INT, AT(shape.ctx), 1, 1 << 24, NULL},
    {"window", NM__K_INT, AT(shape.window), 1, 1 << 24, NULL},
    {"global_every", NM__K_INT, AT(shape.every), 1, 4096, NULL},
    {"vocabulary", NM__K_INT, AT(shape.V), 1, 1 << 24, NULL},
    {"tied", NM__K_FLAG, AT(tied), 0, 0, NULL},
    {"rope_base", NM__K_REAL, AT(rope_base), 1.001, 1e12, NULL},
    {"eps", NM__K_REAL, AT(eps), 1e-12, 0.1, NULL},
    {"init", NM__K_REAL, AT(init), 1e-6, 10, NULL},
    {0}};
static const struct nm__key tokenizer_keys[] = {
    {"kind", NM__K_TEXT, AT(tokenizer), 0, 0, NULL},
    {"size", NM__K_INT, AT(tokenizer_size), 1, 1 << 22, NULL},
    {0}};
static const struct nm__key lora_keys[] = {
    {"rank", NM__K_INT, AT(lora_rank), 1, 4096, NULL},
    {"alpha", NM__K_REAL, AT(lora_alpha), 1e-6, 1e6, NULL},
    {"targets", NM__K_TEXTS, AT(lora_targets), 0, 0, NULL},
    {0}};
static const struct nm__key prompt_keys[] = {
    {"n", NM__K_INT, AT(prompt_n), 1, 1 << 16, NULL},
    {"init", NM__K_TEXT, AT(prompt_init), 0, 0, NULL},
    {"from", NM__K_TEXT, AT(prompt_from), 0, 0, NULL},
    {0}};
static const struct nm__key chat_keys[] = {
    {"template", NM__K_TEXT, AT(chat), 0, 0, NULL},
    {"date", NM__K_TEXT, AT(chat_date), 0, 0, NULL},
    {0}};
static const struct nm__key schedule_keys[] = {
    {"kind", NM__K_WORD, AT(schedule_kind), 0, 0, schedules},
    {"lr", NM__K_REAL, AT(schedule.lr), 0, 1e6, NULL},
    {"floor", NM__K_REAL, AT(schedule.floor), 0, 1, NULL},
    {"tail", NM__K_REAL, AT(schedule.tail), 0, 1, NULL},
    {"warmup", NM__K_INT, AT(warmup), 0, BIG, NULL},
    {0}};
static const struct nm__key noise_keys[] = {
    {"replace", NM__K_REAL, AT(noise), 0, 1, NULL},
    {"token", NM__K_TEXT, AT(noise_token), 0, 0, NULL},
    {0}};
static const struct nm__key ckpt_keys[] = {
    {"every", NM__K_INT, AT(ckpt_every), 1, BIG, NULL},
    {"keep", NM__K_INT, AT(ckpt_keep), 1, BIG, NULL},
    {0}};
#undef AT

/* The keys of the file; those that hold mappings or lists are kept for later. */
struct top {
  struct nm__recipe r;
  const json_t *model, *tokenizer, *lora, *data, *optimizer, *schedule, *noise, *eval, *ckpt;
  const json_t *prompt, *chat;
  struct nm__recipe_lists lists;
};
static const char *const precisions[] = {"f32", "bf16", NULL};
#define AT(field) offsetof(struct top, field)
static const struct nm__key top_keys[] = {
    {"base", NM__K_TEXT, AT(r.base), 0, 0, NULL},
    {"model", NM__K_ANY, AT(model), 0, 0, NULL},
    {"tokenizer", NM__K_ANY, AT(tokenizer), 0, 0, NULL},
    {"train", NM__K_TEXTS, AT(r.train), 0, 0, NULL},
    {"lora", NM__K_ANY, AT(lora), 0, 0, NULL},
    {"soft_prompt", NM__K_ANY, AT(prompt), 0, 0, NULL},
    {"rows", NM__K_ANY, AT(lists.rows), 0, 0, NULL},
    {"columns", NM__K_ANY, AT(lists.columns), 0, 0, NULL},
    {"learn_vectors", NM__K_ANY, AT(lists.vectors), 0, 0, NULL},
    {"data", NM__K_ANY, AT(data), 0, 0, NULL},
    {"chat", NM__K_ANY, AT(chat), 0, 0, NULL},
    {"length", NM__K_INT, AT(r.length), 2, 1 << 24, NULL},
    {"pack", NM__K_FLAG, AT(r.pack), 0, 0, NULL},
    {"eos", NM__K_FLAG, AT(r.eos), 0, 0, NULL},
    {"noise", NM__K_ANY, AT(noise), 0, 0, NULL},
    {"batch", NM__K_INT, AT(r.batch), 1, 1 << 20, NULL},
    {"slots", NM__K_INT, AT(r.slots), 1, 1 << 15, NULL},
    {"steps", NM__K_INT, AT(r.steps), 1, 999999999, NULL},
    {"seed", NM__K_INT, AT(r.seed), 0, BIG, NULL},
    {"optimizer", NM__K_ANY, AT(optimizer), 0, 0, NULL},
    {"schedule", NM__K_ANY, AT(schedule), 0, 0, NULL},
    {"clip", NM__K_REAL, AT(r.clip), 0, 1e9, NULL},
    {"loss", NM__K_ANY, AT(lists.loss), 0, 0, NULL},
    {"reference", NM__K_TEXT, AT(r.reference), 0, 0, NULL},
    {"recompute", NM__K_FLAG, AT(r.recompute), 0, 0, NULL},
    {"precision", NM__K_WORD, AT(r.precision), 0, 0, precisions},
    {"eval", NM__K_ANY, AT(eval), 0, 0, NULL},
    {"taps", NM__K_ANY, AT(lists.taps), 0, 0, NULL},
    {"probes", NM__K_ANY, AT(lists.probes), 0, 0, NULL},
    {"checkpoint", NM__K_ANY, AT(ckpt), 0, 0, NULL},
    {"out", NM__K_TEXT, AT(r.out), 0, 0, NULL},
    {"save", NM__K_TEXT, AT(r.save), 0, 0, NULL},
    {0}};
#undef AT

struct eval_keys { int every; const json_t *data; };

static int read_eval(struct nm__recipe *r, const json_t *v, nm_err *err) {
  static const struct nm__key keys[] = {
      {"every", NM__K_INT, offsetof(struct eval_keys, every), 1, BIG, NULL},
      {"data", NM__K_ANY, offsetof(struct eval_keys, data), 0, 0, NULL},
      {0}};
  struct eval_keys e = {0};
  int st = nm__keys_read(&r->y, v, "eval", keys, &e, err);
  if (st) return st;
  if (!e.every || !e.data)
    return nm__yaml_fail(&r->y, v, err, "eval needs 'every' (steps) and 'data'");
  r->eval_every = e.every;
  return read_sources(&r->y, e.data, &r->eval, err);
}

static int read_parts(struct top *t, nm_err *err) {
  struct nm__recipe *r = &t->r;
  const struct nm__yaml *y = &r->y;
  const struct { const json_t *v; const char *what; const struct nm__key *keys; } part[] = {
      {t->model, "model", model_keys},   {t->tokenizer, "tokenizer", tokenizer_keys},
      {t->lora, "lora", lora_keys},      {t->schedule, "schedule", schedule_keys},
      {t->noise, "noise", noise_keys},   {t->ckpt, "checkpoint", ckpt_keys},
      {t->prompt, "soft_prompt", prompt_keys}, {t->chat, "chat", chat_keys}};
  int st = NM_OK;
  for (size_t i = 0; i < sizeof part / sizeof *part && !st; i++)
    if (part[i].v) st = nm__keys_read(y, part[i].v, part[i].what, part[i].keys, r, err);
  if (!st && !t->data)
    return nm__yaml_fail(y, r->y.root, err, "a recipe needs 'data': a list of sources");
  if (!st) st = read_sources(y, t->data, &r->data, err);
  if (!st) st = read_groups(r, t->optimizer, err);
  if (!st && t->eval) st = read_eval(r, t->eval, err);
  return st ? st : nm__recipe_lists(r, &t->lists, err);
}

static int check_model(const struct top *t, nm_err *err) {
  struct nm__recipe *r = (struct nm__recipe *)&t->r;
  const struct nm__yaml *y = &r->y;
  if (!t->model == !r->base)
    return nm__yaml_fail(y, y->root, err, "a recipe has one of 'model' (a new one) and 'base'");
  if (r->base && t->tokenizer)
    return nm__yaml_fail(y, t->tokenizer, err, "the base model brings its own tokenizer");
  if (t->lora && r->train.n)
    return nm__yaml_fail(y, t->lora, err, "'train' and 'lora' do not go together");
  if (t->prompt && !r->prompt_n && !r->prompt_from)
    return nm__yaml_fail(y, t->prompt, err, "soft_prompt needs 'n', its rows, or 'from', a file");
  if (t->prompt && r->prompt_from && (r->prompt_n || r->prompt_init))
    return nm__yaml_fail(y, t->prompt, err, "'from' says all of a soft prompt: no 'n', no 'init'");
  if (t->lora && r->n_only)
    return nm__yaml_fail(y, t->lora, err, "'lora' does not go with 'rows' or 'columns'");
  if (t->lora && !r->base)
    return nm__yaml_fail(y, t->lora, err, "lora stands beside the weights of a 'base' model");
  if (t->lora && (!r->lora_rank || !r->lora_targets.n))
    return nm__yaml_fail(y, t->lora, err, "lora needs 'rank' and 'targets'");
  if (!t->model) return NM_OK;
  if (!r->shape.arch || !r->shape.L || !r->shape.D || !r->shape.H || !r->shape.ctx)
    return nm__yaml_fail(y, t->model, err,
                         "a new model needs arch, layers, width, heads and context");
  if (!r->tokenizer && !r->shape.V)
    return nm__yaml_fail(y, t->model, err, "a new model needs a 'tokenizer' (or, for data of ids "
                         "only, a 'vocabulary')");
  if (r->tokenizer && strcmp(r->tokenizer, "char") && strcmp(r->tokenizer, "word") &&
      strcmp(r->tokenizer, "bpe"))
    return nm__yaml_fail(y, t->tokenizer, err, "the kind of a tokenizer is char, word or bpe, "
                         "not '%.30s'", r->tokenizer);
  struct nm__shape s;
  nm_err own = {0};
  r->shape.untied = !r->tied;
  r->shape.rope_base = (float)r->rope_base;
  r->shape.eps = (float)r->eps;
  r->shape.std = (float)r->init;
  s = r->shape;
  if (!s.V) s.V = 1;
  if (nm__shape_check(&s, &own)) return nm__yaml_fail(y, t->model, err, "%s", own.text);
  return NM_OK;
}

static int check(const struct top *t, nm_err *err) {
  struct nm__recipe *r = (struct nm__recipe *)&t->r;
  const struct nm__yaml *y = &r->y;
  if (!r->steps) return nm__yaml_fail(y, y->root, err, "a recipe needs 'steps'");
  if (!r->length) r->length = t->model ? r->shape.ctx : 512;
  if (t->model && r->length > r->shape.ctx)
    return nm__yaml_fail(y, json_object_get(y->root, "length"), err,
                         "a length of %d is more than the context, %d", r->length, r->shape.ctx);
  if (r->slots & (r->slots - 1))
    return nm__yaml_fail(y, json_object_get(y->root, "slots"), err,
                         "slots must be a power of two, not %d", r->slots);
  if (strcmp(r->save, "f32") && strcmp(r->save, "f16") && strcmp(r->save, "bf16") &&
      strcmp(r->save, "q8_0"))
    return nm__yaml_fail(y, json_object_get(y->root, "save"), err,
                         "save is f32, f16, bf16 or q8_0, not '%.20s'", r->save);
  r->schedule.kind = (enum nm__schedule_kind)r->schedule_kind;
  r->schedule.warmup = r->warmup;
  r->schedule.steps = r->steps;
  int st = check_model(t, err);
  return st ? st : always_something(r, err);
}

static int read_all(struct top *t, nm_err *err) {
  struct nm__recipe *r = &t->r;
  r->tied = true;
  r->rope_base = 10000, r->eps = 1e-5, r->init = 0.02;
  r->lora_alpha = 16;
  r->batch = 8, r->slots = 1, r->seed = 1;
  r->clip = 1;
  r->save = "f32";
  r->chat_date = "2026-01-01";
  r->schedule = (struct nm__schedule){.lr = 1e-3, .floor = 0.1, .tail = 0.2};
  r->schedule_kind = NM__COSINE;
  r->ckpt_keep = 2;
  int st = nm__keys_read(&r->y, r->y.root, "a recipe", top_keys, t, err);
  if (!st) st = read_parts(t, err);
  return st ? st : check(t, err);
}

static int finish(struct top *t, int st, struct nm__recipe *r, nm_err *err) {
  if (!st) st = read_all(t, err);
  *r = t->r;
  if (st) nm__recipe_done(r);
  return st;
}

int nm__recipe_read(const char *path, struct nm__recipe *r, nm_err *err) {
  struct top t = {0};
  int st = nm__yaml_read(path, &t.r.y, err);
  return finish(&t, st, r, err);
}

int nm__recipe_parse(const char *name, const char *s, size_t n, struct nm__recipe *r,
                     nm_err *err) {
  struct top t = {0};
  int st = nm__yaml_parse(name, s, n, &t.r.y, err);
  return finish(&t, st, r, err);
}

void nm__recipe_done(struct nm__recipe *r) {
  sources_done(&r->data);
  sources_done(&r->eval);
  for (int i = 0; i < r->n_groups; i++) free(r->group[i].match.v);
  free(r->group);
  free(r->train.v);
  free(r->lora_targets.v);
  nm__recipe_lists_done(r);
  nm__yaml_done(&r->y);
  *r = (struct nm__recipe){0};
}
