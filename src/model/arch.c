/* arch.c - the architecture table. A family noema can run is a row here. */
#include "model/model.h"

#include <string.h>

#define RMS_EPS "attention.layer_norm_rms_epsilon"
#define LN_EPS "attention.layer_norm_epsilon"

static const struct nm__arch table[] = {
    {.name = "llama", .permuted = true, .gated = true, .global_every = NM__NEVER,
     .experts = NM__EXPERTS_MAYBE, .act = NM__ACT_SILU, .eps_key = RMS_EPS},
    {.name = "qwen2", .gated = true, .qkv_bias = true, .act = NM__ACT_SILU,
     .eps_key = RMS_EPS},
    {.name = "qwen3", .gated = true, .qk_norm = NM__QK_NORM_HEAD, .act = NM__ACT_SILU,
     .eps_key = RMS_EPS},
    {.name = "qwen2moe", .gated = true, .qkv_bias = true, .experts = NM__EXPERTS_ALWAYS,
     .keep_top_k = true, .shared_expert = true, .act = NM__ACT_SILU, .eps_key = RMS_EPS},
    {.name = "qwen3moe", .gated = true, .qk_norm = NM__QK_NORM_HEAD,
     .experts = NM__EXPERTS_ALWAYS, .act = NM__ACT_SILU, .eps_key = RMS_EPS},
    {.name = "gemma", .gated = true, .embd_scale = true, .act = NM__ACT_GELU_TANH,
     .eps_key = RMS_EPS},
    {.name = "gemma2", .gated = true, .embd_scale = true, .post_norm = true, .soft_caps = true,
     .global_every = 2, .wide_scale_at = 46, .act = NM__ACT_GELU_TANH, .eps_key = RMS_EPS},
    {.name = "gemma3", .gated = true, .embd_scale = true, .post_norm = true, .soft_caps = true,
     .qk_norm = NM__QK_NORM_HEAD, .global_every = 6, .local_rope = true, .wide_scale_at = 62,
     .act = NM__ACT_GELU_TANH, .eps_key = RMS_EPS},
    {.name = "olmo2", .gated = true, .no_pre_norm = true, .post_norm = true,
     .qk_norm = NM__QK_NORM_WHOLE, .act = NM__ACT_SILU, .eps_key = RMS_EPS},
    {.name = "phi3", .fused_qkv = true, .gated = true, .fused_gate = true,
     .global_every = NM__NEVER, .act = NM__ACT_SILU, .eps_key = RMS_EPS},
    {.name = "gptneox", .layernorm = true, .fused_qkv = true, .qkv_bias = true, .all_bias = true,
     .may_be_parallel = true, .act = NM__ACT_GELU_ERF, .eps_key = LN_EPS},
    {.name = "falcon", .layernorm = true, .fused_qkv = true, .may_be_parallel = true,
     .one_norm = true, .act = NM__ACT_GELU_ERF, .eps_key = LN_EPS},
    {.name = "starcoder2", .layernorm = true, .qkv_bias = true, .all_bias = true,
     .global_every = NM__NEVER, .act = NM__ACT_GELU_TANH, .eps_key = LN_EPS},
    {.name = "gpt2", .layernorm = true, .learned_pos = true, .fused_qkv = true, .qkv_bias = true,
     .all_bias = true, .act = NM__ACT_GELU_TANH, .eps_key = LN_EPS},
    {.name = "bert", .encoder = true, .layernorm = true, .learned_pos = true, .embd_norm = true,
     .no_pre_norm = true, .sum_norm = true, .qkv_bias = true, .all_bias = true,
     .act = NM__ACT_GELU_ERF, .eps_key = LN_EPS},
    {.name = "nomic-bert", .encoder = true, .layernorm = true, .embd_norm = true,
     .no_pre_norm = true, .sum_norm = true, .fused_qkv = true, .gated = true,
     .act = NM__ACT_SILU, .eps_key = LN_EPS},
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

enum nm__act nm__act_of(const nm_model *m, enum nm__gelu gelu) {
  enum nm__act own = m->arch->act;
  if (own == NM__ACT_SILU || gelu == NM__GELU_OWN) return own;
  return gelu == NM__GELU_ERF ? NM__ACT_GELU_ERF : NM__ACT_GELU_TANH;
}
