/* json.h - the little that noema adds to jansson. */
#ifndef NM_CORE_JSON_H
#define NM_CORE_JSON_H

#include <jansson.h>

/* A JSON string of any bytes: what is not UTF-8 is shown with '?' for the odd bytes. */
json_t *nm__json_text_n(const char *s, size_t n);
json_t *nm__json_text(const char *s);    /* NULL gives "" */

#endif
