/* adapter.h - low-rank adapters (LoRA, Hu et al., arXiv 2106.09685) in memory, read from the files
 * of llama.cpp (GGUF) and of PEFT (a folder), and written to both. Inside src/model and learn.
 *
 * In memory an adapter is a list of parts, one a matrix, named as in a GGUF file of the model and
 * with the rows of B in the order of such a file. adapter.c puts parts beside a model's weights. */
#ifndef NM_MODEL_ADAPTER_H
#define NM_MODEL_ADAPTER_H

#include "file/safetensors.h"
#include "model/delta.h"

struct nm__adapter_part {
  char name[160];                  /* "blk.3.attn_q.weight"; of experts that of their stack */
  int expert;                      /* -1: the tensor is one matrix */
  bool lookup;                     /* of token_embd: its rows are looked up */
  int64_t rank, rows, cols;        /* of the matrix: outputs, inputs; vocabulary, width */
  float *a, *b;                    /* [rank, cols], [rows, rank]; lookup: [rows, rank],
                                      [cols, rank]. W += scale B A */
  float scale;                     /* alpha / rank */
};
struct nm__adapter {
  char *path;
  const char *form;                /* "GGUF", "PEFT" */
  char arch[40];                   /* general.architecture; "" where the form does not say */
  struct nm__adapter_part *part;
  size_t n, cap;
};
void nm__adapter_done(struct nm__adapter *a);
/* A new part with memory for its matrices; NULL with a sentence. */
struct nm__adapter_part *nm__adapter_add(struct nm__adapter *a, const char *name, int expert,
                                         bool lookup, int64_t rank, int64_t rows, int64_t cols,
                                         nm_err *err);
/* Sizes of a part's matrices in rows and columns, as stored in memory. */
void nm__adapter_sizes(const struct nm__adapter_part *p, int64_t a[2], int64_t b[2]);
/* All values are finite, and there is a part. */
int nm__adapter_check(const struct nm__adapter *a, nm_err *err);
void nm__adapter_hash(const struct nm__adapter *a, char hex[33]);

/* Either form by what lies there. base: the model that PEFT's names and rows are translated for;
 * NULL: they stay. */
int nm__adapter_read(const char *path, const struct nm__gguf *base, struct nm__adapter *out,
                     nm_err *err);

/* ---- adapter_gguf.c ----------------------------------------------------- */

bool nm__adapter_is(const struct nm__gguf *g);           /* general.type is adapter */
int nm__adapter_from_gguf(const struct nm__gguf *g, struct nm__adapter *out, nm_err *err);
int nm__adapter_write_gguf(const struct nm__adapter *a, const char *arch, int n_expert,
                           const char *path, nm_err *err);

/* ---- adapter_peft.c ----------------------------------------------------- */

bool nm__adapter_is_peft(const char *path);
int nm__adapter_from_peft(const char *path, const char *json, size_t n, const struct nm__st *s,
                          const struct nm__gguf *base, struct nm__adapter *out, nm_err *err);
int nm__adapter_open_peft(const char *path, const struct nm__gguf *base, struct nm__adapter *out,
                          nm_err *err);
/* Into the folder `dir`, for a base model of g's family. */
int nm__adapter_write_peft(const struct nm__adapter *a, const struct nm__gguf *g,
                           const char *base_path, const char *dir, nm_err *err);

/* ---- adapter.c ---------------------------------------------------------- */

struct nm__adapter_used { struct nm__adapter a; float scale; char *what; char hash[33]; };
struct nm_adapters {
  const nm_model *m;
  struct nm__adapter_used *v;
  int n;
  struct nm__deltas d;             /* of all whose scale is not 0 */
};
/* For the record of a run: what stands beside the engine's weights, the model's own first. */
json_t *nm__adapters_record(const nm_engine *e);
void nm__adapters_key(const nm_adapters *a, struct nm__buf *b);

/* ---- adapter_base.c: adapters that name their model ------------------------ */

#define NM__BASE_PATH "noema.base.path"
#define NM__BASE_HASH "noema.base.hash"
/* Keys for a file of an adapter: where its model lies, and its hash. */
int nm__adapter_put_base(struct nm__gguf *to, nm_model *base, nm_err *err);
/* g, an adapter, as a model: its base with the adapter beside it. Owns g from now on, also after a
 * failure. */
int nm__adapter_model(struct nm__gguf *g, nm_model **out, nm_err *err);

#endif
