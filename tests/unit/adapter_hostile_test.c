/* adapter_hostile_test.c - adapters of both forms and edit files with weight edits from outside: cut
 * short, and 10,000 times with bytes changed. Loading and a short run end in an error with a sentence
 * or in a result, never in a crash or a wait. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/adapter.h"
#include "model_run.h"

enum { N = 10000 };
static const int32_t ids[] = {1, 2, 1};
static char tmp[64], gguf[100], peft[100];
static nm_model *m;

static int ignore_row(void *arg, const nm_row *r, nm_err *err) {
  (void)err;
  *(double *)arg += (double)r->data[r->n - 1];
  return 0;
}

static int run(const nm_adapters *a, nm_edits *edits, nm_err *err) {
  nm_engine *e;
  double sum = 0;
  nm_seq s = {ids, 3};
  nm_tap tap = {"logits", "last"};
  nm_engine_opts o = {.threads = 1, .adapters = a};
  int st = nm_engine_new(m, &o, &e, err);
  if (st) return st;
  st = nm_run(e, &(nm_request){.seqs = &s, .n_seqs = 1, .taps = &tap, .n_taps = 1,
                               .edits = edits, .row = ignore_row, .arg = &sum}, err);
  nm_engine_free(e);
  return st;
}

static int attempt(const char *path, nm_err *err) {
  nm_adapters *a;
  char *text;
  nm_adapter_file f = {path, 1};
  int st = nm_adapters_load(m, &f, 1, &a, err);
  if (!nm_adapter_show(path, st & 1, &text, NULL)) nm_free(text);
  if (st) return assert_null(a), st;
  st = run(a, NULL, err);
  nm_adapters_free(a);
  return st;
}

static void assert_sensible(int st, const nm_err *err) {
  if (!st) return;
  assert_true(err->text[0] && err->status == st);
  if (st != NM_EFORMAT && st != NM_EFAIL && st != NM_EMEMORY && st != NM_EUSAGE)
    fail_msg("status %d: %s", st, err->text);
}

/* Changes one byte at a time in `file`, half of them in its first `head` bytes, and attempts `path`. */
static void flip(const char *file, const char *path, size_t head, uint64_t seed, int n) {
  struct nm__map map;
  assert_int_equal(nm__map_open(file, &map, NULL), 0);
  uint8_t *was = malloc(map.size);
  size_t size = map.size;
  memcpy(was, map.data, size);
  nm__map_close(&map);
  int f = open(file, O_RDWR), n_ran = 0;
  assert_true(f >= 0);
  for (int i = 0; i < n; i++) {
    uint64_t r = nm__rand_at(seed, 0, (uint64_t)i), at = (r >> 8) % (i % 2 ? head : size);
    uint8_t new = (uint8_t)r;
    nm_err err = {0};
    if (i % 4 == 1) new = was[at] ^ (uint8_t)(1 << (r & 7));
    assert_int_equal(pwrite(f, &new, 1, (off_t)at), 1);
    int st = attempt(path, &err);
    assert_sensible(st, &err);
    n_ran += !st;
    assert_int_equal(pwrite(f, was + at, 1, (off_t)at), 1);
  }
  for (size_t cut = size; cut > 0 && n > 1000; cut -= cut < 64 ? cut : 64) {
    nm_err err = {0};
    assert_int_equal(truncate(file, (off_t)(cut - 1)), 0);
    assert_int_equal(attempt(path, &err), NM_EFORMAT);
  }
  assert_int_equal(ftruncate(f, 0), 0);
  assert_int_equal(pwrite(f, was, size, 0), (ssize_t)size);
  close(f);
  free(was);
  print_message("%s: %d of %d damaged files still run\n", nm__path_base(file), n_ran, n);
  assert_true(n_ran > 0 && n_ran < n);
  nm_err err = {0};
  assert_int_equal(attempt(path, &err), 0);
}

static void gguf_damage(void **state) {
  (void)state;
  struct nm__gguf *g;
  assert_int_equal(nm__gguf_open(gguf, &g, NULL), 0);
  size_t head = (size_t)g->data_start;
  nm__gguf_close(g);
  flip(gguf, gguf, head, 3, N);
}

static void peft_damage(void **state) {
  (void)state;
  char file[140];
  snprintf(file, sizeof file, "%s/adapter_model.safetensors", peft);
  struct nm__st *s;
  assert_int_equal(nm__st_open(file, &s, NULL), 0);
  size_t head = (size_t)(s->t[0].data - s->map.data);
  nm__st_close(s);
  flip(file, peft, head, 4, N / 2);
  snprintf(file, sizeof file, "%s/adapter_config.json", peft);
  flip(file, peft, 200, 5, N / 2);
}

static void edit_damage(void **state) {
  (void)state;
  static const char text[] =
      "[{\"weight\": \"blk.0.ffn_up.weight\", \"row\": 1, \"op\": \"zero\", \"scale\": 0.5},\n"
      "{\"weight\": \"blk.1.ffn_down.weight\", \"col\": 3, \"op\": \"noise\", \"seed\": 7},\n"
      "{\"weight\": \"blk.2.ffn_down.weight\", \"row\": 2, \"op\": \"add\", \"vector\":\n"
      "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]},\n"
      "{\"site\": \"blk.0.mlp.act[1]\", \"op\": \"zero\"}]";
  char s[sizeof text];
  int n_ran = 0;
  for (int i = 0; i < N; i++) {
    uint64_t r = nm__rand_at(9, 0, (uint64_t)i);
    nm_edits *e;
    nm_err err = {0};
    memcpy(s, text, sizeof text);
    for (int k = 0; k <= i % 3; k++) {
      size_t at = (r >> (16 * k)) % (sizeof text - 1);
      s[at] = (r >> 60) < 8 ? text[nm__mix64(r + (uint64_t)k) % (sizeof text - 1)]
                            : (char)(nm__mix64(r) >> (8 * k));
    }
    int st = nm_edits_parse("t", s, sizeof text - 1, &e, &err);
    if (!st) st = run(NULL, e, &err);
    assert_sensible(st, &err);
    nm_edits_free(e);
    n_ran += !st;
  }
  print_message("edits: %d of %d damaged files still run\n", n_ran, N);
  assert_true(n_ran > 0 && n_ran < N);
}

static int setup(void **state) {
  (void)state;
  struct nm__adapter a = {.path = strdup("made"), .form = "GGUF"};
  static const char *const names[] = {"blk.0.attn_q.weight", "blk.1.ffn_down.weight",
                                      "token_embd.weight"};
  nm_err err = {0};
  snprintf(tmp, sizeof tmp, "/tmp/noema_adapter_hostile_test.%ld", (long)getpid());
  snprintf(gguf, sizeof gguf, "%s/a.gguf", tmp);
  snprintf(peft, sizeof peft, "%s/peft", tmp);
  m = open_model(PLANTED);
  if (nm__mkdirs(tmp, &err)) return -1;
  for (int i = 0; i < 3; i++) {
    const struct nm__gguf_tensor *t = nm__gguf_tensor(m->g, names[i]);
    int64_t sa[2], sb[2];
    struct nm__adapter_part *p =
        nm__adapter_add(&a, names[i], -1, i == 2, 2, t->ne[1], t->ne[0], &err);
    nm__adapter_sizes(p, sa, sb);
    for (int64_t k = 0; k < sa[0] * sa[1]; k++) p->a[k] = (float)(k % 5) / 64;
    for (int64_t k = 0; k < sb[0] * sb[1]; k++) p->b[k] = (float)(k % 7) / 64;
    p->scale = 2;
  }
  if (nm__adapter_write_gguf(&a, "llama", 0, gguf, &err) ||
      nm_adapter_convert(m, gguf, peft, true, &err))
    return print_message("%s\n", err.text), -1;
  nm__adapter_done(&a);
  return 0;
}
static int teardown(void **state) {
  (void)state;
  char cmd[100];
  nm_model_close(m);
  snprintf(cmd, sizeof cmd, "rm -rf %s", tmp);
  return system(cmd);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(gguf_damage), cmocka_unit_test(peft_damage),
                                     cmocka_unit_test(edit_damage)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
