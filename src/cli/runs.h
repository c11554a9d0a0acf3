/* runs.h - what noema runs and noema rerun share. */
#ifndef NM_CLI_RUNS_H
#define NM_CLI_RUNS_H

#include "cli/cli.h"

/* A run by its folder or its number in ROOT/runs.db. `row.id` 0: no store knows it. */
struct cli_run { nm_run_about about; nm_run_record row; char *dir; };
const char *cli_runs_root(const struct cli *c);
int cli_run_find(struct cli *c, const char *name, struct cli_run *out);    /* exit code */
void cli_run_done(struct cli_run *r);

int cli_runs_compare(struct cli *c);
int cli_runs_clean(struct cli *c);
void cli_size(char out[32], double bytes);       /* "12.3 MB" */

#endif
