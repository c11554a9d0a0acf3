/* pretok.h - splitting a run of text into the pre-tokens of byte-level BPE.
 *
 * A pre-tokenizer is a list of patterns: the first splits the run, the next splits each
 * piece so far, and so on; text between matches stays as pieces of its own. Invalid
 * UTF-8 is no error: each byte of it is a piece, and the text around it is split as if
 * it ended there.
 *
 *   struct nm__pretok *p;
 *   if (nm__pretok_new("qwen2", 5, &p, err)) return err->status;
 *   nm__pretok_split(p, text, n, emit, arg, err);
 *   nm__pretok_free(p);
 *
 * Read-only after nm__pretok_new: use it from any number of threads. */
#ifndef NM_TEXT_PRETOK_H
#define NM_TEXT_PRETOK_H

#include "core/core.h"

struct nm__pretok;

/* A name that is not in the table gets the default list and `known` false. */
int nm__pretok_new(const char *name, size_t n, struct nm__pretok **out, nm_err *err);
void nm__pretok_free(struct nm__pretok *p);
bool nm__pretok_known(const struct nm__pretok *p);
/* Are there recorded ids of a vocabulary of this name that noema's equal? */
bool nm__pretok_checked(const struct nm__pretok *p);
bool nm__pretok_whole_first(const struct nm__pretok *p); /* tokens are not merged up to */
bool nm__pretok_adds_bos(const struct nm__pretok *p);    /* where the file does not say */

/* Calls emit for the pieces from left to right; its nonzero status ends the split. */
typedef int nm__pretok_emit(void *arg, const char *s, size_t n, nm_err *err);
int nm__pretok_split(const struct nm__pretok *p, const char *s, size_t n, nm__pretok_emit *emit,
                     void *arg, nm_err *err);

#endif
