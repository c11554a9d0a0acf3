/* vector.c - noema vector: steering vectors made, tried at several strengths, added, shown. */
#include "cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_opt opts[] = {
    {"--pairs", CLI_TEXT, "FILE", "make: pairs of texts, columns pos and neg (JSONL, CSV, TSV)"},
    {"--pos", CLI_TEXT, "FILE", "make: texts the vector leads to, one a line"},
    {"--neg", CLI_TEXT, "FILE", "make: texts it leads away from"},
    {"--labelled", CLI_TEXT, "FILE", "make: labelled rows, as depth reads them"},
    {"--method", CLI_TEXT, "mean|pca|probe", "make: how the direction is found (default mean)"},
    {"--site", CLI_TEXT, "NAME", "make: resid_post (default), or another site inside the block"},
    {"--at", CLI_TEXT, "POS", "make: last (default); of several positions the mean is taken"},
    {"--repeats", CLI_INT, "N", "make: splits into fitted and held-out texts (default 10)"},
    {"--test-share", CLI_REAL, "X", "make: share of held-out texts (default 0.4)"},
    {"--target", CLI_TEXT, "TEXT", "sweep: the token whose odds are measured"},
    {"--against", CLI_TEXT, "TEXT", "sweep: odds against this token (default: all others)"},
    {"--target-id", CLI_INT, "ID", "sweep: the token by its id"},
    {"--against-id", CLI_INT, "ID", "sweep: the token against it by its id"},
    {"--prompts", CLI_TEXT, "FILE", "sweep: texts the effect is measured on (or -p TEXT)"},
    {"--texts", CLI_TEXT, "FILE", "sweep: texts the damage in perplexity is measured on"},
    {"--strengths", CLI_TEXT, "LIST", "sweep: default -2,-1,-0.5,0,0.5,1,2,4"},
    {"--random", CLI_INT, "N", "sweep: random directions as the control (default 5)"},
    {"-p, --prompt", CLI_TEXT, "TEXT", "sweep: one prompt"},
    {"--seed", CLI_INT, "N", "of splits and random directions (default 1)"},
    {"--no-bos", CLI_FLAG, NULL, "do not put the begin token in front"},
    {"--json", CLI_FLAG, NULL, "print JSON instead of the table"},
    {"-o, --out", CLI_TEXT, "DIR|F", "make, sweep: the folder; add, sub, scale: F.npy or F.gguf"},
    CLI_RUN_OPTS,
    {0}};

static int give(struct cli *c, char *s, const char *dir) {
  if (!s) return 4;
  fputs(s, stdout);
  if (cli_flag(c, "json")) putchar('\n');
  nm_free(s);
  if (dir) fprintf(stderr, "written: %s/report.html\n", dir);
  return 0;
}

/* ---- make --------------------------------------------------------------------------- */

static int make(struct cli *c, struct cli_input *in) {
  nm_err err = {0};
  nm_contrast data;
  nm_vector_result r;
  nm_contrast_files f = {cli_text(c, "pairs"), cli_text(c, "pos"), cli_text(c, "neg"),
                         cli_text(c, "labelled"), cli_flag(c, "no-bos") ? NM_NO_BOS : 0};
  if (nm_contrast_load(in->m, &f, &data, &err)) return cli_fail(c, &err);
  nm_vector_opts o = {.site = cli_text(c, "site"), .at = cli_text(c, "at"),
                      .method = cli_text(c, "method"), .test_share = cli_real(c, "test-share", 0),
                      .repeats = (int)cli_int(c, "repeats", 0),
                      .seed = (uint64_t)cli_int(c, "seed", 1), .out = cli_text(c, "out"),
                      .command = c->command, .edits = in->edits, .progress = &cli_progress};
  int st = nm_vector_make(in->e, &data, &o, &r, &err);
  nm_contrast_free(&data);
  if (st) return cli_fail(c, &err);
  cli_progress_end();
  st = give(c, cli_flag(c, "json") ? nm_vector_json(&r) : nm_vector_text(&r), r.dir);
  nm_vector_result_free(&r);
  cli_tell_edits(in);
  return st;
}

/* ---- sweep -------------------------------------------------------------------------- */

static int strengths(struct cli *c, double *v, int most, int *n) {
  const char *s = cli_text(c, "strengths");
  if (!s) s = "-2,-1,-0.5,0,0.5,1,2,4";
  for (*n = 0; *s;) {
    char *end;
    double x = strtod(s, &end);
    if (end == s || !isfinite(x) || (*end && *end != ',') || *n == most)
      return cli_usage(c, "--strengths takes at most %d numbers with commas", most);
    v[(*n)++] = x;
    s = *end ? end + 1 : end;
  }
  return *n ? 0 : cli_usage(c, "--strengths is empty");
}

/* --OPT TEXT, one token, or --OPT-id ID; -1: neither. */
static int token(struct cli *c, const nm_model *m, const char *opt, int32_t *out) {
  const char *text = cli_text(c, opt);
  char by_id[32];
  int32_t *ids;
  size_t n;
  nm_err err = {0};
  snprintf(by_id, sizeof by_id, "%s-id", opt);
  long long id = cli_int(c, by_id, -1);
  *out = id > INT32_MAX ? INT32_MAX : (int32_t)id;
  if (text && cli_text(c, by_id)) return cli_usage(c, "give --%s or --%s, not both", opt, by_id);
  if (!text) return 0;
  if (nm_tokenize(m, text, strlen(text), NM_NO_BOS, &ids, &n, &err)) return cli_fail(c, &err);
  if (n == 1) *out = ids[0];
  nm_free(ids);
  return n == 1 ? 0 : cli_usage(c, "--%s '%s' is %zu tokens, one is measured", opt, text, n);
}

struct texts { nm_seq *v; size_t n; };

static void texts_done(struct texts *t) {
  for (size_t i = 0; i < t->n; i++) free((void *)(uintptr_t)t->v[i].ids);
  free(t->v);
}

static int put_text(struct cli *c, const nm_model *m, const char *s, struct texts *t) {
  nm_err err = {0};
  int32_t *ids;
  size_t n;
  nm_seq *v = realloc(t->v, (t->n + 1) * sizeof *v);
  if (!v) return 4;
  t->v = v;
  int flags = cli_flag(c, "no-bos") ? NM_NO_BOS : 0;
  if (nm_tokenize(m, s, strlen(s), flags, &ids, &n, &err)) return cli_fail(c, &err);
  v[t->n++] = (nm_seq){ids, n};
  return 0;
}

static int file_texts(struct cli *c, const nm_model *m, const char *path, struct texts *t) {
  nm_err err = {0};
  nm_texts file;
  int st = 0;
  if (nm_texts_load(path, NULL, &file, &err)) return cli_fail(c, &err);
  if (!file.text) st = cli_usage(c, "%s: texts are needed, not ids", path);
  for (size_t i = 0; file.text && i < file.n && !st; i++) st = put_text(c, m, file.text[i], t);
  nm_texts_free(&file);
  return st;
}

static int sweep(struct cli *c, struct cli_input *in) {
  nm_err err = {0};
  double v[100];
  struct texts prompts = {0}, texts = {0};
  const char *p = cli_text(c, "prompt"), *f = cli_text(c, "prompts"), *t = cli_text(c, "texts");
  nm_sweep_opts o = {.edits = in->edits, .strength = v, .n_random = (int)cli_int(c, "random", 0),
                     .seed = (uint64_t)cli_int(c, "seed", 1), .out = cli_text(c, "out"),
                     .command = c->command, .progress = &cli_progress};
  nm_sweep_result r;
  if (!cli_text(c, "target") && !cli_text(c, "target-id"))
    return cli_usage(c, "sweep needs --target TEXT or --target-id ID");
  if (!p == !f) return cli_usage(c, "sweep needs -p TEXT or --prompts FILE");
  int st = strengths(c, v, 100, &o.n);
  if (!st) st = token(c, in->m, "target", &o.target);
  if (!st) st = token(c, in->m, "against", &o.against);
  if (!st) st = p ? put_text(c, in->m, p, &prompts) : file_texts(c, in->m, f, &prompts);
  if (!st && t) st = file_texts(c, in->m, t, &texts);
  o.prompts = prompts.v, o.n_prompts = prompts.n;
  o.texts = texts.v, o.n_texts = texts.n;
  if (!st && nm_sweep(in->e, &o, &r, &err)) st = cli_fail(c, &err);
  else if (!st) {
    cli_progress_end();
    st = give(c, cli_flag(c, "json") ? nm_sweep_json(&r) : nm_sweep_text(&r), r.dir);
    nm_sweep_result_free(&r);
  }
  texts_done(&prompts);
  texts_done(&texts);
  return st;
}

/* ---- files -------------------------------------------------------------------------- */

static int files(struct cli *c, const char *what) {
  nm_err err = {0};
  const char *out = cli_text(c, "out");
  bool scale = !strcmp(what, "scale");
  char *s, *end;
  if (!strcmp(what, "show")) {
    if (c->n_pos < 2 || c->n_pos > 3) return cli_usage(c, "say: vector show F [F2]");
    if (nm_vector_show(c->pos[1], c->n_pos > 2 ? c->pos[2] : NULL, cli_flag(c, "json"), &s, &err))
      return cli_fail(c, &err);
    return give(c, s, NULL);
  }
  if (c->n_pos != 3 || !out)
    return cli_usage(c, scale ? "say: vector scale F FACTOR -o OUT" : "say: vector %s F F2 -o OUT",
                     what);
  double by = scale ? strtod(c->pos[2], &end) : strcmp(what, "sub") ? 1 : -1;
  if (scale && (end == c->pos[2] || *end)) return cli_usage(c, "'%s' is no number", c->pos[2]);
  if (nm_vector_combine(c->pos[1], scale ? by : 1, scale ? NULL : c->pos[2], by, out, &err))
    return cli_fail(c, &err);
  return 0;
}

static int run(struct cli *c) {
  static const char *const of_files[] = {"add", "sub", "scale", "show"};
  struct cli_input in = {0};
  const char *what = c->n_pos ? c->pos[0] : "";
  for (int i = 0; i < 4; i++)
    if (!strcmp(what, of_files[i])) return files(c, what);
  bool makes = !strcmp(what, "make");
  if (!makes && strcmp(what, "sweep"))
    return cli_usage(c, "say: vector make, sweep, add, sub, scale or show");
  for (int i = 1; i < c->n_pos; i++) c->pos[i - 1] = c->pos[i];
  c->n_pos--;
  int st = cli_open(c, &in);
  if (!st) st = makes ? make(c, &in) : sweep(c, &in);
  cli_close(&in);
  return st;
}

const struct cli_verb cli_vector = {
    "vector",
    "steering vectors: make, sweep their strength, add, show",
    "vector make MODEL (--pairs F | --pos A.txt --neg B.txt | --labelled F) [-o DIR]\n"
    "       noema vector sweep MODEL --control-vector F --target TEXT --prompts F [--texts F]\n"
    "       noema vector add|sub F F2 -o OUT; scale F X -o OUT; show F [F2]",
    "A direction for every block that leads from one class of texts to the other, tested on\n"
    "texts it was not fitted on, against shuffled classes and random directions. Written as\n"
    ".npy, as a control vector that llama.cpp loads, and as an edit file.",
    "  noema world planted-a -n 30 -s 1 -o train.tsv\n"
    "  noema vector make models/planted.gguf --labelled train.tsv -o runs/steer\n"
    "  noema vector sweep models/planted.gguf --edit runs/steer/edit.json --target yes "
    "-p 'ann saw the red fox by day ?'",
    opts,
    run};
