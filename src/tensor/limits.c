/* limits.c - what this machine can do at most: operations a second in registers, bytes a
 * second out of memory. Every figure of the bench stands beside one of these, measured in the
 * same minute: a shared machine's limits move by a quarter within an hour. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "tensor/kern.h"

enum { BLOCKS = 16, BEST_OF = 5 };
static const size_t MEMORY = (size_t)1 << 30;

struct nm_meter {
  struct nm__pool *pool;
  const struct nm__kern *kern;
  uint8_t *memory;
  int64_t steps;
  uint64_t sink[BLOCKS];
};

typedef uint64_t words __attribute__((vector_size(64)));

/* One sequential stream, no hints: the fastest way that was found to read memory. */
static uint64_t sum_of(const uint8_t *p, size_t n) {
  words s[4] = {{0}};
  for (size_t i = 0; i < n; i += 4 * sizeof *s)
    for (size_t k = 0; k < 4; k++) s[k] += *(const words *)(p + i + k * sizeof *s);
  s[0] += s[1] + s[2] + s[3];
  uint64_t t = 0;
  for (int k = 0; k < 8; k++) t += s[0][k];
  return t;
}

static void read_block(void *v, int i, int thread) {
  struct nm_meter *m = v;
  (void)thread;
  m->sink[i] = sum_of(m->memory + (size_t)i * (MEMORY / BLOCKS), MEMORY / BLOCKS);
}

static void f32_block(void *v, int i, int thread) {
  struct nm_meter *m = v;
  (void)thread;
  m->sink[i % BLOCKS] = (uint64_t)m->kern->fma_peak(m->steps);
}

#if defined(__x86_64__)
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 12")
#endif

static bool has_bf16(void) { return __builtin_cpu_supports("avx512bf16"); }

/* Twelve independent chains, as in fma_peak (kern_body.h); 64 operations an instruction. Loops are
 * unrolled, or the chains would live in memory. */
__attribute__((target("avx512f,avx512bf16"))) static void bf16_block(void *v, int i, int thread) {
  struct nm_meter *m = v;
  __m512 a[12];
  __m512i x = _mm512_setzero_si512();
  (void)thread;
  UNROLL for (int k = 0; k < 12; k++) a[k] = _mm512_setzero_ps();
#define STEP(k) __asm__ volatile("vdpbf16ps %1, %1, %0" : "+v"(a[k]) : "v"(x))
  for (int64_t s = 0; s < m->steps; s++) {
    STEP(0); STEP(1); STEP(2); STEP(3); STEP(4); STEP(5);
    STEP(6); STEP(7); STEP(8); STEP(9); STEP(10); STEP(11);
  }
#undef STEP
  float t = 0;
  UNROLL for (int k = 0; k < 12; k++) t += _mm512_cvtss_f32(a[k]);
  m->sink[i % BLOCKS] = (uint64_t)t;
}
#else
static bool has_bf16(void) { return false; }
static void bf16_block(void *v, int i, int thread) { (void)v, (void)i, (void)thread; }
#endif

int nm_meter_new(int threads, nm_meter **out, nm_err *err) {
  struct nm_meter *m = *out = nm__alloc(1, sizeof *m);
  if (!m) return nm__fail_memory(err, "the meter", sizeof *m);
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  m->kern = nm__kern_find(NULL);
  m->steps = 2000000;
  m->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int st = NM_OK;
  if (m->memory == MAP_FAILED) {
    m->memory = NULL;
    st = nm__fail_memory(err, "the memory to read", MEMORY);
  } else {
    madvise(m->memory, MEMORY, MADV_HUGEPAGE);         /* a wish; without it pages are small */
    memset(m->memory, 1, MEMORY);
  }
  if (!st) st = nm__pool_new(threads ? threads : (int)(cores > 0 ? cores : 1), &m->pool, err);
  if (st) {
    nm_meter_free(m);
    *out = NULL;
  }
  return st;
}

void nm_meter_free(nm_meter *m) {
  if (!m) return;
  nm__pool_free(m->pool);
  if (m->memory) munmap(m->memory, MEMORY);
  free(m);
}

int nm_meter_threads(const nm_meter *m) { return nm__pool_size(m->pool); }

double nm_meter_run(nm_meter *m, enum nm_limit which) {
  int n = nm__pool_size(m->pool);
  double work = (double)MEMORY, best = 0;
  if (which == NM_LIMIT_BF16 && !has_bf16()) return 0;
  if (which == NM_LIMIT_F32) work = 12.0 * 2 * m->kern->lanes * (double)m->steps * n;
  if (which == NM_LIMIT_BF16) work = 12.0 * 64 * (double)m->steps * n;
  for (int r = 0; r < BEST_OF; r++) {
    double t0 = nm__now();
    if (which == NM_LIMIT_READ) nm__pool_run(m->pool, BLOCKS, read_block, m);
    else nm__pool_run(m->pool, n, which == NM_LIMIT_F32 ? f32_block : bf16_block, m);
    double rate = work / (nm__now() - t0);
    best = rate > best ? rate : best;
  }
  return best;
}
