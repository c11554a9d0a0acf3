/* split.c - seeded train and test sides, whole groups on one side when there are groups, and
 * shuffled labels for the control.
 *
 * A draw is judged before it is used: small or lopsided data can leave a side without a class, and
 * a probe cannot be fitted or scored there. Such a draw is thrown away and the next one of
 * the same seed is taken, so a split depends on nothing but the data and the seed. */
#include "look/probe.h"

#include <stdlib.h>
#include <string.h>

/* Numbers of streams, so that a split and a shuffle of one seed have nothing in common. */
#define STREAM_SPLIT 0x73706c6974u
#define STREAM_LABELS 0x6c6162656cu
#define DRAWS 200

/* One draw. A unit is a group, or a row where there are none; its size is how many rows it has. */
struct draw {
  size_t n, n_units;
  const uint8_t *label;
  const uint32_t *group;           /* NULL: unit i is row i */
  uint32_t *order;                 /* [n_units] units, shuffled */
  size_t *size;                    /* [n_units] */
  uint8_t *in_test;                /* [n_units] */
  size_t target;                   /* rows the test side should get */
  size_t count[2][256];            /* [side][class] rows; side 1 is the test */
  bool is[256];                    /* classes there are; 0 and 1 always */
};

static size_t unit_of(const struct draw *d, size_t row) { return d->group ? d->group[row] : row; }

/* Units go to the test side in shuffled order. One that would overshoot the target by more
 * than stopping short of it would miss is passed over, so a huge group cannot swallow the test. */
static void take_units(struct draw *d, struct nm__rng *r) {
  size_t have = 0;
  for (size_t i = 0; i < d->n_units; i++) d->order[i] = (uint32_t)i;
  nm__rng_shuffle(r, d->order, d->n_units);
  memset(d->in_test, 0, d->n_units);
  for (size_t i = 0; i < d->n_units && have < d->target; i++) {
    size_t u = d->order[i], with = have + d->size[u];
    if (with > d->target && with - d->target > d->target - have) continue;
    d->in_test[u] = 1;
    have = with;
  }
}

static bool all_classes(struct draw *d) {
  memset(d->count, 0, sizeof d->count);
  for (size_t i = 0; i < d->n; i++) d->count[d->in_test[unit_of(d, i)]][d->label[i]]++;
  for (int c = 0; c < 256; c++)
    if (d->is[c] && (!d->count[0][c] || !d->count[1][c])) return false;
  return true;
}

/* A fitting draw, or the counts of the last one in the sentence. */
static int find_draw(struct draw *d, uint64_t seed, nm_err *err) {
  struct nm__rng r = {seed, STREAM_SPLIT, 0};
  int lacks = 0, n_classes = 0;
  d->is[0] = d->is[1] = true;
  for (size_t i = 0; i < d->n; i++) d->is[d->label[i]] = true;
  for (int k = 0; k < DRAWS; k++) {
    take_units(d, &r);
    if (all_classes(d)) return NM_OK;
  }
  for (int c = 255; c >= 0; c--) {
    n_classes += d->is[c];
    if (d->is[c] && (!d->count[0][c] || !d->count[1][c])) lacks = c;
  }
  if (n_classes > 2)
    return nm__fail(err, NM_EFORMAT, "cannot split %zu rows (%zu parts that stay whole) so that "
                    "both sides hold all %d classes: the last of %d tries gave %zu rows of class "
                    "%d for training and %zu for the test", d->n, d->n_units, n_classes, DRAWS,
                    d->count[0][lacks], lacks, d->count[1][lacks]);
  return nm__fail(err, NM_EFORMAT,
                  "cannot split %zu rows (%zu parts that stay whole) so that both sides hold both "
                  "classes: the last of %d tries gave %zu of class 0 and %zu of class 1 for "
                  "training, %zu and %zu for the test", d->n, d->n_units, DRAWS, d->count[0][0],
                  d->count[0][1], d->count[1][0], d->count[1][1]);
}

static int count_units(struct draw *d, nm_err *err) {
  for (size_t i = 0; i < d->n; i++) {
    if (unit_of(d, i) >= d->n_units)
      return nm__fail(err, NM_EUSAGE, "cannot split: row %zu is in group %zu of %zu", i,
                      unit_of(d, i), d->n_units);
    d->size[unit_of(d, i)]++;
  }
  return NM_OK;
}

static int write_sides(const struct draw *d, struct nm__split *out, nm_err *err) {
  size_t n_test = 0;
  for (int c = 0; c < 256; c++) n_test += d->count[1][c];
  size_t n_train = d->n - n_test;
  *out = (struct nm__split){.train = nm__alloc(n_train, sizeof *out->train),
                            .test = nm__alloc(n_test, sizeof *out->test)};
  if (!out->train || !out->test) {
    nm__split_done(out);
    return nm__fail_memory(err, "a split", d->n * sizeof *out->train);
  }
  for (size_t i = 0; i < d->n; i++) {
    if (d->in_test[unit_of(d, i)]) out->test[out->n_test++] = (uint32_t)i;
    else out->train[out->n_train++] = (uint32_t)i;
  }
  return NM_OK;
}

int nm__split_make(size_t n, const uint8_t *label, const uint32_t *group, size_t n_groups,
                   double test_share, uint64_t seed, struct nm__split *out, nm_err *err) {
  *out = (struct nm__split){0};
  if (!(test_share > 0 && test_share < 1) || n > UINT32_MAX)
    return nm__fail(err, NM_EUSAGE, "cannot split %zu rows with a test share of %g: it lies "
                    "between 0 and 1", n, test_share);
  struct draw d = {.n = n, .n_units = group ? n_groups : n, .label = label, .group = group,
                   .target = (size_t)(test_share * (double)n + 0.5)};
  d.order = nm__alloc(d.n_units, sizeof *d.order);
  d.size = nm__alloc(d.n_units, sizeof *d.size);
  d.in_test = nm__alloc(d.n_units, 1);
  int st = NM_OK;
  if (d.n_units > UINT32_MAX || !d.order || !d.size || !d.in_test)
    st = nm__fail_memory(err, "a split", d.n_units * 13);
  if (!st) st = count_units(&d, err);
  if (!st) st = find_draw(&d, seed, err);
  if (!st) st = write_sides(&d, out, err);
  free(d.order);
  free(d.size);
  free(d.in_test);
  return st;
}

void nm__split_done(struct nm__split *s) {
  free(s->train);
  free(s->test);
  *s = (struct nm__split){0};
}

void nm__shuffle_labels(const uint8_t *label, size_t n, uint64_t seed, uint8_t *out) {
  struct nm__rng r = {seed, STREAM_LABELS, 0};
  memmove(out, label, n);
  for (size_t i = n; i > 1; i--) {
    size_t j = (size_t)nm__rng_below(&r, i);
    uint8_t t = out[i - 1];
    out[i - 1] = out[j];
    out[j] = t;
  }
}
