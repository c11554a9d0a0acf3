/* patch_fit.c - effects of cells from the metrics of runs, with intervals, and the controls.
 *
 * A unit is a pair (its seeds averaged); of a single pair, a seed. Over units the effect is the sum
 * of m - m_corrupt over the sum of m_clean - m_corrupt, so a pair that the corruption hardly moves
 * weighs little; its interval is the t interval of the linearised ratio. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "study/depth.h"
#include "study/patch.h"

enum { N_RANDOM = 16 };
static const double FOUND = 0.1;

/* ---- units ----------------------------------------------------------------------- */

static size_t pairs_used(const struct nm__patching *P) {
  size_t n = 0;
  for (size_t i = 0; i < P->pairs.n; i++) n += !P->pairs.v[i].left_out;
  return n;
}

struct units { double *x, *w; int n; };

static int units_new(const struct nm__patching *P, struct units *u, nm_err *err) {
  size_t most = P->pairs.n + (size_t)P->n_seeds;
  *u = (struct units){nm__alloc(2 * most, sizeof(double)), NULL, 0};
  u->w = u->x + most;
  return u->x ? NM_OK : nm__fail_memory(err, "the effects", 2 * most * sizeof(double));
}

static nm_interval ratio(const struct units *u) {
  double x = 0, w = 0;
  for (int i = 0; i < u->n; i++) x += u->x[i], w += u->w[i];
  double r = x / w, mean = w / u->n;
  nm_interval out = {r, r, r};
  double *v = u->n > 1 ? nm__alloc((size_t)u->n, sizeof *v) : NULL;
  for (int i = 0; v && i < u->n; i++) v[i] = r + (u->x[i] - r * u->w[i]) / mean;
  if (v) out = nm__depth_interval(v, u->n, 0, 1);
  free(v);
  out.mean = r;
  return out;
}

/* What a pair and seed gives: its metric above the corrupt one's; false: it has no such cell. */
typedef bool value_fn(const struct nm__patching *P, size_t pair, int seed, const void *arg,
                      double *m);

static void collect(const struct nm__patching *P, value_fn *fn, const void *arg,
                    struct units *u) {
  bool by_pair = pairs_used(P) > 1;
  u->n = 0;
  for (size_t i = 0; i < P->pairs.n; i++) {
    const struct nm__pair *p = &P->pairs.v[i];
    double x = 0, w = 0, m;
    int n = 0;
    for (int s = 0; s < P->n_seeds && !p->left_out; s++) {
      if (!fn(P, i, s, arg, &m)) continue;
      x += m - p->m_corrupt[s];
      w += p->m_clean - p->m_corrupt[s];
      n++;
      if (by_pair) continue;
      u->x[u->n] = m - p->m_corrupt[s];
      u->w[u->n++] = p->m_clean - p->m_corrupt[s];
    }
    if (!by_pair || !n) continue;
    u->x[u->n] = x / n;
    u->w[u->n++] = w / n;
  }
}

/* ---- columns ------------------------------------------------------------------------ */

int nm__patch_col_of(const struct nm__patching *P, const struct nm__pair *p, int comp, int cell) {
  if (P->comp[comp].heads || P->pairs.same_columns) return cell;
  return cell == (int)p->base.n ? P->n_roles : P->role_col[nm__pair_role(p, cell)];
}

struct cell { int comp, layer, col; };

/* Of several positions in a column (roles) the mean. */
static bool cell_value(const struct nm__patching *P, size_t pair, int seed, const void *arg,
                       double *m) {
  const struct cell *c = arg;
  const struct nm__pair *p = &P->pairs.v[pair];
  int cols = nm__patch_cols(P, p, c->comp), n = 0;
  const double *v = nm__patch_cell(P, pair, seed, c->comp) + (size_t)c->layer * (size_t)cols;
  double sum = 0;
  for (int k = 0; k < cols; k++)
    if (nm__patch_col_of(P, p, c->comp, k) == c->col && !isnan(v[k])) sum += v[k], n++;
  *m = n == 1 ? sum : sum / n;
  return n > 0;
}

static bool all_column(const nm_patch_map *m, int col) {
  return !m->heads && col == m->n_cols - 1;
}

/* ---- maps ----------------------------------------------------------------------------- */

static double gain(const struct nm__patching *P, double effect) {
  return P->o.noising ? 1 - effect : effect;
}

static nm_interval gain_of(const struct nm__patching *P, nm_interval e) {
  return P->o.noising ? (nm_interval){1 - e.mean, 1 - e.hi, 1 - e.lo} : e;
}

static int map_fit(struct nm__patching *P, int comp, struct units *u) {
  nm_patch_map *m = &P->r->map[comp];
  double best = -HUGE_VAL;
  m->top_layer = m->top_col = -1;
  for (int l = 0; l < m->n_layers; l++)
    for (int c = 0; c < m->n_cols; c++) {
      size_t i = (size_t)l * (size_t)m->n_cols + (size_t)c;
      collect(P, cell_value, &(struct cell){comp, l, c}, u);
      nm_interval e = u->n ? ratio(u) : (nm_interval){NAN, NAN, NAN};
      m->effect[i] = e.mean;
      m->lo[i] = e.lo;
      m->hi[i] = e.hi;
      if (!u->n || all_column(m, c) || gain(P, e.mean) <= best) continue;
      best = gain(P, e.mean);
      m->top = gain_of(P, e);
      m->top_layer = l;
      m->top_col = c;
    }
  m->found = best >= FOUND;
  return NM_OK;
}

static nm_interval plain(const struct nm__patching *P, bool clean, struct units *u) {
  bool by_pair = pairs_used(P) > 1;
  int n = 0;
  double *v = u->x;
  for (size_t i = 0; i < P->pairs.n; i++) {
    const struct nm__pair *p = &P->pairs.v[i];
    double sum = 0;
    for (int s = 0; s < P->n_seeds && !p->left_out; s++) {
      double m = clean ? p->m_clean : p->m_corrupt[s];
      if (by_pair) sum += m / P->n_seeds;
      else v[n++] = m;
    }
    if (by_pair && !p->left_out) v[n++] = sum;
  }
  return n ? nm__depth_interval(v, n, 0, 1) : (nm_interval){0};
}

int nm__patch_fit(struct nm__patching *P, nm_err *err) {
  struct units u;
  int st = units_new(P, &u, err);
  if (st) return st;
  for (size_t i = 0; i < P->pairs.n; i++) {            /* the noise may help on the whole */
    struct nm__pair *p = &P->pairs.v[i];
    double w = 0;
    for (int s = 0; s < P->n_seeds; s++) w += p->m_clean - p->m_corrupt[s];
    p->left_out |= w / P->n_seeds < 1e-6;
    P->r->n_left_out += p->left_out;
  }
  for (int c = 0; c < P->n_comp; c++) map_fit(P, c, &u);
  P->r->clean = plain(P, true, &u);
  P->r->corrupt = plain(P, false, &u);
  free(u.x);
  return NM_OK;
}

/* ---- controls ---------------------------------------------------------------------------- */

static bool unrelated_value(const struct nm__patching *P, size_t pair, int seed, const void *arg,
                            double *m) {
  *m = P->unrelated[(pair * (size_t)P->n_seeds + (size_t)seed) * (size_t)P->n_comp +
                    (size_t)((const struct cell *)arg)->comp];
  return !isnan(*m);
}

/* How far the top cell is above a control, as a corrupt metric plus the difference of the two. */
struct above { struct cell top; value_fn *control; const void *arg; };

static bool above_value(const struct nm__patching *P, size_t pair, int seed, const void *arg,
                        double *m) {
  const struct above *a = arg;
  double top, control;
  if (!cell_value(P, pair, seed, &a->top, &top) || !a->control(P, pair, seed, a->arg, &control))
    return false;
  *m = (P->o.noising ? control - top : top - control) + P->pairs.v[pair].m_corrupt[seed];
  return true;
}

/* Unit by unit, so that what all runs of a pair share does not hide the difference. */
static int is_above(const struct nm__patching *P, int comp, value_fn *control, const void *arg,
                    struct units *u) {
  const nm_patch_map *m = &P->r->map[comp];
  struct above a = {{comp, m->top_layer, m->top_col}, control, arg};
  collect(P, above_value, &a, u);
  if (!u->n) return NM_OK;
  nm_interval d = ratio(u);
  return d.lo > 0 ? NM_OK : d.mean > 0 ? NM_EUNSURE : NM_ECHECK;
}

/* The worse of two. */
static int both(int a, int b) {
  return a == NM_ECHECK || b == NM_ECHECK ? NM_ECHECK : a ? a : b;
}

/* Cells that are not the top one, where something was patched at all. */
static bool may_draw(const struct nm__patching *P, const nm_patch_map *m, int l, int c) {
  int before = P->pairs.same_columns ? P->pairs.v[0].first : P->role_col[NM__BEFORE] + 1;
  return !(l == m->top_layer && c == m->top_col) && !all_column(m, c) &&
         (m->heads || c >= before) && !isnan(m->effect[(size_t)l * (size_t)m->n_cols + (size_t)c]);
}

struct drawn { struct cell c[N_RANDOM]; int n; };

static bool random_value(const struct nm__patching *P, size_t pair, int seed, const void *arg,
                         double *m) {
  const struct drawn *d = arg;
  double sum = 0, one;
  int n = 0;
  for (int i = 0; i < d->n; i++)
    if (cell_value(P, pair, seed, &d->c[i], &one)) sum += one, n++;
  *m = sum / n;
  return n > 0;
}

static void draw(const struct nm__patching *P, int comp, struct drawn *d) {
  const nm_patch_map *m = &P->r->map[comp];
  struct nm__rng r = {P->o.seed, 900 + (uint64_t)comp, 0};
  d->n = 0;
  for (int tries = 0; d->n < N_RANDOM && tries < 4000; tries++) {
    int l = (int)nm__rng_below(&r, (uint64_t)m->n_layers);
    int c = (int)nm__rng_below(&r, (uint64_t)m->n_cols);
    if (may_draw(P, m, l, c)) d->c[d->n++] = (struct cell){comp, l, c};
  }
}

void nm__patch_controls(struct nm__patching *P) {
  struct units u;
  nm_patch_result *r = P->r;
  bool good = false, bad = !r->exact_nothing || (r->can_everything && !r->exact_everything);
  if (units_new(P, &u, NULL)) return;
  for (int c = 0; c < P->n_comp; c++) {
    nm_patch_map *m = &r->map[c];
    struct drawn d;
    if (m->top_col < 0) continue;
    draw(P, c, &d);
    struct cell here = {c, 0, 0};
    collect(P, unrelated_value, &here, &u);
    m->unrelated = u.n ? gain_of(P, ratio(&u)) : (nm_interval){NAN, NAN, NAN};
    collect(P, random_value, &d, &u);
    m->random = u.n ? gain_of(P, ratio(&u)) : (nm_interval){NAN, NAN, NAN};
    m->control = both(is_above(P, c, unrelated_value, &here, &u),
                      is_above(P, c, random_value, &d, &u));
    good |= m->found && m->control == NM_OK;
    bad |= m->found && m->control == NM_ECHECK;
  }
  r->verdict = bad ? NM_ECHECK : good ? NM_OK : NM_EUNSURE;
  free(u.x);
}
