/* hostile_test.c - model files from outside: cut short, with bytes changed, with weights
 * that are not finite. Opening, building an engine and a short run must end in an error
 * with a sentence or in a result, never in a crash or a wait. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "model_file.h"
#include "model_run.h"

static char scratch[64];

static int ignore_row(void *arg, const nm_row *r, nm_err *err) {
  (void)err;
  *(double *)arg += (double)r->data[r->n - 1];
  return 0;
}

/* Three ids at most, so that whatever sizes the file claims, a run is short. */
static int attempt(const char *path, nm_err *err) {
  static const int32_t ids[] = {1, 0, 1};
  nm_model *m;
  nm_engine *e = NULL;
  double sum = 0;
  int st = nm_model_open(path, &m, err);
  if (st) return assert_null(m), st;
  nm_seq s = {ids, 3};
  nm_tap taps[] = {{m->output.data ? "logits|*.resid_post" : "*.resid_post", "last"},
                   {"*.attn.pattern", "last"}};
  nm_request r = {
      .seqs = &s, .n_seqs = 1, .taps = taps, .n_taps = 2, .row = ignore_row, .arg = &sum};
  st = nm_engine_new(m, &(nm_engine_opts){.threads = 1}, &e, err);
  if (!st) st = nm_run(e, &r, err);
  int32_t *words;
  size_t n;
  if (!nm_tokenize(m, "ann saw", 7, 0, &words, &n, NULL)) nm_free(words);
  nm_engine_free(e);
  nm_model_close(m);
  return st;
}

static void assert_sensible(int st, const nm_err *err) {
  if (!st) return;
  assert_true(err->text[0] && err->status == st);
  if (st != NM_EFORMAT && st != NM_EFAIL && st != NM_EMEMORY)
    fail_msg("status %d: %s", st, err->text);
}

static void copy_of(const char *path) {
  struct nm__map map;
  nm_err err = {0};
  if (nm__map_open(path, &map, &err) || nm__write_file(scratch, map.data, map.size, &err))
    fail_msg("%s", err.text);
  nm__map_close(&map);
}

/* ---- damage ------------------------------------------------------------ */

static void cut_short(const char *path) {
  copy_of(path);
  struct nm__map map;
  assert_int_equal(nm__map_open(path, &map, NULL), 0);
  for (size_t i = 64; i-- > 0;) {
    nm_err err = {0};
    assert_int_equal(truncate(scratch, (off_t)(map.size * i / 64)), 0);
    assert_int_equal(attempt(scratch, &err), NM_EFORMAT);
    assert_true(err.text[0] && strstr(err.text, scratch));
  }
  nm__map_close(&map);
}

/* Every second change lies before the tensors' bytes, where most meaning is. */
static void flip(const char *path, uint64_t seed, int n) {
  copy_of(path);
  struct nm__gguf *g;
  assert_int_equal(nm__gguf_open(path, &g, NULL), 0);
  int f = open(scratch, O_RDWR), n_ran = 0;
  assert_true(f >= 0);
  for (int i = 0; i < n; i++) {
    uint64_t r = nm__rand_at(seed, 0, (uint64_t)i), at = r % (i % 2 ? g->data_start : g->maps[0].size);
    uint8_t new = (uint8_t)(r >> 40);
    nm_err err = {0};
    assert_int_equal(pwrite(f, &new, 1, (off_t)at), 1);
    int st = attempt(scratch, &err);
    assert_sensible(st, &err);
    n_ran += !st;
    assert_int_equal(pwrite(f, g->maps[0].data + at, 1, (off_t)at), 1);
  }
  close(f);
  nm__gguf_close(g);
  print_message("%s: %d of %d damaged files still run\n", nm__path_base(path), n_ran, n);
  assert_true(n_ran > 0 && n_ran < n);
}

static void planted_damage(void **state) {
  (void)state;
  cut_short(PLANTED);
  flip(PLANTED, 31, 10000);
}

static void quantised_damage(void **state) {
  (void)state;
  char path[80];
  nm_err err = {0};
  snprintf(path, sizeof path, "%s.q", scratch);
  if (nm_write_random("tiny", "Q5_0", 4, path, NULL, &err)) fail_msg("%s", err.text);
  cut_short(path);
  flip(path, 32, 2000);
  unlink(path);
}

/* Encoders: half of the changes lie in keys and tensor names, which say what is normalised,
 * pooled and added where. */
static void encoder_damage(void **state) {
  (void)state;
  char path[80];
  nm_err err = {0};
  snprintf(path, sizeof path, "%s.e", scratch);
  if (nm_write_random("tiny-bert", "F16", 6, path, NULL, &err)) fail_msg("%s", err.text);
  cut_short(path);
  flip(path, 51, 3000);
  unlink(path);
  if (!nm__exists(SHARED)) return;
  flip(SHARED "models/arch/bert/model.gguf", 52, 500);
  flip(SHARED "models/arch/nomic-bert/model.gguf", 53, 1000);
}

static void other_families(void **state) {
  (void)state;
  if (no_shared()) skip();
  flip(SHARED "models/arch/gpt2/model.gguf", 33, 1500);
  flip(SHARED "models/arch/llama-rope-yarn/model.gguf", 34, 1500);
  flip(SHARED "reference/llama3-rope/model.gguf", 35, 1500);
  flip(SHARED "models/kmix/model.gguf", 36, 1500);
  flip(SHARED "models/arch/gemma3/model.gguf", 36, 1000);
  flip(SHARED "models/arch/gemma2/model.gguf", 37, 500);
  flip(SHARED "models/arch/olmo2/model.gguf", 38, 500);
  flip(SHARED "models/arch/phi3/model.gguf", 39, 500);
  flip(SHARED "models/arch/gptneox/model.gguf", 40, 500);
}

/* Mixtures stacked and apart, shared experts, one and two norms: our own files. */
static void odd_damage(void **state) {
  (void)state;
  char path[80];
  snprintf(path, sizeof path, "%s.odd", scratch);
  for (int i = 0; i < N_SHAPES; i++) {
    struct file f = file_of(&shapes[i]);
    write_file(&shapes[i], &f, path);
    file_done(&f);
    if (i == 1) cut_short(path);
    flip(path, 50 + (uint64_t)i, i == 2 || i == 5 ? 3000 : 500);
  }
  unlink(path);
}

/* ---- types that cannot be computed on ---------------------------------------- */

/* The scratch file becomes the planted model with another type number in one tensor's info:
 * name, u32 dimensions, a u64 each, u32 type. */
static void retype(const char *tensor, uint32_t type) {
  struct nm__gguf *g;
  uint32_t dims;
  copy_of(PLANTED);
  assert_int_equal(nm__gguf_open(PLANTED, &g, NULL), 0);
  size_t at = 0, n = strlen(tensor);
  while (at + n < g->data_start && memcmp(g->maps[0].data + at, tensor, n)) at++;
  assert_true(at + n < g->data_start);
  memcpy(&dims, g->maps[0].data + at + n, 4);
  int f = open(scratch, O_RDWR);
  assert_int_equal(pwrite(f, &type, 4, (off_t)(at + n + 4 + 8 * dims)), 4);
  close(f);
  nm__gguf_close(g);
}

static void refused_types(void **state) {
  (void)state;
  static const struct { uint32_t type; const char *part; } cases[] = {
      {NM__I32, "output_norm.weight is stored as I32, which cannot be computed on (known: F32, F16,"},
      {NM__Q8_0, "output_norm.weight is stored as Q8_0, which cannot be computed on for a vector"},
      {20, "output_norm.weight is stored as IQ4_NL, which cannot be computed on for a vector"},
      {4, "Q4_2 was removed from the format"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    nm_err err = {0};
    retype("output_norm.weight", cases[i].type);
    assert_int_equal(attempt(scratch, &err), NM_EFORMAT);
    if (!strstr(err.text, cases[i].part) || !strstr(err.text, scratch)) fail_msg("%s", err.text);
  }
}

/* ---- weights that are not finite ------------------------------------------- */

/* Puts a number into element `i` of the tensor of the scratch file. */
static void poison(const char *path, const char *tensor, size_t i, float value) {
  struct nm__gguf *g;
  copy_of(path);
  assert_int_equal(nm__gguf_open(path, &g, NULL), 0);
  const struct nm__gguf_tensor *t = nm__gguf_tensor(g, tensor);
  assert_true(t && (t->type == NM__F32 || t->type == NM__F16));
  size_t size = t->type == NM__F32 ? 4 : 2;
  uint16_t half = nm__f32_to_half(value);
  int f = open(scratch, O_RDWR);
  off_t at = (off_t)((size_t)(t->data - g->maps[0].data) + size * i);
  assert_int_equal(pwrite(f, size == 4 ? (const void *)&value : (const void *)&half, size, at),
                   size);
  close(f);
  nm__gguf_close(g);
}

static void bad_weights(void **state) {
  (void)state;
  static const struct { const char *tensor, *part; size_t i; float v; } cases[] = {
    {"blk.1.ffn_norm.weight", "tensor blk.1.ffn_norm.weight, element 5 is nan", 5, NAN},
    {"output_norm.weight", "tensor output_norm.weight, element 31 is infinite", 31, INFINITY},
    {"blk.0.attn_norm.weight", "tensor blk.0.attn_norm.weight, element 0 is nan", 0, NAN},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    nm_err err = {0};
    poison(PLANTED, cases[i].tensor, cases[i].i, cases[i].v);
    assert_int_equal(attempt(scratch, &err), NM_EFORMAT);
    if (!strstr(err.text, cases[i].part) || !strstr(err.text, scratch)) fail_msg("%s", err.text);
  }
  /* A tap on attention alone must not hand out what is no number either. */
  static const int32_t ids[] = {1, 0, 1};
  poison(PLANTED, "blk.0.attn_norm.weight", 0, NAN);
  nm_model *m = open_model(scratch);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  nm_seq s = {ids, 3};
  for (int i = 0; i < 2; i++) {
    nm_tap tap = {i ? "*.attn.scores" : "*.attn.pattern", "all"};
    nm_err err = {0};
    struct rows r;
    assert_int_equal(
        try_rows(e, (nm_request){.seqs = &s, .n_seqs = 1, .taps = &tap, .n_taps = 1}, &r, &err),
        NM_EFORMAT);
    assert_non_null(strstr(err.text, "blk.0.attn_norm.weight"));
    rows_done(&r);
  }
  nm_engine_free(e);
  nm_model_close(m);
}

/* Numbers in the metadata that no rotation can be made of. */
static void bad_rotations(void **state) {
  (void)state;
  static const struct { const char *key; float v; bool refused;
  } cases[] = {
      {"llama.rope.freq_base", INFINITY, true},
      {"llama.rope.freq_base", NAN, true},
      {"llama.rope.freq_base", 1, true},
      {"llama.rope.freq_base", 1.0000001f, false},
      {"llama.rope.freq_base", -10, true},
      {"llama.rope.scaling.factor", INFINITY, true},
      {"llama.rope.scaling.factor", NAN, true},
      {"llama.rope.scaling.factor", 0, true},
      {"llama.rope.scaling.factor", 1e-38f, false},
      {"llama.attention.layer_norm_rms_epsilon", NAN, true},
      {"llama.attention.layer_norm_rms_epsilon", 1, true},
  };
  const char *path = SHARED "models/arch/llama-rope-yarn/model.gguf";
  if (no_shared()) skip();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct nm__gguf *g;
    nm_err err = {0};
    copy_of(path);
    assert_int_equal(nm__gguf_open(path, &g, NULL), 0);
    const struct nm__gguf_kv *kv = nm__gguf_find(g, cases[i].key);
    assert_true(kv && kv->type == NM__GGUF_F32);
    int f = open(scratch, O_RDWR);
    assert_int_equal(pwrite(f, &cases[i].v, 4, kv->raw - g->maps[0].data), 4);
    close(f);
    nm__gguf_close(g);
    int st = attempt(scratch, &err);
    assert_sensible(st, &err);
    if (cases[i].refused && st != NM_EFORMAT)
      fail_msg("%s %g: %d %s", cases[i].key, (double)cases[i].v, st, err.text);
  }
}

/* Sound weights driven out of range by an edit: the sentence says that it was not the file. */
static void overflow_by_edit(void **state) {
  (void)state;
  const char *json = "{\"site\": \"blk.0.resid_post\", \"op\": \"scale\", \"scale\": 3e38}";
  nm_edits *ed;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  nm_seq s = {(const int32_t[]){1, 2}, 2};
  nm_tap tap = {"logits", "last"};
  nm_err err = {0};
  struct rows r;
  assert_int_equal(nm_edits_parse("t", json, strlen(json), &ed, NULL), 0);
  int st = try_rows(
      e, (nm_request){.seqs = &s, .n_seqs = 1, .taps = &tap, .n_taps = 1, .edits = ed}, &r, &err);
  if (st) assert_true(st == NM_EFAIL && strstr(err.text, "all weights are finite"));
  rows_done(&r);
  nm_edits_free(ed);
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- files that are no model ------------------------------------------------- */

/* A whole file of a family that is not in the table. */
static void write_unknown(const char *path) {
  struct nm__gguf_writer *w;
  static const float x[32] = {1};
  assert_int_equal(nm__gguf_writer_new(&w, NULL), 0);
  nm__gguf_put_string(w, "general.architecture", "mamba");
  nm__gguf_announce(w, "token_embd.weight", NM__F32, 2, (const int64_t[]){8, 4});
  assert_int_equal(nm__gguf_begin(w, path, NULL), 0);
  assert_int_equal(nm__gguf_data(w, x, sizeof x, NULL), 0);
  assert_int_equal(nm__gguf_finish(w, NULL), 0);
  nm__gguf_writer_free(w);
}

static void not_models(void **state) {
  (void)state;
  nm_err err = {0};
  nm_model *m;
  char *text;
  assert_int_equal(nm_model_open("/nonexistent/model.gguf", &m, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "/nonexistent/model.gguf"));
  assert_int_equal(nm_model_open("/tmp", &m, &err), NM_EFORMAT);
  assert_int_equal(nm__write_file(scratch, "", 0, NULL), 0);
  assert_int_equal(nm_model_open(scratch, &m, &err), NM_EFORMAT);
  assert_int_equal(nm_tokenizer_open(scratch, &m, &err), NM_EFORMAT);
  assert_int_equal(nm_info(scratch, false, false, &text, &err), NM_EFORMAT);
  assert_null(text);
  write_unknown(scratch);
  assert_int_equal(nm_model_open(scratch, &m, &err), NM_EFORMAT);
  assert_true(strstr(err.text, scratch) && strstr(err.text, "'mamba' is not supported"));
  assert_int_equal(nm_info(scratch, true, true, &text, &err), 0);
  assert_non_null(strstr(text, "no_model"));
  nm_free(text);
}

int main(void) {
  snprintf(scratch, sizeof scratch, "/tmp/noema_hostile_test.%ld.gguf", (long)getpid());
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(not_models),     cmocka_unit_test(bad_weights),
      cmocka_unit_test(bad_rotations),  cmocka_unit_test(overflow_by_edit),
      cmocka_unit_test(planted_damage), cmocka_unit_test(quantised_damage),
      cmocka_unit_test(encoder_damage), cmocka_unit_test(other_families),
      cmocka_unit_test(odd_damage),     cmocka_unit_test(refused_types),
  };
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  unlink(scratch);
  return failed;
}
