/* rope_kv.c - RoPE and rotation of q and k, and the quantized k and v into the blocks of their sequences; each by
 * itself, or both in one pass over the rows. */
#include "compute/cpu/cpu_internal.h"
#include "compute/cpu/kv_slice.h"

#include <assert.h>
#include <math.h>
#include <string.h>

struct rope_run {
    struct cpu_backend *b;
    const struct kv_geometry *geom;
    const struct kv_slices *kv;
    const struct batch *batch;
    float *q, *keys; /* heads to turn, n_heads and n_keys of them */
    uint32_t n_heads, n_keys;
    const float *k, *v; /* to store, or NULL */
    size_t ld;          /* of all of these */
};

static bool same_params(const struct rope_table *t, const struct rope_params *p)
{
    const struct rope_params *o = &t->params;
    if (!t->valid || o->base != p->base || o->scale != p->scale || o->dims != p->dims || o->neox != p->neox ||
        o->attn_factor != p->attn_factor || !o->freq_factors != !p->freq_factors)
        return false;
    return !p->freq_factors || memcmp(t->factors, p->freq_factors, p->dims / 2 * sizeof(float)) == 0;
}

/* Another model or layer kind than in the last call: what the table holds is of no use. */
static void set_params(struct rope_table *t, const struct rope_params *p, uint32_t max_rows)
{
    t->params = *p;
    for (uint32_t i = 0; i < p->dims / 2; i++) {
        double f = pow((double)p->base, -2.0 * i / p->dims) * (double)p->scale;
        if (p->freq_factors) f /= (double)(t->factors[i] = p->freq_factors[i]);
        t->freq[i] = f;
    }
    t->params.freq_factors = p->freq_factors ? t->factors : NULL;
    for (uint32_t i = 0; i < max_rows; i++) t->pos[i] = UINT32_MAX;
    t->valid = true;
}

/* cos and sin in double, rounded once: the same floats wherever they are computed. */
static void fill_row(struct rope_table *t, float *c, float *s, uint32_t pos)
{
    const uint32_t half = t->params.dims / 2;
    for (uint32_t i = 0; i < half; i++) {
        double angle = (double)pos * t->freq[i], sine, cosine;
        sincos(angle, &sine, &cosine);
        float fc = (float)cosine * t->params.attn_factor, fs = (float)sine * t->params.attn_factor;
        uint32_t a = t->params.neox ? i : 2 * i, b = t->params.neox ? half + i : 2 * i + 1;
        c[a] = c[b] = fc;
        s[a] = -fs;
        s[b] = fs;
    }
}

static void turn(const struct rope_run *r, float *head, const float *c, const float *s)
{
    const struct rope_params *p = &r->b->rope.params;
    r->b->kernels->rope(head, c, s, p->dims, p->neox);
    if (r->geom->rotate) r->b->kernels->rotate(head, r->geom->head_dim);
}

static void store(const struct rope_run *r, uint8_t *slice, uint32_t head, bool is_v, uint32_t t, const float *x)
{
    const struct kv_geometry *geom = &r->kv->geom;
    uint8_t *part = slice + kv_slice_offset(geom, head, is_v);
    if (geom->format == KV_INT8) {
        int8_t values[512];
        kv_slice_scales(geom, part)[t] = r->b->kernels->kv_quantize(values, x, geom->head_dim);
        kv_slice_put_int8(part, geom->head_dim, is_v, t, values);
    } else {
        uint16_t values[512];
        r->b->kernels->to_half(values, x, geom->head_dim);
        kv_slice_put_f16(part, geom->head_dim, is_v, t, values);
    }
}

static void rope_row(const struct rope_run *r, uint32_t row, uint32_t pos)
{
    struct rope_table *t = &r->b->rope;
    const uint32_t dim = r->geom->head_dim;
    float *c = t->c + (size_t)row * r->b->limits.max_head_dim, *s = t->s + (size_t)row * r->b->limits.max_head_dim;
    if (t->pos[row] != pos) {
        fill_row(t, c, s, pos);
        t->pos[row] = pos;
    }
    for (uint32_t h = 0; h < r->n_heads; h++) turn(r, r->q + row * r->ld + (size_t)h * dim, c, s);
    for (uint32_t h = 0; h < r->n_keys; h++) turn(r, r->keys + row * r->ld + (size_t)h * dim, c, s);
}

static void store_row(const struct rope_run *r, const struct batch_seq *seq, uint32_t row, uint32_t pos)
{
    const uint32_t dim = r->geom->head_dim;
    uint8_t *slice = r->kv->base + seq_blocks(seq, r->kv)[pos / KV_BLOCK_TOKENS] * r->kv->stride;
    for (uint32_t h = 0; h < r->geom->n_kv_heads; h++) {
        store(r, slice, h, false, pos % KV_BLOCK_TOKENS, r->k + row * r->ld + (size_t)h * dim);
        store(r, slice, h, true, pos % KV_BLOCK_TOKENS, r->v + row * r->ld + (size_t)h * dim);
    }
}

static void rope_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct rope_run *r = arg;
    for (uint32_t i = 0; i < r->batch->n_seqs; i++) {
        const struct batch_seq *seq = &r->batch->seqs[i];
        uint32_t a = seq->row0 > row0 ? seq->row0 : row0;
        uint32_t b = seq->row0 + seq->n_rows < row1 ? seq->row0 + seq->n_rows : row1;
        for (; a < b; a++) {
            const uint32_t pos = seq->pos0 + (a - seq->row0);
            if (r->q) rope_row(r, a, pos);
            if (r->k) store_row(r, seq, a, pos);
        }
    }
}

static enum status run_rows(struct rope_run *r, const struct rope_params *rope, const struct step *step)
{
    struct cpu_backend *b = r->b;
    r->batch = step->batch;
    assert(r->batch->n_rows <= b->limits.max_rows && kv_slice_dim_ok(r->geom->head_dim));
    assert(r->geom->head_dim <= b->limits.max_head_dim);
    assert(!rope || (rope->dims <= r->geom->head_dim && rope->dims % 2 == 0));
    if (rope && !same_params(&b->rope, rope)) set_params(&b->rope, rope, b->limits.max_rows);
    cpu_for_rows(b, r->batch->n_rows, 1, rope_rows, r);
    return OK;
}

enum status cpu_rope(struct backend *b, struct stream *s, float *x, size_t ld, uint32_t n_heads,
                     const struct kv_geometry *geom, const struct rope_params *rope, const struct step *step)
{
    struct rope_run run = { .b = cpu_of(b), .geom = geom, .q = x, .n_heads = n_heads, .ld = ld };
    return run_rows(&run, rope, step);
}

enum status cpu_kv_write(struct backend *b, struct stream *s, const float *k, const float *v, size_t ld,
                         const struct kv_slices *kv, const struct step *step)
{
    struct rope_run run = { .b = cpu_of(b), .geom = &kv->geom, .kv = kv, .k = k, .v = v, .ld = ld };
    return run_rows(&run, NULL, step);
}

enum status cpu_rope_kv_write(struct backend *b, struct stream *s, float *qkv, size_t ld, uint32_t n_heads,
                              size_t k_off, size_t v_off, const struct kv_slices *kv, const struct rope_params *rope,
                              const struct step *step)
{
    struct rope_run run = { .b = cpu_of(b),
                            .geom = &kv->geom,
                            .kv = kv,
                            .q = qkv,
                            .keys = qkv + k_off,
                            .n_heads = n_heads,
                            .n_keys = kv->geom.n_kv_heads,
                            .k = qkv + k_off,
                            .v = qkv + v_off,
                            .ld = ld };
    return run_rows(&run, rope, step);
}
