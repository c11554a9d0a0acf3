/* tok_run.h - what the tests of tokenizers share: a GGUF made by hand, small vocabularies,
 * and comparing ids and texts. Include after setjmp.h, stdarg.h, stddef.h and cmocka.h. */
#ifndef TOK_RUN_H
#define TOK_RUN_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/spmodel.h"
#include "text/tokenizer.h"

#define SHARED "../shared/data/"

/* ---- a GGUF by hand -------------------------------------------------------- */

struct file { struct nm__buf b; uint64_t n_kv; };

static inline void put(struct file *f, const void *p, size_t n) { nm__buf_put(&f->b, p, n); }
static inline void put_u32(struct file *f, uint32_t v) { put(f, &v, 4); }
static inline void put_u64(struct file *f, uint64_t v) { put(f, &v, 8); }
static inline void put_text(struct file *f, const char *s, size_t n) {
  put_u64(f, n);
  put(f, s, n);
}
static inline void file_new(struct file *f) {
  nm__buf_init(&f->b, 1 << 24);
  f->n_kv = 0;
  put(f, "GGUF\3\0\0\0", 8);
  put_u64(f, 0);
  put_u64(f, 0);                   /* the number of keys, known at the end */
}
static inline void put_key(struct file *f, const char *key, uint32_t type) {
  char full[96];
  snprintf(full, sizeof full, "tokenizer.ggml.%s", key);
  put_text(f, full, strlen(full));
  put_u32(f, type);
  f->n_kv++;
}
static inline void put_string(struct file *f, const char *key, const char *v) {
  put_key(f, key, NM__GGUF_STRING);
  put_text(f, v, strlen(v));
}
static inline void put_id(struct file *f, const char *key, uint32_t v) {
  put_key(f, key, NM__GGUF_U32);
  put_u32(f, v);
}
static inline void put_flag(struct file *f, const char *key, bool v) {
  put_key(f, key, NM__GGUF_BOOL);
  put(f, &v, 1);
}
static inline void put_array(struct file *f, const char *key, uint32_t elem, uint64_t n) {
  put_key(f, key, NM__GGUF_ARRAY);
  put_u32(f, elem);
  put_u64(f, n);
}

/* Opens what was built; the file is released either way. */
static inline int file_open(struct file *f, struct nm__tok **t, nm_err *warn, nm_err *err) {
  struct nm__gguf *g;
  memcpy(f->b.s + 16, &f->n_kv, 8);
  int rc = nm__gguf_parse("tiny", f->b.s, f->b.len, &g, err);
  if (rc) fail_msg("%s", err->text);
  rc = nm__tok_open(g, t, warn, err);
  nm__gguf_close(g);
  nm__buf_done(&f->b);
  return rc;
}

/* ---- vocabularies ---------------------------------------------------------- */

struct tok { const char *s; float score; int32_t type; };

/* With bytes, the 256 byte tokens come after the given ones. */
static inline void put_vocab(struct file *f, const struct tok *v, int n, bool bytes) {
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

static inline struct nm__tok *spm_tok(bool bytes) {
  struct file f;
  struct nm__tok *t;
  nm_err err = {0};
  file_new(&f);
  put_string(&f, "model", "llama");
  put_vocab(&f, spm_vocab, N_SPM, bytes);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  return t;
}

/* ---- ids and texts --------------------------------------------------------- */

static const struct nm__tok_opts PLAIN = {.no_bos = true};
static const struct nm__tok_opts SPECIAL = {.no_bos = true, .parse_special = true};

static inline void expect(const struct nm__tok *t, const char *text, struct nm__tok_opts o,
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

/* Families that read a text in a normal form give that form back: it has the same ids. An
 * unknown word is lost. */
static inline bool same_ids_again(const struct nm__tok *t, const char *s, size_t n,
                                  struct nm__tok_opts o) {
  struct nm__ids v = {0}, again = {0};
  struct nm__buf b;
  nm_err err = {0};
  nm__buf_init(&b, 1 << 26);
  if (nm__tok_encode(t, s, n, o, &v, &err)) fail_msg("%s", err.text);
  if (nm__tok_decode(t, v.id, v.n, o.parse_special, &b, &err)) fail_msg("%s", err.text);
  if (nm__tok_encode(t, b.s ? b.s : "", b.len, o, &again, &err)) fail_msg("%s", err.text);
  size_t k = 0;
  bool same = true;
  for (size_t i = 0; i < v.n; i++) {
    struct nm__str p = nm__tok_piece(t, v.id[i]);
    if (p.n == 5 && !memcmp(p.s, "[UNK]", 5) && !o.parse_special) continue;
    same = same && k < again.n && again.id[k] == v.id[i];
    k++;
  }
  same = same && k == again.n;
  nm__buf_done(&b);
  nm__ids_done(&v);
  nm__ids_done(&again);
  return same;
}

static inline bool round_trip(const struct nm__tok *t, const char *s, size_t n,
                              struct nm__tok_opts o) {
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

static inline void expect_text(const struct nm__tok *t, const int32_t *id, size_t n, bool special,
                        const char *text) {
  struct nm__buf b;
  nm_err err = {0};
  nm__buf_init(&b, 1 << 20);
  nm__buf_puts(&b, "");
  if (nm__tok_decode(t, id, n, special, &b, &err)) fail_msg("%s", err.text);
  assert_string_equal(b.s, text);
  nm__buf_done(&b);
}

static inline void refuse(struct file *f, const char *part) {
  struct nm__tok *t;
  nm_err err = {0};
  assert_int_equal(file_open(f, &t, NULL, &err), NM_EFORMAT);
  assert_null(t);
  if (!strstr(err.text, part)) fail_msg("\"%s\" does not say \"%s\"", err.text, part);
}

/* NULL, having said so, when the file is not there. */
static inline struct nm__tok *open_published(const char *path) {
  struct nm__gguf *g = NULL;
  struct nm__tok *t = NULL;
  nm_err err = {0}, warn = {0};
  if (!nm__exists(path)) {
    print_message("skipped: %s is not here\n", path);
    return NULL;
  }
  int rc = nm__spmodel_is(path) ? nm__gguf_new(path, "SentencePiece", &g, &err)
                                : nm__gguf_open(path, &g, &err);
  if (!rc && nm__spmodel_is(path)) rc = nm__spmodel_keys(path, g, &err);
  if (rc || nm__tok_open(g, &t, &warn, &err)) fail_msg("%s", err.text);
  nm__gguf_close(g);
  assert_int_equal(warn.status, 0);
  return t;
}

/* ---- much text ------------------------------------------------------------- */

static inline void long_texts(const struct nm__tok *t, size_t size) {
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

static inline void random_bytes(const struct nm__tok *t, uint64_t seed) {
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

/* ---- damage ------------------------------------------------------------ */

/* Opens and uses what may be anything; it must not crash, and ids must be in range. */
static inline void use(const struct nm__gguf *g, const char *text) {
  struct nm__tok *t;
  nm_err err = {0};
  if (nm__tok_open(g, &t, NULL, &err)) {
    assert_true(err.text[0] != 0);
    return;
  }
  for (int special = 0; special < 2; special++) {
    struct nm__ids v = {0};
    struct nm__buf b;
    nm__buf_init(&b, 1 << 26);
    if (!nm__tok_encode(t, text, strlen(text), special ? SPECIAL : PLAIN, &v, &err))
      assert_int_equal(nm__tok_decode(t, v.id, v.n, special, &b, &err), NM_OK);
    nm__buf_done(&b);
    nm__ids_done(&v);
  }
  nm__tok_free(t);
}

/* One to four bytes changed, taken out or put in, or the end cut off; a fresh copy. */
static inline char *damaged(struct nm__rng *r, const char *s, size_t n, size_t *n_out) {
  char *d = nm__alloc(n + 8, 1);
  assert_non_null(d);
  memcpy(d, s, n);
  for (uint64_t k = 1 + nm__rng_below(r, 4); k > 0 && n > 0; k--) {
    size_t at = (size_t)nm__rng_below(r, n);
    switch (nm__rng_below(r, 8)) {
      case 0: memmove(d + at, d + at + 1, --n - at); break;
      case 1: memmove(d + at + 1, d + at, n++ - at); break;
      case 2: if (nm__rng_below(r, 8) == 0) n = at; break;
      case 3: d[at] = (char)(d[at] ^ 1 << nm__rng_below(r, 8)); break;
      case 4: d[at] = (char)0xFF; break;
      default: d[at] = (char)nm__rng_below(r, 256);
    }
  }
  *n_out = n;
  return d;
}

/* 10,000 of them; the file is released. */
static inline void mutate_vocabulary(struct file *f, const char *text) {
  struct nm__rng r = {.seed = 7};
  int opened = 0;
  memcpy(f->b.s + 16, &f->n_kv, 8);
  for (int i = 0; i < 10000; i++) {
    size_t n;
    char *d = damaged(&r, f->b.s, f->b.len, &n);
    struct nm__gguf *g;
    nm_err err = {0};
    if (!nm__gguf_parse("damaged", d, n, &g, &err)) {
      use(g, text);
      nm__gguf_close(g);
      opened++;
    }
    free(d);
  }
  assert_true(opened > 500);       /* or the damage would be too coarse to test anything */
  nm__buf_done(&f->b);
}

#endif
