/* hf_tokenizer_fuzz.c - any bytes as a tokenizer.json, and any text through it.
 *
 * Up to the first zero byte the input is the file, behind it the text. What opens must
 * encode to ids in range or refuse with a sentence, and the ids must decode.
 *
 *   clang -fsanitize=fuzzer,address,undefined ... tests/fuzz/hf_tokenizer_fuzz.c */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void use(const struct nm__tok *t, const char *s, size_t n, struct nm__tok_opts o) {
  struct nm__ids v = {0};
  struct nm__buf b;
  nm_err err = {0};
  nm__buf_init(&b, 1 << 26);
  int rc = nm__tok_encode(t, s, n, o, &v, &err);
  if (rc && !err.text[0]) abort();
  for (size_t i = 0; i < v.n; i++)
    if (v.id[i] < 0 || v.id[i] >= nm__tok_size(t)) abort();
  err = (nm_err){0};
  if (!rc && nm__tok_decode(t, v.id, v.n, o.parse_special, &b, &err) && !err.text[0]) abort();
  nm__buf_done(&b);
  nm__ids_done(&v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  const uint8_t *cut = n ? memchr(data, 0, n) : NULL;
  size_t len = cut ? (size_t)(cut - data) : n;
  const char *text = cut ? (const char *)cut + 1 : "hello  the a-b1";
  size_t n_text = cut ? n - len - 1 : strlen(text);
  struct nm__gguf *g = NULL;
  struct nm__tok *t = NULL;
  nm_err err = {0};
  if (nm__gguf_new("fuzz", "fuzz", &g, &err)) return 0;
  if (nm__gguf_add_string(g, "tokenizer.huggingface.json", (const char *)data, len, &err) ||
      nm__tok_open(g, &t, NULL, &err)) {
    if (!err.text[0]) abort();
  } else {
    use(t, text, n_text, (struct nm__tok_opts){.parse_special = true});
    use(t, text, n_text, (struct nm__tok_opts){.no_bos = true});
  }
  nm__tok_free(t);
  nm__gguf_close(g);
  return 0;
}
