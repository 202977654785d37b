/* router: least loaded of what has room; what stands in the way otherwise. */
#include "coordinator/cluster/router.h"

#include <criterion/criterion.h>

static struct router_node node(bool decode, uint32_t active)
{
    return (struct router_node){
        .decode = decode, .n_active = active, .max_seqs = 4, .blocks_free = 10, .block_tokens = 64, .max_tokens = 1000
    };
}

static const struct router_ask ask = {
    .reserve_tokens = 100, .max_tokens = 200, .n_tokens = 100, .avoid_prefill = -1, .avoid_decode = -1
};

static void expect(enum router_verdict want, const struct router_node *nodes, uint32_t n, const struct router_ask *a,
                   int prefill, int decode)
{
    struct router_choice c = { -2, -2 };
    cr_assert_eq(router_pick(nodes, n, a, &c), want);
    if (want == ROUTER_PICKED) cr_assert(c.prefill == prefill && c.decode == decode, "%d %d", c.prefill, c.decode);
}

Test(router, takes_the_least_loaded_pair)
{
    struct router_node n[] = { node(true, 2), node(true, 1), node(false, 0), node(false, 1) };
    n[2].queued_tokens = 50;
    n[3].queued_tokens = 10;
    expect(ROUTER_PICKED, n, 4, &ask, 3, 1);
}

Test(router, waits_for_room_rather_than_overload)
{
    struct router_node n[] = { node(true, 4), node(false, 0) };
    expect(ROUTER_BUSY, n, 2, &ask, 0, 0);
    n[0].n_active = 0;
    n[0].blocks_free = 1;
    expect(ROUTER_BUSY, n, 2, &ask, 0, 0);
    n[0].blocks_free = 2;
    expect(ROUTER_PICKED, n, 2, &ask, 1, 0);
    n[1].n_active = 4;
    expect(ROUTER_BUSY, n, 2, &ask, 0, 0);
}

Test(router, equal_loads_are_told_apart_by_what_is_free)
{
    struct router_node n[] = { node(true, 1), node(true, 2), node(false, 0), node(false, 0) };
    n[0].max_seqs = 4; /* a quarter each */
    n[1].max_seqs = 8;
    n[1].blocks_free = 11;
    n[2].queued_tokens = n[3].queued_tokens = 7;
    n[2].n_active = 1;
    expect(ROUTER_PICKED, n, 4, &ask, 3, 1);
    n[1].blocks_free = 10; /* the first of equals */
    n[3].n_active = 1;
    expect(ROUTER_PICKED, n, 4, &ask, 2, 0);
    n[0].max_seqs = 0; /* it takes nothing now */
    expect(ROUTER_PICKED, n, 4, &ask, 2, 1);
}

Test(router, lengths_at_their_bounds)
{
    struct router_node n[] = { node(true, 0), node(false, 0), node(true, 4) };
    struct router_ask a = ask;
    n[0].max_tokens = a.max_tokens;
    n[1].max_tokens = a.n_tokens;
    n[0].blocks_free = 2;
    a.reserve_tokens = 128;
    expect(ROUTER_PICKED, n, 2, &a, 1, 0);
    a.reserve_tokens = 129;
    expect(ROUTER_BUSY, n, 2, &a, 0, 0);
    a.reserve_tokens = 128;
    a.n_tokens++; /* too long for the prefill node: read where it is decoded */
    expect(ROUTER_PICKED, n, 2, &a, -1, 0);
    n[0].local_prefill = ROUTER_LOCAL_NEVER;
    expect(ROUTER_TOO_LONG, n, 2, &a, 0, 0);
    a.n_tokens--;
    a.max_tokens++;
    expect(ROUTER_TOO_LONG, n, 2, &a, 0, 0);
    expect(ROUTER_BUSY, n, 3, &a, 0, 0); /* another takes it, later */
}

Test(router, obeys_local_prefill)
{
    struct router_node n[] = { node(true, 0), node(false, 0) };
    n[0].local_prefill = ROUTER_LOCAL_ALWAYS;
    expect(ROUTER_PICKED, n, 2, &ask, -1, 0);
    n[0].local_prefill = ROUTER_LOCAL_AUTO;
    expect(ROUTER_PICKED, n, 2, &ask, 1, 0);
    struct router_ask alone = ask;
    alone.no_handoff = true;
    expect(ROUTER_PICKED, n, 2, &alone, -1, 0);
    expect(ROUTER_PICKED, n, 1, &ask, -1, 0);
    n[0].local_prefill = ROUTER_LOCAL_NEVER;
    expect(ROUTER_PICKED, n, 2, &alone, 1, 0);
    expect(ROUTER_NO_PREFILL, n, 1, &ask, 0, 0);
}

Test(router, says_what_is_missing)
{
    struct router_node n[] = { node(false, 0), node(true, 0) };
    struct router_ask other = ask, longer = ask;
    other.model_idx = 1;
    longer.max_tokens = 1001;
    expect(ROUTER_NO_DECODE, n, 1, &ask, 0, 0);
    expect(ROUTER_NO_DECODE, n, 2, &other, 0, 0);
    expect(ROUTER_TOO_LONG, n, 2, &longer, 0, 0);
}

Test(router, takes_a_failed_node_only_where_no_other_serves)
{
    struct router_node n[] = { node(true, 0), node(true, 3), node(false, 0) };
    struct router_ask a = ask;
    a.avoid_decode = 0;
    expect(ROUTER_PICKED, n, 3, &a, 2, 1);
    n[1].n_active = 4;
    expect(ROUTER_BUSY, n, 3, &a, 0, 0);
    n[1].model_idx = 1;
    expect(ROUTER_PICKED, n, 3, &a, 2, 0);
}

/* Rows: decode 0 and 1, prefill 2 and 3. */
static struct router_ask ask_with(const struct router_pair *broken, uint32_t n)
{
    struct router_ask a = ask;
    a.broken = broken;
    a.n_broken = n;
    return a;
}

Test(router, passes_a_pair_over_that_could_not_reach_each_other)
{
    struct router_node n[] = { node(true, 0), node(true, 1), node(false, 0), node(false, 1) };
    const struct router_pair broken[] = { { 2, 0 }, { 3, 0 } };
    struct router_ask a = ask_with(broken, 1);
    expect(ROUTER_PICKED, n, 4, &a, 3, 0); /* its decode node is still the least loaded */
    a.n_broken = 2;
    expect(ROUTER_PICKED, n, 4, &a, 2, 1); /* nobody reaches it */
    n[1].n_active = 4;
    expect(ROUTER_BUSY, n, 4, &a, 0, 0); /* the pair that works is waited for */
    a.max_tokens = a.n_tokens = 500;
    n[1].max_tokens = 400; /* there is no other pair any more */
    expect(ROUTER_PICKED, n, 4, &a, 2, 0);
}

Test(router, waits_for_the_prefill_node_that_reaches_a_reservation)
{
    struct router_node n[] = { node(true, 0), node(true, 0), node(false, 0), node(false, 4) };
    const struct router_pair broken[] = { { 2, 0 } };
    struct router_ask a = ask_with(broken, 1);
    int picked;
    cr_assert_eq(router_pick_prefill(n, 4, &a, 0, &picked), ROUTER_BUSY);
    cr_assert(router_pick_prefill(n, 4, &a, 1, &picked) == ROUTER_PICKED && picked == 2);
    cr_assert_eq(router_pick_prefill(n, 3, &a, 0, &picked), ROUTER_NO_PREFILL); /* the other decode node is better */
    cr_assert(router_pick_prefill(n + 1, 2, &a, 0, &picked) == ROUTER_PICKED && picked == 1);
}

Test(router, a_node_that_nobody_reaches_again_and_again_reads_prompts_itself)
{
    struct router_node n[] = { node(true, 0), node(false, 0) };
    struct router_pair broken[] = { { 1, 0, false, false } };
    struct router_ask a = ask_with(broken, 1);
    expect(ROUTER_PICKED, n, 2, &a, 1, 0); /* once: a lost connection */
    broken[0].often = true;
    expect(ROUTER_PICKED, n, 2, &a, -1, 0);
    n[0].local_prefill = ROUTER_LOCAL_NEVER;
    expect(ROUTER_PICKED, n, 2, &a, 1, 0);
    broken[0].rests = true;
    expect(ROUTER_BUSY, n, 2, &a, 0, 0);
}
