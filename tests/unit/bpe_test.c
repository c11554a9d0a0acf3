/* bpe_test.c - byte-level BPE by merge rank: each rule on a small vocabulary, much text. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tok_run.h"
#include "text/unicode.h"

/* The byte table of BPE, a second time and differently: by counting. */
static int alphabet(int byte, char out[4]) {
  int others = 0;
  for (int b = 0; b <= byte; b++) others += b < 33 || (b > 126 && b < 161) || b == 173;
  bool itself = !(byte < 33 || (byte > 126 && byte < 161) || byte == 173);
  return nm__utf8_encode(itself ? (uint32_t)byte : 255u + (uint32_t)others, out);
}

#define G "\xC4\xA0"               /* a space in the alphabet of BPE */
static const char *const bpe_more[] = {"he", "ll", "hell", "lo", "hello", G "w", "<|end|>", "<u>",
                                       "xyz"};
static const char *const bpe_merges[] = {"l o", "h e", "l l", "he ll", "hell o", G " w", "q r",
                                         "qr s"};
enum { HE = 256, LL, HELL, LO, HELLO, GW, END, USER, XYZ, N_BPE };

/* `without`: a byte that gets no token of its own, or -1. */
static void put_bpe(struct file *f, const char *pre, int without) {
  char c[4];
  put_string(f, "model", "gpt2");
  if (pre) put_string(f, "pre", pre);
  put_array(f, "tokens", NM__GGUF_STRING, N_BPE);
  for (int b = 0; b < 256; b++) {
    if (b == without) put_text(f, "<none>", 6);
    else put_text(f, c, (size_t)alphabet(b, c));
  }
  for (int i = 256; i < N_BPE; i++) put_text(f, bpe_more[i - 256], strlen(bpe_more[i - 256]));
  put_array(f, "token_type", NM__GGUF_I32, N_BPE);
  for (int i = 0; i < N_BPE; i++) put_u32(f, i == END ? 3 : i == USER ? 4 : 1);
  size_t n = sizeof bpe_merges / sizeof *bpe_merges;
  put_array(f, "merges", NM__GGUF_STRING, n);
  for (size_t i = 0; i < n; i++) put_text(f, bpe_merges[i], strlen(bpe_merges[i]));
}

static struct nm__tok *bpe_tok(const char *pre, int without, nm_err *warn) {
  struct file f;
  struct nm__tok *t;
  nm_err err = {0};
  file_new(&f);
  put_bpe(&f, pre, without);
  put_id(&f, "bos_token_id", END);
  if (file_open(&f, &t, warn, &err)) fail_msg("%s", err.text);
  return t;
}

/* ---- rules ----------------------------------------------------------------- */

static void test_bpe(void **state) {
  (void)state;
  nm_err warn;
  struct nm__tok *t = bpe_tok("gpt-2", -1, &warn);
  assert_int_equal(warn.status, 0);
  assert_string_equal(nm__tok_pre(t), "gpt-2");
  assert_int_equal(nm__tok_size(t), N_BPE);
  expect(t, "hello", (struct nm__tok_opts){0}, "256 108 259");    /* "l o" has the least rank */
  expect(t, "hell w", PLAIN, "258 261");
  expect(t, "xyz", PLAIN, "120 121 122");          /* a token no merge leads to */
  expect(t, "qrs", PLAIN, "113 114 115");          /* merges that lead to no token */
  expect(t, "<|end|>", PLAIN, "60 124 101 110 100 124 62");
  expect(t, "h<|end|><u>", SPECIAL, "104 262 263");
  expect(t, "<u>", PLAIN, "263");
  expect(t, "\xFF\xC3", PLAIN, "255 195");
  expect_text(t, (int32_t[]){END, HELLO, USER, GW}, 4, false, "hello<u> w");
  expect_text(t, (int32_t[]){END, HELLO}, 2, true, "<|end|>hello");
  nm__tok_free(t);
}

static void test_bpe_whole_first(void **state) {
  (void)state;
  struct nm__tok *t = bpe_tok("llama-bpe", -1, NULL);
  expect(t, "hello xyz", PLAIN, "260 32 120 121 122");
  expect(t, "xyz", (struct nm__tok_opts){0}, "262 264");
  assert_true(nm__tok_adds_bos(t));
  nm__tok_free(t);
}

static void test_bpe_unknown_pre(void **state) {
  (void)state;
  nm_err warn;
  struct nm__tok *t = bpe_tok("made-up", -1, &warn);
  assert_non_null(strstr(warn.text, "'made-up'"));
  expect(t, "1234", PLAIN, "49 50 51 52");
  nm__tok_free(t);
  t = bpe_tok(NULL, -1, &warn);
  assert_int_equal(warn.status, NM_EFORMAT);
  assert_string_equal(nm__tok_pre(t), "");
  nm__tok_free(t);
}

static void test_bpe_missing_byte(void **state) {
  (void)state;
  struct nm__tok *t = bpe_tok("gpt-2", 0xFF, NULL);
  expect(t, "a\xFF", PLAIN, "97 239 191 189");     /* no text: U+FFFD */
  nm__tok_free(t);
  t = bpe_tok("gpt-2", 'a', NULL);
  struct nm__ids v = {0};
  nm_err err;
  nm__ids_push(&v, 7);
  assert_int_equal(nm__tok_encode(t, "cab", 3, PLAIN, &v, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "byte 61"));
  assert_int_equal(v.n, 1);                        /* what was there stays */
  nm__ids_done(&v);
  nm__tok_free(t);
}

static void test_hostile_merges(void **state) {
  (void)state;
  static const char *const bad[] = {"", " ", "ab", "a ", " b", "a\tb"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct file f;
    file_new(&f);
    put_string(&f, "model", "gpt2");
    put_string(&f, "pre", "gpt-2");
    put_array(&f, "tokens", NM__GGUF_STRING, 1);
    put_text(&f, "a", 1);
    put_array(&f, "merges", NM__GGUF_STRING, 2);
    put_text(&f, "a a", 3);
    put_text(&f, bad[i], strlen(bad[i]));
    refuse(&f, "merges[1]");
  }
}

static void test_bpe_much(void **state) {
  (void)state;
  static const char *const pre[] = {"gpt-2", "llama-bpe", "qwen2", "starcoder", "falcon", "default",
                                    "deepseek-llm", "deepseek-coder", "deepseek-v3", "tekken",
                                    "gpt-4o", "bloom", "viking"};
  for (size_t i = 0; i < sizeof pre / sizeof *pre; i++) {
    struct nm__tok *t = bpe_tok(pre[i], -1, NULL);
    long_texts(t, i < 3 ? 1000000 : 200000);
    random_bytes(t, i + 2);
    nm__tok_free(t);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_bpe), cmocka_unit_test(test_bpe_whole_first),
    cmocka_unit_test(test_bpe_unknown_pre), cmocka_unit_test(test_bpe_missing_byte),
    cmocka_unit_test(test_hostile_merges), cmocka_unit_test(test_bpe_much),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
