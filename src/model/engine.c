/* engine.c - what runs one model: kernels, threads, sizes, adapters; every driver begins its
 * forwards with what it holds. */
#include "model/adapter.h"
#include "model/drive.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const gelu_name[] = {
    [NM__GELU_OWN] = "", [NM__GELU_TANH] = "tanh", [NM__GELU_ERF] = "erf"};

static bool gelu_by_name(const char *name, enum nm__gelu *out) {
  *out = NM__GELU_OWN;
  for (int i = NM__GELU_TANH; name && i <= NM__GELU_ERF; i++)
    if (!strcmp(name, gelu_name[i])) *out = (enum nm__gelu)i;
  return !name || *out != NM__GELU_OWN;
}

static int put_adapters(nm_engine *e, nm_err *err) {
  const nm_adapters *own = e->m->adapters, *more = e->adapters;
  if (more && more->m != e->m)
    return nm__fail(err, NM_EUSAGE, "%s: the adapters were loaded for another model", e->m->path);
  int st = own ? nm__deltas_join(&e->beside, own->d.v, own->d.n, err) : NM_OK;
  return st || !more ? st : nm__deltas_join(&e->beside, more->d.v, more->d.n, err);
}

int nm_engine_new(const nm_model *m, const nm_engine_opts *o, nm_engine **out, nm_err *err) {
  nm_engine_opts zero = {0};
  *out = NULL;
  if (!o) o = &zero;
  if (!m->arch)
    return nm__fail(err, NM_EFORMAT, "%s: holds only a vocabulary, no model to run", m->path);
  enum nm__gelu gelu;
  if (!gelu_by_name(o->gelu, &gelu))
    return nm__fail(err, NM_EUSAGE, "gelu '%.40s' is not known (known: tanh, erf)", o->gelu);
  if (o->act && strcmp(o->act, "f32") && strcmp(o->act, "bf16"))
    return nm__fail(err, NM_EUSAGE, "act '%.40s' is not known (known: f32, bf16)", o->act);
  const struct nm__kern *k = nm__kern_find(o->kernels);
  if (!k) return nm__kern_none(o->kernels, err);
  if (o->threads < 0 || o->threads > 1024 || o->n_ctx < 0 || o->chunk < 0 || o->batch < 0)
    return nm__fail(err, NM_EUSAGE, "threads, context, chunk and batch must not be negative");
  if (m->arch->learned_pos && o->n_ctx > m->n_ctx)
    return nm__fail(err, NM_EUSAGE,
                    "a context of %d was asked for, but %s has positions for %d only", o->n_ctx,
                    m->path, m->n_ctx);
  nm_engine *e = nm__alloc(1, sizeof *e);
  if (!e) return nm__fail_memory(err, "an engine", sizeof *e);
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  *e = (nm_engine){.m = m, .kern = k, .n_ctx = o->n_ctx ? o->n_ctx : m->n_ctx,
                   .chunk = o->chunk ? o->chunk : 512, .batch = o->batch, .gelu = gelu,
                   .adapters = o->adapters,
                   .bf16 = o->act && !strcmp(o->act, "bf16")};
  if (!m->causal) e->chunk = e->n_ctx;         /* each position reads all keys of its text */
  int st = put_adapters(e, err);
  if (!st) st = nm__pool_new(o->threads ? o->threads : (int)(cores > 0 ? cores : 1), &e->pool, err);
  if (st) {
    nm_engine_free(e);
    return st;
  }
  *out = e;
  return NM_OK;
}

void nm_engine_free(nm_engine *e) {
  if (!e) return;
  nm__deltas_done(&e->beside);
  nm__pool_free(e->pool);
  free(e);
}

const char *nm_engine_kernels(const nm_engine *e) { return e->kern->name; }
const char *nm_engine_act(const nm_engine *e) { return e->bf16 ? "bf16" : "f32"; }
int nm_engine_threads(const nm_engine *e) { return nm__pool_size(e->pool); }

const nm_model *nm__engine_model(const nm_engine *e) { return e->m; }
int nm__engine_ctx(const nm_engine *e) { return e->n_ctx; }
int nm__engine_chunk(const nm_engine *e) { return e->chunk; }
const char *nm__engine_gelu(const nm_engine *e) { return gelu_name[e->gelu]; }
struct nm__pool *nm__engine_pool(const nm_engine *e) { return e->pool; }
const nm_adapters *nm__engine_adapters(const nm_engine *e) { return e->adapters; }
const struct nm__lora *nm__engine_lora(const nm_engine *e, int *n) {
  *n = e->beside.n;
  return e->beside.v;
}

/* The model's own adapters are in its hash. */
void nm__engine_key(const nm_engine *e, struct nm__buf *b) {
  if (e->bf16) nm__buf_puts(b, "bf16");
  nm__buf_puts(b, gelu_name[e->gelu]);
  nm__adapters_key(e->adapters, b);
}
const struct nm__kern *nm__engine_kern(const nm_engine *e) { return e->kern; }
struct nm__forward nm__engine_forward(const nm_engine *e) {
  return (struct nm__forward){.m = e->m, .n_ctx = e->n_ctx, .gelu = e->gelu,
                              .lora = e->beside.v, .n_lora = e->beside.n};
}
struct nm__ops nm__engine_ops(const nm_engine *e, enum nm__mode mode) {
  return (struct nm__ops){.mode = mode, .kern = e->kern, .pool = e->pool, .bf16 = e->bf16};
}
