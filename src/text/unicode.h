/* unicode.h - strict UTF-8: one code point at a time, and valid runs of it.
 *
 * Strict means that overlong forms, surrogates and anything above U+10FFFF are not
 * UTF-8; the same rule PCRE2 has, so that a valid run may be matched unchecked.
 *
 *   uint32_t cp;
 *   int len = nm__utf8_decode(s, n, &cp);      // 0: s[0] begins no code point
 *
 * No state, no allocation: use it from any number of threads. */
#ifndef NM_TEXT_UNICODE_H
#define NM_TEXT_UNICODE_H

#include <stddef.h>
#include <stdint.h>

/* Length in bytes (1 to 4) of the code point at s, or 0 when there is none. */
int nm__utf8_decode(const char *s, size_t n, uint32_t *cp);
/* Length written, or 0 when cp is no Unicode scalar value. */
int nm__utf8_encode(uint32_t cp, char out[4]);
/* Bytes of the longest valid prefix. */
size_t nm__utf8_valid(const char *s, size_t n);

#endif
