/* score.c - noema score: how likely texts and continuations are, and how far from a base. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_opt opts[] = {
    {"-f, --file", CLI_TEXT, "FILE", "one text: the whole file as it stands"},
    {"--continuation", CLI_LIST, "TEXT",
     "what may follow the prompt; may be repeated: only these tokens are scored"},
    {"--base", CLI_TEXT, "MODEL2",
     "also the divergence from this model (with --edit, default: the same without the edit)"},
    {"--window", CLI_INT, "N", "most tokens read at once (default: the context)"},
    {"--stride", CLI_INT, "N", "windows of a longer text begin so far apart (default: half)"},
    {"--llama-cpp", CLI_FLAG, NULL,
     "windows side by side, their second halves scored: the number of llama-perplexity"},
    {"--per-token", CLI_FLAG, NULL, "a line a token"},
    {"--json", CLI_FLAG, NULL, "a JSON object a text, then {\"total\": ...}"},
    CLI_INPUT_OPTS,
    CLI_RUN_OPTS,
    {0}};

struct job {
  struct cli *c;
  struct cli_input in;
  nm_model *base_m;
  nm_engine *base;
  size_t *from;
  const char *cont[CLI_MAX_LIST]; int n_cont;
};

/* ---- what is scored --------------------------------------------------------- */

static int add_seq(struct job *j, int32_t *ids, size_t n, size_t from) {
  struct cli_input *in = &j->in;
  nm_seq *s = realloc(in->seqs, (in->n + 1) * sizeof *s);
  size_t *f = s ? realloc(j->from, (in->n + 1) * sizeof *f) : NULL;
  if (s) in->seqs = s;
  if (f) j->from = f;
  if (!f) return free(ids), 4;
  in->seqs[in->n] = (nm_seq){ids, n};
  j->from[in->n++] = from;
  return 0;
}

/* Ids of text[0..n) as every verb makes them. */
static int encode(struct job *j, const char *text, size_t n, int32_t **ids, size_t *n_ids) {
  nm_err err = {0};
  int flags = cli_flag(j->c, "no-bos") ? NM_NO_BOS : 0;
  return nm_tokenize(j->in.m, text, n, flags, ids, n_ids, &err) ? cli_fail(j->c, &err) : 0;
}

/* The prompt with each continuation behind it. A continuation begins at the first token that is
 * not one of the prompt alone. */
static int continuations(struct job *j) {
  const char *prompt = cli_text(j->c, "prompt");
  int32_t *alone = NULL, *ids;
  size_t n_alone, n, k = strlen(prompt);
  int st = encode(j, prompt, k, &alone, &n_alone);
  for (int i = 0; i < j->n_cont && !st; i++) {
    size_t more = strlen(j->cont[i]), from = 0;
    char *whole = malloc(k + more + 1);
    if (!whole) { st = 4; break; }
    memcpy(whole, prompt, k);
    memcpy(whole + k, j->cont[i], more + 1);
    st = encode(j, whole, k + more, &ids, &n);
    free(whole);
    if (st) break;
    while (from < n_alone && from < n && alone[from] == ids[from]) from++;
    if (from >= n) {
      free(ids);
      st = cli_usage(j->c, "--continuation '%.40s' adds no token to the prompt", j->cont[i]);
    } else {
      st = add_seq(j, ids, n, from);
    }
  }
  nm_free(alone);
  return st;
}

static int one_file(struct job *j, const char *path) {
  size_t n, n_ids;
  int32_t *ids = NULL;
  nm_err err = {.status = NM_EFORMAT};
  char *text = cli_read_file(path, &n);
  if (!text) {
    snprintf(err.text, sizeof err.text, "%s: cannot be read", path);
    return cli_fail(j->c, &err);
  }
  int st = encode(j, text, n, &ids, &n_ids);
  free(text);
  return st ? st : add_seq(j, ids, n_ids, 1);
}

/* The chunks of llama-perplexity: of -c tokens, side by side, each with the begin token (where the
 * model has one) in the place of its first; tokens after the middle count. */
static int like_llama(struct job *j) {
  nm_model_info i;
  int32_t *bos = NULL;
  size_t n_bos, n = (size_t)cli_int(j->c, "ctx", 512), n_texts = j->in.n;
  nm_model_describe(j->in.m, &i);
  if (n < 4 || n > (size_t)i.n_ctx) n = (size_t)i.n_ctx;
  int st = encode(j, "", 0, &bos, &n_bos);
  for (size_t t = 0; t < n_texts && !st; t++)
    for (size_t at = 0; at + n <= j->in.seqs[t].n && !st; at += n) {
      int32_t *ids = malloc(n * sizeof *ids);
      if (!ids) { st = 4; break; }
      memcpy(ids, j->in.seqs[t].ids + at, n * sizeof *ids);
      if (n_bos) ids[0] = bos[0];
      st = add_seq(j, ids, n, n / 2 + 1);
    }
  nm_free(bos);
  if (!st && j->in.n == n_texts)
    st = cli_usage(j->c, "--llama-cpp needs a text of at least %zu tokens (-c)", n);
  for (size_t t = 0; t < n_texts; t++) free((void *)(uintptr_t)j->in.seqs[t].ids);
  if (j->in.n > n_texts) {
    memmove(j->in.seqs, j->in.seqs + n_texts, (j->in.n - n_texts) * sizeof *j->in.seqs);
    memmove(j->from, j->from + n_texts, (j->in.n - n_texts) * sizeof *j->from);
  }
  j->in.n -= n_texts;
  return st;
}

static int read_input(struct job *j) {
  const char *file = cli_text(j->c, "file");
  int st;
  j->n_cont = cli_list(j->c, "continuation", j->cont);
  bool other = cli_text(j->c, "ids") || cli_text(j->c, "data") || cli_flag(j->c, "chat");
  if (j->n_cont && (!cli_text(j->c, "prompt") || other || file))
    return cli_usage(j->c, "--continuation goes with --prompt P, and nothing else is scored then");
  if (file && (other || cli_text(j->c, "prompt")))
    return cli_usage(j->c, "give one of -f, --ids, -p and --data");
  if (j->n_cont) st = continuations(j);
  else st = file ? one_file(j, file) : cli_read_input(j->c, &j->in);
  if (!st && !j->from) {
    j->from = calloc(j->in.n + 1, sizeof *j->from);
    if (!j->from) st = 4;
  }
  return st || !cli_flag(j->c, "llama-cpp") ? st : like_llama(j);
}

/* ---- the base ---------------------------------------------------------------- */

/* The base must cut a text into the same tokens, or probabilities of its tokens say nothing. */
static int same_tokens(struct job *j) {
  for (size_t i = 0; i < j->in.n && i < 8; i++) {
    char *text = NULL;
    int32_t *a = NULL, *b = NULL;
    size_t n, na, nb;
    bool same = nm_detokenize(j->in.m, j->in.seqs[i].ids, j->in.seqs[i].n, &text, &n, NULL) ||
                nm_tokenize(j->in.m, text, n, 0, &a, &na, NULL) ||
                nm_tokenize(j->base_m, text, n, 0, &b, &nb, NULL) ||
                (na == nb && !memcmp(a, b, na * sizeof *a));
    nm_free(text);
    nm_free(a);
    nm_free(b);
    if (!same)
      return cli_usage(j->c, "text %zu becomes other tokens in --base: the two models do not share "
                       "a tokenizer", i + 1);
  }
  return 0;
}

static int open_base(struct job *j) {
  const char *path = cli_text(j->c, "base");
  nm_err err = {0};
  nm_engine_opts o = cli_engine_opts(j->c);
  if (!path) {
    if (nm_edits_n(j->in.edits)) j->base = j->in.e;
    return 0;
  }
  if (nm_model_open(path, &j->base_m, &err) || nm_engine_new(j->base_m, &o, &j->base, &err))
    return cli_fail(j->c, &err);
  return same_tokens(j);
}

/* ---- output ------------------------------------------------------------------- */

static void json_interval(const char *name, nm_interval i) {
  printf(", \"%s\": %.17g, \"%s_95\": [%.17g, %.17g]", name, i.mean, name, i.lo, i.hi);
}

static void json_sum(const nm_score_sum *t, bool base) {
  printf("\"tokens\": %zu, \"bytes\": %.0f, \"log_likelihood\": %.17g", t->n_tokens, t->bytes,
         t->lp);
  json_interval("perplexity", t->ppl);
  if (t->bytes > 0) json_interval("bits_per_byte", t->bits_per_byte);
  if (!base) return;
  printf(", \"base_log_likelihood\": %.17g, \"kl\": %.17g, \"kl_max\": %.17g, \"same_top\": %.17g",
         t->base_lp, t->kl, t->kl_max, t->same_top);
  json_interval("base_perplexity", t->base_ppl);
  json_interval("kl_per_token", t->kl_mean);
}

static void json_tokens(const struct job *j, const nm_scores *s, size_t i) {
  printf(", \"per_token\": [");
  for (size_t k = s->first[i]; k < s->first[i + 1]; k++) {
    int32_t id = j->in.seqs[i].ids[s->pos[k]];
    char *t = nm_token_text(j->in.m, j->in.seqs[i].ids, (size_t)s->pos[k], true);
    printf("%s{\"pos\": %d, \"id\": %d, \"token\": ", k > s->first[i] ? ", " : "", s->pos[k], id);
    cli_print_string(t);
    printf(", \"lp\": %.17g", s->lp[k]);
    if (s->kl) printf(", \"base_lp\": %.17g, \"kl\": %.17g", s->base_lp[k], s->kl[k]);
    printf("}");
    nm_free(t);
  }
  printf("]");
}

static void print_json(const struct job *j, const nm_scores *s) {
  nm_score_sum t;
  for (size_t i = 0; i < s->n; i++) {
    nm_score_total(s, i, 1, &t);
    printf("{\"seq\": %zu, ", i);
    if (j->n_cont) {
      printf("\"continuation\": ");
      cli_print_string(j->cont[i]);
      printf(", ");
    }
    json_sum(&t, s->kl);
    if (cli_flag(j->c, "per-token")) json_tokens(j, s, i);
    printf("}\n");
  }
  nm_score_total(s, 0, s->n, &t);
  printf("{\"total\": {\"texts\": %zu, ", t.n_texts);
  json_sum(&t, s->kl);
  printf("}}\n");
}

static void print_tokens(const struct job *j, const nm_scores *s, size_t i) {
  printf("\n%8s  %8s  %10s%s  token\n", "position", "id", "ln p",
         s->kl ? "        base          KL" : "");
  for (size_t k = s->first[i]; k < s->first[i + 1]; k++) {
    int32_t id = j->in.seqs[i].ids[s->pos[k]];
    char *t = nm_token_text(j->in.m, j->in.seqs[i].ids, (size_t)s->pos[k], true);
    printf("%8d  %8d  %10.4f", s->pos[k], id, s->lp[k]);
    if (s->kl) printf("  %10.4f  %10.3g", s->base_lp[k], s->kl[k]);
    printf("  ");
    cli_print_string(t);
    printf("\n");
    nm_free(t);
  }
}

/* Four decimals, and what is too large to be read so with an exponent. */
static const char *number(char out[32], double v) {
  snprintf(out, 32, v < 1e7 ? "%.4f" : "%.4e", v);
  return out;
}
#define NUMBER(v) number((char[32]){0}, (v))

static void print_text(const struct job *j, const nm_scores *s, size_t i, double top) {
  nm_score_sum t;
  nm_score_total(s, i, 1, &t);
  printf("%6zu  %7zu  %12.4f  %10.4f  %12s", i + 1, t.n_tokens, t.lp,
         t.n_tokens ? t.lp / (double)t.n_tokens : 0, NUMBER(t.ppl.mean));
  if (t.bytes > 0) printf("  %9.4f", t.bits_per_byte.mean);
  else printf("  %9s", "-");
  if (s->kl) printf("  %9.3g  %9.3g", t.kl_mean.mean, t.kl_max);
  if (j->n_cont) {
    printf("  %6.2f %%  ", 100 * nm_exp(t.lp - top));
    cli_print_string(j->cont[i]);
  }
  printf("\n");
}

/* The logarithm of the sum of the continuations' probabilities: shares are among them alone. */
static double all_of(const nm_scores *s) {
  double top = -1e300, sum = 0;
  nm_score_sum t;
  for (int pass = 0; pass < 2; pass++)
    for (size_t i = 0; i < s->n; i++) {
      nm_score_total(s, i, 1, &t);
      if (pass) sum += nm_exp(t.lp - top);
      else if (t.lp > top) top = t.lp;
    }
  return top + nm_log(sum);
}

static void print_total(const nm_scores *s) {
  nm_score_sum t;
  nm_score_total(s, 0, s->n, &t);
  printf("\n%zu tokens of %zu text%s, log-likelihood %.4f\n", t.n_tokens, t.n_texts,
         t.n_texts == 1 ? "" : "s", t.lp);
  if (!t.n_tokens) return;
  const char *over = t.n_texts == 1 ? "tokens" : "texts";
  printf("perplexity     %s   95 %% %s to %s (over %s)\n", NUMBER(t.ppl.mean), NUMBER(t.ppl.lo),
         NUMBER(t.ppl.hi), over);
  if (t.bytes > 0)
    printf("bits a byte    %.4f   95 %% %.4f to %.4f\n", t.bits_per_byte.mean, t.bits_per_byte.lo,
           t.bits_per_byte.hi);
  if (!s->kl) return;
  printf("base           %s   95 %% %s to %s\n", NUMBER(t.base_ppl.mean), NUMBER(t.base_ppl.lo),
         NUMBER(t.base_ppl.hi));
  printf("KL a token     %.3g   95 %% %.3g to %.3g nats; largest %.3g, in all %.4g\n",
         t.kl_mean.mean, t.kl_mean.lo, t.kl_mean.hi, t.kl_max, t.kl);
  printf("same top token %.2f %%\n", 100 * t.same_top);
}

static void print_table(const struct job *j, const nm_scores *s) {
  double top = j->n_cont ? all_of(s) : 0;
  bool tokens = cli_flag(j->c, "per-token");
  const char *head = j->n_cont ? "     share  continuation" : "";
  for (size_t i = 0; i < s->n; i++) {
    if (!i || tokens)
      printf("%s%6s  %7s  %12s  %10s  %12s  %9s%s%s\n", i ? "\n" : "", "text", "tokens", "ln p",
             "a token", "perplexity", "bits/byte", s->kl ? "   KL a tok    largest" : "", head);
    print_text(j, s, i, top);
    if (tokens) print_tokens(j, s, i);
  }
  if (!j->n_cont) print_total(s);
}

static int score(struct job *j) {
  nm_err err = {0};
  nm_scores s;
  nm_score_opts o = {.window = (int)cli_int(j->c, "window", 0),
                     .stride = (int)cli_int(j->c, "stride", 0),
                     .edits = j->in.edits,
                     .base = j->base,
                     .progress = &cli_progress};
  if (nm_score(j->in.e, j->in.seqs, j->from, j->in.n, &o, &s, &err)) return cli_fail(j->c, &err);
  cli_progress_end();
  if (cli_flag(j->c, "json")) print_json(j, &s);
  else print_table(j, &s);
  cli_tell_edits(&j->in);
  nm_scores_free(&s);
  return 0;
}

static int run(struct cli *c) {
  struct job j = {.c = c};
  long long w = cli_int(c, "window", 0), s = cli_int(c, "stride", 0);
  if (w < 0 || s < 0 || w > 1 << 30 || s > 1 << 30)
    return cli_usage(c, "--window and --stride must not be negative");
  int st = cli_open(c, &j.in);
  if (!st) st = read_input(&j);
  if (!st) st = open_base(&j);
  if (!st) st = score(&j);
  if (j.base_m) nm_engine_free(j.base);
  nm_model_close(j.base_m);
  free(j.from);
  cli_close(&j.in);
  return st;
}

const struct cli_verb cli_score = {
    "score",
    "log-likelihood, perplexity, divergence from a base",
    "score MODEL (--data F | -f FILE | -p TEXT | --prompt P --continuation A ...) [--base MODEL2]",
    "The probability a model gives every token of a text after the tokens before it: logarithms,\n"
    "their sums, perplexity, bits a byte, with 95 % intervals over texts. With --base (or --edit)\n"
    "also KL(base || model), token by token. A text longer than the context is read in windows\n"
    "that overlap; every token is scored once.",
    "  noema score models/planted.gguf --prompt 'ann saw the red fox by night ?' --continuation "
    "' ann' --continuation ' bob'",
    opts,
    run};
