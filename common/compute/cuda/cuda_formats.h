/* cuda_formats.h - the quantized formats of cpu/pack.h, known when a kernel is compiled, and the scales of a run. */
#ifndef COMPUTE_CUDA_CUDA_FORMATS_H
#define COMPUTE_CUDA_CUDA_FORMATS_H
#include "compute/cuda/cu_math.h"
#include "compute/cuda/cuda_weights.h"

/* The bits of 1.5 * 2^23: an integer of less than 2^22 added to them is added to the float. */
#define INT_MAGIC 0x4b400000

/* A format of pack.h, known when the kernel is compiled. */
template <int BITS, int SCALES, bool BOOK> struct format {
    static constexpr int bits = BITS, scales = SCALES;
    static constexpr bool book = BOOK;
    static constexpr bool by16 = SCALES == PACK_K16 || SCALES == PACK_K16M; /* a scale per 16 columns */
    static constexpr bool has_min = SCALES == PACK_DM || SCALES == PACK_K || SCALES == PACK_K16M;
    static constexpr int sums = by16 ? 16 : 8; /* of a run, before the scales of weights */
    static constexpr int code_units = BITS == 8 ? 16 : BITS >= 4 ? 8 : 4;
    static constexpr int more_units = BITS == 6 ? 4 : BITS == 3 || BITS == 5 ? 2 : 0;
};

/* bits, scales, book: what types there are of. */
#define EACH_FORMAT(X)                                                                                                 \
    X(4, PACK_D, false)                                                                                                \
    X(4, PACK_DM, false)                                                                                               \
    X(5, PACK_D, false)                                                                                                \
    X(5, PACK_DM, false)                                                                                               \
    X(8, PACK_D, false)                                                                                                \
    X(2, PACK_D, false)                                                                                                \
    X(2, PACK_K16M, false)                                                                                             \
    X(3, PACK_K16, false)                                                                                              \
    X(4, PACK_K, false)                                                                                                \
    X(5, PACK_K, false)                                                                                                \
    X(6, PACK_K16, false)                                                                                              \
    X(3, PACK_K32, true)                                                                                               \
    X(3, PACK_K16, true)                                                                                               \
    X(4, PACK_K32, true)                                                                                               \
    X(4, PACK_D, true)                                                                                                 \
    X(4, PACK_BF, true)

static __device__ __forceinline__ uint32_t word_of(const uint4 &u, int i)
{
    return i == 0 ? u.x : i == 1 ? u.y : i == 2 ? u.z : u.w;
}

/* A row's scales of a run, as they were read. */
struct run_scales {
    uint4 scale, mins; /* mins: DM alone */
    uint32_t d;        /* D, dmin of super-blocks */
};

template <class F>
static __device__ __forceinline__ void read_scales(struct run_scales &r, const uint8_t *at, uint32_t row)
{
    r.scale = make_uint4(0, 0, 0, 0);
    if (F::scales == PACK_K32) {
        const uint2 sc = *(const uint2 *)(at + 8 * row);
        r.scale.x = sc.x;
        r.scale.y = sc.y;
        r.d = *(const uint16_t *)(at + 8 * PANEL_ROWS + 2 * row);
        return;
    }
    r.scale = *(const uint4 *)(at + UNIT * row);
    if (F::scales == PACK_DM) r.mins = *(const uint4 *)(at + UNIT_ROWS + UNIT * row);
    if (F::scales == PACK_K16M) r.d = *(const uint32_t *)(at + UNIT_ROWS + 4 * row);
    if (F::scales == PACK_K16) r.d = *(const uint16_t *)(at + UNIT_ROWS + 2 * row);
}

static __device__ __forceinline__ float half_of(const uint4 &u, int i)
{
    return cu_half_to_float((uint16_t)(word_of(u, i / 2) >> i % 2 * 16));
}

/* What six-bit scales and minima, and D and dmin, become; made once for a run. */
struct super_scales {
    float d, m;
    uint32_t sc[2], mn[2]; /* K: eight bytes each */
};

template <class F>
static __device__ __forceinline__ struct super_scales unpack_scales(const struct run_scales &r, float d_times)
{
    struct super_scales s = {};
    const uint32_t dm = F::scales == PACK_K ? r.scale.x : r.d;
    if (F::scales == PACK_K || F::scales == PACK_K16M) s.m = cu_half_to_float((uint16_t)(dm >> 16));
    if (F::scales >= PACK_K) s.d = cu_half_to_float((uint16_t)dm);
    if (F::scales == PACK_K32 || F::scales == PACK_K16) s.d = __fmul_rn(s.d, d_times);
    if (F::scales == PACK_K) {
        const uint32_t a = r.scale.y, b = r.scale.z, c = r.scale.w;
        s.sc[0] = a & 0x3f3f3f3fu;
        s.sc[1] = (c & 0x0f0f0f0fu) | (a >> 2 & 0x30303030u);
        s.mn[0] = b & 0x3f3f3f3fu;
        s.mn[1] = (c >> 4 & 0x0f0f0f0fu) | (b >> 2 & 0x30303030u);
    }
    return s;
}

/* d of block b, or of group b where scales are by 16. */
template <class F>
static __device__ __forceinline__ float d_of(const struct run_scales &r, const struct super_scales &s, int b)
{
    switch (F::scales) {
    case PACK_BF: return cu_bf16_to_float((uint16_t)(word_of(r.scale, b / 2 % 4) >> b % 2 * 16));
    case PACK_K: return __fmul_rn(s.d, byte_float(s.sc[b / 4 % 2], b % 4));
    case PACK_K16M: return __fmul_rn(s.d, byte_float(word_of(r.scale, b / 4) & 0x0f0f0f0fu, b % 4));
    case PACK_K32:
    case PACK_K16: return __fmul_rn(s.d, int8_float(word_of(r.scale, b / 4), b % 4));
    default: return half_of(r.scale, b % 8);
    }
}

template <class F>
static __device__ __forceinline__ float m_of(const struct run_scales &r, const struct super_scales &s, int b)
{
    if (F::scales == PACK_DM) return half_of(r.mins, b % 8);
    const float mn = F::scales == PACK_K ? byte_float(s.mn[b / 4 % 2], b % 4)
                                         : byte_float(word_of(r.scale, b / 4) >> 4 & 0x0f0f0f0fu, b % 4);
    return -__fmul_rn(s.m, mn);
}

/* --- a lane with a row --- */
/* A run of one row, as it was read. */
template <class F> struct row_run {
    uint4 code[F::code_units], more[F::more_units + 1];
    struct run_scales scales;
    uint32_t blocks;
};

template <class F>
static __device__ __forceinline__ void read_run(struct row_run<F> &r, const uint8_t *panel, uint32_t row, uint32_t run,
                                                uint32_t n_cols)
{
    const uint8_t *at = panel + (size_t)run * run_bytes(F::bits, F::scales, RUN_COLS);
    r.blocks = min_u32(RUN_BLOCKS, n_cols / PACK_BLOCK - run * RUN_BLOCKS);
    const uint32_t codes = run_code_units(F::bits, r.blocks), more = run_more_units(F::bits, r.blocks);
    const uint4 *unit = (const uint4 *)at + row;
#pragma unroll
    for (int u = 0; u < F::code_units; u++)
        r.code[u] = u < (int)codes ? __ldcs(unit + u * PANEL_ROWS) : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int u = 0; u < F::more_units; u++)
        r.more[u] = u < (int)more ? __ldcs(unit + (codes + (uint32_t)u) * PANEL_ROWS) : make_uint4(0, 0, 0, 0);
    read_scales<F>(r.scales, at + (codes + more) * UNIT_ROWS, row);
}

/* The 32 codes of block b, four to a word: w[0 .. 3] of the first 16 columns, w[4 .. 7] of the last. */
template <class F>
static __device__ __forceinline__ void block_codes(uint32_t w[8], const struct row_run<F> &r, int b,
                                                   const uint32_t *book)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (F::bits == 8) {
            w[j] = word_of(r.code[(2 * b) % F::code_units], j);
            w[4 + j] = word_of(r.code[(2 * b + 1) % F::code_units], j);
        } else if (F::bits >= 4) {
            const uint32_t word = word_of(r.code[b % F::code_units], j);
            if (F::book) {
                book_nibbles(book, word, &w[j], &w[4 + j]);
            } else {
                w[j] = word & 0x0f0f0f0fu;
                w[4 + j] = word >> 4 & 0x0f0f0f0fu;
            }
        } else {
            w[j] = pair_codes(word_of(r.code[b / 2 % F::code_units], b % 2 * 2), j);
            w[4 + j] = pair_codes(word_of(r.code[b / 2 % F::code_units], b % 2 * 2 + 1), j);
        }
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const uint32_t more =
            word_of(r.more[F::bits == 6 ? b / 2 : b / 4 % 2], F::bits == 6 ? b % 2 * 2 + i / 4 : b % 4);
        if (F::bits == 5) w[i] |= bit_codes(more, i) << 4;
        if (F::bits == 6) w[i] |= pair_codes(more, i % 4) << 4;
        if (F::bits == 3) w[i] |= bit_codes(more, i) << 2;
        if (F::bits == 3 && F::book) w[i] = book_bytes(book, w[i]);
    }
}

/* The exact integer that was added to INT_MAGIC. */
static __device__ __forceinline__ float int_float(int32_t bits)
{
    return __fsub_rn(__int_as_float(bits), __int_as_float(INT_MAGIC));
}
#endif
