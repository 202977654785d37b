/* act_tmpl.h - the quantizer of activations, sixteen groups of 16 columns at a time.
 *
 * Included by vec_tmpl.h.  A group's maximum and sum are made for sixteen groups at once: lane g of one vector
 * is group g's, so that divisions and conversions run on full vectors too. */
#ifndef COMPUTE_CPU_ACT_TMPL_H
#define COMPUTE_CPU_ACT_TMPL_H
#define ACT_RUN 256 /* columns: sixteen groups */

VEC vec v_swap(vec a, int step)
{
    return step == 1 ? v_swap1(a) : step == 2 ? v_swap2(a) : step == 4 ? v_swap4(a) : v_swap8(a);
}

/* Sixteen vectors to one: lane j becomes OP over all lanes of V[j].  OP's order does not matter where this is used. */
#define ACT_HALVE(V, OP, step)                                                                                         \
    UNROLL for (int j = 0; j < 8 / (step); j++)                                                                        \
    {                                                                                                                  \
        vec even = (V)[2 * j], odd = (V)[2 * j + 1];                                                                   \
        (V)[j] = OP(v_alternate(even, odd, step), v_swap(v_alternate(odd, even, step), step));                         \
    }
#define ACT_LANES_TO_ONE(V, OP)                                                                                        \
    do {                                                                                                               \
        ACT_HALVE(V, OP, 1) ACT_HALVE(V, OP, 2) ACT_HALVE(V, OP, 4) ACT_HALVE(V, OP, 8)                                \
    } while (0)

/* The groups of x that hold a value which is infinite or NaN become zeros in `clean`, 256 floats. */
TARGET static __attribute__((noinline)) void act_without_infinite_groups(float *clean, const float *x,
                                                                         const float *amax)
{
    for (int g = 0; g < 16; g++) {
        if (half_bits_of(amax[g]) < 0x7f800000u)
            memcpy(clean + 16 * g, x + 16 * g, 16 * sizeof(float));
        else
            memset(clean + 16 * g, 0, 16 * sizeof(float));
    }
}

/* 256 columns of row r of a tile of h rows; `blocks` of their 8 blocks are there to be written. */
VEC void act_quantize_run(uint8_t *tile, uint32_t h, uint32_t r, const float *x, uint32_t blocks)
{
    float amax[16], scale[16], inv[16], total[16], clean[ACT_RUN];
    int8_t q[ACT_RUN];
    vec v[16];
    UNROLL16 for (int g = 0; g < 16; g++) v[g] = v_load(x + 16 * g);
    ACT_LANES_TO_ONE(v, v_magnitude);
    v_store(amax, v[0]);
    vec s = v_div(v[0], v_set(127.0f)), tiny = v_set(FLT_MIN);
    v_store(inv, v_if_less(s, tiny, v_set(0), v_div(v_set(1.0f), s)));
    v_store(scale, v_if_less(v[0], v_set(INFINITY), v_if_less(s, tiny, v_set(1.0f), s), v_set(NAN)));
    if (v_magnitude_bits(v[0]) >= 0x7f800000u) {
        act_without_infinite_groups(clean, x, amax);
        x = clean;
        for (int g = 0; g < 16; g++) inv[g] = half_bits_of(amax[g]) < 0x7f800000u ? inv[g] : 0;
    }
    UNROLL16 for (int g = 0; g < 16; g++)
    {
        vec t = v_fma(v_load(x + 16 * g), v_set(inv[g]), v_set(V_ROUND));
        v_store_int8(q + 16 * g, t);
        v[g] = v_sub(t, v_set(V_ROUND));
    }
    ACT_LANES_TO_ONE(v, v_add);
    v_store(total, v[0]);
    for (uint32_t b = 0; b < blocks; b++, tile += h * ACT_ROW_BYTES) {
        const int32_t minus_sum[2] = { -(int32_t)total[2 * b], -(int32_t)total[2 * b + 1] };
        float sum = __builtin_fmaf(scale[2 * b + 1], total[2 * b + 1], scale[2 * b] * total[2 * b]);
        memcpy(tile + ACT_BLOCK * r, q + ACT_BLOCK * b, ACT_BLOCK);
        memcpy(tile + 32 * h + 8 * r, scale + 2 * b, 8);
        memcpy(tile + 40 * h + 8 * r, minus_sum, 8);
        memcpy(tile + 48 * h + 4 * r, &sum, 4);
    }
}

TARGET static void act_quantize(uint8_t *tile, uint32_t h, uint32_t r, const float *x, uint32_t k)
{
    uint32_t c = 0;
    for (; c + ACT_RUN <= k; c += ACT_RUN)
        act_quantize_run(tile + (size_t)act_blocks(c) * h * ACT_ROW_BYTES, h, r, x + c, ACT_RUN / ACT_BLOCK);
    if (c == k) return;
    float rest[ACT_RUN] = { 0 };
    memcpy(rest, x + c, (k - c) * sizeof(float));
    act_quantize_run(tile + (size_t)act_blocks(c) * h * ACT_ROW_BYTES, h, r, rest, act_blocks(k - c));
}

/* rest = x - its quantized form, in two roundings. */
TARGET static void act_lost_by_quantizing(float *rest, const uint8_t *tile, uint32_t h, uint32_t r, const float *x,
                                          uint32_t k)
{
    for (uint32_t c = 0; c < k; c += 16) {
        const uint8_t *block = tile + (size_t)(c / ACT_BLOCK) * h * ACT_ROW_BYTES;
        float scale;
        memcpy(&scale, block + 32 * h + 8 * r + c % ACT_BLOCK / 4, 4);
        vec q = v_load_i8(block + ACT_BLOCK * r + c % ACT_BLOCK);
        v_store(rest + c, v_sub(v_load(x + c), v_mul(v_set(scale), q)));
    }
}
#endif
