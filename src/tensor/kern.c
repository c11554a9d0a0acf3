/* kern.c - which kernel sets there are, and which this machine can run. */
#include "tensor/kern.h"

#include <string.h>

static const struct nm__kern *const all[] = {
    &nm__kern_portable,
#if defined(__x86_64__)
    &nm__kern_avx2, &nm__kern_avx512, &nm__kern_avx512bf16,
#endif
};

const struct nm__kern *nm__kern_at(int i) {
  return i >= 0 && i < (int)(sizeof all / sizeof *all) ? all[i] : NULL;
}

int nm__kern_none(const char *name, nm_err *err) {
  struct nm__buf b;
  nm__buf_init(&b, 256);
  for (int i = 0; nm__kern_at(i); i++)
    if (nm__kern_at(i)->usable()) nm__buf_printf(&b, "%s%s", i ? ", " : "", nm__kern_at(i)->name);
  int st = nm__fail(err, NM_EUSAGE, "kernels '%.40s' are not available here (there are: %s)",
                    name ? name : "", b.s ? b.s : "");
  nm__buf_done(&b);
  return st;
}

const struct nm__kern *nm__kern_find(const char *name) {
  const struct nm__kern *best = NULL;
  for (int i = 0; nm__kern_at(i); i++) {
    const struct nm__kern *k = nm__kern_at(i);
    if (k->usable() && (!name || !strcmp(name, k->name))) best = k;
  }
  return best;
}
