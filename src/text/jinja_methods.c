/* jinja_methods.c - methods of strings, dicts, lists and loops. Those that would change their
 * value are refused, as transformers' sandbox does; others that Python has are known by name,
 * so that they are refused and not taken for something undefined. */
#include <string.h>
#include <utf8proc.h>

#include "text/jinja_in.h"
#include "text/unicode.h"

#define METHOD(name) \
  static struct nm__jv name(struct nm__j *j, struct nm__jv self, const struct nm__jargs *a)

/* ---- strings --------------------------------------------------------- */

/* An argument that must be a string; false after an error. */
static bool want_string(struct nm__j *j, struct nm__jv v, const char *what) {
  if (!j->st && v.kind != NM__J_STR)
    nm__j_fail(j, "%s must be str, not '%s'", what, nm__j_type(v));
  return !j->st;
}

static struct nm__jv stripped(struct nm__j *j, struct nm__jv self, const struct nm__jargs *a,
                              int sides) {
  struct nm__jv chars;
  if (!nm__j_bind(j, "strip()", a, "chars", 0, &chars)) return nm__j_none();
  if (chars.kind <= NM__J_NONE) return nm__j_strip(j, self.u.s, NULL, sides);
  if (!want_string(j, chars, "strip()'s characters")) return nm__j_none();
  return nm__j_strip(j, self.u.s, chars.u.s, sides);
}
METHOD(strip) { return stripped(j, self, a, NM__J_LEFT | NM__J_RIGHT); }
METHOD(lstrip) { return stripped(j, self, a, NM__J_LEFT); }
METHOD(rstrip) { return stripped(j, self, a, NM__J_RIGHT); }

static struct nm__jv splitted(struct nm__j *j, struct nm__jv self, const struct nm__jargs *a,
                              bool from_right) {
  struct nm__jv arg[2];
  int64_t max = -1;
  if (!nm__j_bind(j, "split()", a, "sep,maxsplit", 0, arg)) return nm__j_none();
  if (arg[1].kind && !nm__j_want_int(j, arg[1], "split()'s maximum", &max)) return nm__j_none();
  if (arg[0].kind <= NM__J_NONE && arg[0].kind != NM__J_UNDEF)
    return nm__j_split(j, self.u.s, NULL, max, from_right);
  if (!want_string(j, arg[0], "split()'s separator")) return nm__j_none();
  return nm__j_split(j, self.u.s, arg[0].u.s, max, from_right);
}
METHOD(split) { return splitted(j, self, a, false); }
METHOD(rsplit) { return splitted(j, self, a, true); }

METHOD(splitlines) {
  struct nm__jv keep;
  if (!nm__j_bind(j, "splitlines()", a, "keepends", 0, &keep)) return nm__j_none();
  return nm__j_lines(j, self.u.s, nm__j_true(keep));
}

static bool affix(struct nm__j *j, const struct nm__jstr *s, struct nm__jv part, bool at_end) {
  if (part.kind == NM__J_TUPLE) {
    for (size_t i = 0; i < part.u.l->n && !j->st; i++)
      if (part.u.l->v[i].kind != NM__J_TUPLE && affix(j, s, part.u.l->v[i], at_end)) return true;
    return false;
  }
  if (!want_string(j, part, "a prefix or suffix")) return false;
  const struct nm__jstr *p = part.u.s;
  return p->n <= s->n && !memcmp(s->s + (at_end ? s->n - p->n : 0), p->s, p->n);
}
METHOD(startswith) {
  struct nm__jv part;
  if (!nm__j_bind(j, "startswith()", a, "prefix", 1, &part)) return nm__j_none();
  return nm__j_bool(affix(j, self.u.s, part, false));
}
METHOD(endswith) {
  struct nm__jv part;
  if (!nm__j_bind(j, "endswith()", a, "suffix", 1, &part)) return nm__j_none();
  return nm__j_bool(affix(j, self.u.s, part, true));
}

static struct nm__jv without(struct nm__j *j, struct nm__jv self, const struct nm__jargs *a,
                             bool at_end) {
  struct nm__jv part;
  if (!nm__j_bind(j, "removeprefix()", a, "part", 1, &part) || !want_string(j, part, "the part"))
    return nm__j_none();
  if (!affix(j, self.u.s, part, at_end)) return self;
  size_t n = part.u.s->n;
  return nm__j_cut(j, self.u.s, at_end ? 0 : n, self.u.s->n - n);
}
METHOD(removeprefix) { return without(j, self, a, false); }
METHOD(removesuffix) { return without(j, self, a, true); }

static struct nm__jv cased(struct nm__j *j, struct nm__jv self, const struct nm__jargs *a,
                           enum nm__jcase how) {
  if (!nm__j_bind(j, "the method", a, "", 0, NULL)) return nm__j_none();
  return nm__j_case(j, self.u.s, how);
}
METHOD(upper) { return cased(j, self, a, NM__J_UPPER); }
METHOD(lower) { return cased(j, self, a, NM__J_LOWER); }
METHOD(title) { return cased(j, self, a, NM__J_WORDS); }
METHOD(capitalize) { return cased(j, self, a, NM__J_SENTENCE); }

METHOD(replace) {
  struct nm__jv arg[3];
  int64_t max = -1;
  if (!nm__j_bind(j, "replace()", a, "old,new,count", 2, arg) ||
      !want_string(j, arg[0], "replace()'s old") || !want_string(j, arg[1], "replace()'s new"))
    return nm__j_none();
  if (arg[2].kind && !nm__j_want_int(j, arg[2], "replace()'s count", &max)) return nm__j_none();
  return nm__j_replace(j, self.u.s, arg[0].u.s, arg[1].u.s, max);
}

/* In code points; -1 when it is not there. */
static int64_t found_at(struct nm__j *j, struct nm__jv self, const struct nm__jargs *a, bool last) {
  struct nm__jv part;
  if (!nm__j_bind(j, "find()", a, "sub", 1, &part) || !want_string(j, part, "what is looked for") ||
      !nm__j_tick(j, self.u.s->n))
    return -1;
  int64_t at = nm__j_find(self.u.s, part.u.s, 0), next = at;
  if (last && part.u.s->n == 0) return nm__j_points(self.u.s);
  while (last && next >= 0 && nm__j_tick(j, 1)) {
    at = next;
    next = nm__j_find(self.u.s, part.u.s, (size_t)at + 1);
  }
  if (at < 0) return -1;
  struct nm__jv before = nm__j_cut(j, self.u.s, 0, (size_t)at);
  return j->st ? -1 : nm__j_points(before.u.s);
}
METHOD(find) { return nm__j_int(found_at(j, self, a, false), true); }
METHOD(rfind) { return nm__j_int(found_at(j, self, a, true), true); }
METHOD(str_index) {
  int64_t at = found_at(j, self, a, false);
  if (at < 0) nm__j_fail(j, "substring not found");
  return nm__j_int(at, true);
}

METHOD(count) {
  struct nm__jv part;
  if (!nm__j_bind(j, "count()", a, "sub", 1, &part) || !want_string(j, part, "what is counted"))
    return nm__j_none();
  if (part.u.s->n == 0) return nm__j_int(nm__j_points(self.u.s) + 1, true);
  int64_t n = 0, at = 0;
  while ((at = nm__j_find(self.u.s, part.u.s, (size_t)at)) >= 0 && nm__j_tick(j, 1)) {
    at += (int64_t)part.u.s->n;
    n++;
  }
  return nm__j_int(n, true);
}

METHOD(join) {
  struct nm__jv over;
  struct nm__jbuf b = {0};
  if (!nm__j_bind(j, "join()", a, "iterable", 1, &over)) return nm__j_none();
  const struct nm__jlist *l = nm__j_iter(j, over);
  for (size_t i = 0; l && i < l->n && nm__j_tick(j, 1); i++) {
    if (!want_string(j, l->v[i], "an item of join()")) break;
    if (i) nm__jbuf_str(j, &b, self.u.s);
    nm__jbuf_str(j, &b, l->v[i].u.s);
  }
  return nm__jbuf_value(j, &b);
}

/* All code points of one kind, and at least one. */
static struct nm__jv all_are(struct nm__j *j, struct nm__jv self, const struct nm__jargs *a,
                             bool (*is)(uint32_t cp)) {
  const struct nm__jstr *s = self.u.s;
  if (!nm__j_bind(j, "the method", a, "", 0, NULL)) return nm__j_none();
  bool all = s->n > 0;
  for (size_t i = 0; i < s->n && all && nm__j_tick(j, 1);) {
    uint32_t cp = 0;
    i += (size_t)nm__utf8_decode(s->s + i, s->n - i, &cp);
    all = is(cp);
  }
  return nm__j_bool(all);
}
static bool is_letter(uint32_t cp) {
  utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
  return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}
static bool is_decimal(uint32_t cp) {
  return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND;
}
METHOD(is_space) { return all_are(j, self, a, nm__j_space); }
METHOD(is_alpha) { return all_are(j, self, a, is_letter); }
METHOD(is_digits) { return all_are(j, self, a, is_decimal); }

/* ---- dicts ----------------------------------------------------------- */

enum { KEYS, VALUES, ITEMS };
static struct nm__jv view(struct nm__j *j, struct nm__jv self, const struct nm__jargs *a,
                          int what) {
  static const char *const name[] = {"dict_keys", "dict_values", "dict_items"};
  struct nm__jv out = nm__j_list(j, NM__J_VIEW);
  if (!nm__j_bind(j, name[what], a, "", 0, NULL)) return nm__j_none();
  out.u.l->view = name[what];
  out.user = self.user;
  for (size_t i = 0; i < self.u.d->n && !j->st; i++) {
    const struct nm__jpair *p = &self.u.d->v[i];
    nm__j_push(j, out, what == KEYS ? p->key
                       : what == VALUES ? p->value : nm__j_pair(j, p->key, p->value));
  }
  return out;
}
METHOD(keys) { return view(j, self, a, KEYS); }
METHOD(values) { return view(j, self, a, VALUES); }
METHOD(items) { return view(j, self, a, ITEMS); }

METHOD(get) {
  struct nm__jv arg[2];
  if (!nm__j_bind(j, "get()", a, "key,default", 1, arg)) return nm__j_none();
  const struct nm__jv *have = nm__j_get(j, self.u.d, arg[0]);
  return have ? *have : arg[1].kind ? arg[1] : nm__j_none();
}

METHOD(copy) { return nm__j_bind(j, "copy()", a, "", 0, NULL) ? self : nm__j_none(); }

/* ---- lists and loops ------------------------------------------------- */

METHOD(list_index) {
  struct nm__jv x;
  if (!nm__j_bind(j, "index()", a, "value", 1, &x)) return nm__j_none();
  for (size_t i = 0; i < self.u.l->n && nm__j_tick(j, 1); i++)
    if (nm__j_equal(j, self.u.l->v[i], x)) return nm__j_int((int64_t)i, true);
  nm__j_fail(j, "the value is not in the list");
  return nm__j_none();
}

METHOD(list_count) {
  struct nm__jv x;
  int64_t n = 0;
  if (!nm__j_bind(j, "count()", a, "value", 1, &x)) return nm__j_none();
  for (size_t i = 0; i < self.u.l->n && nm__j_tick(j, 1); i++)
    n += nm__j_equal(j, self.u.l->v[i], x);
  return nm__j_int(n, true);
}

METHOD(cycle) {
  if (!a->n) nm__j_fail(j, "no items for cycling given");
  return j->st ? nm__j_none() : a->pos[self.u.loop->i % a->n];
}

METHOD(changed) {
  struct nm__jv now = nm__j_list(j, NM__J_TUPLE), had = self.u.loop->changed;
  for (size_t i = 0; i < a->n && !j->st; i++) nm__j_push(j, now, a->pos[i]);
  bool same = !j->st && had.kind && nm__j_equal(j, had, now);
  self.u.loop->changed = now;
  return nm__j_bool(!same);
}

/* ---- the table ------------------------------------------------------- */

#define S NM__J_STR
#define D NM__J_DICT
#define L NM__J_LIST
#define T NM__J_TUPLE
static const struct nm__jmethod methods[] = {
    {S, "strip", strip}, {S, "lstrip", lstrip}, {S, "rstrip", rstrip}, {S, "split", split},
    {S, "rsplit", rsplit}, {S, "splitlines", splitlines}, {S, "startswith", startswith},
    {S, "endswith", endswith}, {S, "removeprefix", removeprefix},
    {S, "removesuffix", removesuffix}, {S, "upper", upper}, {S, "lower", lower},
    {S, "title", title}, {S, "capitalize", capitalize}, {S, "replace", replace},
    {S, "find", find}, {S, "rfind", rfind}, {S, "index", str_index}, {S, "count", count},
    {S, "join", join}, {S, "isspace", is_space}, {S, "isalpha", is_alpha},
    {S, "isdecimal", is_digits}, {S, "isdigit", NULL}, {S, "isalnum", NULL}, {S, "islower", NULL},
    {S, "isupper", NULL}, {S, "istitle", NULL}, {S, "isnumeric", NULL}, {S, "isascii", NULL},
    {S, "isidentifier", NULL}, {S, "isprintable", NULL}, {S, "format", NULL},
    {S, "format_map", NULL}, {S, "encode", NULL}, {S, "center", NULL}, {S, "ljust", NULL},
    {S, "rjust", NULL}, {S, "zfill", NULL}, {S, "swapcase", NULL}, {S, "casefold", NULL},
    {S, "expandtabs", NULL}, {S, "partition", NULL}, {S, "rpartition", NULL},
    {S, "rindex", NULL}, {S, "maketrans", NULL}, {S, "translate", NULL},
    {D, "keys", keys}, {D, "values", values}, {D, "items", items}, {D, "get", get},
    {D, "copy", copy}, {D, "pop", NULL}, {D, "popitem", NULL}, {D, "update", NULL},
    {D, "clear", NULL}, {D, "setdefault", NULL}, {D, "fromkeys", NULL},
    {L, "index", list_index}, {L, "count", list_count}, {L, "copy", copy}, {L, "append", NULL},
    {L, "extend", NULL}, {L, "insert", NULL}, {L, "pop", NULL}, {L, "remove", NULL},
    {L, "reverse", NULL}, {L, "sort", NULL}, {L, "clear", NULL},
    {T, "index", list_index}, {T, "count", list_count},
    {NM__J_RANGE, "index", list_index}, {NM__J_RANGE, "count", list_count},
    {NM__J_LOOP, "cycle", cycle}, {NM__J_LOOP, "changed", changed}, {0}};

bool nm__j_method(struct nm__j *j, struct nm__jv self, const char *name, struct nm__jv *out) {
  for (const struct nm__jmethod *m = methods; m->name; m++) {
    if (m->kind != self.kind || strcmp(m->name, name)) continue;
    struct nm__jbound *b = nm__j_take(j, 1, sizeof *b);
    if (b) *b = (struct nm__jbound){self, m};
    *out = b ? (struct nm__jv){.kind = NM__J_METHOD, .u.bound = b} : nm__j_none();
    return true;
  }
  return false;
}
