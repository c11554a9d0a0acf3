/* unicode.c - strict UTF-8 decoding and encoding. */
#include "text/unicode.h"

/* Payload of a continuation byte, or -1. */
static int tail(const char *s) {
  unsigned char c = (unsigned char)*s;
  return (c & 0xC0) == 0x80 ? c & 0x3F : -1;
}

int nm__utf8_decode(const char *s, size_t n, uint32_t *cp) {
  static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
  if (n == 0) return 0;
  unsigned char c = (unsigned char)s[0];
  if (c < 0x80) {
    *cp = c;
    return 1;
  }
  int len = c >= 0xC2 && c <= 0xDF ? 2 : (c & 0xF0) == 0xE0 ? 3 : c >= 0xF0 && c <= 0xF4 ? 4 : 0;
  if (len == 0 || (size_t)len > n) return 0;
  uint32_t v = c & (0x7Fu >> len);
  for (int i = 1; i < len; i++) {
    int t = tail(s + i);
    if (t < 0) return 0;
    v = v << 6 | (uint32_t)t;
  }
  if (v < least[len] || v > 0x10FFFF || (v >= 0xD800 && v <= 0xDFFF)) return 0;
  *cp = v;
  return len;
}

int nm__utf8_encode(uint32_t cp, char out[4]) {
  if (cp < 0x80) {
    out[0] = (char)cp;
    return 1;
  }
  if (cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF)) return 0;
  int len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
  static const unsigned char lead[5] = {0, 0, 0xC0, 0xE0, 0xF0};
  for (int i = len - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3F));
  out[0] = (char)(lead[len] | cp);
  return len;
}

size_t nm__utf8_valid(const char *s, size_t n) {
  size_t i = 0;
  uint32_t cp;
  while (i < n) {
    int len = nm__utf8_decode(s + i, n - i, &cp);
    if (len == 0) break;
    i += (size_t)len;
  }
  return i;
}
