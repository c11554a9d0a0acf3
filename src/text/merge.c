/* merge.c - a binary heap of candidates, and the merging of neighbours by it. */
#include "text/merge.h"

#include <stdlib.h>

#include "core/core.h"

/* ---- heap ------------------------------------------------------------ */

static bool before(const struct nm__cand *a, const struct nm__cand *b) {
  return a->prio != b->prio ? a->prio < b->prio : a->pos < b->pos;
}

int nm__heap_push(struct nm__heap *h, struct nm__cand c) {
  if (h->n == h->cap) {
    size_t cap = h->cap ? 2 * h->cap : 64;
    struct nm__cand *v = nm__realloc(h->v, cap, sizeof *v);
    if (!v) return NM_EMEMORY;
    h->v = v;
    h->cap = cap;
  }
  size_t i = h->n++;
  while (i > 0 && before(&c, &h->v[(i - 1) / 2])) {
    h->v[i] = h->v[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  h->v[i] = c;
  return NM_OK;
}

bool nm__heap_pop(struct nm__heap *h, struct nm__cand *out) {
  if (h->n == 0) return false;
  *out = h->v[0];
  struct nm__cand last = h->v[--h->n];
  size_t i = 0;
  for (;;) {
    size_t kid = 2 * i + 1;
    if (kid >= h->n) break;
    if (kid + 1 < h->n && before(&h->v[kid + 1], &h->v[kid])) kid++;
    if (!before(&h->v[kid], &last)) break;
    h->v[i] = h->v[kid];
    i = kid;
  }
  h->v[i] = last;
  return true;
}

void nm__heap_done(struct nm__heap *h) {
  free(h->v);
  *h = (struct nm__heap){0};
}

/* ---- merging --------------------------------------------------------- */

void nm__merge_reset(struct nm__merge *m) {
  m->n = 0;
  m->heap.n = 0;
}

void nm__merge_done(struct nm__merge *m) {
  free(m->sym);
  nm__heap_done(&m->heap);
  *m = (struct nm__merge){0};
}

int nm__merge_add(struct nm__merge *m, uint32_t start, uint32_t len, int32_t id) {
  if (m->n == m->cap) {
    size_t cap = m->cap ? 2 * m->cap : 256;
    struct nm__sym *sym = cap < NM__NO_SYM ? nm__realloc(m->sym, cap, sizeof *sym) : NULL;
    if (!sym) return NM_EMEMORY;
    m->sym = sym;
    m->cap = cap;
  }
  uint32_t i = (uint32_t)m->n++;
  m->sym[i] = (struct nm__sym){start, len, id, i ? i - 1 : NM__NO_SYM, NM__NO_SYM};
  if (i) m->sym[i - 1].next = i;
  return NM_OK;
}

static int propose(struct nm__merge *m, uint32_t left, uint32_t right, nm__pair_fn *pair,
                   const void *arg) {
  if (left == NM__NO_SYM || right == NM__NO_SYM) return NM_OK;
  const struct nm__sym *a = &m->sym[left], *b = &m->sym[right];
  struct nm__cand c = {.pos = left, .right = right, .len = a->len + b->len};
  if (!pair(arg, a, b, &c.prio, &c.id)) return NM_OK;
  return nm__heap_push(&m->heap, c);
}

/* A symbol only grows by swallowing its right neighbour, and then that neighbour is no
 * longer its next one. So the candidate still stands when the two are alive and adjacent
 * and their lengths still add up (the right one has not grown). */
static bool stale(const struct nm__merge *m, const struct nm__cand *c) {
  const struct nm__sym *a = &m->sym[c->pos], *b = &m->sym[c->right];
  return a->len == 0 || a->next != c->right || a->len + b->len != c->len;
}

int nm__merge_run(struct nm__merge *m, nm__pair_fn *pair, const void *arg) {
  for (uint32_t i = 1; i < m->n; i++)
    if (propose(m, i - 1, i, pair, arg)) return NM_EMEMORY;
  struct nm__cand c;
  while (nm__heap_pop(&m->heap, &c)) {
    if (stale(m, &c)) continue;
    struct nm__sym *a = &m->sym[c.pos], *b = &m->sym[c.right];
    a->len = c.len;
    a->id = c.id;
    a->next = b->next;
    b->len = 0;
    if (a->next != NM__NO_SYM) m->sym[a->next].prev = c.pos;
    if (propose(m, a->prev, c.pos, pair, arg)) return NM_EMEMORY;
    if (propose(m, c.pos, a->next, pair, arg)) return NM_EMEMORY;
  }
  return NM_OK;
}
