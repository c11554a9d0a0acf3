/* depth_data.c - a data set made ready: rows and labels, the prompt around each
 * text, token ids, and the tokens that mean yes and no.
 *
 * The prompts follow the layouts of the published study in our own words: instruction and
 * statement for facts, statement and question for reviews and coins, a worked example and a
 * step-by-step cue for strategy questions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "study/depth.h"

static const struct nm__depth_prompt prompts[] = {
    {"facts", "Judge whether the following statement is true. {text}", " Your answer is"},
    {"review", "{text} Does the writer of this review have a good opinion of the movie?",
     " Your answer is"},
    {"coin", "{text} Answer yes or no.", " Your answer is"},
    {"strategy",
     "Would a pear sink in water? A pear is less dense than water, so it floats. The answer is no. "
     "{text} Let us think step by step.",
     " Your answer is"},
    {"choice", "{text}", ""},
    {"none", "{text}", " Your answer is"},
};
enum { CHOICE = 4, N_PROMPTS = sizeof prompts / sizeof *prompts, NONE = N_PROMPTS - 1 };

bool nm_depth_prompts(int i, const char **name, const char **text) {
  if (i < 0 || i >= N_PROMPTS) return false;
  *name = prompts[i].name;
  *text = prompts[i].text;
  return true;
}

static bool column(const struct nm__table *t, const char *name) {
  return nm__table_col(t, name) >= 0;
}

/* By what the file holds, never by its name. */
const struct nm__depth_prompt *nm__depth_prompt_for(const struct nm__table *t,
                                                    const struct nm__labelled *l) {
  if (l->n && !strncmp(l->text[0], "A coin is heads up.", 19)) return &prompts[2];
  if (t->form == NM__TABLE_BIGBENCH) return &prompts[3];
  if (t->form == NM__TABLE_STSA) return &prompts[1];
  if (column(t, "statement") || (l->label_name[1] && !strcasecmp(l->label_name[1], "true")))
    return &prompts[0];
  return &prompts[NONE];
}

static const struct nm__depth_prompt *choose(const nm_depth_opts *o, const struct nm__table *t,
                                             const struct nm__labelled *l, bool choices) {
  if (choices && (!o->prompt || !strcmp(o->prompt, "auto"))) return &prompts[CHOICE];
  if (o->cd_bug) return &prompts[1]; /* the published commit put this one around everything */
  if (!o->prompt || !strcmp(o->prompt, "auto")) return nm__depth_prompt_for(t, l);
  for (int i = 0; i < N_PROMPTS; i++)
    if (!strcmp(o->prompt, prompts[i].name)) return &prompts[i];
  return NULL;
}

char *nm__depth_fill(const char *template, const char *text) {
  const char *at = strstr(template, "{text}");
  size_t n = strlen(template) + strlen(text) + 2;
  char *s = nm__alloc(n, 1);
  if (!s) return NULL;
  if (at) snprintf(s, n, "%.*s%s%s", (int)(at - template), template, text, at + 6);
  else snprintf(s, n, "%s %s", template, text);
  return s;
}

/* ---- yes and no -------------------------------------------------------------- */

/* Spellings that are one ordinary token after a space. */
static int spellings(const nm_model *m, const char *const *words, int32_t out[8]) {
  int n = 0;
  for (int i = 0; words[i]; i++) {
    char spaced[80];
    int32_t *ids;
    size_t k;
    /* Byte-level BPE must be given the space that others put there themselves. */
    snprintf(spaced, sizeof spaced, "%s%s", strcmp(nm__tok_family(m->tok), "gpt2") ? "" : " ",
             words[i]);
    if (strlen(words[i]) > 70) continue;
    if (nm_tokenize(m, spaced, strlen(spaced), NM_NO_BOS, &ids, &k, NULL)) continue;
    if (k == 1) out[n++] = ids[0];
    nm_free(ids);
  }
  return n;
}

/* ---- loading ------------------------------------------------------------------- */

static int encode(const nm_model *m, const char *template, const char *text, const char *tail,
                  nm_seq *out, nm_err *err) {
  char *whole = nm__depth_fill(template, text),
       *more = whole ? nm__alloc(strlen(whole) + strlen(tail) + 1, 1) : NULL;
  int st = more ? NM_OK : nm__fail_memory(err, "a prompt", 0);
  if (more) {
    int32_t *ids = NULL;
    memcpy(more, whole, strlen(whole));
    memcpy(more + strlen(whole), tail, strlen(tail));
    st = nm_tokenize(m, more, strlen(more), 0, &ids, &out->n, err);
    out->ids = ids;
  }
  free(whole);
  free(more);
  return st;
}

/* Drops row `to` by not advancing; rows that stay move down. */
static void keep_row(struct nm__depth_set *s, size_t to, size_t from) {
  if (to == from) return;
  char *t = s->lab.text[to];
  s->lab.text[to] = s->lab.text[from];
  s->lab.text[from] = t;
  s->lab.label[to] = s->lab.label[from];
  s->lab.group[to] = s->lab.group[from];
}

/* Three letters before every text, without a space, chosen by coin. */
static int add_noise(struct nm__depth_set *s, uint64_t seed, nm_err *err) {
  for (size_t i = 0; i < s->lab.n; i++) {
    char *t =
        nm__depth_fill(nm__rand_at(seed, 31, i) & 1 ? "aaa{text}" : "bbb{text}", s->lab.text[i]);
    if (!t) return nm__fail_memory(err, "a text", 0);
    free(s->lab.text[i]);
    s->lab.text[i] = t;
  }
  return NM_OK;
}

static int encode_all(const nm_model *m, int n_ctx, const char *tail, struct nm__depth_set *s,
                      nm_err *err) {
  size_t N = s->lab.n;
  s->seqs = nm__alloc(N, sizeof *s->seqs);
  s->answers = nm__alloc(N, sizeof *s->answers);
  s->origin = nm__alloc(N, sizeof *s->origin);
  if (!s->seqs || !s->answers || !s->origin) return nm__fail_memory(err, "the prompts", N * 32);
  for (size_t i = 0; i < N; i++) {
    nm_seq a = {0}, b = {0};
    int st = encode(m, s->prompt, s->lab.text[i], "", &a, err);
    if (!st) st = encode(m, s->prompt, s->lab.text[i], tail, &b, err);
    if (st || b.n > (size_t)n_ctx || a.n > (size_t)n_ctx || !a.n) {
      free((void *)(uintptr_t)a.ids);
      free((void *)(uintptr_t)b.ids);
      if (st) return nm__fail_at(err, st, "%s: row %zu", s->path, i + 1);
      s->too_long++;
      continue;
    }
    keep_row(s, s->n, i);
    s->origin[s->n] = (uint32_t)i;
    s->seqs[s->n] = a;
    s->answers[s->n++] = b;
  }
  if (s->too_long * 5 > N)
    return nm__fail(
        err, NM_EFORMAT,
        "%s: %zu of %zu texts are longer than the context of %d tokens (with their prompt); "
        "say -c N if the model takes more",
        s->path, s->too_long, N, n_ctx);
  return NM_OK;
}

/* Enough rows of each class to split, said with the counts. */
static int check_counts(struct nm__depth_set *s, nm_err *err) {
  size_t n[NM__LABELS_MAX] = {0};
  int few = 0, K = s->lab.n_labels;
  for (size_t i = 0; i < s->n; i++) n[s->lab.label[i]]++;
  for (int k = 1; k < K; k++)
    if (n[k] < n[few]) few = k;
  if (n[few] >= 5) return NM_OK;
  if (K > 2)
    return nm__fail(err, NM_EFORMAT, "%s: only %zu rows of class '%s' (of %d classes): at least 5 "
                    "of each are needed", s->path, n[few], s->lab.label_name[few], K);
  return nm__fail(
      err, NM_EFORMAT,
      "%s: %zu rows of class '%s' and %zu of class '%s': at least 5 of each are needed", s->path,
      n[0], s->lab.label_name[0], n[1], s->lab.label_name[1]);
}

/* The tokens that say each label: yes and no for two, else the labels' own names. */
static void find_answers(const nm_model *m, struct nm__depth_set *s) {
  static const char *const yes[] = {"yes", "Yes", "YES", NULL}, *const no[] = {"no", "No", "NO",
                                                                               NULL};
  int K = s->lab.n_labels;
  if (!m->output.data) {           /* no head: nothing is ever answered */
    s->cannot_say = "an encoder has no vocabulary head";
    return;
  }
  for (int k = 0; k < K; k++) {
    const char *const name[] = {s->lab.label_name[k], NULL};
    s->says[k].n = spellings(m, K > 2 ? name : k ? yes : no, s->says[k].id);
    if (!s->says[k].n)
      s->cannot_say = K > 2 ? "the labels are not all one token of this vocabulary"
                            : "yes or no is not one token of this vocabulary";
    for (int j = 0; j < k && s->says[k].n; j++)
      if (s->says[j].n && s->says[j].id[0] == s->says[k].id[0])
        s->cannot_say = "two labels are the same token of this vocabulary";
  }
}

static int name_of(const char *spec, struct nm__depth_set *s, nm_err *err) {
  const char *eq = strchr(spec, '=');
  if (eq && nm__exists(spec)) eq = NULL;       /* a file with '=' in its name */
  const char *base = nm__path_base(spec), *dot = strrchr(base, '.');
  s->path = nm__strdup(eq ? eq + 1 : spec);
  s->name = eq ? nm__strndup(spec, (size_t)(eq - spec))
               : nm__strndup(base, dot && dot > base ? (size_t)(dot - base) : strlen(base));
  return s->path && s->name ? NM_OK : nm__fail_memory(err, "a name", 0);
}

int nm__depth_set_load(const nm_model *m, int n_ctx, const char *spec, const nm_depth_opts *o,
                       struct nm__depth_set *s, nm_err *err) {
  struct nm__table t;
  bool choices = false;
  *s = (struct nm__depth_set){0};
  int st = name_of(spec, s, err);
  if (!st) st = nm__table_read(s->path, &t, err);
  if (st) return st;
  struct nm__labelled_opts lo = {o->text_col, o->label_col, o->group_col, o->max_rows,
                                 NM__LABELS_MAX};
  if (!o->text_col && !o->label_col) st = nm__table_choices(s->path, &t, &choices, err);
  if (!st) st = nm__labelled_from(s->path, &t, &lo, &s->lab, err);
  if (!st) st = nm__hash_file(s->path, s->hash, err);
  if (!st) {
    const struct nm__depth_prompt *p = choose(o, &t, &s->lab, choices);
    s->prompt_name = p ? p->name : "given";
    s->prompt = nm__strdup(p ? p->text : o->prompt);
    if (!s->prompt) st = nm__fail_memory(err, "a prompt", 0);
    if (!st && o->noise) st = add_noise(s, o->seed, err);
    const char *cue = p ? p->answer : prompts[NONE].answer;
    if (!st) st = encode_all(m, n_ctx, m->output.data ? cue : "", s, err);
  }
  nm__table_done(&t);
  if (!st) st = check_counts(s, err);
  if (!st) find_answers(m, s);
  return st;
}

void nm__depth_set_done(struct nm__depth_set *s) {
  for (size_t i = 0; i < s->n; i++) {
    free((void *)(uintptr_t)s->seqs[i].ids);
    free((void *)(uintptr_t)s->answers[i].ids);
  }
  free(s->seqs);
  free(s->answers);
  free(s->origin);
  free(s->name);
  free(s->path);
  free(s->prompt);
  nm__labelled_done(&s->lab);
  *s = (struct nm__depth_set){0};
}
