/* knights.c - Knights and Knaves in a compact language: "bob : ann lies ; ann : & bob true cid true
 * ; cid : ... ; is bob ?" is answered knight or knave.
 *
 * Puzzles are drawn as the published generator draws them: a statement is a leaf (somebody tells
 * the truth, or lies; nobody says "I lie"), its negation, or two different leaves joined by and,
 * or, ->, <=>. Those with exactly one solution, in which not all are of one kind, are kept. Twins
 * are one puzzle with questions about a knight and about a knave: the statements say nothing about
 * the label. Names are drawn anew for every puzzle. All people's statements must be held together:
 * depth is counted as the number of people. The rule is the same in every W. */
#include "world/knights.h"

#include <string.h>
#include "world/world.h"

enum { N_NAMES = 8, PEOPLE = 0 };

static const char *const names[N_NAMES] = {"ann", "bob", "cid", "dan", "eve", "fay", "gil", "hal"};
static const char *const words[] = {"true", "lies", "!",  "&",
                                    "|",    "->",   "<=>"}; /* enum nm__kk_op */
static const char *const labels[] = {"knave", "knight", NULL};
static const nm_world_param params[] = {{"people", "people on the island", 2, N_NAMES, 3}, {0}};

static int draw(struct nm_world *w, nm_err *err) {
  (void)w;
  (void)err;
  return NM_OK;
}

static int leaf(struct nm__kk *k, struct nm__rng *r, int speaker) {
  for (;;) {
    enum nm__kk_op op = nm__rng_below(r, 2) ? NM__KK_LIE : NM__KK_TRUTH;
    int person = (int)nm__rng_below(r, (uint64_t)k->n_people);
    if (op == NM__KK_TRUTH || person != speaker) return nm__kk_add(k, op, person);
  }
}

static bool same(const struct nm__kk *k, int a, int b) {
  return k->node[a].op == k->node[b].op && k->node[a].person == k->node[b].person;
}

static int statement(struct nm__kk *k, struct nm__rng *r, int speaker) {
  static const enum nm__kk_op by_dice[] = {NM__KK_TRUTH, NM__KK_NOT, NM__KK_AND,
                                           NM__KK_OR,    NM__KK_IF,  NM__KK_IFF};
  uint64_t dice = nm__rng_below(r, 6);
  if (!dice) return leaf(k, r, speaker);
  int root = nm__kk_add(k, by_dice[dice], 0), a = leaf(k, r, speaker), b;
  k->node[root].first = a;
  if (dice == 1) return root;
  while (same(k, a, b = leaf(k, r, speaker))) k->n_nodes--;
  k->node[a].next = b;
  return root;
}

/* A puzzle with one solution that has both kinds. */
static uint32_t puzzle(struct nm__kk *k, struct nm__rng *r, int n) {
  uint32_t knights = 0, all = (1u << n) - 1;
  do {
    k->n_nodes = 0;
    k->n_people = n;
    for (int i = 0; i < n; i++) k->root[i] = statement(k, r, i);
  } while (nm__kk_solve(k, &knights) != 1 || !knights || knights == all);
  return knights;
}

static void put(struct nm__item *b, const struct nm__kk *k, int node, const uint32_t *name) {
  enum nm__kk_op op = k->node[node].op;
  if (op <= NM__KK_LIE) nm__item_word(b, names[name[k->node[node].person]]);
  nm__item_word(b, words[op]);
  for (int c = k->node[node].first; c >= 0; c = k->node[c].next) put(b, k, c, name);
}

static void make(const struct nm_world *w, uint64_t j, int side, struct nm__item *b) {
  struct nm__rng r = {w->item_key, j, 0};
  struct nm__kk k;
  int n = w->param[PEOPLE], asked;
  uint32_t name[N_NAMES], knights = puzzle(&k, &r, n);
  for (uint32_t i = 0; i < N_NAMES; i++) name[i] = i;
  nm__rng_shuffle(&r, name, N_NAMES);
  for (int i = 0; i < n; i++) {
    nm__item_word(b, names[name[i]]);
    nm__item_word(b, ":");
    put(b, &k, k.root[i], name);
    nm__item_word(b, ";");
  }
  int start = (int)nm__rng_below(&r, (uint64_t)n);
  for (asked = start; (int)(knights >> asked & 1) != side;) asked = (asked + 1) % n;
  nm__item_word(b, "is");
  nm__item_word(b, names[name[asked]]);
  nm__item_word(b, "?");
  nm__item_end(b, 0);
  nm__item_word(b, labels[side]);
  nm__item_end(b, 1);
  b->out->twin = j;
  b->out->label = side;
  b->out->depth = n;
}

/* ---- the checker: the compact text into a puzzle, solved again ----------------------- */

/* Person by name, numbered by who speaks first; -1 when unknown. */
struct cast { int id[N_NAMES]; };

static int person(const struct cast *c, const char *word) {
  int i = nm__find_word(names, N_NAMES, word);
  return i < 0 ? -1 : c->id[i];
}

static int read_statement(struct nm__kk *k, const struct cast *c, const char **text, int depth) {
  char word[NM__WORD], more[NM__WORD];
  if (depth > NM__KK_DEPTH || !nm__next_word(text, word)) return -1;
  int op = nm__find_word(words, 7, word);
  if (op < NM__KK_NOT) {
    int who = person(c, word);
    if (who < 0 || !nm__next_word(text, more)) return -1;
    int kind = nm__find_word(words, 2, more);
    return kind < 0 ? -1 : nm__kk_add(k, (enum nm__kk_op)kind, who);
  }
  int root = nm__kk_add(k, (enum nm__kk_op)op, 0);
  if (root < 0) return -1;
  int a = read_statement(k, c, text, depth + 1), b;
  if (a < 0) return -1;
  k->node[root].first = a;
  if (op == NM__KK_NOT) return root;
  if ((b = read_statement(k, c, text, depth + 1)) < 0) return -1;
  k->node[a].next = b;
  return root;
}

/* Who speaks: every "NAME :" in the text. */
static bool read_cast(const char *text, struct cast *c, int *n) {
  char word[NM__WORD], before[NM__WORD] = "";
  for (int i = 0; i < N_NAMES; i++) c->id[i] = -1;
  for (*n = 0; nm__next_word(&text, word); memcpy(before, word, sizeof before)) {
    if (strcmp(word, ":")) continue;
    int i = nm__find_word(names, N_NAMES, before);
    if (i < 0 || c->id[i] >= 0) return false;
    c->id[i] = (*n)++;
  }
  return *n > 0;
}

static int check(const struct nm_world *w, const char *text, const char *answer) {
  struct nm__kk k = {0};
  struct cast c;
  char name[NM__WORD];
  uint32_t knights = 0;
  (void)w;
  if (!read_cast(text, &c, &k.n_people)) return -1;
  for (int i = 0; i < k.n_people; i++) {
    if (!(text = nm__skip_phrase(text, "* :", name))) return -1;
    if ((k.root[i] = read_statement(&k, &c, &text, 0)) < 0) return -1;
    if (!(text = nm__skip_phrase(text, ";", NULL))) return -1;
  }
  if (!(text = nm__skip_phrase(text, "is * ?", name)) || *text) return -1;
  int asked = person(&c, name);
  if (asked < 0 || nm__kk_solve(&k, &knights) != 1) return -1;
  return !strcmp(answer, labels[knights >> asked & 1]);
}

const struct nm__world_kind nm__world_knights = {
    "knights", "who tells the truth, Knights and Knaves: \"bob : ann lies ; .. is bob ? knight\"",
    labels, params, draw, make, check};
