/* dtype.h - tensor element types as GGUF numbers them, and their blocks.
 *
 * One row a type: name, block length in elements, bytes a block, and the plain
 * dequantiser. A type whose `to_f32` is NULL is known by name and sized, but
 * cannot be computed on. Kernels that dequantise faster give the same bits. */
#ifndef NM_TENSOR_DTYPE_H
#define NM_TENSOR_DTYPE_H

#include "core/core.h"

enum nm__dtype {
  NM__F32 = 0, NM__F16 = 1, NM__Q4_0 = 2, NM__Q4_1 = 3, NM__Q5_0 = 6, NM__Q5_1 = 7,
  NM__Q8_0 = 8, NM__I8 = 24, NM__I16 = 25, NM__I32 = 26, NM__I64 = 27, NM__F64 = 28,
  NM__BF16 = 30, NM__Q4_K = 12, NM__Q5_K = 13, NM__Q6_K = 14, NM__IQ4_NL = 20,
  NM__DTYPE_END = 43
};

struct nm__dtype_info {
  const char *name;                /* "Q8_0"; NULL: number not in use */
  const char *removed;             /* why a number that once existed is refused, else NULL */
  int block, bytes;                /* elements and bytes of one block */
  void (*to_f32)(float *out, const void *blocks, int64_t n);   /* n: multiple of block */
  void (*from_f32)(void *blocks, const float *in, int64_t n);  /* finite values; or NULL */
};
/* NULL for a number that never existed. */
const struct nm__dtype_info *nm__dtype(uint32_t type);
/* -1 when the name (any case) is not known. */
int nm__dtype_by_name(const char *name);
/* The types that can be computed on, or those that can be written: "F32, F16, Q4_0, ...". */
void nm__dtype_names(struct nm__buf *b);
void nm__dtype_written(struct nm__buf *b);

float nm__half_to_f32(uint16_t h);
uint16_t nm__f32_to_half(float f);       /* round to nearest, ties to even */
float nm__bf16_to_f32(uint16_t h);
uint16_t nm__f32_to_bf16(float f);       /* round to nearest, ties to even */

#endif
