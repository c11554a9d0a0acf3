/* spmodel.c - a small protobuf reader, and SentencePiece's message as keys of a GGUF.
 *
 * A message is a row of fields, each a varint (number << 3 | wire type) and its value:
 * 0 varint, 1 eight bytes, 2 a length and that many bytes, 5 four bytes. Fields that are
 * not known are passed over; the deepest message here is the second level. */
#include "text/spmodel.h"

#include <stdlib.h>
#include <string.h>

/* ---- protobuf -------------------------------------------------------- */

struct reader { const uint8_t *p, *end; };
struct field {
  uint32_t number, wire;
  uint64_t v;                      /* of a varint, of four or eight bytes */
  struct nm__str s;                /* of wire type 2 */
};

static bool varint(struct reader *r, uint64_t *out) {
  *out = 0;
  for (int shift = 0; shift < 64 && r->p < r->end; shift += 7) {
    uint8_t b = *r->p++;
    *out |= (uint64_t)(b & 127) << shift;
    if (b < 128) return true;
  }
  return false;
}

static bool fixed(struct reader *r, size_t n, uint64_t *out) {
  *out = 0;
  if ((size_t)(r->end - r->p) < n) return false;
  memcpy(out, r->p, n);
  r->p += n;
  return true;
}

static bool bytes(struct reader *r, struct nm__str *s) {
  uint64_t n;
  if (!varint(r, &n) || n > (uint64_t)(r->end - r->p)) return false;
  *s = (struct nm__str){(const char *)r->p, (size_t)n};
  r->p += n;
  return true;
}

/* 1 a field, 0 the end, -1 no protobuf. */
static int next(struct reader *r, struct field *f) {
  uint64_t tag;
  if (r->p == r->end) return 0;
  if (!varint(r, &tag) || tag >> 3 == 0 || tag >> 3 > 1u << 29) return -1;
  *f = (struct field){.number = (uint32_t)(tag >> 3), .wire = tag & 7};
  switch (f->wire) {
    case 0: return varint(r, &f->v) ? 1 : -1;
    case 1: return fixed(r, 8, &f->v) ? 1 : -1;
    case 2: return bytes(r, &f->s) ? 1 : -1;
    case 5: return fixed(r, 4, &f->v) ? 1 : -1;
    default: return -1;            /* groups, which nobody writes any more */
  }
}

static struct reader over(struct nm__str s) {
  const uint8_t *p = (const uint8_t *)s.s;
  return (struct reader){p, p + s.n};
}

/* ---- SentencePiece's message ------------------------------------------- */

enum { UNIGRAM = 1, BPE, WORD, CHAR };
enum { NORMAL = 1, UNKNOWN, CONTROL };

/* The values of a message that leaves everything out. */
struct spec {
  int64_t model, unk, bos, eos, pad;
  bool suffix, prefix, squeeze, escape;
  struct nm__str map;
};

/* Which fields are read, and where they go. */
struct want { uint32_t number, wire; size_t to; };
#define TO(number, member) {number, 0, offsetof(struct spec, member)}

static const struct want trainer_ints[] = {TO(3, model), TO(40, unk), TO(41, bos), TO(42, eos),
                                           TO(43, pad)};
static const struct want trainer_flags[] = {TO(24, suffix)};
static const struct want normal_flags[] = {TO(3, prefix), TO(4, squeeze), TO(5, escape)};

static void *wanted(const struct want *w, size_t n, const struct field *f, struct spec *out) {
  for (size_t i = 0; i < n; i++)
    if (w[i].number == f->number && w[i].wire == f->wire) return (char *)out + w[i].to;
  return NULL;
}
#define WANTED(table, f, out) wanted(table, sizeof table / sizeof *table, f, out)

static bool read_trainer(struct nm__str s, struct spec *o) {
  struct reader r = over(s);
  struct field f;
  int more;
  while ((more = next(&r, &f)) > 0) {
    int64_t *v = WANTED(trainer_ints, &f, o);
    bool *flag = WANTED(trainer_flags, &f, o);
    if (v) *v = (int32_t)f.v;      /* -1 is written as 64 bits of ones */
    if (flag) *flag = f.v != 0;
  }
  return more == 0;
}

static bool read_normal(struct nm__str s, struct spec *o) {
  struct reader r = over(s);
  struct field f;
  int more;
  while ((more = next(&r, &f)) > 0) {
    bool *flag = WANTED(normal_flags, &f, o);
    if (flag) *flag = f.v != 0;
    if (f.number == 2 && f.wire == 2) o->map = f.s;
  }
  return more == 0;
}

struct pieces { struct nm__str *s; float *score; int32_t *type; size_t n, cap; };

static void pieces_done(struct pieces *v) {
  free(v->s);
  free(v->score);
  free(v->type);
}

static bool room_for_piece(struct pieces *v) {
  if (v->n < v->cap) return true;
  size_t cap = v->cap ? 2 * v->cap : 1024;
  struct nm__str *s = nm__realloc(v->s, cap, sizeof *s);
  if (s) v->s = s;
  float *score = s ? nm__realloc(v->score, cap, sizeof *score) : NULL;
  if (score) v->score = score;
  int32_t *type = score ? nm__realloc(v->type, cap, sizeof *type) : NULL;
  if (type) v->type = type;
  if (type) v->cap = cap;
  return type != NULL;
}

static bool read_piece(struct nm__str s, struct pieces *v) {
  struct reader r = over(s);
  struct field f;
  int more;
  size_t i = v->n++;
  v->s[i] = (struct nm__str){"", 0};
  v->score[i] = 0;
  v->type[i] = NORMAL;
  while ((more = next(&r, &f)) > 0) {
    if (f.number == 1 && f.wire == 2) v->s[i] = f.s;
    if (f.number == 2 && f.wire == 5) memcpy(&v->score[i], &f.v, 4);
    if (f.number == 3 && f.wire == 0) v->type[i] = (int32_t)f.v;
  }
  return more == 0 && v->s[i].n;
}

static int read_model(const char *name, const void *p, size_t n, struct pieces *v, struct spec *o,
                      nm_err *err) {
  struct reader r = over((struct nm__str){p, n});
  struct field f;
  int more;
  bool good = true;
  while (good && (more = next(&r, &f)) > 0) {
    if (f.wire != 2) continue;
    if (f.number == 1 && !room_for_piece(v)) return nm__fail_memory(err, "the pieces", n);
    if (f.number == 1) good = read_piece(f.s, v);
    if (f.number == 2) good = read_trainer(f.s, o);
    if (f.number == 3) good = read_normal(f.s, o);
  }
  if (!good || more < 0)
    return nm__fail(err, NM_EFORMAT, "%s: is no SentencePiece model: a message breaks off, or a "
                    "piece is empty, before byte %zu of %zu", name,
                    (size_t)(r.p - (const uint8_t *)p), n);
  return NM_OK;
}

/* ---- keys ------------------------------------------------------------ */

static int refuse(const char *name, const struct pieces *v, const struct spec *o, nm_err *err) {
  if (v->n == 0) return nm__fail(err, NM_EFORMAT, "%s: is no SentencePiece model: it has no pieces",
                                 name);
  if (o->model != UNIGRAM && o->model != BPE)
    return nm__fail(err, NM_EFORMAT, "%s: is a SentencePiece model of type %lld%s; noema has "
                    "1 (unigram) and 2 (BPE)", name, (long long)o->model,
                    o->model == WORD ? " (word)" : o->model == CHAR ? " (char)" : "");
  if (!o->escape || o->suffix)
    return nm__fail(err, NM_EFORMAT, "%s: is a SentencePiece model that %s, which noema does "
                    "not do", name,
                    o->suffix ? "puts the space mark behind words" : "has no space mark");
  return NM_OK;
}

/* An id the file names, where a piece of that type stands; others count as absent. */
static int add_id(struct nm__gguf *g, const char *key, const struct pieces *v, int64_t id,
                  int32_t type, nm_err *err) {
  if (id < 0 || (uint64_t)id >= v->n || v->type[id] != type) id = UINT32_MAX;
  return nm__gguf_add_u32(g, key, (uint32_t)id, err);
}

static int add_ids(struct nm__gguf *g, const struct pieces *v, const struct spec *o, nm_err *err) {
  int rc = add_id(g, "tokenizer.ggml.unknown_token_id", v, o->unk, UNKNOWN, err);
  if (!rc) rc = add_id(g, "tokenizer.ggml.bos_token_id", v, o->bos, CONTROL, err);
  if (!rc) rc = add_id(g, "tokenizer.ggml.eos_token_id", v, o->eos, CONTROL, err);
  if (!rc) rc = add_id(g, "tokenizer.ggml.padding_token_id", v, o->pad, CONTROL, err);
  return rc;
}

static int add_keys(struct nm__gguf *g, const struct pieces *v, const struct spec *o, nm_err *err) {
  const char *family = o->model == BPE ? "llama" : "t5";
  int rc = nm__gguf_add_string(g, "tokenizer.ggml.model", family, strlen(family), err);
  if (!rc) rc = nm__gguf_add_strings(g, "tokenizer.ggml.tokens", v->s, v->n, err);
  if (!rc) rc = nm__gguf_add_f32s(g, "tokenizer.ggml.scores", v->score, v->n, err);
  if (!rc) rc = nm__gguf_add_i32s(g, "tokenizer.ggml.token_type", v->type, v->n, err);
  if (!rc) rc = add_ids(g, v, o, err);
  if (!rc) rc = nm__gguf_add_bool(g, "tokenizer.ggml.add_space_prefix", o->prefix, err);
  if (!rc) rc = nm__gguf_add_bool(g, "tokenizer.ggml.remove_extra_whitespaces", o->squeeze, err);
  struct nm__gguf_kv map = {.key = (char[]){"tokenizer.ggml.precompiled_charsmap"},
                            .type = NM__GGUF_ARRAY, .elem_type = NM__GGUF_U8, .n = o->map.n,
                            .raw = (const uint8_t *)o->map.s};
  return rc || !o->map.n ? rc : nm__gguf_add_kv(g, &map, err);
}

int nm__spmodel_parse(const char *name, const void *p, size_t n, struct nm__gguf *g, nm_err *err) {
  struct pieces v = {0};
  struct spec o = {.model = UNIGRAM, .unk = 0, .bos = 1, .eos = 2, .pad = -1, .prefix = true,
                   .squeeze = true, .escape = true};
  int rc = read_model(name, p, n, &v, &o, err);
  if (!rc) rc = refuse(name, &v, &o, err);
  if (!rc) rc = add_keys(g, &v, &o, err);
  pieces_done(&v);
  return rc;
}

int nm__spmodel_keys(const char *path, struct nm__gguf *g, nm_err *err) {
  struct nm__map m;
  int rc = nm__map_open(path, &m, err);
  if (rc) return rc;
  rc = nm__spmodel_parse(path, m.data, m.size, g, err);
  nm__map_close(&m);
  return rc;
}

/* The first field is the first piece, and in it the text of that piece. */
bool nm__spmodel_is(const char *path) {
  struct nm__map m;
  struct field piece, text;
  if (nm__map_open(path, &m, NULL)) return false;
  struct reader r = {m.data, m.data + m.size}, in;
  bool is = next(&r, &piece) > 0 && piece.number == 1 && piece.wire == 2;
  if (is) in = over(piece.s);
  is = is && next(&in, &text) > 0 && text.number == 1 && text.wire == 2 && text.s.n;
  nm__map_close(&m);
  return is;
}
