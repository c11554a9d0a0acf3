/* heads_test.c - scores of heads: the published figures, hostile files, ROUGE-1, the planted copying
 * head alone, what counts as copying, draws that leave the best heads out, needles among tokens. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "model_run.h"
#include "study/heads.h"

/* ---- the published files ---------------------------------------------------------- */

static bool published(const char *name, struct nm__head_scores *s) {
  char path[160];
  nm_err err = {0};
  snprintf(path, sizeof path, "../shared/data/retrieval-heads/%s.csv", name);
  if (!nm__exists(path)) {
    print_message("skipped: no %s\n", path);
    return false;
  }
  if (nm__head_scores_read(path, s, &err)) fail_msg("%s", err.text);
  return true;
}

static void test_published(void **state) {
  static const struct { const char *name; size_t v[7]; } want[] = {
      {"llama-2-7b-80k", {1024, 586, 33, 6, 719, 12, 6}},
      {"llama-2-13b-64k", {1600, 367, 33, 6, 0, 14, 0}},
      {"Mistral-7B-v0.2-hf", {1024, 362, 43, 5, 0, 20, 0}},
      {"Mixtral-8x7B-v0.1", {1024, 390, 63, 7, 0, 30, 0}},
      {"Qwen1.5-14B", {1600, 390, 61, 10, 0, 26, 0}}};
  static const double never[] = {70, 73, 65, 58, 53};
  static const char top[6][8] = {"16-19", "11-15", "8-26", "6-9", "7-12", "17-22"};
  static const double mean[] = {0.943, 0.920, 0.800, 0.618, 0.614, 0.557};
  (void)state;
  for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
    struct nm__head_scores s;
    if (!published(want[i].name, &s)) return;
    struct nm__heads_sum q = nm__heads_sum(&s);
    assert_int_equal(q.heads, want[i].v[0]);
    assert_int_equal(s.trials, want[i].v[1]);
    assert_int_equal(q.copying, want[i].v[2]);
    assert_int_equal(q.half, want[i].v[3]);
    assert_int_equal(floor(100.0 * (double)q.never / (double)q.heads + 0.5), never[i]);
    assert_int_equal(q.mostly, want[i].v[5]);
    if (!i) assert_int_equal(q.always, want[i].v[6]);
    uint32_t *rank = nm__head_ranking(&s);
    for (int k = 0; !i && k < 6; k++) {
      char name[16];
      snprintf(name, sizeof name, "%u-%u", rank[k] / 32, rank[k] % 32);
      assert_string_equal(name, top[k]);
      assert_true(fabs(s.v[rank[k]].mean - mean[k]) < 0.0005);
    }
    free(rank);
    nm__head_scores_done(&s);
  }
}

static void test_alike(void **state) {
  struct nm__head_scores a, b, c, d;
  (void)state;
  if (!published("Mistral-7B-v0.2-hf", &a)) return;
  published("Mixtral-8x7B-v0.1", &b);
  published("llama-2-7b-80k", &c);
  published("Qwen1.5-14B", &d);
  assert_true(fabs(nm__heads_pearson(&a, &b) - 0.964) < 0.0005);
  assert_true(fabs(nm__heads_pearson(&c, &a) + 0.009) < 0.0005);
  assert_true(isnan(nm__heads_pearson(&a, &d)));
  assert_int_equal(nm__heads_shared(&a, &a, 20), 20);
  nm__head_scores_done(&a);
  nm__head_scores_done(&b);
  nm__head_scores_done(&c);
  nm__head_scores_done(&d);
}

/* ---- the format ---------------------------------------------------------------------- */

static const char small[] = "{\"0-1\": [0.5, 1.0], \"0-0\": [0, 0.05],\n \"1-0\": [0, 0], "
                            "\"1-1\": [1.003, 0]}";

static void test_format(void **state) {
  struct nm__head_scores s, again;
  struct nm__buf b;
  (void)state;
  assert_int_equal(nm__head_scores_parse("small", small, sizeof small - 1, &s, NULL), NM_OK);
  assert_int_equal(s.L * 10 + s.H, 22);
  assert_true(s.v[1].mean == 0.75 && s.v[1].freq == 1 && s.v[1].max == 1);
  assert_true(s.v[3].mean == 1.003 / 2 && s.v[3].freq == 0.5);
  uint32_t *rank = nm__head_ranking(&s);
  assert_true(rank[0] == 1 && rank[1] == 3 && rank[2] == 0 && rank[3] == 2);
  free(rank);
  for (int form = 0; form < 2; form++) {
    nm__buf_init(&b, 1 << 16);
    if (form) nm__head_scores_csv(&s, &b);
    else nm__head_scores_json(&s, &b);
    assert_int_equal(nm__head_scores_parse("again", b.s, b.len, &again, NULL), NM_OK);
    assert_int_equal(again.trials, 2);
    for (int i = 0; i < 4; i++) assert_true(fabs(again.v[i].mean - s.v[i].mean) < 1e-5);
    nm__head_scores_done(&again);
    nm__buf_done(&b);
  }
  nm__head_scores_done(&s);
}

static void refused(const char *text, const char *why) {
  struct nm__head_scores s;
  nm_err err = {0};
  assert_int_equal(nm__head_scores_parse("F", text, strlen(text), &s, &err), NM_EFORMAT);
  if (!strstr(err.text, why)) fail_msg("'%s' lacks '%s'", err.text, why);
  assert_null(s.v);
}

static void test_refused(void **state) {
  (void)state;
  refused("{\"0-0\": []}", "no trial was kept");
  refused("{}", "no trial was kept");
  refused("{\"0-0\": [1], \"0-1\": [1, 2]}", "2 scores where others have 1");
  refused("{\"0-0\": [1], \"1-1\": [1]}", "which are 4");
  refused("{\"0-00\": [1]}", "is no head");
  refused("{\"0-9999999999\": [1]}", "is no head");
  refused("{\"1048575-1048575\": [1]}", "which are");
  refused("{\"a\": [1]}", "is no head");
  refused("{\"0-0\": 1}", "is no head");
  refused("{\"0-0\": [-1]}", "no number from 0 on");
  refused("{\"0-0\": [\"x\"]}", "no number from 0 on");
  refused("layer,head\n0,0\n", "has no column mean_score");
  static const char head[] = "layer,head,mean_score,trials,freq_score_ge_0.1,max_score\n";
  static const struct { const char *row, *why; } rows[] = {
      {"0,0,0.5,3,2,1\n", "freq_score_ge_0.1"}, {"0,0.5,0.5,3,1,1\n", "must be whole"},
      {"0,0,0.5,0,1,1\n", "must be whole"}, {"0,0,nan,3,1,1\n", "mean_score"},
      {"0,0,1,3,1,1\n0,0,1,3,1,1\n", "which are 1"}, {"0,0,1,3,1,1\n0,1,1,4,1,1\n", "the same"},
      {"0,0,1,3,1,1\n1,1,1,3,1,1\n0,1,1,3,1,1\n0,1,1,3,1,1\n", "stands twice"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char text[300];
    snprintf(text, sizeof text, "%s%s", head, rows[i].row);
    refused(text, rows[i].why);
  }
}

static void test_mutations(void **state) {
  static const char csv[] = "layer,head,mean_score,trials,freq_score_ge_0.1,max_score\n"
                            "0,0,0.10000,5,0.5000,0.7\n0,1,0.0,5,0.0,0.0\n";
  struct nm__rng r = {9, 1, 0};
  int good = 0;
  (void)state;
  for (int i = 0; i < 10000; i++) {
    char text[200];
    const char *from = i & 1 ? csv : small;
    size_t n = strlen(from), changes = 1 + nm__rng_below(&r, 4);
    struct nm__head_scores s;
    memcpy(text, from, n);
    for (size_t k = 0; k < changes; k++) {
      static const char likely[] = "{}[]\",:-0192.e\n";
      size_t at = nm__rng_below(&r, n);
      if (nm__rng_below(&r, 8) == 0) n = at + 1;
      else text[at] = likely[nm__rng_below(&r, sizeof likely - 1)];
    }
    if (nm__head_scores_parse("mutated", text, n, &s, NULL)) continue;
    good++;
    for (int h = 0; h < s.L * s.H; h++) assert_true(s.v[h].mean >= 0);
    nm__head_scores_done(&s);
  }
  assert_true(good > 100 && good < 9000);
}

/* ---- words --------------------------------------------------------------------------------- */

static void stem(const char *word, const char *want) {
  char w[64];
  snprintf(w, sizeof w, "%s", word);
  nm__stem(w);
  assert_string_equal(w, want);
}

static void test_stems(void **state) {
  (void)state;
  stem("caresses", "caress"); stem("ponies", "poni"); stem("cats", "cat"); stem("agreed", "agre");
  stem("plastered", "plaster"); stem("motoring", "motor"); stem("sing", "sing");
  stem("conflated", "conflat"); stem("hopping", "hop"); stem("falling", "fall");
  stem("filing", "file"); stem("happy", "happi"); stem("sky", "sky");
  stem("relational", "relat"); stem("conditional", "condit"); stem("digitizer", "digit");
  stem("vietnamization", "vietnam"); stem("hopefulness", "hope"); stem("electriciti", "electr");
  stem("adjustable", "adjust"); stem("replacement", "replac"); stem("adoption", "adopt");
  stem("probate", "probat"); stem("rate", "rate"); stem("cease", "ceas"); stem("controll", "control");
  stem("roll", "roll");
}

static void test_rouge(void **state) {
  (void)state;
  assert_true(nm__rouge1_recall("take a walk in Chaoyang Park", "Taking walks, in the park!") == 4 / 6.0);
  assert_true(nm__rouge1_recall("the the cat", "the cat") == 2 / 3.0);
  assert_true(nm__rouge1_recall("...", "a") == 0);
  assert_true(nm__rouge1_recall("a b", "") == 0);
  assert_true(nm__rouge1_recall("\xff\xfe A1", "a1 \xc3\xa9") == 1);
}

/* ---- copying --------------------------------------------------------------------------------- */

struct planted { nm_model *m; nm_engine *e; };

static int begin(void **state) {
  static struct planted p;
  nm_err err = {0};
  if (nm_model_open("models/planted.gguf", &p.m, &err) ||
      nm_engine_new(p.m, &(nm_engine_opts){.threads = 1}, &p.e, &err))
    fail_msg("%s", err.text);
  *state = &p;
  return 0;
}

static int end(void **state) {
  struct planted *p = *state;
  nm_engine_free(p->e);
  nm_model_close(p->m);
  return 0;
}

/* Scores of all 24 heads for the tokens from .. to-1 of a text; returns the first token said. */
static int32_t scored(struct planted *p, const char *text, int from, int to, int most, bool unique,
                      double score[24]) {
  struct nm__copier *c;
  int32_t *ids, answer[8] = {-1};
  size_t n_ids;
  int n;
  nm_err err = {0};
  struct nm__copy_opts o = {.most = most, .unique = unique};
  assert_int_equal(nm_tokenize(p->m, text, strlen(text), 0, &ids, &n_ids, &err), NM_OK);
  struct nm__needle q = {{ids, n_ids}, from, to, 0};
  if (nm__copier_new(p->e, p->m, NULL, &o, &c, &err) ||
      nm__copy_answer(c, &q, answer, &n, score, &err))
    fail_msg("%s", err.text);
  assert_int_equal(n, most);
  nm__copier_free(c);
  nm_free(ids);
  return answer[0];
}

static void only_head(const double score[24], int head, double value) {
  for (int i = 0; i < 24; i++)
    if (fabs(score[i] - (i == head ? value : 0)) > 1e-12)
      fail_msg("head %d-%d has %g", i / 4, i % 4, score[i]);
}

/* Position 0 is the begin token, so that the name is at 2. */
static void test_planted(void **state) {
  double score[24];
  scored(*state, "saw ann by night ?", 2, 3, 1, false, score);
  only_head(score, 3, 1);
  scored(*state, "saw ann by night ?", 1, 5, 1, false, score);
  only_head(score, 3, 0.25);
  scored(*state, "saw ann by night ?", 3, 5, 1, false, score);
  only_head(score, 3, 0);
}

/* Said twice, a token counts twice as released, and once of its needle's different tokens. */
static void test_counts(void **state) {
  double score[24];
  scored(*state, "saw ann by night ?", 2, 3, 2, false, score);
  only_head(score, 3, 2);
  scored(*state, "saw ann by night ?", 2, 3, 2, true, score);
  only_head(score, 3, 1);
}

/* Of two names the head looks at both alike, at the first first; said is the other one. Looking is
 * not copying. */
static void test_equality(void **state) {
  double score[24];
  int32_t w = scored(*state, "bob saw ann ?", 1, 2, 1, false, score),
          ann = scored(*state, "ann saw ann ?", 1, 2, 1, false, score);
  assert_int_equal(w, ann);
  only_head(score, 3, 1);
  scored(*state, "bob saw ann ?", 1, 2, 1, false, score);
  only_head(score, 3, 0);
}

/* What a session's tap sees is what a run of the whole text sees, bit for bit. */
struct seen { float v[6][64]; int n, pos; };

static int see_row(void *arg, const nm_row *r, nm_err *err) {
  struct seen *s = arg;
  (void)err;
  assert_true(r->n <= 64 && r->site < 6);
  memcpy(s->v[r->site], r->data, (size_t)r->n * sizeof(float));
  s->n++;
  s->pos = r->pos;
  return NM_OK;
}

static void test_rows(void **state) {
  struct planted *p = *state;
  static const char text[] = "saw ann by night ?", site[] = "blk.*.attn.pattern";
  struct seen a = {.n = 0}, b = {.n = 0};
  int32_t *ids;
  size_t n;
  int zero = 0;
  nm_session *s;
  nm_tap tap = {site, "last"};
  nm_session_opts o = {.tap = site, .row = see_row, .arg = &a};
  assert_int_equal(nm_tokenize(p->m, text, sizeof text - 1, 0, &ids, &n, NULL), NM_OK);
  assert_int_equal(nm_session_new(p->e, &o, &s, NULL), NM_OK);
  assert_int_equal(nm_session_append(s, 0, ids, n - 1, NULL), NM_OK);
  assert_int_equal(a.n, 6);                    /* the last position alone, in every block */
  assert_int_equal(nm_session_step(s, &zero, &ids[n - 1], 1, NULL), NM_OK);
  assert_int_equal(a.n, 12);
  assert_int_equal(a.pos, n - 1);
  nm_seq seq = {ids, n};
  nm_request r = {.seqs = &seq, .n_seqs = 1, .taps = &tap, .n_taps = 1, .row = see_row, .arg = &b};
  assert_int_equal(nm_run(p->e, &r, NULL), NM_OK);
  assert_memory_equal(a.v, b.v, sizeof a.v);
  nm_session_free(s);
  nm_free(ids);
}

static void test_masks(void **state) {
  struct planted *p = *state;
  static const uint32_t copying[] = {3}, other[] = {4};
  int32_t said[2];
  for (int k = 0; k < 2; k++) {
    nm_edits *mask;
    struct nm__copier *c;
    int32_t *ids;
    size_t n_ids;
    int n;
    struct nm__copy_opts o = {.most = 1, .blind = true};
    static const char text[] = "saw ann by night ?";
    nm_tokenize(p->m, text, strlen(text), 0, &ids, &n_ids, NULL);
    struct nm__needle q = {{ids, n_ids}, 0, 0, 0};
    assert_int_equal(nm__mask_heads(p->m, k ? other : copying, 1, "zero", &mask, NULL), NM_OK);
    assert_int_equal(nm__copier_new(p->e, p->m, mask, &o, &c, NULL), NM_OK);
    assert_int_equal(nm__copy_answer(c, &q, &said[k], &n, NULL, NULL), NM_OK);
    if (k) assert_int_equal(said[k], ids[2]);
    else assert_int_not_equal(said[k], ids[2]);
    nm__copier_free(c);
    nm_edits_free(mask);
    nm_free(ids);
  }
}

static void test_draws(void **state) {
  uint32_t rank[24], v[12];
  int differ = 0;
  (void)state;
  for (uint32_t i = 0; i < 24; i++) rank[i] = 23 - i;
  for (uint64_t d = 0; d < 5; d++) {
    uint32_t before = d ? v[0] : 99;
    assert_int_equal(nm__random_heads(rank, 24, 8, 12, 1, d, v, NULL), NM_OK);
    differ += v[0] != before;
    for (int i = 0; i < 12; i++) {
      assert_true(v[i] < 16);                  /* the best eight are 23 .. 16 */
      for (int k = 0; k < i; k++) assert_int_not_equal(v[i], v[k]);
    }
  }
  assert_true(differ >= 3);
  assert_int_equal(nm__random_heads(rank, 24, 20, 5, 1, 0, v, NULL), NM_EUSAGE);
}

/* A model that answers nothing has no scores, not scores of zero. */
static void test_no_answers(void **state) {
  struct planted *p = *state;
  char dir[80], data[120], cmd[200];
  nm_heads_result r;
  nm_err err = {0};
  snprintf(dir, sizeof dir, "/tmp/noema_heads_test.%ld", (long)getpid());
  snprintf(data, sizeof data, "%s/rows.jsonl", dir);
  assert_int_equal(nm__mkdirs(dir, &err), NM_OK);
  static const char rows[] = "{\"text\": \"saw ann by night ?\", \"answer\": \"night\"}\n"
                             "{\"text\": \"saw bob by night ?\", \"answer\": \"night\"}\n";
  assert_int_equal(nm__write_file(data, rows, sizeof rows - 1, &err), NM_OK);
  snprintf(cmd, sizeof cmd, "%s/run", dir);
  nm_heads_opts o = {.data = data, .predict = 1, .out = cmd, .seed = 1};
  int st = nm_heads(p->m, p->e, &o, &r, &err);
  assert_int_equal(st, NM_EFAIL);
  assert_non_null(strstr(err.text, "none of the 2 trials was answered"));
  snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
  assert_int_equal(system(cmd), 0);
}

static void test_span(void **state) {
  static const int32_t text[] = {5, 6, 1, 2, 3, 4, 9, 1, 2, 2, 4};
  static const int32_t want[] = {1, 2, 3, 4}, twice[] = {2, 2, 4}, strange[] = {1, 2, 3, 8};
  int from = -1;
  double best;
  (void)state;
  assert_true(nm__find_span(text, 11, want, 4, &from, &best));
  assert_int_equal(from, 2);
  assert_true(nm__find_span(text, 11, twice, 3, &from, &best));
  assert_int_equal(from, 3);                   /* the first window that holds 2 and 4 */
  assert_false(nm__find_span(text, 11, strange, 4, &from, &best));
  assert_true(best == 0.75);
  assert_false(nm__find_span(text, 2, want, 4, &from, &best));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_published), cmocka_unit_test(test_alike), cmocka_unit_test(test_format),
      cmocka_unit_test(test_refused), cmocka_unit_test(test_mutations),
      cmocka_unit_test(test_stems), cmocka_unit_test(test_rouge), cmocka_unit_test(test_planted),
      cmocka_unit_test(test_counts), cmocka_unit_test(test_equality),
      cmocka_unit_test(test_rows), cmocka_unit_test(test_masks),
      cmocka_unit_test(test_draws),
      cmocka_unit_test(test_no_answers), cmocka_unit_test(test_span)};
  return cmocka_run_group_tests(tests, begin, end);
}
