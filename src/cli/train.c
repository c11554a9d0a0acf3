/* train.c - noema train: a recipe, its progress, and what it would need. */
#include "cli/cli.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const struct cli_opt opts[] = {
    {"-o, --out", CLI_TEXT, "DIR", "folder of the run (default: the recipe's, else runs/RECIPE)"},
    {"--resume", CLI_FLAG, NULL, "go on from the newest checkpoint in the folder"},
    {"--dry-run", CLI_FLAG, NULL, "print the memory this would take, and stop"},
    {"-t, --threads", CLI_INT, "N", "threads (default: all cores; same bits)"},
    {"--kernels", CLI_TEXT, "NAME", "portable, avx2, avx512, avx512bf16 (same bits)"},
    {0}};

/* Plain lines come every twentieth of the run, those of a terminal five times a second. */
struct show { bool terminal, line; double next; int64_t told; };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void eta(char out[32], double s) {
  if (s < 100) snprintf(out, 32, "%.0f s", s);
  else if (s < 6000) snprintf(out, 32, "%.0f min", s / 60);
  else snprintf(out, 32, "%.1f h", s / 3600);
}

static int show_step(void *arg, const nm_train_step *s) {
  struct show *w = arg;
  char left[32], test[64] = "";
  int64_t part = s->steps / 20 > 0 ? s->steps / 20 : 1;
  int stop = cli_interrupted();
  bool due = w->terminal ? now() >= w->next : s->step / part != w->told / part;
  if (!due && s->step < s->steps) return stop;
  eta(left, s->eta_s);
  if (s->eval_loss >= 0)
    snprintf(test, sizeof test, "  test %.4f (%.1f %% right)", s->eval_loss,
             100 * s->eval_accuracy);
  fprintf(stderr, "%sstep %lld/%lld  loss %.4f%s  lr %.2e  %.0f tokens/s  %.0f %% of peak  "
          "%s left%s", w->terminal ? "\r\033[K" : "", (long long)s->step, (long long)s->steps,
          s->loss, test, s->lr, s->tokens_per_s, 100 * s->peak_share, left,
          w->terminal ? "" : "\n");
  w->line = w->terminal;
  w->next = now() + 0.2;
  w->told = s->step;
  return stop;
}

static void show_note(void *arg, const char *text) {
  struct show *w = arg;
  fprintf(stderr, "%snoema train: %s\n", w->line ? "\n" : "", text);
  w->line = false;
}

static void show_memory(const nm_train_memory *m) {
  const struct { const char *name; uint64_t bytes; } row[] = {
      {"weights (all, trained ones included)", m->weights},
      {"gradients", m->gradients},
      {"moments of the optimiser", m->moments},
      {"activations and tape of a slot", m->activations},
      {"the frozen model of a loss", m->reference}};
  uint64_t sum = 0;
  printf("%-38s %14llu\n", "numbers that are learned", (unsigned long long)m->n_parameters);
  for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
    if (i == 4 && !m->reference) continue;
    printf("%-38s %11.1f MB\n", row[i].name, (double)row[i].bytes / 1e6);
    sum += row[i].bytes;
  }
  printf("%-38s %11.1f MB\n", "all", (double)sum / 1e6);
}

static int run(struct cli *c) {
  nm_err err = {0};
  nm_train_result r;
  struct show w = {.terminal = isatty(2)};
  long long threads = cli_int(c, "threads", 0);
  if (c->n_pos != 1) return cli_usage(c, "one RECIPE.yaml is needed");
  if (threads < 0 || threads > 4096) return cli_usage(c, "--threads %lld is out of range", threads);
  cli_catch_interrupt();
  nm_train_opts o = {.out = cli_text(c, "out"), .threads = (int)threads,
                     .kernels = cli_text(c, "kernels"), .resume = cli_flag(c, "resume"),
                     .dry_run = cli_flag(c, "dry-run"), .command = c->command, .step = show_step,
                     .note = show_note, .arg = &w};
  int st = nm_train(c->pos[0], &o, &r, &err), code = 0;
  if (w.line) fputc('\n', stderr);
  if (st) code = cli_fail(c, &err);
  else if (o.dry_run) show_memory(&r.memory);
  else printf("%s\nmodel and report: %s\n", r.summary ? r.summary : "", r.dir);
  nm_train_result_free(&r);
  return code;
}

const struct cli_verb cli_train = {
    "train",
    "train a model as a recipe says",
    "train RECIPE.yaml [-o DIR] [--resume]",
    "Trains a new model or a file's: all of it, chosen tensors, single rows or columns, adapters,\n"
    "a soft prompt or vectors beside it, towards one loss or a weighted sum (cross entropy, DPO,\n"
    "NPO, KL, gradient difference, tapped activations). Its keys are in docs/verbs/train.md. The\n"
    "folder gets metrics.jsonl, loss.svg, report.html, checkpoints/ and model.gguf, adapter.gguf\n"
    "or edits.json. Ctrl-C stops after the step and keeps a checkpoint; --resume goes on in the\n"
    "same bits.",
    "  printf 'model: {arch: llama, layers: 1, width: 32, heads: 2, context: 64}\\n'  > r.yaml\n"
    "  printf 'tokenizer: {kind: word}\\nsteps: 20\\n' >> r.yaml\n"
    "  printf 'data: [{world: facts, n: 100}]\\n' >> r.yaml\n"
    "  noema train r.yaml -o runs/r",
    opts,
    run};
