/* runs_compare.c - noema runs compare: what differs between runs, side by side. Everything that a
 * run says of itself becomes one flat list of names and values. */
#include "cli/runs.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST_RUNS = 8, MOST_ROWS = 40, DEEPEST = 24, MOST_FILE = 64 << 20 };

/* ---- flat lists ------------------------------------------------------------------- */

/* Times and speeds differ always and tell nothing of a result. */
static bool is_timing(const char *key) {
  static const char *const keys[] = {"seconds", "tokens_per_s", "eta_s", "peak_share", "utc"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (!strcmp(key, keys[i])) return true;
  return false;
}

/* Numbers, texts and truths below j, under their path: "curves.0.peak". */
static void flatten(json_t *flat, const char *name, json_t *j, int depth) {
  char path[512];
  const char *key;
  size_t i;
  json_t *v;
  if (depth > DEEPEST) return;
  if (json_is_object(j))
    json_object_foreach(j, key, v) {
      snprintf(path, sizeof path, "%s%s%s", name, *name ? "." : "", key);
      if (!is_timing(key)) flatten(flat, path, v, depth + 1);
    }
  else if (json_is_array(j))
    json_array_foreach(j, i, v) {
      snprintf(path, sizeof path, "%s.%zu", name, i);
      flatten(flat, path, v, depth + 1);
    }
  else if (!json_is_null(j)) json_object_set(flat, name, j);
}

/* Options by the table of the verb: "-s 3" and "--seed=3" are one. */
static void add_options(json_t *flat, const nm_run_about *a) {
  const struct cli_verb *v = a->n_argv > 1 ? cli_verb_of(a->argv[1]) : NULL;
  int n_pos = 0;
  for (int k = 2; v && k < a->n_argv; k++) {
    const char *w = a->argv[k], *eq = strncmp(w, "--", 2) ? NULL : strchr(w, '=');
    char name[96];
    int i = *w == '-' ? cli_find_opt(v, w, eq ? (size_t)(eq - w) : strlen(w)) : -1;
    if (i < 0) {
      snprintf(name, sizeof name, "argument %d", ++n_pos);
      json_object_set_new(flat, name, json_string(w));
      continue;
    }
    const struct cli_opt *o = &v->opts[i];
    const char *dash = strstr(o->name, "--"), *value = eq ? eq + 1 : "";
    if (o->kind == CLI_FLAG) value = "yes";
    else if (!eq && k + 1 < a->n_argv) value = a->argv[++k];
    if (strstr(o->name, "--out")) continue;
    snprintf(name, sizeof name, "%.90s", dash ? dash : o->name);
    json_t *old = json_object_get(flat, name);
    json_t *all = old ? json_sprintf("%s %s", json_string_value(old), value) : json_string(value);
    json_object_set_new(flat, name, all);
  }
}

/* config.json, without what the row and the command say. */
static void add_settings(json_t *flat, const nm_run_about *a) {
  static const char *const known[] = {"utc", "command", "argv", "dir", "cwd", "inputs", "data",
                                      "model_hash", "threads"};
  json_t *o = json_loads(a->json, 0, NULL);
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) json_object_del(o, known[i]);
  flatten(flat, "", o, 0);
  json_decref(o);
  for (int i = 0; i < a->n_inputs; i++) {
    char name[512];
    snprintf(name, sizeof name, "hash of %.480s", a->input[i].path);
    json_object_set_new(flat, name, json_sprintf("%.12s", a->input[i].hash));
  }
}

static char *read_text(const char *dir, const char *name) {
  char path[4096];
  struct stat s;
  size_t n;
  int k = snprintf(path, sizeof path, "%s/%s", dir, name);
  if (k < 0 || (size_t)k >= sizeof path || stat(path, &s) || s.st_size > MOST_FILE) return NULL;
  return cli_read_file(path, &n);
}

/* The last line of each kind in metrics.jsonl: of training, of each evaluation and probe. */
static void add_metrics(json_t *flat, const char *dir) {
  char *text = read_text(dir, "metrics.jsonl"), *rest = text;
  for (char *line; (line = strsep(&rest, "\n"));) {
    static const char *const kinds[] = {"eval", "probe", "tap"};
    char name[96] = "metrics";
    json_t *o = json_loads(line, 0, NULL);
    for (size_t i = 0; i < 3; i++) {
      json_t *kind = json_object_get(o, kinds[i]);
      const char *site = json_string_value(json_object_get(o, "site"));
      if (kind)
        snprintf(name, sizeof name, "%s %lld%s%.60s", kinds[i],
                 (long long)json_integer_value(kind), site ? " " : "", site ? site : "");
    }
    flatten(flat, name, o, 0);
    json_decref(o);
  }
  free(text);
}

/* What the verb found: VERB.json. */
static void add_results(json_t *flat, const struct cli_run *r) {
  char name[64];
  snprintf(name, sizeof name, "%.50s.json", r->about.verb);
  char *text = read_text(r->dir, name);
  json_t *o = text ? json_loads(text, 0, NULL) : NULL;
  static const char *const known[] = {"run", "command", "dir", "noema", "summary"};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) json_object_del(o, known[i]);
  flatten(flat, "", o, 0);
  json_decref(o);
  free(text);
}

/* ---- side by side -------------------------------------------------------------------- */

struct beside {
  int n;
  struct cli_run run[MOST_RUNS];
  json_t *settings[MOST_RUNS], *results[MOST_RUNS];
};

static bool differs(json_t *const *flat, int n, const char *key) {
  json_t *a = json_object_get(flat[0], key);
  for (int i = 1; i < n; i++) {
    json_t *b = json_object_get(flat[i], key);
    if (!a != !b || (a && !json_equal(a, b))) return true;
  }
  return false;
}

/* The names whose values differ, as the keys of an object, in order. */
static json_t *different(json_t *const *flat, int n) {
  json_t *all = json_object(), *out = json_object(), *v;
  const char *key;
  for (int i = 0; i < n; i++) json_object_update_missing(all, flat[i]);
  json_object_foreach(all, key, v)
    if (differs(flat, n, key)) json_object_set_new(out, key, json_true());
  json_decref(all);
  return out;
}

static void print_value(json_t *v, int width) {
  char text[256];
  if (!v) snprintf(text, sizeof text, "-");
  else if (json_is_string(v)) snprintf(text, sizeof text, "%s", json_string_value(v));
  else if (json_is_integer(v))
    snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
  else if (json_is_real(v)) snprintf(text, sizeof text, "%.6g", json_real_value(v));
  else snprintf(text, sizeof text, "%s", json_is_true(v) ? "yes" : "no");
  size_t most = (size_t)width;
  if (strlen(text) > most) {                      /* cut before a letter, not inside one */
    for (most -= 2; most && (text[most] & 0xC0) == 0x80;) most--;
    snprintf(text + most, sizeof text - most, "..");
  }
  printf("  %-*s", width, text);
}

static int depth_of(const char *key) {
  int n = 0;
  for (; *key; key++) n += *key == '.';
  return n;
}

/* What stands high in a file comes first: it is what sums up the rest. */
static void print_table(const char *title, json_t *const *flat, int n) {
  json_t *keys = different(flat, n), *v;
  const char *key;
  size_t shown = 0, all = json_object_size(keys);
  int width = n > 3 ? 14 : 24;
  printf("\n%s%s\n", title, all ? "" : ": nothing differs");
  for (int depth = 0; depth <= DEEPEST; depth++)
    json_object_foreach(keys, key, v) {
      if (depth_of(key) != depth || shown++ >= MOST_ROWS) continue;
      printf("  %-36s", key);
      for (int i = 0; i < n; i++) print_value(json_object_get(flat[i], key), width);
      putchar('\n');
    }
  if (all > MOST_ROWS) printf("  ... and %zu more (--json has all)\n", all - MOST_ROWS);
  json_decref(keys);
}

static json_t *as_json(json_t *const *flat, int n) {
  json_t *keys = different(flat, n), *out = json_object(), *v;
  const char *key;
  json_object_foreach(keys, key, v) {
    json_t *row = json_array();
    for (int i = 0; i < n; i++) {
      json_t *x = json_object_get(flat[i], key);
      json_array_append_new(row, x ? json_incref(x) : json_null());
    }
    json_object_set_new(out, key, row);
  }
  json_decref(keys);
  return out;
}

static void print_json(struct beside *b) {
  json_t *runs = json_array();
  for (int i = 0; i < b->n; i++)
    json_array_append_new(runs, json_pack("{s:s, s:s, s:I, s:s, s:s, s:f}", "dir", b->run[i].dir,
                                          "verb", b->run[i].about.verb, "id",
                                          (json_int_t)b->run[i].row.id, "status",
                                          b->run[i].row.status, "summary",
                                          b->run[i].row.summary ? b->run[i].row.summary : "",
                                          "seconds", b->run[i].row.seconds));
  json_t *o = json_pack("{s:o, s:o, s:o}", "runs", runs, "settings", as_json(b->settings, b->n),
                        "results", as_json(b->results, b->n));
  char *s = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
  if (s) puts(s);
  free(s);
  json_decref(o);
}

static void print(struct beside *b) {
  for (int i = 0; i < b->n; i++) {
    const struct cli_run *r = &b->run[i];
    printf("%c  %s  %s  %s  %s\n", 'A' + i, r->dir, r->about.verb, r->about.utc, r->row.status);
    if (r->row.summary && *r->row.summary) printf("   %s\n", r->row.summary);
  }
  print_table("settings, A first", b->settings, b->n);
  print_table("results", b->results, b->n);
}

int cli_runs_compare(struct cli *c) {
  struct beside b = {0};
  int st = 0;
  if (c->n_pos < 3) return cli_usage(c, "compare takes two runs or more: numbers or folders");
  for (int i = 1; i < c->n_pos && !st; i++) {
    if (b.n == MOST_RUNS) st = cli_usage(c, "compare takes at most %d runs", MOST_RUNS);
    else st = cli_run_find(c, c->pos[i], &b.run[b.n]);
    if (st) break;
    b.settings[b.n] = json_object();
    b.results[b.n] = json_object();
    add_options(b.settings[b.n], &b.run[b.n].about);
    add_settings(b.settings[b.n], &b.run[b.n].about);
    add_metrics(b.results[b.n], b.run[b.n].dir);
    add_results(b.results[b.n], &b.run[b.n]);
    b.n++;
  }
  if (!st && cli_flag(c, "json")) print_json(&b);
  else if (!st) print(&b);
  for (int i = 0; i < b.n; i++) {
    cli_run_done(&b.run[i]);
    json_decref(b.settings[i]);
    json_decref(b.results[i]);
  }
  return st;
}
