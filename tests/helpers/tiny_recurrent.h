/* tiny_recurrent.h - writes a GGUF of a tiny recurrent model with random weights: a DeltaNet hybrid, or Mamba-2. */
#ifndef HELPERS_TINY_RECURRENT_H
#define HELPERS_TINY_RECURRENT_H
#include <stdint.h>

struct tiny_recurrent {
    const char *arch;           /* qwen3next, qwen35 or mamba2 */
    uint32_t dim;               /* of a head's values; of a DeltaNet head's keys, too */
    uint32_t n_groups;          /* key heads, or groups of B and C */
    uint32_t n_heads;           /* of v, or of x */
    uint32_t state;             /* of Mamba-2: values of B */
    uint32_t q_heads, kv_heads; /* of a hybrid's attention, in every second layer */
    uint32_t type;              /* of matrices */
};

/* 4 layers of width 64, 160 tokens, context 1024: a temporary file, which tiny_remove() deletes. */
char *tiny_recurrent_write(const struct tiny_recurrent *o);
#endif
