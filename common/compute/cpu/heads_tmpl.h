/* heads_tmpl.h - kernels of one head of q, k or v: its quantizers, RoPE and the rotation.
 *
 * Included by vec_tmpl.h. */
#ifndef COMPUTE_CPU_HEADS_TMPL_H
#define COMPUTE_CPU_HEADS_TMPL_H

VEC struct v_step v_step_of_head(const float *x, uint32_t dim, float top)
{
    vec m = v_set(0);
    for (uint32_t i = 0; i < dim; i += 16) m = v_magnitude(m, v_load(x + i));
    return v_step_of(v_magnitude_bits(m), top);
}

TARGET static float head_kv_quantize(int8_t *out, const float *x, uint32_t dim)
{
    struct v_step s = v_step_of_head(x, dim, 127.0f);
    if (!s.finite) {
        memset(out, 0, dim);
        return s.scale;
    }
    for (uint32_t i = 0; i < dim; i += 16) v_store_int8(out + i, v_fma(v_load(x + i), v_set(s.inv), v_set(V_ROUND)));
    return s.scale;
}

TARGET static float head_q_quantize(int16_t *out, const float *x, uint32_t dim)
{
    struct v_step s = v_step_of_head(x, dim, 32767.0f);
    if (!s.finite) {
        memset(out, 0, dim * sizeof(*out));
        return s.scale;
    }
    for (uint32_t i = 0; i < dim; i += 16) v_store_int16(out + i, v_fma(v_load(x + i), v_set(s.inv), v_set(V_ROUND)));
    return s.scale;
}

TARGET static void head_to_half(uint16_t *out, const float *x, uint32_t dim)
{
    for (uint32_t i = 0; i < dim; i += 16) v_store_half(out + i, v_load(x + i));
}

/* --- rotations --- */
TARGET static void head_rope(float *x, const float *c, const float *s, uint32_t dims, bool neox)
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

static const float head_sign1[16] = { 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1 };
static const float head_sign2[16] = { 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1 };
static const float head_sign4[16] = { 1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1 };
static const float head_sign8[16] = { 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1 };

/* The largest power of two that divides dim is the size of the transform: 80 = 5 x 16, 96 = 3 x 32. */
TARGET static void head_rotate(float *x, uint32_t dim)
{
    const uint32_t size = dim & (~dim + 1);
    const vec norm = v_set(1.0f / sqrtf((float)size));
    for (uint32_t i = 0; i < dim; i += 16) {
        vec v = v_load(x + i);
        v = v_fma(v, v_load(head_sign1), v_swap1(v));
        v = v_fma(v, v_load(head_sign2), v_swap2(v));
        v = v_fma(v, v_load(head_sign4), v_swap4(v));
        v = v_fma(v, v_load(head_sign8), v_swap8(v));
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
#endif
