/* codebook.h - the tensor types whose weights are d * scale * values[code], with up to 16 values per type.
 *
 * All of GGUF's IQ types, its ternary types and its 4-bit floats are of this kind; dequant.c and the backends read
 * them through here.  Products are exact in fp32 and so do not depend on their order. */
#ifndef COMPUTE_CODEBOOK_H
#define COMPUTE_CODEBOOK_H
#include "compute/dtype.h"

#define CODEBOOK_BLOCK 32 /* columns that are read at a time */

struct codebook_block {
    uint8_t code[CODEBOOK_BLOCK]; /* into the values */
    float d;
    int8_t scale[2]; /* of the first and the last 16 columns */
};

/* The values of `type` (16; those that no code names are 0), or NULL if it is not of this kind. */
const int8_t *codebook_values(uint32_t type);
/* Reads columns [32 b, 32 b + 32) of a row. */
void codebook_read(struct codebook_block *out, uint32_t type, const uint8_t *row, uint64_t b);

extern const uint16_t grid_iq2_xxs[256], grid_iq2_xs[512], grid_iq2_s[1024], grid_iq3_xxs[256], grid_iq3_s[512],
    grid_iq1[2048];
#endif
