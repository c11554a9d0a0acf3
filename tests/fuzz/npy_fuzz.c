/* npy_fuzz.c - any bytes given to the npy reader are refused with a sentence or read. For
 * libFuzzer. */
#include "file/npy.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static volatile float sink;

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  struct nm__npy a;
  nm_err err = {0};
  if (nm__npy_parse("fuzz", bytes, n, &a, &err)) {
    if (!err.text[0]) abort();
    return 0;
  }
  for (int64_t i = 0; i < a.n; i++) sink = a.data[i];
  nm__npy_done(&a);
  return 0;
}
