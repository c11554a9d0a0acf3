/* hf_slow.c - vocab.json with merges.txt, or vocab.txt, as the tokenizer.json that the
 * library's converters make of them. */
#define _GNU_SOURCE
#include "text/hf_slow.h"

#include <string.h>

#define QWEN2 "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" \
              "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CLIP "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"

static bool says(const json_t *config, const char *name, bool otherwise) {
  const json_t *v = json_object_get(config, name);
  return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

/* A token is given as its text, or as an object with it. */
static const char *token(const json_t *config, const char *name, const char *otherwise) {
  const json_t *v = json_object_get(config, name);
  if (json_is_object(v)) v = json_object_get(v, "content");
  return json_is_string(v) ? json_string_value(v) : otherwise;
}

static json_t *pair_of(const json_t *vocab, const char *text) {
  json_int_t id = json_integer_value(json_object_get(vocab, text));
  return json_pack("[s, I]", text, id);
}

/* "a b" a line; the first may name a version. */
static json_t *read_merges(const char *path, struct nm__str text, nm_err *err) {
  json_t *list = json_array();
  const char *s = text.s, *end = text.s + text.n;
  for (int line = 1; s < end; line++) {
    const char *stop = memchr(s, '\n', (size_t)(end - s));
    size_t n = stop ? (size_t)(stop - s) : (size_t)(end - s);
    size_t len = n && s[n - 1] == '\r' ? n - 1 : n;
    json_t *m = len == 0 || memmem(s, len, "#version", 8) == s ? NULL : json_stringn(s, len);
    bool skip = len == 0 || memmem(s, len, "#version", 8) == s;
    if (!skip && (!m || json_array_append_new(list, m))) {
      nm__fail(err, NM_EFORMAT, "%s: line %d of merges.txt is not UTF-8", path, line);
      json_decref(list);
      return NULL;
    }
    s += n + (stop != NULL);
  }
  return list;
}

/* The tokens that tokenizer_config.json adds: {"151643": {"content": ...}, ...}; in the
 * order of their ids, which is what numbers them. */
static json_t *read_added(const json_t *config) {
  json_t *list = json_array(), *all = json_object_get(config, "added_tokens_decoder"), *v;
  const char *key;
  json_object_foreach(all, key, v) {
    json_t *copy = json_copy(v);
    long long id = 0;
    for (const char *p = key; *p >= '0' && *p <= '9' && id < INT32_MAX; p++)
      id = 10 * id + (*p - '0');
    if (!json_is_object(copy)) {
      json_decref(copy);
      continue;
    }
    json_object_set_new(copy, "id", json_integer(id));
    size_t at = json_array_size(list);
    while (at && json_integer_value(json_object_get(json_array_get(list, at - 1), "id")) > id) at--;
    json_array_insert_new(list, at, copy);
  }
  return list;
}

static json_t *byte_level(bool prefix, bool regex) {
  return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", prefix,
                   "trim_offsets", 0, "use_regex", regex);
}

static json_t *split(const char *pattern, const char *behavior, bool invert) {
  return json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", pattern,
                   "behavior", behavior, "invert", invert);
}

static json_t *two(const char *members, json_t *a, json_t *b) {
  return json_pack("{s:s, s:[o, o]}", "type", "Sequence", members, a, b);
}

static json_t *whole(json_t *normalizer, json_t *pre, json_t *post, json_t *decoder, json_t *model,
                     const json_t *config) {
  return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "added_tokens",
                   read_added(config), "normalizer", normalizer, "pre_tokenizer", pre,
                   "post_processor", post, "decoder", decoder, "model", model);
}

static json_t *frame_by(const char *type, const json_t *vocab, const char *cls, const char *sep) {
  if (!json_object_get(vocab, cls) || !json_object_get(vocab, sep)) return json_null();
  json_t *o = json_pack("{s:s, s:o, s:o}", "type", type, "cls", pair_of(vocab, cls), "sep",
                        pair_of(vocab, sep));
  if (strcmp(type, "RobertaProcessing") == 0) {
    json_object_set_new(o, "trim_offsets", json_true());
    json_object_set_new(o, "add_prefix_space", json_false());
  }
  return o;
}

static bool is_kind(const char *kind, const char *part) { return strcasestr(kind, part) != NULL; }

json_t *nm__hf_from_vocab_json(const char *path, const json_t *vocab, struct nm__str merges,
                               const json_t *config, const char *kind, nm_err *err) {
  json_t *list = read_merges(path, merges, err);
  if (!list) return NULL;
  json_t *model = json_pack("{s:s, s:O, s:o}", "type", "BPE", "vocab", vocab, "merges", list);
  bool prefix = says(config, "add_prefix_space", false);
  json_t *norm = json_null(), *pre, *post = json_null();
  if (is_kind(kind, "clip")) {
    const char *end = token(config, "eos_token", "<|endoftext|>");
    json_object_set_new(model, "end_of_word_suffix", json_string("</w>"));
    json_object_set_new(model, "unk_token", json_string(token(config, "unk_token", end)));
    json_t *spaces = json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "Regex",
                               "\\s+", "content", " ");
    norm = json_pack("{s:s, s:[{s:s}, o, {s:s}]}", "type", "Sequence", "normalizers", "type",
                     "NFC", spaces, "type", "Lowercase");
    pre = two("pretokenizers", split(CLIP, "Removed", true), byte_level(false, false));
    post = frame_by("RobertaProcessing", vocab, token(config, "bos_token", "<|startoftext|>"), end);
  } else if (is_kind(kind, "qwen")) {
    norm = json_pack("{s:s}", "type", "NFC");
    pre = two("pretokenizers", split(QWEN2, "Isolated", false), byte_level(prefix, false));
  } else {
    pre = byte_level(prefix, true);
    if (is_kind(kind, "roberta") || is_kind(kind, "bart") || is_kind(kind, "longformer"))
      post = frame_by("RobertaProcessing", vocab, token(config, "cls_token", "<s>"),
                      token(config, "sep_token", "</s>"));
  }
  json_t *o = whole(norm, pre, post, byte_level(true, true), model, config);
  if (!o) nm__fail_memory(err, "a tokenizer", merges.n);
  return o;
}

static json_t *read_lines(struct nm__str text, nm_err *err) {
  json_t *vocab = json_object();
  const char *s = text.s, *end = text.s + text.n;
  for (json_int_t id = 0; s < end; id++) {
    const char *stop = memchr(s, '\n', (size_t)(end - s));
    size_t n = stop ? (size_t)(stop - s) : (size_t)(end - s), len = n;
    while (len && strchr(" \t\r\v\f", s[len - 1])) len--;
    if (json_object_setn_new(vocab, s, len, json_integer(id))) {
      nm__fail(err, NM_EFORMAT, "line %lld of vocab.txt is not UTF-8", (long long)id + 1);
      json_decref(vocab);
      return NULL;
    }
    s += n + (stop != NULL);
  }
  return vocab;
}

json_t *nm__hf_from_vocab_txt(struct nm__str lines, const json_t *config, nm_err *err) {
  json_t *vocab = read_lines(lines, err);
  if (!vocab) return NULL;
  bool lower = says(config, "do_lower_case", true);
  const json_t *accents = json_object_get(config, "strip_accents");
  json_t *post = frame_by("BertProcessing", vocab, token(config, "cls_token", "[CLS]"),
                          token(config, "sep_token", "[SEP]"));
  json_t *norm = json_pack("{s:s, s:b, s:b, s:b, s:o}", "type", "BertNormalizer", "clean_text", 1,
                           "handle_chinese_chars", says(config, "tokenize_chinese_chars", true),
                           "lowercase", lower, "strip_accents",
                           json_is_boolean(accents) ? json_boolean(json_is_true(accents))
                                                    : json_null());
  json_t *model = json_pack("{s:s, s:s, s:s, s:i, s:o}", "type", "WordPiece", "unk_token",
                            token(config, "unk_token", "[UNK]"), "continuing_subword_prefix", "##",
                            "max_input_chars_per_word", 100, "vocab", vocab);
  json_t *decoder = json_pack("{s:s, s:s, s:b}", "type", "WordPiece", "prefix", "##", "cleanup", 1);
  json_t *o = whole(norm, json_pack("{s:s}", "type", "BertPreTokenizer"), post, decoder, model,
                    config);
  /* The special tokens are cut out of a text, as the config's would be. */
  json_t *list = json_object_get(o, "added_tokens");
  static const char *const names[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
  for (size_t i = 0; list && json_array_size(list) == i && i < 5; i++) {
    const json_t *id = json_object_get(json_object_get(json_object_get(o, "model"), "vocab"),
                                       names[i]);
    if (!id) break;
    json_array_append_new(list, json_pack("{s:I, s:s, s:b, s:b}", "id", json_integer_value(id),
                                          "content", names[i], "special", 1, "normalized", 0));
  }
  if (!o) nm__fail_memory(err, "a tokenizer", lines.n);
  return o;
}
