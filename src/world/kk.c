/* kk.c - Knights and Knaves: the solver and the reader of the published form. */
#include "world/knights.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"telling-truth", "lying", "not", "and", "or", "->", "<=>"};

int nm__kk_add(struct nm__kk *k, enum nm__kk_op op, int person) {
  if (k->n_nodes == NM__KK_NODES) return -1;
  k->node[k->n_nodes].op = op;
  k->node[k->n_nodes].person = person;
  k->node[k->n_nodes].first = k->node[k->n_nodes].next = -1;
  return k->n_nodes++;
}

bool nm__kk_holds(const struct nm__kk *k, int root, uint32_t knights) {
  enum nm__kk_op op = k->node[root].op;
  int a = k->node[root].first;
  if (op <= NM__KK_LIE) return (knights >> k->node[root].person & 1) == (op == NM__KK_TRUTH);
  bool x = nm__kk_holds(k, a, knights);
  if (op == NM__KK_NOT) return !x;
  for (int b = k->node[a].next; b >= 0; b = k->node[b].next) {
    bool y = nm__kk_holds(k, b, knights);
    x = op == NM__KK_AND ? x && y : op == NM__KK_OR ? x || y : op == NM__KK_IF ? !x || y : x == y;
  }
  return x;
}

int nm__kk_solve(const struct nm__kk *k, uint32_t *knights) {
  int n = 0;
  for (uint32_t a = 0; a < 1u << k->n_people; a++) {
    bool fits = true;
    for (int i = 0; i < k->n_people && fits; i++)
      fits = nm__kk_holds(k, k->root[i], a) == (bool)(a >> i & 1);
    if (fits) n++, *knights = a;
  }
  return n;
}

/* ---- the published form ------------------------------------------------------- */

struct reader { const char *start, *at; struct nm__kk *k; nm_err *err; };

static int bad(const struct reader *r, const char *want) {
  char shown[24];
  return nm__fail(r->err, NM_EFORMAT, "statements: at character %td '%s', %s was expected",
                  r->at - r->start, nm__printable(shown, sizeof shown, r->at, strnlen(r->at, 10)),
                  want);
}

static bool take(struct reader *r, char c) {
  r->at += strspn(r->at, " ");
  if (*r->at != c) return false;
  r->at++;
  return true;
}

static int operation(struct reader *r) {
  for (int i = 0; i < 7; i++) {
    size_t n = strlen(names[i]);
    if (!strncmp(r->at, names[i], n) && r->at[n] == '\'') return r->at += n + 1, i;
  }
  return -1;
}

/* ('op', ...) from its bracket on; *out is the node. */
static int statement(struct reader *r, int depth, int *out) {
  if (depth > NM__KK_DEPTH) return bad(r, "a statement less deep");
  if (!take(r, '(') || !take(r, '\'')) return bad(r, "('OPERATION'");
  int op = operation(r), last = -1, n = 0, child, st;
  if (op < 0) return bad(r, "telling-truth, lying, not, and, or, -> or <=>");
  *out = nm__kk_add(r->k, (enum nm__kk_op)op, 0);
  if (*out < 0) return bad(r, "a shorter text");
  while (take(r, ',')) {
    r->at += strspn(r->at, " ");
    if (*r->at == ')') break;
    if (op <= NM__KK_LIE) {
      char *end;
      long p = strtol(r->at, &end, 10);
      if (end == r->at || p < 0 || p >= NM__KK_PEOPLE || n) return bad(r, "one person's number");
      r->k->node[*out].person = (int)p;
      r->at = end;
    } else {
      if ((st = statement(r, depth + 1, &child))) return st;
      if (n) r->k->node[last].next = child;
      else r->k->node[*out].first = child;
      last = child;
    }
    n++;
  }
  if (!take(r, ')')) return bad(r, "a closing bracket");
  int most = op <= NM__KK_NOT ? 1 : op >= NM__KK_IF ? 2 : NM__KK_NODES, least = most == 1 ? 1 : 2;
  return n < least || n > most ? bad(r, "another number of parts before it") : NM_OK;
}

int nm__kk_parse(const char *text, struct nm__kk *out, nm_err *err) {
  struct reader r = {text, text, out, err};
  int st;
  out->n_nodes = out->n_people = 0;
  if (!take(&r, '(')) return bad(&r, "a tuple of statements");
  do {
    r.at += strspn(r.at, " ");
    if (*r.at == ')') break;
    if (out->n_people == NM__KK_PEOPLE) return bad(&r, "at most 12 people");
    if ((st = statement(&r, 0, &out->root[out->n_people]))) return st;
    out->n_people++;
  } while (take(&r, ','));
  if (!take(&r, ')') || *r.at) return bad(&r, "the end of the tuple");
  for (int i = 0; i < out->n_nodes; i++)
    if (out->node[i].op <= NM__KK_LIE && out->node[i].person >= out->n_people)
      return nm__fail(err, NM_EFORMAT, "statements: person %d of %d people", out->node[i].person,
                      out->n_people);
  return out->n_people ? NM_OK : bad(&r, "at least one statement");
}
