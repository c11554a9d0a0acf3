/* kern_avx512.c - AVX-512 F, BW, VL, DQ: servers since 2017, without products of bf16. */
#if defined(__x86_64__)
#include "tensor/kern_avx512.h"

#define KERN_SET nm__kern_avx512
#define KERN_NAME "avx512"
#define KERN_USABLE AVX512_USABLE
#include "tensor/kern_body.h"
#endif
