/* study.c - the harness: the table of studies, claims and the verdict, the folder of a run. */
#include "study/study.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/json.h"
#include "look/probe.h"
#include "study/depth.h"

static const struct nm__study *const studies[] = {&nm__study_concept_depth,
                                               &nm__study_walks,
                                               &nm__study_retrieval_heads};
enum { N_STUDIES = sizeof studies / sizeof *studies };

bool nm_studies(int i, nm_study_info *out) {
  if (i < 0 || i >= N_STUDIES) return false;
  *out = studies[i]->info;
  return true;
}

/* ---- claims --------------------------------------------------------------------- */

nm_interval nm__study_interval(const double *v, int n) {
  return nm__depth_interval(v, n, 0, 1);       /* seeds do not overlap as splits do */
}

static double outside(double v, double low, double high) {
  return v < low ? low - v : v > high ? v - high : fmax(low - v, v - high);
}

/* Every seed is held to it: a mean would hide the one seed that says otherwise. */
void nm__study_claim(struct nm__study_run *r, const struct nm__claim *c, const double *v, int n) {
  nm_study_result *out = r->out;
  nm_study_claim *list = nm__realloc(out->claim, (size_t)out->n_claims + 1, sizeof *list);
  if (!list) {
    r->failed = true;
    return;
  }
  out->claim = list;
  nm_study_claim *q = &list[out->n_claims++];
  *q = (nm_study_claim){.name = nm__strdup(c->name), .text = nm__strdup(c->text),
                        .control = c->kind == NM__CONTROL, .n = n, .low = c->low,
                        .high = c->high, .state = NM_CLAIM_NOTE};
  if (!q->name || !q->text) r->failed = true;
  double far = -HUGE_VAL;
  for (int i = 0; i < n; i++) {
    double d = isfinite(v[i]) ? outside(v[i], c->low, c->high) : HUGE_VAL;
    if (d >= far) far = d, q->worst = v[i];
  }
  if (n) q->value = nm__study_interval(v, n);
  if (c->kind == NM__NOTE) return;
  if (!n) q->state = NM_CLAIM_UNSURE;
  else if (far <= 0) q->state = NM_CLAIM_OK;
  else q->state = c->kind == NM__CONDITION ? NM_CLAIM_UNSURE : NM_CLAIM_RED;
}

int nm__study_verdict(const nm_study_claim *c, int n, int n_seeds) {
  bool unsure = n_seeds < NM__STUDY_ENOUGH, ok = false;
  for (int i = 0; i < n; i++) {
    if (c[i].state == NM_CLAIM_RED) return NM_ECHECK;
    unsure |= c[i].state == NM_CLAIM_UNSURE;
    ok |= c[i].state == NM_CLAIM_OK;
  }
  return unsure || !ok ? NM_EUNSURE : NM_OK;
}

/* ---- what is shown ----------------------------------------------------------------- */

void nm__study_para(struct nm__study_run *r, const char *text) {
  nm__buf_printf(&r->text, "%s\n\n", text);
  nm__page_para(r->page, text);
}

void nm__study_table(struct nm__study_run *r, const char *title, const char *const *heads,
                     int n_cols, const char *const *cells, int n_rows) {
  struct nm__grid *g = nm__grid_new(heads, n_cols);
  if (!g) {
    r->failed = true;
    return;
  }
  for (int i = 0; i < n_rows * n_cols; i++) nm__grid_cell(g, "%s", cells[i]);
  nm__buf_printf(&r->text, "%s\n", title);
  nm__grid_print(g, &r->text);
  nm__buf_putc(&r->text, '\n');
  nm__grid_free(g);
  nm__page_heading(r->page, title);
  nm__page_table(r->page, heads, n_cols, cells, n_rows);
}

void nm__study_cell(struct nm__study_run *r, const char *fmt, ...) {
  va_list args;
  if (r->n_cells == r->cap_cells) {
    int cap = r->cap_cells ? 2 * r->cap_cells : 128;
    char (*v)[64] = nm__realloc(r->cell, (size_t)cap, sizeof *v);
    r->failed |= !v;
    if (!v) return;
    r->cell = v;
    r->cap_cells = cap;
  }
  va_start(args, fmt);
  vsnprintf(r->cell[r->n_cells++], sizeof *r->cell, fmt, args);
  va_end(args);
}

void nm__study_rows(struct nm__study_run *r, const char *title, const char *const *heads,
                    int n_cols) {
  const char **cell = nm__alloc((size_t)r->n_cells + 1, sizeof *cell);
  r->failed |= !cell;
  for (int i = 0; cell && i < r->n_cells; i++) cell[i] = r->cell[i];
  if (cell) nm__study_table(r, title, heads, n_cols, cell, r->n_cells / n_cols);
  free(cell);
  r->n_cells = 0;
}

int nm__study_figure(struct nm__study_run *r, const char *name, const struct nm__chart *c,
                     nm_err *err) {
  struct nm__buf svg;
  char file[80];
  snprintf(file, sizeof file, "%s.svg", name);
  char *path = nm__path_join(r->out->dir, file);
  nm__buf_init(&svg, (size_t)1 << 26);
  nm__chart_svg(c, &svg);
  int st = path && !svg.failed ? nm__write_file(path, svg.s, svg.len, err)
                               : nm__fail_memory(err, "a figure", svg.len);
  if (!st) nm__page_svg(r->page, svg.s);
  nm__buf_done(&svg);
  free(path);
  return st;
}

static const char *state_name(const nm_study_claim *c) {
  static const char *const name[] = {"ok", "RED", "unsure", "-"};
  return !c->n && c->state == NM_CLAIM_UNSURE ? "not measured" : name[c->state];
}

static const char *verdict_name(int verdict) {
  return verdict == NM_OK ? "pass" : verdict == NM_ECHECK ? "fail" : "inconclusive";
}

/* "0.998 (0.991 to 1.004)", and what every seed must be. */
static void claim_cells(const nm_study_claim *c, char value[64], char must[64]) {
  if (!c->n) snprintf(value, 64, "none");
  else if (c->n == 1) snprintf(value, 64, "%.3f", c->value.mean);
  else
    snprintf(value, 64, "%.3f (%.3f to %.3f)", c->value.mean, c->value.lo, c->value.hi);
  if (c->state == NM_CLAIM_NOTE) snprintf(must, 64, "not judged");
  else if (isinf(c->low)) snprintf(must, 64, "at most %g", c->high);
  else if (isinf(c->high)) snprintf(must, 64, "at least %g", c->low);
  else if (c->low == c->high) snprintf(must, 64, "%g", c->low);
  else snprintf(must, 64, "%g to %g", c->low, c->high);
}

static int show_claims(struct nm__study_run *r, nm_err *err) {
  static const char *const heads[] = {"claim", "what", "mean (95 %)", "worst seed", "must be", ""};
  const nm_study_result *o = r->out;
  size_t n = (size_t)o->n_claims;
  char (*mem)[3][64] = nm__alloc(n + 1, sizeof *mem);
  const char **cell = nm__alloc(6 * n + 1, sizeof *cell);
  if (!mem || !cell) return free(mem), free(cell), nm__fail_memory(err, "the claims", n * 192);
  for (size_t i = 0; i < n; i++) {
    const nm_study_claim *c = &o->claim[i];
    claim_cells(c, mem[i][0], mem[i][1]);
    snprintf(mem[i][2], 64, c->n ? "%.3f" : "none", c->worst);
    const char *row[6] = {c->name, c->text, mem[i][0], mem[i][2], mem[i][1], state_name(c)};
    memcpy(cell + 6 * i, row, sizeof row);
  }
  nm__study_table(r, "Claims, as stated before, and controls", heads, 6, cell, o->n_claims);
  free(mem);
  free(cell);
  return NM_OK;
}

static int summarise(struct nm__study_run *r, nm_err *err) {
  nm_study_result *o = r->out;
  struct nm__buf b;
  int red = 0, unsure = 0;
  nm__buf_init(&b, 4096);
  for (int i = 0; i < o->n_claims; i++) {
    red += o->claim[i].state == NM_CLAIM_RED;
    unsure += o->claim[i].state == NM_CLAIM_UNSURE;
  }
  nm__buf_printf(&b, "%s: %s", o->name, verdict_name(o->verdict));
  if (red) nm__buf_printf(&b, ", %d red", red);
  if (unsure) nm__buf_printf(&b, ", %d unsure", unsure);
  if (r->n_seeds < NM__STUDY_ENOUGH)
    nm__buf_printf(&b, ", %d seed%s where %d are needed", r->n_seeds, r->n_seeds > 1 ? "s" : "",
                   NM__STUDY_ENOUGH);
  for (int i = 0, k = 0; i < o->n_claims && k < 8; i++)
    if (o->claim[i].state == NM_CLAIM_RED)
      nm__buf_printf(&b, "%s%s", k++ ? ", " : "; red: ", o->claim[i].name);
  if (r->fault >= 0) nm__buf_printf(&b, " (with the fault %s put in)", r->o->fault);
  o->summary = b.failed ? NULL : nm__strdup(b.s);
  nm__buf_done(&b);
  return o->summary ? NM_OK : nm__fail_memory(err, "a summary", 4096);
}

/* ---- files --------------------------------------------------------------------------- */

static json_t *real(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static json_t *claim_json(const nm_study_claim *c) {
  static const char *const state[] = {"ok", "red", "unsure", "note"};
  return json_pack("{s:s, s:s, s:b, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "name", c->name,
                   "text", c->text, "control", c->control, "seeds", c->n, "mean",
                   c->n ? real(c->value.mean) : json_null(), "lo",
                   c->n > 1 ? real(c->value.lo) : json_null(), "hi",
                   c->n > 1 ? real(c->value.hi) : json_null(), "worst",
                   c->n ? real(c->worst) : json_null(), "low", real(c->low), "high",
                   real(c->high), "state", state[c->state]);
}

static int write_json(struct nm__study_run *r, nm_err *err) {
  nm_study_result *o = r->out;
  json_t *claims = json_array(), *seeds = json_array();
  for (int i = 0; i < o->n_claims; i++) json_array_append_new(claims, claim_json(&o->claim[i]));
  for (int i = 0; i < r->n_seeds; i++)
    json_array_append_new(seeds, json_integer((json_int_t)r->seeds[i]));
  json_t *j = json_pack("{s:s, s:s, s:s, s:o, s:b, s:o, s:s, s:o, s:O}", "noema", NM_VERSION,
                        "study", o->name, "verdict", verdict_name(o->verdict), "seeds", seeds,
                        "quick", r->o->quick, "fault",
                        r->o->fault ? nm__json_text(r->o->fault) : json_null(), "summary",
                        o->summary, "claims", claims, "figures", r->figures);
  char *path = nm__path_join(o->dir, "study.json"),
       *s = j ? json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(10)) : NULL;
  o->json = s ? nm__strdup(s) : NULL;
  int st = path && o->json ? nm__write_file(path, s, strlen(s), err)
                           : nm__fail_memory(err, "the results", 0);
  free(s);
  free(path);
  json_decref(j);
  return st;
}

static int finish(struct nm__study_run *r, nm_err *err) {
  nm_study_result *o = r->out;
  o->verdict = nm__study_verdict(o->claim, o->n_claims, r->n_seeds);
  int st = summarise(r, err);
  if (!st) st = show_claims(r, err);
  if (st) return st;
  nm__study_para(r, o->summary);
  char *path = nm__path_join(o->dir, "report.html");
  o->text = nm__strdup(r->text.s);
  if (r->failed || r->text.failed || !path || !o->text) st = nm__fail_memory(err, "a report", 0);
  if (!st) st = nm__page_write(r->page, path, err);
  free(path);
  return st ? st : write_json(r, err);
}

/* ---- what a seed leaves -------------------------------------------------------------------- */

static char *seed_path(const struct nm__study_run *r, uint64_t seed) {
  char file[64];
  snprintf(file, sizeof file, "seed-%llu.json", (unsigned long long)seed);
  return nm__path_join(r->out->dir, file);
}

bool nm__study_kept(const struct nm__study_run *r, uint64_t seed, const char *key, double *v,
                    size_t n) {
  struct nm__map m;
  char *path = seed_path(r, seed);
  if (!path || !nm__exists(path) || nm__map_open(path, &m, NULL)) return free(path), false;
  json_t *o = nm__json_parse(path, (const char *)m.data, m.size, n + 64, NULL);
  const json_t *list = json_object_get(o, "figures");
  const char *k = json_string_value(json_object_get(o, "key"));
  bool good = k && !strcmp(k, key) && json_array_size(list) == n;
  for (size_t i = 0; i < n && good; i++) {
    const json_t *x = json_array_get(list, i);
    good = json_is_number(x) || json_is_null(x);
    v[i] = json_is_number(x) ? json_number_value(x) : NAN;
  }
  json_decref(o);
  nm__map_close(&m);
  free(path);
  return good;
}

int nm__study_keep(const struct nm__study_run *r, uint64_t seed, const char *key, const double *v,
                   size_t n, nm_err *err) {
  json_t *list = json_array();
  char *path = seed_path(r, seed);
  for (size_t i = 0; i < n; i++) json_array_append_new(list, real(v[i]));
  json_t *o = json_pack("{s:s, s:o}", "key", key, "figures", list);
  char *s = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
  int st = s && path ? nm__write_file(path, s, strlen(s), err)
                     : nm__fail_memory(err, "the figures of a seed", n * sizeof *v);
  free(s);
  free(path);
  json_decref(o);
  return st;
}

/* ---- the whole ------------------------------------------------------------------------- */

static int find_fault(const struct nm__study *s, const char *name, int *out, nm_err *err) {
  char list[400] = "", shown[40];
  size_t at = 0;
  *out = -1;
  for (int i = 0; name && s->info.faults[i].name && *out < 0; i++) {
    if (!strcmp(s->info.faults[i].name, name)) *out = i;
    if (at < sizeof list)
      at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "",
                             s->info.faults[i].name);
  }
  if (!name || *out >= 0) return NM_OK;
  return nm__fail(err, NM_EUSAGE, "study %s has no fault '%s'; it has %s", s->info.name,
                  nm__printable(shown, sizeof shown, name, strlen(name)), list);
}

static int open_dir(const char *name, const nm_study_opts *o, char **root, nm_study_result *out,
                    nm_err *err) {
  char folder[128], utc[32];
  nm__utc(utc);
  for (char *c = utc; *c; c++)
    if (*c == ':') *c = '-';
  snprintf(folder, sizeof folder, "runs/study-%s-%s-%d", name, utc, (int)getpid());
  out->dir = nm__folder_name(o->out ? o->out : folder);
  const char *path = out->dir ? out->dir : "", *slash = strrchr(path, '/');
  out->name = nm__strdup(name);
  *root = !slash ? nm__strdup(".") : slash == path ? nm__strdup("/")
                                                   : nm__strndup(path, (size_t)(slash - path));
  if (!out->dir || !out->name || !*root) return nm__fail_memory(err, "a folder name", 0);
  return nm__mkdirs(out->dir, err);
}

static int run(const struct nm__study *s, struct nm__study_run *r, nm_err *err) {
  char title[96];
  snprintf(title, sizeof title, "Study: %s", s->info.name);
  r->page = nm__page_new(title);
  r->figures = json_object();
  if (!r->page || !r->figures) return nm__fail_memory(err, "a report", 0);
  nm__page_para(r->page, s->info.about);
  nm__page_para(r->page, s->info.source);
  int st = s->run(r, err);
  if (!st && r->failed) st = nm__fail_memory(err, "the results", 0);
  return st ? st : finish(r, err);
}

static json_t *settings(const struct nm__study_run *r) {
  json_t *seeds = json_array();
  for (int i = 0; i < r->n_seeds; i++)
    json_array_append_new(seeds, json_integer((json_int_t)r->seeds[i]));
  return json_pack("{s:o, s:b, s:s?, s:i}", "seeds", seeds, "quick", r->o->quick, "fault",
                   r->o->fault, "threads", r->o->threads);
}

static int recorded(const struct nm__study *s, struct nm__study_run *r, const char *root,
                    nm_err *err) {
  struct nm__runs *runs;
  int64_t id;
  double start = nm__now();
  int st = nm__runs_open(root, &runs, err);
  if (st) return st;
  nm__runs_settings(runs, settings(r));
  st = nm__runs_begin(runs, "study", r->out->dir, s->info.name,
                      r->o->command ? r->o->command : "", &id, err);
  if (!st) {
    st = run(s, r, err);
    nm__runs_end(runs, id, !st ? "done" : st == NM_EINTR ? "interrupted" : "failed",
                 !st ? r->out->summary : err->text, nm__now() - start, NULL);
  }
  nm__runs_close(runs);
  return st;
}

int nm_study(const char *name, const nm_study_opts *o, nm_study_result *out, nm_err *err) {
  static const uint64_t usual[] = {1, 2, 3};
  const struct nm__study *s = NULL;
  char shown[40], *root = NULL;
  nm_err own;
  struct nm__study_run r = {.o = o, .seeds = o->n_seeds ? o->seeds : usual,
                            .n_seeds = o->n_seeds ? o->n_seeds : 3, .out = out};
  if (!err) err = &own;
  *out = (nm_study_result){0};
  for (int i = 0; i < N_STUDIES; i++)
    if (!strcmp(studies[i]->info.name, name)) s = studies[i];
  if (!s)
    return nm__fail(err, NM_EUSAGE, "there is no study '%s'; noema study alone lists them",
                    nm__printable(shown, sizeof shown, name, strlen(name)));
  if (r.n_seeds > NM__STUDY_SEEDS)
    return nm__fail(err, NM_EUSAGE, "a study takes at most %d seeds", NM__STUDY_SEEDS);
  int st = find_fault(s, o->fault, &r.fault, err);
  nm__buf_init(&r.text, (size_t)1 << 24);
  if (!st) st = open_dir(name, o, &root, out, err);
  if (!st) st = recorded(s, &r, root, err);
  nm__buf_done(&r.text);
  nm__page_free(r.page);
  free(r.cell);
  json_decref(r.figures);
  free(root);
  if (st) nm_study_result_free(out);
  return st;
}

void nm_study_result_free(nm_study_result *r) {
  for (int i = 0; i < r->n_claims; i++) {
    free(r->claim[i].name);
    free(r->claim[i].text);
  }
  free(r->claim);
  free(r->name);
  free(r->dir);
  free(r->summary);
  free(r->text);
  free(r->json);
  *r = (nm_study_result){0};
}
