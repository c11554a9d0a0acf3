/* sample.c - documents as samples: ids, and what the prediction of each is worth. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "learn/data.h"

struct making {
  const nm_model *m;
  const struct nm__set_opts *o;
  struct nm__set *set;
  size_t *end;                     /* of each document */
  size_t n, cap;
  struct nm__buf text;
  struct nm__ids whole, front;
};

static int put(struct making *k, int32_t id, float weight, nm_err *err) {
  struct nm__set *s = k->set;
  if (s->ids.n == s->cap_weight) {
    size_t cap = s->cap_weight ? 2 * s->cap_weight : 1 << 14;
    float *w = nm__realloc(s->weight, cap, sizeof *w);
    if (!w) return nm__fail_memory(err, "the samples", cap * sizeof *w);
    s->weight = w;
    s->cap_weight = cap;
  }
  s->weight[s->ids.n] = weight;
  return nm__ids_push(&s->ids, id) ? nm__fail_memory(err, "the samples", s->ids.n * 8) : NM_OK;
}

static int put_ids(struct making *k, const struct nm__doc *d, nm_err *err) {
  int st = NM_OK;
  for (int i = 0; i < d->n_ids && !st; i++) {
    if (d->ids[i] >= k->m->V)
      return nm__fail(err, NM_EFORMAT, "%s: token %d is outside the vocabulary of %d", d->where,
                      d->ids[i], k->m->V);
    st = put(k, d->ids[i], i ? d->weight[i] : 0, err);
  }
  return st;
}

/* The text is read as a whole. A part's tokens begin where the reading of what stands before it
 * stops to agree: a token that lies across the boundary is of the later part. */
static int put_text(struct making *k, const struct nm__doc *d, nm_err *err) {
  const struct nm__tok *tok = k->m->tok;
  struct nm__tok_opts o = {0};
  if (!tok) return nm__fail(err, NM_EFORMAT, "%s: texts need a tokenizer, which %s lacks: give "
                            "\"ids\"", d->where, k->m->path);
  nm__buf_reset(&k->text);
  for (int i = 0; i < d->n_parts; i++) nm__buf_put(&k->text, d->part[i].s, d->part[i].n);
  if (k->text.failed) return nm__fail_memory(err, "a text", k->text.len);
  k->whole.n = 0;
  int st = nm__tok_encode(tok, k->text.s, k->text.len, o, &k->whole, err);
  size_t done = nm__tok_adds_bos(tok), bytes = 0, first = k->set->ids.n;
  for (size_t i = 0; i < done && i < k->whole.n && !st; i++)
    st = put(k, k->whole.id[i], 0, err);
  for (int i = 0; i < d->n_parts && !st; i++) {
    size_t end = k->whole.n;
    bytes += d->part[i].n;
    if (i + 1 < d->n_parts && d->part[i].weight != d->part[i + 1].weight) {
      k->front.n = 0;
      st = nm__tok_encode(tok, k->text.s, bytes, o, &k->front, err);
      for (end = 0; end < k->front.n && end < k->whole.n; end++)
        if (k->front.id[end] != k->whole.id[end]) break;
    } else if (i + 1 < d->n_parts) {
      continue;                    /* equal weights: the boundary does not matter */
    }
    for (; done < end && !st; done++) st = put(k, k->whole.id[done], d->part[i].weight, err);
  }
  int32_t eos = nm__tok_eos(tok);
  size_t n = k->set->ids.n;
  if (!st && k->o->eos && eos >= 0 && n > first && k->set->ids.id[n - 1] != eos)
    st = put(k, eos, k->set->weight[n - 1], err);
  return st;
}

static int take(void *arg, const struct nm__doc *d, nm_err *err) {
  struct making *k = arg;
  if (k->n == k->cap) {
    size_t cap = k->cap ? 2 * k->cap : 1024, *end = nm__realloc(k->end, cap, sizeof *end);
    if (!end) return nm__fail_memory(err, "the samples", cap * sizeof *end);
    k->end = end;
    k->cap = cap;
  }
  int st = d->n_parts ? put_text(k, d, err) : put_ids(k, d, err);
  k->end[k->n++] = k->set->ids.n;
  return st;
}

/* Only now do ids and weights lie where they stay. Rows without any weight teach nothing. */
static void add_sample(struct nm__set *s, size_t from, size_t n) {
  float sum = 0;
  for (size_t i = 1; i < n; i++) sum += s->weight[from + i];
  if (!(sum > 0)) return;
  s->v[s->n++] = (struct nm__sample){.ids = s->ids.id + from, .weight = s->weight + from,
                                     .n = (int)n};
  s->n_tokens += (int64_t)n;
}

static int cut(struct making *k, nm_err *err) {
  struct nm__set *s = k->set;
  size_t length = (size_t)k->o->length, total = s->ids.n;
  size_t n = k->o->pack ? total / (length - 1) + 2 : k->n;
  if (n > INT32_MAX) return nm__fail(err, NM_EFORMAT, "%zu samples are too many", n);
  s->v = nm__alloc(n + 1, sizeof *s->v);
  if (!s->v) return nm__fail_memory(err, "the samples", n * sizeof *s->v);
  for (size_t at = 0; k->o->pack && at + 1 < total; at += length - 1)
    add_sample(s, at, total - at < length ? total - at : length);
  for (size_t i = 0; !k->o->pack && i < k->n; i++) {
    size_t from = i ? k->end[i - 1] : 0, len = k->end[i] - from;
    s->n_cut += len > length;
    add_sample(s, from, len < length ? len : length);
  }
  return NM_OK;
}

int nm__set_make(const struct nm__yaml *y, const struct nm__source *s, const nm_model *m,
                 const struct nm__set_opts *o, struct nm__set *out, nm_err *err) {
  struct making k = {.m = m, .o = o, .set = out};
  *out = (struct nm__set){0};
  nm__buf_init(&k.text, (size_t)1 << 30);
  int st = nm__docs(y, s, take, &k, err);
  if (!st) st = cut(&k, err);
  if (!st && !out->n)
    st = nm__yaml_fail(y, s->at, err, "no token of this source has a weight: there is nothing to "
                       "learn from it");
  free(k.end);
  nm__buf_done(&k.text);
  nm__ids_done(&k.whole);
  nm__ids_done(&k.front);
  if (st) nm__set_done(out);
  return st;
}

void nm__set_done(struct nm__set *s) {
  free(s->v);
  free(s->weight);
  nm__ids_done(&s->ids);
  *s = (struct nm__set){0};
}

void nm__sets_hash(const struct nm__set *s, int n, char hex[33]) {
  uint64_t h[3] = {0};
  for (int i = 0; i < n; i++) {
    h[0] = nm__hash(s[i].ids.id, s[i].ids.n * sizeof *s[i].ids.id, nm__mix64(h[0] + 1));
    h[1] = nm__hash(s[i].weight, s[i].ids.n * sizeof *s[i].weight, nm__mix64(h[1] + 2));
    h[2] = nm__mix64(h[2] + (uint64_t)s[i].n);
  }
  nm__hash_hex(h, sizeof h, hex);
}
