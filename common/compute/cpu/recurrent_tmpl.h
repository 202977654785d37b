/* recurrent_tmpl.h - the recurrences of one instruction set, written once over sixteen lanes.
 *
 * Included by each level_*.c after vec_tmpl.h.  Lanes are columns of a state, which never meet each other; sums over
 * its rows are chains of fma, row 0 first.  So neither the cut into columns nor that into steps changes a bit. */
#ifndef COMPUTE_CPU_RECURRENT_TMPL_H
#define COMPUTE_CPU_RECURRENT_TMPL_H

VEC vec v_silu(vec x)
{
    return v_gated(x, v_sub(v_set(0), x));
}

/* --- a convolution's row --- */
TARGET static void conv_row(float *out, const struct conv_row *c, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16) {
        vec acc = c->bias ? v_load(c->bias + i) : v_set(0);
        for (uint32_t j = 0; j < c->kernel; j++)
            acc = v_fma(v_load(c->w + j * c->w_ld + i), v_load(c->tap[j] + i / 16 * c->tap_step[j]), acc);
        v_store(out + i, c->silu ? v_silu(acc) : acc);
    }
}

/* --- gates of one head, of up to 16 rows --- */
VEC vec v_strided(const float *x, size_t ld, uint32_t n)
{
    float lanes[16] = { 0 };
    for (uint32_t i = 0; i < n; i++) lanes[i] = x[i * ld];
    return v_load(lanes);
}

/* dt = softplus(x + bias), decay = exp(dt a) */
VEC void decay_gates(float *dt, float *decay, const float *x, size_t ld, uint32_t n, float bias, float a)
{
    vec t = v_softplus(v_add(v_strided(x, ld, n), v_set(bias)));
    v_store(dt, t);
    v_store(decay, v_exp(v_mul(t, v_set(a))));
}

VEC void sigmoid_gates(float *out, const float *x, size_t ld, uint32_t n)
{
    vec e = v_exp(v_sub(v_set(0), v_strided(x, ld, n)));
    v_store(out, v_div(v_set(1.0f), v_add(e, v_set(1.0f))));
}

VEC uint32_t gate_rows(uint32_t n_rows, uint32_t t)
{
    return n_rows - t < 16 ? n_rows - t : 16;
}

TARGET static void unit_length(float *x, uint32_t n, float eps, float factor)
{
    vec squares = v_set(0);
    for (uint32_t i = 0; i < n; i += 16) squares = v_fma(v_load(x + i), v_load(x + i), squares);
    vec inv = v_set(factor / sqrtf(v_sum(squares) + eps));
    for (uint32_t i = 0; i < n; i += 16) v_store(x + i, v_mul(v_load(x + i), inv));
}

/* --- the gated delta rule --- */

/* u = k S for the first row; later ones get theirs while S is written. */
VEC void delta_first(vec *u, const float *s, size_t s_ld, const float *k, uint32_t keys, int vecs)
{
    UNROLL for (int i = 0; i < vecs; i++) u[i] = v_set(0);
    for (uint32_t j = 0; j < keys; j++)
        UNROLL for (int i = 0; i < vecs; i++) u[i] = v_fma(v_load(s + i * s_ld + 16 * j), v_set(k[j]), u[i]);
}

/* S = a S + k d; o = q S, and u = k_next S unless this is the last row. */
VEC void delta_pass(vec *o, vec *u, float *s, size_t s_ld, const vec *d, float a, const float *k, const float *q,
                    const float *k_next, uint32_t keys, int vecs, bool is_last)
{
    const vec decay = v_set(a);
    UNROLL for (int i = 0; i < vecs; i++) o[i] = u[i] = v_set(0);
    for (uint32_t j = 0; j < keys; j++) {
        vec x[LEVEL_STATE_VECS]; /* a row's are loaded before one is stored: whole pages may lie between them */
        UNROLL for (int i = 0; i < vecs; i++) x[i] = v_load(s + i * s_ld + 16 * j);
        UNROLL for (int i = 0; i < vecs; i++)
        {
            x[i] = v_fma(d[i], v_set(k[j]), v_mul(decay, x[i]));
            v_store(s + i * s_ld + 16 * j, x[i]);
            o[i] = v_fma(x[i], v_set(q[j]), o[i]);
            if (!is_last) u[i] = v_fma(x[i], v_set(k_next[j]), u[i]);
        }
    }
}

VEC void delta_columns(const struct delta_slab *r, uint32_t v, int vecs)
{
    const size_t s_ld = (size_t)r->keys * 16;
    float *s = r->s + v * s_ld;
    float dt[16], decay[16], beta[16];
    vec u[LEVEL_STATE_VECS], d[LEVEL_STATE_VECS], o[LEVEL_STATE_VECS];
    delta_first(u, s, s_ld, r->k, r->keys, vecs);
    for (uint32_t t = 0; t < r->n_rows; t++) {
        const float *k = r->k + t * r->ld, *q = r->q + t * r->ld, *x = r->v + t * r->ld + 16 * v;
        if (t % 16 == 0) {
            decay_gates(dt, decay, r->alpha + t * r->alpha_ld, r->alpha_ld, gate_rows(r->n_rows, t), r->dt_bias, r->a);
            sigmoid_gates(beta, r->beta + t * r->beta_ld, r->beta_ld, gate_rows(r->n_rows, t));
        }
        const float a = decay[t % 16], b = beta[t % 16];
        UNROLL for (int i = 0; i < vecs; i++) d[i] = v_mul(v_set(b), v_fma(v_set(-a), u[i], v_load(x + 16 * i)));
        if (t + 1 < r->n_rows)
            delta_pass(o, u, s, s_ld, d, a, k, q, k + r->ld, r->keys, vecs, false);
        else
            delta_pass(o, u, s, s_ld, d, a, k, q, k, r->keys, vecs, true);
        UNROLL for (int i = 0; i < vecs; i++) v_store(r->out + t * r->out_ld + 16 * (v + (uint32_t)i), o[i]);
    }
}

/* A single row is bound by memory, which likes one run better than two. */
VEC uint32_t together(uint32_t n_vecs, uint32_t n_rows)
{
    return n_rows > 1 ? n_vecs - n_vecs % LEVEL_STATE_VECS : 0;
}

TARGET static void delta_slab(const struct delta_slab *r)
{
    const uint32_t wide = together(r->n_vecs, r->n_rows);
    for (uint32_t v = 0; v < wide; v += LEVEL_STATE_VECS) delta_columns(r, v, LEVEL_STATE_VECS);
    for (uint32_t v = wide; v < r->n_vecs; v++) delta_columns(r, v, 1);
}

/* --- Mamba-2's scan: `steps` rows of the step in one pass over S --- */
VEC void mamba2_pass(const struct mamba2_slab *r, float *s, size_t s_ld, const float *dt, const float *decays,
                     uint32_t t, uint32_t v, int vecs, int steps)
{
    vec x[2 * LEVEL_STATE_VECS], o[2 * LEVEL_STATE_VECS], decay[2];
    const float *b = r->b + t * r->ld, *c = r->c + t * r->ld;
    UNROLL for (int k = 0; k < steps; k++)
    {
        const float *in = r->x + (t + (uint32_t)k) * r->ld + 16 * v;
        decay[k] = v_set(decays[k]);
        UNROLL for (int i = 0; i < vecs; i++)
        {
            x[k * vecs + i] = v_mul(v_set(dt[k]), v_load(in + 16 * i));
            o[k * vecs + i] = v_set(0);
        }
    }
    for (uint32_t n = 0; n < r->rows; n++) {
        vec y[LEVEL_STATE_VECS];
        UNROLL for (int i = 0; i < vecs; i++) y[i] = v_load(s + i * s_ld + 16 * n);
        UNROLL for (int i = 0; i < vecs; i++)
        {
            UNROLL for (int k = 0; k < steps; k++)
            {
                const size_t row = (size_t)k * r->ld + n;
                y[i] = v_fma(x[k * vecs + i], v_set(b[row]), v_mul(decay[k], y[i]));
                o[k * vecs + i] = v_fma(y[i], v_set(c[row]), o[k * vecs + i]);
            }
            v_store(s + i * s_ld + 16 * n, y[i]);
        }
    }
    UNROLL for (int k = 0; k < steps; k++) UNROLL for (int i = 0; i < vecs; i++)
    {
        const size_t row = t + (uint32_t)k, at = 16 * (v + (size_t)i);
        v_store(r->out + row * r->out_ld + at, v_fma(v_set(r->d), v_load(r->x + row * r->ld + at), o[k * vecs + i]));
    }
}

VEC void mamba2_columns(const struct mamba2_slab *r, uint32_t v, int vecs)
{
    const size_t s_ld = (size_t)r->rows * 16;
    float dt[16], decay[16], *s = r->s + v * s_ld;
    for (uint32_t t0 = 0; t0 < r->n_rows; t0 += 16) {
        const uint32_t n = gate_rows(r->n_rows, t0);
        uint32_t t = 0;
        decay_gates(dt, decay, r->dt + t0 * r->dt_ld, r->dt_ld, n, r->dt_bias, r->a);
        for (; t + 2 <= n; t += 2) mamba2_pass(r, s, s_ld, dt + t, decay + t, t0 + t, v, vecs, 2);
        if (t < n) mamba2_pass(r, s, s_ld, dt + t, decay + t, t0 + t, v, vecs, 1);
    }
}

TARGET static void mamba2_slab(const struct mamba2_slab *r)
{
    const uint32_t wide = together(r->n_vecs, r->n_rows);
    for (uint32_t v = 0; v < wide; v += LEVEL_STATE_VECS) mamba2_columns(r, v, LEVEL_STATE_VECS);
    for (uint32_t v = wide; v < r->n_vecs; v++) mamba2_columns(r, v, 1);
}

/* --- norm and gate of one group of columns --- */
TARGET static void norm_gate(float *out, const float *x, const float *gate, const float *w, uint32_t n, float eps,
                             bool gate_first)
{
    vec squares = v_set(0);
    for (uint32_t i = 0; i < n; i += 16) {
        vec y = v_load(x + i);
        if (gate_first) y = v_mul(y, v_silu(v_load(gate + i)));
        v_store(out + i, y);
        squares = v_fma(y, y, squares);
    }
    vec inv = v_set(1.0f / sqrtf(v_sum(squares) / (float)n + eps));
    for (uint32_t i = 0; i < n; i += 16) {
        vec y = v_mul(v_mul(v_load(out + i), inv), v_load(w + i));
        v_store(out + i, gate_first ? y : v_mul(y, v_silu(v_load(gate + i))));
    }
}

/* The slots of a kernel table that this file fills. */
#define RECURRENT_KERNELS                                                                                              \
    .conv_row = conv_row, .unit_length = unit_length, .delta_slab = delta_slab, .mamba2_slab = mamba2_slab,            \
    .norm_gate = norm_gate
#endif
