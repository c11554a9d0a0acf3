/* generate_test.c - texts that grow: the logits of a session are those of a run over the whole
 * text, byte for byte, whatever the pieces, forks and threads; answers are drawn, cut and ended as
 * they should be; a token costs no allocation. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "model_run.h"

#define STORIES SHARED "models/stories260K/stories260K.%s.gguf"

/* ---- allocations are counted (not under a sanitizer, which has its own) ---------- */

static long n_allocs;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTED 1
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
void *malloc(size_t n) { return __atomic_add_fetch(&n_allocs, 1, __ATOMIC_RELAXED), __libc_malloc(n); }
void *calloc(size_t n, size_t k) {
  return __atomic_add_fetch(&n_allocs, 1, __ATOMIC_RELAXED), __libc_calloc(n, k);
}
void *realloc(void *p, size_t n) {
  return __atomic_add_fetch(&n_allocs, 1, __ATOMIC_RELAXED), __libc_realloc(p, n);
}
#else
#define COUNTED 0
#endif

/* ---- helpers ---------------------------------------------------------------- */

static nm_session *new_session(nm_engine *e, nm_session_opts o) {
  nm_session *s;
  nm_err err = {0};
  if (nm_session_new(e, &o, &s, &err)) fail_msg("%s", err.text);
  return s;
}

static void append(nm_session *s, int seq, const int32_t *ids, size_t n) {
  nm_err err = {0};
  if (nm_session_append(s, seq, ids, n, &err)) fail_msg("%s", err.text);
}

static void step(nm_session *s, const int *seq, const int32_t *ids, int n) {
  nm_err err = {0};
  if (nm_session_step(s, seq, ids, n, &err)) fail_msg("%s", err.text);
}

static void some_ids(const nm_model *m, uint64_t seed, int32_t *ids, size_t n) {
  for (size_t i = 0; i < n; i++)
    ids[i] = (int32_t)(nm__rand_at(seed, 77, i) % (uint64_t)m->V);
}

/* The session's logits of text `seq` are those of the rows of a whole run at its last position. */
static void assert_logits(const nm_session *s, int seq, const struct rows *whole, const char *what) {
  int V = nm__session_model(s)->V, pos = (int)nm_session_ids(s, seq).n - 1;
  const float *z = nm_session_logits(s, seq);
  assert_non_null(z);
  if (memcmp(z, row_of(whole, "logits", 0, pos, V), (size_t)V * 4))
    fail_msg("%s: logits differ at position %d", what, pos);
}

/* ---- the same bits in pieces ------------------------------------------------- */

enum { LEN = 62 };

static void pieces_of(nm_model *m, nm_edits *edits) {
  int32_t ids[LEN];
  some_ids(m, 1, ids, LEN);
  nm_engine *plain = new_engine(m, (nm_engine_opts){.threads = 1});
  struct rows whole = tap_one(plain, ids, LEN, "logits", "all", edits);
  static const nm_engine_opts how[] = {{.threads = 1, .chunk = 1}, {.threads = 2, .chunk = 7},
                                       {.threads = 1, .kernels = "portable"}, {.threads = 3}};
  for (size_t k = 0; k < sizeof how / sizeof *how; k++) {
    nm_engine *e = new_engine(m, how[k]);
    nm_session *s = new_session(e, (nm_session_opts){.edits = edits});
    for (size_t at = 0, n; at < LEN; at += n) {
      n = 1 + nm__rand_at(k, 3, at) % 20;
      n = n < LEN - at ? n : LEN - at;
      if (n == 1) step(s, &(int){0}, ids + at, 1);
      else append(s, 0, ids + at, n);
      assert_logits(s, 0, &whole, "pieces");
    }
    assert_int_equal(nm_session_rewind(s, 0, 40, NULL), 0);
    assert_null(nm_session_logits(s, 0));
    append(s, 0, ids + 40, 1);
    assert_logits(s, 0, &whole, "after a rewind");
    nm_session_free(s);
    nm_engine_free(e);
  }
  rows_done(&whole);
  nm_engine_free(plain);
}

static void pieces(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  pieces_of(m, NULL);
  nm_edits *e = parse_edits("[{\"site\": \"blk.2.resid_post\", \"op\": \"scale\", \"scale\": 0.5},"
                            "{\"site\": \"blk.0.attn.pattern[3]\", \"at\": \"3:\", \"op\": \"zero\"}]");
  pieces_of(m, e);
  nm_edits_free(e);
  nm_model_close(m);
}

/* Shapes with windows, experts, learned positions, soft caps, long contexts ... */
static void pieces_of_families(void **state) {
  (void)state;
  if (no_shared()) skip();
  static const char *const files[] = {"gemma2", "gemma3", "gpt2", "gptneox", "phi3",
                                      "phi3-longrope", "llama-rope-yarn", "mixtral", "olmo2",
                                      "qwen3"};
  int n = 0;
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    char path[200];
    snprintf(path, sizeof path, SHARED "models/arch/%s/model.gguf", files[i]);
    if (!nm__exists(path)) continue;
    nm_model *m = open_model(path);
    n += m->n_ctx >= LEN;
    if (m->n_ctx >= LEN) pieces_of(m, NULL);
    else print_message("%s: a context of %d\n", files[i], m->n_ctx);
    nm_model_close(m);
  }
  print_message("%d families in pieces\n", n);
  assert_true(n >= 8);
}

/* ---- several texts -------------------------------------------------------------- */

static void forks(void **state) {
  (void)state;
  enum { N = 5, BEGIN = 11, MORE = 300 };
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2, .n_ctx = BEGIN + MORE});
  nm_session *s = new_session(e, (nm_session_opts){0});
  int32_t ids[N][BEGIN + MORE];
  struct rows whole[N];
  int seq[N] = {3, 0, 4, 2, 1};
  for (int i = 0; i < N; i++) {
    some_ids(m, 100 + (uint64_t)i, ids[i], BEGIN + MORE);
    some_ids(m, 9, ids[i], BEGIN);
    whole[i] = tap_one(e, ids[i], BEGIN + MORE, "logits", "all", NULL);
  }
  append(s, 0, ids[0], BEGIN);
  assert_int_equal(nm_session_fork(s, N, NULL), 0);
  for (int i = 0; i < N; i++) assert_logits(s, i, &whole[i], "after the fork");
  for (int k = 0; k < MORE; k++) {       /* grows past its first room on the way */
    int32_t next[N];
    int n = k < 250 ? N : 2;
    for (int i = 0; i < n; i++) next[i] = ids[seq[i]][BEGIN + k];
    step(s, seq, next, n);
    if (k % 37 == 0 || k > 290)
      for (int i = 0; i < n; i++) assert_logits(s, seq[i], &whole[seq[i]], "a step");
  }
  assert_int_equal(nm_session_step(s, seq, ids[0], 1, NULL), NM_EUSAGE);   /* the context is full */
  assert_int_equal(nm_session_rewind(s, 2, BEGIN - 1, NULL), NM_EUSAGE);   /* others have it too */
  assert_int_equal(nm_session_keep(s, 4, NULL), 0);
  assert_int_equal(nm_session_n(s), 1);
  assert_int_equal(nm_session_rewind(s, 0, BEGIN + 3, NULL), 0);
  append(s, 0, ids[4] + BEGIN + 3, 30);
  assert_logits(s, 0, &whole[4], "kept alone");
  for (int i = 0; i < N; i++) rows_done(&whole[i]);
  nm_session_free(s);
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- F16 --------------------------------------------------------------------------- */

/* Attention over a cache of F16 is attention over the rounded floats, bit for bit. */
static void half_is_rounding(void **state) {
  (void)state;
  enum { T = 150, H = 4, K = 2, HD = 24 };
  static float q[T * H * HD], k[T * K * HD], v[T * K * HD];
  for (int i = 0; i < T * H * HD; i++) q[i] = (float)(nm__rand_at(1, 1, (uint64_t)i) % 2001) / 500 - 2;
  for (int i = 0; i < T * K * HD; i++) {
    k[i] = (float)(nm__rand_at(1, 2, (uint64_t)i) % 20011) / 5000 - 2;
    v[i] = (float)(nm__rand_at(1, 3, (uint64_t)i) % 20011) / 5000 - 2;
  }
  float *out[4];
  for (int how = 0; how < 4; how++) {    /* both as floats, rounded; k, v, both in F16 */
    struct nm__ops o = {.mode = NM__RUN, .kern = nm__kern_find(NULL)};
    struct nm__kv kv;
    assert_int_equal(nm__arena_init(&o.arena, 1 << 22, NULL), 0);
    assert_int_equal(nm__kv_init_half(&kv, 1, T + 9, K * HD, how & 1, how & 2, NULL), 0);
    float *rk = malloc(sizeof k), *rv = malloc(sizeof v);
    for (int i = 0; i < T * K * HD; i++) {
      rk[i] = how & 1 ? k[i] : nm__half_to_f32(nm__f32_to_half(k[i]));
      rv[i] = how & 2 ? v[i] : nm__half_to_f32(nm__f32_to_half(v[i]));
    }
    struct nm__span first = {.n = 5, .slot = 2}, rest = {.first = 5, .n = T - 5, .row0 = 5,
                             .prefix_slot = 2, .n_prefix = 5, .slot = 9};
    struct nm__op_args a = {.x = {rk, T, K * HD, 0}, .y = {rv, T, K * HD, 0}, .kv = &kv,
                            .spans = &first, .n_spans = 1};
    nm__op(&o, NM__OP_KV_APPEND, &a);
    a.spans = &rest;
    nm__op(&o, NM__OP_KV_APPEND, &a);
    a = (struct nm__op_args){.x = {q, T, H * HD, 0}, .kv = &kv, .spans = &rest, .n_spans = 1,
                             .n_head = H, .n_kv = K, .head_dim = HD, .max_keys = T, .scale = 0.2f,
                             .window = 100};
    struct nm__t y = nm__op(&o, NM__OP_ATTENTION, &a);
    assert_int_equal(o.err.status, 0);
    out[how] = malloc(sizeof q);
    memcpy(out[how], y.d, sizeof q);
    if (how) assert_memory_equal(out[0] + 5 * H * HD, out[how] + 5 * H * HD, sizeof q - 20 * H * HD);
    free(rk);
    free(rv);
    nm__kv_done(&kv);
    nm__arena_done(&o.arena);
  }
  for (int how = 0; how < 4; how++) free(out[how]);
}

static void half_session(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  int32_t ids[LEN];
  double worst = 0;
  some_ids(m, 4, ids, LEN);
  nm_session *full = new_session(e, (nm_session_opts){0}),
             *half = new_session(e, (nm_session_opts){.type_k = "f16", .type_v = "f16"});
  append(full, 0, ids, LEN);
  append(half, 0, ids, LEN / 2);
  for (int i = LEN / 2; i < LEN; i++) step(half, &(int){0}, ids + i, 1);
  for (int v = 0; v < m->V; v++)
    worst = fmax(worst, fabs((double)nm_session_logits(full, 0)[v] - nm_session_logits(half, 0)[v]));
  print_message("F16 cache: logits of the planted model move by at most %.1e\n", worst);
  assert_true(worst < 0.05 && worst > 0);
  assert_true(nm_session_kv_bytes(full) == 2 * nm_session_kv_bytes(half));
  nm_session_free(full);
  nm_session_free(half);
  nm_err err;
  nm_session *none;
  assert_int_equal(nm_session_new(e, &(nm_session_opts){.type_v = "q8_0"}, &none, &err), NM_EUSAGE);
  assert_non_null(strstr(err.text, "known: f32, f16"));
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- answers ------------------------------------------------------------------------ */

struct heard { char text[8][4000]; size_t n[8]; int tokens, stop_after; double lp[200]; };

static int hear(void *arg, const nm_token *t, nm_err *err) {
  struct heard *h = arg;
  (void)err;
  memcpy(h->text[t->sample] + h->n[t->sample], t->text, t->n);
  h->n[t->sample] += t->n;
  if (t->id >= 0 && t->sample == 0) h->lp[t->step] = t->logprob;
  if (t->id >= 0) h->tokens++;
  return h->stop_after && h->tokens >= h->stop_after ? NM_EINTR : 0;
}

static nm_session *told(nm_engine *e, const char *prompt) {
  nm_session *s = new_session(e, (nm_session_opts){0});
  int32_t *ids;
  size_t n;
  assert_int_equal(nm_tokenize(nm__engine_model(e), prompt, strlen(prompt), 0, &ids, &n, NULL), 0);
  append(s, 0, ids, n);
  nm_free(ids);
  return s;
}

static void generate(nm_session *s, nm_generate_opts o, nm_generated *out) {
  nm_err err = {0};
  if (nm_generate(s, &o, out, &err)) fail_msg("%s", err.text);
}

static void known_answers(void **state) {
  (void)state;
  static const struct { const char *text, *say; } cases[] = {
      {"ann saw the red fox by night ?", " ann"}, {"bob saw the blue fox by night ?", " bob"}};
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){0});
  for (size_t i = 0; i < 2; i++) {
    nm_session *s = told(e, cases[i].text);
    nm_generated g;
    generate(s, (nm_generate_opts){.n_predict = 1}, &g);
    assert_string_equal(g.text, cases[i].say);
    assert_int_equal(g.stop, NM_STOP_LENGTH);
    nm_generated_free(&g, 1);
    nm_session_free(s);
  }
  nm_engine_free(e);
  nm_model_close(m);
}

/* The recorded greedy ids, and log-probabilities equal to those of the logits of the whole text. */
static void greedy(void **state) {
  (void)state;
  if (no_shared()) skip();
  static const char *const types[] = {"f32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "IQ4_NL"};
  json_t *v = json_load_file(SHARED "models/stories260K/vectors.json", 0, NULL), *c;
  size_t i, n_ids = 0;
  for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
    char path[160];
    snprintf(path, sizeof path, STORIES, types[t]);
    nm_model *m = open_model(path);
    nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
    json_array_foreach(json_object_get(v, types[t]), i, c) {
      json_t *tokens = json_object_get(c, "tokens"), *said = json_object_get(c, "greedy");
      size_t n = json_array_size(tokens), k = json_array_size(said);
      int32_t ids[300];
      double lp[600];
      for (size_t p = 0; p < n; p++) ids[p] = (int32_t)json_integer_value(json_array_get(tokens, p));
      nm_session *s = new_session(e, (nm_session_opts){0});
      append(s, 0, ids, n);
      nm_generated g;
      generate(s, (nm_generate_opts){.n_predict = (int)k, .ignore_eos = false, .logprobs = true}, &g);
      for (size_t p = 0; p < g.n; p++)
        assert_int_equal(g.ids[p], json_integer_value(json_array_get(said, p)));
      assert_true(g.n == k || g.end == json_integer_value(json_array_get(said, g.n)));
      memcpy(ids + n, g.ids, g.n * sizeof *ids);
      struct rows whole = tap_one(e, ids, n + g.n, "logits", "all", NULL);
      for (size_t p = 0; p < g.n; p++) {
        nm_log_softmax(row_of(&whole, "logits", 0, (int)(n + p) - 1, m->V), m->V, lp);
        assert_true(g.logprob[p] == lp[g.ids[p]]);
      }
      n_ids += g.n;
      rows_done(&whole);
      nm_generated_free(&g, 1);
      nm_session_free(s);
    }
    nm_engine_free(e);
    nm_model_close(m);
  }
  print_message("%zu greedy tokens are the recorded ones, log-probabilities those of the logits\n",
                n_ids);
  assert_true(n_ids > 2000);
  json_decref(v);
}

/* Together or alone, with any threads: the same answers; what is streamed is the answer. */
static void samples(void **state) {
  (void)state;
  enum { N = 6 };
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2}),
            *one = new_engine(m, (nm_engine_opts){.threads = 1, .chunk = 3});
  static struct heard h;
  nm_generated all[N], alone;
  nm_generate_opts o = {.sampler = {.temp = 3, .top_p = 0.99, .repeat_penalty = 1.1, .seed = 5},
                        .n_samples = N, .n_predict = 40, .logprobs = true, .n_top = 3,
                        .token = hear, .arg = &h};
  h = (struct heard){0};
  nm_session *s = told(e, "ann saw");
  generate(s, o, all);
  int differ = 0;
  for (int i = 0; i < N; i++) {
    nm_generate_opts a = o;
    a.n_samples = 1;
    a.first_sample = i;
    a.token = NULL;
    nm_session *t = told(one, "ann saw");
    generate(t, a, &alone);
    assert_int_equal(alone.n, all[i].n);
    assert_memory_equal(alone.ids, all[i].ids, alone.n * sizeof *alone.ids);
    assert_memory_equal(alone.logprob, all[i].logprob, alone.n * sizeof(double));
    assert_string_equal(alone.text, all[i].text);
    assert_int_equal(h.n[i], all[i].n_text);
    assert_memory_equal(h.text[i], all[i].text, h.n[i]);
    differ += i && strcmp(all[i].text, all[0].text);
    nm_generated_free(&alone, 1);
    nm_session_free(t);
  }
  assert_true(differ >= N - 2);
  nm_generated_free(all, N);
  nm_session_free(s);
  nm_engine_free(e);
  nm_engine_free(one);
  nm_model_close(m);
}

/* Every way to end. */
static void ends(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.n_ctx = 24});
  static struct heard h;
  nm_generated g;
  nm_err err;
  const char *stop[] = {"zebra", "nn an"};           /* across the border of two tokens */
  nm_generate_opts o = {.n_predict = -1, .token = hear, .arg = &h};
  nm_session *s = told(e, "ann saw the red fox by night ?");
  int n = (int)nm_session_ids(s, 0).n;
  generate(s, o, &g);
  assert_int_equal(g.stop, NM_STOP_CONTEXT);
  assert_int_equal(g.n, 24 - n + 1);
  nm_generated_free(&g, 1);

  assert_int_equal(nm_session_rewind(s, 0, n - 1, NULL), 0);
  assert_int_equal(nm_generate(s, &o, &g, &err), NM_EUSAGE);
  assert_non_null(strstr(err.text, "has a prompt"));
  nm_session_free(s);

  s = told(e, "ann saw the red fox by night ?");
  h = (struct heard){0};
  o.stop = stop;
  o.n_stop = 2;
  generate(s, o, &g);
  assert_int_equal(g.stop, NM_STOP_STRING);
  assert_string_equal(g.text, " a");
  assert_int_equal(h.n[0], 2);                        /* nothing of it was shown */
  assert_int_equal(g.n, 2);
  nm_generated_free(&g, 1);
  nm_session_free(s);

  s = told(e, "ann saw the red fox by night ?");
  h = (struct heard){.stop_after = 3};
  o.n_stop = 0;
  assert_int_equal(nm_generate(s, &o, &g, &err), NM_EINTR);
  assert_int_equal(g.stop, NM_STOP_INTERRUPTED);
  assert_string_equal(g.text, " ann ann ann");
  nm_generated_free(&g, 1);
  nm_session_free(s);

  static const nm_sampler wrong[] = {{.temp = -1}, {.top_p = 1.5}, {.min_p = -0.1}, {.temp = NAN}};
  s = told(e, "ann");
  for (size_t i = 0; i < 4; i++)
    assert_int_equal(nm_generate(s, &(nm_generate_opts){.sampler = wrong[i]}, &g, &err), NM_EUSAGE);
  assert_int_equal(nm_session_append(s, 0, (int32_t[]){m->V}, 1, &err), NM_EFORMAT);
  assert_int_equal(nm_session_append(s, 1, (int32_t[]){1}, 1, &err), NM_EUSAGE);
  nm_session_free(s);
  nm_engine_free(e);
  nm_model_close(m);
}

/* A token that ends a text ends it; with ignore_eos it is never drawn. The scale makes the planted
 * model's logits flat, so that 300 draws at random meet the end. */
static void end_token(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.n_ctx = 600});
  nm_edits *flat = parse_edits("{\"site\": \"final_norm\", \"op\": \"zero\"}");
  int ended = 0;
  for (int ignore = 0; ignore < 2; ignore++)
    for (int i = 0; i < 30; i++) {
      nm_session *s = new_session(e, (nm_session_opts){.edits = flat});
      nm_generated g;
      append(s, 0, (int32_t[]){1, 5}, 2);
      generate(s, (nm_generate_opts){.sampler = {.temp = 1, .seed = (uint64_t)i}, .n_predict = 300,
                                     .ignore_eos = ignore}, &g);
      for (size_t k = 0; k < g.n; k++) assert_false(nm_is_end(m, g.ids[k]));
      assert_int_equal(g.stop == NM_STOP_END, nm_is_end(m, g.end));
      ended += g.stop == NM_STOP_END;
      if (ignore) assert_int_equal(g.n, 300);
      nm_generated_free(&g, 1);
      nm_session_free(s);
    }
  print_message("%d of 30 answers met the end token\n", ended);
  assert_true(ended > 5);
  nm_edits_free(flat);
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- edits while generating --------------------------------------------------------- */

static void edited(void **state) {
  (void)state;
  static const struct { const char *at; uint64_t touched; const char *same; } cases[] = {
      {"last", 1, "8"}, {"prompt", 9, ":9"}, {"all", 18, "all"}, {"generated", 9, "9:"},
      {"last,generated", 10, "8:"}, {"2:12", 10, "2:12"}, {"11", 1, "11"}, {":-1", 8, ":8"}};
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){0});
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char json[200];
    nm_edits *edits[2];
    for (int k = 0; k < 2; k++) {
      snprintf(json, sizeof json, "{\"site\": \"blk.1.resid_post\", \"at\": \"%s\", \"op\": \"scale\", "
               "\"scale\": 0.3}", k ? cases[i].same : cases[i].at);
      edits[k] = parse_edits(json);
    }
    nm_session *s = new_session(e, (nm_session_opts){.edits = edits[0]});
    int32_t *ids, all[30];
    size_t n;
    assert_int_equal(nm_tokenize(m, "ann saw the red fox by night ?", 30, 0, &ids, &n, NULL), 0);
    assert_int_equal(n, 9);
    append(s, 0, ids, n);
    nm_generated g;
    generate(s, (nm_generate_opts){.sampler = {.temp = 2}, .n_predict = 10}, &g);
    assert_int_equal(g.n, 10);
    if (nm_edits_touched(edits[0], 0) != cases[i].touched)
      fail_msg("%s: %d touched", cases[i].at, (int)nm_edits_touched(edits[0], 0));
    memcpy(all, ids, n * sizeof *all);
    memcpy(all + n, g.ids, g.n * sizeof *all);
    struct rows whole = tap_one(e, all, 18, "logits", "all", edits[1]);
    assert_logits(s, 0, &whole, cases[i].at);
    rows_done(&whole);
    nm_free(ids);
    nm_generated_free(&g, 1);
    nm_session_free(s);
    nm_edits_free(edits[0]);
    nm_edits_free(edits[1]);
  }
  nm_engine_free(e);
  nm_model_close(m);
}

/* A schedule's factor is that of the generated token's index: token k of the answer has the k-th,
 * the last one goes on, and the prompt has the first. */
static void scheduled(void **state) {
  (void)state;
  static const char one[] = "{\"site\": \"blk.1.resid_post\", \"at\": \"last,generated\", \"op\": "
                            "\"add\", \"vector\": %s, \"schedule\": [1, 0.5, 2]}",
                    each[] = "{\"site\": \"blk.1.resid_post\", \"at\": \"%s\", \"op\": \"add\", "
                             "\"vector\": %s, \"scale\": %s}%s";
  static const struct { const char *at, *scale; } by_hand[] = {{"8:10", "1"}, {"10", "0.5"}, {"11:", "2"}};
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2, .chunk = 4});
  char vec[600], json[4000];
  int32_t *ids, all[30];
  size_t n, k = 0;
  for (int i = 0; i < m->D; i++)
    k += (size_t)snprintf(vec + k, sizeof vec - k, "%s%d", i ? ", " : "[", i % 5 - 2);
  snprintf(vec + k, sizeof vec - k, "]");
  snprintf(json, sizeof json, one, vec);
  nm_edits *schedule = parse_edits(json);
  k = (size_t)snprintf(json, sizeof json, "[");
  for (int i = 0; i < 3; i++)
    k += (size_t)snprintf(json + k, sizeof json - k, each, by_hand[i].at, vec, by_hand[i].scale,
                          i < 2 ? "," : "]");
  nm_edits *plain = parse_edits(json);
  nm_session *s = new_session(e, (nm_session_opts){.edits = schedule});
  assert_int_equal(nm_tokenize(m, "ann saw the red fox by night ?", 30, 0, &ids, &n, NULL), 0);
  append(s, 0, ids, n);
  nm_generated g;
  generate(s, (nm_generate_opts){.sampler = {.temp = 2}, .n_predict = 10}, &g);
  assert_int_equal(nm_edits_touched(schedule, 0), 10);
  memcpy(all, ids, n * sizeof *all);
  memcpy(all + n, g.ids, g.n * sizeof *all);
  struct rows whole = tap_one(e, all, n + 9, "logits", "all", plain);
  assert_logits(s, 0, &whole, "a schedule");
  rows_done(&whole);
  nm_free(ids);
  nm_generated_free(&g, 1);
  nm_session_free(s);
  nm_edits_free(schedule);
  nm_edits_free(plain);
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- what a token costs ------------------------------------------------------------- */

static void no_allocation(void **state) {
  (void)state;
  if (!COUNTED) skip();
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2, .n_ctx = 600});
  long cost[2];
  for (int k = 0; k < 2; k++) {
    nm_session *s = told(e, "ann saw");
    nm_generated g;
    assert_int_equal(nm_session_reserve(s, 600, NULL), 0);
    long before = n_allocs;
    generate(s, (nm_generate_opts){.sampler = {.temp = 1, .top_k = 40}, .n_predict = k ? 500 : 20,
                                   .ignore_eos = true, .logprobs = true}, &g);
    cost[k] = n_allocs - before;
    assert_int_equal(g.n, k ? 500 : 20);
    nm_generated_free(&g, 1);
    nm_session_free(s);
  }
  print_message("%ld allocations for 20 tokens, %ld for 500\n", cost[0], cost[1]);
  assert_true(cost[1] - cost[0] <= 12);                /* the text's own doublings */
  nm_engine_free(e);
  nm_model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pieces), cmocka_unit_test(pieces_of_families), cmocka_unit_test(forks),
      cmocka_unit_test(half_is_rounding), cmocka_unit_test(half_session),
      cmocka_unit_test(known_answers), cmocka_unit_test(greedy), cmocka_unit_test(samples),
      cmocka_unit_test(ends), cmocka_unit_test(end_token), cmocka_unit_test(edited), cmocka_unit_test(scheduled),
      cmocka_unit_test(no_allocation)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
