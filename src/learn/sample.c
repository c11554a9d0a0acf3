/* sample.c - documents as samples: ids, and what the prediction of each is worth. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "learn/data.h"

/* Of one document: where its ids and its target end, and what else its sample gets. */
struct made { size_t end, target_end; int group, pair; };

struct making {
  const nm_model *m;
  const struct nm__set_opts *o;
  const struct nm__source *source;
  struct nm__set *set;
  struct made *doc;
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

static int encode(struct making *k, const struct nm__doc *d, size_t n, struct nm__ids *out,
                  nm_err *err) {
  const struct nm__tok_opts o = {0};
  out->n = 0;
  if (d->user) return nm__tok_encode_marked(k->m->tok, k->text.s, d->user, n, o, out, err);
  return nm__tok_encode(k->m->tok, k->text.s, n, o, out, err);
}

/* The text is read as a whole. A part's tokens begin where the reading of what stands before it
 * stops to agree: a token that lies across the boundary is of the later part. */
static int put_text(struct making *k, const struct nm__doc *d, nm_err *err) {
  const struct nm__tok *tok = k->m->tok;
  if (!tok) return nm__fail(err, NM_EFORMAT, "%s: texts need a tokenizer, which %s lacks: give "
                            "\"ids\"", d->where, k->m->path);
  nm__buf_reset(&k->text);
  for (int i = 0; i < d->n_parts; i++) nm__buf_put(&k->text, d->part[i].s, d->part[i].n);
  if (k->text.failed) return nm__fail_memory(err, "a text", k->text.len);
  int st = encode(k, d, k->text.len, &k->whole, err);
  size_t done = nm__tok_adds_bos(tok), bytes = 0, first = k->set->ids.n;
  for (size_t i = 0; i < done && i < k->whole.n && !st; i++)
    st = put(k, k->whole.id[i], 0, err);
  for (int i = 0; i < d->n_parts && !st; i++) {
    size_t end = k->whole.n;
    bytes += d->part[i].n;
    if (i + 1 < d->n_parts && d->part[i].weight != d->part[i + 1].weight) {
      st = encode(k, d, bytes, &k->front, err);
      for (end = 0; end < k->front.n && end < k->whole.n; end++)
        if (k->front.id[end] != k->whole.id[end]) break;
    } else if (i + 1 < d->n_parts) {
      continue;                    /* equal weights: the boundary does not matter */
    }
    for (; done < end && !st; done++) st = put(k, k->whole.id[done], d->part[i].weight, err);
  }
  int32_t eos = nm__tok_eos(tok);
  size_t n = k->set->ids.n;
  if (!st && k->o->eos && !d->user && eos >= 0 && n > first && k->set->ids.id[n - 1] != eos)
    st = put(k, eos, k->set->weight[n - 1], err);
  return st;
}

static int put_target(struct making *k, const struct nm__doc *d, nm_err *err) {
  struct nm__set *s = k->set;
  size_t n = s->n_target + (size_t)d->n_target;
  float *v = nm__realloc(s->target, n, sizeof *v);
  if (!v) return nm__fail_memory(err, "the targets", n * sizeof *v);
  memcpy(v + s->n_target, d->target, (size_t)d->n_target * sizeof *v);
  s->target = v;
  s->n_target = n;
  return NM_OK;
}

static int group_of(const struct making *k, const struct nm__doc *d, int *out, nm_err *err) {
  const struct nm__recipe *r = k->o->groups;
  const char *name = d->group ? d->group : k->source->group;
  char shown[48];
  *out = 0;
  if (!r || !r->groups.n || !name) return NM_OK;
  if (d->group && k->o->pack)
    return nm__fail(err, NM_EFORMAT, "%s: 'pack' joins rows, so a group is its whole source's",
                    d->where);
  *out = nm__recipe_group(r, name);
  if (*out >= 0) return NM_OK;
  return nm__fail(err, NM_EFORMAT, "%s: no loss names the group '%s'", d->where,
                  nm__printable(shown, sizeof shown, name, strlen(name)));
}

static int take(void *arg, const struct nm__doc *d, nm_err *err) {
  struct making *k = arg;
  struct made made = {.pair = d->pair};
  if (k->n == k->cap) {
    size_t cap = k->cap ? 2 * k->cap : 1024;
    struct made *doc = nm__realloc(k->doc, cap, sizeof *doc);
    if (!doc) return nm__fail_memory(err, "the samples", cap * sizeof *doc);
    k->doc = doc;
    k->cap = cap;
  }
  if (k->n && !k->doc[k->n - 1].pair != !d->pair)
    return nm__fail(err, NM_EFORMAT, "%s: pairs and other rows do not stand in one source",
                    d->where);
  if (d->pair && k->o->pack)
    return nm__fail(err, NM_EFORMAT, "%s: pairs are not packed", d->where);
  int st = group_of(k, d, &made.group, err);
  if (!st) st = d->n_parts ? put_text(k, d, err) : put_ids(k, d, err);
  if (!st && d->n_target) st = put_target(k, d, err);
  made.end = k->set->ids.n;
  made.target_end = k->set->n_target;
  k->doc[k->n++] = made;
  return st;
}

/* Rows without any weight teach nothing. */
static bool counts(const struct nm__set *s, size_t from, size_t n) {
  float sum = 0;
  for (size_t i = 1; i < n; i++) sum += s->weight[from + i];
  return sum > 0;
}

/* Only now do ids and weights lie where they stay. */
static struct nm__sample *add_sample(struct nm__set *s, size_t from, size_t n) {
  s->v[s->n] = (struct nm__sample){.ids = s->ids.id + from, .weight = s->weight + from,
                                   .n = (int)n};
  s->n_tokens += (int64_t)n;
  return &s->v[s->n++];
}

static void cut_packed(struct making *k) {
  struct nm__set *s = k->set;
  size_t length = (size_t)k->o->length, total = s->ids.n;
  int group = k->n ? k->doc[0].group : 0;
  for (size_t at = 0; at + 1 < total; at += length - 1) {
    size_t n = total - at < length ? total - at : length;
    if (counts(s, at, n)) add_sample(s, at, n)->group = group;
  }
}

/* The two of a pair stay together: either is left out with the other. */
static void cut_single(struct making *k) {
  struct nm__set *s = k->set;
  size_t length = (size_t)k->o->length, per = k->n && k->doc[0].pair ? 2 : 1;
  s->per = (int)per;
  for (size_t i = 0; i + per <= k->n; i += per) {
    size_t from[2] = {0}, n[2] = {0};
    bool good = true;
    for (size_t j = 0; j < per; j++) {
      from[j] = i + j ? k->doc[i + j - 1].end : 0;
      n[j] = k->doc[i + j].end - from[j];
      s->n_cut += n[j] > length;
      if (n[j] > length) n[j] = length;
      good &= counts(s, from[j], n[j]);
    }
    for (size_t j = 0; j < per && good; j++) {
      const struct made *d = &k->doc[i + j];
      size_t target = i + j ? k->doc[i + j - 1].target_end : 0;
      struct nm__sample *v = add_sample(s, from[j], n[j]);
      v->group = d->group;
      v->pair = per == 2 ? 1 + s->n / 2 - (int)j : 0;
      v->n_target = (int)(d->target_end - target);
      v->target = v->n_target ? s->target + target : NULL;
    }
  }
}

static int cut(struct making *k, nm_err *err) {
  struct nm__set *s = k->set;
  size_t n = k->o->pack ? s->ids.n / ((size_t)k->o->length - 1) + 2 : k->n;
  s->per = 1;
  if (n > INT32_MAX) return nm__fail(err, NM_EFORMAT, "%zu samples are too many", n);
  s->v = nm__alloc(n + 1, sizeof *s->v);
  if (!s->v) return nm__fail_memory(err, "the samples", n * sizeof *s->v);
  if (k->o->pack) cut_packed(k);
  else cut_single(k);
  return NM_OK;
}

int nm__set_make(const struct nm__yaml *y, const struct nm__source *s, const nm_model *m,
                 const struct nm__set_opts *o, struct nm__set *out, nm_err *err) {
  struct making k = {.m = m, .o = o, .source = s, .set = out};
  *out = (struct nm__set){0};
  nm__buf_init(&k.text, (size_t)1 << 30);
  int st = nm__docs(y, s, o->chat, take, &k, err);
  if (!st) st = cut(&k, err);
  if (!st && !out->n)
    st = nm__yaml_fail(y, s->at, err, "no token of this source has a weight: there is nothing to "
                       "learn from it");
  free(k.doc);
  nm__buf_done(&k.text);
  nm__ids_done(&k.whole);
  nm__ids_done(&k.front);
  if (st) nm__set_done(out);
  return st;
}

void nm__set_done(struct nm__set *s) {
  for (int i = 0; i < s->n; i++) free(s->v[i].ref);
  free(s->v);
  free(s->weight);
  free(s->target);
  nm__ids_done(&s->ids);
  *s = (struct nm__set){0};
}

void nm__sets_hash(const struct nm__set *s, int n, char hex[33]) {
  uint64_t h[3] = {0};
  for (int i = 0; i < n; i++) {
    h[0] = nm__hash(s[i].ids.id, s[i].ids.n * sizeof *s[i].ids.id, nm__mix64(h[0] + 1));
    h[1] = nm__hash(s[i].weight, s[i].ids.n * sizeof *s[i].weight, nm__mix64(h[1] + 2));
    h[2] = nm__mix64(h[2] + (uint64_t)s[i].n);
    if (s[i].n_target)
      h[2] = nm__hash(s[i].target, s[i].n_target * sizeof *s[i].target, nm__mix64(h[2] + 3));
    for (int k = 0; k < s[i].n; k++)
      if (s[i].v[k].group || s[i].v[k].pair)
        h[2] = nm__mix64(h[2] + 2 * (uint64_t)s[i].v[k].group + (s[i].v[k].pair != 0));
  }
  nm__hash_hex(h, sizeof h, hex);
}
