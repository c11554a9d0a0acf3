/* embed_test.c - sentence vectors: each pooling by hand from the tapped rows, length one, what
 * the file says, the same bits in any company, edits, refusals, interruption, saving. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "file/npy.h"
#include "model_run.h"

enum { N_SEQS = 4 };
static char bert[80], scratch[80];
static const char *const models[] = {bert, PLANTED};
static const char *const last_site[] = {"enc.blk.1.resid_post", "final_norm"};

static int begin(void **state) {
  (void)state;
  nm_err err = {0};
  snprintf(bert, sizeof bert, "/tmp/noema_embed_test.%ld.gguf", (long)getpid());
  snprintf(scratch, sizeof scratch, "/tmp/noema_embed_test.%ld.scratch", (long)getpid());
  if (nm_write_random("tiny-bert", "F32", 8, bert, NULL, &err)) fail_msg("%s", err.text);
  return 0;
}
static int end(void **state) {
  (void)state;
  unlink(bert);
  unlink(scratch);
  return 0;
}

/* Four texts; the first 6 ids of all but the second are the same. */
static const nm_seq *texts(const nm_model *m) {
  static int32_t ids[N_SEQS][40];
  static nm_seq s[N_SEQS];
  static const size_t len[N_SEQS] = {17, 1, 40, 9};
  for (size_t i = 0; i < N_SEQS; i++) {
    s[i] = (nm_seq){ids[i], len[i]};
    for (int k = 0; k < 40; k++) ids[i][k] = (k < 6 ? k * 11 + 1 : k * 31 + (int)i * 7 + 2) % m->V;
  }
  return s;
}

static nm_vectors embed(nm_engine *e, const nm_seq *s, size_t n, nm_embed_opts o) {
  nm_vectors v;
  nm_err err = {0};
  if (nm_embed(e, s, n, &o, &v, &err)) fail_msg("%s", err.text);
  return v;
}

static void is_row(const nm_vectors *v, size_t text, const float *want) {
  assert_memory_equal(v->v + v->first[text] * (size_t)v->D, want, (size_t)v->D * 4);
}

/* ---- what pooling is --------------------------------------------------------- */

static void mean_is(const nm_vectors *v, size_t text, const struct rows *r, const char *site,
                    int n) {
  for (int d = 0; d < v->D; d++) {
    double sum = 0;
    for (int p = 0; p < n; p++) sum += (double)row_of(r, site, text, p, v->D)[d];
    assert_true(v->v[v->first[text] * (size_t)v->D + (size_t)d] == (float)(sum / n));
  }
}

static void poolings(void **state) {
  (void)state;
  for (int k = 0; k < 2; k++) {
    nm_model *m = open_model(models[k]);
    nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2, .chunk = 7});
    const nm_seq *s = texts(m);
    nm_tap tap = {last_site[k], "all"};
    struct rows r = run_rows(e, (nm_request){.seqs = s, .n_seqs = N_SEQS, .taps = &tap,
                                             .n_taps = 1});
    nm_vectors none = embed(e, s, N_SEQS, (nm_embed_opts){NM_POOL_NONE, true, NULL, NULL}),
               mean = embed(e, s, N_SEQS, (nm_embed_opts){NM_POOL_MEAN, true, NULL, NULL}),
               last = embed(e, s, N_SEQS, (nm_embed_opts){NM_POOL_LAST, true, NULL, NULL});
    assert_int_equal(none.first[N_SEQS], 17 + 1 + 40 + 9);
    assert_int_equal(mean.first[N_SEQS], N_SEQS);
    for (size_t i = 0; i < N_SEQS; i++) {
      int n = (int)s[i].n;
      for (int p = 0; p < n; p++)
        assert_memory_equal(none.v + (none.first[i] + (size_t)p) * (size_t)m->D,
                            row_of(&r, last_site[k], i, p, m->D), (size_t)m->D * 4);
      is_row(&last, i, row_of(&r, last_site[k], i, n - 1, m->D));
      mean_is(&mean, i, &r, last_site[k], n);
    }
    if (k == 0) {
      nm_vectors cls = embed(e, s, N_SEQS, (nm_embed_opts){NM_POOL_CLS, true, NULL, NULL});
      for (size_t i = 0; i < N_SEQS; i++) is_row(&cls, i, row_of(&r, last_site[k], i, 0, m->D));
      nm_vectors_free(&cls);
    }
    nm_vectors_free(&none);
    nm_vectors_free(&mean);
    nm_vectors_free(&last);
    rows_done(&r);
    nm_engine_free(e);
    nm_model_close(m);
  }
}

/* Divided by its length a vector has length one and the same direction. */
static void length_one(void **state) {
  (void)state;
  nm_model *m = open_model(bert);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  const nm_seq *s = texts(m);
  for (int p = NM_POOL_NONE; p <= NM_POOL_LAST; p++) {
    nm_vectors one = embed(e, s, N_SEQS, (nm_embed_opts){(enum nm_pooling)p, false, NULL, NULL}),
               raw = embed(e, s, N_SEQS, (nm_embed_opts){(enum nm_pooling)p, true, NULL, NULL});
    for (size_t r = 0; r < one.first[N_SEQS]; r++) {
      const float *x = one.v + r * (size_t)m->D, *y = raw.v + r * (size_t)m->D;
      double sq = 0;
      for (int i = 0; i < m->D; i++) sq += (double)x[i] * (double)x[i];
      assert_true(fabs(sqrt(sq) - 1) < 1e-6);
      assert_true(fabs(nm_cosine(x, y, m->D) - 1) < 1e-6);
    }
    nm_vectors_free(&one);
    nm_vectors_free(&raw);
  }
  nm_engine_free(e);
  nm_model_close(m);
}

static void cosines(void **state) {
  (void)state;
  const float a[] = {3, 0, 4}, b[] = {-6, 0, -8}, c[] = {0, 2, 0}, zero[] = {0, 0, 0};
  assert_true(nm_cosine(a, a, 3) == 1 && nm_cosine(a, b, 3) == -1 && nm_cosine(a, c, 3) == 0);
  assert_true(nm_cosine(a, zero, 3) == 0 && nm_cosine(zero, zero, 3) == 0);
}

/* ---- what the file says ---------------------------------------------------------- */

static nm_model *with_pooling(int type) {
  struct nm__gguf *g;
  struct nm__gguf_writer *w;
  nm_err err = {0};
  nm_model *m;
  assert_int_equal(nm__gguf_open(bert, &g, NULL), 0);
  assert_int_equal(nm__gguf_writer_new(&w, NULL), 0);
  for (size_t i = 0; i < g->n_kv; i++)
    if (strcmp(g->kv[i].key, "bert.pooling_type")) nm__gguf_put_kv(w, &g->kv[i]);
  if (type >= 0) nm__gguf_put_u32(w, "bert.pooling_type", (uint32_t)type);
  for (size_t i = 0; i < g->n_tensors; i++)
    nm__gguf_announce(w, g->tensors[i].name, g->tensors[i].type, g->tensors[i].n_dims,
                      g->tensors[i].ne);
  assert_int_equal(nm__gguf_begin(w, scratch, NULL), 0);
  for (size_t i = 0; i < g->n_tensors; i++)
    assert_int_equal(nm__gguf_data(w, g->tensors[i].data, g->tensors[i].bytes, NULL), 0);
  assert_int_equal(nm__gguf_finish(w, NULL), 0);
  nm__gguf_writer_free(w);
  nm__gguf_close(g);
  if (nm_model_open(scratch, &m, &err)) fail_msg("%s", err.text);
  return m;
}

static void defaults(void **state) {
  (void)state;
  static const struct { int type; enum nm_pooling want; } cases[] = {
      {-1, NM_POOL_MEAN}, {0, NM_POOL_NONE}, {1, NM_POOL_MEAN}, {2, NM_POOL_CLS},
      {3, NM_POOL_LAST}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    nm_model *m = with_pooling(cases[i].type);
    nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
    nm_vectors v = embed(e, texts(m), 2, (nm_embed_opts){0});
    assert_int_equal(v.pooling, cases[i].want);
    nm_vectors_free(&v);
    nm_engine_free(e);
    nm_model_close(m);
  }
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  nm_vectors v = embed(e, texts(m), 2, (nm_embed_opts){0});
  assert_int_equal(v.pooling, NM_POOL_LAST);
  nm_vectors_free(&v);
  nm_engine_free(e);
  nm_model_close(m);
}

static void refusals(void **state) {
  (void)state;
  nm_model *m = with_pooling(4), *d = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1}),
            *causal = new_engine(d, (nm_engine_opts){.threads = 1});
  nm_vectors v;
  nm_err err = {0};
  nm_embed_opts cls = {.pooling = NM_POOL_CLS}, rank = {.pooling = NM_POOL_RANK};
  assert_int_equal(nm_embed(e, texts(m), 1, NULL, &v, &err), NM_EFORMAT);
  assert_true(strstr(err.text, "is a reranker") && !v.v && !v.first);
  assert_int_equal(nm_embed(e, texts(m), 1, &rank, &v, &err), NM_EUSAGE);
  v = embed(e, texts(m), 1, cls);              /* asked for by name it is given */
  nm_vectors_free(&v);
  assert_int_equal(nm_embed(causal, texts(d), 1, &cls, &v, &err), NM_EUSAGE);
  assert_true(strstr(err.text, "sees nothing but itself"));
  nm_seq outside = {(const int32_t[]){1 << 20}, 1};
  assert_int_equal(nm_embed(e, &outside, 1, &cls, &v, &err), NM_EFORMAT);
  assert_true(strstr(err.text, "outside the vocabulary") && !v.v);
  assert_int_equal(nm_embed(e, NULL, 0, &cls, &v, &err), 0);
  assert_int_equal(v.n, 0);
  nm_vectors_free(&v);
  nm_engine_free(e);
  nm_engine_free(causal);
  nm_model_close(m);
  nm_model_close(d);
}

static void names(void **state) {
  (void)state;
  enum nm_pooling p;
  for (int i = NM_POOL_DEFAULT; i <= NM_POOL_RANK; i++) {
    assert_true(nm_pooling_by_name(nm_pooling_name((enum nm_pooling)i), &p));
    assert_int_equal(p, i);
  }
  assert_false(nm_pooling_by_name("max", &p));
}

/* ---- in any company ---------------------------------------------------------------- */

static void same_bits(void **state) {
  (void)state;
  static const nm_engine_opts o[] = {{.threads = 3}, {.threads = 2, .batch = 1},
                                     {.threads = 2, .chunk = 3, .batch = 2},
                                     {.threads = 5, .kernels = "portable"}};
  for (int k = 0; k < 2; k++)
    for (int p = NM_POOL_MEAN; p <= NM_POOL_LAST; p += NM_POOL_LAST - NM_POOL_MEAN) {
      nm_model *m = open_model(models[k]);
      nm_engine *one = new_engine(m, (nm_engine_opts){.threads = 1});
      const nm_seq *s = texts(m);
      nm_embed_opts how = {.pooling = (enum nm_pooling)p};
      for (size_t i = 0; i < sizeof o / sizeof *o; i++) {
        nm_engine *e = new_engine(m, o[i]);
        nm_seq turned[N_SEQS] = {s[2], s[0], s[3], s[2]};      /* each starts alike: shared */
        nm_vectors v = embed(e, turned, N_SEQS, how);
        for (size_t q = 0; q < N_SEQS; q++) {
          nm_vectors alone = embed(one, &turned[q], 1, how);
          is_row(&v, q, alone.v);
          nm_vectors_free(&alone);
        }
        nm_vectors_free(&v);
        nm_engine_free(e);
      }
      nm_engine_free(one);
      nm_model_close(m);
    }
}

/* ---- edits, interruption, files ------------------------------------------------------- */

/* Edits act before pooling; a vector of zeros stays what it is. */
static void edited(void **state) {
  (void)state;
  nm_model *m = open_model(bert);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  const nm_seq *s = texts(m);
  nm_edits *zero = parse_edits("{\"site\": \"enc.blk.1.resid_post\", \"op\": \"zero\"}"),
           *head = parse_edits("{\"site\": \"enc.blk.0.attn.head[1]\", \"at\": \"0\", \"op\": \"zero\"}");
  nm_vectors v = embed(e, s, 2, (nm_embed_opts){.edits = zero}),
             w = embed(e, s, 2, (nm_embed_opts){.edits = head}),
             plain = embed(e, s, 2, (nm_embed_opts){0});
  for (int i = 0; i < 2 * m->D; i++) assert_true(v.v[i] == 0);
  assert_int_equal(nm_edits_touched(zero, 0), 17 + 1);
  assert_int_equal(nm_edits_touched(head, 0), 2);
  assert_memory_not_equal(w.v, plain.v, (size_t)m->D * 4);
  nm_vectors_free(&v);
  nm_vectors_free(&w);
  nm_vectors_free(&plain);
  nm_edits_free(zero);
  nm_edits_free(head);
  nm_engine_free(e);
  nm_model_close(m);
}

static int stop_now(void *arg, const char *what, double done, double total) {
  (void)what;
  assert_true(done <= total);
  return --*(int *)arg < 0;
}

static void interrupted(void **state) {
  (void)state;
  nm_model *m = open_model(bert);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1, .batch = 1});
  int left = 2;
  nm_progress p = {stop_now, &left};
  nm_vectors v;
  nm_err err = {0};
  nm_embed_opts o = {.progress = &p};
  assert_int_equal(nm_embed(e, texts(m), N_SEQS, &o, &v, &err), NM_EINTR);
  assert_true(!v.v && !v.first);
  nm_engine_free(e);
  nm_model_close(m);
}

static void saved(void **state) {
  (void)state;
  nm_model *m = open_model(bert);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  nm_vectors v = embed(e, texts(m), 3, (nm_embed_opts){0}),
             all = embed(e, texts(m), 3, (nm_embed_opts){.pooling = NM_POOL_NONE}),
             one = embed(e, texts(m), 1, (nm_embed_opts){.pooling = NM_POOL_NONE});
  struct nm__npy a;
  nm_err err = {0};
  assert_int_equal(nm_vectors_save(&v, scratch, &err), 0);
  assert_int_equal(nm__npy_read(scratch, &a, &err), 0);
  assert_true(a.n_dims == 2 && a.ne[0] == 3 && a.ne[1] == m->D);
  assert_memory_equal(a.data, v.v, (size_t)(3 * m->D) * 4);
  nm__npy_done(&a);
  assert_int_equal(nm_vectors_save(&all, scratch, &err), NM_EUSAGE);
  assert_int_equal(nm_vectors_save(&one, scratch, &err), 0);
  assert_int_equal(nm__npy_read(scratch, &a, &err), 0);
  assert_true(a.ne[0] == 17 && a.ne[1] == m->D);
  nm__npy_done(&a);
  nm_vectors_free(&v);
  nm_vectors_free(&all);
  nm_vectors_free(&one);
  nm_engine_free(e);
  nm_model_close(m);
}

/* Quantised encoders run: vectors of Q8_0 weights point where those of F16 do. */
static void quantised(void **state) {
  (void)state;
  static const char *const types[] = {"F16", "Q8_0"};
  nm_vectors v[2];
  for (int i = 0; i < 2; i++) {
    nm_err err = {0};
    if (nm_write_random("tiny-bert", types[i], 8, scratch, NULL, &err)) fail_msg("%s", err.text);
    nm_model *m = open_model(scratch);
    nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
    v[i] = embed(e, texts(m), N_SEQS, (nm_embed_opts){0});
    nm_engine_free(e);
    nm_model_close(m);
  }
  for (int i = 0; i < N_SEQS; i++)
    assert_true(nm_cosine(v[0].v + i * v[0].D, v[1].v + i * v[0].D, v[0].D) > 0.999);
  nm_vectors_free(&v[0]);
  nm_vectors_free(&v[1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(poolings),  cmocka_unit_test(length_one),  cmocka_unit_test(cosines),
      cmocka_unit_test(defaults),  cmocka_unit_test(refusals),    cmocka_unit_test(names),
      cmocka_unit_test(same_bits), cmocka_unit_test(edited),      cmocka_unit_test(interrupted),
      cmocka_unit_test(saved),     cmocka_unit_test(quantised),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
