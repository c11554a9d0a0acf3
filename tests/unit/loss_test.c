/* loss_test.c - losses by name: each value against a plain double computation from the logits of
 * the public run; gradients along random directions, also of soft prompts, learned edits and
 * probes; the same bits for threads, kernels; what each loss is for happens in a few steps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "direction.h"
#include "learn/loss.h"
#include "model_file.h"
#include "model_run.h"
#include <unistd.h>
#include "file/npy.h"

/* Random weights, in the form of mistral: rows permuted, two kv heads, a window of 7. */
static char random_path[64], scratch_path[80];

enum { N_SEQ = 8, LEN = 11, LABELS = 3, MOST_W = 4096 };
enum { KEEP, FORGET, PAIRS };
static int32_t ids[N_SEQ][LEN];
static float weight[N_SEQ][LEN], target[N_SEQ][LABELS + MOST_W];
static struct nm__sample sample[N_SEQ], *writable[N_SEQ];
static const struct nm__sample *batch[N_SEQ];

/* Two pairs, in places where plain cuts into slots would part them. */
static void make_batch(const nm_model *m) {
  static const int group[N_SEQ] = {KEEP, PAIRS, PAIRS, FORGET, KEEP, PAIRS, PAIRS, FORGET};
  assert_true(m->D <= MOST_W);
  for (int s = 0; s < N_SEQ; s++) {
    for (int i = 0; i < LEN; i++) {
      ids[s][i] = (int32_t)(nm__rand_at(5, (uint64_t)s, (uint64_t)i) % (uint64_t)m->V);
      weight[s][i] = i % 3 == 1 ? 0 : 0.5f + 0.25f * (float)(i % 4);
    }
    for (int i = 0; i < LABELS + m->D; i++) {
      double u = (double)(nm__rand_at(6, (uint64_t)s, (uint64_t)i) >> 11) * 0x1p-52 - 1;
      target[s][i] = i < LABELS ? u > 0 : (float)u;
    }
    free(sample[s].ref);
    sample[s] = (struct nm__sample){.ids = ids[s], .weight = weight[s], .n = LEN - s % 3,
                                    .group = group[s], .pair = group[s] == PAIRS ? 1 + s / 4 : 0,
                                    .target = target[s], .n_target = LABELS + m->D};
    batch[s] = writable[s] = &sample[s];
  }
}

/* ---- a model that is trained, and the one it came from ------------------- */

struct world { nm_model *base, *m; struct nm__params p; struct nm__stepper s; };

/* All tensors and, with extras, a soft prompt, a vector and a probe; moved away from the base by
 * `away` of each tensor's size. */
static void open_world(struct world *w, const char *path, int threads, const char *kernels,
                       bool prompt, double away) {
  static const char *const all[] = {"*"};
  struct nm__gguf *g;
  nm_err err = {0};
  *w = (struct world){.base = open_model(path)};
  make_batch(w->base);
  int D = w->base->D;
  if (nm__params_make(w->base->g, all, 1, &g, &w->p, &err) ||
      nm__params_add(&w->p, g, "vector", 1, D, &err) ||
      nm__params_add(&w->p, g, "probe.weight", LABELS, D, &err) ||
      nm__params_add(&w->p, g, "probe.bias", 1, LABELS, &err) ||
      (prompt && nm__params_soft(&w->p, g, w->base, 3, NULL, 0, 4, &err)) ||
      nm__model_from(g, &w->m, &err) ||
      nm__stepper_init(&w->s, w->m, &w->p, threads, kernels, &err))
    fail_msg("%s", err.text);
  w->s.frozen = w->base;
  for (int t = 0; t < w->p.n; t++) {
    struct nm__learned *v = &w->p.v[t];
    size_t n = (size_t)(v->rows * v->cols);
    double size = 0;
    for (size_t i = 0; i < n; i++) size += pow((double)w->p.values[v->at + i], 2);
    size = size > 0 ? away * sqrt(size / (double)n) : 0.3;
    for (size_t i = 0; i < n; i++) w->p.values[v->at + i] += (float)(size * unit(40 + v->at, i));
  }
  if (nm__loss_reference(&w->s, writable, N_SEQ, &err)) fail_msg("%s", err.text);
}

static void close_world(struct world *w) {
  nm__stepper_done(&w->s);
  nm_model_close(w->m);
  nm__params_done(&w->p);
  nm_model_close(w->base);
}

static double loss_of(struct world *w, const struct nm__loss_spec *e, int n, int slots,
                      bool backward) {
  double loss, total;
  nm_err err = {0};
  if (nm__step_batch(&w->s, batch, N_SEQ, slots, e, n, backward, &loss, &total, &err))
    fail_msg("%s", err.text);
  return loss;
}

/* One of each; the last is a sum's first part. */
enum { N_SPECS = 13 };
static int specs_of(const struct world *w, struct nm__loss_spec *e) {
  const struct nm__loss_spec all[N_SPECS] = {
      {.name = "cross_entropy", .weight = 1, .group = KEEP},
      {.name = "cross_entropy", .weight = 0.7, .group = NM__ALL_GROUPS, .smooth = 0.2},
      {.name = "gradient_difference", .weight = 1, .group = FORGET, .retain = KEEP},
      {.name = "kl", .weight = 1, .group = KEEP},
      {.name = "kl", .weight = 2, .group = NM__ALL_GROUPS},
      {.name = "dpo", .weight = 1, .group = PAIRS, .beta = 0.3},
      {.name = "dpo", .weight = 1, .group = PAIRS, .beta = 0.1, .smooth = 0.1},
      {.name = "ipo", .weight = 1, .group = PAIRS, .beta = 0.2},
      {.name = "simpo", .weight = 1, .group = PAIRS, .beta = 2, .gamma = 0.5},
      {.name = "npo", .weight = 1, .group = FORGET, .beta = 0.2},
      {.name = "tap_mse", .weight = 1, .group = KEEP, .site = "blk.0.resid_post", .at = "2:5",
       .target_at = LABELS},
      {.name = "tap_cosine", .weight = 1, .group = NM__ALL_GROUPS, .site = "blk.*.attn_out",
       .at = "last", .target_at = LABELS},
      {.name = "tap_probe", .weight = 1, .group = FORGET, .site = "blk.1.mlp_out",
       .probe = nm__params_view(&w->p, "probe.weight"),
       .probe_bias = nm__params_view(&w->p, "probe.bias")}};
  memcpy(e, all, sizeof all);
  return N_SPECS;
}

/* ---- the same in plain double, from the public run ----------------------- */

struct truth { struct rows m, base; int V; };

static struct rows run_all(const nm_model *m, const char *site, nm_edits *edits) {
  nm_seq seq[N_SEQ];
  nm_tap tap = {site, "all"};
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  for (int s = 0; s < N_SEQ; s++) seq[s] = (nm_seq){ids[s], (size_t)sample[s].n};
  nm_request r = {.seqs = seq, .n_seqs = N_SEQ, .taps = &tap, .n_taps = 1, .edits = edits};
  struct rows out = run_rows(e, r);
  nm_engine_free(e);
  return out;
}

static double log_sum(const float *z, int n) {
  double top = (double)z[0], sum = 0;
  for (int i = 1; i < n; i++) top = fmax(top, (double)z[i]);
  for (int i = 0; i < n; i++) sum += exp((double)z[i] - top);
  return top + log(sum);
}

static bool in(const struct nm__loss_spec *e, int s) {
  return e->group == NM__ALL_GROUPS || sample[s].group == e->group;
}
static double softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

/* Of one token: what `cross_entropy` or `kl` makes of it. */
static double of_token(const struct truth *t, const struct nm__loss_spec *e, int s, int k) {
  const float *z = row_of(&t->m, "logits", (size_t)s, k - 1, t->V);
  const float *b = row_of(&t->base, "logits", (size_t)s, k - 1, t->V);
  double lz = log_sum(z, t->V), lb = log_sum(b, t->V), kl = 0, mean = 0;
  for (int i = 0; i < t->V; i++) {
    kl += exp((double)b[i] - lb) * (((double)b[i] - lb) - ((double)z[i] - lz));
    mean += ((double)z[i] - lz) / t->V;
  }
  if (!strcmp(e->name, "kl")) return kl;
  return -(1 - e->smooth) * ((double)z[ids[s][k]] - lz) - e->smooth * mean;
}

static double of_tokens(const struct truth *t, const struct nm__loss_spec *e) {
  double sum = 0, over = 0;
  for (int s = 0; s < N_SEQ; s++)
    for (int k = 1; k < sample[s].n && in(e, s); k++)
      if (weight[s][k] != 0) {
        sum += (double)weight[s][k] * of_token(t, e, s, k);
        over += (double)weight[s][k];
      }
  return sum / over;
}

/* Sum of weighted log pi, less that of the base with `ref`; a mean with `mean`. */
static double sequence(const struct truth *t, int s, bool ref, bool mean) {
  double sum = 0, over = 0;
  for (int k = 1; k < sample[s].n; k++) {
    if (weight[s][k] == 0) continue;
    const float *z = row_of(&t->m, "logits", (size_t)s, k - 1, t->V);
    const float *b = row_of(&t->base, "logits", (size_t)s, k - 1, t->V);
    double lp = (double)z[ids[s][k]] - log_sum(z, t->V);
    if (ref) lp -= (double)b[ids[s][k]] - log_sum(b, t->V);
    sum += (double)weight[s][k] * lp;
    over += (double)weight[s][k];
  }
  return mean ? sum / over : sum;
}

static double of_sequences(const struct truth *t, const struct nm__loss_spec *e) {
  bool simpo = !strcmp(e->name, "simpo"), npo = !strcmp(e->name, "npo");
  double sum = 0, n = 0;
  for (int s = 0; s < N_SEQ; s++) {
    if (!in(e, s)) continue;
    double x = sequence(t, s, !simpo, simpo);
    if (!npo) x -= sequence(t, ++s, !simpo, simpo);
    n++;
    if (npo) sum += 2 / e->beta * softplus(e->beta * x);
    else if (!strcmp(e->name, "ipo")) sum += pow(x - 0.5 / e->beta, 2);
    else sum += (1 - e->smooth) * softplus(-(e->beta * x - e->gamma)) +
                e->smooth * softplus(e->beta * x - e->gamma);
  }
  return sum / n;
}

static double of_row(const struct world *w, const struct nm__loss_spec *e, int s, const float *a) {
  int D = w->m->D;
  const float *y = sample[s].target + e->target_at;
  const float *pw = (const float *)(const void *)e->probe.data;
  const float *pb = (const float *)(const void *)e->probe_bias.data;
  double xx = 0, yy = 0, xy = 0, off = 0, bce = 0;
  for (int i = 0; i < D && !pw; i++) {
    xx += pow((double)a[i], 2), yy += pow((double)y[i], 2), xy += (double)a[i] * (double)y[i];
    off += pow((double)a[i] - (double)y[i], 2);
  }
  for (int k = 0; k < LABELS && pw; k++) {
    double z = (double)pb[k];
    for (int i = 0; i < D; i++) z += (double)pw[k * D + i] * (double)a[i];
    bce += (softplus(z) - z * (double)y[k]) / LABELS;
  }
  return pw ? bce : !strcmp(e->name, "tap_mse") ? off / D : 1 - xy / sqrt(xx * yy);
}

static double of_places(const struct world *w, const struct nm__loss_spec *e, nm_edits *edits) {
  struct rows r = run_all(w->m, e->site, edits);
  double sum = 0, n = 0;
  for (size_t i = 0; i < r.n; i++) {
    int s = (int)r.v[i].seq, pos = r.v[i].pos;
    bool here = !e->at || (!strcmp(e->at, "last") ? pos == sample[s].n - 1 : pos >= 2 && pos < 5);
    if (!in(e, s) || !here) continue;
    sum += of_row(w, e, s, r.v[i].v);
    n++;
  }
  rows_done(&r);
  return sum / n;
}

static double plain(const struct world *w, const struct truth *t, const struct nm__loss_spec *e,
                    nm_edits *edits) {
  if (!strncmp(e->name, "tap_", 4)) return of_places(w, e, edits);
  if (!strcmp(e->name, "cross_entropy") || !strcmp(e->name, "kl")) return of_tokens(t, e);
  if (strcmp(e->name, "gradient_difference")) return of_sequences(t, e);
  struct nm__loss_spec forget = {.name = "cross_entropy", .group = e->group}, keep = forget;
  keep.group = e->retain;
  return of_tokens(t, &keep) - of_tokens(t, &forget);
}

static const char *const families[] = {
    random_path, SHARED "models/arch/qwen2/model.gguf", SHARED "models/arch/gemma2/model.gguf",
    SHARED "models/arch/gpt2/model.gguf"};
enum { N_FAMILIES = sizeof families / sizeof *families };

static void values(void **state) {
  (void)state;
  for (int f = 0; f < N_FAMILIES; f++) {
    struct world w;
    struct nm__loss_spec e[N_SPECS];
    if (!nm__exists(families[f])) continue;
    open_world(&w, families[f], 2, NULL, false, 0.1);
    specs_of(&w, e);
    struct truth t = {run_all(w.m, "logits", NULL), run_all(w.base, "logits", NULL), w.m->V};
    double worst = 0, sum = 0;
    for (int i = 0; i < N_SPECS; i++) {
      double want = plain(&w, &t, &e[i], NULL), got = loss_of(&w, &e[i], 1, 1, false);
      double off = fabs(got - e[i].weight * want) / (1 + fabs(want));
      if (off > 2e-5) fail_msg("%s: %s is %.7g, must be %.7g", families[f], e[i].name, got, want);
      if (!(fabs(w.s.seen[0].value - want) <= 2e-5 * (1 + fabs(want)))) fail_msg("%s", e[i].name);
      if (off > worst) worst = off;
      for (int slots = 2; slots <= 8; slots *= 2)
        assert_true(fabs(loss_of(&w, &e[i], 1, slots, false) - got) < 2e-5 * (1 + fabs(got)));
      sum += got;
    }
    double all = loss_of(&w, e, N_SPECS, 2, false);
    print_message("%-9s %d losses, worst value %.1e; their sum %.6g\n", w.m->arch->name, N_SPECS,
                  worst, all);
    assert_true(fabs(all - sum) < 1e-4 * (1 + fabs(sum)));
    rows_done(&t.m), rows_done(&t.base);
    close_world(&w);
  }
}

/* ---- directions ---------------------------------------------------------- */

struct one_loss { struct world *w; const struct nm__loss_spec *e; };

static double loss_alone(void *arg) {
  struct one_loss *l = arg;
  return loss_of(l->w, l->e, 1, 1, false);
}

static double size_of(const float *v, size_t n) {
  double s = 0;
  for (size_t i = 0; i < n; i++) s += pow((double)v[i], 2);
  return sqrt(s);
}

/* With a soft prompt before every sample and the vector added at two sites. */
static void directions(void **state) {
  (void)state;
  for (int f = 0; f < N_FAMILIES; f++) {
    struct world w;
    struct nm__loss_spec e[N_SPECS];
    const char *where = "", *loss = "";
    double worst = 0;
    if (!nm__exists(families[f])) continue;
    open_world(&w, families[f], 2, NULL, true, 0.1);
    specs_of(&w, e);
    bool square = w.m->H * w.m->hd == w.m->D;
    struct nm__learned_edit edit = {square ? "blk.0.resid_mid|blk.1.attn_out|blk.0.attn.q_raw"
                                           : "blk.0.resid_mid|blk.1.attn_out",
                                    "1:", 0.5f, nm__params_view(&w.p, "vector")};
    w.s.edits = &edit, w.s.n_edits = 1;
    size_t n = w.p.n_floats;
    float *g = malloc(n * sizeof *g), *was = malloc(n * sizeof *was);
    memcpy(was, w.p.values, n * sizeof *was);
    for (int i = 0; i < N_SPECS; i++) {
      loss_of(&w, &e[i], 1, 1, true);
      memcpy(g, w.s.grad, n * sizeof *g);
      for (int t = 0; t < w.p.n; t++) {
        const struct nm__learned *v = &w.p.v[t];
        bool probe = !strncmp(v->name, "probe", 5), read = !strcmp(e[i].name, "tap_probe");
        double off = direction(&w.p, v, g + v->at, was + v->at, 2e-3, loss_alone,
                               &(struct one_loss){&w, &e[i]});
        if (!(off <= worst)) worst = off, where = v->name, loss = e[i].name;
        if (!strcmp(v->name, "prompt") || !strcmp(v->name, "vector") || probe)
          assert_true((size_of(g + v->at, (size_t)(v->rows * v->cols)) > 0) == (!probe || read));
      }
    }
    print_message("%-9s %3d tensors, worst direction %.1e (%s of %s)\n", w.m->arch->name, w.p.n,
                  worst, where, loss);
    assert_true(worst < 5e-3);
    free(g), free(was);
    close_world(&w);
  }
}

/* ---- the reference itself ------------------------------------------------ */

static void nothing_learned_yet(struct nm__stepper *s, const char *what) {
  const struct nm__loss_spec dpo = {.name = "dpo", .weight = 1, .group = PAIRS, .beta = 0.3};
  const struct nm__loss_spec npo = {.name = "npo", .weight = 1, .group = FORGET, .beta = 0.5};
  const struct nm__loss_spec kl = {.name = "kl", .weight = 1, .group = KEEP};
  double d = 0, n, k, total, gd, gk;
  nm_err err = {0};
  if (nm__loss_reference(s, writable, N_SEQ, &err) ||
      nm__step_batch(s, batch, N_SEQ, 2, &dpo, 1, true, &d, &total, &err))
    fail_msg("%s", err.text);
  gd = nm__step_clip(s, 0);
  assert_int_equal(nm__step_batch(s, batch, N_SEQ, 2, &npo, 1, false, &n, &total, &err), 0);
  assert_int_equal(nm__step_batch(s, batch, N_SEQ, 2, &kl, 1, true, &k, &total, &err), 0);
  gk = nm__step_clip(s, 0);
  print_message("%s: dpo - log 2 = %.1e, npo - 4 log 2 = %.1e, kl %.1e, |gradient| %.2g and %.1e\n",
                what, d - log(2), n - 4 * log(2), k, gd, gk);
  assert_true(fabs(d - log(2)) < 1e-6 && fabs(n - 4 * log(2)) < 1e-6);
  assert_true(fabs(k) < 1e-6 && gk < 1e-5 * gd && gd > 0);
  assert_true(s->frozen_bytes > 0);
}

static void unchanged(void **state) {
  (void)state;
  static const char *const targets[] = {"attn_q", "ffn_down"};
  static const char *const all[] = {"*"};
  for (int f = 0; f < 2; f++) {
    if (!nm__exists(families[f])) continue;
    nm_err err = {0};
    nm_model *base = open_model(families[f]), *m = NULL;
    struct nm__params p = {0};
    struct nm__stepper s;
    struct nm__gguf *g;
    make_batch(base);
    if (nm__params_lora(&p, base, &(struct nm__lora_opts){4, 8, targets, 2}, 1, &err) ||
        nm__params_add(&p, NULL, "vector", 1, base->D, &err) ||      /* the adapters move */
        nm__stepper_init(&s, base, &p, 2, NULL, &err))
      fail_msg("%s", err.text);
    nothing_learned_yet(&s, "adapters");
    nm__stepper_done(&s);
    nm__params_done(&p);
    if (nm__params_make(base->g, all, 1, &g, &p, &err) || nm__model_from(g, &m, &err) ||
        nm__stepper_init(&s, m, &p, 2, NULL, &err))
      fail_msg("%s", err.text);
    assert_int_equal(nm__loss_reference(&s, writable, N_SEQ, &err), NM_EUSAGE);
    assert_non_null(strstr(err.text, "must be a model of its own"));
    s.frozen = base;
    nothing_learned_yet(&s, "all tensors");
    nm__stepper_done(&s);
    nm_model_close(m);
    nm__params_done(&p);
    nm_model_close(base);
  }
}

/* ---- what losses are for ------------------------------------------------- */

static void steps(struct world *w, const struct nm__loss_spec *e, int n_specs, int n, float lr,
                  float decay) {
  struct nm__optim adamw = {NM__ADAMW, 0.9f, 0.95f, 1e-8f};
  float *state_of = calloc(2 * w->p.n_floats, sizeof(float));
  for (int t = 1; t <= n; t++) {
    loss_of(w, e, n_specs, 2, true);
    for (int i = 0; i < w->p.n; i++)
      nm__params_step(&w->s.ops, &adamw, &w->p, i, w->s.grad, state_of + 2 * w->p.v[i].at, lr,
                      decay, t);
  }
  free(state_of);
}

static void learning(void **state) {
  (void)state;
  struct world w;
  struct nm__loss_spec dpo = {.name = "dpo", .weight = 1, .group = PAIRS, .beta = 0.1};
  struct nm__loss_spec npo[] = {{.name = "npo", .weight = 1, .group = FORGET, .beta = 0.1},
                                {.name = "kl", .weight = 1, .group = KEEP}};
  struct nm__loss_spec forget = {.name = "cross_entropy", .weight = 1, .group = FORGET};
  struct nm__loss_spec diff = {.name = "gradient_difference", .weight = 1, .group = FORGET,
                               .retain = KEEP};
  open_world(&w, random_path, 2, NULL, false, 0);
  loss_of(&w, &dpo, 1, 2, false);
  double margin = w.s.seen[0].margin;
  steps(&w, &dpo, 1, 20, 1e-3f, 0);
  loss_of(&w, &dpo, 1, 2, false);
  print_message("dpo: margin %.4f, after 20 steps %.4f\n", margin, w.s.seen[0].margin);
  assert_true(fabs(margin) < 1e-6 && w.s.seen[0].margin > 0.5);
  close_world(&w);
  open_world(&w, random_path, 2, NULL, false, 0);
  double before = loss_of(&w, &forget, 1, 1, false);
  steps(&w, npo, 2, 20, 1e-3f, 0);
  double after = loss_of(&w, &forget, 1, 1, false);
  loss_of(&w, npo, 2, 1, false);
  print_message("npo and kl: forget cross entropy %.4f, then %.4f; kl on the rest %.4f\n", before,
                after, w.s.seen[1].value);
  assert_true(after > before + 0.5);
  before = loss_of(&w, &diff, 1, 1, false);
  steps(&w, &diff, 1, 10, 1e-3f, 0);
  assert_true(loss_of(&w, &diff, 1, 1, false) < before - 0.5);
  close_world(&w);
}

/* ---- the same bits ------------------------------------------------------- */

static float *gradient(int threads, const char *kernels, int slots, double *loss, size_t *n) {
  struct world w;
  struct nm__loss_spec e[N_SPECS];
  open_world(&w, random_path, threads, kernels, true, 0.1);
  struct nm__learned_edit edit = {"blk.*.resid_mid", "last", 2, nm__params_view(&w.p, "vector")};
  w.s.edits = &edit, w.s.n_edits = 1;
  *loss = loss_of(&w, e, specs_of(&w, e), slots, true);
  *n = w.p.n_floats;
  float *g = malloc(sizeof *g * *n);
  memcpy(g, w.s.grad, sizeof *g * *n);
  close_world(&w);
  return g;
}

static void same_bits(void **state) {
  (void)state;
  for (int slots = 1; slots <= 4; slots *= 4) {
    double loss, again;
    size_t n, m;
    float *a = gradient(1, "portable", slots, &loss, &n);
    for (int k = 0; nm__kern_at(k); k++)
      for (int threads = 1; threads <= 3; threads++) {
        float *b = gradient(threads, nm__kern_at(k)->name, slots, &again, &m);
        assert_int_equal(n, m);
        assert_memory_equal(&loss, &again, sizeof loss);
        assert_memory_equal(a, b, n * sizeof *a);
        free(b);
      }
    free(a);
  }
}

/* ---- soft prompts -------------------------------------------------------- */

static const char *scratch(const char *end) {
  snprintf(scratch_path, sizeof scratch_path, "%s%s", random_path, end);
  return scratch_path;
}

static void write_and_read(const struct nm__params *p) {
  struct nm__npy a;
  struct nm__gguf *g = NULL;
  nm_err err = {0};
  const struct nm__learned *v = nm__params_find(p, "prompt");
  size_t bytes = sizeof(float) * (size_t)(v->rows * v->cols);
  if (nm__params_write(p, "prompt", scratch(".npy"), &err) ||
      nm__npy_read(scratch_path, &a, &err))
    fail_msg("%s", err.text);
  assert_true(a.n_dims == 2 && a.ne[0] == v->rows && a.ne[1] == v->cols);
  assert_memory_equal(a.data, p->values + v->at, bytes);
  remove(scratch_path);
  if (nm__params_write(p, "prompt", scratch(".gguf"), &err) ||
      nm__gguf_open(scratch_path, &g, &err))
    fail_msg("%s", err.text);
  const struct nm__gguf_tensor *t = nm__gguf_tensor(g, "prompt");
  assert_true(t && t->ne[0] == v->cols && t->ne[1] == v->rows);
  assert_memory_equal(t->data, p->values + v->at, bytes);
  nm__npy_done(&a);
  nm__gguf_close(g);
  remove(scratch_path);
  assert_int_equal(nm__params_write(p, "none", scratch(".npy"), &err), NM_EUSAGE);
}

/* Positions of taps and edits are those of the sample: 1 behind four rows is 5 in the text. */
static void prompt_is_not_counted(struct nm__stepper *soft, struct nm__stepper *hard,
                                  const struct nm__sample *const *longer) {
  struct nm__loss_spec e = {.name = "tap_mse", .weight = 1, .group = NM__ALL_GROUPS,
                            .site = "blk.1.resid_post", .at = "1:3", .target_at = LABELS};
  struct nm__w v = {(const uint8_t *)target[0], NM__F32, 1, soft->m->D,
                    sizeof(float) * (size_t)soft->m->D};
  struct nm__learned_edit edit = {"blk.0.resid_post", "1", 1, v};
  double a, b, none, total;
  assert_int_equal(nm__step_batch(soft, batch, N_SEQ, 1, &e, 1, false, &none, &total, NULL), 0);
  soft->edits = hard->edits = &edit;
  soft->n_edits = hard->n_edits = 1;
  assert_int_equal(nm__step_batch(soft, batch, N_SEQ, 1, &e, 1, true, &a, &total, NULL), 0);
  e.at = "5:7", edit.at = "5";
  assert_int_equal(nm__step_batch(hard, longer, N_SEQ, 1, &e, 1, false, &b, &total, NULL), 0);
  assert_memory_equal(&a, &b, sizeof a);
  assert_true(a != none);
  soft->n_edits = hard->n_edits = 0;
}

/* Begun as tokens, a prompt is those tokens in front, bit for bit; then it learns beside a frozen
 * model of any stored type. */
static void soft_prompt(void **state) {
  (void)state;
  static const int32_t start[4] = {3, 1, 4, 2};
  const char *const paths[] = {random_path, SHARED "models/arch/gpt2/model.gguf",
                               SHARED "models/arch/gemma2/model.gguf",
                               SHARED "models/stories260K/stories260K.Q8_0.gguf"};
  for (int f = 0; f < 4; f++) {
    if (!nm__exists(paths[f])) continue;
    nm_model *m = open_model(paths[f]);
    struct nm__params p = {0}, none = {0};
    struct nm__stepper s, plain_s;
    nm_err err = {0};
    double soft, hard, total, last = 0;
    make_batch(m);
    if (nm__params_soft(&p, NULL, m, 4, start, 4, 0, &err) ||
        nm__stepper_init(&s, m, &p, 2, NULL, &err) ||
        nm__stepper_init(&plain_s, m, &none, 2, NULL, &err) ||
        nm__step_batch(&s, batch, N_SEQ, 1, NULL, 0, false, &soft, &total, &err))
      fail_msg("%s", err.text);
    int32_t long_ids[N_SEQ][LEN + 4];
    float long_w[N_SEQ][LEN + 4];
    struct nm__sample longer[N_SEQ];
    const struct nm__sample *long_batch[N_SEQ];
    for (int i = 0; i < N_SEQ; i++) {
      longer[i] = sample[i];
      longer[i].ids = long_ids[i], longer[i].weight = long_w[i], longer[i].n += 4;
      long_batch[i] = &longer[i];
      memcpy(long_ids[i], start, sizeof start);
      memcpy(long_ids[i] + 4, ids[i], sizeof ids[i]);
      memset(long_w[i], 0, sizeof long_w[i]);
      memcpy(long_w[i] + 5, weight[i] + 1, sizeof weight[i] - sizeof(float));
    }
    if (nm__step_batch(&plain_s, long_batch, N_SEQ, 1, NULL, 0, false, &hard, &total, &err))
      fail_msg("%s", err.text);
    assert_memory_equal(&soft, &hard, sizeof soft);
    prompt_is_not_counted(&s, &plain_s, long_batch);
    float *state_of = calloc(2 * p.n_floats, sizeof(float));
    struct nm__optim adamw = {NM__ADAMW, 0.9f, 0.95f, 1e-8f};
    for (int t = 1; t <= 20; t++) {
      if (nm__step_batch(&s, batch, N_SEQ, 2, NULL, 0, true, &last, &total, &err))
        fail_msg("%s", err.text);
      nm__params_step(&s.ops, &adamw, &p, 0, s.grad, state_of, 0.05f, 0, t);
    }
    print_message("%-6s soft %.6f, tokens %.6f, learned %.4f\n", m->arch->name, soft, hard, last);
    assert_true(last < soft - 0.01);
    write_and_read(&p);
    assert_int_equal(nm__params_soft(&p, NULL, m, m->n_ctx, NULL, 0, 1, &err), NM_EUSAGE);
    free(state_of);
    nm__stepper_done(&s);
    nm__stepper_done(&plain_s);
    nm__params_done(&p);
    nm_model_close(m);
  }
}

/* ---- edits --------------------------------------------------------------- */

static nm_edits *as_edits(const char *site, const char *at, const float *v, int64_t n, float s) {
  nm_edits *out;
  nm_err err = {0};
  struct nm__buf b;
  nm__buf_init(&b, 1 << 20);
  nm__buf_printf(&b, "{\"site\": \"%s\", \"at\": \"%s\", \"op\": \"add\", \"scale\": %.9g, "
                 "\"vector\": [", site, at, (double)s);
  for (int64_t i = 0; i < n; i++) nm__buf_printf(&b, "%s%.9g", i ? ", " : "", (double)v[i]);
  nm__buf_puts(&b, "]}");
  if (nm_edits_parse("test", b.s, b.len, &out, &err)) fail_msg("%s", err.text);
  nm__buf_done(&b);
  return out;
}

/* At each site, what the tape computes is what the public run computes with the same edit, and it
 * changes something; with blocks computed again, it is the same, the gradient too. */
static void edits(void **state) {
  (void)state;
  static const char *const sites[] = {
      "embed", "blk.1.resid_pre", "blk.0.attn_norm", "blk.1.attn.q_raw", "blk.0.attn.k_raw",
      "blk.1.attn.q", "blk.0.attn.k", "blk.1.attn.v", "blk.0.attn.head", "blk.*.attn_out",
      "blk.0.resid_mid", "blk.1.mlp_norm", "blk.0.mlp.gate", "blk.0.mlp.up", "blk.1.mlp.act",
      "blk.0.mlp_out", "blk.*.resid_post"};
  for (int f = 0; f < N_FAMILIES; f++) {
    struct world w;
    int seen = 0;
    if (!nm__exists(families[f])) continue;
    open_world(&w, families[f], 2, NULL, false, 0.1);
    struct nm__loss_spec ce = {.name = "cross_entropy", .weight = 1, .group = NM__ALL_GROUPS};
    double none = loss_of(&w, &ce, 1, 1, false);
    float *g = malloc(sizeof *g * w.p.n_floats);
    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++) {
      struct nm__sels sels;
      if (nm__sites_select(w.m, sites[i], &sels, NULL)) continue;
      int64_t n = nm__sel_width(w.m, sels.v[0], 1);
      float *v = malloc(sizeof *v * (size_t)n);
      for (int64_t k = 0; k < n; k++) v[k] = (float)unit(91, (size_t)k);
      struct nm__learned_edit e = {sites[i], "1:3,-2", 1.5f,
                                   {(const uint8_t *)v, NM__F32, 1, n, 4 * (size_t)n}};
      nm_edits *same = as_edits(sites[i], "1:3,-2", v, n, 1.5f);
      struct truth t = {run_all(w.m, "logits", same), run_all(w.base, "logits", NULL),
                        w.m->V};
      w.s.edits = &e, w.s.n_edits = 1;
      double want = plain(&w, &t, &ce, same), got = loss_of(&w, &ce, 1, 1, true), again;
      memcpy(g, w.s.grad, sizeof *g * w.p.n_floats);
      w.s.again = true;
      again = loss_of(&w, &ce, 1, 1, false);
      assert_memory_equal(&got, &again, sizeof got);
      again = loss_of(&w, &ce, 1, 1, true);
      w.s.again = false;
      assert_memory_equal(&got, &again, sizeof got);
      assert_memory_equal(g, w.s.grad, sizeof *g * w.p.n_floats);
      if (fabs(got - want) > 2e-5 * want || fabs(got - none) < 1e-5)
        fail_msg("%s: %s: %.7g, must be %.7g, without %.7g", families[f], sites[i], got, want,
                 none);
      w.s.n_edits = 0;
      nm_edits_free(same);
      rows_done(&t.m), rows_done(&t.base);
      free(v), free(sels.v);
      seen++;
    }
    print_message("%-9s edits at %d kinds of site as in the public run\n", w.m->arch->name, seen);
    assert_true(seen >= 12);
    free(g);
    close_world(&w);
  }
}

/* A vector is all that is learned, beside a frozen quantised model; with blocks computed again its
 * gradient has the same bits. */
static void learned_vector(void **state) {
  (void)state;
  const char *path = SHARED "models/stories260K/stories260K.Q8_0.gguf";
  nm_model *m = open_model(nm__exists(path) ? path : random_path);
  struct nm__params p = {0};
  struct nm__stepper s;
  nm_err err = {0};
  double loss, again, first = 0, total;
  make_batch(m);
  if (nm__params_add(&p, NULL, "vector", 2, m->D, &err) ||
      nm__stepper_init(&s, m, &p, 2, NULL, &err))
    fail_msg("%s", err.text);
  struct nm__learned_edit edit = {"blk.0.resid_post|blk.2.mlp_out", "all", 1,
                                  nm__params_view(&p, "vector")};
  struct nm__optim adamw = {NM__ADAMW, 0.9f, 0.95f, 1e-8f};
  float *state_of = calloc(2 * p.n_floats, sizeof(float)), *g = malloc(p.n_floats * sizeof *g);
  s.edits = &edit, s.n_edits = 1;
  for (int t = 1; t <= 20; t++) {
    s.again = true;
    if (nm__step_batch(&s, batch, N_SEQ, 2, NULL, 0, true, &again, &total, &err))
      fail_msg("%s", err.text);
    memcpy(g, s.grad, p.n_floats * sizeof *g);
    s.again = false;
    assert_int_equal(nm__step_batch(&s, batch, N_SEQ, 2, NULL, 0, true, &loss, &total, &err), 0);
    assert_memory_equal(&loss, &again, sizeof loss);
    assert_memory_equal(g, s.grad, p.n_floats * sizeof *g);
    assert_true(size_of(g, (size_t)m->D) > 0 && size_of(g + m->D, (size_t)m->D) > 0);
    if (t == 1) first = loss;
    nm__params_step(&s.ops, &adamw, &p, 0, s.grad, state_of, 0.05f, 0, t);
  }
  print_message("a vector at two sites of %s: %.4f, then %.4f\n", m->types, first, loss);
  assert_true(loss < first - 0.3);
  free(state_of), free(g);
  nm__stepper_done(&s);
  nm__params_done(&p);
  nm_model_close(m);
}

/* ---- single rows and columns --------------------------------------------- */

static void rows_and_columns(void **state) {
  (void)state;
  static const char *const all[] = {"blk.0.attn_output.weight", "blk.1.attn_v.weight"};
  static const int32_t list[] = {0, 2, 3};
  struct nm__loss_spec ce = {.name = "cross_entropy", .weight = 1, .group = NM__ALL_GROUPS};
  for (int kind = NM__SGD; kind <= NM__MUON; kind++) {
    struct world w = {.base = open_model(random_path)};
    struct nm__gguf *g;
    nm_err err = {0};
    make_batch(w.base);
    if (nm__params_make(w.base->g, all, 2, &g, &w.p, &err) ||
        nm__params_only(&w.p, all[0], true, list, 3, &err) ||
        nm__params_only(&w.p, all[1], false, list, 3, &err) || nm__model_from(g, &w.m, &err) ||
        nm__stepper_init(&w.s, w.m, &w.p, 2, NULL, &err))
      fail_msg("%s", err.text);
    size_t n = w.p.n_floats;
    float *was = malloc(n * sizeof *was), *state_of = calloc(2 * n, sizeof *state_of);
    memcpy(was, w.p.values, n * sizeof *was);
    struct nm__optim o = {(enum nm__optim_kind)kind, 0.9f, 0.95f, 1e-8f};
    double first = loss_of(&w, &ce, 1, 1, false);
    for (int t = 1; t <= 5; t++) {
      loss_of(&w, &ce, 1, 2, true);
      nm__step_clip(&w.s, 1);
      nm__arena_done(&w.s.ops.arena);
      assert_int_equal(nm__arena_init(&w.s.ops.arena, 1 << 22, NULL), 0);
      for (int i = 0; i < w.p.n; i++)
        nm__params_step(&w.s.ops, &o, &w.p, i, w.s.grad, state_of + 2 * w.p.v[i].at, 5e-3f, 0.1f,
                        t);
    }
    int moved = 0, still = 0;
    for (int i = 0; i < w.p.n; i++)
      for (int64_t k = 0; k < w.p.v[i].rows * w.p.v[i].cols; k++) {
        int64_t at = w.p.v[i].by_column ? k % w.p.v[i].cols : k / w.p.v[i].cols;
        bool trained = at == 0 || at == 2 || at == 3;
        bool same = !memcmp(was + w.p.v[i].at + k, w.p.values + w.p.v[i].at + k, sizeof *was);
        if (!trained && !same) fail_msg("%s: element %lld moved", w.p.v[i].name, (long long)k);
        moved += trained && !same, still += !trained;
      }
    double last = loss_of(&w, &ce, 1, 1, false);
    print_message("optimiser %d: %d elements moved, %d did not: %.4f, then %.4f\n", kind, moved,
                  still, first, last);
    assert_true(still > 0 && moved > 3 * (int)(w.p.v[0].rows + w.p.v[1].cols) * 9 / 10);
    assert_true(last < first);
    free(was), free(state_of);
    close_world(&w);
  }
}

/* ---- refusals ------------------------------------------------------------ */

static void refuse(struct world *w, struct nm__loss_spec e, const char *sentence) {
  double loss, total;
  nm_err err = {0};
  int st = nm__step_batch(&w->s, batch, N_SEQ, 1, &e, 1, true, &loss, &total, &err);
  if (st >= 0 || !strstr(err.text, sentence)) fail_msg("%s: %d '%s'", sentence, st, err.text);
}

static void refusals(void **state) {
  (void)state;
  struct world w;
  nm_err err = {0};
  open_world(&w, random_path, 1, NULL, false, 0);
  refuse(&w, (struct nm__loss_spec){.name = "ppo", .weight = 1}, "known: cross_entropy, ");
  refuse(&w, (struct nm__loss_spec){.name = "dpo", .weight = 1, .group = PAIRS}, "beta above 0");
  refuse(&w, (struct nm__loss_spec){.name = "dpo", .weight = 1, .beta = 1, .group = KEEP},
         "is not followed by the rejected");
  refuse(&w, (struct nm__loss_spec){.name = "kl", .weight = 1, .group = 9}, "finds anything");
  refuse(&w, (struct nm__loss_spec){.name = "cross_entropy", .weight = 1, .smooth = 1}, "below 1");
  refuse(&w, (struct nm__loss_spec){.name = "gradient_difference", .weight = 1}, "two groups");
  refuse(&w, (struct nm__loss_spec){.name = "tap_mse", .weight = 1}, "no site is named");
  refuse(&w, (struct nm__loss_spec){.name = "tap_mse", .weight = 1, .site = "blk.0.attn.scores"},
         "not rows of positions");
  refuse(&w, (struct nm__loss_spec){.name = "tap_mse", .weight = 1, .site = "blk.0.mlp_out",
                                    .target_at = LABELS + 1}, "a sample has");
  refuse(&w, (struct nm__loss_spec){.name = "tap_mse", .weight = 1, .site = "logits"}, "head");
  refuse(&w, (struct nm__loss_spec){.name = "tap_mse", .weight = 1, .site = "blk.0.mlp.act[1]"},
         "only whole rows");
  refuse(&w, (struct nm__loss_spec){.name = "tap_mse", .weight = 1, .site = "embed", .at = "40"},
         "outside the sequence");
  refuse(&w, (struct nm__loss_spec){.name = "tap_probe", .weight = 1, .site = "blk.0.mlp_out"},
         "a probe at");
  w.s.again = true;
  refuse(&w, (struct nm__loss_spec){.name = "tap_mse", .weight = 1, .site = "blk.0.mlp_out",
                                    .target_at = LABELS}, "computed again");
  w.s.again = false;
  free(sample[1].ref);
  sample[1].ref = NULL;
  refuse(&w, (struct nm__loss_spec){.name = "dpo", .weight = 1, .beta = 1, .group = PAIRS},
         "nm__loss_reference gives them");
  struct nm__learned_edit edit = {"embed", NULL, 1, nm__params_view(&w.p, "probe.bias")};
  w.s.edits = &edit, w.s.n_edits = 1;
  refuse(&w, (struct nm__loss_spec){.name = "cross_entropy", .weight = 1}, "its vector is");
  edit = (struct nm__learned_edit){"final_norm", NULL, 1, nm__params_view(&w.p, "vector")};
  refuse(&w, (struct nm__loss_spec){.name = "cross_entropy", .weight = 1}, "resid_post");
  w.s.n_edits = 0;
  const int32_t bad[] = {2, 1};
  assert_int_equal(nm__params_only(&w.p, "vector", true, bad, 2, &err), NM_EUSAGE);
  assert_int_equal(nm__params_only(&w.p, "nothing", true, bad, 1, &err), NM_EUSAGE);
  assert_int_equal(nm__params_add(&w.p, NULL, "vector", 1, 1, &err), NM_EUSAGE);
  close_world(&w);
}

static int write_model(void **state) {
  (void)state;
  struct file f = file_of(&shapes[0]);
  snprintf(random_path, sizeof random_path, "/tmp/noema_loss_test.%ld.gguf", (long)getpid());
  write_file(&shapes[0], &f, random_path);
  file_done(&f);
  return 0;
}

static int clean(void **state) {
  (void)state;
  remove(random_path);
  for (int s = 0; s < N_SEQ; s++) free(sample[s].ref);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(values),    cmocka_unit_test(directions),
      cmocka_unit_test(unchanged), cmocka_unit_test(learning),
      cmocka_unit_test(same_bits), cmocka_unit_test(soft_prompt),
      cmocka_unit_test(edits),     cmocka_unit_test(learned_vector),
      cmocka_unit_test(rows_and_columns),
      cmocka_unit_test(refusals),
  };
  return cmocka_run_group_tests(tests, write_model, clean);
}
