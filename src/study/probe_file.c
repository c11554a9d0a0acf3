/* probe_file.c - a probe saved, loaded and applied to a new text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/json.h"
#include "study/depth.h"

struct nm_probe { char *site, *prompt, *label[2]; int D; float *w; double b; float *got; };

/* Fits on all rows at the converging layer. */
static int fit_all(const struct nm__depth_set *s, const struct nm__depth_vectors *v, int layer,
                   double C, struct nm__logreg *out, nm_err *err) {
  float *x = nm__alloc(s->n * (size_t)v->D, sizeof *x);
  int st = x ? nm__depth_vectors_read(v, layer + 1, x, err)
             : nm__fail_memory(err, "features", s->n * (size_t)v->D * 4);
  if (!st)
    st = nm__logreg_fit(x, (size_t)v->D, v->D, NULL, s->n, s->lab.label,
                        &(struct nm__logreg_opts){.C = C}, out, err);
  free(x);
  return st;
}

int nm__probe_save(const char *path, const nm_model *m, const struct nm__depth_set *s,
                   const struct nm__depth_vectors *v, const nm_depth_opts *o,
                   const nm_depth_curve *c, nm_err *err) {
  int layer = c->converge >= 0 ? c->converge : c->peak;
  struct nm__logreg fit = {0};
  char site[96], hex[33];
  int st = fit_all(s, v, layer, o->C, &fit, err);
  if (st) return st;
  snprintf(site, sizeof site, "%sblk.%d.%s", nm__site_prefix(m), layer, o->site);
  nm_model_hash((nm_model *)(uintptr_t)m, hex, NULL);
  json_t *w = json_array();
  for (int i = 0; i < fit.d; i++) json_array_append_new(w, json_real(fit.w[i]));
  json_t *j = json_pack("{s:s, s:s, s:o, s:o, s:s, s:[o,o], s:f, s:f, s:o}", "noema", "probe",
                        "site", site, "prompt", nm__json_text(s->prompt), "data",
                        nm__json_text(c->name), "model_hash", hex, "labels",
                        nm__json_text(s->lab.label_name[0]), nm__json_text(s->lab.label_name[1]),
                        "held_out_accuracy", c->layer[layer + 1].acc.mean, "b", fit.b, "w", w);
  char *text = j ? json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
  st = text
           ? nm__write_file(path, text, strlen(text), err)
           : nm__fail(err, NM_EFORMAT,
                      "%s: a label or the prompt is not UTF-8, so the probe cannot be saved", path);
  free(text);
  json_decref(j);
  nm__logreg_done(&fit);
  return st;
}

static char *copy(json_t *o, const char *key) {
  const char *s = json_string_value(json_object_get(o, key));
  return s ? nm__strdup(s) : NULL;
}

static int from_json(const char *path, json_t *o, nm_probe *p, nm_err *err) {
  json_t *w = json_object_get(o, "w"), *l = json_object_get(o, "labels"),
         *b = json_object_get(o, "b");
  const char *kind = json_string_value(json_object_get(o, "noema"));
  p->site = copy(o, "site");
  p->prompt = copy(o, "prompt");
  p->D = (int)json_array_size(w);
  for (int i = 0; i < 2; i++) {
    const char *s = json_string_value(json_array_get(l, (size_t)i));
    p->label[i] = nm__strdup(s ? s : i ? "1" : "0");
  }
  if (!kind || strcmp(kind, "probe") || !p->site || !p->prompt || !p->D || !json_is_number(b))
    return nm__fail(err, NM_EFORMAT,
                    "%s: is not a probe that noema saved (site, prompt, w and b are needed)", path);
  p->b = json_number_value(b);
  p->w = nm__alloc((size_t)p->D, sizeof *p->w);
  p->got = nm__alloc((size_t)p->D, sizeof *p->got);
  if (!p->w || !p->got) return nm__fail_memory(err, "a probe", 0);
  for (int i = 0; i < p->D; i++) {
    json_t *x = json_array_get(w, (size_t)i);
    if (!json_is_number(x))
      return nm__fail(err, NM_EFORMAT, "%s: \"w\"[%d] is not a number", path, i);
    p->w[i] = (float)json_number_value(x);
  }
  return NM_OK;
}

int nm__probe_parse(const char *name, const char *bytes, size_t n, nm_probe **out, nm_err *err) {
  json_error_t je;
  *out = NULL;
  json_t *o = json_loadb(bytes, n, 0, &je);
  if (!o) return nm__fail(err, NM_EFORMAT, "%s: line %d: %.200s", name, je.line, je.text);
  nm_probe *p = nm__alloc(1, sizeof *p);
  int st = p ? from_json(name, o, p, err) : nm__fail_memory(err, "a probe", sizeof *p);
  json_decref(o);
  if (st) nm_probe_free(p);
  else *out = p;
  return st;
}

int nm_probe_load(const char *path, nm_probe **out, nm_err *err) {
  struct nm__map map;
  *out = NULL;
  int st = nm__map_open(path, &map, err);
  if (st) return st;
  st = nm__probe_parse(path, (const char *)map.data, map.size, out, err);
  nm__map_close(&map);
  return st;
}

void nm_probe_free(nm_probe *p) {
  if (!p) return;
  free(p->site);
  free(p->prompt);
  free(p->label[0]);
  free(p->label[1]);
  free(p->w);
  free(p->got);
  free(p);
}

struct score { const nm_probe *p; double z; bool fits; };

static int score_row(void *arg, const nm_row *r, nm_err *err) {
  struct score *s = arg;
  (void)err;
  s->fits = r->n == s->p->D;
  s->z = s->p->b;
  for (int64_t i = 0; s->fits && i < r->n; i++) s->z += (double)r->data[i] * (double)s->p->w[i];
  return NM_OK;
}

int nm_probe_apply(nm_engine *e, const nm_probe *p, const char *text, double *probability,
                   const char **label, nm_err *err) {
  int32_t *ids = NULL;
  size_t n = 0;
  char *whole = nm__depth_fill(p->prompt, text);
  int st = whole ? nm_tokenize(nm__engine_model(e), whole, strlen(whole), 0, &ids, &n, err)
                 : nm__fail_memory(err, "a prompt", 0);
  struct score s = {p, 0, false};
  nm_seq seq = {ids, n};
  nm_tap tap = {p->site, "last"};
  nm_request r = {
      .seqs = &seq, .n_seqs = 1, .taps = &tap, .n_taps = 1, .row = score_row, .arg = &s};
  if (!st) st = nm_run(e, &r, err);
  if (!st && !s.fits)
    st = nm__fail(
        err, NM_EFORMAT,
        "the probe has %d weights, but %s of this model is wider or narrower: it belongs to "
        "another model",
        p->D, p->site);
  *probability = nm__logistic(s.z);
  *label = p->label[s.z > 0];
  free(whole);
  nm_free(ids);
  return st;
}
