/* train_test.c - recipes and their mistakes, samples, the stream, and whole runs: that they learn,
 * give the same bits for any threads, and go on from a checkpoint as if nothing had been. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "learn/data.h"
#include "learn/recipe.h"
#include "train_run.h"

#define MODEL \
  "model: {arch: llama, layers: 2, width: 64, heads: 4, context: 64, init: 0.1}\n" \
  "tokenizer: {kind: word}\n"
#define FACTS \
  MODEL "data: [{world: facts, W: 7, n: 2000, order: shuffled}]\n" \
  "batch: 32\nslots: 4\noptimizer: {decay: 0.1}\n" \
  "schedule: {kind: cosine, lr: 0.003, warmup: 10}\n"

/* ---- recipes ------------------------------------------------------------------- */

static void mistakes(void **state) {
  (void)state;
  const struct { const char *text, *says; } bad[] = {
      {"steps: 5\n", "needs 'data'"},
      {"data: [{world: facts}]\n" MODEL, "needs 'steps'"},
      {MODEL "steps: 5\ndata: [{world: facts}]\nbath: 3\n", ":5: a recipe has no key 'bath'; is it "
       "'batch'?"},
      {MODEL "steps: 5\ndata: [{world: facts}]\nxyzzyx: 3\n", "has no key 'xyzzyx' (known: base"},
      {MODEL "steps: 0\ndata: [{world: facts}]\n", ":3: steps must be a whole number from 1"},
      {MODEL "steps: five\ndata: [{world: facts}]\n", ":3: steps must be"},
      {MODEL "steps: 5\ndata: [{world: facts, file: x}]\n", ":4: a source of data has one of"},
      {MODEL "steps: 5\ndata: [{file: x, n: 3}]\n", ":4: 'n' belongs to a world"},
      {MODEL "steps: 5\ndata: []\n", ":4: data must be a list"},
      {MODEL "steps: 5\nslots: 3\ndata: [{world: facts}]\n", ":4: slots must be a power of two"},
      {MODEL "steps: 5\nlength: 65\ndata: [{world: facts}]\n", ":4: a length of 65 is more"},
      {MODEL "steps: 5\nloss: cross\ndata: [{world: facts}]\n", ":4: loss 'cross' is not known"},
      {MODEL "steps: 5\nsave: q5\ndata: [{world: facts}]\n", ":4: save is f32"},
      {MODEL "steps: 5\nschedule: {kind: step}\ndata: [{world: facts}]\n", ":4: kind must be one "
       "of: constant"},
      {MODEL "steps: 5\ndata:\n  - {world: facts, to_step: 3}\n", "at step 3 no source"},
      {MODEL "steps: 5\neval: {every: 2}\ndata: [{world: facts}]\n", ":4: eval needs"},
      {MODEL "base: x.gguf\nsteps: 5\ndata: [{world: facts}]\n", "one of 'model'"},
      {"base: x\nlora: {rank: 2}\nsteps: 5\ndata: [{world: facts}]\n", ":2: lora needs"},
      {"model: {arch: mamba, layers: 1, width: 8, heads: 1, context: 8}\ntokenizer: {kind: word}\n"
       "steps: 1\ndata: [{world: facts}]\n", ":1: a new model of family 'mamba'"},
      {"model: {arch: llama, layers: 1, width: 9, heads: 2, context: 8}\ntokenizer: {kind: word}\n"
       "steps: 1\ndata: [{world: facts}]\n", ":1: a width of 9"},
      {"model: {arch: llama, layers: 1, width: 8, heads: 2, context: 8}\nsteps: 1\n"
       "data: [{world: facts}]\n", ":1: a new model needs a 'tokenizer'"},
      {"model: 3\n", ":1: model must be a mapping"},
      {"- 1\n", "a recipe must be a mapping"},
      {"a: [1\n", "r.yaml:2:"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct nm__recipe r;
    nm_err err = {0};
    if (nm__recipe_parse("r.yaml", bad[i].text, strlen(bad[i].text), &r, &err) != NM_EFORMAT)
      fail_msg("%zu: was read", i);
    if (strncmp(err.text, "r.yaml:", 7) || !strstr(err.text, bad[i].says))
      fail_msg("%zu: '%s' lacks '%s'", i, err.text, bad[i].says);
  }
}

static void damaged_recipes(void **state) {
  (void)state;
  const char *text = FACTS "steps: 20\neval: {every: 5, data: [{world: facts, split: test}]}\n"
                     "noise: {replace: 0.1, token: <unk>}\ncheckpoint: {every: 5, keep: 2}\n";
  size_t n = strlen(text);
  char *s = malloc(n);
  struct nm__rng rng = {1, 2, 3};
  int read = 0;
  for (int i = 0; i < 10000; i++) {
    struct nm__recipe r;
    nm_err err = {0};
    memcpy(s, text, n);
    for (int k = 0; k < 1 + i % 4; k++)
      s[nm__rng_below(&rng, n)] = (char)(i % 2 ? nm__rng_below(&rng, 256)
                                               : (uint64_t)text[nm__rng_below(&rng, n)]);
    if (nm__recipe_parse("r.yaml", s, n, &r, &err)) assert_true(err.text[0] != 0);
    else read++, nm__recipe_done(&r);
  }
  assert_true(read > 100 && read < 9900);
  free(s);
}

/* ---- samples ---------------------------------------------------------------------- */

/* A model without a file: words of the rows themselves. */
static nm_model *word_model(const char *rows, struct nm__recipe *r, const char *more) {
  char text[700];
  struct nm__gguf *tok, *g;
  nm_model *m;
  nm_err err;
  write_text("rows.jsonl", rows);
  snprintf(text, sizeof text, MODEL "steps: 9\nseed: 3\ndata: [{file: %s}]\n%s",
           at("rows.jsonl"), more);
  if (nm__recipe_parse("r.yaml", text, strlen(text), r, &err)) fail_msg("%s", err.text);
  if (nm__docs_tokenizer(r, &tok, &err) || nm__fresh(&r->shape, tok, 1, &g, &err) ||
      nm__model_from(g, &m, &err))
    fail_msg("%s", err.text);
  nm__gguf_close(tok);
  return m;
}

static void weights_of_rows(void **state) {
  (void)state;
  const char *rows =
      "{\"text\": \"a b c\"}\n"
      "{\"prompt\": \"a b\", \"response\": \" c a\"}\n\n"
      "{\"parts\": [[\"a\", 0], [\"b\", 2], [\"c\", 0], [\"a\", 1]]}\n"
      "{\"ids\": [3, 4, 5], \"weights\": [1, 0, 0.5]}\n";
  const float want[4][6] = {{0, 1, 1, 1, 1}, {0, 0, 0, 1, 1, 1}, {0, 0, 2, 0, 1, 1}, {0, 0, 0.5f}};
  const int len[4] = {5, 6, 6, 3};           /* BOS, words, EOS; ids stand as they are */
  struct nm__recipe r;
  struct nm__set s;
  nm_err err;
  nm_model *m = word_model(rows, &r, "eos: true\n");
  struct nm__set_opts o = {.length = 64, .eos = true};
  if (nm__set_make(&r.y, &r.data.v[0], m, &o, &s, &err)) fail_msg("%s", err.text);
  assert_int_equal(s.n, 4);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(s.v[i].n, len[i]);
    for (int k = 0; k < len[i]; k++) assert_true(s.v[i].weight[k] == want[i][k]);
  }
  nm__set_done(&s);
  /* Packed: 17 + 3 tokens in rows of 6 that share one; each is predicted once. */
  o = (struct nm__set_opts){.length = 6, .pack = true, .eos = true};
  if (nm__set_make(&r.y, &r.data.v[0], m, &o, &s, &err)) fail_msg("%s", err.text);
  assert_int_equal(s.n, 4);
  float sum = 0;
  for (int i = 0; i < s.n; i++)
    for (int k = 1; k < s.v[i].n; k++) sum += s.v[i].weight[k];
  assert_true(sum == 4 + 3 + 4 + 0.5f);
  assert_ptr_equal(s.v[1].ids, s.v[0].ids + 5);
  nm__set_done(&s);
  /* Cut, and counted. */
  o = (struct nm__set_opts){.length = 4, .eos = true};
  if (nm__set_make(&r.y, &r.data.v[0], m, &o, &s, &err)) fail_msg("%s", err.text);
  assert_int_equal(s.n_cut, 3);
  nm__set_done(&s);
  nm_model_close(m);
  nm__recipe_done(&r);
}

static void bad_rows(void **state) {
  (void)state;
  const struct { const char *row, *says; } bad[] = {
      {"{\"txt\": \"a\"}", "rows.jsonl:2: a row needs"},
      {"{\"text\": \"a\"", "rows.jsonl:2"},
      {"{\"messages\": []}", "not possible here"},
      {"{\"ids\": [99999]}", "outside the vocabulary"},
      {"{\"ids\": [1, 2], \"weights\": [1]}", "as long"},
      {"{\"ids\": [-1]}", "no token"},
      {"{\"parts\": [[\"a\"]]}", "[text, weight]"}};
  struct nm__recipe r;
  struct nm__set s;
  nm_err err;
  nm_model *m = word_model("{\"text\": \"a b c\"}\n", &r, "");
  struct nm__set_opts o = {.length = 64};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char text[200];
    snprintf(text, sizeof text, "{\"text\": \"a\"}\n%s\n", bad[i].row);
    write_text("rows.jsonl", text);
    assert_int_equal(nm__set_make(&r.y, &r.data.v[0], m, &o, &s, &err), NM_EFORMAT);
    if (!strstr(err.text, bad[i].says)) fail_msg("%zu: %s", i, err.text);
  }
  nm_model_close(m);
  nm__recipe_done(&r);
}

/* ---- the stream --------------------------------------------------------------------- */

static void permutations(void **state) {
  (void)state;
  for (uint64_t n = 1; n < 300; n += n < 20 ? 1 : 37) {
    char seen[300] = {0};
    int moved = 0;
    for (uint64_t i = 0; i < n; i++) {
      uint64_t k = nm__permuted(n + 5, i, n);
      assert_true(k < n && !seen[k]);
      seen[k] = 1;
      moved += k != i;
    }
    if (n > 20) assert_true(moved > (int)n / 2);
  }
}

static void stream_is_a_function(void **state) {
  (void)state;
  const char *text = MODEL
      "steps: 40\nbatch: 50\nseed: 9\nnoise: {replace: 0.25}\ndata:\n"
      "  - {world: facts, n: 30, weight: 3, order: shuffled}\n"
      "  - {world: lexical, n: 20}\n"
      "  - {world: parity, n: 20, weight: 4, from_step: 20}\n";
  struct nm__recipe r;
  struct nm__gguf *tok, *g;
  struct nm__set set[3];
  struct nm__stream a, b;
  nm_model *m;
  nm_err err;
  if (nm__recipe_parse("r.yaml", text, strlen(text), &r, &err) ||
      nm__docs_tokenizer(&r, &tok, &err) || nm__fresh(&r.shape, tok, 1, &g, &err) ||
      nm__model_from(g, &m, &err))
    fail_msg("%s", err.text);
  nm__gguf_close(tok);
  struct nm__set_opts o = {.length = 64};
  for (int i = 0; i < 3; i++)
    if (nm__set_make(&r.y, &r.data.v[i], m, &o, &set[i], &err)) fail_msg("%s", err.text);
  if (nm__stream_init(&a, &r, set, m, &err) || nm__stream_init(&b, &r, set, m, &err))
    fail_msg("%s", err.text);
  const struct nm__sample *x[50], *y[50];
  int of[2][3] = {{0}}, seen[30] = {0}, replaced = 0, tokens = 0;
  for (int step = 0; step < 40; step++) {
    if (nm__stream_step(&a, step, x, &err)) fail_msg("%s", err.text);
    for (int i = 0; i < 50; i++)
      for (int s = 0; s < 3; s++)
        for (int k = 0; k < set[s].n; k++) {
          if (set[s].v[k].ids != x[i]->ids) continue;
          of[step >= 20][s]++;
          if (s == 0 && step == 0) seen[k]++;
        }
    for (int i = 0; i < 50; i++)
      for (int k = 0; k < x[i]->n; k++, tokens++) replaced += x[i]->input[k] != x[i]->ids[k];
  }
  for (int k = 0; k < 30; k++) assert_true(seen[k] >= 1 && seen[k] <= 2);   /* epochs */
  assert_int_equal(of[0][2], 0);
  assert_true(of[0][0] > 680 && of[0][0] < 820);           /* 3 of 4 of 1000 */
  assert_true(of[1][2] > 430 && of[1][2] < 570);           /* 4 of 8 */
  assert_true(replaced > tokens / 8 && replaced < tokens / 4);   /* no BOS among them */
  if (nm__stream_step(&b, 39, y, &err)) fail_msg("%s", err.text);
  for (int i = 0; i < 50; i++) {
    assert_ptr_equal(x[i]->ids, y[i]->ids);
    assert_memory_equal(x[i]->input, y[i]->input, 4 * (size_t)x[i]->n);
  }
  nm__stream_done(&a);
  nm__stream_done(&b);
  for (int i = 0; i < 3; i++) nm__set_done(&set[i]);
  nm_model_close(m);
  nm__recipe_done(&r);
}

/* ---- whole runs ------------------------------------------------------------------------ */

static void learns(void **state) {
  (void)state;
  nm_train_result r = train(FACTS "steps: 200\neval: {every: 200, data: [{world: facts, W: 7, seed: "
                            "2, n: 200}]}\n", "facts", 2, 0, false, NM_OK);
  if (!(r.eval_accuracy > 0.9)) fail_msg("%g", r.eval_accuracy);
  assert_int_equal(r.step, 200);
  nm_train_result_free(&r);
}

static void same_bits(void **state) {
  (void)state;
  const char *text = FACTS "steps: 12\n";
  for (int threads = 1; threads <= 3; threads++) {
    char out[20];
    snprintf(out, sizeof out, "t%d", threads);
    nm_train_result r = train(text, out, threads, 0, false, NM_OK);
    nm_train_result_free(&r);
  }
  same_files("t1/model.gguf", "t2/model.gguf");
  same_files("t1/model.gguf", "t3/model.gguf");
  nm_train_result r = train(FACTS "steps: 12\nrecompute: true\n", "again", 2, 0, false, NM_OK);
  nm_train_result_free(&r);
  same_files("t1/model.gguf", "again/model.gguf");
  /* One slot sums in another order: close, not equal. */
  nm_train_result one = train(MODEL "data: [{world: facts, W: 7, n: 2000, order: shuffled}]\n"
      "batch: 32\nslots: 1\noptimizer: {decay: 0.1}\nsteps: 12\n"
      "schedule: {kind: cosine, lr: 0.003, warmup: 10}\n", "one", 1, 0, false, NM_OK);
  nm_train_result four = train(text, "four", 1, 0, false, NM_OK);
  assert_true(one.loss - four.loss < 1e-3 && four.loss - one.loss < 1e-3);
  nm_train_result_free(&one);
  nm_train_result_free(&four);
}

static void goes_on(void **state) {
  (void)state;
  const char *text = FACTS "steps: 20\ncheckpoint: {every: 6}\n";
  nm_train_result r = train(text, "whole", 2, 0, false, NM_OK);
  nm_train_result_free(&r);
  r = train(text, "parts", 1, 9, false, NM_EINTR);
  assert_int_equal(r.step, 9);
  nm_train_result_free(&r);
  r = train(text, "parts", 3, 0, true, NM_OK);
  nm_train_result_free(&r);
  same_files("whole/model.gguf", "parts/model.gguf");
  /* Every step has one line, in order. */
  size_t n;
  int step = 0;
  char *s = read_all(at("parts/metrics.jsonl"), &n), *p = s;
  for (; p < s + n; step++) {
    assert_int_equal(atoi(p + strlen("{\"step\":")), step + 1);
    p = memchr(p, '\n', (size_t)(s + n - p));
    assert_non_null(p);
    p++;
  }
  assert_int_equal(step, 20);
  free(s);
  /* Another recipe does not go on; a folder that is used is not overwritten. */
  r = train(FACTS "steps: 21\ncheckpoint: {every: 6}\n", "parts", 1, 0, true, NM_EUSAGE);
  nm_train_result_free(&r);
  r = train(text, "parts", 1, 0, false, NM_EUSAGE);
  nm_train_result_free(&r);
}

/* Adapters and groups; what is not trained keeps its bits. */
static void parts_of_a_file(void **state) {
  (void)state;
  char text[600], base[256];
  nm_err err;
  nm_train_result r = train(FACTS "steps: 5\n", "base", 1, 0, false, NM_OK);
  nm_train_result_free(&r);
  snprintf(base, sizeof base, "%s", at("base/model.gguf"));
  snprintf(text, sizeof text, "base: %s\nlora: {rank: 2, targets: [attn_q, ffn_down]}\n"
           "data: [{world: facts, n: 200}]\nsteps: 5\nlength: 32\n", base);
  r = train(text, "lora", 1, 0, false, NM_OK);
  nm_train_result_free(&r);
  struct nm__gguf *a, *b;
  if (nm__gguf_open(at("lora/adapter.gguf"), &a, &err)) fail_msg("%s", err.text);
  assert_int_equal(a->n_tensors, 8);
  assert_non_null(nm__gguf_tensor(a, "blk.1.ffn_down.weight.lora_b"));
  nm__gguf_close(a);
  snprintf(text, sizeof text, "base: %s\ntrain: [\"blk.1.*\"]\noptimizer:\n"
           "  - {match: \"*norm*\", kind: sgd}\n  - {kind: muon}\n"
           "data: [{world: facts, n: 200}]\nsteps: 5\nlength: 32\npack: true\n", base);
  r = train(text, "muon", 1, 0, false, NM_OK);
  nm_train_result_free(&r);
  if (nm__gguf_open(base, &a, &err) || nm__gguf_open(at("muon/model.gguf"), &b, &err))
    fail_msg("%s", err.text);
  for (size_t i = 0; i < a->n_tensors; i++) {
    const struct nm__gguf_tensor *x = &a->tensors[i], *y = nm__gguf_tensor(b, x->name);
    assert_non_null(y);
    assert_int_equal(!memcmp(x->data, y->data, x->bytes), strncmp(x->name, "blk.1.", 6) != 0);
  }
  nm__gguf_close(a);
  nm__gguf_close(b);
}

/* A loss that is no number stops the run, and says where. */
static void no_number(void **state) {
  (void)state;
  char recipe[256], folder[256];
  nm_err err = {0};
  nm_train_result r;
  write_text("r.yaml", MODEL "data: [{world: facts}]\nsteps: 50\nclip: 0\n"
             "optimizer: {kind: sgd}\nschedule: {kind: constant, lr: 1000000}\n");
  snprintf(recipe, sizeof recipe, "%s", at("r.yaml"));
  snprintf(folder, sizeof folder, "%s", at("nan"));
  assert_int_equal(nm_train(recipe, &(nm_train_opts){.out = folder, .threads = 1}, &r, &err),
                   NM_EFAIL);
  if (strncmp(err.text, "step ", 5) || !strstr(err.text, "schedule.lr")) fail_msg("%s", err.text);
  assert_true(r.step > 0 && r.step < 50);
  nm_train_result_free(&r);
}

/* Products in bf16: any threads give the same bits, others than f32, and much the same loss. */
static void bf16(void **state) {
  (void)state;
  nm_train_result f32 = train(FACTS "steps: 12\n", "as_f32", 1, 0, false, NM_OK);
  const char *text = FACTS "steps: 12\nprecision: bf16\n";
  nm_train_result one = train(text, "bf1", 1, 0, false, NM_OK);
  nm_train_result two = train(text, "bf2", 2, 0, false, NM_OK);
  same_files("bf1/model.gguf", "bf2/model.gguf");
  assert_true(one.loss != f32.loss && fabs(one.loss - f32.loss) < 0.01);
  nm_train_result again =
      train(FACTS "steps: 12\nprecision: bf16\nrecompute: true\n", "bf3", 2, 0, false, NM_OK);
  same_files("bf1/model.gguf", "bf3/model.gguf");
  nm_train_result_free(&f32);
  nm_train_result_free(&one);
  nm_train_result_free(&two);
  nm_train_result_free(&again);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(mistakes),      cmocka_unit_test(damaged_recipes),
      cmocka_unit_test(weights_of_rows), cmocka_unit_test(bad_rows),
      cmocka_unit_test(permutations),  cmocka_unit_test(stream_is_a_function),
      cmocka_unit_test(learns),        cmocka_unit_test(bf16), cmocka_unit_test(same_bits),
      cmocka_unit_test(goes_on),       cmocka_unit_test(parts_of_a_file),
      cmocka_unit_test(no_number)};
  return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
