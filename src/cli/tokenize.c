/* tokenize.c - noema tokenize: text on stdin to ids, or the reverse. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_opt opts[] = {
    {"--ids", CLI_FLAG, NULL, "print ids on one line (the default prints a token a line)"},
    {"--json", CLI_FLAG, NULL, "print a JSON array of ids"},
    {"--decode", CLI_FLAG, NULL, "the reverse: ids on stdin, text on stdout"},
    {"--no-bos", CLI_FLAG, NULL, "do not put the begin token in front"},
    {"--parse-special", CLI_FLAG, NULL, "control tokens written in the text become tokens"},
    {"--chat", CLI_TEXT, "FILE", "a conversation as JSON (-: standard input) instead of a text"},
    CLI_CHAT_OPTS,
    {0}};

static int decode(struct cli *c, const nm_model *m, const char *s) {
  nm_err err = {0};
  size_t n = 0, cap = 1024, len;
  int32_t *ids = malloc(cap * sizeof *ids);
  while (ids && *(s += strspn(s, " ,\t\r\n[]"))) {
    char *end;
    long x = strtol(s, &end, 10);
    if (end == s) return free(ids), cli_usage(c, "--decode: '%.20s' is not a token id", s);
    if (n == cap) ids = realloc(ids, (cap *= 2) * sizeof *ids);
    if (ids) ids[n++] = x < 0 || x > INT32_MAX ? -1 : (int32_t)x;
    s = end;
  }
  char *text = NULL;
  int st = ids ? nm_detokenize(m, ids, n, &text, &len, &err) : NM_EMEMORY;
  if (!st) fwrite(text, 1, len, stdout);
  nm_free(text);
  free(ids);
  return st ? cli_fail(c, &err) : 0;
}

static void print_ids(const struct cli *c, const nm_model *m, const int32_t *ids, size_t n) {
  bool json = cli_flag(c, "json");
  if (json || cli_flag(c, "ids")) {
    for (size_t i = 0; i < n; i++) printf("%s%d", i ? json ? ", " : " " : json ? "[" : "", ids[i]);
    printf("%s\n", json ? n ? "]" : "[]" : "");
    return;
  }
  for (size_t i = 0; i < n; i++) {
    char *t = nm_token_text(m, ids, i, false);
    if (t) {
      printf("%8d  '", ids[i]);
      for (const char *ch = t; *ch; ch++)
        if (*ch == '\n') fputs("\\n", stdout);
        else putchar(*ch);
      puts("'");
    }
    nm_free(t);
  }
}

/* --show-prompt alone prints the prompt; with --ids or --json it goes to stderr. */
static int chat(struct cli *c, const nm_model *m, const char *path) {
  nm_err err = {0};
  size_t n, n_ids;
  int32_t *ids = NULL;
  char *json = cli_read_file(path, &n);
  if (!json) return cli_usage(c, "--chat %s: cannot be read", path);
  bool print = cli_flag(c, "ids") || cli_flag(c, "json") || !cli_flag(c, "show-prompt");
  FILE *shown = !cli_flag(c, "show-prompt") ? NULL : print ? stderr : stdout;
  int st = cli_chat(c, m, json, n, shown, print ? &ids : NULL, &n_ids, &err);
  free(json);
  if (st) return cli_fail(c, &err);
  if (print) print_ids(c, m, ids, n_ids);
  nm_free(ids);
  return 0;
}

static int run(struct cli *c) {
  nm_err err = {0};
  nm_model *m;
  if (c->n_pos != 1) return cli_usage(c, "one MODEL file is needed");
  if (nm_tokenizer_open(c->pos[0], &m, &err)) return cli_fail(c, &err);
  nm_model_info info;
  nm_model_describe(m, &info);
  if (*info.warning) fprintf(stderr, "noema tokenize: warning: %s\n", info.warning);
  if (cli_text(c, "chat")) {
    int rc = chat(c, m, cli_text(c, "chat"));
    nm_model_close(m);
    return rc;
  }
  size_t n, n_ids;
  char *s = cli_read_file("-", &n);
  int32_t *ids = NULL;
  int st = s ? 0 : 4;
  if (s && cli_flag(c, "decode")) {
    st = decode(c, m, s);
  } else if (s) {
    int flags = (cli_flag(c, "no-bos") ? NM_NO_BOS : 0) |
                (cli_flag(c, "parse-special") ? NM_PARSE_SPECIAL : 0);
    if (nm_tokenize(m, s, n, flags, &ids, &n_ids, &err)) st = cli_fail(c, &err);
    else print_ids(c, m, ids, n_ids);
  }
  nm_free(ids);
  free(s);
  nm_model_close(m);
  return st;
}

const struct cli_verb cli_tokenize = {
    "tokenize",
    "text to token ids and back",
    "tokenize MODEL [--ids | --json] [--decode | --chat FILE [--show-prompt]] < TEXT",
    "Reads text from standard input, byte for byte (a final newline is text too), and prints\nits "
    "tokens. Works on "
    "vocabulary-only files.",
    "  printf 'ann saw the red fox' | noema tokenize models/planted.gguf --ids",
    opts,
    run};
