/* ops_test.c - the table of operations (shapes, modes, memory, small results by hand), the
 * functions in double against libm, and that nothing in the library asks libm for a
 * function whose bits may differ from machine to machine. */
#include "tensor/math.h"
#include "tensor/moe.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- functions in double --------------------------------------------------- */

static double worst_of(double (*ours)(double), double (*theirs)(double), double from, double to,
                       bool absolute) {
  double worst = 0;
  for (int i = 0; i <= 20000; i++) {
    double x = from + (to - from) * i / 20000, want = theirs(x), e = fabs(ours(x) - want);
    if (!absolute) e /= fabs(want) > 1e-300 ? fabs(want) : 1e-300;
    worst = e > worst ? e : worst;
  }
  return worst;
}

static void functions(void **state) {
  (void)state;
  static const struct {
    const char *name;
    double (*ours)(double), (*theirs)(double);
    double from, to;
    bool absolute;
    double limit;
  } cases[] = {
      {"exp", nm__exp, exp, -700, 700, false, 1e-15},
      {"exp", nm__exp, exp, -1, 1, false, 5e-16},
      {"log", nm__log, log, 1e-6, 4, false, 1e-15},
      {"log", nm__log, log, 4, 1e9, false, 5e-16},
      {"log1p", nm__log1p, log1p, -0.9, 5, false, 1e-15},
      {"sin", nm__sin, sin, -30, 30, true, 5e-16},
      {"sin", nm__sin, sin, 0, 2e5, true, 1e-15},
      {"cos", nm__cos, cos, -30, 30, true, 5e-16},
      {"cos", nm__cos, cos, 0, 2e5, true, 1e-15},
      {"tanh", nm__tanh, tanh, -25, 25, false, 1e-15},
      {"tanh", nm__tanh, tanh, -0.4, 0.4, false, 1e-15},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    double e =
        worst_of(cases[i].ours, cases[i].theirs, cases[i].from, cases[i].to, cases[i].absolute);
    print_message("%-5s %8g..%-8g %.2g\n", cases[i].name, cases[i].from, cases[i].to, e);
    assert_true(e < cases[i].limit);
  }
  for (int i = 1; i < 2000; i++) {
    double x = 1.0 + i * 7.3, y = -2.0 * i / 2000;
    double units = fabs(nm__pow(x, y) / pow(x, y) - 1) / 2.2e-16;
    assert_true(units < 3 + fabs(y * log(x)));   /* log x is rounded once before it is scaled */
  }
}

static void function_edges(void **state) {
  (void)state;
  const double inf = INFINITY;
  assert_true(nm__exp(0) == 1 && nm__exp(-inf) == 0 && nm__exp(inf) == inf && nm__exp(1000) == inf);
  assert_true(nm__exp(NAN) != nm__exp(NAN) && nm__exp(-745.0) > 0 && nm__exp(709.7) < inf);
  assert_true(nm__log(1) == 0 && nm__log(0) == -inf && nm__log(inf) == inf);
  assert_true(nm__log(-1) != nm__log(-1) && nm__log(NAN) != nm__log(NAN));
  assert_true(fabs(nm__log(5e-324) - log(5e-324)) < 1e-12);
  assert_true(nm__tanh(inf) == 1 && nm__tanh(-inf) == -1 && nm__tanh(0) == 0);
  assert_true(nm__sin(0) == 0 && nm__cos(0) == 1);
  assert_true(nm__sqrt(2) == sqrt(2));
  assert_true(nm__sin(NAN) != nm__sin(NAN) && nm__cos(inf) != nm__cos(inf));
  nm__sin(1e300);                  /* no meaning, but no harm */
}

/* ---- the library's symbols ---------------------------------------------------- */

/* "exp", "expf", "expl" and the versioned spellings of `nm`. */
static bool forbidden(const char *symbol) {
  static const char *const names[] = {
      "exp", "exp2",   "exp10", "expm1", "log",    "log2",   "log10", "log1p", "sin",  "cos",
      "tan", "sincos", "asin",  "acos",  "atan",   "atan2",  "sinh",  "cosh",  "tanh", "pow",
      "erf", "erfc",   "cbrt",  "hypot", "tgamma", "lgamma",  "logb"};
  char s[64];
  snprintf(s, sizeof s, "%.60s", symbol);
  s[strcspn(s, "@\n ")] = 0;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    size_t n = strlen(names[i]);
    if (!strncmp(s, names[i], n) && (!s[n] || (strchr("fl", s[n]) && !s[n + 1]))) return true;
  }
  return false;
}

/* `nm` over the objects this very program was linked from: BUILD/libnoema.a, beside us. */
static void no_libm(void **state) {
  (void)state;
  char self[512], command[1100], line[512], file[256] = "";
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  assert_true(n > 0);
  self[n] = 0;
  for (int up = 0; up < 3; up++) *strrchr(self, '/') = 0;
  snprintf(command, sizeof command, "nm -u '%s/libnoema.a' '%s'/src/cli/*.o 2>/dev/null", self,
           self);
  FILE *f = popen(command, "r");
  int n_objects = 0, n_bad = 0;
  while (f && fgets(line, sizeof line, f)) {
    char *u = strstr(line, " U ");
    if (!u && strchr(line, ':')) {
      snprintf(file, sizeof file, "%.*s", (int)strcspn(line, "\n"), line);
      n_objects++;
    }
    if (!u || !forbidden(u + 3)) continue;
    print_error("%s wants %s", file, u + 3);
    n_bad++;
  }
  if (f) pclose(f);
  if (!n_objects) {
    print_message("skipped: nm shows nothing\n");
    skip();
  }
  print_message("%d objects looked at\n", n_objects);
  assert_true(forbidden("expf") && forbidden("pow@GLIBC_2.29\n") && !forbidden("fma") &&
              !forbidden("logits"));
  assert_int_equal(n_bad, 0);
}

/* ---- one call of every op -------------------------------------------------------- */

enum { T = 5, D = 32, N = 48, H = 4, HD = 8, SLOTS = 9 };

struct world {
  float x[T * N], y[T * N], rope[T * HD], w32[N * D], cache[2][SLOTS * D];
  uint8_t w8[N * D / 32 * 34];
  int32_t ids[T];
  struct nm__kv kv;
  struct nm__span span;
  int32_t chosen[2 * T], slot[2 * T], pos[2 * T], first[D + 1];
  struct nm__route route;          /* one of D experts a position, so that shapes stay [T, D] */
  struct nm__w experts[D];
};

static void world_make(struct world *s) {
  memset(s, 0, sizeof *s);
  for (int i = 0; i < T * N; i++)
    s->x[i] = (float)(i % 23 - 11) / 8, s->y[i] = (float)(i % 17 - 8) / 4;
  for (int i = 0; i < N * D; i++) s->w32[i] = (float)(i % 29 - 14) / 16;
  for (int i = 0; i < T * HD; i++) s->rope[i] = i % 2 ? 0.6f : 0.8f;
  nm__dtype(NM__Q8_0)->from_f32(s->w8, s->w32, N * D);
  for (int i = 0; i < T; i++) s->ids[i] = (7 * i) % T;
  s->kv = (struct nm__kv){
      .n_layer = 1, .n_slots = SLOTS, .width = D, .k = s->cache[0], .v = s->cache[1]};
  s->span = (struct nm__span){.first = 0, .n = T};
  s->route = (struct nm__route){D, 1, T, s->chosen, s->slot, s->pos, s->first};
  for (int i = 0; i < T; i++) {                        /* position i goes through expert T - i */
    s->chosen[i] = T - i;
    s->slot[i] = T - 1 - i;
    s->pos[T - 1 - i] = i;
  }
  for (int e = 0; e <= D; e++) s->first[e] = e < 1 ? 0 : e > T ? T : e - 1;
}

static struct nm__op_args args_of(struct world *s, enum nm__op_id id, bool quantised) {
  struct nm__w w = {(const uint8_t *)s->w32, NM__F32, N, D, D * 4};
  if (quantised) w = (struct nm__w){s->w8, NM__Q8_0, N, D, D / 32 * 34};
  if (id == NM__OP_RMSNORM || id == NM__OP_LAYERNORM)
    w = (struct nm__w){(const uint8_t *)s->w32, NM__F32, 1, D, D * 4};
  struct nm__op_args a = {.x = {.d = s->x, .rows = T, .cols = D}, .w = w, .ids = s->ids, .n_ids = T, .eps = 1e-5f,
                          .n_head = H, .n_kv = H, .head_dim = HD, .rope_pair = HD / 2, .rope_n = HD,
                          .rope = s->rope, .scale = 0.5f, .kv = &s->kv, .spans = &s->span,
                          .n_spans = 1, .max_keys = T};
  if (id == NM__OP_ADD || id == NM__OP_ACT_MUL || id == NM__OP_KV_APPEND || id == NM__OP_MUL ||
      (id >= NM__OP_KL && id <= NM__OP_INFO_NCE))
    a.y = (struct nm__t){.d = s->y, .rows = T, .cols = D};
  if (id == NM__OP_LAYERNORM)
    a.bias = (struct nm__w){(const uint8_t *)s->w32 + D * 4, NM__F32, 1, D, D * 4};
  if (id == NM__OP_ADD_VEC) a.y = (struct nm__t){.d = s->y, .rows = 1, .cols = D};
  if (id == NM__OP_WSUM) a.x.cols = 1;
  if (id == NM__OP_SCATTER) a.rows = T;
  if (id == NM__OP_SOFT_CAP || id == NM__OP_HUBER) a.cap = 2;
  if (id == NM__OP_TOP_K || id == NM__OP_EXPERTS || id == NM__OP_COMBINE) a.route = &s->route;
  if (id == NM__OP_COMBINE) a.y = (struct nm__t){.d = s->y, .rows = T, .cols = D};
  if (id == NM__OP_ROW_SCALE) a.y = (struct nm__t){.d = s->y, .rows = T, .cols = 1};
  for (int e = 0; e < D; e++) s->experts[e] = w;
  if (id == NM__OP_EXPERTS) a.experts = s->experts;
  if (id == NM__OP_MATMUL) a.bias = (struct nm__w){(const uint8_t *)s->w32, NM__F32, 1, N, N * 4};
  return a;
}

static int width_of(enum nm__op_id id) {
  if (id >= NM__OP_CROSS_ENTROPY) return 1;
  return id == NM__OP_MATMUL || id == NM__OP_EXPERTS ? N : D;
}

static struct nm__ops context(enum nm__mode mode, size_t arena) {
  struct nm__ops o = {.mode = mode, .kern = nm__kern_find(NULL)};
  assert_int_equal(nm__arena_init(&o.arena, arena, NULL), 0);
  return o;
}

static void table_is_whole(void **state) {
  (void)state;
  for (int i = 0; i < NM__N_OPS; i++) {
    const struct nm__op *op = nm__op_table[i];
    assert_true(op->name && *op->name && op->formula && *op->formula && op->shape &&
                op->forward && op->backward);
    for (int k = 0; k < i; k++) assert_string_not_equal(op->name, nm__op_table[k]->name);
  }
}

/* What measure mode counts is what run mode takes, to the byte, and it suffices. */
static void measure_is_run(void **state) {
  (void)state;
  struct world s;
  world_make(&s);
  for (int i = 0; i < NM__N_OPS; i++)
    for (int q = 0; q < 2; q++) {
      struct nm__op_args a = args_of(&s, (enum nm__op_id)i, q);
      struct nm__ops m = context(NM__MEASURE, 0);
      struct nm__t t = nm__op(&m, (enum nm__op_id)i, &a);
      int64_t rows = i == NM__OP_WSUM ? 1 : T;
      assert_true(!m.err.status && t.rows == rows && t.cols == width_of((enum nm__op_id)i));
      struct nm__ops r = context(NM__RUN, m.arena.peak ? m.arena.peak : 64);
      t = nm__op(&r, (enum nm__op_id)i, &a);
      if (r.err.status) fail_msg("%s", r.err.text);
      assert_true(t.d && t.rows == rows && r.arena.peak == m.arena.peak &&
                  r.arena.used == m.arena.used);
      nm__arena_done(&r.arena);
      if (m.arena.peak < 128) continue;
      r = context(NM__RUN, m.arena.peak - 64);
      t = nm__op(&r, (enum nm__op_id)i, &a);
      assert_true(!t.d && r.err.status == NM_EMEMORY && t.rows == rows);
      nm__arena_done(&r.arena);
    }
}

static void shapes_are_checked(void **state) {
  (void)state;
  struct world s;
  world_make(&s);
  static const enum nm__op_id strict[] = {NM__OP_MATMUL,    NM__OP_ADD,       NM__OP_RMSNORM,
                                          NM__OP_LAYERNORM, NM__OP_UNPERMUTE, NM__OP_ROPE,
                                          NM__OP_KV_APPEND, NM__OP_ATTENTION, NM__OP_TOP_K,
                                          NM__OP_EXPERTS};
  for (size_t i = 0; i < sizeof strict / sizeof *strict; i++) {
    struct nm__op_args a = args_of(&s, strict[i], false);
    struct nm__ops o = context(NM__RUN, 1 << 16);
    a.x.cols = D - 1;
    assert_null(nm__op(&o, strict[i], &a).d);
    assert_true(o.err.status == NM_EFAIL && strstr(o.err.text, "do not fit"));
    a.x.cols = D;
    assert_null(nm__op(&o, strict[i], &a).d);                    /* the failure is sticky */
    nm__arena_done(&o.arena);
  }
}

/* ---- results by hand ----------------------------------------------------------------- */

static struct nm__t run_op(struct nm__ops *o, struct world *s, enum nm__op_id id) {
  struct nm__op_args a = args_of(s, id, false);
  struct nm__t t = nm__op(o, id, &a);
  if (o->err.status) fail_msg("%s", o->err.text);
  return t;
}

static void moves(void **state) {
  (void)state;
  struct world s;
  world_make(&s);
  struct nm__ops o = context(NM__RUN, 1 << 18);
  struct nm__t e = run_op(&o, &s, NM__OP_EMBED), g = run_op(&o, &s, NM__OP_GATHER);
  struct nm__t u = run_op(&o, &s, NM__OP_UNPERMUTE), r = run_op(&o, &s, NM__OP_ROPE);
  struct nm__t c = run_op(&o, &s, NM__OP_KV_APPEND);
  assert_ptr_equal(c.d, s.x);
  for (int t = 0; t < T; t++) {
    assert_memory_equal(e.d + t * D, s.w32 + s.ids[t] * D, D * 4);
    assert_memory_equal(g.d + t * D, s.x + s.ids[t] * D, D * 4);
    assert_memory_equal(s.cache[0] + t * D, s.x + t * D, D * 4);
    assert_memory_equal(s.cache[1] + t * D, s.y + t * D, D * 4);
    for (int h = 0; h < H; h++)
      for (int j = 0; j < HD / 2; j++) {
        const float *x = s.x + t * D + h * HD;
        int at = t * D + h * HD + j;
        assert_true(u.d[at] == x[2 * j] && u.d[at + HD / 2] == x[2 * j + 1]);
        float co = 0.8f, si = 0.6f;
        assert_true(r.d[at] == x[j] * co - x[j + HD / 2] * si);
        assert_true(r.d[at + HD / 2] == x[j] * si + x[j + HD / 2] * co);
      }
  }
  nm__arena_done(&o.arena);
}

static void scales_and_caps(void **state) {
  (void)state;
  struct world s;
  world_make(&s);
  struct nm__ops o = context(NM__RUN, 1 << 18);
  struct nm__t half = run_op(&o, &s, NM__OP_SCALE), cap = run_op(&o, &s, NM__OP_SOFT_CAP);
  for (int i = 0; i < T * D; i++) {
    assert_true(half.d[i] == 0.5f * s.x[i]);
    assert_true(fabs((double)cap.d[i] - 2 * tanh((double)s.x[i] / 2)) < 3e-7);
  }
  struct nm__op_args a = args_of(&s, NM__OP_SOFT_CAP, false);
  a.cap = 0;
  assert_null(nm__op(&o, NM__OP_SOFT_CAP, &a).d);
  nm__arena_done(&o.arena);
}

static void norms_and_products(void **state) {
  (void)state;
  struct world s;
  world_make(&s);
  struct nm__ops o = context(NM__RUN, 1 << 18);
  struct nm__t rms = run_op(&o, &s, NM__OP_RMSNORM), ln = run_op(&o, &s, NM__OP_LAYERNORM);
  struct nm__t mm = run_op(&o, &s, NM__OP_MATMUL);
  for (int t = 0; t < T; t++) {
    const float *x = s.x + t * D;
    double mean = 0, sq = 0, var = 0;
    for (int i = 0; i < D; i++) mean += (double)x[i] / D, sq += (double)x[i] * (double)x[i] / D;
    for (int i = 0; i < D; i++) var += ((double)x[i] - mean) * ((double)x[i] - mean) / D;
    for (int i = 0; i < D; i++) {
      double a = (double)x[i] / sqrt(sq + 1e-5) * (double)s.w32[i];
      double b = ((double)x[i] - mean) / sqrt(var + 1e-5) * (double)s.w32[i] + (double)s.w32[D + i];
      assert_true(fabs(a - (double)rms.d[t * D + i]) < 1e-6 &&
                  fabs(b - (double)ln.d[t * D + i]) < 1e-6);
    }
    for (int j = 0; j < N; j++) {
      double z = (double)s.w32[j];                               /* the bias */
      for (int i = 0; i < D; i++) z += (double)x[i] * (double)s.w32[j * D + i];
      assert_true(fabs(z - (double)mm.d[t * N + j]) < 1e-5);
    }
  }
  nm__arena_done(&o.arena);
}

/* window 0: all keys; cap 0: none. */
static void attention_is(int window, float cap) {
  struct world s;
  world_make(&s);
  struct nm__ops o = context(NM__RUN, 1 << 18);
  run_op(&o, &s, NM__OP_KV_APPEND);
  for (int i = T * D; i < SLOTS * D; i++) s.cache[0][i] = s.cache[1][i] = NAN; /* not to be read */
  struct nm__op_args a = args_of(&s, NM__OP_ATTENTION, false);
  a.window = window;
  a.cap = cap;
  struct nm__t y = nm__op(&o, NM__OP_ATTENTION, &a);
  assert_int_equal(o.err.status, 0);
  for (int t = 0; t < T; t++)
    for (int h = 0; h < H; h++) {
      double p[T] = {0}, sum = 0;
      for (int k = window && t >= window ? t - window + 1 : 0; k <= t; k++) {
        double z = 0;
        for (int i = 0; i < HD; i++)
          z += (double)s.x[t * D + h * HD + i] * (double)s.x[k * D + h * HD + i] * 0.5;
        if (cap > 0) z = (double)cap * tanh(z / (double)cap);
        sum += p[k] = exp(z);
      }
      for (int i = 0; i < HD; i++) {
        double want = 0;
        for (int k = 0; k <= t; k++) want += p[k] / sum * (double)s.y[k * D + h * HD + i];
        assert_true(fabs(want - (double)y.d[t * D + h * HD + i]) < 1e-5);
      }
    }
  nm__arena_done(&o.arena);
}

static void attention_by_hand(void **state) {
  (void)state;
  for (int window = 0; window <= T + 1; window++)
    for (int cap = 0; cap < 3; cap++) attention_is(window, (float)cap);
}

/* ---- experts by hand ---------------------------------------------------------------------- */

/* Rows with ties, zeros and a value that is no number: the k largest, lower experts first. */
static void top_k_by_hand(void **state) {
  (void)state;
  enum { E = 6, P = 4 };
  static float x[P * E] = {0.1f, 0.3f, 0.3f, 0.1f, 0.1f, 0.1f, 0, 0, 0, 0, 0, 0,
                           NAN,  0.5f, 0.2f, 0.3f, 0,    0,    0, 1, 0, 0, 0, 0};
  static const int32_t want[3][P][3] = {{{1}, {0}, {0}, {1}},
                                        {{1, 2}, {0, 1}, {0, 1}, {0, 1}},
                                        {{0, 1, 2}, {0, 1, 2}, {0, 1, 3}, {0, 1, 2}}};
  for (int k = 1; k <= 3; k++)
    for (int norm = 0; norm < 2; norm++) {
      struct nm__ops o = context(NM__RUN, 1 << 16);
      struct nm__route r;
      assert_true(nm__route_take(&o, P, E, k, &r));
      struct nm__op_args a = {.x = {.d = x, .rows = P, .cols = E}, .route = &r, .renormalise = norm};
      struct nm__t w = nm__op(&o, NM__OP_TOP_K, &a);
      int at = 0;
      for (int t = 0; t < P; t++) {
        float sum = 0;
        assert_memory_equal(r.expert + t * k, want[k - 1][t], (size_t)k * 4);
        for (int i = 0; i < k; i++) sum += x[t * E + r.expert[t * k + i]];
        for (int e = 0, i = 0; e < E; e++) {
          bool in = i < k && r.expert[t * k + i] == e;
          float v = in ? norm && sum > 0 ? x[t * E + e] / sum : x[t * E + e] : 0;
          assert_true(w.d[t * E + e] == v || (v != v && w.d[t * E + e] != w.d[t * E + e]));
          i += in;
        }
      }
      for (int e = 0; e < E; e++)                      /* rows by expert, positions ascending */
        for (int i = r.first[e]; i < r.first[e + 1]; i++, at++) {
          assert_true(i == at && (i == r.first[e] || r.pos[i] > r.pos[i - 1]));
          int j = 0;
          while (j < k && r.slot[r.pos[i] * k + j] != i) j++;
          assert_true(j < k && r.expert[r.pos[i] * k + j] == e);
        }
      assert_int_equal(at, P * k);
      nm__arena_done(&o.arena);
    }
}

static void experts_by_hand(void **state) {
  (void)state;
  struct world s;
  world_make(&s);
  struct nm__ops o = context(NM__RUN, 1 << 18);
  struct nm__op_args a = args_of(&s, NM__OP_EXPERTS, false);
  for (int e = 0; e < D; e++) s.experts[e] = nm__w_rows(s.experts[e], e, 3);
  struct nm__t y = nm__op(&o, NM__OP_EXPERTS, &a), c = run_op(&o, &s, NM__OP_COMBINE);
  struct nm__t p = run_op(&o, &s, NM__OP_SOFTMAX), g = run_op(&o, &s, NM__OP_SIGMOID);
  struct nm__t z = run_op(&o, &s, NM__OP_ROW_SCALE);
  for (int t = 0; t < T; t++) {
    double sum = 0, total = 0;
    for (int j = 0; j < 3; j++) {                      /* row t belongs to expert t + 1 */
      double want = 0;
      for (int i = 0; i < D; i++)
        want += (double)s.x[t * D + i] * (double)s.w32[(t + 1 + j) * D + i];
      assert_true(fabs(want - (double)y.d[t * 3 + j]) < 1e-5);
    }
    for (int i = 0; i < D; i++) {
      float x = s.x[t * D + i];
      assert_true(c.d[t * D + i] == s.y[t * D + T - t] * s.x[(T - 1 - t) * D + i]);
      assert_true(z.d[t * D + i] == s.y[t] * x);
      assert_true(fabs((double)g.d[t * D + i] - 1 / (1 + exp(-(double)x))) < 1e-7);
      sum += exp((double)x);
    }
    for (int i = 0; i < D; i++) {
      assert_true(fabs((double)p.d[t * D + i] - exp((double)s.x[t * D + i]) / sum) < 1e-7);
      total += (double)p.d[t * D + i];
    }
    assert_true(fabs(total - 1) < 1e-6);
  }
  nm__arena_done(&o.arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(functions),
      cmocka_unit_test(function_edges),
      cmocka_unit_test(no_libm),
      cmocka_unit_test(table_is_whole),
      cmocka_unit_test(measure_is_run),
      cmocka_unit_test(shapes_are_checked),
      cmocka_unit_test(moves),
      cmocka_unit_test(scales_and_caps),
      cmocka_unit_test(norms_and_products),
      cmocka_unit_test(attention_by_hand),
      cmocka_unit_test(top_k_by_hand),
      cmocka_unit_test(experts_by_hand),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
