/* npy.h - NumPy arrays: float32 out; float32, float64, float16, integers in. */
#ifndef NM_FILE_NPY_H
#define NM_FILE_NPY_H

#include "core/core.h"

/* C order, ne[0] slowest. */
struct nm__npy { int n_dims; int64_t ne[4]; int64_t n; float *data; };

int nm__npy_read(const char *path, struct nm__npy *out, nm_err *err);
int nm__npy_parse(const char *name, const void *bytes, size_t n, struct nm__npy *out, nm_err *err);
void nm__npy_done(struct nm__npy *a);
int nm__npy_write(const char *path, int n_dims, const int64_t *ne, const float *data, nm_err *err);
/* The header of a v1.0 float32 file (a multiple of 64 bytes) for streaming; returns its length. */
size_t nm__npy_header(char out[256], int n_dims, const int64_t *ne);

#endif
