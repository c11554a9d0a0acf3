/* normal.c - how SentencePiece prepares a text: the character map, spaces, U+2581.
 *
 * All of it is in the file: the precompiled map, whether runs of spaces become one and
 * those at the ends vanish, whether a space is put in front. The steps and their order are
 * SentencePiece's, since ids depend on them. */
#include <string.h>

#include "text/charsmap.h"
#include "text/tok.h"

/* Without a map, but with work left to do by character, an empty one is made. */
int nm__tok_open_normal(struct nm__tok *t, const struct nm__gguf *g, nm_err *err) {
  static const char key[] = "tokenizer.ggml.precompiled_charsmap";
  const struct nm__gguf_kv *kv = nm__gguf_find(g, key);
  int rc = nm__tok_flag(g, "tokenizer.ggml.add_space_prefix", true, &t->prefix, err);
  if (!rc) rc = nm__tok_flag(g, "tokenizer.ggml.remove_extra_whitespaces", false, &t->squeeze, err);
  if (rc || (!kv && !t->squeeze && t->all_bytes)) return rc;
  if (!kv) return nm__charsmap_new(t->path, NULL, 0, &t->charsmap, err);
  bool bytes = kv->type == NM__GGUF_ARRAY &&
               (kv->elem_type == NM__GGUF_U8 || kv->elem_type == NM__GGUF_I8);
  if (!bytes) return nm__fail(err, NM_EFORMAT, "%s: %s must be an array of bytes", t->path, key);
  return nm__charsmap_new(t->path, kv->raw, (size_t)kv->n, &t->charsmap, err);
}

static void put_escaped(struct nm__buf *b, const char *s, size_t n) {
  while (n) {
    const char *space = memchr(s, ' ', n);
    size_t plain = space ? (size_t)(space - s) : n;
    nm__buf_put(b, s, plain);
    if (space) nm__buf_puts(b, NM__SPACE);
    plain += space != NULL;
    s += plain;
    n -= plain;
  }
}

/* Bytes that are no text stay as they are where each has a token; else they are read as
 * U+FFFD, as SentencePiece does. */
static struct nm__str lone_byte(const struct nm__tok *t, const char *s) {
  return t->all_bytes ? (struct nm__str){s, 1} : (struct nm__str){"\xEF\xBF\xBD", 3};
}

static void put_mapped(const struct nm__tok *t, struct nm__buf *b, const char *s, size_t n) {
  bool after_space = t->squeeze;
  for (size_t at = 0, step; at < n; at += step) {
    struct nm__str to;
    step = nm__charsmap_next(t->charsmap, s + at, n - at, &to);
    if (!to.s) to = lone_byte(t, s + at);
    while (after_space && to.n && *to.s == ' ') to.s++, to.n--;
    if (!to.n) continue;
    put_escaped(b, to.s, to.n);
    after_space = t->squeeze && to.s[to.n - 1] == ' ';
  }
}

static bool ends_with_space(const struct nm__buf *b) {
  return b->len >= 3 && memcmp(b->s + b->len - 3, NM__SPACE, 3) == 0;
}

/* A text of spaces only loses the one in front as well, and is nothing. */
int nm__tok_normalise(const struct nm__tok *t, struct nm__buf *b, const char *s, size_t n) {
  nm__buf_reset(b);
  if (t->prefix) nm__buf_puts(b, NM__SPACE);
  if (t->charsmap) put_mapped(t, b, s, n);
  else put_escaped(b, s, n);
  while (t->squeeze && ends_with_space(b)) b->s[b->len -= 3] = 0;
  return b->failed ? NM_EMEMORY : NM_OK;
}
