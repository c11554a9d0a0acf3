/* tokenizer.c - the frame around the families: opening, special tokens, BOS and EOS,
 * and decoding, which is the same for all since each piece knows its bytes. */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "text/hf.h"

/* Symbols are counted in 32 bits, and SPM's spaces are three bytes long. */
enum { MAX_TEXT = 1 << 30 };

/* ---- ids ------------------------------------------------------------- */

void nm__ids_done(struct nm__ids *v) {
  free(v->id);
  *v = (struct nm__ids){0};
}

int nm__ids_push(struct nm__ids *v, int32_t id) {
  if (v->n == v->cap) {
    size_t cap = v->cap ? 2 * v->cap : 64;
    int32_t *p = nm__realloc(v->id, cap, sizeof *p);
    if (!p) return NM_EMEMORY;
    v->id = p;
    v->cap = cap;
  }
  v->id[v->n++] = id;
  return NM_OK;
}

/* ---- opening --------------------------------------------------------- */

static int open_all(struct nm__tok *t, const struct nm__gguf *g, nm_err *warn, nm_err *err) {
  int rc = nm__tok_read(t, g, err);
  if (!rc) rc = t->family->open(t, g, warn, err);
  if (rc || t->hf) return rc;
  rc = nm__tok_flag(g, "tokenizer.ggml.add_eos_token", t->add_eos, &t->add_eos, err);
  if (rc) return rc;
  unsigned all = NM__TYPE(USER) | NM__TYPE(CONTROL) | NM__TYPE(UNKNOWN);
  if (nm__specials_new(t, NM__TYPE(USER), &t->user) || nm__specials_new(t, all, &t->special))
    return nm__fail_memory(err, "the special tokens", t->pool.len);
  return NM_OK;
}

bool nm__tok_here(const struct nm__gguf *g) {
  static const char *const none[] = {"none", "no_vocab"};
  struct nm__str s;
  if (nm__gguf_find(g, "tokenizer.huggingface.json")) return true;
  if (!nm__gguf_find(g, "tokenizer.ggml.model")) return false;
  if (nm__gguf_string(g, "tokenizer.ggml.model", &s, NULL)) return true;
  for (size_t i = 0; i < sizeof none / sizeof *none; i++)
    if (strlen(none[i]) == s.n && memcmp(none[i], s.s, s.n) == 0) return false;
  return true;
}

int nm__tok_open(const struct nm__gguf *g, struct nm__tok **out, nm_err *warn, nm_err *err) {
  *out = NULL;
  if (warn) *warn = (nm_err){0};
  struct nm__tok *t = nm__alloc(1, sizeof *t);
  if (!t) return nm__fail_memory(err, "the tokenizer", sizeof *t);
  nm__buf_init(&t->pool, PTRDIFF_MAX / 4);
  memset(t->byte, -1, sizeof t->byte);
  t->path = nm__strdup(g->path ? g->path : "");
  t->pre = nm__strdup("");
  int rc = t->path && t->pre ? open_all(t, g, warn, err) : nm__fail_memory(err, "a name", 1);
  if (rc) {
    nm__tok_free(t);
    return rc;
  }
  *out = t;
  return NM_OK;
}

void nm__tok_free(struct nm__tok *t) {
  if (!t) return;
  nm__specials_done(&t->user);
  nm__specials_done(&t->special);
  nm__specials_done(&t->choice);
  nm__pretok_free(t->pretok);
  nm__charsmap_free(t->charsmap);
  nm__hf_free(t->hf);
  nm__buf_done(&t->pool);
  free(t->dict.slot);
  free(t->pairs.slot);
  free(t->extra);
  free(t->piece);
  free(t->path);
  free(t->pre);
  free(t);
}

int nm__tok_size(const struct nm__tok *t) { return t->n; }
const char *nm__tok_family(const struct nm__tok *t) { return t->family->name; }
const char *nm__tok_pre(const struct nm__tok *t) { return t->pre; }
int32_t nm__tok_bos(const struct nm__tok *t) { return t->bos; }
int32_t nm__tok_eos(const struct nm__tok *t) { return t->eos; }
int32_t nm__tok_eot(const struct nm__tok *t) { return t->eot; }
int32_t nm__tok_eom(const struct nm__tok *t) { return t->eom; }
bool nm__tok_adds_bos(const struct nm__tok *t) { return t->add_bos && t->bos >= 0; }

struct nm__str nm__tok_piece(const struct nm__tok *t, int32_t id) {
  if (id < 0 || id >= t->n) return (struct nm__str){"", 0};
  struct nm__span raw = t->piece[id].raw;
  return (struct nm__str){raw.n ? nm__tok_bytes(t, raw) : "", raw.n};
}

/* ---- encoding -------------------------------------------------------- */

int nm__tok_no_token(const struct nm__tok *t, const char *s, size_t n, struct nm__ids *out,
                     nm_err *err) {
  if (t->unk >= 0) return nm__ids_push(out, t->unk);
  char hex[16] = "";
  for (size_t i = 0; i < n && i < 4; i++) {
    static const char digit[] = "0123456789ABCDEF";
    hex[3 * i] = ' ';
    hex[3 * i + 1] = digit[(unsigned char)s[i] >> 4];
    hex[3 * i + 2] = digit[s[i] & 15];
  }
  return nm__fail(err, NM_EFORMAT, "%s: the vocabulary has no token for the byte%s%s, and no "
                  "unknown token", t->path, n > 1 ? "s" : "", hex);
}

int nm__tok_fall_back(const struct nm__tok *t, struct nm__work *w, const char *s, size_t n,
                      nm_err *err) {
  bool whole = true;
  for (size_t i = 0; i < n; i++) whole = whole && t->byte[(unsigned char)s[i]] >= 0;
  int rc = NM_OK;
  if (!whole) {
    if (w->out->n != w->unk_end || !w->unk_end) rc = nm__tok_no_token(t, s, n, w->out, err);
    w->unk_end = w->out->n;
    return rc;
  }
  for (size_t i = 0; i < n && !rc; i++) rc = nm__ids_push(w->out, t->byte[(unsigned char)s[i]]);
  return rc;
}

static void work_done(struct nm__work *w) {
  nm__merge_done(&w->merge);
  nm__buf_done(&w->text);
  nm__buf_done(&w->key);
  free(w->node);
}

/* The text between and around the cuts goes to the family. */
static int encode_cut(const struct nm__tok *t, struct nm__work *w, const char *s, size_t n,
                      const struct nm__cut *cut, size_t n_cuts, nm_err *err) {
  size_t at = 0;
  int rc = NM_OK;
  for (size_t i = 0; i <= n_cuts && !rc; i++) {
    size_t end = i < n_cuts ? cut[i].at : n;
    if (end > at) rc = t->family->run(t, w, s + at, end - at, err);
    if (i == n_cuts || rc) break;
    rc = nm__ids_push(w->out, cut[i].id);
    at = end + cut[i].n;
  }
  return rc;
}

static int encode_text(const struct nm__tok *t, const char *s, size_t n, bool special,
                       struct nm__ids *out, nm_err *err) {
  struct nm__work w = {.out = out};
  nm__buf_init(&w.text, 4 * (size_t)MAX_TEXT);
  nm__buf_init(&w.key, UINT32_MAX);
  struct nm__cut *cut;
  size_t n_cuts;
  int rc = nm__specials_cut(special ? &t->special : &t->user, s, n, &cut, &n_cuts);
  if (!rc) rc = encode_cut(t, &w, s, n, cut, n_cuts, err);
  free(cut);
  work_done(&w);
  return rc;
}

static int encode(const struct nm__tok *t, const char *text, size_t n, struct nm__tok_opts o,
                  struct nm__ids *out, nm_err *err) {
  int rc = NM_OK;
  if (!o.no_bos && nm__tok_adds_bos(t)) rc = nm__ids_push(out, t->bos);
  if (!rc && n) rc = encode_text(t, text, n, o.parse_special, out, err);
  if (!rc && !o.no_bos && t->add_eos && t->eos >= 0) rc = nm__ids_push(out, t->eos);
  return rc;
}

int nm__tok_encode(const struct nm__tok *t, const char *text, size_t n, struct nm__tok_opts o,
                   struct nm__ids *out, nm_err *err) {
  if (n > MAX_TEXT)
    return nm__fail(err, NM_EUSAGE, "tokenising a text of %zu bytes: at most %d at once; split it",
                    n, MAX_TEXT);
  size_t before = out->n;
  int rc = t->hf ? nm__hf_encode(t, text, n, o, out, err) : encode(t, text, n, o, out, err);
  if (rc == NM_EMEMORY) nm__fail_memory(err, "tokenising a text", n);
  if (rc) out->n = before;
  return rc;
}

/* Does the text begin with BOS already? */
static bool begins_with_bos(const struct nm__tok *t, const struct nm__cut *cut, size_t n) {
  return n && cut[0].at == 0 && cut[0].id == t->bos;
}

int nm__tok_encode_marked(const struct nm__tok *t, const char *text, const uint8_t *user, size_t n,
                          struct nm__tok_opts o, struct nm__ids *out, nm_err *err) {
  if (n > MAX_TEXT)
    return nm__fail(err, NM_EUSAGE, "tokenising a prompt of %zu bytes: at most %d at once", n,
                    MAX_TEXT);
  struct nm__work w = {.out = out};
  struct nm__cut *cut;
  size_t n_cuts, before = out->n;
  nm__buf_init(&w.text, 4 * (size_t)MAX_TEXT);
  nm__buf_init(&w.key, UINT32_MAX);
  int rc = nm__specials_cut_marked(t, text, user, n, &cut, &n_cuts);
  if (!rc && !o.no_bos && nm__tok_adds_bos(t) && !begins_with_bos(t, cut, n_cuts))
    rc = nm__ids_push(out, t->bos);
  if (!rc) rc = encode_cut(t, &w, text, n, cut, n_cuts, err);
  free(cut);
  work_done(&w);
  if (rc == NM_EMEMORY) nm__fail_memory(err, "tokenising a prompt", n);
  if (rc) out->n = before;
  return rc;
}

/* ---- decoding -------------------------------------------------------- */

/* Does SPM put its space prefix in front of the text that follows this token? Where an
 * unknown token can stand for a mere character, it does not. */
static bool prefix_follows(const struct nm__tok *t, const struct nm__piece *p) {
  if (!t->prefix) return false;
  if (p->type == NM__TOK_UNKNOWN) return t->all_bytes;
  return p->type == NM__TOK_CONTROL || p->type == NM__TOK_USER;
}

static bool begins_with_space(const struct nm__tok *t, const struct nm__piece *p) {
  return p->type != NM__TOK_BYTE && p->out.n && *nm__tok_bytes(t, p->out) == ' ';
}

/* Encoding puts a space in front of every run, so one is taken off at the start and
 * behind every special token that is written. Behind one that is left out it stays:
 * there it parts the words around. */
int nm__tok_decode(const struct nm__tok *t, const int32_t *id, size_t n, bool special,
                   struct nm__buf *out, nm_err *err) {
  if (t->hf) {
    int rc = nm__hf_decode(t, id, n, special, out, err);
    return rc == NM_EMEMORY ? nm__fail_memory(err, "decoded text", out->max) : rc;
  }
  bool prefix = t->prefix;
  for (size_t i = 0; i < n; i++) {
    if (id[i] < 0 || id[i] >= t->n)
      return nm__fail(err, NM_EFORMAT, "%s: token id %d is out of range, the vocabulary has %d",
                      t->path, id[i], t->n);
    const struct nm__piece *p = &t->piece[id[i]];
    if (p->type == NM__TOK_CONTROL && !special) continue;
    bool own = prefix_follows(t, p);
    size_t skip = prefix && !own && begins_with_space(t, p);
    if (p->out.n) {
      nm__buf_put(out, nm__tok_bytes(t, p->out) + skip, p->out.n - skip);
      prefix = own;
    }
  }
  return out->failed ? nm__fail_memory(err, "decoded text", out->max) : NM_OK;
}
