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
