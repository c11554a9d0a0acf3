/* graph.c - graphs: the known forms, a file's edges, distances, walks. */
#include "world/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "tensor/math.h"

enum { MAX_VALUES = 1 << 16 };

/* ---- known forms ------------------------------------------------------------- */

static void begin(struct nm__graph *g, int n, bool placed) {
  *g = (struct nm__graph){.n = n, .placed = placed};
}

static void edge(struct nm__graph *g, int a, int b) {
  g->next[a][g->degree[a]++] = (uint8_t)b;
  g->next[b][g->degree[b]++] = (uint8_t)a;
  g->n_edges++;
}

void nm__graph_grid(struct nm__graph *g, int rows, int cols) {
  begin(g, rows * cols, true);
  snprintf(g->name, sizeof g->name, "grid:%dx%d", rows, cols);
  for (int i = 0; i < g->n; i++) {
    g->xy[i][0] = i % cols;
    g->xy[i][1] = i / cols;
    if (i % cols < cols - 1) edge(g, i, i + 1);
    if (i / cols < rows - 1) edge(g, i, i + cols);
  }
}

/* Neighbours are listed backwards, then forwards. */
void nm__graph_ring(struct nm__graph *g, int n) {
  begin(g, n, true);
  g->n_edges = n;
  snprintf(g->name, sizeof g->name, "ring:%d", n);
  for (int i = 0; i < n; i++) {
    double t = 6.283185307179586 * i / n;
    g->xy[i][0] = nm__cos(t);
    g->xy[i][1] = nm__sin(t);
    g->degree[i] = 2;
    g->next[i][0] = (uint8_t)((i + n - 1) % n);
    g->next[i][1] = (uint8_t)((i + 1) % n);
  }
}

/* Nodes 1..3 around node 0, a ring 4..12 around them. Lengths of sides are 1. */
void nm__graph_honeycomb(struct nm__graph *g) {
  static const int edges[][2] = {{0, 1},  {0, 2},   {0, 3},  {1, 4}, {1, 5}, {2, 7},
                                 {2, 8},  {3, 10},  {3, 11}, {5, 6}, {6, 7}, {8, 9},
                                 {9, 10}, {11, 12}, {12, 4}, {9, 13}};
  /* In half sides across sqrt 3, and half sides. */
  static const int at[14][2] = {{0, 0},  {0, 2},  {-1, -1}, {1, -1}, {1, 3}, {-1, 3}, {-2, 2},
                                {-2, 0}, {-1, -3}, {0, -4}, {1, -3}, {2, 0}, {2, 2},  {0, -6}};
  begin(g, 14, true);
  snprintf(g->name, sizeof g->name, "hex:14");
  for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) edge(g, edges[i][0], edges[i][1]);
  for (int i = 0; i < 14; i++) {
    g->xy[i][0] = 0.8660254037844386 * at[i][0];
    g->xy[i][1] = 0.5 * at[i][1];
  }
}

/* ---- questions --------------------------------------------------------------- */

bool nm__graph_adjacent(const struct nm__graph *g, int a, int b) {
  for (int i = 0; i < g->degree[a]; i++)
    if (g->next[a][i] == b) return true;
  return false;
}

void nm__graph_distances(const struct nm__graph *g, int *d) {
  for (int from = 0; from < g->n; from++) {
    int *to = d + from * g->n, queue[NM__GRAPH_NODES], n = 1;
    for (int i = 0; i < g->n; i++) to[i] = -1;
    to[queue[0] = from] = 0;
    for (int k = 0; k < n; k++)
      for (int i = 0; i < g->degree[queue[k]]; i++) {
        int b = g->next[queue[k]][i];
        if (to[b] < 0) to[b] = to[queue[k]] + 1, queue[n++] = b;
      }
  }
}

void nm__graph_walk(const struct nm__graph *g, struct nm__rng *r, int *node, int n) {
  int at = (int)nm__rng_below(r, (uint64_t)g->n);
  for (int i = 0; i < n; i++) {
    node[i] = at;
    at = g->next[at][nm__rng_below(r, (uint64_t)g->degree[at])];
  }
}

/* ---- files --------------------------------------------------------------------- */

static int read_edge(const char *name, const json_t *e, size_t i, struct nm__graph *g,
                     nm_err *err) {
  const json_t *x = json_array_get(e, 0), *y = json_array_get(e, 1);
  json_int_t a = json_integer_value(x), b = json_integer_value(y);
  if (json_array_size(e) != 2 || !json_is_integer(x) || !json_is_integer(y) || a < 0 || b < 0 ||
      a >= NM__GRAPH_NODES || b >= NM__GRAPH_NODES)
    return nm__fail(err, NM_EFORMAT, "%s: edge %zu is not two nodes from 0 to %d, [0, 1]", name, i,
                    NM__GRAPH_NODES - 1);
  if (a == b)
    return nm__fail(err, NM_EFORMAT, "%s: edge %zu leads from node %d to itself", name, i, (int)a);
  if (nm__graph_adjacent(g, (int)a, (int)b))
    return nm__fail(err, NM_EFORMAT, "%s: edge %zu, %d to %d, stands twice", name, i, (int)a,
                    (int)b);
  edge(g, (int)a, (int)b);
  if (a >= g->n) g->n = (int)a + 1;
  if (b >= g->n) g->n = (int)b + 1;
  return NM_OK;
}

static int read_places(const char *name, const json_t *xy, struct nm__graph *g, nm_err *err) {
  if (!xy) return NM_OK;
  g->placed = json_array_size(xy) == (size_t)g->n;
  for (size_t i = 0; g->placed && i < (size_t)g->n; i++)
    for (size_t k = 0; k < 2; k++) {
      const json_t *p = json_array_get(xy, i), *v = json_array_get(p, k);
      double at = json_number_value(v);
      g->placed &= json_array_size(p) == 2 && json_is_number(v) && at > -1e6 && at < 1e6;
      g->xy[i][k] = at;
    }
  if (g->placed) return NM_OK;
  return nm__fail(err, NM_EFORMAT, "%s: \"xy\" must be %d pairs of numbers, one for each node",
                  name, g->n);
}

static int connected(const char *name, const struct nm__graph *g, nm_err *err) {
  int *d = nm__alloc((size_t)(g->n * g->n) + 1, sizeof *d), reached = 0, st = NM_OK, far = -1;
  if (!d) return nm__fail_memory(err, "distances", 0);
  nm__graph_distances(g, d);
  for (int i = 0; i < g->n; i++) {
    reached += d[i] >= 0;
    if (d[i] < 0 && far < 0) far = i;
  }
  if (far >= 0)
    st = nm__fail(err, NM_EFORMAT, "%s: the graph falls into parts: from node 0 only %d of %d "
                                   "nodes "
                  "can be reached, node %d not", name, reached, g->n, far);
  free(d);
  return st;
}

int nm__graph_parse(const char *name, const char *json, size_t n, struct nm__graph *g,
                    nm_err *err) {
  json_t *o = nm__json_parse(name, json, n, MAX_VALUES, err);
  if (!o) return NM_EFORMAT;
  const json_t *edges = json_object_get(o, "edges");
  const char *key;
  json_t *v;
  int st = NM_OK;
  begin(g, 0, false);
  snprintf(g->name, sizeof g->name, "%.60s", nm__path_base(name));
  json_object_foreach(o, key, v) {
    char shown[40];
    if (!st && strcmp(key, "edges") && strcmp(key, "xy"))
      st = nm__fail(err, NM_EFORMAT, "%s: it has \"%s\"; a graph has \"edges\" and perhaps \"xy\"",
                    name, nm__printable(shown, sizeof shown, key, strlen(key)));
  }
  if (!st && json_array_size(edges) < 2)
    st = nm__fail(err, NM_EFORMAT, "%s: \"edges\" must be at least two pairs of nodes", name);
  for (size_t i = 0; i < json_array_size(edges) && !st; i++)
    st = read_edge(name, json_array_get(edges, i), i, g, err);
  if (!st) st = connected(name, g, err);
  if (!st) st = read_places(name, json_object_get(o, "xy"), g, err);
  json_decref(o);
  return st;
}

static int open_file(const char *path, struct nm__graph *g, nm_err *err) {
  struct nm__map m;
  int st = nm__map_open(path, &m, err);
  if (st) return st;
  st = nm__graph_parse(path, (const char *)m.data, m.size, g, err);
  nm__map_close(&m);
  return st;
}

int nm__graph_open(const char *spec, struct nm__graph *g, nm_err *err) {
  int a = 0, b = 0, end = 0;
  if (sscanf(spec, "grid:%4dx%4d%n", &a, &b, &end) == 2 && !spec[end]) {
    if (a < 2 || b < 2 || a * b > NM__GRAPH_NODES)
      return nm__fail(err, NM_EUSAGE, "%s: a grid has at least 2x2 nodes and at most %d", spec,
                      NM__GRAPH_NODES);
    nm__graph_grid(g, a, b);
  } else if (sscanf(spec, "ring:%4d%n", &a, &end) == 1 && !spec[end]) {
    if (a < 3 || a > NM__GRAPH_NODES)
      return nm__fail(err, NM_EUSAGE, "%s: a ring has 3 to %d nodes", spec, NM__GRAPH_NODES);
    nm__graph_ring(g, a);
  } else if (!strcmp(spec, "hex:14")) {
    nm__graph_honeycomb(g);
  } else if (!nm__exists(spec)) {
    char shown[60];
    return nm__fail(err, NM_EUSAGE, "there is no graph '%s': grid:4x4, ring:10, hex:14, or a file "
                    "of edges", nm__printable(shown, sizeof shown, spec, strlen(spec)));
  } else {
    return open_file(spec, g, err);
  }
  return NM_OK;
}
