/* load_experts.c - the experts of a model: their sizes from the metadata, and every expert's
 * matrices as views of their own, whether the file stacks them in one tensor or names each. */
#include "model/load.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST_EXPERTS = 4096 };

/* A count of the metadata, 0 when the key is not there. */
static int count_key(const nm_model *m, const char *name, int most, int *out, nm_err *err) {
  char k[96];
  uint64_t v = 0;
  snprintf(k, sizeof k, "%s.%s", m->arch->name, name);
  int st = nm__gguf_find(m->g, k) ? nm__gguf_uint(m->g, k, &v, err) : NM_OK;
  if (st) return st;
  if (v > (uint64_t)most)
    return nm__fail(err, NM_EFORMAT, "%s: key %s: %llu is more than can be used (%d)", m->path, k,
                    (unsigned long long)v, most);
  *out = (int)v;
  return NM_OK;
}

/* Keys of other mixtures: a scale of the weights, a router that is no softmax. */
static int refuse_other_routers(const nm_model *m, nm_err *err) {
  static const char *const keys[] = {"expert_weights_scale", "expert_gating_func",
                                     "expert_group_count"};
  for (int i = 0; i < 3; i++) {
    char k[96];
    double v;
    snprintf(k, sizeof k, "%s.%s", m->arch->name, keys[i]);
    const struct nm__gguf_kv *kv = nm__gguf_find(m->g, k);
    if (kv && nm__gguf_float_at(kv, 0, &v) && v != 0 && v != 1)
      return nm__fail(err, NM_EFORMAT, "%s: key %s = %g is not supported yet; running without it "
                      "would give wrong results", m->path, k, v);
  }
  return NM_OK;
}

int nm__experts_load(nm_model *m, nm_err *err) {
  const struct nm__arch *a = m->arch;
  struct nm__moe e = {.renormalise = !a->keep_top_k};
  char k[96];
  int st = a->experts ? count_key(m, "expert_count", MOST_EXPERTS, &e.n, err) : NM_OK;
  if (st || !a->experts || (!e.n && a->experts == NM__EXPERTS_MAYBE)) return st;
  if ((st = count_key(m, "expert_used_count", 1 << 24, &e.used, err)) ||
      (st = count_key(m, "expert_feed_forward_length", 1 << 24, &e.F, err)) ||
      (st = count_key(m, "expert_shared_feed_forward_length", 1 << 24, &e.shared_F, err)) ||
      (st = refuse_other_routers(m, err)))
    return st;
  if (e.n < 1 || e.used < 1 || e.used > e.n)
    return nm__fail(err, NM_EFORMAT, "%s: %d experts of which %d are used (keys %s.expert_count "
                    "and %s.expert_used_count): at least one must be used, and not more than there "
                    "are", m->path, e.n, e.used, a->name, a->name);
  snprintf(k, sizeof k, "%s.expert_weights_norm", a->name);
  if (nm__gguf_find(m->g, k) && (st = nm__gguf_bool(m->g, k, &e.renormalise, err))) return st;
  if (!e.F) e.F = a->experts == NM__EXPERTS_MAYBE ? m->F : m->F / e.used;   /* older files */
  if (!a->shared_expert) e.shared_F = 0;
  else if (!e.shared_F) e.shared_F = m->F;
  if (e.F < 1)
    return nm__fail(err, NM_EFORMAT, "%s: experts of width 0 (key %s.expert_feed_forward_length)",
                    m->path, a->name);
  m->moe = e;
  return NM_OK;
}

/* blk.N.STEM_exps.weight, all experts one after the other, or blk.N.STEM.E.weight for each. */
static int bind_matrices(nm_model *m, int il, const char *stem, int64_t rows, int64_t cols,
                         struct nm__w *out, nm_err *err) {
  char name[96];
  struct nm__w all;
  snprintf(name, sizeof name, "blk.%d.%s.0.weight", il, stem);
  bool apart = nm__gguf_tensor(m->g, name) != NULL;
  snprintf(name, sizeof name, "blk.%d.%s_exps.weight", il, stem);
  int st = apart ? NM_OK : nm__bind(m, name, m->moe.n, rows, cols, true, &all, err);
  for (int e = 0; e < m->moe.n && !st; e++) {
    snprintf(name, sizeof name, "blk.%d.%s.%d.weight", il, stem, e);
    if (apart) st = nm__bind(m, name, 1, rows, cols, true, &out[e], err);
    else out[e] = nm__w_rows(all, e * rows, rows);
  }
  return st;
}

/* A tensor of the shared expert. */
static int bind_shared(nm_model *m, int il, const char *stem, int64_t rows, int64_t cols,
                       struct nm__w *out, nm_err *err) {
  char name[96];
  snprintf(name, sizeof name, "blk.%d.%s_shexp.weight", il, stem);
  return nm__bind(m, name, 1, rows, cols, true, out, err);
}

int nm__experts_bind(nm_model *m, int il, struct nm__layer *l, nm_err *err) {
  static const char *const stem[3] = {"ffn_gate", "ffn_up", "ffn_down"};
  char name[96];
  size_t n = (size_t)m->moe.n;
  snprintf(name, sizeof name, "blk.%d.ffn_gate_inp.weight", il);
  int st = nm__bind(m, name, 1, m->moe.n, m->D, true, &l->router, err);
  if (st) return st;               /* so many rows are there: the table is no larger than they */
  l->expert[0] = nm__alloc(3 * n, sizeof *l->expert[0]);
  if (!l->expert[0])
    return nm__fail_memory(err, "the table of experts", 3 * n * sizeof *l->expert[0]);
  for (int i = 0; i < 3 && !st; i++) {
    bool down = i == 2;
    int64_t F = m->moe.F, sF = m->moe.shared_F, D = m->D;
    l->expert[i] = l->expert[0] + (size_t)i * n;
    st = bind_matrices(m, il, stem[i], down ? D : F, down ? F : D, l->expert[i], err);
    if (st || !sF) continue;
    st = bind_shared(m, il, stem[i], down ? D : sF, down ? sF : D, &l->shared[i], err);
  }
  if (st || !m->moe.shared_F) return st;
  return bind_shared(m, il, "ffn_gate_inp", 1, m->D, &l->shared_gate, err);
}
