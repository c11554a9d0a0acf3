/* jinja_lex.c - template text to tokens, with Jinja's whitespace control.
 *
 * trim_blocks: the newline behind a block or comment goes. lstrip_blocks: blanks between the
 * beginning of a line and a block or comment go. A minus at a tag eats all white space on its
 * side, a plus turns the two rules off. One newline at the end of the source goes too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_in.h"
#include "text/unicode.h"

struct lex {
  struct nm__jinja *t;
  const char *s;
  size_t n, at;
  uint32_t line, col;              /* of s[seen] */
  size_t seen;
  struct nm__jtok *v;
  size_t n_tok, cap;
  nm_err *err;
  char closers[256];               /* the brackets that are open inside a tag */
  int n_open;
};

int nm__j_syntax(const struct nm__jinja *t, uint32_t line, uint32_t col, nm_err *err,
                 const char *fmt, ...) {
  char text[400], name[160];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  return nm__fail(err, NM_EFORMAT, "%s, line %u, column %u: %s",
                  nm__printable(name, sizeof name, t->name, strlen(t->name)), line, col, text);
}

/* Brings line and column to byte `at`, which only grows. */
static void see(struct lex *x, size_t at) {
  for (; x->seen < at; x->seen++) {
    if (x->s[x->seen] == '\n') {
      x->line++;
      x->col = 1;
    } else if (((unsigned char)x->s[x->seen] & 0xC0) != 0x80) {
      x->col++;
    }
  }
}

static int bad(struct lex *x, size_t at, const char *what) {
  see(x, at);
  return nm__j_syntax(x->t, x->line, x->col, x->err, "%s", what);
}

static int push(struct lex *x, enum nm__jtype type, int op, size_t at, const char *s, size_t n) {
  if (x->n_tok == x->cap) {
    size_t cap = x->cap ? 2 * x->cap : 256;
    struct nm__jtok *v = nm__realloc(x->v, cap, sizeof *v);
    if (!v) return nm__fail_memory(x->err, "a template's tokens", cap * sizeof *v);
    x->v = v;
    x->cap = cap;
  }
  see(x, at);
  x->v[x->n_tok++] = (struct nm__jtok){type, op, x->line, x->col, s, n};
  return NM_OK;
}

static bool here(const struct lex *x, size_t at, const char *what) {
  size_t n = strlen(what);
  return x->n - at >= n && memcmp(x->s + at, what, n) == 0;
}

/* Bytes of white space at `at`. */
static size_t spaces(const struct lex *x, size_t at) {
  size_t from = at;
  uint32_t cp;
  for (int k; at < x->n && (k = nm__utf8_decode(x->s + at, x->n - at, &cp)) && nm__j_space(cp);)
    at += (size_t)k;
  return at - from;
}

/* s[from, to) without white space at its end. */
static size_t rstrip(const struct lex *x, size_t from, size_t to) {
  while (to > from) {
    size_t last = to - 1;
    uint32_t cp;
    while (last > from && ((unsigned char)x->s[last] & 0xC0) == 0x80) last--;
    if (!nm__utf8_decode(x->s + last, to - last, &cp) || !nm__j_space(cp)) break;
    to = last;
  }
  return to;
}

/* ---- text between tags ----------------------------------------------- */

/* The text before a tag whose sign (or 0) is known; `lstrip`: the tag is no {{ }}. */
static int put_data(struct lex *x, size_t from, size_t to, char sign, bool lstrip) {
  if (sign == '-') {
    to = rstrip(x, from, to);
  } else if (sign != '+' && lstrip) {
    size_t line = to;
    while (line > from && x->s[line - 1] != '\n') line--;
    bool starts = line > from || from == 0 || x->s[from - 1] == '\n';
    if (starts && rstrip(x, line, to) == line) to = line;
  }
  return to > from ? push(x, JT_DATA, 0, from, x->s + from, to - from) : NM_OK;
}

static char sign_at(const struct lex *x, size_t at) {
  return at < x->n && (x->s[at] == '-' || x->s[at] == '+') ? x->s[at] : 0;
}

/* Length of the end `mark` of a tag at `at` with its sign and what it trims, or 0. `plus`:
 * the end may have one (blocks and comments). */
static size_t tag_end(const struct lex *x, size_t at, const char *mark, bool plus, bool trim) {
  if (plus && x->s[at] == '+' && here(x, at + 1, mark)) return 3;
  if (x->s[at] == '-' && here(x, at + 1, mark)) return 3 + spaces(x, at + 3);
  if (!here(x, at, mark)) return 0;
  return 2 + (trim && at + 2 < x->n && x->s[at + 2] == '\n');
}

static int comment(struct lex *x, size_t open) {
  for (size_t at = x->at; at + 1 < x->n; at++) {
    size_t k = tag_end(x, at, "#}", true, true);
    if (!k) continue;
    x->at = at + k;
    return NM_OK;
  }
  return bad(x, open, "this comment {# has no end #}");
}

/* Length of "{% raw %}" at `at` (or "endraw" with what it trims), or 0. */
static size_t raw_tag(const struct lex *x, size_t at, const char *word, char *sign) {
  size_t from = at;
  if (!here(x, at, "{%")) return 0;
  at += 2;
  *sign = sign_at(x, at);
  at += *sign != 0;
  at += spaces(x, at);
  if (!here(x, at, word)) return 0;
  at += strlen(word);
  at += spaces(x, at);
  bool end = word[0] == 'e';
  size_t k = at < x->n ? tag_end(x, at, "%}", end, end) : 0;
  return k ? at + k - from : 0;
}

static int raw(struct lex *x, size_t open) {
  char sign;
  for (size_t at = x->at; at < x->n; at++) {
    size_t k = raw_tag(x, at, "endraw", &sign);
    if (!k) continue;
    size_t from = x->at;
    x->at = at + k;
    return put_data(x, from, at, sign, true);
  }
  return bad(x, open, "this raw block has no {% endraw %}");
}

/* ---- inside of a tag ------------------------------------------------- */

static bool digit(char c) { return c >= '0' && c <= '9'; }
static bool name_char(char c) {
  return c == '_' || digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static size_t digits(const struct lex *x, size_t at) {
  size_t from = at;
  while (at < x->n && (digit(x->s[at]) || (at > from && x->s[at] == '_' && at + 1 < x->n &&
                                           digit(x->s[at + 1]))))
    at++;
  return at - from;
}

static int number(struct lex *x) {
  size_t from = x->at, n = digits(x, from), e;
  bool is_float = false, based = false;
  const char *prefix = "xXoObB";
  if (x->s[from] == '0' && from + 2 < x->n && x->s[from + 1] && strchr(prefix, x->s[from + 1])) {
    n = 2;
    while (from + n < x->n && name_char(x->s[from + n])) n++;
    based = true;
  }
  size_t more = !based && from + n < x->n && x->s[from + n] == '.' ? digits(x, from + n + 1) : 0;
  if (more) n += 1 + more, is_float = true;
  if (!based && from + n < x->n && (x->s[from + n] | 32) == 'e') {
    e = from + n + 1;
    e += e < x->n && (x->s[e] == '+' || x->s[e] == '-');
    more = digits(x, e);
    if (more) n = e + more - from, is_float = true;
  }
  x->at += n;
  return push(x, is_float ? JT_FLOAT : JT_INT, 0, from, x->s + from, n);
}

static int string(struct lex *x) {
  size_t from = x->at, at = from + 1;
  while (at < x->n && x->s[at] != x->s[from]) at += x->s[at] == '\\' ? 2 : 1;
  if (at >= x->n) return bad(x, from, "this string has no end");
  x->at = at + 1;
  return push(x, JT_STR, 0, from, x->s + from + 1, at - from - 1);
}

static int operator(struct lex *x) {
  static const struct { const char *s; int op; } two[] = {
      {"==", JO_EQ}, {"!=", JO_NE}, {"<=", JO_LE}, {">=", JO_GE}, {"**", JO_POW},
      {"//", JO_FLOORDIV}};
  size_t from = x->at;
  for (size_t i = 0; i < sizeof two / sizeof *two; i++) {
    if (!here(x, from, two[i].s)) continue;
    x->at += 2;
    return push(x, JT_OP, two[i].op, from, x->s + from, 2);
  }
  char c = x->s[from], what[80];
  if (!c || !strchr("+-/*%~[](){}><=.:|,;", c)) {
    uint32_t cp = 0;
    nm__utf8_decode(x->s + from, x->n - from, &cp);
    if (cp > 0x20 && cp < 0x7f) snprintf(what, sizeof what, "'%c' means nothing here", c);
    else snprintf(what, sizeof what, "the character U+%04X means nothing here", cp);
    return bad(x, from, what);
  }
  if (strchr("([{", c)) {
    if (x->n_open == sizeof x->closers) return bad(x, from, "brackets are nested too deeply");
    x->closers[x->n_open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
  } else if (strchr(")]}", c)) {
    if (!x->n_open || x->closers[x->n_open - 1] != c) {
      if (!x->n_open) snprintf(what, sizeof what, "'%c' closes nothing", c);
      else
        snprintf(what, sizeof what, "'%c' where '%c' was expected", c, x->closers[x->n_open - 1]);
      return bad(x, from, what);
    }
    x->n_open--;
  }
  x->at++;
  return push(x, JT_OP, (unsigned char)c, from, x->s + from, 1);
}

static int tag(struct lex *x, bool block, size_t open) {
  const char *mark = block ? "%}" : "}}";
  int rc = push(x, block ? JT_BLOCK : JT_VAR, 0, open, x->s + open, 2);
  uint32_t line = x->line, col = x->col;
  x->n_open = 0;
  while (!rc) {
    if (x->at >= x->n)
      return nm__j_syntax(x->t, line, col, x->err, "this tag %s has no end %s",
                          block ? "{%" : "{{", mark);
    size_t k = x->n_open ? 0 : tag_end(x, x->at, mark, block, block);
    if (k) {
      rc = push(x, block ? JT_BLOCK_END : JT_VAR_END, 0, x->at, x->s + x->at, 2);
      x->at += k;
      return rc;
    }
    char c = x->s[x->at];
    if ((k = spaces(x, x->at)) > 0) {
      x->at += k;
    } else if (digit(c)) {
      rc = number(x);
    } else if (name_char(c)) {
      size_t from = x->at;
      while (x->at < x->n && name_char(x->s[x->at])) x->at++;
      rc = push(x, JT_NAME, 0, from, x->s + from, x->at - from);
    } else {
      rc = c == '"' || c == '\'' ? string(x) : operator(x);
    }
  }
  return rc;
}

static int root(struct lex *x) {
  size_t from = x->at, at = from;
  while (at + 1 < x->n && !(x->s[at] == '{' && strchr("{%#", x->s[at + 1]) && x->s[at + 1])) at++;
  if (at + 1 >= x->n) {
    x->at = x->n;
    return push(x, JT_DATA, 0, from, x->s + from, x->n - from);
  }
  char kind = x->s[at + 1], sign;
  size_t k = kind == '%' ? raw_tag(x, at, "raw", &sign) : 0;
  if (!k) sign = sign_at(x, at + 2);
  int rc = put_data(x, from, at, sign, kind != '{');
  x->at = at + (k ? k : 2u + (sign != 0));
  if (rc) return rc;
  if (k) return raw(x, at);
  return kind == '#' ? comment(x, at) : tag(x, kind == '%', at);
}

/* ---- the source ------------------------------------------------------ */

/* Newlines of all systems become \n, and one at the end goes. */
static char *normalise(struct nm__jinja *t, const char *src, size_t *n) {
  char *s = nm__jmem_take(&t->mem, *n + 1);
  size_t k = 0;
  for (size_t i = 0; s && i < *n; i++) {
    if (src[i] == '\r' && i + 1 < *n && src[i + 1] == '\n') continue;
    s[k++] = src[i] == '\r' ? '\n' : src[i];
  }
  if (k && s[k - 1] == '\n') k--;
  *n = k;
  return s;
}

int nm__j_lex(struct nm__jinja *t, const char *src, size_t n, struct nm__jtok **out, nm_err *err) {
  struct lex x = {.t = t, .line = 1, .col = 1, .err = err};
  char *s = normalise(t, src, &n);
  if (!s) return nm__fail_memory(err, "a template", n);
  x.s = s;
  x.n = n;
  size_t valid = nm__utf8_valid(s, n);
  int rc = valid < n ? bad(&x, valid, "the template is not UTF-8 here") : NM_OK;
  while (!rc && x.at < x.n) rc = root(&x);
  if (!rc) rc = push(&x, JT_END, 0, x.n, "", 0);
  if (rc) free(x.v);
  *out = rc ? NULL : x.v;
  return rc;
}
