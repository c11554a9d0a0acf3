/* same_bits_test.c - the bits of logits and resid_post do not depend on threads, chunk,
 * batch, place in the batch, a shared beginning, what follows, or the kernel set; and the
 * forward in measure mode counts what the forward in run mode takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "model_file.h"
#include "model_run.h"

enum { N_SEQS = 5 };
static char tiny[6][80];            /* random models of every stored type */
static const char *const tiny_type[6] = {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_0"};

static int write_tiny(void **state) {
  (void)state;
  nm_err err = {0};
  for (int i = 0; i < 6; i++) {
    snprintf(tiny[i], sizeof tiny[i], "/tmp/noema_bits_test.%ld.%s.gguf", (long)getpid(),
             tiny_type[i]);
    if (nm_write_random("tiny", tiny_type[i], 3, tiny[i], NULL, &err)) fail_msg("%s", err.text);
  }
  return 0;
}
static int remove_tiny(void **state) {
  (void)state;
  for (int i = 0; i < 6; i++) unlink(tiny[i]);
  return 0;
}

/* Sequences of 23, 3, 40, 9 and 23 ids whose first 5 (or all) are the same. */
struct texts { int32_t ids[N_SEQS][40]; nm_seq s[N_SEQS]; };

static void make_texts(const nm_model *m, struct texts *t, bool long_prefix) {
  static const int len[N_SEQS] = {23, 3, 40, 9, 23};
  for (int i = 0; i < N_SEQS; i++) {
    int n = long_prefix && len[i] < 9 ? 12 : len[i];
    if (n > m->n_ctx) n = m->n_ctx;
    t->s[i] = (nm_seq){t->ids[i], (size_t)n};
    for (int k = 0; k < n; k++)
      t->ids[i][k] =
          (int32_t)((k < (long_prefix ? 8 : 5) ? k * 13 + 1 : k * 31 + i * 7 + 2) % m->V);
  }
}

/* Every sequence in a run of its own. */
static struct rows alone(nm_engine *e, const struct texts *t, const nm_tap *taps, int n_taps) {
  struct rows all = {0};
  for (size_t i = 0; i < N_SEQS; i++) {
    struct rows r =
        run_rows(e, (nm_request){.seqs = &t->s[i], .n_seqs = 1, .taps = taps, .n_taps = n_taps});
    all.v = realloc(all.v, (all.n + r.n) * sizeof *all.v);
    for (size_t k = 0; k < r.n; k++) {
      r.v[k].seq = i;
      all.v[all.n++] = r.v[k];
    }
    nm_free(all.site);
    all.site = r.site;
    free(r.v);
  }
  return all;
}

/* All in one run, sequence i at place (i + turn) % N_SEQS. */
static struct rows together(nm_engine *e, const struct texts *t, const nm_tap *taps, int n_taps,
                            int turn, bool share) {
  nm_seq s[N_SEQS];
  for (int i = 0; i < N_SEQS; i++) s[(i + turn) % N_SEQS] = t->s[i];
  struct rows r = run_rows(
      e, (nm_request){
             .seqs = s, .n_seqs = N_SEQS, .taps = taps, .n_taps = n_taps, .share_prefix = share});
  for (size_t i = 0; i < r.n; i++) r.v[i].seq = (r.v[i].seq + N_SEQS - (size_t)turn) % N_SEQS;
  qsort(r.v, r.n, sizeof *r.v, by_place);
  return r;
}

static const nm_tap whole[] = {
    {"logits", "all"}, {"*.resid_post", "all"}, {"*.attn.pattern", "last"}, {"*.moe.*", "2:"}};
static int n_whole(const nm_model *m) { return m->moe.n ? 4 : 3; }
static const nm_tap ends[] = {{"logits", "last"}, {"*.resid_post", "-3"}};

static void one_setting(const nm_model *m, const struct texts *t, const struct rows *want,
                        nm_engine_opts o, int turn) {
  char what[200];
  nm_engine *e = new_engine(m, o);
  snprintf(what, sizeof what, "%s, %s: %d threads, chunk %d, batch %d, %s, turn %d",
           nm_engine_kernels(e), nm_engine_act(e), o.threads, o.chunk, o.batch, m->path, turn);
  struct rows got = together(e, t, whole, n_whole(m), turn, true); /* nothing is shared: "all" is tapped */
  assert_same_rows(want, &got, what);
  rows_done(&got);
  nm_engine_free(e);
}

static void settings(const nm_model *m, const char *act) {
  static const int threads[] = {1, 2, 3, 7}, chunks[] = {1, 5, 17, 0}, batches[] = {1, 2, 3, 0};
  struct texts t;
  make_texts(m, &t, false);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1, .act = act});
  struct rows want = alone(e, &t, whole, n_whole(m));
  for (int k = 0; nm__kern_at(k); k++) {
    if (!nm__kern_at(k)->usable()) continue;
    for (int c = 0; c < 4; c++)
      for (int b = 0; b < 4; b++)
        if (k ? (c + b + k) % (act ? 4 : 2) == 0 : c * b == 2 && (!act || c == 1))   /* slow */
          one_setting(m, &t, &want,
                      (nm_engine_opts){.threads = threads[(c + b + k) % 4],
                                       .chunk = chunks[c],
                                       .batch = batches[b],
                                       .kernels = nm__kern_at(k)->name,
                                       .act = act},
                      (c + 2 * b) % N_SEQS);
  }
  for (int i = 0; i < 4; i++) one_setting(m, &t, &want, (nm_engine_opts){.threads = threads[i], .act = act}, i);
  rows_done(&want);
  nm_engine_free(e);
}

static void shared_beginning(const nm_model *m) {
  static const int chunks[] = {0, 3, 5}, batches[] = {0, 2};
  struct texts t;
  make_texts(m, &t, true);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  struct rows want = alone(e, &t, ends, 2);
  for (int c = 0; c < 3; c++)
    for (int b = 0; b < 2; b++)
      for (int share = 0; share < 2; share++) {
        nm_engine *other =
            new_engine(m, (nm_engine_opts){.threads = 2, .chunk = chunks[c], .batch = batches[b]});
        struct rows got = together(other, &t, ends, 2, c, share);
        assert_same_rows(&want, &got, share ? "with a shared beginning" : "without");
        rows_done(&got);
        nm_engine_free(other);
      }
  rows_done(&want);
  nm_engine_free(e);
}

/* logits(ids)[:k] == logits(ids[:k]) */
static void what_follows(const nm_model *m) {
  struct texts t;
  make_texts(m, &t, false);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  struct rows want =
      run_rows(e, (nm_request){.seqs = &t.s[2], .n_seqs = 1, .taps = whole, .n_taps = 2});
  for (size_t k = 1; k < t.s[2].n; k += k < 20 ? 1 : 7) {
    nm_seq s = {t.ids[2], k};
    struct rows got =
        run_rows(e, (nm_request){.seqs = &s, .n_seqs = 1, .taps = whole, .n_taps = 2});
    for (size_t i = 0; i < got.n; i++) {
      const struct row *g = &got.v[i];
      const float *w = row_of(&want, want.site[g->site].name, 0, g->pos, g->n);
      if (memcmp(g->v, w, (size_t)g->n * 4))
        fail_msg("%s: %s at %d of %zu differs", m->path, want.site[g->site].name, g->pos, k);
    }
    rows_done(&got);
  }
  rows_done(&want);
  nm_engine_free(e);
}

static void all_checks(const char *path) {
  nm_model *m = open_model(path);
  settings(m, NULL);
  settings(m, "bf16");
  shared_beginning(m);
  what_follows(m);
  nm_model_close(m);
}

static void own_models(void **state) {
  (void)state;
  all_checks(PLANTED);
  for (int i = 0; i < 6; i++) all_checks(tiny[i]);
}

/* The families that have no recorded vectors, in odd sizes; and every site tapped there. */
static void odd_families(void **state) {
  (void)state;
  char path[80];
  snprintf(path, sizeof path, "/tmp/noema_bits_test.%ld.odd.gguf", (long)getpid());
  for (int i = 0; i < N_SHAPES; i++) {
    struct file f = file_of(&shapes[i]);
    struct texts t;
    write_file(&shapes[i], &f, path);
    file_done(&f);
    all_checks(path);
    nm_model *m = open_model(path);
    make_texts(m, &t, false);
    nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 3}),
              *other = new_engine(m, (nm_engine_opts){.threads = 2, .chunk = 5});
    struct rows all = tap_one(e, t.ids[2], t.s[2].n, "*", "all", NULL),
                again = tap_one(other, t.ids[2], t.s[2].n, "*", "all", NULL),
                few = tap_one(e, t.ids[2], t.s[2].n, "logits", "all", NULL);
    assert_same_rows(&all, &again, shapes[i].title);
    for (size_t p = 0; p < t.s[2].n; p++)
      assert_memory_equal(row_of(&all, "logits", 0, (int)p, m->V),
                          row_of(&few, "logits", 0, (int)p, m->V), (size_t)m->V * 4);
    rows_done(&all);
    rows_done(&again);
    rows_done(&few);
    nm_engine_free(e);
    nm_engine_free(other);
    nm_model_close(m);
  }
  unlink(path);
}

static void reference_models(void **state) {
  (void)state;
  static const char *const names[] = {
      "models/arch/llama",          "models/arch/qwen2",          "models/arch/gpt2",
      "models/gpt-nano-sort",       "reference/llama-yarn",       "reference/quant/llama-f16",
      "reference/quant/llama-bf16", "reference/quant/llama-q8_0", "reference/quant/llama-q4_0",
      "reference/quant/llama-q5_0", "reference/quant/qwen2-q4_0", "reference/quant/llama-q4_k_m",
      "reference/quant/llama-q2_k", "reference/quant/qwen2-q6_k", "reference/quant/llama-iq4_nl",
      "models/kmix",
      "models/arch/qwen3",
      "reference/gemma",            "reference/gemma2",           "reference/gemma3",
      "reference/olmo2",            "reference/phi3",             "models/arch/gptneox",
      "models/arch/gptneox-sequential", "models/arch/phi3-longrope",
      "reference/mixtral",          "reference/qwen2moe",         "reference/falcon",
  };
  if (no_shared()) skip();
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char path[160];
    snprintf(path, sizeof path, SHARED "%s/model.gguf", names[i]);
    all_checks(path);
  }
}

/* ---- memory -------------------------------------------------------------------- */

/* The same struct nm__forward in both modes: equal peaks, and the peak is enough. */
static void forward_twice(const nm_model *m, nm_engine *e, int n, int last_layer, bool before_mlp,
                          int n_head, bool head) {
  static int32_t ids[64], head_rows[64];
  struct nm__span span = {.n = n};
  struct nm__kv kv = {0};
  size_t peak = 0;
  for (int i = 0; i < 64; i++) ids[i] = i % m->V, head_rows[i] = i;
  assert_int_equal(nm__kv_init(&kv, m->L, n, (int64_t)m->K * m->hd, NULL), 0);
  for (int run = 0; run < 2; run++) {
    struct nm__ops o = {.mode = run ? NM__RUN : NM__MEASURE,
                        .kern = nm__engine_kern(e),
                        .pool = nm__engine_pool(e)};
    assert_int_equal(nm__arena_init(&o.arena, peak, NULL), 0);
    struct nm__forward f = {.m = m,
                            .ops = &o,
                            .kv = &kv,
                            .spans = &span,
                            .n_spans = run,
                            .T = n,
                            .max_keys = n,
                            .ids = run ? ids : NULL,
                            .last_layer = last_layer,
                            .stop_before_mlp = before_mlp,
                            .head_rows = run ? head_rows : NULL,
                            .n_head_rows = n_head,
                            .head = head};
    if (nm__forward(&f)) fail_msg("%s", o.err.text);
    if (run) assert_int_equal(o.arena.peak, peak);
    peak = o.arena.peak;
    nm__arena_done(&o.arena);
  }
  nm__kv_done(&kv);
}

static void measure_is_run(void **state) {
  (void)state;
  static const char *const more[] = {
      PLANTED, SHARED "reference/gemma2/model.gguf", SHARED "reference/gemma3/model.gguf",
      SHARED "reference/olmo2/model.gguf", SHARED "reference/phi3/model.gguf",
      SHARED "models/arch/gptneox/model.gguf", SHARED "reference/mixtral/model.gguf",
      SHARED "reference/qwen2moe/model.gguf"};
  for (int i = 0; i < (nm__exists(SHARED) ? 14 : 7); i++) {
    nm_model *m = open_model(i < 6 ? tiny[i] : more[i - 6]);
    nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1 + i % 3});
    forward_twice(m, e, 33, m->L - 1, false, 33, true);
    forward_twice(m, e, 1, m->L - 1, false, 1, true);
    forward_twice(m, e, 40, m->L - 1, false, 40, false);
    forward_twice(m, e, 40, 0, true, 0, false);
    forward_twice(m, e, 17, m->L - 1, false, 0, false);
    nm_engine_free(e);
    nm_model_close(m);
  }
}

/* A run that stops early is measured smaller; the whole is the sum a user is told. */
static void measured_requests(void **state) {
  (void)state;
  nm_model *m = open_model(tiny[0]);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  struct texts t;
  make_texts(m, &t, false);
  const nm_tap taps[] = {{"embed", "last"}, {"blk.0.mlp_norm", "last"}, {"blk.0.resid_post", "all"},
                         {"blk.1.resid_post", "all"}, {"logits", "all"}};
  nm_memory before = {0}, need;
  for (int i = 0; i < 5; i++) {
    nm_request r = {.seqs = t.s, .n_seqs = N_SEQS, .taps = &taps[i], .n_taps = 1};
    assert_int_equal(nm_run_measure(e, &r, &need, NULL), 0);
    assert_true(need.weights >= before.weights && need.kv >= before.kv &&
                need.activations >= before.activations);
    assert_true(need.base > 0 && (i == 0 || need.kv > 0));
    before = need;
    struct rows got = run_rows(e, r);
    assert_true(got.n > 0);
    rows_done(&got);
  }
  assert_true(need.weights <= (uint64_t)m->weight_bytes + (1 << 20));
  nm_engine_free(e);
  nm_model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(own_models),
      cmocka_unit_test(odd_families),
      cmocka_unit_test(reference_models),
      cmocka_unit_test(measure_is_run),
      cmocka_unit_test(measured_requests),
  };
  return cmocka_run_group_tests(tests, write_tiny, remove_tiny);
}
