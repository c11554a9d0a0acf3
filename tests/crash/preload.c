/* preload.c - ends the process at the n-th call that changes a file. Built as a shared object and
 * loaded with LD_PRELOAD by tests/cli/crash_test.sh.
 *
 *   CRASH_AT=n      at the n-th write, fsync, rename, unlink or mkdir the process ends; of a write,
 *                   half of the bytes have gone out
 *   CRASH_POWER=1   and as after a loss of power: what was not fsynced is empty, and what was
 *                   renamed in a folder not fsynced since has its old name
 *   CRASH_COUNT=f   the number of such calls goes to the file f when the process ends by itself
 *
 * The C library's streams write past the names of its own functions, so a stream that is opened
 * for writing here is one whose bytes come through `put`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_FD = 1024, MOST_RENAMED = 64 };

static long count, crash_at;
static int power;
static char dirty[MOST_FD];        /* written since the last fsync */
static struct { FILE *f; int fd; } stream[16];
static struct { char from[PATH_MAX], to[PATH_MAX]; } renamed[MOST_RENAMED];
static int n_renamed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(type, name, ...)                                                        \
  static type (*real)(__VA_ARGS__);                                                  \
  if (!real) real = (type (*)(__VA_ARGS__))(uintptr_t)dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void start(void) {
  const char *at = getenv("CRASH_AT");
  crash_at = at ? atol(at) : 0;
  power = getenv("CRASH_POWER") != NULL;
}

__attribute__((destructor)) static void finish(void) {
  const char *path = getenv("CRASH_COUNT");
  REAL(ssize_t, write, int, const void *, size_t);
  int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
  char text[32];
  int n = snprintf(text, sizeof text, "%ld\n", count);
  if (fd >= 0 && real(fd, text, (size_t)n) != n) _exit(99);
}

/* True when this is the call that does not return. */
static int is_last(void) {
  pthread_mutex_lock(&lock);
  int last = ++count == crash_at;
  pthread_mutex_unlock(&lock);
  return last;
}

static void end(void) {
  REAL(int, rename, const char *, const char *);
  for (int fd = 0; power && fd < MOST_FD; fd++)
    if (dirty[fd] && ftruncate(fd, 0)) _exit(98);
  while (power && n_renamed-- > 0) real(renamed[n_renamed].to, renamed[n_renamed].from);
  _exit(97);
}

static int is_file(int fd) {
  struct stat s;
  return fd > 2 && !fstat(fd, &s) && S_ISREG(s.st_mode);
}

ssize_t write(int fd, const void *p, size_t n) {
  REAL(ssize_t, write, int, const void *, size_t);
  if (!is_file(fd)) return real(fd, p, n);
  if (fd < MOST_FD) dirty[fd] = 1;
  if (!is_last()) return real(fd, p, n);
  ssize_t half = real(fd, p, n / 2);
  (void)half;
  end();
  return -1;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at) {
  REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
  if (is_last()) end();
  return real(fd, p, n, at);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off_t at) { return pwrite(fd, p, n, at); }

int fsync(int fd) {
  REAL(int, fsync, int);
  struct stat s;
  if (is_last()) end();
  if (fd >= 0 && fd < MOST_FD) dirty[fd] = 0;
  if (!fstat(fd, &s) && S_ISDIR(s.st_mode)) n_renamed = 0;
  return real(fd);
}

int fdatasync(int fd) { return fsync(fd); }

int rename(const char *from, const char *to) {
  REAL(int, rename, const char *, const char *);
  if (is_last()) end();
  if (access(to, F_OK) && n_renamed < MOST_RENAMED) {
    snprintf(renamed[n_renamed].from, PATH_MAX, "%s", from);
    snprintf(renamed[n_renamed++].to, PATH_MAX, "%s", to);
  }
  return real(from, to);
}

int unlink(const char *path) {
  REAL(int, unlink, const char *);
  if (is_last()) end();
  return real(path);
}

int mkdir(const char *path, mode_t mode) {
  REAL(int, mkdir, const char *, mode_t);
  if (is_last()) end();
  return real(path, mode);
}

/* ---- streams ------------------------------------------------------------------- */

static ssize_t put(void *cookie, const char *p, size_t n) {
  return write((int)(intptr_t)cookie, p, n);
}

static int shut(void *cookie) {
  int fd = (int)(intptr_t)cookie;
  for (int i = 0; i < 16; i++)
    if (stream[i].f && stream[i].fd == fd) stream[i].f = NULL;
  int more = dirty[fd] ? fcntl(fd, F_DUPFD_CLOEXEC, MOST_FD / 2) : -1;
  if (more >= 0 && more < MOST_FD) dirty[more] = 1;      /* closed is not fsynced */
  dirty[fd] = 0;
  return close(fd);
}

FILE *fopen(const char *path, const char *mode) {
  REAL(FILE *, fopen, const char *, const char *);
  if ((mode[0] != 'w' && mode[0] != 'a') || strchr(mode, '+')) return real(path, mode);
  int how = mode[0] == 'a' ? O_APPEND : O_TRUNC, i = 0;
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | how, 0666);
  if (fd < 0) return NULL;
  FILE *f = fopencookie((void *)(intptr_t)fd, "w", (cookie_io_functions_t){.write = put,
                                                                           .close = shut});
  while (i < 15 && stream[i].f) i++;
  stream[i].f = f;
  stream[i].fd = fd;
  return f;
}

FILE *fopen64(const char *path, const char *mode) { return fopen(path, mode); }

int fileno(FILE *f) {
  REAL(int, fileno, FILE *);
  for (int i = 0; i < 16; i++)
    if (stream[i].f == f) return stream[i].fd;
  return real(f);
}
