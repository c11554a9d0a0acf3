/* jinja.h - chat templates: the part of Jinja that the templates of published models use.
 *
 * A template is parsed once and rendered any number of times. It is read as transformers
 * reads it: trim_blocks, lstrip_blocks, loop controls, the immutable sandbox, tojson that
 * leaves non-ASCII text as it is. What lies outside of the subset is refused by name.
 *
 * Every byte of a rendered text knows where it came from: the template (and the texts that
 * the caller trusts, such as the begin token's), or the data. Filters, methods, slices and
 * concatenation carry that along, so that text of a user never becomes a control token.
 *
 *   struct nm__jinja *t;
 *   struct nm__prompt p;
 *   if (nm__jinja_parse("chat", src, n, &t, err)) ...
 *   if (nm__jinja_render(t, &(struct nm__jinja_opts){.vars = json}, &p, err)) ...
 *   use(p.s, p.n, p.user); nm__prompt_done(&p); nm__jinja_free(t);
 *
 * Both the template and the data are hostile: nesting, steps, memory and output are bounded.
 * Errors name the template, line and column. A parsed template is read-only: any threads. */
#ifndef NM_TEXT_JINJA_H
#define NM_TEXT_JINJA_H

#include <jansson.h>

#include "core/core.h"

struct nm__jinja;

enum { NM__JINJA_MAX_SOURCE = 1 << 18 };          /* bytes of a template */

/* NM_EFORMAT with "NAME, line L, column C: ...". The source is copied. */
int nm__jinja_parse(const char *name, const char *src, size_t n, struct nm__jinja **out,
                    nm_err *err);
void nm__jinja_free(struct nm__jinja *t);

/* A text and, for each byte, whether it came from the data (1) or is trusted (0). */
struct nm__prompt { char *s; uint8_t *user; size_t n; };
void nm__prompt_done(struct nm__prompt *p);

struct nm__jinja_text { const char *name, *text; size_t n; };     /* a trusted variable */
struct nm__jinja_opts {
  const json_t *vars;              /* an object: the variables, all of them data */
  const struct nm__jinja_text *texts;
  int n_texts;
  const char *date;                /* for strftime_now: "2026-01-31[ 12:30:00]"; NULL: now */
  size_t max_output, max_memory;   /* bytes; 0: 64 MB, and 256 MB more than the data's size */
  uint64_t max_steps;              /* 0: 50 million */
};
int nm__jinja_render(const struct nm__jinja *t, const struct nm__jinja_opts *o,
                     struct nm__prompt *out, nm_err *err);

#endif
