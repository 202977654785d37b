/* cuda_internal.h - the CUDA backend's object, shared by the files that implement its ops. */
#ifndef COMPUTE_CUDA_CUDA_INTERNAL_H
#define COMPUTE_CUDA_CUDA_INTERNAL_H
extern "C" {
#include "base/error.h"
#include "base/mem.h"
#include "compute/backend.h"
}
#include "compute/cuda/cu.h"
#include "compute/cuda/cuda_act.h"

#include <assert.h>
#include <pthread.h>

#define MARKS_KEPT 1024 /* of a stream: an older one passes a little later than it could */

/* A stream and the events behind its marks. */
struct stream {
    cudaStream_t cu;
    cudaEvent_t events[MARKS_KEPT]; /* mark number n is events[n % MARKS_KEPT]; made when first used */
    uint64_t n_marks;               /* under `lock` */
    pthread_mutex_t lock;
    uint8_t *staging; /* rows on their way into the layout of weights (cuda_weights.cu); made when first used */
    size_t staging_bytes;
    struct kv_staging *kv; /* for KV on its way to and from the host, under its lock (cuda_kv_wire.cu) */
    pthread_mutex_t kv_lock;
};

/* Of cuda_weights.cu. */
struct cuda_weights {
    uint16_t *grids; /* of IQ1, IQ2 and IQ3, one after another */
};

/* cos and sin of positions for one set of parameters, in chunks of positions (cuda_rope_kv.cu). */
#define MAX_ROPE_TABLES 16
#define ROPE_CHUNK      1024u /* positions */
struct rope_table {
    struct rope_params params;
    float *factors;      /* params.freq_factors, or NULL */
    const float2 **list; /* device: the chunks, [ROPE_CHUNK][dims / 2] each; a list for the longest context */
    float2 **chunks;     /* the same on the host */
    uint32_t n_chunks;   /* that are there */
};
struct rope_tables {
    struct rope_table tables[MAX_ROPE_TABLES];
    uint32_t n;
    uint32_t end; /* positions of the step are below this */
};

/* Where parts of attention wait for each other (cuda_attention.cu). */
struct attn_scratch {
    float *partials; /* device */
    size_t bytes;
};

/* What kernels read of a step; all pointers are device memory that stays where it is for the backend's life. */
struct step_view {
    const int32_t *tokens; /* [n_rows] */
    const uint32_t *pos;   /* [n_rows] */
    const uint32_t *seq;   /* [n_rows] which sequence the row is of */
    const struct step_seq *seqs;
    const uint32_t *logit_rows;
    uint32_t n_rows, n_seqs, n_logits;
};

/* A sequence of the step; ids are positions in one array of block ids on the device. */
struct step_seq {
    uint32_t row0, n_rows, pos0, state;
    const uint32_t *blocks, *window_blocks; /* device */
    uint32_t n_blocks;
};

/* What pick() needs beside the logits; only cuda_pick.cu knows what lies where. */
struct cuda_pick {
    uint8_t *host, *device; /* host: pinned */
    size_t host_bytes, device_bytes;
    cudaEvent_t done; /* with the last call, */
    bool busy;        /* if there was one */
};

/* Which launches a graph holds. */
struct graph_key {
    const void *owner;
    cudaStream_t stream;
    uint32_t part, n_rows, n_logits;
};

struct step_graph {
    struct graph_key key;
    cudaGraphExec_t exec; /* owned; NULL: this shape was seen once */
    uint64_t last_use;    /* 0: an empty place */
};

#define GRAPHS_KEPT 128

struct cuda_graphs {
    struct step_graph graphs[GRAPHS_KEPT];
    struct step_graph *recording; /* between replay() and recorded(), or NULL */
    uint64_t n_uses;
};

struct cuda_backend {
    struct backend base; /* first: a struct backend is a struct cuda_backend */
    struct backend_limits limits;
    char name[320]; /* what describe() says */
    int device;
    int n_sms, arch;          /* arch: 90 for sm_90 */
    enum numerics numerics;   /* EXACT: the CPU's bits */
    uint64_t taken, may_take; /* bytes of its memory; `taken` is atomic */
    bool has_reserve;         /* as nobody has said how much may be taken */
    struct stream main;       /* the stream NULL */
    struct cuda_weights weights;
    struct cuda_blas *blas; /* of fast products (cuda_blas.h); or NULL */
    int broken;             /* atomic; not 0: it has reported an error that it does not get over */

    struct cuda_graphs graphs; /* cuda_graph.cu */

    /* The step, as step_begin() leaves it (cuda_step.cu). */
    struct step_view step;
    uint8_t *step_host, *step_device;
    size_t step_bytes;

    struct cuda_pick pick;

    struct rope_tables rope;
    struct attn_scratch attn;
};

static inline struct cuda_backend *cuda_of(struct backend *b)
{
    return (struct cuda_backend *)b;
}

static inline struct stream *stream_of(struct backend *b, struct stream *s)
{
    return s ? s : &cuda_of(b)->main;
}

/* Each thread begins on GPU 0; this makes the backend's the calling thread's own (cuda_device.cu). */
void cuda_enter(struct backend *b);

static inline cudaStream_t cu_stream(struct backend *b, struct stream *s)
{
    cuda_enter(b);
    return stream_of(b, s)->cu;
}

/* What kernels of this step are given. */
static inline struct step_view step_view_of(const struct step *step)
{
    return *(const struct step_view *)step->device;
}

/* OK, or the status and a log line for an error of the runtime; `what` names the call or kernel. */
enum status cuda_check(struct backend *b, cudaError_t e, const char *what);

/* Each op in the file that is named for it; contracts in compute/backend.h. */
#define CUDA_OP(name, ...) enum status cuda_##name(struct backend *b, struct stream *s, __VA_ARGS__)

/* cuda_device.cu: */
enum status cuda_device_open(struct cuda_backend *b, const struct backend_options *opt, struct error *err);
enum status cuda_memory(struct backend *b, uint64_t *left, uint64_t *total);

/* cuda_memory.cu: */
bool cuda_failed(const struct backend *b);
enum status cuda_alloc(struct backend *b, size_t bytes, void **out);
void cuda_release(struct backend *b, void *p, size_t bytes);
enum status cuda_host_alloc(struct backend *b, size_t bytes, void **out);
void cuda_host_free(struct backend *b, void *p, size_t bytes);
CUDA_OP(upload, void *dst, const void *src, size_t bytes);
CUDA_OP(download, void *dst, const void *src, size_t bytes);
CUDA_OP(copy, void *dst, const void *src, size_t bytes);
enum status cuda_stream_init(struct backend *b, struct stream *s);
void cuda_stream_fini(struct backend *b, struct stream *s);
enum status cuda_stream_open(struct backend *b, struct stream **out);
void cuda_stream_close(struct backend *b, struct stream *s);
enum status cuda_sync(struct backend *b, struct stream *s);
CUDA_OP(mark_record, struct mark *out);
enum status cuda_mark_wait(struct backend *b, const struct mark *m);
bool cuda_mark_done(struct backend *b, const struct mark *m);

/* cuda_weights.cu: */
enum status cuda_weights_init(struct cuda_backend *b);
void cuda_weights_fini(struct cuda_backend *b);
enum status cuda_weight_bytes(struct backend *b, enum dtype type, uint32_t n_rows, uint32_t n_cols, size_t *out);
CUDA_OP(weight_pack, void *dst, enum dtype type, uint32_t n_rows, uint32_t n_cols, const void *src, size_t src_stride);

/* cuda_matmul.cu: */
CUDA_OP(matmul, float *y, size_t ld, const struct weight *w, const struct act *x, bool accumulate);
CUDA_OP(expert_matmul, float *y, size_t ld, const struct weight *w, const struct act *x, const struct route *route,
        bool x_by_slot);

/* cuda_step.cu: */
enum status cuda_step_init(struct cuda_backend *b);
void cuda_step_fini(struct cuda_backend *b);
CUDA_OP(step_begin, const struct batch *batch, struct step *out);
CUDA_OP(gather_rows, float *out, const float *x, uint32_t k, const struct step *step, uint32_t first, uint32_t n);

/* cuda_embed.cu: */
uint64_t cuda_embed_types(void); /* for struct backend_caps */
CUDA_OP(embed, float *out, const struct embedding *table, const struct step *step);

/* cuda_graph.cu: */
enum status cuda_replay(struct backend *backend, struct stream *s, const struct step *step, const void *owner,
                        uint32_t part, bool *done);
enum status cuda_recorded(struct backend *backend, struct stream *s, bool ok);
/* What graphs point to moves: they are made anew. */
void cuda_graphs_drop(struct cuda_backend *b);

/* cuda_rows.cu: */
size_t cuda_act_bytes(struct backend *b, uint32_t n, uint32_t k, enum precision precision);
CUDA_OP(quantize, struct act *out);
CUDA_OP(rmsnorm, struct act *out, const float *x, const float *w, float eps);
CUDA_OP(glu, struct act *out, const float *gate, const float *up, size_t ld, enum glu_kind kind);
CUDA_OP(gate_act, struct act *out, const float *gate, size_t ld);
CUDA_OP(add_bias, float *y, size_t ld, const float *bias, uint32_t n, uint32_t cols);
CUDA_OP(head_norm, float *x, size_t ld, uint32_t n_rows, uint32_t n_heads, uint32_t head_dim, const float *w,
        float eps);
CUDA_OP(norm_add, float *x, const float *y, size_t ld, uint32_t n, uint32_t k, const float *w, float eps);
CUDA_OP(scale, float *x, size_t n, float factor);
CUDA_OP(softcap, float *x, size_t n, float cap);

/* cuda_route.cu: */
CUDA_OP(route, struct route *out, const float *logits, size_t ld, const struct route_facts *facts);
CUDA_OP(expert_bias, float *y, size_t ld, const float *bias, uint32_t cols, const struct route *route);
CUDA_OP(expert_sum, float *x, size_t ld, const float *y, const struct route *route, uint32_t d);

/* cuda_state.cu, cuda_conv.cu, cuda_scan.cu, cuda_norm_gate.cu: recurrent layers. */
size_t cuda_state_slot_bytes(struct backend *b, const struct state_geometry *geom);
CUDA_OP(state_copy, const struct state_slices *state, uint32_t from, uint32_t to);
CUDA_OP(state_pack, const struct state_slices *state, uint32_t slot, uint32_t h0, uint32_t h1, uint8_t *wire);
CUDA_OP(state_unpack, const struct state_slices *state, uint32_t slot, uint32_t h0, uint32_t h1, const uint8_t *wire);
CUDA_OP(conv_step, float *out, size_t out_ld, const float *x, size_t ld, const struct conv_facts *facts,
        const struct state_slices *tail, const struct step *step);
CUDA_OP(delta_rule, float *out, size_t out_ld, const struct delta_inputs *in, const struct delta_facts *facts,
        const struct state_slices *state, const struct step *step);
CUDA_OP(mamba2_scan, float *out, size_t out_ld, const struct mamba2_inputs *in, const struct mamba2_facts *facts,
        const struct state_slices *state, const struct step *step);
CUDA_OP(norm_gate, struct act *out, const float *x, size_t ld, const float *gate, size_t gate_ld,
        const struct norm_gate_facts *facts);

/* cuda_pick.cu: */
enum status cuda_pick_init(struct cuda_backend *b);
void cuda_pick_fini(struct cuda_backend *b);
CUDA_OP(pick, float *logits, uint32_t n_vocab, uint32_t n, const struct pick_row *rows, struct picked *out);
CUDA_OP(weigh, float *x, uint32_t n, float top, float temperature);

/* cuda_rope_kv.cu: */
/* Of all tables that are known, what the step is the first to need. */
enum status cuda_rope_begin(struct cuda_backend *b, struct stream *s, const struct batch *batch);
void cuda_rope_fini(struct cuda_backend *b);
CUDA_OP(rope, float *x, size_t ld, uint32_t n_heads, const struct kv_geometry *geom, const struct rope_params *rope,
        const struct step *step);
CUDA_OP(kv_write, const float *k, const float *v, size_t ld, const struct kv_slices *kv, const struct step *step);
CUDA_OP(rope_kv_write, float *qkv, size_t ld, uint32_t n_heads, size_t k_off, size_t v_off, const struct kv_slices *kv,
        const struct rope_params *rope, const struct step *step);

/* cuda_kv_wire.cu: */
void cuda_kv_staging_fini(struct backend *b, struct stream *s);
size_t cuda_kv_slice_bytes(struct backend *b, const struct kv_geometry *geom);
CUDA_OP(kv_pack, const struct kv_slices *layers, const struct kv_piece *pieces, uint32_t n, uint8_t *wire);
CUDA_OP(kv_unpack, const struct kv_slices *layers, const struct kv_piece *pieces, uint32_t n, const uint8_t *wire);

/* cuda_attention.cu: */
/* Room for what the step's rows leave per segment. */
enum status cuda_attention_begin(struct cuda_backend *b, const struct batch *batch);
void cuda_attention_fini(struct cuda_backend *b);
CUDA_OP(attention, struct act *out, const float *q, size_t ld, uint32_t n_heads, const struct kv_slices *kv,
        const struct attn_facts *facts, const struct step *step);

/* cuda_latent.cu: */
CUDA_OP(latent_write, const float *c, size_t c_ld, const float *k_rope, size_t rope_ld, const struct kv_slices *kv,
        const struct step *step);
CUDA_OP(attention_latent, struct act *out, const float *q, size_t q_ld, const float *q_rope, size_t rope_ld,
        size_t rope_step, uint32_t n_heads, const struct kv_slices *kv, float scale, const struct step *step);
#endif
