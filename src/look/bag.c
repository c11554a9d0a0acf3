/* bag.c - bag of words: which words a text has, and nothing about their order. A probe that does
 * not beat a linear fit on these features has found words, not a concept.
 *
 * A word is a run of letters and digits, ASCII letters in lower case; bytes from 0x80 on count as
 * letters, so UTF-8 words stay whole. Every other byte that is no white space is a word of its
 * own. Features are counts. Words are found in a table with open addressing and linear probing
 * (Knuth, The Art of Computer Programming 3, section 6.4), at most half full. */
#include "look/probe.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct word {
  size_t at, len;                  /* its bytes in the pool */
  uint64_t hash;
  size_t last_row, entry;          /* the latest row that has it (plus 1), its entry there */
};

struct bag {
  struct nm__buf pool;             /* the words' bytes, one after the other */
  struct word *word;
  size_t n_words, cap_words;
  uint32_t *slot;                  /* number of a word plus 1, or 0; the size is a power of two */
  size_t n_slots;
  struct nm__sparse *x;
  size_t n_entries, cap_entries;
};

/* ASCII only, and not the locale's: the same words everywhere. */
static bool is_space(unsigned char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static bool is_upper(unsigned char c) { return c >= 'A' && c <= 'Z'; }
static bool is_letter(unsigned char c) {
  return (c >= 'a' && c <= 'z') || is_upper(c) || (c >= '0' && c <= '9') || c >= 0x80;
}

/* Doubles *p when n elements fill it. */
static bool grow(void **p, size_t n, size_t *cap, size_t size) {
  if (n < *cap) return true;
  size_t more = *cap ? 2 * *cap : 256;
  void *q = nm__realloc(*p, more, size);
  if (!q) return false;
  *p = q;
  *cap = more;
  return true;
}

static bool rehash(struct bag *b) {
  size_t n = b->n_slots ? 2 * b->n_slots : 1024;
  uint32_t *slot = nm__alloc(n, sizeof *slot);
  if (!slot) return false;
  for (size_t w = 0; w < b->n_words; w++) {
    size_t i = b->word[w].hash & (n - 1);
    while (slot[i]) i = (i + 1) & (n - 1);
    slot[i] = (uint32_t)w + 1;
  }
  free(b->slot);
  b->slot = slot;
  b->n_slots = n;
  return true;
}

/* The number of the word that the pool ends with from `at` on; a known word is taken off the pool
 * again. -1 without memory. */
static int64_t number_of(struct bag *b, size_t at) {
  if (2 * b->n_words >= b->n_slots && !rehash(b)) return -1;
  size_t len = b->pool.len - at;
  uint64_t hash = nm__hash(b->pool.s + at, len, 0);
  size_t i = hash & (b->n_slots - 1);
  for (; b->slot[i]; i = (i + 1) & (b->n_slots - 1)) {
    const struct word *w = &b->word[b->slot[i] - 1];
    if (w->hash != hash || w->len != len || memcmp(b->pool.s + w->at, b->pool.s + at, len))
      continue;
    b->pool.len = at;
    return b->slot[i] - 1;
  }
  void *words = b->word;
  if (b->n_words >= INT_MAX || !grow(&words, b->n_words, &b->cap_words, sizeof *b->word)) return -1;
  b->word = words;
  b->word[b->n_words] = (struct word){.at = at, .len = len, .hash = hash};
  b->slot[i] = (uint32_t)++b->n_words;
  return (int64_t)b->n_words - 1;
}

static bool grow_entries(struct bag *b) {
  size_t cap = b->cap_entries;
  void *idx = b->x->idx, *val = b->x->val;
  bool ok = grow(&idx, b->n_entries, &cap, sizeof *b->x->idx);
  b->x->idx = idx;
  cap = b->cap_entries;
  ok = ok && grow(&val, b->n_entries, &cap, sizeof *b->x->val);
  b->x->val = val;
  if (ok) b->cap_entries = cap;
  return ok;
}

/* Counts the word that the pool ends with from `at` on in `row`. */
static bool count_word(struct bag *b, size_t at, size_t row) {
  int64_t k = b->pool.failed ? -1 : number_of(b, at);
  if (k < 0 || !grow_entries(b)) return false;
  struct word *w = &b->word[k];
  if (w->last_row == row + 1) {
    b->x->val[w->entry] += 1;
    return true;
  }
  w->last_row = row + 1;
  w->entry = b->n_entries++;
  b->x->idx[w->entry] = (uint32_t)k;
  b->x->val[w->entry] = 1;
  return true;
}

static bool read_row(struct bag *b, const char *text, size_t row) {
  const unsigned char *s = (const unsigned char *)(text ? text : "");
  while (*s) {
    size_t at = b->pool.len;
    if (is_space(*s)) {
      s++;
      continue;
    }
    if (!is_letter(*s)) nm__buf_putc(&b->pool, *s++);
    else
      for (; is_letter(*s); s++) nm__buf_putc(&b->pool, is_upper(*s) ? *s - 'A' + 'a' : *s);
    if (!count_word(b, at, row)) return false;
  }
  return true;
}

int nm__bag_of_words(char *const *text, size_t n, struct nm__sparse *out, nm_err *err) {
  struct bag b = {.x = out};
  *out = (struct nm__sparse){.n_rows = n, .ptr = nm__alloc(n + 1, sizeof *out->ptr)};
  nm__buf_init(&b.pool, (size_t)1 << 32);
  bool ok = out->ptr && rehash(&b) && grow_entries(&b);
  for (size_t i = 0; i < n && ok; i++) {
    ok = read_row(&b, text[i], i);
    out->ptr[i + 1] = b.n_entries;
  }
  out->d = (int)b.n_words;
  nm__buf_done(&b.pool);
  free(b.word);
  free(b.slot);
  if (ok) return NM_OK;
  nm__sparse_done(out);
  return nm__fail_memory(err, "a bag of words", b.n_entries * 8);
}

void nm__sparse_done(struct nm__sparse *s) {
  free(s->ptr);
  free(s->idx);
  free(s->val);
  *s = (struct nm__sparse){0};
}
