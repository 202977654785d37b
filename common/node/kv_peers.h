/* kv_peers.h - who has said Hello on one lane of the KV plane: identity, session, whether it is heard. */
#ifndef NODE_KV_PEERS_H
#define NODE_KV_PEERS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KV_PEERS_MAX   256 /* the oldest goes when there are more */
#define KV_PEER_ID_MAX 255

struct kv_peer_entry {
    uint64_t session;
    bool ignored; /* spoke garbage or does not fit: nothing of it is read any more */
    size_t id_len;
    uint8_t id[KV_PEER_ID_MAX];
};

struct kv_peers; /* owned by one thread */

struct kv_peers *kv_peers_create(void);
void kv_peers_destroy(struct kv_peers *p);
/* NULL if the identity is not known. */
struct kv_peer_entry *kv_peers_find(struct kv_peers *p, const void *id, size_t n);
/* The latest entry of a session that is heard, or NULL. */
struct kv_peer_entry *kv_peers_by_session(struct kv_peers *p, uint64_t session);
/* Adds or resets.  NULL if the identity is longer than ZeroMQ allows. */
struct kv_peer_entry *kv_peers_put(struct kv_peers *p, const void *id, size_t n, uint64_t session);
#endif
