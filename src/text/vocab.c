/* vocab.c - reading the vocabulary out of a GGUF's keys, and the dictionary.
 *
 * The file is hostile until shown otherwise: every array must have the token array's
 * length and a fitting type, every id must be below it. */
#include <stdlib.h>
#include <string.h>

#include "text/tok.h"

enum { MAX_PIECE = 1 << 16 };      /* bytes; the longest honest pieces have a few hundred */

/* ---- dictionary ------------------------------------------------------ */

static struct nm__dict_slot *find_slot(const struct nm__dict *d, const char *pool, uint64_t hash,
                                       const char *s, size_t n) {
  size_t i = hash & (d->n_slots - 1);
  for (;; i = (i + 1) & (d->n_slots - 1)) {
    struct nm__dict_slot *e = &d->slot[i];
    if (e->key.n == 0) return e;
    if (e->hash == hash && e->key.n == n && memcmp(pool + e->key.at, s, n) == 0) return e;
  }
}

int32_t nm__dict_get(const struct nm__dict *d, const char *pool, const char *s, size_t n) {
  if (d->n == 0 || n == 0) return -1;
  const struct nm__dict_slot *e = find_slot(d, pool, nm__hash(s, n, 0), s, n);
  return e->key.n ? e->id : -1;
}

static int grow(struct nm__dict *d) {
  struct nm__dict old = *d;
  d->n_slots = old.n_slots ? 2 * old.n_slots : 1024;
  d->slot = nm__alloc(d->n_slots, sizeof *d->slot);
  if (!d->slot) {
    *d = old;
    return NM_EMEMORY;
  }
  for (size_t i = 0; i < old.n_slots; i++) {
    if (old.slot[i].key.n == 0) continue;
    size_t k = old.slot[i].hash & (d->n_slots - 1);
    while (d->slot[k].key.n) k = (k + 1) & (d->n_slots - 1);
    d->slot[k] = old.slot[i];
  }
  free(old.slot);
  return NM_OK;
}

int nm__dict_put(struct nm__dict *d, const char *pool, struct nm__span key, int32_t id) {
  if (key.n == 0) return NM_OK;
  if (2 * (d->n + 1) > d->n_slots && grow(d)) return NM_EMEMORY;
  uint64_t hash = nm__hash(pool + key.at, key.n, 0);
  struct nm__dict_slot *e = find_slot(d, pool, hash, pool + key.at, key.n);
  if (e->key.n) return NM_OK;
  *e = (struct nm__dict_slot){hash, key, id};
  d->n++;
  return NM_OK;
}

/* ---- keys ------------------------------------------------------------ */

bool nm__tok_keep(struct nm__tok *t, const char *s, size_t n, struct nm__span *out) {
  *out = (struct nm__span){t->pool.len, (uint32_t)n};
  nm__buf_put(&t->pool, s, n);
  return !t->pool.failed;
}

int nm__tok_flag(const struct nm__gguf *g, const char *key, bool otherwise, bool *out,
                 nm_err *err) {
  *out = otherwise;
  return nm__gguf_find(g, key) ? nm__gguf_bool(g, key, out, err) : NM_OK;
}

static int read_pieces(struct nm__tok *t, const struct nm__gguf *g, nm_err *err) {
  const struct nm__gguf_kv *kv = nm__gguf_find(g, "tokenizer.ggml.tokens");
  if (!kv || kv->type != NM__GGUF_ARRAY || kv->elem_type != NM__GGUF_STRING || kv->n == 0)
    return nm__fail(err, NM_EFORMAT, "%s: tokenizer.ggml.tokens must be an array of strings, "
                    "and has to hold some", t->path);
  if (kv->n > INT32_MAX / 2)
    return nm__fail(err, NM_EFORMAT, "%s: tokenizer.ggml.tokens has %llu pieces, which is too many",
                    t->path, (unsigned long long)kv->n);
  t->n = (int32_t)kv->n;
  t->piece = nm__alloc(kv->n, sizeof *t->piece);
  if (!t->piece) return nm__fail_memory(err, "the vocabulary", kv->n * sizeof *t->piece);
  for (int32_t i = 0; i < t->n; i++) {
    struct nm__piece *p = &t->piece[i];
    struct nm__str s = kv->strings[i];
    if (s.n > MAX_PIECE)
      return nm__fail(err, NM_EFORMAT, "%s: token %d has %zu bytes, at most %d are allowed",
                      t->path, i, s.n, MAX_PIECE);
    if (!nm__tok_keep(t, s.s, s.n, &p->raw)) return nm__fail_memory(err, "the vocabulary", s.n);
    p->out = p->raw;
    p->type = NM__TOK_NORMAL;
  }
  return NM_OK;
}

/* A key that goes with the tokens one to one; *out NULL when it is absent. */
static int find_parallel(const struct nm__tok *t, const struct nm__gguf *g, const char *key,
                         const struct nm__gguf_kv **out, nm_err *err) {
  *out = nm__gguf_find(g, key);
  if (!*out) return NM_OK;
  if ((*out)->type != NM__GGUF_ARRAY || (*out)->n != (uint64_t)t->n)
    return nm__fail(err, NM_EFORMAT, "%s: %s must be an array of %d numbers, one a token, "
                    "and has %llu", t->path, key, t->n, (unsigned long long)(*out)->n);
  return NM_OK;
}

/* Types outside of 1..6 are read as normal: some converters leave 0. */
static int read_types(struct nm__tok *t, const struct nm__gguf *g, bool *present, nm_err *err) {
  static const char key[] = "tokenizer.ggml.token_type";
  const struct nm__gguf_kv *kv;
  int rc = find_parallel(t, g, key, &kv, err);
  *present = kv != NULL;
  if (rc || !kv) return rc;
  for (int32_t i = 0; i < t->n; i++) {
    int64_t v;
    if (!nm__gguf_int_at(kv, (uint64_t)i, &v))
      return nm__fail(err, NM_EFORMAT, "%s: %s must hold integers", t->path, key);
    if (v >= NM__TOK_NORMAL && v <= NM__TOK_BYTE) t->piece[i].type = (uint8_t)v;
  }
  return NM_OK;
}

static int read_scores(struct nm__tok *t, const struct nm__gguf *g, nm_err *err) {
  static const char key[] = "tokenizer.ggml.scores";
  const struct nm__gguf_kv *kv;
  int rc = find_parallel(t, g, key, &kv, err);
  if (rc || !kv) return rc;
  for (int32_t i = 0; i < t->n; i++) {
    double v;
    if (!nm__gguf_float_at(kv, (uint64_t)i, &v))
      return nm__fail(err, NM_EFORMAT, "%s: %s must hold numbers", t->path, key);
    t->piece[i].score = (float)v;
  }
  return NM_OK;
}

/* An id's key; -1 when absent, or when the file says -1 (in either width). */
static int read_id(const struct nm__tok *t, const struct nm__gguf *g, const char *key, int32_t *out,
                   nm_err *err) {
  const struct nm__gguf_kv *kv = nm__gguf_find(g, key);
  int64_t v = -1;
  *out = -1;
  if (!kv) return NM_OK;
  if (kv->type == NM__GGUF_ARRAY || !nm__gguf_int_at(kv, 0, &v))
    return nm__fail(err, NM_EFORMAT, "%s: %s must be an integer", t->path, key);
  if (v == -1 || v == UINT32_MAX) return NM_OK;
  if (v < 0 || v >= t->n)
    return nm__fail(err, NM_EFORMAT, "%s: %s is %lld, but there are only %d tokens", t->path, key,
                    (long long)v, t->n);
  *out = (int32_t)v;
  return NM_OK;
}

int nm__tok_read_ids(struct nm__tok *t, const struct nm__gguf *g, nm_err *err) {
  int rc = read_id(t, g, "tokenizer.ggml.bos_token_id", &t->bos, err);
  if (!rc) rc = read_id(t, g, "tokenizer.ggml.eos_token_id", &t->eos, err);
  if (!rc) rc = read_id(t, g, "tokenizer.ggml.unknown_token_id", &t->unk, err);
  if (!rc) rc = read_id(t, g, "tokenizer.ggml.eot_token_id", &t->eot, err);
  if (!rc) rc = read_id(t, g, "tokenizer.ggml.eom_token_id", &t->eom, err);
  return rc;
}

/* The first piece written so, or -1. */
static int32_t find_piece(const struct nm__tok *t, const char *s) {
  size_t n = strlen(s);
  for (int32_t i = 0; i < t->n; i++)
    if (t->piece[i].raw.n == n && memcmp(nm__tok_bytes(t, t->piece[i].raw), s, n) == 0) return i;
  return -1;
}

/* WordPiece frames a text by CLS and SEP, which have keys of their own (one misspelt for
 * good), or are known by their looks. */
static int read_frame(struct nm__tok *t, const struct nm__gguf *g, nm_err *err) {
  int32_t cls, sep;
  int rc = read_id(t, g, "tokenizer.ggml.cls_token_id", &cls, err);
  if (!rc) rc = read_id(t, g, "tokenizer.ggml.seperator_token_id", &sep, err);
  if (rc) return rc;
  if (cls >= 0 || t->bos < 0) t->bos = cls >= 0 ? cls : find_piece(t, "[CLS]");
  if (sep >= 0 || t->eos < 0) t->eos = sep >= 0 ? sep : find_piece(t, "[SEP]");
  if (t->unk < 0) t->unk = find_piece(t, "[UNK]");
  return NM_OK;
}

/* What an id is when the file says nothing of it: *id becomes `at` if a control piece is there. */
static void default_id(const struct nm__tok *t, const struct nm__gguf *g, const char *key,
                       int32_t at, int32_t *id) {
  if (!nm__gguf_find(g, key) && at < t->n && t->piece[at].type == NM__TOK_CONTROL) *id = at;
}

/* SentencePiece's own numbers are 1 BOS, 2 EOS; T5's EOS is 1. */
static void default_ids(struct nm__tok *t, const struct nm__gguf *g) {
  static const char bos[] = "tokenizer.ggml.bos_token_id", eos[] = "tokenizer.ggml.eos_token_id";
  for (int32_t i = 0; i < t->n && t->unk < 0; i++)
    if (t->piece[i].type == NM__TOK_UNKNOWN) t->unk = i;
  if (t->family == &nm__tok_spm) default_id(t, g, bos, 1, &t->bos);
  if (t->family == &nm__tok_spm) default_id(t, g, eos, 2, &t->eos);
  if (t->family == &nm__tok_ugm) default_id(t, g, eos, 1, &t->eos);
}

static bool byte_form(const char *s, size_t n) {
  return n == 6 && memcmp(s, "<0x", 3) == 0 && s[5] == '>';
}

/* Without the type array the ids and the form of a piece tell what is known. */
static void guess_types(struct nm__tok *t) {
  for (int32_t i = 0; i < t->n; i++)
    if (byte_form(nm__tok_bytes(t, t->piece[i].raw), t->piece[i].raw.n))
      t->piece[i].type = NM__TOK_BYTE;
  if (t->bos >= 0) t->piece[t->bos].type = NM__TOK_CONTROL;
  if (t->eos >= 0) t->piece[t->eos].type = NM__TOK_CONTROL;
  if (t->unk >= 0) t->piece[t->unk].type = NM__TOK_UNKNOWN;
}

/* A tokenizer.json counts where the file has no other family's keys that noema reads. */
static int read_family(struct nm__tok *t, const struct nm__gguf *g, nm_err *err) {
  static const struct nm__tok_family *const family[] = {&nm__tok_spm, &nm__tok_bpe, &nm__tok_wpm,
                                                       &nm__tok_ugm};
  struct nm__str s = {0};
  bool json = nm__gguf_find(g, "tokenizer.huggingface.json") != NULL;
  int rc = json && !nm__gguf_find(g, "tokenizer.ggml.model") ? NM_OK
           : nm__gguf_string(g, "tokenizer.ggml.model", &s, err);
  if (rc) return rc;
  for (size_t i = 0; i < sizeof family / sizeof *family; i++)
    if (strlen(family[i]->name) == s.n && memcmp(family[i]->name, s.s, s.n) == 0)
      t->family = family[i];
  if (!t->family && json) t->family = &nm__tok_hf;
  char name[64];
  if (!t->family)
    return nm__fail(err, NM_EFORMAT, "%s: tokenizer family '%s' is not supported; noema has "
                    "'llama' (SentencePiece), 'gpt2' (byte-level BPE), 'bert' (WordPiece) and "
                    "'t5' (unigram)", t->path,
                    nm__printable(name, sizeof name, s.s, s.n));
  return NM_OK;
}

int nm__tok_read(struct nm__tok *t, const struct nm__gguf *g, nm_err *err) {
  bool typed = false;
  int rc = read_family(t, g, err);
  if (rc || t->family == &nm__tok_hf) return rc;       /* which brings its own vocabulary */
  rc = read_pieces(t, g, err);
  if (!rc) rc = read_types(t, g, &typed, err);
  if (!rc) rc = read_scores(t, g, err);
  if (!rc) rc = nm__tok_read_ids(t, g, err);
  if (!rc && t->family == &nm__tok_wpm) rc = read_frame(t, g, err);
  if (rc) return rc;
  if (!typed) guess_types(t);
  default_ids(t, g);
  return NM_OK;
}

/* ---- pieces as SentencePiece writes them ------------------------------- */

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that "<0xHH>" means, or -1. */
static int byte_value(const char *s, size_t n) {
  if (n != 6 || memcmp(s, "<0x", 3) || s[5] != '>') return -1;
  int hi = hex(s[3]), lo = hex(s[4]);
  return hi < 0 || lo < 0 ? -1 : 16 * hi + lo;
}

bool nm__tok_unescape(struct nm__tok *t, struct nm__piece *p) {
  struct nm__span raw = p->raw;
  p->out = (struct nm__span){t->pool.len, 0};
  for (uint32_t i = 0; i < raw.n; ) {
    /* The pool moves as it grows, so the source is looked up each time. */
    const char *s = nm__tok_bytes(t, raw) + i;
    bool space = raw.n - i >= 3 && memcmp(s, NM__SPACE, 3) == 0;
    nm__buf_putc(&t->pool, space ? ' ' : *s);
    i += space ? 3 : 1;
  }
  p->out.n = (uint32_t)(t->pool.len - p->out.at);
  return !t->pool.failed;
}

static bool open_byte(struct nm__tok *t, int32_t id) {
  struct nm__piece *p = &t->piece[id];
  int b = byte_value(nm__tok_bytes(t, p->raw), p->raw.n);
  if (b < 0) return true;          /* a byte token of another form stays as it is written */
  if (t->byte[b] < 0) t->byte[b] = id;
  return nm__tok_keep(t, &(char){(char)b}, 1, &p->out);
}

/* Is there a U+2581 behind something else? */
static bool spans_words(const char *s, size_t n) {
  bool inside = false;
  for (size_t i = 0; i < n; ) {
    bool space = n - i >= 3 && memcmp(s + i, NM__SPACE, 3) == 0;
    if (space && inside) return true;
    inside = !space;
    i += space ? 3 : 1;
  }
  return false;
}

static int open_piece(struct nm__tok *t, int32_t id) {
  struct nm__piece *p = &t->piece[id];
  if (p->type == NM__TOK_BYTE) return open_byte(t, id) ? NM_OK : NM_EMEMORY;
  if (p->type == NM__TOK_CONTROL || p->type == NM__TOK_UNKNOWN) return NM_OK;
  if (p->type != NM__TOK_USER && !nm__tok_unescape(t, p)) return NM_EMEMORY;
  if (p->raw.n > t->longest) t->longest = p->raw.n;
  if (spans_words(nm__tok_bytes(t, p->raw), p->raw.n)) t->by_word = false;
  return nm__dict_put(&t->dict, t->pool.s, p->raw, id);
}

int nm__tok_open_pieces(struct nm__tok *t) {
  t->by_word = true;
  for (int32_t i = 0; i < t->n; i++)
    if (open_piece(t, i)) return NM_EMEMORY;
  t->all_bytes = true;
  for (int b = 0; b < 256; b++) t->all_bytes = t->all_bytes && t->byte[b] >= 0;
  return NM_OK;
}
