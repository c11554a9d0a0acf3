/* iq_tables.h - the codebooks of the IQ types. The numbers are those of ggml
 * (https://github.com/ggml-org/ggml), Copyright (c) 2023-2026 The ggml authors, MIT licence;
 * the text of the licence is in iq_tables.c. Here each entry is packed into one word, element
 * 0 in the lowest bits. */
#ifndef NM_TENSOR_IQ_TABLES_H
#define NM_TENSOR_IQ_TABLES_H

#include <stdint.h>

/* Eight elements of two bits: 0, 1, 2 stand for 8, 25, 43. */
extern const uint16_t nm__iq2xxs_grid[256], nm__iq2xs_grid[512], nm__iq2s_grid[1024];
/* Four elements of three bits: 4 12 20 28 36 44 52 62, and the odd numbers from 1 to 15. */
extern const uint16_t nm__iq3xxs_grid[256], nm__iq3s_grid[512];
/* Eight elements of two bits: 0, 1, 2 stand for -1, 0, 1. */
extern const uint16_t nm__iq1_grid[2048];
/* The sixteen levels of IQ4_NL and IQ4_XS. */
extern const int8_t nm__iq4_level[16];

#endif
