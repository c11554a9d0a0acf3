/* pretok_test.c - how pre-tokenizers split: a few splits by hand for each rule, then many texts
 * against the published patterns as a second, slow matcher reads them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "slow_regex.h"
#include "text/pretok.h"

/* ---- by hand ----------------------------------------------------------- */

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


/* ---- the names --------------------------------------------------------- */

static void expect_name(const char *name, bool known, bool checked, bool whole_first, bool bos) {
  struct nm__pretok *p;
  nm_err err = {0};
  if (nm__pretok_new(name, strlen(name), &p, &err)) fail_msg("%s", err.text);
  assert_int_equal(nm__pretok_known(p), known);
  assert_int_equal(nm__pretok_checked(p), checked);
  assert_int_equal(nm__pretok_whole_first(p), whole_first);
  assert_int_equal(nm__pretok_adds_bos(p), bos);
  nm__pretok_free(p);
}

static void test_names(void **state) {
  (void)state;
  expect_name("gpt-2", true, true, false, false);
  expect_name("llama-bpe", true, true, true, true);
  expect_name("llama3", true, false, true, true);
  expect_name("qwen2", true, true, false, false);
  expect_name("deepseek-llm", true, true, false, false);
  expect_name("jina-v5-anything", true, false, false, false);
  expect_name("tekken", true, false, true, true);
  expect_name("gpt-2 phi-2", false, false, false, false);
  expect_name("gpt", false, false, false, false);
  expect_name("", false, false, false, false);
}

/* ---- the published patterns --------------------------------------------- */

#define CONTR "'s|'t|'re|'ve|'m|'ll|'d"
#define GPT2 CONTR "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define TAIL "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3(n) "(?i:" CONTR ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" n \
                  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" TAIL
#define UP "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOW "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(end, n) "[^\\r\\n\\p{L}\\p{N}]?" UP "*" LOW "+" end "|[^\\r\\n\\p{L}\\p{N}]?" UP "+" \
                      LOW "*" end "|" n "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" TAIL
#define BLOOM " ?[^(\\s|.,!?…。，、।۔،)]+"

static const struct { const char *names, *pattern[6]; } rule[] = {
  {"gpt-2 phi-2 roberta-bpe jina-v2-de mpt olmo jais", {GPT2}},
  {"llama-bpe llama3 llama-v3 pixtral falcon3 dbrx smaug-bpe chatglm-bpe glm4",
   {LLAMA3("\\p{N}{1,3}")}},
  {"qwen2 deepseek-r1-qwen stablelm2 megrez", {LLAMA3("\\p{N}")}},
  {"starcoder refact command-r smollm codeshell exaone minerva-7b", {"\\p{N}", GPT2}},
  {"falcon", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
  {"deepseek-coder", {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-\\x{D7FF}]+",
                      "\\p{N}"}},
  {"deepseek-v3", {"\\p{N}{1,3}", "[一-龥\\x{3040}-ゟ゠-ヿ]+",
                   "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
                   "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" TAIL}},
  {"tekken", {CASED("", "\\p{N}")}},
  {"gpt-4o llama4", {CASED("(?i:" CONTR ")?", "\\p{N}{1,3}")}},
  {"bloom poro-chat gpt3-finnish", {BLOOM}},
  {"viking", {BLOOM, "\\p{N}"}},
  {"default", {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
};
enum { N_RULES = sizeof rule / sizeof *rule, MAX_CHARS = 200 };

static const char *const texts[] = {
  "Hello, World! It's 2024.", "I'll we've THEY'RE don'T he'd 'tis 'S'M", "  two  spaces   end  ",
  "tab\t\tnew\n\n  line\r\n\r\n x \n", "1234567 12,345.67 ٣٤٥ ½Ⅷ 1a2b",
  "naïve café Größe ÅNGSTRÖM", "e\xCC\x81te\xCC\x81 a\xCC\x88\xCC\x88 \xCC\x81",
  "Привет, мир! ЁЖ’s", "日本語のテキスト、カタカナ。", "한국어 텍스트 가각", "吾輩は猫である。名前はまだ無い。", "مرحبا بالعالم، كيف؟",
  "नमस्ते दुनिया। १२३", "ไทยภาษา", "👩‍👩‍👧‍👦 🙂🙂!! ©®™",
  "a\xC2\xA0" "b\xE3\x80\x80" "c\xE1\xA0\x8E" "d", "x=y+z; if (a<b) { c->d(); }",
  "$100 <tag> ^_^ ~`|| a|b", "http://a.b/c?d=e&f#g", "snake_case CamelCaseHTTPServer iPhone",
  "ǅungla Ǆ ʰaʰ ªº", "'", "''s's", " 's 'S 'ſ 'K", "\n", " ", "", "...!?…", "(a) [b] {c} \"d\"",
  "0", "000 0000 00000", " 1 22 333 4444", "\r\r\n\n\r", "a/b//c/\n//", "x\n \n y\n\n",
  "fullwidth ＡＢｃ１２３！", "“quotes” ‘single’ — dash", "Ω≈ç√∫˜µ≤≥÷",
  "\xE2\x80\x83mid\xE2\x80\x89thin", "\t x",
};

static int to_characters(const char *s, uint32_t *c, size_t *at) {
  size_t len = strlen(s), i = 0;
  int n = 0;
  for (; i < len; n++) {
    at[n] = i;
    i += (size_t)nm__utf8_decode(s + i, len - i, &c[n]);
  }
  at[n] = len;
  return n;
}

/* The split as note() writes one. */
static void slowly(const char *const *pattern, const char *s, struct nm__buf *b) {
  uint32_t c[MAX_CHARS];
  size_t at[MAX_CHARS + 1];
  bool cut[MAX_CHARS + 1];
  int n = to_characters(s, c, at);
  slow_split(pattern, c, n, cut);
  for (int from = 0, to; from < n; from = to) {
    for (to = from + 1; !cut[to]; to++) {}
    note(b, s + at[from], at[to] - at[from], NULL);
  }
}

static void compare(const struct nm__pretok *p, const char *name, int r, const char *s) {
  struct nm__buf fast, slow;
  nm_err err = {0};
  nm__buf_init(&fast, 1 << 16);
  nm__buf_init(&slow, 1 << 16);
  nm__buf_puts(&fast, "");
  nm__buf_puts(&slow, "");
  if (nm__pretok_split(p, s, strlen(s), note, &fast, &err)) fail_msg("%s", err.text);
  slowly(rule[r].pattern, s, &slow);
  if (strcmp(fast.s, slow.s)) fail_msg("%s: %s, but slowly %s", name, fast.s, slow.s);
  nm__buf_done(&fast);
  nm__buf_done(&slow);
}

static void random_text(struct nm__rng *r, char out[256]) {
  static const char *const part[] = {
    "a", "B", "the", "It", "'", "'s", "'LL", "'re", " ", "  ", "\n", "\r\n", "\t", "1", "23",
    "4567", "½", "٣", ".", ",", "!", "?", "(", ")", "$", "+", "=", "|", "`", "_", "-", "/", "\"",
    "é", "e\xCC\x81", "\xCC\x88", "Ж", "ы", "ǅ", "ʰ", "ª", "日本", "語", "の", "カ", "가", "ﷺ", "न",
    "म", "।", "،", "…", "。", "🙂", "‍", "\xC2\xA0", "\xE3\x80\x80", "ſ", "K", "ſſ", "Ａ", "１", "！",
    "“", "—", "™", "∑", "\xE1\xA0\x8E", "Ⅷ", "µ",
  };
  int n = (int)nm__rng_below(r, 14);
  size_t len = 0;
  for (int i = 0; i < n; i++) {
    const char *p = part[nm__rng_below(r, sizeof part / sizeof *part)];
    memcpy(out + len, p, strlen(p));
    len += strlen(p);
  }
  out[len] = 0;
}

static void test_published(void **state) {
  (void)state;
  struct nm__rng rng = {.seed = 5};
  for (int r = 0; r < N_RULES; r++) {
    char name[32], s[256];
    for (const char *names = rule[r].names; *names; names += *names == ' ') {
      size_t n = strcspn(names, " ");
      struct nm__pretok *p;
      nm_err err = {0};
      snprintf(name, sizeof name, "%.*s", (int)n, names);
      if (nm__pretok_new(name, n, &p, &err)) fail_msg("%s", err.text);
      assert_true(nm__pretok_known(p));
      for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) compare(p, name, r, texts[i]);
      for (int i = 0; i < (names == rule[r].names ? 3000 : 100); i++) {
        random_text(&rng, s);
        compare(p, name, r, s);
      }
      nm__pretok_free(p);
      names += n;
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_pretok), cmocka_unit_test(test_names), cmocka_unit_test(test_published),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
