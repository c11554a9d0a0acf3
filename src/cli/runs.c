/* runs.c - noema runs: the record of what was run. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static const struct cli_opt opts[] = {
    {"--find", CLI_TEXT, "TEXT", "only runs whose verb, model, command or summary holds TEXT"},
    {"--dir", CLI_TEXT, "DIR", "where the runs are (default: runs)"},
    {"--json", CLI_FLAG, NULL, "a JSON object a line"},
    {0}};

static void print_json(const nm_run_record *r) {
  const char *const key[] = {"utc", "verb", "status", "dir", "model", "command", "summary"};
  const char *const val[] = {r->utc, r->verb, r->status, r->dir, r->model, r->command, r->summary};
  printf("{\"id\": %lld, \"seconds\": %.3f", r->id, r->seconds);
  for (int i = 0; i < 7; i++) {
    printf(", \"%s\": ", key[i]);
    cli_print_string(val[i]);
  }
  printf("}\n");
}

static int run(struct cli *c) {
  nm_err err = {0};
  nm_run_record *r;
  size_t n;
  const char *dir = cli_text(c, "dir");
  if (c->n_pos) return cli_usage(c, "takes no argument but options");
  if (nm_runs(dir ? dir : "runs", cli_text(c, "find"), &r, &n, &err)) return cli_fail(c, &err);
  for (size_t i = 0; i < n; i++) {
    if (cli_flag(c, "json")) print_json(&r[i]);
    else
      printf("%4lld  %s  %-8s %-11s %7.1f s  %s\n      %s\n", r[i].id, r[i].utc, r[i].verb,
             r[i].status, r[i].seconds, r[i].dir ? r[i].dir : "", r[i].summary ? r[i].summary : "");
  }
  if (!n && !cli_flag(c, "json")) fprintf(stderr, "noema runs: nothing found\n");
  nm_runs_free(r, n);
  return 0;
}

const struct cli_verb cli_runs = {
    "runs", "what was run, when, with what result", "runs [--find TEXT] [--dir DIR] [--json]",
    "Lists recorded runs, newest first: number, time, verb, state, seconds, folder, summary.",
    "  noema runs --find depth", opts, run};
