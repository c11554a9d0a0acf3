/* hf_regex.c - patterns of a tokenizer.json: Oniguruma's Ruby syntax carried out by PCRE2.
 *
 * The two agree on most of what tokenizers use. Where they do not, the pattern is
 * rewritten: classes of characters (\s \w \b \h), line anchors, what a `+` behind {n,m}
 * means, \u. What would mean something else and is not rewritten (intersections of
 * classes, the `absent` operator, an option in the middle of alternatives) is refused. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "text/hf.h"

enum { MAX_PATTERN = 1 << 16, MAX_GROUPS = 100 };

#define WS "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}" \
           "\\x{205F}\\x{3000}"
#define NOT_WS "\\x{0}-\\x{8}\\x{E}-\\x{1F}!-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}" \
               "\\x{1681}-\\x{1FFF}\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}" \
               "\\x{2060}-\\x{2FFF}\\x{3001}-\\x{D7FF}\\x{E000}-\\x{10FFFF}"
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define HEX "0-9A-Fa-f"

/* ---- rewriting --------------------------------------------------------- */

struct rewriting {
  const char *s, *end;
  struct nm__buf *out;
  size_t atom;                     /* where the last thing that can be repeated begins */
  size_t group[MAX_GROUPS];        /* where each open group begins */
  int depth;
  const char *why;                 /* what is refused, or NULL */
};

static bool more(const struct rewriting *w) { return w->s < w->end && !w->why; }
static int peek(const struct rewriting *w, size_t i) {
  return (size_t)(w->end - w->s) > i ? (unsigned char)w->s[i] : -1;
}
static void copy(struct rewriting *w, size_t n) {
  if ((size_t)(w->end - w->s) < n) n = (size_t)(w->end - w->s);
  nm__buf_put(w->out, w->s, n);
  w->s += n;
}
static void put(struct rewriting *w, const char *s, size_t skip) {
  nm__buf_puts(w->out, s);
  w->s += skip;
}

/* Letters behind a backslash: what stands for them outside of a class and inside of one;
 * NULL: cannot be said there. */
static const struct letter { char c; const char *outside, *inside; } letters[] = {
  {'s', "[" WS "]", WS}, {'S', "[^" WS "]", NOT_WS},
  {'w', "[" WORD "]", WORD}, {'W', "[^" WORD "]", NULL},
  {'h', "[" HEX "]", HEX}, {'H', "[^" HEX "]", NULL},
  {'v', "\\x0B", "\\x0B"},
  {'b', "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))", "\\x08"},
  {'B', "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))", NULL},
};

static bool is_hex(int c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* \u0041 and \x41; \xHH from 80 on would be a byte, not a character. */
static void hex_escape(struct rewriting *w, size_t digits) {
  for (size_t i = 2; i < 2 + digits; i++)
    if (!is_hex(peek(w, i))) {
      w->why = "has an escape without its hexadecimal digits";
      return;
    }
  if (digits == 2 && peek(w, 2) >= '8') {
    w->why = "names a byte that is no character";
    return;
  }
  nm__buf_puts(w->out, "\\x{");
  nm__buf_put(w->out, w->s + 2, digits);
  put(w, "}", 2 + digits);
}

/* \p{..}, \x{..}, \k<..>, \g<..>: up to the closing character. */
static void braced(struct rewriting *w, char close) {
  const char *e = memchr(w->s, close, (size_t)(w->end - w->s));
  if (!e || e - w->s > 80) w->why = "has an escape without its end";
  else copy(w, (size_t)(e - w->s) + 1);
}

/* \p{NAME} that PCRE2 has under another name, or not at all. */
static const struct property { const char *name, *members; } names[] = {
  {"Letter", "\\p{L}"}, {"Lowercase_Letter", "\\p{Ll}"}, {"Uppercase_Letter", "\\p{Lu}"},
  {"Mark", "\\p{M}"}, {"Number", "\\p{N}"}, {"Decimal_Number", "\\p{Nd}"}, {"Digit", "\\p{Nd}"},
  {"Punctuation", "\\p{P}"}, {"Symbol", "\\p{S}"}, {"Separator", "\\p{Z}"}, {"Space", WS},
  {"Word", WORD}, {"Punct", "\\p{P}$+<=>\\^`|~"},
};

static void property(struct rewriting *w, bool in_class) {
  bool negated = peek(w, 1) == 'P';
  const char *s = w->s + 3;
  if (s < w->end && *s == '^') negated = !negated, s++;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    size_t n = strlen(names[i].name);
    if ((size_t)(w->end - s) <= n || memcmp(s, names[i].name, n) || s[n] != '}') continue;
    if (in_class && negated) w->why = "has a negated escape inside of [ ]";
    if (!in_class) nm__buf_puts(w->out, negated ? "[^" : "[");
    nm__buf_puts(w->out, names[i].members);
    if (!in_class) nm__buf_putc(w->out, ']');
    w->s = s + n + 1;
    return;
  }
  braced(w, '}');
}

static void letter_escape(struct rewriting *w, int c, bool in_class) {
  for (size_t i = 0; i < sizeof letters / sizeof *letters; i++) {
    if (letters[i].c != c) continue;
    const char *text = in_class ? letters[i].inside : letters[i].outside;
    if (text) put(w, text, 2);
    else w->why = "has a negated escape inside of [ ]";
    return;
  }
  if ((c == 'p' || c == 'P') && peek(w, 2) == '{') property(w, in_class);
  else if (c == 'x' && peek(w, 2) == '{') braced(w, '}');
  else if (c == 'x') hex_escape(w, 2);
  else if (c == 'u') hex_escape(w, 4);
  else if (strchr("tnrfaedD", c)) copy(w, 2);
  else if (!in_class && strchr("AzZGRXK", c)) copy(w, 2);
  else if (!in_class && (c == 'k' || c == 'g') && peek(w, 2) == '<') braced(w, '>');
  else w->why = "has an escape that noema does not know";
}

static void escape(struct rewriting *w, bool in_class) {
  int c = peek(w, 1);
  if (c < 0) w->why = "ends in a backslash";
  else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) letter_escape(w, c, in_class);
  else if (in_class && c >= '0' && c <= '9') w->why = "has a number escape inside of [ ]";
  else copy(w, 2);
}

/* A class within a class is its members, unless it is negated. */
static void class(struct rewriting *w) {
  int depth = 0, first = 1;
  do {
    int c = peek(w, 0);
    if (c == '[' && peek(w, 1) == ':') {
      braced(w, ']');
    } else if (c == '[') {
      if (depth && peek(w, 1) == '^') w->why = "has a negated class within a class";
      if (depth++) w->s++;
      else copy(w, peek(w, 1) == '^' ? 2 : 1);
      first = 2;
    } else if (c == ']' && !first) {
      if (--depth) w->s++;
      else copy(w, 1);
    } else if (c == ']') {
      put(w, "\\]", 1);
    } else if (c == '&' && peek(w, 1) == '&') {
      w->why = "has an intersection of classes (&&)";
    } else if (c == '\\') {
      escape(w, true);
    } else {
      copy(w, 1);
    }
    first -= first > 0;
  } while (depth && more(w));
  if (depth && !w->why) w->why = "has a class without its ]";
}

/* The options of (?imx-imx) or (?imx:..). Ruby's m is what others call s. */
static void options(struct rewriting *w, size_t start) {
  bool front = start == 0 || (w->depth > 1 && w->group[w->depth - 2] + 4 >= start);
  put(w, "(?", 2);
  for (; more(w) && peek(w, 0) != ':' && peek(w, 0) != ')';) {
    int c = peek(w, 0);
    if (c == 'm') put(w, "s", 1);
    else if (c == 'i' || c == 'x' || c == '-') copy(w, 1);
    else w->why = "has a group that noema does not know";
  }
  if (peek(w, 0) == ')' && !front && !w->why) w->why = "changes options in the middle";
  if (peek(w, 0) == ')') copy(w, 1), w->depth--;
  else copy(w, 1);
}

static void open_group(struct rewriting *w) {
  size_t start = w->out->len;
  if (w->depth == MAX_GROUPS) {
    w->why = "nests groups too deeply";
    return;
  }
  int a = peek(w, 1), b = peek(w, 2), c = peek(w, 3);
  w->group[w->depth++] = start;
  if (a != '?') copy(w, 1);
  else if (b == ':' || b == '=' || b == '!' || b == '>') copy(w, 3);
  else if (b == '<' && (c == '=' || c == '!')) copy(w, 4);
  else if (b == '<') copy(w, 1), braced(w, '>');
  else if (b == '#') w->depth--, w->s = memchr(w->s, ')', (size_t)(w->end - w->s));
  else options(w, start);
  if (!w->s) w->s = w->end, w->why = "has a comment without its end";
  else if (b == '#' && a == '?') w->s++;
}

/* {n,m} and what stands behind it: in Ruby {n,m}+ repeats the repetition, and so does
 * {n}?; in PCRE2 they would be possessive and lazy. {,m} counts from 0. */
static bool interval(struct rewriting *w) {
  const char *p = w->s + 1;
  bool comma = false, low = false, high = false;
  for (; p < w->end && ((*p >= '0' && *p <= '9') || (*p == ',' && !comma)); p++) {
    if (*p == ',') comma = true;
    else if (comma) high = true;
    else low = true;
  }
  if (p == w->end || *p != '}' || (!low && !high)) return false;
  int behind = p + 1 < w->end ? (unsigned char)p[1] : -1;
  bool again = behind == '+' || (behind == '?' && !comma);
  size_t n = w->out->len - w->atom;
  if (again) {
    char *copy_of = nm__strndup(w->out->s + w->atom, n);
    if (!copy_of) w->out->failed = true;
    w->out->len = w->atom;
    nm__buf_puts(w->out, "(?:");
    nm__buf_put(w->out, copy_of ? copy_of : "", copy_of ? n : 0);
    free(copy_of);
  }
  nm__buf_puts(w->out, low ? "{" : "{0");
  w->s++;
  copy(w, (size_t)(p + 1 - w->s));
  if (again) nm__buf_puts(w->out, ")");
  return true;
}

static void rewrite(struct rewriting *w) {
  while (more(w)) {
    int c = peek(w, 0);
    size_t here = w->out->len;
    if (c == '{' && interval(w)) continue;
    if (c == '*' || c == '+' || c == '?' || c == '|') {
      copy(w, 1);
      continue;
    }
    if (c == ')') {
      here = w->depth ? w->group[--w->depth] : 0;
      copy(w, 1);
    } else if (c == '(') {
      open_group(w);
    } else if (c == '[') {
      class(w);
    } else if (c == '\\') {
      escape(w, false);
    } else if (c == '{') {
      put(w, "\\{", 1);
    } else {
      size_t n = 1;                /* a whole character, so that it is repeated as one */
      while (n < 4 && (peek(w, n) & 0xC0) == 0x80 && peek(w, n) >= 0) n++;
      copy(w, n);
    }
    w->atom = here;
  }
}

/* ---- compiling --------------------------------------------------------- */

struct nm__hf_regex { pcre2_code *code; };

static int compile(struct nm__hf_regex *re, const char *s, size_t n, uint32_t flags, nm_err *err) {
  pcre2_compile_context *ctx = pcre2_compile_context_create(NULL);
  if (!ctx) return NM_EMEMORY;
  int code = 0;
  PCRE2_SIZE at = 0;
  pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(ctx, MAX_GROUPS + 20);
  re->code = pcre2_compile((PCRE2_SPTR)s, n, flags, &code, &at, ctx);
  pcre2_compile_context_free(ctx);
  if (!re->code) {
    char text[120] = "";
    pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
    return nm__fail(err, NM_EFORMAT, "does not compile: %s (at byte %zu as rewritten)", text,
                    (size_t)at);
  }
  /* Without the compiler of this machine the interpreter does the same, slower. */
  pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE);
  return NM_OK;
}

static int rewrite_and_compile(struct nm__hf_regex *re, const char *s, size_t n, nm_err *err) {
  struct nm__buf out;
  nm__buf_init(&out, 64 * (size_t)MAX_PATTERN);
  nm__buf_puts(&out, "");
  struct rewriting w = {.s = s, .end = s + n, .out = &out};
  rewrite(&w);
  int rc = out.failed ? NM_EMEMORY : NM_OK;
  if (!rc && w.why) rc = nm__fail(err, NM_EFORMAT, "%s (at byte %zu)", w.why,
                                  (size_t)(w.s - s));
  /* In Ruby ^ and $ are the ends of lines, and . is all but a newline. */
  if (!rc) rc = compile(re, out.s, out.len, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE |
                        PCRE2_NEVER_BACKSLASH_C, err);
  nm__buf_done(&out);
  return rc;
}

int nm__hf_regex_new(const char *s, size_t n, bool literal, struct nm__hf_regex **out,
                     nm_err *err) {
  *out = NULL;
  if (n > MAX_PATTERN)
    return nm__fail(err, NM_EFORMAT, "has %zu bytes, at most %d are allowed", n, MAX_PATTERN);
  struct nm__hf_regex *re = nm__alloc(1, sizeof *re);
  if (!re) return NM_EMEMORY;
  int rc = literal && n ? compile(re, s, n, PCRE2_UTF | PCRE2_LITERAL, err)
                        : rewrite_and_compile(re, s, n, err);
  if (rc) nm__hf_regex_free(re);
  else *out = re;
  return rc;
}

void nm__hf_regex_free(struct nm__hf_regex *re) {
  if (!re) return;
  pcre2_code_free(re->code);
  free(re);
}

/* ---- matching ---------------------------------------------------------- */

struct finding {
  const struct nm__hf_regex *re;
  struct nm__hf_work *w;
  pcre2_match_context *ctx;
  pcre2_match_data *md;
};

/* A pattern may try itself to death, so a match begins with few steps and gets more as
 * long as the text's budget lasts: it pays for those that were not enough. */
static int match(struct finding *f, const char *s, size_t n, size_t from) {
  for (uint32_t steps = 1000;; steps *= 8) {
    pcre2_set_match_limit(f->ctx, steps);
    uint32_t flags = PCRE2_NO_UTF_CHECK;
    int rc = pcre2_match(f->re->code, (PCRE2_SPTR)s, n, from, flags, f->md, f->ctx);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
      rc = pcre2_match(f->re->code, (PCRE2_SPTR)s, n, from, flags | PCRE2_NO_JIT, f->md, f->ctx);
    if (rc >= 0) return 1;
    if (rc == PCRE2_ERROR_NOMATCH) return 0;
    if (rc == PCRE2_ERROR_NOMEMORY) return NM_EMEMORY;
    bool tired = rc == PCRE2_ERROR_MATCHLIMIT && f->w->budget >= steps && steps < UINT32_MAX / 8;
    if (!tired)
      return nm__fail(f->w->err, NM_EFAIL, "%s: a pattern of the tokenizer takes too long on this "
                      "text (PCRE2 error %d at byte %zu of %zu)", f->w->t->path, rc, from, n);
    f->w->budget -= steps;
  }
}

/* As Oniguruma's iterator goes: an empty match right behind a match does not count. */
static int find(struct finding *f, const char *s, size_t n) {
  struct nm__hf_matches *m = &f->w->matches;
  size_t at = 0, done = 0, last = SIZE_MAX;
  int rc = NM_OK;
  while (at <= n && (rc = match(f, s, n, at)) == 1) {
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(f->md);
    size_t lo = v[0], hi = v[1];
    if (lo > hi) lo = hi;          /* \K in a lookahead */
    if (lo < done) lo = done;
    if (lo == hi && hi == last) {
      uint32_t cp;
      at += at < n ? (size_t)nm__hf_next(s + at, n - at, &cp) : 1;
      continue;
    }
    if (lo > done && nm__hf_matches_push(m, done, lo, false)) return NM_EMEMORY;
    if (nm__hf_matches_push(m, lo, hi, true)) return NM_EMEMORY;
    at = last = done = hi;
  }
  if (rc < 0) return rc;
  return done < n ? nm__hf_matches_push(m, done, n, false) : NM_OK;
}

int nm__hf_regex_find(const struct nm__hf_regex *re, struct nm__hf_work *w, const char *s,
                      size_t n) {
  w->matches.n = 0;
  if (n == 0) return nm__hf_matches_push(&w->matches, 0, 0, false);
  struct finding f = {re, w, pcre2_match_context_create(NULL), pcre2_match_data_create(1, NULL)};
  int rc = NM_EMEMORY;
  if (f.ctx && f.md) {
    pcre2_set_depth_limit(f.ctx, 100000);
    pcre2_set_heap_limit(f.ctx, 64 * 1024);      /* KiB */
    rc = find(&f, s, n);
  }
  pcre2_match_data_free(f.md);
  pcre2_match_context_free(f.ctx);
  return rc;
}
