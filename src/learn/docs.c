/* docs.c - rows of JSONL and items of worlds as documents. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "learn/data.h"
#include "text/learn_tok.h"

enum { VALUES_MAX = 1 << 22 };     /* of one row */

/* What a row becomes; kept from row to row. */
struct rows {
  const char *file;
  struct nm__part *part;
  int32_t *ids;
  float *weight;
  size_t cap;
  char where[300];
  const struct nm__chat_how *how;
  struct nm__doc also;             /* group and target of the row */
  float *target;
  nm__doc_take *take;
  void *arg;
  nm_err *err;
};

static int bad(struct rows *r, const char *what) {
  return nm__fail(r->err, NM_EFORMAT, "%s: %s", r->where, what);
}

static int room(struct rows *r, size_t n) {
  if (n <= r->cap) return NM_OK;
  struct nm__part *part = nm__realloc(r->part, n, sizeof *part);
  if (part) r->part = part;
  int32_t *ids = nm__realloc(r->ids, n, sizeof *ids);
  if (ids) r->ids = ids;
  float *weight = nm__realloc(r->weight, n, sizeof *weight);
  if (weight) r->weight = weight;
  if (!part || !ids || !weight) return nm__fail_memory(r->err, "a row of data", n * 32);
  r->cap = n;
  return NM_OK;
}

static struct nm__part part_of(const json_t *text, double weight) {
  return (struct nm__part){json_string_value(text), json_string_length(text), (float)weight};
}

static int take(struct rows *r, int n_parts, int n_ids) {
  struct nm__doc d = r->also;
  d.part = n_parts ? r->part : NULL;
  d.n_parts = n_parts;
  d.ids = r->ids;
  d.weight = r->weight;
  d.n_ids = n_ids;
  d.where = r->where;
  return r->take(r->arg, &d, r->err);
}

/* [["text", weight], ...], joined by single spaces. */
static int take_parts(struct rows *r, const json_t *parts) {
  size_t n = json_array_size(parts);
  if (!n || n > 1 << 20) return bad(r, "\"parts\" must be a list of [text, weight]");
  int st = room(r, 2 * n), to = 0;
  for (size_t i = 0; i < n && !st; i++) {
    const json_t *p = json_array_get(parts, i), *w = json_array_get(p, 1);
    if (json_array_size(p) != 2 || !json_is_string(json_array_get(p, 0)) || !json_is_number(w) ||
        !(json_number_value(w) >= 0 && json_number_value(w) < 1e6))
      return bad(r, "\"parts\" must be a list of [text, weight]");
    if (i) r->part[to++] = (struct nm__part){" ", 1, (float)json_number_value(w)};
    r->part[to++] = part_of(json_array_get(p, 0), json_number_value(w));
  }
  return st ? st : take(r, to, 0);
}

static int take_ids(struct rows *r, const json_t *ids, const json_t *weights) {
  size_t n = json_array_size(ids);
  if (!n || n > 1 << 26 || (weights && json_array_size(weights) != n))
    return bad(r, "\"ids\" must be a list of tokens, \"weights\" as long");
  int st = room(r, n);
  for (size_t i = 0; i < n && !st; i++) {
    const json_t *id = json_array_get(ids, i), *w = weights ? json_array_get(weights, i) : NULL;
    double x = w ? json_number_value(w) : 1;
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
      return bad(r, "an id is no token");
    if ((w && !json_is_number(w)) || !(x >= 0 && x < 1e6))
      return bad(r, "a weight must be a number from 0 to a million");
    r->ids[i] = (int32_t)json_integer_value(id);
    r->weight[i] = (float)x;
  }
  return st ? st : take(r, 0, (int)n);
}

/* Two documents that share the prompt. */
static int take_pair(struct rows *r, const json_t *row) {
  const json_t *prompt = json_object_get(row, "prompt");
  const json_t *answer[] = {json_object_get(row, "chosen"), json_object_get(row, "rejected")};
  if (!json_is_string(prompt) || !json_string_length(answer[0]) || !json_string_length(answer[1]))
    return bad(r, "a pair needs the texts \"prompt\", \"chosen\" and \"rejected\"");
  int st = NM_OK;
  for (int i = 0; i < 2 && !st; i++) {
    r->part[0] = part_of(prompt, 0);
    r->part[1] = part_of(answer[i], 1);
    r->also.pair = i + 1;
    st = take(r, 2, 0);
  }
  return st;
}

static int take_messages(struct rows *r, const json_t *row) {
  struct nm__part *parts = NULL;
  nm_prompt text = {0};
  int n = 0;
  if (!r->how) return bad(r, "\"messages\" are not possible here");
  int st = nm__chat_parts(r->how, row, r->where, &text, &parts, &n, r->err);
  if (!st) st = room(r, (size_t)n);
  if (!st) {
    memcpy(r->part, parts, (size_t)n * sizeof *parts);
    r->also.user = text.user;
    st = take(r, n, 0);
  }
  free(parts);
  nm_prompt_free(&text);
  return st;
}

/* What any row may have beside its text. */
static int read_also(struct rows *r, const json_t *row) {
  const json_t *group = json_object_get(row, "group"), *target = json_object_get(row, "target");
  size_t n = json_array_size(target);
  r->also = (struct nm__doc){.group = json_string_value(group)};
  if (group && !json_is_string(group)) return bad(r, "\"group\" must be a text");
  if (!target) return NM_OK;
  if (!n || n > 1 << 20) return bad(r, "\"target\" must be a list of numbers");
  float *v = nm__realloc(r->target, n, sizeof *v);
  if (!v) return nm__fail_memory(r->err, "a row of data", n * sizeof *v);
  r->target = v;
  for (size_t i = 0; i < n; i++) {
    const json_t *x = json_array_get(target, i);
    v[i] = (float)json_number_value(x);
    if (!json_is_number(x) || v[i] - v[i] != 0)
      return bad(r, "\"target\" must be a list of numbers");
  }
  r->also.target = v;
  r->also.n_target = (int)n;
  return NM_OK;
}

static int take_row(struct rows *r, const json_t *row) {
  const json_t *text = json_object_get(row, "text"), *prompt = json_object_get(row, "prompt"),
               *response = json_object_get(row, "response"),
               *parts = json_object_get(row, "parts"), *ids = json_object_get(row, "ids");
  int st = room(r, 2);
  if (!st) st = read_also(r, row);
  if (st) return st;
  if (json_object_get(row, "chosen") || json_object_get(row, "rejected")) return take_pair(r, row);
  if (parts) return take_parts(r, parts);
  if (ids) return take_ids(r, ids, json_object_get(row, "weights"));
  if (json_is_string(prompt) && json_is_string(response)) {
    r->part[0] = part_of(prompt, 0);
    r->part[1] = part_of(response, 1);
    return take(r, 2, 0);
  }
  if (json_object_get(row, "messages")) return take_messages(r, row);
  if (!json_is_string(text))
    return bad(r, "a row needs \"text\", \"prompt\" and \"response\" (or \"chosen\" and "
                  "\"rejected\"), \"messages\", \"parts\", or \"ids\"");
  r->part[0] = part_of(text, 1);
  return take(r, 1, 0);
}

static int docs_of_file(const struct nm__yaml *y, const struct nm__source *s, struct rows *r) {
  struct nm__map m;
  nm_err own = {0};
  if (nm__map_open(s->file, &m, &own)) return nm__yaml_fail(y, s->at, r->err, "%s", own.text);
  int st = NM_OK;
  size_t line = 0, n_rows = 0;
  for (size_t at = 0, n; at < m.size && !st; at += n + 1) {
    const char *p = (const char *)m.data + at, *end = memchr(p, '\n', m.size - at);
    n = end ? (size_t)(end - p) : m.size - at;
    snprintf(r->where, sizeof r->where, "%.250s:%zu", s->file, ++line);
    if (strspn(p, " \t\r") >= n) continue;
    json_t *row = nm__json_parse(r->where, p, n, VALUES_MAX, r->err);
    st = row ? take_row(r, row) : NM_EFORMAT;
    n_rows++;
    json_decref(row);
  }
  nm__map_close(&m);
  if (!st && !n_rows) st = nm__yaml_fail(y, s->at, r->err, "%s holds no rows", s->file);
  return st;
}

/* Items in order; a side takes those that are on it until it has n. */
static int docs_of_world(const struct nm__yaml *y, const struct nm__source *s, struct rows *r) {
  nm_world *w;
  nm_world_item it = {0};
  nm_err own = {0};
  if (nm_world_open(s->world, s->set.v, s->set.n, (uint64_t)s->W, (uint64_t)s->seed, &w, &own))
    return nm__yaml_fail(y, s->at, r->err, "%s", own.text);
  int st = NM_OK, taken = 0;
  for (uint64_t i = 0; taken < s->n && !st; i++) {
    st = nm_world_make(w, i, &it, r->err);
    if (st || (s->split != NM__SIDE_BOTH && it.test != (s->split == NM__SIDE_TEST))) continue;
    snprintf(r->where, sizeof r->where, "world %s, item %llu", s->world, (unsigned long long)i);
    st = room(r, 2 * (size_t)it.n_parts + 2);
    int to = 0;
    for (int k = 0; k < it.n_parts && !st; k++) {
      float weight = (float)it.parts[k].weight;
      if (k) r->part[to++] = (struct nm__part){" ", 1, weight};
      r->part[to++] = (struct nm__part){it.parts[k].text, strlen(it.parts[k].text), weight};
    }
    if (!st) st = take(r, to, 0);
    taken++;
  }
  nm_world_item_done(&it);
  nm_world_close(w);
  return st;
}

int nm__docs(const struct nm__yaml *y, const struct nm__source *s, const struct nm__chat_how *how,
             nm__doc_take *fn, void *arg, nm_err *err) {
  nm_err own = {0};
  struct rows r = {.how = how, .take = fn, .arg = arg, .err = err ? err : &own};
  int st = s->file ? docs_of_file(y, s, &r) : docs_of_world(y, s, &r);
  free(r.part);
  free(r.ids);
  free(r.weight);
  free(r.target);
  return st;
}

/* ---- a tokenizer from them ------------------------------------------------------ */

struct texts { struct nm__buf all; size_t *end; size_t n, cap; };

static int keep_text(void *arg, const struct nm__doc *d, nm_err *err) {
  struct texts *t = arg;
  if (!d->n_parts) return NM_OK;
  if (t->n == t->cap) {
    size_t cap = t->cap ? 2 * t->cap : 1024, *end = nm__realloc(t->end, cap, sizeof *end);
    if (!end) return nm__fail_memory(err, "the texts", cap * sizeof *end);
    t->end = end;
    t->cap = cap;
  }
  for (int i = 0; i < d->n_parts; i++) nm__buf_put(&t->all, d->part[i].s, d->part[i].n);
  t->end[t->n++] = t->all.len;
  return t->all.failed ? nm__fail_memory(err, "the texts", t->all.len) : NM_OK;
}

int nm__docs_tokenizer(const struct nm__recipe *r, struct nm__gguf **out, nm_err *err) {
  struct texts t = {0};
  struct nm__chat_how how;
  nm_err own = {0};
  nm__buf_init(&t.all, (size_t)1 << 34);
  int st = nm__chat_how(r, NULL, &how, err);
  for (int i = 0; i < r->data.n && !st; i++)
    st = nm__docs(&r->y, &r->data.v[i], &how, keep_text, &t, err);
  nm__chat_how_done(&how);
  struct nm__str *v = st ? NULL : nm__alloc(t.n + 1, sizeof *v);
  for (size_t i = 0; v && i < t.n; i++) {
    size_t from = i ? t.end[i - 1] : 0;
    v[i] = (struct nm__str){t.all.s + from, t.end[i] - from};
  }
  if (!st && !v) st = nm__fail_memory(err, "the texts", t.n * sizeof *v);
  if (!st && (st = nm__tok_learn(r->tokenizer, r->tokenizer_size, v, t.n, out, &own)))
    st = nm__yaml_fail(&r->y, json_object_get(r->y.root, "tokenizer"), err, "%s", own.text);
  free(v);
  free(t.end);
  nm__buf_done(&t.all);
  return st;
}
