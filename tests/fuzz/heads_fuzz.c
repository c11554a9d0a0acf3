/* heads_fuzz.c - files of head scores: any bytes, no crash. */
#include "look/heads.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  nm_err err = {0};
  struct nm__head_scores s;
  struct nm__buf b;
  if (nm__head_scores_parse("fuzz", (const char *)data, size, &s, &err)) return 0;
  nm__buf_init(&b, 1 << 24);
  nm__heads_sum(&s);
  nm__head_scores_csv(&s, &b);
  nm__buf_done(&b);
  nm__head_scores_done(&s);
  return 0;
}
