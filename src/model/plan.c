/* plan.c - checks a request and works out everything that does not depend on
 * activations: sites, edits, how far to run, a shared beginning, groups. */
#include "model/plan.h"

#include <stdlib.h>
#include <string.h>

static void mark(struct nm__plan *p, const nm_model *m, struct nm__sel s) {
  p->wants[(size_t)s.site * ((size_t)m->L + 1) + (size_t)(s.layer + 1)] = 1;
}

/* How far the forward must go for this tap. */
static void reach(struct nm__plan *p, const nm_model *m, struct nm__sel s) {
  if (s.site == NM__S_LOGITS || s.site == NM__S_FINAL_NORM) {
    p->head_rows = true;
    p->head |= s.site == NM__S_LOGITS;
    p->last_layer = m->L - 1;
    p->stop_before_mlp = false;
    return;
  }
  bool before_mlp = s.site <= NM__S_MLP_NORM;
  if (s.layer > p->last_layer) {
    p->last_layer = s.layer;
    p->stop_before_mlp = before_mlp;
  } else if (s.layer == p->last_layer && !p->head_rows) {
    p->stop_before_mlp &= before_mlp;
  }
  p->per_key |= nm__site_per_key(s.site);
}

static int plan_taps(const nm_model *m, const nm_request *r, struct nm__plan *p, nm_err *err) {
  p->at = nm__alloc((size_t)r->n_taps, sizeof *p->at);
  if (!p->at) return nm__fail_memory(err, "the taps", 0);
  for (int t = 0; t < r->n_taps; t++) {
    struct nm__sels s;
    int st = nm__at_parse(r->taps[t].at ? r->taps[t].at : "all", &p->at[t], err);
    p->n_taps = t + 1;
    if (st || (st = nm__sites_select(m, r->taps[t].site, &s, err))) return st;
    struct nm__plan_tap *v = nm__realloc(p->taps, (size_t)(p->n_tap_sels + s.n), sizeof *v);
    if (!v) return free(s.v), nm__fail_memory(err, "the taps", 0);
    p->taps = v;
    for (int i = 0; i < s.n; i++) {
      v[p->n_tap_sels++] = (struct nm__plan_tap){s.v[i], t};
      mark(p, m, s.v[i]);
      reach(p, m, s.v[i]);
    }
    free(s.v);
  }
  return NM_OK;
}

static int check_rows(const struct nm__edit *e, const struct nm__sels *s, int i, nm_err *err) {
  const struct nm__dirs *d = &e->vec;
  if (!d->has && d->rows != 1 && d->rows != s->n)
    return nm__fail(err, NM_EFORMAT, "edit %d (%s): the vector file has %lld rows for %d sites",
                    i + 1, e->what, (long long)d->rows, s->n);
  for (int k = 0; d->has && k < s->n; k++)
    if (s->v[k].layer < 0 || s->v[k].layer >= d->rows || !d->has[s->v[k].layer])
      return nm__fail(err, NM_EFORMAT, "edit %d (%s): the control vector has no direction for "
                      "block %d", i + 1, e->what, s->v[k].layer);
  return NM_OK;
}

static int check_edit(const nm_model *m, const struct nm__edit *e, const struct nm__sels *s, int i,
                      nm_err *err) {
  bool per_key = nm__site_per_key(s->v[0].site), uniform = e->op == NM__EDIT_UNIFORM;
  for (int k = 0; k < s->n; k++) {
    if (uniform && s->v[k].site != NM__S_PATTERN)
      return nm__fail(err, NM_EFORMAT, "edit %d (%s): an even look is for heads: attn.head or "
                      "attn.pattern", i + 1, e->what);
    if (nm__site_per_key(s->v[k].site) != per_key || (per_key && e->vec.v))
      return nm__fail(err, NM_EFORMAT,
                      "edit %d (%s): scores and patterns take only zero and scale, "
                      "clamp and mask_head",
                      i + 1, e->what);
    int64_t w = nm__sel_width(m, s->v[k], 1);
    if (e->vec.v && w != e->vec.n) {
      char name[64];
      nm__sel_name(m, s->v[k], name);
      return nm__fail(err, NM_EFORMAT, "edit %d (%s): the vector has %lld values, %s has %lld",
                      i + 1, e->what, (long long)e->vec.n, name, (long long)w);
    }
  }
  return e->vec.v ? check_rows(e, s, i, err) : NM_OK;
}

static int plan_edits(const nm_model *m, const nm_edits *e, struct nm__plan *p, nm_err *err) {
  for (int i = 0; e && i < e->n; i++) {
    struct nm__sels s;
    int st = nm__sites_select(m, e->v[i].site, &s, err);
    if (st) return nm__fail_at(err, NM_EFORMAT, "edit %d", i + 1);
    for (int k = 0; k < s.n && e->v[i].op == NM__EDIT_UNIFORM; k++)      /* a head looks by its */
      if (s.v[k].site == NM__S_HEAD) s.v[k].site = NM__S_PATTERN;        /* pattern */
    st = check_edit(m, &e->v[i], &s, i, err);
    struct nm__plan_edit *v =
        st ? NULL : nm__realloc(p->edits, (size_t)(p->n_edit_sels + s.n), sizeof *v);
    if (!v) return free(s.v), st ? st : nm__fail_memory(err, "the edits", 0);
    p->edits = v;
    for (int k = 0; k < s.n; k++) {
      v[p->n_edit_sels++] = (struct nm__plan_edit){s.v[k], i, e->v[i].vec.has ? s.v[k].layer : k};
      mark(p, m, s.v[k]);
    }
    free(s.v);
  }
  return NM_OK;
}

static int check_seqs(const nm_model *m, const nm_request *r, int n_ctx, nm_err *err) {
  for (size_t i = 0; i < r->n_seqs; i++) {
    const nm_seq *s = &r->seqs[i];
    if (!s->n) return nm__fail(err, NM_EFORMAT, "sequence %zu has no tokens", i + 1);
    if (s->n > (size_t)n_ctx)
      return nm__fail(err, NM_EFORMAT,
                      "sequence %zu has %zu tokens, longer than the context of %d%s", i + 1, s->n,
                      n_ctx, n_ctx == m->n_ctx ? " the model was made for" : " (-c)");
    for (size_t k = 0; k < s->n; k++)
      if (s->ids[k] < 0 || s->ids[k] >= m->V)
        return nm__fail(err, NM_EFORMAT,
                        "sequence %zu: token id %d is outside the vocabulary of %d", i + 1,
                        s->ids[k], m->V);
  }
  return NM_OK;
}

/* The common beginning of all sequences, as far as no tap looks at it. Taken only when the request
 * says where looking begins or every tap counts from the end, and nothing is edited, so that it is
 * safe without looking further. */
static int shared_prefix(const nm_model *m, const nm_request *r, const struct nm__plan *p) {
  if (!m->causal || !r->share_prefix || r->n_seqs < 2 || (r->edits && r->edits->n)) return 0;
  int back = 1;
  for (int t = 0; t < p->n_taps && !r->tap_from; t++) {
    if (!nm__at_single(&p->at[t]) || p->at[t].v[0].a >= 0) return 0;
    if (-p->at[t].v[0].a > back) back = -p->at[t].v[0].a;
  }
  size_t n = r->seqs[0].n;
  for (size_t i = 1; i < r->n_seqs; i++) {
    size_t k = 0;
    while (k < n && k < r->seqs[i].n && r->seqs[i].ids[k] == r->seqs[0].ids[k]) k++;
    n = k;
  }
  for (size_t i = 0; i < r->n_seqs; i++) {
    if (n + (size_t)back > r->seqs[i].n)
      n = r->seqs[i].n > (size_t)back ? r->seqs[i].n - (size_t)back : 0;
    if (r->tap_from && r->tap_from[i] < n) n = r->tap_from[i];
  }
  return n >= 4 ? (int)n : 0;
}

/* Greedy, in order: whole sequences as long as a forward has at most 512 positions (fewer when a
 * chunk is smaller), or `batch` sequences. */
static int group_seqs(const nm_request *r, int chunk, int batch, struct nm__plan *p, nm_err *err) {
  p->groups = nm__alloc(r->n_seqs, sizeof *p->groups);
  if (!p->groups) return nm__fail_memory(err, "the groups", 0);
  int prefix_T = p->prefix < chunk ? p->prefix : chunk, most = chunk < 512 ? chunk : 512;
  p->max_T = prefix_T;
  p->max_keys = p->prefix;
  p->n_positions = (uint64_t)p->prefix;
  for (size_t i = 0; i < r->n_seqs;) {
    struct nm__group *g = &p->groups[p->n_groups++];
    *g = (struct nm__group){i, 0};
    int T = 0;
    int64_t slots = p->prefix;
    while (i < r->n_seqs) {
      int own = (int)r->seqs[i].n - p->prefix, part = own < chunk ? own : chunk;
      if (g->n && (batch ? g->n >= (size_t)batch : T + part > most)) break;
      T += part;
      slots += own;
      p->n_positions += (uint64_t)own;
      if ((int)r->seqs[i].n > p->max_keys) p->max_keys = (int)r->seqs[i].n;
      g->n++;
      i++;
    }
    if (T > p->max_T) p->max_T = T;
    if (slots > p->max_slots) p->max_slots = slots;
  }
  return NM_OK;
}

int nm__plan_make(const nm_model *m, const nm_request *r, int n_ctx, int chunk, int batch,
                  struct nm__plan *p, nm_err *err) {
  *p = (struct nm__plan){.last_layer = -1, .stop_before_mlp = true};
  p->wants = nm__alloc((size_t)NM__N_SITES * ((size_t)m->L + 1), 1);
  if (!p->wants) return nm__fail_memory(err, "the site table", 0);
  int st;
  if ((st = check_seqs(m, r, n_ctx, err)) || (st = plan_taps(m, r, p, err)) ||
      (st = plan_edits(m, r->edits, p, err)))
    return st;
  p->prefix = shared_prefix(m, r, p);
  return group_seqs(r, chunk, batch, p, err);
}

void nm__plan_done(struct nm__plan *p) {
  for (int i = 0; i < p->n_taps; i++) nm__at_done(&p->at[i]);
  free(p->at);
  free(p->taps);
  free(p->edits);
  free(p->wants);
  free(p->groups);
  *p = (struct nm__plan){0};
}
