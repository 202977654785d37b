/* model_internal.h - what an open model holds; shared by those who make it, and the forward. */
#ifndef MODEL_MODEL_INTERNAL_H
#define MODEL_MODEL_INTERNAL_H
#include "model/block_sizes.h"
#include "model/family.h"
#include "model/weights.h"
#include "parallel/coll.h"

struct model {
    struct model_facts facts; /* and the rows of its layers */
    struct gguf *file; /* open as long as the model lives: the embedding, and streamed weights, are read from it */
    struct weights weights;
    struct backend *backend; /* borrowed */
    struct stream *stream;   /* of all that a step enqueues */
    const struct coll *coll;
    enum kv_format kv_format;
    uint32_t max_rows, max_context;

    /* Step memory, made at open.  One activation and one wide buffer serve all products of a layer: each is read
     * by the product that follows and dead when it is written again. */
    float *x;            /* [max_rows][d_model]: the residual stream */
    float *wide;         /* [max_rows][sizes.wide_floats]: outputs of products within a block */
    float *branch;       /* [max_rows][d_model]: a block's result before its norm, or NULL where no norm follows one */
    struct act act;      /* input of every product */
    uint8_t *embed_rows; /* host, [max_rows]: rows of the embedding that were read from the file, or NULL */
    void *embed_device;  /* the same where ops read them; = embed_rows where the backend's memory is the host's */
    float *head_x;       /* [MODEL_MAX_LOGIT_ROWS][d_model]: rows gathered for the head */
    float *logits;       /* [MODEL_MAX_LOGIT_ROWS][n_vocab] */
    float *host_logits;  /* the same on the host; = logits where the backend's memory is the host's */
    struct block_sizes sizes;
    size_t embed_bytes;
    uint64_t buffer_bytes; /* all of these */
    struct step step;      /* of the last forward */
    bool is_whole;         /* all of it is enqueued: logits may follow */
};

/* What the buffers will take; nothing is taken yet. */
void model_buffers_size(struct model *m);
enum status model_buffers_alloc(struct model *m, struct error *err) MUST_CHECK;
void model_buffers_release(struct model *m);

/* What follows a forward enqueues: its logit rows [first, first + n) after the last norm, and their logits to
 * m->logits. */
enum status model_norm_rows(struct model *m, uint32_t first, uint32_t n, struct act *out) MUST_CHECK;
enum status model_head(struct model *m, uint32_t first, uint32_t n) MUST_CHECK;
/* Waits for it, and checks that the file has not changed while this step read it. */
enum status model_finish(struct model *m) MUST_CHECK;
#endif
