/* vectors_test.c - published vocabularies against ids recorded from the programs they are for. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tok_run.h"
#include <jansson.h>

/* ---- SHA-256 --------------------------------------------------------------- */

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

/* ---- published vocabularies ------------------------------------------------ */

/* The recorded files go by the name. */
static const struct { const char *name, *path; } vocab[] = {
  {"gpt-2", "ggml-vocab-gpt-2.gguf"},
  {"llama-bpe", "ggml-vocab-llama-bpe.gguf"},
  {"qwen2", "ggml-vocab-qwen2.gguf"},
  {"deepseek-llm", "ggml-vocab-deepseek-llm.gguf"},
  {"llama-spm", "ggml-vocab-llama-spm.gguf"},
  {"llama-spm", "llama2.tokenizer.model"},
  {"bert-bge", "ggml-vocab-bert-bge.gguf"},
};
enum { N_VOCABS = sizeof vocab / sizeof *vocab };

static struct nm__tok *open_vocab(int i) {
  char path[160];
  snprintf(path, sizeof path, SHARED "tokenizers/%s", vocab[i].path);
  return open_published(path);
}

static bool restores(const struct nm__tok *t, const char *s, size_t n, struct nm__tok_opts o) {
  bool lossy = strcmp(nm__tok_family(t), "bert") == 0;
  return lossy ? same_ids_again(t, s, n, o) : round_trip(t, s, n, o);
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
  return same && restores(t, s, n, o);
}

static void vector_file(const struct nm__tok *t, const char *of, const char *inp, const char *out,
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
  print_message("%s on %s: %d of %d\n", of, out, good, n);
  assert_int_equal(n, want);
  assert_int_equal(good, n);
  nm__map_close(&mi);
  nm__map_close(&mo);
}

static void test_vectors(void **state) {
  (void)state;
  for (int i = 0; i < N_VOCABS; i++) {
    struct nm__tok *t = open_vocab(i);
    if (!t) continue;
    char inp[160], out[160];
    snprintf(inp, sizeof inp, SHARED "tokenizers/ggml-vocab-%s.gguf.inp", vocab[i].name);
    snprintf(out, sizeof out, SHARED "tokenizers/ggml-vocab-%s.gguf.out", vocab[i].name);
    vector_file(t, vocab[i].path, inp, out, PLAIN, 46);
    snprintf(out, sizeof out, SHARED "tokenizers/extra-a.%s.out", vocab[i].name);
    vector_file(t, vocab[i].path, SHARED "tokenizers/extra-a.inp", out, PLAIN, 61);
    snprintf(out, sizeof out, SHARED "tokenizers/extra-a.%s.special.out", vocab[i].name);
    vector_file(t, vocab[i].path, SHARED "tokenizers/extra-a.inp", out, SPECIAL, 61);
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
  assert_true(restores(t, (const char *)m.data, m.size, PLAIN));
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
  for (int i = 0; i < N_VOCABS; i++) {
    struct nm__tok *t = open_vocab(i);
    const char *file;
    int n = 0;
    if (!t) continue;
    json_object_foreach(all, file, of_file) {
      one_corpus(t, file, json_object_get(of_file, vocab[i].name));
      n++;
    }
    print_message("%s: %d of %d corpora\n", vocab[i].path, n, n);
    nm__tok_free(t);
  }
  json_decref(all);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_sha), cmocka_unit_test(test_vectors), cmocka_unit_test(test_corpora),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
