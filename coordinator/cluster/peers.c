/* peers.c - tells nodes of each other: prefill nodes open their KV lanes before the first request needs them, and
 * decode nodes know whose lanes these are. */
#include "coordinator/cluster/dispatch_internal.h"

static bool are_peers(const struct node *a, const struct node *b)
{
    return a->alive && b->alive && a->decode != b->decode && a->model == b->model;
}

static void fill_peer(const struct node *n, Baton__Control__Peer *out)
{
    baton__control__peer__init(out);
    out->node = n->name;
    out->incarnation = n->incarnation;
    out->n_kv_endpoints = n->n_kv_endpoints;
    out->kv_endpoints = n->kv_endpoints;
}

static enum status tell(struct dispatch *d, struct node *to)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Peers peers = BATON__CONTROL__PEERS__INIT;
    Baton__Control__Peer rows[REGISTRY_MAX_NODES];
    Baton__Control__Peer *list[REGISTRY_MAX_NODES];
    size_t n = 0;

    for (const struct node *p = d->registry.nodes; p && n < REGISTRY_MAX_NODES; p = p->next) {
        if (!are_peers(p, to)) continue;
        fill_peer(p, &rows[n]);
        list[n] = &rows[n];
        n++;
    }
    peers.n_peers = n;
    peers.peers = list;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_PEERS;
    m.peers = &peers;
    return orders_send(d, to, &m);
}

void peers_changed(struct dispatch *d, struct node *n)
{
    for (struct node *p = d->registry.nodes; p; p = p->next)
        if (p == n || (p->decode != n->decode && p->model == n->model)) p->peers_told = false;
    peers_tell(d);
}

void peers_tell(struct dispatch *d)
{
    for (struct node *p = d->registry.nodes; p; p = p->next)
        if (p->alive && !p->peers_told) p->peers_told = tell(d, p) == OK; /* else again at the next tick */
}
