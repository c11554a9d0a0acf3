/* generate.c - answers: a token drawn for each sample, all of them one forward further, until each
 * has ended. */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/answer.h"

struct sample {
  nm_generated *out;
  struct nm__answer answer;
  struct nm__buf text;
  size_t shown;
  bool ended;
};

struct job {
  nm_session *s;
  const nm_model *m;
  const nm_generate_opts *o;
  struct sample *sample;
  int n, most;                     /* samples; tokens of one */
  uint8_t *ends;                   /* [V] */
  float *logits;                   /* [V] without tokens that end, for ignore_eos */
  nm_ranked *work;
  double *lp;
  int32_t *top; double *top_lp;
  int *seq; int32_t *next;         /* of the coming step */
  nm_err *err;
};

static const char *const stop_names[] = {"length", "end", "stop", "context", "interrupted"};
const char *nm_stop_name(enum nm_stop s) { return stop_names[s]; }

bool nm_is_end(const nm_model *m, int32_t id) { return m->tok && nm__tok_is_end(m->tok, id); }

/* ---- one token -------------------------------------------------------------------- */

/* The n_top likeliest, ties by id. */
static void find_top(struct job *j) {
  int n = 0, most = j->o->n_top;
  for (int v = 0; v < j->m->V; v++) {
    int i = n < most ? n++ : most;
    for (; i > 0 && j->lp[v] > j->top_lp[i - 1]; i--) {
      if (i == most) continue;
      j->top_lp[i] = j->top_lp[i - 1];
      j->top[i] = j->top[i - 1];
    }
    if (i == most) continue;
    j->top_lp[i] = j->lp[v];
    j->top[i] = v;
  }
}

static int32_t draw(struct job *j, int i) {
  const nm_generate_opts *o = j->o;
  const float *z = nm_session_logits(j->s, i);
  if (o->logprobs) {
    nm_log_softmax(z, j->m->V, j->lp);
    if (o->n_top > 0) find_top(j);
  }
  if (o->ignore_eos) {
    for (int v = 0; v < j->m->V; v++) j->logits[v] = j->ends[v] ? -INFINITY : z[v];
    z = j->logits;
  }
  return nm_sample_token(z, j->m->V, &o->sampler, nm_session_ids(j->s, i),
                         (uint64_t)(o->first_sample + i), j->sample[i].out->n, j->work);
}

/* Hands on what can be shown: all of it once the text has ended. id -1: no token besides. */
static int show(struct job *j, int i, int32_t id, double logprob) {
  struct sample *x = &j->sample[i];
  size_t ready = x->text.len;
  if (!x->ended) ready = nm__showable(x->text.s, ready, j->o->stop, j->o->n_stop);
  nm_token t = {.sample = i, .step = (int)x->out->n - 1, .id = id, .logprob = logprob, .text = "",
                .top = j->top, .top_logprob = j->top_lp, .n_top = id < 0 ? 0 : j->o->n_top};
  if (ready > x->shown) {
    t.text = x->text.s + x->shown;
    t.n = ready - x->shown;
    x->shown = ready;
  }
  if (!j->o->token || (id < 0 && !t.n)) return NM_OK;
  return j->o->token(j->o->arg, &t, j->err);
}

static void finish(struct job *j, int i, enum nm_stop why) {
  j->sample[i].ended = true;
  j->sample[i].out->stop = why;
}

/* A token of sample i: its text, and whether that was the last one. */
static int take(struct job *j, int i, int32_t id) {
  struct sample *x = &j->sample[i];
  nm_generated *g = x->out;
  double lp = j->o->logprobs ? j->lp[id] : 0;
  size_t from = x->text.len;
  int st = NM_OK;
  if (j->ends[id]) {
    g->end = id;
    g->end_logprob = lp;
    finish(j, i, NM_STOP_END);
    return show(j, i, -1, 0);
  }
  if (g->logprob) g->logprob[g->n] = lp;
  g->ids[g->n++] = id;
  bool has_text = j->m->tok && id < nm__tok_size(j->m->tok);
  if (has_text && (st = nm__answer_token(&x->answer, id, &x->text, j->err))) return st;
  size_t cut = nm__find_stop(x->text.s, x->text.len, from, j->o->stop, j->o->n_stop);
  if (cut < x->text.len) {
    x->text.s[x->text.len = cut] = 0;
    finish(j, i, NM_STOP_STRING);
  } else if (nm_session_ids(j->s, i).n >= (size_t)nm_session_room(j->s)) {
    finish(j, i, NM_STOP_CONTEXT);
  } else if (g->n == (size_t)j->most) {
    finish(j, i, NM_STOP_LENGTH);
  }
  return show(j, i, id, lp);
}

static int run(struct job *j) {
  for (int left = j->n; left;) {
    int st = NM_OK;
    left = 0;
    for (int i = 0; i < j->n && !st; i++) {
      if (j->sample[i].ended) continue;
      int32_t id = draw(j, i);
      st = take(j, i, id);
      if (j->sample[i].ended) continue;
      j->seq[left] = i;
      j->next[left++] = id;
    }
    if (!st) st = nm_session_step(j->s, j->seq, j->next, left, j->err);
    if (st) return st;
  }
  return NM_OK;
}

/* ---- beginning and end ---------------------------------------------------------- */

static int set_up_sample(struct job *j, int i, nm_generated *g) {
  struct sample *x = &j->sample[i];
  nm_seq ids = nm_session_ids(j->s, 0);
  x->out = g;
  g->end = -1;
  g->stop = NM_STOP_INTERRUPTED;         /* until there is another reason */
  g->ids = nm__alloc((size_t)j->most, sizeof *g->ids);
  g->logprob = j->o->logprobs ? nm__alloc((size_t)j->most, sizeof *g->logprob) : NULL;
  nm__buf_init(&x->text, (size_t)1 << 28);
  nm__buf_puts(&x->text, "");
  if (!g->ids || (j->o->logprobs && !g->logprob) || x->text.failed)
    return nm__fail_memory(j->err, "an answer", (size_t)j->most * sizeof *g->ids);
  if (j->most == 0) finish(j, i, NM_STOP_LENGTH);
  return j->m->tok ? nm__answer_begin(&x->answer, j->m->tok, ids.ids, ids.n, j->err) : NM_OK;
}

static int set_up(struct job *j, nm_generated *out) {
  size_t V = (size_t)j->m->V, n = (size_t)j->n;
  const nm_generate_opts *o = j->o;
  j->sample = nm__alloc(n, sizeof *j->sample);
  j->ends = nm__alloc(V, 1);
  j->work = nm__alloc(V, sizeof *j->work);
  j->logits = nm__alloc(o->ignore_eos ? V : 0, sizeof *j->logits);
  j->lp = nm__alloc(o->logprobs ? V : 0, sizeof *j->lp);
  j->top = nm__alloc((size_t)o->n_top + 1, sizeof *j->top);
  j->top_lp = nm__alloc((size_t)o->n_top + 1, sizeof *j->top_lp);
  j->seq = nm__alloc(n, sizeof *j->seq);
  j->next = nm__alloc(n, sizeof *j->next);
  if (!j->sample || !j->ends || !j->work || !j->logits || !j->lp || !j->top || !j->top_lp ||
      !j->seq || !j->next)
    return nm__fail_memory(j->err, "the samples", V * 32);
  for (int32_t v = 0; v < j->m->V; v++) j->ends[v] = nm_is_end(j->m, v);
  int st = nm_session_fork(j->s, j->n, j->err);
  for (int i = 0; i < j->n && !st; i++) st = set_up_sample(j, i, &out[i]);
  return st;
}

static int check(const nm_session *s, const nm_generate_opts *o, nm_err *err) {
  const nm_sampler *p = &o->sampler;
  if (!(p->temp >= 0) || !(p->top_p >= 0 && p->top_p <= 1) || !(p->min_p >= 0 && p->min_p <= 1) ||
      !(p->repeat_penalty >= 0) || p->temp > 1e6 || p->repeat_penalty > 1e6)
    return nm__fail(err, NM_EUSAGE, "temperature and repetition penalty must not be negative, "
                    "top-p and min-p lie between 0 and 1");
  if (o->n_samples < 0 || o->n_samples > 4096 || o->n_predict < -1 || o->n_top < 0)
    return nm__fail(err, NM_EUSAGE, "samples lie between 1 and 4096, tokens are -1 or more");
  for (int i = 0; i < o->n_stop; i++)
    if (!*o->stop[i]) return nm__fail(err, NM_EUSAGE, "a stop string is empty");
  if (o->n_top > nm__session_model(s)->V)
    return nm__fail(err, NM_EUSAGE, "%d alternatives were asked for, the vocabulary has %d tokens",
                    o->n_top, nm__session_model(s)->V);
  if (nm_session_n(s) != 1 || !nm_session_logits(s, 0))
    return nm__fail(err, NM_EUSAGE, "generating needs a session of one text that has a prompt");
  return NM_OK;
}

int nm_generate(nm_session *s, const nm_generate_opts *o, nm_generated *out, nm_err *err) {
  struct job j = {.s = s, .m = nm__session_model(s), .o = o, .n = o->n_samples ? o->n_samples : 1,
                  .err = err};
  memset(out, 0, sizeof *out * (size_t)j.n);
  int st = check(s, o, err), n_prompt = (int)nm_session_ids(s, 0).n;
  if (st) return st;
  j.most = nm_session_room(s) - n_prompt + 1;
  if (o->n_predict >= 0 && o->n_predict < j.most) j.most = o->n_predict;
  if (o->n_predict >= 0) st = nm_session_reserve(s, n_prompt + j.most, err);
  if (!st) st = set_up(&j, out);
  if (!st) st = run(&j);
  for (int i = 0; i < j.n && j.sample; i++) {
    struct sample *x = &j.sample[i];
    if (x->out) {
      out[i].text = x->text.s;
      out[i].n_text = x->text.len;
    }
    nm__answer_done(&x->answer);
  }
  free(j.sample);
  free(j.ends);
  free(j.work);
  free(j.logits);
  free(j.lp);
  free(j.top);
  free(j.top_lp);
  free(j.seq);
  free(j.next);
  return st;
}

void nm_generated_free(nm_generated *g, int n) {
  for (int i = 0; i < n; i++) {
    free(g[i].text);
    free(g[i].ids);
    free(g[i].logprob);
    g[i] = (nm_generated){0};
  }
}
