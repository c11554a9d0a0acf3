/* wpm.c - WordPiece ("bert").
 *
 * Text is cleaned (control characters out, accents off, lower case), cut into words at
 * white space and around punctuation and ideographs, and each word is covered greedily by
 * the longest pieces. A GGUF marks the pieces that begin a word with U+2581 and leaves the
 * others bare, the reverse of the "##" of the original. */
#include <string.h>
#include <utf8proc.h>

#include "text/tok.h"
#include "text/unicode.h"

enum { MAX_CHARS = 100 };          /* a longer word is unknown, as in the original */

/* ---- one word -------------------------------------------------------- */

static bool continues(char c) { return (c & 0xC0) == 0x80; }

/* The longest piece that is `fixed` bytes of key and at least one character more. Its
 * bytes beyond the fixed ones, or 0. */
static size_t longest_piece(const struct nm__tok *t, const char *key, size_t fixed, size_t n,
                            int32_t *id) {
  size_t len = fixed + n;
  if (len > t->longest) len = t->longest;
  for (; len > fixed; len--) {
    if (len < fixed + n && continues(key[len])) continue;
    *id = nm__dict_get(&t->dict, t->pool.s, key, len);
    if (*id >= 0) return len - fixed;
  }
  return 0;
}

/* The key of a piece is its mark and what is left of the word. The mark is written over
 * what stands before: bytes of the word that are done with. */
int nm__wordpiece(const struct nm__tok *t, struct nm__work *w, const char *first, const char *next,
                  const char *word, size_t n, size_t max_chars, nm_err *err) {
  size_t n_first = strlen(first), n_next = strlen(next), before = w->out->n, chars = 0;
  size_t room = n_first > n_next ? n_first : n_next;
  for (size_t i = 0; i < n && chars <= max_chars; i++) chars += !continues(word[i]);
  if (chars > max_chars) return nm__tok_no_token(t, word, n, w->out, err);
  nm__buf_reset(&w->key);
  nm__buf_put(&w->key, first, n_first);
  nm__buf_put(&w->key, next, room - n_first);
  nm__buf_put(&w->key, word, n);
  if (w->key.failed) return NM_EMEMORY;
  for (size_t at = 0, len; at < n; at += len) {
    size_t mark = at ? n_next : n_first;
    char *key = w->key.s + room + at - mark;
    int32_t id;
    memcpy(key, at ? next : first, mark);
    len = longest_piece(t, key, mark, n - at, &id);
    if (len == 0) {
      w->out->n = before;
      return nm__tok_no_token(t, word, n, w->out, err);
    }
    if (nm__ids_push(w->out, id)) return NM_EMEMORY;
  }
  return NM_OK;
}

/* ---- characters ------------------------------------------------------ */

static bool is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

/* Ideographs, in the blocks that the original lists; each is a word. */
static bool is_ideograph(uint32_t c) {
  static const uint32_t block[][2] = {
    {0x4E00, 0x9FFF}, {0x3400, 0x4DBF}, {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F},
    {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0xF900, 0xFAFF}, {0x2F800, 0x2FA1F},
  };
  for (size_t i = 0; i < sizeof block / sizeof *block; i++)
    if (c >= block[i][0] && c <= block[i][1]) return true;
  return false;
}

static bool in_group(utf8proc_category_t c, utf8proc_category_t lo, utf8proc_category_t hi) {
  return c >= lo && c <= hi;
}

static bool stands_alone(uint32_t c) {
  utf8proc_category_t cat = utf8proc_category((utf8proc_int32_t)c);
  return in_group(cat, UTF8PROC_CATEGORY_PC, UTF8PROC_CATEGORY_PO) || is_ideograph(c) ||
         (c < 0x7F && in_group(cat, UTF8PROC_CATEGORY_SM, UTF8PROC_CATEGORY_SO));
}

static bool is_control(uint32_t c) {
  return c == 0 || c == 0xFFFD ||
         in_group(utf8proc_category((utf8proc_int32_t)c), UTF8PROC_CATEGORY_CC,
                  UTF8PROC_CATEGORY_CO);
}

/* llama.cpp keeps the first character of the canonical decomposition, not the letters of
 * it, and takes no marks out that stand alone; its ids are the ones a GGUF is used with. */
static uint32_t base_letter(uint32_t c) {
  utf8proc_int32_t out[32];
  int boundary = 0;
  if (c < 0x80) return c;
  utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, out, 32, UTF8PROC_DECOMPOSE,
                                               &boundary);
  return n > 0 && n <= 32 ? (uint32_t)out[0] : c;
}

/* ---- a run of text --------------------------------------------------- */

static int end_word(const struct nm__tok *t, struct nm__work *w, nm_err *err) {
  if (w->text.failed) return NM_EMEMORY;
  if (w->text.len == 0) return NM_OK;
  int rc = nm__wordpiece(t, w, NM__SPACE, "", w->text.s, w->text.len, MAX_CHARS, err);
  nm__buf_reset(&w->text);
  return rc;
}

static int add_character(const struct nm__tok *t, struct nm__work *w, uint32_t c, nm_err *err) {
  c = base_letter(c);
  if (is_space(c)) return end_word(t, w, err);
  if (is_control(c)) return NM_OK;
  char s[4];
  bool alone = stands_alone(c);
  int rc = alone ? end_word(t, w, err) : NM_OK;
  nm__buf_put(&w->text, s, (size_t)nm__utf8_encode((uint32_t)utf8proc_tolower((int32_t)c), s));
  return alone && !rc ? end_word(t, w, err) : rc;
}

/* Bytes that are no text are left out, as U+FFFD would be. */
static int wpm_run(const struct nm__tok *t, struct nm__work *w, const char *s, size_t n,
                   nm_err *err) {
  int rc = NM_OK;
  nm__buf_reset(&w->text);
  for (size_t i = 0, len; i < n && !rc; i += len ? len : 1) {
    uint32_t c;
    len = (size_t)nm__utf8_decode(s + i, n - i, &c);
    if (len) rc = add_character(t, w, c, err);
  }
  return rc ? rc : end_word(t, w, err);
}

/* ---- opening --------------------------------------------------------- */

static int wpm_open(struct nm__tok *t, const struct nm__gguf *g, nm_err *warn, nm_err *err) {
  (void)warn;
  if (nm__tok_open_pieces(t)) return nm__fail_memory(err, "the vocabulary", t->pool.len);
  t->prefix = true;
  int rc = nm__tok_flag(g, "tokenizer.ggml.add_bos_token", true, &t->add_bos, err);
  return rc ? rc : nm__tok_flag(g, "tokenizer.ggml.add_sep_token", true, &t->add_eos, err);
}

const struct nm__tok_family nm__tok_wpm = {"bert", wpm_open, wpm_run};
