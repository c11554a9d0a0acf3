/* jinja_expr.c - the parser of expressions, in Jinja's order of precedence:
 * if-else, or, and, not, comparison, + -, ~, * / // %, **, sign, then postfix and filters. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_in.h"
#include "text/unicode.h"

enum { MAX_DEPTH = 100 };

/* ---- tokens ---------------------------------------------------------- */

static const char *shown(const struct nm__jtok *t, char out[64]) {
  char text[40];
  nm__printable(text, sizeof text, t->s, t->n < 36 ? t->n : 36);
  switch (t->type) {
    case JT_END: return "the end of the template";
    case JT_DATA: return "text";
    case JT_STR: snprintf(out, 64, "the string '%s'", text); return out;
    default: snprintf(out, 64, "'%s'", text); return out;
  }
}

void nm__jp_fail(struct nm__jparse *p, const char *fmt, ...) {
  if (p->st) return;
  char what[300], found[64];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(what, sizeof what, fmt, ap);
  va_end(ap);
  p->st = nm__j_syntax(p->t, p->tok->line, p->tok->col, p->err, "%s; found %s", what,
                       shown(p->tok, found));
}

struct nm__jnode *nm__jp_node(struct nm__jparse *p, enum nm__jop op) {
  /* After a failure the tree is never used, so one node serves all. */
  struct nm__jnode *n = p->st ? NULL : nm__jmem_take(&p->t->mem, sizeof *n);
  if (!n) {
    if (!p->st) p->st = nm__fail_memory(p->err, "a template's tree", p->t->mem.total);
    return &p->spare;
  }
  n->op = (uint16_t)op;
  n->line = p->tok->line;
  n->col = p->tok->col;
  return n;
}

static void next(struct nm__jparse *p) {
  if (p->tok->type != JT_END) p->tok++;
}

bool nm__jp_is(const struct nm__jparse *p, int op) {
  return !p->st && p->tok->type == JT_OP && p->tok->op == op;
}

bool nm__jp_is_name(const struct nm__jparse *p, const char *name) {
  return !p->st && p->tok->type == JT_NAME && p->tok->n == strlen(name) &&
         !memcmp(p->tok->s, name, p->tok->n);
}

bool nm__jp_skip(struct nm__jparse *p, int op) {
  if (!nm__jp_is(p, op)) return false;
  next(p);
  return true;
}

bool nm__jp_skip_name(struct nm__jparse *p, const char *name) {
  if (!nm__jp_is_name(p, name)) return false;
  next(p);
  return true;
}

void nm__jp_expect(struct nm__jparse *p, int op) {
  if (!nm__jp_skip(p, op)) nm__jp_fail(p, "'%c' was expected", op);
}

void nm__jp_expect_name(struct nm__jparse *p, const char *name) {
  if (!nm__jp_skip_name(p, name)) nm__jp_fail(p, "'%s' was expected", name);
}

static char *keep(struct nm__jparse *p, const char *s, size_t n) {
  char *d = p->st ? NULL : nm__jmem_take(&p->t->mem, n + 1);
  if (d) memcpy(d, s, n);
  else if (!p->st) p->st = nm__fail_memory(p->err, "a template's names", n);
  return d;
}

const char *nm__jp_name(struct nm__jparse *p) {
  if (p->tok->type != JT_NAME) nm__jp_fail(p, "a name was expected");
  const char *s = p->st ? NULL : keep(p, p->tok->s, p->tok->n);
  if (s) next(p);
  return s ? s : "";
}

bool nm__jp_enter(struct nm__jparse *p) {
  if (p->depth++ > MAX_DEPTH) nm__jp_fail(p, "this is nested too deeply");
  return !p->st;
}

/* ---- literals -------------------------------------------------------- */

static int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 32;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* \x41, \u0041, \U00000041: `digits` of them at s; bytes read, 0: malformed. */
static size_t hex_escape(const char *s, size_t n, size_t digits, uint32_t *cp) {
  *cp = 0;
  for (size_t i = 0; i < digits; i++) {
    int h = i < n ? hex_value(s[i]) : -1;
    if (h < 0) return 0;
    *cp = *cp << 4 | (uint32_t)h;
  }
  return digits;
}

/* Writes what the escape at s (behind the backslash) means; bytes read, 0: malformed. */
static size_t escape(const char *s, size_t n, char *out, size_t *k) {
  static const char plain[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
  uint32_t cp = 0;
  size_t used;
  if (*s == '\n') return 1;
  for (size_t i = 0; plain[i]; i += 2)
    if (plain[i] == *s) return out[(*k)++] = plain[i + 1], 1;
  if (*s >= '0' && *s <= '7') {
    for (used = 0; used < 3 && used < n && s[used] >= '0' && s[used] <= '7'; used++)
      cp = cp * 8 + (uint32_t)(s[used] - '0');
  } else if (*s == 'x' || *s == 'u' || *s == 'U') {
    used = hex_escape(s + 1, n - 1, *s == 'x' ? 2 : *s == 'u' ? 4 : 8, &cp);
    if (!used++) return 0;
  } else if (*s == 'N') {
    return 0;
  } else {
    out[(*k)++] = '\\';            /* an unknown escape stays as it is written */
    out[(*k)++] = *s;
    return 1;
  }
  int len = nm__utf8_encode(cp, out + *k);
  *k += (size_t)len;
  return len ? used : 0;
}

/* One string token behind what `n` holds already. No escape grows: \7 is one byte of two. */
static void add_string(struct nm__jparse *p, struct nm__jnode *n) {
  const struct nm__jtok *t = p->tok;
  size_t had = n->v.u.s ? n->v.u.s->n : 0, k = had;
  struct nm__jstr *str = p->st ? NULL : nm__jmem_take(&p->t->mem, sizeof *str);
  char *s = nm__jmem_take(&p->t->mem, had + 2 * t->n + 8);
  uint8_t *user = nm__jmem_take(&p->t->mem, had + 2 * t->n + 8);
  if (!str || !s || !user) {
    if (!p->st) p->st = nm__fail_memory(p->err, "a template's strings", t->n);
    return;
  }
  if (had) memcpy(s, n->v.u.s->s, had);
  for (size_t i = 0; i < t->n;) {
    if (t->s[i] != '\\' || i + 1 == t->n) {
      s[k++] = t->s[i++];
      continue;
    }
    size_t used = escape(t->s + i + 1, t->n - i - 1, s, &k);
    if (!used) {
      nm__jp_fail(p, "the escape \\%c in this string cannot be read", t->s[i + 1]);
      return;
    }
    i += 1 + used;
  }
  *str = (struct nm__jstr){s, user, k, -1};
  n->v = (struct nm__jv){.kind = NM__J_STR, .u.s = str};
  next(p);
}

/* The token without underscores. */
static bool plain_number(const struct nm__jtok *t, char out[400]) {
  size_t k = 0;
  for (size_t i = 0; i < t->n; i++) {
    if (t->s[i] == '_') continue;
    if (k == 399) return false;
    out[k++] = t->s[i];
  }
  out[k] = 0;
  return true;
}

static void integer(struct nm__jparse *p, struct nm__jnode *n) {
  char s[400], *end = s;
  bool ok = plain_number(p->tok, s);
  int base = s[0] == '0' && (s[1] | 32) == 'x' ? 16 : s[0] == '0' && (s[1] | 32) == 'o' ? 8
             : s[0] == '0' && (s[1] | 32) == 'b' ? 2 : 10;
  errno = 0;
  long long v = ok ? strtoll(s + (base == 10 ? 0 : 2), &end, base) : 0;
  if (!ok || errno || *end || end == s + (base == 10 ? 0 : 2) ||
      (base == 10 && s[0] == '0' && s[strspn(s, "0")])) {
    nm__jp_fail(p, "an integer below 2^63 was expected");
    return;
  }
  n->v = nm__j_int(v, false);
  next(p);
}

static void real(struct nm__jparse *p, struct nm__jnode *n) {
  char s[400];
  if (!plain_number(p->tok, s)) {
    nm__jp_fail(p, "a shorter number was expected");
    return;
  }
  n->v = nm__j_float(strtod(s, NULL), false);
  next(p);
}

/* ---- primary --------------------------------------------------------- */

static void note_name(struct nm__jparse *p, const char *s) {
  if (!strcmp(s, "caller")) p->names |= JF_CALLER;
  if (!strcmp(s, "varargs")) p->names |= JF_VARARGS;
  if (!strcmp(s, "kwargs")) p->names |= JF_KWARGS;
}

static struct nm__jnode *name(struct nm__jparse *p) {
  struct nm__jnode *n = nm__jp_node(p, JE_CONST);
  const char *s = nm__jp_name(p);
  if (!strcmp(s, "true") || !strcmp(s, "True")) n->v = nm__j_bool(true);
  else if (!strcmp(s, "false") || !strcmp(s, "False")) n->v = nm__j_bool(false);
  else if (!strcmp(s, "none") || !strcmp(s, "None")) n->v = nm__j_none();
  else n->op = JE_NAME;
  n->name = s;
  if (n->op == JE_NAME) note_name(p, s);
  return n;
}

/* a: the elements. */
static struct nm__jnode *list(struct nm__jparse *p) {
  struct nm__jnode *n = nm__jp_node(p, JE_LIST), **tail = &n->a;
  next(p);
  while (!p->st && !nm__jp_is(p, ']')) {
    *tail = nm__jp_expr(p, true);
    tail = &(*tail)->next;
    if (!nm__jp_is(p, ']')) nm__jp_expect(p, ',');
  }
  nm__jp_expect(p, ']');
  return n;
}

/* a: pairs, each a node with a: key, b: value. */
static struct nm__jnode *dict(struct nm__jparse *p) {
  struct nm__jnode *n = nm__jp_node(p, JE_DICT), **tail = &n->a;
  next(p);
  while (!p->st && !nm__jp_is(p, '}')) {
    *tail = nm__jp_node(p, JE_TUPLE);
    (*tail)->a = nm__jp_expr(p, true);
    nm__jp_expect(p, ':');
    (*tail)->b = nm__jp_expr(p, true);
    tail = &(*tail)->next;
    if (!nm__jp_is(p, '}')) nm__jp_expect(p, ',');
  }
  nm__jp_expect(p, '}');
  return n;
}

struct nm__jnode *nm__jp_primary(struct nm__jparse *p) {
  struct nm__jnode *n;
  switch (p->tok->type) {
    case JT_NAME: return name(p);
    case JT_STR:
      n = nm__jp_node(p, JE_CONST);
      while (!p->st && p->tok->type == JT_STR) add_string(p, n);
      return n;
    case JT_INT:
      n = nm__jp_node(p, JE_CONST);
      integer(p, n);
      return n;
    case JT_FLOAT:
      n = nm__jp_node(p, JE_CONST);
      real(p, n);
      return n;
    default: break;
  }
  if (nm__jp_is(p, '[')) return list(p);
  if (nm__jp_is(p, '{')) return dict(p);
  if (nm__jp_skip(p, '(')) {
    if (nm__jp_is(p, ')')) n = nm__jp_node(p, JE_TUPLE);
    else n = nm__jp_tuple(p, true);
    nm__jp_expect(p, ')');
    return n;
  }
  nm__jp_fail(p, "an expression was expected");
  return nm__jp_node(p, JE_CONST);
}

/* ---- postfix --------------------------------------------------------- */

/* Fills b: positional, c: by name (nodes with name and a). */
void nm__jp_args(struct nm__jparse *p, struct nm__jnode *call) {
  struct nm__jnode **pos = &call->b, **kw = &call->c;
  nm__jp_expect(p, '(');
  while (!p->st && !nm__jp_is(p, ')')) {
    if (nm__jp_is(p, '*') || nm__jp_is(p, JO_POW)) {
      nm__jp_fail(p, "arguments by * and ** are outside of the subset");
    } else if (p->tok->type == JT_NAME && p->tok[1].type == JT_OP && p->tok[1].op == '=') {
      *kw = nm__jp_node(p, JE_NAME);
      (*kw)->name = nm__jp_name(p);
      next(p);
      (*kw)->a = nm__jp_expr(p, true);
      kw = &(*kw)->next;
    } else {
      if (call->c) nm__jp_fail(p, "an argument without a name stands behind one with a name");
      *pos = nm__jp_expr(p, true);
      pos = &(*pos)->next;
    }
    if (!nm__jp_is(p, ')')) nm__jp_expect(p, ',');
  }
  nm__jp_expect(p, ')');
}

/* a: the value; b: the key; or JE_SLICE with a: the value and b, c, d: from, to, step. */
static struct nm__jnode *subscript(struct nm__jparse *p, struct nm__jnode *of) {
  struct nm__jnode *n = nm__jp_node(p, JE_ITEM);
  n->a = of;
  next(p);
  if (!nm__jp_is(p, ':')) n->b = nm__jp_expr(p, true);
  if (nm__jp_skip(p, ':')) {
    n->op = JE_SLICE;
    if (!nm__jp_is(p, ':') && !nm__jp_is(p, ']')) n->c = nm__jp_expr(p, true);
    if (nm__jp_skip(p, ':') && !nm__jp_is(p, ']')) n->d = nm__jp_expr(p, true);
  }
  nm__jp_expect(p, ']');
  return n;
}

static struct nm__jnode *dot(struct nm__jparse *p, struct nm__jnode *of) {
  next(p);
  struct nm__jnode *n = nm__jp_node(p, JE_ATTR);
  n->a = of;
  if (p->tok->type == JT_INT) {
    n->op = JE_ITEM;
    n->b = nm__jp_primary(p);
  } else {
    n->name = nm__jp_name(p);
  }
  return n;
}

static struct nm__jnode *call(struct nm__jparse *p, struct nm__jnode *of) {
  struct nm__jnode *n = nm__jp_node(p, JE_CALL);
  n->a = of;
  nm__jp_args(p, n);
  return n;
}

struct nm__jnode *nm__jp_postfix(struct nm__jparse *p, struct nm__jnode *n) {
  while (!p->st) {
    if (nm__jp_is(p, '.')) n = dot(p, n);
    else if (nm__jp_is(p, '[')) n = subscript(p, n);
    else if (nm__jp_is(p, '(')) n = call(p, n);
    else break;
  }
  return n;
}

static bool starts_argument(const struct nm__jparse *p) {
  enum nm__jtype t = p->tok->type;
  if (t == JT_NAME)
    return !nm__jp_is_name(p, "else") && !nm__jp_is_name(p, "or") && !nm__jp_is_name(p, "and");
  return t == JT_STR || t == JT_INT || t == JT_FLOAT || nm__jp_is(p, '(') || nm__jp_is(p, '[') ||
         nm__jp_is(p, '{');
}

/* A filter's or a test's name, which may have dots in it. */
static const char *dotted(struct nm__jparse *p) {
  const struct nm__jtok *first = p->tok;
  const char *name = nm__jp_name(p);
  while (nm__jp_skip(p, '.')) {
    const struct nm__jtok *last = p->tok;
    nm__jp_name(p);
    const char *s = p->st ? NULL : keep(p, first->s, (size_t)(last->s + last->n - first->s));
    if (s) name = s;
  }
  return name;
}

/* name, a: the value, b, c: arguments; sub 1: negated. */
static struct nm__jnode *test(struct nm__jparse *p, struct nm__jnode *of) {
  struct nm__jnode *n = nm__jp_node(p, JE_TEST);
  n->a = of;
  n->sub = nm__jp_skip_name(p, "not");
  n->name = dotted(p);
  if (nm__jp_is(p, '(')) {
    nm__jp_args(p, n);
  } else if (starts_argument(p)) {
    if (nm__jp_is_name(p, "is")) nm__jp_fail(p, "tests with 'is' cannot be chained");
    n->b = nm__jp_postfix(p, nm__jp_primary(p));
  }
  return n;
}

struct nm__jnode *nm__jp_filters(struct nm__jparse *p, struct nm__jnode *n, bool first) {
  while (!p->st) {
    if (first || nm__jp_skip(p, '|')) {
      struct nm__jnode *f = nm__jp_node(p, JE_FILTER);
      f->a = n;
      f->name = dotted(p);
      if (nm__jp_is(p, '(')) nm__jp_args(p, f);
      n = f;
      first = false;
    } else if (nm__jp_skip_name(p, "is")) {
      n = test(p, n);
    } else if (nm__jp_is(p, '(')) {
      n = call(p, n);
    } else {
      break;
    }
  }
  return n;
}

/* ---- operators ------------------------------------------------------- */

static struct nm__jnode *unary(struct nm__jparse *p, bool filters) {
  struct nm__jnode *n;
  if (!nm__jp_enter(p)) return nm__jp_node(p, JE_CONST);
  if (nm__jp_is(p, '-') || nm__jp_is(p, '+')) {
    n = nm__jp_node(p, nm__jp_is(p, '-') ? JE_NEG : JE_POS);
    next(p);
    n->a = unary(p, false);
  } else {
    n = nm__jp_primary(p);
  }
  n = nm__jp_postfix(p, n);
  if (filters) n = nm__jp_filters(p, n, false);
  p->depth--;
  return n;
}

typedef struct nm__jnode *parse_fn(struct nm__jparse *p);

/* Operators of one level lean left: `ops` (ends with 0) join what `below` parses. */
static struct nm__jnode *lean_left(struct nm__jparse *p, const int *ops, parse_fn *below) {
  struct nm__jnode *left = below(p);
  for (int i = 0; ops[i] && !p->st;) {
    if (!nm__jp_is(p, ops[i])) {
      i++;
      continue;
    }
    struct nm__jnode *n = nm__jp_node(p, JE_BIN);
    n->sub = (uint16_t)ops[i];
    next(p);
    n->a = left;
    n->b = below(p);
    left = n;
    i = 0;
  }
  return left;
}

static struct nm__jnode *filtered(struct nm__jparse *p) { return unary(p, true); }

static struct nm__jnode *power(struct nm__jparse *p) {
  return lean_left(p, (const int[]){JO_POW, 0}, filtered);
}

static struct nm__jnode *product(struct nm__jparse *p) {
  return lean_left(p, (const int[]){'*', '/', JO_FLOORDIV, '%', 0}, power);
}

/* a: the parts. */
static struct nm__jnode *concat(struct nm__jparse *p) {
  struct nm__jnode *first = product(p);
  if (!nm__jp_is(p, '~')) return first;
  struct nm__jnode *n = nm__jp_node(p, JE_CONCAT), **tail = &first->next;
  n->a = first;
  while (nm__jp_skip(p, '~')) {
    *tail = product(p);
    tail = &(*tail)->next;
  }
  return n;
}

static struct nm__jnode *sum(struct nm__jparse *p) {
  return lean_left(p, (const int[]){'+', '-', 0}, concat);
}

static int comparison(struct nm__jparse *p) {
  static const int ops[] = {JO_EQ, JO_NE, '<', JO_LE, '>', JO_GE};
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
    if (nm__jp_skip(p, ops[i])) return ops[i];
  if (nm__jp_skip_name(p, "in")) return JO_IN;
  if (nm__jp_is_name(p, "not") && p->tok[1].type == JT_NAME && p->tok[1].n == 2 &&
      !memcmp(p->tok[1].s, "in", 2)) {
    next(p);
    next(p);
    return JO_NOT_IN;
  }
  return 0;
}

/* a: the first operand; b: the others, each a node with sub: operator, a: operand. */
static struct nm__jnode *compare(struct nm__jparse *p) {
  struct nm__jnode *first = sum(p), *n = NULL, **tail = NULL;
  for (;;) {
    const struct nm__jtok *at = p->tok;
    int op = comparison(p);
    if (!op || p->st) break;
    struct nm__jnode *right = nm__jp_node(p, JE_CMP);
    if (!n) {
      n = nm__jp_node(p, JE_CMP);
      n->line = at->line;
      n->col = at->col;
      n->a = first;
      tail = &n->b;
    }
    right->sub = (uint16_t)op;
    right->a = sum(p);
    *tail = right;
    tail = &right->next;
  }
  return n ? n : first;
}

static struct nm__jnode *negation(struct nm__jparse *p) {
  if (!nm__jp_is_name(p, "not")) return compare(p);
  struct nm__jnode *n = nm__jp_node(p, JE_NOT);
  if (!nm__jp_enter(p)) return n;
  next(p);
  n->a = negation(p);
  p->depth--;
  return n;
}

static struct nm__jnode *logic(struct nm__jparse *p, bool or) {
  struct nm__jnode *left = or ? logic(p, false) : negation(p);
  while (nm__jp_is_name(p, or ? "or" : "and")) {
    struct nm__jnode *n = nm__jp_node(p, or ? JE_OR : JE_AND);
    next(p);
    n->a = left;
    n->b = or ? logic(p, false) : negation(p);
    left = n;
  }
  return left;
}

/* b if a else c. */
struct nm__jnode *nm__jp_expr(struct nm__jparse *p, bool cond) {
  if (!nm__jp_enter(p)) return nm__jp_node(p, JE_CONST);
  struct nm__jnode *left = logic(p, true);
  while (cond && nm__jp_is_name(p, "if")) {
    struct nm__jnode *n = nm__jp_node(p, JE_COND);
    next(p);
    n->b = left;
    n->a = logic(p, true);
    if (nm__jp_skip_name(p, "else")) n->c = nm__jp_expr(p, true);
    left = n;
  }
  p->depth--;
  return left;
}

/* ---- tuples and targets ---------------------------------------------- */

static bool tuple_ends(const struct nm__jparse *p) {
  enum nm__jtype t = p->tok->type;
  return p->st || t == JT_VAR_END || t == JT_BLOCK_END || t == JT_END || nm__jp_is(p, ')');
}

struct nm__jnode *nm__jp_tuple(struct nm__jparse *p, bool cond) {
  struct nm__jnode *first = nm__jp_expr(p, cond);
  if (!nm__jp_is(p, ',')) return first;
  struct nm__jnode *n = nm__jp_node(p, JE_TUPLE), **tail = &first->next;
  n->a = first;
  while (nm__jp_skip(p, ',') && !tuple_ends(p)) {
    *tail = nm__jp_expr(p, cond);
    tail = &(*tail)->next;
  }
  return n;
}

static struct nm__jnode *target(struct nm__jparse *p, bool with_ns) {
  if (nm__jp_skip(p, '(')) {
    if (!nm__jp_enter(p)) return nm__jp_node(p, JE_CONST);
    struct nm__jnode *n = nm__jp_target(p, false);
    nm__jp_expect(p, ')');
    p->depth--;
    return n;
  }
  struct nm__jnode *n = p->tok->type == JT_NAME ? name(p) : nm__jp_node(p, JE_CONST);
  if (n->op != JE_NAME) nm__jp_fail(p, "a name to assign to was expected");
  if (with_ns && nm__jp_is(p, '.')) {
    struct nm__jnode *ns = dot(p, n);
    if (ns->op != JE_ATTR) nm__jp_fail(p, "an attribute's name was expected");
    ns->op = JE_NSREF;
    return ns;
  }
  return n;
}

/* JE_NAME, JE_NSREF (a: the namespace, name) or JE_TUPLE of targets. */
struct nm__jnode *nm__jp_target(struct nm__jparse *p, bool with_ns) {
  struct nm__jnode *first = target(p, with_ns);
  if (!nm__jp_is(p, ',')) return first;
  struct nm__jnode *n = nm__jp_node(p, JE_TUPLE), **tail = &first->next;
  n->a = first;
  while (nm__jp_skip(p, ',') && !tuple_ends(p) && !nm__jp_is_name(p, "in") &&
         !nm__jp_is(p, '=')) {
    *tail = target(p, with_ns);
    tail = &(*tail)->next;
  }
  return n;
}
