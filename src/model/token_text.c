/* token_text.c - what a token adds to the text before it. */
#include <stdlib.h>
#include <string.h>
#include "model/model.h"

/* A token alone loses the space before it, so it is decoded behind its neighbour. */
char *nm_token_text(const nm_model *m, const int32_t *ids, size_t k, bool control) {
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 20);
  nm__buf_puts(&b, "");
  size_t before = 0;
  int st = m->tok ? NM_OK : NM_EFORMAT;
  if (!st && k) st = nm__tok_decode(m->tok, ids + k - 1, 1, control, &b, NULL);
  if (!st && k) before = b.len;
  nm__buf_reset(&b);
  if (!st) st = nm__tok_decode(m->tok, ids + (k ? k - 1 : 0), k ? 2 : 1, control, &b, NULL);
  char *text = st || b.failed ? NULL : nm__strndup(b.s + (before < b.len ? before : b.len),
                                                   before < b.len ? b.len - before : 0);
  nm__buf_done(&b);
  return text;
}
