/* data.h - from rows of files and items of worlds to samples, and which samples a step takes.
 *
 *   docs.c     rows and items as documents: texts with weights, or ids with weights
 *   sample.c   documents as samples, packed or one by one
 *   stream.c   the samples of a step, a pure function of (seed, step) */
#ifndef NM_LEARN_DATA_H
#define NM_LEARN_DATA_H

#include "learn/learn.h"
#include "learn/recipe.h"

/* ---- docs.c ---------------------------------------------------------------- */

/* Parts follow each other as they stand; or, without parts, ids are given. */
struct nm__part { const char *s; size_t n; float weight; };
struct nm__doc {
  const struct nm__part *part;
  int n_parts;
  const int32_t *ids;
  const float *weight;
  int n_ids;
  const char *where;               /* "FILE:LINE" or "world facts, item 7" */
};
typedef int nm__doc_take(void *arg, const struct nm__doc *d, nm_err *err);
/* Calls `take` for every document of a source, in order. A row that is none of the known forms is
 * "FILE:LINE: sentence". */
int nm__docs(const struct nm__yaml *y, const struct nm__source *s, nm__doc_take *take, void *arg,
             nm_err *err);
/* A tokenizer from all texts of the sources. */
int nm__docs_tokenizer(const struct nm__recipe *r, struct nm__gguf **out, nm_err *err);

/* ---- sample.c --------------------------------------------------------------- */

/* The samples of a source. Unpacked: one a document, cut behind `length` tokens. Packed: documents
 * one after the other, cut into rows of `length` of which each begins with the last token of the
 * one before, so that every token is predicted once; the last row may be short. */
struct nm__set {
  struct nm__sample *v;
  int n;
  int64_t n_tokens, n_cut;         /* documents that were cut */
  struct nm__ids ids;
  float *weight;
  size_t cap_weight;
};
struct nm__set_opts { int length; bool pack, eos; };
int nm__set_make(const struct nm__yaml *y, const struct nm__source *s, const nm_model *m,
                 const struct nm__set_opts *o, struct nm__set *out, nm_err *err);
void nm__set_done(struct nm__set *s);
/* 32 hex digits of all ids and weights. */
void nm__sets_hash(const struct nm__set *s, int n, char hex[33]);

/* ---- stream.c ---------------------------------------------------------------- */

/* Sample i of step t is draw g = t batch + i. Its source is chosen by the weights of those that
 * are active at t and a number of (seed, g); a source's k-th draw is its sample k mod n, in the
 * file's order or in one of (seed, source, k / n). What was drawn before is counted again, so any
 * step can be asked for; going forward costs nothing. */
struct nm__stream {
  const struct nm__recipe *r;
  const struct nm__set *set;       /* one a source of r->data */
  int V;
  int32_t bos, noise;              /* noise < 0: any token */
  int64_t at, *drawn;              /* draws of each source before step `at` */
  struct nm__sample *own;          /* [batch], with noise: the samples that were handed out */
};
int nm__stream_init(struct nm__stream *s, const struct nm__recipe *r, const struct nm__set *set,
                    const nm_model *m, nm_err *err);
void nm__stream_done(struct nm__stream *s);
/* out [batch]; valid until the next call. */
int nm__stream_step(struct nm__stream *s, int64_t step, const struct nm__sample **out,
                    nm_err *err);
/* Place i of n in an order of (key): a permutation without a table. */
uint64_t nm__permuted(uint64_t key, uint64_t i, uint64_t n);

#endif
