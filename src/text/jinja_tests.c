/* jinja_tests.c - what may stand behind `is`, and the global functions. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "text/jinja_in.h"
#include "text/unicode.h"

#define TEST(name) static bool name(struct nm__j *j, struct nm__jv v, const struct nm__jv *arg)

/* ---- tests ----------------------------------------------------------- */

TEST(defined) { (void)j; (void)arg; return v.kind != NM__J_UNDEF; }
TEST(undefined) { (void)j; (void)arg; return v.kind == NM__J_UNDEF; }
TEST(none) { (void)j; (void)arg; return v.kind == NM__J_NONE; }
TEST(string) { (void)j; (void)arg; return v.kind == NM__J_STR; }
TEST(integer) { (void)j; (void)arg; return v.kind == NM__J_INT; }
TEST(real) { (void)j; (void)arg; return v.kind == NM__J_FLOAT; }
TEST(boolean) { (void)j; (void)arg; return v.kind == NM__J_BOOL; }
TEST(is_true) { (void)j; (void)arg; return v.kind == NM__J_BOOL && v.u.b; }
TEST(is_false) { (void)j; (void)arg; return v.kind == NM__J_BOOL && !v.u.b; }
TEST(mapping) { (void)j; (void)arg; return v.kind == NM__J_DICT; }
TEST(number) { (void)j; (void)arg; return v.kind >= NM__J_BOOL && v.kind <= NM__J_FLOAT; }
TEST(iterable) {
  (void)j;
  (void)arg;
  return nm__j_is_seq(v) || v.kind == NM__J_STR || v.kind == NM__J_DICT || v.kind == NM__J_UNDEF;
}
TEST(sequence) {
  return iterable(j, v, arg) && v.kind != NM__J_GEN && v.kind != NM__J_VIEW;
}
TEST(callable) {
  (void)j;
  (void)arg;
  return v.kind >= NM__J_LOOP || v.kind == NM__J_UNDEF;
}

TEST(equal) { return nm__j_equal(j, v, arg[0]); }
TEST(unequal) { return !nm__j_equal(j, v, arg[0]); }
TEST(less) { return nm__j_compare(j, v, arg[0], "<") == -1; }
TEST(greater) { return nm__j_compare(j, v, arg[0], ">") == 1; }
TEST(at_most) {
  int c = nm__j_compare(j, v, arg[0], "<=");
  return c == -1 || c == 0;
}
TEST(at_least) {
  int c = nm__j_compare(j, v, arg[0], ">=");
  return c == 1 || c == 0;
}
TEST(in) { return nm__j_contains(j, arg[0], v); }
TEST(same) {
  (void)j;
  if (v.kind != arg[0].kind) return false;
  if (v.kind == NM__J_NONE) return true;
  return v.kind == NM__J_BOOL ? v.u.b == arg[0].u.b : v.u.i == arg[0].u.i;
}

static int64_t modulo(struct nm__j *j, struct nm__jv v, struct nm__jv by) {
  struct nm__jv r = nm__j_math(j, '%', v, by);
  return r.kind == NM__J_INT ? r.u.i : r.kind == NM__J_FLOAT && r.u.f == 0 ? 0
         : r.kind == NM__J_FLOAT && r.u.f == 1 ? 1 : -1;
}
TEST(odd) { (void)arg; return modulo(j, v, nm__j_int(2, false)) == 1; }
TEST(even) { (void)arg; return modulo(j, v, nm__j_int(2, false)) == 0; }
TEST(divisible) { return modulo(j, v, arg[0]) == 0; }

/* str.islower(), str.isupper(): some letter, and none of the other case. */
static bool all_case(struct nm__j *j, struct nm__jv v, enum nm__jcase same, enum nm__jcase other) {
  struct nm__jv s = nm__j_str(j, v), a = nm__j_case(j, s.u.s, same);
  struct nm__jv b = nm__j_case(j, s.u.s, other);
  return nm__j_equal(j, s, a) && !nm__j_equal(j, s, b);
}
TEST(lower) { (void)arg; return all_case(j, v, NM__J_LOWER, NM__J_UPPER); }
TEST(upper) { (void)arg; return all_case(j, v, NM__J_UPPER, NM__J_LOWER); }

static bool known_filter(const char *s, size_t n) {
  const struct nm__jfilter *const tables[] = {nm__j_text_filters, nm__j_list_filters};
  for (int t = 0; t < 2; t++)
    for (const struct nm__jfilter *f = tables[t]; f->name; f++)
      if (strlen(f->name) == n && !memcmp(f->name, s, n)) return true;
  return false;
}
TEST(filter) {
  (void)j;
  (void)arg;
  return v.kind == NM__J_STR && known_filter(v.u.s->s, v.u.s->n);
}

const struct nm__jtest nm__j_tests[] = {
    {"defined", 0, defined},       {"undefined", 0, undefined}, {"none", 0, none},
    {"string", 0, string},         {"integer", 0, integer},     {"float", 0, real},
    {"boolean", 0, boolean},       {"true", 0, is_true},        {"false", 0, is_false},
    {"mapping", 0, mapping},       {"number", 0, number},       {"iterable", 0, iterable},
    {"sequence", 0, sequence},     {"callable", 0, callable},   {"odd", 0, odd},
    {"even", 0, even},             {"lower", 0, lower},         {"upper", 0, upper},
    {"filter", 0, filter},         {"divisibleby", 1, divisible}, {"in", 1, in},
    {"sameas", 1, same},           {"eq", 1, equal},            {"equalto", 1, equal},
    {"==", 1, equal},              {"ne", 1, unequal},          {"!=", 1, unequal},
    {"lt", 1, less},               {"lessthan", 1, less},       {"<", 1, less},
    {"gt", 1, greater},            {"greaterthan", 1, greater}, {">", 1, greater},
    {"le", 1, at_most},            {"<=", 1, at_most},          {"ge", 1, at_least},
    {">=", 1, at_least},           {0}};

/* ---- functions ------------------------------------------------------- */

enum { MAX_RANGE = 100000 };       /* the sandbox's own limit */

static struct nm__jv range(struct nm__j *j, const struct nm__jargs *a) {
  int64_t at[3] = {0, 0, 1};
  if (a->n < 1 || a->n > 3 || a->n_kw) nm__j_fail(j, "range() takes one to three numbers");
  for (size_t i = 0; i < a->n && !j->st; i++)
    nm__j_want_int(j, a->pos[i], "range()'s argument", &at[i]);
  if (a->n == 1) {
    at[1] = at[0];
    at[0] = 0;
  }
  if (!j->st && at[2] == 0) nm__j_fail(j, "range() arg 3 must not be zero");
  struct nm__jv out = nm__j_list(j, NM__J_RANGE);
  if (j->st) return out;
  out.u.l->from = at[0];
  out.u.l->to = at[1];
  out.u.l->step = at[2];
  for (int64_t i = at[0]; !j->st && (at[2] > 0 ? i < at[1] : i > at[1]);) {
    if (out.u.l->n == MAX_RANGE) nm__j_fail(j, "range() gives more than %d numbers", MAX_RANGE);
    nm__j_push(j, out, nm__j_int(i, false));
    if (__builtin_add_overflow(i, at[2], &i)) break;
  }
  return out;
}

/* dict(x, a=1), namespace(x, a=1). */
static struct nm__jv made(struct nm__j *j, const struct nm__jargs *a, enum nm__jkind kind) {
  struct nm__jv d = nm__j_dict(j, kind);
  if (a->n > 1) nm__j_fail(j, "dict() takes one dict and arguments with names");
  if (a->n == 1 && a->pos[0].kind == NM__J_DICT) {
    for (size_t i = 0; i < a->pos[0].u.d->n && !j->st; i++)
      nm__j_put(j, d, a->pos[0].u.d->v[i].key, a->pos[0].u.d->v[i].value);
  } else if (a->n == 1) {
    const struct nm__jlist *l = nm__j_iter(j, a->pos[0]);
    for (size_t i = 0; l && i < l->n && !j->st; i++) {
      const struct nm__jlist *pair = nm__j_iter(j, l->v[i]);
      if (!pair || pair->n != 2) nm__j_fail(j, "dict() needs pairs of key and value");
      else nm__j_put(j, d, pair->v[0], pair->v[1]);
    }
  }
  for (size_t i = 0; i < a->n_kw && !j->st; i++) nm__j_put_name(j, d, a->kw[i].name, a->kw[i].v);
  return d;
}
static struct nm__jv dict(struct nm__j *j, const struct nm__jargs *a) {
  return made(j, a, NM__J_DICT);
}
static struct nm__jv name_space(struct nm__j *j, const struct nm__jargs *a) {
  return made(j, a, NM__J_NS);
}

/* The template's own words go into the message as they are. */
static struct nm__jv raise_exception(struct nm__j *j, const struct nm__jargs *a) {
  struct nm__jv message;
  char shown[360];
  if (!nm__j_bind(j, "raise_exception()", a, "message", 1, &message)) return nm__j_none();
  struct nm__jv s = nm__j_str(j, message);
  size_t n = s.u.s->n < sizeof shown - 1 ? s.u.s->n : sizeof shown - 1;
  memcpy(shown, s.u.s->s, n);
  for (size_t i = 0; i < n; i++)
    if ((unsigned char)shown[i] < 0x20 || shown[i] == 0x7f) shown[i] = ' ';
  shown[n] = 0;
  shown[nm__utf8_valid(shown, n)] = 0;
  nm__j_fail(j, "the template refuses: %s", shown);
  return nm__j_none();
}

static bool read_date(struct nm__j *j, struct tm *out) {
  char now[32];
  const char *s = j->o->date;
  nm__utc(now);
  *out = (struct tm){.tm_mday = 1};
  int n = sscanf(s ? s : now, "%4d-%2d-%2d%*1[ T]%2d:%2d:%2d", &out->tm_year, &out->tm_mon,
                 &out->tm_mday, &out->tm_hour, &out->tm_min, &out->tm_sec);
  if (n < 3 || out->tm_mon < 1 || out->tm_mon > 12 || out->tm_mday < 1 || out->tm_mday > 31 ||
      out->tm_hour < 0 || out->tm_hour > 23 || out->tm_min < 0 || out->tm_min > 59 ||
      out->tm_sec < 0 || out->tm_sec > 59 || out->tm_year < 1) {
    nm__j_fail(j, "the date '%.40s' is not like 2026-01-31", s ? s : now);
    return false;
  }
  out->tm_year -= 1900;
  out->tm_mon--;
  timegm(out);                     /* fills the day of the week and of the year */
  return true;
}

static struct nm__jv strftime_now(struct nm__j *j, const struct nm__jargs *a) {
  struct nm__jv format;
  struct tm t;
  char form[128], out[512];
  if (!nm__j_bind(j, "strftime_now()", a, "format", 1, &format) || !read_date(j, &t))
    return nm__j_none();
  if (format.kind != NM__J_STR || format.u.s->n >= sizeof form) {
    nm__j_fail(j, "strftime_now() needs a string of less than %zu bytes", sizeof form);
    return nm__j_none();
  }
  memcpy(form, format.u.s->s, format.u.s->n);
  form[format.u.s->n] = 0;
  size_t n = strftime(out, sizeof out, form, &t);
  return nm__j_text(j, out, nm__utf8_valid(out, n), false);
}

const struct nm__jfunc nm__j_funcs[] = {{"range", range},
                                        {"dict", dict},
                                        {"namespace", name_space},
                                        {"raise_exception", raise_exception},
                                        {"strftime_now", strftime_now},
                                        {0}};
