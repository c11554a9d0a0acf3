/* hf_names.c - families of Hugging Face models: what their tensors are called there and in
 * GGUF, and how the numbers of the two differ. A family that can be read and written is a
 * row of the table at the end; its names are a list above. */
#include "model/hf_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ------------------------------------------------------------- */

#define ENDS(c) \
  {"embed_tokens", "token_embd", NM__HF_SAME}, {"norm", "output_norm", c}, \
  {"lm_head", "output", NM__HF_SAME}
#define ATTN(c) \
  {"layers.#.self_attn.q_proj", "blk.#.attn_q", c}, \
  {"layers.#.self_attn.k_proj", "blk.#.attn_k", c}, \
  {"layers.#.self_attn.v_proj", "blk.#.attn_v", NM__HF_SAME}, \
  {"layers.#.self_attn.o_proj", "blk.#.attn_output", NM__HF_SAME}
#define MLP \
  {"layers.#.mlp.gate_proj", "blk.#.ffn_gate", NM__HF_SAME}, \
  {"layers.#.mlp.up_proj", "blk.#.ffn_up", NM__HF_SAME}, \
  {"layers.#.mlp.down_proj", "blk.#.ffn_down", NM__HF_SAME}
/* post_attention_layernorm is the MLP's norm here, but that of attention's output below. */
#define PRE_NORMS(c) \
  {"layers.#.input_layernorm", "blk.#.attn_norm", c}, \
  {"layers.#.post_attention_layernorm", "blk.#.ffn_norm", c}
#define POST_NORMS(c) \
  {"layers.#.post_attention_layernorm", "blk.#.post_attention_norm", c}, \
  {"layers.#.post_feedforward_layernorm", "blk.#.post_ffw_norm", c}
#define QK_NORMS(c) \
  {"layers.#.self_attn.q_norm", "blk.#.attn_q_norm", c}, \
  {"layers.#.self_attn.k_norm", "blk.#.attn_k_norm", c}
#define END {NULL, NULL, NM__HF_SAME}

static const struct nm__hf_name llama[] = {
    ENDS(NM__HF_SAME), PRE_NORMS(NM__HF_SAME), ATTN(NM__HF_ROTARY), MLP, END};
static const struct nm__hf_name mixtral[] = {
    ENDS(NM__HF_SAME), PRE_NORMS(NM__HF_SAME), ATTN(NM__HF_ROTARY),
    {"layers.#.block_sparse_moe.gate", "blk.#.ffn_gate_inp", NM__HF_SAME},
    {"layers.#.block_sparse_moe.experts.#.w1", "blk.#.ffn_gate.#", NM__HF_SAME},
    {"layers.#.block_sparse_moe.experts.#.w2", "blk.#.ffn_down.#", NM__HF_SAME},
    {"layers.#.block_sparse_moe.experts.#.w3", "blk.#.ffn_up.#", NM__HF_SAME}, END};
static const struct nm__hf_name qwen2[] = {
    ENDS(NM__HF_SAME), PRE_NORMS(NM__HF_SAME), ATTN(NM__HF_SAME), MLP, END};
static const struct nm__hf_name qwen3[] = {
    ENDS(NM__HF_SAME), PRE_NORMS(NM__HF_SAME), ATTN(NM__HF_SAME), QK_NORMS(NM__HF_SAME), MLP, END};
#define EXPERTS \
  {"layers.#.mlp.gate", "blk.#.ffn_gate_inp", NM__HF_SAME}, \
  {"layers.#.mlp.experts.#.gate_proj", "blk.#.ffn_gate.#", NM__HF_SAME}, \
  {"layers.#.mlp.experts.#.up_proj", "blk.#.ffn_up.#", NM__HF_SAME}, \
  {"layers.#.mlp.experts.#.down_proj", "blk.#.ffn_down.#", NM__HF_SAME}
static const struct nm__hf_name qwen2_moe[] = {
    ENDS(NM__HF_SAME), PRE_NORMS(NM__HF_SAME), ATTN(NM__HF_SAME), EXPERTS,
    {"layers.#.mlp.shared_expert_gate", "blk.#.ffn_gate_inp_shexp", NM__HF_SAME},
    {"layers.#.mlp.shared_expert.gate_proj", "blk.#.ffn_gate_shexp", NM__HF_SAME},
    {"layers.#.mlp.shared_expert.up_proj", "blk.#.ffn_up_shexp", NM__HF_SAME},
    {"layers.#.mlp.shared_expert.down_proj", "blk.#.ffn_down_shexp", NM__HF_SAME}, END};
static const struct nm__hf_name qwen3_moe[] = {
    ENDS(NM__HF_SAME), PRE_NORMS(NM__HF_SAME), ATTN(NM__HF_SAME), QK_NORMS(NM__HF_SAME), EXPERTS,
    END};
static const struct nm__hf_name starcoder2[] = {
    ENDS(NM__HF_SAME), PRE_NORMS(NM__HF_SAME), ATTN(NM__HF_SAME),
    {"layers.#.mlp.c_fc", "blk.#.ffn_up", NM__HF_SAME},
    {"layers.#.mlp.c_proj", "blk.#.ffn_down", NM__HF_SAME}, END};
static const struct nm__hf_name gemma[] = {
    ENDS(NM__HF_PLUS_ONE), PRE_NORMS(NM__HF_PLUS_ONE), ATTN(NM__HF_SAME), MLP, END};
#define GEMMA2 \
    ENDS(NM__HF_PLUS_ONE), POST_NORMS(NM__HF_PLUS_ONE), ATTN(NM__HF_SAME), MLP, \
    {"layers.#.input_layernorm", "blk.#.attn_norm", NM__HF_PLUS_ONE}, \
    {"layers.#.pre_feedforward_layernorm", "blk.#.ffn_norm", NM__HF_PLUS_ONE}
static const struct nm__hf_name gemma2[] = {GEMMA2, END};
static const struct nm__hf_name gemma3[] = {GEMMA2, QK_NORMS(NM__HF_PLUS_ONE), END};
static const struct nm__hf_name olmo2[] = {
    ENDS(NM__HF_SAME), POST_NORMS(NM__HF_SAME), ATTN(NM__HF_SAME), QK_NORMS(NM__HF_SAME), MLP, END};
static const struct nm__hf_name phi3[] = {
    ENDS(NM__HF_SAME), PRE_NORMS(NM__HF_SAME),
    {"layers.#.self_attn.qkv_proj", "blk.#.attn_qkv", NM__HF_SAME},
    {"layers.#.self_attn.o_proj", "blk.#.attn_output", NM__HF_SAME},
    {"layers.#.mlp.gate_up_proj", "blk.#.ffn_up", NM__HF_SAME},
    {"layers.#.mlp.down_proj", "blk.#.ffn_down", NM__HF_SAME}, END};
static const struct nm__hf_name gptneox[] = {
    {"embed_in", "token_embd", NM__HF_SAME}, {"final_layer_norm", "output_norm", NM__HF_SAME},
    {"embed_out", "output", NM__HF_SAME}, PRE_NORMS(NM__HF_SAME),
    {"layers.#.attention.query_key_value", "blk.#.attn_qkv", NM__HF_QKV},
    {"layers.#.attention.dense", "blk.#.attn_output", NM__HF_SAME},
    {"layers.#.mlp.dense_h_to_4h", "blk.#.ffn_up", NM__HF_SAME},
    {"layers.#.mlp.dense_4h_to_h", "blk.#.ffn_down", NM__HF_SAME}, END};
static const struct nm__hf_name gpt2[] = {
    {"wte", "token_embd", NM__HF_SAME}, {"wpe", "position_embd", NM__HF_SAME},
    {"ln_f", "output_norm", NM__HF_SAME}, {"lm_head", "output", NM__HF_SAME},
    {"h.#.ln_1", "blk.#.attn_norm", NM__HF_SAME}, {"h.#.ln_2", "blk.#.ffn_norm", NM__HF_SAME},
    {"h.#.attn.c_attn", "blk.#.attn_qkv", NM__HF_TRANSPOSE},
    {"h.#.attn.c_proj", "blk.#.attn_output", NM__HF_TRANSPOSE},
    {"h.#.mlp.c_fc", "blk.#.ffn_up", NM__HF_TRANSPOSE},
    {"h.#.mlp.c_proj", "blk.#.ffn_down", NM__HF_TRANSPOSE}, END};
static const struct nm__hf_name bert[] = {
    {"embeddings.word_embeddings", "token_embd", NM__HF_SAME},
    {"embeddings.position_embeddings", "position_embd", NM__HF_SAME},
    {"embeddings.token_type_embeddings", "token_types", NM__HF_SAME},
    {"embeddings.LayerNorm", "token_embd_norm", NM__HF_SAME},
    {"encoder.layer.#.attention.self.query", "blk.#.attn_q", NM__HF_SAME},
    {"encoder.layer.#.attention.self.key", "blk.#.attn_k", NM__HF_SAME},
    {"encoder.layer.#.attention.self.value", "blk.#.attn_v", NM__HF_SAME},
    {"encoder.layer.#.attention.output.dense", "blk.#.attn_output", NM__HF_SAME},
    {"encoder.layer.#.attention.output.LayerNorm", "blk.#.attn_output_norm", NM__HF_SAME},
    {"encoder.layer.#.intermediate.dense", "blk.#.ffn_up", NM__HF_SAME},
    {"encoder.layer.#.output.dense", "blk.#.ffn_down", NM__HF_SAME},
    {"encoder.layer.#.output.LayerNorm", "blk.#.layer_output_norm", NM__HF_SAME}, END};
static const struct nm__hf_name nomic_bert[] = {
    {"embeddings.word_embeddings", "token_embd", NM__HF_SAME},
    {"embeddings.token_type_embeddings", "token_types", NM__HF_SAME},
    {"emb_ln", "token_embd_norm", NM__HF_SAME},
    {"encoder.layers.#.attn.Wqkv", "blk.#.attn_qkv", NM__HF_SAME},
    {"encoder.layers.#.attn.out_proj", "blk.#.attn_output", NM__HF_SAME},
    {"encoder.layers.#.norm1", "blk.#.attn_output_norm", NM__HF_SAME},
    {"encoder.layers.#.mlp.fc11", "blk.#.ffn_up", NM__HF_SAME},
    {"encoder.layers.#.mlp.fc12", "blk.#.ffn_gate", NM__HF_SAME},
    {"encoder.layers.#.mlp.fc2", "blk.#.ffn_down", NM__HF_SAME},
    {"encoder.layers.#.norm2", "blk.#.layer_output_norm", NM__HF_SAME}, END};

/* ---- families ------------------------------------------------------------ */

/* `defaults` are those of HF's config classes. They also say which keys a family reads: one that
 * is not listed is left alone, whatever it says. */
static const struct nm__hf_family table[] = {
    {"llama", "llama", "LlamaForCausalLM", "model.", "lm_head", llama,
     "{\"vocab_size\":32000,\"hidden_size\":4096,\"intermediate_size\":11008,"
     "\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":null,"
     "\"head_dim\":null,\"hidden_act\":\"silu\",\"max_position_embeddings\":2048,"
     "\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0,\"rope_scaling\":null,"
     "\"tie_word_embeddings\":false}"},
    {"mistral", "llama", "MistralForCausalLM", "model.", "lm_head", llama,
     "{\"vocab_size\":32000,\"hidden_size\":4096,\"intermediate_size\":14336,"
     "\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":8,"
     "\"head_dim\":null,\"hidden_act\":\"silu\",\"max_position_embeddings\":131072,"
     "\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0,\"rope_scaling\":null,"
     "\"sliding_window\":4096,\"layer_types\":null,\"tie_word_embeddings\":false}"},
    {"mixtral", "llama", "MixtralForCausalLM", "model.", "lm_head", mixtral,
     "{\"vocab_size\":32000,\"hidden_size\":4096,\"intermediate_size\":14336,"
     "\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":8,"
     "\"head_dim\":null,\"hidden_act\":\"silu\",\"max_position_embeddings\":131072,"
     "\"rms_norm_eps\":1e-5,\"rope_theta\":1000000.0,\"rope_scaling\":null,"
     "\"sliding_window\":null,\"layer_types\":null,\"num_local_experts\":8,"
     "\"num_experts_per_tok\":2,\"tie_word_embeddings\":false}"},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", "model.", "lm_head", qwen2,
     "{\"vocab_size\":151936,\"hidden_size\":4096,\"intermediate_size\":22016,"
     "\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":32,"
     "\"head_dim\":null,\"hidden_act\":\"silu\",\"max_position_embeddings\":32768,"
     "\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0,\"rope_scaling\":null,"
     "\"tie_word_embeddings\":false}"},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", "model.", "lm_head", qwen3,
     "{\"vocab_size\":151936,\"hidden_size\":4096,\"intermediate_size\":22016,"
     "\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":32,"
     "\"head_dim\":128,\"hidden_act\":\"silu\",\"max_position_embeddings\":32768,"
     "\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0,\"rope_scaling\":null,"
     "\"tie_word_embeddings\":false}"},
    {"qwen2_moe", "qwen2moe", "Qwen2MoeForCausalLM", "model.", "lm_head", qwen2_moe,
     "{\"vocab_size\":151936,\"hidden_size\":2048,\"intermediate_size\":5632,"
     "\"num_hidden_layers\":24,\"num_attention_heads\":16,\"num_key_value_heads\":16,"
     "\"head_dim\":null,\"hidden_act\":\"silu\",\"max_position_embeddings\":32768,"
     "\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0,\"rope_scaling\":null,"
     "\"num_local_experts\":60,\"num_experts_per_tok\":4,\"moe_intermediate_size\":1408,"
     "\"shared_expert_intermediate_size\":5632,\"norm_topk_prob\":false,"
     "\"tie_word_embeddings\":false}"},
    {"qwen3_moe", "qwen3moe", "Qwen3MoeForCausalLM", "model.", "lm_head", qwen3_moe,
     "{\"vocab_size\":151936,\"hidden_size\":2048,\"intermediate_size\":6144,"
     "\"num_hidden_layers\":24,\"num_attention_heads\":32,\"num_key_value_heads\":4,"
     "\"head_dim\":null,\"hidden_act\":\"silu\",\"max_position_embeddings\":32768,"
     "\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0,\"rope_scaling\":null,"
     "\"num_local_experts\":128,\"num_experts_per_tok\":8,\"moe_intermediate_size\":768,"
     "\"norm_topk_prob\":false,\"tie_word_embeddings\":false}"},
    {"starcoder2", "starcoder2", "Starcoder2ForCausalLM", "model.", "lm_head", starcoder2,
     "{\"vocab_size\":49152,\"hidden_size\":3072,\"intermediate_size\":12288,"
     "\"num_hidden_layers\":30,\"num_attention_heads\":24,\"num_key_value_heads\":2,"
     "\"head_dim\":null,\"hidden_act\":\"gelu_pytorch_tanh\",\"max_position_embeddings\":4096,"
     "\"layer_norm_eps\":1e-5,\"rope_theta\":10000.0,\"rope_scaling\":null,"
     "\"sliding_window\":null,\"layer_types\":null,\"tie_word_embeddings\":true}"},
    {"gemma", "gemma", "GemmaForCausalLM", "model.", "lm_head", gemma,
     "{\"vocab_size\":256000,\"hidden_size\":3072,\"intermediate_size\":24576,"
     "\"num_hidden_layers\":28,\"num_attention_heads\":16,\"num_key_value_heads\":16,"
     "\"head_dim\":256,\"hidden_act\":\"gelu_pytorch_tanh\",\"max_position_embeddings\":8192,"
     "\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0,\"rope_scaling\":null,"
     "\"tie_word_embeddings\":true}"},
    {"gemma2", "gemma2", "Gemma2ForCausalLM", "model.", "lm_head", gemma2,
     "{\"vocab_size\":256000,\"hidden_size\":2304,\"intermediate_size\":9216,"
     "\"num_hidden_layers\":26,\"num_attention_heads\":8,\"num_key_value_heads\":4,"
     "\"head_dim\":256,\"hidden_act\":\"gelu_pytorch_tanh\",\"max_position_embeddings\":8192,"
     "\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0,\"rope_scaling\":null,"
     "\"query_pre_attn_scalar\":256,\"sliding_window\":4096,\"layer_types\":null,"
     "\"final_logit_softcapping\":30.0,\"attn_logit_softcapping\":50.0,"
     "\"tie_word_embeddings\":true}"},
    {"gemma3_text", "gemma3", "Gemma3ForCausalLM", "model.", "lm_head", gemma3,
     "{\"vocab_size\":262208,\"hidden_size\":2304,\"intermediate_size\":9216,"
     "\"num_hidden_layers\":26,\"num_attention_heads\":8,\"num_key_value_heads\":4,"
     "\"head_dim\":256,\"hidden_act\":\"gelu_pytorch_tanh\",\"max_position_embeddings\":131072,"
     "\"rms_norm_eps\":1e-6,\"rope_theta\":1000000.0,\"rope_scaling\":null,"
     "\"rope_local_base_freq\":10000.0,\"query_pre_attn_scalar\":256,\"sliding_window\":4096,"
     "\"sliding_window_pattern\":6,\"layer_types\":null,\"final_logit_softcapping\":null,"
     "\"attn_logit_softcapping\":null,\"tie_word_embeddings\":true}"},
    {"olmo2", "olmo2", "Olmo2ForCausalLM", "model.", "lm_head", olmo2,
     "{\"vocab_size\":50304,\"hidden_size\":4096,\"intermediate_size\":11008,"
     "\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":null,"
     "\"head_dim\":null,\"hidden_act\":\"silu\",\"max_position_embeddings\":2048,"
     "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"rope_scaling\":null,"
     "\"tie_word_embeddings\":false}"},
    {"phi3", "phi3", "Phi3ForCausalLM", "model.", "lm_head", phi3,
     "{\"vocab_size\":32064,\"hidden_size\":3072,\"intermediate_size\":8192,"
     "\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":null,"
     "\"head_dim\":null,\"hidden_act\":\"silu\",\"max_position_embeddings\":4096,"
     "\"original_max_position_embeddings\":4096,"
     "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"rope_scaling\":null,"
     "\"partial_rotary_factor\":1.0,\"sliding_window\":null,\"layer_types\":null,"
     "\"tie_word_embeddings\":false}"},
    {"gpt_neox", "gptneox", "GPTNeoXForCausalLM", "gpt_neox.", "embed_out", gptneox,
     "{\"vocab_size\":50432,\"hidden_size\":6144,\"intermediate_size\":24576,"
     "\"num_hidden_layers\":44,\"num_attention_heads\":64,\"hidden_act\":\"gelu\","
     "\"max_position_embeddings\":2048,\"layer_norm_eps\":1e-5,\"rope_theta\":10000.0,"
     "\"rope_scaling\":null,\"partial_rotary_factor\":0.25,\"use_parallel_residual\":true,"
     "\"tie_word_embeddings\":false}"},
    {"gpt2", "gpt2", "GPT2LMHeadModel", "transformer.", "lm_head", gpt2,
     "{\"vocab_size\":50257,\"hidden_size\":768,\"intermediate_size\":null,"
     "\"num_hidden_layers\":12,\"num_attention_heads\":12,\"hidden_act\":\"gelu_new\","
     "\"max_position_embeddings\":1024,\"layer_norm_eps\":1e-5,\"tie_word_embeddings\":true}"},
    {"bert", "bert", "BertModel", "", NULL, bert,
     "{\"vocab_size\":30522,\"hidden_size\":768,\"intermediate_size\":3072,"
     "\"num_hidden_layers\":12,\"num_attention_heads\":12,\"hidden_act\":\"gelu\","
     "\"max_position_embeddings\":512,\"type_vocab_size\":2,\"layer_norm_eps\":1e-12}"},
    {"nomic_bert", "nomic-bert", "NomicBertModel", "", NULL, nomic_bert,
     "{\"vocab_size\":30528,\"hidden_size\":768,\"intermediate_size\":3072,"
     "\"num_hidden_layers\":12,\"num_attention_heads\":12,\"hidden_act\":\"swiglu\","
     "\"max_position_embeddings\":8192,\"type_vocab_size\":2,\"layer_norm_eps\":1e-12,"
     "\"rope_theta\":1000.0,\"partial_rotary_factor\":1.0}"},
};
enum { N_FAMILIES = sizeof table / sizeof *table };

const struct nm__hf_family *nm__hf_family_find(const char *model_type) {
  if (!strcmp(model_type, "gemma3")) model_type = "gemma3_text";
  if (!strcmp(model_type, "nomic-bert")) model_type = "nomic_bert";
  for (int i = 0; i < N_FAMILIES; i++)
    if (!strcmp(table[i].model_type, model_type)) return &table[i];
  return NULL;
}

void nm__hf_family_names(struct nm__buf *b) {
  for (int i = 0; i < N_FAMILIES; i++)
    nm__buf_printf(b, "%s%s", i ? ", " : "", table[i].model_type);
}

/* A llama file with experts is a mixtral, one with a window a mistral. */
const struct nm__hf_family *nm__hf_family_of(const struct nm__gguf *g) {
  struct nm__str arch;
  uint64_t n;
  if (nm__gguf_string(g, "general.architecture", &arch, NULL)) return NULL;
  if (arch.n == 5 && !memcmp(arch.s, "llama", 5)) {
    if (!nm__gguf_uint(g, "llama.expert_count", &n, NULL) && n)
      return nm__hf_family_find("mixtral");
    if (!nm__gguf_uint(g, "llama.attention.sliding_window", &n, NULL) && n)
      return nm__hf_family_find("mistral");
  }
  for (int i = 0; i < N_FAMILIES; i++)
    if (strlen(table[i].arch) == arch.n && !memcmp(table[i].arch, arch.s, arch.n)) return &table[i];
  return NULL;
}

bool nm__hf_family_has(const struct nm__hf_family *f, const char *key) {
  char quoted[64];
  snprintf(quoted, sizeof quoted, "\"%s\":", key);
  return strstr(f->defaults, quoted) != NULL;
}

/* ---- keys of both ------------------------------------------------------ */

const struct nm__hf_key nm__hf_plain[] = {
    {"max_position_embeddings", "context_length", false},
    {"hidden_size", "embedding_length", false},
    {"num_hidden_layers", "block_count", false},
    {"num_attention_heads", "attention.head_count", false},
    {"num_key_value_heads", "attention.head_count_kv", false},
    {"head_dim", "attention.key_length", false},
    {"head_dim", "attention.value_length", false},
    {"vocab_size", "vocab_size", false},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", true},
    {"layer_norm_eps", "attention.layer_norm_epsilon", true},
    {"num_local_experts", "expert_count", false},
    {"num_experts_per_tok", "expert_used_count", false},
    {"moe_intermediate_size", "expert_feed_forward_length", false},
    {"shared_expert_intermediate_size", "expert_shared_feed_forward_length", false},
    {"attn_logit_softcapping", "attn_logit_softcapping", true},
    {"final_logit_softcapping", "final_logit_softcapping", true},
    {"sliding_window", "attention.sliding_window", false},
    {"rope_local_base_freq", "rope.freq_base_swa", true},
    {NULL, NULL, false},
};

/* Which families spell a key the other way; all understand both. */
const struct nm__hf_spelling nm__hf_spellings[] = {
    {"hidden_size", "n_embd", "gpt2 nomic_bert"},
    {"num_hidden_layers", "n_layer", "gpt2 nomic_bert"},
    {"num_attention_heads", "n_head", "gpt2 nomic_bert"},
    {"max_position_embeddings", "n_positions", "gpt2 nomic_bert"},
    {"intermediate_size", "n_inner", "gpt2 nomic_bert"},
    {"layer_norm_eps", "layer_norm_epsilon", "gpt2 nomic_bert"},
    {"layer_norm_eps", "norm_epsilon", "starcoder2"},
    {"num_local_experts", "num_experts", "qwen2_moe qwen3_moe"},
    {"hidden_act", "activation_function", "gpt2 nomic_bert"},
    {"hidden_act", "hidden_activation", "gemma2 gemma3_text"},
    {"rope_theta", "rotary_emb_base", "gpt_neox nomic_bert"},
    {"partial_rotary_factor", "rotary_pct", "gpt_neox"},
    {"partial_rotary_factor", "rotary_emb_fraction", "nomic_bert"},
    {"sliding_window_pattern", "_sliding_window_pattern", ""},
    {NULL, NULL, NULL},
};

/* ---- matching ---------------------------------------------------------- */

static const char *const prefixes[] = {"model.", "language_model.", "transformer.", "gpt_neox.",
                                       "bert.", "nomic_bert."};
enum { N_PREFIXES = sizeof prefixes / sizeof *prefixes };

/* Exports differ in how many of these stand in front. */
static const char *strip_prefixes(const char *s) {
  for (int i = 0; i < N_PREFIXES; i++) {
    size_t n = strlen(prefixes[i]);
    if (!strncmp(s, prefixes[i], n)) return strip_prefixes(s + n);
  }
  return s;
}

/* A number as it is written: at most 6 digits, no zero in front. */
static const char *take_number(const char *s, const char *end, unsigned *out) {
  const char *first = s;
  for (*out = 0; s < end && *s >= '0' && *s <= '9' && s - first < 6; s++)
    *out = 10 * *out + (unsigned)(*s - '0');
  return s == first || (*first == '0' && s - first > 1) ? NULL : s;
}

static bool match(const char *pattern, const char *s, const char *end, unsigned num[2]) {
  int k = 0;
  for (; *pattern; pattern++) {
    if (*pattern == '#') {
      if (!(s = take_number(s, end, &num[k++]))) return false;
    } else if (s == end || *s++ != *pattern) {
      return false;
    }
  }
  return s == end;
}

static bool put(const char *prefix, const char *pattern, const unsigned num[2], const char *suffix,
                char *out, size_t n) {
  struct nm__buf b;
  nm__buf_init(&b, n - 1);
  nm__buf_puts(&b, prefix);
  for (int k = 0; *pattern; pattern++)
    if (*pattern == '#') nm__buf_printf(&b, "%u", num[k++]);
    else nm__buf_putc(&b, *pattern);
  nm__buf_puts(&b, suffix);
  bool good = !b.failed;
  if (good) memcpy(out, b.s, b.len + 1);
  nm__buf_done(&b);
  return good;
}

/* The suffix of a name under either spelling (LayerNorm.gamma in the oldest BERT files), and
 * where it begins. */
static const char *suffix_of(const char *s, const char **at) {
  static const char *const known[][2] = {{".weight", ".weight"}, {".bias", ".bias"},
                                         {"LayerNorm.gamma", ".weight"},
                                         {"LayerNorm.beta", ".bias"}};
  size_t n = strlen(s);
  for (int i = 0; i < 4; i++) {
    size_t k = strlen(known[i][0]), keep = i < 2 ? 0 : strlen("LayerNorm");
    if (n < k || strcmp(s + n - k, known[i][0])) continue;
    *at = s + n - k + keep;
    return known[i][1];
  }
  return NULL;
}

/* A matrix is transposed and a norm's weight moved by one; their biases are not. */
static enum nm__hf_change change_of(const struct nm__hf_name *e, const char *suffix) {
  bool weight_only = e->change == NM__HF_TRANSPOSE || e->change == NM__HF_PLUS_ONE;
  return weight_only && strcmp(suffix, ".weight") ? NM__HF_SAME : e->change;
}

bool nm__hf_to_gguf(const struct nm__hf_family *f, const char *hf, char out[64],
                    enum nm__hf_change *change) {
  unsigned num[2];
  const char *end, *s = strip_prefixes(hf), *suffix = suffix_of(s, &end);
  for (const struct nm__hf_name *e = f->names; suffix && e->hf; e++)
    if (match(e->hf, s, end, num)) {
      *change = change_of(e, suffix);
      return put("", e->gguf, num, suffix, out, 64);
    }
  return false;
}

bool nm__hf_from_gguf(const struct nm__hf_family *f, const char *gguf, char *out, size_t n,
                      enum nm__hf_change *change) {
  unsigned num[2];
  const char *end, *suffix = suffix_of(gguf, &end);
  for (const struct nm__hf_name *e = f->names; suffix && e->hf; e++)
    if (match(e->gguf, gguf, end, num)) {
      bool head = f->head && !strcmp(e->hf, f->head);
      *change = change_of(e, suffix);
      return put(head ? "" : f->prefix, e->hf, num, suffix, out, n);
    }
  return false;
}

bool nm__hf_ignored(const struct nm__hf_family *f, const char *hf) {
  static const char *const tails[] = {".attn.bias", ".attn.masked_bias", ".attention.bias",
                                      ".attention.masked_bias", "rotary_emb.inv_freq",
                                      "embeddings.position_ids"};
  static const struct { const char *arch, *head; } others[] = {
      {"bert", "pooler."}, {"bert", "cls."}, {"bert", "classifier."}, {"bert", "qa_outputs."},
      {"nomic-bert", "pooler."}, {"nomic-bert", "cls."},
      {"gemma3", "vision_tower."}, {"gemma3", "multi_modal_projector."}};
  const char *s = strip_prefixes(hf);
  size_t n = strlen(s);
  for (size_t i = 0; i < sizeof tails / sizeof *tails; i++)
    if (n >= strlen(tails[i]) && !strcmp(s + n - strlen(tails[i]), tails[i])) return true;
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (!strcmp(f->arch, others[i].arch) && !strncmp(s, others[i].head, strlen(others[i].head)))
      return true;
  return false;
}

/* ---- changes ----------------------------------------------------------- */

static int head_count(const struct nm__gguf *g, const struct nm__hf_family *f, const char *name) {
  char k[96];
  uint64_t n;
  snprintf(k, sizeof k, "%s.%s", f->arch, name);
  return !nm__gguf_uint(g, k, &n, NULL) && n > 0 && n < 1 << 20 ? (int)n : 0;
}

int nm__hf_n_head(const struct nm__gguf *g, const char *gguf_name) {
  const struct nm__hf_family *f = nm__hf_family_of(g);
  if (!f) return 0;
  bool kv = strstr(gguf_name, ".attn_k.") || strstr(gguf_name, ".attn_v.");
  int n = kv ? head_count(g, f, "attention.head_count_kv") : 0;
  return n ? n : head_count(g, f, "attention.head_count");
}

enum nm__hf_change nm__hf_pending(const struct nm__gguf *g, const struct nm__gguf_tensor *t,
                                  int *n_head) {
  const struct nm__hf_family *f = g->hf_rows ? nm__hf_family_of(g) : NULL;
  enum nm__hf_change c;
  char name[160];
  *n_head = f ? nm__hf_n_head(g, t->name) : 0;
  bool known = f && nm__hf_from_gguf(f, t->name, name, sizeof name, &c);
  return known && c == NM__HF_ROTARY ? c : NM__HF_SAME;
}

const uint8_t *nm__hf_file_order(const struct nm__gguf *g, const struct nm__gguf_tensor *t,
                                 uint8_t **made, nm_err *err) {
  int n_head;
  enum nm__hf_change c = nm__hf_pending(g, t, &n_head);
  *made = NULL;
  if (c == NM__HF_SAME) return t->data;
  *made = nm__alloc((size_t)t->bytes + 1, 1);
  if (!*made) return nm__fail_memory(err, t->name, (size_t)t->bytes), NULL;
  int64_t rows = t->n_dims > 1 ? t->ne[1] : t->ne[0], cols = t->n_dims > 1 ? t->ne[0] : 1;
  nm__hf_apply(c, true, n_head, t->type, rows, cols, t->data, *made);
  return *made;
}

int64_t nm__hf_row(enum nm__hf_change c, bool to_gguf, int n_head, int64_t rows, int64_t i) {
  if (n_head <= 0 || (c != NM__HF_ROTARY && c != NM__HF_QKV)) return i;
  int64_t hd = rows / n_head;
  if (hd == 0 || rows % n_head) return i;
  int64_t h = i / hd, r = i % hd;
  if (c == NM__HF_ROTARY && hd % 2 == 0)
    return h * hd + (to_gguf ? r % 2 * (hd / 2) + r / 2 : r % (hd / 2) * 2 + r / (hd / 2));
  if (c == NM__HF_ROTARY || hd % 3) return i;
  int64_t one = hd / 3, part, head;              /* hd is the size of a head's q, k and v here */
  if (to_gguf) part = i / (one * n_head), head = i / one % n_head;
  else part = r / one, head = h;
  return to_gguf ? (head * 3 + part) * one + i % one : (part * n_head + head) * one + r % one;
}

/* In tiles, so that both sides stay in the cache. */
static void transpose(uint8_t *out, const uint8_t *in, int64_t rows, int64_t cols, size_t size) {
  enum { TILE = 32 };
  for (int64_t r0 = 0; r0 < rows; r0 += TILE)
    for (int64_t c0 = 0; c0 < cols; c0 += TILE)
      for (int64_t r = r0; r < rows && r < r0 + TILE; r++)
        for (int64_t c = c0; c < cols && c < c0 + TILE; c++)
          memcpy(out + (size_t)(c * rows + r) * size, in + (size_t)(r * cols + c) * size, size);
}

static void add_to_all(uint8_t *out, const uint8_t *in, int64_t n, uint32_t from, uint32_t to,
                       float what) {
  for (int64_t i = 0; i < n; i++) {
    float x;
    nm__dtype(from)->to_f32(&x, in + i * nm__dtype(from)->bytes, 1);
    x += what;
    nm__dtype(to)->from_f32(out + i * nm__dtype(to)->bytes, &x, 1);
  }
}

void nm__hf_apply(enum nm__hf_change c, bool to_gguf, int n_head, uint32_t type, int64_t rows,
                  int64_t cols, const uint8_t *in, uint8_t *out) {
  const struct nm__dtype_info *d = nm__dtype(type);
  size_t row_bytes = (size_t)(cols / d->block) * (size_t)d->bytes;
  if (c == NM__HF_TRANSPOSE) {
    transpose(out, in, rows, cols, (size_t)d->bytes);
  } else if (c == NM__HF_PLUS_ONE) {
    add_to_all(out, in, rows * cols, type, to_gguf ? NM__F32 : type, to_gguf ? 1 : -1);
  } else {
    for (int64_t i = 0; i < rows; i++)
      memcpy(out + (size_t)i * row_bytes,
             in + (size_t)nm__hf_row(c, to_gguf, n_head, rows, i) * row_bytes, row_bytes);
  }
}
