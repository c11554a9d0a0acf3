/* page.c - report.html: one file that opens anywhere, now and in ten years. It
 * loads nothing and runs no script (a content policy says so to the browser, in
 * case a chart or a text should ever disagree), follows the reader's light or
 * dark mode, and prints black on white.
 *
 * The style sheet also colours the charts: chart.c writes plain presentation
 * attributes, which any rule of a style sheet overrides, and the classes named
 * below. So the same <svg> is right alone on white and here in the dark. */
#include "report/report.h"

#include <stdlib.h>
#include <string.h>

#include "report/text.h"

enum { PAGE_MAX = 256 << 20 };

struct nm__page { struct nm__buf b; };

static const char STYLE[] =
    ":root{color-scheme:light dark;--paper:#fff;--ink:#1f2328;--soft:#57606a;--line:#d8dce1;"
    "--tint:#f5f6f8;--grid:#e4e7eb}\n"
    "@media screen and (prefers-color-scheme:dark){\n"
    ":root{--paper:#15181d;--ink:#e4e7eb;--soft:#a2abb6;--line:#363c45;--tint:#1e2229;"
    "--grid:#2b3038}\n"
    ".nm-c0{color:#4fa8e0}.nm-c1{color:#f2844a}.nm-c2{color:#2cc39a}.nm-c3{color:#e39ac6}\n"
    ".nm-c4{color:#eeb545}.nm-c5{color:#8fd0f5}.nm-c6{color:#d0558f}.nm-c7{color:#b8bc5e}\n"
    ".nm-c8{color:#7d6fe0}.nm-c9{color:#c8ccd0}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,"
    "-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif}\n"
    "main{max-width:58rem;margin:0 auto;padding:2.2rem 1.25rem 4rem}\n"
    "h1,h2{line-height:1.25;overflow-wrap:anywhere}\n"
    "h1{font-size:1.75rem;margin:0 0 1.2rem;letter-spacing:-.01em}\n"
    "h2{font-size:1.22rem;margin:2.4rem 0 .7rem;padding-top:1.1rem;"
    "border-top:1px solid var(--line)}\n"
    "p{margin:.7rem 0;max-width:44rem;white-space:pre-line;overflow-wrap:anywhere}\n"
    /* The margin of a chart is outside the column, so that its title meets the text. */
    "figure{margin:1.4rem -14px;overflow-x:auto}\n"
    "figure>svg{display:block;max-width:100%;height:auto}figure>.nm-wide{min-width:620px}\n"
    "pre{margin:1rem 0;padding:.8rem 1rem;background:var(--tint);border:1px solid var(--line);"
    "border-radius:6px;overflow-x:auto;font:13px/1.5 ui-monospace,'SF Mono',Menlo,Consolas,"
    "'DejaVu Sans Mono',monospace}\n"
    "code{font:inherit}\n"
    ".table{margin:1.1rem 0;overflow-x:auto}\n"
    "table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:.36rem .9rem .36rem 0;text-align:left;vertical-align:baseline;"
    "border-bottom:1px solid var(--line)}\n"
    "th+th,td+td{padding-left:.9rem}\n"
    "thead th{font-weight:600;color:var(--soft);border-bottom:2px solid var(--line);"
    "white-space:nowrap}\n"
    "td{overflow-wrap:break-word;max-width:30rem}\n"
    "th.n,td.n{text-align:right;white-space:nowrap}\n"
    "tbody tr:hover{background:var(--tint)}\n"
    ".nm-chart{color:var(--ink)}\n"
    ".nm-chart .nm-soft{color:var(--soft)}\n"
    ".nm-chart .nm-grid{stroke:var(--grid)}\n"
    ".nm-chart .nm-axis{stroke:var(--soft)}\n"
    ".nm-chart .nm-dot{stroke:var(--paper)}\n"
    ".nm-chart .nm-on{fill:var(--paper)}\n"
    "@media print{\n"
    "main{max-width:none;padding:0}body{font-size:10.5pt}\n"
    "figure,.table,pre{overflow:visible}figure>.nm-wide{min-width:0}\n"
    "figure,tr,pre{break-inside:avoid}h1,h2{break-after:avoid}thead{display:table-header-group}\n"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere}}\n";

/* ---- escaping -------------------------------------------------------- */

/* One code point: the five characters of markup by name, what neither HTML nor
 * XML may hold as U+FFFD, the rest as it is. */
static void escape_code(struct nm__buf *b, int32_t c) {
  switch (c) {
    case '&': nm__buf_puts(b, "&amp;"); return;
    case '<': nm__buf_puts(b, "&lt;"); return;
    case '>': nm__buf_puts(b, "&gt;"); return;
    case '"': nm__buf_puts(b, "&quot;"); return;
    case '\'': nm__buf_puts(b, "&#39;"); return;
    default: break;
  }
  bool control = (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7F && c < 0xA0);
  nm__text_put(b, control ? NM__REPLACEMENT : c);
}

void nm__html_escape(struct nm__buf *b, const char *s) {
  if (!s) return;
  int32_t c;
  for (size_t n; (n = nm__text_next(s, &c)); s += n) {
    if (c == '\r' && s[1] == '\n') continue; /* a line end of another system */
    escape_code(b, c == '\r' ? '\n' : c);
  }
}

static void element(struct nm__page *p, const char *open, const char *text, const char *close) {
  if (!p) return;
  nm__buf_puts(&p->b, open);
  nm__html_escape(&p->b, text);
  nm__buf_puts(&p->b, close);
}

/* ---- the page -------------------------------------------------------- */

struct nm__page *nm__page_new(const char *title) {
  struct nm__page *p = nm__alloc(1, sizeof *p);
  if (!p) return NULL;
  nm__buf_init(&p->b, PAGE_MAX);
  nm__buf_puts(&p->b,
               "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
               "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
               "style-src 'unsafe-inline'; img-src data:\">\n"
               "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
  element(p, "<title>", title, "</title>\n<style>\n");
  nm__buf_puts(&p->b, STYLE);
  element(p, "</style>\n</head>\n<body>\n<main>\n<h1>", title, "</h1>\n");
  return p;
}

void nm__page_free(struct nm__page *p) {
  if (!p) return;
  nm__buf_done(&p->b);
  free(p);
}

void nm__page_heading(struct nm__page *p, const char *text) {
  element(p, "<h2>", text, "</h2>\n");
}

void nm__page_para(struct nm__page *p, const char *text) {
  element(p, "<p>", text, "</p>\n");
}

void nm__page_code(struct nm__page *p, const char *text) {
  element(p, "<pre><code>", text, "</code></pre>\n");
}

void nm__page_svg(struct nm__page *p, const char *svg) {
  if (!p || !svg) return;
  nm__buf_puts(&p->b, "<figure>\n");
  nm__buf_puts(&p->b, svg);
  nm__buf_puts(&p->b, "</figure>\n");
}

/* A row of <th> or <td>; right[] tells the columns of numbers. */
static void table_row(struct nm__page *p, bool head, const char *const *cells, int n_cols,
                      const bool *right) {
  nm__buf_puts(&p->b, "<tr>");
  for (int i = 0; i < n_cols; i++) {
    nm__buf_puts(&p->b, head ? "<th scope=\"col\"" : "<td");
    nm__buf_puts(&p->b, right[i] ? " class=\"n\">" : ">");
    element(p, "", cells[i], head ? "</th>" : "</td>");
  }
  nm__buf_puts(&p->b, "</tr>\n");
}

void nm__page_table(struct nm__page *p, const char *const *heads, int n_cols,
                    const char *const *cells, int n_rows) {
  if (!p || n_cols <= 0) return;
  bool *right = nm__alloc((size_t)n_cols, sizeof *right);
  if (!right) {
    p->b.failed = true;
    return;
  }
  size_t rows = n_rows > 0 ? (size_t)n_rows : 0, cols = (size_t)n_cols;
  for (size_t i = 0; i < cols && rows; i++) right[i] = nm__text_numeric(cells + i, rows, cols);
  nm__buf_puts(&p->b, "<div class=\"table\">\n<table>\n<thead>\n");
  table_row(p, true, heads, n_cols, right);
  nm__buf_puts(&p->b, "</thead>\n<tbody>\n");
  for (size_t i = 0; i < rows; i++) table_row(p, false, cells + i * cols, n_cols, right);
  nm__buf_puts(&p->b, "</tbody>\n</table>\n</div>\n");
  free(right);
}

/* The closing tags go to the file only, so a page may be written more than once
 * while a long run fills it. */
int nm__page_write(struct nm__page *p, const char *path, nm_err *err) {
  static const char END[] = "</main>\n</body>\n</html>\n";
  if (!p || p->b.failed) return nm__fail_memory(err, "the report page", p ? p->b.len : 0);
  struct nm__out o;
  int st = nm__out_open(path, &o, err);
  if (!st) st = nm__out_write(&o, p->b.s, p->b.len, err);
  if (!st) st = nm__out_write(&o, END, sizeof END - 1, err);
  return st ? st : nm__out_close(&o, err);
}

int nm__page_finish(struct nm__page *p, const char *dir, const char *command, nm_err *err) {
  nm__page_heading(p, "The exact command");
  nm__page_code(p, command ? command : "");
  char *path = nm__path_join(dir, "report.html");
  int st = path ? nm__page_write(p, path, err) : nm__fail_memory(err, "a file name", 0);
  free(path);
  nm__page_free(p);
  return st;
}
