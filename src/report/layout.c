/* layout.c - the layout of a chart: ranges, ticks, margins, legend, label rows.
 * See layout.h for the picture; chart.c draws what is decided here. */
#include "report/layout.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LABELS = 24 };

bool nm__layout_usable(double v) { return isfinite(v) && fabs(v) <= 1e100; }

bool nm__layout_named(const char *name) { return name && *name; }

/* ---- scales ---------------------------------------------------------- */

/* Powers of ten by multiplication: the same bits with every maths library. */
static double power10(int e) {
  double p = 1;
  for (int i = 0; i < e; i++) p *= 10;
  return p;
}

double nm__axis_tick(const struct nm__axis *a, double i) {
  double v = i * a->mant;
  return a->exp10 < 0 ? v / power10(-a->exp10) : v * power10(a->exp10);
}

double nm__axis_pixel(const struct nm__axis *a, double v) {
  double px = a->p_lo + (v - a->lo) / (a->hi - a->lo) * (a->p_hi - a->p_lo);
  /* Far outside is outside: keeps the numbers in the file short. */
  return fmin(fmax(px, -20000), 20000);
}

/* The smallest step of 1, 2 or 5 times ten to the e that gives at most max_ticks. */
static void axis_step(struct nm__axis *a, int max_ticks) {
  static const int mants[] = {1, 2, 5};
  double raw = (a->hi - a->lo) / (max_ticks > 1 ? max_ticks : 1);
  if (a->whole && raw < 1) raw = 1;
  int e = 0;
  while (power10(e + 1) <= raw) e++;
  while (e == 0 ? raw < 1 : raw < 1 / power10(-e)) e--;
  a->exp10 = e;
  a->mant = 0;
  for (int i = 0; i < 3 && !a->mant; i++) {
    struct nm__axis t = {.mant = mants[i], .exp10 = e};
    if (nm__axis_tick(&t, 1) >= raw * (1 - 1e-9)) a->mant = mants[i];
  }
  if (!a->mant) {
    a->mant = 1;
    a->exp10 = e + 1;
  }
  a->decimals = a->exp10 < 0 ? -a->exp10 : 0;
}

static void axis_ticks(struct nm__axis *a, int max_ticks) {
  axis_step(a, max_ticks);
  double step = nm__axis_tick(a, 1);
  a->first = ceil(a->lo / step - 1e-6);
  a->last = floor(a->hi / step + 1e-6);
  /* A range too narrow for its distance from zero has no ticks a double can tell apart. */
  if (!(a->last - a->first <= 200)) a->last = a->first;
}

static void axis_take(struct nm__axis *a, double v, bool *some) {
  if (!nm__layout_usable(v)) return;
  a->lo = *some ? fmin(a->lo, v) : v;
  a->hi = *some ? fmax(a->hi, v) : v;
  if (v != floor(v)) a->whole = false;
  *some = true;
}

/* A range without extent gets one, so that a single point stands in the middle. */
static void axis_widen(struct nm__axis *a, double least) {
  double min_span = fmax(fabs(a->lo), fabs(a->hi)) * 1e-9;
  if (a->hi - a->lo > min_span) return;
  double by = fmax(least, fabs(a->lo) * (a->whole ? 1e-6 : 0.05));
  a->lo -= by;
  a->hi += by;
}

static void x_range(const struct nm__chart *c, struct nm__layout *p) {
  struct nm__axis *a = &p->x;
  bool some = false;
  a->whole = true;
  for (int s = 0; s < c->n_series; s++)
    for (int i = 0; i < c->series[s].n; i++) axis_take(a, c->series[s].x[i], &some);
  for (int i = 0; i < c->n_vmarks; i++) axis_take(a, c->vmarks[i].x, &some);
  if (!some) {
    a->lo = 0;
    a->hi = 1;
  }
  axis_widen(a, a->whole ? 1 : 0.5);
}

static void y_data(const struct nm__chart *c, struct nm__layout *p) {
  struct nm__axis *a = &p->y;
  bool some = false;
  for (int s = 0; s < c->n_series; s++) {
    const struct nm__series *r = &c->series[s];
    p->n_bands += r->lo && r->hi && r->n > 0;
    for (int i = 0; i < r->n; i++) {
      axis_take(a, r->y[i], &some);
      if (r->lo && r->hi && nm__layout_usable(r->lo[i]) && nm__layout_usable(r->hi[i])) {
        axis_take(a, r->lo[i], &some);
        axis_take(a, r->hi[i], &some);
      }
    }
  }
  p->empty = !some;
  for (int i = 0; i < c->n_hlines; i++) axis_take(a, c->hlines[i].y, &some);
  if (!some) {
    a->lo = 0;
    a->hi = 1;
  }
}

/* A stated range is kept to the letter; one from the data ends on ticks. */
static void y_range(const struct nm__chart *c, struct nm__layout *p, int max_ticks) {
  struct nm__axis *a = &p->y;
  a->whole = false;
  y_data(c, p);
  bool stated = nm__layout_usable(c->y_lo) && nm__layout_usable(c->y_hi) && c->y_lo != c->y_hi;
  if (stated) {
    a->lo = fmin(c->y_lo, c->y_hi);
    a->hi = fmax(c->y_lo, c->y_hi);
  }
  axis_widen(a, 0.5);
  axis_ticks(a, max_ticks);
  if (stated) return;
  a->first = floor(a->lo / nm__axis_tick(a, 1) + 1e-6);
  a->last = ceil(a->hi / nm__axis_tick(a, 1) - 1e-6);
  a->lo = nm__axis_tick(a, a->first);
  a->hi = nm__axis_tick(a, a->last);
}

static double tick_width(const struct nm__axis *a) {
  char num[NM__NUM];
  double w = 0;
  for (double i = a->first; i <= a->last; i++)
    w = fmax(w, nm__text_width(nm__text_num(num, nm__axis_tick(a, i), a->decimals), NM__FONT_TICK));
  return w;
}

/* ---- the legend ------------------------------------------------------ */

static double legend_widest(const struct nm__chart *c, int *n) {
  double w = 0;
  *n = 0;
  for (int i = 0; i < c->n_series + c->n_hlines; i++) {
    const char *name = i < c->n_series ? c->series[i].name : c->hlines[i - c->n_series].name;
    if (!nm__layout_named(name)) continue;
    w = fmax(w, nm__text_width(name, NM__FONT_LEGEND));
    ++*n;
  }
  return w;
}

/* At the right when it leaves the plot two thirds of the width and is no higher
 * than the plot; else in columns below. Only the sides are settled here. */
static void legend_side(const struct nm__chart *c, struct nm__layout *p, double plot_h) {
  double text = legend_widest(c, &p->n_legend);
  double key = NM__KEY + NM__KEY_GAP;
  p->legend_below = key + text > 0.31 * p->width || p->n_legend * NM__LINE_LEGEND > plot_h;
  p->right = p->width - NM__MARGIN - 4;
  if (!p->n_legend) return;
  if (!p->legend_below) {
    p->legend_text = text + 1;
    p->legend_col = key + text;
    p->n_legend_cols = 1;
    p->legend_x = p->width - NM__MARGIN - p->legend_col;
    p->right = p->legend_x - 18;
    return;
  }
  double room = p->right - p->left;
  p->legend_text = fmin(text + 1, room - key);
  p->legend_col = key + p->legend_text + 22;
  p->n_legend_cols = (int)fmax(1, floor((room + 22) / p->legend_col));
  p->legend_x = p->left;
}

static int legend_rows(const struct nm__layout *p) {
  return p->n_legend ? (p->n_legend + p->n_legend_cols - 1) / p->n_legend_cols : 0;
}

/* ---- labels of vertical marks ---------------------------------------- */

static bool within(double x, const struct nm__flag *f) { return x > f->x0 - 4 && x < f->x1 + 4; }

/* Two flags disturb each other when their texts meet in one row, or when the
 * line of the higher one runs through the text of the lower one. */
static bool meet(const struct nm__flag *a, const struct nm__flag *b) {
  if (a->row == b->row) return a->x0 < b->x1 + 8 && b->x0 < a->x1 + 8;
  const struct nm__flag *high = a->row > b->row ? a : b, *low = a->row > b->row ? b : a;
  return high->leader && within(high->x, low);
}

static bool row_free(const struct nm__flag *f, const struct nm__flag *all, int n) {
  for (int k = 0; k < n; k++)
    if (all[k].row >= 0 && &all[k] != f && meet(f, &all[k])) return false;
  return true;
}

/* The lowest row where it disturbs nothing. When every row has a line through a
 * text, the flag gives up its own line above the plot; row n is above all. */
static void flag_place(struct nm__flag *f, const struct nm__flag *all, int n) {
  for (int leader = 1; leader >= 0; leader--) {
    f->leader = leader != 0;
    for (int row = 0; row <= n; row++) {
      f->row = row;
      if (row_free(f, all, n)) return;
    }
  }
}

static void flag_turn(struct nm__flag *f, bool left) {
  f->x0 = left ? f->x - NM__FLAG - f->w : f->x + NM__FLAG;
  f->x1 = f->x0 + f->w;
}

static void flag_add(struct nm__layout *p, int i, bool left) {
  struct nm__flag *f = &p->flags[i];
  if (f->w <= 0) return;
  flag_turn(f, left);
  flag_place(f, p->flags, p->n_flags);
}

/* A tent: the flags before s fly to the left, those before t to the right, and
 * the rest, too near the right edge for that, to the left again. Each side is
 * placed from its foot, so that lines rise beside the texts below them and not
 * through them.
 *
 *              ---three | four---
 *         ---two        |   |  five---
 *    ---one |           |   |   |
 *
 * Returns a cost: lines given up and texts over the edge weigh most, then rows,
 * then flags turned to the left. */
static double flags_try(struct nm__layout *p, int s, int t) {
  int n = p->n_flags, n_bad = 0;
  p->n_flag_rows = 0;
  for (int i = 0; i < n; i++) p->flags[i].row = -1;
  for (int i = 0; i < s; i++) flag_add(p, i, true);
  for (int i = t; i-- > s;) flag_add(p, i, false);
  for (int i = t; i < n; i++) flag_add(p, i, true);
  for (int i = 0; i < n; i++) {
    const struct nm__flag *f = &p->flags[i];
    if (f->w <= 0) continue;
    n_bad += !f->leader + 4 * (f->x0 < NM__MARGIN || f->x1 > p->width - NM__MARGIN);
    if (f->row + 1 > p->n_flag_rows) p->n_flag_rows = f->row + 1;
  }
  return n_bad * 1e4 + p->n_flag_rows + (n - t + s) * 1e-3;
}

static int flag_order(const void *a, const void *b) {
  const struct nm__flag *p = a, *q = b;
  if (p->x != q->x) return p->x < q->x ? -1 : 1;
  return p->i < q->i ? -1 : 1;
}

static void flags_share(struct nm__flag *f, int n) {
  for (int i = 0; i < n; i++) {
    f[i].n_same = f[i].i_same = 0;
    for (int k = 0; k < n; k++) {
      bool same = fabs(f[k].x - f[i].x) < 0.5;
      f[i].n_same += same;
      f[i].i_same += same && k < i;
    }
  }
}

/* Tries every tent: a chart has a few marks. Dozens of labels cannot be read
 * however they are placed, so those beyond the limit have their hover text only. */
static void plan_flags(const struct nm__chart *c, struct nm__layout *p) {
  int n_labels = 0;
  for (int i = 0; i < p->n_flags; i++)
    p->flags[i].x = nm__axis_pixel(&p->x, c->vmarks[p->flags[i].i].x);
  qsort(p->flags, (size_t)p->n_flags, sizeof *p->flags, flag_order);
  flags_share(p->flags, p->n_flags);
  for (int i = 0; i < p->n_flags; i++) {
    struct nm__flag *f = &p->flags[i];
    const char *name = c->vmarks[f->i].name;
    bool shown = nm__layout_named(name) && n_labels++ < MAX_LABELS;
    f->w = shown ? fmin(nm__text_width(name, NM__FONT_MARK), 0.4 * p->width) : 0;
  }
  int best_s = 0, best_t = p->n_flags;
  double least = flags_try(p, best_s, best_t);
  for (int s = 0; s <= p->n_flags && p->n_flags <= MAX_LABELS; s++)
    for (int t = p->n_flags; t >= s; t--) {
      double cost = flags_try(p, s, t);
      if (cost >= least) continue;
      least = cost;
      best_s = s;
      best_t = t;
    }
  flags_try(p, best_s, best_t);
}

static int flags_make(const struct nm__chart *c, struct nm__layout *p) {
  p->n_flags = 0;
  p->flags = nm__alloc((size_t)(c->n_vmarks > 0 ? c->n_vmarks : 1), sizeof *p->flags);
  if (!p->flags) return NM_EMEMORY;
  for (int i = 0; i < c->n_vmarks; i++)
    if (nm__layout_usable(c->vmarks[i].x)) p->flags[p->n_flags++].i = i;
  return NM_OK;
}

/* ---- the whole ------------------------------------------------------- */

int nm__layout_lines(const char *s, double px, double max_w) {
  int n = 0;
  while (s && *s && n < NM__TITLE_LINES) {
    s += nm__text_fit(s, px, max_w);
    s += strspn(s, " ");
    n++;
  }
  return n;
}

static double head_height(const struct nm__chart *c, const struct nm__layout *p) {
  double w = p->width - 2.0 * NM__MARGIN;
  int n_title = nm__layout_lines(c->title, NM__FONT_TITLE, w * NM__BOLD);
  int n_sub = nm__layout_lines(c->subtitle, NM__FONT_SUB, w);
  return NM__MARGIN + n_title * NM__LINE_TITLE + n_sub * NM__LINE_SUB + (n_title + n_sub ? 6 : 0);
}

static void plan_size(const struct nm__chart *c, struct nm__layout *p) {
  p->width = c->width > 0 ? c->width : 860;
  p->height = c->height > 0 ? c->height : 460;
  p->width = (int)fmin(fmax(p->width, 320), 10000);
  p->height = (int)fmin(fmax(p->height, 200), 10000);
}

static void plan_x_axis(struct nm__layout *p) {
  /* Room for the markers of the first and the last point. */
  p->x.p_lo = p->left + 9;
  p->x.p_hi = p->right - 9;
  char num[NM__NUM];
  double w = nm__text_width(nm__text_num(num, p->x.hi, p->x.whole ? 0 : 2), NM__FONT_TICK);
  axis_ticks(&p->x, (int)((p->x.p_hi - p->x.p_lo) / (w + 18)));
}

int nm__layout_make(const struct nm__chart *c, struct nm__layout *p) {
  memset(p, 0, sizeof *p);
  if (flags_make(c, p)) return NM_EMEMORY;
  plan_size(c, p);
  double head = head_height(c, p);
  double foot = 26 + (nm__layout_named(c->x_label) ? 22 : 0) + 8;
  double nominal = p->height - head - foot;
  y_range(c, p, (int)fmax(2, nominal / 48));
  bool y_label = nm__layout_named(c->y_label);
  p->y_label_x = NM__MARGIN + NM__FONT_AXIS - 2;
  p->left = NM__MARGIN + (y_label ? NM__FONT_AXIS + 10 : 0) + tick_width(&p->y) + 8;
  p->left = fmin(p->left, 0.4 * p->width);
  x_range(c, p);
  legend_side(c, p, nominal);
  plan_x_axis(p);
  plan_flags(c, p);
  p->top = head + 8 + p->n_flag_rows * NM__LINE_MARK;
  if (p->legend_below && p->n_legend) foot += legend_rows(p) * NM__LINE_LEGEND + 8;
  double least = fmin(260, 0.55 * p->height);
  if (!p->legend_below) least = fmax(least, p->n_legend * NM__LINE_LEGEND);
  if (p->height - foot - p->top < least) p->height = (int)ceil(p->top + foot + least);
  p->bottom = p->height - foot;
  p->y.p_lo = p->bottom;
  p->y.p_hi = p->top;
  p->legend_y = p->legend_below ? p->height - 8 - legend_rows(p) * NM__LINE_LEGEND : p->top;
  return NM_OK;
}

void nm__layout_done(struct nm__layout *p) {
  free(p->flags);
  p->flags = NULL;
}
