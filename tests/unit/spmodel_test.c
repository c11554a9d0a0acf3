/* spmodel_test.c - SentencePiece's .model files: messages made by hand, damaged ones, real ones
 * against the GGUF of the same vocabulary, and models that spm_train makes here against the
 * ids of spm_encode (Debian's sentencepiece; skipped without). */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "tok_run.h"
#include "charsmap_made.h"
#include "text/unicode.h"

/* ---- a message by hand --------------------------------------------------- */

static void put_varint(struct nm__buf *b, uint64_t v) {
  for (; v > 127; v >>= 7) nm__buf_putc(b, (int)(v & 127) | 128);
  nm__buf_putc(b, (int)v);
}

static void put_int(struct nm__buf *b, uint32_t number, int64_t v) {
  put_varint(b, number << 3);
  put_varint(b, (uint64_t)v);
}

static void put_bytes(struct nm__buf *b, uint32_t number, const void *p, size_t n) {
  put_varint(b, number << 3 | 2);
  put_varint(b, n);
  nm__buf_put(b, p, n);
}

/* Type 1 is left out, as protobuf leaves out what is the default. */
static void put_piece(struct nm__buf *b, const char *s, float score, int type) {
  struct nm__buf m;
  nm__buf_init(&m, 1 << 16);
  put_bytes(&m, 1, s, strlen(s));
  put_varint(&m, 2 << 3 | 5);
  nm__buf_put(&m, &score, 4);
  if (type != 1) put_int(&m, 3, type);
  put_bytes(b, 1, m.s, m.len);
  nm__buf_done(&m);
}

struct setting { uint32_t number; int64_t v; };

static void put_settings(struct nm__buf *b, uint32_t number, const struct setting *v,
                         const struct nm__buf *map) {
  struct nm__buf m;
  nm__buf_init(&m, 1 << 20);
  nm__buf_puts(&m, "");
  if (map) put_bytes(&m, 2, map->s, map->len);
  for (; v->number; v++) put_int(&m, v->number, v->v);
  put_bytes(b, number, m.s, m.len);
  nm__buf_done(&m);
}

static void put_pieces(struct nm__buf *b) {
  static const struct tok v[] = {{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}, {SP, -2, 1},
                                 {"a", -3, 1}, {"b", -3.5f, 1}, {SP "a", -4, 1}, {"ab", -6, 1},
                                 {"<u>", 0, 4}};
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) put_piece(b, v[i].s, v[i].score, v[i].type);
}

/* A model of both parts of settings; each list ends with number 0. */
static void model_new(struct nm__buf *b, const struct setting *trainer,
                      const struct setting *normal) {
  static const struct mapping maps[] = {{"A", "a"}, {"\t", " "}};
  struct nm__buf map;
  nm__buf_init(b, 1 << 20);
  nm__buf_init(&map, 1 << 20);
  made_map(maps, 2, &map);
  put_pieces(b);
  put_settings(b, 2, trainer, NULL);
  put_settings(b, 3, normal, &map);
  nm__buf_done(&map);
}

static int model_open(const struct nm__buf *b, struct nm__tok **t, nm_err *err) {
  struct nm__gguf *g;
  *t = NULL;
  int rc = nm__gguf_new("made", "SentencePiece", &g, err);
  if (!rc) rc = nm__spmodel_parse("made", b->s, b->len, g, err);
  if (!rc) rc = nm__tok_open(g, t, NULL, err);
  nm__gguf_close(g);
  return rc;
}

static struct nm__tok *model_tok(const struct setting *trainer, const struct setting *normal) {
  struct nm__buf b;
  struct nm__tok *t;
  nm_err err = {0};
  model_new(&b, trainer, normal);
  if (model_open(&b, &t, &err)) fail_msg("%s", err.text);
  nm__buf_done(&b);
  return t;
}

static const struct setting none[] = {{0, 0}};

static void test_settings(void **state) {
  (void)state;
  struct nm__tok *t = model_tok(none, none);       /* all that is left out has its default */
  assert_string_equal(nm__tok_family(t), "t5");
  assert_int_equal(nm__tok_size(t), 9);
  assert_int_equal(nm__tok_bos(t), 1);
  assert_int_equal(nm__tok_eos(t), 2);
  expect(t, "  A \t b ", PLAIN, "6 3 5");
  expect(t, "x<u>", PLAIN, "3 0 8");
  nm__tok_free(t);
  t = model_tok((struct setting[]){{3, 2}, {41, -1}, {42, 1}, {99, 7}, {0, 0}},
                (struct setting[]){{3, 0}, {4, 0}, {5, 1}, {0, 0}});
  assert_string_equal(nm__tok_family(t), "llama");
  assert_int_equal(nm__tok_bos(t), -1);            /* said to be none; 1 is EOS here */
  assert_int_equal(nm__tok_eos(t), 1);
  expect(t, " ab", PLAIN, "6 5");                  /* SP a is merged before a b */
  expect(t, "b  A", PLAIN, "5 3 6");
  nm__tok_free(t);
}

static void refuse_model(struct nm__buf *b, const char *part) {
  struct nm__tok *t;
  nm_err err = {0};
  assert_int_equal(model_open(b, &t, &err), NM_EFORMAT);
  if (!strstr(err.text, part)) fail_msg("\"%s\" does not say \"%s\"", err.text, part);
  nm__buf_done(b);
}

static void test_refusals(void **state) {
  (void)state;
  struct nm__buf b;
  model_new(&b, (struct setting[]){{3, 3}, {0, 0}}, none);
  refuse_model(&b, "type 3 (word)");
  model_new(&b, (struct setting[]){{3, 4}, {0, 0}}, none);
  refuse_model(&b, "type 4 (char)");
  model_new(&b, (struct setting[]){{24, 1}, {0, 0}}, none);
  refuse_model(&b, "behind words");
  model_new(&b, none, (struct setting[]){{5, 0}, {0, 0}});
  refuse_model(&b, "no space mark");
  nm__buf_init(&b, 100);
  nm__buf_puts(&b, "");
  refuse_model(&b, "no pieces");
  nm__buf_init(&b, 100);
  put_piece(&b, "", 0, 1);
  refuse_model(&b, "empty");
  static const char *const bad[] = {
    "\x0A\x7Fz", "\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", "\x0B", "\x02\x01", "\x80",
    "\x0D\x01", "\x09\x01", "\x0A\x02\x0A\x01",
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    nm__buf_init(&b, 100);
    nm__buf_puts(&b, bad[i]);
    refuse_model(&b, "breaks off");
  }
}

static void test_mutations(void **state) {
  (void)state;
  struct nm__rng r = {.seed = 5};
  int opened = 0;
  for (int form = 0; form < 2; form++) {
    struct nm__buf b;
    model_new(&b, (struct setting[]){{3, 1 + form}, {40, 0}, {43, -1}, {0, 0}}, none);
    for (int i = 0; i < 5000; i++) {
      /* Half of the damage is done to the pieces, not to the large map. */
      size_t n, head = i & 1 ? b.len : 140;
      char *d = damaged(&r, b.s, head, &n);
      struct nm__gguf *g;
      nm_err err = {0};
      assert_int_equal(nm__gguf_new("damaged", "SentencePiece", &g, &err), NM_OK);
      if (!nm__spmodel_parse("damaged", d, n, g, &err)) {
        use(g, "A ab\t<u> </s>x\xFF");
        opened++;
      } else {
        assert_int_equal(err.status, NM_EFORMAT);
      }
      nm__gguf_close(g);
      free(d);
    }
    nm__buf_done(&b);
  }
  assert_true(opened > 500);
}

/* ---- models in files ------------------------------------------------------- */

static void test_recognised(void **state) {
  (void)state;
  char path[] = "/tmp/noema-spmodel-XXXXXX";
  nm_err err = {0};
  struct nm__buf b;
  model_new(&b, none, none);
  assert_true(close(mkstemp(path)) == 0);
  assert_int_equal(nm__write_file(path, b.s, b.len, &err), NM_OK);
  assert_true(nm__spmodel_is(path));
  assert_int_equal(nm__write_file(path, "GGUF\3\0\0\0", 8, &err), NM_OK);
  assert_false(nm__spmodel_is(path));
  assert_int_equal(nm__write_file(path, "\n\n{}", 4, &err), NM_OK);
  assert_false(nm__spmodel_is(path));
  assert_int_equal(nm__write_file(path, "", 0, &err), NM_OK);
  assert_false(nm__spmodel_is(path));
  unlink(path);
  assert_false(nm__spmodel_is(path));
  nm__buf_done(&b);
}

static void same_ids(const struct nm__tok *a, const struct nm__tok *b, const char *s, size_t n) {
  struct nm__ids x = {0}, y = {0};
  nm_err err = {0};
  assert_int_equal(nm__tok_encode(a, s, n, (struct nm__tok_opts){0}, &x, &err), NM_OK);
  assert_int_equal(nm__tok_encode(b, s, n, (struct nm__tok_opts){0}, &y, &err), NM_OK);
  assert_int_equal(x.n, y.n);
  assert_memory_equal(x.id, y.id, x.n * sizeof *x.id);
  nm__ids_done(&x);
  nm__ids_done(&y);
}

/* The model says that spaces at the ends of a text vanish, which its GGUF has lost: lines
 * without such are compared. */
static void test_stories(void **state) {
  (void)state;
  struct nm__tok *t = open_published(SHARED "models/stories260K/tok512.model");
  struct nm__tok *g = open_published(SHARED "models/stories260K/stories260K.f32.gguf");
  struct nm__map m;
  nm_err err = {0};
  int compared = 0;
  if (t && g && nm__exists(SHARED "corpora/tinystories.txt")) {
    assert_int_equal(nm__map_open(SHARED "corpora/tinystories.txt", &m, &err), NM_OK);
    const char *s = (const char *)m.data, *end = s + m.size;
    for (const char *nl; s < end && (nl = memchr(s, '\n', (size_t)(end - s))); s = nl + 1) {
      size_t n = (size_t)(nl - s);
      if (n == 0 || s[0] == ' ' || s[n - 1] == ' ' || memmem(s, n, "  ", 2)) continue;
      same_ids(t, g, s, n);
      compared++;
    }
    assert_true(compared > 1000);
    nm__map_close(&m);
  }
  nm__tok_free(t);
  nm__tok_free(g);
}

/* ---- against SentencePiece ------------------------------------------------- */

static const char *const tricky[] = {
  "Hello world", "  two  spaces  ", "tab\there", "ÄÖÜ äöü ß", "Größe, naïve café",
  "cafe\xCC\x81 e\xCC\x81\xCC\xA3", "ｆｕｌｌｗｉｄｔｈ　１２３", "日本語のテキスト", "한국어 텍스트", "👩‍👩‍👧‍👦 emoji 🙂🙂",
  "a\xE2\x80\x8B" "b\xC2\xAD" "c", "\xC2\xA0nbsp\xC2\xA0", "ﬁ ﬂ ﬃ", "x²³ ½ ①", "▁▁ under ▁",
  "<unk> <s> </s>", "<0x41>", "   ", "1234567890 10101010", "hahahahaha aaaaaaaaaaaaa",
  "don't we'll I'm", "ﷺ", "Ω Å K", "مرحبا بالعالم", "नमस्ते", "ไทย", "\xEF\xBB\xBF" "bom",
  "a\xE3\x80\x80" "b", "\xE2\x80\x8E\xE2\x80\xAA bidi", "Ǆ ǅ ǆ", "\x01" "ctrl\x02", "ends ", "▁",
  "x ▁", "\xFF bad \xC3", "…‥ ‼ ™ ℃ ㍿ ｶﾞ",
};
enum { N_TRICKY = sizeof tricky / sizeof *tricky };

static const struct { const char *name, *options; } trained[] = {
  {"unigram nmt_nfkc", "--vocab_size=2000"},
  {"unigram identity", "--vocab_size=1500 --normalization_rule_name=identity "
                       "--remove_extra_whitespaces=false"},
  {"unigram nfkc_cf bytes", "--vocab_size=3000 --normalization_rule_name=nfkc_cf --byte_fallback "
                            "--character_coverage=0.98"},
  {"unigram across words", "--vocab_size=2000 --split_by_whitespace=false --add_dummy_prefix=false "
                           "--allow_whitespace_only_pieces --remove_extra_whitespaces=false "
                           "--normalization_rule_name=nfkc"},
  {"bpe nmt_nfkc", "--vocab_size=2000 --model_type=bpe"},
  {"bpe identity bytes", "--vocab_size=3000 --model_type=bpe --normalization_rule_name=identity "
                         "--remove_extra_whitespaces=false --byte_fallback "
                         "--character_coverage=0.98"},
  {"bpe across words", "--vocab_size=2000 --model_type=bpe --split_by_whitespace=false"},
};

/* The texts, one a line: the tricky ones, then lines of corpora. */
static void write_texts(const char *path, size_t bytes) {
  static const char *const corpus[] = {"tinystories.txt", "wagahaiwa.txt", "wikitext2-test.txt"};
  struct nm__buf b;
  nm_err err = {0};
  nm__buf_init(&b, 1 << 24);
  for (size_t i = 0; i < N_TRICKY; i++) nm__buf_printf(&b, "%s\n", tricky[i]);
  for (size_t i = 0; i < sizeof corpus / sizeof *corpus; i++) {
    char file[160];
    struct nm__map m;
    snprintf(file, sizeof file, SHARED "corpora/%s", corpus[i]);
    if (nm__map_open(file, &m, &err)) fail_msg("%s", err.text);
    size_t n = m.size < bytes ? m.size : bytes;
    while (n && m.data[n - 1] != '\n') n--;
    nm__buf_put(&b, m.data, n);
    nm__map_close(&m);
  }
  if (nm__write_file(path, b.s, b.len, &err)) fail_msg("%s", err.text);
  nm__buf_done(&b);
}

static bool differ(const struct nm__ids *a, const struct nm__ids *b) {
  return a->n != b->n || (a->n && memcmp(a->id, b->id, a->n * sizeof *a->id));
}

static void read_line(const char *line, struct nm__ids *v) {
  char *end;
  for (;; line = end) {
    long id = strtol(line, &end, 10);
    if (end == line) return;
    assert_int_equal(nm__ids_push(v, (int32_t)id), NM_OK);
  }
}

/* Line by line; the number of lines. */
static void compare_lines(const struct nm__tok *t, bool bytes, const char *texts, const char *ids,
                          int *n_lines) {
  FILE *f = fopen(texts, "rb"), *g = fopen(ids, "rb");
  char *s = NULL, *line = NULL;
  size_t cap = 0, line_cap = 0;
  nm_err err = {0};
  assert_true(f && g);
  for (ssize_t n; (n = getline(&s, &cap, f)) >= 0; ++*n_lines) {
    struct nm__ids got = {0}, want = {0};
    if (n && s[n - 1] == '\n') n--;
    assert_true(getline(&line, &line_cap, g) >= 0);
    read_line(line, &want);
    assert_int_equal(nm__tok_encode(t, s, (size_t)n, PLAIN, &got, &err), NM_OK);
    /* With byte tokens noema keeps bytes that are no UTF-8, where SentencePiece has U+FFFD. */
    bool apart = bytes && nm__utf8_valid(s, (size_t)n) < (size_t)n;
    if (!apart && differ(&got, &want)) fail_msg("\"%.*s\": spm_encode says %s", (int)n, s, line);
    nm__ids_done(&got);
    nm__ids_done(&want);
  }
  assert_true(getline(&line, &line_cap, g) < 0);
  free(s);
  free(line);
  fclose(f);
  fclose(g);
}

static void shell(const char *fmt, ...) {
  char cmd[1024];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(cmd, sizeof cmd, fmt, ap);
  va_end(ap);
  if (system(cmd)) fail_msg("failed: %s", cmd);
}

static void test_sentencepiece(void **state) {
  (void)state;
  if (system("command -v spm_train spm_encode > /dev/null 2>&1")) {
    print_message("skipped: spm_train and spm_encode (Debian: sentencepiece) are not here\n");
    return;
  }
  if (!nm__exists(SHARED "corpora/wagahaiwa.txt")) {
    print_message("skipped: %s is not here\n", SHARED "corpora");
    return;
  }
  char dir[] = "/tmp/noema-spm-XXXXXX", model[64], texts[64], ids[64];
  assert_non_null(mkdtemp(dir));
  snprintf(model, sizeof model, "%s/m.model", dir);
  snprintf(texts, sizeof texts, "%s/texts", dir);
  snprintf(ids, sizeof ids, "%s/ids", dir);
  write_texts(texts, 80000);
  for (size_t i = 0; i < sizeof trained / sizeof *trained; i++) {
    int n_lines = 0;
    shell("spm_train --input=%s --model_prefix=%s/m --num_threads=2 --minloglevel=2 %s "
          "> /dev/null 2>&1", texts, dir, trained[i].options);
    shell("spm_encode --model=%s --output_format=id < %s > %s 2> /dev/null", model, texts, ids);
    struct nm__tok *t = open_published(model);
    compare_lines(t, strstr(trained[i].options, "byte_fallback"), texts, ids, &n_lines);
    print_message("conformance: %s: %d lines as spm_encode\n", trained[i].name, n_lines);
    assert_true(n_lines > 300);
    nm__tok_free(t);
  }
  shell("rm -r %s", dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_settings), cmocka_unit_test(test_refusals),
    cmocka_unit_test(test_mutations), cmocka_unit_test(test_recognised),
    cmocka_unit_test(test_stories), cmocka_unit_test(test_sentencepiece),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
