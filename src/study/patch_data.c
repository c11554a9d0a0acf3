/* patch_data.c - pairs of prompts: read, cut into tokens, aligned. */
#include <stdlib.h>
#include <string.h>
#include "file/table.h"
#include "study/patch.h"

static int32_t *ids_of(const nm_model *m, const char *text, size_t *n, nm_err *err) {
  int32_t *ids = NULL;
  *n = 0;
  return nm_tokenize(m, text, strlen(text), 0, &ids, n, err) ? NULL : ids;
}

/* The first token of an answer where it stands: behind the prompt, after a space. */
static int answer_token(const nm_model *m, const char *prompt, const char *answer, int32_t *out,
                        nm_err *err) {
  size_t n, k, i = 0, len = strlen(prompt);
  bool space = len && prompt[len - 1] != ' ' && *answer != ' ';
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 28);
  nm__buf_printf(&b, "%s%s%s", prompt, space ? " " : "", answer);
  int32_t *alone = b.failed ? NULL : ids_of(m, prompt, &n, err);
  int32_t *whole = alone ? ids_of(m, b.s, &k, err) : NULL;
  int st = b.failed ? nm__fail_memory(err, "a prompt", b.len) : whole ? NM_OK : err->status;
  nm__buf_done(&b);
  if (!st) {
    while (i < n && i < k && alone[i] == whole[i]) i++;
    if (i < k) *out = whole[i];
    else st = nm__fail(err, NM_EUSAGE, "the answer '%.60s' adds no token to the prompt", answer);
  }
  free(alone);
  free(whole);
  return st;
}

/* ---- alignment ----------------------------------------------------------------- */

static void list_tokens(const nm_model *m, nm_seq s, struct nm__buf *b) {
  for (size_t i = 0; i < s.n && b->len < 400; i++) {
    char *t = nm_token_text(m, s.ids, i, true);
    nm__buf_printf(b, "%s%s", i ? "|" : "", t ? t : "?");
    nm_free(t);
  }
}

static int not_aligned(const nm_model *m, const struct nm__pair *p, const char *why, nm_err *err) {
  struct nm__buf a, b;
  nm__buf_init(&a, 1 << 20);
  nm__buf_init(&b, 1 << 20);
  list_tokens(m, p->source, &a);
  list_tokens(m, p->base, &b);
  int st = nm__fail(err, NM_EUSAGE, "the two prompts cannot be aligned: %s; their tokens are "
                    "%.230s (%zu) and %.230s (%zu)", why, a.s ? a.s : "", p->source.n,
                    b.s ? b.s : "", p->base.n);
  nm__buf_done(&a);
  nm__buf_done(&b);
  return st;
}

/* Of equal length: position by position. Else what is the same in front and behind answers to each
 * other, and so do the last tokens of what differs and, if both have two, the first ones; the rest
 * of that has no counterpart. */
static int align(const nm_model *m, struct nm__pair *p, nm_err *err) {
  size_t n = p->base.n, k = p->source.n, least = n < k ? n : k, a = 0, z = 0;
  const int32_t *x = p->base.ids, *y = p->source.ids;
  while (a < least && x[a] == y[a]) a++;
  while (z < least - a && x[n - 1 - z] == y[k - 1 - z]) z++;
  p->same_length = n == k;
  p->first = (int)a;
  p->end = (int)(n - z);
  if (p->same_length && a == n) return not_aligned(m, p, "they are the same", err);
  if (!p->same_length && !z) return not_aligned(m, p, "they differ in length and at the end", err);
  if (!p->same_length && (a == least - z))
    return not_aligned(m, p, "one has tokens to which nothing in the other answers", err);
  p->from = nm__alloc(n, sizeof *p->from);
  if (!p->from) return nm__fail_memory(err, "an alignment", n * sizeof *p->from);
  for (size_t i = 0; i < n; i++) {
    if (p->same_length || i < a) p->from[i] = (int)i;
    else p->from[i] = i + z + 1 >= n ? (int)(i + k - n) : -1;
  }
  if (!p->same_length && n - z - a > 1 && k - z - a > 1) p->from[a] = (int)a;
  return NM_OK;
}

/* The tokens that hold the subject, by its first occurrence. */
static int find_subject(const nm_model *m, struct nm__pair *p, nm_err *err) {
  struct nm__at at;
  struct nm__buf b;
  int *pos = NULL, n = 0;
  nm__buf_init(&b, 1 << 16);
  nm__buf_printf(&b, "span:%s", p->subject);
  int st = nm__at_parse(b.s, &at, err);
  if (!st) st = nm__at_resolve(&at, m, &p->base, &pos, &n, err);
  if (!st && !n) st = nm__fail(err, NM_EUSAGE, "the subject '%.60s' has no token", p->subject);
  if (!st) {
    p->first = pos[0];
    p->end = pos[n - 1] + 1;
    p->from = nm__alloc(p->base.n, sizeof *p->from);
    for (size_t i = 0; p->from && i < p->base.n; i++) p->from[i] = (int)i;
    if (!p->from) st = nm__fail_memory(err, "an alignment", 0);
    p->same_length = true;
  }
  nm__at_done(&at);
  nm__buf_done(&b);
  free(pos);
  return st;
}

enum nm__role nm__pair_role(const struct nm__pair *p, int pos) {
  if (pos == (int)p->base.n - 1) return NM__END;
  if (pos < p->first) return NM__BEFORE;
  if (pos >= p->end) return NM__AFTER;
  return pos == p->end - 1 ? NM__LAST : pos == p->first ? NM__FIRST : NM__MIDDLE;
}

/* ---- one pair --------------------------------------------------------------------- */

static int prepare(const nm_model *m, const nm_patch_opts *o, struct nm__pair *p, nm_err *err) {
  const char *base = p->subject || o->noising ? p->clean : p->corrupt;
  const char *source = p->subject || !o->noising ? p->clean : p->corrupt;
  p->base.ids = ids_of(m, base, &p->base.n, err);
  p->source.ids = p->base.ids ? ids_of(m, source, &p->source.n, err) : NULL;
  if (!p->source.ids) return err->status;
  p->wrong_id = -1;
  int st = p->subject ? find_subject(m, p, err) : align(m, p, err);
  if (!st) st = answer_token(m, p->clean, p->answer, &p->answer_id, err);
  if (!st && p->wrong) st = answer_token(m, p->clean, p->wrong, &p->wrong_id, err);
  if (!st && p->wrong_id == p->answer_id)
    st = nm__fail(err, NM_EUSAGE, "the answers '%.60s' and '%.60s' begin with the same token",
                  p->answer, p->wrong);
  return st;
}

static char *copy(const char *s) { return s && *s ? nm__strdup(s) : NULL; }

static struct nm__pair *new_pair(struct nm__pairs *l) {
  struct nm__pair *v = nm__realloc(l->v, l->n + 1, sizeof *v);
  if (!v) return NULL;
  l->v = v;
  v[l->n] = (struct nm__pair){0};
  return &v[l->n++];
}

static const char *cell_of(const struct nm__table *t, size_t row, const char *name) {
  int c = nm__table_col(t, name);
  return c < 0 ? NULL : t->cells[row * t->n_cols + (size_t)c];
}

static int read_rows(const nm_patch_opts *o, const struct nm__table *t, struct nm__pairs *l,
                     nm_err *err) {
  size_t n = o->max_pairs && o->max_pairs < t->n_rows ? o->max_pairs : t->n_rows;
  for (size_t i = 0; i < n; i++) {
    struct nm__pair *p = new_pair(l);
    if (!p) return nm__fail_memory(err, "the pairs", 0);
    p->clean = copy(cell_of(t, i, "clean"));
    p->corrupt = copy(cell_of(t, i, "corrupt"));
    p->subject = copy(cell_of(t, i, "subject"));
    p->answer = copy(cell_of(t, i, "answer"));
    p->wrong = copy(cell_of(t, i, "wrong"));
    if (!p->clean || !p->answer || !p->corrupt == !p->subject)
      return nm__fail(err, NM_EFORMAT, "%s: row %zu must hold \"clean\", \"answer\" and either "
                      "\"corrupt\" or \"subject\"", o->data, i + 1);
    if (!p->subject != !l->v[0].subject)
      return nm__fail(err, NM_EFORMAT, "%s: row %zu: all rows must have \"corrupt\" or all "
                      "\"subject\"", o->data, i + 1);
  }
  return n ? NM_OK : nm__fail(err, NM_EFORMAT, "%s: holds no pair", o->data);
}

static int read_all(const nm_patch_opts *o, struct nm__pairs *l, nm_err *err) {
  if (o->data) {
    struct nm__table t;
    int st = nm__table_read(o->data, &t, err);
    if (st) return st;
    st = read_rows(o, &t, l, err);
    nm__table_done(&t);
    return st;
  }
  struct nm__pair *p = new_pair(l);
  if (!p) return nm__fail_memory(err, "the pairs", 0);
  p->clean = copy(o->clean);
  p->corrupt = copy(o->corrupt);
  p->subject = copy(o->subject);
  p->answer = copy(o->answer);
  p->wrong = copy(o->wrong);
  if (!p->clean || !p->answer || !p->corrupt == !p->subject)
    return nm__fail(err, NM_EUSAGE, "a clean prompt, its answer and either a corrupt prompt or a "
                    "subject are needed");
  return NM_OK;
}

int nm__pairs_load(const nm_model *m, const nm_patch_opts *o, struct nm__pairs *l, nm_err *err) {
  *l = (struct nm__pairs){0};
  int st = read_all(o, l, err);
  l->tracing = !st && l->v[0].subject;
  if (!st && l->tracing && o->noising)
    st = nm__fail(err, NM_EUSAGE, "noising goes with a corrupt prompt: noise on a subject is "
                  "always the base, and clean activations are put back");
  l->same_columns = true;
  for (size_t i = 0; i < l->n && !st; i++) {
    st = prepare(m, o, &l->v[i], err);
    if (st && l->n > 1) nm__fail_at(err, st, "%s: row %zu", o->data, i + 1);
    l->same_columns &= !i || (l->v[i].base.n == l->v[0].base.n && l->v[i].first == l->v[0].first &&
                              l->v[i].end == l->v[0].end && l->v[i].same_length &&
                              l->v[0].same_length);
  }
  return st;
}

void nm__pairs_done(struct nm__pairs *l) {
  for (size_t i = 0; i < l->n; i++) {
    struct nm__pair *p = &l->v[i];
    free((void *)(uintptr_t)p->base.ids);
    free((void *)(uintptr_t)p->source.ids);
    free(p->from);
    free(p->m_corrupt);
    free(p->clean);
    free(p->corrupt);
    free(p->answer);
    free(p->wrong);
    free(p->subject);
  }
  free(l->v);
  *l = (struct nm__pairs){0};
}
