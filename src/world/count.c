/* count.c - how often a letter stands in a row of letters: "count a : b a c a ?" is answered 2.
 *
 * The rule is the same in every world W. The label is whether the number is odd. Twins differ in
 * one letter, which is the asked one in one of them, so that their numbers differ by one. That
 * letter's place and all others are drawn evenly, so no place says anything about the label. The
 * twin is all but that letter. A running count takes a step a letter: depth is the number of
 * letters. */
#include <string.h>
#include "world/world.h"

enum { N_LETTERS = 8, MAX_LENGTH = 16, N_MIN = 0, N_MAX };

static const char *const letters[N_LETTERS] = {"a", "b", "c", "d", "e", "f", "g", "h"};
static const char *const numbers[MAX_LENGTH + 1] = {
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"};
static const char *const labels[] = {"even", "odd", NULL};
static const nm_world_param params[] = {{"n_min", "fewest letters", 2, MAX_LENGTH, 4},
                                        {"n_max", "most letters", 2, MAX_LENGTH, 8},
                                        {0}};

static int draw(struct nm_world *w, nm_err *err) {
  if (w->param[N_MIN] > w->param[N_MAX])
    return nm__fail(err, NM_EUSAGE, "world count: n_min %d is above n_max %d", w->param[N_MIN],
                    w->param[N_MAX]);
  return NM_OK;
}

/* Half of the letters are the asked one, so that all numbers come up. */
static void make(const struct nm_world *w, uint64_t j, int side, struct nm__item *b) {
  struct nm__rng r = {w->item_key, j, 0};
  int n = w->param[N_MIN] +
          (int)nm__rng_below(&r, (uint64_t)(w->param[N_MAX] - w->param[N_MIN] + 1));
  uint32_t asked = (uint32_t)nm__rng_below(&r, N_LETTERS), letter[MAX_LENGTH], count = 0;
  int place = (int)nm__rng_below(&r, (uint64_t)n);
  uint32_t other = (asked + 1 + (uint32_t)nm__rng_below(&r, N_LETTERS - 1)) % N_LETTERS;
  uint64_t twin = asked;
  for (int i = 0; i < n; i++) {
    bool hit = nm__rng_below(&r, 2);
    letter[i] = hit ? asked : (asked + 1 + (uint32_t)nm__rng_below(&r, N_LETTERS - 1)) % N_LETTERS;
    if (i != place) count += hit;
  }
  bool hit = (count & 1) != (uint32_t)side;
  letter[place] = hit ? asked : other;
  count += hit;
  nm__item_word(b, "count");
  nm__item_word(b, letters[asked]);
  nm__item_word(b, ":");
  for (int i = 0; i < n; i++) {
    nm__item_word(b, letters[letter[i]]);
    twin = nm__mix64(twin ^ (i == place ? 99 : letter[i])) >> 11;    /* 53 bits, as JSON keeps */
  }
  nm__item_word(b, "?");
  nm__item_end(b, 0);
  nm__item_word(b, numbers[count]);
  nm__item_end(b, 1);
  b->out->twin = twin;
  b->out->label = side;
  b->out->depth = n;
}

static int check(const struct nm_world *w, const char *text, const char *answer) {
  char asked[NM__WORD], word[NM__WORD];
  int n = 0, count = 0;
  (void)w;
  if (!(text = nm__skip_phrase(text, "count * :", asked)) ||
      nm__find_word(letters, N_LETTERS, asked) < 0)
    return -1;
  for (; nm__next_word(&text, word) && strcmp(word, "?"); n++) {
    if (n == MAX_LENGTH || nm__find_word(letters, N_LETTERS, word) < 0) return -1;
    count += !strcmp(word, asked);
  }
  if (!n || strcmp(word, "?") || nm__next_word(&text, word)) return -1;
  return !strcmp(answer, numbers[count]);
}

const struct nm__world_kind nm__world_count = {
    "count", "how often a letter stands there: \"count a : b a c a ? 2\"",
    labels, params, draw, make, check};
