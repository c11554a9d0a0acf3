/* mini_words.c - worlds as token ids: one token a word, in a vocabulary that is a function of the
 * levels alone. */
#include <stdlib.h>
#include <string.h>
#include "study/mini.h"

enum { LOOK = 4000 };              /* items looked at for words: hundreds for each word */

static const char *const no_word = "<new>";

/* ---- the vocabulary -------------------------------------------------------------- */

static int by_bytes(const void *a, const void *b) { return strcmp(a, b); }

static int add_words(struct nm__mini_words *w, int *cap, const char *s, nm_err *err) {
  for (size_t n; *(s += strspn(s, " ")); s += n) {
    n = strcspn(s, " ");
    int i = 0;
    while (i < w->n && (strlen(w->word[i]) != n || memcmp(w->word[i], s, n))) i++;
    if (i < w->n) continue;
    if (n >= NM__MINI_WORD) return nm__fail(err, NM_EFORMAT, "a word of a world is too long");
    if (w->n == *cap) {
      int more = *cap ? 2 * *cap : 256;
      void *p = nm__realloc(w->word, (size_t)more, sizeof *w->word);
      if (!p) return nm__fail_memory(err, "the words", (size_t)more * sizeof *w->word);
      w->word = p;
      *cap = more;
    }
    memcpy(w->word[w->n], s, n);
    w->word[w->n++][n] = 0;
  }
  return NM_OK;
}

int nm__mini_world(const struct nm__mini_level *l, bool probe, uint64_t W, uint64_t seed,
                   nm_world **out, nm_err *err) {
  const char *const *set = probe ? l->probe : l->set;
  int n = 0;
  while (n < NM__MINI_SET && set[n]) n++;
  return nm_world_open(l->world, set, n, W, seed, out, err);
}

int nm__mini_words_make(const struct nm__mini_level *l, int n, uint64_t W,
                        struct nm__mini_words *out, nm_err *err) {
  int cap = 0;
  *out = (struct nm__mini_words){0};
  int st = add_words(out, &cap, no_word, err);
  for (int k = 0; k < n && !st; k++) {
    nm_world_item it = {0};
    nm_world *w;
    if ((st = nm__mini_world(&l[k], false, W, 0, &w, err))) break;
    for (uint64_t i = 0; i < LOOK && !st; i++) {
      st = nm_world_make(w, i, &it, err);
      for (int j = 0; j < it.n_parts && !st; j++) st = add_words(out, &cap, it.parts[j].text, err);
    }
    nm_world_item_done(&it);
    nm_world_close(w);
  }
  if (st) return nm__mini_words_done(out), st;
  qsort(out->word + 1, (size_t)out->n - 1, sizeof *out->word, by_bytes);
  return NM_OK;
}

void nm__mini_words_done(struct nm__mini_words *w) {
  free(w->word);
  *w = (struct nm__mini_words){0};
}

int32_t nm__mini_word(const struct nm__mini_words *w, const char *s, size_t n) {
  int lo = 1, hi = w->n - 1;
  while (lo <= hi) {
    int at = (lo + hi) / 2, c = strncmp(w->word[at], s, n);
    if (!c && w->word[at][n]) c = 1;
    if (!c) return at;
    if (c < 0) lo = at + 1;
    else hi = at - 1;
  }
  return -1;
}

/* ---- texts ------------------------------------------------------------------------- */

/* Appends the ids of a text to v, which has room for `room`; -1: a word is not known, -2: no
 * room. */
static int put_ids(const struct nm__mini_words *w, const char *s, int32_t *v, int n, int room) {
  for (size_t k; *(s += strspn(s, " ")); s += k) {
    k = strcspn(s, " ");
    if (n == room) return -2;
    if ((v[n++] = nm__mini_word(w, s, k)) < 0) return -1;
  }
  return n;
}

static int not_known(const struct nm__mini_level *l, int n, nm_err *err) {
  return nm__fail(err, NM_EFORMAT, n == -1 ? "level %s: an item has a word that is not in the "
                  "vocabulary" : "level %s: an item is too long", l->name);
}

int nm__mini_sample(const struct nm__mini_words *w, const struct nm__mini_level *l,
                    const nm_world_item *it, struct nm__sample *s, int room, nm_err *err) {
  s->n = 0;
  for (int k = 0; k < it->n_parts; k++) {
    int n = put_ids(w, it->parts[k].text, s->ids, s->n, room);
    if (n < 0) return not_known(l, n, err);
    for (; s->n < n; s->n++) s->weight[s->n] = (float)it->parts[k].weight;
  }
  return NM_OK;
}

/* ---- items to be examined ------------------------------------------------------------ */

void nm__mini_items_done(struct nm__mini_items *t) {
  for (size_t i = 0; t->seq && i < t->n; i++) free((void *)(uintptr_t)t->seq[i].ids);
  free(t->seq);
  free(t->answer);
  free(t->label);
  free(t->twin);
  *t = (struct nm__mini_items){0};
}

static int one_item(struct nm__mini_items *t, size_t i, const struct nm__mini_level *l,
                    const nm_world_item *it, bool prefix, const struct nm__mini_words *w,
                    nm_err *err) {
  int32_t v[NM__MINI_LONGEST];
  v[0] = 0;
  int n = put_ids(w, it->text, v, prefix, NM__MINI_LONGEST);
  if (n < 0) return not_known(l, n, err);
  int32_t *ids = nm__alloc((size_t)n, sizeof *ids);
  if (!ids) return nm__fail_memory(err, "an item", (size_t)n * sizeof *ids);
  memcpy(ids, v, (size_t)n * sizeof *ids);
  t->seq[i] = (nm_seq){ids, (size_t)n};
  t->label[i] = (uint8_t)it->label;
  t->answer[i] = nm__mini_word(w, it->answer, strcspn(it->answer, " "));
  return t->answer[i] < 0 ? not_known(l, -1, err) : NM_OK;
}

/* Facts are few: their numbers are looked up in those seen so far; twins of unbounded worlds lie
 * side by side, so the search begins at the end. */
static uint32_t number_twin(uint64_t *seen, size_t *n, uint64_t twin) {
  for (size_t i = *n; i-- > 0;)
    if (seen[i] == twin) return (uint32_t)i;
  seen[*n] = twin;
  return (uint32_t)(*n)++;
}

int nm__mini_items_make(const struct nm__mini_level *l, uint64_t W, uint64_t seed, size_t n,
                        bool prefix, const struct nm__mini_words *words, struct nm__mini_items *out,
                        nm_err *err) {
  nm_world *w;
  nm_world_item it = {0};
  uint64_t *seen = nm__alloc(n, sizeof *seen);
  *out = (struct nm__mini_items){.seq = nm__alloc(n, sizeof *out->seq),
                                 .answer = nm__alloc(n, sizeof *out->answer),
                                 .label = nm__alloc(n, 1),
                                 .twin = nm__alloc(n, sizeof *out->twin), .n = n};
  int st = seen && out->seq && out->answer && out->label && out->twin
               ? nm__mini_world(l, true, W, seed, &w, err) : nm__fail_memory(err, "items", n * 16);
  if (!st) {
    for (size_t i = 0; i < n && !st; i++) {
      st = nm_world_make(w, i, &it, err);
      if (!st) st = one_item(out, i, l, &it, prefix, words, err);
      if (!st) out->twin[i] = number_twin(seen, &out->n_twins, it.twin);
    }
    nm_world_item_done(&it);
    nm_world_close(w);
  }
  free(seen);
  if (st) nm__mini_items_done(out);
  return st;
}
