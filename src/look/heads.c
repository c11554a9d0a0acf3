/* heads.c - scores of heads: the published file format, statistics, ranking. */
#include "look/heads.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "file/table.h"

static size_t n_heads(const struct nm__head_scores *s) { return (size_t)s->L * (size_t)s->H; }

int nm__head_scores_new(int L, int H, size_t trials, struct nm__head_scores *out, nm_err *err) {
  *out = (struct nm__head_scores){.L = L, .H = H, .trials = trials};
  out->v = nm__alloc(n_heads(out), sizeof *out->v);
  out->score = nm__alloc(n_heads(out), trials * sizeof *out->score);
  if (out->v && out->score) return NM_OK;
  nm__head_scores_done(out);
  return nm__fail_memory(err, "scores of heads", (size_t)L * (size_t)H * trials * 8);
}

void nm__head_scores_done(struct nm__head_scores *s) {
  free(s->v);
  free(s->score);
  *s = (struct nm__head_scores){0};
}

void nm__head_scores_fit(struct nm__head_scores *s) {
  for (size_t i = 0; s->score && i < n_heads(s); i++) {
    struct nm__head q = {0, 0, 0};
    for (size_t t = 0; t < s->trials; t++) {
      double x = s->score[i * s->trials + t];
      q.mean += x;
      q.freq += x >= NM__HEADS_COPIES;
      q.max = fmax(q.max, x);
    }
    q.mean /= (double)s->trials;
    q.freq /= (double)s->trials;
    s->v[i] = q;
  }
}

/* ---- reading ----------------------------------------------------------------------- */

struct place { int layer, head; };

/* Sizes from the highest numbers; then n different places must be all of them. */
static int shape(const char *name, const struct place *at, size_t n, size_t trials,
                 struct nm__head_scores *out, nm_err *err) {
  int L = 0, H = 0;
  for (size_t i = 0; i < n; i++) {
    if (at[i].layer >= L) L = at[i].layer + 1;
    if (at[i].head >= H) H = at[i].head + 1;
  }
  if ((size_t)L * (size_t)H != n)
    return nm__fail(err, NM_EFORMAT, "%s: has %zu heads, but layers to %d and heads to %d, which "
                    "are %zu", name, n, L - 1, H - 1, (size_t)L * (size_t)H);
  return nm__head_scores_new(L, H, trials, out, err);
}

static size_t index_of(const struct nm__head_scores *s, struct place at) {
  return (size_t)at.layer * (size_t)s->H + (size_t)at.head;
}

static bool digits(const char **s, int *out) {
  const char *from = *s;
  int v = 0;
  while (**s >= '0' && **s <= '9' && v < NM__HEADS_MOST) v = 10 * v + *(*s)++ - '0';
  *out = v;
  return *s > from && v < NM__HEADS_MOST && !(**s >= '0' && **s <= '9') &&
         (*from != '0' || *s == from + 1);
}

/* "16-19"; numbers have one way of being written, so that no head stands twice. */
static bool read_place(const char *s, struct place *out) {
  return digits(&s, &out->layer) && *s++ == '-' && digits(&s, &out->head) && !*s;
}

static int read_list(const char *name, const char *key, const json_t *list, double *to, size_t n,
                     nm_err *err) {
  if (json_array_size(list) != n)
    return nm__fail(err, NM_EFORMAT, "%s: head %s has %zu scores where others have %zu", name, key,
                    json_array_size(list), n);
  for (size_t i = 0; i < n; i++) {
    const json_t *x = json_array_get(list, i);
    to[i] = json_number_value(x);
    if (!json_is_number(x) || !(to[i] >= 0 && to[i] < 1e6))
      return nm__fail(err, NM_EFORMAT, "%s: score %zu of head %s is no number from 0 on", name,
                      i + 1, key);
  }
  return NM_OK;
}

static int places_of(const char *name, json_t *j, struct place *at, size_t *trials, nm_err *err) {
  const char *key;
  json_t *list;
  size_t i = 0;
  char shown[40];
  json_object_foreach(j, key, list) {
    nm__printable(shown, sizeof shown, key, strlen(key));
    if (!read_place(key, &at[i++]) || !json_is_array(list))
      return nm__fail(err, NM_EFORMAT, "%s: \"%s\" is no head: expected \"LAYER-HEAD\": [score, "
                      "...]", name, shown);
    if (i == 1) *trials = json_array_size(list);
  }
  if (!*trials)
    return nm__fail(err, NM_EFORMAT, "%s: no trial was kept: there are no scores in it", name);
  return NM_OK;
}

static int from_json(const char *name, json_t *j, struct nm__head_scores *out, nm_err *err) {
  size_t n = json_object_size(j), trials = 0, i = 0;
  struct place *at = nm__alloc(n, sizeof *at);
  const char *key;
  json_t *list;
  int st = at ? places_of(name, j, at, &trials, err) : nm__fail_memory(err, name, n * sizeof *at);
  if (!st) st = shape(name, at, n, trials, out, err);
  if (!st)
    json_object_foreach(j, key, list)
      if ((st = read_list(name, key, list, out->score + index_of(out, at[i++]) * trials, trials,
                          err)))
        break;
  free(at);
  if (!st) nm__head_scores_fit(out);
  return st;
}

static bool cell_number(const char *s, double low, double high, double *out) {
  char *end;
  if (!s || !*s) return false;
  *out = strtod(s, &end);
  return !*end && *out >= low && *out <= high;
}

enum { LAYER, HEAD, MEAN, TRIALS, FREQ, MAX, COLUMNS };
static const struct { const char *name; double high; } columns[COLUMNS] = {
    {"layer", NM__HEADS_MOST - 1}, {"head", NM__HEADS_MOST - 1}, {"mean_score", 1e6},
    {"trials", 1e15}, {"freq_score_ge_0.1", 1}, {"max_score", 1e6}};

static int table_numbers(const char *name, const struct nm__table *t, double (*v)[COLUMNS],
                         struct place *at, nm_err *err) {
  int col[COLUMNS];
  for (int k = 0; k < COLUMNS; k++)
    if ((col[k] = nm__table_col(t, columns[k].name)) < 0)
      return nm__fail(err, NM_EFORMAT, "%s: has no column %s; scores of heads are the published "
                      "JSON, or a CSV with layer, head, mean_score, trials, freq_score_ge_0.1, "
                      "max_score", name, columns[k].name);
  for (size_t i = 0; i < t->n_rows; i++) {
    for (int k = 0; k < COLUMNS; k++)
      if (!cell_number(t->cells[i * t->n_cols + (size_t)col[k]], 0, columns[k].high, &v[i][k]))
        return nm__fail(err, NM_EFORMAT, "%s:%zu: column %s is no number from 0 to %g", name,
                        t->line[i], columns[k].name, columns[k].high);
    at[i] = (struct place){(int)v[i][LAYER], (int)v[i][HEAD]};
    if (at[i].layer != v[i][LAYER] || at[i].head != v[i][HEAD] || v[i][TRIALS] < 1 ||
        v[i][TRIALS] != v[0][TRIALS] || v[i][TRIALS] != floor(v[i][TRIALS]))
      return nm__fail(err, NM_EFORMAT, "%s:%zu: layer, head and trials must be whole, trials the "
                      "same in every row and at least 1", name, t->line[i]);
  }
  return NM_OK;
}

static int fill_rows(const char *name, const struct nm__table *t, double (*v)[COLUMNS],
                     const struct place *at, struct nm__head_scores *out, nm_err *err) {
  for (size_t i = 0; i < t->n_rows; i++) out->v[i].mean = -1;
  for (size_t i = 0; i < t->n_rows; i++) {
    struct nm__head *q = &out->v[index_of(out, at[i])];
    if (q->mean >= 0)
      return nm__fail(err, NM_EFORMAT, "%s:%zu: layer %d head %d stands twice", name, t->line[i],
                      at[i].layer, at[i].head);
    *q = (struct nm__head){v[i][MEAN], v[i][FREQ], v[i][MAX]};
  }
  return NM_OK;
}

static int from_table(const char *name, const struct nm__table *t, struct nm__head_scores *out,
                      nm_err *err) {
  double (*v)[COLUMNS] = nm__alloc(t->n_rows, sizeof *v);
  struct place *at = nm__alloc(t->n_rows, sizeof *at);
  int st = v && at ? table_numbers(name, t, v, at, err)
                   : nm__fail_memory(err, name, t->n_rows * sizeof *v);
  if (!st && !t->n_rows) st = nm__fail(err, NM_EFORMAT, "%s: has no row", name);
  if (!st) st = shape(name, at, t->n_rows, 1, out, err);
  if (!st) st = fill_rows(name, t, v, at, out, err);
  if (!st) {
    free(out->score);
    out->score = NULL;
    out->trials = (size_t)v[0][TRIALS];
  }
  free(v);
  free(at);
  return st;
}

int nm__head_scores_parse(const char *name, const char *text, size_t n,
                          struct nm__head_scores *out, nm_err *err) {
  size_t i = 0;
  int st;
  *out = (struct nm__head_scores){0};
  while (i < n && strchr(" \t\r\n", text[i]) && text[i]) i++;
  if (i < n && text[i] == '{') {
    size_t most = n / 2 + 16;        /* a value and its comma take two bytes */
    json_t *j = nm__json_parse(name, text, n, most < 1 << 23 ? most : 1 << 23, err);
    st = j ? from_json(name, j, out, err) : NM_EFORMAT;
    json_decref(j);
  } else {
    struct nm__table t;
    if ((st = nm__table_parse(name, text, n, &t, err))) return st;
    st = from_table(name, &t, out, err);
    nm__table_done(&t);
  }
  if (st) nm__head_scores_done(out);
  return st;
}

int nm__head_scores_read(const char *path, struct nm__head_scores *out, nm_err *err) {
  struct nm__map m;
  int st = nm__map_open(path, &m, err);
  if (st) return st;
  st = nm__head_scores_parse(path, (const char *)m.data, m.size, out, err);
  nm__map_close(&m);
  return st;
}

/* ---- writing ----------------------------------------------------------------------- */

void nm__head_scores_json(const struct nm__head_scores *s, struct nm__buf *b) {
  for (size_t i = 0; i < n_heads(s); i++) {
    nm__buf_printf(b, "%s\"%zu-%zu\": [", i ? ",\n" : "{", i / (size_t)s->H, i % (size_t)s->H);
    for (size_t t = 0; t < s->trials; t++)
      nm__buf_printf(b, "%s%.17g", t ? ", " : "", s->score[i * s->trials + t]);
    nm__buf_putc(b, ']');
  }
  nm__buf_puts(b, "}\n");
}

void nm__head_scores_csv(const struct nm__head_scores *s, struct nm__buf *b) {
  uint32_t *rank = nm__head_ranking(s);
  nm__buf_puts(b, "layer,head,mean_score,trials,freq_score_ge_0.1,max_score\n");
  for (size_t i = 0; rank && i < n_heads(s); i++) {
    const struct nm__head *q = &s->v[rank[i]];
    nm__buf_printf(b, "%u,%u,%.5f,%zu,%.4f,%.4f\n", rank[i] / (uint32_t)s->H,
                   rank[i] % (uint32_t)s->H, q->mean, s->trials, q->freq, q->max);
  }
  if (!rank) b->failed = true;
  free(rank);
}

/* ---- statistics -------------------------------------------------------------------- */

struct ranked { double mean; uint32_t i; };

static int by_mean(const void *a, const void *b) {
  const struct ranked *x = a, *y = b;
  if (x->mean != y->mean) return x->mean > y->mean ? -1 : 1;
  return x->i < y->i ? -1 : x->i > y->i;
}

uint32_t *nm__head_ranking(const struct nm__head_scores *s) {
  size_t n = n_heads(s);
  struct ranked *r = nm__alloc(n, sizeof *r);
  uint32_t *out = nm__alloc(n, sizeof *out);
  for (size_t i = 0; r && i < n; i++) r[i] = (struct ranked){s->v[i].mean, (uint32_t)i};
  if (r && out) qsort(r, n, sizeof *r, by_mean);
  for (size_t i = 0; r && out && i < n; i++) out[i] = r[i].i;
  if (!r) free(out), out = NULL;
  free(r);
  return out;
}

struct nm__heads_sum nm__heads_sum(const struct nm__head_scores *s) {
  struct nm__heads_sum q = {.heads = n_heads(s)};
  for (size_t i = 0; i < q.heads; i++) {
    const struct nm__head *h = &s->v[i];
    q.copying += h->mean >= NM__HEADS_COPIES;
    q.half += h->mean >= 0.5;
    q.never += h->max == 0;
    q.mostly += h->freq >= 0.9;
    q.always += h->freq >= 1;
  }
  return q;
}

double nm__heads_pearson(const struct nm__head_scores *a, const struct nm__head_scores *b) {
  double ma = 0, mb = 0, aa = 0, bb = 0, ab = 0;
  size_t n = n_heads(a);
  if (a->L != b->L || a->H != b->H) return NAN;
  for (size_t i = 0; i < n; i++) ma += a->v[i].mean / (double)n, mb += b->v[i].mean / (double)n;
  for (size_t i = 0; i < n; i++) {
    double x = a->v[i].mean - ma, y = b->v[i].mean - mb;
    aa += x * x;
    bb += y * y;
    ab += x * y;
  }
  return aa > 0 && bb > 0 ? ab / (sqrt(aa) * sqrt(bb)) : NAN;
}

size_t nm__heads_shared(const struct nm__head_scores *a, const struct nm__head_scores *b,
                        size_t k) {
  uint32_t *x = nm__head_ranking(a), *y = nm__head_ranking(b);
  size_t same = 0;
  for (size_t i = 0; x && y && i < k; i++)
    for (size_t j = 0; j < k; j++)
      same += x[i] / (uint32_t)a->H == y[j] / (uint32_t)b->H &&
              x[i] % (uint32_t)a->H == y[j] % (uint32_t)b->H;
  free(x);
  free(y);
  return same;
}
