/* hf_test.c - tokenizer.json: every component against ids that the library itself
 * (tokenizers 0.23.2) gave for tests/data/hf_cases.json; refusals; damage; directories;
 * published tokenizers against their twins in GGUF. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "text/hf_keys.h"
#include "tok_run.h"

static const char cases_path[] = "tests/data/hf_cases.json";

/* ---- a tokenizer from its text ------------------------------------------- */

static int open_text(const char *s, size_t n, struct nm__tok **t, nm_err *err) {
  struct nm__gguf *g;
  assert_int_equal(nm__gguf_new("tiny", "test", &g, err), 0);
  int rc = nm__gguf_add_string(g, "tokenizer.huggingface.json", s, n, err);
  if (!rc) rc = nm__tok_open(g, t, NULL, err);
  nm__gguf_close(g);
  return rc;
}

static char *text_of(const json_t *all, const json_t *c) {
  static const char *const parts[] = {"normalizer", "pre_tokenizer", "post_processor", "decoder",
                                      "added_tokens"};
  json_t *o = json_object();
  json_object_set(o, "model", json_object_get(json_object_get(all, "models"),
                                              json_string_value(json_object_get(c, "model"))));
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    if (json_object_get(c, parts[i])) json_object_set(o, parts[i], json_object_get(c, parts[i]));
  char *s = json_dumps(o, JSON_COMPACT);
  json_decref(o);
  return s;
}

static bool same_ids(const struct nm__ids *v, const json_t *want) {
  if (v->n != json_array_size(want)) return false;
  for (size_t i = 0; i < v->n; i++)
    if (v->id[i] != json_integer_value(json_array_get(want, i))) return false;
  return true;
}

/* One text: 1 when ids (and text, if recorded) are the library's. */
static bool one(const struct nm__tok *t, const json_t *text, const json_t *want,
                const json_t *decoded, bool framed) {
  struct nm__ids v = {0};
  struct nm__buf b;
  nm_err err = {0};
  struct nm__tok_opts o = {.no_bos = !framed, .parse_special = true};
  int rc = nm__tok_encode(t, json_string_value(text), json_string_length(text), o, &v, &err);
  if (json_is_null(want)) {        /* the library refuses this text */
    nm__ids_done(&v);
    return rc != 0 && err.text[0];
  }
  if (rc) print_message("%s\n", err.text);
  bool same = !rc && same_ids(&v, want);
  nm__buf_init(&b, 1 << 20);
  nm__buf_puts(&b, "");
  if (same && decoded) {
    assert_int_equal(nm__tok_decode(t, v.id, v.n, true, &b, &err), 0);
    same = b.len == json_string_length(decoded) &&
           memcmp(b.s, json_string_value(decoded), b.len) == 0;
  }
  nm__buf_done(&b);
  nm__ids_done(&v);
  return same;
}

static void test_library(void **state) {
  (void)state;
  json_error_t e;
  json_t *all = json_load_file(cases_path, JSON_ALLOW_NUL, &e), *c, *text;
  if (!all) fail_msg("%s: %s", cases_path, e.text);
  size_t i, k;
  int n = 0;
  json_array_foreach(json_object_get(all, "cases"), i, c) {
    char *s = text_of(all, c);
    const char *name = json_string_value(json_object_get(c, "name"));
    struct nm__tok *t;
    nm_err err = {0};
    if (open_text(s, strlen(s), &t, &err)) fail_msg("%s: %s", name, err.text);
    const json_t *framed = json_object_get(c, "framed"), *back = json_object_get(c, "text");
    json_array_foreach(json_object_get(all, "texts"), k, text) {
      const json_t *decoded = back ? json_array_get(back, k) : NULL;
      if (!one(t, text, json_array_get(json_object_get(c, "ids"), k), decoded, false))
        fail_msg("%s: '%s'", name, json_string_value(text));
      if (framed && !one(t, text, json_array_get(framed, k), NULL, true))
        fail_msg("%s: '%s' with what stands around it", name, json_string_value(text));
      n++;
    }
    nm__tok_free(t);
    free(s);
  }
  print_message("%d texts of %zu tokenizers\n", n, json_array_size(json_object_get(all, "cases")));
  assert_true(n > 3000);
  json_decref(all);
}

/* ---- rules that the library does not have -------------------------------- */

#define LEVEL "\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"u\",\"vocab\":{\"u\":0,\"a\":1," \
              "\"<s>\":2}}"
#define SPLIT "\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"}"

static struct nm__tok *tok(const char *text) {
  struct nm__tok *t;
  nm_err err = {0};
  if (open_text(text, strlen(text), &t, &err)) fail_msg("%s", err.text);
  return t;
}

static void test_special(void **state) {
  (void)state;
  struct nm__tok *t = tok("{\"added_tokens\":[{\"id\":2,\"content\":\"<s>\",\"special\":true},"
                          "{\"id\":3,\"content\":\"<w>\",\"special\":false}]," SPLIT "," LEVEL "}");
  expect(t, "a <s> a", SPECIAL, "1 2 1");
  expect(t, "a <s> a", PLAIN, "1 0 1");        /* nobody writes a control token by its name */
  expect(t, "a<w>a", PLAIN, "1 3 1");
  expect_text(t, (int32_t[]){1, 2, 3}, 3, true, "a <s> <w>");
  expect_text(t, (int32_t[]){1, 2, 3}, 3, false, "a <w>");
  nm__tok_free(t);
}

/* A merge may go through a special token, but plain text does not end in one. */
static void test_special_merge(void **state) {
  (void)state;
  struct nm__tok *t = tok("{\"added_tokens\":[{\"id\":3,\"content\":\"ab\",\"special\":true}],"
                          "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,"
                          "\"abc\":4},\"merges\":[\"a b\",[\"ab\",\"c\"]]}}");
  expect(t, "abc", PLAIN, "4");
  expect(t, "ab", PLAIN, "0 1");
  expect(t, "ab", SPECIAL, "3");
  nm__tok_free(t);
}

static void test_bad_bytes(void **state) {
  (void)state;
  struct nm__tok *t = tok("{" SPLIT "," LEVEL "}");
  expect(t, "a \xFF\xC3 a", PLAIN, "1 0 1");
  nm__tok_free(t);
  struct nm__buf b;
  nm__buf_init(&b, 1 << 20);
  nm__buf_puts(&b, "{\"decoder\":{\"type\":\"ByteFallback\"},\"model\":{\"type\":\"BPE\",\"merges\":[],"
                   "\"byte_fallback\":true,\"vocab\":{\"a\":256");
  for (int i = 0; i < 256; i++) nm__buf_printf(&b, ",\"<0x%02X>\":%d", (unsigned)i & 255u, i);
  nm__buf_puts(&b, "}}}");
  t = tok(b.s);
  nm__buf_done(&b);
  expect(t, "a\xFF\xC3" "a\xE6\x97\xA5\xF3\xB0\x80\x80", PLAIN, "256 255 195 256 230 151 165 243 176 128 128");
  assert_true(round_trip(t, "\x80" "a\xF0\x9F\x98 \xC3\xA9", 8, PLAIN));
  random_bytes(t, 7);
  nm__tok_free(t);
}

/* ---- refusals ------------------------------------------------------------ */

static void test_refusals(void **state) {
  (void)state;
  static const struct { const char *text, *part; } bad[] = {
    {"[1]", "tokenizer.json must be an object"},
    {"{\"model\"", "is no JSON"},
    {"{}", "model must be an object"},
    {"{\"model\":{\"type\":\"Foo\"}}", "model.type 'Foo' is not supported"},
    {"{\"strange\":1," LEVEL "}", "strange is not known"},
    {"{\"version\":\"2.0\"," LEVEL "}", "version must be"},
    {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Whitespace\"},"
     "{\"type\":\"Foo\"}]}," LEVEL "}", "pre_tokenizer.pretokenizers[1].type 'Foo' is not supported"},
    {"{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}," LEVEL "}", "'UnicodeScripts'"},
    {"{\"decoder\":{\"type\":\"CTC\"}," LEVEL "}", "decoder.type 'CTC'"},
    {"{\"normalizer\":{\"type\":\"NFC\",\"x\":1}," LEVEL "}", "normalizer.x is not known"},
    {"{\"normalizer\":{\"type\":\"Strip\",\"strip_left\":1}," LEVEL "}", "must be true or false"},
    {"{\"normalizer\":{\"type\":\"Prepend\"}," LEVEL "}", "normalizer.prepend is missing"},
    {"{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"*\"}," LEVEL "}",
     "must be base64"},
    {"{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[a&&b]\"},\"content\":\"\"},"
     LEVEL "}", "intersection"},
    {"{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"\"}," LEVEL
     "}", "does not compile"},
    {"{\"pre_tokenizer\":{\"type\":\"FixedLength\",\"length\":0}," LEVEL "}", "must not be 0"},
    {"{\"post_processor\":{\"type\":\"Foo\"}," LEVEL "}", "post_processor.type 'Foo'"},
    {"{\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",1],\"sep\":[\"b\",9]},"
     LEVEL "}", "less than 3"},
    {"{\"added_tokens\":[{\"id\":1,\"content\":7}]," LEVEL "}", "added_tokens[0].content"},
    {"{\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"u\",\"vocab\":{\"u\":99999999}}}",
     "out of range"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}",
     "model.merges[0] needs the token 'b'"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", "must be two tokens"},
    {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "vocab[0] must be a piece"},
    {"{\"model\":{\"type\":\"Unigram\",\"unk_id\":5,\"vocab\":[[\"a\",0]]}}", "model.unk_id is 5"},
    {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "vocabulary is empty"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct nm__tok *t;
    nm_err err = {0};
    int rc = open_text(bad[i].text, strlen(bad[i].text), &t, &err);
    if (rc != NM_EFORMAT || !strstr(err.text, bad[i].part))
      fail_msg("%s: %d '%s', not '%s'", bad[i].text, rc, err.text, bad[i].part);
  }
}

/* A pattern that tries itself to death ends in a sentence, soon. */
static void test_slow_pattern(void **state) {
  (void)state;
  struct nm__tok *t = tok("{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":"
                          "\"(a+)+(?!.)\\\\d\"},\"behavior\":\"Isolated\",\"invert\":false}," LEVEL
                          "}");
  char s[20001];
  memset(s, 'a', 20000);
  s[20000] = 0;
  struct nm__ids v = {0};
  nm_err err = {0};
  double from = nm__now();
  assert_int_equal(nm__tok_encode(t, s, 20000, PLAIN, &v, &err), NM_EFAIL);
  assert_non_null(strstr(err.text, "takes too long"));
  assert_true(nm__now() - from < 5);
  assert_int_equal(v.n, 0);
  nm__ids_done(&v);
  nm__tok_free(t);
}

/* ---- damage -------------------------------------------------------------- */

/* Changes one value of the tree into another of it, or takes it out. */
static void change(struct nm__rng *r, json_t *v, const json_t *other) {
  for (int depth = 0; depth < 12; depth++) {
    size_t n = json_is_object(v) ? json_object_size(v) : json_array_size(v);
    if (n == 0) return;
    size_t at = nm__rng_below(r, n);
    json_t *kid;
    void *it = json_is_object(v) ? json_object_iter(v) : NULL;
    for (size_t i = 0; it && i < at; i++) it = json_object_iter_next(v, it);
    kid = it ? json_object_iter_value(it) : json_array_get(v, at);
    bool down = (json_is_object(kid) || json_is_array(kid)) && nm__rng_below(r, 4);
    if (down) {
      v = kid;
      continue;
    }
    json_t *put = NULL;
    switch (nm__rng_below(r, 6)) {
      case 0: break;
      case 1: put = json_integer((json_int_t)nm__rng_below(r, 400) - 20); break;
      case 2: put = json_string(nm__rng_below(r, 2) ? "" : "Sequence"); break;
      case 3: put = json_boolean(nm__rng_below(r, 2)); break;
      case 4: put = json_null(); break;
      default: put = json_deep_copy(other);
    }
    if (it && put) json_object_iter_set_new(v, it, put);
    else if (it) json_object_del(v, json_object_iter_key(it));
    else if (put) json_array_set_new(v, at, put);
    else json_array_remove(v, at);
    return;
  }
}

static void use_text(const char *s, size_t n) {
  static const char text[] = "hello the  a-b 12 \xE6\x97\xA5 e\xCC\x81 <0x41>\xFF .";
  struct nm__tok *t = NULL;
  struct nm__ids v = {0};
  struct nm__buf b;
  nm_err err = {0};
  if (open_text(s, n, &t, &err)) {
    assert_true(err.text[0] && (err.status == NM_EFORMAT || err.status == NM_EMEMORY));
    return;
  }
  nm__buf_init(&b, 1 << 24);
  if (!nm__tok_encode(t, text, sizeof text - 1, (struct nm__tok_opts){.parse_special = true}, &v,
                      &err))
    nm__tok_decode(t, v.id, v.n, true, &b, &err);
  nm__buf_done(&b);
  nm__ids_done(&v);
  nm__tok_free(t);
}

static void test_damage(void **state) {
  (void)state;
  json_error_t e;
  json_t *all = json_load_file(cases_path, JSON_ALLOW_NUL, &e);
  assert_non_null(all);
  const json_t *cases = json_object_get(all, "cases");
  struct nm__rng r = {20, 26, 0};
  for (int i = 0; i < 10000; i++) {
    const json_t *c = json_array_get(cases, nm__rng_below(&r, json_array_size(cases)));
    const json_t *o = json_array_get(cases, nm__rng_below(&r, json_array_size(cases)));
    char *s = text_of(all, c);
    if (i % 2) {
      json_t *tree = json_loads(s, JSON_ALLOW_NUL, &e);
      for (uint64_t k = 1 + nm__rng_below(&r, 3); k--;)
        change(&r, tree, json_object_get(o, nm__rng_below(&r, 2) ? "pre_tokenizer" : "normalizer"));
      free(s);
      s = json_dumps(tree, JSON_COMPACT);
      use_text(s, strlen(s));
      json_decref(tree);
    } else {
      size_t n;
      char *d = damaged(&r, s, strlen(s), &n);
      use_text(d, n);
      free(d);
    }
    free(s);
  }
  json_decref(all);
}

/* ---- directories --------------------------------------------------------- */

static char dir[] = "/tmp/noema-hf-XXXXXX";

static void put_file(const char *name, const char *text) {
  char *path = nm__path_join(dir, name);
  assert_int_equal(nm__write_file(path, text, strlen(text), NULL), 0);
  free(path);
}

static void remove_file(const char *name) {
  char *path = nm__path_join(dir, name);
  unlink(path);
  free(path);
}

static struct nm__tok *open_dir(struct nm__gguf **g) {
  struct nm__tok *t = NULL;
  nm_err err = {0};
  if (nm__hf_tokenizer_open(dir, g, &err) || nm__tok_open(*g, &t, NULL, &err))
    fail_msg("%s", err.text);
  return t;
}

static void expect_key(const struct nm__gguf *g, const char *key, const char *want) {
  struct nm__str s;
  assert_int_equal(nm__gguf_string(g, key, &s, NULL), 0);
  assert_int_equal(s.n, strlen(want));
  assert_memory_equal(s.s, want, s.n);
}

static void test_directory(void **state) {
  (void)state;
  struct nm__gguf *g;
  nm_err err = {0};
  assert_non_null(mkdtemp(dir));
  assert_true(nm__hf_tokenizer_path(dir) && !nm__hf_tokenizer_path("x.gguf"));
  assert_int_equal(nm__hf_tokenizer_open(dir, &g, &err), 0);   /* nothing there: no keys */
  assert_int_equal(g->n_kv, 0);
  nm__gguf_close(g);
  put_file("vocab.txt", "[UNK]\n[CLS]\n[SEP]\nhel\n##lo\nthe\n");
  struct nm__tok *t = open_dir(&g);
  expect(t, "Hello THE x[SEP]", PLAIN, "3 4 5 0 0 0 0");
  expect(t, "x[SEP]", SPECIAL, "0 2");
  expect(t, "h\xC3\xA9llo", (struct nm__tok_opts){0}, "1 3 4 2");
  nm__tok_free(t);
  nm__gguf_close(g);
  put_file("vocab.json", "{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3,\"</s>\":4}");
  assert_int_equal(nm__hf_tokenizer_open(dir, &g, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "merges.txt"));
  put_file("merges.txt", "#version: 0.2\na b\n");
  put_file("tokenizer_config.json",
           "{\"bos_token\":{\"content\":\"</s>\"},\"eos_token\":\"</s>\",\"add_bos_token\":true,"
           "\"chat_template\":[{\"name\":\"default\",\"template\":\"T\"},"
           "{\"name\":\"tool\",\"template\":\"U\"}],\"added_tokens_decoder\":"
           "{\"5\":{\"content\":\"<x>\",\"special\":true},\"4\":{\"content\":\"</s>\","
           "\"special\":true}}}");
  put_file("generation_config.json", "{\"eos_token_id\":[4,5]}");
  t = open_dir(&g);
  expect(t, "ab a<x>", (struct nm__tok_opts){.parse_special = true}, "4 2 3 0 5");
  assert_true(nm__tok_bos(t) == 4 && nm__tok_eos(t) == 4 && nm__tok_eot(t) == 5);
  expect_key(g, "tokenizer.chat_template", "T");
  expect_key(g, "tokenizer.chat_template.tool", "U");
  nm__tok_free(t);
  nm__gguf_close(g);
  remove_file("generation_config.json");       /* its ids would not fit what comes now */
  put_file("chat_template.jinja", "J");
  put_file("tokenizer.json", "{" SPLIT "," LEVEL "}");
  t = open_dir(&g);
  expect(t, "a b", PLAIN, "1 0");
  expect_key(g, "tokenizer.chat_template", "J");
  nm__tok_free(t);
  nm__gguf_close(g);
  static const char *const names[] = {"vocab.txt", "vocab.json", "merges.txt", "tokenizer.json",
                                      "tokenizer_config.json", "generation_config.json",
                                      "chat_template.jinja"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) remove_file(names[i]);
  rmdir(dir);
}

/* ---- published tokenizers ------------------------------------------------ */

static bool link_file(const char *name, const char *to) {
  char *path = nm__path_join(dir, name), *from = realpath(to, NULL);
  bool ok = from && symlink(from, path) == 0;
  free(from);
  free(path);
  return ok;
}

/* Texts on which the two give other ids. */
static int differences(const struct nm__tok *a, const struct nm__tok *b, const char *path,
                       const char *part, int *n) {
  struct nm__map m;
  nm_err err = {0};
  int bad = 0;
  if (nm__map_open(path, &m, &err)) fail_msg("%s", err.text);
  const char *s = (const char *)m.data, *end = s + m.size;
  while (s) {
    const char *cut = part ? memmem(s, (size_t)(end - s), part, strlen(part)) : NULL;
    size_t len = (size_t)((cut ? cut : end) - s);
    struct nm__ids x = {0}, y = {0};
    if (nm__tok_encode(a, s, len, PLAIN, &x, &err) || nm__tok_encode(b, s, len, PLAIN, &y, &err))
      fail_msg("%s", err.text);
    bool same = x.n == y.n && (x.n == 0 || memcmp(x.id, y.id, x.n * sizeof *x.id) == 0);
    if (!same) print_message("  other ids: '%.*s'\n", (int)(len < 60 ? len : 60), s);
    bad += !same;
    ++*n;
    nm__ids_done(&x);
    nm__ids_done(&y);
    s = cut ? cut + strlen(part) : NULL;
  }
  nm__map_close(&m);
  return bad;
}

static int on_everything(const struct nm__tok *a, const struct nm__tok *b, const char *what) {
  static const char part[] = "\n__ggml_vocab_test__\n";
  static const char *const corpora[] = {"tinyshakespeare.txt", "wagahaiwa.txt",
                                        "wikitext2-test.txt"};
  int n = 0;
  int bad = differences(a, b, SHARED "tokenizers/ggml-vocab-gpt-2.gguf.inp", part, &n);
  bad += differences(a, b, SHARED "tokenizers/extra-a.inp", part, &n);
  double from = nm__now();
  for (size_t i = 0; i < 3; i++) {
    char path[128];
    snprintf(path, sizeof path, SHARED "corpora/%s", corpora[i]);
    bad += differences(a, b, path, NULL, &n);
  }
  print_message("%s: %d of %d texts, corpora in %.1f s\n", what, n - bad, n, nm__now() - from);
  return bad;
}

/* The same in GGUF's words. */
static int on_ggml(const struct nm__gguf *g, const struct nm__tok *t, const char *what) {
  struct nm__gguf *made;
  struct nm__tok *twin;
  nm_err err = {0}, warn = {0};
  assert_int_equal(nm__gguf_new("twin", "test", &made, &err), 0);
  if (nm__hf_tokenizer_to_ggml(g, made, &warn, &err)) fail_msg("%s: %s", what, err.text);
  if (warn.status) fail_msg("%s: %s", what, warn.text);
  if (nm__tok_open(made, &twin, NULL, &err)) fail_msg("%s: %s", what, err.text);
  char name[64];
  snprintf(name, sizeof name, "%s and its GGUF", what);
  assert_int_equal(nm__tok_size(twin), nm__tok_size(t));
  int bad = on_everything(t, twin, name);
  nm__tok_free(twin);
  nm__gguf_close(made);
  return bad;
}

/* A unigram model as T5 has it, made here: with a character map that changes nothing. */
static void test_unigram_twin(void **state) {
  (void)state;
  static const char text[] =
    "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAAAA==\"},"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},"
    "{\"type\":\"Metaspace\",\"replacement\":\"" SP "\",\"prepend_scheme\":\"always\"}]},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}},"
    "{\"SpecialToken\":{\"id\":\"e\"}}],\"special_tokens\":{\"e\":{\"ids\":[1]}}},"
    "\"added_tokens\":[{\"id\":1,\"content\":\"</s>\",\"special\":true},{\"id\":2,"
    "\"content\":\"<unk>\",\"special\":true},{\"id\":9,\"content\":\"<x>\",\"special\":false}],"
    "\"model\":{\"type\":\"Unigram\",\"unk_id\":2,\"vocab\":[[\"<pad>\",0],[\"</s>\",0],"
    "[\"<unk>\",0],[\"" SP "\",-2],[\"a\",-3.25],[\"" SP "a\",-4.5],[\"b\",-4],[\"ab\",-5],"
    "[\"" SP "ab\",-7]]}}";
  static const char *const texts[] = {"ab", " a  b ab", "xy a", "<x>ab <unk> </s>", "", "aab\xE6\x97\xA5"};
  struct nm__gguf *g, *made;
  struct nm__tok *t = tok(text), *twin;
  nm_err err = {0}, warn = {0};
  assert_int_equal(nm__gguf_new("t5", "test", &g, &err), 0);
  assert_int_equal(nm__gguf_new("twin", "test", &made, &err), 0);
  assert_int_equal(nm__gguf_add_string(g, "tokenizer.huggingface.json", text, strlen(text), &err), 0);
  if (nm__hf_tokenizer_to_ggml(g, made, &warn, &err) || warn.status)
    fail_msg("%s%s", err.text, warn.text);
  if (nm__tok_open(made, &twin, NULL, &err)) fail_msg("%s", err.text);
  assert_string_equal(nm__tok_family(twin), "t5");
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    for (int k = 0; k < 4; k++) {
      struct nm__ids x = {0}, y = {0};
      struct nm__tok_opts o = {k & 1, k & 2};
      assert_int_equal(nm__tok_encode(t, texts[i], strlen(texts[i]), o, &x, &err), 0);
      assert_int_equal(nm__tok_encode(twin, texts[i], strlen(texts[i]), o, &y, &err), 0);
      if (x.n != y.n || (x.n && memcmp(x.id, y.id, x.n * sizeof *x.id)))
        fail_msg("'%s' (%d)", texts[i], k);
      nm__ids_done(&x);
      nm__ids_done(&y);
    }
  nm__tok_free(t);
  nm__tok_free(twin);
  nm__gguf_close(g);
  nm__gguf_close(made);
}

/* What has no words in GGUF: no key, and a warning that says why. */
static void test_no_words(void **state) {
  (void)state;
  static const char text[] = "{" SPLIT "," LEVEL "}";
  struct nm__gguf *g, *made;
  nm_err err = {0}, warn = {0};
  assert_int_equal(nm__gguf_new("level", "test", &g, &err), 0);
  assert_int_equal(nm__gguf_new("twin", "test", &made, &err), 0);
  assert_int_equal(nm__gguf_add_string(g, "tokenizer.huggingface.json", text, strlen(text), &err), 0);
  assert_int_equal(nm__hf_tokenizer_to_ggml(g, made, &warn, &err), 0);
  assert_non_null(strstr(warn.text, "WordLevel"));
  assert_int_equal(made->n_kv, 0);
  nm__gguf_close(g);
  nm__gguf_close(made);
}

struct published { const char *json, *vocab, *merges, *config, *twin; int bad, bad_ggml; };

/* The differences are what the forms cannot both say. NFC: Qwen2 and GPT-NeoX normalise,
 * GGUF does not. BERT: the original takes characters apart and marks off; under GGUF each
 * character becomes the first of its parts, and marks that stand alone stay. */
static void test_published(void **state) {
  (void)state;
  static const struct published all[] = {
    {"llama2-tokenizer.json", NULL, NULL, NULL, "ggml-vocab-llama-spm.gguf", 0, 0},
    {"gptneox-tokenizer.json", NULL, NULL, NULL, NULL, 0, 1},
    {"bert-uncased-tokenizer.json", NULL, NULL, NULL, NULL, 0, 5},
    {NULL, "gpt2-vocab.json", "gpt2-merges.txt", NULL, "ggml-vocab-gpt-2.gguf", 0, 0},
    {NULL, "qwen2-vocab.json", "qwen2-merges.txt", "{\"tokenizer_class\":\"Qwen2Tokenizer\"}",
     "ggml-vocab-qwen2.gguf", 1, 1},
  };
  if (!nm__exists(SHARED "tokenizers/hf")) {
    print_message("skipped: %s is not here\n", SHARED "tokenizers/hf");
    return;
  }
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    const struct published *p = &all[i];
    const char *const from[] = {p->json, p->vocab, p->merges};
    static const char *const as[] = {"tokenizer.json", "vocab.json", "merges.txt"};
    char path[160];
    strcpy(dir + sizeof dir - 7, "XXXXXX");
    assert_non_null(mkdtemp(dir));
    for (int k = 0; k < 3; k++) {
      snprintf(path, sizeof path, SHARED "tokenizers/hf/%s", from[k] ? from[k] : "");
      if (from[k] && !link_file(as[k], path)) fail_msg("%s", path);
    }
    if (p->config) put_file("tokenizer_config.json", p->config);
    struct nm__gguf *g;
    struct nm__tok *t = open_dir(&g), *twin = NULL;
    const char *name = p->json ? p->json : p->vocab;
    snprintf(path, sizeof path, SHARED "tokenizers/%s", p->twin ? p->twin : "");
    if (p->twin && (twin = open_published(path)))
      assert_int_equal(on_everything(t, twin, name), p->bad);
    assert_int_equal(on_ggml(g, t, name), p->bad_ggml);
    nm__tok_free(twin);
    nm__tok_free(t);
    nm__gguf_close(g);
    for (int k = 0; k < 3; k++) remove_file(as[k]);
    remove_file("tokenizer_config.json");
    rmdir(dir);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_library),      cmocka_unit_test(test_special),
    cmocka_unit_test(test_special_merge), cmocka_unit_test(test_bad_bytes),
    cmocka_unit_test(test_refusals),     cmocka_unit_test(test_slow_pattern),
    cmocka_unit_test(test_directory),    cmocka_unit_test(test_published),
    cmocka_unit_test(test_damage),       cmocka_unit_test(test_unigram_twin),
    cmocka_unit_test(test_no_words),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
