/* vector_files.c - arithmetic on files of vectors: sums, differences, multiples, comparison. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "file/npy.h"
#include "look/linalg.h"
#include "study/vector.h"
#include "tensor/math.h"

static double cosine(const float *a, const float *b, int64_t n) { return nm_cosine(a, b, n); }

/* Rows of both, up to the longer one; a row that one lacks is zeros there. */
static int sum_rows(const struct nm__dirs *a, double sa, const struct nm__dirs *b, double sb,
                    struct nm__dirs *out, nm_err *err) {
  int64_t row = a->pos * a->n;
  *out = (struct nm__dirs){.rows = a->rows > b->rows ? a->rows : b->rows, .pos = a->pos, .n = a->n};
  out->v = nm__alloc((size_t)(out->rows * row), sizeof *out->v);
  out->has = nm__alloc((size_t)out->rows, 1);
  if (!out->v || !out->has) return nm__fail_memory(err, "a vector", (size_t)(out->rows * row) * 4);
  for (int64_t r = 0; r < out->rows; r++) {
    bool in_a = r < a->rows && (!a->has || a->has[r]), in_b = r < b->rows && (!b->has || b->has[r]);
    out->has[r] = in_a || in_b;
    for (int64_t i = 0; i < row; i++)
      out->v[r * row + i] = (float)((in_a ? sa * (double)a->v[r * row + i] : 0) +
                                    (in_b ? sb * (double)b->v[r * row + i] : 0));
  }
  return NM_OK;
}

static bool ends(const char *s, const char *end) {
  size_t n = strlen(s), k = strlen(end);
  return n >= k && !strcmp(s + n - k, end);
}

static int write_npy(const char *path, const struct nm__dirs *d, nm_err *err) {
  int64_t ne[3] = {d->rows, d->pos, d->n};
  if (d->pos > 1) return nm__npy_write(path, 3, ne, d->v, err);
  ne[1] = d->n;
  return d->rows > 1 ? nm__npy_write(path, 2, ne, d->v, err)
                     : nm__npy_write(path, 1, ne + 1, d->v, err);
}

static int write_sum(const char *out, const struct nm__dirs *d, nm_err *err) {
  for (int64_t i = 0; i < d->rows * d->pos * d->n; i++)
    if (d->v[i] - d->v[i] != 0) return nm__fail(err, NM_EFAIL, "%s: a value is too large", out);
  if (ends(out, ".npy")) return write_npy(out, d, err);
  if (!ends(out, ".gguf"))
    return nm__fail(err, NM_EUSAGE, "%s: the name must end in .npy or .gguf", out);
  if (d->pos > 1) return nm__fail(err, NM_EUSAGE, "%s: a control vector has no positions", out);
  return nm__dirs_write_gguf(out, "noema", d, err);
}

/* One file or two with rows of one width; what was read is the caller's also after a failure. */
static int read_two(const char *a, const char *b, struct nm__dirs *x, struct nm__dirs *y,
                    nm_err *err) {
  int st = nm__dirs_read(a, NULL, x, err);
  if (!st && b) st = nm__dirs_read(b, NULL, y, err);
  if (!st && b && (x->n != y->n || x->pos != y->pos))
    st = nm__fail(err, NM_EFORMAT, "%s has rows of %lld values, %s of %lld", a, (long long)x->n, b,
                  (long long)y->n);
  return st;
}

int nm_vector_combine(const char *a, double sa, const char *b, double sb, const char *out,
                      nm_err *err) {
  struct nm__dirs x, y = {0}, sum = {0};
  if (sa - sa != 0 || sb - sb != 0) return nm__fail(err, NM_EUSAGE, "the factor is not finite");
  int st = read_two(a, b, &x, &y, err);
  if (!st && b && !x.has && !y.has && x.rows != y.rows)
    st = nm__fail(err, NM_EFORMAT, "%s has %lld rows, %s %lld", a, (long long)x.rows, b,
                  (long long)y.rows);
  if (!st) st = sum_rows(&x, sa, &y, sb, &sum, err);
  if (!st) st = write_sum(out, &sum, err);
  nm__dirs_done(&x);
  nm__dirs_done(&y);
  nm__dirs_done(&sum);
  return st;
}

/* ---- show ---------------------------------------------------------------------------- */

static double length(const float *v, int64_t n) {
  double sq = 0;
  for (int64_t i = 0; i < n; i++) sq += (double)v[i] * (double)v[i];
  return nm__sqrt(sq);
}

static float largest(const float *v, int64_t n) {
  float most = 0;
  for (int64_t i = 0; i < n; i++)
    most = __builtin_fabsf(v[i]) > most ? __builtin_fabsf(v[i]) : most;
  return most;
}

static const float *row_of(const struct nm__dirs *d, int64_t r) {
  if (r >= d->rows || (d->has && !d->has[r])) return NULL;
  return d->v + r * d->pos * d->n;
}

static void show_text(const struct nm__dirs *a, const struct nm__dirs *b, struct nm__buf *out) {
  static const char *const heads[] = {"block", "length", "largest", "cosine"};
  struct nm__grid *g = nm__grid_new(heads, b->v ? 4 : 3);
  for (int64_t r = 0; g && r < a->rows; r++) {
    const float *x = row_of(a, r), *y = row_of(b, r);
    if (!x) continue;
    nm__grid_cell(g, "%lld", (long long)r);
    nm__grid_cell(g, "%.6g", length(x, a->pos * a->n));
    nm__grid_cell(g, "%.6g", (double)largest(x, a->pos * a->n));
    if (b->v && y) nm__grid_cell(g, "%.6f", cosine(x, y, a->pos * a->n));
    else if (b->v) nm__grid_cell(g, "-");
  }
  nm__buf_printf(out, "%s, %lld values a row\n", a->has ? "control vector" : "array",
                 (long long)a->n);
  if (g) nm__grid_print(g, out);
  nm__grid_free(g);
}

static void show_json(const struct nm__dirs *a, const struct nm__dirs *b, struct nm__buf *out) {
  json_t *rows = json_array();
  for (int64_t r = 0; r < a->rows; r++) {
    const float *x = row_of(a, r), *y = row_of(b, r);
    if (!x) continue;
    json_t *o = json_pack("{s:I, s:f, s:f}", "block", (json_int_t)r, "length",
                          length(x, a->pos * a->n), "largest", (double)largest(x, a->pos * a->n));
    if (y) json_object_set_new(o, "cosine", json_real(cosine(x, y, a->pos * a->n)));
    json_array_append_new(rows, o);
  }
  json_t *o = json_pack("{s:b, s:I, s:o}", "control_vector", a->has != NULL, "values",
                        (json_int_t)a->n, "rows", rows);
  char *s = o ? json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
  nm__buf_puts(out, s ? s : "");
  out->failed |= !s;
  free(s);
  json_decref(o);
}

int nm_vector_show(const char *a, const char *b, bool json, char **out, nm_err *err) {
  struct nm__dirs x, y = {0};
  struct nm__buf buf;
  *out = NULL;
  int st = read_two(a, b, &x, &y, err);
  nm__buf_init(&buf, (size_t)1 << 28);
  if (!st && json) show_json(&x, &y, &buf);
  if (!st && !json) show_text(&x, &y, &buf);
  if (!st && buf.failed) st = nm__fail_memory(err, "the table", 0);
  if (st) nm__buf_done(&buf);
  else *out = buf.s;
  nm__dirs_done(&x);
  nm__dirs_done(&y);
  return st;
}
