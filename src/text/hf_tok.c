/* hf_tok.c - encoding and decoding by a tokenizer.json ("hf").
 *
 * A text that is no UTF-8 is made one: a byte that is none becomes U+FFFD, or, where the
 * model has tokens for bytes, a private character that stands for it until the model is
 * reached. That character is chosen so that the text has none like it. */
#include <stdlib.h>
#include <string.h>

#include "text/hf.h"
#include "text/unicode.h"

void nm__hf_work_init(struct nm__hf_work *w, const struct nm__tok *t, size_t n, nm_err *err) {
  size_t max = 64 * n + (1 << 20);
  if (max > UINT32_MAX / 2) max = UINT32_MAX / 2;      /* symbols are counted in 32 bits */
  *w = (struct nm__hf_work){.t = t, .err = err, .budget = 1000000 + 64 * (uint64_t)n};
  nm__buf_init(&w->text, max);
  nm__buf_init(&w->next, max);
  nm__buf_init(&w->joined, max);
  nm__buf_init(&w->core.text, max);
  nm__buf_init(&w->core.key, max);
}

/* ---- bytes that are no UTF-8 ------------------------------------------- */

/* 256 private characters of which the text has none; 0 when it has of all. */
static uint32_t free_block(const char *s, size_t n) {
  uint8_t used[512] = {0};
  for (size_t i = 0; i < n;) {
    uint32_t c;
    i += (size_t)nm__hf_next(s + i, n - i, &c);
    if (c >= 0xF0000) used[(c - 0xF0000) >> 8] = 1;
  }
  for (uint32_t k = 0; k < 512; k++)
    if (!used[k]) return 0xF0000 + 256 * k;
  return 0;
}

static int make_valid(struct nm__hf_work *w, const char **s, size_t *n) {
  const char *t = *s;
  size_t left = *n, good = nm__utf8_valid(t, left);
  if (good == left) return NM_OK;
  if (w->t->hf->keeps_bytes) w->bad = free_block(t, left);
  for (;;) {
    nm__buf_put(&w->joined, t, good);
    if (good == left) break;
    char c[4];
    uint32_t cp = w->bad ? w->bad + (unsigned char)t[good] : 0xFFFD;
    nm__buf_put(&w->joined, c, (size_t)nm__utf8_encode(cp, c));
    t += good + 1;
    left -= good + 1;
    good = nm__utf8_valid(t, left);
  }
  if (w->joined.failed) return NM_EMEMORY;
  *s = w->joined.s;
  *n = w->joined.len;
  return NM_OK;
}

/* ---- cutting out added tokens ------------------------------------------ */

struct cutting {
  const struct nm__hf *h;
  struct nm__hf_work *w;
  const char *s;
  size_t n, done, spaces;          /* done: parts reach to here; spaces: known up to here */
  bool special, first;
};

static int put_part(struct cutting *c, size_t lo, size_t hi, int32_t id) {
  if (lo >= hi && id < 0) return NM_OK;
  struct nm__hf_part p = {lo, hi > lo ? hi - lo : 0, id, c->first && lo == 0};
  return nm__hf_parts_push(&c->w->made, p);
}

static int is_word(struct cutting *c, const char *s, size_t n) {
  int rc = nm__hf_regex_find(c->h->word, c->w, s, n);
  return rc ? rc : c->w->matches.v[0].match;
}

/* Does the token stand in a word? 1, 0 or a status. */
static int in_word(struct cutting *c, size_t lo, size_t hi) {
  uint32_t cp;
  int rc = 0;
  size_t before = lo;
  while (before > 0 && (c->s[--before] & 0xC0) == 0x80) ;
  if (lo > 0) rc = is_word(c, c->s + before, lo - before);
  if (rc || hi == c->n) return rc;
  return is_word(c, c->s + hi, (size_t)nm__hf_next(c->s + hi, c->n - hi, &cp));
}

/* Where the white space behind `at` ends. Looked at once, however many tokens ask. */
static size_t skip_spaces(struct cutting *c, size_t at) {
  if (at < c->spaces) return c->spaces;
  for (size_t len; at < c->n; at += len) {
    uint32_t cp;
    len = (size_t)nm__hf_next(c->s + at, c->n - at, &cp);
    if (!nm__hf_is_space(cp)) break;
  }
  return c->spaces = at;
}

static size_t back_over_spaces(const struct cutting *c, size_t at) {
  while (at > c->done) {
    size_t before = at;
    uint32_t cp;
    while (before > c->done && (c->s[--before] & 0xC0) == 0x80) ;
    nm__hf_next(c->s + before, c->n - before, &cp);
    if (!nm__hf_is_space(cp)) break;
    at = before;
  }
  return at;
}

static int put_token(struct cutting *c, const struct nm__hf_added *a, size_t lo, size_t hi) {
  if (a->special && !c->special) return NM_OK;
  int inside = a->single_word ? in_word(c, lo, hi) : 0;
  if (inside) return inside < 0 ? inside : NM_OK;
  if (a->lstrip) lo = back_over_spaces(c, lo);
  if (a->lstrip && lo < c->done) lo = c->done;
  if (a->rstrip) hi = skip_spaces(c, hi);
  int rc = put_part(c, c->done, lo, -1);
  if (!rc) rc = put_part(c, lo, hi, a->id);
  c->done = hi;
  return rc;
}

/* From the left, the longest token that begins somewhere; then on behind it. */
static int cut(struct cutting *c, const struct nm__specials *v) {
  int rc = NM_OK;
  for (size_t i = 0; i < c->n && v->n && !rc;) {
    struct nm__descent d = nm__specials_at(v, c->s + i, c->n - i);
    int32_t best = -1;
    for (int32_t k; d.lo < d.hi && (k = nm__specials_next(&d)) >= 0;) best = k;
    if (best >= 0) rc = put_token(c, &c->h->added[v->v[best].id], i, i + v->v[best].n);
    i += best >= 0 ? v->v[best].n : 1;
  }
  return rc ? rc : put_part(c, c->done, c->n, -1);
}

/* ---- encoding ---------------------------------------------------------- */

/* One run between the tokens that are looked for in the text as it is. */
static int normalize_run(const struct nm__hf *h, struct nm__hf_work *w, const char *s, size_t n,
                         bool first, bool special) {
  nm__buf_reset(&w->text);
  nm__buf_put(&w->text, s, n);
  int rc = w->text.failed ? NM_EMEMORY : nm__hf_normalize(&h->normalizer, w, &first);
  if (rc) return rc;
  size_t before = w->made.n, at = w->joined.len;
  struct cutting c = {.h = h, .w = w, .s = w->text.len ? w->text.s : "", .n = w->text.len,
                      .special = special, .first = first};
  rc = cut(&c, &h->normed);
  for (size_t i = before; i < w->made.n; i++) w->made.v[i].at += at;
  nm__buf_put(&w->joined, c.s, c.n);
  return rc ? rc : w->joined.failed ? NM_EMEMORY : NM_OK;
}

/* w->parts get the runs and tokens of the whole text, w->text what they are of. */
static int extract(const struct nm__hf *h, struct nm__hf_work *w, const char *s, size_t n,
                   bool special) {
  struct cutting c = {.h = h, .w = w, .s = s, .n = n, .special = special, .first = true};
  int rc = cut(&c, &h->raw);
  struct nm__hf_parts raw = w->made;
  w->made = (struct nm__hf_parts){0};
  struct nm__buf source = w->joined;           /* holds s when it had to be made valid */
  nm__buf_init(&w->joined, w->text.max);
  for (size_t i = 0; i < raw.n && !rc; i++) {
    const struct nm__hf_part *p = &raw.v[i];
    if (p->id >= 0) rc = nm__hf_parts_push(&w->made, *p);
    else rc = normalize_run(h, w, s + p->at, p->n, p->first, special);
  }
  free(raw.v);
  nm__buf_done(&source);
  struct nm__buf b = w->text;
  w->text = w->joined;
  w->joined = b;
  free(w->parts.v);
  w->parts = w->made;
  w->made = (struct nm__hf_parts){0};
  return rc;
}

static int encode(const struct nm__hf *h, struct nm__hf_work *w, const char *s, size_t n,
                  bool special) {
  int rc = make_valid(w, &s, &n);
  if (!rc) rc = extract(h, w, s, n, special);
  if (!rc) rc = nm__hf_run_steps(&h->pre_tokenizer, w);
  for (size_t i = 0; i < w->parts.n && !rc; i++) {
    const struct nm__hf_part *p = &w->parts.v[i];
    if (p->id >= 0) rc = nm__ids_push(w->core.out, p->id);
    else rc = h->model->run(h, w, w->text.s + p->at, p->n);
  }
  return rc;
}

static int push_all(struct nm__ids *out, const struct nm__ids *v) {
  int rc = NM_OK;
  for (size_t i = 0; i < v->n && !rc; i++) rc = nm__ids_push(out, v->id[i]);
  return rc;
}

int nm__hf_encode(const struct nm__tok *t, const char *s, size_t n, struct nm__tok_opts o,
                  struct nm__ids *out, nm_err *err) {
  struct nm__hf_work w;
  nm__hf_work_init(&w, t, n, err);
  w.core.out = out;
  int rc = o.no_bos ? NM_OK : push_all(out, &t->hf->before);
  if (!rc) rc = encode(t->hf, &w, s, n, o.parse_special);
  if (!rc && !o.no_bos) rc = push_all(out, &t->hf->after);
  nm__hf_work_done(&w);
  return rc;
}

/* ---- decoding ---------------------------------------------------------- */

static int gather(const struct nm__tok *t, struct nm__hf_work *w, const int32_t *id, size_t n,
                  bool special) {
  const struct nm__hf *h = t->hf;
  for (size_t i = 0; i < n; i++) {
    if (id[i] < 0 || id[i] >= t->n)
      return nm__fail(w->err, NM_EFORMAT, "%s: token id %d is out of range, the vocabulary has %d",
                      t->path, id[i], t->n);
    int32_t at = h->added_at[id[i]];
    const struct nm__hf_added *a = at >= 0 ? &h->added[at] : NULL;
    if (a && a->special && !special) continue;
    struct nm__span s = a ? a->text : t->piece[id[i]].raw;
    if (s.n == 0 && !a && t->piece[id[i]].type == NM__TOK_UNUSED) continue;
    if (nm__hf_parts_push(&w->parts, (struct nm__hf_part){w->text.len, s.n, -1, false}))
      return NM_EMEMORY;
    if (s.n) nm__buf_put(&w->text, nm__tok_bytes(t, s), s.n);
  }
  return w->text.failed ? NM_EMEMORY : NM_OK;
}

/* Bytes that all tokens together have, which is what the work grows with. */
static size_t bytes_of(const struct nm__tok *t, const int32_t *id, size_t n) {
  size_t all = n;
  for (size_t i = 0; i < n; i++)
    if (id[i] >= 0 && id[i] < t->n) all += t->piece[id[i]].raw.n;
  return all;
}

int nm__hf_decode(const struct nm__tok *t, const int32_t *id, size_t n, bool special,
                  struct nm__buf *out, nm_err *err) {
  struct nm__hf_work w;
  nm__hf_work_init(&w, t, bytes_of(t, id, n), err);
  int rc = gather(t, &w, id, n, special);
  if (!rc) rc = nm__hf_run_steps(&t->hf->decoder, &w);
  for (size_t i = 0; i < w.parts.n && !rc; i++) {
    if (i && t->hf->no_decoder) nm__buf_putc(out, ' ');
    if (w.parts.v[i].n) nm__buf_put(out, w.text.s + w.parts.v[i].at, w.parts.v[i].n);
  }
  nm__hf_work_done(&w);
  return rc ? rc : out->failed ? NM_EMEMORY : NM_OK;
}

const struct nm__tok_family nm__tok_hf = {.name = "hf", .open = nm__hf_open};
