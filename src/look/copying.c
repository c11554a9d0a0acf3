/* copying.c - greedy answers, and which heads copied them. A head is looked at in the very forward
 * that made the token: its row of attention at the last position, read by a tap of the session. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "look/heads.h"
#include "model/model.h"

struct nm__copier {
  nm_session *s;
  const nm_model *m;
  nm_site *site;                   /* of the tap, by row->site */
  int n_sites, n_seen;
  int *look;                       /* [L, H]: the position looked at most; -1: the layer has none */
  uint8_t *copied;                 /* [L, H, span]: with `unique`, what was copied already */
  struct nm__copy_opts o;
};

static int see(void *arg, const nm_row *r, nm_err *err) {
  struct nm__copier *c = arg;
  int layer = c->site[r->site].layer, H = c->m->H;
  int64_t n = r->n / H;
  (void)err;
  for (int h = 0; h < H; h++) {
    const float *row = r->data + h * n;
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
      if (row[i] > row[best]) best = i;
    c->look[layer * H + h] = (int)best;
  }
  return NM_OK;
}

int nm__copier_new(nm_engine *e, const nm_model *m, nm_edits *edits, const struct nm__copy_opts *o,
                   struct nm__copier **out, nm_err *err) {
  static const nm_tap tap = {"blk.*.attn.pattern", "all"};
  struct nm__copier *c = nm__alloc(1, sizeof *c);
  *out = c;
  if (!c) return nm__fail_memory(err, "a session", sizeof *c);
  c->m = m;
  c->o = *o;
  size_t heads = (size_t)m->L * (size_t)m->H;
  if (!(c->look = nm__alloc(heads, sizeof *c->look))) {
    nm__copier_free(c);
    *out = NULL;
    return nm__fail_memory(err, "the heads", heads * sizeof *c->look);
  }
  for (size_t i = 0; i < heads; i++) c->look[i] = -1;
  nm_session_opts so = {.edits = edits, .tap = o->blind ? NULL : tap.site, .row = see, .arg = c};
  int st = o->blind ? NM_OK : nm_run_sites(m, &tap, 1, &c->site, &c->n_sites, err);
  if (!st) st = nm_session_new(e, &so, &c->s, err);
  if (st) nm__copier_free(c), *out = NULL;
  return st;
}

void nm__copier_free(struct nm__copier *c) {
  if (!c) return;
  nm_session_free(c->s);
  nm_free(c->site);
  free(c->look);
  free(c->copied);
  free(c);
}

/* ---- one token --------------------------------------------------------------------- */

/* Different tokens of the needle: what `unique` divides by. */
static int different(const int32_t *v, int n) {
  int k = 0;
  for (int i = 0; i < n; i++) {
    int j = 0;
    while (j < i && v[j] != v[i]) j++;
    k += j == i;
  }
  return k;
}

/* Token w was made. Heads that looked at it in the needle get their share. */
static void count(struct nm__copier *c, const struct nm__needle *q, int32_t w, int of,
                  double *score) {
  size_t heads = (size_t)c->m->L * (size_t)c->m->H, span = (size_t)(q->to - q->from);
  for (size_t i = 0; i < heads; i++) {
    int at = c->look[i];
    if (at < q->from || at >= q->to || q->prompt.ids[at] != w) continue;
    if (c->copied) {
      int first = q->from;
      while (q->prompt.ids[first] != w) first++;
      uint8_t *seen = &c->copied[i * span + (size_t)(first - q->from)];
      if (*seen) continue;
      *seen = 1;
    }
    score[i] += 1.0 / of;
  }
}

static int32_t likeliest(const float *logits, int V) {
  int32_t best = 0;
  for (int32_t i = 1; i < V; i++)
    if (logits[i] > logits[best]) best = i;
  return best;
}

/* Back to what this prompt and the last text have in common; the last token is always read. */
static int set_prompt(struct nm__copier *c, nm_seq p, nm_err *err) {
  nm_seq was = nm_session_ids(c->s, 0);
  size_t same = 0;
  while (same < was.n && same + 1 < p.n && was.ids[same] == p.ids[same]) same++;
  int st = nm_session_rewind(c->s, 0, (int)same, err);
  return st ? st : nm_session_append(c->s, 0, p.ids + same, p.n - same, err);
}

int nm__copy_answer(struct nm__copier *c, const struct nm__needle *q, int32_t *answer, int *n,
                    double *score, nm_err *err) {
  size_t heads = (size_t)c->m->L * (size_t)c->m->H;
  int span = q->to - q->from, of = span, zero = 0, st;
  int most = q->most && q->most < c->o.most ? q->most : c->o.most;
  free(c->copied);
  c->copied = NULL;
  if (score && c->o.unique) {
    of = different(q->prompt.ids + q->from, span);
    if (!(c->copied = nm__alloc(heads, (size_t)span)))
      return nm__fail_memory(err, "what was copied", heads * (size_t)span);
  }
  for (size_t i = 0; score && i < heads; i++) score[i] = 0;
  st = set_prompt(c, q->prompt, err);
  for (*n = 0; !st && *n < most;) {
    int32_t w = likeliest(nm_session_logits(c->s, 0), c->m->V);
    if (score) count(c, q, w, of, score);
    if (c->o.stop && c->o.stop(c->o.arg, w)) break;
    answer[(*n)++] = w;
    if (*n == most || (int)q->prompt.n + *n >= nm_session_room(c->s)) break;
    st = nm_session_step(c->s, &zero, &w, 1, err);
  }
  return st;
}

/* ---- masks ------------------------------------------------------------------------- */

int nm__mask_heads(const nm_model *m, const uint32_t *head, size_t n, const char *how,
                   nm_edits **out, nm_err *err) {
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 26);
  bool zero = !strcmp(how, "zero");
  for (size_t i = 0; i < n; i++)
    nm__buf_printf(&b, "%s{\"site\": \"blk.%u.attn.%s[%u]\", \"at\": \"all\", \"op\": "
                   "\"mask_head\", \"how\": \"%s\"}", i ? ", " : "[", head[i] / (uint32_t)m->H,
                   zero ? "head" : "pattern", head[i] % (uint32_t)m->H, how);
  nm__buf_puts(&b, "]");
  int st = b.failed ? nm__fail_memory(err, "a mask", b.len)
                    : nm_edits_parse("masked heads", b.s, b.len, out, err);
  nm__buf_done(&b);
  return st;
}

int nm__random_heads(const uint32_t *rank, size_t heads, size_t outside, size_t k, uint64_t seed,
                     uint64_t draw, uint32_t *out, nm_err *err) {
  size_t n = heads - outside;
  if (outside > heads || k > n)
    return nm__fail(err, NM_EUSAGE, "of %zu heads %zu are outside the best %zu: no %zu of them can "
                    "be drawn", heads, outside > heads ? 0 : n, outside, k);
  uint32_t *rest = nm__alloc(n, sizeof *rest);
  struct nm__rng r = {seed, 0x68656164 + draw, 0};
  if (!rest) return nm__fail_memory(err, "heads", n * sizeof *rest);
  memcpy(rest, rank + outside, n * sizeof *rest);
  nm__rng_shuffle(&r, rest, n);
  memcpy(out, rest, k * sizeof *rest);
  free(rest);
  return NM_OK;
}
