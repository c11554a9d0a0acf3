/* trace.c - noema trace-graph: options, conditions, the runs of their walks, what is kept so that a
 * run that was cut off goes on. */
#include "look/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_WALKS = 1024, MOST_OFF = 64 };

/* ---- options -------------------------------------------------------------------- */

static int check_lengths(struct nm__trace *t, nm_err *err) {
  static const int usual[] = {10, 50, 100, 400};
  bool ids = t->o->words && !strcmp(t->o->words, "ids");     /* no begin token */
  int own = t->o->n_lengths, room = nm__engine_ctx(t->e) - !ids;
  t->n_lengths = own ? own : 4;
  if (own < 0 || own > NM__WALK_LENGTHS)
    return nm__fail(err, NM_EUSAGE, "at most %d lengths can be looked at", NM__WALK_LENGTHS);
  memcpy(t->length, own ? t->o->lengths : usual, sizeof *t->length * (size_t)t->n_lengths);
  if (!own && t->length[3] > room) t->length[3] = room;
  for (int i = 0; i < t->n_lengths; i++)
    if (t->length[i] < 2 || (i && t->length[i] <= t->length[i - 1]))
      return nm__fail(err, NM_EUSAGE, "lengths must be ascending and at least 2; %d is not",
                      t->length[i]);
  int last = t->length[t->n_lengths - 1];
  if (last <= room) return NM_OK;
  return nm__fail(err, NM_EUSAGE, "a walk of %d words%s does not fit the context of %d positions "
                  "(--contexts, --ctx)", last, ids ? "" : " and a begin token", room + !ids);
}

/* "all", or "embed,3,5-8", to a glob of sites. */
static int read_layers(struct nm__trace *t, nm_err *err) {
  const char *s = t->o->layers ? t->o->layers : "all";
  size_t at = 0;
  if (!strcmp(s, "all")) s = "embed,*";
  while (*s) {
    size_t n = strcspn(s, ",");
    bool embed = n == 5 && !memcmp(s, "embed", 5);
    if (!n || n > 20 || at + n + 24 > sizeof t->sites ||
        (!embed && strspn(s, "0123456789-*") < n))
      return nm__fail(err, NM_EUSAGE, "layers are all, or a list such as embed,3,5-8: '%.40s' is "
                      "neither", t->o->layers);
    at += (size_t)snprintf(t->sites + at, sizeof t->sites - at,
                           embed ? "%s%.*s" : "%sblk.%.*s.resid_post", at ? "|" : "", (int)n, s);
    s += n + (s[n] == ',');
  }
  return NM_OK;
}

static int check(struct nm__trace *t, nm_err *err) {
  const nm_trace_opts *o = t->o;
  t->n_walks = o->walks ? o->walks : 16;
  t->window = o->window ? o->window : 200;
  if (t->n_walks < 1 || t->n_walks > MOST_WALKS || t->window < 1)
    return nm__fail(err, NM_EUSAGE, "walks are 1 to %d, a window at least 1", MOST_WALKS);
  int st = check_lengths(t, err);
  return st ? st : read_layers(t, err);
}

/* ---- conditions -------------------------------------------------------------------- */

static void condition(struct nm__trace *t, const char *name, const struct nm__walks *w,
                      nm_edits *edits) {
  struct nm__condition *c = &t->c[t->n_conditions++];
  *c = (struct nm__condition){.edits = edits, .w = w};
  snprintf(c->name, sizeof c->name, "%s", name);
}

/* One "prev:2". */
static int ablation(struct nm__trace *t, const char *kind, int k, nm_err *err) {
  bool prev = !strcmp(kind, "prev");
  char name[48];
  nm_edits *off;
  nm__head_sort(t->head, t->n_heads, prev ? NM__PREVIOUS : NM__INDUCTION);
  int st = nm__heads_off(t->head, k, &off, err);
  snprintf(name, sizeof name, "%s top %d off", prev ? "previous-token" : "induction", k);
  if (!st) condition(t, name, &t->walk, off);
  return st;
}

static int make_ablations(struct nm__trace *t, int32_t bos, nm_err *err) {
  struct nm__head drawn[MOST_OFF];
  char kind[8] = "", name[48];
  int k, used, most = 0, st = NM_OK;
  const char *s = t->o->ablate;
  if (!s || !*s) return NM_OK;
  t->n_heads = t->m->L * t->m->H;
  st = nm__head_scores(t->e, t->m, bos, t->o->seed, t->o->progress, &t->head, err);
  while (!st && *s) {
    used = 0;
    if (sscanf(s, "%4[a-z]:%4d%n", kind, &k, &used) != 2 || (s[used] && s[used] != ',') ||
        (strcmp(kind, "prev") && strcmp(kind, "ind")) || k < 1 || k > MOST_OFF ||
        k > t->n_heads || t->n_conditions == NM__CONDITIONS - 1)
      return nm__fail(err, NM_EUSAGE, "ablations are prev:N and ind:N, N from 1 to %d, at most "
                                      "%d of "
                      "them: '%.40s' is not", t->n_heads < MOST_OFF ? t->n_heads : MOST_OFF,
                      NM__CONDITIONS - 3, t->o->ablate);
    st = ablation(t, kind, k, err);
    most = k > most ? k : most;
    s += used + (s[used] == ',');
  }
  if (st) return st;
  nm_edits *off;
  int n = nm__heads_random(t->head, t->n_heads, most, most, t->o->seed, drawn);
  if (n < most)
    return nm__fail(err, NM_EUSAGE, "of %d heads none are left for %d random ones: silence fewer",
                    t->n_heads, most);
  st = nm__heads_off(drawn, n, &off, err);
  snprintf(name, sizeof name, "random %d off", n);
  if (!st) condition(t, name, &t->walk, off);
  return st;
}

static int make_conditions(struct nm__trace *t, nm_err *err) {
  int32_t bos;
  int T = t->length[t->n_lengths - 1];
  int st = nm__trace_words(t->m, t->o->words, t->g.n, t->o->seed, &t->words, &bos, err);
  for (int i = 0; i < t->g.n && !st; i++) t->name[i] = t->words.word[i];
  for (int k = 0; k < 2 && !st; k++)
    st = nm__walks_draw(&t->g, t->n_walks, T, bos, t->words.id, t->words.n, false, t->o->seed,
                        k ? &t->shuffled : &t->walk, err);
  if (st) return st;
  nm__walks_shuffle(&t->shuffled, t->o->seed + 1);
  condition(t, "as it is", &t->walk, NULL);
  condition(t, "shuffled", &t->shuffled, NULL);
  return make_ablations(t, bos, err);
}

/* ---- what is kept ---------------------------------------------------------------------- */

/* Everything the sums of a condition depend on. */
static int key_of(struct nm__trace *t, const struct nm__condition *c, char key[33], nm_err *err) {
  struct nm__buf b;
  char hex[33];
  nm__buf_init(&b, (size_t)1 << 30);
  int st = nm_model_hash((nm_model *)(uintptr_t)t->m, hex, err);
  nm__buf_printf(&b, "%s|%s|%s|%d|%d|%s|%d|%s|", hex, NM_VERSION, t->sites, t->window,
                 nm__engine_ctx(t->e), nm__engine_gelu(t->e), t->n_lengths, nm_engine_act(t->e));
  nm__buf_put(&b, t->length, sizeof *t->length * (size_t)t->n_lengths);
  nm__buf_put(&b, c->w->ids, sizeof *c->w->ids * (size_t)(c->w->n * (c->w->lead + c->w->T)));
  nm__buf_put(&b, c->w->node, sizeof *c->w->node * (size_t)(c->w->n * c->w->T));
  for (int i = 0; i < nm_edits_n(c->edits); i++)
    nm__buf_printf(&b, "|%s", nm_edits_what(c->edits, i));
  for (int i = 0; i < t->g.n; i++)
    nm__buf_put(&b, t->g.next[i], (size_t)t->g.degree[i]);
  if (!st && b.failed) st = nm__fail_memory(err, "a key", b.len);
  if (!st) nm__hash_hex(b.s, b.len, key);
  nm__buf_done(&b);
  return st;
}

enum { HEAD = 64 };
struct keeping { struct nm__trace *t; struct nm__condition *c; char key[33], *path; };

/* After every walk: the sums so far, whole or not at all. */
static int keep(void *arg, nm_err *err) {
  struct keeping *k = arg;
  const struct nm__traced *s = &k->c->t;
  char head[HEAD] = {0};
  struct nm__out f;
  snprintf(head, sizeof head, "noema trace %s %d", k->key, s->done);
  int st = nm__out_open(k->path, &f, err);
  if (st) return st;
  st = nm__out_write(&f, head, HEAD, err);
  if (!st) st = nm__out_write(&f, s->acc, s->n_acc * sizeof(double), err);
  if (!st) st = nm__out_write(&f, s->sum, s->n_sum * sizeof(double), err);
  if (!st) st = nm__out_write(&f, s->count, s->n_count * sizeof(double), err);
  if (st) return nm__out_abort(&f), st;
  st = nm__out_close(&f, err);
  char what[64];
  snprintf(what, sizeof what, "walks, %.40s", k->c->name);
  return st ? st : nm__progress(k->t->o->progress, what, s->done, k->c->w->n, err);
}

/* Anything but a whole file of the same key is as if there were none. */
static void take_kept(struct keeping *k) {
  struct nm__traced *s = &k->c->t;
  struct nm__map f;
  char head[HEAD + 1] = "", want[HEAD];
  int done = 0;
  if (!nm__exists(k->path) || nm__map_open(k->path, &f, NULL)) return;
  snprintf(want, sizeof want, "noema trace %s ", k->key);
  if (f.size == HEAD + (s->n_acc + s->n_sum + s->n_count) * sizeof(double)) {
    memcpy(head, f.data, HEAD);
    if (!strncmp(head, want, strlen(want)) && sscanf(head + strlen(want), "%6d", &done) == 1 &&
        done > 0 && done <= k->c->w->n) {
      const uint8_t *at = f.data + HEAD;
      memcpy(s->acc, at, s->n_acc * sizeof(double));
      memcpy(s->sum, at += s->n_acc * sizeof(double), s->n_sum * sizeof(double));
      memcpy(s->count, at + s->n_sum * sizeof(double), s->n_count * sizeof(double));
      s->done = done;
    }
  }
  nm__map_close(&f);
}

static int run_condition(struct nm__trace *t, int i, nm_err *err) {
  struct keeping k = {.t = t, .c = &t->c[i]};
  char file[32];
  snprintf(file, sizeof file, "walks-%d.bin", i);
  k.path = nm__path_join(t->rec.dir, file);
  int st = k.path ? key_of(t, k.c, k.key, err) : nm__fail_memory(err, "a file name", 0);
  if (!st)
    st = nm__traced_new(t->m, k.c->w, t->sites, t->length, t->n_lengths, t->window, true, &k.c->t,
                        err);
  if (!st) {
    take_kept(&k);
    st = nm__traced_run(t->e, k.c->w, t->sites, k.c->edits, &k.c->t, keep, &k, err);
  }
  free(k.path);
  return st;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static int baselines(struct nm__trace *t, nm_err *err) {
  nm__rule_by_chance(&t->g, t->chance);
  int st = nm__geometry_random(&t->g, NULL, t->D, false, t->o->seed, &t->plain, err);
  return st ? st : nm__geometry_random(&t->g, NULL, t->D, true, t->o->seed, &t->mixed, err);
}

static void forget_kept(const struct nm__trace *t) {
  char file[32];
  for (int i = 0; i < t->n_conditions; i++) {
    snprintf(file, sizeof file, "walks-%d.bin", i);
    char *path = nm__path_join(t->rec.dir, file);
    if (path) remove(path);
    free(path);
  }
}

static void trace_done(struct nm__trace *t, nm_trace_result *out, int st) {
  for (int i = 0; i < t->n_conditions; i++) {
    nm__traced_done(&t->c[i].t);
    nm_edits_free(t->c[i].edits);
  }
  nm__walks_done(&t->walk);
  nm__walks_done(&t->shuffled);
  nm__trace_words_done(&t->words);
  nm__gram_done(&t->gram);
  nm__accuracy_done(&t->accuracy);
  free(t->head);
  free(t);
  if (st) nm_trace_result_free(out);
}

static int finish(struct nm__trace *t, int st, nm_trace_result *out, nm_err *err) {
  if (!st && !(out->dir = nm__strdup(t->rec.dir))) st = nm__fail_memory(err, "a folder name", 0);
  if (t->rec.id) nm__record_end(&t->rec, st, out->summary, err);
  trace_done(t, out, st);
  return st;
}

int nm_trace_graph(nm_engine *e, const nm_trace_opts *o, nm_trace_result *out, nm_err *err) {
  struct nm__trace *t = nm__alloc(1, sizeof *t);
  nm_err own;
  if (!err) err = &own;
  *out = (nm_trace_result){0};
  if (!t) return nm__fail_memory(err, "a run", sizeof *t);
  t->o = o, t->e = e, t->m = nm__engine_model(e), t->r = out, t->D = t->m->D;
  int st = NM_OK;
  if (!t->m->causal)
    st = nm__fail(err, NM_EUSAGE, "%s is an encoder: it names no next word", t->m->path);
  if (!st) st = nm__graph_open(o->graph ? o->graph : "grid:4x4", &t->g, err);
  if (!st) st = check(t, err);
  if (!st) st = make_conditions(t, err);
  if (!st)
    st = nm__record_begin(&t->rec, "trace-graph", o->out, "trace.json", t->m->path, o->command,
                          nm__engine_record(e), err);
  for (int i = 0; i < t->n_conditions && !st; i++) st = run_condition(t, i, err);
  if (!st) st = baselines(t, err);
  if (!st) st = nm__trace_show(t, err);
  if (!st) forget_kept(t);
  return finish(t, st, out, err);
}

/* ---- files ----------------------------------------------------------------------------------- */

static int read_files(struct nm__trace *t, nm_err *err) {
  struct nm__map f;
  int st = NM_OK;
  if (t->o->gram) {
    if ((st = nm__map_open(t->o->gram, &f, err))) return st;
    st = nm__gram_parse(t->o->gram, (const char *)f.data, f.size, &t->gram, err);
    nm__map_close(&f);
  }
  if (!st && t->o->accuracy) {
    if ((st = nm__map_open(t->o->accuracy, &f, err))) return st;
    st = nm__accuracy_parse(t->o->accuracy, (const char *)f.data, f.size, &t->accuracy, err);
    nm__map_close(&f);
  }
  if (!st && t->o->gram && t->gram.n != t->g.n)
    st = nm__fail(err, NM_EFORMAT, "%s holds %d nodes, the graph %s has %d (--graph)", t->o->gram,
                  t->gram.n, t->g.name, t->g.n);
  for (int i = 0; !st && i < t->gram.n; i++) t->name[i] = t->gram.name[i];
  return st;
}

int nm_trace_files(const nm_trace_opts *o, nm_trace_result *out, nm_err *err) {
  struct nm__trace *t = nm__alloc(1, sizeof *t);
  nm_err own;
  if (!err) err = &own;
  *out = (nm_trace_result){0};
  if (!t) return nm__fail_memory(err, "a run", sizeof *t);
  t->o = o, t->r = out, t->D = o->dims ? o->dims : 4096;
  int st = NM_OK;
  if (!o->gram && !o->accuracy)
    st = nm__fail(err, NM_EUSAGE, "neither a Gram matrix nor accuracies are given");
  if (!st && (t->D < 2 || t->D > 1 << 20))
    st = nm__fail(err, NM_EUSAGE, "random vectors have 2 to %d dimensions", 1 << 20);
  if (!st) st = nm__graph_open(o->graph ? o->graph : "grid:4x4", &t->g, err);
  if (!st) st = read_files(t, err);
  if (!st) st = baselines(t, err);
  if (!st)
    st = nm__record_begin(&t->rec, "trace-graph", o->out, "trace.json",
                          o->gram ? o->gram : o->accuracy, o->command, NULL, err);
  if (!st) st = nm__trace_show_files(t, err);
  return finish(t, st, out, err);
}

void nm_trace_result_free(nm_trace_result *r) {
  free(r->dir);
  free(r->summary);
  free(r->text);
  free(r->json);
  *r = (nm_trace_result){0};
}
