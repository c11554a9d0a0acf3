/* twins_test.c - a model as a Hugging Face directory and as a GGUF is one model: logits, q, k
 * and scores of both agree, whatever rows, offsets and names tell the files apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/hf.h"
#include "model_run.h"

enum { T = 24 };

static const struct {
  const char *hf, *gguf;
} twins[] = {
    {"models/arch/llama", NULL},
    {"models/arch/llama-tied", NULL},
    {"models/arch/llama-rope-linear", NULL},
    {"models/arch/llama-rope-yarn", NULL},
    {"models/arch/llama-rope-llama3", NULL},
    {"models/arch/mixtral", NULL},
    {"models/arch/qwen2", NULL},
    {"models/arch/qwen3", NULL},
    {"models/arch/gemma", NULL},
    {"models/arch/gemma2", NULL},
    {"models/arch/gemma3", NULL},
    {"models/arch/olmo2", NULL},
    {"models/arch/phi3", NULL},
    {"models/arch/phi3-longrope", NULL},
    {"models/arch/gptneox", NULL},
    {"models/arch/gptneox-sequential", NULL},
    {"models/arch/gpt2", NULL},
    {"models/gpt-nano-sort", NULL},
    {"models/arch/bert", NULL},
    {"models/arch/nomic-bert", NULL},
    {"models/stories260K/hf", "models/stories260K/stories260K.f32.gguf"},
    {"reference/llama/hf", "reference/llama/model.gguf"},
    {"reference/qwen2/hf", "reference/qwen2/model.gguf"},
    {"reference/gemma2/hf", "reference/gemma2/model.gguf"},
    {"reference/gpt2/hf", "reference/gpt2/model.gguf"},
};
enum { N_TWINS = sizeof twins / sizeof *twins };

static struct rows run_all(const nm_model *m) {
  int32_t ids[T];
  nm_tap taps[] = {{"*.attn.q|*.attn.k|*.attn.scores", "all"},
                   {m->arch->encoder ? "*.resid_post" : "logits", "all"}};
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  int n = m->n_ctx < T ? m->n_ctx : T;
  for (int i = 0; i < n; i++) ids[i] = (int32_t)(nm__rand_at(3, 1, (uint64_t)i) % (uint64_t)m->V);
  nm_seq seq = {ids, (size_t)n};
  struct rows r = run_rows(e, (nm_request){.seqs = &seq, .n_seqs = 1, .taps = taps, .n_taps = 2});
  nm_engine_free(e);
  return r;
}

/* An encoder gives the vectors of its last block where a decoder gives logits. */
static const char *const what[] = {"logits", "attn.q", "attn.k", "attn.scores", "resid_post"};

static int kind_of(const char *site) {
  for (int i = 0; i < 5; i++)
    if (!strcmp(site + strlen(site) - strlen(what[i]), what[i])) return i % 4;
  fail_msg("%s was not asked for", site);
  return 0;
}

/* Scores of keys that are not seen are minus infinity in both. */
static double difference(float x, float y) { return x == y ? 0 : fabs((double)x - (double)y); }

static void compare(const struct rows *a, const struct rows *b, double worst[4]) {
  assert_int_equal(a->n, b->n);
  for (size_t i = 0; i < a->n; i++) {
    const struct row *x = &a->v[i], *y = &b->v[i];
    int kind = kind_of(a->site[x->site].name);
    assert_true(x->pos == y->pos && x->n == y->n);
    assert_string_equal(a->site[x->site].name, b->site[y->site].name);
    for (int64_t k = 0; k < x->n; k++) {
      double d = difference(x->v[k], y->v[k]);
      worst[kind] = d > worst[kind] || d != d ? d : worst[kind];
    }
  }
}

static void same_facts(const nm_model *a, const nm_model *b) {
  assert_true(a->arch == b->arch && a->L == b->L && a->D == b->D && a->H == b->H && a->K == b->K);
  assert_true(a->hd == b->hd && a->F == b->F && a->V == b->V && a->n_ctx == b->n_ctx);
  assert_true(a->n_rot == b->n_rot && a->eps == b->eps && a->score_scale == b->score_scale);
  assert_true(a->attn_cap == b->attn_cap && a->final_cap == b->final_cap);
  assert_true(a->parallel == b->parallel && a->long_after == b->long_after);
  for (int i = 0; i < a->L; i++)
    assert_true(a->layer[i].window == b->layer[i].window && a->layer[i].rope == b->layer[i].rope);
  char x[33], y[33];
  nm_model_hash((nm_model *)(uintptr_t)a, x, NULL);
  nm_model_hash((nm_model *)(uintptr_t)b, y, NULL);
  assert_string_not_equal(x, y);
}

static void agree(void **state) {
  (void)state;
  if (no_shared()) skip();
  int n = 0;
  double most = 0;
  print_message("%-34s %9s %9s %9s %9s\n", "twins", what[0], what[1], what[2], what[3]);
  for (int i = 0; i < N_TWINS; i++) {
    char dir[160], gguf[160];
    double worst[4] = {0};
    snprintf(dir, sizeof dir, SHARED "%s", twins[i].hf);
    snprintf(gguf, sizeof gguf, SHARED "%s%s", twins[i].gguf ? twins[i].gguf : twins[i].hf,
             twins[i].gguf ? "" : "/model.gguf");
    nm_model *a = open_model(dir), *b = open_model(gguf);
    same_facts(a, b);
    struct rows x = run_all(a), y = run_all(b);
    compare(&x, &y, worst);
    print_message("%-34s %9.2g %9.2g %9.2g %9.2g\n", twins[i].hf, worst[0], worst[1], worst[2],
                  worst[3]);
    for (int k = 0; k < 4; k++) {
      if (!(worst[k] <= 1e-5)) fail_msg("%s: %s differ by %g", dir, what[k], worst[k]);
      most = worst[k] > most ? worst[k] : most;
    }
    rows_done(&x);
    rows_done(&y);
    nm_model_close(a);
    nm_model_close(b);
    n++;
  }
  print_message("conformance: %d twins agree on logits, q, k and scores to %.2g\n", n, most);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(agree)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
