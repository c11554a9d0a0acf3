/* world.c - noema world: models and data with planted truth. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static const struct cli_opt opts[] = {
    {"-o, --out", CLI_TEXT, "FILE", "where to write"},
    {"-n, --n", CLI_INT, "N", "sets of eight sentences (default 60)"},
    {"-s, --seed", CLI_INT, "S", "seed of the sampling (default 1)"},
    {0}};

static int run(struct cli *c) {
  nm_err err = {0};
  const char *out = cli_text(c, "out"), *what = c->n_pos ? c->pos[0] : "";
  int st;
  if (c->n_pos != 1) return cli_usage(c, "say what: planted, planted-a or planted-b");
  if (!out) return cli_usage(c, "-o FILE is needed");
  long long n = cli_int(c, "n", 60), seed = cli_int(c, "seed", 1);
  if (n < 1 || n > 1 << 20 || seed < 0)
    return cli_usage(c, "-n must be 1 to 1048576, the seed not negative");
  if (!strcmp(what, "planted")) st = nm_write_planted(out, &err);
  else if (!strcmp(what, "planted-a"))
    st = nm_write_planted_data(out, 'A', (int)n, (uint64_t)seed, &err);
  else if (!strcmp(what, "planted-b"))
    st = nm_write_planted_data(out, 'B', (int)n, (uint64_t)seed, &err);
  else return cli_usage(c, "'%s' is not known: planted, planted-a or planted-b", what);
  return st ? cli_fail(c, &err) : 0;
}

const struct cli_verb cli_world = {
    "world",
    "models and data whose truth is known",
    "world (planted | planted-a | planted-b) -o FILE",
    "planted writes the hand-wired model; planted-a and planted-b write sentences for its two\n"
    "concepts, which become readable after block 2 and after block 4.",
    "  noema world planted-a -n 60 -s 1 -o a.tsv",
    opts,
    run};
