/* train.c - a training run as small as can be, for tests/cli/crash_test.sh: all weights of the
 * planted model, AdamW and Muon, random ids by (seed, sample), a checkpoint every two steps of
 * which one stays. It goes on from the newest whole checkpoint, and says from which.
 *
 *   train MODEL DIR THREADS STEPS [CHECKPOINT TO GO ON FROM] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "learn/ckpt.h"

enum { BATCH = 3, LEN = 12, SLOTS = 2, EVERY = 2, SEED = 5 };

struct run {
  nm_model *base, *m;
  struct nm__params p;
  struct nm__moments s;
  struct nm__stepper step;
  struct nm__ckpt at;
  enum nm__optim_kind *kind;
};

static int open_run(struct run *r, const char *path, int threads, nm_err *err) {
  static const char *const all[] = {"*"};
  struct nm__gguf *g;
  int st = nm_model_open(path, &r->base, err);
  if (!st) st = nm__params_make(r->base->g, all, 1, &g, &r->p, err);
  if (!st) st = nm__model_from(g, &r->m, err);
  if (!st) st = nm__stepper_init(&r->step, r->m, &r->p, threads, NULL, err);
  if (st) return st;
  r->kind = calloc((size_t)r->p.n, sizeof *r->kind);
  for (int i = 0; i < r->p.n; i++)
    r->kind[i] = strstr(r->p.v[i].name, "attn_q.weight") ? NM__MUON : NM__ADAMW;
  r->at.seed = SEED;
  nm__gguf_hash(r->base->g, r->at.base);
  return nm__moments_make(&r->p, r->kind, &r->s, err);
}

static void close_run(struct run *r) {
  nm__stepper_done(&r->step);
  nm__moments_done(&r->s, &r->p);
  nm_model_close(r->m);
  nm__params_done(&r->p);
  nm_model_close(r->base);
  free(r->kind);
}

static int one_step(struct run *r, nm_err *err) {
  static const struct nm__optim adamw = {NM__ADAMW, 0.9f, 0.95f, 1e-8f},
                                muon = {NM__MUON, 0.9f, 0.95f, 1e-8f};
  int32_t ids[BATCH][LEN];
  float weight[LEN];
  struct nm__sample sample[BATCH];
  const struct nm__sample *batch[BATCH];
  double total;
  for (int i = 0; i < LEN; i++) weight[i] = 1;
  for (int s = 0; s < BATCH; s++) {
    for (int i = 0; i < LEN; i++)
      ids[s][i] = (int32_t)(nm__rand_at(SEED, (uint64_t)(r->at.samples + s), (uint64_t)i) %
                            (uint64_t)r->m->V);
    sample[s] = (struct nm__sample){.ids = ids[s], .weight = weight, .n = LEN};
    batch[s] = &sample[s];
  }
  int st = nm__step_batch(&r->step, batch, BATCH, SLOTS, NULL, 0, true, &r->at.loss, &total, err);
  if (st) return st;
  nm__step_clip(&r->step, 1);
  r->at.step++;
  r->at.samples += BATCH;
  for (int i = 0; i < r->p.n; i++) {
    const struct nm__learned *v = &r->p.v[i];
    nm__optim_step(&r->step.ops, r->kind[i] == NM__MUON ? &muon : &adamw, r->p.values + v->at,
                   r->step.grad + v->at, r->s.v[i], v->rows, v->cols, 1e-3f,
                   nm__params_decays(v) ? 0.1f : 0, r->at.step);
    nm__tape_reset(&r->step.ops);
  }
  if (r->step.ops.err.status && err) *err = r->step.ops.err;
  return r->step.ops.err.status;
}

static int train(struct run *r, const char *dir, int64_t steps, int64_t from, nm_err *err) {
  struct nm__ckpt_found found;
  struct nm__keep keep = {1, 0};
  int st = nm__ckpt_load(dir, from, &r->at, &r->p, &r->s, &found, err);
  if (st && !found.none) return st;
  if (!st) r->at = found.at;
  printf("%lld\n", (long long)r->at.step);
  for (st = found.none ? NM_OK : nm__ckpt_tidy(dir, r->at.step, &keep, err); r->at.step < steps && !st;) {
    st = one_step(r, err);
    if (!st && (r->at.step % EVERY == 0 || r->at.step == steps))
      st = nm__ckpt_save(dir, &r->at, r->m->g, &r->p, &r->s, &keep, err);
  }
  return st;
}

int main(int n, char **v) {
  struct run r = {0};
  nm_err err = {0};
  if (n < 5) return 2;
  int st = open_run(&r, v[1], atoi(v[3]), &err);
  if (!st) st = train(&r, v[2], atoi(v[4]), n > 5 ? atoi(v[5]) : -1, &err);
  if (st) fprintf(stderr, "train: %s\n", err.text);
  close_run(&r);
  return st ? 1 : 0;
}
