/* relation.c - facts about people, asked in many phrasings: "tell me : where does arno live ?" is
 * answered by the name of a place.
 *
 * W sends 32 people to 32 places, one to one, and to 8 trades, four people to each. A phrasing is a
 * beginning and a core, four of each for every relation, and a quarter of the sixteen pairs are
 * held out so that each beginning and each core is also seen: what is held out is a way of asking,
 * not a fact. The phrasing is the twin. Twins ask about two people with answers of opposite
 * classes: W calls half of the places, and half of the trades, east and the others west. The person
 * tells the label, as with every fact that is learned by heart. One fact is looked up: depth 1. */
#include <string.h>
#include "world/world.h"

enum { N_PEOPLE = 32, N_TRADES = 8, EACH = N_PEOPLE / N_TRADES, SIDE = 4, KIND = 0 };
enum { TRADE = N_PEOPLE, EAST_PLACE = TRADE + N_PEOPLE, EAST_TRADE = EAST_PLACE + N_PEOPLE };

static const char *const people[N_PEOPLE] = {
    "abel", "arno",  "berta", "carl",  "clara", "dora",  "edgar", "elsa",
    "emil", "felix", "frida", "georg", "greta", "hanna", "hugo",  "ida",
    "ivan", "jakob", "julia", "karl",  "lena",  "lotte", "marta", "max",
    "nora", "oskar", "otto",  "paula", "rosa",  "simon", "theo",  "vera"};
static const char *const places[N_PEOPLE] = {
    "ashford",   "birchwood", "brookside", "clayton",   "coldwell", "dunmore",  "eastfield",
    "elmstead",  "fairview",  "fenwick",   "glenbrook", "hartwell", "hazelton", "highmoor",
    "kirkby",    "lakeside",  "langton",   "mapledale", "milford",  "northam",  "oakridge",
    "pinehurst", "redcliff",  "riverton",  "sandwick",  "seaview",  "stanmore", "thornhill",
    "underwood", "westbrook", "whitby",    "woodlane"};
static const char *const trades[N_TRADES] = {"baker", "cook",   "doctor", "farmer",
                                             "miller", "sailor", "smith",  "tailor"};
/* "*" is where the name goes. */
static const char *const begins[SIDE] = {"", "tell me :", "please say :", "a question :"};
static const char *const cores[2][SIDE] = {
    {"where does * live ?", "what is the home of * ?", "* has a house in", "you can find * in"},
    {"what does * do ?", "what is the work of * ?", "by trade * is a", "* works as a"}};
static const char *const labels[] = {"west", "east", NULL};
static const nm_world_param params[] = {
    {"kind", "0: both, 1: places (one to one), 2: trades (many to one)", 0, 2, 0}, {0}};

static int draw(struct nm_world *w, nm_err *err) {
  uint32_t order[N_PEOPLE];
  (void)err;
  nm__draw_order(w->truth_key, 0, w->truth, N_PEOPLE);
  nm__draw_order(w->truth_key, 1, order, N_PEOPLE);
  for (uint32_t i = 0; i < N_PEOPLE; i++) w->truth[TRADE + order[i]] = i / EACH;
  nm__draw_order(w->truth_key, 2, order, N_PEOPLE);
  for (uint32_t i = 0; i < N_PEOPLE; i++) w->truth[EAST_PLACE + order[i]] = i % 2;
  nm__draw_order(w->truth_key, 3, order, N_TRADES);
  for (uint32_t i = 0; i < N_TRADES; i++) w->truth[EAST_TRADE + order[i]] = i % 2;
  w->n_twins = 2 * SIDE * SIDE;
  nm__split_grid(w, 0, SIDE, SIDE, 1);
  nm__split_grid(w, SIDE * SIDE, SIDE, SIDE, 1);
  return NM_OK;
}

static int class_of(const struct nm_world *w, int trade, uint32_t person) {
  return (int)(trade ? w->truth[EAST_TRADE + w->truth[TRADE + person]]
                     : w->truth[EAST_PLACE + w->truth[person]]);
}

static void make(const struct nm_world *w, uint64_t j, int side, struct nm__item *b) {
  struct nm__rng r = {w->item_key, j, 0};
  int trade = w->param[KIND] ? w->param[KIND] - 1 : (int)nm__rng_below(&r, 2);
  uint32_t begin = (uint32_t)nm__rng_below(&r, SIDE), core = (uint32_t)nm__rng_below(&r, SIDE);
  uint32_t person[2] = {N_PEOPLE, N_PEOPLE};
  while (person[0] == N_PEOPLE || person[1] == N_PEOPLE) {
    uint32_t p = (uint32_t)nm__rng_below(&r, N_PEOPLE);
    person[class_of(w, trade, p)] = p;
  }
  nm__item_phrase(b, begins[begin], NULL);
  nm__item_phrase(b, cores[trade][core], people[person[side]]);
  nm__item_end(b, 0);
  nm__item_word(b, trade ? trades[w->truth[TRADE + person[side]]] : places[w->truth[person[side]]]);
  nm__item_end(b, 1);
  b->out->twin = (uint64_t)trade * SIDE * SIDE + begin * SIDE + core;
  b->out->label = side;
  b->out->depth = 1;
}

/* Reads the core that stands at the end of the text, and the person in it. */
static int check(const struct nm_world *w, const char *text, const char *answer) {
  for (int k = 0; k < 2; k++)
    for (int i = 0; i < SIDE * SIDE; i++) {
      char name[NM__WORD];
      const char *rest = nm__skip_phrase(text, begins[i / SIDE], NULL);
      if (!rest || !(rest = nm__skip_phrase(rest, cores[k][i % SIDE], name)) || *rest) continue;
      int p = nm__find_word(people, N_PEOPLE, name);
      if (p < 0) return -1;
      return !strcmp(answer, k ? trades[w->truth[TRADE + p]] : places[w->truth[p]]);
    }
  return -1;
}

const struct nm__world_kind nm__world_relation = {
    "relation", "a person's place or trade, in many phrasings: \"where does arno live ? kirkby\"",
    labels, params, draw, make, check};
