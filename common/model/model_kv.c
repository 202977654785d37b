/* model_kv.c - the KV memory that a model asks for. */
#include "model/model_internal.h"

#include <assert.h>

struct kv_geometry model_kv_geometry(const struct model *m, uint32_t layer)
{
    const struct attention *a = &m->facts.layers[layer].attn;
    return (struct kv_geometry){
        .n_kv_heads = a->n_kv_heads, .head_dim = a->head_dim, .format = m->kv_format, .rotate = m->facts.info.rotate
    };
}

static uint32_t geometries(const struct model *m, struct kv_geometry layers[MODEL_MAX_LAYERS])
{
    const uint32_t n = model_info(m)->n_layers;
    assert(n <= MODEL_MAX_LAYERS);
    for (uint32_t l = 0; l < n; l++) layers[l] = model_kv_geometry(m, l);
    return n;
}

size_t model_kv_block_bytes(const struct model *m)
{
    struct kv_geometry layers[MODEL_MAX_LAYERS];
    const uint32_t n = geometries(m, layers);
    return kv_store_bytes_for(model_backend(m), layers, n);
}

enum status model_kv_create(struct kv_store **out, const struct model *m, uint32_t n_blocks, struct error *err)
{
    struct kv_geometry layers[MODEL_MAX_LAYERS];
    const uint32_t n = geometries(m, layers);
    return kv_store_create(out, model_backend(m), layers, n, n_blocks, err);
}
