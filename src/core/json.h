/* json.h - the little that noema adds to jansson. */
#ifndef NM_CORE_JSON_H
#define NM_CORE_JSON_H

#include <jansson.h>
#include "noema.h"

/* A JSON string of any bytes: what is not UTF-8 is shown with '?' for the odd bytes. */
json_t *nm__json_text_n(const char *s, size_t n);
json_t *nm__json_text(const char *s);    /* NULL gives "" */

/* Parses an object of a file from outside: no name twice, at most 64 levels and max_values
 * values and containers, so that jansson's memory stays in proportion. NULL with a sentence that
 * begins with `name`. The caller owns the result. */
json_t *nm__json_parse(const char *name, const char *text, size_t n, size_t max_values,
                       nm_err *err);

#endif
