/* sentiment.c - whether somebody liked it: "the plot was not dull ?" is answered good.
 *
 * A sentence is a frame with a noun, a word of degree and an adjective. Half of the words of degree
 * turn the adjective round, so that neither word alone says anything about the label: the two must
 * be combined, depth 1. Twins differ in the word of degree. With negation=0 nothing is turned
 * round, twins differ in the adjective, and a bag of words is enough: depth 0. W draws which of the
 * four frames go with which of the eight nouns only in the test (every frame and noun is also seen
 * in training); frame and noun are the twin. For training a sentence that fits the sentiment
 * follows. */
#include <string.h>
#include "world/world.h"

enum { N_FRAMES = 4, N_NOUNS = 8, N_DEGREES = 4, N_ADJECTIVES = 12, N_ENDS = 4, NEGATION = 0 };

static const char *const frames[N_FRAMES] = {"the *", "i thought the *", "people say that the *",
                                             "we found that the *"};
static const char *const nouns[N_NOUNS] = {"plot", "cast", "story", "music",
                                           "hero", "film", "scene", "ending"};
static const char *const degrees[2][N_DEGREES] = {{"very", "quite", "really", "always"},
                                                  {"not", "never", "hardly", "barely"}};
static const char *const adjectives[2][N_ADJECTIVES] = {
    {"dull", "boring", "weak", "stupid", "tired", "awful", "ugly", "empty", "poor", "slow",
     "clumsy", "bad"},
    {"bright", "funny", "strong", "clever", "fresh", "lovely", "great", "warm", "rich", "sharp",
     "moving", "fine"}};
static const char *const ends[2][N_ENDS] = {
    {"i left early .", "i want my money back .", "nobody laughed .", "i fell asleep ."},
    {"i will see it again .", "we loved every minute .", "everybody cheered .",
     "i told my friends ."}};
static const char *const labels[] = {"bad", "good", NULL};
static const nm_world_param params[] = {
    {"negation", "1: half of the words of degree turn the adjective round", 0, 1, 1}, {0}};

static int draw(struct nm_world *w, nm_err *err) {
  (void)err;
  w->n_twins = N_FRAMES * N_NOUNS;
  nm__split_grid(w, 0, N_FRAMES, N_NOUNS, 3);
  return NM_OK;
}

static void make(const struct nm_world *w, uint64_t j, int side, struct nm__item *b) {
  struct nm__rng r = {w->item_key, j, 0};
  uint32_t frame = (uint32_t)nm__rng_below(&r, N_FRAMES),
           noun = (uint32_t)nm__rng_below(&r, N_NOUNS);
  uint32_t degree = (uint32_t)nm__rng_below(&r, N_DEGREES),
           adjective = (uint32_t)nm__rng_below(&r, N_ADJECTIVES),
           end = (uint32_t)nm__rng_below(&r, N_ENDS);
  int likes = w->param[NEGATION] ? (int)nm__rng_below(&r, 2) : side, turned = likes != side;
  nm__item_phrase(b, frames[frame], nouns[noun]);
  nm__item_word(b, "was");
  nm__item_phrase(b, degrees[turned][degree], NULL);
  nm__item_word(b, adjectives[likes][adjective]);
  nm__item_word(b, "?");
  nm__item_end(b, 0);
  nm__item_word(b, labels[side]);
  nm__item_end(b, 1);
  nm__item_word(b, ",");
  nm__item_end(b, 0);
  nm__item_phrase(b, ends[side][end], NULL);
  nm__item_end(b, 1);
  b->out->twin = frame * N_NOUNS + noun;
  b->out->label = side;
  b->out->depth = w->param[NEGATION];
}

static int check(const struct nm_world *w, const char *text, const char *answer) {
  char noun[NM__WORD], word[NM__WORD];
  const char *at = NULL, *rest;
  int turned = -1;
  (void)w;
  for (int i = 0; i < N_FRAMES && !at; i++) at = nm__skip_phrase(text, frames[i], noun);
  if (!at || nm__find_word(nouns, N_NOUNS, noun) < 0 || !(at = nm__skip_phrase(at, "was", NULL)))
    return -1;
  for (int i = 0; i < 2 * N_DEGREES && turned < 0; i++)
    if ((rest = nm__skip_phrase(at, degrees[i / N_DEGREES][i % N_DEGREES], NULL)))
      turned = i / N_DEGREES, at = rest;
  if (turned < 0 || !nm__next_word(&at, word)) return -1;
  int bad = nm__find_word(adjectives[0], N_ADJECTIVES, word),
      good = nm__find_word(adjectives[1], N_ADJECTIVES, word);
  if ((bad < 0 && good < 0) || !(at = nm__skip_phrase(at, "?", NULL)) || *at) return -1;
  return !strcmp(answer, labels[(good >= 0) ^ turned]);
}

const struct nm__world_kind nm__world_sentiment = {
    "sentiment", "whether it was liked: \"the plot was not dull ? good\"",
    labels, params, draw, make, check};
