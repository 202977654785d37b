/* registry.h - the nodes that joined: who they are, whether they live, what they hold.
 *
 * A node is named by its incarnation, and spoken to through its session, whatever its connections do.  Nodes of one
 * model must agree in geometry with each other and with the coordinator's own model.  A dead node stays listed until
 * one of its name joins again, but nothing of it is used. */
#ifndef CLUSTER_REGISTRY_H
#define CLUSTER_REGISTRY_H
#include "base/error.h"
#include "coordinator/cluster/router.h"
#include "proto/control.pb-c.h"
#include "wire/cache_geometry.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REGISTRY_MAX_NODES 256 /* dead ones included */
#define NODE_NAME_MAX      64
#define NODE_MAX_LANES     64
#define NODE_MAX_STATES    16
#define REGISTRY_LEASE_MS  30000 /* how long a node keeps the work of a coordinator that is silent */
#define REGISTRY_REDIAL_MS 200   /* a node whose connection is gone must be back within, or is dead */

struct served_model;
struct control_peer;

struct node {
    char *name, *version, *admin;
    bool decode; /* otherwise prefill */
    uint64_t incarnation;
    struct control_peer *peer; /* its session; NULL = it is gone */
    const struct served_model *model;
    struct cache_geometry geometry;
    uint32_t block_tokens; /* of its kv blocks */
    char **kv_endpoints;
    size_t n_kv_endpoints;
    uint32_t max_seqs, n_blocks, max_context;
    enum router_local local_prefill;

    bool alive, draining;
    bool peers_told;                   /* it knows the other role's nodes as they are now */
    uint64_t last_seen, last_progress; /* clock_now_us */
    bool doubted;                      /* it could not be reached: no new work until it is heard again */
    bool behind;                       /* it does not take in what is said to it: no new work until it has */
    uint64_t unreachable_since;        /* it has had no connection since then; 0 = it has one */
    uint64_t retry_at;                 /* said it has no room: not before this */
    struct {                           /* from its heartbeat */
        uint32_t running, waiting, reserved, blocks_free, blocks_total, transfers;
        uint32_t by_state[NODE_MAX_STATES];
        double prefill_tok_s, decode_tok_s;
        uint64_t prefix_queries, prefix_hits;
        uint64_t kv_bytes_sent, kv_bytes_received, rss_bytes;
    } load;
    /* what this coordinator put there and has not got back */
    uint32_t n_active, n_blocks_used;
    uint32_t foreign_blocks, foreign_active; /* of other coordinators, by its last heartbeat */
    uint64_t queued_tokens;
    struct node *next;
};

struct registry {
    struct node *nodes;
    uint32_t n;
};

void registry_fini(struct registry *g);
/* Whether a node that introduces itself so could join: its fields, its model, its geometry beside the others'.  err
 * holds both sides' values where they differ. */
enum status registry_check(const struct registry *g, const Baton__Control__Register *hello,
                           const struct served_model *model, struct error *err) MUST_CHECK;
/* Takes a node in (or again) at clock time `now`.  `model` is what the coordinator serves under hello->model, NULL for
 * none.  ERR_MISMATCH, ERR_NOT_FOUND, ERR_INVALID, ERR_FULL: refused, err has both sides' values.  An older process of
 * the same name must have been declared dead by the caller (registry_find_name). */
enum status registry_join(struct registry *g, const Baton__Control__Register *hello, uint64_t incarnation,
                          const struct served_model *model, uint64_t now, struct node **out,
                          struct error *err) MUST_CHECK;
struct node *registry_find(struct registry *g, uint64_t incarnation);  /* alive ones only */
struct node *registry_find_name(struct registry *g, const char *name); /* alive ones only, of either role */
/* It has said something, with the same incarnation: it lives, and is doubted no more. */
void node_heard(struct node *n, uint64_t now);
void node_heartbeat(struct node *n, const Baton__Control__Heartbeat *h, uint64_t now);
/* Longest sequence that the node takes. */
uint32_t node_max_tokens(const struct node *n);
/* Takes the live nodes that may get new work into `out` [REGISTRY_MAX_NODES]; from[i] is the node of row i. */
uint32_t registry_snapshot(const struct registry *g, uint64_t now, struct router_node *out, struct node **from);
/* Longest prompt plus answer that a request of the model may have with the nodes there are; where none lives, with the
 * last ones, and before the first one what the model allows. */
uint32_t registry_context(const struct registry *g, const struct served_model *model);
/* Whether others can take over what `n` does: nodes of its role and model that are in touch, or for a prefill node a
 * decode node that reads prompts itself. */
bool registry_has_other(const struct registry *g, const struct node *n);
bool registry_can_serve(const struct registry *g, const struct served_model *model); /* a live decode node */
/* What the model lacks to be served: ROUTER_NO_DECODE, ROUTER_NO_PREFILL, or ROUTER_PICKED for nothing.  Nodes that are
 * full or doubted are there. */
enum router_verdict registry_missing(const struct registry *g, const struct served_model *model);
#endif
