/* learn_bpe.c - merges of byte-level BPE from texts (Sennrich et al., arXiv 1508.07909).
 *
 * The texts are split into pre-tokens, which are counted: merging works on each different one
 * once. Counts of pairs are kept up to date: a word that holds the merged pair gives its pairs
 * back and hands in those it has afterwards. */
#include <stdlib.h>
#include <string.h>

#include "text/learn_tok.h"
#include "text/tok.h"
#include "text/unicode.h"

#define PRE "gpt-2"
#define END_OF_TEXT "<|endoftext|>"

struct pair { int32_t left, right; int64_t n; };       /* left -1: free */

struct bpe {
  struct nm__counts words;
  int32_t *sym;                    /* of all words, one after the other */
  size_t *at;                      /* where each word begins; words.n + 1 */
  uint32_t *len;                   /* symbols it has now */
  struct pair *pair;               /* hash table */
  size_t n_pairs, n_slots;
  struct nm__buf pool;             /* bytes of the symbols */
  struct nm__span *bytes;          /* of each symbol */
  struct nm__dict by_bytes;
  int32_t n_sym;
  int32_t (*merge)[2];
  size_t n_merges;
};

/* ---- pairs ------------------------------------------------------------------- */

static struct pair *pair_slot(const struct bpe *b, int32_t left, int32_t right) {
  size_t i = nm__mix64((uint64_t)(uint32_t)left << 32 | (uint32_t)right) & (b->n_slots - 1);
  while (b->pair[i].left >= 0 && (b->pair[i].left != left || b->pair[i].right != right))
    i = (i + 1) & (b->n_slots - 1);
  return &b->pair[i];
}

/* Twice the room; pairs that no longer occur are forgotten. */
static bool more_slots(struct bpe *b) {
  struct bpe old = *b;
  b->n_slots = old.n_slots ? 2 * old.n_slots : 1 << 12;
  b->pair = nm__alloc(b->n_slots, sizeof *b->pair);
  if (!b->pair) {
    *b = old;
    return false;
  }
  b->n_pairs = 0;
  for (size_t i = 0; i < b->n_slots; i++) b->pair[i].left = -1;
  for (size_t i = 0; i < old.n_slots; i++) {
    if (old.pair[i].left < 0 || !old.pair[i].n) continue;
    *pair_slot(b, old.pair[i].left, old.pair[i].right) = old.pair[i];
    b->n_pairs++;
  }
  free(old.pair);
  return true;
}

static bool count_pairs(struct bpe *b, size_t word, int64_t times) {
  const int32_t *s = b->sym + b->at[word];
  for (uint32_t i = 0; i + 1 < b->len[word]; i++) {
    if (2 * (b->n_pairs + 1) > b->n_slots && !more_slots(b)) return false;
    struct pair *p = pair_slot(b, s[i], s[i + 1]);
    if (p->left < 0) {
      *p = (struct pair){s[i], s[i + 1], 0};
      b->n_pairs++;
    }
    p->n += times;
  }
  return true;
}

/* The most frequent one; of equals the one with the lowest symbols. */
static const struct pair *best(const struct bpe *b) {
  const struct pair *best = NULL;
  for (size_t i = 0; i < b->n_slots; i++) {
    const struct pair *p = &b->pair[i];
    if (p->left < 0 || p->n < 2 || (best && p->n < best->n)) continue;
    bool lower = best && (p->left < best->left ||
                          (p->left == best->left && p->right < best->right));
    if (!best || p->n > best->n || lower) best = p;
  }
  return best;
}

/* ---- symbols ------------------------------------------------------------------- */

/* The symbol of these bytes, which may have been made another way; -1 without memory. */
static int32_t symbol(struct bpe *b, const char *s, size_t n) {
  int32_t id = nm__dict_get(&b->by_bytes, b->pool.s, s, n);
  if (id >= 0) return id;
  struct nm__span span = {b->pool.len, (uint32_t)n};
  nm__buf_put(&b->pool, s, n);
  if (b->pool.failed || nm__dict_put(&b->by_bytes, b->pool.s, span, b->n_sym)) return -1;
  b->bytes[b->n_sym] = span;
  return b->n_sym++;
}

static bool apply(struct bpe *b, int32_t left, int32_t right, int32_t merged) {
  for (size_t w = 0; w < b->words.n; w++) {
    int32_t *s = b->sym + b->at[w];
    uint32_t n = b->len[w], to = 0, i = 0;
    while (i + 1 < n && (s[i] != left || s[i + 1] != right)) i++;
    if (i + 1 >= n) continue;
    if (!count_pairs(b, w, -(int64_t)b->words.v[w].n)) return false;
    for (i = 0; i < n; to++) {
      bool here = i + 1 < n && s[i] == left && s[i + 1] == right;
      s[to] = here ? merged : s[i];
      i += here ? 2 : 1;
    }
    b->len[w] = to;
    if (!count_pairs(b, w, (int64_t)b->words.v[w].n)) return false;
  }
  return true;
}

static int merge_all(struct bpe *b, size_t size, nm_err *err) {
  struct nm__buf whole;
  nm__buf_init(&whole, 1 << 20);
  bool room = true;
  while (room && (size_t)b->n_sym < size && b->n_merges < size) {
    const struct pair *p = best(b);
    if (!p) break;
    int32_t left = p->left, right = p->right;
    nm__buf_reset(&whole);
    nm__buf_put(&whole, b->pool.s + b->bytes[left].at, b->bytes[left].n);
    nm__buf_put(&whole, b->pool.s + b->bytes[right].at, b->bytes[right].n);
    int32_t merged = whole.failed ? -1 : symbol(b, whole.s, whole.len);
    room = merged >= 0 && apply(b, left, right, merged);
    b->merge[b->n_merges][0] = left;
    b->merge[b->n_merges++][1] = right;
  }
  nm__buf_done(&whole);
  return room ? NM_OK : nm__fail_memory(err, "the merges", b->n_slots * sizeof *b->pair);
}

/* ---- words ---------------------------------------------------------------------- */

static int take_word(void *arg, const char *s, size_t n, nm_err *err) {
  struct bpe *b = arg;
  return nm__counts_add(&b->words, s, n) ? nm__fail_memory(err, "the words", n) : NM_OK;
}

static int open_words(struct bpe *b, size_t size, nm_err *err) {
  size_t bytes = 0;
  for (size_t i = 0; i < b->words.n; i++) bytes += b->words.v[i].s.n;
  b->sym = nm__alloc(bytes + 1, sizeof *b->sym);
  b->at = nm__alloc(b->words.n + 1, sizeof *b->at);
  b->len = nm__alloc(b->words.n + 1, sizeof *b->len);
  b->bytes = nm__alloc(size + 256, sizeof *b->bytes);
  b->merge = nm__alloc(size + 1, sizeof *b->merge);
  bool room = b->sym && b->at && b->len && b->bytes && b->merge && more_slots(b);
  for (int i = 0; room && i < 256; i++) room = symbol(b, &(char){(char)i}, 1) == i;
  for (size_t w = 0; room && w < b->words.n; w++) {
    struct nm__str s = b->words.v[w].s;
    b->at[w + 1] = b->at[w] + s.n;
    b->len[w] = (uint32_t)s.n;
    for (size_t i = 0; i < s.n; i++) b->sym[b->at[w] + i] = (unsigned char)s.s[i];
    room = count_pairs(b, w, (int64_t)b->words.v[w].n);
  }
  return room ? NM_OK : nm__fail_memory(err, "the words", bytes * sizeof *b->sym);
}

/* ---- keys ----------------------------------------------------------------------- */

/* Symbols as GPT-2 writes bytes. */
static void written(const struct bpe *b, int32_t id, struct nm__buf *out) {
  int16_t byte_of[324];
  char utf8[256][5] = {{0}};
  nm__byte_alphabet(byte_of);
  for (uint32_t cp = 0; cp < 324; cp++)
    if (byte_of[cp] >= 0) nm__utf8_encode(cp, utf8[byte_of[cp]]);
  for (uint32_t i = 0; i < b->bytes[id].n; i++)
    nm__buf_puts(out, utf8[(unsigned char)b->pool.s[b->bytes[id].at + i]]);
}

/* Strings that were appended to one buffer, as an array. */
static int put_strings(struct nm__gguf *g, const char *key, const struct nm__buf *text,
                       const size_t *at, size_t n, nm_err *err) {
  struct nm__str *v = nm__alloc(n + 1, sizeof *v);
  if (!v || text->failed) {
    free(v);
    return nm__fail_memory(err, "the vocabulary", n * sizeof *v);
  }
  for (size_t i = 0; i < n; i++) v[i] = (struct nm__str){text->s + at[i], at[i + 1] - at[i]};
  int st = nm__gguf_add_strings(g, key, v, n, err);
  free(v);
  return st;
}

static int put_vocabulary(struct nm__gguf *g, const struct bpe *b, nm_err *err) {
  size_t n = (size_t)b->n_sym + 1, most = n > b->n_merges ? n : b->n_merges;
  struct nm__buf text;
  nm__buf_init(&text, SIZE_MAX / 4);
  size_t *at = nm__alloc(most + 2, sizeof *at);
  int32_t *type = nm__alloc(n, sizeof *type);
  int st = at && type ? NM_OK : nm__fail_memory(err, "the vocabulary", n * sizeof *at);
  for (size_t i = 0; i < n && !st; i++) {
    if (i + 1 < n) written(b, (int32_t)i, &text);
    else nm__buf_puts(&text, END_OF_TEXT);
    at[i + 1] = text.len;
    type[i] = i + 1 < n ? NM__TOK_NORMAL : NM__TOK_CONTROL;
  }
  if (!st) st = put_strings(g, "tokenizer.ggml.tokens", &text, at, n, err);
  if (!st) st = nm__gguf_add_i32s(g, "tokenizer.ggml.token_type", type, n, err);
  nm__buf_reset(&text);
  for (size_t i = 0; i < b->n_merges && !st; i++) {
    written(b, b->merge[i][0], &text);
    nm__buf_putc(&text, ' ');
    written(b, b->merge[i][1], &text);
    at[i + 1] = text.len;
  }
  if (!st) st = put_strings(g, "tokenizer.ggml.merges", &text, at, b->n_merges, err);
  nm__buf_done(&text);
  free(at);
  free(type);
  return st;
}

int nm__learn_bpe(struct nm__gguf *g, int size, const struct nm__str *texts, size_t n,
                  int32_t *special, nm_err *err) {
  if (size < 257)
    return nm__fail(err, NM_EUSAGE, "a bpe vocabulary has at least 257 tokens (all bytes and one "
                    "special token), not %d", size);
  struct bpe b = {0};
  struct nm__pretok *pre = NULL;
  nm__buf_init(&b.pool, PTRDIFF_MAX / 4);
  int st = nm__pretok_new(PRE, strlen(PRE), &pre, err);
  for (size_t i = 0; i < n && !st; i++)
    st = nm__pretok_split(pre, texts[i].s, texts[i].n, take_word, &b, err);
  nm__counts_sort(&b.words);
  if (!st) st = open_words(&b, (size_t)size, err);
  if (!st) st = merge_all(&b, (size_t)size - 1, err);
  if (!st) st = nm__gguf_add_string(g, "tokenizer.ggml.model", "gpt2", 4, err);
  if (!st) st = nm__gguf_add_string(g, "tokenizer.ggml.pre", PRE, strlen(PRE), err);
  if (!st) st = put_vocabulary(g, &b, err);
  *special = b.n_sym;
  nm__pretok_free(pre);
  nm__counts_done(&b.words);
  nm__buf_done(&b.pool);
  free(b.sym);
  free(b.at);
  free(b.len);
  free(b.pair);
  free(b.bytes);
  free(b.by_bytes.slot);
  free(b.merge);
  return st;
}
