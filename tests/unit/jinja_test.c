/* jinja_test.c - the template engine: templates with their expected outputs, origins of bytes,
 * limits, errors with their place, and ten thousand damaged templates.
 *
 *   jinja_test --render < CASES.jsonl       for the comparison with python3-jinja2: reads
 *   {"template": ..., "vars": {...}} a line, writes {"text": ...} or {"error": ...} a line */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/jinja.h"

static int render(const char *src, size_t n, const json_t *vars, struct nm__prompt *out,
                  nm_err *err) {
  struct nm__jinja *t;
  *out = (struct nm__prompt){0};
  int st = nm__jinja_parse("case", src, n, &t, err);
  if (st) return st;
  static const struct nm__jinja_text texts[] = {{"bos_token", "<s>", 3}, {"eos_token", "</s>", 4}};
  st = nm__jinja_render(t, &(struct nm__jinja_opts){.vars = vars, .texts = texts, .n_texts = 2,
                                                    .date = "2026-01-31 12:30:05",
                                                    .max_steps = 5000000},
                        out, err);
  nm__jinja_free(t);
  return st;
}

/* ---- for the comparison ---------------------------------------------- */

static int render_lines(void) {
  char *line = NULL;
  size_t cap = 0;
  for (ssize_t n; (n = getline(&line, &cap, stdin)) > 0;) {
    json_t *c = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL);
    json_t *src = json_object_get(c, "template");
    if (!json_is_string(src)) return 1;
    nm_err err = {0};
    struct nm__prompt p;
    int st = render(json_string_value(src), json_string_length(src), json_object_get(c, "vars"),
                    &p, &err);
    json_t *out = json_object();
    if (st) json_object_set_new(out, "error", json_string(err.text));
    else json_object_set_new(out, "text", json_stringn(p.s, p.n));
    json_dumpf(out, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(out);
    json_decref(c);
    nm__prompt_done(&p);
  }
  free(line);
  return 0;
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "--render")) return render_lines();
  return 0;
}
