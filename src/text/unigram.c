/* unigram.c - the most probable way to cut a text into pieces (Viterbi).
 *
 * Over each position of the text stands a node with the best path that ends there. Nodes
 * are filled from left to right, by character. Where no piece reaches across a position,
 * all paths go through it: what lies before is settled, is written out and forgotten. So
 * the work space is as long as pieces hang together, about a word. Of equal paths the first one
 * found stays.
 *
 * Sums are those of the library a vocabulary comes from, for the same pieces in another order
 * are a tie that rounding decides. Hugging Face's sums doubles. SentencePiece compares a double
 * with the float it has kept, and its sums run from the beginning of the text (float_sums). */
#include <stdlib.h>
#include <string.h>

#include "text/tok.h"
#include "text/unicode.h"

#define UNKNOWN_PENALTY 10.0
enum { NOWHERE = -2, UNKNOWN = -1 };

struct nm__node {
  double score;
  int32_t id;                      /* of the last piece of the path; NOWHERE, UNKNOWN */
  uint32_t start, next;            /* where that piece begins; where the one after it ends */
};

int nm__unigram_open(struct nm__tok *t, nm_err *err) {
  double least = 0;
  bool any = false;
  for (int32_t i = 0; i < t->n; i++) {
    const struct nm__piece *p = &t->piece[i];
    if (p->type != NM__TOK_NORMAL || (any && !(p->score < least))) continue;
    least = p->score;
    any = true;
  }
  t->unk_score = least - UNKNOWN_PENALTY;
  if (t->float_sums) t->unk_score = (double)(float)t->unk_score;
  if (nm__specials_new(t, NM__TYPE(NORMAL) | NM__TYPE(USER), &t->choice))
    return nm__fail_memory(err, "the pieces", (size_t)t->n * sizeof(struct nm__special));
  return NM_OK;
}

/* A stretch of text that is not settled yet. */
struct lattice {
  const struct nm__tok *t;
  struct nm__work *w;
  const char *s;
  size_t n;
  size_t base, reach;              /* node[0] stands at base; no piece ends behind reach */
};

static int reach_to(struct lattice *l, size_t end) {
  struct nm__work *w = l->w;
  size_t need = end - l->base + 1;
  if (need > w->cap_nodes) {
    size_t cap = need + w->cap_nodes < 256 ? 256 : need + w->cap_nodes;
    struct nm__node *v = nm__realloc(w->node, cap, sizeof *v);
    if (!v) return NM_EMEMORY;
    w->node = v;
    w->cap_nodes = cap;
  }
  for (; l->reach < end; l->reach++) w->node[l->reach + 1 - l->base].id = NOWHERE;
  return NM_OK;
}

/* A piece from `from` to `to`, which is within reach. */
static void propose(struct lattice *l, size_t from, size_t to, int32_t id, double score) {
  struct nm__node *v = l->w->node, *end = &v[to - l->base];
  score += v[from - l->base].score;
  if (end->id != NOWHERE && !(score > end->score)) return;
  end->score = l->t->float_sums ? (double)(float)score : score;
  end->id = id;
  end->start = (uint32_t)(from - l->base);
}

static int all_pieces_at(struct lattice *l, size_t at, size_t one) {
  const struct nm__tok *t = l->t;
  struct nm__descent d = nm__specials_at(&t->choice, l->s + at, l->n - at);
  bool single = false;
  int rc = NM_OK;
  for (int32_t k; !rc && (k = nm__specials_next(&d)) >= 0;) {
    const struct nm__special *p = &t->choice.v[k];
    single = single || p->n == one;
    rc = reach_to(l, at + p->n);
    if (!rc) propose(l, at, at + p->n, p->id, t->piece[p->id].type == NM__TOK_USER
                                              ? 0 : (double)t->piece[p->id].score);
  }
  if (!rc && !single) rc = reach_to(l, at + one);
  if (!rc && !single) propose(l, at, at + one, UNKNOWN, t->unk_score);
  return rc;
}

/* Writes the best path from base to `at` and begins anew there. */
static int settle(struct lattice *l, size_t at, nm_err *err) {
  struct nm__node *v = l->w->node;
  uint32_t end = (uint32_t)(at - l->base);
  for (uint32_t i = end; i > 0; i = v[i].start) v[v[i].start].next = i;
  int rc = NM_OK;
  for (uint32_t i = 0; i < end && !rc; i = v[i].next) {
    uint32_t next = v[i].next;
    int32_t id = v[next].id;
    rc = id >= 0 ? nm__ids_push(l->w->out, id)
                 : nm__tok_fall_back(l->t, l->w, l->s + l->base + i, next - i, err);
  }
  l->base = at;
  v[0].score = l->t->float_sums ? v[end].score : 0;
  return rc;
}

int nm__unigram(const struct nm__tok *t, struct nm__work *w, const char *s, size_t n,
                nm_err *err) {
  struct lattice l = {.t = t, .w = w, .s = s, .n = n};
  int rc = reach_to(&l, 0);
  for (size_t at = 0, one; at < n && !rc; at += one) {
    uint32_t cp;
    one = (size_t)nm__utf8_decode(s + at, n - at, &cp);
    if (one == 0) one = 1;
    if (at == l.reach) rc = settle(&l, at, err);
    if (!rc) rc = all_pieces_at(&l, at, one);
  }
  return rc ? rc : settle(&l, n, err);
}
