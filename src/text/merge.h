/* merge.h - merging neighbours by priority: the common engine of SPM and BPE.
 *
 * Text stands as a linked list of symbols. A family tells which neighbours may merge
 * and how urgent that is; the engine merges the most urgent pair first (the leftmost
 * on ties) with a heap, in n log n for any text.
 *
 *   struct nm__merge m = {0};
 *   nm__merge_reset(&m); nm__merge_add(&m, start, len, id) per symbol;
 *   nm__merge_run(&m, pair, arg);
 *   for (uint32_t i = 0; i != NM__NO_SYM; i = m.sym[i].next) use(m.sym[i]);
 *   nm__merge_done(&m);
 *
 * The engine belongs to one thread; it keeps its memory from text to text. */
#ifndef NM_TEXT_MERGE_H
#define NM_TEXT_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NM__NO_SYM UINT32_MAX

/* A candidate: the least (prio, pos) comes out first; the rest is the user's. */
struct nm__cand { uint64_t prio; uint32_t pos, right, len; int32_t id; };
struct nm__heap { struct nm__cand *v; size_t n, cap; };
int nm__heap_push(struct nm__heap *h, struct nm__cand c);         /* 0 or NM_EMEMORY */
bool nm__heap_pop(struct nm__heap *h, struct nm__cand *out);      /* false: empty */
void nm__heap_done(struct nm__heap *h);

struct nm__sym {
  uint32_t start, len;             /* bytes of the text; len 0: swallowed by its left one */
  int32_t id;                      /* what the family calls it; -1: nothing */
  uint32_t prev, next;             /* NM__NO_SYM at the ends */
};
struct nm__merge {
  struct nm__sym *sym;
  size_t n, cap;
  struct nm__heap heap;
};

/* True when a and b merge: then *prio (least first) and the id of the merged symbol. */
typedef bool nm__pair_fn(const void *arg, const struct nm__sym *a, const struct nm__sym *b,
                         uint64_t *prio, int32_t *id);

void nm__merge_reset(struct nm__merge *m);
int nm__merge_add(struct nm__merge *m, uint32_t start, uint32_t len, int32_t id);
int nm__merge_run(struct nm__merge *m, nm__pair_fn *pair, const void *arg);
void nm__merge_done(struct nm__merge *m);

#endif
