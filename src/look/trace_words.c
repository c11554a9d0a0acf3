/* trace_words.c - words that are one token each, whatever the tokenizer does about spaces. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "look/trace.h"

enum { MAX_WORDS = 10000, MIN_AUTO = 3, PROPOSED = 24 };

static const char common[] =
    "apple\nbird\ncar\negg\nhouse\nmilk\nplane\nopera\nbox\nsand\nsun\nmango\nrock\nmath\ncode\n"
    "phone\ndog\ntree\nfire\nwater\nbook\nking\nred\nblue\nfish\nshoe\nriver\ngold\nchair\ndoor\n"
    "bread\nsalt\nmoon\nstar\nhand\nfoot\ncity\nroad\nbear\nlion\nsnow\nrain\nwind\nship\ntrain\n"
    "clock\nknife\nglass\nhorse\npaper\nstone\nbridge\nmusic\nflower\ngarden\nwinter\nsummer\n"
    "window\ntable\nwheel\nsugar\ncloud\nisland\nforest\n";

/* ---- lists ------------------------------------------------------------------------ */

static int add_word(const char *name, const char *s, size_t n, int line,
                    char (*v)[NM__TRACE_WORD], int *count, nm_err *err) {
  char shown[40];
  nm__printable(shown, sizeof shown, s, n);
  if (n >= NM__TRACE_WORD)
    return nm__fail(err, NM_EFORMAT, "%s:%d: '%s...' is longer than %d bytes", name, line, shown,
                    NM__TRACE_WORD - 1);
  for (size_t i = 0; i < n; i++)
    if ((unsigned char)s[i] <= ' ' || s[i] == 127)
      return nm__fail(err, NM_EFORMAT, "%s:%d: '%s' is not one word", name, line, shown);
  for (int i = 0; i < *count; i++)
    if (strlen(v[i]) == n && !memcmp(v[i], s, n))
      return nm__fail(err, NM_EFORMAT, "%s:%d: '%s' stands twice", name, line, shown);
  memcpy(v[*count], s, n);
  v[(*count)++][n] = 0;
  return NM_OK;
}

int nm__trace_word_list(const char *name, const char *text, size_t size,
                        char (**out)[NM__TRACE_WORD], int *n, nm_err *err) {
  size_t lines = 1;
  for (size_t i = 0; i < size; i++) lines += text[i] == '\n';
  *n = 0;
  *out = NULL;
  if (lines > MAX_WORDS)
    return nm__fail(err, NM_EFORMAT, "%s: more than %d words", name, MAX_WORDS);
  *out = nm__alloc(lines, sizeof **out);
  int st = *out ? NM_OK : nm__fail_memory(err, "words", lines * sizeof **out), line = 1;
  for (size_t at = 0, end; at < size && !st; at = end + 1, line++) {
    for (end = at; end < size && text[end] != '\n'; end++) {}
    size_t len = end - at;
    if (len && text[at + len - 1] == '\r') len--;
    if (len) st = add_word(name, text + at, len, line, *out, n, err);
  }
  if (st) free(*out), *out = NULL, *n = 0;
  return st;
}

/* ---- tokens -------------------------------------------------------------------------- */

/* The id of a word in the middle of a text, or -1: "w w" must be that id twice. */
static int32_t one_token(const nm_model *m, const char *lead, const char *word) {
  char text[2 * NM__TRACE_WORD + 4];
  int32_t *ids = NULL, id = -1;
  size_t n = 0;
  int len = snprintf(text, sizeof text, "%s%s %s", lead, word, word);
  if (!nm_tokenize(m, text, (size_t)len, NM_NO_BOS, &ids, &n, NULL) && n == 2 && ids[0] == ids[1])
    id = ids[0];
  nm_free(ids);
  return id;
}

/* "a, b, c", then ", ..." when the list is full. */
static void list_word(char *list, size_t size, const char *word) {
  size_t at = strlen(list), n = strlen(word);
  if (at + n + 8 < size) snprintf(list + at, size - at, "%s%s", at ? ", " : "", word);
  else if (at && list[at - 1] != '.') snprintf(list + at, size - at, ", ...");
}

/* Those of v that are one token, with and without a space in front: the better of the two. */
static int keep_tokens(const nm_model *m, char (*v)[NM__TRACE_WORD], int n,
                       struct nm__trace_words *w, nm_err *err) {
  static const char *const lead[] = {" ", ""};
  int count[2] = {0, 0};
  w->word = nm__alloc((size_t)n + 1, sizeof *w->word);
  w->id = nm__alloc((size_t)n + 1, sizeof *w->id);
  if (!w->word || !w->id) return nm__fail_memory(err, "words", (size_t)n * sizeof *w->word);
  for (int k = 0; k < 2; k++)
    for (int i = 0; i < n && i < 200; i++) count[k] += one_token(m, lead[k], v[i]) >= 0;
  w->lead = lead[count[1] > count[0]];
  for (int i = 0; i < n; i++) {
    int32_t id = one_token(m, w->lead, v[i]);
    if (id < 0) {
      list_word(w->left_out, sizeof w->left_out, v[i]);
      continue;
    }
    memcpy(w->word[w->n], v[i], sizeof *w->word);
    w->id[w->n++] = id;
  }
  return NM_OK;
}

/* Words of the vocabulary: a space and at least three small letters. */
static int from_vocabulary(const nm_model *m, int most, char (**out)[NM__TRACE_WORD], int *n,
                           nm_err *err) {
  *n = 0;
  *out = nm__alloc((size_t)most, sizeof **out);
  if (!*out) return nm__fail_memory(err, "words", (size_t)most * sizeof **out);
  for (int32_t id = 0; id < m->V && *n < most; id++) {
    char *s = nm_token_text(m, (int32_t[]){id, id}, 1, false);
    size_t len = s && *s == ' ' ? strlen(s + 1) : 0;
    if (len >= MIN_AUTO && len < NM__TRACE_WORD &&
        strspn(s + 1, "abcdefghijklmnopqrstuvwxyz") == len &&
        (one_token(m, " ", s + 1) == id || one_token(m, "", s + 1) == id))
      memcpy((*out)[(*n)++], s + 1, len + 1);
    nm_free(s);
  }
  return NM_OK;
}

static void shuffle(struct nm__trace_words *w, uint64_t seed) {
  struct nm__rng r = {seed, 700, 0};
  for (int i = w->n - 1; i > 0; i--) {
    int j = (int)nm__rng_below(&r, (uint64_t)i + 1);
    char word[NM__TRACE_WORD];
    int32_t id = w->id[i];
    memcpy(word, w->word[i], sizeof word);
    memcpy(w->word[i], w->word[j], sizeof word);
    memcpy(w->word[j], word, sizeof word);
    w->id[i] = w->id[j];
    w->id[j] = id;
  }
}

static int too_few(const nm_model *m, const struct nm__trace_words *w, int need, nm_err *err) {
  char (*v)[NM__TRACE_WORD] = NULL, list[260] = "";
  int n = 0;
  from_vocabulary(m, PROPOSED, &v, &n, NULL);
  for (int i = 0; i < n; i++) list_word(list, sizeof list, v[i]);
  free(v);
  return nm__fail(err, NM_EUSAGE, "%d nodes need as many words that are one token each, and only "
                                  "%d "
                  "are (not: %.140s). Words of this vocabulary: %s (--words auto takes such)", need,
                  w->n, *w->left_out ? w->left_out : "none given", *list ? list : "none found");
}

/* What the file puts in front of a text. */
static int find_bos(const nm_model *m, const char *lead, int32_t *bos, nm_err *err) {
  int32_t *with, *without;
  size_t a, b;
  char text[8];
  int n = snprintf(text, sizeof text, "%sa", lead);
  int st = nm_tokenize(m, text, (size_t)n, 0, &with, &a, err);
  if (st) return st;
  st = nm_tokenize(m, text, (size_t)n, NM_NO_BOS, &without, &b, err);
  *bos = !st && a == b + 1 ? with[0] : -1;
  nm_free(with);
  if (!st) nm_free(without);
  return st;
}

static int read_list(const nm_model *m, const char *source, char (**v)[NM__TRACE_WORD], int *n,
                     nm_err *err) {
  struct nm__map f;
  if (!source) return nm__trace_word_list("words", common, sizeof common - 1, v, n, err);
  if (!strcmp(source, "auto")) return from_vocabulary(m, 4096, v, n, err);
  int st = nm__map_open(source, &f, err);
  if (st) return st;
  st = nm__trace_word_list(source, (const char *)f.data, f.size, v, n, err);
  nm__map_close(&f);
  return st;
}

/* For models without a tokenizer: ids themselves, named #7. */
static int plain_ids(const nm_model *m, int need, uint64_t seed, struct nm__trace_words *w,
                     nm_err *err) {
  struct nm__rng r = {seed, 701, 0};
  if (m->V < need)
    return nm__fail(err, NM_EUSAGE, "%d nodes need as many ids, the model has %d", need, m->V);
  w->word = nm__alloc((size_t)need, sizeof *w->word);
  w->id = nm__alloc((size_t)need, sizeof *w->id);
  if (!w->word || !w->id) return nm__fail_memory(err, "words", (size_t)need * sizeof *w->word);
  while (w->n < need) {
    int32_t id = (int32_t)nm__rng_below(&r, (uint64_t)m->V);
    int k = 0;
    while (k < w->n && w->id[k] != id) k++;
    if (k < w->n) continue;
    snprintf(w->word[w->n], sizeof *w->word, "#%d", id);
    w->id[w->n++] = id;
  }
  return NM_OK;
}

int nm__trace_words(const nm_model *m, const char *source, int need, uint64_t seed,
                    struct nm__trace_words *w, int32_t *bos, nm_err *err) {
  char (*v)[NM__TRACE_WORD] = NULL;
  int n = 0;
  *w = (struct nm__trace_words){.lead = " "};
  if (source && !strcmp(source, "ids")) {
    *bos = -1;
    int st = plain_ids(m, need, seed, w, err);
    if (st) nm__trace_words_done(w);
    return st;
  }
  int st = read_list(m, source, &v, &n, err);
  if (!st) st = keep_tokens(m, v, n, w, err);
  free(v);
  if (!st && w->n < need) st = too_few(m, w, need, err);
  if (!st) st = find_bos(m, w->lead, bos, err);
  if (st) return nm__trace_words_done(w), st;
  shuffle(w, seed);
  return NM_OK;
}

void nm__trace_words_done(struct nm__trace_words *w) {
  free(w->word);
  free(w->id);
  *w = (struct nm__trace_words){0};
}
