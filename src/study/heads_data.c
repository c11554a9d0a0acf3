/* heads_data.c - needles in haystacks: contexts of every length and depth, prompts, the tokens of
 * the needle in them; and prompts out of a file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file/table.h"
#include "study/heads.h"

static const char published[] =
    "{context}\nBased on the content of the book, Question: {question}\nAnswer:";

/* ---- where the needle lies --------------------------------------------------------- */

bool nm__find_span(const int32_t *ids, size_t n, const int32_t *want, size_t k, int *from,
                   double *best) {
  size_t distinct = 0;
  for (size_t i = 0; i < k; i++) {
    size_t j = 0;
    while (j < i && want[j] != want[i]) j++;
    distinct += j == i;
  }
  *best = 0;
  for (size_t at = 0; k && at + k <= n; at++) {
    size_t shared = 0;
    for (size_t i = 0; i < k; i++) {
      size_t j = 0, x = 0;
      while (j < i && want[j] != want[i]) j++;
      if (j < i) continue;                       /* a token counts once */
      while (x < k && ids[at + x] != want[i]) x++;
      shared += x < k;
    }
    double share = (double)shared / (double)distinct;
    if (share > *best) *best = share;
    if (share > 0.9) return *from = (int)at, true;
  }
  return false;
}

/* Tokens of the answer as it stands in a text: behind a space, or as tokenizers that put a space in
 * front of each text have it. Of two ways that are both found the shorter one. */
static int locate(const nm_model *m, struct nm__trial *t, nm_err *err) {
  double best = 0;
  for (int space = 0; space < 2; space++) {
    struct nm__buf b;
    int32_t *want = NULL;
    size_t k = 0;
    double share = 0;
    int from = 0;
    nm__buf_init(&b, (size_t)1 << 24);
    nm__buf_printf(&b, "%s%s", space ? " " : "", t->answer);
    int st = b.failed ? nm__fail_memory(err, "an answer", b.len)
                      : nm_tokenize(m, b.s, b.len, NM_NO_BOS, &want, &k, err);
    bool found = !st && nm__find_span(t->ids, t->n, want, k, &from, &share);
    if (found && (!t->to || (int)k < t->to - t->from)) t->from = from, t->to = from + (int)k;
    if (share > best) best = share;
    nm_free(want);
    nm__buf_done(&b);
    if (st) return st;
  }
  if (t->to) return NM_OK;
  return nm__fail(err, NM_EUSAGE, "the needle '%.60s' is not among the %zu tokens of its prompt: "
                  "at best %.0f %% of its tokens stand together, more than 90 %% must", t->answer,
                  t->n, 100 * best);
}

/* ---- files ------------------------------------------------------------------------- */

static struct nm__trial *new_trial(struct nm__trials *l) {
  struct nm__trial *v = nm__realloc(l->v, l->n + 1, sizeof *v);
  if (!v) return NULL;
  l->v = v;
  v[l->n] = (struct nm__trial){0};
  return &v[l->n++];
}

void nm__trials_done(struct nm__trials *t) {
  for (size_t i = 0; i < t->n; i++) {
    nm_free(t->v[i].ids);
    nm_free(t->v[i].want);
    free(t->v[i].answer);
  }
  free(t->v);
  *t = (struct nm__trials){0};
}

static const char *cell_of(const struct nm__table *t, size_t row, const char *name) {
  int c = nm__table_col(t, name);
  const char *s = c < 0 ? NULL : t->cells[row * t->n_cols + (size_t)c];
  return s && *s ? s : NULL;
}

static size_t rows_of(const struct nm__table *t, const nm_heads_opts *o) {
  return o->max_rows && o->max_rows < t->n_rows ? o->max_rows : t->n_rows;
}

static int too_long(const nm_heads_opts *o, const struct nm__trial *t, int n_ctx, nm_err *err) {
  (void)o;
  if (t->n && (long long)t->n + 1 <= n_ctx) return NM_OK;
  return nm__fail(err, NM_EUSAGE, "a prompt has %zu tokens, more than the context of %d the model "
                  "was made for: shorter --lengths", t->n, n_ctx);
}

static int add_row(const nm_model *m, const nm_heads_opts *o, const char *text, const char *answer,
                   bool fact, struct nm__trials *l, nm_err *err) {
  struct nm__trial *t = new_trial(l);
  size_t k = 0;
  if (!t || !(t->answer = nm__strdup(answer))) return nm__fail_memory(err, "the prompts", 0);
  int st = nm_tokenize(m, text, strlen(text), 0, &t->ids, &t->n, err);
  if (!st) st = too_long(o, t, m->n_ctx, err);
  if (!st && !fact) return locate(m, t, err);
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 24);
  nm__buf_printf(&b, " %s", answer);
  if (!st) st = nm_tokenize(m, b.s ? b.s : "", b.len, NM_NO_BOS, &t->want, &k, err);
  t->n_want = (int)k;
  nm__buf_done(&b);
  return st;
}

static int read_rows(const nm_model *m, const nm_heads_opts *o, const char *path, bool fact,
                     struct nm__trials *l, nm_err *err) {
  struct nm__table t;
  int st = nm__table_read(path, &t, err);
  if (st) return st;
  for (size_t i = 0; i < rows_of(&t, o) && !st; i++) {
    const char *text = cell_of(&t, i, "text"), *answer = cell_of(&t, i, "answer");
    st = text && answer ? add_row(m, o, text, answer, fact, l, err)
                        : nm__fail(err, NM_EFORMAT, "expected \"text\" and \"answer\"");
    if (st) nm__fail_at(err, st, "%s: row %zu", path, i + 1);
  }
  nm__table_done(&t);
  return st;
}

/* ---- haystacks --------------------------------------------------------------------- */

struct hay { int32_t *ids; size_t n; const nm_model *m; };

/* Does a token end a sentence? */
static bool period(const struct hay *h, size_t i) {
  char *s = nm_token_text(h->m, h->ids, i, false);
  size_t n = s ? strlen(s) : 0;
  bool yes = n && s[n - 1] == '.';
  nm_free(s);
  return yes;
}

/* Text of so many tokens of hay with the needle at a depth, moved back behind the last period. */
static int context(const struct hay *h, const char *needle, size_t keep, int depth,
                   struct nm__buf *b, nm_err *err) {
  size_t at = depth >= 100 ? keep : keep * (size_t)depth / 100, n;
  if (depth < 100)
    while (at && !period(h, at - 1)) at--;
  char *s = NULL;
  int st = nm_detokenize(h->m, h->ids, at, &s, &n, err);
  if (!st) nm__buf_printf(b, "%s%s%s", s, at && n && s[n - 1] != ' ' ? " " : "", needle);
  nm_free(s);
  if (st || at == keep) return st;
  st = nm_detokenize(h->m, h->ids + at, keep - at, &s, &n, err);
  if (!st) nm__buf_printf(b, "%s%s", *s == ' ' ? "" : " ", s);
  if (!st) nm_free(s);
  return st;
}

/* The prompt with its two places filled. */
static int fill(const char *form, const char *context, const char *question, struct nm__buf *b,
                nm_err *err) {
  for (const char *s = form; *s;) {
    if (!strncmp(s, "{context}", 9)) nm__buf_puts(b, context), s += 9;
    else if (!strncmp(s, "{question}", 10)) nm__buf_puts(b, question), s += 10;
    else nm__buf_putc(b, *s++);
  }
  return b->failed ? nm__fail_memory(err, "a prompt", b->len) : NM_OK;
}

struct row { const char *needle, *question, *answer; };

static int one_prompt(const struct hay *h, const nm_heads_opts *o, const struct row *q, int length,
                      int depth, struct nm__trials *l, nm_err *err) {
  struct nm__buf text, prompt;
  int32_t *ids = NULL;
  size_t k = 0, room = length >= 1000 ? 200 : (size_t)length / 5, n_before = l->n;
  int st = nm_tokenize(h->m, q->needle, strlen(q->needle), NM_NO_BOS, &ids, &k, err);
  nm_free(ids);
  if (st) return st;
  if (k + room > (size_t)length)
    return nm__fail(err, NM_EUSAGE, "the needle '%.60s' has %zu tokens, too many for a context of "
                    "%d of which %zu are the question's", q->needle, k, length, room);
  size_t keep = (size_t)length - room - k;
  if (keep > h->n)
    return nm__fail(err, NM_EUSAGE, "%s: has %zu tokens, a context of %d takes %zu", o->haystack,
                    h->n, length, keep);
  nm__buf_init(&text, (size_t)1 << 30);
  nm__buf_init(&prompt, (size_t)1 << 30);
  st = context(h, q->needle, keep, depth, &text, err);
  if (!st)
    st = fill(o->prompt ? o->prompt : published, text.s ? text.s : "", q->question, &prompt, err);
  if (!st) st = add_row(h->m, o, prompt.s, q->answer, false, l, err);
  if (l->n > n_before) l->v[l->n - 1].length = length, l->v[l->n - 1].depth = depth;
  nm__buf_done(&text);
  nm__buf_done(&prompt);
  return st;
}

/* From a to b in n steps, ends included. */
static int step_of(int a, int b, int n, int i) {
  return n < 2 ? a : a + (int)((long long)(b - a) * i / (n - 1));
}

static int grid(const struct hay *h, const nm_heads_opts *o, const struct row *q,
                struct nm__trials *l, nm_err *err) {
  int from = o->n_lengths ? o->len_from : 1000, to = o->n_lengths ? o->len_to : 8000,
      n = o->n_lengths ? o->n_lengths : 8, depths = o->n_depths ? o->n_depths : 10, st = NM_OK;
  for (int i = 0; i < n && !st; i++)
    for (int d = 0; d < depths && !st; d++)
      st = one_prompt(h, o, q, step_of(from, to, n, i), step_of(0, 100, depths, d), l, err);
  return st;
}

static int read_needles(const nm_model *m, const nm_heads_opts *o, struct nm__trials *l,
                        nm_err *err) {
  struct nm__map map;
  struct nm__table t;
  struct hay h = {.m = m};
  int st = nm__map_open(o->haystack, &map, err);
  if (st) return st;
  st = nm_tokenize(m, (const char *)map.data, map.size, NM_NO_BOS, &h.ids, &h.n, err);
  nm__map_close(&map);
  if (!st && (st = nm__table_read(o->needles, &t, err))) nm_free(h.ids);
  if (st) return st;
  for (size_t i = 0; i < rows_of(&t, o) && !st; i++) {
    struct row q = {cell_of(&t, i, "needle"), cell_of(&t, i, "question"), cell_of(&t, i, "answer")};
    if (!q.answer) q.answer = cell_of(&t, i, "real_needle");
    if (!q.question) q.question = "";
    st = q.needle && q.answer ? grid(&h, o, &q, l, err)
                              : nm__fail(err, NM_EFORMAT, "expected \"needle\", \"question\" and "
                                         "\"answer\" (or \"real_needle\")");
    if (st) nm__fail_at(err, st, "%s: row %zu", o->needles, i + 1);
  }
  nm__table_done(&t);
  nm_free(h.ids);
  return st;
}

int nm__trials_load(const nm_model *m, const nm_heads_opts *o, struct nm__trials *trials,
                    struct nm__trials *facts, nm_err *err) {
  *trials = *facts = (struct nm__trials){0};
  if (!o->data == !o->needles || !o->needles != !o->haystack)
    return nm__fail(err, NM_EUSAGE, "heads need either needles with a haystack, or rows of data");
  int st = o->data ? read_rows(m, o, o->data, false, trials, err)
                   : read_needles(m, o, trials, err);
  if (!st && o->facts) st = read_rows(m, o, o->facts, true, facts, err);
  if (!st && !trials->n)
    st = nm__fail(err, NM_EFORMAT, "%s: holds no row", o->data ? o->data : o->needles);
  return st;
}
