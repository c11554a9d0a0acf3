/* world.h - miniature worlds: texts whose truth is known, one file a world.
 *
 * A world is a pure function: W draws its truth (which word is of which class, which city lies
 * where), and (W, seed, i) makes item i. Nothing depends on who drew before, so the first n items
 * are the same whatever n is, and items may be made in any order by any number of threads.
 *
 * Items come in twins. Items 2j and 2j+1 have equal words but for what decides the answer, and
 * opposite labels; so what must not tell the label cannot. The `twin` of an item names the fact
 * behind it, which may be the fact of other items too (a city has many). A fact is on the same
 * side of train and test in every file of the same W.
 *
 * An item is a row of parts joined by single spaces. Part 0 is the question, part 1 its answer;
 * more questions and answers may follow for training. Weight 1 marks answers.
 *
 * A new world is one file with `draw`, `make` and `check`, and one row in world.c. */
#ifndef NM_WORLD_WORLD_H
#define NM_WORLD_WORLD_H

#include "core/core.h"

enum {
  NM__WORLD_PARAMS = 8,
  NM__ANSWER = 512,
  NM__WORLD_TRUTH = 128,
  NM__WORLD_TWINS = 64,
  NM__WORD = 32
};

/* An item being made. */
struct nm__item {
  nm_world_item *out;              /* twin, label and depth are the world's to set */
  struct nm__buf text;             /* all parts, each ended by a zero */
  size_t from;                     /* where the part being written begins */
  size_t *at;                      /* where each part begins */
  nm_world_part *part;
  int n, cap;
};

struct nm__world_kind {
  const char *name, *about;
  const char *const *labels;       /* by class id, ends with NULL */
  const nm_world_param *params;    /* ends with name NULL */
  /* Draws the truth from w->truth_key. Refuses parameters that do not go together. */
  int (*draw)(struct nm_world *w, nm_err *err);
  /* Pair j, side 0 or 1: opposite sides have opposite labels. */
  void (*make)(const struct nm_world *w, uint64_t j, int side, struct nm__item *b);
  /* Solves the question from its text alone: 1 right, 0 wrong, -1 not a text of this world. */
  int (*check)(const struct nm_world *w, const char *text, const char *answer);
};

/* A world opened: its parameters, its truth and the keys of its random numbers. */
struct nm_world {
  const struct nm__world_kind *kind;
  uint64_t W, truth_key, item_key, split_key;
  int param[NM__WORLD_PARAMS];     /* in the order of the kind's table */
  uint32_t truth[NM__WORLD_TRUTH]; /* what it means is the world's affair */
  uint32_t n_twins;                /* facts there are, at most NM__WORLD_TWINS; 0: no bound */
  bool test[NM__WORLD_TWINS];      /* with a bound: the facts held out */
  bool split;                      /* `draw` has chosen them itself (nm__split_grid) */
};

extern const struct nm__world_kind nm__world_lexical, nm__world_facts, nm__world_chase,
    nm__world_parity, nm__world_relation, nm__world_taxonomy, nm__world_sentiment, nm__world_count,
    nm__world_order, nm__world_walk, nm__world_needle, nm__world_knights;

/* Appends a word to the part being written; ends the part. */
void nm__item_word(struct nm__item *b, const char *word);
void nm__item_end(struct nm__item *b, int weight);
/* The words of a phrase, with `name` where it has a "*". */
void nm__item_phrase(struct nm__item *b, const char *phrase, const char *name);

/* The next word of a text, cut to NM__WORD - 1 bytes; false at its end. */
bool nm__next_word(const char **text, char word[NM__WORD]);
/* Where the text goes on after the words of a phrase, NULL when it does not begin with them; the
 * word that stands where the phrase has a "*" goes to `name`. */
const char *nm__skip_phrase(const char *text, const char *phrase, char name[NM__WORD]);
/* Holds out `held` of every row of a grid of facts first + r * cols + c, so that no row and no
 * column is held out whole (held < cols). */
void nm__split_grid(struct nm_world *w, uint32_t first, uint32_t rows, uint32_t cols,
                    uint32_t held);
/* Index of a word in a list of n, or -1. */
int nm__find_word(const char *const *list, int n, const char *word);
/* 0, 1, .. n-1 in an order drawn by (key, stream). */
void nm__draw_order(uint64_t key, uint64_t stream, uint32_t *v, uint32_t n);

#endif
