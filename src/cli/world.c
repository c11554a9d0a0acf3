/* world.c - noema world: models and data with planted truth. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static const struct cli_opt opts[] = {
    {"-o, --out", CLI_TEXT, "FILE", "where to write"},
    {"-n, --n", CLI_INT, "N", "items (default 1000); planted-a, planted-b: sets of eight (60)"},
    {"-w, --world", CLI_INT, "W", "seed of the truth (default 1)"},
    {"-s, --seed", CLI_INT, "S", "seed of the sampling (default 1)"},
    {"--set", CLI_LIST, "KEY=VALUE", "a parameter of the world; may be repeated"},
    {"--split", CLI_TEXT, "train|test", "only items of this side"},
    {"--form", CLI_TEXT, "probe|train|both", "questions, training parts, or both (default)"},
    {0}};

/* One line a world, one a parameter. */
static int list(void) {
  nm_world_info w;
  for (int i = 0; nm_worlds(i, &w); i++) {
    printf("%-10s %s\n", w.name, w.about);
    for (const nm_world_param *p = w.params; p->name; p++)
      printf("           --set %s=%d..%d  %s (default %d)\n", p->name, p->low, p->high, p->about,
             p->standard);
  }
  printf("%-10s the hand-wired model\n", "planted");
  printf("%-10s sentences for its concept A; planted-b for its concept B\n", "planted-a");
  return 0;
}

static int write_planted(struct cli *c, const char *what, const char *out) {
  nm_err err = {0};
  int st;
  long long n = cli_int(c, "n", 60), seed = cli_int(c, "seed", 1);
  if (c->n_list || cli_text(c, "world") || cli_text(c, "split") || cli_text(c, "form"))
    return cli_usage(c, "%s takes -o, -n and -s only", what);
  if (n < 1 || n > 1 << 20 || seed < 0)
    return cli_usage(c, "-n must be 1 to 1048576, the seed not negative");
  if (!strcmp(what, "planted")) st = nm_write_planted(out, &err);
  else st = nm_write_planted_data(out, what[8] == 'a' ? 'A' : 'B', (int)n, (uint64_t)seed, &err);
  return st ? cli_fail(c, &err) : 0;
}

static int write_world(struct cli *c, const char *name, const char *out) {
  static const char *const forms[] = {"both", "probe", "train"};    /* as enum nm_world_form */
  nm_err err = {0};
  nm_world *w;
  long long n = cli_int(c, "n", 1000), W = cli_int(c, "world", 1), seed = cli_int(c, "seed", 1);
  const char *form = cli_text(c, "form"), *split = cli_text(c, "split");
  int f = 0;
  if (n < 1 || n > 1LL << 32 || W < 0 || seed < 0)
    return cli_usage(c, "-n must be 1 to 4294967296, W and the seed not negative");
  while (form && f < 3 && strcmp(form, forms[f])) f++;
  if (f == 3) return cli_usage(c, "--form is probe, train or both, not '%s'", form);
  cli_catch_interrupt();
  int st = nm_world_open(name, c->list, c->n_list, (uint64_t)W, (uint64_t)seed, &w, &err);
  if (st) return cli_fail(c, &err);
  st = nm_world_write(w, (uint64_t)n, split, (enum nm_world_form)f, out, &cli_progress, &err);
  nm_world_close(w);
  cli_progress_end();
  return st ? cli_fail(c, &err) : 0;
}

static int run(struct cli *c) {
  static const char *const planted[] = {"planted", "planted-a", "planted-b"};
  const char *out = cli_text(c, "out"), *what = c->pos[0];
  nm_world_info w;
  bool known = false;
  if (!c->n_pos && !out) return list();
  if (c->n_pos != 1) return cli_usage(c, "name one world; noema world alone lists them");
  for (int i = 0; nm_worlds(i, &w); i++) known |= !strcmp(what, w.name);
  for (int i = 0; i < 3; i++) known |= !strcmp(what, planted[i]);
  if (!known) return cli_usage(c, "'%s' is not known; noema world alone lists the worlds", what);
  if (!out) return cli_usage(c, "-o FILE is needed");
  return !strncmp(what, "planted", 7) ? write_planted(c, what, out) : write_world(c, what, out);
}

const struct cli_verb cli_world = {
    "world",
    "models and data whose truth is known",
    "world [NAME -o FILE [-n N] [-w W] [-s S] [--set KEY=VALUE]]",
    "Without a name it lists the worlds and their parameters. A world is written as JSONL: text,\n"
    "answer, label, depth of computation, twin, split, training parts. W fixes the truth, S the\n"
    "sampling. planted writes the hand-wired model; planted-a and planted-b write sentences for\n"
    "its two concepts, which become readable after block 2 and after block 4.",
    "  noema world planted-a -n 60 -s 1 -o a.tsv\n"
    "  noema world chase -n 1000 -w 7 --set hops=2 --set k_min=8 -o chase.jsonl",
    opts,
    run};
