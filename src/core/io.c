/* io.c - the clock, mapped files, and writing that survives a crash. */
#include "core/core.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

double nm__now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void nm__utc(char out[32]) {
  time_t t = time(NULL);
  struct tm tm;
  gmtime_r(&t, &tm);
  strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

int nm__progress(const nm_progress *p, const char *what, double done, double total, nm_err *err) {
  if (!p || !p->fn || !p->fn(p->arg, what, done, total)) return NM_OK;
  return nm__fail(err, NM_EINTR, "interrupted while %s (%.0f of %.0f done)", what, done, total);
}

int nm__map_open(const char *path, struct nm__map *m, nm_err *err) {
  *m = (struct nm__map){(const uint8_t *)"", 0};
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return nm__fail(err, NM_EFORMAT, "%s: cannot be opened: %s", path, strerror(errno));
  struct stat st;
  int status = NM_OK;
  if (fstat(fd, &st)) {
    status = nm__fail(err, NM_EFORMAT, "%s: cannot be read: %s", path, strerror(errno));
  } else if (S_ISDIR(st.st_mode)) {
    status = nm__fail(err, NM_EFORMAT, "%s: is a folder, a file is needed", path);
  } else if (!S_ISREG(st.st_mode)) {
    status = nm__fail(err, NM_EFORMAT,
                      "%s: is not a regular file (a pipe or device cannot be mapped)", path);
  } else if (st.st_size > 0) {
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
      status = nm__fail(err, NM_EFORMAT, "%s: cannot be mapped: %s", path, strerror(errno));
    else
      *m = (struct nm__map){p, (size_t)st.st_size};
  }
  close(fd);
  return status;
}

void nm__map_close(struct nm__map *m) {
  if (m->size) munmap((void *)(uintptr_t)m->data, m->size);
  *m = (struct nm__map){(const uint8_t *)"", 0};
}

void nm__map_drop(const struct nm__map *m, size_t from, size_t n) {
  if (!m->size || from >= m->size) return;
  from &= ~(size_t)4095;
  madvise((void *)(uintptr_t)(m->data + from), n < m->size - from ? n : m->size - from,
          MADV_DONTNEED);
}

static int out_error(struct nm__out *o, const char *what, nm_err *err) {
  int status = nm__fail(err, NM_EFAIL, "%s: cannot be %s: %s", o->path ? o->path : "output", what,
                        strerror(errno));
  nm__out_abort(o);
  return status;
}

int nm__out_open(const char *path, struct nm__out *o, nm_err *err) {
  *o = (struct nm__out){.path = nm__strdup(path), .tmp = nm__alloc(strlen(path) + 40, 1)};
  if (!o->path || !o->tmp) return nm__out_abort(o), nm__fail_memory(err, "a file name", 0);
  snprintf(o->tmp, strlen(path) + 40, "%s.tmp.%ld", path, (long)getpid());
  o->f = fopen(o->tmp, "wb");
  return o->f ? NM_OK : out_error(o, "created", err);
}

int nm__out_write(struct nm__out *o, const void *p, size_t n, nm_err *err) {
  if (n && fwrite(p, 1, n, o->f) != n) return out_error(o, "written", err);
  return NM_OK;
}

int nm__out_close(struct nm__out *o, nm_err *err) {
  if (fflush(o->f) || fsync(fileno(o->f))) return out_error(o, "written", err);
  int bad = fclose(o->f);
  o->f = NULL;
  if (bad || rename(o->tmp, o->path)) return out_error(o, "put in place", err);
  free(o->tmp);
  o->tmp = NULL;
  nm__out_abort(o);
  return NM_OK;
}

void nm__out_abort(struct nm__out *o) {
  if (o->f) fclose(o->f);
  if (o->tmp) unlink(o->tmp);
  free(o->tmp);
  free(o->path);
  *o = (struct nm__out){0};
}

int nm__write_file(const char *path, const void *p, size_t n, nm_err *err) {
  struct nm__out o;
  int st = nm__out_open(path, &o, err);
  if (!st) st = nm__out_write(&o, p, n, err);
  return st ? st : nm__out_close(&o, err);
}

int nm__mkdirs(const char *path, nm_err *err) {
  char *s = nm__strdup(path);
  if (!s) return nm__fail_memory(err, "a path", 0);
  for (char *p = s + 1; ; p++) {
    if (*p != '/' && *p != 0) continue;
    char c = *p;
    *p = 0;
    if (mkdir(s, 0777) && errno != EEXIST) {
      int st = nm__fail(err, NM_EFAIL, "%s: cannot be created: %s", s, strerror(errno));
      free(s);
      return st;
    }
    *p = c;
    if (!c) break;
  }
  free(s);
  struct stat sb;
  if (stat(path, &sb) || !S_ISDIR(sb.st_mode))
    return nm__fail(err, NM_EFAIL, "%s: is not a folder", path);
  return NM_OK;
}

char *nm__folder_name(const char *path) {
  size_t n = strlen(path);
  while (n > 1 && path[n - 1] == '/') n--;
  return nm__strndup(path, n);
}

bool nm__exists(const char *path) { return access(path, F_OK) == 0; }

char *nm__path_join(const char *dir, const char *name) {
  size_t n = strlen(dir) + strlen(name) + 2;
  char *s = nm__alloc(n, 1);
  if (s) snprintf(s, n, "%s%s%s", dir, *dir && dir[strlen(dir) - 1] == '/' ? "" : "/", name);
  return s;
}

const char *nm__path_base(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}
