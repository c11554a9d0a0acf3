/* answer.h - what a generated answer needs of a tokenizer: its text while it grows, the tokens
 * that end it, and how much of a text can be shown.
 *
 *   struct nm__answer a;
 *   nm__answer_begin(&a, tok, prompt, n_prompt, err);
 *   nm__answer_token(&a, id, &text, err);              // appends the bytes that id adds
 *   nm__answer_done(&a);
 *
 * The pieces together are decode(prompt and answer) without decode(prompt). */
#ifndef NM_TEXT_ANSWER_H
#define NM_TEXT_ANSWER_H

#include "text/tokenizer.h"

struct nm__answer {
  const struct nm__tok *t;
  struct nm__ids window;           /* the last tokens: what decides how the next one looks */
  struct nm__buf before, after;
};
int nm__answer_begin(struct nm__answer *a, const struct nm__tok *t, const int32_t *prompt,
                     size_t n, nm_err *err);
int nm__answer_token(struct nm__answer *a, int32_t id, struct nm__buf *text, nm_err *err);
void nm__answer_done(struct nm__answer *a);

/* Does a text end with this token? By the file's keys, or by a name that is known. */
bool nm__tok_is_end(const struct nm__tok *t, int32_t id);

/* Bytes of s that can be shown before more comes: not the beginning of a character, nor one of a
 * stop string. */
size_t nm__showable(const char *s, size_t n, const char *const *stop, int n_stop);
/* Where the first stop string begins that ends behind `from`; n if there is none. */
size_t nm__find_stop(const char *s, size_t n, size_t from, const char *const *stop, int n_stop);

#endif
