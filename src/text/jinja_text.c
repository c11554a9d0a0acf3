/* jinja_text.c - what Python's string methods do, with every byte keeping its origin. */
#define _GNU_SOURCE                /* memmem */
#include <string.h>
#include <utf8proc.h>

#include "text/jinja_in.h"
#include "text/unicode.h"

/* str.isspace() of one code point. */
bool nm__j_space(uint32_t cp) {
  return (cp >= 9 && cp <= 13) || (cp >= 0x1C && cp <= 0x20) || cp == 0x85 || cp == 0xA0 ||
         cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
         cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

int64_t nm__j_find(const struct nm__jstr *s, const struct nm__jstr *part, size_t from) {
  if (from > s->n) return -1;
  if (part->n == 0) return (int64_t)from;
  const char *at = memmem(s->s + from, s->n - from, part->s, part->n);
  return at ? at - s->s : -1;
}

/* ---- strip ----------------------------------------------------------- */

static bool wanted(uint32_t cp, const char *at, size_t len, const struct nm__jstr *what) {
  if (!what) return nm__j_space(cp);
  for (size_t i = 0; i + len <= what->n; i++)
    if (!memcmp(what->s + i, at, len)) return true;
  return false;
}

struct nm__jv nm__j_strip(struct nm__j *j, const struct nm__jstr *s, const struct nm__jstr *what,
                          int sides) {
  size_t from = 0, to = s->n, cost = what ? what->n : 1;
  uint32_t cp;
  while ((sides & NM__J_LEFT) && from < to && nm__j_tick(j, cost)) {
    size_t len = (size_t)nm__utf8_decode(s->s + from, to - from, &cp);
    if (!wanted(cp, s->s + from, len, what)) break;
    from += len;
  }
  while ((sides & NM__J_RIGHT) && from < to && nm__j_tick(j, cost)) {
    size_t last = to - 1;
    while (last > from && ((unsigned char)s->s[last] & 0xC0) == 0x80) last--;
    nm__utf8_decode(s->s + last, to - last, &cp);
    if (!wanted(cp, s->s + last, to - last, what)) break;
    to = last;
  }
  return nm__j_cut(j, s, from, to - from);
}

/* ---- split ----------------------------------------------------------- */

static void reverse(struct nm__jv list) {
  struct nm__jlist *l = list.u.l;
  for (size_t i = 0; i < l->n / 2; i++) {
    struct nm__jv v = l->v[i];
    l->v[i] = l->v[l->n - 1 - i];
    l->v[l->n - 1 - i] = v;
  }
}

/* Between runs of white space, none at the ends; the last part keeps what follows. */
static struct nm__jv split_space(struct nm__j *j, const struct nm__jstr *s, int64_t max) {
  struct nm__jv out = nm__j_list(j, NM__J_LIST);
  uint32_t cp;
  for (size_t at = 0; at < s->n && !j->st;) {
    size_t len = (size_t)nm__utf8_decode(s->s + at, s->n - at, &cp), to = at;
    if (nm__j_space(cp)) {
      at += len;
      continue;
    }
    if (max >= 0 && (int64_t)out.u.l->n >= max) {
      struct nm__jv rest = nm__j_cut(j, s, at, s->n - at);
      if (!j->st) nm__j_push(j, out, nm__j_strip(j, rest.u.s, NULL, NM__J_RIGHT));
      break;
    }
    while (to < s->n) {
      len = (size_t)nm__utf8_decode(s->s + to, s->n - to, &cp);
      if (nm__j_space(cp)) break;
      to += len;
    }
    nm__j_tick(j, to - at);
    nm__j_push(j, out, nm__j_cut(j, s, at, to - at));
    at = to;
  }
  return out;
}

static struct nm__jv rsplit(struct nm__j *j, const struct nm__jstr *s, const struct nm__jstr *sep,
                            int64_t max) {
  struct nm__jv out = nm__j_list(j, NM__J_LIST);
  size_t to = s->n;
  for (size_t at = s->n; at >= sep->n && (max < 0 || (int64_t)out.u.l->n < max);) {
    if (!nm__j_tick(j, sep->n)) return out;
    if (memcmp(s->s + at - sep->n, sep->s, sep->n)) {
      at--;
      continue;
    }
    nm__j_push(j, out, nm__j_cut(j, s, at, to - at));
    to = at -= sep->n;
  }
  nm__j_push(j, out, nm__j_cut(j, s, 0, to));
  if (!j->st) reverse(out);
  return out;
}

struct nm__jv nm__j_split(struct nm__j *j, const struct nm__jstr *s, const struct nm__jstr *sep,
                          int64_t max, bool from_right) {
  if (!sep && from_right && max >= 0) {
    nm__j_fail(j, "rsplit at white space with a maximum is outside of the subset");
    return nm__j_none();
  }
  if (!sep) return split_space(j, s, max);
  if (sep->n == 0) nm__j_fail(j, "empty separator");
  if (j->st || !nm__j_tick(j, s->n)) return nm__j_none();
  if (from_right) return rsplit(j, s, sep, max);
  struct nm__jv out = nm__j_list(j, NM__J_LIST);
  size_t at = 0;
  for (int64_t next; !j->st && (max < 0 || (int64_t)out.u.l->n < max); at = (size_t)next + sep->n) {
    next = nm__j_find(s, sep, at);
    if (next < 0) break;
    nm__j_push(j, out, nm__j_cut(j, s, at, (size_t)next - at));
  }
  nm__j_push(j, out, nm__j_cut(j, s, at, s->n - at));
  return out;
}

/* Length of the line break at s[i], or 0: those of str.splitlines(). */
static size_t line_break(const struct nm__jstr *s, size_t i) {
  uint32_t cp = 0;
  int len = nm__utf8_decode(s->s + i, s->n - i, &cp);
  if (cp == '\r') return i + 1 < s->n && s->s[i + 1] == '\n' ? 2 : 1;
  bool is = (cp >= 10 && cp <= 12) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 ||
            cp == 0x2029;
  return is ? (size_t)len : 0;
}

struct nm__jv nm__j_lines(struct nm__j *j, const struct nm__jstr *s, bool keep) {
  struct nm__jv out = nm__j_list(j, NM__J_LIST);
  size_t from = 0;
  for (size_t i = 0; i < s->n && nm__j_tick(j, 1);) {
    size_t k = line_break(s, i);
    if (!k) {
      i++;
      while (i < s->n && ((unsigned char)s->s[i] & 0xC0) == 0x80) i++;
      continue;
    }
    nm__j_push(j, out, nm__j_cut(j, s, from, i - from + (keep ? k : 0)));
    from = i += k;
  }
  if (from < s->n) nm__j_push(j, out, nm__j_cut(j, s, from, s->n - from));
  return out;
}

/* ---- replace --------------------------------------------------------- */

/* An empty `old` stands before each code point and at the end. */
static struct nm__jv spread(struct nm__j *j, const struct nm__jstr *s, const struct nm__jstr *new,
                            int64_t max) {
  struct nm__jbuf b = {0};
  for (size_t i = 0, k; !j->st; i = k) {
    if (max != 0) nm__jbuf_str(j, &b, new);
    if (max > 0) max--;
    if (i == s->n) break;
    for (k = i + 1; k < s->n && ((unsigned char)s->s[k] & 0xC0) == 0x80;) k++;
    nm__jbuf_put(j, &b, s->s + i, s->user + i, k - i);
  }
  return nm__jbuf_value(j, &b);
}

struct nm__jv nm__j_replace(struct nm__j *j, const struct nm__jstr *s, const struct nm__jstr *old,
                            const struct nm__jstr *new, int64_t max) {
  if (old->n == 0) return spread(j, s, new, max);
  struct nm__jbuf b = {0};
  size_t at = 0;
  for (int64_t next; max != 0 && !j->st && (next = nm__j_find(s, old, at)) >= 0; max--) {
    nm__jbuf_put(j, &b, s->s + at, s->user + at, (size_t)next - at);
    nm__jbuf_str(j, &b, new);
    at = (size_t)next + old->n;
  }
  nm__jbuf_put(j, &b, s->s + at, s->user + at, s->n - at);
  return nm__jbuf_value(j, &b);
}

/* ---- case ------------------------------------------------------------ */

/* Letters whose capital is more than one: the common ones of Unicode's SpecialCasing. */
static const struct { uint32_t cp; const char *upper, *title; } special[] = {
    {0xDF, "SS", "Ss"},    {0x149, "\u02BCN", "\u02BCN"}, {0x1F0, "J\u030C", "J\u030C"},
    {0xFB00, "FF", "Ff"},  {0xFB01, "FI", "Fi"},          {0xFB02, "FL", "Fl"},
    {0xFB03, "FFI", "Ffi"}, {0xFB04, "FFL", "Ffl"},       {0xFB05, "ST", "St"},
    {0xFB06, "ST", "St"},  {0x587, "\u0535\u0552", "\u0535\u0582"}};

static bool cased(uint32_t cp) {
  utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
  return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT;
}

/* A capital sigma is small as at the end of a word when letters stand before it only. */
static bool final_sigma(const struct nm__jstr *s, size_t i, bool letter_before) {
  uint32_t cp;
  i += 2;
  return letter_before && !(i < s->n && nm__utf8_decode(s->s + i, s->n - i, &cp) && cased(cp));
}

static void put_case(struct nm__j *j, struct nm__jbuf *b, uint32_t cp, enum nm__jcase how,
                     bool user) {
  char out[4];
  for (size_t i = 0; how != NM__J_LOWER && i < sizeof special / sizeof *special; i++) {
    if (special[i].cp != cp) continue;
    const char *s = how == NM__J_UPPER ? special[i].upper : special[i].title;
    nm__jbuf_mark(j, b, s, strlen(s), user);
    return;
  }
  if (cp == 0x130 && how == NM__J_LOWER) {
    nm__jbuf_mark(j, b, "i\u0307", 3, user);
    return;
  }
  utf8proc_int32_t c = (utf8proc_int32_t)cp;
  c = how == NM__J_UPPER ? utf8proc_toupper(c) : how == NM__J_LOWER ? utf8proc_tolower(c)
                                                                    : utf8proc_totitle(c);
  nm__jbuf_mark(j, b, out, (size_t)nm__utf8_encode((uint32_t)c, out), user);
}

static bool starts_word(uint32_t cp) {
  return nm__j_space(cp) || cp == '-' || cp == '(' || cp == '{' || cp == '[' || cp == '<';
}

struct nm__jv nm__j_case(struct nm__j *j, const struct nm__jstr *s, enum nm__jcase how) {
  struct nm__jbuf b = {0};
  bool first = true, letter = false;               /* letter: a cased one stands before */
  for (size_t i = 0; i < s->n && !j->st;) {
    uint32_t cp = 0;
    int len = nm__utf8_decode(s->s + i, s->n - i, &cp);
    enum nm__jcase one = how;
    if (how == NM__J_SENTENCE) one = first ? NM__J_WORDS : NM__J_LOWER;
    if (how == NM__J_STARTS) one = first ? NM__J_UPPER : NM__J_LOWER;
    if (how == NM__J_WORDS) one = letter ? NM__J_LOWER : NM__J_WORDS;
    if (cp == 0x3A3 && one == NM__J_LOWER && final_sigma(s, i, letter))
      nm__jbuf_mark(j, &b, "\u03C2", 2, s->user[i]);
    else
      put_case(j, &b, cp, one, s->user[i]);
    letter = cased(cp);
    first = how == NM__J_STARTS && starts_word(cp);
    i += (size_t)len;
  }
  return nm__jbuf_value(j, &b);
}
