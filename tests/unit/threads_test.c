/* threads_test.c - what noema.h says of threads: one model and one world, used by many
 * threads at once, each with an engine of its own, give the bits that one thread gets. Under ThreadSanitizer (make tsan) this also finds what is written in silence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "noema.h"

enum { N_THREADS = 6, TURNS = 4, MOST = 4096 };
static const char MODEL[] = "models/planted.gguf";
static const char *const texts[] = {"ann saw the red fox by night ?", "bob saw the old dog by day ?",
                                    "ann and bob", "the fox"};

struct answer { float v[MOST]; size_t n; char hash[33], text[200], item[400], chat[200]; };
struct job { nm_model *m; const nm_world *w; const char *text; struct answer out; int bad; nm_err err; };

static int take_row(void *arg, const nm_row *row, nm_err *err) {
  struct answer *a = arg;
  (void)err;
  size_t n = (size_t)row->n < MOST - a->n ? (size_t)row->n : MOST - a->n;
  memcpy(a->v + a->n, row->data, n * sizeof *a->v);
  a->n += n;
  return 0;
}

static int ask(struct job *j, nm_engine *e) {
  int32_t *ids;
  size_t n, k;
  char *back;
  nm_tap taps[] = {{"blk.*.resid_post", "last"}, {"logits", "last"}};
  j->out.n = 0;
  if (nm_tokenize(j->m, j->text, strlen(j->text), 0, &ids, &n, &j->err)) return 1;
  nm_seq seq = {ids, n};
  nm_request r = {.seqs = &seq, .n_seqs = 1, .taps = taps, .n_taps = 2, .row = take_row,
                  .arg = &j->out};
  int st = nm_run(e, &r, &j->err);
  if (!st) st = nm_detokenize(j->m, ids, n, &back, &k, &j->err);
  if (!st) {
    strncpy(j->out.text, back, sizeof j->out.text - 1);
    nm_free(back);
  }
  nm_free(ids);
  return st;
}

static int chat(struct job *j) {
  nm_prompt p;
  const char json[] = "[{\"role\": \"user\", \"content\": \"who saw the fox?\"}]";
  int st = nm_chat_render(j->m, json, sizeof json - 1, &(nm_chat_opts){.name = "chatml"}, &p,
                          &j->err);
  if (st) return st;
  strncpy(j->out.chat, p.text, sizeof j->out.chat - 1);
  nm_prompt_free(&p);
  return 0;
}

static void *work(void *arg) {
  struct job *j = arg;
  nm_engine *e = NULL;
  nm_world_item item = {0};
  j->bad = nm_engine_new(j->m, &(nm_engine_opts){.threads = 1}, &e, &j->err);
  for (int i = 0; i < TURNS && !j->bad; i++) {
    j->bad = ask(j, e) || chat(j) || nm_model_hash(j->m, j->out.hash, &j->err) ||
             nm_world_make(j->w, 17, &item, &j->err);
    if (!j->bad) strncpy(j->out.item, item.text, sizeof j->out.item - 1);
  }
  nm_world_item_done(&item);
  nm_engine_free(e);
  return NULL;
}

static void test_shared(void **state) {
  (void)state;
  static struct job alone[4], job[N_THREADS];
  nm_model *m, *fresh;
  nm_world *w;
  nm_err err = {0};
  pthread_t t[N_THREADS];
  if (access(MODEL, R_OK)) skip();
  if (nm_model_open(MODEL, &m, &err) || nm_model_open(MODEL, &fresh, &err) ||
      nm_world_open("facts", NULL, 0, 7, 1, &w, &err))
    fail_msg("%s", err.text);
  for (int i = 0; i < 4; i++) {
    alone[i] = (struct job){.m = m, .w = w, .text = texts[i]};
    work(&alone[i]);
    if (alone[i].bad) fail_msg("%s", alone[i].err.text);
    assert_true(alone[i].out.n > 100);
  }
  for (int i = 0; i < N_THREADS; i++) {
    job[i] = (struct job){.m = fresh, .w = w, .text = texts[i % 4]};
    assert_int_equal(pthread_create(&t[i], NULL, work, &job[i]), 0);
  }
  for (int i = 0; i < N_THREADS; i++) {
    pthread_join(t[i], NULL);
    const struct answer *a = &job[i].out, *b = &alone[i % 4].out;
    if (job[i].bad) fail_msg("%s", job[i].err.text);
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->v, b->v, a->n * sizeof *a->v);
    assert_string_equal(a->hash, b->hash);
    assert_string_equal(a->text, b->text);
    assert_string_equal(a->item, b->item);
    assert_string_equal(a->chat, b->chat);
  }
  nm_world_close(w);
  nm_model_close(fresh);
  nm_model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_shared)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
