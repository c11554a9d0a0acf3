/* yaml.h - YAML files (recipes, tasks) as JSON values that know their lines.
 *
 *   struct nm__yaml y;
 *   if (nm__yaml_read("r.yaml", &y, err)) return err->status;
 *   json_t *steps = json_object_get(y.root, "steps");
 *   if (!json_is_integer(steps)) return nm__yaml_fail(&y, steps, err, "steps must be ...");
 *   nm__yaml_done(&y);
 *
 * One document; block and flow style; plain scalars follow the core schema of YAML 1.2 (null,
 * true/false, integers, numbers; everything else and everything quoted is text). Anchors,
 * aliases, tags, repeated keys and nesting deeper than 64 are refused with line and column. JSON
 * is YAML, so a JSON file works as well. */
#ifndef NM_CORE_YAML_H
#define NM_CORE_YAML_H

#include <jansson.h>
#include "core/core.h"

struct nm__yaml_line { const json_t *value; int line; };
struct nm__yaml {
  char *name;
  json_t *root;
  struct nm__yaml_line *lines;     /* of every value, sorted by address once read */
  size_t n, cap;
};
int nm__yaml_read(const char *path, struct nm__yaml *out, nm_err *err);
int nm__yaml_parse(const char *name, const char *s, size_t n, struct nm__yaml *out, nm_err *err);
void nm__yaml_done(struct nm__yaml *y);
/* The line a value begins in; 0 when it is not of this file. */
int nm__yaml_line(const struct nm__yaml *y, const json_t *value);
/* "NAME:LINE: sentence", NM_EFORMAT. value NULL: without a line. */
int nm__yaml_fail(const struct nm__yaml *y, const json_t *value, nm_err *err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
