/* world_fuzz.c - any bytes given to the checker of worlds are refused with a sentence or are an
 * item that has at most one right answer among those tried.
 *
 *   clang -fsanitize=fuzzer,address,undefined ... tests/fuzz/world_fuzz.c */
#include <stdlib.h>
#include <string.h>

#include "noema.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  static const char *const answers[] = {"yes", "no", "even", "odd", "north", "south", "a", "k",
                                        "good", "bad", "knight", "knave", "2", "odd even"};
  int n_right = 0;
  for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
    nm_err err = {0};
    bool right = true;
    int st = nm_world_check((const char *)bytes, n, answers[i], &right, &err);
    if (st && (!err.text[0] || err.status != st || right)) abort();
    n_right += !st && right;
  }
  if (n_right > 1) abort();
  return 0;
}
