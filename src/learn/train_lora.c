/* train_lora.c - the adapter that a run trains, as a container: of its checkpoints and of
 * adapter.gguf. It names the model it stands on, so that it opens as one. A soft prompt is a part
 * of it that only training reads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "learn/train.h"
#include "model/adapter.h"
#include "model/hf.h"

/* The rows of B are those of its weight, and move with them: they are turned under that name. */
static int add_part(struct nm__gguf *g, const struct nm__training *t, const struct nm__learned *v,
                    nm_err *err) {
  char base[sizeof v->name];
  size_t n = strlen(v->name), cut = sizeof ".lora_b" - 1;
  bool b = n > cut && !strcmp(v->name + n - cut, ".lora_b");
  snprintf(base, sizeof base, "%.*s", b ? (int)(n - cut) : (int)n, v->name);
  struct nm__gguf_tensor rows = {.name = base, .type = NM__F32, .n_dims = 2,
                                 .ne = {v->cols, v->rows, 1, 1},
                                 .bytes = sizeof(float) * (uint64_t)(v->rows * v->cols),
                                 .data = (const uint8_t *)(t->p.values + v->at)};
  uint8_t *made;
  const uint8_t *data = nm__hf_file_order(t->m->g, &rows, &made, err);
  if (!data) return NM_EMEMORY;
  if (made) {                      /* goes with the container */
    uint8_t *own = nm__gguf_own(g, (size_t)rows.bytes, 1, err);
    if (own) memcpy(own, made, (size_t)rows.bytes);
    free(made);
    if (!(data = own)) return NM_EMEMORY;
  }
  return nm__gguf_add_tensor(g, v->name, NM__F32, 2, rows.ne, data, err);
}

static bool is_part(const char *name) {
  size_t n = strlen(name), cut = sizeof ".lora_b" - 1;
  const char *end = n > cut ? name + n - cut : "";
  return !strcmp(end, ".lora_a") || !strcmp(end, ".lora_b") || !strcmp(name, "prompt");
}

int nm__training_adapter(struct nm__training *t, struct nm__gguf **out, nm_err *err) {
  struct nm__gguf *g;
  const char *arch = t->m->arch->name, *kind = t->p.n_lora ? "lora" : "prompt";
  int st = nm__gguf_new(t->dir, "GGUF", &g, err);
  if (st) return st;
  st = nm__gguf_add_string(g, "general.type", "adapter", 7, err);
  if (!st) st = nm__gguf_add_string(g, "general.architecture", arch, strlen(arch), err);
  if (!st) st = nm__gguf_add_string(g, "adapter.type", kind, strlen(kind), err);
  if (!st && t->p.n_lora)
    st = nm__gguf_add_f32(g, "adapter.lora.alpha", (float)t->r.lora_alpha, err);
  if (!st && t->p.n_lora) st = nm__adapter_put_base(g, t->m, err);
  for (int i = 0; i < t->p.n && !st; i++)
    if (is_part(t->p.v[i].name)) st = add_part(g, t, &t->p.v[i], err);
  if (st) nm__gguf_close(g);
  else *out = g;
  return st;
}
