/* layer.h - a layer of a model is a row: which blocks it is made of, with their facts and their weights.
 *
 * A layer is x += mixer(norm(x)), then x += channel(norm(x)); the norms stand before a block, after it, on both sides
 * or nowhere.  The mixer looks at other positions, the channel at its own row alone.  A family's file fills rows from
 * metadata, blocks bind their weights, forward.c runs down the rows. */
#ifndef MODEL_LAYER_H
#define MODEL_LAYER_H
#include "model/blocks/channel_glu.h"
#include "model/blocks/channel_moe.h"
#include "model/blocks/mixer_attention.h"
#include "model/blocks/mixer_delta.h"
#include "model/blocks/mixer_mamba2.h"
#include "model/blocks/mixer_mla.h"

struct binder;
struct block_sizes;
struct error;
struct layer;
struct layer_cache;
struct model_rank;
struct model_info;
struct state_layer;

/* What goes into a block and where its result belongs. */
struct block_io {
    const struct act *x; /* the layer's rows, normed, at the block's precision; dead once the block writes an act */
    float *y;            /* [n_rows][d_model] */
    bool add;            /* onto what is in y */
    uint32_t layer;
    const struct kv_slices *kv;      /* the layer's cache; of a channel NULL */
    const struct state_layer *state; /* its recurrent states; NULL: the model has none, or a channel */
};

struct block {
    const char *name;
    enum precision input; /* the finest product that takes x */
    /* Says in the row what of the block is member `member`'s of `size` that compute it together.  ERR_INVALID, with the
     * numbers: there are more of them than what can be shared out. */
    enum status (*cut)(struct layer *l, uint32_t member, uint32_t size, struct error *err);
    /* Checks and plans the block's tensors; errors name the tensor. */
    enum status (*bind)(struct binder *b, struct layer *l);
    /* Says how much step memory it needs, and what the backend must be made for. */
    void (*size)(struct block_sizes *s, const struct layer *l);
    enum status (*forward)(struct model_rank *m, const struct layer *l, const struct block_io *io);
    /* Fills in what this rank keeps of the layer; *out is zeroed.  NULL of a channel. */
    void (*cache)(const struct layer *l, struct layer_cache *out);
};

/* The norms around a block; a tensor that has no name is not there. */
struct norms {
    const char *before_name, *after_name;
    const float *before, *after; /* device, [d_model] */
};

struct layer {
    const struct block *mixer, *channel;
    struct norms mixer_norms, channel_norms;
    union {
        struct attention attn;
        struct mla mla;
        struct delta delta;
        struct mamba2 mamba2;
    };
    union {
        struct glu glu;
        struct moe moe;
    };
};
#endif
