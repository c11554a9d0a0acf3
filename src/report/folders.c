/* folders.c - folders of results as wholes: their hash, their size, one compared with another, and
 * one removed. Links are never followed. */
#include "report/report.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEEPEST = 16, MOST_FILES = 1 << 20 };

/* ---- what lies in a folder -------------------------------------------------- */

struct names { char **v; size_t n, cap; uint64_t bytes; };

static void names_done(struct names *s) {
  for (size_t i = 0; i < s->n; i++) free(s->v[i]);
  free(s->v);
  *s = (struct names){0};
}

static int put_name(struct names *s, const char *name, nm_err *err) {
  if (s->n == MOST_FILES)
    return nm__fail(err, NM_EFAIL, "%s: more than %d files", name, MOST_FILES);
  if (s->n == s->cap) {
    size_t cap = s->cap ? 2 * s->cap : 64;
    char **v = nm__realloc(s->v, cap, sizeof *v);
    if (!v) return nm__fail_memory(err, "the names of files", cap * sizeof *v);
    s->v = v;
    s->cap = cap;
  }
  if (!(s->v[s->n] = nm__strdup(name))) return nm__fail_memory(err, "a file name", 0);
  s->n++;
  return NM_OK;
}

static bool is_dot(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }

/* Regular files below root/at, as names relative to root. */
static int walk(const char *root, const char *at, int depth, struct names *out, nm_err *err) {
  char *here = *at ? nm__path_join(root, at) : nm__strdup(root);
  DIR *d = here ? opendir(here) : NULL;
  int st = NM_OK;
  if (!d || depth > DEEPEST)
    st = nm__fail(err, NM_EFAIL, "%s: cannot be listed: %s", here ? here : root,
                  d ? "folders in folders without end" : strerror(errno));
  for (struct dirent *e; !st && (e = readdir(d));) {
    if (is_dot(e->d_name)) continue;
    char *name = *at ? nm__path_join(at, e->d_name) : nm__strdup(e->d_name);
    char *path = name ? nm__path_join(root, name) : NULL;
    struct stat s;
    if (!path) st = nm__fail_memory(err, "a file name", 0);
    else if (!lstat(path, &s) && S_ISDIR(s.st_mode)) st = walk(root, name, depth + 1, out, err);
    else if (!lstat(path, &s) && S_ISREG(s.st_mode)) {
      out->bytes += (uint64_t)s.st_size;
      st = put_name(out, name, err);
    }
    free(name);
    free(path);
  }
  if (d) closedir(d);
  free(here);
  return st;
}

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list(const char *dir, struct names *out, nm_err *err) {
  int st = walk(dir, "", 0, out, err);
  if (!st && out->n) qsort(out->v, out->n, sizeof *out->v, by_name);
  return st;
}

/* ---- hash ------------------------------------------------------------------------ */

static int hash_folder(const char *dir, char hex[33], nm_err *err) {
  struct names s = {0};
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 28);
  int st = list(dir, &s, err);
  for (size_t i = 0; i < s.n && !st; i++) {
    char *path = nm__path_join(dir, s.v[i]);
    st = path ? nm__hash_file(path, hex, err) : nm__fail_memory(err, "a file name", 0);
    free(path);
    nm__buf_printf(&b, "%s %s\n", hex, s.v[i]);
  }
  if (!st && b.failed) st = nm__fail_memory(err, "the hash of a folder", 0);
  if (!st) nm__hash_hex(b.s ? b.s : "", b.len, hex);
  nm__buf_done(&b);
  names_done(&s);
  return st;
}

int nm_path_hash(const char *path, char hex[33], nm_err *err) {
  struct stat s;
  if (stat(path, &s))
    return nm__fail(err, NM_EFORMAT, "%s: cannot be read: %s", path, strerror(errno));
  return S_ISDIR(s.st_mode) ? hash_folder(path, hex, err) : nm__hash_file(path, hex, err);
}

/* ---- equal but for times and names ------------------------------------------------- */

/* Texts of one run that another one has in the same places in its own form: text k of each. */
enum { N_SAME = 7 };
struct side { char *text[N_SAME]; };

/* "before TEXT after" */
static char *between(const char *before, const char *text, const char *after) {
  struct nm__buf b;
  nm__buf_init(&b, 1 << 16);
  nm__buf_printf(&b, "%s%s%s", before, text, after);
  char *s = b.failed ? NULL : nm__strdup(b.s);
  nm__buf_done(&b);
  return s;
}

static char *as_html(const char *text) {
  struct nm__buf b;
  nm__buf_init(&b, 1 << 20);
  nm__html_escape(&b, text);
  char *s = b.failed || !b.s ? NULL : nm__strdup(b.s);
  nm__buf_done(&b);
  return s;
}

static char *as_json(const char *text) {
  json_t *j = nm__json_text(text);
  char *s = j ? json_dumps(j, JSON_ENCODE_ANY) : NULL;
  json_decref(j);
  return s;
}

/* The command and the folder of a run, in the forms they have in JSON, HTML and SVG. A folder's
 * last name alone counts only between quotes or tags: it may be any word. */
static void side_open(struct side *s, const char *dir) {
  nm_run_about a;
  *s = (struct side){0};
  if (nm_run_about_load(dir, &a, NULL)) return;
  json_t *o = json_loads(a.json, 0, NULL);
  const char *command = json_string_value(json_object_get(o, "command")),
             *said = json_string_value(json_object_get(o, "dir"));
  if (command && *command && said && *said) {
    const char *base = nm__path_base(said);
    char *text[N_SAME] = {as_json(command),          as_html(command),
                          nm__strdup(command),       between(said, "", "/"),
                          as_json(said),             between(">", base, "<"),
                          between("'", base, "'")};
    memcpy(s->text, text, sizeof text);
  }
  json_decref(o);
  nm_run_about_free(&a);
}

static void side_done(struct side *s) {
  for (int i = 0; i < N_SAME; i++) free(s->text[i]);
}

/* Length of "2026-01-31T12:00:00Z" at s, or 0. */
static size_t moment(const char *s) {
  static const char form[] = "dddd-dd-ddTdd:dd:ddZ";
  for (size_t i = 0; form[i]; i++)
    if (form[i] == 'd' ? s[i] < '0' || s[i] > '9' : s[i] != form[i]) return 0;
  return sizeof form - 1;
}

/* Length of "KEY": NUMBER at s where the key is one of a time or a speed, and which; 0: none. */
static size_t timing(const char *s, size_t *which) {
  static const char *const keys[] = {"tokens_per_s", "seconds", "tokens_per_second", "eta_s",
                                     "peak_share"};
  if (*s != '"') return 0;
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    size_t n = strlen(keys[i]);
    if (strncmp(s + 1, keys[i], n) || s[n + 1] != '"') continue;
    size_t at = n + 2 + strspn(s + n + 2, " ");
    if (s[at] != ':') continue;
    at += 1 + strspn(s + at + 1, " ");
    *which = i;
    return at + strspn(s + at, "+-.0123456789eE");
  }
  return 0;
}

/* How much of both texts stands for the same thing at these places; false where nothing does. */
static bool same_here(const char *a, const char *b, const struct side side[2], size_t step[2]) {
  size_t x = 0, y = 0;
  for (int k = 0; k < N_SAME; k++) {
    const char *p = side[0].text[k], *q = side[1].text[k];
    if (!p || !q) continue;
    step[0] = strlen(p), step[1] = strlen(q);
    if (!strncmp(a, p, step[0]) && !strncmp(b, q, step[1])) return true;
  }
  step[0] = moment(a), step[1] = moment(b);
  if (step[0] && step[1]) return true;
  step[0] = timing(a, &x), step[1] = timing(b, &y);
  if (step[0] && step[1] && x == y) return true;
  step[0] = step[1] = 1;
  return *a == *b;
}

static bool is_text(const char *name) {
  static const char *const end[] = {".json", ".jsonl", ".html", ".svg", ".csv", ".tsv", ".txt",
                                    ".md", ".yaml"};
  const char *dot = strrchr(name, '.');
  for (size_t i = 0; dot && i < sizeof end / sizeof *end; i++)
    if (!strcmp(dot, end[i])) return true;
  return false;
}

/* Both texts side by side, as far as they go. */
static bool alike(const struct nm__map *a, const struct nm__map *b, const struct side side[2]) {
  char *text[2] = {nm__strndup((const char *)a->data, a->size),
                   nm__strndup((const char *)b->data, b->size)};
  const char *p = text[0], *q = text[1];
  size_t step[2];
  while (p && q && *p && *q && same_here(p, q, side, step)) p += step[0], q += step[1];
  bool whole = p && q && p == text[0] + a->size && q == text[1] + b->size;
  free(text[0]);
  free(text[1]);
  return whole;
}

static int compare(const char *a, const char *b, const char *name, const struct side side[2],
                   enum nm_file_state *state, nm_err *err) {
  struct nm__map m = {0}, w = {0};
  char *pa = nm__path_join(a, name), *pb = nm__path_join(b, name);
  int st = pa && pb ? nm__map_open(pa, &m, err) : nm__fail_memory(err, "a file name", 0);
  if (!st && !(st = nm__map_open(pb, &w, err))) {
    bool equal = m.size == w.size && !memcmp(m.data, w.data, m.size);
    *state = equal                                     ? NM_FILE_EQUAL
             : is_text(name) && alike(&m, &w, side) ? NM_FILE_ALIKE
                                                       : NM_FILE_DIFFERS;
    nm__map_close(&w);
  }
  if (m.data) nm__map_close(&m);
  free(pa);
  free(pb);
  return st;
}

void nm_file_pairs_free(nm_file_pair *v, size_t n) {
  for (size_t i = 0; v && i < n; i++) free(v[i].name);
  free(v);
}

/* The two sorted lists side by side. */
static int pair_up(const char *a, const char *b, struct names *x, struct names *y,
                   const struct side side[2], nm_file_pair *out, size_t *n, nm_err *err) {
  for (size_t i = 0, k = 0; i < x->n || k < y->n;) {
    int c = i == x->n ? 1 : k == y->n ? -1 : strcmp(x->v[i], y->v[k]);
    char **name = c > 0 ? &y->v[k] : &x->v[i];
    enum nm_file_state state = c < 0 ? NM_FILE_ONLY_A : NM_FILE_ONLY_B;
    int st = strcmp(*name, "config.json") && !c ? compare(a, b, *name, side, &state, err) : NM_OK;
    if (st) return st;
    i += c <= 0;
    k += c >= 0;
    if (!strcmp(*name, "config.json")) continue;
    out[(*n)++] = (nm_file_pair){*name, state};
    *name = NULL;
  }
  return NM_OK;
}

int nm_folders_compare(const char *a, const char *b, nm_file_pair **out, size_t *n, nm_err *err) {
  struct names x = {0}, y = {0};
  struct side side[2];
  *out = NULL;
  *n = 0;
  int st = list(a, &x, err);
  if (!st) st = list(b, &y, err);
  if (!st && !(*out = nm__alloc(x.n + y.n + 1, sizeof **out)))
    st = nm__fail_memory(err, "the names of files", 0);
  if (!st) {
    side_open(&side[0], a);
    side_open(&side[1], b);
    st = pair_up(a, b, &x, &y, side, *out, n, err);
    side_done(&side[0]);
    side_done(&side[1]);
  }
  names_done(&x);
  names_done(&y);
  if (!st) return NM_OK;
  nm_file_pairs_free(*out, *n);
  *out = NULL;
  *n = 0;
  return st;
}

/* ---- size, and an end ---------------------------------------------------------------- */

char *nm_run_dir(const char *root, const char *dir) {
  char *plain = nm__folder_name(dir),
       *path = plain ? nm__path_join(root, nm__path_base(plain)) : NULL;
  free(plain);
  return path;
}

int nm_run_bytes(const char *dir, uint64_t *bytes, nm_err *err) {
  nm_run_about a;
  struct names s = {0};
  int st = nm_run_about_load(dir, &a, err);
  if (st) return st;
  nm_run_about_free(&a);
  st = list(dir, &s, err);
  *bytes = s.bytes;
  names_done(&s);
  return st;
}

/* config.json goes last: what a broken removal leaves is still known as a run's. */
static int remove_below(const char *dir, int depth, nm_err *err) {
  DIR *d = depth > DEEPEST ? NULL : opendir(dir);
  int st = NM_OK;
  if (!d) return nm__fail(err, NM_EFAIL, "%s: cannot be listed: %s", dir, strerror(errno));
  for (struct dirent *e; !st && (e = readdir(d));) {
    if (is_dot(e->d_name) || (!depth && !strcmp(e->d_name, "config.json"))) continue;
    char *path = nm__path_join(dir, e->d_name);
    struct stat s;
    if (!path) st = nm__fail_memory(err, "a file name", 0);
    else if (!lstat(path, &s) && S_ISDIR(s.st_mode)) {
      st = remove_below(path, depth + 1, err);
      if (!st && rmdir(path)) st = nm__fail(err, NM_EFAIL, "%s: %s", path, strerror(errno));
    } else if (unlink(path)) {
      st = nm__fail(err, NM_EFAIL, "%s: cannot be removed: %s", path, strerror(errno));
    }
    free(path);
  }
  closedir(d);
  return st;
}

static bool holds_runs(const char *dir) {
  char *path = nm__path_join(dir, "runs.db");
  bool yes = !path || nm__exists(path);
  free(path);
  return yes;
}

static int remove_folder(const char *dir, nm_err *err) {
  nm_run_about a;
  struct stat s;
  if (lstat(dir, &s)) return NM_OK;
  if (!S_ISDIR(s.st_mode)) return nm__fail(err, NM_EFAIL, "%s: is a link, not a folder", dir);
  if (holds_runs(dir))
    return nm__fail(err, NM_EFAIL, "%s: holds a runs.db, so it is not the folder of one run", dir);
  int st = nm_run_about_load(dir, &a, err);
  if (st) return st;
  nm_run_about_free(&a);
  st = remove_below(dir, 0, err);
  char *config = nm__path_join(dir, "config.json");
  if (!st && (!config || unlink(config) || rmdir(dir)))
    st = nm__fail(err, NM_EFAIL, "%s: cannot be removed: %s", dir, strerror(errno));
  free(config);
  return st;
}

int nm_run_remove(const char *root, const char *dir, nm_err *err) {
  struct nm__runs *r;
  char *path = nm_run_dir(root, dir);
  int st = path ? remove_folder(path, err) : nm__fail_memory(err, "a file name", 0);
  if (!st) st = nm__runs_open(root, &r, err);
  if (!st) {
    st = nm__runs_forget(r, dir, err);
    nm__runs_close(r);
  }
  free(path);
  return st;
}
