/* parity.c - whether the number of ones is odd: "1 0 1 1 ?" is answered odd.
 *
 * The rule is the same in every world W. Twins differ in the last bit alone, so no bit and no
 * smaller set of bits says anything about the label. Each bit changes the running answer once:
 * the depth of computation is the number of bits. */
#include <string.h>
#include "world/world.h"

enum { N_MIN, N_MAX };

static const char *const labels[] = {"even", "odd", NULL};
static const char *const bits[] = {"0", "1"};

/* 48 bits and their length fit the 53 bits that every reader of JSON keeps. */
static const nm_world_param params[] = {{"n_min", "fewest bits", 2, 48, 8},
                                        {"n_max", "most bits", 2, 48, 8},
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
  nm__item_word(b, "?");
  nm__item_end(b, 0);
  nm__item_word(b, labels[side]);
  nm__item_end(b, 1);
  b->out->twin = twin;
  b->out->label = side;
  b->out->depth = n;
}

static int check(const struct nm_world *w, const char *text, const char *answer) {
  char word[NM__WORD];
  size_t n = 0, ones = 0;
  (void)w;
  for (; nm__next_word(&text, word) && strcmp(word, "?"); n++) {
    if (strcmp(word, "0") && strcmp(word, "1")) return -1;
    ones += word[0] == '1';
  }
  if (!n || strcmp(word, "?") || nm__next_word(&text, word)) return -1;
  return !strcmp(answer, ones % 2 ? "odd" : "even");
}

const struct nm__world_kind nm__world_parity = {
    "parity", "whether the number of ones is odd: \"1 0 1 1 ? odd\"",
    labels, params, draw, make, check};
