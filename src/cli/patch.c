/* patch.c - noema patch: activation patching and causal tracing. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct cli_opt opts[] = {
    {"--clean", CLI_TEXT, "TEXT", "the prompt that has the answer"},
    {"--corrupt", CLI_TEXT, "TEXT", "the prompt changed, best to as many tokens"},
    {"--subject", CLI_TEXT, "TEXT",
     "causal tracing: instead of --corrupt, noise on these words of the clean prompt"},
    {"--answer", CLI_TEXT, "TEXT", "what follows the clean prompt (its first token counts)"},
    {"--wrong", CLI_TEXT, "TEXT",
     "what follows the corrupt one: the metric is a logit difference (else a log-probability)"},
    {"--data", CLI_TEXT, "F.jsonl",
     "pairs: {\"clean\", \"corrupt\" or \"subject\", \"answer\", \"wrong\"} a line"},
    {"-n, --max", CLI_INT, "N", "at most N pairs"},
    {"--component", CLI_LIST, "NAME",
     "resid_pre, attn_out, mlp_out, attn.head (default: these four), resid_post, attn.v ..."},
    {"--noising", CLI_FLAG, NULL, "corrupt activations into the clean run"},
    {"--window", CLI_INT, "N", "layers patched at once, around the one named (default 1)"},
    {"--noise", CLI_REAL, "K", "tracing: noise in standard deviations of embeddings (default 3)"},
    {"--seeds", CLI_INT, "N", "tracing: draws of the noise (default 5)"},
    {"-s, --seed", CLI_INT, "S", "of noise and controls (default 1)"},
    {"-o, --out", CLI_TEXT, "DIR",
     "folder of the run (default: runs/patch-...); what is finished in it stays"},
    {"--json", CLI_FLAG, NULL, "print patch.json instead of the tables"},
    {"--dry-run", CLI_FLAG, NULL, "print how many runs and how much memory, and stop"},
    CLI_RUN_OPTS,
    {0}};

static int fill(struct cli *c, nm_patch_opts *o) {
  static const char *component[CLI_MAX_LIST];
  long long n = cli_int(c, "max", 0), w = cli_int(c, "window", 1), k = cli_int(c, "seeds", 5),
            seed = cli_int(c, "seed", 1);
  double noise = cli_real(c, "noise", 3);
  bool data = cli_text(c, "data"), one = cli_text(c, "clean") || cli_text(c, "answer");
  if (data == one)
    return cli_usage(c, "give --clean, --answer and --corrupt or --subject; or --data");
  if (n < 0 || w < 1 || w > 1 << 20 || k < 1 || k > 1 << 20 || seed < 0 || !(noise > 0))
    return cli_usage(c, "-n and the seed must not be negative; window, seeds and noise positive");
  if (cli_text(c, "edit"))
    return cli_usage(c, "--edit does not go with patch: a patched run is an edited run already");
  *o = (nm_patch_opts){.clean = cli_text(c, "clean"),
                       .corrupt = cli_text(c, "corrupt"),
                       .subject = cli_text(c, "subject"),
                       .answer = cli_text(c, "answer"),
                       .wrong = cli_text(c, "wrong"),
                       .data = cli_text(c, "data"),
                       .max_pairs = (size_t)n,
                       .components = component,
                       .n_components = cli_list(c, "component", component),
                       .noising = cli_flag(c, "noising"),
                       .window = (int)w,
                       .noise = noise,
                       .n_seeds = (int)k,
                       .seed = (uint64_t)seed,
                       .dry_run = cli_flag(c, "dry-run"),
                       .colour = isatty(1) && !getenv("NO_COLOR"),
                       .out = cli_text(c, "out"),
                       .command = c->command,
                       .progress = &cli_progress};
  return 0;
}

static int show(struct cli *c, const nm_patch_result *r) {
  bool json = cli_flag(c, "json");
  if (cli_flag(c, "dry-run")) {
    printf("%zu patched runs (%zu positions) over %zu pair%s and %d seed%s\n", r->n_runs,
           r->n_positions, r->n_pairs, r->n_pairs == 1 ? "" : "s", r->n_seeds,
           r->n_seeds == 1 ? "" : "s");
    cli_print_memory(&r->need);
    return 0;
  }
  printf("%s\n", json ? r->json : r->text);
  fprintf(json ? stderr : stdout, "report: %s/report.html\n", r->dir);
  if (r->verdict == NM_ECHECK)
    fprintf(stderr, "noema patch: a control does as much as the top cell\n");
  if (r->verdict == NM_EUNSURE)
    fprintf(stderr, "noema patch: no top cell stands clearly above its controls\n");
  return nm_exit_code(r->verdict);
}

static int run(struct cli *c) {
  nm_patch_opts o;
  nm_patch_result r = {0};
  struct cli_input in = {0};
  nm_err err = {0};
  int st = fill(c, &o);
  if (!st) st = cli_open(c, &in);
  if (!st) {
    int s = nm_patch(in.m, in.e, &o, &r, &err);
    cli_progress_end();
    st = s ? cli_fail(c, &err) : show(c, &r);
  }
  nm_patch_result_free(&r);
  cli_close(&in);
  return st;
}

const struct cli_verb cli_patch = {
    "patch",
    "which activations carry an answer: patching, causal tracing",
    "patch MODEL (--clean P (--corrupt Q | --subject S) --answer A [--wrong B] | --data F)",
    "Runs one prompt with single activations out of another run and says how much of the answer\n"
    "comes with them: maps of layers by positions for the stream, attention and MLP, of layers\n"
    "by heads for heads. With --subject the corrupt run is the clean prompt with noise on the\n"
    "embeddings of a subject. Printed with each map: the same patch from a prompt of random\n"
    "tokens, and other cells, which must do less.",
    "  noema patch models/planted.gguf --clean 'ann saw the red fox by night ?' --corrupt "
    "'bob saw the red fox by night ?' --answer ann --wrong bob -o runs/copy",
    opts,
    run};
