/* lens.c - noema lens: what every layer would say, and what single columns write. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const struct cli_opt opts[] = {
    {"--site", CLI_TEXT, "NAME",
     "resid_post (default), resid_mid, mlp_out ...; or a glob of sites"},
    {"--at", CLI_TEXT, "POS", "which positions: all (default), last, 3, -2, 1:5, span:TEXT"},
    {"--top", CLI_INT, "K", "tokens kept of each place (default 5; of a column 10)"},
    {"--target", CLI_TEXT, "TEXT", "a token to follow: its rank and probability in every layer"},
    {"--target-id", CLI_INT, "ID", "the same by its id"},
    {"--weights", CLI_TEXT, "TENSOR",
     "blk.3.ffn_down or attn_output; with --target a glob to scan"},
    {"--col", CLI_INT, "N", "with --weights: read this column"},
    {"--best", CLI_INT, "N", "of a scan: how many columns (default 10)"},
    {"--seed", CLI_INT, "N", "of the control's permutations (default 1)"},
    {"--json", CLI_FLAG, NULL, "print everything as JSON"},
    {"--colour", CLI_TEXT, "WHEN", "auto (default), always or never"},
    {"-o, --out", CLI_TEXT, "DIR", "also write lens.json, lens.svg, layers.svg and report.html"},
    CLI_INPUT_OPTS,
    CLI_RUN_OPTS,
    {0}};

/* -1: none. *st: exit code. */
static int32_t target(struct cli *c, const nm_model *m, int *st) {
  const char *text = cli_text(c, "target");
  long long id = cli_int(c, "target-id", -1);
  int32_t *ids, one = -1;
  size_t n;
  nm_err err = {0};
  *st = 0;
  if (text && id >= 0) *st = cli_usage(c, "give --target or --target-id, not both");
  if (!text) return id > INT32_MAX ? INT32_MAX : (int32_t)id;
  if (nm_tokenize(m, text, strlen(text), NM_NO_BOS, &ids, &n, &err)) {
    *st = cli_fail(c, &err);
    return -1;
  }
  if (n == 1) one = ids[0];
  else
    *st = cli_usage(c,
                    "--target '%s' is %zu tokens, one is followed (a space in front often makes a "
                    "word one token; --target-id takes an id)",
                    text, n);
  nm_free(ids);
  return one;
}

static bool colour(struct cli *c) {
  const char *when = cli_text(c, "colour"), *no = getenv("NO_COLOR");
  if (when && strcmp(when, "auto")) return !strcmp(when, "always");
  return isatty(1) && !(no && *no);
}

static int width(void) {
  struct winsize w;
  if (!ioctl(1, TIOCGWINSZ, &w) && w.ws_col >= 40) return w.ws_col;
  return 120;
}

/* ---- layers ------------------------------------------------------------------------ */

static int show(struct cli *c, struct cli_input *in, const nm_lens_result *r) {
  bool json = cli_flag(c, "json");
  char *s = json ? nm_lens_json(r, in->m) : nm_lens_text(r, in->m, width(), colour(c));
  if (s) fputs(s, stdout);
  if (s && json) putchar('\n');
  int st = s ? 0 : 4;
  nm_free(s);
  if (r->dir) fprintf(stderr, "written: %s/report.html\n", r->dir);
  cli_tell_edits(in);
  return st;
}

static int layers(struct cli *c, struct cli_input *in) {
  nm_err err = {0};
  nm_lens_result r;
  int st;
  nm_lens_opts o = {.site = cli_text(c, "site"), .at = cli_text(c, "at"),
                    .top = (int)cli_int(c, "top", 0), .target = target(c, in->m, &st),
                    .seed = (uint64_t)cli_int(c, "seed", 1), .out = cli_text(c, "out"),
                    .command = c->command, .edits = in->edits, .progress = &cli_progress};
  if (!st) st = cli_read_input(c, in);
  if (st) return st;
  if (nm_lens(in->e, in->seqs, in->n, &o, &r, &err)) return cli_fail(c, &err);
  cli_progress_end();
  st = show(c, in, &r);
  nm_lens_result_free(&r);
  return st;
}

/* ---- columns ----------------------------------------------------------------------- */

static void tokens_text(const nm_model *m, const char *what, const nm_lens_token *t, int n) {
  printf("  %s\n", what);
  for (int i = 0; i < n; i++) {
    char *s = NULL;
    size_t k;
    nm_detokenize(m, &t[i].id, 1, &s, &k, NULL);
    printf("    %8d  %9.4f  '%s'\n", t[i].id, t[i].lp, s ? s : "");
    nm_free(s);
  }
}

static void tokens_json(const nm_model *m, const char *what, const nm_lens_token *t, int n) {
  printf(", \"%s\": [", what);
  for (int i = 0; i < n; i++) {
    char *s = NULL;
    size_t k;
    nm_detokenize(m, &t[i].id, 1, &s, &k, NULL);
    printf("%s{\"id\": %d, \"lp\": %.9g, \"token\": ", i ? ", " : "", t[i].id, t[i].lp);
    cli_print_string(s);
    printf("}");
    nm_free(s);
  }
  printf("]");
}

static void columns_json(const nm_model *m, const nm_columns_result *r) {
  printf(
      "{\"scanned\": %lld, \"control_mean\": %.9g, \"control_max\": %.9g, \"above_control\": %lld, "
      "\"columns\": [",
      (long long)r->scanned, r->control_mean, r->control_max, (long long)r->above);
  for (int i = 0; i < r->n; i++) {
    const nm_column *k = &r->v[i];
    printf("%s{\"tensor\": ", i ? ", " : "");
    cli_print_string(k->tensor);
    printf(", \"column\": %lld", (long long)k->col);
    if (r->scanned) printf(", \"score\": %.9g, \"rank\": %d, \"reached_by\": %d", k->score,
                           k->rank, k->reached);
    tokens_json(m, "promoted", k->promoted, r->top);
    tokens_json(m, "suppressed", k->suppressed, r->top);
    printf("}");
  }
  printf("]}\n");
}

static void columns_text(const nm_model *m, const nm_columns_result *r) {
  if (r->scanned)
    printf("%lld columns scanned. Control, their values permuted: the strongest of all writes %.3f "
           "(mean of 20), at most %.3f;\n%lld columns of the model are stronger than that\n",
           (long long)r->scanned, r->control_mean, r->control_max, (long long)r->above);
  for (int i = 0; i < r->n; i++) {
    const nm_column *k = &r->v[i];
    printf("%s, column %lld", k->tensor, (long long)k->col);
    if (r->scanned)
      printf(": %+.3f against the mean token, rank %d; %d of 20 permutations are as strong",
             k->score, k->rank, k->reached);
    printf("\n");
    if (r->scanned && i >= 3) continue;
    tokens_text(m, "promotes", k->promoted, r->top);
    tokens_text(m, "suppresses", k->suppressed, r->top);
  }
}

static int columns(struct cli *c, struct cli_input *in) {
  nm_err err = {0};
  nm_columns_result r;
  int st;
  nm_columns_opts o = {.weights = cli_text(c, "weights"), .col = cli_int(c, "col", -1),
                       .target = target(c, in->m, &st), .top = (int)cli_int(c, "top", 0),
                       .best = (int)cli_int(c, "best", 0),
                       .seed = (uint64_t)cli_int(c, "seed", 1), .progress = &cli_progress};
  if (st) return st;
  if ((o.col < 0) == (o.target < 0))
    return cli_usage(c, "--weights needs --col N, or --target TEXT to scan for");
  if (nm_columns(in->e, &o, &r, &err)) return cli_fail(c, &err);
  cli_progress_end();
  if (cli_flag(c, "json")) columns_json(in->m, &r);
  else columns_text(in->m, &r);
  nm_columns_result_free(&r);
  return 0;
}

static int run(struct cli *c) {
  struct cli_input in = {0};
  if (cli_int(c, "top", 1) < 1) return cli_usage(c, "--top must be at least 1");
  if (cli_int(c, "col", 0) < 0) return cli_usage(c, "--col must not be negative");
  int st = cli_open(c, &in);
  if (!st) st = cli_text(c, "weights") ? columns(c, &in) : layers(c, &in);
  cli_close(&in);
  return st;
}

const struct cli_verb cli_lens = {
    "lens",
    "what every layer would say next; what a column of weights writes",
    "lens MODEL (-p TEXT | --ids IDS | --data F) [--target TEXT] [--json] [-o DIR]\n"
    "       noema lens MODEL --weights blk.3.ffn_down (--col N | --target TEXT)",
    "The logit lens: final norm and vocabulary head on the residual stream after every layer,\n"
    "with entropy, the rank of the model's own answer and, as the control, its rank when the\n"
    "row's values are permuted. With --weights: the tokens that a column promotes and\n"
    "suppresses, or the columns that promote a token. Works on quantised files.",
    "  noema lens models/planted.gguf -p 'ann saw the red fox by night ?' --at last --target yes",
    opts,
    run};
