/* edit_test.c - what sites hold, recomputed from their neighbours, and what edits do to
 * them, recomputed from the values without the edit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "file/npy.h"
#include "model_run.h"

enum { T = 7 };
static const int32_t some_ids[T] = {1, 2, 0, 2, 1, 1, 2};

static const char *const models[] = {
  PLANTED, SHARED "models/arch/llama/model.gguf", SHARED "models/arch/qwen2/model.gguf",
  SHARED "models/arch/gpt2/model.gguf", SHARED "reference/llama3-rope/model.gguf",
  SHARED "reference/llama-linear-bias/model.gguf", SHARED "reference/quant/qwen2-q8_0/model.gguf",
};
enum { N_MODELS = sizeof models / sizeof *models };

static void for_each_model(void (*check)(const nm_model *m, nm_engine *e)) {
  for (int i = 0; i < N_MODELS; i++) {
    if (i && no_shared()) return;
    nm_model *m = open_model(models[i]);
    nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1 + i % 2});
    check(m, e);
    nm_engine_free(e);
    nm_model_close(m);
  }
}

static const float *at(const struct rows *r, int layer, const char *rest, int pos, int64_t n) {
  char name[64];
  return row_of(r, at_layer(name, layer, rest), 0, pos, n);
}

static void assert_near(const float *got, const double *want, int n, double limit,
                        const char *what) {
  for (int i = 0; i < n; i++)
    if (!(fabs((double)got[i] - want[i]) <= limit * (1 + fabs(want[i]))))
      fail_msg("%s[%d] is %.9g, by hand %.9g", what, i, (double)got[i], want[i]);
}

/* ---- what sites hold --------------------------------------------------------- */

static void sums_hold(const nm_model *m, nm_engine *e) {
  struct rows r = tap_one(e, some_ids, T, "*", "all", NULL);
  size_t row = (size_t)m->D * 4;
  for (int l = 0; l < m->L; l++)
    for (int p = 0; p < T; p++) {
      const float *pre = at(&r, l, "resid_pre", p, m->D), *mid = at(&r, l, "resid_mid", p, m->D);
      const float *post = at(&r, l, "resid_post", p, m->D), *a = at(&r, l, "attn_out", p, m->D);
      const float *mlp = at(&r, l, "mlp_out", p, m->D), *up = at(&r, l, "mlp.up", p, m->F);
      const float *act = at(&r, l, "mlp.act", p, m->F);
      for (int i = 0; i < m->D; i++)
        assert_true(mid[i] == pre[i] + a[i] && post[i] == mid[i] + mlp[i]);
      assert_memory_equal(
          pre, l ? at(&r, l - 1, "resid_post", p, m->D) : row_of(&r, "embed", 0, p, m->D), row);
      for (int i = 0; i < m->F; i++) {
        double x = (double)up[i], g = x;
        if (m->arch->gated) g = (double)at(&r, l, "mlp.gate", p, m->F)[i];
        double y = m->arch->gated
                       ? g / (1 + exp(-g)) * x
                       : 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
        assert_near(&act[i], &y, 1, 1e-5, "mlp.act");
      }
      at(&r, l, "mlp_norm", p, m->D);
      at(&r, l, "attn_norm", p, m->D);
      at(&r, l, "attn.q_raw", p, m->H * m->hd);
      at(&r, l, "attn.k_raw", p, m->K * m->hd);
    }
  rows_done(&r);
}
static void sums(void **state) {
  (void)state;
  for_each_model(sums_hold);
}

/* mlp_norm is the MLP's input with the norm's weight applied. */
static void norms_hold(const nm_model *m, nm_engine *e) {
  struct rows r = tap_one(e, some_ids, T, "*norm|*resid_mid", "all", NULL);
  float w[1024], b[1024] = {0};
  assert_true(m->D <= 1024);
  const struct nm__layer *l = &m->layer[m->L - 1];
  nm__dtype(l->mlp_norm.type)->to_f32(w, l->mlp_norm.data, m->D);
  if (l->mlp_norm_b.data) nm__dtype(l->mlp_norm_b.type)->to_f32(b, l->mlp_norm_b.data, m->D);
  for (int p = 0; p < T; p++) {
    const float *x = at(&r, m->L - 1, "resid_mid", p, m->D),
                *y = at(&r, m->L - 1, "mlp_norm", p, m->D);
    double mean = 0, sq = 0;
    for (int i = 0; i < m->D && m->arch->layernorm; i++) mean += (double)x[i] / m->D;
    for (int i = 0; i < m->D; i++) sq += ((double)x[i] - mean) * ((double)x[i] - mean) / m->D;
    for (int i = 0; i < m->D; i++) {
      double want = ((double)x[i] - mean) / sqrt(sq + (double)m->eps) * (double)w[i] + (double)b[i];
      assert_near(&y[i], &want, 1, 1e-5, "mlp_norm");
    }
  }
  rows_done(&r);
}
static void norms(void **state) {
  (void)state;
  for_each_model(norms_hold);
}

static void head_of(const nm_model *m, const struct rows *r, int l, int p, int h) {
  int hd = m->hd, kv = h / (m->H / m->K);
  const float *q = at(r, l, "attn.q", p, m->H * hd) + h * hd;
  const float *s = at(r, l, "attn.scores", p, m->H * T) + h * T;
  const float *w = at(r, l, "attn.pattern", p, m->H * T) + h * T;
  const float *z = at(r, l, "attn.head", p, m->H * hd) + h * hd;
  double sum = 0, norm = 0, head[1024] = {0};
  for (int k = 0; k <= p; k++) norm += exp((double)s[k]);
  for (int k = 0; k < T; k++) {
    if (k > p) assert_true(w[k] == 0 && s[k] == -INFINITY);
    if (k > p) continue;
    const float *key = at(r, l, "attn.k", k, m->K * hd) + kv * hd,
                *v = at(r, l, "attn.v", k, m->K * hd) + kv * hd;
    double score = 0, prob = exp((double)s[k]) / norm;
    for (int i = 0; i < hd; i++) score += (double)q[i] * (double)key[i] / sqrt(hd);
    assert_near(&s[k], &score, 1, 1e-5, "attn.scores");
    assert_near(&w[k], &prob, 1, 1e-5, "attn.pattern");
    for (int i = 0; i < hd; i++) head[i] += (double)w[k] * (double)v[i];
    sum += (double)w[k];
  }
  assert_true(fabs(sum - 1) < 1e-6);
  assert_near(z, head, hd, 1e-5, "attn.head");
}

static void attention_holds(const nm_model *m, nm_engine *e) {
  struct rows r = tap_one(e, some_ids, T, "blk.*.attn.*", "all", NULL);
  for (int l = 0; l < m->L; l++)
    for (int p = 0; p < T; p++)
      for (int h = 0; h < m->H; h++) head_of(m, &r, l, p, h);
  /* Each alone shows what both together do. */
  struct rows s = tap_one(e, some_ids, T, "blk.*.attn.scores", "all", NULL);
  struct rows w = tap_one(e, some_ids, T, "blk.*.attn.pattern", "all", NULL);
  char name[64];
  for (int l = 0; l < m->L; l++)
    for (int p = 0; p < T; p++) {
      size_t n = sizeof(float) * (size_t)(m->H * T);
      assert_memory_equal(at(&r, l, "attn.scores", p, m->H * T),
                          row_of(&s, at_layer(name, l, "attn.scores"), 0, p, m->H * T), n);
      assert_memory_equal(at(&r, l, "attn.pattern", p, m->H * T),
                          row_of(&w, at_layer(name, l, "attn.pattern"), 0, p, m->H * T), n);
    }
  rows_done(&r);
  rows_done(&s);
  rows_done(&w);
}
static void attention(void **state) {
  (void)state;
  for_each_model(attention_holds);
}

/* q is q_raw turned in Hugging Face's pairs (j, j + n/2), angle pos * base^(-2j/n). */
static void rotation(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){0});
  struct rows r = tap_one(e, some_ids, T, "*.attn.q*|*.attn.k*", "all", NULL);
  for (int l = 0; l < m->L; l++)
    for (int p = 0; p < T; p++)
      for (int k = 0; k < 2; k++) {
        int heads = k ? m->K : m->H, half = m->hd / 2;
        const float *raw = at(&r, l, k ? "attn.k_raw" : "attn.q_raw", p, heads * m->hd);
        const float *x = at(&r, l, k ? "attn.k" : "attn.q", p, heads * m->hd);
        for (int i = 0; i < heads * m->hd; i++) {
          int j = i % m->hd % half, low = i % m->hd < half;
          double a = p * m->theta[j], u = (double)raw[low ? i : i - half],
                 w = (double)raw[low ? i + half : i];
          double want = low ? u * cos(a) - w * sin(a) : u * sin(a) + w * cos(a);
          assert_near(&x[i], &want, 1, 1e-6, "rotated");
        }
      }
  rows_done(&r);
  nm_engine_free(e);
  nm_model_close(m);
}

/* A matrix of the Hugging Face twin; *map stays open while it is used. */
static const float *hf_tensor(const char *name, struct nm__map *map) {
  nm_err err = {0};
  uint64_t n;
  if (nm__map_open(SHARED "reference/llama/hf/model.safetensors", map, &err))
    fail_msg("%s", err.text);
  memcpy(&n, map->data, 8);
  json_t *head = json_loadb((const char *)map->data + 8, n, 0, NULL);
  json_t *begin = json_array_get(json_object_get(json_object_get(head, name), "data_offsets"), 0);
  assert_non_null(begin);
  const float *x = (const float *)(const void *)(map->data + 8 + n + json_integer_value(begin));
  json_decref(head);
  return x;
}

static void hugging_face_order(void **state) {
  (void)state;
  if (no_shared()) skip();
  nm_model *m = open_model(SHARED "reference/llama/model.gguf");
  nm_engine *e = new_engine(m, (nm_engine_opts){0});
  struct rows r = tap_one(e, some_ids, T, "blk.1.attn_norm|blk.1.attn.?_raw", "all", NULL);
  for (int k = 0; k < 2; k++) {
    struct nm__map map;
    int rows = (k ? m->K : m->H) * m->hd;
    const float *w = hf_tensor(k ? "model.layers.1.self_attn.k_proj.weight"
                                 : "model.layers.1.self_attn.q_proj.weight", &map);
    for (int p = 0; p < T; p++) {
      const float *x = at(&r, 1, "attn_norm", p, m->D),
                  *y = at(&r, 1, k ? "attn.k_raw" : "attn.q_raw", p, rows);
      for (int i = 0; i < rows; i++) {
        double want = 0;
        for (int j = 0; j < m->D; j++) want += (double)x[j] * (double)w[i * m->D + j];
        assert_near(&y[i], &want, 1, 1e-5, "q_raw or k_raw");
      }
    }
    nm__map_close(&map);
  }
  rows_done(&r);
  nm_engine_free(e);
  nm_model_close(m);
}

/* Taps change nothing, and an index cuts columns out of the same row. */
static void taps_are_silent(const nm_model *m, nm_engine *e) {
  struct rows all = tap_one(e, some_ids, T, "*", "all", NULL),
              only = tap_one(e, some_ids, T, "logits", "all", NULL);
  struct rows part =
      tap_one(e, some_ids, T, "*.attn.head[1]|*.attn.pattern[1]|*.mlp.act[2-3]", "3:5", NULL);
  char name[64];
  size_t n = sizeof(float) * (size_t)m->hd;
  for (int p = 0; p < T; p++)
    assert_memory_equal(row_of(&all, "logits", 0, p, m->V), row_of(&only, "logits", 0, p, m->V),
                        (size_t)m->V * 4);
  assert_int_equal(part.n, 3 * m->L * 2);
  for (int l = 0; l < m->L; l++)
    for (int p = 3; p < 5; p++) {
      assert_memory_equal(row_of(&part, at_layer(name, l, "attn.head[1]"), 0, p, m->hd),
                          at(&all, l, "attn.head", p, m->H * m->hd) + m->hd, n);
      assert_memory_equal(row_of(&part, at_layer(name, l, "attn.pattern[1]"), 0, p, T),
                          at(&all, l, "attn.pattern", p, m->H * T) + T, T * 4);
      assert_memory_equal(row_of(&part, at_layer(name, l, "mlp.act[2-3]"), 0, p, 2),
                          at(&all, l, "mlp.act", p, m->F) + 2, 8);
    }
  rows_done(&all);
  rows_done(&only);
  rows_done(&part);
}
static void silent_taps(void **state) {
  (void)state;
  for_each_model(taps_are_silent);
}

/* ---- what edits do ---------------------------------------------------------------- */

static nm_edits *edits_of(const char *json) {
  nm_edits *e;
  nm_err err = {0};
  if (nm_edits_parse("t", json, strlen(json), &e, &err)) fail_msg("%s", err.text);
  return e;
}

/* A vector of n small numbers as JSON, and as floats. */
static const char *vector(int n, float *v, char *out, size_t size) {
  size_t k = 0;
  for (int i = 0; i < n; i++) {
    v[i] = (float)(i % 5 - 2) / 4 + 0.125f;
    k += (size_t)snprintf(out + k, size - k, "%s%g", i ? ", " : "[", (double)v[i]);
  }
  snprintf(out + k, size - k, "]");
  return out;
}

static double by_hand(const char *op, double s, const float *x, const float *v, int n, int i) {
  double xv = 0, vv = 0;
  for (int k = 0; k < n; k++) xv += (double)x[k] * (double)v[k], vv += (double)v[k] * (double)v[k];
  if (!strcmp(op, "add")) return (double)x[i] + s * (double)v[i];
  if (!strcmp(op, "scale")) return s * (double)x[i];
  if (!strcmp(op, "replace")) return s * (double)v[i];
  if (!strcmp(op, "project_out")) return (double)x[i] - s * xv / vv * (double)v[i];
  return 0;
}

/* One edit of columns b..b+n of a site of width `whole`, at positions `first`..`last`. */
static void one_edit(nm_engine *e, const char *rest, const char *index, int whole, int b, int n,
                     const char *op, const char *where, int first, int last) {
  static char json[16384], list[12000];
  static float v[2048];
  bool plain = !strcmp(op, "zero") || !strcmp(op, "scale");
  vector(n, v, list, sizeof list);
  snprintf(json, sizeof json, "{\"site\": \"blk.1.%s%s\", \"at\": \"%s\", \"op\": \"%s\"%s%s%s}",
           rest, index, where, op, plain ? "" : ", \"vector\": ", plain ? "" : list,
           strcmp(op, "zero") ? ", \"scale\": -1.5" : "");
  nm_edits *ed = edits_of(json);
  char site[64];
  at_layer(site, 1, rest);
  struct rows without = tap_one(e, some_ids, T, site, "all", NULL),
              with = tap_one(e, some_ids, T, site, "all", ed);
  assert_int_equal(nm_edits_touched(ed, 0), last - first + 1);
  for (int p = 0; p < T; p++) {
    const float *x = row_of(&without, site, 0, p, whole), *y = row_of(&with, site, 0, p, whole);
    for (int i = 0; i < whole; i++) {
      bool in = p >= first && p <= last && i >= b && i < b + n;
      double want = in ? by_hand(op, -1.5, x + b, v, n, i - b) : (double)x[i];
      if (!in || plain) assert_true((double)y[i] == (double)(float)want);
      else assert_near(&y[i], &want, 1, 1e-5, json);
    }
  }
  rows_done(&without);
  rows_done(&with);
  nm_edits_free(ed);
}

static void every_edit(const nm_model *m, nm_engine *e) {
  static const char *const ops[] = {"add", "zero", "scale", "project_out", "replace"};
  for (int i = 0; i < 5; i++) {
    one_edit(e, "resid_post", "", m->D, 0, m->D, ops[i], "last", T - 1, T - 1);
    one_edit(e, "mlp.act", "", m->F, 0, m->F, ops[i], "2:4", 2, 3);
    one_edit(e, "mlp.act", "[3-6]", m->F, 3, 4, ops[i], "all", 0, T - 1);
    one_edit(e, "attn.head", "[1]", m->H * m->hd, m->hd, m->hd, ops[i], "-2:", T - 2, T - 1);
    one_edit(e, "attn.q", "[1]", m->H * m->hd, m->hd, m->hd, ops[i], "0", 0, 0);
    one_edit(e, "attn_norm", "[5]", m->D, 5, 1, ops[i], "all", 0, T - 1);
  }
}
static void edits_act(void **state) {
  (void)state;
  for_each_model(every_edit);
}

static void edit_by_text(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){0});
  nm_edits *ed = edits_of("{\"site\": \"embed\", \"at\": \"span:red fox\", \"op\": \"zero\"}");
  int32_t *ids;
  size_t n;
  assert_int_equal(nm_tokenize(m, "ann saw the red fox", 19, 0, &ids, &n, NULL), 0);
  struct rows r = tap_one(e, ids, n, "embed", "all", ed);
  for (size_t p = 0; p < n; p++)
    for (int i = 0; i < m->D; i++)
      if (p >= 4) assert_true(row_of(&r, "embed", 0, (int)p, m->D)[i] == 0);
  assert_true(row_of(&r, "embed", 0, 3, m->D)[0] != 0);
  assert_int_equal(nm_edits_touched(ed, 0), 2);
  rows_done(&r);
  nm_free(ids);
  nm_edits_free(ed);
  nm_engine_free(e);
  nm_model_close(m);
}

/* Pattern zero silences a head, scores zero makes it even; no other head notices. */
static void edit_attention(const nm_model *m, nm_engine *e) {
  nm_edits *ed =
      edits_of("[{\"site\": \"blk.1.attn.pattern[1]\", \"op\": \"zero\"},"
               " {\"site\": \"blk.1.attn.scores[0]\", \"op\": \"zero\", \"at\": \"2:\"}]");
  struct rows a = tap_one(e, some_ids, T, "blk.1.attn.*", "all", NULL),
              b = tap_one(e, some_ids, T, "blk.1.attn.*", "all", ed);
  assert_true(nm_edits_touched(ed, 0) == T && nm_edits_touched(ed, 1) == T - 2);
  for (int p = 0; p < T; p++) {
    const float *z = at(&b, 1, "attn.head", p, m->H * m->hd),
                *w = at(&b, 1, "attn.pattern", p, m->H * T);
    const float *s = at(&b, 1, "attn.scores", p, m->H * T);
    for (int i = 0; i < m->hd; i++) assert_true(z[m->hd + i] == 0);
    for (int k = 0; k <= p; k++) assert_true(w[T + k] == 0);
    for (int k = 0; k <= p && p >= 2; k++)
      assert_true(s[k] == 0 && fabsf(w[k] - 1.0f / (float)(p + 1)) < 1e-7f);
    if (p < 2) assert_memory_equal(w, at(&a, 1, "attn.pattern", p, m->H * T), T * 4);
    if (m->H > 2)
      assert_memory_equal(z + 2 * m->hd, at(&a, 1, "attn.head", p, m->H * m->hd) + 2 * m->hd,
                          (size_t)((m->H - 2) * m->hd) * 4);
  }
  rows_done(&a);
  rows_done(&b);
  nm_edits_free(ed);
}
static void edits_of_attention(void **state) {
  (void)state;
  for_each_model(edit_attention);
}

/* Order matters, counts add up over runs, chunks and sequences, and a file has a row a layer. */
static void stacked(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  float v[6 * 32];
  char npy[64], json[600];
  snprintf(npy, sizeof npy, "/tmp/noema_edit_test.%ld.npy", (long)getpid());
  for (int i = 0; i < 6 * 32; i++) v[i] = (float)(i / 32);
  assert_int_equal(nm__npy_write(npy, 2, (int64_t[]){6, 32}, v, NULL), 0);
  snprintf(json, sizeof json, "[{\"site\": \"*.mlp_out\", \"op\": \"replace\", \"vector\": \"%s\"},"
           " {\"site\": \"*.mlp_out\", \"op\": \"scale\", \"scale\": 3, \"at\": \"last\"},"
           " {\"site\": \"blk.5.mlp_out[7]\", \"op\": \"add\", \"vector\": [2], \"at\": \"last\"},"
           " {\"site\": \"final_norm\", \"op\": \"zero\"}]", npy);
  nm_edits *ed = edits_of(json);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 3, .chunk = 2, .batch = 2});
  nm_seq seqs[3] = {{some_ids, T}, {some_ids, 3}, {some_ids + 1, 4}};
  nm_tap tap = {"*.mlp_out", "all"};
  struct rows r = run_rows(
      e,
      (nm_request){
          .seqs = seqs, .n_seqs = 3, .taps = &tap, .n_taps = 1, .edits = ed, .share_prefix = true});
  for (size_t i = 0; i < r.n; i++)
    for (int k = 0; k < 32; k++) {
      bool last = r.v[i].pos == (int)seqs[r.v[i].seq].n - 1;
      float want =
          (float)r.v[i].site * (last ? 3 : 1) + (last && r.v[i].site == 5 && k == 7 ? 2 : 0);
      assert_true(r.v[i].v[k] == want);
    }
  assert_int_equal(nm_edits_touched(ed, 0), (T + 3 + 4) * 6);
  assert_int_equal(nm_edits_touched(ed, 1), 3 * 6);
  assert_int_equal(nm_edits_touched(ed, 2), 3);
  assert_int_equal(nm_edits_touched(ed, 3), 0);                  /* the run never came there */
  rows_done(&r);
  r = tap_one(e, some_ids, T, "logits", "last", ed);             /* all of 1 more sequence */
  assert_int_equal(nm_edits_touched(ed, 0), (T + 3 + 4 + T) * 6);
  assert_int_equal(nm_edits_touched(ed, 3), 1);
  for (int i = 0; i < m->V; i++) assert_true(row_of(&r, "logits", 0, T - 1, m->V)[i] == 0);
  rows_done(&r);
  nm_edits_free(ed);
  nm_engine_free(e);
  nm_model_close(m);
  unlink(npy);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(sums), cmocka_unit_test(norms), cmocka_unit_test(attention),
    cmocka_unit_test(rotation), cmocka_unit_test(hugging_face_order), cmocka_unit_test(silent_taps),
    cmocka_unit_test(edits_act), cmocka_unit_test(edit_by_text),
    cmocka_unit_test(edits_of_attention), cmocka_unit_test(stacked),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
