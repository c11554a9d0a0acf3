/* math.h - elementary functions of our own, in double, so that no result
 * depends on a compiler's or a C library's libm. Relative error of a few 1e-16
 * (sin and cos: absolute, for |x| up to 1e9). The float versions that work on
 * 16 lanes live with the kernels (kern.h). sqrt and fma are exact in IEEE
 * arithmetic and come from the compiler. */
#ifndef NM_TENSOR_MATH_H
#define NM_TENSOR_MATH_H

#include <stdint.h>

double nm__exp(double x);
double nm__log(double x);
double nm__log1p(double x);
double nm__sin(double x);
double nm__cos(double x);
double nm__tanh(double x);
double nm__pow(double x, double y);      /* x > 0 */
double nm__sqrt(double x);

/* n normal values of mean 0: every one a function of (seed, stream, element). */
void nm__normals(float *x, int64_t n, double std, uint64_t seed, uint64_t stream);

#endif
