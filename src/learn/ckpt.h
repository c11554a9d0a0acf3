/* ckpt.h - checkpoints: a series of pairs of files in one folder, from which a run goes on in the
 * same bits.
 *
 *   DIR/checkpoints/step-000200.gguf    the model, as any program opens it; of a run with adapters
 *                                       the adapter
 *   DIR/checkpoints/step-000200.state   the optimiser's state, where the run stood, and the values
 *                                       of learned tensors that the model file does not hold
 *                                       (adapters); a GGUF too
 *
 * The pair counts when both files are whole and name each other: the model holds the hash of what
 * is in the state, the state the hash of the model's bytes. Each is written beside its place,
 * fsynced and renamed, the model first; then the folder is fsynced; only then are older pairs
 * removed. So whatever ends the process, wherever, a whole pair that was there stays.
 *
 *   nm__ckpt_save(dir, &c, m->g, &p, &moments, &keep, err);          after step c.step
 *   nm__ckpt_load(dir, -1, &c, &p, &moments, &found, err);           --resume
 *
 * The model is opened as DIR@200 or DIR@latest (nm__series_path in model/series.h). */
#ifndef NM_LEARN_CKPT_H
#define NM_LEARN_CKPT_H

#include "learn/learn.h"
#include "model/series.h"

#define NM__CKPT_KEY "noema.checkpoint."               /* what a checkpoint's own keys begin with */

/* Where a run stands, and what it is. Hashes are 32 hex digits, "" where there is nothing; they
 * and the seed must be the same when it goes on. */
struct nm__ckpt {
  int64_t step;                    /* steps done; 0 .. 999999999 */
  uint64_t seed;
  char recipe[33];                 /* of everything that changes a result, as one text */
  char base[33];                   /* of the model that training began from */
  char data[33];
  int64_t samples, tokens;         /* taken from the stream so far: where it goes on */
  double loss, best;               /* of the last step; the best of a test so far */
  int64_t best_step;
  char note[256];                  /* anything else the caller must find again, UTF-8 */
};

/* The optimiser's state: one array a learned tensor, in the order of p->v. */
struct nm__moments { float **v; size_t *n; };
int nm__moments_make(const struct nm__params *p, const enum nm__optim_kind *kind,
                     struct nm__moments *out, nm_err *err);     /* kind: one a tensor; zeros */
void nm__moments_done(struct nm__moments *s, const struct nm__params *p);

/* The newest `last` pairs stay (0: all of them), and those whose step is a multiple of `every`
 * (0: none for that). */
struct nm__keep { int last; int64_t every; };

/* Writes the pair of c->step. `model` is written as it is, without keys of an older checkpoint and
 * with rows in the order that a file holds. The folder is made. A failure (disk full) is a
 * sentence; no other pair has changed, and what was half written is gone. */
int nm__ckpt_save(const char *dir, const struct nm__ckpt *c, const struct nm__gguf *model,
                  const struct nm__params *p, const struct nm__moments *s,
                  const struct nm__keep *keep, nm_err *err);

/* Removes what a save of that step would have removed: for a run that goes on, which may have been
 * ended between the two. The pair of `step` is known to be whole (it was just loaded). */
int nm__ckpt_tidy(const char *dir, int64_t step, const struct nm__keep *keep, nm_err *err);

/* Fills p->values, s and *found from the pair of that step, or with step -1 from the newest pair
 * that is whole; NM_EFORMAT when there is none. `expect` names recipe, base, data and seed: where
 * one differs it is NM_EUSAGE and nothing has changed. found->skipped says why newer pairs were
 * passed over ("": none was); found->none: there is no state file at all (the run was ended before
 * its first checkpoint), which is NM_EFORMAT too. */
struct nm__ckpt_found { struct nm__ckpt at; bool none; char skipped[512]; };
int nm__ckpt_load(const char *dir, int64_t step, const struct nm__ckpt *expect,
                  struct nm__params *p, struct nm__moments *s, struct nm__ckpt_found *found,
                  nm_err *err);

/* Whether the pair of a step is whole (reads both files), and where the run stood. */
int nm__ckpt_check(const char *dir, int64_t step, struct nm__ckpt *out, nm_err *err);

/* ---- the state file (ckpt_state.c) -------------------------------------- */

/* What it holds of one learned tensor; value NULL: the model file holds it. */
struct nm__ckpt_part {
  struct nm__str name;
  int64_t rows, cols;
  const float *state, *value;
  size_t n_state;
};
struct nm__ckpt_state {
  struct nm__ckpt at;
  struct nm__ckpt_part *part;
  size_t n;
  char hash[33];                   /* of all that stands above */
  char model[33];                  /* of the model file's bytes */
  struct nm__gguf *g;              /* the file that parts point into */
};
void nm__ckpt_state_hash(const struct nm__ckpt_state *s, char hex[33]);
int nm__ckpt_state_write(const char *path, const struct nm__ckpt_state *s, nm_err *err);
/* Every count and size is checked before it is used, and the hashes. Nothing is copied: a parsed
 * file's bytes must stay. */
int nm__ckpt_state_open(const char *path, struct nm__ckpt_state *out, nm_err *err);
int nm__ckpt_state_parse(const char *name, const void *bytes, size_t n,
                         struct nm__ckpt_state *out, nm_err *err);
void nm__ckpt_state_close(struct nm__ckpt_state *s);

/* The keys of a model that a file of it holds, but those of a checkpoint it came from. */
void nm__ckpt_put_keys(struct nm__gguf_writer *w, const struct nm__gguf *g);

#endif
