/* rerun.c - noema rerun: the recorded command once more, into another folder, and whether the
 * results are the same. */
#include "cli/runs.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct cli_opt opts[] = {
    {"-o, --out", CLI_TEXT, "DIR", "the new folder (default: the old one's name and -again)"},
    {"--anyway", CLI_FLAG, NULL, "also when a model or a data file is not what it was"},
    {"--dir", CLI_TEXT, "DIR", "where the runs are, for a RUN told by its number (default: runs)"},
    {"--json", CLI_FLAG, NULL, "the comparison as a JSON object"},
    {"--dry-run", CLI_FLAG, NULL, "check the inputs, print the command, and stop"},
    {0}};

static char *absolute(const char *path) {
  char cwd[PATH_MAX], *s = NULL;
  if (*path == '/' || !getcwd(cwd, sizeof cwd)) return strdup(path);
  size_t n = strlen(cwd) + strlen(path) + 2;
  if ((s = malloc(n))) snprintf(s, n, "%s/%s", cwd, path);
  return s;
}

/* The new folder: none that is there already. */
static int choose_folder(struct cli *c, const char *old, char **out) {
  char name[PATH_MAX];
  const char *given = cli_text(c, "out");
  snprintf(name, sizeof name, "%.*s-again", PATH_MAX - 32, old);
  for (int i = 2; !given && !access(name, F_OK) && i < 10000; i++)
    snprintf(name, sizeof name, "%.*s-again-%d", PATH_MAX - 32, old, i);
  if (given && !access(given, F_OK))
    return cli_usage(c, "%s is there already: a repeat needs a folder of its own", given);
  return (*out = absolute(given ? given : name)) ? 0 : 4;
}

/* ---- what was read ------------------------------------------------------------------ */

/* What an option writes was no input, even if it was there. */
static bool is_output(const nm_run_about *a, const struct cli_verb *v, const char *path) {
  for (int k = 2; k + 1 < a->n_argv; k++) {
    int i = a->argv[k][0] == '-' ? cli_find_opt(v, a->argv[k], strlen(a->argv[k])) : -1;
    if (i < 0 || strcmp(a->argv[k + 1], path)) continue;
    const char *name = v->opts[i].name;
    if (strstr(name, "--out") || strstr(name, "--save") || strstr(name, "--cache")) return true;
  }
  return false;
}

/* Where the run stood; names in the record are told from there. */
static int check_inputs(struct cli *c, const nm_run_about *a, const struct cli_verb *v) {
  int changed = 0;
  for (int i = 0; i < a->n_inputs; i++) {
    char hex[33];
    const nm_run_input *in = &a->input[i];
    if (is_output(a, v, in->path)) continue;
    bool gone = nm_path_hash(in->path, hex, NULL) != 0;
    if (!gone && !strcmp(hex, in->hash)) continue;
    changed++;
    if (gone)
      fprintf(stderr, "noema rerun: %s: is gone, or cannot be read\n", in->path);
    else
      fprintf(stderr, "noema rerun: %s: is not what the run read: its hash was %.12s and is "
              "%.12s\n", in->path, in->hash, hex);
  }
  if (!changed) return 0;
  if (cli_flag(c, "anyway")) return 0;
  fprintf(stderr, "noema rerun: the results could not be the same; say --anyway to run it with "
          "what is there now\n");
  return 3;
}

/* ---- the command ------------------------------------------------------------------------ */

/* Its words with the new folder in place of the old; nothing to resume in a new folder. */
static int make_words(struct cli *c, const nm_run_about *a, const struct cli_verb *v, char *dir,
                      char **word, int *n) {
  static char out[] = "--out", flag[] = "-o";
  int has_out = cli_find_opt(v, "--out", 5);
  if (has_out < 0) return cli_usage(c, "noema %s has no folder to write to", v->name);
  word[(*n)++] = a->argv[0];
  word[(*n)++] = a->argv[1];
  word[(*n)++] = strstr(v->opts[has_out].name, "-o,") ? flag : out;
  word[(*n)++] = dir;
  for (int k = 2; k < a->n_argv; k++) {
    const char *w = a->argv[k], *eq = strncmp(w, "--", 2) ? NULL : strchr(w, '=');
    int i = w[0] == '-' && w[1] ? cli_find_opt(v, w, eq ? (size_t)(eq - w) : strlen(w)) : -1;
    if (!strcmp(w, "-"))
      return cli_usage(c, "the run read its standard input, which was not kept");
    if (i >= 0 && strstr(v->opts[i].name, "--resume")) continue;
    bool is_out = i == has_out, value = i >= 0 && v->opts[i].kind != CLI_FLAG && !eq;
    if (!is_out) word[(*n)++] = a->argv[k];
    if (value && k + 1 < a->n_argv) {
      k++;
      if (!is_out) word[(*n)++] = a->argv[k];
    }
  }
  return 0;
}

/* What the verb prints is talk here: standard output is for the comparison. */
static int call(int n, char **word) {
  fflush(stdout);
  int keep = dup(1);
  if (keep < 0 || dup2(2, 1) < 0) return 1;
  int code = cli_call(n, word);
  fflush(stdout);
  dup2(keep, 1);
  close(keep);
  return code;
}

/* ---- the results -------------------------------------------------------------------------- */

static const char *const state_name[] = {"equal", "equal but for times and names", "differs",
                                         "only in the first run", "only in the repeat"};

static void print_json(const nm_file_pair *v, size_t n, const char *old, const char *dir,
                       bool same) {
  printf("{\"run\": ");
  cli_print_string(old);
  printf(", \"repeat\": ");
  cli_print_string(dir);
  printf(", \"same\": %s, \"files\": {", same ? "true" : "false");
  for (size_t i = 0; i < n; i++) {
    printf("%s", i ? ", " : "");
    cli_print_string(v[i].name);
    printf(": \"%s\"", state_name[v[i].state]);
  }
  printf("}}\n");
}

static int compare(struct cli *c, const char *old, const char *dir) {
  nm_err err = {0};
  nm_file_pair *v;
  size_t n, count[5] = {0};
  if (nm_folders_compare(old, dir, &v, &n, &err)) return cli_fail(c, &err);
  for (size_t i = 0; i < n; i++) count[v[i].state]++;
  bool same = count[NM_FILE_EQUAL] + count[NM_FILE_ALIKE] == n;
  if (cli_flag(c, "json")) {
    print_json(v, n, old, dir, same);
  } else {
    for (size_t i = 0; i < n; i++)
      if (v[i].state != NM_FILE_EQUAL) printf("  %s: %s\n", v[i].name, state_name[v[i].state]);
    printf("%zu files: %zu equal byte for byte, %zu equal but for times and names, %zu differ, %zu "
           "in one folder only\n%s: %s\n", n, count[NM_FILE_EQUAL], count[NM_FILE_ALIKE],
           count[NM_FILE_DIFFERS], count[NM_FILE_ONLY_A] + count[NM_FILE_ONLY_B],
           same ? "the same results" : "NOT the same results", dir);
  }
  nm_file_pairs_free(v, n);
  return same ? 0 : 5;
}

static int prepare(struct cli *c, const struct cli_run *r, const struct cli_verb *v) {
  const nm_run_about *a = &r->about;
  nm_err err = {.status = NM_EFORMAT};
  if (!a->n_argv)
    snprintf(err.text, sizeof err.text, "%.300s: was not made by a command of noema, so there is "
             "none to repeat", r->dir);
  else if (!v)
    snprintf(err.text, sizeof err.text, "%.300s: was made by noema %.40s, which this noema does "
             "not have", r->dir, a->verb);
  else if (chdir(a->cwd))
    snprintf(err.text, sizeof err.text, "%.300s: was made in %.200s, where nobody can go now",
             r->dir, a->cwd);
  if (*err.text) return cli_fail(c, &err);
  if (strcmp(a->noema, NM_VERSION))
    fprintf(stderr, "noema rerun: it was made by noema %s and this is %s\n", a->noema, NM_VERSION);
  return check_inputs(c, a, v);
}

static int repeat(struct cli *c, const struct cli_run *r, char *old, char *dir) {
  const struct cli_verb *v = r->about.n_argv > 1 ? cli_verb_of(r->about.argv[1]) : NULL;
  char **word = calloc((size_t)r->about.n_argv + 8, sizeof *word);
  int n = 0, code = word ? prepare(c, r, v) : 4;
  if (!code) code = make_words(c, &r->about, v, dir, word, &n);
  if (!code && cli_flag(c, "dry-run")) {
    for (int i = 0; i < n; i++) printf("%s%s", i ? " " : "", word[i]);
    putchar('\n');
  } else if (!code) {
    code = call(n, word);
    /* 5 and 6 are verdicts of the verb, which are results like others. */
    if (!code || code == 5 || code == 6) code = compare(c, old, dir);
  }
  free(word);
  return code;
}

static int run(struct cli *c) {
  struct cli_run r;
  if (c->n_pos != 1) return cli_usage(c, "one run is needed: its folder or its number");
  int code = cli_run_find(c, c->pos[0], &r);
  if (code) return code;
  char *dir = NULL, *old = absolute(r.dir);
  code = old ? choose_folder(c, r.dir, &dir) : 4;
  if (!code) code = repeat(c, &r, old, dir);
  free(old);
  free(dir);
  cli_run_done(&r);
  return code;
}

const struct cli_verb cli_rerun = {
    "rerun", "repeat a run and compare the results", "rerun RUN [-o DIR] [--anyway] [--json]",
    "Runs the recorded command again, in the folder it was typed in, with another folder for the\n"
    "results; then says which files are equal byte for byte, which but for times and names, and\n"
    "which differ (exit code 5). A model or a data file that is not what it was is refused.",
    "  noema world planted-a -n 20 -o a.tsv\n"
    "  noema depth models/planted.gguf --data a.tsv --repeats 3 -o runs/first > /dev/null\n"
    "  noema rerun runs/first -o runs/second",
    opts, run};
