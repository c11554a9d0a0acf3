/* depth.h - the parts of the concept-depth study (Jin et al., arXiv 2404.07066):
 *
 *   data     labelled texts, prompts, token ids           depth_data.c
 *   capture  last-token vectors of every layer, answers   depth_capture.c
 *   probe    one probe, linear or a forest                depth_probe.c
 *   fit      probes, controls, jump and converging point  depth_fit.c
 *   causal   does adding the direction move the answer    depth_causal.c
 *   show     terminal, CSV, JSON, SVG, HTML               depth_show.c
 *   drive    the order of all that, records               depth.c
 *   sides    several runs beside each other               depth_sides.c, depth_sides_show.c */
#ifndef NM_STUDY_DEPTH_H
#define NM_STUDY_DEPTH_H

#include "file/table.h"
#include "look/forest.h"
#include "look/probe.h"
#include "model/model.h"

struct nm__depth_prompt { const char *name, *text, *answer; };
const struct nm__depth_prompt *nm__depth_prompt_for(const struct nm__table *t,
                                                    const struct nm__labelled *l);

struct nm__depth_set {
  char *name, *path, hash[33];
  struct nm__labelled lab;
  const char *prompt_name;
  char *prompt;                    /* template with {text} */
  nm_seq *seqs, *answers;          /* [n]: prompts; prompts with the answer cue */
  uint32_t *origin;                /* [n] which row of the file */
  size_t n, too_long;
  /* Of each label the single-token spellings of the answer that says it. */
  struct nm__depth_says { int32_t id[8]; int n; } says[NM__LABELS_MAX];
  const char *cannot_say;          /* why the model cannot be asked; NULL: it can */
};
int nm__depth_set_load(const nm_model *m, int n_ctx, const char *spec, const nm_depth_opts *o,
                       struct nm__depth_set *s, nm_err *err);
void nm__depth_set_done(struct nm__depth_set *s);
/* template with {text} replaced; the text is appended when there is no {text}. */
char *nm__depth_fill(const char *template, const char *text);

/* The study's view of one capture: a folder of shards. */
struct nm__depth_vectors { char *dir; int D, n_layers; size_t n; const char *site, *prefix; };
int nm__depth_capture(nm_engine *e, const nm_seq *seqs, size_t n, const char *site, int to_layer,
                      nm_edits *edits, const char *cache, const nm_progress *p,
                      struct nm__depth_vectors *v, nm_err *err);
void nm__depth_vectors_done(struct nm__depth_vectors *v);
/* Row layer of the study: 0 is the embedding. out: [n, D]. */
int nm__depth_vectors_read(const struct nm__depth_vectors *v, int row, float *out, nm_err *err);
/* Log-odds of yes over no after each answer prompt: [n]; with more than two labels the number of
 * the label whose answer is likeliest. */
int nm__depth_answers(nm_engine *e, const struct nm__depth_set *s, const uint32_t *rows, size_t n,
                      nm_edits *edits, double *log_odds, const nm_progress *p, nm_err *err);

/* ---- one probe -------------------------------------------------------------- */

struct nm__depth_probe {
  int n_labels, d;
  struct nm__logreg *linear;       /* one for two labels, else one for each; NULL: a forest */
  struct nm__forest forest;
};
struct nm__depth_probe_opts { bool forest; double C; uint64_t seed; struct nm__pool *pool; };
/* n probes on the same N rows of d features; label[i]: [N], NM__LOGREG_SKIP for rows that are not
 * for training. */
int nm__depth_probe_fit(const float *x, int d, size_t N, const uint8_t *const *label, int n,
                        int n_labels, const struct nm__depth_probe_opts *o,
                        struct nm__depth_probe *out, nm_err *err);
/* Of two labels one score, above 0 for label 1; else [n_labels], the highest of which counts. */
void nm__depth_probe_score(const struct nm__depth_probe *p, const float *x, double *score);
void nm__depth_probe_done(struct nm__depth_probe *p);
int nm__depth_words(const struct nm__sparse *x, const struct nm__split *sp, const uint8_t *label,
                    int n_labels, double C, double *accuracy, nm_err *err);

int nm__depth_fit(struct nm__pool *pool, const struct nm__depth_set *s,
                  const struct nm__depth_vectors *real, const struct nm__depth_vectors *random,
                  const nm_depth_opts *o, nm_depth_curve *c, nm_err *err);
int nm__depth_causal(nm_engine *e, const struct nm__depth_set *s, const nm_depth_opts *o,
                     const char *dir, nm_depth_curve *c, nm_err *err);
int nm__probe_save(const char *path, const nm_model *m, const struct nm__depth_set *s,
                   const struct nm__depth_vectors *v, const nm_depth_opts *o,
                   const nm_depth_curve *c, nm_err *err);
/* From bytes, as nm_probe_load does from a file. */
int nm__probe_parse(const char *name, const char *bytes, size_t n, nm_probe **out, nm_err *err);
/* From bytes, as nm_texts_load does. */
int nm__texts_parse(const char *name, const void *bytes, size_t n, const char *col, nm_texts *out,
                    nm_err *err);
int nm__depth_write(const nm_depth_result *r, const nm_model *m, const nm_depth_opts *o,
                    nm_err *err);

/* mean with the corrected resampled 95 % interval (Nadeau and Bengio 2003): splits overlap, so
 * the variance of the mean is (1/r + n_test/n_train) s^2. */
nm_interval nm__depth_interval(const double *v, int r, double n_test, double n_train);

#endif
