/* edit_weight_test.c - edits of weights: against edits of the activation that the row or column
 * makes or reads, against models whose weights were changed, on every stored type, with experts and
 * tied embeddings; what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/delta.h"
#include "model_run.h"
#include "tensor/math.h"

#define REF SHARED "reference/"
enum { T = 8 };
static const int32_t ids[T] = {1, 3, 2, 5, 4, 3, 7, 6};

static struct rows with(const nm_model *m, const char *json) {
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  nm_edits *edits = json ? parse_edits(json) : NULL;
  struct rows r = tap_one(e, ids, T, "*", "all", edits);
  nm_edits_free(edits);
  nm_engine_free(e);
  return r;
}

/* The largest difference at sites of this name; of all where it is NULL. */
static double far(const struct rows *a, const struct rows *b, const char *site) {
  double d = 0;
  assert_int_equal(a->n, b->n);
  for (size_t i = 0; i < a->n; i++)
    for (int64_t k = 0; k < a->v[i].n; k++)
      if ((!site || !strcmp(a->site[a->v[i].site].name, site)) &&
          a->v[i].v[k] != b->v[i].v[k])
        d = fmax(d, fabs((double)a->v[i].v[k] - (double)b->v[i].v[k]));
  return d;
}

/* Two ways to the same change of the logits, which the base does not have. */
static void same_effect(const nm_model *m, const char *one, const char *other, const char *what) {
  struct rows base = with(m, NULL), a = with(m, one), b = with(m, other);
  double moved = far(&base, &a, "logits"), off = far(&a, &b, "logits");
  print_message("measured: %-34s moved %.1e, the other way differs by %.1e\n", what, moved, off);
  if (!(moved > 1e-3 && off < 3e-5 * (1 + moved))) fail_msg("%s: not the same", what);
  rows_done(&base);
  rows_done(&a);
  rows_done(&b);
}

/* A column of ffn_down reads one neuron, a row of ffn_up makes it; a column of attn_output reads one
 * dimension of a head. */
static void against_activations(void **state) {
  (void)state;
  static const char *const models[] = {
      "reference/llama", "reference/qwen2", "reference/gemma2", "models/arch/llama",
      "reference/quant/llama-q4_k", "reference/quant/llama-q6_k", "reference/quant/llama-q4_0",
      "reference/quant/llama-q2_k", "reference/quant/llama-iq4_nl", "reference/quant/llama-f16",
      "reference/quant/llama-bf16"};
  if (no_shared()) return;
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    char path[200];
    snprintf(path, sizeof path, SHARED "%s/model.gguf", models[i]);
    nm_model *m = open_model(path);
    same_effect(m, "{\"weight\": \"blk.1.ffn_down.weight\", \"col\": 17, \"op\": \"zero\"}",
                "{\"site\": \"blk.1.mlp.act[17]\", \"op\": \"zero\"}", models[i]);
    same_effect(m, "{\"weight\": \"blk.1.ffn_up.weight\", \"row\": 3, \"op\": \"zero\"}",
                "{\"site\": \"blk.1.mlp.up[3]\", \"op\": \"zero\"}", "a row");
    same_effect(m, "{\"weight\": \"blk.0.ffn_down.weight\", \"col\": 9, \"op\": \"zero\", "
                   "\"scale\": 0.5}",
                "{\"site\": \"blk.0.mlp.act[9]\", \"op\": \"scale\", \"scale\": 0.5}", "half");
    nm_model_close(m);
  }
}

/* Fused matrices, and both uses of a tied one. */
static void fused_and_tied(void **state) {
  (void)state;
  if (no_shared()) return;
  nm_model *m = open_model(REF "phi3/model.gguf");
  char json[200];
  snprintf(json, sizeof json, "{\"weight\": \"blk.1.ffn_up.weight\", \"row\": %d, \"op\": "
           "\"zero\"}", m->F + 3);
  same_effect(m, json, "{\"site\": \"blk.1.mlp.up[3]\", \"op\": \"zero\"}", "phi3, row of up");
  nm_model_close(m);
  m = open_model(REF "qwen2/model.gguf");
  assert_true(m->tied);
  struct rows base = with(m, NULL);
  struct rows r = with(m, "{\"weight\": \"token_embd.weight\", \"row\": 5, \"op\": \"zero\"}");
  for (int p = 0; p < T; p++) {
    const float *x = row_of(&r, "embed", 0, p, m->D), *was = row_of(&base, "embed", 0, p, m->D);
    for (int k = 0; k < m->D; k++) assert_true(x[k] == (ids[p] == 5 ? 0 : was[k]));
    assert_true(row_of(&r, "logits", 0, p, m->V)[5] == 0);
    assert_true(row_of(&base, "logits", 0, p, m->V)[5] != 0);
  }
  assert_memory_equal(row_of(&r, "logits", 0, 0, m->V), row_of(&base, "logits", 0, 0, m->V), 20);
  rows_done(&base);
  rows_done(&r);
  nm_model_close(m);
}

/* One expert's neuron: that element of moe.act, at the positions that chose the expert. */
static void experts(void **state) {
  (void)state;
  static const char *const models[] = {"mixtral", "qwen2moe"};
  if (no_shared()) return;
  for (int i = 0; i < 2; i++) {
    char path[200];
    snprintf(path, sizeof path, REF "%s/model.gguf", models[i]);
    nm_model *m = open_model(path);
    for (int e = 0; e < m->moe.n; e++) {
      char json[200];
      snprintf(json, sizeof json, "{\"weight\": \"blk.0.ffn_down_exps.weight\", \"expert\": %d, "
               "\"col\": 2, \"op\": \"zero\"}", e);
      struct nm__buf act;          /* takes neuron 2 out of the expert's */
      nm__buf_init(&act, 10000);
      nm__buf_printf(&act, "{\"site\": \"blk.0.moe.act[%d]\", \"op\": \"project_out\", "
                     "\"vector\": [0, 0, 1", e);
      for (int k = 3; k < m->moe.F; k++) nm__buf_puts(&act, ", 0");
      nm__buf_puts(&act, "]}");
      struct rows a = with(m, json), b = with(m, act.s), base = with(m, NULL);
      nm__buf_done(&act);
      if (!(far(&a, &b, "logits") < 3e-5 && far(&a, &b, "blk.0.mlp_out") < 3e-5))
        fail_msg("%s, expert %d", models[i], e);
      if (far(&base, &b, "logits") > 1e-3) assert_true(far(&base, &a, "logits") > 1e-3);
      rows_done(&a);
      rows_done(&b);
      rows_done(&base);
    }
    nm_model_close(m);
  }
}

/* add of a vector and noise of a seed, against the numbers by hand: y' = y + scale v x[col]. */
static void add_and_noise(void **state) {
  (void)state;
  struct nm__buf b;
  nm_model *m = open_model(PLANTED);
  float v[64], w[64];
  assert_true(m->D <= 64);
  const struct nm__layer *l = &m->layer[2];
  for (int i = 0; i < m->D; i++) v[i] = (float)(i % 7) / 8 - 0.25f;
  nm__buf_init(&b, 10000);
  nm__buf_printf(&b, "[{\"weight\": \"blk.2.ffn_down.weight\", \"col\": 3, \"op\": \"add\", "
                 "\"scale\": 0.5, \"vector\": [");
  for (int i = 0; i < m->D; i++) nm__buf_printf(&b, "%s%.9g", i ? "," : "", (double)v[i]);
  nm__buf_puts(&b, "]}, {\"weight\": \"blk.2.ffn_down.weight\", \"col\": 4, \"op\": \"noise\", "
                   "\"scale\": 2, \"seed\": 7}]");
  struct rows base = with(m, NULL), r = with(m, b.s), again = with(m, b.s);
  assert_same_rows(&r, &again, "noise of one seed");
  double rms = 0;
  for (int i = 0; i < m->D; i++) {
    float row[64];
    nm__dtype(l->down.type)->to_f32(row, l->down.data + (size_t)i * l->down.row_bytes, m->F);
    rms += (double)row[4] * (double)row[4] / m->D;
  }
  const char *name = "blk.2.ffn_down.weight";
  nm__normals(w, m->D, sqrt(rms), 7, nm__hash(name, strlen(name), 4 * 2));
  for (int p = 0; p < T; p++) {
    const float *act = row_of(&base, "blk.2.mlp.act", 0, p, m->F);
    const float *was = row_of(&base, "blk.2.mlp_out", 0, p, m->D),
                *is = row_of(&r, "blk.2.mlp_out", 0, p, m->D);
    for (int i = 0; i < m->D; i++) {
      double want = (double)was[i] + 0.5 * (double)v[i] * (double)act[3] +
                    2 * (double)w[i] * (double)act[4];
      if (fabs((double)is[i] - want) > 1e-5 * (1 + fabs(want))) fail_msg("row %d: %g", i, want);
    }
  }
  nm__buf_done(&b);
  rows_done(&base);
  rows_done(&r);
  rows_done(&again);
  nm_model_close(m);
}

/* Strength 0 changes no bit; what was touched is counted; edits of both kinds stand together. */
static void counts(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  struct rows base = with(m, NULL);
  struct rows zero = with(m, "[{\"weight\": \"blk.0.ffn_up.weight\", \"row\": 1, \"op\": \"zero\", "
                             "\"scale\": 0}, {\"weight\": \"token_embd.weight\", \"col\": 0, "
                             "\"op\": \"noise\", \"scale\": 0}]");
  assert_same_rows(&base, &zero, "strength 0");
  nm_edits *e = parse_edits("{\"edits\": [{\"weight\": \"blk.0.ffn_up.weight\", \"row\": 1, "
                            "\"op\": \"zero\"}, {\"site\": \"blk.1.mlp.act\", \"op\": \"zero\"},"
                            "{\"weight\": \"blk.0.attn_q.weight\", \"col\": 1, \"op\": \"noise\","
                            "\"scale\": 0}]}");
  nm_engine *eng = new_engine(m, (nm_engine_opts){.threads = 1});
  for (int i = 0; i < 2; i++) {
    struct rows r = tap_one(eng, ids, T, "logits", "last", e);
    rows_done(&r);
  }
  assert_int_equal(nm_edits_n(e), 3);
  assert_string_equal(nm_edits_unit(e, 0), "positions");
  assert_int_equal(nm_edits_touched(e, 0), 2 * T);
  assert_string_equal(nm_edits_unit(e, 1), "weights");
  assert_string_equal(nm_edits_what(e, 1), "zero of blk.0.ffn_up.weight, row 1, scale 1");
  assert_int_equal(nm_edits_touched(e, 1), m->D);
  assert_int_equal(nm_edits_touched(e, 2), 0);
  nm_edits_free(e);
  nm_engine_free(eng);
  rows_done(&base);
  rows_done(&zero);
  nm_model_close(m);
}

/* Keys of caches: another weight, index, op, scale, seed or vector is another key. */
static void keys(void **state) {
  (void)state;
  static const char *const cases[] = {
      "{\"weight\": \"a\", \"row\": 1, \"op\": \"zero\"}",
      "{\"weight\": \"a\", \"col\": 1, \"op\": \"zero\"}",
      "{\"weight\": \"a\", \"row\": 2, \"op\": \"zero\"}",
      "{\"weight\": \"b\", \"row\": 1, \"op\": \"zero\"}",
      "{\"weight\": \"a\", \"row\": 1, \"op\": \"zero\", \"scale\": 0.5}",
      "{\"weight\": \"a\", \"row\": 1, \"op\": \"noise\"}",
      "{\"weight\": \"a\", \"row\": 1, \"op\": \"noise\", \"seed\": 1}",
      "{\"weight\": \"a\", \"row\": 1, \"op\": \"add\", \"vector\": [1]}",
      "{\"weight\": \"a\", \"row\": 1, \"op\": \"add\", \"vector\": [2]}",
      "{\"weight\": \"a\", \"row\": 1, \"expert\": 1, \"op\": \"zero\"}"};
  enum { N = sizeof cases / sizeof *cases };
  struct nm__buf b[N];
  for (int i = 0; i < N; i++) {
    nm_edits *e = parse_edits(cases[i]);
    nm__buf_init(&b[i], 10000);
    nm__edits_key(e, &b[i]);
    for (int k = 0; k < i; k++)
      assert_false(b[i].len == b[k].len && !memcmp(b[i].s, b[k].s, b[k].len));
    nm_edits_free(e);
  }
  for (int i = 0; i < N; i++) nm__buf_done(&b[i]);
}

static void refusals(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"{\"weight\": 5, \"row\": 1, \"op\": \"zero\"}", "must be the name"},
      {"{\"weight\": \"a\", \"op\": \"zero\"}", "one of row and col"},
      {"{\"weight\": \"a\", \"row\": 1, \"col\": 1, \"op\": \"zero\"}", "one of row and col"},
      {"{\"weight\": \"a\", \"row\": -1, \"op\": \"zero\"}", "whole number"},
      {"{\"weight\": \"a\", \"row\": 1.5, \"op\": \"zero\"}", "whole number"},
      {"{\"weight\": \"a\", \"row\": 1, \"op\": \"scale\"}", "zero, noise or add"},
      {"{\"weight\": \"a\", \"row\": 1}", "zero, noise or add"},
      {"{\"weight\": \"a\", \"row\": 1, \"op\": \"add\"}", "needs a \"vector\""},
      {"{\"weight\": \"a\", \"row\": 1, \"op\": \"zero\", \"vector\": [1]}", "take no"},
      {"{\"weight\": \"a\", \"row\": 1, \"op\": \"zero\", \"seed\": 1}", "only noise"},
      {"{\"weight\": \"a\", \"row\": 1, \"op\": \"zero\", \"at\": \"last\"}", "unknown key"},
      {"{\"weight\": \"a\", \"row\": 1, \"op\": \"zero\", \"scale\": \"x\"}", "a number"}};
  static const char *const at_run[][2] = {
      {"{\"weight\": \"none\", \"row\": 1, \"op\": \"zero\"}", "no such matrix"},
      {"{\"weight\": \"blk.0.attn_norm.weight\", \"col\": 1, \"op\": \"zero\"}", "no such matrix"},
      {"{\"weight\": \"blk.0.ffn_up.weight\", \"row\": 16, \"op\": \"zero\"}", "16 rows and 32"},
      {"{\"weight\": \"blk.0.ffn_up.weight\", \"row\": 1, \"expert\": 0, \"op\": \"zero\"}",
       "no matrix"},
      {"{\"weight\": \"blk.0.ffn_up.weight\", \"row\": 1, \"op\": \"add\", \"vector\": [1, 2]}",
       "2 values, the row 32"}};
  nm_err err = {0};
  nm_edits *e;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    assert_int_equal(nm_edits_parse("t", cases[i][0], strlen(cases[i][0]), &e, &err), NM_EFORMAT);
    if (!strstr(err.text, cases[i][1]) || !strstr(err.text, "t: edit 1"))
      fail_msg("%s: %s", cases[i][0], err.text);
  }
  nm_model *m = open_model(PLANTED);
  nm_engine *eng = new_engine(m, (nm_engine_opts){.threads = 1});
  for (size_t i = 0; i < sizeof at_run / sizeof *at_run; i++) {
    struct rows r;
    nm_seq s = {ids, T};
    nm_tap tap = {"logits", "last"};
    e = parse_edits(at_run[i][0]);
    assert_int_equal(try_rows(eng, (nm_request){.seqs = &s, .n_seqs = 1, .taps = &tap,
                                                .n_taps = 1, .edits = e}, &r, &err), NM_EFORMAT);
    if (!strstr(err.text, at_run[i][1])) fail_msg("%s: %s", at_run[i][0], err.text);
    rows_done(&r);
    nm_edits_free(e);
  }
  nm_engine_free(eng);
  nm_model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(against_activations), cmocka_unit_test(fused_and_tied),
      cmocka_unit_test(experts), cmocka_unit_test(add_and_noise), cmocka_unit_test(counts),
      cmocka_unit_test(keys), cmocka_unit_test(refusals)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
