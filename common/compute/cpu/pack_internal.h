/* pack_internal.h - what pack_panel() makes panels of quantized types with. */
#ifndef COMPUTE_CPU_PACK_INTERNAL_H
#define COMPUTE_CPU_PACK_INTERNAL_H
#include "compute/cpu/pack_vec.h"

/* Packs 16 rows of any quantized type. */
void pack_panel_whole(uint8_t *dst, enum dtype type, uint32_t n_cols, const uint8_t *src, size_t src_stride);

/* 256 columns of 16 rows. */
void pack_q2_k(const struct super_block *b);
void pack_q3_k(const struct super_block *b);
void pack_q4_k(const struct super_block *b);
void pack_q5_k(const struct super_block *b);
void pack_q6_k(const struct super_block *b);
void pack_tq1_0(const struct super_block *b);
void pack_tq2_0(const struct super_block *b);
void pack_iq1_s(const struct super_block *b);
void pack_iq1_m(const struct super_block *b);
void pack_iq2_xxs(const struct super_block *b);
void pack_iq2_xs(const struct super_block *b);
void pack_iq2_s(const struct super_block *b);
void pack_iq3_xxs(const struct super_block *b);
void pack_iq3_s(const struct super_block *b);
void pack_iq4_xs(const struct super_block *b);
#endif
