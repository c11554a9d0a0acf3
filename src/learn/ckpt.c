/* ckpt.c - saving a pair so that whatever ends the process leaves a whole one, finding the newest
 * whole pair, and which pairs stay. */
#include "learn/ckpt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "model/hf.h"

#define KEY NM__CKPT_KEY

enum { STEP_MAX = 999999999 };

/* ---- the optimiser's state -------------------------------------------------------- */

int nm__moments_make(const struct nm__params *p, const enum nm__optim_kind *kind,
                     struct nm__moments *out, nm_err *err) {
  size_t n = (size_t)p->n, bytes = 0;
  *out = (struct nm__moments){nm__alloc(n + 1, sizeof *out->v), nm__alloc(n + 1, sizeof *out->n)};
  for (size_t i = 0; out->v && out->n && i < n; i++) {
    out->n[i] = nm__optim_state(kind[i], (size_t)(p->v[i].rows * p->v[i].cols));
    bytes += out->n[i] * sizeof(float);
    if (!(out->v[i] = nm__alloc_lines(out->n[i] + 1, sizeof(float)))) break;
    if (i + 1 == n) return NM_OK;
  }
  if (out->v && out->n && !n) return NM_OK;
  nm__moments_done(out, p);
  return nm__fail_memory(err, "the optimiser's state", bytes);
}

void nm__moments_done(struct nm__moments *s, const struct nm__params *p) {
  for (int i = 0; s->v && i < p->n; i++) free(s->v[i]);
  free(s->v);
  free(s->n);
  *s = (struct nm__moments){0};
}

/* ---- the model file --------------------------------------------------------------- */

/* Rows in the order of a file: those of a Hugging Face folder may have to move. */
static int write_tensor(struct nm__gguf_writer *w, const struct nm__gguf *g,
                        const struct nm__gguf_tensor *t, nm_err *err) {
  uint8_t *made;
  const uint8_t *data = nm__hf_file_order(g, t, &made, err);
  int st = data || !t->bytes ? nm__gguf_data(w, data, (size_t)t->bytes, err) : NM_EMEMORY;
  free(made);
  return st;
}

void nm__ckpt_put_keys(struct nm__gguf_writer *w, const struct nm__gguf *g) {
  for (size_t i = 0; i < g->n_kv; i++)
    if (strcmp(g->kv[i].key, "general.alignment") &&
        strncmp(g->kv[i].key, KEY, sizeof KEY - 1))
      nm__gguf_put_kv(w, &g->kv[i]);
}

static int write_model(const char *path, const struct nm__gguf *g,
                       const struct nm__ckpt_state *s, nm_err *err) {
  struct nm__gguf_writer *w;
  int st = nm__gguf_writer_new(&w, err);
  if (st) return st;
  nm__ckpt_put_keys(w, g);
  nm__gguf_put_u32(w, KEY "step", (uint32_t)s->at.step);
  nm__gguf_put_string(w, KEY "hash", s->hash);
  for (size_t i = 0; i < g->n_tensors; i++)
    nm__gguf_announce(w, g->tensors[i].name, g->tensors[i].type, g->tensors[i].n_dims,
                      g->tensors[i].ne);
  st = nm__gguf_begin(w, path, err);
  for (size_t i = 0; i < g->n_tensors && !st; i++) st = write_tensor(w, g, &g->tensors[i], err);
  if (!st) st = nm__gguf_finish(w, err);
  nm__gguf_writer_free(w);
  return st;
}

/* ---- which pairs stay --------------------------------------------------------------- */

static void remove_file(const char *dir, int64_t step, const char *end) {
  char *path = nm__series_file(dir, step, end);
  if (path) unlink(path);
  free(path);
}

/* The state first: what may be left of a pair is a model, which is of use alone. */
static int remove_old(const char *dir, int64_t step, const struct nm__keep *keep, nm_err *err) {
  int64_t *v;
  size_t n;
  int newer = 1;
  if (!keep || keep->last <= 0) return NM_OK;
  int st = nm__series_list(dir, "gguf", &v, &n, err);
  for (size_t i = n; i-- > 0;) {
    if (v[i] >= step || newer++ < keep->last || (keep->every > 0 && v[i] % keep->every == 0))
      continue;
    remove_file(dir, v[i], "state");
    remove_file(dir, v[i], "gguf");
  }
  free(v);
  return st;
}

/* Halves that a killed process left; while the folder is locked nobody writes them. */
static void sweep(const char *folder) {
  DIR *d = opendir(folder);
  for (struct dirent *e; d && (e = readdir(d));) {
    if (strncmp(e->d_name, "step-", 5) || !strstr(e->d_name, ".tmp.")) continue;
    char *path = nm__path_join(folder, e->d_name);
    if (path) unlink(path);
    free(path);
  }
  if (d) closedir(d);
}

/* ---- saving ------------------------------------------------------------------------- */

static int sync_folder(const char *path, int fd, nm_err *err) {
  if (!fsync(fd)) return NM_OK;
  return nm__fail(err, NM_EFAIL, "%s: cannot be made lasting: %s", path, strerror(errno));
}

/* The folder, locked against another run that saves into it; its name lasts. */
static int open_folder(const char *dir, char **folder, int *fd, nm_err *err) {
  *fd = -1;
  *folder = nm__path_join(dir, NM__SERIES_FOLDER);
  if (!*folder) return nm__fail_memory(err, "a path", strlen(dir));
  bool new = !nm__exists(*folder);
  int st = nm__mkdirs(*folder, err);
  if (st) return st;
  *fd = open(*folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (*fd < 0)
    return nm__fail(err, NM_EFAIL, "%s: cannot be opened: %s", *folder, strerror(errno));
  if (flock(*fd, LOCK_EX | LOCK_NB))
    return nm__fail(err, NM_EFAIL, "%s: cannot be locked (%s): another run saves into it", *folder,
                    strerror(errno));
  int up = new ? openat(*fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  if (up >= 0) st = sync_folder(dir, up, err);
  if (up >= 0) close(up);
  return st;
}

/* Does the model's file hold the tensor as the run has it. */
static bool holds(const struct nm__gguf *g, const struct nm__learned *v, const float *values) {
  const struct nm__gguf_tensor *t = nm__gguf_tensor(g, v->name);
  int n_head;
  size_t bytes = sizeof *values * (size_t)(v->rows * v->cols);
  return t && t->type == NM__F32 && t->bytes == bytes &&
         nm__hf_pending(g, t, &n_head) == NM__HF_SAME &&
         (t->data == (const uint8_t *)values || !memcmp(t->data, values, bytes));
}

static int gather(const struct nm__ckpt *c, const struct nm__gguf *model,
                  const struct nm__params *p, const struct nm__moments *m,
                  struct nm__ckpt_state *s, nm_err *err) {
  *s = (struct nm__ckpt_state){.at = *c, .part = nm__alloc((size_t)p->n + 1, sizeof *s->part)};
  if (c->step < 0 || c->step > STEP_MAX)
    return nm__fail(err, NM_EUSAGE, "a checkpoint's step must be 0 to %d, not %lld", STEP_MAX,
                    (long long)c->step);
  if (!s->part) return nm__fail_memory(err, "a checkpoint", (size_t)p->n * sizeof *s->part);
  for (int i = 0; i < p->n; i++) {
    const struct nm__learned *v = &p->v[i];
    const float *values = p->values + v->at;
    s->part[s->n++] = (struct nm__ckpt_part){
        .name = {v->name, strlen(v->name)}, .rows = v->rows, .cols = v->cols, .state = m->v[i],
        .n_state = m->n[i], .value = holds(model, v, values) ? NULL : values};
  }
  nm__ckpt_state_hash(s, s->hash);
  return NM_OK;
}

static int write_pair(const char *dir, const struct nm__gguf *model, struct nm__ckpt_state *s,
                      nm_err *err) {
  char *at[2] = {nm__series_file(dir, s->at.step, "gguf"),
                 nm__series_file(dir, s->at.step, "state")};
  bool was = at[0] && nm__exists(at[0]);
  int st = at[0] && at[1] ? write_model(at[0], model, s, err)
                          : nm__fail_memory(err, "a path", strlen(dir));
  bool half = !st && !was;
  if (!st) st = nm__hash_file(at[0], s->model, err);
  if (!st) st = nm__ckpt_state_write(at[1], s, err);
  if (st && half) unlink(at[0]);
  free(at[0]);
  free(at[1]);
  return st;
}

int nm__ckpt_save(const char *dir, const struct nm__ckpt *c, const struct nm__gguf *model,
                  const struct nm__params *p, const struct nm__moments *m,
                  const struct nm__keep *keep, nm_err *err) {
  struct nm__ckpt_state s;
  char *folder = NULL;
  int fd = -1;
  int st = gather(c, model, p, m, &s, err);
  if (!st) st = open_folder(dir, &folder, &fd, err);
  if (!st) st = write_pair(dir, model, &s, err);
  if (!st) st = sync_folder(folder, fd, err);
  if (!st) st = remove_old(dir, c->step, keep, err);
  if (!st) sweep(folder);
  if (fd >= 0) close(fd);
  free(folder);
  nm__ckpt_state_close(&s);
  return st;
}

int nm__ckpt_tidy(const char *dir, int64_t step, const struct nm__keep *keep, nm_err *err) {
  char *folder;
  int fd;
  int st = open_folder(dir, &folder, &fd, err);
  if (!st) st = remove_old(dir, step, keep, err);
  if (!st) sweep(folder);
  if (fd >= 0) close(fd);
  free(folder);
  return st;
}

/* ---- finding ------------------------------------------------------------------------- */

/* A pair that has been read and found whole. */
struct pair { struct nm__ckpt_state s; struct nm__gguf *model; };

static void pair_close(struct pair *p) {
  nm__ckpt_state_close(&p->s);
  nm__gguf_close(p->model);
  *p = (struct pair){0};
}

static int same_pair(const struct pair *p, int64_t step, nm_err *err) {
  struct nm__str said;
  char hex[33];
  if (p->s.at.step != step)
    return nm__fail(err, NM_EFORMAT, "%s: holds step %lld: it was renamed", p->s.g->path,
                    (long long)p->s.at.step);
  nm__gguf_hash(p->model, hex);
  if (strcmp(hex, p->s.model))
    return nm__fail(err, NM_EFORMAT, "%s: is damaged or belongs to another state: its hash is not "
                    "the one that %s names", p->model->path, p->s.g->path);
  int st = nm__gguf_string(p->model, KEY "hash", &said, err);
  if (st || (said.n == 32 && !memcmp(said.s, p->s.hash, 32))) return st;
  return nm__fail(err, NM_EFORMAT, "%s: belongs to another state than %s", p->model->path,
                  p->s.g->path);
}

static int pair_open(const char *dir, int64_t step, struct pair *out, nm_err *err) {
  char *state = nm__series_file(dir, step, "state"), *model = nm__series_file(dir, step, "gguf");
  *out = (struct pair){0};
  int st = state && model ? nm__ckpt_state_open(state, &out->s, err)
                          : nm__fail_memory(err, "a path", strlen(dir));
  if (!st) st = nm__gguf_open(model, &out->model, err);
  if (!st) st = same_pair(out, step, err);
  if (st) pair_close(out);
  free(state);
  free(model);
  return st;
}

int nm__ckpt_check(const char *dir, int64_t step, struct nm__ckpt *out, nm_err *err) {
  struct pair p;
  int st = pair_open(dir, step, &p, err);
  if (st) return st;
  *out = p.s.at;
  pair_close(&p);
  return NM_OK;
}

/* The newest whole pair; why newer ones are not goes to found->skipped. */
static int newest(const char *dir, struct pair *out, struct nm__ckpt_found *found, nm_err *err) {
  int64_t *v;
  size_t n, i;
  nm_err why = {0};
  int st = nm__series_list(dir, "state", &v, &n, err), bad = NM_EFORMAT;
  if (st) return st;
  for (i = n; i-- > 0 && (bad = pair_open(dir, v[i], out, &why));)
    if (!found->skipped[0]) snprintf(found->skipped, sizeof found->skipped, "%.500s", why.text);
  free(v);
  found->none = n == 0;
  if (!n)
    return nm__fail(err, NM_EFORMAT, "%s: has no checkpoint to go on from in %s/%s", dir, dir,
                    NM__SERIES_FOLDER);
  if (bad)
    return nm__fail(err, bad, "%s: none of %zu checkpoints is whole; the newest: %.300s", dir, n,
                    found->skipped);
  return NM_OK;
}

/* ---- loading ------------------------------------------------------------------------- */

static int as_expected(const char *dir, const struct nm__ckpt *is, const struct nm__ckpt *want,
                       nm_err *err) {
  const struct { const char *what, *is, *want; } v[] = {
      {"another recipe", is->recipe, want->recipe},
      {"another model", is->base, want->base},
      {"other data", is->data, want->data},
  };
  for (size_t i = 0; i < sizeof v / sizeof *v; i++)
    if (strcmp(v[i].is, v[i].want))
      return nm__fail(err, NM_EUSAGE, "%s: step %lld was trained with %s (hash %.8s, now %.8s): go "
                      "on with what it began with, or begin in a new folder", dir,
                      (long long)is->step, v[i].what, v[i].is, v[i].want);
  if (is->seed != want->seed)
    return nm__fail(err, NM_EUSAGE, "%s: step %lld was trained with seed %llu, not %llu", dir,
                    (long long)is->step, (unsigned long long)is->seed,
                    (unsigned long long)want->seed);
  return NM_OK;
}

/* Where the values of learned tensor i lie; NULL, with a sentence, where it is not the run's. */
static const float *values_of(const struct pair *pr, const struct nm__params *p,
                              const struct nm__moments *m, int i, nm_err *err) {
  const struct nm__ckpt_part *c = &pr->s.part[i];
  const struct nm__learned *v = &p->v[i];
  bool same = c->name.n == strlen(v->name) && !memcmp(c->name.s, v->name, c->name.n);
  if (!same || c->rows != v->rows || c->cols != v->cols || c->n_state != m->n[i]) {
    char shown[80];
    nm__fail(err, NM_EUSAGE, "%s: learned tensor %d is %s [%lld, %lld] with %zu numbers of the "
             "optimiser, the run's is %s [%lld, %lld] with %zu", pr->s.g->path, i,
             nm__printable(shown, sizeof shown, c->name.s, c->name.n), (long long)c->rows,
             (long long)c->cols, c->n_state, v->name, (long long)v->rows, (long long)v->cols,
             m->n[i]);
    return NULL;
  }
  if (c->value) return c->value;
  const struct nm__gguf_tensor *t = nm__gguf_tensor(pr->model, v->name);
  if (t && t->type == NM__F32 && t->bytes == sizeof(float) * (size_t)(v->rows * v->cols) &&
      (uintptr_t)t->data % sizeof(float) == 0)
    return (const float *)(const void *)t->data;
  nm__fail(err, NM_EFORMAT, "%s: lacks the values of %s", pr->model->path, v->name);
  return NULL;
}

/* All is looked at before anything is changed. */
static int take(const struct pair *pr, struct nm__params *p, struct nm__moments *m, nm_err *err) {
  nm_err own = {0};
  if (pr->s.n != (size_t)p->n)
    return nm__fail(err, NM_EUSAGE, "%s: has %zu learned tensors, the run has %d", pr->s.g->path,
                    pr->s.n, p->n);
  for (int i = 0; i < p->n; i++)
    if (!values_of(pr, p, m, i, &own)) {
      if (err) *err = own;
      return own.status;
    }
  for (int i = 0; i < p->n; i++) {
    size_t n = (size_t)(p->v[i].rows * p->v[i].cols);
    if (n) memcpy(p->values + p->v[i].at, values_of(pr, p, m, i, &own), n * sizeof(float));
    if (m->n[i]) memcpy(m->v[i], pr->s.part[i].state, m->n[i] * sizeof(float));
  }
  return NM_OK;
}

int nm__ckpt_load(const char *dir, int64_t step, const struct nm__ckpt *expect,
                  struct nm__params *p, struct nm__moments *m, struct nm__ckpt_found *found,
                  nm_err *err) {
  struct pair pr;
  *found = (struct nm__ckpt_found){0};
  int st = step < 0 ? newest(dir, &pr, found, err) : pair_open(dir, step, &pr, err);
  if (st) return st;
  if (expect) st = as_expected(dir, &pr.s.at, expect, err);
  if (!st) st = take(&pr, p, m, err);
  if (!st) found->at = pr.s.at;
  pair_close(&pr);
  return st;
}
