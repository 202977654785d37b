/* vec_ref_tmpl.h - sixteen fp32 lanes in plain C: the meaning of every vector operation. */
#ifndef COMPUTE_CPU_VEC_REF_TMPL_H
#define COMPUTE_CPU_VEC_REF_TMPL_H
#include "compute/cpu/half.h"

#define TARGET
#define VEC              static inline
#define LEVEL_STATE_VECS 1

typedef struct {
    float l[16];
} vec;

#define VEC_EACH(expr)                                                                                                 \
    vec r;                                                                                                             \
    for (int i = 0; i < 16; i++) r.l[i] = (expr);                                                                      \
    return r

VEC vec v_load(const float *p)
{
    VEC_EACH(p[i]);
}
VEC vec v_set(float x)
{
    VEC_EACH(x);
}
VEC vec v_load_half(const uint16_t *p)
{
    VEC_EACH(half_to_float(p[i]));
}
VEC vec v_load_bf16(const uint16_t *p)
{
    VEC_EACH(bf16_to_float(p[i]));
}
VEC vec v_load_i8(const uint8_t *p)
{
    VEC_EACH((float)(int8_t)p[i]);
}
VEC vec v_add(vec a, vec b)
{
    VEC_EACH(a.l[i] + b.l[i]);
}
VEC vec v_sub(vec a, vec b)
{
    VEC_EACH(a.l[i] - b.l[i]);
}
VEC vec v_mul(vec a, vec b)
{
    VEC_EACH(a.l[i] * b.l[i]);
}
VEC vec v_div(vec a, vec b)
{
    VEC_EACH(a.l[i] / b.l[i]);
}
VEC vec v_fma(vec a, vec b, vec c)
{
    VEC_EACH(__builtin_fmaf(a.l[i], b.l[i], c.l[i]));
}
/* The second one where either is NaN. */
VEC vec v_max(vec a, vec b)
{
    VEC_EACH(a.l[i] > b.l[i] ? a.l[i] : b.l[i]);
}
VEC vec v_min(vec a, vec b)
{
    VEC_EACH(a.l[i] < b.l[i] ? a.l[i] : b.l[i]);
}
/* a < b ? x : y, lane by lane */
VEC vec v_if_less(vec a, vec b, vec x, vec y)
{
    VEC_EACH(a.l[i] < b.l[i] ? x.l[i] : y.l[i]);
}
/* Lanes [0, n) of x, the rest of y. */
VEC vec v_first(vec x, vec y, uint32_t n)
{
    VEC_EACH((uint32_t)i < n ? x.l[i] : y.l[i]);
}
/* The lane at distance 1, 2, 4, 8 in its pair. */
VEC vec v_swap1(vec a)
{
    VEC_EACH(a.l[i ^ 1]);
}
VEC vec v_swap2(vec a)
{
    VEC_EACH(a.l[i ^ 2]);
}
VEC vec v_swap4(vec a)
{
    VEC_EACH(a.l[i ^ 4]);
}
VEC vec v_swap8(vec a)
{
    VEC_EACH(a.l[i ^ 8]);
}
/* Lanes whose number has bit `step` (1, 2, 4 or 8) from b, the others from a. */
VEC vec v_alternate(vec a, vec b, int step)
{
    VEC_EACH(i & step ? b.l[i] : a.l[i]);
}
/* 2^n for t = n + 1.5 * 2^23, n in -126 .. 127 */
VEC vec v_pow2(vec t)
{
    VEC_EACH(half_from_bits((half_bits_of(t.l[i]) - 0x4b400000u + 127) << 23));
}
/* The larger magnitude, compared as bits: NaN and infinity win. */
VEC vec v_magnitude(vec a, vec b)
{
    VEC_EACH((half_bits_of(a.l[i]) & 0x7fffffffu) > (half_bits_of(b.l[i]) & 0x7fffffffu)
                 ? half_from_bits(half_bits_of(a.l[i]) & 0x7fffffffu)
                 : half_from_bits(half_bits_of(b.l[i]) & 0x7fffffffu));
}

VEC void v_store(float *p, vec a)
{
    for (int i = 0; i < 16; i++) p[i] = a.l[i];
}

VEC void v_store_half(uint16_t *p, vec a)
{
    for (int i = 0; i < 16; i++) p[i] = half_from_float(a.l[i]);
}

/* Low bits of lanes that are n + 1.5 * 2^23: the integer n. */
VEC void v_store_int8(int8_t *p, vec t)
{
    for (int i = 0; i < 16; i++) p[i] = (int8_t)(half_bits_of(t.l[i]) & 0xff);
}

/* The same, 16 bits, each four lanes in the order 0 2 1 3. */
VEC void v_store_int16(int16_t *p, vec t)
{
    static const uint8_t order[4] = { 0, 2, 1, 3 };
    for (int i = 0; i < 16; i++) p[i] = (int16_t)(half_bits_of(t.l[(i & ~3) + order[i & 3]]) & 0xffff);
}

/* Sum and maximum in a tree: lanes 8 apart, then 4, 2, 1. */
VEC float v_sum(vec a)
{
    for (int step = 8; step; step /= 2)
        for (int i = 0; i < step; i++) a.l[i] = a.l[i] + a.l[i + step];
    return a.l[0];
}

VEC float v_max_lane(vec a)
{
    for (int step = 8; step; step /= 2)
        for (int i = 0; i < step; i++) a.l[i] = a.l[i] > a.l[i + step] ? a.l[i] : a.l[i + step];
    return a.l[0];
}

/* The largest lane of a result of v_magnitude(), as bits. */
VEC uint32_t v_magnitude_bits(vec a)
{
    uint32_t max = 0;
    for (int i = 0; i < 16; i++)
        if (half_bits_of(a.l[i]) > max) max = half_bits_of(a.l[i]);
    return max;
}
#endif
