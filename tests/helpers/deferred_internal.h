/* deferred_internal.h - the queues of the deferred backend, and the ops that are put into them. */
#ifndef TESTS_HELPERS_DEFERRED_INTERNAL_H
#define TESTS_HELPERS_DEFERRED_INTERNAL_H
#include "compute/backend.h"

#include <pthread.h>

/* What an op was called with; each op reads its own. */
struct call {
    enum status (*run)(struct backend *cpu, const struct call *c);
    struct call *next;
    void *dst;
    const void *src;
    uint8_t *bytes; /* owned copy of src */
    size_t n_bytes, ld, k_off, v_off, stride;
    struct act act;
    struct weight weight;
    struct embedding table;
    struct kv_slices kv;
    struct rope_params rope;
    struct attn_facts facts;
    struct step step;
    const float *a, *b;
    enum dtype type;
    uint32_t n, cols, n_heads, first;
    enum glu_kind kind;
    struct route route;
    struct route_facts route_facts;
    float eps, factor, top;
    bool accumulate, by_slot;
    struct state_slices state;
    struct conv_facts conv;
    struct delta_inputs delta_in;
    struct delta_facts delta;
    struct mamba2_inputs mamba2_in;
    struct mamba2_facts mamba2;
    struct norm_gate_facts gate;
};

struct stream {
    struct call *head, **tail;
    uint64_t enqueued, done;
    enum status failed; /* the first failure: told to whoever waits */
};

/* A batch as it was when its step began. */
struct copy {
    struct batch batch;
    struct step inner; /* of the CPU backend, once the queue has come so far */
    struct copy *next;
};

struct deferred {
    struct backend base; /* first */
    struct backend *cpu;
    struct stream own; /* stream NULL */
    struct copy *copies;
    pthread_mutex_t lock;
    uint32_t pending, waits, marks;
};

static inline struct deferred *of(const struct backend *b)
{
    return (struct deferred *)(uintptr_t)b;
}

/* Puts a copy of the call at the end of the stream. */
enum status deferred_enqueue(struct backend *b, struct stream *s, const struct call *call);
enum status deferred_sync(struct backend *b, struct stream *s);
void deferred_copy_free(struct copy *c);

/* Sets the ops of weights, steps, rows and KV (deferred_ops.c), those that only some families have
 * (deferred_family_ops.c), and those of states and latents (deferred_state_ops.c). */
void deferred_set_ops(struct backend_ops *ops);
void deferred_set_family_ops(struct backend_ops *ops);
void deferred_set_state_ops(struct backend_ops *ops);
#endif
