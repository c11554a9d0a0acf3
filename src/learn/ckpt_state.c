/* ckpt_state.c - the state file of a checkpoint: a GGUF whose keys say where the run stood and
 * whose tensors are the optimiser's state ("state.3") and, where the model file lacks them, values
 * ("value.3"), by the number of the learned tensor. A key holds a hash of all that the file means,
 * so that a changed byte is found whatever it belongs to. */
#include "learn/ckpt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY NM__CKPT_KEY
enum { FORM = 1 };                 /* of the state file; others are refused */

/* The numbers and the texts of nm__ckpt, each with its key. */
enum kind { INT, SEED, REAL, TEXT, HASH };
#define FIELD(kind, name) {kind, KEY #name, offsetof(struct nm__ckpt, name), \
                           sizeof ((struct nm__ckpt *)0)->name}
static const struct field { enum kind kind; const char *key; size_t at, size; } fields[] = {
    FIELD(INT, step),    FIELD(SEED, seed),   FIELD(HASH, recipe), FIELD(HASH, base),
    FIELD(HASH, data),   FIELD(INT, samples), FIELD(INT, tokens),  FIELD(REAL, loss),
    FIELD(REAL, best),   FIELD(INT, best_step), FIELD(TEXT, note),
};
enum { N_FIELDS = sizeof fields / sizeof *fields };

/* ---- the hash --------------------------------------------------------------- */

static void add_hash(struct nm__buf *b, const char *what, const float *v, size_t n) {
  char hex[33];
  nm__hash_hex(v, n * sizeof *v, hex);
  nm__buf_printf(b, " %s %zu %s", what, n, hex);
}

void nm__ckpt_state_hash(const struct nm__ckpt_state *s, char hex[33]) {
  struct nm__buf b;
  nm__buf_init(&b, SIZE_MAX / 2);
  for (int i = 0; i < N_FIELDS; i++) {
    const char *v = (const char *)&s->at + fields[i].at;
    bool text = fields[i].kind == TEXT || fields[i].kind == HASH;
    nm__buf_put(&b, v, text ? strlen(v) + 1 : fields[i].size);
  }
  for (size_t i = 0; i < s->n; i++) {
    const struct nm__ckpt_part *p = &s->part[i];
    nm__buf_put(&b, p->name.s, p->name.n);
    nm__buf_printf(&b, " %lld %lld", (long long)p->rows, (long long)p->cols);
    add_hash(&b, "state", p->state, p->n_state);
    if (p->value) add_hash(&b, "value", p->value, (size_t)(p->rows * p->cols));
    nm__buf_putc(&b, '\n');
  }
  if (b.failed) hex[0] = 0;        /* equals no hash */
  else nm__hash_hex(b.s, b.len, hex);
  nm__buf_done(&b);
}

/* Of the two hashes: so that the model's cannot be changed alone. */
static void check_of(const struct nm__ckpt_state *s, char hex[33]) {
  char both[66];
  int n = snprintf(both, sizeof both, "%s %s", s->hash, s->model);
  nm__hash_hex(both, (size_t)n, hex);
}

/* ---- writing ---------------------------------------------------------------- */

static void put(struct nm__gguf_writer *w, const char *key, uint32_t type, const void *v) {
  nm__gguf_put_kv(w, &(struct nm__gguf_kv){.key = (char *)(uintptr_t)key, .type = type, .n = 1,
                                           .raw = v});
}

static void put_fields(struct nm__gguf_writer *w, const struct nm__ckpt_state *s) {
  static const uint32_t type[] = {[INT] = NM__GGUF_I64, [SEED] = NM__GGUF_U64,
                                  [REAL] = NM__GGUF_F64};
  char check[33];
  check_of(s, check);
  nm__gguf_put_string(w, "general.type", "noema.checkpoint.state");
  nm__gguf_put_u32(w, KEY "form", FORM);
  for (int i = 0; i < N_FIELDS; i++) {
    const char *v = (const char *)&s->at + fields[i].at;
    if (fields[i].kind == TEXT || fields[i].kind == HASH) nm__gguf_put_string(w, fields[i].key, v);
    else put(w, fields[i].key, type[fields[i].kind], v);
  }
  nm__gguf_put_string(w, KEY "hash", s->hash);
  nm__gguf_put_string(w, KEY "model", s->model);
  nm__gguf_put_string(w, KEY "check", check);
}

/* The names and the sizes of the learned tensors: arrays as long as there are tensors. */
static int put_list(struct nm__gguf_writer *w, const struct nm__ckpt_state *s, nm_err *err) {
  struct nm__str *names = nm__alloc(s->n + 1, sizeof *names);
  int64_t *size = nm__alloc(2 * s->n + 1, sizeof *size);
  if (!names || !size) {
    free(names);
    free(size);
    return nm__fail_memory(err, "the list of learned tensors", s->n * sizeof *names);
  }
  for (size_t i = 0; i < s->n; i++) {
    names[i] = s->part[i].name;
    size[2 * i] = s->part[i].rows;
    size[2 * i + 1] = s->part[i].cols;
  }
  nm__gguf_put_kv(w, &(struct nm__gguf_kv){.key = (char[]){KEY "tensors"}, .type = NM__GGUF_ARRAY,
                                           .elem_type = NM__GGUF_STRING, .n = s->n,
                                           .strings = names});
  nm__gguf_put_kv(w, &(struct nm__gguf_kv){.key = (char[]){KEY "sizes"}, .type = NM__GGUF_ARRAY,
                                           .elem_type = NM__GGUF_I64, .n = 2 * s->n,
                                           .raw = (const uint8_t *)size});
  free(names);
  free(size);
  return NM_OK;
}

static void announce(struct nm__gguf_writer *w, const char *what, size_t i, size_t n) {
  char name[64];
  snprintf(name, sizeof name, "%s.%zu", what, i);
  if (n) nm__gguf_announce(w, name, NM__F32, 1, (const int64_t[]){(int64_t)n});
}

static size_t n_value(const struct nm__ckpt_part *p) {
  return p->value ? (size_t)(p->rows * p->cols) : 0;
}

int nm__ckpt_state_write(const char *path, const struct nm__ckpt_state *s, nm_err *err) {
  struct nm__gguf_writer *w;
  int st = nm__gguf_writer_new(&w, err);
  if (st) return st;
  put_fields(w, s);
  st = put_list(w, s, err);
  for (size_t i = 0; i < s->n; i++) {
    announce(w, "state", i, s->part[i].n_state);
    announce(w, "value", i, n_value(&s->part[i]));
  }
  if (!st) st = nm__gguf_begin(w, path, err);
  for (size_t i = 0; i < s->n && !st; i++) {
    const struct nm__ckpt_part *p = &s->part[i];
    st = nm__gguf_data(w, p->state, p->n_state * sizeof(float), err);
    if (!st) st = nm__gguf_data(w, p->value, n_value(p) * sizeof(float), err);
  }
  if (!st) st = nm__gguf_finish(w, err);
  nm__gguf_writer_free(w);
  return st;
}

/* ---- reading ---------------------------------------------------------------- */

/* A text without zero bytes that fits; hashes are 32 hex digits or nothing. */
static int read_text(const struct nm__gguf *g, const char *key, bool hash, char *out, size_t size,
                     nm_err *err) {
  struct nm__str s;
  int st = nm__gguf_string(g, key, &s, err);
  if (st) return st;
  bool good = s.n < size && !memchr(s.s, 0, s.n);
  if (hash && s.n && s.n != 32) good = false;
  for (size_t i = 0; good && hash && i < s.n; i++) good = strchr("0123456789abcdef", s.s[i]);
  if (!good)
    return nm__fail(err, NM_EFORMAT, "%s: the key %s is no %s", g->path, key,
                    hash ? "hash of 32 hex digits" : "short text");
  memcpy(out, s.s, s.n);
  out[s.n] = 0;
  return NM_OK;
}

static int read_field(const struct nm__gguf *g, const struct field *f, char *v, nm_err *err) {
  if (f->kind == TEXT || f->kind == HASH)
    return read_text(g, f->key, f->kind == HASH, v, f->size, err);
  if (f->kind == REAL) return nm__gguf_float(g, f->key, (double *)(void *)v, err);
  if (f->kind == SEED) return nm__gguf_uint(g, f->key, (uint64_t *)(void *)v, err);
  const struct nm__gguf_kv *kv = nm__gguf_find(g, f->key);
  if (kv && kv->type != NM__GGUF_ARRAY && nm__gguf_int_at(kv, 0, (int64_t *)(void *)v))
    return NM_OK;
  return nm__fail(err, NM_EFORMAT, "%s: the key %s is missing or no integer", g->path, f->key);
}

/* The floats of "WHAT.i", NULL when there is no such tensor. A tensor of several dimensions is
 * taken as the run of numbers that it is. */
static const float *floats(const struct nm__gguf *g, const char *what, size_t i, size_t *n,
                           nm_err *err) {
  char name[64];
  snprintf(name, sizeof name, "%s.%zu", what, i);
  const struct nm__gguf_tensor *t = nm__gguf_tensor(g, name);
  *n = 0;
  if (!t || !t->bytes) return NULL;
  if (t->type != NM__F32 || (uintptr_t)t->data % sizeof(float))
    return nm__fail(err, NM_EFORMAT, "%s: %s is not stored as floats", g->path, name), NULL;
  *n = (size_t)t->bytes / sizeof(float);
  return (const float *)(const void *)t->data;
}

static int read_parts(const struct nm__gguf *g, struct nm__ckpt_state *s, nm_err *err) {
  const struct nm__gguf_kv *names = nm__gguf_find(g, KEY "tensors"),
                           *size = nm__gguf_find(g, KEY "sizes");
  if (!names || !size || !names->strings || size->type != NM__GGUF_ARRAY ||
      size->n != 2 * names->n)
    return nm__fail(err, NM_EFORMAT, "%s: the list of learned tensors is damaged", g->path);
  s->part = nm__alloc((size_t)names->n + 1, sizeof *s->part);
  if (!s->part) return nm__fail_memory(err, "the list of learned tensors", (size_t)names->n);
  for (size_t i = 0; i < names->n; i++) {
    struct nm__ckpt_part *p = &s->part[s->n++];
    nm_err own = {0};
    size_t n;
    int64_t count = 0;
    p->name = names->strings[i];
    bool good = nm__gguf_int_at(size, 2 * i, &p->rows) &&
                nm__gguf_int_at(size, 2 * i + 1, &p->cols) && p->rows >= 0 && p->cols >= 0 &&
                !__builtin_mul_overflow(p->rows, p->cols, &count);
    p->state = floats(g, "state", i, &p->n_state, &own);
    p->value = floats(g, "value", i, &n, &own);
    if (own.status && err) *err = own;
    if (own.status) return own.status;
    if (!good || (p->value && n != (size_t)count))
      return nm__fail(err, NM_EFORMAT, "%s: the sizes of learned tensor %zu are damaged", g->path,
                      i);
  }
  return NM_OK;
}

static int read_all(struct nm__ckpt_state *s, nm_err *err) {
  const struct nm__gguf *g = s->g;
  char hash[33], check[33], said[33] = "";
  uint64_t form = 0;
  if (!nm__gguf_find(g, KEY "form"))
    return nm__fail(err, NM_EFORMAT, "%s: is not the state of a checkpoint", g->path);
  int st = nm__gguf_uint(g, KEY "form", &form, err);
  if (!st && form != FORM)
    st = nm__fail(err, NM_EFORMAT, "%s: is of form %llu; this version reads form %d", g->path,
                  (unsigned long long)form, FORM);
  for (int i = 0; i < N_FIELDS && !st; i++)
    st = read_field(g, &fields[i], (char *)&s->at + fields[i].at, err);
  if (!st) st = read_text(g, KEY "hash", true, s->hash, sizeof s->hash, err);
  if (!st) st = read_text(g, KEY "model", true, s->model, sizeof s->model, err);
  if (!st) st = read_text(g, KEY "check", true, said, sizeof said, err);
  if (!st) st = read_parts(g, s, err);
  if (st) return st;
  nm__ckpt_state_hash(s, hash);
  check_of(s, check);
  if (strcmp(hash, s->hash) || strcmp(check, said))
    return nm__fail(err, NM_EFORMAT, "%s: is damaged: its hash is not the one it names", g->path);
  return NM_OK;
}

static int take(int opened, struct nm__ckpt_state *s, nm_err *err) {
  int st = opened ? opened : read_all(s, err);
  if (st) nm__ckpt_state_close(s);
  return st;
}

int nm__ckpt_state_open(const char *path, struct nm__ckpt_state *out, nm_err *err) {
  *out = (struct nm__ckpt_state){0};
  return take(nm__gguf_open(path, &out->g, err), out, err);
}

int nm__ckpt_state_parse(const char *name, const void *bytes, size_t n,
                         struct nm__ckpt_state *out, nm_err *err) {
  *out = (struct nm__ckpt_state){0};
  return take(nm__gguf_parse(name, bytes, n, &out->g, err), out, err);
}

void nm__ckpt_state_close(struct nm__ckpt_state *s) {
  free(s->part);
  nm__gguf_close(s->g);
  *s = (struct nm__ckpt_state){0};
}
