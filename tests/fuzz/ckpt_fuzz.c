/* ckpt_fuzz.c - the state file of a checkpoint: any bytes, no crash. */
#include "learn/ckpt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  nm_err err = {0};
  struct nm__ckpt_state s;
  if (!nm__ckpt_state_parse("fuzz", data, size, &s, &err)) nm__ckpt_state_close(&s);
  return 0;
}
