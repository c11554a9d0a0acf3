/* svg.h - what the figures of this folder share: coordinates and text. Private to src/report. */
#ifndef NM_REPORT_SVG_H
#define NM_REPORT_SVG_H

#include "report/layout.h"
#include "report/text.h"

/* A coordinate with one decimal, in storage that lives as long as the block. */
const char *nm__svg_pixel(char *out, double v);
#define PX(v) nm__svg_pixel((char[NM__NUM]){0}, (v))

/* A text at (x, y), cut to max_w pixels; `more`: attributes, each with a space before it. */
void nm__svg_text(struct nm__buf *b, double x, double y, const char *more, const char *s, double px,
                  double max_w);
/* Wraps s from the left margin; the last line allowed is cut. Returns the baseline of the next
 * line. */
double nm__svg_paragraph(struct nm__buf *b, const char *s, double y, double px, double line,
                         const char *more, double max_w);

#endif
