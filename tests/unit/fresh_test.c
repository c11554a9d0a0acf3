/* fresh_test.c - new models: every family that can be made opens, has the sizes asked for and the
 * initialisation stated; sizes that do not go together are refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "learn/learn.h"
#include "model/shape.h"

static const char *const archs[] = {"llama",  "qwen2",   "qwen3", "gemma", "gemma2", "gemma3",
                                    "olmo2",  "phi3",    "gptneox", "gpt2", "bert", "nomic-bert"};

static struct nm__shape small(const char *arch) {
  struct nm__shape s = {.arch = arch, .L = 2, .D = 64, .H = 4, .F = 96, .V = 100, .ctx = 32};
  s.untied = !strcmp(arch, "olmo2") || !strcmp(arch, "gptneox");
  return s;
}

static void all_open(void **state) {
  (void)state;
  nm_err err;
  for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
    struct nm__shape s = small(archs[i]);
    struct nm__gguf *g;
    nm_model *m;
    if (nm__fresh(&s, NULL, 5, &g, &err)) fail_msg("%s: %s", archs[i], err.text);
    if (nm__model_from(g, &m, &err)) fail_msg("%s: %s", archs[i], err.text);
    assert_int_equal(m->L, 2);
    assert_int_equal(m->D, 64);
    assert_int_equal(m->V, 100);
    if (!m->arch->encoder) assert_int_equal(m->tied, !s.untied);
    nm_engine *e;
    if (nm_engine_new(m, &(nm_engine_opts){.threads = 1}, &e, &err)) fail_msg("%s", err.text);
    nm_engine_free(e);
    nm_model_close(m);
  }
}

static double spread(const struct nm__gguf *g, const char *name) {
  const struct nm__gguf_tensor *t = nm__gguf_tensor(g, name);
  assert_non_null(t);
  const float *x = (const float *)t->data;
  double sum = 0;
  int64_t n = t->ne[0] * t->ne[1];
  for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
  return sqrt(sum / (double)n);
}

static void initialised(void **state) {
  (void)state;
  nm_err err;
  struct nm__gguf *g, *h, *deeper;
  struct nm__shape s = small("llama");
  s.std = 0.05f;
  if (nm__fresh(&s, NULL, 5, &g, &err) || nm__fresh(&s, NULL, 6, &h, &err))
    fail_msg("%s", err.text);
  s.L = 8;
  if (nm__fresh(&s, NULL, 5, &deeper, &err)) fail_msg("%s", err.text);
  assert_true(fabs(spread(g, "blk.1.attn_q.weight") - 0.05) < 0.002);
  assert_true(fabs(spread(g, "token_embd.weight") - 0.05) < 0.002);
  assert_true(fabs(spread(g, "blk.1.ffn_down.weight") - 0.025) < 0.001);
  assert_true(fabs(spread(deeper, "blk.7.attn_output.weight") - 0.0125) < 0.0006);
  assert_true(spread(g, "output_norm.weight") == 1);
  const struct nm__gguf_tensor *a = nm__gguf_tensor(g, "blk.1.ffn_up.weight"),
                               *b = nm__gguf_tensor(h, "blk.1.ffn_up.weight"),
                               *c = nm__gguf_tensor(deeper, "blk.1.ffn_up.weight");
  assert_memory_equal(a->data, c->data, a->bytes);     /* other tensors do not matter */
  assert_memory_not_equal(a->data, b->data, a->bytes);
  nm__gguf_close(g);
  nm__gguf_close(h);
  nm__gguf_close(deeper);
}

static void refused(void **state) {
  (void)state;
  nm_err err;
  struct nm__gguf *g;
  const struct { struct nm__shape s; const char *says; } bad[] = {
      {{.arch = "mamba", .L = 1, .D = 8, .H = 1, .V = 9, .ctx = 4}, "'mamba' cannot be made"},
      {{.arch = "llama", .L = 1, .D = 9, .H = 2, .V = 9, .ctx = 4}, "not shared evenly"},
      {{.arch = "llama", .L = 1, .D = 8, .H = 4, .K = 3, .V = 9, .ctx = 4}, "kv heads evenly"},
      {{.arch = "llama", .L = 0, .D = 8, .H = 4, .V = 9, .ctx = 4}, "layers must be 1"},
      {{.arch = "llama", .L = 1, .D = 12, .H = 4, .V = 9, .ctx = 4}, "must be even"},
      {{.arch = "qwen2", .L = 1, .D = 8, .H = 4, .V = 9, .ctx = 4, .window = 2}, "no window"},
      {{.arch = "gemma2", .L = 1, .D = 8, .H = 4, .V = 9, .ctx = 4, .untied = true}, "tied to true"},
      {{.arch = "olmo2", .L = 1, .D = 8, .H = 4, .V = 9, .ctx = 4}, "tied to false"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(nm__fresh(&bad[i].s, NULL, 1, &g, &err), NM_EUSAGE);
    if (!strstr(err.text, bad[i].says)) fail_msg("%zu: %s", i, err.text);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(all_open), cmocka_unit_test(initialised), cmocka_unit_test(refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
