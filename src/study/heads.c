/* heads.c - noema heads: trials answered and scored, the best heads masked against drawn ones, each
 * answer kept in the folder as soon as it is there. */
#include "study/heads.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "model/plan.h"
#include "report/report.h"

#define KEPT 0.5                   /* a trial counts when its answer has more of the needle */

static size_t n_heads(const struct nm__headrun *R) { return (size_t)R->m->L * (size_t)R->m->H; }
static size_t n_items(const struct nm__headrun *R) { return R->trials.n + R->facts.n; }
static const char *mask_of(const struct nm__headrun *R) {
  return R->o.mask ? R->o.mask : "uniform";
}

/* ---- what is there already --------------------------------------------------------- */

/* Everything that can change an answer. */
static int key_of(struct nm__headrun *R, char key[33], nm_err *err) {
  struct nm__buf b;
  char hex[33] = "";
  nm__buf_init(&b, (size_t)1 << 32);
  int st = nm_model_hash(R->m, hex, err);
  nm__buf_printf(&b, "%s|%s|%d|%s|%d|%d|%s|%d|%d|%llu|", hex, NM_VERSION, nm__engine_ctx(R->e),
                 nm__engine_gelu(R->e), R->o.predict, R->o.unique, mask_of(R), R->o.draws,
                 R->o.no_mask, (unsigned long long)R->o.seed);
  for (int i = 0; i < R->o.n_top; i++) nm__buf_printf(&b, "%d,", R->o.top[i]);
  for (size_t i = 0; i < n_items(R); i++) {
    const struct nm__trial *t = i < R->trials.n ? &R->trials.v[i] : &R->facts.v[i - R->trials.n];
    nm__buf_printf(&b, "|%zu %zu %d %d %s|", i, t->n, t->from, t->to, t->answer);
    nm__buf_put(&b, t->ids, t->n * sizeof *t->ids);
  }
  if (!st && b.failed) st = nm__fail_memory(err, "a key", b.len);
  if (!st) nm__hash_hex(b.s, b.len, key);
  nm__buf_done(&b);
  return st;
}

/* [set, item, value] or, of a trial with nothing masked, [0, item, value, [[head, score], ...]]. */
static void read_answer(struct nm__headrun *R, const char *line, size_t n) {
  json_t *a = json_loadb(line, n, 0, NULL), *v = json_array_get(a, 2), *scores, *pair;
  json_int_t set = json_integer_value(json_array_get(a, 0)),
             item = json_integer_value(json_array_get(a, 1));
  size_t i, n_sets = (size_t)R->n_sets;
  bool ok = json_is_integer(json_array_get(a, 0)) && json_is_integer(json_array_get(a, 1)) &&
            json_is_number(v) && set >= 0 && (size_t)set < n_sets && item >= 0 &&
            (size_t)item < n_items(R);
  size_t at = ok ? (size_t)set * n_items(R) + (size_t)item : 0;
  if (ok && !set && (size_t)item < R->trials.n) {
    scores = json_array_get(a, 3);
    ok = json_is_array(scores);
    json_array_foreach(scores, i, pair) {
      json_int_t h = json_integer_value(json_array_get(pair, 0));
      if (h < 0 || (size_t)h >= n_heads(R)) continue;
      R->all.score[(size_t)h * R->trials.n + (size_t)item] =
          json_number_value(json_array_get(pair, 1));
    }
  }
  if (ok) {
    R->n_done += !R->known[at];
    R->value[at] = json_number_value(v);
    R->known[at] = true;
  }
  json_decref(a);
}

static int read_answers(struct nm__headrun *R, const char *path, const char *head, nm_err *err) {
  struct nm__map m;
  if (!nm__exists(path)) return nm__write_file(path, head, strlen(head), err);
  int st = nm__map_open(path, &m, err);
  if (st) return st;
  const char *s = (const char *)m.data, *end = s + m.size;
  size_t n = strlen(head);
  if (m.size < n || memcmp(s, head, n))
    st = nm__fail(err, NM_EUSAGE, "%s holds the answers of another run (model, prompts or options "
                  "differ): choose another --out", R->r->dir);
  for (s += n; !st && s < end;) {
    const char *nl = memchr(s, '\n', (size_t)(end - s));
    if (nl) read_answer(R, s, (size_t)(nl - s));
    s = nl ? nl + 1 : end;
  }
  nm__map_close(&m);
  return st;
}

static void keep_answer(struct nm__headrun *R, int set, size_t item, const double *score) {
  size_t at = (size_t)set * n_items(R) + item;
  fprintf(R->file, "[%d,%zu,%.17g", set, item, R->value[at]);
  if (score) {
    const char *comma = "";
    fputs(",[", R->file);
    for (size_t h = 0; h < n_heads(R); h++)
      if (score[h] > 0) fprintf(R->file, "%s[%zu,%.17g]", comma, h, score[h]), comma = ",";
    fputs("]", R->file);
  }
  fputs("]\n", R->file);
  R->known[at] = true;
  R->n_done++;
}

/* ---- answers ----------------------------------------------------------------------- */

/* The end of a text, or of a line. */
static bool ends(void *arg, int32_t id) {
  struct nm__headrun *R = arg;
  if (nm_is_end(R->m, id)) return true;
  char *s = nm_token_text(R->m, &id, 0, false);
  bool line = s && strchr(s, '\n');
  nm_free(s);
  return line;
}

static int judge(struct nm__headrun *R, const struct nm__trial *t, int n, double *out,
                 nm_err *err) {
  char *s = NULL;
  size_t len;
  int st = nm_detokenize(R->m, R->answer, (size_t)n, &s, &len, err);
  if (!st && t->want)
    *out = !strncmp(s + strspn(s, " "), t->answer + strspn(t->answer, " "),
                    strlen(t->answer + strspn(t->answer, " ")));
  else if (!st && isnan(*out = nm__rouge1_recall(t->answer, s)))
    st = nm__fail_memory(err, "an answer", len);
  nm_free(s);
  return st;
}

static int answer_item(struct nm__headrun *R, struct nm__copier *c, int set, size_t item,
                       nm_err *err) {
  bool fact = item >= R->trials.n;
  const struct nm__trial *t = fact ? &R->facts.v[item - R->trials.n] : &R->trials.v[item];
  struct nm__needle q = {{t->ids, t->n}, t->from, t->to, fact ? t->n_want + 1 : 0};
  double *score = set || fact ? NULL : R->row;
  int n, st = nm__copy_answer(c, &q, R->answer, &n, score, err);
  if (!st) st = judge(R, t, n, &R->value[(size_t)set * n_items(R) + item], err);
  if (st) return st;
  for (size_t h = 0; score && h < n_heads(R); h++)
    R->all.score[h * R->trials.n + item] = score[h];
  keep_answer(R, set, item, score);
  return nm__progress(R->o.progress, set ? "asking again with heads masked" : "needles",
                      (double)R->n_done, (double)R->n_answers, err);
}

static int answer_set(struct nm__headrun *R, int set, nm_err *err) {
  struct nm__copy_opts o = {R->o.predict, R->o.unique, set > 0, ends, R};
  struct nm__copier *c = NULL;
  nm_edits *mask = NULL;
  int st = NM_OK;
  for (size_t i = 0; i < n_items(R) && !st; i++) {
    if (R->known[(size_t)set * n_items(R) + i]) continue;
    if (!c && set)
      st = nm__mask_heads(R->m, R->set_head[set], (size_t)R->set_k[set], mask_of(R), &mask, err);
    if (!c && !st) st = nm__copier_new(R->e, R->m, mask, &o, &c, err);
    if (!st) st = answer_item(R, c, set, i, err);
  }
  fflush(R->file);
  nm__copier_free(c);
  nm_edits_free(mask);
  return st;
}

/* ---- scores and masks -------------------------------------------------------------- */

static int fit(struct nm__headrun *R, nm_err *err) {
  size_t n = 0, k = 0;
  double best = 0;
  for (size_t i = 0; i < R->trials.n; i++) {
    n += R->value[i] > KEPT;
    best = fmax(best, R->value[i]);
  }
  R->r->n_kept = n;
  if (!n)
    return nm__fail(err, NM_EFAIL, "none of the %zu trials was answered (the best answer has %.0f "
                    "%% of its needle's words, more than 50 %% are needed), so no head has a "
                    "score: try shorter --lengths, another --prompt, or another model",
                    R->trials.n, 100 * best);
  int st = nm__head_scores_new(R->m->L, R->m->H, n, &R->kept, err);
  for (size_t i = 0; i < R->trials.n && !st; i++) {
    if (!(R->value[i] > KEPT)) continue;
    for (size_t h = 0; h < n_heads(R); h++)
      R->kept.score[h * n + k] = R->all.score[h * R->trials.n + i];
    k++;
  }
  if (st) return st;
  nm__head_scores_fit(&R->kept);
  R->rank = nm__head_ranking(&R->kept);
  R->r->mean = nm__alloc(2 * n_heads(R), sizeof *R->r->mean);
  if (!R->rank || !R->r->mean) return nm__fail_memory(err, "a ranking", 0);
  R->r->freq = R->r->mean + n_heads(R);
  for (size_t h = 0; h < n_heads(R); h++) {
    R->r->mean[h] = R->kept.v[h].mean;
    R->r->freq[h] = R->kept.v[h].freq;
  }
  R->r->n_copying = (int)nm__heads_sum(&R->kept).copying;
  R->r->best_layer = (int)R->rank[0] / R->m->H;
  R->r->best_head = (int)R->rank[0] % R->m->H;
  return NM_OK;
}

/* Which heads each set masks. Draws leave out the largest K and those that copy. */
static int choose_masks(struct nm__headrun *R, nm_err *err) {
  int own = R->r->n_copying, most = own;
  bool room = own && 2 * (size_t)own <= n_heads(R);
  int n_top = R->o.n_top ? R->o.n_top : room;
  const int *top = R->o.n_top ? R->o.top : &own;
  for (int i = 0; i < n_top; i++) most = top[i] > most ? top[i] : most;
  for (int i = 0; i < n_top; i++)
    if ((size_t)most + (size_t)top[i] > n_heads(R))
      return nm__fail(err, NM_EUSAGE, "masking %d heads against %d others outside the best %d "
                      "takes %d heads; the model has %zu", top[i], top[i], most, most + top[i],
                      n_heads(R));
  R->r->mask = nm__alloc((size_t)n_top + 1, sizeof *R->r->mask);
  if (!R->r->mask) return nm__fail_memory(err, "masks", 0);
  R->r->n_masks = n_top;
  for (int i = 0, set = 1; i < n_top; i++)
    for (int d = -1; d < R->o.draws; d++, set++) {
      size_t k = (size_t)top[i];
      R->r->mask[i].k = R->set_k[set] = top[i];
      if (!(R->set_head[set] = nm__alloc(k, sizeof **R->set_head)))
        return nm__fail_memory(err, "masks", 0);
      if (d < 0) memcpy(R->set_head[set], R->rank, k * sizeof *R->rank);
      int st = d < 0 ? NM_OK : nm__random_heads(R->rank, n_heads(R), (size_t)most, k, R->o.seed,
                                                (uint64_t)d, R->set_head[set], err);
      if (st) return st;
    }
  return NM_OK;
}

static double mean_of(const struct nm__headrun *R, int set, bool facts) {
  size_t from = facts ? R->trials.n : 0, n = facts ? R->facts.n : R->trials.n;
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += R->value[(size_t)set * n_items(R) + from + i];
  return n ? 100 * sum / (double)n : NAN;
}

static void judge_masks(struct nm__headrun *R) {
  nm_heads_result *r = R->r;
  bool hurts = false, drawn = false;
  r->needle = mean_of(R, 0, false);
  r->facts = mean_of(R, 0, true);
  for (int i = 0; i < r->n_masks; i++) {
    nm_heads_mask *q = &r->mask[i];
    int set = 1 + i * (R->o.draws + 1);
    q->needle = mean_of(R, set, false);
    q->facts = mean_of(R, set, true);
    q->low = HUGE_VAL;
    q->high = -HUGE_VAL;
    for (int d = 1; d <= R->o.draws; d++) {
      double v = mean_of(R, set + d, false);
      q->random += v / R->o.draws;
      q->random_facts += mean_of(R, set + d, true) / R->o.draws;
      q->low = fmin(q->low, v);
      q->high = fmax(q->high, v);
    }
    hurts |= q->needle < q->low;
    drawn |= q->needle >= q->low;
  }
  r->verdict = drawn ? NM_ECHECK : hurts ? NM_OK : NM_EUNSURE;
}

/* ---- the whole --------------------------------------------------------------------- */

static int check_opts(struct nm__headrun *R, nm_err *err) {
  nm_heads_opts *o = &R->o;
  if (!R->m->causal || !R->m->output.data)
    return nm__fail(err, NM_EFORMAT, "%s: is an encoder (%s): nothing to generate, so nothing that "
                    "heads could copy", R->m->path, R->m->arch->name);
  if (!o->predict) o->predict = 50;
  if (!o->draws) o->draws = 5;
  if (o->mask && strcmp(o->mask, "uniform") && strcmp(o->mask, "zero"))
    return nm__fail(err, NM_EUSAGE, "heads cannot be masked by '%.40s' (known: uniform, zero)",
                    o->mask);
  if (o->n_lengths && (o->len_from < 8 || o->len_to < o->len_from || o->n_lengths < 1))
    return nm__fail(err, NM_EUSAGE, "lengths go from at least 8 tokens upwards");
  for (int i = 0; i < o->n_top; i++)
    if (o->top[i] < 1 || (size_t)o->top[i] > n_heads(R))
      return nm__fail(err, NM_EUSAGE, "cannot mask %d of %zu heads", o->top[i], n_heads(R));
  return NM_OK;
}

static int make_room(struct nm__headrun *R, nm_err *err) {
  size_t sets = 1 + (R->o.no_mask ? 0 : (size_t)(R->o.n_top ? R->o.n_top : 1) *
                                            ((size_t)R->o.draws + 1));
  R->n_sets = (int)sets;
  R->n_answers = sets * n_items(R);
  R->set_k = nm__alloc(sets, sizeof *R->set_k);
  R->set_head = nm__alloc(sets, sizeof *R->set_head);
  R->value = nm__alloc(R->n_answers, sizeof *R->value);
  R->known = nm__alloc(R->n_answers, sizeof *R->known);
  R->row = nm__alloc(n_heads(R), sizeof *R->row);
  R->answer = nm__alloc((size_t)R->o.predict, sizeof *R->answer);
  if (!R->set_k || !R->set_head || !R->value || !R->known || !R->row || !R->answer)
    return nm__fail_memory(err, "the answers", R->n_answers * 9);
  return nm__head_scores_new(R->m->L, R->m->H, R->trials.n, &R->all, err);
}

static int run(struct nm__headrun *R, nm_err *err) {
  int st = answer_set(R, 0, err);
  if (!st) st = fit(R, err);
  if (!st && !R->o.no_mask) st = choose_masks(R, err);
  for (int set = 1; set <= R->r->n_masks * (R->o.draws + 1) && !st; set++)
    st = answer_set(R, set, err);
  if (st) return st;
  judge_masks(R);
  return nm__heads_page(R, err);
}

/* What config.json says beside what every run's does. */
static json_t *settings(const struct nm__headrun *R) {
  json_t *o = nm__engine_record(R->e);
  json_object_set_new(o, "seed", json_integer((json_int_t)R->o.seed));
  return o;
}

static int recorded(struct nm__headrun *R, nm_err *err) {
  struct nm__record rec;
  char key[33], head[120];
  int st = nm__record_begin(&rec, "heads", R->o.out, "report.html", R->m->path, R->o.command,
                           settings(R), err);
  char *path = st ? NULL : nm__path_join(rec.dir, "answers.jsonl");
  if (!st) R->r->dir = nm__strdup(rec.dir);
  if (!st && (!path || !R->r->dir)) st = nm__fail_memory(err, "a folder name", 0);
  if (!st) st = key_of(R, key, err);
  if (!st) {
    snprintf(head, sizeof head, "{\"noema\":\"heads\",\"key\":\"%s\"}\n", key);
    st = read_answers(R, path, head, err);
  }
  if (!st && !(R->file = fopen(path, "a")))
    st = nm__fail(err, NM_EFAIL, "%s: cannot be opened to be continued", path);
  if (!st) {
    setvbuf(R->file, NULL, _IOLBF, 1 << 12);             /* a crash loses one line at most */
    if (R->n_done) fputc('\n', R->file);                 /* nor does a cut line swallow the next */
    st = run(R, err);
    fclose(R->file);
  }
  free(path);
  nm__record_end(&rec, st, R->r->summary, err);
  return st;
}

static void done(struct nm__headrun *R) {
  for (int i = 0; R->set_head && i < R->n_sets; i++) free(R->set_head[i]);
  free(R->set_head);
  free(R->set_k);
  free(R->value);
  free(R->known);
  free(R->row);
  free(R->answer);
  free(R->rank);
  nm__head_scores_done(&R->all);
  nm__head_scores_done(&R->kept);
  nm__trials_done(&R->trials);
  nm__trials_done(&R->facts);
}

int nm_heads(nm_model *m, nm_engine *e, const nm_heads_opts *o, nm_heads_result *out,
             nm_err *err) {
  nm_err own;
  struct nm__headrun R = {.m = m, .e = e, .o = *o, .r = out};
  if (!err) err = &own;
  *out = (nm_heads_result){.L = m->L, .H = m->H};
  int st = check_opts(&R, err);
  if (!st) st = nm__trials_load(m, &R.o, &R.trials, &R.facts, err);
  out->n_trials = R.trials.n;
  out->n_facts = R.facts.n;
  if (!st) st = make_room(&R, err);
  if (!st) st = recorded(&R, err);
  done(&R);
  if (st) nm_heads_result_free(out);
  return st;
}

void nm_heads_result_free(nm_heads_result *r) {
  free(r->mean);
  free(r->mask);
  free(r->dir);
  free(r->summary);
  free(r->text);
  free(r->json);
  *r = (nm_heads_result){0};
}
