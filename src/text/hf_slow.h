/* hf_slow.h - files of older tokenizers, said as a tokenizer.json. */
#ifndef NM_TEXT_HF_SLOW_H
#define NM_TEXT_HF_SLOW_H

#include <jansson.h>

#include "file/gguf.h"

/* `vocab` and `merges` are the contents of vocab.json and merges.txt; `config` is the
 * tokenizer_config.json and `kind` the tokenizer's class or the model's type ("" when
 * nothing says it: GPT-2). NULL with a sentence. */
json_t *nm__hf_from_vocab_json(const char *path, const json_t *vocab, struct nm__str merges,
                               const json_t *config, const char *kind, nm_err *err);
/* WordPiece, from the lines of a vocab.txt. */
json_t *nm__hf_from_vocab_txt(struct nm__str lines, const json_t *config, nm_err *err);

#endif
