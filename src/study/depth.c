/* depth.c - the study from data to report, in the order that keeps what is done:
 * every step's result is on disk before the next begins. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "core/json.h"
#include "model/adapter.h"
#include "report/report.h"
#include "study/depth.h"
#include "world/random.h"

struct study {
  nm_model *m, *random_m;
  nm_engine *e, *random_e;
  nm_depth_opts o;                 /* defaults filled in */
  char *dir, *cache, *root;
  struct nm__depth_set *sets;
  nm_depth_result *r;
  int to_layer;
  struct nm__runs *runs;
  int64_t run_id;
  double start;
};

static char *dup_or_empty(const char *s) { return nm__strdup(s ? s : ""); }

/* ---- folders and records ---------------------------------------------------- */

static int open_folder(struct study *S, nm_err *err) {
  char name[64], utc[32];
  if (S->o.out) {
    S->dir = nm__folder_name(S->o.out);
    char *slash = S->dir ? strrchr(S->dir, '/') : NULL;
    S->root = slash && slash > S->dir ? nm__strndup(S->dir, (size_t)(slash - S->dir))
                                      : nm__strdup(slash ? "/" : ".");
  } else {
    nm__utc(utc);
    for (char *c = utc; *c; c++) if (*c == ':') *c = '-';
    snprintf(name, sizeof name, "depth-%s-%d", utc, (int)getpid());
    S->root = nm__strdup("runs");
    S->dir = nm__path_join("runs", name);
  }
  if (!S->dir || !S->root) return nm__fail_memory(err, "a folder name", 0);
  char *done = nm__path_join(S->dir, "depth.json");
  bool exists = done && nm__exists(done);
  free(done);
  if (exists && !S->o.resume)
    return nm__fail(
        err, NM_EUSAGE,
        "%s already holds a finished run: choose another --out, or say --resume to do it again "
        "from its cache",
        S->dir);
  S->cache = S->o.cache ? nm__strdup(S->o.cache) : nm__path_join(S->dir, "cache");
  int st = nm__mkdirs(S->dir, err);
  return st ? st : nm__mkdirs(S->cache, err);
}

/* What config.json says beside what every run's does. */
static json_t *settings(struct study *S) {
  json_t *o = nm__engine_record(S->e), *data = json_array();
  for (int i = 0; i < S->o.n_data; i++)
    json_array_append_new(data, json_pack("{s:o, s:s}", "file", nm__json_text(S->sets[i].path),
                                          "hash", S->sets[i].hash));
  json_t *own = json_pack("{s:I, s:i, s:f, s:f, s:s, s:s, s:b, s:o}", "seed", (json_int_t)S->o.seed,
                          "repeats", S->o.repeats, "test_share", S->o.test_share, "C", S->o.C,
                          "site", S->o.site, "probe", S->o.forest ? "forest" : "linear",
                          "noise", S->o.noise, "data", data);
  json_object_update(o, own);
  json_decref(own);
  return o;
}

static int begin_record(struct study *S, nm_err *err) {
  int st = nm__runs_open(S->root, &S->runs, err);
  if (st) return st;
  nm__runs_settings(S->runs, settings(S));
  return nm__runs_begin(S->runs, "depth", S->dir, S->m->path, S->o.command ? S->o.command : "",
                        &S->run_id, err);
}

static void end_record(struct study *S, int st, const nm_err *err) {
  if (!S->run_id) return;
  const char *status = !st ? "done" : st == NM_EINTR ? "interrupted" : "failed";
  nm__runs_end(S->runs, S->run_id, status,
               !st && S->r->summary ? S->r->summary
               : err                ? err->text
                                    : "",
               nm__now() - S->start, NULL);
}

/* ---- the control with random weights ------------------------------------------- */

/* A file of its own beside the cache, gone as soon as it is mapped. */
static int open_random(struct study *S, nm_err *err) {
  char *path = nm__path_join(S->cache, "random-weights.gguf");
  if (!path) return nm__fail_memory(err, "a file name", 0);
  int st = nm__write_random_like(S->m->g->path, S->o.seed, path, S->o.progress, err);
  if (!st) st = nm_model_open(path, &S->random_m, err);
  if (!st) {
    nm_model_hash(S->random_m, (char[33]){0}, err);
    const char *gelu = nm__engine_gelu(S->e);
    nm_engine_opts eo = {.threads = nm_engine_threads(S->e),
                         .n_ctx = nm__engine_ctx(S->e),
                         .kernels = nm_engine_kernels(S->e),
                         .gelu = *gelu ? gelu : NULL,
                         .act = nm_engine_act(S->e)};
    st = nm_engine_new(S->random_m, &eo, &S->random_e, err);
  }
  unlink(path);
  free(path);
  return st;
}

/* ---- one data set ------------------------------------------------------------------ */

static int own_answer(struct study *S, const struct nm__depth_set *s, nm_depth_curve *c,
                      nm_err *err) {
  if ((c->no_answer = s->cannot_say)) return NM_OK;
  double *z = nm__alloc(s->n, sizeof *z), right = 0;
  int st = z ? nm__depth_answers(S->e, s, NULL, s->n, S->o.edits, z, S->o.progress, err)
             : nm__fail_memory(err, "answers", s->n * 8);
  for (size_t i = 0; i < s->n && !st; i++)
    right += (s->lab.n_labels > 2 ? (int)z[i] : z[i] >= 0) == s->lab.label[i];   /* ties: yes */
  free(z);
  if (st) return st;
  c->n_answer = s->n;
  c->answer.mean = right / (double)s->n;
  nm__wilson(right, (double)s->n, &c->answer.lo, &c->answer.hi);
  return NM_OK;
}

/* "own", "words", or "ACC[:NAME]". A model that cannot answer has no line of its own. */
static void one_anchor(const char *what, nm_depth_curve *c) {
  nm_depth_anchor *a = &c->anchor[c->n_anchors];
  *a = (nm_depth_anchor){.reached = -1};
  if (!strcmp(what, "own")) {
    if (!c->n_answer) return;
    snprintf(a->name, sizeof a->name, "own answer");
    a->acc = c->answer.mean;
  } else if (!strcmp(what, "words")) {
    snprintf(a->name, sizeof a->name, "bag of words");
    a->acc = c->words.mean;
  } else {
    char *end;
    a->acc = strtod(what, &end);
    snprintf(a->name, sizeof a->name, "%s", *end == ':' ? end + 1 : "anchor");
  }
  for (int l = c->n_layers - 1; l >= 1; l--)
    if (c->layer[l].acc.mean >= a->acc) a->reached = l - 1;
  c->n_anchors++;
}

static void set_anchors(const nm_depth_opts *o, nm_depth_curve *c) {
  if (!o->n_anchors) one_anchor("own", c);
  for (int i = 0; i < o->n_anchors; i++) one_anchor(o->anchor[i], c);
}

static int check_anchors(const nm_depth_opts *o, nm_err *err) {
  if (o->n_anchors > NM_DEPTH_ANCHORS)
    return nm__fail(err, NM_EUSAGE, "at most %d anchors, not %d", NM_DEPTH_ANCHORS, o->n_anchors);
  for (int i = 0; i < o->n_anchors; i++) {
    const char *s = o->anchor[i];
    char *end;
    if (!strcmp(s, "own") || !strcmp(s, "words")) continue;
    double v = strtod(s, &end);
    if (end == s || (*end && *end != ':') || !(v >= 0 && v <= 1))
      return nm__fail(err, NM_EUSAGE, "anchor '%.40s' is neither own nor words nor an accuracy "
                      "from 0 to 1 (0.71, or 0.71:NAME)", s);
  }
  return NM_OK;
}

static int describe(const struct study *S, const struct nm__depth_set *s, nm_depth_curve *c,
                    nm_err *err) {
  char *how = nm__alloc(strlen(s->lab.how) + 160, 1);
  if (how) {
    snprintf(how, strlen(s->lab.how) + 160, "%s%s", s->lab.how,
             S->o.noise ? "; aaa or bbb in front of every text" : "");
    if (s->too_long)
      snprintf(how + strlen(how), 110, "; %zu texts longer than the context were left out",
               s->too_long);
  }
  c->name = dup_or_empty(s->name);
  c->file = dup_or_empty(s->path);
  c->how = how;
  c->prompt_name = dup_or_empty(s->prompt_name);
  c->prompt = dup_or_empty(s->prompt);
  c->n = s->n;
  c->probe = S->o.forest ? "forest" : "linear";
  c->n_labels = s->lab.n_labels;
  c->chance = 1.0 / c->n_labels;
  bool named = true;
  for (int k = 0; k < c->n_labels; k++)
    named &= (c->label_name[k] = dup_or_empty(s->lab.label_name[k])) != NULL;
  for (size_t i = 0; i < s->n; i++) c->n_label[s->lab.label[i]]++;
  return named && c->name && c->file && c->how && c->prompt_name && c->prompt
             ? NM_OK
             : nm__fail_memory(err, "the curve", 0);
}

static void curve_done(nm_depth_curve *c) {
  char *const text[] = {c->name,   c->file,  c->how,    c->prompt_name,
                        c->prompt, c->split, c->vector, c->edit};
  for (size_t k = 0; k < sizeof text / sizeof *text; k++) free(text[k]);
  for (int k = 0; k < c->n_labels; k++) free(c->label_name[k]);
  free(c->confusion);
  free(c->split_converge);
  free(c->split_peak);
  free(c->layer);
  free(c->random);
  *c = (nm_depth_curve){0};
}

static int one_set(struct study *S, int i, nm_err *err) {
  struct nm__depth_set *s = &S->sets[i];
  nm_depth_curve *c = &S->r->curve[i];
  struct nm__depth_vectors real = {0}, random = {0};
  int st = describe(S, s, c, err);
  if (!st)
    st = nm__depth_capture(S->e, s->seqs, s->n, S->o.site, S->to_layer, S->o.edits, S->cache,
                           S->o.progress, &real, err);
  nm__gguf_drop(S->m->g);   /* one model's weights in memory at a time */
  if (!st)
    st = nm__depth_capture(S->random_e, s->seqs, s->n, S->o.site, S->to_layer, NULL, S->cache,
                           S->o.progress, &random, err);
  nm__gguf_drop(S->random_m->g);
  if (!st) st = nm__depth_fit(nm__engine_pool(S->e), s, &real, &random, &S->o, c, err);
  if (!st) st = own_answer(S, s, c, err);
  if (!st) set_anchors(&S->o, c);
  if (!st) st = nm__depth_causal(S->e, s, &S->o, S->dir, c, err);
  if (!st && S->o.save_probe && i == 0)
    st = nm__probe_save(S->o.save_probe, S->m, s, &real, &S->o, c, err);
  nm__depth_vectors_done(&real);
  nm__depth_vectors_done(&random);
  return st;
}

static char *summary(const nm_depth_result *r) {
  struct nm__buf b;
  nm__buf_init(&b, 4000);
  for (int i = 0; i < r->n_curves; i++) {
    const nm_depth_curve *c = &r->curve[i];
    nm__buf_printf(&b, "%s%s: ", i ? "; " : "", c->name);
    if (!c->above_controls)
      nm__buf_printf(&b, "peak %.3f, not above the controls (bag of words %.3f)",
                     c->layer[c->peak + 1].acc.mean, c->words.mean);
    else
      nm__buf_printf(&b, "readable from block %d, peak %.3f", c->converge,
                     c->layer[c->peak + 1].acc.mean);
  }
  return b.s;
}

/* ---- the whole --------------------------------------------------------------------- */

/* Curves and files go by name: a name that was there before gets its number. */
static int name_apart(struct study *S, int i, nm_err *err) {
  bool taken = false;
  for (int k = 0; k < i; k++) taken |= !strcmp(S->sets[k].name, S->sets[i].name);
  if (!taken) return NM_OK;
  size_t n = strlen(S->sets[i].name) + 16;
  char *name = nm__alloc(n, 1);
  if (!name) return nm__fail_memory(err, "a name", n);
  snprintf(name, n, "%s-%d", S->sets[i].name, i + 1);
  free(S->sets[i].name);
  S->sets[i].name = name;
  return NM_OK;
}

static int load_sets(struct study *S, nm_err *err) {
  S->sets = nm__alloc((size_t)S->o.n_data, sizeof *S->sets);
  S->r->curve = nm__alloc((size_t)S->o.n_data, sizeof *S->r->curve);
  if (!S->sets || !S->r->curve) return nm__fail_memory(err, "the data sets", 0);
  for (int i = 0; i < S->o.n_data; i++) {
    int st = nm__depth_set_load(S->m, nm__engine_ctx(S->e), S->o.data[i], &S->o, &S->sets[i], err);
    if (!st) st = name_apart(S, i, err);
    if (st) return st;
  }
  return NM_OK;
}

static int measure(struct study *S, nm_err *err) {
  char glob[160];
  snprintf(glob, sizeof glob, "embed|blk.0-%d.%s", S->to_layer, S->o.site);
  nm_tap taps[2] = {{glob, "last"}, {"logits", "last"}};
  for (int i = 0; i < S->o.n_data; i++)
    for (int answers = 0; answers < 2; answers++) {
      struct nm__depth_set *s = &S->sets[i];
      nm_memory n;
      nm_request r = {.seqs = answers ? s->answers : s->seqs,
                      .n_seqs = s->n,
                      .taps = &taps[answers],
                      .n_taps = 1,
                      .share_prefix = true};
      if (answers && s->cannot_say) continue;
      int st = nm_run_measure(S->e, &r, &n, err);
      if (st) return st;
      size_t fit = s->n * (size_t)S->m->D * sizeof(float) * 8; /* four layers, real and random */
      if (n.kv + n.activations < fit) n.activations = fit - n.kv;
      if (n.weights > S->r->need.weights) S->r->need.weights = n.weights;
      if (n.kv > S->r->need.kv) S->r->need.kv = n.kv;
      if (n.activations > S->r->need.activations) S->r->need.activations = n.activations;
      S->r->need.base = 2 * n.base + ((uint64_t)24 << 20);  /* both models' tables, row buffers */
    }
  return NM_OK;
}

static int check_opts(struct study *S, nm_err *err) {
  nm_depth_opts *o = &S->o;
  const char *why;                 /* a family without that norm is read at the block's output */
  if (!o->site) o->site = nm__site_exists(S->m, NM__S_MLP_NORM, &why) ? "mlp_norm" : "resid_post";
  if (!o->repeats) o->repeats = 10;
  if (o->test_share <= 0) o->test_share = 0.4;
  if (o->C <= 0) o->C = 1;
  S->to_layer = o->to_layer < 0 ? S->m->L - 1 : o->to_layer;
  if (!o->n_data) return nm__fail(err, NM_EUSAGE, "no data set was given");
  if (!S->m->tok)
    return nm__fail(err, NM_EFORMAT, "%s: has no tokenizer noema can use, so texts cannot be read",
                    S->m->path);
  if (S->to_layer >= S->m->L)
    return nm__fail(err, NM_EUSAGE, "--to-layer %d: the model's last block is %d", o->to_layer,
                    S->m->L - 1);
  if (o->test_share >= 1)
    return nm__fail(err, NM_EUSAGE, "the test share must lie between 0 and 1");
  if (strchr(o->site, '.') && strncmp(o->site, "mlp.", 4) && strncmp(o->site, "attn.", 5))
    return nm__fail(err, NM_EUSAGE,
                    "--site takes a name inside the block, such as mlp_norm or resid_post");
  return check_anchors(o, err);
}

static int run_study(struct study *S, nm_err *err) {
  int st = check_opts(S, err);
  if (!st) st = load_sets(S, err);
  if (!st) st = measure(S, err);
  if (st || S->o.dry_run) return st;
  if ((st = open_folder(S, err)) || (st = begin_record(S, err)) || (st = open_random(S, err)))
    return st;
  S->r->dir = dup_or_empty(S->dir);
  for (int i = 0; i < S->o.n_data && !st; i++) {
    st = one_set(S, i, err);
    if (st) curve_done(&S->r->curve[i]);       /* half a curve is not shown */
    else S->r->n_curves = i + 1;
  }
  if (S->r->n_curves) {            /* what is done is shown, also after Ctrl-C */
    nm_err ignored;
    S->r->summary = summary(S->r);
    int st2 = nm__depth_write(S->r, S->m, &S->o, st ? &ignored : err);
    if (!st) st = st2;
  }
  return st;
}

int nm_depth(nm_model *m, nm_engine *e, const nm_depth_opts *o, nm_depth_result *out, nm_err *err) {
  nm_err own;
  struct study S = {.m = m, .e = e, .o = *o, .r = out, .start = nm__now()};
  *out = (nm_depth_result){0};
  if (!err) err = &own;
  int st = run_study(&S, err);
  end_record(&S, st, err);
  nm__runs_close(S.runs);
  for (int i = 0; S.sets && i < o->n_data; i++) nm__depth_set_done(&S.sets[i]);
  free(S.sets);
  nm_engine_free(S.random_e);
  nm_model_close(S.random_m);
  free(S.dir);
  free(S.cache);
  free(S.root);
  if (st && st != NM_EINTR) nm_depth_result_free(out);
  return st;
}

void nm_depth_result_free(nm_depth_result *r) {
  for (int i = 0; r->curve && i < r->n_curves; i++) curve_done(&r->curve[i]);
  free(r->curve);
  free(r->dir);
  free(r->summary);
  *r = (nm_depth_result){0};
}

/* ---- records through the public face ------------------------------------------------- */

int nm_runs(const char *root, const char *find, nm_run_record **out, size_t *n, nm_err *err) {
  struct nm__runs *r;
  struct nm__run_row *rows;
  *out = NULL;
  *n = 0;
  int st = nm__runs_open_read(root, &r, err);
  if (st) return st;
  st = nm__runs_list(r, find, &rows, n, err);
  if (!st && !(*out = nm__alloc(*n, sizeof **out))) st = nm__fail_memory(err, "the runs", 0);
  for (size_t i = 0; i < *n && !st; i++) {
    nm_run_record *d = &(*out)[i];
    *d = (nm_run_record){.id = rows[i].id,
                         .seconds = rows[i].seconds,
                         .dir = dup_or_empty(rows[i].dir),
                         .model = dup_or_empty(rows[i].model),
                         .command = dup_or_empty(rows[i].command),
                         .summary = dup_or_empty(rows[i].summary)};
    memcpy(d->utc, rows[i].utc, sizeof d->utc);
    memcpy(d->verb, rows[i].verb, sizeof d->verb);
    memcpy(d->status, rows[i].status, sizeof d->status);
  }
  if (!st) nm__runs_rows_free(rows, *n);
  nm__runs_close(r);
  return st;
}

void nm_runs_free(nm_run_record *r, size_t n) {
  for (size_t i = 0; r && i < n; i++) {
    free(r[i].dir);
    free(r[i].model);
    free(r[i].command);
    free(r[i].summary);
  }
  free(r);
}
