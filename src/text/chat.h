/* chat.h - prompts of known families without Jinja, as llama.cpp's built-in formatter writes
 * them. A family is a row in chat.c. What the family writes is trusted, what the messages hold
 * is not (struct nm__prompt of jinja.h).
 *
 *   const struct nm__chat_family *f = nm__chat_find("chatml");
 *   nm__chat_render(f, messages, true, &prompt, err); nm__prompt_done(&prompt);
 *
 * No state: use it from any number of threads. */
#ifndef NM_TEXT_CHAT_H
#define NM_TEXT_CHAT_H

#include "text/jinja.h"

struct nm__chat_family;

const struct nm__chat_family *nm__chat_find(const char *name);    /* or NULL */
/* The family whose markers stand in a Jinja template; NULL when none is known. */
const struct nm__chat_family *nm__chat_detect(const char *source, size_t n);
const char *nm__chat_name(int i);                                 /* NULL after the last */
/* messages: an array of {"role": ..., "content": text or [{"type": "text", "text": ...}]}.
 * `generate`: the beginning of the assistant's turn follows. */
int nm__chat_render(const struct nm__chat_family *f, const json_t *messages, bool generate,
                    struct nm__prompt *out, nm_err *err);

#endif
