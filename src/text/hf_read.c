/* hf_read.c - reading the parts of a tokenizer.json: fields, lists of steps, patterns.
 *
 * The file is hostile, and it is a program: what is not understood is refused with its
 * place, since leaving it out would give other ids without a word. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/hf.h"

enum { MAX_STEPS = 256, MAX_DEPTH = 16 };

/* ---- where we are ------------------------------------------------------ */

size_t nm__hf_enter(struct nm__hf_reader *r, const char *name, long index) {
  size_t n = strlen(r->place);
  if (*name) snprintf(r->place + n, sizeof r->place - n, "%s%s", n ? "." : "", name);
  size_t k = strlen(r->place);
  if (index >= 0) snprintf(r->place + k, sizeof r->place - k, "[%ld]", index);
  return n;
}

void nm__hf_leave(struct nm__hf_reader *r, size_t length) { r->place[length] = 0; }

int nm__hf_refuse(struct nm__hf_reader *r, const char *name, const char *fmt, ...) {
  char text[300];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  return nm__fail(r->err, NM_EFORMAT, "%s: %s%s%s %s", r->path, r->place,
                  *r->place && *name ? "." : "", name, text);
}

/* ---- fields ------------------------------------------------------------ */

/* The field, or NULL when it may be left out and is; *rc tells when it may not. */
static const json_t *field(struct nm__hf_reader *r, const json_t *o, const char *name, bool must,
                           int *rc) {
  const json_t *v = json_object_get(o, name);
  *rc = NM_OK;
  if (v && !json_is_null(v)) return v;
  if (must) *rc = nm__hf_refuse(r, name, "is missing");
  return NULL;
}

int nm__hf_bool(struct nm__hf_reader *r, const json_t *o, const char *name, bool must, bool *out) {
  int rc;
  const json_t *v = field(r, o, name, must, &rc);
  if (!v) return rc;
  if (!json_is_boolean(v)) return nm__hf_refuse(r, name, "must be true or false");
  *out = json_is_true(v);
  return NM_OK;
}

int nm__hf_count(struct nm__hf_reader *r, const json_t *o, const char *name, bool must,
                 int64_t *out) {
  int rc;
  const json_t *v = field(r, o, name, must, &rc);
  if (!v) return rc;
  if (!json_is_integer(v) || json_integer_value(v) < 0)
    return nm__hf_refuse(r, name, "must be a whole number, 0 or more");
  *out = json_integer_value(v);
  return NM_OK;
}

int nm__hf_text(struct nm__hf_reader *r, const json_t *o, const char *name, bool must,
                struct nm__str *out) {
  int rc;
  const json_t *v = field(r, o, name, must, &rc);
  if (!v) return rc;
  if (!json_is_string(v)) return nm__hf_refuse(r, name, "must be a string");
  *out = (struct nm__str){json_string_value(v), json_string_length(v)};
  return NM_OK;
}

static bool listed(const char *names, const char *name) {
  size_t n = strlen(name);
  for (const char *p = names; *p; p += strspn(p, " ")) {
    size_t len = strcspn(p, " ");
    if (len == n && memcmp(p, name, n) == 0) return true;
    p += len;
  }
  return false;
}

int nm__hf_known(struct nm__hf_reader *r, const json_t *o, const char *names) {
  char shown[64];
  for (void *i = json_object_iter((json_t *)o); i; i = json_object_iter_next((json_t *)o, i)) {
    const char *key = json_object_iter_key(i);
    if (!listed(names, key))
      return nm__hf_refuse(r, nm__printable(shown, sizeof shown, key, strlen(key)),
                           "is not known to noema%s%s", *names ? "; known are: " : "", names);
  }
  return NM_OK;
}

/* ---- steps ------------------------------------------------------------- */

int nm__hf_keep_text(struct nm__hf_reader *r, struct nm__hf_step *s, struct nm__str text) {
  s->s = nm__strndup(text.n ? text.s : "", text.n);
  s->n = text.n;
  return s->s ? NM_OK : nm__fail_memory(r->err, "a tokenizer", text.n);
}

int nm__hf_read_pattern(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  const json_t *p = json_object_get(o, "pattern");
  const json_t *literal = json_object_get(p, "String"), *regex = json_object_get(p, "Regex");
  const json_t *v = literal ? literal : regex;
  if (!json_is_string(v) || json_object_size(p) != 1)
    return nm__hf_refuse(r, "pattern", "must be {\"String\": ...} or {\"Regex\": ...}");
  nm_err why = {0};
  int rc = nm__hf_regex_new(json_string_value(v), json_string_length(v), literal != NULL, &s->re,
                            &why);
  if (rc == NM_EMEMORY) return nm__fail_memory(r->err, "a pattern", json_string_length(v));
  return rc ? nm__hf_refuse(r, "pattern", "%s", why.text) : NM_OK;
}

static const struct nm__hf_kind *find_kind(const struct nm__hf_table *table, struct nm__str name) {
  for (size_t i = 0; i < table->n; i++) {
    const char *s = table->v[i].name;
    if (strlen(s) == name.n && memcmp(s, name.s, name.n) == 0) return &table->v[i];
  }
  return NULL;
}

static int read_step(struct nm__hf_reader *r, const json_t *o, const struct nm__hf_kind *kind,
                     struct nm__hf_steps *out) {
  if (out->n == MAX_STEPS) return nm__hf_refuse(r, "", "is one of more than %d", MAX_STEPS);
  struct nm__hf_step *v = nm__realloc(out->v, out->n + 1, sizeof *v);
  if (!v) return nm__fail_memory(r->err, "a tokenizer", (out->n + 1) * sizeof *v);
  out->v = v;
  struct nm__hf_step *s = &v[out->n++];
  *s = (struct nm__hf_step){.kind = kind};
  char fields[200];
  snprintf(fields, sizeof fields, "type %s", kind->fields);
  int rc = nm__hf_known(r, o, fields);
  return rc || !kind->read ? rc : kind->read(r, o, s);
}

static int read_members(struct nm__hf_reader *r, const json_t *o, const struct nm__hf_table *table,
                        struct nm__hf_steps *out) {
  const json_t *list = json_object_get(o, table->members);
  if (!json_is_array(list)) return nm__hf_refuse(r, table->members, "must be a list");
  if (r->depth == MAX_DEPTH)
    return nm__hf_refuse(r, table->members, "is nested more than %d deep", MAX_DEPTH);
  char fields[64];
  snprintf(fields, sizeof fields, "type %s", table->members);
  int rc = nm__hf_known(r, o, fields);
  r->depth++;
  for (size_t i = 0; i < json_array_size(list) && !rc; i++) {
    size_t back = nm__hf_enter(r, table->members, (long)i);
    const json_t *member = json_array_get(list, i);
    rc = json_is_null(member) ? nm__hf_refuse(r, "", "must not be null")
                              : nm__hf_steps_read(r, member, table, out);
    nm__hf_leave(r, back);
  }
  r->depth--;
  return rc;
}

int nm__hf_steps_read(struct nm__hf_reader *r, const json_t *o, const struct nm__hf_table *table,
                      struct nm__hf_steps *out) {
  if (!o || json_is_null(o)) return NM_OK;
  struct nm__str type = {0};
  if (!json_is_object(o)) return nm__hf_refuse(r, "", "must be an object or null");
  int rc = nm__hf_text(r, o, "type", true, &type);
  if (rc) return rc;
  if (type.n == 8 && memcmp(type.s, "Sequence", 8) == 0) return read_members(r, o, table, out);
  const struct nm__hf_kind *kind = find_kind(table, type);
  if (kind) return read_step(r, o, kind, out);
  char shown[64];
  return nm__hf_refuse(r, "type", "'%s' is not supported",
                       nm__printable(shown, sizeof shown, type.s, type.n));
}

void nm__hf_steps_done(struct nm__hf_steps *v) {
  for (size_t i = 0; i < v->n; i++) {
    nm__hf_regex_free(v->v[i].re);
    nm__charsmap_free(v->v[i].map);
    free(v->v[i].s);
  }
  free(v->v);
  *v = (struct nm__hf_steps){0};
}

int nm__hf_run_steps(const struct nm__hf_steps *v, struct nm__hf_work *w) {
  int rc = NM_OK;
  for (size_t i = 0; i < v->n && !rc; i++) rc = v->v[i].kind->run(&v->v[i], w);
  return rc;
}

/* ---- a call's memory ---------------------------------------------------- */

/* Room for one more of n elements; NULL when memory is short. */
static void *grow(void *v, size_t n, size_t *cap, size_t size) {
  if (n < *cap) return v;
  size_t more = *cap ? 2 * *cap : 64;
  void *p = nm__realloc(v, more, size);
  if (p) *cap = more;
  return p;
}

int nm__hf_matches_push(struct nm__hf_matches *m, size_t lo, size_t hi, bool match) {
  struct nm__hf_match *v = grow(m->v, m->n, &m->cap, sizeof *v);
  if (!v) return NM_EMEMORY;
  m->v = v;
  v[m->n++] = (struct nm__hf_match){lo, hi, match};
  return NM_OK;
}

int nm__hf_parts_push(struct nm__hf_parts *p, struct nm__hf_part part) {
  struct nm__hf_part *v = grow(p->v, p->n, &p->cap, sizeof *v);
  if (!v) return NM_EMEMORY;
  p->v = v;
  v[p->n++] = part;
  return NM_OK;
}

void nm__hf_work_done(struct nm__hf_work *w) {
  nm__buf_done(&w->text);
  nm__buf_done(&w->next);
  nm__buf_done(&w->joined);
  free(w->parts.v);
  free(w->made.v);
  free(w->matches.v);
  free(w->kept.v);
  nm__merge_done(&w->core.merge);
  nm__buf_done(&w->core.text);
  nm__buf_done(&w->core.key);
  free(w->core.node);
}
