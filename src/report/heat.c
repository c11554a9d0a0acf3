/* heat.c - a heat map as SVG: a grid of cells whose colour is the sign and whose strength is the
 * size of a value in [-1, 1].
 *
 *   title, subtitle
 *   row name |##|  |..|      cells; figures inside where they fit
 *   row name |  |##|  |
 *             0  1  2        column names, every so many that they fit
 *             x label
 *   -1 [======] 1  value
 *
 * As in chart.c colours are classes with an attribute beside, so a page can give others for the
 * dark: strength is opacity over the paper, whatever that is. */
#include "report/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report/svg.h"

enum { WIDTH = 860, ROW_MOST = 22, ROW_LEAST = 11, COL_MOST = 84, COL_LEAST = 7, NAME_MOST = 190,
       FIGURES_FROM = 34, BAR_STEPS = 41, BAR_W = 205 };

static const char POSITIVE[] = "class='nm-c1' color='#d55e00'",
                  NEGATIVE[] = "class='nm-c0' color='#0072b2'";

struct place { double left, top, cw, ch; int width, height, every; };

static const char *col_name(const struct nm__heat *h, int c, char out[NM__NUM]) {
  return h->col ? h->col[c] : nm__text_num(out, c, 0);
}

static double name_width(const char *const *names, int n, double px) {
  double w = 0;
  for (int i = 0; i < n; i++) w = fmax(w, nm__text_width(names[i], px));
  return w;
}

static double head_height(const struct nm__heat *h) {
  double w = WIDTH - 2.0 * NM__MARGIN, y = NM__MARGIN;
  if (nm__layout_named(h->title))
    y += NM__LINE_TITLE * nm__layout_lines(h->title, NM__FONT_TITLE, w * NM__BOLD);
  if (nm__layout_named(h->subtitle))
    y += NM__LINE_SUB * nm__layout_lines(h->subtitle, NM__FONT_SUB, w) + 4;
  return y + 8;
}

static struct place layout(const struct nm__heat *h) {
  struct place p;
  char num[NM__NUM];
  double name = fmin(name_width(h->row, h->n_rows, NM__FONT_TICK), NAME_MOST), widest = 0;
  p.left = NM__MARGIN + (nm__layout_named(h->y_label) ? 20 : 0) + name + 10;
  p.top = head_height(h);
  p.cw = fmin(fmax((WIDTH - p.left - NM__MARGIN) / (h->n_cols > 0 ? h->n_cols : 1), COL_LEAST),
              COL_MOST);
  p.ch = fmin(fmax(620.0 / (h->n_rows > 0 ? h->n_rows : 1), ROW_LEAST), ROW_MOST);
  for (int c = 0; c < h->n_cols; c++)
    widest = fmax(widest, nm__text_width(col_name(h, c, num), NM__FONT_TICK));
  p.every = (int)fmax(1, ceil((widest + 6) / p.cw));
  p.width = (int)fmax(WIDTH, ceil(p.left + p.cw * h->n_cols + NM__MARGIN));
  p.height = (int)ceil(p.top + p.ch * h->n_rows + 104);
  return p;
}

/* ---- text ---------------------------------------------------------------------- */

#define SOFT " class='nm-soft' color='#57606a' fill='currentColor'"

static void draw_words(const struct nm__heat *h, const struct place *p, struct nm__buf *b) {
  char num[NM__NUM];
  double w = p->width - 2.0 * NM__MARGIN, bottom = p->top + p->ch * h->n_rows;
  double y = nm__svg_paragraph(b, h->title, NM__MARGIN + NM__FONT_TITLE - 2, NM__FONT_TITLE,
                       NM__LINE_TITLE, " font-size='17' font-weight='600' fill='currentColor'",
                       w * NM__BOLD);
  nm__svg_paragraph(b, h->subtitle, y - 2, NM__FONT_SUB, NM__LINE_SUB, SOFT, w);
  nm__buf_puts(b, "<g text-anchor='end'" SOFT ">\n");
  for (int r = 0; r < h->n_rows; r++)
    nm__svg_text(b, p->left - 8, p->top + p->ch * (r + 0.5) + 4.5, " xml:space='preserve'",
                 h->row[r], NM__FONT_TICK, NAME_MOST);
  nm__buf_puts(b, "</g>\n<g text-anchor='middle'" SOFT ">\n");
  for (int c = 0; c < h->n_cols; c += p->every)
    nm__svg_text(b, p->left + p->cw * (c + 0.5), bottom + 18, "", col_name(h, c, num),
                 NM__FONT_TICK, p->cw * p->every);
  nm__buf_puts(b, "</g>\n");
  const char *axis = " font-size='14' text-anchor='middle' fill='currentColor'";
  if (nm__layout_named(h->x_label))
    nm__svg_text(b, p->left + p->cw * h->n_cols / 2, bottom + 40, axis, h->x_label, NM__FONT_AXIS,
                 w);
  if (!nm__layout_named(h->y_label)) return;
  nm__buf_printf(b, "<g transform='translate(%d %s) rotate(-90)'>", NM__MARGIN + 10,
                 PX(p->top + p->ch * h->n_rows / 2));
  nm__svg_text(b, 0, 0, axis, h->y_label, NM__FONT_AXIS, fmax(p->ch * h->n_rows, 60));
  nm__buf_puts(b, "</g>\n");
}

/* ---- cells ------------------------------------------------------------------------ */

static void hover(const struct nm__heat *h, int r, int c, struct nm__buf *b) {
  char num[NM__NUM], lo[NM__NUM], hi[NM__NUM];
  size_t i = (size_t)r * (size_t)h->n_cols + (size_t)c;
  nm__buf_puts(b, "<title>");
  nm__html_escape(b, h->x_label ? h->x_label : "column");
  nm__buf_putc(b, ' ');
  nm__html_escape(b, col_name(h, c, num));
  nm__buf_puts(b, "\n");
  nm__html_escape(b, h->y_label ? h->y_label : "row");
  nm__buf_puts(b, ": ");
  nm__html_escape(b, h->row[r]);
  nm__buf_puts(b, "\n");
  nm__html_escape(b, h->value_label ? h->value_label : "value");
  nm__buf_printf(b, ": %s", nm__text_num(num, h->v[i], 3));
  if (h->lo && h->hi && h->hi[i] > h->lo[i])
    nm__buf_printf(b, " (%s to %s)", nm__text_num(lo, h->lo[i], 3), nm__text_num(hi, h->hi[i], 3));
  nm__buf_puts(b, "</title>");
}

static void rect(struct nm__buf *b, double x, double y, double w, double ht, double v) {
  char num[NM__NUM];
  double strength = fmin(fabs(v), 1);
  nm__buf_printf(b, "<rect x='%s' y='%s' width='%s' height='%s' fill='currentColor' "
                    "fill-opacity='%s'", PX(x), PX(y), PX(w), PX(ht),
                 nm__text_num(num, strength, 3));
}

static void figure(struct nm__buf *b, double x, double y, double v) {
  char num[NM__NUM];
  nm__buf_printf(b, "<text x='%s' y='%s' text-anchor='middle' font-size='11'%s>%s</text>", PX(x),
                 PX(y), fabs(v) > 0.6 ? " class='nm-on' fill='#fff'" : SOFT,
                 nm__text_num(num, v, 2));
}

static void draw_cell(const struct nm__heat *h, const struct place *p, int r, int c,
                      struct nm__buf *b) {
  double v = h->v[(size_t)r * (size_t)h->n_cols + (size_t)c];
  double x = p->left + p->cw * c, y = p->top + p->ch * r;
  if (!isfinite(v)) {
    nm__buf_printf(b, "<circle cx='%s' cy='%s' r='1.2' fill='#57606a' class='nm-soft'/>\n",
                   PX(x + p->cw / 2), PX(y + p->ch / 2));
    return;
  }
  nm__buf_printf(b, "<g %s>", v < 0 ? NEGATIVE : POSITIVE);
  rect(b, x + 0.5, y + 0.5, p->cw - 1, p->ch - 1, v);
  nm__buf_puts(b, ">");
  hover(h, r, c, b);
  nm__buf_puts(b, "</rect>");
  if (p->cw >= FIGURES_FROM && p->ch >= 15 && fabs(v) >= 0.005)
    figure(b, x + p->cw / 2, y + p->ch / 2 + 4, v);
  nm__buf_puts(b, "</g>\n");
}

static void draw_frame(const struct nm__heat *h, const struct place *p, struct nm__buf *b) {
  nm__buf_printf(b, "<rect class='nm-grid' x='%s' y='%s' width='%s' height='%s' fill='none' "
                    "stroke='#e4e7eb'/>\n", PX(p->left), PX(p->top), PX(p->cw * h->n_cols),
                 PX(p->ch * h->n_rows));
  if (h->mark_row < 0 || h->mark_col < 0) return;
  nm__buf_printf(b, "<rect x='%s' y='%s' width='%s' height='%s' fill='none' stroke='currentColor' "
                    "stroke-width='1.6'/>\n", PX(p->left + p->cw * h->mark_col),
                 PX(p->top + p->ch * h->mark_row), PX(p->cw), PX(p->ch));
}

/* The scale, from -1 to 1. */
static void draw_bar(const struct nm__heat *h, const struct place *p, struct nm__buf *b) {
  double y = p->top + p->ch * h->n_rows + 58, step = (double)BAR_W / BAR_STEPS, x = p->left + 26;
  nm__buf_puts(b, "<g" SOFT ">\n");
  nm__svg_text(b, x - 6, y + 10, " text-anchor='end'", "-1", NM__FONT_TICK, 40);
  nm__svg_text(b, x + BAR_W / 2.0, y + 28, " text-anchor='middle'", "0", NM__FONT_TICK, 40);
  nm__svg_text(b, x + BAR_W + 6, y + 10, "", "1", NM__FONT_TICK, 40);
  nm__svg_text(b, x + BAR_W + 28, y + 10, "", h->value_label ? h->value_label : "", NM__FONT_TICK,
          p->width - x - BAR_W - 28 - NM__MARGIN);
  nm__buf_puts(b, "</g>\n");
  for (int i = 0; i < BAR_STEPS; i++) {
    double v = (2.0 * i - (BAR_STEPS - 1)) / (BAR_STEPS - 1);
    nm__buf_printf(b, "<g %s>", v < 0 ? NEGATIVE : POSITIVE);
    rect(b, x + step * i, y, step + 0.2, 12, v);
    nm__buf_puts(b, "/></g>\n");
  }
}

void nm__heat_svg(const struct nm__heat *h, struct nm__buf *b) {
  struct place p = layout(h);
  nm__buf_printf(b, "<svg xmlns='http://www.w3.org/2000/svg' class='nm-chart nm-wide' width='%d' "
                    "height='%d' viewBox='0 0 %d %d' role='img' aria-label='",
                 p.width, p.height, p.width, p.height);
  nm__html_escape(b, h->title);
  nm__buf_puts(b, "' color='#1f2328' font-size='13' font-family=\"system-ui,-apple-system,"
                  "'Segoe UI',Roboto,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif\">\n");
  draw_words(h, &p, b);
  for (int r = 0; r < h->n_rows; r++)
    for (int c = 0; c < h->n_cols; c++) draw_cell(h, &p, r, c, b);
  draw_frame(h, &p, b);
  draw_bar(h, &p, b);
  nm__buf_puts(b, "</svg>\n");
}
