/* probe.h - linear probes: L2 logistic regression to the optimum, its metrics,
 * seeded and grouped splits, bag-of-words features.
 *
 * Objective (liblinear's and scikit-learn's): 1/2 w.w + C sum_i log(1 + exp(-y_i (w.x_i + b))),
 * y in {-1, +1}; b is not penalised; intercept = false leaves b out and equals liblinear's -s 0
 * without bias. All sums in double, in one fixed order. */
#ifndef NM_LOOK_PROBE_H
#define NM_LOOK_PROBE_H

#include "core/core.h"

struct nm__logreg_opts {
  double C;                        /* 0 means 1 */
  bool no_intercept;
  double tol;                      /* gradient norm to reach; 0 means 1e-6 */
  int max_iter;                    /* Newton steps; 0 means 200 */
  struct nm__pool *pool;           /* NULL: the caller's thread alone, as inside a tile */
};
struct nm__logreg {
  int d;
  double *w, b;
  double objective, grad_norm;
  int iterations;
  bool converged;
};
/* x: rows of `ld` floats, of which the first d are used; `rows` picks n of them (NULL: 0..n-1);
 * label 0/1 is indexed like x. NM_EFORMAT when a value is not finite (names the row) or one class
 * is empty. Truncated Newton with a search along each direction; the same bits whatever the
 * pool. */
int nm__logreg_fit(const float *x, size_t ld, int d, const uint32_t *rows, size_t n,
                   const uint8_t *label, const struct nm__logreg_opts *o, struct nm__logreg *out,
                   nm_err *err);
/* The same for many labels: label[l] is that of out[l], with the bits nm__logreg_fit gives, in much
 * less time, since the rows are read once for all of them. A label NM__LOGREG_SKIP leaves the row
 * out of that fit, so that repeated splits are one call, too. On failure no result is left. */
enum { NM__LOGREG_SKIP = 255 };
int nm__logreg_fit_many(const float *x, size_t ld, int d, const uint32_t *rows, size_t n,
                        const uint8_t *const *label, int n_labels, const struct nm__logreg_opts *o,
                        struct nm__logreg *out, nm_err *err);
/* The same from sparse rows (bag of words): row r has entries idx[ptr[r]..ptr[r+1]-1]. */
struct nm__sparse { size_t n_rows; int d; size_t *ptr; uint32_t *idx; float *val; };
int nm__logreg_fit_sparse(const struct nm__sparse *x, const uint32_t *rows, size_t n,
                          const uint8_t *label, const struct nm__logreg_opts *o,
                          struct nm__logreg *out, nm_err *err);
void nm__logreg_done(struct nm__logreg *m);
double nm__logreg_score(const struct nm__logreg *m, const float *x);     /* w.x + b */
double nm__logreg_score_sparse(const struct nm__logreg *m, const struct nm__sparse *x, size_t row);
double nm__logistic(double z);

struct nm__metrics { double acc, f1, auc; size_t n; };
/* score > 0 predicts 1. F1 of class 1 (0 when undefined). AUC with ties counted half. */
struct nm__metrics nm__metrics_of(const double *score, const uint8_t *label, size_t n);
/* Of several classes: score [n][n_classes], the class with the highest one is said (the first of
 * equals); f1 and auc are means over the classes of what each is against all others. `confusion`
 * (or NULL) [n_classes][n_classes] is added to: rows of a class, by what was said. */
struct nm__metrics nm__metrics_many(const double *score, const uint8_t *label, size_t n,
                                    int n_classes, uint64_t *confusion);
/* Wilson interval of k successes in n at 95 %. */
void nm__wilson(double k, double n, double *lo, double *hi);
/* Quantile q of v (sorted copy, linear interpolation); n >= 1. */
double nm__quantile(const double *v, size_t n, double q);
double nm__mean(const double *v, size_t n);

/* Splits rows 0..n-1 into train and test (test gets `test_share`), shuffled by seed. With groups
 * (numbered below n_groups), whole groups go to one side. Both sides hold all classes there are
 * (at least 0 and 1) or the call fails (NM_EFORMAT with the counts). The order within each side
 * is ascending. */
struct nm__split { uint32_t *train, *test; size_t n_train, n_test; };
int nm__split_make(size_t n, const uint8_t *label, const uint32_t *group, size_t n_groups,
                   double test_share, uint64_t seed, struct nm__split *out, nm_err *err);
void nm__split_done(struct nm__split *s);

/* Shuffled-label control: out[i] is label under a seeded permutation. With groups, the labels are
 * permuted so that class counts stay the same. */
void nm__shuffle_labels(const uint8_t *label, size_t n, uint64_t seed, uint8_t *out);

/* Bag of words: lower-cased runs of letters and digits (UTF-8 bytes >= 0x80 are letters; every
 * other non-space byte is a word of its own); counts. Words are numbered in order of
 * first sight; the vocabulary is built from all rows given. */
int nm__bag_of_words(char *const *text, size_t n, struct nm__sparse *out, nm_err *err);
void nm__sparse_done(struct nm__sparse *s);

#endif
