/* kv_send.h - the prefill node's KV plane: one thread that packs blocks into frames and sends them under credit.
 *
 * Calls only post to that thread, from any thread, in order per caller.  A transfer ends with exactly one event: DONE,
 * FAILED, or CLOSED after kv_send_end(); from then on none of its blocks is read. */
#ifndef NODE_KV_SEND_H
#define NODE_KV_SEND_H
#include "node/kv_links.h"
#include "node/kv_transfer.h"

struct kv_send;

enum kv_send_event_kind { KV_SEND_DONE, KV_SEND_FAILED, KV_SEND_CLOSED };
struct kv_send_event {
    enum kv_send_event_kind kind;
    struct seq_key key;
    uint64_t bytes, handoff_us; /* DONE: payload; last KV computed -> STORED */
    enum status status;         /* FAILED */
    const char *message;
};
/* Runs on the sender's thread; must only enqueue. */
typedef void (*kv_send_fn)(void *ctx, const struct kv_send_event *ev);

struct kv_send_options {
    const char *node; /* borrowed, as are geometry and map */
    uint64_t incarnation;
    const struct cache_geometry *geometry;
    const struct kv_map *map;
    uint32_t frame_bytes;         /* largest payload, <= KV_WIRE_FRAME_MAX */
    uint32_t progress_timeout_ms; /* nothing heard for this long while something is due: FAILED */
    struct metrics *metrics;
    kv_send_fn on_event;
    void *ctx;
};

enum status kv_send_open(struct kv_send **out, const struct kv_send_options *opt, struct error *err) MUST_CHECK;
/* Stops the thread: later calls do nothing.  Then destroy, once nobody calls any more. */
void kv_send_stop(struct kv_send *s);
void kv_send_destroy(struct kv_send *s); /* NULL is fine */

void kv_send_begin(struct kv_send *s, const struct kv_send_job *job);
/* Layers [l0, l1), but for those with a window, of tokens [t0, t1) are final once `written` has passed, which the
 * sender's thread waits for (NULL: they are now); blocks[0] holds token t0, a multiple of 64. */
void kv_send_piece(struct kv_send *s, const struct seq_key *key, uint32_t l0, uint32_t l1, uint32_t t0, uint32_t t1,
                   const kv_block_id *blocks, const struct mark *written);
/* The same of layers with a window, whose blocks are their own; only those of the prompt's end are read. */
void kv_send_window(struct kv_send *s, const struct seq_key *key, uint32_t l0, uint32_t l1, uint32_t t0, uint32_t t1,
                    const kv_block_id *blocks, const struct mark *written);
/* The states of layers [l0, l1) in `slot` are what they are after `position` tokens, the whole prompt, and final once
 * `written` has passed.  Nothing happens for layers that have none. */
void kv_send_states(struct kv_send *s, const struct seq_key *key, uint32_t l0, uint32_t l1, uint32_t position,
                    state_slot_id slot, const struct mark *written);
/* All pieces are posted; token 0 goes along. */
void kv_send_commit(struct kv_send *s, const struct seq_key *key, int32_t first_token);
/* Gives up; tell: the decode node hears Abort.  Answered by KV_SEND_CLOSED, also for unknown keys. */
void kv_send_end(struct kv_send *s, const struct seq_key *key, bool tell);
/* All decode nodes that a coordinator knows now (its incarnation; n 0: it is gone): lanes to them are opened and kept.
 */
void kv_send_peers(struct kv_send *s, uint64_t coordinator, const struct kv_links_peer *peers, uint32_t n);
struct kv_metrics *kv_send_metrics(struct kv_send *s);
#endif
