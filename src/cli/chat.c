/* chat.c - conversations on the command line: the template that was asked for, the prompt shown. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *cli_read_file(const char *path, size_t *n) {
  bool in = !strcmp(path, "-");
  FILE *f = in ? stdin : fopen(path, "rb");
  size_t cap = 1 << 16;
  char *s = f ? malloc(cap + 1) : NULL;
  *n = 0;
  for (size_t k; s && (k = fread(s + *n, 1, cap - *n, f)) > 0;) {
    *n += k;
    if (*n < cap) continue;
    char *bigger = realloc(s, (cap *= 2) + 1);
    if (!bigger) free(s);
    s = bigger;
  }
  if (f && !in) fclose(f);
  if (s) s[*n] = 0;
  return s;
}

/* The bytes as they are; on a terminal those of a user are underlined. */
static void show(FILE *f, const nm_prompt *p) {
  bool marks = isatty(fileno(f)) && !getenv("NO_COLOR"), on = false;
  for (size_t i = 0; i < p->n; i++) {
    if (marks && on != (p->user[i] != 0)) fputs((on = !on) ? "\033[4m" : "\033[24m", f);
    putc(p->text[i], f);
  }
  if (on) fputs("\033[24m", f);
  if (f == stderr && p->n && p->text[p->n - 1] != '\n') putc('\n', f);
}

static bool is_file(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* A family's name goes before a file of that name; @FILE is always a file. */
static int choose(const char *given, nm_chat_opts *o, char **source, nm_err *err) {
  bool file = *given == '@', family = false;
  for (int i = 0; nm_chat_family(i); i++) family = family || !strcmp(given, nm_chat_family(i));
  o->name = given + file;
  if (!file && (family || !strcmp(given, "native") || !is_file(given))) return 0;
  *source = cli_read_file(o->name, &o->n_source);
  o->source = *source;
  if (*source) return 0;
  snprintf(err->text, sizeof err->text, "%s: cannot be read", o->name);
  return err->status = NM_EFORMAT;
}

int cli_chat(struct cli *c, const nm_model *m, const char *json, size_t n, void *shown,
             int32_t **ids, size_t *n_ids, nm_err *err) {
  nm_chat_opts o = {.no_generation_prompt = cli_flag(c, "no-generation-prompt"),
                    .date = cli_text(c, "chat-date")};
  const char *given = cli_text(c, "chat-template");
  char *source = NULL;
  nm_prompt p = {0};
  int st = given ? choose(given, &o, &source, err) : 0;
  if (!st) st = nm_chat_render(m, json, n, &o, &p, err);
  if (!st && shown) show(shown, &p);
  if (!st && ids)
    st = nm_chat_tokenize(m, &p, cli_flag(c, "no-bos") ? NM_NO_BOS : 0, ids, n_ids, err);
  nm_prompt_free(&p);
  free(source);
  return st;
}

int cli_chat_turn(struct cli *c, const nm_model *m, const char *text, int32_t **ids, size_t *n_ids,
                  nm_err *err) {
  static const char head[] = "[{\"role\": \"user\", \"content\": \"", tail[] = "\"}]";
  size_t k = sizeof head - 1;
  char *json = malloc(sizeof head + sizeof tail + 6 * strlen(text));
  if (!json) return NM_EMEMORY;
  memcpy(json, head, k);
  for (; *text; text++) {
    unsigned char ch = (unsigned char)*text;
    if (ch == '"' || ch == '\\') json[k++] = '\\';
    if (ch < 0x20) k += (size_t)snprintf(json + k, 7, "\\u%04x", ch);
    else json[k++] = (char)ch;
  }
  memcpy(json + k, tail, sizeof tail);
  FILE *shown = cli_flag(c, "show-prompt") ? stderr : NULL;
  int st = cli_chat(c, m, json, k + sizeof tail - 1, shown, ids, n_ids, err);
  free(json);
  return st;
}
