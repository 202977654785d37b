/* load_model.h - from a configuration to a running engine: ranks, weights, KV memory, geometry. */
#ifndef NODE_LOAD_MODEL_H
#define NODE_LOAD_MODEL_H
#include "config/config.h"
#include "engine/engine.h"
#include "model/model.h"
#include "store/kv_map.h"
#include "wire/cache_geometry.h"

struct ranks;

struct loaded_model {
    struct engine *engine;
    struct ranks *ranks;               /* each with a backend */
    const struct config_model *config; /* borrowed from the configuration */
    struct kv_map *kv_map;             /* of the engine's KV memory */
    struct model_info info;            /* a copy; rope.freq_factors is the model's */
    struct cache_geometry geometry;    /* of its cache, as other nodes hear of it */
    uint32_t n_blocks, n_blocks_each;  /* in all; one sequence can have */
    uint32_t n_snapshots, max_context;
};

/* Loads self's model and starts its engine.  Says how far it is: a bar on a terminal, log lines elsewhere. */
enum status load_model(struct loaded_model *out, const struct config_run *run, engine_event_fn on_event, void *ctx,
                       struct error *err) MUST_CHECK;
/* Ends the engine: no event comes any more.  Backends and KV map stay for those who hold memory of theirs. */
void stop_model(struct loaded_model *m);
void unload_model(struct loaded_model *m); /* a zeroed one is fine */
#endif
