/* mini.h - a miniature: a small decoder trained from nothing on levels of worlds, so that a study
 * knows what its model can do and what it was shown.
 *
 *   mini_words.c   the vocabulary of some worlds, their items as token ids
 *   mini.c         the model before training, one training run
 *   mini_file.c    its file, rounding of its weights
 *
 * A level is a world with parameters. Training and evaluation draw items of different seeds. */
#ifndef NM_STUDY_MINI_H
#define NM_STUDY_MINI_H

#include "learn/learn.h"

enum { NM__MINI_LEVELS = 8, NM__MINI_WORD = 32, NM__MINI_LONGEST = 256, NM__MINI_SET = 5 };

/* ---- mini_words.c ------------------------------------------------------------ */

/* `set` is what items are trained with, `probe` what they are examined with: a parameter of the
 * world each, or NULL. `share` of the training tokens; 0: examined only. */
struct nm__mini_level {
  const char *name, *about, *world;
  const char *set[NM__MINI_SET], *probe[NM__MINI_SET];
  double share;
};

struct nm__mini_words {
  char (*word)[NM__MINI_WORD];     /* in the order of their bytes; [0] is in no world */
  int n;
};
/* Every word that items of the levels are made of. */
int nm__mini_words_make(const struct nm__mini_level *l, int n, uint64_t W,
                        struct nm__mini_words *out, nm_err *err);
void nm__mini_words_done(struct nm__mini_words *w);
/* The id of a word, or -1. */
int32_t nm__mini_word(const struct nm__mini_words *w, const char *s, size_t n);

/* The world of a level as it is trained (probe: examined). */
int nm__mini_world(const struct nm__mini_level *l, bool probe, uint64_t W, uint64_t seed,
                   nm_world **out, nm_err *err);
/* An item for training into s, whose arrays have room for `room` tokens. */
int nm__mini_sample(const struct nm__mini_words *w, const struct nm__mini_level *l,
                    const nm_world_item *it, struct nm__sample *s, int room, nm_err *err);

/* Items to be examined: the question's ids, the answer's first id, its class and its twin. */
struct nm__mini_items {
  nm_seq *seq;
  int32_t *answer;
  uint8_t *label;
  uint32_t *twin;                  /* numbered from 0 */
  size_t n, n_twins;
};
/* n fresh items, in twins. `prefix`: the word of no world stands in front of each. */
int nm__mini_items_make(const struct nm__mini_level *l, uint64_t W, uint64_t seed, size_t n,
                        bool prefix, const struct nm__mini_words *words, struct nm__mini_items *out,
                        nm_err *err);
void nm__mini_items_done(struct nm__mini_items *t);

/* ---- mini.c, mini_file.c ------------------------------------------------------------------- */

struct nm__mini_shape {
  int L, D, H, F;
  double rope_base, final_gain;    /* what the final norm's weights start at */
  double nats;                     /* by which head 0 first prefers the previous token */
  int back;                        /* heads so preset: head 0 for one token before, 1 for two .. */
  bool alike;                      /* see `alike` in mini.c */
};

struct nm__mini_recipe {
  struct nm__mini_shape shape;
  int steps, tokens;               /* a step */
  double lr, warmup, tail, decay, clip;
  /* The level `late` (-1: none) waits until `before` answers `pass` of fresh items rightly; from
   * then on it has `late_share` of what both have. */
  int late, before;
  double pass, late_share;
};

struct nm__mini {
  struct nm__mini_words words;
  struct nm__gguf *start;          /* keys and first values */
  struct nm__params p;
  nm_model *m;                     /* reads p.values */
  struct nm__mini_recipe r;
  int late_from;                   /* the step at which `late` joined, or -1 */
  double loss, tokens, seconds;    /* of the last steps; of the whole run */
};
/* A model of untrained weights, a function of the shape, the words and the seed. */
int nm__mini_new(const struct nm__mini_recipe *r, const struct nm__mini_level *l, int n_levels,
                 uint64_t W, uint64_t seed, struct nm__mini *out, nm_err *err);
/* The same of V tokens that no world gives: `words` is empty. */
int nm__mini_blank(const struct nm__mini_recipe *r, int V, uint64_t seed, struct nm__mini *out,
                   nm_err *err);
void nm__mini_done(struct nm__mini *t);

/* Where batches come from: `next` fills one in, whose samples live until the next call; `after`
 * (or NULL) is called when the step is done. */
struct nm__mini_batch { const struct nm__sample *const *v; int n, n_tokens; };
struct nm__mini_source {
  int (*next)(void *arg, int64_t step, struct nm__mini_batch *b, nm_err *err);
  int (*after)(void *arg, int64_t step, nm_err *err);
  void *arg;
};
/* Trains by the recipe on what the source gives: the loss on weighted tokens. */
int nm__mini_learn(struct nm__mini *t, const struct nm__mini_source *from, int threads,
                   const char *label, const nm_progress *p, nm_err *err);
/* The weights of DIR/FILE where that is of this recipe (see nm__mini_load), else trained and kept
 * there. After an error t is done with. */
int nm__mini_get(struct nm__mini *t, const char *dir, const char *file, const char *recipe,
                 const struct nm__mini_source *from, int threads, const nm_progress *p,
                 nm_err *err);
/* On items of levels. `label` is what the progress says is done; loss and tokens a second follow
 * behind a comma. */
int nm__mini_train(struct nm__mini *t, const struct nm__mini_level *l, int n_levels, uint64_t W,
                   uint64_t seed, int threads, const char *label, const nm_progress *p,
                   nm_err *err);
/* A GGUF that any noema verb reads by ids; `recipe` is kept in it. Loading gives false when there
 * is no file, or one of another recipe or other tensors: then nothing is changed. */
int nm__mini_save(const struct nm__mini *t, const char *path, const char *recipe, nm_err *err);
bool nm__mini_load(struct nm__mini *t, const char *path, const char *recipe);
/* Share of items whose answer is the likeliest token. */
int nm__mini_exact(const nm_model *m, const struct nm__mini_items *t, int threads, double *share,
                   nm_err *err);
/* Values of all matrices of blocks to 2^(bits-1) - 1 levels on each side of zero, a scale a row
 * (absmax). bits 2 .. 8. */
void nm__mini_round(struct nm__params *p, int bits);
/* The most different values that a row of a block's matrices holds. */
int nm__mini_most_values(const struct nm__params *p);

#endif
