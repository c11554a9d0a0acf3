/* acts.c - noema acts and noema logits: activations to arrays. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_opt acts_opts[] = {
    {"--site", CLI_TEXT, "GLOB", "which sites: blk.*.resid_post, blk.4-8.attn.head[3], ... (info --sites)"},
    {"--at", CLI_TEXT, "POS", "which positions: last (default), all, 3, -2, 1:5, 1,4, span:TEXT"},
    {"-o, --out", CLI_TEXT, "F.npy|DIR", "one array, or a folder of shards with index.jsonl (resumes)"},
    {"--dry-run", CLI_FLAG, NULL, "print the memory this would take, and stop"},
    CLI_INPUT_OPTS, CLI_RUN_OPTS, {0}};

static const struct cli_opt logits_opts[] = {
    {"--at", CLI_TEXT, "POS", "which positions: last (default), all, 3, -2, 1:5, 1,4, span:TEXT"},
    {"-o, --out", CLI_TEXT, "F.npy|DIR", "[positions, V] float32, or a folder of shards"},
    {"--json", CLI_FLAG, NULL, "print {seq, positions, logits} a line a text"},
    {"--top", CLI_INT, "N", "print the N likeliest tokens with log-probabilities (default 10)"},
    {"--dry-run", CLI_FLAG, NULL, "print the memory this would take, and stop"},
    CLI_INPUT_OPTS, CLI_RUN_OPTS, {0}};

static int to_files(struct cli *c, struct cli_input *in, const char *site, bool squeeze) {
  nm_err err = {0};
  nm_memory need;
  bool dry = cli_flag(c, "dry-run");
  const char *at = cli_text(c, "at");
  nm_acts_opts o = {.site = site, .at = at ? at : "last", .out = cli_text(c, "out"), .edits = in->edits,
                    .share_prefix = true, .dry_run = dry, .squeeze = squeeze, .progress = &cli_progress};
  if (nm_acts(in->e, in->seqs, in->n, &o, dry ? &need : NULL, &err)) return cli_fail(c, &err);
  cli_progress_end();
  if (dry) cli_print_memory(&need);
  else cli_tell_edits(in);
  return 0;
}

static int run_acts(struct cli *c) {
  struct cli_input in;
  const char *site = cli_text(c, "site");
  if (!site) return cli_usage(c, "--site is needed, for example --site 'blk.*.resid_post'");
  if (!cli_text(c, "out") && !cli_flag(c, "dry-run")) return cli_usage(c, "-o F.npy or -o DIR is needed");
  int st = cli_open(c, &in);
  if (!st && !(st = cli_read_input(c, &in))) st = to_files(c, &in, site, false);
  cli_close(&in);
  return st;
}

/* ---- logits on the terminal ----------------------------------------------- */

struct shown { struct cli *c; struct cli_input *in; float **row; int *pos; int n, cap; };

static int keep_row(void *arg, const nm_row *r, nm_err *err) {
  struct shown *s = arg;
  (void)err;
  if (s->n == s->cap) {
    s->cap = s->cap ? 2 * s->cap : 16;
    s->row = realloc(s->row, (size_t)s->cap * sizeof *s->row);
    s->pos = realloc(s->pos, (size_t)s->cap * sizeof *s->pos);
  }
  float *copy = malloc((size_t)r->n * sizeof *copy);
  if (!s->row || !s->pos || !copy) return free(copy), NM_EMEMORY;
  memcpy(copy, r->data, (size_t)r->n * sizeof *copy);
  s->row[s->n] = copy;
  s->pos[s->n++] = r->pos;
  return 0;
}

static void print_json(const struct shown *s, size_t seq, int V) {
  printf("{\"seq\": %zu, \"positions\": [", seq);
  for (int i = 0; i < s->n; i++) printf("%s%d", i ? ", " : "", s->pos[i]);
  printf("], \"logits\": [");
  for (int i = 0; i < s->n; i++) {
    printf("%s[", i ? ", " : "");
    for (int v = 0; v < V; v++) printf("%s%.9g", v ? ", " : "", (double)s->row[i][v]);
    printf("]");
  }
  printf("]}\n");
}

static void print_top(const struct shown *s, size_t seq, int V, int top) {
  double *lp = malloc((size_t)V * sizeof *lp);
  for (int i = 0; i < s->n && lp; i++) {
    nm_log_softmax(s->row[i], V, lp);
    printf("text %zu, position %d\n", seq + 1, s->pos[i]);
    for (int k = 0; k < top && k < V; k++) {
      int best = 0;
      for (int v = 1; v < V; v++)
        if (lp[v] > lp[best]) best = v;
      char *t = NULL;
      size_t n;
      int32_t id = best;
      nm_detokenize(s->in->m, &id, 1, &t, &n, NULL);
      printf("  %8d  %9.4f  %6.2f %%  '%s'\n", best, lp[best], 100 * nm_exp(lp[best]), t ? t : "");
      nm_free(t);
      lp[best] = -1e300;
    }
  }
  free(lp);
}

static int seq_done(void *arg, size_t seq, nm_err *err) {
  struct shown *s = arg;
  nm_model_info i;
  (void)err;
  nm_model_describe(s->in->m, &i);
  cli_progress_end();
  if (cli_flag(s->c, "json")) print_json(s, seq, i.V);
  else print_top(s, seq, i.V, (int)cli_int(s->c, "top", 10));
  for (int k = 0; k < s->n; k++) free(s->row[k]);
  s->n = 0;
  return 0;
}

static int show(struct cli *c, struct cli_input *in) {
  nm_err err = {0};
  const char *at = cli_text(c, "at");
  struct shown s = {.c = c, .in = in};
  nm_tap tap = {"logits", at ? at : "last"};
  nm_request r = {.seqs = in->seqs, .n_seqs = in->n, .taps = &tap, .n_taps = 1, .edits = in->edits,
                  .share_prefix = true, .row = keep_row, .done = seq_done, .arg = &s, .progress = &cli_progress};
  int st = nm_run(in->e, &r, &err);
  for (int k = 0; k < s.n; k++) free(s.row[k]);
  free(s.row);
  free(s.pos);
  cli_progress_end();
  if (st) return cli_fail(c, &err);
  cli_tell_edits(in);
  return 0;
}

static int run_logits(struct cli *c) {
  struct cli_input in;
  int st = cli_open(c, &in);
  if (!st) st = cli_read_input(c, &in);
  if (!st) st = cli_text(c, "out") || cli_flag(c, "dry-run") ? to_files(c, &in, "logits", true) : show(c, &in);
  cli_close(&in);
  return st;
}

const struct cli_verb cli_acts = {
    "acts", "activations of any site to .npy",
    "acts MODEL --site GLOB [--at POS] (--ids IDS | -p TEXT | --data F) (-o F.npy | -o DIR)",
    "Writes float32 arrays: [sites, D] for one position, [sites, positions, D] for several,\n"
    "[texts, sites, D] for several texts; sites in numeric layer order. A folder gets one\n"
    "series of shards a site and index.jsonl; the same command again goes on where it stopped.",
    "  noema acts models/planted.gguf --site 'blk.*.resid_post' --at last -p 'ann saw the red fox' -o acts.npy",
    acts_opts, run_acts};

const struct cli_verb cli_logits = {
    "logits", "next-token logits",
    "logits MODEL (--ids IDS | -p TEXT | --data F) [--at POS] [--json | -o F.npy | -o DIR]",
    "Scores for the next token after each chosen position. The bits do not depend on threads,\n"
    "batch, chunk or kernels.",
    "  noema logits models/planted.gguf -p 'ann saw the red fox by night ?' --top 3", logits_opts, run_logits};
