/* lens.c - the logit lens: rows of the stream from every layer, through the model's own end.
 *
 *   run with taps ── rows [layers + 1][columns][D] ── per column: end of the model (unembed.c) ─┬─
 * cells permuted rows of the same column ────────┘
 *
 * The model's own answer is the lens of the last block. The control is the same row with its D
 * values permuted by one seeded permutation: as long, as large, but no direction of the model. */
#include "look/lens.h"

#include <stdlib.h>
#include <string.h>
#include "look/probe.h"
#include "tensor/math.h"

struct lens {
  nm_engine *e;
  const nm_model *m;
  const nm_lens_opts *o;
  nm_lens_result *r;
  const nm_seq *seqs;
  size_t *first;                   /* [n_seqs + 1]: first column of each sequence */
  float *x;                        /* [n_cols][n_rows + 1][D]; the last row is the model's end */
  uint32_t *perm;                  /* [D] */
  size_t col;                      /* the column being read */
  const float *own;                /* its own logits [V], while it is read */
  float *own_copy;
  double own_sum;
  int site_of[2];
};

/* ---- tokens and ranks ---------------------------------------------------------- */

double nm__log_sum_exp(const float *logits, int V) {
  double top = (double)logits[0], sum = 0;
  for (int v = 1; v < V; v++) top = (double)logits[v] > top ? (double)logits[v] : top;
  for (int v = 0; v < V; v++) sum += nm__exp((double)logits[v] - top);
  return top + nm__log(sum);
}

void nm__top_tokens(const float *logits, int V, int n, bool largest, double log_sum,
                    nm_lens_token *out) {
  int have = 0;
  float sign = largest ? 1.0f : -1.0f;
  for (int v = 0; v < V; v++) {
    float z = sign * logits[v];
    if (have == n && z <= sign * logits[out[n - 1].id]) continue;
    int i = have < n ? have++ : n - 1;
    for (; i && z > sign * logits[out[i - 1].id]; i--) out[i] = out[i - 1];
    out[i].id = v;
  }
  for (int i = 0; i < have; i++) out[i].lp = (double)logits[out[i].id] - log_sum;
}

int nm__rank_of(const float *logits, int V, int32_t id) {
  int rank = 1;
  for (int v = 0; v < V; v++)
    rank += logits[v] > logits[id] || (v < id && logits[v] == logits[id]);
  return rank;
}

/* Decoders drop a space at the beginning of a text, so the bytes are what a second one adds. */
char *nm__token_bytes(const nm_model *m, int32_t id, size_t *n) {
  const int32_t twice[2] = {id, id};
  char *one = NULL, *two = NULL;
  size_t n_one = 0, n_two = 0;
  *n = 0;
  bool ok = !nm_detokenize(m, twice, 1, &one, &n_one, NULL) &&
            !nm_detokenize(m, twice, 2, &two, &n_two, NULL);
  if (ok && n_two >= n_one && (!n_one || !memcmp(one, two, n_one))) {
    *n = n_two - n_one;
    memmove(two, two + n_one, *n);
    two[*n] = 0;
  } else {
    free(two);
    two = NULL;
  }
  free(one);
  return two;
}

char *nm__token_text(const nm_model *m, int32_t id) {
  size_t n;
  char *s = nm__token_bytes(m, id, &n);
  struct nm__buf b;
  nm__buf_init(&b, 1 << 16);
  if (!n) nm__buf_printf(&b, "<%d>", id);
  for (size_t i = 0; i < n && b.len < 60; i++) {
    unsigned char c = (unsigned char)s[i];
    if (c == ' ') nm__buf_puts(&b, i || n == 1 ? "\xe2\x90\xa3" : " ");     /* an open box */
    else if (c == '\n') nm__buf_puts(&b, "\\n");
    else if (c < 0x20 || c == 0x7f) nm__buf_printf(&b, "\\x%02x", c);
    else nm__buf_putc(&b, c);
  }
  free(s);
  if (!b.failed) return b.s ? b.s : nm__strdup("");
  nm__buf_done(&b);
  return NULL;
}

/* ---- one column ------------------------------------------------------------------ */

static nm_lens_cell *cell_of(const struct lens *l, int64_t row) {
  return &l->r->cell[(size_t)row * l->r->n_cols + l->col];
}

/* A row of logits becomes a cell; rows n_rows.. are those of the control. */
static void read_row(struct lens *l, int64_t row, const float *z) {
  nm_lens_result *r = l->r;
  int32_t answer = r->col[l->col].answer;
  if (row >= r->n_rows) {
    cell_of(l, row - r->n_rows)->control = nm__rank_of(z, r->V, answer);
    return;
  }
  nm_lens_cell *c = cell_of(l, row);
  double sum = nm__log_sum_exp(z, r->V);
  nm__top_tokens(z, r->V, r->top, true, sum, c->top);
  for (int v = 0; v < r->V; v++) {
    double lp = (double)z[v] - sum, own = (double)l->own[v] - l->own_sum;
    c->entropy -= nm__exp(lp) * lp;
    c->kl += nm__exp(own) * (own - lp);
  }
  c->rank = nm__rank_of(z, r->V, answer);
  c->lp = (double)z[answer] - sum;
  if (r->target < 0) return;
  c->target_rank = nm__rank_of(z, r->V, r->target);
  c->target_lp = (double)z[r->target] - sum;
}

struct batch { struct lens *l; int64_t first; const float *z; };

static void read_tile(void *arg, int tile, int thread) {
  const struct batch *b = arg;
  (void)thread;
  read_row(b->l, b->first + tile, b->z + (int64_t)tile * b->l->r->V);
}

static int read_rows(void *arg, int64_t first, int64_t n, const float *z, nm_err *err) {
  struct batch b = {arg, first, z};
  (void)err;
  nm__pool_run(nm__engine_pool(b.l->e), (int)n, read_tile, &b);
  return NM_OK;
}

static int read_own(void *arg, int64_t first, int64_t n, const float *z, nm_err *err) {
  struct lens *l = arg;
  nm_lens_token top;
  (void)first, (void)n, (void)err;
  memcpy(l->own_copy, z, sizeof *z * (size_t)l->r->V);
  l->own = l->own_copy;
  l->own_sum = nm__log_sum_exp(z, l->r->V);
  nm__top_tokens(z, l->r->V, 1, true, l->own_sum, &top);
  l->r->col[l->col].answer = top.id;
  l->r->col[l->col].answer_lp = top.lp;
  return NM_OK;
}

static int read_column(struct lens *l, float *rows, nm_err *err) {
  int n = l->r->n_rows, D = l->m->D;
  const float *x = l->x + l->col * (size_t)(n + 1) * (size_t)D;
  int st = nm__unembed(l->e, x + (size_t)n * (size_t)D, 1, read_own, l, err);
  memcpy(rows, x, sizeof *x * (size_t)n * (size_t)D);
  for (int i = 0; i < n; i++)
    for (int d = 0; d < D; d++) rows[(n + i) * D + d] = x[i * D + (int)l->perm[d]];
  if (!st) st = nm__unembed(l->e, rows, 2 * n, read_rows, l, err);
  int decided = n;
  while (decided > 0 && cell_of(l, decided - 1)->rank == 1) decided--;
  l->r->col[l->col].decided = decided < n ? decided : -1;
  return st;
}

/* ---- the rows ---------------------------------------------------------------------- */

/* Rows come in order of position within a site and a sequence. */
static int keep_row(void *arg, const nm_row *row, nm_err *err) {
  struct lens *l = arg;
  int n = l->r->n_rows, D = l->m->D, site = row->site;
  (void)err;
  for (size_t c = l->first[row->seq]; c < l->first[row->seq + 1]; c++)
    if (l->r->col[c].pos == row->pos)
      memcpy(l->x + (c * (size_t)(n + 1) + (size_t)site) * (size_t)D, row->data,
             sizeof(float) * (size_t)D);
  return NM_OK;
}

/* Sites as wide as the stream, before the final norm. */
static int check_sites(const nm_model *m, const char *glob, nm_err *err) {
  struct nm__sels s;
  int st = nm__sites_select(m, glob, &s, err);
  if (st) return st;
  for (int i = 0; i < s.n && !st; i++) {
    static const int fit[] = {NM__S_EMBED, NM__S_RESID_PRE, NM__S_RESID_MID, NM__S_RESID_POST,
                              NM__S_ATTN_OUT, NM__S_MLP_OUT};
    bool ok = false;
    for (size_t k = 0; k < sizeof fit / sizeof *fit; k++) ok |= s.v[i].site == fit[k];
    if (ok && !s.v[i].index_n) continue;
    char name[64];
    nm__sel_name(m, s.v[i], name);
    st = nm__fail(err, NM_EUSAGE,
                  "--site %s: a lens reads the residual stream and what is added to "
                  "it: embed, resid_pre, resid_mid, resid_post, attn_out, mlp_out, whole",
                  name);
  }
  free(s.v);
  return st;
}

static int glob_of(const struct lens *l, char *out, size_t n, nm_err *err) {
  const char *s = l->o->site ? l->o->site : "resid_post";
  bool inside = !strpbrk(s, "*?|") && strncmp(s, "blk", 3) && strncmp(s, "enc.", 4) &&
                strcmp(s, "embed");
  if (strlen(s) > 200) return nm__fail(err, NM_EUSAGE, "--site is too long");
  struct nm__buf b;
  nm__buf_init(&b, n - 1);
  nm__buf_printf(&b, inside ? "embed|blk.*.%s" : "%s", s);
  memcpy(out, b.s, b.len + 1);
  nm__buf_done(&b);
  return check_sites(l->m, out, err);
}

/* A column for every position asked for. */
static int make_columns(struct lens *l, size_t n_seqs, nm_err *err) {
  struct nm__at at;
  size_t n = 0;
  int st = nm__at_parse(l->o->at ? l->o->at : "all", &at, err);
  if (st) return st;
  l->first = nm__alloc(n_seqs + 1, sizeof *l->first);
  if (!l->first) st = nm__fail_memory(err, "the columns", 0);
  for (size_t s = 0; s < n_seqs && !st; s++) {
    int *pos, k;
    if ((st = nm__at_resolve(&at, l->m, &l->seqs[s], &pos, &k, err))) break;
    nm_lens_column *v = nm__realloc(l->r->col, n + (size_t)k + 1, sizeof *v);
    if (v) l->r->col = v;
    else st = nm__fail_memory(err, "the columns", 0);
    for (int i = 0; i < k && !st; i++)
      v[n++] = (nm_lens_column){.seq = s, .pos = pos[i], .id = l->seqs[s].ids[pos[i]]};
    l->first[s + 1] = n;
    free(pos);
  }
  nm__at_done(&at);
  l->r->n_cols = n;
  if (!st && !n) st = nm__fail(err, NM_EUSAGE, "--at selects no position");
  return st;
}

static int make_room(struct lens *l, nm_err *err) {
  nm_lens_result *r = l->r;
  size_t n = (size_t)r->n_rows * r->n_cols, D = (size_t)l->m->D;
  size_t floats = r->n_cols * (size_t)(r->n_rows + 1) * D;
  l->x = nm__alloc(floats, sizeof *l->x);
  l->perm = nm__alloc(D, sizeof *l->perm);
  l->own_copy = nm__alloc((size_t)r->V, sizeof *l->own_copy);
  r->cell = nm__alloc(n, sizeof *r->cell);
  r->tokens = nm__alloc(n * (size_t)r->top, sizeof *r->tokens);
  r->layer = nm__alloc((size_t)r->n_rows, sizeof *r->layer);
  if (!l->x || !l->perm || !l->own_copy || !r->cell || !r->tokens || !r->layer)
    return nm__fail_memory(err, "the rows of the lens", floats * sizeof *l->x);
  for (size_t i = 0; i < n; i++) r->cell[i].top = r->tokens + i * (size_t)r->top;
  for (size_t d = 0; d < D; d++) l->perm[d] = (uint32_t)d;
  struct nm__rng rng = {l->o->seed, 0x1e45, 0};
  nm__rng_shuffle(&rng, l->perm, D);
  return NM_OK;
}

static int capture(struct lens *l, const nm_seq *seqs, size_t n_seqs, nm_err *err) {
  char glob[256], last[64];
  int st = glob_of(l, glob, sizeof glob, err), n = 0;
  if (st) return st;
  nm__sel_name(l->m, (struct nm__sel){NM__S_RESID_POST, l->m->L - 1, 0, 0}, last);
  const char *at = l->o->at ? l->o->at : "all";
  nm_tap taps[2] = {{glob, at}, {last, at}};
  nm_site *all;
  if ((st = nm_run_sites(l->m, taps, 1, &l->r->row, &l->r->n_rows, err)) ||
      (st = nm_run_sites(l->m, taps, 2, &all, &n, err)))
    return st;
  nm_free(all);
  if ((st = make_columns(l, n_seqs, err)) || (st = make_room(l, err))) return st;
  nm_request q = {.seqs = seqs, .n_seqs = n_seqs, .taps = taps, .n_taps = 2, .edits = l->o->edits,
                  .share_prefix = true, .row = keep_row, .arg = l, .progress = l->o->progress};
  return nm_run(l->e, &q, err);
}

/* ---- over all columns ---------------------------------------------------------------- */

static void layer_of(const nm_lens_result *r, int row, double *v, nm_lens_layer *out) {
  const nm_lens_cell *c = &r->cell[(size_t)row * r->n_cols];
  double n = (double)r->n_cols;
  for (size_t i = 0; i < r->n_cols; i++) {
    out->agree += (c[i].rank == 1) / n;
    out->control_agree += (c[i].control == 1) / n;
    out->entropy += c[i].entropy / n;
    out->kl += c[i].kl / n;
    out->target_lp += c[i].target_lp / n;
  }
  for (size_t i = 0; i < r->n_cols; i++) v[i] = c[i].rank;
  out->rank = nm__quantile(v, r->n_cols, 0.5);
  for (size_t i = 0; i < r->n_cols; i++) v[i] = c[i].control;
  out->control_rank = nm__quantile(v, r->n_cols, 0.5);
  for (size_t i = 0; i < r->n_cols; i++) v[i] = c[i].target_rank;
  out->target_rank = nm__quantile(v, r->n_cols, 0.5);
}

static int summarise(struct lens *l, nm_err *err) {
  nm_lens_result *r = l->r;
  double *v = nm__alloc(r->n_cols, sizeof *v);
  if (!v) return nm__fail_memory(err, "the summary", 0);
  int half = -1;
  for (int i = 0; i < r->n_rows; i++) layer_of(r, i, v, &r->layer[i]);
  for (int i = r->n_rows - 1; i >= 0 && r->layer[i].agree >= 0.5; i--) half = i;
  free(v);
  struct nm__buf b;
  nm__buf_init(&b, 1000);
  nm__buf_printf(&b, "%zu position%s: ", r->n_cols, r->n_cols == 1 ? "" : "s");
  if (half < 0) nm__buf_puts(&b, "no layer leads with the model's own answer in half of them");
  else
    nm__buf_printf(&b, "from %s on half of them or more already lead with the model's own answer "
                   "(permuted rows: %.0f %%)", r->row[half].name,
                   100 * r->layer[half].control_agree);
  r->summary = b.s;
  return b.s ? NM_OK : nm__fail_memory(err, "the summary", 0);
}

static int run_lens(struct lens *l, size_t n_seqs, nm_err *err) {
  nm_lens_result *r = l->r;
  if (!l->m->output.data) return nm__unembed(l->e, NULL, 0, read_own, l, err);
  if (l->o->target >= r->V)
    return nm__fail(err, NM_EUSAGE, "the target's id %d is outside the vocabulary of %d",
                    l->o->target, r->V);
  if (l->o->top < 0 || l->o->top > 1000 || l->o->top > r->V)
    return nm__fail(err, NM_EUSAGE, "--top must lie between 1 and %d", r->V < 1000 ? r->V : 1000);
  int st = capture(l, l->seqs, n_seqs, err);
  if (st) return st;
  float *rows = nm__alloc(2 * (size_t)r->n_rows * (size_t)l->m->D, sizeof *rows);
  if (!rows) return nm__fail_memory(err, "the rows of a column", 0);
  for (l->col = 0; l->col < r->n_cols && !st; l->col++) {
    st = read_column(l, rows, err);
    if (!st)
      st = nm__progress(l->o->progress, "reading through the lens", (double)l->col + 1,
                        (double)r->n_cols, err);
  }
  free(rows);
  return st ? st : summarise(l, err);
}

static int write_folder(const struct lens *l, nm_err *err) {
  struct nm__record rec;
  int st = nm__record_begin(&rec, "lens", l->o->out, "lens.json", l->m->path, l->o->command,
                           nm__engine_record(l->e), err);
  if (!st) {
    l->r->dir = nm__strdup(rec.dir);
    st = nm__lens_write(l->r, l->m, l->o, &rec, err);
  }
  nm__record_end(&rec, st, l->r->summary, err);
  return st;
}

int nm_lens(nm_engine *e, const nm_seq *seqs, size_t n, const nm_lens_opts *o, nm_lens_result *out,
            nm_err *err) {
  const nm_model *m = nm__engine_model(e);
  struct lens l = {.e = e, .m = m, .o = o, .r = out, .seqs = seqs};
  *out = (nm_lens_result){.top = o->top ? o->top : 5, .V = m->V,
                          .target = o->target < 0 ? -1 : o->target};
  if (out->top > m->V) out->top = m->V;
  int st = run_lens(&l, n, err);
  if (!st && o->out) st = write_folder(&l, err);
  free(l.x);
  free(l.perm);
  free(l.own_copy);
  free(l.first);
  if (st) nm_lens_result_free(out);
  return st;
}

void nm_lens_result_free(nm_lens_result *r) {
  nm_free(r->row);
  free(r->col);
  free(r->cell);
  free(r->layer);
  free(r->tokens);
  free(r->dir);
  free(r->summary);
  *r = (nm_lens_result){0};
}
