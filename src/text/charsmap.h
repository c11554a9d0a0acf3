/* charsmap.h - SentencePiece's precompiled character map: which string stands for which
 * sequence of characters before a text is cut into pieces (NFKC, case folding, ...).
 *
 * The form: u32 size in bytes of the trie; the trie, a double array of u32 units (Darts);
 * the replacements, each ended by a zero byte. A value of the trie is an offset among the
 * replacements. Any bytes are safe to open and to use.
 *
 *   struct nm__charsmap *m;
 *   if (nm__charsmap_new(bytes, n, &m, err)) return err->status;
 *   for (struct nm__str to; at < n; at += nm__charsmap_next(m, s + at, n - at, &to)) ...
 *   nm__charsmap_free(m);
 *
 * Read-only after nm__charsmap_new: use it from any number of threads. */
#ifndef NM_TEXT_CHARSMAP_H
#define NM_TEXT_CHARSMAP_H

#include "file/gguf.h"

struct nm__charsmap;

/* Copies the bytes; none give a map that changes nothing. NM_EFORMAT when the sizes do not
 * fit. `path` is for the sentence. */
int nm__charsmap_new(const char *path, const uint8_t *p, size_t n, struct nm__charsmap **out,
                     nm_err *err);
void nm__charsmap_free(struct nm__charsmap *m);

/* The longest beginning of the text (n > 0) that has a replacement, else its first
 * character, else a byte that is no UTF-8. Returns how many bytes it has; *to is what
 * stands for them: the replacement, the character itself, or nothing but to->s NULL for
 * the lone byte. */
size_t nm__charsmap_next(const struct nm__charsmap *m, const char *s, size_t n,
                         struct nm__str *to);
/* What stands for the shortest beginning that has a replacement; false when none has. */
bool nm__charsmap_first(const struct nm__charsmap *m, const char *s, size_t n,
                        struct nm__str *to);

#endif
