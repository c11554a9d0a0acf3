/* svg.c - coordinates and text of figures. */
#include "report/svg.h"

#include <stdlib.h>
#include <string.h>

const char *nm__svg_pixel(char *out, double v) {
  nm__text_num(out, v, 1);
  size_t n = strlen(out);
  if (n > 2 && !strcmp(out + n - 2, ".0")) out[n - 2] = 0;
  return out;
}

void nm__svg_text(struct nm__buf *b, double x, double y, const char *more, const char *s, double px,
                  double max_w) {
  nm__buf_printf(b, "<text x='%s' y='%s'%s>", PX(x), PX(y), more);
  nm__text_cut(b, s, px, max_w);
  nm__buf_puts(b, "</text>\n");
}

double nm__svg_paragraph(struct nm__buf *b, const char *s, double y, double px, double line,
                         const char *more, double max_w) {
  int n = nm__layout_named(s) ? nm__layout_lines(s, px, max_w) : 0;
  for (int i = 0; i < n; i++, y += line) {
    size_t k = i + 1 < n ? nm__text_fit(s, px, max_w) : strlen(s);
    char *part = nm__strndup(s, k);
    if (!part) {
      b->failed = true;
      return y;
    }
    nm__svg_text(b, NM__MARGIN, y, more, part, px, max_w);
    free(part);
    s += k;
    s += strspn(s, " ");
  }
  return y;
}
