/* pack_internal.h - shortcuts of pack_panel() for whole panels of common types. */
#ifndef COMPUTE_CPU_PACK_INTERNAL_H
#define COMPUTE_CPU_PACK_INTERNAL_H
#include "compute/dtype.h"

#include <stdbool.h>
#include <stddef.h>

/* Packs 16 rows of a K-quant that it knows; false leaves dst as it is. */
bool pack_panel_k(uint8_t *dst, enum dtype type, uint32_t n_cols, const uint8_t *src, size_t src_stride);
#endif
