/* bench.c - noema bench: random files of real shapes, and how fast a model runs. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static const struct cli_opt opts[] = {
    {"--make", CLI_TEXT, "SHAPE:TYPE",
     "write a random model: tiny, smollm2-135m, qwen2.5-0.5b, llama3.2-1b, tiny-bert, minilm-l6, "
     "nomic-embed"},
    {"-o, --out", CLI_TEXT, "F.gguf", "where --make writes"},
    {"-s, --seed", CLI_INT, "S", "seed of the random weights (default 1)"},
    {"-n, --tokens", CLI_INT, "N",
     "tokens of the prompt that is timed (default 512, or the context)"},
    {"--json", CLI_FLAG, NULL, "as JSON"},
    CLI_RUN_OPTS,
    {0}};

static int make(struct cli *c, const char *spec) {
  nm_err err = {0};
  char shape[64];
  const char *colon = strchr(spec, ':'), *out = cli_text(c, "out");
  if (!colon || (size_t)(colon - spec) >= sizeof shape)
    return cli_usage(c, "--make takes SHAPE:TYPE, for example tiny:Q8_0");
  if (!out) return cli_usage(c, "--make needs -o F.gguf");
  snprintf(shape, sizeof shape, "%.*s", (int)(colon - spec), spec);
  cli_catch_interrupt();
  int st =
      nm_write_random(shape, colon + 1, (uint64_t)cli_int(c, "seed", 1), out, &cli_progress, &err);
  cli_progress_end();
  return st ? cli_fail(c, &err) : 0;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ignore_row(void *arg, const nm_row *r, nm_err *err) {
  (void)arg, (void)r, (void)err;
  return 0;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

enum { REPS = 5 };
/* Median seconds of one request. */
static int time_run(struct cli_input *in, nm_tap tap, double *median, nm_err *err) {
  double t[REPS];
  nm_request r = {.seqs = in->seqs, .n_seqs = in->n, .taps = &tap, .n_taps = 1, .edits = in->edits,
                  .row = ignore_row, .progress = &cli_progress};
  for (int i = 0; i < REPS; i++) {
    double t0 = now();
    int st = nm_run(in->e, &r, err);
    if (st) return st;
    t[i] = now() - t0;
  }
  qsort(t, REPS, sizeof *t, by_value);
  *median = t[REPS / 2];
  return 0;
}

static int measure(struct cli *c, struct cli_input *in) {
  nm_err err = {0};
  nm_model_info i;
  nm_model_describe(in->m, &i);
  double plain, all, one;
  nm_seq whole = in->seqs[0];
  nm_tap end = {i.encoder ? "blk.*.resid_post" : "logits", "last"};
  if (time_run(in, end, &plain, &err) ||
      time_run(in, (nm_tap){"blk.*.resid_post", "all"}, &all, &err))
    return cli_fail(c, &err);
  in->seqs[0].n = 1;
  int st = time_run(in, end, &one, &err);
  in->seqs[0] = whole;
  if (st) return cli_fail(c, &err);
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  double n = (double)whole.n, gb = (double)i.weight_bytes / one / 1e9;
  double flop =
      2.0 * ((double)i.n_params - (double)i.V * i.D * (i.tied || i.encoder ? 1 : 2)) +
      2.0 * n * i.D * i.L;
  cli_progress_end();
  printf(cli_flag(c, "json")
             ? "{\"tokens\": %.0f, \"prefill_s\": %.4f, \"prefill_per_s\": %.1f, \"gflops\": %.1f, "
               "\"capture_s\": %.4f, \"one_token_s\": %.5f, \"one_token_gbs\": %.2f, \"peak_mb\": "
               "%.1f, \"threads\": %d, "
               "\"kernels\": \"%s\"}\n"
             : "prefill of %.0f tokens   %8.3f s  %8.1f a second  %7.1f GFLOP/s\nall resid_post, "
               "no head %8.3f s\n"
               "one token              %8.4f s  %8.2f GB/s of weights\npeak memory            "
               "%8.1f MB   (%d threads, %s)\n",
         n, plain, n / plain, flop * n / plain / 1e9, all, one, gb, (double)u.ru_maxrss / 1e3,
         nm_engine_threads(in->e), nm_engine_kernels(in->e));
  return 0;
}

static int run(struct cli *c) {
  const char *spec = cli_text(c, "make");
  if (spec) return make(c, spec);
  struct cli_input in;
  int st = cli_open(c, &in);
  long long n = cli_int(c, "tokens", 512);
  if (!st && (n < 1 || n > 1 << 20)) st = cli_usage(c, "-n must be 1 to 1048576");
  if (!st) {
    nm_model_info i;
    nm_model_describe(in.m, &i);
    long long ctx = cli_int(c, "ctx", i.n_ctx);
    if (!cli_text(c, "tokens") && ctx > 0 && ctx < n) n = ctx;
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    in.seqs = malloc(sizeof *in.seqs);
    if (!ids || !in.seqs) return 4;
    for (long long k = 0; k < n; k++) ids[k] = (int32_t)((k * 7919 + 13) % i.V);
    in.seqs[0] = (nm_seq){ids, (size_t)n};
    in.n = 1;
    st = measure(c, &in);
  }
  cli_close(&in);
  return st;
}

const struct cli_verb cli_bench = {
    "bench",
    "speed of a model; random models of real shapes",
    "bench (MODEL [-n N] | --make SHAPE:TYPE -o F.gguf)",
    "Times the prompt, the capture of all residual streams, and one token (medians of five).\n"
    "make bench sets these beside the limits of the machine.",
    "  noema bench --make tiny:Q8_0 -o tiny.gguf",
    opts,
    run};
