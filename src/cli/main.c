/* main.c - finds the verb and parses its options by its table. */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct cli_verb *const cli_verbs[] = {&cli_info, &cli_tokenize, &cli_logits,
                                               &cli_acts, &cli_depth,    &cli_probe,
                                               &cli_runs, &cli_world,    &cli_bench,
                                               &cli_embed, &cli_convert, &cli_train,
                                               &cli_study, &cli_score, &cli_lens, &cli_vector,
                                               &cli_run, &cli_adapter, &cli_patch, &cli_rerun,
                                               &cli_trace, &cli_heads, NULL};

/* ---- options by the table ----------------------------------------------- */

/* "-p, --prompt" answers to "-p", "--prompt" and, for lookups, "prompt". */
static bool answers(const struct cli_opt *o, const char *given, size_t n) {
  const char *s = o->name;
  while (*s) {
    size_t k = strcspn(s, ", ");
    if (k == n && !memcmp(s, given, n)) return true;
    s += k;
    s += strspn(s, ", ");
  }
  return false;
}

int cli_find_opt(const struct cli_verb *v, const char *given, size_t n) {
  for (int i = 0; v->opts[i].name; i++)
    if (answers(&v->opts[i], given, n)) return i;
  return -1;
}

static int by_name(const struct cli *c, const char *name) {
  char full[40];
  snprintf(full, sizeof full, "--%s", name);
  int i = cli_find_opt(c->verb, full, strlen(full));
  if (i < 0) {
    snprintf(full, sizeof full, "-%s", name);
    i = cli_find_opt(c->verb, full, strlen(full));
  }
  return i;
}

const char *cli_text(const struct cli *c, const char *name) {
  int i = by_name(c, name);
  return i < 0 ? NULL : c->text[i];
}
long long cli_int(const struct cli *c, const char *name, long long absent) {
  int i = by_name(c, name);
  return i < 0 || !c->text[i] ? absent : c->num[i];
}
double cli_real(const struct cli *c, const char *name, double absent) {
  int i = by_name(c, name);
  return i < 0 || !c->text[i] ? absent : c->real[i];
}
bool cli_flag(const struct cli *c, const char *name) { return cli_text(c, name) != NULL; }

int cli_list(const struct cli *c, const char *name, const char **v) {
  int i = by_name(c, name), n = 0;
  for (int k = 0; k < c->n_list; k++)
    if (c->list_opt[k] == i) v[n++] = c->list[k];
  return n;
}

int cli_fail(const struct cli *c, const nm_err *err) {
  cli_progress_end();
  fprintf(stderr, "noema %s: %s\n", c->verb->name, err->text);
  return nm_exit_code(err->status);
}

int cli_usage(const struct cli *c, const char *fmt, ...) {
  va_list ap;
  fprintf(stderr, "noema %s: ", c->verb->name);
  va_start(ap, fmt);
  vfprintf(stderr, fmt, ap);
  va_end(ap);
  fprintf(stderr, "\nusage: noema %s\n       noema %s --help tells more\n", c->verb->usage,
          c->verb->name);
  return 2;
}

/* Whether the value is one of an option's choices, if it has any. */
static bool is_choice(const struct cli_opt *o, const char *value) {
  char list[CLI_MAX_WORD], *rest = list;
  if (!cli_choices(o, list)) return true;
  for (char *w; (w = strsep(&rest, " "));)
    if (!strcmp(w, value)) return true;
  return false;
}

static int take_value(struct cli *c, int i, const char *value) {
  const struct cli_opt *o = &c->verb->opts[i];
  char *end = NULL;
  errno = 0;
  c->text[i] = value;
  if (!is_choice(o, value))
    return cli_usage(c, "%s takes one of %s, not '%s'", o->name, o->arg, value);
  if (o->kind == CLI_INT) c->num[i] = strtoll(value, &end, 10);
  if (o->kind == CLI_REAL) c->real[i] = strtod(value, &end);
  if (end && (end == value || *end || errno))
    return cli_usage(c, "%s takes a number, not '%s'", o->name, value);
  if (o->kind == CLI_LIST || o->kind == CLI_PAIR) {
    if (c->n_list == CLI_MAX_LIST) return cli_usage(c, "%s: at most %d", o->name, CLI_MAX_LIST);
    c->list_opt[c->n_list] = i;
    c->list[c->n_list++] = value;
  }
  return 0;
}

/* Whether a pair's value is whole: it ends in ":NUMBER". */
static bool whole_pair(const char *s) {
  const char *colon = strrchr(s, ':');
  char *end = NULL;
  if (colon) strtod(colon + 1, &end);
  return colon && end > colon + 1 && !*end;
}

/* "A" and "B" as "A:B". It lives as long as the program. */
static char *joined(const char *a, const char *b) {
  size_t n = strlen(a) + strlen(b) + 2;
  char *s = malloc(n);
  if (s) snprintf(s, n, "%s:%s", a, b);
  return s;
}

static int unknown_option(struct cli *c, const char *given, size_t n) {
  struct cli_near near = {.given = given, .n = n};
  for (int i = 0; c->verb->opts[i].name; i++)
    for (const char *s = c->verb->opts[i].name; *s; s += strspn(s, ", ")) {
      size_t k = strcspn(s, ", ");
      cli_near_word(&near, s, k);
      s += k;
    }
  if (!near.best) return cli_usage(c, "unknown option '%s'", given);
  return cli_usage(c, "unknown option '%s'; did you mean %.*s?", given, (int)near.n_best,
                   near.best);
}

static int parse(struct cli *c, int argc, char **argv) {
  bool only_pos = false;
  for (int k = 0; k < argc; k++) {
    char *a = argv[k], *eq;
    if (only_pos || a[0] != '-' || !a[1]) {
      if (c->n_pos == CLI_MAX_POS) return cli_usage(c, "too many arguments: '%s'", a);
      c->pos[c->n_pos++] = a;
      continue;
    }
    if (!strcmp(a, "--")) { only_pos = true; continue; }
    eq = a[1] == '-' ? strchr(a, '=') : NULL;
    int i = cli_find_opt(c->verb, a, eq ? (size_t)(eq - a) : strlen(a));
    if (i < 0) return unknown_option(c, a, eq ? (size_t)(eq - a) : strlen(a));
    if (c->verb->opts[i].kind == CLI_FLAG) {
      if (eq) return cli_usage(c, "%.*s takes no value", (int)(eq - a), a);
      c->text[i] = "";
      continue;
    }
    if (!eq && k + 1 >= argc) return cli_usage(c, "%s needs a value (%s)", a, c->verb->opts[i].arg);
    const char *value = eq ? eq + 1 : argv[++k];
    if (c->verb->opts[i].kind == CLI_PAIR && !whole_pair(value)) {
      if (k + 1 >= argc) return cli_usage(c, "%s needs two values (%s)", a, c->verb->opts[i].arg);
      if (!(value = joined(value, argv[++k]))) return 4;
    }
    int st = take_value(c, i, value);
    if (st) return st;
  }
  return 0;
}

/* The words so that a shell, and config.json of a run, read the same ones again. */
static char *quoted(int argc, char **argv) {
  size_t n = 1, at = 0;
  for (int i = 0; i < argc; i++) n += 4 * strlen(argv[i]) + 3;
  char *s = malloc(n);
  for (int i = 0; s && i < argc; i++) {
    const char *a = i ? argv[i] : "noema";
    bool quote = !*a || strpbrk(a, " \t\r\n'\"$*?[]{}()<>|&;#`\\!~");
    if (i) s[at++] = ' ';
    if (quote) s[at++] = '\'';
    for (; *a; a++) {
      if (*a == '\'') at += (size_t)snprintf(s + at, n - at, "'\\''");
      else s[at++] = *a;
    }
    if (quote) s[at++] = '\'';
  }
  if (s) s[at] = 0;
  return s;
}

static int run_verb(const struct cli_verb *v, int argc, char **argv) {
  struct cli *c = calloc(1, sizeof *c);
  char *command = quoted(argc, argv);
  int st = c && command ? 0 : 4;
  if (!st) {
    c->verb = v;
    c->command = command;
    st = parse(c, argc - 2, argv + 2);
    if (!st) st = v->run(c);
  }
  free(command);
  free(c);
  if (fflush(stdout) || ferror(stdout)) {
    fprintf(stderr, "noema %s: the output could not be written\n", v->name);
    return st ? st : 1;
  }
  return st;
}

const struct cli_verb *cli_verb_of(const char *name) {
  for (int i = 0; cli_verbs[i]; i++)
    if (!strcmp(name, cli_verbs[i]->name)) return cli_verbs[i];
  return NULL;
}

static int unknown_verb(const char *given) {
  struct cli_near near = {.given = given, .n = strlen(given)};
  for (int i = 0; cli_verbs[i]; i++)
    cli_near_word(&near, cli_verbs[i]->name, strlen(cli_verbs[i]->name));
  fprintf(stderr, "noema: unknown verb '%s'%s%.*s%s; noema --help lists them\n", given,
          near.best ? ": did you mean '" : "", (int)near.n_best, near.best ? near.best : "",
          near.best ? "'?" : "");
  return 2;
}

int cli_call(int argc, char **argv) {
  const struct cli_verb *v = cli_verb_of(argv[1]);
  if (!v) return unknown_verb(argv[1]);
  for (int k = 2; k < argc; k++)
    if (!strcmp(argv[k], "--help") || !strcmp(argv[k], "-h")) return cli_verb_help(v), 0;
  return run_verb(v, argc, argv);
}

int main(int argc, char **argv) {
  const char *v = argc > 1 ? argv[1] : "";
  signal(SIGXFSZ, SIG_IGN);        /* a file that may not grow is an error like a full disk */
  if (!*v) return cli_help(stderr), 2;
  if (!strcmp(v, "--help") || !strcmp(v, "-h") || !strcmp(v, "help")) return cli_help(stdout), 0;
  if (!strcmp(v, "--version")) return cli_version(), 0;
  if (!strcmp(v, "--man")) return cli_man(), 0;
  if (!strcmp(v, "--completion")) return cli_completion(argc > 2 ? argv[2] : "bash");
  return cli_call(argc, argv);
}
