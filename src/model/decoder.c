/* decoder.c - the one forward pass, of decoders and encoders. The block is read off the
 * architecture row; every intermediate passes through site(), where taps read and edits
 * change it.
 *
 *   x ── resid_pre ─┬─ norm ─ q k v ─ [norm] ─ rope ─ attention ─ o ─ [norm] ─ attn_out ─(+)─┐
 *                   └───────────────────────────────────────────────────────────────────────┤
 *     ┌─────────────────────────────────── resid_mid ───────────────────────────────────────┘
 *     ├─ mlp_norm ─ gate, up ─ act ─ down ─ [norm] ─ mlp_out ─(+)─ resid_post ─> next block
 *     └────────────────────────────────────────────────────────┘
 *
 * In an encoder a norm follows each (+): there the stream itself is normalised. What stands
 * in brackets, and which norms there are at all, the row and the file decide.
 * Arena: the residual stream lives in two buffers that blocks hand back and forth;
 * everything a block makes besides is released when it ends. */
#include "model/model.h"

#include <string.h>

#include "tensor/tape.h"

static bool ok(const struct nm__forward *f) { return !f->ops->err.status; }

static void site_rows(struct nm__forward *f, int site, int layer, struct nm__t *t,
                      const int32_t *rows, const struct nm__route *route) {
  const struct nm__visitor *v = f->vis;
  if (!v || !ok(f) || (f->ops->mode == NM__MEASURE && !f->ops->tape)) return;
  if (v->wants(v->arg, site, layer)) v->visit(v->arg, site, layer, t, rows, route);
}

static void site(struct nm__forward *f, int s, int layer, struct nm__t *t) {
  site_rows(f, s, layer, t, NULL, NULL);
}

/* ---- ops with this model's facts --------------------------------------- */

static struct nm__t add(struct nm__forward *f, struct nm__t x, struct nm__t y) {
  return nm__op(f->ops, NM__OP_ADD, &(struct nm__op_args){.x = x, .y = y});
}

/* The first of the list that stands beside the weight, or one behind all of them. */
static int lora_of(const struct nm__forward *f, const uint8_t *data) {
  int lo = 0, hi = f->n_lora;
  while (lo < hi) {
    int mid = (lo + hi) / 2;
    if (f->lora[mid].data < data) lo = mid + 1;
    else hi = mid;
  }
  return lo;
}

/* y and what adapters and edits of weights add to it beside w: to rows of x by `with` (A, then B),
 * or to looked-up rows. */
static struct nm__t beside(struct nm__forward *f, struct nm__t y, const uint8_t *w,
                           struct nm__op_args with) {
  for (int i = f->n_lora ? lora_of(f, w) : 0; i < f->n_lora && f->lora[i].data == w; i++) {
    const struct nm__lora *l = &f->lora[i];
    struct nm__op_args a = with, b = {.w = l->b, .route = with.route, .experts = l->expert[1]};
    if (l->lookup != (with.n_ids > 0) || !l->expert[0] != !with.route) continue;
    a.w = l->a;
    a.experts = l->expert[0];
    b.x = nm__op(f->ops, l->lookup ? NM__OP_EMBED : with.route ? NM__OP_EXPERTS : NM__OP_MATMUL,
                 &a);
    struct nm__t low = nm__op(f->ops, with.route ? NM__OP_EXPERTS : NM__OP_MATMUL, &b);
    low = nm__op(f->ops, NM__OP_SCALE, &(struct nm__op_args){.x = low, .scale = l->scale});
    y = add(f, y, low);
  }
  return y;
}

static struct nm__t matmul(struct nm__forward *f, struct nm__t x, struct nm__w w,
                           struct nm__w bias) {
  struct nm__op_args a = {.x = x, .w = w, .bias = bias};
  struct nm__t y = nm__op(f->ops, NM__OP_MATMUL, &a);
  return beside(f, y, w.data, (struct nm__op_args){.x = x});
}

static struct nm__t lookup(struct nm__forward *f, struct nm__w w, const int32_t *ids) {
  struct nm__op_args a = {.w = w, .ids = ids, .n_ids = f->T};
  return beside(f, nm__op(f->ops, NM__OP_EMBED, &a), w.data, a);
}

static struct nm__t norm(struct nm__forward *f, struct nm__t x, struct nm__w w, struct nm__w b) {
  return nm__op(f->ops, f->m->arch->layernorm ? NM__OP_LAYERNORM : NM__OP_RMSNORM,
                &(struct nm__op_args){.x = x, .w = w, .bias = b, .eps = f->m->eps});
}

/* RMSNorm of q or k, over each head or over all of them as one row. */
static struct nm__t qk_norm(struct nm__forward *f, struct nm__t x, struct nm__w w) {
  struct nm__t rows = x;
  if (f->m->arch->qk_norm == NM__QK_NORM_HEAD) {
    rows.rows = x.rows * x.cols / f->m->hd;
    rows.cols = f->m->hd;
  }
  rows = nm__op(f->ops, NM__OP_RMSNORM,
                &(struct nm__op_args){.x = rows, .w = w, .eps = f->m->eps});
  x.d = rows.d;
  x.node = rows.node;
  return x;
}

/* q or k of all heads: product, Hugging Face order, raw site, norm, rotation, site. */
static struct nm__t head_input(struct nm__forward *f, int il, struct nm__t h, struct nm__w w,
                               struct nm__w b, struct nm__w nw, const float *rope, int raw,
                               int cooked) {
  const nm_model *m = f->m;
  struct nm__t t = matmul(f, h, w, b);
  struct nm__op_args a = {.x = t, .head_dim = m->hd, .rope = rope, .rope_n = m->n_rot,
                          .rope_pair = m->permuted ? m->hd / 2 : m->n_rot / 2};
  if (m->permuted) a.x = t = nm__op(f->ops, NM__OP_UNPERMUTE, &a);
  site(f, raw, il, &t);
  a.x = t;
  if (nw.data) a.x = t = qk_norm(f, t, nw);
  if (m->n_rot) t = nm__op(f->ops, NM__OP_ROPE, &a);
  site(f, cooked, il, &t);
  return t;
}

struct hook { struct nm__forward *f; int layer; bool scores, pattern; };

static void attention_row(void *arg, bool after, int row, int head, float *v, int first,
                          int n) {
  struct hook *h = arg;
  if (after ? !h->pattern : !h->scores) return;
  h->f->vis->visit_row(h->f->vis->arg, after ? NM__S_PATTERN : NM__S_SCORES, h->layer, row, head, v,
                       first, n);
}

static struct nm__t attention(struct nm__forward *f, int il, struct nm__t q, struct nm__t k,
                              struct nm__t v) {
  const nm_model *m = f->m;
  const struct nm__visitor *vis = f->ops->mode == NM__MEASURE ? NULL : f->vis;
  struct hook h = {f, il, vis && vis->wants(vis->arg, NM__S_SCORES, il),
                   vis && vis->wants(vis->arg, NM__S_PATTERN, il)};
  struct nm__attn_hook hook = {attention_row, &h};
  int slot = m->causal ? il : 0;   /* what no later chunk reads is kept for one block only */
  struct nm__op_args a = {.x = k, .y = v, .kv = f->kv, .layer = slot, .spans = f->spans,
                          .n_spans = f->n_spans};
  nm__op(f->ops, NM__OP_KV_APPEND, &a);
  a = (struct nm__op_args){.x = q,
                           .kv = f->kv,
                           .layer = slot,
                           .spans = f->spans,
                           .n_spans = f->n_spans,
                           .n_head = m->H,
                           .n_kv = m->K,
                           .head_dim = m->hd,
                           .max_keys = f->max_keys,
                           .scale = m->score_scale,
                           .cap = m->attn_cap,
                           .window = m->layer[il].window,
                           .all_keys = !m->causal,
                           .hook = h.scores || h.pattern ? &hook : NULL};
  struct nm__t z = nm__op(f->ops, NM__OP_ATTENTION, &a);
  if (h.scores) site(f, NM__S_SCORES, il, &z);         /* their rows have all been seen: hand on */
  if (h.pattern) site(f, NM__S_PATTERN, il, &z);
  return z;
}

/* ---- one block ------------------------------------------------------------ */

/* What a half reads: the stream through its norm, or (olmo2) the stream itself. */
static struct nm__t half_input(struct nm__forward *f, int il, struct nm__t x, struct nm__w w,
                               struct nm__w b, int s) {
  if (!w.data) return x;
  x = norm(f, x, w, b);
  site(f, s, il, &x);
  return x;
}

/* What a half adds to the stream: its product, through a norm where one follows. */
static struct nm__t half_output(struct nm__forward *f, int il, struct nm__t o, struct nm__w post,
                                int raw, int out) {
  if (post.data) {
    site(f, raw, il, &o);
    o = norm(f, o, post, (struct nm__w){0});
  }
  site(f, out, il, &o);
  return o;
}

/* The stream with a half's output added, in encoders normalised after that. */
static struct nm__t half_sum(struct nm__forward *f, int il, struct nm__t x, struct nm__t y,
                             struct nm__w w, struct nm__w b, int raw, int s) {
  struct nm__t sum = add(f, x, y);
  if (w.data) {
    site(f, raw, il, &sum);
    sum = norm(f, sum, w, b);
  }
  site(f, s, il, &sum);
  return sum;
}

static struct nm__t attention_half(struct nm__forward *f, int il, struct nm__t h,
                                   const float *rope) {
  const struct nm__layer *l = &f->m->layer[il];
  if (rope) rope += (size_t)l->rope * (size_t)f->T * (size_t)f->m->n_rot;
  struct nm__t q = head_input(f, il, h, l->q, l->q_b, l->q_norm, rope, NM__S_Q_RAW, NM__S_Q);
  struct nm__t k = head_input(f, il, h, l->k, l->k_b, l->k_norm, rope, NM__S_K_RAW, NM__S_K);
  struct nm__t v = matmul(f, h, l->v, l->v_b);
  site(f, NM__S_V, il, &v);
  struct nm__t z = attention(f, il, q, k, v);
  site(f, NM__S_HEAD, il, &z);
  struct nm__t o = matmul(f, z, l->o, l->o_b);
  return half_output(f, il, o, l->attn_post, NM__S_ATTN_RAW, NM__S_ATTN_OUT);
}

/* act(gate x) * up x; act(up x) where there is no gate. Sites s, s + 1, s + 2. */
static struct nm__t activation(struct nm__forward *f, int il, struct nm__t gate, struct nm__t up,
                               int s, const struct nm__route *route) {
  if (gate.rows) site_rows(f, s, il, &gate, NULL, route);
  site_rows(f, s + 1, il, &up, NULL, route);
  struct nm__op_args a = {.x = gate.rows ? gate : up, .act = nm__act_of(f->m, f->gelu)};
  if (gate.rows) a.y = up;
  struct nm__t act = nm__op(f->ops, gate.rows ? NM__OP_ACT_MUL : NM__OP_ACT, &a);
  site_rows(f, s + 2, il, &act, NULL, route);
  return act;
}

static struct nm__t dense_mlp(struct nm__forward *f, int il, struct nm__t h) {
  const struct nm__layer *l = &f->m->layer[il];
  struct nm__t gate = {0};
  if (f->m->arch->gated) gate = matmul(f, h, l->gate, l->gate_b);
  struct nm__t up = matmul(f, h, l->up, l->up_b);
  return matmul(f, activation(f, il, gate, up, NM__S_GATE, NULL), l->down, l->down_b);
}

/* The expert that every position goes through, times the sigmoid of its own gate. */
static struct nm__t shared_expert(struct nm__forward *f, int il, struct nm__t h) {
  const struct nm__layer *l = &f->m->layer[il];
  const struct nm__w none = {0};
  struct nm__t w = matmul(f, h, l->shared_gate, none);
  w = nm__op(f->ops, NM__OP_SIGMOID, &(struct nm__op_args){.x = w});
  site(f, NM__S_SHARED_WEIGHT, il, &w);
  struct nm__t gate = matmul(f, h, l->shared[0], none), up = matmul(f, h, l->shared[1], none);
  struct nm__t o = activation(f, il, gate, up, NM__S_SHARED_GATE, NULL);
  o = matmul(f, o, l->shared[2], none);
  o = nm__op(f->ops, NM__OP_ROW_SCALE, &(struct nm__op_args){.x = o, .y = w});
  site(f, NM__S_SHARED_OUT, il, &o);
  return o;
}

static struct nm__t experts(struct nm__forward *f, struct nm__t x, const struct nm__w *w,
                            struct nm__route *r) {
  struct nm__op_args a = {.x = x, .experts = w, .route = r};
  return beside(f, nm__op(f->ops, NM__OP_EXPERTS, &a), w[0].data, a);
}

/* The router's probabilities choose the experts of a position; only these are computed. */
static struct nm__t moe_mlp(struct nm__forward *f, int il, struct nm__t h) {
  const struct nm__layer *l = &f->m->layer[il];
  const struct nm__moe *moe = &f->m->moe;
  struct nm__route here, *r = nm__route_take(f->ops, h.rows, moe->n, moe->used, &here);
  struct nm__op_args a = {.x = matmul(f, h, l->router, (struct nm__w){0})};
  struct nm__t p = nm__op(f->ops, NM__OP_SOFTMAX, &a);
  site(f, NM__S_ROUTER, il, &p);
  a = (struct nm__op_args){.x = p, .route = r, .renormalise = moe->renormalise};
  struct nm__t w = nm__op(f->ops, NM__OP_TOP_K, &a);
  site(f, NM__S_MOE_WEIGHTS, il, &w);
  a = (struct nm__op_args){.x = h, .ids = r->pos, .n_ids = h.rows * moe->used};
  struct nm__t x = nm__op(f->ops, NM__OP_GATHER, &a);
  struct nm__t gate = experts(f, x, l->expert[0], r), up = experts(f, x, l->expert[1], r);
  struct nm__t act = activation(f, il, gate, up, NM__S_MOE_GATE, r);
  a = (struct nm__op_args){.x = experts(f, act, l->expert[2], r), .y = w, .route = r};
  struct nm__t o = nm__op(f->ops, NM__OP_COMBINE, &a);
  return l->shared_gate.data ? add(f, o, shared_expert(f, il, h)) : o;
}

static struct nm__t mlp_half(struct nm__forward *f, int il, struct nm__t h) {
  struct nm__t o = f->m->moe.n ? moe_mlp(f, il, h) : dense_mlp(f, il, h);
  return half_output(f, il, o, f->m->layer[il].mlp_post, NM__S_MLP_RAW, NM__S_MLP_OUT);
}

/* Block il of x. In a parallel block the MLP reads what attention read, through a norm of its own
 * or (falcon) through the same; the sum (x + attn_out) + mlp_out is the same as elsewhere, and
 * its middle is no site. */
static struct nm__t block(struct nm__forward *f, int il, struct nm__t x, const float *rope) {
  site(f, NM__S_RESID_PRE, il, &x);
  const struct nm__layer *l = &f->m->layer[il];
  struct nm__t h = half_input(f, il, x, l->attn_norm, l->attn_norm_b, NM__S_ATTN_NORM);
  struct nm__t mid = half_sum(f, il, x, attention_half(f, il, h, rope), l->attn_sum,
                              l->attn_sum_b, NM__S_RESID_MID_RAW, NM__S_RESID_MID);
  if (!f->m->one_norm)
    h = half_input(f, il, f->m->parallel ? x : mid, l->mlp_norm, l->mlp_norm_b, NM__S_MLP_NORM);
  if (il == f->last_layer && f->stop_before_mlp) return x;
  return half_sum(f, il, mid, mlp_half(f, il, h), l->mlp_sum, l->mlp_sum_b, NM__S_RESID_POST_RAW,
                  NM__S_RESID_POST);
}

/* One block that is computed again on the way back: what it needs to know then. */
struct again { struct nm__forward *f; int il; const float *rope; };

static struct nm__t block_again(void *arg, struct nm__ops *o, struct nm__t x) {
  const struct again *a = arg;
  (void)o;
  return block(a->f, a->il, x, a->rope);
}

/* Without a tape the result takes the place of x, and what the block made besides is released. */
static void next_block(struct nm__forward *f, int il, struct nm__t *x, const float *rope) {
  struct nm__ops *o = f->ops;
  size_t mark = o->arena.used;
  if (o->tape && f->again) {
    struct again *a = nm__tape_keep(o, sizeof *a);
    if (!a) return;
    *a = (struct again){f, il, rope};
    *x = nm__tape_stretch(o, block_again, a, *x);
  } else if (o->tape) {
    *x = block(f, il, *x, rope);
  } else {
    struct nm__t post = block(f, il, *x, rope);
    if (ok(f) && o->mode != NM__MEASURE && post.d != x->d)
      memcpy(x->d, post.d, sizeof(float) * (size_t)(x->rows * x->cols));
    o->arena.used = mark;
  }
}

/* ---- trunk ------------------------------------------------------------------ */

/* x plus one row of w a position: the row of its place, or row 0. */
static struct nm__t add_rows(struct nm__forward *f, struct nm__t x, struct nm__w w, bool by_place) {
  int32_t *ids = nm__arena_take(&f->ops->arena, sizeof(int32_t) * (size_t)f->T);
  if (ids && f->ops->mode != NM__MEASURE)
    for (int s = 0; s < f->n_spans; s++)
      for (int i = 0; i < f->spans[s].n; i++)
        ids[f->spans[s].row0 + i] = by_place ? f->spans[s].first + i : 0;
  return add(f, x, lookup(f, w, ids));
}

/* x with the rows inject_at replaced by those of inject. */
static struct nm__t inject(struct nm__forward *f, struct nm__t x) {
  struct nm__t keep = x;
  size_t bytes = sizeof(float) * (size_t)(x.rows * x.cols);
  keep.node = 0;
  keep.d = nm__arena_take(&f->ops->arena, bytes);
  if (!keep.d) nm__fail(&f->ops->err, NM_EMEMORY, "the arena is too small for injected rows");
  if (ok(f) && f->ops->mode != NM__MEASURE) {
    for (int64_t i = 0; i < x.rows * x.cols; i++) keep.d[i] = 1.0f;
    for (int i = 0; i < f->n_inject; i++)
      memset(keep.d + (int64_t)f->inject_at[i] * x.cols, 0, sizeof(float) * (size_t)x.cols);
  }
  x = nm__op(f->ops, NM__OP_MUL, &(struct nm__op_args){.x = x, .y = keep});
  struct nm__op_args a = {.x = f->inject, .ids = f->inject_at, .n_ids = f->n_inject,
                          .rows = f->T};
  return add(f, x, nm__op(f->ops, NM__OP_SCATTER, &a));
}

static struct nm__t embed(struct nm__forward *f) {
  const nm_model *m = f->m;
  struct nm__t x = lookup(f, m->embd, f->ids);
  if (m->arch->embd_scale) {
    struct nm__op_args a = {.x = x, .scale = __builtin_sqrtf((float)m->D)};
    x = nm__op(f->ops, NM__OP_SCALE, &a);
  }
  if (m->type_embd.data) x = add_rows(f, x, m->type_embd, false);
  if (m->arch->learned_pos) x = add_rows(f, x, m->pos, true);
  if (m->embd_norm.data) {
    site(f, NM__S_EMBED_RAW, -1, &x);
    x = norm(f, x, m->embd_norm, m->embd_norm_b);
  }
  if (f->n_inject) x = inject(f, x);
  site(f, NM__S_EMBED, -1, &x);
  return x;
}

/* The stream as another run left it before block first_layer. */
static struct nm__t begin_at(struct nm__forward *f) {
  struct nm__t x = {.rows = f->T, .cols = f->m->D};
  size_t bytes = sizeof(float) * (size_t)(x.rows * x.cols);
  x.d = nm__arena_take(&f->ops->arena, bytes);
  if (!x.d) nm__fail(&f->ops->err, NM_EMEMORY, "the arena is too small for the stream");
  else if (f->ops->mode != NM__MEASURE) memcpy(x.d, f->start, bytes);
  return x;
}

enum { HEAD_ROWS = 32, HEAD_ROWS_TAPE = 256 };         /* rows of logits that exist at once */

static void head(struct nm__forward *f, struct nm__t x) {
  int most = f->ops->tape ? HEAD_ROWS_TAPE : HEAD_ROWS;
  for (int i = 0; i < f->n_head_rows && ok(f); i += most) {
    size_t mark = f->ops->arena.used;
    int n = f->n_head_rows - i < most ? f->n_head_rows - i : most;
    const int32_t *rows = f->head_rows ? f->head_rows + i : NULL;        /* NULL: measuring */
    struct nm__op_args a = {.x = x, .ids = rows, .n_ids = n};
    struct nm__t h = nm__op(f->ops, NM__OP_GATHER, &a);
    h = norm(f, h, f->m->out_norm, f->m->out_norm_b);
    site_rows(f, NM__S_FINAL_NORM, -1, &h, rows, NULL);
    if (f->head) {
      struct nm__t z = matmul(f, h, f->m->output, (struct nm__w){0});
      a = (struct nm__op_args){.x = z, .cap = f->m->final_cap};
      if (a.cap > 0) z = nm__op(f->ops, NM__OP_SOFT_CAP, &a);
      site_rows(f, NM__S_LOGITS, -1, &z, rows, NULL);
    }
    if (f->ops->tape) continue;
    f->ops->arena.used = mark;
    if (f->ops->mode == NM__MEASURE) break;
  }
}

int nm__forward_end(struct nm__forward *f, struct nm__t x) {
  if (!f->ops->tape) f->ops->arena.used = 0;
  head(f, x);
  return f->ops->err.status;
}

int nm__forward(struct nm__forward *f) {
  struct nm__ops *o = f->ops;
  if (!o->tape) o->arena.used = 0;                     /* a tape may hold earlier passes */
  float *rope = NULL;
  if (f->m->n_rot) {
    size_t one = (size_t)f->T * (size_t)f->m->n_rot;
    rope = nm__arena_take(&o->arena, sizeof(float) * one * (size_t)f->m->n_rope);
    if (!rope) return nm__fail(&o->err, NM_EMEMORY, "the arena is too small for rotary angles");
    for (int i = 0; i < f->m->n_rope && o->mode != NM__MEASURE; i++)
      nm__rope_table(f->m, i, f->n_ctx, f->spans, f->n_spans, rope + (size_t)i * one);
  }
  struct nm__t x = f->start ? begin_at(f) : embed(f);
  for (int il = f->first_layer; il <= f->last_layer && ok(f); il++) next_block(f, il, &x, rope);
  if (f->n_head_rows && ok(f)) head(f, x);
  return o->err.status;
}
