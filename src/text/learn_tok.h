/* learn_tok.h - tokenizers made from texts, as tokenizer.ggml.* keys that any reader of GGUF
 * knows.
 *
 *   char  every character of the texts is a token (family t5); unknown characters are <unk>
 *   word  every word between single spaces is a token (family t5): "▁word"; unknown words
 *         become <unk>, or a known beginning and <unk>; texts with line breaks are refused
 *   bpe   byte-level BPE (family gpt2, split as GPT-2 does): the most frequent pair of symbols is
 *         merged again and again, on ties the pair that was made first (Sennrich et al., arXiv
 *         1508.07909); any bytes have a form
 *
 * `size` is the whole vocabulary, special tokens included. char and word keep the most frequent
 * (0: all); bpe makes as many merges as fit, fewer when no pair is left that occurs twice. A
 * text gets a BOS in front; bpe has one control token, "<|endoftext|>", as BOS and EOS, the others
 * "<s>" and "</s>". */
#ifndef NM_TEXT_LEARN_TOK_H
#define NM_TEXT_LEARN_TOK_H

#include "file/gguf.h"

/* A container with the keys alone, closed by the caller. The same texts in the same order or in
 * another give the same keys. NM_EUSAGE for a kind or a size that does not exist. */
int nm__tok_learn(const char *kind, int size, const struct nm__str *texts, size_t n,
                  struct nm__gguf **out, nm_err *err);

/* ---- shared by the files that learn (inside src/text) -------------------- */

/* How often each piece of text occurs. Pieces point into the texts. */
struct nm__count { struct nm__str s; uint64_t n; };
struct nm__counts { struct nm__count *v; size_t n, cap; uint32_t *slot; size_t n_slots; };
int nm__counts_add(struct nm__counts *c, const char *s, size_t n);    /* 0 or NM_EMEMORY */
/* The most frequent first; on ties by bytes. Nothing can be added afterwards. */
void nm__counts_sort(struct nm__counts *c);
void nm__counts_done(struct nm__counts *c);
/* learn_bpe.c: all keys but the ids of special tokens. */
int nm__learn_bpe(struct nm__gguf *g, int size, const struct nm__str *texts, size_t n,
                  int32_t *special, nm_err *err);

#endif
