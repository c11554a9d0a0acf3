/* hf_normal.c - the normalizers of a tokenizer.json, and facts about characters. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/hf.h"
#include "text/unicode.h"

/* ---- characters -------------------------------------------------------- */

bool nm__hf_is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

static bool in_group(uint32_t c, utf8proc_category_t lo, utf8proc_category_t hi) {
  utf8proc_category_t cat = utf8proc_category((utf8proc_int32_t)c);
  return cat >= lo && cat <= hi;
}

bool nm__hf_is_punct(uint32_t c) {
  if (c < 0x80) return c > ' ' && c < 0x7F && !((c >= '0' && c <= '9') ||
                       ((c | 32) >= 'a' && (c | 32) <= 'z'));
  return in_group(c, UTF8PROC_CATEGORY_PC, UTF8PROC_CATEGORY_PO);
}

int nm__hf_next(const char *s, size_t n, uint32_t *cp) {
  int len = nm__utf8_decode(s, n, cp);
  if (len) return len;
  *cp = 0xFFFD;
  return 1;
}

static void put_char(struct nm__buf *b, uint32_t c) {
  char s[4];
  nm__buf_put(b, s, (size_t)nm__utf8_encode(c, s));
}

/* ---- the byte alphabet ------------------------------------------------- */

/* Bytes that are no printable character of Latin-1 stand as 256, 257, ... in order. */
static uint32_t char_of(uint8_t b) {
  if (b < 33) return 256u + b;
  if (b <= 126) return b;
  if (b <= 160) return 256u + 33 + (b - 127u);
  return b == 173 ? 256u + 67 : b;
}

int nm__hf_byte_of(uint32_t cp) {
  if (cp >= 256 + 68) return -1;
  if (cp < 256) return char_of((uint8_t)cp) == cp ? (int)cp : -1;
  cp -= 256;
  return cp < 33 ? (int)cp : cp < 67 ? (int)cp - 33 + 127 : 173;
}

void nm__hf_put_byte(struct nm__buf *out, uint8_t byte) { put_char(out, char_of(byte)); }

void nm__hf_put_bytes(const struct nm__hf_work *w, struct nm__buf *out, const char *s, size_t n) {
  for (size_t i = 0; i < n;) {
    uint32_t cp;
    size_t len = (size_t)nm__hf_next(s + i, n - i, &cp);
    if (w->bad && cp - w->bad < 256) nm__hf_put_byte(out, (uint8_t)(cp - w->bad));
    else for (size_t k = 0; k < len; k++) nm__hf_put_byte(out, (uint8_t)s[i + k]);
    i += len;
  }
}

/* ---- character by character -------------------------------------------- */

/* What becomes of one character: it is kept, or 0 for nothing. */
typedef uint32_t map_fn(uint32_t c);
enum { GONE = UINT32_MAX };

static int map(struct nm__hf_work *w, map_fn *fn, bool *first) {
  bool begun = false;
  for (size_t i = 0; i < w->text.len;) {
    uint32_t c;
    size_t len = (size_t)nm__hf_next(w->text.s + i, w->text.len - i, &c);
    uint32_t to = fn(c);
    if (to == (uint32_t)GONE) *first = *first && begun;
    else put_char(&w->next, to), begun = true;
    i += len;
  }
  return NM_OK;
}

static uint32_t strip_mark(uint32_t c) {
  return c >= 0x300 && in_group(c, UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_ME) ? (uint32_t)GONE : c;
}

static uint32_t strip_nonspacing(uint32_t c) {
  return c >= 0x300 && in_group(c, UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_MN) ? (uint32_t)GONE : c;
}

static uint32_t nmt(uint32_t c) {
  if ((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F ||
      c == 0x9F) return (uint32_t)GONE;
  if (c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
      c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD) return ' ';
  return c;
}

static uint32_t clean(uint32_t c) {
  if (c == 0 || c == 0xFFFD) return (uint32_t)GONE;
  if (nm__hf_is_space(c)) return ' ';
  if (c < 0x7F && c >= ' ') return c;
  return in_group(c, UTF8PROC_CATEGORY_CC, UTF8PROC_CATEGORY_CO) ? (uint32_t)GONE : c;
}

/* U+0130 is the one character whose lower case is two, whatever stands around it. */
static int lowercase(struct nm__hf_work *w) {
  for (size_t i = 0; i < w->text.len;) {
    uint32_t c;
    i += (size_t)nm__hf_next(w->text.s + i, w->text.len - i, &c);
    if (c == 0x130) nm__buf_puts(&w->next, "i\xCC\x87");
    else put_char(&w->next, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
  }
  return NM_OK;
}

/* Ideographs, in the blocks that BERT lists, are words of their own. */
static int space_ideographs(struct nm__hf_work *w) {
  static const uint32_t block[][2] = {
    {0x4E00, 0x9FFF}, {0x3400, 0x4DBF}, {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F},
    {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0xF900, 0xFAFF}, {0x2F800, 0x2FA1F},
  };
  for (size_t i = 0, len; i < w->text.len; i += len) {
    uint32_t c;
    bool alone = false;
    len = (size_t)nm__hf_next(w->text.s + i, w->text.len - i, &c);
    for (size_t k = 0; c >= 0x3400 && k < sizeof block / sizeof *block; k++)
      alone = alone || (c >= block[k][0] && c <= block[k][1]);
    if (alone) nm__buf_putc(&w->next, ' ');
    nm__buf_put(&w->next, w->text.s + i, len);
    if (alone) nm__buf_putc(&w->next, ' ');
  }
  return NM_OK;
}

/* ---- normal forms ------------------------------------------------------ */

struct mark { int32_t c; int class; };

/* Canonical order: marks between two starters by class, what is equal as it stood. A merge
 * sort, since a text may be nothing but marks; utf8proc's own goes back and forth. */
static void sort_marks(struct mark *v, struct mark *tmp, size_t n) {
  if (n < 2) return;
  size_t half = n / 2, i = 0, j = half, k = 0;
  sort_marks(v, tmp, half);
  sort_marks(v + half, tmp, n - half);
  while (i < half && j < n) tmp[k++] = v[j].class < v[i].class ? v[j++] : v[i++];
  while (i < half) tmp[k++] = v[i++];
  while (j < n) tmp[k++] = v[j++];
  memcpy(v, tmp, n * sizeof *v);
}

static int decompose(const struct nm__buf *text, int options, int32_t **out, size_t *n_out) {
  size_t n = 0, cap = text->len + 32;
  int32_t *v = nm__alloc(cap, sizeof *v);
  for (size_t i = 0; v && i < text->len;) {
    uint32_t c;
    int boundary = 0;
    i += (size_t)nm__hf_next(text->s + i, text->len - i, &c);
    if (cap - n < 32) {
      int32_t *p = nm__realloc(v, cap *= 2, sizeof *p);
      if (!p) free(v);
      if (!(v = p)) break;
    }
    utf8proc_ssize_t k = utf8proc_decompose_char((int32_t)c, v + n, 32, options, &boundary);
    if (k > 0 && k <= 32) n += (size_t)k;
    else v[n++] = (int32_t)c;
  }
  *out = v;
  *n_out = n;
  return v ? NM_OK : NM_EMEMORY;
}

static int put_in_order(int32_t *v, size_t n) {
  struct mark *m = nm__alloc(2 * (n ? n : 1), sizeof *m);
  if (!m) return NM_EMEMORY;
  for (size_t i = 0; i < n; i++) m[i] = (struct mark){v[i],
                                                      utf8proc_get_property(v[i])->combining_class};
  for (size_t i = 0, k; i < n; i = k ? i + k : i + 1) {
    for (k = 0; i + k < n && m[i + k].class; k++) ;
    sort_marks(m + i, m + n, k);
  }
  for (size_t i = 0; i < n; i++) v[i] = m[i].c;
  free(m);
  return NM_OK;
}

static bool is_ascii(const struct nm__buf *b) {
  for (size_t i = 0; i < b->len; i++)
    if ((unsigned char)b->s[i] >= 0x80) return false;
  return true;
}

static int normal_form(struct nm__hf_work *w, int options) {
  if (is_ascii(&w->text)) {
    nm__buf_put(&w->next, w->text.s, w->text.len);
    return NM_OK;
  }
  int32_t *v;
  size_t n;
  int rc = decompose(&w->text, (options & ~UTF8PROC_COMPOSE) | UTF8PROC_DECOMPOSE, &v, &n);
  if (!rc) rc = put_in_order(v, n);
  if (!rc && options & UTF8PROC_COMPOSE) {
    utf8proc_ssize_t k = utf8proc_normalize_utf32(v, (utf8proc_ssize_t)n, options);
    if (k >= 0) n = (size_t)k;
  }
  for (size_t i = 0; i < n && !rc; i++) put_char(&w->next, (uint32_t)v[i]);
  free(v);
  return rc;
}

/* ---- the table --------------------------------------------------------- */

/* A normalizer's run gets `first` through the work, since its signature is that of all
 * steps: w->parts holds one part, which is the text. */
#define FIRST (&w->parts.v[0].first)

static int run_nfd(const struct nm__hf_step *s, struct nm__hf_work *w) {
  return normal_form(w, s->choice);
}

static int read_nfc(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  (void)r, (void)o;
  s->choice = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
  if (s->kind->name[2] == 'K') s->choice |= UTF8PROC_COMPAT;
  return NM_OK;
}

static int read_nfd(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  (void)r, (void)o;
  s->choice = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
  if (s->kind->name[2] == 'K') s->choice |= UTF8PROC_COMPAT;
  return NM_OK;
}

static int run_lowercase(const struct nm__hf_step *s, struct nm__hf_work *w) {
  (void)s;
  return lowercase(w);
}

static int run_nmt(const struct nm__hf_step *s, struct nm__hf_work *w) {
  (void)s;
  return map(w, nmt, FIRST);
}

static int run_strip_accents(const struct nm__hf_step *s, struct nm__hf_work *w) {
  (void)s;
  return map(w, strip_mark, FIRST);
}

static int read_strip(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  int rc = nm__hf_bool(r, o, "strip_left", true, &s->flag[0]);
  return rc ? rc : nm__hf_bool(r, o, "strip_right", true, &s->flag[1]);
}

static int run_strip(const struct nm__hf_step *s, struct nm__hf_work *w) {
  const char *t = w->text.s;
  size_t lo = 0, hi = 0, n = w->text.len;
  uint32_t c;
  for (size_t len; s->flag[0] && lo < n; lo += len) {
    len = (size_t)nm__hf_next(t + lo, n - lo, &c);
    if (!nm__hf_is_space(c)) break;
  }
  for (size_t i = lo, len; i < n; i += len) {
    len = (size_t)nm__hf_next(t + i, n - i, &c);
    if (!s->flag[1] || !nm__hf_is_space(c)) hi = i + len;
  }
  if (hi > lo) nm__buf_put(&w->next, t + lo, hi - lo);
  *FIRST = *FIRST && lo == 0;
  return NM_OK;
}

static int read_prepend(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  struct nm__str text = {0};
  int rc = nm__hf_text(r, o, "prepend", true, &text);
  return rc ? rc : nm__hf_keep_text(r, s, text);
}

static int run_prepend(const struct nm__hf_step *s, struct nm__hf_work *w) {
  if (w->text.len) nm__buf_put(&w->next, s->s, s->n);
  nm__buf_put(&w->next, w->text.s, w->text.len);
  return NM_OK;
}

static int read_replace(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  struct nm__str text = {0};
  int rc = nm__hf_text(r, o, "content", true, &text);
  if (!rc) rc = nm__hf_keep_text(r, s, text);
  return rc ? rc : nm__hf_read_pattern(r, o, s);
}

/* A text that begins in the middle of what was replaced is not at the text's beginning. */
static int run_replace(const struct nm__hf_step *s, struct nm__hf_work *w) {
  int rc = nm__hf_regex_find(s->re, w, w->text.s, w->text.len);
  if (rc) return rc;
  const struct nm__hf_matches *m = &w->matches;
  if (m->n && m->v[0].match && m->v[0].hi) {
    uint32_t c;
    size_t one = (size_t)nm__hf_next(w->text.s, w->text.len, &c);
    *FIRST = *FIRST && s->n && m->v[0].hi == one;
  }
  for (size_t i = 0; i < m->n; i++) {
    if (m->v[i].match) nm__buf_put(&w->next, s->s, s->n);
    else nm__buf_put(&w->next, w->text.s + m->v[i].lo, m->v[i].hi - m->v[i].lo);
  }
  return NM_OK;
}

/* ---- SentencePiece's character map -------------------------------------- */

static int base64_digit(char c) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const char *p = c ? strchr(digits, c) : NULL;
  return p ? (int)(p - digits) : -1;
}

bool nm__hf_from_base64(struct nm__str s, struct nm__buf *out) {
  uint32_t bits = 0;
  int n = 0;
  while (s.n && s.s[s.n - 1] == '=') s.n--;
  for (size_t i = 0; i < s.n; i++) {
    int d = base64_digit(s.s[i]);
    if (d < 0) return false;
    bits = bits << 6 | (uint32_t)d;
    n += 6;
    if (n >= 8) nm__buf_putc(out, (int)(bits >> (n -= 8) & 255));
  }
  return n < 6;
}

static int read_precompiled(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  struct nm__str text = {0};
  struct nm__buf bytes;
  int rc = nm__hf_text(r, o, "precompiled_charsmap", true, &text);
  if (rc) return rc;
  nm__buf_init(&bytes, text.n + 1);
  nm__buf_puts(&bytes, "");
  if (!nm__hf_from_base64(text, &bytes))
    rc = nm__hf_refuse(r, "precompiled_charsmap", "must be base64");
  if (!rc && bytes.failed) rc = nm__fail_memory(r->err, "a character map", text.n);
  if (!rc) rc = nm__charsmap_new(r->path, (const uint8_t *)bytes.s, bytes.len, &s->map, r->err);
  nm__buf_done(&bytes);
  return rc;
}

/* Bytes that a reader takes for one character. */
static size_t grapheme(const char *s, size_t n) {
  uint32_t a, b;
  utf8proc_int32_t state = 0;
  size_t len = (size_t)nm__hf_next(s, n, &a);
  while (len < n) {
    size_t more = (size_t)nm__hf_next(s + len, n - len, &b);
    if (utf8proc_grapheme_break_stateful((int32_t)a, (int32_t)b, &state)) break;
    len += more;
    a = b;
  }
  return len;
}

/* As the library does it, which is not quite what SentencePiece does: a short grapheme
 * becomes what stands for its shortest known beginning, others go character by character. */
static int run_precompiled(const struct nm__hf_step *s, struct nm__hf_work *w) {
  const char *t = w->text.s;
  struct nm__str to;
  for (size_t i = 0, len; i < w->text.len; i += len) {
    len = grapheme(t + i, w->text.len - i);
    if (len < 6 && nm__charsmap_first(s->map, t + i, len, &to)) {
      nm__buf_put(&w->next, to.s, to.n);
      continue;
    }
    for (size_t k = i, one; k < i + len; k += one) {
      uint32_t c;
      one = (size_t)nm__hf_next(t + k, i + len - k, &c);
      bool known = nm__charsmap_first(s->map, t + k, one, &to);
      nm__buf_put(&w->next, known ? to.s : t + k, known ? to.n : one);
    }
  }
  return NM_OK;
}

static int run_byte_level(const struct nm__hf_step *s, struct nm__hf_work *w) {
  (void)s;
  nm__hf_put_bytes(w, &w->next, w->text.s, w->text.len);
  return NM_OK;
}

static int read_bert(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  int rc = nm__hf_bool(r, o, "clean_text", true, &s->flag[0]);
  if (!rc) rc = nm__hf_bool(r, o, "handle_chinese_chars", true, &s->flag[1]);
  if (!rc) rc = nm__hf_bool(r, o, "lowercase", true, &s->flag[3]);
  s->flag[2] = s->flag[3];
  return rc ? rc : nm__hf_bool(r, o, "strip_accents", false, &s->flag[2]);
}

/* What was made becomes what is worked on. */
static void flip(struct nm__hf_work *w) {
  struct nm__buf b = w->text;
  w->text = w->next;
  w->next = b;
}

static int run_bert(const struct nm__hf_step *s, struct nm__hf_work *w) {
  int rc = NM_OK;
  for (int stage = 0; stage < 5 && !rc; stage++) {
    if (!s->flag[stage > 2 ? stage - 1 : stage]) continue;
    nm__buf_reset(&w->next);
    if (stage == 0) rc = map(w, clean, FIRST);
    else if (stage == 1) rc = space_ideographs(w);
    else if (stage == 2) rc = normal_form(w, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
    else if (stage == 3) rc = map(w, strip_nonspacing, FIRST);
    else rc = lowercase(w);
    if (w->next.failed) rc = NM_EMEMORY;
    flip(w);
  }
  flip(w);                         /* what is made is looked for in w->next */
  return rc;
}

static const struct nm__hf_kind kinds[] = {
  {"BertNormalizer", "clean_text handle_chinese_chars strip_accents lowercase", read_bert,
   run_bert},
  {"Strip", "strip_left strip_right", read_strip, run_strip},
  {"StripAccents", "", NULL, run_strip_accents},
  {"NFC", "", read_nfc, run_nfd},
  {"NFD", "", read_nfd, run_nfd},
  {"NFKC", "", read_nfc, run_nfd},
  {"NFKD", "", read_nfd, run_nfd},
  {"Lowercase", "", NULL, run_lowercase},
  {"Nmt", "", NULL, run_nmt},
  {"Precompiled", "precompiled_charsmap", read_precompiled, run_precompiled},
  {"Prepend", "prepend", read_prepend, run_prepend},
  {"Replace", "pattern content", read_replace, run_replace},
  {"ByteLevel", "", NULL, run_byte_level},
};
const struct nm__hf_table nm__hf_normalizers = {kinds, sizeof kinds / sizeof *kinds, "normalizers"};

/* The text alone decides, so the parts that there are wait aside. */
int nm__hf_normalize(const struct nm__hf_steps *v, struct nm__hf_work *w, bool *first) {
  struct nm__hf_parts aside = w->parts;
  struct nm__hf_part whole = {.first = *first};
  w->parts = (struct nm__hf_parts){&whole, 1, 1};
  int rc = NM_OK;
  for (size_t i = 0; i < v->n && !rc; i++) {
    nm__buf_reset(&w->next);
    rc = v->v[i].kind->run(&v->v[i], w);
    if (!rc && w->next.failed) rc = NM_EMEMORY;
    flip(w);
  }
  *first = whole.first;
  w->parts = aside;
  return rc;
}
