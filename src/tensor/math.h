/* math.h - elementary functions of our own, in double, so that no result
 * depends on a compiler's or a C library's libm. Relative error of a few 1e-16
 * (sin and cos: absolute, for |x| up to 1e9). The float versions that work on
 * 16 lanes live with the kernels (kern.h). sqrt and fma are exact in IEEE
 * arithmetic and come from the compiler. */
#ifndef NM_TENSOR_MATH_H
#define NM_TENSOR_MATH_H

double nm__exp(double x);
double nm__log(double x);
double nm__log1p(double x);
double nm__sin(double x);
double nm__cos(double x);
double nm__tanh(double x);
double nm__pow(double x, double y);      /* x > 0 */
double nm__sqrt(double x);

#endif
