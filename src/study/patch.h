/* patch.h - the parts of activation patching and causal tracing:
 *
 *   data   pairs of prompts, tokens, which position answers to which      patch_data.c
 *   run    one pair: base, source, sanity, all its cells, controls        patch_run.c
 *   fit    effects of cells with intervals, the top cell, its controls    patch_fit.c
 *   show   terminal, JSON, heat maps, report                              patch_show.c
 *   drive  folder, cells that are there already, records                  patch.c
 *
 * "Base" is the run that is patched, "source" the one whose activations are put in: corrupt and
 * clean, or clean and corrupt when noising. In tracing both are the clean text, the base with noise
 * on the embeddings of the subject. */
#ifndef NM_STUDY_PATCH_H
#define NM_STUDY_PATCH_H

#include "model/patched.h"

/* What a position is to the place where two prompts differ (or the subject). */
enum nm__role { NM__BEFORE, NM__FIRST, NM__MIDDLE, NM__LAST, NM__AFTER, NM__END, NM__N_ROLES };

struct nm__pair {
  char *clean, *corrupt, *answer, *wrong, *subject;
  nm_seq base, source;
  int *from;                       /* [base.n]: the source's position, -1: none */
  int first, end;                  /* base positions first..end-1 differ (or are the subject) */
  int32_t answer_id, wrong_id;     /* wrong_id -1: none */
  bool same_length, left_out;
  double m_clean;                  /* the metric of the run without patches; per seed: m_corrupt */
  double *m_corrupt;               /* [n_seeds] */
};
struct nm__pairs { struct nm__pair *v; size_t n; bool tracing, same_columns; };
int nm__pairs_load(const nm_model *m, const nm_patch_opts *o, struct nm__pairs *out, nm_err *err);
void nm__pairs_done(struct nm__pairs *p);
enum nm__role nm__pair_role(const struct nm__pair *p, int pos);

/* A component in all layers. */
struct nm__comp { char *name; bool heads; int64_t width; struct nm__sel *sel; };

struct nm__patching {
  nm_model *m;
  nm_engine *e;
  nm_patch_opts o;
  nm_patch_result *r;
  struct nm__pairs pairs;
  struct nm__comp *comp;
  int n_comp, n_seeds;
  int role_col[NM__N_ROLES], n_roles;      /* columns where pairs are not alike; -1: none */
  double sigma;                    /* of embeddings of the subjects */
  double **cell;                   /* [pairs, seeds, comp] -> [L, cols]: the metric; NaN: not yet */
  double *unrelated;               /* [pairs, seeds, comp]: the metric at the top cell */
  size_t n_done;                   /* runs, of r->n_runs */
  void *cells_file;
};
int nm__patch_cols(const struct nm__patching *P, const struct nm__pair *p, int comp);
double *nm__patch_cell(const struct nm__patching *P, size_t pair, int seed, int comp);
/* Whether the cell is known without running: the source's value is the base's. */
bool nm__patch_same(const struct nm__patching *P, const struct nm__pair *p, int comp, int col);
/* All cells of a pair that are not known; first says whether the exactness is to be looked at. */
int nm__patch_pair(struct nm__patching *P, size_t pair, nm_err *err);
/* The top cell of each component with values of an unrelated prompt. */
int nm__patch_unrelated(struct nm__patching *P, size_t pair, nm_err *err);
int nm__patch_sigma(struct nm__patching *P, nm_err *err);
/* Fills the maps; false controls until nm__patch_controls. */
int nm__patch_fit(struct nm__patching *P, nm_err *err);
void nm__patch_controls(struct nm__patching *P);
/* Which of the map's columns a cell of a pair belongs to. */
int nm__patch_col_of(const struct nm__patching *P, const struct nm__pair *p, int comp, int cell);
int nm__patch_keep(struct nm__patching *P, size_t pair, int seed, int comp, int layer, int col,
                   double v, nm_err *err);
/* A line of cells.jsonl, "[pair,seed,component,layer,column,value]". What is no such line (a last
 * one that was cut off) is passed over, and its cell computed again. */
void nm__patch_read_cell(struct nm__patching *P, const char *line, size_t n);
int nm__patch_show(struct nm__patching *P, nm_err *err);

#endif
