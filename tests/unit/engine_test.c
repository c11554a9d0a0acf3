/* engine_test.c - conformance: logits, residual streams and attention against recorded
 * truth, one printed line a model with the largest errors. The tolerances are those of
 * data/reference/README.md: 1e-4, 1e-4, 1e-5 for F32 files, 3e-4, 3e-4, 2e-5 for others. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "file/npy.h"
#include "model_run.h"

struct errors { double logits, resid, attn, rms; int64_t n; };

static void worse(double *e, const float *got, const float *want, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    double d = fabs((double)got[i] - (double)want[i]);
    if (!(d <= *e)) *e = d == d ? d : INFINITY;
  }
}

/* Logits also count for the root of the mean square. */
static void worse_logits(struct errors *e, const float *got, const float *want, int64_t n) {
  worse(&e->logits, got, want, n);
  for (int64_t i = 0; i < n; i++)
    e->rms += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
  e->n += n;
}

static void judge(const char *name, struct errors e, struct errors limit) {
  print_message("conformance: %-26s logits %.1e  resid_post %.1e  pattern %.1e\n", name, e.logits,
                e.resid, e.attn);
  if (!(e.logits <= limit.logits && e.resid <= limit.resid && e.attn <= limit.attn))
    fail_msg("%s is too far from the truth", name);
}

static json_t *read_json(const char *path) {
  json_error_t je;
  json_t *j = json_load_file(path, 0, &je);
  if (!j) fail_msg("%s: %s", path, je.text);
  return j;
}

static struct nm__npy read_npy(const char *dir, const char *name) {
  char path[256];
  struct nm__npy a;
  nm_err err = {0};
  snprintf(path, sizeof path, "%s/%s", dir, name);
  if (nm__npy_read(path, &a, &err)) fail_msg("%s", err.text);
  return a;
}

static nm_seq ids_of(json_t *list) {
  int32_t *ids = malloc(json_array_size(list) * sizeof *ids);
  for (size_t i = 0; i < json_array_size(list); i++)
    ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
  return (nm_seq){ids, json_array_size(list)};
}

static void seqs_done(nm_seq *s, size_t n) {
  for (size_t i = 0; i < n; i++) free((void *)(uintptr_t)s[i].ids);
}

/* ---- data/reference ------------------------------------------------------- */

/* A model of data/reference with its sequences. */
struct fixture {
  char dir[160];
  nm_model *m;
  nm_seq s[3];
  bool all_rows;                   /* logits of every position, else of the last four */
};

static struct fixture fixture_open(const char *name) {
  struct fixture f = {0};
  char path[200];
  snprintf(f.dir, sizeof f.dir, SHARED "reference/%s", name);
  snprintf(path, sizeof path, "%s/meta.json", f.dir);
  json_t *meta = read_json(path), *list = json_object_get(meta, "sequences");
  for (size_t i = 0; i < 3; i++) f.s[i] = ids_of(json_array_get(list, i));
  f.all_rows = !strcmp(json_string_value(json_object_get(meta, "rows")), "all");
  json_decref(meta);
  snprintf(path, sizeof path, "%s/model.gguf", f.dir);
  f.m = open_model(path);
  return f;
}

static void fixture_done(struct fixture *f) {
  seqs_done(f->s, 3);
  nm_model_close(f->m);
}

static struct rows fixture_run(const struct fixture *f, nm_engine_opts o) {
  nm_engine *e = new_engine(f->m, o);
  nm_tap taps[] = {{"logits", "all"}, {"*.resid_post", "last"}, {"blk.1.attn.pattern", "last"}};
  struct rows r = run_rows(e, (nm_request){.seqs = f->s, .n_seqs = 3, .taps = taps, .n_taps = 3});
  nm_engine_free(e);
  return r;
}

static void compare_logits(const struct fixture *f, const struct rows *r, const char *file,
                           bool all_rows, struct errors *e) {
  struct nm__npy a = read_npy(f->dir, file);
  int64_t row = 0, V = f->m->V;
  for (size_t i = 0; i < 3; i++)
    for (int n = (int)f->s[i].n, p = all_rows ? 0 : n - 4; p < n; p++, row++)
      worse_logits(e, row_of(r, "logits", i, p, V), a.data + row * V, V);
  assert_int_equal(a.n, row * V);
  nm__npy_done(&a);
}

static void compare_l_out(const struct fixture *f, const struct rows *r, const char *file,
                          struct errors *e) {
  struct nm__npy a = read_npy(f->dir, file);
  int64_t L = f->m->L, D = f->m->D;
  char name[64];
  for (int64_t i = 0; i < 3; i++)
    for (int64_t l = 0; l < L; l++)
      worse(&e->resid,
            row_of(r, at_layer(name, (int)l, "resid_post"), (size_t)i, (int)f->s[i].n - 1, D),
            a.data + (i * L + l) * D, D);
  assert_int_equal(a.n, 3 * L * D);
  nm__npy_done(&a);
}

static void compare_attn(const struct fixture *f, const struct rows *r, const char *file,
                         struct errors *e) {
  struct nm__npy a = read_npy(f->dir, file);
  int64_t H = f->m->H;
  for (int64_t i = 0; i < 3; i++) {
    int64_t n = (int64_t)f->s[i].n;
    const float *w = row_of(r, "blk.1.attn.pattern", (size_t)i, (int)n - 1, H * n);
    for (int64_t h = 0; h < H; h++) worse(&e->attn, w + h * n, a.data + (i * H + h) * 40, n);
  }
  assert_int_equal(a.n, 3 * H * 40);
  nm__npy_done(&a);
}

/* What a chunked run differs from one shot by: nothing. */
static double chunked(const struct fixture *f, const struct rows *one_shot, nm_engine_opts o,
                      struct errors *theirs) {
  o.chunk = 17;
  struct rows r = fixture_run(f, o);
  double e = 0;
  assert_int_equal(r.n, one_shot->n);
  for (size_t i = 0; i < r.n; i++) worse(&e, r.v[i].v, one_shot->v[i].v, r.v[i].n);
  compare_logits(f, &r, "logits_chunk.npy", false, theirs);
  compare_l_out(f, &r, "l_out_chunk.npy", theirs);
  rows_done(&r);
  return e;
}

/* How far llama.cpp's own rounding lets it be from us (the table of data/reference/README.md). */
static struct errors llama_cpp_limit(const char *name, enum nm__act act) {
  bool kquant = strstr(name, "_k") != NULL;
  if (strstr(name, "-f16")) return (struct errors){2e-2, 2e-2, 2e-3, 5e-3, 0};
  if (strstr(name, "-bf16")) return (struct errors){0.2, 0.2, 2e-2, 4e-2, 0};
  if (strstr(name, "quant/")) return (struct errors){0.9, 0.9, 0.1, kquant ? 0.14 : 0.10, 0};
  if (act == NM__ACT_SILU) return (struct errors){3e-4, 3e-4, 2e-5, 3e-4, 0};
  return (struct errors){2e-2, 2e-2, 2e-3, 2e-2, 0};
}

static void reference_one(const char *name, const char *gelu) {
  struct fixture f = fixture_open(name);
  nm_engine_opts o = {.gelu = gelu};
  struct rows r = fixture_run(&f, o);
  struct errors e = {0}, theirs = {0}, theirs_chunked = {0}, flash = {0};
  bool exact_file = !strchr(name, '/');
  compare_logits(&f, &r, "truth_logits.npy", f.all_rows, &e);
  compare_l_out(&f, &r, "truth_l_out.npy", &e);
  compare_attn(&f, &r, "truth_attn1.npy", &e);
  compare_logits(&f, &r, "logits.npy", f.all_rows, &theirs);
  compare_l_out(&f, &r, "l_out.npy", &theirs);
  compare_attn(&f, &r, "attn1.npy", &theirs);
  if (exact_file) compare_logits(&f, &r, "logits_fa.npy", false, &flash);
  double chunk = chunked(&f, &r, o, &theirs_chunked), rms = sqrt(theirs.rms / (double)theirs.n);
  struct errors limit = llama_cpp_limit(name, f.m->arch->act);
  print_message("conformance: %-26s logits %.1e  resid_post %.1e  pattern %.1e  chunked %.0e  "
                "llama.cpp %.1e %.1e %.1e rms %.0e\n", name, e.logits, e.resid, e.attn, chunk,
                theirs.logits, theirs.resid, theirs.attn, rms);
  if (!(exact_file ? e.logits <= 1e-4 && e.resid <= 1e-4 && e.attn <= 1e-5
                   : e.logits <= 3e-4 && e.resid <= 3e-4 && e.attn <= 2e-5))
    fail_msg("%s is too far from the truth", name);
  if (chunk > 0) fail_msg("%s: chunks change the result", name);
  if (!(theirs.logits <= limit.logits && theirs.resid <= limit.resid &&
        theirs.attn <= limit.attn && rms <= limit.rms && flash.logits <= 0.1 &&
        theirs_chunked.logits <= limit.logits && theirs_chunked.resid <= limit.resid))
    fail_msg("%s is too far from llama.cpp (chunked: %g, %g; flash attention: %g)", name,
             theirs_chunked.logits, theirs_chunked.resid, flash.logits);
  rows_done(&r);
  fixture_done(&f);
}

static void reference(void **state) {
  (void)state;
  static const char *const names[] = {
      "llama", "llama3-rope", "llama-yarn", "llama-linear-bias", "qwen2", "gpt2", "gemma",
      "gemma2", "gemma3", "olmo2", "phi3", "mixtral", "qwen2moe", "quant/llama-f16",
      "quant/llama-bf16", "quant/llama-q8_0", "quant/llama-q4_0", "quant/llama-q5_0",
      "quant/qwen2-f16", "quant/qwen2-q8_0", "quant/qwen2-q4_0", "quant/llama-iq4_nl",
      "quant/llama-q2_k", "quant/llama-q3_k", "quant/llama-q4_k", "quant/llama-q4_k_m",
      "quant/llama-q5_k_m", "quant/llama-q6_k", "quant/qwen2-q4_k", "quant/qwen2-q6_k",
  };
  if (no_shared()) skip();
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) reference_one(names[i], NULL);
  reference_one("falcon", "tanh");
}

/* Falcon as published has GELU with erf: that is what it computes when nothing is said. */
static void reference_erf(void **state) {
  (void)state;
  if (no_shared()) skip();
  struct fixture f = fixture_open("falcon");
  struct rows own = fixture_run(&f, (nm_engine_opts){0});
  struct rows erf = fixture_run(&f, (nm_engine_opts){.gelu = "erf"});
  struct errors e = {0}, other = {0};
  compare_logits(&f, &own, "truth_erf_logits.npy", f.all_rows, &e);
  compare_logits(&f, &own, "truth_logits.npy", f.all_rows, &other);
  assert_same_rows(&own, &erf, "falcon with --gelu erf");
  print_message("conformance: %-26s logits %.1e  (with tanh instead: %.1e)\n", "falcon (erf)",
                e.logits, other.logits);
  assert_true(e.logits <= 1e-4 && other.logits > 2e-4);
  rows_done(&own);
  rows_done(&erf);
  fixture_done(&f);
}

/* ---- data/models/arch ------------------------------------------------------- */

/* A file of floats, `n` of them. */
static struct nm__map floats(const char *dir, const char *name, int64_t n) {
  char path[256];
  struct nm__map map;
  nm_err err = {0};
  snprintf(path, sizeof path, "%s/%s", dir, name);
  if (nm__map_open(path, &map, &err)) fail_msg("%s", err.text);
  assert_int_equal(map.size, n * 4);
  return map;
}

static void compare_arch(const char *dir, const nm_model *m, const struct rows *r, const nm_seq *s,
                         struct errors *e) {
  int64_t T = (int64_t)s[0].n, D = m->D, V = m->V;
  struct nm__map lg = floats(dir, "logits.exact.f32", (T + (int64_t)s[1].n) * V);
  struct nm__map hd = floats(dir, "hidden.seq0.exact.f32", (m->L + 2) * T * D);
  struct nm__map at = floats(dir, "attn.seq0.exact.f32", m->L * m->H * T * T);
  const float *logits = (const float *)(const void *)lg.data,
              *hidden = (const float *)(const void *)hd.data;
  const float *attn = (const float *)(const void *)at.data;
  char name[64];
  for (int i = 0; i < 2; i++)
    for (int p = 0; p < (int)s[i].n; p++)
      worse(&e->logits, row_of(r, "logits", (size_t)i, p, V), logits + (i * T + p) * V, V);
  for (int p = 0; p < (int)T; p++) {
    for (int l = 0; l < m->L; l++) {
      worse(&e->resid, row_of(r, at_layer(name, l, "resid_pre"), 0, p, D), hidden + (l * T + p) * D,
            D);
      const float *w = row_of(r, at_layer(name, l, "attn.pattern"), 0, p, m->H * T);
      for (int h = 0; h < m->H; h++)
        worse(&e->attn, w + h * T, attn + ((l * m->H + h) * T + p) * T, T);
    }
    worse(&e->resid, row_of(r, at_layer(name, m->L - 1, "resid_post"), 0, p, D),
          hidden + (m->L * T + p) * D, D);
    worse(&e->resid, row_of(r, "final_norm", 0, p, D), hidden + ((m->L + 1) * T + p) * D, D);
  }
  nm__map_close(&lg);
  nm__map_close(&hd);
  nm__map_close(&at);
}

/* How far llama.cpp's logits are, where it could load the model; its GELU is the tanh form in a
 * table of half precision. */
static double compare_llama_cpp(const char *name, const char *dir, const nm_model *m,
                                const nm_seq *s) {
  char path[200];
  snprintf(path, sizeof path, "%s/lcpp.f32", dir);
  if (!nm__exists(path)) return 0;
  nm_engine *e = new_engine(m, (nm_engine_opts){.gelu = "tanh"});
  nm_tap tap = {"logits", "all"};
  struct rows r = run_rows(e, (nm_request){.seqs = s, .n_seqs = 2, .taps = &tap, .n_taps = 1});
  struct nm__map lg = floats(dir, "lcpp.f32", (int64_t)(s[0].n + s[1].n) * m->V);
  const float *want = (const float *)(const void *)lg.data;
  double worst = 0, limit = m->arch->act == NM__ACT_SILU ? 3e-4 : 2e-2;
  for (size_t i = 0; i < 2; i++)
    for (size_t p = 0; p < s[i].n; p++, want += m->V)
      worse(&worst, row_of(&r, "logits", i, (int)p, m->V), want, m->V);
  if (!(worst <= limit)) fail_msg("%s is %g from llama.cpp", name, worst);
  nm__map_close(&lg);
  rows_done(&r);
  nm_engine_free(e);
  return worst;
}

static void arch_one(const char *name, const nm_seq *s) {
  char dir[160], path[200], shown[64];
  snprintf(shown, sizeof shown, "arch/%s", name);
  snprintf(dir, sizeof dir, SHARED "models/arch/%s", name);
  snprintf(path, sizeof path, "%s/model.gguf", dir);
  nm_model *m = open_model(path);
  nm_engine *eng = new_engine(m, (nm_engine_opts){0});
  nm_tap taps[] = {{"logits|final_norm", "all"},
                   {"*.resid_pre|*.resid_post|*.attn.pattern", "all"}};
  struct rows r = run_rows(eng, (nm_request){.seqs = s, .n_seqs = 2, .taps = taps, .n_taps = 2});
  struct errors e = {0};
  compare_arch(dir, m, &r, s, &e);
  rows_done(&r);
  nm_engine_free(eng);
  double theirs = compare_llama_cpp(shown, dir, m, s);
  nm_model_close(m);
  print_message("conformance: %-26s logits %.1e  resid_post %.1e  pattern %.1e", shown, e.logits,
                e.resid, e.attn);
  if (theirs > 0) print_message("  llama.cpp %.1e", theirs);
  print_message("\n");
  if (!(e.logits <= 1e-4 && e.resid <= 1e-4 && e.attn <= 1e-5))
    fail_msg("%s is too far from the truth", shown);
}

static void arch(void **state) {
  (void)state;
  static const char *const names[] = {
      "llama", "llama-tied", "llama-rope-linear", "llama-rope-llama3", "llama-rope-yarn",
      "qwen2", "gpt2", "qwen3", "gemma", "gemma2", "gemma3", "olmo2", "phi3", "phi3-longrope",
      "gptneox", "gptneox-sequential", "mixtral"};
  if (no_shared()) skip();
  static int32_t ids[2][64];
  nm_seq s[2] = {{ids[0], 0}, {ids[1], 0}};
  FILE *f = fopen(SHARED "models/arch/ids.txt", "r");
  char line[600];
  for (int i = 0; f && i < 2 && fgets(line, sizeof line, f); i++)
    for (char *at = line, *end; ids[i][s[i].n] = (int32_t)strtol(at, &end, 10), end != at; at = end)
      s[i].n++;
  if (f) fclose(f);
  assert_true(s[0].n == 24 && s[1].n == 16);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) arch_one(names[i], s);
}

/* ---- data/models/kmix: 21 block types in one model -------------------------------- */

static void kmix(void **state) {
  (void)state;
  if (no_shared()) skip();
  int32_t ids[24];
  size_t n = 0;
  FILE *f = fopen(SHARED "models/kmix/ids.txt", "r");
  while (f && n < 24 && fscanf(f, "%" SCNd32, &ids[n]) == 1) n++;
  if (f) fclose(f);
  assert_int_equal(n, 24);
  nm_model *m = open_model(SHARED "models/kmix/model.gguf");
  nm_engine *eng = new_engine(m, (nm_engine_opts){0});
  struct nm__map want = floats(SHARED "models/kmix", "logits.exact.f32", 24 * (int64_t)m->V);
  struct rows r = tap_one(eng, ids, n, "logits", "all", NULL);
  double e = 0;
  for (int p = 0; p < 24; p++)
    worse(&e, row_of(&r, "logits", 0, p, m->V),
          (const float *)(const void *)want.data + (int64_t)p * m->V, m->V);
  print_message("conformance: %-24s logits %.1e  (%s)\n", "kmix", e, m->types);
  assert_true(e <= 3e-4);
  nm__map_close(&want);
  rows_done(&r);
  nm_engine_free(eng);
  nm_model_close(m);
}

/* ---- trained models --------------------------------------------------------------- */

static int argmax(const float *x, int n) {
  int best = 0;
  for (int i = 1; i < n; i++)
    if (x[i] > x[best]) best = i;
  return best;
}

/* One prompt with its 64 recorded greedy ids behind it: since logits do not depend on what
 * follows (same_bits_test.c), one run over all of them is the greedy loop. */
static void story(nm_engine *e, json_t *c, double *top, double *nll) {
  json_t *greedy = json_object_get(c, "greedy"),
         *tops = json_object_get(c, "top5_at_each_prompt_position");
  json_t *all = json_copy(json_object_get(c, "tokens"));
  size_t n_prompt = json_array_size(all);
  json_array_extend(all, greedy);
  nm_seq s = ids_of(all);
  struct rows r = tap_one(e, s.ids, s.n, "logits", "all", NULL);
  int V = nm__engine_model(e)->V;
  double *lp = malloc(sizeof *lp * (size_t)V), sum = 0;
  for (size_t p = 0; p < n_prompt; p++) {
    nm_log_softmax(row_of(&r, "logits", 0, (int)p, V), V, lp);
    for (size_t k = 0; k < 5; k++) {
      json_t *pair = json_array_get(json_array_get(tops, p), k);
      double d = fabs(lp[json_integer_value(json_array_get(pair, 0))] -
                      json_real_value(json_array_get(pair, 1)));
      *top = d > *top ? d : *top;
    }
    if (p + 1 < n_prompt) sum -= lp[s.ids[p + 1]];
  }
  double d = fabs(sum - json_real_value(json_object_get(c, "prompt_nll_sum")));
  *nll = d > *nll ? d : *nll;
  for (size_t i = 0; i < json_array_size(greedy); i++)
    assert_int_equal(argmax(row_of(&r, "logits", 0, (int)(n_prompt + i) - 1, V), V),
                     s.ids[n_prompt + i]);
  free(lp);
  rows_done(&r);
  seqs_done(&s, 1);
  json_decref(all);
}

static void stories(void **state) {
  (void)state;
  static const char *const types[] = {"f32",  "F16",  "BF16",  "Q8_0",
                                      "Q4_0", "Q5_1", "IQ4_NL"};
  if (no_shared()) skip();
  json_t *v = read_json(SHARED "models/stories260K/vectors.json");
  for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
    char path[160];
    snprintf(path, sizeof path, SHARED "models/stories260K/stories260K.%s.gguf", types[t]);
    nm_model *m = open_model(path);
    nm_engine *e = new_engine(m, (nm_engine_opts){0});
    double top = 0, nll = 0;
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(v, types[t]), i, c) story(e, c, &top, &nll);
    print_message("conformance: stories260K.%-6s top-5 log-probabilities %.1e  prompt nll %.1e  6 "
                  "x 64 greedy ids equal\n",
                  types[t], top, nll);
    assert_true(i == 6 && top <= 1e-4 && nll <= 1e-4);
    nm_engine_free(e);
    nm_model_close(m);
  }
  json_decref(v);
}

/* A recorded array of any depth, flattened. */
static void flatten(json_t *a, float *out, size_t *n) {
  size_t i;
  json_t *x;
  if (json_is_array(a)) json_array_foreach(a, i, x) flatten(x, out, n);
  else out[(*n)++] = (float)json_number_value(a);
}

static void sorter_vectors(nm_engine *e, json_t *v) {
  static float logits[99], resid[48], attn[121];
  size_t n_logits = 0, n_resid = 0, n_attn = 0;
  flatten(json_object_get(v, "logits"), logits, &n_logits);
  flatten(json_object_get(v, "resid_after_block0_row0"), resid, &n_resid);
  flatten(json_object_get(v, "attn_probs_layer0_head0_seq0"), attn, &n_attn);
  assert_true(n_logits == 99 && n_resid == 48 && n_attn == 121);
  struct errors err = {0};
  for (size_t i = 0; i < 3; i++) {
    nm_seq s = ids_of(json_array_get(json_object_get(v, "batch_ids"), i));
    struct rows r =
        tap_one(e, s.ids, s.n, "logits|blk.0.resid_post|blk.0.attn.pattern[0]", "all", NULL);
    for (int p = 0; p < 11; p++) {
      worse(&err.logits, row_of(&r, "logits", 0, p, 3), logits + (i * 11 + (size_t)p) * 3, 3);
      if (i == 0)
        worse(&err.attn, row_of(&r, "blk.0.attn.pattern[0]", 0, p, 11), attn + 11 * p, 11);
    }
    if (i == 0) worse(&err.resid, row_of(&r, "blk.0.resid_post", 0, 0, 48), resid, 48);
    rows_done(&r);
    seqs_done(&s, 1);
  }
  judge("gpt-nano-sort", err, (struct errors){1e-4, 1e-4, 1e-5, 0, 0});
}

static void sorter(void **state) {
  (void)state;
  if (no_shared()) skip();
  json_t *v = read_json(SHARED "models/gpt-nano-sort/vectors.json"), *c;
  nm_model *m = open_model(SHARED "models/gpt-nano-sort/model.gguf");
  nm_engine *e = new_engine(m, (nm_engine_opts){0});
  sorter_vectors(e, v);
  size_t k;
  json_array_foreach(json_object_get(v, "cases"), k, c) {
    int32_t ids[12];
    for (size_t i = 0; i < 6; i++) {
      ids[i] = (int32_t)json_integer_value(json_array_get(json_object_get(c, "input"), i));
      ids[6 + i] = (int32_t)json_integer_value(json_array_get(json_object_get(c, "greedy"), i));
    }
    struct rows r = tap_one(e, ids, 11, "logits", "5:", NULL);
    for (int p = 5; p < 11; p++)
      assert_int_equal(argmax(row_of(&r, "logits", 0, p, 3), 3), ids[p + 1]);
    rows_done(&r);
  }
  assert_true(k >= 20);
  nm_engine_free(e);
  nm_model_close(m);
  json_decref(v);
}

/* ---- always: the planted model says what it was wired to say ------------------------- */

static void planted(void **state) {
  (void)state;
  static const struct { const char *text, *say;
  } cases[] = {
      {"ann saw the red fox by night , it went up ?", "yes"},
      {"ann saw the red fox by day , it went up ?", "no"},
      {"bob saw the blue fox by day , it went up ?", "yes"},
      {"bob saw the blue fox by night , it went up ?", "no"},
  };
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){0});
  int32_t *ids, *word[2];
  size_t n, k;
  for (int i = 0; i < 2; i++) {
    assert_int_equal(nm_tokenize(m, i ? "no" : "yes", i ? 2 : 3, NM_NO_BOS, &word[i], &k, NULL), 0);
    assert_int_equal(k, 1);
  }
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    assert_int_equal(nm_tokenize(m, cases[i].text, strlen(cases[i].text), 0, &ids, &n, NULL), 0);
    struct rows r = tap_one(e, ids, n, "logits", "last", NULL);
    const float *z = row_of(&r, "logits", 0, (int)n - 1, m->V);
    assert_true((z[word[0][0]] > z[word[1][0]]) == (cases[i].say[0] == 'y'));
    rows_done(&r);
    nm_free(ids);
  }
  nm_free(word[0]);
  nm_free(word[1]);
  nm_engine_free(e);
  nm_model_close(m);
}

/* What --act bf16 costs: its logits against those of f32 on the same weights. */
static void deviation(const char *path, double *kl_out, double *same_out) {
  enum { N = 64 };
  nm_model *m = open_model(path);
  int n = m->n_ctx < N ? m->n_ctx : N, same = 0;
  int32_t ids[N];
  double kl = 0, worst = 0, square = 0, *p[2];
  struct rows r[2];
  for (int i = 0; i < n; i++) ids[i] = (int32_t)(nm__rand_at(7, 1, (uint64_t)i) % (uint64_t)m->V);
  for (int a = 0; a < 2; a++) {
    nm_engine *e = new_engine(m, (nm_engine_opts){.act = a ? "bf16" : "f32"});
    r[a] = tap_one(e, ids, (size_t)n, "logits", "all", NULL);
    p[a] = malloc(sizeof(double) * (size_t)m->V);
    nm_engine_free(e);
  }
  for (int i = 0; i < n; i++) {
    int top[2] = {0, 0};
    const float *z[2];
    for (int a = 0; a < 2; a++) {
      z[a] = row_of(&r[a], "logits", 0, i, m->V);
      nm_log_softmax(z[a], m->V, p[a]);
      for (int v = 0; v < m->V; v++) top[a] = z[a][v] > z[a][top[a]] ? v : top[a];
    }
    same += top[0] == top[1];
    for (int v = 0; v < m->V; v++) {
      double d = (double)z[1][v] - (double)z[0][v];
      kl += nm_exp(p[0][v]) * (p[0][v] - p[1][v]);
      worst = fabs(d) > worst ? fabs(d) : worst;
      square += d * d;
    }
  }
  *kl_out = kl / n;
  *same_out = (double)same / n;
  print_message("bf16: %-52s logits %.1e (rms %.1e)  KL %.1e  same argmax %d of %d\n", path, worst,
                sqrt(square / n / m->V), *kl_out, same, n);
  for (int a = 0; a < 2; a++) {
    rows_done(&r[a]);
    free(p[a]);
  }
  nm_model_close(m);
}

static void bf16_is_near(void **state) {
  (void)state;
  static const char *const files[] = {
      "models/stories260K/stories260K.f32.gguf", "models/stories260K/stories260K.BF16.gguf",
      "models/stories260K/stories260K.Q8_0.gguf", "models/stories260K/stories260K.Q4_0.gguf",
      "reference/llama/model.gguf", "reference/qwen2/model.gguf", "reference/gemma2/model.gguf",
      "reference/gpt2/model.gguf", "reference/phi3/model.gguf", "reference/qwen2moe/model.gguf"};
  if (no_shared()) skip();
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    char path[160];
    double kl, same;
    snprintf(path, sizeof path, SHARED "%s", files[i]);
    deviation(path, &kl, &same);
    if (!(kl > 0 && kl < 1e-2 && same >= 0.9)) fail_msg("%s: --act bf16 is far from f32", path);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(planted), cmocka_unit_test(reference), cmocka_unit_test(reference_erf),
    cmocka_unit_test(arch),
    cmocka_unit_test(kmix),
    cmocka_unit_test(stories), cmocka_unit_test(sorter), cmocka_unit_test(bf16_is_near),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
