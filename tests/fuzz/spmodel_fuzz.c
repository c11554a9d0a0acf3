/* spmodel_fuzz.c - any bytes given as a SentencePiece model are refused with a sentence or
 * make a tokenizer that turns text into ids that are in range and back. For libFuzzer. */
#include <stdlib.h>
#include <string.h>

#include "text/spmodel.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void use(const struct nm__tok *t) {
  static const char text[] = "A caf\xC3\xA9  e\xCC\x81\t<u> \xEF\xAC\x81\xFF </s><0x41> "
                             "\xE2\x96\x81";
  struct nm__ids v = {0};
  struct nm__buf b;
  nm_err err = {0};
  nm__buf_init(&b, 1 << 24);
  struct nm__tok_opts o = {.parse_special = true};
  if (!nm__tok_encode(t, text, strlen(text), o, &v, &err) &&
      nm__tok_decode(t, v.id, v.n, true, &b, &err))
    abort();
  nm__buf_done(&b);
  nm__ids_done(&v);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  struct nm__gguf *g;
  struct nm__tok *t = NULL;
  nm_err err = {0};
  if (nm__gguf_new("fuzz", "SentencePiece", &g, &err)) return 0;
  if (nm__spmodel_parse("fuzz", bytes, n, g, &err) || nm__tok_open(g, &t, NULL, &err)) {
    if (!err.text[0]) abort();
  } else {
    use(t);
  }
  nm__tok_free(t);
  nm__gguf_close(g);
  return 0;
}
