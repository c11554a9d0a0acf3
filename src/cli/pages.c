/* pages.c - what the tables of the verbs say: to people (--help), to man, to bash and to zsh. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

/* ---- help ------------------------------------------------------------------ */

static void print_opts(const struct cli_verb *v) {
  for (const struct cli_opt *o = v->opts; o->name; o++) {
    char left[200];
    snprintf(left, sizeof left, "%s%s %s", o->name[1] == '-' ? "    " : "", o->name,
             o->arg ? o->arg : "");
    printf("  %-28s %s\n", left, o->help);
  }
}

void cli_verb_help(const struct cli_verb *v) {
  printf("noema %s - %s\n\nusage: noema %s\n\n%s\n\noptions:\n", v->name, v->summary, v->usage,
         v->about);
  print_opts(v);
  printf("\nexample:\n%s\n", v->example);
}

void cli_help(FILE *f) {
  fprintf(f, "noema %s - what a language model knows, where it keeps it, and how to change it\n\n"
             "usage: noema VERB ... ; noema VERB --help\n\n", NM_VERSION);
  for (int i = 0; cli_verbs[i]; i++)
    fprintf(f, "  %-12s %s\n", cli_verbs[i]->name, cli_verbs[i]->summary);
  fprintf(f, "\nTo begin:  noema info MODEL.gguf\n"
             "           noema depth MODEL.gguf --data sentences.csv\n"
             "Also:      noema --version, --man, --completion bash|zsh\n"
             "Exit codes: 0 ok, 1 failed, 2 wrong use, 3 bad input file, 4 not enough memory,\n"
             "            5 a stated check failed, 6 cannot conclude, 130 interrupted\n");
}

void cli_version(void) {
  char libraries[256];
  nm_libraries(libraries);
  printf("noema %s\nlibraries: %s\n", NM_VERSION, libraries);
}

/* ---- man ----------------------------------------------------------------------- */

/* roff text: backslashes, quotes and leading dots are escaped; runs of spaces stay in examples
 * only, where lines are not filled. */
static void roff(const char *s) {
  for (bool start = true; *s; start = *s++ == '\n') {
    if (start && (*s == '.' || *s == '\'')) fputs("\\&", stdout);
    if (*s == '\\') fputs("\\e", stdout);
    else if (*s == '-') fputs("\\-", stdout);
    else if (*s == '"') fputs("\\(dq", stdout);
    else if (*s == '~') fputs("\\(ti", stdout);
    else if (*s == '^') fputs("\\(ha", stdout);
    else if (*s == '`') fputs("\\(ga", stdout);
    else if (*s == '\'') fputs("\\(aq", stdout);
    else putchar(*s);
  }
}

/* A macro with text behind it, as one word. */
static void macro(const char *name, const char *a, const char *b) {
  printf(".%s \"", name);
  roff(a);
  if (b) putchar(' '), roff(b);
  printf("\"\n");
}

static void man_verb(const struct cli_verb *v) {
  macro("SS", "noema", v->name);
  printf(".nf\n");
  roff(v->usage);
  printf("\n.fi\n.PP\n");
  roff(v->about);
  putchar('\n');
  for (const struct cli_opt *o = v->opts; o->name; o++) {
    printf(".TP\n");
    macro("B", o->name, o->arg);
    roff(o->help);
    putchar('\n');
  }
  printf(".PP\nExample:\n.PP\n.nf\n");
  roff(v->example);
  printf("\n.fi\n");
}

void cli_man(void) {
  printf(".TH NOEMA 1 \"\" \"noema %s\" \"User Commands\"\n.SH NAME\nnoema \\- what a language "
         "model knows, where it keeps it, and how to change it\n.SH SYNOPSIS\n.B noema\n"
         ".I VERB\n[options]\n.SH DESCRIPTION\nOpens language models (GGUF, safetensors) on a "
         "plain CPU, reads and edits their activations, trains them, and shows at which layer a "
         "concept becomes readable.\nResults go to standard output, talk to standard error.\n"
         ".SH VERBS\n", NM_VERSION);
  for (int i = 0; cli_verbs[i]; i++) man_verb(cli_verbs[i]);
  printf(".SH EXIT STATUS\n0 ok, 1 failed, 2 wrong use, 3 bad input file, 4 not enough memory, 5 a "
         "stated check failed, 6 ran and cannot conclude, 130 interrupted.\n"
         ".SH FILES\n.TP\n.I runs.db\nthe records of the runs in the folders beside it\n"
         ".TP\n.I config.json\nin the folder of a run: how it was made\n");
}

/* ---- completion -------------------------------------------------------------------- */

/* What the first argument of a verb may be, where it is no file. */
static const char *const parts[][2] = {{"runs", "list find show compare clean"},
                                       {"adapter", "show convert merge"},
                                       {"vector", "make sweep add sub scale show"},
                                       {"world", "planted planted-a planted-b"},
                                       {"study", ""}};
enum { N_PARTS = sizeof parts / sizeof *parts };

static bool has_words(const struct cli_verb *v) {
  for (int i = 0; i < N_PARTS; i++)
    if (!strcmp(v->name, parts[i][0])) return true;
  return false;
}

static void first_words(const struct cli_verb *v) {
  nm_world_info w;
  nm_study_info s;
  for (int i = 0; i < N_PARTS; i++)
    if (!strcmp(v->name, parts[i][0])) printf("%s", parts[i][1]);
  for (int i = 0; !strcmp(v->name, "world") && nm_worlds(i, &w); i++) printf(" %s", w.name);
  for (int i = 0; !strcmp(v->name, "study") && nm_studies(i, &s); i++) printf(" %s", s.name);
}

/* "-o|--out" */
static void bash_names(const struct cli_opt *o) {
  for (const char *s = o->name; *s; s++)
    if (*s == ',') putchar('|');
    else if (*s != ' ') putchar(*s);
}

/* Names of options; behind one that takes a value, what it takes. */
static void bash_verb(const struct cli_verb *v) {
  char list[CLI_MAX_WORD];
  printf("    %s)\n      o='", v->name);
  for (const struct cli_opt *o = v->opts; o->name; o++) {
    const char *dash = strstr(o->name, "--");
    printf("%s ", dash ? dash : o->name);
  }
  printf("' p='");
  first_words(v);
  printf("'\n      case $prev in\n");
  for (const struct cli_opt *o = v->opts; o->name; o++) {
    if (o->kind == CLI_FLAG) continue;
    printf("        ");
    bash_names(o);
    if (cli_choices(o, list)) printf(") w='%s' ;;\n", list);
    else printf(") %s ;;\n", cli_takes_file(o) ? "files=1" : "free=1");
  }
  printf("      esac ;;\n");
}

static void bash(void) {
  printf("# bash completion of noema: eval \"$(noema --completion bash)\"\n_noema() {\n"
         "  local cur=$2 prev=$3 verb=${COMP_WORDS[1]} o= p= w= files= free=\n  COMPREPLY=()\n"
         "  if [ \"$COMP_CWORD\" = 1 ]; then\n    COMPREPLY=($(compgen -W '");
  for (int i = 0; cli_verbs[i]; i++) printf("%s ", cli_verbs[i]->name);
  printf("--help --version' -- \"$cur\"))\n    return\n  fi\n  case $verb in\n");
  for (int i = 0; cli_verbs[i]; i++) bash_verb(cli_verbs[i]);
  printf("  esac\n"
         "  if [ -n \"$w\" ]; then COMPREPLY=($(compgen -W \"$w\" -- \"$cur\")); return; fi\n"
         "  if [ -n \"$free\" ]; then return; fi\n"
         "  if [ -z \"$files\" ] && [ \"${cur:0:1}\" = - ]; then\n"
         "    COMPREPLY=($(compgen -W \"$o --help\" -- \"$cur\"))\n    return\n  fi\n"
         "  if [ -z \"$files\" ] && [ -n \"$p\" ] && [ \"$COMP_CWORD\" = 2 ]; then\n"
         "    COMPREPLY=($(compgen -W \"$p\" -- \"$cur\"))\n    return\n  fi\n"
         "  mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n}\n"
         "complete -o filenames -F _noema noema\n");
}

/* Text inside '...[TEXT]' of zsh's _arguments. */
static void zsh_text(const char *s) {
  for (; *s; s++) {
    if (*s == '\'') fputs("'\\''", stdout);
    else if (strchr("[]:\\", *s)) printf("\\%c", *s);
    else putchar(*s);
  }
}

static void zsh_opt(const struct cli_opt *o) {
  char list[CLI_MAX_WORD];
  const char *comma = strchr(o->name, ',');
  const char *again = o->kind == CLI_LIST || o->kind == CLI_PAIR ? "*" : "";
  if (comma)
    printf("        '%s'{%.*s,%s}'[", again, (int)(comma - o->name), o->name, comma + 2);
  else printf("        '%s%s[", again, o->name);
  zsh_text(o->help);
  putchar(']');
  if (o->kind != CLI_FLAG) {
    putchar(':');
    zsh_text(o->arg ? o->arg : "value");
    putchar(':');
    if (cli_choices(o, list)) printf("(%s)", list);
    else if (cli_takes_file(o)) printf("_files");
  }
  printf("' \\\n");
}

static void zsh(void) {
  printf("#compdef noema\n# zsh completion of noema: noema --completion zsh > ~/.zfunc/_noema\n"
         "_noema() {\n  local -a verbs\n  verbs=(\n");
  for (int i = 0; cli_verbs[i]; i++) {
    printf("    '%s:", cli_verbs[i]->name);
    zsh_text(cli_verbs[i]->summary);
    printf("'\n");
  }
  printf("  )\n  if (( CURRENT == 2 )); then _describe verb verbs; return; fi\n"
         "  local verb=$words[2]\n  shift words\n  (( CURRENT-- ))\n  case $verb in\n");
  for (int i = 0; cli_verbs[i]; i++) {
    printf("    %s)\n      _arguments \\\n", cli_verbs[i]->name);
    for (const struct cli_opt *o = cli_verbs[i]->opts; o->name; o++) zsh_opt(o);
    if (has_words(cli_verbs[i])) {
      printf("        '1:first:(");
      first_words(cli_verbs[i]);
      printf(")' ");
    }
    printf("'*:file:_files' ;;\n");
  }
  printf("  esac\n}\n_noema \"$@\"\n");
}

int cli_completion(const char *shell) {
  if (!strcmp(shell, "bash")) return bash(), 0;
  if (!strcmp(shell, "zsh")) return zsh(), 0;
  fprintf(stderr, "noema --completion: bash or zsh, not '%s'\n", shell);
  return 2;
}
