/* cuda_embed.cu - rows of the embedding table, decoded where they lie.
 *
 * Every value is made of the float operations of dequantize_row(), in its order, so its bits are the same.  A thread
 * decodes a value by itself: a step reads few rows.  Types that lack a line in TYPES are decoded on the host and come
 * here as fp32 (backend_caps.embed_types). */
#include "compute/cuda/cu_math.h"
#include "compute/cuda/cuda_internal.h"

extern "C" {
#include "compute/codebook.h"
}

#define EMBED_THREADS 256

static __device__ __forceinline__ uint32_t u16_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static __device__ __forceinline__ uint32_t u32_at(const uint8_t *p)
{
    return u16_at(p) | u16_at(p + 2) << 16;
}

static __device__ __forceinline__ uint64_t u64_at(const uint8_t *p)
{
    return (uint64_t)u32_at(p) | (uint64_t)u32_at(p + 4) << 32;
}

static __device__ __forceinline__ float half_at(const uint8_t *p)
{
    return cu_half_to_float((uint16_t)u16_at(p));
}

/* Value i of a block; formats as in compute/dequant.c and compute/codebook.c. */
typedef float decode_fn(const uint8_t *block, uint32_t i);

static __device__ float decode_f32(const uint8_t *b, uint32_t)
{
    return __uint_as_float(u32_at(b));
}

static __device__ float decode_f16(const uint8_t *b, uint32_t)
{
    return half_at(b);
}

static __device__ float decode_bf16(const uint8_t *b, uint32_t)
{
    return __uint_as_float(u16_at(b) << 16);
}

static __device__ float decode_f64(const uint8_t *b, uint32_t)
{
    const uint64_t bits = u64_at(b);
    double v;
    memcpy(&v, &bits, sizeof(v));
    return (float)v;
}

static __device__ float decode_i8(const uint8_t *b, uint32_t)
{
    return (float)(int8_t)b[0];
}

static __device__ float decode_i16(const uint8_t *b, uint32_t)
{
    return (float)(int16_t)u16_at(b);
}

static __device__ float decode_i32(const uint8_t *b, uint32_t)
{
    return (float)(int32_t)u32_at(b);
}

static __device__ float decode_i64(const uint8_t *b, uint32_t)
{
    return (float)(int64_t)u64_at(b);
}

/* --- blocks of 32 --- */
static __device__ __forceinline__ int nibble(const uint8_t *qs, uint32_t i)
{
    return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}

static __device__ __forceinline__ int fifth_bit(const uint8_t *qh, uint32_t i)
{
    return (qh[i / 8] >> i % 8 & 1) << 4;
}

static __device__ float decode_q4_0(const uint8_t *b, uint32_t i)
{
    return __fmul_rn(half_at(b), (float)(nibble(b + 2, i) - 8));
}

static __device__ float decode_q4_1(const uint8_t *b, uint32_t i)
{
    return __fadd_rn(__fmul_rn(half_at(b), (float)nibble(b + 4, i)), half_at(b + 2));
}

static __device__ float decode_q5_0(const uint8_t *b, uint32_t i)
{
    return __fmul_rn(half_at(b), (float)((nibble(b + 6, i) | fifth_bit(b + 2, i)) - 16));
}

static __device__ float decode_q5_1(const uint8_t *b, uint32_t i)
{
    const int q = nibble(b + 8, i) | fifth_bit(b + 4, i);
    return __fadd_rn(__fmul_rn(half_at(b), (float)q), half_at(b + 2));
}

static __device__ float decode_q8_0(const uint8_t *b, uint32_t i)
{
    return __fmul_rn((float)(int8_t)b[2 + i], half_at(b));
}

/* --- blocks of 256 --- */
static __device__ __forceinline__ int two_bits(const uint8_t *qs, uint32_t i)
{
    return qs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}

static __device__ __forceinline__ int four_bits(const uint8_t *qs, uint32_t i)
{
    return qs[i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 15;
}

/* d * scale * q - dmin * min, as Q2_K, Q4_K and Q5_K have it. */
static __device__ __forceinline__ float scaled(float d, int scale, int q, float dmin, int min)
{
    const float dl = __fmul_rn(d, (float)scale), ml = __fmul_rn(dmin, (float)min);
    return __fsub_rn(__fmul_rn(dl, (float)q), ml);
}

static __device__ float decode_q2_k(const uint8_t *b, uint32_t i)
{
    const int s = b[i / 16];
    return scaled(half_at(b + 80), s & 15, two_bits(b + 16, i), half_at(b + 82), s >> 4);
}

static __device__ float decode_q3_k(const uint8_t *b, uint32_t i)
{
    const uint8_t *s = b + 96;
    const uint32_t j = i / 16;
    const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4, high = s[8 + j % 4] >> j / 4 * 2 & 3;
    const int q = two_bits(b + 32, i) - (b[i % 32] >> i / 32 & 1 ? 0 : 4);
    return __fmul_rn(__fmul_rn(half_at(b + 108), (float)((low | high << 4) - 32)), (float)q);
}

static __device__ __forceinline__ int scale_k(const uint8_t *s, uint32_t j)
{
    return j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
}

static __device__ __forceinline__ int min_k(const uint8_t *s, uint32_t j)
{
    return j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
}

static __device__ float decode_q4_k(const uint8_t *b, uint32_t i)
{
    return scaled(half_at(b), scale_k(b + 4, i / 32), four_bits(b + 16, i), half_at(b + 2), min_k(b + 4, i / 32));
}

static __device__ float decode_q5_k(const uint8_t *b, uint32_t i)
{
    const uint32_t j = i / 32;
    const int q = four_bits(b + 48, i) | (b[16 + i % 32] >> j & 1) << 4;
    return scaled(half_at(b), scale_k(b + 4, j), q, half_at(b + 2), min_k(b + 4, j));
}

static __device__ float decode_q6_k(const uint8_t *b, uint32_t i)
{
    const int low = b[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 15;
    const float dl = __fmul_rn(half_at(b + 208), (float)(int8_t)b[192 + i / 16]);
    return __fmul_rn(dl, (float)((low | two_bits(b + 128, i) << 4) - 32));
}

/* --- codebooks --- */
__constant__ const int8_t IQ4_VALUES[16] = CODEBOOK_IQ4(0);
__constant__ const int8_t FP4_VALUES[16] = CODEBOOK_FP4(0);

static __device__ float decode_iq4_nl(const uint8_t *b, uint32_t i)
{
    return __fmul_rn(half_at(b), (float)IQ4_VALUES[nibble(b + 2, i)]);
}

static __device__ float decode_iq4_xs(const uint8_t *b, uint32_t i)
{
    const uint32_t j = i / 32;
    const int low = b[4 + j / 2] >> j % 2 * 4 & 15, high = (int)(u16_at(b + 2) >> 2 * j & 3);
    const float scale = __fmul_rn(half_at(b), (float)((low | high << 4) - 32));
    return __fmul_rn(scale, (float)IQ4_VALUES[nibble(b + 8 + 16 * j, i % 32)]);
}

static __device__ float decode_mxfp4(const uint8_t *b, uint32_t i)
{
    const uint32_t half_power = b[0] < 2 ? 0x00200000u << b[0] : (uint32_t)(b[0] - 1) << 23;
    return __fmul_rn(__uint_as_float(half_power), (float)FP4_VALUES[nibble(b + 1, i)]);
}

/* --- the kernels: one block a row --- */
struct embed_table {
    const uint8_t *rows;
    const int32_t *tokens; /* NULL: the rows are theirs */
    uint32_t n_cols, block_elems, block_bytes;
};

template <decode_fn decode> static __global__ void embed_kernel(float *out, struct embed_table t)
{
    const size_t row_bytes = (size_t)(t.n_cols / t.block_elems) * t.block_bytes;
    const size_t at = t.tokens ? (size_t)t.tokens[blockIdx.x] : blockIdx.x;
    const uint8_t *row = t.rows + at * row_bytes;
    float *y = out + (size_t)blockIdx.x * t.n_cols;
    for (uint32_t c = threadIdx.x; c < t.n_cols; c += blockDim.x)
        y[c] = decode(row + (size_t)(c / t.block_elems) * t.block_bytes, c % t.block_elems);
}

static const struct {
    enum dtype type;
    void (*kernel)(float *, struct embed_table);
} TYPES[] = {
    { DTYPE_F32, embed_kernel<decode_f32> },       { DTYPE_F16, embed_kernel<decode_f16> },
    { DTYPE_BF16, embed_kernel<decode_bf16> },     { DTYPE_F64, embed_kernel<decode_f64> },
    { DTYPE_I8, embed_kernel<decode_i8> },         { DTYPE_I16, embed_kernel<decode_i16> },
    { DTYPE_I32, embed_kernel<decode_i32> },       { DTYPE_I64, embed_kernel<decode_i64> },
    { DTYPE_Q4_0, embed_kernel<decode_q4_0> },     { DTYPE_Q4_1, embed_kernel<decode_q4_1> },
    { DTYPE_Q5_0, embed_kernel<decode_q5_0> },     { DTYPE_Q5_1, embed_kernel<decode_q5_1> },
    { DTYPE_Q8_0, embed_kernel<decode_q8_0> },     { DTYPE_Q2_K, embed_kernel<decode_q2_k> },
    { DTYPE_Q3_K, embed_kernel<decode_q3_k> },     { DTYPE_Q4_K, embed_kernel<decode_q4_k> },
    { DTYPE_Q5_K, embed_kernel<decode_q5_k> },     { DTYPE_Q6_K, embed_kernel<decode_q6_k> },
    { DTYPE_IQ4_NL, embed_kernel<decode_iq4_nl> }, { DTYPE_IQ4_XS, embed_kernel<decode_iq4_xs> },
    { DTYPE_MXFP4, embed_kernel<decode_mxfp4> },
};

uint64_t cuda_embed_types(void)
{
    uint64_t mask = 0;
    for (const auto &t : TYPES) mask |= (uint64_t)1 << t.type;
    return mask;
}

enum status cuda_embed(struct backend *b, struct stream *s, float *out, const struct embedding *table,
                       const struct step *step)
{
    const struct step_view v = step_view_of(step);
    const struct dtype_info *info = dtype_info(table->type);
    if (v.n_rows == 0) return OK;
    for (const auto &t : TYPES) {
        if (t.type != table->type || table->n_cols % info->block_elems != 0) continue;
        const struct embed_table at = { (const uint8_t *)table->rows, table->gathered ? NULL : v.tokens, table->n_cols,
                                        info->block_elems, info->block_bytes };
        return cuda_check(b, cu_launch(t.kernel, v.n_rows, EMBED_THREADS, 0, cu_stream(b, s), out, at), "embed");
    }
    return ERR_UNSUPPORTED;
}
