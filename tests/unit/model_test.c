/* model_test.c - names and places: site globs, aliases, indexes, positions, the sentences
 * of edit files, engine options and requests that are refused. edit_test.c has what sites
 * hold and what edits do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "file/npy.h"
#include "model_run.h"

static nm_model *m;                 /* the planted model: 6 layers, 4 heads, D 32, F 16 */
static char scratch[64];

static int open_planted(void **state) {
  (void)state;
  m = open_model(PLANTED);
  return 0;
}
static int close_planted(void **state) {
  (void)state;
  nm_model_close(m);
  return 0;
}

/* ---- sites -------------------------------------------------------------- */

/* The names a glob selects, joined by blanks. */
static void names_of(const nm_model *model, const char *glob, char *out, size_t size) {
  nm_site *s;
  int n;
  nm_err err = {0};
  nm_tap tap = {glob, "last"};
  size_t at = 0;
  if (nm_run_sites(model, &tap, 1, &s, &n, &err)) fail_msg("%s: %s", glob, err.text);
  out[0] = 0;
  for (int i = 0; i < n && at + 70 < size; i++)
    at += (size_t)snprintf(out + at, size - at, "%s%s", i ? " " : "", s[i].name);
  nm_free(s);
}

static void globs(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"embed", "embed"},
      {"logits", "logits"},
      {"final_*", "final_norm"},
      {"blk.3.resid_post", "blk.3.resid_post"},
      {"blk.4-5.resid_pre", "blk.4.resid_pre blk.5.resid_pre"},
      {"blk.5,0,2-3.mlp_out", "blk.0.mlp_out blk.2.mlp_out blk.3.mlp_out blk.5.mlp_out"},
      {"blk.1.attn.?", "blk.1.attn.q blk.1.attn.k blk.1.attn.v"},
      {"blk.1.attn.?_raw", "blk.1.attn.q_raw blk.1.attn.k_raw"},
      {"blk.2.mlp.*", "blk.2.mlp.gate blk.2.mlp.up blk.2.mlp.act"},
      {"blk.2.resid*", "blk.2.resid_pre blk.2.resid_mid blk.2.resid_post"},
      {"blk.4-8.attn.head[3]", "blk.4.attn.head[3] blk.5.attn.head[3]"},
      {"blk.0.attn.pattern[1-2]", "blk.0.attn.pattern[1-2]"},
      {"blk.0.mlp.act[15]", "blk.0.mlp.act[15]"},
      {"logits|embed|blk.0.mlp_norm", "logits embed blk.0.mlp_norm"},
      {"*.resid_mid",
       "blk.0.resid_mid blk.1.resid_mid blk.2.resid_mid blk.3.resid_mid blk.4.resid_mid "
       "blk.5.resid_mid"},
      {"blocks.5.hook_resid_post", "blk.5.resid_post"},
      {"hook_embed", "embed"},
      {"blocks.0-1.attn.hook_z", "blk.0.attn.head blk.1.attn.head"},
      {"blocks.2.attn.hook_q", "blk.2.attn.q_raw"},
      {"blocks.2.attn.hook_rot_k", "blk.2.attn.k"},
      {"blocks.2.attn.hook_pattern[0]", "blk.2.attn.pattern[0]"},
      {"blocks.2.mlp.hook_post", "blk.2.mlp.act"},
  };
  char got[2048];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    names_of(m, cases[i][0], got, sizeof got);
    if (strcmp(got, cases[i][1])) fail_msg("'%s' gives '%s'", cases[i][0], got);
  }
  /* A list of layers may be long. */
  names_of(m,
           "blocks.0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,4.hook_resid_mid",
           got, sizeof got);
  assert_string_equal(got, "blk.0.resid_mid blk.4.resid_mid");
}

static void glob_refusals(void **state) {
  (void)state;
  static const char *const cases[][2] = {
    {"", "empty or too long"}, {"resid", "matches nothing"}, {"blk.6.resid_pre", "matches nothing"},
    {"blk.x.resid_pre", "layers must read"}, {"blk.3-1.resid_pre", "layers must read"},
    {"blk.1-.resid_pre", "layers must read"}, {"blk.-1.resid_pre", "layers must read"},
    {"blk.3", "a name must follow"}, {"blk.0.attn.head[4]", "out of range (0 to 3)"},
    {"blk.0.attn.head[]", "index must read"}, {"blk.0.attn.head[2-1]", "index must read"},
    {"blk.0.attn.head[1", "index must read"}, {"blk.0.attn.head[-1]", "index must read"},
    {"blk.0.attn.head[99999999999999999999]", "index must read"},
    {"blk.0.mlp.act[16]", "out of range (0 to 15)"},
    {"blocks.0.ln1.hook_normalized", "TransformerLens"}, {"blocks.0.resid_post", "TransformerLens"},
    {"embed|", "empty or too long"}, {"embed|none", "matches nothing"},
  };
  char long_one[300];
  nm_site *s;
  int n;
  memset(long_one, '*', sizeof long_one - 1);
  long_one[sizeof long_one - 1] = 0;
  for (size_t i = 0; i <= sizeof cases / sizeof *cases; i++) {
    bool extra = i == sizeof cases / sizeof *cases;
    nm_tap tap = {extra ? long_one : cases[i][0], "last"};
    nm_err err = {0};
    assert_int_equal(nm_run_sites(m, &tap, 1, &s, &n, &err), NM_EUSAGE);
    assert_int_equal(err.status, NM_EUSAGE);
    if (!strstr(err.text, extra ? "too long" : cases[i][1]))
      fail_msg("'%s': %s", tap.site, err.text);
  }
}

static void sites_list(void **state) {
  (void)state;
  nm_site *s, *again;
  int n, n_again;
  assert_int_equal(nm_sites(m, &s, &n), 0);
  assert_int_equal(n, 6 * 18 + 3);
  for (int i = 0; i < n; i++) {                                  /* every name selects itself */
    nm_tap tap = {s[i].name, "last"};
    assert_int_equal(nm_run_sites(m, &tap, 1, &again, &n_again, NULL), 0);
    assert_true(n_again == 1 && again->layer == s[i].layer && again->width == s[i].width);
    assert_string_equal(again->name, s[i].name);
    nm_free(again);
  }
  assert_int_equal(nm_run_sites(m, NULL, 0, &again, &n_again, NULL), 0);
  assert_int_equal(n_again, 0);
  nm_free(again);
  static const struct { const char *name; int64_t width; } widths[] = {
    {"embed", 32}, {"blk.0.mlp_norm", 32}, {"blk.0.attn.q", 32}, {"blk.0.attn.head[1]", 8},
    {"blk.0.attn.head[1-3]", 24}, {"blk.0.mlp.gate", 16}, {"blk.0.mlp.act[3]", 1},
    {"blk.0.attn.scores", 0}, {"blk.0.attn.pattern[2]", 0}, {"final_norm", 32},
  };
  for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
    nm_tap tap = {widths[i].name, "last"};
    assert_int_equal(nm_run_sites(m, &tap, 1, &again, &n_again, NULL), 0);
    assert_int_equal(again->width, widths[i].width);
    nm_free(again);
  }
  nm_free(s);
}

static void no_gate_in_gpt2(void **state) {
  (void)state;
  if (no_shared()) skip();
  nm_model *g = open_model(SHARED "models/arch/gpt2/model.gguf");
  char got[512];
  nm_site *s;
  int n;
  nm_err err = {0};
  nm_tap tap = {"blk.*.mlp.gate", "last"};
  names_of(g, "blk.0.mlp.*", got, sizeof got);
  assert_string_equal(got, "blk.0.mlp.up blk.0.mlp.act");
  assert_int_equal(nm_run_sites(g, &tap, 1, &s, &n, &err), NM_EUSAGE);
  assert_non_null(strstr(err.text, "has no gate"));
  nm_model_close(g);
}

/* ---- positions ------------------------------------------------------------ */

/* "ann saw the red fox" behind the begin token: 6 ids. */
static nm_seq text_seq(const char *text) {
  int32_t *ids;
  size_t n;
  nm_err err = {0};
  if (nm_tokenize(m, text, strlen(text), 0, &ids, &n, &err)) fail_msg("%s", err.text);
  return (nm_seq){ids, n};
}

static int positions(const char *at_text, const nm_seq *s, char out[200], nm_err *err) {
  struct nm__at at;
  int *pos, n, st = nm__at_parse(at_text, &at, err);
  if (st) return st;
  st = nm__at_resolve(&at, m, s, &pos, &n, err);
  nm__at_done(&at);
  if (st) return st;
  size_t k = 0;
  out[0] = 0;
  for (int i = 0; i < n; i++) k += (size_t)snprintf(out + k, 200 - k, "%s%d", i ? " " : "", pos[i]);
  free(pos);
  return 0;
}

static void position_forms(void **state) {
  (void)state;
  nm_seq s = text_seq("ann saw the red fox");
  assert_int_equal(s.n, 6);
  static const char *const cases[][2] = {
      {"last", "5"},
      {"all", "0 1 2 3 4 5"},
      {"prompt", "0 1 2 3 4 5"},
      {"0", "0"},
      {"-1", "5"},
      {"-6", "0"},
      {"2:4", "2 3"},
      {"4:", "4 5"},
      {":2", "0 1"},
      {":", "0 1 2 3 4 5"},
      {"-2:", "4 5"},
      {":-4", "0 1"},
      {"-3:-1", "3 4"},
      {"3:99", "3 4 5"},
      {"-99:1", "0"},
      {"4:2", ""},
      {"1,4,1", "1 4 1"},
      {"5,0:2,last", "5 0 1 5"},
      {"span:red", "4"},
      {"span:saw the", "2 3"},
      {"span:ed f", "4 5"},
      {"0,span:red", "0 4"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char got[200];
    nm_err err = {0};
    if (positions(cases[i][0], &s, got, &err)) fail_msg("%s", err.text);
    if (strcmp(got, cases[i][1])) fail_msg("'%s' gives '%s'", cases[i][0], got);
  }
  nm_free((void *)(uintptr_t)s.ids);
}

static void position_refusals(void **state) {
  (void)state;
  nm_seq s = text_seq("ann saw the red fox");
  static const char *const cases[][2] = {
    {"", "must be last, all"}, {"first", "must be last, all"}, {"1,", "must be last, all"},
    {"1:2:3", "must be last, all"}, {"1-3", "must be last, all"}, {"1:x", "must be last, all"},
    {"span:", "must be last, all"}, {"2147483648", "must be last, all"},
    {"-9223372036854775808", "must be last, all"}, {"0:-9223372036854775808", "must be last, all"},
    {"99999999999999999999", "must be last, all"}, {"generated", "nothing is generated"},
    {"6", "lies outside the sequence of 6"}, {"-7", "lies outside"}, {"0,17", "lies outside"},
    {"span:blue", "not in the sequence"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char got[200];
    nm_err err = {0};
    if (positions(cases[i][0], &s, got, &err) != NM_EUSAGE)
      fail_msg("'%s' is taken: %s", cases[i][0], got);
    if (!strstr(err.text, cases[i][1])) fail_msg("'%s': %s", cases[i][0], err.text);
  }
  nm_free((void *)(uintptr_t)s.ids);
}

/* ---- edit files -------------------------------------------------------------- */

static const char *const good_edits =
    "{\"edits\": [{\"site\": \"blk.3.resid_post\", \"at\": \"last\", \"op\": \"scale\", \"scale\": "
    "-2.5},\n"
    " {\"site\": \"blk.*.attn.head[1]\", \"op\": \"zero\", \"note\": \"why\"},\n"
    " {\"site\": \"blk.1.attn.head[0]\", \"at\": \"1:3\", \"op\": \"add\", \"vector\": [1, 2, 3, "
    "4, 5, 6, 7, 8],"
    " \"scale\": 0.5}]}";

static void edits_read(void **state) {
  (void)state;
  nm_edits *e;
  nm_err err = {0};
  if (nm_edits_parse("t", good_edits, strlen(good_edits), &e, &err)) fail_msg("%s", err.text);
  assert_int_equal(nm_edits_n(e), 3);
  assert_string_equal(nm_edits_what(e, 0), "scale at blk.3.resid_post, positions last");
  assert_string_equal(nm_edits_what(e, 1), "zero at blk.*.attn.head[1], positions all");
  assert_int_equal(nm_edits_touched(e, 2), 0);
  nm_edits_free(e);
  assert_int_equal(nm_edits_n(NULL), 0);
  nm_edits_free(NULL);
  assert_int_equal(nm__write_file(scratch, good_edits, strlen(good_edits), NULL), 0);
  if (nm_edits_load(scratch, &e, &err)) fail_msg("%s", err.text);
  nm_edits_free(e);
  assert_int_equal(nm_edits_load("/nonexistent/edits.json", &e, &err), NM_EFORMAT);
  assert_null(e);
}

static void edit_sentences(void **state) {
  (void)state;
#define S "{\"site\": \"embed\", "
  static const char *const cases[][2] = {
      {"", "line"},
      {"{", "line 1"},
      {"[]", "holds no edit"},
      {"[3]", "edit 1: must be an object"},
      {"{\"edits\": []}", "holds no edit"},
      {"{\"op\": \"zero\"}", "\"site\" is missing"},
      {"{\"site\": 3, \"op\": \"zero\"}", "\"site\" is missing"},
      {S "\"op\": \"zero\", \"op\": \"add\"}", "duplicate"},
      {S "\"at\": 3, \"op\": \"zero\"}", "\"at\" must be a string"},
      {S "\"op\": \"zero\", \"position\": \"last\"}", "unknown key \"position\""},
      {S "\"op\": \"zero\", \"site at\": 1}", "unknown key \"site at\""},
      {S "\"op\": \"zero\", \"\": 1}", "unknown key \"\""},
      {S "\"op\": \"scale\", \"scale\": \"2\"}", "\"scale\" must be a number"},
      {S "\"op\": \"scale\", \"scale\": 1e300}", "\"scale\" is not finite"},
      {S "\"op\": \"average\"}", "\"op\" must be add, zero"},
      {S "\"op\": \"mean\"}", "needs a \"vector\""},
      {S "\"at\": \"all\"}", "\"op\" must be add, zero"},
      {S "\"op\": \"add\"}", "needs a \"vector\""},
      {S "\"op\": \"replace\"}", "needs a \"vector\""},
      {S "\"op\": \"project_out\", \"scale\": 1}", "needs a \"vector\""},
      {S "\"op\": \"zero\", \"vector\": [1]}", "take no \"vector\""},
      {S "\"op\": \"scale\"}", "needs a \"scale\""},
      {S "\"op\": \"add\", \"vector\": []}", "is empty"},
      {S "\"op\": \"add\", \"vector\": [1, \"2\"]}", "numbers only"},
      {S "\"op\": \"add\", \"vector\": 3}", "array of numbers or the path"},
      {S "\"op\": \"add\", \"vector\": [1e39]}", "not finite"},
      {S "\"op\": \"add\", \"vector\": \"/nonexistent/v.npy\"}", "/nonexistent/v.npy"},
      {S "\"at\": \"nowhere\", \"op\": \"zero\"}", "edit 1: positions 'nowhere'"},
      {"[" S "\"op\": \"zero\"}, 1]", "edit 2: must be an object"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    nm_edits *e;
    nm_err err = {0};
    if (nm_edits_parse("t", cases[i][0], strlen(cases[i][0]), &e, &err) != NM_EFORMAT)
      fail_msg("%s: status %d", cases[i][0], err.status);
    assert_null(e);
    if (!strstr(err.text, cases[i][1])) fail_msg("%s: %s", cases[i][0], err.text);
    assert_true(!strncmp(err.text, "t:", 2) && err.status == NM_EFORMAT);
  }
}

/* What only the model can tell: the site, the width, the rows of a vector file. */
static void edit_against_model(void **state) {
  (void)state;
  char npy[512];
  float v[3 * 32] = {1};
  assert_int_equal(nm__npy_write(scratch, 2, (int64_t[]){3, 32}, v, NULL), 0);
  snprintf(npy, sizeof npy, "{\"site\": \"blk.*.resid_pre\", \"op\": \"add\", \"vector\": \"%s\"}",
           scratch);
  const char *const cases[][2] = {
    {S "\"op\": \"add\", \"vector\": [1, 2]}", "the vector has 2 values, embed has 32"},
    {"{\"site\": \"blk.0.attn.scores\", \"op\": \"add\", \"vector\": [1]}", "only zero and scale"},
    {"{\"site\": \"blk.0.*\", \"op\": \"zero\"}", "only zero and scale"},
    {"{\"site\": \"blk.9.embed\", \"op\": \"zero\"}", "edit 1: site 'blk.9.embed' matches nothing"},
    {S "\"at\": \"9\", \"op\": \"zero\"}", "position 9 lies outside"},
    {npy, "has 3 rows for 6 sites"},
  };
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  nm_seq s = {(const int32_t[]){1, 2, 3}, 3};
  nm_tap tap = {"logits", "last"};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    nm_err err = {0};
    struct rows r;
    nm_edits *ed;
    if (nm_edits_parse("t", cases[i][0], strlen(cases[i][0]), &ed, &err)) fail_msg("%s", err.text);
    nm_request q = {.seqs = &s, .n_seqs = 1, .taps = &tap, .n_taps = 1, .edits = ed};
    int st = try_rows(e, q, &r, &err), want = i == 4 ? NM_EUSAGE : NM_EFORMAT;
    if (st != want || !strstr(err.text, cases[i][1]))
      fail_msg("%s: %d %s", cases[i][0], st, err.text);
    rows_done(&r);
    nm_edits_free(ed);
  }
  nm_engine_free(e);
}

static void edit_damage(void **state) {
  (void)state;
  size_t n = strlen(good_edits), n_read = 0;
  for (uint64_t i = 0; i < 10000; i++) {
    char *copy = malloc(n);
    memcpy(copy, good_edits, n);
    for (uint64_t k = 0; k <= i % 3; k++) {
      uint64_t r = nm__rand_at(21, k, i);
      copy[r % n] = (char)(r >> 40);
    }
    nm_edits *e;
    nm_err err = {0};
    int st = nm_edits_parse("damaged", copy, i % 5 ? n : n * (i % 64) / 64, &e, &err);
    assert_true(st ? !e && err.text[0] && st == err.status : e && nm_edits_n(e) > 0);
    n_read += !st;
    nm_edits_free(e);
    free(copy);
  }
  assert_true(n_read > 0 && n_read < 10000);
}

/* ---- engines and requests --------------------------------------------------------- */

static void engine_refusals(void **state) {
  (void)state;
  const struct { nm_engine_opts o; const char *part;
  } cases[] = {
      {{.threads = -1}, "must not be negative"},
      {{.threads = 5000}, "threads"},
      {{.n_ctx = -1}, "negative"},
      {{.chunk = -3}, "negative"},
      {{.batch = -3}, "negative"},
      {{.kernels = "sse9"}, "'sse9' are not available"},
  };
  nm_engine *e;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    nm_err err = {0};
    assert_int_equal(nm_engine_new(m, &cases[i].o, &e, &err), NM_EUSAGE);
    assert_null(e);
    if (!strstr(err.text, cases[i].part)) fail_msg("%s", err.text);
  }
  assert_int_equal(nm_engine_new(m, NULL, &e, NULL), 0);
  assert_true(nm_engine_threads(e) >= 1 && nm_engine_kernels(e));
  nm_engine_free(e);
  nm_engine_free(NULL);
  nm_model *v;
  assert_int_equal(nm_tokenizer_open(PLANTED, &v, NULL), 0);
  nm_err err = {0};
  assert_int_equal(nm_engine_new(v, NULL, &e, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "only a vocabulary"));
  nm_model_close(v);
  nm_model_close(NULL);
}

static void request_refusals(void **state) {
  (void)state;
  nm_model_info info;
  nm_model_describe(m, &info);
  static int32_t ids[20000];
  const struct { size_t n; int32_t first; const char *part;
  } cases[] = {
      {0, 1, "sequence 1 has no tokens"},
      {3, -1, "token id -1 is outside"},
      {3, info.V, "is outside the vocabulary"},
      {3, INT32_MAX, "is outside"},
      {3, INT32_MIN, "is outside"},
      {17, 1, "longer than the context of 16 (-c)"},
  };
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1, .n_ctx = 16}),
            *whole = new_engine(m, (nm_engine_opts){0});
  nm_tap tap = {"logits", "last"};
  struct rows r;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    nm_err err = {0};
    ids[0] = cases[i].first;
    nm_seq s = {ids, cases[i].n};
    nm_request q = {.seqs = &s, .n_seqs = 1, .taps = &tap, .n_taps = 1};
    assert_int_equal(try_rows(e, q, &r, &err), NM_EFORMAT);
    if (!strstr(err.text, cases[i].part)) fail_msg("%s", err.text);
    nm_memory need;
    assert_int_equal(nm_run_measure(e, &q, &need, &err), NM_EFORMAT);
    rows_done(&r);
  }
  ids[0] = 1;
  nm_seq s = {ids, (size_t)info.n_ctx + 1};
  nm_err err = {0};
  assert_true(info.n_ctx < 20000);
  nm_request q = {.seqs = &s, .n_seqs = 1, .taps = &tap, .n_taps = 1};
  assert_int_equal(try_rows(whole, q, &r, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "the model was made for"));
  rows_done(&r);
  q = (nm_request){.taps = &tap, .n_taps = 1};                    /* nothing to do is fine */
  assert_int_equal(try_rows(e, q, &r, &err), 0);
  assert_int_equal(r.n, 0);
  rows_done(&r);
  nm_engine_free(e);
  nm_engine_free(whole);
}

int main(void) {
  snprintf(scratch, sizeof scratch, "/tmp/noema_model_test.%ld.npy", (long)getpid());
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(globs), cmocka_unit_test(glob_refusals), cmocka_unit_test(sites_list),
    cmocka_unit_test(no_gate_in_gpt2), cmocka_unit_test(position_forms),
    cmocka_unit_test(position_refusals), cmocka_unit_test(edits_read),
    cmocka_unit_test(edit_sentences), cmocka_unit_test(edit_against_model),
    cmocka_unit_test(edit_damage), cmocka_unit_test(engine_refusals),
    cmocka_unit_test(request_refusals),
  };
  int failed = cmocka_run_group_tests(tests, open_planted, close_planted);
  unlink(scratch);
  return failed;
}
