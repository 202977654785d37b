/* router.c - picks the least loaded pair that has room. */
#include "coordinator/cluster/router.h"

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

static const struct router_pair *broken_pair(const struct router_ask *ask, int prefill, int decode)
{
    for (uint32_t i = 0; i < ask->n_broken; i++)
        if (ask->broken[i].prefill == prefill && ask->broken[i].decode == decode) return &ask->broken[i];
    return NULL;
}

static bool reads_alone(const struct router_node *decode, const struct router_ask *ask)
{
    return decode->local_prefill == ROUTER_LOCAL_ALWAYS ||
           (decode->local_prefill == ROUTER_LOCAL_AUTO && ask->no_handoff);
}

/* How a decode node gets its prompts, as far as broken pairs are concerned. */
enum reach {
    REACH_FINE = 1,  /* from a prefill node that reaches it, or it needs none */
    REACH_ALONE = 2, /* none does again and again: it reads them itself */
    REACH_NOT = 4,   /* none did lately */
    REACH_ANY = 7,
};

static enum reach reach_of(const struct router_node *nodes, uint32_t n, const struct router_ask *ask, int decode)
{
    bool any = false, often = true;
    if (ask->n_broken == 0 || reads_alone(&nodes[decode], ask)) return REACH_FINE;
    for (uint32_t i = 0; i < n; i++) {
        const struct router_node *p = &nodes[i];
        if (p->decode || p->model_idx != ask->model_idx || p->max_tokens < ask->n_tokens) continue;
        const struct router_pair *broken = broken_pair(ask, (int)i, decode);
        if (!broken) return REACH_FINE;
        any = true;
        often &= broken->often;
    }
    if (!any) return REACH_FINE;
    return often && nodes[decode].local_prefill == ROUTER_LOCAL_AUTO ? REACH_ALONE : REACH_NOT;
}

struct search { /* for a node of one role */
    bool decode;
    int avoid;      /* index, -1 = none */
    unsigned reach; /* of decode nodes: these */
    int partner;    /* of prefill nodes: the decode node */
    bool despite;   /* and even one that could not reach it lately */
};

static bool is_passed_over(const struct router_node *nodes, uint32_t n, const struct router_ask *ask,
                           const struct search *s, int i)
{
    if (s->decode) return s->reach != REACH_ANY && !(s->reach & reach_of(nodes, n, ask, i));
    return !s->despite && broken_pair(ask, i, s->partner);
}

static bool rests(const struct router_ask *ask, const struct search *s, int i)
{
    const struct router_pair *broken = s->decode ? NULL : broken_pair(ask, i, s->partner);
    return broken && broken->rests;
}

/* The best node of one role; what stands in the way otherwise.  `skip` is passed over. */
static enum router_verdict pick_role(const struct router_node *nodes, uint32_t n, const struct router_ask *ask,
                                     const struct search *s, int skip, int *out)
{
    bool decode = s->decode;
    uint32_t need = decode ? ask->max_tokens : ask->n_tokens;
    enum router_verdict verdict = decode ? ROUTER_NO_DECODE : ROUTER_NO_PREFILL;
    int best = -1;
    for (uint32_t i = 0; i < n; i++) {
        const struct router_node *node = &nodes[i];
        if (node->decode != decode || node->model_idx != ask->model_idx || (int)i == skip) continue;
        if (is_passed_over(nodes, n, ask, s, (int)i)) continue;
        if (node->max_tokens < need) {
            if (verdict != ROUTER_BUSY) verdict = ROUTER_TOO_LONG;
            continue;
        }
        verdict = ROUTER_BUSY;
        if (!has_room(node, ask) || rests(ask, s, (int)i)) continue;
        if (best < 0 || (decode ? decode_is_better : prefill_is_better)(node, &nodes[best])) best = (int)i;
    }
    if (best < 0) return verdict;
    *out = best;
    return ROUTER_PICKED;
}

/* A node that just failed is taken again only where no other exists: where another is just busy, it is waited for. */
static enum router_verdict pick_avoiding(const struct router_node *nodes, uint32_t n, const struct router_ask *ask,
                                         const struct search *s, int *out)
{
    enum router_verdict v = pick_role(nodes, n, ask, s, s->avoid, out);
    if (v == ROUTER_PICKED || v == ROUTER_BUSY || s->avoid < 0) return v;
    return pick_role(nodes, n, ask, s, -1, out);
}

/* One that is reached, or reads prompts itself as it is not; any, where all that there are were not reached lately. */
static enum router_verdict pick_decode(const struct router_node *nodes, uint32_t n, const struct router_ask *ask,
                                       int *out)
{
    static const unsigned in_turn[] = { REACH_FINE, REACH_ALONE };
    struct search s = { .decode = true, .avoid = ask->avoid_decode, .reach = REACH_ANY };
    bool busy = false;
    for (int i = 0; ask->n_broken > 0 && i < 2; i++) {
        s.reach = in_turn[i];
        enum router_verdict v = pick_avoiding(nodes, n, ask, &s, out);
        if (v == ROUTER_PICKED) return v;
        busy |= v == ROUTER_BUSY;
    }
    s.reach = REACH_ANY;
    return busy ? ROUTER_BUSY : pick_avoiding(nodes, n, ask, &s, out);
}

/* A decode node that a prefill node reaches: then nobody has to try a pair that fails. */
static bool any_is_reached(const struct router_node *nodes, uint32_t n, const struct router_ask *ask)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct router_node *d = &nodes[i];
        bool serves = d->decode && d->model_idx == ask->model_idx && d->max_tokens >= ask->max_tokens;
        if (serves && reach_of(nodes, n, ask, (int)i) == REACH_FINE) return true;
    }
    return false;
}

enum router_verdict router_pick_prefill(const struct router_node *nodes, uint32_t n, const struct router_ask *ask,
                                        int decode, int *out)
{
    struct search s = { .avoid = ask->avoid_prefill, .partner = decode };
    *out = -1;
    if (reads_alone(&nodes[decode], ask)) return ROUTER_PICKED;
    enum reach reach = reach_of(nodes, n, ask, decode);
    if (reach == REACH_ALONE) return ROUTER_PICKED;
    if (reach == REACH_NOT && any_is_reached(nodes, n, ask)) return ROUTER_NO_PREFILL;
    s.despite = reach == REACH_NOT;
    enum router_verdict v = pick_avoiding(nodes, n, ask, &s, out);
    bool none = v == ROUTER_NO_PREFILL || v == ROUTER_TOO_LONG;
    if (none && nodes[decode].local_prefill == ROUTER_LOCAL_AUTO) return ROUTER_PICKED;
    return v;
}

enum router_verdict router_pick(const struct router_node *nodes, uint32_t n, const struct router_ask *ask,
                                struct router_choice *out)
{
    struct router_choice c = { -1, -1 };
    enum router_verdict v = pick_decode(nodes, n, ask, &c.decode);
    if (v == ROUTER_PICKED) v = router_pick_prefill(nodes, n, ask, c.decode, &c.prefill);
    if (v == ROUTER_PICKED) *out = c;
    return v;
}
