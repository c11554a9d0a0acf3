/* hf_open.c - opening a tokenizer.json: its sections, and the added tokens. */
#include <stdlib.h>
#include <string.h>

#include "text/hf.h"

void nm__hf_free(struct nm__hf *h) {
  if (!h) return;
  nm__hf_steps_done(&h->normalizer);
  nm__hf_steps_done(&h->pre_tokenizer);
  nm__hf_steps_done(&h->decoder);
  nm__specials_done(&h->raw);
  nm__specials_done(&h->normed);
  nm__hf_regex_free(h->word);
  nm__ids_done(&h->before);
  nm__ids_done(&h->after);
  free(h->all.slot);
  free(h->added);
  free(h->added_at);
  free(h->unk);
  free(h->prefix);
  free(h->suffix);
  free(h);
}

/* ---- added tokens ------------------------------------------------------ */

static int read_added(struct nm__hf_reader *r, const json_t *o, struct nm__hf_added *a,
                      struct nm__str *text) {
  int64_t id = 0;
  if (!json_is_object(o)) return nm__hf_refuse(r, "", "must be an object");
  int rc = nm__hf_known(r, o, "id content single_word lstrip rstrip normalized special");
  if (!rc) rc = nm__hf_text(r, o, "content", true, text);
  if (!rc) rc = nm__hf_count(r, o, "id", false, &id);
  if (!rc) rc = nm__hf_bool(r, o, "special", false, &a->special);
  a->normalized = !a->special;
  if (!rc) rc = nm__hf_bool(r, o, "normalized", false, &a->normalized);
  if (!rc) rc = nm__hf_bool(r, o, "single_word", false, &a->single_word);
  if (!rc) rc = nm__hf_bool(r, o, "lstrip", false, &a->lstrip);
  if (!rc) rc = nm__hf_bool(r, o, "rstrip", false, &a->rstrip);
  if (!rc && text->n > 1 << 16) rc = nm__hf_refuse(r, "content", "is too long");
  a->id = (int32_t)id;             /* what the file says; what counts comes later */
  return rc;
}

/* The library gives a token the id it has in the model's vocabulary, or else the next
 * number, whatever the file says. */
static int place_added(struct nm__tok *t, struct nm__hf_reader *r, struct nm__hf_added a,
                       struct nm__str text, int32_t *next, nm_err *warn) {
  struct nm__hf *h = t->hf;
  int32_t said = a.id, id = nm__dict_get(&h->all, t->pool.s, text.s, text.n);
  struct nm__span raw;
  if (!nm__tok_keep(t, text.s, text.n, &raw)) return nm__fail_memory(r->err, "a token", text.n);
  a.text = raw;
  a.id = id >= 0 ? id : (*next)++;
  if (id < 0 && nm__dict_put(&h->all, t->pool.s, raw, a.id))
    return nm__fail_memory(r->err, "a token", text.n);
  char shown[64];
  if (a.id != said && warn && !warn->status)
    nm__fail(warn, NM_EFORMAT, "%s: the token '%s' is listed with id %d, but the order of the "
             "vocabulary gives it %d", t->path, nm__printable(shown, sizeof shown, text.s, text.n),
             said, a.id);
  struct nm__piece *p = &t->piece[a.id];
  if (a.id >= t->n) t->n = a.id + 1;
  if (id < 0) p->type = NM__TOK_USER;
  if (a.special) p->type = NM__TOK_CONTROL;
  p->raw = p->out = raw;
  int32_t at = h->added_at[a.id];
  if (at >= 0) a.special = a.special || h->added[at].special;
  else at = h->added_at[a.id] = (int32_t)h->n_added++;
  h->added[at] = a;
  return NM_OK;
}

static int read_all_added(struct nm__tok *t, struct nm__hf_reader *r, const json_t *list,
                          nm_err *warn) {
  struct nm__hf *h = t->hf;
  size_t n = json_array_size(list);
  size_t all = (size_t)(t->n > h->n_model ? t->n : h->n_model) + n;
  int32_t next = h->n_model;
  h->n_added = 0;
  h->added = nm__alloc(n + 1, sizeof *h->added);
  h->added_at = nm__alloc(all + 1, sizeof *h->added_at);
  if (!h->added || !h->added_at) return nm__fail_memory(r->err, "the added tokens", all * 4);
  memset(h->added_at, -1, (all + 1) * sizeof *h->added_at);
  int rc = NM_OK;
  for (size_t i = 0; i < n && !rc; i++) {
    struct nm__hf_added a = {0};
    struct nm__str text = {0};
    size_t back = nm__hf_enter(r, "added_tokens", (long)i);
    rc = read_added(r, json_array_get(list, i), &a, &text);
    if (!rc && text.n) rc = place_added(t, r, a, text, &next, warn);
    nm__hf_leave(r, back);
  }
  return rc;
}

/* Tokens that are looked for in normalised text are normalised themselves. */
static int normalize_added(struct nm__tok *t, nm_err *err) {
  struct nm__hf *h = t->hf;
  struct nm__hf_work w;
  int rc = NM_OK;
  for (size_t i = 0; i < h->n_added && !rc; i++) {
    struct nm__hf_added *a = &h->added[i];
    if (!a->normalized || !h->normalizer.n) continue;
    bool first = true;
    nm__hf_work_init(&w, t, a->text.n, err);
    nm__buf_put(&w.text, nm__tok_bytes(t, a->text), a->text.n);
    rc = nm__hf_normalize(&h->normalizer, &w, &first);
    if (!rc && (w.text.failed || !nm__tok_keep(t, w.text.len ? w.text.s : "", w.text.len,
                                               &a->text))) rc = NM_EMEMORY;
    nm__hf_work_done(&w);
  }
  return rc == NM_EMEMORY ? nm__fail_memory(err, "the added tokens", t->pool.len) : rc;
}

/* The sets that the text is searched for. The pool does not move any more. */
static int index_added(struct nm__tok *t, bool normalized, struct nm__specials *out) {
  struct nm__hf *h = t->hf;
  struct nm__special *v = nm__alloc(h->n_added + 1, sizeof *v);
  size_t n = 0;
  if (!v) return NM_EMEMORY;
  for (size_t i = 0; i < h->n_added; i++) {
    struct nm__span text = h->added[i].text;
    if (h->added[i].normalized == normalized && text.n)
      v[n++] = (struct nm__special){nm__tok_bytes(t, text), text.n, (int32_t)i, -1};
  }
  nm__specials_take(v, n, out);
  return NM_OK;
}

/* ---- sections ---------------------------------------------------------- */

static int read_steps(struct nm__hf_reader *r, const json_t *top, const char *name,
                      const struct nm__hf_table *table, struct nm__hf_steps *out) {
  size_t back = nm__hf_enter(r, name, -1);
  int rc = nm__hf_steps_read(r, json_object_get(top, name), table, out);
  nm__hf_leave(r, back);
  return rc;
}

/* Old files do not name the model's kind; it shows in the fields. */
static const char *guess_model(const json_t *o) {
  if (json_object_get(o, "merges")) return "BPE";
  if (json_is_array(json_object_get(o, "vocab"))) return "Unigram";
  return json_object_get(o, "max_input_chars_per_word") ? "WordPiece" : "WordLevel";
}

static int read_model(struct nm__tok *t, struct nm__hf_reader *r, const json_t *top) {
  const json_t *o = json_object_get(top, "model");
  size_t back = nm__hf_enter(r, "model", -1);
  if (!json_is_object(o)) return nm__hf_refuse(r, "", "must be an object");
  const char *guess = guess_model(o);
  struct nm__str type = {guess, strlen(guess)};
  int rc = nm__hf_text(r, o, "type", false, &type);
  for (size_t i = 0; i < 4; i++) {
    const char *name = nm__hf_models[i].name;
    if (strlen(name) == type.n && memcmp(name, type.s, type.n) == 0)
      t->hf->model = &nm__hf_models[i];
  }
  char shown[64];
  if (!rc && !t->hf->model)
    rc = nm__hf_refuse(r, "type", "'%s' is not supported",
                       nm__printable(shown, sizeof shown, type.s, type.n));
  if (!rc) rc = nm__hf_known(r, o, t->hf->model->fields);
  if (!rc) rc = t->hf->model->open(t, r, o);
  nm__hf_leave(r, back);
  return rc;
}

static bool has_step(const struct nm__hf_steps *v, const char *name) {
  for (size_t i = 0; i < v->n; i++)
    if (strcmp(v->v[i].kind->name, name) == 0) return true;
  return false;
}

static int read_sections(struct nm__tok *t, struct nm__hf_reader *r, const json_t *top,
                         nm_err *warn) {
  struct nm__hf *h = t->hf;
  struct nm__str version = {"1.0", 3};
  if (!json_is_object(top)) return nm__hf_refuse(r, "tokenizer.json", "must be an object");
  int rc = nm__hf_known(r, top, "version truncation padding added_tokens normalizer pre_tokenizer "
                        "post_processor decoder model");
  if (!rc) rc = nm__hf_text(r, top, "version", false, &version);
  if (!rc && (version.n != 3 || memcmp(version.s, "1.0", 3)))
    rc = nm__hf_refuse(r, "version", "must be \"1.0\"");
  if (!rc) rc = read_steps(r, top, "normalizer", &nm__hf_normalizers, &h->normalizer);
  if (!rc) rc = read_steps(r, top, "pre_tokenizer", &nm__hf_pre_tokenizers, &h->pre_tokenizer);
  if (!rc) rc = read_steps(r, top, "decoder", &nm__hf_decoders, &h->decoder);
  if (rc) return rc;
  const json_t *decoder = json_object_get(top, "decoder"), *post;
  h->no_decoder = !decoder || json_is_null(decoder);
  const json_t *added = json_object_get(top, "added_tokens");
  if (added && !json_is_null(added) && !json_is_array(added))
    return nm__hf_refuse(r, "added_tokens", "must be a list");
  h->n_added = json_array_size(added);
  if (h->n_added > INT32_MAX / 8) return nm__hf_refuse(r, "added_tokens", "are too many");
  if ((rc = read_model(t, r, top)) || (rc = read_all_added(t, r, added, warn))) return rc;
  h->keeps_bytes = h->byte_fallback || has_step(&h->pre_tokenizer, "ByteLevel") ||
                   has_step(&h->normalizer, "ByteLevel");
  post = json_object_get(top, "post_processor");
  size_t back = nm__hf_enter(r, "post_processor", -1);
  rc = nm__hf_read_post(r, h, post);
  nm__hf_leave(r, back);
  return rc;
}

/* ---- all of it --------------------------------------------------------- */

/* What plain text can become: the model's tokens but the special ones. */
static int index_plain(struct nm__tok *t) {
  for (int32_t i = 0; i < t->n; i++) {
    const struct nm__piece *p = &t->piece[i];
    if (p->type != NM__TOK_NORMAL) continue;
    if (p->raw.n > t->longest) t->longest = p->raw.n;
    if (nm__dict_put(&t->dict, t->pool.s, p->raw, i)) return NM_EMEMORY;
  }
  return strcmp(t->hf->model->name, "Unigram") ? NM_OK
         : nm__specials_new(t, NM__TYPE(NORMAL), &t->choice);
}

/* The keys beside the text: a tokenizer_config.json says there what begins and ends a text
 * when the post-processor does not. */
static int frame(struct nm__tok *t, const struct nm__gguf *g, nm_err *err) {
  struct nm__hf *h = t->hf;
  int32_t unk = t->unk;
  int rc = nm__tok_read_ids(t, g, err);
  t->unk = unk;
  if (!rc && !h->before.n && !h->after.n) {
    rc = nm__tok_flag(g, "tokenizer.ggml.add_bos_token", false, &t->add_bos, err);
    if (!rc) rc = nm__tok_flag(g, "tokenizer.ggml.add_eos_token", false, &t->add_eos, err);
    if (!rc && t->add_bos && t->bos >= 0 && nm__ids_push(&h->before, t->bos)) rc = NM_EMEMORY;
    if (!rc && t->add_eos && t->eos >= 0 && nm__ids_push(&h->after, t->eos)) rc = NM_EMEMORY;
  }
  if (t->bos < 0 && h->before.n) t->bos = h->before.id[0];
  if (t->eos < 0 && h->after.n) t->eos = h->after.id[h->after.n - 1];
  t->add_bos = h->before.n && h->before.id[0] == t->bos;
  t->add_eos = h->after.n && h->after.id[h->after.n - 1] == t->eos;
  return rc == NM_EMEMORY ? nm__fail_memory(err, "a tokenizer", 4) : rc;
}

static int finish(struct nm__tok *t, const struct nm__gguf *g, nm_err *err) {
  struct nm__hf *h = t->hf;
  if (t->n == 0) return nm__fail(err, NM_EFORMAT, "%s: the vocabulary is empty", t->path);
  int rc = normalize_added(t, err);
  if (rc) return rc;
  bool words = false;
  for (size_t i = 0; i < h->n_added; i++) words = words || h->added[i].single_word;
  static const char word[] = "[\\w\\x{200C}\\x{200D}]";
  if (words) rc = nm__hf_regex_new(word, sizeof word - 1, false, &h->word, err);
  if (!rc && (index_plain(t) || index_added(t, false, &h->raw) || index_added(t, true, &h->normed)))
    rc = nm__fail_memory(err, "the vocabulary", t->pool.len);
  return rc ? rc : frame(t, g, err);
}

int nm__hf_open(struct nm__tok *t, const struct nm__gguf *g, nm_err *warn, nm_err *err) {
  struct nm__hf_reader r = {.path = t->path, .err = err};
  struct nm__str text;
  int rc = nm__gguf_string(g, "tokenizer.huggingface.json", &text, err);
  if (rc) return rc;
  if (!(t->hf = nm__alloc(1, sizeof *t->hf)))
    return nm__fail_memory(err, "the tokenizer", sizeof *t->hf);
  t->hf->t = t;
  json_error_t why = {0};
  json_t *top = json_loadb(text.s, text.n, JSON_ALLOW_NUL, &why);
  if (!top)
    return nm__fail(err, NM_EFORMAT, "%s: tokenizer.json is no JSON: %s (line %d, column %d)",
                    t->path, why.text, why.line, why.column);
  rc = read_sections(t, &r, top, warn);
  json_decref(top);
  return rc ? rc : finish(t, g, err);
}
