/* jinja_ops.c - what Python's operators do to values: truth, equality, order, arithmetic,
 * membership, items and slices. The sentences of errors are Python's and Jinja's. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "text/jinja_in.h"

const char *nm__j_type(struct nm__jv v) {
  static const char *const name[] = {
      [NM__J_ABSENT] = "nothing", [NM__J_UNDEF] = "Undefined", [NM__J_NONE] = "NoneType",
      [NM__J_BOOL] = "bool",      [NM__J_INT] = "int",         [NM__J_FLOAT] = "float",
      [NM__J_STR] = "str",        [NM__J_LIST] = "list",       [NM__J_TUPLE] = "tuple",
      [NM__J_RANGE] = "range",    [NM__J_GEN] = "generator",   [NM__J_DICT] = "dict",
      [NM__J_NS] = "Namespace",   [NM__J_LOOP] = "LoopContext", [NM__J_FUNC] = "function",
      [NM__J_METHOD] = "method",  [NM__J_MACRO] = "Macro"};
  return v.kind == NM__J_VIEW ? v.u.l->view : name[v.kind];
}

bool nm__j_used_undef(struct nm__j *j, struct nm__jv v) {
  if (v.kind == NM__J_UNDEF) nm__j_fail(j, "%s", v.u.why);
  return v.kind == NM__J_UNDEF;
}

bool nm__j_true(struct nm__jv v) {
  switch (v.kind) {
    case NM__J_ABSENT: case NM__J_UNDEF: case NM__J_NONE: return false;
    case NM__J_BOOL: return v.u.b;
    case NM__J_INT: return v.u.i != 0;
    case NM__J_FLOAT: return v.u.f != 0;
    case NM__J_STR: return v.u.s->n != 0;
    case NM__J_LIST: case NM__J_TUPLE: case NM__J_RANGE: case NM__J_VIEW: return v.u.l->n != 0;
    case NM__J_DICT: return v.u.d->n != 0;
    default: return true;
  }
}

static bool numeric(struct nm__jv v) { return v.kind >= NM__J_BOOL && v.kind <= NM__J_FLOAT; }
static int64_t as_int(struct nm__jv v) { return v.kind == NM__J_BOOL ? v.u.b : v.u.i; }
static double as_double(struct nm__jv v) {
  return v.kind == NM__J_FLOAT ? v.u.f : (double)as_int(v);
}

/* ---- equality and order ---------------------------------------------- */

static bool equal_dicts(struct nm__j *j, const struct nm__jdict *a, const struct nm__jdict *b) {
  if (a->n != b->n) return false;
  for (size_t i = 0; i < a->n && !j->st; i++) {
    const struct nm__jv *other = nm__j_get(j, b, a->v[i].key);
    if (!other || !nm__j_equal(j, a->v[i].value, *other)) return false;
  }
  return true;
}

static bool equal_lists(struct nm__j *j, const struct nm__jlist *a, const struct nm__jlist *b) {
  if (a->n != b->n) return false;
  for (size_t i = 0; i < a->n && !j->st; i++)
    if (!nm__j_equal(j, a->v[i], b->v[i])) return false;
  return true;
}

bool nm__j_equal(struct nm__j *j, struct nm__jv a, struct nm__jv b) {
  if (numeric(a) && numeric(b))
    return a.kind != NM__J_FLOAT && b.kind != NM__J_FLOAT ? as_int(a) == as_int(b)
                                                          : as_double(a) == as_double(b);
  if (a.kind != b.kind) return false;
  bool same = false;
  switch (a.kind) {
    case NM__J_UNDEF: case NM__J_NONE: return true;
    case NM__J_STR:
      return a.u.s->n == b.u.s->n && nm__j_tick(j, a.u.s->n / 8) &&
             !memcmp(a.u.s->s, b.u.s->s, a.u.s->n);
    case NM__J_LIST: case NM__J_TUPLE: case NM__J_RANGE:
      if (nm__j_enter(j)) same = equal_lists(j, a.u.l, b.u.l);
      j->depth--;
      return same;
    case NM__J_DICT:
      if (nm__j_enter(j)) same = equal_dicts(j, a.u.d, b.u.d);
      j->depth--;
      return same;
    case NM__J_METHOD: return a.u.bound->m == b.u.bound->m && a.u.bound == b.u.bound;
    default: return a.u.l == b.u.l;                /* the same object */
  }
}

static int compare_lists(struct nm__j *j, const struct nm__jlist *a, const struct nm__jlist *b,
                         const char *op) {
  for (size_t i = 0; i < a->n && i < b->n && !j->st; i++)
    if (!nm__j_equal(j, a->v[i], b->v[i])) return nm__j_compare(j, a->v[i], b->v[i], op);
  return (a->n > b->n) - (a->n < b->n);
}

/* -1, 0, 1; 2: not comparable (NaN). `op` is for the message. */
int nm__j_compare(struct nm__j *j, struct nm__jv a, struct nm__jv b, const char *op) {
  int c = 2;
  if (!nm__j_enter(j)) {
    j->depth--;
    return c;
  }
  if (nm__j_used_undef(j, a) || nm__j_used_undef(j, b)) {
    c = 2;
  } else if (numeric(a) && numeric(b)) {
    if (a.kind != NM__J_FLOAT && b.kind != NM__J_FLOAT)
      c = (as_int(a) > as_int(b)) - (as_int(a) < as_int(b));
    else if (as_double(a) == as_double(a) && as_double(b) == as_double(b))
      c = (as_double(a) > as_double(b)) - (as_double(a) < as_double(b));
  } else if (a.kind == NM__J_STR && b.kind == NM__J_STR) {
    size_t n = a.u.s->n < b.u.s->n ? a.u.s->n : b.u.s->n;
    int m = n ? memcmp(a.u.s->s, b.u.s->s, n) : 0;
    nm__j_tick(j, n / 8);
    c = m ? (m > 0) - (m < 0) : (a.u.s->n > b.u.s->n) - (a.u.s->n < b.u.s->n);
  } else if (a.kind == b.kind && (a.kind == NM__J_LIST || a.kind == NM__J_TUPLE)) {
    c = compare_lists(j, a.u.l, b.u.l, op);
  } else {
    nm__j_fail(j, "'%s' not supported between instances of '%s' and '%s'", op, nm__j_type(a),
               nm__j_type(b));
  }
  j->depth--;
  return c;
}

bool nm__j_contains(struct nm__j *j, struct nm__jv in, struct nm__jv v) {
  if (in.kind == NM__J_STR) {
    if (nm__j_used_undef(j, v)) return false;
    if (v.kind != NM__J_STR) {
      nm__j_fail(j, "'in <string>' requires string as left operand, not %s", nm__j_type(v));
      return false;
    }
    nm__j_tick(j, in.u.s->n);
    return nm__j_find(in.u.s, v.u.s, 0) >= 0;
  }
  if (in.kind == NM__J_DICT) return nm__j_get(j, in.u.d, v) != NULL;
  if (in.kind == NM__J_UNDEF) return false;
  if (!nm__j_is_seq(in)) {
    nm__j_fail(j, "argument of type '%s' is not iterable", nm__j_type(in));
    return false;
  }
  const struct nm__jlist *l = nm__j_iter(j, in);
  for (size_t i = 0; l && i < l->n && nm__j_tick(j, 1); i++)
    if (nm__j_equal(j, l->v[i], v)) return true;
  return false;
}

/* ---- arithmetic ------------------------------------------------------ */

static const char *op_name(int op, char out[2]) {
  switch (op) {
    case JO_POW: return "** or pow()";
    case JO_FLOORDIV: return "//";
    default: out[0] = (char)op; out[1] = 0; return out;
  }
}

static struct nm__jv too_big(struct nm__j *j) {
  nm__j_fail(j, "a number grows beyond 64 bits, which is outside of the subset");
  return nm__j_none();
}

static double floor_mod(double a, double b) {
  double r = fmod(a, b);
  if (r != 0 && (b < 0) != (r < 0)) r += b;
  return r == 0 ? copysign(0, b) : r;
}

/* Python's float //: exact, not merely floor(a / b). */
static double floor_div(double a, double b) {
  double q = (a - floor_mod(a, b)) / b;
  if (q == 0) return copysign(0, a / b);
  double f = floor(q);
  return q - f > 0.5 ? f + 1 : f;
}

static struct nm__jv int_power(struct nm__j *j, int64_t a, int64_t b, bool user) {
  int64_t r = 1;
  if (b < 0) {
    if (a == 0) nm__j_fail(j, "0.0 cannot be raised to a negative power");
    double base = (double)a, f = 1;
    for (int64_t i = b; i < 0 && f != 0 && nm__j_tick(j, 1); i++) f *= base;
    return nm__j_float(1 / f, user);
  }
  if (a == 0 || a == 1) return nm__j_int(b == 0 ? 1 : a, user);
  if (a == -1) return nm__j_int(b & 1 ? -1 : 1, user);
  for (; b > 0; b--)
    if (__builtin_mul_overflow(r, a, &r)) return too_big(j);
  return nm__j_int(r, user);
}

static struct nm__jv int_math(struct nm__j *j, int op, int64_t a, int64_t b, bool user) {
  int64_t r = 0;
  bool over = false;
  switch (op) {
    case '+': over = __builtin_add_overflow(a, b, &r); break;
    case '-': over = __builtin_sub_overflow(a, b, &r); break;
    case '*': over = __builtin_mul_overflow(a, b, &r); break;
    case JO_POW: return int_power(j, a, b, user);
    default:
      if (b == 0) {
        nm__j_fail(j, op == '/' ? "division by zero" : "integer division or modulo by zero");
        return nm__j_none();
      }
      if (op == '/') return nm__j_float((double)a / (double)b, user);
      if (b == -1) {
        over = op != '%' && __builtin_sub_overflow((int64_t)0, a, &r);
        break;
      }
      r = a % b;
      if (r != 0 && (r < 0) != (b < 0)) r += b;
      if (op == JO_FLOORDIV) r = (a - r) / b;
  }
  return over ? too_big(j) : nm__j_int(r, user);
}

static struct nm__jv float_math(struct nm__j *j, int op, double a, double b, bool user) {
  switch (op) {
    case '+': return nm__j_float(a + b, user);
    case '-': return nm__j_float(a - b, user);
    case '*': return nm__j_float(a * b, user);
    case JO_POW: nm__j_fail(j, "powers of floats are outside of the subset"); break;
    default:
      if (b == 0) nm__j_fail(j, op == '/' ? "float division by zero" : "float modulo by zero");
      else if (op == '/') return nm__j_float(a / b, user);
      else return nm__j_float(op == '%' ? floor_mod(a, b) : floor_div(a, b), user);
  }
  return nm__j_none();
}

static struct nm__jv repeat(struct nm__j *j, struct nm__jv v, int64_t n) {
  if (v.kind == NM__J_STR) {
    struct nm__jbuf b = {0};
    for (int64_t i = 0; i < n && v.u.s->n && nm__j_tick(j, 1); i++) nm__jbuf_str(j, &b, v.u.s);
    return nm__jbuf_value(j, &b);
  }
  struct nm__jv out = nm__j_list(j, v.kind);
  out.user = v.user;
  for (int64_t i = 0; i < n && v.u.l->n && !j->st; i++)
    for (size_t k = 0; k < v.u.l->n && !j->st; k++) nm__j_push(j, out, v.u.l->v[k]);
  return out;
}

static struct nm__jv join_lists(struct nm__j *j, struct nm__jv a, struct nm__jv b) {
  struct nm__jv out = nm__j_list(j, a.kind);
  out.user = a.user || b.user;
  for (size_t i = 0; i < a.u.l->n && !j->st; i++) nm__j_push(j, out, a.u.l->v[i]);
  for (size_t i = 0; i < b.u.l->n && !j->st; i++) nm__j_push(j, out, b.u.l->v[i]);
  return out;
}

static bool repeatable(struct nm__jv v) {
  return v.kind == NM__J_STR || v.kind == NM__J_LIST || v.kind == NM__J_TUPLE;
}
static bool whole(struct nm__jv v) { return v.kind == NM__J_INT || v.kind == NM__J_BOOL; }

struct nm__jv nm__j_math(struct nm__j *j, int op, struct nm__jv a, struct nm__jv b) {
  char name[2];
  if (j->st || nm__j_used_undef(j, a) || nm__j_used_undef(j, b)) return nm__j_none();
  if (numeric(a) && numeric(b)) {
    bool user = a.user || b.user;
    if (whole(a) && whole(b)) return int_math(j, op, as_int(a), as_int(b), user);
    return float_math(j, op, as_double(a), as_double(b), user);
  }
  if (op == '+' && a.kind == b.kind && repeatable(a)) {
    if (a.kind != NM__J_STR) return join_lists(j, a, b);
    struct nm__jbuf out = {0};
    nm__jbuf_str(j, &out, a.u.s);
    nm__jbuf_str(j, &out, b.u.s);
    return nm__jbuf_value(j, &out);
  }
  if (op == '*' && repeatable(a) && whole(b)) return repeat(j, a, as_int(b));
  if (op == '*' && whole(a) && repeatable(b)) return repeat(j, b, as_int(a));
  if (op == '%' && a.kind == NM__J_STR)
    nm__j_fail(j, "formatting a string with %% is outside of the subset");
  else if (op == '+' && a.kind == NM__J_STR)
    nm__j_fail(j, "can only concatenate str (not \"%s\") to str", nm__j_type(b));
  else
    nm__j_fail(j, "unsupported operand type(s) for %s: '%s' and '%s'", op_name(op, name),
               nm__j_type(a), nm__j_type(b));
  return nm__j_none();
}

/* ---- length and iteration -------------------------------------------- */

int64_t nm__j_len(struct nm__j *j, struct nm__jv v) {
  if (v.kind == NM__J_UNDEF) return 0;
  if (v.kind == NM__J_STR) return nm__j_points(v.u.s);
  if (v.kind == NM__J_DICT) return (int64_t)v.u.d->n;
  if (nm__j_is_seq(v) && v.kind != NM__J_GEN) return (int64_t)v.u.l->n;
  nm__j_fail(j, "object of type '%s' has no len()", nm__j_type(v));
  return 0;
}

static struct nm__jlist *characters(struct nm__j *j, struct nm__jstr *s) {
  struct nm__jv out = nm__j_list(j, NM__J_LIST);
  for (size_t i = 0, k; i < s->n && !j->st; i = k) {
    for (k = i + 1; k < s->n && ((unsigned char)s->s[k] & 0xC0) == 0x80;) k++;
    nm__j_push(j, out, nm__j_cut(j, s, i, k - i));
  }
  return j->st ? NULL : out.u.l;
}

/* A generator's items: its filter runs now, at the place where it stands. */
static struct nm__jlist *walk(struct nm__j *j, struct nm__jlist *gen) {
  struct nm__jv out = nm__j_list(j, NM__J_LIST);
  struct nm__jlazy *lazy = gen->lazy;
  if (j->st || gen->used) return j->st ? NULL : out.u.l;
  gen->used = true;
  if (!lazy) {
    *out.u.l = *gen;
    return out.u.l;
  }
  const struct nm__jnode *at = j->at;
  j->at = lazy->at;
  if (nm__j_enter(j)) out = lazy->f->fn(j, lazy->v, &lazy->a);
  j->depth--;
  if (!j->st) j->at = at;
  return j->st ? NULL : out.u.l;
}

struct nm__jlist *nm__j_iter(struct nm__j *j, struct nm__jv v) {
  struct nm__jv out;
  if (j->st) return NULL;
  switch (v.kind) {
    case NM__J_STR: return characters(j, v.u.s);
    case NM__J_DICT: case NM__J_UNDEF:
      out = nm__j_list(j, NM__J_LIST);
      for (size_t i = 0; v.kind == NM__J_DICT && i < v.u.d->n && !j->st; i++)
        nm__j_push(j, out, v.u.d->v[i].key);
      return j->st ? NULL : out.u.l;
    case NM__J_GEN: return walk(j, v.u.l);
    case NM__J_LIST: case NM__J_TUPLE: case NM__J_RANGE: case NM__J_VIEW: return v.u.l;
    default:
      nm__j_fail(j, "'%s' object is not iterable", nm__j_type(v));
      return NULL;
  }
}

bool nm__j_want_int(struct nm__j *j, struct nm__jv v, const char *what, int64_t *out) {
  *out = 0;
  if (j->st || nm__j_used_undef(j, v)) return false;
  if (!whole(v)) nm__j_fail(j, "%s must be an integer, not '%s'", what, nm__j_type(v));
  else *out = as_int(v);
  return !j->st;
}
