/* main.c - finds the verb, parses its options by its table, prints help. */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_verb *const verbs[] = {&cli_info, &cli_tokenize, &cli_logits,
                                               &cli_acts, &cli_depth,    &cli_probe,
                                               &cli_runs, &cli_world,    &cli_bench,
                                               &cli_embed, &cli_convert, &cli_train,
                                               &cli_study, &cli_score, &cli_lens, &cli_vector,
                                               &cli_run, &cli_adapter, &cli_patch,
                                               &cli_trace};
enum { N_VERBS = sizeof verbs / sizeof *verbs };

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

static int find_opt(const struct cli_verb *v, const char *given, size_t n) {
  for (int i = 0; v->opts[i].name; i++)
    if (answers(&v->opts[i], given, n)) return i;
  return -1;
}

static int by_name(const struct cli *c, const char *name) {
  char full[40];
  snprintf(full, sizeof full, "--%s", name);
  int i = find_opt(c->verb, full, strlen(full));
  if (i < 0) {
    snprintf(full, sizeof full, "-%s", name);
    i = find_opt(c->verb, full, strlen(full));
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

static int take_value(struct cli *c, int i, const char *value) {
  const struct cli_opt *o = &c->verb->opts[i];
  char *end = NULL;
  errno = 0;
  c->text[i] = value;
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
    int i = find_opt(c->verb, a, eq ? (size_t)(eq - a) : strlen(a));
    if (i < 0) return cli_usage(c, "unknown option '%s'", a);
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

/* ---- help ------------------------------------------------------------------ */

static void print_opts(FILE *f, const struct cli_verb *v) {
  for (int i = 0; v->opts[i].name; i++) {
    char left[64];
    snprintf(left, sizeof left, "%s%s %s", v->opts[i].name[1] == '-' ? "    " : "", v->opts[i].name,
             v->opts[i].arg ? v->opts[i].arg : "");
    fprintf(f, "  %-28s %s\n", left, v->opts[i].help);
  }
}

static void verb_help(FILE *f, const struct cli_verb *v) {
  fprintf(f, "noema %s - %s\n\nusage: noema %s\n\n%s\n\noptions:\n", v->name, v->summary, v->usage,
          v->about);
  print_opts(f, v);
  fprintf(f, "\nexample:\n%s\n", v->example);
}

static void help(FILE *f) {
  fprintf(f, "noema %s - what a language model knows, where it keeps it, and how to change it\n\n"
             "usage: noema VERB ... ; noema VERB --help\n\n", NM_VERSION);
  for (int i = 0; i < N_VERBS; i++) fprintf(f, "  %-12s %s\n", verbs[i]->name, verbs[i]->summary);
  fprintf(f, "\nTo begin:  noema info MODEL.gguf\n"
             "           noema depth MODEL.gguf --data sentences.csv\n"
             "Exit codes: 0 ok, 1 failed, 2 wrong use, 3 bad input file, 4 not enough memory,\n"
             "            5 a stated check failed, 6 cannot conclude, 130 interrupted\n");
}

/* roff text: backslashes and leading dots are escaped. */
static void roff(const char *s) {
  for (bool start = true; *s; start = *s++ == '\n') {
    if (start && (*s == '.' || *s == '\'')) fputs("\\&", stdout);
    if (*s == '\\' ) fputs("\\e", stdout);
    else if (*s == '-') fputs("\\-", stdout);
    else putchar(*s);
  }
}

static void man_page(void) {
  printf(".TH NOEMA 1 \"\" \"noema %s\" \"User Commands\"\n.SH NAME\nnoema \\- read the inside of "
         "a language "
         "model\n.SH SYNOPSIS\n.B noema\nVERB [options]\n.SH DESCRIPTION\nOpens GGUF language "
         "models on a plain "
         "CPU, reads and edits their activations, and shows at which layer a concept becomes "
         "readable.\n"
         ".SH VERBS\n",
         NM_VERSION);
  for (int i = 0; i < N_VERBS; i++) {
    printf(".SS ");
    roff(verbs[i]->usage);
    printf("\n");
    roff(verbs[i]->about);
    printf("\n");
    for (int k = 0; verbs[i]->opts[k].name; k++) {
      printf(".TP\n.B ");
      roff(verbs[i]->opts[k].name);
      printf(" %s\n", verbs[i]->opts[k].arg ? verbs[i]->opts[k].arg : "");
      roff(verbs[i]->opts[k].help);
      printf("\n");
    }
    printf(".PP\nExample:\n.PP\n.nf\n");
    roff(verbs[i]->example);
    printf("\n.fi\n");
  }
  printf(".SH EXIT STATUS\n0 ok, 1 failed, 2 wrong use, 3 bad input file, 4 not enough memory, 5 a "
         "stated check "
         "failed, 6 ran and cannot conclude, 130 interrupted.\n");
}

static void completion(void) {
  printf("# bash completion of noema: eval \"$(noema --completion)\"\n_noema() {\n  local "
         "v=${COMP_WORDS[1]}\n"
         "  if [ $COMP_CWORD = 1 ]; then COMPREPLY=($(compgen -W \"");
  for (int i = 0; i < N_VERBS; i++) printf("%s ", verbs[i]->name);
  printf("\" -- \"$2\")); return; fi\n  case $v in\n");
  for (int i = 0; i < N_VERBS; i++) {
    printf("    %s) o=\"", verbs[i]->name);
    for (int k = 0; verbs[i]->opts[k].name; k++) {
      const char *dash = strstr(verbs[i]->opts[k].name, "--");
      printf("%s ", dash ? dash : verbs[i]->opts[k].name);
    }
    printf("\" ;;\n");
  }
  printf("  esac\n  case $2 in -*) COMPREPLY=($(compgen -W \"$o\" -- \"$2\")) ;; *) "
         "COMPREPLY=($(compgen -f -- "
         "\"$2\")) ;; esac\n}\ncomplete -o filenames -F _noema noema\n");
}

static void keep_command(struct cli *c, int argc, char **argv) {
  size_t at = 0;
  for (int i = 0; i < argc && at + 4 < sizeof c->command; i++) {
    const char *a = i ? argv[i] : "noema";
    bool quote = !*a || strpbrk(a, " \t\n'\"$*?[]{}()<>|&;#`\\!");
    at += (size_t)snprintf(c->command + at, sizeof c->command - at, "%s%s%.900s%s", i ? " " : "",
                           quote ? "'" : "", a, quote ? "'" : "");
  }
}

static int run_verb(const struct cli_verb *v, int argc, char **argv) {
  static struct cli c;
  c.verb = v;
  keep_command(&c, argc, argv);
  for (int k = 2; k < argc; k++)
    if (!strcmp(argv[k], "--help") || !strcmp(argv[k], "-h")) {
      verb_help(stdout, v);
      return 0;
    }
  int st = parse(&c, argc - 2, argv + 2);
  if (st) return st;
  st = v->run(&c);
  if (fflush(stdout) || ferror(stdout)) {
    fprintf(stderr, "noema %s: the output could not be written\n", v->name);
    return st ? st : 1;
  }
  return st;
}

int main(int argc, char **argv) {
  const char *v = argc > 1 ? argv[1] : "";
  signal(SIGXFSZ, SIG_IGN);        /* a file that may not grow is an error like a full disk */
  if (!*v || !strcmp(v, "--help") || !strcmp(v, "-h") || !strcmp(v, "help"))
    return help(*v ? stdout : stderr), *v ? 0 : 2;
  if (!strcmp(v, "--version")) return printf("noema %s\n", NM_VERSION), 0;
  if (!strcmp(v, "--man")) return man_page(), 0;
  if (!strcmp(v, "--completion")) return completion(), 0;
  for (int i = 0; i < N_VERBS; i++)
    if (!strcmp(v, verbs[i]->name)) return run_verb(verbs[i], argc, argv);
  fprintf(stderr, "noema: unknown verb '%s'; noema --help lists them\n", v);
  return 2;
}
