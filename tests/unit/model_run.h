/* model_run.h - what the tests of models share: opening, and a run whose rows are kept.
 * Include after setjmp.h and cmocka.h. */
#ifndef MODEL_RUN_H
#define MODEL_RUN_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model/model.h"

#define SHARED "../shared/data/"
#define PLANTED "models/planted.gguf"

static inline bool no_shared(void) {
  if (nm__exists(SHARED)) return false;
  print_message("skipped: ../shared is not here\n");
  return true;
}

static inline nm_model *open_model(const char *path) {
  nm_model *m;
  nm_err err = {0};
  if (nm_model_open(path, &m, &err)) fail_msg("%s", err.text);
  return m;
}

static inline nm_engine *new_engine(const nm_model *m, nm_engine_opts o) {
  nm_engine *e;
  nm_err err = {0};
  if (nm_engine_new(m, &o, &e, &err)) fail_msg("%s", err.text);
  return e;
}

static inline nm_edits *parse_edits(const char *json) {
  nm_edits *e;
  nm_err err = {0};
  if (nm_edits_parse("t", json, strlen(json), &e, &err)) fail_msg("%s", err.text);
  return e;
}

/* ---- rows of a run --------------------------------------------------------- */

struct row { size_t seq; int site, pos; int64_t n; float *v; };
struct rows { struct row *v; size_t n; nm_site *site; int n_sites; int *next; };

/* Copies a row, and sees that each sequence's rows come in order of position within a site. */
static inline int keep_row(void *arg, const nm_row *r, nm_err *err) {
  struct rows *o = arg;
  (void)err;
  int *next = &o->next[r->seq * (size_t)o->n_sites + (size_t)r->site];
  assert_true(r->pos >= *next);
  *next = r->pos + 1;
  if ((o->n & (o->n - 1)) == 0) o->v = realloc(o->v, (o->n ? 2 * o->n : 1) * sizeof *o->v);
  float *copy = malloc((size_t)r->n * sizeof *copy);
  memcpy(copy, r->data, (size_t)r->n * sizeof *copy);
  o->v[o->n++] = (struct row){r->seq, r->site, r->pos, r->n, copy};
  return 0;
}

static inline int by_place(const void *a, const void *b) {
  const struct row *x = a, *y = b;
  if (x->seq != y->seq) return x->seq < y->seq ? -1 : 1;
  if (x->site != y->site) return x->site - y->site;
  return x->pos - y->pos;
}

/* Runs the request with its rows kept, sorted by sequence, site, position. */
static inline int try_rows(nm_engine *e, nm_request r, struct rows *out, nm_err *err) {
  *out = (struct rows){0};
  r.row = keep_row;
  r.arg = out;
  int st = nm_run_sites(nm__engine_model(e), r.taps, r.n_taps, &out->site, &out->n_sites, err);
  out->next = calloc(r.n_seqs * (size_t)out->n_sites + 1, sizeof *out->next);
  if (!st) st = nm_run(e, &r, err);
  free(out->next);
  if (out->n) qsort(out->v, out->n, sizeof *out->v, by_place);
  return st;
}

static inline struct rows run_rows(nm_engine *e, nm_request r) {
  struct rows out;
  nm_err err = {0};
  if (try_rows(e, r, &out, &err)) fail_msg("%s", err.text);
  return out;
}

static inline void rows_done(struct rows *o) {
  for (size_t i = 0; i < o->n; i++) free(o->v[i].v);
  free(o->v);
  nm_free(o->site);
  *o = (struct rows){0};
}

static inline bool has_row(const struct rows *o, const char *site, size_t seq, int pos) {
  for (size_t i = 0; i < o->n; i++)
    if (o->v[i].seq == seq && o->v[i].pos == pos && !strcmp(o->site[o->v[i].site].name, site))
      return true;
  return false;
}

/* n: the width the caller expects. */
static inline const float *row_of(const struct rows *o, const char *site, size_t seq, int pos,
                                  int64_t n) {
  for (size_t i = 0; i < o->n; i++)
    if (o->v[i].seq == seq && o->v[i].pos == pos && !strcmp(o->site[o->v[i].site].name, site)) {
      assert_int_equal(o->v[i].n, n);
      return o->v[i].v;
    }
  fail_msg("no row of %s, sequence %zu, position %d", site, seq, pos);
  return NULL;
}

/* "blk.3.mlp.act" of layer 3 and "mlp.act". */
static inline const char *at_layer(char name[64], int layer, const char *rest) {
  snprintf(name, 64, "blk.%d.%s", layer, rest);
  return name;
}

/* Same sites by name and position hold the same bytes; sequences map a -> b by `seq_b`. */
static inline void assert_same_rows(const struct rows *a, const struct rows *b, const char *what) {
  if (a->n != b->n) fail_msg("%s: %zu rows against %zu", what, a->n, b->n);
  for (size_t i = 0; i < a->n; i++) {
    const struct row *x = &a->v[i], *y = &b->v[i];
    if (x->seq != y->seq || x->pos != y->pos || x->n != y->n ||
        memcmp(x->v, y->v, (size_t)x->n * 4))
      fail_msg("%s: %s of sequence %zu differs at position %d", what, a->site[x->site].name, x->seq,
               x->pos);
  }
}

/* One sequence, one tap. */
static inline struct rows tap_one(nm_engine *e, const int32_t *ids, size_t n, const char *site,
                                  const char *at, nm_edits *edits) {
  nm_seq seq = {ids, n};
  nm_tap tap = {site, at};
  return run_rows(
      e, (nm_request){.seqs = &seq, .n_seqs = 1, .taps = &tap, .n_taps = 1, .edits = edits});
}

#endif
