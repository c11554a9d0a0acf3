/* vector_test.c - the planted direction is found where it was wired, by every method, and steers
 * more than random ones; files say the same to every reader; the arithmetic on them; controls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "file/npy.h"
#include "look/direction.h"
#include "look/linalg.h"
#include "model_run.h"

static char dir[64], file[3][96];

static void clean(void) {
  char command[120];
  snprintf(command, sizeof command, "rm -rf %s", dir);
  assert_int_equal(system(command), 0);
  assert_int_equal(nm__mkdirs(dir, NULL), 0);
}

/* ---- clouds whose answer is known ------------------------------------------------- */

enum { N = 60, D = 12 };
static float x[N * D];
static uint8_t label[N];
static uint32_t group[N], rows[N];

/* Pairs (2 i, 2 i + 1), apart along dimension 3, with large shared noise along dimension 7. */
static struct nm__cloud cloud(void) {
  struct nm__rng r = {11, 0, 0};
  for (int i = 0; i < N; i++) {
    label[i] = i % 2;
    group[i] = (uint32_t)i / 2;
    rows[i] = (uint32_t)i;
    for (int d = 0; d < D; d++) x[i * D + d] = (float)(0.02 * nm__rng_unit(&r));
    x[i * D + 3] += label[i] ? 1.0f : -1.0f;
    x[i * D + 7] = (float)(50 * (double)(nm__rand_at(5, 0, group[i]) % 100) / 100);
  }
  return (struct nm__cloud){x, D, D, N, label, group, N / 2, true};
}

static void methods(void **state) {
  (void)state;
  for (int k = 0; k < 3; k++) {
    struct nm__cloud c = cloud();
    double v[D], middle, unit[D];
    assert_int_equal(nm__direction_fit(&c, rows, N, (enum nm__method)k, v, &middle, NULL), 0);
    memcpy(unit, v, sizeof v);
    double len = nm__unit(unit, D);
    assert_true(unit[3] > 0.999 && fabs(len - 2) < 0.05);
    assert_true(nm__direction_test(&c, rows, N, v, middle, NULL).acc == 1);
    /* Without the pairs the principal component is the noise: known, and not hidden. */
    c.paired = false;
    assert_int_equal(nm__direction_fit(&c, rows, N, (enum nm__method)k, v, &middle, NULL), 0);
    memcpy(unit, v, sizeof v);
    nm__unit(unit, D);
    assert_true(k == NM__METHOD_PCA ? fabs(unit[7]) > 0.99 : unit[3] > 0.999);
  }
  enum nm__method m;
  assert_true(nm__method_by_name("probe", &m) && m == NM__METHOD_PROBE);
  assert_false(nm__method_by_name("median", &m));
}

/* ---- the planted model ---------------------------------------------------------------- */

static nm_contrast contrast(const nm_model *m) {
  nm_contrast c;
  nm_err err = {0};
  assert_int_equal(nm_write_planted_data(file[0], 'A', 20, 5, NULL), 0);
  if (nm_contrast_load(m, &(nm_contrast_files){.data = file[0]}, &c, &err))
    fail_msg("%s", err.text);
  assert_true(c.n == 160 && c.n_groups == 20 && !c.paired);
  return c;
}

/* Dimension 9 of the stream is A from block 2 on, and nothing before. */
static void planted_direction(void **state) {
  (void)state;
  static const char *const method[] = {"mean", "probe", "pca"};
  nm_model *m = open_model(PLANTED);
  nm_contrast c = contrast(m);
  for (int k = 0; k < 3; k++) {
    nm_vector_result r, again;
    nm_err err = {0};
    char out[2][96];
    clean();
    for (int i = 0; i < 2; i++) snprintf(out[i], sizeof out[i], "%s/%d", dir, i);
    nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1}),
              *e3 = new_engine(m, (nm_engine_opts){.threads = 3, .chunk = 2, .batch = 7});
    nm_vector_opts o = {.method = method[k], .repeats = 5, .seed = 2, .out = out[0]};
    if (nm_vector_make(e, &c, &o, &r, &err)) fail_msg("%s", err.text);
    assert_true(r.n_layers == 6 && r.D == 32 && r.layer[r.best].layer == 2 && r.above_controls);
    for (int l = 0; l < 6; l++) {
      double v[32];
      for (int d = 0; d < 32; d++) v[d] = (double)r.v[l * 32 + d];
      double len = nm__unit(v, 32), auc = r.layer[l].auc.mean;
      assert_true(fabs(len - r.layer[l].length) < 1e-5 * (1 + len));
      if (l < 2) assert_true(auc == 0.5 && len < 1e-6);
      else if (k < 2 || l < 4) assert_true(auc == 1 && v[9] > 0.99999);
      assert_true(r.layer[l].shuffled.mean > 0.3 && r.layer[l].shuffled.mean < 0.7);
    }
    o.out = out[1];
    assert_int_equal(nm_vector_make(e3, &c, &o, &again, NULL), 0);     /* the same bits */
    assert_memory_equal(r.v, again.v, sizeof(float) * 6 * 32);
    assert_memory_equal(r.layer, again.layer, sizeof *r.layer * 6);
    o.out = out[0];
    nm_vector_result no;
    assert_int_equal(nm_vector_make(e, &c, &o, &no, &err), NM_EUSAGE); /* nothing is overwritten */
    assert_non_null(strstr(err.text, "already holds"));
    nm_vector_result_free(&r);
    nm_vector_result_free(&again);
    nm_engine_free(e);
    nm_engine_free(e3);
  }
  nm_contrast_free(&c);
  nm_model_close(m);
}

/* The edit file, the row of vector.npy and the control vector's direction are one and the same. */
static void one_vector_three_files(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  nm_contrast c = contrast(m);
  nm_vector_result r;
  char out[96], path[160];
  clean();
  snprintf(out, sizeof out, "%s/run", dir);
  assert_int_equal(nm_vector_make(e, &c, &(nm_vector_opts){.repeats = 3, .out = out}, &r, NULL), 0);
  nm_edits *ed = NULL, *cv = NULL;
  snprintf(path, sizeof path, "%s/edit.json", out);
  assert_int_equal(nm_edits_load(path, &ed, NULL), 0);
  snprintf(path, sizeof path, "%s/vector.gguf", out);
  assert_int_equal(nm_edits_add_control_vector(&cv, m, path, 1, 2, 2, NULL), 0);
  struct rows a = tap_one(e, c.seq[0].ids, c.seq[0].n, "*", "all", ed),
              b = tap_one(e, c.seq[0].ids, c.seq[0].n, "*", "all", cv);
  assert_same_rows(&a, &b, "edit and control vector");
  assert_true(nm_edits_touched(ed, 0) == c.seq[0].n && nm_edits_touched(cv, 0) == c.seq[0].n);
  rows_done(&a);
  rows_done(&b);
  nm_edits_free(ed);
  nm_edits_free(cv);
  nm_vector_result_free(&r);
  nm_contrast_free(&c);
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- the sweep ---------------------------------------------------------------------------- */

static int32_t id_of(const nm_model *m, const char *word) {
  int32_t *ids, id;
  size_t n;
  assert_int_equal(nm_tokenize(m, word, strlen(word), NM_NO_BOS, &ids, &n, NULL), 0);
  id = ids[0];
  nm_free(ids);
  return id;
}

static void steers(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  nm_contrast c = contrast(m);
  nm_edits *ed;
  char json[600], list[400] = "";
  for (int d = 0; d < 32; d++)
    snprintf(list + strlen(list), 16, "%s%d", d ? "," : "", d == 9 ? 2 : 0);
  snprintf(json, sizeof json, "{\"site\": \"blk.2.resid_post\", \"op\": \"add\", \"vector\": [%s]}",
           list);
  assert_int_equal(nm_edits_parse("t", json, strlen(json), &ed, NULL), 0);
  const double s[] = {-2, 0, 1, 2};
  nm_sweep_opts o = {.edits = ed, .strength = s, .n = 4, .target = id_of(m, "yes"),
                     .against = id_of(m, "no"), .prompts = c.seq, .n_prompts = 8, .texts = c.seq,
                     .n_texts = 8, .n_random = 6, .seed = 4};
  nm_sweep_result r;
  nm_err err = {0};
  if (nm_sweep(e, &o, &r, &err)) fail_msg("%s", err.text);
  assert_true(r.n == 4);
  /* Strength 0 is no edit: the same bits, no position touched, for the vector and for chance. */
  assert_true(r.row[1].effect == r.effect && r.row[1].ppl.mean == r.ppl && !r.row[1].touched &&
              r.row[1].random_low == r.effect && r.row[1].random_high == r.effect &&
              !r.row[1].beyond);
  assert_true(r.row[0].effect < r.effect - 5 && r.row[3].effect > r.effect + 5);
  assert_true(r.row[3].effect > r.row[2].effect && r.row[2].effect > r.effect);
  for (int i = 0; i < 4; i++)
    if (i != 1) {
      double most =
          fmax(fabs(r.row[i].random_low - r.effect), fabs(r.row[i].random_high - r.effect));
      assert_true(r.row[i].beyond && most > 0 && most < fabs(r.row[i].effect - r.effect));
      assert_true(r.row[i].random_ppl > 1 && r.row[i].touched > 100);
    }
  assert_true(ed->v[0].scale == 1 && ed->v[0].vec.v[9] == 2 && ed->v[0].vec.v[8] == 0);
  nm_sweep_result_free(&r);
  /* B can be read, but nothing reads it: its direction moves nothing, and the sweep says so. */
  ed->v[0].vec.v[10] = 2;
  ed->v[0].vec.v[9] = 0;
  assert_int_equal(nm_sweep(e, &o, &r, NULL), 0);
  for (int i = 0; i < 4; i++) assert_false(r.row[i].beyond);
  nm_sweep_result_free(&r);
  o.target = -1;
  assert_int_equal(nm_sweep(e, &o, &r, &err), NM_EUSAGE);
  nm_edits_free(ed);
  nm_contrast_free(&c);
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- files ------------------------------------------------------------------------------------
 */

static void arithmetic(void **state) {
  (void)state;
  float a[8] = {1, 2, 3, 4, 5, 6, 7, 8}, b[8] = {1, 1, 1, 1, -1, -1, -1, -1};
  struct nm__dirs d;
  nm_err err = {0};
  clean();
  assert_int_equal(nm__npy_write(file[0], 2, (int64_t[]){2, 4}, a, NULL), 0);
  assert_int_equal(nm__npy_write(file[1], 2, (int64_t[]){2, 4}, b, NULL), 0);
  assert_int_equal(nm_vector_combine(file[0], 1, file[1], -1, file[2], &err), 0);
  assert_int_equal(nm__dirs_read(file[2], NULL, &d, NULL), 0);
  for (int i = 0; i < 8; i++) assert_true(d.v[i] == a[i] - b[i]);
  nm__dirs_done(&d);
  char gguf[128], other[128];
  snprintf(gguf, sizeof gguf, "%s/v.gguf", dir);
  snprintf(other, sizeof other, "%s/w.gguf", dir);
  assert_int_equal(nm_vector_combine(file[0], -2.5, NULL, 0, gguf, &err), 0);
  assert_int_equal(nm__dirs_read(gguf, NULL, &d, NULL), 0);
  assert_true(d.has && !d.has[0] && d.has[1] && d.rows == 2 &&
              d.v[4] == -12.5f); /* block 0 has none */
  nm__dirs_done(&d);
  assert_int_equal(nm_vector_combine(gguf, 1, gguf, -1, other, &err), 0);
  assert_int_equal(nm__dirs_read(other, NULL, &d, NULL), 0);
  for (int i = 0; i < 4; i++) assert_true(d.v[4 + i] == 0);
  nm__dirs_done(&d);
  char *s;
  assert_int_equal(nm_vector_show(file[0], file[1], true, &s, &err), 0);
  json_t *o = json_loads(s, 0, NULL), *row = json_array_get(json_object_get(o, "rows"), 0);
  assert_true(fabs(json_number_value(json_object_get(row, "length")) - sqrt(30)) < 1e-6);
  assert_true(fabs(json_number_value(json_object_get(row, "cosine")) - 10 / sqrt(120)) < 1e-6);
  json_decref(o);
  nm_free(s);
  assert_int_equal(nm__npy_write(file[1], 1, (int64_t[]){3}, b, NULL), 0);
  assert_int_equal(nm_vector_combine(file[0], 1, file[1], 1, file[2], &err), NM_EFORMAT);
  assert_int_equal(nm_vector_combine(file[0], 1, NULL, 0, "/tmp/x.bin", &err), NM_EUSAGE);
  assert_int_equal(nm_vector_combine(file[0], 1e300, NULL, 0, file[2], &err), NM_EFAIL);
}

/* ---- texts
 * --------------------------------------------------------------------------------------- */

static void put(const char *path, const char *s) {
  assert_int_equal(nm__write_file(path, s, strlen(s), NULL), 0);
}

static void texts(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_contrast c;
  nm_err err = {0};
  put(file[0], "{\"pos\": \"ann\", \"neg\": \"bob saw\"}\n{\"pos\": \"eve\", \"neg\": \"hal\"}\n");
  assert_int_equal(nm_contrast_load(m, &(nm_contrast_files){.pairs = file[0]}, &c, &err), 0);
  assert_true(c.n == 4 && c.paired && c.n_groups == 2 && c.label[0] == 1 && c.label[1] == 0 &&
              c.group[2] == 1 && c.seq[1].n == 3);
  nm_contrast_free(&c);
  put(file[0], "ann saw\n\n  \nbob\r\n");
  put(file[1], "[{\"text\": \"eve\"}, {\"text\": \"hal\"}, {\"text\": \"gus\"}]");
  assert_int_equal(
      nm_contrast_load(m, &(nm_contrast_files){.pos = file[0], .neg = file[1]}, &c, &err), 0);
  assert_true(c.n == 5 && !c.paired && c.label[1] == 1 && c.label[2] == 0 && c.seq[1].n == 2);
  nm_contrast_free(&c);
  put(file[1], " \n");
  const nm_contrast_files bad[] = {{.pairs = file[0]}, {.pos = file[0], .neg = file[1]},
                                   {.pos = file[0]}, {.pairs = file[0], .data = file[0]}, {0}};
  for (int i = 0; i < 5; i++) {
    int st = nm_contrast_load(m, &bad[i], &c, &err);
    assert_true(st == (i < 2 ? NM_EFORMAT : NM_EUSAGE) && !c.n && !c.seq);
  }
  nm_model_close(m);
}

int main(void) {
  snprintf(dir, sizeof dir, "/tmp/noema_vector_test.%ld", (long)getpid());
  for (int i = 0; i < 3; i++) snprintf(file[i], sizeof file[i], "%s.%d.npy", dir, i);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(methods), cmocka_unit_test(planted_direction),
      cmocka_unit_test(one_vector_three_files), cmocka_unit_test(steers),
      cmocka_unit_test(arithmetic), cmocka_unit_test(texts)};
  int st = cmocka_run_group_tests(tests, NULL, NULL);
  clean();
  rmdir(dir);
  for (int i = 0; i < 3; i++) unlink(file[i]);
  return st;
}
