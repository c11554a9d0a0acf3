/* train_step.c - seconds of a training step: train_step RECIPE FOLDER [THREADS]. Each step is timed
 * by the wall and by the processor time of the process, which others on the machine do not
 * change; the first steps (caches, arenas) do not count. With one thread the second is the
 * figure to compare. Prints the best and the median as tokens a second, and the share of
 * the peak that the recipe's model reaches. The folder must not hold a run. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "noema.h"

enum { MOST = 10000, WARM = 2 };

struct timing {
  double wall[MOST], cpu[MOST], at_wall, at_cpu, share;
  int n, seen;
  unsigned long long tokens;
};

static double seconds(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int step(void *arg, const nm_train_step *s) {
  struct timing *t = arg;
  double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
  if (t->seen++ >= WARM && t->n < MOST) {
    t->wall[t->n] = wall - t->at_wall;
    t->cpu[t->n++] = cpu - t->at_cpu;
  }
  if (s->tokens_per_s > 0) t->share = s->peak_share / s->tokens_per_s;
  t->tokens = (unsigned long long)s->tokens / (unsigned long long)s->step;
  t->at_wall = wall;
  t->at_cpu = cpu;
  return 0;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void show(const struct timing *t, const char *what, double *s) {
  qsort(s, (size_t)t->n, sizeof *s, by_value);
  double best = (double)t->tokens / s[0], median = (double)t->tokens / s[t->n / 2];
  printf("%-4s  best %8.1f tokens/s (%.3f of peak)  median %8.1f (%.3f)\n", what, best,
         best * t->share, median, median * t->share);
}

int main(int n, char **v) {
  static struct timing t;
  nm_err err = {0};
  if (n < 3) return 2;
  nm_train_opts o = {.out = v[2], .threads = n > 3 ? atoi(v[3]) : 1, .step = step, .arg = &t};
  nm_train_result r;
  int st = nm_train(v[1], &o, &r, &err);
  if (st) fprintf(stderr, "train_step: %s\n", err.text);
  if (st || !t.n) return 1;
  show(&t, "wall", t.wall);
  show(&t, "cpu", t.cpu);
  printf("loss %.6f\n", r.loss);
  nm_train_result_free(&r);
  return 0;
}
