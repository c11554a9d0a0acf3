/* quantise_fit.h - the search for scales and least values behind the quantised types. */
#ifndef NM_TENSOR_QUANTISE_FIT_H
#define NM_TENSOR_QUANTISE_FIT_H

#include "tensor/dtype.h"

/* 32 values as d (q - zero), q from 0 to 2 zero - 1. d is a half. */
float nm__fit_scale(const float *x, int zero, uint8_t *q);
/* 32 values as d q + m, q from 0 to top. Both are halves. */
void nm__fit_line(const float *x, int top, float *d, float *m, uint8_t *q);

/* 256 values as d sc[j] q - dmin mn[j] in eight groups of 32; q from 0 to top, sc and mn from 0
 * to 63 (Q4_K, Q5_K). */
struct nm__lines { float d, dmin; int sc[8], mn[8]; uint8_t q[256]; };
void nm__fit_lines(const float *x, int top, struct nm__lines *out);
/* 256 values as d sc[j] (q - 32) in sixteen groups of 16; q from 0 to 63, sc from -128 to 127
 * (Q6_K). */
struct nm__scales { float d; int sc[16]; uint8_t q[256]; };
void nm__fit_scales(const float *x, struct nm__scales *out);

#endif
