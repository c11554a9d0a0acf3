/* text.h - what the writers of this folder share about text: hostile bytes read
 * as UTF-8, how wide a string comes out, numbers that look the same everywhere.
 *
 *   char num[NM__NUM];
 *   nm__text_num(num, 0.9134, 2);            "0.91", whatever the locale
 *   nm__text_width("layer", 13);             about 33 pixels
 *
 * Nothing here owns memory or keeps state; every function may be called from
 * any thread. Private to src/report. */
#ifndef NM_REPORT_TEXT_H
#define NM_REPORT_TEXT_H

#include "core/core.h"

enum { NM__NUM = 32, NM__REPLACEMENT = 0xFFFD };

/* Reads one code point of the zero-terminated s and returns the bytes it took;
 * 0 at the end. A byte that is not UTF-8 is one U+FFFD. */
size_t nm__text_next(const char *s, int32_t *code);
void nm__text_put(struct nm__buf *b, int32_t code);
/* Appends s as a terminal may show it: no controls, no reordering of the line. */
void nm__text_plain(struct nm__buf *b, const char *s);
/* Columns of a terminal. */
int nm__text_cells(const char *s);
/* Pixels of s set in a wide sans of the given size: an estimate from above,
 * because the fonts of the reader are not known here. */
double nm__text_width(const char *s, double px);
/* Bytes of the longest start of s that fits max_w pixels: all of s, or up to a
 * space, or (a word longer than the line) up to a character. */
size_t nm__text_fit(const char *s, double px, double max_w);
/* Appends s escaped for HTML and SVG, cut with an ellipsis to max_w pixels. */
void nm__text_cut(struct nm__buf *b, const char *s, double px, double max_w);

/* Whether a cell is a number as tables print them: "-0.31", "1,204", "12 MiB",
 * "0.91 [0.88, 0.94]". Cells such as "", "-" and "nan" are neutral. */
enum nm__cell_kind { NM__CELL_TEXT, NM__CELL_NUMBER, NM__CELL_NEUTRAL };
enum nm__cell_kind nm__text_kind(const char *s);
/* Right-aligned when there is a number and nothing but numbers in the column:
 * n cells, `stride` apart. NULL cells are neutral. */
bool nm__text_numeric(const char *const *cells, size_t n, size_t stride);

/* v with a fixed count of decimals and a point, into out[NM__NUM]; returns out.
 * "-0.0" is written "0.0"; figures too long to read take the e form. */
const char *nm__text_num(char *out, double v, int decimals);

#endif
