/* unembed.c - the end of the forward (final norm, head, cap) on rows of a residual stream from
 * anywhere: what a lens looks through. It is decoder.c's own end, so the lens of the last block is
 * the model's logits bit for bit, whatever the architecture does there. */
#include <stdlib.h>
#include "model/model.h"

enum { ROWS = 32 };                /* whose logits exist at once, as in the forward */

struct end {
  struct nm__ops ops;
  struct nm__forward f;
  struct nm__visitor vis;
  nm__unembed_fn *rows;
  void *arg;
  int64_t first;                   /* the row of x that the batch's row 0 is */
  nm_err *err;
  int status;
};

static bool wants(void *arg, int site, int layer) {
  (void)arg, (void)layer;
  return site == NM__S_LOGITS;
}

static void visit(void *arg, int site, int layer, struct nm__t *t, const int32_t *rows,
                  const struct nm__route *route) {
  struct end *x = arg;
  (void)site, (void)layer, (void)route;
  if (!x->status) x->status = x->rows(x->arg, x->first + rows[0], t->rows, t->d, x->err);
}

static int arena_for(struct end *x, const nm_model *m, nm_err *err) {
  x->ops.mode = NM__MEASURE;
  nm__arena_init(&x->ops.arena, 0, err);
  x->f.n_head_rows = ROWS;
  int st = nm__forward_end(&x->f, (struct nm__t){.rows = ROWS, .cols = m->D});
  size_t bytes = x->ops.arena.peak + 4096;
  if (st) {
    if (err) *err = x->ops.err;
    return st;
  }
  x->ops.mode = NM__RUN;
  return nm__arena_init(&x->ops.arena, bytes, err);
}

int nm__unembed(nm_engine *e, const float *x, int64_t n, nm__unembed_fn *rows, void *arg,
                nm_err *err) {
  const nm_model *m = nm__engine_model(e);
  int32_t ids[ROWS];
  if (!m->output.data)
    return nm__fail(err, NM_EFORMAT, "%s: is an encoder (%s) and has no vocabulary head, so a lens "
                    "has nothing to look through", m->path, m->arch->name);
  struct end s = {.ops = {.kern = nm__engine_kern(e), .pool = nm__engine_pool(e)},
                  .vis = {.wants = wants, .visit = visit}, .rows = rows, .arg = arg, .err = err};
  for (int i = 0; i < ROWS; i++) ids[i] = i;
  s.vis.arg = &s;
  s.f = nm__engine_forward(e);
  s.f.ops = &s.ops;
  s.f.vis = &s.vis;
  s.f.head = true;
  int st = arena_for(&s, m, err);
  s.f.head_rows = ids;
  for (int64_t i = 0; i < n && !st; i += ROWS) {
    int64_t k = n - i < ROWS ? n - i : ROWS;
    struct nm__t t = {.d = (float *)(uintptr_t)(x + i * m->D), .rows = k, .cols = m->D};
    s.first = i;
    s.f.n_head_rows = (int)k;
    st = nm__forward_end(&s.f, t);
    if (st && err) *err = s.ops.err;
    if (!st) st = s.status;
  }
  nm__arena_done(&s.ops.arena);
  return st;
}
