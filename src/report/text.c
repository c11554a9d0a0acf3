/* text.c - UTF-8 from files nobody vouches for, widths, numbers. The neighbours
 * are grid.c (terminal cells), chart.c (pixels) and page.c (HTML). */
#include "report/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "report/report.h"

size_t nm__text_next(const char *s, int32_t *code) {
  if (!*s) return 0;
  utf8proc_int32_t c = 0;
  /* A negative length lets utf8proc stop at the zero byte, which is never a
   * continuation byte. */
  utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s, -1, &c);
  bool bad = n <= 0 || c == 0xFFFE || c == 0xFFFF;
  *code = bad ? NM__REPLACEMENT : c;
  return n <= 0 ? 1 : (size_t)n;
}

void nm__text_put(struct nm__buf *b, int32_t code) {
  utf8proc_uint8_t bytes[4];
  utf8proc_ssize_t n = utf8proc_encode_char(code, bytes);
  if (n > 0) nm__buf_put(b, bytes, (size_t)n);
}

/* Embeddings, overrides and isolates turn the rest of a line around, so that a
 * name could swap the columns of a table. */
static bool reorders(int32_t c) {
  return (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

void nm__text_plain(struct nm__buf *b, const char *s) {
  int32_t c;
  for (size_t n; (n = nm__text_next(s, &c)); s += n) {
    if (c == '\n' || c == '\t' || c == '\r') c = ' ';
    bool control = c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029;
    nm__text_put(b, control || reorders(c) ? NM__REPLACEMENT : c);
  }
}

static int char_cells(int32_t c) {
  if (c < 0x300) return 1;
  return utf8proc_charwidth(c);
}

int nm__text_cells(const char *s) {
  int32_t c;
  int cells = 0;
  for (size_t n; (n = nm__text_next(s, &c)); s += n) cells += char_cells(c);
  return cells;
}

/* Widths in em, after DejaVu Sans, which is wider than the system fonts of the
 * common desktops; so a label set in those is never wider than planned. */
static double char_em(int32_t c) {
  if (c < 0x80) {
    if (strchr("ijl.,:;'|!I()[] /\\", c)) return c == ' ' ? 0.32 : 0.38;
    if (strchr("frt-\"", c)) return 0.44;
    if (strchr("mwMW%@", c)) return 0.98;
    return c >= 'A' && c <= 'Z' ? 0.72 : 0.63;
  }
  int cells = char_cells(c);
  return cells == 0 ? 0 : cells == 2 ? 1.1 : 0.75;
}

double nm__text_width(const char *s, double px) {
  int32_t c;
  double em = 0;
  for (size_t n; (n = nm__text_next(s, &c)); s += n) em += char_em(c);
  return em * px;
}

size_t nm__text_fit(const char *s, double px, double max_w) {
  size_t at = 0, space = 0;
  double w = 0;
  int32_t c;
  for (size_t n; (n = nm__text_next(s + at, &c)); at += n) {
    if (c == ' ') space = at;
    w += char_em(c) * px;
    if (w > max_w && at > 0) return space ? space : at;
  }
  return at;
}

void nm__text_cut(struct nm__buf *b, const char *s, double px, double max_w) {
  if (nm__text_width(s, px) <= max_w) {
    nm__html_escape(b, s);
    return;
  }
  double w = 0.8 * px; /* the ellipsis */
  size_t at = 0;
  int32_t c;
  for (size_t n; (n = nm__text_next(s + at, &c)); at += n) {
    w += char_em(c) * px;
    if (w > max_w) break;
  }
  while (at > 0 && s[at - 1] == ' ') at--;
  char *head = nm__strndup(s, at);
  if (head)
    nm__html_escape(b, head);
  else
    b->failed = true;
  free(head);
  nm__text_put(b, 0x2026);
}

enum nm__cell_kind nm__text_kind(const char *s) {
  static const char *const neutral[] = {"", "-", "–", "—", "nan", "-nan", "NaN", "inf", "-inf",
                                        "n/a", "?"};
  if (!s) return NM__CELL_NEUTRAL;
  for (size_t i = 0; i < sizeof neutral / sizeof *neutral; i++)
    if (!strcmp(s, neutral[i])) return NM__CELL_NEUTRAL;
  int letters = 0, digits = 0;
  int32_t c;
  for (size_t n; (n = nm__text_next(s, &c)); s += n) {
    bool digit = c >= '0' && c <= '9';
    bool sign = c == 0x2212 || c == 0xB1 || c == 0x2013 || c == 0xD7 || c == 0xB5;
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!digit && !sign && !letter && (c > 0x7F || !strchr(" .,_'+-[]()/%:~<>=", c)))
      return NM__CELL_TEXT;
    digits += digit;
    letters += letter;
    /* A unit follows its figure; "v2" and "blk.3" are names. */
    if (letter && !digits) return NM__CELL_TEXT;
  }
  return digits && letters <= 3 ? NM__CELL_NUMBER : NM__CELL_TEXT;
}

bool nm__text_numeric(const char *const *cells, size_t n, size_t stride) {
  bool some = false;
  for (size_t i = 0; i < n; i++) {
    enum nm__cell_kind kind = nm__text_kind(cells[i * stride]);
    if (kind == NM__CELL_TEXT) return false;
    some |= kind == NM__CELL_NUMBER;
  }
  return some;
}

/* printf writes the decimal mark of the locale, perhaps several bytes: whatever
 * is neither digit, sign nor exponent becomes one point. */
static void point(char *s) {
  char *to = s;
  for (bool in_mark = false; *s; s++) {
    bool plain = strchr("0123456789+-e", *s) != NULL;
    if (plain) *to++ = *s;
    else if (!in_mark) *to++ = '.';
    in_mark = !plain;
  }
  *to = 0;
}

const char *nm__text_num(char *out, double v, int decimals) {
  if (!isfinite(v)) {
    snprintf(out, NM__NUM, "%s", isnan(v) ? "nan" : v > 0 ? "inf" : "-inf");
    return out;
  }
  bool long_form = fabs(v) >= 1e9 || decimals > 8;
  if (long_form && v != 0)
    snprintf(out, NM__NUM, "%.4g", v);
  else
    snprintf(out, NM__NUM, "%.*f", long_form ? 0 : decimals, v);
  point(out);
  if (out[0] == '-' && strspn(out + 1, "0.") == strlen(out + 1)) memmove(out, out + 1, strlen(out));
  return out;
}
