/* shape.h - a model's sizes, and from them what a file of it holds: the keys and the list of
 * tensors. Written from a row of the architecture table, so that new models and the loader
 * agree.
 *
 *   struct nm__shape s = {.arch = "llama", .L = 4, .D = 128, .H = 4, .V = 500, .ctx = 256};
 *   struct nm__specs t;
 *   if (nm__shape_check(&s, err) || nm__shape_tensors(&s, &t, err)) return err->status;
 *   nm__shape_keys(&s, put, arg, err);
 *   free(t.v); */
#ifndef NM_MODEL_SHAPE_H
#define NM_MODEL_SHAPE_H

#include "core/core.h"

/* Letters as everywhere. Zeros after V are filled in by nm__shape_check. */
struct nm__shape {
  const char *arch, *name;         /* name NULL: none is written */
  int L, D, H, V, ctx;
  int K;                           /* 0: H */
  int head_dim;                    /* 0: D / H */
  int F;                           /* 0: 4 D, of gated families 8/3 D up to a multiple of 32 */
  int window;                      /* keys a windowed block sees; 0: all (gemma: ctx) */
  int every;                       /* every n-th block has no window; 0: as the family has it */
  float rope_base;                 /* 0: 10000 */
  float eps;                       /* 0: 1e-5; encoders 1e-12 */
  bool untied;                     /* an output matrix of its own */
  float std;                       /* of fresh weights; 0: 0.02 */
};

enum nm__role {
  NM__ROLE_MATRIX, NM__ROLE_TABLE,             /* rows of a table are looked up */
  NM__ROLE_RESIDUAL,                           /* a matrix whose result is added to the stream */
  NM__ROLE_NORM, NM__ROLE_BIAS
};
struct nm__spec { char name[64]; enum nm__role role; int64_t rows, cols; };
struct nm__specs { struct nm__spec *v; int n; };

/* Fills in what is zero and refuses what does not go together; NM_EUSAGE with a sentence. */
int nm__shape_check(struct nm__shape *s, nm_err *err);
/* "llama, qwen2, ...": those that can be made. */
void nm__shape_archs(struct nm__buf *b);
/* The tensors in the order of a file; t->v is freed by the caller. */
int nm__shape_tensors(const struct nm__shape *s, struct nm__specs *t, nm_err *err);

/* A key is text, a whole number, a number or a flag. */
enum nm__shape_kind { NM__KEY_TEXT, NM__KEY_U32, NM__KEY_F32, NM__KEY_BOOL };
struct nm__shape_key {
  char name[96];
  enum nm__shape_kind kind;
  const char *text;
  double v;
};
typedef int nm__shape_put(void *arg, const struct nm__shape_key *k, nm_err *err);
/* All keys but those of the tokenizer, in order. A nonzero status of `put` ends it. */
int nm__shape_keys(const struct nm__shape *s, nm__shape_put *put, void *arg, nm_err *err);

#endif
