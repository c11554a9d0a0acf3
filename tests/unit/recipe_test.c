/* recipe_test.c - what a recipe can learn and by which losses: mistakes in it, its rows, and for
 * each mode that a run that was stopped and goes on ends in the files of one that was not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/json.h"
#include "file/npy.h"
#include "learn/data.h"
#include "learn/recipe.h"
#include "train_run.h"

#define BASE "base: %s/base.gguf\nlength: 32\nschedule: {lr: 0.01}\n"
#define FACTS BASE "data: [{world: facts, W: 7, n: 300, order: shuffled}]\n"
#define PAIRS BASE "data: [{file: %s/pairs.jsonl, order: shuffled}]\n"
#define GROUPS BASE "data: [{file: %s/groups.jsonl, order: shuffled}]\n"

/* Every %s of a recipe is the test's folder. */
static const char *in_folder(const char *text) {
  static char out[4000];
  size_t n = 0;
  for (; *text && n + 100 < sizeof out; text++)
    if (text[0] == '%' && text[1] == 's')
      n += (size_t)sprintf(out + n, "%s", dir), text++;
    else
      out[n++] = *text;
  out[n] = 0;
  return out;
}

/* ---- mistakes --------------------------------------------------------------------- */

static void mistakes(void **state) {
  (void)state;
#define START "base: x\ndata: [{world: facts}]\nsteps: 2\n"
  const struct {
    const char *text, *says;
  } bad[] = {
      {START "loss: dpx\n", ":4: loss 'dpx' is not known (known: cross_entropy, "},
      {START "loss: [{kind: dpo}, {kind: dpo, bta: 1}]\n", ":4: a loss has no key 'bta'"},
      {START "loss: {weight: 1}\n", ":4: a loss needs its 'kind'"},
      {START "loss: []\n", ":4: a loss: a list of 1 to"},
      {START "loss: {kind: kl, beta: 1}\n", ":4: loss kl has no 'beta'"},
      {START "loss: {kind: ipo, smooth: 0.1}\n", ":4: loss ipo has no 'smooth'"},
      {START "loss: {kind: dpo, beta: 0}\n", ":4: beta must be a number from 1e-09"},
      {START "loss: {kind: tap_mse}\n", ":4: loss tap_mse needs a 'site'"},
      {START "loss: {kind: tap_probe, site: embed}\n", ":4: loss tap_probe needs a 'probe'"},
      {START "loss: {kind: gradient_difference, group: a, retain: a}\n", "both are 'a'"},
      {START "pack: true\nloss: npo\n", ":5: loss npo reads samples, and 'pack'"},
      {START "noise: {replace: 0.1}\nloss: kl\n", ":5: loss kl compares"},
      {"base: x\nsteps: 1\ndata:\n  - {world: facts, group: a}\n",
       ":4: no loss names the group 'a'"},
      {START "rows: [1]\n", ":4: rows must be a mapping"},
      {START "rows: {a: [2, 1]}\n", ":4: rows of a must be whole numbers from 0 that ascend"},
      {START "rows: {a: []}\n", ":4: rows of a must be a list"},
      {START "rows: {a: [1]}\ncolumns: {a: [1]}\n", ":5: a has rows or columns, not both"},
      {START "lora: {rank: 1, targets: [attn_q]}\nrows: {a: [1]}\n", "'lora' does not go with"},
      {START "soft_prompt: {init: a}\n", ":4: soft_prompt needs 'n'"},
      {START "soft_prompt: {n: 2, from: a}\n", ":4: 'from' says all"},
      {START "soft_prompt: {n: 0}\n", ":4: n must be a whole number from 1"},
      {START "learn_vectors: [{name: a}]\n", ":4: a learned vector needs a 'name' and a 'site'"},
      {START "learn_vectors: [{name: ../a, site: embed}]\n", ":4: the name of a learned vector"},
      {START "learn_vectors:\n - {name: a, site: embed}\n - {name: a, site: embed}\n",
       ":6: two learned vectors are called a"},
      {START "learn_vectors: [{name: a, site: embed, at: last}]\n", ":4: behind the last token"},
      {START "taps: [{at: last}]\n", ":4: a tap needs a 'site'"},
      {START "taps: [{site: embed, every: 0}]\n", ":4: every must be"},
      {START "probes: [{site: embed, every: 2}]\n", ":4: a probe has one of 'file' and 'world'"},
      {START "probes: [{world: facts, every: 2}]\n", ":4: a probe needs a 'site'"},
      {START "probes: [{file: a, W: 2, site: embed, every: 2}]\n", ":4: 'W' belongs to a world"},
      {START "probes: [{world: facts, label: a, site: embed, every: 2}]\n", "belongs to a file"},
      {START "chat: {tmplate: a}\n", ":4: chat has no key 'tmplate'"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct nm__recipe r;
    nm_err err = {0};
    if (nm__recipe_parse("r.yaml", bad[i].text, strlen(bad[i].text), &r, &err) != NM_EFORMAT)
      fail_msg("%zu: was read", i);
    if (strncmp(err.text, "r.yaml:", 7) || !strstr(err.text, bad[i].says))
      fail_msg("%zu: '%s' lacks '%s'", i, err.text, bad[i].says);
  }
}

/* What only the model or the data can tell; the folder of the run is not made. */
static void mistakes_of_data(void **state) {
  (void)state;
  const struct {
    const char *text, *says;
  } bad[] = {
      {FACTS "steps: 2\nloss: dpo\n", "r.yaml:6: loss dpo needs pairs, and rows of 'facts'"},
      {GROUPS "steps: 2\nloss: {kind: npo, group: keep}\n", "no loss names the group 'forget'"},
      {FACTS "steps: 2\nloss: gradient_difference\n", "r.yaml:6: loss gradient_difference: no row"},
      {FACTS "steps: 2\nreference: base\n", "r.yaml:6: no loss compares"},
      {FACTS "steps: 2\nloss: kl\nreference: none.gguf\n", "r.yaml:7: none.gguf"},
      {FACTS "steps: 2\nrows: {nothing.weight: [1]}\n", "r.yaml:6: the model has no tensor"},
      {FACTS "steps: 2\nrows: {token_embd.weight: [99999]}\n", "r.yaml:6: token_embd.weight: rows"},
      {FACTS "steps: 2\nsoft_prompt: {n: 900}\n", "r.yaml:6: a soft prompt of 900 rows"},
      {FACTS "steps: 2\nsoft_prompt: {n: 40}\n", "r.yaml:2: a length of 32 behind the soft prompt"},
      {FACTS "steps: 2\nsoft_prompt: {from: none.npy}\n", "r.yaml:6: none.npy"},
      {FACTS "steps: 2\nlearn_vectors: [{name: a, site: blk.0.attn.scores}]\n",
       "r.yaml:6: a learned"},
      {FACTS "steps: 2\ntaps: [blk.77.resid_post]\n", "r.yaml:6: a tap"},
      {FACTS "steps: 2\nprobes: [{world: facts, site: embed, at: all, every: 1}]\n",
       "r.yaml:6: a probe reads one position"},
      {FACTS "steps: 2\nprobes: [{file: none.csv, site: embed, every: 1}]\n", "r.yaml:6: none.csv"},
      {FACTS "steps: 2\nloss: {kind: tap_mse, site: blk.0.resid_post}\n", "needs a 'target'"},
      {FACTS "steps: 2\nloss: {kind: tap_mse, site: blk.0.resid_post, target: [1, 2]}\n",
       "r.yaml:6: the target at blk.0.resid_post must have 64 numbers, it has 2"},
      {FACTS
       "steps: 2\nrecompute: true\nloss: {kind: tap_mse, site: blk.0.resid_post, target: [1]}\n",
       "r.yaml:7: tap_mse: site blk.0.resid_post: blocks are computed again"},
      {PAIRS "steps: 2\npack: true\n", "pairs.jsonl:1: pairs are not packed"},
      {BASE "data: [{file: %s/mixed.jsonl}]\nsteps: 2\n", "mixed.jsonl:2: pairs and other rows"},
      {FACTS "eval: {every: 1, data: [{file: %s/pairs.jsonl}]}\nsteps: 2\n",
       "r.yaml:5: no loss reads pairs"},
      {BASE "data: [{file: %s/chat.jsonl}]\nsteps: 2\n", "chat.jsonl:1: "}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char recipe[256], folder[256];
    nm_err err = {0};
    nm_train_result r;
    write_text("r.yaml", in_folder(bad[i].text));
    snprintf(recipe, sizeof recipe, "%s", at("r.yaml"));
    snprintf(folder, sizeof folder, "%s", at("bad"));
    int st = nm_train(recipe, &(nm_train_opts){.out = folder, .threads = 1}, &r, &err);
    nm_train_result_free(&r);
    if (!st || !strstr(err.text, bad[i].says))
      fail_msg("%zu: '%s' lacks '%s'", i, err.text, bad[i].says);
    if (access(folder, F_OK) == 0) fail_msg("%zu: a folder was made", i);
  }
}

static void damaged_recipes(void **state) {
  (void)state;
  const char *text =
      "base: x\nsteps: 2\ndata: [{file: a, group: b}]\nrows: {a: [1, 5]}\ncolumns: {c: [0]}\n"
      "soft_prompt: {n: 4, init: a b}\nlearn_vectors: [{name: v, site: embed, at: last, scale: "
      "2}]\n"
      "loss:\n  - {kind: npo, group: b, beta: 0.2, weight: 2}\n  - {kind: tap_mse, site: a, "
      "target: "
      "[1, 2]}\n  - kl\ntaps: [{site: embed, every: 2, save: 4}, embed]\nprobes:\n"
      "  - {world: facts, set: [a=1], site: embed, every: 3, C: 0.5}\nchat: {template: chatml}\n"
      "reference: base\n";
  size_t n = strlen(text);
  char *s = malloc(n);
  struct nm__rng rng = {1, 2, 3};
  int read = 0;
  for (int i = 0; i < 10000; i++) {
    struct nm__recipe r;
    nm_err err = {0};
    memcpy(s, text, n);
    for (int k = 0; k < 1 + i % 4; k++)
      s[nm__rng_below(&rng, n)] =
          (char)(i % 2 ? nm__rng_below(&rng, 256) : (uint64_t)text[nm__rng_below(&rng, n)]);
    if (nm__recipe_parse("r.yaml", s, n, &r, &err))
      assert_true(err.text[0] != 0);
    else
      read++, nm__recipe_done(&r);
  }
  if (read < 100 || read > 9900) fail_msg("%d were read", read);
  free(s);
}

/* ---- rows of conversations ------------------------------------------------------------ */

/* Loss on what the assistant says and on the end of its turn, with the message's weight. */
static void chats(void **state) {
  (void)state;
  const char *rows =
      "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", "
      "\"content\": "
      "\"ab\"}, {\"role\": \"assistant\", \"content\": \"xy\"}, {\"role\": \"user\", \"content\": "
      "\"c\"}, {\"role\": \"assistant\", \"content\": \"z\", \"weight\": 2}]}\n";
  const char *want = "xy<|im_end|>\nz<|im_end|>\n";
  struct nm__recipe r;
  struct nm__gguf *tok = NULL, *g = NULL;
  struct nm__chat_how how;
  struct nm__set s;
  nm_model *m;
  nm_err err;
  write_text("c.jsonl", rows);
  const char *text = in_folder("model: {arch: llama, layers: 1, width: 8, heads: 2, context: 200}\n"
                               "tokenizer: {kind: char}\nsteps: 1\nchat: {template: chatml}\n"
                               "data: [{file: %s/c.jsonl}]\n");
  if (nm__recipe_parse("r.yaml", text, strlen(text), &r, &err) ||
      nm__docs_tokenizer(&r, &tok, &err) || nm__fresh(&r.shape, tok, 1, &g, &err) ||
      nm__model_from(g, &m, &err) || nm__chat_how(&r, m, &how, &err) ||
      nm__set_make(&r.y, &r.data.v[0], m, &(struct nm__set_opts){.length = 200, .chat = &how}, &s,
                   &err))
    fail_msg("%s", err.text);
  nm__gguf_close(tok);
  assert_int_equal(s.n, 1);
  struct nm__ids ids = {0};
  struct nm__buf b;
  float sum = 0;
  for (int i = 0; i < s.v[0].n; i++) {
    if (s.v[0].weight[i] != 0) nm__ids_push(&ids, s.v[0].ids[i]);
    sum += s.v[0].weight[i];
  }
  nm__buf_init(&b, 1000);
  if (nm__tok_decode(m->tok, ids.id, ids.n, true, &b, &err)) fail_msg("%s", err.text);
  nm__buf_putc(&b, 0);
  assert_string_equal(b.s, want);
  assert_true(sum == 2 + 11 + 2 * (1 + 11));
  nm__buf_done(&b);
  nm__ids_done(&ids);
  nm__set_done(&s);
  nm__chat_how_done(&how);
  nm_model_close(m);
  nm__recipe_done(&r);
  /* Refused with their line. */
  const struct {
    const char *row, *says;
  } bad[] = {{"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}",
              "c.jsonl:1: \"messages\" must"},
             {"{\"messages\": [{\"content\": \"a\"}]}", "c.jsonl:1: message 1 has no \"role\""},
             {"{\"messages\": 5}", "c.jsonl:1: "},
             {"{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\", \"weight\": -1}]}",
              "weight of"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    write_text("c.jsonl", bad[i].row);
    const char *again =
        in_folder("model: {arch: llama, layers: 1, width: 8, heads: 2, context: 99}\n"
                  "tokenizer: {kind: char}\nsteps: 1\nchat: {template: chatml}\n"
                  "data: [{file: %s/c.jsonl}]\n");
    if (nm__recipe_parse("r.yaml", again, strlen(again), &r, &err)) fail_msg("%s", err.text);
    assert_int_equal(nm__docs_tokenizer(&r, &tok, &err), NM_EFORMAT);
    if (!strstr(err.text, bad[i].says)) fail_msg("%zu: %s", i, err.text);
    nm__recipe_done(&r);
  }
}

/* ---- single rows and columns --------------------------------------------------------------- */

static bool is_of(int64_t k, const int *v, int n) {
  for (int i = 0; i < n; i++)
    if (v[i] == k) return true;
  return false;
}

/* Bytes of the file outside of what was named are those of the base, whatever its type. */
static void single_rows(void **state) {
  (void)state;
  const char *const types[] = {"f32", "f16", "q8_0"};
  const int rows[] = {5, 9}, columns[] = {3};
  for (int k = 0; k < 3; k++) {
    char text[1000], out[40], save[40];
    struct nm__gguf *a, *b;
    nm_err err;
    snprintf(save, sizeof save, "as-%s", types[k]);
    snprintf(text, sizeof text, FACTS "steps: 1\nschedule: {lr: 0}\nsave: %s\n", dir, types[k]);
    char *twice = strstr(text, "schedule: {lr: 0.01}\n"); /* one schedule is enough */
    memmove(twice, twice + 21, strlen(twice + 21) + 1);
    nm_train_result r = train(text, save, 1, 0, false, NM_OK);
    nm_train_result_free(&r);
    snprintf(text, sizeof text,
             "base: %s/%s/model.gguf\nlength: 32\nschedule: {lr: 0.01}\n"
             "data: [{world: facts, W: 7, n: 300}]\nsteps: 5\noptimizer: {decay: 0.5}\n"
             "rows: {token_embd.weight: [5, 9]}\n%s",
             dir, save, k < 2 ? "columns: {blk.0.ffn_down.weight: [3]}\n" : "");
    snprintf(out, sizeof out, "rows-%s", types[k]);
    r = train(text, out, 2, 0, false, NM_OK);
    nm_train_result_free(&r);
    snprintf(text, sizeof text, "%s/%s/model.gguf", dir, save);
    if (nm__gguf_open(text, &a, &err)) fail_msg("%s", err.text);
    snprintf(text, sizeof text, "%s/%s/model.gguf", dir, out);
    if (nm__gguf_open(text, &b, &err)) fail_msg("%s", err.text);
    int changed = 0;
    for (size_t i = 0; i < a->n_tensors; i++) {
      const struct nm__gguf_tensor *x = &a->tensors[i], *y = nm__gguf_tensor(b, x->name);
      bool table = !strcmp(x->name, "token_embd.weight");
      bool down = !strcmp(x->name, "blk.0.ffn_down.weight") && k < 2;
      assert_non_null(y);
      if (x->type != y->type || x->bytes != y->bytes)
        fail_msg("%s: %s is stored anew", out, x->name);
      size_t row = x->bytes / (size_t)x->ne[1], unit = row / (size_t)x->ne[0];
      for (size_t at_byte = 0; at_byte < x->bytes; at_byte++) {
        if (x->data[at_byte] == y->data[at_byte]) continue;
        bool may = (table && is_of((int64_t)(at_byte / row), rows, 2)) ||
                   (down && is_of((int64_t)(at_byte % row / unit), columns, 1));
        if (!may) fail_msg("%s: byte %zu of %s changed", out, at_byte, x->name);
        changed |= table ? 1 : 2;
      }
    }
    assert_int_equal(changed, k < 2 ? 3 : 1);
    nm__gguf_close(a);
    nm__gguf_close(b);
  }
}

/* ---- going on in each mode ---------------------------------------------------------------------
 */

static const struct mode {
  const char *name, *text, *file;
} modes[] = {
    {"rows", FACTS "rows: {token_embd.weight: [5, 9]}\ncolumns: {blk.1.attn_q.weight: [0, 63]}\n",
     "model.gguf"},
    {"prompt", FACTS "soft_prompt: {n: 3}\n", "adapter.gguf"},
    {"prompt-lora", FACTS "soft_prompt: {n: 2, init: fermo}\nlora: {rank: 2, targets: [attn_q]}\n",
     "adapter.gguf"},
    {"prompt-all", FACTS "soft_prompt: {n: 3}\ntrain: all\n", "model.gguf"},
    {"vectors",
     FACTS "learn_vectors: [{name: a, site: blk.0.resid_post, at: \"-2\", scale: 2}, "
           "{name: b, site: \"blk.*.mlp_out\", each: true}]\n",
     "b.npy"},
    {"dpo", PAIRS "loss: {kind: dpo, beta: 0.3, smooth: 0.1}\nlora: {rank: 2, targets: [attn_q]}\n",
     "adapter.gguf"},
    {"dpo-all", PAIRS "loss: dpo\nslots: 4\n", "model.gguf"},
    {"ipo", PAIRS "loss: ipo\n", "model.gguf"},
    {"simpo", PAIRS "loss: {kind: simpo, beta: 2, gamma: 0.5}\n", "model.gguf"},
    {"npo",
     GROUPS "loss: [{kind: npo, group: forget}, {kind: kl, group: retain, weight: 0.5}]\n"
            "reference: base\n",
     "model.gguf"},
    {"difference", GROUPS "loss: gradient_difference\nslots: 2\n", "model.gguf"},
    {"reference",
     GROUPS "loss: [{kind: cross_entropy, group: forget}, {kind: kl, group: retain}]\n"
            "reference: %s/other.gguf\n",
     "model.gguf"},
    {"taps",
     FACTS "loss: [cross_entropy, {kind: tap_cosine, site: blk.1.resid_post, at: last, "
           "weight: 0.1, target: %s/target.npy}]\ntaps: [{site: blk.1.resid_post, at: last, "
           "save: 4}]\nprobes: [{world: facts, W: 7, n: 60, site: blk.0.resid_post, every: "
           "3}]\n",
     "model.gguf"},
    {"chat", BASE "chat: {template: %s/t.jinja}\ndata: [{file: %s/chat.jsonl}]\n", "model.gguf"}};

/* Lines of taps and probes: without the steps' own, which hold times. */
static char *watched(const char *folder) {
  char path[100];
  size_t n;
  snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
  char *s = read_all(at(path), &n), *out = calloc(n + 1, 1), *line = s;
  for (char *end; line < s + n && (end = memchr(line, '\n', (size_t)(s + n - line)));
       line = end + 1) {
    *end = 0;
    if (strstr(line, "\"tap\"") || strstr(line, "\"probe\"")) strcat(strcat(out, line), "\n");
  }
  free(s);
  return out;
}

static void goes_on(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    char text[4000], whole[60], parts[60], a[100], b[100];
    snprintf(text, sizeof text, "%ssteps: 7\nseed: 4\ncheckpoint: {every: 3}\n",
             in_folder(modes[i].text));
    snprintf(whole, sizeof whole, "%s-whole", modes[i].name);
    snprintf(parts, sizeof parts, "%s-parts", modes[i].name);
    nm_train_result r = train(text, whole, 2, 0, false, NM_OK);
    assert_int_equal(r.step, 7);
    nm_train_result_free(&r);
    r = train(text, parts, 1, 4, false, NM_EINTR);
    nm_train_result_free(&r);
    r = train(text, parts, 3, 0, true, NM_OK);
    nm_train_result_free(&r);
    snprintf(a, sizeof a, "%s/%s", whole, modes[i].file);
    snprintf(b, sizeof b, "%s/%s", parts, modes[i].file);
    same_files(a, b);
    char *x = watched(whole), *y = watched(parts);
    assert_string_equal(x, y);
    if (!strcmp(modes[i].name, "taps")) assert_true(strlen(x) > 700);
    free(x);
    free(y);
  }
  same_files("taps-whole/taps/blk.1.resid_post-step-000004.npy",
             "taps-parts/taps/blk.1.resid_post-step-000004.npy");
}

/* Looking changes nothing. */
static void watching_is_free(void **state) {
  (void)state;
  char text[4000];
  snprintf(text, sizeof text, "%ssteps: 4\n", in_folder(FACTS));
  nm_train_result r = train(text, "blind", 2, 0, false, NM_OK);
  nm_train_result_free(&r);
  strcat(text, "taps: [embed, \"blk.*.mlp.act\"]\n"
               "probes: [{world: facts, n: 40, site: \"blk.*.resid_post\", every: 1}]\n");
  r = train(text, "seeing", 2, 0, false, NM_OK);
  nm_train_result_free(&r);
  same_files("blind/model.gguf", "seeing/model.gguf");
}

/* ---- what is learned
 * ------------------------------------------------------------------------------ */

static double eval_of(const char *folder, int step, int eval, const char *name) {
  char path[100];
  size_t n;
  double out = -1;
  snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
  char *s = read_all(at(path), &n);
  for (char *line = s, *end; line < s + n && (end = memchr(line, '\n', (size_t)(s + n - line)));
       line = end + 1) {
    json_t *v = json_loadb(line, (size_t)(end - line), 0, NULL);
    if (json_integer_value(json_object_get(v, "step")) == step && json_object_get(v, "eval") &&
        json_integer_value(json_object_get(v, "eval")) == eval)
      out = json_number_value(json_object_get(v, name));
    json_decref(v);
  }
  free(s);
  return out;
}

static void preferences_and_unlearning(void **state) {
  (void)state;
  nm_train_result r =
      train(in_folder(PAIRS "loss: {kind: dpo, beta: 0.5}\nlora: {rank: 4, targets: "
                            "[attn_q, attn_v, ffn_down]}\neval: {every: 1, data: [{file: "
                            "%s/pairs.jsonl}]}\nsteps: 40\n"),
            "prefer", 2, 0, false, NM_OK);
  nm_train_result_free(&r);
  double before = eval_of("prefer", 1, 0, "loss"), after = eval_of("prefer", 40, 0, "loss");
  if (!(before > 0.55 && after < 0.4 && eval_of("prefer", 40, 0, "accuracy") > 0.85))
    fail_msg("dpo: %g to %g", before, after);
  r = train(in_folder(GROUPS
                      "loss: [{kind: gradient_difference, weight: 0.5}]\neval:\n  every: 1\n"
                      "  data: [{file: %s/forget.jsonl}, {file: %s/retain.jsonl}]\nsteps: 30\n"),
            "unlearn", 2, 0, false, NM_OK);
  nm_train_result_free(&r);
  double gone = eval_of("unlearn", 30, 0, "loss") - eval_of("unlearn", 1, 0, "loss");
  double kept = eval_of("unlearn", 30, 1, "loss") - eval_of("unlearn", 1, 1, "loss");
  if (!(gone > 1 && kept < 0.3 * gone)) fail_msg("unlearning: forget %+g, retain %+g", gone, kept);
}

/* A prompt that is read again and not trained comes out as it was. */
static void prompt_again(void **state) {
  (void)state;
  nm_train_result r =
      train(in_folder(FACTS "soft_prompt: {n: 3}\nsteps: 2\n"), "p1", 1, 0, false, NM_OK);
  nm_train_result_free(&r);
  r = train(in_folder("base: %s/base.gguf\nlength: 32\nschedule: {lr: 0}\nsteps: 1\n"
                      "data: [{world: facts}]\nsoft_prompt: {from: %s/p1/adapter.gguf}\n"),
            "p2", 1, 0, false, NM_OK);
  nm_train_result_free(&r);
  same_files("p1/adapter.gguf", "p2/adapter.gguf");
}

static void keep_note(void *arg, const char *text) { snprintf(((char **)arg)[1], 600, "%s", text); }

static int stop_never(void *arg, const nm_train_step *s) {
  (void)arg, (void)s;
  return 0;
}

/* A broken newest checkpoint is passed over, and the caller hears of it. */
static void broken_checkpoint(void **state) {
  (void)state;
  char recipe[256], folder[256], note[600] = "";
  void *arg[2] = {NULL, note};
  nm_err err = {0};
  nm_train_result r =
      train(in_folder(FACTS "steps: 9\ncheckpoint: {every: 2}\n"), "broken", 1, 4, false, NM_EINTR);
  nm_train_result_free(&r);
  size_t n;
  char *s = read_all(at("broken/checkpoints/step-000004.state"), &n);
  s[n / 2] ^= 1;
  if (nm__write_file(at("broken/checkpoints/step-000004.state"), s, n, &err))
    fail_msg("%s", err.text);
  free(s);
  snprintf(recipe, sizeof recipe, "%s", at("r.yaml"));
  snprintf(folder, sizeof folder, "%s", at("broken"));
  nm_train_opts o = {.out = folder,
                     .threads = 1,
                     .resume = true,
                     .note = keep_note,
                     .step = stop_never,
                     .arg = arg};
  if (nm_train(recipe, &o, &r, &err)) fail_msg("%s", err.text);
  if (!strstr(note, "going on from step 2") || !strstr(note, "step-000004.state"))
    fail_msg("note: '%s'", note);
  nm_train_result_free(&r);
}

/* ---- files
 * ----------------------------------------------------------------------------------------- */

static void write_rows(void) {
  char pairs[20000] = "", groups[20000] = "", forget[10000] = "", retain[20000] = "", row[400];
  nm_world *w;
  nm_world_item it = {0};
  nm_err err;
  if (nm_world_open("facts", NULL, 0, 7, 1, &w, &err)) fail_msg("%s", err.text);
  for (uint64_t i = 0; i < 60; i++) {
    if (nm_world_make(w, i, &it, &err)) fail_msg("%s", err.text);
    snprintf(row, sizeof row, "{\"prompt\": \"%s\", \"chosen\": \" %s\", \"rejected\": \" %s\"}\n",
             it.text, it.label ? "no" : "yes", it.answer);
    strcat(pairs, row);
    snprintf(row, sizeof row, "{\"prompt\": \"%s\", \"response\": \" %s\", \"group\": \"%s\"}\n",
             it.text, it.answer, it.label ? "forget" : "retain");
    strcat(groups, row);
    strcat(it.label ? forget : retain, row);
  }
  nm_world_item_done(&it);
  nm_world_close(w);
  write_text("pairs.jsonl", pairs);
  write_text("groups.jsonl", groups);
  write_text("forget.jsonl", forget);
  write_text("retain.jsonl", retain);
  write_text("mixed.jsonl", "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n"
                            "{\"text\": \"a\"}\n");
  write_text("t.jinja", "{% for m in messages %}{{ m.content }} {% endfor %}");
  write_text("chat.jsonl",
             "{\"messages\": [{\"role\": \"user\", \"content\": \"fermo ?\"}, {\"role\": "
             "\"assistant\", \"content\": \"yes\"}]}\n");
}

static int set_up(void **state) {
  char from[300], to[300];
  float target[64];
  nm_err err;
  if (make_dir(state)) return -1;
  for (int i = 0; i < 64; i++) target[i] = (float)(i % 5) - 2;
  if (nm__npy_write(at("target.npy"), 1, (const int64_t[]){64}, target, &err)) return -1;
  const char *made =
      "model: {arch: llama, layers: 2, width: 64, heads: 4, context: 64, init: 0.1}\n"
      "tokenizer: {kind: word}\nbatch: 32\nschedule: {lr: 0.003, warmup: 10}\n"
      "data: [{world: facts, W: 7, n: 2000, order: shuffled}]\n";
  char text[600];
  snprintf(text, sizeof text, "%ssteps: 150\n", made);
  nm_train_result r = train(text, "first", 2, 0, false, NM_OK);
  nm_train_result_free(&r);
  snprintf(text, sizeof text, "%ssteps: 3\n", made);
  r = train(text, "second", 2, 0, false, NM_OK);
  nm_train_result_free(&r);
  const char *const names[][2] = {{"first/model.gguf", "base.gguf"},
                                  {"second/model.gguf", "other.gguf"}};
  for (int i = 0; i < 2; i++) {
    snprintf(from, sizeof from, "%s", at(names[i][0]));
    snprintf(to, sizeof to, "%s", at(names[i][1]));
    if (rename(from, to)) return -1;
  }
  write_rows();
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(mistakes),         cmocka_unit_test(mistakes_of_data),
      cmocka_unit_test(damaged_recipes),  cmocka_unit_test(chats),
      cmocka_unit_test(single_rows),      cmocka_unit_test(goes_on),
      cmocka_unit_test(watching_is_free), cmocka_unit_test(preferences_and_unlearning),
      cmocka_unit_test(prompt_again),     cmocka_unit_test(broken_checkpoint)};
  return cmocka_run_group_tests(tests, set_up, remove_dir);
}
