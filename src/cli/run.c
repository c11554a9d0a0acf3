/* run.c - noema run: an answer to a prompt, several, or a conversation (talk.c). */
#include "cli/cli.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct cli_opt opts[] = {
    {"-m, --model", CLI_TEXT, "MODEL", "the model, where it is not the first argument"},
    {"-p, --prompt", CLI_TEXT, "TEXT", "the prompt (--chat: the first turn); -: standard input"},
    {"-f, --file", CLI_TEXT, "FILE", "the prompt from a file"},
    {"--ids", CLI_TEXT, "\"1 2 3\"", "the prompt as token ids"},
    {"-n, --predict", CLI_INT, "N", "most tokens; -1: any (default 256; --chat: any)"},
    {"--samples", CLI_INT, "N", "answers to one prompt, which is computed once (default 1)"},
    {"-s, --seed", CLI_INT, "N", "of the draws (default 0; -1: a new one each time)"},
    {"--temp", CLI_REAL, "T", "temperature; 0: always the likeliest token (default 0.8)"},
    {"--top-k", CLI_INT, "N", "draw among the N likeliest; 0: all (default 40)"},
    {"--top-p", CLI_REAL, "P", "among the fewest that hold P of it all; 1: off (default 0.95)"},
    {"--min-p", CLI_REAL, "P", "among those with P of the greatest; 0: off (default 0.05)"},
    {"--repeat-penalty", CLI_REAL, "X", "for tokens that stood there lately; 1: off (default 1)"},
    {"--repeat-last-n", CLI_INT, "N", "how lately; -1: all of the text (default 64)"},
    {"-r, --stop", CLI_LIST, "TEXT", "end where this is written; may stand several times"},
    {"--ignore-eos", CLI_FLAG, NULL, "never draw a token that ends the text"},
    {"-ctk, --cache-type-k", CLI_TEXT, "KIND", "keep keys as f32 (default) or f16"},
    {"-ctv, --cache-type-v", CLI_TEXT, "KIND", "the same for values"},
    {"-cnv, --chat", CLI_FLAG, NULL, "a conversation: a turn a line; /help there tells more"},
    {"-sys, --system-prompt", CLI_TEXT, "TEXT", "the system message of the conversation"},
    {"-st, --single-turn", CLI_FLAG, NULL, "end after the first answer of a conversation"},
    CLI_CHAT_OPTS,
    {"--echo", CLI_FLAG, NULL, "print the prompt in front of the answer"},
    {"--json", CLI_FLAG, NULL, "an object an answer: text, ids, why it ended"},
    {"--logprobs", CLI_FLAG, NULL, "with --json: the log-probability of each token"},
    {"--top-logprobs", CLI_INT, "N", "with --json: the N likeliest tokens at each step"},
    {"--no-bos", CLI_FLAG, NULL, "do not put the begin token in front"},
    {"--parse-special", CLI_FLAG, NULL, "control tokens written in the prompt become tokens"},
    {"-v, --verbose", CLI_FLAG, NULL, "tell speed and memory, also where it is no terminal"},
    CLI_RUN_OPTS,
    {0}};

/* ---- text as JSON --------------------------------------------------------------- */

/* Length of the character at s by the strict rules of UTF-8; 0: there is none. */
static size_t character(const char *s, size_t n) {
  unsigned char c = (unsigned char)*s, d = n > 1 ? (unsigned char)s[1] : 0;
  size_t len = c < 0x80 ? 1 : c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3
             : c >= 0xF0 && c < 0xF5 ? 4 : 0;
  if (len > n || (c == 0xE0 && d < 0xA0) || (c == 0xED && d > 0x9F) || (c == 0xF0 && d < 0x90) ||
      (c == 0xF4 && d > 0x8F))
    return 0;
  for (size_t i = 1; i < len; i++)
    if (((unsigned char)s[i] & 0xC0) != 0x80) return 0;
  return len;
}

void *cli_json_text(const char *s, size_t n) {
  char *v = malloc(3 * n + 1);
  size_t k = 0;
  for (size_t i = 0, len; v && i < n; i += len ? len : 1) {
    len = character(s + i, n - i);
    memcpy(v + k, len ? s + i : "\xEF\xBF\xBD", len ? len : 3);
    k += len ? len : 3;
  }
  json_t *j = v ? json_stringn_nocheck(v, k) : NULL;
  free(v);
  return j;
}

/* ---- one answer ------------------------------------------------------------------- */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void print_bytes(struct cli_gen *g, const char *s, size_t n) {
  if (!n) return;
  fwrite(s, 1, n, stdout);
  g->n_shown += n;
  g->last = s[n - 1];
}

static void keep_tops(struct cli_gen *g, const nm_token *t) {
  json_t *step = json_array();
  for (int i = 0; i < t->n_top; i++)
    json_array_append_new(step, json_pack("[i,f]", (int)t->top[i], t->top_logprob[i]));
  while (json_array_size(g->tops) <= (size_t)t->sample)
    json_array_append_new(g->tops, json_array());
  json_array_append_new(json_array_get(g->tops, (size_t)t->sample), step);
}

static int on_token(void *arg, const nm_token *t, nm_err *err) {
  struct cli_gen *g = arg;
  g->n_tokens += t->id >= 0;
  if (g->tops && t->id >= 0) keep_tops(g, t);
  if (g->stream) {
    print_bytes(g, t->text, t->n);
    nm_model_info i;
    nm_model_describe(g->in.m, &i);
    if (!*i.tokenizer && t->id >= 0) {
      char id[16];
      print_bytes(g, id, (size_t)snprintf(id, sizeof id, "%s%d", g->n_shown ? " " : "", t->id));
    }
    if (fflush(stdout)) return err->status = NM_EFAIL;     /* main tells */
  }
  if (!cli_interrupted()) return 0;
  snprintf(err->text, sizeof err->text, "interrupted");
  return err->status = NM_EINTR;
}

int cli_answer(struct cli_gen *g, const int32_t *ids, size_t n, nm_generated *out, nm_err *err) {
  nm_seq had = nm_session_ids(g->s, 0);
  size_t same = 0;
  while (same < had.n && same + 1 < n && had.ids[same] == ids[same]) same++;
  double t0 = now();
  int st = nm_session_rewind(g->s, 0, (int)same, err);
  if (!st) st = nm_session_append(g->s, 0, ids + same, n - same, err);
  cli_progress_end();
  if (st) return st;
  double t1 = now();
  g->n_prompt = n;
  g->n_computed = n - same;
  g->n_tokens = g->n_shown = 0;
  g->last = 0;
  g->prompt_s = t1 - t0;
  st = nm_generate(g->s, &g->o, out, err);
  g->answer_s = now() - t1;
  return st;
}

static json_t *as_json(const struct cli_gen *g, const nm_generated *a, int i) {
  json_t *ids = json_array(), *lp = json_array(), *o;
  for (size_t k = 0; k < a->n; k++) {
    json_array_append_new(ids, json_integer(a->ids[k]));
    if (a->logprob) json_array_append_new(lp, json_real(a->logprob[k]));
  }
  o = json_pack("{s:i,s:I,s:I,s:o,s:o,s:s}", "sample", g->o.first_sample + i, "seed",
                (json_int_t)g->o.sampler.seed, "prompt_tokens", (json_int_t)g->n_prompt, "text",
                cli_json_text(a->text, a->n_text), "ids", ids, "stop", nm_stop_name(a->stop));
  if (a->end >= 0) json_object_set_new(o, "end", json_integer(a->end));
  if (a->logprob) json_object_set(o, "logprobs", lp);
  if (a->logprob && a->end >= 0) json_object_set_new(o, "end_logprob", json_real(a->end_logprob));
  if (g->o.n_top) {
    json_t *tops = json_array_get(g->tops, (size_t)i);
    json_object_set_new(o, "top_logprobs", tops ? json_incref(tops) : json_array());
  }
  json_decref(lp);
  return o;
}

/* What was not streamed; a streamed answer gets the end of its line. */
void cli_print_answer(struct cli_gen *g, const nm_generated *out) {
  for (int i = 0; i < g->o.n_samples && !g->stream; i++) {
    if (!out[i].text) continue;
    if (g->json) {
      json_t *o = as_json(g, &out[i], i);
      json_dumpf(o, stdout, JSON_PRESERVE_ORDER);
      json_decref(o);
    } else {
      printf("--- sample %d, %s\n", i + 1, nm_stop_name(out[i].stop));
      fwrite(out[i].text, 1, out[i].n_text, stdout);
      for (size_t k = 0; k < out[i].n && !*out[i].text; k++) printf("%d ", out[i].ids[k]);
    }
    if (g->json || !out[i].n_text || out[i].text[out[i].n_text - 1] != '\n') putchar('\n');
  }
  if (g->stream && g->last != '\n') putchar('\n');
  fflush(stdout);
}

void cli_print_speed(const struct cli_gen *g) {
  if (!g->verbose) return;
  fprintf(stderr, "prompt: %zu tokens, %zu computed, %.1f a second; ", g->n_prompt, g->n_computed,
          (double)g->n_computed / g->prompt_s);
  fprintf(stderr, "answer: %zu tokens, %.1f a second; KV cache %.1f MB\n", g->n_tokens,
          (double)g->n_tokens / g->answer_s, (double)nm_session_kv_bytes(g->s) / 1e6);
}

/* ---- options ---------------------------------------------------------------------- */

static int read_options(struct cli *c, struct cli_gen *g) {
  bool chat = cli_flag(c, "chat");
  long long n = cli_int(c, "predict", chat ? -1 : 256), samples = cli_int(c, "samples", 1),
            seed = cli_int(c, "seed", 0), k = cli_int(c, "top-k", 40),
            last = cli_int(c, "repeat-last-n", 64), top = cli_int(c, "top-logprobs", 0);
  if (n < -1 || n > 1 << 30) return cli_usage(c, "-n %lld is out of range", n);
  if (samples < 1 || samples > 4096) return cli_usage(c, "--samples lies between 1 and 4096");
  if (chat && samples > 1) return cli_usage(c, "a conversation has one answer a turn");
  if (k < 0 || k > 1 << 30) return cli_usage(c, "--top-k %lld is out of range", k);
  if (last < -1 || last > 1 << 30)
    return cli_usage(c, "--repeat-last-n %lld is out of range", last);
  if (top < 0 || top > 1 << 20) return cli_usage(c, "--top-logprobs %lld is out of range", top);
  g->json = cli_flag(c, "json");
  if ((top || cli_flag(c, "logprobs")) && !g->json)
    return cli_usage(c, "--logprobs and --top-logprobs need --json");
  if (seed < 0) {
    seed = (long long)(((unsigned long long)time(NULL) << 20 ^ (unsigned long long)getpid()) >> 1);
    fprintf(stderr, "seed %lld\n", seed);
  }
  g->o = (nm_generate_opts){
      .sampler = {.temp = cli_real(c, "temp", 0.8), .top_k = (int)k,
                  .top_p = cli_real(c, "top-p", 0.95), .min_p = cli_real(c, "min-p", 0.05),
                  .repeat_penalty = cli_real(c, "repeat-penalty", 1), .seed = (uint64_t)seed,
                  .repeat_last_n = last ? (int)last : 1},
      .n_samples = (int)samples, .n_predict = (int)n, .stop = g->stop,
      .n_stop = cli_list(c, "stop", g->stop), .ignore_eos = cli_flag(c, "ignore-eos"),
      .logprobs = top || cli_flag(c, "logprobs"), .n_top = (int)top, .token = on_token, .arg = g};
  if (!last) g->o.sampler.repeat_penalty = 1;
  g->stream = !g->json && samples == 1;
  g->verbose = cli_flag(c, "verbose") || (isatty(2) && !g->json);
  g->tops = top ? json_array() : NULL;
  return 0;
}

/* The text of -p or -f, of a file without the newline at its end; NULL when there is none, or it
 * cannot be read (*st is the exit code). */
static char *prompt_text(struct cli *c, size_t *n, int *st) {
  const char *p = cli_text(c, "prompt"), *f = cli_text(c, "file");
  *st = 0;
  if (p && strcmp(p, "-")) {
    *n = strlen(p);
    return strdup(p);
  }
  if (p) f = "-";
  char *s = f ? cli_read_file(f, n) : NULL;
  nm_err err = {.status = NM_EFORMAT};
  if (s && *n && s[*n - 1] == '\n') s[--*n] = 0;
  if (f && !s) {
    snprintf(err.text, sizeof err.text, "%.500s: cannot be read", f);
    *st = cli_fail(c, &err);
  }
  return s;
}

static int ids_of_prompt(struct cli *c, struct cli_gen *g, int32_t **ids, size_t *n) {
  int flags = (cli_flag(c, "no-bos") ? NM_NO_BOS : 0) |
              (cli_flag(c, "parse-special") ? NM_PARSE_SPECIAL : 0), st;
  nm_err err = {0};
  size_t len;
  *ids = NULL;
  if (cli_text(c, "ids")) {
    if ((st = cli_read_input(c, &g->in))) return st;
    *n = g->in.seqs[0].n;
    *ids = malloc(*n * sizeof **ids);
    if (*ids) memcpy(*ids, g->in.seqs[0].ids, *n * sizeof **ids);
    return *ids ? 0 : 4;
  }
  char *text = prompt_text(c, &len, &st);
  if (!text) return st;
  st = nm_tokenize(g->in.m, text, len, flags, ids, n, &err);
  if (!st && !*n) {
    st = err.status = NM_EUSAGE;
    snprintf(err.text, sizeof err.text, "the prompt has no tokens");
  }
  if (!st && cli_flag(c, "echo")) fwrite(text, 1, len, stdout);
  free(text);
  return st ? cli_fail(c, &err) : 0;
}

static int one_prompt(struct cli *c, struct cli_gen *g) {
  nm_err err = {0};
  int32_t *ids;
  size_t n;
  int st = ids_of_prompt(c, g, &ids, &n);
  if (st) return nm_free(ids), st;
  nm_generated *out = calloc((size_t)g->o.n_samples, sizeof *out);
  st = out ? cli_answer(g, ids, n, out, &err) : NM_EMEMORY;
  nm_free(ids);
  if (out && (!st || st == NM_EINTR)) cli_print_answer(g, out);
  if (out) nm_generated_free(out, g->o.n_samples);
  free(out);
  if (st && st != NM_EINTR && !ferror(stdout)) return cli_fail(c, &err);
  cli_print_speed(g);
  cli_tell_edits(&g->in);
  return st ? nm_exit_code(st) : 0;
}

static int run_run(struct cli *c) {
  struct cli_gen g = {.c = c};
  nm_err err = {0};
  const char *model = cli_text(c, "model");
  int given = !!cli_text(c, "prompt") + !!cli_text(c, "file") + !!cli_text(c, "ids"), st;
  bool chat = cli_flag(c, "chat");
  if (model && c->n_pos) return cli_usage(c, "two models: %s and -m %s", c->pos[0], model);
  if (model) c->pos[c->n_pos++] = model;
  if (given > 1 || (!chat && !given))
    return cli_usage(c, "give one of -p, -f and --ids, or --chat");
  if (chat && cli_text(c, "ids")) return cli_usage(c, "a conversation takes text, not --ids");
  if ((st = read_options(c, &g)) || (st = cli_open(c, &g.in))) return json_decref(g.tops), st;
  nm_session_opts so = {.edits = g.in.edits, .type_k = cli_text(c, "cache-type-k"),
                        .type_v = cli_text(c, "cache-type-v"), .progress = &cli_progress};
  if (nm_session_new(g.in.e, &so, &g.s, &err)) st = cli_fail(c, &err);
  char *first = NULL;
  size_t n;
  if (!st && chat && given) first = prompt_text(c, &n, &st);
  if (!st) st = chat ? cli_talk(&g, first) : one_prompt(c, &g);
  free(first);
  nm_session_free(g.s);
  cli_close(&g.in);
  json_decref(g.tops);
  return st;
}

const struct cli_verb cli_run = {
    "run",
    "generate text, or talk",
    "run MODEL (-p TEXT | -f FILE | --ids IDS | --chat) [-n N] [--temp T] [-s SEED] [--edit FILE]",
    "Goes on with a prompt, token by token, or holds a conversation in the model's chat template.\n"
    "The same command gives the same answer; another --seed another one. The log-probabilities\n"
    "are those of noema logits, byte for byte.",
    "  noema run models/planted.gguf -p 'ann saw the red fox by night ?' -n 1 --temp 0",
    opts,
    run_run};
