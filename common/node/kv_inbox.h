/* kv_inbox.h - what a decode node expects to receive, and what it has stored: exact coverage, or fail.
 *
 * One offer per (request, epoch).  Receive threads hand in frames; the node's loop adds and closes offers.  Nobody
 * writes into an offer's blocks or slot once kv_inbox_close() has returned: closing waits for writers.  Knows no
 * sockets. */
#ifndef NODE_KV_INBOX_H
#define NODE_KV_INBOX_H
#include "engine/engine.h"
#include "node/kv_cover.h"
#include "node/kv_cut.h"

struct kv_inbox;

struct kv_offer { /* copied */
    struct seq_key key;
    uint64_t reservation;
    const kv_block_id *blocks; /* covers n_tokens */
    uint32_t n_blocks, n_tokens;
    uint32_t hit_tokens;              /* already there: a multiple of 64, not expected */
    uint64_t credit_bytes;            /* what the sender was told it may send at first */
    state_slot_id slot;               /* where recurrent states belong; unless no group is of that kind */
    const kv_block_id *window_blocks; /* n_blocks, of layers with a window; NULL unless a group is of that kind */
};

enum kv_inbox_verdict {
    KV_INBOX_STORED,   /* fine; result.credit more bytes may be sent */
    KV_INBOX_COMPLETE, /* the same, and now all is there */
    KV_INBOX_STALE,    /* of no open offer: dropped */
    KV_INBOX_FAILED,   /* this offer is closed now, and why */
    KV_INBOX_GARBAGE,  /* cannot be attributed to any offer */
};

struct kv_inbox_result {
    struct kv_wire_id id;
    uint64_t credit;
    bool progress; /* STORED: the first frame, or a while after the last one that said so */
    int32_t first_token;
    uint32_t n_tokens;
    uint64_t bytes;    /* received so far; COMPLETE: payload of the whole transfer */
    uint64_t first_us; /* COMPLETE: when the first frame came */
    struct error err;  /* FAILED, GARBAGE */
};

/* `map` and `geometry` are borrowed for the inbox's life. */
struct kv_inbox *kv_inbox_create(const struct kv_map *map, const struct cache_geometry *geometry);
void kv_inbox_destroy(struct kv_inbox *in);

/* ERR_INVALID: already there, or its blocks do not cover it, or are none of its windows or states; ERR_NO_MEMORY. */
enum status kv_inbox_add(struct kv_inbox *in, const struct kv_offer *offer) MUST_CHECK;
/* Fences and forgets an offer; unknown ones are fine. */
void kv_inbox_close(struct kv_inbox *in, const struct seq_key *key);
uint32_t kv_inbox_n_open(struct kv_inbox *in);

/* A data frame (blocks, or a part of a snapshot) from a sender's session (not 0). */
enum kv_inbox_verdict kv_inbox_data(struct kv_inbox *in, uint64_t session, Baton__Kv__KvMessage *m,
                                    struct bytes payload, struct kv_inbox_result *out);
enum kv_inbox_verdict kv_inbox_commit(struct kv_inbox *in, uint64_t session, const Baton__Kv__Commit *c,
                                      struct kv_inbox_result *out);
/* The sender gives up: FAILED (and nobody writes any more), or STALE. */
enum kv_inbox_verdict kv_inbox_abort(struct kv_inbox *in, uint64_t session, const Baton__Kv__Abort *a,
                                     struct kv_inbox_result *out);
/* Fails one open offer that was fed by the session; false when there is none left. */
bool kv_inbox_fail_session(struct kv_inbox *in, uint64_t session, const struct error *why, struct kv_inbox_result *out);
#endif
