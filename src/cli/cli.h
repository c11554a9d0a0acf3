/* cli.h - one table per verb makes the parser, --help, the man page and the
 * completion. Verbs are thin: they read options and call noema.h. */
#ifndef NM_CLI_H
#define NM_CLI_H

#include <stdio.h>
#include "noema.h"

/* CLI_PAIR: like CLI_LIST, with a value A:NUMBER that may also be typed as two words, A NUMBER. */
enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_INT, CLI_REAL, CLI_LIST, CLI_PAIR };

struct cli_opt {
  const char *name;                /* "--at", or with a letter: "-p, --prompt" */
  enum cli_kind kind;
  const char *arg;                 /* what the value is called in the help; the completion reads it
                                      too: F, FILE and DIR are files, "train|test" is a choice of
                                      small words, and the parser takes no other */
  const char *help;
};

enum { CLI_MAX_OPTS = 64, CLI_MAX_LIST = 32, CLI_MAX_POS = 17 };

struct cli {
  const struct cli_verb *verb;
  const char *text[CLI_MAX_OPTS];  /* by index in the verb's table; NULL: not given */
  const char *list[CLI_MAX_LIST];  /* values of CLI_LIST options, in the order typed */
  int list_opt[CLI_MAX_LIST], n_list;              /* and the option of each */
  long long num[CLI_MAX_OPTS];
  double real[CLI_MAX_OPTS];
  const char *pos[CLI_MAX_POS]; int n_pos;
  const char *command;             /* as typed, as a shell reads it */
};

struct cli_verb {
  const char *name, *summary, *usage, *about, *example;
  const struct cli_opt *opts;      /* ends with name NULL */
  int (*run)(struct cli *c);       /* exit code */
};
extern const struct cli_verb cli_info, cli_tokenize, cli_logits, cli_acts, cli_depth, cli_probe,
    cli_runs, cli_world, cli_bench, cli_embed, cli_convert, cli_train, cli_study,
    cli_score, cli_lens, cli_vector, cli_run, cli_adapter, cli_patch, cli_trace,
    cli_heads;

extern const struct cli_verb cli_rerun;

/* main.c: all verbs, NULL at the end; one by name; a whole command, as if it had been typed. */
extern const struct cli_verb *const cli_verbs[];
const struct cli_verb *cli_verb_of(const char *name);
int cli_call(int argc, char **argv);
/* The option a word stands for (its length without "=..."), or -1. */
int cli_find_opt(const struct cli_verb *v, const char *given, size_t n);

/* pages.c: what the tables say to people, man and the shells. */
void cli_help(FILE *f);
void cli_verb_help(const struct cli_verb *v);
void cli_version(void);
void cli_man(void);
int cli_completion(const char *shell);

/* hints.c: what an option's value is, by what the help calls it. */
enum { CLI_MAX_WORD = 160 };
bool cli_choices(const struct cli_opt *o, char list[CLI_MAX_WORD]);      /* words with spaces */
bool cli_takes_file(const struct cli_opt *o);
/* The likeliest of the words that are offered one after the other for what was typed; best NULL:
 * none is near. */
struct cli_near { const char *given; size_t n; const char *best; size_t n_best; int distance; };
void cli_near_word(struct cli_near *near, const char *word, size_t n);

/* By option name without dashes ("at"): the value or NULL / fallback / false. */
const char *cli_text(const struct cli *c, const char *name);
long long cli_int(const struct cli *c, const char *name, long long absent);
double cli_real(const struct cli *c, const char *name, double absent);
bool cli_flag(const struct cli *c, const char *name);
/* depth_sides.c: noema depth with several models, --bits or --noise. Exit code. */
int cli_depth_sides(struct cli *c, const nm_depth_opts *o);
/* The values of an option that may stand several times: fills v[CLI_MAX_LIST], returns how many. */
int cli_list(const struct cli *c, const char *name, const char **v);

/* Prints "noema VERB: SENTENCE" to stderr; returns the exit code. */
int cli_fail(const struct cli *c, const nm_err *err);
int cli_usage(const struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Progress on stderr with rate and ETA; asks to stop after Ctrl-C. */
extern nm_progress cli_progress;
void cli_progress_end(void);
void cli_catch_interrupt(void);
bool cli_interrupted(void);
void cli_interrupt_over(void);           /* what it should end has ended; the program goes on */

/* Model, engine, edits and input sequences that several verbs share. */
struct cli_input {
  nm_model *m;
  nm_engine *e;
  nm_edits *edits;
  nm_adapters *adapters;
  nm_seq *seqs; size_t n;
  char **texts;                    /* NULL where ids were given */
};
#define CLI_LORA_OPTS \
  {"--lora", CLI_LIST, "F", "an adapter beside the weights: GGUF, or a folder of PEFT's"}, \
  {"--lora-scaled", CLI_PAIR, "F S", "the same times S (also F:S in one word)"}
#define CLI_KERNELS "portable|avx2|avx512|avx512bf16"
#define CLI_RUN_OPTS \
  {"-t, --threads", CLI_INT, "N", "threads (default: all cores)"}, \
  {"-c, --ctx", CLI_INT, "N", "context size (default: the model's)"}, \
  {"--chunk", CLI_INT, "N", "most positions of a text at once (default 512)"}, \
  {"--batch", CLI_INT, "N", "most texts at once (default: as many as fit)"}, \
  {"--act", CLI_TEXT, "f32|bf16", "products from f32 (default) or bf16 numbers"}, \
  {"--kernels", CLI_TEXT, CLI_KERNELS, "the instruction set (same bits)"}, \
  {"--gelu", CLI_TEXT, "tanh|erf", "form of GELU (default: as published; llama.cpp: tanh)"}, \
  {"--edit", CLI_LIST, "FILE", "edits of activations and weights (YAML, JSON); may be repeated"}, \
  {"--control-vector", CLI_LIST, "F.gguf", "a control vector, as in llama.cpp; may be repeated"}, \
  {"--control-vector-scaled", CLI_PAIR, "F S", "the same, times S (also F:S)"}, \
  {"--control-vector-layer-range", CLI_PAIR, "A B", "only blocks A to B (default: from 1 on)"}, \
  CLI_LORA_OPTS
#define CLI_CHAT_OPTS \
  {"--chat-template", CLI_TEXT, "NAME|FILE", "a family (chatml ...), native, or a Jinja file"}, \
  {"--chat-date", CLI_TEXT, "DATE", "what templates take for today (2026-01-31)"}, \
  {"--no-generation-prompt", CLI_FLAG, NULL, "leave out the beginning of the answer"}, \
  {"--show-prompt", CLI_FLAG, NULL, "print the prompt; what came from a user is underlined"}
#define CLI_INPUT_OPTS \
  {"--ids", CLI_TEXT, "\"1 2 3\"", "token ids"}, \
  {"-p, --prompt", CLI_TEXT, "TEXT", "one text"}, \
  {"--data", CLI_TEXT, "FILE", "one text a row: JSONL, JSON, CSV, TSV; or JSONL with \"ids\""}, \
  {"--column", CLI_TEXT, "NAME", "the column of --data that holds the text"}, \
  {"--no-bos", CLI_FLAG, NULL, "do not put the begin token in front"}, \
  {"--chat", CLI_FLAG, NULL, "each text is a user's turn in the model's chat template"}, \
  CLI_CHAT_OPTS
/* CLI_RUN_OPTS as the engine takes them. */
nm_engine_opts cli_engine_opts(const struct cli *c);
/* The model and engine; then the input. Exit code, 0 when all went well. */
int cli_open(struct cli *c, struct cli_input *in);
int cli_read_input(struct cli *c, struct cli_input *in);
/* The adapters of --lora and --lora-scaled, in the order typed; said on stderr. Status. */
int cli_adapters(struct cli *c, const nm_model *m, nm_adapters **out, nm_err *err);
/* chat.c: a conversation (JSON), or one user's turn, to ids by the options above. NULL ids: the
 * prompt is only shown. The shown prompt goes to `shown` (a FILE). Status of the library. */
int cli_chat(struct cli *c, const nm_model *m, const char *json, size_t n, void *shown,
             int32_t **ids, size_t *n_ids, nm_err *err);
int cli_chat_turn(struct cli *c, const nm_model *m, const char *text, int32_t **ids, size_t *n_ids,
                  nm_err *err);
/* run.c: what generating needs, told by the options; one answer, streamed as the options say. */
struct cli_gen {
  struct cli *c;
  struct cli_input in;
  nm_session *s;
  nm_generate_opts o;
  const char *stop[CLI_MAX_LIST];
  bool json, stream, verbose;
  size_t n_shown;                  /* bytes of the answer on stdout so far */
  char last;
  void *tops;                      /* JSON of the alternatives, [sample][step] */
  size_t n_prompt, n_computed, n_tokens;   /* of the last answer */
  double prompt_s, answer_s;
};
int cli_answer(struct cli_gen *g, const int32_t *ids, size_t n, nm_generated *out, nm_err *err);
void cli_print_answer(struct cli_gen *g, const nm_generated *out);
void cli_print_speed(const struct cli_gen *g);
void *cli_json_text(const char *s, size_t n);    /* json_t; bytes that are no UTF-8: U+FFFD */
/* talk.c: a conversation, a line a turn. Exit code. */
int cli_talk(struct cli_gen *g, const char *first);
char *cli_read_file(const char *path, size_t *n);        /* "-": standard input; NULL: cannot */
void cli_close(struct cli_input *in);
void cli_tell_edits(const struct cli_input *in);
void cli_print_memory(const nm_memory *m);
void cli_print_string(const char *s);    /* as JSON, on stdout */

#endif
