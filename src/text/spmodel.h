/* spmodel.h - SentencePiece's own model files (tokenizer.model, *.model).
 *
 * Such a file is one protobuf message: the pieces, what the trainer was told, how text is
 * normalised. It is shown as the tokenizer.ggml.* keys that a GGUF of the same vocabulary
 * has, so that nm__tok_open reads both. Unigram and BPE models; others are refused by name.
 *
 *   struct nm__gguf *g;
 *   if (nm__gguf_new(path, "SentencePiece", &g, err)) return err->status;
 *   if (nm__spmodel_keys(path, g, err)) ...
 *
 * The file is hostile until shown otherwise: lengths are checked against the bytes there
 * are, and memory stays within a small multiple of the file. */
#ifndef NM_TEXT_SPMODEL_H
#define NM_TEXT_SPMODEL_H

#include "file/gguf.h"

/* Does the file begin as a SentencePiece model does? False also when it cannot be read. */
bool nm__spmodel_is(const char *path);
/* Adds the keys to g, which was made in memory. */
int nm__spmodel_keys(const char *path, struct nm__gguf *g, nm_err *err);
/* The same from bytes; `name` is for messages. */
int nm__spmodel_parse(const char *name, const void *bytes, size_t n, struct nm__gguf *g,
                      nm_err *err);

#endif
