/* report_test.c - tables, charts, pages and the store of runs, with the names
 * that hostile files bring and the accidents that happen to databases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "report/layout.h"
#include "report/report.h"
#include "report/text.h"

#define HOSTILE "<script>alert(1)</script> \"q\" 'a' & \xff"
#define HOSTILE_ESCAPED \
  "&lt;script&gt;alert(1)&lt;/script&gt; &quot;q&quot; &#39;a&#39; &amp; \xef\xbf\xbd"

static size_t count(const char *s, const char *part) {
  size_t n = 0;
  for (; (s = strstr(s, part)); s += strlen(part)) n++;
  return n;
}

/* ---- text ------------------------------------------------------------ */

static void test_numbers(void **state) {
  (void)state;
  char out[NM__NUM];
  assert_string_equal(nm__text_num(out, 0.9134, 2), "0.91");
  assert_string_equal(nm__text_num(out, -0.001, 2), "0.00");
  assert_string_equal(nm__text_num(out, -12, 0), "-12");
  assert_string_equal(nm__text_num(out, 1e300, 2), "1e+300");
  assert_string_equal(nm__text_num(out, 1.5e-12, 12), "1.5e-12");
  assert_string_equal(nm__text_num(out, NAN, 2), "nan");
  assert_string_equal(nm__text_num(out, -INFINITY, 2), "-inf");
}

static void test_kinds(void **state) {
  (void)state;
  static const char *const numbers[] = {"1", "-0.31", "1,204", "12 MiB", "0.91 [0.88, 0.94]",
                                        "98.2 %", "+3", "1e-5", "0.9 ± 0.1", "−2", "7 of 24"};
  static const char *const texts[] = {"cities", "v2", "blk.3", "2 or more", "日本", "\xff", "(a)"};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    assert_int_equal(nm__text_kind(numbers[i]), NM__CELL_NUMBER);
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    assert_int_equal(nm__text_kind(texts[i]), NM__CELL_TEXT);
  assert_int_equal(nm__text_kind("nan"), NM__CELL_NEUTRAL);
  assert_int_equal(nm__text_kind(NULL), NM__CELL_NEUTRAL);
}

static void check_escape(const char *in, const char *want) {
  struct nm__buf b;
  nm__buf_init(&b, 1 << 16);
  nm__buf_puts(&b, "");
  nm__html_escape(&b, in);
  assert_string_equal(b.s, want);
  nm__buf_done(&b);
}

static void test_escape(void **state) {
  (void)state;
  check_escape(HOSTILE, HOSTILE_ESCAPED);
  check_escape("a\r\nb\tc\x01", "a\nb\tc\xef\xbf\xbd");
  check_escape("\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd");          /* cut short */
  check_escape("\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* a surrogate */
  check_escape("\xef\xbf\xbf", "\xef\xbf\xbd");                  /* not allowed in XML */
  check_escape("日本 é", "日本 é");
  check_escape(NULL, "");
}

/* ---- terminal -------------------------------------------------------- */

static void test_sparkline(void **state) {
  (void)state;
  const double v[] = {0, 0.5, 1, NAN, -3, 9};
  struct nm__buf b;
  nm__buf_init(&b, 1 << 10);
  nm__sparkline(&b, v, 6, 0, 1);
  assert_string_equal(b.s, "▁▅█ ▁█");
  nm__buf_reset(&b);
  nm__sparkline(&b, v, 1, 2, 2);
  assert_string_equal(b.s, "▅");
  nm__buf_done(&b);
}

static void test_grid(void **state) {
  (void)state;
  const char *const heads[] = {"name", "acc", "note"};
  struct nm__grid *g = nm__grid_new(heads, 3);
  nm__grid_cell(g, "日本");
  nm__grid_cell(g, "%.2f", 0.5);
  nm__grid_cell(g, "ok");
  nm__grid_cell(g, "e\x1b[31m\xff");
  nm__grid_cell(g, "%d", 12);
  nm__grid_cell(g, "%s", "");
  nm__grid_cell(g, "last");
  struct nm__buf b;
  nm__buf_init(&b, 1 << 12);
  nm__grid_print(g, &b);
  assert_string_equal(b.s,
                      "name      acc  note\n"
                      "───────  ────  ────\n"
                      "日本     0.50  ok\n"
                      "e\xef\xbf\xbd[31m\xef\xbf\xbd    12\n"
                      "last\n");
  nm__buf_done(&b);
  nm__grid_free(g);
  nm__grid_free(NULL);
}

static void test_grid_long_cell(void **state) {
  (void)state;
  char name[1000];
  memset(name, 'x', sizeof name - 1);
  name[sizeof name - 1] = 0;
  const char *const heads[] = {"h"};
  struct nm__grid *g = nm__grid_new(heads, 1);
  for (int i = 0; i < 200; i++) nm__grid_cell(g, "%s", name);
  struct nm__buf b;
  nm__buf_init(&b, 1 << 20);
  nm__grid_print(g, &b);
  assert_false(b.failed);
  assert_int_equal(count(b.s, "\n"), 202);
  nm__buf_done(&b);
  nm__grid_free(g);
}

/* ---- charts ---------------------------------------------------------- */

enum { MAX_N = 80 };

static char *chart(const struct nm__chart *c) {
  struct nm__buf b;
  nm__buf_init(&b, 1 << 24);
  nm__chart_svg(c, &b);
  assert_false(b.failed);
  assert_true(!strncmp(b.s, "<svg ", 5));
  assert_true(!strcmp(b.s + b.len - 7, "</svg>\n"));
  assert_int_equal(count(b.s, "<svg "), 2);
  assert_int_equal(count(b.s, "<g"), count(b.s, "</g>"));
  assert_int_equal(count(b.s, "<title>"), count(b.s, "</title>"));
  assert_null(strstr(b.s, "nan"));
  assert_null(strstr(b.s, "inf "));
  return b.s;
}

static void fill(double *x, double *y, int n) {
  for (int i = 0; i < n; i++) {
    x[i] = i;
    y[i] = 0.5 + 0.4 * i / n;
  }
}

static void test_chart_points(void **state) {
  (void)state;
  double x[MAX_N], y[MAX_N];
  fill(x, y, 25);
  y[7] = NAN;
  struct nm__series s = {.name = HOSTILE, .x = x, .y = y, .lo = y, .hi = y, .n = 25};
  struct nm__chart c = {.title = HOSTILE, .x_label = "layer", .y_label = "accuracy",
                        .y_lo = 0.4, .y_hi = 1, .series = &s, .n_series = 1};
  char *a = chart(&c), *b = chart(&c);
  assert_string_equal(a, b);
  assert_int_equal(count(a, "<circle class='nm-hit'"), 24);
  assert_non_null(strstr(a, HOSTILE_ESCAPED "\nlayer: 3\naccuracy: 0.548\ninterval: 0.548 to"));
  assert_null(strstr(a, "<script>"));
  assert_non_null(strstr(a, ">0.4</text>"));
  assert_non_null(strstr(a, ">1.0</text>"));
  assert_non_null(strstr(a, ">24</text>"));
  free(a);
  free(b);
}

/* The same bytes where a comma is the decimal mark, when such a locale is there. */
static void test_chart_locale(void **state) {
  (void)state;
  double x[4], y[4];
  fill(x, y, 4);
  struct nm__series s = {.name = "a", .x = x, .y = y, .n = 4};
  struct nm__chart c = {.series = &s, .n_series = 1};
  char *a = chart(&c);
  if (setlocale(LC_NUMERIC, "de_DE.UTF-8") || setlocale(LC_NUMERIC, "fr_FR.UTF-8")) {
    char *b = chart(&c);
    setlocale(LC_NUMERIC, "C");
    assert_string_equal(a, b);
    free(b);
  }
  free(a);
}

static void test_chart_odd(void **state) {
  (void)state;
  struct nm__chart c = {0};
  char *s = chart(&c);
  assert_non_null(strstr(s, "no data"));
  free(s);
  double x[] = {3, NAN, 1e300, 5}, y[] = {0.7, 0.5, 0.5, INFINITY};
  struct nm__series one = {.name = "one", .x = x, .y = y, .n = 4, .colour = -3, .faint = true};
  struct nm__vmark v[] = {{NAN, "never", 0}, {3, NULL, 12}};
  struct nm__hline h[] = {{NAN, "never", NM__LINE_DASHED, 0}};
  c = (struct nm__chart){.series = &one, .n_series = 1, .vmarks = v, .n_vmarks = 2,
                         .hlines = h, .n_hlines = 1, .width = 1, .height = 1};
  s = chart(&c);
  assert_int_equal(count(s, "<circle class='nm-hit'"), 1);
  free(s);
  double wide[] = {-1e100, 1e100}, tiny[] = {1e-90, 2e-90};
  struct nm__series far_apart = {.x = wide, .y = tiny, .n = 2};
  c = (struct nm__chart){.series = &far_apart, .n_series = 1};
  free(chart(&c));
  struct nm__series narrow = {.x = (double[]){1e12, 1e12 + 1}, .y = wide, .n = 2};
  c.series = &narrow;
  free(chart(&c));
}

static void check_ticks(double lo, double hi, bool whole, const char *want) {
  double x[] = {whole ? 0 : 0.5, whole ? 24 : 1.5}, y[] = {lo, hi};
  struct nm__series s = {.x = x, .y = y, .n = 2};
  struct nm__chart c = {.series = &s, .n_series = 1};
  struct nm__layout p;
  assert_int_equal(nm__layout_make(&c, &p), NM_OK);
  char num[NM__NUM];
  struct nm__buf b;
  nm__buf_init(&b, 1 << 12);
  for (double i = p.y.first; i <= p.y.last; i++)
    nm__buf_printf(&b, "%s ", nm__text_num(num, nm__axis_tick(&p.y, i), p.y.decimals));
  assert_string_equal(b.s, want);
  nm__buf_done(&b);
  nm__layout_done(&p);
}

static void test_ticks(void **state) {
  (void)state;
  check_ticks(0.41, 0.98, true, "0.4 0.5 0.6 0.7 0.8 0.9 1.0 ");
  check_ticks(-3, 118, true, "-20 0 20 40 60 80 100 120 ");
  check_ticks(0, 0.0003, true, "0.00000 0.00005 0.00010 0.00015 0.00020 0.00025 0.00030 ");
  check_ticks(5, 5, false, "4.4 4.6 4.8 5.0 5.2 5.4 5.6 ");
}

/* Flags of any crowd keep clear of each other and inside the picture. */
static void test_flags(void **state) {
  (void)state;
  double x[MAX_N], y[MAX_N];
  fill(x, y, 33);
  struct nm__series s = {.name = "a", .x = x, .y = y, .n = 33};
  struct nm__vmark v[10];
  for (uint64_t seed = 0; seed < 60; seed++) {
    for (int i = 0; i < 10; i++)
      v[i] = (struct nm__vmark){(double)(nm__rand_at(seed, 1, (uint64_t)i) % 33),
                                "counterfact jumps", i};
    struct nm__chart c = {.series = &s, .n_series = 1, .vmarks = v, .n_vmarks = 10};
    struct nm__layout p;
    assert_int_equal(nm__layout_make(&c, &p), NM_OK);
    for (int i = 0; i < p.n_flags; i++) {
      assert_true(p.flags[i].x0 > 0 && p.flags[i].x1 < p.width);
      for (int k = 0; k < i; k++)
        assert_true(p.flags[i].row != p.flags[k].row || p.flags[i].x0 > p.flags[k].x1 ||
                    p.flags[k].x0 > p.flags[i].x1);
    }
    assert_true(p.bottom - p.top >= 200);
    nm__layout_done(&p);
  }
}

/* The legend never shares pixels with the plot, whatever its side. */
static void test_legend(void **state) {
  (void)state;
  double x[MAX_N], y[MAX_N];
  fill(x, y, 61);
  struct nm__series s[40];
  for (int n = 1; n <= 40; n++) {
    for (int i = 0; i < n; i++)
      s[i] = (struct nm__series){.name = n % 3 ? "short" : "a name that is rather long for this "
                                 "legend, with its controls and shuffled labels",
                                 .x = x, .y = y, .n = 61, .colour = i};
    struct nm__chart c = {.title = "t", .x_label = "x", .y_label = "y", .series = s, .n_series = n};
    struct nm__layout p;
    assert_int_equal(nm__layout_make(&c, &p), NM_OK);
    int rows = (n + p.n_legend_cols - 1) / p.n_legend_cols;
    assert_true(p.legend_below ? p.legend_y > p.bottom + 44 : p.legend_x > p.right);
    assert_true(p.legend_y + rows * NM__LINE_LEGEND <= p.height);
    assert_true(p.legend_x + p.n_legend_cols * p.legend_col <= p.width + 22);
    nm__layout_done(&p);
    free(chart(&c));
  }
}

/* ---- report.html ----------------------------------------------------- */

static char *temp_dir(void) {
  char *dir = nm__strdup("/tmp/noema-report-XXXXXX");
  assert_non_null(mkdtemp(dir));
  return dir;
}

static void remove_dir(char *dir, const char *const *names) {
  for (; *names; names++) {
    char *path = nm__path_join(dir, *names);
    unlink(path);
    free(path);
  }
  assert_int_equal(rmdir(dir), 0);
  free(dir);
}

static const char *const PAGE_FILES[] = {"report.html", NULL};
static const char *const RUN_FILES[] = {"runs.db", "runs.db-wal", "runs.db-shm",
                                        "runs.db-journal", "config.json", NULL};

static void test_page(void **state) {
  (void)state;
  char *dir = temp_dir(), *path = nm__path_join(dir, "report.html");
  struct nm__page *p = nm__page_new(HOSTILE);
  const char *const heads[] = {HOSTILE, "n"};
  const char *const cells[] = {HOSTILE, "12", "b", NULL};
  nm__page_heading(p, HOSTILE);
  nm__page_para(p, HOSTILE);
  nm__page_code(p, HOSTILE);
  nm__page_svg(p, "<svg></svg>\n");
  nm__page_table(p, heads, 2, cells, 2);
  nm_err err = {0};
  assert_int_equal(nm__page_write(p, path, &err), NM_OK);
  assert_int_equal(nm__page_write(p, path, &err), NM_OK);
  nm__page_free(p);
  struct nm__map m;
  assert_int_equal(nm__map_open(path, &m, &err), NM_OK);
  char *s = nm__strndup((const char *)m.data, m.size);
  nm__map_close(&m);
  assert_int_equal(count(s, HOSTILE_ESCAPED), 7);
  assert_null(strstr(s, "<script"));
  assert_null(strstr(s, "http://"));
  assert_null(strstr(s, "\xff"));
  assert_int_equal(count(s, "</html>"), 1);
  assert_non_null(strstr(s, "<th scope=\"col\" class=\"n\">n</th>"));
  assert_non_null(strstr(s, "<td class=\"n\">12</td>"));
  assert_non_null(strstr(s, "<svg></svg>"));
  free(s);
  free(path);
  remove_dir(dir, PAGE_FILES);
}

static void test_page_nowhere(void **state) {
  (void)state;
  nm_err err = {0};
  struct nm__page *p = nm__page_new(NULL);
  assert_int_equal(nm__page_write(p, "/nonexistent/report.html", &err), NM_EFAIL);
  nm__page_free(p);
  assert_int_equal(nm__page_write(NULL, "x", &err), NM_EMEMORY);
}

/* ---- runs ------------------------------------------------------------ */

static struct nm__runs *open_runs(const char *dir) {
  struct nm__runs *r = NULL;
  nm_err err = {0};
  if (nm__runs_open(dir, &r, &err)) fail_msg("%s", err.text);
  return r;
}

static void test_runs(void **state) {
  (void)state;
  char *dir = temp_dir();
  struct nm__runs *r = open_runs(dir);
  nm_err err = {0};
  int64_t a, b;
  assert_int_equal(nm__runs_begin(r, "depth", "d1", "Qwen.gguf", "noema depth", &a, &err), 0);
  assert_int_equal(nm__runs_begin(r, "acts", "d2", NULL, "x'); DROP TABLE runs;--", &b, &err), 0);
  assert_int_equal(nm__runs_end(r, a, "done", "50% at\nlayer 7", 2.5, &err), 0);
  assert_int_equal(nm__runs_end(r, 99, "done", "", 0, &err), NM_EFAIL);
  struct nm__runs *reader;
  assert_int_equal(nm__runs_open_read(dir, &reader, &err), 0);
  struct nm__run_row *rows;
  size_t n;
  assert_int_equal(nm__runs_list(reader, NULL, &rows, &n, &err), 0);
  assert_int_equal(n, 2);
  assert_int_equal(rows[0].id, b);
  assert_string_equal(rows[0].status, "running");
  assert_string_equal(rows[0].model, "");
  assert_string_equal(rows[1].status, "done");
  assert_string_equal(rows[1].summary, "50% at layer 7");
  assert_string_equal(rows[1].utc + 19, "Z");
  assert_true(rows[1].seconds == 2.5);
  nm__runs_rows_free(rows, n);
  static const struct { const char *find; size_t n; } finds[] = {
      {"depth", 1}, {"qwen", 1}, {"drop table", 1}, {"50%", 1}, {"%", 1}, {"", 2}, {"_", 0}};
  for (size_t i = 0; i < sizeof finds / sizeof *finds; i++) {
    assert_int_equal(nm__runs_list(reader, finds[i].find, &rows, &n, &err), 0);
    assert_int_equal(n, finds[i].n);
    nm__runs_rows_free(rows, n);
  }
  assert_int_equal(nm__runs_end(reader, a, "done", "", 0, &err), NM_EFAIL);
  nm__runs_close(reader);
  nm__runs_close(r);
  nm__runs_close(NULL);
  remove_dir(dir, RUN_FILES);
}

/* Runs fn in a process of its own and returns its exit status. */
static int in_child(int (*fn)(const char *dir), const char *dir) {
  pid_t pid = fork();
  if (!pid) _exit(fn(dir));
  int status = -1;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int begin_and_die(const char *dir) {
  struct nm__runs *r;
  int64_t id;
  if (nm__runs_open(dir, &r, NULL)) return 1;
  return nm__runs_begin(r, "train", "d", "m", "c", &id, NULL) != 0;
}

static void test_runs_died(void **state) {
  (void)state;
  char *dir = temp_dir();
  assert_int_equal(in_child(begin_and_die, dir), 0);
  struct nm__runs *r = open_runs(dir);
  struct nm__run_row *rows;
  size_t n;
  assert_int_equal(nm__runs_list(r, "train", &rows, &n, NULL), 0);
  assert_int_equal(n, 1);
  assert_string_equal(rows[0].status, "died");
  nm__runs_rows_free(rows, n);
  nm__runs_close(r);
  remove_dir(dir, RUN_FILES);
}

static int write_many(const char *dir) {
  struct nm__runs *r;
  if (nm__runs_open(dir, &r, NULL)) return 1;
  for (int i = 0; i < 25; i++) {
    int64_t id;
    if (nm__runs_begin(r, "many", dir, "m", "c", &id, NULL)) return 2;
    if (nm__runs_end(r, id, "done", "s", i, NULL)) return 3;
  }
  nm__runs_close(r);
  return 0;
}

/* Several programs start in an empty folder at once: each creates or finds the
 * store, and no row is lost. */
static void test_runs_writers(void **state) {
  (void)state;
  char *dir = temp_dir();
  pid_t pids[6];
  for (int i = 0; i < 6; i++) {
    pids[i] = fork();
    if (!pids[i]) _exit(write_many(dir));
  }
  for (int i = 0; i < 6; i++) {
    int status;
    waitpid(pids[i], &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
  }
  struct nm__runs *r = open_runs(dir);
  struct nm__run_row *rows;
  size_t n;
  assert_int_equal(nm__runs_list(r, NULL, &rows, &n, NULL), 0);
  assert_int_equal(n, 150);
  for (size_t i = 0; i < n; i++) assert_string_equal(rows[i].status, "done");
  nm__runs_rows_free(rows, n);
  nm__runs_close(r);
  remove_dir(dir, RUN_FILES);
}

static void check_corrupt(const void *bytes, size_t size) {
  char *dir = temp_dir(), *path = nm__path_join(dir, "runs.db");
  assert_int_equal(nm__write_file(path, bytes, size, NULL), 0);
  struct nm__runs *r;
  nm_err err = {0};
  assert_int_equal(nm__runs_open(dir, &r, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, path));
  assert_null(r);
  err = (nm_err){0};
  assert_int_equal(nm__runs_open_read(dir, &r, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, path));
  free(path);
  remove_dir(dir, RUN_FILES);
}

static void test_runs_corrupt(void **state) {
  (void)state;
  char junk[8192];
  memset(junk, 'x', sizeof junk);
  check_corrupt(junk, sizeof junk);
  check_corrupt("not a database", 14);
  memcpy(junk, "SQLite format 3", 16);
  check_corrupt(junk, sizeof junk);
}

static void test_runs_missing(void **state) {
  (void)state;
  char *dir = temp_dir(), *path = nm__path_join(dir, "runs.db");
  struct nm__runs *r;
  nm_err err = {0};
  assert_int_equal(nm__runs_open_read(dir, &r, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, dir));
  assert_int_equal(nm__write_file(path, "", 0, NULL), 0);
  assert_int_equal(nm__runs_open_read(dir, &r, &err), NM_EFORMAT);
  assert_int_equal(nm__runs_open(path, &r, &err), NM_EFAIL);
  free(path);
  remove_dir(dir, RUN_FILES);
}

/* Returns 0 when a reader without permission to write sees the row and a writer
 * is told no. Root may write anywhere, so the child becomes somebody else. */
static int use_read_only(const char *dir) {
  if (!geteuid() && (setgid(65534) || setuid(65534))) return 1;
  struct nm__runs *r;
  nm_err err = {0};
  if (nm__runs_open(dir, &r, &err) != NM_EFAIL || !strstr(err.text, dir)) return 2;
  if (nm__runs_open_read(dir, &r, &err)) return 3;
  struct nm__run_row *rows;
  size_t n;
  if (nm__runs_list(r, NULL, &rows, &n, &err) || n != 1) return 4;
  nm__runs_rows_free(rows, n);
  nm__runs_close(r);
  return 0;
}

static void test_runs_read_only(void **state) {
  (void)state;
  char *dir = temp_dir(), *path = nm__path_join(dir, "runs.db");
  chmod(dir, 0555);
  int st = in_child(use_read_only, dir);
  assert_int_equal(st, 3); /* nothing there to read yet */
  chmod(dir, 0755);
  struct nm__runs *r = open_runs(dir);
  int64_t id;
  assert_int_equal(nm__runs_begin(r, "depth", "d", "m", "c", &id, NULL), 0);
  nm__runs_close(r);
  chmod(path, 0444);
  chmod(dir, 0555);
  st = in_child(use_read_only, dir);
  chmod(dir, 0755);
  assert_int_equal(st, 0);
  free(path);
  remove_dir(dir, RUN_FILES);
}

/* Runs make their folders: they may, in a place of their own. */
static char *own;
static int enter(void **state) {
  (void)state;
  own = temp_dir();
  return chdir(own);
}

static int leave(void **state) {
  (void)state;
  static const char *const names[] = {"d", "d1", "d2"}, *const files[] = {"config.json", NULL};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    remove_dir(nm__path_join(own, names[i]), files);
  if (chdir("/")) return 1;
  remove_dir(own, files + 1);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_numbers), cmocka_unit_test(test_kinds),
      cmocka_unit_test(test_escape), cmocka_unit_test(test_sparkline),
      cmocka_unit_test(test_grid), cmocka_unit_test(test_grid_long_cell),
      cmocka_unit_test(test_chart_points), cmocka_unit_test(test_chart_locale),
      cmocka_unit_test(test_chart_odd), cmocka_unit_test(test_ticks),
      cmocka_unit_test(test_flags), cmocka_unit_test(test_legend),
      cmocka_unit_test(test_page), cmocka_unit_test(test_page_nowhere),
      cmocka_unit_test(test_runs), cmocka_unit_test(test_runs_died),
      cmocka_unit_test(test_runs_writers), cmocka_unit_test(test_runs_corrupt),
      cmocka_unit_test(test_runs_missing), cmocka_unit_test(test_runs_read_only),
  };
  return cmocka_run_group_tests(tests, enter, leave);
}
