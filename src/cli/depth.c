/* depth.c - noema depth and noema probe. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_opt depth_opts[] = {
    {"--data", CLI_LIST, "[NAME=]FILE",
     "labelled texts: CSV, TSV, JSON, JSONL, BIG-bench, STSA; may be repeated"},
    {"--site", CLI_TEXT, "NAME",
     "mlp_norm (default, as published; resid_post without it), resid_mid, ..."},
    {"--prompt", CLI_TEXT, "NAME|TEXT",
     "auto (default), facts, review, coin, strategy, choice, none, or a text with {text}"},
    {"--prompt-compat", CLI_TEXT, "cd-bug",
     "one prompt around every data set, as the published commit did"},
    {"--noise", CLI_FLAG, NULL,
     "a second run with aaa or bbb before every text, by coin, beside the first"},
    {"--bits", CLI_TEXT, "LIST",
     "runs with matrices rounded to so many bits, beside each other: f32,bf16,8,4,3,2"},
    {"--probe", CLI_TEXT, "KIND", "lr (logistic regression, default) or rf (random forest)"},
    {"--anchor", CLI_LIST, "ACC[:NAME]",
     "a line to compare with: an accuracy, own (default: the model's answer), words"},
    {"--text", CLI_TEXT, "COLUMN", "the column that holds the text (default: found)"},
    {"--label", CLI_TEXT, "COLUMN", "the column that holds the label (default: found)"},
    {"--group", CLI_TEXT, "COLUMN",
     "rows with equal values stay on one side of a split (default: twins are found)"},
    {"-n, --max", CLI_INT, "N", "at most N rows, both labels alternately"},
    {"--to-layer", CLI_INT, "K", "look no further than block K"},
    {"--split", CLI_REAL, "SHARE", "share of training rows (default 0.6)"},
    {"--repeats", CLI_INT, "R", "repeated splits (default 10)"},
    {"-s, --seed", CLI_INT, "S", "seed of the splits (default 42)"},
    {"-C", CLI_REAL, "C", "inverse strength of the probe's L2 penalty (default 1)"},
    {"-o, --out", CLI_TEXT, "DIR", "folder of the run (default: runs/depth-...)"},
    {"--cache", CLI_TEXT, "DIR", "folder of the captured vectors (default: OUT/cache)"},
    {"--resume", CLI_FLAG, NULL, "go on with a run that was cut off (with the same --out)"},
    {"--save-probe", CLI_TEXT, "F", "save the probe of the first data set's converging layer"},
    {"--json", CLI_FLAG, NULL, "print depth.json instead of the table"},
    {"--dry-run", CLI_FLAG, NULL, "print the memory this would take, and stop"},
    CLI_RUN_OPTS,
    {0}};

/* A mistyped name must not become a prompt: it is a known name or holds {text}. */
static bool known_prompt(const char *p) {
  const char *name, *text;
  if (!p || !strcmp(p, "auto") || strstr(p, "{text}")) return true;
  for (int i = 0; nm_depth_prompts(i, &name, &text); i++)
    if (!strcmp(p, name)) return true;
  return false;
}

static int fill(struct cli *c, nm_depth_opts *o) {
  static const char *data[CLI_MAX_LIST], *anchor[CLI_MAX_LIST];
  const char *probe = cli_text(c, "probe");
  int n_data = cli_list(c, "data", data), n_anchors = cli_list(c, "anchor", anchor);
  double train = cli_real(c, "split", 0.6);
  const char *compat = cli_text(c, "prompt-compat");
  long long n = cli_int(c, "max", 0), repeats = cli_int(c, "repeats", 10),
            seed = cli_int(c, "seed", 42);
  if (!n_data) return cli_usage(c, "--data FILE is needed");
  if (!(train > 0 && train < 1)) return cli_usage(c, "--split must lie between 0 and 1");
  if (n < 0 || repeats < 1 || repeats > 256 || seed < 0)
    return cli_usage(c, "-n and the seed must not be negative, --repeats 1 to 256");
  if (compat && strcmp(compat, "cd-bug")) return cli_usage(c, "--prompt-compat knows only cd-bug");
  if (probe && strcmp(probe, "lr") && strcmp(probe, "rf"))
    return cli_usage(c, "--probe '%.40s' is not known (known: lr, rf)", probe);
  if (!known_prompt(cli_text(c, "prompt")))
    return cli_usage(c,
                     "--prompt '%.40s' is no name (auto, facts, review, coin, strategy, choice, "
                     "none) and holds no {text}",
                     cli_text(c, "prompt"));
  if (!(cli_real(c, "C", 1) > 0)) return cli_usage(c, "-C must be positive");
  *o = (nm_depth_opts){.data = data,
                       .n_data = n_data,
                       .prompt = cli_text(c, "prompt"),
                       .site = cli_text(c, "site"),
                       .text_col = cli_text(c, "text"),
                       .label_col = cli_text(c, "label"),
                       .group_col = cli_text(c, "group"),
                       .max_rows = (size_t)n,
                       .to_layer = (int)cli_int(c, "to-layer", -1),
                       .test_share = 1 - train,
                       .seed = (uint64_t)seed,
                       .repeats = (int)repeats,
                       .C = cli_real(c, "C", 1),
                       .cd_bug = compat != NULL,
                       .noise = cli_flag(c, "noise"),
                       .forest = probe && !strcmp(probe, "rf"),
                       .anchor = anchor,
                       .n_anchors = n_anchors,
                       .dry_run = cli_flag(c, "dry-run"),
                       .resume = cli_flag(c, "resume"),
                       .out = cli_text(c, "out"),
                       .cache = cli_text(c, "cache"),
                       .save_probe = cli_text(c, "save-probe"),
                       .command = c->command,
                       .progress = &cli_progress};
  return 0;
}

static int show(struct cli *c, const nm_depth_result *r) {
  char *text = cli_flag(c, "json") ? nm_depth_json(r) : nm_depth_text(r);
  int st = 0;
  if (text) fputs(text, stdout);
  if (text && cli_flag(c, "json")) putchar('\n');
  nm_free(text);
  for (int i = 0; i < r->n_curves; i++)
    if (!r->curve[i].shuffled_ok) st = 5;
  fprintf(cli_flag(c, "json") ? stderr : stdout, "\nreport: %s/report.html\n", r->dir);
  if (st)
    fprintf(stderr, "noema depth: a control failed: shuffled labels do not come out at chance\n");
  return st;
}

static int run_depth(struct cli *c) {
  nm_depth_opts o;
  struct cli_input in = {0};
  nm_err err = {0};
  nm_depth_result r = {0};
  int st = fill(c, &o);
  bool several = c->n_pos > 1 || cli_flag(c, "noise") || cli_text(c, "bits");
  if (!st && several && !o.dry_run) return cli_depth_sides(c, &o);
  if (several) c->n_pos = c->n_pos ? 1 : 0;    /* --dry-run: of one run */
  if (!st) st = cli_open(c, &in);
  if (!st) {
    o.edits = in.edits;
    int s = nm_depth(in.m, in.e, &o, &r, &err);
    cli_progress_end();
    if (s) st = cli_fail(c, &err);
    if (!s && o.dry_run) cli_print_memory(&r.need);
    if (r.n_curves && !o.dry_run) {
      int shown = show(c, &r);
      if (!st) st = shown;
    }
    if (s == NM_EINTR && o.out)
      fprintf(stderr,
              "noema depth: what is done is kept; the same command with --resume goes on\n");
    if (!s) cli_tell_edits(&in);
    nm_depth_result_free(&r);
  }
  cli_close(&in);
  return st;
}

const struct cli_verb cli_depth = {
    "depth",
    "at which layer a concept becomes readable",
    "depth MODEL [MODEL ...] --data FILE [--data FILE ...] [-o DIR]",
    "Fits a linear probe on the last token's activation of every block and prints the accuracy\n"
    "on held-out texts, with the rows that must not show the concept: shuffled labels, bag of\n"
    "words, the embedding, and the same architecture with random weights; then where the curve\n"
    "jumps and converges, the model's own answer, and whether the direction is used.\n"
    "Several models, --bits or --noise: a run for each, and a page that compares them.\n"
    "Exit code 5 when shuffled labels do not come out at chance.",
    "  noema world planted-a -o a.tsv\n  noema depth models/planted.gguf --data a.tsv -o runs/a",
    depth_opts,
    run_depth};

/* ---- probe ----------------------------------------------------------------------- */

static const struct cli_opt probe_opts[] = {
    {"-p, --prompt", CLI_TEXT, "TEXT", "the text to judge (its prompt is put around it)"},
    {"--data", CLI_TEXT, "FILE", "judge every row of a file"},
    {"--column", CLI_TEXT, "NAME", "the column of --data that holds the text"},
    {"--json", CLI_FLAG, NULL, "a JSON object a line"},
    {"-t, --threads", CLI_INT, "N", "threads (default: all cores)"},
    {"-c, --ctx", CLI_INT, "N", "context size (default: the model's)"},
    {"--kernels", CLI_TEXT, CLI_KERNELS, "the instruction set (same bits)"},
    {"--act", CLI_TEXT, "f32|bf16", "products from f32 (default) or bf16 numbers"},
    {"--gelu", CLI_TEXT, "tanh|erf", "form of GELU (default: as published)"},
    CLI_LORA_OPTS, {0}};

static int judge(struct cli *c, nm_engine *e, const nm_probe *p, const char *text, nm_err *err) {
  double prob;
  const char *label;
  int st = nm_probe_apply(e, p, text, &prob, &label, err);
  if (st) return st;
  bool two = nm_probe_n_labels(p) == 2;
  if (!cli_flag(c, "json"))
    return printf("%s  (probability%s: %.4f)\n", label, two ? " of label 1" : "", prob), 0;
  printf("{\"label\": ");
  cli_print_string(label);
  printf(", \"probability%s\": %.6f}\n", two ? "_of_1" : "", prob);
  return 0;
}

static int run_probe(struct cli *c) {
  nm_err err = {0};
  nm_model *m = NULL;
  nm_engine *e = NULL;
  nm_probe *p = NULL;
  nm_adapters *a = NULL;
  nm_texts t = {0};
  const char *text = cli_text(c, "prompt"), *data = cli_text(c, "data");
  if (c->n_pos != 3 || strcmp(c->pos[0], "apply"))
    return cli_usage(c, "say: probe apply MODEL PROBE");
  if (!text == !data) return cli_usage(c, "give one of -p and --data");
  nm_engine_opts o = {.threads = (int)cli_int(c, "threads", 0), .n_ctx = (int)cli_int(c, "ctx", 0),
                      .kernels = cli_text(c, "kernels"), .gelu = cli_text(c, "gelu"),
                      .act = cli_text(c, "act")};
  int st = nm_model_open(c->pos[1], &m, &err);
  if (!st) st = cli_adapters(c, m, &a, &err);
  o.adapters = a;
  if (!st) st = nm_engine_new(m, &o, &e, &err);
  if (!st) st = nm_probe_load(c->pos[2], &p, &err);
  if (!st && text) st = judge(c, e, p, text, &err);
  if (!st && data) st = nm_texts_load(data, cli_text(c, "column"), &t, &err);
  if (!st && data && !t.text) st = cli_usage(c, "--data must hold texts, not ids");
  for (size_t i = 0; data && t.text && i < t.n && !st; i++) st = judge(c, e, p, t.text[i], &err);
  if (st < 0) st = cli_fail(c, &err);
  nm_texts_free(&t);
  nm_probe_free(p);
  nm_engine_free(e);
  nm_adapters_free(a);
  nm_model_close(m);
  return st;
}

const struct cli_verb cli_probe = {
    "probe",
    "apply a saved probe to a text",
    "probe apply MODEL PROBE (-p TEXT | --data F)",
    "Runs the text through the model with the probe's prompt and prints the label the probe reads.",
    "  noema probe apply models/planted.gguf a.probe -p 'ann saw the red fox by night it went up "
    "?'",
    probe_opts,
    run_probe};
