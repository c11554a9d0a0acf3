/* jinja_in.h - the inside of the template engine, shared by the jinja_*.c files only.
 *
 *   jinja_lex.c     text to tokens, whitespace control
 *   jinja_expr.c    tokens to expressions          jinja_parse.c   ... to statements
 *   jinja_value.c   memory, strings, lists, dicts  jinja_ops.c     comparison, arithmetic, items
 *   jinja_show.c    str(), repr() and JSON         jinja_text.c    strip, split, replace, case
 *   jinja_eval.c    expressions and calls          jinja_exec.c    statements, loops, macros
 *   jinja_filters.c, jinja_lists.c, jinja_tests.c, jinja_methods.c: tables of named things
 *
 * All values of one rendering live in one arena and die together. Errors are sticky: the first
 * one is kept in the context, everything after it is a no-op that returns none, and loops ask
 * nm__j_tick, which also counts the steps that a hostile template may take. */
#ifndef NM_TEXT_JINJA_IN_H
#define NM_TEXT_JINJA_IN_H

#include "text/jinja.h"

/* ---- arena ----------------------------------------------------------- */

struct nm__jchunk { struct nm__jchunk *next; size_t used, cap; };
struct nm__jmem { struct nm__jchunk *head; size_t total, max; };
void *nm__jmem_take(struct nm__jmem *m, size_t n);                /* zeroed; NULL: over the limit */
void nm__jmem_done(struct nm__jmem *m);

/* ---- values ---------------------------------------------------------- */

enum nm__jkind {
  NM__J_ABSENT,                    /* an argument that was not given */
  NM__J_UNDEF, NM__J_NONE, NM__J_BOOL, NM__J_INT, NM__J_FLOAT, NM__J_STR,
  NM__J_LIST, NM__J_TUPLE, NM__J_RANGE,
  NM__J_VIEW,                      /* dict.keys(), .values(), .items() */
  NM__J_GEN,                       /* what map, select ... give: to be walked once */
  NM__J_DICT, NM__J_NS, NM__J_LOOP, NM__J_FUNC, NM__J_METHOD, NM__J_MACRO
};

/* Bytes are valid UTF-8; user[i] is 1 where byte i came from the data. */
struct nm__jstr { const char *s; const uint8_t *user; size_t n; int64_t points; };

struct nm__jv {
  uint8_t kind;
  bool user;                       /* numbers and containers: came from the data */
  union {
    bool b;
    int64_t i;
    double f;
    const char *why;               /* undefined: the sentence for whoever uses it */
    struct nm__jstr *s;
    struct nm__jlist *l;
    struct nm__jdict *d;           /* dict, namespace */
    struct nm__jloop *loop;
    const struct nm__jfunc *fn;
    struct nm__jbound *bound;
    struct nm__jmacro *macro;
  } u;
};

struct nm__jlist {
  struct nm__jv *v;
  size_t n, cap;
  bool used;                       /* a generator that was walked is empty */
  struct nm__jlazy *lazy;          /* a generator's filter, which runs when it is walked */
  const char *view;                /* "dict_items" ...; for VIEW */
  int64_t from, to, step;          /* for RANGE */
};
struct nm__jpair { struct nm__jv key, value; };
struct nm__jdict { struct nm__jpair *v; size_t n, cap; };
struct nm__jloop {
  const struct nm__jlist *l;
  size_t i;
  struct nm__jv changed;           /* last argument of loop.changed(); ABSENT: none yet */
};

struct nm__jkw { const char *name; struct nm__jv v; };
struct nm__jargs { struct nm__jv *pos; size_t n; struct nm__jkw *kw; size_t n_kw; };

/* A growing string in the arena. */
struct nm__jbuf { char *s; uint8_t *user; size_t n, cap; };

/* ---- syntax ---------------------------------------------------------- */

enum nm__jtype { JT_END, JT_DATA, JT_VAR, JT_VAR_END, JT_BLOCK, JT_BLOCK_END, JT_NAME, JT_STR,
                 JT_INT, JT_FLOAT, JT_OP };
/* Operators are their characters; two-character ones have a code of their own. */
enum { JO_EQ = 256, JO_NE, JO_LE, JO_GE, JO_POW, JO_FLOORDIV, JO_IN, JO_NOT_IN };
struct nm__jtok { enum nm__jtype type; int op; uint32_t line, col; const char *s; size_t n; };

enum nm__jop {
  JE_CONST, JE_NAME, JE_LIST, JE_TUPLE, JE_DICT, JE_ATTR, JE_ITEM, JE_SLICE, JE_CALL, JE_FILTER,
  JE_TEST, JE_NOT, JE_NEG, JE_POS, JE_AND, JE_OR, JE_BIN, JE_CMP, JE_CONCAT, JE_COND, JE_NSREF,
  JS_TEXT, JS_OUT, JS_FOR, JS_IF, JS_SET, JS_SET_BLOCK, JS_MACRO, JS_CALL, JS_FILTER, JS_WITH,
  JS_SCOPE, JS_BREAK, JS_CONTINUE
};
/* What a, b, c, d hold is written where the parser makes the node. Lists go by `next`. */
struct nm__jnode {
  uint16_t op, sub;
  uint8_t flags;
  uint32_t line, col;
  const char *name;
  struct nm__jnode *a, *b, *c, *d, *next;
  struct nm__jv v;
};
enum { JF_CALLER = 1, JF_VARARGS = 2, JF_KWARGS = 4 };            /* names a macro's body uses */

struct nm__jinja {
  char *name;
  struct nm__jmem mem;
  struct nm__jnode *body;
};

/* The parser's state; errors are sticky here too. */
struct nm__jparse {
  struct nm__jinja *t;
  const struct nm__jtok *tok;      /* the current token; ends with JT_END */
  int depth, loops, st;
  uint8_t names;                   /* JF_ flags of the macro in hand */
  struct nm__jnode spare;          /* what all get after an error */
  nm_err *err;
};
/* jinja_lex.c: normalised source to tokens, which lie in the template's arena. */
int nm__j_lex(struct nm__jinja *t, const char *src, size_t n, struct nm__jtok **out, nm_err *err);
int nm__j_syntax(const struct nm__jinja *t, uint32_t line, uint32_t col, nm_err *err,
                 const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* jinja_expr.c */
void nm__jp_fail(struct nm__jparse *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct nm__jnode *nm__jp_node(struct nm__jparse *p, enum nm__jop op);
bool nm__jp_is(const struct nm__jparse *p, int op);
bool nm__jp_is_name(const struct nm__jparse *p, const char *name);
bool nm__jp_skip(struct nm__jparse *p, int op);
bool nm__jp_skip_name(struct nm__jparse *p, const char *name);
void nm__jp_expect(struct nm__jparse *p, int op);
void nm__jp_expect_name(struct nm__jparse *p, const char *name);
const char *nm__jp_name(struct nm__jparse *p);                    /* "" after an error */
bool nm__jp_enter(struct nm__jparse *p);                          /* nesting; undo with depth-- */
struct nm__jnode *nm__jp_expr(struct nm__jparse *p, bool cond);
struct nm__jnode *nm__jp_tuple(struct nm__jparse *p, bool cond);
struct nm__jnode *nm__jp_target(struct nm__jparse *p, bool with_ns);
void nm__jp_args(struct nm__jparse *p, struct nm__jnode *call);
/* The filters after a value: `first` as if a | stood before it. */
struct nm__jnode *nm__jp_filters(struct nm__jparse *p, struct nm__jnode *n, bool first);
struct nm__jnode *nm__jp_postfix(struct nm__jparse *p, struct nm__jnode *n);
struct nm__jnode *nm__jp_primary(struct nm__jparse *p);
/* jinja_parse.c */
struct nm__jnode *nm__jp_template(struct nm__jparse *p);

/* ---- rendering ------------------------------------------------------- */

struct nm__jvar { const char *name; struct nm__jv v; struct nm__jvar *next; };
struct nm__jscope { struct nm__jscope *up; struct nm__jvar *vars; };
struct nm__jmacro {
  const struct nm__jnode *def;
  struct nm__jscope *scope;        /* where it was defined: what its body sees */
};
/* A context: one rendering. */
struct nm__j {
  const struct nm__jinja *t;
  const struct nm__jinja_opts *o;
  nm_err *err;
  int st, depth;
  uint64_t steps;
  size_t max_output;
  struct nm__jmem mem;
  struct nm__jscope *scope;
  struct nm__jbuf *out;
  const struct nm__jnode *at;      /* what is being computed, for messages */
};

/* jinja_value.c */
void nm__j_fail(struct nm__j *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool nm__j_tick(struct nm__j *j, size_t n);       /* false after an error, or when all is spent */
bool nm__j_enter(struct nm__j *j);                /* nesting; undo with depth-- */
void *nm__j_take(struct nm__j *j, size_t n, size_t size);         /* NULL after an error */
const char *nm__j_name(struct nm__j *j, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));        /* a C string in the arena */
struct nm__jv nm__j_undef(struct nm__j *j, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static inline struct nm__jv nm__j_none(void) { return (struct nm__jv){.kind = NM__J_NONE}; }
static inline struct nm__jv nm__j_bool(bool b) {
  return (struct nm__jv){.kind = NM__J_BOOL, .u.b = b};
}
static inline struct nm__jv nm__j_int(int64_t i, bool user) {
  return (struct nm__jv){.kind = NM__J_INT, .user = user, .u.i = i};
}
static inline struct nm__jv nm__j_float(double f, bool user) {
  return (struct nm__jv){.kind = NM__J_FLOAT, .user = user, .u.f = f};
}
/* Copies bytes, all of one origin. */
struct nm__jv nm__j_text(struct nm__j *j, const char *s, size_t n, bool user);
struct nm__jv nm__j_cut(struct nm__j *j, const struct nm__jstr *s, size_t at, size_t n);
int64_t nm__j_points(struct nm__jstr *s);         /* its length in code points */
size_t nm__j_byte_at(struct nm__j *j, struct nm__jstr *s, int64_t point);
void nm__jbuf_put(struct nm__j *j, struct nm__jbuf *b, const char *s, const uint8_t *user,
                  size_t n);       /* user NULL: trusted */
void nm__jbuf_mark(struct nm__j *j, struct nm__jbuf *b, const char *s, size_t n, bool user);
void nm__jbuf_str(struct nm__j *j, struct nm__jbuf *b, const struct nm__jstr *s);
struct nm__jv nm__jbuf_value(struct nm__j *j, const struct nm__jbuf *b);
struct nm__jv nm__j_list(struct nm__j *j, enum nm__jkind kind);
void nm__j_push(struct nm__j *j, struct nm__jv list, struct nm__jv v);
struct nm__jv nm__j_pair(struct nm__j *j, struct nm__jv a, struct nm__jv b);   /* a tuple */
struct nm__jv nm__j_dict(struct nm__j *j, enum nm__jkind kind);
void nm__j_put(struct nm__j *j, struct nm__jv dict, struct nm__jv key, struct nm__jv v);
void nm__j_put_name(struct nm__j *j, struct nm__jv dict, const char *key, struct nm__jv v);
const struct nm__jv *nm__j_get(struct nm__j *j, const struct nm__jdict *d, struct nm__jv key);
const struct nm__jv *nm__j_get_name(struct nm__j *j, const struct nm__jdict *d, const char *key);
struct nm__jv nm__j_from_json(struct nm__j *j, const json_t *x);
static inline bool nm__j_is_seq(struct nm__jv v) {
  return v.kind >= NM__J_LIST && v.kind <= NM__J_GEN;
}

/* jinja_ops.c */
const char *nm__j_type(struct nm__jv v);          /* Python's word for it */
bool nm__j_true(struct nm__jv v);
bool nm__j_equal(struct nm__j *j, struct nm__jv a, struct nm__jv b);
int nm__j_compare(struct nm__j *j, struct nm__jv a, struct nm__jv b, const char *op);
bool nm__j_contains(struct nm__j *j, struct nm__jv in, struct nm__jv v);
struct nm__jv nm__j_math(struct nm__j *j, int op, struct nm__jv a, struct nm__jv b);
int64_t nm__j_len(struct nm__j *j, struct nm__jv v);
/* Anything one can loop over, as a list; a generator is used up. */
struct nm__jlist *nm__j_iter(struct nm__j *j, struct nm__jv v);
struct nm__jv nm__j_attr(struct nm__j *j, struct nm__jv v, const char *name);
struct nm__jv nm__j_item(struct nm__j *j, struct nm__jv v, struct nm__jv key);
struct nm__jv nm__j_slice(struct nm__j *j, struct nm__jv v, const struct nm__jv at[3]);
bool nm__j_want_int(struct nm__j *j, struct nm__jv v, const char *what, int64_t *out);
bool nm__j_used_undef(struct nm__j *j, struct nm__jv v);          /* fails and says true */

/* jinja_show.c */
void nm__j_show(struct nm__j *j, struct nm__jbuf *b, struct nm__jv v, bool repr);
struct nm__jv nm__j_str(struct nm__j *j, struct nm__jv v);        /* str(v): always STR */
struct nm__jv nm__j_tojson(struct nm__j *j, struct nm__jv v, const struct nm__jargs *a);

/* jinja_text.c: all keep each byte's origin. `what` NULL: white space. */
bool nm__j_space(uint32_t cp);
enum { NM__J_LEFT = 1, NM__J_RIGHT = 2 };
struct nm__jv nm__j_strip(struct nm__j *j, const struct nm__jstr *s, const struct nm__jstr *what,
                          int sides);
struct nm__jv nm__j_split(struct nm__j *j, const struct nm__jstr *s, const struct nm__jstr *sep,
                          int64_t max, bool from_right);
struct nm__jv nm__j_lines(struct nm__j *j, const struct nm__jstr *s, bool keep);
struct nm__jv nm__j_replace(struct nm__j *j, const struct nm__jstr *s, const struct nm__jstr *old,
                            const struct nm__jstr *new, int64_t max);
/* SENTENCE: the first letter large, the rest small; WORDS: str.title(); STARTS: Jinja's title. */
enum nm__jcase { NM__J_UPPER, NM__J_LOWER, NM__J_SENTENCE, NM__J_WORDS, NM__J_STARTS };
struct nm__jv nm__j_case(struct nm__j *j, const struct nm__jstr *s, enum nm__jcase how);
int64_t nm__j_find(const struct nm__jstr *s, const struct nm__jstr *part, size_t from);

/* jinja_eval.c */
struct nm__jv nm__j_eval(struct nm__j *j, const struct nm__jnode *n);
struct nm__jv nm__j_call(struct nm__j *j, struct nm__jv f, const struct nm__jargs *a);
void nm__j_eval_args(struct nm__j *j, const struct nm__jnode *call, struct nm__jargs *a);
/* Arguments by name: "width,first,blank" with the first `min` required. */
bool nm__j_bind(struct nm__j *j, const char *what, const struct nm__jargs *a, const char *names,
                int min, struct nm__jv *out);
struct nm__jv nm__j_lookup(struct nm__j *j, const char *name);
/* jinja_exec.c */
void nm__j_exec(struct nm__j *j, const struct nm__jnode *body);
struct nm__jv nm__j_call_macro(struct nm__j *j, struct nm__jmacro *m, const struct nm__jargs *a);
void nm__j_set(struct nm__j *j, const char *name, struct nm__jv v);

/* ---- named things ---------------------------------------------------- */

struct nm__jfunc {
  const char *name;
  struct nm__jv (*fn)(struct nm__j *j, const struct nm__jargs *a);
};
struct nm__jfilter {
  const char *name;
  struct nm__jv (*fn)(struct nm__j *j, struct nm__jv v, const struct nm__jargs *a);
  bool lazy;                       /* gives a generator, and no error before it is walked */
};
struct nm__jlazy {
  const struct nm__jfilter *f;
  struct nm__jv v;
  struct nm__jargs a;
  const struct nm__jnode *at;
};
struct nm__jtest {
  const char *name;
  int n;                           /* arguments */
  bool (*fn)(struct nm__j *j, struct nm__jv v, const struct nm__jv *arg);
};
extern const struct nm__jfunc nm__j_funcs[];                      /* all end with name NULL */
extern const struct nm__jfilter nm__j_text_filters[], nm__j_list_filters[];
extern const struct nm__jtest nm__j_tests[];
struct nm__jv nm__j_filter(struct nm__j *j, const char *name, struct nm__jv v,
                           const struct nm__jargs *a);
bool nm__j_test(struct nm__j *j, const char *name, struct nm__jv v, const struct nm__jargs *a);
/* A method bound to a value; false when the type has none of that name. */
struct nm__jbound { struct nm__jv self; const struct nm__jmethod *m; };
struct nm__jmethod {
  uint8_t kind;
  const char *name;
  struct nm__jv (*fn)(struct nm__j *j, struct nm__jv self, const struct nm__jargs *a);
};                                 /* fn NULL: known and refused */
bool nm__j_method(struct nm__j *j, struct nm__jv self, const char *name, struct nm__jv *out);

#endif
