/* special.c - cutting special tokens out of a text, longest first.
 *
 * All occurrences compete: a longer piece wins wherever it overlaps a shorter one, and
 * among equals the left one. Each position enters a heap with the longest piece that
 * stands there; when that piece loses to an accepted one, the position comes back with
 * the next shorter piece, found by a link and not by looking again. So the work is the
 * text times the length of a match, whatever the number of special pieces. */
#include <stdlib.h>
#include <string.h>

#include "text/tok.h"

/* ---- building -------------------------------------------------------- */

static int compare_bytes(const struct nm__special *a, const struct nm__special *b) {
  int c = memcmp(a->s, b->s, a->n < b->n ? a->n : b->n);
  return c ? c : (a->n > b->n) - (a->n < b->n);
}

static int compare_special(const void *x, const void *y) {
  const struct nm__special *a = x, *b = y;
  int c = compare_bytes(a, b);
  return c ? c : (a->id > b->id) - (a->id < b->id);
}

static bool wanted(const struct nm__piece *p, unsigned types) {
  return p->raw.n && types >> p->type & 1;
}

/* Of equal pieces only the one with the least id remains. */
static void drop_doubles(struct nm__specials *v) {
  size_t n = 0;
  for (size_t i = 0; i < v->n; i++)
    if (n == 0 || compare_bytes(&v->v[n - 1], &v->v[i])) v->v[n++] = v->v[i];
  v->n = n;
}

static bool is_prefix(const struct nm__special *p, const struct nm__special *of) {
  return p->n < of->n && memcmp(p->s, of->s, p->n) == 0;
}

/* In sorted order the prefixes of a piece are the piece before it, or that one's
 * prefix, and so on: the links themselves are the stack to climb. */
static void link_prefixes(struct nm__specials *v) {
  for (size_t i = 0; i < v->n; i++) {
    int32_t k = (int32_t)i - 1;
    while (k >= 0 && !is_prefix(&v->v[k], &v->v[i])) k = v->v[k].shorter;
    v->v[i].shorter = k;
  }
}

static void index_first(struct nm__specials *v) {
  size_t i = 0;
  for (int c = 0; c <= 256; c++) {
    while (i < v->n && (unsigned char)v->v[i].s[0] < c) i++;
    v->first[c] = (uint32_t)i;
  }
}

int nm__specials_new(const struct nm__tok *t, unsigned types, struct nm__specials *out) {
  *out = (struct nm__specials){0};
  for (int32_t i = 0; i < t->n; i++) out->n += wanted(&t->piece[i], types);
  if (out->n == 0) return NM_OK;
  out->v = nm__alloc(out->n, sizeof *out->v);
  if (!out->v) return NM_EMEMORY;
  size_t k = 0;
  for (int32_t i = 0; i < t->n; i++) {
    const struct nm__piece *p = &t->piece[i];
    if (!wanted(p, types)) continue;
    out->v[k++] = (struct nm__special){nm__tok_bytes(t, p->raw), p->raw.n, i, -1};
  }
  nm__specials_take(out->v, out->n, out);
  return NM_OK;
}

void nm__specials_take(struct nm__special *v, size_t n, struct nm__specials *out) {
  *out = (struct nm__specials){.v = v, .n = n};
  qsort(v, n, sizeof *v, compare_special);
  drop_doubles(out);
  link_prefixes(out);
  index_first(out);
}

void nm__specials_done(struct nm__specials *v) {
  free(v->v);
  *v = (struct nm__specials){0};
}

/* ---- matching -------------------------------------------------------- */

/* First of [lo, hi) whose byte at `depth` is c or more; all are longer than depth. */
static size_t lower(const struct nm__specials *v, size_t lo, size_t hi, size_t depth, int c) {
  while (lo < hi) {
    size_t mid = lo + (hi - lo) / 2;
    if ((unsigned char)v->v[mid].s[depth] < c) lo = mid + 1;
    else hi = mid;
  }
  return lo;
}

struct nm__descent nm__specials_at(const struct nm__specials *v, const char *s, size_t n) {
  if (n == 0) return (struct nm__descent){0};
  unsigned char c = (unsigned char)s[0];
  return (struct nm__descent){v, s, n, v->first[c], v->first[c + 1], 1};
}

/* A single piece is left: it fits as a whole or not at all. */
static int32_t last_one(struct nm__descent *d, size_t k) {
  const struct nm__special *p = &d->v->v[k];
  d->lo = d->hi;
  return p->n <= d->n && memcmp(p->s, d->s, p->n) == 0 ? (int32_t)k : -1;
}

/* [lo, hi) begin with the first `depth` bytes of the text; a piece of just these comes first. */
int32_t nm__specials_next(struct nm__descent *d) {
  while (d->lo < d->hi) {
    size_t k = d->lo;
    if (d->hi - k == 1) return last_one(d, k);
    bool whole = d->v->v[k].n == d->depth;
    d->lo += whole;
    if (d->depth == d->n) {
      d->hi = d->lo;
    } else if (d->lo < d->hi) {
      int c = (unsigned char)d->s[d->depth];
      d->lo = lower(d->v, d->lo, d->hi, d->depth, c);
      d->hi = lower(d->v, d->lo, d->hi, d->depth, c + 1);
      d->depth++;
    }
    if (whole) return (int32_t)k;
  }
  return -1;
}

/* Index of the longest piece the text begins with, or -1. */
static int32_t longest_at(const struct nm__specials *v, const char *s, size_t n) {
  struct nm__descent d = nm__specials_at(v, s, n);
  int32_t best = -1;
  for (int32_t k; (k = nm__specials_next(&d)) >= 0;) best = k;
  return best;
}

static struct nm__cand candidate(const struct nm__specials *v, uint32_t pos, int32_t k) {
  uint32_t len = v->v[k].n;
  return (struct nm__cand){.prio = UINT32_MAX - len, .pos = pos, .len = len, .id = k};
}

/* Whose bytes: with `user` NULL all are trusted. `open[k]` says that piece k may be made of any
 * bytes; the others need trusted ones only. */
struct marks { const uint8_t *user; const bool *open; };

/* The longest piece from k on down its shorter ones that may stand at `pos`, or -1. */
static int32_t allowed(const struct nm__specials *v, const struct marks *m, size_t pos, int32_t k) {
  for (; k >= 0 && m->user; k = v->v[k].shorter)
    if (m->open[k] || !memchr(m->user + pos, 1, v->v[k].n)) break;
  return k;
}

static int find_all(const struct nm__specials *v, const struct marks *m, const char *s, size_t n,
                    struct nm__heap *h) {
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)s[i];
    if (v->first[c] == v->first[c + 1]) continue;
    int32_t k = allowed(v, m, i, longest_at(v, s + i, n - i));
    if (k >= 0 && nm__heap_push(h, candidate(v, (uint32_t)i, k))) return NM_EMEMORY;
  }
  return NM_OK;
}

static int compare_cut(const void *x, const void *y) {
  const struct nm__cut *a = x, *b = y;
  return (a->at > b->at) - (a->at < b->at);
}

/* Accepted pieces are never shorter than the one in hand, so it overlaps one exactly
 * when its first or its last byte is taken. */
static int choose(const struct nm__specials *v, const struct marks *m, struct nm__heap *h,
                  uint8_t *taken, struct nm__cut *out, size_t *n_out) {
  struct nm__cand c;
  while (nm__heap_pop(h, &c)) {
    if (taken[c.pos]) continue;
    int32_t k = c.id;
    if (taken[c.pos + c.len - 1]) {
      k = allowed(v, m, c.pos, v->v[k].shorter);
      if (k >= 0 && nm__heap_push(h, candidate(v, c.pos, k))) return NM_EMEMORY;
      continue;
    }
    memset(taken + c.pos, 1, c.len);
    out[(*n_out)++] = (struct nm__cut){c.pos, c.len, v->v[k].id};
  }
  qsort(out, *n_out, sizeof *out, compare_cut);
  return NM_OK;
}

static int cut(const struct nm__specials *v, const struct marks *m, const char *s, size_t n,
               struct nm__cut **out, size_t *n_out) {
  *out = NULL;
  *n_out = 0;
  if (v->n == 0) return NM_OK;
  struct nm__heap h = {0};
  uint8_t *taken = NULL;
  int rc = find_all(v, m, s, n, &h);
  if (rc || h.n == 0) goto done;
  taken = nm__alloc(n, 1);
  *out = nm__alloc(h.n, sizeof **out);
  rc = taken && *out ? choose(v, m, &h, taken, *out, n_out) : NM_EMEMORY;
done:
  nm__heap_done(&h);
  free(taken);
  if (rc) {
    free(*out);
    *out = NULL;
    *n_out = 0;
  }
  return rc;
}

int nm__specials_cut(const struct nm__specials *v, const char *s, size_t n, struct nm__cut **out,
                     size_t *n_out) {
  return cut(v, &(struct marks){0}, s, n, out, n_out);
}

/* ---- trusted and foreign bytes --------------------------------------- */

static bool looks_like_markup(const struct nm__special *p) {
  char a = p->s[0], b = p->s[p->n - 1];
  return p->n > 2 && ((a == '<' && b == '>') || (a == '[' && b == ']'));
}

/* First the trusted bytes alone, which shows what the template uses as markup; then all. */
int nm__specials_cut_marked(const struct nm__tok *t, const char *s, const uint8_t *user, size_t n,
                            struct nm__cut **out, size_t *n_out) {
  const struct nm__specials *v = &t->special;
  *out = NULL;
  *n_out = 0;
  if (v->n == 0) return NM_OK;
  bool *open = nm__alloc(v->n, sizeof *open), *written = nm__alloc((size_t)t->n, sizeof *written);
  struct marks m = {user, open};
  int rc = open && written ? cut(v, &m, s, n, out, n_out) : NM_EMEMORY;
  for (size_t i = 0; i < *n_out; i++) written[(*out)[i].id] = true;
  for (size_t k = 0; k < v->n && !rc; k++) {
    const struct nm__special *p = &v->v[k];
    bool markup = looks_like_markup(p) && (p->s[1] == '|' || written[p->id]);
    open[k] = t->piece[p->id].type == NM__TOK_USER && !markup;
  }
  free(*out);
  *out = NULL;
  *n_out = 0;
  if (!rc) rc = cut(v, &m, s, n, out, n_out);
  free(open);
  free(written);
  return rc;
}
