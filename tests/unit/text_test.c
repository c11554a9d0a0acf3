/* text_test.c - tokenizers: small vocabularies of our own that show each rule alone and
 * each refusal, then the published vocabularies against recorded ids where they are. */
#define _GNU_SOURCE
#include "text/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "text/pretok.h"
#include "text/unicode.h"

#define SHARED "../shared/data/"

/* ---- a GGUF by hand -------------------------------------------------- */

struct file { struct nm__buf b; uint64_t n_kv; };

static void put(struct file *f, const void *p, size_t n) { nm__buf_put(&f->b, p, n); }
static void put_u32(struct file *f, uint32_t v) { put(f, &v, 4); }
static void put_u64(struct file *f, uint64_t v) { put(f, &v, 8); }
static void put_text(struct file *f, const char *s, size_t n) {
  put_u64(f, n);
  put(f, s, n);
}
static void file_new(struct file *f) {
  nm__buf_init(&f->b, 1 << 24);
  f->n_kv = 0;
  put(f, "GGUF\3\0\0\0", 8);
  put_u64(f, 0);
  put_u64(f, 0);                   /* the number of keys, known at the end */
}
static void put_key(struct file *f, const char *key, uint32_t type) {
  char full[96];
  snprintf(full, sizeof full, "tokenizer.ggml.%s", key);
  put_text(f, full, strlen(full));
  put_u32(f, type);
  f->n_kv++;
}
static void put_string(struct file *f, const char *key, const char *v) {
  put_key(f, key, NM__GGUF_STRING);
  put_text(f, v, strlen(v));
}
static void put_id(struct file *f, const char *key, uint32_t v) {
  put_key(f, key, NM__GGUF_U32);
  put_u32(f, v);
}
static void put_flag(struct file *f, const char *key, bool v) {
  put_key(f, key, NM__GGUF_BOOL);
  put(f, &v, 1);
}
static void put_array(struct file *f, const char *key, uint32_t elem, uint64_t n) {
  put_key(f, key, NM__GGUF_ARRAY);
  put_u32(f, elem);
  put_u64(f, n);
}

/* Opens what was built; the file is released either way. */
static int file_open(struct file *f, struct nm__tok **t, nm_err *warn, nm_err *err) {
  struct nm__gguf *g;
  memcpy(f->b.s + 16, &f->n_kv, 8);
  int rc = nm__gguf_parse("tiny", f->b.s, f->b.len, &g, err);
  if (rc) fail_msg("%s", err->text);
  rc = nm__tok_open(g, t, warn, err);
  nm__gguf_close(g);
  nm__buf_done(&f->b);
  return rc;
}

/* ---- vocabularies ---------------------------------------------------- */

struct tok { const char *s; float score; int32_t type; };

/* With bytes, the 256 byte tokens come after the given ones. */
static void put_vocab(struct file *f, const struct tok *v, int n, bool bytes) {
  int all = n + (bytes ? 256 : 0);
  char hex[8];
  put_array(f, "tokens", NM__GGUF_STRING, (uint64_t)all);
  for (int i = 0; i < n; i++) put_text(f, v[i].s, strlen(v[i].s));
  for (int i = n; i < all; i++) {
    snprintf(hex, sizeof hex, "<0x%02X>", (unsigned)(i - n) & 255u);
    put_text(f, hex, 6);
  }
  put_array(f, "scores", NM__GGUF_F32, (uint64_t)all);
  for (int i = 0; i < all; i++) put(f, i < n ? &v[i].score : &(float){0}, 4);
  put_array(f, "token_type", NM__GGUF_I32, (uint64_t)all);
  for (int i = 0; i < all; i++) put(f, i < n ? &v[i].type : &(int32_t){6}, 4);
}

#define SP "\xE2\x96\x81"
static const struct tok spm_vocab[] = {
  {"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}, {"a", -9, 1}, {"b", -9, 1}, {"c", -9, 1},
  {SP, -9, 1}, {"ab", -1, 1}, {"bc", -2, 1}, {SP "a", -3, 1}, {"abc", -4, 1}, {"aa", -5, 1},
  {"<u>", 0, 4}, {"<u><u>", 0, 4}, {"", 0, 1}, {"ab", 0, 1},
};
enum { N_SPM = sizeof spm_vocab / sizeof *spm_vocab };

static struct nm__tok *spm_tok(bool bytes) {
  struct file f;
  struct nm__tok *t;
  nm_err err = {0};
  file_new(&f);
  put_string(&f, "model", "llama");
  put_vocab(&f, spm_vocab, N_SPM, bytes);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  return t;
}

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

/* ---- helpers --------------------------------------------------------- */

static const struct nm__tok_opts PLAIN = {.no_bos = true};
static const struct nm__tok_opts SPECIAL = {.no_bos = true, .parse_special = true};

static void expect(const struct nm__tok *t, const char *text, struct nm__tok_opts o,
                   const char *ids) {
  struct nm__ids v = {0};
  struct nm__buf b;
  nm_err err = {0};
  nm__buf_init(&b, 1 << 20);
  nm__buf_puts(&b, "");
  if (nm__tok_encode(t, text, strlen(text), o, &v, &err)) fail_msg("%s", err.text);
  for (size_t i = 0; i < v.n; i++) nm__buf_printf(&b, i ? " %d" : "%d", v.id[i]);
  assert_string_equal(b.s, ids);
  nm__buf_done(&b);
  nm__ids_done(&v);
}

static bool round_trip(const struct nm__tok *t, const char *s, size_t n, struct nm__tok_opts o) {
  struct nm__ids v = {0};
  struct nm__buf b;
  nm_err err = {0};
  nm__buf_init(&b, 1 << 26);
  if (nm__tok_encode(t, s, n, o, &v, &err)) fail_msg("%s", err.text);
  if (nm__tok_decode(t, v.id, v.n, o.parse_special, &b, &err)) fail_msg("%s", err.text);
  bool same = b.len == n && (n == 0 || memcmp(b.s, s, n) == 0);
  nm__buf_done(&b);
  nm__ids_done(&v);
  return same;
}

static void expect_text(const struct nm__tok *t, const int32_t *id, size_t n, bool special,
                        const char *text) {
  struct nm__buf b;
  nm_err err = {0};
  nm__buf_init(&b, 1 << 20);
  nm__buf_puts(&b, "");
  if (nm__tok_decode(t, id, n, special, &b, &err)) fail_msg("%s", err.text);
  assert_string_equal(b.s, text);
  nm__buf_done(&b);
}

static void refuse(struct file *f, const char *part) {
  struct nm__tok *t;
  nm_err err = {0};
  assert_int_equal(file_open(f, &t, NULL, &err), NM_EFORMAT);
  assert_null(t);
  if (!strstr(err.text, part)) fail_msg("\"%s\" does not say \"%s\"", err.text, part);
}

/* ---- UTF-8 ----------------------------------------------------------- */

static void test_utf8(void **state) {
  (void)state;
  char s[4];
  uint32_t cp = 0;
  for (uint32_t c = 0; c < 0x110010; c++) {
    int len = nm__utf8_encode(c, s);
    bool scalar = c < 0x110000 && (c < 0xD800 || c > 0xDFFF);
    assert_int_equal(len > 0, scalar);
    if (!scalar) continue;
    assert_int_equal(nm__utf8_decode(s, (size_t)len, &cp), len);
    assert_int_equal(cp, c);
    assert_int_equal(nm__utf8_decode(s, (size_t)len - 1, &cp), 0);
  }
  static const char *const bad[] = {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80",
                                    "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
                                    "\xE2\x28\xA1", "\xFF"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(nm__utf8_decode(bad[i], strlen(bad[i]), &cp), 0);
  assert_int_equal(nm__utf8_valid("a\xC3\xA4\xC3", 4), 3);
}

/* ---- SPM ------------------------------------------------------------- */

static void test_spm(void **state) {
  (void)state;
  struct nm__tok *t = spm_tok(true);
  assert_string_equal(nm__tok_family(t), "llama");
  assert_int_equal(nm__tok_bos(t), 1);
  assert_true(nm__tok_adds_bos(t));
  expect(t, "", (struct nm__tok_opts){0}, "1");
  expect(t, "a", (struct nm__tok_opts){0}, "1 9");
  expect(t, "abc", PLAIN, "6 10");                 /* ab first, then abc; no piece has SP ab */
  expect(t, "aaa", PLAIN, "9 11");                 /* SP a has the higher score */
  expect(t, "b aab", PLAIN, "6 4 9 7");
  expect(t, "\n\xC3\xA4", PLAIN, "6 26 211 180");
  expect(t, "<s>", PLAIN, "6 76 131 78");          /* control tokens are plain text ... */
  expect(t, "a<s>a", SPECIAL, "9 1 9");            /* ... unless asked for */
  expect(t, "<u>a<u><u><u>", PLAIN, "12 9 13 12"); /* user-defined ones always, longest first */
  expect_text(t, (int32_t[]){1, 9, 2, 9}, 4, false, "a a");
  expect_text(t, (int32_t[]){1, 9, 2, 9}, 4, true, "<s>a</s>a");
  static const char *const texts[] = {"", " ", "  a", "a b  c ", "a<s> b</s>", "<u> a<u>\xFF\n",
                                      "\t"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    assert_true(round_trip(t, texts[i], strlen(texts[i]), PLAIN));
    assert_true(round_trip(t, texts[i], strlen(texts[i]), SPECIAL));
  }
  struct nm__str s = nm__tok_piece(t, 9);
  assert_true(s.n == 4 && memcmp(s.s, SP "a", 4) == 0);
  assert_int_equal(nm__tok_piece(t, 9999).n, 0);
  struct nm__buf b;
  nm_err err;
  nm__buf_init(&b, 100);
  assert_int_equal(nm__tok_decode(t, &(int32_t){9999}, 1, true, &b, &err), NM_EFORMAT);
  assert_int_equal(nm__tok_decode(t, &(int32_t){-1}, 1, true, &b, &err), NM_EFORMAT);
  nm__buf_done(&b);
  nm__tok_free(t);
}

static void test_spm_without_bytes(void **state) {
  (void)state;
  struct nm__tok *t = spm_tok(false);
  expect(t, "a\xC3\xA4\xE2\x82\xAC" "b", PLAIN, "9 0 4");        /* one a run */
  expect_text(t, (int32_t[]){9, 0, 9}, 3, false, "a<unk> a");
  nm__tok_free(t);
}

static void test_spm_flags(void **state) {
  (void)state;
  struct file f;
  struct nm__tok *t;
  nm_err err = {0};
  file_new(&f);
  put_string(&f, "model", "llama");
  put_vocab(&f, spm_vocab, N_SPM, true);
  put_flag(&f, "add_space_prefix", false);
  put_flag(&f, "add_bos_token", false);
  put_flag(&f, "add_eos_token", true);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  expect(t, "a", (struct nm__tok_opts){0}, "3 2");
  expect(t, " a", PLAIN, "9");
  assert_true(round_trip(t, " a", 2, PLAIN));
  assert_false(nm__tok_adds_bos(t));
  nm__tok_free(t);
}

/* A piece across words makes the run one whole. */
static void test_spm_across_words(void **state) {
  (void)state;
  static const struct tok v[] = {{"<unk>", 0, 2}, {"a", -5, 1}, {SP, -5, 1}, {SP "a", -2, 1},
                                 {"a" SP "a", -3, 1}, {"a" SP, -1, 1}};
  struct file f;
  struct nm__tok *t;
  nm_err err = {0};
  file_new(&f);
  put_string(&f, "model", "llama");
  put_vocab(&f, v, 6, false);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  expect(t, "a a", PLAIN, "2 4");
  nm__tok_free(t);
}

/* ---- BPE ------------------------------------------------------------- */

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

/* ---- special tokens -------------------------------------------------- */

static void test_specials(void **state) {
  (void)state;
  static const struct tok v[] = {
    {"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}, {"aab", 0, 4}, {"bcccc", 0, 4}, {"a", 0, 4},
    {"aa", 0, 4}, {"bc", 0, 4}, {"aab", 0, 4},
  };
  struct file f;
  struct nm__tok *t;
  nm_err err = {0};
  file_new(&f);
  put_string(&f, "model", "llama");
  put_vocab(&f, v, 9, true);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  expect(t, "aabcccc", PLAIN, "6 4");              /* the longest wins over the left one */
  expect(t, "aaab", PLAIN, "5 3");
  expect(t, "aaaaa", PLAIN, "6 6 5");
  expect(t, "aabc", PLAIN, "3 235 159 138 108"); /* what remains is text, with its prefix */
  nm__tok_free(t);
}

/* ---- pre-tokenizers -------------------------------------------------- */

static int note(void *arg, const char *s, size_t n, nm_err *err) {
  (void)err;
  struct nm__buf *b = arg;
  nm__buf_putc(b, '[');
  nm__buf_put(b, s, n);
  nm__buf_putc(b, ']');
  return NM_OK;
}

static void expect_split(const char *pre, const char *text, const char *pieces) {
  struct nm__pretok *p;
  struct nm__buf b;
  nm_err err = {0};
  nm__buf_init(&b, 1 << 16);
  if (nm__pretok_new(pre, strlen(pre), &p, &err)) fail_msg("%s", err.text);
  if (nm__pretok_split(p, text, strlen(text), note, &b, &err)) fail_msg("%s", err.text);
  assert_true(nm__pretok_known(p));
  assert_string_equal(b.s, pieces);
  nm__buf_done(&b);
  nm__pretok_free(p);
}

static void test_pretok(void **state) {
  (void)state;
  expect_split("gpt-2", "I'll  go 123\n\n x", "[I]['ll][ ][ go][ 123][\n\n][ x]");
  expect_split("jina-v2-es", "WE'LL", "[WE]['][LL]");
  expect_split("llama-bpe", "WE'LL 12345!\n\n\tx", "[WE]['LL][ ][123][45][!\n\n][\tx]");
  expect_split("qwen2", "a12  b", "[a][1][2][ ][ b]");
  expect_split("starcoder", "a 12", "[a][ ][1][2]");
  expect_split("falcon", "a`b 12345", "[a][`][b][ ][123][45]");
  expect_split("default", "a`b=12345", "[a][`][b][=][123][45]");
  expect_split("deepseek-coder", "if x12:\n", "[if][ x][1][2][:][\n]");
  expect_split("deepseek-llm", "a \xE4\xB8\x80 12  ", "[a][ ][\xE4\xB8\x80][ ][12][  ]");
  expect_split("deepseek-v3", "a.b 1234", "[a][.b][ ][123][4]");
  expect_split("tekken", "HelloWorld 12", "[Hello][World][ ][1][2]");
  expect_split("gpt-4o", "It's 1234", "[It's][ ][123][4]");
  expect_split("bloom", "a b, c", "[a][ b][,][ c]");
  expect_split("viking", "a12", "[a][1][2]");
  /* Invalid bytes part the text, and U+180E is no space. */
  expect_split("gpt-2", "a\xC3 \xFF\xFE", "[a][\xC3][ ][\xFF][\xFE]");
  expect_split("gpt-2", "a\xE1\xA0\x8E" "b", "[a][\xE1\xA0\x8E][b]");
}

/* ---- hostile vocabularies -------------------------------------------- */

static void spm_start(struct file *f) {
  file_new(f);
  put_string(f, "model", "llama");
}

static void test_hostile_keys(void **state) {
  (void)state;
  struct file f;
  file_new(&f);
  refuse(&f, "tokenizer.ggml.model");
  file_new(&f);
  put_string(&f, "model", "bert\n");
  refuse(&f, "'bert?' is not supported");
  spm_start(&f);
  refuse(&f, "tokens");
  spm_start(&f);
  put_array(&f, "tokens", NM__GGUF_I32, 1);
  put_u32(&f, 1);
  refuse(&f, "array of strings");
  spm_start(&f);
  put_array(&f, "tokens", NM__GGUF_STRING, 0);
  refuse(&f, "tokens");
  spm_start(&f);
  put_array(&f, "tokens", NM__GGUF_STRING, 1);
  put_text(&f, "a", 1);
  refuse(&f, "scores is missing");
  file_new(&f);
  put_string(&f, "model", "gpt2");
  put_array(&f, "tokens", NM__GGUF_STRING, 1);
  put_text(&f, "a", 1);
  refuse(&f, "merges");
}

static void test_hostile_arrays(void **state) {
  (void)state;
  static const char *const keys[] = {"scores", "token_type"};
  for (int k = 0; k < 2; k++)
    for (int way = 0; way < 3; way++) {
      struct file f;
      spm_start(&f);
      put_array(&f, "tokens", NM__GGUF_STRING, 2);
      put_text(&f, "a", 1);
      put_text(&f, "b", 1);
      if (way == 0) {                              /* too short */
        put_array(&f, keys[k], k ? NM__GGUF_I32 : NM__GGUF_F32, 1);
        put_u32(&f, 1);
      } else if (way == 1) {                       /* no array */
        put_id(&f, keys[k], 1);
      } else {                                     /* not numbers */
        put_array(&f, keys[k], NM__GGUF_STRING, 2);
        put_text(&f, "a", 1);
        put_text(&f, "b", 1);
      }
      refuse(&f, keys[k]);
    }
}

static void test_hostile_ids(void **state) {
  (void)state;
  static const char *const keys[] = {"bos_token_id", "eos_token_id", "unknown_token_id"};
  for (int k = 0; k < 3; k++) {
    struct file f;
    spm_start(&f);
    put_vocab(&f, spm_vocab, N_SPM, false);
    put_id(&f, keys[k], N_SPM);
    refuse(&f, keys[k]);
    spm_start(&f);
    put_vocab(&f, spm_vocab, N_SPM, false);
    put_string(&f, keys[k], "1");
    refuse(&f, keys[k]);
    spm_start(&f);
    put_vocab(&f, spm_vocab, N_SPM, false);
    put_id(&f, keys[k], UINT32_MAX);               /* how some files say "none" */
    struct nm__tok *t;
    nm_err err = {0};
    assert_int_equal(file_open(&f, &t, NULL, &err), NM_OK);
    nm__tok_free(t);
  }
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

/* Scores that are no numbers, pieces that are no text: anything but a crash. */
static void test_hostile_pieces(void **state) {
  (void)state;
  struct tok v[] = {{"<unk>", __builtin_nanf(""), 2}, {"a", __builtin_nanf(""), 1},
                    {"\xFF\xFE", __builtin_inff(), 1}, {"aa", -__builtin_inff(), 9},
                    {"<0xZZ>", 0, 6}, {"aaa", __builtin_nanf(""), -1}, {"", 0, 4}};
  struct file f;
  struct nm__tok *t;
  nm_err err = {0};
  spm_start(&f);
  put_vocab(&f, v, 7, false);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  struct nm__ids ids = {0};
  assert_int_equal(nm__tok_encode(t, "aaaa\xFF\xFE aaa", 10, PLAIN, &ids, &err), NM_OK);
  nm__ids_done(&ids);
  nm__tok_free(t);
}

/* ---- much text ------------------------------------------------------- */

static void long_texts(const struct nm__tok *t, size_t size) {
  static const char *const unit[] = {"a", " ", "hello", "\n", "aab", "\xFF", "<u>", "1", "'", " a",
                                     "\xE2\x80\x83"};
  char *s = nm__alloc(size + 8, 1);
  assert_non_null(s);
  double start = nm__now();
  for (size_t k = 0; k < sizeof unit / sizeof *unit; k++) {
    size_t len = strlen(unit[k]), n = 0;
    for (; n + len < size; n += len) memcpy(s + n, unit[k], len);
    s[n++] = 'x';
    assert_true(round_trip(t, s, n, PLAIN));
  }
  free(s);
  assert_true(nm__now() - start < 60);             /* quadratic work would take hours */
}

static void random_bytes(const struct nm__tok *t, uint64_t seed) {
  static const char palette[] = "hello <u>wx  \n'\xC3\xA4\xE2\x82\xAC\xF0\x9F\x99\x82\xFF\0z0l";
  struct nm__rng r = {.seed = seed};
  char s[80];
  for (int round = 0; round < 3000; round++) {
    size_t n = (size_t)nm__rng_below(&r, sizeof s);
    for (size_t i = 0; i < n; i++)
      s[i] = round & 1 ? (char)nm__rng_below(&r, 256)
                       : palette[nm__rng_below(&r, sizeof palette - 1)];
    if (memmem(s, n, SP, 3) && strcmp(nm__tok_family(t), "llama") == 0) continue;
    assert_true(round_trip(t, s, n, PLAIN));
    assert_true(round_trip(t, s, n, SPECIAL));
  }
}

static void test_much(void **state) {
  (void)state;
  static const char *const pre[] = {"gpt-2", "llama-bpe", "qwen2", "starcoder", "falcon", "default",
                                    "deepseek-llm", "deepseek-coder", "deepseek-v3", "tekken",
                                    "gpt-4o", "bloom", "viking"};
  struct nm__tok *t = spm_tok(true);
  long_texts(t, 1000000);
  random_bytes(t, 1);
  nm__tok_free(t);
  for (size_t i = 0; i < sizeof pre / sizeof *pre; i++) {
    t = bpe_tok(pre[i], -1, NULL);
    long_texts(t, i < 3 ? 1000000 : 200000);
    random_bytes(t, i + 2);
    nm__tok_free(t);
  }
}

/* ---- SHA-256 --------------------------------------------------------- */

/* The constants are the first 32 fractional bits of the cube roots of the first 64
 * primes and of the square roots of the first 8: computed exactly in integers. */
static uint32_t root_bits(uint64_t prime, bool cube) {
  uint64_t lo = 0, hi = 1ull << 36;
  while (hi - lo > 1) {            /* the largest r with (r / 2^32) ^ 2 or 3 at most prime */
    uint64_t r = lo + (hi - lo) / 2;
    unsigned __int128 square = (unsigned __int128)r * r;
    bool fits = cube ? square * r < (unsigned __int128)prime << 96
                     : square < (unsigned __int128)prime << 64;
    if (fits) lo = r;
    else hi = r;
  }
  return (uint32_t)lo;
}

static uint32_t turn(uint32_t x, int k) { return x >> k | x << (32 - k); }

static void sha_block(uint32_t h[8], const uint32_t k[64], const uint8_t *p) {
  uint32_t w[64], v[8];
  for (int i = 0; i < 16; i++)
    w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 |
           p[4 * i + 3];
  for (int i = 16; i < 64; i++) {
    uint32_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + w[i - 7] +
           (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
  }
  memcpy(v, h, sizeof v);
  for (int i = 0; i < 64; i++) {
    uint32_t t1 = v[7] + (turn(v[4], 6) ^ turn(v[4], 11) ^ turn(v[4], 25)) +
                  ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
    uint32_t t2 = (turn(v[0], 2) ^ turn(v[0], 13) ^ turn(v[0], 22)) +
                  ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
    memmove(v + 1, v, 7 * sizeof *v);
    v[4] += t1;
    v[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) h[i] += v[i];
}

static void sha256(const void *data, size_t n, char hex[65]) {
  uint32_t k[64], h[8];
  int n_primes = 0;
  for (uint64_t p = 2; n_primes < 64; p++) {
    bool prime = true;
    for (uint64_t d = 2; d * d <= p; d++) prime = prime && p % d;
    if (!prime) continue;
    if (n_primes < 8) h[n_primes] = root_bits(p, false);
    k[n_primes++] = root_bits(p, true);
  }
  const uint8_t *p = data;
  size_t left = n;
  for (; left >= 64; p += 64, left -= 64) sha_block(h, k, p);
  uint8_t last[128] = {0};
  if (left) memcpy(last, p, left);
  last[left] = 0x80;
  size_t end = left < 56 ? 64 : 128;
  for (int i = 0; i < 8; i++) last[end - 1 - (size_t)i] = (uint8_t)((uint64_t)n * 8 >> 8 * i);
  for (size_t i = 0; i < end; i += 64) sha_block(h, k, last + i);
  for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", h[i]);
}

static void test_sha(void **state) {
  (void)state;
  char hex[65];
  sha256("abc", 3, hex);
  assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

/* ---- published vocabularies ------------------------------------------ */

static const char *const names[] = {"gpt-2", "llama-bpe", "qwen2", "llama-spm", "deepseek-llm"};
enum { N_NAMES = sizeof names / sizeof *names };

/* NULL, having said so, when the file is not there. */
static struct nm__tok *open_published(const char *path) {
  struct nm__gguf *g = NULL;
  struct nm__tok *t = NULL;
  nm_err err = {0}, warn = {0};
  if (!nm__exists(path)) {
    print_message("skipped: %s is not here\n", path);
    return NULL;
  }
  if (nm__gguf_open(path, &g, &err) || nm__tok_open(g, &t, &warn, &err)) fail_msg("%s", err.text);
  nm__gguf_close(g);
  assert_int_equal(warn.status, 0);
  return t;
}

static struct nm__tok *open_named(const char *name) {
  char path[160];
  snprintf(path, sizeof path, SHARED "tokenizers/ggml-vocab-%s.gguf", name);
  return open_published(path);
}

static bool one_case(const struct nm__tok *t, const char *s, size_t n, struct nm__tok_opts o,
                     const char *line, size_t n_line) {
  struct nm__ids v = {0};
  struct nm__buf b;
  nm_err err = {0};
  nm__buf_init(&b, 1 << 20);
  if (nm__tok_encode(t, s, n, o, &v, &err)) fail_msg("%s", err.text);
  for (size_t i = 0; i < v.n; i++) nm__buf_printf(&b, i ? " %d" : "%d", v.id[i]);
  while (n_line && line[n_line - 1] == ' ') n_line--;
  while (n_line && *line == ' ') line++, n_line--;
  bool same = b.len == n_line && (n_line == 0 || memcmp(b.s, line, n_line) == 0);
  if (!same) print_message("\"%.*s\": want %.*s, got %s\n", (int)n, s, (int)n_line, line,
                           b.s ? b.s : "");
  nm__buf_done(&b);
  nm__ids_done(&v);
  return same && round_trip(t, s, n, o);
}

static void vector_file(const struct nm__tok *t, const char *inp, const char *out,
                        struct nm__tok_opts o, int want) {
  static const char part[] = "\n__ggml_vocab_test__\n";
  struct nm__map mi, mo;
  nm_err err = {0};
  if (nm__map_open(inp, &mi, &err) || nm__map_open(out, &mo, &err)) fail_msg("%s", err.text);
  const char *s = (const char *)mi.data, *end = s + mi.size;
  const char *line = (const char *)mo.data, *line_end = line + mo.size;
  int n = 0, good = 0;
  while (s && s <= end && line < line_end) {
    const char *cut = memmem(s, (size_t)(end - s), part, sizeof part - 1);
    const char *nl = memchr(line, '\n', (size_t)(line_end - line));
    if (!nl) nl = line_end;
    size_t len = (size_t)((cut ? cut : end) - s);
    good += one_case(t, s, len, o, line, (size_t)(nl - line));
    n++;
    s = cut ? cut + sizeof part - 1 : NULL;
    line = nl + 1;
  }
  print_message("%s: %d of %d\n", out, good, n);
  assert_int_equal(n, want);
  assert_int_equal(good, n);
  nm__map_close(&mi);
  nm__map_close(&mo);
}

static void test_vectors(void **state) {
  (void)state;
  for (int i = 0; i < N_NAMES; i++) {
    struct nm__tok *t = open_named(names[i]);
    if (!t) continue;
    char inp[160], out[160];
    snprintf(inp, sizeof inp, SHARED "tokenizers/ggml-vocab-%s.gguf.inp", names[i]);
    snprintf(out, sizeof out, SHARED "tokenizers/ggml-vocab-%s.gguf.out", names[i]);
    vector_file(t, inp, out, PLAIN, 46);
    snprintf(out, sizeof out, SHARED "tokenizers/extra-a.%s.out", names[i]);
    vector_file(t, SHARED "tokenizers/extra-a.inp", out, PLAIN, 61);
    snprintf(out, sizeof out, SHARED "tokenizers/extra-a.%s.special.out", names[i]);
    vector_file(t, SHARED "tokenizers/extra-a.inp", out, SPECIAL, 61);
    nm__tok_free(t);
  }
}

static void one_corpus(const struct nm__tok *t, const char *file, const json_t *want) {
  char path[160], hex[65];
  struct nm__map m;
  struct nm__ids v = {0};
  nm_err err = {0};
  snprintf(path, sizeof path, SHARED "corpora/%s", file);
  if (nm__map_open(path, &m, &err)) fail_msg("%s", err.text);
  if (nm__tok_encode(t, (const char *)m.data, m.size, PLAIN, &v, &err)) fail_msg("%s", err.text);
  assert_int_equal(v.n, json_integer_value(json_object_get(want, "tokens")));
  sha256(v.id, v.n * sizeof *v.id, hex);
  assert_string_equal(hex, json_string_value(json_object_get(want, "sha256_of_int32le_ids")));
  assert_true(round_trip(t, (const char *)m.data, m.size, PLAIN));
  nm__ids_done(&v);
  nm__map_close(&m);
}

static void test_corpora(void **state) {
  (void)state;
  const char *path = SHARED "tokenizers/corpus_tokens.json";
  json_error_t e;
  if (!nm__exists(path)) {
    print_message("skipped: %s is not here\n", path);
    return;
  }
  json_t *all = json_load_file(path, 0, &e), *of_file;
  assert_non_null(all);
  for (int i = 0; i < N_NAMES; i++) {
    struct nm__tok *t = open_named(names[i]);
    const char *file;
    int n = 0;
    if (!t) continue;
    json_object_foreach(all, file, of_file) {
      one_corpus(t, file, json_object_get(of_file, names[i]));
      n++;
    }
    print_message("%s: %d of %d corpora\n", names[i], n, n);
    nm__tok_free(t);
  }
  json_decref(all);
}

/* The 512-piece vocabulary of the smallest model. */
static void test_stories(void **state) {
  (void)state;
  struct nm__tok *t = open_published(SHARED "models/stories260K/stories260K.f32.gguf");
  if (!t) return;
  assert_int_equal(nm__tok_size(t), 512);
  expect(t, "Once upon a time", (struct nm__tok_opts){0}, "1 403 407 261 378");
  random_bytes(t, 99);
  nm__tok_free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_utf8), cmocka_unit_test(test_spm),
    cmocka_unit_test(test_spm_without_bytes), cmocka_unit_test(test_spm_flags),
    cmocka_unit_test(test_spm_across_words), cmocka_unit_test(test_bpe),
    cmocka_unit_test(test_bpe_whole_first), cmocka_unit_test(test_bpe_unknown_pre),
    cmocka_unit_test(test_bpe_missing_byte), cmocka_unit_test(test_specials),
    cmocka_unit_test(test_pretok), cmocka_unit_test(test_hostile_keys),
    cmocka_unit_test(test_hostile_arrays), cmocka_unit_test(test_hostile_ids),
    cmocka_unit_test(test_hostile_merges), cmocka_unit_test(test_hostile_pieces),
    cmocka_unit_test(test_much), cmocka_unit_test(test_sha), cmocka_unit_test(test_vectors),
    cmocka_unit_test(test_corpora), cmocka_unit_test(test_stories),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
