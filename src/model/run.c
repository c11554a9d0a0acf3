/* run.c - the driver: takes a request through the model in groups of sequences and
 * chunks of positions, applies edits and hands tapped rows to the caller.
 *
 * A group's sequences advance together; each forward takes the next chunk of every
 * unfinished one. Because nothing in the forward depends on chunk or batch, neither do
 * the rows. */
#include "model/adapter.h"
#include "model/drive.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tensor/math.h"

struct nm_engine {
  const nm_model *m;
  const struct nm__kern *kern;
  struct nm__pool *pool;
  int n_ctx, chunk, batch;
  enum nm__gelu gelu;
  const nm_adapters *adapters;
  struct nm__deltas beside;        /* of the model's own adapters and of these */
  bool bf16;
};

static const char *const gelu_name[] = {
    [NM__GELU_OWN] = "", [NM__GELU_TANH] = "tanh", [NM__GELU_ERF] = "erf"};

static bool gelu_by_name(const char *name, enum nm__gelu *out) {
  *out = NM__GELU_OWN;
  for (int i = NM__GELU_TANH; name && i <= NM__GELU_ERF; i++)
    if (!strcmp(name, gelu_name[i])) *out = (enum nm__gelu)i;
  return !name || *out != NM__GELU_OWN;
}

static int put_adapters(nm_engine *e, nm_err *err) {
  const nm_adapters *own = e->m->adapters, *more = e->adapters;
  if (more && more->m != e->m)
    return nm__fail(err, NM_EUSAGE, "%s: the adapters were loaded for another model", e->m->path);
  int st = own ? nm__deltas_join(&e->beside, own->d.v, own->d.n, err) : NM_OK;
  return st || !more ? st : nm__deltas_join(&e->beside, more->d.v, more->d.n, err);
}

int nm_engine_new(const nm_model *m, const nm_engine_opts *o, nm_engine **out, nm_err *err) {
  nm_engine_opts zero = {0};
  *out = NULL;
  if (!o) o = &zero;
  if (!m->arch)
    return nm__fail(err, NM_EFORMAT, "%s: holds only a vocabulary, no model to run", m->path);
  enum nm__gelu gelu;
  if (!gelu_by_name(o->gelu, &gelu))
    return nm__fail(err, NM_EUSAGE, "gelu '%.40s' is not known (known: tanh, erf)", o->gelu);
  if (o->act && strcmp(o->act, "f32") && strcmp(o->act, "bf16"))
    return nm__fail(err, NM_EUSAGE, "act '%.40s' is not known (known: f32, bf16)", o->act);
  const struct nm__kern *k = nm__kern_find(o->kernels);
  if (!k) return nm__kern_none(o->kernels, err);
  if (o->threads < 0 || o->threads > 1024 || o->n_ctx < 0 || o->chunk < 0 || o->batch < 0)
    return nm__fail(err, NM_EUSAGE, "threads, context, chunk and batch must not be negative");
  if (m->arch->learned_pos && o->n_ctx > m->n_ctx)
    return nm__fail(err, NM_EUSAGE,
                    "a context of %d was asked for, but %s has positions for %d only", o->n_ctx,
                    m->path, m->n_ctx);
  nm_engine *e = nm__alloc(1, sizeof *e);
  if (!e) return nm__fail_memory(err, "an engine", sizeof *e);
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  *e = (nm_engine){.m = m, .kern = k, .n_ctx = o->n_ctx ? o->n_ctx : m->n_ctx,
                   .chunk = o->chunk ? o->chunk : 512, .batch = o->batch, .gelu = gelu,
                   .adapters = o->adapters, .bf16 = o->act && !strcmp(o->act, "bf16")};
  if (!m->causal) e->chunk = e->n_ctx;         /* each position reads all keys of its text */
  int st = put_adapters(e, err);
  if (!st) st = nm__pool_new(o->threads ? o->threads : (int)(cores > 0 ? cores : 1), &e->pool, err);
  if (st) {
    nm_engine_free(e);
    return st;
  }
  *out = e;
  return NM_OK;
}

void nm_engine_free(nm_engine *e) {
  if (!e) return;
  nm__deltas_done(&e->beside);
  nm__pool_free(e->pool);
  free(e);
}

const char *nm_engine_kernels(const nm_engine *e) { return e->kern->name; }
const char *nm_engine_act(const nm_engine *e) { return e->bf16 ? "bf16" : "f32"; }
int nm_engine_threads(const nm_engine *e) { return nm__pool_size(e->pool); }

const nm_model *nm__engine_model(const nm_engine *e) { return e->m; }
int nm__engine_ctx(const nm_engine *e) { return e->n_ctx; }
int nm__engine_chunk(const nm_engine *e) { return e->chunk; }
const char *nm__engine_gelu(const nm_engine *e) { return gelu_name[e->gelu]; }
struct nm__pool *nm__engine_pool(const nm_engine *e) { return e->pool; }
const nm_adapters *nm__engine_adapters(const nm_engine *e) { return e->adapters; }
const struct nm__lora *nm__engine_lora(const nm_engine *e, int *n) {
  *n = e->beside.n;
  return e->beside.v;
}

/* The model's own adapters are in its hash. */
void nm__engine_key(const nm_engine *e, struct nm__buf *b) {
  nm__buf_puts(b, gelu_name[e->gelu]);
  nm__adapters_key(e->adapters, b);
}
const struct nm__kern *nm__engine_kern(const nm_engine *e) { return e->kern; }

/* ---- the state of one run ------------------------------------------------ */

static void masks_free(uint8_t **v, int n) {
  for (int i = 0; v && i < n; i++) free(v[i]);
  free(v);
}

static uint8_t *mask_of(struct nm__run *R, const struct nm__at *at, const nm_seq *s) {
  int *pos, n;
  R->status = nm__at_resolve(at, R->e->m, s, &pos, &n, R->err);
  if (R->status) return NULL;
  uint8_t *mask = nm__alloc(s->n, 1);
  for (int i = 0; mask && i < n; i++) mask[pos[i]] = 1;
  free(pos);
  if (!mask) R->status = nm__fail_memory(R->err, "positions", s->n);
  return mask;
}

int nm__run_check_edit(const struct nm__edit *e, int i, const uint8_t *mask, int from, int n,
                       nm_err *err) {
  int p = (int64_t)from > e->vec.pos ? from : (int)e->vec.pos;
  for (; e->vec.pos > 1 && p < n; p++)
    if (mask[p])
      return nm__fail(err, NM_EFORMAT, "edit %d (%s): the vector file has %lld positions, none for "
                      "position %d", i + 1, e->what, (long long)e->vec.pos, p);
  return NM_OK;
}

static int activate(struct nm__run *R, struct active *a, size_t seq, int slot) {
  const nm_seq *s = &R->r->seqs[seq];
  int n_edits = nm__edits_acts(R->r->edits);
  *a = (struct active){.seq = seq, .len = (int)s->n, .at = R->plan.prefix, .slot = slot,
                       .n_prompt = (int)s->n};
  a->tap_mask = nm__alloc((size_t)R->plan.n_taps, sizeof *a->tap_mask);
  a->edit_mask = nm__alloc((size_t)n_edits, sizeof *a->edit_mask);
  if (!a->tap_mask || !a->edit_mask) return nm__fail_memory(R->err, "positions", 0);
  for (int t = 0; t < R->plan.n_taps && !R->status; t++)
    if ((a->tap_mask[t] = mask_of(R, &R->plan.at[t], s)) && R->r->tap_from)
      memset(a->tap_mask[t], 0, R->r->tap_from[seq] < s->n ? R->r->tap_from[seq] : s->n);
  for (int i = 0; i < n_edits && !R->status; i++) {
    const struct nm__edit *e = &R->r->edits->v[i];
    a->edit_mask[i] = mask_of(R, &e->at, s);
    if (!R->status)
      R->status = nm__run_check_edit(e, i, a->edit_mask[i], 0, (int)s->n, R->err);
  }
  if (R->status) nm__fail_at(R->err, R->status, "sequence %zu", seq + 1);
  return R->status;
}

static void deactivate(struct nm__run *R, struct active *a) {
  masks_free(a->tap_mask, R->plan.n_taps);
  masks_free(a->edit_mask, nm__edits_acts(R->r->edits));
  *a = (struct active){0};
}

/* ---- at a site -------------------------------------------------------------- */

static bool wants(void *arg, int site, int layer) {
  struct nm__run *R = arg;
  return nm__plan_wants(&R->plan, R->e->m, site, layer);
}

static bool same_place(struct nm__sel s, int site, int layer) {
  return s.site == site && s.layer == layer;
}

static int not_finite(struct nm__run *R, const nm_row *row, struct nm__sel sel) {
  char name[64], bad[160];
  nm__sel_name(R->e->m, sel, name);
  if (nm__find_bad_weight(R->e->m, bad, sizeof bad))
    return nm__fail(R->err, NM_EFORMAT,
                    "%s: %s, so %s is not finite at position %d of sequence %zu", R->e->m->path,
                    bad, name, row->pos, row->seq + 1);
  return nm__fail(R->err, NM_EFAIL,
                  "%s: %s is not finite at position %d of sequence %zu (all weights are "
                  "finite: an edit, an adapter or the sizes of the values led there)",
                  R->e->m->path, name, row->pos, row->seq + 1);
}

static void emit(struct nm__run *R, int tap_sel, int row, const float *data, int64_t n) {
  const struct nm__plan_tap *t = &R->plan.taps[tap_sel];
  struct active *a = &R->act[R->row_act[row]];
  nm_row out = {a->seq, tap_sel, R->row_pos[row], data, n};
  bool keys = nm__site_per_key(t->sel.site);           /* keys after the query score -infinity */
  for (int64_t i = 0; i < n; i++)
    if (keys ? data[i] != data[i] : data[i] - data[i] != 0) {
      R->status = not_finite(R, &out, t->sel);
      return;
    }
  R->status = R->r->row(R->r->arg, &out, R->err);
}

/* Scores and patterns came row by row into key_rows; now hand them on in order. */
static void flush_key_rows(struct nm__run *R, int site, int layer) {
  for (int t = 0; t < R->plan.n_tap_sels && !R->status; t++) {
    struct nm__plan_tap *tap = &R->plan.taps[t];
    if (!same_place(tap->sel, site, layer)) continue;
    for (int r = 0; r < R->n_rows && !R->status; r++) {
      struct active *a = &R->act[R->row_act[r]];
      int64_t b, e;
      if (R->key_slot[r] < 0 || !a->tap_mask[tap->tap][R->row_pos[r]]) continue;
      nm__sel_columns(R->e->m, tap->sel, a->len, &b, &e);
      emit(R, t, r, R->key_rows[site == NM__S_PATTERN] + R->key_slot[r] * R->key_width + b, e - b);
    }
  }
}

/* One position's row of an experts' site: the values of its experts where they belong in the row
 * of all, zeros elsewhere; or back from there, and then what stands elsewhere is dropped. */
static void spread(struct nm__t *x, const struct nm__route *r, int64_t t, float *row, bool back) {
  size_t bytes = sizeof(float) * (size_t)x->cols;
  if (!back) memset(row, 0, bytes * (size_t)r->n_expert);
  for (int64_t i = t * r->k; i < (t + 1) * r->k; i++) {
    float *one = x->d + r->slot[i] * x->cols, *in_row = row + r->expert[i] * x->cols;
    if (back) memcpy(one, in_row, bytes);
    else memcpy(in_row, one, bytes);
  }
}

/* A site's tensor as rows of positions. */
struct view { struct nm__t *x; const int32_t *rows; const struct nm__route *route; float *wide; };

static float *view_row(const struct view *v, int64_t r) {
  if (!v->route) return v->x->d + r * v->x->cols;
  spread(v->x, v->route, r, v->wide, false);
  return v->wide;
}
static int batch_row(const struct view *v, int64_t r) { return v->rows ? v->rows[r] : (int)r; }

static struct nm__edit_at edit_at(const struct nm__run *R, const struct nm__plan_edit *pe,
                                  int row) {
  int pos = R->row_pos[row];
  return (struct nm__edit_at){pe->row, pos, nm__generated_index(&R->act[R->row_act[row]], pos)};
}

static void apply_edits(struct nm__run *R, int site, int layer, const struct view *v, int64_t n) {
  for (int i = 0; i < R->plan.n_edit_sels; i++) {
    struct nm__plan_edit *pe = &R->plan.edits[i];
    if (!same_place(pe->sel, site, layer)) continue;
    struct nm__edit *e = &R->r->edits->v[pe->edit];
    int64_t b, end;
    nm__sel_columns(R->e->m, pe->sel, 1, &b, &end);
    for (int64_t r = 0; r < n; r++) {
      int row = batch_row(v, r);
      if (!R->act[R->row_act[row]].edit_mask[pe->edit][R->row_pos[row]]) continue;
      struct nm__edit_at at = edit_at(R, pe, row);
      if (!nm__edit_apply(e, at, R->e->kern, view_row(v, r) + b, end - b)) continue;
      if (v->route) spread(v->x, v->route, r, v->wide, true);
      e->touched++;
    }
  }
}

static void visit(void *arg, int site, int layer, struct nm__t *x, const int32_t *rows,
                  const struct nm__route *route) {
  struct nm__run *R = arg;
  if (R->status) return;
  if (nm__site_per_key(site)) {
    flush_key_rows(R, site, layer);
    return;
  }
  int64_t n = route ? route->T : x->rows, width = route ? route->n_expert * x->cols : 0;
  struct view v = {x, rows, route, width ? nm__alloc((size_t)width, sizeof(float)) : NULL};
  if (width && !v.wide) {
    R->status = nm__fail_memory(R->err, "a row of all experts", (size_t)width * sizeof(float));
    return;
  }
  apply_edits(R, site, layer, &v, n);
  for (int t = 0; t < R->plan.n_tap_sels; t++) {
    struct nm__plan_tap *tap = &R->plan.taps[t];
    if (!same_place(tap->sel, site, layer)) continue;
    int64_t b, end;
    nm__sel_columns(R->e->m, tap->sel, 1, &b, &end);
    for (int64_t r = 0; r < n && !R->status; r++) {
      int row = batch_row(&v, r);
      if (R->act[R->row_act[row]].tap_mask[tap->tap][R->row_pos[row]])
        emit(R, t, row, view_row(&v, r) + b, end - b);
    }
  }
  free(v.wide);
}

/* Called from any thread, for one row and head of scores or pattern. */
static void visit_row(void *arg, int site, int layer, int row, int head, float *v, int first_key,
                      int n) {
  struct nm__run *R = arg;
  struct active *a = &R->act[R->row_act[row]];
  for (int i = 0; i < R->plan.n_edit_sels; i++) {
    struct nm__plan_edit *pe = &R->plan.edits[i];
    int first = pe->sel.index_n ? pe->sel.index : 0;
    int last = pe->sel.index_n ? first + pe->sel.index_n - 1 : R->e->m->H - 1;
    if (!same_place(pe->sel, site, layer) || head < first || head > last) continue;
    if (!a->edit_mask[pe->edit][R->row_pos[row]]) continue;
    struct nm__edit_at at = edit_at(R, pe, row);
    if (nm__edit_apply(&R->r->edits->v[pe->edit], at, R->e->kern, v + first_key, n - first_key) &&
        head == first)
      __atomic_fetch_add(&R->r->edits->v[pe->edit].touched, 1, __ATOMIC_RELAXED);
  }
  float *rows = R->key_rows[site == NM__S_PATTERN];
  if (!rows || R->key_slot[row] < 0) return;
  float *to = rows + R->key_slot[row] * R->key_width + (int64_t)head * a->len;
  for (int j = 0; j < a->len; j++) to[j] = site == NM__S_SCORES ? -INFINITY : 0.0f;
  memcpy(to + first_key, v + first_key, sizeof(float) * (size_t)(n - first_key));
}

/* ---- one forward --------------------------------------------------------------- */

static bool tapped(const struct nm__run *R, const struct active *a, int pos, bool head_sites) {
  for (int t = 0; t < R->plan.n_tap_sels; t++) {
    int s = R->plan.taps[t].sel.site;
    bool right = head_sites ? s == NM__S_LOGITS || s == NM__S_FINAL_NORM : nm__site_per_key(s);
    if (right && a->tap_mask[R->plan.taps[t].tap][pos]) return true;
  }
  return false;
}

/* Room for the rows of scores or pattern that this forward's taps ask for. */
static int key_rows_begin(struct nm__run *R) {
  int n = 0;
  R->key_width = 0;
  for (int r = 0; r < R->n_rows; r++) {
    const struct active *a = &R->act[R->row_act[r]];
    R->key_slot[r] = tapped(R, a, R->row_pos[r], false) ? n++ : -1;
    if ((int64_t)R->e->m->H * a->len > R->key_width) R->key_width = (int64_t)R->e->m->H * a->len;
  }
  for (int i = 0; i < 2; i++) {
    free(R->key_rows[i]);
    R->key_rows[i] = n ? nm__alloc((size_t)n * (size_t)R->key_width, sizeof(float)) : NULL;
    if (n && !R->key_rows[i])
      return nm__fail_memory(R->err, "attention rows",
                             (size_t)n * (size_t)R->key_width * sizeof(float));
  }
  return NM_OK;
}

void nm__run_rows(struct nm__run *R, int i_act, const struct nm__span *sp, const int32_t *ids) {
  for (int i = 0; i < sp->n; i++) {
    int row = sp->row0 + i;
    R->ids[row] = ids[sp->first + i];
    R->row_act[row] = i_act;
    R->row_pos[row] = sp->first + i;
  }
  R->n_rows += sp->n;
}

int nm__run_forward(struct nm__run *R, int n_spans) {
  static const struct nm__visitor proto = {wants, visit, visit_row, NULL};
  struct nm__visitor vis = proto;
  vis.arg = R;
  int n_head = 0;
  for (int r = 0; r < R->n_rows && R->plan.head_rows; r++)
    if (tapped(R, &R->act[R->row_act[r]], R->row_pos[r], true)) R->head_rows[n_head++] = r;
  if (R->plan.per_key && (R->status = key_rows_begin(R))) return R->status;
  struct nm__forward f = {.m = R->e->m,
                          .ops = &R->ops,
                          .kv = &R->kv,
                          .spans = R->spans,
                          .n_spans = n_spans,
                          .T = R->n_rows,
                          .max_keys = R->plan.max_keys,
                          .n_ctx = R->e->n_ctx,
                          .ids = R->ids,
                          .vis = &vis,
                          .gelu = R->e->gelu,
                          .lora = R->beside.v,
                          .n_lora = R->beside.n,
                          .last_layer = R->plan.last_layer,
                          .stop_before_mlp = R->plan.stop_before_mlp,
                          .head_rows = R->head_rows,
                          .n_head_rows = n_head,
                          .head = R->plan.head};
  int st = nm__forward(&f);
  if (st && !R->status) {
    if (R->err) *R->err = R->ops.err;
    R->status = st;
  }
  R->done += (uint64_t)R->n_rows;
  if (!R->status)
    R->status = nm__progress(R->r->progress, "running the model", (double)R->done,
                             (double)R->plan.n_positions, R->err);
  return R->status;
}

/* The shared beginning, computed once into slots 0..prefix-1, with nothing tapped. */
static int run_prefix(struct nm__run *R) {
  struct active *a = &R->act[0];
  uint8_t *none = nm__alloc((size_t)R->plan.prefix, 1);
  if (!none) return nm__fail_memory(R->err, "positions", 0);
  *a = (struct active){.len = R->plan.prefix, .n_prompt = R->plan.prefix};
  a->tap_mask = nm__alloc((size_t)R->plan.n_taps + 1, sizeof *a->tap_mask);
  for (int t = 0; a->tap_mask && t < R->plan.n_taps; t++) a->tap_mask[t] = none;
  if (!a->tap_mask) R->status = nm__fail_memory(R->err, "positions", 0);
  while (a->at < a->len && !R->status) {
    int n = a->len - a->at < R->chunk ? a->len - a->at : R->chunk;
    R->spans[0] = (struct nm__span){.seq = 0, .first = a->at, .n = n};
    R->n_rows = 0;
    nm__run_rows(R, 0, &R->spans[0], R->r->seqs[0].ids);
    nm__run_forward(R, 1);
    a->at += n;
  }
  free(a->tap_mask);
  free(none);
  *a = (struct active){0};
  return R->status;
}

static void group_begin(struct nm__run *R, const struct nm__group *g) {
  int slot = R->plan.prefix;
  for (size_t i = 0; i < g->n && !R->status; i++) {
    R->n_act = i + 1;
    R->status = activate(R, &R->act[i], g->first + i, slot);
    slot += R->act[i].len - R->plan.prefix;
  }
}

/* The next chunk of every sequence of the group; false when there is none. */
static bool group_step(struct nm__run *R, const struct nm__group *g) {
  int n_spans = 0;
  R->n_rows = 0;
  for (size_t i = 0; i < g->n; i++) {
    struct active *a = &R->act[i];
    int n = a->len - a->at < R->chunk ? a->len - a->at : R->chunk;
    if (n <= 0) continue;
    struct nm__span *sp = &R->spans[n_spans++];
    *sp = (struct nm__span){(int)i, a->at, n, R->n_rows, 0, R->plan.prefix, a->slot};
    nm__run_rows(R, (int)i, sp, R->r->seqs[a->seq].ids);
    a->at += n;
  }
  if (n_spans) nm__run_forward(R, n_spans);
  return n_spans > 0;
}

static void group_end(struct nm__run *R, const struct nm__group *g) {
  for (size_t i = 0; i < g->n; i++) {
    if (!R->status && R->r->done) R->status = R->r->done(R->r->arg, g->first + i, R->err);
    if (i < R->n_act) deactivate(R, &R->act[i]);
  }
  R->n_act = 0;
}

/* ---- measuring and running --------------------------------------------------------- */

/* Blocks whose keys and values exist at once: without a later chunk none is read again. */
static int kv_blocks(const nm_model *m, const struct nm__plan *p) {
  return m->causal ? p->last_layer + 1 : p->last_layer >= 0;
}

static int changes(nm_engine *e, nm_edits *edits, struct nm__deltas *d, nm_err *err) {
  int st = nm__deltas_join(d, e->beside.v, e->beside.n, err);
  return st ? st : nm__weight_edits_apply(edits, e->m, d, err);
}

static int measure_arena(nm_engine *e, const struct nm__plan *p, const struct nm__deltas *d,
                         size_t *bytes, nm_err *err) {
  struct nm__ops ops = {.mode = NM__MEASURE, .kern = e->kern, .pool = e->pool, .bf16 = e->bf16};
  nm__arena_init(&ops.arena, 0, err);
  struct nm__kv kv = {.n_layer = e->m->L, .n_slots = p->max_slots,
                      .width = (int64_t)e->m->K * e->m->hd,
                      .half_k = p->half_k, .half_v = p->half_v};
  struct nm__forward f = {.m = e->m, .ops = &ops, .kv = &kv, .n_spans = 0, .T = p->max_T,
                          .max_keys = p->max_keys, .last_layer = p->last_layer,
                          .stop_before_mlp = p->stop_before_mlp, .head_rows = NULL,
                          .n_head_rows = p->head_rows ? p->max_T : 0, .head = p->head,
                          .lora = d->v, .n_lora = d->n};
  int st = nm__forward(&f);
  if (st && err) *err = ops.err;
  *bytes = ops.arena.peak + 4096;
  return st;
}

int nm__run_init(struct nm__run *R) {
  size_t T = (size_t)R->plan.max_T, widest = 1, arena = 0;
  int st = changes(R->e, R->r->edits, &R->beside, R->err);
  if (!st) st = measure_arena(R->e, &R->plan, &R->beside, &arena, R->err);
  for (size_t g = 0; g < R->plan.n_groups; g++)
    if (R->plan.groups[g].n > widest) widest = R->plan.groups[g].n;
  R->ops = (struct nm__ops){.mode = NM__RUN, .kern = R->e->kern, .pool = R->e->pool,
                            .bf16 = R->e->bf16};
  R->act = nm__alloc(widest, sizeof *R->act);
  R->spans = nm__alloc(widest, sizeof *R->spans);
  R->ids = nm__alloc(5 * T + 1, sizeof *R->ids);
  if (!R->act || !R->spans || !R->ids) return nm__fail_memory(R->err, "the batch", T * 20);
  R->head_rows = R->ids + T;
  R->row_act = R->ids + 2 * T;
  R->row_pos = R->ids + 3 * T;
  R->key_slot = R->ids + 4 * T;
  return st ? st : nm__arena_init(&R->ops.arena, arena, R->err);
}

void nm__run_done(struct nm__run *R) {
  nm__deltas_done(&R->beside);
  nm__plan_done(&R->plan);
  nm__arena_done(&R->ops.arena);
  nm__kv_done(&R->kv);
  free(R->act);
  free(R->spans);
  free(R->ids);
  free(R->key_rows[0]);
  free(R->key_rows[1]);
}

int nm__run_open(nm_engine *e, const nm_request *r, int chunk, int batch, struct nm__run **out,
                 nm_err *err) {
  struct nm__run *R = *out = nm__alloc(1, sizeof *R);
  if (!R) return nm__fail_memory(err, "a run", sizeof *R);
  *R = (struct nm__run){.e = e, .r = r, .chunk = chunk, .err = err};
  int st = nm__plan_make(e->m, r, e->n_ctx, chunk, batch, &R->plan, err);
  if (!st) st = nm__run_init(R);
  if (!st)
    st = nm__kv_init(&R->kv, kv_blocks(e->m, &R->plan), R->plan.max_slots,
                     (int64_t)e->m->K * e->m->hd, err);
  if (!st && R->plan.prefix) st = run_prefix(R);
  return R->status = st;
}

int nm__run_step(struct nm__run *R, bool *more) {
  const struct nm__group *g = &R->plan.groups[R->group];
  if (R->group < R->plan.n_groups && !R->begun) group_begin(R, g);
  R->begun = R->group < R->plan.n_groups;
  if (R->begun && !R->status && !group_step(R, g)) {
    group_end(R, g);
    R->group++;
    R->begun = false;
  }
  *more = !R->status && R->group < R->plan.n_groups;
  return R->status;
}

void nm__run_close(struct nm__run *R) {
  if (!R) return;
  if (!R->status) R->status = NM_EINTR;        /* given up: its sequences are not done */
  if (R->begun) group_end(R, &R->plan.groups[R->group]);
  nm__run_done(R);
  free(R);
}

int nm_run(nm_engine *e, const nm_request *r, nm_err *err) {
  struct nm__run *R;
  int st = nm__run_open(e, r, e->chunk, e->batch, &R, err);
  for (bool more = true; more && !st;) st = nm__run_step(R, &more);
  nm__run_close(R);
  return st;
}

/* Memory this process already holds that no file backs. */
static uint64_t own_memory(void) {
  char line[128];
  unsigned long long kb = 0;
  FILE *f = fopen("/proc/self/status", "r");
  while (f && fgets(line, sizeof line, f))
    if (sscanf(line, "RssAnon: %llu", &kb) == 1) break;
  if (f) fclose(f);
  return kb * 1024 + ((uint64_t)6 << 20);          /* and the program with its libraries */
}

static uint64_t w_bytes(struct nm__w w) {
  return w.data ? (uint64_t)w.rows * (w.row_bytes ? w.row_bytes : 4) : 0;
}

/* Of experts at most those that so many positions can choose. */
static uint64_t mlp_bytes(const nm_model *m, const struct nm__layer *l, uint64_t n_positions) {
  uint64_t n = w_bytes(l->gate) + w_bytes(l->up) + w_bytes(l->down) + w_bytes(l->router);
  uint64_t pairs = n_positions * (uint64_t)m->moe.used;
  for (int i = 0; i < 3; i++) {
    n += w_bytes(l->shared[i]);
    for (int e = 0; e < m->moe.n && (uint64_t)e < pairs; e++) n += w_bytes(l->expert[i][e]);
  }
  return n;
}

/* Bytes of the file that will be read. Of an embedding that is not also the head only the rows
 * of the tokens are touched; the system maps 64 KiB around each. */
static uint64_t weights_read(const nm_model *m, const nm_request *r, const struct nm__plan *p) {
  uint64_t n = p->head ? w_bytes(m->output) : 0, ids = 0, embd = w_bytes(m->embd);
  for (int i = 0; i <= p->last_layer; i++) {
    const struct nm__layer *l = &m->layer[i];
    n += w_bytes(l->q) + w_bytes(l->k) + w_bytes(l->v) + w_bytes(l->o);
    if (i < p->last_layer || !p->stop_before_mlp) n += mlp_bytes(m, l, p->n_positions);
  }
  uint8_t *seen = nm__alloc((size_t)m->V, 1);
  for (size_t i = 0; seen && i < r->n_seqs; i++)
    for (size_t k = 0; k < r->seqs[i].n; k++) {
      ids += !seen[r->seqs[i].ids[k]];
      seen[r->seqs[i].ids[k]] = 1;
    }
  free(seen);
  if (!(m->tied && p->head)) n += ids * 65536 < embd ? ids * 65536 : embd;
  return n;
}

int nm_run_measure(nm_engine *e, const nm_request *r, nm_memory *out, nm_err *err) {
  struct nm__plan p;
  struct nm__deltas d = {0};
  size_t arena = 0;
  *out = (nm_memory){0};
  int st = nm__plan_make(e->m, r, e->n_ctx, e->chunk, e->batch, &p, err);
  if (!st) st = changes(e, r->edits, &d, err);
  if (!st) st = measure_arena(e, &p, &d, &arena, err);
  if (!st)
    *out = (nm_memory){weights_read(e->m, r, &p),
                       nm__kv_bytes(kv_blocks(e->m, &p), p.max_slots,
                                    (int64_t)e->m->K * e->m->hd),
                       arena, own_memory()};
  nm__plan_done(&p);
  nm__deltas_done(&d);
  return st;
}
