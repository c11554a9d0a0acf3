/* depth_sides.c - noema depth with several models, --bits or --noise: runs beside each other. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sides {
  nm_depth_side_opts v[NM_DEPTH_SIDES];
  char name[NM_DEPTH_SIDES][64];
  int n;
};

static nm_depth_side_opts *add(struct sides *s, const char *name, const char *model) {
  nm_depth_side_opts *v = &s->v[s->n];
  snprintf(s->name[s->n], sizeof s->name[s->n], "%s", name);
  *v = (nm_depth_side_opts){.name = s->name[s->n], .model = model};
  s->n++;
  return v;
}

/* "f32,bf16,8,4": rungs of the ladder, the weights as they are stored first. */
static int add_bits(struct cli *c, struct sides *s, const char *list, const struct cli_input *in) {
  bool noise = cli_flag(c, "noise");
  while (*list) {
    char rung[16], *end = rung;
    size_t n = strcspn(list, ",");
    snprintf(rung, sizeof rung, "%.*s", n < 15 ? (int)n : 15, list);
    long bits = strtol(rung, &end, 10);
    bool stored = !strcmp(rung, "f32");
    if (!strcmp(rung, "bf16")) bits = 16;
    else if (!stored && (end == rung || *end || bits < 2 || bits > 8)) bits = -1;
    if (bits < 0 || s->n == NM_DEPTH_SIDES)
      return cli_usage(c, "--bits: '%s' is not known (known: f32, bf16, 2 to 8; at most 16)", rung);
    if (!stored && bits != 16) snprintf(rung, sizeof rung, "%ld-bit", bits);
    nm_depth_side_opts *v = add(s, rung, c->pos[0]);
    v->bits = stored ? 0 : (int)bits;
    v->noise = noise;
    if (stored) v->m = in->m, v->e = in->e;
    list += n + (list[n] == ',');
  }
  return s->n > 1 ? 0 : cli_usage(c, "--bits takes two or more of f32, bf16, 2 to 8");
}

/* A model is called by its file's name, or as NAME=FILE says; names that are taken get a number. */
static int add_models(struct cli *c, struct sides *s) {
  for (int i = 0; i < c->n_pos; i++) {
    const char *path = c->pos[i], *eq = strchr(path, '='), *base;
    char name[64];
    bool given = eq && eq > path && access(path, F_OK);
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    for (base = path + n; base > path && base[-1] != '/'; base--) {}
    n = (size_t)(path + n - base);
    if (n > 5 && !strncmp(base + n - 5, ".gguf", 5)) n -= 5;
    if (given) base = path, n = (size_t)(eq - path), path = eq + 1;
    snprintf(name, sizeof name, "%.*s", n < 50 ? (int)n : 50, base);
    bool taken = false;
    for (int k = 0; k < s->n; k++) taken |= !strcmp(s->name[k], name);
    if (taken) snprintf(name + strlen(name), 8, "-%d", i + 1);
    add(s, name, path)->noise = cli_flag(c, "noise");
  }
  return 0;
}

static void add_noise(struct cli *c, struct sides *s, const struct cli_input *in) {
  for (int k = 0; k < 2; k++) {
    nm_depth_side_opts *v = add(s, k ? "noise" : "clean", c->pos[0]);
    v->noise = k;
    v->m = in->m;
    v->e = in->e;
  }
}

static int show(struct cli *c, const nm_depth_sides *s) {
  bool json = cli_flag(c, "json");
  char *text = json ? nm_depth_sides_json(s) : nm_depth_sides_text(s);
  int st = 0;
  if (text) fputs(text, stdout);
  if (text && json) putchar('\n');
  nm_free(text);
  for (int i = 0; i < s->n; i++)
    for (int k = 0; k < s->side[i].r.n_curves; k++)
      if (!s->side[i].r.curve[k].shuffled_ok) {
        fprintf(stderr, "noema depth: a control failed: shuffled labels do not come out at chance "
                "(%s, %s)\n", s->side[i].name, s->side[i].r.curve[k].name);
        st = 5;
      }
  fprintf(json ? stderr : stdout, "\nreport: %s/report.html\n", s->dir);
  return st;
}

static int compare(struct cli *c, const nm_depth_sides_opts *o) {
  nm_depth_sides out;
  nm_err err = {0};
  int s = nm_depth_compare(o, &out, &err), st = 0;
  cli_progress_end();
  if (s) st = cli_fail(c, &err);
  if (out.n > 1) {
    int shown = show(c, &out);
    if (!st) st = shown;
  }
  if (s == NM_EINTR && o->depth.out)
    fprintf(stderr, "noema depth: what is done is kept; the same command with --resume goes on\n");
  nm_depth_sides_free(&out);
  return st;
}

int cli_depth_sides(struct cli *c, const nm_depth_opts *opts) {
  struct cli_input in = {0};
  struct sides s = {0};
  const char *bits = cli_text(c, "bits");
  nm_depth_sides_opts o = {.by = bits ? "bits" : c->n_pos > 1 ? "model" : "noise", .side = s.v,
                           .engine = cli_engine_opts(c), .depth = *opts};
  int n_pos = c->n_pos, st = 0;
  if (bits && n_pos > 1) return cli_usage(c, "--bits takes one MODEL, not %d", n_pos);
  if (n_pos > NM_DEPTH_SIDES) return cli_usage(c, "at most %d models", NM_DEPTH_SIDES);
  if (n_pos > 1) st = add_models(c, &s);
  else st = cli_open(c, &in);
  for (int i = 0; i < c->n_list && n_pos > 1 && !st; i++)
    if (strcmp(c->verb->opts[c->list_opt[i]].name, "--data") &&
        strcmp(c->verb->opts[c->list_opt[i]].name, "--anchor"))
      st = cli_usage(c, "edits and adapters belong to one model; several are compared without");
  if (!st && n_pos == 1 && bits && nm_adapters_n(in.adapters))
    st = cli_usage(c, "--bits rounds the weights of a file: write the model with its adapter first "
                      "(noema convert --lora)");
  if (!st && n_pos > 1) cli_catch_interrupt();
  if (!st && n_pos == 1 && bits) st = add_bits(c, &s, bits, &in);
  if (!st && n_pos == 1 && !bits) add_noise(c, &s, &in);
  o.n = s.n;
  o.depth.edits = in.edits;
  if (!st) st = compare(c, &o);
  cli_close(&in);
  return st;
}
