/* gguf.h - the GGUF container (v2 and v3): reading from a map, making one in memory, writing.
 *
 * Reading never copies tensor data: `data` points into the mapped file. Every
 * count, length, offset and product is checked against the file's size before
 * it is used or allocated for. All strings carry their length; they may hold any
 * byte, but keys and tensor names are also zero-terminated copies.
 *
 *   struct nm__gguf *g;
 *   if (nm__gguf_open("model.gguf", &g, err)) return err->status;
 *   uint64_t n_layer;
 *   if (nm__gguf_uint(g, "llama.block_count", &n_layer, err)) ...
 *   const struct nm__gguf_tensor *t = nm__gguf_tensor(g, "token_embd.weight");
 *   nm__gguf_close(g); */
#ifndef NM_FILE_GGUF_H
#define NM_FILE_GGUF_H

#include "tensor/dtype.h"

enum nm__gguf_type {
  NM__GGUF_U8, NM__GGUF_I8, NM__GGUF_U16, NM__GGUF_I16, NM__GGUF_U32, NM__GGUF_I32, NM__GGUF_F32,
  NM__GGUF_BOOL, NM__GGUF_STRING, NM__GGUF_ARRAY, NM__GGUF_U64, NM__GGUF_I64, NM__GGUF_F64
};

struct nm__str { const char *s; size_t n; };      /* bytes in the map, not terminated */

struct nm__gguf_kv {
  char *key;
  uint32_t type;                   /* enum nm__gguf_type */
  uint32_t elem_type;              /* of an array */
  uint64_t n;                      /* elements of an array; 1 for a scalar */
  const uint8_t *raw;              /* packed payload in the map (unaligned!) */
  struct nm__str *strings;         /* for string arrays: n pieces; else NULL */
};

struct nm__gguf_tensor {
  char *name;
  uint32_t type;                   /* enum nm__dtype; always one nm__dtype() knows */
  int n_dims;
  int64_t ne[4];                   /* fastest first; unused dims are 1 */
  uint64_t offset, bytes;          /* within the data section */
  const uint8_t *data;             /* NULL only if bytes == 0 */
};

struct nm__gguf {
  char *path;
  const char *format;              /* "GGUF v3", "safetensors" */
  struct nm__map *maps;            /* the files behind it; [0] is the one that was parsed */
  size_t n_maps;
  uint64_t alignment, data_start;
  size_t n_kv, n_tensors, cap_kv, cap_tensors;
  struct nm__gguf_kv *kv;
  struct nm__gguf_tensor *tensors;
  bool borrowed;                   /* maps[0] is the caller's (nm__gguf_parse) */
  char *no_tokenizer;              /* why a tokenizer that is there gave no keys; else NULL */
  bool hf_rows;                    /* rows of q and k in Hugging Face's order (model/hf.h) */
  void **own;                      /* memory that goes with it */
  size_t n_own;
  uint64_t made_bytes;             /* offsets given out so far, of one made in memory */
  uint32_t *slots;                 /* hash table of tensor names: index + 1, 0 is free */
  size_t n_slots;                  /* a power of two */
};

/* A piece of a split file opens all pieces as one (gguf_split.c). */
int nm__gguf_open(const char *path, struct nm__gguf **out, nm_err *err);
/* Parses bytes the caller keeps alive (tests, fuzzing). */
int nm__gguf_parse(const char *name, const void *bytes, size_t n, struct nm__gguf **out,
                   nm_err *err);
void nm__gguf_close(struct nm__gguf *g);
uint64_t nm__gguf_bytes(const struct nm__gguf *g);       /* of all files behind it */
void nm__gguf_drop(const struct nm__gguf *g);            /* pages go back to the system */
void nm__gguf_hash(const struct nm__gguf *g, char hex[33]);  /* one file: that of its bytes */

const struct nm__gguf_kv *nm__gguf_find(const struct nm__gguf *g, const char *key);  /* or NULL */
const struct nm__gguf_tensor *nm__gguf_tensor(const struct nm__gguf *g, const char *name);

/* Typed readers accept every integer (or float) width and range-check. A missing
 * key or a wrong type is NM_EFORMAT with a sentence naming file and key. */
int nm__gguf_uint(const struct nm__gguf *g, const char *key, uint64_t *out, nm_err *err);
int nm__gguf_float(const struct nm__gguf *g, const char *key, double *out, nm_err *err);
int nm__gguf_bool(const struct nm__gguf *g, const char *key, bool *out, nm_err *err);
int nm__gguf_string(const struct nm__gguf *g, const char *key, struct nm__str *out, nm_err *err);
/* Element i of a numeric array or, for i == 0, a scalar; false when out of range
 * or not numeric. */
bool nm__gguf_int_at(const struct nm__gguf_kv *kv, uint64_t i, int64_t *out);
bool nm__gguf_float_at(const struct nm__gguf_kv *kv, uint64_t i, double *out);
const char *nm__gguf_type_name(uint32_t type);
size_t nm__gguf_type_size(uint32_t type);                /* 0 for strings and arrays */
struct nm__str nm__gguf_text(const struct nm__gguf_kv *kv);  /* of a key of type string */
/* False when the type is not known, a row is not whole blocks or the size overflows. */
bool nm__gguf_tensor_bytes(uint32_t type, int n_dims, const int64_t *ne, uint64_t *out);

/* ---- made in memory (gguf_made.c) -------------------------------------- */

/* Files of another form (a Hugging Face directory, pieces of a split file) are shown as one GGUF,
 * so that what reads a model knows one form only. Everything given is copied but the data of
 * tensors, which lies in a map that was handed over or in memory from nm__gguf_own. A key or a
 * name given twice, or a row that is not whole blocks, is NM_EFORMAT. `format` is a literal. */
int nm__gguf_new(const char *path, const char *format, struct nm__gguf **out, nm_err *err);
int nm__gguf_take_map(struct nm__gguf *g, struct nm__map *m, nm_err *err);   /* *m is emptied */
void *nm__gguf_own(struct nm__gguf *g, size_t n, size_t size, nm_err *err);  /* zeroed; or NULL */
int nm__gguf_add_u32(struct nm__gguf *g, const char *key, uint32_t v, nm_err *err);
int nm__gguf_add_f32(struct nm__gguf *g, const char *key, float v, nm_err *err);
int nm__gguf_add_bool(struct nm__gguf *g, const char *key, bool v, nm_err *err);
int nm__gguf_add_string(struct nm__gguf *g, const char *key, const char *s, size_t n, nm_err *err);
int nm__gguf_add_strings(struct nm__gguf *g, const char *key, const struct nm__str *v, size_t n,
                         nm_err *err);
int nm__gguf_add_i32s(struct nm__gguf *g, const char *key, const int32_t *v, size_t n, nm_err *err);
int nm__gguf_add_f32s(struct nm__gguf *g, const char *key, const float *v, size_t n, nm_err *err);
/* Makes room for n names and enters those there are; enters the last one. For gguf_made.c. */
bool nm__gguf_index(struct nm__gguf *g, size_t n);
bool nm__gguf_index_last(struct nm__gguf *g);
void nm__gguf_forget_kv(struct nm__gguf *g, size_t first);      /* keys from there on */
int nm__gguf_add_kv(struct nm__gguf *g, const struct nm__gguf_kv *kv, nm_err *err);   /* a copy */
/* ne: fastest first. `data` must hold the bytes that type and sizes ask for. */
int nm__gguf_add_tensor(struct nm__gguf *g, const char *name, uint32_t type, int n_dims,
                        const int64_t *ne, const uint8_t *data, nm_err *err);

/* Whether g, as it was parsed, is one of several pieces; all of them, found beside it. */
bool nm__gguf_is_piece(const struct nm__gguf *g);
int nm__gguf_open_pieces(const struct nm__gguf *one, struct nm__gguf **out, nm_err *err);

/* ---- writing --------------------------------------------------------- */

/* Metadata and tensor infos first, then data, streamed in the order announced:
 *
 *   nm__gguf_writer_new(&w, err); nm__gguf_put_*(w, ...); nm__gguf_announce(w, ...);
 *   nm__gguf_begin(w, path, err); nm__gguf_data(w, bytes, n, err) per tensor (may be
 *   in pieces; padding is added at each tensor's end); nm__gguf_finish(w, err).
 * The put functions keep a sticky error that _begin reports. */
struct nm__gguf_writer;
int nm__gguf_writer_new(struct nm__gguf_writer **out, nm_err *err);
void nm__gguf_writer_free(struct nm__gguf_writer *w);      /* aborts an unfinished file */
void nm__gguf_put_u32(struct nm__gguf_writer *w, const char *key, uint32_t v);
void nm__gguf_put_i32(struct nm__gguf_writer *w, const char *key, int32_t v);
void nm__gguf_put_f32(struct nm__gguf_writer *w, const char *key, float v);
void nm__gguf_put_bool(struct nm__gguf_writer *w, const char *key, bool v);
void nm__gguf_put_string(struct nm__gguf_writer *w, const char *key, const char *v);
void nm__gguf_put_strings(struct nm__gguf_writer *w, const char *key, const char *const *v,
                          size_t n);
void nm__gguf_put_f32s(struct nm__gguf_writer *w, const char *key, const float *v, size_t n);
void nm__gguf_put_i32s(struct nm__gguf_writer *w, const char *key, const int32_t *v, size_t n);
void nm__gguf_put_kv(struct nm__gguf_writer *w, const struct nm__gguf_kv *kv);
void nm__gguf_announce(struct nm__gguf_writer *w, const char *name, uint32_t type, int n_dims,
                       const int64_t *ne);
int nm__gguf_begin(struct nm__gguf_writer *w, const char *path, nm_err *err);
int nm__gguf_data(struct nm__gguf_writer *w, const void *bytes, size_t n, nm_err *err);
int nm__gguf_finish(struct nm__gguf_writer *w, nm_err *err);

#endif
