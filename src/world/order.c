/* order.c - who stands before whom, from neighbours alone: "b > c ; a > b ; is a > c ?" is yes.
 *
 * n of 16 letters stand in a row; the n - 1 neighbouring pairs are told in any order, and the
 * question asks about two letters `gap` places apart. Twins ask about them the other way round, so
 * no word tells the label. From a to c the pairs lead in `gap` steps: the depth of computation.
 * The rule is the same in every W. */
#include <string.h>
#include "world/world.h"

enum { N_LETTERS = 16, N_MIN = 0, N_MAX, GAP };

static const char *const letters[N_LETTERS] = {"a", "b", "c", "d", "e", "f", "g", "h",
                                               "i", "j", "k", "l", "m", "n", "o", "p"};
static const char *const labels[] = {"no", "yes", NULL};
static const nm_world_param params[] = {
    {"n_min", "fewest letters; more than gap", 2, N_LETTERS, 4},
    {"n_max", "most letters", 2, N_LETTERS, 6},
    {"gap", "places between the two; 0: any", 0, N_LETTERS - 1, 0},
    {0}};

static int draw(struct nm_world *w, nm_err *err) {
  const int *p = w->param;
  if (p[N_MIN] > p[N_MAX])
    return nm__fail(err, NM_EUSAGE, "world order: n_min %d is above n_max %d", p[N_MIN], p[N_MAX]);
  if (p[GAP] >= p[N_MIN])
    return nm__fail(err, NM_EUSAGE,
                    "world order: %d letters have no two %d places apart; say n_min=%d", p[N_MIN],
                    p[GAP], p[GAP] + 1);
  return NM_OK;
}

static void make(const struct nm_world *w, uint64_t j, int side, struct nm__item *b) {
  struct nm__rng r = {w->item_key, j, 0};
  const int *p = w->param;
  uint32_t n = (uint32_t)p[N_MIN] +
               (uint32_t)nm__rng_below(&r, (uint64_t)(p[N_MAX] - p[N_MIN] + 1));
  uint32_t row[N_LETTERS], told[N_LETTERS];
  for (uint32_t i = 0; i < N_LETTERS; i++) row[i] = told[i] = i;
  nm__rng_shuffle(&r, row, N_LETTERS);
  nm__rng_shuffle(&r, told, n - 1);
  uint32_t gap = p[GAP] ? (uint32_t)p[GAP] : 1 + (uint32_t)nm__rng_below(&r, n - 1);
  uint32_t at = (uint32_t)nm__rng_below(&r, n - gap);
  for (uint32_t i = 0; i < n - 1; i++) {
    nm__item_word(b, letters[row[told[i]]]);
    nm__item_word(b, ">");
    nm__item_word(b, letters[row[told[i] + 1]]);
    nm__item_word(b, ";");
  }
  nm__item_word(b, "is");
  nm__item_word(b, letters[row[side ? at : at + gap]]);
  nm__item_word(b, ">");
  nm__item_word(b, letters[row[side ? at + gap : at]]);
  nm__item_word(b, "?");
  nm__item_end(b, 0);
  nm__item_word(b, labels[side]);
  nm__item_end(b, 1);
  b->out->twin = j;
  b->out->label = side;
  b->out->depth = (int)gap;
}

/* Walks down from the first letter; when the second is not met, it must be met the other way. */
static int check(const struct nm_world *w, const char *text, const char *answer) {
  int next[N_LETTERS], a, c;
  char word[NM__WORD], x[NM__WORD], y[NM__WORD];
  (void)w;
  for (int i = 0; i < N_LETTERS; i++) next[i] = -1;
  while (nm__next_word(&text, word) && strcmp(word, "is")) {
    if (!(text = nm__skip_phrase(text, "> * ;", x)) ||
        (a = nm__find_word(letters, N_LETTERS, word)) < 0 ||
        (c = nm__find_word(letters, N_LETTERS, x)) < 0 || next[a] >= 0)
      return -1;
    next[a] = c;
  }
  if (strcmp(word, "is") || !nm__next_word(&text, x) ||
      !(text = nm__skip_phrase(text, "> * ?", y)) || *text ||
      (a = nm__find_word(letters, N_LETTERS, x)) < 0 ||
      (c = nm__find_word(letters, N_LETTERS, y)) < 0 || a == c)
    return -1;
  for (int way = 1; way >= 0; way--) {
    int at = way ? a : c, to = way ? c : a;
    for (int i = 0; i < N_LETTERS && at >= 0; i++)
      if ((at = next[at]) == to) return !strcmp(answer, labels[way]);
  }
  return -1;
}

const struct nm__world_kind nm__world_order = {
    "order", "who stands before whom, told by neighbours: \"b > c ; a > b ; is a > c ? yes\"",
    labels, params, draw, make, check};
