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
  const char *group;               /* of its rows that name none; NULL: none */
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

/* One loss of the sum, as written; struct nm__loss_spec is made of it. */
struct nm__loss_key {
  const json_t *at;
  const char *kind, *group, *retain, *site, *where, *probe, *bias;
  const json_t *target;            /* numbers, or the name of an .npy */
  double weight, beta, gamma, smooth;
};

/* Rows or columns of one tensor that are learned alone. */
struct nm__only_key { const json_t *at, *list; const char *tensor; bool by_column; };

/* A vector that is learned and added at a site. */
struct nm__vector_key {
  const json_t *at;
  const char *name, *site, *where;
  double scale;
  bool each;                       /* a vector of its own for each site of the glob */
};

/* An activation that is looked at: its length, and its values in a file. */
struct nm__tap_key { const json_t *at; const char *site, *where; int every, save; };

/* A linear probe at a site on texts with two labels. */
struct nm__probe_key {
  const json_t *at;
  const char *file, *world, *text, *label, *group, *site, *where;
  struct nm__texts_list set;
  int n, W, seed, every;
  double test, C;
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
  int prompt_n;                    /* rows of a soft prompt; 0: none */
  const char *prompt_init, *prompt_from;       /* a text; a file of an earlier one */
  struct nm__only_key *only;
  struct nm__vector_key *vector;
  int n_only, n_vectors;
  /* What from. */
  struct nm__sources data, eval;
  int length, eval_every;
  bool pack, eos;
  double noise;                    /* share of input tokens that are replaced */
  const char *noise_token;         /* by this one; NULL: by any */
  const char *chat, *chat_date;    /* template: a family, the model's, or a file */
  /* How. */
  int batch, slots, steps, seed;
  struct nm__group *group;
  int n_groups;
  struct nm__schedule schedule;
  int schedule_kind, warmup;
  double clip;
  struct nm__loss_key *loss;       /* at least one */
  int n_losses;
  struct nm__texts_list groups;    /* that losses name: group i + 1; rows of none are of group 0 */
  const char *reference;           /* file of the frozen model; NULL: the base */
  bool recompute;
  /* What is looked at. */
  struct nm__tap_key *tap;
  struct nm__probe_key *probe;
  int n_taps, n_probes;
  int precision;                   /* of products: 0 f32, 1 bf16 */
  /* What is kept. */
  int ckpt_every, ckpt_keep;
  const char *out, *save;
};

int nm__recipe_read(const char *path, struct nm__recipe *r, nm_err *err);
int nm__recipe_parse(const char *name, const char *s, size_t n, struct nm__recipe *r,
                     nm_err *err);
void nm__recipe_done(struct nm__recipe *r);

/* The number of a group that some loss names; -1: none does. */
int nm__recipe_group(const struct nm__recipe *r, const char *name);

/* ---- what stands in lists (recipe_lists.c) --------------------------------- */

struct nm__recipe_lists { const json_t *loss, *rows, *columns, *vectors, *taps, *probes; };
int nm__recipe_lists(struct nm__recipe *r, const struct nm__recipe_lists *v, nm_err *err);
void nm__recipe_lists_done(struct nm__recipe *r);

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
/* One mapping, or a list of them, into a new array at *out of structs of `size` bytes that begin
 * as `plain` and hold `const json_t *at` first. An element that is a text is its key `single`
 * (NULL: texts are refused). */
int nm__keys_list(const struct nm__yaml *y, const json_t *v, const char *what, const char *single,
                  const struct nm__key *table, const void *plain, size_t size, void *out, int *n,
                  nm_err *err);

#endif
