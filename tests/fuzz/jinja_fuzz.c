/* jinja_fuzz.c - any bytes as a template end in a text of valid UTF-8 or in a sentence, within
 * small limits of steps and memory. Bytes behind a zero byte are the data, as JSON.
 *
 *   clang -fsanitize=fuzzer,address,undefined ... tests/fuzz/jinja_fuzz.c */
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"
#include "text/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static const char usual[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \" S \"}, {\"role\": \"user\", \"content\": \"Hi"
    "\\n\u00fc\"}, {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"name\": \"f\"}]}], "
    "\"tools\": [{\"a\": 1.5}], \"n\": -7, \"add_generation_prompt\": true}";

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  const uint8_t *zero = memchr(bytes, 0, n);
  size_t n_src = zero ? (size_t)(zero - bytes) : n;
  json_t *vars = zero ? json_loadb((const char *)zero + 1, n - n_src - 1, 0, NULL) : NULL;
  if (!json_is_object(vars)) {
    json_decref(vars);
    vars = json_loads(usual, 0, NULL);
  }
  nm_err err = {0};
  struct nm__jinja *t = NULL;
  struct nm__prompt p = {0};
  int st = nm__jinja_parse("fuzz", (const char *)bytes, n_src, &t, &err);
  if (!st)
    st = nm__jinja_render(t, &(struct nm__jinja_opts){.vars = vars, .date = "2026-01-31",
                                                      .max_output = 1 << 20, .max_memory = 1 << 24,
                                                      .max_steps = 200000}, &p, &err);
  if (st && (!err.text[0] || err.status != st || p.s)) abort();
  if (!st && nm__utf8_valid(p.s, p.n) != p.n) abort();
  for (size_t i = 0; i < p.n; i++)
    if (p.user[i] > 1) abort();
  nm__prompt_done(&p);
  nm__jinja_free(t);
  json_decref(vars);
  return 0;
}
