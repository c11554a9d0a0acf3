/* study.c - noema study: published findings tested in miniature, with their controls. */
#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_opt opts[] = {
    {"--seeds", CLI_TEXT, "1,2,3", "seeds of training and sampling (default 1,2,3)"},
    {"--quick", CLI_FLAG, NULL, "seconds instead of minutes: shows that it runs, proves nothing"},
    {"--fault", CLI_TEXT, "NAME", "put a known mistake in; the study must not pass"},
    {"--json", CLI_FLAG, NULL, "print study.json instead of tables"},
    {"-o, --out", CLI_TEXT, "DIR", "folder of the run; finished seeds in it are not run again"},
    {"-t, --threads", CLI_INT, "N", "threads (default: all cores)"},
    {0}};

enum { MAX_SEEDS = 16 };

static int list(void) {
  nm_study_info s;
  for (int i = 0; nm_studies(i, &s); i++) {
    printf("%s\n  %s\n  %s\n", s.name, s.about, s.source);
    for (const nm_study_fault *f = s.faults; f->name; f++)
      printf("  --fault %-17s %s\n", f->name, f->about);
  }
  return 0;
}

static int read_seeds(struct cli *c, uint64_t *v, int *n) {
  const char *s = cli_text(c, "seeds");
  for (*n = 0; s && *s; s += *s == ',') {
    char *end;
    errno = 0;
    if (*n == MAX_SEEDS) return cli_usage(c, "--seeds: at most %d", MAX_SEEDS);
    v[*n] = strtoull(s, &end, 10);
    if (*s < '0' || *s > '9' || errno || v[*n] > 1u << 30 || (*end && *end != ','))
      return cli_usage(c, "--seeds takes whole numbers with commas between them, not '%s'", s);
    for (int i = 0; i < *n; i++)
      if (v[i] == v[*n]) return cli_usage(c, "--seeds: %llu twice", (unsigned long long)v[i]);
    ++*n;
    s = end;
  }
  if (s && !*n) return cli_usage(c, "--seeds: no seed given");
  return 0;
}

static int run(struct cli *c) {
  nm_err err = {0};
  uint64_t seeds[MAX_SEEDS];
  nm_study_opts o = {.seeds = seeds, .quick = cli_flag(c, "quick"), .fault = cli_text(c, "fault"),
                     .out = cli_text(c, "out"), .threads = (int)cli_int(c, "threads", 0),
                     .command = c->command, .progress = &cli_progress};
  nm_study_result r;
  if (!c->n_pos) return list();
  if (c->n_pos > 1) return cli_usage(c, "one study at a time");
  if (cli_int(c, "threads", 0) < 0 || cli_int(c, "threads", 0) > 1024)
    return cli_usage(c, "--threads is out of range");
  if (read_seeds(c, seeds, &o.n_seeds)) return 2;
  cli_catch_interrupt();
  if (nm_study(c->pos[0], &o, &r, &err)) return cli_fail(c, &err);
  cli_progress_end();
  fputs(cli_flag(c, "json") ? r.json : r.text, stdout);
  if (cli_flag(c, "json")) putchar('\n');
  fprintf(stderr, "%s/report.html\n", r.dir);
  int verdict = r.verdict;
  nm_study_result_free(&r);
  return nm_exit_code(verdict);
}

const struct cli_verb cli_study = {
    "study",
    "published findings tested in miniature, with controls and a verdict",
    "study [NAME [--seeds 1,2,3] [--quick] [--fault NAME] [--json] [-o DIR]]",
    "Without a name it lists the studies and the mistakes they can be given. A study trains what\n"
    "it needs from nothing, measures the effect and the controls that must fail, and ends in a\n"
    "verdict: exit 0 pass, 5 fail, 6 inconclusive. A seed that is finished in DIR is not run "
    "again.",
    "  noema study\n"
    "  noema study concept-depth --quick -o runs/quick || test $? = 6",
    opts,
    run};
