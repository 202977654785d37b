/* block_sizes.c - the maxima over the blocks of a model. */
#include "model/block_sizes.h"

#include "model/layer.h"

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void raise(uint32_t *max, uint32_t v)
{
    if (v > *max) *max = v;
}

void sizes_init(struct block_sizes *s, struct backend *backend, uint32_t n_rows, uint32_t d_model)
{
    *s = (struct block_sizes){ .backend = backend, .n_rows = n_rows, .d_model = d_model };
}

void sizes_act(struct block_sizes *s, uint32_t n, uint32_t k, enum precision precision)
{
    raise(&s->limits.max_cols, k);
    if (!s->backend) return;
    s->act_floats = max_size(s->act_floats, (size_t)n * k);
    s->act_q_bytes = max_size(s->act_q_bytes, s->backend->ops->act_bytes(s->backend, n, k, precision));
}

void sizes_work(struct block_sizes *s, double row_macs, double position_macs)
{
    s->row_macs += row_macs;
    s->position_macs += position_macs;
}

void sizes_wide(struct block_sizes *s, size_t floats)
{
    s->wide_floats = max_size(s->wide_floats, floats);
}

void sizes_latent(struct block_sizes *s, uint32_t n_heads, uint32_t latent)
{
    raise(&s->max_latent_heads, n_heads);
    raise(&s->limits.max_latent, latent);
    raise(&s->limits.max_experts, n_heads);
    raise(&s->limits.max_experts_used, n_heads);
}

void sizes_route(struct block_sizes *s, uint32_t n_experts, uint32_t used)
{
    raise(&s->max_used, used);
    raise(&s->limits.max_experts, n_experts);
    raise(&s->limits.max_experts_used, used);
}

void sizes_heads(struct block_sizes *s, uint32_t n_heads, uint32_t head_dim)
{
    raise(&s->limits.max_heads, n_heads);
    raise(&s->limits.max_head_dim, head_dim);
}

static void size_block(struct block_sizes *s, const struct layer *l, const struct block *block,
                       const struct norms *norms)
{
    if (!block) return;
    sizes_act(s, s->n_rows, s->d_model, block->input);
    if (norms->after_name) s->branch = true;
    block->size(s, l);
}

void block_sizes_of(struct block_sizes *s, const struct layer *layers, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        size_block(s, &layers[i], layers[i].mixer, &layers[i].mixer_norms);
        size_block(s, &layers[i], layers[i].channel, &layers[i].channel_norms);
    }
}
