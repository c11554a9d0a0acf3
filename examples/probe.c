/* probe.c - at which layer does a concept become readable, and is it? Fits the probes of `noema
 * depth` on labelled texts, prints the curve beside its controls, and applies the best probe to a
 * text of your own.
 *
 *   cc probe.c $(pkg-config --cflags --libs noema) -o probe
 *   ./probe model.gguf labelled.tsv "a text to judge" */
#include <noema.h>
#include <stdio.h>

static int show_progress(void *arg, const char *what, double done, double total) {
  (void)arg;
  fprintf(stderr, "\r%s: %.0f of %.0f   ", what, done, total);
  return 0;                        /* anything else asks it to stop */
}

static void show(const nm_depth_curve *c) {
  printf("layer  accuracy  shuffled labels\n");
  for (int i = 0; i < c->n_layers; i++)
    printf("%5d     %.3f            %.3f\n", c->layer[i].layer, c->layer[i].acc.mean,
           c->layer[i].shuffled.mean);
  printf("bag of words %.3f\n%s\n", c->words.mean,
         c->above_controls ? "the concept is readable: the curve stands above all its controls"
                           : "nothing was shown");
  if (c->above_controls) printf("from block %d on\n", c->converge);
}

int main(int argc, char **argv) {
  nm_err err;
  nm_model *m = NULL;
  nm_engine *e = NULL;
  nm_probe *p = NULL;
  nm_engine_opts how = {.threads = 2};
  nm_depth_result r = {.dir = NULL};
  nm_progress progress = {show_progress, NULL};
  double probability;
  const char *label;
  int bad;

  if (argc != 4) return fprintf(stderr, "usage: %s MODEL LABELLED TEXT\n", argv[0]), 2;
  const char *data[] = {argv[2]};
  nm_depth_opts o = {.data = data, .n_data = 1, .site = "resid_post", .to_layer = -1, .seed = 42,
                     .repeats = 3,
                     .out = "probe-run",           /* curve, figure and report.html are left there */
                     .save_probe = "best.probe", .progress = &progress};
  bad = nm_model_open(argv[1], &m, &err) || nm_engine_new(m, &how, &e, &err) ||
        nm_depth(m, e, &o, &r, &err);
  fprintf(stderr, "\n");
  if (!bad) show(&r.curve[0]);
  bad = bad || nm_probe_load("best.probe", &p, &err) ||
        nm_probe_apply(e, p, argv[3], &probability, &label, &err);
  if (!bad) printf("'%s': %s, probability of the second label %.3f\n", argv[3], label, probability);
  if (bad) fprintf(stderr, "%s\n", err.text);
  nm_probe_free(p);
  nm_depth_result_free(&r);
  nm_engine_free(e);
  nm_model_close(m);
  return bad ? nm_exit_code(err.status) : 0;
}
