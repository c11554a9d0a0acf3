/* graph.h - graphs that worlds and methods walk in: grids, rings, a honeycomb, edges of a file. */
#ifndef NM_WORLD_GRAPH_H
#define NM_WORLD_GRAPH_H

#include "core/core.h"

enum { NM__GRAPH_NODES = 100 };

struct nm__graph {
  char name[64];
  int n, n_edges;
  int degree[NM__GRAPH_NODES];
  uint8_t next[NM__GRAPH_NODES][NM__GRAPH_NODES];      /* [node][degree] */
  double xy[NM__GRAPH_NODES][2];   /* where a person would draw the nodes */
  bool placed;                     /* xy is known */
};

void nm__graph_grid(struct nm__graph *g, int rows, int cols);
void nm__graph_ring(struct nm__graph *g, int n);
/* Three hexagons around one node, and node 13 hung on. */
void nm__graph_honeycomb(struct nm__graph *g);
/* "grid:4x4", "ring:10", "hex:14" (NM_EUSAGE), or a file of edges (NM_EFORMAT). */
int nm__graph_open(const char *spec, struct nm__graph *g, nm_err *err);
/* {"edges": [[0, 1], ...], "xy": [[x, y], ...]}, xy may be absent. Nodes are numbered from 0; an
 * edge stands once; every node can be reached. */
int nm__graph_parse(const char *name, const char *json, size_t n, struct nm__graph *g,
                    nm_err *err);
bool nm__graph_adjacent(const struct nm__graph *g, int a, int b);
/* d[n, n]: steps of the shortest way; -1: there is none. */
void nm__graph_distances(const struct nm__graph *g, int *d);
/* A walk that goes to every neighbour evenly; starts anywhere. */
void nm__graph_walk(const struct nm__graph *g, struct nm__rng *r, int *node, int n);

#endif
