/* layer_cache.h - what a layer keeps of the tokens that it has seen, as its mixer says. */
#ifndef MODEL_LAYER_CACHE_H
#define MODEL_LAYER_CACHE_H
#include "store/state_store.h"

struct layer_cache {
    struct kv_geometry kv; /* of every token, in blocks; n_kv_heads 0: nothing.  format and rotate are the model's */
    struct held kv_held;   /* which of the model's kv heads this rank has; each is computed by all that need it */
    uint32_t window;       /* tokens of it that are still read, the row's own among them; 0: all */
    struct state_layer_geometry state; /* recurrent states; parts without heads: nothing */
};
#endif
