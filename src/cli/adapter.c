/* adapter.c - noema adapter: what an adapter holds, its other form, and a model with it merged. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_opt opts[] = {
    {"-o, --out", CLI_TEXT, "PATH", "F.gguf; convert: or a folder, which becomes one of PEFT's"},
    {"--base", CLI_TEXT, "MODEL", "convert: the model that the adapter is for"},
    CLI_LORA_OPTS,
    {"--type", CLI_TEXT, "T", "merge: Q8_0, Q4_K_M ... (default: touched matrices F32)"},
    {"--force", CLI_FLAG, NULL, "replace what is there"},
    {"--json", CLI_FLAG, NULL, "show: as JSON"},
    {"-t, --threads", CLI_INT, "N", "merge: threads (default: all cores)"},
    {0}};

static int show(struct cli *c) {
  nm_err err = {0};
  char *text;
  if (nm_adapter_show(c->pos[1], cli_flag(c, "json"), &text, &err)) return cli_fail(c, &err);
  fputs(text, stdout);
  nm_free(text);
  return 0;
}

static int convert(struct cli *c, const char *out) {
  nm_err err = {0};
  nm_model *m = NULL;
  const char *base = cli_text(c, "base");
  if (!base) return cli_usage(c, "convert needs --base MODEL: names and rows depend on it");
  int st = nm_model_open(base, &m, &err);
  if (!st) st = nm_adapter_convert(m, c->pos[1], out, cli_flag(c, "force"), &err);
  nm_model_close(m);
  if (st) return cli_fail(c, &err);
  printf("%s: written\n", out);
  return 0;
}

static int merge(struct cli *c, const char *out) {
  nm_err err = {0};
  nm_model *m = NULL;
  nm_adapters *a = NULL;
  nm_convert_result r = {0};
  long long threads = cli_int(c, "threads", 0);
  if (threads < 0 || threads > 1024) return cli_usage(c, "--threads %lld is out of range", threads);
  nm_convert_opts o = {.in = c->pos[1], .out = out, .to = "gguf", .type = cli_text(c, "type"),
                       .force = cli_flag(c, "force"), .threads = (int)threads,
                       .progress = &cli_progress};
  cli_catch_interrupt();
  int st = nm_model_open(c->pos[1], &m, &err);
  if (!st) st = cli_adapters(c, m, &a, &err);
  o.adapters = a;
  if (!st && !a && !nm_model_adapters(m)) {
    nm_model_close(m);
    return cli_usage(c, "merge needs --lora F");
  }
  if (!st) st = nm_convert(&o, &r, &err);
  cli_progress_end();
  if (!st) {
    if (*r.warning) fprintf(stderr, "noema adapter: %s\n", r.warning);
    printf("%s: %zu tensors, %.1f MB, %.2f bits a weight\n", out, r.n_tensors,
           (double)r.bytes / 1e6, r.bits_per_weight);
  }
  nm_convert_result_free(&r);
  nm_adapters_free(a);
  nm_model_close(m);
  return st ? cli_fail(c, &err) : 0;
}

static int run(struct cli *c) {
  const char *what = c->n_pos ? c->pos[0] : "", *out = cli_text(c, "out");
  bool is_show = !strcmp(what, "show"), is_convert = !strcmp(what, "convert");
  if (!is_show && !is_convert && strcmp(what, "merge"))
    return cli_usage(c, "show, convert or merge, not '%.40s'", what);
  if (c->n_pos != 2)
    return cli_usage(c, "%s takes one %s", what, is_show || is_convert ? "adapter" : "model");
  if (is_show) return show(c);
  if (!out || !*out) return cli_usage(c, "%s needs -o PATH", what);
  return is_convert ? convert(c, out) : merge(c, out);
}

const struct cli_verb cli_adapter = {
    "adapter",
    "adapters: what they hold, GGUF and PEFT, merging",
    "adapter show A [--json] | adapter convert A --base MODEL -o PATH |\n"
    "       noema adapter merge MODEL --lora A ... -o OUT.gguf [--type T]",
    "A is a GGUF file of llama.cpp's, a folder of PEFT's or a step of a training run (DIR@STEP).\n"
    "convert writes the other form. merge adds adapters to the weights: without --type the\n"
    "matrices they touch are stored as F32, so that the result computes what the adapters did,\n"
    "and the others as they are; with it all are stored in that type.\n"
    "To run with an adapter, give it to any verb: noema logits MODEL --lora A.",
    "  echo '{\"text\": \"ann saw the red fox\"}' > adapter.jsonl\n"
    "  printf '%s\\n' 'base: models/planted.gguf' 'lora: {rank: 2, targets: [attn_q]}' \\\n"
    "    'length: 8' 'steps: 2' 'batch: 1' 'data: [{file: adapter.jsonl}]' > adapter.yaml\n"
    "  noema train adapter.yaml -o adapter-run\n"
    "  noema adapter show adapter-run/adapter.gguf\n"
    "  noema adapter merge models/planted.gguf --lora adapter-run/adapter.gguf -o merged.gguf",
    opts,
    run};
