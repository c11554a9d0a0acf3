/* hf_decode.c - the decoders of a tokenizer.json: from tokens to text.
 *
 * Where the library puts U+FFFD for bytes that are no UTF-8, the bytes themselves are
 * given, as by the other families: a caller that shows text as it comes can wait for the
 * rest of a character. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "text/hf.h"
#include "text/unicode.h"

static void begin(struct nm__hf_work *w) {
  w->made.n = 0;
  nm__buf_reset(&w->next);
}

/* What was written behind `at` is a token. */
static int put_token(struct nm__hf_work *w, size_t at) {
  return nm__hf_parts_push(&w->made, (struct nm__hf_part){at, w->next.len - at, -1, false});
}

static int end(struct nm__hf_work *w, int rc) {
  struct nm__hf_parts p = w->parts;
  struct nm__buf b = w->text;
  w->parts = w->made;
  w->made = p;
  w->text = w->next;
  w->next = b;
  return rc ? rc : w->text.failed ? NM_EMEMORY : NM_OK;
}

/* Token by token: fn writes what becomes of token i. */
typedef int token_fn(const struct nm__hf_step *s, struct nm__hf_work *w, size_t i, const char *t,
                     size_t n);

static int each(const struct nm__hf_step *s, struct nm__hf_work *w, token_fn *fn) {
  int rc = NM_OK;
  begin(w);
  for (size_t i = 0; i < w->parts.n && !rc; i++) {
    size_t at = w->next.len;
    rc = fn(s, w, i, w->text.len ? w->text.s + w->parts.v[i].at : "", w->parts.v[i].n);
    if (!rc) rc = put_token(w, at);
  }
  return end(w, rc);
}

/* Every `from` in the text becomes `to`. */
static void put_replaced(struct nm__buf *out, const char *t, size_t n, const char *from,
                         size_t n_from, const char *to, size_t n_to) {
  while (n) {
    const char *hit = n_from ? memmem(t, n, from, n_from) : NULL;
    size_t plain = hit ? (size_t)(hit - t) : n;
    nm__buf_put(out, t, plain);
    if (hit) nm__buf_put(out, to, n_to);
    plain += hit ? n_from : 0;
    t += plain;
    n -= plain;
  }
}

/* ---- bytes ------------------------------------------------------------- */

static bool in_alphabet(const char *t, size_t n) {
  for (size_t i = 0; i < n;) {
    uint32_t c;
    i += (size_t)nm__hf_next(t + i, n - i, &c);
    if (nm__hf_byte_of(c) < 0) return false;
  }
  return true;
}

/* All tokens become one. */
static int run_byte_level(const struct nm__hf_step *s, struct nm__hf_work *w) {
  (void)s;
  begin(w);
  for (size_t k = 0; k < w->parts.n; k++) {
    const char *t = w->text.s + w->parts.v[k].at;
    size_t n = w->parts.v[k].n;
    bool bytes = n && in_alphabet(t, n);
    if (!bytes && n) nm__buf_put(&w->next, t, n);
    for (size_t i = 0; bytes && i < n;) {
      uint32_t c;
      i += (size_t)nm__hf_next(t + i, n - i, &c);
      nm__buf_putc(&w->next, nm__hf_byte_of(c));
    }
  }
  return end(w, put_token(w, 0));
}

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int byte_token(const char *t, size_t n) {
  if (n != 6 || memcmp(t, "<0x", 3) || t[5] != '>') return -1;
  return hex(t[3]) < 0 || hex(t[4]) < 0 ? -1 : 16 * hex(t[3]) + hex(t[4]);
}

/* A run of <0xHH> becomes one token of their bytes. */
static int run_byte_fallback(const struct nm__hf_step *s, struct nm__hf_work *w) {
  int rc = NM_OK;
  bool open = false;
  size_t at = 0;
  (void)s;
  begin(w);
  for (size_t k = 0; k < w->parts.n && !rc; k++) {
    size_t n = w->parts.v[k].n;
    const char *t = n ? w->text.s + w->parts.v[k].at : "";
    int b = byte_token(t, n);
    if (open && b < 0) rc = put_token(w, at);
    if (!open || b < 0) at = w->next.len;
    open = b >= 0;
    if (open) nm__buf_putc(&w->next, b);
    else nm__buf_put(&w->next, t, n);
    if (!open && !rc) rc = put_token(w, at);
  }
  return end(w, open && !rc ? put_token(w, at) : rc);
}

static int run_fuse(const struct nm__hf_step *s, struct nm__hf_work *w) {
  (void)s;
  begin(w);
  for (size_t k = 0; k < w->parts.n; k++)
    if (w->parts.v[k].n) nm__buf_put(&w->next, w->text.s + w->parts.v[k].at, w->parts.v[k].n);
  return end(w, put_token(w, 0));
}

/* ---- words ------------------------------------------------------------- */

static int read_wordpiece(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  struct nm__str prefix = {0};
  int rc = nm__hf_text(r, o, "prefix", true, &prefix);
  if (!rc) rc = nm__hf_keep_text(r, s, prefix);
  return rc ? rc : nm__hf_bool(r, o, "cleanup", true, &s->flag[0]);
}

/* In this order, each on what the one before left. */
static const char *const tidy[][2] = {
  {" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"},
  {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
};

static int wordpiece_token(const struct nm__hf_step *s, struct nm__hf_work *w, size_t i,
                           const char *t, size_t n) {
  struct nm__buf *a = &w->core.text, *b = &w->core.key;
  nm__buf_reset(a);
  bool goes_on = i && n >= s->n && memcmp(t, s->s, s->n) == 0;
  if (i && !goes_on) nm__buf_putc(a, ' ');
  nm__buf_put(a, goes_on ? t + s->n : t, goes_on ? n - s->n : n);
  bool may = s->flag[0] && a->len && memchr(a->s, ' ', a->len);
  for (size_t k = 0; may && k < sizeof tidy / sizeof *tidy; k++) {
    const char *from = tidy[k][0], *to = tidy[k][1];
    nm__buf_reset(b);
    put_replaced(b, a->s, a->len, from, strlen(from), to, strlen(to));
    struct nm__buf *c = a;
    a = b;
    b = c;
  }
  if (a->failed || b->failed) return NM_EMEMORY;
  nm__buf_put(&w->next, a->len ? a->s : "", a->len);
  return NM_OK;
}

static int run_wordpiece(const struct nm__hf_step *s, struct nm__hf_work *w) {
  return each(s, w, wordpiece_token);
}

/* The last token's suffix is nothing, the others' a space. */
static int bpe_token(const struct nm__hf_step *s, struct nm__hf_work *w, size_t i, const char *t,
                     size_t n) {
  put_replaced(&w->next, t, n, s->s, s->n, " ", i + 1 < w->parts.n);
  return NM_OK;
}

static int read_bpe(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  struct nm__str suffix = {0};
  int rc = nm__hf_text(r, o, "suffix", true, &suffix);
  if (!rc && suffix.n == 0) rc = nm__hf_refuse(r, "suffix", "must not be empty");
  return rc ? rc : nm__hf_keep_text(r, s, suffix);
}

static int run_bpe(const struct nm__hf_step *s, struct nm__hf_work *w) {
  return each(s, w, bpe_token);
}

static int metaspace_token(const struct nm__hf_step *s, struct nm__hf_work *w, size_t i,
                           const char *t, size_t n) {
  put_replaced(&w->next, t, n, s->s, s->n, " ", i || !s->flag[1]);
  return NM_OK;
}

static int run_metaspace(const struct nm__hf_step *s, struct nm__hf_work *w) {
  return each(s, w, metaspace_token);
}

/* flag[1]: a prefix was put in front, so it goes. */
static int read_metaspace(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  struct nm__str text = {0}, scheme = {"always", 6};
  bool prefix = true;
  int rc = nm__hf_text(r, o, "replacement", true, &text);
  if (!rc && text.n == 0) rc = nm__hf_refuse(r, "replacement", "must be one character");
  if (!rc) rc = nm__hf_keep_text(r, s, text);
  if (!rc) rc = nm__hf_bool(r, o, "add_prefix_space", false, &prefix);
  if (!rc) rc = nm__hf_text(r, o, "prepend_scheme", false, &scheme);
  s->flag[1] = prefix && !(scheme.n == 5 && memcmp(scheme.s, "never", 5) == 0);
  return rc;
}

/* ---- any text ---------------------------------------------------------- */

static int read_replace(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  struct nm__str text = {0};
  int rc = nm__hf_text(r, o, "content", true, &text);
  if (!rc) rc = nm__hf_keep_text(r, s, text);
  return rc ? rc : nm__hf_read_pattern(r, o, s);
}

/* Patterns are for characters: bytes that are none stay and part the text. */
static int replace_token(const struct nm__hf_step *s, struct nm__hf_work *w, size_t i,
                         const char *t, size_t n) {
  (void)i;
  int rc = NM_OK;
  while (n && !rc) {
    size_t good = nm__utf8_valid(t, n), step = good ? good : 1;
    w->matches.n = 0;
    if (good) rc = nm__hf_regex_find(s->re, w, t, good);
    else nm__buf_put(&w->next, t, 1);
    for (size_t k = 0; k < w->matches.n && !rc; k++) {
      const struct nm__hf_match *m = &w->matches.v[k];
      if (m->match) nm__buf_put(&w->next, s->s, s->n);
      else nm__buf_put(&w->next, t + m->lo, m->hi - m->lo);
    }
    t += step;
    n -= step;
  }
  return rc;
}

static int run_replace(const struct nm__hf_step *s, struct nm__hf_work *w) {
  return each(s, w, replace_token);
}

static int read_strip(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  struct nm__str text = {0};
  uint32_t c;
  int rc = nm__hf_text(r, o, "content", true, &text);
  if (!rc && (text.n == 0 || (size_t)nm__hf_next(text.s, text.n, &c) != text.n))
    rc = nm__hf_refuse(r, "content", "must be one character");
  if (!rc) rc = nm__hf_keep_text(r, s, text);
  if (!rc) rc = nm__hf_count(r, o, "start", true, &s->start);
  return rc ? rc : nm__hf_count(r, o, "stop", true, &s->stop);
}

static int strip_token(const struct nm__hf_step *s, struct nm__hf_work *w, size_t i, const char *t,
                       size_t n) {
  (void)i;
  for (int64_t k = 0; k < s->start && n >= s->n && memcmp(t, s->s, s->n) == 0; k++) {
    t += s->n;
    n -= s->n;
  }
  for (int64_t k = 0; k < s->stop && n >= s->n && memcmp(t + n - s->n, s->s, s->n) == 0; k++)
    n -= s->n;
  nm__buf_put(&w->next, t, n);
  return NM_OK;
}

static int run_strip(const struct nm__hf_step *s, struct nm__hf_work *w) {
  return each(s, w, strip_token);
}

static const struct nm__hf_kind kinds[] = {
  {"BPEDecoder", "suffix", read_bpe, run_bpe},
  {"ByteFallback", "", NULL, run_byte_fallback},
  {"ByteLevel", "add_prefix_space trim_offsets use_regex", NULL, run_byte_level},
  {"Fuse", "", NULL, run_fuse},
  {"Metaspace", "replacement add_prefix_space prepend_scheme split str_rep", read_metaspace,
   run_metaspace},
  {"Replace", "pattern content", read_replace, run_replace},
  {"Strip", "content start stop", read_strip, run_strip},
  {"WordPiece", "prefix cleanup", read_wordpiece, run_wordpiece},
};
const struct nm__hf_table nm__hf_decoders = {kinds, sizeof kinds / sizeof *kinds, "decoders"};
