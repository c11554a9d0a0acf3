/* gguf_keys.c - values of a GGUF's keys, whatever width a writer gave them. */
#include "file/gguf.h"

#include <string.h>

static uint32_t number_type(const struct nm__gguf_kv *kv) {
  return kv->type == NM__GGUF_ARRAY ? kv->elem_type : kv->type;
}

/* Reads element i as the C type of its width. */
#define READ(type) ({ type v_; memcpy(&v_, kv->raw + i * sizeof v_, sizeof v_); v_; })

bool nm__gguf_int_at(const struct nm__gguf_kv *kv, uint64_t i, int64_t *out) {
  if (i >= kv->n) return false;
  switch (number_type(kv)) {
    case NM__GGUF_U8:  *out = READ(uint8_t);  return true;
    case NM__GGUF_I8:  *out = READ(int8_t);   return true;
    case NM__GGUF_U16: *out = READ(uint16_t); return true;
    case NM__GGUF_I16: *out = READ(int16_t);  return true;
    case NM__GGUF_U32: *out = READ(uint32_t); return true;
    case NM__GGUF_I32: *out = READ(int32_t);  return true;
    case NM__GGUF_I64: *out = READ(int64_t);  return true;
    case NM__GGUF_U64: {
      uint64_t v = READ(uint64_t);
      if (v > INT64_MAX) return false;
      *out = (int64_t)v;
      return true;
    }
    default: return false;
  }
}

bool nm__gguf_float_at(const struct nm__gguf_kv *kv, uint64_t i, double *out) {
  if (i >= kv->n) return false;
  int64_t whole;
  switch (number_type(kv)) {
    case NM__GGUF_F32: *out = (double)READ(float); return true;
    case NM__GGUF_F64: *out = READ(double); return true;
    case NM__GGUF_U64: *out = (double)READ(uint64_t); return true;
    default:
      if (!nm__gguf_int_at(kv, i, &whole)) return false;
      *out = (double)whole;
      return true;
  }
}

struct nm__str nm__gguf_text(const struct nm__gguf_kv *kv) {
  uint64_t n;
  memcpy(&n, kv->raw, sizeof n);
  return (struct nm__str){(const char *)kv->raw + sizeof n, (size_t)n};
}

/* ---- typed readers --------------------------------------------------- */

static int find_scalar(const struct nm__gguf *g, const char *key, const struct nm__gguf_kv **kv,
                       nm_err *err) {
  *kv = nm__gguf_find(g, key);
  if (!*kv) return nm__fail(err, NM_EFORMAT, "%s: the key '%s' is missing", g->path, key);
  return NM_OK;
}

static int wrong_type(const struct nm__gguf *g, const struct nm__gguf_kv *kv, const char *wanted,
                      nm_err *err) {
  return nm__fail(err, NM_EFORMAT, "%s: the key '%s' must be %s, found type %s", g->path, kv->key,
                  wanted, nm__gguf_type_name(kv->type));
}

int nm__gguf_uint(const struct nm__gguf *g, const char *key, uint64_t *out, nm_err *err) {
  const struct nm__gguf_kv *kv;
  int st = find_scalar(g, key, &kv, err);
  if (st) return st;
  if (kv->type == NM__GGUF_U64) return memcpy(out, kv->raw, sizeof *out), NM_OK;
  int64_t v;
  if (kv->type == NM__GGUF_ARRAY || !nm__gguf_int_at(kv, 0, &v))
    return wrong_type(g, kv, "an integer", err);
  if (v < 0)
    return nm__fail(err, NM_EFORMAT, "%s: the key '%s' must not be negative, found %lld", g->path,
                    key, (long long)v);
  *out = (uint64_t)v;
  return NM_OK;
}

int nm__gguf_float(const struct nm__gguf *g, const char *key, double *out, nm_err *err) {
  const struct nm__gguf_kv *kv;
  int st = find_scalar(g, key, &kv, err);
  if (st) return st;
  if (kv->type == NM__GGUF_ARRAY || !nm__gguf_float_at(kv, 0, out))
    return wrong_type(g, kv, "a number", err);
  return NM_OK;
}

int nm__gguf_bool(const struct nm__gguf *g, const char *key, bool *out, nm_err *err) {
  const struct nm__gguf_kv *kv;
  int st = find_scalar(g, key, &kv, err);
  if (st) return st;
  if (kv->type != NM__GGUF_BOOL) return wrong_type(g, kv, "a bool", err);
  *out = kv->raw[0] != 0;
  return NM_OK;
}

int nm__gguf_string(const struct nm__gguf *g, const char *key, struct nm__str *out, nm_err *err) {
  const struct nm__gguf_kv *kv;
  int st = find_scalar(g, key, &kv, err);
  if (st) return st;
  if (kv->type != NM__GGUF_STRING) return wrong_type(g, kv, "a string", err);
  *out = nm__gguf_text(kv);
  return NM_OK;
}
