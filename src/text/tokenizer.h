/* tokenizer.h - text to token ids and back, from a GGUF's tokenizer.ggml.* keys or its
 * tokenizer.huggingface.json (family "hf", see hf.h).
 *
 * Families: "llama" (SentencePiece BPE by score, here SPM), "gpt2" (byte-level BPE by
 * merge rank), "bert" (WordPiece, here WPM) and "t5" (SentencePiece unigram, here UGM).
 * A family is one file with one vtable; others are refused by name. Any byte string is
 * accepted as text. SPM and BPE tokenise invalid UTF-8 byte-wise where the vocabulary can
 * (decode gives the bytes back); UGM and WPM read a text through a normal form, which
 * decode cannot undo.
 * A tokenizer is read-only after opening: use it from any number of threads. */
#ifndef NM_TEXT_TOKENIZER_H
#define NM_TEXT_TOKENIZER_H

#include "file/gguf.h"

struct nm__tok;

/* False when the keys name no tokenizer, or say that there is none: ids only, no fault. */
bool nm__tok_here(const struct nm__gguf *g);
/* Copies what it needs. NM_EFORMAT when the keys are missing or inconsistent.
 * `warn` (may be NULL) gets one sentence when tokenizer.ggml.pre is not known, or is known
 * but has not been checked against recorded ids. */
int nm__tok_open(const struct nm__gguf *g, struct nm__tok **out, nm_err *warn, nm_err *err);
void nm__tok_free(struct nm__tok *t);

struct nm__ids { int32_t *id; size_t n, cap; };
void nm__ids_done(struct nm__ids *v);
int nm__ids_push(struct nm__ids *v, int32_t id);  /* 0 or NM_EMEMORY */

struct nm__tok_opts {
  bool no_bos;                     /* leave out BOS/EOS (CLS/SEP) even where the file asks */
  bool parse_special;              /* "<|eot|>" in the text becomes the control token */
};
/* Appends to out. */
int nm__tok_encode(const struct nm__tok *t, const char *text, size_t n, struct nm__tok_opts o,
                   struct nm__ids *out, nm_err *err);
/* A prompt made of trusted and of foreign bytes: user[i] is 1 where byte i is a user's. Control
 * tokens are found only where all of a match is trusted; the text between them is tokenised as
 * one run, whoever wrote it. User-defined tokens are found in foreign bytes as in any text,
 * except those that look like markup (<...>, [...]) and either begin with <| or are written by
 * the trusted bytes of this prompt. BOS is added where the file asks for it and the text does not
 * begin with it; EOS never. */
int nm__tok_encode_marked(const struct nm__tok *t, const char *text, const uint8_t *user, size_t n,
                          struct nm__tok_opts o, struct nm__ids *out, nm_err *err);
/* Appends bytes. Control tokens (BOS ...) are written only with `special`. Encoding by SPM
 * and UGM puts a space in front of each run of text, and each word of WPM has one; so one
 * space is dropped at the start and one behind each special token that is written, but none
 * behind one that is left out. NM_EFORMAT for ids out of range. */
int nm__tok_decode(const struct nm__tok *t, const int32_t *id, size_t n, bool special,
                   struct nm__buf *out, nm_err *err);

int nm__tok_size(const struct nm__tok *t);
const char *nm__tok_family(const struct nm__tok *t);     /* "llama", "gpt2", ... */
const char *nm__tok_pre(const struct nm__tok *t);        /* "" but for BPE */
int32_t nm__tok_bos(const struct nm__tok *t);            /* -1: none */
int32_t nm__tok_eos(const struct nm__tok *t);
int32_t nm__tok_eot(const struct nm__tok *t);            /* ends a turn of a chat; -1: none */
int32_t nm__tok_eom(const struct nm__tok *t);            /* ends a message; -1: none */
bool nm__tok_adds_bos(const struct nm__tok *t);
struct nm__str nm__tok_piece(const struct nm__tok *t, int32_t id);  /* as stored in the file */

#endif
