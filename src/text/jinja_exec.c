/* jinja_exec.c - statements: scopes, loops, assignments, macros; and a whole rendering.
 *
 * Loops, macros, `with` and blocks that are captured have a scope of their own, so what is set
 * in them is gone behind them; `if` has none. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja_in.h"

enum flow { GO_ON, BREAK, CONTINUE };

static enum flow run(struct nm__j *j, const struct nm__jnode *body);

/* ---- scopes ---------------------------------------------------------- */

static struct nm__jscope *push_scope(struct nm__j *j, struct nm__jscope *up) {
  struct nm__jscope *had = j->scope, *s = nm__j_take(j, 1, sizeof *s);
  if (s) {
    s->up = up;
    j->scope = s;
  }
  return had;
}

void nm__j_set(struct nm__j *j, const char *name, struct nm__jv v) {
  for (struct nm__jvar *e = j->st ? NULL : j->scope->vars; e; e = e->next)
    if (nm__j_tick(j, 1) && !strcmp(e->name, name)) {
      e->v = v;
      return;
    }
  struct nm__jvar *e = nm__j_take(j, 1, sizeof *e);
  if (!e) return;
  *e = (struct nm__jvar){name, v, j->scope->vars};
  j->scope->vars = e;
}

/* ---- assignment ------------------------------------------------------ */

static void assign(struct nm__j *j, const struct nm__jnode *to, struct nm__jv v) {
  if (j->st) return;
  j->at = to;
  if (to->op == JE_NAME) {
    nm__j_set(j, to->name, v);
  } else if (to->op == JE_NSREF) {
    struct nm__jv ns = nm__j_lookup(j, to->a->name);
    if (ns.kind == NM__J_NS) nm__j_put_name(j, ns, to->name, v);
    else nm__j_fail(j, "cannot assign attribute on non-namespace object '%.60s'", to->a->name);
  } else {
    size_t n = 0, i = 0;
    for (const struct nm__jnode *e = to->a; e; e = e->next) n++;
    const struct nm__jlist *l = nm__j_iter(j, v);
    if (l && l->n != n)
      nm__j_fail(j, "%s values to unpack (expected %zu, got %zu)",
                 l->n < n ? "not enough" : "too many", n, l->n);
    for (const struct nm__jnode *e = to->a; e && !j->st; e = e->next) assign(j, e, l->v[i++]);
  }
}

/* Runs a body and gives what it prints as a string. */
static struct nm__jv capture(struct nm__j *j, const struct nm__jnode *body) {
  struct nm__jbuf b = {0}, *had = j->out;
  struct nm__jscope *scope = push_scope(j, j->scope);
  j->out = &b;
  run(j, body);
  j->out = had;
  j->scope = scope;
  return nm__jbuf_value(j, &b);
}

/* A chain of filters whose innermost value is `v`. */
static struct nm__jv through(struct nm__j *j, const struct nm__jnode *f, struct nm__jv v) {
  if (f->op != JE_FILTER) {
    j->at = f;
    if (f->op != JE_CONST) nm__j_fail(j, "only filters can follow here");
    return v;
  }
  struct nm__jargs a;
  if (nm__j_enter(j)) v = through(j, f->a, v);
  nm__j_eval_args(j, f, &a);
  j->at = f;
  v = nm__j_filter(j, f->name, v, &a);
  j->depth--;
  return v;
}

/* ---- loops ----------------------------------------------------------- */

/* The items a loop's `if` lets through. */
static struct nm__jlist *select_items(struct nm__j *j, const struct nm__jnode *n,
                                      struct nm__jlist *l) {
  struct nm__jv out = nm__j_list(j, NM__J_LIST);
  for (size_t i = 0; i < l->n && !j->st; i++) {
    struct nm__jscope *had = push_scope(j, j->scope);
    assign(j, n->a, l->v[i]);
    if (nm__j_true(nm__j_eval(j, n->c))) nm__j_push(j, out, l->v[i]);
    j->scope = had;
  }
  return j->st ? NULL : out.u.l;
}

/* The else body runs when no turn came to its end, as Jinja has it. */
static void for_loop(struct nm__j *j, const struct nm__jnode *n) {
  struct nm__jv over = nm__j_eval(j, n->b);
  j->at = n->b;
  struct nm__jlist *l = nm__j_iter(j, over);
  struct nm__jloop *loop = nm__j_take(j, 1, sizeof *loop);
  if (l && n->c) l = select_items(j, n, l);
  if (!l || !loop) return;
  *loop = (struct nm__jloop){.l = l};
  bool ended = false;
  for (size_t i = 0; i < l->n && nm__j_tick(j, 1); i++) {
    struct nm__jscope *had = push_scope(j, j->scope);
    loop->i = i;
    nm__j_set(j, "loop", (struct nm__jv){.kind = NM__J_LOOP, .u.loop = loop});
    assign(j, n->a, l->v[i]);
    enum flow flow = run(j, n->d->a);
    j->scope = had;
    if (flow == BREAK) break;
    if (flow == GO_ON) ended = true;
  }
  if (ended || j->st || !n->d->b) return;
  struct nm__jscope *had = push_scope(j, j->scope);
  run(j, n->d->b);
  j->scope = had;
}

/* ---- macros ---------------------------------------------------------- */

static struct nm__jv macro_value(struct nm__j *j, const struct nm__jnode *def) {
  struct nm__jmacro *m = nm__j_take(j, 1, sizeof *m);
  if (m) *m = (struct nm__jmacro){def, j->scope};
  return (struct nm__jv){.kind = NM__J_MACRO, .u.macro = m};
}

/* Arguments without a parameter go to varargs and kwargs where the body uses these names. */
static void bind_rest(struct nm__j *j, const struct nm__jnode *def, const struct nm__jargs *a,
                      size_t n_params, const bool *taken) {
  struct nm__jv rest = nm__j_list(j, NM__J_TUPLE), named = nm__j_dict(j, NM__J_DICT);
  for (size_t i = n_params; i < a->n && !j->st; i++) nm__j_push(j, rest, a->pos[i]);
  if (a->n > n_params && !(def->flags & JF_VARARGS))
    nm__j_fail(j, "macro '%.60s' takes not more than %zu argument(s)", def->name, n_params);
  for (size_t i = 0; i < a->n_kw && !j->st; i++) {
    if (taken[i]) continue;
    if (!strcmp(a->kw[i].name, "caller") && def->flags & JF_CALLER)
      nm__j_set(j, "caller", a->kw[i].v);
    else if (def->flags & JF_KWARGS)
      nm__j_put_name(j, named, a->kw[i].name, a->kw[i].v);
    else
      nm__j_fail(j, "macro '%.60s' takes no keyword argument '%.60s'", def->name, a->kw[i].name);
  }
  if (def->flags & JF_VARARGS) nm__j_set(j, "varargs", rest);
  if (def->flags & JF_KWARGS) nm__j_set(j, "kwargs", named);
}

static void bind_parameters(struct nm__j *j, const struct nm__jnode *def,
                            const struct nm__jargs *a) {
  size_t i = 0;
  bool *taken = nm__j_take(j, a->n_kw + 1, sizeof *taken);
  for (const struct nm__jnode *p = def->a; p && !j->st; p = p->next, i++) {
    struct nm__jv v = {0};
    if (i < a->n) v = a->pos[i];
    for (size_t k = 0; k < a->n_kw; k++) {
      if (strcmp(a->kw[k].name, p->name)) continue;
      if (v.kind) nm__j_fail(j, "macro '%.60s': '%.60s' is given twice", def->name, p->name);
      v = a->kw[k].v;
      taken[k] = true;
    }
    if (!v.kind && p->a) v = nm__j_eval(j, p->a);
    if (!v.kind) v = nm__j_undef(j, "parameter '%.100s' was not provided", p->name);
    nm__j_set(j, p->name, v);
  }
  if (!j->st) bind_rest(j, def, a, i, taken);
}

struct nm__jv nm__j_call_macro(struct nm__j *j, struct nm__jmacro *m, const struct nm__jargs *a) {
  struct nm__jbuf b = {0}, *out = j->out;
  const struct nm__jnode *at = j->at;
  struct nm__jscope *had = push_scope(j, m->scope);
  j->out = &b;
  if (m->def->flags & JF_CALLER)
    nm__j_set(j, "caller", nm__j_undef(j, "No caller defined"));
  bind_parameters(j, m->def, a);
  if (!j->st) run(j, m->def->b);
  j->out = out;
  j->scope = had;
  j->at = at;
  return nm__jbuf_value(j, &b);
}

static void call_block(struct nm__j *j, const struct nm__jnode *n) {
  struct nm__jargs a;
  struct nm__jv f = nm__j_eval(j, n->a->a), caller = macro_value(j, n->b);
  nm__j_eval_args(j, n->a, &a);
  struct nm__jkw *kw = nm__j_take(j, a.n_kw + 1, sizeof *kw);
  if (!kw) return;
  if (a.n_kw) memcpy(kw, a.kw, a.n_kw * sizeof *kw);
  kw[a.n_kw++] = (struct nm__jkw){"caller", caller};
  a.kw = kw;
  j->at = n;
  nm__j_show(j, j->out, nm__j_call(j, f, &a), false);
}

/* ---- statements ------------------------------------------------------ */

static void with(struct nm__j *j, const struct nm__jnode *n) {
  struct nm__jscope *had = push_scope(j, j->scope), *inner = j->scope;
  for (const struct nm__jnode *s = n->a; s && !j->st; s = s->next) {
    j->scope = had;                /* the values see what stood before */
    struct nm__jv v = nm__j_eval(j, s->b);
    j->scope = inner;
    assign(j, s->a, v);
  }
  run(j, n->b);
  j->scope = had;
}

static enum flow if_chain(struct nm__j *j, const struct nm__jnode *n) {
  for (; n && !j->st; n = n->c)
    if (!n->a || nm__j_true(nm__j_eval(j, n->a))) return j->st ? GO_ON : run(j, n->b);
  return GO_ON;
}

static enum flow statement(struct nm__j *j, const struct nm__jnode *n) {
  struct nm__jscope *had = j->scope;
  struct nm__jv v;
  switch (n->op) {
    case JS_TEXT: nm__jbuf_str(j, j->out, n->v.u.s); break;
    case JS_OUT:
      v = nm__j_eval(j, n->a);
      j->at = n->a;
      nm__j_show(j, j->out, v, false);
      break;
    case JS_FOR: for_loop(j, n); break;
    case JS_IF: return if_chain(j, n);
    case JS_SET: assign(j, n->a, nm__j_eval(j, n->b)); break;
    case JS_SET_BLOCK: assign(j, n->a, through(j, n->b, capture(j, n->c))); break;
    case JS_MACRO: nm__j_set(j, n->name, macro_value(j, n)); break;
    case JS_CALL: call_block(j, n); break;
    case JS_FILTER:
      v = through(j, n->a, capture(j, n->b));
      nm__j_show(j, j->out, v, false);
      break;
    case JS_WITH: with(j, n); break;
    case JS_SCOPE:
      push_scope(j, j->scope);
      run(j, n->a);
      j->scope = had;
      break;
    case JS_BREAK: return BREAK;
    default: return CONTINUE;
  }
  return GO_ON;
}

static enum flow run(struct nm__j *j, const struct nm__jnode *body) {
  enum flow flow = GO_ON;
  if (nm__j_enter(j))
    for (const struct nm__jnode *n = body; n && !j->st && flow == GO_ON; n = n->next) {
      j->at = n;
      if (nm__j_tick(j, 1)) flow = statement(j, n);
    }
  j->depth--;
  return flow;
}

void nm__j_exec(struct nm__j *j, const struct nm__jnode *body) { run(j, body); }

/* ---- a rendering ----------------------------------------------------- */

static void set_variables(struct nm__j *j) {
  const char *key;
  json_t *v;
  push_scope(j, NULL);
  if (j->o->vars) json_object_foreach((json_t *)(uintptr_t)j->o->vars, key, v) {
    struct nm__jv value = nm__j_from_json(j, v);
    nm__j_set(j, key, value);
  }
  for (int i = 0; i < j->o->n_texts; i++) {
    const struct nm__jinja_text *t = &j->o->texts[i];
    nm__j_set(j, t->name, nm__j_text(j, t->text, t->n, false));
  }
}

void nm__prompt_done(struct nm__prompt *p) {
  free(p->s);
  free(p->user);
  *p = (struct nm__prompt){0};
}

static int finish(struct nm__j *j, const struct nm__jbuf *b, struct nm__prompt *out) {
  if (j->st) return j->st;
  out->s = nm__alloc(b->n + 1, 1);
  out->user = nm__alloc(b->n + 1, 1);
  if (!out->s || !out->user) {
    nm__prompt_done(out);
    return nm__fail_memory(j->err, "a prompt", 2 * b->n);
  }
  if (b->n) {
    memcpy(out->s, b->s, b->n);
    memcpy(out->user, b->user, b->n);
  }
  out->n = b->n;
  return NM_OK;
}

/* About the bytes of the data, for the limit on memory. */
static size_t data_size(const json_t *vars) {
  return vars ? json_dumpb(vars, NULL, 0, JSON_COMPACT) : 0;
}

int nm__jinja_render(const struct nm__jinja *t, const struct nm__jinja_opts *o,
                     struct nm__prompt *out, nm_err *err) {
  struct nm__jbuf b = {0};
  struct nm__j j = {.t = t, .o = o, .err = err, .out = &b};
  *out = (struct nm__prompt){0};
  j.max_output = o->max_output ? o->max_output : (size_t)1 << 26;
  j.mem.max = o->max_memory ? o->max_memory : ((size_t)1 << 28) + 64 * data_size(o->vars);
  j.steps = o->max_steps ? o->max_steps : 50 * 1000 * 1000;
  set_variables(&j);
  if (!j.st) nm__j_exec(&j, t->body);
  int st = finish(&j, &b, out);
  nm__jmem_done(&j.mem);
  return st;
}
