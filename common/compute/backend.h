/* backend.h - the seam between the model and what computes: memory, streams, and a struct of ops.
 *
 * Pointers named "device" belong to the backend's memory; on the CPU they are plain pointers.  Ops are
 * enqueued on a stream and may return before they are done (the CPU backend computes at once); sync() and mark_wait()
 * wait.  No op allocates: scratch comes with the backend, sized by struct backend_limits.
 * Numerics of every op: docs/numerics.md.  Rows of different sequences never influence each other. */
#ifndef COMPUTE_BACKEND_H
#define COMPUTE_BACKEND_H
#include "base/error.h"
#include "base/kv_block.h"
#include "compute/dtype.h"
#include "compute/pick.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kv_format { KV_INT8, KV_F16 };

/* What a layer keeps of each token: K and V of some heads, or what all heads' K and V are made of (MLA). */
enum kv_kind { KV_HEADS, KV_LATENT };

#define LATENT_GROUP 128 /* values of a latent that share one scale; the last group may have fewer */

/* KV of one layer on one rank. */
struct kv_geometry {
    uint32_t n_kv_heads; /* KV_LATENT: 1, the same on all ranks */
    uint32_t head_dim;   /* KV_LATENT: values of the latent */
    enum kv_format format;
    bool rotate; /* Hadamard rotation of Q and K after RoPE */
    enum kv_kind kind;
    uint32_t rope_dim; /* KV_LATENT: values of the RoPE part beside it, which all heads share; else 0 */
    uint32_t window;   /* tokens that are still read, the row's own among them; 0: all */
};

struct rope_params {
    float base;                /* theta */
    float scale;               /* positions are multiplied by this: 1/factor for linear scaling */
    uint32_t dims;             /* rotated dimensions, <= head_dim */
    bool neox;                 /* pairs (i, i + dims/2); otherwise pairs (2i, 2i+1), llama's GGUF order */
    const float *freq_factors; /* host, dims/2 divisors of the frequencies (rope_freqs), or NULL */
    float attn_factor;         /* multiplies cos and sin (YaRN); 1 otherwise */
};

/* How exactly a product takes its input: rows in 8 bits, or in about 16.  How a backend does that is its own affair. */
enum precision { COARSE, FINE };

/* A matrix [n_rows][n_cols] in the backend's own layout: y = W x has n_rows outputs.  Or a stack of n_experts such
 * matrices: weight_pack() packs each by itself, matrix e at data + e * expert_bytes, which is expert_stride() of one
 * matrix's weight_bytes().  So n_rows need not be a multiple of row_quantum, and each expert may be brought by itself.
 */
struct weight {
    enum dtype dtype;
    enum precision precision;   /* of its products */
    uint32_t n_rows, n_cols;    /* of one matrix */
    uint32_t n_experts;         /* 0: one matrix, which is no stack */
    size_t expert_bytes;        /* from one matrix of a stack to the next */
    const void *data;           /* device; from weight_pack() */
    size_t bytes;               /* of all */
    uint32_t row0, n_rows_full; /* which rows of the full matrix this shard holds */
    uint32_t col0, n_cols_full; /* which columns */
    uint32_t item;              /* the model's own number of it */
};

/* One sequence's part of a ragged batch: rows [row0, row0 + n_rows) at positions pos0, pos0 + 1, ... */
struct batch_seq {
    uint32_t row0, n_rows;
    uint32_t pos0;
    const uint32_t *blocks;        /* block ids; block b holds positions [64 b, 64 b + 64) */
    uint32_t n_blocks;             /* covers at least pos0 + n_rows positions */
    uint32_t n_logits;             /* of its last rows logits are wanted */
    uint32_t state;                /* its slot in every struct state_slices, if the model has any */
    const uint32_t *window_blocks; /* of slices that are windowed: from the first block on that is still read */
};

struct batch {
    uint32_t n_rows;
    const int32_t *tokens; /* [n_rows] */
    const struct batch_seq *seqs;
    uint32_t n_seqs;
};

/* A batch where ops read it.  step_begin() has brought tokens, positions, block tables and logit rows there in one go,
 * so that no op looks at host memory; the CPU's is a view of the batch, which stays as it is until all ops but
 * gather_rows() are enqueued.  A backend has one step at a time. */
struct step {
    const struct batch *batch; /* its shape */
    uint32_t n_logits;         /* logit rows of all sequences; they are numbered in the order of sequences and rows */
    void *device;              /* the backend's own */
};

/* The table of token embeddings: rows as GGUF has them, not packed; or rows of F32 where caps.embed_types lacks the
 * file's type. */
struct embedding {
    enum dtype type;
    uint32_t n_cols;
    const void *rows; /* device */
    bool gathered;    /* row i is that of the batch's i-th token; otherwise row t is that of token t */
};

/* How a row attends to the positions before it.  A backend that lacks one refuses it (ERR_UNSUPPORTED); the CPU lacks
 * attention that is not causal. */
struct attn_facts {
    float scale;     /* multiplies q.k */
    uint32_t window; /* position p sees (p - window, p]; 0: all.  Blocks before the first row's window are not read */
    float softcap;   /* scaled scores become softcap tanh(score / softcap); 0: they stay */
    const float *sinks; /* device, one more score per query head that takes weight and gives no value; or NULL */
    bool causal;        /* positions up to the row's own; false: all of the sequence */
    /* Query head h reads kv head (first + h) / group: a shard's heads may begin and end within a group.  group 0: each
     * kv head has n_heads / n_kv_heads. */
    uint32_t group, first;
};

/* Activations of n rows x k columns as matmul wants them: fp32 values plus their quantized form, which is made once
 * for all products that share them. */
struct act {
    float *f; /* device [n][k] */
    void *q;  /* device; layout is the backend's; act_bytes() says how large */
    uint32_t n, k;
    enum precision precision; /* the finest product that may follow */
};

/* How a gate g and a value u become one: act(g) * u. */
enum glu_kind {
    GLU_SILU, /* g sigmoid(g) u */
    GLU_GELU, /* GELU(g) u, in its tanh form */
    GLU_OAI,  /* gpt-oss: with g at most 7 and u within +-7, g sigmoid(1.702 g) (u + 1) */
    GLU_COUNT
};

/* How a router's logits become probabilities; the numbers are those of GGUF's expert_gating_func. */
enum route_gate {
    ROUTE_SOFTMAX = 1,
    ROUTE_SIGMOID = 2,
    ROUTE_SOFTMAX_CHOSEN = 3, /* logits choose; then softmax over those that are chosen */
    ROUTE_SQRT_SOFTPLUS = 4,
};

/* How k of n_experts are chosen for a row, and with what weight.  What is chosen by is the probability plus the bias.
 * Of equals the lower number is chosen. */
struct route_facts {
    enum route_gate gate;
    uint32_t n_experts;
    const float *bias; /* device, [n_experts]: for the choice alone, no part of the weight; or NULL */
    /* Experts fall into n_groups runs of equal length, and only those of the n_groups_used best may be chosen; a group
     * is as good as the sum of its two best.  0 or 1 group: all may. */
    uint32_t n_groups, n_groups_used;
    bool norm;   /* weights are divided by their sum, which is taken to be at least 2^-14 */
    float scale; /* multiplies the weights at last; 1 for none */
};

/* Which k experts each of n rows goes to.  Slot i * k + j is row i's j-th expert; a row's experts ascend.  The k
 * matrices of a fixed choice, as MLA has one per head, are a route that somebody has uploaded. */
struct route {
    uint32_t *expert; /* device [n][k] */
    float *weight;    /* device [n][k]; only expert_sum() reads it */
    uint32_t n, k;
};

/* KV memory of one layer: slice of block b starts at base + b * stride. */
struct kv_slices {
    uint8_t *base; /* device */
    size_t stride; /* a multiple of 64 */
    struct kv_geometry geom;
    bool windowed;      /* its ids are those of batch_seq's window_blocks */
    size_t slice_bytes; /* kv_slice_bytes(); stores alone look at it */
};

/* Block ids of a sequence in a layer. */
static inline const uint32_t *seq_blocks(const struct batch_seq *seq, const struct kv_slices *kv)
{
    return kv->windowed ? seq->window_blocks : seq->blocks;
}

/* K or V of one head in one block, on its way between KV memory and a host buffer: int8[t1 - t0][head_dim] at `values`
 * and fp32[t1 - t0] at `scales`, or fp16[t1 - t0][head_dim] at `values`.
 * KV_LATENT: K is the latent, with fp32[t1 - t0][groups of LATENT_GROUP values] at `scales`; V is the RoPE part,
 * bf16[t1 - t0][rope_dim] at `values` and no scales.  KV_F16: both are fp16 and have none. */
struct kv_piece {
    uint32_t layer, head, block; /* the rank's own numbers */
    uint32_t t0, t1;             /* tokens within the block */
    uint32_t values, scales;     /* bytes from the buffer's start; scales: KV_INT8 alone */
    bool is_v;
};

/* What a recurrent layer keeps of a sequence, whatever its length: of each head a matrix of fp32.  A layer has two:
 * - its convolution's tail: the inputs of the last rows = kernel - 1 positions, the oldest first.  A head is a run of
 *   cols channels; which width does not matter to the op, so it is chosen to suit the cut over ranks (of DeltaNet a
 *   head's dimension, of Mamba-2 what divides both a head's values and the state's size);
 * - its state S: rows are keys (DeltaNet) or the state's dimensions (Mamba-2), cols a head's values. */
struct state_geometry {
    uint32_t n_heads; /* of this rank */
    uint32_t rows, cols;
};

/* States of one layer on one rank: slot i, which holds one sequence's, starts at base + i * stride.
 * An op that computes a recurrence takes the state of a sequence from its slot, and leaves there what it is after the
 * last of the sequence's rows in the step.  A sequence at pos0 == 0 begins with zeros, whatever the slot holds. */
struct state_slices {
    uint8_t *base; /* device */
    size_t stride; /* a multiple of 64 */
    struct state_geometry geom;
    size_t slot_bytes; /* state_slot_bytes(); stores alone look at it */
};

/* A depthwise causal convolution over the last `kernel` positions. */
struct conv_facts {
    uint32_t kernel;   /* at least 2 */
    const float *w;    /* device [kernel][channels], the oldest position first (files have [channels][kernel]) */
    const float *bias; /* device [channels], or NULL */
    bool silu;         /* of the result */
};

/* The gated delta rule of one layer.  Head h of v has the key head h / (n_v_heads / n_k_heads), or with `tiled`
 * h % n_k_heads. */
struct delta_facts {
    uint32_t n_k_heads, n_v_heads;
    float eps;            /* of the lengths of q and k */
    const float *dt_bias; /* device [n_v_heads] */
    const float *a;       /* device [n_v_heads]: -exp(A_log), as files have it */
    bool tiled;
};

/* What the delta rule reads: rows of the step, ld floats apart.  The op may overwrite q and k. */
struct delta_inputs {
    float *qkv; /* device, after the convolution: q [n_k_heads][rows], k [n_k_heads][rows], v [n_v_heads][cols] */
    size_t ld;
    const float *beta, *alpha; /* device [n_v_heads] each, as projected */
    size_t beta_ld, alpha_ld;
};

/* Mamba-2's scan of one layer.  Head h has B and C of group h / (n_heads / n_groups). */
struct mamba2_facts {
    uint32_t n_heads, n_groups;
    const float *dt_bias; /* device [n_heads] */
    const float *a;       /* device [n_heads]: -exp(A_log), as files have it */
    const float *d;       /* device [n_heads]: how much of x goes past the state */
};

/* What the scan reads: rows of the step, ld floats apart. */
struct mamba2_inputs {
    const float *xbc; /* device, after the convolution: x [n_heads][cols], B [n_groups][rows], C [n_groups][rows] */
    size_t ld;
    const float *dt; /* device [n_heads], as projected */
    size_t dt_ld;
};

/* RMSNorm of groups of columns, and SiLU of a gate before or after it. */
struct norm_gate_facts {
    const float *w; /* device [group] for all groups alike, or with w_per_column [k] */
    uint32_t group; /* columns, divides k */
    float eps;
    bool w_per_column;
    bool gate_first; /* norm(x silu(gate)) w; otherwise norm(x) w silu(gate) */
};

struct backend;
/* Work in order, beside that of other streams.  NULL is one, too: each backend has it from the start. */
struct stream;

/* A point in a stream, passed once all that was enqueued before it is done.  A value: it is copied, handed to other
 * threads and forgotten at will, as long as the stream lives.  One of all zeroes has passed. */
struct mark {
    struct backend *backend;
    struct stream *stream;
    uint64_t at;
};

struct backend_limits {
    uint32_t max_rows;    /* rows in one batch */
    uint32_t max_context; /* positions in one sequence */
    uint32_t max_cols;    /* widest n_cols of any weight */
    uint32_t max_heads;   /* query heads; 0, as max_head_dim: no layer attends */
    uint32_t max_head_dim;
    uint32_t max_latent;       /* widest latent of a KV_LATENT cache; 0: there is none */
    uint32_t max_experts;      /* in a stack; 0: there are none */
    uint32_t max_experts_used; /* of a row: the largest k of any route */
};

/* What others have to know of a backend's kind; constant for its life.  Nobody asks for its name. */
struct backend_caps {
    bool host_memory;     /* device pointers are plain host memory */
    bool deterministic;   /* a row's bits depend on it alone, not on the batch, the threads or the instruction set */
    uint32_t row_quantum; /* a weight may be packed in runs of rows that begin at multiples of this */
    uint32_t col_quantum; /* a weight's columns are a multiple of this */
    uint64_t embed_types; /* bit t: embed() reads rows of dtype t; of others it is given fp32 that the host has made */
};

struct backend_ops {
    const char *name;
    void (*close)(struct backend *b);
    const char *(*describe)(const struct backend *b);
    enum status (*alloc)(struct backend *b, size_t bytes, void **out); /* zeroed device memory */
    void (*release)(struct backend *b, void *p, size_t bytes);
    /* src is the caller's again when upload() returns; download()'s dst is filled once the stream has come so far. */
    enum status (*upload)(struct backend *b, struct stream *s, void *dst, const void *src, size_t bytes);
    enum status (*download)(struct backend *b, struct stream *s, void *dst, const void *src, size_t bytes);
    enum status (*copy)(struct backend *b, struct stream *s, void *dst, const void *src, size_t bytes); /* on it */
    /* Bytes that alloc() may still give out, and all that the device has; NULL where memory is the host's. */
    enum status (*memory)(struct backend *b, uint64_t *left, uint64_t *total);
    /* A stream has one thread that enqueues; any may wait.  close() waits for what is enqueued. */
    enum status (*stream_open)(struct backend *b, struct stream **out);
    void (*stream_close)(struct backend *b, struct stream *s);
    /* Whether the device has reported an error that it does not get over: from then on every call fails.  From any
     * thread.  NULL: there is no such device. */
    bool (*failed)(const struct backend *b);
    /* Waits for all that is enqueued.  Tells the first failure since somebody waited last. */
    enum status (*sync)(struct backend *b, struct stream *s);
    /* Marks where the stream is; waits until it has passed, or asks.  mark_wait() and mark_done() below call these. */
    enum status (*mark_record)(struct backend *b, struct stream *s, struct mark *out);
    enum status (*mark_wait)(struct backend *b, const struct mark *m);
    bool (*mark_done)(struct backend *b, const struct mark *m);

    /* Bytes of a packed weight; ERR_UNSUPPORTED if this backend has no matmul for that type or shape. */
    enum status (*weight_bytes)(struct backend *b, enum dtype type, uint32_t n_rows, uint32_t n_cols, size_t *out);
    /* Packs n_rows rows of GGUF data (row r at src + r * src_stride) into dst (weight_bytes() bytes,
     * 64-byte aligned).  Bit patterns are kept: only their order changes.  A run of rows that begins at row r, a
     * multiple of row_quantum, may be packed by itself: its place is at weight_bytes() of r rows.  src is needed until
     * the stream has come so far. */
    enum status (*weight_pack)(struct backend *b, struct stream *s, void *dst, enum dtype type, uint32_t n_rows,
                               uint32_t n_cols, const void *src, size_t src_stride);
    size_t (*act_bytes)(struct backend *b, uint32_t n, uint32_t k, enum precision precision); /* of struct act's q */

    /* Steps that come again, as those of decode do.  replay() comes after step_begin(); `part` tells parts of a step
     * apart, and `owner` who enqueues (its buffers stay where they are).  *done: what this part enqueued in an earlier
     * step of the same shape is enqueued again, and the caller is through with it.  Otherwise the caller enqueues, and
     * says so by recorded(), with whether all went well; in between it waits for nothing, and gives ops nothing of the
     * host that changes from step to step.  Both NULL where a backend gains nothing by it. */
    enum status (*replay)(struct backend *b, struct stream *s, const struct step *step, const void *owner,
                          uint32_t part, bool *done);
    enum status (*recorded)(struct backend *b, struct stream *s, bool ok);

    /* Structs that are handed over by pointer are read during the call, what they point to as the struct says. */
    enum status (*step_begin)(struct backend *b, struct stream *s, const struct batch *batch, struct step *out);
    /* out[i] = the embedding of the step's i-th token; [n_rows][n_cols] fp32. */
    enum status (*embed)(struct backend *b, struct stream *s, float *out, const struct embedding *table,
                         const struct step *step);
    /* out[i] = x's row that is the step's logit row first + i; x [n_rows][k], out [n][k]. */
    enum status (*gather_rows)(struct backend *b, struct stream *s, float *out, const float *x, uint32_t k,
                               const struct step *step, uint32_t first, uint32_t n);
    /* out = x / rms(x) * w, row by row, with its quantized form.  x [n][k], w [k], or NULL for ones. */
    enum status (*rmsnorm)(struct backend *b, struct stream *s, struct act *out, const float *x, const float *w,
                           float eps);
    /* out = act(gate) * up with its quantized form; gate and up rows are ld floats apart. */
    enum status (*glu)(struct backend *b, struct stream *s, struct act *out, const float *gate, const float *up,
                       size_t ld, enum glu_kind kind);
    /* Quantizes out->f, which is filled already. */
    enum status (*quantize)(struct backend *b, struct stream *s, struct act *out);
    /* y[i][0..n_rows) (+)= W x_i for each row i of x, whose precision is at least W's; y rows are ld floats apart. */
    enum status (*matmul)(struct backend *b, struct stream *s, float *y, size_t ld, const struct weight *w,
                          const struct act *x, bool accumulate);
    /* y[i][j] += bias[j] */
    enum status (*add_bias)(struct backend *b, struct stream *s, float *y, size_t ld, const float *bias, uint32_t n,
                            uint32_t cols);
    /* RoPE, and rotation if geom says so, on n_heads heads side by side, in place; rows are ld floats apart. */
    enum status (*rope)(struct backend *b, struct stream *s, float *x, size_t ld, uint32_t n_heads,
                        const struct kv_geometry *geom, const struct rope_params *rope, const struct step *step);
    /* The quantized k and v, which are as they shall be, into the sequences' blocks; rows are ld floats apart. */
    enum status (*kv_write)(struct backend *b, struct stream *s, const float *k, const float *v, size_t ld,
                            const struct kv_slices *kv, const struct step *step);
    /* rope() of q and k and kv_write() in one, with the same bits; NULL if the backend has no such kernel.
     * Rows of qkv are ld floats apart: q heads at 0, k heads at k_off, v heads at v_off. */
    enum status (*rope_kv_write)(struct backend *b, struct stream *s, float *qkv, size_t ld, uint32_t n_heads,
                                 size_t k_off, size_t v_off, const struct kv_slices *kv, const struct rope_params *rope,
                                 const struct step *step);
    /* out->f[i][n_heads * head_dim] = attention of row i, read from kv only, with the quantized form. */
    enum status (*attention)(struct backend *b, struct stream *s, struct act *out, const float *q, size_t ld,
                             uint32_t n_heads, const struct kv_slices *kv, const struct attn_facts *facts,
                             const struct step *step);
    /* Bytes of one block's slice for this geometry, a multiple of 64. */
    size_t (*kv_slice_bytes)(struct backend *b, const struct kv_geometry *geom);
    /* Host memory from which and to which this backend copies fastest: pinned where it has memory of its own, plain on
     * the CPU.  Zeroed, aligned to a page. */
    enum status (*host_alloc)(struct backend *b, size_t bytes, void **out);
    void (*host_free)(struct backend *b, void *p, size_t bytes);
    /* n pieces of layers[] into and out of the buffer `wire` on the host, in the wire's canonical order; from
     * host_alloc() it is fastest.  Both wait for their own work on `s`, so they are done when they return, and are
     * thread safe: two callers never have the same (layer, head, block).  ERR_INVALID: a head or tokens that the
     * geometry has not. Unpacking refuses (ERR_CORRUPT) the value -128 and scales that are not finite and positive, for
     * fp16 what is not finite; blocks of refused pieces hold anything then. */
    enum status (*kv_pack)(struct backend *b, struct stream *s, const struct kv_slices *layers,
                           const struct kv_piece *pieces, uint32_t n, uint8_t *wire);
    enum status (*kv_unpack)(struct backend *b, struct stream *s, const struct kv_slices *layers,
                             const struct kv_piece *pieces, uint32_t n, const uint8_t *wire);

    /* --- a KV_LATENT cache --- */
    /* The quantized c [head_dim] and k_rope [rope_dim], normed and turned as they shall be, into the sequences' blocks;
     * rows are c_ld and rope_ld floats apart. */
    enum status (*latent_write)(struct backend *b, struct stream *s, const float *c, size_t c_ld, const float *k_rope,
                                size_t rope_ld, const struct kv_slices *kv, const struct step *step);
    /* out->f[i * n_heads + h] = attention of row i's head h over latents, [head_dim], with the quantized form;
     * out has n_rows * n_heads rows.  Scores are scale (q . c + q_rope . k_rope), values are the c.  q of (i, h), with
     * the keys' matrix in it already, is at q + (i * n_heads + h) * q_ld; its RoPE part, turned, is at
     * q_rope + i * rope_ld + h * rope_step. */
    enum status (*attention_latent)(struct backend *b, struct stream *s, struct act *out, const float *q, size_t q_ld,
                                    const float *q_rope, size_t rope_ld, size_t rope_step, uint32_t n_heads,
                                    const struct kv_slices *kv, float scale, const struct step *step);

    /* --- recurrent layers: struct state_slices says where a state begins and what stays of it --- */
    /* out = the convolution of x, row by row; n_heads * cols channels of `tail`, whose rows are kernel - 1.  Rows are
     * ld and out_ld floats apart; out and x do not overlap. */
    enum status (*conv_step)(struct backend *b, struct stream *s, float *out, size_t out_ld, const float *x, size_t ld,
                             const struct conv_facts *facts, const struct state_slices *tail, const struct step *step);
    /* Row by row, of each head of v: q and k at length 1, q / sqrt(rows); S *= exp(softplus(alpha + dt_bias) a);
     * S += k (sigmoid(beta) (v - k S)); out = q S.  out rows [n_v_heads][cols] are out_ld floats apart. */
    enum status (*delta_rule)(struct backend *b, struct stream *s, float *out, size_t out_ld,
                              const struct delta_inputs *in, const struct delta_facts *facts,
                              const struct state_slices *state, const struct step *step);
    /* Row by row, of each head: t = softplus(dt + dt_bias); S = S exp(t a) + B (t x); out = C S + d x.  out rows
     * [n_heads][cols] are out_ld floats apart. */
    enum status (*mamba2_scan)(struct backend *b, struct stream *s, float *out, size_t out_ld,
                               const struct mamba2_inputs *in, const struct mamba2_facts *facts,
                               const struct state_slices *state, const struct step *step);
    /* out->f = x normed and gated, with the quantized form; rows of x and gate are ld and gate_ld floats apart. */
    enum status (*norm_gate)(struct backend *b, struct stream *s, struct act *out, const float *x, size_t ld,
                             const float *gate, size_t gate_ld, const struct norm_gate_facts *facts);
    /* Bytes of one slot, a multiple of 64; 0: the backend has no kernels for this geometry (the CPU: cols that are no
     * multiple of 16, or above 1024 rows). */
    size_t (*state_slot_bytes)(struct backend *b, const struct state_geometry *geom);
    /* A slot to another of the same layer: what was there is gone. */
    enum status (*state_copy)(struct backend *b, struct stream *s, const struct state_slices *state, uint32_t from,
                              uint32_t to);
    /* Heads [h0, h1) of a slot into and out of the buffer `wire` on the host in the canonical order: head by head
     * fp32[rows][cols], little-endian.  Done when they return, and thread safe, like kv_pack() and kv_unpack().
     * ERR_INVALID: heads that the geometry has not.  Unpacking refuses what is not finite (ERR_CORRUPT); the heads hold
     * anything then. */
    enum status (*state_pack)(struct backend *b, struct stream *s, const struct state_slices *state, uint32_t slot,
                              uint32_t h0, uint32_t h1, uint8_t *wire);
    enum status (*state_unpack)(struct backend *b, struct stream *s, const struct state_slices *state, uint32_t slot,
                                uint32_t h0, uint32_t h1, const uint8_t *wire);

    /* --- what some families have more --- */
    /* Each of n_heads heads side by side, head_dim floats each: x / rms(x) * w in place; w [head_dim] is shared by all,
     * NULL for ones.  Rows are ld floats apart. */
    enum status (*head_norm)(struct backend *b, struct stream *s, float *x, size_t ld, uint32_t n_rows,
                             uint32_t n_heads, uint32_t head_dim, const float *w, float eps);
    /* x_i += y_i / rms(y_i) * w for n rows of k floats; rows of both are ld floats apart.  w may be NULL for ones. */
    enum status (*norm_add)(struct backend *b, struct stream *s, float *x, const float *y, size_t ld, uint32_t n,
                            uint32_t k, const float *w, float eps);
    /* x *= factor, n floats. */
    enum status (*scale)(struct backend *b, struct stream *s, float *x, size_t n, float factor);
    /* x = cap tanh(x / cap), n floats. */
    enum status (*softcap)(struct backend *b, struct stream *s, float *x, size_t n, float cap);
    /* out->f *= sigmoid(gate), then its quantized form; gate rows are ld floats apart. */
    enum status (*gate_act)(struct backend *b, struct stream *s, struct act *out, const float *gate, size_t ld);
    /* Fills out, whose n and k are set, from logits [n][n_experts], rows ld floats apart.  A row of NaNs is given
     * experts like any other. */
    enum status (*route)(struct backend *b, struct stream *s, struct route *out, const float *logits, size_t ld,
                         const struct route_facts *facts);
    /* Row i * k + j of y = W[expert(i, j)] times row (x_by_slot ? i * k + j : i) of x; y rows are ld floats apart.  Of
     * the stack w only the matrices that are used are read.  Precision, and a row's bits, are as in matmul(). */
    enum status (*expert_matmul)(struct backend *b, struct stream *s, float *y, size_t ld, const struct weight *w,
                                 const struct act *x, const struct route *route, bool x_by_slot);
    /* y[i * k + j][0..cols) += bias[expert(i, j)]; bias [n_experts][cols], y rows are ld floats apart. */
    enum status (*expert_bias)(struct backend *b, struct stream *s, float *y, size_t ld, const float *bias,
                               uint32_t cols, const struct route *route);
    /* x_i += the sum over j of weight(i, j) y[i * k + j]; x rows are ld floats apart, y's are d.  A shared expert
     * behind a sigmoid of one logit is a route with one expert. */
    enum status (*expert_sum)(struct backend *b, struct stream *s, float *x, size_t ld, const float *y,
                              const struct route *route, uint32_t d);

    /* --- sampling near the logits --- */
    /* Edits n rows of logits [n][n_vocab] in place as `rows` say, and picks from them: out[n] is host memory, filled
     * once the stream has come so far.  `rows` is read during the call. */
    enum status (*pick)(struct backend *b, struct stream *s, float *logits, uint32_t n_vocab, uint32_t n,
                        const struct pick_row *rows, struct picked *out);
    /* x[i] = exp((x[i] - top) / temperature), with pick()'s bits. */
    enum status (*weigh)(struct backend *b, struct stream *s, float *x, uint32_t n, float top, float temperature);
};

struct backend {
    const struct backend_ops *ops;
    struct backend_caps caps;
};

/* From one matrix of a stack to the next; `bytes` is weight_bytes() of one. */
static inline size_t expert_stride(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

/* Bytes on the wire of one (layer, kv head): K and V of n tokens. */
static inline uint64_t kv_wire_bytes(enum kv_format format, uint32_t head_dim, uint64_t n_tokens)
{
    return 2 * n_tokens * (format == KV_INT8 ? (uint64_t)head_dim + 4 : 2 * (uint64_t)head_dim);
}

/* Groups of a latent's values, with a scale each in KV_INT8. */
static inline uint32_t latent_groups(uint32_t latent)
{
    return (latent + LATENT_GROUP - 1) / LATENT_GROUP;
}

/* Bytes on the wire of one token's K, or V, of one head: its values, and its scales.  Those of all tokens of a piece
 * follow each other, first the values, then the scales. */
static inline uint32_t kv_value_bytes(const struct kv_geometry *g, bool is_v)
{
    if (g->kind == KV_LATENT && is_v) return 2 * g->rope_dim;
    return g->format == KV_INT8 ? g->head_dim : 2 * g->head_dim;
}

static inline uint32_t kv_scale_bytes(const struct kv_geometry *g, bool is_v)
{
    if (g->format != KV_INT8) return 0;
    if (g->kind == KV_LATENT) return is_v ? 0 : 4 * latent_groups(g->head_dim);
    return 4;
}

/* Bytes on the wire of one head of a state. */
static inline uint64_t state_wire_bytes(const struct state_geometry *g)
{
    return 4 * (uint64_t)g->rows * g->cols;
}

/* Whose bits a backend's results are: the CPU's, or any within the contract (docs/numerics.md).  The CPU has its own.
 */
enum numerics { NUMERICS_EXACT, NUMERICS_FAST };

struct backend_options {
    uint32_t n_threads; /* CPU: members of the team, the caller being one of them */
    const char *cpus;   /* CPU: a list like "0-3,6" to pin to, or NULL */
    /* CPU: lowers the instruction set: NULL or "auto", "ref", "avx2", "avxvnni", "avx512" (no VNNI), "vnni", "amx", or
     * "vnni256", avxvnni's kernels for a CPU with AVX-512. */
    const char *isa;
    uint32_t device;        /* CUDA: which GPU */
    uint64_t memory;        /* CUDA: bytes of it that may be taken; 0: what is free, but for a reserve */
    enum numerics numerics; /* CUDA */
    struct backend_limits limits;
};

/* The backend of that name ("cpu", "cuda"), from the table in backend_open.c.  ERR_INVALID / ERR_UNSUPPORTED with a
 * sentence if a name is unknown, or what it names is not on this machine.  Caller owns. */
enum status backend_open(struct backend **out, const char *name, const struct backend_options *opt,
                         struct error *err) MUST_CHECK;
void backend_close(struct backend *b); /* NULL is fine */
/* Which name a configuration's `wanted` ("auto" or a name) stands for: "auto" is "cuda" where that opens on `device`,
 * else "cpu", and `why` says what is in the way.  What is named is not tried: backend_open() judges it. */
const char *backend_choose(const char *wanted, uint32_t device, struct error *why);
/* All memory of that device, without opening it; 0: it is the host's, or does not answer. */
uint64_t backend_device_bytes(const char *name, uint32_t device);

static inline enum status mark_wait(const struct mark *m)
{
    return m->backend ? m->backend->ops->mark_wait(m->backend, m) : OK;
}

static inline bool mark_done(const struct mark *m)
{
    return !m->backend || m->backend->ops->mark_done(m->backend, m);
}

static inline bool backend_failed(const struct backend *b)
{
    return b->ops->failed && b->ops->failed(b);
}

/* Whether embed() reads rows of GGUF type `type`. */
static inline bool backend_embeds(const struct backend *b, uint32_t type)
{
    return b->caps.embed_types >> (type % 64) & 1;
}

/* What it computes with, in a word: the CPU's instruction set, one of those above but "auto". */
static inline const char *backend_describe(const struct backend *b)
{
    return b->ops->describe(b);
}
#endif
