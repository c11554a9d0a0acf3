/* needle.c - a few words hidden in many: "hum lo ... key3 : v7 v90 v2 v31 ; hum ... ; get key3 :"
 * is answered by the words behind the key (Wu et al., Retrieval Head Mechanistically Explains
 * Long-Context Factuality, arXiv 2404.15574).
 *
 * A haystack of filler holds one to `needles` needles at drawn places, each a key and `span`
 * values; the question names one key. W deals the values into a low and a high class; the label is
 * the class of the first value. Twins differ in that value alone. A value is looked up by its key
 * and copied: depth 1. For training, `queries` asks for more of the haystack's keys behind the
 * answer: a haystack costs much to read, and each answer teaches as much as the first. */
#include <stdio.h>
#include <string.h>
#include "world/world.h"

enum { N_VALUES = 200, N_KEYS = 40, N_FILLER = 20, MAX_SPAN = 8, MAX_NEEDLES = 6,
       MAX_QUERIES = 16 };
enum { CONTEXT = 0, NEEDLES, SPAN, VALUES, QUERIES };

static const char *const filler[N_FILLER] = {"ah",  "eh",  "er",  "ha",  "heh", "hm", "ho",
                                             "hum", "la",  "lo",  "mm",  "na",  "oh", "oi",
                                             "ooh", "pah", "tra", "tut", "uh",  "wah"};
static const char *const labels[] = {"low", "high", NULL};
static const nm_world_param params[] = {
    {"context", "words before the question, at least as many as the needles take", 24, 4000, 96},
    {"needles", "most needles in a haystack", 1, MAX_NEEDLES, 3},
    {"span", "values behind a key", 1, MAX_SPAN, 4},
    {"values", "values there are", 8, N_VALUES, 64},
    {"queries", "questions that a training item asks, one after the other", 1, MAX_QUERIES, 1},
    {0}};

/* Two syllables, of 15: value 0 is "baba", 199 "peta". Keys end in "x". */
static void syllables(int i, const char *end, char out[NM__WORD]) {
  static const char *const s[15] = {"ba", "da", "fe", "go", "ki", "lu", "me", "no",
                                    "pe", "ri", "so", "tu", "va", "wi", "zo"};
  snprintf(out, NM__WORD, "%s%s%s", s[i / 15], s[i % 15], end);
}
static void value_word(int i, char out[NM__WORD]) { syllables(i, "", out); }
static void key_word(int i, char out[NM__WORD]) { syllables(i, "x", out); }
static int find_syllables(const char *word, int n, void (*name)(int, char *)) {
  char s[NM__WORD];
  for (int i = 0; i < n; i++) {
    name(i, s);
    if (!strcmp(s, word)) return i;
  }
  return -1;
}

static int draw(struct nm_world *w, nm_err *err) {
  const int *p = w->param;
  if (p[CONTEXT] < p[NEEDLES] * (p[SPAN] + 3))
    return nm__fail(err, NM_EUSAGE,
                    "world needle: %d needles of %d words take %d of context, not %d", p[NEEDLES],
                    p[SPAN] + 3, p[NEEDLES] * (p[SPAN] + 3), p[CONTEXT]);
  return NM_OK;
}

/* The class of a value: a coin of W. Both classes come up among any eight. */
static int class_of(const struct nm_world *w, uint32_t v) {
  return (int)((v + nm__rand_at(w->truth_key, 3, v / 2)) & 1);
}

static void put_needle(struct nm__item *b, int key, const uint32_t *value, int span) {
  char s[NM__WORD];
  key_word(key, s);
  nm__item_word(b, s);
  nm__item_word(b, ":");
  for (int i = 0; i < span; i++) {
    value_word((int)value[i], s);
    nm__item_word(b, s);
  }
  nm__item_word(b, ";");
}

/* A part that asks for a key, and one that answers; `again`: it is not the item's first. */
static void put_question(struct nm__item *b, int key, const uint32_t *value, int span, bool again) {
  char s[NM__WORD];
  key_word(key, s);
  if (again) nm__item_word(b, ";");
  nm__item_word(b, "get");
  nm__item_word(b, s);
  nm__item_word(b, ":");
  nm__item_end(b, 0);
  for (int i = 0; i < span; i++) {
    value_word((int)value[i], s);
    nm__item_word(b, s);
  }
  nm__item_end(b, 1);
}

static void make(const struct nm_world *w, uint64_t j, int side, struct nm__item *b) {
  struct nm__rng r = {w->item_key, j, 0};
  const int *p = w->param;
  int n = 1 + (int)nm__rng_below(&r, (uint64_t)p[NEEDLES]), span = p[SPAN];
  int fill = p[CONTEXT] - n * (span + 3), done = 0;
  uint32_t key[N_KEYS], value[MAX_NEEDLES][MAX_SPAN], place[MAX_NEEDLES];
  for (uint32_t i = 0; i < N_KEYS; i++) key[i] = i;
  nm__rng_shuffle(&r, key, N_KEYS);
  for (int i = 0; i < n; i++) {
    place[i] = (uint32_t)nm__rng_below(&r, (uint64_t)fill + 1);
    for (int k = 0; k < span; k++) value[i][k] = (uint32_t)nm__rng_below(&r, (uint64_t)p[VALUES]);
  }
  int asked = (int)nm__rng_below(&r, (uint64_t)n);
  uint32_t *first = &value[asked][0], other;
  *first &= ~1u;                     /* values 2i and 2i + 1 are of different classes */
  other = class_of(w, *first) == side ? *first : *first + 1;
  *first = other;
  for (int f = 0; f <= fill; f++) {
    for (int i = 0; i < n; i++)
      if (place[i] == (uint32_t)f) put_needle(b, (int)key[i], value[i], span);
    if (done++ < fill) nm__item_word(b, filler[nm__rng_below(&r, N_FILLER)]);
  }
  put_question(b, (int)key[asked], value[asked], span, false);
  for (int q = 1; q < p[QUERIES]; q++) {
    int i = (int)nm__rng_below(&r, (uint64_t)n);
    put_question(b, (int)key[i], value[i], span, true);
  }
  b->out->twin = j;
  b->out->label = side;
  b->out->depth = 1;
}

/* The words between "KEY :" and ";" for the key that is asked at the end. */
static int check(const struct nm_world *w, const char *text, const char *answer) {
  const char *ask = NULL, *at = text, *start;
  char key[NM__WORD], word[NM__WORD];
  (void)w;
  for (start = at; nm__next_word(&at, word); start = at)
    if (!strcmp(word, "get")) ask = start;
  if (!ask || !(at = nm__skip_phrase(ask, "get * :", key)) || *at) return -1;
  if (find_syllables(key, N_KEYS, key_word) < 0) return -1;
  for (at = text; at < ask && nm__next_word(&at, word);) {
    if (strcmp(word, key)) continue;
    if (!(at = nm__skip_phrase(at, ":", NULL))) return -1;
    bool right = true;
    int n = 0;
    for (const char *given = answer; nm__next_word(&at, word) && strcmp(word, ";"); n++) {
      char mine[NM__WORD];
      if (n == MAX_SPAN || find_syllables(word, N_VALUES, value_word) < 0) return -1;
      if (!nm__next_word(&given, mine) || strcmp(mine, word)) right = false;
    }
    const char *given = answer;
    for (int i = 0; i < n; i++) nm__next_word(&given, word);
    return n ? right && !nm__next_word(&given, word) : -1;
  }
  return -1;
}

const struct nm__world_kind nm__world_needle = {
    "needle",
    "values behind a key, hidden in filler: \"hum .. dax : bago luki ; .. get dax : bago luki\"",
    labels,
    params,
    draw,
    make,
    check};
