/* depth_sides.h - what depth_sides.c and its tables share. */
#ifndef NM_STUDY_DEPTH_SIDES_H
#define NM_STUDY_DEPTH_SIDES_H

#include "report/report.h"
#include "study/depth.h"

/* b less a. */
nm_depth_shift nm__depth_shift(const nm_depth_curve *a, const nm_depth_curve *b);
/* depth.json, depth.csv, report.html, and a figure for each data set. */
int nm__depth_sides_write(const nm_depth_sides *s, const nm_depth_sides_opts *o,
                          const struct nm__record *rec, nm_err *err);
char *nm__depth_sides_summary(const nm_depth_sides *s);        /* one line */

#endif
