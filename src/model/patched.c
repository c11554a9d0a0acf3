/* patched.c - patched runs: the base's keys and stream, and batches that begin in the middle. */
#include "model/patched.h"

#include <stdlib.h>
#include <string.h>

enum { BATCH_ROWS = 512, BATCH_RUNS = 256 };

struct nm__base {
  nm_engine *e;
  const nm_model *m;
  nm_seq text;
  int T, rows;                     /* of the text; most rows of a forward */
  float *stream;                   /* [L, T, D]: resid_pre */
  float *logits, *start;           /* [V]; [rows, D] */
  struct nm__kv kv;                /* slots 0..T-1 are the base's */
  struct nm__ops ops;
  int32_t *ids, *head_rows;        /* [rows] */
};

/* One forward: which patch goes to which row, and who gets the logits. */
struct place { const struct nm__patch *p; int row; };
struct batch {
  struct nm__base *b;
  struct place *place; size_t n_places, cap;
  struct nm__span span[BATCH_RUNS];
  int n_runs, n_rows, first_layer;
  size_t first_run;
  int (*take)(void *arg, size_t run, const float *logits, nm_err *err);
  void *arg;
  nm_err *err;
  int status;
};

bool nm__patchable(const nm_model *m, struct nm__sel s) {
  const char *why;
  bool of_experts = m->moe.n && s.site >= NM__S_MOE_WEIGHTS && s.site <= NM__S_MOE_ACT;
  return nm__site_exists(m, s.site, &why) && s.layer >= 0 && s.layer < m->L &&
         !nm__site_per_key(s.site) && !of_experts && s.site < NM__S_FINAL_NORM;
}

/* ---- at a site ---------------------------------------------------------------- */

static bool is_base(const struct batch *B) { return !B->take; }

static bool wants(void *arg, int site, int layer) {
  const struct batch *B = arg;
  if (site == NM__S_LOGITS || (site == NM__S_RESID_PRE && is_base(B))) return true;
  for (size_t i = 0; i < B->n_places; i++)
    if (B->place[i].p->sel.site == site && B->place[i].p->sel.layer == layer) return true;
  return false;
}

static void give_logits(struct batch *B, const struct nm__t *x, const int32_t *rows) {
  for (int64_t r = 0; r < x->rows && !B->status; r++) {
    const float *z = x->d + r * x->cols;
    int run = 0;
    while (run + 1 < B->n_runs && B->span[run + 1].row0 <= rows[r]) run++;
    for (int64_t v = 0; v < x->cols; v++)
      if (z[v] - z[v] != 0) {
        B->status = nm__fail(B->err, NM_EFAIL, "%s: the logits of a patched run are not finite",
                             B->b->m->path);
        return;
      }
    if (is_base(B)) memcpy(B->b->logits, z, sizeof(float) * (size_t)x->cols);
    else B->status = B->take(B->arg, B->first_run + (size_t)run, z, B->err);
  }
}

static void visit(void *arg, int site, int layer, struct nm__t *x, const int32_t *rows,
                  const struct nm__route *route) {
  struct batch *B = arg;
  (void)route;
  if (B->status) return;
  if (site == NM__S_LOGITS) {
    give_logits(B, x, rows);
    return;
  }
  for (size_t i = 0; i < B->n_places; i++) {
    const struct nm__patch *p = B->place[i].p;
    int64_t begin, end;
    if (p->sel.site != site || p->sel.layer != layer) continue;
    nm__sel_columns(B->b->m, p->sel, 1, &begin, &end);
    memcpy(x->d + B->place[i].row * x->cols + begin, p->v, sizeof(float) * (size_t)(end - begin));
  }
  if (!is_base(B) || site != NM__S_RESID_PRE) return;
  int64_t from = ((int64_t)layer * B->b->T + B->span[0].first) * x->cols;
  memcpy(B->b->stream + from, x->d, sizeof(float) * (size_t)(x->rows * x->cols));
}

/* ---- a batch --------------------------------------------------------------------- */

static int add_place(struct batch *B, const struct nm__patch *p, int row) {
  if (B->n_places == B->cap) {
    size_t cap = B->cap ? 2 * B->cap : 256;
    struct place *v = nm__realloc(B->place, cap, sizeof *v);
    if (!v) return nm__fail_memory(B->err, "the patches", cap * sizeof *v);
    B->place = v;
    B->cap = cap;
  }
  B->place[B->n_places++] = (struct place){p, row};
  return NM_OK;
}

/* Rows of the batch: ids, and the stream they begin with; the last of each run has logits. */
static int forward(struct batch *B, bool head) {
  static const struct nm__visitor proto = {wants, visit, NULL, NULL};
  struct nm__visitor vis = proto;
  struct nm__base *b = B->b;
  size_t D = (size_t)b->m->D;
  struct nm__forward f = nm__engine_forward(b->e);
  vis.arg = B;
  for (int i = 0; i < B->n_runs; i++) {
    const struct nm__span *s = &B->span[i];
    memcpy(b->ids + s->row0, b->text.ids + s->first, sizeof(int32_t) * (size_t)s->n);
    if (!is_base(B))
      memcpy(b->start + (size_t)s->row0 * D,
             b->stream + ((size_t)B->first_layer * (size_t)b->T + (size_t)s->first) * D,
             sizeof(float) * (size_t)s->n * D);
    b->head_rows[i] = s->row0 + s->n - 1;
  }
  f.ops = &b->ops;
  f.kv = &b->kv;
  f.spans = B->span;
  f.n_spans = B->n_runs;
  f.T = B->n_rows;
  f.max_keys = b->T;
  f.ids = b->ids;
  f.vis = &vis;
  f.start = is_base(B) ? NULL : b->start;
  f.first_layer = B->first_layer;
  f.last_layer = b->m->L - 1;
  f.head_rows = b->head_rows;
  f.n_head_rows = head ? B->n_runs : 0;
  f.head = head;
  int st = nm__forward(&f);
  if (st && !B->status) {
    if (B->err) *B->err = b->ops.err;
    B->status = st;
  }
  return B->status;
}

static int first_pos(const struct nm__patched *r, int T) {
  int first = T - 1;
  for (int i = 0; i < r->n; i++) first = r->p[i].pos < first ? r->p[i].pos : first;
  return first;
}

static int check_run(const struct nm__base *b, const struct nm__patched *r, nm_err *err) {
  for (int i = 0; i < r->n; i++)
    if (!nm__patchable(b->m, r->p[i].sel) || r->p[i].pos < 0 || r->p[i].pos >= b->T)
      return nm__fail(err, NM_EUSAGE, "a patch lies at a site or position that cannot be patched");
  return NM_OK;
}

static int add_run(struct batch *B, const struct nm__patched *r) {
  int first = first_pos(r, B->b->T), lowest = B->b->m->L - 1, st = check_run(B->b, r, B->err);
  struct nm__span *s = &B->span[B->n_runs];
  *s = (struct nm__span){B->n_runs, first, B->b->T - first, B->n_rows, 0, first,
                         B->b->T + B->n_rows};
  for (int i = 0; i < r->n && !st; i++) {
    if (r->p[i].sel.layer < lowest) lowest = r->p[i].sel.layer;
    st = add_place(B, &r->p[i], s->row0 + r->p[i].pos - first);
  }
  if (!r->n) lowest = 0;
  if (lowest < B->first_layer) B->first_layer = lowest;
  B->n_rows += s->n;
  B->n_runs++;
  return st;
}

int nm__base_run(struct nm__base *b, const struct nm__patched *runs, size_t n,
                 int (*take)(void *arg, size_t run, const float *logits, nm_err *err), void *arg,
                 nm_err *err) {
  struct batch *B = nm__alloc(1, sizeof *B);
  if (!B) return nm__fail_memory(err, "a batch", sizeof *B);
  int st = NM_OK;
  for (size_t i = 0; i < n && !st;) {
    struct place *place = B->place;
    size_t cap = B->cap;
    *B = (struct batch){.b = b, .place = place, .cap = cap, .first_layer = b->m->L - 1,
                        .first_run = i, .take = take, .arg = arg, .err = err};
    while (i < n && B->n_runs < BATCH_RUNS && !st) {
      if (B->n_runs && B->n_rows + b->T - first_pos(&runs[i], b->T) > b->rows) break;
      st = add_run(B, &runs[i++]);
    }
    if (!st) st = forward(B, true);
  }
  free(B->place);
  free(B);
  return st;
}

/* ---- the base ----------------------------------------------------------------------- */

static int measure(nm_engine *e, int T, int rows, size_t *arena, nm_err *err) {
  const nm_model *m = nm__engine_model(e);
  struct nm__ops ops = nm__engine_ops(e, NM__MEASURE);
  nm__arena_init(&ops.arena, 0, err);
  struct nm__kv kv = {.n_layer = m->L, .n_slots = T + rows, .width = (int64_t)m->K * m->hd};
  struct nm__forward f = nm__engine_forward(e);
  f.ops = &ops;
  f.kv = &kv;
  f.T = rows;
  f.max_keys = T;
  f.last_layer = m->L - 1;
  f.n_head_rows = rows;
  f.head = true;
  int st = nm__forward(&f);
  if (st && err) *err = ops.err;
  *arena = ops.arena.peak + 4096;
  return st;
}

/* In pieces when the text is long, as any other run; only the last piece has logits. */
static int run_base(struct nm__base *b, const struct nm__patch *p, int n, nm_err *err) {
  struct batch *B = nm__alloc(1, sizeof *B);
  if (!B) return nm__fail_memory(err, "a batch", sizeof *B);
  *B = (struct batch){.b = b, .n_runs = 1, .err = err};
  for (int at = 0; at < b->T && !B->status; at += B->n_rows) {
    B->n_rows = b->T - at < BATCH_ROWS ? b->T - at : BATCH_ROWS;
    B->span[0] = (struct nm__span){.first = at, .n = B->n_rows};
    B->n_places = 0;
    for (int i = 0; i < n && !B->status; i++)
      if (p[i].pos >= at && p[i].pos < at + B->n_rows)
        B->status = add_place(B, &p[i], p[i].pos - at);
    if (!B->status) forward(B, at + B->n_rows == b->T);
  }
  int st = B->status;
  free(B->place);
  free(B);
  return st;
}

static int check_text(nm_engine *e, nm_seq text, nm_err *err) {
  const nm_model *m = nm__engine_model(e);
  if (!m->causal || !m->output.data)
    return nm__fail(err, NM_EUSAGE, "%s: is an encoder and has no next token, so there is no "
                    "answer to patch for", m->path);
  if (!text.n || text.n > (size_t)nm__engine_ctx(e))
    return nm__fail(err, NM_EUSAGE, "a text of %zu tokens does not fit the context of %d", text.n,
                    nm__engine_ctx(e));
  for (size_t i = 0; i < text.n; i++)
    if (text.ids[i] < 0 || text.ids[i] >= m->V)
      return nm__fail(err, NM_EUSAGE, "token id %d is outside the vocabulary of %d", text.ids[i],
                      m->V);
  return NM_OK;
}

int nm__base_open(nm_engine *e, nm_seq text, const struct nm__patch *p, int n,
                  struct nm__base **out, nm_err *err) {
  const nm_model *m = nm__engine_model(e);
  size_t arena = 0;
  *out = NULL;
  int st = check_text(e, text, err);
  if (st) return st;
  struct nm__base *b = *out = nm__alloc(1, sizeof *b);
  if (!b) return nm__fail_memory(err, "a run", sizeof *b);
  *b = (struct nm__base){.e = e, .m = m, .text = text, .T = (int)text.n};
  b->rows = b->T > BATCH_ROWS ? b->T : BATCH_ROWS;
  size_t rows = (size_t)b->rows, D = (size_t)m->D;
  b->stream = nm__alloc((size_t)m->L * text.n, D * sizeof(float));
  b->start = nm__alloc(rows, D * sizeof(float));
  b->logits = nm__alloc((size_t)m->V, sizeof(float));
  b->ids = nm__alloc(2 * rows, sizeof *b->ids);
  if (!b->stream || !b->start || !b->logits || !b->ids)
    return nm__fail_memory(err, "the base run", (size_t)m->L * text.n * D * sizeof(float));
  b->head_rows = b->ids + rows;
  b->ops = nm__engine_ops(e, NM__RUN);
  st = measure(e, b->T, b->rows, &arena, err);
  if (!st) st = nm__arena_init(&b->ops.arena, arena, err);
  if (!st) st = nm__kv_init(&b->kv, m->L, b->T + b->rows, (int64_t)m->K * m->hd, err);
  return st ? st : run_base(b, p, n, err);
}

void nm__base_close(struct nm__base *b) {
  if (!b) return;
  nm__arena_done(&b->ops.arena);
  nm__kv_done(&b->kv);
  free(b->stream);
  free(b->start);
  free(b->logits);
  free(b->ids);
  free(b);
}

const float *nm__base_logits(const struct nm__base *b) { return b->logits; }

int nm__base_measure(nm_engine *e, int T, nm_memory *out, nm_err *err) {
  const nm_model *m = nm__engine_model(e);
  int rows = T > BATCH_ROWS ? T : BATCH_ROWS;
  size_t arena;
  int st = measure(e, T, rows, &arena, err);
  if (st) return st;
  out->kv = nm__kv_bytes(m->L, T + rows, (int64_t)m->K * m->hd);
  out->activations = arena + sizeof(float) * (uint64_t)m->D *
                                 ((uint64_t)m->L * (uint64_t)T + (uint64_t)rows);
  return NM_OK;
}
