/* recipe.h - which stored type a tensor gets when a model is written again. */
#ifndef NM_MODEL_RECIPE_H
#define NM_MODEL_RECIPE_H

#include "file/gguf.h"

struct nm__recipe {
  const char *name;                /* "Q4_K_M" */
  uint32_t type;                   /* of the bulk of the matrices */
  uint32_t file_type;              /* general.file_type */
  bool mixed;                      /* some tensors get more bits */
  char size;                       /* 'S' or 'M' of a mixture, 0 where there is one only */
};
const struct nm__recipe *nm__recipe_find(const char *name);   /* any case; or NULL */
void nm__recipe_names(struct nm__buf *b);                     /* "F32, F16, ..." */

/* What the choice looks at beside the tensor itself. */
struct nm__recipe_facts {
  bool tied, falcon, seventy;      /* no output matrix; the family; 80 blocks, grouped heads */
  int n_block, n_expert, n_v;      /* n_v: blocks that have values, alone or fused with q and k */
  int *v_rank;                     /* of a block's attn_v among the others; n_block long */
};
int nm__recipe_facts(const struct nm__gguf *g, struct nm__recipe_facts *out, nm_err *err);
void nm__recipe_facts_done(struct nm__recipe_facts *f);

/* The type for tensor t. `r` NULL: matrices stay as they are stored. Vectors, norms and small
 * tables that no engine reads quantised are F32; integers stay. */
uint32_t nm__recipe_type(const struct nm__recipe *r, const struct nm__recipe_facts *f,
                         const struct nm__gguf_tensor *t);
/* `type`, or what stands in for it where rows of n are no whole blocks. */
uint32_t nm__recipe_fit(uint32_t type, int64_t n);

#endif
