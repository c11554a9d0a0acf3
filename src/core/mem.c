/* mem.c - checked allocation, arenas, growing byte strings. */
#include "core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *nm__alloc(size_t n, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(n, size, &bytes) || bytes > PTRDIFF_MAX) return NULL;
  return calloc(bytes ? bytes : 1, 1);
}

/* On a cache line; what is large also on a large page, which saves most of the look-ups of
 * addresses when rows far apart are read together. */
static void *lines(size_t bytes) {
  enum { LINE = 64, LARGE = 1 << 21 };
  bool large = bytes >= 2 * (size_t)LARGE;
  size_t unit = large ? LARGE : LINE;
  if (bytes > PTRDIFF_MAX - unit) return NULL;
  bytes = (bytes ? bytes + unit - 1 : unit) / unit * unit;
  void *p = aligned_alloc(unit, bytes);
#ifdef MADV_HUGEPAGE
  if (p && large) madvise(p, bytes, MADV_HUGEPAGE);    /* a refusal only costs speed */
#endif
  return p;
}

void *nm__alloc_lines(size_t n, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(n, size, &bytes)) return NULL;
  void *p = lines(bytes);
  if (p) memset(p, 0, bytes);
  return p;
}

void *nm__realloc(void *p, size_t n, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(n, size, &bytes) || bytes > PTRDIFF_MAX) return NULL;
  return realloc(p, bytes ? bytes : 1);
}

char *nm__strndup(const char *s, size_t n) {
  char *d = nm__alloc(n + 1, 1);
  if (d) memcpy(d, s, n);
  return d;
}

char *nm__strdup(const char *s) { return nm__strndup(s, strlen(s)); }

/* ---- arena ----------------------------------------------------------- */

int nm__arena_init(struct nm__arena *a, size_t cap, nm_err *err) {
  *a = (struct nm__arena){.cap = cap, .measure = cap == 0};
  if (a->measure) return NM_OK;
  cap = (cap + 63) & ~(size_t)63;
  a->base = lines(cap);
  if (!a->base) return nm__fail_memory(err, "the activations", cap);
  a->cap = cap;
  return NM_OK;
}

void nm__arena_done(struct nm__arena *a) {
  free(a->base);
  *a = (struct nm__arena){0};
}

void *nm__arena_take(struct nm__arena *a, size_t bytes) {
  size_t need = (bytes + 63) & ~(size_t)63;
  if (need < bytes) return NULL;
  if (!a->measure && need > a->cap - a->used) return NULL;
  char *p = a->measure ? (char *)64 : a->base + a->used;
  a->used += need;
  if (a->used > a->peak) a->peak = a->used;
  return p;
}

/* ---- byte strings ---------------------------------------------------- */

void nm__buf_init(struct nm__buf *b, size_t max) { *b = (struct nm__buf){.max = max}; }

void nm__buf_done(struct nm__buf *b) {
  free(b->s);
  *b = (struct nm__buf){0};
}

void nm__buf_reset(struct nm__buf *b) {
  b->len = 0;
  b->failed = false;
  if (b->s) b->s[0] = 0;
}

static bool buf_room(struct nm__buf *b, size_t n) {
  if (b->failed) return false;
  if (n > b->max || b->len > b->max - n) return !(b->failed = true);
  if (b->s && b->len + n + 1 <= b->cap) return true;
  size_t cap = b->cap ? b->cap : 64;
  while (cap < b->len + n + 1) cap *= 2;
  char *s = realloc(b->s, cap);
  if (!s) return !(b->failed = true);
  b->s = s;
  b->cap = cap;
  return true;
}

void nm__buf_put(struct nm__buf *b, const void *bytes, size_t n) {
  if (!buf_room(b, n)) return;
  if (n) memcpy(b->s + b->len, bytes, n);
  b->len += n;
  b->s[b->len] = 0;
}

void nm__buf_puts(struct nm__buf *b, const char *s) { nm__buf_put(b, s, strlen(s)); }

void nm__buf_putc(struct nm__buf *b, int c) {
  char ch = (char)c;
  nm__buf_put(b, &ch, 1);
}

void nm__buf_printf(struct nm__buf *b, const char *fmt, ...) {
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  int n = vsnprintf(NULL, 0, fmt, ap);
  va_end(ap);
  if (n >= 0 && buf_room(b, (size_t)n)) {
    vsnprintf(b->s + b->len, (size_t)n + 1, fmt, again);
    b->len += (size_t)n;
  }
  va_end(again);
}

void nm_free(void *p) { free(p); }
