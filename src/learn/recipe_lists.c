/* recipe_lists.c - the keys of a recipe that are lists: losses, single rows and columns, learned
 * vectors, taps and probes; and what must hold in each. */
#include <stdlib.h>
#include <string.h>

#include "learn/recipe.h"
#include "learn/slot.h"

#define BIG 2147483647.0

/* ---- losses --------------------------------------------------------------------- */

#define AT(field) offsetof(struct nm__loss_key, field)
static const struct nm__key loss_keys[] = {
    {"kind", NM__K_TEXT, AT(kind), 0, 0, NULL},
    {"weight", NM__K_REAL, AT(weight), -1e6, 1e6, NULL},
    {"group", NM__K_TEXT, AT(group), 0, 0, NULL},
    {"retain", NM__K_TEXT, AT(retain), 0, 0, NULL},
    {"beta", NM__K_REAL, AT(beta), 1e-9, 1e6, NULL},
    {"gamma", NM__K_REAL, AT(gamma), 0, 1e6, NULL},
    {"smooth", NM__K_REAL, AT(smooth), 0, 0.999999, NULL},
    {"site", NM__K_TEXT, AT(site), 0, 0, NULL},
    {"at", NM__K_TEXT, AT(where), 0, 0, NULL},
    {"target", NM__K_ANY, AT(target), 0, 0, NULL},
    {"probe", NM__K_TEXT, AT(probe), 0, 0, NULL},
    {"bias", NM__K_TEXT, AT(bias), 0, 0, NULL},
    {0}};
#undef AT

int nm__recipe_group(const struct nm__recipe *r, const char *name) {
  for (int i = 0; i < r->groups.n; i++)
    if (!strcmp(r->groups.v[i], name)) return i + 1;
  return -1;
}

static void add_group(struct nm__recipe *r, const char *name) {
  if (name && nm__recipe_group(r, name) < 0) r->groups.v[r->groups.n++] = name;
}

/* A key that the loss does not read is a mistake of whoever wrote it. */
static int foreign_key(const struct nm__recipe *r, const struct nm__loss_key *e,
                       const struct nm__loss_kind *k, nm_err *err) {
  bool places = k->unit == NM__PLACES, probe = !strcmp(k->name, "tap_probe");
  bool smooth = (k->unit == NM__TOKENS && !k->frozen) ||
                (k->unit == NM__PAIRS && k->op == NM__OP_BCE);
  const struct { const char *key; bool read; } row[] = {
      {"beta", k->beta},   {"gamma", k->per_token}, {"retain", k->two_groups}, {"site", places},
      {"at", places},      {"target", places},      {"probe", probe},          {"bias", probe},
      {"smooth", smooth}};
  for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
    const json_t *v = json_object_get(e->at, row[i].key);
    if (v && !row[i].read)
      return nm__yaml_fail(&r->y, v, err, "loss %s has no '%s'", k->name, row[i].key);
  }
  if (places && !e->site)
    return nm__yaml_fail(&r->y, e->at, err, "loss %s needs a 'site'", k->name);
  if (probe && !e->probe)
    return nm__yaml_fail(&r->y, e->at, err, "loss %s needs a 'probe', an .npy of [labels, width]",
                         k->name);
  return NM_OK;
}

static int check_loss(struct nm__recipe *r, struct nm__loss_key *e, nm_err *err) {
  const struct nm__loss_kind *k = nm__loss_kind_of(e->kind);
  if (!e->kind) return nm__yaml_fail(&r->y, e->at, err, "a loss needs its 'kind'");
  if (!k) {
    struct nm__buf b;
    nm__buf_init(&b, 4096);
    nm__loss_names(&b);
    nm__yaml_fail(&r->y, e->at, err, "loss '%.40s' is not known (known: %s)", e->kind,
                  b.s ? b.s : "");
    nm__buf_done(&b);
    return NM_EFORMAT;
  }
  if (k->two_groups && !e->group) e->group = "forget";
  if (k->two_groups && !e->retain) e->retain = "retain";
  if (k->two_groups && !strcmp(e->group, e->retain))
    return nm__yaml_fail(&r->y, e->at, err, "loss %s needs two groups, both are '%.40s'", k->name,
                         e->group);
  if (r->pack && (k->unit != NM__TOKENS))
    return nm__yaml_fail(&r->y, e->at, err, "loss %s reads samples, and 'pack' joins them",
                         k->name);
  if (r->noise > 0 && (k->ref || k->frozen))
    return nm__yaml_fail(&r->y, e->at, err, "loss %s compares with the frozen model and does not "
                         "go with 'noise'", k->name);
  return foreign_key(r, e, k, err);
}

static int read_losses(struct nm__recipe *r, const json_t *v, nm_err *err) {
  struct nm__loss_key plain = {.weight = 1, .beta = 0.1, .kind = v ? NULL : "cross_entropy"};
  int st = NM_OK;
  if (v) {
    st = nm__keys_list(&r->y, v, "a loss", "kind", loss_keys, &plain, sizeof plain, &r->loss,
                       &r->n_losses, err);
  } else {
    r->loss = nm__alloc(1, sizeof *r->loss);
    if (!r->loss) return nm__fail_memory(err, "a recipe", sizeof *r->loss);
    r->loss[r->n_losses++] = plain;
  }
  if (!st && r->n_losses > NM__MOST_LOSSES)
    return nm__yaml_fail(&r->y, v, err, "a sum of 1 to %d losses is possible, not of %d",
                         NM__MOST_LOSSES, r->n_losses);
  r->groups.v = nm__alloc(2 * (size_t)r->n_losses + 1, sizeof *r->groups.v);
  if (!r->groups.v) return nm__fail_memory(err, "a recipe", 0);
  for (int i = 0; i < r->n_losses && !st; i++) {
    st = check_loss(r, &r->loss[i], err);
    add_group(r, r->loss[i].group);
    add_group(r, r->loss[i].retain);
  }
  for (int i = 0; i < r->data.n && !st; i++) {
    const char *g = r->data.v[i].group;
    if (g && nm__recipe_group(r, g) < 0)
      st = nm__yaml_fail(&r->y, json_object_get(r->data.v[i].at, "group"), err,
                         "no loss names the group '%.40s'", g);
  }
  return st;
}

/* ---- single rows and columns --------------------------------------------------------- */

static int read_only(struct nm__recipe *r, const json_t *v, bool by_column, nm_err *err) {
  const char *what = by_column ? "columns" : "rows", *name;
  json_t *list;
  if (!v) return NM_OK;
  if (!json_is_object(v) || !json_object_size(v))
    return nm__yaml_fail(&r->y, v, err, "%s must be a mapping: {TENSOR: [NUMBER, ...]}", what);
  struct nm__only_key *only =
      nm__realloc(r->only, (size_t)r->n_only + json_object_size(v), sizeof *only);
  if (!only) return nm__fail_memory(err, "a recipe", 0);
  r->only = only;
  json_object_foreach((json_t *)v, name, list) {
    int64_t last = -1;
    for (int i = 0; i < r->n_only; i++)
      if (!strcmp(only[i].tensor, name))
        return nm__yaml_fail(&r->y, list, err, "%.60s has rows or columns, not both", name);
    if (!json_array_size(list))
      return nm__yaml_fail(&r->y, list, err, "%s of %.60s must be a list of numbers", what, name);
    for (size_t i = 0; i < json_array_size(list); i++) {
      const json_t *x = json_array_get(list, i);
      if (!json_is_integer(x) || json_integer_value(x) <= last || json_integer_value(x) >= BIG)
        return nm__yaml_fail(&r->y, list, err, "%s of %.60s must be whole numbers from 0 that "
                             "ascend", what, name);
      last = json_integer_value(x);
    }
    only[r->n_only++] = (struct nm__only_key){list, list, name, by_column};
  }
  return NM_OK;
}

/* ---- vectors, taps, probes ------------------------------------------------------------- */

#define AT(field) offsetof(struct nm__vector_key, field)
static const struct nm__key vector_keys[] = {
    {"name", NM__K_TEXT, AT(name), 0, 0, NULL},   {"site", NM__K_TEXT, AT(site), 0, 0, NULL},
    {"at", NM__K_TEXT, AT(where), 0, 0, NULL},    {"scale", NM__K_REAL, AT(scale), -1e6, 1e6, NULL},
    {"each", NM__K_FLAG, AT(each), 0, 0, NULL},   {0}};
#undef AT
#define AT(field) offsetof(struct nm__tap_key, field)
static const struct nm__key tap_keys[] = {
    {"site", NM__K_TEXT, AT(site), 0, 0, NULL},
    {"at", NM__K_TEXT, AT(where), 0, 0, NULL},
    {"every", NM__K_INT, AT(every), 1, BIG, NULL},
    {"save", NM__K_INT, AT(save), 1, BIG, NULL},
    {0}};
#undef AT
#define AT(field) offsetof(struct nm__probe_key, field)
static const struct nm__key probe_keys[] = {
    {"file", NM__K_TEXT, AT(file), 0, 0, NULL},
    {"world", NM__K_TEXT, AT(world), 0, 0, NULL},
    {"set", NM__K_TEXTS, AT(set), 0, 0, NULL},
    {"n", NM__K_INT, AT(n), 8, 1 << 20, NULL},
    {"W", NM__K_INT, AT(W), 0, BIG, NULL},
    {"seed", NM__K_INT, AT(seed), 0, BIG, NULL},
    {"text", NM__K_TEXT, AT(text), 0, 0, NULL},
    {"label", NM__K_TEXT, AT(label), 0, 0, NULL},
    {"group", NM__K_TEXT, AT(group), 0, 0, NULL},
    {"site", NM__K_TEXT, AT(site), 0, 0, NULL},
    {"at", NM__K_TEXT, AT(where), 0, 0, NULL},
    {"every", NM__K_INT, AT(every), 1, BIG, NULL},
    {"test", NM__K_REAL, AT(test), 0.05, 0.95, NULL},
    {"C", NM__K_REAL, AT(C), 1e-9, 1e9, NULL},
    {0}};
#undef AT

/* A name becomes that of a file and of a tensor. */
static bool plain_name(const char *s) {
  size_t n = strlen(s);
  return n && n <= 40 && *s != '.' &&
         strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == n;
}

/* The last token of a sample is predicted, and predicts nothing. */
static bool without_effect(const struct nm__recipe *r, const char *at) {
  if (!at || (strcmp(at, "last") && strcmp(at, "-1"))) return false;
  for (int i = 0; i < r->n_losses; i++)
    if (nm__loss_kind_of(r->loss[i].kind)->unit == NM__PLACES) return false;
  return true;
}

static int check_vectors(const struct nm__recipe *r, nm_err *err) {
  for (int i = 0; i < r->n_vectors; i++) {
    const struct nm__vector_key *e = &r->vector[i];
    if (!e->name || !e->site)
      return nm__yaml_fail(&r->y, e->at, err, "a learned vector needs a 'name' and a 'site'");
    if (!plain_name(e->name) || !strcmp(e->name, "prompt"))
      return nm__yaml_fail(&r->y, e->at, err, "the name of a learned vector is letters, digits, _ "
                           "and -, at most 40, and not 'prompt'");
    if (without_effect(r, e->where))
      return nm__yaml_fail(&r->y, e->at, err, "behind the last token of a sample nothing is "
                           "predicted, so a vector there learns nothing: at: \"-2\" is where the "
                           "last token is predicted");
    for (int k = 0; k < i; k++)
      if (!strcmp(r->vector[k].name, e->name))
        return nm__yaml_fail(&r->y, e->at, err, "two learned vectors are called %s", e->name);
  }
  return NM_OK;
}

static int check_watched(const struct nm__recipe *r, nm_err *err) {
  for (int i = 0; i < r->n_taps; i++)
    if (!r->tap[i].site)
      return nm__yaml_fail(&r->y, r->tap[i].at, err, "a tap needs a 'site'");
  for (int i = 0; i < r->n_probes; i++) {
    const struct nm__probe_key *e = &r->probe[i];
    const char *const of_file[] = {"text", "label", "group"};
    const char *const of_world[] = {"set", "W", "seed"};
    if (!e->file == !e->world)
      return nm__yaml_fail(&r->y, e->at, err, "a probe has one of 'file' and 'world'");
    if (!e->site || !e->every)
      return nm__yaml_fail(&r->y, e->at, err, "a probe needs a 'site' and 'every' (steps)");
    for (int k = 0; k < 3; k++) {
      const char *key = e->file ? of_world[k] : of_file[k];
      if (json_object_get(e->at, key))
        return nm__yaml_fail(&r->y, json_object_get(e->at, key), err, "'%s' belongs to a %s", key,
                             e->file ? "world, not to a file" : "file, not to a world");
    }
  }
  return NM_OK;
}

int nm__recipe_lists(struct nm__recipe *r, const struct nm__recipe_lists *v, nm_err *err) {
  const struct nm__vector_key vector = {.scale = 1};
  const struct nm__tap_key tap = {.every = 1};
  const struct nm__probe_key probe = {.n = 400, .W = 1, .seed = 1, .test = 0.3, .C = 1};
  int st = read_losses(r, v->loss, err);
  if (!st) st = read_only(r, v->rows, false, err);
  if (!st) st = read_only(r, v->columns, true, err);
  if (!st && v->vectors)
    st = nm__keys_list(&r->y, v->vectors, "a learned vector", NULL, vector_keys, &vector,
                       sizeof vector, &r->vector, &r->n_vectors, err);
  if (!st && v->taps)
    st = nm__keys_list(&r->y, v->taps, "a tap", "site", tap_keys, &tap, sizeof tap, &r->tap,
                       &r->n_taps, err);
  if (!st && v->probes)
    st = nm__keys_list(&r->y, v->probes, "a probe", NULL, probe_keys, &probe, sizeof probe,
                       &r->probe, &r->n_probes, err);
  if (!st) st = check_vectors(r, err);
  return st ? st : check_watched(r, err);
}

void nm__recipe_lists_done(struct nm__recipe *r) {
  for (int i = 0; i < r->n_probes; i++) free(r->probe[i].set.v);
  free(r->loss);
  free(r->groups.v);
  free(r->only);
  free(r->vector);
  free(r->tap);
  free(r->probe);
}
