/* taxonomy.c - kinds of kinds, and what they inherit: "is wren a bird ?", "can wren swim ?".
 *
 * W hangs 27 species under 9 families, these under 3 orders, and gives every species, family and
 * order one ability, which all below it have. A question asks whether a species belongs to a family
 * or an order, or has the ability of a node; level 0 is the species' own ability, 1 the family, 2
 * the order. Steps from the species up to that node are the depth of computation.
 *
 * Twins ask about the same node for one species below it and one that is not. Nodes are drawn
 * evenly within a level, so a species is as frequent in true items as in false ones, and no single
 * word tells the label. The node with its kind of question is the twin. */
#include <string.h>
#include "world/world.h"

enum { N_SPECIES = 27, N_FAMILIES = 9, N_ORDERS = 3, BRANCH = 3, N_NODES = 39, ASK = 0, LEVEL };
enum { IS_A = N_NODES, N_QUESTIONS = N_NODES + N_FAMILIES + N_ORDERS };

static const char *const species[N_SPECIES] = {
    "adder", "badger", "bream", "carp",  "crane", "dace",  "eider", "ferret", "finch",
    "gecko", "heron",  "ibex",  "jay",   "kestrel", "lark", "lemur", "marten", "newt",
    "otter", "perch",  "quail", "raven", "skink", "tapir", "vole",  "wren",   "zander"};
/* Families, then orders. */
static const char *const groups[N_FAMILIES + N_ORDERS] = {
    "borin", "celid", "dulan", "ferox", "galid", "horan", "lupid", "murid", "noran",
    "arthan", "beluan", "corvan"};
/* One for each species, family and order. */
static const char *const abilities[N_NODES] = {
    "bark",  "bite",  "blink", "bounce", "buzz", "chirp", "climb", "crawl", "croak", "dance",
    "dart",  "dig",   "dive",  "doze",   "fish", "float", "fly",   "gallop", "glide", "glow",
    "growl", "hide",  "hiss",  "hop",    "howl", "hum",   "hunt",  "jump",  "kick",  "leap",
    "roll",  "run",   "sing",  "sting",  "swim", "swing", "trot",  "whistle", "yawn"};
static const char *const labels[] = {"no", "yes", NULL};
static const nm_world_param params[] = {
    {"ask", "0: both, 1: what it is, 2: what it can", 0, 2, 0},
    {"level", "0: any; 1, 2, 3: the ability of the species, of the family or the family itself, of "
              "the order or the order itself", 0, 3, 0},
    {0}};

/* truth[s]: place of species s in the tree, its family is that / 3, its order that / 9.
 * truth[27 + n]: the ability of node n; nodes are the places, then families, then orders. */
static int draw(struct nm_world *w, nm_err *err) {
  if (w->param[ASK] == 1 && w->param[LEVEL] == 1)
    return nm__fail(err, NM_EUSAGE, "world taxonomy: with ask=1 the level is 2 or 3 (or 0, any)");
  nm__draw_order(w->truth_key, 0, w->truth, N_SPECIES);
  nm__draw_order(w->truth_key, 1, w->truth + N_SPECIES, N_NODES);
  w->n_twins = N_QUESTIONS;
  return NM_OK;
}

/* Is the node, by its level and number, above the place? */
static bool below(uint32_t place, int level, uint32_t node) {
  for (; level > 0; level--) place /= BRANCH;
  return place == node;
}

static uint32_t first_node(int level) {
  return level == 0 ? 0 : level == 1 ? N_SPECIES : N_SPECIES + N_FAMILIES;
}

static void make(const struct nm_world *w, uint64_t j, int side, struct nm__item *b) {
  static const uint32_t many[] = {N_SPECIES, N_FAMILIES, N_ORDERS};
  struct nm__rng r = {w->item_key, j, 0};
  bool is = w->param[ASK] ? w->param[ASK] == 1 : w->param[LEVEL] != 1 && nm__rng_below(&r, 2);
  int low = is ? 1 : 0, level = w->param[LEVEL] ? w->param[LEVEL] - 1
                                                : low + (int)nm__rng_below(&r, (uint64_t)(3 - low));
  uint32_t node = (uint32_t)nm__rng_below(&r, many[level]), s[2] = {N_SPECIES, N_SPECIES};
  while (s[0] == N_SPECIES || s[1] == N_SPECIES) {
    uint32_t i = (uint32_t)nm__rng_below(&r, N_SPECIES);
    s[below(w->truth[i], level, node)] = i;
  }
  uint32_t at = first_node(level) + node;
  nm__item_word(b, is ? "is" : "can");
  nm__item_word(b, species[s[side]]);
  if (is) nm__item_word(b, "a");
  nm__item_word(b, is ? groups[at - N_SPECIES] : abilities[w->truth[N_SPECIES + at]]);
  nm__item_word(b, "?");
  nm__item_end(b, 0);
  nm__item_word(b, labels[side]);
  nm__item_end(b, 1);
  b->out->twin = is ? IS_A + at - N_SPECIES : at;
  b->out->label = side;
  b->out->depth = 1 + level;
}

static int check(const struct nm_world *w, const char *text, const char *answer) {
  char ask[NM__WORD], name[NM__WORD], what[NM__WORD], mark[NM__WORD];
  if (!nm__next_word(&text, ask) || !nm__next_word(&text, name) || !nm__next_word(&text, what))
    return -1;
  bool is = !strcmp(ask, "is");
  if ((!is && strcmp(ask, "can")) || (is && (strcmp(what, "a") || !nm__next_word(&text, what))))
    return -1;
  if (!nm__next_word(&text, mark) || strcmp(mark, "?") || nm__next_word(&text, mark)) return -1;
  int s = nm__find_word(species, N_SPECIES, name), node = -1;
  if (is) {
    node = nm__find_word(groups, N_FAMILIES + N_ORDERS, what);
    if (node >= 0) node += N_SPECIES;
  } else {
    for (int i = 0; i < N_NODES; i++)
      if (!strcmp(abilities[w->truth[N_SPECIES + i]], what)) node = i;
  }
  if (s < 0 || node < 0) return -1;
  uint32_t place = w->truth[s];
  bool yes = (uint32_t)node == place || (uint32_t)node == N_SPECIES + place / BRANCH ||
             (uint32_t)node == N_SPECIES + N_FAMILIES + place / (BRANCH * BRANCH);
  return !strcmp(answer, labels[yes]);
}

const struct nm__world_kind nm__world_taxonomy = {
    "taxonomy", "what a species is and inherits: \"is wren a galid ?\", \"can wren swim ? yes\"",
    labels, params, draw, make, check};
