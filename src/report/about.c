/* about.c - config.json of a run's folder: the command as typed, where, with which version on which
 * machine, the hashes of what it read, and the settings that the verb adds. Every verb that leaves
 * a run comes through nm__runs_begin, and so through here. */
#include "report/report.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { MOST_INPUTS = 256, MOST_TEXT = 1 << 20, MOST_VALUES = 1 << 16, MOST_WORDS = 4096 };

/* ---- a command and its words ------------------------------------------------ */

/* One word of a command as a POSIX shell reads it; NULL at the end. */
static const char *word(const char *s, struct nm__buf *w) {
  s += strspn(s, " ");
  if (!*s) return NULL;
  for (char quote = 0; *s && (quote || *s != ' '); s++) {
    if (*s == '\'') quote = quote ? 0 : '\'';
    else if (*s == '\\' && !quote && s[1]) nm__buf_putc(w, *++s);
    else nm__buf_putc(w, *s);
  }
  return s;
}

/* A JSON list. Words that are no UTF-8 become JSON's only way of bytes: shown, not kept. */
static json_t *words(const char *command) {
  struct nm__buf w;
  json_t *list = json_array();
  nm__buf_init(&w, MOST_TEXT);
  for (const char *s = command ? command : ""; (s = word(s, &w));) {
    json_array_append_new(list, nm__json_text_n(w.s ? w.s : "", w.len));
    nm__buf_reset(&w);
  }
  nm__buf_done(&w);
  return list;
}

/* ---- what it reads ------------------------------------------------------------ */

struct inputs { json_t *list; char own[PATH_MAX]; };

/* The run's own folder and what it lies in are no inputs. */
static bool is_own(const struct inputs *in, const char *real) {
  size_t n = strlen(real), k = strlen(in->own);
  if (!strncmp(real, in->own, k) && (!real[k] || real[k] == '/')) return true;
  return !strncmp(in->own, real, n) && (in->own[n] == '/' || n == 1);
}

static bool holds(const char *dir, const char *name) {
  char *path = nm__path_join(dir, name);
  bool yes = path && nm__exists(path);
  free(path);
  return yes;
}

static void named_in(struct inputs *in, const char *path);

/* All pieces of NAME-00001-of-00003.gguf. */
static void add(struct inputs *in, const char *path);
static void add_pieces(struct inputs *in, const char *path) {
  size_t n = strlen(path);
  char *copy = n > 20 ? nm__strdup(path) : NULL;
  int no, of, used = 0;
  if (copy && sscanf(copy + n - 20, "-%5d-of-%5d.gguf%n", &no, &of, &used) == 2 && used == 20) {
    for (int i = 1; i <= of && i <= MOST_INPUTS; i++) {
      if (i == no) continue;
      snprintf(copy + n - 20, 21, "-%05d-of-%05d.gguf", i % 100000, of % 100000);
      add(in, copy);
    }
  }
  free(copy);
}

/* A file, or a folder that is a model, an adapter or a run; anything else is not an input. */
static void add(struct inputs *in, const char *path) {
  struct stat s;
  char real[PATH_MAX], hex[33];
  size_t i;
  json_t *old;
  if (!*path || json_array_size(in->list) >= MOST_INPUTS || stat(path, &s)) return;
  if (!S_ISREG(s.st_mode) && !S_ISDIR(s.st_mode)) return;
  if (S_ISDIR(s.st_mode) && !holds(path, "config.json") && !holds(path, "adapter_config.json"))
    return;
  if (!realpath(path, real) || is_own(in, real)) return;
  json_array_foreach(in->list, i, old)
    if (!strcmp(json_string_value(json_object_get(old, "path")), path)) return;
  if (nm_path_hash(path, hex, NULL)) return;
  json_int_t bytes = S_ISREG(s.st_mode) ? s.st_size : 0;
  json_array_append_new(in->list, json_pack("{s:o, s:I, s:s}", "path", nm__json_text(path),
                                            "bytes", bytes, "hash", hex));
  if (S_ISREG(s.st_mode)) {
    add_pieces(in, path);
    if (s.st_size <= MOST_TEXT) named_in(in, path);
  }
}

static bool ends(const char *s, const char *end) {
  size_t n = strlen(s), k = strlen(end);
  return n >= k && !strcmp(s + n - k, end);
}

/* A name in a recipe or a list of edits may be told from where noema stands or from where the file
 * lies. */
static void add_named(struct inputs *in, const char *file, const char *name) {
  if (!strpbrk(name, "./")) return;
  add(in, name);
  const char *slash = strrchr(file, '/');
  if (!slash || *name == '/') return;
  char *dir = nm__strndup(file, (size_t)(slash - file)),
       *path = dir ? nm__path_join(dir, name) : NULL;
  if (path) add(in, path);
  free(path);
  free(dir);
}

/* Files that a recipe or a list of edits names: whatever word of it is the name of one. */
static void named_in(struct inputs *in, const char *path) {
  static const char between[] = " \t\r\n\"',:=[]{}()";
  struct nm__map m;
  if (!ends(path, ".yaml") && !ends(path, ".yml") && !ends(path, ".json")) return;
  if (nm__map_open(path, &m, NULL)) return;
  char *text = nm__strndup((const char *)m.data, m.size), *rest = text;
  nm__map_close(&m);
  for (char *w; rest && (w = strsep(&rest, between));)
    if (strlen(w) < 512) add_named(in, path, w);
  free(text);
}

/* Words of a command: F, NAME=F, F:2, DIR@200. */
static void add_word(struct inputs *in, const char *w) {
  const char *eq = strchr(w, '=');
  add(in, w);
  if (eq) add_word(in, eq + 1);
  size_t n = strlen(w);
  for (const char *s = w + n; s > w && strlen(s) < 16; s--) {
    if (*s != ':' && *s != '@') continue;
    char *cut = nm__strndup(w, (size_t)(s - w));
    if (cut) add(in, cut);
    free(cut);
    break;
  }
}

static json_t *inputs(const char *dir, const char *model, const json_t *argv) {
  struct inputs *in = nm__alloc(1, sizeof *in);
  json_t *list = json_array();
  size_t i;
  json_t *w;
  if (!in) return list;
  in->list = list;
  if (!realpath(dir, in->own)) snprintf(in->own, sizeof in->own, "%s", dir);
  if (model) add(in, model);
  json_array_foreach(argv, i, w)
    if (i > 1) add_word(in, json_string_value(w));
  free(in);
  return list;
}

/* ---- where it runs ------------------------------------------------------------- */

static void processor(char *out, size_t n) {
  char line[256];
  FILE *f = fopen("/proc/cpuinfo", "r");
  snprintf(out, n, "unknown");
  while (f && fgets(line, sizeof line, f)) {
    char *colon = strchr(line, ':');
    if (strncmp(line, "model name", 10) || !colon) continue;
    snprintf(out, n, "%s", colon + 1 + strspn(colon + 1, " "));
    out[strcspn(out, "\n")] = 0;
    break;
  }
  if (f) fclose(f);
}

static json_t *environment(void) {
  struct utsname u = {0};
  char cpu[200], system[300], libraries[256];
  uname(&u);
  processor(cpu, sizeof cpu);
  snprintf(system, sizeof system, "%.60s %.120s %.60s", u.sysname, u.release, u.machine);
  nm_libraries(libraries);
  return json_pack("{s:o, s:o, s:o, s:I, s:o, s:s}", "host", nm__json_text(u.nodename), "system",
                   nm__json_text(system), "processor", nm__json_text(cpu), "cores",
                   (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "instructions",
                   nm__json_text(__builtin_cpu_supports("avx512f") ? "avx512"
                                 : __builtin_cpu_supports("avx2")  ? "avx2"
                                                                   : "x86-64"),
                   "libraries", libraries);
}

int nm__about_write(const char *dir, const char *verb, const char *model, const char *command,
                    const json_t *settings, nm_err *err) {
  char utc[32], cwd[PATH_MAX];
  nm__utc(utc);
  if (!getcwd(cwd, sizeof cwd)) cwd[0] = 0;
  json_t *argv = words(command);
  json_t *o = json_pack("{s:s, s:s, s:s, s:o, s:O, s:o, s:o, s:o, s:o, s:o}", "noema", NM_VERSION,
                        "verb", verb, "utc", utc, "command", nm__json_text(command), "argv", argv,
                        "cwd", nm__json_text(cwd), "dir", nm__json_text(dir), "model",
                        nm__json_text(model), "inputs", inputs(dir, model, argv), "environment",
                        environment());
  if (o && settings) json_object_update_missing(o, (json_t *)(uintptr_t)settings);
  char *s = o ? json_dumps(o, JSON_INDENT(1)) : NULL, *path = nm__path_join(dir, "config.json");
  int st = nm__mkdirs(dir, err);
  if (!st)
    st = s && path ? nm__write_file(path, s, strlen(s), err)
                   : nm__fail_memory(err, "the configuration of a run", 0);
  free(s);
  free(path);
  json_decref(argv);
  json_decref(o);
  return st;
}

/* ---- reading it again ------------------------------------------------------------ */

static char *text_of(const json_t *o, const char *key) {
  const char *s = json_string_value(json_object_get(o, key));
  return nm__strdup(s ? s : "");
}

static int read_lists(const json_t *o, nm_run_about *out) {
  const json_t *argv = json_object_get(o, "argv"), *in = json_object_get(o, "inputs");
  size_t n = json_array_size(argv), k = json_array_size(in);
  if (n > MOST_WORDS || k > MOST_INPUTS) return NM_EFORMAT;
  if (!(out->argv = nm__alloc(n + 1, sizeof *out->argv))) return NM_EMEMORY;
  if (!(out->input = nm__alloc(k + 1, sizeof *out->input))) return NM_EMEMORY;
  for (; (size_t)out->n_argv < n; out->n_argv++) {
    const char *s = json_string_value(json_array_get(argv, (size_t)out->n_argv));
    if (!s) return NM_EFORMAT;
    if (!(out->argv[out->n_argv] = nm__strdup(s))) return NM_EMEMORY;
  }
  for (; (size_t)out->n_inputs < k; out->n_inputs++) {
    const json_t *i = json_array_get(in, (size_t)out->n_inputs);
    nm_run_input *d = &out->input[out->n_inputs];
    if (!json_is_string(json_object_get(i, "path"))) return NM_EFORMAT;
    *d = (nm_run_input){text_of(i, "path"), text_of(i, "hash"),
                        (uint64_t)json_integer_value(json_object_get(i, "bytes"))};
    if (!d->path || !d->hash) return NM_EMEMORY;
  }
  return NM_OK;
}

static int not_ours(const char *path, nm_err *err) {
  return nm__fail(err, NM_EFORMAT, "%s: is not the record of a run of noema", path);
}

static int parse(const char *path, const char *text, size_t n, nm_run_about *out, nm_err *err) {
  json_t *o = nm__json_parse(path, text, n, MOST_VALUES, err);
  if (!o) return NM_EFORMAT;
  if (!json_is_string(json_object_get(o, "noema")) || !json_is_string(json_object_get(o, "verb"))) {
    json_decref(o);
    return not_ours(path, err);
  }
  out->verb = text_of(o, "verb");
  out->noema = text_of(o, "noema");
  out->utc = text_of(o, "utc");
  out->cwd = text_of(o, "cwd");
  out->model = text_of(o, "model");
  int st = read_lists(o, out);
  out->json = json_dumps(o, JSON_INDENT(1));
  json_decref(o);
  if (st == NM_EFORMAT) return not_ours(path, err);
  if (!st && out->verb && out->noema && out->utc && out->cwd && out->model && out->json)
    return NM_OK;
  return nm__fail_memory(err, "the record of a run", n);
}

int nm_run_about_load(const char *dir, nm_run_about *out, nm_err *err) {
  struct nm__map m;
  *out = (nm_run_about){.dir = nm__strdup(dir)};
  char *path = nm__path_join(dir, "config.json");
  int st = NM_OK;
  if (!path || !out->dir) st = nm__fail_memory(err, "a file name", 0);
  else if (!nm__exists(path))
    st = nm__fail(err, NM_EFORMAT, "%s: holds no config.json, so it is no folder of a run", dir);
  if (!st) st = nm__map_open(path, &m, err);
  if (!st) {
    st = parse(path, (const char *)m.data, m.size, out, err);
    nm__map_close(&m);
  }
  free(path);
  if (st) nm_run_about_free(out);
  return st;
}

void nm_run_about_free(nm_run_about *a) {
  char *text[] = {a->dir, a->verb, a->noema, a->utc, a->cwd, a->model, a->json};
  for (size_t i = 0; i < sizeof text / sizeof *text; i++) free(text[i]);
  for (int i = 0; i < a->n_argv; i++) free(a->argv[i]);
  for (int i = 0; i < a->n_inputs; i++) {
    free(a->input[i].path);
    free(a->input[i].hash);
  }
  free(a->argv);
  free(a->input);
  *a = (nm_run_about){0};
}
