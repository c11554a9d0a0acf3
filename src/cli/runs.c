/* runs.c - noema runs: the record of what was run, as a list or one of them. */
#include "cli/runs.h"

#include <stdlib.h>
#include <string.h>

static const struct cli_opt opts[] = {
    {"--find", CLI_TEXT, "TEXT",
     "list: only runs whose verb, model, command, folder or summary holds TEXT"},
    {"--dir", CLI_TEXT, "DIR", "where the runs are (default: runs)"},
    {"--json", CLI_FLAG, NULL, "a JSON object a line"},
    {"--finished", CLI_FLAG, NULL, "clean: finished runs too"},
    {"--keep", CLI_INT, "N", "clean: the N newest runs stay"},
    {"--free", CLI_TEXT, "SIZE", "clean: no more than frees so much (500M, 2G), oldest first"},
    {"--yes", CLI_FLAG, NULL, "clean: remove; without it the list is only shown"},
    {"--dry-run", CLI_FLAG, NULL, "clean: only show, whatever else is said"},
    {0}};

const char *cli_runs_root(const struct cli *c) {
  const char *dir = cli_text(c, "dir");
  return dir ? dir : "runs";
}

void cli_size(char out[32], double bytes) {
  const char *const unit[] = {"bytes", "kB", "MB", "GB", "TB"};
  int i = 0;
  for (; bytes >= 1000 && i < 4; i++) bytes /= 1000;
  snprintf(out, 32, i ? "%.1f %s" : "%.0f %s", bytes, unit[i]);
}

/* ---- one run ------------------------------------------------------------------- */

static void take_row(struct cli_run *out, const nm_run_record *r) {
  out->row = *r;
  out->row.dir = strdup(r->dir);
  out->row.model = strdup(r->model);
  out->row.command = strdup(r->command);
  out->row.summary = strdup(r->summary);
}

static const char *last_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* The newest row of a folder in the store beside it; none is no mistake. */
static void row_of(struct cli_run *out) {
  nm_run_record *r = NULL;
  size_t n = 0;
  char *root = strdup(out->dir), *slash = root ? strrchr(root, '/') : NULL;
  if (slash) slash[slash == root] = 0;
  if (root && !nm_runs(slash ? root : ".", NULL, &r, &n, NULL))
    for (size_t i = 0; i < n && !out->row.id; i++)
      if (!strcmp(last_name(r[i].dir), last_name(out->dir))) take_row(out, &r[i]);
  nm_runs_free(r, n);
  free(root);
}

static int by_number(struct cli *c, long long id, struct cli_run *out) {
  nm_err err = {0};
  nm_run_record *r;
  size_t n;
  if (nm_runs(cli_runs_root(c), NULL, &r, &n, &err)) return cli_fail(c, &err);
  for (size_t i = 0; i < n; i++)
    if (r[i].id == id) take_row(out, &r[i]);
  nm_runs_free(r, n);
  if (!out->row.id) return cli_usage(c, "%s/runs.db has no run %lld", cli_runs_root(c), id);
  out->dir = nm_run_dir(cli_runs_root(c), out->row.dir);
  return out->dir ? 0 : 4;
}

int cli_run_find(struct cli *c, const char *name, struct cli_run *out) {
  nm_err err = {0};
  int st = 0;
  *out = (struct cli_run){0};
  if (*name && strspn(name, "0123456789") == strlen(name)) {
    st = by_number(c, strtoll(name, NULL, 10), out);
  } else if ((out->dir = strdup(name))) {
    for (size_t n = strlen(name); n > 1 && out->dir[n - 1] == '/';) out->dir[--n] = 0;
    row_of(out);
  } else {
    return 4;
  }
  if (!st && nm_run_about_load(out->dir, &out->about, &err)) st = cli_fail(c, &err);
  if (st) cli_run_done(out);
  return st;
}

void cli_run_done(struct cli_run *r) {
  nm_run_about_free(&r->about);
  free(r->row.dir);
  free(r->row.model);
  free(r->row.command);
  free(r->row.summary);
  nm_free(r->dir);
  *r = (struct cli_run){0};
}

/* What was read, and whether it still is what it was; names are told from where the run stood. */
static const char *state_of(const struct cli_run *r, const nm_run_input *in) {
  char hex[33], path[4096];
  bool from = *in->path != '/' && *r->about.cwd;
  int n = snprintf(path, sizeof path, "%s%s%s", from ? r->about.cwd : "", from ? "/" : "",
                   in->path);
  if (n < 0 || (size_t)n >= sizeof path || nm_path_hash(path, hex, NULL)) return "gone";
  return strcmp(hex, in->hash) ? "changed since" : "unchanged";
}

static int show(struct cli *c) {
  struct cli_run r;
  char size[32];
  uint64_t bytes = 0;
  if (c->n_pos != 2) return cli_usage(c, "show takes one run: its number or its folder");
  int st = cli_run_find(c, c->pos[1], &r);
  if (st) return st;
  if (cli_flag(c, "json")) {
    puts(r.about.json);
  } else {
    nm_run_bytes(r.dir, &bytes, NULL);
    cli_size(size, (double)bytes);
    if (r.row.id)
      printf("run      %lld, %s, %.1f s: %s\n", r.row.id, r.row.status, r.row.seconds,
             r.row.summary);
    printf("folder   %s, %s\nverb     %s\nwhen     %s, noema %s\nwhere    %s\ncommand ", r.dir,
           size, r.about.verb, r.about.utc, r.about.noema, r.about.cwd);
    for (int i = 0; i < r.about.n_argv; i++) printf(" %s", r.about.argv[i]);
    putchar('\n');
    for (int i = 0; i < r.about.n_inputs; i++)
      printf("%-8s %s  %.12s  %s\n", i ? "" : "read", r.about.input[i].path,
             r.about.input[i].hash, state_of(&r, &r.about.input[i]));
  }
  cli_run_done(&r);
  return 0;
}

/* ---- the list -------------------------------------------------------------------- */

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

static int list(struct cli *c, const char *find) {
  nm_err err = {0};
  nm_run_record *r;
  size_t n;
  if (nm_runs(cli_runs_root(c), find, &r, &n, &err)) return cli_fail(c, &err);
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

static int run(struct cli *c) {
  const char *what = c->n_pos ? c->pos[0] : "list", *find = cli_text(c, "find");
  if (!strcmp(what, "list") && c->n_pos < 2) return list(c, find);
  if (!strcmp(what, "find") && c->n_pos == 2) return list(c, c->pos[1]);
  if (!strcmp(what, "find")) return cli_usage(c, "find takes one TEXT");
  if (!strcmp(what, "show")) return show(c);
  if (!strcmp(what, "compare")) return cli_runs_compare(c);
  if (!strcmp(what, "clean") && c->n_pos == 1) return cli_runs_clean(c);
  return cli_usage(c, "list, find TEXT, show RUN, compare RUN RUN or clean, not '%s'", what);
}

const struct cli_verb cli_runs = {
    "runs", "what was run, when, with what result: list, find, show, compare, clean",
    "runs [list | find TEXT | show RUN | compare RUN RUN ... | clean] [--dir DIR] [--json]",
    "A RUN is its number or its folder. The list, newest first, gives number, time, verb, state,\n"
    "seconds, folder and summary. compare puts side by side what differs: options, settings,\n"
    "inputs, machine, results. clean removes runs that did not end well, and rows whose folder\n"
    "is gone; it only shows them until --yes is said, and leaves folders noema did not make.",
    "  noema world planted-a -n 20 -o a.tsv\n"
    "  noema depth models/planted.gguf --data a.tsv --repeats 3 -o runs/a1 > /dev/null\n"
    "  noema depth models/planted.gguf --data a.tsv --repeats 4 -o runs/a2 > /dev/null\n"
    "  noema runs find planted\n"
    "  noema runs compare runs/a1 runs/a2",
    opts, run};
