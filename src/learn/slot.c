/* slot.c - the rows of one slot: samples one after the other, each behind the soft prompt. */
#include "learn/slot.h"

#include <stdlib.h>

static int take(struct nm__slot *l, nm_err *err) {
  size_t T = (size_t)l->T + 1, n = (size_t)l->n + 1;
  size_t P = (size_t)l->front * n + 1;
  l->spans = nm__alloc(n, sizeof *l->spans);
  l->first = nm__alloc(n, sizeof *l->first);
  l->ids = nm__alloc(T, sizeof *l->ids);
  l->rows = nm__alloc(T, sizeof *l->rows);
  l->of = nm__alloc(T, sizeof *l->of);
  l->next = nm__alloc(T, sizeof *l->next);
  l->prompt_at = nm__alloc(P, sizeof *l->prompt_at);
  l->prompt_row = nm__alloc(P, sizeof *l->prompt_row);
  if (l->spans && l->first && l->ids && l->rows && l->of && l->next && l->prompt_at &&
      l->prompt_row)
    return NM_OK;
  return nm__fail_memory(err, "a slot of the batch", T * 4 * sizeof(int32_t));
}

static void one_sample(struct nm__slot *l, int i, int row) {
  const struct nm__sample *v = l->v[i];
  int len = v->n + l->front;
  bool read = !l->plan || nm__loss_reads(l->plan, v);
  l->spans[l->n_spans++] = (struct nm__span){.seq = i, .n = len, .row0 = row, .slot = row};
  if (len > l->longest) l->longest = len;
  for (int k = 0; k < l->front; k++) {
    l->prompt_at[l->n_prompt] = row + k;
    l->prompt_row[l->n_prompt++] = k;
  }
  l->first[i] = row += l->front;
  for (int k = 0; k < v->n; k++, row++) {
    l->ids[row] = v->input ? v->input[k] : v->ids[k];
    if (!read || k + 1 == v->n || v->weight[k + 1] == 0) continue;
    l->rows[l->n_rows] = row;
    l->of[l->n_rows] = i;
    l->next[l->n_rows++] = k + 1;
  }
}

int nm__slot_fill(struct nm__slot *l, nm_err *err) {
  int row = 0;
  for (int i = 0; i < l->n; i++)
    if (l->v[i]->n) l->T += l->v[i]->n + l->front;
  int st = take(l, err);
  for (int i = 0; i < l->n && !st; i++) {
    if (!l->v[i]->n) continue;
    one_sample(l, i, row);
    row += l->v[i]->n + l->front;
  }
  return st;
}

void nm__slot_done(struct nm__slot *l) {
  free(l->spans);
  free(l->first);
  free(l->ids);
  free(l->rows);
  free(l->of);
  free(l->next);
  free(l->prompt_at);
  free(l->prompt_row);
}
