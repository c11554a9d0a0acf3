/* at.c - positions of a sequence: last, all, prompt, generated, 5, -1, 2:7, span:TEXT, and
 * lists of them. While a text is being generated, prompt, last, negative numbers and span:TEXT
 * speak of the prompt alone; all, open ranges and numbers from the beginning go on behind it. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

enum { AT_ONE, AT_RANGE, AT_SPAN, AT_PROMPT, AT_GENERATED };
enum { OPEN = 1 << 30 };           /* the end of a range that has none */

static int bad(const char *s, nm_err *err) {
  return nm__fail(err, NM_EUSAGE,
                  "positions '%.60s': must be last, all, prompt, generated, i, i:j, -i, "
                  "span:TEXT or a list of them with commas",
                  s);
}

static int parse_item(char *s, struct nm__at_item *it, nm_err *err) {
  *it = (struct nm__at_item){.kind = AT_RANGE};
  if (!strcmp(s, "prompt") || !strcmp(s, "generated")) {
    it->kind = *s == 'p' ? AT_PROMPT : AT_GENERATED;
    return NM_OK;
  }
  if (!strcmp(s, "all")) {
    it->b = OPEN;
    return NM_OK;
  }
  if (!strncmp(s, "span:", 5)) {
    it->kind = AT_SPAN;
    it->text = nm__strdup(s + 5);
    if (!it->text) return nm__fail_memory(err, "a span", 0);
    return s[5] ? NM_OK : bad(s, err);
  }
  char *end;
  if (!strcmp(s, "last")) s = (char *)"-1";
  long a = strtol(s, &end, 10), b = a;
  bool range = *end == ':';
  if (end == s && !range) return bad(s, err);
  if (end == s) a = 0;
  if (range) {
    char *from = end + 1;
    b = *from ? strtol(from, &end, 10) : OPEN;
    if (!*from) end = from;
    else if (end == from) return bad(s, err);
  }
  const long most = OPEN;
  if (*end || a < -most || a > most || b < -most || b > most) return bad(s, err);
  *it = (struct nm__at_item){range ? AT_RANGE : AT_ONE, (int)a, (int)b, NULL};
  return NM_OK;
}

int nm__at_parse(const char *text, struct nm__at *out, nm_err *err) {
  *out = (struct nm__at){0};
  char *copy = nm__strdup(text), *s = copy;
  int st = copy ? NM_OK : nm__fail_memory(err, "positions", 0);
  while (!st && s) {
    char *comma =
        strncmp(s, "span:", 5) ? strchr(s, ',') : NULL; /* a span's text may hold commas */
    if (comma) *comma = 0;
    struct nm__at_item *v = nm__realloc(out->v, (size_t)out->n + 1, sizeof *v);
    if (!v) { st = nm__fail_memory(err, "positions", 0); break; }
    out->v = v;
    st = parse_item(s, &out->v[out->n++], err);
    s = comma ? comma + 1 : NULL;
  }
  free(copy);
  if (st) nm__at_done(out);
  return st;
}

void nm__at_done(struct nm__at *at) {
  for (int i = 0; i < at->n; i++) free(at->v[i].text);
  free(at->v);
  *at = (struct nm__at){0};
}

bool nm__at_single(const struct nm__at *at) { return at->n == 1 && at->v[0].kind == AT_ONE; }

struct list { int *v; int n; };
static bool put(struct list *l, int a, int b) {          /* a .. b-1 */
  int *v = nm__realloc(l->v, (size_t)(l->n + (b > a ? b - a : 0)) + 1, sizeof *v);
  if (!v) return false;
  l->v = v;
  for (; a < b; a++) l->v[l->n++] = a;
  return true;
}

/* All tokens whose bytes overlap the first occurrence of the text in the decoded sequence. */
static int resolve_span(const char *text, const nm_model *m, const nm_seq *seq, struct list *l,
                        nm_err *err) {
  if (!m->tok)
    return nm__fail(err, NM_EFORMAT, "span:%s needs a tokenizer, %s has none", text, m->path);
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 28);
  size_t *end = nm__alloc(seq->n + 1, sizeof *end);
  int st = end ? NM_OK : nm__fail_memory(err, "a span", 0);
  for (size_t i = 0; i < seq->n && !st; i++) {           /* ends of the growing decoded text */
    nm__buf_reset(&b);
    st = nm__tok_decode(m->tok, seq->ids, i + 1, false, &b, err);
    end[i] = b.len;
  }
  char *hit = !st && b.s ? strstr(b.s, text) : NULL;
  if (!st && !hit)
    st = nm__fail(err, NM_EUSAGE, "span:%s: the text is not in the sequence", text);
  size_t from = hit ? (size_t)(hit - b.s) : 0, to = from + strlen(text);
  for (size_t i = 0; i < seq->n && !st; i++) {
    size_t begin = i ? end[i - 1] : 0;
    if (begin < to && end[i] > from && !put(l, (int)i, (int)i + 1))
      st = nm__fail_memory(err, "a span", 0);
  }
  free(end);
  nm__buf_done(&b);
  return st;
}

/* goes_on: the text is the prompt of one that will be longer. */
static int resolve(const struct nm__at *at, const nm_model *m, const nm_seq *seq, bool goes_on,
                   int **out, int *n, nm_err *err) {
  struct list l = {0};
  int len = (int)seq->n, st = NM_OK;
  for (int i = 0; i < at->n && !st; i++) {
    const struct nm__at_item *it = &at->v[i];
    if (it->kind == AT_SPAN || it->kind == AT_GENERATED || it->kind == AT_PROMPT) {
      if (it->kind == AT_SPAN) st = resolve_span(it->text, m, seq, &l, err);
      else if (it->kind == AT_PROMPT) st = put(&l, 0, len) ? NM_OK : NM_EMEMORY;
      else if (!goes_on)
        st = nm__fail(err, NM_EUSAGE, "positions 'generated': nothing is generated here, the text "
                      "is only read");
      continue;
    }
    int a = it->a < 0 ? it->a + len : it->a, b = it->kind == AT_ONE ? a + 1 : it->b;
    if (it->kind == AT_RANGE && b < 0) b += len;
    if (it->kind == AT_RANGE && b > len) b = len;
    if (it->kind == AT_RANGE && a < 0) a = 0;
    if (it->kind == AT_ONE && a >= len && goes_on) continue;
    if (it->kind == AT_ONE && (a < 0 || a >= len))
      st = nm__fail(err, NM_EUSAGE, "position %d lies outside the sequence of %d positions", it->a,
                    len);
    else if (!put(&l, a, b))
      st = nm__fail_memory(err, "positions", 0);
  }
  if (st) {
    free(l.v);
    return st;
  }
  *out = l.v;
  *n = l.n;
  return NM_OK;
}

int nm__at_resolve(const struct nm__at *at, const nm_model *m, const nm_seq *seq, int **out, int *n,
                   nm_err *err) {
  return resolve(at, m, seq, false, out, n, err);
}

int nm__at_prompt(const struct nm__at *at, const nm_model *m, const nm_seq *seq, int from,
                  uint8_t *mask, nm_err *err) {
  int *pos, n, st = resolve(at, m, seq, true, &pos, &n, err);
  if (st) return st;
  for (int i = 0; i < n; i++)
    if (pos[i] >= from) mask[pos[i]] = 1;
  free(pos);
  return NM_OK;
}

bool nm__at_generated(const struct nm__at *at, int pos) {
  for (int i = 0; i < at->n; i++) {
    const struct nm__at_item *it = &at->v[i];
    if (it->kind == AT_GENERATED) return true;
    if (it->kind == AT_ONE && it->a == pos) return true;
    if (it->kind == AT_RANGE && it->a >= 0 && pos >= it->a && pos < it->b) return true;
  }
  return false;
}
