/* parity.c - whether the number of ones is odd: "1 0 1 1 ?" is answered odd.
 *
 * The rule is the same in every world W. Twins differ in the last bit alone, so no bit and no
 * smaller set of bits says anything about the label. Each bit changes the running answer once:
 * the depth of computation is the number of bits.
 *
 * steps=1 asks for the running answers, "1 0 1 1 ; steps :", and the answer is all of them, "odd
 * odd even odd": each needs one bit and the one before, depth 1. */
#include <string.h>
#include "world/world.h"

enum { N_MIN, N_MAX, STEPS };

static const char *const labels[] = {"even", "odd", NULL};
static const char *const bits[] = {"0", "1"};

/* 48 bits and their length fit the 53 bits that every reader of JSON keeps. */
static const nm_world_param params[] = {{"n_min", "fewest bits", 2, 48, 8},
                                        {"n_max", "most bits", 2, 48, 8},
                                        {"steps", "1: the answer is all running answers", 0, 1, 0},
                                        {0}};

static int draw(struct nm_world *w, nm_err *err) {
  if (w->param[N_MIN] > w->param[N_MAX])
    return nm__fail(err, NM_EUSAGE, "world parity: n_min %d is above n_max %d", w->param[N_MIN],
                    w->param[N_MAX]);
  return NM_OK;
}

/* The twin is all bits but the last behind a leading one, which keeps lengths apart. */
static void make(const struct nm_world *w, uint64_t j, int side, struct nm__item *b) {
  struct nm__rng r = {w->item_key, j, 0};
  int n = w->param[N_MIN] +
          (int)nm__rng_below(&r, (uint64_t)(w->param[N_MAX] - w->param[N_MIN] + 1));
  int odd = 0;
  uint64_t draws = nm__rng_u64(&r), twin = 1;
  for (int i = 0; i < n - 1; i++) {
    int bit = (int)(draws >> i & 1);
    odd ^= bit;
    twin = twin << 1 | (uint64_t)bit;
    nm__item_word(b, bits[bit]);
  }
  nm__item_word(b, bits[odd ^ side]);
  nm__item_phrase(b, w->param[STEPS] ? "; steps :" : "?", NULL);
  nm__item_end(b, 0);
  for (int i = 0, running = 0; w->param[STEPS] && i < n - 1; i++) {
    running ^= (int)(draws >> i & 1);
    nm__item_word(b, labels[running]);
  }
  nm__item_word(b, labels[side]);
  nm__item_end(b, 1);
  b->out->twin = twin;
  b->out->label = side;
  b->out->depth = w->param[STEPS] ? 1 : n;
}

static int check(const struct nm_world *w, const char *text, const char *answer) {
  char word[NM__WORD], given[NM__WORD];
  const char *all = answer;
  bool right = true, odd = false;
  size_t n = 0;
  (void)w;
  for (; nm__next_word(&text, word) && (!strcmp(word, "0") || !strcmp(word, "1")); n++) {
    odd ^= word[0] == '1';
    if (!nm__next_word(&answer, given) || strcmp(given, labels[odd])) right = false;
  }
  if (!n) return -1;
  if (!strcmp(word, "?")) return nm__next_word(&text, word) ? -1 : !strcmp(all, labels[odd]);
  if (strcmp(word, ";") || !(text = nm__skip_phrase(text, "steps :", NULL)) || *text) return -1;
  return right && !nm__next_word(&answer, given);
}

const struct nm__world_kind nm__world_parity = {
    "parity", "whether the number of ones is odd: \"1 0 1 1 ? odd\"",
    labels, params, draw, make, check};
