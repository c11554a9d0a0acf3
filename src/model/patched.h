/* patched.h - many runs of one text, each with some activations replaced.
 *
 *   struct nm__base *b;
 *   nm__base_open(e, text, NULL, 0, &b, err);            the text as it is, once
 *   struct nm__patch p = {sel, pos, values};
 *   nm__base_run(b, &(struct nm__patched){&p, 1}, 1, take, arg, err);
 *
 * A patch at block l, position p changes nothing before p and nothing below l. So a patched run
 * reads the keys of earlier positions from the base, begins at block l with the base's stream, and
 * computes positions p..T-1 only. The bits are those of computing everything. */
#ifndef NM_MODEL_PATCHED_H
#define NM_MODEL_PATCHED_H

#include "model/model.h"

/* The columns of sel at position pos become v (as many values as sel is wide). */
struct nm__patch { struct nm__sel sel; int pos; const float *v; };
struct nm__patched { const struct nm__patch *p; int n; };

struct nm__base;
/* Runs the text with patches of its own, which may be at `embed`, and keeps keys, values and the
 * stream before every block. text.ids and the values must live as long. NM_EUSAGE for encoders. */
int nm__base_open(nm_engine *e, nm_seq text, const struct nm__patch *p, int n,
                  struct nm__base **out, nm_err *err);
void nm__base_close(struct nm__base *b);
const float *nm__base_logits(const struct nm__base *b);  /* [V], after the last token */
/* Any number of runs; consecutive ones are batched, so runs of one block should be neighbours. The
 * logits after the last token go to take(arg, run, logits) in order. Patches may not be at embed,
 * attention scores or patterns, single experts, or behind the last block. */
int nm__base_run(struct nm__base *b, const struct nm__patched *runs, size_t n,
                 int (*take)(void *arg, size_t run, const float *logits, nm_err *err), void *arg,
                 nm_err *err);
bool nm__patchable(const nm_model *m, struct nm__sel s);
/* Bytes for a text of T tokens: keys and values, activations. */
int nm__base_measure(nm_engine *e, int T, nm_memory *out, nm_err *err);

#endif
