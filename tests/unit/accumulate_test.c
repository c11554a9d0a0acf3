/* accumulate_test.c - a batch in one pass or in two or four that are added up: one hash, and the same
 * with 1, 2 and 3 threads. The slots are the leaves of a fixed binary tree of sums; a pass takes a
 * whole branch of it, so the order of the additions stays. Samples are of one length, so that a pass
 * of n / A samples divides by a power of two less, which is exact. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "learn/learn.h"
#include "model_run.h"

enum { N = 8, LEN = 9, SLOTS = 4 };
static int32_t ids[N][LEN];
static float weight[LEN];
static struct nm__sample sample[N];
static const struct nm__sample *batch[N];

/* The gradient of the batch in `passes`, each of SLOTS / passes slots: the sums of the passes join
 * as the slots do, and the whole is divided once. */
static void gradient(struct nm__stepper *s, int passes, float *out) {
  size_t n = s->p->n_floats;
  float *branch[SLOTS] = {0};
  double loss, total;
  nm_err err = {0};
  for (int i = 0; i < passes; i++) {
    branch[i] = calloc(n, sizeof **branch);
    if (nm__step_batch(s, batch + i * N / passes, N / passes, SLOTS / passes, NULL, 0, true, &loss,
                       &total, &err))
      fail_msg("%s", err.text);
    memcpy(branch[i], s->grad, n * sizeof **branch);
  }
  for (int wide = 1; wide < passes; wide *= 2)
    for (int i = 0; i + wide < passes; i += 2 * wide)
      for (size_t k = 0; k < n; k++) branch[i][k] += branch[i + wide][k];
  for (size_t k = 0; k < n; k++) out[k] = branch[0][k] / (float)passes;
  for (int i = 0; i < passes; i++) free(branch[i]);
}

static void hash_of(const char *path, int threads, int passes, char hex[33]) {
  static const char *const all[] = {"*"};
  struct nm__stepper s;
  struct nm__params p;
  struct nm__gguf *g;
  nm_model *m;
  nm_err err = {0};
  nm_model *base = open_model(path);
  if (nm__params_make(base->g, all, 1, &g, &p, &err) || nm__model_from(g, &m, &err) ||
      nm__stepper_init(&s, m, &p, threads, NULL, &err))
    fail_msg("%s", err.text);
  for (int i = 0; i < N; i++) {
    for (int k = 0; k < LEN; k++)
      ids[i][k] = (int32_t)(nm__rand_at(3, (uint64_t)i, (uint64_t)k) % (uint64_t)m->V);
    sample[i] = (struct nm__sample){.ids = ids[i], .weight = weight, .n = LEN};
    batch[i] = &sample[i];
  }
  float *grad = calloc(p.n_floats, sizeof *grad);
  gradient(&s, passes, grad);
  double size = 0;
  for (size_t k = 0; k < p.n_floats; k++) size += (double)grad[k] * (double)grad[k];
  assert_true(size > 1e-6 && size < 1e9);
  nm__hash_hex(grad, p.n_floats * sizeof *grad, hex);
  free(grad);
  nm__stepper_done(&s);
  nm_model_close(m);
  nm__params_done(&p);
  nm_model_close(base);
}

static void one_hash(void **state) {
  (void)state;
  static const char *const models[] = {PLANTED, SHARED "reference/gpt2/model.gguf",
                                       SHARED "reference/gemma2/model.gguf",
                                       SHARED "reference/mixtral/model.gguf"};
  for (int i = 0; i < LEN; i++) weight[i] = 1;
  for (int i = 0; i < 4; i++) {
    char want[33], is[33];
    if (i && no_shared()) return;
    hash_of(models[i], 1, 1, want);
    for (int threads = 1; threads <= 3; threads++)
      for (int passes = 1; passes <= SLOTS; passes *= 2) {
        hash_of(models[i], threads, passes, is);
        if (strcmp(is, want))
          fail_msg("%s: %d threads, %d passes: another gradient", models[i], threads, passes);
      }
    print_message("measured: %s: threads 1, 2, 3, passes 1, 2, 4: %s\n", models[i], want);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(one_hash)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
