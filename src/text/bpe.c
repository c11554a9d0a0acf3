/* bpe.c - byte-level BPE by merge rank ("gpt2").
 *
 * The file writes every byte as one printable character; here pieces and merges are
 * turned back into bytes when the vocabulary is opened, so that encoding works on the
 * text itself. Merges are pairs of symbol numbers: token ids, or numbers above them for
 * operands that are no tokens (a byte without a token, a merge through a missing piece),
 * which keeps the order of merging what the file says. */
#include <stdlib.h>
#include <string.h>

#include "text/tok.h"
#include "text/unicode.h"

/* ---- the byte alphabet ----------------------------------------------- */

static bool stands_for_itself(int b) {
  return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

void nm__byte_alphabet(int16_t byte_of[324]) {
  for (int i = 0; i < 324; i++) byte_of[i] = -1;
  for (int b = 0, next = 256; b < 256; b++)
    byte_of[stands_for_itself(b) ? b : next++] = (int16_t)b;
}

/* Replaces a piece by its bytes, appended to out. False: not written in the alphabet. */
static bool to_bytes(const int16_t *byte_of, const char *s, size_t n, struct nm__buf *out) {
  nm__buf_reset(out);
  for (size_t i = 0; i < n; ) {
    uint32_t cp;
    int len = nm__utf8_decode(s + i, n - i, &cp);
    if (len == 0 || cp >= 324 || byte_of[cp] < 0) return false;
    nm__buf_putc(out, byte_of[cp]);
    i += (size_t)len;
  }
  return true;
}

/* ---- opening --------------------------------------------------------- */

struct opening {
  struct nm__tok *t;
  int16_t byte_of[324];
  struct nm__buf left, right, whole;
};

/* Only normal pieces are in the alphabet; special ones are written as they look. */
static int open_pieces(struct opening *o) {
  struct nm__tok *t = o->t;
  for (int32_t i = 0; i < t->n; i++) {
    struct nm__piece *p = &t->piece[i];
    if (p->type != NM__TOK_NORMAL && p->type != NM__TOK_UNUSED && p->type != NM__TOK_BYTE) continue;
    if (!to_bytes(o->byte_of, nm__tok_bytes(t, p->raw), p->raw.n, &o->whole)) continue;
    if (o->whole.failed) return NM_EMEMORY;
    if (!nm__tok_keep(t, o->whole.s, o->whole.len, &p->out)) return NM_EMEMORY;
    if (p->out.n > t->longest) t->longest = p->out.n;
    if (nm__dict_put(&t->dict, t->pool.s, p->out, i)) return NM_EMEMORY;
  }
  return NM_OK;
}

/* The symbol of these bytes, made when there is none; -1 when memory is short. */
static int32_t symbol(struct nm__tok *t, const char *s, size_t n) {
  int32_t id = nm__dict_get(&t->dict, t->pool.s, s, n);
  if (id >= 0) return id;
  if (t->n_extra == t->cap_extra) {
    int32_t cap = t->cap_extra ? 2 * t->cap_extra : 64;
    struct nm__span *e = nm__realloc(t->extra, (size_t)cap, sizeof *e);
    if (!e) return -1;
    t->extra = e;
    t->cap_extra = cap;
  }
  struct nm__span *key = &t->extra[t->n_extra];
  id = t->n + t->n_extra;
  if (!nm__tok_keep(t, s, n, key) || nm__dict_put(&t->dict, t->pool.s, *key, id)) return -1;
  t->n_extra++;
  return id;
}

struct nm__pair_slot *nm__pairs_find(const struct nm__pairs *p, int32_t left, int32_t right) {
  uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
  size_t i = nm__mix64(key) & (p->n_slots - 1);
  while (p->slot[i].left >= 0 && (p->slot[i].left != left || p->slot[i].right != right))
    i = (i + 1) & (p->n_slots - 1);
  return &p->slot[i];
}

int nm__pairs_new(struct nm__pairs *p, size_t n) {
  p->n_slots = 64;
  while (p->n_slots / 3 < n / 2 + 1) p->n_slots *= 2;      /* at most two thirds full */
  p->slot = nm__alloc(p->n_slots, sizeof *p->slot);
  if (!p->slot) return NM_EMEMORY;
  for (size_t i = 0; i < p->n_slots; i++) p->slot[i].left = -1;
  return NM_OK;
}

/* One "left right". A merge with characters outside of the alphabet can never apply. */
static int open_merge(struct opening *o, struct nm__str m, uint32_t rank, nm_err *err) {
  struct nm__tok *t = o->t;
  const char *space = m.n > 2 ? memchr(m.s + 1, ' ', m.n - 1) : NULL;
  size_t n = space ? (size_t)(space - m.s) : 0;
  if (!space || n + 1 == m.n)
    return nm__fail(err, NM_EFORMAT, "%s: tokenizer.ggml.merges[%u] is not two pieces with a "
                    "space between", t->path, rank);
  if (!to_bytes(o->byte_of, m.s, n, &o->left)) return NM_OK;
  if (!to_bytes(o->byte_of, space + 1, m.n - n - 1, &o->right)) return NM_OK;
  nm__buf_reset(&o->whole);
  nm__buf_put(&o->whole, o->left.s, o->left.len);
  nm__buf_put(&o->whole, o->right.s, o->right.len);
  if (o->left.failed || o->right.failed || o->whole.failed)
    return nm__fail_memory(err, "the merges", m.n);
  int32_t left = symbol(t, o->left.s, o->left.len);
  int32_t right = symbol(t, o->right.s, o->right.len);
  int32_t merged = symbol(t, o->whole.s, o->whole.len);
  if (left < 0 || right < 0 || merged < 0) return nm__fail_memory(err, "the merges", m.n);
  struct nm__pair_slot *e = nm__pairs_find(&t->pairs, left, right);
  if (e->left < 0) *e = (struct nm__pair_slot){left, right, merged, rank};
  return NM_OK;
}

static int open_merges(struct opening *o, const struct nm__gguf *g, nm_err *err) {
  struct nm__tok *t = o->t;
  const struct nm__gguf_kv *kv = nm__gguf_find(g, "tokenizer.ggml.merges");
  if (!kv || kv->type != NM__GGUF_ARRAY || (kv->n && kv->elem_type != NM__GGUF_STRING))
    return nm__fail(err, NM_EFORMAT, "%s: tokenizer.ggml.merges must be an array of strings, "
                    "which a 'gpt2' tokenizer needs", t->path);
  /* Up to three symbols a merge must stay countable beside the tokens. */
  if (kv->n > INT32_MAX / 8)
    return nm__fail(err, NM_EFORMAT, "%s: tokenizer.ggml.merges has %llu entries, which is too "
                    "many", t->path, (unsigned long long)kv->n);
  if (nm__pairs_new(&t->pairs, (size_t)kv->n))
    return nm__fail_memory(err, "the merges", 24 * kv->n);
  for (uint64_t i = 0; i < kv->n; i++) {
    int rc = open_merge(o, kv->strings[i], (uint32_t)i, err);
    if (rc) return rc;
  }
  return NM_OK;
}

static void warn_pretok(const struct nm__tok *t, const char *name, nm_err *warn) {
  if (!nm__pretok_known(t->pretok))
    nm__fail(warn, NM_EFORMAT, *name ? "%s: pre-tokenizer '%s' is not known; text is split by "
             "general rules, and token ids may differ from the original's"
             : "%s: no pre-tokenizer is named%s; text is split by general rules, and token ids "
             "may differ from the original's", t->path, name);
  else if (!nm__pretok_checked(t->pretok))
    nm__fail(warn, NM_EFORMAT, "%s: tokenizer.ggml.pre '%s': rule known, not checked against "
             "vectors", t->path, name);
}

static int open_pretok(struct nm__tok *t, const struct nm__gguf *g, nm_err *warn, nm_err *err) {
  struct nm__str pre = {"", 0};
  int rc = nm__gguf_find(g, "tokenizer.ggml.pre")
           ? nm__gguf_string(g, "tokenizer.ggml.pre", &pre, err) : NM_OK;
  if (!rc) rc = nm__pretok_new(pre.s, pre.n, &t->pretok, err);
  if (rc) return rc;
  char name[64];
  nm__printable(name, sizeof name, pre.s, pre.n);
  warn_pretok(t, name, warn);
  free(t->pre);
  t->pre = nm__strdup(name);
  t->whole_first = nm__pretok_whole_first(t->pretok);
  return t->pre ? NM_OK : nm__fail_memory(err, "a name", pre.n);
}

static int open_bytes(struct nm__tok *t) {
  t->all_bytes = true;
  for (int b = 0; b < 256; b++) {
    t->byte[b] = symbol(t, &(char){(char)b}, 1);
    if (t->byte[b] < 0) return NM_EMEMORY;
    t->all_bytes = t->all_bytes && t->byte[b] < t->n;
  }
  return NM_OK;
}

static int bpe_open(struct nm__tok *t, const struct nm__gguf *g, nm_err *warn, nm_err *err) {
  struct opening o = {.t = t};
  nm__byte_alphabet(o.byte_of);
  nm__buf_init(&o.left, UINT32_MAX);
  nm__buf_init(&o.right, UINT32_MAX);
  nm__buf_init(&o.whole, UINT32_MAX);
  int rc = open_pretok(t, g, warn, err);
  if (!rc) rc = nm__tok_flag(g, "tokenizer.ggml.add_bos_token", nm__pretok_adds_bos(t->pretok),
                             &t->add_bos, err);
  if (!rc && (open_pieces(&o) || open_bytes(t)))
    rc = nm__fail_memory(err, "the vocabulary", t->pool.len);
  if (!rc) rc = open_merges(&o, g, err);
  nm__buf_done(&o.left);
  nm__buf_done(&o.right);
  nm__buf_done(&o.whole);
  return rc;
}

/* ---- a run of text --------------------------------------------------- */

static bool pair(const void *arg, const struct nm__sym *a, const struct nm__sym *b, uint64_t *prio,
                 int32_t *id) {
  const struct nm__pair_slot *e = nm__pairs_find(arg, a->id, b->id);
  if (e->left < 0) return false;
  *prio = e->rank;
  *id = e->merged;
  return true;
}

struct run { const struct nm__tok *t; struct nm__work *w; };

/* A symbol that merging made but that is no token falls apart into its bytes. */
static int put_symbol(const struct run *r, const char *s, const struct nm__sym *sym, nm_err *err) {
  const struct nm__tok *t = r->t;
  if (sym->id < t->n) return nm__ids_push(r->w->out, sym->id);
  int rc = NM_OK;
  for (uint32_t i = 0; i < sym->len && !rc; i++) {
    const char *at = s + sym->start + i;
    int32_t id = t->byte[(unsigned char)*at];
    rc = id < t->n ? nm__ids_push(r->w->out, id) : nm__tok_no_token(t, at, 1, r->w->out, err);
  }
  return rc;
}

static int word(void *arg, const char *s, size_t n, nm_err *err) {
  const struct run *r = arg;
  const struct nm__tok *t = r->t;
  struct nm__merge *m = &r->w->merge;
  if (t->whole_first && n <= t->longest) {
    int32_t id = nm__dict_get(&t->dict, t->pool.s, s, n);
    if (id >= 0 && id < t->n) return nm__ids_push(r->w->out, id);
  }
  /* A byte that is no text and has no token, as some vocabularies lack those that UTF-8
   * never uses, is read as U+FFFD, the replacement character. */
  if (n == 1 && t->byte[(unsigned char)*s] >= t->n && (unsigned char)*s >= 0x80)
    return word(arg, "\xEF\xBF\xBD", 3, err);
  nm__merge_reset(m);
  int rc = NM_OK;
  for (size_t i = 0; i < n && !rc; i++)
    rc = nm__merge_add(m, (uint32_t)i, 1, t->byte[(unsigned char)s[i]]);
  if (!rc) rc = nm__merge_run(m, pair, &t->pairs);
  for (uint32_t i = 0; i != NM__NO_SYM && !rc; i = m->sym[i].next)
    rc = put_symbol(r, s, &m->sym[i], err);
  return rc;
}

static int bpe_run(const struct nm__tok *t, struct nm__work *w, const char *s, size_t n,
                   nm_err *err) {
  return nm__pretok_split(t->pretok, s, n, word, &(struct run){t, w}, err);
}

const struct nm__tok_family nm__tok_bpe = {"gpt2", bpe_open, bpe_run};
