/* jinja_value.c - what values are made of: the arena, strings that know where their bytes
 * came from, lists, dicts; and JSON data turned into values. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_in.h"
#include "text/unicode.h"

enum { MAX_DEPTH = 400 };

/* ---- arena ----------------------------------------------------------- */

void *nm__jmem_take(struct nm__jmem *m, size_t n) {
  struct nm__jchunk *c = m->head;
  if (n > m->max) return NULL;
  n = (n + 15) & ~(size_t)15;
  if (!c || n > c->cap - c->used) {
    size_t cap = n > 1 << 16 ? n : 1 << 16;
    if (cap > m->max - m->total || !(c = nm__alloc(1, sizeof *c + 16 + cap))) return NULL;
    c->cap = cap;
    c->next = m->head;
    m->head = c;
    m->total += cap;
  }
  char *p = (char *)c + ((sizeof *c + 15) & ~(size_t)15) + c->used;
  c->used += n;
  return p;
}

void nm__jmem_done(struct nm__jmem *m) {
  for (struct nm__jchunk *c = m->head, *next; c; c = next) {
    next = c->next;
    free(c);
  }
  m->head = NULL;
}

void *nm__j_take(struct nm__j *j, size_t n, size_t size) {
  size_t bytes;
  if (j->st) return NULL;
  if (__builtin_mul_overflow(n, size, &bytes)) bytes = SIZE_MAX;
  void *p = nm__jmem_take(&j->mem, bytes);
  if (!p) nm__j_fail(j, "the template needs more than %.0f MB of memory", (double)j->mem.max / 1e6);
  return p;
}

/* ---- errors, steps, nesting ------------------------------------------ */

void nm__j_fail(struct nm__j *j, const char *fmt, ...) {
  if (j->st) return;
  char text[400];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  j->st = j->at ? nm__j_syntax(j->t, j->at->line, j->at->col, j->err, "%s", text)
                : nm__fail(j->err, NM_EFORMAT, "%s: %s", j->t->name, text);
}

bool nm__j_tick(struct nm__j *j, size_t n) {
  if (j->st) return false;
  n = n / 16 + 1;
  if (n > j->steps) {
    j->steps = 0;
    nm__j_fail(j, "the template takes more steps than are allowed");
    return false;
  }
  j->steps -= n;
  return true;
}

bool nm__j_enter(struct nm__j *j) {
  if (j->depth++ > MAX_DEPTH) nm__j_fail(j, "calls and values are nested too deeply");
  return nm__j_tick(j, 1);
}

/* ---- strings --------------------------------------------------------- */

static const char *vname(struct nm__j *j, const char *fmt, va_list ap) {
  char text[300];
  vsnprintf(text, sizeof text, fmt, ap);
  size_t n = strlen(text);
  char *s = nm__j_take(j, n + 1, 1);
  if (s) memcpy(s, text, n);
  return s ? s : "";
}

const char *nm__j_name(struct nm__j *j, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  const char *s = vname(j, fmt, ap);
  va_end(ap);
  return s;
}

struct nm__jv nm__j_undef(struct nm__j *j, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  const char *s = vname(j, fmt, ap);
  va_end(ap);
  return (struct nm__jv){.kind = NM__J_UNDEF, .u.why = s};
}

static struct nm__jv string(struct nm__j *j, const char *s, const uint8_t *user, size_t n,
                            int64_t points) {
  struct nm__jstr *str = nm__j_take(j, 1, sizeof *str);
  if (!str) return nm__j_none();
  *str = (struct nm__jstr){s, user, n, points};
  return (struct nm__jv){.kind = NM__J_STR, .u.s = str};
}

struct nm__jv nm__j_text(struct nm__j *j, const char *s, size_t n, bool user) {
  struct nm__jbuf b = {0};
  nm__jbuf_mark(j, &b, s, n, user);
  return nm__jbuf_value(j, &b);
}

struct nm__jv nm__j_cut(struct nm__j *j, const struct nm__jstr *s, size_t at, size_t n) {
  bool ascii = s->points >= 0 && (size_t)s->points == s->n;
  return string(j, s->s + at, s->user + at, n, ascii ? (int64_t)n : -1);
}

int64_t nm__j_points(struct nm__jstr *s) {
  if (s->points >= 0) return s->points;
  int64_t n = 0;
  for (size_t i = 0; i < s->n; i++) n += ((unsigned char)s->s[i] & 0xC0) != 0x80;
  return s->points = n;
}

size_t nm__j_byte_at(struct nm__j *j, struct nm__jstr *s, int64_t point) {
  int64_t all = nm__j_points(s);
  if (point >= all) return s->n;
  if ((size_t)all == s->n) return (size_t)point;
  size_t i = 0;
  nm__j_tick(j, (size_t)point);
  for (; point > 0; point--)
    for (i++; i < s->n && ((unsigned char)s->s[i] & 0xC0) == 0x80;) i++;
  return i;
}

/* ---- growing strings ------------------------------------------------- */

static bool room(struct nm__j *j, struct nm__jbuf *b, size_t n) {
  if (!nm__j_tick(j, n)) return false;
  if (n > j->max_output || b->n > j->max_output - n) {
    nm__j_fail(j, "a text grows beyond %.0f MB", (double)j->max_output / 1e6);
    return false;
  }
  if (b->s && b->n + n <= b->cap) return true;
  size_t cap = b->cap ? 2 * b->cap : 32;
  while (cap < b->n + n) cap *= 2;
  char *s = nm__j_take(j, cap, 2);
  if (!s) return false;
  if (b->n) {
    memcpy(s, b->s, b->n);
    memcpy(s + cap, b->user, b->n);
  }
  b->s = s;
  b->user = (uint8_t *)s + cap;
  b->cap = cap;
  return true;
}

void nm__jbuf_put(struct nm__j *j, struct nm__jbuf *b, const char *s, const uint8_t *user,
                  size_t n) {
  if (!n || !room(j, b, n)) return;
  memcpy(b->s + b->n, s, n);
  if (user) memcpy(b->user + b->n, user, n);
  else memset(b->user + b->n, 0, n);
  b->n += n;
}

void nm__jbuf_mark(struct nm__j *j, struct nm__jbuf *b, const char *s, size_t n, bool user) {
  if (!n || !room(j, b, n)) return;
  memcpy(b->s + b->n, s, n);
  memset(b->user + b->n, user, n);
  b->n += n;
}

void nm__jbuf_str(struct nm__j *j, struct nm__jbuf *b, const struct nm__jstr *s) {
  nm__jbuf_put(j, b, s->s, s->user, s->n);
}

struct nm__jv nm__jbuf_value(struct nm__j *j, const struct nm__jbuf *b) {
  static const uint8_t none[1];
  return b->s ? string(j, b->s, b->user, b->n, -1) : string(j, "", none, 0, 0);
}

/* ---- lists and dicts ------------------------------------------------- */

struct nm__jv nm__j_list(struct nm__j *j, enum nm__jkind kind) {
  struct nm__jlist *l = nm__j_take(j, 1, sizeof *l);
  return l ? (struct nm__jv){.kind = (uint8_t)kind, .u.l = l} : nm__j_none();
}

void nm__j_push(struct nm__j *j, struct nm__jv list, struct nm__jv v) {
  if (!nm__j_tick(j, 1)) return;
  struct nm__jlist *l = list.u.l;
  if (l->n == l->cap) {
    size_t cap = l->cap ? 2 * l->cap : 4;
    struct nm__jv *new = nm__j_take(j, cap, sizeof *new);
    if (!new) return;
    if (l->n) memcpy(new, l->v, l->n * sizeof *new);
    l->v = new;
    l->cap = cap;
  }
  l->v[l->n++] = v;
}

struct nm__jv nm__j_pair(struct nm__j *j, struct nm__jv a, struct nm__jv b) {
  struct nm__jv t = nm__j_list(j, NM__J_TUPLE);
  nm__j_push(j, t, a);
  nm__j_push(j, t, b);
  return t;
}

struct nm__jv nm__j_dict(struct nm__j *j, enum nm__jkind kind) {
  struct nm__jdict *d = nm__j_take(j, 1, sizeof *d);
  return d ? (struct nm__jv){.kind = (uint8_t)kind, .u.d = d} : nm__j_none();
}

static bool hashable(struct nm__jv v) {
  if (v.kind == NM__J_TUPLE) {
    for (size_t i = 0; i < v.u.l->n; i++)
      if (!hashable(v.u.l->v[i])) return false;
    return true;
  }
  return v.kind != NM__J_LIST && v.kind != NM__J_DICT && v.kind != NM__J_VIEW;
}

const struct nm__jv *nm__j_get(struct nm__j *j, const struct nm__jdict *d, struct nm__jv key) {
  if (j->st) return NULL;
  if (!hashable(key)) {
    nm__j_fail(j, "unhashable type: '%s'", nm__j_type(key));
    return NULL;
  }
  nm__j_tick(j, d->n);
  for (size_t i = 0; i < d->n && !j->st; i++)
    if (nm__j_equal(j, d->v[i].key, key)) return &d->v[i].value;
  return NULL;
}

const struct nm__jv *nm__j_get_name(struct nm__j *j, const struct nm__jdict *d, const char *key) {
  size_t n = strlen(key);
  nm__j_tick(j, d->n);
  for (size_t i = 0; i < d->n && !j->st; i++) {
    struct nm__jv k = d->v[i].key;
    if (k.kind == NM__J_STR && k.u.s->n == n && !memcmp(k.u.s->s, key, n)) return &d->v[i].value;
  }
  return NULL;
}

static void append(struct nm__j *j, struct nm__jdict *d, struct nm__jv key, struct nm__jv v) {
  if (d->n == d->cap) {
    size_t cap = d->cap ? 2 * d->cap : 4;
    struct nm__jpair *new = nm__j_take(j, cap, sizeof *new);
    if (!new) return;
    if (d->n) memcpy(new, d->v, d->n * sizeof *new);
    d->v = new;
    d->cap = cap;
  }
  d->v[d->n++] = (struct nm__jpair){key, v};
}

void nm__j_put(struct nm__j *j, struct nm__jv dict, struct nm__jv key, struct nm__jv v) {
  struct nm__jv *have = j->st ? NULL : (struct nm__jv *)(uintptr_t)nm__j_get(j, dict.u.d, key);
  if (have) *have = v;
  else if (!j->st) append(j, dict.u.d, key, v);
}

void nm__j_put_name(struct nm__j *j, struct nm__jv dict, const char *key, struct nm__jv v) {
  nm__j_put(j, dict, nm__j_text(j, key, strlen(key), false), v);
}

/* ---- JSON data ------------------------------------------------------- */

static struct nm__jv from_object(struct nm__j *j, const json_t *x) {
  struct nm__jv d = nm__j_dict(j, NM__J_DICT);
  d.user = true;
  const char *key;
  json_t *v;
  json_object_foreach((json_t *)(uintptr_t)x, key, v) {
    struct nm__jv k = nm__j_text(j, key, strlen(key), true), value = nm__j_from_json(j, v);
    if (!nm__j_tick(j, 1)) break;
    append(j, d.u.d, k, value);    /* jansson's keys differ already */
  }
  return d;
}

struct nm__jv nm__j_from_json(struct nm__j *j, const json_t *x) {
  struct nm__jv v = nm__j_none();
  if (!nm__j_enter(j)) return v;
  switch (json_typeof(x)) {
    case JSON_OBJECT: v = from_object(j, x); break;
    case JSON_ARRAY:
      v = nm__j_list(j, NM__J_LIST);
      for (size_t i = 0; i < json_array_size(x) && !j->st; i++)
        nm__j_push(j, v, nm__j_from_json(j, json_array_get(x, i)));
      break;
    case JSON_STRING: v = nm__j_text(j, json_string_value(x), json_string_length(x), true); break;
    case JSON_INTEGER: v = nm__j_int(json_integer_value(x), true); break;
    case JSON_REAL: v = nm__j_float(json_real_value(x), true); break;
    case JSON_TRUE: v = nm__j_bool(true); break;
    case JSON_FALSE: v = nm__j_bool(false); break;
    case JSON_NULL: break;
  }
  if (v.kind != NM__J_STR) v.user = true;
  j->depth--;
  return v;
}
