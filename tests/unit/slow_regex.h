/* slow_regex.h - regular expressions a second time: a plain backtracking matcher, for the
 * constructs that published pre-tokenizers are written in, by the categories of utf8proc.
 *
 * Alternatives, groups (?:...) and (?i:...), a following (?!\S), * + ? {m,n}, classes with
 * ranges, \s \S \r \n \t \p{..} \x{..}. The first way that matches wins, as in Perl. A
 * pattern is compiled to a program; a single atom is looked up in the pattern's own text.
 * Exponential for the worst patterns, and only meant for short texts. */
#ifndef SLOW_REGEX_H
#define SLOW_REGEX_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <utf8proc.h>

#include "text/unicode.h"

enum slow_op { SLOW_ATOM, SLOW_NOT_NEXT, SLOW_SPLIT, SLOW_JUMP, SLOW_MATCH };
struct slow_step { enum slow_op op; const char *atom; bool fold; int a, b; };
struct slow_regex { struct slow_step step[256]; int n; };

/* ---- one atom ---------------------------------------------------------- */

static inline bool slow_space(uint32_t c) {
  static const uint32_t v[] = {9, 10, 11, 12, 13, 32, 0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F,
                               0x205F, 0x3000};
  for (size_t i = 0; i < sizeof v / sizeof *v; i++)
    if (v[i] == c) return true;
  return c >= 0x2000 && c <= 0x200A;
}

/* Compares what folding the case makes of two characters, as far as that is one character. */
static inline bool slow_same(uint32_t a, uint32_t b, bool fold) {
  if (a == b || !fold) return a == b;
  int32_t x[16] = {0}, y[16] = {0};
  int k = 0;
  utf8proc_decompose_char((int32_t)a, x, 16, UTF8PROC_CASEFOLD, &k);
  utf8proc_decompose_char((int32_t)b, y, 16, UTF8PROC_CASEFOLD, &k);
  return x[0] == y[0] && x[1] == 0 && y[1] == 0;
}

/* What stands at *p, which moves behind it: a character (true, *c), or a set of which `in`
 * tells whether c belongs to it. */
static inline bool slow_item(const char **p, uint32_t *literal, uint32_t c, bool *in) {
  const char *s = *p;
  if (*s != '\\') {
    *p += nm__utf8_decode(s, strlen(s), literal);
    return true;
  }
  *p += 2;
  switch (s[1]) {
    case 's': *in = slow_space(c); return false;
    case 'S': *in = !slow_space(c); return false;
    case 'r': *literal = '\r'; return true;
    case 'n': *literal = '\n'; return true;
    case 't': *literal = '\t'; return true;
    case 'x':
      *literal = (uint32_t)strtoul(s + 3, NULL, 16);
      *p = strchr(s, '}') + 1;
      return true;
    case 'p': {
      const char *cat = utf8proc_category_string((int32_t)c);
      *p = strchr(s, '}') + 1;
      *in = cat[0] == s[3] && (s[4] == '}' || cat[1] == s[4]);
      return false;
    }
    default: *literal = (unsigned char)s[1]; return true;
  }
}

static inline bool slow_class(const char **p, uint32_t c, bool fold) {
  bool negated = *++*p == '^', found = false;
  *p += negated;
  while (**p != ']') {
    uint32_t lo, hi;
    bool in = false;
    if (slow_item(p, &lo, c, &in)) {
      hi = lo;
      if ((*p)[0] == '-' && (*p)[1] != ']') {
        ++*p;
        slow_item(p, &hi, c, &in);
      }
      in = (c >= lo && c <= hi) || (lo == hi && slow_same(c, lo, fold));
    }
    found = found || in;
  }
  ++*p;
  return found != negated;
}

static inline bool slow_atom(const char **p, uint32_t c, bool fold) {
  uint32_t literal;
  bool in = false;
  if (**p == '[') return slow_class(p, c, fold);
  return slow_item(p, &literal, c, &in) ? slow_same(c, literal, fold) : in;
}

/* ---- compiling --------------------------------------------------------- */

static inline int slow_put(struct slow_regex *r, enum slow_op op, const char *atom, bool fold) {
  r->step[r->n] = (struct slow_step){op, atom, fold, r->n + 1, -1};
  return r->n++;
}

static inline void slow_alternatives(struct slow_regex *r, const char **p, bool fold);

static inline void slow_one(struct slow_regex *r, const char **p, bool fold) {
  if (strncmp(*p, "(?!", 3) == 0) {
    *p += 3;
    slow_put(r, SLOW_NOT_NEXT, *p, fold);
    slow_atom(p, 0, false);
    ++*p;
  } else if (**p == '(') {
    fold = fold || strncmp(*p, "(?i:", 4) == 0;
    *p = strchr(*p, ':') + 1;
    slow_alternatives(r, p, fold);
    ++*p;
  } else {
    slow_put(r, SLOW_ATOM, *p, fold);
    slow_atom(p, 0, false);
  }
}

/* {least, most} of the quantifier at *p; most 0: no limit. */
static inline void slow_times(const char **p, int *least, int *most) {
  *least = *most = 1;
  if (**p == '{') {
    char *end;
    *least = (int)strtol(*p + 1, &end, 10);
    *most = (int)strtol(end + 1, &end, 10);
    *p = end + 1;
  } else if (**p && strchr("*+?", **p)) {
    *least = **p == '+';
    *most = **p == '?';
    ++*p;
  }
}

/* Each repetition is compiled anew from the text of what is repeated. */
static inline void slow_repeated(struct slow_regex *r, const char **p, bool fold) {
  const char *start = *p, *again;
  int n = r->n, least, most, split[8], n_splits = 0;
  slow_one(r, p, fold);
  r->n = n;
  slow_times(p, &least, &most);
  for (int i = 0; i < least; i++) again = start, slow_one(r, &again, fold);
  for (int i = least; i < most; i++) {
    split[n_splits++] = slow_put(r, SLOW_SPLIT, NULL, false);
    again = start;
    slow_one(r, &again, fold);
  }
  if (most == 0) {
    int loop = split[n_splits++] = slow_put(r, SLOW_SPLIT, NULL, false);
    again = start;
    slow_one(r, &again, fold);
    r->step[slow_put(r, SLOW_JUMP, NULL, false)].a = loop;
  }
  while (n_splits) r->step[split[--n_splits]].b = r->n;
}

static inline void slow_alternatives(struct slow_regex *r, const char **p, bool fold) {
  int jump[16], n_jumps = 0;
  for (;;) {
    int split = slow_put(r, SLOW_SPLIT, NULL, false);
    while (**p && **p != '|' && **p != ')') slow_repeated(r, p, fold);
    bool last = **p != '|';
    if (last) {
      r->step[split] = (struct slow_step){SLOW_JUMP, NULL, false, split + 1, -1};
      break;
    }
    jump[n_jumps++] = slow_put(r, SLOW_JUMP, NULL, false);
    r->step[split].b = r->n;
    ++*p;
  }
  while (n_jumps) r->step[jump[--n_jumps]].a = r->n;
}

static inline void slow_compile(struct slow_regex *r, const char *pattern) {
  r->n = 0;
  slow_alternatives(r, &pattern, false);
  slow_put(r, SLOW_MATCH, NULL, false);
}

/* ---- matching ---------------------------------------------------------- */

/* Where a match from step pc at position i ends, or -1. c: the n characters of the text. */
static inline int slow_from(const struct slow_regex *r, int pc, const uint32_t *c, int n, int i) {
  for (;;) {
    const struct slow_step *s = &r->step[pc];
    const char *atom = s->atom;
    if (s->op == SLOW_MATCH) return i;
    if (s->op == SLOW_SPLIT) {
      int end = slow_from(r, s->a, c, n, i);
      if (end >= 0) return end;
      pc = s->b;
      continue;
    }
    if (s->op == SLOW_NOT_NEXT && i < n && slow_atom(&atom, c[i], s->fold)) return -1;
    if (s->op == SLOW_ATOM && (i == n || !slow_atom(&atom, c[i], s->fold))) return -1;
    i += s->op == SLOW_ATOM;
    pc = s->a;
  }
}

/* Marks where pieces end, pattern by pattern: cut[k] when one ends before character k. */
static inline void slow_split(const char *const *pattern, const uint32_t *c, int n, bool *cut) {
  struct slow_regex r;
  memset(cut, 0, ((size_t)n + 1) * sizeof *cut);
  cut[0] = cut[n] = true;
  for (; *pattern; pattern++) {
    slow_compile(&r, *pattern);
    for (int from = 0, to; from < n; from = to) {
      for (to = from + 1; !cut[to]; to++) {}
      for (int i = from; i < to; ) {
        int end = slow_from(&r, 0, c + from, to - from, i - from);
        if (end >= 0) cut[i] = cut[from + end] = true;
        i = end >= 0 ? from + end : i + 1;
      }
    }
  }
}

#endif
