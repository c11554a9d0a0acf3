/* convert_tok.c - the tokenizer of a model that is written again. To GGUF: a tokenizer.json is
 * also said in the keys other engines read. To a directory: the tokenizer.json that was kept, or a
 * SentencePiece tokenizer.model or a byte-level tokenizer.json made of the keys. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/convert.h"
#include "text/hf_keys.h"

/* ---- to GGUF --------------------------------------------------------------------- */

int nm__convert_tokenizer(struct nm__plan *p, struct nm__gguf **more, nm_err *err) {
  nm_err warn = {0};
  *more = NULL;
  if (!nm__gguf_find(p->g, "tokenizer.huggingface.json") ||
      nm__gguf_find(p->g, "tokenizer.ggml.model"))
    return NM_OK;
  int st = nm__gguf_new(p->g->path, "GGUF", more, err);
  if (!st) st = nm__hf_tokenizer_to_ggml(p->g, *more, &warn, err);
  if (warn.status || *warn.text)
    snprintf(p->warning, sizeof p->warning, "other engines will not find the tokenizer: %.180s",
             warn.text);
  return st;
}

/* ---- SentencePiece ------------------------------------------------------------------
 *
 * A protocol buffer: fields of (number << 3 | kind), kind 0 a varint, 2 bytes behind their
 * length, 5 four bytes. */

static void varint(struct nm__buf *b, uint64_t v) {
  for (; v > 127; v >>= 7) nm__buf_putc(b, (int)(v & 127) | 128);
  nm__buf_putc(b, (int)v);
}

static void field(struct nm__buf *b, int number, const void *s, size_t n) {
  varint(b, (uint64_t)number << 3 | 2);
  varint(b, n);
  nm__buf_put(b, s, n);
}

static void number(struct nm__buf *b, int field_number, uint64_t v) {
  varint(b, (uint64_t)field_number << 3);
  varint(b, v);
}

static bool flag(const struct nm__gguf *g, const char *key, bool absent) {
  bool v;
  const struct nm__gguf_kv *kv = nm__gguf_find(g, key);
  return kv && !nm__gguf_bool(g, key, &v, NULL) ? v : absent;
}

static void put_pieces(const struct nm__gguf *g, const struct nm__gguf_kv *tokens,
                       struct nm__buf *out, struct nm__buf *one) {
  const struct nm__gguf_kv *scores = nm__gguf_find(g, "tokenizer.ggml.scores"),
                           *types = nm__gguf_find(g, "tokenizer.ggml.token_type");
  for (uint64_t i = 0; i < tokens->n; i++) {
    double score = 0;
    int64_t type = 1;
    if (scores) nm__gguf_float_at(scores, i, &score);
    if (types) nm__gguf_int_at(types, i, &type);
    float f = (float)score;
    nm__buf_reset(one);
    field(one, 1, tokens->strings[i].s, tokens->strings[i].n);
    varint(one, 2 << 3 | 5);
    nm__buf_put(one, &f, 4);
    if (type != 1) number(one, 3, (uint64_t)type);
    field(out, 1, one->s, one->len);
  }
}

/* trainer_spec and normalizer_spec: BPE with bytes for what no piece has. */
static void put_specs(const struct nm__gguf *g, struct nm__buf *out, struct nm__buf *one) {
  static const struct { const char *key; int number; } ids[] = {
      {"tokenizer.ggml.unknown_token_id", 40}, {"tokenizer.ggml.bos_token_id", 41},
      {"tokenizer.ggml.eos_token_id", 42}, {"tokenizer.ggml.padding_token_id", 43}};
  nm__buf_reset(one);
  number(one, 3, 2);
  number(one, 35, 1);
  for (int i = 0; i < 4; i++) {
    uint64_t v;
    const struct nm__gguf_kv *kv = nm__gguf_find(g, ids[i].key);
    if (kv && !nm__gguf_uint(g, ids[i].key, &v, NULL)) number(one, ids[i].number, v);
    else if (i == 1 || i == 2) number(one, ids[i].number, UINT64_MAX);   /* -1: there is none */
  }
  field(out, 2, one->s, one->len);
  nm__buf_reset(one);
  field(one, 1, "identity", 8);
  number(one, 3, flag(g, "tokenizer.ggml.add_space_prefix", true));
  number(one, 4, flag(g, "tokenizer.ggml.remove_extra_whitespaces", false));
  number(one, 5, 1);
  field(out, 3, one->s, one->len);
}

static int write_text(const struct nm__plan *p, const char *name, const char *s, size_t n,
                      nm_err *err) {
  char *path = nm__path_join(p->o->out, name);
  int st = path ? nm__write_file(path, s, n, err) : nm__fail_memory(err, "a path", 0);
  free(path);
  return st;
}

static int write_buf(const struct nm__plan *p, const char *name, struct nm__buf *b, nm_err *err) {
  int st = b->failed ? nm__fail_memory(err, name, b->len) : write_text(p, name, b->s, b->len, err);
  nm__buf_done(b);
  return st;
}

static int write_pieces(const struct nm__plan *p, const struct nm__gguf_kv *tokens, nm_err *err) {
  struct nm__buf out, one;
  nm__buf_init(&out, (size_t)1 << 30);
  nm__buf_init(&one, (size_t)1 << 20);
  put_pieces(p->g, tokens, &out, &one);
  put_specs(p->g, &out, &one);
  nm__buf_done(&one);
  return write_buf(p, "tokenizer.model", &out, err);
}

/* ---- byte-level BPE: a tokenizer.json ------------------------------------------------- */

static json_t *text_of(struct nm__str s) { return json_stringn(s.s, s.n); }

/* The steps of a pre-tokenizer as the library's components. */
static json_t *pre_tokenizer(const char *steps) {
  json_t *v = json_array();
  for (const char *at = steps; *at;) {
    size_t n = strcspn(at, "\n");
    json_t *o;
    if (!strncmp(at, "bytes", 5))
      o = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                    "trim_offsets", 1, "use_regex", n > 5);
    else if (n == 5 && !strncmp(at, "digit", 5))
      o = json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1);
    else
      o = json_pack("{s:s, s:{s:s%}, s:s, s:b}", "type", "Split", "pattern", "Regex", at, n,
                    "behavior", "Isolated", "invert", 0);
    json_array_append_new(v, o);
    at += n + (at[n] == '\n');
  }
  return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", v);
}

/* Tokens in two lists: those of the merges, and those that stand in the text as they are. */
static bool put_tokens(const struct nm__gguf *g, const struct nm__gguf_kv *tokens, json_t *vocab,
                       json_t *added) {
  const struct nm__gguf_kv *types = nm__gguf_find(g, "tokenizer.ggml.token_type");
  bool good = true;
  for (uint64_t i = 0; i < tokens->n && good; i++) {
    int64_t type = 1;
    json_t *id = json_integer((json_int_t)i);
    char *name = nm__strndup(tokens->strings[i].s, tokens->strings[i].n);
    if (types) nm__gguf_int_at(types, i, &type);
    good = id && name;
    if (good && (type == 3 || type == 4)) {
      json_t *o = json_pack("{s:O, s:o, s:b, s:b, s:b, s:b, s:b}", "id", id, "content",
                            text_of(tokens->strings[i]), "single_word", 0, "lstrip", 0, "rstrip", 0,
                            "normalized", 0, "special", type == 3);
      good = o && !json_array_append_new(added, o);
    } else if (good && type != 5) {
      good = !json_object_set(vocab, name, id);
    }
    json_decref(id);
    free(name);
  }
  return good;
}

/* False when a token or merge is no UTF-8, which JSON cannot hold. */
static bool whole_tokenizer(const struct nm__gguf *g, const struct nm__gguf_kv *tokens,
                            const struct nm__gguf_kv *merges, const char *steps, bool whole_first,
                            json_t **out) {
  json_t *vocab = json_object(), *added = json_array(), *list = json_array();
  bool good = vocab && added && list && put_tokens(g, tokens, vocab, added);
  for (uint64_t i = 0; good && i < merges->n; i++)
    good = !json_array_append_new(list, text_of(merges->strings[i]));
  *out = json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:n, s:{s:s, s:b, s:b, s:b}, s:{s:s, s:n, s:n, "
                   "s:n, s:n, s:b, s:b, s:b, s:o, s:o}}",
                   "version", "1.0", "truncation", "padding", "added_tokens", added, "normalizer",
                   "pre_tokenizer", pre_tokenizer(steps), "post_processor", "decoder", "type",
                   "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 1, "model",
                   "type", "BPE", "dropout", "unk_token", "continuing_subword_prefix",
                   "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0, "ignore_merges",
                   whole_first, "vocab", vocab, "merges", list);
  return good && *out;
}

static int write_bytes(const struct nm__plan *p, const struct nm__gguf_kv *tokens,
                       const struct nm__gguf_kv *merges, const char *steps, bool whole_first,
                       nm_err *err) {
  json_t *j = NULL;
  bool good = whole_tokenizer(p->g, tokens, merges, steps, whole_first, &j);
  char *text = good ? json_dumps(j, JSON_INDENT(1)) : NULL;
  int st = !good  ? nm__fail(err, NM_EFORMAT, "%s: a token or merge is no UTF-8: no tokenizer.json "
                             "can be made of it", p->g->path)
           : text ? write_text(p, "tokenizer.json", text, strlen(text), err)
                  : nm__fail_memory(err, "tokenizer.json", tokens->n);
  free(text);
  json_decref(j);
  return st;
}

/* ---- to a directory ----------------------------------------------------------------------- */

static void set_text(json_t *j, const char *name, struct nm__str s) {
  json_t *v = json_stringn(s.s, s.n);              /* NULL where it is no UTF-8 */
  if (v) json_object_set_new(j, name, v);
}

static void set_flag(const struct nm__gguf *g, json_t *j, const char *key, const char *name) {
  bool v;
  if (nm__gguf_find(g, key) && !nm__gguf_bool(g, key, &v, NULL))
    json_object_set_new(j, name, json_boolean(v));
}

/* tokenizer_config.json: the special tokens by their text, and the template of a chat. */
static int write_config(const struct nm__plan *p, const char *class_name,
                        const struct nm__gguf_kv *tokens, nm_err *err) {
  static const char *const ids[][2] = {{"bos_token_id", "bos_token"}, {"eos_token_id", "eos_token"},
                                       {"unknown_token_id", "unk_token"},
                                       {"padding_token_id", "pad_token"}};
  struct nm__str s;
  json_t *j = json_object();
  if (!j) return nm__fail_memory(err, "tokenizer_config.json", 0);
  json_object_set_new(j, "tokenizer_class", json_string(class_name));
  for (int i = 0; i < 4; i++) {
    char key[64];
    uint64_t id;
    snprintf(key, sizeof key, "tokenizer.ggml.%s", ids[i][0]);
    if (nm__gguf_find(p->g, key) && !nm__gguf_uint(p->g, key, &id, NULL) && tokens &&
        id < tokens->n)
      set_text(j, ids[i][1], tokens->strings[id]);
  }
  set_flag(p->g, j, "tokenizer.ggml.add_bos_token", "add_bos_token");
  set_flag(p->g, j, "tokenizer.ggml.add_eos_token", "add_eos_token");
  if (nm__gguf_find(p->g, "tokenizer.chat_template") &&
      !nm__gguf_string(p->g, "tokenizer.chat_template", &s, NULL))
    set_text(j, "chat_template", s);
  char *text = json_dumps(j, JSON_INDENT(2));
  json_decref(j);
  int st = text ? write_text(p, "tokenizer_config.json", text, strlen(text), err)
                : nm__fail_memory(err, "tokenizer_config.json", 0);
  free(text);
  return st;
}

static bool is(struct nm__str s, const char *text) {
  return s.n == strlen(text) && !memcmp(s.s, text, s.n);
}

int nm__write_tokenizer(struct nm__plan *p, nm_err *err) {
  const struct nm__gguf *g = p->g;
  struct nm__str s = {"", 0}, model = {"", 0}, pre = {"gpt-2", 5};
  const struct nm__gguf_kv *tokens = nm__gguf_find(g, "tokenizer.ggml.tokens"),
                           *merges = nm__gguf_find(g, "tokenizer.ggml.merges");
  nm__gguf_string(g, "tokenizer.ggml.model", &model, NULL);
  nm__gguf_string(g, "tokenizer.ggml.pre", &pre, NULL);
  if (tokens && !tokens->strings) tokens = NULL;
  bool whole = !nm__gguf_string(g, "tokenizer.huggingface.json", &s, NULL);
  bool pieces = !whole && is(model, "llama") && tokens;
  bool bpe = !whole && is(model, "gpt2") && tokens && merges && merges->strings;
  bool whole_first = false;
  const char *steps = bpe ? nm__hf_pre_steps(pre, &whole_first) : NULL;
  if (!whole && !pieces && !steps) {
    if (model.n && tokens)
      snprintf(p->warning, sizeof p->warning, "no tokenizer was written: %.40s with pre-tokenizer "
               "'%.40s' has no files in a Hugging Face directory yet; bring a tokenizer.json",
               is(model, "gpt2") ? "gpt2" : is(model, "bert") ? "bert" : "this family",
               pre.n < 40 ? nm__printable((char[42]){0}, 42, pre.s, pre.n) : "");
    return NM_OK;
  }
  int st = whole    ? write_text(p, "tokenizer.json", s.s, s.n, err)
           : pieces ? write_pieces(p, tokens, err)
                    : write_bytes(p, tokens, merges, steps, whole_first, err);
  const char *name = pieces ? "LlamaTokenizer" : "PreTrainedTokenizerFast";
  return st ? st : write_config(p, name, tokens, err);
}
