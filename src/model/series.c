/* series.c - the models of a training run by step, and DIR@STEP as a path. */
#include "model/series.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEP_DIGITS = 9 };          /* no run has more steps */

/* "step-000200.END"; the one way to write a step, so that a name can be compared. */
static void file_name(char out[64], int64_t step, const char *end) {
  snprintf(out, 64, "step-%06lld.%.20s", (long long)step, end);
}

char *nm__series_file(const char *dir, int64_t step, const char *end) {
  char name[64], *folder = nm__path_join(dir, NM__SERIES_FOLDER);
  file_name(name, step, end);
  char *path = folder ? nm__path_join(folder, name) : NULL;
  free(folder);
  return path;
}

/* Digits up to the end or up to `stop`; -1: anything else. */
static int64_t step_of(const char *s, const char *stop) {
  int64_t v = 0;
  size_t n = stop ? (size_t)(stop - s) : strlen(s);
  if (n < 1 || n > STEP_DIGITS) return -1;
  for (size_t i = 0; i < n; i++) {
    if (s[i] < '0' || s[i] > '9') return -1;
    v = 10 * v + (s[i] - '0');
  }
  return v;
}

static int rising(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static int add(int64_t **v, size_t *n, int64_t step, nm_err *err) {
  if ((*n & (*n - 1)) == 0) {      /* full at every power of two */
    int64_t *more = nm__realloc(*v, *n ? 2 * *n : 1, sizeof *more);
    if (!more) return nm__fail_memory(err, "the list of checkpoints", 2 * *n * sizeof *more);
    *v = more;
  }
  (*v)[(*n)++] = step;
  return NM_OK;
}

int nm__series_list(const char *dir, const char *end, int64_t **steps, size_t *n, nm_err *err) {
  char *folder = nm__path_join(dir, NM__SERIES_FOLDER), name[64];
  int st = NM_OK;
  *steps = NULL;
  *n = 0;
  if (!folder) return nm__fail_memory(err, "a path", strlen(dir));
  DIR *d = opendir(folder);
  if (!d && errno != ENOENT && errno != ENOTDIR)
    st = nm__fail(err, NM_EFORMAT, "%s: cannot be read: %s", folder, strerror(errno));
  for (struct dirent *e; d && !st && (e = readdir(d));) {
    const char *dot = strchr(e->d_name, '.');
    int64_t step = dot && !strncmp(e->d_name, "step-", 5) ? step_of(e->d_name + 5, dot) : -1;
    file_name(name, step, end);
    if (step >= 0 && !strcmp(name, e->d_name)) st = add(steps, n, step, err);
  }
  if (d) closedir(d);
  free(folder);
  if (!st && *n) qsort(*steps, *n, sizeof **steps, rising);
  if (st) free(*steps), *steps = NULL, *n = 0;
  return st;
}

/* ---- DIR@STEP ---------------------------------------------------------------- */

/* "100, 200, 300 and 400"; of many the first two and the last three. */
static void tell(struct nm__buf *b, const int64_t *v, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (n > 12 && i == 2) {
      nm__buf_puts(b, ", ...");
      i = n - 3;
    }
    nm__buf_printf(b, "%s%lld", i == 0 ? "" : i + 1 == n ? " and " : ", ", (long long)v[i]);
  }
}

static int no_such_step(const char *dir, const char *word, const int64_t *v, size_t n,
                        nm_err *err) {
  struct nm__buf b;
  if (!n)
    return nm__fail(err, NM_EFORMAT, "%s@%s: there are no models in %s/%s (training writes "
                    "step-000100.gguf and so on there)", dir, word, dir, NM__SERIES_FOLDER);
  nm__buf_init(&b, 1 << 12);
  tell(&b, v, n);
  int st = nm__fail(err, NM_EFORMAT, "%s@%s: is not a step of this series; it has %s, and 'latest'",
                    dir, word, b.failed ? "others" : b.s);
  nm__buf_done(&b);
  return st;
}

static int find(const char *dir, const char *word, char **out, nm_err *err) {
  int64_t *v, step = step_of(word, NULL);
  size_t n, i = 0;
  int st = nm__series_list(dir, "gguf", &v, &n, err);
  if (st) return st;
  if (n && !strcmp(word, "latest")) step = v[n - 1];
  while (i < n && v[i] != step) i++;
  if (i == n) st = no_such_step(dir, word, v, n, err);
  else if (!(*out = nm__series_file(dir, step, "gguf"))) st = nm__fail_memory(err, "a path", 0);
  free(v);
  return st;
}

int nm__series_path(const char *path, char **out, nm_err *err) {
  const char *at = strrchr(path, '@');
  *out = NULL;
  if (!at || at == path || nm__exists(path)) return NM_OK;
  char *dir = nm__strndup(path, (size_t)(at - path));
  if (!dir) return nm__fail_memory(err, "a path", strlen(path));
  bool step = step_of(at + 1, NULL) >= 0 || !strcmp(at + 1, "latest");
  char *folder = nm__path_join(dir, NM__SERIES_FOLDER);
  int st = NM_OK;
  if (folder && (step || nm__exists(folder))) st = find(dir, at + 1, out, err);
  free(folder);
  free(dir);
  return st;
}
