/* chase.c - following pointers: K pairs "a b ;" in any order lead around one cycle over K of 16
 * nodes; "2 s" asks for the node two hops on from s.
 *
 *   d k ; a d ; n a ; k n ; 2 a      the answer is k: a -> d -> k
 *
 * W names the nodes: nodes 0 to 7 are the low class, 8 to 15 the high one, and the label is the
 * class of the answer. The context holds half of each class (one more of either when K is odd),
 * the class of s and the class of the answer are two coins. So neither the words of the context
 * nor s, nor both, say anything about the label; a cycle over nodes drawn freely would leave
 * the answer in the other class than s in 8 of 15 cases, and a bag of words right in 6 of 10.
 * Twins have the same nodes and the same s, and cycles that end in opposite classes.
 *
 * Going h hops on is going K - h hops back, so the depth of computation is the smaller of both.
 * For training, queries for the other K - 1 starts follow.
 *
 * fixed=1 is the trap of the method: one cycle over k_max nodes, drawn by W, is shown in every
 * item. The answer is then a property of s that can be learned by heart, whatever the hops:
 * the depth of computation is 0, and the fact that twins share is a pair of starts. */
#include <string.h>
#include "world/world.h"

enum { N_NODES = 16, HALF = N_NODES / 2, HOPS = 0, K_MIN, K_MAX, FIXED, MAX_HOPS = 4 };
enum { CYCLE = N_NODES, STARTS = 2 * N_NODES };        /* places in the truth */

static const char *const letters[N_NODES] = {"a", "b", "c", "d", "e", "f", "g", "h",
                                             "i", "j", "k", "l", "m", "n", "o", "p"};
static const char *const numbers[] = {"0", "1", "2", "3", "4"};
static const char *const labels[] = {"low", "high", NULL};

static const nm_world_param params[] = {
    {"hops", "hops from the start to the answer", 1, MAX_HOPS, 1},
    {"k_min", "fewest pairs; more than hops", 3, N_NODES, 3},
    {"k_max", "most pairs", 3, N_NODES, 8},
    {"fixed", "1: one cycle over k_max nodes in every item, drawn by W", 0, 1, 0},
    {0}};

static int class_of(uint32_t node) { return node >= HALF; }

/* A pool of the nodes of both classes in drawn order; take gives the next one of a class. */
struct pool { uint32_t node[N_NODES]; int next[2]; };

static void fill_pool(struct pool *p, struct nm__rng *r) {
  for (uint32_t i = 0; i < N_NODES; i++) p->node[i] = i;
  nm__rng_shuffle(r, p->node, HALF);
  nm__rng_shuffle(r, p->node + HALF, HALF);
  p->next[0] = p->next[1] = 0;
}

static uint32_t take(struct pool *p, int class) {
  return p->node[class * HALF + p->next[class]++];
}

/* The cycle: cycle[i + 1] follows cycle[i]; s stands first and the answer, of class `label`,
 * `hops` places on. The draws are the same for both labels. */
static void draw_cycle(struct nm__rng *r, int K, int hops, int label, uint32_t *cycle) {
  struct pool p;
  uint32_t rest[N_NODES];
  fill_pool(&p, r);
  int n_high = (K + (int)nm__rng_below(r, 2)) / 2;     /* of an odd K, a coin takes the odd one */
  int start = (int)nm__rng_below(r, 2);
  if (K == 3) start = n_high == 2;         /* a class of one cannot give both start and answer */
  int left[2] = {K - n_high, n_high}, n = 0;
  left[start]--;
  left[label]--;
  cycle[0] = take(&p, start);
  cycle[hops] = take(&p, label);
  for (int c = 0; c < 2; c++)
    while (left[c]-- > 0) rest[n++] = take(&p, c);
  nm__rng_shuffle(r, rest, (size_t)n);
  for (int i = 1, k = 0; i < K; i++)
    if (i != hops) cycle[i] = rest[k++];
}

/* One cycle over K/2 nodes of each class, and the starts sorted by the class of their answer:
 * truth[STARTS + c * K/2 + p] is the place in the cycle of start p with an answer of class c. */
static void draw_fixed(struct nm_world *w) {
  struct nm__rng r = {w->truth_key, 1, 0};
  struct pool p;
  int K = w->param[K_MAX], n[2] = {0, 0};
  uint32_t order[N_NODES];
  fill_pool(&p, &r);
  for (int i = 0; i < K; i++) w->truth[CYCLE + i] = take(&p, i % 2);
  nm__rng_shuffle(&r, w->truth + CYCLE, (size_t)K);
  nm__draw_order(w->truth_key, 2, order, (uint32_t)K);
  for (int i = 0; i < K; i++) {
    int c = class_of(w->truth[CYCLE + (order[i] + (uint32_t)w->param[HOPS]) % (uint32_t)K]);
    w->truth[STARTS + c * K / 2 + n[c]++] = order[i];
  }
  w->n_twins = (uint32_t)K / 2;
}

/* truth[node]: the letter of node 0 .. 15. */
static int draw(struct nm_world *w, nm_err *err) {
  const int *p = w->param;
  int fewest = p[FIXED] ? p[K_MAX] : p[K_MIN];
  if (p[K_MIN] > p[K_MAX])
    return nm__fail(err, NM_EUSAGE, "world chase: k_min %d is above k_max %d", p[K_MIN], p[K_MAX]);
  if (fewest <= p[HOPS])
    return nm__fail(err, NM_EUSAGE,
                    "world chase: %d hops in a cycle of %d lead around it; say k_min=%d or more",
                    p[HOPS], fewest, p[HOPS] + 1);
  if (p[FIXED] && p[K_MAX] % 2)
    return nm__fail(err, NM_EUSAGE, "world chase: fixed=1 takes an even k_max, not %d", p[K_MAX]);
  nm__draw_order(w->truth_key, 0, w->truth, N_NODES);
  if (p[FIXED]) draw_fixed(w);
  return NM_OK;
}

static void put_context(const struct nm_world *w, struct nm__rng *r, const uint32_t *cycle, int K,
                        struct nm__item *b) {
  uint32_t order[N_NODES];
  for (uint32_t i = 0; i < (uint32_t)K; i++) order[i] = i;
  nm__rng_shuffle(r, order, (size_t)K);
  for (int i = 0; i < K; i++) {
    nm__item_word(b, letters[w->truth[cycle[order[i]]]]);
    nm__item_word(b, letters[w->truth[cycle[(order[i] + 1) % (uint32_t)K]]]);
    nm__item_word(b, ";");
  }
}

/* The question starts at place 0 of the cycle, the others follow in drawn order. */
static void put_queries(const struct nm_world *w, struct nm__rng *r, const uint32_t *cycle, int K,
                        struct nm__item *b) {
  uint32_t start[N_NODES];
  int hops = w->param[HOPS];
  for (uint32_t i = 0; i < (uint32_t)K; i++) start[i] = i;
  nm__rng_shuffle(r, start + 1, (size_t)K - 1);
  for (int i = 0; i < K; i++) {
    nm__item_word(b, numbers[hops]);
    nm__item_word(b, letters[w->truth[cycle[start[i]]]]);
    nm__item_end(b, 0);
    nm__item_word(b, letters[w->truth[cycle[(start[i] + (uint32_t)hops) % (uint32_t)K]]]);
    nm__item_end(b, 1);
  }
}

static void make(const struct nm_world *w, uint64_t j, int side, struct nm__item *b) {
  struct nm__rng r = {w->item_key, j, 0};
  const int *p = w->param;
  int K = p[K_MIN] + (int)nm__rng_below(&r, (uint64_t)(p[K_MAX] - p[K_MIN] + 1));
  uint32_t cycle[N_NODES];
  b->out->twin = j;
  b->out->depth = p[HOPS] < K - p[HOPS] ? p[HOPS] : K - p[HOPS];
  if (p[FIXED]) {
    K = p[K_MAX];
    uint32_t pair = (uint32_t)nm__rng_below(&r, w->n_twins);
    uint32_t at = w->truth[STARTS + (uint32_t)side * w->n_twins + pair];
    for (uint32_t i = 0; i < (uint32_t)K; i++)
      cycle[i] = w->truth[CYCLE + (at + i) % (uint32_t)K];
    b->out->twin = pair;
    b->out->depth = 0;
  } else {
    draw_cycle(&r, K, p[HOPS], side, cycle);
  }
  put_context(w, &r, cycle, K, b);
  put_queries(w, &r, cycle, K, b);
  b->out->label = side;
}

/* Reads the pairs into a map and walks it. */
static int check(const struct nm_world *w, const char *text, const char *answer) {
  char word[NM__WORD];
  int next[N_NODES], at, hops;
  (void)w;
  for (int i = 0; i < N_NODES; i++) next[i] = -1;
  while (nm__next_word(&text, word) && (at = nm__find_word(letters, N_NODES, word)) >= 0) {
    if (next[at] >= 0 || !nm__next_word(&text, word)) return -1;
    next[at] = nm__find_word(letters, N_NODES, word);
    if (next[at] < 0 || !nm__next_word(&text, word) || strcmp(word, ";")) return -1;
  }
  hops = nm__find_word(numbers, MAX_HOPS + 1, word);
  if (hops < 1 || !nm__next_word(&text, word)) return -1;
  at = nm__find_word(letters, N_NODES, word);
  if (at < 0 || nm__next_word(&text, word)) return -1;
  for (; hops > 0 && at >= 0; hops--) at = next[at];
  return at < 0 ? -1 : !strcmp(answer, letters[at]);
}

const struct nm__world_kind nm__world_chase = {
    "chase", "the node some hops on from s, in pairs \"a b ;\": \"a b ; b c ; c a ; 2 a c\"",
    labels, params, draw, make, check};
