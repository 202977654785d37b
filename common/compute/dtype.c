/* dtype.c - the table of GGUF's tensor types: name and block layout by type number. */
#include "compute/dtype.h"

static const struct dtype_info DTYPES[DTYPE_LIMIT] = {
    /* name, elements and bytes per block, supported */
    [DTYPE_F32] = { "F32", 1, 4, 1 },
    [DTYPE_F16] = { "F16", 1, 2, 1 },
    [DTYPE_Q4_0] = { "Q4_0", 32, 18, 1 },
    [DTYPE_Q4_1] = { "Q4_1", 32, 20, 1 },
    [DTYPE_Q5_0] = { "Q5_0", 32, 22, 1 },
    [DTYPE_Q5_1] = { "Q5_1", 32, 24, 1 },
    [DTYPE_Q8_0] = { "Q8_0", 32, 34, 1 },
    [9] = { "Q8_1", 32, 40, 0 },
    [DTYPE_Q2_K] = { "Q2_K", 256, 84, 1 },
    [DTYPE_Q3_K] = { "Q3_K", 256, 110, 1 },
    [DTYPE_Q4_K] = { "Q4_K", 256, 144, 1 },
    [DTYPE_Q5_K] = { "Q5_K", 256, 176, 1 },
    [DTYPE_Q6_K] = { "Q6_K", 256, 210, 1 },
    [15] = { "Q8_K", 256, 292, 0 },
    [DTYPE_IQ2_XXS] = { "IQ2_XXS", 256, 66, 1 },
    [DTYPE_IQ2_XS] = { "IQ2_XS", 256, 74, 1 },
    [DTYPE_IQ3_XXS] = { "IQ3_XXS", 256, 98, 1 },
    [DTYPE_IQ1_S] = { "IQ1_S", 256, 50, 1 },
    [DTYPE_IQ4_NL] = { "IQ4_NL", 32, 18, 1 },
    [DTYPE_IQ3_S] = { "IQ3_S", 256, 110, 1 },
    [DTYPE_IQ2_S] = { "IQ2_S", 256, 82, 1 },
    [DTYPE_IQ4_XS] = { "IQ4_XS", 256, 136, 1 },
    [DTYPE_I8] = { "I8", 1, 1, 1 },
    [DTYPE_I16] = { "I16", 1, 2, 1 },
    [DTYPE_I32] = { "I32", 1, 4, 1 },
    [DTYPE_I64] = { "I64", 1, 8, 1 },
    [DTYPE_F64] = { "F64", 1, 8, 1 },
    [DTYPE_IQ1_M] = { "IQ1_M", 256, 56, 1 },
    [DTYPE_BF16] = { "BF16", 1, 2, 1 },
    [DTYPE_TQ1_0] = { "TQ1_0", 256, 54, 1 },
    [DTYPE_TQ2_0] = { "TQ2_0", 256, 66, 1 },
    [DTYPE_MXFP4] = { "MXFP4", 32, 17, 1 },
    [40] = { "NVFP4", 64, 36, 0 },
    [41] = { "Q1_0", 128, 18, 0 },
};

const struct dtype_info *dtype_info(uint32_t type)
{
    static const struct dtype_info unknown = { "?", 0, 0, 0 };
    return type < DTYPE_LIMIT && DTYPES[type].name ? &DTYPES[type] : &unknown;
}

uint64_t dtype_row_bytes(uint32_t type, uint64_t n)
{
    const struct dtype_info *info = dtype_info(type);
    uint64_t bytes;

    if (info->block_elems == 0 || n % info->block_elems != 0) return 0;
    if (__builtin_mul_overflow(n / info->block_elems, (uint64_t)info->block_bytes, &bytes)) return 0;
    return bytes;
}
