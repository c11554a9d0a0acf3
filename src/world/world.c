/* world.c - the table of worlds, their parameters, items and twins, the files they are written to
 * and the checker that reads these again. */
#include "world/world.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/json.h"

static const struct nm__world_kind *const kinds[] = {&nm__world_lexical, &nm__world_facts,
                                                     &nm__world_chase, &nm__world_parity,
                                                     &nm__world_relation, &nm__world_taxonomy,
                                                     &nm__world_sentiment, &nm__world_count,
                                                     &nm__world_order, &nm__world_walk,
                                                     &nm__world_needle, &nm__world_knights};
enum { N_KINDS = sizeof kinds / sizeof *kinds, TEST_PERCENT = 40 };

bool nm_worlds(int i, nm_world_info *out) {
  if (i < 0 || i >= N_KINDS) return false;
  *out = (nm_world_info){kinds[i]->name, kinds[i]->about, kinds[i]->labels, kinds[i]->params};
  return true;
}

/* ---- what worlds are written with ------------------------------------------- */

void nm__item_word(struct nm__item *b, const char *word) {
  if (b->text.len > b->from) nm__buf_putc(&b->text, ' ');
  nm__buf_puts(&b->text, word);
}

void nm__item_end(struct nm__item *b, int weight) {
  nm__buf_putc(&b->text, 0);
  if (b->n == b->cap) {
    int cap = b->cap ? 2 * b->cap : 8;
    size_t *at = nm__realloc(b->at, (size_t)cap, sizeof *at);
    if (at) b->at = at;
    nm_world_part *part = nm__realloc(b->part, (size_t)cap, sizeof *part);
    if (part) b->part = part;
    if (!at || !part) {
      b->text.failed = true;
      return;
    }
    b->cap = cap;
  }
  b->at[b->n] = b->from;
  b->part[b->n++].weight = weight;
  b->from = b->text.len;
}

bool nm__next_word(const char **text, char word[NM__WORD]) {
  const char *s = *text + strspn(*text, " \t\r\n");
  size_t n = strcspn(s, " \t\r\n"), kept = n < NM__WORD ? n : NM__WORD - 1;
  *text = s + n;
  memcpy(word, s, kept);
  word[kept] = 0;
  return n > 0;
}

void nm__item_phrase(struct nm__item *b, const char *phrase, const char *name) {
  for (char word[NM__WORD]; nm__next_word(&phrase, word);)
    nm__item_word(b, strcmp(word, "*") ? word : name);
}

const char *nm__skip_phrase(const char *text, const char *phrase, char name[NM__WORD]) {
  for (char want[NM__WORD], word[NM__WORD]; nm__next_word(&phrase, want);) {
    if (!nm__next_word(&text, word)) return NULL;
    if (!strcmp(want, "*")) memcpy(name, word, NM__WORD);
    else if (strcmp(want, word)) return NULL;
  }
  return text;
}

int nm__find_word(const char *const *list, int n, const char *word) {
  for (int i = 0; i < n; i++)
    if (!strcmp(list[i], word)) return i;
  return -1;
}

void nm__draw_order(uint64_t key, uint64_t stream, uint32_t *v, uint32_t n) {
  struct nm__rng r = {key, stream, 0};
  for (uint32_t i = 0; i < n; i++) v[i] = i;
  nm__rng_shuffle(&r, v, n);
}

/* ---- opening ------------------------------------------------------------------ */

static int no_world(const char *name, nm_err *err) {
  char shown[40], list[256];
  size_t at = 0;
  for (int i = 0; i < N_KINDS && at < sizeof list; i++)
    at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", kinds[i]->name);
  return nm__fail(err, NM_EUSAGE, "there is no world '%s'; the worlds are %s",
                  nm__printable(shown, sizeof shown, name, strlen(name)), list);
}

static int no_param(const struct nm__world_kind *k, const char *set, nm_err *err) {
  char shown[40], list[256] = "none";
  size_t at = 0;
  for (int i = 0; k->params[i].name && at < sizeof list; i++)
    at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", k->params[i].name);
  return nm__fail(err, NM_EUSAGE, "world %s: '%s' is not KEY=VALUE of a parameter it has: %s",
                  k->name, nm__printable(shown, sizeof shown, set, strlen(set)), list);
}

static int set_param(struct nm_world *w, const char *set, nm_err *err) {
  const nm_world_param *p = w->kind->params;
  size_t n = strcspn(set, "=");
  int i = 0;
  while (p[i].name && (strlen(p[i].name) != n || memcmp(p[i].name, set, n))) i++;
  if (!p[i].name || !set[n]) return no_param(w->kind, set, err);
  char *end;
  errno = 0;
  long v = strtol(set + n + 1, &end, 10);
  if (end == set + n + 1 || *end || errno || v < p[i].low || v > p[i].high)
    return nm__fail(err, NM_EUSAGE,
                    "world %s: %s is a whole number from %d to %d (%s), not '%.20s'",
                    w->kind->name, p[i].name, p[i].low, p[i].high, p[i].about, set + n + 1);
  w->param[i] = (int)v;
  return NM_OK;
}

/* Holds out 40 % of the facts, at least one and not all. */
static void draw_split(struct nm_world *w) {
  uint32_t order[NM__WORLD_TWINS], n = w->n_twins, held = (n * TEST_PERCENT + 50) / 100;
  nm__draw_order(w->split_key, 0, order, n);
  for (uint32_t i = 0; i < n; i++) w->test[order[i]] = i < held;
}

/* Row r holds out the columns at places r, r + 1, .. of an order, rows themselves in an order. */
void nm__split_grid(struct nm_world *w, uint32_t first, uint32_t rows, uint32_t cols,
                    uint32_t held) {
  uint32_t row[NM__WORLD_TWINS], col[NM__WORLD_TWINS];
  nm__draw_order(w->split_key, 2 * first + 1, row, rows);
  nm__draw_order(w->split_key, 2 * first + 2, col, cols);
  for (uint32_t r = 0; r < rows; r++)
    for (uint32_t i = 0; i < held; i++)
      w->test[first + row[r] * cols + col[(r * held + i) % cols]] = true;
  w->split = true;
}

int nm_world_open(const char *name, const char *const *set, int n_set, uint64_t W, uint64_t seed,
                  nm_world **out, nm_err *err) {
  const struct nm__world_kind *kind = NULL;
  *out = NULL;
  for (int i = 0; i < N_KINDS && !kind; i++)
    if (!strcmp(kinds[i]->name, name)) kind = kinds[i];
  if (!kind) return no_world(name, err);
  if (W > INT64_MAX)           /* JSON of other programs keeps no more */
    return nm__fail(err, NM_EUSAGE, "world %s: W is at most 2^63 - 1", name);
  struct nm_world *w = nm__alloc(1, sizeof *w);
  if (!w) return nm__fail_memory(err, "a world", sizeof *w);
  w->kind = kind;
  w->W = W;
  w->truth_key = nm__hash(name, strlen(name), W);
  w->split_key = nm__rand_at(w->truth_key, 1, 0);
  w->item_key = nm__rand_at(w->truth_key, 2, seed);
  for (int i = 0; kind->params[i].name; i++) w->param[i] = kind->params[i].standard;
  int st = NM_OK;
  for (int i = 0; i < n_set && !st; i++) st = set_param(w, set[i], err);
  if (!st) st = kind->draw(w, err);
  if (st) return free(w), st;
  if (w->n_twins && !w->split) draw_split(w);
  *out = w;
  return NM_OK;
}

void nm_world_close(nm_world *w) { free(w); }

/* ---- items ---------------------------------------------------------------------- */

void nm_world_item_done(nm_world_item *item) {
  struct nm__item *b = item->memory;
  if (b) {
    nm__buf_done(&b->text);
    free(b->at);
    free(b->part);
    free(b);
  }
  *item = (nm_world_item){0};
}

/* Without a bound on the facts each has a coin of its own. */
static bool held_out(const struct nm_world *w, uint64_t twin) {
  if (w->n_twins) return w->test[twin];
  return nm__rand_at(w->split_key, 0, twin) % 100 < TEST_PERCENT;
}

int nm_world_make(const nm_world *w, uint64_t i, nm_world_item *item, nm_err *err) {
  struct nm__item *b = item->memory;
  if (!b) {
    if (!(b = item->memory = nm__alloc(1, sizeof *b)))
      return nm__fail_memory(err, "an item", sizeof *b);
    nm__buf_init(&b->text, (size_t)1 << 24);
  }
  nm__buf_reset(&b->text);
  b->out = item;
  b->from = 0;
  b->n = 0;
  item->id = i;
  /* Which of the twins comes first is a coin: the label is not the parity of the id. */
  w->kind->make(w, i / 2, (int)((i ^ nm__rand_at(w->item_key, UINT64_MAX, i / 2)) & 1), b);
  if (b->text.failed) return nm__fail_memory(err, "an item's text", b->text.len);
  for (int k = 0; k < b->n; k++) b->part[k].text = b->text.s + b->at[k];
  item->parts = b->part;
  item->n_parts = b->n;
  item->text = b->part[0].text;
  item->answer = b->part[1].text;
  item->label_name = w->kind->labels[item->label];
  item->test = held_out(w, item->twin);
  return NM_OK;
}

/* ---- files -------------------------------------------------------------------------- */

/* The words of worlds need no escapes in JSON; the unit test parses what is written. */
static void put_item(struct nm__buf *b, const struct nm_world *w, const nm_world_item *it,
                     enum nm_world_form form) {
  nm__buf_printf(b, "{\"world\":\"%s\",\"W\":%llu,\"id\":%llu", w->kind->name,
                 (unsigned long long)w->W, (unsigned long long)it->id);
  if (form != NM_WORLD_TRAIN)
    nm__buf_printf(b, ",\"text\":\"%s\",\"answer\":\"%s\",\"label\":%d,\"label_name\":\"%s\"",
                   it->text, it->answer, it->label, it->label_name);
  nm__buf_printf(b, ",\"depth\":%d,\"twin\":%llu,\"split\":\"%s\"", it->depth,
                 (unsigned long long)it->twin, it->test ? "test" : "train");
  for (int k = 0; k < it->n_parts && form != NM_WORLD_PROBE; k++) {
    nm__buf_puts(b, k ? ",[\"" : ",\"parts\":[[\"");
    nm__buf_puts(b, it->parts[k].text);
    nm__buf_puts(b, it->parts[k].weight ? "\",1]" : "\",0]");
  }
  nm__buf_puts(b, form == NM_WORLD_PROBE ? "}\n" : "]}\n");
}

static int write_items(const nm_world *w, uint64_t n, const char *split, enum nm_world_form form,
                       struct nm__out *o, struct nm__buf *b, const nm_progress *p, nm_err *err) {
  nm_world_item it = {0};
  uint64_t written = 0;
  int st = NM_OK;
  for (uint64_t i = 0; written < n && !st; i++) {
    st = nm_world_make(w, i, &it, err);
    if (st || (split && it.test != !strcmp(split, "test"))) continue;
    put_item(b, w, &it, form);
    if (b->failed) st = nm__fail_memory(err, "the items", b->len);
    if (!st && (++written == n || b->len > (size_t)1 << 20)) {
      st = nm__out_write(o, b->s, b->len, err);
      nm__buf_reset(b);
      if (!st) st = nm__progress(p, "writing items", (double)written, (double)n, err);
    }
  }
  nm_world_item_done(&it);
  return st;
}

int nm_world_write(const nm_world *w, uint64_t n, const char *split, enum nm_world_form form,
                   const char *path, const nm_progress *p, nm_err *err) {
  struct nm__out o;
  struct nm__buf b;
  if (split && strcmp(split, "train") && strcmp(split, "test"))
    return nm__fail(err, NM_EUSAGE, "a split is train or test, not '%.20s'", split);
  int st = nm__out_open(path, &o, err);
  if (st) return st;
  nm__buf_init(&b, (size_t)1 << 26);
  st = write_items(w, n, split, form, &o, &b, p, err);
  nm__buf_done(&b);
  if (!st) return nm__out_close(&o, err);
  nm__out_abort(&o);
  return st;
}

/* ---- the checker ----------------------------------------------------------------------- */

/* The answer without space around it; one that is longer than any answer is none. */
static bool trimmed(const char *answer, char word[NM__ANSWER]) {
  while (isspace((unsigned char)*answer)) answer++;
  size_t n = strlen(answer);
  while (n && isspace((unsigned char)answer[n - 1])) n--;
  if (n >= NM__ANSWER) return false;
  memcpy(word, answer, n);
  word[n] = 0;
  return true;
}

static int check_item(const json_t *item, const char *answer, bool *right, nm_err *err) {
  const json_t *W = json_object_get(item, "W");
  const char *name = json_string_value(json_object_get(item, "world")),
             *text = json_string_value(json_object_get(item, "text"));
  char word[NM__ANSWER];
  nm_world *w;
  if (!name || !text || !json_is_integer(W) || json_integer_value(W) < 0)
    return nm__fail(err, NM_EFORMAT, "an item to check needs \"world\", \"W\" and \"text\"");
  if (nm_world_open(name, NULL, 0, (uint64_t)json_integer_value(W), 0, &w, err))
    return nm__fail_at(err, err && err->status == NM_EMEMORY ? NM_EMEMORY : NM_EFORMAT,
                       "an item to check");
  int found = w->kind->check(w, text, trimmed(answer, word) ? word : "");
  nm_world_close(w);
  if (found < 0)
    return nm__fail(err, NM_EFORMAT, "the text of the item is not one of world %s", name);
  *right = found;
  return NM_OK;
}

int nm_world_check(const char *json, size_t n, const char *answer, bool *right, nm_err *err) {
  json_error_t e;
  *right = false;
  json_t *item = json_loadb(json, n, JSON_REJECT_DUPLICATES, &e);
  if (!item) return nm__fail(err, NM_EFORMAT, "an item to check is not JSON: %.200s", e.text);
  int st = check_item(item, answer, right, err);
  json_decref(item);
  return st;
}
