/* rouge.c - ROUGE-1 recall with stems (Lin 2004): words are runs of ASCII letters and digits in
 * lower case, those longer than three letters go by their stem (Porter, An algorithm for suffix
 * stripping, 1980). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "look/heads.h"

/* ---- Porter's stemmer -------------------------------------------------------------- */

enum { LONGEST = 63 };             /* letters of a word that has a stem */

static bool consonant(const char *w, int i) {
  if (strchr("aeiou", w[i])) return false;
  return w[i] != 'y' || !i || !consonant(w, i - 1);
}

/* How many times a vowel is followed by a consonant in the first n letters. */
static int measure(const char *w, int n) {
  int m = 0;
  for (int i = 1; i < n; i++) m += !consonant(w, i - 1) && consonant(w, i);
  return m;
}

static bool has_vowel(const char *w, int n) {
  for (int i = 0; i < n; i++)
    if (!consonant(w, i)) return true;
  return false;
}

static bool twin_end(const char *w, int n) {
  return n > 1 && w[n - 1] == w[n - 2] && consonant(w, n - 1);
}

/* Consonant, vowel, consonant other than w, x, y at the end: "hop". */
static bool short_end(const char *w, int n) {
  return n > 2 && consonant(w, n - 3) && !consonant(w, n - 2) && consonant(w, n - 1) &&
         !strchr("wxy", w[n - 1]);
}

/* Length of the word before an ending; -1 when it has another. */
static int before(const char *w, const char *end) {
  int n = (int)strlen(w), k = (int)strlen(end);
  return n >= k && !strcmp(w + n - k, end) ? n - k : -1;
}

/* Endings are never longer than what stood there. */
static void put_end(char *at, const char *end) { memcpy(at, end, strlen(end) + 1); }

struct rule { const char *from, *to; };

/* The first rule whose ending the word has decides, if the stem's measure is above `least`. */
static bool apply(char *w, const struct rule *r, int n_rules, int least) {
  for (int i = 0; i < n_rules; i++) {
    int n = before(w, r[i].from);
    if (n < 0) continue;
    if (measure(w, n) > least) put_end(w + n, r[i].to);
    return true;
  }
  return false;
}
#define APPLY(w, rules, least) apply(w, rules, sizeof rules / sizeof *rules, least)

static void plurals(char *w) {
  int n;
  if ((n = before(w, "sses")) >= 0 || (n = before(w, "ies")) >= 0)
    w[n + (w[n] == 's' ? 2 : 1)] = 0;
  else if (before(w, "ss") < 0 && (n = before(w, "s")) >= 0) w[n] = 0;
}

static void past(char *w) {
  int n = before(w, "eed");
  if (n >= 0) {
    if (measure(w, n) > 0) w[n + 2] = 0;
    return;
  }
  if (((n = before(w, "ed")) < 0 && (n = before(w, "ing")) < 0) || !has_vowel(w, n)) return;
  w[n] = 0;
  if (before(w, "at") >= 0 || before(w, "bl") >= 0 || before(w, "iz") >= 0) put_end(w + n, "e");
  else if (twin_end(w, n) && !strchr("lsz", w[n - 1])) w[n - 1] = 0;
  else if (measure(w, n) == 1 && short_end(w, n)) put_end(w + n, "e");
}

static void last_letters(char *w) {
  int n = before(w, "e"), m = n >= 0 ? measure(w, n) : 0;
  if (n >= 0 && (m > 1 || (m == 1 && !short_end(w, n)))) w[n] = 0;
  n = (int)strlen(w);
  if (n > 1 && w[n - 1] == 'l' && twin_end(w, n) && measure(w, n - 1) > 1) w[n - 1] = 0;
}

void nm__stem(char *w) {
  static const struct rule two[] = {
      {"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"}, {"anci", "ance"}, {"izer", "ize"},
      {"abli", "able"}, {"alli", "al"}, {"entli", "ent"}, {"eli", "e"}, {"ousli", "ous"},
      {"ization", "ize"}, {"ation", "ate"}, {"ator", "ate"}, {"alism", "al"}, {"iveness", "ive"},
      {"fulness", "ful"}, {"ousness", "ous"}, {"aliti", "al"}, {"iviti", "ive"},
      {"biliti", "ble"}};
  static const struct rule three[] = {{"icate", "ic"}, {"ative", ""}, {"alize", "al"},
                                      {"iciti", "ic"}, {"ical", "ic"}, {"ful", ""}, {"ness", ""}};
  static const struct rule four[] = {
      {"al", ""}, {"ance", ""}, {"ence", ""}, {"er", ""}, {"ic", ""}, {"able", ""}, {"ible", ""},
      {"ant", ""}, {"ement", ""}, {"ment", ""}, {"ent", ""}, {"ou", ""}, {"ism", ""},
      {"ate", ""}, {"iti", ""}, {"ous", ""}, {"ive", ""}, {"ize", ""}};
  if (strlen(w) < 3) return;
  plurals(w);
  past(w);
  int n = before(w, "y");
  if (n >= 0 && has_vowel(w, n)) w[n] = 'i';
  APPLY(w, two, 0);
  APPLY(w, three, 0);
  n = before(w, "ion");
  if (n > 0 && strchr("st", w[n - 1]) && measure(w, n) > 1) w[n] = 0;
  else APPLY(w, four, 1);
  last_letters(w);
}

/* ---- words ------------------------------------------------------------------------- */

static bool of_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Words of a text, one after the other, each ended by a zero; their number. A word is at most as
 * long as it stands there and the byte that ends it, so the text's length and one is room. */
static size_t words(const char *s, char *out, const char **word) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
  size_t n = 0;
  while (*s) {
    if (!of_word(*s)) {
      s++;
      continue;
    }
    word[n++] = out;
    char *from = out;
    for (; of_word(*s); s++) *out++ = (char)(*s >= 'A' && *s <= 'Z' ? *s + 32 : *s);
    *out = 0;
    size_t k = (size_t)(out++ - from);
    if (k > 3 && k <= LONGEST && strspn(from, letters) == k) nm__stem(from);
  }
  return n;
}

double nm__rouge1_recall(const char *reference, const char *answer) {
  size_t a = strlen(reference) + 2, b = strlen(answer) + 2, found = 0;
  char *text = nm__alloc(a + b, 1);
  const char **word = nm__alloc(a + b, sizeof *word);
  if (!text || !word) return free(text), free(word), NAN;
  size_t n = words(reference, text, word), m = words(answer, text + a, word + a);
  for (size_t i = 0; i < n; i++) {
    size_t j = 0;
    while (j < m && (!word[a + j] || strcmp(word[i], word[a + j]))) j++;
    if (j < m) found++, word[a + j] = NULL;              /* a word counts once */
  }
  free(text);
  free(word);
  return n ? (double)found / (double)n : 0;
}
