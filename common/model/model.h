/* model.h - a model, on one rank or on several: open its file, run ragged batches, give logits.
 *
 * Ranks share out layers and heads (parallel/mesh.h); whoever uses a model does not see them, and its bits are those of
 * one rank.  One thread at a time uses a model. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H
#include "base/error.h"
#include "base/io_read.h"
#include "compute/backend.h"
#include "model/layer_cache.h"
#include "store/kv_store.h"

struct mesh;
struct model;
struct ranks;

#define MODEL_NAME_MAX   64
#define MODEL_MAX_LAYERS 256

enum weights_mode {
    WEIGHTS_RESIDENT, /* packed in memory */
    WEIGHTS_STREAM,   /* read from the file in each forward */
    WEIGHTS_AUTO      /* resident if weights, KV and buffers fit with 100 MiB to spare */
};

struct model_info {
    char arch[MODEL_NAME_MAX];
    uint32_t n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff, n_vocab;
    uint32_t context_length; /* what the file says it was trained for */
    float norm_eps;
    float attn_scale;        /* multiplies q.k */
    struct rope_params rope; /* freq_factors: owned by the model */
    bool rope_long;          /* the divisors for long sessions are in use (LongRoPE) */
    uint64_t fingerprint;
    uint64_t n_params;
    uint64_t weight_bytes; /* packed weights in memory */
    uint64_t expert_bytes; /* of these, stacks that rows choose from */
    uint64_t used_bytes;   /* of those, what one row uses */
    bool latent;           /* the cache holds latents (MLA) of head_dim values, not K and V of heads */
    bool rotate;           /* Hadamard rotation of Q and K in use */
    double row_macs,
        position_macs;            /* multiply-adds of a row in all layers, and of a row with each position before it */
    struct backend_limits limits; /* of the widest layer; rows and context are not the model's */
};

struct model_options {
    const char *path;
    struct backend *backend; /* of the only rank; borrowed for the model's life */
    struct ranks *ranks;     /* or several, each with a backend; borrowed.  NULL: one */
    enum kv_format kv_format;
    const char *rotate;        /* "on", "off", "auto" = on where head_dim allows it */
    uint32_t max_batch_tokens; /* rows of one forward */
    uint32_t max_context;      /* 0 = the file's; larger than the file's is refused */
    bool as_f32;               /* matrices are dequantized to fp32: what exactness is measured against */
    int weights_fd;            /* memfd with packed weights by model_pack_shared(), or -1 */
    enum weights_mode weights; /* where weights lie, if weights_fd is -1 */
    enum io_kind io;           /* how they are read */
    uint64_t kv_bytes;         /* what the caller will take for KV: the memory that is left must hold it as well */
    void (*progress)(void *ctx, uint64_t done_bytes, uint64_t all_bytes); /* while loading; may be NULL */
    void *progress_ctx;
};

/* Sets `weights` (resident, stream, auto) and `io` (auto, uring, pread, mmap) from words. */
enum status model_options_words(struct model_options *opt, const char *weights, const char *io,
                                struct error *err) MUST_CHECK;

/* Facts of a file without its weights (coordinator, inspect, sizing). */
enum status model_read_info(struct model_info *out, const char *path, struct error *err) MUST_CHECK;
/* Opens, checks every tensor's presence, type and shape by name, packs weights.  What the memory left cannot hold is
 * refused first, with the numbers (ERR_NO_MEMORY).  Caller owns. */
enum status model_open(struct model **out, const struct model_options *opt, struct error *err) MUST_CHECK;
void model_close(struct model *m);
/* Packs the file's weights for this machine's backend into a new sealed memfd that several nodes on this host map
 * (weights_fd).  The caller closes *fd; its own memory is not grown by the weights after return.  *fd stays as it is
 * where opt->weights says, or finds, that they are streamed. */
enum status model_pack_shared(int *fd, const struct model_options *opt, struct error *err) MUST_CHECK;

/* What a backend must be made for, to run this model with batches of max_rows and sequences of max_context. */
struct backend_limits model_limits(const struct model_info *info, uint32_t max_rows, uint32_t max_context);

const struct model_info *model_info(const struct model *m);
const struct mesh *model_mesh(const struct model *m);
bool model_is_streamed(const struct model *m);
/* What a layer keeps, all ranks together. */
struct layer_cache model_layer_cache(const struct model *m, uint32_t layer);
struct kv_geometry model_kv_geometry(const struct model *m, uint32_t layer); /* of it: n_kv_heads 0: no blocks */

/* Bytes of one KV block over all layers. */
size_t model_kv_block_bytes(const struct model *m);
/* KV memory of the model's layers, in its backend: kv_store_create(). */
enum status model_kv_create(struct kv_store **out, const struct model *m, uint32_t n_blocks,
                            struct error *err) MUST_CHECK;
/* The same, where layers with a window have n_window_blocks blocks of their own, and keep the window's alone
 * (batch_seq.window_blocks).  model_window_block_bytes(): what such a block has of model_kv_block_bytes(); 0: no layer
 * has a window. */
size_t model_window_block_bytes(const struct model *m);
enum status model_kv_create_windowed(struct kv_store **out, const struct model *m, uint32_t n_blocks,
                                     uint32_t n_window_blocks, struct error *err) MUST_CHECK;
/* Bytes of one sequence's recurrent states; 0: the model has none.  A model that has them runs on a KV memory with
 * states: model_states_create() adds n_slots slots, state_store_create(). */
size_t model_state_bytes(const struct model *m);
enum status model_states_create(struct kv_store *kv, const struct model *m, uint32_t n_slots,
                                struct error *err) MUST_CHECK;
/* Where a model keeps more than blocks of one kind, all of it may share one memory of n_blocks blocks: how
 * (kv_runs_for()), and what such a block takes on all ranks. */
struct kv_runs model_kv_runs(const struct model *m);
size_t model_shared_block_bytes(const struct model *m);
enum status model_kv_create_shared(struct kv_store **out, const struct model *m, uint32_t n_blocks,
                                   struct error *err) MUST_CHECK;

/* Called once layer `layer` of the batch is enqueued; its KV is written, on all ranks, when `written` has passed.  In
 * order of layers, one call at a time, on the caller's thread or, for later stages, on another one that it waits for.
 */
typedef void (*model_layer_fn)(void *ctx, uint32_t layer, const struct mark *written);

/* Enqueues all layers over the batch: they write KV and leave the hidden states of all rows inside the model, before
 * the last norm and until the next forward.  Nothing here waits, unless weights are streamed; the batch is the caller's
 * again on return.  on_layer may be NULL: marks cost, so only who ships KV asks for them. */
enum status model_forward(struct model *m, const struct batch *b, const struct kv_store *kv, model_layer_fn on_layer,
                          void *ctx) MUST_CHECK;
/* Waits for all that is enqueued; also after a forward that failed, before its blocks get another use. */
enum status model_wait(struct model *m) MUST_CHECK;
/* Logits of logit rows [first, first + n) of the last batch, which are its sequences' last n_logits rows one after the
 * other, to *out [n][n_vocab] on the host; n <= MODEL_MAX_LOGIT_ROWS.  Waits for them.  The caller may write over them;
 * they are the model's memory and last until the next call. */
#define MODEL_MAX_LOGIT_ROWS 32
enum status model_logits(struct model *m, uint32_t first, uint32_t n, float **out) MUST_CHECK;
/* What rows[n] want of these logits, to out[n] (compute/pick.h); the logits stay where they are. */
enum status model_pick(struct model *m, uint32_t first, uint32_t n, const struct pick_row *rows,
                       struct picked *out) MUST_CHECK;
/* Row i of the last model_pick(), whole, and once: its edited logits to logits[n_vocab], and exp((logit - top) /
 * temperature) of each to *weights [n_vocab], the model's memory until the next call. */
enum status model_weights(struct model *m, uint32_t i, float top, float temperature, float *logits,
                          const float **weights) MUST_CHECK;
/* Hidden states of these logit rows after the last norm, to out [n][d_model]; n as above. */
enum status model_hidden(struct model *m, uint32_t first, uint32_t n, float *out) MUST_CHECK;
#endif
