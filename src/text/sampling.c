/* sampling.c - from logits to a token: pure functions of their arguments.
 *
 * The order of the filters is llama.cpp's: penalty, top-k, top-p, min-p, temperature, draw. Top-p
 * and min-p look at the probabilities before the temperature. Candidates are ranked by logit, ties
 * by id. The ranking is a heap sort that goes only as far as somebody asks, so of a vocabulary of
 * 150,000 a few hundred are ever put in order. */
#include "core/core.h"

#include "tensor/math.h"

/* v[0..left-1] is a heap of those not ranked yet; rank r stands at v[n-1-r]. */
struct ranking { nm_ranked *v; int n, left; };

static bool before(nm_ranked a, nm_ranked b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sink(nm_ranked *v, int n, int i) {
  nm_ranked x = v[i];
  for (int k; (k = 2 * i + 1) < n; i = k) {
    if (k + 1 < n && before(v[k + 1], v[k])) k++;
    if (!before(v[k], x)) break;
    v[i] = v[k];
  }
  v[i] = x;
}

static nm_ranked rank(struct ranking *r, int i) {
  while (r->n - r->left <= i) {
    nm_ranked top = r->v[0];
    r->v[0] = r->v[--r->left];
    sink(r->v, r->left, 0);
    r->v[r->left] = top;
  }
  return r->v[r->n - 1 - i];
}

/* Once for each token that stands among the last ones: while a logit is as it was, it has not been
 * penalised, or that changes nothing. */
static void penalise(nm_ranked *v, const float *logits, int V, const nm_sampler *p, nm_seq text) {
  float by = (float)p->repeat_penalty;
  size_t last = p->repeat_last_n < 0 ? text.n : p->repeat_last_n ? (size_t)p->repeat_last_n : 64;
  if (by <= 0 || by == 1) return;
  for (size_t i = text.n > last ? text.n - last : 0; i < text.n; i++) {
    int32_t id = text.ids[i];
    if (id < 0 || id >= V || v[id].logit != logits[id]) continue;
    v[id].logit = logits[id] > 0 ? logits[id] / by : logits[id] * by;
  }
}

/* Sum of exp((logit - top) / temp) over the first n ranks; over all of them in any case the order
 * of the array does, which is the same for the same logits. */
static double mass(struct ranking *r, int n, double top, double temp) {
  double sum = 0;
  for (int i = 0; i < n; i++)
    sum += nm__exp(((double)(n < r->n ? rank(r, i) : r->v[i]).logit - top) / temp);
  return sum;
}

/* How many ranks are left after the filters. */
static int filter(struct ranking *r, const nm_sampler *p, double top) {
  int n = p->top_k > 0 && p->top_k < r->n ? p->top_k : r->n;
  if (p->top_p > 0 && p->top_p < 1) {
    double most = p->top_p * mass(r, n, top, 1), sum = 0;
    for (int i = 0; i < n; i++) {
      sum += nm__exp((double)rank(r, i).logit - top);
      if (sum >= most) n = i + 1;
    }
  }
  if (p->min_p > 0) {
    double least = top + nm__log(p->min_p < 1 ? p->min_p : 1);
    int i = 1;                     /* the likeliest always stays */
    while (i < n && (double)rank(r, i).logit >= least) i++;
    n = i;
  }
  return n;
}

int32_t nm_sample_token(const float *logits, int V, const nm_sampler *p, nm_seq text,
                        uint64_t sample, uint64_t step, nm_ranked *work) {
  struct ranking r = {work, V, V};
  for (int i = 0; i < V; i++) work[i] = (nm_ranked){logits[i], i};
  penalise(work, logits, V, p, text);
  if (p->temp <= 0) {
    int best = 0;
    for (int i = 1; i < V; i++)
      if (before(work[i], work[best])) best = i;
    return best;
  }
  for (int i = V / 2; i-- > 0;) sink(work, V, i);
  double top = (double)rank(&r, 0).logit;
  int n = filter(&r, p, top);
  struct nm__rng rng = {p->seed, sample, step};
  double x = nm__rng_unit(&rng) * mass(&r, n, top, p->temp), sum = 0;
  for (int i = 0; i < n - 1; i++) {
    nm_ranked c = rank(&r, i);
    sum += nm__exp(((double)c.logit - top) / p->temp);
    if (sum > x) return c.id;
  }
  return rank(&r, n - 1).id;
}
