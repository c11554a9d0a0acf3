/* families_test.c - what the rows of the architecture table promise beyond conformance: sums
 * and norms around the stream, windows, caps, which sites there are and why others are
 * not, and a llama file with a window against the truth of another family. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "file/npy.h"
#include "model_run.h"

enum { T = 24 };
static int32_t some_ids[T];

static const char *const names[] = {
    "models/arch/qwen3", "models/arch/gemma",   "models/arch/gemma2",
    "models/arch/gemma3", "models/arch/olmo2",  "reference/phi3",
    "models/arch/gptneox", "models/arch/gptneox-sequential",
    "reference/mixtral", "reference/qwen2moe", "reference/falcon",
};
enum { N_NAMES = sizeof names / sizeof *names };

static nm_model *open_named(const char *name) {
  char path[160];
  snprintf(path, sizeof path, SHARED "%s/model.gguf", name);
  return open_model(path);
}

static const float *at(const struct rows *r, int layer, const char *rest, int pos, int64_t n) {
  char name[64];
  return row_of(r, at_layer(name, layer, rest), 0, pos, n);
}

static void near(double got, double want, const char *what) {
  if (!(fabs(got - want) <= 2e-5 * (1 + fabs(want))))
    fail_msg("%s is %.9g, by hand %.9g", what, got, want);
}

static void for_each(void (*check)(const nm_model *m, const struct rows *all)) {
  if (no_shared()) skip();
  for (int i = 0; i < N_NAMES; i++) {
    nm_model *m = open_named(names[i]);
    nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
    struct rows all = tap_one(e, some_ids, T, "*", "all", NULL);
    check(m, &all);
    struct rows only = tap_one(e, some_ids, T, "logits", "all", NULL);
    for (int p = 0; p < T; p++)
      assert_memory_equal(row_of(&all, "logits", 0, p, m->V), row_of(&only, "logits", 0, p, m->V),
                          (size_t)m->V * 4);
    rows_done(&all);
    rows_done(&only);
    nm_engine_free(e);
    nm_model_close(m);
  }
}

/* ---- the stream ---------------------------------------------------------- */

static void rms_is(const nm_model *m, const float *y, const float *x, struct nm__w w, int n,
                   const char *what) {
  float weight[1024];
  double sq = 0;
  assert_true(n <= 1024);
  nm__dtype(w.type)->to_f32(weight, w.data, n);
  for (int i = 0; i < n; i++) sq += (double)x[i] * (double)x[i] / n;
  for (int i = 0; i < n; i++)
    near((double)y[i], (double)x[i] / sqrt(sq + (double)m->eps) * (double)weight[i], what);
}

static void stream_holds(const nm_model *m, const struct rows *r) {
  for (int l = 0; l < m->L; l++)
    for (int p = 0; p < T; p++) {
      const float *pre = at(r, l, "resid_pre", p, m->D), *post = at(r, l, "resid_post", p, m->D);
      const float *a = at(r, l, "attn_out", p, m->D), *f = at(r, l, "mlp_out", p, m->D);
      for (int i = 0; i < m->D; i++) assert_true(post[i] == (pre[i] + a[i]) + f[i]);
      if (!m->parallel) {
        const float *mid = at(r, l, "resid_mid", p, m->D);
        for (int i = 0; i < m->D; i++) assert_true(mid[i] == pre[i] + a[i]);
      }
      if (!m->arch->post_norm) continue;
      rms_is(m, a, at(r, l, "attn_raw", p, m->D), m->layer[l].attn_post, m->D, "attn_out");
      rms_is(m, f, at(r, l, "mlp_raw", p, m->D), m->layer[l].mlp_post, m->D, "mlp_out");
    }
}
static void stream(void **state) {
  (void)state;
  for_each(stream_holds);
}

/* The embedding is scaled where the row says so, and the head reads the unscaled one. */
static void ends_hold(const nm_model *m, const struct rows *r) {
  float row[1024], want = m->arch->embd_scale ? sqrtf((float)m->D) : 1.0f;
  for (int p = 0; p < T; p++) {
    const float *x = row_of(r, "embed", 0, p, m->D), *z = row_of(r, "logits", 0, p, m->V);
    const float *h = row_of(r, "final_norm", 0, p, m->D);
    nm__dtype(m->embd.type)->to_f32(row, m->embd.data + (size_t)some_ids[p] * m->embd.row_bytes,
                                    m->D);
    for (int i = 0; i < m->D; i++) assert_true(x[i] == row[i] * want);
    for (int v = 0; v < m->V; v += 17) {
      double sum = 0, cap = (double)m->final_cap;
      nm__dtype(m->output.type)->to_f32(row, m->output.data + (size_t)v * m->output.row_bytes,
                                        m->D);
      for (int i = 0; i < m->D; i++) sum += (double)h[i] * (double)row[i];
      near((double)z[v], cap > 0 ? cap * tanh(sum / cap) : sum, "logits");
    }
  }
}
static void ends(void **state) {
  (void)state;
  for_each(ends_hold);
}

/* ---- attention ------------------------------------------------------------- */

static void head_holds(const nm_model *m, const struct rows *r, int l, int p, int h) {
  int hd = m->hd, kv = h / (m->H / m->K), w = m->layer[l].window;
  const float *q = at(r, l, "attn.q", p, m->H * hd) + h * hd;
  const float *s = at(r, l, "attn.scores", p, m->H * T) + h * T;
  const float *a = at(r, l, "attn.pattern", p, m->H * T) + h * T;
  double sum = 0, cap = (double)m->attn_cap;
  for (int k = 0; k < T; k++) {
    if (k > p || (w && p - k >= w)) {
      assert_true(s[k] == -INFINITY && a[k] == 0);
      continue;
    }
    const float *key = at(r, l, "attn.k", k, m->K * hd) + kv * hd;
    double z = 0;
    for (int i = 0; i < hd; i++) z += (double)q[i] * (double)key[i] / sqrt(hd);
    near((double)s[k], cap > 0 ? cap * tanh(z / cap) : z, "attn.scores");
    sum += (double)a[k];
  }
  near(sum, 1, "the sum of a pattern");
}

static void attention_holds(const nm_model *m, const struct rows *r) {
  int n_windowed = 0;
  for (int l = 0; l < m->L; l++) {
    n_windowed += m->layer[l].window > 0;
    for (int p = 0; p < T; p++)
      for (int h = 0; h < m->H; h++) head_holds(m, r, l, p, h);
  }
  int n = m->layer[0].window ? m->arch->global_every : 0;
  assert_int_equal(n_windowed, n ? m->L - m->L / n : 0);
  if (!m->arch->qk_norm) return;
  bool whole = m->arch->qk_norm == NM__QK_NORM_WHOLE;
  const float *k = at(r, 1, "attn.k", 0, m->K * m->hd),        /* position 0 is not turned */
              *raw = at(r, 1, "attn.k_raw", 0, m->K * m->hd);
  for (int i = 0; i < (whole ? 1 : m->K); i++)
    rms_is(m, k + i * m->hd, raw + i * m->hd, m->layer[1].k_norm, whole ? m->K * m->hd : m->hd,
           "attn.k");
}
static void attention(void **state) {
  (void)state;
  for_each(attention_holds);
}

/* Scores set to zero weigh the keys that are seen alike and leave the others out. */
static void zero_scores_keep_the_window(void **state) {
  (void)state;
  if (no_shared()) skip();
  const char *json = "{\"site\": \"blk.*.attn.scores\", \"op\": \"zero\"}";
  nm_model *m = open_named("models/arch/gemma2");
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  nm_edits *ed;
  assert_int_equal(nm_edits_parse("t", json, strlen(json), &ed, NULL), 0);
  struct rows r = tap_one(e, some_ids, T, "*.attn.pattern", "all", ed);
  for (int l = 0; l < m->L; l++)
    for (int p = 0; p < T; p++) {
      int w = m->layer[l].window, first = w && p >= w ? p - w + 1 : 0;
      const float *a = at(&r, l, "attn.pattern", p, m->H * T);
      for (int k = 0; k < m->H * T; k++) {
        bool seen = k % T >= first && k % T <= p;
        near((double)a[k], seen ? 1.0 / (p - first + 1) : 0, "an even pattern");
        assert_true(seen || a[k] == 0);
      }
    }
  rows_done(&r);
  nm_edits_free(ed);
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- sites that are not there ------------------------------------------------ */

static void missing_sites(void **state) {
  (void)state;
  static const struct { const char *model, *site, *why; } cases[] = {
      {"models/arch/gptneox", "blk.0.resid_mid", "in parallel"},
      {"models/arch/gptneox", "blocks.1.hook_resid_mid", "in parallel"},
      {"models/arch/gptneox", "blk.*.mlp.gate", "no gate"},
      {"models/arch/gptneox-sequential", "blk.0.resid_mid", NULL},
      {"models/arch/olmo2", "blk.0.attn_norm", "read resid_pre"},
      {"models/arch/olmo2", "blk.*.mlp_norm", "read resid_pre"},
      {"models/arch/olmo2", "blk.0.mlp_raw", NULL},
      {"models/arch/qwen3", "blk.0.attn_raw", "no norm follows"},
      {"models/arch/gemma", "blk.0.mlp_raw", "no norm follows"},
      {"models/arch/gemma2", "blk.0.attn_raw", NULL},
      {"models/arch/llama", "blk.0.moe.router", "no experts"},
      {"models/arch/llama", "blk.0.moe.shared.act", "no experts"},
      {"reference/mixtral", "blk.*.mlp.act", "a mixture of experts"},
      {"reference/mixtral", "blocks.0.mlp.hook_post", "a mixture of experts"},
      {"reference/mixtral", "blk.1.moe.shared.out", "no shared expert"},
      {"reference/mixtral", "blk.1.moe.act[3]", NULL},
      {"reference/mixtral", "blk.1.moe.act[4]", "out of range (0 to 3)"},
      {"reference/mixtral", "blk.1.moe.router[3]", NULL},
      {"reference/qwen2moe", "blk.1.moe.shared.weight", NULL},
      {"reference/falcon", "blk.0.mlp_norm", "one norm feeds"},
      {"reference/falcon", "blk.0.resid_mid", "in parallel"},
      {"reference/falcon", "blk.0.mlp.gate", "no gate"},
      {"reference/falcon", "blk.0.attn_norm", NULL},
  };
  if (no_shared()) skip();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    nm_model *m = open_named(cases[i].model);
    nm_tap tap = {cases[i].site, "last"};
    nm_site *s = NULL;
    int n;
    nm_err err = {0};
    int st = nm_run_sites(m, &tap, 1, &s, &n, &err);
    if (cases[i].why ? st != NM_EUSAGE || !strstr(err.text, cases[i].why) : st != NM_OK)
      fail_msg("%s of %s: %d %s", cases[i].site, cases[i].model, st, err.text);
    nm_free(s);
    nm_model_close(m);
  }
}

/* ---- a llama file with a window ------------------------------------------------ */

/* reference/phi3 written as a llama file: parts of fused matrices apart, q and k rows in
 * neighbouring pairs. It must compute what phi3 does, window and all. */
struct piece { char name[64]; const uint8_t *data; int64_t rows, cols; int hd; };

static int pieces_of(const nm_model *m, struct piece *p) {
  int n = 0;
#define PIECE(w_, hd_, ...)                                                                        \
  do {                                                                                             \
    struct nm__w w = w_;                                                                           \
    assert_int_equal(w.type, NM__F32);                                                             \
    p[n] = (struct piece){"", w.data, w.rows, w.cols, hd_};                                        \
    snprintf(p[n++].name, 64, __VA_ARGS__);                                                        \
  } while (0)
  PIECE(m->embd, 0, "token_embd.weight");
  PIECE(m->out_norm, 0, "output_norm.weight");
  PIECE(m->output, 0, "output.weight");
  for (int i = 0; i < m->L; i++) {
    const struct nm__layer *l = &m->layer[i];
    PIECE(l->attn_norm, 0, "blk.%d.attn_norm.weight", i);
    PIECE(l->q, m->hd, "blk.%d.attn_q.weight", i);
    PIECE(l->k, m->hd, "blk.%d.attn_k.weight", i);
    PIECE(l->v, 0, "blk.%d.attn_v.weight", i);
    PIECE(l->o, 0, "blk.%d.attn_output.weight", i);
    PIECE(l->mlp_norm, 0, "blk.%d.ffn_norm.weight", i);
    PIECE(l->gate, 0, "blk.%d.ffn_gate.weight", i);
    PIECE(l->up, 0, "blk.%d.ffn_up.weight", i);
    PIECE(l->down, 0, "blk.%d.ffn_down.weight", i);
  }
#undef PIECE
  return n;
}

static void write_piece(struct nm__gguf_writer *w, const struct piece *p) {
  size_t row = (size_t)p->cols * 4;
  for (int64_t r = 0; r < p->rows; r++) {
    int64_t from = r;
    if (p->hd) {                   /* row 2j of a head is row j, row 2j + 1 is row j + hd/2 */
      int64_t j = r % p->hd;
      from = r - j + j / 2 + (j % 2) * (p->hd / 2);
    }
    assert_int_equal(nm__gguf_data(w, p->data + (size_t)from * row, row, NULL), 0);
  }
}

static void write_as_llama(const nm_model *m, const char *path) {
  struct nm__gguf_writer *w;
  struct piece p[64];
  int n = pieces_of(m, p);
  const struct { const char *key; int v; } keys[] = {
      {"context_length", m->n_ctx},     {"embedding_length", m->D},
      {"block_count", m->L},            {"feed_forward_length", m->F},
      {"attention.head_count", m->H},   {"attention.head_count_kv", m->K},
      {"attention.key_length", m->hd},  {"attention.value_length", m->hd},
      {"rope.dimension_count", m->n_rot}, {"attention.sliding_window", m->layer[0].window},
  };
  assert_int_equal(nm__gguf_writer_new(&w, NULL), 0);
  nm__gguf_put_string(w, "general.architecture", "llama");
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    char k[96];
    snprintf(k, sizeof k, "llama.%s", keys[i].key);
    nm__gguf_put_u32(w, k, (uint32_t)keys[i].v);
  }
  nm__gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", m->eps);
  nm__gguf_put_f32(w, "llama.rope.freq_base", 10000);
  for (int i = 0; i < n; i++)
    nm__gguf_announce(w, p[i].name, NM__F32, p[i].rows > 1 ? 2 : 1,
                      (const int64_t[]){p[i].cols, p[i].rows});
  assert_int_equal(nm__gguf_begin(w, path, NULL), 0);
  for (int i = 0; i < n; i++) write_piece(w, &p[i]);
  assert_int_equal(nm__gguf_finish(w, NULL), 0);
  nm__gguf_writer_free(w);
}

static void llama_with_a_window(void **state) {
  (void)state;
  char path[80];
  if (no_shared()) skip();
  snprintf(path, sizeof path, "/tmp/noema_families_test.%ld.gguf", (long)getpid());
  nm_model *phi = open_named("reference/phi3");
  assert_int_equal(phi->layer[0].window, 8);
  write_as_llama(phi, path);
  nm_model *m = open_model(path);
  nm_engine *a = new_engine(phi, (nm_engine_opts){0}), *b = new_engine(m, (nm_engine_opts){0});
  struct rows want = tap_one(a, some_ids, T, "logits|*.resid_post|*.attn.k", "all", NULL);
  struct rows got = tap_one(b, some_ids, T, "logits|*.resid_post|*.attn.k", "all", NULL);
  double worst = 0;
  assert_int_equal(got.n, want.n);
  for (size_t i = 0; i < got.n; i++)
    for (int64_t k = 0; k < got.v[i].n; k++) {
      double d = fabs((double)got.v[i].v[k] - (double)want.v[i].v[k]);
      worst = d > worst ? d : worst;
    }
  print_message("phi3 written as llama with window 8: %.1e\n", worst);
  assert_true(worst < 1e-5);
  rows_done(&want);
  rows_done(&got);
  nm_engine_free(a);
  nm_engine_free(b);
  nm_model_close(m);
  nm_model_close(phi);
  unlink(path);
}

/* Longrope's list follows the engine's context and not the text. */
static void longrope_follows_the_context(void **state) {
  (void)state;
  if (no_shared()) skip();
  nm_model *m = open_named("models/arch/phi3-longrope");
  assert_int_equal(m->long_after, 32);
  struct rows r[3];
  static const int ctx[3] = {32, 33, 64};
  for (int i = 0; i < 3; i++) {
    nm_engine *e = new_engine(m, (nm_engine_opts){.n_ctx = ctx[i]});
    r[i] = tap_one(e, some_ids, T, "logits", "last", NULL);
    nm_engine_free(e);
  }
  assert_memory_equal(r[1].v[0].v, r[2].v[0].v, (size_t)m->V * 4);
  assert_memory_not_equal(r[0].v[0].v, r[2].v[0].v, (size_t)m->V * 4);
  for (int i = 0; i < 3; i++) rows_done(&r[i]);
  nm_model_close(m);
}

int main(void) {
  for (int i = 0; i < T; i++) some_ids[i] = (i * 37 + 5) % 150;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(stream),
      cmocka_unit_test(ends),
      cmocka_unit_test(attention),
      cmocka_unit_test(zero_scores_keep_the_window),
      cmocka_unit_test(missing_sites),
      cmocka_unit_test(llama_with_a_window),
      cmocka_unit_test(longrope_follows_the_context),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
