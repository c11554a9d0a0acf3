/* adapter.c - adapters beside the weights of one model: reading either form, checking that it fits,
 * several at once with their scales; showing and converting. */
#include "model/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/json.h"
#include "model/hf.h"
#include "model/series.h"

/* ---- one adapter in memory --------------------------------------------------- */

void nm__adapter_done(struct nm__adapter *a) {
  for (size_t i = 0; i < a->n; i++) {
    free(a->part[i].a);
    free(a->part[i].b);
  }
  free(a->part);
  free(a->path);
  *a = (struct nm__adapter){0};
}

void nm__adapter_sizes(const struct nm__adapter_part *p, int64_t a[2], int64_t b[2]) {
  a[0] = p->lookup ? p->rows : p->rank;
  a[1] = p->lookup ? p->rank : p->cols;
  b[0] = p->lookup ? p->cols : p->rows;
  b[1] = p->rank;
}

struct nm__adapter_part *nm__adapter_add(struct nm__adapter *a, const char *name, int expert,
                                         bool lookup, int64_t rank, int64_t rows, int64_t cols,
                                         nm_err *err) {
  int64_t sa[2], sb[2];
  if (a->n == a->cap) {
    size_t cap = a->cap ? 2 * a->cap : 64;
    struct nm__adapter_part *v = nm__realloc(a->part, cap, sizeof *v);
    if (!v) return nm__fail_memory(err, "the list of adapters", cap * sizeof *v), NULL;
    a->part = v;
    a->cap = cap;
  }
  struct nm__adapter_part *p = &a->part[a->n];
  *p = (struct nm__adapter_part){.expert = expert, .lookup = lookup, .rank = rank, .rows = rows,
                                 .cols = cols};
  snprintf(p->name, sizeof p->name, "%s", name);
  nm__adapter_sizes(p, sa, sb);
  p->a = nm__alloc((size_t)(sa[0] * sa[1]) + 1, sizeof *p->a);
  p->b = nm__alloc((size_t)(sb[0] * sb[1]) + 1, sizeof *p->b);
  a->n++;
  if (p->a && p->b) return p;
  nm__fail_memory(err, "an adapter", sizeof *p->a * (size_t)(sa[0] * sa[1] + sb[0] * sb[1]));
  return NULL;
}

static bool all_finite(const float *v, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (v[i] - v[i] != 0) return false;
  return true;
}

int nm__adapter_check(const struct nm__adapter *a, nm_err *err) {
  if (!a->n) return nm__fail(err, NM_EFORMAT, "%s: is an adapter without a single matrix", a->path);
  for (size_t i = 0; i < a->n; i++) {
    const struct nm__adapter_part *p = &a->part[i];
    int64_t sa[2], sb[2];
    char shown[100];
    nm__adapter_sizes(p, sa, sb);
    if (all_finite(p->a, sa[0] * sa[1]) && all_finite(p->b, sb[0] * sb[1]) &&
        all_finite(&p->scale, 1))
      continue;
    return nm__fail(err, NM_EFORMAT, "%s: the adapter of '%s' holds a value that is not finite",
                    a->path, nm__printable(shown, sizeof shown, p->name, strlen(p->name)));
  }
  return NM_OK;
}

void nm__adapter_hash(const struct nm__adapter *a, char hex[33]) {
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 28);
  for (size_t i = 0; i < a->n; i++) {
    const struct nm__adapter_part *p = &a->part[i];
    int64_t sa[2], sb[2];
    nm__adapter_sizes(p, sa, sb);
    nm__buf_printf(&b, "%s|%d|%a|%016llx%016llx|", p->name, p->expert, (double)p->scale,
                   (unsigned long long)nm__hash(p->a, sizeof(float) * (size_t)(sa[0] * sa[1]), 1),
                   (unsigned long long)nm__hash(p->b, sizeof(float) * (size_t)(sb[0] * sb[1]), 2));
  }
  nm__hash_hex(b.s ? b.s : "", b.len, hex);
  nm__buf_done(&b);
}

static int read_file(const char *path, const struct nm__gguf *base, struct nm__adapter *out,
                     nm_err *err) {
  struct nm__gguf *g;
  struct stat s;
  if (nm__adapter_is_peft(path)) return nm__adapter_open_peft(path, base, out, err);
  if (!stat(path, &s) && S_ISDIR(s.st_mode))
    return nm__fail(err, NM_EFORMAT, "%s: is a folder without adapter_config.json: a GGUF adapter "
                    "or a folder of PEFT's is needed", path);
  int st = nm__gguf_open(path, &g, err);
  if (st) return st;
  st = nm__adapter_from_gguf(g, out, err);
  nm__gguf_close(g);
  return st;
}

int nm__adapter_read(const char *path, const struct nm__gguf *base, struct nm__adapter *out,
                     nm_err *err) {
  char *step;
  *out = (struct nm__adapter){.path = nm__strdup(path)};
  int st = out->path ? nm__series_path(path, &step, err) : nm__fail_memory(err, "a path", 0);
  if (st) return nm__adapter_done(out), st;
  st = read_file(step ? step : path, base, out, err);
  free(step);
  if (st) nm__adapter_done(out);
  return st;
}

/* ---- beside a model ------------------------------------------------------------ */

static int attach(struct nm_adapters *s, const struct nm__adapter *a,
                  const struct nm__adapter_part *p, float scale, nm_err *err) {
  struct nm__low_rank c = {p->a, p->b, p->rank, p->scale * scale};
  struct nm__place at;
  char shown[100];
  int n = 0, st = NM_OK;
  nm__printable(shown, sizeof shown, p->name, strlen(p->name));
  if (!nm__place_of(s->m, p->name, p->expert, &at))
    return nm__fail(err, NM_EFORMAT, "%s: adapts the matrix '%s'%s, which %s does not have: it is "
                    "the adapter of another model", a->path, shown, p->expert >= 0 ? " (experts)"
                    : "", s->m->path);
  if (at.rows != p->rows || at.cols != p->cols)
    return nm__fail(err, NM_EFORMAT, "%s: adapts '%s' as %lld rows of %lld, that of %s has %lld "
                    "rows of %lld: it is the adapter of another model", a->path, shown,
                    (long long)p->rows, (long long)p->cols, s->m->path, (long long)at.rows,
                    (long long)at.cols);
  if (c.scale - c.scale != 0)
    return nm__fail(err, NM_EUSAGE, "%s: scale %g is too large", a->path, (double)scale);
  if (scale == 0) return NM_OK;
  st = p->lookup ? nm__deltas_lookup(&s->d, s->m, &at, &c, &n, err)
                 : nm__deltas_beside(&s->d, s->m, &at, &c, true, &n, err);
  if (st || n) return st;
  return nm__fail(err, NM_EFORMAT, "%s: adapts '%s', which is no matrix that the model multiplies "
                  "with", a->path, shown);
}

static char *describe(const struct nm__adapter *a, float scale) {
  char text[400];
  int64_t low = INT64_MAX, high = 0;
  for (size_t i = 0; i < a->n; i++) {
    if (a->part[i].rank < low) low = a->part[i].rank;
    if (a->part[i].rank > high) high = a->part[i].rank;
  }
  int n = snprintf(text, sizeof text, "%.250s, scale %g: %s LoRA beside %zu matri%s, rank %lld",
                   a->path, (double)scale, a->form, a->n, a->n == 1 ? "x" : "ces",
                   (long long)low);
  if (high > low)
    snprintf(text + n, sizeof text - (size_t)n, " to %lld", (long long)high);
  return nm__strdup(text);
}

static int load_one(struct nm_adapters *s, struct nm__adapter_used *u, const nm_adapter_file *f,
                    nm_err *err) {
  u->scale = (float)f->scale;
  if (!isfinite(u->scale))
    return nm__fail(err, NM_EUSAGE, "%s: a scale must be a number, not %g", f->path, f->scale);
  int st = nm__adapter_read(f->path, s->m->g, &u->a, err);
  if (st) return st;
  if (u->a.arch[0] && strcmp(u->a.arch, s->m->arch->name))
    return nm__fail(err, NM_EFORMAT, "%s: is the adapter of a model of architecture %s, %s is %s",
                    f->path, u->a.arch, s->m->path, s->m->arch->name);
  for (size_t i = 0; i < u->a.n && !st; i++) st = attach(s, &u->a, &u->a.part[i], u->scale, err);
  if (st) return st;
  nm__adapter_hash(&u->a, u->hash);
  u->what = describe(&u->a, u->scale);
  return u->what ? NM_OK : nm__fail_memory(err, "an adapter", 400);
}

int nm_adapters_load(const nm_model *m, const nm_adapter_file *v, int n, nm_adapters **out,
                     nm_err *err) {
  *out = NULL;
  if (n < 1) return NM_OK;
  if (!m->arch)
    return nm__fail(err, NM_EFORMAT, "%s: holds only a vocabulary, no model to adapt", m->path);
  nm_adapters *s = nm__alloc(1, sizeof *s);
  if (s) s->v = nm__alloc((size_t)n, sizeof *s->v);
  if (!s || !s->v) return nm_adapters_free(s), nm__fail_memory(err, "adapters", 0);
  s->m = m;
  int st = NM_OK;
  for (int i = 0; i < n && !st; i++) {
    s->n = i + 1;
    st = load_one(s, &s->v[i], &v[i], err);
  }
  if (st) nm_adapters_free(s);
  else *out = s;
  return st;
}

void nm_adapters_free(nm_adapters *s) {
  if (!s) return;
  for (int i = 0; s->v && i < s->n; i++) {
    nm__adapter_done(&s->v[i].a);
    free(s->v[i].what);
  }
  nm__deltas_done(&s->d);
  free(s->v);
  free(s);
}

int nm_adapters_n(const nm_adapters *a) { return a ? a->n : 0; }
const char *nm_adapters_what(const nm_adapters *a, int i) { return a->v[i].what; }
const nm_adapters *nm_model_adapters(const nm_model *m) { return m->adapters; }

void nm__adapters_key(const nm_adapters *a, struct nm__buf *b) {
  for (int i = 0; i < nm_adapters_n(a); i++)
    if (a->v[i].scale != 0) nm__buf_printf(b, "lora %s %a|", a->v[i].hash, (double)a->v[i].scale);
}

json_t *nm__adapters_record(const nm_engine *e) {
  const nm_adapters *all[] = {nm__engine_model(e)->adapters, nm__engine_adapters(e)};
  json_t *list = json_array();
  for (int k = 0; k < 2; k++)
    for (int i = 0; i < nm_adapters_n(all[k]); i++)
      json_array_append_new(list, json_pack("{s:o, s:s}", "what", nm__json_text(all[k]->v[i].what),
                                            "hash", all[k]->v[i].hash));
  return list;
}

json_t *nm__engine_record(const nm_engine *e) {
  char hex[33] = "";
  nm_model_hash((nm_model *)(uintptr_t)nm__engine_model(e), hex, NULL);
  return json_pack("{s:s, s:s, s:s, s:i, s:i, s:s, s:o}", "model_hash", hex, "kernels",
                   nm_engine_kernels(e), "act", nm_engine_act(e), "threads",
                   nm_engine_threads(e), "ctx",
                   nm__engine_ctx(e), "gelu", nm__engine_gelu(e), "adapters",
                   nm__adapters_record(e));
}

/* ---- showing, converting ---------------------------------------------------------- */

static json_t *to_json(const struct nm__adapter *a) {
  json_t *parts = json_array();
  for (size_t i = 0; i < a->n; i++) {
    const struct nm__adapter_part *p = &a->part[i];
    json_t *o = json_pack("{s:o, s:I, s:I, s:I, s:f}", "weight", nm__json_text(p->name), "rank",
                          (json_int_t)p->rank, "rows", (json_int_t)p->rows, "cols",
                          (json_int_t)p->cols, "scale", (double)p->scale);
    if (p->expert >= 0) json_object_set_new(o, "expert", json_integer(p->expert));
    json_array_append_new(parts, o);
  }
  return json_pack("{s:s, s:o, s:o, s:o}", "form", a->form, "path", nm__json_text(a->path),
                   "architecture", nm__json_text(a->arch), "parts", parts);
}

static void to_text(const struct nm__adapter *a, struct nm__buf *b) {
  char *what = describe(a, 1), shown[160];
  size_t n = 0;
  for (size_t i = 0; i < a->n; i++)
    n += (size_t)(a->part[i].rank * (a->part[i].rows + a->part[i].cols));
  nm__buf_printf(b, "%s%s%s, %zu numbers\n", what ? what : "", *a->arch ? ", for " : "", a->arch,
                 n);
  free(what);
  nm__buf_printf(b, "%-44s %7s %6s %8s %8s %9s\n", "weight", "expert", "rank", "rows", "cols",
                 "scale");
  for (size_t i = 0; i < a->n; i++) {
    const struct nm__adapter_part *p = &a->part[i];
    char expert[16] = "";
    if (p->expert >= 0) snprintf(expert, sizeof expert, "%d", p->expert);
    nm__buf_printf(b, "%-44s %7s %6lld %8lld %8lld %9g\n",
                   nm__printable(shown, sizeof shown, p->name, strlen(p->name)), expert,
                   (long long)p->rank, (long long)p->rows, (long long)p->cols, (double)p->scale);
  }
}

int nm_adapter_show(const char *path, bool json, char **out, nm_err *err) {
  struct nm__adapter a;
  struct nm__buf b;
  *out = NULL;
  int st = nm__adapter_read(path, NULL, &a, err);
  if (st) return st;
  nm__buf_init(&b, (size_t)1 << 28);
  if (json) {
    json_t *j = to_json(&a);
    char *s = j ? json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    if (s) nm__buf_printf(&b, "%s\n", s);
    free(s);
    json_decref(j);
  } else {
    to_text(&a, &b);
  }
  nm__adapter_done(&a);
  if (b.failed || !b.s) {
    nm__buf_done(&b);
    return nm__fail_memory(err, "the table of an adapter", b.len);
  }
  *out = b.s;
  return NM_OK;
}

int nm_adapter_convert(const nm_model *m, const char *in, const char *out, bool force,
                       nm_err *err) {
  nm_adapter_file f = {in, 1};
  nm_adapters *s;
  size_t n = strlen(out);
  bool gguf = n > 5 && !strcmp(out + n - 5, ".gguf");
  char *config = gguf ? nm__strdup(out) : nm__path_join(out, "adapter_config.json");
  bool there = config && nm__exists(config);
  free(config);
  if (there && !force)
    return nm__fail(err, NM_EUSAGE, "%s: is there already; --force replaces it", out);
  int st = nm_adapters_load(m, &f, 1, &s, err);
  if (st) return st;
  st = gguf ? nm__adapter_write_gguf(&s->v[0].a, m->arch->name, m->moe.n, out, err)
            : nm__adapter_write_peft(&s->v[0].a, m->g, m->g->path, out, err);
  nm_adapters_free(s);
  return st;
}
