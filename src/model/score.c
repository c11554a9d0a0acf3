/* score.c - how likely a model finds texts, and how far it is from another model.
 *
 *   texts ── windows ── run, a forward at a time ── rows of logits ── ln p(next token)
 *                       run of the base, in step ── rows of logits ─┘ KL(base || this)
 *
 * Rows of logits exist for one forward only. Each is summed by one thread in the order of
 * nm_log_softmax, so the bits are those of `logits` whatever the threads. */
#include <stdlib.h>
#include <string.h>
#include "model/model.h"
#include "tensor/math.h"

enum { ROWS_BYTES = 64 << 20, CHUNK_MOST = 512, CHUNK_LEAST = 16 };

/* A stretch of a text that is run at once; its tokens from..n-1 are scored. */
struct windows { nm_seq *seq; size_t *tap_from, *text, *begin; size_t n; };

/* One model's side: the logits of the positions of a forward. */
struct side {
  struct nm__run *run;
  nm_request r;
  float *rows;                     /* [cap, V] */
  size_t *win;                     /* [cap]: window and position of each */
  int *pos, n, cap, V;
};

struct score {
  nm_engine *e;
  const nm_seq *seqs;
  nm_scores *out;
  struct windows w;
  struct side side[2];             /* this model, its base */
  int n_sides, chunk;
  double *work;                    /* [threads, 2, V] */
};

/* ---- windows ---------------------------------------------------------------- */

/* Calls itself a first time with w->seq NULL to count. Every token from `from` on is scored in the
 * first window that reaches it. */
static size_t cut(const nm_seq *s, size_t from, size_t window, size_t stride, size_t text,
                  struct windows *w) {
  size_t n = 0, scored = from;
  for (size_t begin = 0; scored < s->n; begin += stride) {
    size_t end = s->n - begin < window ? s->n : begin + window;
    if (end <= scored) continue;
    if (w->seq) {
      w->seq[w->n] = (nm_seq){s->ids + begin, end - begin};
      w->tap_from[w->n] = scored - begin - 1;
      w->text[w->n] = text;
      w->begin[w->n++] = begin;
    }
    scored = end;
    n++;
  }
  return n;
}

static int make_windows(struct score *S, const size_t *from, size_t window, size_t stride,
                        nm_err *err) {
  nm_scores *o = S->out;
  struct windows *w = &S->w;
  size_t n_windows = 0;
  for (int pass = 0; pass < 2; pass++) {
    for (size_t i = 0; i < o->n; i++) {
      size_t f = from && from[i] > 1 ? from[i] : 1;
      n_windows += cut(&S->seqs[i], f, window, stride, i, w);
      o->first[i + 1] = o->first[i] + (S->seqs[i].n > f ? S->seqs[i].n - f : 0);
      for (size_t k = o->first[i]; pass && k < o->first[i + 1]; k++)
        o->pos[k] = (int)(f + k - o->first[i]);
    }
    if (pass) break;
    w->seq = nm__alloc(n_windows, sizeof *w->seq);
    w->tap_from = nm__alloc(3 * n_windows, sizeof *w->tap_from);
    size_t n = o->first[o->n];
    o->pos = nm__alloc(n, sizeof *o->pos);
    o->lp = nm__alloc(n, sizeof *o->lp);
    if (S->n_sides > 1) {
      o->base_lp = nm__alloc(n, sizeof *o->base_lp);
      o->kl = nm__alloc(n, sizeof *o->kl);
      o->same_top = nm__alloc(n, sizeof *o->same_top);
    }
    if (!w->seq || !w->tap_from || !o->pos || !o->lp ||
        (S->n_sides > 1 && (!o->base_lp || !o->kl || !o->same_top)))
      return nm__fail_memory(err, "the scores", n * 32);
    w->text = w->tap_from + n_windows;
    w->begin = w->text + n_windows;
  }
  return NM_OK;
}

/* ---- one forward -------------------------------------------------------------- */

static int keep(void *arg, const nm_row *row, nm_err *err) {
  struct side *s = arg;
  if (s->n == s->cap) return nm__fail(err, NM_EFAIL, "more rows of logits than a forward has");
  memcpy(s->rows + (size_t)s->n * (size_t)s->V, row->data, sizeof(float) * (size_t)s->V);
  s->win[s->n] = row->seq;
  s->pos[s->n++] = row->pos;
  return NM_OK;
}

/* Differences from the largest logit, and the logarithm of the sum of their exponentials: the
 * arithmetic of nm_log_softmax. ex (may be NULL) gets the exponentials. */
static double log_sum(const float *z, int V, double *ex, double *sum_out, int *top_at) {
  double top = (double)z[0], sum = 0;
  int at = 0;
  for (int v = 1; v < V; v++)
    if ((double)z[v] > top) top = (double)z[at = v];
  for (int v = 0; v < V; v++) {
    double x = nm__exp((double)z[v] - top);
    sum += x;
    if (ex) ex[v] = x;
  }
  *sum_out = sum;
  *top_at = at;
  return nm__log(sum);
}

static double lp_at(const float *z, int at, int top, double log_sum_) {
  return (double)z[at] - (double)z[top] - log_sum_;
}

/* Terms in ascending order of the vocabulary; rounding may leave less than nothing. */
static double divergence(const float *b, const float *z, const double *ex, double sum, int top_b,
                         double log_b, int top, double log_z, int V) {
  double kl = 0;
  for (int v = 0; v < V; v++)
    kl += ex[v] / sum * (lp_at(b, v, top_b, log_b) - lp_at(z, v, top, log_z));
  return kl > 0 ? kl : 0;
}

static void score_row(void *arg, int i, int thread) {
  struct score *S = arg;
  const struct side *me = &S->side[0], *base = &S->side[1];
  size_t win = me->win[i], V = (size_t)me->V;
  int next = me->pos[i] + 1, at, at_b;
  size_t place = S->w.begin[win] + (size_t)next, text = S->w.text[win];
  size_t k = S->out->first[text] + place - (size_t)S->out->pos[S->out->first[text]];
  int32_t id = S->w.seq[win].ids[next];
  const float *z = me->rows + (size_t)i * V;
  double sum, log_z = log_sum(z, me->V, NULL, &sum, &at);
  S->out->lp[k] = lp_at(z, id, at, log_z);
  if (S->n_sides == 1) return;
  const float *b = base->rows + (size_t)i * V;
  double *ex = S->work + (size_t)thread * V, log_b = log_sum(b, me->V, ex, &sum, &at_b);
  S->out->base_lp[k] = lp_at(b, id, at_b, log_b);
  S->out->kl[k] = divergence(b, z, ex, sum, at_b, log_b, at, log_z, me->V);
  S->out->same_top[k] = at == at_b;
}

static int step(struct score *S, bool *more, nm_err *err) {
  for (int i = 0; i < S->n_sides; i++) {
    S->side[i].n = 0;
    int st = nm__run_step(S->side[i].run, more);
    if (st) return st;
  }
  if (S->n_sides > 1 && (S->side[0].n != S->side[1].n ||
                         memcmp(S->side[0].pos, S->side[1].pos,
                                (size_t)S->side[0].n * sizeof *S->side[0].pos)))
    return nm__fail(err, NM_EFAIL, "the two models were not read in step");
  nm__pool_run(nm__engine_pool(S->e), S->side[0].n, score_row, S);
  return NM_OK;
}

/* ---- the public face ------------------------------------------------------------ */

static int open_side(struct score *S, int i, nm_engine *e, nm_edits *edits,
                     const nm_progress *p, nm_err *err) {
  static const nm_tap tap = {"logits", "0:-1"};
  struct side *s = &S->side[i];
  s->V = nm__engine_model(e)->V;
  s->cap = S->chunk;
  s->rows = nm__alloc((size_t)s->cap * (size_t)s->V, sizeof *s->rows);
  s->win = nm__alloc((size_t)s->cap, sizeof *s->win);
  s->pos = nm__alloc((size_t)s->cap, sizeof *s->pos);
  if (!s->rows || !s->win || !s->pos)
    return nm__fail_memory(err, "rows of logits", (size_t)s->cap * (size_t)s->V * 4);
  s->r = (nm_request){.seqs = S->w.seq, .n_seqs = S->w.n, .taps = &tap, .n_taps = 1,
                      .tap_from = S->w.tap_from, .share_prefix = S->n_sides == 1, .edits = edits,
                      .row = keep, .arg = s, .progress = p};
  return nm__run_open(e, &s->r, S->chunk, 0, &s->run, err);
}

static int check(nm_engine *e, const nm_score_opts *o, size_t *window, size_t *stride,
                 nm_err *err) {
  const nm_model *m = nm__engine_model(e), *b = o->base ? nm__engine_model(o->base) : m;
  int ctx = nm__engine_ctx(e);
  if (o->base && nm__engine_ctx(o->base) < ctx) ctx = nm__engine_ctx(o->base);
  if (b->V != m->V)
    return nm__fail(err, NM_EUSAGE, "%s has a vocabulary of %d and its base %s of %d: their "
                    "distributions cannot be compared", m->path, m->V, b->path, b->V);
  if (o->window > ctx || o->window < 0 || o->window == 1)
    return nm__fail(err, NM_EUSAGE, "a window of %d tokens was asked for: it must lie between 2 "
                    "and the context of %d", o->window, ctx);
  *window = (size_t)(o->window ? o->window : ctx);
  if (o->stride < 0 || (size_t)o->stride >= *window)
    return nm__fail(err, NM_EUSAGE, "a stride of %d was asked for: it must lie between 1 and the "
                    "window of %zu less one", o->stride, *window);
  *stride = o->stride ? (size_t)o->stride : *window / 2;
  return NM_OK;
}

/* A forward's rows of logits fit ROWS_BYTES. Models whose positions see those after them have no
 * logits, so a chunk is always possible. */
static int chunk_of(const nm_model *m) {
  size_t n = ROWS_BYTES / (sizeof(float) * (size_t)m->V);
  return n > CHUNK_MOST ? CHUNK_MOST : n < CHUNK_LEAST ? CHUNK_LEAST : (int)n;
}

static int count_bytes(struct score *S, const size_t *from, nm_err *err) {
  const nm_model *m = nm__engine_model(S->e);
  S->out->bytes = nm__alloc(S->out->n, sizeof(double));
  if (!S->out->bytes) return nm__fail_memory(err, "the scores", 0);
  for (size_t i = 0; m->tok && i < S->out->n; i++) {
    size_t f = from && from[i] > 1 ? from[i] : 1, all = 0, before = 0;
    char *text = NULL;
    if (S->seqs[i].n <= f) continue;
    int st = nm_detokenize(m, S->seqs[i].ids, S->seqs[i].n, &text, &all, err);
    nm_free(text);
    text = NULL;
    if (!st) st = nm_detokenize(m, S->seqs[i].ids, f, &text, &before, err);
    nm_free(text);
    if (st) return st;
    S->out->bytes[i] = (double)(all - before);
  }
  return NM_OK;
}

static void done(struct score *S) {
  for (int i = 0; i < 2; i++) {
    nm__run_close(S->side[i].run);
    free(S->side[i].rows);
    free(S->side[i].win);
    free(S->side[i].pos);
  }
  free(S->w.seq);
  free(S->w.tap_from);
  free(S->work);
}

int nm_score(nm_engine *e, const nm_seq *seqs, const size_t *from, size_t n,
             const nm_score_opts *o, nm_scores *out, nm_err *err) {
  const nm_score_opts zero = {0};
  const nm_model *m = nm__engine_model(e);
  if (!o) o = &zero;
  *out = (nm_scores){.n = n, .first = nm__alloc(n + 1, sizeof *out->first)};
  struct score S = {.e = e, .seqs = seqs, .out = out, .n_sides = o->base ? 2 : 1};
  size_t window = 0, stride = 0, V = (size_t)m->V, threads = (size_t)nm_engine_threads(e);
  int st = out->first ? check(e, o, &window, &stride, err) : nm__fail_memory(err, "the scores", n);
  S.chunk = chunk_of(m);
  if (!st) st = make_windows(&S, from, window, stride, err);
  if (!st) st = count_bytes(&S, from, err);
  if (!st && !(S.work = nm__alloc(threads * V, sizeof(double))))
    st = nm__fail_memory(err, "the scores", threads * V * sizeof(double));
  if (!st && S.w.n) st = open_side(&S, 0, e, o->edits, o->base ? NULL : o->progress, err);
  if (!st && S.w.n && o->base) st = open_side(&S, 1, o->base, o->base_edits, o->progress, err);
  for (bool more = S.w.n > 0; more && !st;) st = step(&S, &more, err);
  done(&S);
  if (st) nm_scores_free(out);
  return st;
}

void nm_scores_free(nm_scores *s) {
  free(s->first);
  free(s->pos);
  free(s->lp);
  free(s->base_lp);
  free(s->kl);
  free(s->same_top);
  free(s->bytes);
  *s = (nm_scores){0};
}

/* ---- sums with intervals ----------------------------------------------------------- */

/* The ratio r = sum x / sum w of n units, and 1.96 standard errors about it, to first order: those
 * of the residuals x - r w (Cochran, Sampling Techniques, section 2.11). It is cut at 0: none of
 * these quantities is less. One unit has no spread. */
struct ratio { double x, w, xx, xw, ww, n; };

static void unit(struct ratio *r, double x, double w) {
  *r = (struct ratio){r->x + x, r->w + w, r->xx + x * x, r->xw + x * w, r->ww + w * w, r->n + 1};
}

static nm_interval interval(const struct ratio *r) {
  double m = r->w > 0 ? r->x / r->w : 0;
  double sq = r->xx - 2 * m * r->xw + m * m * r->ww;
  double half = r->n > 1 && r->w > 0 && sq > 0
                    ? 1.96 * nm__sqrt(r->n / (r->n - 1) * sq) / r->w : 0;
  return (nm_interval){m, m > half ? m - half : 0, m + half};
}

static nm_interval exp_of(nm_interval i) {
  return (nm_interval){nm__exp(i.mean), nm__exp(i.lo), nm__exp(i.hi)};
}

static double span_sum(const double *v, size_t a, size_t b) {
  double s = 0;
  for (size_t k = a; k < b; k++) s += v[k];
  return s;
}

void nm_score_total(const nm_scores *s, size_t first, size_t n, nm_score_sum *out) {
  struct ratio lp = {0}, base = {0}, kl = {0}, bits = {0};
  size_t from = s->first[first], to = s->first[first + n], same = 0;
  *out = (nm_score_sum){.n_tokens = to - from};
  for (size_t i = first; i < first + n; i++) {
    size_t a = s->first[i], b = s->first[i + 1];
    if (b == a) continue;
    double x = span_sum(s->lp, a, b), xb = s->kl ? span_sum(s->base_lp, a, b) : 0,
           k = s->kl ? span_sum(s->kl, a, b) : 0, w = (double)(b - a);
    unit(&lp, -x, w);
    unit(&base, -xb, w);
    unit(&kl, k, w);
    unit(&bits, -x / 0.693147180559945309417232121458, s->bytes[i]);
    out->lp += x;
    out->base_lp += xb;
    out->kl += k;
    out->bytes += s->bytes[i];
    out->n_texts++;
  }
  if (out->n_texts == 1) {             /* no spread among texts: that of the tokens */
    double per = bits.w / (double)out->n_tokens;
    lp = base = kl = bits = (struct ratio){0};
    for (size_t k = from; k < to; k++) {
      unit(&lp, -s->lp[k], 1);
      unit(&bits, -s->lp[k] / 0.693147180559945309417232121458, per);
      if (!s->kl) continue;
      unit(&base, -s->base_lp[k], 1);
      unit(&kl, s->kl[k], 1);
    }
  }
  for (size_t k = from; s->kl && k < to; k++) {
    same += s->same_top[k];
    if (s->kl[k] > out->kl_max) out->kl_max = s->kl[k];
  }
  out->same_top = to > from ? (double)same / (double)(to - from) : 0;
  out->ppl = exp_of(interval(&lp));
  out->base_ppl = exp_of(interval(&base));
  out->kl_mean = interval(&kl);
  out->bits_per_byte = interval(&bits);
}
