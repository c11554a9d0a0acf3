/* model.h - a model as noema sees it: a row of facts, sizes, and tensors that
 * lie in the mapped file. load.c fills it, decoder.c runs it, run.c drives it. */
#ifndef NM_MODEL_H
#define NM_MODEL_H

#include "core/json.h"
#include "file/gguf.h"
#include "tensor/moe.h"
#include "text/tokenizer.h"

/* ---- the architecture table (arch.c) ----------------------------------- */

enum nm__qk_norm { NM__QK_PLAIN, NM__QK_NORM_HEAD, NM__QK_NORM_WHOLE };
enum nm__experts { NM__EXPERTS_NONE, NM__EXPERTS_MAYBE, NM__EXPERTS_ALWAYS };
enum { NM__NEVER = 1 << 30 };      /* as global_every: all blocks are windowed */

/* A new architecture is a row. */
struct nm__arch {
  const char *name;                /* general.architecture */
  bool layernorm;                  /* else RMSNorm */
  bool learned_pos;                /* position_embd added to the embedding; no rotary */
  bool permuted;                   /* GGUF files store q and k rows in neighbouring-pair order */
  bool fused_qkv;                  /* attn_qkv holds the rows q, k, v */
  bool gated;                      /* mlp: down(act(gate x) * up x); else down(act(up x)) */
  bool qkv_bias, all_bias;         /* biases that must be there; others are read if present */
  bool fused_gate;                 /* ffn_up holds the rows gate, up */
  bool no_pre_norm;                /* attention and MLP read the stream itself */
  bool post_norm;                  /* what they give is normalised before it is added */
  enum nm__qk_norm qk_norm;        /* RMSNorm of q and k before the rotation */
  bool embd_scale;                 /* embedding times sqrt(D) */
  bool soft_caps;                  /* carries out the keys of attention and final soft caps */
  int global_every;                /* block i has a window unless i % n == n - 1; 0: none has */
  bool local_rope;                 /* windowed blocks: a base of their own, no scaling */
  int wide_scale_at;               /* with this many blocks scores are divided by sqrt(D / H) */
  bool may_be_parallel;            /* x + A(x) + F(x) unless a key says that it is not */
  bool encoder;                    /* all positions see each other; no final norm, no head */
  bool embd_norm;                  /* type row 0 is added to the embedding, then a norm */
  bool sum_norm;                   /* the stream is normalised: x = N(x + A(x)), N(x + F(x)) */
  bool one_norm;                   /* attn_norm feeds attention and MLP; with a second norm,
                                      attn_norm_2, that one feeds attention */
  enum nm__experts experts;
  bool keep_top_k;                 /* weights of the chosen experts are not made to sum to 1 */
  bool shared_expert;              /* one expert more that all go through, gated by a sigmoid */
  enum nm__act act;
  const char *eps_key;             /* after "ARCH." */
};
const struct nm__arch *nm__arch_find(const char *name, size_t n);
/* "llama, qwen2, ..." */
void nm__arch_names(struct nm__buf *b);

/* ---- the loaded model (load.c) ------------------------------------------ */

struct nm__layer {
  struct nm__w attn_norm, attn_norm_b, q, k, v, q_b, k_b, v_b, o, o_b;
  struct nm__w mlp_norm, mlp_norm_b, gate, gate_b, up, up_b, down, down_b;
  struct nm__w q_norm, k_norm, attn_post, mlp_post;
  struct nm__w attn_sum, attn_sum_b, mlp_sum, mlp_sum_b;
  struct nm__w router, *expert[3]; /* gate, up, down: [moe.n] each; they lie in one block */
  struct nm__w shared[3], shared_gate;
  int window;                      /* keys a query sees, its own included; 0: all */
  int rope;                        /* which of the model's rotations */
};

/* A mixture of experts in every block; n 0: there is none. */
struct nm__moe { int n, used, F, shared_F; bool renormalise; };

struct nm_model {
  char *path;
  struct nm__gguf *g;
  struct nm__tok *tok;             /* NULL: the file has no tokenizer */
  const struct nm__arch *arch;     /* NULL: vocabulary only */
  int L, D, H, K, hd, F, V, n_ctx, n_rot;
  float eps, score_scale, attn_cap, final_cap;   /* caps: 0 for none */
  bool parallel, causal;           /* causal: a position sees itself and those before it */
  bool permuted;                   /* rows of q and k lie in neighbouring-pair order */
  bool one_norm;                   /* one norm feeds attention and MLP: blocks have no mlp_norm */
  struct nm__moe moe;
  struct nm__w embd, pos, type_embd, embd_norm, embd_norm_b, out_norm, out_norm_b;
  struct nm__w output;             /* without data: there is no vocabulary head */
  bool tied;
  enum nm_pooling pooling;         /* NM_POOL_DEFAULT: the file does not say */
  struct nm__layer *layer;
  int n_rope;                      /* rotations in use: 2 where windowed blocks have their own */
  int long_after;                  /* longrope: a larger context takes row 1 of theta; 0: none */
  double *theta;                   /* [2][n_rot / 2] angles per position, scaling applied */
  double rope_m[2];                /* cos and sin are multiplied by this (yarn) */
  char rope_text[160], types[400], name[128], warning[400], hash[33];
  uint64_t n_params, weight_bytes;
  nm_adapters *adapters;           /* what was opened is an adapter, all else its base's; or NULL */
};

/* A model over a container made in memory, which it then owns; also after a failure. */
int nm__model_from(struct nm__gguf *g, nm_model **out, nm_err *err);

/* rope.c: fills theta, rope_m, rope_text from the metadata. */
int nm__rope_load(nm_model *m, nm_err *err);
/* table[T][n_rot/2][cos, sin] for the spans' positions, by rotation `which` (below n_rope) in
 * a context of n_ctx. */
void nm__rope_table(const nm_model *m, int which, int n_ctx, const struct nm__span *spans,
                    int n_spans, float *table);
/* Names the first tensor that holds a value that is not finite; false if none does. */
bool nm__find_bad_weight(const nm_model *m, char *out, size_t n);

/* ---- sites (sites.c) ------------------------------------------------------ */

enum nm__site_id {
  NM__S_EMBED_RAW, NM__S_EMBED, NM__S_RESID_PRE, NM__S_ATTN_NORM, NM__S_Q_RAW, NM__S_K_RAW,
  NM__S_Q, NM__S_K, NM__S_V, NM__S_SCORES, NM__S_PATTERN, NM__S_HEAD, NM__S_ATTN_RAW,
  NM__S_ATTN_OUT,
  NM__S_RESID_MID_RAW, NM__S_RESID_MID, NM__S_MLP_NORM, NM__S_GATE, NM__S_UP, NM__S_ACT,
  NM__S_ROUTER, NM__S_MOE_WEIGHTS, NM__S_MOE_GATE, NM__S_MOE_UP, NM__S_MOE_ACT,
  NM__S_SHARED_WEIGHT, NM__S_SHARED_GATE, NM__S_SHARED_UP, NM__S_SHARED_ACT, NM__S_SHARED_OUT,
  NM__S_MLP_RAW, NM__S_MLP_OUT, NM__S_RESID_POST_RAW, NM__S_RESID_POST,
  NM__S_FINAL_NORM, NM__S_LOGITS, NM__N_SITES
};

/* One selected site. index_n 0: the whole row; else columns index..index+index_n of `unit`
 * (heads or elements). */
struct nm__sel { int site, layer, index, index_n; };
struct nm__sels { struct nm__sel *v; int n; };
bool nm__glob(const char *pattern, const char *s);       /* '*' any run, '?' one character */
int nm__sites_select(const nm_model *m, const char *glob, struct nm__sels *out, nm_err *err);
const char *nm__site_prefix(const nm_model *m);      /* "enc." or "" */
void nm__sel_name(const nm_model *m, struct nm__sel s, char out[64]);
/* Width of the selection in floats for a sequence of n_keys positions. */
int64_t nm__sel_width(const nm_model *m, struct nm__sel s, int n_keys);
/* Columns [begin, end) that the selection covers in the whole row. */
void nm__sel_columns(const nm_model *m, struct nm__sel s, int n_keys, int64_t *begin, int64_t *end);
bool nm__site_exists(const nm_model *m, int site, const char **why_not);
bool nm__site_per_key(int site);         /* attention scores and pattern: [H, keys] */

/* ---- positions (at.c) ------------------------------------------------------- */

struct nm__at_item { int kind; int a, b; char *text; };
struct nm__at { struct nm__at_item *v; int n; };
int nm__at_parse(const char *s, struct nm__at *out, nm_err *err);
void nm__at_done(struct nm__at *at);
/* Positions of one sequence in the order written (duplicates kept); fails when a position lies
 * outside the sequence or a span's text is not in it. *out is freed by the caller. */
int nm__at_resolve(const struct nm__at *at, const nm_model *m, const nm_seq *seq, int **out, int *n,
                   nm_err *err);
/* For a text that grows: sets mask[p] for the positions p in from .. n-1 of a prompt of n tokens.
 * Positions behind it are no error, they may be generated later. */
int nm__at_prompt(const struct nm__at *at, const nm_model *m, const nm_seq *prompt, int from,
                  uint8_t *mask, nm_err *err);
/* Does a token that is generated at position pos belong? */
bool nm__at_generated(const struct nm__at *at, int pos);
/* True when every sequence gives exactly one position. */
bool nm__at_single(const struct nm__at *at);

/* ---- edits (edit.c, edit_read.c, directions.c) -------------------------------- */

/* Vectors out of a file: .npy, safetensors, or a control vector in GGUF, told by content. */
struct nm__dirs {
  float *v;                        /* [rows, pos, n] */
  int64_t rows, pos, n;
  uint8_t *has;                    /* of a control vector: row K is block K's, where has[K] */
};
/* tensor: the name of one in a safetensors file; NULL: the only one there is. Values are finite. */
int nm__dirs_read(const char *path, const char *tensor, struct nm__dirs *out, nm_err *err);
int nm__dirs_parse(const char *name, const void *bytes, size_t n, const char *tensor,
                   struct nm__dirs *out, nm_err *err);
void nm__dirs_done(struct nm__dirs *d);
/* A control vector as llama.cpp reads it: direction.K of every row K >= 1 with has[K]. */
int nm__dirs_write_gguf(const char *path, const char *model_arch, const struct nm__dirs *d,
                        nm_err *err);

enum nm__edit_op { NM__EDIT_ADD, NM__EDIT_ZERO, NM__EDIT_SCALE, NM__EDIT_PROJECT_OUT,
                   NM__EDIT_REPLACE, NM__EDIT_MEAN, NM__EDIT_CLAMP, NM__EDIT_UNIFORM,
                   NM__N_EDIT_OPS };
/* Factors of an edit's scale by the index of the generated token; n 0: always 1. */
struct nm__factors { float *v; int n; };
struct nm__edit {
  char *site, *at_text, *what;
  struct nm__at at;
  enum nm__edit_op op;
  float scale, low, high;          /* low, high: of clamp */
  struct nm__dirs vec;             /* one row, or one per selected site, or per block (has);
                                      several positions: that of the text */
  struct nm__factors schedule;
  uint64_t touched;
};
struct nm__weight_edit;            /* delta.h */
struct nm_edits {
  struct nm__edit *v; int n;       /* of activations */
  struct nm__weight_edit *w; int n_w;
};
/* How many are of activations. */
static inline int nm__edits_acts(const nm_edits *e) { return e ? e->n : 0; }
/* Appends everything of the edits that can change a bit, for cache keys. */
void nm__edits_key(const nm_edits *e, struct nm__buf *b);
/* Room for one more, zeroed, at the end; NULL: no memory. */
struct nm__edit *nm__edits_push(nm_edits *e);
/* Puts together what the edit is called; false: no memory. */
bool nm__edit_name(struct nm__edit *e, const char *op);
/* The factor at a position: generated -1 is the prompt, which has the first one. */
float nm__factor_at(const struct nm__factors *s, int generated);
/* Where an edit meets a row: which of its selected sites, the position in the text, and the index
 * of the generated token (-1: of a prompt). */
struct nm__edit_at { int row, pos, generated; };
/* Applies to the selected columns x[n]; false when it left them alone (strength 0). */
bool nm__edit_apply(const struct nm__edit *e, struct nm__edit_at at, const struct nm__kern *k,
                    float *x, int64_t n);

/* ---- the engine (run.c) ---------------------------------------------------------- */

const nm_model *nm__engine_model(const nm_engine *e);
int nm__engine_ctx(const nm_engine *e);
/* For config.json of a run: model, kernels, threads, context, form of GELU, adapters. */
json_t *nm__engine_record(const nm_engine *e);
const char *nm__engine_gelu(const nm_engine *e);         /* "tanh", "erf"; "": the family's */
struct nm__pool *nm__engine_pool(const nm_engine *e);
/* Those it was given, or NULL; the model may have its own. */
const nm_adapters *nm__engine_adapters(const nm_engine *e);
/* All of them, for a forward; n 0: none. */
const struct nm__lora *nm__engine_lora(const nm_engine *e, int *n);
/* Appends what options of the engine can change a bit, for cache keys; nothing when none does. */
void nm__engine_key(const nm_engine *e, struct nm__buf *b);
const struct nm__kern *nm__engine_kern(const nm_engine *e);

/* ---- sessions (session.c) ----------------------------------------------------------- */

const nm_model *nm__session_model(const nm_session *s);

/* nm_run one forward at a time, so that two models can be read side by side: a forward takes at
 * most `chunk` positions (with batch 0). r must live until the end. Close also after a failure. */
struct nm__run;
int nm__run_open(nm_engine *e, const nm_request *r, int chunk, int batch, struct nm__run **out,
                 nm_err *err);
int nm__run_step(struct nm__run *R, bool *more);
void nm__run_close(struct nm__run *R);

/* ---- adapters ------------------------------------------------------------------ */

/* y = W x + scale B (A x), beside the weight whose bytes begin at `data`; B and A are F32 [out, r]
 * and [r, in], their rows in the order of the file. Hu et al., LoRA (arXiv 2106.09685). Several
 * may stand beside one weight; they are added in the order of the list. */
struct nm__lora {
  const uint8_t *data;
  struct nm__w a, b;
  float scale;
  bool lookup;                     /* beside rows that are looked up: A is [rows, r], B [cols, r],
                                      y = W[id] + scale B A[id] */
  struct nm__w *expert[2];         /* of a mixture, whose expert 0 begins at `data`: A and B of each
                                      expert; one without data is left as it is. NULL: no mixture */
};

/* ---- the forward (decoder.c) ------------------------------------------------------ */

enum nm__gelu { NM__GELU_OWN, NM__GELU_TANH, NM__GELU_ERF };
/* The activation function of the MLP: the family's, its GELU in the form the user chose. */
enum nm__act nm__act_of(const nm_model *m, enum nm__gelu gelu);

/* What a forward does at a site: called with the tensor and, when rows were gathered, the map
 * from its rows to rows of the batch (NULL: identity). With a route the tensor holds a row for
 * every pair of position and expert, and the site's row of a position is as wide as all experts. */
struct nm__visitor {
  bool (*wants)(void *arg, int site, int layer);
  void (*visit)(void *arg, int site, int layer, struct nm__t *t, const int32_t *rows,
                const struct nm__route *route);
  /* One row of scores or pattern: the keys first..n-1 it sees lie in v[first..n-1]. */
  void (*visit_row)(void *arg, int site, int layer, int row, int head, float *v, int first, int n);
  void *arg;
};

struct nm__forward {
  const nm_model *m;
  struct nm__ops *ops;
  struct nm__kv *kv;
  const struct nm__span *spans;
  int n_spans, T, max_keys;
  int n_ctx;                       /* of the engine: rotations may follow it, never the text */
  const int32_t *ids;              /* [T] */
  const struct nm__visitor *vis;
  enum nm__gelu gelu;
  const struct nm__lora *lora;     /* sorted by data */
  int n_lora;
  int last_layer;                  /* run blocks 0..last_layer */
  bool stop_before_mlp;            /* in last_layer nothing after mlp_norm is wanted */
  const int32_t *head_rows;        /* rows that go through the final norm (and the head) */
  int n_head_rows;
  bool head;                       /* also the vocabulary projection */
  /* Embeddings from outside: row inject_at[i] of the batch is row i of inject [n_inject, D],
   * which may have a gradient; its token id is not looked at. */
  struct nm__t inject;
  const int32_t *inject_at;
  int n_inject;
  const float *start;              /* [T, D] before block first_layer, in the place of the ids; */
  int first_layer;                 /* NULL, 0: from the ids. Not with a tape */
  bool again;                      /* with a tape: blocks are computed again on the way back, and
                                      this struct must live until then */
};
int nm__forward(struct nm__forward *f);
/* Only the end of it, on rows head_rows of a stream x from elsewhere. */
int nm__forward_end(struct nm__forward *f, struct nm__t x);

/* ---- the model's end on any rows (unembed.c) ------------------------------------- */

/* Final norm, head and cap on rows x[n, D] as if they were the stream after the last block; the
 * same bits as the model's logits. `rows` gets logits[n, V] of rows first.. (at most 32 at once)
 * and may return a status that ends it. NM_EFORMAT for an encoder, which has no head. */
typedef int nm__unembed_fn(void *arg, int64_t first, int64_t n, const float *logits, nm_err *err);
int nm__unembed(nm_engine *e, const float *x, int64_t n, nm__unembed_fn *rows, void *arg,
                nm_err *err);

/* What every forward of an engine has in common; the rest is zero. */
struct nm__forward nm__engine_forward(const nm_engine *e);
/* Ops with the engine's kernels, threads and precision, in a mode; without an arena. */
struct nm__ops nm__engine_ops(const nm_engine *e, enum nm__mode mode);

#endif
