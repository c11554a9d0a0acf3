/* bench_capture.c - what looking inside costs: runs with and without it in turns, and the ratio
 * of each to the plain run of its own round. */
#include "cli/bench.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Rows to one piece of memory, as a program that collects them would. */
struct store { float *v; size_t n, at; };

static int keep(void *arg, const nm_row *r, nm_err *err) {
  struct store *s = arg;
  (void)err;
  size_t n = (size_t)r->n;
  if (!s->n) return 0;
  if (s->at + n > s->n) s->at = 0;
  if (n <= s->n) memcpy(s->v + s->at, r->data, n * sizeof *s->v);
  s->at += n;
  return 0;
}

struct kind {
  char name[48], note[200];
  nm_tap tap;
  bool disk;
  nm_edits *edits;
};
enum { MOST_KINDS = 40 };

struct capture {
  struct bench *b;
  struct kind kind[MOST_KINDS];    /* the first is the plain run */
  int n;
  char to_half[48], at_end[48];
  struct store store;
  char dir[200];
  double ratio[MOST_KINDS][MOST_ROUNDS];
};

/* The files of an `acts` folder, and the folder. */
static void remove_folder(const char *path) {
  DIR *d = opendir(path);
  struct dirent *e;
  while (d && (e = readdir(d))) {
    char f[512];
    snprintf(f, sizeof f, "%s/%s", path, e->d_name);
    if (e->d_name[0] != '.') unlink(f);
  }
  if (d) closedir(d);
  rmdir(path);
}

static int once(struct capture *p, const struct kind *k, double *seconds, nm_err *err) {
  struct bench *b = p->b;
  nm_request r = {.seqs = &b->prompt, .n_seqs = 1, .taps = &k->tap, .n_taps = 1, .row = keep,
                  .edits = k->edits ? k->edits : b->in->edits, .arg = &p->store,
                  .progress = &cli_progress};
  nm_acts_opts o = {.site = k->tap.site, .at = k->tap.at, .out = p->dir, .edits = b->in->edits,
                    .progress = &cli_progress};
  nm_memory need;
  double t0 = bench_now();
  p->store.at = 0;
  int st = k->disk ? nm_acts(b->in->e, &b->prompt, 1, &o, &need, err) : nm_run(b->in->e, &r, err);
  *seconds = bench_now() - t0;
  if (k->disk) remove_folder(p->dir);
  return st;
}

static struct kind *add(struct capture *p, const char *name, const char *site, const char *at) {
  struct kind *k = &p->kind[p->n < MOST_KINDS ? p->n++ : MOST_KINDS - 1];
  *k = (struct kind){.tap = {site, at}};
  snprintf(k->name, sizeof k->name, "%s", name);
  return k;
}

/* A vector added to the residual stream of every block, at every position. */
static int add_edit(struct capture *p, nm_err *err) {
  size_t D = (size_t)p->b->i.D, size = D * 8 + 200, n;
  char *json = malloc(size);
  if (!json) return 4;
  n = (size_t)snprintf(json, size,
                       "{\"site\": \"blk.*.resid_post\", \"at\": \"all\", \"op\": \"add\", "
                       "\"scale\": 0.001, \"vector\": [1");
  for (size_t j = 1; j < D; j++) n += (size_t)snprintf(json + n, size - n, ", %d", (int)(j % 9));
  n += (size_t)snprintf(json + n, size - n, "]}");
  struct kind *k = add(p, "edit at every layer", p->at_end, "last");
  int st = nm_edits_parse("the bench's edit", json, n, &k->edits, err);
  free(json);
  return st;
}

static void standard_kinds(struct capture *p) {
  int L = p->b->i.L, half = (L - 1) / 2;
  struct kind *k = add(p, "capture resid_post, to memory", "blk.*.resid_post", "all");
  double mb = (double)p->b->prompt.n * L * p->b->i.D * 4 / 1e6;
  snprintf(k->note, sizeof k->note, "%.1f MB, every layer and position, no head", mb);
  k = add(p, "capture resid_post, to disk", "blk.*.resid_post", "all");
  k->disk = true;
  snprintf(k->note, sizeof k->note, "%.1f MB, synced", mb);
  snprintf(p->to_half, sizeof p->to_half, "blk.%d.resid_post", half);
  k = add(p, "capture up to the middle", p->to_half, "all");
  snprintf(k->note, sizeof k->note, "%d of %d layers = %.2f", half + 1, L, (half + 1.0) / L);
}

/* One row for every other kind of site of a block. The names of `v` outlive the run. */
static void site_kinds(struct capture *p, nm_site *v, int n) {
  for (int i = 0; i < n; i++) {
    const char *dot = v[i].layer == 0 ? strchr(v[i].name + 4, '.') : NULL;
    if (!dot || !strcmp(dot, ".resid_post")) continue;
    char glob[64], name[48];
    snprintf(glob, sizeof glob, "blk.*%s", dot);
    snprintf(name, sizeof name, "capture %s", dot + 1);
    snprintf(v[i].name, sizeof v[i].name, "%s", glob);
    add(p, name, v[i].name, "all");
  }
}

/* Rounds of all kinds; every other one backwards, so that a slow drift of the machine cancels. */
static int rounds(struct capture *p, nm_err *err) {
  double t[MOST_KINDS];
  for (int r = -1; r < p->b->rounds; r++) {            /* the first one warms and is not counted */
    for (int i = 0; i < p->n; i++) {
      int k = r % 2 ? p->n - 1 - i : i;
      int st = once(p, &p->kind[k], &t[k], err);
      if (st) return st;
    }
    for (int k = 0; k < p->n && r >= 0; k++) p->ratio[k][r] = t[k] / t[0];
  }
  return 0;
}

static int measure(struct capture *p, nm_err *err) {
  struct bench *b = p->b;
  const char *list = cli_text(b->c, "what");
  nm_site *sites = NULL;
  int n = 0, st = 0;
  snprintf(p->at_end, sizeof p->at_end, "blk.%d.resid_post", b->i.L - 1);
  add(p, "plain", p->at_end, "last");
  if (!list || strstr(list, "capture")) {
    standard_kinds(p);
    st = add_edit(p, err);
  }
  if (!st && list && strstr(list, "sites") && !(st = nm_sites(b->in->m, &sites, &n)))
    site_kinds(p, sites, n);
  if (!st) st = rounds(p, err);
  for (int k = 1; k < p->n && !st; k++) {
    struct figure *f = bench_add(b, p->kind[k].name, p->ratio[k], b->rounds, "x plain");
    snprintf(f->note, sizeof f->note, "%s", p->kind[k].note);
  }
  for (int k = 0; k < p->n; k++) nm_edits_free(p->kind[k].edits);
  nm_free(sites);
  return st;
}

int bench_capture(struct bench *b) {
  nm_err err = {0};
  const char *tmp = getenv("TMPDIR");
  struct capture *p = calloc(1, sizeof *p);
  if (!p) return 4;
  p->b = b;
  p->store.n = b->prompt.n * (size_t)b->i.L * (size_t)b->i.D;
  p->store.v = malloc(p->store.n * sizeof *p->store.v);
  snprintf(p->dir, sizeof p->dir, "%s/noema-bench-XXXXXX", tmp ? tmp : "/tmp");
  int st = p->store.v ? 0 : 4;
  if (!st && !mkdtemp(p->dir)) {
    snprintf(err.text, sizeof err.text, "cannot make the folder %s", p->dir);
    err.status = NM_EFAIL;
    st = cli_fail(b->c, &err);
  } else if (!st) {
    rmdir(p->dir);                 /* only its name is wanted */
    if (measure(p, &err)) st = cli_fail(b->c, &err);
    remove_folder(p->dir);
  }
  free(p->store.v);
  free(p);
  return st;
}
