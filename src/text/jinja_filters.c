/* jinja_filters.c - filters that give texts and numbers. Those over lists: jinja_lists.c. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/jinja_in.h"
#include "text/unicode.h"

#define FILTER(name) \
  static struct nm__jv name(struct nm__j *j, struct nm__jv v, const struct nm__jargs *a)

static bool no_arguments(struct nm__j *j, const char *what, const struct nm__jargs *a) {
  return nm__j_bind(j, what, a, "", 0, NULL);
}

static struct nm__jv cased(struct nm__j *j, struct nm__jv v, const struct nm__jargs *a,
                           const char *what, enum nm__jcase how) {
  if (!no_arguments(j, what, a)) return nm__j_none();
  return nm__j_case(j, nm__j_str(j, v).u.s, how);
}
FILTER(upper) { return cased(j, v, a, "upper", NM__J_UPPER); }
FILTER(lower) { return cased(j, v, a, "lower", NM__J_LOWER); }
FILTER(capitalize) { return cased(j, v, a, "capitalize", NM__J_SENTENCE); }
FILTER(title) { return cased(j, v, a, "title", NM__J_STARTS); }

FILTER(string) { return no_arguments(j, "string", a) ? nm__j_str(j, v) : nm__j_none(); }

FILTER(trim) {
  struct nm__jv chars;
  if (!nm__j_bind(j, "trim", a, "chars", 0, &chars)) return nm__j_none();
  if (chars.kind > NM__J_NONE && chars.kind != NM__J_STR) {
    nm__j_fail(j, "trim's characters must be a string");
    return nm__j_none();
  }
  const struct nm__jstr *what = chars.kind == NM__J_STR ? chars.u.s : NULL;
  return nm__j_strip(j, nm__j_str(j, v).u.s, what, NM__J_LEFT | NM__J_RIGHT);
}

FILTER(replace) {
  struct nm__jv arg[3];
  int64_t max = -1;
  if (!nm__j_bind(j, "replace", a, "old,new,count", 2, arg)) return nm__j_none();
  if (arg[2].kind > NM__J_NONE && !nm__j_want_int(j, arg[2], "replace's count", &max))
    return nm__j_none();
  return nm__j_replace(j, nm__j_str(j, v).u.s, nm__j_str(j, arg[0]).u.s, nm__j_str(j, arg[1]).u.s,
                       max);
}

/* Width a number of spaces or a string; the first line and empty ones only when asked for. */
FILTER(indent) {
  struct nm__jv arg[3];
  struct nm__jbuf b = {0}, pad = {0};
  if (!nm__j_bind(j, "indent", a, "width,first,blank", 0, arg)) return nm__j_none();
  if (v.kind != NM__J_STR) {
    nm__j_fail(j, "indent needs a string, not '%s'", nm__j_type(v));
    return nm__j_none();
  }
  int64_t width = 4;
  if (arg[0].kind == NM__J_STR) nm__jbuf_str(j, &pad, arg[0].u.s);
  else if (arg[0].kind && !nm__j_want_int(j, arg[0], "indent's width", &width)) return nm__j_none();
  for (int64_t i = 0; arg[0].kind != NM__J_STR && i < width && !j->st; i++)
    nm__jbuf_mark(j, &pad, " ", 1, false);
  struct nm__jv lines = nm__j_math(j, '+', v, nm__j_text(j, "\n", 1, false));
  if (!j->st) lines = nm__j_lines(j, lines.u.s, false);
  for (size_t i = 0; !j->st && i < lines.u.l->n; i++) {
    const struct nm__jstr *line = lines.u.l->v[i].u.s;
    if (i) nm__jbuf_mark(j, &b, "\n", 1, false);
    if (i ? line->n || nm__j_true(arg[2]) : nm__j_true(arg[1]))
      nm__jbuf_put(j, &b, pad.s, pad.user, pad.n);
    nm__jbuf_str(j, &b, line);
  }
  return nm__jbuf_value(j, &b);
}

FILTER(escape) {
  static const struct { char c; const char *s; } entity[] = {
      {'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'\'', "&#39;"}, {'"', "&#34;"}};
  struct nm__jbuf b = {0};
  if (!no_arguments(j, "escape", a)) return nm__j_none();
  const struct nm__jstr *s = nm__j_str(j, v).u.s;
  for (size_t i = 0; i < s->n && !j->st; i++) {
    const char *as = NULL;
    for (int k = 0; k < 5; k++)
      if (entity[k].c == s->s[i]) as = entity[k].s;
    if (as) nm__jbuf_mark(j, &b, as, strlen(as), s->user[i]);
    else nm__jbuf_put(j, &b, s->s + i, s->user + i, 1);
  }
  return nm__jbuf_value(j, &b);
}

FILTER(default_) {
  struct nm__jv arg[2];
  if (!nm__j_bind(j, "default", a, "default_value,boolean", 0, arg)) return nm__j_none();
  if (v.kind != NM__J_UNDEF && !(nm__j_true(arg[1]) && !nm__j_true(v))) return v;
  return arg[0].kind ? arg[0] : nm__j_text(j, "", 0, false);
}

FILTER(wordcount) {
  int64_t n = 0;
  bool inside = false;
  if (!no_arguments(j, "wordcount", a)) return nm__j_none();
  const struct nm__jstr *s = nm__j_str(j, v).u.s;
  for (size_t i = 0; i < s->n && nm__j_tick(j, 1);) {
    uint32_t cp = 0;
    i += (size_t)nm__utf8_decode(s->s + i, s->n - i, &cp);
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    bool word = cp == '_' || (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) ||
                (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO);
    n += word && !inside;
    inside = word;
  }
  return nm__j_int(n, true);
}

/* ---- numbers --------------------------------------------------------- */

/* A string's number without white space around it and single underscores in it; false when
 * it is too long or has none. */
static bool number_text(struct nm__j *j, const struct nm__jstr *s, char out[400]) {
  struct nm__jv t = nm__j_strip(j, s, NULL, NM__J_LEFT | NM__J_RIGHT);
  size_t k = 0;
  if (j->st || t.u.s->n == 0 || t.u.s->n >= 400) return false;
  for (size_t i = 0; i < t.u.s->n; i++) {
    char c = t.u.s->s[i];
    bool joins = i && i + 1 < t.u.s->n && strchr("0123456789abcdefABCDEF", t.u.s->s[i - 1]) &&
                 strchr("0123456789abcdefABCDEF", t.u.s->s[i + 1]);
    if (c == '_' && joins) continue;
    if (c <= ' ' || c > '~' || c == '_') return false;
    out[k++] = c;
  }
  out[k] = 0;
  return true;
}

static bool read_int(struct nm__j *j, const struct nm__jstr *s, int base, int64_t *out) {
  char t[400], *end;
  if (!number_text(j, s, t)) return false;
  const char *p = t + (*t == '+' || *t == '-');
  bool prefixed = p[0] == '0' && ((base == 16 && (p[1] | 32) == 'x') ||
                                  (base == 8 && (p[1] | 32) == 'o') ||
                                  (base == 2 && (p[1] | 32) == 'b'));
  if (prefixed) p += 2;
  if (*p == '+' || *p == '-' || !*p) return false;
  errno = 0;
  long long v = strtoll(p, &end, base);
  if (*end || (p[0] == '0' && (p[1] | 32) == 'x' && base == 16)) return false;
  if (errno) nm__j_fail(j, "a number grows beyond 64 bits, which is outside of the subset");
  *out = *t == '-' ? -v : v;
  return true;
}

static bool read_float(struct nm__j *j, const struct nm__jstr *s, double *out) {
  char t[400], *end;
  if (!number_text(j, s, t) || strpbrk(t, "xXpP(")) return false;
  *out = strtod(t, &end);
  return *end == 0;
}

static bool to_float(struct nm__j *j, struct nm__jv v, double *out) {
  if (nm__j_used_undef(j, v)) return false;
  if (v.kind == NM__J_STR) return read_float(j, v.u.s, out);
  if (v.kind == NM__J_FLOAT) *out = v.u.f;
  else if (v.kind == NM__J_INT) *out = (double)v.u.i;
  else if (v.kind == NM__J_BOOL) *out = v.u.b;
  else return false;
  return true;
}

FILTER(int_) {
  struct nm__jv arg[2];
  int64_t base = 10, i;
  double f;
  if (!nm__j_bind(j, "int", a, "default,base", 0, arg)) return nm__j_none();
  if (arg[1].kind && !nm__j_want_int(j, arg[1], "int's base", &base)) return nm__j_none();
  if (base != 2 && base != 8 && base != 10 && base != 16)
    nm__j_fail(j, "int's base must be 2, 8, 10 or 16");
  if (v.kind == NM__J_STR && !j->st && read_int(j, v.u.s, (int)base, &i)) return nm__j_int(i, true);
  if (v.kind == NM__J_INT || j->st) return v;
  if (to_float(j, v, &f) && !isnan(f)) {
    if (fabs(f) >= 9.2e18) {
      if (v.kind == NM__J_FLOAT || !isinf(f))
        nm__j_fail(j, "a number grows beyond 64 bits, which is outside of the subset");
    } else {
      return nm__j_int((int64_t)f, v.user || v.kind == NM__J_STR);
    }
  }
  return arg[0].kind ? arg[0] : nm__j_int(0, false);
}

FILTER(float_) {
  struct nm__jv otherwise;
  double f;
  if (!nm__j_bind(j, "float", a, "default", 0, &otherwise)) return nm__j_none();
  if (to_float(j, v, &f)) return nm__j_float(f, v.user || v.kind == NM__J_STR);
  return otherwise.kind ? otherwise : nm__j_float(0, false);
}

FILTER(abs_) {
  if (!no_arguments(j, "abs", a) || nm__j_used_undef(j, v)) return nm__j_none();
  if (v.kind == NM__J_FLOAT) return nm__j_float(fabs(v.u.f), v.user);
  if (v.kind == NM__J_BOOL) return nm__j_int(v.u.b, v.user);
  if (v.kind == NM__J_INT)
    return v.u.i < 0 ? nm__j_math(j, '-', nm__j_int(0, false), v) : v;
  nm__j_fail(j, "bad operand type for abs(): '%s'", nm__j_type(v));
  return nm__j_none();
}

/* Half to even on the decimal digits of the stored number, as Python rounds. */
static double round_to(double f, int64_t digits, char how) {
  if (how == 'm') {
    char s[400];
    snprintf(s, sizeof s, "%.*f", (int)digits, f);
    return strtod(s, NULL);
  }
  double scale = 1;
  for (int64_t i = 0; i < digits; i++) scale *= 10;
  return (how == 'c' ? ceil(f * scale) : floor(f * scale)) / scale;
}

FILTER(round_) {
  struct nm__jv arg[2];
  int64_t digits = 0;
  if (!nm__j_bind(j, "round", a, "precision,method", 0, arg) || nm__j_used_undef(j, v))
    return nm__j_none();
  if (arg[0].kind && !nm__j_want_int(j, arg[0], "round's precision", &digits)) return nm__j_none();
  if (digits < 0 || digits > 15) nm__j_fail(j, "round's precision must be 0 to 15");
  char how = 'm';
  if (arg[1].kind) {
    const struct nm__jstr *s = nm__j_str(j, arg[1]).u.s;
    if (s->n == 4 && !memcmp(s->s, "ceil", 4)) how = 'c';
    else if (s->n == 5 && !memcmp(s->s, "floor", 5)) how = 'f';
    else if (s->n != 6 || memcmp(s->s, "common", 6))
      nm__j_fail(j, "method must be common, ceil or floor");
  }
  if (v.kind == NM__J_INT || v.kind == NM__J_BOOL) {
    int64_t i = v.kind == NM__J_INT ? v.u.i : v.u.b;
    return how == 'm' ? nm__j_int(i, v.user) : nm__j_float((double)i, v.user);
  }
  if (v.kind != NM__J_FLOAT) nm__j_fail(j, "round needs a number, not '%s'", nm__j_type(v));
  if (j->st || !isfinite(v.u.f)) return v;
  return nm__j_float(round_to(v.u.f, digits, how), v.user);
}

FILTER(tojson) { return nm__j_tojson(j, v, a); }

const struct nm__jfilter nm__j_text_filters[] = {
    {"upper", upper, false},
    {"lower", lower, false},
    {"capitalize", capitalize, false},
    {"title", title, false},
    {"string", string, false},
    {"trim", trim, false},
    {"replace", replace, false},
    {"indent", indent, false},
    {"escape", escape, false},
    {"e", escape, false},
    {"safe", string, false},
    {"default", default_, false},
    {"d", default_, false},
    {"int", int_, false},
    {"float", float_, false},
    {"abs", abs_, false},
    {"round", round_, false},
    {"tojson", tojson, false},
    {"wordcount", wordcount, false},
    {0}};
