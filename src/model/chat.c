/* chat.c - a conversation to a prompt, and the prompt to ids, by a model's own template. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "text/chat.h"

/* ---- the conversation ------------------------------------------------ */

/* What the template sees: messages, tools, and whatever else the object holds. */
static int read_conversation(const char *json, size_t n, bool generate, json_t **out, nm_err *err) {
  json_error_t e;
  json_t *root = json_loadb(json, n, JSON_ALLOW_NUL, &e);
  *out = NULL;
  if (!root)
    return nm__fail(err, NM_EFORMAT, "the conversation is no JSON: line %d, column %d: %s", e.line,
                    e.column, e.text);
  if (json_is_array(root)) root = json_pack("{s:o}", "messages", root);
  if (!json_is_array(json_object_get(root, "messages"))) {
    json_decref(root);
    return nm__fail(err, NM_EFORMAT, "the conversation must be a list of messages, or an object "
                    "with \"messages\"");
  }
  if (!json_object_get(root, "tools")) json_object_set_new(root, "tools", json_null());
  if (!json_object_get(root, "documents")) json_object_set_new(root, "documents", json_null());
  json_object_set_new(root, "add_generation_prompt", json_boolean(generate));
  *out = root;
  return NM_OK;
}

/* ---- the template ---------------------------------------------------- */

static struct nm__str model_template(const nm_model *m, const char *name) {
  struct nm__str s = {NULL, 0};
  struct nm__buf key;
  nm__buf_init(&key, 1000);
  nm__buf_printf(&key, "tokenizer.chat_template%s%s", name ? "." : "", name ? name : "");
  const struct nm__gguf_kv *kv = m && m->g && !key.failed ? nm__gguf_find(m->g, key.s) : NULL;
  if (kv && kv->type == NM__GGUF_STRING) s = nm__gguf_text(kv);
  nm__buf_done(&key);
  return s;
}

static int no_template(const nm_model *m, const char *name, nm_err *err) {
  struct nm__buf b;
  nm__buf_init(&b, 1000);
  for (int i = 0; nm__chat_name(i); i++)
    nm__buf_printf(&b, "%s%s", i ? ", " : "", nm__chat_name(i));
  int st;
  if (name)
    st = nm__fail(err, NM_EUSAGE, "'%.60s' is neither a family of chat templates (%s) nor one of "
                  "the model's own", name, b.s);
  else
    st = nm__fail(err, NM_EFORMAT, "%s: has no chat template; name a family (%s) or a file",
                  m ? m->path : "no model", b.s);
  nm__buf_done(&b);
  return st;
}

static struct nm__jinja_text token_text(const nm_model *m, const char *name, int32_t id) {
  struct nm__str s = nm__tok_piece(m->tok, id);
  return (struct nm__jinja_text){name, s.n ? s.s : "", s.n};
}

static int by_jinja(const nm_model *m, const char *name, struct nm__str source, const json_t *vars,
                    const char *date, struct nm__prompt *out, nm_err *err) {
  struct nm__jinja *t;
  struct nm__jinja_text texts[2];
  int n = 0;
  if (m && m->tok && nm__tok_bos(m->tok) >= 0)
    texts[n++] = token_text(m, "bos_token", nm__tok_bos(m->tok));
  if (m && m->tok && nm__tok_eos(m->tok) >= 0)
    texts[n++] = token_text(m, "eos_token", nm__tok_eos(m->tok));
  int st = nm__jinja_parse(name, source.s, source.n, &t, err);
  if (st) return st;
  struct nm__jinja_opts o = {.vars = vars, .texts = texts, .n_texts = n, .date = date};
  st = nm__jinja_render(t, &o, out, err);
  nm__jinja_free(t);
  return st;
}

static int render(const nm_model *m, const json_t *vars, const nm_chat_opts *o,
                  struct nm__prompt *out, nm_err *err) {
  const json_t *messages = json_object_get(vars, "messages");
  bool generate = !o->no_generation_prompt;
  if (o->source)
    return by_jinja(m, o->name ? o->name : "the template", (struct nm__str){o->source, o->n_source},
                    vars, o->date, out, err);
  const struct nm__chat_family *f = o->name ? nm__chat_find(o->name) : NULL;
  struct nm__str own = model_template(m, NULL), named = {NULL, 0};
  if (o->name && !strcmp(o->name, "native")) {
    if (own.s) f = nm__chat_detect(own.s, own.n);
    if (!f)
      return nm__fail(err, NM_EFORMAT, "%s: no known family is recognised in the model's chat "
                      "template", m ? m->path : "no model");
  }
  if (f) return nm__chat_render(f, messages, generate, out, err);
  if (o->name) named = model_template(m, o->name);
  if (o->name ? !named.s : !own.s) return no_template(m, o->name, err);
  return by_jinja(m, o->name ? o->name : "chat template", o->name ? named : own, vars, o->date, out,
                  err);
}

int nm_chat_render(const nm_model *m, const char *json, size_t n, const nm_chat_opts *o,
                   nm_prompt *out, nm_err *err) {
  static const nm_chat_opts none;
  struct nm__prompt p = {0};
  json_t *vars;
  *out = (nm_prompt){0};
  if (!o) o = &none;
  int st = read_conversation(json, n, !o->no_generation_prompt, &vars, err);
  if (st) return st;
  st = render(m, vars, o, &p, err);
  json_decref(vars);
  if (!st) *out = (nm_prompt){p.s, p.n, p.user};
  return st;
}

void nm_prompt_free(nm_prompt *p) {
  free(p->text);
  free(p->user);
  *p = (nm_prompt){0};
}

const char *nm_chat_family(int i) { return i < 0 ? NULL : nm__chat_name(i); }

int nm_chat_tokenize(const nm_model *m, const nm_prompt *p, int flags, int32_t **ids,
                     size_t *n_ids, nm_err *err) {
  struct nm__ids v = {0};
  *ids = NULL;
  *n_ids = 0;
  if (!m->tok)
    return nm__fail(err, NM_EFORMAT, "%s: has no tokenizer noema can use", m->path);
  struct nm__tok_opts o = {.no_bos = flags & NM_NO_BOS};
  int st = nm__tok_encode_marked(m->tok, p->text, p->user, p->n, o, &v, err);
  if (st) {
    nm__ids_done(&v);
    return st;
  }
  *ids = v.id;
  *n_ids = v.n;
  return NM_OK;
}
