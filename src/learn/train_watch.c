/* train_watch.c - what is looked at while a model is trained: the length of tapped activations on
 * the step's own batch, and linear probes on texts that are not trained on, each beside a probe
 * of shuffled labels. Nothing here changes a bit of what is learned. */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "file/table.h"
#include "learn/slot.h"
#include "learn/train.h"
#include "look/probe.h"
#include "tensor/math.h"

/* Texts with labels as samples, and which are held out. */
struct nm__probing {
  struct nm__sample *v;
  int n;
  uint8_t *label, *shuffled;
  struct nm__split split;
  struct nm__places places;
  int32_t *ids;
  float *weight;
};

static json_int_t step_of(const struct nm__training *t) { return (json_int_t)t->at.step; }

/* ---- taps -------------------------------------------------------------------- */

static double norm(const float *x, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
  return nm__sqrt(sum);
}

/* Rows of one site, to taps/SITE-step-000100.npy. */
static int save_rows(struct nm__training *t, const char *site, const float *x, int n, int sels,
                     int64_t width, nm_err *err) {
  char name[160];
  snprintf(name, sizeof name, "taps/%s-step-%06lld.npy", site, (long long)t->at.step);
  char *path = nm__path_join(t->dir, name), *folder = nm__path_join(t->dir, "taps");
  float *rows = nm__alloc((size_t)n * (size_t)width + 1, sizeof *rows);
  int st = path && folder && rows ? nm__mkdirs(folder, err)
                                  : nm__fail_memory(err, "a tap", (size_t)n * (size_t)width * 4);
  for (int i = 0; i < n && rows; i++)
    memcpy(rows + (size_t)i * (size_t)width, x + (size_t)i * (size_t)sels * (size_t)width,
           (size_t)width * sizeof *rows);
  if (!st) st = nm__npy_write(path, 2, (const int64_t[]){n, width}, rows, err);
  free(rows);
  free(folder);
  free(path);
  return st;
}

static int one_tap(struct nm__training *t, const struct nm__tap_key *e, bool save, nm_err *err) {
  struct nm__places p = {0};
  float *x = NULL;
  int n = 0;
  int st = nm__places_open(t->m, "a tap", e->site, e->where, true, &p, err);
  if (!st) st = nm__step_read(&t->s, t->batch, t->stream.n, &p, &x, &n, err);
  int64_t width = p.sels.n ? nm__sel_width(t->m, p.sels.v[0], 1) : 0;
  for (int k = 0; k < p.sels.n && !st; k++) {
    char name[64];
    double sum = 0;
    nm__sel_name(t->m, p.sels.v[k], name);
    const float *first = x + (size_t)k * (size_t)width;
    for (int i = 0; i < n; i++)
      sum += norm(first + (size_t)i * (size_t)p.sels.n * (size_t)width, (size_t)width);
    st = nm__metrics_line(t, json_pack("{s:I, s:s, s:s, s:f, s:i}", "step", step_of(t), "tap", name,
                                       "at", e->where ? e->where : "all", "mean_norm",
                                       n ? sum / n : 0.0, "rows", n), err);
    if (!st && save) st = save_rows(t, name, first, n, p.sels.n, width, err);
  }
  free(x);
  nm__places_done(&p);
  return st;
}

/* ---- texts of a probe -------------------------------------------------------- */

struct texts { char **text; uint8_t *label; uint64_t *twin; size_t n; };

static void texts_done(struct texts *v) {
  for (size_t i = 0; v->text && i < v->n; i++) free(v->text[i]);
  free(v->text);
  free(v->label);
  free(v->twin);
}

static int texts_room(struct texts *v, size_t n, nm_err *err) {
  v->text = nm__alloc(n + 1, sizeof *v->text);
  v->label = nm__alloc(n + 1, 1);
  v->twin = nm__alloc(n + 1, sizeof *v->twin);
  if (v->text && v->label && v->twin) return NM_OK;
  return nm__fail_memory(err, "the texts of a probe", n * 32);
}

static int texts_of_file(const struct nm__probe_key *e, struct texts *v, nm_err *err) {
  struct nm__table table;
  struct nm__labelled l = {0};
  struct nm__labelled_opts o = {e->text, e->label, e->group,
                                json_object_get(e->at, "n") ? (size_t)e->n : 0, 0};
  int st = nm__table_read(e->file, &table, err);
  if (st) return st;
  st = nm__labelled_from(e->file, &table, &o, &l, err);
  if (!st) st = texts_room(v, l.n, err);
  for (size_t i = 0; !st && i < l.n; i++, v->n++) {
    v->text[i] = nm__strdup(l.text[i]);
    v->label[i] = l.label[i];
    v->twin[i] = l.grouped ? l.group[i] : i;
    if (!v->text[i]) st = nm__fail_memory(err, "the texts of a probe", 0);
  }
  nm__labelled_done(&l);
  nm__table_done(&table);
  return st;
}

static int texts_of_world(const struct nm__probe_key *e, struct texts *v, nm_err *err) {
  nm_world *w;
  nm_world_item it = {0};
  int st = texts_room(v, (size_t)e->n, err);
  if (!st)
    st = nm_world_open(e->world, e->set.v, e->set.n, (uint64_t)e->W, (uint64_t)e->seed, &w, err);
  if (st) return st;
  for (int i = 0; i < e->n && !st; i++) {
    st = nm_world_make(w, (uint64_t)i, &it, err);
    if (!st && it.label != 0 && it.label != 1)
      st = nm__fail(err, NM_EFORMAT, "world %s has more than two labels, a probe needs two",
                    e->world);
    if (st) break;
    v->text[v->n] = nm__strdup(it.text);
    v->label[v->n] = (uint8_t)it.label;
    v->twin[v->n] = it.twin;
    if (!v->text[v->n++]) st = nm__fail_memory(err, "the texts of a probe", 0);
  }
  nm_world_item_done(&it);
  nm_world_close(w);
  return st;
}

static int ascending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

/* Twins to one side: numbers of groups from 0 on. */
static int split(const struct nm__probe_key *e, const struct texts *v, struct nm__probing *p,
                 uint64_t seed, nm_err *err) {
  uint64_t *all = nm__alloc(v->n + 1, sizeof *all);
  uint32_t *group = nm__alloc(v->n + 1, sizeof *group);
  size_t n = 0;
  int st = all && group ? NM_OK : nm__fail_memory(err, "the texts of a probe", v->n * 12);
  if (!st && v->n) {
    memcpy(all, v->twin, v->n * sizeof *all);
    qsort(all, v->n, sizeof *all, ascending);
    for (size_t i = 0; i < v->n; i++)
      if (!i || all[i] != all[i - 1]) all[n++] = all[i];
    for (size_t i = 0; i < v->n; i++)
      group[i] = (uint32_t)((uint64_t *)bsearch(&v->twin[i], all, n, sizeof *all, ascending) - all);
    st = nm__split_make(v->n, v->label, group, n, e->test, seed, &p->split, err);
  }
  free(all);
  free(group);
  return st;
}

/* ---- a probe's samples ------------------------------------------------------- */

static int make_samples(struct nm__training *t, const struct texts *v, struct nm__probing *p,
                        nm_err *err) {
  struct nm__ids ids = {0};
  size_t *end = nm__alloc(v->n + 1, sizeof *end);
  int most = t->m->n_ctx - t->p.n_prompt, st = NM_OK;
  if (!t->m->tok)
    st = nm__fail(err, NM_EFORMAT, "a probe needs a tokenizer, which the model lacks");
  p->v = nm__alloc(v->n + 1, sizeof *p->v);
  if (!st && (!end || !p->v)) st = nm__fail_memory(err, "the texts of a probe", v->n * 8);
  for (size_t i = 0; i < v->n && !st; i++) {
    size_t from = ids.n;
    st = nm__tok_encode(t->m->tok, v->text[i], strlen(v->text[i]), (struct nm__tok_opts){0}, &ids,
                        err);
    if (!st && (ids.n == from || ids.n - from > (size_t)most))
      st = nm__fail(err, NM_EFORMAT, "text %zu of a probe has %zu tokens, 1 to %d are possible",
                    i + 1, ids.n - from, most);
    end[i] = ids.n;
  }
  p->weight = st ? NULL : nm__alloc(ids.n + 1, sizeof *p->weight);
  if (!st && !p->weight) st = nm__fail_memory(err, "the texts of a probe", ids.n * 4);
  p->ids = ids.id;
  for (size_t i = 0; i < v->n && !st; i++) {
    size_t from = i ? end[i - 1] : 0;
    p->v[p->n++] = (struct nm__sample){.ids = ids.id + from, .weight = p->weight + from,
                                       .n = (int)(end[i] - from)};
  }
  free(end);
  return st;
}

static int open_probe(struct nm__training *t, const struct nm__probe_key *e, struct nm__probing *p,
                      nm_err *err) {
  struct texts v = {0};
  int st = nm__places_open(t->m, "a probe", e->site, e->where ? e->where : "last", true, &p->places,
                           err);
  if (!st && !nm__at_single(&p->places.at))
    st = nm__fail(err, NM_EFORMAT, "a probe reads one position of a text: 'at' must be last, or a "
                  "number");
  if (!st) st = e->file ? texts_of_file(e, &v, err) : texts_of_world(e, &v, err);
  if (!st) st = split(e, &v, p, (uint64_t)t->r.seed, err);
  if (!st) st = make_samples(t, &v, p, err);
  if (!st && !(p->shuffled = nm__alloc(v.n + 1, 1))) st = nm__fail_memory(err, "the labels", v.n);
  if (!st) {
    nm__shuffle_labels(v.label, v.n, (uint64_t)t->r.seed, p->shuffled);
    p->label = v.label;
    v.label = NULL;
  }
  texts_done(&v);
  return st;
}

/* ---- fitting ----------------------------------------------------------------- */

/* Accuracy on the rows that were held out. */
static int fit(const struct nm__probing *p, const uint8_t *label, const float *x, size_t ld, int d,
               double C, double *out, nm_err *err) {
  struct nm__logreg m = {0};
  struct nm__logreg_opts o = {.C = C};
  size_t right = 0, n = p->split.n_test;
  int st = nm__logreg_fit(x, ld, d, p->split.train, p->split.n_train, label, &o, &m, err);
  for (size_t i = 0; i < n && !st; i++) {
    uint32_t row = p->split.test[i];
    right += (nm__logreg_score(&m, x + row * ld) > 0) == (label[row] != 0);
  }
  *out = n ? (double)right / (double)n : 0;
  nm__logreg_done(&m);
  return st;
}

static int one_probe(struct nm__training *t, int i, nm_err *err) {
  const struct nm__probe_key *e = &t->r.probe[i];
  const struct nm__probing *p = &t->probing[i];
  const struct nm__sample **v = nm__alloc((size_t)p->n + 1, sizeof *v);
  float *x = NULL;
  int n = 0;
  if (!v) return nm__fail_memory(err, "a probe", (size_t)p->n * sizeof *v);
  for (int k = 0; k < p->n; k++) v[k] = &p->v[k];
  int st = nm__step_read(&t->s, v, p->n, &p->places, &x, &n, err), sels = p->places.sels.n;
  int d = (int)nm__sel_width(t->m, p->places.sels.v[0], 1);
  if (!st && n != p->n)
    st = nm__fail(err, NM_EFORMAT, "a probe needs one position in each text, %d texts gave %d",
                  p->n, n);
  for (int k = 0; k < sels && !st; k++) {
    double right = 0, shuffled = 0;
    char name[64];
    nm__sel_name(t->m, p->places.sels.v[k], name);
    const float *first = x + (size_t)k * (size_t)d;
    size_t ld = (size_t)d * (size_t)sels;
    st = fit(p, p->label, first, ld, d, e->C, &right, err);
    if (!st) st = fit(p, p->shuffled, first, ld, d, e->C, &shuffled, err);
    if (!st)
      st = nm__metrics_line(t, json_pack("{s:I, s:i, s:s, s:o, s:f, s:f, s:I}", "step", step_of(t),
                                         "probe", i, "site", name, "data",
                                         nm__json_text(e->file ? e->file : e->world), "accuracy",
                                         right, "shuffled", shuffled, "n_test",
                                         (json_int_t)p->split.n_test), err);
  }
  free(v);
  free(x);
  return st;
}

/* ---- all --------------------------------------------------------------------- */

int nm__watch_open(struct nm__training *t, nm_err *err) {
  nm_err own = {0};
  for (int i = 0; i < t->r.n_taps; i++) {
    struct nm__places p = {0};
    int st = nm__places_open(t->m, "a tap", t->r.tap[i].site, t->r.tap[i].where, true, &p, &own);
    nm__places_done(&p);
    if (st) return nm__yaml_fail(&t->r.y, t->r.tap[i].at, err, "%s", own.text);
  }
  t->probing = nm__alloc((size_t)t->r.n_probes + 1, sizeof *t->probing);
  if (!t->probing) return nm__fail_memory(err, "the probes", 0);
  for (int i = 0; i < t->r.n_probes; i++)
    if (open_probe(t, &t->r.probe[i], &t->probing[i], &own))
      return nm__yaml_fail(&t->r.y, t->r.probe[i].at, err, "%s", own.text);
  return NM_OK;
}

void nm__watch_done(struct nm__training *t) {
  for (int i = 0; t->probing && i < t->r.n_probes; i++) {
    struct nm__probing *p = &t->probing[i];
    free(p->v);
    free(p->ids);
    free(p->weight);
    free(p->label);
    free(p->shuffled);
    nm__split_done(&p->split);
    nm__places_done(&p->places);
  }
  free(t->probing);
}

static bool due(const struct nm__training *t, int every) {
  return every > 0 && t->at.step % every == 0;
}

int nm__watch_step(struct nm__training *t, nm_err *err) {
  bool last = t->at.step == t->r.steps;
  int st = NM_OK;
  for (int i = 0; i < t->r.n_taps && !st && t->at.step; i++) {
    const struct nm__tap_key *e = &t->r.tap[i];
    bool save = due(t, e->save);
    if (due(t, e->every) || save || last) st = one_tap(t, e, save, err);
  }
  for (int i = 0; i < t->r.n_probes && !st; i++)
    if (last || due(t, t->r.probe[i].every)) st = one_probe(t, i, err);
  return st;
}
