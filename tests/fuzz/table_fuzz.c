/* table_fuzz.c - any bytes given to the table reader are refused with a sentence or make a
 * table, and labels are found in it or refused with a sentence. For libFuzzer. */
#include "file/table.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static volatile size_t sink;

static void walk(const struct nm__table *t, const struct nm__labelled_opts *o) {
  struct nm__labelled l;
  nm_err err = {0};
  if (nm__labelled_from("fuzz", t, o, &l, &err)) {
    if (!err.text[0]) abort();
    return;
  }
  for (size_t i = 0; i < l.n; i++) {
    if (l.label[i] >= l.n_labels || l.group[i] >= l.n_groups) abort();
    sink += strlen(l.text[i]);
  }
  nm__labelled_done(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  struct nm__table t;
  nm_err err = {0};
  if (nm__table_parse("fuzz", bytes, n, &t, &err)) {
    if (!err.text[0]) abort();
    return 0;
  }
  for (size_t i = 0; i < t.n_rows * t.n_cols; i++) sink += t.cells[i] ? strlen(t.cells[i]) : 0;
  walk(&t, NULL);
  walk(&t, &(struct nm__labelled_opts){.max_rows = 3});
  walk(&t, &(struct nm__labelled_opts){.max_labels = NM__LABELS_MAX, .max_rows = 5});
  bool is;
  if (nm__table_choices("fuzz", &t, &is, &err)) {
    if (!err.text[0]) abort();
  } else if (is) {
    walk(&t, &(struct nm__labelled_opts){.max_labels = NM__LABELS_MAX});
  }
  nm__table_done(&t);
  return 0;
}
