/* kern_gemm.h - the product c[i][j] = x[i] . w[j]; kern_body.h includes it once for f32 and
 * once for bf16 and says what an element (ELEM) is, how many of them one step takes (STEP: 16, or
 * 16 pairs), and how a register of them is loaded (LOAD_P) and multiplied into 16 sums (DOT_P).
 *
 * The register tile TILE_X x TILE_W (AVX-512: 6 x 4, 24 of 32 registers):
 *
 *              w[j] w[j+1] w[j+2] w[j+3]     each [] is one v16 of 16 partial sums,
 *        x[i]   []    []     []     []       kept over the whole row length k and
 *        ...                                 folded by the fixed tree at the end:
 *      x[i+5]   []    []     []     []       four sums at once, a row of c
 *
 * Long rows are taken in blocks of BLOCK bytes, so that a strip of x stays in the first-level
 * cache while the rows of w stream past from the second. Sums wait between blocks in `wait`; to
 * store and load a sum changes no bit of it.
 *
 *        k ->   block 0    block 1   ...
 *      x strip [ 6 x 2 KB | 6 x 2 KB |    ]
 *      w tile  [  n rows  |  n rows  |    ]                                              */

/* One step of STEP elements is taken in PARTS pieces (AVX2: two halves), so that one
 * piece of every row of w and the sums fit the registers together. Row i of x lies at
 * x + i rs, its next step ss further. */
INLINE void NAME(steps)(part acc[TILE_X][TILE_W][PARTS], const ELEM *x, size_t rs, size_t ss,
                        const ELEM *w, size_t ldw, int n, const int nx, const int nw) {
  for (int s = 0; s < n; s++, x += ss, w += STEP) {
    UNROLL for (int p = 0; p < PARTS; p++) {
      PART b[TILE_W];
      UNROLL for (int j = 0; j < nw; j++) b[j] = LOAD_P(w + (size_t)j * ldw, p);
      UNROLL for (int i = 0; i < nx; i++) {
        PART a = LOAD_P(x + (size_t)i * rs, p);
        __asm__("" : P_KEEP(a));   /* or gcc loads it again for each product */
        UNROLL for (int j = 0; j < nw; j++) acc[i][j][p] = DOT_P(acc[i][j][p], a, b[j]);
      }
    }
  }
}

/* The last, short step, continued by zeros. */
INLINE void NAME(tail)(part acc[TILE_X][TILE_W][PARTS], const ELEM *x, size_t rs, const ELEM *w,
                       size_t ldw, int left, const int nx, const int nw) {
  ELEM xs[TILE_X * STEP] = {0}, ws[TILE_W * STEP] = {0};
  size_t bytes = sizeof(ELEM) * (size_t)left;
  for (int i = 0; i < nx; i++) memcpy(xs + i * STEP, x + (size_t)i * rs, bytes);
  for (int j = 0; j < nw; j++) memcpy(ws + j * STEP, w + (size_t)j * ldw, bytes);
  NAME(steps)(acc, xs, STEP, 0, ws, STEP, 1, nx, nw);
}

INLINE void NAME(fold)(float *c, size_t ldc, part acc[TILE_X][TILE_W][PARTS], const int nx,
                       const int nw) {
  UNROLL for (int i = 0; i < nx; i++) {
    if (nw == 4)
      SUM4(c + (size_t)i * ldc, p_join(acc[i][0]), p_join(acc[i][1]), p_join(acc[i][2 % TILE_W]),
           p_join(acc[i][3 % TILE_W]));
    else
      UNROLL for (int j = 0; j < nw; j++) c[(size_t)i * ldc + (size_t)j] = SUM(p_join(acc[i][j]));
  }
}

INLINE void NAME(zero)(part acc[TILE_X][TILE_W][PARTS], const int nx, const int nw) {
  UNROLL for (int i = 0; i < nx; i++) UNROLL for (int j = 0; j < nw; j++)
    UNROLL for (int p = 0; p < PARTS; p++) acc[i][j][p] = p_zero();
}

/* A tile over k elements of its rows. The sums come from `wait` (not in the first block) and go
 * there, or, after the last, to c. */
INLINE void NAME(tile)(float *c, size_t ldc, const ELEM *x, size_t rs, size_t ss, const ELEM *w,
                       size_t ldw, int k, float *wait, bool first, bool last, const int nx,
                       const int nw) {
  part acc[TILE_X][TILE_W][PARTS];
  size_t n = (size_t)k / STEP;
  UNROLL for (int i = 0; i < nx; i++) UNROLL for (int j = 0; j < nw; j++)
    UNROLL for (int p = 0; p < PARTS; p++)
      acc[i][j][p] = first ? p_zero() : p_load(wait + (i * nw + j) * 16, p);
  NAME(steps)(acc, x, rs, ss, w, ldw, (int)n, nx, nw);
  if (n * STEP < (size_t)k)
    NAME(tail)(acc, x + n * ss, rs, w + n * STEP, ldw, k - (int)n * STEP, nx, nw);
  if (last) NAME(fold)(c, ldc, acc, nx, nw);
  else
    UNROLL for (int i = 0; i < nx; i++) UNROLL for (int j = 0; j < nw; j++)
      v_store(wait + (i * nw + j) * 16, p_join(acc[i][j]));
}

/* nx rows of x against n rows of w. */
INLINE void NAME(strip)(float *c, size_t ldc, const ELEM *x, size_t rs, size_t ss, const ELEM *w,
                        size_t ldw, int n, int k, const int nx) {
  enum { K = BLOCK / sizeof(ELEM), N = 32 };
  __attribute__((aligned(64))) float wait[N * TILE_X * 16];
  for (int n0 = 0; n0 < n; n0 += N, c += N, w += N * ldw) {
    int cols = n - n0 < N ? n - n0 : N;
    for (int s = 0; s < k; s += K) {
      int left = k - s < K ? k - s : K, j = 0;
      bool first = s == 0, last = s + left == k;
      const ELEM *xs = x + (size_t)s / STEP * ss;
      for (; j + TILE_W <= cols; j += TILE_W)
        NAME(tile)(c + j, ldc, xs, rs, ss, w + (size_t)j * ldw + s, ldw, left,
                   wait + j * TILE_X * 16, first, last, nx, TILE_W);
      for (; j < cols; j++)
        NAME(tile)(c + j, ldc, xs, rs, ss, w + (size_t)j * ldw + s, ldw, left,
                   wait + j * TILE_X * 16, first, last, nx, 1);
    }
  }
}

/* A single row of x is bound by reading w: one row after the other is one sequential stream,
 * the fastest way to read memory that was measured. Short rows come from a cache. */
static void NAME(row_of_x)(float *c, const ELEM *x, const ELEM *w, size_t ldw, int n, int k) {
  int j = 0;
  if (k <= 256)
    for (; j + TILE_W <= n; j += TILE_W)
      NAME(tile)(c + j, 0, x, 0, STEP, w + (size_t)j * ldw, ldw, k, NULL, true, true, 1, TILE_W);
  for (; j < n; j++)
    NAME(tile)(c + j, 0, x, 0, STEP, w + (size_t)j * ldw, ldw, k, NULL, true, true, 1, 1);
}

/* Rows of x as they lie, ldx apart; ldx 0: packed (kern.h), the steps of NX rows in turn. */
#define STRIP(NX) \
  static void NAME(strip_##NX)(float *c, size_t ldc, const ELEM *x, size_t ldx, const ELEM *w, \
                               size_t ldw, int n, int k) { \
    if (ldx) NAME(strip)(c, ldc, x, ldx, STEP, w, ldw, n, k, NX); \
    else NAME(strip)(c, ldc, x, STEP, NX * STEP, w, ldw, n, k, NX); \
  }
STRIP(2)
#if TILE_X >= 3
STRIP(3)
#endif
#if TILE_X >= 6
STRIP(4)
STRIP(5)
STRIP(6)
#endif
#undef STRIP

static void NAME(gemm)(float *c, size_t ldc, const ELEM *x, size_t ldx, int m, const ELEM *w,
                       size_t ldw, int n, int k) {
  static void (*const strip[])(float *, size_t, const ELEM *, size_t, const ELEM *, size_t, int,
                               int) = {
      NULL, NULL, NAME(strip_2),
#if TILE_X >= 3
      NAME(strip_3),
#endif
#if TILE_X >= 6
      NAME(strip_4), NAME(strip_5), NAME(strip_6),
#endif
  };
  size_t ld = ldx ? ldx : nm__packed(k);
  for (int i = 0; i < m;) {
    int rows = m - i < TILE_X ? m - i : TILE_X;
    if (rows == 1) NAME(row_of_x)(c + (size_t)i * ldc, x + (size_t)i * ld, w, ldw, n, k);
    else strip[rows](c + (size_t)i * ldc, ldc, x + (size_t)i * ld, ldx, w, ldw, n, k);
    i += rows;
  }
}

/* Rows of f32 to packed ones: strips of TILE_X rows, in each the first STEP elements of all its
 * rows, then the next; every row continued by zeros. */
static void NAME(pack)(ELEM *to, const float *x, size_t ldx, int m, int k) {
  for (int i0 = 0; i0 < m; i0 += TILE_X) {
    int nx = m - i0 < TILE_X ? m - i0 : TILE_X;
    for (int s = 0; s < (int)nm__packed(k); s += STEP)
      for (int i = i0; i < i0 + nx; i++, to += STEP)
        CONVERT(to, x + (size_t)i * ldx + s, k - s < STEP ? k - s > 0 ? k - s : 0 : STEP);
  }
}

#undef NAME
#undef ELEM
#undef STEP
#undef PART
#undef LOAD_P
#undef DOT_P
#undef SUM
#undef SUM4
#undef CONVERT
