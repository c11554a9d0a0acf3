/* charsmap_made.h - a precompiled character map made by hand, for tests: a double array with
 * a block of 256 units for each node that has children. Include after tok_run.h. */
#ifndef CHARSMAP_MADE_H
#define CHARSMAP_MADE_H

#include <assert.h>

struct mapping { const char *from, *to; };

struct made { uint32_t unit[64 * 256]; uint32_t block; size_t n_text; char text[1024]; };

/* Node p's children begin at `base`: p ^ offset = base. */
static inline void made_link(struct made *m, uint32_t p, uint32_t base) {
  m->unit[p] |= (p ^ base) << 10;
}

static inline void made_add(struct made *m, struct mapping map) {
  uint32_t p = 0, base = 0;
  for (const char *s = map.from; *s; s++) {
    if (!(m->unit[p] >> 10)) made_link(m, p, ++m->block * 256);
    base = p ^ (m->unit[p] >> 10);
    p = base + (unsigned char)*s;
    m->unit[p] |= (unsigned char)*s;
  }
  if (!(m->unit[p] >> 10)) made_link(m, p, ++m->block * 256);
  assert(m->block < 63 && m->n_text + strlen(map.to) < sizeof m->text);
  m->unit[p] |= 1 << 8;
  m->unit[p ^ (m->unit[p] >> 10)] = 1u << 31 | (uint32_t)m->n_text;
  memcpy(m->text + m->n_text, map.to, strlen(map.to) + 1);
  m->n_text += strlen(map.to) + 1;
}

/* Appends the map's bytes. */
static inline void made_map(const struct mapping *v, size_t n, struct nm__buf *out) {
  struct made *m = nm__alloc(1, sizeof *m);
  assert_non_null(m);
  for (size_t i = 0; i < n; i++) made_add(m, v[i]);
  uint32_t bytes = (m->block + 1) * 256 * 4;
  nm__buf_put(out, &bytes, 4);
  nm__buf_put(out, m->unit, bytes);
  nm__buf_put(out, m->text, m->n_text);
  free(m);
}

#endif
