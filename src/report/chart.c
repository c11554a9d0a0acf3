/* chart.c - a line chart as SVG, drawn from the plan of layout.c. The text is real
 * text, so that figures can be searched, copied and restyled.
 *
 * Colours: every coloured thing sits in a <g class="nm-cN" color="#..."> and its
 * parts say currentColor. Alone, the file shows the attribute; inside a page a
 * style sheet may give .nm-cN another colour for the dark. Colour is never the
 * only sign: the palette is safe for the common forms of colour blindness, and
 * each colour has its own marker.
 *
 * Output is deterministic: no clock, no addresses, no ids (two charts in one
 * page cannot disturb each other), numbers without the locale. */
#include "report/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report/svg.h"

enum { N_COLOURS = 10, N_SHAPES = 5 };

/* Okabe and Ito's colours, the two lightest a little darker because labels are set in
 * them, and without the yellow and black, which are lost on paper
 * and in the dark; then Tol's muted ones. */
static const char *const PALETTE[N_COLOURS] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                               "#dd9800", "#4aa8e2", "#882255", "#999933",
                                               "#332288", "#777777"};

static int colour_of(int i) { return (i % N_COLOURS + N_COLOURS) % N_COLOURS; }

static void colour_open(struct nm__buf *b, int colour) {
  int k = colour_of(colour);
  nm__buf_printf(b, "<g class='nm-c%d' color='%s'>\n", k, PALETTE[k]);
}

static const char *dashes(enum nm__mark_style style) {
  switch (style) {
    case NM__LINE_DASHED: return " stroke-dasharray='7 4'";
    case NM__LINE_DOTTED: return " stroke-dasharray='0.1 4.5' stroke-linecap='round'";
    default: return "";
  }
}

/* ---- text ------------------------------------------------------------ */

static void draw_head(const struct nm__chart *c, const struct nm__layout *p, struct nm__buf *b) {
  double w = p->width - 2.0 * NM__MARGIN, y = NM__MARGIN + NM__FONT_TITLE - 2;
  if (nm__layout_named(c->title))
    y = nm__svg_paragraph(b, c->title, y, NM__FONT_TITLE, NM__LINE_TITLE,
                  " font-size='17' font-weight='600' fill='currentColor'", w * NM__BOLD);
  if (nm__layout_named(c->subtitle))
    nm__svg_paragraph(b, c->subtitle, y - 2, NM__FONT_SUB, NM__LINE_SUB,
              " class='nm-soft' color='#57606a' fill='currentColor'", w);
}

/* ---- axes ------------------------------------------------------------ */

static void draw_grid(const struct nm__layout *p, struct nm__buf *b) {
  nm__buf_puts(b, "<g class='nm-grid' stroke='#e4e7eb' fill='none'>\n");
  for (double i = p->y.first; i <= p->y.last; i++) {
    const char *y = PX(nm__axis_pixel(&p->y, nm__axis_tick(&p->y, i)));
    nm__buf_printf(b, "<path d='M%s %sH%s'/>\n", PX(p->left), y, PX(p->right));
  }
  nm__buf_puts(b, "</g>\n<g class='nm-axis' stroke='#57606a' fill='none'>\n");
  nm__buf_printf(b, "<path d='M%s %sH%s'/>\n", PX(p->left), PX(p->bottom), PX(p->right));
  for (double i = p->x.first; i <= p->x.last; i++) {
    const char *x = PX(nm__axis_pixel(&p->x, nm__axis_tick(&p->x, i)));
    nm__buf_printf(b, "<path d='M%s %sv5'/>\n", x, PX(p->bottom));
  }
  nm__buf_puts(b, "</g>\n");
}

static void draw_ticks(const struct nm__layout *p, struct nm__buf *b) {
  char num[NM__NUM];
  nm__buf_puts(b, "<g class='nm-soft' color='#57606a' fill='currentColor' text-anchor='end'>\n");
  for (double i = p->y.first; i <= p->y.last; i++) {
    double v = nm__axis_tick(&p->y, i);
    nm__buf_printf(b, "<text x='%s' y='%s'>%s</text>\n", PX(p->left - 8),
                   PX(nm__axis_pixel(&p->y, v) + 4.5), nm__text_num(num, v, p->y.decimals));
  }
  nm__buf_puts(b, "</g>\n<g class='nm-soft' color='#57606a' fill='currentColor' "
                  "text-anchor='middle'>\n");
  for (double i = p->x.first; i <= p->x.last; i++) {
    double v = nm__axis_tick(&p->x, i);
    nm__buf_printf(b, "<text x='%s' y='%s'>%s</text>\n", PX(nm__axis_pixel(&p->x, v)),
                   PX(p->bottom + 20), nm__text_num(num, v, p->x.decimals));
  }
  nm__buf_puts(b, "</g>\n");
}

static void draw_axis_labels(const struct nm__chart *c, const struct nm__layout *p,
                             struct nm__buf *b) {
  const char *more = " font-size='14' text-anchor='middle' fill='currentColor'";
  double w = p->right - p->left, h = p->bottom - p->top;
  if (nm__layout_named(c->x_label))
    nm__svg_text(b, p->left + w / 2, p->bottom + 42, more, c->x_label, NM__FONT_AXIS, w);
  if (!nm__layout_named(c->y_label)) return;
  nm__buf_printf(b, "<g transform='translate(%s %s) rotate(-90)'>", PX(p->y_label_x),
                 PX(p->top + h / 2));
  nm__svg_text(b, 0, 0, more, c->y_label, NM__FONT_AXIS, h);
  nm__buf_puts(b, "</g>\n");
}

/* ---- series ---------------------------------------------------------- */

static bool drawn(const struct nm__series *s, int i) {
  return nm__layout_usable(s->x[i]) && nm__layout_usable(s->y[i]);
}

static bool banded(const struct nm__series *s, int i) {
  return s->lo && s->hi && drawn(s, i) && nm__layout_usable(s->lo[i]) &&
         nm__layout_usable(s->hi[i]);
}

static void vertex(const struct nm__layout *p, struct nm__buf *b, char op, double x, double y) {
  nm__buf_printf(b, "%c%s %s", op, PX(nm__axis_pixel(&p->x, x)), PX(nm__axis_pixel(&p->y, y)));
}

/* Points from..to-1 all have an interval: there along the top, back along the
 * bottom. A lone point has no area and gets an upright bar instead. */
static void draw_band_run(const struct nm__layout *p, const struct nm__series *s, int from, int to,
                          struct nm__buf *b) {
  const char *opacity = s->faint ? "0.06" : p->n_bands > 4 ? "0.09" : "0.14";
  if (to - from == 1) {
    nm__buf_puts(b, "<path stroke='currentColor' stroke-width='5' stroke-opacity='0.25' d='");
    vertex(p, b, 'M', s->x[from], s->lo[from]);
    vertex(p, b, 'L', s->x[from], s->hi[from]);
    nm__buf_puts(b, "'/>\n");
    return;
  }
  nm__buf_printf(b, "<path fill='currentColor' fill-opacity='%s' d='", opacity);
  for (int i = from; i < to; i++) vertex(p, b, i == from ? 'M' : 'L', s->x[i], s->hi[i]);
  for (int i = to; i-- > from;) vertex(p, b, 'L', s->x[i], s->lo[i]);
  nm__buf_puts(b, "Z'/>\n");
}

static void draw_band(const struct nm__layout *p, const struct nm__series *s, struct nm__buf *b) {
  for (int i = 0; i < s->n;) {
    int to = i;
    while (to < s->n && banded(s, to)) to++;
    if (to > i) draw_band_run(p, s, i, to, b);
    i = to > i ? to : i + 1;
  }
}

static void draw_line(const struct nm__layout *p, const struct nm__series *s, struct nm__buf *b) {
  bool pen = false, some = false;
  for (int i = 0; i < s->n; i++) {
    if (drawn(s, i)) {
      if (!some)
        nm__buf_printf(b, "<path fill='none' stroke='currentColor' stroke-linejoin='round' "
                          "stroke-width='%s'%s%s d='", s->faint ? "1.4" : "2.2",
                       s->faint ? " stroke-opacity='0.7'" : "", dashes(s->style));
      vertex(p, b, pen ? 'L' : 'M', s->x[i], s->y[i]);
      some = true;
    }
    pen = drawn(s, i);
  }
  if (some) nm__buf_puts(b, "'/>\n");
}

/* The marker of a colour, centred; sizes are chosen for equal weight to the eye. */
static void draw_marker(struct nm__buf *b, int colour, double x, double y, double r) {
  int k = colour_of(colour);
  const char *cx = PX(x), *cy = PX(y);
  double t = r * 1.25, q = r * 0.92;
  switch ((k + colour / N_COLOURS) % N_SHAPES) {
    case 1:
      nm__buf_printf(b, "<rect x='%s' y='%s' width='%s' height='%s'/>\n", PX(x - q), PX(y - q),
                     PX(2 * q), PX(2 * q));
      break;
    case 2:
      nm__buf_printf(b, "<path d='M%s %sl%s %sh%sz'/>\n", cx, PX(y - t), PX(t), PX(1.8 * t),
                     PX(-2 * t));
      break;
    case 3:
      nm__buf_printf(b, "<path d='M%s %sl%s %sl%s %sl%s %sz'/>\n", cx, PX(y - t), PX(t), PX(t),
                     PX(-t), PX(t), PX(-t), PX(-t));
      break;
    case 4:
      nm__buf_printf(b, "<path d='M%s %sl%s %sh%sz'/>\n", cx, PX(y + t), PX(t), PX(-1.8 * t),
                     PX(-2 * t));
      break;
    default:
      nm__buf_printf(b, "<circle cx='%s' cy='%s' r='%s'/>\n", cx, cy, PX(r));
  }
}

static bool alone(const struct nm__series *s, int i) {
  return drawn(s, i) && !(i > 0 && drawn(s, i - 1)) && !(i + 1 < s->n && drawn(s, i + 1));
}

static double spacing(const struct nm__layout *p, const struct nm__series *s) {
  return (p->right - p->left) / (s->n > 1 ? s->n - 1 : 1);
}

static bool in_plot(const struct nm__layout *p, double y) {
  return y >= p->top - 0.5 && y <= p->bottom + 0.5;
}

/* Markers keep their distance: with many layers every second or third point has
 * one. A point without neighbours has no line, so it always has one. */
static void draw_markers(const struct nm__layout *p, const struct nm__series *s,
                         struct nm__buf *b) {
  int every = (int)fmax(1, ceil(13 / fmax(spacing(p, s), 0.5)));
  nm__buf_puts(b, "<g class='nm-dot' fill='currentColor' stroke='#fff' stroke-width='0.9'>\n");
  for (int i = 0; i < s->n; i++) {
    if (!drawn(s, i) || !(alone(s, i) || (!s->faint && i % every == 0))) continue;
    double y = nm__axis_pixel(&p->y, s->y[i]);
    if (in_plot(p, y))
      draw_marker(b, s->colour, nm__axis_pixel(&p->x, s->x[i]), y, s->faint ? 2.6 : 3.6);
  }
  nm__buf_puts(b, "</g>\n");
}

/* ---- hover ----------------------------------------------------------- */

static void hover_axis(struct nm__buf *b, const char *label, const char *otherwise, double v,
                       int decimals) {
  char num[NM__NUM];
  nm__html_escape(b, nm__layout_named(label) ? label : otherwise);
  nm__buf_printf(b, ": %s", nm__text_num(num, v, decimals));
}

static void hover_text(const struct nm__chart *c, const struct nm__layout *p,
                       const struct nm__series *s, int i, struct nm__buf *b) {
  char lo[NM__NUM], hi[NM__NUM];
  int dy = p->y.decimals + 2, dx = p->x.whole ? 0 : p->x.decimals + 1;
  nm__buf_puts(b, "<title>");
  if (nm__layout_named(s->name)) {
    nm__html_escape(b, s->name);
    nm__buf_putc(b, '\n');
  }
  hover_axis(b, c->x_label, "x", s->x[i], dx);
  nm__buf_putc(b, '\n');
  hover_axis(b, c->y_label, "y", s->y[i], dy);
  if (banded(s, i))
    nm__buf_printf(b, "\ninterval: %s to %s", nm__text_num(lo, s->lo[i], dy),
                   nm__text_num(hi, s->hi[i], dy));
  nm__buf_puts(b, "</title>");
}

/* Invisible until the pointer finds them, larger than the markers, and clamped
 * to the frame so that a point outside a stated range can still be read. */
static void draw_hits(const struct nm__chart *c, const struct nm__layout *p,
                      const struct nm__series *s, struct nm__buf *b) {
  double r = fmin(fmax(spacing(p, s) / 2, 5), 11);
  colour_open(b, s->colour);
  for (int i = 0; i < s->n; i++) {
    if (!drawn(s, i)) continue;
    double y = fmin(fmax(nm__axis_pixel(&p->y, s->y[i]), p->top), p->bottom);
    nm__buf_printf(b, "<circle class='nm-hit' cx='%s' cy='%s' r='%s' fill='currentColor' "
                      "opacity='0'>", PX(nm__axis_pixel(&p->x, s->x[i])), PX(y), PX(r));
    hover_text(c, p, s, i, b);
    nm__buf_puts(b, "</circle>\n");
  }
  nm__buf_puts(b, "</g>\n");
}

/* ---- lines across ---------------------------------------------------- */

static void ruled(struct nm__buf *b, const char *more, double x0, double y0, double x1,
                  double y1) {
  nm__buf_printf(b, "<path fill='none' stroke='currentColor'%s d='M%s %sL%s %s'/>\n", more,
                 PX(x0), PX(y0), PX(x1), PX(y1));
}

/* A wide line that nobody sees makes the thin one easy to point at; the title of
 * the group belongs to both. */
static void ruled_open(struct nm__buf *b, int colour, const char *name, const char *label,
                       const char *otherwise, double v, int decimals) {
  colour_open(b, colour);
  nm__buf_puts(b, "<title>");
  if (nm__layout_named(name)) {
    nm__html_escape(b, name);
    nm__buf_putc(b, '\n');
  }
  hover_axis(b, label, otherwise, v, decimals);
  nm__buf_puts(b, "</title>\n");
}

#define RULED_HIT " class='nm-hit' stroke-width='9' opacity='0'"

static void draw_hlines(const struct nm__chart *c, const struct nm__layout *p, struct nm__buf *b) {
  for (int i = 0; i < c->n_hlines; i++) {
    const struct nm__hline *h = &c->hlines[i];
    double y = nm__layout_usable(h->y) ? nm__axis_pixel(&p->y, h->y) : -1;
    if (!in_plot(p, y)) continue;
    ruled_open(b, h->colour, h->name, c->y_label, "y", h->y, p->y.decimals + 2);
    nm__buf_printf(b, "<g stroke-width='1.5' stroke-opacity='0.8'%s>\n", dashes(h->style));
    ruled(b, "", p->left, y, p->right, y);
    nm__buf_puts(b, "</g>\n");
    ruled(b, RULED_HIT, p->left, y, p->right, y);
    nm__buf_puts(b, "</g>\n");
  }
}

static double flag_base(const struct nm__layout *p, const struct nm__flag *f) {
  return p->top - 8 - f->row * NM__LINE_MARK;
}

/* Marks at the same x take turns: each draws its dashes into the gaps of the
 * others, so that two data sets that jump at one layer both stay visible. */
static void draw_vmark(const struct nm__chart *c, const struct nm__layout *p,
                       const struct nm__flag *f, struct nm__buf *b) {
  const struct nm__vmark *m = &c->vmarks[f->i];
  bool labelled = f->w > 0, left = f->x0 < f->x;
  double top = labelled && f->leader ? flag_base(p, f) - NM__FONT_MARK + 3 : p->top;
  int gap = f->n_same > 1 ? 5 * (f->n_same - 1) : 4;
  ruled_open(b, m->colour, m->name, c->x_label, "x", m->x, p->x.whole ? 0 : p->x.decimals + 1);
  nm__buf_printf(b, "<g stroke-width='1.4' stroke-dasharray='5 %d' stroke-dashoffset='%d'>\n", gap,
                 -5 * f->i_same);
  ruled(b, "", f->x, p->bottom, f->x, top);
  nm__buf_puts(b, "</g>\n");
  ruled(b, RULED_HIT, f->x, p->bottom, f->x, p->top);
  if (labelled)
    nm__svg_text(b, left ? f->x1 : f->x0, flag_base(p, f),
            left ? " font-size='12' text-anchor='end' fill='currentColor'"
                 : " font-size='12' fill='currentColor'",
            m->name, NM__FONT_MARK, f->w + 1);
  nm__buf_puts(b, "</g>\n");
}

/* ---- the legend ------------------------------------------------------ */

/* Column by column, because a data set and its controls are listed together. */
static void legend_place(const struct nm__layout *p, int i, double *x, double *y) {
  int rows = (p->n_legend + p->n_legend_cols - 1) / p->n_legend_cols;
  *x = p->legend_x + i / rows * p->legend_col;
  *y = p->legend_y + i % rows * NM__LINE_LEGEND + NM__LINE_LEGEND / 2.0;
}

static void legend_name(const struct nm__layout *p, struct nm__buf *b, const char *name, double x,
                        double y) {
  nm__buf_puts(b, "<g><title>");
  nm__html_escape(b, name);
  nm__buf_puts(b, "</title>");
  nm__svg_text(b, x + NM__KEY + NM__KEY_GAP, y + 4.5, " fill='currentColor'", name, NM__FONT_LEGEND,
          p->legend_text);
  nm__buf_puts(b, "</g>\n");
}

static void legend_series(const struct nm__layout *p, const struct nm__series *s, double x,
                          double y, struct nm__buf *b) {
  colour_open(b, s->colour);
  nm__buf_printf(b, "<g stroke-width='%s'%s%s>\n", s->faint ? "1.4" : "2.2",
                 s->faint ? " stroke-opacity='0.7'" : "", dashes(s->style));
  ruled(b, "", x, y, x + NM__KEY, y);
  nm__buf_puts(b, "</g>\n");
  if (!s->faint) {
    nm__buf_puts(b, "<g class='nm-dot' fill='currentColor' stroke='#fff' stroke-width='0.9'>\n");
    draw_marker(b, s->colour, x + NM__KEY / 2.0, y, 3.6);
    nm__buf_puts(b, "</g>\n");
  }
  nm__buf_puts(b, "</g>\n");
  legend_name(p, b, s->name, x, y);
}

static void draw_legend(const struct nm__chart *c, const struct nm__layout *p, struct nm__buf *b) {
  int at = 0;
  double x, y;
  for (int i = 0; i < c->n_series; i++) {
    if (!nm__layout_named(c->series[i].name)) continue;
    legend_place(p, at++, &x, &y);
    legend_series(p, &c->series[i], x, y, b);
  }
  for (int i = 0; i < c->n_hlines; i++) {
    const struct nm__hline *h = &c->hlines[i];
    if (!nm__layout_named(h->name)) continue;
    legend_place(p, at++, &x, &y);
    colour_open(b, h->colour);
    nm__buf_printf(b, "<g stroke-width='1.5' stroke-opacity='0.8'%s>\n", dashes(h->style));
    ruled(b, "", x, y, x + NM__KEY, y);
    nm__buf_puts(b, "</g>\n</g>\n");
    legend_name(p, b, h->name, x, y);
  }
}

/* ---- the whole ------------------------------------------------------- */

typedef void draw_fn(const struct nm__layout *p, const struct nm__series *s, struct nm__buf *b);

static void each_series(const struct nm__chart *c, const struct nm__layout *p, bool faint,
                        draw_fn *draw, struct nm__buf *b) {
  for (int i = 0; i < c->n_series; i++) {
    if (c->series[i].faint != faint || c->series[i].n <= 0) continue;
    colour_open(b, c->series[i].colour);
    draw(p, &c->series[i], b);
    nm__buf_puts(b, "</g>\n");
  }
}

/* Bands under lines, controls under findings. The nested <svg> is the window of
 * the plot: it cuts off what leaves a stated range without needing an id. */
static void draw_data(const struct nm__chart *c, const struct nm__layout *p, struct nm__buf *b) {
  double x = p->left, y = p->top - 2, w = p->right - p->left, h = p->bottom - p->top + 3;
  nm__buf_printf(b, "<svg x='%s' y='%s' width='%s' height='%s' viewBox='%s %s %s %s' "
                    "overflow='hidden'>\n", PX(x), PX(y), PX(w), PX(h), PX(x), PX(y), PX(w), PX(h));
  each_series(c, p, true, draw_band, b);
  each_series(c, p, false, draw_band, b);
  each_series(c, p, true, draw_line, b);
  each_series(c, p, false, draw_line, b);
  nm__buf_puts(b, "</svg>\n");
  each_series(c, p, true, draw_markers, b);
  each_series(c, p, false, draw_markers, b);
  for (int faint = 1; faint >= 0; faint--)
    for (int i = 0; i < c->n_series; i++)
      if (c->series[i].faint == (faint != 0)) draw_hits(c, p, &c->series[i], b);
}

void nm__chart_svg(const struct nm__chart *c, struct nm__buf *b) {
  struct nm__layout p;
  if (nm__layout_make(c, &p)) {
    b->failed = true;
    return;
  }
  nm__buf_printf(b, "<svg xmlns='http://www.w3.org/2000/svg' class='nm-chart%s' width='%d' "
                    "height='%d' viewBox='0 0 %d %d' role='img' aria-label='",
                 p.width > 620 ? " nm-wide" : "", p.width, p.height, p.width, p.height);
  nm__html_escape(b, c->title);
  nm__buf_puts(b, "' color='#1f2328' font-size='13' font-family=\"system-ui,-apple-system,"
                  "'Segoe UI',Roboto,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif\">\n"
                  "<style>.nm-hit:hover{opacity:.3}</style>\n");
  draw_head(c, &p, b);
  draw_grid(&p, b);
  draw_ticks(&p, b);
  draw_axis_labels(c, &p, b);
  draw_hlines(c, &p, b);
  for (int i = 0; i < p.n_flags; i++) draw_vmark(c, &p, &p.flags[i], b);
  draw_data(c, &p, b);
  if (p.empty)
    nm__svg_text(b, (p.left + p.right) / 2, (p.top + p.bottom) / 2,
            " text-anchor='middle' class='nm-soft' color='#57606a' fill='currentColor'",
            "no data", NM__FONT_LEGEND, p.right - p.left);
  draw_legend(c, &p, b);
  nm__buf_puts(b, "</svg>\n");
  nm__layout_done(&p);
}
