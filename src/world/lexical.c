/* lexical.c - the class of a word: "coin lamp rope bell fork drum ?" is answered by the class of
 * the last word before the question mark.
 *
 * W deals 40 words into two classes of 20 and pairs word p of one with word p of the other; the
 * pair is the fact that twins share. The words before the last are noise. Nothing has to be
 * combined: the depth of computation is 0. */
#include <string.h>
#include "world/world.h"

enum { N_WORDS = 40, N_PAIRS = N_WORDS / 2, LENGTH = 0 };

static const char *const words[N_WORDS] = {
    "anvil", "apple", "basin", "bell",  "boat",  "brick",  "broom", "candle", "chair", "clock",
    "coin",  "crown", "cup",   "drum",  "fence", "flute",  "fork",  "glove",  "hat",   "jar",
    "kite",  "knife", "lamp",  "leaf",  "mask",  "mirror", "nail",  "needle", "oar",   "pearl",
    "plate", "quill", "rope",  "saddle", "shell", "spoon", "table", "torch",  "wheel", "whip"};

static const char *const labels[] = {"north", "south", NULL};

static const nm_world_param params[] = {{"length", "words before the question mark", 1, 64, 6},
                                        {0}};

/* truth[class * 20 + p]: the word of that class in pair p. */
static int draw(struct nm_world *w, nm_err *err) {
  (void)err;
  nm__draw_order(w->truth_key, 0, w->truth, N_WORDS);
  w->n_twins = N_PAIRS;
  return NM_OK;
}

static void make(const struct nm_world *w, uint64_t j, int side, struct nm__item *b) {
  struct nm__rng r = {w->item_key, j, 0};
  uint32_t pair = (uint32_t)nm__rng_below(&r, N_PAIRS);
  for (int i = 1; i < w->param[LENGTH]; i++)
    nm__item_word(b, words[nm__rng_below(&r, N_WORDS)]);
  nm__item_word(b, words[w->truth[side * N_PAIRS + (int)pair]]);
  nm__item_word(b, "?");
  nm__item_end(b, 0);
  nm__item_word(b, labels[side]);
  nm__item_end(b, 1);
  b->out->twin = pair;
  b->out->label = side;
  b->out->depth = 0;
}

static int check(const struct nm_world *w, const char *text, const char *answer) {
  char word[NM__WORD];
  int last = -1, class = 0;
  while (nm__next_word(&text, word) && strcmp(word, "?"))
    if ((last = nm__find_word(words, N_WORDS, word)) < 0) return -1;
  if (last < 0 || strcmp(word, "?") || nm__next_word(&text, word)) return -1;
  for (int i = N_PAIRS; i < N_WORDS; i++) class |= w->truth[i] == (uint32_t)last;
  return !strcmp(answer, labels[class]);
}

const struct nm__world_kind nm__world_lexical = {
    "lexical", "the class of the last of some words: \"w1 .. w6 ? class\"",
    labels, params, draw, make, check};
