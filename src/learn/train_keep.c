/* train_keep.c - what a run leaves in its folder. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/json.h"
#include "learn/train.h"
#include "model/hf.h"

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

enum { POINTS = 600, N_CURVES = 9 };           /* training, and up to eight sources of eval */

struct curve { double *x, *y; size_t n, cap; char name[60]; double accuracy; };
struct curves { struct curve v[N_CURVES]; };

static int add_point(void *arg, const char *s, size_t n, const json_t *v, nm_err *err) {
  (void)s, (void)n;
  struct curves *all = arg;
  const json_t *eval = json_object_get(v, "eval");
  size_t k = eval ? 1 + (size_t)json_integer_value(eval) : 0;
  if (k >= N_CURVES) return NM_OK;
  struct curve *c = &all->v[k];
  if (c->n == c->cap) {
    size_t cap = c->cap ? 2 * c->cap : 256;
    double *x = nm__realloc(c->x, cap, sizeof *x);
    if (x) c->x = x;
    double *y = nm__realloc(c->y, cap, sizeof *y);
    if (y) c->y = y;
    if (!x || !y) return nm__fail_memory(err, "the curve of the loss", cap * 16);
    c->cap = cap;
  }
  const char *data = json_string_value(json_object_get(v, "data"));
  snprintf(c->name, sizeof c->name, "%s%.40s", eval ? "test: " : "training", data ? data : "");
  c->accuracy = json_number_value(json_object_get(v, "accuracy"));
  c->x[c->n] = (double)json_integer_value(json_object_get(v, "step"));
  c->y[c->n++] = json_number_value(json_object_get(v, "loss"));
  return NM_OK;
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

static int page(const struct nm__training *t, const char *summary, const char *svg,
                const char *path, nm_err *err) {
  char line[600];
  const nm_model *m = t->m;
  struct nm__page *p = nm__page_new("Training");
  snprintf(line, sizeof line, "%.200s (%s, %d layers, width %d, %d tokens in the vocabulary); "
           "%zu numbers learned in %d tensors.", m->path, m->arch->name, m->L, m->D, m->V,
           t->p.n_floats, t->p.n);
  nm__page_para(p, line);
  nm__page_para(p, summary);
  nm__page_svg(p, svg);
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

int nm__training_report(struct nm__training *t, const char *summary, nm_err *err) {
  struct curves all = {0};
  struct nm__buf b;
  char *metrics = in_dir(t, "metrics.jsonl"), *svg = in_dir(t, "loss.svg"),
       *html = in_dir(t, "report.html");
  nm__buf_init(&b, 1 << 26);
  int st = metrics && svg && html ? read_metrics(metrics, add_point, &all, err)
                                  : nm__fail_memory(err, "a path", 0);
  if (!st) draw(&all, nm__path_base(t->dir), &b);
  if (!st && (b.failed || !b.s)) st = nm__fail_memory(err, "the figure", b.len);
  if (!st) st = nm__write_file(svg, b.s, b.len, err);
  if (!st) st = page(t, summary, b.s, html, err);
  for (int k = 0; k < N_CURVES; k++) {
    free(all.v[k].x);
    free(all.v[k].y);
  }
  nm__buf_done(&b);
  free(metrics);
  free(svg);
  free(html);
  return st;
}

/* ---- the trained model -------------------------------------------------------- */

/* What was trained (F32) is stored in the type asked for where its rows are whole blocks. */
static uint32_t type_of(const struct nm__gguf_tensor *t, uint32_t save) {
  bool matrix = t->n_dims > 1 && t->type == NM__F32;
  return matrix && t->ne[0] % nm__dtype(save)->block == 0 ? save : t->type;
}

static int write_rows(struct nm__gguf_writer *w, const struct nm__gguf_tensor *t, uint32_t type,
                      const uint8_t *data, nm_err *err) {
  if (type == t->type) return nm__gguf_data(w, data, (size_t)t->bytes, err);
  const struct nm__dtype_info *d = nm__dtype(type);
  int64_t rows = t->ne[1] * t->ne[2] * t->ne[3];
  size_t bytes = (size_t)(t->ne[0] / d->block) * (size_t)d->bytes;
  uint8_t *row = nm__alloc(bytes + 1, 1);
  int st = row ? NM_OK : nm__fail_memory(err, t->name, bytes);
  for (int64_t r = 0; r < rows && !st; r++) {
    d->from_f32(row, (const float *)data + r * t->ne[0], t->ne[0]);
    st = nm__gguf_data(w, row, bytes, err);
  }
  free(row);
  return st;
}

/* Rows in the order of a file. */
static int write_tensor(struct nm__gguf_writer *w, const struct nm__gguf *g,
                        const struct nm__gguf_tensor *t, uint32_t type, nm_err *err) {
  uint8_t *made;
  const uint8_t *data = nm__hf_file_order(g, t, &made, err);
  int st = data || !t->bytes ? write_rows(w, t, type, data, err) : NM_EMEMORY;
  free(made);
  return st;
}

static int save_model(struct nm__training *t, struct nm__gguf_writer *w, const char *path,
                      nm_err *err) {
  const struct nm__gguf *g = t->m->g;
  uint32_t save = (uint32_t)nm__dtype_by_name(t->r.save);
  nm__ckpt_put_keys(w, g);
  for (size_t i = 0; i < g->n_tensors; i++)
    nm__gguf_announce(w, g->tensors[i].name, type_of(&g->tensors[i], save), g->tensors[i].n_dims,
                      g->tensors[i].ne);
  int st = nm__gguf_begin(w, path, err);
  for (size_t i = 0; i < g->n_tensors && !st; i++)
    st = write_tensor(w, g, &g->tensors[i], type_of(&g->tensors[i], save), err);
  return st;
}

/* As llama.cpp reads adapters: two matrices a weight, named after it. */
static int save_adapter(struct nm__training *t, struct nm__gguf_writer *w, const char *path,
                        nm_err *err) {
  struct nm__gguf *g;
  int st = nm__training_adapter(t, &g, err);
  if (st) return st;
  nm__ckpt_put_keys(w, g);
  for (size_t i = 0; i < g->n_tensors; i++)
    nm__gguf_announce(w, g->tensors[i].name, NM__F32, 2, g->tensors[i].ne);
  st = nm__gguf_begin(w, path, err);
  for (size_t i = 0; i < g->n_tensors && !st; i++)
    st = nm__gguf_data(w, g->tensors[i].data, (size_t)g->tensors[i].bytes, err);
  nm__gguf_close(g);
  return st;
}

int nm__training_save(struct nm__training *t, nm_err *err) {
  bool lora = t->r.lora_rank > 0;
  char *path = in_dir(t, lora ? "adapter.gguf" : "model.gguf");
  struct nm__gguf_writer *w = NULL;
  int st = path ? nm__gguf_writer_new(&w, err) : nm__fail_memory(err, "a path", 0);
  if (!st) st = lora ? save_adapter(t, w, path, err) : save_model(t, w, path, err);
  if (!st) st = nm__gguf_finish(w, err);
  nm__gguf_writer_free(w);
  free(path);
  return st;
}
