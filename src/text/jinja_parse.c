/* jinja_parse.c - the parser of statements, and a template's life. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja_in.h"

static struct nm__jnode *body(struct nm__jparse *p, const char *const *ends, const char **end);

static void end_block(struct nm__jparse *p) {
  if (p->st) return;
  if (p->tok->type == JT_BLOCK_END) p->tok++;
  else nm__jp_fail(p, "the end %%} of this tag was expected");
}

/* The statements up to {% END %}, which is read too. */
static struct nm__jnode *body_to(struct nm__jparse *p, const char *end) {
  const char *found;
  end_block(p);
  struct nm__jnode *n = body(p, (const char *const[]){end, NULL}, &found);
  end_block(p);
  return n;
}

/* ---- statements ------------------------------------------------------ */

/* a: target, b: iterable, c: condition, d: a node with a: body, b: the else body. */
static struct nm__jnode *for_loop(struct nm__jparse *p) {
  struct nm__jnode *n = nm__jp_node(p, JS_FOR), *both = nm__jp_node(p, JS_SCOPE);
  const char *end;
  n->a = nm__jp_target(p, false);
  nm__jp_expect_name(p, "in");
  n->b = nm__jp_tuple(p, false);
  if (nm__jp_skip_name(p, "if")) n->c = nm__jp_expr(p, true);
  if (nm__jp_is_name(p, "recursive")) nm__jp_fail(p, "recursive loops are outside of the subset");
  n->d = both;
  end_block(p);
  p->loops++;
  both->a = body(p, (const char *const[]){"endfor", "else", NULL}, &end);
  p->loops--;
  end_block(p);
  if (!p->st && !strcmp(end, "else")) {
    both->b = body(p, (const char *const[]){"endfor", NULL}, &end);
    end_block(p);
  }
  return n;
}

/* a: condition (none: else), b: body, c: the next branch. */
static struct nm__jnode *if_chain(struct nm__jparse *p) {
  static const char *const ends[] = {"elif", "else", "endif", NULL};
  struct nm__jnode *first = nm__jp_node(p, JS_IF), *n = first;
  const char *end = "if";
  for (;;) {
    if (strcmp(end, "else")) n->a = nm__jp_tuple(p, false);
    end_block(p);
    n->b = body(p, strcmp(end, "else") ? ends : ends + 2, &end);
    if (p->st || !strcmp(end, "endif")) break;
    n = n->c = nm__jp_node(p, JS_IF);
  }
  end_block(p);
  return first;
}

/* a: target, b: value; or JS_SET_BLOCK with b: filters over a JE_CONST, c: body. */
static struct nm__jnode *set(struct nm__jparse *p) {
  struct nm__jnode *n = nm__jp_node(p, JS_SET);
  n->a = nm__jp_target(p, true);
  if (nm__jp_skip(p, '=')) {
    n->b = nm__jp_tuple(p, true);
    end_block(p);
    return n;
  }
  n->op = JS_SET_BLOCK;
  n->b = nm__jp_filters(p, nm__jp_node(p, JE_CONST), false);
  n->c = body_to(p, "endset");
  return n;
}

/* Parameters: nodes with name and a: default or NULL. */
static struct nm__jnode *parameters(struct nm__jparse *p) {
  struct nm__jnode *first = NULL, **tail = &first;
  nm__jp_expect(p, '(');
  while (!p->st && !nm__jp_is(p, ')')) {
    struct nm__jnode *n = nm__jp_node(p, JE_NAME);
    n->name = nm__jp_name(p);
    if (nm__jp_skip(p, '=')) n->a = nm__jp_expr(p, true);
    *tail = n;
    tail = &n->next;
    if (!nm__jp_is(p, ')')) nm__jp_expect(p, ',');
  }
  nm__jp_expect(p, ')');
  return first;
}

/* The body of a macro begins anew: no loop is open in it, and the names it uses count. */
static void macro_body(struct nm__jparse *p, struct nm__jnode *def, const char *end) {
  int loops = p->loops;
  uint8_t names = p->names;
  p->loops = 0;
  p->names = 0;
  def->b = body_to(p, end);
  def->flags = p->names;
  p->loops = loops;
  p->names = names | def->flags;
}

/* name, a: parameters, b: body. */
static struct nm__jnode *macro(struct nm__jparse *p) {
  struct nm__jnode *n = nm__jp_node(p, JS_MACRO);
  n->name = nm__jp_name(p);
  n->a = parameters(p);
  macro_body(p, n, "endmacro");
  return n;
}

/* a: the call; b: the caller, a macro. */
static struct nm__jnode *call_block(struct nm__jparse *p) {
  struct nm__jnode *n = nm__jp_node(p, JS_CALL), *caller = nm__jp_node(p, JS_MACRO);
  caller->name = "caller";
  if (nm__jp_is(p, '(')) caller->a = parameters(p);
  n->a = nm__jp_expr(p, true);
  if (!p->st && n->a->op != JE_CALL) nm__jp_fail(p, "a call was expected");
  n->b = caller;
  macro_body(p, caller, "endcall");
  return n;
}

/* a: filters over a JE_CONST, b: body. */
static struct nm__jnode *filter_block(struct nm__jparse *p) {
  struct nm__jnode *n = nm__jp_node(p, JS_FILTER);
  n->a = nm__jp_filters(p, nm__jp_node(p, JE_CONST), true);
  n->b = body_to(p, "endfilter");
  return n;
}

/* a: nodes with a: target, b: value; b: body. */
static struct nm__jnode *with(struct nm__jparse *p) {
  struct nm__jnode *n = nm__jp_node(p, JS_WITH), **tail = &n->a;
  while (!p->st && p->tok->type != JT_BLOCK_END) {
    if (n->a) nm__jp_expect(p, ',');
    struct nm__jnode *s = nm__jp_node(p, JS_SET);
    s->a = nm__jp_target(p, false);
    nm__jp_expect(p, '=');
    s->b = nm__jp_expr(p, true);
    *tail = s;
    tail = &s->next;
  }
  n->b = body_to(p, "endwith");
  return n;
}

/* Marks what the assistant said, for training; a: body. */
static struct nm__jnode *generation(struct nm__jparse *p) {
  struct nm__jnode *n = nm__jp_node(p, JS_SCOPE);
  int loops = p->loops;
  p->loops = 0;
  n->a = body_to(p, "endgeneration");
  p->loops = loops;
  return n;
}

static struct nm__jnode *jump(struct nm__jparse *p, enum nm__jop op, const char *word) {
  struct nm__jnode *n = nm__jp_node(p, op);
  if (!p->loops) nm__jp_fail(p, "'%s' stands outside of a loop", word);
  end_block(p);
  return n;
}
static struct nm__jnode *break_(struct nm__jparse *p) { return jump(p, JS_BREAK, "break"); }
static struct nm__jnode *continue_(struct nm__jparse *p) {
  return jump(p, JS_CONTINUE, "continue");
}

static const struct { const char *name; struct nm__jnode *(*fn)(struct nm__jparse *p); } known[] = {
    {"for", for_loop},     {"if", if_chain},           {"set", set},
    {"macro", macro},      {"call", call_block},       {"filter", filter_block},
    {"with", with},        {"generation", generation}, {"break", break_},
    {"continue", continue_}};
static const char *const refused[] = {"include", "import", "from",       "extends", "block",
                                      "do",      "trans",  "autoescape", "debug"};

static struct nm__jnode *statement(struct nm__jparse *p) {
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (nm__jp_is_name(p, known[i].name)) {
      uint32_t line = p->tok->line, col = p->tok->col;
      p->tok++;
      struct nm__jnode *n = known[i].fn(p);
      n->line = line;
      n->col = col;
      return n;
    }
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
    if (nm__jp_is_name(p, refused[i]))
      nm__jp_fail(p, "the tag '%s' is outside of the subset of Jinja for chat", refused[i]);
  nm__jp_fail(p, "a tag was expected");
  return NULL;
}

/* ---- bodies ---------------------------------------------------------- */

static struct nm__jnode *text(struct nm__jparse *p) {
  struct nm__jnode *n = nm__jp_node(p, JS_TEXT);
  struct nm__jstr *s = p->st ? NULL : nm__jmem_take(&p->t->mem, sizeof *s);
  uint8_t *user = s ? nm__jmem_take(&p->t->mem, p->tok->n + 1) : NULL;
  if (user) {
    *s = (struct nm__jstr){p->tok->s, user, p->tok->n, -1};
    n->v = (struct nm__jv){.kind = NM__J_STR, .u.s = s};
  } else if (!p->st) {
    p->st = nm__fail_memory(p->err, "a template's text", p->tok->n);
  }
  p->tok++;
  return n;
}

static bool is_end(struct nm__jparse *p, const char *const *ends, const char **end) {
  for (int i = 0; ends[i]; i++) {
    if (!nm__jp_is_name(p, ends[i])) continue;
    *end = ends[i];
    p->tok++;
    return true;
  }
  return false;
}

/* Up to one of the tags `ends` (none: the end of the template), whose name is read. */
static struct nm__jnode *body(struct nm__jparse *p, const char *const *ends, const char **end) {
  struct nm__jnode *first = NULL, **tail = &first;
  *end = "";
  if (!nm__jp_enter(p)) return NULL;
  while (!p->st) {
    if (p->tok->type == JT_DATA) {
      *tail = text(p);
    } else if (p->tok->type == JT_VAR) {
      p->tok++;
      *tail = nm__jp_node(p, JS_OUT);
      (*tail)->a = nm__jp_tuple(p, true);
      if (!p->st && p->tok->type != JT_VAR_END) nm__jp_fail(p, "an operator or }} was expected");
      else if (!p->st) p->tok++;
    } else if (p->tok->type == JT_BLOCK) {
      p->tok++;
      if (is_end(p, ends, end)) break;
      *tail = statement(p);
    } else {
      if (ends[0]) nm__jp_fail(p, "{%% %s %%} was expected", ends[0]);
      break;
    }
    if (*tail) tail = &(*tail)->next;
  }
  p->depth--;
  return first;
}

struct nm__jnode *nm__jp_template(struct nm__jparse *p) {
  const char *end;
  return body(p, (const char *const[]){NULL}, &end);
}

/* ---- a template ------------------------------------------------------ */

int nm__jinja_parse(const char *name, const char *src, size_t n, struct nm__jinja **out,
                    nm_err *err) {
  *out = NULL;
  if (n > NM__JINJA_MAX_SOURCE)
    return nm__fail(err, NM_EFORMAT, "%s: a template of %zu bytes, at most %d are allowed", name,
                    n, NM__JINJA_MAX_SOURCE);
  struct nm__jinja *t = nm__alloc(1, sizeof *t);
  if (!t) return nm__fail_memory(err, "a template", sizeof *t);
  t->mem.max = (size_t)1 << 28;
  t->name = nm__strdup(name);
  struct nm__jtok *tok = NULL;
  int rc = t->name ? nm__j_lex(t, src, n, &tok, err) : nm__fail_memory(err, "a name", 1);
  if (!rc) {
    struct nm__jparse p = {.t = t, .tok = tok, .err = err};
    t->body = nm__jp_template(&p);
    rc = p.st;
  }
  free(tok);
  if (rc) nm__jinja_free(t);
  else *out = t;
  return rc;
}

void nm__jinja_free(struct nm__jinja *t) {
  if (!t) return;
  nm__jmem_done(&t->mem);
  free(t->name);
  free(t);
}
