/* safetensors.h - the safetensors container: reading from a map, writing.
 *
 *   | u64 length N | N bytes of JSON: name -> dtype, shape, data_offsets | data |
 *
 * Reading never copies data. The spans must tile the data section exactly, names may not
 * repeat, and every number is checked before it is used; memory taken is a small multiple
 * of the header's size. Nothing promises that data is aligned. Shapes stand as in the file,
 * slowest first (GGUF's `ne` is the reverse).
 *
 *   struct nm__st *s;
 *   if (nm__st_open("model.safetensors", &s, err)) return err->status;
 *   const struct nm__st_tensor *t = nm__st_find(s, "wte.weight");
 *   nm__st_close(s); */
#ifndef NM_FILE_SAFETENSORS_H
#define NM_FILE_SAFETENSORS_H

#include "tensor/dtype.h"

enum { NM__ST_DIMS_MAX = 8 };

struct nm__st_tensor {
  char *name;                      /* UTF-8, without zero bytes */
  const char *dtype;               /* "BF16", as the format spells it */
  int type;                        /* enum nm__dtype; -1 for one that noema has no type for */
  int n_dims;                      /* 0: a single value */
  int64_t shape[NM__ST_DIMS_MAX];
  uint64_t begin, bytes;           /* within the data section */
  const uint8_t *data;             /* NULL only if bytes == 0 */
};

struct nm__st {
  char *path;
  struct nm__map map;
  bool borrowed;                   /* the map is the caller's */
  size_t n;
  struct nm__st_tensor *t;         /* in the order of their data */
  size_t n_meta;
  struct nm__st_meta { char *key, *value; } *meta;   /* __metadata__ */
  struct nm__st_tensor **by_name;  /* sorted */
};

int nm__st_open(const char *path, struct nm__st **out, nm_err *err);
/* Parses bytes the caller keeps alive (tests, fuzzing). */
int nm__st_parse(const char *name, const void *bytes, size_t n, struct nm__st **out, nm_err *err);
void nm__st_close(struct nm__st *s);
const struct nm__st_tensor *nm__st_find(const struct nm__st *s, const char *name);   /* or NULL */
/* How safetensors spells an element type, and its bits; NULL for one it does not have. */
const char *nm__st_dtype(uint32_t type, int *bits);

/* ---- writing --------------------------------------------------------- */

/* Everything is announced first; data follows, streamed, in the order of the file, which is
 * by size of an element, the widest first, and then by name:
 *
 *   nm__st_writer_new(&w, err); nm__st_put(w, "format", "pt"); nm__st_announce(w, ...);
 *   nm__st_begin(w, path, err);
 *   while ((i = nm__st_next(w)) >= 0) nm__st_data(w, bytes of the i-th announced, n, err);
 *   nm__st_finish(w, err);
 *
 * The data of a tensor may come in pieces; nm__st_next stays at it until it is whole. Types are
 * those that safetensors has: F64, F32, F16, BF16, I64, I32, I16, I8. The first failure of put or
 * announce is kept and told by nm__st_begin. */
struct nm__st_writer;
int nm__st_writer_new(struct nm__st_writer **out, nm_err *err);
void nm__st_writer_free(struct nm__st_writer *w);          /* aborts an unfinished file */
void nm__st_put(struct nm__st_writer *w, const char *key, const char *value);
/* shape: slowest first. */
void nm__st_announce(struct nm__st_writer *w, const char *name, uint32_t type, int n_dims,
                     const int64_t *shape);
int nm__st_begin(struct nm__st_writer *w, const char *path, nm_err *err);
int64_t nm__st_next(const struct nm__st_writer *w);        /* -1: everything has its data */
int nm__st_data(struct nm__st_writer *w, const void *bytes, size_t n, nm_err *err);
int nm__st_finish(struct nm__st_writer *w, nm_err *err);

#endif
