/* pack_whole.c - whole panels: which type is packed by what, and the types with blocks of 32 columns. */
#include "compute/cpu/pack_internal.h"

#include <assert.h>

/* Blocks whose bytes are a lane's bytes already, so that only dwords move. */
struct dword_type {
    uint8_t head, fifth, quads; /* bytes of scales, dwords of fifth bits, dwords of codes */
    uint32_t flip;
};

static inline void put_fifth_bits(uint8_t *plane, const uint8_t *src, size_t stride)
{
    union {
        uint32_t u32[PANEL_ROWS];
        u32x4 v[PANEL_ROWS / 4];
    } x;
    for (uint32_t r = 0; r < PANEL_ROWS; r++) x.u32[r] = load_dword(src + r * stride);
    for (int i = 0; i < 4; i++) x.v[i] = bits_of_columns(x.v[i]);
    memcpy(plane, &x, sizeof(x));
}

/* Four dwords of each. */
static inline void put_four_rows(uint8_t *dst, const uint8_t *src, size_t stride, uint32_t flip)
{
    u32x4 x[4];
    UNROLL for (uint32_t r = 0; r < 4; r++) x[r] = load(src + r * stride) ^ flip;
    put_lines(dst, x);
}

/* Of constants, so that each type has a loop of its own. */
static inline __attribute__((always_inline)) void pack_dwords(uint8_t *dst, uint32_t n, const uint8_t *src,
                                                              size_t stride, const struct dword_type t)
{
    const size_t planes = 64u * (t.quads + t.fifth), to = planes + 32u * (t.head == 4 ? 2 : 1);
    const size_t codes = t.head + 4u * t.fifth, from = codes + 4u * t.quads;
    for (uint32_t b = 0; b < n; b++, dst += to, src += from) {
        if (t.fifth) put_fifth_bits(dst + 64u * t.quads, src + t.head, stride);
        for (uint32_t r0 = 0; r0 < PANEL_ROWS; r0 += 4) {
            UNROLL for (uint32_t j = 0; j < t.quads; j += 4)
                put_four_rows(dst + 64 * j + 4 * r0, src + r0 * stride + codes + 4 * j, stride, t.flip);
        }
        for (uint32_t r = 0; r < PANEL_ROWS; r++) {
            const uint8_t *s = src + r * stride;
            if (t.head == 1) { /* an exponent: half of 2^(e - 127) as bf16 */
                const uint16_t d = (uint16_t)(s[0] < 2 ? 0x20u << s[0] : (s[0] - 1u) << 7);
                memcpy(dst + planes + 2 * r, &d, 2);
                continue;
            }
            memcpy(dst + planes + 2 * r, s, 2);
            if (t.head == 4) memcpy(dst + planes + 32 + 2 * r, s + 2, 2);
        }
    }
}

static void pack_small_blocks(uint8_t *dst, enum dtype type, uint32_t n, const uint8_t *src, size_t stride)
{
    switch (type) {
    case DTYPE_Q4_0:
    case DTYPE_IQ4_NL: pack_dwords(dst, n, src, stride, (struct dword_type){ 2, 0, 4, 0 }); return;
    case DTYPE_Q4_1: pack_dwords(dst, n, src, stride, (struct dword_type){ 4, 0, 4, 0 }); return;
    case DTYPE_Q5_0: pack_dwords(dst, n, src, stride, (struct dword_type){ 2, 1, 4, 0 }); return;
    case DTYPE_Q5_1: pack_dwords(dst, n, src, stride, (struct dword_type){ 4, 1, 4, 0 }); return;
    case DTYPE_Q8_0: pack_dwords(dst, n, src, stride, (struct dword_type){ 2, 0, 8, 0x80808080u }); return;
    case DTYPE_MXFP4: pack_dwords(dst, n, src, stride, (struct dword_type){ 1, 0, 4, 0 }); return;
    default: assert(!"a quantized type");
    }
}

typedef void (*pack_super_fn)(const struct super_block *b);

static pack_super_fn super_packer(enum dtype type)
{
    switch (type) {
    case DTYPE_Q2_K: return pack_q2_k;
    case DTYPE_Q3_K: return pack_q3_k;
    case DTYPE_Q4_K: return pack_q4_k;
    case DTYPE_Q5_K: return pack_q5_k;
    case DTYPE_Q6_K: return pack_q6_k;
    case DTYPE_TQ1_0: return pack_tq1_0;
    case DTYPE_TQ2_0: return pack_tq2_0;
    case DTYPE_IQ1_S: return pack_iq1_s;
    case DTYPE_IQ1_M: return pack_iq1_m;
    case DTYPE_IQ2_XXS: return pack_iq2_xxs;
    case DTYPE_IQ2_XS: return pack_iq2_xs;
    case DTYPE_IQ2_S: return pack_iq2_s;
    case DTYPE_IQ3_XXS: return pack_iq3_xxs;
    case DTYPE_IQ3_S: return pack_iq3_s;
    case DTYPE_IQ4_XS: return pack_iq4_xs;
    default: return NULL;
    }
}

void pack_panel_whole(uint8_t *dst, enum dtype type, uint32_t n_cols, const uint8_t *src, size_t src_stride)
{
    const pack_super_fn pack = super_packer(type);
    if (!pack) {
        pack_small_blocks(dst, type, n_cols / PACK_BLOCK, src, src_stride);
        return;
    }
    const struct pack_format *f = pack_format_of(type);
    struct super_block b = { src, src_stride, dst, f->scales >= PACK_K ? PACK_SUPER_BYTES : 0, pack_block_bytes(f) };
    for (uint32_t n = n_cols / PACK_SUPER; n > 0; n--) {
        pack(&b);
        b.src += dtype_info((uint32_t)type)->block_bytes;
        b.dst += b.head + 8 * b.block_bytes;
    }
}
