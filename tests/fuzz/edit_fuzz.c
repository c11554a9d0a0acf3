/* edit_fuzz.c - any bytes given to the reader of edit files are refused with a sentence or
 * become edits that can be described and applied: to a row of their own width, to the weights of a
 * small model (or refused there with a sentence).
 *
 *   clang -fsanitize=fuzzer,address,undefined ... tests/fuzz/edit_fuzz.c */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/delta.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void apply(const struct nm__edit *e) {
  size_t width = e->vec.v ? (size_t)e->vec.n : 7;
  float *x = malloc(width * sizeof *x);
  for (size_t i = 0; i < width; i++) x[i] = (float)i - 3;
  for (int row = 0; row < (e->vec.rows > 1 ? e->vec.rows : 1) && row < 4; row++)
    nm__edit_apply(e, (struct nm__edit_at){row, 0, row - 1}, &nm__kern_portable, x, (int64_t)width);
  free(x);
}

static const nm_model *model(void) {
  static nm_model *m;
  char path[64];
  snprintf(path, sizeof path, "/tmp/noema_edit_fuzz.%ld.gguf", (long)getpid());
  if (!m && (nm_write_random("tiny", "Q4_0", 1, path, NULL, NULL) ||
             nm_model_open(path, &m, NULL)))
    abort();
  unlink(path);
  return m;
}

static void beside_weights(nm_edits *e) {
  struct nm__deltas d = {0};
  nm_err err = {0};
  int st = nm__weight_edits_apply(e, model(), &d, &err);
  if (st && (!err.text[0] || err.status != st)) abort();
  nm__deltas_done(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  nm_edits *e = NULL;
  nm_err err = {0};
  int st = nm_edits_parse("fuzz", (const char *)bytes, n, &e, &err);
  if (st) {
    if (!err.text[0] || err.status != st || e) abort();
    return 0;
  }
  if (nm_edits_n(e) < 1) abort();
  for (int i = 0; i < nm_edits_n(e); i++) {
    if (!strlen(nm_edits_what(e, i)) || nm_edits_touched(e, i)) abort();
    if (i < e->n) apply(&e->v[i]);
  }
  beside_weights(e);
  nm_edits_free(e);
  return 0;
}
