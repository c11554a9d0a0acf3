/* hf.h - the inside of the "hf" family: a tokenizer.json as a pipeline.
 *
 *   text -> added tokens -> normalizer -> added tokens -> pre_tokenizer -> model -> ids
 *                                                         ids -> decoder -> text
 *
 * Normalizers, pre-tokenizers and decoders are lists of steps: a Sequence is its members,
 * one after the other. A kind of step is a row of a table: the name in the file, how its
 * fields are read, what it does. What a file asks for and no table has is refused by name.
 *
 * Everything is read-only after opening; what changes during a call is in nm__hf_work. */
#ifndef NM_TEXT_HF_H
#define NM_TEXT_HF_H

#include <jansson.h>

#include "text/tok.h"

/* ---- reading (hf_read.c) ------------------------------------------------ */

/* Where in the file we are, for messages: "pre_tokenizer.pretokenizers[1]". */
struct nm__hf_reader { const char *path; nm_err *err; char place[200]; int depth; };
/* Goes one step further in; gives the length to go back to. */
size_t nm__hf_enter(struct nm__hf_reader *r, const char *name, long index);  /* -1: no index */
void nm__hf_leave(struct nm__hf_reader *r, size_t length);
/* "FILE: PLACE.NAME must be ..."; NAME may be "". */
int nm__hf_refuse(struct nm__hf_reader *r, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* An absent or null field keeps what *out has, unless it is `must`. */
int nm__hf_bool(struct nm__hf_reader *r, const json_t *o, const char *name, bool must, bool *out);
int nm__hf_count(struct nm__hf_reader *r, const json_t *o, const char *name, bool must,
                 int64_t *out);
int nm__hf_text(struct nm__hf_reader *r, const json_t *o, const char *name, bool must,
                struct nm__str *out);          /* points into o */
/* Every field of o must be one of the names, which are parted by spaces. */
int nm__hf_known(struct nm__hf_reader *r, const json_t *o, const char *names);

/* ---- patterns (hf_regex.c) ---------------------------------------------- */

/* A compiled pattern. `literal`: the bytes themselves. Else Oniguruma's Ruby syntax, which
 * is rewritten for PCRE2; what cannot be is refused with a sentence. */
struct nm__hf_regex;
int nm__hf_regex_new(const char *s, size_t n, bool literal, struct nm__hf_regex **out,
                     nm_err *err);
void nm__hf_regex_free(struct nm__hf_regex *re);

struct nm__hf_match { size_t lo, hi; bool match; };
struct nm__hf_matches { struct nm__hf_match *v; size_t n, cap; };
int nm__hf_matches_push(struct nm__hf_matches *m, size_t lo, size_t hi, bool match);

/* ---- a call's memory ---------------------------------------------------- */

/* A part of the text; once `id` is 0 or more it is a token and nothing touches it. */
struct nm__hf_part { size_t at, n; int32_t id; bool first; };   /* first: the text's beginning */
struct nm__hf_parts { struct nm__hf_part *v; size_t n, cap; };
int nm__hf_parts_push(struct nm__hf_parts *p, struct nm__hf_part part);

struct nm__hf_work {
  const struct nm__tok *t;
  struct nm__buf text, next;       /* what the parts are of, and what is being made of it */
  struct nm__buf joined;           /* the runs between added tokens, normalised */
  struct nm__hf_parts parts, made;
  struct nm__hf_matches matches, kept;
  struct nm__work core;            /* of the algorithms that are shared; its out are the ids */
  uint64_t budget;                 /* steps of matching left for this text */
  uint32_t bad;                    /* bytes that are no UTF-8 stand as bad + byte; 0: none */
  nm_err *err;
};
/* Covers s with matches and the text between them, in order, in w->matches. */
int nm__hf_regex_find(const struct nm__hf_regex *re, struct nm__hf_work *w, const char *s,
                      size_t n);
void nm__hf_work_done(struct nm__hf_work *w);

/* ---- steps -------------------------------------------------------------- */

enum nm__hf_behavior {
  NM__HF_REMOVED, NM__HF_ISOLATED, NM__HF_WITH_PREVIOUS, NM__HF_WITH_NEXT, NM__HF_CONTIGUOUS
};
enum nm__hf_prepend { NM__HF_ALWAYS, NM__HF_FIRST, NM__HF_NEVER };

struct nm__hf_kind;
struct nm__hf_step {
  const struct nm__hf_kind *kind;
  bool flag[4];                    /* what they say is the kind's */
  int choice;
  int64_t start, stop;
  struct nm__hf_regex *re;
  struct nm__charsmap *map;
  char *s;                         /* a replacement, a prefix ... */
  size_t n;
};
struct nm__hf_steps { struct nm__hf_step *v; size_t n; };

struct nm__hf_kind {
  const char *name, *fields;       /* as in the file; the fields it may have */
  int (*read)(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s);   /* or NULL */
  int (*run)(const struct nm__hf_step *s, struct nm__hf_work *w);
};
struct nm__hf_table { const struct nm__hf_kind *v; size_t n; const char *members; };
extern const struct nm__hf_table nm__hf_normalizers, nm__hf_pre_tokenizers, nm__hf_decoders;

/* Appends the step that o says, or the members of a Sequence; null adds nothing. */
int nm__hf_steps_read(struct nm__hf_reader *r, const json_t *o, const struct nm__hf_table *table,
                      struct nm__hf_steps *out);
void nm__hf_steps_done(struct nm__hf_steps *v);
int nm__hf_keep_text(struct nm__hf_reader *r, struct nm__hf_step *s, struct nm__str text);
/* {"String": ..} or {"Regex": ..} */
int nm__hf_read_pattern(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s);

/* Normalizers work on all of w->text and write w->next; *first falls when the text's first
 * character is gone. */
int nm__hf_normalize(const struct nm__hf_steps *v, struct nm__hf_work *w, bool *first);
/* Pre-tokenizers work on w->parts, decoders too (a part a token). */
int nm__hf_run_steps(const struct nm__hf_steps *v, struct nm__hf_work *w);

/* The byte alphabet: the character of each byte in UTF-8, and the way back (-1: none). */
void nm__hf_put_byte(struct nm__buf *out, uint8_t byte);
int nm__hf_byte_of(uint32_t cp);
/* Puts the bytes of s, a text of w, in the alphabet. */
void nm__hf_put_bytes(const struct nm__hf_work *w, struct nm__buf *out, const char *s, size_t n);

/* False: a character that is not base64. */
bool nm__hf_from_base64(struct nm__str s, struct nm__buf *out);

/* Unicode's White_Space; a mark that is bound to a character. */
bool nm__hf_is_space(uint32_t cp);
bool nm__hf_is_punct(uint32_t cp);             /* as HF: Unicode's P and all of ASCII's */
/* The code point at s, U+FFFD for what is none; its length is at least 1. */
int nm__hf_next(const char *s, size_t n, uint32_t *cp);

/* ---- the model ---------------------------------------------------------- */

struct nm__hf;
struct nm__hf_model {
  const char *name, *fields;
  int (*open)(struct nm__tok *t, struct nm__hf_reader *r, const json_t *o);
  int (*run)(const struct nm__hf *h, struct nm__hf_work *w, const char *s, size_t n);
};
extern const struct nm__hf_model nm__hf_models[4];

struct nm__hf_added {
  int32_t id;
  bool special, single_word, lstrip, rstrip, normalized;
  struct nm__span text;            /* what is looked for, and what it decodes to */
};

struct nm__hf {
  const struct nm__tok *t;
  struct nm__hf_steps normalizer, pre_tokenizer, decoder;
  bool no_decoder;                 /* tokens are joined with a space */
  bool keeps_bytes;                /* what is no UTF-8 reaches the model byte by byte */
  const struct nm__hf_model *model;
  int32_t n_model;                 /* tokens of the model's vocabulary */
  struct nm__dict all;             /* every token by its text; t->dict has no special ones */
  char *unk, *prefix, *suffix;     /* unk_token (NULL: none), continuing_subword_prefix, ... */
  int64_t max_chars;
  bool fuse_unk, byte_fallback, ignore_merges;
  struct nm__hf_added *added;
  size_t n_added;
  int32_t *added_at;               /* for each token its place in `added`, or -1 */
  struct nm__specials raw, normed; /* ids are places in `added` */
  struct nm__hf_regex *word;       /* a character of a word; NULL: nobody asks */
  struct nm__ids before, after;    /* what the post-processor puts around a text */
};

/* hf_post.c: fills before and after. */
int nm__hf_read_post(struct nm__hf_reader *r, struct nm__hf *h, const json_t *o);
/* hf_open.c: t->hf and the pieces, from the text of a tokenizer.json. */
int nm__hf_open(struct nm__tok *t, const struct nm__gguf *g, nm_err *warn, nm_err *err);
void nm__hf_free(struct nm__hf *h);
/* hf_tok.c */
void nm__hf_work_init(struct nm__hf_work *w, const struct nm__tok *t, size_t n, nm_err *err);
int nm__hf_encode(const struct nm__tok *t, const char *s, size_t n, struct nm__tok_opts o,
                  struct nm__ids *out, nm_err *err);
int nm__hf_decode(const struct nm__tok *t, const int32_t *id, size_t n, bool special,
                  struct nm__buf *out, nm_err *err);

#endif
