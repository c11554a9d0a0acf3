/* bench.h - what the files of `noema bench` share: the list of figures, and how one is taken. */
#ifndef NM_CLI_BENCH_H
#define NM_CLI_BENCH_H

#include "cli/cli.h"

/* One line of the report. lo, hi: the least and the most that was seen (equal: once). */
struct figure {
  char name[48];
  double value, lo, hi;
  const char *unit;
  double share;                    /* of the limit `of`; 0: has none */
  const char *of;
  char note[200];
};
enum { MOST_FIGURES = 128, MOST_ROUNDS = 32 };

struct bench {
  struct cli *c;
  struct cli_input *in;
  nm_model_info i;
  nm_meter *meter;
  nm_seq prompt;                   /* the timed tokens */
  size_t n_decode;
  int rounds;
  struct figure fig[MOST_FIGURES];
  int n_fig;
};

double bench_now(void);
/* Median, least and most of n values, which it sorts. */
struct figure *bench_add(struct bench *b, const char *name, double *v, int n, const char *unit);
/* The limit as it is now, and the share of it that `achieved` is. */
void bench_share(struct bench *b, struct figure *f, enum nm_limit limit, double achieved);
/* Tokens a second of "prefill" or "decode", one a round, with the share of their limit. */
void bench_figure(struct bench *b, const char *what, double *rate);
/* Seconds of the prompt, and of n_decode tokens one after the other. Status. */
int bench_prefill(struct bench *b, double *seconds, nm_err *err);
int bench_decode(struct bench *b, double *seconds, nm_err *err);
/* Parts of the report; exit codes. */
int bench_capture(struct bench *b);
int bench_busy(struct bench *b);
int bench_peer(struct bench *b, const char *what, const char *command, const char *pattern);

#endif
