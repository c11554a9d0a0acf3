/* hf_post.c - the post-processor of a tokenizer.json: what stands before and behind the
 * ids of one text. Its forms for pairs of texts are not read. */
#include <string.h>

#include "text/hf.h"

/* Ids around those of the text. */
struct frame { struct nm__ids before, after; };

/* A second processor that adds tokens would see the first one's as texts of their own. */
static int take(struct nm__hf_reader *r, struct nm__hf *h, struct frame *f) {
  if (!f->before.n && !f->after.n) return NM_OK;
  if (h->before.n || h->after.n)
    return nm__hf_refuse(r, "", "adds tokens to those of another processor, which is not "
                         "supported");
  h->before = f->before;
  h->after = f->after;
  *f = (struct frame){0};
  return NM_OK;
}

static int push_id(struct nm__hf_reader *r, const struct nm__hf *h, const json_t *v,
                   const char *name, struct nm__ids *out) {
  if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= h->t->n)
    return nm__hf_refuse(r, name, "must be the id of a token, less than %d", h->t->n);
  return nm__ids_push(out, (int32_t)json_integer_value(v))
         ? nm__fail_memory(r->err, "a tokenizer", 4) : NM_OK;
}

/* "cls": ["[CLS]", 101] */
static int read_pair(struct nm__hf_reader *r, const struct nm__hf *h, const json_t *o,
                     const char *name, struct nm__ids *out) {
  const json_t *v = json_object_get(o, name);
  if (json_array_size(v) != 2) return nm__hf_refuse(r, name, "must be a token and its id");
  return push_id(r, h, json_array_get(v, 1), name, out);
}

static int read_cls_sep(struct nm__hf_reader *r, struct nm__hf *h, const json_t *o,
                        struct frame *f) {
  int rc = read_pair(r, h, o, "cls", &f->before);
  return rc ? rc : read_pair(r, h, o, "sep", &f->after);
}

static int special_ids(struct nm__hf_reader *r, const struct nm__hf *h, const json_t *o,
                       const json_t *piece, struct nm__ids *out) {
  struct nm__str id = {0};
  int rc = nm__hf_text(r, piece, "id", true, &id);
  if (rc) return rc;
  const json_t *ids = json_object_get(json_object_getn(json_object_get(o, "special_tokens"),
                                                       id.s, id.n), "ids");
  if (!json_is_array(ids)) return nm__hf_refuse(r, "id", "is not in special_tokens");
  for (size_t i = 0; i < json_array_size(ids) && !rc; i++)
    rc = push_id(r, h, json_array_get(ids, i), "special_tokens ids", out);
  return rc;
}

/* [{"SpecialToken": {"id": "[CLS]"}}, {"Sequence": {"id": "A"}}, ...] */
static int read_template(struct nm__hf_reader *r, struct nm__hf *h, const json_t *o,
                         struct frame *f) {
  const json_t *list = json_object_get(o, "single");
  bool seen = false;
  int rc = NM_OK;
  for (size_t i = 0; i < json_array_size(list) && !rc; i++) {
    const json_t *e = json_array_get(list, i), *text = json_object_get(e, "Sequence");
    const json_t *special = json_object_get(e, "SpecialToken");
    const char *which = json_string_value(json_object_get(text, "id"));
    size_t back = nm__hf_enter(r, "single", (long)i);
    if (special) rc = special_ids(r, h, o, special, seen ? &f->after : &f->before);
    else if (!which || strcmp(which, "A") || seen)
      rc = nm__hf_refuse(r, "", "must be a special token, or once the sequence A");
    else seen = true;
    nm__hf_leave(r, back);
  }
  return rc || seen ? rc : nm__hf_refuse(r, "single", "must be a list with the sequence A in it");
}

static int read_nothing(struct nm__hf_reader *r, struct nm__hf *h, const json_t *o,
                        struct frame *f) {
  (void)r, (void)h, (void)o, (void)f;
  return NM_OK;
}

static const struct {
  const char *name, *fields;
  int (*read)(struct nm__hf_reader *r, struct nm__hf *h, const json_t *o, struct frame *f);
} kinds[] = {
  {"BertProcessing", "type sep cls", read_cls_sep},
  {"ByteLevel", "type add_prefix_space trim_offsets use_regex", read_nothing},
  {"RobertaProcessing", "type sep cls trim_offsets add_prefix_space", read_cls_sep},
  {"TemplateProcessing", "type single pair special_tokens", read_template},
};

static int read_one(struct nm__hf_reader *r, struct nm__hf *h, const json_t *o,
                    struct nm__str type) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (strlen(kinds[i].name) != type.n || memcmp(kinds[i].name, type.s, type.n)) continue;
    struct frame f = {0};
    int rc = nm__hf_known(r, o, kinds[i].fields);
    if (!rc) rc = kinds[i].read(r, h, o, &f);
    if (!rc) rc = take(r, h, &f);
    nm__ids_done(&f.before);
    nm__ids_done(&f.after);
    return rc;
  }
  char shown[64];
  return nm__hf_refuse(r, "type", "'%s' is not supported",
                       nm__printable(shown, sizeof shown, type.s, type.n));
}

int nm__hf_read_post(struct nm__hf_reader *r, struct nm__hf *h, const json_t *o) {
  if (!o || json_is_null(o)) return NM_OK;
  struct nm__str type = {0};
  if (!json_is_object(o)) return nm__hf_refuse(r, "", "must be an object or null");
  int rc = nm__hf_text(r, o, "type", true, &type);
  if (rc || type.n != 8 || memcmp(type.s, "Sequence", 8))
    return rc ? rc : read_one(r, h, o, type);
  const json_t *list = json_object_get(o, "processors");
  if (!json_is_array(list)) return nm__hf_refuse(r, "processors", "must be a list");
  if (r->depth == 16) return nm__hf_refuse(r, "processors", "is nested too deeply");
  rc = nm__hf_known(r, o, "type processors");
  r->depth++;
  for (size_t i = 0; i < json_array_size(list) && !rc; i++) {
    size_t back = nm__hf_enter(r, "processors", (long)i);
    rc = nm__hf_read_post(r, h, json_array_get(list, i));
    nm__hf_leave(r, back);
  }
  r->depth--;
  return rc;
}
