/* roofline.c - roofline F32 BF16 READ OUT.svg < POINTS: a figure of what was reached, operations a
 * second over operations a byte, under what the machine can do (GFLOP/s, GFLOP/s or 0, GB/s). A
 * point a line: GROUP, operations a byte, GFLOP/s. Both axes are logarithms to the base 10. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/report.h"

enum { MOST = 400, GROUPS = 6, STEPS = 120 };

struct group { char name[40]; double x[2 * MOST], y[2 * MOST]; int n; };

static struct group *group_of(struct group *g, int *n, const char *name) {
  for (int i = 0; i < *n; i++)
    if (!strcmp(g[i].name, name)) return &g[i];
  if (*n == GROUPS) return &g[GROUPS - 1];
  snprintf(g[*n].name, sizeof g[*n].name, "%s", name);
  return &g[(*n)++];
}

/* Each point stands alone: what follows it breaks the line. */
static int read_points(struct group *g) {
  char name[40];
  double x, y;
  int n = 0;
  while (scanf("%39s %lf %lf", name, &x, &y) == 3) {
    struct group *to = group_of(g, &n, name);
    if (to->n + 2 > 2 * MOST || !(y > 0)) continue;
    if (x < 0.01) x = 0.01;
    to->x[to->n] = log10(x);
    to->y[to->n++] = log10(y);
    to->x[to->n] = log10(x);
    to->y[to->n++] = NAN;
  }
  return n;
}

static struct nm__series roof(const char *name, double peak, double read, double *x, double *y,
                              int colour) {
  for (int i = 0; i <= STEPS; i++) {
    x[i] = -1 + 4.5 * i / STEPS;
    double reach = pow(10, x[i]) * read;
    y[i] = log10(reach < peak ? reach : peak);
  }
  return (struct nm__series){.name = name, .x = x, .y = y, .n = STEPS + 1, .colour = colour,
                             .faint = true};
}

int main(int argc, char **argv) {
  static struct group g[GROUPS];
  static double rx[2][STEPS + 1], ry[2][STEPS + 1];
  struct nm__series s[GROUPS + 2];
  char sub[200];
  nm_err err = {0};
  if (argc != 5) return 2;
  double f32 = strtod(argv[1], NULL), bf16 = strtod(argv[2], NULL), read = strtod(argv[3], NULL);
  if (!(f32 > 0) || !(read > 0)) return 2;
  int n = 0, groups = read_points(g);
  s[n++] = roof("f32 limit", f32, read, rx[0], ry[0], 0);
  if (bf16 > 0) s[n++] = roof("bf16 limit", bf16, read, rx[1], ry[1], 1);
  for (int i = 0; i < groups; i++)
    s[n++] = (struct nm__series){.name = g[i].name, .x = g[i].x, .y = g[i].y, .n = g[i].n,
                                 .colour = 2 + i};
  snprintf(sub, sizeof sub, "f32 %.0f GFLOP/s, bf16 %.0f GFLOP/s, memory %.1f GB/s, measured in the "
           "same minutes", f32, bf16, read);
  struct nm__chart c = {.title = "What was reached under what this machine can do", .subtitle = sub,
                        .x_label = "log10 of operations a byte of memory",
                        .y_label = "log10 of GFLOP/s", .y_lo = -1, .y_hi = 3, .series = s,
                        .n_series = n};
  struct nm__buf b;
  nm__buf_init(&b, 1 << 22);
  nm__chart_svg(&c, &b);
  int st = b.failed ? 4 : nm__write_file(argv[4], b.s, b.len, &err);
  if (st) fprintf(stderr, "roofline: %s\n", err.text);
  nm__buf_done(&b);
  return st ? 1 : 0;
}
