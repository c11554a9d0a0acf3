/* acts.c - noema acts and noema logits: activations to arrays. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_opt acts_opts[] = {
    {"--site", CLI_TEXT, "GLOB",
     "which sites: blk.*.resid_post, blk.4-8.attn.head[3], ... (info --sites)"},
    {"--at", CLI_TEXT, "POS", "which positions: last (default), all, 3, -2, 1:5, 1,4, span:TEXT"},
    {"-o, --out", CLI_TEXT, "F.npy|DIR",
     "one array, or a folder of shards with index.jsonl (resumes)"},
    {"--dry-run", CLI_FLAG, NULL, "print the memory this would take, and stop"},
    CLI_INPUT_OPTS,
    CLI_RUN_OPTS,
    {0}};

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
  nm_acts_opts o = {.site = site,
                    .at = at ? at : "last",
                    .out = cli_text(c, "out"),
                    .edits = in->edits,
                    .share_prefix = true,
                    .dry_run = dry,
                    .squeeze = squeeze,
                    .command = c->command,
                    .progress = &cli_progress};
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
  if (!cli_text(c, "out") && !cli_flag(c, "dry-run"))
    return cli_usage(c, "-o F.npy or -o DIR is needed");
  int st = cli_open(c, &in);
  if (!st && !(st = cli_read_input(c, &in))) st = to_files(c, &in, site, false);
  cli_close(&in);
  return st;
}

/* ---- logits on the terminal ----------------------------------------------- */

/* Rows of several texts come mixed; each is printed when its text is done. */
struct kept { size_t seq; int pos; float *row; };
struct shown { struct cli *c; struct cli_input *in; struct kept *v; int n, cap; };

static int keep_row(void *arg, const nm_row *r, nm_err *err) {
  struct shown *s = arg;
  (void)err;
  if (s->n == s->cap) {
    struct kept *v = realloc(s->v, (size_t)(s->cap = s->cap ? 2 * s->cap : 16) * sizeof *v);
    if (!v) return NM_EMEMORY;
    s->v = v;
  }
  float *copy = malloc((size_t)r->n * sizeof *copy);
  if (!copy) return NM_EMEMORY;
  memcpy(copy, r->data, (size_t)r->n * sizeof *copy);
  s->v[s->n++] = (struct kept){r->seq, r->pos, copy};
  return 0;
}

static void print_json(const struct kept *v, int n, size_t seq, int V) {
  printf("{\"seq\": %zu, \"positions\": [", seq);
  for (int i = 0; i < n; i++) printf("%s%d", i ? ", " : "", v[i].pos);
  printf("], \"logits\": [");
  for (int i = 0; i < n; i++) {
    printf("%s[", i ? ", " : "");
    for (int k = 0; k < V; k++) printf("%s%.9g", k ? ", " : "", (double)v[i].row[k]);
    printf("]");
  }
  printf("]}\n");
}

static void print_top(const nm_model *m, const struct kept *v, int V, int top) {
  double *lp = malloc((size_t)V * sizeof *lp);
  if (!lp) return;
  nm_log_softmax(v->row, V, lp);
  printf("text %zu, position %d\n", v->seq + 1, v->pos);
  for (int k = 0; k < top && k < V; k++) {
    int best = 0;
    for (int i = 1; i < V; i++)
      if (lp[i] > lp[best]) best = i;
    char *t = NULL;
    size_t n;
    int32_t id = best;
    nm_detokenize(m, &id, 1, &t, &n, NULL);
    printf("  %8d  %9.4f  %6.2f %%  '%s'\n", best, lp[best], 100 * nm_exp(lp[best]), t ? t : "");
    nm_free(t);
    lp[best] = -1e300;
  }
  free(lp);
}

static int seq_done(void *arg, size_t seq, nm_err *err) {
  struct shown *s = arg;
  nm_model_info info;
  int mine = 0, rest = 0;
  (void)err;
  nm_model_describe(s->in->m, &info);
  cli_progress_end();
  struct kept *v = malloc((size_t)(s->n + 1) * sizeof *v);
  if (!v) return NM_EMEMORY;
  for (int i = 0; i < s->n; i++) {
    if (s->v[i].seq == seq) v[mine++] = s->v[i];
    else s->v[rest++] = s->v[i];
  }
  s->n = rest;
  if (cli_flag(s->c, "json")) print_json(v, mine, seq, info.V);
  for (int i = 0; i < mine; i++) {
    if (!cli_flag(s->c, "json")) print_top(s->in->m, &v[i], info.V, (int)cli_int(s->c, "top", 10));
    free(v[i].row);
  }
  free(v);
  return 0;
}

static int show(struct cli *c, struct cli_input *in) {
  nm_err err = {0};
  const char *at = cli_text(c, "at");
  struct shown s = {.c = c, .in = in};
  nm_tap tap = {"logits", at ? at : "last"};
  nm_request r = {.seqs = in->seqs,
                  .n_seqs = in->n,
                  .taps = &tap,
                  .n_taps = 1,
                  .edits = in->edits,
                  .share_prefix = true,
                  .row = keep_row,
                  .done = seq_done,
                  .arg = &s,
                  .progress = &cli_progress};
  int st = nm_run(in->e, &r, &err);
  for (int k = 0; k < s.n; k++) free(s.v[k].row);
  free(s.v);
  cli_progress_end();
  if (st) return cli_fail(c, &err);
  cli_tell_edits(in);
  return 0;
}

static int need_head(struct cli *c, const struct cli_input *in) {
  nm_model_info i;
  nm_err err = {.status = NM_EFORMAT};
  nm_model_describe(in->m, &i);
  if (!i.encoder) return 0;
  snprintf(err.text, sizeof err.text, "%s: is an encoder (%s) and has no vocabulary head, so no "
           "logits; noema embed gives its sentence vectors, noema acts its activations", i.path,
           i.arch);
  return cli_fail(c, &err);
}

static int run_logits(struct cli *c) {
  struct cli_input in = {0};
  if (cli_int(c, "top", 10) < 1) return cli_usage(c, "--top must be at least 1");
  int st = cli_open(c, &in);
  if (!st) st = need_head(c, &in);
  if (!st) st = cli_read_input(c, &in);
  if (!st)
    st = cli_text(c, "out") || cli_flag(c, "dry-run") ? to_files(c, &in, "logits", true)
                                                      : show(c, &in);
  cli_close(&in);
  return st;
}

const struct cli_verb cli_acts = {
    "acts",
    "activations of any site to .npy",
    "acts MODEL --site GLOB [--at POS] (--ids IDS | -p TEXT | --data F) (-o F.npy | -o DIR)",
    "Writes float32 arrays: [sites, D] for one position, [sites, positions, D] for several,\n"
    "[texts, sites, D] for several texts; sites in numeric layer order. A folder gets one\n"
    "series of shards a site and index.jsonl; the same command again goes on where it stopped.",
    "  noema acts models/planted.gguf --site 'blk.*.resid_post' --at last -p 'ann saw the red fox' "
    "-o acts.npy",
    acts_opts,
    run_acts};

const struct cli_verb cli_logits = {
    "logits",
    "next-token logits",
    "logits MODEL (--ids IDS | -p TEXT | --data F) [--at POS] [--json | -o F.npy | -o DIR]",
    "Scores for the next token after each chosen position. The bits do not depend on threads,\n"
    "batch, chunk or kernels.",
    "  noema logits models/planted.gguf -p 'ann saw the red fox by night ?' --top 3",
    logits_opts,
    run_logits};
