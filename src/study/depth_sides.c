/* depth_sides.c - several runs of the study beside each other: models, weights of fewer and fewer
 * bits, or texts with and without noise.
 *
 * Each side is a whole run in a folder of its own, so that a comparison that was cut off goes on
 * where it stopped, and a side is the same files as the same run alone. What is compared are the
 * curves of one data set. Where both sides put the same rows of the file on the same sides of the
 * same splits, differences are taken split by split and their mean gets the corrected resampled
 * interval (Nadeau and Bengio 2003), which is what two overlapping intervals cannot give. */
#include "study/depth_sides.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- differences -------------------------------------------------------------------- */

static double share(int block, const nm_depth_curve *c) {
  return (block + 1.0) / (c->n_layers - 1);
}

nm_depth_shift nm__depth_shift(const nm_depth_curve *a, const nm_depth_curve *b) {
  nm_depth_shift s = {.paired = a->n_splits == b->n_splits && !strcmp(a->split_hash, b->split_hash),
                      .same_depth = a->n_layers == b->n_layers};
  double block[256] = {0}, part[256] = {0}, peak[256] = {0};
  int n = 0;
  for (int r = 0; s.paired && r < a->n_splits; r++) {
    peak[r] = b->split_peak[r] - a->split_peak[r];
    if (a->split_converge[r] < 0 || b->split_converge[r] < 0) continue;
    block[n] = b->split_converge[r] - a->split_converge[r];
    part[n++] = share(b->split_converge[r], b) - share(a->split_converge[r], a);
  }
  if (!s.paired) return s;
  s.n = n;
  s.peak = nm__depth_interval(peak, a->n_splits, (double)a->n_test, (double)a->n_train);
  if (!n) return s;
  s.blocks = nm__depth_interval(block, n, (double)a->n_test, (double)a->n_train);
  s.share = nm__depth_interval(part, n, (double)a->n_test, (double)a->n_train);
  return s;
}

/* ---- one side ------------------------------------------------------------------------ */

static int rounded_file(const nm_depth_sides_opts *o, const nm_depth_side_opts *side,
                        const char *cache, char **path, nm_err *err) {
  char name[64];
  nm_convert_result r;
  snprintf(name, sizeof name, "rounded-%d.gguf", side->bits);
  if (!(*path = nm__path_join(cache, name))) return nm__fail_memory(err, "a file name", 0);
  nm_convert_opts c = {.in = side->model,
                       .out = *path,
                       .round_bits = side->bits,
                       .force = true,
                       .threads = o->engine.threads,
                       .progress = o->depth.progress};
  int st = nm_convert(&c, &r, err);
  if (!st) nm_convert_result_free(&r);
  return st;
}

static int run_side(const nm_depth_sides_opts *o, int i, const char *dir, const char *cache,
                    nm_depth_side *out, nm_err *err) {
  const nm_depth_side_opts *side = &o->side[i];
  nm_depth_opts d = o->depth;
  nm_model *m = NULL;
  nm_engine *e = NULL;
  char *path = NULL;
  int st = side->bits ? rounded_file(o, side, cache, &path, err) : NM_OK;
  if (!st && !side->m) st = nm_model_open(path ? path : side->model, &m, err);
  if (!st && !side->m) st = nm_engine_new(m, &o->engine, &e, err);
  d.out = dir;
  d.cache = cache;
  d.noise = side->noise;
  d.save_probe = i ? NULL : d.save_probe;
  if (!st) {
    nm_model_info i;
    nm_model_describe(side->m ? side->m : m, &i);
    out->L = i.L;
    out->D = i.D;
    out->n_params = i.n_params;
    memcpy(out->types, i.types, sizeof out->types);
    st = nm_depth(side->m ? side->m : m, side->m ? side->e : e, &d, &out->r, err);
  }
  nm_engine_free(e);
  nm_model_close(m);
  if (path) unlink(path);
  free(path);
  return st ? nm__fail_at(err, st, "%s", side->name) : NM_OK;
}

/* ---- the whole ------------------------------------------------------------------------- */

static int check(const nm_depth_sides_opts *o, nm_err *err) {
  if (o->n < 2 || o->n > NM_DEPTH_SIDES)
    return nm__fail(err, NM_EUSAGE, "%d runs cannot be compared: 2 to %d are needed", o->n,
                    NM_DEPTH_SIDES);
  for (int i = 0; i < o->n; i++) {
    const nm_depth_side_opts *s = &o->side[i];
    if (s->bits && s->bits != 16 && (s->bits < 2 || s->bits > 8))
      return nm__fail(err, NM_EUSAGE, "%d bits: weights are rounded to 2 to 8 or 16", s->bits);
    if (!*s->name || strchr(s->name, '/') || *s->name == '.')
      return nm__fail(err, NM_EUSAGE, "'%.60s' cannot be the name of a run's folder", s->name);
    for (int k = 0; k < i; k++)
      if (!strcmp(o->side[k].name, s->name))
        return nm__fail(err, NM_EUSAGE, "two runs are called '%.60s'", s->name);
  }
  return NM_OK;
}

static int run_all(const nm_depth_sides_opts *o, const char *dir, nm_depth_sides *out,
                   nm_err *err) {
  char *own = o->depth.cache ? NULL : nm__path_join(dir, "cache");
  const char *cache = o->depth.cache ? o->depth.cache : own;
  int st = cache ? nm__mkdirs(cache, err) : nm__fail_memory(err, "a folder name", 0);
  for (int i = 0; i < o->n && !st; i++) {
    nm_depth_side *s = &out->side[i];
    char *sub = nm__path_join(dir, o->side[i].name);
    s->name = nm__strdup(o->side[i].name);
    st = sub && s->name ? run_side(o, i, sub, cache, s, err)
                        : nm__fail_memory(err, "a folder name", 0);
    free(sub);
    if (!st) out->n = i + 1;
    else nm_depth_result_free(&s->r), free(s->name), s->name = NULL;
  }
  free(own);
  return st;
}

int nm_depth_compare(const nm_depth_sides_opts *o, nm_depth_sides *out, nm_err *err) {
  struct nm__record rec = {0};
  nm_err mine, *e = err ? err : &mine;
  *out = (nm_depth_sides){0};
  int st = check(o, e);
  if (st) return st;
  snprintf(out->by, sizeof out->by, "%s", o->by);
  st = nm__record_begin(&rec, "depth", o->depth.out, o->depth.resume ? NULL : "depth.json",
                        o->side[0].model, o->depth.command ? o->depth.command : "",
                        json_pack("{s:s}", "by", o->by), e);
  if (st) return st;
  out->dir = nm__strdup(rec.dir);
  if (!out->dir) st = nm__fail_memory(e, "a folder name", 0);
  if (!st) st = run_all(o, rec.dir, out, e);
  char *line = out->n ? nm__depth_sides_summary(out) : NULL;
  if (out->n > 1) {                /* what is done is shown, also after Ctrl-C */
    nm_err ignored;
    int st2 = nm__depth_sides_write(out, o, &rec, st ? &ignored : e);
    if (!st) st = st2;
  }
  nm__record_end(&rec, st, line ? line : "", e);
  free(line);
  if (st && st != NM_EINTR) nm_depth_sides_free(out);
  return st;
}

void nm_depth_sides_free(nm_depth_sides *s) {
  for (int i = 0; i < s->n; i++) {
    free(s->side[i].name);
    nm_depth_result_free(&s->side[i].r);
  }
  free(s->dir);
  *s = (nm_depth_sides){0};
}
