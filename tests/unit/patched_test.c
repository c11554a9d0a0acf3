/* patched_test.c - patched runs have the bits of a whole run with the edit `replace`: in every
 * family, at every site that can be patched, alone, several at once, and in batches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "model_file.h"
#include "model_run.h"
#include "model/patched.h"

enum { T = 9, N_RUNS = 40, MAX_WIDTH = 400 };

struct taken { float *z; size_t n, V; };

static int take(void *arg, size_t run, const float *z, nm_err *err) {
  struct taken *t = arg;
  (void)err;
  assert_int_equal(run, t->n);
  memcpy(t->z + t->n++ * t->V, z, t->V * sizeof(float));
  return 0;
}

/* A patch as an edit: the same numbers in JSON. */
static void edit_of(struct nm__buf *b, const nm_model *m, const struct nm__patch *p) {
  char name[64];
  int64_t w = nm__sel_width(m, p->sel, 1);
  nm__sel_name(m, p->sel, name);
  nm__buf_printf(b, "%s{\"site\":\"%s\",\"at\":\"%d\",\"op\":\"replace\",\"vector\":[",
                 b->len > 1 ? "," : "", name, p->pos);
  for (int64_t i = 0; i < w; i++) nm__buf_printf(b, "%s%.9g", i ? "," : "", (double)p->v[i]);
  nm__buf_puts(b, "]}");
}

static void same_as_edits(nm_engine *e, nm_seq s, const struct nm__patched *r, const float *z,
                          const char *what) {
  const nm_model *m = nm__engine_model(e);
  struct nm__buf b;
  nm__buf_init(&b, 1 << 24);
  nm__buf_puts(&b, "[");
  for (int i = 0; i < r->n; i++) edit_of(&b, m, &r->p[i]);
  nm__buf_puts(&b, "]");
  nm_edits *edits = r->n ? parse_edits(b.s) : NULL;
  struct rows rows = tap_one(e, s.ids, s.n, "logits", "last", edits);
  if (memcmp(rows.v[0].v, z, sizeof(float) * (size_t)m->V))
    fail_msg("%s: a patched run differs: %.120s", what, b.s);
  rows_done(&rows);
  nm_edits_free(edits);
  nm__buf_done(&b);
}

/* Every patchable place of the model in turn, at random positions; every third run has three. */
static int make_runs(const nm_model *m, struct nm__patch *p, struct nm__patched *r) {
  static float values[MAX_WIDTH];
  struct nm__sels s;
  int n = 0;
  uint64_t k = 0;
  for (int i = 0; i < MAX_WIDTH; i++)
    values[i] = (float)(int64_t)(nm__rand_at(5, 1, (uint64_t)i) % 2001) / 1000 - 1;
  assert_int_equal(nm__sites_select(m, "*", &s, NULL), 0);
  for (int i = 0; i < N_RUNS; i++) {
    int some = i == 0 ? 0 : i % 3 ? 1 : 3;
    r[i] = (struct nm__patched){p + n, some};
    for (int q = 0; q < some; k++) {
      struct nm__sel sel = s.v[nm__rand_at(5, 2, k) % (uint64_t)s.n];
      if (!nm__patchable(m, sel)) continue;
      if (sel.site == NM__S_HEAD && k % 2) sel.index_n = 1, sel.index = (int)(k % (uint64_t)m->H);
      if (nm__sel_width(m, sel, 1) > MAX_WIDTH - 64) continue;
      p[n++] = (struct nm__patch){sel, (int)(nm__rand_at(5, 3, k) % T), values + k % 64};
      q++;
    }
  }
  free(s.v);
  return N_RUNS;
}

static void check_model(const char *path, const char *what) {
  nm_model *m = open_model(path);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  int32_t ids[T];
  for (int i = 0; i < T; i++) ids[i] = (i * 37 + 5) % m->V;
  nm_seq s = {ids, T};
  struct nm__patch p[3 * N_RUNS];
  struct nm__patched r[N_RUNS];
  nm_err err = {0};
  struct nm__base *b;
  int n = make_runs(m, p, r);
  struct taken t = {malloc(sizeof(float) * (size_t)m->V * N_RUNS), 0, (size_t)m->V};
  if (nm__base_open(e, s, NULL, 0, &b, &err)) fail_msg("%s: %s", what, err.text);
  same_as_edits(e, s, &r[0], nm__base_logits(b), what);
  if (nm__base_run(b, r, (size_t)n, take, &t, &err)) fail_msg("%s: %s", what, err.text);
  assert_int_equal(t.n, n);
  for (int i = 0; i < n; i++) same_as_edits(e, s, &r[i], t.z + (size_t)i * t.V, what);
  nm__base_close(b);
  free(t.z);
  nm_engine_free(e);
  nm_model_close(m);
}

static void test_families(void **state) {
  (void)state;
  char path[80];
  snprintf(path, sizeof path, "/tmp/noema_patched_test.%ld.gguf", (long)getpid());
  for (int i = 0; i < N_SHAPES; i++) {
    struct file f = file_of(&shapes[i]);
    write_file(&shapes[i], &f, path);
    file_done(&f);
    check_model(path, shapes[i].title);
  }
  unlink(path);
  check_model(PLANTED, "planted");
}

/* A base with patches of its own at the embedding; a text longer than a forward. */
static void test_a_patched_base(void **state) {
  (void)state;
  char path[80];
  nm_err err = {0};
  snprintf(path, sizeof path, "/tmp/noema_patched_test.%ld.gguf", (long)getpid());
  if (nm_write_random("tiny", "F32", 3, path, NULL, &err)) fail_msg("%s", err.text);
  nm_model *m = open_model(path);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  int n = m->n_ctx < 700 ? m->n_ctx : 700;
  int32_t *ids = malloc(sizeof *ids * (size_t)n);
  float *v = malloc(sizeof *v * (size_t)m->D), *z = malloc(sizeof *z * 2 * (size_t)m->V);
  for (int i = 0; i < n; i++) ids[i] = (i * 37 + 5) % m->V;
  for (int i = 0; i < m->D; i++) v[i] = (float)(i % 7) * 0.1f;
  struct nm__patch p[] = {{{NM__S_EMBED, -1, 0, 0}, n - 20, v}, {{NM__S_EMBED, -1, 0, 0}, 3, v},
                          {{NM__S_MLP_OUT, 1, 0, 0}, 5, v}};
  struct nm__base *b;
  struct taken t = {z, 0, (size_t)m->V};
  struct nm__patched both = {p, 3}, none = {NULL, 0}, one = {p + 2, 1};
  nm_seq s = {ids, (size_t)n};
  if (nm__base_open(e, s, p, 2, &b, &err)) fail_msg("%s", err.text);
  if (nm__base_run(b, (struct nm__patched[]){none, one}, 2, take, &t, &err))
    fail_msg("%s", err.text);
  same_as_edits(e, s, &(struct nm__patched){p, 2}, nm__base_logits(b), "base");
  same_as_edits(e, s, &(struct nm__patched){p, 2}, z, "nothing patched");
  same_as_edits(e, s, &both, z + m->V, "patched");
  struct nm__patched bad = {p, 1};
  assert_int_equal(nm__base_run(b, &bad, 1, take, &t, &err), NM_EUSAGE);
  nm__base_close(b);
  free(ids);
  free(v);
  free(z);
  nm_engine_free(e);
  nm_model_close(m);
  unlink(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_families),
                                     cmocka_unit_test(test_a_patched_base)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
