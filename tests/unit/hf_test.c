/* hf_test.c - Hugging Face directories: models written as such and opened again, weights in
 * several files, tensors that do not fit, damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/hf.h"
#include "model_run.h"
#include "world/random.h"

static char dir[64];

static const char *in_dir(const char *name) {
  static char path[2][160];
  static int k;
  k ^= 1;
  snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
  return path[k];
}

/* ---- directories written from GGUFs ------------------------------------------ */

static void put_text(const char *name, const char *text, size_t n) {
  nm_err err = {0};
  if (nm__write_file(in_dir(name), text, n, &err)) fail_msg("%s", err.text);
}

static void write_config(const struct nm__gguf *g) {
  json_t *c;
  nm_err err = {0};
  if (nm__hf_config(g, &c, &err)) fail_msg("%s", err.text);
  char *s = json_dumps(c, JSON_INDENT(1));
  put_text("config.json", s, strlen(s));
  free(s);
  json_decref(c);
}

struct piece {
  struct nm__gguf_tensor t;
  char name[160];
  enum nm__hf_change change;
};

/* A tensor, or each expert of a stack of them as its own; those without an HF name are left. */
static size_t pieces_of(const struct nm__hf_family *f, const struct nm__gguf_tensor *t,
                        struct piece *p) {
  const char *stack = strstr(t->name, "_exps.weight");
  size_t n = 0;
  for (int64_t e = 0; e < (stack ? t->ne[2] : 1); e++, n++) {
    char gguf[96];
    snprintf(gguf, sizeof gguf, "%s", t->name);
    p[n].t = *t;
    if (stack) {
      snprintf(gguf, sizeof gguf, "%.*s.%d.weight", (int)(stack - t->name), t->name, (int)e);
      p[n].t.bytes = t->bytes / (uint64_t)t->ne[2];
      p[n].t.data = t->data + (uint64_t)e * p[n].t.bytes;
      p[n].t.n_dims = 2;
    }
    if (!nm__hf_from_gguf(f, gguf, p[n].name, sizeof p[n].name, &p[n].change)) return 0;
  }
  return n;
}

static void put_piece(const struct nm__gguf *g, struct nm__st_writer *w, const struct piece *p) {
  const struct nm__gguf_tensor *t = &p->t;
  bool matrix = t->n_dims == 2;
  nm_err err = {0};
  uint8_t *out = malloc(t->bytes);
  nm__hf_apply(p->change, false, nm__hf_n_head(g, t->name), t->type, matrix ? t->ne[1] : t->ne[0],
               matrix ? t->ne[0] : 1, t->data, out);
  if (nm__st_data(w, out, t->bytes, &err)) fail_msg("%s", err.text);
  free(out);
}

/* Tensors first, first + step, ... as one file; `map` learns where they are. */
static void write_weights(const struct nm__gguf *g, const char *file, size_t first, size_t step,
                          json_t *map) {
  struct piece *p = calloc(16 * g->n_tensors, sizeof *p);
  struct nm__st_writer *w;
  nm_err err = {0};
  size_t n = 0;
  assert_int_equal(nm__st_writer_new(&w, &err), 0);
  nm__st_put(w, "format", "pt");
  for (size_t i = first; i < g->n_tensors; i += step)
    n += pieces_of(nm__hf_family_of(g), &g->tensors[i], p + n);
  for (size_t i = 0; i < n; i++) {
    const struct nm__gguf_tensor *t = &p[i].t;
    int64_t shape[2] = {t->ne[1], t->ne[0]};
    if (p[i].change == NM__HF_TRANSPOSE) shape[0] = t->ne[0], shape[1] = t->ne[1];
    nm__st_announce(w, p[i].name, t->type, t->n_dims, t->n_dims == 2 ? shape : shape + 1);
    json_object_set_new(map, p[i].name, json_string(file));
  }
  if (nm__st_begin(w, in_dir(file), &err)) fail_msg("%s", err.text);
  for (int64_t i; (i = nm__st_next(w)) >= 0;) put_piece(g, w, &p[i]);
  if (nm__st_finish(w, &err)) fail_msg("%s", err.text);
  nm__st_writer_free(w);
  free(p);
}

static void write_index(json_t *map) {
  json_t *o = json_pack("{s:{s:i}, s:O}", "metadata", "total_size", 1, "weight_map", map);
  char *s = json_dumps(o, 0);
  put_text("model.safetensors.index.json", s, strlen(s));
  free(s);
  json_decref(o);
}

static void clear(void) {
  static const char *const names[] = {"config.json", "model.safetensors", "a.safetensors",
                                      "b.safetensors", "model.safetensors.index.json"};
  for (int i = 0; i < 5; i++) unlink(in_dir(names[i]));
}

static struct nm__gguf *open_gguf(const char *path) {
  struct nm__gguf *g;
  nm_err err = {0};
  if (nm__gguf_open(path, &g, &err)) fail_msg("%s", err.text);
  return g;
}

static struct rows all_of(const nm_model *m) {
  static const int32_t ids[] = {1, 5, 2, 9, 30, 7, 7, 3};
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  struct rows r = tap_one(e, ids, 8, m->arch->encoder ? "*.resid_post" : "logits|*.attn.q|*.attn.k",
                          "all", NULL);
  nm_engine_free(e);
  return r;
}

static void same_model(const char *path, const char *gguf) {
  nm_model *a = open_model(path), *b = open_model(gguf);
  struct rows x = all_of(a), y = all_of(b);
  assert_same_rows(&x, &y, gguf);
  rows_done(&x);
  rows_done(&y);
  nm_model_close(a);
  nm_model_close(b);
}

/* The control of random weights can be drawn in the shape of a directory. */
static void random_like_runs(void) {
  nm_err err = {0};
  if (nm__write_random_like(dir, 3, in_dir("random.gguf"), NULL, &err)) fail_msg("%s", err.text);
  nm_model *m = open_model(in_dir("random.gguf"));
  struct rows r = all_of(m);
  assert_true(r.n > 0);
  rows_done(&r);
  nm_model_close(m);
  unlink(in_dir("random.gguf"));
}

/* Written as a directory and opened again, a model is the same, to the bit. */
static void round_trip(const char *path) {
  struct nm__gguf *g = open_gguf(path);
  json_t *map = json_object();
  clear();
  write_config(g);
  write_weights(g, "model.safetensors", 0, 1, map);
  same_model(dir, path);
  random_like_runs();
  json_decref(map);
  nm__gguf_close(g);
}

static void planted_round_trip(void **state) {
  (void)state;
  round_trip(PLANTED);
  same_model(in_dir("config.json"), PLANTED);
  same_model(in_dir("model.safetensors"), PLANTED);
  char slash[80];
  snprintf(slash, sizeof slash, "%s//", dir);
  nm_model *m = open_model(slash);
  nm_model_info i;
  nm_model_describe(m, &i);
  assert_string_equal(i.path, dir);
  assert_string_equal(i.name, nm__path_base(dir));
  nm_model_close(m);
}

static void all_round_trips(void **state) {
  (void)state;
  static const char *const names[] = {"llama",
                                      "llama-tied",
                                      "llama-rope-linear",
                                      "llama-rope-yarn",
                                      "llama-rope-llama3",
                                      "qwen2",
                                      "qwen3",
                                      "gemma",
                                      "gemma2",
                                      "gemma3",
                                      "olmo2",
                                      "phi3",
                                      "phi3-longrope",
                                      "gptneox",
                                      "gptneox-sequential",
                                      "gpt2",
                                      "bert",
                                      "nomic-bert"};
  if (no_shared()) skip();
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char path[120];
    snprintf(path, sizeof path, SHARED "models/arch/%s/model.gguf", names[i]);
    round_trip(path);
  }
  round_trip(SHARED "models/arch/mixtral/model.gguf");
  round_trip(SHARED "reference/qwen2moe/model.gguf");
  round_trip(SHARED "reference/mixtral/model.gguf");
  round_trip(SHARED "reference/llama-linear-bias/model.gguf");
  round_trip(SHARED "reference/llama3-rope/model.gguf");
  round_trip(SHARED "reference/gemma3/model.gguf");
  round_trip(SHARED "reference/phi3/model.gguf");
}

/* What a made GGUF says must still be done makes the GGUF's own bytes. */
static void pending_rows(void **state) {
  (void)state;
  round_trip(PLANTED);
  struct nm__gguf *want = open_gguf(PLANTED), *g;
  nm_err err = {0};
  if (nm__model_map(dir, &g, &err)) fail_msg("%s", err.text);
  int moved = 0;
  for (size_t i = 0; i < want->n_tensors; i++) {
    const struct nm__gguf_tensor *a = &want->tensors[i], *b = nm__gguf_tensor(g, a->name);
    int n_head;
    assert_true(b && b->bytes == a->bytes && b->type == a->type);
    enum nm__hf_change c = nm__hf_pending(g, b, &n_head);
    uint8_t *out = malloc(b->bytes);
    nm__hf_apply(c, true, n_head, b->type, b->ne[1], b->ne[0], b->data, out);
    assert_memory_equal(out, a->data, a->bytes);
    moved += c == NM__HF_ROTARY && memcmp(b->data, a->data, a->bytes);
    assert_int_equal(nm__hf_pending(want, a, &n_head), NM__HF_SAME);
    free(out);
  }
  assert_true(moved > 0);
  nm__gguf_close(want);
  nm__gguf_close(g);
}

/* Padding that is missing puts tensors at odd places; they are read all the same. */
static void unaligned(void **state) {
  (void)state;
  round_trip(PLANTED);
  struct nm__map m;
  uint64_t n;
  assert_int_equal(nm__map_open(in_dir("model.safetensors"), &m, NULL), 0);
  memcpy(&n, m.data, 8);
  char *b = malloc(m.size + 3);
  memcpy(b, m.data, 8 + n);
  memcpy(b + 8 + n, "   ", 3);
  memcpy(b + 8 + n + 3, m.data + 8 + n, m.size - 8 - n);
  n += 3;
  memcpy(b, &n, 8);
  put_text("model.safetensors", b, m.size + 3);
  nm__map_close(&m);
  free(b);
  same_model(dir, PLANTED);
}

/* ---- several files ----------------------------------------------------------- */

static void open_refused(const char *path, const char *why) {
  nm_model *m;
  nm_err err = {0};
  int st = nm_model_open(path, &m, &err);
  if (st != NM_EFORMAT || !strstr(err.text, why))
    fail_msg("status %d, '%s', expected '%s'", st, err.text, why);
}

static void place(json_t *map, const char *tensor, const char *file, const char *why) {
  json_t *copy = json_copy(map);
  if (file)
    json_object_set_new(copy, tensor, json_string(file));
  else
    json_object_del(copy, tensor);
  write_index(copy);
  open_refused(dir, why);
  json_decref(copy);
}

static void several_files(void **state) {
  (void)state;
  struct nm__gguf *g = open_gguf(PLANTED);
  json_t *map = json_object();
  static const char *const outside[] = {
      "../a.safetensors", "/a.safetensors", "x/a.safetensors", "..\\a.safetensors", "..", "",
      ".safetensors",     "a.bin",          ".a.safetensors"};
  const char *t = "model.norm.weight";
  clear();
  write_config(g);
  open_refused(dir, "holds neither");
  write_weights(g, "a.safetensors", 0, 2, map);
  write_weights(g, "b.safetensors", 1, 2, map);
  write_index(map);
  same_model(dir, PLANTED);
  same_model(in_dir("model.safetensors.index.json"), PLANTED);
  const char *here = json_string_value(json_object_get(map, t));
  place(map, t, *here == 'a' ? "b.safetensors" : "a.safetensors", "which does not hold it");
  place(map, t, NULL, "lies nowhere");
  place(map, "more", "a.safetensors", "'more' is said to lie in a.safetensors");
  place(map, t, "c.safetensors", "c.safetensors: cannot be opened");
  for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
    place(map, t, outside[i], "not the name of a safetensors file");
  put_text("model.safetensors.index.json", "{\"weight_map\":{}}", 17);
  open_refused(dir, "has no weight_map");
  put_text("model.safetensors.index.json", "{\"weight_map\":[]}", 17);
  open_refused(dir, "has no weight_map");
  put_text("model.safetensors.index.json", "{\"weight_map\":{\"a\":1}}", 22);
  open_refused(dir, "(no name)");
  /* The same tensor in both files. */
  json_t *other = json_object();
  write_weights(g, "b.safetensors", 0, 1, other);
  write_index(map);
  open_refused(dir, "of which the index says that it lies in a.safetensors");
  json_decref(other);
  json_decref(map);
  nm__gguf_close(g);
}

/* ---- tensors that do not fit -------------------------------------------------------- */

static void one_tensor(const char *name, uint32_t type, int n_dims, int64_t ne, const char *why) {
  struct nm__st_writer *w;
  nm_err err = {0};
  uint8_t zeros[4096] = {0};
  int64_t bytes = nm__dtype(type)->bytes;
  for (int i = 0; i < n_dims; i++) bytes *= ne;
  assert_int_equal(nm__st_writer_new(&w, &err), 0);
  nm__st_announce(w, name, type, n_dims, (int64_t[]){ne, ne, ne, ne, ne});
  assert_int_equal(nm__st_begin(w, in_dir("model.safetensors"), &err), 0);
  assert_int_equal(nm__st_data(w, zeros, (size_t)bytes, &err), 0);
  assert_int_equal(nm__st_finish(w, &err), 0);
  nm__st_writer_free(w);
  open_refused(dir, why);
}

static void misfits(void **state) {
  (void)state;
  const char *gpt2 = "{\"model_type\":\"gpt2\",\"n_embd\":4,\"n_head\":2}";
  const char *neox = "{\"model_type\":\"gpt_neox\",\"hidden_size\":8,\"num_attention_heads\":2,"
                     "\"rotary_pct\":1.0}";
  clear();
  open_refused(dir, "is a folder without config.json");
  put_text("config.json", gpt2, strlen(gpt2));
  one_tensor("h.0.attn.c_attn.weight", NM__F32, 1, 4, "must be a matrix");
  one_tensor("h.0.attn.c_attn.weight", NM__F32, 3, 4, "must be a matrix");
  one_tensor("wte.weight", NM__F32, 5, 1, "in 5 dimensions");
  one_tensor("wte.weight", NM__F32, 0, 1, "in 0 dimensions");
  one_tensor("h.0.attn.q_attn.weight", NM__F32, 1, 4, "not one that a model of type gpt2 has");
  one_tensor("wte.weight", NM__F32, 2, 4, "12 blocks are announced");
  put_text("config.json", neox, strlen(neox));
  one_tensor("embed_in.weight", NM__F32, 1, 4, "holds no embed_out.weight");
  one_tensor("layers.0.attention.query_key_value.bias", NM__F32, 1, 4, "three rows a head");
  unlink(in_dir("model.safetensors"));
  put_text("pytorch_model.bin", "", 0);
  open_refused(dir, "save the model as safetensors");
  unlink(in_dir("pytorch_model.bin"));
}

/* ---- damage ------------------------------------------------------------------------- */

static int attempt(nm_err *err) {
  static const int32_t ids[] = {1, 0, 1};
  nm_model *m;
  nm_engine *e = NULL;
  struct rows r = {0};
  nm_seq s = {ids, 3};
  nm_tap tap = {"logits", "last"};
  int st = nm_model_open(dir, &m, err);
  if (st) return assert_null(m), st;
  st = nm_engine_new(m, &(nm_engine_opts){.threads = 1, .n_ctx = 8}, &e, err);
  if (!st)
    st = try_rows(e, (nm_request){.seqs = &s, .n_seqs = 1, .taps = &tap, .n_taps = 1}, &r, err);
  rows_done(&r);
  nm_engine_free(e);
  nm_model_close(m);
  return st;
}

/* Bytes of the first `n` changed, swapped, cut off; every one of the texts is opened. */
static void damage(const char *name, size_t n, uint64_t seed, int times) {
  struct nm__map map;
  int n_ran = 0;
  assert_int_equal(nm__map_open(in_dir(name), &map, NULL), 0);
  n = n < map.size ? n : map.size;
  char *good = malloc(map.size), *b = malloc(map.size);
  size_t size = map.size;
  memcpy(good, map.data, size);
  nm__map_close(&map);
  for (int i = 0; i < times; i++) {
    struct nm__rng r = {.seed = seed, .stream = (uint64_t)i};
    size_t cut = i % 16 ? size : nm__rng_below(&r, size);
    memcpy(b, good, size);
    for (uint64_t k = nm__rng_below(&r, 2) + 1; k; k--)
      b[nm__rng_below(&r, n)] = i % 3 ? good[nm__rng_below(&r, n)] : (char)nm__rng_u64(&r);
    FILE *f = fopen(in_dir(name), "wb");
    fwrite(b, 1, cut, f);
    fclose(f);
    nm_err err = {0};
    int st = attempt(&err);
    n_ran += !st;
    if (st && (!err.text[0] || err.status != st || st == NM_EUSAGE))
      fail_msg("%s: status %d, '%s'", name, st, err.text);
  }
  put_text(name, good, size);
  free(good);
  free(b);
  print_message("measured: %s: %d of %d damaged files still run\n", name, n_ran, times);
  assert_true(n_ran > 0 && n_ran < times);
}

static void damaged(void **state) {
  (void)state;
  struct nm__gguf *g = open_gguf(PLANTED);
  json_t *map = json_object();
  round_trip(PLANTED);
  damage("config.json", SIZE_MAX, 51, 10000);
  damage("model.safetensors", 8192, 52, 10000);
  unlink(in_dir("model.safetensors"));
  write_weights(g, "a.safetensors", 0, 2, map);
  write_weights(g, "b.safetensors", 1, 2, map);
  write_index(map);
  damage("model.safetensors.index.json", SIZE_MAX, 53, 10000);
  json_decref(map);
  nm__gguf_close(g);
}

static int begin(void **state) {
  (void)state;
  snprintf(dir, sizeof dir, "/tmp/noema_hf_test.%ld", (long)getpid());
  return mkdir(dir, 0777);
}

static int end(void **state) {
  (void)state;
  clear();
  return rmdir(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(planted_round_trip),
      cmocka_unit_test(all_round_trips),
      cmocka_unit_test(pending_rows),
      cmocka_unit_test(unaligned),
      cmocka_unit_test(several_files),
      cmocka_unit_test(misfits),
      cmocka_unit_test(damaged),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
