/* jinja_items.c - reading attributes, items and slices of values. */
#include <string.h>

#include "text/jinja_in.h"

/* Jinja's sentence for what is not there. */
static struct nm__jv missing(struct nm__j *j, struct nm__jv v, const char *name) {
  char shown[80];
  return nm__j_undef(j, "'%s object' has no attribute '%s'", nm__j_type(v),
                     nm__printable(shown, sizeof shown, name, strlen(name)));
}

/* ---- loop ------------------------------------------------------------ */

static struct nm__jv loop_attr(struct nm__j *j, struct nm__jv v, const char *name) {
  const struct nm__jloop *l = v.u.loop;
  int64_t i = (int64_t)l->i, n = (int64_t)l->l->n;
  if (!strcmp(name, "index")) return nm__j_int(i + 1, false);
  if (!strcmp(name, "index0")) return nm__j_int(i, false);
  if (!strcmp(name, "revindex")) return nm__j_int(n - i, false);
  if (!strcmp(name, "revindex0")) return nm__j_int(n - i - 1, false);
  if (!strcmp(name, "first")) return nm__j_bool(i == 0);
  if (!strcmp(name, "last")) return nm__j_bool(i == n - 1);
  if (!strcmp(name, "length")) return nm__j_int(n, false);
  if (!strcmp(name, "depth")) return nm__j_int(1, false);
  if (!strcmp(name, "depth0")) return nm__j_int(0, false);
  if (!strcmp(name, "previtem"))
    return i ? l->l->v[i - 1] : nm__j_undef(j, "there is no previous item");
  if (!strcmp(name, "nextitem"))
    return i + 1 < n ? l->l->v[i + 1] : nm__j_undef(j, "there is no next item");
  struct nm__jv out;
  return nm__j_method(j, v, name, &out) ? out : missing(j, v, name);
}

/* ---- attributes and items -------------------------------------------- */

/* v.name: a method before a key, as Python has it. */
struct nm__jv nm__j_attr(struct nm__j *j, struct nm__jv v, const char *name) {
  struct nm__jv out;
  if (j->st || nm__j_used_undef(j, v)) return nm__j_none();
  if (name[0] == '_' && name[1] == '_') {
    nm__j_fail(j, "access to attribute '%.60s' of '%s' object is unsafe", name, nm__j_type(v));
    return nm__j_none();
  }
  if (v.kind == NM__J_LOOP) return loop_attr(j, v, name);
  if (nm__j_method(j, v, name, &out)) return out;
  if (v.kind == NM__J_DICT || v.kind == NM__J_NS) {
    const struct nm__jv *have = nm__j_get_name(j, v.u.d, name);
    if (have) return *have;
  }
  if (v.kind == NM__J_MACRO && !strcmp(name, "name"))
    return nm__j_text(j, v.u.macro->def->name, strlen(v.u.macro->def->name), false);
  return missing(j, v, name);
}

static bool indexable(struct nm__jv v) {
  return v.kind == NM__J_LIST || v.kind == NM__J_TUPLE || v.kind == NM__J_RANGE;
}

static struct nm__jv by_index(struct nm__j *j, struct nm__jv v, int64_t i, bool *found) {
  int64_t n = nm__j_len(j, v);
  *found = true;
  if (i < 0) i += n;
  if (i < 0 || i >= n) {
    *found = false;
    return nm__j_none();
  }
  if (v.kind != NM__J_STR) return v.u.l->v[i];
  size_t at = nm__j_byte_at(j, v.u.s, i), to = at + 1;
  while (to < v.u.s->n && ((unsigned char)v.u.s->s[to] & 0xC0) == 0x80) to++;
  return nm__j_cut(j, v.u.s, at, to - at);
}

/* v[key]: an item, or else an attribute of that name. */
struct nm__jv nm__j_item(struct nm__j *j, struct nm__jv v, struct nm__jv key) {
  if (j->st || nm__j_used_undef(j, v)) return nm__j_none();
  bool found = false;
  if (v.kind == NM__J_DICT && key.kind != NM__J_LIST && key.kind != NM__J_DICT) {
    const struct nm__jv *have = nm__j_get(j, v.u.d, key);
    if (have) return *have;
  } else if ((indexable(v) || v.kind == NM__J_STR) &&
             (key.kind == NM__J_INT || key.kind == NM__J_BOOL)) {
    struct nm__jv out = by_index(j, v, key.kind == NM__J_INT ? key.u.i : key.u.b, &found);
    if (found) return out;
  }
  if (key.kind == NM__J_STR) {
    const struct nm__jstr *s = key.u.s;
    char name[200];
    if (s->n < sizeof name && !memchr(s->s, 0, s->n)) {
      memcpy(name, s->s, s->n);
      name[s->n] = 0;
      struct nm__jv d = v;
      if (v.kind == NM__J_DICT) d = (struct nm__jv){0};
      if (name[0] == '_' && name[1] == '_') return nm__j_attr(j, v, name);
      if (d.kind != NM__J_ABSENT) return nm__j_attr(j, v, name);
      return nm__j_method(j, v, name, &d) ? d : missing(j, v, name);
    }
    return missing(j, v, nm__j_name(j, "%.*s", (int)(s->n < 80 ? s->n : 80), s->s));
  }
  if (key.kind == NM__J_INT)
    return nm__j_undef(j, "%s object has no element %lld", nm__j_type(v), (long long)key.u.i);
  return nm__j_undef(j, "%s object has no element of type '%s'", nm__j_type(v), nm__j_type(key));
}

/* ---- slices ---------------------------------------------------------- */

/* Python's PySlice_AdjustIndices; `n` the length. Items: from, from + step, ... below/above to. */
static bool bounds(struct nm__j *j, const struct nm__jv at[3], int64_t n, int64_t out[3]) {
  int64_t step = 1;
  if (at[2].kind != NM__J_NONE && !nm__j_want_int(j, at[2], "a slice's step", &step)) return false;
  if (step == 0) nm__j_fail(j, "slice step cannot be zero");
  if (step < -INT64_MAX) step = -INT64_MAX;
  int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
  for (int i = 0; i < 2; i++) {
    int64_t v = (step > 0) == (i == 0) ? low : high;
    if (at[i].kind != NM__J_NONE) {
      if (!nm__j_want_int(j, at[i], "a slice's bound", &v)) return false;
      if (v < 0) v += n;
      v = v < low ? low : v > high ? high : v;
    }
    out[i] = v;
  }
  out[2] = step;
  return !j->st;
}

struct nm__jv nm__j_slice(struct nm__j *j, struct nm__jv v, const struct nm__jv at[3]) {
  if (j->st || nm__j_used_undef(j, v)) return nm__j_none();
  bool text = v.kind == NM__J_STR;
  if (!text && !indexable(v)) {
    nm__j_fail(j, "'%s' object cannot be sliced", nm__j_type(v));
    return nm__j_none();
  }
  int64_t b[3];
  if (!bounds(j, at, nm__j_len(j, v), b)) return nm__j_none();
  if (text && b[2] == 1) {
    size_t from = nm__j_byte_at(j, v.u.s, b[0]), to = nm__j_byte_at(j, v.u.s, b[1]);
    return nm__j_cut(j, v.u.s, from, to > from ? to - from : 0);
  }
  const struct nm__jlist *l = nm__j_iter(j, v);
  struct nm__jbuf s = {0};
  struct nm__jv out = nm__j_list(j, v.kind == NM__J_TUPLE ? NM__J_TUPLE : NM__J_LIST);
  out.user = v.user;
  if (v.kind == NM__J_RANGE) nm__j_fail(j, "slices of range() are outside of the subset");
  for (int64_t i = b[0]; !j->st && (b[2] > 0 ? i < b[1] : i > b[1]); i += b[2]) {
    if (text) nm__jbuf_str(j, &s, l->v[i].u.s);
    else nm__j_push(j, out, l->v[i]);
    if (b[2] > 0 ? i > INT64_MAX - b[2] : i < INT64_MIN - b[2]) break;
  }
  return text ? nm__jbuf_value(j, &s) : out;
}
