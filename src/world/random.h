/* random.h - models of random weights: for measuring, and as the control that
 * must show nothing. */
#ifndef NM_WORLD_RANDOM_H
#define NM_WORLD_RANDOM_H

#include "core/core.h"

/* A file with the header of `like` (sizes, types, tokenizer) and fresh random weights: norms 1,
 * biases 0, matrices uniform with variance 1 / inputs, embeddings variance 1. */
int nm__write_random_like(const char *like, uint64_t seed, const char *path, const nm_progress *p,
                          nm_err *err);

#endif
