/* talk.c - a conversation with a model, a turn a line. Keys and values of what was said before
 * stay; a turn computes what the template makes new. */
#include "cli/cli.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct talk {
  struct cli_gen *g;
  json_t *said;                    /* [{"role", "content"}] */
  bool typed;                      /* standard input is a terminal */
  int turn;
};

static const char help[] =
    "  /reset        forget the conversation, not the system message\n"
    "  /undo         forget the last question and its answer\n"
    "  /system TEXT  another system message; without TEXT: none\n"
    "  /save FILE    write the conversation (JSON), /load FILE reads one\n"
    "  /quit         end (also Ctrl-D); Ctrl-C ends an answer\n"
    "  //text        a turn that begins with /;  a line ending in \\ goes on in the next\n";

static void note(const char *what, const char *more) { fprintf(stderr, "%s%s\n", what, more); }

static const char *role(const struct talk *t, size_t i) {
  return json_string_value(json_object_get(json_array_get(t->said, i), "role"));
}

static void say(struct talk *t, const char *who, const char *text, size_t n) {
  json_t *content = cli_json_text(text, n);
  json_array_append_new(t->said, json_pack("{s:s,s:o}", "role", who, "content", content));
}

static void set_system(struct talk *t, const char *text) {
  bool had = json_array_size(t->said) && !strcmp(role(t, 0), "system");
  if (had) json_array_remove(t->said, 0);
  if (!*text) return;
  json_t *content = cli_json_text(text, strlen(text));
  json_array_insert_new(t->said, 0, json_pack("{s:s,s:o}", "role", "system", "content", content));
}

/* Forgets messages from the end, down to and with the last user's. */
static bool undo(struct talk *t) {
  size_t n = json_array_size(t->said), i = n;
  while (i > 0 && strcmp(role(t, i - 1), "user")) i--;
  if (!i) return false;
  while (json_array_size(t->said) >= i) json_array_remove(t->said, json_array_size(t->said) - 1);
  return true;
}

static void load(struct talk *t, const char *path) {
  json_error_t e;
  json_t *j = json_load_file(path, 0, &e), *m;
  size_t i;
  bool ok = json_is_array(j);
  json_array_foreach(j, i, m)
    ok = ok && json_is_string(json_object_get(m, "role")) &&
         json_is_string(json_object_get(m, "content"));
  if (ok) {
    json_decref(t->said);
    t->said = json_incref(j);
    note("loaded ", path);
  } else {
    fprintf(stderr, "%s: is no conversation%s%s\n", path, j ? "" : ": ", j ? "" : e.text);
  }
  json_decref(j);
}

/* A line that begins with /; false: the conversation ends. */
static bool command(struct talk *t, char *line) {
  size_t n = strcspn(line, " ");
  char *arg = line + n + strspn(line + n, " ");
  line[n] = 0;
  if (!strcmp(line, "/quit") || !strcmp(line, "/exit")) return false;
  if (!strcmp(line, "/help")) {
    fputs(help, stderr);
  } else if (!strcmp(line, "/reset")) {
    while (undo(t)) continue;
    note("forgotten", "");
  } else if (!strcmp(line, "/undo")) {
    note(undo(t) ? "forgotten: the last turn" : "there is no turn to forget", "");
  } else if (!strcmp(line, "/system")) {
    set_system(t, arg);
    note(*arg ? "another system message" : "no system message", "");
  } else if (!strcmp(line, "/load") && *arg) {
    load(t, arg);
  } else if (!strcmp(line, "/save") && *arg) {
    bool bad = json_dump_file(t->said, arg, JSON_INDENT(1)) != 0;
    note(bad ? "cannot be written: " : "saved ", arg);
  } else {
    bool file = !strcmp(line, "/load") || !strcmp(line, "/save");
    note(line, file ? " needs a FILE" : " is not known; /help tells what is");
  }
  return true;
}

/* One turn: the user's text is the last message. The exit code; 0 also when the turn had to be
 * given up on a terminal. */
static int answer(struct talk *t) {
  struct cli_gen *g = t->g;
  nm_err err = {0};
  nm_generated out = {0};
  int32_t *ids = NULL;
  size_t n = 0;
  char *json = json_dumps(t->said, JSON_COMPACT);
  bool shown = cli_flag(g->c, "show-prompt");
  g->o.first_sample = t->turn++;
  if (g->tops) json_array_clear(g->tops);
  int st = json ? cli_chat(g->c, g->in.m, json, strlen(json), shown ? stderr : NULL, &ids, &n, &err)
                : NM_EMEMORY;
  if (!st) st = cli_answer(g, ids, n, &out, &err);
  nm_free(ids);
  free(json);
  if (out.text) {
    cli_print_answer(g, &out);
    say(t, "assistant", out.text, out.n_text);
    cli_print_speed(g);
    if (out.stop == NM_STOP_CONTEXT) note("the context is full: /undo or /reset makes room", "");
  } else {
    undo(t);
  }
  nm_generated_free(&out, 1);
  if (st == NM_EINTR && t->typed) {
    cli_interrupt_over();
    return 0;
  }
  if (!st || st == NM_EINTR || ferror(stdout)) return nm_exit_code(st);
  int code = cli_fail(g->c, &err);
  return t->typed && st == NM_EUSAGE ? 0 : code;
}

/* The next line without its end, joined while it ends in a backslash. NULL: there is none. */
static char *next_line(const struct talk *t) {
  char *line = NULL, *all = NULL;
  size_t cap = 0, len = 0;
  if (t->typed) fputs("> ", stderr);
  for (ssize_t n; (n = getline(&line, &cap, stdin)) >= 0;) {
    if (n && line[n - 1] == '\n') n--;
    bool more = n && line[n - 1] == '\\';
    if (more) line[n - 1] = '\n';
    char *v = realloc(all, len + (size_t)n + 1);
    if (!v) break;
    all = v;
    memcpy(all + len, line, (size_t)n);
    all[len += (size_t)n] = 0;
    if (!more) break;
  }
  free(line);
  return all;
}

int cli_talk(struct cli_gen *g, const char *first) {
  struct talk t = {.g = g, .said = json_array(), .typed = isatty(0)};
  const char *system = cli_text(g->c, "system-prompt");
  bool once = cli_flag(g->c, "single-turn");
  int st = 0;
  if (system) set_system(&t, system);
  if (first) {
    say(&t, "user", first, strlen(first));
    st = answer(&t);
  }
  if (t.typed && !(first && once)) note("A turn a line; /help tells more.", "");
  while (!st && !(once && t.turn)) {
    char *line = next_line(&t);
    bool goes_on = line && !cli_interrupted();
    if (goes_on && line[0] == '/' && line[1] != '/') {
      goes_on = command(&t, line);
    } else if (goes_on && *line) {
      char *text = line + (line[0] == '/');
      say(&t, "user", text, strlen(text));
      st = answer(&t);
    }
    free(line);
    if (!goes_on) break;
  }
  if (!st && cli_interrupted()) st = nm_exit_code(NM_EINTR);
  if (t.typed && st) fputc('\n', stderr);
  cli_tell_edits(&g->in);
  json_decref(t.said);
  return st;
}
