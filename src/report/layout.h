/* layout.h - where everything of a chart goes, decided before anything is drawn.
 *
 *   +--------------------------------------------+
 *   | title, subtitle (wrapped)                  |
 *   |        label of vmark     label            |  label rows, 0 nearest
 *   |      +--|--------------------|--+          |
 *   |  y   |  |     the plot       |  |  legend  |  right: when it fits
 *   |      +--|--------------------|--+          |
 *   |           x ticks, x label                 |
 *   |  legend                                    |  below: otherwise
 *   +--------------------------------------------+
 *
 * The height asked for is kept unless many labels or a long legend would leave
 * too little plot; then the chart grows downwards. Private to src/report. */
#ifndef NM_REPORT_LAYOUT_H
#define NM_REPORT_LAYOUT_H

#include "report/report.h"
#include "report/text.h"

/* Font sizes, line heights and margins, in pixels. */
enum {
  NM__FONT_TITLE = 17, NM__FONT_SUB = 13, NM__FONT_AXIS = 14, NM__FONT_TICK = 13,
  NM__FONT_LEGEND = 13, NM__FONT_MARK = 12,
  NM__LINE_TITLE = 22, NM__LINE_SUB = 18, NM__LINE_MARK = 16, NM__LINE_LEGEND = 20,
  NM__MARGIN = 14, NM__KEY = 30, NM__KEY_GAP = 8, NM__TITLE_LINES = 3, NM__FLAG = 5
};

/* Bold letters are wider: a title gets this part of the width to break lines at. */
#define NM__BOLD 0.88

/* A linear scale and its ticks i * mant * 10^exp10 for i = first..last. */
struct nm__axis {
  double lo, hi;          /* values at the ends */
  double p_lo, p_hi;      /* pixels at the ends */
  int mant, exp10;        /* the step: 1, 2 or 5 times a power of ten */
  double first, last;     /* whole numbers, too large for an int in odd data */
  int decimals;           /* of a tick label */
  bool whole;             /* all values are whole numbers (layers) */
};

/* The label of vmarks[i]: a flag on top of its line. */
struct nm__flag {
  int i;
  double x;               /* pixel of the line */
  double w;               /* room for the text; 0: none is shown */
  double x0, x1;          /* extent of the text, right or left of the line */
  int row;
  bool leader;            /* the line reaches up to the label */
  int n_same, i_same;     /* marks at the same x share one line, dash by dash */
};

struct nm__layout {
  int width, height;
  double left, right, top, bottom;     /* the plot */
  double y_label_x;
  struct nm__axis x, y;
  bool empty;                          /* no finite point at all */
  int n_bands;                         /* series with intervals; many are drawn lighter */
  int n_legend, n_legend_cols;
  bool legend_below;
  double legend_x, legend_y, legend_col, legend_text;   /* last: room for a name */
  struct nm__flag *flags;              /* [n_vmarks kept], the only memory here */
  int n_flags, n_flag_rows;
};

/* NM_EMEMORY or 0. */
int nm__layout_make(const struct nm__chart *c, struct nm__layout *p);
void nm__layout_done(struct nm__layout *p);

/* Finite and of a size pixels can be computed from. */
bool nm__layout_usable(double v);
double nm__axis_pixel(const struct nm__axis *a, double v);
double nm__axis_tick(const struct nm__axis *a, double i);
/* How many lines `s` takes at this size, at most NM__TITLE_LINES. */
int nm__layout_lines(const char *s, double px, double max_w);
/* Entries of the legend in order: the named series, then the named hlines. */
bool nm__layout_named(const char *name);

#endif
