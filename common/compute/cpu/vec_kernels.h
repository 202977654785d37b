/* vec_kernels.h - the fp32 kernels of one instruction set, written once over sixteen lanes.
 *
 * Included by each level_*.c after its vec_*.h.  What is here is the definition
 * of these ops: the order of additions is that of the lanes, whatever the width of the registers. */
#include "compute/cpu/cpu_kernels.h"
#include "compute/cpu/unroll.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "compute/cpu/math_tmpl.h"
#include "compute/cpu/rows_tmpl.h"

/* --- quantizers --- */
struct quant_step {
    float scale, inv;
    bool finite;
};

/* Values up to `amax` (as bits) in steps up to `top`: nothing to keep is scale 1, not a number stays one. */
static inline struct quant_step step_of(uint32_t amax, float top)
{
    if (amax >= 0x7f800000u) return (struct quant_step){ NAN, 0, false };
    float scale = half_from_bits(amax) / top;
    if (scale < FLT_MIN) return (struct quant_step){ 1.0f, 0, true };
    return (struct quant_step){ scale, 1.0f / scale, true };
}

#include "compute/cpu/act_kernels.h"

VEC struct quant_step head_step(const float *x, uint32_t dim, float top)
{
    vec m = v_set(0);
    for (uint32_t i = 0; i < dim; i += 16) m = v_magnitude(m, v_load(x + i));
    return step_of(v_magnitude_bits(m), top);
}

TARGET static float kv_quantize(int8_t *out, const float *x, uint32_t dim)
{
    struct quant_step s = head_step(x, dim, 127.0f);
    if (!s.finite) {
        memset(out, 0, dim);
        return s.scale;
    }
    for (uint32_t i = 0; i < dim; i += 16) v_store_int8(out + i, v_fma(v_load(x + i), v_set(s.inv), v_set(ROUND)));
    return s.scale;
}

TARGET static float q_quantize(int16_t *out, const float *x, uint32_t dim)
{
    struct quant_step s = head_step(x, dim, 32767.0f);
    if (!s.finite) {
        memset(out, 0, dim * sizeof(*out));
        return s.scale;
    }
    for (uint32_t i = 0; i < dim; i += 16) v_store_int16(out + i, v_fma(v_load(x + i), v_set(s.inv), v_set(ROUND)));
    return s.scale;
}

TARGET static void to_half(uint16_t *out, const float *x, uint32_t dim)
{
    for (uint32_t i = 0; i < dim; i += 16) v_store_half(out + i, v_load(x + i));
}

/* --- rotations --- */
TARGET static void rope(float *x, const float *c, const float *s, uint32_t dims, bool neox)
{
    uint32_t half = dims / 2, i = 0;
    if (!neox) {
        for (; i + 16 <= dims; i += 16) {
            vec v = v_load(x + i);
            v_store(x + i, v_fma(v, v_load(c + i), v_mul(v_swap1(v), v_load(s + i))));
        }
        for (; i < dims; i += 2) {
            float a = x[i], b = x[i + 1];
            x[i] = __builtin_fmaf(a, c[i], b * s[i]);
            x[i + 1] = __builtin_fmaf(b, c[i + 1], a * s[i + 1]);
        }
        return;
    }
    for (; i + 16 <= half; i += 16) {
        vec a = v_load(x + i), b = v_load(x + half + i);
        v_store(x + i, v_fma(a, v_load(c + i), v_mul(b, v_load(s + i))));
        v_store(x + half + i, v_fma(b, v_load(c + half + i), v_mul(a, v_load(s + half + i))));
    }
    for (; i < half; i++) {
        float a = x[i], b = x[half + i];
        x[i] = __builtin_fmaf(a, c[i], b * s[i]);
        x[half + i] = __builtin_fmaf(b, c[half + i], a * s[half + i]);
    }
}

static const float sign1[16] = { 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1 };
static const float sign2[16] = { 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1 };
static const float sign4[16] = { 1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1 };
static const float sign8[16] = { 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1 };

/* The largest power of two that divides dim is the size of the transform: 80 = 5 x 16, 96 = 3 x 32. */
TARGET static void rotate(float *x, uint32_t dim)
{
    const uint32_t size = dim & (~dim + 1);
    const vec norm = v_set(1.0f / sqrtf((float)size));
    for (uint32_t i = 0; i < dim; i += 16) {
        vec v = v_load(x + i);
        v = v_fma(v, v_load(sign1), v_swap1(v));
        v = v_fma(v, v_load(sign2), v_swap2(v));
        v = v_fma(v, v_load(sign4), v_swap4(v));
        v = v_fma(v, v_load(sign8), v_swap8(v));
        v_store(x + i, size == 16 ? v_mul(v, norm) : v);
    }
    for (uint32_t step = 16; step < size; step *= 2)
        for (uint32_t i = 0; i < dim; i += 16) {
            if (i & step) continue;
            vec a = v_load(x + i), b = v_load(x + i + step);
            vec up = v_add(a, b), down = v_sub(a, b);
            bool last = step * 2 == size;
            v_store(x + i, last ? v_mul(up, norm) : up);
            v_store(x + i + step, last ? v_mul(down, norm) : down);
        }
}

/* --- attention --- */

/* x where tokens [16 j, 16 j + 16) of a block are seen, y elsewhere; `whole`: its first tokens are. */
VEC vec v_seen(vec x, vec y, struct attn_seen seen, uint32_t j, bool whole)
{
    x = v_first(x, y, seen.end > 16 * j ? seen.end - 16 * j : 0);
    return whole ? x : v_first(y, x, seen.first > 16 * j ? seen.first - 16 * j : 0);
}

/* Turns scores into exp(score - max), 0 where they are not seen; moves `state` on and returns alpha. */
VEC float softmax_block(vec *p, struct attn_state *state, const float *s, struct attn_seen seen, bool whole)
{
    const vec none = v_set(-INFINITY);
    vec top = none;
    UNROLL for (uint32_t j = 0; j < 4; j++)
    {
        p[j] = v_seen(v_load(s + 16 * j), none, seen, j, whole);
        top = v_max(top, p[j]);
    }
    float max = v_max_lane(top);
    max = state->max > max ? state->max : max;
    float alpha = exp_one(state->max - max);
    UNROLL for (uint32_t j = 0; j < 4; j++) p[j] = v_exp(v_sub(p[j], v_set(max)));
    float sum = v_sum(v_add(v_add(p[0], p[1]), v_add(p[2], p[3])));
    state->sum = __builtin_fmaf(state->sum, alpha, sum);
    state->max = max;
    return alpha;
}

/* p to int16, each four as 0 2 1 3; `alpha` goes along. */
VEC struct attn_weights weigh_block(int16_t *out, vec *p, const float *v_scale, float alpha, struct attn_seen seen,
                                    bool whole)
{
    vec m = v_set(0);
    UNROLL for (uint32_t j = 0; j < 4; j++)
    {
        p[j] = v_seen(v_mul(p[j], v_load(v_scale + 16 * j)), v_set(0), seen, j, whole);
        m = v_magnitude(m, p[j]);
    }
    struct quant_step step = step_of(v_magnitude_bits(m), 32767.0f);
    if (!step.finite) memset(out, 0, KV_BLOCK_TOKENS * sizeof(*out));
    if (!step.finite) return (struct attn_weights){ alpha, step.scale };
    UNROLL for (uint32_t j = 0; j < 4; j++) v_store_int16(out + 16 * j, v_fma(p[j], v_set(step.inv), v_set(ROUND)));
    return (struct attn_weights){ alpha, step.scale };
}

VEC struct attn_weights weigh_int8(int16_t *out, struct attn_state *state, const float *s, const float *v_scale,
                                   struct attn_seen seen, bool whole)
{
    vec p[4];
    float alpha = softmax_block(p, state, s, seen, whole);
    return weigh_block(out, p, v_scale, alpha, seen, whole);
}

TARGET static struct attn_weights softmax_int8(int16_t *out, struct attn_state *state, const float *s,
                                               const float *v_scale, struct attn_seen seen)
{
    return seen.first == 0 ? weigh_int8(out, state, s, v_scale, seen, true)
                           : weigh_int8(out, state, s, v_scale, seen, false);
}

TARGET static struct attn_weights weigh(int16_t *out, const float *weights, const float *v_scale, float alpha,
                                        struct attn_seen seen)
{
    vec p[4];
    UNROLL for (uint32_t j = 0; j < 4; j++) p[j] = v_load(weights + 16 * j);
    return weigh_block(out, p, v_scale, alpha, seen, true);
}

#define BF16_QUERIES 4 /* that share what is converted */

VEC void qk_bf16_rows(float *s, const uint16_t *k, const float *q, float scale, uint32_t dim, int rows)
{
    for (uint32_t j = 0; j < 4; j++) {
        vec acc[BF16_QUERIES];
        UNROLL for (int r = 0; r < rows; r++) acc[r] = v_set(0);
        for (uint32_t d = 0; d < dim; d++, k += 16) {
            vec x = v_load_bf16(k);
            UNROLL for (int r = 0; r < rows; r++) acc[r] = v_fma(v_set(q[(size_t)r * dim + d]), x, acc[r]);
        }
        UNROLL for (int r = 0; r < rows; r++)
        {
            float *at = s + r * KV_BLOCK_TOKENS + 16 * j;
            v_store(at, v_add(v_load(at), v_mul(acc[r], v_set(scale))));
        }
    }
}

TARGET static void qk_bf16(float *s, const uint16_t *k, const float *q, float scale, uint32_t n, uint32_t dim)
{
    uint32_t i = 0;
    for (; i + BF16_QUERIES <= n; i += BF16_QUERIES)
        qk_bf16_rows(s + (size_t)i * KV_BLOCK_TOKENS, k, q + (size_t)i * dim, scale, dim, BF16_QUERIES);
    for (; i < n; i++) qk_bf16_rows(s + (size_t)i * KV_BLOCK_TOKENS, k, q + (size_t)i * dim, scale, dim, 1);
}

TARGET static void qk_f16(float *s, const uint16_t *k, const float *q, float scale, uint32_t dim)
{
    for (uint32_t j = 0; j < 4; j++) {
        vec acc = v_set(0);
        for (uint32_t d = 0; d < dim; d++, k += 16) acc = v_fma(v_set(q[d]), v_load_half(k), acc);
        v_store(s + 16 * j, v_mul(acc, v_set(scale)));
    }
}

TARGET static float softmax_f16(float *s, struct attn_state *state, struct attn_seen seen)
{
    vec p[4];
    float alpha = softmax_block(p, state, s, seen, false);
    UNROLL for (uint32_t j = 0; j < 4; j++) v_store(s + 16 * j, p[j]);
    return alpha;
}

TARGET static void pv_f16(float *o, const uint16_t *v, const float *p, float alpha, struct attn_seen seen, uint32_t dim)
{
    for (uint32_t i = 0; i < dim; i += 16) {
        vec acc = v_set(0);
        for (uint32_t t = seen.first; t < seen.end; t++)
            acc = v_fma(v_set(p[t]), v_load_half(v + (size_t)t * dim + i), acc);
        v_store(o + i, v_fma(v_load(o + i), v_set(alpha), acc));
    }
}

TARGET static void merge(float *o, struct attn_state *state, const float *o2, const struct attn_state *state2,
                         uint32_t dim)
{
    float max = state->max > state2->max ? state->max : state2->max;
    float a = exp_one(state->max - max), b = exp_one(state2->max - max);
    for (uint32_t i = 0; i < dim; i += 16)
        v_store(o + i, v_fma(v_load(o2 + i), v_set(b), v_mul(v_load(o + i), v_set(a))));
    state->sum = __builtin_fmaf(state2->sum, b, state->sum * a);
    state->max = max;
}

TARGET static void finish(float *out, const float *o, const struct attn_state *state, uint32_t dim)
{
    vec inv = v_set(1.0f / state->sum);
    for (uint32_t i = 0; i < dim; i += 16) v_store(out + i, v_mul(v_load(o + i), inv));
}

/* The slots of a kernel table that this file fills. */
#define VEC_KERNELS                                                                                                    \
    .rmsnorm = rmsnorm, .norm_add = norm_add, .glu = { glu_silu, glu_gelu, glu_oai }, .gate = gate_row,                \
    .route_gate = route_gate, .add_weighted = add_weighted, .add = add, .scale = scale_row, .softcap = softcap,        \
    .quantize = quantize, .lost_by_quantizing = lost_by_quantizing, .rope = rope, .rotate = rotate,                    \
    .kv_quantize = kv_quantize, .to_half = to_half, .q_quantize = q_quantize, .softmax_int8 = softmax_int8,            \
    .qk_f16 = qk_f16, .softmax_f16 = softmax_f16, .pv_f16 = pv_f16, .merge = merge, .finish = finish,                  \
    .exp_sum = exp_sum, .exp_row = exp_row, .qk_bf16 = qk_bf16, .weigh = weigh
