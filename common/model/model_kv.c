/* model_kv.c - the memory that a model asks for its cache, of each rank its part: KV of its layers, and states of
 * recurrent ones. */
#include "model/model_internal.h"

#include <assert.h>

/* Layers with a window keep as much as the widest of them reads: then one table of blocks is enough. */
static uint32_t widest_window(const struct model_facts *facts)
{
    uint32_t most = 0;
    for (uint32_t l = 0; l < facts->info.n_layers; l++) {
        struct layer_cache c = { 0 };
        facts->layers[l].mixer->cache(&facts->layers[l], &c);
        if (c.window > most) most = c.window;
    }
    return most;
}

static struct layer_cache cache_of(const struct model_facts *facts, uint32_t layer, enum kv_format format)
{
    struct layer_cache c = { 0 };
    facts->layers[layer].mixer->cache(&facts->layers[layer], &c);
    c.kv.format = format;
    c.kv.rotate = facts->info.rotate;
    c.kv.window = c.window > 0 ? widest_window(facts) : 0;
    return c;
}

struct layer_cache model_rank_cache(const struct model_rank *m, uint32_t layer)
{
    return cache_of(&m->facts, layer, m->kv_format);
}

struct layer_cache model_layer_cache(const struct model *m, uint32_t layer)
{
    struct layer_cache c = cache_of(&m->whole, layer, m->ranks[0].kv_format);
    c.kv.rotate = m->info.rotate;
    return c;
}

struct kv_geometry model_kv_geometry(const struct model *m, uint32_t layer)
{
    return model_layer_cache(m, layer).kv;
}

/* Of the rank's own layers; returns how many they are. */
static uint32_t geometries(const struct model_rank *m, struct kv_geometry layers[MODEL_MAX_LAYERS])
{
    const struct shard own = m->place.layers;
    assert(shard_n(own) <= MODEL_MAX_LAYERS);
    for (uint32_t l = own.begin; l < own.end; l++) layers[l - own.begin] = model_rank_cache(m, l).kv;
    return shard_n(own);
}

/* Bytes of one block on all ranks; `of` tells them for a rank's layers. */
static size_t bytes_on_ranks(const struct model *m,
                             size_t (*of)(struct backend *b, const struct kv_geometry *layers, uint32_t n))
{
    struct kv_geometry layers[MODEL_MAX_LAYERS];
    size_t bytes = 0;
    for (uint32_t i = 0; i < m->n_ranks; i++) {
        const uint32_t n = geometries(&m->ranks[i], layers);
        bytes += of(m->ranks[i].backend, layers, n);
    }
    return bytes;
}

size_t model_kv_block_bytes(const struct model *m)
{
    return bytes_on_ranks(m, kv_store_bytes_for);
}

size_t model_window_block_bytes(const struct model *m)
{
    return bytes_on_ranks(m, kv_store_window_bytes_for);
}

/* Which of the model's kv heads a rank's layers have; those without blocks have none. */
static void say_heads(struct kv_store *kv, const struct model_rank *m)
{
    for (uint32_t l = 0; l < kv->n_layers; l++) kv->held[l] = model_rank_cache(m, m->place.layers.begin + l).kv_held;
}

enum status model_kv_create_windowed(struct kv_store **out, const struct model *m, uint32_t n_blocks,
                                     uint32_t n_window_blocks, struct error *err)
{
    struct kv_geometry layers[MODEL_MAX_LAYERS];
    struct kv_store *first = NULL, **end = &first;
    for (uint32_t i = 0; i < m->n_ranks; i++) {
        const uint32_t n = geometries(&m->ranks[i], layers);
        enum status st = kv_store_create_windowed(end, m->ranks[i].backend, layers, n, n_blocks, n_window_blocks, err);
        if (st != OK) {
            kv_store_destroy(first);
            return st;
        }
        say_heads(*end, &m->ranks[i]);
        end = &(*end)->next;
    }
    *out = first;
    return OK;
}

enum status model_kv_create(struct kv_store **out, const struct model *m, uint32_t n_blocks, struct error *err)
{
    return model_kv_create_windowed(out, m, n_blocks, 0, err);
}

static uint32_t state_geometries(const struct model_rank *m, struct state_layer_geometry layers[MODEL_MAX_LAYERS])
{
    const struct shard own = m->place.layers;
    for (uint32_t l = own.begin; l < own.end; l++) layers[l - own.begin] = model_rank_cache(m, l).state;
    return shard_n(own);
}

static size_t state_bytes(const struct model_rank *m)
{
    struct state_layer_geometry layers[MODEL_MAX_LAYERS];
    const uint32_t n = state_geometries(m, layers);
    return state_store_bytes_for(m->backend, layers, n);
}

size_t model_state_bytes(const struct model *m)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < m->n_ranks; i++) bytes += state_bytes(&m->ranks[i]);
    return bytes;
}

struct kv_runs model_kv_runs(const struct model *m)
{
    const size_t windows = model_window_block_bytes(m);
    return kv_runs_for(model_kv_block_bytes(m) - windows, windows, model_state_bytes(m));
}

static size_t shared_bytes(const struct model_rank *m, struct kv_runs runs)
{
    struct kv_geometry layers[MODEL_MAX_LAYERS];
    struct state_layer_geometry states[MODEL_MAX_LAYERS];
    const uint32_t n = geometries(m, layers);
    state_geometries(m, states);
    return kv_store_shared_bytes_for(m->backend, layers, states, n, runs);
}

size_t model_shared_block_bytes(const struct model *m)
{
    const struct kv_runs runs = model_kv_runs(m);
    size_t bytes = 0;
    for (uint32_t i = 0; i < m->n_ranks; i++) bytes += shared_bytes(&m->ranks[i], runs);
    return bytes;
}

enum status model_kv_create_shared(struct kv_store **out, const struct model *m, uint32_t n_blocks, struct error *err)
{
    const struct kv_runs runs = model_kv_runs(m);
    struct kv_geometry layers[MODEL_MAX_LAYERS];
    struct state_layer_geometry states[MODEL_MAX_LAYERS];
    struct kv_store *first = NULL, **end = &first;
    for (uint32_t i = 0; i < m->n_ranks; i++, end = &(*end)->next) {
        const uint32_t n = geometries(&m->ranks[i], layers);
        state_geometries(&m->ranks[i], states);
        enum status st = kv_store_create_shared(end, m->ranks[i].backend, layers, states, n, runs, n_blocks, err);
        if (st != OK) {
            kv_store_destroy(first);
            return st;
        }
        say_heads(*end, &m->ranks[i]);
    }
    *out = first;
    return OK;
}

enum status model_states_create(struct kv_store *kv, const struct model *m, uint32_t n_slots, struct error *err)
{
    struct state_layer_geometry layers[MODEL_MAX_LAYERS];
    enum status st = OK;
    for (uint32_t i = 0; i < m->n_ranks && st == OK; i++, kv = kv->next) {
        const uint32_t n = state_geometries(&m->ranks[i], layers);
        assert(!kv->states);
        if (state_bytes(&m->ranks[i]) == 0 && model_state_bytes(m) > 0) continue; /* no recurrent layer of this stage */
        st = state_store_create(&kv->states, m->ranks[i].backend, layers, n, n_slots, err);
    }
    return st;
}
