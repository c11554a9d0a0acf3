/* hf.h - Hugging Face model directories, and the tables that lead from them to GGUF and back.
 *
 * A directory holds config.json and weights, in one file (model.safetensors) or in several
 * with an index. nm__hf_map shows it as a GGUF made in memory: keys made from config.json,
 * tensors under GGUF's names, their data where it lies in the mapped files. Own memory is
 * taken only where GGUF's numbers are others: the small norms of gemma (one is added), the
 * matrices of gpt2 (transposed) and the fused q, k, v of gptneox (rows in another order).
 *
 * Rows of q and k are not moved: g->hf_rows says that they lie in Hugging Face's order, and
 * nm__hf_pending says of a tensor what is still to be done before a GGUF file may hold it.
 * Experts keep a tensor each, blk.N.ffn_gate.E.weight, where GGUF files stack them as
 * blk.N.ffn_gate_exps.weight.
 *
 * Writing a GGUF from any model that was opened (`convert`):
 *   nm__model_map(path, &g, err);
 *   keys: all of g->kv; tensors: for each t,
 *     change = nm__hf_pending(g, t, &n_head);
 *     row i of the file is row nm__hf_row(change, true, n_head, rows, i) of t
 *
 * Writing a directory from a GGUF:
 *   f = nm__hf_family_of(g); nm__hf_config(g, &json, err);
 *   for each t: nm__hf_from_gguf(f, t->name, name, sizeof name, &change);
 *     n_head = nm__hf_n_head(g, t->name);
 *     nm__hf_apply(change, false, n_head, t->type, rows, cols, t->data, out);
 *   where g->hf_rows, NM__HF_ROTARY is already done and NM__HF_SAME takes its place. */
#ifndef NM_MODEL_HF_H
#define NM_MODEL_HF_H

#include <jansson.h>
#include "file/gguf.h"
#include "file/safetensors.h"

/* What tells GGUF's numbers of a tensor from those of Hugging Face. */
enum nm__hf_change {
  NM__HF_SAME,
  NM__HF_ROTARY,                   /* rows of a head: GGUF 2j + s is HF s * hd/2 + j (s 0 or 1) */
  NM__HF_PLUS_ONE,                 /* GGUF = HF + 1; always F32 in GGUF */
  NM__HF_TRANSPOSE,                /* HF stores [inputs, outputs] */
  NM__HF_QKV                       /* rows: GGUF [q,k,v][head][hd], HF [head][q,k,v][hd] */
};

/* Names without their .weight or .bias; '#' stands for a number (block, then expert). */
struct nm__hf_name { const char *hf, *gguf; enum nm__hf_change change; };

struct nm__hf_family {
  const char *model_type, *arch, *class_name;      /* "mistral", "llama", "MistralForCausalLM" */
  const char *prefix;              /* what HF puts before all names but the head's: "model." */
  const char *head;                /* HF's name of the output matrix, without .weight; or NULL */
  const struct nm__hf_name *names; /* ends with a NULL name */
  const char *defaults;            /* of HF's config class, as JSON */
};

const struct nm__hf_family *nm__hf_family_find(const char *model_type);      /* or NULL */
/* By general.architecture and, for llama, whether there are experts. */
const struct nm__hf_family *nm__hf_family_of(const struct nm__gguf *g);      /* or NULL */
void nm__hf_family_names(struct nm__buf *b);                                 /* "llama, ..." */

/* Full names with suffix; false when the family knows no such tensor. HF names may carry any of
 * the known prefixes. Written names have the family's. */
bool nm__hf_to_gguf(const struct nm__hf_family *f, const char *hf, char out[64],
                    enum nm__hf_change *change);
bool nm__hf_from_gguf(const struct nm__hf_family *f, const char *gguf, char *out, size_t n,
                      enum nm__hf_change *change);
/* Stored buffers and heads of other uses, which a forward pass does not read. */
bool nm__hf_ignored(const struct nm__hf_family *f, const char *hf);

/* Heads among the rows of a tensor by its GGUF name: those of k and v where it is one of
 * these, else all; for NM__HF_ROTARY and NM__HF_QKV. */
int nm__hf_n_head(const struct nm__gguf *g, const char *gguf_name);
/* What is still to be done to t of a made GGUF before a file may hold it. */
enum nm__hf_change nm__hf_pending(const struct nm__gguf *g, const struct nm__gguf_tensor *t,
                                  int *n_head);
/* The bytes of t in the order of a GGUF file: t->data, or a copy in *made, which the caller frees.
 * What goes by t->name, such as an adapter's rows, may be given as a tensor of that name. NULL when
 * memory is short. */
const uint8_t *nm__hf_file_order(const struct nm__gguf *g, const struct nm__gguf_tensor *t,
                                 uint8_t **made, nm_err *err);
/* "blk.3.ffn_up.5.weight" is expert 5 of "blk.3.ffn_up_exps.weight"; `front` is what stands before
 * the 5. -1 for other names (convert_gguf.c). */
int nm__expert_of(const char *name, char stacked[80], char front[80]);
/* The row of the source that becomes row i of the result; i itself where rows stay. A bias is a
 * matrix of rows of one element. */
int64_t nm__hf_row(enum nm__hf_change c, bool to_gguf, int n_head, int64_t rows, int64_t i);
/* A whole tensor: `rows` and `cols` are those of the source, `out` has room for the result
 * (NM__HF_PLUS_ONE to GGUF: F32 whatever the type; back: the type as given, F32, F16 or BF16). */
void nm__hf_apply(enum nm__hf_change c, bool to_gguf, int n_head, uint32_t type, int64_t rows,
                  int64_t cols, const uint8_t *in, uint8_t *out);

/* ---- opening ----------------------------------------------------------- */

/* A directory, or a file in one that stands for it: config.json, model*.safetensors and
 * model.safetensors.index.json. */
int nm__hf_map(const char *path, struct nm__gguf **out, nm_err *err);
/* Whether path names such a model: a folder, or one of these files. */
bool nm__hf_is(const char *path);
/* Any model file: a GGUF, one of its pieces, a directory, a SentencePiece vocabulary, or DIR@STEP
 * (series.h). */
int nm__model_map(const char *path, struct nm__gguf **out, nm_err *err);

/* What a config.json says beside the keys it becomes. */
struct nm__hf_facts { const struct nm__hf_family *f; bool tied; };
/* Adds to g the keys of a config.json, and the tensors of rope factors where it has some. What
 * it asks for and noema's row of that architecture does not do is refused by the key's name. */
int nm__hf_keys(const char *name, const char *text, size_t n, struct nm__gguf *g,
                struct nm__hf_facts *out, nm_err *err);
/* The config.json of a GGUF: sizes, rope, caps and windows under HF's names. */
int nm__hf_config(const struct nm__gguf *g, json_t **out, nm_err *err);

#endif
