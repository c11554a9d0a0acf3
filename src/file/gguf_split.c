/* gguf_split.c - a GGUF in pieces, name-00001-of-00003.gguf: opening any of them opens all.
 *
 * Each piece is a complete GGUF with the keys split.no, split.count and split.tensors.count; the
 * model's keys are those of the first. What comes out is one GGUF made in memory, its tensors
 * in the maps of all pieces. */
#include "file/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TAIL = sizeof "-00001-of-00003.gguf" - 1, PIECES_MAX = 9999 };

struct split { uint64_t no, count, n_tensors; };

static int read_split(const struct nm__gguf *g, struct split *s, nm_err *err) {
  int st = nm__gguf_uint(g, "split.no", &s->no, err);
  if (!st) st = nm__gguf_uint(g, "split.count", &s->count, err);
  if (!st) st = nm__gguf_uint(g, "split.tensors.count", &s->n_tensors, err);
  if (!st && (s->count > PIECES_MAX || s->no >= s->count))
    st = nm__fail(err, NM_EFORMAT, "%s: says that it is piece %llu of %llu", g->path,
                  (unsigned long long)s->no + 1, (unsigned long long)s->count);
  return st;
}

bool nm__gguf_is_piece(const struct nm__gguf *g) {
  const struct nm__gguf_kv *kv = nm__gguf_find(g, "split.count");
  int64_t n;
  return kv && nm__gguf_int_at(kv, 0, &n) && n > 1;
}

static void tail_of(char out[40], uint64_t no, uint64_t count) {
  snprintf(out, 40, "-%05u-of-%05u.gguf", (unsigned)no + 1, (unsigned)count);
}

/* The name of piece `no` beside the one at `path`, whose tail is known to be right. */
static char *path_of(const char *path, uint64_t no, uint64_t count) {
  char *s = nm__strdup(path), tail[40];
  tail_of(tail, no, count);
  if (s) memcpy(s + strlen(s) - TAIL, tail, TAIL);
  return s;
}

/* ---- one piece ----------------------------------------------------------- */

static bool is_split_key(const char *key) {
  return !strncmp(key, "split.", 6) || !strcmp(key, "general.alignment");
}

static bool same_kv(const struct nm__gguf_kv *a, const struct nm__gguf_kv *b) {
  uint32_t type = a->type == NM__GGUF_ARRAY ? a->elem_type : a->type;
  if (a->type != b->type || a->elem_type != b->elem_type || a->n != b->n) return false;
  if (a->type == NM__GGUF_STRING) {
    struct nm__str x = nm__gguf_text(a), y = nm__gguf_text(b);
    return x.n == y.n && !memcmp(x.s, y.s, x.n);
  }
  for (uint64_t i = 0; a->strings && i < a->n; i++)
    if (a->strings[i].n != b->strings[i].n ||
        memcmp(a->strings[i].s, b->strings[i].s, a->strings[i].n)) return false;
  return a->strings || !memcmp(a->raw, b->raw, (size_t)a->n * nm__gguf_type_size(type));
}

/* Keys come from the first piece; what another says besides must be the same. */
static int add_keys(struct nm__gguf *g, const struct nm__gguf *piece, bool first, nm_err *err) {
  int st = NM_OK;
  for (size_t i = 0; i < piece->n_kv && !st; i++) {
    const struct nm__gguf_kv *kv = &piece->kv[i], *had;
    if (is_split_key(kv->key)) continue;
    if (first) {
      st = nm__gguf_add_kv(g, kv, err);
    } else if (!(had = nm__gguf_find(g, kv->key)) || !same_kv(kv, had)) {
      st = nm__fail(err, NM_EFORMAT, "%s: is a piece of another model than %s: its key '%s' is not "
                    "the same", piece->path, g->path, kv->key);
    }
  }
  return st;
}

static int add_tensors(struct nm__gguf *g, struct nm__gguf *piece, nm_err *err) {
  int st = NM_OK;
  for (size_t i = 0; i < piece->n_tensors && !st; i++) {
    const struct nm__gguf_tensor *t = &piece->tensors[i];
    st = nm__gguf_add_tensor(g, t->name, t->type, t->n_dims, t->ne, t->data, err);
    if (st) st = nm__fail_at(err, st, "%s", piece->path);
  }
  if (!st) st = nm__gguf_take_map(g, &piece->maps[0], err);
  return st;
}

static int add_piece(struct nm__gguf *g, const char *path, uint64_t no, const struct split *want,
                     nm_err *err) {
  struct nm__gguf *piece;
  struct nm__map map;
  struct split s;
  int st = nm__map_open(path, &map, err);
  if (st)
    return nm__fail_at(err, st, "%s: is in %llu pieces, of which number %llu is missing", g->path,
                       (unsigned long long)want->count, (unsigned long long)no + 1);
  st = nm__gguf_parse(path, map.data, map.size, &piece, err);
  if (st) return nm__map_close(&map), st;
  piece->borrowed = false;         /* the map goes with the piece, and then with g */
  st = read_split(piece, &s, err);
  if (!st && (s.no != no || s.count != want->count || s.n_tensors != want->n_tensors))
    st = nm__fail(err, NM_EFORMAT, "%s: says that it is piece %llu of %llu of a model of %llu "
                  "tensors, where piece %llu of %llu of one of %llu is due", path,
                  (unsigned long long)s.no + 1, (unsigned long long)s.count,
                  (unsigned long long)s.n_tensors, (unsigned long long)no + 1,
                  (unsigned long long)want->count, (unsigned long long)want->n_tensors);
  if (!st) st = add_keys(g, piece, no == 0, err);
  if (!st) st = add_tensors(g, piece, err);
  nm__gguf_close(piece);
  return st;
}

/* ---- all pieces ------------------------------------------------------------ */

static int check_name(const char *path, const struct split *s, nm_err *err) {
  char tail[40];
  size_t n = strlen(path);
  tail_of(tail, s->no, s->count);
  if (n >= TAIL && !strcmp(path + n - TAIL, tail)) return NM_OK;
  return nm__fail(err, NM_EFORMAT, "%s: is piece %llu of %llu and cannot find the others: its name "
                  "must end in %s", path, (unsigned long long)s->no + 1,
                  (unsigned long long)s->count, tail);
}

int nm__gguf_open_pieces(const struct nm__gguf *one, struct nm__gguf **out, nm_err *err) {
  struct split s;
  struct nm__gguf *g = NULL;
  nm_err own = {0};
  *out = NULL;
  int st = read_split(one, &s, &own);
  if (!st) st = check_name(one->path, &s, &own);
  if (!st) st = nm__gguf_new(one->path, "GGUF in pieces", &g, &own);
  for (uint64_t no = 0; !st && no < s.count; no++) {
    char *path = path_of(one->path, no, s.count);
    st = path ? add_piece(g, path, no, &s, &own) : nm__fail_memory(&own, "a file name", 1);
    free(path);
  }
  if (!st && g->n_tensors != s.n_tensors)
    st = nm__fail(&own, NM_EFORMAT, "%s: its %llu pieces hold %zu tensors, but split.tensors.count "
                  "says %llu", one->path, (unsigned long long)s.count, g->n_tensors,
                  (unsigned long long)s.n_tensors);
  if (!st) return *out = g, NM_OK;
  nm__gguf_close(g);
  if (err) *err = own;
  return st;
}
