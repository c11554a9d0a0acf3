/* train_run.h - a folder of its own for a test of training, files in it, and runs of recipes. */
#ifndef NM_TESTS_TRAIN_RUN_H
#define NM_TESTS_TRAIN_RUN_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/core.h"

static char dir[64], path_of[256];

static inline const char *at(const char *name) {
  snprintf(path_of, sizeof path_of, "%s/%s", dir, name);
  return path_of;
}

static inline void write_text(const char *name, const char *text) {
  nm_err err;
  if (nm__write_file(at(name), text, strlen(text), &err)) fail_msg("%s", err.text);
}

static inline char *read_all(const char *path, size_t *n) {
  struct nm__map m;
  nm_err err;
  if (nm__map_open(path, &m, &err)) fail_msg("%s", err.text);
  *n = m.size;
  char *copy = malloc(m.size + 1);
  memcpy(copy, m.data, m.size);
  nm__map_close(&m);
  return copy;
}

static inline void same_files(const char *a, const char *b) {
  char pa[256], pb[256];
  size_t n, k;
  snprintf(pa, sizeof pa, "%s/%s", dir, a);
  snprintf(pb, sizeof pb, "%s/%s", dir, b);
  char *x = read_all(pa, &n), *y = read_all(pb, &k);
  if (n != k || memcmp(x, y, n)) fail_msg("%s and %s differ", a, b);
  free(x);
  free(y);
}

static inline int stop_at(void *arg, const nm_train_step *s) {
  return s->step == *(const int *)arg;
}

/* Trains `text` into the folder `out`; stops after step `stop` (0: never). */
static inline nm_train_result train(const char *text, const char *out, int threads, int stop,
                                    bool resume, int want) {
  char recipe[256], folder[256];
  nm_train_result r;
  nm_err err = {0};
  write_text("r.yaml", text);
  snprintf(recipe, sizeof recipe, "%s", at("r.yaml"));
  snprintf(folder, sizeof folder, "%s", at(out));
  nm_train_opts o = {
      .out = folder, .threads = threads, .resume = resume, .step = stop_at, .arg = &stop};
  int st = nm_train(recipe, &o, &r, &err);
  if (st != want) fail_msg("%s: %d: %s", out, st, err.text);
  return r;
}

static inline int make_dir(void **state) {
  (void)state;
  snprintf(dir, sizeof dir, "/tmp/noema-train.XXXXXX");
  return mkdtemp(dir) ? 0 : -1;
}

static inline int remove_dir(void **state) {
  (void)state;
  char command[100];
  snprintf(command, sizeof command, "rm -rf %s", dir);
  return system(command);
}

#endif
