/* kern_chain.h - products whose sum runs over rows of b: gradients and weighted sums; kern_body.h
 * includes it once for f32 and once for pairs of bf16, as kern_gemm.h. Each element is one chain,
 * s ascending; a lane is an output, so nothing is transposed and nothing folded:
 *
 *              b[s][j..]  (CHAIN_W registers)
 *     a[i][s]      []  []  []  []         six rows of a, each element of them broadcast
 *     ...
 */
#define CHAIN_HEAD(name) \
  INLINE void NAME(name)(float *c, size_t ldc, const ELEM *a, size_t ai, size_t as, \
                         const ELEM *b, size_t ldb, int k, bool go_on, const int nx, const int nw)

/* nw registers of columns. */
CHAIN_HEAD(chain_tile) {
  part acc[CHAIN_X][CHAIN_MOST];
  UNROLL for (int i = 0; i < nx; i++) UNROLL for (int j = 0; j < nw; j++)
    acc[i][j] = go_on ? p_load(c + (size_t)i * ldc + j * LANES, 0) : p_zero();
  for (int s = 0; s < k; s++, a += as, b += ldb) {
    PART v[CHAIN_MOST];
    UNROLL for (int j = 0; j < nw; j++) v[j] = LOAD_P(b + j * LANES);
    UNROLL for (int i = 0; i < nx; i++) {
      PART f = SET_P(a[(size_t)i * ai]);
      __asm__("" : P_KEEP(f));
      UNROLL for (int j = 0; j < nw; j++) acc[i][j] = DOT_P(acc[i][j], f, v[j]);
    }
  }
  UNROLL for (int i = 0; i < nx; i++) UNROLL for (int j = 0; j < nw; j++) {
    float *to = c + (size_t)i * ldc + j * LANES;
    p_store(to, go_on ? acc[i][j] : ADD_P(p_load(to, 0), acc[i][j]));
  }
}

/* The last nw < 16 columns: as sixteen, of which some are zero. */
CHAIN_HEAD(chain_rest) {
  enum { ROWS_OF_B = 32 };
  float sum[CHAIN_X * 16] = {0}, held[CHAIN_X * 16] = {0};
  ELEM wide[ROWS_OF_B * 16] = {0};
  for (int i = 0; i < nx; i++)
    memcpy((go_on ? sum : held) + i * 16, c + (size_t)i * ldc, sizeof(float) * (size_t)nw);
  for (int s = 0; s < k; s += ROWS_OF_B) {
    int n = k - s < ROWS_OF_B ? k - s : ROWS_OF_B;
    for (int r = 0; r < n; r++)
      memcpy(wide + r * 16, b + (size_t)(s + r) * ldb, sizeof(ELEM) * (size_t)nw);
    NAME(chain_tile)(sum, 16, a + (size_t)s * as, ai, as, wide, 16, n, true, nx, 16 / LANES);
  }
  for (int i = 0; !go_on && i < nx * 16; i += LANES)
    p_store(sum + i, ADD_P(p_load(held + i, 0), p_load(sum + i, 0)));
  for (int i = 0; i < nx; i++)
    memcpy(c + (size_t)i * ldc, sum + i * 16, sizeof(float) * (size_t)nw);
}

/* NX rows of c, at most as many columns as a register tile has. */
#define CHAIN_ROWS(NX) \
  static void NAME(chain_##NX)(float *c, size_t ldc, const ELEM *a, size_t ai, size_t as, \
                               const ELEM *b, size_t ldb, int n, int k, bool go_on) { \
    int j = 0; \
    for (; j + CHAIN_W * LANES <= n; j += CHAIN_W * LANES) \
      NAME(chain_tile)(c + j, ldc, a, ai, as, b + j, ldb, k, go_on, NX, CHAIN_W); \
    for (; j + 32 <= n && CHAIN_W * LANES > 32; j += 32) \
      NAME(chain_tile)(c + j, ldc, a, ai, as, b + j, ldb, k, go_on, NX, 32 / LANES); \
    for (; j + 16 <= n; j += 16) \
      NAME(chain_tile)(c + j, ldc, a, ai, as, b + j, ldb, k, go_on, NX, 16 / LANES); \
    if (j < n) NAME(chain_rest)(c + j, ldc, a, ai, as, b + j, ldb, k, go_on, NX, n - j); \
  }
CHAIN_ROWS(1)
CHAIN_ROWS(2)
CHAIN_ROWS(3)
CHAIN_ROWS(4)
CHAIN_ROWS(5)
CHAIN_ROWS(6)
#undef CHAIN_ROWS
#undef CHAIN_HEAD

static void NAME(chain)(float *c, size_t ldc, const ELEM *a, size_t ai, size_t as, int m,
                        const ELEM *b, size_t ldb, int n, int k, bool go_on) {
  static void (*const rows[])(float *, size_t, const ELEM *, size_t, size_t, const ELEM *, size_t,
                              int, int, bool) = {
      NULL, NAME(chain_1), NAME(chain_2), NAME(chain_3), NAME(chain_4), NAME(chain_5),
      NAME(chain_6)};
  enum { PANEL = CHAIN_W * LANES };
  for (int j = 0; j < n; j += PANEL)
    for (int i = 0; i < m; i += CHAIN_X)
      rows[m - i < CHAIN_X ? m - i : CHAIN_X](c + (size_t)i * ldc + j, ldc, a + (size_t)i * ai,
                                              ai, as, b + j, ldb, n - j < PANEL ? n - j : PANEL,
                                              k, go_on);
}

#undef NAME
#undef ELEM
#undef PART
#undef LOAD_P
#undef SET_P
#undef DOT_P
#undef ADD_P
