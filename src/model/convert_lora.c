/* convert_lora.c - adapters added to the weights of a model that is written again. The sum of an
 * element, W + scale B A, is made in double and rounded once to f32, then to the stored type. */
#include "model/convert.h"

#include <stdlib.h>
#include <string.h>

#include "model/model.h"

/* Calls `fn` for each part that counts; stops at the first status. */
static int each(const struct nm__plan *p,
                int (*fn)(void *arg, const struct nm__adapter_part *part, float scale), void *arg) {
  int st = NM_OK;
  for (int k = 0; k < 2; k++)
    for (int i = 0; i < nm_adapters_n(p->lora[k]); i++) {
      const struct nm__adapter_used *u = &p->lora[k]->v[i];
      for (size_t n = 0; n < u->a.n && u->scale != 0 && !st; n++)
        st = fn(arg, &u->a.part[n], u->scale * u->a.part[n].scale);
    }
  return st;
}

static int is_name(void *name, const struct nm__adapter_part *part, float scale) {
  (void)scale;
  return !strcmp(name, part->name);
}

bool nm__plan_touched(const struct nm__plan *p, const char *name) {
  return each(p, is_name, (void *)(uintptr_t)name);
}

bool nm__plan_unties(const struct nm__plan *p) {
  const nm_adapters *any = p->lora[0] ? p->lora[0] : p->lora[1];
  if (!any || !any->m->tied || any->m->arch->encoder) return false;
  return nm__plan_touched(p, "token_embd.weight") || nm__plan_touched(p, "output.weight");
}

/* ---- which item gets what ---------------------------------------------------------- */

struct giving { struct nm__plan *p; nm_err *err; };

static int give(void *arg, const struct nm__adapter_part *part, float scale) {
  struct giving *g = arg;
  struct nm__item *it = NULL;
  for (size_t i = 0; i < g->p->n && !it; i++)
    if (!strcmp(g->p->item[i].name, part->name)) it = &g->p->item[i];
  bool stacked = part->expert >= 0;
  if (!it || it->ne[0] != part->cols || it->ne[1] != part->rows ||
      (stacked ? part->expert >= it->ne[2] : it->ne[2] != 1))
    return nm__fail(g->err, NM_EFORMAT, "%s: has no matrix '%s' of %lld rows of %lld that the "
                    "adapter could be added to", g->p->g->path, part->name, (long long)part->rows,
                    (long long)part->cols);
  size_t n = (size_t)it->n_added + 1;
  const struct nm__adapter_part **v = nm__realloc(it->added, n, sizeof *v);
  if (v) it->added = v;
  float *s = v ? nm__realloc(it->scale, n, sizeof *s) : NULL;
  if (!s) return nm__fail_memory(g->err, "the adapters of a matrix", n * sizeof *v);
  it->scale = s;
  v[it->n_added] = part;
  s[it->n_added++] = scale;
  return NM_OK;
}

int nm__plan_lora(struct nm__plan *p, nm_err *err) {
  struct giving g = {p, err};
  return each(p, give, &g);
}

/* ---- the sum ------------------------------------------------------------------------ */

/* Columns c .. c + n of row r of the part's matrix. */
static void add_run(const struct nm__adapter_part *p, float scale, int64_t r, int64_t c, int64_t n,
                    float *x) {
  for (int64_t i = 0; i < n; i++) {
    double sum = 0;
    for (int64_t k = 0; k < p->rank; k++)
      sum += p->lookup ? (double)p->a[r * p->rank + k] * (double)p->b[(c + i) * p->rank + k]
                       : (double)p->b[r * p->rank + k] * (double)p->a[k * p->cols + c + i];
    x[i] = (float)((double)x[i] + (double)scale * sum);
  }
}

void nm__item_add(const struct nm__item *it, int64_t first, int64_t n, float *x) {
  int64_t cols = it->ne[0];
  while (n > 0) {
    int64_t row = first / cols, col = first % cols, run = cols - col < n ? cols - col : n;
    for (int i = 0; i < it->n_added; i++) {
      const struct nm__adapter_part *p = it->added[i];
      int64_t r = row - (p->expert > 0 ? p->expert * p->rows : 0);
      if (r >= 0 && r < p->rows) add_run(p, it->scale[i], r, col, run, x);
    }
    x += run;
    first += run;
    n -= run;
  }
}
