/* charsmap.c - walking SentencePiece's double array, with every index checked.
 *
 * A unit of the trie, from its low bit: 8 bits label, 1 bit "a value hangs below", 1 bit
 * scale of the offset, 21 bits offset, 1 bit set in values only. The child of node p by
 * byte c is at p ^ offset(unit p) ^ c and must carry c as its label; the value is the child
 * by byte 0. */
#include "text/charsmap.h"

#include <stdlib.h>
#include <string.h>

#include "text/unicode.h"

/* The longest replacement of Unicode's own forms has 33 bytes. A limit keeps the normalised
 * text within a multiple of the text whatever the file says. */
enum { MAX_REPLACEMENT = 256 };

struct nm__charsmap {
  uint32_t *unit;
  char *text;                      /* the replacements */
  size_t n_units, n_text;
};

int nm__charsmap_new(const char *path, const uint8_t *p, size_t n, struct nm__charsmap **out,
                     nm_err *err) {
  uint32_t bytes = 0;
  *out = NULL;
  if (n >= 4) memcpy(&bytes, p, 4);
  if ((n && n < 4) || bytes % 4 || bytes > n - (n ? 4 : 0))
    return nm__fail(err, NM_EFORMAT, "%s: the precompiled character map has %zu bytes and says "
                    "that %u of them are its trie", path, n, bytes);
  struct nm__charsmap *m = nm__alloc(1, sizeof *m);
  if (!m) return nm__fail_memory(err, "the character map", n);
  m->n_units = bytes / 4;
  m->n_text = n ? n - 4 - bytes : 0;
  m->unit = nm__alloc(m->n_units + 1, 4);
  m->text = nm__alloc(m->n_text + 1, 1);
  if (!m->unit || !m->text) {
    nm__charsmap_free(m);
    return nm__fail_memory(err, "the character map", n);
  }
  if (bytes) memcpy(m->unit, p + 4, bytes);
  if (m->n_text) memcpy(m->text, p + 4 + bytes, m->n_text);
  *out = m;
  return NM_OK;
}

void nm__charsmap_free(struct nm__charsmap *m) {
  if (!m) return;
  free(m->unit);
  free(m->text);
  free(m);
}

static uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & 1u << 9) >> 6); }
static uint32_t label(uint32_t unit) { return unit & (1u << 31 | 0xFF); }

/* Bytes of the longest (or the first) beginning that has a value, or 0. */
static size_t walk(const struct nm__charsmap *m, const char *s, size_t n, bool first,
                   uint32_t *value) {
  size_t best = 0;
  if (m->n_units == 0) return 0;
  uint32_t at = offset(m->unit[0]);
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)s[i];
    at ^= c;
    if (at >= m->n_units || label(m->unit[at]) != c) break;
    bool has_value = m->unit[at] >> 8 & 1;
    at ^= offset(m->unit[at]);
    if (!has_value) continue;
    if (at >= m->n_units) break;
    *value = m->unit[at] & ~(1u << 31);
    best = i + 1;
    if (first) break;
  }
  return best;
}

static bool replacement(const struct nm__charsmap *m, uint32_t value, struct nm__str *to) {
  if (value >= m->n_text) return false;
  *to = (struct nm__str){m->text + value, strnlen(m->text + value, m->n_text - value)};
  return to->n <= MAX_REPLACEMENT;
}

bool nm__charsmap_first(const struct nm__charsmap *m, const char *s, size_t n,
                        struct nm__str *to) {
  uint32_t value = 0;
  return walk(m, s, n, true, &value) && replacement(m, value, to);
}

size_t nm__charsmap_next(const struct nm__charsmap *m, const char *s, size_t n,
                         struct nm__str *to) {
  uint32_t value = 0, cp;
  size_t len = walk(m, s, n, false, &value);
  if (len && replacement(m, value, to)) return len;
  len = (size_t)nm__utf8_decode(s, n, &cp);
  *to = (struct nm__str){len ? s : NULL, len};
  return len ? len : 1;
}
