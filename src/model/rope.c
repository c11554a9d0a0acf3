/* rope.c - rotary angles and their scalings, in double, from the metadata.
 *
 *   theta_j = base^(-2j/n)          j < n/2, n rotated dimensions
 *   linear  theta / f
 *   yarn    theta/f (1 - mix) + theta mix, mix = 1 - clamp((j - low) / (high - low)); cos
 *           and sin times 1 + 0.1 ln f (Peng et al. 2023)
 *   llama3  theta / rope_freqs[j], a tensor of divisors
 *   longrope  the same with one of two tensors, by the size of the context */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tensor/math.h"

static const double PI = 3.14159265358979323846;

static bool in_range(double x) { return x - x == 0; }   /* neither infinite nor NaN */

static bool key(const nm_model *m, const char *name, double *out) {
  char k[96];
  snprintf(k, sizeof k, "%s.%s", m->arch->name, name);
  const struct nm__gguf_kv *kv = nm__gguf_find(m->g, k);
  return kv && nm__gguf_float_at(kv, 0, out);
}

static double floor_of(double x) {
  if (!(x > -1e15 && x < 1e15)) return x < 0 ? -1e15 : 1e15;   /* a hostile base */
  double i = (double)(int64_t)x;
  return i > x ? i - 1 : i;
}

static void yarn(nm_model *m, double base, double f, double orig) {
  int n = m->n_rot;
  double low = floor_of(n * nm__log(orig / (32 * 2 * PI)) / (2 * nm__log(base)));
  double high = -floor_of(-(n * nm__log(orig / (1 * 2 * PI)) / (2 * nm__log(base))));
  if (low < 0) low = 0;
  if (high > n - 1) high = n - 1;
  double width = high - low < 0.001 ? 0.001 : high - low;
  for (int j = 0; j < n / 2; j++) {
    double r = (j - low) / width;
    r = r < 0 ? 0 : r > 1 ? 1 : r;
    m->theta[j] = m->theta[j] / f * r + m->theta[j] * (1 - r);
  }
  m->rope_m[0] *= 1 + 0.1 * nm__log(f);
}

/* Divides the n_rot / 2 angles by a tensor of the file; *found: there is one. */
static int divide(nm_model *m, const char *name, double *theta, bool *found, nm_err *err) {
  const struct nm__gguf_tensor *t = nm__gguf_tensor(m->g, name);
  *found = t != NULL;
  if (!t) return NM_OK;
  if (t->type != NM__F32 || t->ne[0] != m->n_rot / 2 || t->ne[1] * t->ne[2] * t->ne[3] != 1)
    return nm__fail(err, NM_EFORMAT, "%s: %s must be %d F32 values", m->path, name, m->n_rot / 2);
  for (int j = 0; j < m->n_rot / 2; j++) {
    float f;
    memcpy(&f, t->data + 4 * j, 4);
    if (!(f > 0)) return nm__fail(err, NM_EFORMAT, "%s: %s[%d] is not positive", m->path, name, j);
    theta[j] /= (double)f;
  }
  return NM_OK;
}

/* One list of divisors, or longrope's two: which of those holds follows the size of the
 * context. A list chosen by the text's length would turn its beginning as the text grows. */
static int divisors(nm_model *m, nm_err *err) {
  double orig = m->n_ctx, *longer = m->theta + m->n_rot / 2;
  bool freqs, shorts, longs;
  memcpy(longer, m->theta, sizeof *longer * (size_t)(m->n_rot / 2));
  int st = divide(m, "rope_freqs.weight", m->theta, &freqs, err);
  if (!st) st = divide(m, "rope_factors_short.weight", m->theta, &shorts, err);
  if (!st) st = divide(m, "rope_factors_long.weight", longer, &longs, err);
  if (st) return st;
  if (shorts != longs || (freqs && longs) || (longs && m->arch->local_rope))
    return nm__fail(err, NM_EFORMAT, "%s: rope_factors_short, rope_factors_long and rope_freqs do "
                    "not go together here", m->path);
  size_t at = strlen(m->rope_text);
  if (freqs)
    snprintf(m->rope_text + at, sizeof m->rope_text - at, ", divided by rope_freqs");
  if (!longs) return NM_OK;
  key(m, "rope.scaling.original_context_length", &orig);
  m->long_after = orig < 1 << 24 ? (int)orig : 1 << 24;
  m->rope_m[1] = m->rope_m[0];
  snprintf(m->rope_text + at, sizeof m->rope_text - at, ", longrope above a context of %d",
           m->long_after);
  return NM_OK;
}

static int scaling(nm_model *m, double base, nm_err *err) {
  char k[96];
  struct nm__str type = {"none", 4};
  double f = 1, orig = m->n_ctx, attn = 1;
  snprintf(k, sizeof k, "%s.rope.scaling.type", m->arch->name);
  bool named = nm__gguf_find(m->g, k) != NULL;
  if (named && nm__gguf_string(m->g, k, &type, err)) return NM_EFORMAT;
  if (!key(m, "rope.scaling.factor", &f) && key(m, "rope.scale_linear", &f) && !named)
    type = (struct nm__str){"linear", 6};
  key(m, "rope.scaling.original_context_length", &orig);
  key(m, "rope.scaling.attn_factor", &attn);
  if (!(f > 0) || !(orig >= 1) || !(attn > 0) || !in_range(f) || !in_range(orig) || !in_range(attn))
    return nm__fail(err, NM_EFORMAT, "%s: rope scaling factor %g, original context %g, attention "
                    "factor %g: all must be positive numbers", m->path, f, orig, attn);
  m->rope_m[0] = attn;
  size_t at = strlen(m->rope_text);
  if (type.n == 6 && !memcmp(type.s, "linear", 6)) {
    for (int j = 0; j < m->n_rot / 2; j++) m->theta[j] /= f;
    snprintf(m->rope_text + at, sizeof m->rope_text - at, ", linear scaling %g", f);
  } else if (type.n == 4 && !memcmp(type.s, "yarn", 4)) {
    yarn(m, base, f, orig);
    snprintf(m->rope_text + at, sizeof m->rope_text - at, ", yarn %g from %g", f, orig);
  } else if (type.n != 4 || memcmp(type.s, "none", 4)) {
    char shown[40];
    return nm__fail(err, NM_EFORMAT,
                    "%s: rope scaling '%s' is not known (known: none, linear, yarn)", m->path,
                    nm__printable(shown, sizeof shown, type.s, type.n));
  }
  return NM_OK;
}

static void powers(double *theta, double base, int n) {
  for (int j = 0; j < n / 2; j++) theta[j] = nm__pow(base, -2.0 * j / n);
}

/* The second rotation: of windowed blocks, which the scaling of long texts leaves alone. */
static int local_rope(nm_model *m, nm_err *err) {
  double base = 10000;
  key(m, "rope.freq_base_swa", &base);
  if (!(base > 1) || !in_range(base))
    return nm__fail(err, NM_EFORMAT, "%s: rope base %g of the windowed blocks is not usable",
                    m->path, base);
  powers(m->theta + m->n_rot / 2, base, m->n_rot);
  m->n_rope = 2;
  size_t at = strlen(m->rope_text);
  snprintf(m->rope_text + at, sizeof m->rope_text - at, "; windowed blocks: base %g", base);
  return NM_OK;
}

int nm__rope_load(nm_model *m, nm_err *err) {
  m->rope_m[0] = m->rope_m[1] = 1;
  if (m->arch->learned_pos) {
    m->n_rot = 0;
    snprintf(m->rope_text, sizeof m->rope_text, "none (learned positions)");
    return NM_OK;
  }
  double base = 10000, dims = m->hd;
  key(m, "rope.freq_base", &base);
  key(m, "rope.dimension_count", &dims);
  if (!(base > 1) || !in_range(base) || !(dims >= 2) || dims > m->hd || (int)dims % 2)
    return nm__fail(err, NM_EFORMAT,
                    "%s: rope base %g with %g rotated dimensions does not fit heads "
                    "of %d",
                    m->path, base, dims, m->hd);
  m->n_rot = (int)dims;
  m->n_rope = 1;
  m->theta = nm__alloc((size_t)m->n_rot, sizeof *m->theta);
  if (!m->theta) return nm__fail_memory(err, "rotary angles", 0);
  powers(m->theta, base, m->n_rot);
  snprintf(m->rope_text, sizeof m->rope_text, "%s pairs, base %g, %d of %d dimensions",
           m->permuted ? "neighbouring" : "half", base, m->n_rot, m->hd);
  int st = scaling(m, base, err);
  if (!st) st = divisors(m, err);
  return st || !m->arch->local_rope ? st : local_rope(m, err);
}

void nm__rope_table(const nm_model *m, int which, int n_ctx, const struct nm__span *spans,
                    int n_spans, float *table) {
  if (m->long_after && n_ctx > m->long_after) which = 1;
  const double *theta = m->theta + which * (m->n_rot / 2);
  for (int s = 0; s < n_spans; s++)
    for (int i = 0; i < spans[s].n; i++) {
      float *row = table + (size_t)(spans[s].row0 + i) * (size_t)m->n_rot;
      for (int j = 0; j < m->n_rot / 2; j++) {
        double a = (spans[s].first + i) * theta[j];
        row[2 * j] = (float)(nm__cos(a) * m->rope_m[which]);
        row[2 * j + 1] = (float)(nm__sin(a) * m->rope_m[which]);
      }
    }
}
