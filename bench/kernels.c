/* kernels.c - the f32 formula against the machine's limits: 512 x 4864 x 896 and
 * one row of it, for each kernel set, with the peak and the read bandwidth measured
 * in the same run. Prints medians and checks that all sets give equal bytes. */
#include "tensor/kern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { M = 512, N = 4864, K = 896, TILE = 32, REPS = 9 };

struct job {
  const struct nm__kern *k;
  float *c;
  const float *x, *w;
  int m, n;
};

static void product_tile(void *v, int t, int thread) {
  (void)thread;
  struct job *j = v;
  int n = j->n - t * TILE < TILE ? j->n - t * TILE : TILE;
  j->k->gemm(j->c + t * TILE, (size_t)j->n, j->x, K, j->m, j->w + (size_t)t * TILE * K, K, n, K);
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Median seconds of one product over REPS runs. */
static double time_product(struct nm__pool *pool, struct job *j) {
  double t[REPS];
  for (int r = 0; r < REPS; r++) {
    double t0 = nm__now();
    nm__pool_run(pool, (j->n + TILE - 1) / TILE, product_tile, j);
    t[r] = nm__now() - t0;
  }
  qsort(t, REPS, sizeof *t, by_value);
  return t[REPS / 2];
}

static void peak_tile(void *v, int t, int thread) {
  (void)t, (void)thread;
  volatile float sink = ((const struct nm__kern *)v)->fma_peak(4000000);
  (void)sink;
}

static void read_tile(void *v, int t, int thread) {
  (void)thread;
  struct job *j = v;
  size_t n = (size_t)1 << 22;
  volatile float sink = j->k->dot(j->w + (size_t)t * n, j->w + (size_t)t * n, (int64_t)n);
  (void)sink;
}

static double read_bandwidth(struct nm__pool *pool, const struct nm__kern *k, const float *big) {
  double t[REPS];
  struct job j = {.k = k, .w = big};
  for (int r = 0; r < REPS; r++) {
    double t0 = nm__now();
    nm__pool_run(pool, 16, read_tile, &j);
    t[r] = nm__now() - t0;
  }
  qsort(t, REPS, sizeof *t, by_value);
  return 16.0 * 4 * (1 << 22) / t[REPS / 2] / 1e9;
}

static double peak_gflops(struct nm__pool *pool, const struct nm__kern *k) {
  double best = 0;
  int tiles = nm__pool_size(pool);
  for (int r = 0; r < 5; r++) {
    double t0 = nm__now();
    nm__pool_run(pool, tiles, peak_tile, (void *)(uintptr_t)k);
    double g = tiles * 4e6 * 12 * 2 * k->lanes / (nm__now() - t0) / 1e9;
    best = g > best ? g : best;
  }
  return best;
}

static void report(struct nm__pool *pool, const struct nm__kern *k, const float *x,
                   const float *big, float *c, const float *first) {
  struct job j = {k, c, x, big, M, N};
  bool slow = k == &nm__kern_portable;
  if (slow) j.m = 8;
  double peak = slow ? 0 : peak_gflops(pool, k), bw = read_bandwidth(pool, k, big);
  double t = time_product(pool, &j), g = 2.0 * j.m * N * K / t / 1e9;
  bool same = !first || !memcmp(c, first, sizeof(float) * (size_t)j.m * N);
  /* One row over 14 different matrices, so that nothing is left in a cache. */
  struct job one = {k, c + (size_t)M * N, x, big, 1, 14 * N};
  double tr = time_product(pool, &one), b = 14.0 * N * K * 4 / tr / 1e9;
  printf("%-9s %d threads  %3dx%dx%d %7.1f GFLOP/s", k->name, nm__pool_size(pool), j.m, N, K, g);
  if (peak > 0) printf(" = %.2f of the %.0f peak", g / peak, peak);
  printf("; one row %5.1f GB/s = %.2f of the %.1f read; bytes %s\n", b, b / bw, bw,
         same ? "equal" : "DIFFER");
}

int main(void) {
  size_t big_n = (size_t)1 << 26;
  float *x = aligned_alloc(64, sizeof(float) * M * K),
        *big = aligned_alloc(64, big_n * sizeof(float));
  float *c = malloc(sizeof(float) * ((size_t)M * N + 14 * N)),
        *first = malloc(sizeof(float) * M * N);
  if (!x || !big || !c || !first) return 4;
  for (size_t i = 0; i < (size_t)M * K; i++)
    x[i] = (float)((double)(nm__rand_at(1, 0, i) >> 11) * 0x1p-52 - 1);
  for (size_t i = 0; i < big_n; i++)
    big[i] = (float)((double)(nm__rand_at(1, 1, i) >> 11) * 0x1p-52 - 1);
  for (int threads = 1; threads <= 2; threads++) {
    struct nm__pool *pool;
    if (nm__pool_new(threads, &pool, NULL)) return 1;
    const struct nm__kern *best = nm__kern_find(NULL);
    struct job j = {best, first, x, big, M, N};
    nm__pool_run(pool, N / TILE, product_tile, &j);
    for (int i = 0; nm__kern_at(i); i++)
      if (nm__kern_at(i)->usable()) report(pool, nm__kern_at(i), x, big, c, first);
    nm__pool_free(pool);
  }
  return 0;
}
