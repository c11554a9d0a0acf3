/* common.c - progress, Ctrl-C, and the input that several verbs share. */
#include "cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- progress ------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig) {
  (void)sig;
  if (interrupted) _exit(130);     /* a second Ctrl-C does not wait */
  interrupted = 1;
}

void cli_catch_interrupt(void) {
  struct sigaction sa = {.sa_handler = on_interrupt};
  sigaction(SIGINT, &sa, NULL);
  sigaction(SIGTERM, &sa, NULL);
}

static struct { char what[64]; double start, shown, first, last; bool tty, line; } P;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int show_progress(void *arg, const char *what, double done, double total) {
  (void)arg;
  double t = now();
  if (strcmp(P.what, what) || done < P.last) {       /* new work, or the same kind again */
    cli_progress_end();
    snprintf(P.what, sizeof P.what, "%s", what);
    P.start = P.shown = t;
    P.first = done;
    P.tty = isatty(2);
  }
  P.last = done;
  double every = P.tty ? 0.2 : 10.0;
  if (t - P.shown >= every && total > 0) {
    double rate = (done - P.first) / (t - P.start), left = rate > 0 ? (total - done) / rate : 0;
    fprintf(stderr, "%s%s: %.0f of %.0f, %.3g a second, %.0f s left%s", P.tty ? "\r" : "", what,
            done, total, rate, left, P.tty ? "\033[K" : "\n");
    P.line = P.tty;
    P.shown = t;
  }
  return interrupted;
}

nm_progress cli_progress = {show_progress, NULL};

void cli_progress_end(void) {
  if (P.line) fprintf(stderr, "\r\033[K");
  P.line = false;
  P.what[0] = 0;
}

/* ---- model and input --------------------------------------------------------- */

static int check_sizes(struct cli *c) {
  static const char *const name[] = {"threads", "ctx", "chunk", "batch"};
  for (int i = 0; i < 4; i++) {
    long long v = cli_int(c, name[i], 0);
    if (v < 0 || v > INT_MAX) return cli_usage(c, "--%s %lld is out of range", name[i], v);
  }
  return 0;
}

int cli_open(struct cli *c, struct cli_input *in) {
  nm_err err = {0};
  *in = (struct cli_input){0};
  if (check_sizes(c)) return 2;
  cli_catch_interrupt();
  if (c->n_pos != 1)
    return cli_usage(c, c->n_pos ? "one MODEL is needed, not %d" : "a MODEL file is needed",
                     c->n_pos);
  const char *act = cli_text(c, "act");
  if (act && strcmp(act, "f32")) return cli_usage(c, "--act %s is not available (known: f32)", act);
  if (nm_model_open(c->pos[0], &in->m, &err)) return cli_fail(c, &err);
  nm_engine_opts o = {.threads = (int)cli_int(c, "threads", 0), .n_ctx = (int)cli_int(c, "ctx", 0),
                      .chunk = (int)cli_int(c, "chunk", 0), .batch = (int)cli_int(c, "batch", 0),
                      .kernels = cli_text(c, "kernels")};
  const char *edit = cli_text(c, "edit");
  if (nm_engine_new(in->m, &o, &in->e, &err) || (edit && nm_edits_load(edit, &in->edits, &err))) {
    cli_close(in);
    return cli_fail(c, &err);
  }
  nm_model_info i;
  nm_model_describe(in->m, &i);
  if (*i.warning && !cli_text(c, "ids"))
    fprintf(stderr, "noema %s: warning: %s\n", c->verb->name, i.warning);
  return 0;
}

static int one_seq(struct cli_input *in, int32_t *ids, size_t n) {
  in->seqs = malloc(sizeof *in->seqs);
  if (!in->seqs) return 4;
  in->seqs[0] = (nm_seq){ids, n};
  in->n = 1;
  return 0;
}

static int read_ids(struct cli *c, struct cli_input *in, const char *s) {
  size_t n = 0, cap = 0;
  int32_t *v = NULL;
  while (*(s += strspn(s, " ,\t\r\n"))) {
    char *end;
    errno = 0;
    long x = strtol(s, &end, 10);
    if (end == s || errno || x < 0 || x > INT32_MAX) {
      free(v);
      return cli_usage(c, "--ids: '%.20s' is not a token id", s);
    }
    if (n == cap) v = realloc(v, (cap = cap ? 2 * cap : 64) * sizeof *v);
    if (!v) return 4;
    v[n++] = (int32_t)x;
    s = end;
  }
  if (!n) return free(v), cli_usage(c, "--ids: no token id given");
  return one_seq(in, v, n);
}

static int tokenize(struct cli *c, const struct cli_input *in, const char *text, int32_t **ids,
                    size_t *n, nm_err *err) {
  if (cli_flag(c, "chat")) return cli_chat_turn(c, in->m, text, ids, n, err);
  return nm_tokenize(in->m, text, strlen(text), cli_flag(c, "no-bos") ? NM_NO_BOS : 0, ids, n, err);
}

static int read_data(struct cli *c, struct cli_input *in, const char *path, nm_err *err) {
  nm_texts t;
  if (nm_texts_load(path, cli_text(c, "column"), &t, err)) return err->status;
  in->n = t.n;
  if (t.seq) {
    in->seqs = t.seq;
    free(t.text);
    return 0;
  }
  in->texts = t.text;
  in->seqs = calloc(t.n, sizeof *in->seqs);
  if (!in->seqs) return NM_EMEMORY;
  for (size_t i = 0; i < t.n; i++) {
    int32_t *ids;
    int st = tokenize(c, in, t.text[i], &ids, &in->seqs[i].n, err);
    if (st) return st;
    in->seqs[i].ids = ids;
  }
  return 0;
}

int cli_read_input(struct cli *c, struct cli_input *in) {
  nm_err err = {0};
  const char *ids = cli_text(c, "ids"), *prompt = cli_text(c, "prompt"),
             *data = cli_text(c, "data");
  if (!!ids + !!prompt + !!data != 1) return cli_usage(c, "give one of --ids, -p and --data");
  int st;
  if (ids) return read_ids(c, in, ids);
  if (data) {
    st = read_data(c, in, data, &err);
  } else {
    int32_t *v;
    size_t n;
    st = tokenize(c, in, prompt, &v, &n, &err);
    if (!st) return one_seq(in, v, n);
  }
  return st ? cli_fail(c, &err) : 0;
}

void cli_close(struct cli_input *in) {
  for (size_t i = 0; i < in->n; i++) {
    if (in->seqs) free((void *)(uintptr_t)in->seqs[i].ids);
    if (in->texts) free(in->texts[i]);
  }
  free(in->seqs);
  free(in->texts);
  nm_edits_free(in->edits);
  nm_engine_free(in->e);
  nm_model_close(in->m);
  *in = (struct cli_input){0};
}

void cli_tell_edits(const struct cli_input *in) {
  for (int i = 0; i < nm_edits_n(in->edits); i++)
    fprintf(stderr, "edit %d: %s: %llu positions edited\n", i + 1, nm_edits_what(in->edits, i),
            (unsigned long long)nm_edits_touched(in->edits, i));
}

void cli_print_memory(const nm_memory *m) {
  uint64_t total = m->weights + m->kv + m->activations + m->base;
  printf("weights (mapped)  %10.1f MB\nKV cache          %10.1f MB\nactivations       %10.1f MB\n"
         "program           %10.1f MB\ntotal             %10.1f MB\n",
         (double)m->weights / 1e6, (double)m->kv / 1e6, (double)m->activations / 1e6,
         (double)m->base / 1e6, (double)total / 1e6);
}

/* A JSON string: quotes, backslashes and control bytes escaped. */
void cli_print_string(const char *s) {
  putchar('"');
  for (; s && *s; s++) {
    unsigned char ch = (unsigned char)*s;
    if (ch == '"' || ch == '\\') printf("\\%c", ch);
    else if (ch < 0x20) printf("\\u%04x", ch);
    else putchar(ch);
  }
  putchar('"');
}
