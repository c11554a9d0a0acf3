/* hf_keys.h - the tokenizer of a Hugging Face directory, as keys of a GGUF.
 *
 * The first of these that is there is read: tokenizer.json; tokenizer.model; vocab.json
 * with merges.txt; vocab.txt. Beside it tokenizer_config.json, special_tokens_map.json,
 * added_tokens.json, generation_config.json and chat_template.jinja.
 *
 *   nm__hf_tokenizer_keys("models/pythia", g, err);   // g from nm__gguf_new
 *   nm__tok_open(g, &t, &warn, err);
 *
 * What is not looked at here (a damaged vocabulary, a step that is not known) is refused by
 * nm__tok_open. */
#ifndef NM_TEXT_HF_KEYS_H
#define NM_TEXT_HF_KEYS_H

#include "file/gguf.h"

/* Adds to g (made in memory): tokenizer.huggingface.json (the whole text) or the
 * tokenizer.ggml.* keys of a tokenizer.model; tokenizer.chat_template and
 * tokenizer.chat_template.NAME; the ids of the begin, end, unknown and padding tokens;
 * add_bos_token, add_eos_token. A directory without a tokenizer adds no key and is no
 * error. NM_EFORMAT names the file that cannot be read. */
int nm__hf_tokenizer_keys(const char *dir, struct nm__gguf *g, nm_err *err);

/* A directory, or a file named *.json: what nm__hf_tokenizer_open takes. */
bool nm__hf_tokenizer_path(const char *path);
/* A GGUF of nothing but those keys. A file is taken for a tokenizer.json, and its
 * directory gives the rest. */
int nm__hf_tokenizer_open(const char *path, struct nm__gguf **out, nm_err *err);

/* Derives the tokenizer.ggml.* keys that say the same as from's
 * tokenizer.huggingface.json, where GGUF has words for it: byte-level BPE with a known
 * pre-tokenizer, BPE of SentencePiece's kind, WordPiece, Unigram. Where it has none,
 * nothing is added, 0 is returned and `warn` (may be NULL) says what has no words. */
int nm__hf_tokenizer_to_ggml(const struct nm__gguf *from, struct nm__gguf *to, nm_err *warn,
                             nm_err *err);

/* The other way, for a pre-tokenizer of GGUF: its steps, parted by newlines, each a pattern that
 * isolates, "digit", "bytes" or "bytes+gpt2"; and whether whole tokens come before merges. NULL
 * where the name has none here. */
const char *nm__hf_pre_steps(struct nm__str pre, bool *whole_first);

#endif
