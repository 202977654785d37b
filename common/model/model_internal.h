/* model_internal.h - what an open model holds: its ranks, and what each of them has; shared by those who make it, and
 * the forward. */
#ifndef MODEL_MODEL_INTERNAL_H
#define MODEL_MODEL_INTERNAL_H
#include "model/block_sizes.h"
#include "model/family.h"
#include "model/weights.h"
#include "parallel/coll.h"
#include "parallel/mesh.h"

/* One rank: some layers, some heads and rows of each, and the memory that its steps use. */
struct model_rank {
    struct rank_place place;
    struct model_facts facts; /* and the rows of the model's layers */
    struct gguf *file;        /* borrowed from the model: the embedding, and streamed weights, are read from it */
    struct weights weights;
    struct backend *backend;       /* borrowed */
    struct stream *stream;         /* of all that a step enqueues */
    const struct coll *coll, *all; /* borrowed; its stage, and all ranks */
    enum kv_format kv_format;
    uint32_t max_rows, max_context;
    struct shard back;  /* columns of the residual stream that this rank computes */
    struct shard vocab; /* logits that it computes, if it is of the last stage */

    /* Step memory, made at open.  One activation and one wide buffer serve all products of a layer: each is read
     * by the product that follows and dead when it is written again. */
    float *x;            /* [max_rows][d_model]: the residual stream */
    float *wide;         /* [max_rows][sizes.wide_floats]: outputs of products within a block */
    float *branch;       /* [max_rows][d_model]: a block's result before its norm, or NULL where no norm follows one */
    uint32_t *heads;     /* [max_rows][sizes.max_latent_heads]: a head's own number, for matrices per head; or NULL */
    struct act act;      /* input of every product */
    struct act gathered; /* the same, put together from all members of the stage; NULL where there is one */
    struct route route;  /* [max_rows * sizes.max_used]: which experts rows go to; NULL where there are none */
    uint8_t *embed_rows; /* host, [max_rows]: rows of the embedding that were read from the file, or NULL */
    uint8_t *embed_row;  /* host, one as the file has it where the backend takes them as fp32, or NULL */
    void *embed_device;  /* the same where ops read them; = embed_rows where the backend's memory is the host's */
    float *head_x;       /* [MODEL_MAX_LOGIT_ROWS][d_model]: rows gathered for the head */
    float *logits;       /* [MODEL_MAX_LOGIT_ROWS][n_vocab], of the rank that speaks for the head; or NULL */
    float *own_logits;   /* [MODEL_MAX_LOGIT_ROWS][own vocab]; NULL where logits are */
    float *host_logits;  /* logits on the host; = logits where the backend's memory is the host's */
    struct block_sizes sizes;
    size_t embed_bytes;
    uint64_t buffer_bytes; /* all of these */
    struct step step;      /* of the last forward */
    bool again;            /* what it enqueues may be replayed */
};

struct model {
    struct mesh mesh;
    struct model_info info;   /* of all of it */
    struct model_facts whole; /* rows as one rank would have them; without weights */
    struct gguf *file;        /* open as long as the model lives */
    struct rank_team *team;   /* borrowed; NULL: one rank, on the caller's thread */
    struct model_rank *ranks;
    uint32_t n_ranks;
    bool is_whole; /* all of the last forward is enqueued: logits may follow */
};

/* Runs fn on every rank, each on its thread; OK, or the first failure, of rank *who (may be NULL). */
enum status model_each_rank(struct model *m, enum status (*fn)(void *ctx, uint32_t rank), void *ctx,
                            uint32_t *who) MUST_CHECK;

/* Of a rank whose place, file, backend and groups are set: what the file says, and a plan of its weights.  Then the
 * options, and how large its buffers will be.  Nothing large is taken yet. */
enum status model_rank_bind(struct model_rank *m, const struct model_options *opt, struct error *err) MUST_CHECK;
enum status model_rank_plan(struct model_rank *m, const struct model_options *opt, struct error *err) MUST_CHECK;
/* Weights and step memory. */
enum status model_rank_load(struct model_rank *m, const struct model_options *opt, enum weights_mode mode,
                            struct error *err) MUST_CHECK;
void model_rank_close(struct model_rank *m); /* also a half-open one */
/* Of one of its layers; the heads are this rank's. */
struct layer_cache model_rank_cache(const struct model_rank *m, uint32_t layer);

/* The last stage has the head, whose logits come together on its first member. */
static inline bool rank_has_head(const struct model_rank *m)
{
    return m->place.stage + 1 == m->place.pp;
}
static inline bool rank_speaks(const struct model_rank *m)
{
    return rank_has_head(m) && m->place.member == 0;
}

/* A rank's part of a step: the layers of its stage. */
enum status rank_forward(struct model_rank *m, const struct batch *b, const struct kv_store *kv,
                         model_layer_fn on_layer, void *ctx) MUST_CHECK;
/* What follows a forward enqueues.  On a rank that has the head: its logit rows [first, first + n) after the last norm.
 * On all ranks: their logits, to m->logits of the one that speaks. */
enum status rank_norm_rows(struct model_rank *m, uint32_t first, uint32_t n, struct act *out) MUST_CHECK;
enum status rank_head(struct model_rank *m, uint32_t first, uint32_t n) MUST_CHECK;
/* Waits for it, and checks that the file has not changed while this step read it. */
enum status rank_finish(struct model_rank *m) MUST_CHECK;

/* What the buffers will take; nothing is taken yet. */
void model_buffers_size(struct model_rank *m);
enum status model_buffers_alloc(struct model_rank *m, struct error *err) MUST_CHECK;
void model_buffers_release(struct model_rank *m);
#endif
