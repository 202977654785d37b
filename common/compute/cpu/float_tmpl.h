/* float_tmpl.h - matmul with weights of 16 and 32 bits for one vector instruction set.
 *
 * Included by dot_tmpl.h, whose dot_put() it uses. */
#ifndef COMPUTE_CPU_FLOAT_TMPL_H
#define COMPUTE_CPU_FLOAT_TMPL_H
/* --- float weights: one FMA per column, ascending --- */
VEC vec float_load_weight(const uint8_t *panel, uint32_t c, enum dtype type)
{
    size_t at = (size_t)c * PANEL_ROWS;
    if (type == DTYPE_F32) return v_load((const float *)(const void *)panel + at);
    const uint16_t *p = (const uint16_t *)(const void *)panel + at;
    return type == DTYPE_F16 ? v_load_half(p) : v_load_bf16(p);
}

VEC void float_tile(const struct matmul_job *job, uint32_t p, int panels, uint32_t row, int rows, enum dtype type)
{
    const float *x = job->f + (size_t)row * job->n_cols;
    const uint8_t *data = job->data + p * job->panel_bytes;
    vec acc[8];
    UNROLL for (int i = 0; i < panels * rows; i++) acc[i] = v_set(0);
    for (uint32_t c = 0; c < job->n_cols; c++) {
        UNROLL for (int i = 0; i < panels; i++)
        {
            vec w = float_load_weight(data + (size_t)i * job->panel_bytes, c, type);
            UNROLL for (int r = 0; r < rows; r++) acc[i * rows + r] =
                v_fma(v_set(x[(size_t)r * job->n_cols + c]), w, acc[i * rows + r]);
        }
    }
    UNROLL for (int i = 0; i < panels; i++)
    {
        struct dot_output o = dot_output_of(job, p + (uint32_t)i, row);
        dot_put(&o, acc + i * rows, rows);
    }
}

/* Few rows take several panels at a time, so that eight sums do not wait for each other. */
VEC void float_rows(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t row, int rows, int panels,
                    enum dtype type)
{
    uint32_t p = p0;
    for (; p + (uint32_t)panels <= p1; p += (uint32_t)panels) float_tile(job, p, panels, row, rows, type);
    for (; panels > 1 && p < p1; p++) float_tile(job, p, 1, row, rows, type);
}

VEC void float_panels(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1, enum dtype type)
{
    for (uint32_t row = r0; row < r1;) {
        switch (r1 - row) {
        case 1:
            float_rows(job, p0, p1, row, 1, 4, type);
            row += 1;
            break;
        case 2:
        case 3:
            float_rows(job, p0, p1, row, 2, 4, type);
            row += 2;
            break;
        case 4:
        case 5:
        case 6:
        case 7:
            float_rows(job, p0, p1, row, 4, 2, type);
            row += 4;
            break;
        default:
            float_rows(job, p0, p1, row, 8, 1, type);
            row += 8;
            break;
        }
    }
}

#define FLOAT_TYPE(name, type)                                                                                         \
    TARGET DOT_NOINLINE void float_##name(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0,         \
                                          uint32_t r1)                                                                 \
    {                                                                                                                  \
        float_panels(job, p0, p1, r0, r1, type);                                                                       \
    }
FLOAT_TYPE(f32, DTYPE_F32)
FLOAT_TYPE(f16, DTYPE_F16)
FLOAT_TYPE(bf16, DTYPE_BF16)

static void float_matmul(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1)
{
    if (job->type == DTYPE_F32)
        float_f32(job, p0, p1, r0, r1);
    else if (job->type == DTYPE_F16)
        float_f16(job, p0, p1, r0, r1);
    else
        float_bf16(job, p0, p1, r0, r1);
}
#endif
