/* tape.c - the list of recorded operations and the way back through it. */
#include "tensor/tape.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/moe.h"

enum kind { OP, LEAF, STRETCH };

struct nm__node {
  enum kind kind;
  enum nm__op_id id;
  struct nm__op_args a;            /* of a stretch: a.x is its input */
  struct nm__t y;
  float *grad;                     /* of y; NULL until something reaches it */
  nm__stretch *fn;
  void *arg;
};

/* ---- parameters -------------------------------------------------------- */

int nm__tape_param(struct nm__tape *t, const void *data, size_t bytes, float *grad, nm_err *err) {
  if (t->n_param == t->cap_param) {
    size_t cap = t->cap_param ? 2 * t->cap_param : 64;
    struct nm__param *v = nm__realloc(t->param, cap, sizeof *v);
    if (!v) return nm__fail_memory(err, "the list of parameters", cap * sizeof *v);
    t->param = v;
    t->cap_param = cap;
  }
  size_t i = t->n_param++;
  for (; i > 0 && t->param[i - 1].data > (const uint8_t *)data; i--) t->param[i] = t->param[i - 1];
  t->param[i] = (struct nm__param){data, bytes, grad};
  return NM_OK;
}

float *nm__tape_grad_of(const struct nm__tape *t, const struct nm__w *w) {
  size_t lo = 0, hi = t->n_param;
  if (!w->data) return NULL;
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    if (t->param[mid].data <= w->data) lo = mid + 1;
    else hi = mid;
  }
  if (!lo) return NULL;
  const struct nm__param *p = &t->param[lo - 1];
  size_t at = (size_t)(w->data - p->data);
  return at < p->bytes ? p->grad + at / sizeof(float) : NULL;
}

void *nm__tape_keep(struct nm__ops *o, size_t bytes) {
  struct nm__tape *t = o->tape;
  if (t->n_kept == t->cap_kept) {
    size_t cap = t->cap_kept ? 2 * t->cap_kept : 64;
    void **v = nm__realloc(t->kept, cap, sizeof *v);
    if (v) t->kept = v, t->cap_kept = cap;
  }
  void *p = t->n_kept < t->cap_kept ? nm__alloc(bytes, 1) : NULL;
  if (!p) return nm__fail_memory(&o->err, "the tape", bytes), NULL;
  return t->kept[t->n_kept++] = p;
}

static void drop_kept(struct nm__tape *t) {
  for (size_t i = 0; i < t->n_kept; i++) free(t->kept[i]);
  t->n_kept = 0;
}

void nm__tape_done(struct nm__tape *t) {
  drop_kept(t);
  free(t->kept);
  free(t->v);
  free(t->param);
  *t = (struct nm__tape){0};
}

void nm__tape_reset(struct nm__ops *o) {
  drop_kept(o->tape);
  o->tape->n = 0;
  o->tape->kv_live = false;
  o->arena.used = 0;
}

/* ---- recording --------------------------------------------------------- */

static struct nm__node *new_node(struct nm__ops *o, struct nm__t *y) {
  struct nm__tape *t = o->tape;
  if (t->n == t->cap) {
    size_t cap = t->cap ? 2 * t->cap : 256;
    struct nm__node *v = nm__realloc(t->v, cap, sizeof *v);
    if (!v) {
      nm__fail_memory(&o->err, "the tape", cap * sizeof *v);
      return NULL;
    }
    t->v = v;
    t->cap = cap;
  }
  struct nm__node *n = &t->v[t->n++];
  *n = (struct nm__node){0};
  y->node = (int)t->n;
  n->y = *y;
  return n;
}

void nm__tape_push(struct nm__ops *o, enum nm__op_id id, const struct nm__op_args *a,
                   struct nm__t *y) {
  const struct nm__op *op = nm__op_table[id];
  struct nm__tape *t = o->tape;
  bool live = a->x.node || a->y.node || nm__tape_grad_of(t, &a->w) || nm__tape_grad_of(t, &a->bias);
  if (a->kv && !op->always) live |= t->kv_live;
  for (int e = 0; a->experts && e < a->route->n_expert; e++)
    live |= nm__tape_grad_of(t, &a->experts[e]) != NULL;
  y->node = 0;
  if (!live) return;
  if (!op->backward) {
    nm__fail(&o->err, NM_EFAIL, "op %s has no backward, so no gradient can flow through it",
             op->name);
    return;
  }
  if (a->kv && !a->kv->dk && o->mode != NM__MEASURE) {
    nm__fail(&o->err, NM_EFAIL, "op %s: the cache has no room for gradients", op->name);
    return;
  }
  if (op->always) t->kv_live = true;
  struct nm__node *n = new_node(o, y);
  if (!n) return;
  n->id = id;
  n->a = *a;
}

struct nm__t nm__tape_leaf(struct nm__ops *o, struct nm__t x, float *grad) {
  struct nm__node *n = o->mode == NM__RUN ? NULL : new_node(o, &x);
  if (n) n->kind = LEAF, n->grad = grad;
  return x;
}

const float *nm__tape_grad(const struct nm__ops *o, struct nm__t x) {
  return x.node ? o->tape->v[x.node - 1].grad : NULL;
}

/* In run mode the stretch leaves only its result, which moves to where the stretch began. */
struct nm__t nm__tape_stretch(struct nm__ops *o, nm__stretch *fn, void *arg, struct nm__t x) {
  enum nm__mode mode = o->mode;
  size_t size = sizeof(float) * (size_t)(x.rows * x.cols);
  if (mode == NM__RUN || !o->tape) return fn(arg, o, x);
  struct nm__t y = {.d = nm__arena_take(&o->arena, size), .rows = x.rows, .cols = x.cols};
  if (!y.d) nm__fail(&o->err, NM_EMEMORY, "the arena is too small for a checkpoint");
  size_t mark = o->arena.used;
  struct nm__tape *tape = o->tape;
  if (mode == NM__RECORD) o->mode = NM__RUN;
  o->tape = NULL;
  struct nm__t r = fn(arg, o, x);
  o->mode = mode;
  o->tape = tape;
  if (!o->err.status && (r.rows != y.rows || r.cols != y.cols))
    nm__fail(&o->err, NM_EFAIL, "a checkpointed stretch must keep its input's shape");
  if (!o->err.status && mode == NM__RECORD) memcpy(y.d, r.d, size);
  o->arena.used = mark;
  struct nm__node *n = o->err.status ? NULL : new_node(o, &y);
  if (!n) return y;
  n->kind = STRETCH;
  n->a.x = x;
  n->fn = fn;
  n->arg = arg;
  tape->kv_live = true;            /* it may append; going back through it finds out */
  return y;
}

/* ---- going back -------------------------------------------------------- */

/* The gradient of a recorded tensor, made on first use; NULL for constants. */
static float *grad_of(struct nm__ops *o, struct nm__t x) {
  if (!x.node || o->err.status) return NULL;
  struct nm__node *n = &o->tape->v[x.node - 1];
  if (n->grad) return n->grad;
  size_t bytes = sizeof(float) * (size_t)(n->y.rows * n->y.cols);
  n->grad = nm__arena_take(&o->arena, bytes);
  if (!n->grad) nm__fail(&o->err, NM_EMEMORY, "the arena is too small for gradients");
  else if (o->mode != NM__MEASURE) memset(n->grad, 0, bytes);
  return n->grad;
}

static void back_to(struct nm__ops *o, size_t first);

/* Computes the stretch again, this time on the tape, and goes back through it. */
static void back_stretch(struct nm__ops *o, size_t i) {
  struct nm__node n = o->tape->v[i];
  struct nm__t x = n.a.x;
  float *dx = grad_of(o, x);
  size_t mark = o->arena.used, base = o->tape->n;
  x.node = 0;
  if (dx) x = nm__tape_leaf(o, x, dx);
  struct nm__t y = n.fn(n.arg, o, x);
  if (!o->err.status && y.node) {
    o->tape->v[y.node - 1].grad = n.grad;
    back_to(o, base);
  }
  o->tape->n = base;
  o->arena.used = mark;
}

static void back_op(struct nm__ops *o, const struct nm__node *n) {
  const struct nm__op *op = nm__op_table[n->id];
  if (!n->grad && !op->always) return;                       /* nothing depends on it */
  struct nm__back b = {.out = n->y, .d_out = n->grad};
  struct nm__op_args a = n->a;
  b.dx = grad_of(o, a.x);
  b.dy = grad_of(o, a.y);
  b.dw = nm__tape_grad_of(o->tape, &a.w);
  b.dbias = nm__tape_grad_of(o->tape, &a.bias);
  if (!o->err.status && (o->mode != NM__MEASURE || op->back_scratch)) op->backward(o, &a, &b);
}

/* From the last node to `first`. Nodes may move in memory, so they are found by number. */
static void back_to(struct nm__ops *o, size_t first) {
  for (size_t i = o->tape->n; i-- > first && !o->err.status;) {
    struct nm__node n = o->tape->v[i];
    if (n.kind == STRETCH) back_stretch(o, i);
    else if (n.kind == OP) back_op(o, &n);
  }
}

void nm__tape_back(struct nm__ops *o, struct nm__t loss, float seed) {
  if (o->err.status) return;
  if (loss.rows != 1 || loss.cols != 1) {
    nm__fail(&o->err, NM_EFAIL, "gradients start from one number, not from [%lld, %lld]",
             (long long)loss.rows, (long long)loss.cols);
    return;
  }
  float *g = grad_of(o, loss);
  if (!g) return;                  /* a constant: nothing depends on a parameter */
  if (o->mode != NM__MEASURE) *g += seed;
  back_to(o, 0);
}
