/* cuda_matmul_mma.cu - products of quantized matrices with many rows of activations, by integer matrix instructions.
 *
 * Eight warps share out a block's panels of 16 rows, its rows of activations, and with `split` the runs of 256 columns
 * (struct tiling).  A round is as many runs as are made at a time: their activations come into shared memory in the
 * order in which the instruction takes them, weights come from where they lie.  An instruction sums up the 16 columns
 * of a group, exactly; scales and the chain of sums over a row follow in fp32, per output as in cuda_matmul_rows.cu. */
#include "compute/cuda/cu_mma.h"
#include "compute/cuda/cuda_formats.h"
#include "compute/cuda/cuda_product.h"

#define WARPS     8u
#define TILE      8u  /* rows of activations of an instruction */
#define Q_WORDS   80u /* of a row's codes: 4 lanes' 16 words each, 4 apart, so that no two lanes meet in a bank */
#define SUM_WORDS 20u /* of a row's 16 scales, or sums */
#define AT_ONCE   4u  /* groups of activations that a thread has on their way */

/* panels * splits * parts is WARPS.  A warp has one panel, one of the round's runs, and NT tiles of activations. */
struct tiling {
    uint32_t panels, splits, parts;
    uint32_t rows; /* of activations in a block: parts * NT * TILE */
};

/* Activations of a round: [splits][rows] of each. */
struct staged {
    uint32_t *q;    /* [Q_WORDS]: word 20 t + g is columns 4 t .. 4 t + 3 of group g */
    float *scale;   /* [SUM_WORDS] */
    int32_t *start; /* [SUM_WORDS]: INT_MAGIC - z * sum of q */
    float *sum;     /* [SUM_WORDS]: what minima multiply */
};

static __device__ __forceinline__ struct staged staged_at(uint8_t *shared, const struct tiling &t)
{
    const uint32_t n = t.splits * t.rows;
    struct staged s;
    s.q = (uint32_t *)shared;
    s.scale = (float *)(s.q + n * Q_WORDS);
    s.start = (int32_t *)(s.scale + n * SUM_WORDS);
    s.sum = (float *)(s.start + n * SUM_WORDS);
    return s;
}

static __host__ __device__ __forceinline__ uint32_t staged_bytes(const struct tiling &t)
{
    return t.splits * t.rows * (Q_WORDS + 3 * SUM_WORDS) * (uint32_t)sizeof(uint32_t);
}

/* The activations' row of row i of a block.  Where products are fine, its second half is what the first half loses. */
static __device__ __forceinline__ uint32_t act_row_of(const struct product &p, const struct tiling &t, uint32_t i)
{
    const uint32_t out = p.fine ? t.rows / 2 : t.rows, row = min_u32(blockIdx.y * out + i % out, p.n - 1);
    return product_act_row(p, row, i >= out);
}

/* A group of 16 columns on its way from a row of activations. */
struct group {
    uint4 q;
    float scale, block_sum;
    int32_t sum;
};

template <class F>
static __device__ __forceinline__ void put_group(const struct staged &to, uint32_t i, const struct group &x,
                                                 int32_t offset)
{
    const uint32_t g = i % 16, place = i / 16 * SUM_WORDS + g;
    uint32_t *words = to.q + i / 16 * Q_WORDS + g;
    words[0] = x.q.x;
    words[20] = x.q.y;
    words[40] = x.q.z;
    words[60] = x.q.w;
    to.scale[place] = x.scale;
    to.start[place] = INT_MAGIC - offset * x.sum;
    if (F::scales == PACK_K16M) to.sum[place] = __fmul_rn((float)x.sum, x.scale);
    if (F::has_min && !F::by16 && g % 2 == 0) to.sum[place - g + g / 2] = x.block_sum;
}

/* Activations of runs first, first + 1, ... of the round, a group of 16 columns to a thread; some groups are on their
 * way at a time. */
template <class F>
static __device__ __forceinline__ void stage_round(const struct staged &to, const struct product &p,
                                                   const struct tiling &t, uint32_t first)
{
    const uint32_t groups = p.act.k32 / 16, n = t.splits * t.rows * 16;
    for (uint32_t i0 = threadIdx.x; i0 < n; i0 += AT_ONCE * WARPS * CU_WARP) {
        struct group x[AT_ONCE] = {};
#pragma unroll
        for (uint32_t u = 0; u < AT_ONCE; u++) {
            const uint32_t i = i0 + u * WARPS * CU_WARP, at = (first + i / 16 / t.rows) * 16 + i % 16;
            if (i >= n || at >= groups) continue;
            const size_t group = (size_t)act_row_of(p, t, i / 16 % t.rows) * groups + at;
            x[u].q = __ldg((const uint4 *)(p.act.q + 16 * group));
            x[u].scale = __ldg(p.act.scale + group);
            x[u].sum = __ldg(p.act.sum + group);
            if (F::has_min && !F::by16) x[u].block_sum = __ldg(p.act.block_sum + group / 2);
        }
#pragma unroll
        for (uint32_t u = 0; u < AT_ONCE; u++)
            if (i0 + u * WARPS * CU_WARP < n) put_group<F>(to, i0 + u * WARPS * CU_WARP, x[u], p.format.offset);
    }
}

/* --- weights --- */
/* What a lane needs of a run: of rows g and g + 8 the words that hold its columns. */
template <class F> struct lane_run {
    uint32_t code[2][F::bits == 2 || F::bits == 3 ? 16 : F::bits == 8 ? 16 : 8];
    uint32_t more[2][F::bits == 6 ? 16 : 8];
    struct run_scales scales[2];
    uint32_t blocks;
};

template <class F>
static __device__ __forceinline__ void read_lane_run(struct lane_run<F> &r, const uint8_t *panel, uint32_t run,
                                                     uint32_t n_cols)
{
    const uint32_t lane = threadIdx.x % CU_WARP, t = lane % 4;
    const uint8_t *at = panel + (size_t)run * run_bytes(F::bits, F::scales, RUN_COLS);
    r.blocks = min_u32(RUN_BLOCKS, n_cols / PACK_BLOCK - run * RUN_BLOCKS);
    const uint32_t codes = run_code_units(F::bits, r.blocks), more = run_more_units(F::bits, r.blocks);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint32_t row = lane / 4 + 8 * half;
        const uint8_t *mine = at + row * UNIT, *rest = mine + codes * UNIT_ROWS;
        if (F::bits >= 4) {
#pragma unroll
            for (int u = 0; u < F::code_units; u++)
                if (u < (int)codes) r.code[half][u] = __ldcs((const uint32_t *)(mine + u * UNIT_ROWS) + t);
        } else {
#pragma unroll
            for (int u = 0; u < F::code_units; u++)
                if (u < (int)codes) *(uint4 *)&r.code[half][4 * u] = *(const uint4 *)(mine + u * UNIT_ROWS);
        }
#pragma unroll
        for (int u = 0; u < F::more_units; u++)
            if (u < (int)more) *(uint4 *)&r.more[half][4 * u] = *(const uint4 *)(rest + u * UNIT_ROWS);
        read_scales<F>(r.scales[half], at + (codes + more) * UNIT_ROWS, row);
    }
}

/* Columns 4 t .. 4 t + 3 of both groups of block b of one of the two rows. */
template <class F>
static __device__ __forceinline__ void lane_codes(uint32_t w[2], const struct lane_run<F> &r, int half, int b,
                                                  const uint32_t *book)
{
    const uint32_t t = threadIdx.x % 4;
    if (F::bits == 8) {
        w[0] = r.code[half][(2 * b) % 16];
        w[1] = r.code[half][(2 * b + 1) % 16];
    } else if (F::bits >= 4) {
        const uint32_t word = r.code[half][b];
        if (F::book) {
            book_nibbles(book, word, &w[0], &w[1]);
        } else {
            w[0] = word & 0x0f0f0f0fu;
            w[1] = word >> 4 & 0x0f0f0f0fu;
        }
    } else {
        w[0] = pair_codes(r.code[half][(2 * b) % 16], t);
        w[1] = pair_codes(r.code[half][(2 * b + 1) % 16], t);
    }
#pragma unroll
    for (int g = 0; g < 2; g++) {
        if (F::bits == 5) w[g] |= bit_codes(r.more[half][b], 4 * g + t) << 4;
        if (F::bits == 6) w[g] |= pair_codes(r.more[half][(2 * b + g) % 16], t) << 4;
        if (F::bits == 3) w[g] |= bit_codes(r.more[half][b], 4 * g + t) << 2;
        if (F::bits == 3 && F::book) w[g] = book_bytes(book, w[g]);
    }
}

/* --- sums --- */
/* Of a run's two blocks 2 p and 2 p + 1: a lane's codes and scales of both rows, one for each block, or each group. */
template <class F> struct lane_pair {
    uint32_t w[2][2][2]; /* [block][half][group] */
    float d[2][2][2], m[2][2][2];
};

template <class F>
static __device__ __forceinline__ void pair_of(struct lane_pair<F> &k, const struct lane_run<F> &r,
                                               const struct super_scales s[2], int p, const uint32_t *book)
{
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int b = 2 * p + i;
            lane_codes<F>(k.w[i][half], r, half, b, book);
#pragma unroll
            for (int g = 0; g < (F::by16 ? 2 : 1); g++) {
                const int at = F::by16 ? 2 * b + g : b;
                k.d[i][half][g] = d_of<F>(r.scales[half], s[half], at);
                k.m[i][half][g] = F::has_min ? m_of<F>(r.scales[half], s[half], at) : 0.0f;
            }
        }
}

/* Of the same blocks what a lane needs of a tile of activations: of row lane / 4 the codes, of rows 2 t and 2 t + 1 the
 * sums. */
struct tile_pair {
    uint4 q;
    int4 start[2];
    float4 scale[2], sum[2];
};

template <class F>
static __device__ __forceinline__ void read_tile(struct tile_pair &y, const struct staged &x, int tile, int p)
{
    const uint32_t lane = threadIdx.x % CU_WARP, t = lane % 4;
    y.q = *(const uint4 *)(x.q + (tile * TILE + lane / 4) * Q_WORDS + 20 * t + 4 * p);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t at = (tile * TILE + 2 * t + i) * SUM_WORDS;
        y.start[i] = *(const int4 *)(x.start + at + 4 * p);
        y.scale[i] = *(const float4 *)(x.scale + at + 4 * p);
        if (F::scales == PACK_K16M) {
            y.sum[i] = *(const float4 *)(x.sum + at + 4 * p);
        } else if (F::has_min) {
            const float2 two = *(const float2 *)(x.sum + at + 2 * p);
            y.sum[i] = make_float4(two.x, two.y, 0, 0);
        }
    }
}

/* The exact sums of 16 columns, of the four outputs of a lane. */
static __device__ __forceinline__ void group_dots(float dot[4], uint32_t a0, uint32_t a1, uint32_t b, int32_t first,
                                                  int32_t second)
{
    int32_t d[4] = { first, second, first, second };
    cu_mma_s8(d, a0, a1, b);
#pragma unroll
    for (int e = 0; e < 4; e++) dot[e] = int_float(d[e]);
}

/* The chains of a tile's outputs continue over block i of the pair. */
template <class F>
static __device__ __forceinline__ void block_chain(float acc[4], const struct lane_pair<F> &k,
                                                   const struct tile_pair &y, int i)
{
    float dot[2][4];
    const uint32_t(*w)[2] = k.w[i];
    if (i == 0) {
        group_dots(dot[0], w[0][0], w[1][0], y.q.x, y.start[0].x, y.start[1].x);
        group_dots(dot[1], w[0][1], w[1][1], y.q.y, y.start[0].y, y.start[1].y);
    } else {
        group_dots(dot[0], w[0][0], w[1][0], y.q.z, y.start[0].z, y.start[1].z);
        group_dots(dot[1], w[0][1], w[1][1], y.q.w, y.start[0].w, y.start[1].w);
    }
#pragma unroll
    for (int e = 0; e < 4; e++) {
        const float4 a = y.scale[e % 2], sum = y.sum[e % 2];
        const float first = __fmul_rn(dot[0][e], i ? a.z : a.x), a1 = i ? a.w : a.y;
        const float *d = k.d[i][e / 2], *m = k.m[i][e / 2];
        if (F::by16) {
            acc[e] = __fmaf_rn(d[0], first, acc[e]);
            if (F::has_min) acc[e] = __fmaf_rn(m[0], i ? sum.z : sum.x, acc[e]);
            acc[e] = __fmaf_rn(d[1], __fmul_rn(dot[1][e], a1), acc[e]);
            if (F::has_min) acc[e] = __fmaf_rn(m[1], i ? sum.w : sum.y, acc[e]);
        } else {
            acc[e] = __fmaf_rn(d[0], __fmaf_rn(dot[1][e], a1, first), acc[e]);
            if (F::has_min) acc[e] = __fmaf_rn(m[0], i ? sum.y : sum.x, acc[e]);
        }
    }
}

/* Continues acc over a run; x: the activations of the warp's first tile. */
template <class F, int NT>
static __device__ __forceinline__ void run_tiles(float acc[NT][4], const struct lane_run<F> &r, const struct staged &x,
                                                 const struct weight_format &f)
{
    const struct super_scales s[2] = { unpack_scales<F>(r.scales[0], f.d_times),
                                       unpack_scales<F>(r.scales[1], f.d_times) };
#pragma unroll
    for (int p = 0; p < (int)RUN_BLOCKS / 2; p++) {
        if (2 * p >= (int)r.blocks) break;
        struct lane_pair<F> k;
        pair_of(k, r, s, p, f.book);
#pragma unroll
        for (int tile = 0; tile < NT; tile++) {
            struct tile_pair y = {};
            read_tile<F>(y, x, tile, p);
            block_chain<F>(acc[tile], k, y, 0);
            if (2 * p + 1 < (int)r.blocks) block_chain<F>(acc[tile], k, y, 1);
        }
    }
}

/* --- the kernel --- */
/* out: [rows][stride], the block's outputs. */
static __device__ __forceinline__ void put_block(const struct product &p, const struct tiling &t, const float *out,
                                                 uint32_t stride)
{
    const uint32_t width = t.panels * PANEL_ROWS, n = p.fine ? t.rows / 2 : t.rows;
    for (uint32_t i = threadIdx.x; i < n * width; i += WARPS * CU_WARP) {
        const uint32_t r = i / width, c = i % width, to = blockIdx.y * n + r, row = blockIdx.x * width + c;
        if (to >= p.n || row >= p.n_rows) continue;
        const float v = out[r * stride + c];
        product_put(p, to, row, p.fine ? __fadd_rn(v, out[(n + r) * stride + c]) : v);
    }
}

/* Adds the sums of the round's runs, in ascending order, to the totals; a warp does this for some of its tiles' values.
 * parts: [splits][warps of a split][NT * 4][32 lanes] */
template <int NT>
static __device__ __forceinline__ void add_runs(float total[NT * 4], const float acc[NT][4], float *parts,
                                                const struct tiling &t, uint32_t split, uint32_t peer, uint32_t runs)
{
    const uint32_t lane = threadIdx.x % CU_WARP, peers = WARPS / t.splits;
    float *own = parts + (size_t)(split * peers + peer) * NT * 4 * CU_WARP + lane;
#pragma unroll
    for (int e = 0; e < NT * 4; e++) own[e * CU_WARP] = acc[e / 4][e % 4];
    __syncthreads();
#pragma unroll
    for (int e = 0; e < NT * 4; e++) {
        if (e % t.splits != split) continue;
        for (uint32_t s = 0; s < runs; s++)
            total[e] = __fadd_rn(total[e], parts[((size_t)(s * peers + peer) * NT * 4 + e) * CU_WARP + lane]);
    }
}

/* All outputs of the block into shared memory, and from there to y. */
template <int NT>
static __device__ __forceinline__ void gather_tiles(const struct product &p, const struct tiling &t,
                                                    const float acc[NT][4], const float total[NT * 4], uint32_t split,
                                                    uint32_t panel, uint32_t part)
{
    const uint32_t lane = threadIdx.x % CU_WARP, stride = t.panels * PANEL_ROWS + 1;
    float *out = (float *)cu_shared();
    __syncthreads();
#pragma unroll
    for (int e = 0; e < NT * 4; e++) {
        if (p.split && e % t.splits != split) continue;
        const uint32_t row = (part * NT + e / 4) * TILE + 2 * (lane % 4) + e % 2;
        out[row * stride + panel * PANEL_ROWS + lane / 4 + e % 4 / 2 * 8] = p.split ? total[e] : acc[e / 4][e % 4];
    }
    __syncthreads();
    put_block(p, t, out, stride);
}

static __device__ __forceinline__ void prefetch_run(const uint8_t *panel, uint32_t run, uint32_t bytes)
{
    const uint8_t *at = panel + (size_t)run * bytes;
    for (uint32_t i = threadIdx.x % CU_WARP * 128; i < bytes; i += CU_WARP * 128) cu_prefetch(at + i);
}

template <class F, int NT>
static __global__ void __launch_bounds__(WARPS *CU_WARP, 2) mma_kernel(struct product p, struct tiling t)
{
    const uint32_t warp = threadIdx.x / CU_WARP;
    const uint32_t panel = warp % t.panels, part = warp / t.panels % t.parts, split = warp / t.panels / t.parts;
    const uint32_t peer = part * t.panels + panel, n_panels = cu_div_up(p.n_rows, PANEL_ROWS);
    const uint32_t n_runs = cu_div_up(p.n_cols, RUN_COLS), bytes = run_bytes(F::bits, F::scales, RUN_COLS);
    const uint8_t *w = p.data + min_u32(blockIdx.x * t.panels + panel, n_panels - 1) * p.panel_bytes;
    const struct staged all = staged_at(cu_shared(), t);
    float *parts = (float *)(cu_shared() + staged_bytes(t));
    const uint32_t first_row = split * t.rows + part * NT * TILE;
    const struct staged x = { all.q + first_row * Q_WORDS, all.scale + first_row * SUM_WORDS,
                              all.start + first_row * SUM_WORDS, all.sum + first_row * SUM_WORDS };
    float acc[NT][4] = {}, total[NT * 4] = {};
    struct lane_run<F> r;
    for (uint32_t first = 0; first < n_runs; first += t.splits) {
        const uint32_t run = first + split, runs = min_u32(t.splits, n_runs - first);
        if (run < n_runs) read_lane_run(r, w, run, p.n_cols);
        if (part == 0 && run + 2 * t.splits < n_runs) prefetch_run(w, run + 2 * t.splits, bytes);
        __syncthreads();
        stage_round<F>(all, p, t, first);
        __syncthreads();
        if (run < n_runs) run_tiles<F, NT>(acc, r, x, p.format);
        if (!p.split) continue;
        if (t.splits > 1) {
            add_runs<NT>(total, acc, parts, t, split, peer, runs);
        } else {
#pragma unroll
            for (int e = 0; e < NT * 4; e++) total[e] = __fadd_rn(total[e], acc[e / 4][e % 4]);
        }
#pragma unroll
        for (int e = 0; e < NT * 4; e++) acc[e / 4][e % 4] = 0;
    }
    gather_tiles<NT>(p, t, acc, total, split, panel, part);
}

/* --- which kernel --- */
template <class F, int NT> static cudaError_t launch(const struct product &p, struct tiling t, cudaStream_t s)
{
    t.rows = t.parts * NT * TILE;
    const uint32_t out = p.fine ? t.rows / 2 : t.rows, width = t.panels * PANEL_ROWS;
    const size_t parts = t.splits > 1 ? WARPS * NT * 4 * CU_WARP * sizeof(float) : 0;
    const size_t run = staged_bytes(t) + parts, end = t.rows * (width + 1) * sizeof(float);
    const size_t shared = run > end ? run : end;
    const cudaError_t e =
        cudaFuncSetAttribute(mma_kernel<F, NT>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (e != cudaSuccess) return e;
    const dim3 grid(cu_div_up(p.n_rows, width), cu_div_up(p.n, out));
    return cu_launch(mma_kernel<F, NT>, grid, WARPS * CU_WARP, shared, s, p, t);
}

/* Few rows: the warps share out the runs of columns, where these are summed up by themselves; many rows: the rows. */
template <class F> static cudaError_t launch_mma(const struct product &p, cudaStream_t s)
{
    const uint32_t n = p.fine ? 2 * p.n : p.n;
    if (!p.split) {
        if (n <= 32) return launch<F, 1>(p, { 2, 1, 4, 0 }, s);
        return n <= 64 ? launch<F, 2>(p, { 2, 1, 4, 0 }, s) : launch<F, 4>(p, { 4, 1, 2, 0 }, s);
    }
    if (n <= 8) return launch<F, 1>(p, { 2, 4, 1, 0 }, s);
    if (n <= 16) return launch<F, 2>(p, { 2, 4, 1, 0 }, s);
    if (n <= 32) return launch<F, 4>(p, { 2, 4, 1, 0 }, s);
    return n <= 64 ? launch<F, 4>(p, { 2, 2, 2, 0 }, s) : launch<F, 4>(p, { 4, 1, 2, 0 }, s);
}

cudaError_t product_mma(const struct product &p, const struct pack_format *f, cudaStream_t s)
{
    const bool book = f->book != BOOK_NONE;
#define CASE(BITS, SCALES, BOOK)                                                                                       \
    if (f->bits == BITS && f->scales == SCALES && book == BOOK) return launch_mma<format<BITS, SCALES, BOOK>>(p, s);
    EACH_FORMAT(CASE)
#undef CASE
    return cudaErrorInvalidValue;
}
