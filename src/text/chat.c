/* chat.c - the table of chat families, and the one formatter that reads it. */
#define _GNU_SOURCE                /* memmem */
#include "text/chat.h"

#include <stdlib.h>
#include <string.h>

#include "text/jinja_in.h"
#include "text/unicode.h"

enum { TRIM = 1, TRIM_ANSWER = 2, JOIN_SYSTEM = 4 };

/* In a pattern \1 is the text of a message and \2 its role. */
struct nm__chat_family {
  const char *name;
  const char *mark[2];             /* what a Jinja template of this family holds; NULL: not told */
  const char *begin;               /* at the beginning */
  const char *between;             /* before each message but the first */
  const char *turn;                /* where no turn is open; the assistant's text closes it */
  const char *system, *user, *assistant;
  const char *generate;            /* the beginning of an answer */
  int flags;                       /* TRIM: white space around texts goes; TRIM_ANSWER: around
                                      answers; JOIN_SYSTEM: system text begins the next user's */
};

#define EOS "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"
#define DS(name) "<\xEF\xBD\x9C" name "\xEF\xBD\x9C>"
#define ALL(pattern) pattern, pattern, pattern
#define CR(role) "<|START_OF_TURN_TOKEN|><|" role "_TOKEN|>"

/* In order of telling: the first row whose marks are all there is the family. */
static const struct nm__chat_family families[] = {
    {"phi4", {"<|im_start|>", "<|im_sep|>"}, "", "", "",
     ALL("<|im_start|>\2<|im_sep|>\1<|im_end|>"), "<|im_start|>assistant<|im_sep|>", 0},
    {"smolvlm", {"<end_of_utterance>", NULL}, "<|im_start|>", "", "", "\1\n\n",
     "User: \1<end_of_utterance>\n", "Assistant: \1<end_of_utterance>\n", "Assistant:", 0},
    {"chatml", {"<|im_start|>", NULL}, "", "", "", ALL("<|im_start|>\2\n\1<|im_end|>\n"),
     "<|im_start|>assistant\n", 0},
    {"mistral-v7", {"[INST]", "[SYSTEM_PROMPT]"}, "", "", "",
     "[SYSTEM_PROMPT] \1[/SYSTEM_PROMPT]", "[INST] \1[/INST]", " \1</s>", "", 0},
    {"llama2-sys", {"[INST]", "<<SYS>>"}, "", "", "[INST] ", "<<SYS>>\n\1\n<</SYS>>\n\n",
     "\1 [/INST]", "\1</s>", "", 0},
    {"mistral-v1", {"' [INST] ' + system_message", NULL}, "", "", " [INST] ", "\1\n\n",
     "\1 [/INST]", " \1</s>", "", 0},
    {"mistral-v3", {"[INST]", "[AVAILABLE_TOOLS]"}, "", "", "[INST] ", "\1\n\n", "\1[/INST]",
     " \1</s>", "", TRIM_ANSWER},
    {"llama2", {"[INST]", NULL}, "", "", "[INST] ", "\1\n", "\1 [/INST]", "\1</s>", "", 0},
    {"phi3", {"<|assistant|>", "<|end|>"}, "", "", "", ALL("<|\2|>\n\1<|end|>\n"),
     "<|assistant|>\n", 0},
    {"falcon3", {"<|assistant|>", "<|user|>\\n"}, "", "", "", ALL("<|\2|>\n\1\n"),
     "<|assistant|>\n", 0},
    {"zephyr", {"<|user|>", "eos_token"}, "", "", "", ALL("<|\2|>\n\1<|endoftext|>\n"),
     "<|assistant|>\n", 0},
    {"gemma", {"<start_of_turn>", NULL}, "", "", "", "\1", "<start_of_turn>user\n\1<end_of_turn>\n",
     "<start_of_turn>model\n\1<end_of_turn>\n", "<start_of_turn>model\n", TRIM | JOIN_SYSTEM},
    {"openchat", {"GPT4 Correct ", NULL}, "", "", "", "\1<|end_of_turn|>",
     "GPT4 Correct User: \1<|end_of_turn|>", "GPT4 Correct Assistant: \1<|end_of_turn|>",
     "GPT4 Correct Assistant:", 0},
    {"vicuna", {"USER: ", "ASSISTANT: "}, "", "", "", "\1\n\n", "USER: \1\n",
     "ASSISTANT: \1</s>\n", "ASSISTANT:", 0},
    {"deepseek", {"### Instruction:", "<|EOT|>"}, "", "", "", "\1", "### Instruction:\n\1\n",
     "### Response:\n\1\n<|EOT|>\n", "### Response:\n", 0},
    {"command-r", {"<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>"}, "", "", "",
     CR("SYSTEM") "\1<|END_OF_TURN_TOKEN|>", CR("USER") "\1<|END_OF_TURN_TOKEN|>",
     CR("CHATBOT") "\1<|END_OF_TURN_TOKEN|>", CR("CHATBOT"), TRIM},
    {"llama3", {"<|start_header_id|>", "<|end_header_id|>"}, "", "", "",
     ALL("<|start_header_id|>\2<|end_header_id|>\n\n\1<|eot_id|>"),
     "<|start_header_id|>assistant<|end_header_id|>\n\n", TRIM},
    {"llama4", {"<|header_start|>", "<|header_end|>"}, "", "", "",
     ALL("<|header_start|>\2<|header_end|>\n\n\1<|eot|>"),
     "<|header_start|>assistant<|header_end|>\n\n", TRIM},
    {"deepseek3", {DS("Assistant"), NULL}, "", "", "", "\1\n\n", DS("User") "\1",
     DS("Assistant") "\1" EOS, DS("Assistant"), 0},
    {"deepseek2", {"'Assistant: '", "eos_token"}, "", "", "", "\1\n\n", "User: \1\n\n",
     "Assistant: \1" EOS, "Assistant:", 0},
    {"granite", {"<|start_of_role|>", NULL}, "", "", "",
     ALL("<|start_of_role|>\2<|end_of_role|>\1<|end_of_text|>\n"),
     "<|start_of_role|>assistant<|end_of_role|>\n", 0},
    {"monarch", {"bos_token + message['role']", NULL}, "", "<s>", "", ALL("\2\n\1</s>\n"),
     "<s>assistant\n", 0}};
enum { N_FAMILIES = sizeof families / sizeof *families };

const struct nm__chat_family *nm__chat_find(const char *name) {
  for (int i = 0; i < N_FAMILIES; i++)
    if (!strcmp(families[i].name, name)) return &families[i];
  return NULL;
}

const char *nm__chat_name(int i) { return i < N_FAMILIES ? families[i].name : NULL; }

const struct nm__chat_family *nm__chat_detect(const char *source, size_t n) {
  for (int i = 0; i < N_FAMILIES; i++) {
    bool all = true;
    for (int k = 0; k < 2; k++) {
      const char *mark = families[i].mark[k];
      all = all && (!mark || memmem(source, n, mark, strlen(mark)));
    }
    if (all) return &families[i];
  }
  return NULL;
}

/* ---- formatting ------------------------------------------------------ */

struct writer { struct nm__buf s, user; };

static void put(struct writer *w, const char *s, size_t n, bool user) {
  nm__buf_put(&w->s, s, n);
  for (size_t i = 0; i < n; i++) nm__buf_putc(&w->user, user);
}

static void trim(struct nm__buf *b) {
  uint32_t cp;
  size_t from = 0, to = b->len;
  for (int k; from < to && (k = nm__utf8_decode(b->s + from, to - from, &cp)) && nm__j_space(cp);)
    from += (size_t)k;
  while (to > from) {
    size_t last = to - 1;
    while (last > from && ((unsigned char)b->s[last] & 0xC0) == 0x80) last--;
    if (!nm__utf8_decode(b->s + last, to - last, &cp) || !nm__j_space(cp)) break;
    to = last;
  }
  if (from) memmove(b->s, b->s + from, to - from);
  b->len = to - from;
}

/* The text of a message, behind what `b` holds. */
static int content(const json_t *message, size_t i, struct nm__buf *b, nm_err *err) {
  const json_t *c = json_object_get(message, "content");
  if (!c || json_is_null(c)) return NM_OK;
  if (json_is_string(c)) nm__buf_put(b, json_string_value(c), json_string_length(c));
  for (size_t k = 0; k < json_array_size(c); k++) {
    const json_t *part = json_array_get(c, k), *text = json_object_get(part, "text");
    if (!json_is_string(text))
      return nm__fail(err, NM_EFORMAT, "message %zu: part %zu of its content is no text", i + 1,
                      k + 1);
    nm__buf_put(b, json_string_value(text), json_string_length(text));
  }
  if (!json_is_string(c) && !json_is_array(c))
    return nm__fail(err, NM_EFORMAT, "message %zu: its content is neither a text nor a list of "
                    "parts", i + 1);
  return NM_OK;
}

static void fill(struct writer *w, const char *pattern, const struct nm__buf *text,
                 const char *role) {
  for (; *pattern; pattern++) {
    if (*pattern == 1) put(w, text->len ? text->s : "", text->len, true);
    else if (*pattern == 2) put(w, role, strlen(role), true);
    else put(w, pattern, 1, false);
  }
}

struct state { bool in_turn, first; struct nm__buf text; };

static int message(const struct nm__chat_family *f, const json_t *m, size_t i, struct state *s,
                   struct writer *w, nm_err *err) {
  const char *role = json_string_value(json_object_get(m, "role"));
  if (!role) return nm__fail(err, NM_EFORMAT, "message %zu has no role", i + 1);
  bool answer = !strcmp(role, "assistant"), system = !strcmp(role, "system");
  const char *pattern = answer ? f->assistant : system ? f->system : f->user;
  if (!answer && !system && strcmp(role, "user") && !strchr(pattern, 2))
    return nm__fail(err, NM_EFORMAT, "message %zu: the family '%s' has no role '%.40s'", i + 1,
                    f->name, role);
  struct nm__buf own;
  nm__buf_init(&own, (size_t)1 << 30);
  int rc = content(m, i, &own, err);
  if (own.len && (f->flags & TRIM || (answer && f->flags & TRIM_ANSWER))) trim(&own);
  if (!rc && system && f->flags & JOIN_SYSTEM) {   /* it waits for the user */
    nm__buf_reset(&s->text);
    if (own.len) nm__buf_put(&s->text, own.s, own.len);
    nm__buf_done(&own);
    return NM_OK;
  }
  if (!rc) {
    if (!s->first) put(w, f->between, strlen(f->between), false);
    if (!s->in_turn) put(w, f->turn, strlen(f->turn), false);
    s->in_turn = !answer;
    s->first = false;
    if (s->text.len && !answer) {
      nm__buf_puts(&s->text, "\n\n");
      if (own.len) nm__buf_put(&s->text, own.s, own.len);
      fill(w, pattern, &s->text, role);
      nm__buf_reset(&s->text);
    } else {
      fill(w, pattern, &own, role);
    }
    if (own.failed) rc = nm__fail_memory(err, "a message", own.len);
  }
  nm__buf_done(&own);
  return rc;
}

int nm__chat_render(const struct nm__chat_family *f, const json_t *messages, bool generate,
                    struct nm__prompt *out, nm_err *err) {
  struct writer w;
  struct state s = {.first = true};
  *out = (struct nm__prompt){0};
  if (!json_is_array(messages))
    return nm__fail(err, NM_EFORMAT, "the messages are no list of {\"role\", \"content\"}");
  nm__buf_init(&w.s, (size_t)1 << 30);
  nm__buf_init(&w.user, (size_t)1 << 30);
  nm__buf_init(&s.text, (size_t)1 << 30);
  put(&w, f->begin, strlen(f->begin), false);
  int rc = NM_OK;
  for (size_t i = 0; i < json_array_size(messages) && !rc; i++)
    rc = message(f, json_array_get(messages, i), i, &s, &w, err);
  if (generate) put(&w, f->generate, strlen(f->generate), false);
  nm__buf_put(&w.s, "", 0);
  nm__buf_put(&w.user, "", 0);
  if (!rc && (w.s.failed || w.user.failed || s.text.failed))
    rc = nm__fail_memory(err, "a prompt", w.s.len);
  nm__buf_done(&s.text);
  *out = (struct nm__prompt){w.s.s, (uint8_t *)w.user.s, w.s.len};
  if (rc) nm__prompt_done(out);
  return rc;
}
