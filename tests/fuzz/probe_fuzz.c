/* probe_fuzz.c - saved probes and lists of texts or ids: any bytes, no crash. */
#include "study/depth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  nm_err err = {0};
  nm_probe *p = NULL;
  nm_texts t;
  if (!nm__probe_parse("fuzz", (const char *)data, size, &p, &err)) nm_probe_free(p);
  if (!nm__texts_parse("fuzz", data, size, NULL, &t, &err)) nm_texts_free(&t);
  return 0;
}
