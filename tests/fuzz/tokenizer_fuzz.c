/* tokenizer_fuzz.c - any text against small vocabularies, and any vocabulary.
 *
 * Byte 0 chooses: bits 0 and 5 the family, bit 1 special parsing, bit 2 BOS, bit 3 the space
 * prefix, bit 4 whether pieces and merges are damaged by the bytes that follow. Byte 1
 * chooses the pre-tokenizer; for a unigram vocabulary, bit 0 whether there is a character
 * map, made of the text (the bytes that follow), bit 1 whether spaces are merged. The rest
 * is text. For an undamaged vocabulary of a family that keeps all bytes decoding must give
 * the text back.
 *
 *   clang -fsanitize=fuzzer,address,undefined ... tests/fuzz/tokenizer_fuzz.c */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"
#include "text/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define SP "\xE2\x96\x81"

enum family { SPM, BPE, WPM, UGM };

struct file { struct nm__buf b; uint64_t n_kv; const uint8_t *noise; size_t n_noise; };

static void put_u32(struct file *f, uint32_t v) { nm__buf_put(&f->b, &v, 4); }
static void put_u64(struct file *f, uint64_t v) { nm__buf_put(&f->b, &v, 8); }

/* A string of the vocabulary; now and then a piece of the noise is put in its place. */
static void put_text(struct file *f, const char *s, size_t n) {
  if (f->n_noise > 2 && f->noise[0] < 64) {
    n = f->noise[1] % 8u;
    if (n > f->n_noise - 2) n = f->n_noise - 2;
    s = (const char *)f->noise + 2;
    f->noise += n + 2;
    f->n_noise -= n + 2;
  } else if (f->n_noise) {
    f->noise++;
    f->n_noise--;
  }
  put_u64(f, n);
  nm__buf_put(&f->b, s, n);
}

static void put_key(struct file *f, const char *key, uint32_t type) {
  char full[96];
  int n = snprintf(full, sizeof full, "tokenizer.ggml.%s", key);
  put_u64(f, (uint64_t)n);
  nm__buf_put(&f->b, full, (size_t)n);
  put_u32(f, type);
  f->n_kv++;
}

static void put_name(struct file *f, const char *key, const char *v) {
  put_key(f, key, NM__GGUF_STRING);
  put_u64(f, strlen(v));
  nm__buf_puts(&f->b, v);
}

static void put_array(struct file *f, const char *key, uint32_t elem, uint64_t n) {
  put_key(f, key, NM__GGUF_ARRAY);
  put_u32(f, elem);
  put_u64(f, n);
}

static const char *const more[] = {"<unk>", "<s>", "</s>", "<u>", "<u><u>", "he", "ll", "hell",
                                   "lo", "hello", SP, SP SP, SP "a", "a", "aa", "aaa"};
enum { N_MORE = sizeof more / sizeof *more, N = 256 + N_MORE };

static void put_types(struct file *f, uint32_t byte_type) {
  put_array(f, "token_type", NM__GGUF_I32, N);
  for (int i = 0; i < N; i++) {
    int k = i - 256;
    uint32_t type = k < 0 ? byte_type : k == 0 ? 2 : k < 3 ? 3 : k < 5 ? 4 : 1;
    put_u32(f, f->n_noise ? (f->noise[i % (int)f->n_noise] & 7u) : type);
  }
}

/* Byte tokens and some more, in the form that all but BPE have. */
static void put_pieces(struct file *f, const char *model) {
  char hex[8];
  put_name(f, "model", model);
  put_array(f, "tokens", NM__GGUF_STRING, N);
  for (int b = 0; b < 256; b++) {
    snprintf(hex, sizeof hex, "<0x%02X>", (unsigned)b & 255u);
    put_text(f, hex, 6);
  }
  for (int i = 0; i < N_MORE; i++) put_text(f, more[i], strlen(more[i]));
  put_types(f, 6);
  put_array(f, "scores", NM__GGUF_F32, N);
  for (int i = 0; i < N; i++) {
    float score = (float)-(i * 7 % 64);
    nm__buf_put(&f->b, &score, 4);
  }
}

static void put_flag(struct file *f, const char *key, bool v) {
  put_key(f, key, NM__GGUF_BOOL);
  nm__buf_putc(&f->b, v);
}

static void put_map(struct file *f, const uint8_t *data, size_t n) {
  uint32_t trie = (uint32_t)n / 8 * 4;
  put_array(f, "precompiled_charsmap", NM__GGUF_U8, n + 4);
  nm__buf_put(&f->b, &trie, 4);
  nm__buf_put(&f->b, data, n);
}

static void put_ugm(struct file *f, const uint8_t *data, size_t n, bool prefix) {
  put_pieces(f, "t5");
  put_flag(f, "add_space_prefix", prefix);
  put_flag(f, "remove_extra_whitespaces", data[1] & 2);
  if (data[1] & 1) put_map(f, data + 2, n - 2);
}

static void put_bpe(struct file *f, uint8_t choice) {
  static const char *const pre[] = {"gpt-2", "llama-bpe", "qwen2", "starcoder", "falcon", "default",
                                    "deepseek-llm", "deepseek-coder", "deepseek-v3", "tekken",
                                    "gpt-4o", "bloom", "viking", "unheard-of"};
  static const char *const merges[] = {"h e", "l l", "l o", "he ll", "hell o", "a a", "aa a", "x y",
                                       "xy a"};
  char c[4];
  put_name(f, "model", "gpt2");
  put_name(f, "pre", pre[choice % (sizeof pre / sizeof *pre)]);
  put_array(f, "tokens", NM__GGUF_STRING, N);
  for (int b = 0, next = 256; b < 256; b++) {
    bool itself = !(b < 33 || (b > 126 && b < 161) || b == 173);
    put_text(f, c, (size_t)nm__utf8_encode((uint32_t)(itself ? b : next++), c));
  }
  for (int i = 0; i < N_MORE; i++) put_text(f, more[i], strlen(more[i]));
  put_types(f, 1);
  size_t n = sizeof merges / sizeof *merges;
  put_array(f, "merges", NM__GGUF_STRING, n);
  for (size_t i = 0; i < n; i++) put_text(f, merges[i], strlen(merges[i]));
}

static enum family family_of(const uint8_t *data) {
  return (enum family)((data[0] & 1) | (data[0] >> 4 & 2));
}

static struct nm__tok *build(const uint8_t *data, size_t n) {
  bool damaged = data[0] & 16;
  struct file f = {.noise = data + 2, .n_noise = damaged ? n - 2 : 0};
  nm__buf_init(&f.b, 1 << 22);
  nm__buf_put(&f.b, "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24);
  switch (family_of(data)) {
    case BPE: put_bpe(&f, data[1]); break;
    case WPM: put_pieces(&f, "bert"); break;
    case UGM: put_ugm(&f, data, n, data[0] & 8); break;
    default:
      put_pieces(&f, "llama");
      put_flag(&f, "add_space_prefix", data[0] & 8);
  }
  memcpy(f.b.s + 16, &f.n_kv, 8);
  struct nm__gguf *g = NULL;
  struct nm__tok *t = NULL;
  nm_err err = {0};
  if (nm__gguf_parse("fuzz", f.b.s, f.b.len, &g, &err) || nm__tok_open(g, &t, NULL, &err))
    if (!damaged) abort();
  nm__gguf_close(g);
  nm__buf_done(&f.b);
  return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  if (n < 2) return 0;
  struct nm__tok *t = build(data, n);
  if (!t) return 0;
  struct nm__tok_opts o = {.parse_special = data[0] & 2, .no_bos = !(data[0] & 4)};
  const char *s = (const char *)data + 2;
  struct nm__ids v = {0};
  struct nm__buf b;
  nm_err err = {0};
  nm__buf_init(&b, 1 << 26);
  bool damaged = data[0] & 16, marks = family_of(data) != BPE;
  bool lossy = family_of(data) == WPM || (family_of(data) == UGM && data[1] & 3);
  int rc = nm__tok_encode(t, s, n - 2, o, &v, &err);
  if (!rc) rc = nm__tok_decode(t, v.id, v.n, o.no_bos && o.parse_special, &b, &err);
  /* Who marks spaces by U+2581 cannot tell one of the text from its own. */
  bool lawful = !damaged && o.no_bos && !lossy && !(marks && memmem(s, n - 2, SP, 3));
  if (!damaged && rc) abort();
  if (lawful && (b.len != n - 2 || (b.len && memcmp(b.s, s, b.len)))) abort();
  nm__buf_done(&b);
  nm__ids_done(&v);
  nm__tok_free(t);
  return 0;
}
