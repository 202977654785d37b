/* kv_peers: strangers push out strangers, never a peer that a coordinator has told of or that has fed a transfer. */
#include "node/kv_peers.h"

#include "node/kv_told.h"

#include <criterion/criterion.h>

#define TOLD   77
#define PROVEN 88

static bool told(void *ctx, uint64_t incarnation)
{
    return kv_told_has(ctx, incarnation);
}

static struct kv_peer_entry *put(struct kv_peers *p, uint32_t id, uint64_t incarnation)
{
    return kv_peers_put(p, &id, sizeof(id), 1000 + id, incarnation);
}

static struct kv_peer_entry *find(struct kv_peers *p, uint32_t id)
{
    return kv_peers_find(p, &id, sizeof(id));
}

Test(kv_peers, a_flood_of_strangers_leaves_known_peers)
{
    struct kv_told *t = kv_told_create();
    struct kv_peers *p = kv_peers_create(told, t);
    const uint64_t one = TOLD, late = 99;

    kv_told_set(t, 1, &one, 1);
    put(p, 1, TOLD);
    kv_peers_prove(p, put(p, 2, PROVEN));
    put(p, 3, 99); /* the coordinator's word comes later */
    kv_told_set(t, 2, &late, 1);
    for (uint32_t i = 10; i < 5000; i++) put(p, i, i % 2 ? 0 : 100000 + i);
    cr_assert(find(p, 1) && find(p, 2) && find(p, 3));
    cr_assert_eq(kv_peers_by_session(p, 1001), find(p, 1));
    cr_assert_null(find(p, 5000 - KV_STRANGERS_MAX - 2));
    cr_assert(find(p, 4999));
    kv_peers_destroy(p);
    kv_told_destroy(t);
}

Test(kv_peers, known_peers_are_bounded_too)
{
    struct kv_told *t = kv_told_create();
    struct kv_peers *p = kv_peers_create(told, t);
    const uint64_t one = TOLD;
    uint32_t n = 0;

    kv_told_set(t, 1, &one, 1);
    put(p, 1, 5); /* a stranger is not pushed out by known ones */
    for (uint32_t i = 10; i < 1010; i++) put(p, i, TOLD);
    for (uint32_t i = 10; i < 1010; i++) n += find(p, i) != NULL;
    cr_assert_eq(n, KV_PEERS_MAX);
    cr_assert(find(p, 1009) && find(p, 1));
    put(p, 1009, 6); /* the same identity says Hello again, as somebody else */
    cr_assert(!find(p, 1009)->known);
    kv_peers_destroy(p);
    kv_told_destroy(t);
}

Test(kv_peers, each_coordinator_speaks_for_itself)
{
    struct kv_told *t = kv_told_create();
    const uint64_t a[] = { 1, 2 }, b[] = { 2, 3 };

    kv_told_set(t, 10, a, 2);
    kv_told_set(t, 11, b, 2);
    kv_told_set(t, 10, a, 1);
    cr_assert(kv_told_has(t, 1) && kv_told_has(t, 2) && kv_told_has(t, 3));
    kv_told_set(t, 11, NULL, 0);
    cr_assert(kv_told_has(t, 1) && !kv_told_has(t, 2) && !kv_told_has(t, 3));
    kv_told_destroy(t);
}
