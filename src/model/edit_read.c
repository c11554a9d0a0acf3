/* edit_read.c - edits of activations, as data: a JSON or YAML file with one edit, an array of
 * them, or {"edits": [...]}.
 *
 *   {"site": "blk.3.resid_post", "at": "last", "op": "add", "vector": "v.npy", "scale": 2}
 *
 * What each op needs is a row of a table. A vector is an array of numbers or the path of a file
 * (directions.c). docs/verbs/edit.md is the whole of it. */
#include "model/delta.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "core/yaml.h"

enum need { NEVER, MAY, MUST };
static const struct op { const char *name; enum nm__edit_op op; enum need vector, scale; } ops[] = {
    {"add", NM__EDIT_ADD, MUST, MAY},         {"zero", NM__EDIT_ZERO, NEVER, MAY},
    {"scale", NM__EDIT_SCALE, NEVER, MUST},   {"project_out", NM__EDIT_PROJECT_OUT, MUST, MAY},
    {"replace", NM__EDIT_REPLACE, MUST, MAY}, {"mean", NM__EDIT_MEAN, MUST, MAY},
    {"clamp", NM__EDIT_CLAMP, NEVER, MAY},    {"mask_head", NM__EDIT_UNIFORM, MAY, MAY}};
enum { N_OPS = sizeof ops / sizeof *ops, SCHEDULE_MAX = 1 << 20 };

struct reader { const struct nm__yaml *y; size_t i; json_t *o; nm_err *err; };

static int bad(struct reader *r, const char *what) {
  return nm__yaml_fail(r->y, r->o, r->err, "edit %zu: %s", r->i + 1, what);
}

static int known_keys(struct reader *r) {
  static const char *const known[] = {"site", "at", "op", "vector", "tensor", "scale", "low",
                                      "high", "how", "schedule", "note"};
  const char *key;
  json_t *v;
  json_object_foreach(r->o, key, v) {
    size_t i = 0;
    while (i < sizeof known / sizeof *known && strcmp(key, known[i])) i++;
    if (i < sizeof known / sizeof *known) continue;
    char shown[60];
    return nm__yaml_fail(
        r->y, r->o, r->err,
        "edit %zu: unknown key \"%s\" (known: site, at, op, vector, tensor, scale, "
        "low, high, how, schedule, note)",
        r->i + 1, nm__printable(shown, sizeof shown, key, strlen(key)));
  }
  return NM_OK;
}

/* A number of the edit, as float; *there says whether it stands. */
static int number(struct reader *r, const char *key, float *out, bool *there) {
  char text[60];
  json_t *v = json_object_get(r->o, key);
  *there = v;
  if (!v) return NM_OK;
  nm__printable(text, 20, key, strlen(key));
  if (!json_is_number(v))
    return nm__yaml_fail(r->y, r->o, r->err, "edit %zu: \"%s\" must be a number", r->i + 1, text);
  *out = (float)json_number_value(v);
  if (*out - *out != 0)
    return nm__yaml_fail(r->y, r->o, r->err, "edit %zu: \"%s\" is not finite", r->i + 1, text);
  return NM_OK;
}

/* ---- vectors ------------------------------------------------------------------- */

/* A relative path is looked for beside the edit file first, so that the two can move together. */
static int read_file(struct reader *r, const char *path, struct nm__dirs *d) {
  const char *name = r->y->name, *base = nm__path_base(name);
  json_t *t = json_object_get(r->o, "tensor");
  if (t && !json_is_string(t)) return bad(r, "\"tensor\" must be the name of a tensor");
  char *dir = *path == '/' || base == name ? NULL : nm__strndup(name, (size_t)(base - name));
  char *beside = dir ? nm__path_join(dir, path) : NULL;
  int st = nm__dirs_read(beside && nm__exists(beside) ? beside : path, json_string_value(t), d,
                         r->err);
  free(dir);
  free(beside);
  return st ? nm__fail_at(r->err, st, "%s: edit %zu", name, r->i + 1) : NM_OK;
}

static int read_numbers(struct reader *r, json_t *v, struct nm__dirs *d) {
  *d = (struct nm__dirs){NULL, 1, 1, (int64_t)json_array_size(v), NULL};
  d->v = nm__alloc((size_t)d->n, sizeof(float));
  if (!d->v) return nm__fail_memory(r->err, "an edit's vector", 0);
  for (int64_t i = 0; i < d->n; i++) {
    json_t *x = json_array_get(v, (size_t)i);
    if (!json_is_number(x)) return bad(r, "\"vector\" must hold numbers only");
    d->v[i] = (float)json_number_value(x);
    if (d->v[i] - d->v[i] != 0) return bad(r, "the vector holds a value that is not finite");
  }
  return d->n ? NM_OK : bad(r, "the vector is empty");
}

static int read_vector(struct reader *r, json_t *v, struct nm__edit *e) {
  if (json_is_string(v)) return read_file(r, json_string_value(v), &e->vec);
  if (json_is_array(v)) return read_numbers(r, v, &e->vec);
  return bad(r, "\"vector\" must be an array of numbers or the path of an .npy file, a safetensors "
                "file or a control vector");
}

int nm__edit_vector(const struct nm__yaml *y, int number, json_t *o, struct nm__dirs *out,
                    nm_err *err) {
  struct reader r = {y, (size_t)number - 1, o, err};
  struct nm__edit e = {0};
  int st = read_vector(&r, json_object_get(o, "vector"), &e);
  *out = e.vec;
  return st;
}

/* ---- schedules ----------------------------------------------------------------- */

static int schedule_room(struct reader *r, struct nm__factors *s, json_int_t n) {
  if (n < 1 || n > SCHEDULE_MAX) return bad(r, "a schedule has 1 to 1048576 tokens");
  s->v = nm__alloc((size_t)n, sizeof *s->v);
  s->n = s->v ? (int)n : 0;
  return s->v ? NM_OK : nm__fail_memory(r->err, "a schedule", (size_t)n * sizeof *s->v);
}

static int listed(struct reader *r, json_t *v, struct nm__factors *s) {
  int st = schedule_room(r, s, (json_int_t)json_array_size(v));
  for (int i = 0; i < s->n && !st; i++) {
    json_t *x = json_array_get(v, (size_t)i);
    s->v[i] = (float)json_number_value(x);
    if (!json_is_number(x) || s->v[i] - s->v[i] != 0)
      return bad(r, "a schedule's list must hold finite numbers only");
  }
  return st;
}

/* {"from": a, "to": b, "over": n}: a straight line from a at token 0 to b at token n - 1, b from
 * there on. {"first": n}: 1 for n tokens, then 0. */
static int drawn(struct reader *r, json_t *v, struct nm__factors *s) {
  json_t *first = json_object_get(v, "first"), *from = json_object_get(v, "from"),
         *to = json_object_get(v, "to"), *over = json_object_get(v, "over");
  bool line = json_is_number(from) && json_is_number(to) && json_is_integer(over);
  if (json_object_size(v) != (line ? 3 : 1) || (!line && !json_is_integer(first)))
    return bad(r, "a schedule is a list of numbers, {\"from\": a, \"to\": b, \"over\": n} or "
                  "{\"first\": n}");
  json_int_t n = json_integer_value(line ? over : first);
  int st = n < SCHEDULE_MAX ? schedule_room(r, s, line ? n : n + 1) : schedule_room(r, s, 0);
  double a = line ? json_number_value(from) : 1, b = line ? json_number_value(to) : 1;
  for (int i = 0; i < s->n && !st; i++) {
    s->v[i] = (float)(line && n > 1 ? a + (b - a) * (double)i / (double)(n - 1) : b);
    if (s->v[i] - s->v[i] != 0) return bad(r, "a schedule's numbers must be finite");
  }
  if (!st && !line) s->v[s->n - 1] = 0;
  return st;
}

static int read_schedule(struct reader *r, struct nm__edit *e) {
  json_t *v = json_object_get(r->o, "schedule");
  if (!v) return NM_OK;
  if (json_is_array(v)) return listed(r, v, &e->schedule);
  if (json_is_object(v)) return drawn(r, v, &e->schedule);
  return bad(r, "a schedule is a list of numbers, {\"from\": a, \"to\": b, \"over\": n} or "
                "{\"first\": n}");
}

/* ---- one edit -------------------------------------------------------------------- */

/* mask_head is three ops of heads under one name. */
static int read_how(struct reader *r, const struct op *op, struct nm__edit *e) {
  static const struct { const char *how; enum nm__edit_op op; } hows[] = {
      {"uniform", NM__EDIT_UNIFORM}, {"zero", NM__EDIT_ZERO}, {"mean", NM__EDIT_MEAN}};
  const char *how = json_string_value(json_object_get(r->o, "how"));
  bool there = json_object_get(r->o, "how");
  if (op->op != NM__EDIT_UNIFORM) return there ? bad(r, "only mask_head has a \"how\"") : NM_OK;
  for (int i = 0; how && i < 3; i++)
    if (!strcmp(how, hows[i].how)) {
      e->op = hows[i].op;
      if (!strstr(e->site, "attn.")) return bad(r, "mask_head needs a site of heads: attn.head[3]");
      if ((e->op == NM__EDIT_MEAN) == !e->vec.v)
        return bad(r, "mask_head needs a \"vector\" of means with how: mean, and only then");
      return NM_OK;
    }
  return bad(r, "mask_head needs \"how\": uniform, zero or mean");
}

static int read_limits(struct reader *r, const struct op *op, struct nm__edit *e) {
  bool low, high;
  int st;
  e->low = -__builtin_inff();
  e->high = __builtin_inff();
  if ((st = number(r, "low", &e->low, &low)) || (st = number(r, "high", &e->high, &high)))
    return st;
  if (op->op != NM__EDIT_CLAMP) return low || high ? bad(r, "only clamp has limits") : NM_OK;
  if (!low && !high) return bad(r, "clamp needs \"low\", \"high\" or both");
  return e->low <= e->high ? NM_OK : bad(r, "clamp: \"low\" lies above \"high\"");
}

static int read_op(struct reader *r, const struct op **op) {
  const char *name = json_string_value(json_object_get(r->o, "op"));
  for (int i = 0; name && i < N_OPS; i++)
    if (!strcmp(name, ops[i].name)) {
      *op = &ops[i];
      return NM_OK;
    }
  return bad(r, "\"op\" must be add, zero, scale, project_out, replace, mean, clamp or mask_head");
}

static int read_place(struct reader *r, struct nm__edit *e) {
  const char *site = json_string_value(json_object_get(r->o, "site"));
  json_t *at = json_object_get(r->o, "at");
  if (!site) return bad(r, "\"site\" is missing");
  if (at && !json_is_string(at) && !json_is_integer(at))
    return bad(r, "\"at\" must be a string, for example \"last\"");
  if (json_is_integer(at) && !r->y->n)                   /* in YAML a bare 3 is a position */
    return bad(r, "\"at\" must be a string, for example \"last\"");
  struct nm__buf b;
  nm__buf_init(&b, 1 << 16);
  if (json_is_integer(at)) nm__buf_printf(&b, "%lld", (long long)json_integer_value(at));
  else nm__buf_puts(&b, at ? json_string_value(at) : "all");
  e->site = nm__strdup(site);
  e->at_text = b.failed ? NULL : nm__strdup(b.s);
  nm__buf_done(&b);
  if (!e->site || !e->at_text) return nm__fail_memory(r->err, "an edit", 0);
  int st = nm__at_parse(e->at_text, &e->at, r->err);
  return st ? nm__fail_at(r->err, NM_EFORMAT, "%s: edit %zu", r->y->name, r->i + 1) : NM_OK;
}

static int read_edit(struct reader *r, struct nm__edit *e) {
  const struct op *op = NULL;
  bool scale;
  int st;
  if (!json_is_object(r->o)) return bad(r, "must be an object with site, at and op");
  if ((st = known_keys(r)) || (st = read_place(r, e)) || (st = read_op(r, &op))) return st;
  e->op = op->op;
  e->scale = 1;
  if ((st = number(r, "scale", &e->scale, &scale))) return st;
  json_t *vec = json_object_get(r->o, "vector");
  if (op->vector == MUST && !vec) return bad(r, "this op needs a \"vector\"");
  if (op->vector == NEVER && vec) return bad(r, "zero, scale and clamp take no \"vector\"");
  if (op->scale == MUST && !scale) return bad(r, "op scale needs a \"scale\"");
  if (vec && (st = read_vector(r, vec, e))) return st;
  if ((st = read_how(r, op, e)) || (st = read_limits(r, op, e)) || (st = read_schedule(r, e)))
    return st;
  return nm__edit_name(e, op->name) ? NM_OK : nm__fail_memory(r->err, "an edit", 0);
}

/* ---- the file --------------------------------------------------------------------- */

static int from_values(const struct nm__yaml *y, nm_edits *e, nm_err *err) {
  json_t *list = json_is_object(y->root) && json_object_get(y->root, "edits")
                     ? json_object_get(y->root, "edits")
                     : y->root;
  size_t n = json_is_array(list) ? json_array_size(list) : 1;
  if (json_is_array(list) && !n) return nm__fail(err, NM_EFORMAT, "%s: holds no edit", y->name);
  for (size_t i = 0; i < n; i++) {
    struct reader r = {y, i, json_is_array(list) ? json_array_get(list, i) : list, err};
    bool weight = json_object_get(r.o, "weight") != NULL;
    struct nm__weight_edit *w = weight ? nm__edits_push_weight(e) : NULL;
    struct nm__edit *v = weight ? NULL : nm__edits_push(e);
    int st = w   ? nm__weight_edit_read(y, (int)i + 1, r.o, w, err)
             : v ? read_edit(&r, v)
                 : nm__fail_memory(err, "the edits", 0);
    if (st) return st;
  }
  return NM_OK;
}

/* Text that begins like JSON must be JSON: its strings and numbers mean what JSON says. */
static int parse(const char *name, const char *text, size_t n, struct nm__yaml *y, nm_err *err) {
  size_t i = 0;
  json_error_t je;
  while (i < n && strchr(" \t\r\n", text[i]) && text[i]) i++;
  if (i < n && text[i] != '{' && text[i] != '[') return nm__yaml_parse(name, text, n, y, err);
  *y = (struct nm__yaml){.name = nm__strdup(name)};
  if (!y->name) return nm__fail_memory(err, "the edits", n);
  y->root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
  if (y->root) return NM_OK;
  nm__yaml_done(y);
  return nm__fail(err, NM_EFORMAT, "%s: line %d, column %d: %.200s", name, je.line, je.column,
                  je.text);
}

int nm_edits_parse(const char *name, const char *text, size_t n, nm_edits **out, nm_err *err) {
  struct nm__yaml y;
  *out = NULL;
  int st = parse(name, text, n, &y, err);
  if (st) return st;
  nm_edits *e = nm__alloc(1, sizeof *e);
  st = e ? from_values(&y, e, err) : nm__fail_memory(err, "the edits", sizeof *e);
  nm__yaml_done(&y);
  if (!st) *out = e;
  else nm_edits_free(e);
  return st;
}

int nm_edits_load(const char *path, nm_edits **out, nm_err *err) {
  struct nm__map m;
  *out = NULL;
  int st = nm__map_open(path, &m, err);
  if (st) return st;
  if (m.size > (size_t)1 << 28)
    st = nm__fail(err, NM_EFORMAT, "%s: is too large for an edit file", path);
  else st = nm_edits_parse(path, (const char *)m.data, m.size, out, err);
  nm__map_close(&m);
  return st;
}
