/* keys.c - a mapping of a recipe against a table of keys: types, ranges, the nearest known name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "learn/recipe.h"

/* Levenshtein's distance of two short names. */
static int distance(const char *a, const char *b) {
  int row[64];
  int n = (int)strlen(b);
  if (n > 62) return 99;
  for (int j = 0; j <= n; j++) row[j] = j;
  for (int i = 0; a[i]; i++) {
    int diagonal = row[0];
    row[0] = i + 1;
    for (int j = 0; j < n; j++) {
      int best = diagonal + (a[i] != b[j]);
      if (row[j] + 1 < best) best = row[j] + 1;
      if (row[j + 1] + 1 < best) best = row[j + 1] + 1;
      diagonal = row[j + 1];
      row[j + 1] = best;
    }
  }
  return row[n];
}

static int unknown(const struct nm__yaml *y, const json_t *v, const char *what, const char *name,
                   const struct nm__key *table, nm_err *err) {
  char shown[40], known[300] = "";
  const char *near = NULL;
  int least = 4;
  for (const struct nm__key *k = table; k->name; k++) {
    int d = distance(name, k->name);
    if (d < least) least = d, near = k->name;
    size_t n = strlen(known);
    snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", k->name);
  }
  nm__printable(shown, sizeof shown, name, strlen(name));
  if (near) return nm__yaml_fail(y, v, err, "%s has no key '%s'; is it '%s'?", what, shown, near);
  return nm__yaml_fail(y, v, err, "%s has no key '%s' (known: %s)", what, shown, known);
}

static int read_texts(const struct nm__yaml *y, const json_t *v, const struct nm__key *k,
                      struct nm__texts_list *out, nm_err *err) {
  size_t n = json_is_array(v) ? json_array_size(v) : 1;
  free(out->v);
  *out = (struct nm__texts_list){nm__alloc(n + 1, sizeof *out->v), 0};
  if (!out->v) return nm__fail_memory(err, "a recipe", n * sizeof *out->v);
  for (size_t i = 0; i < n; i++) {
    const json_t *e = json_is_array(v) ? json_array_get(v, i) : v;
    if (!json_is_string(e))
      return nm__yaml_fail(y, e, err, "%s must be a text or a list of texts", k->name);
    out->v[out->n++] = json_string_value(e);
  }
  if (!n) return nm__yaml_fail(y, v, err, "%s must not be empty", k->name);
  return NM_OK;
}

static int read_word(const struct nm__yaml *y, const json_t *v, const struct nm__key *k, int *out,
                     nm_err *err) {
  char known[200] = "";
  for (int i = 0; k->words[i]; i++) {
    if (json_is_string(v) && !strcmp(json_string_value(v), k->words[i])) return *out = i, NM_OK;
    size_t n = strlen(known);
    snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", k->words[i]);
  }
  return nm__yaml_fail(y, v, err, "%s must be one of: %s", k->name, known);
}

static int read_key(const struct nm__yaml *y, const json_t *v, const json_t *line,
                    const struct nm__key *k, void *out, nm_err *err) {
  void *at = (char *)out + k->at;
  double x = json_number_value(v);
  bool outside = !(x >= k->lo && x <= k->hi);
  switch (k->type) {
    case NM__K_INT:
      if (!json_is_integer(v) || outside)
        return nm__yaml_fail(y, line, err, "%s must be a whole number from %.0f to %.0f", k->name,
                             k->lo, k->hi);
      return *(int *)at = (int)json_integer_value(v), NM_OK;
    case NM__K_REAL:
      if (!json_is_number(v) || outside)
        return nm__yaml_fail(y, line, err, "%s must be a number from %g to %g", k->name, k->lo,
                             k->hi);
      return *(double *)at = x, NM_OK;
    case NM__K_FLAG:
      if (!json_is_boolean(v))
        return nm__yaml_fail(y, line, err, "%s must be true or false", k->name);
      return *(bool *)at = json_is_true(v), NM_OK;
    case NM__K_TEXT:
      if (!json_is_string(v) || !json_string_length(v))
        return nm__yaml_fail(y, line, err, "%s must be a text", k->name);
      return *(const char **)at = json_string_value(v), NM_OK;
    case NM__K_TEXTS: return read_texts(y, v, k, at, err);
    case NM__K_WORD: return read_word(y, v, k, at, err);
    default: return *(const json_t **)at = v, NM_OK;
  }
}

int nm__keys_read(const struct nm__yaml *y, const json_t *v, const char *what,
                  const struct nm__key *table, void *out, nm_err *err) {
  const char *name;
  json_t *value;
  if (!json_is_object(v)) return nm__yaml_fail(y, v, err, "%s must be a mapping of keys", what);
  json_object_foreach((json_t *)v, name, value) {
    const struct nm__key *k = table;
    while (k->name && strcmp(k->name, name)) k++;
    const json_t *line = nm__yaml_line(y, value) ? value : v;    /* true, false, null have none */
    int st = k->name ? read_key(y, value, line, k, out, err)
                     : unknown(y, line, what, name, table, err);
    if (st) return st;
  }
  return NM_OK;
}

static int read_element(const struct nm__yaml *y, const json_t *v, const char *what,
                        const char *single, const struct nm__key *table, char *out, nm_err *err) {
  *(const json_t **)(void *)out = v;
  if (!single || !json_is_string(v)) return nm__keys_read(y, v, what, table, out, err);
  while (strcmp(table->name, single)) table++;
  return read_key(y, v, v, table, out, err);
}

int nm__keys_list(const struct nm__yaml *y, const json_t *v, const char *what, const char *single,
                  const struct nm__key *table, const void *plain, size_t size, void *out, int *n,
                  nm_err *err) {
  enum { MOST = 1000 };
  size_t all = json_is_array(v) ? json_array_size(v) : 1;
  if (!all || all > MOST)
    return nm__yaml_fail(y, v, err, "%s: a list of 1 to %d is possible, not of %zu", what, MOST,
                         all);
  char *made = nm__alloc(all, size);
  if (!made) return nm__fail_memory(err, "a recipe", all * size);
  memcpy(out, &made, sizeof made);
  int st = NM_OK;
  for (size_t i = 0; i < all && !st; i++) {
    memcpy(made + i * size, plain, size);
    (*n)++;
    st = read_element(y, json_is_array(v) ? json_array_get(v, i) : v, what, single, table,
                      made + i * size, err);
  }
  return st;
}
