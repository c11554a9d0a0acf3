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
#include "world/world.h"

enum { N_WORDS = 24, MAX_NODES = 16, MAX_NEXT = 4, GRAPH = 0, LENGTH, TRACE };

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

/* Neighbours of a node in ascending order; how many. */
static int neighbours(int graph, int node, int out[MAX_NEXT]) {
  static const int rows[] = {4, 3, 3}, cols[] = {4, 4, 3}, ring[] = {12, 8};
  int n = 0;
  if (graph < 3) {
    int R = rows[graph], C = cols[graph], r = node / C, c = node % C;
    if (r) out[n++] = node - C;
    if (c) out[n++] = node - 1;
    if (c < C - 1) out[n++] = node + 1;
    if (r < R - 1) out[n++] = node + C;
    return n;
  }
  if (graph < 5) {
    int N = ring[graph - 3];
    out[n++] = (node + N - 1) % N;
    out[n++] = (node + 1) % N;
    return n;
  }
  /* Honeycomb: three hexagons around one node; nodes 1..3 around node 0, a ring 4..12 around
   * them, and node 13 hung on. Edges as a list. */
  static const int edge[][2] = {{0, 1},  {0, 2},   {0, 3},  {1, 4}, {1, 5}, {2, 7},
                                {2, 8},  {3, 10},  {3, 11}, {5, 6}, {6, 7}, {8, 9},
                                {9, 10}, {11, 12}, {12, 4}, {9, 13}};
  for (size_t i = 0; i < sizeof edge / sizeof *edge; i++)
    for (int k = 0; k < 2; k++)
      if (edge[i][k] == node && n < MAX_NEXT) out[n++] = edge[i][!k];
  return n;
}

static int n_nodes(int graph) {
  static const int n[] = {16, 12, 9, 12, 8, 14};
  return n[graph];
}

static int draw(struct nm_world *w, nm_err *err) {
  (void)err;
  (void)w;
  return NM_OK;
}

static bool next_to(int graph, int a, int b) {
  int v[MAX_NEXT], n = neighbours(graph, a, v);
  for (int i = 0; i < n; i++)
    if (v[i] == b) return true;
  return false;
}

struct walk { int node[400], n; bool step[MAX_NODES][MAX_NODES], seen[MAX_NODES]; };

static void take_walk(int graph, int n, struct nm__rng *r, struct walk *k) {
  int at = (int)nm__rng_below(r, (uint64_t)n_nodes(graph));
  memset(k, 0, sizeof *k);
  for (k->n = 0; k->n < n; k->n++) {
    int v[MAX_NEXT], m = neighbours(graph, at, v);
    k->node[k->n] = at;
    k->seen[at] = true;
    int to = v[nm__rng_below(r, (uint64_t)m)];
    if (k->n + 1 < n) k->step[at][to] = k->step[to][at] = true;
    at = to;
  }
}

/* A first node with both a neighbour it was seen beside and a visited one that is none. */
static bool ask(int graph, const struct walk *k, struct nm__rng *r, int pair[3]) {
  int N = n_nodes(graph), start = (int)nm__rng_below(r, (uint64_t)N);
  for (int i = 0; i < N; i++) {
    int a = (start + i) % N, v[2][MAX_NODES], n[2] = {0, 0};
    for (int b = 0; b < N; b++) {
      if (!k->seen[b] || b == a || (next_to(graph, a, b) && !k->step[a][b])) continue;
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
  int graph = w->param[GRAPH], pair[3];
  for (uint32_t i = 0; i < N_WORDS; i++) name[i] = i;
  nm__rng_shuffle(&r, name, N_WORDS);
  do {
    take_walk(graph, w->param[LENGTH], &r, &k);
  } while (!ask(graph, &k, &r, pair));
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
