/* hf_ggml.c - a tokenizer.json said in the tokenizer.ggml.* keys of GGUF.
 *
 * GGUF names a pre-tokenizer instead of spelling it out, and knows three of the models. So
 * a pipeline is compared with those that have a name; what has none stays a tokenizer.json. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/hf.h"
#include "text/hf_keys.h"

struct saying {
  struct nm__tok *t;
  const json_t *top;
  struct nm__gguf *to;
  struct nm__buf sign;             /* the pre-tokenizer in short */
  char why[200];                   /* what GGUF has no words for; "" so far */
  nm_err *err;
};

/* ---- the pre-tokenizer's name ------------------------------------------- */

#define CONTR "'s|'t|'re|'ve|'m|'ll|'d"
#define MODERN(digits) "(?i:" CONTR ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits \
                       "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3 MODERN("\\p{N}{1,3}")
#define QWEN2 MODERN("\\p{N}")
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(s) "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" s \
                 "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" s
#define TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Steps are parted by a newline: a pattern that isolates, digits, the bytes. */
static const struct { const char *sign, *pre; bool whole_first; } known[] = {
  {"bytes+gpt2", "gpt-2", false},
  {"digit\nbytes+gpt2", "starcoder", false},
  {LLAMA3 "\nbytes", "llama-bpe", true},
  {LLAMA3 "\nbytes", "dbrx", false},
  {QWEN2 "\nbytes", "qwen2", false},
  {CASED("(?i:" CONTR ")?") "|\\p{N}{1,3}" TAIL "\nbytes", "gpt-4o", false},
  {CASED("") "|\\p{N}" TAIL "\nbytes", "tekken", true},
};

const char *nm__hf_pre_steps(struct nm__str pre, bool *whole_first) {
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (strlen(known[i].pre) == pre.n && !memcmp(known[i].pre, pre.s, pre.n)) {
      *whole_first = known[i].whole_first;
      return known[i].sign;
    }
  return NULL;
}

static bool flag_is(const json_t *o, const char *name, bool value, bool absent) {
  const json_t *v = json_object_get(o, name);
  return (json_is_boolean(v) ? json_is_true(v) : absent) == value;
}

static const char *type_of(const json_t *o) {
  const char *s = json_string_value(json_object_get(o, "type"));
  return s ? s : "none";
}

static void sign_step(struct saying *s, const json_t *o) {
  const char *type = type_of(o), *pattern;
  const json_t *members = json_object_get(o, "pretokenizers");
  for (size_t i = 0; i < json_array_size(members); i++) sign_step(s, json_array_get(members, i));
  if (strcmp(type, "Sequence") == 0) return;
  if (s->sign.len) nm__buf_putc(&s->sign, '\n');
  pattern = json_string_value(json_object_get(json_object_get(o, "pattern"), "Regex"));
  const char *behavior = json_string_value(json_object_get(o, "behavior"));
  if (strcmp(type, "Split") == 0 && pattern && behavior && strcmp(behavior, "Isolated") == 0 &&
      flag_is(o, "invert", false, false))
    nm__buf_puts(&s->sign, pattern);
  else if (strcmp(type, "ByteLevel") == 0 && flag_is(o, "add_prefix_space", false, true))
    nm__buf_puts(&s->sign, flag_is(o, "use_regex", true, true) ? "bytes+gpt2" : "bytes");
  else if (strcmp(type, "Digits") == 0 && flag_is(o, "individual_digits", true, false))
    nm__buf_puts(&s->sign, "digit");
  else
    nm__buf_printf(&s->sign, "?%s", type);
}

static int no_words(struct saying *s, const char *what) {
  snprintf(s->why, sizeof s->why, "%s", what);
  return NM_OK;
}

/* ---- keys that all have ------------------------------------------------- */

static int add_text(struct saying *s, const char *key, const char *text) {
  return nm__gguf_add_string(s->to, key, text, strlen(text), s->err);
}

/* Holes get names that no text has, as other converters give them. */
static int add_tokens(struct saying *s, const struct nm__str *spelt) {
  const struct nm__tok *t = s->t;
  struct nm__str *v = nm__alloc((size_t)t->n, sizeof *v);
  int32_t *type = nm__alloc((size_t)t->n, sizeof *type);
  char (*hole)[24] = nm__alloc((size_t)t->n, sizeof *hole);
  int rc = v && type && hole ? NM_OK : nm__fail_memory(s->err, "the tokens", (size_t)t->n * 40);
  for (int32_t i = 0; i < t->n && !rc; i++) {
    const struct nm__piece *p = &t->piece[i];
    int32_t at = t->hf->added_at[i];
    int named = snprintf(hole[i], sizeof hole[i], "[PAD%d]", i);
    v[i] = spelt ? spelt[i] : nm__tok_piece(t, i);
    if (p->raw.n == 0) v[i] = (struct nm__str){hole[i], (size_t)named};
    type[i] = p->raw.n == 0 ? NM__TOK_UNUSED : at < 0 ? p->type
            : t->hf->added[at].special ? NM__TOK_CONTROL : NM__TOK_USER;
    for (int b = 0; t->hf->byte_fallback && b < 256; b++)
      if (t->byte[b] == i) type[i] = NM__TOK_BYTE;
    if (i == t->unk && strcmp(t->hf->model->name, "WordPiece"))
      type[i] = NM__TOK_UNKNOWN;
  }
  if (!rc) rc = nm__gguf_add_strings(s->to, "tokenizer.ggml.tokens", v, (size_t)t->n, s->err);
  if (!rc) rc = nm__gguf_add_i32s(s->to, "tokenizer.ggml.token_type", type, (size_t)t->n, s->err);
  free(v);
  free(type);
  free(hole);
  return rc;
}

static int add_id(struct saying *s, const char *key, int32_t id) {
  return id < 0 || nm__gguf_find(s->to, key) ? NM_OK
         : nm__gguf_add_u32(s->to, key, (uint32_t)id, s->err);
}

static int add_flag(struct saying *s, const char *key, bool v) {
  return nm__gguf_find(s->to, key) ? NM_OK : nm__gguf_add_bool(s->to, key, v, s->err);
}

/* What is put around a text: GGUF has one token on each side. */
static int add_frame(struct saying *s) {
  const struct nm__tok *t = s->t;
  int rc = add_id(s, "tokenizer.ggml.bos_token_id", t->bos);
  if (!rc) rc = add_id(s, "tokenizer.ggml.eos_token_id", t->eos);
  if (!rc) rc = add_id(s, "tokenizer.ggml.unknown_token_id", t->unk);
  if (!rc) rc = add_flag(s, "tokenizer.ggml.add_bos_token", t->add_bos);
  return rc ? rc : add_flag(s, "tokenizer.ggml.add_eos_token", t->add_eos);
}

static bool frame_fits(const struct nm__tok *t) {
  return t->hf->before.n <= 1 && t->hf->after.n <= 1 && t->add_bos == (t->hf->before.n == 1) &&
         t->add_eos == (t->hf->after.n == 1);
}

/* ---- byte-level BPE ---------------------------------------------------- */

static int add_merges(struct saying *s) {
  const json_t *list = json_object_get(json_object_get(s->top, "model"), "merges");
  size_t n = json_array_size(list);
  struct nm__str *v = nm__alloc(n + 1, sizeof *v);
  struct nm__buf all;
  nm__buf_init(&all, UINT32_MAX);
  nm__buf_puts(&all, "");
  for (size_t i = 0; i < n && v; i++) {
    const json_t *m = json_array_get(list, i), *a = json_array_get(m, 0), *b = json_array_get(m, 1);
    size_t at = all.len;
    if (!a) a = m;
    nm__buf_put(&all, json_string_value(a), json_string_length(a));
    if (b) nm__buf_putc(&all, ' ');
    if (b) nm__buf_put(&all, json_string_value(b), json_string_length(b));
    v[i] = (struct nm__str){NULL, all.len - at};
  }
  int rc = v && !all.failed ? NM_OK : nm__fail_memory(s->err, "the merges", all.len);
  for (size_t i = 0, at = 0; i < n && !rc; at += v[i++].n) v[i].s = all.s + at;
  if (!rc) rc = nm__gguf_add_strings(s->to, "tokenizer.ggml.merges", v, n, s->err);
  nm__buf_done(&all);
  free(v);
  return rc;
}

static int say_bytes(struct saying *s) {
  const struct nm__hf *h = s->t->hf;
  const char *pre = NULL;
  for (size_t i = 0; i < sizeof known / sizeof *known && !pre; i++)
    if (s->sign.len && strcmp(known[i].sign, s->sign.s) == 0 &&
        known[i].whole_first == h->ignore_merges) pre = known[i].pre;
  if (!pre) return no_words(s, "its pre-tokenizer has no name in GGUF");
  bool nfc = h->normalizer.n == 1 && strcmp(h->normalizer.v[0].kind->name, "NFC") == 0;
  if (h->normalizer.n && !nfc) return no_words(s, "its normalizer has no words in GGUF");
  if (h->byte_fallback || (h->prefix && *h->prefix) || (h->suffix && *h->suffix))
    return no_words(s, "its BPE marks parts of words, which GGUF has no words for");
  int rc = add_text(s, "tokenizer.ggml.model", "gpt2");
  if (!rc) rc = add_text(s, "tokenizer.ggml.pre", pre);
  if (!rc) rc = add_tokens(s, NULL);
  if (!rc) rc = add_merges(s);
  return rc ? rc : add_frame(s);
}

/* ---- BPE of SentencePiece's kind ---------------------------------------- */

/* By score it is the merged piece that has a rank, not the pair: all pairs of a piece must
 * stand together in the list, and every way to part it in two pieces must be there. */
static bool scores_fit(const struct nm__tok *t, float *score) {
  size_t n = (size_t)t->n;
  int64_t *lo = nm__alloc(n, sizeof *lo), *hi = nm__alloc(n, sizeof *hi);
  int64_t *count = nm__alloc(n, sizeof *count);
  bool ok = lo && hi && count;
  for (size_t i = 0; i < t->pairs.n_slots && ok; i++) {
    const struct nm__pair_slot *e = &t->pairs.slot[i];
    if (e->left < 0) continue;
    int32_t m = e->merged;
    if (!count[m] || e->rank < lo[m]) lo[m] = e->rank;
    if (!count[m] || e->rank > hi[m]) hi[m] = e->rank;
    count[m]++;
  }
  for (int32_t i = 0; i < t->n && ok; i++) {
    score[i] = count[i] ? -(float)lo[i] : 0;
    struct nm__span raw = t->piece[i].raw;
    if (t->piece[i].type != NM__TOK_NORMAL) continue;
    const char *p = nm__tok_bytes(t, raw);
    int64_t ways = 0;
    for (uint32_t k = 1; k < raw.n; k++)
      ways += nm__dict_get(&t->dict, t->pool.s, p, k) >= 0 &&
              nm__dict_get(&t->dict, t->pool.s, p + k, raw.n - k) >= 0;
    ok = ways == count[i] && (!ways || hi[i] - lo[i] + 1 == count[i]) && lo[i] < 1 << 24;
  }
  free(lo);
  free(hi);
  free(count);
  return ok;
}

static bool step_is(const struct nm__hf_step *s, const char *name, const char *text) {
  return strcmp(s->kind->name, name) == 0 && s->s && strcmp(s->s, text) == 0;
}

/* Spaces become U+2581, perhaps with one in front: *prefix says so. */
static bool escapes_spaces(const struct saying *s, bool *prefix) {
  const struct nm__hf_steps *v = &s->t->hf->normalizer;
  const json_t *o = json_object_get(s->top, "normalizer");
  const json_t *list = json_object_get(o, "normalizers");
  if (v->n < 1 || v->n > 2 || s->t->hf->pre_tokenizer.n) return false;
  if (list) o = json_array_get(list, json_array_size(list) - 1);
  const char *from = json_string_value(json_object_get(json_object_get(o, "pattern"), "String"));
  *prefix = v->n == 2;
  return from && strcmp(from, " ") == 0 && step_is(&v->v[v->n - 1], "Replace", NM__SPACE) &&
         (v->n == 1 || step_is(&v->v[0], "Prepend", NM__SPACE));
}

static int say_scored(struct saying *s) {
  struct nm__tok *t = s->t;
  bool prefix;
  if (!escapes_spaces(s, &prefix))
    return no_words(s, "its normalizer or pre-tokenizer is not SentencePiece's");
  float *score = nm__alloc((size_t)t->n, sizeof *score);
  if (!score) return nm__fail_memory(s->err, "the scores", (size_t)t->n * sizeof *score);
  int rc = NM_OK;
  if (!scores_fit(t, score)) {
    rc = no_words(s, "its merges do not follow from scores of pieces");
  } else {
    rc = add_text(s, "tokenizer.ggml.model", "llama");
    if (!rc) rc = add_tokens(s, NULL);
    if (!rc) rc = nm__gguf_add_f32s(s->to, "tokenizer.ggml.scores", score, (size_t)t->n, s->err);
    if (!rc) rc = add_flag(s, "tokenizer.ggml.add_space_prefix", prefix);
    if (!rc) rc = add_frame(s);
  }
  free(score);
  return rc;
}

/* ---- WordPiece --------------------------------------------------------- */

/* GGUF marks the beginnings of words, the original what goes on. */
static int add_words(struct saying *s) {
  const struct nm__tok *t = s->t;
  struct nm__str *v = nm__alloc((size_t)t->n, sizeof *v);
  struct nm__buf all;
  nm__buf_init(&all, UINT32_MAX);
  nm__buf_puts(&all, "");
  for (int32_t i = 0; i < t->n && v; i++) {
    struct nm__str raw = nm__tok_piece(t, i);
    bool special = t->piece[i].type != NM__TOK_NORMAL || t->hf->added_at[i] >= 0;
    bool goes_on = raw.n > 2 && memcmp(raw.s, "##", 2) == 0;
    size_t at = all.len;
    if (!special && !goes_on) nm__buf_puts(&all, NM__SPACE);
    nm__buf_put(&all, raw.s + (goes_on && !special ? 2 : 0), raw.n - (goes_on && !special ? 2 : 0));
    v[i].n = all.len - at;
  }
  int rc = v && !all.failed ? NM_OK : nm__fail_memory(s->err, "the tokens", all.len);
  size_t at = 0;
  for (int32_t i = 0; i < t->n && !rc; at += v[i++].n) v[i].s = all.s + at;
  if (!rc) rc = add_tokens(s, v);
  nm__buf_done(&all);
  free(v);
  return rc;
}

static int say_words(struct saying *s) {
  const struct nm__hf *h = s->t->hf;
  const struct nm__hf_steps *n = &h->normalizer, *p = &h->pre_tokenizer;
  bool bert = n->n == 1 && strcmp(n->v[0].kind->name, "BertNormalizer") == 0 && n->v[0].flag[0] &&
              n->v[0].flag[1] && n->v[0].flag[2] && n->v[0].flag[3] && p->n == 1 &&
              strcmp(p->v[0].kind->name, "BertPreTokenizer") == 0;
  if (!bert || strcmp(h->prefix, "##") || h->max_chars != 100)
    return no_words(s, "its WordPiece is not that of uncased BERT");
  int rc = add_text(s, "tokenizer.ggml.model", "bert");
  if (!rc) rc = add_words(s);
  if (!rc) rc = add_id(s, "tokenizer.ggml.cls_token_id", s->t->bos);
  if (!rc) rc = add_id(s, "tokenizer.ggml.seperator_token_id", s->t->eos);
  return rc ? rc : add_frame(s);
}

/* ---- Unigram ----------------------------------------------------------- */

/* Is there a U+2581 behind something else? */
static bool spans_words(const struct nm__tok *t) {
  for (int32_t i = 0; i < t->n; i++) {
    struct nm__str s = nm__tok_piece(t, i);
    while (s.n >= 3 && memcmp(s.s, NM__SPACE, 3) == 0) s.s += 3, s.n -= 3;
    if (t->piece[i].type == NM__TOK_NORMAL && s.n && memmem(s.s, s.n, NM__SPACE, 3)) return true;
  }
  return false;
}

/* The normalizer when it is a Precompiled alone, else NULL. */
static const json_t *only_map(const struct saying *s) {
  const struct nm__hf_steps *v = &s->t->hf->normalizer;
  const json_t *o = json_object_get(s->top, "normalizer");
  if (v->n != 1 || strcmp(v->v[0].kind->name, "Precompiled")) return NULL;
  for (const json_t *list; (list = json_object_get(o, "normalizers"));) o = json_array_get(list, 0);
  return json_object_get(o, "precompiled_charsmap");
}

static int add_map(struct saying *s, const json_t *text) {
  struct nm__str base64 = {json_string_value(text), json_string_length(text)};
  struct nm__buf b;
  nm__buf_init(&b, UINT32_MAX);
  nm__buf_puts(&b, "");
  nm__hf_from_base64(base64, &b);
  struct nm__gguf_kv kv = {.key = (char *)"tokenizer.ggml.precompiled_charsmap",
                           .type = NM__GGUF_ARRAY, .elem_type = NM__GGUF_U8, .n = b.len,
                           .raw = (const uint8_t *)b.s};
  int rc = b.failed ? nm__fail_memory(s->err, "a character map", base64.n)
                    : nm__gguf_add_kv(s->to, &kv, s->err);
  nm__buf_done(&b);
  return rc;
}

/* As T5 and XLM-R have it: words parted by white space, each with a space in front. */
static int say_unigram(struct saying *s) {
  struct nm__tok *t = s->t;
  const struct nm__hf_steps *p = &t->hf->pre_tokenizer;
  const json_t *map = only_map(s);
  bool words = p->n == 2 && strcmp(p->v[0].kind->name, "WhitespaceSplit") == 0 &&
               step_is(&p->v[1], "Metaspace", NM__SPACE) && p->v[1].choice == NM__HF_ALWAYS;
  if (!map || !words || spans_words(t))
    return no_words(s, "its normalizer or pre-tokenizer is not that of T5");
  float *score = nm__alloc((size_t)t->n, sizeof *score);
  int rc = score ? NM_OK : nm__fail_memory(s->err, "the scores", (size_t)t->n * sizeof *score);
  for (int32_t i = 0; i < t->n && !rc; i++) score[i] = (float)t->piece[i].score;
  if (!rc) rc = add_text(s, "tokenizer.ggml.model", "t5");
  if (!rc) rc = add_tokens(s, NULL);
  if (!rc) rc = nm__gguf_add_f32s(s->to, "tokenizer.ggml.scores", score, (size_t)t->n, s->err);
  if (!rc) rc = add_map(s, map);
  if (!rc) rc = add_flag(s, "tokenizer.ggml.add_space_prefix", true);
  if (!rc) rc = add_flag(s, "tokenizer.ggml.remove_extra_whitespaces", true);
  free(score);
  return rc ? rc : add_frame(s);
}

/* ---- all of it --------------------------------------------------------- */

static int say(struct saying *s) {
  const char *model = s->t->hf->model->name;
  if (!frame_fits(s->t)) return no_words(s, "it puts more around a text than one token a side");
  sign_step(s, json_object_get(s->top, "pre_tokenizer"));
  if (s->sign.failed) return nm__fail_memory(s->err, "a tokenizer", s->sign.len);
  if (strcmp(model, "BPE") == 0 && s->t->hf->byte_fallback) return say_scored(s);
  if (strcmp(model, "BPE") == 0) return say_bytes(s);
  if (strcmp(model, "WordPiece") == 0) return say_words(s);
  if (strcmp(model, "Unigram") == 0) return say_unigram(s);
  char text[100];
  snprintf(text, sizeof text, "its model is %s, for which there is no rule yet", model);
  return no_words(s, text);
}

int nm__hf_tokenizer_to_ggml(const struct nm__gguf *from, struct nm__gguf *to, nm_err *warn,
                             nm_err *err) {
  nm_err own = {0};
  struct nm__str text;
  struct saying s = {.to = to, .err = &own};
  int rc = nm__gguf_string(from, "tokenizer.huggingface.json", &text, &own);
  if (!rc) rc = nm__tok_open(from, &s.t, NULL, &own);
  json_t *top = rc ? NULL : json_loadb(text.s, text.n, JSON_ALLOW_NUL, NULL);
  nm__buf_init(&s.sign, 1 << 20);
  s.top = top;
  if (!rc && !s.t->hf) rc = no_words(&s, "the file has tokenizer.ggml keys of its own");
  else if (!rc) rc = say(&s);
  if (!rc && s.why[0] && warn)
    nm__fail(warn, NM_EFORMAT, "%s: the tokenizer cannot be said in tokenizer.ggml keys (%s); "
             "programs that read no tokenizer.huggingface.json will not find one", from->path,
             s.why);
  nm__buf_done(&s.sign);
  json_decref(top);
  nm__tok_free(s.t);
  if (rc && err) *err = own;
  return rc;
}
