/* rows_tmpl.h - kernels that take a row of fp32 as it is: norms, gates, scales, and a router's probabilities.
 *
 * Included by vec_kernels.h, after a vec_*.h and math_tmpl.h. */
#ifndef COMPUTE_CPU_ROWS_TMPL_H
#define COMPUTE_CPU_ROWS_TMPL_H

VEC vec inverse_rms(const float *x, uint32_t k, float eps)
{
    vec squares = v_set(0);
    for (uint32_t i = 0; i < k; i += 16) squares = v_fma(v_load(x + i), v_load(x + i), squares);
    return v_set(1.0f / sqrtf(v_sum(squares) / (float)k + eps));
}

TARGET static void rmsnorm(float *out, const float *x, const float *w, uint32_t k, float eps)
{
    const vec inv = inverse_rms(x, k, eps);
    for (uint32_t i = 0; w && i < k; i += 16) v_store(out + i, v_mul(v_mul(v_load(x + i), inv), v_load(w + i)));
    for (uint32_t i = 0; !w && i < k; i += 16) v_store(out + i, v_mul(v_load(x + i), inv));
}

TARGET static void norm_add(float *x, const float *y, const float *w, uint32_t k, float eps)
{
    const vec inv = inverse_rms(y, k, eps);
    for (uint32_t i = 0; i < k; i += 16) {
        vec n = v_mul(v_load(y + i), inv);
        if (w) n = v_mul(n, v_load(w + i));
        v_store(x + i, v_add(v_load(x + i), n));
    }
}

/* --- weights of logits: exp((x - top) / t), n a multiple of 16 --- */
VEC vec v_weight(const float *x, float top, float t)
{
    return v_exp(v_div(v_sub(v_load(x), v_set(top)), v_set(t)));
}

TARGET static float exp_sum(const float *x, uint32_t n, float top, float t)
{
    vec sum = v_set(0);
    for (uint32_t i = 0; i < n; i += 16) sum = v_add(sum, v_weight(x + i, top, t));
    return v_sum(sum);
}

TARGET static void exp_row(float *x, uint32_t n, float top, float t)
{
    for (uint32_t i = 0; i < n; i += 16) v_store(x + i, v_weight(x + i, top, t));
}

/* --- gates --- */
TARGET static void glu_silu(float *out, const float *gate, const float *up, uint32_t k)
{
    for (uint32_t i = 0; i < k; i += 16) {
        vec g = v_load(gate + i);
        v_store(out + i, v_mul(v_gated(g, v_sub(v_set(0), g)), v_load(up + i)));
    }
}

/* 0.5 g (1 + tanh(u)) is g sigmoid(2 u), u = sqrt(2 / pi) (g + 0.044715 g^3). */
TARGET static void glu_gelu(float *out, const float *gate, const float *up, uint32_t k)
{
    for (uint32_t i = 0; i < k; i += 16) {
        vec g = v_load(gate + i);
        vec cubic = v_mul(g, v_fma(v_mul(g, g), v_set(0.044715f), v_set(1.0f)));
        v_store(out + i, v_mul(v_gated(g, v_mul(cubic, v_set(-1.59576912f))), v_load(up + i)));
    }
}

TARGET static void glu_oai(float *out, const float *gate, const float *up, uint32_t k)
{
    for (uint32_t i = 0; i < k; i += 16) {
        vec g = v_min(v_set(7.0f), v_load(gate + i));
        vec u = v_max(v_set(-7.0f), v_min(v_set(7.0f), v_load(up + i)));
        v_store(out + i, v_mul(v_gated(g, v_mul(g, v_set(-1.702f))), v_add(u, v_set(1.0f))));
    }
}

TARGET static void gate_row(float *x, const float *gate, uint32_t k)
{
    for (uint32_t i = 0; i < k; i += 16) v_store(x + i, v_gated(v_load(x + i), v_sub(v_set(0), v_load(gate + i))));
}

/* --- any number of floats --- */
TARGET static void add(float *y, const float *b, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) v_store(y + i, v_add(v_load(y + i), v_load(b + i)));
    for (; i < n; i++) y[i] += b[i];
}

TARGET static void scale_row(float *x, uint32_t n, float factor)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) v_store(x + i, v_mul(v_load(x + i), v_set(factor)));
    for (; i < n; i++) x[i] *= factor;
}

TARGET static void softcap(float *x, uint32_t n, float cap)
{
    const vec c = v_set(cap), inv = v_set(1.0f / cap);
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) v_store(x + i, v_mul(c, v_tanh(v_mul(v_load(x + i), inv))));
    if (i == n) return;
    float rest[16] = { 0 };
    memcpy(rest, x + i, (n - i) * sizeof(float));
    v_store(rest, v_mul(c, v_tanh(v_mul(v_load(rest), inv))));
    memcpy(x + i, rest, (n - i) * sizeof(float));
}
#endif
