/* ckpt_test.c - checkpoints: there and back in the same bits, adapters, which stay; files cut at
 * every piece, 10,000 mutations, halves and strangers; a full disk; DIR@STEP as a model. What
 * happens when the process ends in the middle is tests/cli/crash_test.sh's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "learn/ckpt.h"
#include "model_run.h"

static char dir[64];

static int make_folder(void **state) {
  (void)state;
  snprintf(dir, sizeof dir, "/tmp/noema-ckpt-XXXXXX");
  return !mkdtemp(dir);
}

static int clear_folder(void **state) {
  char command[100];
  (void)state;
  snprintf(command, sizeof command, "rm -rf %s", dir);
  return system(command);
}

/* A model with its parameters, and a state that a run could have. */
struct run { nm_model *base, *m; struct nm__params p; struct nm__moments s; struct nm__ckpt c; };

static void fill(float *v, size_t n, uint64_t stream) {
  for (size_t i = 0; i < n; i++)
    v[i] = (float)((double)(nm__rand_at(3, stream, i) >> 11) * 0x1p-52 - 1);
}

static void moments_for(struct run *r, enum nm__optim_kind kind) {
  enum nm__optim_kind *k = malloc(sizeof *k * (size_t)(r->p.n + 1));
  for (int i = 0; i < r->p.n; i++) k[i] = i % 3 == 2 ? NM__MUON : kind;
  assert_int_equal(nm__moments_make(&r->p, k, &r->s, NULL), 0);
  free(k);
}

static void change(struct run *r, int64_t step) {
  r->c.step = step;
  r->c.samples = 7 * step;
  r->c.loss = 1.0 / (double)(step + 1);
  for (int i = 0; i < r->p.n; i++) {
    size_t n = (size_t)(r->p.v[i].rows * r->p.v[i].cols);
    fill(r->p.values + r->p.v[i].at, n, (uint64_t)(1000 * step + i));
    fill(r->s.v[i], r->s.n[i], (uint64_t)(1000 * step + 500 + i));
  }
}

static void open_run(struct run *r, bool adapters) {
  static const char *const some[] = {"blk.*", "output_norm.*"}, *const targets[] = {"attn_q"};
  struct nm__gguf *g;
  nm_err err = {0};
  *r = (struct run){.base = open_model(PLANTED),
                    .c = {.seed = 1ull << 63 | 5, .tokens = 12, .best = -1.5, .best_step = 3,
                          .recipe = "0123456789abcdef0123456789abcdef",
                          .base = "00000000000000000000000000000001", .note = "caf\xc3\xa9"}};
  if (adapters) {
    struct nm__lora_opts o = {2, 4, targets, 1};
    assert_int_equal(nm__params_lora(&r->p, r->base, &o, 1, &err), 0);
  } else if (nm__params_make(r->base->g, some, 2, &g, &r->p, &err) ||
             nm__model_from(g, &r->m, &err)) {
    fail_msg("%s", err.text);
  }
  moments_for(r, NM__ADAMW);
  change(r, 1);
}

static const struct nm__gguf *container(const struct run *r) { return r->m ? r->m->g : r->base->g; }

static void close_run(struct run *r) {
  nm__moments_done(&r->s, &r->p);
  nm_model_close(r->m);
  nm__params_done(&r->p);
  nm_model_close(r->base);
}

static int save(const struct run *r, struct nm__keep keep, nm_err *err) {
  return nm__ckpt_save(dir, &r->c, container(r), &r->p, &r->s, &keep, err);
}

static void must_save(const struct run *r) {
  nm_err err = {0};
  if (save(r, (struct nm__keep){0}, &err)) fail_msg("%s", err.text);
}

/* The hash of all that a run holds. */
static void hash_of(const struct run *r, char hex[33]) {
  struct nm__buf b;
  nm__buf_init(&b, SIZE_MAX / 2);
  nm__buf_put(&b, r->p.values, r->p.n_floats * sizeof(float));
  for (int i = 0; i < r->p.n; i++) nm__buf_put(&b, r->s.v[i], r->s.n[i] * sizeof(float));
  nm__hash_hex(b.s, b.len, hex);
  nm__buf_done(&b);
}

static char *file(int64_t step, const char *end) { return nm__series_file(dir, step, end); }

static size_t n_steps(const char *end) {
  int64_t *v;
  size_t n;
  assert_int_equal(nm__series_list(dir, end, &v, &n, NULL), 0);
  free(v);
  return n;
}

/* ---- there and back ---------------------------------------------------------------- */

static void back(bool adapters) {
  struct run r;
  struct nm__ckpt_found f;
  nm_err err = {0};
  char was[33], is[33];
  open_run(&r, adapters);
  hash_of(&r, was);
  must_save(&r);
  change(&r, 2);
  assert_int_equal(nm__ckpt_load(dir, -1, &r.c, &r.p, &r.s, &f, &err), 0);
  hash_of(&r, is);
  assert_string_equal(was, is);
  assert_true(f.at.step == 1 && f.at.samples == 7 && f.at.seed == r.c.seed && !f.skipped[0]);
  assert_true(f.at.loss == 0.5 && f.at.best == -1.5 && f.at.best_step == 3 && f.at.tokens == 12);
  assert_string_equal(f.at.note, r.c.note);
  close_run(&r);
}

static void there_and_back(void **state) { (void)state; back(false); }
static void adapters_too(void **state) { (void)state; back(true); }

/* The same run saves the same bytes, also over a pair that is there. */
static void same_bytes(void **state) {
  (void)state;
  struct run r;
  char hex[2][2][33];
  open_run(&r, false);
  for (int k = 0; k < 2; k++) {
    must_save(&r);
    for (int e = 0; e < 2; e++) {
      char *path = file(1, e ? "state" : "gguf");
      assert_int_equal(nm__hash_file(path, hex[k][e], NULL), 0);
      free(path);
    }
  }
  assert_memory_equal(hex[0], hex[1], sizeof hex[0]);
  close_run(&r);
}

/* The model of a checkpoint is the model: its logits are those of the run's, and it has no tensor
 * more than the base. */
static void is_a_model(void **state) {
  (void)state;
  struct run r;
  nm_err err = {0};
  char path[2][100], *out;
  open_run(&r, false);
  must_save(&r);
  change(&r, 20), must_save(&r);
  snprintf(path[0], sizeof path[0], "%s@20", dir);
  snprintf(path[1], sizeof path[1], "%s@latest", dir);
  for (int i = 0; i < 2; i++) {
    nm_model *m = open_model(path[i]);
    assert_int_equal(m->g->n_tensors, r.base->g->n_tensors);
    for (int k = 0; k < r.p.n; k++) {
      const struct nm__gguf_tensor *t = nm__gguf_tensor(m->g, r.p.v[k].name);
      assert_memory_equal(t->data, r.p.values + r.p.v[k].at, t->bytes);
    }
    nm_model_close(m);
  }
  nm_model *m;
  snprintf(path[0], sizeof path[0], "%s@7", dir);
  assert_int_equal(nm_model_open(path[0], &m, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "it has 1 and 20, and 'latest'"));
  snprintf(path[0], sizeof path[0], "%s@last", dir);
  assert_int_equal(nm_model_open(path[0], &m, &err), NM_EFORMAT);
  assert_int_equal(nm_model_open("/nowhere@5", &m, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "/nowhere@5: there are no models in /nowhere/checkpoints"));
  assert_int_equal(nm__series_path("a@b.gguf", &out, &err), 0);
  assert_null(out);
  close_run(&r);
}

/* ---- which stay ----------------------------------------------------------------------- */

static void old_ones_go(void **state) {
  (void)state;
  struct run r;
  int64_t *v;
  size_t n;
  nm_err err = {0};
  open_run(&r, false);
  char *folder = nm__path_join(dir, NM__SERIES_FOLDER), *tmp = nm__path_join(
      folder, "step-000030.gguf.tmp.123"), *mine = nm__path_join(folder, "step-x.txt");
  assert_int_equal(nm__mkdirs(folder, NULL), 0);
  assert_int_equal(nm__write_file(tmp, "half", 4, NULL), 0);
  assert_int_equal(nm__write_file(mine, "notes", 5, NULL), 0);
  for (int step = 10; step <= 90; step += 10) {
    change(&r, step);
    if (save(&r, (struct nm__keep){2, 40}, &err)) fail_msg("%s", err.text);
  }
  assert_int_equal(nm__series_list(dir, "state", &v, &n, NULL), 0);
  assert_int_equal(n, 3);          /* 80 is both */
  assert_true(v[0] == 40 && v[1] == 80 && v[2] == 90 && n_steps("gguf") == 3);
  free(v);
  assert_true(!nm__exists(tmp) && nm__exists(mine));
  change(&r, 50);                  /* begun again from further back: newer ones are not touched */
  if (save(&r, (struct nm__keep){1, 0}, &err)) fail_msg("%s", err.text);
  assert_int_equal(nm__series_list(dir, "state", &v, &n, NULL), 0);
  assert_true(n == 3 && v[0] == 50 && v[1] == 80 && v[2] == 90);
  free(v), free(folder), free(tmp), free(mine);
  close_run(&r);
}

/* ---- damage ----------------------------------------------------------------------------- */

/* Writes bytes to the file of a step; the pair must be refused, with a sentence, and the older
 * one taken. */
static void refused(struct run *r, const char *end, const void *bytes, size_t n) {
  struct nm__ckpt_found f;
  struct nm__ckpt c;
  nm_err err = {0};
  char *path = file(2, end);
  assert_int_equal(nm__write_file(path, bytes, n, NULL), 0);
  assert_int_not_equal(nm__ckpt_check(dir, 2, &c, &err), 0);
  assert_true(strlen(err.text) > 20);
  assert_int_equal(nm__ckpt_load(dir, -1, &r->c, &r->p, &r->s, &f, &err), 0);
  assert_true(f.at.step == 1 && f.skipped[0]);
  free(path);
}

static void cut_short(void **state) {
  (void)state;
  struct run r;
  struct nm__ckpt c;
  int cuts = 0;
  open_run(&r, false);
  must_save(&r);
  change(&r, 2), must_save(&r);
  for (int e = 0; e < 2; e++) {
    const char *end = e ? "state" : "gguf";
    char *path = file(2, end);
    struct nm__map m;
    assert_int_equal(nm__map_open(path, &m, NULL), 0);
    uint8_t *all = malloc(m.size);
    size_t n = m.size;
    memcpy(all, m.data, n);
    nm__map_close(&m);
    for (size_t at = 0; at < n; at += 4096, cuts++) refused(&r, end, all, at);
    refused(&r, end, all, n - 1);
    refused(&r, end, "not a model at all", 18);
    assert_int_equal(nm__write_file(path, all, n, NULL), 0);
    assert_int_equal(nm__ckpt_check(dir, 2, &c, NULL), 0);
    free(all);
    free(path);
  }
  print_message("%d cuts\n", cuts);
  close_run(&r);
}

/* Files of two different pairs do not go together; a half alone does not count. */
static void halves(void **state) {
  (void)state;
  struct run r;
  struct nm__ckpt_found f;
  nm_err err = {0};
  open_run(&r, false);
  assert_int_equal(nm__ckpt_load(dir, -1, &r.c, &r.p, &r.s, &f, &err), NM_EFORMAT);
  assert_true(f.none);
  must_save(&r);
  change(&r, 2), must_save(&r);
  char *a[] = {file(1, "state"), file(2, "state"), file(2, "gguf"), file(3, "state")};
  struct nm__map m;
  assert_int_equal(nm__map_open(a[0], &m, NULL), 0);
  refused(&r, "state", m.data, m.size);                  /* step 1's state under step 2's name */
  nm__map_close(&m);
  assert_int_equal(rename(a[1], a[3]), 0);               /* a state without a model */
  assert_int_equal(nm__ckpt_load(dir, -1, &r.c, &r.p, &r.s, &f, &err), 0);
  assert_true(f.at.step == 1 && strstr(f.skipped, "step-000003"));
  unlink(a[3]);                                          /* a model without a state */
  assert_int_equal(nm__ckpt_load(dir, -1, &r.c, &r.p, &r.s, &f, &err), 0);
  assert_true(f.at.step == 1 && nm__exists(a[2]));
  assert_int_equal(nm__ckpt_load(dir, 2, &r.c, &r.p, &r.s, &f, &err), NM_EFORMAT);
  assert_int_equal(nm__write_file(a[0], "", 0, NULL), 0);
  assert_int_equal(nm__ckpt_load(dir, -1, &r.c, &r.p, &r.s, &f, &err), NM_EFORMAT);
  assert_true(!f.none && strstr(err.text, "none of 1 checkpoints is whole"));
  for (int i = 0; i < 4; i++) free(a[i]);
  close_run(&r);
}

/* One to four bytes anywhere: refused, or what is read means the same. */
static void mutations(void **state) {
  (void)state;
  struct run r;
  struct nm__map m;
  struct nm__ckpt_state s, was;
  struct nm__rng rng = {11, 1, 0};
  nm_err err = {0};
  int taken = 0;
  open_run(&r, true);
  must_save(&r);
  char *path = file(1, "state");
  assert_int_equal(nm__map_open(path, &m, NULL), 0);
  assert_int_equal(nm__ckpt_state_open(path, &was, NULL), 0);
  uint8_t *bytes = malloc(m.size);
  for (int i = 0; i < 10000; i++) {
    memcpy(bytes, m.data, m.size);
    for (uint64_t k = 1 + nm__rng_below(&rng, 4); k; k--) {
      bool head = nm__rng_below(&rng, 3);                /* most meaning lies in the keys */
      size_t n = head && m.size > 1600 ? 1600 : m.size;
      bytes[nm__rng_below(&rng, n)] = (uint8_t)nm__rng_u64(&rng);
    }
    size_t n = i % 5 ? m.size : (size_t)nm__rng_below(&rng, m.size + 1);
    if (nm__ckpt_state_parse("mutated", bytes, n, &s, &err)) continue;
    assert_string_equal(s.hash, was.hash);
    assert_string_equal(s.model, was.model);
    nm__ckpt_state_close(&s);
    taken++;
  }
  print_message("10000 mutations: %d changed nothing that counts\n", taken);
  assert_true(taken < 2000);
  nm__ckpt_state_close(&was);
  nm__map_close(&m);
  free(bytes);
  free(path);
  close_run(&r);
}

/* Damage that comes with fitting hashes is found by what it says. */
static void strangers(void **state) {
  (void)state;
  struct run r, other;
  struct nm__ckpt_found f;
  nm_err err = {0};
  char was[33], is[33];
  struct { size_t at; const char *value, *says; } v[] = {
      {offsetof(struct nm__ckpt, recipe), "ff23456789abcdef0123456789abcdef", "another recipe"},
      {offsetof(struct nm__ckpt, base), "ff000000000000000000000000000001", "another model"},
      {offsetof(struct nm__ckpt, data), "ff23456789abcdef0123456789abcdef", "other data"},
  };
  open_run(&r, false);
  must_save(&r);
  change(&r, 2);
  hash_of(&r, was);
  for (int i = 0; i < 3; i++) {
    struct nm__ckpt want = r.c;
    memcpy((char *)&want + v[i].at, v[i].value, 33);
    assert_int_equal(nm__ckpt_load(dir, -1, &want, &r.p, &r.s, &f, &err), NM_EUSAGE);
    assert_non_null(strstr(err.text, v[i].says));
  }
  struct nm__ckpt want = r.c;
  want.seed = 4;
  assert_int_equal(nm__ckpt_load(dir, -1, &want, &r.p, &r.s, &f, &err), NM_EUSAGE);
  assert_non_null(strstr(err.text, "seed 9223372036854775813, not 4"));
  hash_of(&r, is);
  assert_string_equal(was, is);
  open_run(&other, true);                                /* adapters: other tensors are learned */
  assert_int_equal(nm__ckpt_load(dir, -1, &r.c, &other.p, &other.s, &f, &err), NM_EUSAGE);
  assert_non_null(strstr(err.text, "learned tensor"));
  close_run(&other);
  nm__moments_done(&r.s, &r.p);
  moments_for(&r, NM__SGD);                              /* another optimiser */
  assert_int_equal(nm__ckpt_load(dir, 1, NULL, &r.p, &r.s, &f, &err), NM_EUSAGE);
  assert_non_null(strstr(err.text, "numbers of the optimiser"));
  close_run(&r);
}

/* ---- a full disk ------------------------------------------------------------------------- */

static int n_files(void) {
  char *folder = nm__path_join(dir, NM__SERIES_FOLDER);
  DIR *d = opendir(folder);
  int n = 0;
  assert_non_null(d);
  for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
  closedir(d);
  free(folder);
  return n;
}

/* No file may grow beyond `most`: each write that would fails as on a full disk. Whatever fails,
 * the older pair stays and nothing new is left behind. */
static void disk_full(void **state) {
  (void)state;
  struct run r;
  struct nm__ckpt c;
  struct rlimit was, now;
  nm_err err = {0};
  struct stat size[2];
  int failed = 0;
  open_run(&r, false);
  must_save(&r);
  change(&r, 2);
  char *path[] = {file(1, "gguf"), file(1, "state")};
  for (int e = 0; e < 2; e++) assert_int_equal(stat(path[e], &size[e]), 0);
  rlim_t whole = (rlim_t)(size[0].st_size > size[1].st_size ? size[0].st_size : size[1].st_size);
  signal(SIGXFSZ, SIG_IGN);
  getrlimit(RLIMIT_FSIZE, &was);
  for (rlim_t most = 0; most < whole; most += whole / 40) {
    now = (struct rlimit){most, was.rlim_max};
    setrlimit(RLIMIT_FSIZE, &now);
    int st = save(&r, (struct nm__keep){1, 0}, &err);
    setrlimit(RLIMIT_FSIZE, &was);
    assert_int_equal(st, NM_EFAIL);
    assert_non_null(strstr(err.text, "File too large"));
    assert_int_equal(n_files(), 2);
    assert_int_equal(nm__ckpt_check(dir, 1, &c, NULL), 0);
    failed++;
  }
  assert_true(failed >= 40);
  must_save(&r);                                         /* there is room again */
  assert_int_equal(nm__ckpt_check(dir, 2, &c, NULL), 0);
  free(path[0]), free(path[1]);
  close_run(&r);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, clear_folder)
  const struct CMUnitTest tests[] = {
      TEST(there_and_back), TEST(adapters_too), TEST(same_bytes), TEST(is_a_model),
      TEST(old_ones_go),    TEST(cut_short),    TEST(halves),     TEST(mutations),
      TEST(strangers),      TEST(disk_full),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
