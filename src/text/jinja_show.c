/* jinja_show.c - values as text: Python's str() and repr(), and JSON as json.dumps writes it.
 * Bytes of strings keep their origin; digits and brackets have that of their value. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/jinja_in.h"
#include "text/unicode.h"

/* ---- numbers --------------------------------------------------------- */

/* The shortest digits that read back as the same number, laid out as Python does. */
static void show_float(double f, char out[64]) {
  char digits[40];
  if (isnan(f) || isinf(f)) {
    snprintf(out, 64, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
    return;
  }
  int p = 1;
  do snprintf(digits, sizeof digits, "%.*e", p - 1, f);
  while (strtod(digits, NULL) != f && p++ < 17);
  char *e = strchr(digits, 'e');
  int exp = (int)strtol(e + 1, NULL, 10);
  if (exp < -4 || exp >= 16) {
    *e = 0;
    snprintf(out, 64, "%se%c%02d", digits, exp < 0 ? '-' : '+', abs(exp));
    return;
  }
  int decimals = p - 1 - exp;
  snprintf(out, 64, "%.*f", decimals > 0 ? decimals : 1, f);
}

/* ---- repr ------------------------------------------------------------ */

static bool printable(uint32_t cp) {
  if (cp == ' ') return true;
  switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CC: case UTF8PROC_CATEGORY_CF: case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO: case UTF8PROC_CATEGORY_CN: case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
  }
}

static void repr_string(struct nm__j *j, struct nm__jbuf *b, const struct nm__jstr *s) {
  bool single = s->n && memchr(s->s, '\'', s->n), both = single && memchr(s->s, '"', s->n);
  char quote = single && !both ? '"' : '\'';
  nm__jbuf_mark(j, b, &quote, 1, false);
  for (size_t i = 0; i < s->n && !j->st;) {
    uint32_t cp = 0;
    int len = nm__utf8_decode(s->s + i, s->n - i, &cp);
    char esc[16] = "";
    if (cp == '\\' || cp == (uint32_t)quote) snprintf(esc, sizeof esc, "\\%c", (char)cp);
    else if (cp == '\n') snprintf(esc, sizeof esc, "\\n");
    else if (cp == '\r') snprintf(esc, sizeof esc, "\\r");
    else if (cp == '\t') snprintf(esc, sizeof esc, "\\t");
    else if (!printable(cp))
      snprintf(esc, sizeof esc, cp < 256 ? "\\x%02x" : cp < 65536 ? "\\u%04x" : "\\U%08x", cp);
    if (*esc) nm__jbuf_mark(j, b, esc, strlen(esc), s->user[i]);
    else nm__jbuf_put(j, b, s->s + i, s->user + i, (size_t)len);
    i += (size_t)len;
  }
  nm__jbuf_mark(j, b, &quote, 1, false);
}

static void show_seq(struct nm__j *j, struct nm__jbuf *b, struct nm__jv v, const char *open,
                     const char *close) {
  const struct nm__jlist *l = v.u.l;
  nm__jbuf_mark(j, b, open, strlen(open), v.user);
  for (size_t i = 0; i < l->n && !j->st; i++) {
    if (i) nm__jbuf_mark(j, b, ", ", 2, v.user);
    nm__j_show(j, b, l->v[i], true);
  }
  if (v.kind == NM__J_TUPLE && l->n == 1) nm__jbuf_mark(j, b, ",", 1, v.user);
  nm__jbuf_mark(j, b, close, strlen(close), v.user);
}

static void show_dict(struct nm__j *j, struct nm__jbuf *b, struct nm__jv v) {
  nm__jbuf_mark(j, b, "{", 1, v.user);
  for (size_t i = 0; i < v.u.d->n && !j->st; i++) {
    if (i) nm__jbuf_mark(j, b, ", ", 2, v.user);
    nm__j_show(j, b, v.u.d->v[i].key, true);
    nm__jbuf_mark(j, b, ": ", 2, v.user);
    nm__j_show(j, b, v.u.d->v[i].value, true);
  }
  nm__jbuf_mark(j, b, "}", 1, v.user);
}

static void show_words(struct nm__j *j, struct nm__jbuf *b, struct nm__jv v, bool repr) {
  char s[160] = "";
  switch (v.kind) {
    case NM__J_ABSENT: case NM__J_NONE: snprintf(s, sizeof s, "None"); break;
    case NM__J_UNDEF: snprintf(s, sizeof s, "%s", repr ? "Undefined" : ""); break;
    case NM__J_BOOL: snprintf(s, sizeof s, "%s", v.u.b ? "True" : "False"); break;
    case NM__J_INT: snprintf(s, sizeof s, "%lld", (long long)v.u.i); break;
    case NM__J_FLOAT: show_float(v.u.f, s); break;
    case NM__J_RANGE:
      snprintf(s, sizeof s, v.u.l->step == 1 ? "range(%lld, %lld)" : "range(%lld, %lld, %lld)",
               (long long)v.u.l->from, (long long)v.u.l->to, (long long)v.u.l->step);
      break;
    case NM__J_GEN:
      nm__j_fail(j, "a generator is printed; put |list or |join behind it");
      break;
    default: nm__j_fail(j, "a value of type '%s' cannot be printed", nm__j_type(v));
  }
  nm__jbuf_mark(j, b, s, strlen(s), v.user);
}

void nm__j_show(struct nm__j *j, struct nm__jbuf *b, struct nm__jv v, bool repr) {
  char open[24];
  if (nm__j_enter(j)) switch (v.kind) {
    case NM__J_STR:
      if (repr) repr_string(j, b, v.u.s);
      else nm__jbuf_str(j, b, v.u.s);
      break;
    case NM__J_LIST: show_seq(j, b, v, "[", "]"); break;
    case NM__J_TUPLE: show_seq(j, b, v, "(", ")"); break;
    case NM__J_VIEW:
      snprintf(open, sizeof open, "%s([", v.u.l->view);
      show_seq(j, b, v, open, "])");
      break;
    case NM__J_DICT: show_dict(j, b, v); break;
    default: show_words(j, b, v, repr);
  }
  j->depth--;
}

struct nm__jv nm__j_str(struct nm__j *j, struct nm__jv v) {
  struct nm__jbuf b = {0};
  if (v.kind == NM__J_STR) return v;
  nm__j_show(j, &b, v, false);
  struct nm__jv s = nm__jbuf_value(j, &b);
  static const uint8_t none[1];
  static struct nm__jstr empty = {"", none, 0, 0};
  return s.kind == NM__J_STR ? s : (struct nm__jv){.kind = NM__J_STR, .u.s = &empty};
}

/* ---- JSON ------------------------------------------------------------ */

struct json {
  struct nm__jbuf *b;
  bool ascii, sort;
  const struct nm__jstr *indent, *comma, *colon;
};

static void json_string_(struct nm__j *j, const struct json *x, const struct nm__jstr *s) {
  static const char plain[] = "\"\"\\\\\bb\ff\nn\rr\tt";
  nm__jbuf_mark(j, x->b, "\"", 1, false);
  for (size_t i = 0; i < s->n && !j->st;) {
    uint32_t cp = 0;
    int len = nm__utf8_decode(s->s + i, s->n - i, &cp);
    char esc[16] = "";
    for (int k = 0; plain[k] && !*esc; k += 2)
      if (cp == (unsigned char)plain[k]) snprintf(esc, sizeof esc, "\\%c", plain[k + 1]);
    if (!*esc && (cp < 0x20 || (x->ascii && cp > 0x7e && cp < 0x10000 && cp != 0x7f)))
      snprintf(esc, sizeof esc, "\\u%04x", cp);
    else if (!*esc && x->ascii && cp >= 0x10000)
      snprintf(esc, sizeof esc, "\\u%04x\\u%04x", 0xD800 + ((cp - 0x10000) >> 10),
               0xDC00 + ((cp - 0x10000) & 0x3FF));
    if (*esc) nm__jbuf_mark(j, x->b, esc, strlen(esc), s->user[i]);
    else nm__jbuf_put(j, x->b, s->s + i, s->user + i, (size_t)len);
    i += (size_t)len;
  }
  nm__jbuf_mark(j, x->b, "\"", 1, false);
}

static void json_value(struct nm__j *j, const struct json *x, struct nm__jv v, int depth);

static void json_break(struct nm__j *j, const struct json *x, int depth) {
  if (!x->indent) return;
  nm__jbuf_mark(j, x->b, "\n", 1, false);
  for (int i = 0; i < depth && !j->st; i++) nm__jbuf_str(j, x->b, x->indent);
}

static void json_list(struct nm__j *j, const struct json *x, struct nm__jv v, int depth) {
  const struct nm__jlist *l = v.u.l;
  nm__jbuf_mark(j, x->b, "[", 1, v.user);
  for (size_t i = 0; i < l->n && !j->st; i++) {
    if (i) nm__jbuf_str(j, x->b, x->comma);
    json_break(j, x, depth + 1);
    json_value(j, x, l->v[i], depth + 1);
  }
  if (l->n) json_break(j, x, depth);
  nm__jbuf_mark(j, x->b, "]", 1, v.user);
}

/* Keys become strings: true, null and numbers as JSON writes them. */
static void json_key(struct nm__j *j, const struct json *x, struct nm__jv k) {
  if (k.kind == NM__J_STR) {
    json_string_(j, x, k.u.s);
  } else if (k.kind >= NM__J_NONE && k.kind <= NM__J_FLOAT) {
    nm__jbuf_mark(j, x->b, "\"", 1, false);
    json_value(j, x, k, 0);
    nm__jbuf_mark(j, x->b, "\"", 1, false);
  } else {
    nm__j_fail(j, "keys must be str, int, float, bool or None, not %s", nm__j_type(k));
  }
}

static const struct nm__jdict *sorted(struct nm__j *j, const struct nm__jdict *d) {
  struct nm__jdict *out = nm__j_take(j, 1, sizeof *out);
  struct nm__jpair *v = nm__j_take(j, d->n + 1, sizeof *v);
  if (!v) return d;
  for (size_t i = 0; i < d->n; i++) {
    size_t k = i;
    for (; k && nm__j_tick(j, 1) && nm__j_compare(j, d->v[i].key, v[k - 1].key, "<") == -1; k--)
      v[k] = v[k - 1];
    v[k] = d->v[i];
  }
  *out = (struct nm__jdict){v, d->n, d->n + 1};
  return out;
}

static void json_dict(struct nm__j *j, const struct json *x, struct nm__jv v, int depth) {
  const struct nm__jdict *d = x->sort ? sorted(j, v.u.d) : v.u.d;
  nm__jbuf_mark(j, x->b, "{", 1, v.user);
  for (size_t i = 0; i < d->n && !j->st; i++) {
    if (i) nm__jbuf_str(j, x->b, x->comma);
    json_break(j, x, depth + 1);
    json_key(j, x, d->v[i].key);
    nm__jbuf_str(j, x->b, x->colon);
    json_value(j, x, d->v[i].value, depth + 1);
  }
  if (d->n) json_break(j, x, depth);
  nm__jbuf_mark(j, x->b, "}", 1, v.user);
}

static void json_value(struct nm__j *j, const struct json *x, struct nm__jv v, int depth) {
  const char *word = NULL;
  if (nm__j_enter(j)) switch (v.kind) {
    case NM__J_NONE: word = "null"; break;
    case NM__J_BOOL: word = v.u.b ? "true" : "false"; break;
    case NM__J_INT: nm__j_show(j, x->b, v, false); break;
    case NM__J_FLOAT:
      if (isfinite(v.u.f)) nm__j_show(j, x->b, v, false);
      else word = isnan(v.u.f) ? "NaN" : v.u.f < 0 ? "-Infinity" : "Infinity";
      break;
    case NM__J_STR: json_string_(j, x, v.u.s); break;
    case NM__J_LIST: case NM__J_TUPLE: json_list(j, x, v, depth); break;
    case NM__J_DICT: json_dict(j, x, v, depth); break;
    default: nm__j_fail(j, "Object of type %s is not JSON serializable", nm__j_type(v));
  }
  if (word) nm__jbuf_mark(j, x->b, word, strlen(word), v.user);
  j->depth--;
}

/* The indent as a string: a number means so many spaces. */
static const struct nm__jstr *indent(struct nm__j *j, struct nm__jv v) {
  if (v.kind == NM__J_STR) return v.u.s;
  int64_t n;
  if (!nm__j_want_int(j, v, "tojson's indent", &n)) return NULL;
  struct nm__jbuf b = {0};
  for (int64_t i = 0; i < n && !j->st; i++) nm__jbuf_mark(j, &b, " ", 1, false);
  struct nm__jv s = nm__jbuf_value(j, &b);
  return j->st ? NULL : s.u.s;
}

/* tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False): what transformers
 * puts in the place of Jinja's own. */
struct nm__jv nm__j_tojson(struct nm__j *j, struct nm__jv v, const struct nm__jargs *a) {
  struct nm__jv arg[4], comma, colon;
  struct nm__jbuf b = {0};
  struct json x = {.b = &b};
  if (!nm__j_bind(j, "tojson", a, "ensure_ascii,indent,separators,sort_keys", 0, arg))
    return nm__j_none();
  x.ascii = nm__j_true(arg[0]);
  x.sort = nm__j_true(arg[3]);
  if (arg[1].kind != NM__J_ABSENT && arg[1].kind != NM__J_NONE) x.indent = indent(j, arg[1]);
  comma = nm__j_text(j, x.indent ? "," : ", ", x.indent ? 1 : 2, false);
  colon = nm__j_text(j, ": ", 2, false);
  if (arg[2].kind != NM__J_ABSENT && arg[2].kind != NM__J_NONE) {
    const struct nm__jlist *l = nm__j_is_seq(arg[2]) ? arg[2].u.l : NULL;
    if (!l || l->n != 2 || l->v[0].kind != NM__J_STR || l->v[1].kind != NM__J_STR) {
      nm__j_fail(j, "tojson's separators must be two strings");
      return nm__j_none();
    }
    comma = l->v[0];
    colon = l->v[1];
  }
  if (j->st) return nm__j_none();
  x.comma = comma.u.s;
  x.colon = colon.u.s;
  json_value(j, &x, v, 0);
  return nm__jbuf_value(j, &b);
}
