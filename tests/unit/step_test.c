/* step_test.c - the gradient of whole models: along a random direction of every tensor against
 * the difference of the loss, for families of every kind; the same bits for threads, kernels and
 * recomputed blocks; two passes over one cache; rows injected; adapters beside a quantised base. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "direction.h"
#include "learn/learn.h"
#include "model_run.h"

enum { N_SEQ = 3, LEN = 11 };
static int32_t ids[N_SEQ][LEN];
static float weight[N_SEQ][LEN];
static struct nm__sample sample[N_SEQ];
static const struct nm__sample *batch[N_SEQ];

static void make_batch(int V) {
  for (int s = 0; s < N_SEQ; s++) {
    for (int i = 0; i < LEN; i++) {
      ids[s][i] = (int32_t)(nm__rand_at(5, (uint64_t)s, (uint64_t)i) % (uint64_t)V);
      weight[s][i] = i % 3 == 1 ? 0 : 0.5f + 0.25f * (float)(i % 4);
    }
    sample[s] = (struct nm__sample){.ids = ids[s], .weight = weight[s], .n = LEN - s};
    batch[s] = &sample[s];
  }
}

struct world {
  nm_model *base, *m;
  struct nm__params p;
  struct nm__stepper s;
};

static void open_world(struct world *w, const char *path, int threads, const char *kernels) {
  static const char *const all[] = {"*"};
  struct nm__gguf *g;
  nm_err err = {0};
  w->base = open_model(path);
  if (nm__params_make(w->base->g, all, 1, &g, &w->p, &err) || nm__model_from(g, &w->m, &err) ||
      nm__stepper_init(&w->s, w->m, &w->p, threads, kernels, &err))
    fail_msg("%s", err.text);
  make_batch(w->m->V);
}

static void close_world(struct world *w) {
  nm__stepper_done(&w->s);
  nm_model_close(w->m);
  nm__params_done(&w->p);
  nm_model_close(w->base);
}

static double loss_of(struct world *w, int slots, bool backward) {
  double loss, total;
  nm_err err = {0};
  if (nm__step_batch(&w->s, batch, N_SEQ, slots, NULL, 0, backward, &loss, &total, &err))
    fail_msg("%s", err.text);
  return loss;
}

static double loss_alone(void *w) { return loss_of(w, 1, false); }

/* The worst tensor. Where a router may come to choose another expert within the step, a smaller
 * one decides. */
static double worst_direction(struct world *w, const char **where) {
  double worst = 0;
  loss_of(w, 1, true);
  float *g = malloc(sizeof *g * w->p.n_floats), *was = malloc(sizeof *was * w->p.n_floats);
  memcpy(g, w->s.grad, sizeof *g * w->p.n_floats);
  memcpy(was, w->p.values, sizeof *was * w->p.n_floats);
  for (int t = 0; t < w->p.n; t++) {
    const struct nm__learned *v = &w->p.v[t];
    double e = direction(&w->p, v, g + v->at, was + v->at, w->m->moe.n ? 3e-4 : 4e-3, loss_alone,
                         w);
    if (w->m->moe.n && e > 2e-3)
      e = direction(&w->p, v, g + v->at, was + v->at, 5e-5, loss_alone, w);
    if (!(e <= worst)) worst = e, *where = v->name;
  }
  free(g);
  free(was);
  return worst;
}

static const char *const families[] = {
    "../shared/data/models/arch/llama/model.gguf",   "../shared/data/models/arch/qwen2/model.gguf",
    "../shared/data/models/arch/qwen3/model.gguf",   "../shared/data/models/arch/gemma2/model.gguf",
    "../shared/data/models/arch/gemma3/model.gguf",  "../shared/data/models/arch/gpt2/model.gguf",
    "../shared/data/models/arch/gptneox/model.gguf", "../shared/data/models/arch/olmo2/model.gguf",
    "../shared/data/models/arch/phi3/model.gguf",    "../shared/data/reference/falcon/model.gguf",
    "../shared/data/models/arch/mixtral/model.gguf", "../shared/data/reference/qwen2moe/model.gguf",
    "../shared/data/models/stories260K/stories260K.Q8_0.gguf",
};

static void directions(void **state) {
  (void)state;
  int seen = 0;
  for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
    struct world w;
    const char *where = "", *kind;
    if (!nm__exists(families[i])) continue;
    open_world(&w, families[i], 2, NULL);
    double e = worst_direction(&w, &where);
    kind = w.m->arch->name;
    print_message("%-9s %3d tensors, worst direction %.1e (%s)\n", kind, w.p.n, e, where);
    assert_true(e < 5e-3);
    seen++;
    close_world(&w);
  }
  if (!seen) skip();
}

/* ---- the same bits ------------------------------------------------------------- */

static float *gradient(const char *path, int threads, const char *kernels, int slots, bool again,
                       size_t *n) {
  struct world w;
  open_world(&w, path, threads, kernels);
  w.s.again = again;
  loss_of(&w, slots, true);
  float *g = malloc(sizeof *g * w.p.n_floats);
  memcpy(g, w.s.grad, sizeof *g * w.p.n_floats);
  *n = w.p.n_floats;
  close_world(&w);
  return g;
}

static void same_bits(void **state) {
  (void)state;
  static const char *const paths[] = {PLANTED, "../shared/data/models/arch/mixtral/model.gguf",
                                      "../shared/data/models/arch/gemma2/model.gguf"};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    size_t n, m;
    if (!nm__exists(paths[i])) continue;
    for (int slots = 1; slots <= 4; slots *= 2) {
      float *a = gradient(paths[i], 1, "portable", slots, false, &n);
      for (int k = 0; nm__kern_at(k); k++)
        for (int threads = 1; threads <= 3; threads++) {
          float *b = gradient(paths[i], threads, nm__kern_at(k)->name, slots, threads == 2, &m);
          assert_int_equal(n, m);
          assert_memory_equal(a, b, n * sizeof *a);
          free(b);
        }
      free(a);
    }
  }
}

/* Slots change the order of a sum, not the sum. */
static void slots_agree(void **state) {
  (void)state;
  size_t n;
  float *a = gradient(PLANTED, 2, NULL, 1, false, &n), *b = gradient(PLANTED, 2, NULL, 4, false, &n);
  double off = 0, size = 0;
  for (size_t i = 0; i < n; i++)
    off += pow((double)a[i] - (double)b[i], 2), size += pow((double)a[i], 2);
  print_message("1 and 4 slots: %.1e\n", sqrt(off / size));
  assert_true(size > 0 && sqrt(off / size) < 1e-5);
  free(a);
  free(b);
}

/* ---- adapters -------------------------------------------------------------------- */

/* Beside a quantised base: before the first step the loss is the base's, bit for bit; then only
 * B has a gradient, and ten steps of it lower the loss. */
static void adapters(void **state) {
  (void)state;
  static const char *const targets[] = {"attn_q", "attn_v", "ffn_down"};
  const char *path = "../shared/data/models/stories260K/stories260K.Q8_0.gguf";
  if (!nm__exists(path)) path = PLANTED;
  nm_model *m = open_model(path);
  struct nm__params none = {0}, p = {0};
  struct nm__stepper s;
  nm_err err = {0};
  double base, loss, first = 0, total;
  make_batch(m->V);
  none.values = calloc(16, sizeof(float));
  assert_int_equal(nm__stepper_init(&s, m, &none, 2, NULL, &err), 0);
  assert_int_equal(nm__step_batch(&s, batch, N_SEQ, 1, NULL, 0, false, &base, &total, &err), 0);
  nm__stepper_done(&s);
  struct nm__lora_opts o = {4, 8, targets, 3};
  if (nm__params_lora(&p, m, &o, 1, &err)) fail_msg("%s", err.text);
  assert_int_equal(nm__stepper_init(&s, m, &p, 2, NULL, &err), 0);
  float *state_of = calloc(2 * p.n_floats, sizeof(float));
  struct nm__optim adamw = {NM__ADAMW, 0.9f, 0.95f, 1e-8f};
  for (int t = 1; t <= 10; t++) {
    if (nm__step_batch(&s, batch, N_SEQ, 2, NULL, 0, true, &loss, &total, &err))
      fail_msg("%s", err.text);
    if (t == 1) first = loss;
    for (int k = 0; k < p.n && t == 1; k++)
      for (int64_t i = 0; i < p.v[k].rows * p.v[k].cols; i++)
        assert_true(k % 2 || s.grad[p.v[k].at + (size_t)i] == 0);
    for (int k = 0; k < p.n; k++)
      nm__optim_step(&s.ops, &adamw, p.values + p.v[k].at, s.grad + p.v[k].at,
                     state_of + 2 * p.v[k].at, p.v[k].rows, p.v[k].cols, 0.02f, 0, t);
  }
  print_message("adapters beside %s: %.4f, then %.4f\n", m->types, first, loss);
  assert_true(fabs(first - base) < 1e-6 && loss < first - 0.05);
  free(state_of);
  nm__stepper_done(&s);
  nm__params_done(&p);
  nm__params_done(&none);
  nm_model_close(m);
}

/* ---- passes over one cache, rows from outside ---------------------------------------- */

static bool logits_wanted(void *arg, int site, int layer) {
  (void)arg, (void)layer;
  return site == NM__S_LOGITS;
}

struct passes { struct nm__ops *o; int32_t target[LEN]; int at; struct nm__t loss; };

static void add_loss(void *arg, int site, int layer, struct nm__t *x, const int32_t *rows,
                     const struct nm__route *route) {
  (void)site, (void)layer, (void)rows, (void)route;
  struct passes *p = arg;
  struct nm__op_args a = {.x = *x, .ids = p->target + p->at};
  a = (struct nm__op_args){.x = nm__op(p->o, NM__OP_CROSS_ENTROPY, &a)};
  struct nm__t t = nm__op(p->o, NM__OP_WSUM, &a);
  if (p->loss.rows) t = nm__op(p->o, NM__OP_ADD, &(struct nm__op_args){.x = p->loss, .y = t});
  p->loss = t;
  p->at += (int)x->rows;
}

/* The sequence in pieces over one cache on one tape; dembd gets the gradient of its embeddings,
 * which come from outside (a leaf). Returns the loss. */
static double in_pieces(struct world *w, const int *cut, int n_cuts, const float *embd,
                        float *dembd) {
  static const int32_t head[LEN] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  nm_model *m = w->m;
  struct nm__stepper *s = &w->s;
  struct passes p = {.o = &s->ops};
  struct nm__visitor vis = {logits_wanted, add_loss, NULL, &p};
  struct nm__span span[3];
  nm__tape_reset(&s->ops);
  nm__arena_done(&s->ops.arena);
  nm__kv_done(&s->kv);
  assert_int_equal(nm__arena_init(&s->ops.arena, 1 << 24, NULL), 0);
  assert_int_equal(nm__kv_init(&s->kv, m->L, LEN, (int64_t)m->K * m->hd, NULL), 0);
  assert_int_equal(nm__kv_init_grad(&s->kv, NULL), 0);
  s->ops.mode = NM__RECORD;
  s->ops.tape = &s->tape;
  memset(s->grad, 0, sizeof(float) * w->p.n_floats);
  memset(dembd, 0, sizeof(float) * (size_t)(LEN * m->D));
  for (int i = 0; i < LEN; i++) p.target[i] = ids[0][(i + 1) % LEN];
  for (int c = 0, at = 0; c < n_cuts; at += cut[c++]) {
    struct nm__t x = {.d = (float *)(uintptr_t)embd + at * m->D, .rows = cut[c], .cols = m->D};
    span[c] = (struct nm__span){.first = at, .n = cut[c]};
    struct nm__forward f = {.m = m, .ops = &s->ops, .kv = &s->kv, .spans = &span[c], .n_spans = 1,
                            .T = cut[c], .max_keys = at + cut[c], .n_ctx = m->n_ctx,
                            .ids = ids[0] + at, .vis = &vis, .last_layer = m->L - 1,
                            .head_rows = head, .n_head_rows = cut[c], .head = true,
                            .inject = nm__tape_leaf(&s->ops, x, dembd + at * m->D),
                            .inject_at = head, .n_inject = cut[c]};
    if (nm__forward(&f)) fail_msg("%s", s->ops.err.text);
  }
  nm__tape_back(&s->ops, p.loss, 1.0f);
  if (s->ops.err.status) fail_msg("%s", s->ops.err.text);
  return (double)p.loss.d[0];
}

static double distance(const float *a, const float *b, size_t n) {
  double off = 0, size = 0;
  for (size_t i = 0; i < n; i++)
    off += pow((double)a[i] - (double)b[i], 2), size += pow((double)a[i], 2);
  return sqrt(off / size);
}

static void passes_and_rows(void **state) {
  (void)state;
  const char *path = "../shared/data/models/arch/qwen2/model.gguf";
  struct world w;
  open_world(&w, nm__exists(path) ? path : PLANTED, 2, NULL);
  size_t n = (size_t)(LEN * w.m->D);
  float *embd = malloc(n * sizeof *embd), *one = malloc(n * sizeof *one);
  float *three = malloc(n * sizeof *three), *g = malloc(sizeof *g * w.p.n_floats);
  for (size_t i = 0; i < n; i++) embd[i] = (float)unit(77, i);
  double a = in_pieces(&w, (const int[]){LEN}, 1, embd, one);
  memcpy(g, w.s.grad, sizeof *g * w.p.n_floats);
  double b = in_pieces(&w, (const int[]){4, 1, 6}, 3, embd, three);
  print_message("one pass and three: loss %.7f %.7f, gradients %.1e, of injected rows %.1e\n", a, b,
                distance(g, w.s.grad, w.p.n_floats), distance(one, three, n));
  assert_true(fabs(a - b) < 1e-5 * a);
  assert_true(distance(g, w.s.grad, w.p.n_floats) < 2e-5 && distance(one, three, n) < 2e-5);
  double gd = 0, gg = 0, dd = 0, f[2], h = 2e-3;         /* a direction of the injected rows */
  for (size_t i = 0; i < n; i++) gd += (double)one[i] * unit(78, i), dd += pow(unit(78, i), 2);
  for (size_t i = 0; i < n; i++) gg += pow((double)one[i], 2);
  for (int side = 0; side < 2; side++) {
    for (size_t i = 0; i < n; i++)
      embd[i] = (float)(unit(77, i) + (side ? -h : h) * unit(78, i));
    f[side] = in_pieces(&w, (const int[]){LEN}, 1, embd, three);
  }
  double e = fabs((f[0] - f[1]) / (2 * h) - gd) / sqrt(gg * dd);
  print_message("a direction of the injected rows: %.1e\n", e);
  assert_true(e < 2e-3);
  nm__tape_reset(&w.s.ops);
  free(embd), free(one), free(three), free(g);
  close_world(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(directions),
      cmocka_unit_test(same_bits),
      cmocka_unit_test(slots_agree),
      cmocka_unit_test(adapters),
      cmocka_unit_test(passes_and_rows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
