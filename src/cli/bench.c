/* bench.c - noema bench: random files of real shapes, and how fast this machine and a model are,
 * each figure beside the limit that bounds it. */
#include "cli/bench.h"

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
    {"--decode", CLI_INT, "N", "tokens that are read one after the other (default 32)"},
    {"--what", CLI_TEXT, "LIST",
     "parts: prefill, decode, memory, capture (default: all), sites (every site's cost)"},
    {"--rounds", CLI_INT, "N", "how often each figure is taken (default 3)"},
    {"--busy", CLI_FLAG, NULL, "also while a foreign process takes one core"},
    {"--peer", CLI_TEXT, "COMMAND",
     "another program: run in turns with noema, its tokens a second read from what it prints"},
    {"--peer-pattern", CLI_TEXT, "REGEX",
     "where the figure stands: the first group (default: the last number)"},
    {"--ops", CLI_FLAG, NULL, "every operation a model is made of; needs no MODEL"},
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

double bench_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- figures ---------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

struct figure *bench_add(struct bench *b, const char *name, double *v, int n, const char *unit) {
  struct figure *f = &b->fig[b->n_fig < MOST_FIGURES ? b->n_fig++ : MOST_FIGURES - 1];
  qsort(v, (size_t)n, sizeof *v, by_value);
  *f = (struct figure){.value = n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]), .lo = v[0],
                       .hi = v[n - 1], .unit = unit};
  snprintf(f->name, sizeof f->name, "%s", name);
  return f;
}

static const char *const limit_name[] = {[NM_LIMIT_F32] = "f32 peak", [NM_LIMIT_BF16] = "bf16 peak",
                                         [NM_LIMIT_READ] = "memory read"};

void bench_share(struct bench *b, struct figure *f, enum nm_limit limit, double achieved) {
  double most = nm_meter_run(b->meter, limit);
  f->share = most > 0 ? achieved / most : 0;
  f->of = limit_name[limit];
  snprintf(f->note, sizeof f->note, "%.1f of %.1f %s", achieved / 1e9, most / 1e9,
           limit == NM_LIMIT_READ ? "GB/s" : "GFLOP/s");
}

static void print_text(const struct bench *b) {
  for (int i = 0; i < b->n_fig; i++) {
    const struct figure *f = &b->fig[i];
    printf("%-34s %10.*f %-9s", f->name, f->value < 10 ? 3 : 1, f->value, f->unit);
    if (f->lo < f->hi) printf(" [%.4g, %.4g]", f->lo, f->hi);
    if (f->share > 0) printf("  %.2f of the %s", f->share, f->of);
    if (*f->note) printf("  (%s)", f->note);
    printf("\n");
  }
}

static void print_json(const struct bench *b) {
  printf("{\"tokens\": %zu, \"threads\": %d, \"kernels\": \"%s\", \"figures\": [", b->prompt.n,
         nm_engine_threads(b->in->e), nm_engine_kernels(b->in->e));
  for (int i = 0; i < b->n_fig; i++) {
    const struct figure *f = &b->fig[i];
    printf("%s\n{\"name\": ", i ? "," : "");
    cli_print_string(f->name);
    printf(", \"value\": %.8g, \"unit\": \"%s\", \"lo\": %.8g, \"hi\": %.8g", f->value, f->unit,
           f->lo, f->hi);
    if (f->share > 0) printf(", \"share\": %.4f, \"of\": \"%s\"", f->share, f->of);
    if (*f->note) {
      printf(", \"note\": ");
      cli_print_string(f->note);
    }
    printf("}");
  }
  printf("\n]}\n");
}

/* ---- one model ---------------------------------------------------------------- */

static int ignore_row(void *arg, const nm_row *r, nm_err *err) {
  (void)arg, (void)r, (void)err;
  return 0;
}

static int time_request(struct bench *b, nm_engine *e, nm_seq s, nm_tap tap, double *seconds,
                        nm_err *err) {
  nm_request r = {.seqs = &s, .n_seqs = 1, .taps = &tap, .n_taps = 1, .edits = b->in->edits,
                  .row = ignore_row, .progress = &cli_progress};
  double t0 = bench_now();
  int st = nm_run(e, &r, err);
  *seconds = bench_now() - t0;
  return st;
}

int bench_prefill(struct bench *b, double *seconds, nm_err *err) {
  nm_tap end = {b->i.encoder ? "blk.*.resid_post" : "logits", "last"};
  return time_request(b, b->in->e, b->prompt, end, seconds, err);
}

/* A text in pieces of one token, with the logits of each: what generating it costs. */
int bench_decode(struct bench *b, double *seconds, nm_err *err) {
  nm_engine_opts o = cli_engine_opts(b->c);
  nm_engine *e;
  o.chunk = 1;
  int st = nm_engine_new(b->in->m, &o, &e, err);
  if (st) return st;
  nm_seq s = {b->prompt.ids, b->n_decode};
  st = time_request(b, e, s, (nm_tap){"logits", "all"}, seconds, err);
  nm_engine_free(e);
  return st;
}

/* Arithmetic of a token: two operations a weight it meets, without the vocabulary's matrices, and
 * attention over half of the text. */
static double flops_of(const nm_model_info *i, double n) {
  double tables = (double)i->V * i->D * (i->tied || i->encoder ? 1 : 2);
  double idle = i->n_experts
                    ? 3.0 * i->D * i->expert_F * (i->n_experts - i->n_experts_used) * i->L
                    : 0;
  double keys = i->encoder ? n : 0.5 * (n + 1);
  return n * (2 * ((double)i->n_params - tables - idle) + 4 * keys * i->H * i->head_dim * i->L);
}

static int limits(struct bench *b) {
  static const char *const name[] = {"f32 multiply-add peak", "bf16 dot peak",
                                     "memory read, 1 GiB"};
  for (int k = 0; k < 3; k++) {
    double v = nm_meter_run(b->meter, (enum nm_limit)k) / 1e9;
    if (v > 0) bench_add(b, name[k], &v, 1, k == NM_LIMIT_READ ? "GB/s" : "GFLOP/s");
  }
  return 0;
}

/* The most memory the process held until now, against what measuring says before. */
static int memory(struct bench *b) {
  nm_err err = {0};
  nm_tap end = {b->i.encoder ? "blk.*.resid_post" : "logits", "last"};
  nm_request r = {.seqs = &b->prompt, .n_seqs = 1, .taps = &end, .n_taps = 1, .row = ignore_row,
                  .edits = b->in->edits};
  nm_memory need;
  double seconds;
  if (bench_prefill(b, &seconds, &err) || nm_run_measure(b->in->e, &r, &need, &err))
    return cli_fail(b->c, &err);
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  double peak = (double)u.ru_maxrss * 1024 / 1e6;
  double said = (double)(need.weights + need.kv + need.activations + need.base) / 1e6;
  struct figure *f = bench_add(b, "peak memory", &peak, 1, "MB");
  snprintf(f->note, sizeof f->note,
           "%.2f of file %.1f + KV %.1f + activations %.1f + program %.1f MB", peak / said,
           (double)need.weights / 1e6, (double)need.kv / 1e6, (double)need.activations / 1e6,
           (double)need.base / 1e6);
  return 0;
}

void bench_figure(struct bench *b, const char *what, double *rate) {
  struct figure *f = bench_add(b, what, rate, b->rounds, "tokens/s");
  double n = (double)b->prompt.n;
  if (!strcmp(what, "decode"))
    bench_share(b, f, NM_LIMIT_READ, (double)b->i.weight_bytes * f->value);
  else
    bench_share(b, f, strcmp(nm_engine_act(b->in->e), "bf16") ? NM_LIMIT_F32 : NM_LIMIT_BF16,
                flops_of(&b->i, n) * f->value / n);
}

static int speed(struct bench *b, const char *what) {
  bool decode = !strcmp(what, "decode");
  double t[MOST_ROUNDS];
  nm_err err = {0};
  for (int r = 0; r < b->rounds; r++) {
    if ((decode ? bench_decode : bench_prefill)(b, &t[r], &err)) return cli_fail(b->c, &err);
    t[r] = (double)(decode ? b->n_decode : b->prompt.n) / t[r];
  }
  bench_figure(b, what, t);
  return 0;
}

static bool asked(const struct cli *c, const char *part) {
  const char *list = cli_text(c, "what"), *at = list ? strstr(list, part) : NULL;
  size_t n = strlen(part);
  if (!list) return strcmp(part, "sites") != 0;
  return at && (at == list || at[-1] == ',') && (at[n] == 0 || at[n] == ',');
}

static int measure(struct bench *b) {
  struct cli *c = b->c;
  const char *peer = cli_text(c, "peer"), *pattern = cli_text(c, "peer-pattern");
  bool p = asked(c, "prefill"), d = asked(c, "decode") && !b->i.encoder;
  nm_err err = {0};
  int st = asked(c, "memory") && !peer ? memory(b) : 0;        /* before the meter takes its own */
  if (!st && nm_meter_new((int)cli_int(c, "threads", 0), &b->meter, &err)) st = cli_fail(c, &err);
  if (!st) st = limits(b);
  if (!st && p) st = peer ? bench_peer(b, "prefill", peer, pattern) : speed(b, "prefill");
  if (!st && d) st = peer ? bench_peer(b, "decode", peer, pattern) : speed(b, "decode");
  if (!st && cli_flag(c, "busy")) st = bench_busy(b);
  if (!st && !peer && (asked(c, "capture") || asked(c, "sites"))) st = bench_capture(b);
  cli_progress_end();
  if (!st && cli_flag(c, "json")) print_json(b);
  else if (!st) print_text(b);
  nm_meter_free(b->meter);
  return st;
}

/* ---- every operation --------------------------------------------------------------- */

static int ops(struct cli *c) {
  nm_err err = {0};
  nm_op_time *t;
  nm_meter *m;
  int n, threads = (int)cli_int(c, "threads", 0);
  if (threads < 0) return cli_usage(c, "-t must not be negative");
  if (c->n_pos) return cli_usage(c, "--ops takes no MODEL");
  cli_catch_interrupt();
  nm_engine_opts o = {.threads = threads, .kernels = cli_text(c, "kernels"),
                      .act = cli_text(c, "act")};
  if (nm_meter_new(threads, &m, &err)) return cli_fail(c, &err);
  double peak = nm_meter_run(m, NM_LIMIT_F32), read = nm_meter_run(m, NM_LIMIT_READ);
  if (nm_op_times(&o, &cli_progress, &t, &n, &err)) {
    nm_meter_free(m);
    return cli_fail(c, &err);
  }
  cli_progress_end();
  double peak_then = nm_meter_run(m, NM_LIMIT_F32), read_then = nm_meter_run(m, NM_LIMIT_READ);
  if (peak_then > peak) peak = peak_then;
  if (read_then > read) read = read_then;
  bool json = cli_flag(c, "json");
  printf(json ? "{\"f32_gflops\": %.2f, \"read_gbs\": %.2f, \"threads\": %d, \"ops\": ["
              : "f32 peak %.1f GFLOP/s, memory read %.1f GB/s, %d threads\n",
         peak / 1e9, read / 1e9, nm_meter_threads(m));
  if (!json)
    printf("%-14s %-19s %9s %9s %8s  share  formula\n", "op", "shape", "ms", "GFLOP/s", "GB/s");
  for (int i = 0; i < n; i++) {
    double flops = t[i].flops / t[i].seconds, bytes = t[i].bytes / t[i].seconds;
    double of_peak = flops / peak, of_read = bytes / read;
    const char *bound = of_peak > of_read ? "f32 peak" : "memory read";
    double share = of_peak > of_read ? of_peak : of_read;
    if (json)
      printf("%s\n{\"name\": \"%s\", \"shape\": \"%s\", \"seconds\": %.6f, \"flops\": %.6g, "
             "\"bytes\": %.6g, \"share\": %.4f, \"of\": \"%s\"}",
             i ? "," : "", t[i].name, t[i].shape, t[i].seconds, t[i].flops, t[i].bytes, share,
             bound);
    else
      printf("%-14s %-19s %9.3f %9.1f %8.1f   %4.2f%s  %s\n", t[i].name, t[i].shape,
             1e3 * t[i].seconds, flops / 1e9, bytes / 1e9, share, of_peak > of_read ? "p" : "m",
             t[i].formula);
  }
  printf(json ? "\n]}\n" : "p: of the peak, m: of the memory, whichever is more\n");
  nm_meter_free(m);
  nm_free(t);
  return 0;
}

/* ---- the verb ------------------------------------------------------------------------ */

/* The tokens that are timed: any will do, but not all the same. */
static int prompt_of(struct cli *c, struct bench *b) {
  long long n = cli_int(c, "tokens", 512), d = cli_int(c, "decode", 32);
  long long ctx = cli_int(c, "ctx", b->i.n_ctx);
  b->rounds = (int)cli_int(c, "rounds", 3);
  if (n < 1 || n > 1 << 20) return cli_usage(c, "-n must be 1 to 1048576");
  if (d < 1 || d > 1 << 20) return cli_usage(c, "--decode must be 1 to 1048576");
  if (b->rounds < 1 || b->rounds > MOST_ROUNDS)
    return cli_usage(c, "--rounds must be 1 to %d", MOST_ROUNDS);
  if (!cli_text(c, "tokens") && ctx > 0 && ctx < n) n = ctx;
  if (d > ctx && ctx > 0) d = ctx;
  int32_t *ids = malloc((size_t)(n > d ? n : d) * sizeof *ids);
  if (!ids) return 4;
  for (long long k = 0; k < (n > d ? n : d); k++) ids[k] = (int32_t)((k * 7919 + 13) % b->i.V);
  b->prompt = (nm_seq){ids, (size_t)n};
  b->n_decode = (size_t)d;
  return 0;
}

static int run(struct cli *c) {
  const char *spec = cli_text(c, "make");
  if (spec) return make(c, spec);
  if (cli_flag(c, "ops")) return ops(c);
  struct cli_input in;
  struct bench *b = calloc(1, sizeof *b);
  if (!b) return 4;
  int st = cli_open(c, &in);
  *b = (struct bench){.c = c, .in = &in};
  if (!st) {
    nm_model_describe(in.m, &b->i);
    st = prompt_of(c, b);
  }
  if (!st) st = measure(b);
  free((void *)(uintptr_t)b->prompt.ids);
  free(b);
  cli_close(&in);
  return st;
}

const struct cli_verb cli_bench = {
    "bench",
    "speed of a model beside the machine's limits; random models of real shapes",
    "bench (MODEL [-n N] [--busy] [--peer COMMAND] | --ops | --make SHAPE:TYPE -o F.gguf)",
    "Times the prompt, reading token by token, and what looking inside costs, each beside the\n"
    "limit that bounds it, measured in the same minute. --peer runs another program in turns.",
    "  noema bench --make tiny:Q8_0 -o tiny.gguf",
    opts,
    run};
