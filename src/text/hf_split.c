/* hf_split.c - the pre-tokenizers of a tokenizer.json.
 *
 * Each goes over the parts of the text so far and puts smaller ones in their place; parts
 * that are tokens already stay. Some write the text anew as they go (bytes become their
 * characters, spaces become U+2581). A part never stays empty. */
#include <string.h>
#include <utf8proc.h>

#include "text/hf.h"

/* ---- behaviours -------------------------------------------------------- */

static const char *const behaviors[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};

static int read_behavior(struct nm__hf_reader *r, const json_t *o, bool must,
                         struct nm__hf_step *s) {
  struct nm__str name = {0};
  int rc = nm__hf_text(r, o, "behavior", must, &name);
  if (rc || !name.s) return rc;
  for (int i = 0; i < 5; i++)
    if (strlen(behaviors[i]) == name.n && memcmp(behaviors[i], name.s, name.n) == 0)
      return s->choice = i, NM_OK;
  char shown[64];
  return nm__hf_refuse(r, "behavior", "'%s' is not supported",
                       nm__printable(shown, sizeof shown, name.s, name.n));
}

/* Matches that hang together become one; what is left is in w->kept. */
static int join(struct nm__hf_work *w, int behavior) {
  const struct nm__hf_match *m = w->matches.v;
  size_t n = w->matches.n;
  struct nm__hf_matches *k = &w->kept;
  bool before = false;
  k->n = 0;
  for (size_t i = 0; i < n; i++) {
    bool onto = behavior == NM__HF_CONTIGUOUS ? m[i].match == before
              : behavior == NM__HF_WITH_PREVIOUS ? m[i].match && !before : false;
    if (onto && k->n) k->v[k->n - 1].hi = m[i].hi;
    else if (nm__hf_matches_push(k, m[i].lo, m[i].hi, false)) return NM_EMEMORY;
    before = m[i].match;
  }
  return NM_OK;
}

/* From the right: of a run of matches the last one goes to what follows it. */
static int join_next(struct nm__hf_work *w) {
  const struct nm__hf_match *m = w->matches.v;
  struct nm__hf_matches *k = &w->kept;
  bool before = false;
  k->n = 0;
  for (size_t i = w->matches.n; i-- > 0;) {
    if (m[i].match && !before && k->n) k->v[k->n - 1].lo = m[i].lo;
    else if (nm__hf_matches_push(k, m[i].lo, m[i].hi, false)) return NM_EMEMORY;
    before = m[i].match;
  }
  for (size_t i = 0; i < k->n / 2; i++) {
    struct nm__hf_match t = k->v[i];
    k->v[i] = k->v[k->n - 1 - i];
    k->v[k->n - 1 - i] = t;
  }
  return NM_OK;
}

/* w->matches covers a part: what the behaviour leaves of it is in w->kept, with `match` for
 * what goes away. */
static int apply(struct nm__hf_work *w, int behavior, bool invert) {
  struct nm__hf_matches *m = &w->matches;
  for (size_t i = 0; invert && i < m->n; i++) m->v[i].match = !m->v[i].match;
  if (behavior == NM__HF_WITH_NEXT) return join_next(w);
  if (behavior != NM__HF_REMOVED) return join(w, behavior);
  w->kept.n = 0;
  for (size_t i = 0; i < m->n; i++)
    if (nm__hf_matches_push(&w->kept, m->v[i].lo, m->v[i].hi, m->v[i].match)) return NM_EMEMORY;
  return NM_OK;
}

/* ---- over the parts ---------------------------------------------------- */

static void begin(struct nm__hf_work *w) { w->made.n = 0; }

static void end(struct nm__hf_work *w) {
  struct nm__hf_parts p = w->parts;
  w->parts = w->made;
  w->made = p;
}

/* The pieces of one part, which now lies at `at`, from w->kept. */
static int put_kept(struct nm__hf_work *w, const struct nm__hf_part *part, size_t at) {
  for (size_t i = 0; i < w->kept.n; i++) {
    const struct nm__hf_match *k = &w->kept.v[i];
    if (k->match || k->hi == k->lo) continue;
    struct nm__hf_part p = {at + k->lo, k->hi - k->lo, -1, part->first && k->lo == 0};
    if (nm__hf_parts_push(&w->made, p)) return NM_EMEMORY;
  }
  return NM_OK;
}

typedef bool is_fn(const struct nm__hf_step *s, uint32_t c);

/* Every character that `is` is a match of its own. */
static int find_chars(const struct nm__hf_step *s, struct nm__hf_work *w, is_fn *is, const char *t,
                      size_t n) {
  size_t done = 0;
  w->matches.n = 0;
  for (size_t i = 0, len; i < n; i += len) {
    uint32_t c;
    len = (size_t)nm__hf_next(t + i, n - i, &c);
    if (!is(s, c)) continue;
    if (done < i && nm__hf_matches_push(&w->matches, done, i, false)) return NM_EMEMORY;
    if (nm__hf_matches_push(&w->matches, i, i + len, true)) return NM_EMEMORY;
    done = i + len;
  }
  return done < n ? nm__hf_matches_push(&w->matches, done, n, false) : NM_OK;
}

/* Splits every part by a pattern (is NULL) or by characters. */
static int split(const struct nm__hf_step *s, struct nm__hf_work *w, is_fn *is, int behavior,
                 bool invert) {
  int rc = NM_OK;
  begin(w);
  for (size_t i = 0; i < w->parts.n && !rc; i++) {
    const struct nm__hf_part *p = &w->parts.v[i];
    if (p->id >= 0) {
      rc = nm__hf_parts_push(&w->made, *p);
      continue;
    }
    const char *t = w->text.s + p->at;
    rc = is ? find_chars(s, w, is, t, p->n) : nm__hf_regex_find(s->re, w, t, p->n);
    if (!rc) rc = apply(w, behavior, invert);
    if (!rc) rc = put_kept(w, p, p->at);
  }
  end(w);
  return rc;
}

/* ---- kinds of characters ------------------------------------------------ */

static bool is_space(const struct nm__hf_step *s, uint32_t c) {
  (void)s;
  return nm__hf_is_space(c);
}
static bool is_punct(const struct nm__hf_step *s, uint32_t c) {
  (void)s;
  return nm__hf_is_punct(c);
}
static bool is_number(const struct nm__hf_step *s, uint32_t c) {
  (void)s;
  if (c < 0x80) return c >= '0' && c <= '9';
  utf8proc_category_t cat = utf8proc_category((utf8proc_int32_t)c);
  return cat >= UTF8PROC_CATEGORY_ND && cat <= UTF8PROC_CATEGORY_NO;
}
static bool is_given(const struct nm__hf_step *s, uint32_t c) { return c == (uint32_t)s->start; }

static int run_bert(const struct nm__hf_step *s, struct nm__hf_work *w) {
  int rc = split(s, w, is_space, NM__HF_REMOVED, false);
  return rc ? rc : split(s, w, is_punct, NM__HF_ISOLATED, false);
}

static int run_whitespace_split(const struct nm__hf_step *s, struct nm__hf_work *w) {
  return split(s, w, is_space, NM__HF_REMOVED, false);
}

static int read_punctuation(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  s->choice = NM__HF_ISOLATED;
  return read_behavior(r, o, false, s);
}

static int run_punctuation(const struct nm__hf_step *s, struct nm__hf_work *w) {
  return split(s, w, is_punct, s->choice, false);
}

static int read_digits(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  return nm__hf_bool(r, o, "individual_digits", true, &s->flag[0]);
}

static int run_digits(const struct nm__hf_step *s, struct nm__hf_work *w) {
  return split(s, w, is_number, s->flag[0] ? NM__HF_ISOLATED : NM__HF_CONTIGUOUS, false);
}

/* One character, kept as its code point in s->start. */
static int read_char(struct nm__hf_reader *r, const json_t *o, const char *name,
                     struct nm__hf_step *s) {
  struct nm__str text = {0};
  uint32_t c = 0;
  int rc = nm__hf_text(r, o, name, true, &text);
  if (rc) return rc;
  if (text.n == 0 || (size_t)nm__hf_next(text.s, text.n, &c) != text.n)
    return nm__hf_refuse(r, name, "must be one character");
  s->start = c;
  return nm__hf_keep_text(r, s, text);
}

static int read_delimiter(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  return read_char(r, o, "delimiter", s);
}

static int run_delimiter(const struct nm__hf_step *s, struct nm__hf_work *w) {
  return split(s, w, is_given, NM__HF_REMOVED, false);
}

static int read_fixed(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  s->start = 5;
  int rc = nm__hf_count(r, o, "length", false, &s->start);
  return rc || s->start ? rc : nm__hf_refuse(r, "length", "must not be 0");
}

static int run_fixed(const struct nm__hf_step *s, struct nm__hf_work *w) {
  int rc = NM_OK;
  begin(w);
  for (size_t i = 0; i < w->parts.n && !rc; i++) {
    const struct nm__hf_part *p = &w->parts.v[i];
    size_t at = 0, lo = 0;
    int64_t count = 0;
    w->kept.n = 0;
    while (p->id < 0 && at < p->n && !rc) {
      uint32_t c;
      at += (size_t)nm__hf_next(w->text.s + p->at + at, p->n - at, &c);
      if (++count < s->start && at < p->n) continue;
      rc = nm__hf_matches_push(&w->kept, lo, at, false);
      lo = at;
      count = 0;
    }
    if (!rc) rc = p->id < 0 ? put_kept(w, p, p->at) : nm__hf_parts_push(&w->made, *p);
  }
  end(w);
  return rc;
}

/* ---- patterns ---------------------------------------------------------- */

static int read_split(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  int rc = nm__hf_read_pattern(r, o, s);
  if (!rc) rc = nm__hf_bool(r, o, "invert", true, &s->flag[0]);
  return rc ? rc : read_behavior(r, o, true, s);
}

static int run_split(const struct nm__hf_step *s, struct nm__hf_work *w) {
  return split(s, w, NULL, s->choice, s->flag[0]);
}

static int own_pattern(struct nm__hf_reader *r, struct nm__hf_step *s, const char *pattern) {
  nm_err why = {0};
  int rc = nm__hf_regex_new(pattern, strlen(pattern), false, &s->re, &why);
  return rc ? nm__hf_refuse(r, "", "%s", why.text) : NM_OK;
}

/* Words and runs of other visible characters; joiners belong to words. */
static int read_whitespace(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  (void)o;
  return own_pattern(r, s, "[\\w\\x{200C}\\x{200D}]+|[^\\w\\x{200C}\\x{200D}\\s]+");
}

static int run_whitespace(const struct nm__hf_step *s, struct nm__hf_work *w) {
  return split(s, w, NULL, NM__HF_REMOVED, true);
}

/* ---- those that write the text anew ------------------------------------ */

enum { PREFIX, USE_REGEX };

static int read_byte_level(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  bool trim = false;               /* of offsets, which ids do not depend on */
  s->flag[USE_REGEX] = true;
  int rc = nm__hf_bool(r, o, "add_prefix_space", true, &s->flag[PREFIX]);
  if (!rc) rc = nm__hf_bool(r, o, "trim_offsets", false, &trim);
  if (!rc) rc = nm__hf_bool(r, o, "use_regex", false, &s->flag[USE_REGEX]);
  if (rc || !s->flag[USE_REGEX]) return rc;
  return own_pattern(r, s, "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"
                           "\\s+(?!\\S)|\\s+");
}

static int byte_level_part(const struct nm__hf_step *s, struct nm__hf_work *w,
                           const struct nm__hf_part *p) {
  const char *t = w->text.s + p->at;
  size_t n = p->n;
  struct nm__buf *tmp = &w->core.text;
  if (s->flag[PREFIX] && *t != ' ') {
    nm__buf_reset(tmp);
    nm__buf_putc(tmp, ' ');
    nm__buf_put(tmp, t, n);
    if (tmp->failed) return NM_EMEMORY;
    t = tmp->s;
    n = tmp->len;
  }
  int rc = NM_OK;
  w->matches.n = 0;
  if (s->re) rc = nm__hf_regex_find(s->re, w, t, n);
  else rc = nm__hf_matches_push(&w->matches, 0, n, true);
  for (size_t i = 0; i < w->matches.n && !rc; i++) {
    const struct nm__hf_match *m = &w->matches.v[i];
    struct nm__hf_part made = {w->next.len, 0, -1, p->first && m->lo == 0};
    nm__hf_put_bytes(w, &w->next, t + m->lo, m->hi - m->lo);
    made.n = w->next.len - made.at;
    if (made.n) rc = nm__hf_parts_push(&w->made, made);
  }
  return rc;
}

typedef int part_fn(const struct nm__hf_step *s, struct nm__hf_work *w,
                    const struct nm__hf_part *p);

static int rewrite(const struct nm__hf_step *s, struct nm__hf_work *w, part_fn *fn) {
  int rc = NM_OK;
  begin(w);
  nm__buf_reset(&w->next);
  for (size_t i = 0; i < w->parts.n && !rc; i++) {
    const struct nm__hf_part *p = &w->parts.v[i];
    rc = p->id >= 0 ? nm__hf_parts_push(&w->made, *p) : fn(s, w, p);
  }
  end(w);
  if (w->next.failed) rc = NM_EMEMORY;
  struct nm__buf b = w->text;
  w->text = w->next;
  w->next = b;
  return rc;
}

static int run_byte_level(const struct nm__hf_step *s, struct nm__hf_work *w) {
  return rewrite(s, w, byte_level_part);
}

static int read_metaspace(struct nm__hf_reader *r, const json_t *o, struct nm__hf_step *s) {
  static const char *const schemes[] = {"always", "first", "never"};
  struct nm__str scheme = {"always", 6};
  bool prefix = true;
  s->flag[0] = true;
  int rc = read_char(r, o, "replacement", s);
  if (!rc) rc = nm__hf_bool(r, o, "add_prefix_space", false, &prefix);
  if (!rc) rc = nm__hf_text(r, o, "prepend_scheme", false, &scheme);
  if (!rc) rc = nm__hf_bool(r, o, "split", false, &s->flag[0]);
  if (rc) return rc;
  s->choice = -1;
  for (int i = 0; i < 3; i++)
    if (strlen(schemes[i]) == scheme.n && memcmp(schemes[i], scheme.s, scheme.n) == 0)
      s->choice = i;
  char shown[64];
  if (s->choice < 0)
    return nm__hf_refuse(r, "prepend_scheme", "'%s' is not supported",
                         nm__printable(shown, sizeof shown, scheme.s, scheme.n));
  if (!prefix) s->choice = NM__HF_NEVER;       /* as older files say it */
  return NM_OK;
}

static int metaspace_part(const struct nm__hf_step *s, struct nm__hf_work *w,
                          const struct nm__hf_part *p) {
  const char *t = w->text.s + p->at;
  size_t at = w->next.len;
  bool begins = *t == ' ' || (p->n >= s->n && memcmp(t, s->s, s->n) == 0);
  bool wanted = s->choice == NM__HF_ALWAYS || (s->choice == NM__HF_FIRST && p->first);
  if (wanted && !begins) nm__buf_put(&w->next, s->s, s->n);
  for (size_t i = 0; i < p->n;) {
    const char *space = memchr(t + i, ' ', p->n - i);
    size_t plain = space ? (size_t)(space - t) - i : p->n - i;
    nm__buf_put(&w->next, t + i, plain);
    if (space) nm__buf_put(&w->next, s->s, s->n);
    i += plain + (space != NULL);
  }
  if (w->next.failed) return NM_EMEMORY;
  size_t n = w->next.len - at;
  w->matches.n = 0;
  int rc = s->flag[0] ? find_chars(s, w, is_given, w->next.s + at, n)
                      : nm__hf_matches_push(&w->matches, 0, n, false);
  if (!rc) rc = apply(w, NM__HF_WITH_NEXT, false);
  return rc ? rc : put_kept(w, p, at);
}

static int run_metaspace(const struct nm__hf_step *s, struct nm__hf_work *w) {
  return rewrite(s, w, metaspace_part);
}

static const struct nm__hf_kind kinds[] = {
  {"BertPreTokenizer", "", NULL, run_bert},
  {"ByteLevel", "add_prefix_space trim_offsets use_regex", read_byte_level, run_byte_level},
  {"CharDelimiterSplit", "delimiter", read_delimiter, run_delimiter},
  {"Digits", "individual_digits", read_digits, run_digits},
  {"FixedLength", "length", read_fixed, run_fixed},
  {"Metaspace", "replacement add_prefix_space prepend_scheme split str_rep", read_metaspace,
   run_metaspace},
  {"Punctuation", "behavior", read_punctuation, run_punctuation},
  {"Split", "pattern behavior invert", read_split, run_split},
  {"Whitespace", "", read_whitespace, run_whitespace},
  {"WhitespaceSplit", "", NULL, run_whitespace_split},
};
const struct nm__hf_table nm__hf_pre_tokenizers = {kinds, sizeof kinds / sizeof *kinds,
                                                   "pretokenizers"};
