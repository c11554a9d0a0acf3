/* pretok.c - the table of pre-tokenizers, and splitting by PCRE2.
 *
 * Unicode whitespace is spelled out, because PCRE2's \s also has U+180E. The patterns
 * are such that a match looks at each byte a bounded number of times; the limits on
 * matching are a second wall, sized by the text, against a pattern that does not keep
 * to that. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretok.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "text/unicode.h"

/* ---- patterns -------------------------------------------------------- */

#define WS "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}" \
           "\\x{205F}\\x{3000}"
#define S "[" WS "]"
#define OTHER "[^" WS "\\p{L}\\p{N}]"
#define CONTR "'s|'t|'re|'ve|'m|'ll|'d"
#define SPACES S "+(?=" S "|\\z)|" S "+"
#define TAIL S "*[\\r\\n]+|" SPACES
#define GPT2 CONTR "| ?\\p{L}+| ?\\p{N}+| ?" OTHER "+|" SPACES
#define MODERN(digits) "(?i:" CONTR ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits \
                       "| ?" OTHER "+[\\r\\n]*|" TAIL

/* Letters split where the case changes: "upper-ish" and "lower-ish" share what has no case. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(suffix) "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix \
                      "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" suffix
#define CASE_TAIL "| ?" OTHER "+[\\r\\n/]*|" TAIL

/* Letters of the scripts that have case, in the Unicode version DeepSeek used. */
#define BICAMERAL \
  "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}" \
  "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}" \
  "\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}" \
  "\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}" \
  "\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}" \
  "\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}" \
  "\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}" \
  "\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}" \
  "\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}" \
  "\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}" \
  "\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}" \
  "\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}" \
  "\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}" \
  "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}" \
  "\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}" \
  "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}" \
  "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"
#define WIDE_PUNCT "\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}"
#define CJK_HANGUL "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"
#define ASCII_PUNCT "[!-/:-@\\[-`{-~]"
#define BLOOM " ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"

enum { MAX_PATTERNS = 6 };
enum { WHOLE_FIRST = 1, ADD_BOS = 2 };

struct row {
  const char *names;               /* separated by spaces; "jina-*" is any name so beginning */
  int flags;
  const char *pattern[MAX_PATTERNS];
};

/* The first row is what an unknown name gets. */
static const struct row table[] = {
  {"default", 0, {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
  {"gpt-2 phi-2 roberta-bpe jina-* mpt olmo jais", 0, {GPT2}},
  {"llama-bpe llama3 llama-v3 pixtral falcon3", WHOLE_FIRST | ADD_BOS, {MODERN("\\p{N}{1,3}")}},
  {"dbrx smaug-bpe chatglm-bpe glm4", 0, {MODERN("\\p{N}{1,3}")}},
  {"qwen2 deepseek-r1-qwen stablelm2 megrez", 0, {MODERN("\\p{N}")}},
  {"starcoder refact command-r smollm codeshell exaone minerva-7b", 0, {"\\p{N}", GPT2}},
  {"falcon", 0, {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"}},
  /* A run of spaces that reaches the end is looked for only from where it begins. */
  {"deepseek-llm", 0, {"[\\r\\n]", S "?[" BICAMERAL "]+", S "?[!-/:-~" WIDE_PUNCT "]+",
                       "(?<!" S ")" S "++\\z", CJK_HANGUL, "\\p{N}+"}},
  {"deepseek-coder", 0, {"[\\r\\n]", S "?\\p{L}+", S "?\\p{P}+", CJK_HANGUL, "\\p{N}"}},
  {"deepseek-v3", 0, {"\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+",
                      ASCII_PUNCT "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
                      "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" TAIL}},
  {"tekken", WHOLE_FIRST | ADD_BOS, {CASED("") "|\\p{N}" CASE_TAIL}},
  {"gpt-4o llama4", 0, {CASED("(?i:" CONTR ")?") "|\\p{N}{1,3}" CASE_TAIL}},
  {"bloom poro-chat gpt3-finnish", 0, {BLOOM}},
  {"viking", 0, {BLOOM, "\\p{N}"}},
};

/* The names whose vocabularies the tests hold against recorded ids. */
static const char checked[] = "gpt-2 llama-bpe qwen2 deepseek-llm";

struct nm__pretok {
  bool known, checked;
  int flags, n;
  pcre2_code *code[MAX_PATTERNS];
};

/* ---- building -------------------------------------------------------- */

static bool matches(const char *entry, size_t len, const char *name, size_t n) {
  if (len && entry[len - 1] == '*') return n >= len - 1 && memcmp(entry, name, len - 1) == 0;
  return n == len && memcmp(entry, name, n) == 0;
}

static bool listed(const char *names, const char *name, size_t n) {
  while (*names) {
    size_t len = strcspn(names, " ");
    if (matches(names, len, name, n)) return true;
    names += len + (names[len] == ' ');
  }
  return false;
}

static const struct row *find_row(const char *name, size_t n) {
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (listed(table[i].names, name, n)) return &table[i];
  return NULL;
}

static int compile(const struct row *r, struct nm__pretok *p, nm_err *err) {
  for (int i = 0; i < MAX_PATTERNS && r->pattern[i]; i++) {
    int code;
    PCRE2_SIZE at;
    p->code[i] = pcre2_compile((PCRE2_SPTR)r->pattern[i], PCRE2_ZERO_TERMINATED,
                               PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &code, &at, NULL);
    if (!p->code[i])
      return nm__fail(err, NM_EFAIL, "pre-tokenizer pattern %d of '%s' does not compile: "
                      "PCRE2 error %d at %zu", i, r->names, code, (size_t)at);
    p->n = i + 1;
    /* Without the compiler of this machine the interpreter does the same, slower. */
    pcre2_jit_compile(p->code[i], PCRE2_JIT_COMPLETE);
  }
  return NM_OK;
}

int nm__pretok_new(const char *name, size_t n, struct nm__pretok **out, nm_err *err) {
  *out = NULL;
  struct nm__pretok *p = nm__alloc(1, sizeof *p);
  if (!p) return nm__fail_memory(err, "the pre-tokenizer", sizeof *p);
  const struct row *r = find_row(name, n);
  p->known = r != NULL;
  p->checked = listed(checked, name, n);
  if (!r) r = &table[0];
  p->flags = r->flags;
  int rc = compile(r, p, err);
  if (rc) {
    nm__pretok_free(p);
    return rc;
  }
  *out = p;
  return NM_OK;
}

void nm__pretok_free(struct nm__pretok *p) {
  if (!p) return;
  for (int i = 0; i < MAX_PATTERNS; i++) pcre2_code_free(p->code[i]);
  free(p);
}

bool nm__pretok_known(const struct nm__pretok *p) { return p->known; }
bool nm__pretok_checked(const struct nm__pretok *p) { return p->checked; }
bool nm__pretok_whole_first(const struct nm__pretok *p) { return p->flags & WHOLE_FIRST; }
bool nm__pretok_adds_bos(const struct nm__pretok *p) { return p->flags & ADD_BOS; }

/* ---- splitting ------------------------------------------------------- */

struct split {
  const struct nm__pretok *p;
  pcre2_match_context *ctx;
  pcre2_match_data *md[MAX_PATTERNS];
  nm__pretok_emit *emit;
  void *arg;
  nm_err *err;
};

/* Where the pattern next matches at or after `from`: 1, 0 for nowhere, or a status. */
static int next_match(struct split *sp, int level, const char *s, size_t n, size_t from,
                      size_t *lo, size_t *hi) {
  pcre2_match_data *md = sp->md[level];
  const pcre2_code *code = sp->p->code[level];
  uint32_t flags = PCRE2_NO_UTF_CHECK;
  int rc = pcre2_match(code, (PCRE2_SPTR)s, n, from, flags, md, sp->ctx);
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
    rc = pcre2_match(code, (PCRE2_SPTR)s, n, from, flags | PCRE2_NO_JIT, md, sp->ctx);
  if (rc == PCRE2_ERROR_NOMATCH) return 0;
  if (rc < 0)
    return nm__fail(sp->err, rc == PCRE2_ERROR_NOMEMORY ? NM_EMEMORY : NM_EFAIL,
                    "splitting %zu bytes of text into words: PCRE2 error %d", n, rc);
  *lo = pcre2_get_ovector_pointer(md)[0];
  *hi = pcre2_get_ovector_pointer(md)[1];
  return 1;
}

/* Applies pattern `level` and those after it to one piece of valid UTF-8. The depth of
 * the recursion is the number of patterns. */
static int split_piece(struct split *sp, int level, const char *s, size_t n) {
  if (n == 0) return NM_OK;
  if (level == sp->p->n) return sp->emit(sp->arg, s, n, sp->err);
  size_t at = 0, lo = 0, hi = 0;
  while (at < n) {
    int rc = next_match(sp, level, s, n, at, &lo, &hi);
    if (rc < 0) return rc;
    if (rc == 0 || hi == lo) lo = hi = n;      /* no pattern of the table matches nothing */
    rc = split_piece(sp, level + 1, s + at, lo - at);
    if (!rc) rc = split_piece(sp, level + 1, s + lo, hi - lo);
    if (rc) return rc;
    at = hi;
  }
  return NM_OK;
}

static int split_start(struct split *sp, size_t n) {
  sp->ctx = pcre2_match_context_create(NULL);
  bool ok = sp->ctx != NULL;
  for (int i = 0; i < sp->p->n; i++) {
    sp->md[i] = pcre2_match_data_create(1, NULL);
    ok = ok && sp->md[i];
  }
  if (!ok) return nm__fail_memory(sp->err, "splitting text", n);
  size_t steps = n < UINT32_MAX / 64 ? 100000 + 16 * n : UINT32_MAX;
  pcre2_set_match_limit(sp->ctx, (uint32_t)steps);
  pcre2_set_depth_limit(sp->ctx, 10000);
  pcre2_set_heap_limit(sp->ctx, 64 * 1024);    /* KiB */
  return NM_OK;
}

static void split_done(struct split *sp) {
  for (int i = 0; i < sp->p->n; i++) pcre2_match_data_free(sp->md[i]);
  pcre2_match_context_free(sp->ctx);
}

int nm__pretok_split(const struct nm__pretok *p, const char *s, size_t n, nm__pretok_emit *emit,
                     void *arg, nm_err *err) {
  struct split sp = {.p = p, .emit = emit, .arg = arg, .err = err};
  int rc = split_start(&sp, n);
  while (!rc && n) {
    size_t good = nm__utf8_valid(s, n);
    rc = good ? split_piece(&sp, 0, s, good) : emit(arg, s, 1, err);
    size_t step = good ? good : 1;
    s += step;
    n -= step;
  }
  split_done(&sp);
  return rc;
}
