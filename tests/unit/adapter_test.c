/* adapter_test.c - adapters: recorded results of llama.cpp and the truth in doubles for both forms on
 * both forms of the model; merged models; every family with random adapters; what does not fit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "file/npy.h"
#include "model/adapter.h"
#include "model_run.h"
#include "tensor/math.h"

#define REF SHARED "reference/"

static char tmp[64];
static const char *in_tmp(const char *name) {
  static char path[4][128];
  static int k;
  k = (k + 1) % 4;
  snprintf(path[k], sizeof path[k], "%s/%s", tmp, name);
  return path[k];
}

static nm_adapters *load(const nm_model *m, const char *path, double scale) {
  nm_adapters *a;
  nm_err err = {0};
  nm_adapter_file f = {path, scale};
  if (nm_adapters_load(m, &f, 1, &a, &err)) fail_msg("%s", err.text);
  return a;
}

/* ---- the recorded set ------------------------------------------------------------ */

struct set { nm_seq seq[3]; int32_t ids[128]; struct nm__npy logits, truth, l_out, truth_l_out; };

static void read_npy(const char *dir, const char *name, struct nm__npy *a) {
  char path[200];
  nm_err err = {0};
  snprintf(path, sizeof path, "%s/%s.npy", dir, name);
  if (nm__npy_read(path, a, &err)) fail_msg("%s", err.text);
}

static void read_set(const char *dir, struct set *s) {
  char path[200];
  size_t at = 0;
  snprintf(path, sizeof path, "%s/meta.json", dir);
  json_t *meta = json_load_file(path, 0, NULL), *list = json_object_get(meta, "sequences");
  for (size_t i = 0; i < 3; i++) {
    json_t *one = json_array_get(list, i);
    s->seq[i] = (nm_seq){s->ids + at, json_array_size(one)};
    for (size_t k = 0; k < s->seq[i].n; k++)
      s->ids[at++] = (int32_t)json_integer_value(json_array_get(one, k));
  }
  json_decref(meta);
  read_npy(dir, "logits", &s->logits);
  read_npy(dir, "truth_logits", &s->truth);
  read_npy(dir, "l_out", &s->l_out);
  read_npy(dir, "truth_l_out", &s->truth_l_out);
}

static void set_done(struct set *s) {
  nm__npy_done(&s->logits);
  nm__npy_done(&s->truth);
  nm__npy_done(&s->l_out);
  nm__npy_done(&s->truth_l_out);
}

static void worse(double *worst, const float *got, const float *want, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    double d = fabs((double)got[i] - (double)want[i]);
    if (!(d <= *worst)) *worst = d == d ? d : INFINITY;
  }
}

/* Runs the set; fails beyond the tolerances of the reference. */
static void check_set(const char *title, const nm_model *m, const nm_adapters *a,
                      const struct set *s) {
  double e[4] = {0};
  nm_engine *eng = new_engine(m, (nm_engine_opts){.threads = 2, .adapters = a, .chunk = 17});
  nm_tap taps[] = {{"logits", "-4:"}, {"blk.*.resid_post", "last"}};
  struct rows r = run_rows(eng, (nm_request){.seqs = s->seq, .n_seqs = 3, .taps = taps,
                                             .n_taps = 2});
  for (size_t q = 0; q < 3; q++) {
    int len = (int)s->seq[q].n;
    for (int k = 0; k < 4; k++) {
      const float *z = row_of(&r, "logits", q, len - 4 + k, m->V);
      worse(&e[0], z, s->truth.data + (q * 4 + (size_t)k) * (size_t)m->V, m->V);
      worse(&e[1], z, s->logits.data + (q * 4 + (size_t)k) * (size_t)m->V, m->V);
    }
    for (int l = 0; l < m->L; l++) {
      char name[64];
      const float *x = row_of(&r, at_layer(name, l, "resid_post"), q, len - 1, m->D);
      size_t at = (q * (size_t)m->L + (size_t)l) * (size_t)m->D;
      worse(&e[2], x, s->truth_l_out.data + at, m->D);
      worse(&e[3], x, s->l_out.data + at, m->D);
    }
  }
  print_message("conformance: lora %-34s logits %.1e (llama.cpp %.1e)  l_out %.1e (%.1e)\n", title,
                e[0], e[1], e[2], e[3]);
  if (!(e[0] <= 1e-4 && e[1] <= 3e-4 && e[2] <= 1e-4 && e[3] <= 3e-4))
    fail_msg("%s is out of tolerance", title);
  rows_done(&r);
  nm_engine_free(eng);
}

static void merge(const char *model, const nm_adapters *a, const char *type, const char *out) {
  nm_convert_result r;
  nm_err err = {0};
  nm_convert_opts o = {.in = model, .out = out, .adapters = a, .type = type, .force = true,
                       .threads = 2};
  if (nm_convert(&o, &r, &err)) fail_msg("%s", err.text);
  nm_convert_result_free(&r);
}

static void recorded(void **state) {
  (void)state;
  static const char *const forms[] = {REF "lora/adapter.gguf", REF "lora/peft"};
  static const char *const models[] = {REF "llama/model.gguf", REF "llama/hf"};
  if (no_shared()) return;
  for (int half = 0; half < 2; half++) {
    struct set s;
    read_set(half ? REF "lora/scale_0.5" : REF "lora/scale_1.0", &s);
    for (int k = 0; k < 4; k++) {
      char title[80];
      nm_model *m = open_model(models[k / 2]);
      nm_adapters *a = load(m, forms[k % 2], half ? 0.5 : 1);
      snprintf(title, sizeof title, "%s on %s, %s", k % 2 ? "PEFT" : "GGUF", k / 2 ? "hf" : "gguf",
               half ? "0.5" : "1");
      check_set(title, m, a, &s);
      merge(models[k / 2], a, NULL, in_tmp("merged.gguf"));
      nm_model *merged = open_model(in_tmp("merged.gguf"));
      strcat(title, ", merged");
      check_set(title, merged, NULL, &s);
      nm_model_close(merged);
      nm_adapters_free(a);
      nm_model_close(m);
    }
    set_done(&s);
  }
}

/* ---- off, several ------------------------------------------------------------------ */

static struct rows all_of(const nm_model *m, const nm_adapters *a, nm_edits *e) {
  static const int32_t ids[] = {1, 3, 2, 5, 4, 3, 7, 6};
  nm_engine *eng = new_engine(m, (nm_engine_opts){.threads = 2, .adapters = a});
  struct rows r = tap_one(eng, ids, 8, "*", "all", e);
  nm_engine_free(eng);
  return r;
}

static double far(const struct rows *a, const struct rows *b, const char *site) {
  double d = 0;
  assert_int_equal(a->n, b->n);
  for (size_t i = 0; i < a->n; i++)
    if (!strcmp(a->site[a->v[i].site].name, site)) worse(&d, a->v[i].v, b->v[i].v, a->v[i].n);
  return d;
}

static void off_and_several(void **state) {
  (void)state;
  nm_err err = {0};
  if (no_shared()) return;
  nm_model *m = open_model(REF "llama/model.gguf");
  nm_adapter_file two[] = {{REF "lora/adapter.gguf", 0.25}, {REF "lora/peft", 0.75}};
  nm_adapter_file both[] = {{REF "lora/peft", 1}, {REF "lora/adapter.gguf", -1}};
  nm_adapters *off = load(m, REF "lora/adapter.gguf", 0), *one = load(m, REF "lora/peft", 1), *sum,
              *none;
  assert_int_equal(nm_adapters_load(m, two, 2, &sum, &err), 0);
  assert_int_equal(nm_adapters_load(m, both, 2, &none, &err), 0);
  assert_non_null(strstr(nm_adapters_what(sum, 1), "peft, scale 0.75: PEFT LoRA beside 28"));
  struct rows base = all_of(m, NULL, NULL), zero = all_of(m, off, NULL), a = all_of(m, one, NULL),
              b = all_of(m, sum, NULL), c = all_of(m, none, NULL);
  assert_same_rows(&base, &zero, "scale 0");
  assert_true(far(&base, &a, "logits") > 0.1);
  assert_true(far(&a, &b, "logits") < 1e-4 && far(&base, &c, "logits") < 1e-4);
  struct rows *all[] = {&base, &zero, &a, &b, &c};
  for (int i = 0; i < 5; i++) rows_done(all[i]);
  nm_adapters *lists[] = {off, one, sum, none};
  for (int i = 0; i < 4; i++) nm_adapters_free(lists[i]);
  nm_model_close(m);
}

/* Keys of caches differ by adapter and scale, and only then. */
static void keys(void **state) {
  (void)state;
  char key[5][300];
  static const double scale[] = {1, 1, 0.5, 0};
  if (no_shared()) return;
  nm_model *m = open_model(REF "llama/model.gguf");
  for (int i = 0; i < 5; i++) {
    struct nm__buf b;
    nm_adapters *a = i < 4 ? load(m, REF "lora/adapter.gguf", scale[i]) : NULL;
    nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1, .adapters = a});
    nm__buf_init(&b, 1000);
    nm__engine_key(e, &b);
    snprintf(key[i], sizeof key[i], "%s", b.s ? b.s : "");
    nm__buf_done(&b);
    nm_engine_free(e);
    nm_adapters_free(a);
  }
  assert_string_equal(key[0], key[1]);
  assert_string_not_equal(key[0], key[2]);
  assert_string_equal(key[3], key[4]);
  assert_string_equal(key[4], "");
  nm_model_close(m);
}

/* ---- every family -------------------------------------------------------------------- */

static void fill(float *v, int64_t n, double size, uint64_t stream) {
  nm__normals(v, n, size, 11, stream);
}

/* Beside every matrix of the model, rank 3, each expert its own. */
static void random_adapter(const nm_model *m, struct nm__adapter *a) {
  nm_err err = {0};
  *a = (struct nm__adapter){.path = strdup("random"), .form = "GGUF"};
  for (size_t i = 0; i < m->g->n_tensors; i++) {
    const struct nm__gguf_tensor *t = &m->g->tensors[i];
    bool stacked = t->n_dims == 3, lookup = !strcmp(t->name, "token_embd.weight");
    if (t->n_dims < 2 || strstr(t->name, "_norm") || strstr(t->name, "position") ||
        strstr(t->name, "types") || strstr(t->name, "inp_shexp"))
      continue;
    for (int e = 0; e < (stacked ? (int)t->ne[2] : 1); e++) {
      int64_t sa[2], sb[2];
      struct nm__adapter_part *p =
          nm__adapter_add(a, t->name, stacked ? e : -1, lookup, 3, t->ne[1], t->ne[0], &err);
      assert_non_null(p);
      nm__adapter_sizes(p, sa, sb);
      fill(p->a, sa[0] * sa[1], 0.2, i * 100 + (size_t)e);
      fill(p->b, sb[0] * sb[1], 0.2, i * 100 + (size_t)e + 50);
      p->scale = 0.25f;
    }
  }
}

static void check_family(const char *name) {
  char path[200];
  nm_err err = {0};
  struct nm__adapter made;
  snprintf(path, sizeof path, SHARED "%s/model.gguf", name);
  nm_model *m = open_model(path);
  random_adapter(m, &made);
  if (nm__adapter_write_gguf(&made, m->arch->name, m->moe.n, in_tmp("a.gguf"), &err))
    fail_msg("%s", err.text);
  nm_adapters *a = load(m, in_tmp("a.gguf"), 0.5);
  struct rows base = all_of(m, NULL, NULL), run = all_of(m, a, NULL);
  merge(path, a, NULL, in_tmp("m.gguf"));
  nm_model *merged = open_model(in_tmp("m.gguf"));
  struct rows want = all_of(merged, NULL, NULL);
  char last[64] = "logits";
  if (!m->output.data) snprintf(last, sizeof last, "enc.blk.%d.resid_post", m->L - 1);
  double moved = far(&base, &run, last), off = far(&want, &run, last);
  print_message("conformance: %-28s %3zu matrices, moved %.1e, merged differs by %.1e\n", name,
                made.n, moved, off);
  if (!(moved > 0.01 && off < 5e-5 * (1 + moved))) fail_msg("%s: merged is another model", name);
  /* There and back. */
  if (nm_adapter_convert(m, in_tmp("a.gguf"), in_tmp("peft"), true, &err) ||
      nm_adapter_convert(m, in_tmp("peft"), in_tmp("b.gguf"), true, &err))
    fail_msg("%s: %s", name, err.text);
  nm_adapters *back = load(m, in_tmp("b.gguf"), 0.5), *peft = load(m, in_tmp("peft"), 0.5);
  struct rows again = all_of(m, back, NULL), other = all_of(m, peft, NULL);
  assert_same_rows(&run, &again, "there and back");
  assert_same_rows(&run, &other, "as PEFT");
  struct rows *all[] = {&base, &run, &want, &again, &other};
  for (int i = 0; i < 5; i++) rows_done(all[i]);
  nm_adapters *lists[] = {a, back, peft};
  for (int i = 0; i < 3; i++) nm_adapters_free(lists[i]);
  nm__adapter_done(&made);
  nm_model_close(merged);
  nm_model_close(m);
}

static void families(void **state) {
  (void)state;
  static const char *const names[] = {
      "reference/llama", "reference/qwen2", "reference/mixtral", "reference/qwen2moe",
      "reference/gemma2", "reference/gpt2", "reference/phi3", "reference/bert",
      "reference/olmo2", "reference/llama-linear-bias", "models/arch/gptneox", "models/arch/qwen3",
      "models/arch/gemma3", "models/arch/nomic-bert"};
  if (no_shared()) return;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) check_family(names[i]);
}

/* Beside blocks of every stored type. */
static void quantised(void **state) {
  (void)state;
  static const char *const names[] = {"q4_0", "q8_0", "q4_k", "q6_k", "q4_k_m", "iq4_nl"};
  if (no_shared()) return;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char name[40], path[200];
    snprintf(name, sizeof name, "reference/quant/llama-%s", names[i]);
    snprintf(path, sizeof path, SHARED "%s/model.gguf", name);
    check_family(name);
    nm_model *m = open_model(path);
    nm_adapters *a = load(m, in_tmp("a.gguf"), 0.5);
    merge(path, a, "Q8_0", in_tmp("q8.gguf"));
    nm_model *small = open_model(in_tmp("q8.gguf"));
    struct rows run = all_of(m, a, NULL), r = all_of(small, NULL, NULL);
    double d = far(&run, &r, "logits");
    if (!(d > 0 && d < 0.7)) fail_msg("%s merged as Q8_0 differs by %g", name, d);
    rows_done(&run);
    rows_done(&r);
    nm_adapters_free(a);
    nm_model_close(small);
    nm_model_close(m);
  }
}

/* ---- what does not fit ------------------------------------------------------------------ */

static void refused(const nm_model *m, const char *path, double scale, int status,
                    const char *says) {
  nm_adapters *a;
  nm_err err = {0};
  nm_adapter_file f = {path, scale};
  assert_int_equal(nm_adapters_load(m, &f, 1, &a, &err), status);
  assert_null(a);
  if (!strstr(err.text, says)) fail_msg("%s", err.text);
}

static void strangers(void **state) {
  (void)state;
  nm_err err = {0};
  if (no_shared()) return;
  nm_model *llama = open_model(REF "llama/model.gguf"), *qwen = open_model(REF "qwen2/model.gguf"),
           *rope = open_model(REF "llama3-rope/model.gguf");
  refused(qwen, REF "lora/adapter.gguf", 1, NM_EFORMAT, "architecture llama");
  refused(rope, REF "lora/adapter.gguf", 1, NM_EFORMAT, "adapter of another model");
  refused(rope, REF "lora/peft", 1, NM_EFORMAT, "adapter of another model");
  refused(llama, REF "llama/model.gguf", 1, NM_EFORMAT, "general.type");
  refused(llama, REF "llama/hf", 1, NM_EFORMAT, "without adapter_config.json");
  refused(llama, "none.gguf", 1, NM_EFORMAT, "none.gguf");
  refused(llama, REF "lora/peft", NAN, NM_EUSAGE, "scale");
  nm_model *m;
  assert_int_equal(nm_model_open(REF "lora/adapter.gguf", &m, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "--lora"));
  nm_adapters *a = load(llama, REF "lora/peft", 1);
  nm_engine *e;
  nm_engine_opts o = {.threads = 1, .adapters = a};
  assert_int_equal(nm_engine_new(qwen, &o, &e, &err), NM_EUSAGE);
  nm_adapters_free(a);
  nm_model_close(llama);
  nm_model_close(qwen);
  nm_model_close(rope);
}

/* An adapter that names itself as its model must not be opened forever. */
static void names_itself(void **state) {
  (void)state;
  nm_err err = {0};
  struct nm__gguf_writer *w;
  const char *path = in_tmp("self.gguf");
  float v[4] = {1, 2, 3, 4};
  assert_int_equal(nm__gguf_writer_new(&w, &err), 0);
  nm__gguf_put_string(w, "general.type", "adapter");
  nm__gguf_put_string(w, "general.architecture", "llama");
  nm__gguf_put_string(w, "adapter.type", "lora");
  nm__gguf_put_string(w, NM__BASE_PATH, path);
  nm__gguf_put_string(w, NM__BASE_HASH, "00000000000000000000000000000000");
  nm__gguf_announce(w, "x.weight.lora_a", NM__F32, 2, (int64_t[]){4, 1});
  assert_int_equal(nm__gguf_begin(w, path, &err), 0);
  assert_int_equal(nm__gguf_data(w, v, sizeof v, &err), 0);
  assert_int_equal(nm__gguf_finish(w, &err), 0);
  nm__gguf_writer_free(w);
  nm_model *m;
  assert_int_equal(nm_model_open(path, &m, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "is an adapter"));
}

static int make_tmp(void **state) {
  (void)state;
  snprintf(tmp, sizeof tmp, "/tmp/noema_adapter_test.%ld", (long)getpid());
  return nm__mkdirs(tmp, NULL);
}
static int remove_tmp(void **state) {
  (void)state;
  char cmd[100];
  snprintf(cmd, sizeof cmd, "rm -rf %s", tmp);
  return system(cmd);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(recorded),  cmocka_unit_test(off_and_several), cmocka_unit_test(keys),
      cmocka_unit_test(families),  cmocka_unit_test(quantised),       cmocka_unit_test(strangers),
      cmocka_unit_test(names_itself)};
  return cmocka_run_group_tests(tests, make_tmp, remove_tmp);
}
