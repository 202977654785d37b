/* kv_peers.h - who has said Hello on one lane of the KV plane: identity, session, whether it is heard.
 *
 * A peer is known if a coordinator has told of its process, or once it has fed an open transfer.  All others are
 * strangers: they have a small table of their own and push out each other only. */
#ifndef NODE_KV_PEERS_H
#define NODE_KV_PEERS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KV_PEERS_MAX     256 /* known ones; the oldest goes when there are more */
#define KV_STRANGERS_MAX 64  /* the same */
#define KV_PEER_ID_MAX   255

struct kv_peer_entry {
    uint64_t session;
    uint64_t incarnation; /* of its process, as it says; 0: it has said nothing */
    bool known;
    uint64_t n_read, n_told; /* messages of it on this lane after its Hello; of how many it has been told */
    bool ignored;            /* spoke garbage or does not fit: nothing of it is read any more */
    size_t id_len;
    uint8_t id[KV_PEER_ID_MAX];
};

struct kv_peers; /* owned by one thread */

/* Whether a coordinator has told of a process; any thread's. */
typedef bool (*kv_peers_told_fn)(void *ctx, uint64_t incarnation);
struct kv_peers *kv_peers_create(kv_peers_told_fn told, void *ctx);
void kv_peers_destroy(struct kv_peers *p);
/* NULL if the identity is not known. */
struct kv_peer_entry *kv_peers_find(struct kv_peers *p, const void *id, size_t n);
/* The latest entry of a session that is heard, or NULL. */
struct kv_peer_entry *kv_peers_by_session(struct kv_peers *p, uint64_t session);
/* One that is heard and has not been told of all that was read of it, or NULL. */
struct kv_peer_entry *kv_peers_untold(struct kv_peers *p);
/* Adds or resets.  NULL if the identity is longer than ZeroMQ allows. */
struct kv_peer_entry *kv_peers_put(struct kv_peers *p, const void *id, size_t n, uint64_t session,
                                   uint64_t incarnation);
/* It has fed an open transfer, whose reservation only a coordinator can have told it. */
void kv_peers_prove(struct kv_peers *p, struct kv_peer_entry *e);
#endif
