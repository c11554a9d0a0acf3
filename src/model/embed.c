/* embed.c - sentence vectors: the vectors of a text's tokens, pooled into one.
 *
 *   encoder   blk.(L-1).resid_post ─┐            mean  sum over positions / T
 *                                   ├─ pooling ─ cls   position 0          ─ / length ─ row
 *   decoder   final_norm ───────────┘            last  position T - 1
 *
 * It is a tap like any other, so edits and the same-bits law hold. The sum of the mean is
 * taken in double over ascending positions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "file/npy.h"
#include "model/model.h"
#include "tensor/math.h"

static const char *const pooling_names[] = {
    [NM_POOL_DEFAULT] = "default", [NM_POOL_NONE] = "none", [NM_POOL_MEAN] = "mean",
    [NM_POOL_CLS] = "cls",         [NM_POOL_LAST] = "last", [NM_POOL_RANK] = "rank",
};
enum { N_POOLING = sizeof pooling_names / sizeof *pooling_names };

const char *nm_pooling_name(enum nm_pooling p) {
  return (int)p >= 0 && (int)p < N_POOLING ? pooling_names[p] : "unknown";
}

bool nm_pooling_by_name(const char *name, enum nm_pooling *out) {
  for (int i = 0; i < N_POOLING; i++)
    if (!strcmp(pooling_names[i], name)) return *out = (enum nm_pooling)i, true;
  return false;
}

/* ---- the request ---------------------------------------------------------- */

struct embed {
  const nm_seq *seqs;
  nm_vectors *out;
  double **sum;                    /* [n]: of texts that are running, for the mean */
  bool keep_length;
  char site[64];
  nm_tap tap;
  nm_request r;
};

/* What is asked for, else what the file says, else what the kind of model is known for. */
static int choose(const nm_model *m, enum nm_pooling asked, enum nm_pooling *out, nm_err *err) {
  enum nm_pooling p = asked ? asked : m->pooling;
  if (p == NM_POOL_DEFAULT) p = m->causal ? NM_POOL_LAST : NM_POOL_MEAN;
  if (asked == NM_POOL_RANK || (int)p < 0 || (int)p >= N_POOLING)
    return nm__fail(err, NM_EUSAGE, "pooling '%s' is not known (known: none, mean, cls, last)",
                    nm_pooling_name(p));
  if (p == NM_POOL_RANK)
    return nm__fail(err, NM_EFORMAT, "%s: is a reranker (pooling_type 4): it was trained for one "
                    "score a pair of texts, which noema does not compute; name a pooling (mean, "
                    "cls, last) to have vectors all the same", m->path);
  if (p == NM_POOL_CLS && m->causal)
    return nm__fail(err, NM_EUSAGE, "pooling cls takes position 0, which in %s sees nothing but "
                    "itself: every text would have the same vector; say last or mean",
                    m->arch->name);
  *out = p;
  return NM_OK;
}

static int prepare(const nm_model *m, const nm_seq *seqs, size_t n, const nm_embed_opts *o,
                   struct embed *E, nm_err *err) {
  nm_vectors *v = E->out;
  *v = (nm_vectors){.D = m->D, .n = n};
  int st = choose(m, o->pooling, &v->pooling, err);
  if (st) return st;
  v->first = nm__alloc(n + 1, sizeof *v->first);
  if (!v->first) return nm__fail_memory(err, "the vectors", n * sizeof *v->first);
  for (size_t i = 0; i < n; i++)
    v->first[i + 1] = v->first[i] + (v->pooling == NM_POOL_NONE ? seqs[i].n : 1);
  if (m->arch->encoder) snprintf(E->site, sizeof E->site, "enc.blk.%d.resid_post", m->L - 1);
  else snprintf(E->site, sizeof E->site, "final_norm");
  E->tap = (nm_tap){E->site, v->pooling == NM_POOL_CLS    ? "0"
                             : v->pooling == NM_POOL_LAST ? "last"
                                                          : "all"};
  E->seqs = seqs;
  E->keep_length = o->keep_length;
  E->r = (nm_request){.seqs = seqs, .n_seqs = n, .taps = &E->tap, .n_taps = 1, .edits = o->edits,
                      .share_prefix = true, .arg = E, .progress = o->progress};
  return NM_OK;
}

/* ---- rows ------------------------------------------------------------------ */

static int take_row(void *arg, const nm_row *row, nm_err *err) {
  struct embed *E = arg;
  nm_vectors *v = E->out;
  if (v->pooling != NM_POOL_MEAN) {
    size_t at = v->first[row->seq] + (v->pooling == NM_POOL_NONE ? (size_t)row->pos : 0);
    memcpy(v->v + at * (size_t)v->D, row->data, sizeof(float) * (size_t)v->D);
    return NM_OK;
  }
  double *sum = E->sum[row->seq];
  if (!sum && !(sum = E->sum[row->seq] = nm__alloc((size_t)v->D, sizeof *sum)))
    return nm__fail_memory(err, "a mean", (size_t)v->D * sizeof *sum);
  for (int i = 0; i < v->D; i++) sum[i] += (double)row->data[i];
  return NM_OK;
}

static void to_length_one(float *x, int n) {
  double sq = 0;
  for (int i = 0; i < n; i++) sq += (double)x[i] * (double)x[i];
  double length = nm__sqrt(sq);
  for (int i = 0; length > 0 && i < n; i++) x[i] = (float)((double)x[i] / length);
}

static int text_done(void *arg, size_t seq, nm_err *err) {
  struct embed *E = arg;
  nm_vectors *v = E->out;
  (void)err;
  float *x = v->v + v->first[seq] * (size_t)v->D;
  double *sum = v->pooling == NM_POOL_MEAN ? E->sum[seq] : NULL;
  if (sum) {
    for (int i = 0; i < v->D; i++) x[i] = (float)(sum[i] / (double)E->seqs[seq].n);
    free(sum);
    E->sum[seq] = NULL;
  }
  for (size_t r = v->first[seq]; r < v->first[seq + 1] && !E->keep_length; r++)
    to_length_one(v->v + r * (size_t)v->D, v->D);
  return NM_OK;
}

/* ---- the public face --------------------------------------------------------- */

int nm_embed(nm_engine *e, const nm_seq *seqs, size_t n, const nm_embed_opts *o, nm_vectors *out,
             nm_err *err) {
  const nm_embed_opts zero = {0};
  struct embed E = {.out = out};
  int st = prepare(nm__engine_model(e), seqs, n, o ? o : &zero, &E, err);
  if (!st) {
    out->v = nm__alloc(out->first[n] * (size_t)out->D + 1, sizeof *out->v);
    E.sum = nm__alloc(n + 1, sizeof *E.sum);
    if (!out->v || !E.sum)
      st = nm__fail_memory(err, "the vectors", out->first[n] * (size_t)out->D * sizeof(float));
  }
  E.r.row = take_row;
  E.r.done = text_done;
  if (!st && n) st = nm_run(e, &E.r, err);
  for (size_t i = 0; E.sum && i < n; i++) free(E.sum[i]);
  free(E.sum);
  if (st) nm_vectors_free(out);
  return st;
}

int nm_embed_measure(nm_engine *e, const nm_seq *seqs, size_t n, const nm_embed_opts *o,
                     nm_memory *need, nm_err *err) {
  const nm_embed_opts zero = {0};
  nm_vectors v;
  struct embed E = {.out = &v};
  *need = (nm_memory){0};
  int st = prepare(nm__engine_model(e), seqs, n, o ? o : &zero, &E, err);
  if (!st && n) st = nm_run_measure(e, &E.r, need, err);
  if (!st) need->activations += v.first[n] * (uint64_t)v.D * sizeof(float);
  nm_vectors_free(&v);
  return st;
}

int nm_vectors_save(const nm_vectors *v, const char *path, nm_err *err) {
  if (v->pooling == NM_POOL_NONE && v->n > 1)
    return nm__fail(err, NM_EUSAGE, "%s: the vectors of all tokens of %zu texts do not fit one "
                    "array: pool them, take one text, or take JSON", path, v->n);
  int64_t ne[2] = {(int64_t)v->first[v->n], v->D};
  return nm__npy_write(path, 2, ne, v->v, err);
}

void nm_vectors_free(nm_vectors *v) {
  free(v->v);
  free(v->first);
  *v = (nm_vectors){0};
}

double nm_cosine(const float *a, const float *b, int64_t n) {
  double ab = 0, aa = 0, bb = 0;
  for (int64_t i = 0; i < n; i++) {
    ab += (double)a[i] * (double)b[i];
    aa += (double)a[i] * (double)a[i];
    bb += (double)b[i] * (double)b[i];
  }
  return aa > 0 && bb > 0 ? ab / (nm__sqrt(aa) * nm__sqrt(bb)) : 0;
}
