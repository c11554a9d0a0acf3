/* knights.h - Knights and Knaves: statements, their truth, and the solver.
 *
 * On the island everybody is a knight, who tells the truth, or a knave, who lies. Person i says
 * statement i; a solution says who is a knight such that exactly the knights' statements hold. The
 * grammar is that of Xie et al., On Memorization of Large Language Models in Logical Reasoning
 * (arXiv 2410.23123): a leaf says what one person is; and, or, -> and <=> join two or more, "not"
 * one. */
#ifndef NM_WORLD_KNIGHTS_H
#define NM_WORLD_KNIGHTS_H

#include "core/core.h"

enum { NM__KK_PEOPLE = 12, NM__KK_NODES = 128, NM__KK_DEPTH = 16 };
enum nm__kk_op {
  NM__KK_TRUTH,
  NM__KK_LIE,
  NM__KK_NOT,
  NM__KK_AND,
  NM__KK_OR,
  NM__KK_IF,
  NM__KK_IFF
};

/* Node i: a leaf about `person`, or an operation over nodes `first`, then `next` of each, -1 at
 * the end. */
struct nm__kk {
  struct { enum nm__kk_op op; int person, first, next; } node[NM__KK_NODES];
  int n_nodes, n_people, root[NM__KK_PEOPLE];
};

/* Does statement `root` hold when bit i of `knights` says that person i is a knight? */
bool nm__kk_holds(const struct nm__kk *k, int root, uint32_t knights);
/* How many solutions; the last of them in *knights. */
int nm__kk_solve(const struct nm__kk *k, uint32_t *knights);
/* Reads the published form, "(('<=>', ('telling-truth', 1), ('lying', 1)), ('lying', 0))": a tuple
 * of one statement a person. NM_EFORMAT says where it is none. */
int nm__kk_parse(const char *text, struct nm__kk *out, nm_err *err);
/* A new node; -1 when there is no room. */
int nm__kk_add(struct nm__kk *k, enum nm__kk_op op, int person);

#endif
