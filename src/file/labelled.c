/* labelled.c - from a table of named cells to texts with a label (0, 1, ...) and a group.
 *
 * The steps, each with its own sentence when it fails:
 *   1. find the columns of the texts and of the labels, by name, else by content;
 *   2. see which values the labels take and map them to 0, 1, ...;
 *   3. gather the rows, leaving out "Neither" where the others are true and false;
 *   4. put rows that are twins of each other into one group: a probe trained on "Lodz is
 *      in Poland" and tested on "Lodz is in Cuba" would be asked what it was told;
 *   5. keep the first rows where only some are wanted. */
#include "file/table.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { VALUES_MAX = NM__LABELS_MAX, NONE = -1, SEVERAL = 255 };

/* What one call works on. Rows of `out` are rows of the table less those left out;
 * `row[i]` tells which. */
struct work {
  const char *name;
  const struct nm__table *t;
  const struct nm__labelled_opts *o;
  struct nm__labelled *out;
  nm_err *err;
  int text_col, label_col, group_col;
  size_t *row;
  int max_labels;
  size_t n_left_out;
  const char *left_out;            /* the label of the rows left out */
  bool arbitrary;                  /* the labels are no pair with a known order */
};

static const char *cell(const struct work *w, size_t row, int col) {
  return w->t->cells[row * w->t->n_cols + (size_t)col];
}

static int bad_row(const struct work *w, size_t row, const char *what) {
  size_t line = w->t->line[row];
  return nm__fail(w->err, NM_EFORMAT, "%s: %s %zu: %s", w->name, line ? "line" : "row",
                  line ? line : row + 1, what);
}

static struct nm__buf *put_shown(struct nm__buf *b, const char *s, size_t n) {
  char shown[48];
  nm__buf_printf(b, "'%s'", nm__printable(shown, sizeof shown, s, n));
  return b;
}

/* Cells without the space around them: labels are often padded. */
static const char *trim(const char *s, size_t *n) {
  while (*s && isspace((unsigned char)*s)) s++;
  *n = strlen(s);
  while (*n && isspace((unsigned char)s[*n - 1])) --*n;
  return s;
}

/* ---- 1. columns ------------------------------------------------------ */

static int no_column(const struct work *w, const char *what, const char *name) {
  struct nm__buf b;
  nm__buf_init(&b, 4096);
  for (size_t i = 0; i < w->t->n_cols; i++) {
    if (i) nm__buf_puts(&b, ", ");
    put_shown(&b, w->t->cols[i], strlen(w->t->cols[i]));
  }
  nm__fail(w->err, NM_EFORMAT, "%s: %s%s%s%s; the columns are %s", w->name, what, name ? " '" : "",
           name ? name : "", name ? "'" : "", b.s ? b.s : "none");
  nm__buf_done(&b);
  return NM_EFORMAT;
}

static int col_of_any(const struct nm__table *t, const char *const *names) {
  for (; *names; names++)
    for (size_t i = 0; i < t->n_cols; i++)
      if (strcasecmp(t->cols[i], *names) == 0) return (int)i;
  return NONE;
}

/* Texts are longer than anything else in a row. */
static int longest_col(const struct work *w, int but) {
  int best = NONE;
  size_t most = 0;
  for (int c = 0; c < (int)w->t->n_cols; c++) {
    size_t sum = 0;
    for (size_t i = 0; i < w->t->n_rows; i++) {
      const char *s = cell(w, i, c);
      sum += s ? strlen(s) : 0;
    }
    if (c != but && sum > most) most = sum, best = c;
  }
  return best;
}

struct value { const char *s; size_t n, count; };
struct values { struct value v[VALUES_MAX]; size_t n; bool more; };

static bool same_value(const struct value *v, const char *s, size_t n) {
  return v->n == n && strncasecmp(v->s, s, n) == 0;
}

/* The distinct values of a column, in order of appearance, upper and lower case being one;
 * missing ones left out. */
static void collect_values(const struct work *w, int col, struct values *out) {
  *out = (struct values){0};
  for (size_t i = 0; i < w->t->n_rows; i++) {
    size_t n, k = 0;
    const char *s = cell(w, i, col);
    if (!s || !*(s = trim(s, &n))) continue;
    while (k < out->n && !same_value(&out->v[k], s, n)) k++;
    if (k == VALUES_MAX) out->more = true;
    else if (k == out->n) out->v[out->n++] = (struct value){s, n, 1};
    else out->v[k].count++;
  }
}

static int two_valued_col(const struct work *w, int but, int *found) {
  *found = NONE;
  for (int c = 0; c < (int)w->t->n_cols; c++) {
    struct values v;
    if (c == but) continue;
    collect_values(w, c, &v);
    if (v.n != 2) continue;
    if (*found != NONE)
      return no_column(w, "several columns have exactly two values, say which holds the labels",
                       NULL);
    *found = c;
  }
  return NM_OK;
}

static int named_col(const struct work *w, const char *name, const char *what, int *out) {
  *out = nm__table_col(w->t, name);
  if (*out != NONE) return NM_OK;
  char sentence[64];
  snprintf(sentence, sizeof sentence, "there is no column for the %s named", what);
  return no_column(w, sentence, name);
}

static const char *const text_names[] = {"statement", "text", "sentence", "input", "examples",
                                         "question", "prompt", "content", NULL};

int nm__table_text_col(const char *name, const struct nm__table *t, const char *col, int *out,
                       nm_err *err) {
  struct work w = {.name = name, .t = t, .err = err};
  if (col) return named_col(&w, col, "texts", out);
  *out = col_of_any(t, text_names);
  if (*out == NONE) *out = longest_col(&w, NONE);
  return *out == NONE ? no_column(&w, "no column holds texts", NULL) : NM_OK;
}

static int find_columns(struct work *w) {
  static const char *const labels[] = {"label", "labels", "answer", "target", "class", "y",
                                       "sentiment", NULL};
  const struct nm__labelled_opts *o = w->o;
  int st = NM_OK;
  w->text_col = col_of_any(w->t, text_names);
  w->label_col = col_of_any(w->t, labels);
  w->group_col = NONE;
  if (o->text_col) st = named_col(w, o->text_col, "texts", &w->text_col);
  if (!st && o->label_col) st = named_col(w, o->label_col, "labels", &w->label_col);
  if (!st && o->group_col) st = named_col(w, o->group_col, "groups", &w->group_col);
  if (!st && w->text_col == NONE) w->text_col = longest_col(w, w->label_col);
  if (!st && w->text_col == NONE) return no_column(w, "no column holds texts", NULL);
  if (!st && w->label_col == NONE) st = two_valued_col(w, w->text_col, &w->label_col);
  if (!st && w->label_col == NONE)
    return no_column(w, "no column holds the labels: none has a usual name or just two values",
                     NULL);
  if (!st && w->label_col == w->text_col)
    return no_column(w, "texts and labels cannot both stand in column", w->t->cols[w->text_col]);
  return st;
}

/* ---- 2. labels ------------------------------------------------------- */

static bool is_value(const struct value *v, const char *word) {
  return same_value(v, word, strlen(word));
}

/* Whether the two values are a pair that has an order by itself; they are put into it. */
static bool order_known(struct value *a, struct value *b) {
  static const char *const pairs[][2] = {
    {"0", "1"}, {"false", "true"}, {"no", "yes"}, {"negative", "positive"}, {"neg", "pos"},
    {"-1", "1"}, {"0.0", "1.0"}, {"-1.0", "1.0"}, {"f", "t"}, {"n", "y"},
  };
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    if (is_value(a, pairs[i][0]) && is_value(b, pairs[i][1])) return true;
    if (!is_value(b, pairs[i][0]) || !is_value(a, pairs[i][1])) continue;
    struct value t = *a;
    *a = *b;
    *b = t;
    return true;
  }
  return false;
}

static int by_value(const void *a, const void *b) {
  const struct value *x = a, *y = b;
  int order = memcmp(x->s, y->s, x->n < y->n ? x->n : y->n);
  return order ? order : (x->n > y->n) - (x->n < y->n);
}

static int wrong_values(const struct work *w, const struct values *v) {
  struct nm__buf b;
  nm__buf_init(&b, 2048);
  for (size_t i = 0; i < v->n && i < 8; i++) {
    if (i) nm__buf_puts(&b, ", ");
    nm__buf_printf(put_shown(&b, v->v[i].s, v->v[i].n), " (%zu)", v->v[i].count);
  }
  char col[64];
  const char *label = w->t->cols[w->label_col];
  char many[24] = "two";
  if (w->max_labels > 2) snprintf(many, sizeof many, "2 to %d", w->max_labels);
  nm__fail(w->err, NM_EFORMAT, "%s: the labels in column '%s' must take %s values, found %s%s",
           w->name, nm__printable(col, sizeof col, label, strlen(label)), many, b.s ? b.s : "none",
           v->more || v->n > 8 ? " and more" : "");
  nm__buf_done(&b);
  return NM_EFORMAT;
}

/* Moves "Neither" behind the other two, if these are true and false. */
static bool has_neither(struct values *v) {
  if (v->n != 3) return false;
  for (size_t i = 0; i < 3; i++) {
    if (!is_value(&v->v[i], "neither")) continue;
    struct value t = v->v[i];
    v->v[i] = v->v[2];
    v->v[2] = t;
  }
  struct value a = v->v[0], b = v->v[1];
  return is_value(&v->v[2], "neither") && order_known(&a, &b)
         && (is_value(&a, "false") || is_value(&a, "0"));
}

/* Leaves the values of label 0, 1, ... in v->v. */
static int map_labels(struct work *w, struct values *v) {
  collect_values(w, w->label_col, v);
  if (has_neither(v)) {
    w->left_out = v->v[2].s;
    w->n_left_out = v->v[2].count;
    v->n = 2;
  }
  if (v->n < 2 || v->n > (size_t)w->max_labels || v->more) return wrong_values(w, v);
  w->arbitrary = v->n > 2 || !order_known(&v->v[0], &v->v[1]);
  if (w->arbitrary) qsort(v->v, v->n, sizeof *v->v, by_value);
  w->out->n_labels = (int)v->n;
  for (size_t i = 0; i < v->n; i++)
    if (!(w->out->label_name[i] = nm__strndup(v->v[i].s, v->v[i].n)))
      return nm__fail_memory(w->err, "a label's name", v->v[i].n);
  return NM_OK;
}

/* ---- 3. rows --------------------------------------------------------- */

static int take_row(struct work *w, size_t row, const struct values *v) {
  struct nm__labelled *out = w->out;
  size_t n;
  const char *label = cell(w, row, w->label_col), *text = cell(w, row, w->text_col);
  if (label) label = trim(label, &n);
  if (!label || !*label) return bad_row(w, row, "the label is missing");
  size_t k = 0;
  while (k < v->n && !same_value(&v->v[k], label, n)) k++;
  if (k == v->n) return NM_OK;
  if (!text || !*trim(text, &n)) return bad_row(w, row, "the text is empty");
  if (!(out->text[out->n] = nm__strdup(text)))
    return nm__fail_memory(w->err, "a text", strlen(text));
  out->label[out->n] = (uint8_t)k;
  w->row[out->n++] = row;
  return NM_OK;
}

static int take_rows(struct work *w, const struct values *v) {
  size_t n = w->t->n_rows;
  struct nm__labelled *out = w->out;
  out->text = nm__alloc(n, sizeof *out->text);
  out->label = nm__alloc(n, sizeof *out->label);
  out->group = nm__alloc(n, sizeof *out->group);
  w->row = nm__alloc(n, sizeof *w->row);
  if (!out->text || !out->label || !out->group || !w->row || n >= UINT32_MAX)
    return nm__fail_memory(w->err, "the texts", n * sizeof *out->text);
  int st = NM_OK;
  for (size_t i = 0; !st && i < n; i++) st = take_row(w, i, v);
  return st;
}

/* ---- 4. groups ------------------------------------------------------- */

/* Gives each row the number of the first row with an equal string; a row without one gets
 * its own. `col` NONE: the texts. */
static int first_alike(const struct work *w, int col, uint32_t *first) {
  size_t n = w->out->n, n_slots = 16;
  while (n_slots < 2 * n) n_slots *= 2;
  uint32_t *slots = nm__alloc(n_slots, sizeof *slots);
  if (!slots) return nm__fail_memory(w->err, "the groups", n_slots * sizeof *slots);
  for (size_t i = 0; i < n; i++) {
    const char *s = col == NONE ? w->out->text[i] : cell(w, w->row[i], col);
    first[i] = (uint32_t)i;
    if (!s || !*s) continue;
    size_t k = nm__hash(s, strlen(s), 0) & (n_slots - 1);
    for (; slots[k]; k = (k + 1) & (n_slots - 1)) {
      size_t j = slots[k] - 1;
      const char *other = col == NONE ? w->out->text[j] : cell(w, w->row[j], col);
      if (strcmp(other, s) == 0) break;
    }
    if (slots[k]) first[i] = slots[k] - 1;
    else slots[k] = (uint32_t)i + 1;
  }
  free(slots);
  return NM_OK;
}

/* A column that says it is one may hold groups of any size. */
static bool called_group(const char *name) {
  static const char *const names[] = {"group", "set", "pair", "twin", "cluster"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcasecmp(name, names[i])) return true;
  return false;
}

/* How many groups hold several labels, or 0 when these are not twins: at least 60 % of the
 * groups must hold several, and groups must be small and many. Without the latter a column
 * like "split" or "agreement", of a few values that all occur with all labels, would tie
 * half the file together. `seen` is scratch for n bytes. */
static size_t count_twins(const struct work *w, int col, const uint32_t *first, uint8_t *seen) {
  size_t n = w->out->n, n_groups = 0, n_both = 0;
  memset(seen, 0, n);
  for (size_t i = 0; i < n; i++) { /* the label and one; SEVERAL when there is another */
    uint8_t *s = &seen[first[i]], mine = (uint8_t)(w->out->label[i] + 1);
    *s = !*s || *s == mine ? mine : SEVERAL;
  }
  for (size_t i = 0; i < n; i++) {
    n_groups += seen[i] != 0;
    n_both += seen[i] == SEVERAL;
  }
  bool small = n_groups * 4 >= n && n_groups * n_groups >= n;
  if (called_group(w->t->cols[col])) small = n_groups > 1;
  return small && n_both * 10 >= n_groups * 6 ? n_both : 0;
}

static int find_twins(struct work *w, uint32_t *first) {
  uint8_t *seen = nm__alloc(w->out->n, 1);
  if (!seen) return nm__fail_memory(w->err, "the groups", w->out->n);
  size_t best = 0;
  int st = NM_OK;
  for (int c = 0; !st && c < (int)w->t->n_cols; c++) {
    if (c == w->text_col || c == w->label_col) continue;
    st = first_alike(w, c, first);
    size_t n_both = st ? 0 : count_twins(w, c, first, seen);
    if (n_both > best) best = n_both, w->group_col = c;
  }
  free(seen);
  return st;
}

static uint32_t root(uint32_t *parent, uint32_t i) {
  while (parent[i] != i) i = parent[i] = parent[parent[i]];
  return i;
}

/* Whether anything was joined that was apart. The earlier row becomes the root. */
static bool join(uint32_t *parent, const uint32_t *first, size_t n) {
  bool any = false;
  for (size_t i = 0; i < n; i++) {
    any |= first[i] != i;
    uint32_t a = root(parent, first[i]), b = root(parent, (uint32_t)i);
    if (a < b) parent[b] = a;
    else parent[a] = b;
  }
  return any;
}

/* Numbers the groups 0, 1, ... by their first rows. `parent` is used up. */
static void number_groups(struct nm__labelled *out, uint32_t *parent) {
  for (size_t i = 0; i < out->n; i++) parent[i] = root(parent, (uint32_t)i);
  out->n_groups = 0;
  for (size_t i = 0; i < out->n; i++)
    out->group[i] = parent[i] == i ? (uint32_t)out->n_groups++ : out->group[parent[i]];
}

static int make_groups(struct work *w) {
  size_t n = w->out->n;
  uint32_t *parent = nm__alloc(n, sizeof *parent), *first = nm__alloc(n, sizeof *first);
  int st = parent && first ? NM_OK : nm__fail_memory(w->err, "the groups", n * sizeof *first);
  for (size_t i = 0; !st && i < n; i++) parent[i] = (uint32_t)i;
  if (!st && w->group_col == NONE) st = find_twins(w, first);
  if (!st && w->group_col != NONE) {
    st = first_alike(w, w->group_col, first);
    if (!st) join(parent, first, n);
    w->out->grouped = true;
  }
  if (!st) st = first_alike(w, NONE, first);
  if (!st) w->out->grouped |= join(parent, first, n);
  if (!st) number_groups(w->out, parent);
  free(parent);
  free(first);
  return st;
}

/* ---- 5. the first rows ----------------------------------------------- */

/* Takes the group of the next row of `label` that is not decided on yet, if it fits;
 * false when there is no such row. Groups: 0 undecided, 1 taken, 2 too large. */
static bool take_next(struct work *w, const size_t *size, uint8_t *state, size_t *cursor,
                      int label, size_t *room) {
  const struct nm__labelled *out = w->out;
  for (; *cursor < out->n; ++*cursor) {
    uint32_t g = out->group[*cursor];
    if (out->label[*cursor] != label || state[g]) continue;
    state[g] = size[g] <= *room ? 1 : 2;
    if (state[g] == 2) continue;
    *room -= size[g];
    return true;
  }
  return false;
}

static void keep_taken(struct nm__labelled *out, const uint8_t *state, uint32_t *number) {
  size_t n = 0;
  uint32_t n_groups = 0;
  for (size_t i = 0; i < out->n; i++) {
    uint32_t g = out->group[i];
    if (state[g] != 1) {
      free(out->text[i]);
      continue;
    }
    if (!number[g]) number[g] = ++n_groups;
    out->text[n] = out->text[i];
    out->label[n] = out->label[i];
    out->group[n++] = number[g] - 1;
  }
  out->n = n;
  out->n_groups = n_groups;
}

static int keep_first(struct work *w) {
  struct nm__labelled *out = w->out;
  if (w->o->max_rows == 0 || out->n <= w->o->max_rows) return NM_OK;
  size_t *size = nm__alloc(out->n_groups, sizeof *size), room = w->o->max_rows;
  uint8_t *state = nm__alloc(out->n_groups, 1);
  uint32_t *number = nm__alloc(out->n_groups, sizeof *number);
  int st = size && state && number ? NM_OK : nm__fail_memory(w->err, "the groups", out->n_groups);
  if (!st) {
    for (size_t i = 0; i < out->n; i++) size[out->group[i]]++;
    size_t cursor[NM__LABELS_MAX] = {0};
    int idle = 0;                  /* turns in a row that found nothing */
    for (int turn = out->label[0]; room && idle < out->n_labels; turn = (turn + 1) % out->n_labels)
      idle = take_next(w, size, state, &cursor[turn], turn, &room) ? 0 : idle + 1;
    keep_taken(out, state, number);
  }
  free(size);
  free(state);
  free(number);
  return st;
}

/* ---- the whole ------------------------------------------------------- */

static int check_classes(const struct work *w) {
  size_t count[NM__LABELS_MAX] = {0};
  for (size_t i = 0; i < w->out->n; i++) count[w->out->label[i]]++;
  if (!w->out->n)
    return nm__fail(w->err, NM_EFORMAT, "%s: no whole group fits into the number of rows asked for",
                    w->name);
  for (int k = w->out->n_labels - 1; k >= 0; k--)
    if (!count[k])
      return nm__fail(w->err, NM_EFORMAT, "%s: of the %zu rows kept %zu have label %d, %s labels "
                      "are needed", w->name, w->out->n, w->out->n_labels > 2 ? 0 : count[1],
                      w->out->n_labels > 2 ? k : 1, w->out->n_labels > 2 ? "all" : "both");
  return NM_OK;
}

static void put_col(struct nm__buf *b, const struct work *w, int col) {
  put_shown(b, w->t->cols[col], strlen(w->t->cols[col]));
}

static int tell_how(struct work *w) {
  const struct nm__labelled *out = w->out;
  struct nm__buf b;
  nm__buf_init(&b, 4096);
  nm__buf_printf(&b, "%s: texts from column ", nm__table_form_name(w->t->form));
  put_col(&b, w, w->text_col);
  nm__buf_puts(&b, ", labels from column ");
  put_col(&b, w, w->label_col);
  nm__buf_puts(&b, " (");
  for (int k = 0; k < out->n_labels; k++) {
    if (k) nm__buf_puts(&b, ", ");
    put_shown(&b, out->label_name[k], strlen(out->label_name[k]));
    nm__buf_printf(&b, " is %d", k);
  }
  nm__buf_puts(&b, !w->arbitrary ? ")" : out->n_labels > 2 ? ", in sorted order)"
                                       : ", in sorted order as neither is known)");
  if (w->left_out) {
    nm__buf_printf(&b, ", %zu rows labelled ", w->n_left_out);
    size_t n;
    const char *s = trim(w->left_out, &n);
    nm__buf_puts(put_shown(&b, s, n), " left out");
  }
  if (w->group_col != NONE) {
    nm__buf_puts(&b, ", grouped by column ");
    put_col(&b, w, w->group_col);
  } else {
    nm__buf_puts(&b, out->grouped ? ", equal texts grouped" : ", no twins found");
  }
  nm__buf_printf(&b, ": %zu rows in %zu groups", out->n, out->n_groups);
  if (b.failed) return nm__buf_done(&b), nm__fail_memory(w->err, "a sentence", 4096);
  w->out->how = b.s;
  return NM_OK;
}

int nm__labelled_from(const char *name, const struct nm__table *t,
                      const struct nm__labelled_opts *o, struct nm__labelled *out, nm_err *err) {
  static const struct nm__labelled_opts none;
  struct work w = {.name = name, .t = t, .o = o ? o : &none, .out = out, .err = err};
  w.max_labels = w.o->max_labels ? w.o->max_labels : 2;
  struct values v;
  *out = (struct nm__labelled){0};
  if (t->n_rows == 0) return nm__fail(err, NM_EFORMAT, "%s: holds no rows", name);
  int st = find_columns(&w);
  if (!st) st = map_labels(&w, &v);
  if (!st) st = take_rows(&w, &v);
  if (!st) st = make_groups(&w);
  if (!st) st = keep_first(&w);
  if (!st) st = check_classes(&w);
  if (!st) st = tell_how(&w);
  free(w.row);
  if (st) nm__labelled_done(out);
  return st;
}

void nm__labelled_done(struct nm__labelled *l) {
  for (size_t i = 0; i < l->n; i++) free(l->text[i]);
  free(l->text);
  free(l->label);
  free(l->group);
  free(l->how);
  for (int k = 0; k < NM__LABELS_MAX; k++) free(l->label_name[k]);
  *l = (struct nm__labelled){0};
}
