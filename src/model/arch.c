/* arch.c - the architecture table. A family noema can run is a row here. */
#include "model/model.h"

#include <string.h>

static const struct nm__arch table[] = {
    {.name = "llama", .permuted = true, .gated = true, .act = NM__ACT_SILU,
     .eps_key = "attention.layer_norm_rms_epsilon"},
    {.name = "qwen2", .gated = true, .qkv_bias = true, .act = NM__ACT_SILU,
     .eps_key = "attention.layer_norm_rms_epsilon"},
    {.name = "gpt2", .layernorm = true, .learned_pos = true, .fused_qkv = true, .qkv_bias = true,
     .all_bias = true, .act = NM__ACT_GELU_TANH, .eps_key = "attention.layer_norm_epsilon"},
};
enum { N_ARCH = sizeof table / sizeof *table };

const struct nm__arch *nm__arch_find(const char *name, size_t n) {
  for (int i = 0; i < N_ARCH; i++)
    if (strlen(table[i].name) == n && !memcmp(table[i].name, name, n)) return &table[i];
  return NULL;
}

void nm__arch_names(struct nm__buf *b) {
  for (int i = 0; i < N_ARCH; i++) nm__buf_printf(b, "%s%s", i ? ", " : "", table[i].name);
}
