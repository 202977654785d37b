/* codebook.h - the tensor types whose weights are d * scale * values[code], with up to 16 values per type.
 *
 * All of GGUF's IQ types, its ternary types and its 4-bit floats are of this kind; dequant.c and the backends read
 * them through here.  Products are exact in fp32 and so do not depend on their order. */
#ifndef COMPUTE_CODEBOOK_H
#define COMPUTE_CODEBOOK_H
#include "compute/dtype.h"

#define CODEBOOK_BLOCK 32 /* columns that are read at a time */

struct codebook_block {
    float d;
    int8_t scale[2];              /* of the first and the last 16 columns */
    uint8_t code[CODEBOOK_BLOCK]; /* into the values */
};

/* The values of the types, each plus z. */
/* IQ1: eight times the grid's -1, 0, 1 plus or minus a group's 1/8; d is an eighth of the block's. */
#define CODEBOOK_IQ1(z)                                                                                                \
    {                                                                                                                  \
        z - 7, z + 1, z + 9, z, z - 9, z - 1, z + 7, z                                                                 \
    }
#define CODEBOOK_IQ2(z)                                                                                                \
    {                                                                                                                  \
        z + 8, z + 25, z + 43, z, z - 8, z - 25, z - 43, z                                                             \
    }
#define CODEBOOK_IQ3_XXS(z)                                                                                            \
    {                                                                                                                  \
        z + 4, z + 12, z + 20, z + 28, z + 36, z + 44, z + 52, z + 62, z - 4, z - 12, z - 20, z - 28, z - 36, z - 44,  \
            z - 52, z - 62                                                                                             \
    }
#define CODEBOOK_IQ3_S(z)                                                                                              \
    {                                                                                                                  \
        z + 1, z + 3, z + 5, z + 7, z + 9, z + 11, z + 13, z + 15, z - 1, z - 3, z - 5, z - 7, z - 9, z - 11, z - 13,  \
            z - 15                                                                                                     \
    }
#define CODEBOOK_IQ4(z)                                                                                                \
    {                                                                                                                  \
        z - 127, z - 104, z - 83, z - 65, z - 49, z - 35, z - 22, z - 10, z + 1, z + 13, z + 25, z + 38, z + 53,       \
            z + 69, z + 89, z + 113                                                                                    \
    }
/* Twice the values of a 4-bit float with 2 bits of exponent and 1 of mantissa. */
#define CODEBOOK_FP4(z)                                                                                                \
    {                                                                                                                  \
        z, z + 1, z + 2, z + 3, z + 4, z + 6, z + 8, z + 12, z, z - 1, z - 2, z - 3, z - 4, z - 6, z - 8, z - 12       \
    }

/* The values of `type` (16; those that no code names are 0), or NULL if it is not of this kind. */
const int8_t *codebook_values(uint32_t type);
/* Reads columns [32 b, 32 b + 32) of a row. */
void codebook_read(struct codebook_block *out, uint32_t type, const uint8_t *row, uint64_t b);

extern const uint16_t grid_iq2_xxs[256], grid_iq2_xs[512], grid_iq2_s[1024], grid_iq3_xxs[256], grid_iq3_s[512],
    grid_iq1[2048];
#endif
