/* dequant.c - the definition of what a quantized block means: scalar, one function per type.
 *
 * Every value is made of the same float operations in the same order as the `gguf` package's
 * dequantize, so results agree bit for bit with it, whatever the scales (denormal, inf, NaN). */
#include "compute/codebook.h"

#include <assert.h>
#include <string.h>

static float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* Half precision at any address. */
static float half_at(const uint8_t *p)
{
    uint32_t h = (uint32_t)p[0] | (uint32_t)p[1] << 8;
    uint32_t sign = (h & 0x8000) << 16, exp = h >> 10 & 0x1f, frac = h & 0x3ff;

    if (exp == 0x1f) return float_of_bits(sign | 0x7f800000 | frac << 13);
    if (exp != 0) return float_of_bits(sign | (exp + 112) << 23 | frac << 13);
    float tiny = (float)frac * 0x1p-24f; /* exact: a denormal half is a multiple of 2^-24 */
    return sign ? -tiny : tiny;
}

static void row_f32(const uint8_t *src, float *dst, uint64_t n)
{
    memcpy(dst, src, n * 4);
}

static void row_f16(const uint8_t *src, float *dst, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) dst[i] = half_at(src + 2 * i);
}

static void row_bf16(const uint8_t *src, float *dst, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        uint32_t h = (uint32_t)src[2 * i] | (uint32_t)src[2 * i + 1] << 8;
        dst[i] = float_of_bits(h << 16);
    }
}

static void row_f64(const uint8_t *src, float *dst, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        double v;
        memcpy(&v, src + 8 * i, 8);
        dst[i] = (float)v;
    }
}

static void row_i8(const uint8_t *src, float *dst, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) dst[i] = (float)(int8_t)src[i];
}

static void row_i16(const uint8_t *src, float *dst, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        int16_t v;
        memcpy(&v, src + 2 * i, 2);
        dst[i] = (float)v;
    }
}

static void row_i32(const uint8_t *src, float *dst, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        int32_t v;
        memcpy(&v, src + 4 * i, 4);
        dst[i] = (float)v;
    }
}

static void row_i64(const uint8_t *src, float *dst, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        int64_t v;
        memcpy(&v, src + 8 * i, 8);
        dst[i] = (float)v;
    }
}

/* Blocks of 32: the low nibbles are elements 0..15, the high ones 16..31. */
static int nibble(const uint8_t *qs, int i)
{
    return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}

static int fifth_bit(const uint8_t *qh, int i)
{
    return (qh[i / 8] >> i % 8 & 1) << 4;
}

static void block_q4_0(const uint8_t *b, float *y) /* f16 d, u8 qs[16] */
{
    float d = half_at(b);
    for (int i = 0; i < 32; i++) y[i] = d * (float)(nibble(b + 2, i) - 8);
}

static void block_q4_1(const uint8_t *b, float *y) /* f16 d, f16 m, u8 qs[16] */
{
    float d = half_at(b), m = half_at(b + 2);
    for (int i = 0; i < 32; i++) y[i] = d * (float)nibble(b + 4, i) + m;
}

static void block_q5_0(const uint8_t *b, float *y) /* f16 d, u8 qh[4], u8 qs[16] */
{
    float d = half_at(b);
    for (int i = 0; i < 32; i++) y[i] = d * (float)((nibble(b + 6, i) | fifth_bit(b + 2, i)) - 16);
}

static void block_q5_1(const uint8_t *b, float *y) /* f16 d, f16 m, u8 qh[4], u8 qs[16] */
{
    float d = half_at(b), m = half_at(b + 2);
    for (int i = 0; i < 32; i++) y[i] = d * (float)(nibble(b + 8, i) | fifth_bit(b + 4, i)) + m;
}

static void block_q8_0(const uint8_t *b, float *y) /* f16 d, i8 qs[32] */
{
    float d = half_at(b);
    for (int i = 0; i < 32; i++) y[i] = (float)(int8_t)b[2 + i] * d;
}

/* Two bits of element i of a block of 256: each 32 bytes hold 128 elements, 32 per bit pair. */
static int two_bits(const uint8_t *qs, int i)
{
    return qs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}

/* Four bits of element i of a block of 256: each 32 bytes hold 64 elements, low nibbles first. */
static int four_bits(const uint8_t *qs, int i)
{
    return qs[i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 15;
}

static void block_q2_k(const uint8_t *b, float *y) /* u8 scales[16], u8 qs[64], f16 d, f16 dmin */
{
    float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int i = 0; i < 256; i++) {
        float dl = d * (float)(b[i / 16] & 15);
        float ml = dmin * (float)(b[i / 16] >> 4);
        y[i] = dl * (float)two_bits(b + 16, i) - ml;
    }
}

/* Sixteen 6-bit scales in 12 bytes: nibbles in the first 8, their upper two bits in the last 4. */
static int scale_q3_k(const uint8_t *s, int j)
{
    int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
    int high = s[8 + j % 4] >> j / 4 * 2 & 3;
    return (low | high << 4) - 32;
}

static void block_q3_k(const uint8_t *b, float *y) /* u8 hmask[32], u8 qs[64], scales[12], f16 d */
{
    float d = half_at(b + 108);
    for (int i = 0; i < 256; i++) {
        float dl = d * (float)scale_q3_k(b + 96, i / 16);
        int low = two_bits(b + 32, i);
        int high = b[i % 32] >> i / 32 & 1; /* set: nothing is taken off */
        y[i] = dl * (float)(low - (high ? 0 : 4));
    }
}

/* Eight 6-bit scales and eight 6-bit minima in 12 bytes, as Q4_K and Q5_K have them. */
static void scale_min_k(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *min = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}

static void block_q4_k(const uint8_t *b, float *y) /* f16 d, f16 dmin, u8 scales[12], u8 qs[128] */
{
    float d = half_at(b), dmin = half_at(b + 2);
    for (int j = 0; j < 8; j++) {
        int scale, min;
        scale_min_k(b + 4, j, &scale, &min);
        float dl = d * (float)scale, ml = dmin * (float)min;
        for (int i = 32 * j; i < 32 * j + 32; i++) y[i] = dl * (float)four_bits(b + 16, i) - ml;
    }
}

static void block_q5_k(const uint8_t *b, float *y) /* as Q4_K, with u8 qh[32] before qs */
{
    float d = half_at(b), dmin = half_at(b + 2);
    for (int j = 0; j < 8; j++) {
        int scale, min;
        scale_min_k(b + 4, j, &scale, &min);
        float dl = d * (float)scale, ml = dmin * (float)min;
        for (int i = 32 * j; i < 32 * j + 32; i++) {
            int q = four_bits(b + 48, i) | (b[16 + i % 32] >> j & 1) << 4;
            y[i] = dl * (float)q - ml;
        }
    }
}

static void block_q6_k(const uint8_t *b, float *y) /* u8 ql[128], u8 qh[64], i8 scales[16], f16 d */
{
    float d = half_at(b + 208);
    for (int i = 0; i < 256; i++) {
        float dl = d * (float)(int8_t)b[192 + i / 16];
        int low = b[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 15;
        y[i] = dl * (float)((low | two_bits(b + 128, i) << 4) - 32);
    }
}

typedef void block_fn(const uint8_t *block, float *y);

static block_fn *const BLOCKS[DTYPE_LIMIT] = {
    [DTYPE_Q4_0] = block_q4_0, [DTYPE_Q4_1] = block_q4_1, [DTYPE_Q5_0] = block_q5_0, [DTYPE_Q5_1] = block_q5_1,
    [DTYPE_Q8_0] = block_q8_0, [DTYPE_Q2_K] = block_q2_k, [DTYPE_Q3_K] = block_q3_k, [DTYPE_Q4_K] = block_q4_k,
    [DTYPE_Q5_K] = block_q5_k, [DTYPE_Q6_K] = block_q6_k,
};

static void row_codebook(uint32_t type, const uint8_t *src, float *dst, uint64_t n)
{
    const int8_t *values = codebook_values(type);
    struct codebook_block block;
    for (uint64_t i = 0; i < n; i++) {
        if (i % CODEBOOK_BLOCK == 0) codebook_read(&block, type, src, i / CODEBOOK_BLOCK);
        float scale = block.d * (float)block.scale[i % CODEBOOK_BLOCK / 16];
        dst[i] = scale * (float)values[block.code[i % CODEBOOK_BLOCK]];
    }
}

typedef void row_fn(const uint8_t *src, float *dst, uint64_t n);

static row_fn *const ROWS[DTYPE_LIMIT] = {
    [DTYPE_F32] = row_f32, [DTYPE_F16] = row_f16, [DTYPE_BF16] = row_bf16, [DTYPE_F64] = row_f64,
    [DTYPE_I8] = row_i8,   [DTYPE_I16] = row_i16, [DTYPE_I32] = row_i32,   [DTYPE_I64] = row_i64,
};

void dequantize_row(uint32_t type, const void *src, float *dst, uint64_t n)
{
    const struct dtype_info *info = dtype_info(type);

    assert(info->supported && n % info->block_elems == 0);
    if (ROWS[type])
        ROWS[type](src, dst, n);
    else if (codebook_values(type))
        row_codebook(type, src, dst, n);
    else
        for (uint64_t b = 0; b < n / info->block_elems; b++)
            BLOCKS[type]((const uint8_t *)src + b * info->block_bytes, dst + b * info->block_elems);
}
