/* record.c - a run as its folder and its row in the store, in three calls: for verbs that write a
 * folder of results. */
#include "report/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *own_name(const char *verb) {
  char name[96], utc[32];
  nm__utc(utc);
  for (char *c = utc; *c; c++) if (*c == ':') *c = '-';
  snprintf(name, sizeof name, "%s-%s-%d", verb, utc, (int)getpid());
  return nm__path_join("runs", name);
}

/* Where runs.db lies: the folder above. */
static char *root_of(const char *dir) {
  const char *slash = strrchr(dir, '/');
  if (!slash) return nm__strdup(".");
  return slash > dir ? nm__strndup(dir, (size_t)(slash - dir)) : nm__strdup("/");
}

int nm__record_begin(struct nm__record *r, const char *verb, const char *dir, const char *finished,
                     const char *model, const char *command, nm_err *err) {
  *r = (struct nm__record){.start = nm__now()};
  r->dir = dir ? nm__strdup(dir) : own_name(verb);
  size_t n = r->dir ? strlen(r->dir) : 0;
  while (n > 1 && r->dir[n - 1] == '/') r->dir[--n] = 0;
  char *root = n ? root_of(r->dir) : NULL, *done = NULL;
  if (n) done = finished ? nm__path_join(r->dir, finished) : nm__strdup("");
  int st = NM_OK;
  if (!root || !done) st = nm__fail_memory(err, "a folder name", 0);
  else if (nm__exists(done))
    st = nm__fail(err, NM_EUSAGE, "%s already holds a finished run: choose another -o", r->dir);
  if (!st) st = nm__mkdirs(r->dir, err);
  if (!st) st = nm__runs_open(root, &r->runs, err);
  if (!st)
    st = nm__runs_begin(r->runs, verb, r->dir, model, command ? command : "", &r->id, err);
  free(root);
  free(done);
  return st;
}

void nm__record_end(struct nm__record *r, int st, const char *summary, const nm_err *err) {
  const char *status = !st ? "done" : st == NM_EINTR ? "interrupted" : "failed";
  if (r->id)
    nm__runs_end(r->runs, r->id, status, !st && summary ? summary : err ? err->text : "",
                 nm__now() - r->start, NULL);
  nm__runs_close(r->runs);
  free(r->dir);
  *r = (struct nm__record){0};
}

int nm__record_put(const struct nm__record *r, const char *name, const struct nm__buf *b,
                   nm_err *err) {
  char *path = nm__path_join(r->dir, name);
  int st = path && b->s && !b->failed ? nm__write_file(path, b->s, b->len, err)
                                      : nm__fail_memory(err, name, b->len);
  free(path);
  return st;
}
