/* yaml.c - libyaml's events become JSON values. */
#include "core/yaml.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { DEPTH_MAX = 64 };

struct reader { yaml_parser_t p; struct nm__yaml *y; nm_err *err; };

static int bad(const struct reader *r, yaml_mark_t at, const char *what) {
  return nm__fail(r->err, NM_EFORMAT, "%s:%zu:%zu: %s", r->y->name, at.line + 1, at.column + 1,
                  what);
}

static int next(struct reader *r, yaml_event_t *e) {
  if (yaml_parser_parse(&r->p, e)) return NM_OK;
  return nm__fail(r->err, NM_EFORMAT, "%s:%zu:%zu: this is not YAML: %s", r->y->name,
                  r->p.problem_mark.line + 1, r->p.problem_mark.column + 1,
                  r->p.problem ? r->p.problem : "it cannot be read");
}

static int keep_line(struct reader *r, const json_t *v, size_t line) {
  struct nm__yaml *y = r->y;
  if (y->n == y->cap) {
    size_t cap = y->cap ? 2 * y->cap : 64;
    struct nm__yaml_line *lines = nm__realloc(y->lines, cap, sizeof *lines);
    if (!lines) return nm__fail_memory(r->err, "a YAML file", cap * sizeof *lines);
    y->lines = lines;
    y->cap = cap;
  }
  y->lines[y->n++] = (struct nm__yaml_line){v, (int)line + 1};
  return NM_OK;
}

/* ---- scalars ----------------------------------------------------------- */

static bool whole(const char *s) {
  if (*s == '-' || *s == '+') s++;
  if (!*s) return false;
  return s[strspn(s, "0123456789")] == 0;
}

static bool number(const char *s) {
  size_t digits = 0;
  if (*s == '-' || *s == '+') s++;
  size_t n = strspn(s, "0123456789");
  digits += n, s += n;
  if (*s == '.') n = strspn(++s, "0123456789"), digits += n, s += n;
  if (digits && (*s == 'e' || *s == 'E')) {
    s++;
    if (*s == '-' || *s == '+') s++;
    n = strspn(s, "0123456789");
    s += n;
    if (!n) return false;
  }
  return digits && !*s;
}

/* Values of their own, not jansson's shared null, true and false: each has a line. */
static json_t *scalar(const yaml_event_t *e) {
  const char *s = (const char *)e->data.scalar.value;
  size_t n = e->data.scalar.length;
  if (strlen(s) != n) return NULL;
  if (e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
    errno = 0;
    if (!n || !strcmp(s, "~") || !strcmp(s, "null")) return json_null();
    if (!strcmp(s, "true")) return json_true();
    if (!strcmp(s, "false")) return json_false();
    if (whole(s)) {
      long long v = strtoll(s, NULL, 10);
      return errno ? json_stringn(s, n) : json_integer(v);
    }
    if (number(s)) {
      double v = strtod(s, NULL);
      return v - v == 0 ? json_real(v) : json_stringn(s, n);
    }
  }
  return json_stringn(s, n);
}

/* ---- values -------------------------------------------------------------- */

static int value(struct reader *r, yaml_event_t *e, int depth, json_t **out);

static int plain_event(const struct reader *r, const yaml_event_t *e) {
  const yaml_char_t *anchor = NULL, *tag = NULL;
  if (e->type == YAML_ALIAS_EVENT) return bad(r, e->start_mark, "aliases (*name) are not read");
  if (e->type == YAML_SCALAR_EVENT) anchor = e->data.scalar.anchor, tag = e->data.scalar.tag;
  if (e->type == YAML_SEQUENCE_START_EVENT)
    anchor = e->data.sequence_start.anchor, tag = e->data.sequence_start.tag;
  if (e->type == YAML_MAPPING_START_EVENT)
    anchor = e->data.mapping_start.anchor, tag = e->data.mapping_start.tag;
  if (anchor) return bad(r, e->start_mark, "anchors (&name) are not read");
  if (tag) return bad(r, e->start_mark, "tags (!name) are not read");
  return NM_OK;
}

static int sequence(struct reader *r, int depth, json_t *list) {
  for (;;) {
    yaml_event_t e;
    json_t *v = NULL;
    int st = next(r, &e);
    if (st) return st;
    bool end = e.type == YAML_SEQUENCE_END_EVENT;
    if (!end) st = value(r, &e, depth + 1, &v);
    yaml_event_delete(&e);
    if (!st && !end && json_array_append_new(list, v)) st = nm__fail_memory(r->err, "YAML", 0);
    if (st || end) return st;
  }
}

static int mapping(struct reader *r, int depth, json_t *map) {
  for (;;) {
    yaml_event_t e, f;
    json_t *v = NULL;
    char key[256];
    int st = next(r, &e);
    if (st) return st;
    bool end = e.type == YAML_MAPPING_END_EVENT;
    if (!end && e.type != YAML_SCALAR_EVENT) st = bad(r, e.start_mark, "a key must be plain text");
    if (!end && !st) st = plain_event(r, &e);
    if (!end && !st) {
      const char *s = (const char *)e.data.scalar.value;
      snprintf(key, sizeof key, "%s", s);
      if (e.data.scalar.length >= sizeof key || strlen(s) != e.data.scalar.length)
        st = bad(r, e.start_mark, "a key is too long or holds a zero byte");
      else if (json_object_get(map, key)) st = bad(r, e.start_mark, "this key occurs twice");
    }
    yaml_event_delete(&e);
    if (st || end) return st;
    if ((st = next(r, &f))) return st;
    st = value(r, &f, depth + 1, &v);
    yaml_event_delete(&f);
    if (!st && json_object_set_new(map, key, v)) st = nm__fail_memory(r->err, "YAML", 0);
    if (st) return st;
  }
}

static int value(struct reader *r, yaml_event_t *e, int depth, json_t **out) {
  int st = plain_event(r, e);
  if (st) return st;
  if (depth > DEPTH_MAX) return bad(r, e->start_mark, "nested too deeply");
  json_t *v = e->type == YAML_SCALAR_EVENT         ? scalar(e)
              : e->type == YAML_SEQUENCE_START_EVENT ? json_array()
              : e->type == YAML_MAPPING_START_EVENT  ? json_object()
                                                     : NULL;
  if (!v) return bad(r, e->start_mark, "a value was expected (text must be UTF-8, no zero bytes)");
  st = keep_line(r, v, e->start_mark.line);
  if (!st && json_is_array(v)) st = sequence(r, depth, v);
  if (!st && json_is_object(v)) st = mapping(r, depth, v);
  if (st) json_decref(v);
  else *out = v;
  return st;
}

/* ---- a document ------------------------------------------------------------ */

static int document(struct reader *r) {
  yaml_event_t e;
  int st = NM_OK;
  for (bool content = false, end = false; !end && !st;) {
    if ((st = next(r, &e))) break;
    end = e.type == YAML_STREAM_END_EVENT;
    if (e.type == YAML_DOCUMENT_START_EVENT && content)
      st = bad(r, e.start_mark, "a second document begins here; one is read");
    if (e.type == YAML_SCALAR_EVENT || e.type == YAML_SEQUENCE_START_EVENT ||
        e.type == YAML_MAPPING_START_EVENT || e.type == YAML_ALIAS_EVENT) {
      content = true;
      st = value(r, &e, 0, &r->y->root);
    }
    yaml_event_delete(&e);
  }
  if (!st && !r->y->root) st = nm__fail(r->err, NM_EFORMAT, "%s: holds nothing", r->y->name);
  return st;
}

static int by_address(const void *a, const void *b) {
  const json_t *x = ((const struct nm__yaml_line *)a)->value;
  const json_t *y = ((const struct nm__yaml_line *)b)->value;
  return (x > y) - (x < y);
}

int nm__yaml_parse(const char *name, const char *s, size_t n, struct nm__yaml *out, nm_err *err) {
  *out = (struct nm__yaml){.name = nm__strdup(name)};
  struct reader r = {.y = out, .err = err};
  if (!out->name || !yaml_parser_initialize(&r.p)) {
    nm__yaml_done(out);
    return nm__fail_memory(err, "a YAML file", n);
  }
  yaml_parser_set_input_string(&r.p, (const unsigned char *)s, n);
  int st = document(&r);
  yaml_parser_delete(&r.p);
  if (out->n) qsort(out->lines, out->n, sizeof *out->lines, by_address);
  if (st) nm__yaml_done(out);
  return st;
}

int nm__yaml_read(const char *path, struct nm__yaml *out, nm_err *err) {
  struct nm__map m;
  *out = (struct nm__yaml){0};
  int st = nm__map_open(path, &m, err);
  if (st) return st;
  if (m.size > 1 << 24) st = nm__fail(err, NM_EFORMAT, "%s: too large for a recipe", path);
  if (!st) st = nm__yaml_parse(path, (const char *)m.data, m.size, out, err);
  nm__map_close(&m);
  return st;
}

void nm__yaml_done(struct nm__yaml *y) {
  json_decref(y->root);
  free(y->lines);
  free(y->name);
  *y = (struct nm__yaml){0};
}

int nm__yaml_line(const struct nm__yaml *y, const json_t *value) {
  struct nm__yaml_line key = {value, 0}, *found;
  if (!value || !y->n || json_is_null(value) || json_is_boolean(value)) return 0;
  found = bsearch(&key, y->lines, y->n, sizeof key, by_address);
  return found ? found->line : 0;
}

int nm__yaml_fail(const struct nm__yaml *y, const json_t *value, nm_err *err, const char *fmt,
                  ...) {
  char text[400];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  int line = nm__yaml_line(y, value);
  if (line) return nm__fail(err, NM_EFORMAT, "%s:%d: %s", y->name, line, text);
  return nm__fail(err, NM_EFORMAT, "%s: %s", y->name, text);
}
