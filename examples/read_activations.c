/* read_activations.c - what stands in the residual stream while a model reads a text: for the last
 * token the length of its vector after every block, and the token the model would say next.
 *
 *   cc read_activations.c $(pkg-config --cflags --libs noema) -o read_activations
 *   ./read_activations model.gguf "Once upon a time" */
#include <math.h>
#include <noema.h>
#include <stdio.h>
#include <string.h>

struct reading {
  nm_site *site;                   /* the names behind row->site */
  float best;
  int32_t next;                    /* the likeliest token */
};

/* Called for every row that was asked for; row->data lives until it returns. */
static int take_row(void *arg, const nm_row *row, nm_err *err) {
  struct reading *r = (struct reading *)arg;
  double sum = 0;
  (void)err;
  if (!strcmp(r->site[row->site].name, "logits")) {
    for (int64_t i = 0; i < row->n; i++)
      if (i == 0 || row->data[i] > r->best) {
        r->best = row->data[i];
        r->next = (int32_t)i;
      }
    return 0;
  }
  for (int64_t i = 0; i < row->n; i++) sum += (double)row->data[i] * row->data[i];
  printf("%-18s position %d  length %8.3f  of %d numbers\n", r->site[row->site].name, row->pos,
         sqrt(sum), (int)row->n);
  return 0;
}

static int fail(const nm_err *err) {
  fprintf(stderr, "%s\n", err->text);
  return nm_exit_code(err->status);
}

int main(int argc, char **argv) {
  nm_err err;
  nm_model *m = NULL;
  nm_engine *e = NULL;
  int32_t *ids = NULL;
  size_t n, n_bytes;
  char *text = NULL;
  struct reading r = {NULL, 0, 0};
  nm_tap taps[] = {{"blk.*.resid_post", "last"}, {"logits", "last"}};
  int n_sites, code = 0;

  if (argc != 3) return fprintf(stderr, "usage: %s MODEL TEXT\n", argv[0]), 2;
  nm_engine_opts opts = {.threads = 2};           /* the rest is zero: the defaults */
  if (nm_model_open(argv[1], &m, &err) || nm_engine_new(m, &opts, &e, &err) ||
      nm_tokenize(m, argv[2], strlen(argv[2]), 0, &ids, &n, &err) ||
      nm_run_sites(m, taps, 2, &r.site, &n_sites, &err))
    code = fail(&err);
  if (!code) {
    nm_seq seq = {ids, n};
    nm_request q = {
        .seqs = &seq, .n_seqs = 1, .taps = taps, .n_taps = 2, .row = take_row, .arg = &r};
    if (nm_run(e, &q, &err) || nm_detokenize(m, &r.next, 1, &text, &n_bytes, &err))
      code = fail(&err);
    else
      printf("next token         %d '%s'\n", (int)r.next, text);
  }
  nm_free(text);
  nm_free(r.site);
  nm_free(ids);
  nm_engine_free(e);
  nm_model_close(m);
  return code;
}
