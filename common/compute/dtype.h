/* dtype.h - tensor element types with GGUF's numbers, and the layout of their quant blocks.
 *
 * Plain C/C++ common subset: CUDA sources include it, too.  Layouts: GGUF/ggml's published block formats. */
#ifndef COMPUTE_DTYPE_H
#define COMPUTE_DTYPE_H
#include <stddef.h>
#include <stdint.h>

enum dtype {
    DTYPE_F32 = 0,
    DTYPE_F16 = 1,
    DTYPE_Q4_0 = 2,
    DTYPE_Q4_1 = 3,
    DTYPE_Q5_0 = 6,
    DTYPE_Q5_1 = 7,
    DTYPE_Q8_0 = 8,
    DTYPE_Q2_K = 10,
    DTYPE_Q3_K = 11,
    DTYPE_Q4_K = 12,
    DTYPE_Q5_K = 13,
    DTYPE_Q6_K = 14,
    DTYPE_IQ2_XXS = 16,
    DTYPE_IQ2_XS = 17,
    DTYPE_IQ3_XXS = 18,
    DTYPE_IQ1_S = 19,
    DTYPE_IQ4_NL = 20,
    DTYPE_IQ3_S = 21,
    DTYPE_IQ2_S = 22,
    DTYPE_IQ4_XS = 23,
    DTYPE_I8 = 24,
    DTYPE_I16 = 25,
    DTYPE_I32 = 26,
    DTYPE_I64 = 27,
    DTYPE_F64 = 28,
    DTYPE_IQ1_M = 29,
    DTYPE_BF16 = 30,
    DTYPE_TQ1_0 = 34,
    DTYPE_TQ2_0 = 35,
    DTYPE_MXFP4 = 39,
    DTYPE_LIMIT = 64
};

struct dtype_info {
    const char *name;     /* "Q4_K"; known for refused types as well */
    uint32_t block_elems; /* elements per block; 0 = the type number is not known at all */
    uint32_t block_bytes;
    int supported; /* Baton can dequantize it */
};

#ifdef __cplusplus
extern "C" {
#endif
/* Facts of GGUF type number `type`; never NULL, name "?" and block_elems 0 when unknown. */
const struct dtype_info *dtype_info(uint32_t type);
/* Bytes of n elements, or 0 if n is not a multiple of the block. */
uint64_t dtype_row_bytes(uint32_t type, uint64_t n);
/* Dequantizes n elements (a multiple of the block) to fp32, bit for bit as the `gguf` package does (F64 and the
 * integers: as numpy converts them).
 * `type` must be supported. */
void dequantize_row(uint32_t type, const void *src, float *dst, uint64_t n);
#ifdef __cplusplus
}
#endif
#endif
