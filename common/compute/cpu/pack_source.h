/* pack_source.h - one block of 32 columns of one row of GGUF data, as packing wants it. */
#ifndef COMPUTE_CPU_PACK_SOURCE_H
#define COMPUTE_CPU_PACK_SOURCE_H
#include "compute/cpu/pack.h"

struct pack_source {
    uint8_t code[PACK_BLOCK];
    uint8_t scale[4]; /* in the order of the packed bytes */
    float d, m;       /* of the block, or of its super-block */
};

/* Block b of a row of a quantized type. */
void pack_source_read(struct pack_source *out, enum dtype type, const uint8_t *row, uint32_t b);
#endif
