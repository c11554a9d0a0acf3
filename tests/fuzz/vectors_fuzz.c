/* vectors_fuzz.c - any bytes given to the reader of vector files (npy, safetensors, control vectors)
 * are refused with a sentence or are finite rows of one width.
 *
 *   clang -fsanitize=fuzzer,address,undefined ... tests/fuzz/vectors_fuzz.c */
#include <stdlib.h>

#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  struct nm__dirs d;
  nm_err err = {0};
  int st = nm__dirs_parse("fuzz", bytes, n, n % 2 ? "direction" : NULL, &d, &err);
  if (st) {
    if (!err.text[0] || err.status != st || d.v || d.has) abort();
    return 0;
  }
  for (int64_t i = 0; i < d.rows * d.pos * d.n; i++)
    if (d.v[i] - d.v[i] != 0) abort();
  for (int64_t r = 0; d.has && r < d.rows; r++)
    if (d.has[r] > 1 || (!r && d.has[r])) abort();
  nm__dirs_done(&d);
  return 0;
}
