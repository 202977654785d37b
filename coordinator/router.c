/* router.c - picks the least loaded pair that has room. */
#include "coordinator/router.h"

static double decode_load(const struct router_node *n)
{
    return n->max_seqs ? (double)n->n_active / n->max_seqs : 1e9;
}

/* The better of two decode nodes: smaller share of sequences, then more free blocks. */
static bool decode_is_better(const struct router_node *a, const struct router_node *b)
{
    double la = decode_load(a), lb = decode_load(b);
    if (la < lb || la > lb) return la < lb;
    return a->blocks_free > b->blocks_free;
}

static bool prefill_is_better(const struct router_node *a, const struct router_node *b)
{
    if (a->queued_tokens != b->queued_tokens) return a->queued_tokens < b->queued_tokens;
    return a->n_active < b->n_active;
}

static bool has_room(const struct router_node *n, const struct router_ask *ask)
{
    if (n->n_active >= n->max_seqs) return false;
    return !n->decode || n->blocks_free >= router_blocks(ask->reserve_tokens, n->block_tokens);
}

/* The best node of one role; what stands in the way otherwise.  `skip` is passed over. */
static enum router_verdict pick_role(const struct router_node *nodes, uint32_t n, const struct router_ask *ask,
                                     bool decode, int skip, int *out)
{
    uint32_t need = decode ? ask->max_tokens : ask->n_tokens;
    enum router_verdict verdict = decode ? ROUTER_NO_DECODE : ROUTER_NO_PREFILL;
    int best = -1;
    for (uint32_t i = 0; i < n; i++) {
        const struct router_node *node = &nodes[i];
        if (node->decode != decode || node->model_idx != ask->model_idx || (int)i == skip) continue;
        if (node->max_tokens < need) {
            if (verdict != ROUTER_BUSY) verdict = ROUTER_TOO_LONG;
            continue;
        }
        verdict = ROUTER_BUSY;
        if (!has_room(node, ask)) continue;
        if (best < 0 || (decode ? decode_is_better : prefill_is_better)(node, &nodes[best])) best = (int)i;
    }
    if (best < 0) return verdict;
    *out = best;
    return ROUTER_PICKED;
}

/* A node that just failed is taken again only where no other exists: where another is just busy, it is waited for. */
static enum router_verdict pick_avoiding(const struct router_node *nodes, uint32_t n, const struct router_ask *ask,
                                         bool decode, int avoid, int *out)
{
    enum router_verdict v = pick_role(nodes, n, ask, decode, avoid, out);
    if (v == ROUTER_PICKED || v == ROUTER_BUSY || avoid < 0) return v;
    return pick_role(nodes, n, ask, decode, -1, out);
}

enum router_verdict router_pick_prefill(const struct router_node *nodes, uint32_t n, const struct router_ask *ask,
                                        int decode, int *out)
{
    enum router_local local = nodes[decode].local_prefill;
    *out = -1;
    if (local == ROUTER_LOCAL_ALWAYS || (local == ROUTER_LOCAL_AUTO && ask->no_handoff)) return ROUTER_PICKED;
    enum router_verdict v = pick_avoiding(nodes, n, ask, false, ask->avoid_prefill, out);
    bool none = v == ROUTER_NO_PREFILL || v == ROUTER_TOO_LONG;
    if (none && local == ROUTER_LOCAL_AUTO) return ROUTER_PICKED;
    return v;
}

enum router_verdict router_pick(const struct router_node *nodes, uint32_t n, const struct router_ask *ask,
                                struct router_choice *out)
{
    struct router_choice c = { -1, -1 };
    enum router_verdict v = pick_avoiding(nodes, n, ask, true, ask->avoid_decode, &c.decode);
    if (v == ROUTER_PICKED) v = router_pick_prefill(nodes, n, ask, c.decode, &c.prefill);
    if (v == ROUTER_PICKED) *out = c;
    return v;
}
