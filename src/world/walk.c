/* walk.c - a graph that is shown by walking in it: words stand for its nodes, in every item others.
 *
 *   fox sun cup sun oak sun fox ... ; fox sun ?      yes: there is a step between fox and sun
 *
 * Every item draws which of 24 words stand for the nodes and walks, evenly over neighbours, until
 * all edges that the question may need are shown. The question asks about two words of the walk;
 * twins differ in the second: next to the first in the graph, or not. Both are drawn evenly
 * from those that were visited, so their number of visits is alike. A pair is looked up: depth 1.
 * Topology is the same in every W: a grid, a ring or a honeycomb (Park et al., ICLR: In-Context
 * Learning of Representations, arXiv 2501.00070). trace=1 puts the loss on the words of the walk
 * too. */
#include <string.h>
#include "world/graph.h"
#include "world/world.h"

enum { N_WORDS = 24, MAX_NODES = 16, GRAPH = 0, LENGTH, TRACE };

static const char *const words[N_WORDS] = {"ant", "bee", "bud", "cat", "cow", "dog", "elk", "fig",
                                           "fox", "gem", "hen", "ink", "jet", "key", "log", "map",
                                           "nut", "oak", "owl", "pen", "pig", "sun", "toy", "urn"};
static const char *const labels[] = {"no", "yes", NULL};
static const nm_world_param params[] = {
    {"graph", "0: grid 4x4, 1: 3x4, 2: 3x3, 3: ring of 12, 4: ring of 8, 5: honeycomb of 14", 0, 5,
     2},
    {"length", "words of the walk", 8, 400, 48},
    {"trace", "1: the words of the walk are learned too", 0, 1, 0},
    {0}};

static void graph_of(int graph, struct nm__graph *g) {
  switch (graph) {
    case 0: nm__graph_grid(g, 4, 4); break;
    case 1: nm__graph_grid(g, 3, 4); break;
    case 2: nm__graph_grid(g, 3, 3); break;
    case 3: nm__graph_ring(g, 12); break;
    case 4: nm__graph_ring(g, 8); break;
    default: nm__graph_honeycomb(g);
  }
}

static int draw(struct nm_world *w, nm_err *err) {
  (void)err;
  (void)w;
  return NM_OK;
}

struct walk { int node[400], n; bool step[MAX_NODES][MAX_NODES], seen[MAX_NODES]; };

static void take_walk(const struct nm__graph *g, int n, struct nm__rng *r, struct walk *k) {
  memset(k, 0, sizeof *k);
  k->n = n;
  nm__graph_walk(g, r, k->node, n);
  for (int i = 0; i < n; i++) k->seen[k->node[i]] = true;
  for (int i = 1; i < n; i++)
    k->step[k->node[i - 1]][k->node[i]] = k->step[k->node[i]][k->node[i - 1]] = true;
}

/* A first node with both a neighbour it was seen beside and a visited one that is none. */
static bool ask(const struct nm__graph *g, const struct walk *k, struct nm__rng *r, int pair[3]) {
  int N = g->n, start = (int)nm__rng_below(r, (uint64_t)N);
  for (int i = 0; i < N; i++) {
    int a = (start + i) % N, v[2][MAX_NODES], n[2] = {0, 0};
    for (int b = 0; b < N; b++) {
      if (!k->seen[b] || b == a || (nm__graph_adjacent(g, a, b) && !k->step[a][b])) continue;
      int yes = k->step[a][b];
      v[yes][n[yes]++] = b;
    }
    if (!k->seen[a] || !n[0] || !n[1]) continue;
    pair[0] = a;
    for (int yes = 0; yes < 2; yes++)
      pair[1 + yes] = v[yes][nm__rng_below(r, (uint64_t)n[yes])];
    return true;
  }
  return false;
}

static void make(const struct nm_world *w, uint64_t j, int side, struct nm__item *b) {
  struct nm__rng r = {w->item_key, j, 0};
  struct walk k;
  uint32_t name[N_WORDS];
  struct nm__graph g;
  int pair[3];
  graph_of(w->param[GRAPH], &g);
  for (uint32_t i = 0; i < N_WORDS; i++) name[i] = i;
  nm__rng_shuffle(&r, name, N_WORDS);
  do {
    take_walk(&g, w->param[LENGTH], &r, &k);
  } while (!ask(&g, &k, &r, pair));
  for (int i = 0; i < k.n; i++) nm__item_word(b, words[name[k.node[i]]]);
  nm__item_word(b, ";");
  nm__item_word(b, words[name[pair[0]]]);
  nm__item_word(b, words[name[pair[1 + side]]]);
  nm__item_word(b, "?");
  nm__item_end(b, w->param[TRACE]);
  nm__item_word(b, labels[side]);
  nm__item_end(b, 1);
  b->out->twin = j;
  b->out->label = side;
  b->out->depth = 1;
}

/* Two words are next to each other when a step of the walk leads between them. */
static int check(const struct nm_world *w, const char *text, const char *answer) {
  bool step[N_WORDS][N_WORDS] = {{false}}, seen[N_WORDS] = {false};
  char word[NM__WORD];
  int at, before = -1, a, c;
  (void)w;
  while (nm__next_word(&text, word) && (at = nm__find_word(words, N_WORDS, word)) >= 0) {
    if (before >= 0) step[before][at] = step[at][before] = true;
    seen[before = at] = true;
  }
  if (strcmp(word, ";") || !nm__next_word(&text, word) ||
      (a = nm__find_word(words, N_WORDS, word)) < 0 || !nm__next_word(&text, word) ||
      (c = nm__find_word(words, N_WORDS, word)) < 0 || !seen[a] || !seen[c] ||
      !(text = nm__skip_phrase(text, "?", NULL)) || *text)
    return -1;
  return !strcmp(answer, labels[step[a][c]]);
}

const struct nm__world_kind nm__world_walk = {
    "walk",
    "whether a walk in a graph stepped between two words: \"fox sun cup ... ; fox sun ? yes\"",
    labels,
    params,
    draw,
    make,
    check};
