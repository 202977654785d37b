/* attn_vec_tmpl.h - attention's fp32 kernels: the online softmax, fp16 KV, latents' RoPE part, and what merges
 * segments.
 *
 * Included by vec_tmpl.h; the integer products are attn_tmpl.h's. */
#ifndef COMPUTE_CPU_ATTN_VEC_TMPL_H
#define COMPUTE_CPU_ATTN_VEC_TMPL_H

/* x where tokens [16 j, 16 j + 16) of a block are seen, y elsewhere; `whole`: its first tokens are. */
VEC vec v_seen(vec x, vec y, struct attn_seen seen, uint32_t j, bool whole)
{
    x = v_first(x, y, seen.end > 16 * j ? seen.end - 16 * j : 0);
    return whole ? x : v_first(y, x, seen.first > 16 * j ? seen.first - 16 * j : 0);
}

/* Turns scores into exp(score - max), 0 where they are not seen; moves `state` on and returns alpha. */
VEC float attn_softmax_block(vec *p, struct attn_state *state, const float *s, struct attn_seen seen, bool whole)
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
    float alpha = v_exp_one(state->max - max);
    UNROLL for (uint32_t j = 0; j < 4; j++) p[j] = v_exp(v_sub(p[j], v_set(max)));
    float sum = v_sum(v_add(v_add(p[0], p[1]), v_add(p[2], p[3])));
    state->sum = __builtin_fmaf(state->sum, alpha, sum);
    state->max = max;
    return alpha;
}

/* p to int16, each four as 0 2 1 3; `alpha` goes along. */
VEC struct attn_weights attn_weigh_block(int16_t *out, vec *p, const float *v_scale, float alpha, struct attn_seen seen,
                                         bool whole)
{
    vec m = v_set(0);
    UNROLL for (uint32_t j = 0; j < 4; j++)
    {
        p[j] = v_seen(v_mul(p[j], v_load(v_scale + 16 * j)), v_set(0), seen, j, whole);
        m = v_magnitude(m, p[j]);
    }
    struct v_step step = v_step_of(v_magnitude_bits(m), 32767.0f);
    if (!step.finite) memset(out, 0, KV_BLOCK_TOKENS * sizeof(*out));
    if (!step.finite) return (struct attn_weights){ alpha, step.scale };
    UNROLL for (uint32_t j = 0; j < 4; j++) v_store_int16(out + 16 * j, v_fma(p[j], v_set(step.inv), v_set(V_ROUND)));
    return (struct attn_weights){ alpha, step.scale };
}

VEC struct attn_weights attn_weigh_int8(int16_t *out, struct attn_state *state, const float *s, const float *v_scale,
                                        struct attn_seen seen, bool whole)
{
    vec p[4];
    float alpha = attn_softmax_block(p, state, s, seen, whole);
    return attn_weigh_block(out, p, v_scale, alpha, seen, whole);
}

TARGET static struct attn_weights attn_softmax_int8(int16_t *out, struct attn_state *state, const float *s,
                                                    const float *v_scale, struct attn_seen seen)
{
    return seen.first == 0 ? attn_weigh_int8(out, state, s, v_scale, seen, true)
                           : attn_weigh_int8(out, state, s, v_scale, seen, false);
}

TARGET static struct attn_weights attn_weigh(int16_t *out, const float *weights, const float *v_scale, float alpha,
                                             struct attn_seen seen)
{
    vec p[4];
    UNROLL for (uint32_t j = 0; j < 4; j++) p[j] = v_load(weights + 16 * j);
    return attn_weigh_block(out, p, v_scale, alpha, seen, true);
}

#define ATTN_BF16_QUERIES 4 /* that share what is converted */

VEC void attn_qk_bf16_rows(float *s, const uint16_t *k, const float *q, float scale, uint32_t dim, int rows)
{
    for (uint32_t j = 0; j < 4; j++) {
        vec acc[ATTN_BF16_QUERIES];
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

TARGET static void attn_qk_bf16(float *s, const uint16_t *k, const float *q, float scale, uint32_t n, uint32_t dim)
{
    uint32_t i = 0;
    for (; i + ATTN_BF16_QUERIES <= n; i += ATTN_BF16_QUERIES)
        attn_qk_bf16_rows(s + (size_t)i * KV_BLOCK_TOKENS, k, q + (size_t)i * dim, scale, dim, ATTN_BF16_QUERIES);
    for (; i < n; i++) attn_qk_bf16_rows(s + (size_t)i * KV_BLOCK_TOKENS, k, q + (size_t)i * dim, scale, dim, 1);
}

TARGET static void attn_qk_f16(float *s, const uint16_t *k, const float *q, float scale, uint32_t dim)
{
    for (uint32_t j = 0; j < 4; j++) {
        vec acc = v_set(0);
        for (uint32_t d = 0; d < dim; d++, k += 16) acc = v_fma(v_set(q[d]), v_load_half(k), acc);
        v_store(s + 16 * j, v_mul(acc, v_set(scale)));
    }
}

TARGET static float attn_softmax_f16(float *s, struct attn_state *state, struct attn_seen seen)
{
    vec p[4];
    float alpha = attn_softmax_block(p, state, s, seen, false);
    UNROLL for (uint32_t j = 0; j < 4; j++) v_store(s + 16 * j, p[j]);
    return alpha;
}

TARGET static void attn_pv_f16(float *o, const uint16_t *v, const float *p, float alpha, struct attn_seen seen,
                               uint32_t dim)
{
    for (uint32_t i = 0; i < dim; i += 16) {
        vec acc = v_set(0);
        for (uint32_t t = seen.first; t < seen.end; t++)
            acc = v_fma(v_set(p[t]), v_load_half(v + (size_t)t * dim + i), acc);
        v_store(o + i, v_fma(v_load(o + i), v_set(alpha), acc));
    }
}

TARGET static void attn_merge(float *o, struct attn_state *state, const float *o2, const struct attn_state *state2,
                              uint32_t dim)
{
    float max = state->max > state2->max ? state->max : state2->max;
    float a = v_exp_one(state->max - max), b = v_exp_one(state2->max - max);
    for (uint32_t i = 0; i < dim; i += 16)
        v_store(o + i, v_fma(v_load(o2 + i), v_set(b), v_mul(v_load(o + i), v_set(a))));
    state->sum = __builtin_fmaf(state2->sum, b, state->sum * a);
    state->max = max;
}

TARGET static void attn_finish(float *out, const float *o, const struct attn_state *state, uint32_t dim)
{
    vec inv = v_set(1.0f / state->sum);
    for (uint32_t i = 0; i < dim; i += 16) v_store(out + i, v_mul(v_load(o + i), inv));
}
#endif
