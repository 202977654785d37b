/* cuda_weights.h - where a packed weight lies on the GPU, and how a warp reads it.
 *
 * A panel is 16 rows (rows past the end are zeros).  It is cut into runs of 256 columns, the last one may be shorter,
 * and all of a run lies together.  Quantized types have, one after another, for each run of `n` blocks of 32 columns:
 *
 *     codes     units of 16 bytes a row, [unit][16 rows][16 bytes]: 8 bits two units a block, signed, the first and the
 *               last 16 columns; 4 to 6 bits one, of byte i the low nibble is column i, the high one column 16 + i;
 *               2 and 3 bits half of one, in two dwords: bits 8 i + 2 j of dword p are column 16 p + 4 j + i
 *     more      of 3 and 5 bits the uppermost, a dword a block: bit 8 i + j is column 4 j + i;
 *               of 6 bits the upper two, as pairs above
 *     scales    D, BF  16-bit d[8]                            DM   fp16 d[8]; fp16 m[8]
 *               K      the 16 bytes that GGUF has              K16M the same, and fp16 D, dmin
 *               K32    int8 sc[8]; fp16 D                      K16  int8 sc[16]; fp16 D
 *               (";": the 16 rows of what comes before are complete)
 *
 * So a lane that has a row reads 16 bytes at a time, beside those of its neighbours, and no weight takes more bits than
 * in the file but for the types with a grid.  The formats are those of the CPU's table (cpu/pack.h).
 * Float types: columns in order, [unit][16 rows][16 bytes]. */
#ifndef COMPUTE_CUDA_CUDA_WEIGHTS_H
#define COMPUTE_CUDA_CUDA_WEIGHTS_H
extern "C" {
#include "compute/cpu/pack.h"
}
#include "compute/cuda/cu.h"

#define RUN_COLS   256u
#define RUN_BLOCKS 8u
#define UNIT       16u                 /* bytes of one row */
#define UNIT_ROWS  (UNIT * PANEL_ROWS) /* bytes of a unit of all rows of a panel */

/* --- units of a run of `blocks` blocks --- */
static inline __host__ __device__ uint32_t run_code_units(uint32_t bits, uint32_t blocks)
{
    return bits == 8 ? 2 * blocks : bits >= 4 ? blocks : (blocks + 1) / 2;
}

static inline __host__ __device__ uint32_t run_more_units(uint32_t bits, uint32_t blocks)
{
    return bits == 6 ? (blocks + 1) / 2 : bits == 3 || bits == 5 ? (blocks + 3) / 4 : 0;
}

/* Bytes of a row's scales. */
static inline __host__ __device__ uint32_t run_scale_bytes(uint32_t scales)
{
    switch (scales) {
    case PACK_DM: return 32;
    case PACK_K16M: return 20;
    case PACK_K32: return 10;
    case PACK_K16: return 18;
    default: return 16;
    }
}

/* Where the scales of a run begin. */
static inline __host__ __device__ uint32_t run_scales_at(uint32_t bits, uint32_t blocks)
{
    return (run_code_units(bits, blocks) + run_more_units(bits, blocks)) * UNIT_ROWS;
}

static inline __host__ __device__ uint32_t run_bytes(uint32_t bits, uint32_t scales, uint32_t cols)
{
    if (scales == PACK_FLOAT) return cols * PANEL_ROWS * (bits / 8);
    return run_scales_at(bits, cols / PACK_BLOCK) + run_scale_bytes(scales) * PANEL_ROWS;
}

static inline __host__ __device__ size_t panel_bytes(uint32_t bits, uint32_t scales, uint32_t cols)
{
    const uint32_t rest = cols % RUN_COLS;
    return (size_t)(cols / RUN_COLS) * run_bytes(bits, scales, RUN_COLS) + (rest ? run_bytes(bits, scales, rest) : 0);
}

static inline __host__ __device__ uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* --- a format, as kernels are given it --- */
struct weight_format {
    int32_t offset;   /* z: of codes without a book */
    float d_times;    /* what D of the super-blocks is multiplied by */
    uint32_t book[4]; /* int8[16]: what codes stand for, where there is a book; their z is 0 then */
};

/* --- reading: what a word of a unit holds ---
 * Four codes as four bytes; j is which four of a group of 16 columns. */
static __device__ __forceinline__ uint32_t pair_codes(uint32_t word, uint32_t j)
{
    return word >> (2 * j) & 0x03030303u;
}

static __device__ __forceinline__ uint32_t bit_codes(uint32_t word, uint32_t j)
{
    return word >> j & 0x01010101u;
}

/* Eight nibbles looked up: low ones to first, high ones to last. */
static __device__ __forceinline__ void book_nibbles(const uint32_t book[4], uint32_t word, uint32_t *first,
                                                    uint32_t *last)
{
    uint32_t half[2];
    for (int i = 0; i < 2; i++) {
        const uint32_t codes = word >> (16 * i), upper = 0x3210u | (codes >> 1 & 0x4444u);
        const uint32_t low = __byte_perm(book[0], book[1], codes & 0x7777u);
        const uint32_t high = __byte_perm(book[2], book[3], codes & 0x7777u);
        half[i] = __byte_perm(low, high, upper);
    }
    *first = __byte_perm(half[0], half[1], 0x6420u);
    *last = __byte_perm(half[0], half[1], 0x7531u);
}

/* Four codes below 8, a byte each. */
static __device__ __forceinline__ uint32_t book_bytes(const uint32_t book[4], uint32_t codes)
{
    const uint32_t twos = codes | codes >> 4;
    return __byte_perm(book[0], book[1], (twos & 0xffu) | (twos >> 8 & 0xff00u));
}

/* Byte i of a word as a float, unsigned and signed. */
static __device__ __forceinline__ float byte_float(uint32_t word, uint32_t i)
{
    return __fsub_rn(__uint_as_float(__byte_perm(word, 0x4b000000u, 0x7540u | i)), 8388608.0f);
}

static __device__ __forceinline__ float int8_float(uint32_t word, uint32_t i)
{
    return __fsub_rn(__uint_as_float(__byte_perm(word ^ 0x80808080u, 0x4b000000u, 0x7540u | i)), 8388736.0f);
}
#endif
