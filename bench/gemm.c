/* gemm.c - gemm f32|bf16 M N K [THREADS]: the op matmul as models run it, x [M, K] with weights
 * [N, K] stored in that type. GFLOP/s on the last line, the median of nine. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/ops.h"

enum { REPS = 9 };

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  if (argc < 5) return 2;
  bool bf16 = !strcmp(argv[1], "bf16");
  int64_t M = atol(argv[2]), N = atol(argv[3]), K = atol(argv[4]);
  if (M < 1 || N < 1 || K < 1 || M * K > 1 << 28 || N * K > 1 << 28 || M * N > 1 << 28) return 2;
  uint32_t type = bf16 ? NM__BF16 : NM__F32;
  const struct nm__dtype_info *t = nm__dtype(type);
  size_t row = (size_t)(K / t->block * t->bytes);
  float *x = malloc((size_t)(M * K) * sizeof *x), *one = malloc((size_t)K * sizeof *one);
  uint8_t *w = aligned_alloc(64, ((size_t)N * row + 63) / 64 * 64);
  struct nm__ops o = {.mode = NM__RUN, .kern = nm__kern_find(NULL), .bf16 = bf16};
  size_t room = sizeof(float) * (size_t)(M * N + 4 * M * K + 4 * K * 512) + (1 << 26);
  if (!x || !one || !w || nm__arena_init(&o.arena, room, NULL)) return 4;
  if (nm__pool_new(argc > 5 ? atoi(argv[5]) : 2, &o.pool, NULL)) return 1;
  for (int64_t i = 0; i < M * K; i++) x[i] = (float)((i * 7907 + 11) % 1013) / 1013 - 0.5f;
  for (int64_t j = 0; j < N; j++) {
    for (int64_t k = 0; k < K; k++) one[k] = (float)(((j * K + k) * 7919 + 13) % 1009) / 1009 - 0.5f;
    t->from_f32(w + (size_t)j * row, one, K);
  }
  struct nm__op_args a = {.x = {.d = x, .rows = M, .cols = K}, .w = {w, type, N, K, row}};
  double s[REPS];
  for (int r = -1; r < REPS; r++) {
    o.arena.used = 0;
    double t0 = nm__now();
    nm__op(&o, NM__OP_MATMUL, &a);
    if (o.err.status) return fprintf(stderr, "gemm: %s\n", o.err.text), 1;
    if (r >= 0) s[r] = nm__now() - t0;
  }
  qsort(s, REPS, sizeof *s, by_value);
  printf("%.2f\n", 2.0 * (double)M * (double)N * (double)K / s[REPS / 2] / 1e9);
  nm__pool_free(o.pool);
  return 0;
}
