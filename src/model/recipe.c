/* recipe.c - which stored type a tensor gets: the mixtures other writers of GGUF use under the
 * same names, so that a file of that name has the size and the quality a reader expects.
 *
 * A mixture gives more bits where they help most: to the output matrix (or the embedding that
 * serves as one), and in some blocks to the values of attention and to the second matrix of the
 * MLP. Those blocks are the first eighth, the last eighth, and every third in between. */
#include "model/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { Q4_K = 12, Q5_K = 13, Q6_K = 14 };

static const struct nm__recipe recipes[] = {
    {"F32", NM__F32, 0, false, 0},     {"F16", NM__F16, 1, false, 0},
    {"BF16", NM__BF16, 32, false, 0},  {"Q8_0", NM__Q8_0, 7, true, 0},
    {"Q6_K", Q6_K, 18, true, 0},       {"Q5_K_M", Q5_K, 17, true, 'M'},
    {"Q5_K_S", Q5_K, 16, true, 'S'},   {"Q5_K", Q5_K, 16, false, 0},
    {"Q5_1", NM__Q5_1, 9, true, 0},    {"Q5_0", NM__Q5_0, 8, true, 0},
    {"Q4_K_M", Q4_K, 15, true, 'M'},   {"Q4_K_S", Q4_K, 14, true, 'S'},
    {"Q4_K", Q4_K, 14, false, 0},      {"Q4_1", NM__Q4_1, 3, true, 0},
    {"Q4_0", NM__Q4_0, 2, true, 0},
};
enum { N_RECIPES = sizeof recipes / sizeof *recipes };

const struct nm__recipe *nm__recipe_find(const char *name) {
  for (int i = 0; i < N_RECIPES; i++)
    if (!strcasecmp(recipes[i].name, name)) return &recipes[i];
  return NULL;
}

void nm__recipe_names(struct nm__buf *b) {
  for (int i = 0; i < N_RECIPES; i++) nm__buf_printf(b, "%s%s", i ? ", " : "", recipes[i].name);
}

/* ---- facts ------------------------------------------------------------------- */


/* 7 of "blk.7.attn_v.weight", or -1. */
static int block_of(const char *name) {
  if (strncmp(name, "blk.", 4) || name[4] < '0' || name[4] > '9') return -1;
  long v = strtol(name + 4, NULL, 10);
  return v < 1 << 20 ? (int)v : -1;
}

/* A small number under ARCH.key; 0 where it is absent or no number. */
static int fact(const struct nm__gguf *g, struct nm__str arch, const char *key) {
  char k[160];
  uint64_t v = 0;
  snprintf(k, sizeof k, "%.*s.%s", (int)(arch.n < 60 ? arch.n : 60), arch.s, key);
  const struct nm__gguf_kv *kv = nm__gguf_find(g, k);
  return kv && kv->type != NM__GGUF_ARRAY && !nm__gguf_uint(g, k, &v, NULL) && v < 1 << 20 ? (int)v
                                                                                        : 0;
}

int nm__recipe_facts(const struct nm__gguf *g, struct nm__recipe_facts *f, nm_err *err) {
  struct nm__str arch = {"", 0};
  nm__gguf_string(g, "general.architecture", &arch, NULL);
  *f = (struct nm__recipe_facts){
      .tied = !nm__gguf_tensor(g, "output.weight"),
      .falcon = arch.n == 6 && !memcmp(arch.s, "falcon", 6),
      .n_block = fact(g, arch, "block_count"), .n_expert = fact(g, arch, "expert_count")};
  f->seventy = f->n_block == 80 &&
               fact(g, arch, "attention.head_count") != fact(g, arch, "attention.head_count_kv");
  f->v_rank = nm__alloc((size_t)f->n_block + 1, sizeof *f->v_rank);
  if (!f->v_rank) return nm__fail_memory(err, "the list of blocks", (size_t)f->n_block * 4);
  for (size_t i = 0; i < g->n_tensors; i++) {
    const char *name = g->tensors[i].name;
    int b = block_of(name);
    f->n_v += strstr(name, "attn_v.weight") || strstr(name, "attn_qkv.weight");
    if (b >= 0 && b < f->n_block && strstr(name, "attn_v.weight")) f->v_rank[b] = 1;
  }
  for (int b = 0, n = 0; b < f->n_block; b++) {
    int has = f->v_rank[b];
    f->v_rank[b] = n;
    n += has;
  }
  return NM_OK;
}

void nm__recipe_facts_done(struct nm__recipe_facts *f) {
  free(f->v_rank);
  f->v_rank = NULL;
}

/* ---- the choice ---------------------------------------------------------------- */

static bool more_bits(int i, int n) {
  return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

/* Matrices that are multiplied with; the others are few, and read element by element. */
static bool is_matrix(const struct nm__gguf_tensor *t) {
  static const char *const plain[] = {"_norm.weight",       "ffn_gate_inp.weight",
                                      "position_embd.weight", "token_types.weight",
                                      "attn_rel_b.weight",    "ssm_conv1d.weight"};
  size_t n = strlen(t->name);
  if (t->ne[1] * t->ne[2] * t->ne[3] <= 1) return false;
  if (n < 6 || strcmp(t->name + n - 6, "weight") != 0) return false;
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
    if (strstr(t->name, plain[i])) return false;
  return true;
}

static uint32_t for_values(const struct nm__recipe *r, const struct nm__recipe_facts *f, int b) {
  uint32_t type = r->type;
  int rank = b >= 0 && b < f->n_block ? f->v_rank[b] : 0;
  if (r->size == 'M' && more_bits(rank, f->n_v)) type = Q6_K;
  if (r->size == 'S' && r->type == Q4_K && rank < 4) type = Q5_K;
  if (f->seventy && type == Q4_K) type = Q5_K;       /* few and shared by eight heads */
  return f->n_expert == 8 ? NM__Q8_0 : type;
}

static uint32_t for_down(const struct nm__recipe *r, const struct nm__recipe_facts *f, int b) {
  bool first = b < f->n_block / 8;
  if (r->size == 'S') return r->type == Q4_K && !f->falcon && first ? Q5_K : r->type;
  if (r->size != 'M') return r->type;
  if (f->falcon && r->type == Q4_K)
    return b < f->n_block / 16 ? Q6_K : more_bits(b, f->n_block) ? Q5_K : Q4_K;
  return more_bits(b, f->n_block) ? Q6_K : r->type;
}

static uint32_t mixture(const struct nm__recipe *r, const struct nm__recipe_facts *f,
                        const struct nm__gguf_tensor *t) {
  const char *name = t->name;
  int b = block_of(name);
  if (!strcmp(name, f->tied ? "token_embd.weight" : "output.weight"))
    return f->falcon || t->ne[0] % nm__dtype(r->type)->block ? NM__Q8_0
           : r->type == NM__Q8_0                             ? NM__Q8_0
                                                             : Q6_K;
  if (!strcmp(name, "token_embd.weight")) return r->type;
  if (strstr(name, "attn_v.weight")) return for_values(r, f, b);
  if (strstr(name, "attn_k.weight") && f->n_expert == 8) return NM__Q8_0;
  if (strstr(name, "ffn_down")) return for_down(r, f, b);
  if (strstr(name, "attn_output.weight") && f->n_expert == 8 && !f->falcon && r->size &&
      r->type == Q4_K)
    return Q5_K;
  if (strstr(name, "attn_qkv.weight") && r->size == 'M') return r->type == Q4_K ? Q5_K : Q6_K;
  return r->type;
}

uint32_t nm__recipe_fit(uint32_t type, int64_t n) {
  static const uint32_t instead[][2] = {{Q4_K, NM__Q5_0}, {Q5_K, NM__Q5_1}, {Q6_K, NM__Q8_0}};
  for (size_t i = 0; i < 3 && n % nm__dtype(type)->block; i++)
    if (type == instead[i][0]) type = instead[i][1];
  return n % nm__dtype(type)->block ? NM__F16 : type;
}

uint32_t nm__recipe_type(const struct nm__recipe *r, const struct nm__recipe_facts *f,
                         const struct nm__gguf_tensor *t) {
  if (!nm__dtype(t->type)->to_f32) return t->type;
  if (!is_matrix(t)) return NM__F32;
  if (!r) return t->type;
  return nm__recipe_fit(r->mixed ? mixture(r, f, t) : r->type, t->ne[0]);
}
