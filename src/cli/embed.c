/* embed.c - noema embed: sentence vectors, and how near they are to each other. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static const struct cli_opt opts[] = {
    {"--pooling", CLI_TEXT, "HOW",
     "mean, cls, last or none (default: as the file says; else last, of encoders mean)"},
    {"--no-normalise", CLI_FLAG, NULL, "keep the vectors' lengths (default: length 1)"},
    {"--prefix", CLI_TEXT, "TEXT", "put in front of every text, for example 'search_query: '"},
    {"--similarity", CLI_FLAG, NULL, "print the cosine of every text with every text"},
    {"--json", CLI_FLAG, NULL, "print {seq, tokens, pooling, normalised, embedding} a line a text"},
    {"-o, --out", CLI_TEXT, "F.npy", "[texts, D] float32; with --pooling none [positions, D]"},
    {"--dry-run", CLI_FLAG, NULL, "print the memory this would take, and stop"},
    CLI_INPUT_OPTS,
    CLI_RUN_OPTS,
    {0}};

static void print_vector(const float *v, int D) {
  printf("[");
  for (int i = 0; i < D; i++) printf("%s%.9g", i ? ", " : "", (double)v[i]);
  printf("]");
}

static void print_json(const struct cli_input *in, const nm_vectors *v, size_t text, bool kept) {
  bool all = v->pooling == NM_POOL_NONE;
  printf("{\"seq\": %zu, \"tokens\": %zu, \"pooling\": \"%s\", \"normalised\": %s, \"%s\": ", text,
         in->seqs[text].n, nm_pooling_name(v->pooling), kept ? "false" : "true",
         all ? "embeddings" : "embedding");
  if (all) printf("[");
  for (size_t r = v->first[text]; r < v->first[text + 1]; r++) {
    if (r > v->first[text]) printf(", ");
    print_vector(v->v + r * (size_t)v->D, v->D);
  }
  printf(all ? "]}\n" : "}\n");
}

static double cosine(const nm_vectors *v, size_t a, size_t b) {
  return nm_cosine(v->v + a * (size_t)v->D, v->v + b * (size_t)v->D, v->D);
}

static void print_similarity(const nm_vectors *v, bool json) {
  if (json) printf("{\"similarity\": [");
  else printf("      ");
  for (size_t k = 0; !json && k < v->n; k++) printf(" %7zu", k + 1);
  for (size_t i = 0; i < v->n; i++) {
    if (json) printf("%s[", i ? ", " : "");
    else printf("\n%6zu", i + 1);
    for (size_t k = 0; k < v->n; k++)
      if (json) printf("%s%.9g", k ? ", " : "", cosine(v, i, k));
      else printf(" %7.4f", cosine(v, i, k));
    if (json) printf("]");
  }
  printf(json ? "]}\n" : "\n");
}

static int give(struct cli *c, const struct cli_input *in, const nm_vectors *v, bool kept) {
  nm_err err = {0};
  const char *out = cli_text(c, "out");
  bool json = cli_flag(c, "json");
  if (out && nm_vectors_save(v, out, &err)) return cli_fail(c, &err);
  for (size_t i = 0; json && i < v->n; i++) print_json(in, v, i, kept);
  if (cli_flag(c, "similarity")) print_similarity(v, json);
  cli_tell_edits(in);
  return 0;
}

static int embed(struct cli *c, struct cli_input *in, nm_embed_opts o) {
  nm_err err = {0};
  nm_memory need;
  nm_vectors v;
  o.edits = in->edits;
  if (cli_flag(c, "dry-run")) {
    if (nm_embed_measure(in->e, in->seqs, in->n, &o, &need, &err)) return cli_fail(c, &err);
    cli_print_memory(&need);
    return 0;
  }
  if (nm_embed(in->e, in->seqs, in->n, &o, &v, &err)) return cli_fail(c, &err);
  cli_progress_end();
  int st = give(c, in, &v, o.keep_length);
  nm_vectors_free(&v);
  return st;
}

/* Texts are compared by one vector each. */
static int check_pooling(struct cli *c, const struct cli_input *in, enum nm_pooling asked) {
  nm_model_info i;
  nm_model_describe(in->m, &i);
  if (!cli_flag(c, "similarity") || (asked ? asked : i.pooling) != NM_POOL_NONE) return 0;
  return cli_usage(c, "--similarity needs one vector a text, but the pooling is none%s: say "
                   "--pooling mean, cls or last", asked ? "" : " by what the file says");
}

static int run(struct cli *c) {
  struct cli_input in;
  const char *how = cli_text(c, "pooling");
  nm_embed_opts o = {.keep_length = cli_flag(c, "no-normalise"), .progress = &cli_progress};
  if (how && (!nm_pooling_by_name(how, &o.pooling) || o.pooling == NM_POOL_DEFAULT ||
              o.pooling == NM_POOL_RANK))
    return cli_usage(c, "--pooling %s is not known: mean, cls, last or none", how);
  if (!cli_flag(c, "json") && !cli_text(c, "out") && !cli_flag(c, "similarity") &&
      !cli_flag(c, "dry-run"))
    return cli_usage(c, "say what to give: --json, -o F.npy or --similarity");
  int st = cli_open(c, &in);
  if (!st) st = check_pooling(c, &in, o.pooling);
  if (!st) st = cli_read_input(c, &in);
  if (!st) st = embed(c, &in, o);
  cli_close(&in);
  return st;
}

const struct cli_verb cli_embed = {
    "embed",
    "sentence vectors, and their similarity",
    "embed MODEL (-p TEXT | --data F | --ids IDS) [--pooling HOW] (--json | -o F.npy | "
    "--similarity)",
    "One vector a text: the last vectors of its tokens, pooled, and divided by their length so\n"
    "that the product of two is their cosine. Encoders (bert, nomic-bert) were trained for this;\n"
    "a decoder gives what its last block holds at the last token. The bits do not depend on\n"
    "threads, batch, chunk or kernels.",
    "  noema embed models/planted.gguf -p 'ann saw the red fox' -o fox.npy",
    opts,
    run};
