/* heads.c - noema heads: which attention heads copy out of the context. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_opt opts[] = {
    {"--needles", CLI_TEXT, "F.jsonl",
     "rows of {\"needle\", \"question\", \"answer\"}: the answer's words stand in the needle"},
    {"--haystack", CLI_TEXT, "F.txt", "unrelated text that needles are hidden in"},
    {"--lengths", CLI_TEXT, "A:B:N", "N contexts of A to B tokens (default 1000:8000:8)"},
    {"--depths", CLI_INT, "N", "N places in each, from the beginning to the end (default 10)"},
    {"--prompt", CLI_TEXT, "TEXT", "with {context} and {question} (default: as published)"},
    {"--data", CLI_TEXT, "F.jsonl",
     "instead: rows of {\"text\", \"answer\"}, whole prompts that hold the answer"},
    {"--facts", CLI_TEXT, "F.jsonl", "rows of {\"text\", \"answer\"} the model knows by heart"},
    {"-n, --max", CLI_INT, "N", "at most N rows of each file"},
    {"--predict", CLI_INT, "N", "at most N tokens of an answer (default 50); a line ends it"},
    {"--count", CLI_TEXT, "HOW", "released (default: every copied token) or unique (each once)"},
    {"--mask", CLI_TEXT, "HOW", "uniform (default: heads look evenly, as released) or zero"},
    {"--top", CLI_LIST, "K", "mask the best K heads; may be repeated (default: those that copy)"},
    {"--no-mask", CLI_FLAG, NULL, "scores alone"},
    {"--random", CLI_INT, "N", "draws of as many other heads (default 5)"},
    {"-s, --seed", CLI_INT, "S", "of the draws (default 1)"},
    {"-o, --out", CLI_TEXT, "DIR",
     "folder of the run (default: runs/heads-...); what is finished in it stays"},
    {"--from-scores", CLI_LIST, "F",
     "no model: statistics of files of scores (the published JSON, or ranking.csv); may be "
     "repeated"},
    {"--json", CLI_FLAG, NULL, "print heads.json instead of the tables"},
    CLI_RUN_OPTS,
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

static int read_lengths(struct cli *c, nm_heads_opts *o) {
  const char *s = cli_text(c, "lengths");
  char more;
  if (!s) return 0;
  int n = sscanf(s, "%d:%d:%d%c", &o->len_from, &o->len_to, &o->n_lengths, &more);
  if (n == 1 && !strchr(s, ':')) o->len_to = o->len_from, o->n_lengths = 1;
  else if (n != 3) return cli_usage(c, "--lengths is A:B:N, as in 1000:8000:8, or one length");
  if (o->len_from < 1 || o->len_to < o->len_from || o->n_lengths < 1 || o->n_lengths > 64)
    return cli_usage(c, "--lengths: A to B upwards, in 1 to 64 steps");
  return 0;
}

static int read_tops(struct cli *c, nm_heads_opts *o) {
  static int top[CLI_MAX_LIST];
  const char *v[CLI_MAX_LIST];
  char *end;
  o->top = top;
  o->n_top = cli_list(c, "top", v);
  for (int i = 0; i < o->n_top; i++) {
    long k = strtol(v[i], &end, 10);
    if (*end || k < 1 || k > 1 << 20) return cli_usage(c, "--top %s: not a number of heads", v[i]);
    top[i] = (int)k;
  }
  return 0;
}

static int fill(struct cli *c, nm_heads_opts *o) {
  const char *count = cli_text(c, "count");
  long long n = cli_int(c, "max", 0), depths = cli_int(c, "depths", 10),
            predict = cli_int(c, "predict", 50), draws = cli_int(c, "random", 5),
            seed = cli_int(c, "seed", 1);
  if (n < 0 || depths < 1 || depths > 64 || predict < 1 || predict > 1 << 20 || draws < 1 ||
      draws > 1000 || seed < 0)
    return cli_usage(c, "-n and the seed must not be negative; depths 1 to 64, draws and tokens of "
                     "an answer positive");
  if (count && strcmp(count, "released") && strcmp(count, "unique"))
    return cli_usage(c, "--count is released or unique");
  if (!cli_text(c, "data") == !cli_text(c, "needles") ||
      !cli_text(c, "needles") != !cli_text(c, "haystack"))
    return cli_usage(c, "give --needles with --haystack, or --data");
  if (cli_text(c, "edit")) return cli_usage(c, "--edit does not go with heads, which mask heads");
  *o = (nm_heads_opts){.needles = cli_text(c, "needles"), .haystack = cli_text(c, "haystack"),
                       .data = cli_text(c, "data"), .facts = cli_text(c, "facts"),
                       .prompt = cli_text(c, "prompt"), .n_depths = (int)depths,
                       .max_rows = (size_t)n, .predict = (int)predict,
                       .unique = count && !strcmp(count, "unique"), .mask = cli_text(c, "mask"),
                       .no_mask = cli_flag(c, "no-mask"), .draws = (int)draws,
                       .seed = (uint64_t)seed, .out = cli_text(c, "out"), .command = c->command,
                       .progress = &cli_progress};
  int st = read_lengths(c, o);
  return st ? st : read_tops(c, o);
}

static int show(struct cli *c, const nm_heads_result *r) {
  bool json = cli_flag(c, "json");
  printf("%s\n", json ? r->json : r->text);
  fprintf(json ? stderr : stdout, "report: %s/report.html\n", r->dir);
  if (r->verdict == NM_ECHECK)
    fprintf(stderr, "noema heads: a draw of other heads does as much as the best ones\n");
  return r->verdict == NM_EUNSURE ? 0 : nm_exit_code(r->verdict);
}

static int run(struct cli *c) {
  const char *files[CLI_MAX_LIST];
  int n = cli_list(c, "from-scores", files), st;
  nm_heads_opts o;
  nm_heads_result r = {0};
  struct cli_input in = {0};
  nm_err err = {0};
  if (n) return from_scores(c, n, files);
  st = fill(c, &o);
  if (!st) st = cli_open(c, &in);
  if (!st) {
    int s = nm_heads(in.m, in.e, &o, &r, &err);
    cli_progress_end();
    st = s ? cli_fail(c, &err) : show(c, &r);
  }
  nm_heads_result_free(&r);
  cli_close(&in);
  return st;
}

const struct cli_verb cli_heads = {
    "heads",
    "which attention heads copy out of the context",
    "heads MODEL (--needles F --haystack F | --data F) | --from-scores F [F2 ...]",
    "Hides needles in long texts, lets the model answer, and gives every head a score: how much\n"
    "of the needle it copied while the answer was made. Then the best heads are masked, and as\n"
    "many drawn from the others, and both needles and facts are asked again.",
    "  echo '{\"text\": \"the fox saw ann by night ?\", \"answer\": \"ann\"}' > rows.jsonl\n"
    "  noema heads models/planted.gguf --data rows.jsonl --predict 1 --mask zero -o runs/copying",
    opts,
    run};
