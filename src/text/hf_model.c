/* hf_model.c - the models of a tokenizer.json: BPE, WordPiece, WordLevel, Unigram.
 *
 * A model turns one part of the text into ids. Tokens that are marked special are not in
 * what plain text can become (t->dict), so that nobody can write a control token by its
 * name: they come from the cutting before, when the caller asks for it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/hf.h"
#include "text/unicode.h"

enum { MAX_PIECE = 1 << 16 };

/* ---- vocabularies ------------------------------------------------------ */

/* Ids far above the number of tokens would make a small file ask for much memory. */
static int check_id(struct nm__hf_reader *r, const char *text, int64_t id, size_t n) {
  char shown[64];
  if (id >= 0 && (uint64_t)id <= 16 * (uint64_t)n + 1000 && id < INT32_MAX / 4) return NM_OK;
  return nm__hf_refuse(r, "vocab", "gives '%s' the id %lld, which is out of range for %zu tokens",
                       nm__printable(shown, sizeof shown, text, strlen(text)), (long long)id, n);
}

/* Room for the model's tokens up to `max` and for all added ones, which are counted from
 * the number of tokens on. */
static int make_room(struct nm__tok *t, struct nm__hf_reader *r, int64_t max, size_t n_model) {
  size_t n = ((size_t)(max + 1) > n_model ? (size_t)(max + 1) : n_model) + t->hf->n_added;
  t->piece = nm__alloc(n + 1, sizeof *t->piece);
  if (!t->piece) return nm__fail_memory(r->err, "the vocabulary", n * sizeof *t->piece);
  t->n = (int32_t)(max + 1);
  for (int32_t i = 0; i < t->n; i++) t->piece[i].type = NM__TOK_UNUSED;
  return NM_OK;
}

static int keep_piece(struct nm__tok *t, struct nm__hf_reader *r, const char *s, size_t n,
                      int32_t id) {
  struct nm__piece *p = &t->piece[id];
  if (n > MAX_PIECE)
    return nm__hf_refuse(r, "vocab", "has a token of %zu bytes, at most %d are allowed", n,
                         MAX_PIECE);
  if (!nm__tok_keep(t, s, n, &p->raw)) return nm__fail_memory(r->err, "the vocabulary", n);
  p->out = p->raw;
  p->type = NM__TOK_NORMAL;
  return NM_OK;
}

/* {"token": id, ...} */
static int read_vocab(struct nm__tok *t, struct nm__hf_reader *r, const json_t *o) {
  json_t *v = json_object_get(o, "vocab");
  if (!json_is_object(v)) return nm__hf_refuse(r, "vocab", "must be an object of token and id");
  size_t n = json_object_size(v);
  int64_t max = -1;
  int rc = NM_OK;
  for (void *i = json_object_iter(v); i && !rc; i = json_object_iter_next(v, i)) {
    const json_t *id = json_object_iter_value(i);
    int64_t k = json_is_integer(id) ? json_integer_value(id) : -1;
    rc = check_id(r, json_object_iter_key(i), k, n);
    if (k > max) max = k;
  }
  if (!rc) rc = make_room(t, r, max, n);
  for (void *i = json_object_iter(v); i && !rc; i = json_object_iter_next(v, i)) {
    const char *key = json_object_iter_key(i);
    int32_t id = (int32_t)json_integer_value(json_object_iter_value(i));
    rc = keep_piece(t, r, key, json_object_iter_key_len(i), id);
    if (!rc && nm__dict_put(&t->hf->all, t->pool.s, t->piece[id].raw, id))
      rc = nm__fail_memory(r->err, "the vocabulary", n);
  }
  t->hf->n_model = (int32_t)n;
  return rc;
}

static int keep_string(struct nm__hf_reader *r, const json_t *o, const char *name, bool must,
                       char **out) {
  struct nm__str s = {0};
  int rc = nm__hf_text(r, o, name, must, &s);
  if (rc || !s.s) return rc;
  if (memchr(s.s, 0, s.n)) return nm__hf_refuse(r, name, "must not hold a zero byte");
  *out = nm__strndup(s.s, s.n);
  return *out ? NM_OK : nm__fail_memory(r->err, "a tokenizer", s.n);
}

static void find_unk(struct nm__tok *t) {
  const char *s = t->hf->unk;
  t->unk = s ? nm__dict_get(&t->hf->all, t->pool.s, s, strlen(s)) : -1;
}

static void find_bytes(struct nm__tok *t) {
  char name[8];
  for (int b = 0; b < 256; b++) {
    snprintf(name, sizeof name, "<0x%02X>", (unsigned)b & 255u);
    t->byte[b] = nm__dict_get(&t->hf->all, t->pool.s, name, 6);
  }
}

/* Is this character a byte of the text that is no UTF-8? */
static bool is_bad(const struct nm__hf_work *w, uint32_t cp) {
  return w->bad && cp - w->bad < 256;
}

/* ---- BPE --------------------------------------------------------------- */

/* A merge is "a b" or ["a", "b"]. */
static bool read_merge(const json_t *m, struct nm__str *a, struct nm__str *b) {
  if (json_is_array(m)) {
    const json_t *x = json_array_get(m, 0), *y = json_array_get(m, 1);
    if (json_array_size(m) != 2 || !json_is_string(x) || !json_is_string(y)) return false;
    *a = (struct nm__str){json_string_value(x), json_string_length(x)};
    *b = (struct nm__str){json_string_value(y), json_string_length(y)};
    return true;
  }
  const char *s = json_string_value(m);
  size_t n = s ? json_string_length(m) : 0;
  const char *space = n ? memchr(s, ' ', n) : NULL;
  if (!space || memchr(space + 1, ' ', n - (size_t)(space + 1 - s))) return false;
  *a = (struct nm__str){s, (size_t)(space - s)};
  *b = (struct nm__str){space + 1, n - a->n - 1};
  return true;
}

static int32_t id_of(const struct nm__tok *t, struct nm__str s) {
  return nm__dict_get(&t->hf->all, t->pool.s, s.s, s.n);
}

/* The merged token leaves out the second one's prefix. The last of equal pairs counts. */
static int open_merge(struct nm__tok *t, struct nm__hf_reader *r, const json_t *m, uint32_t rank,
                      struct nm__buf *whole) {
  struct nm__str a, b;
  char place[32], shown[64];
  snprintf(place, sizeof place, "merges[%u]", rank);
  if (!read_merge(m, &a, &b)) return nm__hf_refuse(r, place, "must be two tokens");
  size_t skip = t->hf->prefix ? strlen(t->hf->prefix) : 0;
  if (skip > b.n) return nm__hf_refuse(r, place, "has a second token shorter than the prefix");
  nm__buf_reset(whole);
  nm__buf_put(whole, a.s, a.n);
  nm__buf_put(whole, b.s + skip, b.n - skip);
  if (whole->failed) return nm__fail_memory(r->err, "the merges", whole->len);
  struct nm__str all[] = {a, b, {whole->s, whole->len}};
  int32_t id[3];
  for (int i = 0; i < 3; i++)
    if ((id[i] = id_of(t, all[i])) < 0)
      return nm__hf_refuse(r, place, "needs the token '%s', which is not in the vocabulary",
                           nm__printable(shown, sizeof shown, all[i].s, all[i].n));
  *nm__pairs_find(&t->pairs, id[0], id[1]) = (struct nm__pair_slot){id[0], id[1], id[2], rank};
  return NM_OK;
}

static void find_words(struct nm__tok *t);

static int open_bpe(struct nm__tok *t, struct nm__hf_reader *r, const json_t *o) {
  struct nm__hf *h = t->hf;
  int rc = read_vocab(t, r, o);
  if (!rc) rc = keep_string(r, o, "unk_token", false, &h->unk);
  if (!rc) rc = keep_string(r, o, "continuing_subword_prefix", false, &h->prefix);
  if (!rc) rc = keep_string(r, o, "end_of_word_suffix", false, &h->suffix);
  if (!rc) rc = nm__hf_bool(r, o, "fuse_unk", false, &h->fuse_unk);
  if (!rc) rc = nm__hf_bool(r, o, "byte_fallback", false, &h->byte_fallback);
  if (!rc) rc = nm__hf_bool(r, o, "ignore_merges", false, &h->ignore_merges);
  const json_t *merges = json_object_get(o, "merges");
  size_t n = json_array_size(merges);
  if (!rc && (!json_is_array(merges) || n > INT32_MAX / 8))
    rc = nm__hf_refuse(r, "merges", "must be a list of pairs");
  if (!rc && nm__pairs_new(&t->pairs, n)) rc = nm__fail_memory(r->err, "the merges", 24 * n);
  struct nm__buf whole;
  nm__buf_init(&whole, UINT32_MAX);
  for (size_t i = 0; i < n && !rc; i++)
    rc = open_merge(t, r, json_array_get(merges, i), (uint32_t)i, &whole);
  nm__buf_done(&whole);
  find_words(t);
  find_unk(t);
  if (h->byte_fallback) find_bytes(t);
  return rc;
}

static bool is_special(const struct nm__tok *t, int32_t id) {
  return t->piece[id].type == NM__TOK_CONTROL && id != t->unk;
}

static bool pair(const void *arg, const struct nm__sym *a, const struct nm__sym *b, uint64_t *prio,
                 int32_t *id) {
  const struct nm__tok *t = arg;
  const struct nm__pair_slot *e = nm__pairs_find(&t->pairs, a->id, b->id);
  if (e->left < 0) return false;
  *prio = e->rank;
  *id = e->merged;
  return true;
}

/* The same without the merges that end in a special token. */
static bool plain_pair(const void *arg, const struct nm__sym *a, const struct nm__sym *b,
                       uint64_t *prio, int32_t *id) {
  return pair(arg, a, b, prio, id) && !is_special(arg, *id);
}

/* Unknown characters wait until a known one comes; bytes go past them, as in the library. */
struct waiting { uint32_t at, len; };

static int put_waiting(const struct nm__hf *h, struct nm__hf_work *w, struct waiting *u) {
  if (u->len == 0) return NM_OK;
  if (h->t->unk < 0)
    return nm__fail(w->err, NM_EFORMAT, "%s: model.unk_token '%s' is not in the vocabulary",
                    h->t->path, h->unk);
  int rc = nm__merge_add(&w->core.merge, u->at, u->len, h->t->unk);
  u->len = 0;
  return rc;
}

/* One character of a part. */
static int add_char(const struct nm__hf *h, struct nm__hf_work *w, struct waiting *u,
                    const char *key, size_t n_key, uint32_t at, uint32_t len, uint32_t cp) {
  const struct nm__tok *t = h->t;
  struct nm__merge *m = &w->core.merge;
  int32_t id = is_bad(w, cp) ? -1 : nm__dict_get(&t->dict, t->pool.s, key, n_key);
  if (id >= 0) {
    int rc = put_waiting(h, w, u);
    return rc ? rc : nm__merge_add(m, at, len, id);
  }
  char byte = (char)(cp - w->bad);
  if (is_bad(w, cp)) key = &byte, n_key = 1;
  bool all = h->byte_fallback;
  for (size_t i = 0; i < n_key && all; i++) all = t->byte[(unsigned char)key[i]] >= 0;
  for (size_t i = 0; i < n_key && all; i++)
    if (nm__merge_add(m, at, 1, t->byte[(unsigned char)key[i]])) return NM_EMEMORY;
  if (all || !h->unk) return NM_OK;
  if (u->len && h->fuse_unk) return u->len += len, NM_OK;
  int rc = put_waiting(h, w, u);
  *u = (struct waiting){at, len};
  return rc;
}

/* What is looked up for a character: with the prefix unless it is the first, with the
 * suffix if it is the last. */
static const char *key_of(const struct nm__hf *h, struct nm__hf_work *w, const char *s, size_t at,
                          size_t len, size_t n, size_t *n_key) {
  bool prefix = h->prefix && at > 0, suffix = h->suffix && at + len == n;
  *n_key = len;
  if (!prefix && !suffix) return s + at;
  struct nm__buf *b = &w->core.key;
  nm__buf_reset(b);
  if (prefix) nm__buf_puts(b, h->prefix);
  nm__buf_put(b, s + at, len);
  if (suffix) nm__buf_puts(b, h->suffix);
  *n_key = b->len;
  return b->failed ? NULL : b->s;
}

static int merge_word(const struct nm__hf *h, struct nm__hf_work *w, const char *s, size_t n,
                      nm__pair_fn *fn) {
  struct nm__merge *m = &w->core.merge;
  struct waiting u = {0};
  int rc = NM_OK;
  nm__merge_reset(m);
  for (size_t at = 0, len; at < n && !rc; at += len) {
    uint32_t cp;
    size_t n_key;
    len = (size_t)nm__hf_next(s + at, n - at, &cp);
    const char *key = key_of(h, w, s, at, len, n, &n_key);
    rc = key ? add_char(h, w, &u, key, n_key, (uint32_t)at, (uint32_t)len, cp) : NM_EMEMORY;
  }
  if (!rc) rc = put_waiting(h, w, &u);
  return rc ? rc : nm__merge_run(m, fn, h->t);
}

/* A merge may go through a special token, but must not end in one. */
static int run_word(const struct nm__hf *h, struct nm__hf_work *w, const char *s, size_t n) {
  const struct nm__tok *t = h->t;
  const struct nm__merge *m = &w->core.merge;
  bool special = false;
  int rc = merge_word(h, w, s, n, pair);
  for (uint32_t i = m->n ? 0 : NM__NO_SYM; i != NM__NO_SYM && !rc; i = m->sym[i].next)
    special = special || (m->sym[i].len > 1 && is_special(t, m->sym[i].id));
  if (special && !rc) rc = merge_word(h, w, s, n, plain_pair);
  for (uint32_t i = m->n ? 0 : NM__NO_SYM; i != NM__NO_SYM && !rc; i = m->sym[i].next)
    rc = nm__ids_push(w->core.out, m->sym[i].id);
  return rc;
}

static bool at_space(const char *s, size_t n) {
  return n >= 3 && memcmp(s, NM__SPACE, 3) == 0;
}

/* Where the part that can be merged on its own ends: when no token goes on across the
 * beginning of a word, no merge does either. Long texts go several times faster so. */
static size_t word_end(const struct nm__tok *t, const char *s, size_t n) {
  bool inside = false;
  for (size_t i = 0; t->by_word && i < n;) {
    bool space = at_space(s + i, n - i);
    if (space && inside) return i;
    inside = !space;
    i += space ? 3 : 1;
  }
  return n;
}

static int run_bpe(const struct nm__hf *h, struct nm__hf_work *w, const char *s, size_t n) {
  const struct nm__tok *t = h->t;
  int32_t id = h->ignore_merges ? nm__dict_get(&t->dict, t->pool.s, s, n) : -1;
  if (id >= 0) return nm__ids_push(w->core.out, id);
  int rc = NM_OK;
  for (size_t at = 0, len; at < n && !rc; at += len) {
    len = word_end(t, s + at, n - at);
    rc = run_word(h, w, s + at, len);
  }
  return rc;
}

/* Unknown characters wait for a known one, so the space must be one; and a part's first and
 * last characters must be like any other. */
static void find_words(struct nm__tok *t) {
  const struct nm__hf *h = t->hf;
  t->by_word = !h->prefix && !h->suffix && nm__dict_get(&h->all, t->pool.s, NM__SPACE, 3) >= 0;
  for (int32_t i = 0; i < t->n && t->by_word; i++) {
    struct nm__span raw = t->piece[i].raw;
    t->by_word = raw.n == 0 || word_end(t, nm__tok_bytes(t, raw), raw.n) == raw.n;
  }
}

/* ---- WordPiece and WordLevel -------------------------------------------- */

static int open_wordpiece(struct nm__tok *t, struct nm__hf_reader *r, const json_t *o) {
  struct nm__hf *h = t->hf;
  int rc = read_vocab(t, r, o);
  if (!rc) rc = keep_string(r, o, "unk_token", true, &h->unk);
  if (!rc) rc = keep_string(r, o, "continuing_subword_prefix", true, &h->prefix);
  if (!rc) rc = nm__hf_count(r, o, "max_input_chars_per_word", true, &h->max_chars);
  find_unk(t);
  return rc;
}

static int run_wordpiece(const struct nm__hf *h, struct nm__hf_work *w, const char *s, size_t n) {
  return nm__wordpiece(h->t, &w->core, "", h->prefix, s, n, (size_t)h->max_chars, w->err);
}

static int open_wordlevel(struct nm__tok *t, struct nm__hf_reader *r, const json_t *o) {
  int rc = read_vocab(t, r, o);
  if (!rc) rc = keep_string(r, o, "unk_token", true, &t->hf->unk);
  find_unk(t);
  return rc;
}

static int run_wordlevel(const struct nm__hf *h, struct nm__hf_work *w, const char *s, size_t n) {
  int32_t id = nm__dict_get(&h->t->dict, h->t->pool.s, s, n);
  if (id >= 0) return nm__ids_push(w->core.out, id);
  return nm__tok_no_token(h->t, s, n, w->core.out, w->err);
}

/* ---- Unigram ----------------------------------------------------------- */

/* [["piece", score], ...]; of equal pieces the last one counts. */
static int read_scored(struct nm__tok *t, struct nm__hf_reader *r, const json_t *o) {
  const json_t *v = json_object_get(o, "vocab");
  if (!json_is_array(v)) return nm__hf_refuse(r, "vocab", "must be a list of piece and score");
  size_t n = json_array_size(v);
  double least = 0;
  int rc = check_id(r, "", (int64_t)n - 1 + !n, n);
  if (!rc) rc = make_room(t, r, (int64_t)n - 1, n);
  for (size_t i = 0; i < n && !rc; i++) {
    const json_t *e = json_array_get(v, i), *s = json_array_get(e, 0), *x = json_array_get(e, 1);
    char place[32];
    snprintf(place, sizeof place, "vocab[%zu]", i);
    if (json_array_size(e) != 2 || !json_is_string(s) || !json_is_number(x))
      return nm__hf_refuse(r, place, "must be a piece and its score");
    rc = keep_piece(t, r, json_string_value(s), json_string_length(s), (int32_t)i);
    t->piece[i].score = json_number_value(x);
    if (i == 0 || t->piece[i].score < least) least = t->piece[i].score;
  }
  for (int32_t i = t->n - 1; i >= 0 && !rc; i--) {
    struct nm__span raw = t->piece[i].raw;
    if (nm__dict_put(&t->hf->all, t->pool.s, raw, i)) rc = nm__fail_memory(r->err, "a piece", n);
    else if (id_of(t, (struct nm__str){nm__tok_bytes(t, raw), raw.n}) != i)
      t->piece[i].type = NM__TOK_UNUSED;
  }
  t->unk_score = least - 10;
  t->hf->n_model = (int32_t)n;
  return rc;
}

static int open_unigram(struct nm__tok *t, struct nm__hf_reader *r, const json_t *o) {
  int64_t unk = -1;
  int rc = read_scored(t, r, o);
  if (!rc) rc = nm__hf_count(r, o, "unk_id", false, &unk);
  if (!rc) rc = nm__hf_bool(r, o, "byte_fallback", false, &t->hf->byte_fallback);
  if (!rc && unk >= t->n)
    rc = nm__hf_refuse(r, "unk_id", "is %lld, but there are only %d pieces", (long long)unk, t->n);
  t->unk = rc ? -1 : (int32_t)unk;
  if (t->hf->byte_fallback) find_bytes(t);
  return rc;
}

/* The unknown token, written out in a text, is a part of the unknown text around it. */
static void fuse_unknown(const struct nm__tok *t, struct nm__ids *out, size_t from) {
  size_t n = from;
  for (size_t i = from; i < out->n; i++)
    if (i == from || out->id[i] != t->unk || out->id[n - 1] != t->unk) out->id[n++] = out->id[i];
  out->n = n;
}

/* Bytes that are no UTF-8 part the text: each is its own token. */
static int run_unigram(const struct nm__hf *h, struct nm__hf_work *w, const char *s, size_t n) {
  size_t from = 0, before = w->core.out->n;
  int rc = NM_OK;
  w->core.unk_end = 0;
  for (size_t at = 0, len; w->bad && at < n && !rc; at += len) {
    uint32_t cp;
    len = (size_t)nm__hf_next(s + at, n - at, &cp);
    if (!is_bad(w, cp)) continue;
    if (at > from) rc = nm__unigram(h->t, &w->core, s + from, at - from, w->err);
    char byte = (char)(cp - w->bad);
    if (!rc) rc = nm__tok_fall_back(h->t, &w->core, &byte, 1, w->err);
    from = at + len;
  }
  if (!rc && from < n) rc = nm__unigram(h->t, &w->core, s + from, n - from, w->err);
  fuse_unknown(h->t, w->core.out, before);
  return rc;
}

const struct nm__hf_model nm__hf_models[4] = {
  {"BPE", "type dropout unk_token continuing_subword_prefix end_of_word_suffix fuse_unk "
          "byte_fallback ignore_merges vocab merges", open_bpe, run_bpe},
  {"WordPiece", "type unk_token continuing_subword_prefix max_input_chars_per_word vocab",
   open_wordpiece, run_wordpiece},
  {"WordLevel", "type unk_token vocab", open_wordlevel, run_wordlevel},
  {"Unigram", "type unk_id vocab byte_fallback", open_unigram, run_unigram},
};
