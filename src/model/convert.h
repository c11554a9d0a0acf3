/* convert.h - a model written again: what goes where, and how its numbers flow. For convert*.c. */
#ifndef NM_MODEL_CONVERT_H
#define NM_MODEL_CONVERT_H

#include "model/hf.h"
#include "model/adapter.h"
#include "model/recipe.h"

/* One tensor of the output. Its elements come from the data of one tensor of the input, or, where
 * experts are stacked, of several alike. */
struct nm__item {
  char name[160];
  uint32_t from, to;               /* types */
  int n_dims;
  int64_t ne[4];                   /* of the output, fastest first */
  uint64_t bytes;
  const uint8_t **part;            /* n_parts pieces of the input, each `rows` of `cols` elements */
  size_t n_parts;
  int64_t rows, cols;
  enum nm__hf_change change;
  bool to_gguf;                    /* the direction of the change */
  int n_head;
  const struct nm__adapter_part **added;   /* what adapters add to it (convert_lora.c) */
  float *scale;                    /* of each */
  int n_added;
  int bits;                        /* rounded to so many; 0: as the type's own writer does */
};

struct nm__plan_file { char *path; size_t first, n; };
struct nm__plan {
  const struct nm__gguf *g;
  struct nm__item *item;
  size_t n, cap;
  struct nm__plan_file *file;
  size_t n_files, n_written;       /* files that are in place */
  uint64_t bytes_in, done;         /* of the tensors that are read */
  const nm_convert_opts *o;
  const struct nm__recipe *recipe; /* NULL: as stored */
  struct nm__pool *pool;
  char warning[240];               /* about the tokenizer */
  const nm_adapters *lora[2];      /* those the model came with, those of the options */
};

/* ---- convert_lora.c: adapters added to what is written ---------------------- */

/* Whether an adapter changes the tensor of this name in the output. */
bool nm__plan_touched(const struct nm__plan *p, const char *name);
/* Whether the head needs a tensor of its own: it shares one that only one use of changes. */
bool nm__plan_unties(const struct nm__plan *p);
/* Gives each item its parts; all must find a place. */
int nm__plan_lora(struct nm__plan *p, nm_err *err);
/* Adds to elements first .. first + n of an item's output. */
void nm__item_add(const struct nm__item *it, int64_t first, int64_t n, float *x);

/* Gives an item's data, in pieces and in order, to sink. */
typedef int nm__sink(void *arg, const void *bytes, size_t n, nm_err *err);
int nm__item_stream(struct nm__plan *p, const struct nm__item *it, nm__sink *sink, void *arg,
                    nm_err *err);

/* A new item of the plan, its type from `t`; the parts are filled in. Sizes `ne` of the output. */
int nm__plan_add(struct nm__plan *p, const char *name, const struct nm__gguf_tensor *t,
                 uint32_t to, int n_dims, const int64_t *ne, size_t n_parts, struct nm__item **out,
                 nm_err *err);
/* The rows of a change that moves rows or turns the matrix; refuses what has none. */
int nm__item_rows(struct nm__item *it, const struct nm__gguf_tensor *t, nm_err *err);
/* Files of at most o->split_bytes, named by `pattern` with a number and a count in it. */
int nm__plan_files(struct nm__plan *p, const char *one, const char *pattern, nm_err *err);

/* For each form: the tensors it gets, and the writing. */
int nm__plan_gguf(struct nm__plan *p, const struct nm__recipe_facts *f, nm_err *err);
int nm__write_gguf(struct nm__plan *p, nm_err *err);
int nm__plan_hf(struct nm__plan *p, const struct nm__recipe_facts *f, nm_err *err);
int nm__write_hf(struct nm__plan *p, nm_err *err);
/* Keys that say a tokenizer.json in GGUF's words, to be closed; NULL where there are none. */
int nm__convert_tokenizer(struct nm__plan *p, struct nm__gguf **more, nm_err *err);
int nm__write_tokenizer(struct nm__plan *p, nm_err *err);      /* the files of a directory */
/* How many bits --round-bits leaves a tensor; 0: it is not rounded. */
int nm__plan_bits(const struct nm__plan *p, const struct nm__gguf_tensor *t);
/* The type of a tensor after the recipe and --tensor-type. */
int nm__plan_type(const struct nm__plan *p, const struct nm__recipe_facts *f,
                  const struct nm__gguf_tensor *t, uint32_t *out, nm_err *err);

#endif
