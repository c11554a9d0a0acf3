/* jinja_lists.c - filters over lists: choosing, mapping, ordering, joining. */
#include <string.h>

#include "text/jinja_in.h"

#define FILTER(name) \
  static struct nm__jv name(struct nm__j *j, struct nm__jv v, const struct nm__jargs *a)

/* ---- attributes by name ---------------------------------------------- */

/* "author.name" or "tags.0": each part an item; digits are an index. */
static struct nm__jv get_path(struct nm__j *j, struct nm__jv v, struct nm__jv path) {
  if (path.kind == NM__J_INT) return nm__j_item(j, v, path);
  if (path.kind != NM__J_STR) {
    nm__j_fail(j, "an attribute must be a string or an integer, not '%s'", nm__j_type(path));
    return nm__j_none();
  }
  const struct nm__jstr *s = path.u.s;
  for (size_t i = 0; i <= s->n && !j->st;) {
    const char *dot = memchr(s->s + i, '.', s->n - i);
    size_t to = dot ? (size_t)(dot - s->s) : s->n;
    struct nm__jv key = nm__j_cut(j, s, i, to - i);
    int64_t index = 0;
    bool digits = to > i && to - i < 10;
    for (size_t k = i; k < to; k++) {
      digits = digits && s->s[k] >= '0' && s->s[k] <= '9';
      if (digits) index = 10 * index + (s->s[k] - '0');
    }
    v = nm__j_item(j, v, digits ? nm__j_int(index, false) : key);
    i = to + 1;
  }
  return v;
}

static struct nm__jv small(struct nm__j *j, struct nm__jv v) {
  return v.kind == NM__J_STR ? nm__j_case(j, v.u.s, NM__J_LOWER) : v;
}

/* What an item is ordered by: itself or an attribute; small letters unless `exact`. */
static struct nm__jv sort_key(struct nm__j *j, struct nm__jv v, struct nm__jv path, bool exact) {
  if (path.kind > NM__J_NONE) v = get_path(j, v, path);
  return exact ? v : small(j, v);
}

/* ---- choosing and mapping -------------------------------------------- */

static const char *word(struct nm__j *j, struct nm__jv v) {
  if (v.kind == NM__J_STR && v.u.s->n < 64)
    return nm__j_name(j, "%.*s", (int)v.u.s->n, v.u.s->s);
  nm__j_fail(j, "the name of a filter or test must be a string");
  return "";
}

/* select, reject, selectattr, rejectattr: `by` 1 when the first argument is an attribute. */
static struct nm__jv choose(struct nm__j *j, struct nm__jv v, const struct nm__jargs *a, size_t by,
                            bool keep) {
  struct nm__jv out = nm__j_list(j, NM__J_GEN);
  if (!nm__j_true(v)) return out;
  if (by && !a->n) nm__j_fail(j, "selectattr and rejectattr need an attribute's name");
  const struct nm__jlist *l = nm__j_iter(j, v);
  out.user = v.user;
  const char *test = a->n > by && !j->st ? word(j, a->pos[by]) : NULL;
  struct nm__jargs rest = {0};
  if (test) rest = (struct nm__jargs){a->pos + by + 1, a->n - by - 1, a->kw, a->n_kw};
  for (size_t i = 0; l && i < l->n && nm__j_tick(j, 1); i++) {
    struct nm__jv x = by ? get_path(j, l->v[i], a->pos[0]) : l->v[i];
    bool yes = test ? nm__j_test(j, test, x, &rest) : nm__j_true(x);
    if (yes == keep) nm__j_push(j, out, l->v[i]);
  }
  return out;
}
FILTER(select_) { return choose(j, v, a, 0, true); }
FILTER(reject) { return choose(j, v, a, 0, false); }
FILTER(selectattr) { return choose(j, v, a, 1, true); }
FILTER(rejectattr) { return choose(j, v, a, 1, false); }

/* map(attribute=..., default=...) or map('filter', arguments...). */
FILTER(map) {
  struct nm__jv out = nm__j_list(j, NM__J_GEN), arg[2] = {{0}, {0}};
  out.user = v.user;
  if (!nm__j_true(v)) return out;
  bool by_attribute = a->n == 0;
  if (by_attribute && !nm__j_bind(j, "map", a, "attribute,default", 1, arg)) return out;
  const struct nm__jlist *l = nm__j_iter(j, v);
  const char *filter = by_attribute || j->st ? "" : word(j, a->pos[0]);
  struct nm__jargs rest = {0};
  if (!by_attribute) rest = (struct nm__jargs){a->pos + 1, a->n - 1, a->kw, a->n_kw};
  for (size_t i = 0; l && i < l->n && nm__j_tick(j, 1); i++) {
    struct nm__jv x = by_attribute ? get_path(j, l->v[i], arg[0])
                                   : nm__j_filter(j, filter, l->v[i], &rest);
    if (x.kind == NM__J_UNDEF && arg[1].kind) x = arg[1];
    nm__j_push(j, out, x);
  }
  return out;
}

/* ---- ordering -------------------------------------------------------- */

struct item { struct nm__jv key, v; };

/* A stable merge sort; `down` keeps equal items in their order as well. */
static void merge_sort(struct nm__j *j, struct item *v, struct item *spare, size_t n, bool down) {
  for (size_t w = 1; w < n && !j->st; w *= 2) {
    for (size_t lo = 0; lo < n; lo += 2 * w) {
      size_t mid = lo + w < n ? lo + w : n, hi = lo + 2 * w < n ? lo + 2 * w : n;
      size_t a = lo, b = mid, k = lo;
      while (a < mid && b < hi && nm__j_tick(j, 1)) {
        int c = down ? nm__j_compare(j, v[a].key, v[b].key, "<")
                     : nm__j_compare(j, v[b].key, v[a].key, "<");
        spare[k++] = c == -1 ? v[b++] : v[a++];
      }
      while (a < mid) spare[k++] = v[a++];
      while (b < hi) spare[k++] = v[b++];
    }
    memcpy(v, spare, n * sizeof *v);
  }
}

typedef struct nm__jv key_fn(struct nm__j *j, struct nm__jv v, struct nm__jv path, bool exact);

/* sort's key is a list of one value per attribute of "age,name": items that are equal, even
 * undefined ones, are then never asked which is less. */
static struct nm__jv list_key(struct nm__j *j, struct nm__jv v, struct nm__jv path, bool exact) {
  struct nm__jv key = nm__j_list(j, NM__J_LIST);
  if (path.kind != NM__J_STR) {
    nm__j_push(j, key, sort_key(j, v, path, exact));
    return key;
  }
  struct nm__jv comma = nm__j_text(j, ",", 1, false), parts = nm__j_none();
  if (!j->st) parts = nm__j_split(j, path.u.s, comma.u.s, -1, false);
  for (size_t i = 0; !j->st && i < parts.u.l->n; i++)
    nm__j_push(j, key, sort_key(j, v, parts.u.l->v[i], exact));
  return key;
}

static struct nm__jv sorted(struct nm__j *j, const struct nm__jlist *l, struct nm__jv path,
                            bool exact, bool down, key_fn *key) {
  struct nm__jv out = nm__j_list(j, NM__J_LIST);
  size_t n = l ? l->n : 0;
  struct item *v = nm__j_take(j, 2 * n + 1, sizeof *v);
  for (size_t i = 0; v && i < n && !j->st; i++)
    v[i] = (struct item){key(j, l->v[i], path, exact), l->v[i]};
  if (v && n && !j->st) merge_sort(j, v, v + n, n, down);
  for (size_t i = 0; i < n && !j->st; i++) nm__j_push(j, out, v[i].v);
  return out;
}

FILTER(sort) {
  struct nm__jv arg[3];
  if (!nm__j_bind(j, "sort", a, "reverse,case_sensitive,attribute", 0, arg)) return nm__j_none();
  return sorted(j, nm__j_iter(j, v), arg[2], nm__j_true(arg[1]), nm__j_true(arg[0]), list_key);
}

static struct nm__jv pairs(struct nm__j *j, const struct nm__jdict *d, enum nm__jkind kind) {
  struct nm__jv out = nm__j_list(j, kind);
  for (size_t i = 0; i < d->n && !j->st; i++)
    nm__j_push(j, out, nm__j_pair(j, d->v[i].key, d->v[i].value));
  return out;
}

static bool want_dict(struct nm__j *j, const char *what, struct nm__jv v) {
  if (!nm__j_used_undef(j, v) && v.kind != NM__J_DICT)
    nm__j_fail(j, "%s needs a mapping, not '%s'", what, nm__j_type(v));
  return !j->st;
}

FILTER(dictsort) {
  struct nm__jv arg[3];
  int64_t by = 0;
  if (!nm__j_bind(j, "dictsort", a, "case_sensitive,by,reverse", 0, arg) ||
      !want_dict(j, "dictsort", v))
    return nm__j_none();
  if (arg[1].kind) {
    const struct nm__jstr *s = nm__j_str(j, arg[1]).u.s;
    by = s->n == 5 && !memcmp(s->s, "value", 5);
    if (!by && (s->n != 3 || memcmp(s->s, "key", 3)))
      nm__j_fail(j, "You can only sort by either \"key\" or \"value\"");
  }
  struct nm__jv all = pairs(j, v.u.d, NM__J_LIST);
  if (j->st) return all;
  return sorted(j, all.u.l, nm__j_int(by, false), nm__j_true(arg[0]), nm__j_true(arg[2]), sort_key);
}

FILTER(items) {
  if (!nm__j_bind(j, "items", a, "", 0, NULL)) return nm__j_none();
  if (v.kind == NM__J_UNDEF) return nm__j_list(j, NM__J_GEN);
  return want_dict(j, "items", v) ? pairs(j, v.u.d, NM__J_GEN) : nm__j_none();
}

FILTER(unique) {
  struct nm__jv arg[2], keys = nm__j_list(j, NM__J_LIST), out = nm__j_list(j, NM__J_GEN);
  if (!nm__j_bind(j, "unique", a, "case_sensitive,attribute", 0, arg)) return out;
  const struct nm__jlist *l = nm__j_iter(j, v);
  for (size_t i = 0; l && i < l->n && nm__j_tick(j, 1); i++) {
    struct nm__jv key = sort_key(j, l->v[i], arg[1], nm__j_true(arg[0]));
    if (key.kind == NM__J_LIST || key.kind == NM__J_DICT)
      nm__j_fail(j, "unhashable type: '%s'", nm__j_type(key));
    if (j->st || nm__j_contains(j, keys, key)) continue;
    nm__j_push(j, keys, key);
    nm__j_push(j, out, l->v[i]);
  }
  return out;
}

static struct nm__jv extreme(struct nm__j *j, struct nm__jv v, const struct nm__jargs *a,
                             int sign) {
  struct nm__jv arg[2], best = {0}, best_key = {0};
  if (!nm__j_bind(j, sign < 0 ? "min" : "max", a, "case_sensitive,attribute", 0, arg))
    return nm__j_none();
  const struct nm__jlist *l = nm__j_iter(j, v);
  for (size_t i = 0; l && i < l->n && nm__j_tick(j, 1); i++) {
    struct nm__jv key = sort_key(j, l->v[i], arg[1], nm__j_true(arg[0]));
    if (i && nm__j_compare(j, key, best_key, sign < 0 ? "<" : ">") != sign) continue;
    best = l->v[i];
    best_key = key;
  }
  return best.kind ? best : nm__j_undef(j, "No aggregated item, sequence was empty.");
}
FILTER(min) { return extreme(j, v, a, -1); }
FILTER(max) { return extreme(j, v, a, 1); }

FILTER(sum) {
  struct nm__jv arg[2];
  if (!nm__j_bind(j, "sum", a, "attribute,start", 0, arg)) return nm__j_none();
  struct nm__jv total = arg[1].kind ? arg[1] : nm__j_int(0, false);
  if (total.kind == NM__J_STR) nm__j_fail(j, "sum() can't sum strings [use ''.join(seq) instead]");
  const struct nm__jlist *l = nm__j_iter(j, v);
  for (size_t i = 0; l && i < l->n && nm__j_tick(j, 1); i++)
    total = nm__j_math(j, '+', total, arg[0].kind > NM__J_NONE ? get_path(j, l->v[i], arg[0])
                                                               : l->v[i]);
  return total;
}

/* ---- the rest -------------------------------------------------------- */

FILTER(join) {
  struct nm__jv arg[2];
  struct nm__jbuf b = {0};
  if (!nm__j_bind(j, "join", a, "d,attribute", 0, arg)) return nm__j_none();
  const struct nm__jlist *l = nm__j_iter(j, v);
  for (size_t i = 0; l && i < l->n && nm__j_tick(j, 1); i++) {
    if (i && arg[0].kind) nm__j_show(j, &b, arg[0], false);
    nm__j_show(j, &b, arg[1].kind > NM__J_NONE ? get_path(j, l->v[i], arg[1]) : l->v[i], false);
  }
  return nm__jbuf_value(j, &b);
}

FILTER(length) {
  if (!nm__j_bind(j, "length", a, "", 0, NULL)) return nm__j_none();
  return nm__j_int(nm__j_len(j, v), v.user);
}

static struct nm__jv end_of(struct nm__j *j, struct nm__jv v, const struct nm__jargs *a,
                            bool last) {
  if (!nm__j_bind(j, last ? "last" : "first", a, "", 0, NULL)) return nm__j_none();
  if (last && v.kind == NM__J_GEN) nm__j_fail(j, "'generator' object is not reversible");
  const struct nm__jlist *l = nm__j_iter(j, v);
  if (l && l->n) return l->v[last ? l->n - 1 : 0];
  return nm__j_undef(j, "No %s item, sequence was empty.", last ? "last" : "first");
}
FILTER(first) { return end_of(j, v, a, false); }
FILTER(last) { return end_of(j, v, a, true); }

FILTER(list) {
  struct nm__jv out = nm__j_list(j, NM__J_LIST);
  if (!nm__j_bind(j, "list", a, "", 0, NULL)) return out;
  const struct nm__jlist *l = nm__j_iter(j, v);
  out.user = v.user;
  for (size_t i = 0; l && i < l->n && !j->st; i++) nm__j_push(j, out, l->v[i]);
  return out;
}

FILTER(reverse) {
  struct nm__jbuf b = {0};
  if (!nm__j_bind(j, "reverse", a, "", 0, NULL)) return nm__j_none();
  const struct nm__jlist *l = nm__j_iter(j, v);
  struct nm__jv out = nm__j_list(j, v.kind == NM__J_GEN ? NM__J_LIST : NM__J_GEN);
  for (size_t i = l ? l->n : 0; i > 0 && nm__j_tick(j, 1); i--) {
    if (v.kind == NM__J_STR) nm__jbuf_str(j, &b, l->v[i - 1].u.s);
    else nm__j_push(j, out, l->v[i - 1]);
  }
  return v.kind == NM__J_STR ? nm__jbuf_value(j, &b) : out;
}

FILTER(batch) {
  struct nm__jv arg[2], out = nm__j_list(j, NM__J_GEN), row = nm__j_none();
  int64_t n;
  if (!nm__j_bind(j, "batch", a, "linecount,fill_with", 1, arg) ||
      !nm__j_want_int(j, arg[0], "batch's linecount", &n))
    return out;
  const struct nm__jlist *l = nm__j_iter(j, v);
  if (n < 1) nm__j_fail(j, "batch's linecount must be 1 or more");
  for (size_t i = 0; l && i < l->n && !j->st; i++) {
    if ((int64_t)i % n == 0) {
      row = nm__j_list(j, NM__J_LIST);
      nm__j_push(j, out, row);
    }
    nm__j_push(j, row, l->v[i]);
  }
  while (arg[1].kind > NM__J_NONE && row.kind == NM__J_LIST && (int64_t)row.u.l->n < n && !j->st)
    nm__j_push(j, row, arg[1]);
  return out;
}

const struct nm__jfilter nm__j_list_filters[] = {
    {"select", select_, true},
    {"reject", reject, true},
    {"selectattr", selectattr, true},
    {"rejectattr", rejectattr, true},
    {"map", map, true},
    {"sort", sort, false},
    {"dictsort", dictsort, false},
    {"items", items, true},
    {"unique", unique, true},
    {"min", min, false},
    {"max", max, false},
    {"sum", sum, false},
    {"join", join, false},
    {"length", length, false},
    {"count", length, false},
    {"first", first, false},
    {"last", last, false},
    {"list", list, false},
    {"reverse", reverse, false},
    {"batch", batch, true},
    {0}};
