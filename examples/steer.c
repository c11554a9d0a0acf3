/* steer.c - what a model says before and after one change to its inside. The change is a line of
 * JSON: which site, which position, what to do (docs/verbs/edit.md).
 *
 *   cc steer.c $(pkg-config --cflags --libs noema) -o steer
 *   ./steer model.gguf "The sky is" '{"site": "blk.0.attn.pattern[3]", "op": "zero"}' */
#include <noema.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOP = 3 };
struct answer { float *logits; int V; };

static int take_row(void *arg, const nm_row *row, nm_err *err) {
  struct answer *a = (struct answer *)arg;
  (void)err;
  memcpy(a->logits, row->data, (size_t)a->V * sizeof *a->logits);
  return 0;
}

/* One run; edits NULL: the model as it is. */
static int ask(nm_engine *e, nm_seq seq, nm_edits *edits, struct answer *a, nm_err *err) {
  nm_tap tap = {"logits", "last"};
  nm_request q = {.seqs = &seq, .n_seqs = 1, .taps = &tap, .n_taps = 1, .edits = edits,
                  .row = take_row, .arg = a};
  return nm_run(e, &q, err);
}

static void show(const nm_model *m, const char *when, struct answer *a) {
  double *lp = (double *)malloc((size_t)a->V * sizeof *lp);
  if (!lp) return;
  nm_log_softmax(a->logits, a->V, lp);
  printf("%s:", when);
  for (int k = 0; k < TOP; k++) {
    int32_t best = 0;
    char *text = NULL;
    size_t n;
    for (int i = 1; i < a->V; i++)
      if (lp[i] > lp[best]) best = i;
    nm_detokenize(m, &best, 1, &text, &n, NULL);
    printf("  '%s' %.2f %%", text ? text : "", 100 * nm_exp(lp[best]));
    nm_free(text);
    lp[best] = -1e300;
  }
  printf("\n");
  free(lp);
}

int main(int argc, char **argv) {
  nm_err err;
  nm_model *m = NULL;
  nm_engine *e = NULL;
  nm_edits *edits = NULL;
  nm_model_info info;
  nm_engine_opts opts = {.threads = 2};
  int32_t *ids = NULL;
  size_t n;
  struct answer a = {NULL, 0};
  int bad;

  if (argc != 4) return fprintf(stderr, "usage: %s MODEL TEXT EDIT\n", argv[0]), 2;
  bad = nm_model_open(argv[1], &m, &err) || nm_engine_new(m, &opts, &e, &err) ||
        nm_tokenize(m, argv[2], strlen(argv[2]), 0, &ids, &n, &err) ||
        nm_edits_parse("the edit", argv[3], strlen(argv[3]), &edits, &err);
  if (!bad) {
    nm_seq seq = {ids, n};
    nm_model_describe(m, &info);
    a.V = info.V;
    a.logits = (float *)calloc((size_t)a.V, sizeof *a.logits);
    bad = ask(e, seq, NULL, &a, &err);
    if (!bad) show(m, "before", &a);
    if (!bad) bad = ask(e, seq, edits, &a, &err);
    if (!bad) show(m, "after", &a);
    if (!bad) printf("%s: %d touched\n", nm_edits_what(edits, 0), (int)nm_edits_touched(edits, 0));
  }
  if (bad) fprintf(stderr, "%s\n", err.text);
  free(a.logits);
  nm_free(ids);
  nm_edits_free(edits);
  nm_engine_free(e);
  nm_model_close(m);
  return bad ? nm_exit_code(err.status) : 0;
}
