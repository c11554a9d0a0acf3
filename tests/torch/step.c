/* step.c - ten steps of a small GPT-2 with odd sizes, written out for tests/torch/gpt2_step.py:
 * weights before and after, the first gradient, the batch, and the loss of each step.
 *
 *   step FOLDER THREADS */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "learn/learn.h"

enum { D = 60, H = 5, F = 83, V = 61, L = 3, N_CTX = 23, N_SEQ = 3, STEPS = 10, SLOTS = 2 };
static const int length[N_SEQ] = {13, 7, 22};

/* ---- the model file ------------------------------------------------------------------ */

struct spec { char name[48]; int rows, cols; float mean, size; };

static int specs(struct spec *s) {
  static const struct { const char *name; int rows, cols; float mean, size; } block[] = {
      {"attn_norm.weight", 1, D, 1, 0.3f},     {"attn_norm.bias", 1, D, 0, 0.2f},
      {"attn_qkv.weight", 3 * D, D, 0, 0.3f},  {"attn_qkv.bias", 1, 3 * D, 0, 0.2f},
      {"attn_output.weight", D, D, 0, 0.2f},   {"attn_output.bias", 1, D, 0, 0.2f},
      {"ffn_norm.weight", 1, D, 1, 0.3f},      {"ffn_norm.bias", 1, D, 0, 0.2f},
      {"ffn_up.weight", F, D, 0, 0.3f},        {"ffn_up.bias", 1, F, 0, 0.2f},
      {"ffn_down.weight", D, F, 0, 0.2f},      {"ffn_down.bias", 1, D, 0, 0.2f},
  };
  int n = 0;
  s[n++] = (struct spec){"token_embd.weight", V, D, 0, 0.5f};
  s[n++] = (struct spec){"position_embd.weight", N_CTX, D, 0, 0.3f};
  for (int il = 0; il < L; il++)
    for (size_t i = 0; i < sizeof block / sizeof *block; i++, n++) {
      s[n] = (struct spec){"", block[i].rows, block[i].cols, block[i].mean, block[i].size};
      snprintf(s[n].name, sizeof s[n].name, "blk.%d.%s", il, block[i].name);
    }
  s[n++] = (struct spec){"output_norm.weight", 1, D, 1, 0.3f};
  s[n++] = (struct spec){"output_norm.bias", 1, D, 0, 0.2f};
  return n;
}

static float value(const struct spec *s, int stream, uint64_t i) {
  double unit = (double)(nm__rand_at(17, (uint64_t)stream, i) >> 11) * 0x1p-52 - 1;
  return s->mean + s->size * (float)unit;
}

static int write_model(const char *path, nm_err *err) {
  struct spec s[2 + 12 * L + 2];
  int n = specs(s);
  struct nm__gguf_writer *w;
  int st = nm__gguf_writer_new(&w, err);
  if (st) return st;
  nm__gguf_put_string(w, "general.architecture", "gpt2");
  nm__gguf_put_u32(w, "gpt2.context_length", N_CTX);
  nm__gguf_put_u32(w, "gpt2.embedding_length", D);
  nm__gguf_put_u32(w, "gpt2.block_count", L);
  nm__gguf_put_u32(w, "gpt2.feed_forward_length", F);
  nm__gguf_put_u32(w, "gpt2.attention.head_count", H);
  nm__gguf_put_f32(w, "gpt2.attention.layer_norm_epsilon", 1e-5f);
  for (int i = 0; i < n; i++)
    nm__gguf_announce(w, s[i].name, NM__F32, s[i].rows > 1 ? 2 : 1,
                      (const int64_t[]){s[i].cols, s[i].rows});
  st = nm__gguf_begin(w, path, err);
  for (int i = 0; i < n && !st; i++) {
    size_t count = (size_t)(s[i].rows * s[i].cols);
    float *v = malloc(count * sizeof *v);
    for (size_t k = 0; k < count; k++) v[k] = value(&s[i], i, k);
    st = nm__gguf_data(w, v, count * sizeof *v, err);
    free(v);
  }
  if (!st) st = nm__gguf_finish(w, err);
  nm__gguf_writer_free(w);
  return st;
}

/* ---- what Python reads ------------------------------------------------------------------ */

static FILE *out;

static void tell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void tell(const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vfprintf(out, fmt, ap);
  va_end(ap);
}

/* All learned tensors one after the other, without the padding. */
static void floats(const char *dir, const char *name, const struct nm__params *p, const float *v) {
  char *path = nm__path_join(dir, name);
  FILE *f = fopen(path, "wb");
  for (int i = 0; f && i < p->n; i++)
    fwrite(v + p->v[i].at, sizeof *v, (size_t)(p->v[i].rows * p->v[i].cols), f);
  if (f) fclose(f);
  free(path);
}

static double rate(int step) { return step < 4 ? 1e-3 * (step + 1) : 4e-3 / (step - 2); }

static int steps(const char *dir, struct nm__stepper *s, nm_err *err) {
  static int32_t ids[N_SEQ][N_CTX];
  static float weight[N_SEQ][N_CTX];
  struct nm__optim adamw = {NM__ADAMW, 0.9f, 0.95f, 1e-5f};
  struct nm__sample sample[N_SEQ];
  const struct nm__sample *batch[N_SEQ];
  double loss, total;
  float *state = calloc(2 * s->p->n_floats, sizeof *state);
  for (int q = 0; q < N_SEQ; q++) {
    tell("sequence");
    for (int i = 0; i < length[q]; i++) {
      ids[q][i] = (int32_t)(nm__rand_at(18, (uint64_t)q, (uint64_t)i) % V);
      weight[q][i] = i % 4 == 1 ? 0 : 0.25f * (float)(1 + i % 5);
      tell(" %d:%.9g", ids[q][i], (double)weight[q][i]);
    }
    tell("\n");
    sample[q] = (struct nm__sample){.ids = ids[q], .weight = weight[q], .n = length[q]};
    batch[q] = &sample[q];
  }
  floats(dir, "before", s->p, s->p->values);
  int st = NM_OK;
  for (int t = 0; t < STEPS && !st; t++) {
    st = nm__step_batch(s, batch, N_SEQ, SLOTS, NULL, 0, true, &loss, &total, err);
    if (!t) floats(dir, "gradient", s->p, s->grad);
    double norm = nm__step_clip(s, 1);
    tell("step %.17g %.17g %.17g\n", loss, norm, rate(t));
    for (int i = 0; i < s->p->n && !st; i++) {
      const struct nm__learned *v = &s->p->v[i];
      nm__optim_step(&s->ops, &adamw, s->p->values + v->at, s->grad + v->at, state + 2 * v->at,
                     v->rows, v->cols, (float)rate(t), nm__params_decays(v) ? 0.1f : 0, t + 1);
    }
  }
  floats(dir, "after", s->p, s->p->values);
  free(state);
  return st;
}

static int all(const char *dir, int threads, nm_err *err) {
  static const char *const globs[] = {"*"};
  char *path = nm__path_join(dir, "model.gguf"), *told = nm__path_join(dir, "told");
  nm_model *base = NULL, *m = NULL;
  struct nm__gguf *g;
  struct nm__params p = {0};
  struct nm__stepper s = {0};
  out = fopen(told, "w");
  int st = write_model(path, err);
  if (!st) st = nm_model_open(path, &base, err);
  if (!st) st = nm__params_make(base->g, globs, 1, &g, &p, err);
  if (!st) st = nm__model_from(g, &m, err);
  if (!st) st = nm__stepper_init(&s, m, &p, threads, NULL, err);
  for (int i = 0; i < p.n; i++)
    tell("tensor %s %lld %lld\n", p.v[i].name, (long long)p.v[i].rows, (long long)p.v[i].cols);
  if (!st) tell("heads %d\n", H);
  if (!st) st = steps(dir, &s, err);
  nm__stepper_done(&s);
  nm_model_close(m);
  nm__params_done(&p);
  nm_model_close(base);
  fclose(out);
  free(path);
  free(told);
  return st;
}

int main(int n, char **v) {
  nm_err err = {0};
  if (n != 3) return 2;
  if (!all(v[1], atoi(v[2]), &err)) return 0;
  fprintf(stderr, "step: %s\n", err.text);
  return 1;
}
