/* facts.c - where a city lies: "arlem tavia ?" is answered yes when arlem lies in tavia.
 *
 * W sends 60 cities to 12 countries, five to each. Twins ask for one city, once with its own
 * country and once with another, drawn evenly from the eleven. Because every country has five
 * cities, a country is as frequent in false items as in true ones, so no word by itself says
 * anything about the label. City and country must be combined: depth of computation 1.
 * The fact that twins share is the city. */
#include <string.h>
#include "world/world.h"

enum { N_CITIES = 60, N_COUNTRIES = 12, EACH = N_CITIES / N_COUNTRIES };

static const char *const cities[N_CITIES] = {
    "arlem",  "asko",   "balor",  "belmer", "birto",  "borun",  "brenn",  "calver", "cardo",
    "corvik", "dalmo",  "delko",  "dorlan", "durso",  "elban",  "elvik",  "ermo",   "falun",
    "fermo",  "fossan", "galdor", "garnet", "gelmo",  "gorvan", "halmar", "harken", "helvo",
    "hovra",  "ilmen",  "isto",   "jarven", "jolsa",  "kalmo",  "karvik", "kelso",  "korban",
    "lamor",  "larvo",  "lenko",  "lurgan", "malvo",  "merin",  "molda",  "narvo",  "nelmar",
    "norsa",  "olvar",  "orben",  "palmo",  "parven", "pelso",  "ravik",  "rolman", "salvo",
    "selmar", "sorben", "talmo",  "torvik", "ulmar",  "velso"};

static const char *const countries[N_COUNTRIES] = {"aldia", "bernia", "corsia", "dravia",
                                                   "elonia", "fervia", "galdia", "hestia",
                                                   "ithria", "jorvia", "kelmia", "tavia"};

static const char *const labels[] = {"no", "yes", NULL};
static const nm_world_param params[] = {{0}};

/* truth[city]: its country. */
static int draw(struct nm_world *w, nm_err *err) {
  uint32_t order[N_CITIES];
  (void)err;
  nm__draw_order(w->truth_key, 0, order, N_CITIES);
  for (uint32_t i = 0; i < N_CITIES; i++) w->truth[order[i]] = i / EACH;
  w->n_twins = N_CITIES;
  return NM_OK;
}

static void make(const struct nm_world *w, uint64_t j, int side, struct nm__item *b) {
  struct nm__rng r = {w->item_key, j, 0};
  uint32_t city = (uint32_t)nm__rng_below(&r, N_CITIES), country = w->truth[city];
  if (!side) country = (country + 1 + (uint32_t)nm__rng_below(&r, N_COUNTRIES - 1)) % N_COUNTRIES;
  nm__item_word(b, cities[city]);
  nm__item_word(b, countries[country]);
  nm__item_word(b, "?");
  nm__item_end(b, 0);
  nm__item_word(b, labels[side]);
  nm__item_end(b, 1);
  b->out->twin = city;
  b->out->label = side;
  b->out->depth = 1;
}

static int check(const struct nm_world *w, const char *text, const char *answer) {
  char city[NM__WORD], country[NM__WORD], mark[NM__WORD], more[NM__WORD];
  if (!nm__next_word(&text, city) || !nm__next_word(&text, country) ||
      !nm__next_word(&text, mark) || strcmp(mark, "?") || nm__next_word(&text, more))
    return -1;
  int c = nm__find_word(cities, N_CITIES, city), k = nm__find_word(countries, N_COUNTRIES, country);
  if (c < 0 || k < 0) return -1;
  return !strcmp(answer, w->truth[c] == (uint32_t)k ? "yes" : "no");
}

const struct nm__world_kind nm__world_facts = {
    "facts", "whether a city lies in a country, a fixed map: \"c k ? yes/no\"",
    labels, params, draw, make, check};
