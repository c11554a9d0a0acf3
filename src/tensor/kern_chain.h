/* kern_chain.h - products whose sum runs over rows of b: gradients and weighted sums. Each element
 * is one chain, s ascending; a lane is an output, so nothing is transposed and nothing folded:
 *
 *              b[s][j..]  (CHAIN_W registers)
 *     a[i][s]      []  []  []  []         six rows of a, each number of them broadcast
 *     ...
 *
 * The end of kern_body.h includes it. */
enum { CHAIN_X = 6, LANES = sizeof(part) / sizeof(float) };

#define NEXT_TO(type, name) \
  __attribute__((always_inline)) static inline void name(float *c, size_t ldc, const float *a, \
                                                         size_t ai, size_t as, const float *b, \
                                                         size_t ldb, int k, bool go_on, \
                                                         const int nx, type nw)

/* nw registers of columns. */
NEXT_TO(const int, chain_tile) {
  part acc[CHAIN_X][CHAIN_W < 16 / LANES ? 16 / LANES : CHAIN_W];
  UNROLL for (int i = 0; i < nx; i++) UNROLL for (int j = 0; j < nw; j++)
    acc[i][j] = go_on ? p_load(c + (size_t)i * ldc + j * LANES, 0) : p_zero();
  for (int s = 0; s < k; s++, a += as, b += ldb) {
    part v[CHAIN_W < 16 / LANES ? 16 / LANES : CHAIN_W];
    UNROLL for (int j = 0; j < nw; j++) v[j] = p_load(b + j * LANES, 0);
    UNROLL for (int i = 0; i < nx; i++) {
      part f = p_set(a[(size_t)i * ai]);
      __asm__("" : P_KEEP(f));
      UNROLL for (int j = 0; j < nw; j++) acc[i][j] = p_fma(f, v[j], acc[i][j]);
    }
  }
  UNROLL for (int i = 0; i < nx; i++) UNROLL for (int j = 0; j < nw; j++) {
    float *to = c + (size_t)i * ldc + j * LANES;
    p_store(to, go_on ? acc[i][j] : p_add(p_load(to, 0), acc[i][j]));
  }
}

/* The last columns, fewer than 16. */
NEXT_TO(int, chain_rest) {
  v16 acc[CHAIN_X];
  UNROLL for (int i = 0; i < nx; i++)
    acc[i] = go_on ? v_load_n(c + (size_t)i * ldc, nw) : v_set(0.0f);
  for (int s = 0; s < k; s++, a += as, b += ldb) {
    v16 v = v_load_n(b, nw);
    UNROLL for (int i = 0; i < nx; i++) acc[i] = v_fma(v_set(a[(size_t)i * ai]), v, acc[i]);
  }
  UNROLL for (int i = 0; i < nx; i++) {
    float *to = c + (size_t)i * ldc;
    v_store_n(to, go_on ? acc[i] : v_add(v_load_n(to, nw), acc[i]), nw);
  }
}

/* nx rows of c, n <= a register tile's columns. */
#define CHAIN_ROWS(NX) \
  static void chain_##NX(float *c, size_t ldc, const float *a, size_t ai, size_t as, \
                         const float *b, size_t ldb, int n, int k, bool go_on) { \
    int j = 0; \
    for (; j + CHAIN_W * LANES <= n; j += CHAIN_W * LANES) \
      chain_tile(c + j, ldc, a, ai, as, b + j, ldb, k, go_on, NX, CHAIN_W); \
    for (; j + 32 <= n && CHAIN_W * LANES > 32; j += 32) \
      chain_tile(c + j, ldc, a, ai, as, b + j, ldb, k, go_on, NX, 32 / LANES); \
    for (; j + 16 <= n; j += 16) \
      chain_tile(c + j, ldc, a, ai, as, b + j, ldb, k, go_on, NX, 16 / LANES); \
    if (j < n) chain_rest(c + j, ldc, a, ai, as, b + j, ldb, k, go_on, NX, n - j); \
  }
CHAIN_ROWS(1)
CHAIN_ROWS(2)
CHAIN_ROWS(3)
CHAIN_ROWS(4)
CHAIN_ROWS(5)
CHAIN_ROWS(6)

static void chain(float *c, size_t ldc, const float *a, size_t ai, size_t as, int m,
                  const float *b, size_t ldb, int n, int k, bool go_on) {
  static void (*const rows[])(float *, size_t, const float *, size_t, size_t, const float *,
                              size_t, int, int, bool) = {NULL,    chain_1, chain_2, chain_3,
                                                         chain_4, chain_5, chain_6};
  enum { PANEL = CHAIN_W * LANES };
  for (int j = 0; j < n; j += PANEL)
    for (int i = 0; i < m; i += CHAIN_X)
      rows[m - i < CHAIN_X ? m - i : CHAIN_X](c + (size_t)i * ldc + j, ldc, a + (size_t)i * ai,
                                              ai, as, b + j, ldb, n - j < PANEL ? n - j : PANEL,
                                              k, go_on);
}
