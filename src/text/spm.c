/* spm.c - SentencePiece's BPE by score ("llama").
 *
 * Spaces become U+2581, the text is split into characters, and neighbours whose
 * concatenation is a piece are merged, the highest score first. What is no piece in the
 * end falls back to one token a byte.
 *
 * Control, unknown and byte pieces are not reachable from text: the six characters of
 * "<0x0A>" stay six characters, as in SentencePiece itself. */
#include <string.h>

#include "text/tok.h"
#include "text/unicode.h"

/* ---- opening --------------------------------------------------------- */

static int spm_open(struct nm__tok *t, const struct nm__gguf *g, nm_err *warn, nm_err *err) {
  (void)warn;
  if (!nm__gguf_find(g, "tokenizer.ggml.scores"))
    return nm__fail(err, NM_EFORMAT, "%s: tokenizer.ggml.scores is missing, which a 'llama' "
                    "tokenizer needs", t->path);
  if (nm__tok_open_pieces(t)) return nm__fail_memory(err, "the vocabulary", t->pool.len);
  int rc = nm__tok_flag(g, "tokenizer.ggml.add_bos_token", true, &t->add_bos, err);
  return rc ? rc : nm__tok_open_normal(t, g, err);
}

/* ---- a run of text --------------------------------------------------- */

/* Floats in descending order as unsigned numbers in ascending order. Both zeros are one;
 * a NaN has some place. */
static uint64_t urgency(float score) {
  uint32_t u;
  score += 0.0f;
  memcpy(&u, &score, 4);
  u = u & 0x80000000u ? ~u : u | 0x80000000u;
  return UINT32_MAX - u;
}

struct pair_arg { const struct nm__tok *t; const char *s; };

static bool pair(const void *arg, const struct nm__sym *a, const struct nm__sym *b, uint64_t *prio,
                 int32_t *id) {
  const struct pair_arg *p = arg;
  uint32_t len = a->len + b->len;
  if (len > p->t->longest) return false;
  *id = nm__dict_get(&p->t->dict, p->t->pool.s, p->s + a->start, len);
  if (*id < 0) return false;
  *prio = urgency(p->t->piece[*id].score);
  return true;
}

/* Where the part of the run that can be merged on its own ends. When no piece goes on
 * across the beginning of a word, no merge does either, and words are independent: the
 * same ids as merging the whole run at once, ten times faster. */
static size_t part_end(const struct nm__tok *t, const struct nm__buf *b, size_t from) {
  if (!t->by_word) return b->len;
  bool inside = false;
  for (size_t i = from; i < b->len; ) {
    bool space = b->s[i] == NM__SPACE[0] && b->len - i >= 3 && memcmp(b->s + i, NM__SPACE, 3) == 0;
    if (space && inside) return i;
    inside = !space;
    i += space ? 3 : 1;
  }
  return b->len;
}

static int add_characters(const struct nm__tok *t, struct nm__merge *m, const char *s, size_t n) {
  nm__merge_reset(m);
  for (size_t i = 0; i < n; ) {
    uint32_t cp;
    int len = nm__utf8_decode(s + i, n - i, &cp);
    if (len == 0) len = 1;
    int32_t id = nm__dict_get(&t->dict, t->pool.s, s + i, (size_t)len);
    if (nm__merge_add(m, (uint32_t)i, (uint32_t)len, id)) return NM_EMEMORY;
    i += (size_t)len;
  }
  return NM_OK;
}

static int encode_part(const struct nm__tok *t, struct nm__work *w, const char *s, size_t n,
                       nm_err *err) {
  struct nm__merge *m = &w->merge;
  int rc = add_characters(t, m, s, n);
  if (!rc) rc = nm__merge_run(m, pair, &(struct pair_arg){t, s});
  for (uint32_t i = 0; i != NM__NO_SYM && !rc; i = m->sym[i].next) {
    const struct nm__sym *sym = &m->sym[i];
    if (sym->id >= 0) rc = nm__ids_push(w->out, sym->id);
    else rc = nm__tok_fall_back(t, w, s + sym->start, sym->len, err);
  }
  return rc;
}

static int spm_run(const struct nm__tok *t, struct nm__work *w, const char *s, size_t n,
                   nm_err *err) {
  const struct nm__buf *b = &w->text;
  int rc = nm__tok_normalise(t, &w->text, s, n);
  for (size_t at = 0, end; at < b->len && !rc; at = end) {
    end = part_end(t, b, at);
    rc = encode_part(t, w, b->s + at, end - at, err);
  }
  return rc;
}

const struct nm__tok_family nm__tok_spm = {"llama", spm_open, spm_run};
