/* json.c - strings out of files and arguments may hold any bytes; JSON may not. */
#include "core/json.h"

#include <stdlib.h>
#include <string.h>
#include "core/core.h"

json_t *nm__json_text_n(const char *s, size_t n) {
  json_t *j = json_stringn(s, n);
  if (j) return j;
  char *shown = nm__alloc(n + 1, 1);
  if (shown) j = json_string(nm__printable(shown, n + 1, s, n));
  free(shown);
  return j;
}

json_t *nm__json_text(const char *s) { return nm__json_text_n(s ? s : "", s ? strlen(s) : 0); }

/* Counts, without building anything, what jansson would have to build: commas and brackets
 * outside strings. */
static bool is_modest(const char *text, size_t n, size_t max_values) {
  size_t values = 0, depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < n; i++) {
    char c = text[i];
    if (quoted) {
      i += c == '\\';
      quoted = c != '"';
      continue;
    }
    quoted = c == '"';
    if (c == '[' || c == '{') depth++;
    if ((c == ']' || c == '}') && depth) depth--;
    values += c == ',' || c == '[' || c == '{';
    if (depth > 64 || values > max_values) return false;
  }
  return true;
}

json_t *nm__json_parse(const char *name, const char *text, size_t n, size_t max_values,
                       nm_err *err) {
  json_error_t je;
  char shown[200];
  if (!is_modest(text, n, max_values)) {
    nm__fail(err, NM_EFORMAT, "%s: is nested more than 64 deep or holds more than %zu values, "
             "which no file of its kind does", name, max_values);
    return NULL;
  }
  json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
  if (json_is_object(j)) return j;
  if (j) nm__fail(err, NM_EFORMAT, "%s: must be a JSON object", name);
  else
    nm__fail(err, NM_EFORMAT, "%s: is not valid JSON: line %d, column %d: %s", name, je.line,
             je.column, nm__printable(shown, sizeof shown, je.text, strlen(je.text)));
  json_decref(j);
  return NULL;
}
