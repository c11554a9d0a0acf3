/* noema.h - the public face of noema, from simple to full.
 *
 * noema opens a language model a person owns (a GGUF file or a Hugging Face directory),
 * runs it on a plain CPU with the same bits every time, reads and edits any of its
 * intermediates, and shows at which layer a concept becomes readable. The command line is
 * written on this header alone; whatever it does, a program can do.
 *
 *   nm_err err;
 *   nm_model *m;
 *   if (nm_model_open("model.gguf", &m, &err)) return fail(err.text);
 *   nm_engine *e;
 *   if (nm_engine_new(m, &(nm_engine_opts){.threads = 2}, &e, &err)) ...
 *   int32_t *ids; size_t n;
 *   nm_tokenize(m, "Once upon a time", 16, 0, &ids, &n, &err);
 *   nm_seq seq = {ids, n};
 *   nm_tap tap = {"blk.*.resid_post", "last"};
 *   nm_run(e, &(nm_request){.seqs = &seq, .n_seqs = 1, .taps = &tap, .n_taps = 1,
 *                           .row = print_row}, &err);
 *   nm_session *s;                                    // and it goes on:
 *   nm_session_new(e, NULL, &s, &err);
 *   nm_session_append(s, 0, ids, n, &err);
 *   nm_generated g;
 *   nm_generate(s, &(nm_generate_opts){.n_predict = 50}, &g, &err);
 *   puts(g.text);
 *   nm_generated_free(&g, 1); nm_session_free(s);
 *   nm_free(ids); nm_engine_free(e); nm_model_close(m);
 *
 * Ownership: *_open, *_new and *_load give the caller an object; the matching *_close or *_free
 *   releases it and accepts NULL. Memory returned through a pointer argument is released with
 *   nm_free. Strings inside objects live as long as the object. What is given to a function stays
 *   the caller's; an object made from another (an engine of a model) must be released before it.
 * Errors: functions return 0 or a negative nm_status, and put one sentence into the
 *   caller's nm_err (NULL is allowed): what was attempted, on what, what was found.
 * Threads: nothing here prints, exits, reads the environment or keeps global state that a result
 *   depends on. Functions that take no object may be called from any thread at any time; two calls
 *   that write the same file or folder are the caller's to keep apart.
 *
 *     object       made by              released by         who may use it
 *     nm_model     nm_model_open        nm_model_close      any number of threads: read-only
 *     nm_adapters  nm_adapters_load     nm_adapters_free    any number of threads: read-only
 *     nm_world     nm_world_open        nm_world_close      any number of threads: read-only
 *     nm_probe     nm_probe_load        nm_probe_free       any number of threads: read-only
 *     nm_engine    nm_engine_new        nm_engine_free      one thread at a time; its own helpers
 *                                                           do the work, results never depend on
 *                                                           how many. Several engines of one
 *                                                           model may run at once
 *     nm_session   nm_session_new       nm_session_free     the thread of its engine
 *     nm_meter     nm_meter_new         nm_meter_free       one thread at a time
 *     nm_edits     nm_edits_load        nm_edits_free       one run at a time: a run counts in it
 *                                                           what it touched
 *     results      nm_embed, nm_depth,  nm_*_free           plain data, as any struct in C
 *     (structs)    nm_train, ...
 *
 *   Callbacks (row, done, step, progress) come on the thread that made the call, one at a time.
 * Shape letters: B batch, T positions, D model, H heads, K kv heads, F mlp, V vocab,
 *   L layers. */
#ifndef NOEMA_H
#define NOEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NM_VERSION "0.1.0"

/* ---- errors ---------------------------------------------------------- */

/* name, value, exit code of the command line, meaning */
#define NM_STATUS_LIST(X) \
  X(NM_OK,            0, 0,   "ok") \
  X(NM_EFAIL,        -1, 1,   "failed") \
  X(NM_EUSAGE,       -2, 2,   "wrong use") \
  X(NM_EFORMAT,      -3, 3,   "bad input file") \
  X(NM_EMEMORY,      -4, 4,   "not enough memory") \
  X(NM_ECHECK,       -5, 5,   "ran, but a stated check failed") \
  X(NM_EUNSURE,      -6, 6,   "ran and cannot conclude") \
  X(NM_EINTR,        -7, 130, "interrupted")
enum nm_status {
#define X(name, value, exit_code, text) name = value,
  NM_STATUS_LIST(X)
#undef X
};

typedef struct nm_err { int status; char text[640]; } nm_err;
int nm_exit_code(int status);
/* "jansson 2.14, PCRE2 10.42, ...": the libraries at work. */
void nm_libraries(char out[256]);
void nm_free(void *p);

/* Called now and then during long work; returning nonzero asks to stop: what is
 * finished is kept, and the call returns NM_EINTR. */
typedef struct nm_progress {
  int (*fn)(void *arg, const char *what, double done, double total);
  void *arg;
} nm_progress;

/* ---- a model --------------------------------------------------------- */

/* A model's files, mapped read-only; weights are computed on where they lie. */
typedef struct nm_model nm_model;

/* How the vectors of a text's tokens become one (see nm_embed). Files mark rerankers with
 * NM_POOL_RANK; it is no way to pool. */
enum nm_pooling { NM_POOL_DEFAULT, NM_POOL_NONE, NM_POOL_MEAN, NM_POOL_CLS, NM_POOL_LAST,
                  NM_POOL_RANK };
/* "default", "none", "mean", "cls", "last", "rank"; and back, false when not known. */
const char *nm_pooling_name(enum nm_pooling p);
bool nm_pooling_by_name(const char *name, enum nm_pooling *out);

/* path: a GGUF file or one of its pieces, a Hugging Face directory, or config.json,
 * model.safetensors or the index in one. NM_EFORMAT when it is not valid (the sentence names
 * place and finding) or holds no model noema can run. */
int nm_model_open(const char *path, nm_model **out, nm_err *err);
void nm_model_close(nm_model *m);

typedef struct nm_model_info {
  const char *path, *name, *arch;  /* general.name may be "" */
  int L, D, H, K, head_dim, F, V;
  int n_ctx;                       /* context length the model was made for */
  uint64_t n_params, weight_bytes, file_bytes;
  char types[400];                 /* "Q5_0 132, Q8_0 13, F32 121": tensors per stored type */
  char rope[160];                  /* "half, base 1000000" or "none" */
  int window, n_windowed;          /* keys a position sees in n_windowed of the blocks; 0: all */
  int n_experts, n_experts_used;   /* mixture of experts; 0: none */
  int expert_F, shared_F;          /* widths of an expert and of a shared one; 0: none */
  bool tied;                       /* output matrix = token embedding */
  const char *tokenizer, *pre;     /* family and pre-tokenizer; "" when the file has none */
  const char *warning;             /* "" or one sentence worth telling */
  bool encoder;                    /* no next token: no logits, nothing to generate */
  enum nm_pooling pooling;         /* as the file says; NM_POOL_DEFAULT: it does not */
} nm_model_info;
void nm_model_describe(const nm_model *m, nm_model_info *out);
/* 32 hex digits of the hash of the file's bytes, or of those of all its files and the config
 * (computed once, then kept). */
int nm_model_hash(nm_model *m, char hex[33], nm_err *err);

/* Any valid GGUF or safetensors container or directory, model or not: writes what it holds as
 * text or JSON to a string the caller frees. `sites` adds the table of sites. */
int nm_info(const char *path, bool json, bool sites, char **out, nm_err *err);

/* ---- tokens ---------------------------------------------------------- */

enum { NM_NO_BOS = 1, NM_PARSE_SPECIAL = 2 };
/* Text (any bytes) to ids; BOS as the file says unless NM_NO_BOS. Control tokens written
 * in the text are plain text unless NM_PARSE_SPECIAL. */
int nm_tokenize(const nm_model *m, const char *text, size_t n, int flags, int32_t **ids,
                size_t *n_ids, nm_err *err);
/* Ids to bytes (zero-terminated, length in *n). Control tokens are left out. */
int nm_detokenize(const nm_model *m, const int32_t *ids, size_t n_ids, char **text, size_t *n,
                  nm_err *err);
/* What token k adds to the text, with the space before it; control tokens are "" or (control)
 * their names. NULL without a tokenizer or memory. Free with nm_free. */
char *nm_token_text(const nm_model *m, const int32_t *ids, size_t k, bool control);
/* A tokenizer without running the model: also opens vocabulary-only files. */
int nm_tokenizer_open(const char *path, nm_model **out, nm_err *err);

/* ---- conversations ------------------------------------------------------ */

/* A prompt and where each of its bytes came from: user[i] is 1 for bytes out of the messages
 * (or tools ...), 0 for those of the template. */
typedef struct nm_prompt { char *text; size_t n; uint8_t *user; } nm_prompt;
typedef struct nm_chat_opts {
  const char *name;                /* NULL: the model's own template; a family (nm_chat_family);
                                      "native": the family the model's template belongs to; or
                                      NAME of the model's tokenizer.chat_template.NAME */
  const char *source; size_t n_source;   /* a Jinja template instead; `name` is for messages */
  bool no_generation_prompt;       /* leave out the beginning of the answer */
  const char *date;                /* "2026-01-31" for templates that write the date; NULL: today */
} nm_chat_opts;
/* json: [{"role": ..., "content": ...}, ...], or an object with "messages", "tools" and whatever
 * else the template reads. m may be NULL with a family or a source. NM_EFORMAT names the
 * template, line and column of what went wrong; docs/chat.md tells the subset of Jinja. */
int nm_chat_render(const nm_model *m, const char *json, size_t n, const nm_chat_opts *o,
                   nm_prompt *out, nm_err *err);
/* Control tokens come out of the template's bytes only, whatever a user writes; BOS as the
 * file says (unless NM_NO_BOS), once. Free *ids with nm_free. */
int nm_chat_tokenize(const nm_model *m, const nm_prompt *p, int flags, int32_t **ids,
                     size_t *n_ids, nm_err *err);
void nm_prompt_free(nm_prompt *p);
const char *nm_chat_family(int i);       /* "chatml" ...; NULL after the last */

/* ---- adapters ---------------------------------------------------------- */

/* Low-rank adapters (LoRA): W + scale alpha / rank B A, beside weights that stay as they are
 * stored, quantised or not. Files: GGUF as of llama.cpp, folders of PEFT's, steps of a training run
 * (DIR@200). Several stand side by side; one of scale 0 changes no bit. */
typedef struct nm_adapters nm_adapters;
typedef struct nm_adapter_file { const char *path; double scale; } nm_adapter_file;
/* Reads n of them for m, which must outlive them; n 0 gives NULL. NM_EFORMAT where one is damaged
 * or of another model (architecture, name or sizes of a matrix). An engine takes them. */
int nm_adapters_load(const nm_model *m, const nm_adapter_file *v, int n, nm_adapters **out,
                     nm_err *err);
void nm_adapters_free(nm_adapters *a);
int nm_adapters_n(const nm_adapters *a);
/* "a.gguf, scale 0.5: GGUF LoRA beside 28 matrices, rank 4" */
const char *nm_adapters_what(const nm_adapters *a, int i);
/* What was opened as m is an adapter that names its model (noema train): it stands beside that
 * model's weights in every engine of m. NULL: m is a model itself. */
const nm_adapters *nm_model_adapters(const nm_model *m);
/* What an adapter's file holds, as text or JSON in a string that the caller frees. */
int nm_adapter_show(const char *path, bool json, char **out, nm_err *err);
/* Writes it in the other form (or the same): GGUF where `out` ends in .gguf, else a folder of
 * PEFT's; for the model m, whose rows of q and k may be in another order. */
int nm_adapter_convert(const nm_model *m, const char *in, const char *out, bool force, nm_err *err);

/* ---- running --------------------------------------------------------- */

/* Threads, kernels and buffers for one model. Results never depend on any of the
 * options but n_ctx (rope scalings may follow it), gelu, act and adapters. */
typedef struct nm_engine nm_engine;
typedef struct nm_engine_opts {
  int threads;                     /* 0: all cores */
  int n_ctx;                       /* 0: the model's; a longer text is an error */
  int chunk;                       /* most positions of a sequence at once; 0: 512. Without
                                      effect where positions see those after them */
  int batch;                       /* most sequences at once; 0: as many as fit 512 positions */
  const char *kernels;             /* "portable", "avx2", "avx512", "avx512bf16"; NULL: the best */
  const char *gelu;                /* "tanh" or "erf": the form of GELU; NULL: the published one */
  const char *act;                 /* "f32" (NULL), or "bf16": products with weights take both
                                      sides rounded to bf16, about twice as fast where the machine
                                      has the instruction, the same bits everywhere */
  const nm_adapters *adapters;     /* of the same model; must outlive the engine. NULL: none */
} nm_engine_opts;
int nm_engine_new(const nm_model *m, const nm_engine_opts *o, nm_engine **out, nm_err *err);
void nm_engine_free(nm_engine *e);
const char *nm_engine_kernels(const nm_engine *e);
const char *nm_engine_act(const nm_engine *e);           /* "f32" or "bf16" */
int nm_engine_threads(const nm_engine *e);

typedef struct nm_seq { const int32_t *ids; size_t n; } nm_seq;

/* A tap reads sites after all edits. `site` is a glob over the names of docs/sites.md
 * ("blk.*.resid_post", "blk.4-8.attn.head[3]", TransformerLens names where the values are
 * equal), `at` a list of positions: last, all, prompt, 5, -1, 2:7, span:TEXT. */
typedef struct nm_tap { const char *site, *at; } nm_tap;

/* One tapped row. Rows of a sequence come in order of position within each site. */
typedef struct nm_row {
  size_t seq;                      /* index into the request's sequences */
  int site;                        /* index into the run's site list, see nm_run_sites */
  int pos;
  const float *data;               /* valid during the call */
  int64_t n;
} nm_row;

/* Edits of activations and of weights, read from a JSON or YAML file (docs/verbs/edit.md). */
typedef struct nm_edits nm_edits;
int nm_edits_load(const char *path, nm_edits **out, nm_err *err);
int nm_edits_parse(const char *name, const char *json, size_t n, nm_edits **out, nm_err *err);
void nm_edits_free(nm_edits *e);
/* The edits of `from`, which is freed, behind those of *to (NULL: none yet). */
int nm_edits_join(nm_edits **to, nm_edits *from, nm_err *err);
/* A control vector (GGUF) as llama.cpp applies it: scale * direction.K is added to the residual
 * stream after block K, for from <= K <= to, at every position. Behind the edits of *e (NULL: none
 * yet). NM_EFORMAT when it does not fit the model. */
int nm_edits_add_control_vector(nm_edits **e, const nm_model *m, const char *path, double scale,
                                int from, int to, nm_err *err);
int nm_edits_n(const nm_edits *e);
/* "add at blk.3.resid_post, last"; and how many (position, site) pairs the runs since
 * loading touched. */
const char *nm_edits_what(const nm_edits *e, int i);
uint64_t nm_edits_touched(const nm_edits *e, int i);
/* "positions"; for an edit of a weight "weights": so many numbers of it the last run changed. */
const char *nm_edits_unit(const nm_edits *e, int i);

typedef struct nm_request {
  const nm_seq *seqs;
  size_t n_seqs;
  const nm_tap *taps;              /* "logits" is a site like any other */
  int n_taps;
  nm_edits *edits;                 /* or NULL */
  const size_t *tap_from;          /* [n_seqs]: taps look at no position before it; or NULL */
  bool share_prefix;               /* compute the common beginning of all sequences once */
  int (*row)(void *arg, const nm_row *row, nm_err *err);  /* nonzero status stops the run */
  int (*done)(void *arg, size_t seq, nm_err *err);        /* may be NULL: all rows of seq given */
  void *arg;
  const nm_progress *progress;
} nm_request;
int nm_run(nm_engine *e, const nm_request *r, nm_err *err);

/* What a request would need, from the same forward in measure mode. Bytes. */
typedef struct nm_memory { uint64_t weights, kv, activations, base; } nm_memory;
int nm_run_measure(nm_engine *e, const nm_request *r, nm_memory *out, nm_err *err);

/* The sites the taps select, in numeric layer order: names and widths (width 0: depends on
 * the sequence length: attention scores and patterns). Free with nm_free. */
typedef struct nm_site { char name[64]; int layer; int64_t width; } nm_site;
int nm_run_sites(const nm_model *m, const nm_tap *taps, int n_taps, nm_site **out, int *n,
                 nm_err *err);
/* Every site of the model; layer -1 where there is only one. Free with nm_free. */
int nm_sites(const nm_model *m, nm_site **out, int *n);

/* Natural log of the softmax of V logits, summed in double in a fixed order. */
void nm_log_softmax(const float *logits, int V, double *out);
double nm_exp(double x);                 /* noema's own: the same bits everywhere */
double nm_log(double x);

/* ---- generating -------------------------------------------------------- */

/* A text that grows: its keys and values stay, so that only new tokens are computed, and it may
 * part into several that share its beginning. The logits are those of nm_run on the whole text,
 * byte for byte (with F16 in the cache: but for that rounding), whatever the pieces.
 *
 *   nm_session *s;
 *   nm_session_new(e, NULL, &s, &err);
 *   nm_session_append(s, 0, ids, n, &err);
 *   const float *z = nm_session_logits(s, 0);           // [V], for the next token
 *   nm_session_fork(s, 2, &err);                        // two texts go on from here
 *   int seq[2] = {0, 1}; int32_t next[2] = {7, 9};
 *   nm_session_step(s, seq, next, 2, &err);             // a token each, in one forward
 *   nm_session_free(s);
 *
 * A session belongs to the thread of its engine, which outlives it. */
typedef struct nm_session nm_session;
typedef struct nm_session_opts {
  nm_edits *edits;                 /* or NULL; positions: docs/sites.md, and `generated` */
  const char *type_k, *type_v;     /* "f32" (NULL) or "f16": how keys and values are kept */
  const nm_progress *progress;     /* of long appends */
  const char *tap;                 /* a glob of sites read where logits are: at the last position of
                                      what is appended, and at each generated one. NULL: none */
  int (*row)(void *arg, const nm_row *row, nm_err *err);  /* row->seq: the text; row->site
                                      counts in nm_run_sites of this tap alone */
  void *arg;
} nm_session_opts;
/* NM_EFORMAT for an encoder, and for edits whose sites the model does not have. */
int nm_session_new(nm_engine *e, const nm_session_opts *o, nm_session **out, nm_err *err);
void nm_session_free(nm_session *s);
/* Room for so many positions a text; else room grows as needed. At most the engine's context. */
int nm_session_reserve(nm_session *s, int n_positions, nm_err *err);
/* Text `seq` goes on by a prompt of n tokens. After a failure the text is as before, its
 * logits may be gone. NM_EUSAGE when the context is too small. */
int nm_session_append(nm_session *s, int seq, const int32_t *ids, size_t n, nm_err *err);
/* Texts seq[0..n-1], all different, go on by one generated token each. */
int nm_session_step(nm_session *s, const int *seq, const int32_t *ids, int n, nm_err *err);
/* Back to the first n positions (at least those that are shared). */
int nm_session_rewind(nm_session *s, int seq, int n, nm_err *err);
/* The one text becomes n texts with all of it in common; the reverse: text `seq` alone stays. */
int nm_session_fork(nm_session *s, int n, nm_err *err);
int nm_session_keep(nm_session *s, int seq, nm_err *err);
int nm_session_n(const nm_session *s);               /* texts */
int nm_session_room(const nm_session *s);            /* positions a text can have in all */
/* Valid until the text goes on. The logits of its last position; NULL after a rewind. */
nm_seq nm_session_ids(const nm_session *s, int seq);
const float *nm_session_logits(const nm_session *s, int seq);
uint64_t nm_session_kv_bytes(const nm_session *s);

/* How a token is drawn from logits: the repetition penalty, then the k likeliest, then the fewest
 * that hold top_p of what is left, then those with at least min_p times the probability of the
 * likeliest, then the draw at the temperature (llama.cpp's order). Equal logits go by id. */
typedef struct nm_sampler {
  double temp;                     /* 0: the likeliest, no draw */
  int top_k;                       /* 0: all */
  double top_p, min_p;             /* 0 (or 1 for top_p): off */
  double repeat_penalty;           /* 0 or 1: off. Divides logits above 0, multiplies others */
  int repeat_last_n;               /* of the tokens among the last n; -1: all; 0: 64 */
  uint64_t seed;
} nm_sampler;
/* A token for logits [V] after the tokens `text`. The random number is that of (seed, sample,
 * step), whoever drew before. `work`: room for V pairs. */
typedef struct nm_ranked { float logit; int32_t id; } nm_ranked;
int32_t nm_sample_token(const float *logits, int V, const nm_sampler *p, nm_seq text,
                        uint64_t sample, uint64_t step, nm_ranked *work);

enum nm_stop { NM_STOP_LENGTH, NM_STOP_END, NM_STOP_STRING, NM_STOP_CONTEXT,
               NM_STOP_INTERRUPTED };
/* "length", "end", "stop", "context", "interrupted" (also by a failure) */
const char *nm_stop_name(enum nm_stop s);

typedef struct nm_token {
  int sample, step;
  int32_t id;                      /* -1: no token, the last bytes of a text that ended */
  const char *text; size_t n;      /* what can be shown now: whole characters, no stop string */
  double logprob;                  /* with `logprobs`; natural log, of the model's softmax */
  const int32_t *top; const double *top_logprob; int n_top;    /* likeliest first */
} nm_token;

typedef struct nm_generate_opts {
  nm_sampler sampler;
  int n_samples;                   /* 0: 1. Sample i is the same alone and with others */
  int first_sample;                /* its number, for the random numbers */
  int n_predict;                   /* most tokens of a sample; -1: until the context is full */
  const char *const *stop; int n_stop;     /* strings that end a text, and are no part of it */
  bool ignore_eos;                 /* tokens that end a text are not drawn */
  bool logprobs;
  int n_top;                       /* alternatives a token, with `logprobs` */
  int (*token)(void *arg, const nm_token *t, nm_err *err);     /* or NULL; nonzero: stop */
  void *arg;
} nm_generate_opts;
typedef struct nm_generated {
  char *text; size_t n_text;       /* the answer without the prompt, zero-terminated */
  int32_t *ids; size_t n;          /* all tokens drawn but the one that ended it */
  double *logprob;                 /* [n], or NULL */
  int32_t end;                     /* the token that ended it; -1: none */
  double end_logprob;
  enum nm_stop stop;
} nm_generated;
/* Goes on from a session's one text, which has a prompt; fills out[n_samples], and the session is
 * forked if there are several. When `token` stops it, its status is returned, and what is finished
 * is in out, as is after any other failure. Without a tokenizer texts are empty. */
int nm_generate(nm_session *s, const nm_generate_opts *o, nm_generated *out, nm_err *err);
void nm_generated_free(nm_generated *g, int n);
/* Ends this token a text: the file's end of sequence, turn, message, and those known by name? */
bool nm_is_end(const nm_model *m, int32_t id);
/* ---- scores ------------------------------------------------------------ */

/* How likely texts are. Token t of a text is scored by the logits at t - 1: the natural logarithm
 * of its probability given the tokens before it, the same double as nm_log_softmax of `logits`.
 * A text longer than the window is read in windows that begin `stride` tokens apart. Each token is
 * scored once, in the first window that reaches it, so after the first window with at least
 * (window - stride) tokens before it. With a base, also the divergence
 *   KL(base || this) = sum over v of p_base(v) (ln p_base(v) - ln p(v))
 * of the two distributions a token was drawn from; of identical models it is exactly 0. */
typedef struct nm_score_opts {
  int window, stride;              /* 0: the context of the engine; half the window */
  nm_edits *edits;
  nm_engine *base;                 /* NULL: no divergence; may be the same engine */
  nm_edits *base_edits;
  const nm_progress *progress;
} nm_score_opts;
typedef struct nm_scores {
  size_t n, *first;                /* text i has the tokens first[i] .. first[i + 1] - 1 of: */
  int *pos;                        /* where in the text */
  double *lp;                      /* natural log-probability */
  double *base_lp, *kl;            /* of the base; divergence in nats. NULL without one */
  bool *same_top;                  /* both models have the same likeliest token */
  double *bytes;                   /* [n]: of the scored tokens of a text; 0: no tokenizer */
} nm_scores;
/* from[i] (NULL: 1 for all): the first token of text i that counts, at least 1. Texts may have
 * nothing to score. Memory: the logits of some positions (64 MB a model), never of a whole text.
 * NM_EUSAGE when the two vocabularies differ in size or the window does not fit a context. */
int nm_score(nm_engine *e, const nm_seq *seqs, const size_t *from, size_t n,
             const nm_score_opts *o, nm_scores *out, nm_err *err);
void nm_scores_free(nm_scores *s);

/* Figures of texts first .. first+n-1: a mean per token with its 95 % interval. The spread is that
 * of texts (of the ratio of sums over texts), or, of a single text, of its tokens taken for
 * independent. Perplexity is exp(-mean log-probability), its interval the same of the ends. */
typedef struct nm_interval { double mean, lo, hi; } nm_interval;
typedef struct nm_score_sum {
  size_t n_texts, n_tokens;
  double bytes, lp, base_lp, kl;   /* sums */
  double kl_max, same_top;         /* largest of a token; share of tokens */
  nm_interval ppl, base_ppl, kl_mean, bits_per_byte;
} nm_score_sum;
void nm_score_total(const nm_scores *s, size_t first, size_t n, nm_score_sum *out);

/* ---- sentence vectors ------------------------------------------------ */

/* One vector a text, so that near vectors mean near texts: the last block's vectors of all its
 * tokens (an encoder's last resid_post, a decoder's final_norm), pooled. NM_POOL_MEAN is their
 * mean over all tokens, NM_POOL_CLS the first token's (Reimers and Gurevych, Sentence-BERT, arXiv
 * 1908.10084), NM_POOL_LAST the last one's, which in a decoder has seen the whole text
 * (Neelakantan et al., arXiv 2201.10005), NM_POOL_NONE all of them. NM_POOL_DEFAULT takes what the
 * file says and, where it says nothing, last for decoders and mean for encoders. */
typedef struct nm_embed_opts {
  enum nm_pooling pooling;
  bool keep_length;                /* else each vector is divided by its Euclidean length */
  nm_edits *edits;
  const nm_progress *progress;
} nm_embed_opts;
typedef struct nm_vectors {
  float *v;                        /* [first[n], D] */
  size_t n, *first;                /* text i has the rows first[i] .. first[i + 1] - 1 */
  int D;
  enum nm_pooling pooling;         /* what was done */
} nm_vectors;
/* NM_EFORMAT for a reranker's file without a pooling asked for; NM_EUSAGE for cls in a causal
 * model. Options NULL: defaults. nm_embed_measure: the memory it would take. */
int nm_embed(nm_engine *e, const nm_seq *seqs, size_t n, const nm_embed_opts *o, nm_vectors *out,
             nm_err *err);
int nm_embed_measure(nm_engine *e, const nm_seq *seqs, size_t n, const nm_embed_opts *o,
                     nm_memory *need, nm_err *err);
/* [first[n], D] as .npy; of several texts only when each has one vector (else NM_EUSAGE). */
int nm_vectors_save(const nm_vectors *v, const char *path, nm_err *err);
void nm_vectors_free(nm_vectors *v);
/* Cosine of the angle between two vectors of n values; 0 when one of them is zero. */
double nm_cosine(const float *a, const float *b, int64_t n);

/* ---- labelled data --------------------------------------------------- */

/* Texts out of CSV, TSV, JSON, JSONL, BIG-bench JSON or STSA lines, recognised by content. */
typedef struct nm_texts { size_t n; char **text; nm_seq *seq; } nm_texts;
/* One text a row (column `col`, NULL: the text column by name or content); or, in JSONL rows
 * that hold "ids": [...], token ids: then `seq` is set and `text` is NULL. */
int nm_texts_load(const char *path, const char *col, nm_texts *out, nm_err *err);
void nm_texts_free(nm_texts *t);

/* ---- activations to files -------------------------------------------- */

typedef struct nm_acts_opts {
  const char *site, *at;
  const char *out;                 /* F.npy or a folder */
  nm_edits *edits;
  bool share_prefix, dry_run;
  bool squeeze;                    /* F.npy without the axis of sites (one site only) */
  const char *command;             /* as typed: a folder is recorded as a run; NULL: it is not */
  const nm_progress *progress;
} nm_acts_opts;
/* F.npy: [sites, D] for one position, [sites, positions, D] for several; with several
 * sequences [sequences, sites, D]. A folder gets SITE.00000.npy, ... ([rows, width] float32) and
 * index.jsonl: a header, then a line a sequence with its shard, first row and positions. It is
 * streamed; a run that was cut off goes on where it stopped, and a folder that holds another
 * run (model, edits, sites, positions, texts) is refused. */
int nm_acts(nm_engine *e, const nm_seq *seqs, size_t n, const nm_acts_opts *o, nm_memory *need,
            nm_err *err);

/* ---- lenses: what a layer would say if it were the last ------------------ */

/* The logit lens (nostalgebraist 2020): final norm and vocabulary head applied to the residual
 * stream after every block. In the last block it is the model's own answer, bit for bit. */
typedef struct nm_lens_token { int32_t id; double lp; } nm_lens_token;
typedef struct nm_lens_opts {
  const char *site;                /* NULL: "resid_post", with the embedding in front; a name
                                      inside the block, or a glob of sites as wide as the stream */
  const char *at;                  /* NULL: "all" */
  int top;                         /* likeliest tokens kept of each place; 0: 5 */
  int32_t target;                  /* a token to follow; below 0: none */
  uint64_t seed;                   /* of the control's permutation */
  const char *out;                 /* folder for lens.json, SVG and report.html; NULL: none */
  const char *command;
  nm_edits *edits;
  const nm_progress *progress;
} nm_lens_opts;
/* One layer at one position. */
typedef struct nm_lens_cell {
  double entropy, kl;              /* nats; kl: of the model's own end from this layer */
  int rank; double lp;             /* of the model's own answer there; rank 1 is the likeliest */
  int target_rank; double target_lp;
  int control;                     /* rank of the answer when the row's values are permuted */
  nm_lens_token *top;              /* [top] */
} nm_lens_cell;
typedef struct nm_lens_column {
  size_t seq; int pos;
  int32_t id, answer;              /* the token read there; the model's likeliest next one */
  double answer_lp;
  int decided;                     /* first row from which on the answer leads to the end; -1 */
} nm_lens_column;
typedef struct nm_lens_layer {     /* over all columns */
  double agree, control_agree;     /* share where the answer leads; with permuted rows */
  double rank, control_rank;       /* medians */
  double entropy, kl, target_lp, target_rank;          /* means; the last a median */
} nm_lens_layer;
typedef struct nm_lens_result {
  int n_rows, top, V; nm_site *row;
  size_t n_cols; nm_lens_column *col;
  nm_lens_cell *cell;              /* [n_rows][n_cols] */
  nm_lens_layer *layer;            /* [n_rows] */
  int32_t target;
  char *dir, *summary;
  nm_lens_token *tokens;           /* memory of the cells */
} nm_lens_result;
/* NM_EFORMAT for an encoder; NM_EUSAGE for a site that is not as wide as the stream. */
int nm_lens(nm_engine *e, const nm_seq *seqs, size_t n, const nm_lens_opts *o, nm_lens_result *out,
            nm_err *err);
void nm_lens_result_free(nm_lens_result *r);
/* A table of the likeliest tokens: rows are layers, columns positions, as many of the last ones
 * as fit `width` columns; `colour`: backgrounds by probability. Or JSON. Free with nm_free. */
char *nm_lens_text(const nm_lens_result *r, const nm_model *m, int width, bool colour);
char *nm_lens_json(const nm_lens_result *r, const nm_model *m);

/* What a column of an output matrix writes into the stream, read through the same end (Geva et
 * al., arXiv 2203.14680): columns of blk.N.ffn_down are the MLP's value vectors, of
 * blk.N.attn_output what a head's dimension writes. */
typedef struct nm_column {
  char tensor[64];
  int64_t col;
  double score; /* of a scan: the token's logit above the vocabulary's mean; below
                   0: suppressed (but promoted where the activation is negative) */
  int rank;                        /* of that token among what the column promotes; 0: no scan */
  int reached; /* of the 20 permutations, those whose best column is as strong */
  nm_lens_token *promoted, *suppressed;        /* [top]; lp: ln p when only this were there */
} nm_column;
typedef struct nm_columns_opts {
  const char *weights;             /* a glob of tensor names, with or without ".weight" */
  int64_t col;                     /* the column to read; below 0: scan for `target` */
  int32_t target;
  int top, best;                   /* tokens of a column; columns of a scan. 0: 10 */
  uint64_t seed;
  const nm_progress *progress;
} nm_columns_opts;
typedef struct nm_columns_result {
  int n, top;
  nm_column *v;                    /* those that write most of the token, of either sign */
  int64_t scanned;                 /* columns; 0: no scan */
  /* The control: the same columns with their values permuted, 20 times: mean and largest of the
   * strongest score; and how many columns are stronger than the largest. */
  double control_mean, control_max;
  int64_t above;
  nm_lens_token *tokens;
} nm_columns_result;
int nm_columns(nm_engine *e, const nm_columns_opts *o, nm_columns_result *out, nm_err *err);
void nm_columns_result_free(nm_columns_result *r);

/* ---- depth: at which layer a concept becomes readable ------------------ */

/* Jin et al., Exploring Concept Depth (arXiv 2404.07066): a linear probe per layer on the
 * last token's activation, with the controls that must fail. One call takes several data
 * sets and writes one report. */
typedef struct nm_depth_opts {
  const char *const *data;         /* paths; "NAME=PATH" names the curve */
  int n_data;
  const char *prompt;              /* NULL or "auto": by task, see nm_depth_prompts;
                                      "none"; or a text holding {text} */
  const char *site;                /* "mlp_norm" (default, the published tap), or resid_post ... */
  const char *text_col, *label_col, *group_col;
  size_t max_rows;                 /* 0: all */
  int to_layer;                    /* last layer to look at; -1: all */
  double test_share;               /* 0: 0.4 */
  uint64_t seed;                   /* default 42 */
  int repeats;                     /* splits; 0: 10 */
  double C;                        /* 0: 1 */
  bool noise; /* "aaa" or "bbb" before every text, by coin (the paper's perturbation) */
  bool forest;                     /* random forests instead of logistic regressions */
  const char *const *anchor;       /* lines to compare with: "own", "words", or "ACC[:NAME]" */
  int n_anchors;                   /* 0: "own" */
  bool cd_bug;                     /* the published commit's one-prompt-for-all behaviour */
  bool dry_run, resume;
  const char *out;                 /* folder of the run; NULL: runs/depth-... */
  const char *cache;               /* folder of cached vectors; NULL: OUT/cache */
  const char *save_probe;          /* F: the best layer's probe */
  const char *command;             /* as typed, for the report */
  nm_edits *edits;
  const nm_progress *progress;
} nm_depth_opts;

typedef struct nm_depth_layer {
  int layer;                       /* -1: the embedding row */
  nm_interval acc, f1, auc, shuffled;
} nm_depth_layer;
enum { NM_DEPTH_LABELS = 26, NM_DEPTH_ANCHORS = 8 };
/* An accuracy to compare with, and the first block whose probe reaches it (-1: none). */
typedef struct nm_depth_anchor { char name[64]; double acc; int reached; } nm_depth_anchor;
typedef struct nm_depth_curve {
  char *name, *file, *how, *prompt_name, *prompt, *split;
  const char *probe;               /* "linear" or "forest" */
  size_t n, n_label[NM_DEPTH_LABELS];
  int n_labels;
  char *label_name[NM_DEPTH_LABELS];
  double chance;                   /* one over the number of labels */
  uint64_t *confusion;             /* [n_labels][n_labels] at the peak, over all splits: rows of a
                                      label, by what the probe said */
  int n_layers;                    /* rows in `layer`, the embedding first when it exists */
  nm_depth_layer *layer;
  nm_interval words;               /* bag of words */
  nm_depth_layer *random;          /* same architecture, random weights; n_layers rows */
  nm_interval answer;              /* the model's own answer; n_answer 0: it cannot answer */
  size_t n_answer;
  const char *no_answer;           /* why it cannot; else NULL */
  double shuffled_max;             /* mean over repeats of the shuffled row's maximum over layers */
  int peak, jump, converge, literal;  /* layers; -1: none */
  double jump_lo, jump_hi, converge_lo, converge_hi;    /* 95 % over repeats */
  int n_splits;
  int *split_converge;             /* [n_splits] of each split alone; -1: none */
  double *split_peak;
  size_t n_test, n_train;
  char split_hash[33];             /* equal: the same rows of the file on the same sides */
  nm_depth_anchor anchor[NM_DEPTH_ANCHORS];
  int n_anchors;
  /* Verdicts (docs/verbs/depth.md): the peak's interval lies above bag of words; above all
   * controls: also above random weights and the shuffled row's own maximum. */
  bool above_words, above_controls, shuffled_ok;
  /* Adding the probe's direction to the residual stream where the answer is read: mean log-odds
   * of yes over no, without, with + and with - of it; `random`: the largest |difference| that
   * random directions of the same length make. n 0: could not be tested. */
  struct { char site[64]; int n; double before, plus, minus, random; bool moved; } causal;
  char *vector, *edit;             /* files: the direction, and an edit that adds it; or NULL */
} nm_depth_curve;
typedef struct nm_depth_result {
  char *dir;
  int n_curves;
  nm_depth_curve *curve;
  nm_memory need;
  char *summary;                   /* one line */
} nm_depth_result;
int nm_depth(nm_model *m, nm_engine *e, const nm_depth_opts *o, nm_depth_result *out, nm_err *err);
void nm_depth_result_free(nm_depth_result *r);
/* The terminal table, with sparkline; or the JSON of depth.json. Free with nm_free. */
char *nm_depth_text(const nm_depth_result *r);
char *nm_depth_json(const nm_depth_result *r);
/* Several runs beside each other: models, the same weights with fewer bits, texts without and with
 * noise. Each side is a run in DIR/NAME; DIR gets a page that compares, all with the first. */
enum { NM_DEPTH_SIDES = 16 };
typedef struct nm_depth_side_opts {
  const char *name, *model;        /* of the run's folder; a file or a directory */
  int bits;                        /* 0: the weights as they are stored; see nm_convert_opts */
  bool noise;
  nm_model *m;                     /* opened already, with its engine; NULL: opened for this run */
  nm_engine *e;
} nm_depth_side_opts;
typedef struct nm_depth_sides_opts {
  const char *by;                  /* what differs, a word: "model", "bits", "noise" */
  const nm_depth_side_opts *side;
  int n;
  nm_engine_opts engine;           /* of every side */
  nm_depth_opts depth;             /* of every side but `noise`; `resume` goes on with a comparison,
                                      `save_probe` is of the first */
} nm_depth_sides_opts;
/* A side's curve less the first's, split by split. */
typedef struct nm_depth_shift {
  bool paired;                     /* else the rows or splits differ, and nothing below is known */
  bool same_depth;                 /* equally many blocks */
  int n;                           /* splits in which both have a converging point; 0: no shift */
  nm_interval blocks, share;       /* of the converging point: in blocks; in shares of the depth */
  nm_interval peak;                /* of the accuracy at the peak */
} nm_depth_shift;
typedef struct nm_depth_side {
  char *name;
  int L, D;
  uint64_t n_params;
  char types[400];
  nm_depth_result r;
} nm_depth_side;
typedef struct nm_depth_sides {
  char *dir, by[16];
  int n;
  nm_depth_side side[NM_DEPTH_SIDES];
} nm_depth_sides;
int nm_depth_compare(const nm_depth_sides_opts *o, nm_depth_sides *out, nm_err *err);
void nm_depth_sides_free(nm_depth_sides *s);
/* The tables of the comparison, or its depth.json. Free with nm_free. */
char *nm_depth_sides_text(const nm_depth_sides *s);
char *nm_depth_sides_json(const nm_depth_sides *s);

/* The prompts `auto` chooses among: name and template, i = 0, 1, ...; false after the end. */
bool nm_depth_prompts(int i, const char **name, const char **text);

/* ---- steering vectors ------------------------------------------------------ */

/* Texts of two classes, tokenised: pairs, two files, or labelled rows. */
typedef struct nm_contrast {
  size_t n, n_groups;
  nm_seq *seq;
  uint8_t *label;                  /* 1: what the vector leads to */
  uint32_t *group;                 /* rows that stay on one side of every split */
  bool paired;                     /* every group is one text of each class */
  char *how;                       /* one sentence */
} nm_contrast;
/* pairs: rows with the columns pos and neg (JSONL, CSV, ...). pos and neg: two files, a text a line
 * (or in the forms of nm_texts_load). data: labelled rows as for depth. Exactly one of the three
 * forms. flags: NM_NO_BOS, NM_PARSE_SPECIAL. */
typedef struct nm_contrast_files {
  const char *pairs, *pos, *neg, *data;
  int flags;
} nm_contrast_files;
int nm_contrast_load(const nm_model *m, const nm_contrast_files *f, nm_contrast *out, nm_err *err);
void nm_contrast_free(nm_contrast *c);

typedef struct nm_vector_opts {
  const char *site;                /* inside the block; NULL: resid_post */
  const char *at;                  /* NULL: last; several positions of a text are averaged */
  const char *method;              /* mean (NULL), pca or probe */
  double test_share;               /* 0: 0.4 */
  int repeats;                     /* splits; 0: 10 */
  uint64_t seed;
  const char *out;                 /* folder; NULL: runs/vector-... */
  const char *command;
  nm_edits *edits;
  const nm_progress *progress;
} nm_vector_opts;
/* Separation of held-out texts by the vector of a block. */
typedef struct nm_vector_layer {
  int layer;
  nm_interval acc, auc;
  nm_interval shuffled;            /* AUC when the classes of the fit are shuffled, too */
  double random, random_high;      /* AUC of 20 random directions a split: mean, 95 % quantile */
  double length, stream;           /* of the vector; of the rows on average */
} nm_vector_layer;
typedef struct nm_vector_result {
  int n_layers, D, best; /* best: index of the layer that separates best, the first such */
  nm_vector_layer *layer;
  float *v;                        /* [n_layers, D], fitted on all texts */
  double shuffled_max;             /* mean over splits of the shuffled row's best layer */
  bool above_controls;             /* the best interval lies above the shuffled one, its largest
                                      over blocks, and the mean random direction */
  char *dir, *summary;
} nm_vector_result;
/* A vector a block, from texts of two classes; adding it once leads from the mean of class 0 to the
 * mean of class 1 along it. The folder gets vector.npy [L, D], vector.gguf (at resid_post: a
 * control vector, blocks from 1 on), best.npy and edit.json (the best block), vector.json,
 * separation.svg, report.html. NM_ECHECK is not returned: the verdict is in the result. */
int nm_vector_make(nm_engine *e, const nm_contrast *c, const nm_vector_opts *o,
                   nm_vector_result *out, nm_err *err);
void nm_vector_result_free(nm_vector_result *r);
char *nm_vector_text(const nm_vector_result *r);
char *nm_vector_json(const nm_vector_result *r);

/* out = sa * a + sb * b for files of vectors (.npy, a control vector; b NULL: sa * a alone). The
 * form of `out` follows its end: .gguf or .npy. A block that one of them lacks counts as zeros. */
int nm_vector_combine(const char *a, double sa, const char *b, double sb, const char *out,
                      nm_err *err);
/* Lengths by block, and with b the cosines between the two. A string for nm_free. */
int nm_vector_show(const char *a, const char *b, bool json, char **out, nm_err *err);

/* The strength of edits against their effect on a token and their damage to other texts, with
 * random directions of the same length in place of their vectors. */
typedef struct nm_sweep_opts {
  nm_edits *edits;                 /* what is swept: each edit's scale is multiplied */
  const double *strength; int n;
  int32_t target, against;         /* against below 0: all other tokens */
  const nm_seq *prompts; size_t n_prompts;             /* the effect: at their last position */
  const nm_seq *texts; size_t n_texts;                 /* the damage; 0: not measured */
  int n_random;                    /* random directions; 0: 5 */
  uint64_t seed;
  const char *out;                 /* folder, or NULL */
  const char *command;
  const nm_progress *progress;
} nm_sweep_opts;
typedef struct nm_sweep_row {
  double strength;
  double effect;                   /* mean ln odds of the target */
  nm_interval ppl;                 /* of the texts */
  double random_effect, random_low, random_high;       /* mean, lowest, highest over directions */
  double random_ppl;               /* geometric mean: one far off would hide the others */
  uint64_t touched;                /* positions edited in prompts and texts */
  bool beyond;                     /* the change of effect is larger than any random one's */
} nm_sweep_row;
typedef struct nm_sweep_result {
  double effect, ppl;              /* without the edits */
  int n, n_random; nm_sweep_row *row;
  char *dir, *summary;
} nm_sweep_result;
int nm_sweep(nm_engine *e, const nm_sweep_opts *o, nm_sweep_result *out, nm_err *err);
void nm_sweep_result_free(nm_sweep_result *r);
char *nm_sweep_text(const nm_sweep_result *r);
char *nm_sweep_json(const nm_sweep_result *r);

/* ---- patch: which activations carry an answer ----------------------------- */

/* Activation patching (Vig et al., arXiv 2004.12265; Zhang and Nanda, arXiv 2309.16042) and causal
 * tracing (Meng et al., arXiv 2202.05262). One text is run with single activations out of another
 * run; the effect of a cell (component, layer, position or head) is
 *   (m - m_corrupt) / (m_clean - m_corrupt), 0 as in the corrupt run, 1 as in the clean one,
 * m the logit of the answer less that of the wrong one, or without a wrong one the answer's
 * log-probability. Over several pairs, and over seeds of the noise, sums are divided. */
typedef struct nm_patch_opts {
  const char *clean, *corrupt, *answer, *wrong;    /* one pair; wrong may be NULL */
  const char *subject;             /* tracing: no corrupt prompt, but noise on these words */
  const char *data;                /* or JSONL of {"clean", "corrupt" or "subject", "answer",
                                      "wrong"} */
  size_t max_pairs;                /* 0: all */
  const char *const *components;   /* "resid_pre", "attn_out", "mlp_out", "attn.head" ... */
  int n_components;                /* 0: these four */
  bool noising;                    /* corrupt activations into the clean run */
  int window;                      /* layers replaced at once; 0: 1 */
  double noise;                    /* tracing: in standard deviations of embeddings; 0: 3 */
  int n_seeds;                     /* tracing: draws of the noise; 0: 5 */
  uint64_t seed;
  bool dry_run, colour;            /* colour: terminal colours in result->text */
  const char *out, *command;       /* folder; NULL: runs/patch-... Finished cells in it stay */
  const nm_progress *progress;
} nm_patch_opts;

typedef struct nm_patch_map {
  char *component;
  int n_layers, n_cols;            /* columns: positions, then "all" of them; or heads */
  char **col;
  bool heads;
  double *effect, *lo, *hi;        /* [n_layers, n_cols]; NaN: no pair has such a cell */
  int top_layer, top_col;          /* the single cell that restores (noising: breaks) most */
  nm_interval top, unrelated, random;      /* shares of what a full patch does. unrelated: the same
                                      cell from a prompt of random tokens; random: other cells */
  bool found;                      /* top is at least 0.1 */
  int control;                     /* NM_OK: it is above both controls; NM_ECHECK: it is not;
                                      NM_EUNSURE: too few pairs or seeds to tell */
} nm_patch_map;
typedef struct nm_patch_result {
  char *dir, *summary, *text, *json;
  size_t n_pairs, n_left_out, n_runs, n_positions;     /* runs and positions to compute in all */
  int n_seeds, n_maps;
  nm_patch_map *map;
  nm_interval clean, corrupt;      /* the metric */
  bool exact_nothing, exact_everything, can_everything;
  int verdict;                     /* NM_ECHECK: a control fails; NM_EUNSURE: no map has a cell
                                      that is above its controls */
  nm_memory need;
} nm_patch_result;
/* Writes DIR/patch.json, cells.jsonl, a heat map SVG a component, report.html. NM_EUSAGE for
 * prompts that cannot be aligned, with the tokens of both. NM_EINTR keeps the finished cells. */
int nm_patch(nm_model *m, nm_engine *e, const nm_patch_opts *o, nm_patch_result *out, nm_err *err);
void nm_patch_result_free(nm_patch_result *r);

/* ---- a graph told by walking in it ------------------------------------- */

/* In-context representations (Park et al., arXiv 2501.00070): words stand for nodes of a graph, a
 * prompt walks in it. Measured at several lengths: the probability of words that are neighbours of
 * the last one, also without the word just left, which is always right; and the geometry of the
 * means of states by node, after every block. Beside them always: the same words shuffled, random
 * vectors, and random vectors whose neighbours were mixed once. */
typedef struct nm_trace_opts {
  const char *graph;               /* "grid:4x4" (NULL), "ring:10", "hex:14", a file of edges */
  const char *words;               /* a file, one a line; NULL: common words; "auto": words of the
                                      vocabulary; "ids": ids themselves. What is not one
                                      token is left out */
  const int *lengths; int n_lengths;           /* words of a walk, ascending; 0: 10, 50, 100, 400 */
  const char *layers;              /* "all" (NULL), or "embed,3,5-8" */
  int window, walks;               /* words behind a mean (0: 200); walks (0: 16) */
  const char *ablate;              /* "prev:2,ind:4": silence the heads with the highest scores,
                                      beside as many random ones; or NULL */
  const char *gram, *accuracy;     /* nm_trace_files: CSV of products; of accuracy by position */
  int dims;                        /* nm_trace_files: width of random vectors; 0: 4096 */
  uint64_t seed;
  const char *out, *command;       /* folder; NULL: runs/trace-graph-... Finished walks stay */
  const nm_progress *progress;
} nm_trace_opts;
typedef struct nm_trace_result {
  char *dir, *summary, *text, *json;
  int verdict;                     /* NM_OK: re-organised, above mixing, by a model that knows the
                                      map; else NM_EUNSURE */
} nm_trace_result;
/* Writes DIR/trace.json, accuracy.csv, gram.csv, figures as SVG, report.html. NM_EUSAGE for words
 * of which too few are one token (it lists them and proposes others) and for lengths beyond the
 * context; NM_EFORMAT for bad files. */
int nm_trace_graph(nm_engine *e, const nm_trace_opts *o, nm_trace_result *out, nm_err *err);
/* The geometry of a Gram matrix and accuracies that were measured elsewhere. */
int nm_trace_files(const nm_trace_opts *o, nm_trace_result *out, nm_err *err);
void nm_trace_result_free(nm_trace_result *r);

/* ---- heads: which attention heads copy out of the context ------------------ */

/* Retrieval heads (Wu et al., arXiv 2404.15574). A needle is hidden in a long text and asked for;
 * while the answer is generated, a head copies a token when the position it looks at most lies in
 * the needle and holds that token. Its score in a trial is how many tokens it copied, over the
 * needle's length; trials whose answer lacks half of the needle's words do not count. Then the best
 * heads are masked, and as many drawn from the others, and both tasks asked again. */
typedef struct nm_heads_opts {
  const char *needles;             /* rows of {"needle", "question", "answer" (or real_needle)} */
  const char *haystack;            /* a text file; with needles */
  const char *data;                /* or rows of {"text", "answer"}: prompts that hold the answer */
  const char *facts;               /* rows of {"text", "answer"} known by heart; or NULL */
  const char *prompt;              /* with {context} and {question}; NULL: as published */
  int len_from, len_to, n_lengths; /* tokens of context; 0: 1000 to 8000 in 8 */
  int n_depths;                    /* 0 to 100 percent of it; 0: 10 */
  size_t max_rows;                 /* of each file; 0: all */
  int predict;                     /* tokens of an answer; 0: 50 */
  bool unique;                     /* count a token of the needle once */
  const char *mask;                /* "uniform" (NULL; as released) or "zero" */
  const int *top; int n_top;       /* heads masked at once; 0: those with 0.1 and more */
  bool no_mask;
  int draws;                       /* of random heads; 0: 5 */
  uint64_t seed;
  const char *out, *command;       /* folder; NULL: runs/heads-... Finished answers in it stay */
  const nm_progress *progress;
} nm_heads_opts;
typedef struct nm_heads_mask {
  int k;
  double needle, facts;            /* score with the best k masked: mean recall x 100; % right */
  double random, low, high;        /* of the draws: needles, mean, lowest, highest */
  double random_facts;
} nm_heads_mask;
typedef struct nm_heads_result {
  char *dir, *summary, *text, *json;
  int L, H;
  size_t n_trials, n_kept, n_facts;
  double *mean, *freq;             /* [L, H]: score; share of kept trials with 0.1 and more */
  int n_copying, best_layer, best_head;
  double needle, facts;            /* nothing masked: mean recall x 100; % right, NaN: none */
  int n_masks; nm_heads_mask *mask;
  int verdict;                     /* NM_OK: masking the best hurts more than any draw; NM_ECHECK:
                                      a draw hurts as much; NM_EUNSURE: nothing to tell by */
} nm_heads_result;
/* Writes DIR/scores.json (the published form), ranking.csv, heads.svg, heads.json, report.html.
 * NM_EFAIL when no trial was answered: there is no score without an answer. NM_EINTR keeps what was
 * finished. */
int nm_heads(nm_model *m, nm_engine *e, const nm_heads_opts *o, nm_heads_result *out, nm_err *err);
void nm_heads_result_free(nm_heads_result *r);

/* Statistics of n files of head scores (the published JSON, or ranking.csv), and how alike they
 * are, as text or JSON in a string that the caller frees. */
int nm_heads_show(const char *const *path, int n, bool json, char **out, nm_err *err);

/* A saved probe: site, layer, template, label names, and weights or trees. */
typedef struct nm_probe nm_probe;
int nm_probe_n_labels(const nm_probe *p);
int nm_probe_load(const char *path, nm_probe **out, nm_err *err);
void nm_probe_free(nm_probe *p);
/* Probability of label 1 for one text (of more than two labels: of the one returned); label_name
 * (of the likeliest one) lives with the probe. */
int nm_probe_apply(nm_engine *e, const nm_probe *p, const char *text, double *probability,
                   const char **label_name, nm_err *err);

/* ---- training ---------------------------------------------------------- */

/* What a step gave. Times are of this machine; everything else is the same bits whatever the
 * threads, kernels and slots of memory. */
typedef struct nm_train_step {
  int64_t step, steps;             /* steps done, of so many */
  double loss, lr, grad_norm;      /* grad_norm: before it was clipped */
  int64_t tokens;                  /* since step 0 */
  double tokens_per_s, peak_share, eta_s;      /* peak_share: of the f32 peak measured here */
  double eval_loss, eval_accuracy; /* of the first source of `eval`; below 0: none yet */
} nm_train_step;
typedef struct nm_train_opts {
  const char *out;                 /* folder of the run; NULL: the recipe's, else runs/RECIPE */
  int threads;                     /* 0: all cores */
  const char *kernels;             /* NULL: the best here */
  bool resume;                     /* go on from the newest whole checkpoint of the folder */
  bool dry_run;                    /* fills result->memory, writes nothing */
  const char *command;             /* as typed, for the records */
  int (*step)(void *arg, const nm_train_step *s);      /* nonzero: stop, keeping a checkpoint */
  void (*note)(void *arg, const char *text);           /* a sentence worth telling; or NULL */
  void *arg;
} nm_train_opts;
typedef struct nm_train_memory {
  uint64_t n_parameters;           /* numbers that are learned */
  uint64_t weights, parameters, gradients, moments, activations;       /* bytes */
  uint64_t reference;              /* bytes of the frozen model that losses compare with */
} nm_train_memory;
typedef struct nm_train_result {
  char *dir, *summary;
  int64_t step;
  double loss, eval_loss, eval_accuracy;
  nm_train_memory memory;
} nm_train_result;
/* Trains as a recipe says (docs/verbs/train.md) and writes metrics.jsonl, loss.svg, report.html,
 * checkpoints/ and model.gguf (or adapter.gguf) to the folder. Mistakes in the recipe and its data
 * are NM_EFORMAT, "FILE:LINE: sentence". NM_EINTR: stopped by `step`; a checkpoint is there. A loss
 * that is no number ends the run (NM_EFAIL) and keeps what was learned before. */
int nm_train(const char *recipe, const nm_train_opts *o, nm_train_result *out, nm_err *err);
void nm_train_result_free(nm_train_result *r);

/* ---- speed ------------------------------------------------------------- */

/* The limits of this machine with so many threads (0: all cores), measured when asked: the best
 * of five short runs (tens of milliseconds). Holds 1 GiB of memory, in huge pages where it can. */
typedef struct nm_meter nm_meter;
enum nm_limit {
  NM_LIMIT_F32,                    /* fused multiply-adds of floats in registers, operations/s */
  NM_LIMIT_BF16,                   /* dot products of bfloat16, operations/s; 0: not in this CPU */
  NM_LIMIT_READ                    /* bytes/s read from 1 GiB of memory */
};
int nm_meter_new(int threads, nm_meter **out, nm_err *err);
void nm_meter_free(nm_meter *m);
int nm_meter_threads(const nm_meter *m);
double nm_meter_run(nm_meter *m, enum nm_limit which);

/* One forward of every operation a model is made of, at a shape that is no small one: the median
 * seconds, the arithmetic of its formula (a function counts one), and the bytes it must read and
 * write. Free with nm_free. Options: threads and kernels. */
typedef struct nm_op_time {
  const char *name, *formula;
  char shape[40];
  double seconds, flops, bytes;
} nm_op_time;
int nm_op_times(const nm_engine_opts *o, const nm_progress *p, nm_op_time **out, int *n,
                nm_err *err);

/* ---- records --------------------------------------------------------- */

typedef struct nm_run_record {
  long long id;
  char utc[32], verb[24], status[16];
  char *dir, *model, *command, *summary;
  double seconds;
} nm_run_record;
/* The rows of ROOT/runs.db, newest first; `find` (or NULL) matches in verb, model, command, dir and
 * summary. A run whose process is gone reads "died". */
int nm_runs(const char *root, const char *find, nm_run_record **out, size_t *n, nm_err *err);
void nm_runs_free(nm_run_record *r, size_t n);

/* What a run's folder says of how it was made (config.json). */
typedef struct nm_run_input { char *path, *hash; uint64_t bytes; } nm_run_input;
typedef struct nm_run_about {
  char *dir, *verb, *noema, *utc, *cwd, *model;
  char **argv; int n_argv;         /* as typed, "noema" first; none: a program of its own ran it */
  nm_run_input *input; int n_inputs;           /* files and folders it was given or names */
  char *json;                      /* all of config.json */
} nm_run_about;
/* NM_EFORMAT where DIR is no folder of a run of noema. */
int nm_run_about_load(const char *dir, nm_run_about *out, nm_err *err);
void nm_run_about_free(nm_run_about *a);
/* The hash of a file's bytes, or of names and hashes of all files of a folder. */
int nm_path_hash(const char *path, char hex[33], nm_err *err);

/* How the files of one folder of results compare with those of another. NM_FILE_ALIKE: equal but
 * for times, speeds and the names of the two folders. config.json tells of a run, not of its
 * result, and is left out. */
enum nm_file_state { NM_FILE_EQUAL, NM_FILE_ALIKE, NM_FILE_DIFFERS, NM_FILE_ONLY_A,
                     NM_FILE_ONLY_B };
typedef struct nm_file_pair { char *name; enum nm_file_state state; } nm_file_pair;
int nm_folders_compare(const char *a, const char *b, nm_file_pair **out, size_t *n, nm_err *err);
void nm_file_pairs_free(nm_file_pair *v, size_t n);

/* Bytes of all files of a run's folder; NM_EFORMAT where it is no folder of a run. */
int nm_run_bytes(const char *dir, uint64_t *bytes, nm_err *err);
/* Takes the rows of `dir` (as listed) out of ROOT/runs.db and removes the folder, which must hold
 * the config.json of a run; links are removed, not followed. A missing folder is no error. */
int nm_run_remove(const char *root, const char *dir, nm_err *err);
/* Where the folder of a listed run lies: beside ROOT/runs.db. Free with nm_free. */
char *nm_run_dir(const char *root, const char *dir);

/* ---- writing models again ---------------------------------------------- */

typedef struct nm_convert_opts {
  const char *in;                  /* a GGUF, one of its pieces, or a Hugging Face directory */
  const char *out;                 /* F.gguf, or a directory */
  const char *to;                  /* "gguf" or "safetensors"; NULL: gguf if `out` ends so */
  const char *type;                /* see nm_convert_types; NULL: as stored */
  bool pure;                       /* all matrices in the type, no mixture */
  const char *const *tensor_type;  /* "GLOB=TYPE": tensors of these names get that type */
  int n_tensor_type;
  int round_bits;                  /* 2 to 8: matrices of the blocks rounded to nearest, with one
                                      scale for 32 values (docs/verbs/depth.md); 16: as BF16; 0: no.
                                      Rows that are no multiple of 32 stay. GGUF only */
  uint64_t split_bytes;            /* most bytes of a file's data; 0: one file */
  const nm_adapters *adapters;     /* loaded for a model of `in`: added to the weights (GGUF only).
                                      Without `type` what they touch is stored as F32 */
  bool force, dry_run;             /* overwrite what is there; write nothing */
  int threads;                     /* 0: all cores */
  const nm_progress *progress;
} nm_convert_opts;
typedef struct nm_convert_tensor {
  char name[160];                  /* as written */
  const char *from, *to;           /* types */
  int n_dims; int64_t dims[4];     /* as the written form lists them */
  uint64_t bytes_from, bytes_to;
} nm_convert_tensor;
typedef struct nm_convert_result {
  nm_convert_tensor *tensor;
  size_t n_tensors;
  int n_files;                     /* of weights */
  uint64_t bytes;                  /* of all files written; of the tensors for a dry run */
  uint64_t n_weights;
  double bits_per_weight;
  char warning[240];               /* "" or one sentence worth telling */
} nm_convert_result;
/* Reads a model in one form and writes it in the other, or with other types. Memory is bounded by
 * a piece of a tensor (of gpt2's matrices: one). Every file appears whole or not at all. The same
 * input gives the same bytes for any number of threads. A value that is no finite number, or too
 * large for the type, is NM_EFORMAT with the tensor's name. */
int nm_convert(const nm_convert_opts *o, nm_convert_result *out, nm_err *err);
void nm_convert_result_free(nm_convert_result *r);
/* The types and mixtures `type` may name: "F32, F16, ...". Free with nm_free. */
char *nm_convert_types(void);

/* ---- models of our own ------------------------------------------------- */

/* The hand-wired transformer of docs/planted.md: known concepts at known layers. */
int nm_write_planted(const char *path, nm_err *err);
/* Sentences for its concept 'A' or 'B' as TSV (text, label, set): n_sets sets of eight that
 * differ only in the words the concepts are made of. */
int nm_write_planted_data(const char *path, char which, int n_sets, uint64_t seed, nm_err *err);
/* A model of random weights in a given shape ("qwen2.5-0.5b", "smollm2-135m", "llama3.2-1b",
 * "tiny"; encoders "tiny-bert", "minilm-l6", "nomic-embed") and type ("F32", "F16", "BF16", "Q8_0",
 * "Q4_0", "Q4_K", ...), for measuring. */
int nm_write_random(const char *shape, const char *type, uint64_t seed, const char *path,
                    const nm_progress *p, nm_err *err);

/* ---- worlds: texts whose truth is known -------------------------------- */

/* docs/worlds.md describes each. A world is a pure function: W draws its truth, and
 * (W, seed, i) makes item i, so items may be made in any order.
 *
 *   nm_world *w; nm_world_item it = {0};
 *   const char *set[] = {"hops=2", "k_min=8"};
 *   if (nm_world_open("chase", set, 2, 7, 1, &w, &err)) return fail(err.text);
 *   for (uint64_t i = 0; i < 1000 && !nm_world_make(w, i, &it, &err); i++) use(it.text);
 *   nm_world_item_done(&it); nm_world_close(w); */
typedef struct nm_world_param { const char *name, *about; int low, high, standard; } nm_world_param;
typedef struct nm_world_info {
  const char *name, *about;
  const char *const *labels;       /* names of classes 0, 1, ...; ends with NULL */
  const nm_world_param *params;    /* ends with name NULL */
} nm_world_info;
/* World i = 0, 1, ...; false after the last. */
bool nm_worlds(int i, nm_world_info *out);

typedef struct nm_world nm_world;  /* read-only: may be shared by threads */
/* `set`: n_set parameters as "KEY=VALUE". NM_EUSAGE for a world, a parameter or a value that
 * does not exist; the sentence lists those that do. */
int nm_world_open(const char *name, const char *const *set, int n_set, uint64_t W, uint64_t seed,
                  nm_world **out, nm_err *err);
void nm_world_close(nm_world *w);

typedef struct nm_world_part { const char *text; int weight; } nm_world_part;
typedef struct nm_world_item {
  uint64_t id, twin;               /* items of one twin share the fact behind them */
  const char *text;                /* ends where the answer is read */
  const char *answer, *label_name;
  int label, depth;                /* class; sequential steps from the words to the answer */
  bool test;                       /* else train: by the twin, the same for every seed of W */
  const nm_world_part *parts;      /* for training, joined by spaces: weight 1 is an answer */
  int n_parts;
  void *memory;                    /* of the strings, which live until the next call */
} nm_world_item;
/* Start with an item of zeros; the next calls reuse its memory. */
int nm_world_make(const nm_world *w, uint64_t i, nm_world_item *item, nm_err *err);
void nm_world_item_done(nm_world_item *item);

enum nm_world_form { NM_WORLD_BOTH, NM_WORLD_PROBE, NM_WORLD_TRAIN };
/* The first n items as JSONL (docs/worlds.md). split: "train", "test", or NULL for both. A probe
 * form leaves out the parts, a training form everything about the question but its parts. */
int nm_world_write(const nm_world *w, uint64_t n, const char *split, enum nm_world_form form,
                   const char *path, const nm_progress *p, nm_err *err);
/* Whether an answer is right for a line of such a file (with its world, W and text), solved from
 * the text alone. Space around the answer does not count. NM_EFORMAT: no item of a world. */
int nm_world_check(const char *json, size_t n, const char *answer, bool *right, nm_err *err);

/* ---- studies: a published finding tested in miniature ------------------- */

/* A study trains or builds what it needs, measures an effect together with the controls that must
 * fail, and ends in a verdict. `faults` are known ways of getting it wrong: with one of them put
 * in, the study must not pass (docs/verbs/study.md). */
typedef struct nm_study_fault { const char *name, *about; } nm_study_fault;
typedef struct nm_study_info {
  const char *name, *about, *source;
  const nm_study_fault *faults;    /* ends with name NULL */
} nm_study_info;
/* Study i = 0, 1, ...; false after the last. */
bool nm_studies(int i, nm_study_info *out);

typedef struct nm_study_opts {
  const uint64_t *seeds;           /* of training and sampling; none: 1, 2, 3 */
  int n_seeds;
  bool quick;                      /* seconds, not minutes: shows that it runs, proves nothing */
  const char *fault;               /* or NULL */
  const char *out;                 /* folder; NULL: runs/study-NAME-... Finished seeds in it stay */
  int threads;                     /* 0: all cores */
  const char *command;             /* as typed, for the record */
  const nm_progress *progress;
} nm_study_opts;

/* What was stated before measuring, and what was measured. */
enum nm_claim_state { NM_CLAIM_OK, NM_CLAIM_RED, NM_CLAIM_UNSURE, NM_CLAIM_NOTE };
typedef struct nm_study_claim {
  char *name, *text;
  bool control;                    /* must come out at nothing when the effect is real */
  int n;                           /* seeds with a value; 0: it could not be measured */
  double worst;                    /* of the seeds, the value farthest out */
  nm_interval value;               /* mean over seeds and its 95 % t interval */
  double low, high;                /* every seed must lie in here; infinite: no such bound */
  enum nm_claim_state state;       /* NOTE: nothing was stated; UNSURE: a condition is not met */
} nm_study_claim;
typedef struct nm_study_result {
  char *name, *dir, *summary;
  int verdict;                     /* NM_OK pass, NM_ECHECK fail, NM_EUNSURE inconclusive */
  int n_claims;
  nm_study_claim *claim;
  char *text, *json;               /* tables for the terminal; everything */
} nm_study_result;
/* Runs it. The status tells whether it could run; what came out is out->verdict. DIR gets
 * study.json, report.html, figures as SVG, and what the seeds left. NM_EUSAGE for a study or a
 * fault that is not known. */
int nm_study(const char *name, const nm_study_opts *o, nm_study_result *out, nm_err *err);
void nm_study_result_free(nm_study_result *r);

#ifdef __cplusplus
}
#endif

#endif
