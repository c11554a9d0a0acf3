/* control_test.c - control vectors as llama.cpp applies them (its own logits), vectors out of three
 * kinds of files, YAML, schedules, and the edits mean, clamp and mask_head, recomputed by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "file/npy.h"
#include "file/safetensors.h"
#include "model_run.h"

#define CVEC SHARED "reference/cvec/"
enum { T = 6 };
static const int32_t some_ids[T] = {1, 2, 0, 2, 1, 1};
static char scratch[64];

static void write_gguf(const char *path, int first, int n, int64_t width, const char *arch) {
  struct nm__gguf_writer *w;
  float v[256];
  char name[32];
  assert_int_equal(nm__gguf_writer_new(&w, NULL), 0);
  nm__gguf_put_string(w, "general.architecture", arch);
  for (int k = first; k < first + n; k++) {
    snprintf(name, sizeof name, "direction.%d", k);
    nm__gguf_announce(w, name, NM__F32, 1, &width);
  }
  assert_int_equal(nm__gguf_begin(w, path, NULL), 0);
  for (int k = first; k < first + n; k++) {
    for (int64_t i = 0; i < width; i++) v[i] = (float)k + 0.25f * (float)(i % 3);
    assert_int_equal(nm__gguf_data(w, v, sizeof *v * (size_t)width, NULL), 0);
  }
  assert_int_equal(nm__gguf_finish(w, NULL), 0);
  nm__gguf_writer_free(w);
}

/* ---- the reference -------------------------------------------------------------- */

static struct nm__npy npy(const char *dir, const char *name) {
  char path[200];
  struct nm__npy a;
  nm_err err = {0};
  snprintf(path, sizeof path, CVEC "%s/%s", dir, name);
  if (nm__npy_read(path, &a, &err)) fail_msg("%s", err.text);
  return a;
}

/* Rows of the last four positions of each sequence, and the stream after every block. */
static double far_from(nm_engine *e, nm_edits *ed, const char *dir, const char *logits,
                       const char *l_out, double *stream) {
  char path[200];
  snprintf(path, sizeof path, CVEC "%s/meta.json", dir);
  json_t *meta = json_load_file(path, 0, NULL), *seqs = json_object_get(meta, "sequences");
  struct nm__npy z = npy(dir, logits), l = npy(dir, l_out);
  double worst = 0;
  *stream = 0;
  for (size_t s = 0; s < 3; s++) {
    json_t *a = json_array_get(seqs, s);
    int32_t ids[64];
    int n = (int)json_array_size(a);
    for (int i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(a, (size_t)i));
    struct rows r = tap_one(e, ids, (size_t)n, "blk.*.resid_post|logits", "-4:", ed);
    for (int p = 0; p < 4; p++)
      for (int i = 0; i < 384; i++) {
        double d = (double)row_of(&r, "logits", 0, n - 4 + p, 384)[i] -
                   (double)z.data[((int)s * 4 + p) * 384 + i];
        worst = fabs(d) > worst ? fabs(d) : worst;
      }
    for (int k = 0; k < 4; k++)
      for (int i = 0; i < 64; i++) {
        char name[64];
        double d = (double)row_of(&r, at_layer(name, k, "resid_post"), 0, n - 1, 64)[i] -
                   (double)l.data[((int)s * 4 + k) * 64 + i];
        *stream = fabs(d) > *stream ? fabs(d) : *stream;
      }
    rows_done(&r);
  }
  json_decref(meta);
  nm__npy_done(&z);
  nm__npy_done(&l);
  return worst;
}

static void as_llama_cpp(void **state) {
  (void)state;
  if (no_shared()) return;
  static const struct { const char *dir; double scale; int from, to, blocks; } cases[] = {
      {"scale_1.0_layers_1_3", 1, 1, 4, 3},
      {"scale_0.5_layers_1_3", 0.5, 0, 1 << 30, 3},
      {"scale_1.0_layers_2_2", 1, 2, 2, 1}};
  nm_model *m = open_model(SHARED "reference/llama/model.gguf");
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  for (int i = 0; i < 3; i++) {
    nm_edits *ed = NULL;
    double stream, worst;
    assert_int_equal(nm_edits_add_control_vector(&ed, m, CVEC "control_vector.gguf", cases[i].scale,
                                                 cases[i].from, cases[i].to, NULL), 0);
    worst = far_from(e, ed, cases[i].dir, "truth_logits.npy", "truth_l_out.npy", &stream);
    if (worst > 1e-4 || stream > 1e-4) fail_msg("%s: truth %g, %g", cases[i].dir, worst, stream);
    assert_int_equal(nm_edits_touched(ed, 0), (5 + 24 + 40) * cases[i].blocks);
    worst = far_from(e, ed, cases[i].dir, "logits.npy", "l_out.npy", &stream);
    if (worst > 3e-4 || stream > 3e-4) fail_msg("%s: %g, %g", cases[i].dir, worst, stream);
    nm_edits_free(ed);
    /* Without it, or with another, the numbers are far away: the comparison can fail. */
    worst = far_from(e, NULL, cases[i].dir, "truth_logits.npy", "truth_l_out.npy", &stream);
    assert_true(worst > 0.1 && stream > 0.1);
  }
  nm_engine_free(e);
  nm_model_close(m);
}

/* Two halves are one whole; the direction minus itself is nothing; one more gap, one more edit. */
static void several(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  nm_edits *one = NULL, *two = NULL;
  write_gguf(scratch, 1, 5, 32, "controlvector");
  assert_int_equal(nm_edits_add_control_vector(&one, m, scratch, 1, 1, 9, NULL), 0);
  assert_int_equal(nm_edits_add_control_vector(&two, m, scratch, 0.5, 1, 9, NULL), 0);
  assert_int_equal(nm_edits_add_control_vector(&two, m, scratch, 0.5, 1, 9, NULL), 0);
  assert_true(nm_edits_n(one) == 1 && nm_edits_n(two) == 2);
  assert_string_equal(nm_edits_what(one, 0), "control vector at blk.1-5.resid_post, positions all");
  struct rows a = tap_one(e, some_ids, T, "blk.*.resid_post", "all", one),
              b = tap_one(e, some_ids, T, "blk.*.resid_post", "all", two),
              c = tap_one(e, some_ids, T, "blk.*.resid_post", "all", NULL);
  for (size_t i = 0; i < a.n; i++)
    for (int k = 0; k < 32; k++)
      assert_true(fabsf(a.v[i].v[k] - b.v[i].v[k]) <= 1e-4f * (1 + fabsf(a.v[i].v[k])));
  for (int p = 0; p < T; p++)                          /* block 0 never gets one; block 1 does */
    for (int k = 0; k < 32; k++) {
      assert_true(row_of(&a, "blk.0.resid_post", 0, p, 32)[k] ==
                  row_of(&c, "blk.0.resid_post", 0, p, 32)[k]);
      assert_true(row_of(&a, "blk.1.resid_post", 0, p, 32)[k] ==
                  fmaf(1, 1 + 0.25f * (float)(k % 3), row_of(&c, "blk.1.resid_post", 0, p, 32)[k]));
    }
  rows_done(&a);
  rows_done(&b);
  rows_done(&c);
  nm_edits_free(one);
  nm_edits_free(two);
  nm_engine_free(e);
  nm_model_close(m);
}

static void refused(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  const struct { int first, n; int64_t width; const char *arch; int from, to; const char *part;
  } cases[] = {
      {1, 2, 32, "llama", 1, 9, "is no control vector"},
      {1, 2, 31, "controlvector", 1, 9, "have 31 values, the model's width is 32"},
      {0, 2, 32, "controlvector", 1, 9, "block 0 has none"},
      {4, 3, 32, "controlvector", 1, 9, "a direction for block 6, the last of the model is 5"},
      {1, 2, 32, "controlvector", 4, 5, "no direction for blocks 4 to 5"},
      {1, 0, 32, "controlvector", 1, 9, "holds no direction"},
      {900, 1, 32, "controlvector", 1, 9, "but the last is for block 900"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    nm_edits *e = NULL;
    nm_err err = {0};
    write_gguf(scratch, cases[i].first, cases[i].n, cases[i].width, cases[i].arch);
    int st = nm_edits_add_control_vector(&e, m, scratch, 1, cases[i].from, cases[i].to, &err);
    if (st != NM_EFORMAT || e || !strstr(err.text, cases[i].part)) fail_msg("%zu: %s", i, err.text);
  }
  nm_edits *e = NULL;
  assert_int_equal(nm_edits_add_control_vector(&e, m, scratch, 1.0 / 0.0, 1, 9, NULL), NM_EUSAGE);
  assert_int_equal(nm_edits_add_control_vector(&e, m, "/nonexistent", 1, 1, 9, NULL), NM_EFORMAT);
  nm_model_close(m);
}

/* What is written is what was read, and the container's reader sees llama.cpp's names. */
static void written(void **state) {
  (void)state;
  struct nm__dirs a, b;
  nm_err err = {0};
  write_gguf(scratch, 2, 3, 7, "controlvector");
  if (nm__dirs_read(scratch, NULL, &a, &err)) fail_msg("%s", err.text);
  assert_true(a.rows == 5 && a.n == 7 && !a.has[1] && a.has[2] && a.has[4] &&
              a.v[2 * 7 + 1] == 2.25f);
  if (nm__dirs_write_gguf(scratch, "llama", &a, &err)) fail_msg("%s", err.text);
  if (nm__dirs_read(scratch, NULL, &b, &err)) fail_msg("%s", err.text);
  assert_true(b.rows == 5 && b.n == 7);
  assert_memory_equal(a.v, b.v, 5 * 7 * sizeof(float));
  assert_memory_equal(a.has, b.has, 5);
  nm__dirs_done(&a);
  nm__dirs_done(&b);
}

/* ---- other files, YAML ----------------------------------------------------------- */

static nm_edits *load(const char *text) {
  nm_edits *e;
  nm_err err = {0};
  if (nm_edits_parse("t", text, strlen(text), &e, &err)) fail_msg("%s", err.text);
  return e;
}

static void yaml(void **state) {
  (void)state;
  nm_edits *a = load("# turns A off\nedits:\n"
                     "- site: blk.3.resid_post\n  at: -1\n  op: add\n  vector: [1, -2.5, 1e-3]\n"
                     "- {site: 'blk.*.attn.head[1]', op: zero, note: why}\n"),
           *b = load(
               "[{\"site\": \"blk.3.resid_post\", \"at\": \"-1\", \"op\": \"add\", \"vector\": "
               "[1, -2.5, 0.001]}, {\"site\": \"blk.*.attn.head[1]\", \"op\": \"zero\"}]");
  struct nm__buf x, y;
  nm__buf_init(&x, 4096);
  nm__buf_init(&y, 4096);
  nm__edits_key(a, &x);
  nm__edits_key(b, &y);
  assert_true(x.len == y.len && x.len > 20);
  assert_memory_equal(x.s, y.s, x.len);
  nm__buf_done(&x);
  nm__buf_done(&y);
  nm_edits_free(a);
  nm_edits_free(b);
  static const char *const bad[][2] = {
      {"site: embed\nop: zero\nat: last\nscal: 2\n", "t:1: edit 1: unknown key \"scal\""},
      {"- site: embed\n  op: zero\n- site: embed\n  op: nothing\n", "t:3: edit 2: \"op\" must be"},
      {"site: embed\nop: clamp\n", "needs \"low\""},
      {"site: embed\nop: clamp\nlow: 2\nhigh: 1\n", "lies above"},
      {"site: embed\nop: zero\nhigh: 1\n", "only clamp has limits"},
      {"site: embed\nop: mask_head\nhow: uniform\n", "needs a site of heads"},
      {"site: blk.0.attn.head\nop: mask_head\n", "needs \"how\""},
      {"site: blk.0.attn.head\nop: mask_head\nhow: mean\n", "a \"vector\" of means"},
      {"site: blk.0.attn.head\nop: zero\nhow: mean\n", "only mask_head"},
      {"site: embed\nop: zero\nschedule: 3\n", "a schedule is"},
      {"site: embed\nop: zero\nschedule: []\n", "1 to 1048576"},
      {"site: embed\nop: zero\nschedule: {first: -1}\n", "1 to 1048576"},
      {"site: embed\nop: zero\nschedule: {from: 1, to: 2}\n", "a schedule is"},
      {"site: embed\nop: zero\nschedule: {from: 1, to: 2, over: 99999999}\n", "1 to 1048576"},
      {"site: embed\nop: zero\nschedule: [1, a]\n", "finite numbers only"},
      {"site: &a embed\nop: zero\n", "anchors"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    nm_err err = {0};
    int st = nm_edits_parse("t", bad[i][0], strlen(bad[i][0]), &a, &err);
    if (st != NM_EFORMAT || !strstr(err.text, bad[i][1])) fail_msg("%s: %s", bad[i][0], err.text);
  }
}

static void write_safetensors(const char *path, const float *v, int64_t rows, int64_t n) {
  struct nm__st_writer *w;
  assert_int_equal(nm__st_writer_new(&w, NULL), 0);
  nm__st_announce(w, "direction", NM__F32, 2, (int64_t[]){rows, n});
  nm__st_announce(w, "other", NM__F32, 1, (int64_t[]){1});
  assert_int_equal(nm__st_begin(w, path, NULL), 0);
  for (int64_t i; (i = nm__st_next(w)) >= 0;)
    assert_int_equal(nm__st_data(w, v, i ? 4 : (size_t)(rows * n) * 4, NULL), 0);
  assert_int_equal(nm__st_finish(w, NULL), 0);
  nm__st_writer_free(w);
}

/* The same rows out of .npy, safetensors and a control vector give the same stream. */
static void three_files(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  float v[2 * 32];
  char json[300];
  struct rows r[3];
  for (int i = 0; i < 64; i++) v[i] = (float)(3 + i / 32) + 0.25f * (float)(i % 32 % 3);
  for (int i = 0; i < 3; i++) {
    if (i == 0) assert_int_equal(nm__npy_write(scratch, 2, (int64_t[]){2, 32}, v, NULL), 0);
    if (i == 1) write_safetensors(scratch, v, 2, 32);
    if (i == 2) write_gguf(scratch, 1, 5, 32, "controlvector");
    snprintf(json, sizeof json, "{\"site\": \"blk.3-4.mlp_out\", \"op\": \"add\", \"vector\": "
             "\"%s\"%s}", scratch, i == 1 ? ", \"tensor\": \"direction\"" : "");
    nm_edits *ed = load(json);
    r[i] = tap_one(e, some_ids, T, "blk.*.resid_post", "all", ed);
    assert_int_equal(nm_edits_touched(ed, 0), 2 * T);
    nm_edits_free(ed);
    if (i) assert_same_rows(&r[0], &r[i], "vector files");
  }
  for (int i = 0; i < 3; i++) rows_done(&r[i]);
  nm_err err = {0};
  nm_edits *ed;
  write_safetensors(scratch, v, 2, 32);
  snprintf(json, sizeof json, "{\"site\": \"embed\", \"op\": \"add\", \"vector\": \"%s\"}",
           scratch);
  assert_int_equal(nm_edits_parse("t", json, strlen(json), &ed, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "holds 2 tensors"));
  nm_engine_free(e);
  nm_model_close(m);
}

/* Another run's activations at every position: the stream is that run's from there on. */
static void other_run(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  static const int32_t other[T] = {2, 1, 1, 0, 2, 2};
  float v[T * 32];
  char json[300];
  struct rows a = tap_one(e, other, T, "blk.2.resid_post", "all", NULL);
  for (int p = 0; p < T; p++) memcpy(v + 32 * p, row_of(&a, "blk.2.resid_post", 0, p, 32), 128);
  rows_done(&a);
  assert_int_equal(nm__npy_write(scratch, 3, (int64_t[]){1, T, 32}, v, NULL), 0);
  snprintf(json, sizeof json, "{\"site\": \"blk.2.resid_post\", \"op\": \"replace\", \"vector\": "
           "\"%s\"}", scratch);
  nm_edits *ed = load(json);
  a = tap_one(e, other, T, "blk.3-5.*|logits", "all", NULL);
  struct rows b = tap_one(e, some_ids, T, "blk.3-5.*|logits", "all", ed);
  assert_same_rows(&a, &b, "the other run");
  rows_done(&a);
  rows_done(&b);
  static const int32_t longer[T + 1] = {1, 1, 1, 1, 1, 1, 1};
  nm_seq seq = {longer, T + 1};
  nm_tap tap = {"logits", "last"};
  nm_err err = {0};
  int st = try_rows(e, (nm_request){.seqs = &seq, .n_seqs = 1, .taps = &tap, .n_taps = 1,
                                    .edits = ed}, &b, &err);
  if (st != NM_EFORMAT || !strstr(err.text, "has 6 positions, none for position 6"))
    fail_msg("%s", err.text);
  rows_done(&b);
  nm_edits_free(ed);
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- mean, clamp, mask_head, schedules --------------------------------------------- */

static void mean_and_clamp(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  nm_edits *ed = load("- {site: 'blk.1.mlp_norm[2-4]', op: mean, vector: [1, 2, 3], scale: 0.25}\n"
                      "- {site: 'blk.2.mlp_norm[2-4]', op: mean, vector: [1, 2, 3]}\n"
                      "- {site: blk.0.mlp_norm, op: clamp, low: -0.5, high: 0.25}\n"
                      "- {site: blk.0.attn_norm, op: clamp, high: 0.125}\n");
  struct rows a = tap_one(e, some_ids, T, "blk.*.*_norm", "all", NULL),
              b = tap_one(e, some_ids, T, "blk.*.*_norm", "all", ed);
  bool low = false, high = false;
  for (int p = 0; p < T; p++)
    for (int i = 0; i < 32; i++) {
      float x = row_of(&a, "blk.0.attn_norm", 0, p, 32)[i],
            y = row_of(&b, "blk.0.attn_norm", 0, p, 32)[i],
            z = row_of(&b, "blk.0.mlp_norm", 0, p, 32)[i];
      assert_true(y == (x > 0.125f ? 0.125f : x) && z >= -0.5f && z <= 0.25f);
      high |= x > 0.125f;
      low |= x < -0.5f;
      if (i >= 2 && i < 5)
        assert_true(row_of(&b, "blk.2.mlp_norm", 0, p, 32)[i] == (float)(i - 1));
    }
  assert_true(high);
  (void)low;
  nm_edits_free(ed);
  rows_done(&b);
  ed = load("- {site: 'blk.1.mlp_norm[2-4]', op: mean, vector: [1, 2, 3], scale: 0.25}\n");
  b = tap_one(e, some_ids, T, "blk.*.*_norm", "all", ed);
  for (int p = 0; p < T; p++)
    for (int i = 2; i < 5; i++) {
      float x = row_of(&a, "blk.1.mlp_norm", 0, p, 32)[i];
      assert_true(row_of(&b, "blk.1.mlp_norm", 0, p, 32)[i] == x + 0.25f * ((float)(i - 1) - x));
    }
  rows_done(&a);
  rows_done(&b);
  nm_edits_free(ed);
  nm_engine_free(e);
  nm_model_close(m);
}

/* A head that looks evenly gives the mean of the values it sees; written at its output, too. */
static void masked_heads(void **state) {
  (void)state;
  static const char *const sites[] = {"attn.head", "attn.pattern"};
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  for (int s = 0; s < 2; s++) {
    char text[200];
    snprintf(text, sizeof text, "{site: 'blk.1.%s[1]', op: mask_head, how: uniform}", sites[s]);
    char listed[220];
    snprintf(listed, sizeof listed, "- %s", text);
    nm_edits *ed = load(listed);
    struct rows r = tap_one(e, some_ids, T, "blk.1.attn.*", "all", ed);
    assert_int_equal(nm_edits_touched(ed, 0), T);
    for (int p = 0; p < T; p++)
      for (int i = 0; i < m->hd; i++) {
        double mean = 0;
        int kv = 1 / (m->H / m->K);
        for (int k = 0; k <= p; k++)
          mean += (double)row_of(&r, "blk.1.attn.v", 0, k, m->K * m->hd)[kv * m->hd + i] / (p + 1);
        double got = (double)row_of(&r, "blk.1.attn.head", 0, p, m->H * m->hd)[m->hd + i];
        assert_true(fabs(got - mean) < 1e-5 * (1 + fabs(mean)));
      }
    rows_done(&r);
    nm_edits_free(ed);
  }
  nm_edits *ed = load("- {site: 'blk.1.attn.head[1]', op: mask_head, how: zero}\n"
                      "- {site: 'blk.1.attn.head[2]', op: mask_head, how: mean, vector: "
                      "[1, 2, 3, 4, 5, 6, 7, 8]}\n");
  struct rows r = tap_one(e, some_ids, T, "blk.1.attn.head", "all", ed);
  for (int i = 0; i < 8; i++) {
    const float *z = row_of(&r, "blk.1.attn.head", 0, 3, m->H * m->hd);
    assert_true(z[8 + i] == 0 && z[16 + i] == (float)(i + 1));
  }
  rows_done(&r);
  nm_edits_free(ed);
  nm_engine_free(e);
  nm_model_close(m);
}

static void schedules(void **state) {
  (void)state;
  nm_edits *ed = load(
      "- {site: embed, op: add, vector: [1, 2], scale: 2, schedule: {from: 0, to: 1, over: 5}}\n"
      "- {site: embed, op: add, vector: [1, 2], schedule: {first: 2}}\n"
      "- {site: embed, op: scale, scale: 3, schedule: [1, 0.5, 0]}\n"
      "- {site: embed, op: zero, schedule: {first: 1}}\n");
  static const float want[4][6] = {{0, 0.5f, 1, 1.5f, 2, 2}, {1, 1, 0, 0, 0, 0},
                                   {3, 2, 1, 1, 1, 1}, {0, 1, 1, 1, 1, 1}};
  for (int i = 0; i < 4; i++)
    for (int g = -1; g < 6; g++) {
      float x[2] = {i < 2 ? 0 : 1, i < 2 ? 0 : 1}, w = want[i][g < 0 ? 0 : g];
      bool did = nm__edit_apply(&ed->v[i], (struct nm__edit_at){0, 0, g}, &nm__kern_portable, x, 2);
      assert_true(x[0] == w && x[1] == (i < 2 ? 2 * w : w));
      assert_true(did == (nm__factor_at(&ed->v[i].schedule, g) != 0));
    }
  nm_edits_free(ed);
}

/* Strength 0 changes no bit, not the sign of a zero either, and counts no position. */
static void strength_zero(void **state) {
  (void)state;
  nm_edits *ed = load("- {site: embed, op: add, vector: [1, 2], scale: 0}\n"
                      "- {site: embed, op: project_out, vector: [1, 2], scale: 0}\n"
                      "- {site: embed, op: mean, vector: [1, 2], scale: 0}\n");
  for (int i = 0; i < 3; i++) {
    float x[2] = {-0.0f, 3};
    assert_false(
        nm__edit_apply(&ed->v[i], (struct nm__edit_at){0, 0, -1}, &nm__kern_portable, x, 2));
    assert_true(signbit(x[0]) && x[0] == 0 && x[1] == 3);
  }
  nm_edits_free(ed);
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  write_gguf(scratch, 1, 5, 32, "controlvector");
  ed = NULL;
  assert_int_equal(nm_edits_add_control_vector(&ed, m, scratch, 0, 1, 9, NULL), 0);
  struct rows a = tap_one(e, some_ids, T, "*", "all", NULL),
              b = tap_one(e, some_ids, T, "*", "all", ed);
  assert_same_rows(&a, &b, "strength 0");
  assert_int_equal(nm_edits_touched(ed, 0), 0);
  rows_done(&a);
  rows_done(&b);
  nm_edits_free(ed);
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- damage -------------------------------------------------------------------------- */

static const char *const good_yaml =
    "edits:\n- site: blk.3.resid_post\n  at: last\n  op: add\n  vector: [1, -2.5, 0.25]\n"
    "  schedule: {from: 0, to: 1, over: 5}\n- site: 'blk.1.attn.head[2]'\n  op: mask_head\n"
    "  how: uniform\n- {site: embed, op: clamp, low: -1, high: 1, note: x}\n";

static size_t mutate(char *copy, size_t n, uint64_t i) {
  for (uint64_t k = 0; k <= i % 3; k++) {
    uint64_t r = nm__rand_at(23, k, i);
    copy[r % n] = (char)(i % 2 ? r >> 40 : (r >> 40) % 96 + 32);
  }
  return i % 5 ? n : n * (i % 64) / 64;
}

static void damaged_yaml(void **state) {
  (void)state;
  size_t n = strlen(good_yaml), n_read = 0;
  for (uint64_t i = 0; i < 10000; i++) {
    char *copy = malloc(n);
    memcpy(copy, good_yaml, n);
    size_t len = mutate(copy, n, i);
    nm_edits *e;
    nm_err err = {0};
    int st = nm_edits_parse("damaged", copy, len, &e, &err);
    assert_true(st ? !e && err.text[0] && st == err.status : e && nm_edits_n(e) > 0);
    n_read += !st;
    nm_edits_free(e);
    free(copy);
  }
  assert_true(n_read > 0 && n_read < 10000);
}

static void damaged_vectors(void **state) {
  (void)state;
  struct nm__map m;
  size_t n_read = 0;
  write_gguf(scratch, 1, 3, 8, "controlvector");
  assert_int_equal(nm__map_open(scratch, &m, NULL), 0);
  for (uint64_t i = 0; i < 10000; i++) {
    char *copy = malloc(m.size);
    memcpy(copy, m.data, m.size);
    size_t len = mutate(copy, m.size, i);
    struct nm__dirs d;
    nm_err err = {0};
    int st = nm__dirs_parse("damaged", copy, len, NULL, &d, &err);
    assert_true(st ? !d.v && !d.has && err.text[0] && st == err.status
                   : d.v && d.rows > 0 && d.pos > 0 && d.n > 0);
    n_read += !st;
    nm__dirs_done(&d);
    free(copy);
  }
  nm__map_close(&m);
  assert_true(n_read > 0 && n_read < 10000);
}

int main(void) {
  snprintf(scratch, sizeof scratch, "/tmp/noema_control_test.%ld", (long)getpid());
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(as_llama_cpp), cmocka_unit_test(several), cmocka_unit_test(refused),
      cmocka_unit_test(written), cmocka_unit_test(yaml), cmocka_unit_test(three_files),
      cmocka_unit_test(other_run), cmocka_unit_test(mean_and_clamp),
      cmocka_unit_test(masked_heads), cmocka_unit_test(schedules),
      cmocka_unit_test(strength_zero), cmocka_unit_test(damaged_yaml),
      cmocka_unit_test(damaged_vectors)};
  int st = cmocka_run_group_tests(tests, NULL, NULL);
  unlink(scratch);
  return st;
}
