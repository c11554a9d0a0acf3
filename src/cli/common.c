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

bool cli_interrupted(void) { return interrupted; }
void cli_interrupt_over(void) { interrupted = 0; }

static struct { char what[96]; double start, shown, first, last; bool tty, line; } P;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What stands behind a comma changes while the same work goes on: a loss, a speed. */
static bool same_work(const char *a, const char *b) {
  size_t n = strcspn(a, ","), k = strcspn(b, ",");
  return n == k && !strncmp(a, b, n);
}

static int show_progress(void *arg, const char *what, double done, double total) {
  (void)arg;
  double t = now();
  if (!same_work(P.what, what) || done < P.last) {       /* new work, or the same kind again */
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

/* "A:NUMBER"; the parser saw to the colon. */
static bool split_pair(const char *s, char *a, size_t n, double *number) {
  const char *colon = strrchr(s, ':');
  char *end;
  *number = colon ? strtod(colon + 1, &end) : 0;
  if (!colon || end == colon + 1 || *end || (size_t)(colon - s) >= n) return false;
  memcpy(a, s, (size_t)(colon - s));
  a[colon - s] = 0;
  return true;
}

static void tell_adapters(const struct cli *c, const nm_adapters *a) {
  for (int i = 0; i < nm_adapters_n(a); i++)
    fprintf(stderr, "noema %s: adapter: %s\n", c->verb->name, nm_adapters_what(a, i));
}

int cli_adapters(struct cli *c, const nm_model *m, nm_adapters **out, nm_err *err) {
  static char paths[CLI_MAX_LIST][4096];
  nm_adapter_file f[CLI_MAX_LIST];
  int n = 0;
  for (int i = 0; i < c->n_list; i++) {
    const char *name = c->verb->opts[c->list_opt[i]].name;
    if (!strcmp(name, "--lora")) f[n++] = (nm_adapter_file){c->list[i], 1};
    char *path = strcmp(name, "--lora-scaled") ? NULL : paths[n];
    if (path && !split_pair(c->list[i], path, sizeof paths[n], &f[n].scale)) {
      *err = (nm_err){NM_EUSAGE, "--lora-scaled takes a file and a number"};
      return err->status;
    }
    if (path) f[n++].path = path;
  }
  int st = nm_adapters_load(m, f, n, out, err);
  if (st) return st;
  tell_adapters(c, nm_model_adapters(m));
  tell_adapters(c, *out);
  return 0;
}

static int block_range(struct cli *c, int *from, int *to) {
  char a[32], *end = a;
  double b = 0;
  const char *s = cli_text(c, "control-vector-layer-range");
  *from = 1;
  *to = INT_MAX;
  if (!s) return 0;
  long first = split_pair(s, a, sizeof a, &b) ? strtol(a, &end, 10) : 0;
  if (end == a || *end || first < 1 || first > 1 << 20 || b != (int)b || b < (double)first)
    return cli_usage(c,
                     "--control-vector-layer-range takes two blocks from 1 on, for example 4 12");
  *from = (int)first;
  *to = (int)b;
  return 0;
}

/* --edit and --control-vector..., in the order typed. */
static int read_edits(struct cli *c, struct cli_input *in) {
  const char *v[CLI_MAX_LIST];
  nm_err err = {0};
  int from, to, st = block_range(c, &from, &to), n = st ? 0 : cli_list(c, "edit", v);
  for (int i = 0; i < n; i++) {
    nm_edits *e = NULL;
    if (nm_edits_load(v[i], &e, &err) || nm_edits_join(&in->edits, e, &err))
      return cli_fail(c, &err);
  }
  n = st ? 0 : cli_list(c, "control-vector", v);
  for (int i = 0; i < n; i++)
    if (nm_edits_add_control_vector(&in->edits, in->m, v[i], 1, from, to, &err))
      return cli_fail(c, &err);
  n = st ? 0 : cli_list(c, "control-vector-scaled", v);
  for (int i = 0; i < n; i++) {
    char path[4096];
    double scale;
    if (!split_pair(v[i], path, sizeof path, &scale))
      return cli_usage(c, "--control-vector-scaled takes a file and a number, not '%s'", v[i]);
    if (nm_edits_add_control_vector(&in->edits, in->m, path, scale, from, to, &err))
      return cli_fail(c, &err);
  }
  return st;
}

nm_engine_opts cli_engine_opts(const struct cli *c) {
  return (nm_engine_opts){.threads = (int)cli_int(c, "threads", 0),
                          .n_ctx = (int)cli_int(c, "ctx", 0),
                          .chunk = (int)cli_int(c, "chunk", 0),
                          .batch = (int)cli_int(c, "batch", 0),
                          .kernels = cli_text(c, "kernels"), .gelu = cli_text(c, "gelu"),
                          .act = cli_text(c, "act")};
}

int cli_open(struct cli *c, struct cli_input *in) {
  nm_err err = {0};
  *in = (struct cli_input){0};
  if (check_sizes(c)) return 2;
  cli_catch_interrupt();
  if (c->n_pos != 1)
    return cli_usage(c, c->n_pos ? "one MODEL is needed, not %d" : "a MODEL file is needed",
                     c->n_pos);
  if (nm_model_open(c->pos[0], &in->m, &err) || cli_adapters(c, in->m, &in->adapters, &err)) {
    cli_close(in);
    return cli_fail(c, &err);
  }
  nm_engine_opts o = cli_engine_opts(c);
  o.adapters = in->adapters;
  if (nm_engine_new(in->m, &o, &in->e, &err)) {
    cli_close(in);
    return cli_fail(c, &err);
  }
  int st = read_edits(c, in);
  if (st) {
    cli_close(in);
    return st;
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

static int no_prefix(nm_err *err) {
  *err = (nm_err){NM_EUSAGE, "--prefix goes in front of texts; ids were given"};
  return NM_EUSAGE;
}

/* Ids of a text with --prefix in front. */
static int encode(struct cli *c, struct cli_input *in, const char *text, nm_seq *out, nm_err *err) {
  int flags = cli_flag(c, "no-bos") ? NM_NO_BOS : 0, st;
  const char *prefix = cli_text(c, "prefix");
  size_t n = prefix ? strlen(prefix) : 0, k = strlen(text);
  int32_t *ids = NULL;
  if (cli_flag(c, "chat")) {
    st = cli_chat_turn(c, in->m, text, &ids, &out->n, err);
    out->ids = ids;
    return st;
  }
  char *whole = malloc(n + k + 1);
  if (!whole) return NM_EMEMORY;
  if (n) memcpy(whole, prefix, n);
  memcpy(whole + n, text, k);
  st = nm_tokenize(in->m, whole, n + k, flags, &ids, &out->n, err);
  out->ids = ids;
  free(whole);
  return st;
}

static int read_data(struct cli *c, struct cli_input *in, const char *path, nm_err *err) {
  nm_texts t;
  if (nm_texts_load(path, cli_text(c, "column"), &t, err)) return err->status;
  in->n = t.n;
  if (t.seq) {
    in->seqs = t.seq;
    free(t.text);
    if (cli_text(c, "prefix")) return no_prefix(err);
    return 0;
  }
  in->texts = t.text;
  in->seqs = calloc(t.n, sizeof *in->seqs);
  if (!in->seqs) return NM_EMEMORY;
  for (size_t i = 0; i < t.n; i++) {
    int st = encode(c, in, t.text[i], &in->seqs[i], err);
    if (st) return st;
  }
  return 0;
}

int cli_read_input(struct cli *c, struct cli_input *in) {
  nm_err err = {0};
  const char *ids = cli_text(c, "ids"), *prompt = cli_text(c, "prompt"),
             *data = cli_text(c, "data");
  if (!!ids + !!prompt + !!data != 1) return cli_usage(c, "give one of --ids, -p and --data");
  if (ids && cli_text(c, "prefix") && no_prefix(&err)) return cli_fail(c, &err);
  if (ids) return read_ids(c, in, ids);
  nm_seq one = {0};
  int st = data ? read_data(c, in, data, &err) : encode(c, in, prompt, &one, &err);
  if (st) return cli_fail(c, &err);
  return data ? 0 : one_seq(in, (int32_t *)(uintptr_t)one.ids, one.n);
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
  nm_adapters_free(in->adapters);
  nm_model_close(in->m);
  *in = (struct cli_input){0};
}

void cli_tell_edits(const struct cli_input *in) {
  for (int i = 0; i < nm_edits_n(in->edits); i++)
    fprintf(stderr, "edit %d: %s: %llu %s edited\n", i + 1, nm_edits_what(in->edits, i),
            (unsigned long long)nm_edits_touched(in->edits, i), nm_edits_unit(in->edits, i));
}

void cli_print_memory(const nm_memory *m) {
  uint64_t total = m->weights + m->kv + m->activations + m->base;
  printf("weights (mapped)  %10.1f MB\nKV cache          %10.1f MB\nactivations       %10.1f MB\n"
         "program           %10.1f MB\ntotal             %10.1f MB\n",
         (double)m->weights / 1e6, (double)m->kv / 1e6, (double)m->activations / 1e6,
         (double)m->base / 1e6, (double)total / 1e6);
}

/* Bytes of the UTF-8 character at s; 0 when there is none (a token may end inside of one). */
static int utf8(const unsigned char *s) {
  static const unsigned long least[] = {0, 0, 0x80, 0x800, 0x10000};
  int n = *s < 0x80 ? 1 : *s >> 5 == 6 ? 2 : *s >> 4 == 14 ? 3 : *s >> 3 == 30 ? 4 : 0;
  unsigned long code = n > 1 ? *s & (0xffu >> (n + 1)) : *s;
  for (int i = 1; i < n; i++) {
    if ((s[i] & 0xc0) != 0x80) return 0;
    code = code << 6 | (s[i] & 0x3f);
  }
  return code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : n;
}

/* A JSON string: quotes, backslashes and control bytes escaped; bytes that are no text are U+FFFD.
 */
void cli_print_string(const char *s) {
  putchar('"');
  while (s && *s) {
    unsigned char ch = (unsigned char)*s;
    int n = utf8((const unsigned char *)s);
    if (!n) printf("\\ufffd");
    else if (ch == '"' || ch == '\\') printf("\\%c", ch);
    else if (ch < 0x20) printf("\\u%04x", ch);
    else fwrite(s, 1, (size_t)n, stdout);
    s += n ? n : 1;
  }
  putchar('"');
}
