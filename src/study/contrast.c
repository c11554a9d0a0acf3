/* contrast.c - texts of two classes for a steering vector: pairs in one file, two files of lines,
 * or labelled rows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "file/table.h"
#include "study/vector.h"

struct loader { const nm_model *m; nm_contrast *c; int flags; size_t cap; nm_err *err; };

static int add(struct loader *l, const char *text, size_t n, uint8_t label, uint32_t group) {
  nm_contrast *c = l->c;
  int32_t *ids;
  size_t n_ids;
  if (c->n == l->cap) {
    size_t cap = l->cap ? 2 * l->cap : 64;
    nm_seq *s = nm__realloc(c->seq, cap, sizeof *s);
    if (s) c->seq = s;
    uint8_t *y = s ? nm__realloc(c->label, cap, sizeof *y) : NULL;
    if (y) c->label = y;
    uint32_t *g = y ? nm__realloc(c->group, cap, sizeof *g) : NULL;
    if (!g) return nm__fail_memory(l->err, "the texts", cap);
    c->group = g;
    l->cap = cap;
  }
  int st = nm_tokenize(l->m, text, n, l->flags, &ids, &n_ids, l->err);
  if (st) return st;
  if (!n_ids)
    return nm_free(ids), nm__fail(l->err, NM_EFORMAT, "a text of class %d has no tokens", label);
  c->seq[c->n] = (nm_seq){ids, n_ids};
  c->label[c->n] = label;
  c->group[c->n++] = group;
  if (group >= c->n_groups) c->n_groups = group + 1;
  return NM_OK;
}

/* ---- pairs -------------------------------------------------------------------- */

static int column(const struct nm__table *t, const char *const *names) {
  for (; *names; names++)
    if (nm__table_col(t, *names) >= 0) return nm__table_col(t, *names);
  return -1;
}

static int load_pairs(struct loader *l, const char *path) {
  static const char *const names[2][4] = {{"neg", "negative", "neg_text", NULL},
                                          {"pos", "positive", "pos_text", NULL}};
  struct nm__table t;
  int col[2], st = nm__table_read(path, &t, l->err);
  if (st) return st;
  for (int k = 0; k < 2; k++) col[k] = column(&t, names[k]);
  if (col[0] < 0 || col[1] < 0)
    st = nm__fail(l->err, NM_EFORMAT, "%s: pairs need the columns pos and neg", path);
  for (size_t r = 0; r < t.n_rows && !st; r++)
    for (int k = 1; k >= 0 && !st; k--) {
      const char *s = t.cells[r * t.n_cols + (size_t)col[k]];
      if (!s)
        st = nm__fail(l->err, NM_EFORMAT, "%s: row %zu has no '%s'", path, r + 1, names[k][0]);
      else st = add(l, s, strlen(s), (uint8_t)k, (uint32_t)r);
      if (st) nm__fail_at(l->err, st, "%s: row %zu", path, r + 1);
    }
  nm__table_done(&t);
  l->c->paired = true;
  return st;
}

/* ---- two files ------------------------------------------------------------------ */

static int load_lines(struct loader *l, const struct nm__map *m, uint8_t label) {
  const char *s = (const char *)m->data, *end = s + m->size;
  int st = NM_OK;
  while (s < end && !st) {
    const char *nl = memchr(s, '\n', (size_t)(end - s));
    size_t n = (size_t)((nl ? nl : end) - s), k = n;
    while (k && (s[k - 1] == '\r' || s[k - 1] == ' ' || s[k - 1] == '\t')) k--;
    if (k) st = add(l, s, k, label, (uint32_t)l->c->n);
    s += n + 1;
  }
  return st;
}

/* A text a line, or rows of JSON. */
static int load_class(struct loader *l, const char *path, uint8_t label) {
  struct nm__map m;
  nm_texts t = {0};
  size_t before = l->c->n, i = 0;
  int st = nm__map_open(path, &m, l->err);
  if (st) return st;
  while (i < m.size && strchr(" \t\r\n", m.data[i]) && m.data[i]) i++;
  if (i == m.size || (m.data[i] != '{' && m.data[i] != '[')) st = load_lines(l, &m, label);
  else {
    st = nm_texts_load(path, NULL, &t, l->err);
    if (!st && !t.text)
      st = nm__fail(l->err, NM_EFORMAT, "%s: holds token ids, texts are needed", path);
    for (size_t k = 0; t.text && k < t.n && !st; k++)
      st = add(l, t.text[k], strlen(t.text[k]), label, (uint32_t)l->c->n);
    nm_texts_free(&t);
  }
  nm__map_close(&m);
  if (!st && l->c->n == before) st = nm__fail(l->err, NM_EFORMAT, "%s: holds no text", path);
  return st;
}

/* ---- labelled rows ---------------------------------------------------------------- */

static int load_labelled(struct loader *l, const char *path) {
  struct nm__table t;
  struct nm__labelled lab;
  int st = nm__table_read(path, &t, l->err);
  if (st) return st;
  st = nm__labelled_from(path, &t, &(struct nm__labelled_opts){0}, &lab, l->err);
  nm__table_done(&t);
  if (st) return st;
  for (size_t i = 0; i < lab.n && !st; i++)
    st = add(l, lab.text[i], strlen(lab.text[i]), lab.label[i],
             lab.grouped ? lab.group[i] : (uint32_t)i);
  nm__labelled_done(&lab);
  return st;
}

static int describe(struct loader *l, const nm_contrast_files *f) {
  size_t k[2] = {0, 0};
  char text[700];
  for (size_t i = 0; i < l->c->n; i++) k[l->c->label[i]]++;
  if (!k[0] || !k[1]) return nm__fail(l->err, NM_EFORMAT, "texts of both classes are needed");
  if (f->pairs) snprintf(text, sizeof text, "%zu pairs of %.300s", k[1], f->pairs);
  else if (f->data) snprintf(text, sizeof text, "%zu and %zu texts of %.300s", k[1], k[0], f->data);
  else
    snprintf(text, sizeof text, "%zu texts of %.300s, %zu of %.300s", k[1], f->pos, k[0], f->neg);
  l->c->how = nm__strdup(text);
  return l->c->how ? NM_OK : nm__fail_memory(l->err, "a sentence", 0);
}

int nm_contrast_load(const nm_model *m, const nm_contrast_files *f, nm_contrast *out, nm_err *err) {
  struct loader l = {m, out, f->flags, 0, err};
  int st;
  *out = (nm_contrast){0};
  if (!!f->pairs + !!f->data + (f->pos || f->neg) != 1 || !f->pos != !f->neg)
    return nm__fail(err, NM_EUSAGE,
                    "give pairs, labelled data, or a file of texts for and one against");
  if (f->pairs) st = load_pairs(&l, f->pairs);
  else if (f->data) st = load_labelled(&l, f->data);
  else if (!(st = load_class(&l, f->pos, 1))) st = load_class(&l, f->neg, 0);
  if (!st) st = describe(&l, f);
  if (st) nm_contrast_free(out);
  return st;
}

void nm_contrast_free(nm_contrast *c) {
  for (size_t i = 0; i < c->n; i++) free((void *)(uintptr_t)c->seq[i].ids);
  free(c->seq);
  free(c->label);
  free(c->group);
  free(c->how);
  *c = (nm_contrast){0};
}
