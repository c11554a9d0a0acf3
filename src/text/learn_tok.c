/* learn_tok.c - character and word vocabularies, and the keys that all kinds share. */
#include "text/learn_tok.h"

#include <stdlib.h>
#include <string.h>

#include "text/tok.h"
#include "text/unicode.h"

enum { MOST = 1 << 22 };           /* pieces of a vocabulary */

/* ---- counting -------------------------------------------------------------- */

static uint32_t *slot_of(const struct nm__counts *c, const char *s, size_t n) {
  size_t i = nm__hash(s, n, 0) & (c->n_slots - 1);
  for (;; i = (i + 1) & (c->n_slots - 1)) {
    uint32_t k = c->slot[i];
    if (!k || (c->v[k - 1].s.n == n && !memcmp(c->v[k - 1].s.s, s, n))) return &c->slot[i];
  }
}

static int grow(struct nm__counts *c) {
  size_t cap = c->cap ? 2 * c->cap : 512;
  struct nm__count *v = nm__realloc(c->v, cap, sizeof *v);
  if (v) c->v = v;
  uint32_t *slot = v && cap < 1u << 31 ? nm__alloc(2 * cap, sizeof *slot) : NULL;
  if (!slot) return NM_EMEMORY;
  free(c->slot);
  c->slot = slot;
  c->cap = cap;
  c->n_slots = 2 * cap;
  for (size_t i = 0; i < c->n; i++) *slot_of(c, v[i].s.s, v[i].s.n) = (uint32_t)i + 1;
  return NM_OK;
}

int nm__counts_add(struct nm__counts *c, const char *s, size_t n) {
  if (c->n == c->cap && grow(c)) return NM_EMEMORY;
  uint32_t *k = slot_of(c, s, n);
  if (!*k) {
    c->v[c->n++] = (struct nm__count){{s, n}, 0};
    *k = (uint32_t)c->n;
  }
  c->v[*k - 1].n++;
  return NM_OK;
}

static int by_count(const void *a, const void *b) {
  const struct nm__count *x = a, *y = b;
  if (x->n != y->n) return x->n > y->n ? -1 : 1;
  size_t n = x->s.n < y->s.n ? x->s.n : y->s.n;
  int d = memcmp(x->s.s, y->s.s, n);
  return d ? d : (x->s.n > y->s.n) - (x->s.n < y->s.n);
}

void nm__counts_sort(struct nm__counts *c) {
  if (c->n) qsort(c->v, c->n, sizeof *c->v, by_count);
}

void nm__counts_done(struct nm__counts *c) {
  free(c->v);
  free(c->slot);
  *c = (struct nm__counts){0};
}

/* ---- characters and words ---------------------------------------------------- */

static int count_chars(struct nm__counts *c, struct nm__str t, size_t i, nm_err *err) {
  for (size_t at = 0, len; at < t.n; at += len) {
    uint32_t cp;
    len = (size_t)nm__utf8_decode(t.s + at, t.n - at, &cp);
    if (!len)
      return nm__fail(err, NM_EFORMAT, "text %zu is not UTF-8 at byte %zu: a character vocabulary "
                      "cannot hold it (bpe can)", i, at);
    if (nm__counts_add(c, t.s + at, len)) return nm__fail_memory(err, "the characters", t.n);
  }
  return NM_OK;
}

static int count_words(struct nm__counts *c, struct nm__str t, size_t i, nm_err *err) {
  if (memchr(t.s, '\n', t.n) || memchr(t.s, '\r', t.n) || memchr(t.s, '\t', t.n))
    return nm__fail(err, NM_EFORMAT, "text %zu holds a line break or a tab, which a word "
                    "vocabulary has no token for: use char or bpe", i);
  if (nm__utf8_valid(t.s, t.n) < t.n)
    return nm__fail(err, NM_EFORMAT, "text %zu is not UTF-8: a word vocabulary cannot hold it "
                    "(bpe can)", i);
  for (size_t at = 0, len; at < t.n; at += len + 1) {
    const char *space = memchr(t.s + at, ' ', t.n - at);
    len = space ? (size_t)(space - t.s) - at : t.n - at;
    if (len && nm__counts_add(c, t.s + at, len)) return nm__fail_memory(err, "the words", t.n);
  }
  return NM_OK;
}

/* Special pieces first, as SentencePiece numbers them. */
static const char *const special[] = {"<unk>", "<s>", "</s>"};
enum { N_SPECIAL = sizeof special / sizeof *special };

static void put_piece(struct nm__buf *b, struct nm__str s, bool word) {
  if (word) nm__buf_puts(b, NM__SPACE);
  if (!word && s.n == 1 && *s.s == ' ') nm__buf_puts(b, NM__SPACE);
  else nm__buf_put(b, s.s, s.n);
}

/* n_pieces pieces of the counts behind the special ones, with equal scores. */
static int put_pieces(struct nm__gguf *g, const struct nm__counts *c, size_t n, bool word,
                      nm_err *err) {
  struct nm__buf b;
  nm__buf_init(&b, SIZE_MAX / 4);
  struct nm__str *piece = nm__alloc(n, sizeof *piece);
  float *score = nm__alloc(n, sizeof *score);
  int32_t *type = nm__alloc(n, sizeof *type);
  size_t *at = nm__alloc(n + 1, sizeof *at);
  bool room = piece && score && type && at;
  for (size_t i = 0; room && i < n; i++) {
    at[i] = b.len;
    if (i < N_SPECIAL) nm__buf_puts(&b, special[i]);
    else put_piece(&b, c->v[i - N_SPECIAL].s, word);
    at[i + 1] = b.len;
    score[i] = i < N_SPECIAL ? 0 : -1;
    type[i] = i == 0 ? NM__TOK_UNKNOWN : i < N_SPECIAL ? NM__TOK_CONTROL : NM__TOK_NORMAL;
  }
  room = room && !b.failed;
  for (size_t i = 0; room && i < n; i++)
    piece[i] = (struct nm__str){b.s + at[i], at[i + 1] - at[i]};
  int st = room ? NM_OK : nm__fail_memory(err, "a vocabulary", n * sizeof *piece);
  if (!st) st = nm__gguf_add_string(g, "tokenizer.ggml.model", "t5", 2, err);
  if (!st) st = nm__gguf_add_strings(g, "tokenizer.ggml.tokens", piece, n, err);
  if (!st) st = nm__gguf_add_f32s(g, "tokenizer.ggml.scores", score, n, err);
  if (!st) st = nm__gguf_add_i32s(g, "tokenizer.ggml.token_type", type, n, err);
  if (!st) st = nm__gguf_add_u32(g, "tokenizer.ggml.unknown_token_id", 0, err);
  if (!st) st = nm__gguf_add_u32(g, "tokenizer.ggml.padding_token_id", 2, err);
  if (!st) st = nm__gguf_add_bool(g, "tokenizer.ggml.add_space_prefix", word, err);
  if (!st) st = nm__gguf_add_bool(g, "tokenizer.ggml.remove_extra_whitespaces", word, err);
  nm__buf_done(&b);
  free(piece);
  free(score);
  free(type);
  free(at);
  return st;
}

static int learn_list(struct nm__gguf *g, bool word, int size, const struct nm__str *texts,
                      size_t n, nm_err *err) {
  struct nm__counts c = {0};
  int st = NM_OK;
  for (size_t i = 0; i < n && !st; i++)
    st = word ? count_words(&c, texts[i], i, err) : count_chars(&c, texts[i], i, err);
  nm__counts_sort(&c);
  size_t most = size ? (size_t)size : MOST, all = c.n + N_SPECIAL;
  if (!st && !c.n) st = nm__fail(err, NM_EFORMAT, "the texts hold nothing to make a token of");
  if (!st && size && size <= N_SPECIAL)
    st = nm__fail(err, NM_EUSAGE, "a vocabulary of %d has no room beside %d special tokens", size,
                  N_SPECIAL);
  if (!st) st = put_pieces(g, &c, all < most ? all : most, word, err);
  nm__counts_done(&c);
  return st;
}

/* ---- all kinds ----------------------------------------------------------------- */

int nm__tok_learn(const char *kind, int size, const struct nm__str *texts, size_t n,
                  struct nm__gguf **out, nm_err *err) {
  *out = NULL;
  bool word = !strcmp(kind, "word"), bpe = !strcmp(kind, "bpe");
  if (!word && !bpe && strcmp(kind, "char"))
    return nm__fail(err, NM_EUSAGE, "tokenizer '%.30s' cannot be made (known: char, word, bpe)",
                    kind);
  if (size < 0 || size > MOST)
    return nm__fail(err, NM_EUSAGE, "a vocabulary of %d cannot be made (at most %d)", size, MOST);
  struct nm__gguf *g;
  int32_t bos = 1, eos = 2;
  int st = nm__gguf_new("a new tokenizer", "GGUF v3", &g, err);
  if (!st && bpe) st = nm__learn_bpe(g, size, texts, n, &bos, err);
  if (!st && !bpe) st = learn_list(g, word, size, texts, n, err);
  if (bpe) eos = bos;
  if (!st) st = nm__gguf_add_u32(g, "tokenizer.ggml.bos_token_id", (uint32_t)bos, err);
  if (!st) st = nm__gguf_add_u32(g, "tokenizer.ggml.eos_token_id", (uint32_t)eos, err);
  if (!st) st = nm__gguf_add_bool(g, "tokenizer.ggml.add_bos_token", true, err);
  if (!st) st = nm__gguf_add_bool(g, "tokenizer.ggml.add_eos_token", false, err);
  if (!st) *out = g;
  else nm__gguf_close(g);
  return st;
}
