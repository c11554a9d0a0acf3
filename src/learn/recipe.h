/* recipe.h - what a training run is, read from a YAML file. docs/verbs/train.md lists the keys.
 *
 *   struct nm__recipe r;
 *   if (nm__recipe_read("r.yaml", &r, err)) return err->status;     "r.yaml:12: sentence"
 *   nm__recipe_done(&r);
 *
 * Every key is a row of a table with its type and range; what is no row is refused with the
 * nearest one that is. Texts point into the file, which the recipe owns. */
#ifndef NM_LEARN_RECIPE_H
#define NM_LEARN_RECIPE_H

#include "core/yaml.h"
#include "model/shape.h"
#include "tensor/optim.h"

struct nm__texts_list { const char **v; int n; };

enum nm__order { NM__ORDER_FILE, NM__ORDER_SHUFFLED };
enum nm__side { NM__SIDE_BOTH, NM__SIDE_TRAIN, NM__SIDE_TEST };

/* Where samples come from: a JSONL file, or a world. */
struct nm__source {
  const json_t *at;                /* for messages with a line */
  const char *file, *world;
  struct nm__texts_list set;       /* world: KEY=VALUE */
  int n, W, seed;                  /* world: items; seeds of its truth and of the sampling */
  int split;                       /* world: enum nm__side */
  double weight;                   /* in the mixture */
  int from, to;                    /* steps in which it is drawn from: from <= step < to */
  int order;                       /* enum nm__order */
};
struct nm__sources { struct nm__source *v; int n; };

/* The first group one of whose globs matches a tensor's name is that tensor's. */
struct nm__group {
  const json_t *at;
  struct nm__texts_list match;
  struct nm__optim optim;
  int kind;                        /* enum nm__optim_kind, as read */
  double lr, decay, beta1, beta2, eps;         /* lr: times that of the schedule */
};

struct nm__recipe {
  struct nm__yaml y;
  /* The model: a file, or a shape and a tokenizer. */
  const char *base;
  struct nm__shape shape;
  double rope_base, eps, init;
  bool tied;
  const char *tokenizer;
  int tokenizer_size;
  /* What is learned of it. */
  struct nm__texts_list train, lora_targets;
  int lora_rank;                   /* 0: no adapters */
  double lora_alpha;
  /* What from. */
  struct nm__sources data, eval;
  int length, eval_every;
  bool pack, eos;
  double noise;                    /* share of input tokens that are replaced */
  const char *noise_token;         /* by this one; NULL: by any */
  /* How. */
  int batch, slots, steps, seed;
  struct nm__group *group;
  int n_groups;
  struct nm__schedule schedule;
  int schedule_kind, warmup;
  double clip;
  const char *loss;
  bool recompute;
  int precision;                   /* of products: 0 f32, 1 bf16 */
  /* What is kept. */
  int ckpt_every, ckpt_keep;
  const char *out, *save;
};

int nm__recipe_read(const char *path, struct nm__recipe *r, nm_err *err);
int nm__recipe_parse(const char *name, const char *s, size_t n, struct nm__recipe *r,
                     nm_err *err);
void nm__recipe_done(struct nm__recipe *r);

/* ---- tables of keys (keys.c) --------------------------------------------- */

enum nm__key_type {
  NM__K_INT, NM__K_REAL, NM__K_FLAG, NM__K_TEXT, NM__K_TEXTS,  /* texts: one, or a list of them */
  NM__K_WORD,                      /* one of `words`, as its index */
  NM__K_ANY                        /* a const json_t *, looked at by the caller */
};
struct nm__key {
  const char *name;
  enum nm__key_type type;
  size_t at;                       /* where it goes in the struct */
  double lo, hi;                   /* of numbers, both included */
  const char *const *words;        /* ends with NULL */
};
/* Fills `out` from the mapping v ("what" names it in messages); keys that are absent change
 * nothing. The table ends with name NULL. */
int nm__keys_read(const struct nm__yaml *y, const json_t *v, const char *what,
                  const struct nm__key *table, void *out, nm_err *err);

#endif
