/* convert_test.c - models written again: the types chosen are those of the recorded files, what
 * should stay stays to the byte, and what is quantised stays close. */
#define _GNU_SOURCE                        /* nftw */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <unistd.h>

#include "core/json.h"
#include "model/convert.h"
#include "model_run.h"

static char dir[] = "/tmp/noema-convert-XXXXXX";
static char paths[8][128];
static const char *at(int i, const char *name) {
  snprintf(paths[i], sizeof paths[i], "%s/%s", dir, name);
  return paths[i];
}

static nm_convert_result convert(nm_convert_opts o) {
  nm_err err = {0};
  nm_convert_result r;
  o.force = true;
  if (nm_convert(&o, &r, &err)) fail_msg("%s", err.text);
  return r;
}

static void done(nm_convert_opts o) {
  nm_convert_result r = convert(o);
  nm_convert_result_free(&r);
}

static int refused(nm_convert_opts o, const char *why) {
  nm_err err = {0};
  nm_convert_result r;
  int st = nm_convert(&o, &r, &err);
  if (!st || !strstr(err.text, why)) fail_msg("'%s' where '%s' was expected", err.text, why);
  return st;
}

/* ---- the choice of types ------------------------------------------------------------ */

static void types_recorded(void **state) {
  (void)state;
  static const char *const q[][2] = {{"Q4_K_M", "llama-q4_k_m"}, {"Q5_K_M", "llama-q5_k_m"},
                                     {"Q4_K", "llama-q4_k"}};
  if (no_shared()) skip();
  for (int i = 0; i < 3; i++) {
    char meta[120];
    snprintf(meta, sizeof meta, SHARED "reference/quant/%s/meta.json", q[i][1]);
    json_t *j = json_load_file(meta, 0, NULL), *types = json_object_get(j, "types_by_tensor");
    nm_convert_result r = convert((nm_convert_opts){
        .in = SHARED "reference/quant/llama-f16/model.gguf", .out = at(0, "x.gguf"),
        .type = q[i][0], .dry_run = true});
    size_t n = 0;
    for (size_t k = 0; k < r.n_tensors; k++) {
      const char *want = json_string_value(json_object_get(types, r.tensor[k].name));
      assert_string_equal(r.tensor[k].to, want ? want : "F32");
      n += want != NULL;
    }
    assert_int_equal(n, json_object_size(types));
    nm_convert_result_free(&r);
    json_decref(j);
  }
  assert_false(nm__exists(at(0, "x.gguf")));
}

/* The letters of the types that block 0, 1, ... gets for one tensor: 4, 5, 6 of the K types. */
static const char *by_block(const char *recipe, const char *tensor, struct nm__recipe_facts f) {
  static char s[100];
  int rank[100];
  f.v_rank = rank;
  for (int b = 0; b < f.n_block; b++) {
    char name[64];
    rank[b] = b;
    snprintf(name, sizeof name, "blk.%d.%s.weight", b, tensor);
    struct nm__gguf_tensor t = {.name = name, .n_dims = 2, .ne = {512, 512, 1, 1}};
    uint32_t type = nm__recipe_type(nm__recipe_find(recipe), &f, &t);
    s[b] = type == NM__Q8_0 ? '8' : type >= 12 && type <= 14 ? (char)('4' + type - 12) : '?';
  }
  s[f.n_block] = 0;
  return s;
}

/* What llama-quantize chose for models of 32 and 20 blocks, of falcon, of eight experts. */
static void types_by_block(void **state) {
  (void)state;
  struct nm__recipe_facts f = {.n_block = 32, .n_v = 32};
  assert_string_equal(by_block("Q4_K_M", "attn_v", f), "66664464464464464464464464466666");
  assert_string_equal(by_block("Q4_K_M", "ffn_down", f), "66664464464464464464464464466666");
  assert_string_equal(by_block("q5_k_m", "ffn_down", f), "66665565565565565565565565566666");
  assert_string_equal(by_block("Q4_K_S", "ffn_down", f), "55554444444444444444444444444444");
  assert_string_equal(by_block("Q4_K_S", "attn_v", f), "55554444444444444444444444444444");
  assert_string_equal(by_block("Q4_K_M", "attn_q", f), "44444444444444444444444444444444");
  assert_string_equal(by_block("Q4_K_M", "attn_qkv", f), "55555555555555555555555555555555");
  assert_string_equal(by_block("Q4_K", "attn_v", f), "44444444444444444444444444444444");
  f.falcon = true;
  assert_string_equal(by_block("Q4_K_M", "ffn_down", f), "66554454454454454454454454455555");
  f = (struct nm__recipe_facts){.n_block = 20, .n_v = 20, .n_expert = 8};
  assert_string_equal(by_block("Q4_K_M", "attn_v", f), "88888888888888888888");
  assert_string_equal(by_block("Q4_K_M", "attn_output", f), "55555555555555555555");
  assert_string_equal(by_block("Q5_K_M", "attn_output", f), "55555555555555555555");
  f = (struct nm__recipe_facts){.n_block = 80, .n_v = 80, .seventy = true};
  assert_int_equal(by_block("Q4_K_M", "attn_v", f)[20], '5');
  assert_int_equal(nm__recipe_fit(12, 896), NM__Q5_0);
  assert_int_equal(nm__recipe_fit(13, 896), NM__Q5_1);
  assert_int_equal(nm__recipe_fit(14, 896), NM__Q8_0);
  assert_int_equal(nm__recipe_fit(14, 900), NM__F16);
}

/* ---- what stays ------------------------------------------------------------------------ */

/* Every tensor and every key of a is in b, byte for byte; `but` of the keys may differ. */
static void assert_same_gguf(const char *a, const char *b, bool keys) {
  struct nm__gguf *x = NULL, *y = NULL;
  nm_err err = {0};
  if (nm__gguf_open(a, &x, &err) || nm__gguf_open(b, &y, &err)) fail_msg("%s", err.text);
  assert_int_equal(x->n_tensors, y->n_tensors);
  for (size_t i = 0; i < x->n_tensors; i++) {
    const struct nm__gguf_tensor *t = &x->tensors[i], *u = nm__gguf_tensor(y, t->name);
    if (!u || u->type != t->type || memcmp(u->ne, t->ne, sizeof t->ne) ||
        memcmp(u->data, t->data, t->bytes))
      fail_msg("%s against %s: %s %s", a, b, t->name, u ? "differs" : "is missing");
  }
  for (size_t i = 0; keys && i < x->n_kv; i++) {
    const struct nm__gguf_kv *k = &x->kv[i], *l = nm__gguf_find(y, k->key);
    if (!l || l->type != k->type || l->n != k->n) fail_msg("%s: %s", b, k->key);
    if (nm__gguf_type_size(k->type)) assert_memory_equal(k->raw, l->raw, nm__gguf_type_size(k->type));
  }
  nm__gguf_close(x);
  nm__gguf_close(y);
}

static void write_random(const char *shape, const char *type, const char *path) {
  nm_err err = {0};
  if (nm_write_random(shape, type, 7, path, NULL, &err)) fail_msg("%s", err.text);
}

static void copies_and_pieces(void **state) {
  (void)state;
  const char *in = at(0, "in.gguf"), *out = at(1, "out.gguf");
  write_random("tiny", "Q8_0", in);
  done((nm_convert_opts){.in = in, .out = out});
  assert_same_gguf(in, out, true);
  nm_convert_result r =
      convert((nm_convert_opts){.in = in, .out = at(2, "p%d.gguf"), .split_bytes = 40000});
  assert_true(r.n_files > 2);
  char piece[160], first[40];
  snprintf(first, sizeof first, "p%%d-00001-of-%05d.gguf", r.n_files);
  snprintf(piece, sizeof piece, "%s/%s", dir, first);
  nm_convert_result_free(&r);
  assert_same_gguf(in, piece, true);
  done((nm_convert_opts){.in = piece, .out = out});
  assert_same_gguf(in, out, true);
}

static struct rows logits_of(const char *path) {
  int32_t ids[96];
  nm_model *m = open_model(path);
  int n = m->n_ctx < 96 ? m->n_ctx : 96;
  for (int i = 0; i < n; i++) ids[i] = (int32_t)(nm__rand_at(3, 1, (uint64_t)i) % (uint64_t)m->V);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 1});
  struct rows r = tap_one(e, ids, (size_t)n, m->arch->encoder ? "*.resid_post" : "logits", "all", NULL);
  nm_engine_free(e);
  nm_model_close(m);
  return r;
}

/* GGUF to a directory and back: same tensors, same bits of the logits; the directory too. */
static void there_and_back(void **state) {
  (void)state;
  static const char *const models[] = {
      "models/arch/llama", "models/arch/llama-tied", "models/arch/llama-rope-linear",
      "models/arch/llama-rope-yarn", "models/arch/llama-rope-llama3", "models/arch/mixtral",
      "models/arch/qwen2", "models/arch/qwen3", "models/arch/gemma", "models/arch/gemma2",
      "models/arch/gemma3", "models/arch/olmo2", "models/arch/phi3", "models/arch/gptneox",
      "models/arch/phi3-longrope", "models/arch/gptneox-sequential", "models/arch/gpt2",
      "models/arch/bert", "models/arch/nomic-bert"};
  if (no_shared()) skip();
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    char in[120];
    snprintf(in, sizeof in, SHARED "%s/model.gguf", models[i]);
    const char *hf = at(0, "hf"), *back = at(1, "back.gguf");
    done((nm_convert_opts){.in = in, .out = hf, .split_bytes = i % 2 ? 20000 : 0});
    done((nm_convert_opts){.in = hf, .out = back});
    bool fact = strstr(models[i], "llama3") || strstr(models[i], "longrope");
    if (!fact) assert_same_gguf(in, back, false);  /* factors go through decimals of the config */
    struct rows a = logits_of(in), b = logits_of(hf), c = logits_of(back);
    assert_same_rows(&a, &b, hf);
    assert_same_rows(&a, &c, in);
    rows_done(&a);
    rows_done(&b);
    rows_done(&c);
    unlink(at(2, "hf/model.safetensors.index.json"));
    unlink(at(2, "hf/model.safetensors"));
  }
}

/* F16 and BF16 survive the way through a directory too. */
static void halves_there_and_back(void **state) {
  (void)state;
  static const char *const types[] = {"F16", "BF16"};
  for (int i = 0; i < 2; i++) {
    const char *in = at(0, "in.gguf"), *hf = at(1, i ? "hfb" : "hfh"), *back = at(2, "back.gguf");
    write_random("tiny", types[i], in);
    done((nm_convert_opts){.in = in, .out = hf, .split_bytes = 30000});
    done((nm_convert_opts){.in = hf, .out = back});
    assert_same_gguf(in, back, false);
  }
}

static void tokenizer_of(const char *path, int32_t **ids, size_t *n) {
  static const char text[] = "Once upon a time, there was a  little girl \xe2\x80\x94 na\xc3\xafve 123\n"
                             " \xe4\xb8\x96\xe7\x95\x8c I'll <0x41> </s>\t\xff ";
  nm_model *m;
  nm_err err = {0};
  if (nm_tokenizer_open(path, &m, &err) ||
      nm_tokenize(m, text, sizeof text - 1, NM_PARSE_SPECIAL, ids, n, &err))
    fail_msg("%s", err.text);
  nm_model_close(m);
}

/* The tokenizer gives the same ids from the directory's files and from the keys made of them. */
static void tokenizers_there_and_back(void **state) {
  (void)state;
  static const char *const models[] = {"models/stories260K/stories260K.f32.gguf",
                                       "reference/llama/model.gguf", "reference/qwen2/model.gguf",
                                       "reference/llama3-rope/model.gguf",
                                       "reference/gpt2/model.gguf", "reference/gemma2/model.gguf"};
  if (no_shared()) skip();
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    char in[120], name[20];
    snprintf(in, sizeof in, SHARED "%s", models[i]);
    snprintf(name, sizeof name, "tok%zu", i);
    const char *way[] = {in, at(0, name), at(1, "back.gguf")};
    int32_t *ids[3];
    size_t n[3];
    done((nm_convert_opts){.in = in, .out = way[1]});
    done((nm_convert_opts){.in = way[1], .out = way[2]});
    for (int k = 0; k < 3; k++) tokenizer_of(way[k], &ids[k], &n[k]);
    for (int k = 1; k < 3; k++)
      if (n[k] != n[0] || memcmp(ids[k], ids[0], n[0] * sizeof **ids))
        fail_msg("%s: %s gives other tokens (%zu and %zu)", in, way[k], n[k], n[0]);
    for (int k = 0; k < 3; k++) nm_free(ids[k]);
  }
}

/* ---- what changes ------------------------------------------------------------------------ */

static void any_number_of_threads(void **state) {
  (void)state;
  char a[33], b[33];
  nm_err err = {0};
  const char *in = at(0, "in.gguf"), *out = at(1, "out.gguf");
  write_random("tiny", "F32", in);
  for (int t = 1; t <= 3; t += 2) {
    done((nm_convert_opts){.in = in, .out = out, .type = "Q5_K_M", .threads = t});
    assert_int_equal(nm__hash_file(out, t == 1 ? a : b, &err), NM_OK);
  }
  assert_string_equal(a, b);
}

/* Rows of n, one value spoilt. */
static void spoilt(const char *path, float v, int where) {
  struct nm__gguf_writer *w;
  nm_err err = {0};
  static float x[256 * 100];
  for (int i = 0; i < 256 * 100; i++) x[i] = (float)(i % 13) * 0.1f;
  x[where] = v;
  assert_int_equal(nm__gguf_writer_new(&w, &err), NM_OK);
  nm__gguf_put_string(w, "general.architecture", "none");
  nm__gguf_announce(w, "a.weight", NM__F32, 2, (int64_t[]){256, 100});
  int st = nm__gguf_begin(w, path, &err);
  if (!st) st = nm__gguf_data(w, x, sizeof x, &err);
  if (!st) st = nm__gguf_finish(w, &err);
  if (st) fail_msg("%s", err.text);
  nm__gguf_writer_free(w);
}

static void refusals(void **state) {
  (void)state;
  const char *in = at(0, "bad.gguf"), *out = at(1, "never.gguf");
  spoilt(in, NAN, 20001);
  assert_int_equal(refused((nm_convert_opts){.in = in, .out = out, .type = "Q4_K"},
                           "'a.weight' cannot be written as Q4_K: element 20001 is nan"),
                   NM_EFORMAT);
  spoilt(in, -1e6f, 3);
  refused((nm_convert_opts){.in = in, .out = out, .type = "F16"}, "element 3 is -1e+06, which is");
  assert_false(nm__exists(out));
  done((nm_convert_opts){.in = in, .out = out, .type = "BF16"});
  refused((nm_convert_opts){.in = in, .out = out, .type = "F16"}, "is there already; --force");
  refused((nm_convert_opts){.in = in, .out = in, .force = true}, "is the model that is read");
  assert_int_equal(refused((nm_convert_opts){.in = in, .out = out, .type = "Q9"},
                           "type 'Q9' is not known (known: F32, F16, BF16, Q8_0, Q6_K, Q5_K_M"),
                   NM_EUSAGE);
  refused((nm_convert_opts){.in = in, .out = at(2, "d"), .force = true}, "no Hugging Face form");
  refused((nm_convert_opts){.in = in, .out = at(2, "d"), .type = "Q8_0"}, "safetensors hold no");
  static const char *const globs[] = {"b.*=Q8_0", "a.*=Q8_9", "=Q8_0", "a.weight"},
                    *const why[] = {"fits no tensor", "'Q8_9' is not known", "GLOB=T", "GLOB=T"};
  for (int i = 0; i < 4; i++)
    refused((nm_convert_opts){.in = in, .out = out, .tensor_type = &globs[i], .n_tensor_type = 1},
            why[i]);
}

/* A file that asks for what no family stores: rows of q to be moved inside blocks. */
static void rows_in_blocks(void **state) {
  (void)state;
  struct nm__gguf_writer *w;
  nm_err err = {0};
  static uint8_t zeros[34 * 64];
  const char *in = at(0, "rows.gguf");
  for (int dims = 1; dims <= 3; dims += 2) {
    assert_int_equal(nm__gguf_writer_new(&w, &err), NM_OK);
    nm__gguf_put_string(w, "general.architecture", "llama");
    nm__gguf_put_u32(w, "llama.attention.head_count", 2);
    nm__gguf_announce(w, "blk.0.attn_q.weight", NM__Q8_0, dims, (int64_t[]){32, 2, 2, 1});
    int st = nm__gguf_begin(w, in, &err);
    if (!st) st = nm__gguf_data(w, zeros, dims == 1 ? 34 : 34 * 4, &err);
    if (!st) st = nm__gguf_finish(w, &err);
    if (st) fail_msg("%s", err.text);
    nm__gguf_writer_free(w);
    assert_int_equal(refused((nm_convert_opts){.in = in, .out = at(1, "rows")}, "in another order"),
                     NM_EFORMAT);
  }
}

static void types_by_name(void **state) {
  (void)state;
  static const char *const globs[] = {"blk.*.attn_?.weight=Q8_0", "blk.1.*=F16"};
  const char *in = at(0, "in.gguf");
  write_random("tiny", "F32", in);
  nm_convert_result r = convert((nm_convert_opts){.in = in, .out = at(1, "out.gguf"),
      .type = "Q4_0", .pure = true, .tensor_type = globs, .n_tensor_type = 2});
  for (size_t i = 0; i < r.n_tensors; i++) {
    const char *n = r.tensor[i].name, *t = r.tensor[i].to;
    if (!strncmp(n, "blk.1.", 6)) assert_string_equal(t, "F16");
    else if (!strncmp(n, "blk.0.attn_", 11) && n[12] == '.') assert_string_equal(t, "Q8_0");
    else if (strstr(n, "norm")) assert_string_equal(t, "F32");
    else assert_string_equal(t, "Q4_0");
  }
  nm_convert_result_free(&r);
}

/* Mean divergence of the predictions, in nats. */
static double divergence(const struct rows *a, const struct rows *b) {
  double sum = 0;
  assert_int_equal(a->n, b->n);
  for (size_t i = 0; i < a->n; i++) {
    int V = (int)a->v[i].n;
    double *p = malloc(sizeof *p * (size_t)V), *q = malloc(sizeof *q * (size_t)V), kl = 0;
    nm_log_softmax(a->v[i].v, V, p);
    nm_log_softmax(b->v[i].v, V, q);
    for (int k = 0; k < V; k++) kl += exp(p[k]) * (p[k] - q[k]);
    sum += kl;
    free(p);
    free(q);
  }
  return sum / (double)a->n;
}

#define RANDOM SHARED "reference/quant/llama-"
#define STORIES SHARED "models/stories260K/stories260K."

/* Against the file that llama-quantize (random model) or its Q4_0 formula (stories) made of the same
 * weights: not further from the original than that, but for the luck of single roundings. A random
 * model's predictions are far more easily moved than a trained one's. */
static void predictions_stay_close(void **state) {
  (void)state;
  static const struct { const char *type, *in, *recorded; double luck; } all[] = {
      {"F32", RANDOM "f16/model.gguf", NULL, 0},
      {"BF16", RANDOM "f16/model.gguf", RANDOM "bf16/model.gguf", 1.2},
      {"Q8_0", RANDOM "f16/model.gguf", RANDOM "q8_0/model.gguf", 1.2},
      {"Q6_K", RANDOM "f16/model.gguf", RANDOM "q6_k/model.gguf", 1.2},
      {"Q5_0", RANDOM "f16/model.gguf", RANDOM "q5_0/model.gguf", 1.2},
      {"Q4_0", RANDOM "f16/model.gguf", RANDOM "q4_0/model.gguf", 1.2},
      {"Q4_K", RANDOM "f16/model.gguf", RANDOM "q4_k/model.gguf", 1.2},
      {"Q4_K_M", RANDOM "f16/model.gguf", RANDOM "q4_k_m/model.gguf", 1.2},
      {"Q5_K_M", RANDOM "f16/model.gguf", RANDOM "q5_k_m/model.gguf", 1.2},
      {"Q8_0", STORIES "f32.gguf", STORIES "Q8_0.gguf", 1.2},
      {"Q5_1", STORIES "f32.gguf", STORIES "Q5_1.gguf", 1.2},
      {"Q4_0", STORIES "f32.gguf", STORIES "Q4_0.gguf", 1.2}};
  if (no_shared()) skip();
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    const char *out = at(0, "q.gguf");
    nm_convert_result r = convert((nm_convert_opts){
        .in = all[i].in, .out = out, .type = all[i].type, .pure = !strchr(all[i].type, 'M')});
    struct rows a = logits_of(all[i].in), b = logits_of(out);
    struct rows c = logits_of(all[i].recorded ? all[i].recorded : all[i].in);
    double ours = divergence(&a, &b), theirs = divergence(&a, &c);
    print_message("measured %-7s %-7s %5.2f bits a weight, mean KL %.2g (recorded file: %.2g)\n",
                  i < 9 ? "random" : "stories", all[i].type, r.bits_per_weight, ours, theirs);
    if (!(ours <= all[i].luck * theirs)) fail_msg("%s: KL %g", all[i].type, ours);
    rows_done(&a);
    rows_done(&b);
    rows_done(&c);
    nm_convert_result_free(&r);
  }
}

static int make_dir(void **state) {
  (void)state;
  return mkdtemp(dir) ? 0 : -1;
}
static int rm(const char *p, const struct stat *s, int type, struct FTW *f) {
  (void)s, (void)type, (void)f;
  return remove(p);
}
static int remove_dir(void **state) {
  (void)state;
  return nftw(dir, rm, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(types_recorded), cmocka_unit_test(types_by_block),
      cmocka_unit_test(copies_and_pieces), cmocka_unit_test(there_and_back),
      cmocka_unit_test(halves_there_and_back), cmocka_unit_test(tokenizers_there_and_back),
      cmocka_unit_test(any_number_of_threads),
      cmocka_unit_test(refusals), cmocka_unit_test(rows_in_blocks),
      cmocka_unit_test(types_by_name),
      cmocka_unit_test(predictions_stay_close)};
  return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
