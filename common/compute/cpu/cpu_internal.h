/* cpu_internal.h - the CPU backend's object, shared by the files that implement its ops. */
#ifndef COMPUTE_CPU_CPU_INTERNAL_H
#define COMPUTE_CPU_CPU_INTERNAL_H
#include "base/team.h"
#include "compute/backend.h"
#include "compute/cpu/cpu_kernels.h"

#include <stdatomic.h>

#define ATTN_SEGMENT_BLOCKS 8  /* 512 tokens */
#define ATTN_TILE_QUERIES   32 /* (row, head) pairs that go over a KV block together */
#define FEW_ROWS            4  /* below it, row work is shorter than waking the team */

/* cos and sin per row of the batch, kept from layer to layer of one step. */
struct rope_table {
    struct rope_params params; /* of the last call; freq_factors points to `factors` or is NULL */
    float *factors;            /* owned; [max_head_dim / 2] */
    double *freq;              /* owned; [max_head_dim / 2] radians per position */
    uint32_t *pos;             /* owned; [max_rows] what row i was computed for, UINT32_MAX = nothing */
    float *c, *s;              /* owned; [max_rows][max_head_dim] */
    bool valid;
};

/* Slots of a route by expert, made anew by each product with a stack (cpu_experts.c). */
struct expert_table {
    uint32_t *slots, *ends;    /* owned; [n_slots], [max_experts] */
    struct slot_group *groups; /* owned; [n_groups] */
    size_t n_slots, n_groups;
};

struct cpu_backend {
    struct backend base; /* first: a struct backend is a struct cpu_backend */
    const struct cpu_kernels *kernels;
    struct team *team;
    struct backend_limits limits;
    struct rope_table rope;
    uint32_t *logit_rows; /* owned; [max_rows] of the step */
    uint8_t *scratch;     /* [team_size][scratch_bytes], 64-byte aligned */
    size_t scratch_bytes;
    struct expert_table experts;
    float *partials; /* of attention split by segments: [n_partials][max_head_dim or max_latent, + 2] */
    size_t n_partials, partials_bytes;
};

static inline struct cpu_backend *cpu_of(struct backend *b)
{
    return (struct cpu_backend *)b;
}

static inline void *scratch_of(const struct cpu_backend *b, uint32_t member)
{
    return b->scratch + member * b->scratch_bytes;
}

/* The next so many bytes of scratch.  Addresses are numbers: how much is needed is asked without a place. */
static inline void *scratch_piece(uintptr_t *at, size_t bytes)
{
    void *p = (void *)*at;
    *at += bytes;
    return p;
}

/* fn(arg, row0, row1, member) over all rows, by the team where there are enough of them. */
typedef void (*rows_fn)(void *arg, uint32_t row0, uint32_t row1, uint32_t member);
void cpu_for_rows(struct cpu_backend *b, uint32_t n, uint32_t grain, rows_fn fn, void *arg);

/* Quantizes rows [row0, row1) of out->f.  Of activations that are fine, a second run of tiles follows the first: row i
 * is its rows 2i, i's 8 bits again, and 2i + 1, what those lose of it. */
void cpu_quantize_rows(const struct cpu_backend *b, const struct act *out, uint32_t row0, uint32_t row1,
                       uint32_t member);
static inline const uint8_t *fine_tiles_of(const struct act *x)
{
    return (const uint8_t *)x->q + act_tiles_bytes(x->n, x->k);
}

/* Bytes of a thread's scratch that products need. */
size_t cpu_matmul_scratch(const struct backend_limits *limits);

/* Bytes of a thread's scratch that attention needs. */
size_t cpu_attention_scratch(const struct backend_limits *limits);
size_t cpu_latent_scratch(const struct backend_limits *limits);

/* Bytes of a thread's scratch that routes and products with experts need. */
size_t cpu_route_scratch(const struct backend_limits *limits);
size_t cpu_expert_scratch(const struct backend_limits *limits);
enum status cpu_expert_table_create(struct expert_table *t, const struct backend_limits *limits);
void cpu_expert_table_free(struct expert_table *t);

/* The ops; contracts in compute/backend.h.  cpu_rows.c: */
enum status cpu_quantize(struct backend *b, struct stream *s, struct act *out);
enum status cpu_rmsnorm(struct backend *b, struct stream *s, struct act *out, const float *x, const float *w,
                        float eps);
enum status cpu_glu(struct backend *b, struct stream *s, struct act *out, const float *gate, const float *up, size_t ld,
                    enum glu_kind kind);
enum status cpu_gate_act(struct backend *b, struct stream *s, struct act *out, const float *gate, size_t ld);
enum status cpu_add_bias(struct backend *b, struct stream *s, float *y, size_t ld, const float *bias, uint32_t n,
                         uint32_t cols);
enum status cpu_head_norm(struct backend *b, struct stream *s, float *x, size_t ld, uint32_t n_rows, uint32_t n_heads,
                          uint32_t head_dim, const float *w, float eps);
enum status cpu_norm_add(struct backend *b, struct stream *s, float *x, const float *y, size_t ld, uint32_t n,
                         uint32_t k, const float *w, float eps);
enum status cpu_scale(struct backend *b, struct stream *s, float *x, size_t n, float factor);
enum status cpu_softcap(struct backend *b, struct stream *s, float *x, size_t n, float cap);
/* matmul.c: */
enum status cpu_weight_bytes(struct backend *b, enum dtype type, uint32_t n_rows, uint32_t n_cols, size_t *out);
enum status cpu_weight_pack(struct backend *b, struct stream *s, void *dst, enum dtype type, uint32_t n_rows,
                            uint32_t n_cols, const void *src, size_t src_stride);
enum status cpu_matmul(struct backend *b, struct stream *s, float *y, size_t ld, const struct weight *w,
                       const struct act *x, bool accumulate);
/* pick.c: */
enum status cpu_pick(struct backend *b, struct stream *s, float *logits, uint32_t n_vocab, uint32_t n,
                     const struct pick_row *rows, struct picked *out);
enum status cpu_weigh(struct backend *b, struct stream *s, float *x, uint32_t n, float top, float temperature);
/* rope_kv.c: */
enum status cpu_rope(struct backend *b, struct stream *s, float *x, size_t ld, uint32_t n_heads,
                     const struct kv_geometry *geom, const struct rope_params *rope, const struct step *step);
enum status cpu_kv_write(struct backend *b, struct stream *s, const float *k, const float *v, size_t ld,
                         const struct kv_slices *kv, const struct step *step);
enum status cpu_rope_kv_write(struct backend *b, struct stream *s, float *qkv, size_t ld, uint32_t n_heads,
                              size_t k_off, size_t v_off, const struct kv_slices *kv, const struct rope_params *rope,
                              const struct step *step);
/* attention.c: */
enum status cpu_attention(struct backend *b, struct stream *s, struct act *out, const float *q, size_t ld,
                          uint32_t n_heads, const struct kv_slices *kv, const struct attn_facts *facts,
                          const struct step *step);
/* attention_latent.c: */
enum status cpu_latent_write(struct backend *b, struct stream *s, const float *c, size_t c_ld, const float *k_rope,
                             size_t rope_ld, const struct kv_slices *kv, const struct step *step);
enum status cpu_attention_latent(struct backend *b, struct stream *s, struct act *out, const float *q, size_t q_ld,
                                 const float *q_rope, size_t rope_ld, size_t rope_step, uint32_t n_heads,
                                 const struct kv_slices *kv, float scale, const struct step *step);
/* cpu_route.c: */
enum status cpu_route(struct backend *b, struct stream *s, struct route *out, const float *logits, size_t ld,
                      const struct route_facts *facts);
enum status cpu_expert_bias(struct backend *b, struct stream *s, float *y, size_t ld, const float *bias, uint32_t cols,
                            const struct route *route);
enum status cpu_expert_sum(struct backend *b, struct stream *s, float *x, size_t ld, const float *y,
                           const struct route *route, uint32_t d);
/* cpu_experts.c: */
enum status cpu_expert_matmul(struct backend *b, struct stream *s, float *y, size_t ld, const struct weight *w,
                              const struct act *x, const struct route *route, bool x_by_slot);
#endif
