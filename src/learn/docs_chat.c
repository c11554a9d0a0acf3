/* docs_chat.c - conversations as documents: the template writes the whole of it, and once more up
 * to each turn of the assistant and behind it, which tells the bytes that are the assistant's. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/json.h"
#include "learn/data.h"

enum { TURNS_MAX = 2000 };

/* ---- the template ---------------------------------------------------------------- */

static bool is_file(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* A family's name goes before a file of that name, as on the command line. */
int nm__chat_how(const struct nm__recipe *r, const nm_model *m, struct nm__chat_how *out,
                 nm_err *err) {
  bool family = r->chat && !strcmp(r->chat, "native");
  struct nm__map map;
  nm_err own = {0};
  *out = (struct nm__chat_how){.m = m, .o = {.name = r->chat, .date = r->chat_date}};
  for (int i = 0; r->chat && nm_chat_family(i); i++) family |= !strcmp(r->chat, nm_chat_family(i));
  if (!r->chat || family || !is_file(r->chat)) return NM_OK;
  if (nm__map_open(r->chat, &map, &own))
    return nm__yaml_fail(&r->y, json_object_get(r->y.root, "chat"), err, "%s", own.text);
  out->source = nm__strndup((const char *)map.data, map.size);
  out->o.source = out->source;
  out->o.n_source = map.size;
  nm__map_close(&map);
  return out->source ? NM_OK : nm__fail_memory(err, "a template", map.size);
}

void nm__chat_how_done(struct nm__chat_how *h) {
  free(h->source);
  *h = (struct nm__chat_how){0};
}

/* ---- one conversation -------------------------------------------------------------- */

/* The text of the first n messages. */
static int render(const struct nm__chat_how *h, const json_t *row, size_t n, bool generate,
                  const char *where, nm_prompt *out, nm_err *err) {
  json_t *first = json_array(), *copy = json_copy((json_t *)row);
  const json_t *all = json_object_get(row, "messages");
  nm_chat_opts o = h->o;
  o.no_generation_prompt = !generate;
  for (size_t i = 0; first && i < n; i++) json_array_append(first, json_array_get(all, i));
  if (copy) json_object_set_new(copy, "messages", first);
  char *s = copy ? json_dumps(copy, JSON_COMPACT) : NULL;
  int st = s ? nm_chat_render(h->m, s, strlen(s), &o, out, err)
             : nm__fail_memory(err, "a conversation", 0);
  free(s);
  json_decref(copy);
  return st ? nm__fail_at(err, st, "%s", where) : st;
}

static size_t common(const nm_prompt *a, const nm_prompt *b) {
  size_t n = 0;
  while (n < a->n && n < b->n && a->text[n] == b->text[n]) n++;
  return n;
}

/* Bytes from..end of the whole are what the assistant says in turn i. Where a template opens the
 * turn with more than it writes in the end (thoughts), it begins where the two part. */
static int turn(const struct nm__chat_how *h, const json_t *row, size_t i, const char *where,
                const nm_prompt *whole, size_t *from, size_t *end, nm_err *err) {
  nm_prompt before = {0}, behind = {0};
  int st = render(h, row, i, true, where, &before, err);
  if (!st) st = render(h, row, i + 1, false, where, &behind, err);
  size_t a = common(&before, whole), b = common(&behind, whole);
  if (!st && (b < behind.n || a < *end || a >= b))
    st = nm__fail(err, NM_EFORMAT, "%s: the chat template writes message %zu in another way when "
                  "others follow it: make a row of each turn", where, i + 1);
  *from = a;
  *end = b;
  nm_prompt_free(&before);
  nm_prompt_free(&behind);
  return st;
}

static int check(const json_t *all, const char *where, nm_err *err) {
  size_t said = 0;
  for (size_t i = 0; i < json_array_size(all); i++) {
    const json_t *v = json_array_get(all, i), *w = json_object_get(v, "weight");
    const char *role = json_string_value(json_object_get(v, "role"));
    if (!role)
      return nm__fail(err, NM_EFORMAT, "%s: message %zu has no \"role\"", where, i + 1);
    if (w && !(json_is_number(w) && json_number_value(w) >= 0 && json_number_value(w) < 1e6))
      return nm__fail(err, NM_EFORMAT, "%s: the weight of message %zu must be a number from 0 to a "
                      "million", where, i + 1);
    said += !strcmp(role, "assistant");
  }
  if (json_array_size(all) > TURNS_MAX)
    return nm__fail(err, NM_EFORMAT, "%s: a conversation of more than %d messages", where,
                    TURNS_MAX);
  if (said) return NM_OK;
  return nm__fail(err, NM_EFORMAT, "%s: \"messages\" must be a list that holds a turn of the "
                  "assistant: there is nothing to learn", where);
}

static int find_turns(const struct nm__chat_how *h, const json_t *row, const char *where,
                      const nm_prompt *text, struct nm__part *v, int *n, nm_err *err) {
  const json_t *all = json_object_get(row, "messages");
  size_t done = 0, from, end = 0;
  int st = NM_OK;
  for (size_t i = 0; i < json_array_size(all) && !st; i++) {
    const json_t *e = json_array_get(all, i), *w = json_object_get(e, "weight");
    if (strcmp(json_string_value(json_object_get(e, "role")), "assistant")) continue;
    st = turn(h, row, i, where, text, &from, &end, err);
    if (st) return st;
    v[(*n)++] = (struct nm__part){text->text + done, from - done, 0};
    v[(*n)++] = (struct nm__part){text->text + from, end - from,
                                  w ? (float)json_number_value(w) : 1};
    done = end;
  }
  if (done < text->n) v[(*n)++] = (struct nm__part){text->text + done, text->n - done, 0};
  return st;
}

int nm__chat_parts(const struct nm__chat_how *h, const json_t *row, const char *where,
                   nm_prompt *text, struct nm__part **parts, int *n, nm_err *err) {
  size_t turns = json_array_size(json_object_get(row, "messages"));
  *text = (nm_prompt){0};
  *n = 0;
  *parts = NULL;
  int st = check(json_object_get(row, "messages"), where, err);
  if (!st && !(*parts = nm__alloc(2 * turns + 1, sizeof **parts)))
    st = nm__fail_memory(err, "a conversation", turns * 2 * sizeof **parts);
  if (!st) st = render(h, row, turns, false, where, text, err);
  return st ? st : find_turns(h, row, where, text, *parts, n, err);
}
