/* router.h - which nodes serve a request: a pure function over a plain snapshot.
 *
 * Least loaded: of the nodes that have room, the decode node with the smallest share of its sequences
 * taken, and the prefill node with the fewest prompt tokens before it.  No I/O, no clock. */
#ifndef CLUSTER_ROUTER_H
#define CLUSTER_ROUTER_H
#include <stdbool.h>
#include <stdint.h>

enum router_local { ROUTER_LOCAL_AUTO, ROUTER_LOCAL_NEVER, ROUTER_LOCAL_ALWAYS };

struct router_node {
    bool decode; /* otherwise prefill */
    uint32_t model_idx;
    uint32_t n_active; /* requests that it holds */
    uint32_t max_seqs;
    uint32_t blocks_free; /* decode: estimate */
    uint32_t block_tokens;
    uint32_t max_tokens;    /* longest sequence that it takes */
    uint64_t queued_tokens; /* prefill: prompt tokens not yet computed */
    enum router_local local_prefill;
};

struct router_pair { /* indices of a prefill and a decode node that could not reach each other lately (pairs.h) */
    int prefill, decode;
    bool often; /* more than once in a row */
    bool rests; /* not to be tried now even where no other pair is */
};

struct router_ask {
    uint32_t model_idx;
    uint32_t reserve_tokens;          /* that the decode node must have room for now */
    uint32_t max_tokens;              /* prompt and output at most */
    uint32_t n_tokens;                /* prompt: what the prefill node needs room for */
    int avoid_prefill, avoid_decode;  /* indices of nodes that just failed; used only if no other serves, -1 = none */
    const struct router_pair *broken; /* passed over while another pair exists, busy or not; [n_broken] */
    uint32_t n_broken;
    bool no_handoff; /* rather have the prompt read by the decode node itself, where it does that */
};

enum router_verdict {
    ROUTER_PICKED,
    ROUTER_BUSY,       /* nodes serve it, none has room now */
    ROUTER_NO_PREFILL, /* no prefill node, and local prefill is forbidden */
    ROUTER_NO_DECODE,  /* no decode node of the model */
    ROUTER_TOO_LONG,   /* no node takes a sequence as long */
};

struct router_choice {
    int prefill; /* index, -1: the decode node computes the prompt itself */
    int decode;
};

static inline uint32_t router_blocks(uint32_t tokens, uint32_t block_tokens)
{
    return tokens / block_tokens + (tokens % block_tokens != 0);
}
enum router_verdict router_pick(const struct router_node *nodes, uint32_t n, const struct router_ask *ask,
                                struct router_choice *out);
/* The same for a prefill node alone, ROUTER_NO_PREFILL also if another decode node would be reached sooner: *out is its
 * index, -1 for local prefill at decode node `decode`. */
enum router_verdict router_pick_prefill(const struct router_node *nodes, uint32_t n, const struct router_ask *ask,
                                        int decode, int *out);
#endif
