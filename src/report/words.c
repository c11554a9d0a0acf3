/* words.c - a grid of named cells whose strength is a value in 0..1, as SVG: layers against
 * positions, each cell with a word. Real text; a <title> on every cell tells the rest on hover.
 * The colour is the house's first one at the value's opacity, so the grid is right on white and,
 * inside a page, in the dark. Deterministic like chart.c. */
#include "report/report.h"

#include "report/layout.h"
#include "report/text.h"

enum { CELL_W = 66, CELL_H = 21, FONT = 11, LEAST_W = 620 };

static double widest(const char *const *names, int n, double px, double most) {
  double w = 0;
  for (int i = 0; i < n; i++) {
    double one = nm__text_width(names[i], px);
    w = one > w ? one : w;
  }
  return w < most ? w : most;
}

static void text(struct nm__buf *b, double x, double y, const char *more, const char *s, double px,
                 double max_w) {
  nm__buf_printf(b, "<text x='%.1f' y='%.1f'%s>", x, y, more);
  nm__text_cut(b, s, px, max_w);
  nm__buf_puts(b, "</text>\n");
}

static void cell(struct nm__buf *b, const struct nm__word_cell *c, double x, double y) {
  double v = c->value > 0 ? c->value < 1 ? c->value : 1 : 0;
  nm__buf_printf(b, "<g><title>");
  nm__html_escape(b, c->hover);
  nm__buf_printf(b, "</title><rect x='%.1f' y='%.1f' width='%d' height='%d' fill='currentColor' "
                 "fill-opacity='%.3f'%s/>", x + 0.5, y + 0.5, CELL_W - 1, CELL_H - 1,
                 0.03 + 0.92 * v,
                 c->mark ? " stroke='#d55e00' stroke-width='1.6'" : "");
  text(b, x + CELL_W / 2.0, y + CELL_H - 6.5,
       v > 0.55 ? " text-anchor='middle' fill='#fff'"
                : " text-anchor='middle' class='nm-ink' fill='#1f2328'",
       c->text, FONT, CELL_W - 6);
  nm__buf_puts(b, "</g>\n");
}

void nm__words_svg(const struct nm__words *h, struct nm__buf *b) {
  double left = NM__MARGIN + widest(h->y_names, h->n_y, NM__FONT_MARK, 180) + 10;
  double top = 84, w = left + (double)h->n_x * CELL_W + NM__MARGIN;
  double height = top + (double)h->n_y * CELL_H + 34;
  if (w < LEAST_W) w = LEAST_W;
  nm__buf_printf(b,
                 "<svg xmlns='http://www.w3.org/2000/svg' class='nm-chart' viewBox='0 0 %.0f %.0f'"
                 " width='%.0f' height='%.0f' style='min-width:%.0fpx' font-family=\"system-ui,"
                 "'Segoe UI',Roboto,Helvetica,Arial,'DejaVu Sans',sans-serif\" font-size='%d' "
                 "color='#1f2328'>\n<style>@media(prefers-color-scheme:dark){figure .nm-ink{fill:"
                 "currentColor}}</style>\n",
                 w, height, w, height, w, NM__FONT_MARK);
  text(b, NM__MARGIN, NM__MARGIN + 15, " font-size='17' font-weight='600' fill='currentColor'",
       h->title, NM__FONT_TITLE, (w - 2 * NM__MARGIN) * NM__BOLD);
  text(b, NM__MARGIN, NM__MARGIN + 34, " class='nm-soft' color='#57606a' fill='currentColor'",
       h->subtitle, NM__FONT_SUB, w - 2 * NM__MARGIN);
  for (int i = 0; i < h->n_x; i++)
    text(b, left + (i + 0.5) * CELL_W, top - 7, " text-anchor='middle' fill='currentColor'",
         h->x_names[i], NM__FONT_MARK, CELL_W - 4);
  for (int k = 0; k < h->n_y; k++)
    text(b, left - 8, top + (k + 1.0) * CELL_H - 6.5, " text-anchor='end' fill='currentColor'",
         h->y_names[k], NM__FONT_MARK, 180);
  nm__buf_puts(b, "<g class='nm-c0' color='#0072b2'>\n");
  for (int k = 0; k < h->n_y; k++)
    for (int i = 0; i < h->n_x; i++)
      cell(b, &h->cells[k * h->n_x + i], left + (double)i * CELL_W, top + (double)k * CELL_H);
  nm__buf_puts(b, "</g>\n");
  text(b, left, height - 12, " class='nm-soft' color='#57606a' fill='currentColor'", h->note,
       NM__FONT_MARK, w - left - NM__MARGIN);
  nm__buf_puts(b, "</svg>\n");
}
