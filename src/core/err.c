/* err.c - one sentence per failure, kept in the caller's nm_err. */
#include "core/core.h"

#include <stdio.h>
#include <string.h>

int nm_exit_code(int status) {
  switch (status) {
#define X(name, value, exit_code, text) case name: return exit_code;
    NM_STATUS_LIST(X)
#undef X
    default: return 1;
  }
}

int nm__fail(nm_err *err, int status, const char *fmt, ...) {
  if (!err) return status;
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(err->text, sizeof err->text, fmt, ap);
  va_end(ap);
  err->status = status;
  return status;
}

int nm__fail_at(nm_err *err, int status, const char *fmt, ...) {
  if (!err) return status;
  char head[sizeof err->text], whole[2 * sizeof err->text + 8];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(head, sizeof head, fmt, ap);
  va_end(ap);
  snprintf(whole, sizeof whole, "%s: %s", head, err->text);
  snprintf(err->text, sizeof err->text, "%.*s", (int)sizeof err->text - 1, whole);
  err->status = status;
  return status;
}

int nm__fail_memory(nm_err *err, const char *what, size_t bytes) {
  return nm__fail(err, NM_EMEMORY, "not enough memory for %s (%.1f MB)", what,
                  (double)bytes / 1e6);
}

const char *nm__printable(char *out, size_t n, const char *s, size_t len) {
  size_t k = 0;
  for (size_t i = 0; i < len && k + 1 < n; i++) {
    unsigned char c = (unsigned char)s[i];
    out[k++] = (c < 0x20 || c >= 0x7f) ? '?' : (char)c;
  }
  out[k] = 0;
  return out;
}
