/* ugm.c - SentencePiece's unigram model ("t5"): the text is prepared as the file says, then
 * cut in the most probable way. As in llama.cpp each run between special tokens is prepared
 * on its own, with a space in front. */
#include "text/tok.h"

static int ugm_open(struct nm__tok *t, const struct nm__gguf *g, nm_err *warn, nm_err *err) {
  (void)warn;
  if (!nm__gguf_find(g, "tokenizer.ggml.scores"))
    return nm__fail(err, NM_EFORMAT, "%s: tokenizer.ggml.scores is missing, which a 't5' "
                    "tokenizer needs", t->path);
  if (nm__tok_open_pieces(t)) return nm__fail_memory(err, "the vocabulary", t->pool.len);
  t->add_eos = true;
  int rc = nm__tok_flag(g, "tokenizer.ggml.add_bos_token", false, &t->add_bos, err);
  if (!rc) rc = nm__tok_open_normal(t, g, err);
  t->float_sums = true;
  return rc ? rc : nm__unigram_open(t, err);
}

static int ugm_run(const struct nm__tok *t, struct nm__work *w, const char *s, size_t n,
                   nm_err *err) {
  int rc = nm__tok_normalise(t, &w->text, s, n);
  return rc ? rc : nm__unigram(t, w, w->text.s, w->text.len, err);
}

const struct nm__tok_family nm__tok_ugm = {"t5", ugm_open, ugm_run};
