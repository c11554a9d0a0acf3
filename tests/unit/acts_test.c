/* acts_test.c - activations to files: arrays and folders hold what a run hands out, in the
 * order asked for, whatever the chunk and batch; an interrupted folder goes on and ends
 * in the same bytes; callbacks of a run stop it with their own status. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "file/npy.h"
#include "model_run.h"

enum { N_SEQS = 7, MANY = 1100 };
static nm_model *m;
static char dir[64];                /* a folder of our own */
static int32_t ids[MANY][12];
static nm_seq seqs[MANY];

static int set_up(void **state) {
  (void)state;
  m = open_model(PLANTED);
  snprintf(dir, sizeof dir, "/tmp/noema_acts_test.%ld", (long)getpid());
  assert_int_equal(nm__mkdirs(dir, NULL), 0);
  for (int i = 0; i < MANY; i++) {
    static const uint8_t len[] = {9, 2, 12, 5, 9, 1, 7};
    seqs[i] = (nm_seq){ids[i], len[i % 7]};
    for (int k = 0; k < 12; k++)
      ids[i][k] = (int32_t)(nm__rand_at(9, (uint64_t)i, (uint64_t)k) % (uint64_t)m->V);
  }
  return 0;
}

static void remove_tree(const char *path) {
  DIR *d = opendir(path);
  for (struct dirent *f; d && (f = readdir(d));) {
    char *full = nm__path_join(path, f->d_name);
    if (f->d_name[0] != '.' && unlink(full)) remove_tree(full);
    free(full);
  }
  if (d) closedir(d);
  rmdir(path);
}
static int clean_up(void **state) {
  (void)state;
  remove_tree(dir);
  nm_model_close(m);
  return 0;
}

static char *in_dir(const char *name) { return nm__path_join(dir, name); }

static struct nm__npy read_npy(const char *path) {
  struct nm__npy a;
  nm_err err = {0};
  if (nm__npy_read(path, &a, &err)) fail_msg("%s", err.text);
  return a;
}

static struct nm__npy acts_file(nm_engine *e, size_t first, size_t n, const char *site,
                                const char *at) {
  char *path = in_dir("a.npy");
  nm_err err = {0};
  nm_acts_opts o = {.site = site, .at = at, .out = path};
  if (nm_acts(e, seqs + first, n, &o, NULL, &err)) fail_msg("%s", err.text);
  struct nm__npy a = read_npy(path);
  free(path);
  return a;
}

/* ---- one array ---------------------------------------------------------------- */

static void shapes(void **state) {
  (void)state;
  static const struct {
    size_t first, n;
    const char *site, *at;
    int dims;
    int64_t ne[3];
  } cases[] = {
      {0, 1, "*.resid_post", "last", 2, {6, 32, 1}},
      {0, 1, "*.resid_post", "all", 3, {6, 9, 32}},
      {0, 1, "embed", "2:5", 3, {1, 3, 32}},
      {0, 1, "embed", "2:2", 3, {1, 0, 32}},
      {0, 1, "blk.2.mlp.act[3-4]", "-1", 2, {1, 2, 1}},
      {0, 3, "*.resid_mid", "last", 3, {3, 6, 32}},
      {0, 1, "blk.*.attn.pattern", "last", 2, {6, 36, 1}},
      {0, 1, "blk.*.attn.pattern[2]", "1,4", 3, {6, 2, 9}},
      {0, 1, "blk.1.attn.scores", "4,4,1", 3, {1, 3, 36}},
  };
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct nm__npy a = acts_file(e, cases[i].first, cases[i].n, cases[i].site, cases[i].at);
    if (a.n_dims != cases[i].dims || a.ne[0] != cases[i].ne[0] || a.ne[1] != cases[i].ne[1] ||
        a.ne[2] != cases[i].ne[2])
      fail_msg("%s at %s: %d [%ld %ld %ld]", cases[i].site, cases[i].at, a.n_dims, (long)a.ne[0],
               (long)a.ne[1], (long)a.ne[2]);
    nm__npy_done(&a);
  }
  nm_engine_free(e);
}

/* Positions in the order asked for, repeated where asked for. */
static void order_of_positions(void **state) {
  (void)state;
  static const int at[] = {4, 0, 4, 8};
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1, .chunk = 3});
  static const char *const site[] = {"blk.2.resid_post", "blk.1.attn.pattern"};
  for (int k = 0; k < 2; k++) {
    int64_t w = k ? 36 : 32;
    struct nm__npy a = acts_file(e, 0, 1, site[k], "4,0,4,-1");
    struct rows r = tap_one(e, seqs[0].ids, seqs[0].n, site[k], "all", NULL);
    assert_true(a.n == 4 * w);
    for (int i = 0; i < 4; i++)
      assert_memory_equal(a.data + i * w, row_of(&r, site[k], 0, at[i], w), (size_t)w * 4);
    nm__npy_done(&a);
    rows_done(&r);
  }
  nm_engine_free(e);
}

static const nm_engine_opts ways[] = {{.threads = 1},
                                      {.threads = 2, .chunk = 2, .batch = 3},
                                      {.threads = 1, .chunk = 5, .batch = 7},
                                      {.threads = 1, .chunk = 1}};
enum { N_WAYS = sizeof ways / sizeof *ways };

/* Row i of the file is sequence i, although short ones end in an earlier chunk. */
static void order_of_sequences(void **state) {
  (void)state;
  for (int k = 0; k < N_WAYS; k++) {
    nm_engine *e = new_engine(m, ways[k]);
    struct nm__npy a = acts_file(e, 0, N_SEQS, "blk.5.resid_post|blk.0.resid_post", "last");
    assert_true(a.n_dims == 3 && a.ne[0] == N_SEQS && a.ne[1] == 2 && a.ne[2] == 32);
    for (int i = 0; i < N_SEQS; i++) {
      struct rows r = tap_one(e, seqs[i].ids, seqs[i].n, "*.resid_post", "last", NULL);
      for (int s = 0; s < 2; s++)
        assert_memory_equal(
            a.data + (2 * i + s) * 32,
            row_of(&r, s ? "blk.0.resid_post" : "blk.5.resid_post", 0, (int)seqs[i].n - 1, 32),
            128);
      rows_done(&r);
    }
    nm__npy_done(&a);
    nm_engine_free(e);
  }
}

static void array_refusals(void **state) {
  (void)state;
  char *path = in_dir("no.npy");
  static const struct { size_t n; const char *site, *at, *part;
  } cases[] = {
      {1, "blk.0.*norm|blk.0.mlp.act", "last", "different widths"},
      {1, "blk.0.mlp.act|blk.0.attn.pattern", "last", "say -o DIR"},
      {2, "embed", "all", "say -o DIR"},
      {2, "blk.0.attn.pattern", "last", "say -o DIR"},
      {1, "embed", "9", "lies outside"},
      {1, "nothing", "last", "matches nothing"},
      {1, "embed", "x", "must be last"},
      {1, "blk.0.attn.pattern[1]|blk.0.attn.pattern", "last", "different widths"},
  };
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    nm_err err = {0};
    nm_acts_opts o = {.site = cases[i].site, .at = cases[i].at, .out = path};
    assert_int_equal(nm_acts(e, seqs, cases[i].n, &o, NULL, &err), NM_EUSAGE);
    if (!strstr(err.text, cases[i].part)) fail_msg("%s: %s", cases[i].site, err.text);
    assert_false(nm__exists(path));
  }
  nm_engine_free(e);
  free(path);
}

/* ---- a folder -------------------------------------------------------------------- */

static int acts_dir(nm_engine *e, const char *out, size_t n, const char *site, const char *at,
                    const nm_progress *p, nm_err *err) {
  nm_acts_opts o = {.site = site, .at = at, .out = out, .progress = p};
  return nm_acts(e, seqs, n, &o, NULL, err);
}

/* Walks the rows of one site's shards as the index lists them. */
static void check_folder(nm_engine *e, const char *out, size_t n, const char *site,
                         const char *at) {
  struct nm__npy a = {0};
  size_t row = 0;
  int shard = 0;
  for (size_t i = 0; i < n; i++) {
    struct rows r = tap_one(e, seqs[i].ids, seqs[i].n, site, at, NULL);
    if (!a.data || (r.n && row == (size_t)a.ne[0])) {
      char name[128];
      nm__npy_done(&a);
      snprintf(name, sizeof name, "%s/%s.%05d.npy", out, site, shard++);
      a = read_npy(name);
      row = 0;
      assert_int_equal(a.n_dims, 2);
    }
    for (size_t k = 0; k < r.n; k++, row++) {
      assert_true(row < (size_t)a.ne[0] && a.ne[1] == r.v[k].n);
      assert_memory_equal(a.data + (int64_t)row * a.ne[1], r.v[k].v, (size_t)a.ne[1] * 4);
    }
    rows_done(&r);
  }
  assert_int_equal(row, a.ne[0]);
  nm__npy_done(&a);
}

static void folders(void **state) {
  (void)state;
  static const char *const sites[][2] = {
      {"blk.3.resid_post", "all"},     {"blk.1.mlp.act[3]", "-1"}, {"blk.1.attn.pattern", "all"},
      {"blk.1.attn.scores[2]", "all"}, {"logits", "0:2"},          {"embed", "1:1"}};
  for (size_t s = 0; s < sizeof sites / sizeof *sites; s++)
    for (int k = 0; k < N_WAYS; k++) {
      nm_engine *e = new_engine(m, ways[k]);
      char *out = in_dir("folder");
      nm_err err = {0};
      if (acts_dir(e, out, N_SEQS, sites[s][0], sites[s][1], NULL, &err)) fail_msg("%s", err.text);
      check_folder(e, out, N_SEQS, sites[s][0], sites[s][1]);
      remove_tree(out);
      free(out);
      nm_engine_free(e);
    }
}

/* Names, then bytes, of all files of two folders. */
static void assert_same_folders(const char *a, const char *b) {
  int n[2] = {0};
  for (int k = 0; k < 2; k++) {
    DIR *d = opendir(k ? b : a);
    for (struct dirent *f; d && (f = readdir(d));) {
      if (f->d_name[0] == '.') continue;
      struct nm__map x, y;
      char *p = nm__path_join(a, f->d_name), *q = nm__path_join(b, f->d_name);
      n[k]++;
      if (nm__map_open(p, &x, NULL) || nm__map_open(q, &y, NULL))
        fail_msg("%s is in one folder only", f->d_name);
      if (x.size != y.size || memcmp(x.data, y.data, x.size)) fail_msg("%s differs", f->d_name);
      nm__map_close(&x);
      nm__map_close(&y);
      free(p);
      free(q);
    }
    if (d) closedir(d);
  }
  assert_true(n[0] > 1 && n[0] == n[1]);
}

static int stop_at(void *arg, const char *what, double done, double total) {
  (void)what, (void)done, (void)total;
  return --*(int *)arg == 0;
}

/* Interrupted again and again, a folder ends in the bytes of one that never was. */
static void interrupted(void **state) {
  (void)state;
  static const nm_engine_opts how[] = {
      {.threads = 1, .batch = 40}, {.threads = 1, .batch = 3, .chunk = 2}, {.threads = 2}};
  char *whole = in_dir("whole"), *cut = in_dir("cut");
  nm_err err = {0};
  for (int k = 0; k < 3; k++) {
    nm_engine *e = new_engine(m, how[k]);
    int n_cut = 0, st = NM_EINTR;
    assert_int_equal(acts_dir(e, whole, MANY, "blk.0.resid_post|embed", "-1,0", NULL, &err), 0);
    for (int left = 3; st == NM_EINTR && n_cut < 60; n_cut++) {
      left = 3 + 5 * n_cut;
      st = acts_dir(e, cut, MANY, "blk.0.resid_post|embed", "-1,0", &(nm_progress){stop_at, &left},
                    &err);
    }
    assert_true(st == 0 && n_cut > 2);
    assert_same_folders(whole, cut);
    assert_int_equal(acts_dir(e, cut, MANY, "blk.0.resid_post|embed", "-1,0", NULL, &err),
                     0); /* nothing left to do */
    assert_same_folders(whole, cut);
    remove_tree(whole);
    remove_tree(cut);
    nm_engine_free(e);
  }
  free(whole);
  free(cut);
}

/* What a power cut leaves: a half written last line; shards that the index does not know. */
static void torn_index(void **state) {
  (void)state;
  char *whole = in_dir("whole"), *cut = in_dir("cut"), *index = in_dir("cut/index.jsonl");
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1, .batch = 64});
  nm_err err = {0};
  assert_int_equal(acts_dir(e, whole, 600, "embed", "last", NULL, &err), 0);
  for (int part = 0; part < 40; part++) {
    struct stat st;
    assert_int_equal(acts_dir(e, cut, 600, "embed", "last", NULL, &err), 0);
    assert_int_equal(stat(index, &st), 0);
    assert_int_equal(truncate(index, st.st_size * part / 40), 0);
    if (acts_dir(e, cut, 600, "embed", "last", NULL, &err)) fail_msg("%s", err.text);
    assert_same_folders(whole, cut);
  }
  remove_tree(whole);
  remove_tree(cut);
  nm_engine_free(e);
  free(whole);
  free(cut);
  free(index);
}

static void other_runs_are_refused(void **state) {
  (void)state;
  char *out = in_dir("mine");
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  nm_err err = {0};
  assert_int_equal(acts_dir(e, out, 5, "embed", "last", NULL, &err), 0);
  assert_int_equal(acts_dir(e, out, 4, "embed", "last", NULL, &err), NM_EUSAGE);
  assert_non_null(strstr(err.text, "holds another run"));
  assert_int_equal(acts_dir(e, out, 5, "embed", "0", NULL, &err), NM_EUSAGE);
  assert_int_equal(acts_dir(e, out, 5, "blk.0.resid_pre", "last", NULL, &err), NM_EUSAGE);
  const char *json = "{\"site\": \"embed\", \"op\": \"zero\"}";
  nm_edits *ed;
  assert_int_equal(nm_edits_parse("t", json, strlen(json), &ed, NULL), 0);
  nm_acts_opts o = {.site = "embed", .at = "last", .out = out, .edits = ed};
  assert_int_equal(nm_acts(e, seqs, 5, &o, NULL, &err), NM_EUSAGE);
  nm_edits_free(ed);
  ids[4][0] ^= 1;
  assert_int_equal(acts_dir(e, out, 5, "embed", "last", NULL, &err), NM_EUSAGE);
  ids[4][0] ^= 1;
  assert_int_equal(acts_dir(e, out, 5, "embed", "last", NULL, &err), 0);
  remove_tree(out);
  nm_engine_free(e);
  free(out);
}

/* ---- callbacks ------------------------------------------------------------------------- */

struct calls { size_t rows, done, stop_row, stop_done; };
static int row_call(void *arg, const nm_row *r, nm_err *err) {
  struct calls *c = arg;
  (void)r;
  return ++c->rows == c->stop_row ? nm__fail(err, NM_EUNSURE, "enough") : 0;
}
static int done_call(void *arg, size_t seq, nm_err *err) {
  struct calls *c = arg;
  assert_int_equal(seq, c->done);
  return ++c->done == c->stop_done ? nm__fail(err, NM_ECHECK, "done is done") : 0;
}

static void callbacks(void **state) {
  (void)state;
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2, .chunk = 3, .batch = 2});
  nm_tap tap = {"embed|logits", "last"};
  static const struct { size_t stop_row, stop_done; int status; } cases[] = {
    {0, 0, 0}, {1, 0, NM_EUNSURE}, {14, 0, NM_EUNSURE}, {0, 1, NM_ECHECK}, {0, 7, NM_ECHECK}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct calls c = {0, 0, cases[i].stop_row, cases[i].stop_done};
    nm_err err = {0};
    nm_request r = {.seqs = seqs,
                    .n_seqs = N_SEQS,
                    .taps = &tap,
                    .n_taps = 1,
                    .row = row_call,
                    .done = done_call,
                    .arg = &c};
    assert_int_equal(nm_run(e, &r, &err), cases[i].status);
    assert_int_equal(err.status, cases[i].status);
    if (!cases[i].status) assert_true(c.rows == 2 * N_SEQS && c.done == N_SEQS);
    int left = 2;
    nm_progress p = {stop_at, &left};
    r.progress = &p;
    c = (struct calls){0};
    assert_int_equal(nm_run(e, &r, &err), NM_EINTR);
    assert_true(err.status == NM_EINTR && err.text[0] && c.done < N_SEQS);
  }
  nm_engine_free(e);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(shapes),
      cmocka_unit_test(order_of_positions),
      cmocka_unit_test(order_of_sequences),
      cmocka_unit_test(array_refusals),
      cmocka_unit_test(folders),
      cmocka_unit_test(interrupted),
      cmocka_unit_test(torn_index),
      cmocka_unit_test(other_runs_are_refused),
      cmocka_unit_test(callbacks),
  };
  return cmocka_run_group_tests(tests, set_up, clean_up);
}
