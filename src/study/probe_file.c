/* probe_file.c - a probe saved, loaded and applied to a new text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/json.h"
#include "study/depth.h"

struct nm_probe {
  char *site, *prompt, *label[NM__LABELS_MAX];
  struct nm__depth_probe p;
};

static int n_linear(const struct nm__depth_probe *p) { return p->n_labels == 2 ? 1 : p->n_labels; }

/* ---- writing -------------------------------------------------------------------- */

/* Fits on all rows at the converging layer. */
static int fit_all(const struct nm__depth_set *s, const struct nm__depth_vectors *v, int layer,
                   const nm_depth_opts *o, struct nm__depth_probe *out, nm_err *err) {
  float *x = nm__alloc(s->n * (size_t)v->D, sizeof *x);
  struct nm__depth_probe_opts po = {.forest = o->forest, .C = o->C, .seed = o->seed};
  const uint8_t *label = s->lab.label;
  int st = x ? nm__depth_vectors_read(v, layer + 1, x, err)
             : nm__fail_memory(err, "features", s->n * (size_t)v->D * 4);
  if (!st) st = nm__depth_probe_fit(x, v->D, s->n, &label, 1, s->lab.n_labels, &po, out, err);
  free(x);
  return st;
}

static json_t *reals(const double *v, int n) {
  json_t *a = json_array();
  for (int i = 0; i < n; i++) json_array_append_new(a, json_real(v[i]));
  return a;
}

static json_t *tree_json(const struct nm__tree *t, int K) {
  json_t *node = json_array(), *share = json_array();
  for (uint32_t i = 0; i < t->n_nodes; i++) {
    const struct nm__node *v = &t->node[i];
    json_array_append_new(node, json_pack("[i,f,I]", (int)v->feature, (double)v->threshold,
                                          (json_int_t)v->next));
  }
  for (size_t i = 0; i < t->n_leaves * (size_t)K; i++)
    json_array_append_new(share, json_real((double)t->share[i]));
  return json_pack("{s:o, s:o}", "nodes", node, "shares", share);
}

/* What the kinds differ in: w and b (lists of them with more than two labels), or trees. */
static void put_probe(json_t *j, const struct nm__depth_probe *p) {
  json_object_set_new(j, "kind", json_string(p->linear ? "linear" : "forest"));
  if (!p->linear) {
    json_t *trees = json_array();
    for (int t = 0; t < p->forest.n_trees; t++)
      json_array_append_new(trees, tree_json(&p->forest.tree[t], p->n_labels));
    json_object_set_new(j, "width", json_integer(p->d));
    json_object_set_new(j, "trees", trees);
    return;
  }
  json_t *w = json_array(), *b = json_array();
  for (int k = 0; k < n_linear(p); k++) {
    json_array_append_new(w, reals(p->linear[k].w, p->d));
    json_array_append_new(b, json_real(p->linear[k].b));
  }
  bool two = p->n_labels == 2;
  json_object_set(j, "b", two ? json_array_get(b, 0) : b);
  json_object_set(j, "w", two ? json_array_get(w, 0) : w);
  json_decref(w);
  json_decref(b);
}

int nm__probe_save(const char *path, const nm_model *m, const struct nm__depth_set *s,
                   const struct nm__depth_vectors *v, const nm_depth_opts *o,
                   const nm_depth_curve *c, nm_err *err) {
  int layer = c->converge >= 0 ? c->converge : c->peak;
  struct nm__depth_probe fit = {0};
  char site[96], hex[33];
  int st = fit_all(s, v, layer, o, &fit, err);
  if (st) return st;
  snprintf(site, sizeof site, "%sblk.%d.%s", nm__site_prefix(m), layer, o->site);
  nm_model_hash((nm_model *)(uintptr_t)m, hex, NULL);
  json_t *labels = json_array();
  for (int k = 0; k < s->lab.n_labels; k++)
    json_array_append_new(labels, nm__json_text(s->lab.label_name[k]));
  json_t *j = json_pack("{s:s, s:s, s:o, s:o, s:s, s:o, s:f}", "noema", "probe", "site", site,
                        "prompt", nm__json_text(s->prompt), "data", nm__json_text(c->name),
                        "model_hash", hex, "labels", labels, "held_out_accuracy",
                        c->layer[layer + 1].acc.mean);
  if (j) put_probe(j, &fit);
  char *text = j ? json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
  st = text
           ? nm__write_file(path, text, strlen(text), err)
           : nm__fail(err, NM_EFORMAT,
                      "%s: a label or the prompt is not UTF-8, so the probe cannot be saved", path);
  free(text);
  json_decref(j);
  nm__depth_probe_done(&fit);
  return st;
}

/* ---- reading --------------------------------------------------------------------- */

static char *copy(json_t *o, const char *key) {
  const char *s = json_string_value(json_object_get(o, key));
  return s ? nm__strdup(s) : NULL;
}

static int not_a_probe(const char *path, const char *what, nm_err *err) {
  return nm__fail(err, NM_EFORMAT, "%s: is not a probe that noema saved (%s)", path, what);
}

static int read_line(const char *path, json_t *w, json_t *b, struct nm__logreg *m, int d,
                     nm_err *err) {
  if (!json_is_number(b) || (int)json_array_size(w) != d)
    return not_a_probe(path, "site, prompt, w and b are needed, as many weights for each label",
                       err);
  *m = (struct nm__logreg){.d = d, .w = nm__alloc((size_t)d, sizeof *m->w),
                           .b = json_number_value(b)};
  if (!m->w) return nm__fail_memory(err, "a probe", (size_t)d * sizeof *m->w);
  for (int i = 0; i < d; i++) {
    json_t *x = json_array_get(w, (size_t)i);
    if (!json_is_number(x))
      return nm__fail(err, NM_EFORMAT, "%s: \"w\"[%d] is not a number", path, i);
    m->w[i] = json_number_value(x);
  }
  return NM_OK;
}

static int read_linear(const char *path, json_t *o, struct nm__depth_probe *p, nm_err *err) {
  json_t *w = json_object_get(o, "w"), *b = json_object_get(o, "b");
  bool two = p->n_labels == 2;
  size_t d = json_array_size(two ? w : json_array_get(w, 0));
  if (!d || d > INT32_MAX ||
      (!two && ((int)json_array_size(w) != p->n_labels || (int)json_array_size(b) != p->n_labels)))
    return not_a_probe(path, "site, prompt, w and b are needed, for each label", err);
  p->d = (int)d;
  p->linear = nm__alloc((size_t)n_linear(p), sizeof *p->linear);
  if (!p->linear) return nm__fail_memory(err, "a probe", 0);
  int st = NM_OK;
  for (int k = 0; k < n_linear(p) && !st; k++)
    st = read_line(path, two ? w : json_array_get(w, (size_t)k),
                   two ? b : json_array_get(b, (size_t)k), &p->linear[k], p->d, err);
  return st;
}

/* A child lies behind its parent, so that every walk ends; a leaf has its shares. */
static bool node_good(const struct nm__node *v, json_int_t next, uint32_t i,
                      const struct nm__tree *t, int d) {
  if (v->feature < 0) return v->feature == -1 && next >= 0 && next < t->n_leaves;
  return v->feature < d && next > i && next < (json_int_t)t->n_nodes - 1 &&
         v->threshold - v->threshold == 0;
}

static int read_tree(const char *path, json_t *o, struct nm__tree *t, int d, int K, nm_err *err) {
  json_t *nodes = json_object_get(o, "nodes"), *shares = json_object_get(o, "shares");
  size_t n = json_array_size(nodes), m = json_array_size(shares);
  if (!n || !m || n > INT32_MAX || m > INT32_MAX || m % (size_t)K)
    return not_a_probe(path, "a tree needs nodes, and shares of every label", err);
  t->node = nm__alloc(n, sizeof *t->node);
  t->share = nm__alloc(m, sizeof *t->share);
  if (!t->node || !t->share) return nm__fail_memory(err, "a tree", n * sizeof *t->node);
  t->n_nodes = (uint32_t)n;
  t->n_leaves = (uint32_t)(m / (size_t)K);
  for (size_t i = 0; i < m; i++) {
    double v = json_number_value(json_array_get(shares, i));
    if (!(v >= 0 && v <= 1)) return not_a_probe(path, "a share of a leaf lies from 0 to 1", err);
    t->share[i] = (float)v;
  }
  for (uint32_t i = 0; i < n; i++) {
    json_t *v = json_array_get(nodes, i);
    json_int_t f = json_integer_value(json_array_get(v, 0)),
               next = json_integer_value(json_array_get(v, 2));
    double threshold = json_number_value(json_array_get(v, 1));
    bool good = json_array_size(v) == 3 && f >= -1 && f < d && next >= 0 && next < INT32_MAX &&
                threshold >= -3.4e38 && threshold <= 3.4e38;
    if (good) t->node[i] = (struct nm__node){(int32_t)f, (float)threshold, (uint32_t)next};
    if (!good || !node_good(&t->node[i], next, i, t, d))
      return not_a_probe(path, "a node of a tree leads nowhere", err);
  }
  return NM_OK;
}

static int read_forest(const char *path, json_t *o, struct nm__depth_probe *p, nm_err *err) {
  json_t *trees = json_object_get(o, "trees");
  json_int_t d = json_integer_value(json_object_get(o, "width"));
  size_t n = json_array_size(trees);
  if (!n || n > 100000 || d < 1 || d > INT32_MAX)
    return not_a_probe(path, "width and trees are needed", err);
  p->d = (int)d;
  p->forest = (struct nm__forest){p->d, p->n_labels, (int)n,
                                  nm__alloc(n, sizeof *p->forest.tree)};
  if (!p->forest.tree) return nm__fail_memory(err, "a forest", n * sizeof *p->forest.tree);
  int st = NM_OK;
  for (size_t t = 0; t < n && !st; t++)
    st = read_tree(path, json_array_get(trees, t), &p->forest.tree[t], p->d, p->n_labels, err);
  return st;
}

static int from_json(const char *path, json_t *o, nm_probe *p, nm_err *err) {
  json_t *l = json_object_get(o, "labels");
  const char *is = json_string_value(json_object_get(o, "noema")),
             *kind = json_string_value(json_object_get(o, "kind"));
  size_t n = json_array_size(l);
  p->site = copy(o, "site");
  p->prompt = copy(o, "prompt");
  p->p.n_labels = n > 2 ? (int)(n < 1000 ? n : 1000) : 2;      /* older files may have none */
  if (!is || strcmp(is, "probe") || !p->site || !p->prompt)
    return not_a_probe(path, "site, prompt, w and b are needed", err);
  if (p->p.n_labels > NM__LABELS_MAX)
    return nm__fail(err, NM_EFORMAT, "%s: has %zu labels, at most %d are read", path, n,
                    NM__LABELS_MAX);
  for (int i = 0; i < p->p.n_labels; i++) {
    const char *s = json_string_value(json_array_get(l, (size_t)i));
    char number[16];
    snprintf(number, sizeof number, "%d", i);
    if (!(p->label[i] = nm__strdup(s ? s : number))) return nm__fail_memory(err, "a probe", 0);
  }
  if (kind && strcmp(kind, "linear") && strcmp(kind, "forest"))
    return not_a_probe(path, "its kind is neither linear nor forest", err);
  bool forest = kind && !strcmp(kind, "forest");
  return (forest ? read_forest : read_linear)(path, o, &p->p, err);
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
  for (int k = 0; k < NM__LABELS_MAX; k++) free(p->label[k]);
  nm__depth_probe_done(&p->p);
  free(p);
}

/* ---- applying ---------------------------------------------------------------------- */

struct score { const nm_probe *p; double z[NM__LABELS_MAX]; bool fits; };

static int score_row(void *arg, const nm_row *r, nm_err *err) {
  struct score *s = arg;
  (void)err;
  s->fits = r->n == s->p->p.d;
  if (s->fits) nm__depth_probe_score(&s->p->p, r->data, s->z);
  return NM_OK;
}

/* The label that is said, and its share of the probability (of label 1 where there are two). */
static int decide(const struct nm__depth_probe *p, const double *z, double *probability) {
  int best = 0;
  double sum = 0;
  if (p->n_labels == 2) {
    *probability = p->linear ? nm__logistic(z[0]) : z[0] + 0.5;
    return z[0] > 0;
  }
  for (int k = 0; k < p->n_labels; k++) {
    if (z[k] > z[best]) best = k;
    sum += p->linear ? nm__logistic(z[k]) : z[k];
  }
  double own = p->linear ? nm__logistic(z[best]) : z[best];
  *probability = sum > 0 ? own / sum : 1.0 / p->n_labels;
  return best;
}

int nm_probe_n_labels(const nm_probe *p) { return p->p.n_labels; }

int nm_probe_apply(nm_engine *e, const nm_probe *p, const char *text, double *probability,
                   const char **label, nm_err *err) {
  int32_t *ids = NULL;
  size_t n = 0;
  char *whole = nm__depth_fill(p->prompt, text);
  int st = whole ? nm_tokenize(nm__engine_model(e), whole, strlen(whole), 0, &ids, &n, err)
                 : nm__fail_memory(err, "a prompt", 0);
  struct score s = {.p = p};
  nm_seq seq = {ids, n};
  nm_tap tap = {p->site, "last"};
  nm_request r = {
      .seqs = &seq, .n_seqs = 1, .taps = &tap, .n_taps = 1, .row = score_row, .arg = &s};
  if (!st) st = nm_run(e, &r, err);
  if (!st && !s.fits)
    st = nm__fail(
        err, NM_EFORMAT,
        "the probe reads %d values, but %s of this model is wider or narrower: it belongs to "
        "another model",
        p->p.d, p->site);
  *label = p->label[decide(&p->p, s.z, probability)];
  free(whole);
  nm_free(ids);
  return st;
}
