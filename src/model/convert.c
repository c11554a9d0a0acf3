/* convert.c - a model in one form or type, written in another: the plan first, whole, so that
 * nothing is written that could not be finished for a reason known before. */
#include "model/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/model.h"

/* ---- the plan ------------------------------------------------------------------ */

int nm__plan_add(struct nm__plan *p, const char *name, const struct nm__gguf_tensor *t,
                 uint32_t to, int n_dims, const int64_t *ne, size_t n_parts, struct nm__item **out,
                 nm_err *err) {
  if (p->n == p->cap) {
    size_t cap = p->cap ? 2 * p->cap : 64;
    struct nm__item *v = nm__realloc(p->item, cap, sizeof *v);
    if (!v) return nm__fail_memory(err, "the list of tensors", cap * sizeof *v);
    p->item = v;
    p->cap = cap;
  }
  struct nm__item *it = *out = &p->item[p->n];
  *it = (struct nm__item){.from = t->type, .to = to, .n_dims = n_dims, .n_parts = n_parts,
                          .rows = 1, .ne = {1, 1, 1, 1}};
  snprintf(it->name, sizeof it->name, "%s", name);
  for (int i = 0; i < n_dims; i++) it->ne[i] = ne[i];
  it->cols = it->ne[0] * it->ne[1] * it->ne[2] * it->ne[3] / (int64_t)n_parts;
  it->part = nm__alloc(n_parts, sizeof *it->part);
  if (!it->part) return nm__fail_memory(err, "the list of tensors", n_parts * sizeof *it->part);
  p->n++;
  if (!nm__gguf_tensor_bytes(to, n_dims, it->ne, &it->bytes))
    return nm__fail(err, NM_EUSAGE, "tensor '%s' has rows of %lld, which cannot be held as %s",
                    name, (long long)it->ne[0], nm__dtype(to)->name);
  return NM_OK;
}

int nm__item_rows(struct nm__item *it, const struct nm__gguf_tensor *t, nm_err *err) {
  it->rows = t->n_dims > 1 ? t->ne[1] : t->ne[0];
  it->cols = t->n_dims > 1 ? t->ne[0] : 1;
  if (t->ne[2] * t->ne[3] == 1 && it->cols % nm__dtype(t->type)->block == 0) return NM_OK;
  return nm__fail(err, NM_EFORMAT, "tensor '%s' (%s, %d dimensions) cannot be put in another "
                  "order: a matrix or a vector of plain numbers is needed", t->name,
                  nm__dtype(t->type)->name, t->n_dims);
}

int nm__plan_files(struct nm__plan *p, const char *one, const char *pattern, nm_err *err) {
  uint64_t limit = p->o->split_bytes ? p->o->split_bytes : UINT64_MAX, at = 0;
  p->file = nm__alloc(p->n + 1, sizeof *p->file);
  if (!p->file) return nm__fail_memory(err, "the list of files", p->n * sizeof *p->file);
  p->n_files = 1;
  for (size_t i = 0; i < p->n; i++) {
    struct nm__plan_file *f = &p->file[p->n_files - 1];
    if (f->n && (p->item[i].bytes > limit || at > limit - p->item[i].bytes)) {
      *++f = (struct nm__plan_file){.first = i};
      p->n_files++;
      at = 0;
    }
    f->n++;
    at += p->item[i].bytes;
  }
  for (size_t i = 0; i < p->n_files; i++) {
    size_t n = strlen(one) + strlen(pattern) + 60;
    if (!(p->file[i].path = nm__alloc(n, 1))) return nm__fail_memory(err, "a file name", n);
    if (p->n_files == 1) snprintf(p->file[i].path, n, "%s", one);
    else snprintf(p->file[i].path, n, pattern, i + 1, p->n_files);
  }
  return NM_OK;
}

static void plan_done(struct nm__plan *p) {
  for (size_t i = 0; i < p->n; i++) {
    free(p->item[i].part);
    free(p->item[i].added);
    free(p->item[i].scale);
  }
  for (size_t i = 0; i < p->n_files; i++) free(p->file[i].path);
  free(p->item);
  free(p->file);
  nm__pool_free(p->pool);
}

/* ---- types ----------------------------------------------------------------------- */

static int no_such_type(const char *name, bool recipe, nm_err *err) {
  struct nm__buf known;
  nm__buf_init(&known, 1000);
  if (recipe) nm__recipe_names(&known);
  else nm__dtype_written(&known);
  int st = nm__fail(err, NM_EUSAGE, "type '%.30s' is not known (known: %s)", name,
                    known.s ? known.s : "");
  nm__buf_done(&known);
  return st;
}

/* The type after '=' of "GLOB=TYPE" when the glob fits; -1 when it does not, -2 with a sentence. */
static int wanted(const char *spec, const char *name, nm_err *err) {
  const char *eq = strrchr(spec, '=');
  char pattern[200];
  if (!eq || eq == spec || (size_t)(eq - spec) >= sizeof pattern)
    return nm__fail(err, NM_EUSAGE, "'%.60s' is not of the form GLOB=TYPE", spec), -2;
  snprintf(pattern, sizeof pattern, "%.*s", (int)(eq - spec), spec);
  int type = nm__dtype_by_name(eq + 1);
  if (type < 0 || !nm__dtype((uint32_t)type)->from_f32)
    return no_such_type(eq + 1, false, err), -2;
  return nm__glob(pattern, name) ? type : -1;
}

int nm__plan_bits(const struct nm__plan *p, const struct nm__gguf_tensor *t) {
  int bits = p->o->round_bits;
  bool matrix = strstr(t->name, "blk.") && t->n_dims > 1 && nm__dtype(t->type)->to_f32;
  return bits >= 2 && bits <= 8 && matrix && t->ne[0] % 32 == 0 ? bits : 0;
}

int nm__plan_type(const struct nm__plan *p, const struct nm__recipe_facts *f,
                  const struct nm__gguf_tensor *t, uint32_t *out, nm_err *err) {
  bool plain_copy = !p->recipe && !strncmp(p->g->format, "GGUF", 4);
  *out = plain_copy ? t->type : nm__recipe_type(p->recipe, f, t);
  if (!p->recipe && nm__plan_touched(p, t->name)) *out = NM__F32;
  for (int i = 0; i < p->o->n_tensor_type; i++) {
    int type = wanted(p->o->tensor_type[i], t->name, err);
    if (type == -2) return NM_EUSAGE;
    if (type >= 0 && nm__dtype(t->type)->to_f32)
      *out = nm__recipe_fit((uint32_t)type, t->ne[0]);
  }
  int bits = nm__plan_bits(p, t);
  if (bits) *out = bits > 4 ? NM__Q8_0 : NM__Q4_0;
  if (p->o->round_bits == 16 && strstr(t->name, "blk.") && t->n_dims > 1 &&
      nm__dtype(t->type)->to_f32)
    *out = NM__BF16;
  if (*out == t->type || (nm__dtype(t->type)->to_f32 && nm__dtype(*out)->from_f32)) return NM_OK;
  return nm__fail(err, NM_EFORMAT, "%s: tensor '%s' cannot be changed from %s to %s", p->g->path,
                  t->name, nm__dtype(t->type)->name, nm__dtype(*out)->name);
}

/* A glob that fits nothing is a slip of the pen. */
static int check_globs(const struct nm__plan *p, nm_err *err) {
  for (int i = 0; i < p->o->n_tensor_type; i++) {
    bool hit = false;
    for (size_t k = 0; k < p->g->n_tensors && !hit; k++) {
      int type = wanted(p->o->tensor_type[i], p->g->tensors[k].name, err);
      if (type == -2) return NM_EUSAGE;
      hit = type >= 0;
    }
    for (size_t k = 0; k < p->n && !hit; k++)
      hit = wanted(p->o->tensor_type[i], p->item[k].name, err) >= 0;
    if (!hit)
      return nm__fail(err, NM_EUSAGE, "'%.60s' fits no tensor's name (noema info --json lists "
                      "them)", p->o->tensor_type[i]);
  }
  return NM_OK;
}

char *nm_convert_types(void) {
  struct nm__buf b;
  nm__buf_init(&b, 1000);
  nm__recipe_names(&b);
  return b.s;
}

/* ---- what is there already ---------------------------------------------------------- */

static bool same_file(const char *a, const char *b) {
  struct stat x, y;
  return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Whether the output folder is the one the input lies in, for two directories. */
static bool same_folder(const nm_convert_opts *o) {
  const char *base = nm__path_base(o->in);
  struct stat s;
  if (!stat(o->in, &s) && S_ISDIR(s.st_mode)) return same_file(o->in, o->out);
  char *folder = base == o->in ? nm__strdup(".") : nm__strndup(o->in, (size_t)(base - o->in));
  bool same = folder && same_file(folder, o->out);
  free(folder);
  return same;
}

static int is_input(const char *path, nm_err *err) {
  return nm__fail(err, NM_EUSAGE, "%s: is the model that is read; write to another place", path);
}

static int check_output(const struct nm__plan *p, bool hf, nm_err *err) {
  const nm_convert_opts *o = p->o;
  if (same_file(o->in, o->out) || (hf && nm__hf_is(o->in) && same_folder(o)))
    return is_input(o->out, err);
  for (size_t i = 0; i <= p->n_files; i++) {
    const char *name = i < p->n_files ? p->file[i].path : "config.json";
    char *path = hf ? nm__path_join(o->out, name) : nm__strdup(name);
    bool there = path && (hf || i < p->n_files) && nm__exists(path);
    int st = !path ? nm__fail_memory(err, "a path", 0) : NM_OK;
    if (there && same_file(path, o->in))
      st = is_input(path, err);
    else if (there && !o->force)
      st = nm__fail(err, NM_EUSAGE, "%s: is there already; --force replaces it", path);
    free(path);
    if (st) return st;
  }
  return NM_OK;
}

/* ---- the result ------------------------------------------------------------------------ */

static int tell(struct nm__plan *p, bool hf, nm_convert_result *r, nm_err *err) {
  uint64_t bytes = 0, n_wide = 0;
  const char *was = "";
  r->tensor = nm__alloc(p->n ? p->n : 1, sizeof *r->tensor);
  if (!r->tensor) return nm__fail_memory(err, "the table of tensors", p->n * sizeof *r->tensor);
  r->n_tensors = p->n;
  r->n_files = (int)p->n_files;
  for (size_t i = 0; i < p->n; i++) {
    const struct nm__item *it = &p->item[i];
    nm_convert_tensor *t = &r->tensor[i];
    uint64_t n = (uint64_t)it->ne[0] * (uint64_t)it->ne[1] * (uint64_t)it->ne[2] *
                 (uint64_t)it->ne[3];
    const struct nm__dtype_info *d = nm__dtype(it->from);
    snprintf(t->name, sizeof t->name, "%s", it->name);
    t->from = d->name;
    t->to = nm__dtype(it->to)->name;
    t->n_dims = it->n_dims;
    for (int k = 0; k < it->n_dims; k++) t->dims[k] = it->ne[hf ? it->n_dims - 1 - k : k];
    t->bytes_from = n / (uint64_t)d->block * (uint64_t)d->bytes;
    t->bytes_to = it->bytes;
    p->bytes_in += t->bytes_from;
    bytes += it->bytes;
    r->n_weights += n;
    if (it->n_added && it->from != NM__F32 && it->to == NM__F32) n_wide++, was = d->name;
    if (d->block > 1 && it->from != it->to && !it->n_added && !*r->warning)
      snprintf(r->warning, sizeof r->warning, "the input is quantised (%s): what was lost there "
               "does not come back%s", d->name,
               nm__dtype(it->to)->block > 1 ? ", and rounding again loses more" : "");
  }
  if (n_wide && !*r->warning)
    snprintf(r->warning, sizeof r->warning, "%llu matrices that adapters touch are stored as F32 "
             "(they were %s and the like), so that nothing of the sum is lost; a type of your "
             "choice (--type) rounds them", (unsigned long long)n_wide, was);
  r->bytes = bytes;
  r->bits_per_weight = r->n_weights ? 8.0 * (double)bytes / (double)r->n_weights : 0;
  return NM_OK;
}

/* The bytes of the first n files of the weights; when they are of no use, they go. */
static uint64_t sizes(const struct nm__plan *p, bool hf, size_t n, bool remove_them) {
  uint64_t total = 0;
  for (size_t i = 0; i < n; i++) {
    char *path = hf ? nm__path_join(p->o->out, p->file[i].path) : nm__strdup(p->file[i].path);
    struct stat s;
    if (path && !stat(path, &s)) total += (uint64_t)s.st_size;
    if (path && remove_them) unlink(path);
    free(path);
  }
  return total;
}

static int write_all(struct nm__plan *p, bool hf, nm_convert_result *r, nm_err *err) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  int n = p->o->threads > 0 ? p->o->threads : cores > 0 && cores < 256 ? (int)cores : 1;
  int st = nm__pool_new(n, &p->pool, err);
  if (!st) st = hf ? nm__write_hf(p, err) : nm__write_gguf(p, err);
  uint64_t bytes = sizes(p, hf, p->n_written, st != NM_OK);
  if (!st) r->bytes = bytes;
  if (!*r->warning) snprintf(r->warning, sizeof r->warning, "%s", p->warning);
  return st;
}

static int run(struct nm__plan *p, bool hf, nm_convert_result *r, nm_err *err) {
  struct nm__recipe_facts facts;
  int st = nm__recipe_facts(p->g, &facts, err);
  if (!st) st = hf ? nm__plan_hf(p, &facts, err) : nm__plan_gguf(p, &facts, err);
  nm__recipe_facts_done(&facts);
  if (!st) st = nm__plan_lora(p, err);
  if (!st) st = check_globs(p, err);
  if (!st) st = tell(p, hf, r, err);
  if (st || p->o->dry_run) return st;
  st = check_output(p, hf, err);
  return st ? st : write_all(p, hf, r, err);
}

static bool ends(const char *s, const char *tail) {
  size_t n = strlen(s), k = strlen(tail);
  return n >= k && !strcmp(s + n - k, tail);
}

int nm_convert(const nm_convert_opts *o, nm_convert_result *out, nm_err *err) {
  struct nm__plan p = {.o = o};
  struct nm__recipe pure;
  struct nm__gguf *g;
  const char *to = o->to ? o->to : ends(o->out, ".gguf") ? "gguf" : "safetensors";
  bool hf = !strcmp(to, "safetensors");
  *out = (nm_convert_result){0};
  if (!hf && strcmp(to, "gguf") != 0)
    return nm__fail(err, NM_EUSAGE, "form '%.30s' is not known (known: gguf, safetensors)", to);
  if (o->type && !(p.recipe = nm__recipe_find(o->type))) return no_such_type(o->type, true, err);
  if (p.recipe && o->pure) {
    pure = *p.recipe;
    pure.mixed = false;
    p.recipe = &pure;
  }
  if (o->round_bits && (hf || (o->round_bits != 16 && (o->round_bits < 2 || o->round_bits > 8))))
    return nm__fail(err, NM_EUSAGE, "weights are rounded to 2 to 8 or 16 bits, in a GGUF file");
  if (hf && p.recipe && nm__dtype(p.recipe->type)->block > 1)
    return nm__fail(err, NM_EUSAGE, "safetensors hold no %s: F32, F16 or BF16 can be written there",
                    p.recipe->name);
  int st = nm__model_map(o->in, &g, err);
  nm_model *m = NULL;              /* of an adapter that names its model: both, to be merged */
  if (!st && nm__adapter_is(g)) {
    st = nm__adapter_model(g, &m, err);
    g = NULL;
  }
  if (st) return st;
  p.g = m ? m->g : g;
  p.lora[0] = m ? m->adapters : NULL;
  p.lora[1] = o->adapters;
  if (hf && (m || o->adapters))
    st = nm__fail(err, NM_EUSAGE, "%s: adapters are merged into a GGUF file; that can be converted "
                  "after", o->in);
  if (!st) st = run(&p, hf, out, err);
  plan_done(&p);
  nm__gguf_close(g);
  nm_model_close(m);
  if (st) nm_convert_result_free(out);
  return st;
}

void nm_convert_result_free(nm_convert_result *r) {
  free(r->tensor);
  *r = (nm_convert_result){0};
}
