/* graph.c - a graph drawn as SVG: nodes where they are told to be, their edges and names. Both axes
 * have one scale, so that what looks near is near. */
#include <math.h>

#include "report/layout.h"
#include "report/report.h"
#include "report/text.h"

enum { SIDE = 560 };

struct frame { double x0, y0, scale, left, top; };

static bool usable(const double *p) { return isfinite(p[0]) && isfinite(p[1]); }

static struct frame frame_of(const struct nm__drawing *d, double top) {
  double lo[2] = {HUGE_VAL, HUGE_VAL}, hi[2] = {-HUGE_VAL, -HUGE_VAL};
  for (int i = 0; i < d->n; i++)
    for (int k = 0; k < 2 && usable(d->xy[i]); k++) {
      lo[k] = fmin(lo[k], d->xy[i][k]);
      hi[k] = fmax(hi[k], d->xy[i][k]);
    }
  double wide = fmax(hi[0] - lo[0], hi[1] - lo[1]);
  if (!(wide > 0) || !isfinite(wide)) return (struct frame){0, 0, 0, NM__MARGIN, top};
  struct frame f = {(lo[0] + hi[0] - wide) / 2, (lo[1] + hi[1] - wide) / 2, (SIDE - 90) / wide,
                    NM__MARGIN + 30, top + 20};
  return f;
}

static const char *px(const struct frame *f, double v, char out[NM__NUM]) {
  return nm__text_num(out, f->left + (v - f->x0) * f->scale, 1);
}
static const char *py(const struct frame *f, double v, char out[NM__NUM]) {
  return nm__text_num(out, f->top + SIDE - 90 - (v - f->y0) * f->scale, 1);
}

static void edges(const struct nm__drawing *d, const struct frame *f, struct nm__buf *b) {
  char s[4][NM__NUM];
  nm__buf_puts(b, "<g class='nm-c9' color='#777777'><g stroke='currentColor' fill='none' "
               "stroke-width='1.6' stroke-opacity='0.7'>\n");
  for (int i = 0; i < d->n_edges; i++) {
    const double *p = d->xy[d->edge[i][0]], *q = d->xy[d->edge[i][1]];
    if (usable(p) && usable(q))
      nm__buf_printf(b, "<path d='M%s %sL%s %s'/>\n", px(f, p[0], s[0]), py(f, p[1], s[1]),
                     px(f, q[0], s[2]), py(f, q[1], s[3]));
  }
  nm__buf_puts(b, "</g></g>\n");
}

static void nodes(const struct nm__drawing *d, const struct frame *f, struct nm__buf *b) {
  char s[2][NM__NUM];
  nm__buf_puts(b, "<g class='nm-c0' color='#0072b2'>\n");
  for (int i = 0; i < d->n; i++) {
    if (!usable(d->xy[i])) continue;
    nm__buf_printf(b, "<circle cx='%s' cy='%s' r='5' fill='currentColor'><title>",
                   px(f, d->xy[i][0], s[0]), py(f, d->xy[i][1], s[1]));
    nm__html_escape(b, d->name[i]);
    nm__buf_puts(b, "</title></circle>\n");
  }
  nm__buf_puts(b, "</g>\n<g class='nm-text' fill='currentColor' font-size='13'>\n");
  for (int i = 0; i < d->n; i++) {
    if (!usable(d->xy[i])) continue;
    double x = f->left + (d->xy[i][0] - f->x0) * f->scale,
           y = f->top + SIDE - 90 - (d->xy[i][1] - f->y0) * f->scale;
    nm__buf_printf(b, "<text x='%s' y='%s'>", nm__text_num(s[0], x + 8, 1),
                   nm__text_num(s[1], y - 6, 1));
    nm__text_cut(b, d->name[i], 13, 110);
    nm__buf_puts(b, "</text>\n");
  }
  nm__buf_puts(b, "</g>\n");
}

void nm__drawing_svg(const struct nm__drawing *d, struct nm__buf *b) {
  double width = SIDE + 2.0 * NM__MARGIN + 60, y = NM__MARGIN + NM__FONT_TITLE - 2;
  struct frame f = frame_of(d, y + 36);
  nm__buf_printf(b, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' class='nm-chart' "
                 "role='img' font-family='system-ui, sans-serif' color='#1f2328'>\n",
                 (int)width, (int)(f.top + SIDE));
  nm__buf_puts(b, "<rect class='nm-paper' width='100%' height='100%' fill='#fff'/>\n");
  nm__buf_printf(b, "<text x='%d' y='%d' font-size='17' font-weight='600' fill='currentColor'>",
                 (int)NM__MARGIN, (int)y);
  nm__text_cut(b, d->title, NM__FONT_TITLE, width - 2.0 * NM__MARGIN);
  nm__buf_printf(b, "</text>\n<text x='%d' y='%d' class='nm-soft' color='#57606a' "
                 "fill='currentColor' font-size='13'>", (int)NM__MARGIN, (int)y + 22);
  nm__text_cut(b, d->subtitle, 13, width - 2.0 * NM__MARGIN);
  nm__buf_puts(b, "</text>\n");
  edges(d, &f, b);
  nodes(d, &f, b);
  nm__buf_puts(b, "<g class='nm-soft' color='#57606a' fill='currentColor' font-size='13'>\n");
  nm__buf_printf(b, "<text x='%d' y='%d'>", (int)NM__MARGIN, (int)(f.top + SIDE - 30));
  nm__text_cut(b, d->note, 13, width - 2.0 * NM__MARGIN);
  nm__buf_puts(b, "</text>\n</g>\n</svg>\n");
}
