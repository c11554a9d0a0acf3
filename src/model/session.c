/* session.c - texts that grow: a cache that stays, one beginning that several texts share.
 *
 * The cache holds the shared positions first and then, for each text, as many slots as a text may
 * have positions besides. Growing and forking lay it out anew; that copies rows and changes none.
 * Everything else is the driver's (drive.h): forward, edits, and a tap on the logits. */
#include "model/drive.h"

#include <stdlib.h>
#include <string.h>

struct text {
  int32_t *ids;                    /* [cap] */
  float *logits;                   /* [V] of its last position, if `known` */
  bool known;
  struct active act;               /* its `at` is how many positions it has; masks [cap] */
};

struct layout { int prefix, cap, n; };     /* shared positions, positions a text may have, texts */

struct nm_session {
  nm_engine *e;
  const nm_model *m;
  struct nm__run R;
  nm_request req;
  nm_tap taps[2];                  /* of the logits; and the user's */
  nm_session_opts o;
  struct layout at;
  struct text *text;
};

static int n_edits(const nm_session *s) { return s->req.edits ? s->req.edits->n : 0; }

static int64_t slots(struct layout l) { return l.prefix + (int64_t)l.n * (l.cap - l.prefix); }
static int64_t slot_of(struct layout l, int text, int pos) {
  return pos < l.prefix ? pos : pos + (int64_t)text * (l.cap - l.prefix);
}

static int keep_logits(void *arg, const nm_row *r, nm_err *err) {
  nm_session *s = arg;
  if (r->site) {                     /* site 0 is the logits */
    nm_row mine = *r;
    mine.site--;
    return s->o.row(s->o.arg, &mine, err);
  }
  memcpy(s->text[r->seq].logits, r->data, sizeof(float) * (size_t)r->n);
  return NM_OK;
}

/* ---- one text's memory ---------------------------------------------------------- */

static void text_done(struct text *t, int n) {
  for (int i = 0; t->act.edit_mask && i < n; i++) free(t->act.edit_mask[i]);
  for (int i = 0; t->act.tap_mask && i < 2; i++) free(t->act.tap_mask[i]);
  free(t->act.edit_mask);
  free(t->act.tap_mask);
  free(t->ids);
  free(t->logits);
  *t = (struct text){0};
}

static bool mask_room(uint8_t **mask, int cap) {
  uint8_t *v = nm__realloc(*mask, (size_t)cap, 1);
  if (!v) return false;
  *mask = v;
  return true;
}

/* Room for cap positions; what there is stays. */
static int text_room(nm_session *s, struct text *t, int cap, nm_err *err) {
  int n = n_edits(s);
  struct active *a = &t->act;
  if (!t->logits) {
    t->logits = nm__alloc((size_t)s->m->V, sizeof(float));
    a->tap_mask = nm__alloc(2, sizeof *a->tap_mask);
    a->edit_mask = nm__alloc((size_t)n, sizeof *a->edit_mask);
  }
  bool ok = t->logits && a->tap_mask && a->edit_mask;
  int32_t *ids = ok ? nm__realloc(t->ids, (size_t)cap, sizeof *ids) : NULL;
  if (ids) t->ids = ids;
  ok = ok && ids && mask_room(&a->tap_mask[0], cap) && mask_room(&a->tap_mask[1], cap);
  for (int i = 0; ok && i < n; i++) ok = mask_room(&a->edit_mask[i], cap);
  return ok ? NM_OK : nm__fail_memory(err, "a text", (size_t)cap * sizeof *ids);
}

static void text_copy(const nm_session *s, struct text *to, const struct text *from) {
  size_t n = (size_t)from->act.at;
  memcpy(to->ids, from->ids, n * sizeof *to->ids);
  memcpy(to->logits, from->logits, (size_t)s->m->V * sizeof(float));
  for (int i = 0; i < n_edits(s); i++)
    memcpy(to->act.edit_mask[i], from->act.edit_mask[i], n);
  to->known = from->known;
  to->act.at = from->act.at;
  to->act.n_prompt = from->act.n_prompt;
}

/* ---- the cache -------------------------------------------------------------------- */

static void copy_rows(const struct nm__kv *from, int64_t a, struct nm__kv *to, int64_t b) {
  for (int il = 0; il < from->n_layer; il++) {
    size_t w = (size_t)from->width, x = (size_t)(il * from->n_slots + a) * w,
           y = (size_t)(il * to->n_slots + b) * w;
    if (to->half_k) memcpy(to->k16 + y, from->k16 + x, w * sizeof *to->k16);
    else memcpy(to->k + y, from->k + x, w * sizeof *to->k);
    if (to->half_v) memcpy(to->v16 + y, from->v16 + x, w * sizeof *to->v16);
    else memcpy(to->v + y, from->v + x, w * sizeof *to->v);
  }
}

/* A cache of the new layout, its text j with the rows of text first + j (of `first`, if none). */
static int lay_out(nm_session *s, struct layout to, int first, nm_err *err) {
  const nm_model *m = s->m;
  struct nm__kv kv, *old = &s->R.kv;
  int st = nm__kv_init_half(&kv, m->L, slots(to), (int64_t)m->K * m->hd, s->R.plan.half_k,
                            s->R.plan.half_v, err);
  if (st) return st;
  for (int j = 0; j < to.n; j++) {
    int from = first + j < s->at.n ? first + j : first;
    for (int pos = j ? to.prefix : 0; pos < s->text[from].act.at; pos++)
      copy_rows(old, slot_of(s->at, from, pos), &kv, slot_of(to, j, pos));
  }
  nm__kv_done(old);
  *old = kv;
  s->at = to;
  return NM_OK;
}

/* Arrays and arena for a forward of T positions of n texts. */
static int batch_room(nm_session *s, int T, int n, nm_err *err) {
  struct nm__run *R = &s->R;
  struct nm__plan *p = &R->plan;
  if (R->ops.arena.base && T <= p->max_T && s->at.cap <= p->max_keys && (size_t)n <= p->groups[0].n)
    return NM_OK;
  nm__arena_done(&R->ops.arena);
  free(R->act);
  free(R->spans);
  free(R->ids);
  R->act = NULL;
  R->spans = NULL;
  R->ids = NULL;
  R->err = err;
  p->max_keys = s->at.cap;
  p->max_slots = slots(s->at);
  if (T > p->max_T) p->max_T = T;
  if ((size_t)n > p->groups[0].n) p->groups[0].n = (size_t)n;
  return nm__run_init(R);
}

int nm_session_reserve(nm_session *s, int n, nm_err *err) {
  int n_ctx = nm__engine_ctx(s->e), st = NM_OK;
  if (n > n_ctx) n = n_ctx;
  if (n <= s->at.cap) return NM_OK;
  for (int i = 0; i < s->at.n && !st; i++) st = text_room(s, &s->text[i], n, err);
  struct layout to = {s->at.prefix, n, s->at.n};
  return st ? st : lay_out(s, to, 0, err);
}

/* Twice as much as before, so that a growing text is seldom moved. */
static int room_for(nm_session *s, int n, nm_err *err) {
  if (n > nm__engine_ctx(s->e))
    return nm__fail(err, NM_EUSAGE, "the text would have %d tokens, more than the context of %d%s",
                    n, nm__engine_ctx(s->e),
                    nm__engine_ctx(s->e) == s->m->n_ctx ? " the model was made for" : " (-c)");
  if (n <= s->at.cap) return NM_OK;
  int most = s->at.cap < (1 << 29) ? 2 * s->at.cap : n;
  return nm_session_reserve(s, n > most ? n : most < 256 ? 256 : most, err);
}

/* ---- beginning and end ---------------------------------------------------------- */

static int kind_of(const char *name, bool *half, nm_err *err) {
  *half = name && !strcmp(name, "f16");
  if (!name || *half || !strcmp(name, "f32")) return NM_OK;
  return nm__fail(err, NM_EUSAGE, "the cache cannot be kept in '%.40s' (known: f32, f16)", name);
}

static int set_up(nm_session *s, const nm_session_opts *o, nm_err *err) {
  struct nm__run *R = &s->R;
  s->o = *o;
  s->taps[0] = (nm_tap){"logits", "all"};
  s->taps[1] = (nm_tap){o->tap, "all"};
  s->req = (nm_request){.taps = s->taps, .n_taps = o->tap ? 2 : 1, .edits = o->edits,
                        .row = keep_logits, .arg = s};
  *R = (struct nm__run){.e = s->e, .r = &s->req, .err = err};
  int st = nm__plan_make(s->m, &s->req, nm__engine_ctx(s->e), 1, 0, &R->plan, err);
  if (!st) st = kind_of(o->type_k, &R->plan.half_k, err);
  if (!st) st = kind_of(o->type_v, &R->plan.half_v, err);
  if (st) return st;
  s->req.progress = o->progress;
  free(R->plan.groups);
  R->plan.groups = nm__alloc(1, sizeof *R->plan.groups);
  s->text = nm__alloc(1, sizeof *s->text);
  if (!R->plan.groups || !s->text) return nm__fail_memory(err, "a session", sizeof *s);
  R->plan.n_groups = 1;
  s->at.n = 1;
  return nm_session_reserve(s, 256, err);
}

int nm_session_new(nm_engine *e, const nm_session_opts *o, nm_session **out, nm_err *err) {
  static const nm_session_opts none;
  const nm_model *m = nm__engine_model(e);
  *out = NULL;
  if (!m->causal || !m->output.data)
    return nm__fail(err, NM_EFORMAT, "%s: is an encoder (%s) and has no next token, so nothing to "
                    "generate; noema embed gives its sentence vectors", m->path, m->arch->name);
  nm_session *s = nm__alloc(1, sizeof *s);
  if (!s) return nm__fail_memory(err, "a session", sizeof *s);
  s->e = e;
  s->m = m;
  int st = set_up(s, o ? o : &none, err);
  if (st) nm_session_free(s);
  else *out = s;
  return st;
}

void nm_session_free(nm_session *s) {
  if (!s) return;
  for (int i = 0; i < s->at.n && s->text; i++) text_done(&s->text[i], n_edits(s));
  free(s->text);
  nm__run_done(&s->R);
  free(s);
}

/* ---- going on --------------------------------------------------------------------- */

static bool here(const nm_session *s, int seq) { return seq >= 0 && seq < s->at.n; }

static int no_text(const nm_session *s, int seq, nm_err *err) {
  return nm__fail(err, NM_EUSAGE, "the session has texts 0 to %d, not %d", s->at.n - 1, seq);
}

static int check_ids(const nm_model *m, const int32_t *ids, size_t n, nm_err *err) {
  for (size_t i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= m->V)
      return nm__fail(err, NM_EFORMAT, "token id %d is outside the vocabulary of %d", ids[i], m->V);
  return NM_OK;
}

/* The next n positions of a text, which are in its ids, as a span of the coming forward. */
static void add_span(nm_session *s, int i_span, int seq, int n, bool want_logits) {
  struct nm__run *R = &s->R;
  struct text *t = &s->text[seq];
  int first = t->act.at;
  struct nm__span *sp = &R->spans[i_span];
  *sp = (struct nm__span){i_span, first, n, R->n_rows, 0, s->at.prefix,
                          (int)slot_of(s->at, seq, s->at.prefix)};
  for (int i = 0; i < 2; i++) {
    memset(t->act.tap_mask[i] + first, 0, (size_t)n);
    t->act.tap_mask[i][first + n - 1] = want_logits;
  }
  t->act.at = t->act.len = first + n;
  t->act.seq = (size_t)seq;
  R->act[i_span] = t->act;
  nm__run_rows(R, i_span, sp, t->ids);
}

static int forward(nm_session *s, int n_spans, nm_err *err) {
  struct nm__run *R = &s->R;
  R->err = err;
  int st = nm__run_forward(R, n_spans);
  R->status = NM_OK;
  R->ops.err = (nm_err){0};
  return st;
}

int nm_session_append(nm_session *s, int seq, const int32_t *ids, size_t n, nm_err *err) {
  if (!here(s, seq)) return no_text(s, seq, err);
  struct text *t = &s->text[seq];
  int from = t->act.at, n_prompt = t->act.n_prompt, st = check_ids(s->m, ids, n, err);
  if (!n || st) return n ? st : nm__fail(err, NM_EUSAGE, "a prompt of no tokens");
  if (n > INT32_MAX / 2) n = INT32_MAX / 2;
  int end = from + (int)n, chunk = nm__engine_chunk(s->e);
  if ((st = room_for(s, end, err)) || (st = batch_room(s, (int)n < chunk ? (int)n : chunk, 1, err)))
    return st;
  t = &s->text[seq];
  memcpy(t->ids + from, ids, n * sizeof *ids);
  nm_seq all = {t->ids, (size_t)end};
  for (int i = 0; i < n_edits(s) && !st; i++) {
    memset(t->act.edit_mask[i] + from, 0, n);
    const struct nm__edit *e = &s->req.edits->v[i];
    st = nm__at_prompt(&e->at, s->m, &all, from, t->act.edit_mask[i], err);
    if (!st) st = nm__run_check_edit(e, i, t->act.edit_mask[i], from, end, err);
  }
  s->R.done = 0;
  s->R.plan.n_positions = n;
  t->act.n_prompt = end;
  while (!st && t->act.at < end) {
    int k = end - t->act.at < chunk ? end - t->act.at : chunk;
    s->R.n_rows = 0;
    add_span(s, 0, seq, k, t->act.at + k == end);
    st = forward(s, 1, err);
  }
  if (st) {
    t->act.at = from;
    t->act.n_prompt = n_prompt;
  }
  t->known = !st;
  return st;
}

/* A generated token at the text's next position, and which edits meet it there. */
static int mark_token(nm_session *s, struct text *t, int32_t id, nm_err *err) {
  int pos = t->act.at, st = NM_OK;
  t->ids[pos] = id;
  for (int k = 0; k < n_edits(s) && !st; k++) {
    const struct nm__edit *e = &s->req.edits->v[k];
    t->act.edit_mask[k][pos] = nm__at_generated(&e->at, pos);
    st = nm__run_check_edit(e, k, t->act.edit_mask[k], pos, pos + 1, err);
  }
  return st;
}

int nm_session_step(nm_session *s, const int *seq, const int32_t *ids, int n, nm_err *err) {
  int longest = 0, st = check_ids(s->m, ids, (size_t)n, err);
  const nm_progress *progress = s->req.progress;
  for (int i = 0; i < n && !st; i++) {
    if (!here(s, seq[i])) st = no_text(s, seq[i], err);
    else if (s->text[seq[i]].act.at > longest) longest = s->text[seq[i]].act.at;
  }
  if (st || n < 1) return st;
  if ((st = room_for(s, longest + 1, err)) || (st = batch_room(s, n, n, err))) return st;
  for (int i = 0; i < n && !st; i++) st = mark_token(s, &s->text[seq[i]], ids[i], err);
  if (st) return st;
  s->R.n_rows = 0;
  for (int i = 0; i < n; i++) add_span(s, i, seq[i], 1, true);
  s->req.progress = NULL;
  st = forward(s, n, err);
  s->req.progress = progress;
  for (int i = 0; i < n; i++) {
    s->text[seq[i]].act.at -= st != 0;
    s->text[seq[i]].known = !st;
  }
  return st;
}

/* ---- back, apart, together ------------------------------------------------------------ */

int nm_session_rewind(nm_session *s, int seq, int n, nm_err *err) {
  if (!here(s, seq)) return no_text(s, seq, err);
  struct text *t = &s->text[seq];
  if (n < s->at.prefix || n > t->act.at)
    return nm__fail(err, NM_EUSAGE, "a text of %d tokens cannot go back to %d%s", t->act.at, n,
                    n >= 0 && n < s->at.prefix ? ", which others share" : "");
  t->known = t->known && n == t->act.at;
  t->act.at = n;
  if (t->act.n_prompt > n) t->act.n_prompt = n;
  return NM_OK;
}

int nm_session_fork(nm_session *s, int n, nm_err *err) {
  if (s->at.n != 1 || n < 1 || n > 4096)
    return nm__fail(err, NM_EUSAGE, "a session of %d texts cannot become %d (from 1, at most 4096)",
                    s->at.n, n);
  if (n == 1) return NM_OK;
  struct text *v = nm__realloc(s->text, (size_t)n, sizeof *v);
  if (!v) return nm__fail_memory(err, "the texts", (size_t)n * sizeof *v);
  s->text = v;
  memset(v + 1, 0, (size_t)(n - 1) * sizeof *v);
  struct layout to = {v[0].act.at, s->at.cap, n};
  int st = NM_OK;
  for (int i = 1; i < n && !st; i++) {
    st = text_room(s, &v[i], s->at.cap, err);
    if (!st) text_copy(s, &v[i], &v[0]);
  }
  if (!st) st = lay_out(s, to, 0, err);
  for (int i = 1; st && i < n; i++) text_done(&v[i], n_edits(s));
  return st;
}

int nm_session_keep(nm_session *s, int seq, nm_err *err) {
  if (!here(s, seq)) return no_text(s, seq, err);
  int n = s->at.n, st = lay_out(s, (struct layout){0, s->at.cap, 1}, seq, err);
  if (st) return st;
  struct text kept = s->text[seq];
  s->text[seq] = s->text[0];
  s->text[0] = kept;
  for (int i = 1; i < n; i++) text_done(&s->text[i], n_edits(s));
  return NM_OK;
}

int nm_session_n(const nm_session *s) { return s->at.n; }
int nm_session_room(const nm_session *s) { return nm__engine_ctx(s->e); }
nm_seq nm_session_ids(const nm_session *s, int seq) {
  if (!here(s, seq)) return (nm_seq){0};
  return (nm_seq){s->text[seq].ids, (size_t)s->text[seq].act.at};
}
const float *nm_session_logits(const nm_session *s, int seq) {
  return here(s, seq) && s->text[seq].known ? s->text[seq].logits : NULL;
}
uint64_t nm_session_kv_bytes(const nm_session *s) {
  const struct nm__kv *kv = &s->R.kv;
  uint64_t one = (uint64_t)kv->n_layer * (uint64_t)kv->n_slots * (uint64_t)kv->width;
  return one * ((kv->half_k ? 2 : 4) + (kv->half_v ? 2 : 4));
}

const nm_model *nm__session_model(const nm_session *s) { return s->m; }
