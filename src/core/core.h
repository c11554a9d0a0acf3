/* core.h - what every folder of the house stands on: errors, memory, strings,
 * random numbers, hashes, threads, files. No maths and no models here.
 *
 * Ownership: whoever calls a *_new or *_open owns the result and calls the
 * matching *_free or *_close; both accept NULL.
 * Errors: functions return 0 or a negative nm_status and leave one sentence in
 * the caller's nm_err (which may be NULL).
 * Threads: nothing here keeps global state except the allocation counter. */
#ifndef NM_CORE_H
#define NM_CORE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "noema.h"

/* ---- errors ---------------------------------------------------------- */

/* Writes the sentence and returns the status, so that a failing function ends
 * in `return nm__fail(err, NM_EFORMAT, "...", ...)`. */
int nm__fail(nm_err *err, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Puts "PREFIX: " in front of a sentence that is there already; returns status. */
int nm__fail_at(nm_err *err, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int nm__fail_memory(nm_err *err, const char *what, size_t bytes);
/* Returns s with bytes that would upset a terminal replaced by '?', cut at n-1.
 * For quoting names out of hostile files in messages. */
const char *nm__printable(char *out, size_t n, const char *s, size_t len);

/* ---- memory ---------------------------------------------------------- */

/* Overflow-checked n * size allocations; NULL when it cannot be had. */
void *nm__alloc(size_t n, size_t size);   /* zeroed */
/* The same for numbers that are read by the register: on a cache line, large ones on large pages
 * where the system has them. free() gives both back. */
void *nm__alloc_lines(size_t n, size_t size);
void *nm__realloc(void *p, size_t n, size_t size);
char *nm__strdup(const char *s);
char *nm__strndup(const char *s, size_t n);

/* An arena hands out 64-byte aligned pieces that are released together, back
 * to a mark. In measure mode it only counts: pieces have no memory behind them.
 * `peak` is the most that was ever out at once, the figure of --dry-run. */
struct nm__arena {
  char *base;
  size_t cap, used, peak;
  bool measure;
};
int nm__arena_init(struct nm__arena *a, size_t cap, nm_err *err); /* cap 0: measure mode */
void nm__arena_done(struct nm__arena *a);
/* NULL when the arena is full (a defect: capacities come from a measure pass).
 * In measure mode a non-NULL poison pointer that must not be read. */
void *nm__arena_take(struct nm__arena *a, size_t bytes);

/* A growing byte string with a stated maximum. `failed` is sticky: append as
 * often as you like and look once at the end. Always zero-terminated. */
struct nm__buf {
  char *s;
  size_t len, cap, max;
  bool failed;
};
void nm__buf_init(struct nm__buf *b, size_t max);
void nm__buf_done(struct nm__buf *b);
void nm__buf_put(struct nm__buf *b, const void *bytes, size_t n);
void nm__buf_puts(struct nm__buf *b, const char *s);
void nm__buf_putc(struct nm__buf *b, int c);
void nm__buf_printf(struct nm__buf *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void nm__buf_reset(struct nm__buf *b);

/* ---- random numbers -------------------------------------------------- */

/* Counter-based: the i-th number of (seed, stream) never depends on who drew
 * before, so results do not depend on the order of work. */
uint64_t nm__mix64(uint64_t x);
uint64_t nm__rand_at(uint64_t seed, uint64_t stream, uint64_t i);
struct nm__rng { uint64_t seed, stream, i; };
uint64_t nm__rng_u64(struct nm__rng *r);
uint64_t nm__rng_below(struct nm__rng *r, uint64_t n);   /* unbiased, n > 0 */
double nm__rng_unit(struct nm__rng *r);                  /* [0, 1) */
void nm__rng_shuffle(struct nm__rng *r, uint32_t *v, size_t n);

/* ---- hashes ---------------------------------------------------------- */

uint64_t nm__hash(const void *p, size_t n, uint64_t seed);
/* 32 lower-case hex digits of the 128-bit hash of a file's bytes. */
int nm__hash_file(const char *path, char hex[33], nm_err *err);
void nm__hash_hex(const void *p, size_t n, char hex[33]);

/* ---- threads --------------------------------------------------------- */

/* A small pool: n-1 helpers and the caller. Tiles are handed out dynamically;
 * which thread takes a tile never changes a result. The caller finishes all
 * tiles itself if need be and waits only for those a helper has taken. Helpers
 * spin briefly, then sleep. One run at a time; not reentrant. */
struct nm__pool;
int nm__pool_new(int n_threads, struct nm__pool **out, nm_err *err);
void nm__pool_free(struct nm__pool *p);
int nm__pool_size(const struct nm__pool *p);      /* 1 for NULL */
/* fn(arg, tile, thread) for tile 0..n_tiles-1; thread < size. NULL pool: inline. */
void nm__pool_run(struct nm__pool *p, int n_tiles,
                  void (*fn)(void *arg, int tile, int thread), void *arg);

/* ---- clock, progress ------------------------------------------------- */

double nm__now(void);                 /* seconds, monotonic */
void nm__utc(char out[32]);           /* 2026-01-31T12:00:00Z */
/* Calls the user's progress function; NM_EINTR when it asks to stop, else 0. */
int nm__progress(const nm_progress *p, const char *what, double done, double total,
                 nm_err *err);

/* ---- files ----------------------------------------------------------- */

/* A whole file mapped read-only. Empty files give size 0 and data "". */
struct nm__map { const uint8_t *data; size_t size; };
int nm__map_open(const char *path, struct nm__map *m, nm_err *err);
void nm__map_close(struct nm__map *m);
/* Gives the pages back to the system, which reads them again when they are needed. */
void nm__map_drop(const struct nm__map *m, size_t from, size_t n);
/* nm__hash_hex of a mapped file, without keeping all of it in memory. */
void nm__hash_map(const struct nm__map *m, char hex[33]);

/* Writing: to PATH.tmp.PID, then fsync and rename, so that a crash loses nothing
 * that was finished. nm__out_abort removes the temporary file. */
struct nm__out { void *f; char *path, *tmp; };
int nm__out_open(const char *path, struct nm__out *o, nm_err *err);
int nm__out_write(struct nm__out *o, const void *p, size_t n, nm_err *err);
int nm__out_close(struct nm__out *o, nm_err *err);
void nm__out_abort(struct nm__out *o);
int nm__write_file(const char *path, const void *p, size_t n, nm_err *err);
int nm__mkdirs(const char *path, nm_err *err);    /* like mkdir -p */
bool nm__exists(const char *path);
/* "dir/name" in a fresh string. */
char *nm__path_join(const char *dir, const char *name);
char *nm__folder_name(const char *path);          /* without slashes at its end */
const char *nm__path_base(const char *path);

#endif
