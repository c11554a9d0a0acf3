/* lens_test.c - the lens of the last block is the model's own logits bit for bit, in every family;
 * figures recomputed from logits; the planted model turns where it was wired to; columns of
 * weights against a product by hand; the controls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "look/lens.h"
#include "model_run.h"

enum { T = 7 };
static const int32_t some_ids[T] = {1, 2, 0, 2, 1, 1, 2};

/* ---- the model's end ------------------------------------------------------------- */

struct got { float *v; int V; int64_t n; };

static int take(void *arg, int64_t first, int64_t n, const float *z, nm_err *err) {
  struct got *g = arg;
  (void)err;
  assert_true(first == g->n && n <= 32);
  memcpy(g->v + first * g->V, z, sizeof *z * (size_t)(n * g->V));
  g->n += n;
  return 0;
}

/* Soft caps (gemma2), layer norms with biases (gpt2), tied and untied heads, stored types. */
static const char *const models[] = {
    PLANTED, SHARED "reference/llama/model.gguf", SHARED "reference/gemma2/model.gguf",
    SHARED "reference/gemma3/model.gguf", SHARED "reference/gpt2/model.gguf",
    SHARED "reference/olmo2/model.gguf", SHARED "reference/falcon/model.gguf",
    SHARED "reference/qwen2moe/model.gguf", SHARED "reference/quant/qwen2-q8_0/model.gguf",
    SHARED "models/stories260K/stories260K.Q4_0.gguf"};

static void last_is_the_model(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    if (i && no_shared()) return;
    nm_model *m = open_model(models[i]);
    nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1 + (int)i % 3});
    char last[64];
    at_layer(last, m->L - 1, "resid_post");
    struct rows x = tap_one(e, some_ids, T, last, "all", NULL),
                z = tap_one(e, some_ids, T, "logits", "all", NULL);
    enum { N = 40 };                                       /* more than one batch of 32 */
    float *rows = calloc((size_t)N * (size_t)m->D, sizeof *rows);
    for (int k = 0; k < N; k++)
      memcpy(rows + k * m->D, x.v[k % T].v, sizeof *rows * (size_t)m->D);
    struct got g = {malloc(sizeof(float) * (size_t)N * (size_t)m->V), m->V, 0};
    nm_err err = {0};
    if (nm__unembed(e, rows, N, take, &g, &err)) fail_msg("%s: %s", models[i], err.text);
    assert_int_equal(g.n, N);
    for (int k = 0; k < N; k++)
      if (memcmp(g.v + k * m->V, z.v[k % T].v, sizeof(float) * (size_t)m->V))
        fail_msg("%s: row %d differs from the model's logits", models[i], k);
    free(rows);
    free(g.v);
    rows_done(&x);
    rows_done(&z);
    nm_engine_free(e);
    nm_model_close(m);
  }
}

/* ---- cells ------------------------------------------------------------------------ */

/* Every figure of a cell from the logits of its row, by other means. */
static void cells(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  nm_seq seqs[2] = {{some_ids, T}, {some_ids + 2, 3}};
  nm_lens_result r;
  nm_err err = {0};
  nm_lens_opts o = {.top = 4, .target = 323, .seed = 3};
  if (nm_lens(e, seqs, 2, &o, &r, &err)) fail_msg("%s", err.text);
  assert_true(r.n_rows == m->L + 1 && r.n_cols == T + 3);
  assert_string_equal(r.row[0].name, "embed");
  struct rows all = tap_one(e, some_ids, T, "embed|blk.*.resid_post|logits", "all", NULL);
  struct got g = {malloc(sizeof(float) * (size_t)m->V), m->V, 0};
  double *lp = malloc(sizeof *lp * (size_t)m->V), *own = malloc(sizeof *lp * (size_t)m->V);
  for (int i = 0; i < r.n_rows; i++)
    for (int p = 0; p < T; p++) {
      const nm_lens_cell *c = &r.cell[(size_t)i * r.n_cols + (size_t)p];
      g.n = 0;
      assert_int_equal(nm__unembed(e, row_of(&all, r.row[i].name, 0, p, m->D), 1, take, &g, NULL),
                       0);
      nm_log_softmax(g.v, m->V, lp);
      nm_log_softmax(row_of(&all, "logits", 0, p, m->V), m->V, own);
      double entropy = 0, kl = 0;
      int answer = 0, rank = 1, t_rank = 1;
      for (int v = 0; v < m->V; v++) {
        entropy -= exp(lp[v]) * lp[v];
        kl += exp(own[v]) * (own[v] - lp[v]);
        if (own[v] > own[answer]) answer = v;
      }
      for (int v = 0; v < m->V; v++) {
        rank += g.v[v] > g.v[answer] || (v < answer && g.v[v] == g.v[answer]);
        t_rank += g.v[v] > g.v[323] || (v < 323 && g.v[v] == g.v[323]);
      }
      assert_true(fabs(c->entropy - entropy) < 1e-9 && fabs(c->kl - kl) < 1e-9);
      assert_true(r.col[p].answer == answer && c->rank == rank && c->target_rank == t_rank);
      assert_true(fabs(c->lp - lp[answer]) < 1e-12 && fabs(c->target_lp - lp[323]) < 1e-12);
      for (int k = 1; k < 4; k++) assert_true(c->top[k - 1].lp >= c->top[k].lp);
      assert_true((c->rank == 1) == (c->top[0].id == answer));
      if (i == r.n_rows - 1) assert_true(c->rank == 1 && c->kl == 0);
    }
  for (size_t c = 0; c < r.n_cols; c++) {
    int d = r.n_rows;
    while (d > 0 && r.cell[(size_t)(d - 1) * r.n_cols + c].rank == 1) d--;
    assert_int_equal(r.col[c].decided, d);
  }
  free(g.v);
  free(lp);
  free(own);
  rows_done(&all);
  nm_lens_result_free(&r);
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- the planted turn ---------------------------------------------------------------- */

static int32_t id_of(const nm_model *m, const char *word) {
  int32_t *ids, id;
  size_t n;
  assert_int_equal(nm_tokenize(m, word, strlen(word), NM_NO_BOS, &ids, &n, NULL), 0);
  assert_int_equal(n, 1);
  id = ids[0];
  nm_free(ids);
  return id;
}

/* "yes" comes up at block 2 and not before, "no" when it was day; the permuted row never leads. */
static void planted_turn(void **state) {
  (void)state;
  static const struct { const char *text, *yes, *no;
  } cases[] = {{"ann saw the red fox by night ?", "yes", "no"},
               {"ann saw the red fox by day ?", "no", "yes"},
               {"eve saw the blue fox by day ?", "yes", "no"},
               {"hal saw the blue fox by night ?", "no", "yes"}};
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  for (int i = 0; i < 4; i++)
    for (int which = 0; which < 2; which++) {
      int32_t *ids;
      size_t n;
      nm_lens_result r;
      assert_int_equal(nm_tokenize(m, cases[i].text, strlen(cases[i].text), 0, &ids, &n, NULL), 0);
      nm_seq seq = {ids, n};
      nm_lens_opts o = {.at = "last", .target = id_of(m, which ? cases[i].no : cases[i].yes)};
      assert_int_equal(nm_lens(e, &seq, 1, &o, &r, NULL), 0);
      for (int k = 0; k < r.n_rows; k++) {
        int rank = r.cell[k].target_rank, block = r.row[k].layer;
        if (!which) assert_true(block < 2 ? rank > 300 : rank == 2);   /* behind the name alone */
        else assert_true(rank > 300);
        assert_true(block < 0 || r.cell[k].control > 100);
      }
      assert_int_equal(r.col[0].decided, 1);                 /* the name is copied in block 0 */
      nm_lens_result_free(&r);
      nm_free(ids);
    }
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- columns ---------------------------------------------------------------------------- */

/* Logits of a column by hand in double: RMSNorm of it, times the head. */
static void column_logits(const nm_model *m, const char *tensor, int64_t col, double *z) {
  const struct nm__gguf_tensor *t = nm__gguf_tensor(m->g, tensor);
  float line[4096], w[1024];
  double v[1024], sq = 0;
  assert_true(t && t->ne[0] <= 4096 && m->D <= 1024);
  for (int d = 0; d < m->D; d++) {
    nm__dtype(t->type)->to_f32(line, t->data + (size_t)d * (t->bytes / (uint64_t)m->D), t->ne[0]);
    v[d] = (double)line[col];
    sq += v[d] * v[d] / m->D;
  }
  nm__dtype(m->out_norm.type)->to_f32(w, m->out_norm.data, m->D);
  for (int i = 0; i < m->V; i++) {
    nm__dtype(m->output.type)->to_f32(line, m->output.data + (size_t)i * m->output.row_bytes, m->D);
    z[i] = 0;
    for (int d = 0; d < m->D; d++) z[i] += v[d] / sqrt(sq) * (double)w[d] * (double)line[d];
  }
}

static void scan_by_hand(const char *path, int64_t cols, int32_t target) {
  nm_model *m = open_model(path);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  double *z = malloc(sizeof *z * (size_t)m->V), top = 0;
  nm_columns_result r;
  nm_err err = {0};
  nm_columns_opts o = {
      .weights = "blk.1.ffn_down", .col = -1, .target = target, .top = 3, .best = 5};
  if (nm_columns(e, &o, &r, &err)) fail_msg("%s", err.text);
  assert_int_equal(r.scanned, cols);
  for (int64_t c = 0; c < cols; c++) {
    double mean = 0;
    column_logits(m, "blk.1.ffn_down.weight", c, z);
    for (int i = 0; i < m->V; i++) mean += z[i] / m->V;
    double s = z[target] - mean;
    top = fabs(s) > top ? fabs(s) : top;
    for (int k = 0; k < r.n; k++)
      if (r.v[k].col == c) assert_true(fabs(r.v[k].score - s) < 2e-5 * (1 + fabs(s)));
  }
  assert_true(fabs(fabs(r.v[0].score) - top) < 2e-5 * (1 + top));
  for (int k = 1; k < r.n; k++) assert_true(fabs(r.v[k - 1].score) >= fabs(r.v[k].score));
  assert_true(r.control_max >= r.control_mean && r.control_mean > 0);
  nm_columns_result one;
  nm_columns_opts p = {.weights = "blk.1.ffn_down", .col = r.v[0].col, .target = -1, .top = 3};
  assert_int_equal(nm_columns(e, &p, &one, NULL), 0);
  column_logits(m, "blk.1.ffn_down.weight", r.v[0].col, z);
  double sum = 0;
  for (int i = 0; i < m->V; i++) sum += exp(z[i]);
  for (int k = 0; k < 3; k++) {
    assert_true(one.v[0].promoted[k].id == r.v[0].promoted[k].id);
    assert_true(fabs(one.v[0].promoted[k].lp - (z[one.v[0].promoted[k].id] - log(sum))) < 1e-3);
    assert_true(fabs(one.v[0].suppressed[k].lp - (z[one.v[0].suppressed[k].id] - log(sum))) < 1e-3);
  }
  nm_columns_result_free(&one);
  nm_columns_result_free(&r);
  free(z);
  nm_engine_free(e);
  nm_model_close(m);
}

static void columns(void **state) {
  (void)state;
  if (no_shared()) return;
  scan_by_hand(SHARED "models/stories260K/stories260K.f32.gguf", 172, 400);
  scan_by_hand(SHARED "models/stories260K/stories260K.Q4_0.gguf", 172, 300);
}

/* The MLP of block 2 writes A against "yes": its columns are found, with their sign. */
static void planted_columns(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  nm_columns_result r;
  nm_columns_opts o = {.weights = "blk.*.ffn_down.weight", .col = -1, .target = id_of(m, "yes"),
                       .top = 1, .best = 2};
  assert_int_equal(nm_columns(e, &o, &r, NULL), 0);
  assert_int_equal(r.n, 2);
  for (int k = 0; k < 2; k++) {
    assert_string_equal(r.v[k].tensor, "blk.2.ffn_down.weight");
    assert_true(r.v[k].score < -11 && r.v[k].promoted[0].id == id_of(m, "no") &&
                r.v[k].suppressed[0].id == id_of(m, "yes"));
  }
  nm_columns_result_free(&r);
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- refusals ------------------------------------------------------------------------------ */

static void refusals(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  nm_seq seq = {some_ids, T};
  const struct { nm_lens_opts o; const char *part; } cases[] = {
      {{.site = "attn.head", .target = -1}, "reads the residual stream"},
      {{.site = "final_norm", .target = -1}, "matches nothing"},
      {{.site = "*final_norm", .target = -1}, "reads the residual stream"},
      {{.site = "blk.1.resid_post[3]", .target = -1}, "whole"},
      {{.at = "99", .target = -1}, "outside"},
      {{.target = 1 << 20}, "outside the vocabulary"},
      {{.top = 100000, .target = -1}, "--top"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    nm_lens_result r;
    nm_err err = {0};
    int st = nm_lens(e, &seq, 1, &cases[i].o, &r, &err);
    if (st != NM_EUSAGE || !strstr(err.text, cases[i].part))
      fail_msg("%zu: %d %s", i, st, err.text);
  }
  const struct { nm_columns_opts o; const char *part; } wrong[] = {
      {{.weights = "blk.1.ffn_up", .col = 0, .target = -1}, "does not write into the stream"},
      {{.weights = "nothing", .col = 0, .target = -1}, "matches no tensor"},
      {{.weights = "blk.1.ffn_down", .col = 99, .target = -1}, "has the columns 0 to 15"},
      {{.weights = "blk.*.ffn_down", .col = 1, .target = -1}, "needs one matrix"},
      {{.weights = "blk.0.ffn_down", .col = 1, .target = -1}, "is all zeros"},
      {{.weights = "blk.1.ffn_down", .col = -1, .target = -1}, "either a column or a token"}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    nm_columns_result r;
    nm_err err = {0};
    int st = nm_columns(e, &wrong[i].o, &r, &err);
    if (st != NM_EUSAGE || !strstr(err.text, wrong[i].part))
      fail_msg("%zu: %d %s", i, st, err.text);
  }
  nm_engine_free(e);
  nm_model_close(m);
  if (no_shared()) return;
  m = open_model(SHARED "reference/bert/model.gguf");
  e = new_engine(m, (nm_engine_opts){.threads = 1});
  nm_lens_result r;
  nm_err err = {0};
  assert_int_equal(nm_lens(e, &seq, 1, &(nm_lens_opts){.target = -1}, &r, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "no vocabulary head"));
  nm_engine_free(e);
  nm_model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(last_is_the_model), cmocka_unit_test(cells), cmocka_unit_test(planted_turn),
      cmocka_unit_test(columns), cmocka_unit_test(planted_columns), cmocka_unit_test(refusals)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
