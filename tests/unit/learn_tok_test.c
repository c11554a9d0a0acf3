/* learn_tok_test.c - tokenizers made from texts: they open, give texts back, merges are the ones
 * counting by hand gives, and the order of the texts changes nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "text/learn_tok.h"
#include "text/tokenizer.h"

static struct nm__str str(const char *s) { return (struct nm__str){s, strlen(s)}; }

static const char *const lines[] = {"the cat sat on the mat", "a dog sat there too",
                                    "\xC3\xA4hnlich \xE2\x82\xAC 5", "the end"};
enum { N = sizeof lines / sizeof *lines };

static struct nm__gguf *learn(const char *kind, int size, bool reversed) {
  struct nm__str t[N];
  struct nm__gguf *g;
  nm_err err;
  for (int i = 0; i < N; i++) t[i] = str(lines[reversed ? N - 1 - i : i]);
  if (nm__tok_learn(kind, size, t, N, &g, &err)) fail_msg("%s: %s", kind, err.text);
  return g;
}

static void gives_back(const struct nm__tok *t, const char *s, size_t want_ids) {
  struct nm__ids ids = {0};
  struct nm__buf b;
  nm_err err;
  nm__buf_init(&b, 1 << 20);
  if (nm__tok_encode(t, s, strlen(s), (struct nm__tok_opts){0}, &ids, &err))
    fail_msg("%s", err.text);
  assert_int_equal(ids.id[0], nm__tok_bos(t));
  if (want_ids) assert_int_equal(ids.n, want_ids);
  if (nm__tok_decode(t, ids.id, ids.n, false, &b, &err)) fail_msg("%s", err.text);
  assert_string_equal(b.s, s);
  nm__buf_done(&b);
  nm__ids_done(&ids);
}

static void round_trips(void **state) {
  (void)state;
  const struct { const char *kind; int size; size_t ids; } how[] = {
      {"char", 0, 23}, {"word", 0, 7}, {"bpe", 300, 0}, {"bpe", 257, 23}};
  for (size_t k = 0; k < sizeof how / sizeof *how; k++) {
    struct nm__gguf *g = learn(how[k].kind, how[k].size, false);
    struct nm__tok *t;
    nm_err warn, err;
    if (nm__tok_open(g, &t, &warn, &err)) fail_msg("%s: %s", how[k].kind, err.text);
    assert_int_equal(warn.status, 0);
    gives_back(t, lines[0], how[k].ids);
    for (int i = 1; i < N; i++) gives_back(t, lines[i], 0);
    if (how[k].size) gives_back(t, "\xFF\x01 unseen \xF0\x9F\x98\x80\n", 0);
    nm__tok_free(t);
    nm__gguf_close(g);
  }
}

static void order_does_not_matter(void **state) {
  (void)state;
  const char *const kinds[] = {"char", "word", "bpe"};
  for (int k = 0; k < 3; k++) {
    struct nm__gguf *a = learn(kinds[k], 290, false), *b = learn(kinds[k], 290, true);
    assert_int_equal(a->n_kv, b->n_kv);
    const struct nm__gguf_kv *x = nm__gguf_find(a, "tokenizer.ggml.tokens"),
                             *y = nm__gguf_find(b, "tokenizer.ggml.tokens");
    assert_int_equal(x->n, y->n);
    for (uint64_t i = 0; i < x->n; i++) {
      assert_int_equal(x->strings[i].n, y->strings[i].n);
      assert_memory_equal(x->strings[i].s, y->strings[i].s, x->strings[i].n);
    }
    nm__gguf_close(a);
    nm__gguf_close(b);
  }
}

/* The example of Sennrich et al., with the space GPT-2's split leaves in front of words. Counts:
 * "w e" 8, "e s" 9, "s t" 9 of newest and widest; of the equal ones the lower symbols first. */
static void merges_by_hand(void **state) {
  (void)state;
  struct nm__buf b;
  nm__buf_init(&b, 1000);
  for (int i = 0; i < 5; i++) nm__buf_puts(&b, "low\n");
  for (int i = 0; i < 2; i++) nm__buf_puts(&b, "lower\n");
  for (int i = 0; i < 6; i++) nm__buf_puts(&b, "newest\n");
  for (int i = 0; i < 3; i++) nm__buf_puts(&b, "widest\n");
  struct nm__str t = {b.s, b.len};
  struct nm__gguf *g;
  nm_err err;
  if (nm__tok_learn("bpe", 261, &t, 1, &g, &err)) fail_msg("%s", err.text);
  const char *const want[] = {"e s", "es t", "l o", "lo w"};
  const struct nm__gguf_kv *m = nm__gguf_find(g, "tokenizer.ggml.merges");
  assert_int_equal(m->n, 4);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(m->strings[i].n, strlen(want[i]));
    assert_memory_equal(m->strings[i].s, want[i], strlen(want[i]));
  }
  nm__gguf_close(g);
  nm__buf_done(&b);
}

static void what_does_not_go(void **state) {
  (void)state;
  nm_err err;
  struct nm__gguf *g;
  struct nm__str two = str("a\nb"), bad = {"\xFF", 1}, none = {"", 0};
  assert_int_equal(nm__tok_learn("word", 0, &two, 1, &g, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "line break"));
  assert_int_equal(nm__tok_learn("char", 0, &bad, 1, &g, &err), NM_EFORMAT);
  assert_int_equal(nm__tok_learn("char", 0, &none, 1, &g, &err), NM_EFORMAT);
  assert_int_equal(nm__tok_learn("char", 3, &two, 1, &g, &err), NM_EUSAGE);
  assert_int_equal(nm__tok_learn("bpe", 256, &two, 1, &g, &err), NM_EUSAGE);
  assert_int_equal(nm__tok_learn("unigram", 300, &two, 1, &g, &err), NM_EUSAGE);
  assert_null(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(round_trips), cmocka_unit_test(order_does_not_matter),
      cmocka_unit_test(merges_by_hand), cmocka_unit_test(what_does_not_go)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
