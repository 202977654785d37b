/* kv_recv.h - the decode node's KV plane: one ROUTER and one thread per lane, scattering into the inbox.
 *
 * Lane 0 also answers: HelloAck, LaneAck, Credit, Stored, AbortAck. */
#ifndef NODE_KV_RECV_H
#define NODE_KV_RECV_H
#include "node/kv_inbox.h"
#include "node/kv_metrics.h"

struct kv_recv;

enum kv_recv_event_kind { KV_RECV_PROGRESS, KV_RECV_STORED, KV_RECV_FAILED };
struct kv_recv_event {
    enum kv_recv_event_kind kind;
    struct seq_key key;
    enum status status; /* FAILED: why; the epoch is closed and may be bound anew */
    int32_t first_token;
    uint32_t n_tokens;
    uint64_t bytes, us;
    const char *message; /* of a failure */
};
/* Runs on a receive thread; must only enqueue. */
typedef void (*kv_recv_fn)(void *ctx, const struct kv_recv_event *ev);

struct kv_recv_options {
    const char *endpoint; /* tcp://HOST:PORT; port 0: a free one per lane; port P: P .. P + n_lanes - 1 */
    uint32_t n_lanes;
    const char *node; /* borrowed, as are geometry and map */
    uint64_t incarnation;
    const struct cache_geometry *geometry;
    const struct kv_map *map;
    struct metrics *metrics;
    kv_recv_fn on_event;
    void *ctx;
};

enum status kv_recv_open(struct kv_recv **out, const struct kv_recv_options *opt, struct error *err) MUST_CHECK;
/* Joins the threads: no KV memory is touched after this.  Inbox and endpoints stay until close. */
void kv_recv_stop(struct kv_recv *r);
void kv_recv_close(struct kv_recv *r); /* NULL is fine */
/* The prefill nodes' processes that a coordinator tells of: no stranger pushes them out (kv_told.h). */
void kv_recv_told(struct kv_recv *r, uint64_t coordinator, const uint64_t *incarnations, uint32_t n);
struct kv_inbox *kv_recv_inbox(struct kv_recv *r);
uint32_t kv_recv_n_lanes(const struct kv_recv *r);
const char *kv_recv_endpoint(const struct kv_recv *r, uint32_t lane); /* as bound */
struct kv_metrics *kv_recv_metrics(struct kv_recv *r);
#endif
