/* columns.c - what the columns of an output matrix write into the stream, read through the model's
 * end: the value vectors of the MLP (Geva et al., arXiv 2203.14680) and the dimensions of heads.
 *
 * A column v [D] counts as if it were all there is in the stream, scaled to the size of one a
 * value: its logits are those of the model's end. A scan for token t needs no logits: with the
 * norm's weight w and the head's rows u, above the mean token t gets
 *   sum_d v_d w_d (u_t - mean u)_d / size(v)
 * which is summed row by row over all columns at once. The control permutes the values of each
 * column among the D places: the same numbers, no direction of the model. */
#include "look/lens.h"

#include <stdlib.h>
#include <string.h>
#include "look/probe.h"
#include "tensor/math.h"

enum { PERMS = 20 };

struct matrix { const struct nm__gguf_tensor *t; const struct nm__w *post; };

struct scan {
  nm_engine *e;
  const nm_model *m;
  const nm_columns_opts *o;
  nm_columns_result *r;
  struct matrix *mat; int n_mat;
  double *g;                       /* [1 + PERMS][D]: what a column is multiplied with */
  double best[PERMS];
  double *score; size_t n_score;   /* of all columns, in order */
};

/* ---- tensors ---------------------------------------------------------------------- */

static bool same_name(const char *glob, const char *name) {
  char bare[64];
  size_t n = strlen(name);
  if (nm__glob(glob, name)) return true;
  if (n < 8 || n - 7 >= sizeof bare || strcmp(name + n - 7, ".weight")) return false;
  memcpy(bare, name, n - 7);
  bare[n - 7] = 0;
  return nm__glob(glob, bare);
}

/* The norm between this product and the stream, where the family has one. */
static const struct nm__w *post_of(const nm_model *m, const char *name) {
  char *end;
  long l = strncmp(name, "blk.", 4) ? -1 : strtol(name + 4, &end, 10);
  if (l < 0 || l >= m->L) return NULL;
  const struct nm__layer *y = &m->layer[l];
  const struct nm__w *w = strstr(name, "attn_output") ? &y->attn_post : &y->mlp_post;
  return w->data ? w : NULL;
}

static int find_matrices(struct scan *s, nm_err *err) {
  const struct nm__gguf *g = s->m->g;
  const char *odd = NULL;
  for (size_t i = 0; i < g->n_tensors; i++) {
    const struct nm__gguf_tensor *t = &g->tensors[i];
    if (!same_name(s->o->weights, t->name)) continue;
    if (t->n_dims != 2 || t->ne[1] != s->m->D || !strstr(t->name, "ffn_down") ==
                                                     !strstr(t->name, "attn_output")) {
      odd = t->name;
      continue;
    }
    struct matrix *v = nm__realloc(s->mat, (size_t)s->n_mat + 1, sizeof *v);
    if (!v) return nm__fail_memory(err, "the matrices", 0);
    s->mat = v;
    v[s->n_mat++] = (struct matrix){t, post_of(s->m, t->name)};
  }
  char shown[80];
  if (s->n_mat) return NM_OK;
  if (odd)
    return nm__fail(err, NM_EUSAGE,
                    "--weights: %s does not write into the stream as columns of its "
                    "own; blk.N.ffn_down and blk.N.attn_output do (experts are one tensor each)",
                    nm__printable(shown, sizeof shown, odd, strlen(odd)));
  return nm__fail(err, NM_EUSAGE,
                  "--weights '%.60s' matches no tensor of %s; `noema info MODEL` lists "
                  "them",
                  s->o->weights, s->m->path);
}

static struct nm__w as_w(const struct nm__gguf_tensor *t) {
  return (struct nm__w){t->data, t->type, t->ne[1], t->ne[0],
                        (size_t)(t->bytes / (uint64_t)t->ne[1])};
}

static void row_of(struct nm__w w, int64_t row, float *out) {
  nm__dtype(w.type)->to_f32(out, w.data + (size_t)row * w.row_bytes, w.cols);
}

/* ---- one column --------------------------------------------------------------------- */

/* Column c through the norm that follows, scaled to a mean square of one. False: all zero. */
static bool column(const struct scan *s, const struct matrix *x, int64_t c, float *line,
                   float *post, float *v) {
  struct nm__w w = as_w(x->t);
  double sq = 0;
  if (x->post) row_of(*x->post, 0, post);
  for (int64_t d = 0; d < w.rows; d++) {
    row_of(w, d, line);
    v[d] = x->post ? line[c] * post[d] : line[c];
    sq += (double)v[d] * (double)v[d];
  }
  double scale = sq > 0 ? nm__sqrt((double)s->m->D / sq) : 0;
  for (int64_t d = 0; d < w.rows; d++) v[d] = (float)((double)v[d] * scale);
  return sq > 0;
}

struct reading { const struct scan *s; nm_column *c; };

static int read_logits(void *arg, int64_t first, int64_t n, const float *z, nm_err *err) {
  const struct reading *r = arg;
  const nm_model *m = r->s->m;
  double sum = nm__log_sum_exp(z, m->V);
  (void)first, (void)n, (void)err;
  nm__top_tokens(z, m->V, r->s->r->top, true, sum, r->c->promoted);
  nm__top_tokens(z, m->V, r->s->r->top, false, sum, r->c->suppressed);
  if (r->s->o->col < 0) r->c->rank = nm__rank_of(z, m->V, r->s->o->target);
  return NM_OK;
}

/* Fills the i-th column of the result. */
static int read_column(const struct scan *s, int i, const struct matrix *x, int64_t c,
                       nm_err *err) {
  nm_columns_result *r = s->r;
  size_t top = (size_t)r->top, D = (size_t)s->m->D;
  struct reading rd = {s, &r->v[i]};
  float *buf = nm__alloc((size_t)x->t->ne[0] + 2 * D, sizeof *buf);
  if (!buf) return nm__fail_memory(err, "a column", D * sizeof *buf);
  nm__printable(rd.c->tensor, sizeof rd.c->tensor, x->t->name, strlen(x->t->name));
  rd.c->col = c;
  rd.c->promoted = r->tokens + 2 * (size_t)i * top;
  rd.c->suppressed = rd.c->promoted + top;
  int st = column(s, x, c, buf + 2 * D, buf + D, buf)
               ? nm__unembed(s->e, buf, 1, read_logits, &rd, err)
               : nm__fail(err, NM_EUSAGE, "%s: column %lld is all zeros: it writes nothing",
                          rd.c->tensor, (long long)c);
  free(buf);
  return st;
}

static int make_room(struct scan *s, int n, nm_err *err) {
  s->r->v = nm__alloc((size_t)n, sizeof *s->r->v);
  s->r->tokens = nm__alloc(2 * (size_t)n * (size_t)s->r->top, sizeof *s->r->tokens);
  s->r->n = n;
  return s->r->v && s->r->tokens ? NM_OK : nm__fail_memory(err, "the columns", 0);
}

static int one_column(struct scan *s, nm_err *err) {
  if (s->n_mat > 1)
    return nm__fail(err, NM_EUSAGE, "--col needs one matrix, --weights selects %d", s->n_mat);
  if (s->o->col >= s->mat->t->ne[0])
    return nm__fail(err, NM_EUSAGE, "--col %lld: %s has the columns 0 to %lld",
                    (long long)s->o->col, s->mat->t->name, (long long)s->mat->t->ne[0] - 1);
  int st = make_room(s, 1, err);
  return st ? st : read_column(s, 0, s->mat, s->o->col, err);
}

/* ---- the scan ------------------------------------------------------------------------- */

/* g[0]: w (u_t - mean u), and for a LayerNorm with its mean taken out, since that norm takes out
 * the column's; g[1..]: permuted. */
static int make_targets(struct scan *s, nm_err *err) {
  const nm_model *m = s->m;
  int D = m->D;
  float *line = nm__alloc(2 * (size_t)D, sizeof *line), *w = line + D;
  s->g = nm__alloc((size_t)(1 + PERMS) * (size_t)D, sizeof *s->g);
  uint32_t *perm = nm__alloc((size_t)D, sizeof *perm);
  if (!line || !s->g || !perm) {
    free(line);
    free(perm);
    return nm__fail_memory(err, "the scan", 0);
  }
  double mean = 0;
  for (int64_t v = 0; v < m->V; v++) {
    row_of(m->output, v, line);
    for (int d = 0; d < D; d++) s->g[d] -= (double)line[d] / m->V;
  }
  row_of(m->output, s->o->target, line);
  row_of(m->out_norm, 0, w);
  for (int d = 0; d < D; d++) s->g[d] = (s->g[d] + (double)line[d]) * (double)w[d];
  for (int d = 0; d < D; d++) mean += s->g[d] / D;
  for (int d = 0; d < D && m->arch->layernorm; d++) s->g[d] -= mean;
  for (int k = 0; k < PERMS; k++) {
    struct nm__rng rng = {s->o->seed, 0xc01 + (uint64_t)k, 0};
    for (int d = 0; d < D; d++) perm[d] = (uint32_t)d;
    nm__rng_shuffle(&rng, perm, (size_t)D);
    for (int d = 0; d < D; d++) s->g[(1 + k) * D + d] = s->g[perm[d]];
  }
  free(line);
  free(perm);
  return NM_OK;
}

/* All columns of a matrix at once, its rows in ascending order. */
struct sums { const struct scan *s; struct nm__w w; const float *post; double *acc; bool failed; };
enum { TILE = 256 };               /* columns: whole blocks of every stored type */

static void sum_tile(void *arg, int tile, int thread) {
  struct sums *x = arg;
  int D = x->s->m->D;
  int64_t from = (int64_t)tile * TILE, n = x->w.cols - from < TILE ? x->w.cols - from : TILE;
  const struct nm__dtype_info *type = nm__dtype(x->w.type);
  float line[TILE];
  (void)thread;
  for (int64_t d = 0; d < D; d++) {
    const uint8_t *at = x->w.data + (size_t)d * x->w.row_bytes;
    type->to_f32(line, at + (size_t)(from / type->block * type->bytes), n);
    for (int64_t c = 0; c < n; c++) {
      double v = (double)line[c] * (x->post ? (double)x->post[d] : 1);
      double *a = x->acc + (from + c) * (PERMS + 3);
      a[0] += v * v;
      a[1] += v;
      for (int k = 0; k <= PERMS; k++) a[2 + k] += v * x->s->g[k * D + d];
    }
  }
}

static double strength(double score) { return score < 0 ? -score : score; }

static int scan_matrix(struct scan *s, const struct matrix *x, nm_err *err) {
  int D = s->m->D;
  struct sums u = {s, as_w(x->t), NULL, NULL, false};
  size_t cols = (size_t)u.w.cols;
  float *post = nm__alloc((size_t)D, sizeof *post);
  double *score = nm__realloc(s->score, s->n_score + cols, sizeof *score);
  if (score) s->score = score;
  u.acc = nm__alloc(cols * (PERMS + 3), sizeof *u.acc);
  if (!post || !score || !u.acc) {
    free(post);
    free(u.acc);
    return nm__fail_memory(err, "the scan", cols * 8 * (PERMS + 3));
  }
  if (x->post) row_of(*x->post, 0, post);
  u.post = x->post ? post : NULL;
  nm__pool_run(nm__engine_pool(s->e), (int)((cols + TILE - 1) / TILE), sum_tile, &u);
  for (size_t c = 0; c < cols; c++) {
    const double *a = u.acc + c * (PERMS + 3);
    double mean = s->m->arch->layernorm ? a[1] / D : 0, var = a[0] / D - mean * mean;
    double size = var > 0 ? nm__sqrt(var) : 0;
    s->score[s->n_score++] = size > 0 ? a[2] / size : 0;
    for (int k = 0; k < PERMS && size > 0; k++)
      if (strength(a[3 + k] / size) > s->best[k]) s->best[k] = strength(a[3 + k] / size);
  }
  free(post);
  free(u.acc);
  return NM_OK;
}

/* The matrix and column of the i-th score. */
static const struct matrix *place_of(const struct scan *s, size_t i, int64_t *col) {
  const struct matrix *x = s->mat;
  for (; i >= (size_t)x->t->ne[0]; x++) i -= (size_t)x->t->ne[0];
  *col = (int64_t)i;
  return x;
}

static int keep_best(struct scan *s, nm_err *err) {
  nm_columns_result *r = s->r;
  int want = s->o->best ? s->o->best : 10, n = (size_t)want < s->n_score ? want : (int)s->n_score;
  r->scanned = (int64_t)s->n_score;
  r->control_mean = nm__mean(s->best, PERMS);
  r->control_max = nm__quantile(s->best, PERMS, 1);
  for (size_t i = 0; i < s->n_score; i++) r->above += strength(s->score[i]) > r->control_max;
  int st = make_room(s, n, err);
  for (int k = 0; k < n && !st; k++) {
    size_t best = 0;
    int64_t col;
    for (size_t i = 1; i < s->n_score; i++)
      if (strength(s->score[i]) > strength(s->score[best])) best = i;
    if (s->score[best] == 0) {         /* no other column writes anything of it */
      r->n = k;
      break;
    }
    const struct matrix *x = place_of(s, best, &col);
    r->v[k].score = s->score[best];
    for (int i = 0; i < PERMS; i++) r->v[k].reached += s->best[i] >= strength(s->score[best]);
    s->score[best] = 0;
    st = read_column(s, k, x, col, err);
  }
  return st;
}

static int scan_all(struct scan *s, nm_err *err) {
  int st = make_targets(s, err);
  for (int i = 0; i < s->n_mat && !st; i++) {
    st = scan_matrix(s, &s->mat[i], err);
    if (!st)
      st = nm__progress(s->o->progress, "scanning matrices", i + 1.0, s->n_mat, err);
  }
  return st ? st : keep_best(s, err);
}

int nm_columns(nm_engine *e, const nm_columns_opts *o, nm_columns_result *out, nm_err *err) {
  const nm_model *m = nm__engine_model(e);
  struct scan s = {.e = e, .m = m, .o = o, .r = out};
  *out = (nm_columns_result){.top = o->top ? o->top : 10};
  if (out->top > m->V) out->top = m->V;
  int st = NM_OK;
  if (!m->output.data) return nm__unembed(e, NULL, 0, NULL, NULL, err);
  if (o->top < 0 || o->top > 1000 || o->best < 0 || o->best > 1000)
    return nm__fail(err, NM_EUSAGE, "--top and --best must lie between 1 and 1000");
  if ((o->col < 0) == (o->target < 0) || o->target >= m->V)
    return nm__fail(err, NM_EUSAGE, "either a column or a token of the vocabulary to scan for");
  if (!(st = find_matrices(&s, err))) st = o->col >= 0 ? one_column(&s, err) : scan_all(&s, err);
  free(s.mat);
  free(s.g);
  free(s.score);
  if (st) nm_columns_result_free(out);
  return st;
}

void nm_columns_result_free(nm_columns_result *r) {
  free(r->v);
  free(r->tokens);
  *r = (nm_columns_result){0};
}
