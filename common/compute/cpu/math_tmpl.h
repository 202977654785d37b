/* math_tmpl.h - exp, tanh and softplus over sixteen lanes.
 *
 * Included by vec_tmpl.h, after a vec_*_tmpl.h. */
#ifndef COMPUTE_CPU_MATH_TMPL_H
#define COMPUTE_CPU_MATH_TMPL_H

#define V_ROUND 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, kept in the low bits */

/* exp(x) to about 1 ulp: x = n ln 2 + r, 2^n times a polynomial of r.  0 below -87.33, large above 88. */
VEC vec v_exp(vec x)
{
    const vec low = v_set(-87.33654f);
    vec c = v_min(v_set(88.02f), v_max(low, x));
    vec t = v_fma(c, v_set(1.44269504f), v_set(V_ROUND));
    vec n = v_sub(t, v_set(V_ROUND));
    vec r = v_fma(n, v_set(-0.693359375f), c);
    r = v_fma(n, v_set(2.12194440e-4f), r);
    vec p = v_set(1.9875691500e-4f);
    p = v_fma(p, r, v_set(1.3981999507e-3f));
    p = v_fma(p, r, v_set(8.3334519073e-3f));
    p = v_fma(p, r, v_set(4.1665795894e-2f));
    p = v_fma(p, r, v_set(1.6666665459e-1f));
    p = v_fma(p, r, v_set(5.0000001201e-1f));
    p = v_fma(p, v_mul(r, r), r);
    p = v_mul(v_add(p, v_set(1.0f)), v_pow2(t));
    return v_if_less(x, low, v_set(0), p);
}

TARGET static float v_exp_one(float x)
{
    float lanes[16];
    v_store(lanes, v_exp(v_set(x)));
    return lanes[0];
}

/* x sigmoid(f x) for any factor: x / (exp(-f x) + 1). */
VEC vec v_gated(vec x, vec minus_fx)
{
    return v_div(x, v_add(v_exp(minus_fx), v_set(1.0f)));
}

/* A polynomial of x^2 near 0, where 1 - 2 / (exp(2 |x|) + 1) loses digits. */
VEC vec v_tanh(vec x)
{
    vec size = v_magnitude(x, v_set(0)), z = v_mul(x, x), p = v_set(-5.70498872745e-3f);
    p = v_fma(p, z, v_set(2.06390887954e-2f));
    p = v_fma(p, z, v_set(-5.37397155531e-2f));
    p = v_fma(p, z, v_set(1.33314422036e-1f));
    p = v_fma(p, z, v_set(-3.33332819422e-1f));
    p = v_fma(v_mul(p, z), x, x);
    vec t = v_div(v_set(2.0f), v_add(v_exp(v_add(size, size)), v_set(1.0f)));
    t = v_sub(v_set(1.0f), t);
    t = v_if_less(x, v_set(0), v_sub(v_set(0), t), t);
    return v_if_less(size, v_set(0.625f), p, t);
}

/* log(1 + e) for e in 0 .. 1.  What 1 + e rounds away comes back by the factor e / ((1 + e) - 1). */
VEC vec v_log1p(vec e)
{
    const vec one = v_set(1.0f), root = v_set(1.41421356f);
    vec u = v_add(e, one), kept = v_sub(u, one);
    vec x = v_if_less(u, root, kept, v_sub(v_mul(u, v_set(0.5f)), one)), z = v_mul(x, x);
    vec n = v_if_less(u, root, v_set(0), one), p = v_set(7.0376836292e-2f);
    p = v_fma(p, x, v_set(-1.1514610310e-1f));
    p = v_fma(p, x, v_set(1.1676998740e-1f));
    p = v_fma(p, x, v_set(-1.2420140846e-1f));
    p = v_fma(p, x, v_set(1.4249322787e-1f));
    p = v_fma(p, x, v_set(-1.6668057665e-1f));
    p = v_fma(p, x, v_set(2.0000714765e-1f));
    p = v_fma(p, x, v_set(-2.4999993993e-1f));
    p = v_fma(p, x, v_set(3.3333331174e-1f));
    p = v_fma(n, v_set(-2.12194440e-4f), v_mul(v_mul(x, z), p));
    p = v_fma(n, v_set(0.693359375f), v_add(x, v_fma(z, v_set(-0.5f), p)));
    p = v_mul(p, v_div(e, v_if_less(v_set(0), kept, kept, one)));
    return v_if_less(v_set(0), kept, p, e);
}

/* log(1 + exp(x)) */
VEC vec v_softplus(vec x)
{
    vec size = v_magnitude(x, v_set(0));
    return v_add(v_max(v_set(0), x), v_log1p(v_exp(v_sub(v_set(0), size))));
}
#endif
