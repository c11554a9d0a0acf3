/* convert_gguf.c - a model written as GGUF, in one file or in pieces. */
#include "model/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- which tensors ----------------------------------------------------------- */

int nm__expert_of(const char *name, char stacked[80], char front[80]) {
  static const char *const kinds[] = {"ffn_gate", "ffn_up", "ffn_down"};
  int block, expert, used;
  for (int i = 0; i < 3; i++) {
    char scan[48];
    used = 0;
    snprintf(scan, sizeof scan, "blk.%%7d.%s.%%7d.weight%%n", kinds[i]);
    if (sscanf(name, scan, &block, &expert, &used) != 2 || used <= 0 || name[used]) continue;
    if (block < 0 || expert < 0) return -1;
    snprintf(stacked, 80, "blk.%d.%s_exps.weight", block, kinds[i]);
    snprintf(front, 80, "blk.%d.%s.", block, kinds[i]);
    return expert;
  }
  return -1;
}

static int add_stacked(struct nm__plan *p, const struct nm__recipe_facts *f,
                       const struct nm__gguf_tensor *t, char *stacked, const char *front,
                       nm_err *err) {
  struct nm__gguf_tensor all = *t;
  struct nm__item *it;
  uint32_t to;
  all.name = stacked;
  all.ne[2] = f->n_expert;
  all.n_dims = 3;
  int st = nm__plan_type(p, f, &all, &to, err);
  if (!st) st = nm__plan_add(p, stacked, t, to, 3, all.ne, (size_t)f->n_expert, &it, err);
  if (!st) it->bits = nm__plan_bits(p, &all);
  for (int e = 0; e < f->n_expert && !st; e++) {
    char name[100];
    snprintf(name, sizeof name, "%s%d.weight", front, e);
    const struct nm__gguf_tensor *one = nm__gguf_tensor(p->g, name);
    if (!one || one->type != t->type || one->ne[0] != t->ne[0] || one->ne[1] != t->ne[1] ||
        one->ne[2] != 1 || one->ne[3] != 1)
      st = nm__fail(err, NM_EFORMAT, "%s: the experts of a block must be alike to be stacked: '%s' "
                    "%s", p->g->path, name, one ? "differs from the first" : "is missing");
    else it->part[e] = one->data;
  }
  return st;
}

static int add_one(struct nm__plan *p, const struct nm__recipe_facts *f,
                   const struct nm__gguf_tensor *t, nm_err *err) {
  struct nm__item *it;
  uint32_t to;
  char stacked[80], front[80];
  int expert = f->n_expert > 0 ? nm__expert_of(t->name, stacked, front) : -1;
  if (expert > 0 && expert < f->n_expert) return NM_OK;
  if (expert == 0) return add_stacked(p, f, t, stacked, front, err);
  int st = nm__plan_type(p, f, t, &to, err);
  if (!st) st = nm__plan_add(p, t->name, t, to, t->n_dims, t->ne, 1, &it, err);
  if (st) return st;
  it->part[0] = t->data;
  it->bits = nm__plan_bits(p, t);
  it->to_gguf = true;
  it->change = nm__hf_pending(p->g, t, &it->n_head);
  return it->change == NM__HF_SAME ? NM_OK : nm__item_rows(it, t, err);
}

/* The head apart from the embedding it was one with. */
static int add_head(struct nm__plan *p, const struct nm__recipe_facts *f, nm_err *err) {
  const struct nm__gguf_tensor *t = nm__gguf_tensor(p->g, "token_embd.weight");
  char name[] = "output.weight";
  if (!t) return NM_OK;
  struct nm__gguf_tensor head = *t;
  head.name = name;
  return add_one(p, f, &head, err);
}

int nm__plan_gguf(struct nm__plan *p, const struct nm__recipe_facts *f, nm_err *err) {
  int st = NM_OK;
  for (size_t i = 0; i < p->g->n_tensors && !st; i++) st = add_one(p, f, &p->g->tensors[i], err);
  if (!st && nm__plan_unties(p)) st = add_head(p, f, err);
  if (st) return st;
  size_t n = strlen(p->o->out), stem = n > 5 && !strcmp(p->o->out + n - 5, ".gguf") ? n - 5 : n;
  char *pattern = nm__alloc(2 * n + 40, 1), *at = pattern;
  if (!pattern) return nm__fail_memory(err, "a file name", n);
  for (size_t i = 0; i < stem; i++) {              /* a name may hold what printf would read */
    if (p->o->out[i] == '%') *at++ = '%';
    *at++ = p->o->out[i];
  }
  snprintf(at, 40, "-%%05zu-of-%%05zu.gguf");
  st = nm__plan_files(p, p->o->out, pattern, err);
  free(pattern);
  return st;
}

/* ---- writing ------------------------------------------------------------------- */

static bool own_key(const char *key) {
  return !strcmp(key, "general.file_type") || !strcmp(key, "general.quantization_version") ||
         !strcmp(key, "general.alignment") || !strncmp(key, "split.", 6);
}

static bool is_quantised(uint32_t type) { return nm__dtype(type)->block > 1; }

/* The label of the whole: of the recipe, of the input, or of what most matrices are. */
static uint32_t file_type(const struct nm__plan *p) {
  uint64_t v, n[3] = {0};
  if (p->recipe) return p->recipe->file_type;
  if (nm__gguf_find(p->g, "general.file_type") &&
      !nm__gguf_uint(p->g, "general.file_type", &v, NULL))
    return (uint32_t)v;
  for (size_t i = 0; i < p->n; i++)
    if (p->item[i].to == NM__F16) n[1] += p->item[i].bytes;
    else if (p->item[i].to == NM__BF16) n[2] += p->item[i].bytes;
    else n[0] += p->item[i].bytes;
  return n[1] > n[0] && n[1] >= n[2] ? 1 : n[2] > n[0] ? 32 : 0;
}

static void put_keys(struct nm__plan *p, const struct nm__gguf *more, struct nm__gguf_writer *w) {
  bool quantised = false;
  for (size_t i = 0; i < p->g->n_kv; i++)
    if (!own_key(p->g->kv[i].key)) nm__gguf_put_kv(w, &p->g->kv[i]);
  for (size_t i = 0; more && i < more->n_kv; i++)
    if (!nm__gguf_find(p->g, more->kv[i].key)) nm__gguf_put_kv(w, &more->kv[i]);
  for (size_t i = 0; i < p->n; i++) quantised |= is_quantised(p->item[i].to);
  nm__gguf_put_u32(w, "general.file_type", file_type(p));
  if (quantised) nm__gguf_put_u32(w, "general.quantization_version", 2);
}

static void put_split(struct nm__plan *p, struct nm__gguf_writer *w, size_t i) {
  uint16_t no = (uint16_t)i, count = (uint16_t)p->n_files;
  struct nm__gguf_kv kv = {.key = (char *)(uintptr_t)"split.no", .type = NM__GGUF_U16, .n = 1,
                           .raw = (const uint8_t *)&no};
  if (p->n_files < 2) return;
  nm__gguf_put_kv(w, &kv);
  kv.key = (char *)(uintptr_t)"split.count";
  kv.raw = (const uint8_t *)&count;
  nm__gguf_put_kv(w, &kv);
  nm__gguf_put_i32(w, "split.tensors.count", (int32_t)p->n);
}

static int sink(void *w, const void *bytes, size_t n, nm_err *err) {
  return nm__gguf_data(w, bytes, n, err);
}

static int write_file(struct nm__plan *p, size_t i, const struct nm__gguf *more, nm_err *err) {
  const struct nm__plan_file *f = &p->file[i];
  struct nm__gguf_writer *w;
  int st = nm__gguf_writer_new(&w, err);
  if (st) return st;
  if (i == 0) put_keys(p, more, w);
  put_split(p, w, i);
  for (size_t k = f->first; k < f->first + f->n; k++)
    nm__gguf_announce(w, p->item[k].name, p->item[k].to, p->item[k].n_dims, p->item[k].ne);
  st = nm__gguf_begin(w, f->path, err);
  for (size_t k = f->first; k < f->first + f->n && !st; k++)
    st = nm__item_stream(p, &p->item[k], sink, w, err);
  if (!st) st = nm__gguf_finish(w, err);
  nm__gguf_writer_free(w);
  return st;
}

int nm__write_gguf(struct nm__plan *p, nm_err *err) {
  struct nm__gguf *more;
  if (p->n_files > UINT16_MAX)
    return nm__fail(err, NM_EUSAGE, "%zu pieces are too many (at most 65535)", p->n_files);
  int st = nm__convert_tokenizer(p, &more, err);
  for (size_t i = 0; i < p->n_files && !st; i++)
    if (!(st = write_file(p, i, more, err))) p->n_written++;
  nm__gguf_close(more);
  return st;
}
