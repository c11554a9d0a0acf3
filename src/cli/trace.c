/* trace.c - noema trace-graph: in-context representations. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_opt opts[] = {
    {"--graph", CLI_TEXT, "SPEC", "grid:4x4 (default), ring:10, hex:14, or a JSON file of edges"},
    {"--words", CLI_TEXT, "F", "words, one a line; auto: of the vocabulary; ids (default: common)"},
    {"--contexts", CLI_TEXT, "N,N", "lengths of walks to look at (default 10,50,100,400)"},
    {"--layers", CLI_TEXT, "LIST", "all (default), or embed,3,5-8"},
    {"--window", CLI_INT, "N", "words behind a mean of states (default 200)"},
    {"--walks", CLI_INT, "N", "walks (default 16)"},
    {"-s, --seed", CLI_INT, "S", "of words, walks and controls (default 1)"},
    {"--ablate", CLI_TEXT, "prev:N,ind:N",
     "silence the N heads with the highest scores, beside random ones"},
    {"--gram", CLI_TEXT, "F", "no model: a CSV of products of node means"},
    {"--accuracy", CLI_TEXT, "F", "no model: a CSV of accuracies by position"},
    {"--dims", CLI_INT, "D", "with --gram: width of the random vectors (default 4096)"},
    {"-o, --out", CLI_TEXT, "DIR",
     "folder of the run (default: runs/trace-graph-...); it goes on"},
    {"--json", CLI_FLAG, NULL, "print trace.json instead of the tables"},
    CLI_RUN_OPTS,
    {0}};

enum { LENGTHS = 16 };

/* "10,50,100"; how many, or -1. */
static int read_lengths(const char *s, int *out) {
  int n = 0;
  while (s && *s) {
    char *end;
    long v = strtol(s, &end, 10);
    if (end == s || v < 2 || v > 1 << 24 || n == LENGTHS || (*end && (*end != ',' || !end[1])))
      return -1;
    out[n++] = (int)v;
    s = end + (*end == ',');
  }
  return n;
}

static int fill(struct cli *c, nm_trace_opts *o, int *length) {
  long long window = cli_int(c, "window", 200), walks = cli_int(c, "walks", 16),
            seed = cli_int(c, "seed", 1), dims = cli_int(c, "dims", 4096);
  int n = read_lengths(cli_text(c, "contexts"), length);
  if (n < 0) return cli_usage(c, "--contexts are at most %d lengths, such as 10,50,400", LENGTHS);
  if (window < 1 || window > 1 << 24 || walks < 1 || walks > 1024 || seed < 0 || dims < 2 ||
      dims > 1 << 20)
    return cli_usage(c, "window and walks must be positive, walks at most 1024, the seed not "
                     "negative, dims 2 to %d", 1 << 20);
  if (cli_text(c, "edit"))
    return cli_usage(c, "--edit does not go with trace-graph: use --ablate");
  *o = (nm_trace_opts){.graph = cli_text(c, "graph"), .words = cli_text(c, "words"),
                       .lengths = length, .n_lengths = n, .layers = cli_text(c, "layers"),
                       .window = (int)window, .walks = (int)walks,
                       .ablate = cli_text(c, "ablate"), .gram = cli_text(c, "gram"),
                       .accuracy = cli_text(c, "accuracy"), .dims = (int)dims,
                       .seed = (uint64_t)seed, .out = cli_text(c, "out"), .command = c->command,
                       .progress = &cli_progress};
  return 0;
}

static int show(struct cli *c, const nm_trace_result *r) {
  bool json = cli_flag(c, "json");
  printf("%s\n", json ? r->json : r->text);
  fprintf(json ? stderr : stdout, "report: %s/report.html\n", r->dir);
  return nm_exit_code(r->verdict);
}

static int run(struct cli *c) {
  int length[LENGTHS];
  nm_trace_opts o;
  nm_trace_result r = {0};
  struct cli_input in = {0};
  nm_err err = {0};
  int st = fill(c, &o, length);
  if (st) return st;
  bool files = o.gram || o.accuracy;
  if (files && c->n_pos) return cli_usage(c, "--gram and --accuracy go without a model");
  if (!files) st = cli_open(c, &in);
  if (!st) {
    int s = files ? nm_trace_files(&o, &r, &err) : nm_trace_graph(in.e, &o, &r, &err);
    cli_progress_end();
    st = s ? cli_fail(c, &err) : show(c, &r);
  }
  nm_trace_result_free(&r);
  cli_close(&in);
  return st;
}

const struct cli_verb cli_trace = {
    "trace-graph",
    "whether a model's states take the form of a graph told in the prompt",
    "trace-graph MODEL [--graph G] [--words F] [--contexts N,N] [-o DIR]\n"
    "       noema trace-graph --gram F --accuracy F [-o DIR]",
    "Words stand for nodes of a graph, and the prompt walks in it. Prints how probable the\n"
    "words next to the last one become, with and without the word just left, and how the\n"
    "means of states lie after every block. Beside them always: shuffled words, random\n"
    "vectors, and random vectors whose neighbours were mixed once, which draw a fine picture\n"
    "of any graph. Exit code 6 where nothing follows.",
    "  noema trace-graph models/planted.gguf --graph ring:6 --words auto --contexts 8,16 "
    "--walks 4 || test $? = 6",
    opts,
    run};
