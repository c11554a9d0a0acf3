/* runs.c - the store of runs: one row per run in ROOT/runs.db. Several programs
 * may write at once, so every change is one short transaction and a writer waits
 * for another instead of failing.
 *
 * A run that dies cannot say so. Its row keeps the process id, the moment that
 * process started (ids are used again) and the host; whoever lists the runs on
 * that host looks whether the process still is the one that began the run. On
 * another host nothing can be known and the row stays "running". */
#include "report/report.h"

#include <errno.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUSY_MS = 15000, SCHEMA_VERSION = 1 };

struct nm__runs {
  sqlite3 *db;
  char *path;       /* of runs.db, for messages */
  json_t *settings; /* of the run that is about to begin */
};

static const char SCHEMA[] =
    "CREATE TABLE IF NOT EXISTS runs("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, utc TEXT NOT NULL, verb TEXT NOT NULL,"
    " dir TEXT NOT NULL, model TEXT NOT NULL, command TEXT NOT NULL,"
    " status TEXT NOT NULL DEFAULT 'running', summary TEXT NOT NULL DEFAULT '',"
    " seconds REAL NOT NULL DEFAULT 0,"
    " pid INTEGER NOT NULL, pid_start INTEGER NOT NULL, host TEXT NOT NULL);"
    "PRAGMA user_version=1;";

/* ---- errors ---------------------------------------------------------- */

/* Turns what SQLite says into a sentence about the file and what to do. */
static int runs_fail(const struct nm__runs *r, const char *what, nm_err *err) {
  switch (r->db ? sqlite3_errcode(r->db) & 0xFF : SQLITE_NOMEM) {
    case SQLITE_NOMEM:
      return nm__fail_memory(err, "the store of runs", 0);
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      return nm__fail(err, NM_EFORMAT,
                      "%s: is not a store of runs or is damaged (%s); move it away to start a new "
                      "one", r->path, sqlite3_errmsg(r->db));
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return nm__fail(err, NM_EFAIL, "%s: cannot be %s: another process has held it for %d s",
                      r->path, what, BUSY_MS / 1000);
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
      return nm__fail(err, NM_EFAIL, "%s: cannot be %s: %s; is the folder writable?", r->path,
                      what, sqlite3_errmsg(r->db));
    default:
      return nm__fail(err, NM_EFAIL, "%s: cannot be %s: %s", r->path, what,
                      sqlite3_errmsg(r->db));
  }
}

/* A number asked of the file, such as a pragma; -1 when it cannot be had. */
static int64_t ask(sqlite3 *db, const char *sql) {
  sqlite3_stmt *q = NULL;
  int64_t v = -1;
  if (!sqlite3_prepare_v2(db, sql, -1, &q, NULL) && sqlite3_step(q) == SQLITE_ROW)
    v = sqlite3_column_int64(q, 0);
  return sqlite3_finalize(q) ? -1 : v;
}

static int too_new(const struct nm__runs *r, int64_t version, nm_err *err) {
  return nm__fail(err, NM_EFORMAT,
                  "%s: has version %lld and this noema knows version %d; use a newer noema",
                  r->path, (long long)version, SCHEMA_VERSION);
}

/* ---- opening --------------------------------------------------------- */

static struct nm__runs *runs_new(const char *root) {
  struct nm__runs *r = nm__alloc(1, sizeof *r);
  if (!r) return NULL;
  r->path = nm__path_join(root, "runs.db");
  if (r->path) return r;
  free(r);
  return NULL;
}

void nm__runs_close(struct nm__runs *r) {
  if (!r) return;
  sqlite3_close(r->db);
  json_decref(r->settings);
  free(r->path);
  free(r);
}

/* Creates the table in one transaction; of several first writers, one does it
 * and the others find it done. */
static int create(struct nm__runs *r, nm_err *err) {
  sqlite3_stmt *q = NULL;
  int bad = sqlite3_exec(r->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
  if (!bad) bad = sqlite3_exec(r->db, SCHEMA, NULL, NULL, NULL);
  if (!bad) bad = sqlite3_exec(r->db, "COMMIT", NULL, NULL, NULL);
  /* Some other program's table may have this name. */
  if (!bad) bad = sqlite3_prepare_v2(r->db, "SELECT id, pid_start FROM runs", -1, &q, NULL);
  sqlite3_finalize(q);
  if (!bad) return NM_OK;
  int st = runs_fail(r, "written", err);
  sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
  return st;
}

static int prepare_writer(struct nm__runs *r, nm_err *err) {
  sqlite3_busy_timeout(r->db, BUSY_MS);
  int64_t version = ask(r->db, "PRAGMA user_version");
  if (version < 0) return runs_fail(r, "read", err);
  if (version > SCHEMA_VERSION) return too_new(r, version, err);
  /* SQLite opens a file without write permission for reading and says nothing. */
  if (sqlite3_db_readonly(r->db, "main") == 1)
    return nm__fail(err, NM_EFAIL, "%s: cannot be written: no permission", r->path);
  /* Network file systems without shared memory refuse WAL and keep the older
   * journal, which is as safe and only slower with several writers. */
  sqlite3_exec(r->db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL);
  sqlite3_exec(r->db, "PRAGMA synchronous=NORMAL", NULL, NULL, NULL);
  return version == SCHEMA_VERSION ? NM_OK : create(r, err);
}

int nm__runs_open(const char *root, struct nm__runs **out, nm_err *err) {
  *out = NULL;
  int st = nm__mkdirs(root, err);
  if (st) return st;
  struct nm__runs *r = runs_new(root);
  if (!r) return nm__fail_memory(err, "the store of runs", 0);
  if (sqlite3_open_v2(r->path, &r->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL))
    st = runs_fail(r, "opened", err);
  else
    st = prepare_writer(r, err);
  if (st)
    nm__runs_close(r);
  else
    *out = r;
  return st;
}

/* "file:PATH?immutable=1" with the bytes of PATH that mean something in a URI
 * written as %XX. */
static char *immutable_uri(const char *path) {
  struct nm__buf b;
  nm__buf_init(&b, 1 << 20);
  nm__buf_puts(&b, "file:");
  for (const unsigned char *s = (const unsigned char *)path; *s; s++) {
    if (*s == '%' || *s == '?' || *s == '#' || *s >= 0x7F)
      nm__buf_printf(&b, "%%%02X", *s);
    else
      nm__buf_putc(&b, *s);
  }
  nm__buf_puts(&b, "?immutable=1");
  char *uri = b.failed ? NULL : nm__strdup(b.s);
  nm__buf_done(&b);
  return uri;
}

/* A reader of a WAL file needs to create its index beside it. In a folder that
 * cannot be written (a results archive) the file is read as it stands instead:
 * nobody can be writing it there. */
static int open_reader(struct nm__runs *r) {
  int bad = sqlite3_open_v2(r->path, &r->db, SQLITE_OPEN_READONLY, NULL);
  sqlite3_busy_timeout(r->db, BUSY_MS);
  if (!bad && ask(r->db, "SELECT count(*) FROM sqlite_master") >= 0) return 0;
  int code = r->db ? sqlite3_errcode(r->db) & 0xFF : SQLITE_NOMEM;
  if (code != SQLITE_CANTOPEN && code != SQLITE_READONLY) return code;
  char *uri = immutable_uri(r->path);
  if (!uri) return SQLITE_NOMEM;
  sqlite3_close(r->db);
  bad = sqlite3_open_v2(uri, &r->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
  free(uri);
  return bad ? bad : ask(r->db, "SELECT count(*) FROM sqlite_master") < 0;
}

static int check_reader(struct nm__runs *r, nm_err *err) {
  if (open_reader(r)) return runs_fail(r, "read", err);
  int64_t version = ask(r->db, "PRAGMA user_version");
  if (version > SCHEMA_VERSION) return too_new(r, version, err);
  if (ask(r->db, "SELECT count(*) FROM runs WHERE pid_start < 0") >= 0) return NM_OK;
  return nm__fail(err, NM_EFORMAT, "%s: is an SQLite file but holds no runs of noema", r->path);
}

int nm__runs_open_read(const char *root, struct nm__runs **out, nm_err *err) {
  *out = NULL;
  struct nm__runs *r = runs_new(root);
  if (!r) return nm__fail_memory(err, "the store of runs", 0);
  int st = NM_OK;
  if (!nm__exists(r->path))
    st = nm__fail(err, NM_EFORMAT, "%s: there is no runs.db here; name a folder of runs", root);
  else
    st = check_reader(r, err);
  if (st)
    nm__runs_close(r);
  else
    *out = r;
  return st;
}

/* ---- processes ------------------------------------------------------- */

/* The clock tick a process started at, from the fields behind the ")" that ends
 * its name; 0 when the system does not tell, and -1 for a zombie. */
static int64_t process_start(int64_t pid) {
  char path[64], line[1024];
  snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
  FILE *f = fopen(path, "r");
  if (!f) return 0;
  size_t n = fread(line, 1, sizeof line - 1, f);
  fclose(f);
  line[n] = 0;
  const char *s = strrchr(line, ')');
  if (!s || !s[1]) return 0;
  s += 2;
  if (*s == 'Z' || *s == 'X') return -1;
  for (int field = 3; field < 22 && s; field++) s = (s = strchr(s, ' ')) ? s + 1 : NULL;
  return s ? strtoll(s, NULL, 10) : 0;
}

static void host_name(char out[128]) {
  if (gethostname(out, 128)) out[0] = 0;
  out[127] = 0;
}

static bool process_lives(int64_t pid, int64_t start) {
  if (pid <= 0 || (kill((pid_t)pid, 0) && errno == ESRCH)) return false;
  int64_t now = process_start(pid);
  if (now < 0) return false;
  return !now || !start || now == start;
}

/* ---- writing --------------------------------------------------------- */

static void bind_text(sqlite3_stmt *q, int i, const char *s) {
  sqlite3_bind_text(q, i, s ? s : "", -1, SQLITE_TRANSIENT);
}

/* Runs a prepared change; the failure of a bind shows in the step or is a lack
 * of memory that the step meets again. */
static int change(struct nm__runs *r, sqlite3_stmt *q, nm_err *err) {
  int rc = sqlite3_step(q);
  int st = rc == SQLITE_DONE ? NM_OK : runs_fail(r, "written", err);
  sqlite3_finalize(q);
  return st;
}

void nm__runs_settings(struct nm__runs *r, json_t *settings) {
  json_decref(r->settings);
  r->settings = settings;
}

int nm__runs_begin(struct nm__runs *r, const char *verb, const char *dir, const char *model,
                   const char *command, int64_t *id, nm_err *err) {
  sqlite3_stmt *q = NULL;
  const char *sql = "INSERT INTO runs(utc, verb, dir, model, command, pid, pid_start, host)"
                    " VALUES(?, ?, ?, ?, ?, ?, ?, ?)";
  int st = nm__about_write(dir, verb, model, command, r->settings, err);
  if (st) return st;
  if (sqlite3_prepare_v2(r->db, sql, -1, &q, NULL)) return runs_fail(r, "written", err);
  char utc[32], host[128];
  nm__utc(utc);
  host_name(host);
  bind_text(q, 1, utc);
  bind_text(q, 2, verb);
  bind_text(q, 3, dir);
  bind_text(q, 4, model);
  bind_text(q, 5, command);
  sqlite3_bind_int64(q, 6, getpid());
  sqlite3_bind_int64(q, 7, process_start(getpid()));
  bind_text(q, 8, host);
  st = change(r, q, err);
  if (!st) *id = sqlite3_last_insert_rowid(r->db);
  return st;
}

/* A summary is one line wherever it is shown, so it is stored as one. */
static char *one_line(const char *s) {
  char *line = nm__strdup(s ? s : "");
  for (char *p = line; p && *p; p++)
    if (*p == '\n' || *p == '\r' || *p == '\t') *p = ' ';
  return line;
}

int nm__runs_end(struct nm__runs *r, int64_t id, const char *status, const char *summary,
                 double seconds, nm_err *err) {
  sqlite3_stmt *q = NULL;
  char *line = one_line(summary);
  if (!line) return nm__fail_memory(err, "the summary of a run", 0);
  const char *sql = "UPDATE runs SET status = ?, summary = ?, seconds = ? WHERE id = ?";
  int st = NM_OK;
  if (sqlite3_prepare_v2(r->db, sql, -1, &q, NULL)) {
    st = runs_fail(r, "written", err);
  } else {
    bind_text(q, 1, status);
    bind_text(q, 2, line);
    sqlite3_bind_double(q, 3, seconds);
    sqlite3_bind_int64(q, 4, id);
    st = change(r, q, err);
  }
  free(line);
  if (!st && sqlite3_changes(r->db) != 1)
    st = nm__fail(err, NM_EFAIL, "%s: has no run %lld to end", r->path, (long long)id);
  return st;
}

int nm__runs_forget(struct nm__runs *r, const char *dir, nm_err *err) {
  sqlite3_stmt *q = NULL;
  if (sqlite3_prepare_v2(r->db, "DELETE FROM runs WHERE dir = ?", -1, &q, NULL))
    return runs_fail(r, "written", err);
  bind_text(q, 1, dir);
  return change(r, q, err);
}

/* ---- reading --------------------------------------------------------- */

static char *column_dup(sqlite3_stmt *q, int i) {
  const char *s = (const char *)sqlite3_column_text(q, i);
  return nm__strdup(s ? s : "");
}

static void column_copy(char *out, size_t n, sqlite3_stmt *q, int i) {
  const char *s = (const char *)sqlite3_column_text(q, i);
  snprintf(out, n, "%s", s ? s : "");
}

static bool row_take(sqlite3_stmt *q, const char *host, struct nm__run_row *row) {
  *row = (struct nm__run_row){.id = sqlite3_column_int64(q, 0)};
  column_copy(row->utc, sizeof row->utc, q, 1);
  column_copy(row->verb, sizeof row->verb, q, 2);
  column_copy(row->status, sizeof row->status, q, 3);
  row->dir = column_dup(q, 4);
  row->model = column_dup(q, 5);
  row->command = column_dup(q, 6);
  row->summary = column_dup(q, 7);
  row->seconds = sqlite3_column_double(q, 8);
  const char *where = (const char *)sqlite3_column_text(q, 11);
  if (!strcmp(row->status, "running") && where && !strcmp(where, host) &&
      !process_lives(sqlite3_column_int64(q, 9), sqlite3_column_int64(q, 10)))
    snprintf(row->status, sizeof row->status, "died");
  return row->dir && row->model && row->command && row->summary;
}

void nm__runs_rows_free(struct nm__run_row *rows, size_t n) {
  for (size_t i = 0; rows && i < n; i++) {
    free(rows[i].dir);
    free(rows[i].model);
    free(rows[i].command);
    free(rows[i].summary);
  }
  free(rows);
}

/* Steps through q; on failure *n rows are filled and the caller releases them. */
static int rows_read(struct nm__runs *r, sqlite3_stmt *q, struct nm__run_row **rows, size_t *n,
                     nm_err *err) {
  size_t cap = 0;
  char host[128];
  host_name(host);
  for (int rc; (rc = sqlite3_step(q)) != SQLITE_DONE;) {
    if (rc != SQLITE_ROW) return runs_fail(r, "read", err);
    if (*n == cap) {
      cap = cap ? 2 * cap : 32;
      struct nm__run_row *more = nm__realloc(*rows, cap, sizeof *more);
      if (!more) return nm__fail_memory(err, "the list of runs", cap * sizeof *more);
      *rows = more;
    }
    bool whole = row_take(q, host, &(*rows)[*n]);
    ++*n;
    if (!whole) return nm__fail_memory(err, "the list of runs", cap * sizeof **rows);
  }
  return NM_OK;
}

int nm__runs_list(struct nm__runs *r, const char *find, struct nm__run_row **rows, size_t *n,
                  nm_err *err) {
  *rows = NULL;
  *n = 0;
  sqlite3_stmt *q = NULL;
  /* lower() folds ASCII only, which is what verbs and file names need. */
  const char *sql =
      "SELECT id, utc, verb, status, dir, model, command, summary, seconds, pid, pid_start, host"
      " FROM runs WHERE ?1 = '' OR instr(lower(verb), lower(?1)) OR"
      " instr(lower(model), lower(?1)) OR instr(lower(command), lower(?1)) OR"
      " instr(lower(summary), lower(?1)) OR instr(lower(dir), lower(?1)) ORDER BY id DESC";
  if (sqlite3_prepare_v2(r->db, sql, -1, &q, NULL)) return runs_fail(r, "read", err);
  bind_text(q, 1, find);
  int st = rows_read(r, q, rows, n, err);
  sqlite3_finalize(q);
  if (!st) return NM_OK;
  nm__runs_rows_free(*rows, *n);
  *rows = NULL;
  *n = 0;
  return st;
}
