/* answer.c - the text of an answer, token by token (answer.h).
 *
 * What a token looks like depends on its neighbours: SentencePiece drops a space at the beginning
 * of a text, WordPiece puts one between words. So a token's text is what decoding the last few
 * tokens gains by it. */
#define _GNU_SOURCE
#include "text/answer.h"

#include <stdlib.h>
#include <string.h>

#include "text/tok.h"

enum { WINDOW = 8, WINDOW_MOST = 32 };

static int decode(struct nm__answer *a, struct nm__buf *out, nm_err *err) {
  nm__buf_reset(out);
  return nm__tok_decode(a->t, a->window.id, a->window.n, false, out, err);
}

/* The last tokens of v, as many as give some text: a rule for the beginning of a text then falls
 * on a token that was there before. */
static int look_back(struct nm__answer *a, const int32_t *v, size_t n, nm_err *err) {
  int st = NM_OK;
  for (size_t k = WINDOW; !st; k *= 2) {
    size_t take = k < n ? k : n;
    a->window.n = 0;
    for (size_t i = n - take; i < n && !st; i++)
      if (nm__ids_push(&a->window, v[i])) st = nm__fail_memory(err, "an answer", 0);
    if (!st) st = decode(a, &a->before, err);
    if (a->before.len || take == n) break;
  }
  return st;
}

int nm__answer_begin(struct nm__answer *a, const struct nm__tok *t, const int32_t *prompt,
                     size_t n, nm_err *err) {
  *a = (struct nm__answer){.t = t};
  nm__buf_init(&a->before, (size_t)1 << 28);
  nm__buf_init(&a->after, (size_t)1 << 28);
  return look_back(a, prompt, n, err);
}

int nm__answer_token(struct nm__answer *a, int32_t id, struct nm__buf *text, nm_err *err) {
  if (nm__ids_push(&a->window, id)) return nm__fail_memory(err, "an answer", 0);
  int st = decode(a, &a->after, err);
  if (st) return st;
  if (a->after.len > a->before.len)
    nm__buf_put(text, a->after.s + a->before.len, a->after.len - a->before.len);
  struct nm__buf b = a->before;
  a->before = a->after;
  a->after = b;
  if (text->failed) return nm__fail_memory(err, "an answer", text->len);
  if (a->window.n <= WINDOW_MOST) return NM_OK;
  int32_t last[WINDOW_MOST + 1];
  size_t n = WINDOW_MOST + 1, all = a->window.n;
  memcpy(last, a->window.id + all - n, n * sizeof *last);
  st = look_back(a, last, n, err);
  return st;
}

void nm__answer_done(struct nm__answer *a) {
  nm__ids_done(&a->window);
  nm__buf_done(&a->before);
  nm__buf_done(&a->after);
}

/* ---- ends ---------------------------------------------------------------- */

bool nm__tok_is_end(const struct nm__tok *t, int32_t id) {
  static const char *const names[] = {
      "</s>", "<eos>", "<EOT>", "_<EOT>", "< EOT >", "<|eot_id|>", "<|eom_id|>", "<|im_end|>",
      "<|end|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>", "<end_of_utterance>",
      "<|return|>", "<|call|>",
      "<\xEF\xBD\x9C\x65nd\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};
  if (id < 0 || id >= nm__tok_size(t)) return false;
  if (id == nm__tok_eos(t) || id == nm__tok_eot(t) || id == nm__tok_eom(t)) return true;
  if (t->piece[id].type == NM__TOK_NORMAL || t->piece[id].type == NM__TOK_BYTE) return false;
  struct nm__str s = nm__tok_piece(t, id);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (s.n == strlen(names[i]) && !memcmp(s.s, names[i], s.n)) return true;
  return false;
}

/* ---- what can be shown ------------------------------------------------------ */

/* Bytes at the end of s that begin a character and do not finish it. */
static size_t half_character(const char *s, size_t n) {
  for (size_t back = 1; back <= 3 && back <= n; back++) {
    unsigned char c = (unsigned char)s[n - back];
    size_t len = c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (len) return len > back ? back : 0;
    if ((c & 0xC0) != 0x80) return 0;
  }
  return 0;
}

size_t nm__showable(const char *s, size_t n, const char *const *stop, int n_stop) {
  size_t most = 0;
  for (int i = 0; i < n_stop; i++) {
    size_t k = strlen(stop[i]);
    for (k = k ? k - 1 : 0, k = k < n ? k : n; k > most; k--)
      if (!memcmp(s + n - k, stop[i], k)) most = k;
  }
  return n - most - half_character(s, n - most);
}

size_t nm__find_stop(const char *s, size_t n, size_t from, const char *const *stop, int n_stop) {
  size_t first = n;
  for (int i = 0; i < n_stop; i++) {
    size_t k = strlen(stop[i]), at = from + 1 > k ? from + 1 - k : 0;
    const char *hit = k && n > at ? memmem(s + at, n - at, stop[i], k) : NULL;
    if (hit && (size_t)(hit - s) < first) first = (size_t)(hit - s);
  }
  return first;
}
