/* runs_clean.c - noema runs clean: runs that did not end well, and what they take on the disk. */
#include "cli/runs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A folder that may go: its newest row tells how it ended. */
struct candidate { const nm_run_record *row; char *path; uint64_t bytes; const char *why; };

/* "2G" */
static bool read_size(const char *s, double *out) {
  static const char units[] = "kMGT";
  char *end;
  *out = strtod(s, &end);
  if (end == s || *out < 0) return false;
  const char *u = *end ? strchr(units, *end) : NULL;
  for (const char *p = units; u && p <= u; p++) *out *= 1000;
  end += u != NULL;
  return !*end || !strcmp(end, "B");
}

static bool seen_before(const nm_run_record *r, size_t i) {
  for (size_t k = 0; k < i; k++)
    if (!strcmp(r[k].dir, r[i].dir)) return true;
  return false;
}

/* Fills what may go of the folder of row r; false when it stays. */
static bool may_go(struct cli *c, const nm_run_record *r, struct candidate *out) {
  struct stat s;
  bool ended = !strcmp(r->status, "done");
  *out = (struct candidate){.row = r, .path = nm_run_dir(cli_runs_root(c), r->dir)};
  if (!out->path || !strcmp(r->status, "running")) return false;
  if (lstat(out->path, &s)) {
    out->why = "its folder is gone";
    return errno == ENOENT;
  }
  if (ended && !cli_flag(c, "finished")) return false;
  if (nm_run_bytes(out->path, &out->bytes, NULL)) {
    fprintf(stderr, "noema runs: %s stays: it holds no config.json of noema\n", out->path);
    return false;
  }
  out->why = r->status;
  return true;
}

/* The rows that may go, oldest first. */
static size_t choose(struct cli *c, const nm_run_record *r, size_t n, long long keep, double enough,
                     struct candidate *v) {
  size_t k = 0, folders = 0;
  double freed = 0;
  for (size_t i = 0; i < n; i++) {
    if (seen_before(r, i) || (long long)folders++ < keep) continue;
    if (may_go(c, &r[i], &v[k])) k++;
    else nm_free(v[k].path);
  }
  for (size_t i = 0; i < k / 2; i++) {
    struct candidate t = v[i];
    v[i] = v[k - 1 - i];
    v[k - 1 - i] = t;
  }
  for (size_t i = 0; i < k; i++) {
    if (enough >= 0 && freed >= enough) {
      while (k > i) nm_free(v[--k].path);
      break;
    }
    freed += (double)v[i].bytes;
  }
  return k;
}

static void print(struct cli *c, const struct candidate *v, bool removed) {
  char size[32];
  if (cli_flag(c, "json")) {
    printf("{\"id\": %lld, \"dir\": ", v->row->id);
    cli_print_string(v->path);
    printf(", \"why\": \"%s\", \"bytes\": %llu, \"removed\": %s}\n", v->why,
           (unsigned long long)v->bytes, removed ? "true" : "false");
    return;
  }
  cli_size(size, (double)v->bytes);
  printf("%4lld  %-8s %10s  %s  (%s)\n", v->row->id, v->row->verb, size, v->path, v->why);
}

static int remove_all(struct cli *c, struct candidate *v, size_t n, bool really) {
  nm_err err = {0};
  char size[32];
  double bytes = 0;
  int code = 0;
  for (size_t i = 0; i < n; i++) {
    bool gone = really && !nm_run_remove(cli_runs_root(c), v[i].row->dir, &err);
    if (really && !gone) code = cli_fail(c, &err);
    if (!really || gone) {
      print(c, &v[i], gone);
      bytes += (double)v[i].bytes;
    }
  }
  cli_size(size, bytes);
  fprintf(stderr, "noema runs: %zu run%s, %s%s\n", n, n == 1 ? "" : "s", size,
          really               ? " removed"
          : !n                 ? ""
          : cli_flag(c, "dry-run") ? " would be removed"
                               : "; nothing was removed: say --yes");
  return code;
}

int cli_runs_clean(struct cli *c) {
  nm_err err = {0};
  nm_run_record *r;
  size_t n;
  double enough = -1;
  long long keep = cli_int(c, "keep", 0);
  const char *size = cli_text(c, "free");
  if (keep < 0) return cli_usage(c, "--keep must not be negative");
  if (size && !read_size(size, &enough)) return cli_usage(c, "--free '%s' is no size (2G)", size);
  if (nm_runs(cli_runs_root(c), NULL, &r, &n, &err)) return cli_fail(c, &err);
  struct candidate *v = calloc(n + 1, sizeof *v);
  if (!v) return nm_runs_free(r, n), 4;
  size_t k = choose(c, r, n, keep, enough, v);
  int code = remove_all(c, v, k, cli_flag(c, "yes") && !cli_flag(c, "dry-run"));
  for (size_t i = 0; i < k; i++) nm_free(v[i].path);
  free(v);
  nm_runs_free(r, n);
  return code;
}
