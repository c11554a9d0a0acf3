/* data.h - from rows of files and items of worlds to samples, and which samples a step takes.
 *
 *   docs.c     rows and items as documents: texts with weights, or ids with weights
 *   docs_chat.c  conversations through a chat template
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
  const uint8_t *user;             /* of every byte of the parts: 1 where a message's, not the
                                      template's (nm_prompt); NULL: plain text */
  const char *group;               /* NULL: its source's */
  int pair;                        /* 1: the chosen one of a pair; 2: the rejected one, next */
  const float *target;
  int n_target;
};
/* How conversations become texts. */
struct nm__chat_how { const nm_model *m; nm_chat_opts o; char *source; };
int nm__chat_how(const struct nm__recipe *r, const nm_model *m, struct nm__chat_how *out,
                 nm_err *err);
void nm__chat_how_done(struct nm__chat_how *h);
/* docs_chat.c: the text of {"messages": [...]} and its parts, of which those of the assistant have
 * the weight of their message (1). *parts has *n; free it and the prompt. */
int nm__chat_parts(const struct nm__chat_how *h, const json_t *row, const char *where,
                   nm_prompt *text, struct nm__part **parts, int *n, nm_err *err);
typedef int nm__doc_take(void *arg, const struct nm__doc *d, nm_err *err);
/* Calls `take` for every document of a source, in order. A row that is none of the known forms is
 * "FILE:LINE: sentence". */
int nm__docs(const struct nm__yaml *y, const struct nm__source *s, const struct nm__chat_how *how,
             nm__doc_take *take, void *arg, nm_err *err);
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
  int per;                         /* samples that are drawn together: 2 where they are pairs */
  struct nm__ids ids;
  float *weight, *target;
  size_t cap_weight, n_target;
};
/* groups NULL: every sample is of group 0. */
struct nm__set_opts {
  int length;
  bool pack, eos;
  const struct nm__recipe *groups;
  const struct nm__chat_how *chat;
};
int nm__set_make(const struct nm__yaml *y, const struct nm__source *s, const nm_model *m,
                 const struct nm__set_opts *o, struct nm__set *out, nm_err *err);
void nm__set_done(struct nm__set *s);
/* 32 hex digits of all ids and weights. */
void nm__sets_hash(const struct nm__set *s, int n, char hex[33]);

/* ---- stream.c ---------------------------------------------------------------- */

/* What is drawn is a sample or a pair. Draw i of step t is draw g = t batch + i. Its source is
 * chosen by the weights of those that are active at t and a number of (seed, g); a source's k-th
 * draw is its sample (or pair) k mod n, in the file's order or in one of (seed, source, k / n).
 * What was drawn before is counted again, so any step can be asked for; going forward costs
 * nothing. */
struct nm__stream {
  const struct nm__recipe *r;
  const struct nm__set *set;       /* one a source of r->data */
  int V;
  int32_t bos, noise;              /* noise < 0: any token */
  int64_t at, *drawn;              /* draws of each source before step `at` */
  int n;                           /* samples of the last step: batch, and one more a pair */
  struct nm__sample *own;          /* [2 batch], with noise: the samples that were handed out */
};
int nm__stream_init(struct nm__stream *s, const struct nm__recipe *r, const struct nm__set *set,
                    const nm_model *m, nm_err *err);
void nm__stream_done(struct nm__stream *s);
/* out [2 batch], of which s->n are filled; valid until the next call. */
int nm__stream_step(struct nm__stream *s, int64_t step, const struct nm__sample **out,
                    nm_err *err);
/* Place i of n in an order of (key): a permutation without a table. */
uint64_t nm__permuted(uint64_t key, uint64_t i, uint64_t n);

#endif
