/* kv_transfer.h - one request's KV on its way to a decode node: parts that are computed, frames under credit, a commit.
 *
 * Knows its link and its buffers, but no thread and no other transfer: kv_send.c has those.  One thread owns it. */
#ifndef NODE_KV_TRANSFER_H
#define NODE_KV_TRANSFER_H
#include "engine/engine.h"
#include "node/kv_cut.h"
#include "node/kv_link.h"
#include "node/kv_metrics.h"

/* What is final: some layers of some tokens, with their blocks; or some layers' recurrent states. */
struct kv_part;

struct kv_send_job { /* copied */
    struct seq_key key;
    uint64_t reservation;
    const char *decode_node;
    const char *const *endpoints; /* one per lane */
    uint32_t n_endpoints;
    uint64_t credit_bytes;
    uint32_t n_tokens, hit_tokens;
};

struct kv_transfer {
    struct seq_key key;
    uint64_t reservation;
    char *peer, *endpoints[KV_LINK_MAX_LANES];
    uint32_t n_endpoints;
    uint32_t n_tokens, hit_tokens;
    uint64_t credit; /* bytes that may still be sent */
    uint64_t bytes, frames;
    bool commit_due, commit_sent;
    int32_t first_token;
    uint64_t computed_us; /* when the last part came in */
    uint64_t heard_us;    /* deadline's start: last credit, or when something became due */
    struct kv_link *link; /* borrowed; NULL until it is attached */
    struct kv_part *parts;
    struct kv_transfer *prev, *next; /* the owner's list */
};

/* What all transfers of a sender share; borrowed. */
struct kv_transfer_means {
    const struct cache_geometry *geometry;
    const struct kv_map *map;
    struct frame_pool *pool;
    uint32_t frame_bytes; /* largest payload, but for a single head's block or state */
    struct kv_metrics *metrics;
};

/* A range of one group; blocks[0] holds token r->t0, a multiple of 64; copied.  They are read once `written` has passed
 * (NULL: it has).  From any thread. */
struct kv_part *kv_part_create(const struct kv_wire_range *r, const kv_block_id *blocks, const struct mark *written);
/* The states that the walk goes along, in `slot`, which have seen `position` tokens. */
struct kv_part *kv_part_of_states(const struct kv_state_walk *walk, state_slot_id slot, uint32_t position,
                                  const struct mark *written);
void kv_part_free(struct kv_part *p); /* NULL is fine */

struct kv_transfer *kv_transfer_create(const struct kv_send_job *job);
void kv_transfer_free(struct kv_transfer *t); /* with its parts; NULL is fine */
/* Takes a part that was computed at posted_us.  What the decode node has already, and what is before the window of the
 * prompt's end, is left out. */
void kv_transfer_add(struct kv_transfer *t, const struct cache_geometry *g, struct kv_part *p, uint64_t posted_us);
/* All parts are there; token 0 goes along with the commit. */
void kv_transfer_commit(struct kv_transfer *t, int32_t first_token);
void kv_transfer_credit(struct kv_transfer *t, uint64_t bytes);

enum kv_transfer_step { KV_TRANSFER_WAITS, KV_TRANSFER_SENT, KV_TRANSFER_BROKEN };
/* Sends the next frame, or the commit behind the last one, if link, credit and a buffer allow it.  BROKEN: *err says
 * why; the peer does not know yet. */
enum kv_transfer_step kv_transfer_step(struct kv_transfer *t, const struct kv_transfer_means *means,
                                       struct error *err) MUST_CHECK;
/* Tells the peer, if there is a link, that nothing more will come. */
void kv_transfer_abort(const struct kv_transfer *t, enum status status, const char *text);
/* Something is due, and nothing was heard for longer than the limit. */
bool kv_transfer_is_late(const struct kv_transfer *t, uint64_t now_us, uint64_t limit_us);
#endif
