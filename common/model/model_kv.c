/* model_kv.c - the memory that a model asks for its cache: KV of its layers, and states of recurrent ones. */
#include "model/model_internal.h"

#include <assert.h>

struct layer_cache model_layer_cache(const struct model *m, uint32_t layer)
{
    const struct layer *l = &m->facts.layers[layer];
    struct layer_cache c = { 0 };
    l->mixer->cache(l, &c);
    c.kv.format = m->kv_format;
    c.kv.rotate = m->facts.info.rotate;
    return c;
}

struct kv_geometry model_kv_geometry(const struct model *m, uint32_t layer)
{
    return model_layer_cache(m, layer).kv;
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

static uint32_t state_geometries(const struct model *m, struct state_layer_geometry layers[MODEL_MAX_LAYERS])
{
    const uint32_t n = model_info(m)->n_layers;
    for (uint32_t l = 0; l < n; l++) layers[l] = model_layer_cache(m, l).state;
    return n;
}

size_t model_state_bytes(const struct model *m)
{
    struct state_layer_geometry layers[MODEL_MAX_LAYERS];
    const uint32_t n = state_geometries(m, layers);
    return state_store_bytes_for(model_backend(m), layers, n);
}

enum status model_states_create(struct kv_store *kv, const struct model *m, uint32_t n_slots, struct error *err)
{
    struct state_layer_geometry layers[MODEL_MAX_LAYERS];
    const uint32_t n = state_geometries(m, layers);
    assert(!kv->states);
    return state_store_create(&kv->states, model_backend(m), layers, n, n_slots, err);
}
