/* bench_peer.c - noema beside another program, in turns; and noema while a foreign process takes
 * a core, which is how a small machine is on most days. */
#define _GNU_SOURCE
#include "cli/bench.h"

#include <errno.h>
#include <regex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a peer ------------------------------------------------------------------ */

/* The last number of the text, or the first group of the pattern. */
static bool figure_in(const char *text, const regex_t *pattern, double *out) {
  regmatch_t m[2];
  if (pattern) {
    if (regexec(pattern, text, 2, m, 0) || m[1].rm_so < 0) return false;
    *out = strtod(text + m[1].rm_so, NULL);
    return true;
  }
  bool found = false;
  for (const char *s = text; *s;) {
    char *end;
    double v = (*s >= '0' && *s <= '9') ? strtod(s, &end) : 0;
    if (*s < '0' || *s > '9') {
      s++;
      continue;
    }
    *out = v;
    found = true;
    s = end;
  }
  return found;
}

/* Runs the command through sh; what it prints decides. */
static int run_peer(struct bench *b, const char *command, const regex_t *pattern, double *out) {
  static char text[1 << 16];
  fflush(stdout);
  FILE *f = popen(command, "r");
  size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
  char rest[4096];
  while (f && fread(rest, 1, sizeof rest, f)) continue;
  int st = f ? pclose(f) : -1;
  text[n] = 0;
  if (cli_interrupted()) return 130;
  nm_err err = {NM_EFAIL, ""};
  if (st)
    snprintf(err.text, sizeof err.text, "the peer '%.200s' ended with code %d", command,
             WIFEXITED(st) ? WEXITSTATUS(st) : st);
  else if (!figure_in(text, pattern, out) || !(*out > 0))
    snprintf(err.text, sizeof err.text,
             "the peer '%.200s' printed no figure (%s); it printed '%.100s'", command,
             pattern ? "--peer-pattern found none" : "the last number is taken", text);
  return *err.text ? cli_fail(b->c, &err) : 0;
}

/* What the command may use: the model, threads and tokens of this bench, and which figure is
 * compared. */
static void environment(struct bench *b, const char *what) {
  char num[32];
  setenv("MODEL", b->c->pos[0], 1);
  setenv("WHAT", what, 1);
  snprintf(num, sizeof num, "%d", nm_engine_threads(b->in->e));
  setenv("THREADS", num, 1);
  snprintf(num, sizeof num, "%zu", strcmp(what, "decode") ? b->prompt.n : b->n_decode);
  setenv("TOKENS", num, 1);
}

int bench_peer(struct bench *b, const char *what, const char *command, const char *pattern) {
  bool decode = !strcmp(what, "decode");
  double ours[MOST_ROUNDS], theirs[MOST_ROUNDS], ratio[MOST_ROUNDS];
  regex_t re;
  nm_err err = {0};
  char name[48];
  if (pattern && regcomp(&re, pattern, REG_EXTENDED | REG_NEWLINE))
    return cli_usage(b->c, "--peer-pattern '%s' is no regular expression", pattern);
  environment(b, what);
  int st = 0;
  for (int r = 0; r < b->rounds && !st; r++) {
    double s;
    if ((decode ? bench_decode : bench_prefill)(b, &s, &err)) st = cli_fail(b->c, &err);
    ours[r] = (double)(decode ? b->n_decode : b->prompt.n) / s;
    cli_progress_end();
    if (!st) st = run_peer(b, command, pattern ? &re : NULL, &theirs[r]);
    ratio[r] = st ? 0 : ours[r] / theirs[r];
  }
  if (pattern) regfree(&re);
  if (st) return st;
  bench_figure(b, what, ours);
  snprintf(name, sizeof name, "%s of the peer", what);
  bench_add(b, name, theirs, b->rounds, "tokens/s");
  snprintf(name, sizeof name, "%s: noema / peer", what);
  bench_add(b, name, ratio, b->rounds, "x");
  return 0;
}

/* ---- a foreign process --------------------------------------------------------- */

/* A process that computes on the last core until it is killed (or we are). */
static pid_t take_a_core(void) {
  cpu_set_t mine, last;
  int core = -1;
  if (!sched_getaffinity(0, sizeof mine, &mine))
    for (int k = 0; k < CPU_SETSIZE; k++)
      if (CPU_ISSET(k, &mine)) core = k;
  pid_t pid = fork();
  if (pid) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
  CPU_ZERO(&last);
  if (core >= 0) {
    CPU_SET(core, &last);
    sched_setaffinity(0, sizeof last, &last);
  }
  for (volatile unsigned long n = 0;; n++) continue;
}

static int kept(struct bench *b, int (*time_it)(struct bench *, double *, nm_err *),
                const char *name) {
  double share[MOST_ROUNDS], idle, busy;
  nm_err err = {0};
  for (int r = 0; r < b->rounds; r++) {
    if (time_it(b, &idle, &err)) return cli_fail(b->c, &err);
    pid_t pid = take_a_core();
    if (pid < 0) {
      snprintf(err.text, sizeof err.text, "cannot start a process: %s", strerror(errno));
      return cli_fail(b->c, &err);
    }
    usleep(50000);
    int st = time_it(b, &busy, &err);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    if (st) return cli_fail(b->c, &err);
    share[r] = idle / busy;
  }
  struct figure *f = bench_add(b, name, share, b->rounds, "of idle");
  int n = nm_engine_threads(b->in->e);
  snprintf(f->note, sizeof f->note, "one core shared with a foreign process; fair: %.2f",
           (n - 0.5) / n);
  return 0;
}

int bench_busy(struct bench *b) {
  int st = kept(b, bench_prefill, "prefill while busy");
  return st || b->i.encoder ? st : kept(b, bench_decode, "decode while busy");
}
