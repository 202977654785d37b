/* cuda_weights.cu - weights from GGUF's rows into the GPU's layout (cuda_weights.h).
 *
 * Rows are copied into a staging buffer of the stream, some at a time, and packed from there by the GPU: a thread takes
 * a block of 32 columns of a row, or 16 floats. */
#include "compute/cuda/cuda_blas.h"
#include "compute/cuda/cuda_gguf.h"
#include "compute/cuda/cuda_internal.h"
#include "compute/cuda/cuda_product.h"

extern "C" {
#include "compute/codebook.h"
}

#define STAGING_BYTES ((size_t)16 << 20)
#define PACK_BLOCKS   16u /* of 32 columns, or of 16 floats, that a thread block takes of a panel */

/* --- grids --- */
enum status cuda_weights_init(struct cuda_backend *b)
{
    static const struct {
        const uint16_t *from;
        uint32_t place, n;
    } grids[] = { { grid_iq2_xxs, GRID_IQ2_XXS, 256 }, { grid_iq2_xs, GRID_IQ2_XS, 512 },
                  { grid_iq2_s, GRID_IQ2_S, 1024 },    { grid_iq3_xxs, GRID_IQ3_XXS, 256 },
                  { grid_iq3_s, GRID_IQ3_S, 512 },     { grid_iq1, GRID_IQ1, 2048 } };
    void *p;
    enum status st = cuda_alloc(&b->base, GRID_ENTRIES * sizeof(uint16_t), &p);
    if (st != OK) return st;
    b->weights.grids = (uint16_t *)p;
    for (const auto &g : grids)
        if (st == OK) st = cuda_upload(&b->base, NULL, b->weights.grids + g.place, g.from, g.n * sizeof(uint16_t));
    if (st == OK && b->numerics == NUMERICS_FAST) b->blas = cuda_blas_open(&b->base);
    return st;
}

void cuda_weights_fini(struct cuda_backend *b)
{
    cuda_blas_close(&b->base, b->blas);
    cuda_release(&b->base, b->weights.grids, GRID_ENTRIES * sizeof(uint16_t));
}

/* --- sizes --- */
enum status cuda_weight_bytes(struct backend *b, enum dtype type, uint32_t n_rows, uint32_t n_cols, size_t *out)
{
    const struct pack_format *f = pack_format_of(type);
    if (!f || n_rows == 0 || n_cols == 0 || n_cols % COL_QUANTUM != 0) return ERR_UNSUPPORTED;
    if (dtype_row_bytes((uint32_t)type, n_cols) == 0 || n_cols > cuda_of(b)->limits.max_cols) return ERR_UNSUPPORTED;
    if (n_cols > PRODUCT_MAX_COLS) return ERR_UNSUPPORTED;
    *out = panel_bytes(f->bits, f->scales, n_cols) * cu_div_up(n_rows, PANEL_ROWS);
    return OK;
}

/* --- packing --- */
struct pack_job {
    uint8_t *dst;
    const uint8_t *src; /* rows, stride bytes apart */
    size_t stride, panel_bytes;
    const uint16_t *grids;
    uint32_t type, bits, scales, n_rows, n_cols, file_block_cols, file_block_bytes;
};

/* Where a block of a row goes. */
struct block_place {
    uint8_t *run;
    uint32_t row, j, blocks; /* row of the panel, block of the run's `blocks` */
};

static __device__ __forceinline__ uint8_t *unit_at(const struct block_place *p, uint32_t unit)
{
    return p->run + unit * UNIT_ROWS + p->row * UNIT;
}

static __device__ uint32_t word_of_nibbles(const uint8_t *code, uint32_t j)
{
    uint32_t w = 0;
    for (uint32_t i = 0; i < 4; i++) w |= ((code[4 * j + i] & 15u) | (code[16 + 4 * j + i] & 15u) << 4) << 8 * i;
    return w;
}

/* Two bits of 16 codes, from bit `shift` on. */
static __device__ uint32_t word_of_pairs(const uint8_t *code, uint32_t shift)
{
    uint32_t w = 0;
    for (uint32_t c = 0; c < 16; c++) w |= (code[c] >> shift & 3u) << (8 * (c % 4) + 2 * (c / 4));
    return w;
}

static __device__ uint32_t word_of_bits(const uint8_t *code, uint32_t shift)
{
    uint32_t w = 0;
    for (uint32_t c = 0; c < 32; c++) w |= (code[c] >> shift & 1u) << (8 * (c % 4) + c / 4);
    return w;
}

static __device__ void put_codes(const struct block_place *p, uint32_t bits, const uint8_t *code)
{
    const uint32_t more = run_code_units(bits, p->blocks), j = p->j;
    if (bits == 8) {
        for (uint32_t g = 0; g < 2; g++)
            for (uint32_t i = 0; i < 16; i++) unit_at(p, 2 * j + g)[i] = code[16 * g + i];
        return;
    }
    if (bits >= 4)
        for (uint32_t i = 0; i < 4; i++) ((uint32_t *)unit_at(p, j))[i] = word_of_nibbles(code, i);
    uint32_t *pairs = (uint32_t *)unit_at(p, (bits == 6 ? more : 0) + j / 2) + j % 2 * 2;
    for (uint32_t g = 0; g < 2 && (bits <= 3 || bits == 6); g++)
        pairs[g] = word_of_pairs(code + 16 * g, bits == 6 ? 4 : 0);
    if (bits == 3 || bits == 5) ((uint32_t *)unit_at(p, more + j / 4))[j % 4] = word_of_bits(code, bits == 3 ? 2 : 4);
}

/* Scales of a block; the first of a super-block has what it shares, too.  s: the file's block, NULL for zeros. */
static __device__ void put_scales(const struct block_place *p, const struct pack_job *job, const uint8_t *s,
                                  const uint8_t sc[2])
{
    uint8_t *at = p->run + run_scales_at(job->bits, p->blocks);
    const uint32_t row = p->row, j = p->j;
    const uint16_t d = s ? gguf_d(job->type, s) : (uint16_t)0, m = s ? gguf_m(job->type, s) : (uint16_t)0;
    switch (job->scales) {
    case PACK_DM: ((uint16_t *)(at + UNIT_ROWS + row * UNIT))[j] = m; /* fallthrough */
    case PACK_D:
    case PACK_BF: ((uint16_t *)(at + row * UNIT))[j] = d; break;
    case PACK_K:
    case PACK_K16M:
        for (uint32_t i = 0; i < 16 && j == 0; i++) at[row * UNIT + i] = s ? s[i] : (uint8_t)0;
        if (job->scales == PACK_K || j > 0) break;
        ((uint16_t *)(at + UNIT_ROWS))[2 * row] = d;
        ((uint16_t *)(at + UNIT_ROWS))[2 * row + 1] = m;
        break;
    case PACK_K32:
        at[8 * row + j] = sc[0];
        if (j == 0) ((uint16_t *)(at + 8 * PANEL_ROWS))[row] = d;
        break;
    default:
        at[UNIT * row + 2 * j] = sc[0];
        at[UNIT * row + 2 * j + 1] = sc[1];
        if (j == 0) ((uint16_t *)(at + UNIT_ROWS))[row] = d;
        break;
    }
}

static __global__ void pack_quantized_kernel(struct pack_job job)
{
    const uint32_t row = threadIdx.x, b = blockIdx.x * PACK_BLOCKS + threadIdx.y, r = blockIdx.y * PANEL_ROWS + row;
    const uint32_t n_blocks = job.n_cols / PACK_BLOCK, run = b / RUN_BLOCKS;
    if (b >= n_blocks) return;
    uint8_t *panel = job.dst + blockIdx.y * job.panel_bytes;
    const struct block_place place = { panel + (size_t)run * run_bytes(job.bits, job.scales, RUN_COLS), row,
                                       b % RUN_BLOCKS, min_u32(n_blocks - run * RUN_BLOCKS, RUN_BLOCKS) };
    struct gguf_block block = {};
    const uint8_t *s = NULL;
    if (r < job.n_rows) {
        const uint32_t per_block = job.file_block_cols / PACK_BLOCK;
        s = job.src + r * job.stride + (size_t)(b / per_block) * job.file_block_bytes;
        gguf_read(&block, job.type, s, b % per_block, job.grids);
    }
    put_codes(&place, job.bits, block.code);
    put_scales(&place, &job, s, block.sc);
}

/* Numbers that are wider than fp32, and integers, become fp32, as numpy converts them. */
static __device__ float element_of(uint32_t type, const uint8_t *s)
{
    const uint64_t bits = u32_at(s) | (type == DTYPE_F64 || type == DTYPE_I64 ? (uint64_t)u32_at(s + 4) << 32 : 0);
    double wide;
    switch (type) {
    case DTYPE_F64: memcpy(&wide, &bits, sizeof(wide)); return (float)wide;
    case DTYPE_I64: return (float)(int64_t)bits;
    case DTYPE_I32: return (float)(int32_t)bits;
    default: return __uint_as_float((uint32_t)bits);
    }
}

static __global__ void pack_float_kernel(struct pack_job job)
{
    const uint32_t row = threadIdx.x, r = blockIdx.y * PANEL_ROWS + row,
                   c0 = (blockIdx.x * PACK_BLOCKS + threadIdx.y) * 16;
    if (c0 >= job.n_cols) return;
    const uint32_t bytes = job.bits / 8, per_unit = UNIT / bytes;
    uint8_t *panel = job.dst + blockIdx.y * job.panel_bytes;
    const uint8_t *s = job.src + r * job.stride + (size_t)c0 * job.file_block_bytes;
    for (uint32_t c = c0; c < c0 + 16; c++, s += job.file_block_bytes) {
        uint8_t *at = panel + (size_t)(c / per_unit) * UNIT_ROWS + row * UNIT + c % per_unit * bytes;
        const bool there = r < job.n_rows;
        if (bytes == 2)
            *(uint16_t *)at = there ? (uint16_t)u16_at(s) : (uint16_t)0;
        else if (job.type == DTYPE_I8)
            *(float *)at = there ? (float)(int8_t)s[0] : 0.0f;
        else if (job.type == DTYPE_I16)
            *(float *)at = there ? (float)(int16_t)u16_at(s) : 0.0f;
        else
            *(float *)at = there ? element_of(job.type, s) : 0.0f;
    }
}

/* The stream's staging buffer, at least `bytes` large. */
static enum status staging_of(struct backend *b, struct stream *s, size_t bytes, uint8_t **out)
{
    void *p;
    enum status st = OK;
    if (s->staging_bytes < bytes) {
        if (s->staging && (st = cuda_sync(b, s)) != OK) return st;
        cuda_release(b, s->staging, s->staging_bytes);
        s->staging = NULL;
        s->staging_bytes = 0;
        if ((st = cuda_alloc(b, bytes, &p)) != OK) return st;
        s->staging = (uint8_t *)p;
        s->staging_bytes = bytes;
    }
    *out = s->staging;
    return st;
}

/* n rows from the host into the staging buffer, without what lies between them. */
static enum status stage(struct backend *b, struct stream *s, const uint8_t *src, size_t stride, uint32_t n,
                         size_t row_bytes)
{
    if (stride == row_bytes)
        return cuda_check(b, cudaMemcpyAsync(s->staging, src, n * row_bytes, cudaMemcpyHostToDevice, s->cu),
                          "weight_pack");
    return cuda_check(
        b, cudaMemcpy2DAsync(s->staging, row_bytes, src, stride, row_bytes, n, cudaMemcpyHostToDevice, s->cu),
        "weight_pack");
}

static enum status pack_rows(struct backend *b, struct stream *s, struct pack_job *job)
{
    const uint32_t width = job->scales == PACK_FLOAT ? 16 : PACK_BLOCK, blocks = job->n_cols / width;
    const dim3 grid(cu_div_up(blocks, PACK_BLOCKS), cu_div_up(job->n_rows, PANEL_ROWS));
    const auto kernel = job->scales == PACK_FLOAT ? pack_float_kernel : pack_quantized_kernel;
    return cuda_check(b, cu_launch(kernel, grid, dim3(PANEL_ROWS, PACK_BLOCKS), 0, s->cu, *job), "weight_pack");
}

enum status cuda_weight_pack(struct backend *b, struct stream *stream, void *dst, enum dtype type, uint32_t n_rows,
                             uint32_t n_cols, const void *src, size_t src_stride)
{
    struct stream *s = stream_of(b, stream);
    const struct pack_format *f = pack_format_of(type);
    const struct dtype_info *info = dtype_info((uint32_t)type);
    const size_t row_bytes = (size_t)dtype_row_bytes((uint32_t)type, n_cols);
    size_t bytes;
    uint8_t *staging;
    enum status st = cuda_weight_bytes(b, type, n_rows, n_cols, &bytes);
    if (st != OK) return st;
    /* Whole panels, at most 65,535 of them, the limit of a grid. */
    size_t most = STAGING_BYTES / row_bytes / PANEL_ROWS * PANEL_ROWS;
    most = most == 0 ? PANEL_ROWS : most > (1u << 19) ? (size_t)1 << 19 : most;
    if (most > n_rows) most = n_rows;
    if ((st = staging_of(b, s, most * row_bytes, &staging)) != OK) return st;
    struct pack_job job = { (uint8_t *)dst,
                            staging,
                            row_bytes,
                            panel_bytes(f->bits, f->scales, n_cols),
                            cuda_of(b)->weights.grids,
                            (uint32_t)type,
                            f->bits,
                            f->scales,
                            0,
                            n_cols,
                            info->block_elems,
                            info->block_bytes };
    for (size_t r = 0; r < n_rows && st == OK; r += job.n_rows) {
        job.n_rows = (uint32_t)(n_rows - r < most ? n_rows - r : most);
        job.dst = (uint8_t *)dst + r / PANEL_ROWS * job.panel_bytes;
        st = stage(b, s, (const uint8_t *)src + r * src_stride, src_stride, job.n_rows, row_bytes);
        if (st == OK) st = pack_rows(b, s, &job);
    }
    return st;
}
