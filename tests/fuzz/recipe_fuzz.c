/* recipe_fuzz.c - any bytes given as a recipe are refused with a sentence that begins with the
 * file's name, or are a recipe whose numbers lie in their ranges. For libFuzzer. */
#include "learn/recipe.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  struct nm__recipe r;
  nm_err err = {0};
  if (nm__recipe_parse("fuzz", (const char *)bytes, n, &r, &err)) {
    if (strncmp(err.text, "fuzz", 4)) abort();
    return 0;
  }
  if (r.n_losses < 1 || r.n_losses > 16 || r.groups.n > 2 * r.n_losses || r.prompt_n < 0) abort();
  for (int i = 0; i < r.n_only; i++)
    if (!json_array_size(r.only[i].list)) abort();
  for (int i = 0; i < r.n_vectors; i++)
    if (!r.vector[i].site || strchr(r.vector[i].name, '/')) abort();
  if (r.steps < 1 || r.batch < 1 || r.slots < 1 || r.data.n < 1 || r.n_groups < 1) abort();
  if (!r.base && (r.length < 2 || r.length > r.shape.ctx)) abort();
  nm__recipe_done(&r);
  return 0;
}
