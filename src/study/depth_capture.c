/* depth_capture.c - what the study reads out of the model: the last token's
 * vector at every layer, kept in a folder that a broken run goes on with; and the
 * model's own answer: the log-odds of yes over no, or the likeliest of several labels. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "file/npy.h"
#include "study/depth.h"

/* The cache's folder name: the key of nm_acts guards its content, this only finds it. */
static char *folder_for(nm_engine *e, const nm_seq *seqs, size_t n, const char *glob,
                        nm_edits *edits, const char *cache, nm_err *err) {
  struct nm__buf b;
  char hex[33], model[33], name[80];
  nm__buf_init(&b, (size_t)1 << 31);
  if (nm_model_hash((nm_model *)(uintptr_t)nm__engine_model(e), model, err)) return NULL;
  nm__buf_printf(&b, "%s|%s|%d|", model, glob, nm__engine_ctx(e));
  nm__engine_key(e, &b);
  nm__buf_puts(&b, "|");
  nm__edits_key(edits, &b);
  for (size_t i = 0; i < n; i++) nm__buf_put(&b, seqs[i].ids, seqs[i].n * sizeof(int32_t));
  nm__hash_hex(b.s, b.len, hex);
  nm__buf_done(&b);
  snprintf(name, sizeof name, "vectors-%s", hex);
  return nm__path_join(cache, name);
}

int nm__depth_capture(nm_engine *e, const nm_seq *seqs, size_t n, const char *site, int to_layer,
                      nm_edits *edits, const char *cache, const nm_progress *p,
                      struct nm__depth_vectors *v, nm_err *err) {
  char glob[160];
  const nm_model *m = nm__engine_model(e);
  snprintf(glob, sizeof glob, "embed|blk.0-%d.%s", to_layer, site);
  *v = (struct nm__depth_vectors){
      .D = m->D, .n_layers = to_layer + 2, .n = n, .site = site,
      .prefix = nm__site_prefix(m)};
  v->dir = folder_for(e, seqs, n, glob, edits, cache, err);
  if (!v->dir) return nm__fail_memory(err, "a folder name", 0);
  nm_acts_opts o = {.site = glob,
                    .at = "last",
                    .out = v->dir,
                    .edits = edits,
                    .share_prefix = true,
                    .progress = p};
  nm_site *list;
  int k;
  nm_tap tap = {glob, "last"};
  int st = nm_run_sites(m, &tap, 1, &list, &k, err);
  for (int i = 0; !st && i < k; i++)
    if (list[i].width != m->D)
      st = nm__fail(
          err, NM_EUSAGE,
          "--site %s has %lld values a position; depth reads sites as wide as the residual "
          "stream (%d)",
          site, (long long)list[i].width, m->D);
  if (!st) free(list);
  return st ? st : nm_acts(e, seqs, n, &o, NULL, err);
}

void nm__depth_vectors_done(struct nm__depth_vectors *v) {
  free(v->dir);
  *v = (struct nm__depth_vectors){0};
}

int nm__depth_vectors_read(const struct nm__depth_vectors *v, int row, float *out, nm_err *err) {
  size_t have = 0;
  int st = NM_OK;
  for (int shard = 0; have < v->n && !st; shard++) {
    char name[96];
    struct nm__npy a;
    if (row == 0) snprintf(name, sizeof name, "%sembed.%05d.npy", v->prefix, shard);
    else
      snprintf(name, sizeof name, "%sblk.%d.%s.%05d.npy", v->prefix, row - 1, v->site, shard);
    char *path = nm__path_join(v->dir, name);
    st = path ? nm__npy_read(path, &a, err) : nm__fail_memory(err, "a file name", 0);
    if (!st && (a.n_dims != 2 || a.ne[1] != v->D || have + (size_t)a.ne[0] > v->n))
      st = nm__fail(err, NM_EFORMAT, "%s: does not belong to this run (remove the cache folder)",
                    path);
    if (!st) {
      memcpy(out + have * (size_t)v->D, a.data, sizeof(float) * (size_t)a.n);
      have += (size_t)a.ne[0];
      nm__npy_done(&a);
    }
    free(path);
  }
  return st;
}

/* ---- the model's own answer ------------------------------------------------------ */

struct answers { const struct nm__depth_set *s; double *out, *lp; int V; };

static double log_sum(const double *lp, const int32_t *ids, int n) {
  double p = 0;
  for (int i = 0; i < n; i++) p += nm_exp(lp[ids[i]]);
  return p;
}

static int answer_row(void *arg, const nm_row *r, nm_err *err) {
  struct answers *a = arg;
  (void)err;
  nm_log_softmax(r->data, a->V, a->lp);
  /* Shifted by the likeliest of them, so that a model that says none still prefers one. */
  double top = -1e300, p[NM__LABELS_MAX];
  int K = a->s->lab.n_labels, best = 0;
  for (int k = 0; k < K; k++)
    for (int i = 0; i < a->s->says[k].n; i++) {
      double lp = a->lp[a->s->says[k].id[i]];
      top = lp > top ? lp : top;
    }
  for (int k = 0; k < K; k++) {
    const struct nm__depth_says *s = &a->s->says[k];
    for (int i = 0; i < s->n; i++) a->lp[s->id[i]] -= top;
    p[k] = log_sum(a->lp, s->id, s->n);
    best = p[k] > p[best] ? k : best;
  }
  a->out[r->seq] = K > 2 ? best
                         : nm_log(p[1] > 1e-300 ? p[1] : 1e-300) -
                               nm_log(p[0] > 1e-300 ? p[0] : 1e-300);
  return NM_OK;
}

int nm__depth_answers(nm_engine *e, const struct nm__depth_set *s, const uint32_t *rows, size_t n,
                      nm_edits *edits, double *log_odds, const nm_progress *p, nm_err *err) {
  const nm_model *m = nm__engine_model(e);
  nm_seq *pick = nm__alloc(n, sizeof *pick);
  struct answers a = {s, log_odds, nm__alloc((size_t)m->V, sizeof(double)), m->V};
  nm_tap tap = {"logits", "last"};
  int st = pick && a.lp ? NM_OK : nm__fail_memory(err, "the answers", n * sizeof *pick);
  for (size_t i = 0; i < n && !st; i++) pick[i] = s->answers[rows ? rows[i] : i];
  nm_request r = {.seqs = pick,
                  .n_seqs = n,
                  .taps = &tap,
                  .n_taps = 1,
                  .edits = edits,
                  .share_prefix = true,
                  .row = answer_row,
                  .arg = &a,
                  .progress = p};
  if (!st) st = nm_run(e, &r, err);
  free(pick);
  free(a.lp);
  return st;
}
