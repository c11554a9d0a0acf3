/* jinja_eval.c - the value of an expression; calls, filters and tests by name. */
#include <string.h>

#include "text/jinja_in.h"

/* ---- names ----------------------------------------------------------- */

struct nm__jv nm__j_lookup(struct nm__j *j, const char *name) {
  for (const struct nm__jscope *s = j->scope; s; s = s->up)
    for (const struct nm__jvar *v = s->vars; v; v = v->next)
      if (nm__j_tick(j, 1) && !strcmp(v->name, name)) return v->v;
  for (const struct nm__jfunc *f = nm__j_funcs; f->name; f++)
    if (!strcmp(f->name, name)) return (struct nm__jv){.kind = NM__J_FUNC, .u.fn = f};
  return nm__j_undef(j, "'%.100s' is undefined", name);
}

/* ---- arguments ------------------------------------------------------- */

void nm__j_eval_args(struct nm__j *j, const struct nm__jnode *call, struct nm__jargs *a) {
  size_t n = 0, n_kw = 0;
  for (const struct nm__jnode *e = call->b; e; e = e->next) n++;
  for (const struct nm__jnode *e = call->c; e; e = e->next) n_kw++;
  *a = (struct nm__jargs){0};
  if (n + n_kw == 0) return;
  a->pos = nm__j_take(j, n + 1, sizeof *a->pos);
  a->kw = nm__j_take(j, n_kw + 1, sizeof *a->kw);
  if (j->st) return;
  for (const struct nm__jnode *e = call->b; e; e = e->next) a->pos[a->n++] = nm__j_eval(j, e);
  for (const struct nm__jnode *e = call->c; e; e = e->next) {
    for (size_t i = 0; i < a->n_kw; i++)
      if (!strcmp(a->kw[i].name, e->name))
        nm__j_fail(j, "argument '%.60s' is given twice", e->name);
    a->kw[a->n_kw++] = (struct nm__jkw){e->name, nm__j_eval(j, e->a)};
  }
}

/* Index of `name` in a comma list, or -1. */
static int place(const char *names, const char *name, int *n) {
  int found = -1;
  size_t len = strlen(name);
  *n = 0;
  for (const char *s = names; *s; (*n)++) {
    size_t k = strcspn(s, ",");
    if (k == len && !memcmp(s, name, k)) found = *n;
    s += k + (s[k] == ',');
  }
  return found;
}

bool nm__j_bind(struct nm__j *j, const char *what, const struct nm__jargs *a, const char *names,
                int min, struct nm__jv *out) {
  int n;
  if (j->st) return false;
  place(names, "", &n);
  for (int i = 0; i < n; i++) out[i] = i < (int)a->n ? a->pos[i] : (struct nm__jv){0};
  if (a->n > (size_t)n)
    nm__j_fail(j, "%s takes at most %d arguments, %zu are given", what, n, a->n);
  for (size_t i = 0; i < a->n_kw; i++) {
    int all, k = place(names, a->kw[i].name, &all);
    if (k < 0) nm__j_fail(j, "%s has no argument '%.60s'", what, a->kw[i].name);
    else if (out[k].kind) nm__j_fail(j, "%s: '%.60s' is given twice", what, a->kw[i].name);
    else out[k] = a->kw[i].v;
  }
  for (int i = 0; i < min; i++)
    if (out[i].kind == NM__J_ABSENT)
      nm__j_fail(j, "%s needs %d argument%s", what, min, min == 1 ? "" : "s");
  return !j->st;
}

/* ---- calls, filters, tests ------------------------------------------- */

struct nm__jv nm__j_call(struct nm__j *j, struct nm__jv f, const struct nm__jargs *a) {
  struct nm__jv v = nm__j_none();
  if (j->st || nm__j_used_undef(j, f)) return v;
  if (nm__j_enter(j)) switch (f.kind) {
    case NM__J_FUNC: v = f.u.fn->fn(j, a); break;
    case NM__J_MACRO: v = nm__j_call_macro(j, f.u.macro, a); break;
    case NM__J_METHOD:
      if (f.u.bound->m->fn) v = f.u.bound->m->fn(j, f.u.bound->self, a);
      else nm__j_fail(j, "the method '%s' of '%s' is outside of the subset (or changes its value)",
                      f.u.bound->m->name, nm__j_type(f.u.bound->self));
      break;
    default: nm__j_fail(j, "'%s' object is not callable", nm__j_type(f));
  }
  j->depth--;
  return v;
}

static struct nm__jv later(struct nm__j *j, const struct nm__jfilter *f, struct nm__jv v,
                           const struct nm__jargs *a) {
  struct nm__jv out = nm__j_list(j, NM__J_GEN);
  struct nm__jlazy *lazy = nm__j_take(j, 1, sizeof *lazy);
  if (!lazy) return out;
  *lazy = (struct nm__jlazy){f, v, *a, j->at};
  out.u.l->lazy = lazy;
  return out;
}

struct nm__jv nm__j_filter(struct nm__j *j, const char *name, struct nm__jv v,
                           const struct nm__jargs *a) {
  const struct nm__jfilter *const tables[] = {nm__j_text_filters, nm__j_list_filters};
  if (j->st) return nm__j_none();
  for (int t = 0; t < 2; t++)
    for (const struct nm__jfilter *f = tables[t]; f->name; f++)
      if (!strcmp(f->name, name)) return f->lazy ? later(j, f, v, a) : f->fn(j, v, a);
  nm__j_fail(j, "the filter '%.60s' is not in the subset of Jinja for chat", name);
  return nm__j_none();
}

bool nm__j_test(struct nm__j *j, const char *name, struct nm__jv v, const struct nm__jargs *a) {
  if (j->st) return false;
  for (const struct nm__jtest *t = nm__j_tests; t->name; t++) {
    if (strcmp(t->name, name)) continue;
    if (a->n != (size_t)t->n || a->n_kw) {
      nm__j_fail(j, "the test '%s' takes %d argument%s", name, t->n, t->n == 1 ? "" : "s");
      return false;
    }
    return t->fn(j, v, a->pos);
  }
  nm__j_fail(j, "the test '%.60s' is not in the subset of Jinja for chat", name);
  return false;
}

/* ---- expressions ----------------------------------------------------- */

static struct nm__jv eval_seq(struct nm__j *j, const struct nm__jnode *n) {
  struct nm__jv v = nm__j_list(j, n->op == JE_LIST ? NM__J_LIST : NM__J_TUPLE);
  for (const struct nm__jnode *e = n->a; e && !j->st; e = e->next)
    nm__j_push(j, v, nm__j_eval(j, e));
  return v;
}

static struct nm__jv eval_dict(struct nm__j *j, const struct nm__jnode *n) {
  struct nm__jv d = nm__j_dict(j, NM__J_DICT);
  for (const struct nm__jnode *e = n->a; e && !j->st; e = e->next) {
    struct nm__jv key = nm__j_eval(j, e->a), v = nm__j_eval(j, e->b);
    j->at = e;
    nm__j_put(j, d, key, v);
  }
  return d;
}

static bool holds(struct nm__j *j, int op, struct nm__jv a, struct nm__jv b) {
  int c;
  switch (op) {
    case JO_EQ: return nm__j_equal(j, a, b);
    case JO_NE: return !nm__j_equal(j, a, b);
    case JO_IN: return nm__j_contains(j, b, a);
    case JO_NOT_IN: return !nm__j_contains(j, b, a);
    case '<': return nm__j_compare(j, a, b, "<") == -1;
    case '>': return nm__j_compare(j, a, b, ">") == 1;
    case JO_LE: c = nm__j_compare(j, a, b, "<="); return c == -1 || c == 0;
    default: c = nm__j_compare(j, a, b, ">="); return c == 1 || c == 0;
  }
}

static struct nm__jv eval_cmp(struct nm__j *j, const struct nm__jnode *n) {
  struct nm__jv left = nm__j_eval(j, n->a);
  for (const struct nm__jnode *e = n->b; e && !j->st; e = e->next) {
    struct nm__jv right = nm__j_eval(j, e->a);
    j->at = e;
    if (j->st || !holds(j, e->sub, left, right)) return nm__j_bool(false);
    left = right;
  }
  return nm__j_bool(true);
}

static struct nm__jv eval_concat(struct nm__j *j, const struct nm__jnode *n) {
  struct nm__jbuf b = {0};
  for (const struct nm__jnode *e = n->a; e && !j->st; e = e->next) {
    struct nm__jv v = nm__j_eval(j, e);
    j->at = e;
    nm__j_show(j, &b, v, false);
  }
  return nm__jbuf_value(j, &b);
}

static struct nm__jv eval_sign(struct nm__j *j, const struct nm__jnode *n) {
  struct nm__jv v = nm__j_eval(j, n->a);
  j->at = n;
  if (j->st || nm__j_used_undef(j, v)) return nm__j_none();
  if (v.kind == NM__J_BOOL) v = nm__j_int(v.u.b, v.user);
  if (v.kind != NM__J_INT && v.kind != NM__J_FLOAT) {
    nm__j_fail(j, "bad operand type for unary %c: '%s'", n->op == JE_NEG ? '-' : '+',
               nm__j_type(v));
    return nm__j_none();
  }
  if (n->op == JE_POS) return v;
  if (v.kind == NM__J_FLOAT) return nm__j_float(-v.u.f, v.user);
  return nm__j_math(j, '-', nm__j_int(0, false), v);
}

static struct nm__jv eval_call(struct nm__j *j, const struct nm__jnode *n) {
  struct nm__jargs a;
  struct nm__jv v = nm__j_eval(j, n->a);
  nm__j_eval_args(j, n, &a);
  j->at = n;
  if (j->st) return nm__j_none();
  if (n->op == JE_CALL) return nm__j_call(j, v, &a);
  if (n->op == JE_FILTER) return nm__j_filter(j, n->name, v, &a);
  return nm__j_bool(nm__j_test(j, n->name, v, &a) != (n->sub != 0));
}

static struct nm__jv eval_slice(struct nm__j *j, const struct nm__jnode *n) {
  const struct nm__jnode *part[3] = {n->b, n->c, n->d};
  struct nm__jv at[3], v = nm__j_eval(j, n->a);
  for (int i = 0; i < 3; i++) at[i] = part[i] ? nm__j_eval(j, part[i]) : nm__j_none();
  j->at = n;
  return nm__j_slice(j, v, at);
}

static struct nm__jv eval_two(struct nm__j *j, const struct nm__jnode *n) {
  struct nm__jv a = nm__j_eval(j, n->a), b = nm__j_eval(j, n->b);
  j->at = n;
  return n->op == JE_ITEM ? nm__j_item(j, a, b) : nm__j_math(j, n->sub, a, b);
}

/* The branch is chosen; without an else the value is undefined. */
static struct nm__jv eval_cond(struct nm__j *j, const struct nm__jnode *n) {
  bool yes = nm__j_true(nm__j_eval(j, n->a));
  if (j->st) return nm__j_none();
  if (yes) return nm__j_eval(j, n->b);
  if (n->c) return nm__j_eval(j, n->c);
  return nm__j_undef(j, "the inline if of line %u has no else and its condition is false",
                     n->line);
}

struct nm__jv nm__j_eval(struct nm__j *j, const struct nm__jnode *n) {
  struct nm__jv v = nm__j_none();
  if (j->st) return v;
  if (n->op == JE_CONST) return n->v;
  j->at = n;
  if (nm__j_enter(j)) switch (n->op) {
    case JE_NAME: v = nm__j_lookup(j, n->name); break;
    case JE_LIST: case JE_TUPLE: v = eval_seq(j, n); break;
    case JE_DICT: v = eval_dict(j, n); break;
    case JE_ATTR:
      v = nm__j_eval(j, n->a);
      j->at = n;
      v = nm__j_attr(j, v, n->name);
      break;
    case JE_ITEM: case JE_BIN: v = eval_two(j, n); break;
    case JE_SLICE: v = eval_slice(j, n); break;
    case JE_CALL: case JE_FILTER: case JE_TEST: v = eval_call(j, n); break;
    case JE_NOT: v = nm__j_bool(!nm__j_true(nm__j_eval(j, n->a))); break;
    case JE_NEG: case JE_POS: v = eval_sign(j, n); break;
    case JE_AND: case JE_OR:
      v = nm__j_eval(j, n->a);
      if (nm__j_true(v) == (n->op == JE_AND)) v = nm__j_eval(j, n->b);
      break;
    case JE_CMP: v = eval_cmp(j, n); break;
    case JE_CONCAT: v = eval_concat(j, n); break;
    default: v = eval_cond(j, n);
  }
  j->depth--;
  return j->st ? nm__j_none() : v;
}
