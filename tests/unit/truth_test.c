/* truth_test.c - families against a second forward, written here in double and in plain loops
 * from their definitions: random files of odd sizes (model_file.h), logits, streams, patterns and
 * what goes on among experts. Nothing of src/model is used for the second forward. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "model_file.h"
#include "model_run.h"

enum { T = 19 };
static int32_t ids[T];
static char path[80];

/* ---- the second forward ---------------------------------------------------------- */

enum { WIDE = 512 };               /* no row is wider, but those of all experts */

struct truth {
  double x[L + 1][T][WIDE];        /* the stream before each block, and at the end */
  double pattern[L][T][16][T];
  double router[L][T][16], weight[L][T][16], act[L][T][16][WIDE];   /* act: of chosen experts */
  double shared[L][T];
  double logits[T][V];
  double margin;                   /* the least gap between the last chosen expert and the next */
};

static const float *find(const struct file *f, const char *name) {
  for (int i = 0; i < f->n; i++)
    if (!strcmp(f->t[i].name, name)) return f->t[i].v;
  return NULL;
}

static const float *in_block(const struct file *f, int il, const char *stem, const char *what) {
  char name[64];
  snprintf(name, sizeof name, "blk.%d.%s.%s", il, stem, what);
  return find(f, name);
}

/* y = w x + b, rows first.. of w. */
static void times(const struct file *f, int il, const char *stem, int first, int rows, int cols,
                  const double *x, double *y) {
  const float *w = in_block(f, il, stem, "weight"), *b = in_block(f, il, stem, "bias");
  assert_non_null(w);
  for (int r = 0; r < rows; r++) {
    y[r] = b ? (double)b[first + r] : 0;
    for (int c = 0; c < cols; c++) y[r] += (double)w[(first + r) * cols + c] * x[c];
  }
}

static void normalise(const float *w, const float *b, bool layernorm, int n, const double *x,
                      double *y) {
  double mean = 0, sq = 0;
  for (int i = 0; i < n && layernorm; i++) mean += x[i] / n;
  for (int i = 0; i < n; i++) sq += (x[i] - mean) * (x[i] - mean) / n;
  for (int i = 0; i < n; i++)
    y[i] = (x[i] - mean) / sqrt(sq + (double)1e-5f) * (double)w[i] + (b ? (double)b[i] : 0);
}

static void block_norm(const struct file *f, const struct shape *s, int il, const char *stem,
                       const double *x, double *y) {
  normalise(in_block(f, il, stem, "weight"), in_block(f, il, stem, "bias"), s->layernorm, s->D, x,
            y);
}

static void turn(const struct shape *s, double *head, int pos) {
  int n = s->n_rot ? s->n_rot : s->hd;
  for (int j = 0; j < n / 2; j++) {
    int a = s->neighbours ? 2 * j : j, b = s->neighbours ? 2 * j + 1 : j + n / 2;
    double angle = pos * pow(10000, -2.0 * j / n), u = head[a], v = head[b];
    head[a] = u * cos(angle) - v * sin(angle);
    head[b] = u * sin(angle) + v * cos(angle);
  }
}

/* A head's q or k: its norm, then its rotation. */
static void cook(const struct file *f, const struct shape *s, int il, const char *norm_stem,
                 double *v, int heads, int pos) {
  for (int h = 0; h < heads; h++) {
    double *head = v + h * s->hd;
    if (s->qk_norm) normalise(in_block(f, il, norm_stem, "weight"), NULL, false, s->hd, head, head);
    turn(s, head, pos);
  }
}

/* Attention of all positions: in h what is read, out what is added. */
static void attend(const struct file *f, const struct shape *s, int il, double h[T][WIDE],
                   double out[T][WIDE], struct truth *t) {
  static double q[T][WIDE], k[T][WIDE], v[T][WIDE], z[T][WIDE];
  int nq = s->H * s->hd, nk = s->K * s->hd;
  for (int p = 0; p < T; p++) {
    times(f, il, s->fused ? "attn_qkv" : "attn_q", 0, nq, s->D, h[p], q[p]);
    times(f, il, s->fused ? "attn_qkv" : "attn_k", s->fused ? nq : 0, nk, s->D, h[p], k[p]);
    times(f, il, s->fused ? "attn_qkv" : "attn_v", s->fused ? nq + nk : 0, nk, s->D, h[p], v[p]);
    cook(f, s, il, "attn_q_norm", q[p], s->H, p);
    cook(f, s, il, "attn_k_norm", k[p], s->K, p);
    memset(z[p], 0, sizeof z[p]);
    for (int a = 0; a < s->H; a++) {
      int kv = a * s->K / s->H;
      double *w = t->pattern[il][p][a], sum = 0;
      for (int j = 0; j <= p; j++) {
        double score = 0;
        for (int i = 0; i < s->hd; i++) score += q[p][a * s->hd + i] * k[j][kv * s->hd + i];
        w[j] = s->window && p - j >= s->window ? 0 : exp(score / sqrt(s->hd));
        sum += w[j];
      }
      for (int j = 0; j <= p; j++) {
        w[j] /= sum;
        for (int i = 0; i < s->hd; i++) z[p][a * s->hd + i] += w[j] * v[j][kv * s->hd + i];
      }
    }
    times(f, il, "attn_output", 0, s->D, nq, z[p], out[p]);
  }
}

static double activate(const struct shape *s, double x) {
  if (!s->plain_mlp) return x / (1 + exp(-x));
  if (s->erf) return 0.5 * x * (1 + erf(x / sqrt(2)));
  return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

/* act(gate x) * up x, or act(up x). Stems name the matrices, first: the rows before ours. */
static void inside(const struct file *f, const struct shape *s, int il, const char *gate,
                   const char *up, int first, int F, const double *h, double *act) {
  static double g[WIDE];
  times(f, il, up, first, F, s->D, h, act);
  if (!s->plain_mlp) times(f, il, gate, first, F, s->D, h, g);
  for (int i = 0; i < F; i++)
    act[i] = s->plain_mlp ? activate(s, act[i]) : activate(s, g[i]) * act[i];
}

static void choose(const struct shape *s, const double *p, bool *in, struct truth *t) {
  memset(in, 0, 16 * sizeof *in);
  double last = 1;
  for (int n = 0; n <= s->used && n < s->E; n++) {
    int best = -1;
    for (int e = 0; e < s->E; e++)
      if (!in[e] && (best < 0 || p[e] > p[best])) best = e;
    if (n == s->used) t->margin = fmin(t->margin, last - p[best]);
    else in[best] = true;
    last = p[best];
  }
}

static void mixture(const struct file *f, const struct shape *s, int il, int p, const double *h,
                    double *out, struct truth *t) {
  static double down[WIDE], act[WIDE];
  double *prob = t->router[il][p], sum = 0, chosen = 0;
  bool in[16];
  times(f, il, "ffn_gate_inp", 0, s->E, s->D, h, prob);
  for (int e = 0; e < s->E; e++) sum += exp(prob[e]);
  for (int e = 0; e < s->E; e++) prob[e] = exp(prob[e]) / sum;
  choose(s, prob, in, t);
  for (int e = 0; e < s->E; e++) chosen += in[e] ? prob[e] : 0;
  memset(out, 0, sizeof(double) * (size_t)s->D);
  for (int e = 0; e < s->E; e++) {
    char stem[3][32];
    static const char *const part[3] = {"gate", "up", "down"};
    for (int i = 0; i < 3; i++)
      snprintf(stem[i], 32, s->apart ? "ffn_%s.%d" : "ffn_%s_exps", part[i], e);
    if (!in[e]) continue;
    double w = t->weight[il][p][e] = prob[e] / (s->renormalise ? chosen : 1);
    inside(f, s, il, stem[0], stem[1], s->apart ? 0 : e * s->expert_F, s->expert_F, h,
           t->act[il][p][e]);
    times(f, il, stem[2], s->apart ? 0 : e * s->D, s->D, s->expert_F, t->act[il][p][e], down);
    for (int i = 0; i < s->D; i++) out[i] += w * down[i];
  }
  if (!s->shared_F) return;
  double gate;
  times(f, il, "ffn_gate_inp_shexp", 0, 1, s->D, h, &gate);
  t->shared[il][p] = 1 / (1 + exp(-gate));
  inside(f, s, il, "ffn_gate_shexp", "ffn_up_shexp", 0, s->shared_F, h, act);
  times(f, il, "ffn_down_shexp", 0, s->D, s->shared_F, act, down);
  for (int i = 0; i < s->D; i++) out[i] += t->shared[il][p] * down[i];
}

static void forward(const struct file *f, const struct shape *s, struct truth *t) {
  static double h[T][WIDE], a[T][WIDE], act[WIDE], m[WIDE];
  memset(t, 0, sizeof *t);
  t->margin = 1;
  for (int p = 0; p < T; p++)
    for (int i = 0; i < s->D; i++)
      t->x[0][p][i] = (double)find(f, "token_embd.weight")[ids[p] * s->D + i];
  for (int il = 0; il < L; il++) {
    for (int p = 0; p < T; p++)
      block_norm(f, s, il, s->two_norms ? "attn_norm_2" : "attn_norm", t->x[il][p], h[p]);
    attend(f, s, il, h, a, t);
    for (int p = 0; p < T; p++) {
      const double *x = t->x[il][p];
      double *y = t->x[il + 1][p];
      for (int i = 0; i < s->D; i++) y[i] = x[i] + a[p][i];
      if (!s->one_norm)
        block_norm(f, s, il, s->two_norms ? "attn_norm" : "ffn_norm", s->parallel ? x : y, h[p]);
      if (s->E) {
        mixture(f, s, il, p, h[p], m, t);
      } else {
        inside(f, s, il, "ffn_gate", "ffn_up", 0, s->F, h[p], act);
        times(f, il, "ffn_down", 0, s->D, s->F, act, m);
      }
      for (int i = 0; i < s->D; i++) y[i] += m[i];
    }
  }
  const float *head = find(f, s->tied ? "token_embd.weight" : "output.weight");
  for (int p = 0; p < T; p++) {
    normalise(find(f, "output_norm.weight"), find(f, "output_norm.bias"), s->layernorm, s->D,
              t->x[L][p], m);
    for (int v = 0; v < V; v++)
      for (int i = 0; i < s->D; i++) t->logits[p][v] += (double)head[v * s->D + i] * m[i];
  }
}

/* ---- side by side ------------------------------------------------------------------- */

static void worse(double *e, const float *got, const double *want, int n) {
  for (int i = 0; i < n; i++) {
    double d = fabs((double)got[i] - want[i]);
    if (!(d <= *e)) *e = d == d ? d : INFINITY;
  }
}

static const float *at(const struct rows *r, int layer, const char *rest, int pos, int n) {
  char name[64];
  return row_of(r, at_layer(name, layer, rest), 0, pos, n);
}

/* moe.act holds the chosen experts' values and zeros. */
static double moe_errors(const struct shape *s, const struct rows *r, const struct truth *t, int l,
                         int p) {
  double e = 0;
  const float *act = at(r, l, "moe.act", p, s->E * s->expert_F);
  worse(&e, at(r, l, "moe.router", p, s->E), t->router[l][p], s->E);
  worse(&e, at(r, l, "moe.weights", p, s->E), t->weight[l][p], s->E);
  for (int i = 0; i < s->E; i++) {
    worse(&e, act + i * s->expert_F, t->act[l][p][i], s->expert_F);
    for (int k = 0; k < s->expert_F && t->weight[l][p][i] == 0; k++)
      assert_true(act[i * s->expert_F + k] == 0);
  }
  if (s->shared_F) worse(&e, at(r, l, "moe.shared.weight", p, 1), &t->shared[l][p], 1);
  return e;
}

static void check(const struct shape *s) {
  static struct truth t;
  double logits = 0, stream = 0, pattern = 0, moe = 0;
  struct file f = file_of(s);
  write_file(s, &f, path);
  forward(&f, s, &t);
  nm_model *m = open_model(path);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  struct rows r = tap_one(e, ids, T, "*", "all", NULL);
  for (int p = 0; p < T; p++) {
    worse(&logits, row_of(&r, "logits", 0, p, V), t.logits[p], V);
    for (int l = 0; l < L; l++) {
      worse(&stream, at(&r, l, "resid_post", p, s->D), t.x[l + 1][p], s->D);
      const float *w = at(&r, l, "attn.pattern", p, s->H * T);
      for (int h = 0; h < s->H; h++) worse(&pattern, w + h * T, t.pattern[l][p][h], T);
      if (s->E) moe = fmax(moe, moe_errors(s, &r, &t, l, p));
    }
  }
  print_message("conformance: own %-22s logits %.1e  resid_post %.1e  pattern %.1e", s->title,
                logits, stream, pattern);
  if (s->E) print_message("  experts %.1e (margin %.0e)", moe, t.margin);
  print_message("\n");
  if (!(logits <= 1e-4 && stream <= 1e-4 && pattern <= 1e-5 && moe <= 1e-4))
    fail_msg("%s is too far from the second forward", s->title);
  assert_true(t.margin > 1e-5);    /* rounding cannot have flipped a choice */
  rows_done(&r);
  nm_engine_free(e);
  nm_model_close(m);
  file_done(&f);
}

static void families(void **state) {
  (void)state;
  for (int i = 0; i < N_SHAPES; i++) check(&shapes[i]);
}

static int remove_file(void **state) {
  (void)state;
  unlink(path);
  return 0;
}

int main(void) {
  snprintf(path, sizeof path, "/tmp/noema_truth_test.%ld.gguf", (long)getpid());
  for (int i = 0; i < T; i++) ids[i] = (i * 37 + 5) % V;
  const struct CMUnitTest tests[] = {cmocka_unit_test(families)};
  return cmocka_run_group_tests(tests, NULL, remove_file);
}
