/* rows_tmpl.h - kernels that take a row of fp32 as it is: norms, gates, scales, and a router's probabilities.
 *
 * Included by vec_tmpl.h, after a vec_*_tmpl.h and math_tmpl.h. */
#ifndef COMPUTE_CPU_ROWS_TMPL_H
#define COMPUTE_CPU_ROWS_TMPL_H

VEC vec row_inverse_rms(const float *x, uint32_t k, float eps)
{
    vec squares = v_set(0);
    for (uint32_t i = 0; i < k; i += 16) squares = v_fma(v_load(x + i), v_load(x + i), squares);
    return v_set(1.0f / sqrtf(v_sum(squares) / (float)k + eps));
}

TARGET static void row_rmsnorm(float *out, const float *x, const float *w, uint32_t k, float eps)
{
    const vec inv = row_inverse_rms(x, k, eps);
    for (uint32_t i = 0; w && i < k; i += 16) v_store(out + i, v_mul(v_mul(v_load(x + i), inv), v_load(w + i)));
    for (uint32_t i = 0; !w && i < k; i += 16) v_store(out + i, v_mul(v_load(x + i), inv));
}

TARGET static void row_norm_add(float *x, const float *y, const float *w, uint32_t k, float eps)
{
    const vec inv = row_inverse_rms(y, k, eps);
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

TARGET static float row_exp_sum(const float *x, uint32_t n, float top, float t)
{
    vec sum = v_set(0);
    for (uint32_t i = 0; i < n; i += 16) sum = v_add(sum, v_weight(x + i, top, t));
    return v_sum(sum);
}

TARGET static void row_exp(float *x, uint32_t n, float top, float t)
{
    for (uint32_t i = 0; i < n; i += 16) v_store(x + i, v_weight(x + i, top, t));
}

/* --- gates --- */
TARGET static void row_glu_silu(float *out, const float *gate, const float *up, uint32_t k)
{
    for (uint32_t i = 0; i < k; i += 16) {
        vec g = v_load(gate + i);
        v_store(out + i, v_mul(v_gated(g, v_sub(v_set(0), g)), v_load(up + i)));
    }
}

/* 0.5 g (1 + tanh(u)) is g sigmoid(2 u), u = sqrt(2 / pi) (g + 0.044715 g^3). */
TARGET static void row_glu_gelu(float *out, const float *gate, const float *up, uint32_t k)
{
    for (uint32_t i = 0; i < k; i += 16) {
        vec g = v_load(gate + i);
        vec cubic = v_mul(g, v_fma(v_mul(g, g), v_set(0.044715f), v_set(1.0f)));
        v_store(out + i, v_mul(v_gated(g, v_mul(cubic, v_set(-1.59576912f))), v_load(up + i)));
    }
}

TARGET static void row_glu_oai(float *out, const float *gate, const float *up, uint32_t k)
{
    for (uint32_t i = 0; i < k; i += 16) {
        vec g = v_min(v_set(7.0f), v_load(gate + i));
        vec u = v_max(v_set(-7.0f), v_min(v_set(7.0f), v_load(up + i)));
        v_store(out + i, v_mul(v_gated(g, v_mul(g, v_set(-1.702f))), v_add(u, v_set(1.0f))));
    }
}

TARGET static void row_gate(float *x, const float *gate, uint32_t k)
{
    for (uint32_t i = 0; i < k; i += 16) v_store(x + i, v_gated(v_load(x + i), v_sub(v_set(0), v_load(gate + i))));
}

/* x += the sum over j of w[j] y[j]; rows of y are k floats. */
TARGET static void row_add_weighted(float *x, const float *y, const float *w, uint32_t n, uint32_t k)
{
    for (uint32_t i = 0; i < k; i += 16) {
        vec sum = v_set(0);
        for (uint32_t j = 0; j < n; j++) sum = v_fma(v_set(w[j]), v_load(y + (size_t)j * k + i), sum);
        v_store(x + i, v_add(v_load(x + i), sum));
    }
}

/* --- any number of floats --- */
/* Up to 16 of them; lanes past the end are `other`. */
VEC vec v_load_some(const float *x, uint32_t n, float other)
{
    float lanes[16];
    if (n >= 16) return v_load(x);
    v_store(lanes, v_set(other));
    memcpy(lanes, x, n * sizeof(float));
    return v_load(lanes);
}

VEC void v_store_some(float *x, vec v, uint32_t n)
{
    float lanes[16];
    v_store(n < 16 ? lanes : x, v);
    if (n < 16) memcpy(x, lanes, n * sizeof(float));
}

TARGET static void row_add(float *y, const float *b, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) v_store(y + i, v_add(v_load(y + i), v_load(b + i)));
    for (; i < n; i++) y[i] += b[i];
}

TARGET static void row_scale(float *x, uint32_t n, float factor)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) v_store(x + i, v_mul(v_load(x + i), v_set(factor)));
    for (; i < n; i++) x[i] *= factor;
}

TARGET static void row_softcap(float *x, uint32_t n, float cap)
{
    const vec c = v_set(cap), inv = v_set(1.0f / cap);
    for (uint32_t i = 0; i < n; i += 16)
        v_store_some(x + i, v_mul(c, v_tanh(v_mul(v_load_some(x + i, n - i, 0), inv))), n - i);
}

TARGET static void row_softmax(float *p, const float *x, uint32_t n)
{
    vec max = v_set(-INFINITY), sum = v_set(0);
    for (uint32_t i = 0; i < n; i += 16) max = v_max(max, v_load_some(x + i, n - i, -INFINITY));
    max = v_set(v_max_lane(max));
    for (uint32_t i = 0; i < n; i += 16) {
        vec e = v_first(v_exp(v_sub(v_load_some(x + i, n - i, 0), max)), v_set(0), n - i);
        sum = v_add(sum, e);
        v_store_some(p + i, e, n - i);
    }
    sum = v_set(v_sum(sum));
    for (uint32_t i = 0; i < n; i += 16) v_store_some(p + i, v_div(v_load_some(p + i, n - i, 0), sum), n - i);
}

/* A router's logits to probabilities; p may be x. */
TARGET static void row_route_gate(float *p, const float *x, uint32_t n, enum route_gate gate)
{
    const vec one = v_set(1.0f);
    if (gate == ROUTE_SOFTMAX) row_softmax(p, x, n);
    if (gate == ROUTE_SOFTMAX) return;
    for (uint32_t i = 0; i < n; i += 16) {
        vec v = v_load_some(x + i, n - i, 0);
        if (gate == ROUTE_SIGMOID) v = v_div(one, v_add(v_exp(v_sub(v_set(0), v)), one));
        if (gate == ROUTE_SQRT_SOFTPLUS) v = v_softplus(v);
        v_store_some(p + i, v, n - i);
    }
    for (uint32_t i = 0; i < n && gate == ROUTE_SQRT_SOFTPLUS; i++) p[i] = sqrtf(p[i]);
}
#endif
