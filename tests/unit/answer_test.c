/* answer_test.c - the text of an answer while it grows: its pieces together are the decoded answer,
 * for every kind of vocabulary at hand; what is shown never ends inside a character nor in the
 * beginning of a stop string, and nothing is held back that need not be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model_run.h"
#include "text/answer.h"
#include "text/unicode.h"

/* Random tokens, then random pieces of a text in several scripts as the tokenizer cuts it. */
static void grow(const char *path, uint64_t seed) {
  static const char text[] = "Once upon a time, the café's \xF0\x9F\xA6\x8A said: \xE4\xBD\xA0\xE5\xA5\xBD! "
                             " don't \n\n do not  wait\xFF\xC3 \xD0\xBC\xD0\xB8\xD1\x80 ?";
  nm_model *m;
  nm_err err = {0};
  if (nm_tokenizer_open(path, &m, &err)) fail_msg("%s", err.text);
  int32_t ids[400], *of_text;
  size_t n = 0, k, prompt = (size_t)(nm__rand_at(seed, 0, 0) % 12);
  for (; n < 60; n++)
    ids[n] = (int32_t)(nm__rand_at(seed, 1, n) % (uint64_t)nm__tok_size(m->tok));
  assert_int_equal(nm_tokenize(m, text, sizeof text - 1, 0, &of_text, &k, NULL), 0);
  for (size_t i = 0; i < k && n < 400; i++) ids[n++] = of_text[i];
  nm_free(of_text);
  if (seed % 2) memmove(ids, ids + 60, (n -= 60) * sizeof *ids);
  struct nm__answer a;
  struct nm__buf got;
  char *all, *before;
  size_t n_all, n_before;
  nm__buf_init(&got, 1 << 20);
  assert_int_equal(nm__answer_begin(&a, m->tok, ids, prompt, &err), 0);
  for (size_t i = prompt; i < n; i++) {
    assert_int_equal(nm__answer_token(&a, ids[i], &got, &err), 0);
    assert_true(a.window.n <= 64 || !a.before.len);
  }
  assert_int_equal(nm_detokenize(m, ids, n, &all, &n_all, NULL), 0);
  assert_int_equal(nm_detokenize(m, ids, prompt, &before, &n_before, NULL), 0);
  if (n_all - n_before != got.len || (got.len && memcmp(all + n_before, got.s, got.len)))
    fail_msg("%s, seed %d: '%s' in pieces, '%s' as a whole", path, (int)seed, got.s, all + n_before);
  nm_free(all);
  nm_free(before);
  nm__buf_done(&got);
  nm__answer_done(&a);
  nm_model_close(m);
}

static void growing(void **state) {
  (void)state;
  static const char *const shared[] = {
      "tokenizers/ggml-vocab-llama-spm.gguf", "tokenizers/ggml-vocab-llama-bpe.gguf",
      "tokenizers/ggml-vocab-gpt-2.gguf", "tokenizers/ggml-vocab-qwen2.gguf",
      "tokenizers/ggml-vocab-deepseek-llm.gguf", "tokenizers/ggml-vocab-bert-bge.gguf",
      "tokenizers/llama2.tokenizer.model", "models/stories260K/stories260K.f32.gguf"};
  for (uint64_t seed = 0; seed < 50; seed++) grow(PLANTED, seed);
  if (no_shared()) return;
  for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) {
    char path[200];
    snprintf(path, sizeof path, SHARED "%s", shared[i]);
    for (uint64_t seed = 0; seed < 8; seed++) grow(path, seed);
  }
}

static void hf_growing(void **state) {
  (void)state;
  if (no_shared()) skip();
  static const char *const files[] = {"bert-uncased", "gptneox", "llama2"};
  int n = 0;
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    char path[200];
    snprintf(path, sizeof path, SHARED "tokenizers/hf/%s-tokenizer.json", files[i]);
    if (!nm__exists(path)) continue;
    for (uint64_t seed = 0; seed < 6; seed++) grow(path, seed);
    n++;
  }
  assert_int_equal(n, 3);
}

/* Every way to cut a text with characters of one to four bytes and stop strings. */
static void showable(void **state) {
  (void)state;
  static const char text[] = "a\xC3\xA9\xE4\xBD\xA0 STO\xF0\x9F\xA6\x8ASTOP and User: \xE2\x9C";
  const char *stop[] = {"STOP", "User:", "\xE2\x9C\x93"};
  size_t shown = 0, all = sizeof text - 1;
  for (size_t n = 0; n <= all; n++) {
    size_t k = nm__showable(text, n, stop, 3);
    assert_true(k >= shown && k <= n && n - k <= 7);
    assert_int_equal(nm__utf8_valid(text, k), k);
    for (int s = 0; s < 3; s++)          /* what may become a stop string is held back */
      for (size_t b = 1; b < strlen(stop[s]) && b <= n; b++)
        assert_true(k <= n - b || memcmp(text + n - b, stop[s], b));
    shown = k;
  }
  assert_int_equal(nm__showable("ab", 2, stop, 0), 2);
  assert_int_equal(nm__showable("a\xC3", 2, NULL, 0), 1);
  assert_int_equal(nm__showable("a\xF0\x9F\xA6", 4, NULL, 0), 1);
  assert_int_equal(nm__showable("a\xFF", 2, NULL, 0), 2);            /* no character ever */
  assert_int_equal(nm__showable("a\xA9\xA9", 3, NULL, 0), 3);
  assert_int_equal(nm__showable("", 0, stop, 3), 0);
  assert_int_equal(nm__find_stop(text, all, 0, stop, 3), strstr(text, "STOP") - text);
  assert_int_equal(nm__find_stop("xUser: STOP", 11, 3, stop, 3), 1);
  assert_int_equal(nm__find_stop("xUser: STOP", 11, 6, stop, 3), 7);
  assert_int_equal(nm__find_stop("nothing", 7, 0, stop, 3), 7);
}

static void ends(void **state) {
  (void)state;
  if (no_shared()) skip();
  static const struct { const char *file, *name; } cases[] = {
      {"llama-bpe", "<|eot_id|>"}, {"llama-bpe", "<|end_of_text|>"}, {"qwen2", "<|im_end|>"},
      {"qwen2", "<|endoftext|>"}, {"llama-spm", "</s>"}, {"gpt-2", "<|endoftext|>"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char path[200];
    nm_model *m;
    int32_t *ids;
    size_t n;
    snprintf(path, sizeof path, SHARED "tokenizers/ggml-vocab-%s.gguf", cases[i].file);
    assert_int_equal(nm_tokenizer_open(path, &m, NULL), 0);
    const char *s = cases[i].name;
    assert_int_equal(nm_tokenize(m, s, strlen(s), NM_NO_BOS | NM_PARSE_SPECIAL, &ids, &n, NULL), 0);
    assert_int_equal(n, 1);
    if (!nm_is_end(m, ids[0])) fail_msg("%s: %s ends nothing", cases[i].file, s);
    int count = 0;
    for (int32_t v = 0; v < nm__tok_size(m->tok); v++) count += nm_is_end(m, v);
    assert_true(count >= 1 && count <= 4);
    assert_false(nm_is_end(m, -1) || nm_is_end(m, 1 << 30));
    nm_free(ids);
    nm_model_close(m);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(growing), cmocka_unit_test(hf_growing),
                                     cmocka_unit_test(showable), cmocka_unit_test(ends)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
