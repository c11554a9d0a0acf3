/* kern_avx512bf16.c - AVX-512 with VDPBF16PS: two bf16 products a lane in one instruction. */
#if defined(__x86_64__)
#include "tensor/kern_avx512.h"

#define KERN_SET nm__kern_avx512bf16
#define KERN_NAME "avx512bf16"
#define KERN_USABLE (AVX512_USABLE && __builtin_cpu_supports("avx512bf16"))
#include "tensor/kern_body.h"
#endif
