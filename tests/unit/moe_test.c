/* moe_test.c - mixtures of experts seen from outside: what the sites of a mixture promise of one
 * another, what edits at them do, what info says, and files whose mixture does not fit. The
 * numbers themselves are held against a second forward in truth_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "model_file.h"
#include "model_run.h"

enum { T = 13 };
static int32_t ids[T];
static char path[80];

/* The row of model_file.h with this title. */
static const struct shape *shape_of(const char *title) {
  for (int i = 0; i < N_SHAPES; i++)
    if (!strcmp(shapes[i].title, title)) return &shapes[i];
  fail_msg("no shape %s", title);
  return NULL;
}

static nm_model *model_of(const struct shape *s) {
  struct file f = file_of(s);
  write_file(s, &f, path);
  file_done(&f);
  return open_model(path);
}

static const float *at(const struct rows *r, int layer, const char *rest, int pos, int64_t n) {
  char name[64];
  return row_of(r, at_layer(name, layer, rest), 0, pos, n);
}

static struct rows run_with(const nm_model *m, const char *site, const char *json) {
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2, .chunk = 7});
  nm_edits *ed = NULL;
  nm_err err = {0};
  if (json && nm_edits_parse("t", json, strlen(json), &ed, &err)) fail_msg("%s", err.text);
  struct rows r = tap_one(e, ids, T, site, "all", ed);
  nm_edits_free(ed);
  nm_engine_free(e);
  return r;
}

/* ---- what the sites promise -------------------------------------------------------- */

static int n_chosen(const float *w, int n) {
  int k = 0;
  for (int e = 0; e < n; e++) k += w[e] != 0;
  return k;
}

/* Probabilities sum to 1; the k largest are the weights, as they are or divided by their sum. */
static void weights_hold(const nm_model *m, const struct rows *r, int l, int p) {
  const float *prob = at(r, l, "moe.router", p, m->moe.n);
  const float *w = at(r, l, "moe.weights", p, m->moe.n);
  double all = 0, sum = 0;
  float least = 2, most = 0;
  assert_int_equal(n_chosen(w, m->moe.n), m->moe.used);
  for (int e = 0; e < m->moe.n; e++) {
    all += (double)prob[e];
    sum += (double)w[e];
    if (w[e] != 0) least = fminf(least, prob[e]);
    else most = fmaxf(most, prob[e]);
    if (w[e] != 0 && !m->moe.renormalise) assert_true(w[e] == prob[e]);
  }
  assert_true(least >= most && fabs(all - 1) < 1e-6);
  if (m->moe.renormalise) assert_true(fabs(sum - 1) < 1e-6);
}

static void sites_hold(const char *title) {
  nm_model *m = model_of(shape_of(title));
  struct rows r = run_with(m, "*", NULL);
  int64_t F = m->moe.F;
  char name[64];
  for (int l = 0; l < m->L; l++)
    for (int p = 0; p < T; p++) {
      weights_hold(m, &r, l, p);
      const float *w = at(&r, l, "moe.weights", p, m->moe.n);
      const float *g = at(&r, l, "moe.gate", p, m->moe.n * F);
      const float *u = at(&r, l, "moe.up", p, m->moe.n * F);
      const float *a = at(&r, l, "moe.act", p, m->moe.n * F);
      for (int64_t i = 0; i < m->moe.n * F; i++) {
        double x = (double)g[i], want = x / (1 + exp(-x)) * (double)u[i];
        assert_true(w[i / F] != 0 || (g[i] == 0 && u[i] == 0 && a[i] == 0));
        assert_true(fabs((double)a[i] - want) <= 1e-5 * (1 + fabs(want)));
      }
    }
  snprintf(name, sizeof name, "*.moe.act[%d]", m->moe.n - 1);
  struct rows one = run_with(m, name, NULL);           /* an index is an expert */
  for (size_t i = 0; i < one.n; i++)
    assert_memory_equal(one.v[i].v,
                        at(&r, one.v[i].site, "moe.act", one.v[i].pos, m->moe.n * F) +
                            (m->moe.n - 1) * F, (size_t)F * 4);
  rows_done(&one);
  rows_done(&r);
  nm_model_close(m);
}

static void sites(void **state) {
  (void)state;
  sites_hold("mixtral");
  sites_hold("mixtral, experts apart");
  sites_hold("mixtral in Q8_0");
  sites_hold("qwen2moe");
  sites_hold("qwen3moe");
}

/* ---- edits --------------------------------------------------------------------------- */

/* Without scale nothing happens, at any site: no bit of any other changes. */
static void nothing_added(void **state) {
  (void)state;
  static const char *const rest[] = {"router", "weights", "gate", "up", "act", "shared.weight",
                                     "shared.gate", "shared.up", "shared.act", "shared.out"};
  nm_model *m = model_of(shape_of("qwen2moe"));
  struct rows want = run_with(m, "*", NULL);
  for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) {
    static char json[8000];
    char name[64];
    nm_site *s;
    int n;
    snprintf(name, sizeof name, "blk.*.moe.%s", rest[i]);
    assert_int_equal(nm_run_sites(m, &(nm_tap){name, "all"}, 1, &s, &n, NULL), 0);
    size_t k = (size_t)snprintf(json, sizeof json,
                                "{\"site\": \"%s\", \"op\": \"add\", \"scale\": 0, \"vector\": [",
                                name);
    for (int64_t j = 0; j < s[0].width; j++)
      k += (size_t)snprintf(json + k, sizeof json - k, "%s%d", j ? ", " : "", (int)j % 7 - 3);
    snprintf(json + k, sizeof json - k, "]}");
    struct rows got = run_with(m, "*", json);
    assert_same_rows(&want, &got, name);
    rows_done(&got);
    nm_free(s);
  }
  rows_done(&want);
  nm_model_close(m);
}

/* The router's probabilities choose: an expert without any is not taken, and what is left over
 * comes in its place. */
static void router_edit(void **state) {
  (void)state;
  nm_model *m = model_of(shape_of("qwen3moe"));
  struct rows a = run_with(m, "blk.1.moe.*", NULL);
  struct rows b = run_with(m, "blk.1.moe.*", "{\"site\": \"blk.1.moe.router[2]\", \"op\": "
                                             "\"zero\", \"at\": \"3:\"}");
  int changed = 0;
  for (int p = 0; p < T; p++) {
    const float *before = at(&a, 1, "moe.weights", p, m->moe.n),
                *after = at(&b, 1, "moe.weights", p, m->moe.n);
    if (p < 3) assert_memory_equal(before, after, (size_t)m->moe.n * 4);
    else assert_true(after[2] == 0 && at(&b, 1, "moe.router", p, m->moe.n)[2] == 0);
    assert_int_equal(n_chosen(after, m->moe.n), m->moe.used);
    changed += p >= 3 && before[2] != 0;
  }
  assert_true(changed > 0);
  rows_done(&a);
  rows_done(&b);
  nm_model_close(m);
}

static void same_floats(const float *a, const float *b, int64_t n, const char *what) {
  for (int64_t i = 0; i < n; i++)
    if (!(fabs((double)a[i] - (double)b[i]) <= 2e-5)) fail_msg("%s", what);
}

/* Taking an expert's weight and taking its activations are one; without all weights only the
 * shared expert is left, and without that one nothing. */
static void silenced(void **state) {
  (void)state;
  static const struct { const char *one, *other; } pairs[] = {
      {"{\"site\": \"blk.1.moe.weights[0]\", \"op\": \"zero\"}",
       "{\"site\": \"blk.1.moe.act[0]\", \"op\": \"zero\"}"},
      {"{\"site\": \"blk.1.moe.weights[1-3]\", \"op\": \"zero\"}",
       "{\"site\": \"blk.1.moe.gate[1-3]\", \"op\": \"zero\"}"},
      {"{\"site\": \"blk.1.moe.shared.weight\", \"op\": \"scale\", \"scale\": -2}",
       "{\"site\": \"blk.1.moe.shared.act\", \"op\": \"scale\", \"scale\": -2}"},
      {"{\"site\": \"blk.1.moe.up\", \"op\": \"zero\"}",
       "{\"site\": \"blk.1.moe.weights\", \"op\": \"zero\"}"},
  };
  nm_model *m = model_of(shape_of("qwen2moe"));
  struct rows plain = run_with(m, "blk.1.mlp_out", NULL);
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    struct rows a = run_with(m, "blk.1.mlp_out", pairs[i].one),
                b = run_with(m, "blk.1.mlp_out", pairs[i].other);
    bool moved = false;
    for (size_t k = 0; k < a.n; k++) {
      same_floats(a.v[k].v, b.v[k].v, m->D, pairs[i].one);
      moved |= memcmp(a.v[k].v, plain.v[k].v, (size_t)m->D * 4) != 0;
    }
    assert_true(moved);
    rows_done(&a);
    rows_done(&b);
  }
  struct rows left = run_with(m, "blk.1.mlp_out|blk.1.moe.shared.out",
                              "{\"site\": \"blk.1.moe.weights\", \"op\": \"zero\"}");
  for (int p = 0; p < T; p++)
    assert_memory_equal(at(&left, 1, "mlp_out", p, m->D), at(&left, 1, "moe.shared.out", p, m->D),
                        (size_t)m->D * 4);
  rows_done(&left);
  rows_done(&plain);
  nm_model_close(m);
}

/* An edit sees the row of all experts with zeros where none was chosen; what it writes there is
 * dropped. All ops, by hand. */
static void by_hand(const char *op, double s, const float *x, const float *v, int64_t n, float *y) {
  double xv = 0, vv = 0;
  for (int64_t i = 0; i < n; i++) xv += (double)x[i] * (double)v[i], vv += (double)(v[i] * v[i]);
  for (int64_t i = 0; i < n; i++) {
    double r = 0;
    if (!strcmp(op, "add")) r = (double)x[i] + s * (double)v[i];
    if (!strcmp(op, "scale")) r = s * (double)x[i];
    if (!strcmp(op, "replace")) r = s * (double)v[i];
    if (!strcmp(op, "project_out")) r = (double)x[i] - s * xv / vv * (double)v[i];
    y[i] = (float)r;
  }
}

static void wide_edits(void **state) {
  (void)state;
  static const char *const ops[] = {"add", "zero", "scale", "project_out", "replace"};
  static float v[400], y[400];
  static char list[8000], json[8200];
  nm_model *m = model_of(shape_of("qwen2moe"));
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2, .chunk = 5});
  int64_t F = m->moe.F, first = 1, n = 4 * F;          /* experts 1 to 4 */
  size_t k = 0;
  for (int64_t i = 0; i < n; i++) {
    v[i] = (float)(i % 5 - 2) / 4 + 0.125f;
    k += (size_t)snprintf(list + k, sizeof list - k, "%s%g", i ? ", " : "", (double)v[i]);
  }
  struct rows without = tap_one(e, ids, T, "blk.1.moe.*", "all", NULL);
  for (int i = 0; i < 5; i++) {
    bool plain = !strcmp(ops[i], "zero") || !strcmp(ops[i], "scale");
    nm_edits *ed;
    snprintf(json, sizeof json, "{\"site\": \"blk.1.moe.act[1-4]\", \"at\": \"2:9\", \"op\": "
             "\"%s\"%s%s%s%s}", ops[i], strcmp(ops[i], "zero") ? ", \"scale\": -1.5" : "",
             plain ? "" : ", \"vector\": [", plain ? "" : list, plain ? "" : "]");
    assert_int_equal(nm_edits_parse("t", json, strlen(json), &ed, NULL), 0);
    struct rows with = tap_one(e, ids, T, "blk.1.moe.act", "all", ed);
    assert_int_equal(nm_edits_touched(ed, 0), 7);
    for (int p = 0; p < T; p++) {
      const float *w = at(&without, 1, "moe.weights", p, m->moe.n);
      const float *x = at(&without, 1, "moe.act", p, m->moe.n * F);
      const float *got = at(&with, 1, "moe.act", p, m->moe.n * F);
      by_hand(ops[i], -1.5, x + first * F, v, n, y);
      for (int64_t j = 0; j < m->moe.n * F; j++) {
        bool in = p >= 2 && p < 9 && j >= first * F && j < first * F + n && w[j / F] != 0;
        double want = in ? (double)y[j - first * F] : (double)x[j];
        assert_true(fabs((double)got[j] - want) <= 1e-5 * (1 + fabs(want)));
        assert_true(w[j / F] != 0 || got[j] == 0);
      }
    }
    rows_done(&with);
    nm_edits_free(ed);
  }
  rows_done(&without);
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- info, memory ------------------------------------------------------------------------ */

static void info(void **state) {
  (void)state;
  char *text;
  nm_model_close(model_of(shape_of("qwen2moe")));
  assert_int_equal(nm_info(path, false, true, &text, NULL), 0);
  assert_non_null(strstr(text, "7 in every layer, 3 of them used, F 21; and a shared one, F 35"));
  assert_non_null(strstr(text, "blk.N.moe.shared.weight") && strstr(text, "blk.N.moe.router"));
  assert_null(strstr(text, "  window"));
  nm_free(text);
  nm_model_close(model_of(shape_of("mixtral, experts apart")));
  assert_int_equal(nm_info(path, false, false, &text, NULL), 0);
  assert_non_null(strstr(text, "window         9 positions in 3 of 3 layers"));
  nm_free(text);
  assert_int_equal(nm_info(path, true, false, &text, NULL), 0);
  json_t *o = json_loads(text, 0, NULL), *m = json_object_get(o, "model");
  static const struct { const char *key; int v; } want[] = {
      {"window", 9}, {"windowed_layers", 3}, {"experts", 4}, {"experts_used", 3},
      {"expert_mlp", 37}, {"shared_expert_mlp", 0}};
  for (size_t i = 0; i < sizeof want / sizeof *want; i++)
    assert_int_equal(json_integer_value(json_object_get(m, want[i].key)), want[i].v);
  json_decref(o);
  nm_free(text);
}

/* One position reads at most k experts: what is announced is less than for many positions. */
static void memory(void **state) {
  (void)state;
  nm_model *m = model_of(shape_of("qwen3moe"));
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  nm_seq one = {ids, 1}, all = {ids, T};
  nm_tap tap = {"logits", "last"};
  nm_memory few, many;
  nm_request r = {.seqs = &one, .n_seqs = 1, .taps = &tap, .n_taps = 1};
  assert_int_equal(nm_run_measure(e, &r, &few, NULL), 0);
  r.seqs = &all;
  assert_int_equal(nm_run_measure(e, &r, &many, NULL), 0);
  uint64_t expert = 3 * 4 * (uint64_t)(m->moe.F * m->D);
  assert_true(many.weights - few.weights >= (uint64_t)(m->L * (m->moe.n - m->moe.used)) * expert);
  assert_true(many.weights <= m->weight_bytes + (1 << 20));
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- files that do not fit ------------------------------------------------------------------ */

static void refused(const struct shape *s, struct file *f, const char *part) {
  nm_model *m;
  nm_err err = {0};
  write_file(s, f, path);
  int st = nm_model_open(path, &m, &err);
  if (st != NM_EFORMAT || !strstr(err.text, part) || !strstr(err.text, path))
    fail_msg("%s: %d '%s'", part, st, err.text);
  assert_null(m);
}

static void bad_keys(void **state) {
  (void)state;
  static const struct { int E, used, expert_F, shared_F; const char *extra; int v; const char *part;
  } cases[] = {
      {0, 3, 21, 35, NULL, 0, "0 experts of which 3 are used"},
      {7, 0, 21, 35, NULL, 0, "7 experts of which 0 are used"},
      {7, 8, 21, 35, NULL, 0, "7 experts of which 8 are used"},
      {5000, 3, 21, 35, NULL, 0, "expert_count: 5000 is more than can be used (4096)"},
      {-1, 3, 21, 35, NULL, 0, "expert_count: 4294967295 is more than"},
      {4096, 3, 21, 35, NULL, 0, "ffn_gate_inp.weight is [60, 7, 1, 1]"},
      {6, 3, 21, 35, NULL, 0, "ffn_gate_inp.weight is [60, 7, 1, 1]"},
      {7, 3, 22, 35, NULL, 0, "ffn_gate_exps.weight is [60, 21, 7, 1], the metadata asks for [60, "
                              "22, 7]"},
      {7, 3, 21, 36, NULL, 0, "ffn_gate_shexp.weight is [60, 35, 1, 1]"},
      {7, 3, -1, 35, NULL, 0, "expert_feed_forward_length: 4294967295 is more than"},
      {7, 3, 21, 35, "expert_gating_func", 2, "expert_gating_func = 2 is not supported yet"},
      {7, 3, 21, 35, "expert_weights_scale", 3, "expert_weights_scale = 3 is not supported yet"},
  };
  struct shape right = *shape_of("qwen2moe");
  struct file f = file_of(&right);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct shape s = right;
    s.E = cases[i].E, s.used = cases[i].used, s.expert_F = cases[i].expert_F;
    s.shared_F = cases[i].shared_F, s.extra = cases[i].extra, s.extra_v = cases[i].v;
    refused(&s, &f, cases[i].part);
  }
  file_done(&f);
  struct shape dense = *shape_of("mistral");           /* llama files may have experts or not */
  f = file_of(&dense);
  dense.E = 4, dense.used = 2;
  refused(&dense, &f, "tensor blk.0.ffn_gate_inp.weight is missing");
  file_done(&f);
  dense = *shape_of("starcoder2");                     /* others may not */
  f = file_of(&dense);
  dense.E = 4;
  refused(&dense, &f, "starcoder2.expert_count = 4 is not supported yet");
  file_done(&f);
}

static struct tensor *tensor_of(struct file *f, const char *name) {
  for (int i = 0; i < f->n; i++)
    if (!strcmp(f->t[i].name, name)) return &f->t[i];
  fail_msg("no tensor %s", name);
  return NULL;
}

static void bad_tensors(void **state) {
  (void)state;
  static const struct { const char *title, *name; int rows, n; const char *part; } cases[] = {
      {"qwen2moe", "blk.1.ffn_gate_inp.weight", 0, 0, "ffn_gate_inp.weight is missing"},
      {"qwen2moe", "blk.2.ffn_down_exps.weight", 0, 0, "ffn_down_exps.weight is missing"},
      {"qwen2moe", "blk.0.ffn_up_exps.weight", 0, -1, "ffn_up_exps.weight is [60, 21, 6, 1]"},
      {"qwen2moe", "blk.0.ffn_up_exps.weight", -1, 0, "ffn_up_exps.weight is [60, 20, 7, 1]"},
      {"qwen2moe", "blk.1.ffn_gate_inp_shexp.weight", 0, 0, "ffn_gate_inp_shexp.weight is missing"},
      {"qwen2moe", "blk.1.ffn_down_shexp.weight", -1, 0, "ffn_down_shexp.weight is [35, 59, 1, 1]"},
      {"mixtral, experts apart", "blk.1.ffn_up.2.weight", 0, 0, "ffn_up.2.weight is missing"},
      {"mixtral, experts apart", "blk.1.ffn_up.0.weight", 0, 0, "ffn_up_exps.weight is missing"},
      {"mixtral, experts apart", "blk.2.ffn_down.3.weight", -1, 0,
       "ffn_down.3.weight is [37, 53, 1, 1]"},
      {"falcon, two norms", "blk.1.attn_norm_2.weight", 0, 0,
       "blk.1.attn_norm_2.weight is missing, unlike in block 0"},
      {"falcon, two norms", "blk.0.attn_norm_2.weight", 0, 0,
       "blk.1.attn_norm_2.weight is there, unlike in block 0"},
      {"falcon", "blk.0.attn_norm.bias", 0, 0, "attn_norm.bias is missing"},
      {"starcoder2", "blk.2.ffn_down.bias", 0, 0, "ffn_down.bias is missing"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const struct shape *s = shape_of(cases[i].title);
    struct file f = file_of(s);
    struct tensor *t = tensor_of(&f, cases[i].name);
    t->rows += cases[i].rows;
    t->n += cases[i].n;
    if (!cases[i].rows && !cases[i].n) snprintf(t->name, sizeof t->name, "elsewhere.%zu", i);
    refused(s, &f, cases[i].part);
    file_done(&f);
  }
}

/* Keys that say what is so anyway, and falcon has no sequential form. */
static void other_keys(void **state) {
  (void)state;
  struct shape s = *shape_of("qwen3moe");
  s.extra = "expert_gating_func", s.extra_v = 1;       /* a softmax */
  nm_model *m = model_of(&s);
  assert_true(m->moe.renormalise);
  nm_model_close(m);
  s = *shape_of("falcon");
  s.extra = "use_parallel_residual", s.extra_v = -1;
  m = model_of(&s);
  assert_true(m->parallel && m->one_norm);
  nm_model_close(m);
  s.extra_v = -2;
  struct file f = file_of(&s);
  refused(&s, &f, "use_parallel_residual is false, which falcon has no form for");
  file_done(&f);
}

static int remove_file(void **state) {
  (void)state;
  unlink(path);
  return 0;
}

int main(void) {
  snprintf(path, sizeof path, "/tmp/noema_moe_test.%ld.gguf", (long)getpid());
  for (int i = 0; i < T; i++) ids[i] = (i * 29 + 3) % V;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sites),        cmocka_unit_test(nothing_added),
      cmocka_unit_test(router_edit),  cmocka_unit_test(silenced),
      cmocka_unit_test(wide_edits),   cmocka_unit_test(info),
      cmocka_unit_test(memory),       cmocka_unit_test(bad_keys),
      cmocka_unit_test(bad_tensors),  cmocka_unit_test(other_keys),
  };
  return cmocka_run_group_tests(tests, NULL, remove_file);
}
