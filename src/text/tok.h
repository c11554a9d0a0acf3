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

#include "text/charsmap.h"
#include "text/merge.h"
#include "text/pretok.h"
#include "text/tokenizer.h"

enum nm__tok_type {
  NM__TOK_NORMAL = 1, NM__TOK_UNKNOWN, NM__TOK_CONTROL, NM__TOK_USER, NM__TOK_UNUSED, NM__TOK_BYTE
};

struct nm__span { size_t at; uint32_t n; };       /* bytes of the tokenizer's pool */

struct nm__piece {
  struct nm__span raw, out;        /* as stored, and as decoded */
  double score;
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
int nm__pairs_new(struct nm__pairs *p, size_t n);        /* room for n; 0 or NM_EMEMORY */
/* The pair's slot, or the free one where it goes. */
struct nm__pair_slot *nm__pairs_find(const struct nm__pairs *p, int32_t left, int32_t right);

/* ---- special tokens -------------------------------------------------- */

/* A set of pieces, sorted by bytes; `shorter` is the longest other one that is a proper
 * prefix. */
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
extern const struct nm__tok_family nm__tok_spm, nm__tok_bpe, nm__tok_wpm, nm__tok_ugm;
extern const struct nm__tok_family nm__tok_hf;   /* no run: it has a frame of its own (hf.h) */
#define NM__SPACE "\xE2\x96\x81"  /* U+2581, how SentencePiece writes a space */

struct nm__tok {
  const struct nm__tok_family *family;
  char *path, *pre;                /* for messages; the name of the pre-tokenizer or "" */
  struct nm__piece *piece;
  int32_t n;                       /* pieces */
  struct nm__buf pool;             /* the bytes of all spans */
  struct nm__dict dict;            /* what plain text can become */
  int32_t bos, eos, unk;           /* -1: none; WPM: bos is CLS, eos is SEP */
  int32_t eot, eom;                /* what ends a turn, a message; -1: none */
  bool add_bos, add_eos;           /* families set what holds when the file does not say */
  bool prefix;                     /* SPM, UGM: a space before each run; WPM: each word's */
  bool squeeze;                    /* SPM, UGM: spaces at the ends vanish, runs become one */
  struct nm__charsmap *charsmap;   /* SPM, UGM; NULL: characters stay as they are */
  bool by_word;                    /* SPM: no piece goes on across the beginning of a word */
  int32_t byte[256];               /* SPM: token or -1; BPE: symbol */
  bool all_bytes;                  /* every byte has a token, so nothing becomes unk */
  uint32_t longest;                /* bytes of the longest key in dict */
  struct nm__specials user, special;   /* type 4 only; types 2, 3 and 4 */

  /* Unigram only. */
  struct nm__specials choice;      /* the pieces a path is made of */
  double unk_score;                /* of a character that no piece covers */
  bool float_sums;                 /* sums of scores are rounded as SentencePiece rounds them */

  /* BPE only. Symbols n, n + 1, ... stand for merge operands that are no tokens. */
  struct nm__pretok *pretok;
  bool whole_first;                /* a pre-token that is a token is not merged up */
  struct nm__pairs pairs;
  struct nm__span *extra;
  int32_t n_extra, cap_extra;

  struct nm__hf *hf;               /* of a tokenizer.json; else NULL */
};

struct nm__work {
  struct nm__merge merge;
  struct nm__buf text;             /* SPM, UGM: the run as normalised; WPM: a word */
  struct nm__buf key;              /* WordPiece: what is looked up */
  struct nm__node *node;           /* unigram: best paths */
  size_t cap_nodes;
  size_t unk_end;                  /* out->n behind the last unknown token of a run; 0: none */
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

/* For a character that is no piece: the tokens of its bytes where all of them have one, else
 * unk, of which a run of such characters gets one only. */
int nm__tok_fall_back(const struct nm__tok *t, struct nm__work *w, const char *s, size_t n,
                      nm_err *err);

/* vocab.c: reads everything that all families share; t->family is set by it. */
int nm__tok_read(struct nm__tok *t, const struct nm__gguf *g, nm_err *err);
/* Pieces as SentencePiece writes them: fills dict, byte, longest, by_word and what each piece
 * decodes to. 0 or NM_EMEMORY. */
int nm__tok_open_pieces(struct nm__tok *t);
/* The ids that have keys of their own. */
int nm__tok_read_ids(struct nm__tok *t, const struct nm__gguf *g, nm_err *err);
/* p->out: the piece with spaces for U+2581. False when memory is short. */
bool nm__tok_unescape(struct nm__tok *t, struct nm__piece *p);
/* A flag's value in the file, or `otherwise`. */
int nm__tok_flag(const struct nm__gguf *g, const char *key, bool otherwise, bool *out, nm_err *err);

/* normal.c: SentencePiece's way of preparing a run. _open once all_bytes is set. The text goes
 * to *b; 0 or NM_EMEMORY. */
int nm__tok_open_normal(struct nm__tok *t, const struct nm__gguf *g, nm_err *err);
int nm__tok_normalise(const struct nm__tok *t, struct nm__buf *b, const char *s, size_t n);

/* ---- algorithms that more than one kind of file asks for --------------- */

/* WordPiece (wpm.c): one word, greedily from the left by the longest piece that t->dict has;
 * the first is looked up with `first` in front of it, later ones with `next`. A word that is
 * not covered to its end, or has more than max_chars characters, becomes unk. */
int nm__wordpiece(const struct nm__tok *t, struct nm__work *w, const char *first, const char *next,
                  const char *word, size_t n, size_t max_chars, nm_err *err);

/* Unigram (unigram.c): of all ways to cut the text into normal and user-defined pieces the one
 * with the greatest sum of scores (user-defined ones count 0; on ties, the longer last piece).
 * A character that is no piece costs the least score - 10 and falls back as above.
 * _open once the pieces have their types and scores: fills choice and unk_score. */
int nm__unigram_open(struct nm__tok *t, nm_err *err);
int nm__unigram(const struct nm__tok *t, struct nm__work *w, const char *s, size_t n, nm_err *err);

/* Byte-level BPE writes each byte as a printable character: byte_of[code point] for the 256 of
 * them, else -1 (bpe.c). */
void nm__byte_alphabet(int16_t byte_of[324]);

/* ---- sets of pieces (special.c) ---------------------------------------- */

#define NM__TYPE(type) (1u << NM__TOK_##type)
/* `types`: NM__TYPE(USER) | ... 0 or NM_EMEMORY. */
int nm__specials_new(const struct nm__tok *t, unsigned types, struct nm__specials *out);
/* A set of the pieces v, which it takes over. */
void nm__specials_take(struct nm__special *v, size_t n, struct nm__specials *out);
void nm__specials_done(struct nm__specials *v);
/* Down the sorted set: the pieces that the text at s begins with, from the shortest to the
 * longest. Start with nm__specials_at(v, s, n); -1 when there are no more. */
struct nm__descent { const struct nm__specials *v; const char *s; size_t n, lo, hi, depth; };
struct nm__descent nm__specials_at(const struct nm__specials *v, const char *s, size_t n);
int32_t nm__specials_next(struct nm__descent *d);
/* All cuts of the text in order; the caller frees *out. 0 or NM_EMEMORY. */
int nm__specials_cut(const struct nm__specials *v, const char *s, size_t n, struct nm__cut **out,
                     size_t *n_out);
/* The same where user[i] says which bytes came from a user (nm__tok_encode_marked's rule). */
int nm__specials_cut_marked(const struct nm__tok *t, const char *s, const uint8_t *user, size_t n,
                            struct nm__cut **out, size_t *n_out);

#endif
