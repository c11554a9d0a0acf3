/* tok.h - the inside of a tokenizer, shared by the families in this folder only.
 *
 * A family is one `struct nm__tok_family`: it fills the byte table, the dictionary and
 * each piece's decoded bytes when a vocabulary is opened, and turns one run of text
 * (between special tokens) into ids. The frame in tokenizer.c does the rest.
 *
 * Everything a tokenizer holds is its own; after opening nothing changes any more. What
 * changes during an encode is in `struct nm__work`, one per call. */
#ifndef NM_TEXT_TOK_H
#define NM_TEXT_TOK_H

#include "text/merge.h"
#include "text/pretok.h"
#include "text/tokenizer.h"

enum nm__tok_type {
  NM__TOK_NORMAL = 1, NM__TOK_UNKNOWN, NM__TOK_CONTROL, NM__TOK_USER, NM__TOK_UNUSED, NM__TOK_BYTE
};

struct nm__span { size_t at; uint32_t n; };       /* bytes of the tokenizer's pool */

struct nm__piece {
  struct nm__span raw, out;        /* as stored, and as decoded */
  float score;
  uint8_t type;                    /* enum nm__tok_type */
};

/* ---- dictionary: bytes to id ----------------------------------------- */

struct nm__dict_slot { uint64_t hash; struct nm__span key; int32_t id; };   /* key.n 0: free */
struct nm__dict {
  struct nm__dict_slot *slot;
  size_t n, n_slots;               /* n_slots: 0 or a power of two */
};
/* -1 when there is none. */
int32_t nm__dict_get(const struct nm__dict *d, const char *pool, const char *s, size_t n);
/* The first id a key was given stays. 0 or NM_EMEMORY. */
int nm__dict_put(struct nm__dict *d, const char *pool, struct nm__span key, int32_t id);

/* ---- pairs: (left, right) to rank and merged symbol -------------------- */

struct nm__pair_slot { int32_t left, right, merged; uint32_t rank; };       /* left -1: free */
struct nm__pairs { struct nm__pair_slot *slot; size_t n_slots; };

/* ---- special tokens -------------------------------------------------- */

/* Sorted by bytes; `shorter` is the longest other one that is a proper prefix. */
struct nm__special { const char *s; uint32_t n; int32_t id, shorter; };
struct nm__specials {
  struct nm__special *v;
  size_t n;
  uint32_t first[257];             /* v[first[c]] .. v[first[c + 1] - 1] begin with byte c */
};
struct nm__cut { size_t at; uint32_t n; int32_t id; };

/* ---- the tokenizer --------------------------------------------------- */

struct nm__work;
struct nm__tok_family {
  const char *name;
  int (*open)(struct nm__tok *t, const struct nm__gguf *g, nm_err *warn, nm_err *err);
  int (*run)(const struct nm__tok *t, struct nm__work *w, const char *s, size_t n, nm_err *err);
};
extern const struct nm__tok_family nm__tok_spm, nm__tok_bpe;

struct nm__tok {
  const struct nm__tok_family *family;
  char *path, *pre;                /* for messages; the name of the pre-tokenizer or "" */
  struct nm__piece *piece;
  int32_t n;                       /* pieces */
  struct nm__buf pool;             /* the bytes of all spans */
  struct nm__dict dict;            /* what plain text can become */
  int32_t bos, eos, unk;           /* -1: none */
  bool add_bos, add_eos, prefix;   /* prefix: SPM's space before each run */
  bool by_word;                    /* SPM: no piece goes on across the beginning of a word */
  int32_t byte[256];               /* SPM: token or -1; BPE: symbol */
  bool all_bytes;                  /* every byte has a token, so nothing becomes unk */
  uint32_t longest;                /* bytes of the longest key in dict */
  struct nm__specials user, special;   /* type 4 only; types 2, 3 and 4 */

  /* BPE only. Symbols n, n + 1, ... stand for merge operands that are no tokens. */
  struct nm__pretok *pretok;
  bool whole_first;                /* a pre-token that is a token is not merged up */
  struct nm__pairs pairs;
  struct nm__span *extra;
  int32_t n_extra, cap_extra;
};

struct nm__work {
  struct nm__merge merge;
  struct nm__buf text;             /* SPM's escaped run */
  struct nm__ids *out;
};

static inline const char *nm__tok_bytes(const struct nm__tok *t, struct nm__span s) {
  return t->pool.s + s.at;
}
/* Copies bytes into the pool; false (sticky in the pool) when memory is short. */
bool nm__tok_keep(struct nm__tok *t, const char *s, size_t n, struct nm__span *out);
/* For bytes without a token: pushes unk, or NM_EFORMAT when the vocabulary has none. */
int nm__tok_no_token(const struct nm__tok *t, const char *s, size_t n, struct nm__ids *out,
                     nm_err *err);

/* vocab.c: reads everything that all families share; t->family is set by it. */
int nm__tok_read(struct nm__tok *t, const struct nm__gguf *g, nm_err *err);
/* A flag's value in the file, or `otherwise`. */
int nm__tok_flag(const struct nm__gguf *g, const char *key, bool otherwise, bool *out, nm_err *err);

/* special.c */
int nm__specials_new(const struct nm__tok *t, bool only_user, struct nm__specials *out);
void nm__specials_done(struct nm__specials *v);
/* All cuts of the text in order; the caller frees *out. 0 or NM_EMEMORY. */
int nm__specials_cut(const struct nm__specials *v, const char *s, size_t n, struct nm__cut **out,
                     size_t *n_out);
/* The same where user[i] says which bytes came from a user (nm__tok_encode_marked's rule). */
int nm__specials_cut_marked(const struct nm__tok *t, const char *s, const uint8_t *user, size_t n,
                            struct nm__cut **out, size_t *n_out);

#endif
