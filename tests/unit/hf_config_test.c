/* hf_config_test.c - Hugging Face's names and numbers, both ways, and what a config may ask for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/hf.h"
#include "model_run.h"

static const char *const families[] = {"llama",    "mistral", "mixtral", "qwen2",     "qwen3",
                                       "gemma",    "gemma2",  "gemma3",  "phi3",      "olmo2",
                                       "gpt_neox", "gpt2",    "bert",    "nomic_bert",
                                       "qwen2_moe", "qwen3_moe", "starcoder2"};
enum { N_FAMILIES = sizeof families / sizeof *families };

/* ---- names ------------------------------------------------------------- */

static void fill_in(const char *pattern, const char *suffix, char *out, size_t n) {
  size_t k = 0;
  for (int number = 7; *pattern; pattern++, number += 5)
    k += (size_t)snprintf(out + k, n - k, *pattern == '#' ? "%d" : "%c",
                          *pattern == '#' ? number : *pattern);
  snprintf(out + k, n - k, "%s", suffix);
}

static void names_go_both_ways(void **state) {
  (void)state;
  int n = 0;
  for (int i = 0; i < N_FAMILIES; i++) {
    const struct nm__hf_family *f = nm__hf_family_find(families[i]);
    assert_non_null(f);
    for (const struct nm__hf_name *e = f->names; e->hf; e++, n++) {
      char bare[120], gguf[64], back[160], again[64];
      enum nm__hf_change c, d;
      fill_in(e->hf, ".weight", bare, sizeof bare);
      assert_true(nm__hf_to_gguf(f, bare, gguf, &c) && c == e->change);
      assert_true(nm__hf_from_gguf(f, gguf, back, sizeof back, &d) && d == c);
      size_t prefix = strlen(back) - strlen(bare);
      assert_string_equal(back + prefix, bare);
      bool head = f->head && !strcmp(e->hf, f->head);
      assert_true(prefix == (head ? 0 : strlen(f->prefix)) && !strncmp(back, f->prefix, prefix));
      assert_true(nm__hf_to_gguf(f, back, again, &d) && !strcmp(again, gguf));
      assert_false(nm__hf_from_gguf(f, gguf, back, strlen(bare) - 1, &d));
    }
  }
  print_message("measured: %d names lead to GGUF and back\n", n);
  assert_true(n > 150);
}

static void expect_name(const char *family, const char *hf, const char *want) {
  char gguf[64] = "";
  enum nm__hf_change c;
  bool found = nm__hf_to_gguf(nm__hf_family_find(family), hf, gguf, &c);
  if (found != (want != NULL) || (want && strcmp(gguf, want)))
    fail_msg("%s: %s became '%s'", family, hf, gguf);
}

static void spellings_of_names(void **state) {
  (void)state;
  expect_name("gpt2", "transformer.h.11.attn.c_attn.bias", "blk.11.attn_qkv.bias");
  expect_name("gpt2", "h.0.ln_1.weight", "blk.0.attn_norm.weight");
  expect_name("gpt2", "h.00.ln_1.weight", NULL);
  expect_name("gpt2", "h.1234567.ln_1.weight", NULL);
  expect_name("gpt2", "h..ln_1.weight", NULL);
  expect_name("gpt2", "h.1.ln_1", NULL);
  expect_name("gpt2", "h.1.ln_1.weight.weight", NULL);
  expect_name("bert", "bert.embeddings.LayerNorm.gamma", "token_embd_norm.weight");
  expect_name("bert", "embeddings.LayerNorm.beta", "token_embd_norm.bias");
  expect_name("gemma3", "language_model.model.layers.3.mlp.up_proj.weight", "blk.3.ffn_up.weight");
  expect_name("gemma3", "model.language_model.norm.weight", "output_norm.weight");
  expect_name("gemma2", "model.layers.3.post_attention_layernorm.weight",
              "blk.3.post_attention_norm.weight");
  expect_name("llama", "model.layers.3.post_attention_layernorm.weight", "blk.3.ffn_norm.weight");
  expect_name("mixtral", "model.layers.1.block_sparse_moe.experts.10.w2.weight",
              "blk.1.ffn_down.10.weight");
  const struct nm__hf_family *gpt2 = nm__hf_family_find("gpt2"), *bert = nm__hf_family_find("bert");
  assert_true(nm__hf_ignored(gpt2, "h.0.attn.bias") &&
              !nm__hf_ignored(gpt2, "h.0.attn.c_attn.bias"));
  assert_true(nm__hf_ignored(bert, "bert.pooler.dense.weight"));
  assert_false(nm__hf_ignored(gpt2, "pooler.dense.weight"));
}

/* ---- numbers ----------------------------------------------------------- */

static void rows_go_both_ways(void **state) {
  (void)state;
  static const enum nm__hf_change changes[] = {NM__HF_SAME, NM__HF_ROTARY, NM__HF_QKV};
  for (int k = 0; k < 3; k++)
    for (int heads = 1; heads <= 5; heads++)
      for (int64_t rows = 1; rows <= 60; rows++) {
        bool seen[60] = {0};
        for (int64_t i = 0; i < rows; i++) {
          int64_t s = nm__hf_row(changes[k], true, heads, rows, i);
          assert_true(s >= 0 && s < rows && !seen[s]);
          seen[s] = true;
          assert_int_equal(nm__hf_row(changes[k], false, heads, rows, s), i);
        }
      }
  /* Two heads of four: GGUF rows 0 1 2 3 are 0 2 1 3. Two heads of q, k, v of one: q q k k v v. */
  static const int rotary[] = {0, 2, 1, 3, 4, 6, 5, 7}, qkv[] = {0, 3, 1, 4, 2, 5};
  for (int i = 0; i < 8; i++) assert_int_equal(nm__hf_row(NM__HF_ROTARY, true, 2, 8, i), rotary[i]);
  for (int i = 0; i < 6; i++) assert_int_equal(nm__hf_row(NM__HF_QKV, true, 2, 6, i), qkv[i]);
}

static void changes_undo(void **state) {
  (void)state;
  static const uint32_t types[] = {NM__F32, NM__F16, NM__BF16};
  enum { ROWS = 36, COLS = 5 };
  float x[ROWS * COLS];
  uint8_t a[sizeof x], b[sizeof x], c[sizeof x];
  for (int i = 0; i < ROWS * COLS; i++) x[i] = (float)((i * 37) % 101) / 64;
  for (int t = 0; t < 3; t++)
    for (int change = NM__HF_SAME; change <= NM__HF_QKV; change++) {
      enum nm__hf_change ch = (enum nm__hf_change)change;
      bool turned = ch == NM__HF_TRANSPOSE, plus = ch == NM__HF_PLUS_ONE;
      nm__dtype(types[t])->from_f32(a, x, ROWS * COLS);
      nm__hf_apply(ch, true, 3, types[t], ROWS, COLS, a, b);
      /* One was added in F32, whatever the type; the way back starts from that. */
      nm__hf_apply(ch, false, 3, plus ? NM__F32 : types[t], turned ? COLS : ROWS,
                   turned ? ROWS : COLS, b, c);
      size_t bytes = (size_t)nm__dtype(plus ? NM__F32 : types[t])->bytes * ROWS * COLS;
      assert_memory_equal(plus ? (const uint8_t *)x : a, c, bytes);
      float first;
      memcpy(&first, b + 4, 4);
      if (plus)
        assert_true(first == x[1] + 1);
      else
        assert_true((ch == NM__HF_SAME) == !memcmp(a, b, bytes));
    }
}

/* ---- configs ----------------------------------------------------------- */

static int keys_of(const char *json, struct nm__gguf **g, struct nm__hf_facts *f, nm_err *err) {
  assert_int_equal(nm__gguf_new("m", "safetensors", g, err), 0);
  return nm__hf_keys("config.json", json, strlen(json), *g, f, err);
}

static void config_refused(const char *json, const char *why) {
  struct nm__gguf *g;
  struct nm__hf_facts f;
  nm_err err = {0};
  int st = keys_of(json, &g, &f, &err);
  if (st != NM_EFORMAT || strncmp(err.text, "config.json: ", 13) || !strstr(err.text, why))
    fail_msg("%s: status %d, '%s', expected '%s'", json, st, err.text, why);
  nm__gguf_close(g);
}

#define LLAMA "{\"model_type\":\"llama\",\"hidden_size\":64,\"num_attention_heads\":4"
#define ROPE(s) LLAMA ",\"rope_scaling\":{" s "}}"
#define FOUR "\"factor\":4"
static void refusals(void **state) {
  (void)state;
  config_refused("", "not valid JSON");
  config_refused("[]", "must be a JSON object");
  config_refused("{\"a\":1,\"a\":1}", "duplicate");
  config_refused("{}", "has no model_type");
  config_refused("{\"model_type\":7}", "has no model_type");
  config_refused("{\"model_type\":\"mamba\"}",
                 "'mamba' is not supported yet (known: llama, mistral");
  config_refused("{\"model_type\":\"llava\",\"text_config\":{\"model_type\":\"llama\"}}",
                 "'llava'");
  config_refused(LLAMA ",\"hidden_size\":64}", "duplicate");
  config_refused(LLAMA ",\"num_hidden_layers\":2.0}", "num_hidden_layers 2.0: must be an integer");
  config_refused(LLAMA ",\"num_hidden_layers\":-1}", "must be an integer");
  config_refused(LLAMA ",\"vocab_size\":\"7\"}", "vocab_size \"7\": must be an integer");
  config_refused(LLAMA ",\"vocab_size\":4294967296}", "must be an integer");
  config_refused(LLAMA ",\"rms_norm_eps\":true}", "rms_norm_eps true: must be a number");
  config_refused(LLAMA ",\"hidden_act\":\"gelu\"}", "hidden_act \"gelu\"");
  config_refused(LLAMA ",\"hidden_act\":3}", "hidden_act 3");
  config_refused(LLAMA ",\"quantization_config\":{\"quant_method\":\"gptq\"}}",
                 "quantization_config");
  config_refused(LLAMA ",\"partial_rotary_factor\":0.5}", "partial_rotary_factor 0.5");
  config_refused(LLAMA ",\"head_dim\":0}", "heads of 0");
  config_refused("{\"model_type\":\"qwen2\",\"use_sliding_window\":true}",
                 "use_sliding_window true");
  config_refused(
      "{\"model_type\":\"qwen3\",\"num_hidden_layers\":1,\"layer_types\":[\"sliding_attention\"]}",
      "layer_types asks for sliding windows");
  config_refused(
      "{\"model_type\":\"gemma2\",\"num_hidden_layers\":2,\"layer_types\":[\"full_attention\"]}",
      "layer_types must list");
  config_refused(
      "{\"model_type\":\"gemma2\",\"num_hidden_layers\":1,\"layer_types\":[\"chunked\"]}",
      "'chunked'");
  config_refused("{\"model_type\":\"gemma2\",\"query_pre_attn_scalar\":0}",
                 "query_pre_attn_scalar 0");
  config_refused("{\"model_type\":\"gpt2\",\"scale_attn_by_inverse_layer_idx\":true}",
                 "inverse_layer");
  config_refused("{\"model_type\":\"gpt2\",\"activation_function\":\"relu\"}",
                 "hidden_act \"relu\"");
  config_refused("{\"model_type\":\"gpt_neox\",\"use_parallel_residual\":1}", "true or false");
  config_refused("{\"model_type\":\"qwen2_moe\",\"decoder_sparse_step\":2}", "decoder_sparse_step 2");
  config_refused("{\"model_type\":\"qwen3_moe\",\"mlp_only_layers\":[0]}", "mlp_only_layers [0]");
  config_refused("{\"model_type\":\"qwen3_moe\",\"norm_topk_prob\":1}", "true or false");
  config_refused("{\"model_type\":\"starcoder2\",\"use_bias\":false}", "use_bias false");
  config_refused("{\"model_type\":\"bert\",\"position_embedding_type\":\"relative_key\"}",
                 "absolute");
  config_refused("{\"model_type\":\"nomic_bert\",\"qkv_proj_bias\":true}", "qkv_proj_bias");
  config_refused(ROPE("\"type\":\"dynamic\"," FOUR), "dynamic scaling");
  config_refused(ROPE("\"rope_type\":\"ntk\""), "not a scaling that is known");
  config_refused(ROPE("\"rope_type\":4"), "rope_type 4");
  config_refused(ROPE("\"rope_type\":\"linear\""), "factor");
  config_refused(ROPE("\"rope_type\":\"linear\",\"factor\":-1"), "must be a positive number");
  config_refused(ROPE("\"rope_type\":\"yarn\"," FOUR ",\"beta_fast\":16"), "beta_fast 16");
  config_refused(ROPE("\"rope_type\":\"yarn\"," FOUR ",\"mscale\":1"), "mscale");
  config_refused(ROPE("\"rope_type\":\"llama3\"," FOUR), "low_freq_factor");
  config_refused(ROPE("\"rope_type\":\"llama3\"," FOUR
                      ",\"low_freq_factor\":4,\"high_freq_factor\":4,"
                      "\"original_max_position_embeddings\":64"),
                 "must be larger");
  config_refused(ROPE("\"rope_type\":\"longrope\",\"long_factor\":[1],\"short_factor\":[1],"
                      "\"original_max_position_embeddings\":64"),
                 "must be a list of 8 numbers");
  config_refused(LLAMA ",\"rope_theta\":0.5}", "rope_theta 0.5");
}

static double number_of(const struct nm__gguf *g, const char *key) {
  double v = NAN;
  nm_err err = {0};
  if (nm__gguf_float(g, key, &v, &err)) fail_msg("%s", err.text);
  return v;
}

#define WITH_KEYS(json)                                                                            \
  do {                                                                                             \
    nm_err err_ = {0};                                                                             \
    if (keys_of(json, &g, &f, &err_)) fail_msg("%s", err_.text);                                   \
  } while (0)

/* What a file leaves out is what HF's class says; null means "none". */
static void defaults_and_spellings(void **state) {
  (void)state;
  struct nm__gguf *g;
  struct nm__hf_facts f;
  WITH_KEYS("{\"model_type\":\"mistral\"}");
  assert_true(number_of(g, "llama.attention.sliding_window") == 4096);
  assert_true(number_of(g, "llama.attention.head_count_kv") == 8 && !f.tied);
  nm__gguf_close(g);
  WITH_KEYS("{\"model_type\":\"mistral\",\"sliding_window\":null,\"num_key_value_heads\":null}");
  assert_null(nm__gguf_find(g, "llama.attention.sliding_window"));
  assert_null(nm__gguf_find(g, "llama.attention.head_count_kv"));
  nm__gguf_close(g);
  WITH_KEYS("{\"model_type\":\"gpt2\",\"n_embd\":48,\"n_head\":3,\"n_inner\":null}");
  assert_true(number_of(g, "gpt2.embedding_length") == 48 && f.tied);
  assert_true(number_of(g, "gpt2.feed_forward_length") == 192);
  assert_true(number_of(g, "gpt2.context_length") == 1024);
  nm__gguf_close(g);
  WITH_KEYS("{\"model_type\":\"gpt_neox\",\"rotary_pct\":0.5,\"hidden_size\":64,"
            "\"num_attention_heads\":4,\"rotary_emb_base\":500}");
  assert_true(number_of(g, "gptneox.rope.dimension_count") == 8);
  assert_true(number_of(g, "gptneox.rope.freq_base") == 500);
  nm__gguf_close(g);
  WITH_KEYS("{\"model_type\":\"gemma\",\"hidden_act\":\"gelu\",\"hidden_activation\":null}");
  assert_true(f.tied);
  nm__gguf_close(g);
  WITH_KEYS("{\"model_type\":\"gemma3\",\"tie_word_embeddings\":false,\"text_config\":"
            "{\"model_type\":\"gemma3_text\",\"hidden_size\":128,\"rope_parameters\":{"
            "\"full_attention\":{\"rope_theta\":2e6,\"rope_type\":\"linear\",\"factor\":8},"
            "\"sliding_attention\":{\"rope_theta\":9000,\"rope_type\":\"default\"}}}}");
  assert_true(number_of(g, "gemma3.embedding_length") == 128 && !f.tied);
  assert_true(number_of(g, "gemma3.rope.freq_base") == 2e6);
  assert_true(number_of(g, "gemma3.rope.freq_base_swa") == 9000);
  assert_true(number_of(g, "gemma3.rope.scaling.factor") == 8);
  nm__gguf_close(g);
  WITH_KEYS("{\"model_type\":\"gemma2\",\"query_pre_attn_scalar\":64}");
  assert_true(fabs(number_of(g, "gemma2.attention.scale") - 0.125) < 1e-7);
  nm__gguf_close(g);
  WITH_KEYS(
      "{\"model_type\":\"gemma2\",\"num_hidden_layers\":3,\"layer_types\":[\"full_attention\","
      "\"sliding_attention\",\"full_attention\"]}");
  const struct nm__gguf_kv *kv = nm__gguf_find(g, "gemma2.attention.sliding_window_pattern");
  assert_true(kv && kv->n == 3 && !kv->raw[0] && kv->raw[1] && !kv->raw[2]);
  assert_null(nm__gguf_find(g, "gemma2.attention.scale"));
  nm__gguf_close(g);
  WITH_KEYS(
      "{\"model_type\":\"gemma2\",\"num_hidden_layers\":2,\"layer_types\":[\"sliding_attention\","
      "\"full_attention\"]}");
  assert_null(nm__gguf_find(g, "gemma2.attention.sliding_window_pattern"));
  nm__gguf_close(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_go_both_ways), cmocka_unit_test(spellings_of_names),
      cmocka_unit_test(rows_go_both_ways),  cmocka_unit_test(changes_undo),
      cmocka_unit_test(refusals),           cmocka_unit_test(defaults_and_spellings),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
