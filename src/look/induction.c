/* induction.c - which heads look back one token, which to where they last were; and silence. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "look/walks.h"
#include "model/model.h"

enum { BLOCK = 32, N_BLOCKS = 4 };

struct scores { struct nm__head *head; const nm_model *m; int lead, done; };

static int take(void *arg, const nm_row *r, nm_err *err) {
  struct scores *s = arg;
  int at = r->pos - s->lead, T = (int)r->n / s->m->H;
  (void)err;
  if (at < BLOCK) return NM_OK;
  for (int h = 0; h < s->m->H; h++) {
    struct nm__head *to = &s->head[r->site * s->m->H + h];
    const float *row = r->data + h * T;
    to->induction += (double)row[r->pos - (BLOCK - 1)] / (BLOCK * N_BLOCKS);
    to->previous += (double)row[r->pos - 1] / (BLOCK * N_BLOCKS);
  }
  return NM_OK;
}

int nm__head_scores(nm_engine *e, const nm_model *m, int32_t bos, uint64_t seed,
                    const nm_progress *p, struct nm__head **out, nm_err *err) {
  int32_t ids[2 * BLOCK + 1];
  size_t n = (size_t)(m->L * m->H);
  struct scores s = {nm__alloc(n, sizeof *s.head), m, bos >= 0, 0};
  nm_tap tap = {"blk.*.attn.pattern", "all"};
  nm_seq seq = {ids, 2 * BLOCK + (size_t)s.lead};
  nm_request r = {.seqs = &seq, .n_seqs = 1, .taps = &tap, .n_taps = 1, .row = take, .arg = &s};
  int st = s.head ? NM_OK : nm__fail_memory(err, "scores of heads", n * sizeof *s.head);
  for (size_t i = 0; i < n && !st; i++)
    s.head[i] = (struct nm__head){.layer = (int)i / m->H, .head = (int)i % m->H};
  for (int k = 0; k < N_BLOCKS && !st; k++) {
    if (s.lead) ids[0] = bos;
    for (int i = 0; i < BLOCK; i++)
      ids[s.lead + i] = ids[s.lead + BLOCK + i] =
          (int32_t)(nm__rand_at(seed, 500 + (uint64_t)k, (uint64_t)i) % (uint64_t)m->V);
    st = nm_run(e, &r, err);
    if (!st) st = nm__progress(p, "scores of heads", k + 1, N_BLOCKS, err);
  }
  *out = s.head;
  if (st) free(s.head), *out = NULL;
  return st;
}

static int order(const struct nm__head *a, const struct nm__head *b, double x, double y) {
  if (x != y) return x > y ? -1 : 1;
  return a->layer != b->layer ? a->layer - b->layer : a->head - b->head;
}
static int by_induction(const void *a, const void *b) {
  const struct nm__head *x = a, *y = b;
  return order(x, y, x->induction, y->induction);
}
static int by_previous(const void *a, const void *b) {
  const struct nm__head *x = a, *y = b;
  return order(x, y, x->previous, y->previous);
}

void nm__head_sort(struct nm__head *h, int n, enum nm__head_kind kind) {
  qsort(h, (size_t)n, sizeof *h, kind == NM__INDUCTION ? by_induction : by_previous);
}

static bool among(const struct nm__head *v, int n, const struct nm__head *h) {
  for (int i = 0; i < n; i++)
    if (v[i].layer == h->layer && v[i].head == h->head) return true;
  return false;
}

int nm__heads_random(const struct nm__head *h, int n, int keep, int k, uint64_t seed,
                     struct nm__head *out) {
  struct nm__head *ind = nm__alloc((size_t)n, sizeof *ind),
                  *prev = nm__alloc((size_t)n, sizeof *prev);
  struct nm__rng r = {seed, 600, 0};
  int m = 0;
  if (keep > n) keep = n;
  if (ind && prev) {
    memcpy(ind, h, sizeof *h * (size_t)n);
    memcpy(prev, h, sizeof *h * (size_t)n);
    nm__head_sort(ind, n, NM__INDUCTION);
    nm__head_sort(prev, n, NM__PREVIOUS);
    for (int tries = 0; m < k && tries < 1000 * (k + 1); tries++) {
      const struct nm__head *one = &h[nm__rng_below(&r, (uint64_t)n)];
      if (!among(ind, keep, one) && !among(prev, keep, one) && !among(out, m, one)) out[m++] = *one;
    }
  }
  free(ind);
  free(prev);
  return m;
}

int nm__heads_off(const struct nm__head *h, int k, nm_edits **out, nm_err *err) {
  struct nm__buf b;
  *out = NULL;
  nm__buf_init(&b, (size_t)1 << 20);
  for (int i = 0; i < k; i++)
    nm__buf_printf(&b, "%c{\"site\": \"blk.%d.attn.head[%d]\", \"op\": \"mask_head\", \"how\": "
                   "\"zero\"}", i ? ',' : '[', h[i].layer, h[i].head);
  nm__buf_putc(&b, ']');
  int st = b.failed ? nm__fail_memory(err, "edits", b.len)
                    : nm_edits_parse("heads", b.s, b.len, out, err);
  nm__buf_done(&b);
  return st;
}

double nm__heads_silenced(const nm_edits *e) {
  double sum = 0;
  for (int i = 0; i < nm_edits_n(e); i++) sum += (double)nm_edits_touched(e, i);
  return sum;
}
