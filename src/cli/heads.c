/* heads.c - noema heads: which attention heads copy out of the context. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static const struct cli_opt opts[] = {
    {"--from-scores", CLI_LIST, "F",
     "no model: statistics of files of scores (the published JSON, or ranking.csv); may be "
     "repeated"},
    {"--json", CLI_FLAG, NULL, "print JSON instead of the tables"},
    {0}};

static int from_scores(struct cli *c, int n, const char **files) {
  nm_err err = {0};
  char *s;
  for (int i = 0; i < c->n_pos && n < CLI_MAX_LIST; i++) files[n++] = c->pos[i];
  if (nm_heads_show(files, n, cli_flag(c, "json"), &s, &err)) return cli_fail(c, &err);
  fputs(s, stdout);
  nm_free(s);
  return 0;
}

static int run(struct cli *c) {
  const char *files[CLI_MAX_LIST];
  int n = cli_list(c, "from-scores", files);
  if (n) return from_scores(c, n, files);
  return cli_usage(c, "give a model, or files of scores with --from-scores");
}

const struct cli_verb cli_heads = {
    "heads",
    "which attention heads copy out of the context",
    "heads --from-scores F [F2 ...]",
    "Prints the statistics of files of head scores.",
    "  noema heads --from-scores scores.json",
    opts,
    run};
