/* train_keep.c - what a run leaves in its folder. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/json.h"
#include "learn/train.h"

/* ---- metrics.jsonl ------------------------------------------------------------------- */

static char *in_dir(const struct nm__training *t, const char *name) {
  return nm__path_join(t->dir, name);
}

/* Calls fn for every whole line; what a killed process left of the last one is none. */
typedef int metrics_line(void *arg, const char *s, size_t n, const json_t *v, nm_err *err);
static int read_metrics(const char *path, metrics_line *fn, void *arg, nm_err *err) {
  struct nm__map m;
  if (!nm__exists(path)) return NM_OK;
  int st = nm__map_open(path, &m, err);
  if (st) return st;
  const char *p = (const char *)m.data, *all = p + m.size, *end;
  for (; p < all && (end = memchr(p, '\n', (size_t)(all - p))) && !st; p = end + 1) {
    json_t *v = nm__json_parse("metrics.jsonl", p, (size_t)(end - p), 1000, err);
    st = v ? fn(arg, p, (size_t)(end - p), v, err) : NM_EFORMAT;
    json_decref(v);
  }
  nm__map_close(&m);
  return st;
}

struct until { int64_t step; struct nm__buf b; };

static int keep_line(void *arg, const char *s, size_t n, const json_t *v, nm_err *err) {
  struct until *u = arg;
  (void)err;
  if (json_integer_value(json_object_get(v, "step")) > u->step) return NM_OK;
  nm__buf_put(&u->b, s, n);
  nm__buf_putc(&u->b, '\n');
  return NM_OK;
}

int nm__metrics_open(struct nm__training *t, nm_err *err) {
  char *path = in_dir(t, "metrics.jsonl");
  struct until u = {.step = t->at.step};
  if (!path) return nm__fail_memory(err, "a path", 0);
  nm__buf_init(&u.b, (size_t)1 << 32);
  int st = t->at.step ? read_metrics(path, keep_line, &u, err) : NM_OK;
  if (!st && u.b.failed) st = nm__fail_memory(err, "the metrics", u.b.len);
  if (!st) st = nm__write_file(path, u.b.s ? u.b.s : "", u.b.len, err);
  if (!st && !(t->metrics = fopen(path, "a")))
    st = nm__fail(err, NM_EFAIL, "%s: cannot be written: %s", path, strerror(errno));
  nm__buf_done(&u.b);
  free(path);
  return st;
}

int nm__metrics_line(struct nm__training *t, json_t *line, nm_err *err) {
  char *s = line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
  json_decref(line);
  if (!s) return nm__fail_memory(err, "a line of the metrics", 0);
  bool good = fputs(s, t->metrics) >= 0 && fputc('\n', t->metrics) >= 0 && !fflush(t->metrics);
  free(s);
  if (good) return NM_OK;
  return nm__fail(err, NM_EFAIL, "%s/metrics.jsonl: cannot be written: %s", t->dir,
                  strerror(errno));
}

/* ---- loss.svg, report.html --------------------------------------------------------------- */

enum { POINTS = 600, N_CURVES = 9,             /* training, and up to eight sources of eval */
       N_PROBES = 12 };            /* sites of probes, each with its control */

struct curve { double *x, *y; size_t n, cap; char name[60]; double accuracy; };
struct curves { struct curve v[N_CURVES], probe[N_PROBES], control[N_PROBES]; };

static int put_point(struct curve *c, double x, double y, nm_err *err) {
  if (c->n == c->cap) {
    size_t cap = c->cap ? 2 * c->cap : 256;
    double *px = nm__realloc(c->x, cap, sizeof *px);
    if (px) c->x = px;
    double *py = nm__realloc(c->y, cap, sizeof *py);
    if (py) c->y = py;
    if (!px || !py) return nm__fail_memory(err, "the curve of the loss", cap * 16);
    c->cap = cap;
  }
  c->x[c->n] = x;
  c->y[c->n++] = y;
  return NM_OK;
}

/* The curve of a probe at a site; those behind the last are not drawn. */
static int add_probe(struct curves *all, const json_t *v, nm_err *err) {
  char name[60];
  const char *site = json_string_value(json_object_get(v, "site"));
  double step = (double)json_integer_value(json_object_get(v, "step"));
  snprintf(name, sizeof name, "%.44s (%lld)", site ? site : "",
           (long long)json_integer_value(json_object_get(v, "probe")));
  int k = 0;
  while (k < N_PROBES && all->probe[k].n && strcmp(all->probe[k].name, name)) k++;
  if (k == N_PROBES) return NM_OK;
  snprintf(all->probe[k].name, sizeof all->probe[k].name, "%s", name);
  snprintf(all->control[k].name, sizeof all->control[k].name, "shuffled labels");
  int st = put_point(&all->probe[k], step, json_number_value(json_object_get(v, "accuracy")), err);
  return st ? st : put_point(&all->control[k], step,
                             json_number_value(json_object_get(v, "shuffled")), err);
}

static int add_point(void *arg, const char *s, size_t n, const json_t *v, nm_err *err) {
  (void)s, (void)n;
  struct curves *all = arg;
  const json_t *eval = json_object_get(v, "eval");
  if (json_object_get(v, "probe")) return add_probe(all, v, err);
  if (json_object_get(v, "tap")) return NM_OK;
  size_t k = eval ? 1 + (size_t)json_integer_value(eval) : 0;
  if (k >= N_CURVES) return NM_OK;
  struct curve *c = &all->v[k];
  const char *data = json_string_value(json_object_get(v, "data"));
  snprintf(c->name, sizeof c->name, "%s%.40s", eval ? "test: " : "training", data ? data : "");
  c->accuracy = json_number_value(json_object_get(v, "accuracy"));
  return put_point(c, (double)json_integer_value(json_object_get(v, "step")),
                   json_number_value(json_object_get(v, "loss")), err);
}

/* Means of neighbouring steps where there are more than a figure can show. */
static void thin(struct curve *c) {
  size_t step = (c->n + POINTS - 1) / POINTS, to = 0;
  for (size_t i = 0; step > 1 && i < c->n; i += step, to++) {
    size_t end = i + step < c->n ? i + step : c->n;
    double x = 0, y = 0;
    for (size_t k = i; k < end; k++) x += c->x[k], y += c->y[k];
    c->x[to] = x / (double)(end - i);
    c->y[to] = y / (double)(end - i);
  }
  if (step > 1) c->n = to;
}

static void draw(struct curves *all, const char *title, struct nm__buf *b) {
  struct nm__series s[N_CURVES];
  int n = 0;
  for (int k = 0; k < N_CURVES; k++) {
    struct curve *c = &all->v[k];
    thin(c);
    if (c->n)
      s[n++] = (struct nm__series){.name = c->name, .x = c->x, .y = c->y, .n = (int)c->n,
                                   .colour = k, .faint = k == 0 && all->v[1].n};
  }
  nm__chart_svg(&(struct nm__chart){.title = title, .subtitle = "mean over tokens with a weight",
                                    .x_label = "step", .y_label = "loss (nats a token)",
                                    .series = s, .n_series = n}, b);
}

/* Only the first control has a name in the legend: they are all one thing. */
static void draw_probes(struct curves *all, struct nm__buf *b) {
  struct nm__series s[2 * N_PROBES];
  int n = 0;
  for (int k = 0; k < N_PROBES && all->probe[k].n; k++) {
    struct curve *c = &all->probe[k], *d = &all->control[k];
    thin(c);
    thin(d);
    s[n++] = (struct nm__series){.name = c->name, .x = c->x, .y = c->y, .n = (int)c->n,
                                 .colour = k};
    s[n++] = (struct nm__series){.name = k ? NULL : d->name, .x = d->x, .y = d->y, .n = (int)d->n,
                                 .colour = k, .style = NM__LINE_DOTTED, .faint = true};
  }
  if (!n) return;
  nm__chart_svg(&(struct nm__chart){.title = "Probes while training",
                                    .subtitle = "texts that were held out; dotted: a probe of "
                                                "shuffled labels",
                                    .x_label = "step", .y_label = "accuracy", .y_lo = 0, .y_hi = 1,
                                    .series = s, .n_series = n}, b);
}

static int page(const struct nm__training *t, const char *summary, const char *svg,
                const char *probes, const char *path, nm_err *err) {
  char line[600];
  const nm_model *m = t->m;
  struct nm__page *p = nm__page_new("Training");
  snprintf(line, sizeof line, "%.200s (%s, %d layers, width %d, %d tokens in the vocabulary); "
           "%zu numbers learned in %d tensors.", m->path, m->arch->name, m->L, m->D, m->V,
           t->p.n_floats, t->p.n);
  nm__page_para(p, line);
  nm__page_para(p, summary);
  nm__page_svg(p, svg);
  if (probes) nm__page_svg(p, probes);
  for (int i = 0; i < t->r.data.n; i++) {
    const struct nm__source *s = &t->r.data.v[i];
    snprintf(line, sizeof line, "Data: %.200s: %d samples, %lld tokens%s; %lld documents were cut "
             "at %d tokens.", s->file ? s->file : s->world, t->set[i].n,
             (long long)t->set[i].n_tokens, t->r.pack ? ", packed" : "",
             (long long)t->set[i].n_cut, t->r.length);
    nm__page_para(p, line);
  }
  char *recipe = json_dumps(t->r.y.root, JSON_INDENT(1));
  nm__page_heading(p, "The recipe");
  if (recipe) nm__page_code(p, recipe);
  nm__page_heading(p, "The exact command");
  nm__page_code(p, t->o->command ? t->o->command : "");
  free(recipe);
  int st = nm__page_write(p, path, err);
  nm__page_free(p);
  return st;
}

/* The figures, each as a file (empty: none). */
static int figures(struct nm__training *t, struct curves *all, struct nm__buf *loss,
                   struct nm__buf *probes, nm_err *err) {
  const struct { const char *name; struct nm__buf *b; } file[] = {{"loss.svg", loss},
                                                                  {"probes.svg", probes}};
  int st = NM_OK;
  draw(all, nm__path_base(t->dir), loss);
  draw_probes(all, probes);
  if (loss->failed || probes->failed || !loss->s)
    return nm__fail_memory(err, "the figures", loss->len + probes->len);
  for (int i = 0; i < 2 && !st; i++) {
    char *path = in_dir(t, file[i].name);
    if (!path) st = nm__fail_memory(err, "a path", 0);
    else if (file[i].b->len) st = nm__write_file(path, file[i].b->s, file[i].b->len, err);
    free(path);
  }
  return st;
}

static void curves_done(struct curve *v, int n) {
  for (int k = 0; k < n; k++) {
    free(v[k].x);
    free(v[k].y);
  }
}

int nm__training_report(struct nm__training *t, const char *summary, nm_err *err) {
  struct curves *all = nm__alloc(1, sizeof *all);
  struct nm__buf loss, probes;
  char *metrics = in_dir(t, "metrics.jsonl"), *html = in_dir(t, "report.html");
  nm__buf_init(&loss, 1 << 26);
  nm__buf_init(&probes, 1 << 26);
  int st = metrics && html && all ? read_metrics(metrics, add_point, all, err)
                                  : nm__fail_memory(err, "the report", sizeof *all);
  if (!st) st = figures(t, all, &loss, &probes, err);
  if (!st) st = page(t, summary, loss.s, probes.len ? probes.s : NULL, html, err);
  if (all) {
    curves_done(all->v, N_CURVES);
    curves_done(all->probe, N_PROBES);
    curves_done(all->control, N_PROBES);
  }
  free(all);
  nm__buf_done(&loss);
  nm__buf_done(&probes);
  free(metrics);
  free(html);
  return st;
}
