/* wide.c - the instruction sets of wide.h. The sets differ in how many of the eight lanes one
 * instruction holds, in nothing else. */
#include "tensor/wide.h"

#include <string.h>

typedef double d8 __attribute__((vector_size(64)));
typedef float f8 __attribute__((vector_size(32)));
typedef uint32_t u8 __attribute__((vector_size(32)));
typedef uint16_t h8 __attribute__((vector_size(16)));

#define WIDE_NAME(x) plain_##x
#define WIDE_FOR
#include "tensor/wide_body.h"

#if defined(__x86_64__)
#define WIDE_NAME(x) avx2_##x
#define WIDE_FOR __attribute__((target("avx2")))
#include "tensor/wide_body.h"

#define WIDE_NAME(x) avx512_##x
#define WIDE_FOR __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq")))
#include "tensor/wide_body.h"

const struct nm__wide *nm__wide_of(const struct nm__kern *k) {
  return !strncmp(k->name, "avx512", 6) ? &avx512_set
         : !strncmp(k->name, "avx2", 4) ? &avx2_set
                                        : &plain_set;
}
#else
const struct nm__wide *nm__wide_of(const struct nm__kern *k) {
  (void)k;
  return &plain_set;
}
#endif
