/* trace_fuzz.c - any bytes given to the readers of trace-graph (the first byte picks: edges, products,
 * accuracies, words) are refused with a sentence or give what is sound. For libFuzzer. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "look/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void edges(const char *s, size_t n, nm_err *err) {
  static struct nm__graph g;
  if (nm__graph_parse("fuzz", s, n, &g, err)) return;
  for (int i = 0; i < g.n; i++)
    for (int k = 0; k < g.degree[i]; k++)
      if (g.next[i][k] >= g.n || !nm__graph_adjacent(&g, g.next[i][k], i)) abort();
  err->text[0] = 1;
}

static void products(const char *s, size_t n, nm_err *err) {
  struct nm__gram_file f;
  if (nm__gram_parse("fuzz", s, n, &f, err)) return;
  for (int i = 0; i < f.n * f.n; i++)
    if (!isfinite(f.gram[i])) abort();
  nm__gram_done(&f);
  err->text[0] = 1;
}

static void accuracies(const char *s, size_t n, nm_err *err) {
  struct nm__accuracy_file f;
  if (nm__accuracy_parse("fuzz", s, n, &f, err)) return;
  for (size_t i = 0; i < f.n * (size_t)f.walks; i++)
    if (f.acc[i] < 0 || f.acc[i] > 1.001) abort();
  nm__accuracy_done(&f);
  err->text[0] = 1;
}

static void words(const char *s, size_t n, nm_err *err) {
  char (*v)[NM__TRACE_WORD];
  int k;
  if (nm__trace_word_list("fuzz", s, n, &v, &k, err)) return;
  for (int i = 0; i < k; i++)
    if (strlen(v[i]) >= NM__TRACE_WORD) abort();
  free(v);
  err->text[0] = 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  static void (*const read[])(const char *, size_t, nm_err *) = {edges, products, accuracies, words};
  nm_err err = {0};
  if (!n) return 0;
  read[bytes[0] % 4]((const char *)bytes + 1, n - 1, &err);
  if (!err.text[0]) abort();
  return 0;
}
