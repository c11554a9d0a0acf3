/* stream.c - which samples a step takes: a pure function of (seed, step). */
#include <stdlib.h>
#include <string.h>

#include "learn/data.h"

enum { MIX = 0x6d69780000, ORDER = 0x6f72640000, NOISE = 0x6e6f690000 };    /* streams of numbers */

/* ---- an order without a table -------------------------------------------------- */

/* Four rounds of a Feistel network over the smallest even number of bits that holds n; what falls
 * outside goes round again (Black and Rogaway 2002). */
uint64_t nm__permuted(uint64_t key, uint64_t i, uint64_t n) {
  int half = 1;
  while (half < 31 && (uint64_t)1 << 2 * half < n) half++;
  uint64_t mask = ((uint64_t)1 << half) - 1;
  do {
    uint64_t left = i >> half, right = i & mask;
    for (uint64_t round = 0; round < 4; round++) {
      uint64_t next = left ^ (nm__rand_at(key, round, right) & mask);
      left = right;
      right = next;
    }
    i = left << half | right;
  } while (i >= n);
  return i;
}

/* ---- the mixture ------------------------------------------------------------------ */

static bool active(const struct nm__source *s, int64_t step) {
  return s->from <= step && step < s->to && s->weight > 0;
}

static int choose(const struct nm__stream *s, int64_t step, uint64_t g) {
  const struct nm__sources *d = &s->r->data;
  double sum = 0, at = 0;
  int last = 0;
  for (int i = 0; i < d->n; i++)
    if (active(&d->v[i], step)) sum += d->v[i].weight;
  double u = sum * ((double)(nm__rand_at((uint64_t)s->r->seed, MIX, g) >> 11) * 0x1p-53);
  for (int i = 0; i < d->n; i++) {
    if (!active(&d->v[i], step)) continue;
    at += d->v[i].weight;
    last = i;
    if (u < at) return i;
  }
  return last;
}

/* The sample, or the first of a pair. */
static const struct nm__sample *draw(struct nm__stream *s, int source) {
  const struct nm__set *set = &s->set[source];
  uint64_t k = (uint64_t)s->drawn[source]++, n = (uint64_t)(set->n / set->per), i = k % n;
  uint64_t key = nm__rand_at((uint64_t)s->r->seed, ORDER + (uint64_t)source, k / n);
  if (s->r->data.v[source].order == NM__ORDER_SHUFFLED) i = nm__permuted(key, i, n);
  return &set->v[i * (uint64_t)set->per];
}

/* What stands in for the inputs; what is to be predicted stays. */
static int add_noise(struct nm__stream *s, int64_t step, int row, const struct nm__sample **v,
                     nm_err *err) {
  struct nm__sample *own = &s->own[row];
  int32_t *input = nm__realloc(own->input, (size_t)(*v)->n, sizeof *input);
  if (!input) return nm__fail_memory(err, "the noise", (size_t)(*v)->n * sizeof *input);
  *own = **v;
  own->input = input;
  uint64_t key = nm__rand_at((uint64_t)s->r->seed, NOISE, (uint64_t)step);
  for (int i = 0; i < own->n; i++) {
    uint64_t u = nm__rand_at(key, (uint64_t)row, 2 * (uint64_t)i);
    bool hit = (double)(u >> 11) * 0x1p-53 < s->r->noise && own->ids[i] != s->bos;
    int32_t any = (int32_t)(nm__rand_at(key, (uint64_t)row, 2 * (uint64_t)i + 1) %
                            (uint64_t)s->V);
    input[i] = !hit ? own->ids[i] : s->noise >= 0 ? s->noise : any;
  }
  *v = own;
  return NM_OK;
}

int nm__stream_step(struct nm__stream *s, int64_t step, const struct nm__sample **out,
                    nm_err *err) {
  int B = s->r->batch, st = NM_OK;
  if (step < s->at) {
    memset(s->drawn, 0, sizeof *s->drawn * (size_t)s->r->data.n);
    s->at = 0;
  }
  for (; s->at < step; s->at++)
    for (int i = 0; i < B; i++)
      s->drawn[choose(s, s->at, (uint64_t)s->at * (uint64_t)B + (uint64_t)i)]++;
  s->n = 0;
  for (int i = 0; i < B && !st; i++) {
    int source = choose(s, step, (uint64_t)step * (uint64_t)B + (uint64_t)i);
    const struct nm__sample *v = draw(s, source);
    for (int k = 0; k < s->set[source].per && !st; k++, s->n++) {
      out[s->n] = v + k;
      if (s->r->noise > 0) st = add_noise(s, step, s->n, &out[s->n], err);
    }
  }
  s->at = step + 1;
  return st;
}

/* ---- making it ------------------------------------------------------------------------ */

int nm__stream_init(struct nm__stream *s, const struct nm__recipe *r, const struct nm__set *set,
                    const nm_model *m, nm_err *err) {
  *s = (struct nm__stream){.r = r, .set = set, .V = m->V, .bos = m->tok ? nm__tok_bos(m->tok) : -1,
                           .noise = -1};
  s->drawn = nm__alloc((size_t)r->data.n + 1, sizeof *s->drawn);
  s->own = nm__alloc(2 * (size_t)r->batch, sizeof *s->own);
  if (!s->drawn || !s->own) {
    nm__stream_done(s);
    return nm__fail_memory(err, "the stream of samples", (size_t)r->batch * sizeof *s->own);
  }
  if (!r->noise_token) return NM_OK;
  for (int i = 0; m->tok && i < m->V && i < nm__tok_size(m->tok) && s->noise < 0; i++) {
    struct nm__str p = nm__tok_piece(m->tok, i);
    if (p.n == strlen(r->noise_token) && !memcmp(p.s, r->noise_token, p.n)) s->noise = i;
  }
  if (s->noise >= 0) return NM_OK;
  nm__stream_done(s);
  return nm__yaml_fail(&r->y, json_object_get(r->y.root, "noise"), err,
                       "no token of the vocabulary is written '%.60s'", r->noise_token);
}

void nm__stream_done(struct nm__stream *s) {
  for (int i = 0; s->own && i < 2 * s->r->batch; i++) free(s->own[i].input);
  free(s->own);
  free(s->drawn);
  s->own = NULL;
  s->drawn = NULL;
}
