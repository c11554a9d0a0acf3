/* patch.c - drives activation patching: options, the folder with finished cells, records. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "core/json.h"
#include "report/report.h"
#include "study/patch.h"

enum { MOST_COMPONENTS = 16, MOST_SEEDS = 1000 };
static const char *const usual[] = {"resid_pre", "attn_out", "mlp_out", "attn.head"};

/* ---- options ---------------------------------------------------------------------- */

static int open_comp(struct nm__patching *P, const char *name, nm_err *err) {
  char glob[96];
  struct nm__sels s;
  if (!strcmp(name, "resid")) name = "resid_pre";
  if (strlen(name) > 60 || strpbrk(name, "*?[]|"))
    return nm__fail(err, NM_EUSAGE, "component '%.40s': say a name inside the block, such as "
                    "resid_pre, attn_out, mlp_out or attn.head", name);
  snprintf(glob, sizeof glob, "blk.*.%s", name);
  int st = nm__sites_select(P->m, glob, &s, err);
  if (st) return st;
  struct nm__comp *c = &P->comp[P->n_comp++];
  *c = (struct nm__comp){nm__strdup(name), s.v[0].site == NM__S_HEAD,
                         nm__sel_width(P->m, s.v[0], 1), s.v};
  if (!c->name) return nm__fail_memory(err, "a name", 0);
  if (s.n != P->m->L || !nm__patchable(P->m, s.v[0]))
    return nm__fail(err, NM_EUSAGE, "component '%.40s' has no values that can be patched: "
                    "attention scores, patterns and single experts cannot", name);
  return NM_OK;
}

static int open_comps(struct nm__patching *P, nm_err *err) {
  int n = P->o.n_components ? P->o.n_components : 4, st = NM_OK;
  const char *const *name = P->o.n_components ? P->o.components : usual;
  if (n > MOST_COMPONENTS)
    return nm__fail(err, NM_EUSAGE, "at most %d components are possible", MOST_COMPONENTS);
  P->comp = nm__alloc((size_t)n, sizeof *P->comp);
  if (!P->comp) return nm__fail_memory(err, "the components", 0);
  for (int i = 0; i < n && !st; i++) st = open_comp(P, name[i], err);
  return st;
}

static int check_opts(struct nm__patching *P, nm_err *err) {
  nm_patch_opts *o = &P->o;
  if (!o->window) o->window = 1;
  if (o->noise <= 0) o->noise = 3;
  if (!o->n_seeds) o->n_seeds = 5;
  if (!P->m->tok)
    return nm__fail(err, NM_EFORMAT, "%s: has no tokenizer noema can use, so prompts cannot be "
                    "read", P->m->path);
  if (!P->m->causal || !P->m->output.data)
    return nm__fail(err, NM_EUSAGE, "%s: is an encoder and has no next token, so there is no "
                    "answer to patch for", P->m->path);
  if (o->window < 1 || o->window > P->m->L)
    return nm__fail(err, NM_EUSAGE, "a window of %d layers was asked for, the model has %d",
                    o->window, P->m->L);
  if (o->n_seeds < 1 || o->n_seeds > MOST_SEEDS)
    return nm__fail(err, NM_EUSAGE, "%d seeds were asked for: 1 to %d are possible", o->n_seeds,
                    MOST_SEEDS);
  return NM_OK;
}

/* ---- cells ------------------------------------------------------------------------- */

static size_t cell_at(const struct nm__patching *P, size_t pair, int seed, int comp) {
  return (pair * (size_t)P->n_seeds + (size_t)seed) * (size_t)P->n_comp + (size_t)comp;
}

double *nm__patch_cell(const struct nm__patching *P, size_t pair, int seed, int comp) {
  return P->cell[cell_at(P, pair, seed, comp)];
}

static int make_cells(struct nm__patching *P, nm_err *err) {
  size_t n = P->pairs.n * (size_t)P->n_seeds * (size_t)P->n_comp, L = (size_t)P->m->L;
  P->cell = nm__alloc(n, sizeof *P->cell);
  P->unrelated = nm__alloc(n, sizeof *P->unrelated);
  if (!P->cell || !P->unrelated) return nm__fail_memory(err, "the cells", n * sizeof *P->cell);
  for (size_t i = 0; i < P->pairs.n; i++) {
    struct nm__pair *p = &P->pairs.v[i];
    p->m_corrupt = nm__alloc((size_t)P->n_seeds, sizeof(double));
    if (!p->m_corrupt) return nm__fail_memory(err, "the cells", 0);
    for (int s = 0; s < P->n_seeds; s++)
      for (int c = 0; c < P->n_comp; c++) {
        size_t cells = L * (size_t)nm__patch_cols(P, p, c);
        double *v = P->cell[cell_at(P, i, s, c)] = nm__alloc(cells, sizeof *v);
        if (!v) return nm__fail_memory(err, "the cells", cells * sizeof *v);
        for (size_t k = 0; k < cells; k++) v[k] = NAN;
      }
  }
  return NM_OK;
}

/* Runs and positions of all cells, whether they are there already or not. */
static void count(struct nm__patching *P) {
  nm_patch_result *r = P->r;
  for (size_t i = 0; i < P->pairs.n; i++) {
    const struct nm__pair *p = &P->pairs.v[i];
    size_t T = p->base.n, per = (size_t)P->m->L * (size_t)P->n_seeds;
    for (int c = 0; c < P->n_comp; c++)
      for (int k = 0; k < nm__patch_cols(P, p, c); k++) {
        bool many = P->comp[c].heads || k == (int)T;
        if (nm__patch_same(P, p, c, k) || (!many && p->from[k] < 0)) continue;
        r->n_runs += per;
        r->n_positions += per * (T - (size_t)(many ? p->first : k));
      }
  }
}

int nm__patch_keep(struct nm__patching *P, size_t pair, int seed, int comp, int layer, int col,
                   double v, nm_err *err) {
  int cols = nm__patch_cols(P, &P->pairs.v[pair], comp);
  nm__patch_cell(P, pair, seed, comp)[(size_t)layer * (size_t)cols + (size_t)col] = v;
  if (!P->cells_file) return NM_OK;
  if (fprintf(P->cells_file, "[%zu,%d,%d,%d,%d,%.17g]\n", pair, seed, comp, layer, col, v) < 0)
    return nm__fail(err, NM_EFAIL, "%s/cells.jsonl: cannot be written", P->r->dir);
  return NM_OK;
}

/* Everything that can change a cell. */
static int key_of(struct nm__patching *P, char key[33], nm_err *err) {
  struct nm__buf b;
  char hex[33];
  nm__buf_init(&b, (size_t)1 << 30);
  int st = nm_model_hash(P->m, hex, err);
  nm__buf_printf(&b, "%s|%s|%d|%s|%d|%d|%a|%d|%llu|%d|", hex, NM_VERSION, nm__engine_ctx(P->e),
                 nm__engine_gelu(P->e), P->o.noising, P->o.window, P->o.noise, P->n_seeds,
                 (unsigned long long)P->o.seed, P->pairs.tracing);
  for (int c = 0; c < P->n_comp; c++) nm__buf_printf(&b, "%s|", P->comp[c].name);
  for (size_t i = 0; i < P->pairs.n; i++) {
    const struct nm__pair *p = &P->pairs.v[i];
    nm__buf_printf(&b, "|%d|%d|%d|%d|%zu|%zu|", p->answer_id, p->wrong_id, p->first, p->end,
                   p->base.n, p->source.n);
    nm__buf_put(&b, p->base.ids, p->base.n * sizeof(int32_t));
    nm__buf_put(&b, p->source.ids, p->source.n * sizeof(int32_t));
  }
  if (!st && b.failed) st = nm__fail_memory(err, "a key", b.len);
  if (!st) nm__hash_hex(b.s, b.len, key);
  nm__buf_done(&b);
  return st;
}

void nm__patch_read_cell(struct nm__patching *P, const char *line, size_t n) {
  json_t *a = json_loadb(line, n, 0, NULL), *v = json_array_get(a, 5);
  json_int_t at[5];
  bool ok = json_array_size(a) == 6 && json_is_number(v);
  for (size_t i = 0; ok && i < 5; i++) {
    ok = json_is_integer(json_array_get(a, i));
    at[i] = json_integer_value(json_array_get(a, i));
  }
  ok = ok && at[0] >= 0 && (size_t)at[0] < P->pairs.n && at[1] >= 0 && at[1] < P->n_seeds &&
       at[2] >= 0 && at[2] < P->n_comp && at[3] >= 0 && at[3] < P->m->L && at[4] >= 0;
  if (ok) {
    int cols = nm__patch_cols(P, &P->pairs.v[at[0]], (int)at[2]);
    double *cell = nm__patch_cell(P, (size_t)at[0], (int)at[1], (int)at[2]);
    if (at[4] < cols) {
      double *to = &cell[(size_t)at[3] * (size_t)cols + (size_t)at[4]];
      P->n_done += isnan(*to);
      *to = json_number_value(v);
    }
  }
  json_decref(a);
}

static int load_cells(struct nm__patching *P, const char *path, const char *head, nm_err *err) {
  struct nm__map m;
  if (!nm__exists(path)) return nm__write_file(path, head, strlen(head), err);
  int st = nm__map_open(path, &m, err);
  if (st) return st;
  const char *s = (const char *)m.data, *end = s + m.size;
  size_t n = strlen(head);
  if (m.size < n || memcmp(s, head, n))
    st = nm__fail(err, NM_EUSAGE, "%s holds the cells of another run (model, prompts or options "
                  "differ): choose another --out", P->r->dir);
  for (s += n; !st && s < end;) {
    const char *nl = memchr(s, '\n', (size_t)(end - s));
    if (nl) nm__patch_read_cell(P, s, (size_t)(nl - s));
    s = nl ? nl + 1 : end;
  }
  nm__map_close(&m);
  return st;
}

/* ---- folder and record ------------------------------------------------------------------ */

static int open_folder(struct nm__patching *P, char **root, nm_err *err) {
  char name[80], utc[32], key[33], head[120];
  nm__utc(utc);
  for (char *c = utc; *c; c++)
    if (*c == ':') *c = '-';
  snprintf(name, sizeof name, "runs/patch-%s-%d", utc, (int)getpid());
  P->r->dir = nm__folder_name(P->o.out ? P->o.out : name);
  const char *dir = P->r->dir ? P->r->dir : name, *slash = strrchr(dir, '/');
  *root = !slash ? nm__strdup(".") : slash == dir ? nm__strdup("/")
                                                  : nm__strndup(dir, (size_t)(slash - dir));
  char *path = nm__path_join(dir, "cells.jsonl");
  int st = P->r->dir && *root && path ? nm__mkdirs(dir, err)
                                      : nm__fail_memory(err, "a folder name", 0);
  if (!st) st = key_of(P, key, err);
  if (!st) {
    snprintf(head, sizeof head, "{\"noema\":\"patch\",\"key\":\"%s\"}\n", key);
    st = load_cells(P, path, head, err);
  }
  if (!st && !(P->cells_file = fopen(path, "a")))
    st = nm__fail(err, NM_EFAIL, "%s: cannot be opened to be continued", path);
  if (!st) setvbuf(P->cells_file, NULL, _IOLBF, 1 << 12);      /* a crash loses one line at most */
  /* A line that was cut off must not swallow the next. */
  if (!st && P->n_done) fputc('\n', P->cells_file);
  free(path);
  return st;
}

/* What config.json says beside what every run's does. */
static json_t *settings(struct nm__patching *P) {
  char data[33] = "";
  json_t *o = nm__engine_record(P->e);
  if (P->o.data) nm__hash_file(P->o.data, data, NULL);
  json_object_set_new(o, "seed", json_integer((json_int_t)P->o.seed));
  json_object_set_new(o, "data", nm__json_text(P->o.data));
  json_object_set_new(o, "data_hash", json_string(data));
  return o;
}

static int summarise(struct nm__patching *P, nm_err *err) {
  struct nm__buf b;
  nm__buf_init(&b, 4096);
  nm__buf_printf(&b, "%zu pair%s", P->pairs.n - P->r->n_left_out,
                 P->pairs.n - P->r->n_left_out == 1 ? "" : "s");
  for (int c = 0; c < P->n_comp; c++) {
    const nm_patch_map *m = &P->r->map[c];
    if (m->top_col >= 0)
      nm__buf_printf(&b, "; %s: layer %d, %s %s, %.2f", m->component, m->top_layer,
                     m->heads ? "head" : "at", m->col[m->top_col], m->top.mean);
  }
  P->r->summary = b.failed ? NULL : nm__strdup(b.s);
  nm__buf_done(&b);
  return P->r->summary ? NM_OK : nm__fail_memory(err, "a summary", 0);
}

/* ---- maps ------------------------------------------------------------------------------- */

static const char *no_space(const char *s) { return s && *s == ' ' && s[1] ? s + 1 : s ? s : "?"; }

/* "ann", or "ann/bob" where the two prompts differ, or "ann.." where the pairs do. Of prompts that
 * differ in length the token of the base. */
static char *token_name(const struct nm__patching *P, int pos) {
  const struct nm__pair *p = &P->pairs.v[0];
  bool swap = P->o.noising || !p->same_length;
  nm_seq clean = swap ? p->base : p->source, corrupt = swap ? p->source : p->base;
  char *a = nm_token_text(P->m, clean.ids, (size_t)pos, true), *b = NULL, *out;
  struct nm__buf t;
  bool more = false;
  for (size_t i = 1; i < P->pairs.n; i++)
    more |= P->pairs.v[i].source.ids[pos] != p->source.ids[pos];
  if (p->same_length && clean.ids[pos] != corrupt.ids[pos])
    b = nm_token_text(P->m, corrupt.ids, (size_t)pos, true);
  nm__buf_init(&t, 4096);
  nm__buf_printf(&t, "%s%s%s%s", no_space(a), b ? "/" : "", b ? no_space(b) : "",
                 more ? ".." : "");
  out = t.failed ? NULL : nm__strdup(t.s);
  nm__buf_done(&t);
  nm_free(a);
  nm_free(b);
  return out;
}

static char *col_name(const struct nm__patching *P, const nm_patch_map *m, int c) {
  static const char *const role[] = {"before", "first changed", "changed", "last changed", "after",
                                     "last token"};
  char num[16];
  snprintf(num, sizeof num, "%d", c);
  if (m->heads) return nm__strdup(num);
  if (c == m->n_cols - 1) return nm__strdup("all");
  if (P->pairs.same_columns) return token_name(P, c);
  int r = 0;
  while (P->role_col[r] != c) r++;
  return nm__strdup(role[r]);
}

/* Roles that some position with a counterpart has, in order; then "all". */
static void number_roles(struct nm__patching *P) {
  bool there[NM__N_ROLES] = {false};
  for (size_t i = 0; i < P->pairs.n; i++)
    for (size_t k = 0; k < P->pairs.v[i].base.n; k++)
      if (P->pairs.v[i].from[k] >= 0) there[nm__pair_role(&P->pairs.v[i], (int)k)] = true;
  for (int r = 0; r < NM__N_ROLES; r++) P->role_col[r] = there[r] ? P->n_roles++ : -1;
}

static int make_maps(struct nm__patching *P, nm_err *err) {
  nm_patch_result *r = P->r;
  r->map = nm__alloc((size_t)P->n_comp, sizeof *r->map);
  if (!r->map) return nm__fail_memory(err, "the maps", 0);
  number_roles(P);
  for (int c = 0; c < P->n_comp; c++) {
    r->n_maps = c + 1;
    nm_patch_map *m = &r->map[c];
    *m = (nm_patch_map){.component = nm__strdup(P->comp[c].name), .n_layers = P->m->L,
                        .heads = P->comp[c].heads, .top_layer = -1, .top_col = -1};
    m->n_cols = m->heads ? P->m->H
                : P->pairs.same_columns ? (int)P->pairs.v[0].base.n + 1 : P->n_roles + 1;
    size_t n = (size_t)m->n_layers * (size_t)m->n_cols;
    m->col = nm__alloc((size_t)m->n_cols, sizeof *m->col);
    m->effect = nm__alloc(3 * n, sizeof *m->effect);
    if (!m->component || !m->col || !m->effect) return nm__fail_memory(err, "the maps", n * 24);
    m->lo = m->effect + n;
    m->hi = m->lo + n;
    for (int k = 0; k < m->n_cols; k++)
      if (!(m->col[k] = col_name(P, m, k))) return nm__fail_memory(err, "the maps", 0);
  }
  return NM_OK;
}

static int measure(struct nm__patching *P, nm_err *err) {
  nm_patch_result *r = P->r;
  size_t longest = 0, values = 0;
  nm_tap tap = {"logits", "last"};
  for (size_t i = 0; i < P->pairs.n; i++)
    if (P->pairs.v[i].base.n > longest) longest = P->pairs.v[i].base.n;
  for (int c = 0; c < P->n_comp; c++) values += (size_t)P->comp[c].width * (size_t)P->m->L;
  nm_request q = {.seqs = &P->pairs.v[0].base, .n_seqs = 1, .taps = &tap, .n_taps = 1};
  int st = nm_run_measure(P->e, &q, &r->need, err);
  if (!st) st = nm__base_measure(P->e, (int)longest, &r->need, err);
  r->need.activations += 2 * longest * values * sizeof(float);
  return st;
}

/* ---- the whole ---------------------------------------------------------------------------- */

static int run(struct nm__patching *P, nm_err *err) {
  int st = P->pairs.tracing ? nm__patch_sigma(P, err) : NM_OK;
  for (size_t i = 0; i < P->pairs.n && !st; i++) {
    st = nm__patch_pair(P, i, err);
    if (P->cells_file) fflush(P->cells_file);
  }
  if (!st) st = nm__patch_fit(P, err);
  for (size_t i = 0; i < P->pairs.n && !st; i++)
    if (!P->pairs.v[i].left_out) st = nm__patch_unrelated(P, i, err);
  if (st) return st;
  if (P->r->n_left_out == P->pairs.n) {
    P->r->verdict = NM_EUNSURE;
    return nm__fail(err, NM_EUNSURE, "the corruption does not move the answer in any pair (clean "
                    "%.4f, corrupt %.4f): there is nothing to restore", P->pairs.v[0].m_clean,
                    P->pairs.v[0].m_corrupt[0]);
  }
  nm__patch_controls(P);
  st = summarise(P, err);
  return st ? st : nm__patch_show(P, err);
}

static int recorded(struct nm__patching *P, nm_err *err) {
  struct nm__runs *runs = NULL;
  char *root = NULL;
  int64_t id = 0;
  double start = nm__now();
  int st = open_folder(P, &root, err);
  if (!st) st = nm__runs_open(root, &runs, err);
  if (!st) nm__runs_settings(runs, settings(P));
  if (!st)
    st = nm__runs_begin(runs, "patch", P->r->dir, P->m->path, P->o.command ? P->o.command : "", &id,
                        err);
  if (!st) {
    st = run(P, err);
    nm__runs_end(runs, id, !st ? "done" : st == NM_EINTR ? "interrupted" : "failed",
                 !st ? P->r->summary : err->text, nm__now() - start, NULL);
  }
  if (P->cells_file) fclose(P->cells_file);
  nm__runs_close(runs);
  free(root);
  return st;
}

int nm_patch(nm_model *m, nm_engine *e, const nm_patch_opts *o, nm_patch_result *out,
             nm_err *err) {
  nm_err own;
  struct nm__patching P = {.m = m, .e = e, .o = *o, .r = out};
  if (!err) err = &own;
  *out = (nm_patch_result){.exact_nothing = true, .exact_everything = true};
  int st = check_opts(&P, err);
  if (!st) st = open_comps(&P, err);
  if (!st) st = nm__pairs_load(m, &P.o, &P.pairs, err);
  P.n_seeds = P.pairs.tracing ? P.o.n_seeds : 1;
  if (!st) {
    out->n_pairs = P.pairs.n;
    out->n_seeds = P.n_seeds;
    count(&P);
    st = measure(&P, err);
  }
  if (!st && !o->dry_run) st = make_cells(&P, err);
  if (!st && !o->dry_run) st = make_maps(&P, err);
  if (!st && !o->dry_run) st = recorded(&P, err);
  size_t n = P.cell ? P.pairs.n * (size_t)P.n_seeds * (size_t)P.n_comp : 0;
  for (size_t i = 0; i < n; i++) free(P.cell[i]);
  free(P.cell);
  free(P.unrelated);
  for (int c = 0; c < P.n_comp; c++) {
    free(P.comp[c].name);
    free(P.comp[c].sel);
  }
  free(P.comp);
  nm__pairs_done(&P.pairs);
  if (st) nm_patch_result_free(out);
  return st;
}

void nm_patch_result_free(nm_patch_result *r) {
  for (int i = 0; r->map && i < r->n_maps; i++) {
    nm_patch_map *m = &r->map[i];
    for (int c = 0; m->col && c < m->n_cols; c++) free(m->col[c]);
    free(m->col);
    free(m->component);
    free(m->effect);
  }
  free(r->map);
  free(r->dir);
  free(r->summary);
  free(r->text);
  free(r->json);
  *r = (nm_patch_result){0};
}
