/* kv_link.h - a prefill node's lanes to one decode node: DEALERs that are opened together and end together.
 *
 * A link never reconnects: after any loss it is closed and a new one, with a new session, is opened, so a stale queue
 * cannot replay.  One thread owns a link. */
#ifndef NODE_KV_LINK_H
#define NODE_KV_LINK_H
#include "base/error.h"
#include "node/frame_pool.h"
#include "wire/kv_wire.h"

#define KV_LINK_MAX_LANES 16

enum kv_link_state { KV_LINK_GREETING, KV_LINK_READY, KV_LINK_LOST };

struct kv_link;

struct kv_link_options {
    const char *node; /* of this process; borrowed, as is geometry */
    uint64_t incarnation;
    const struct cache_geometry *geometry;
    const char *peer;             /* copied: the decode node's name */
    const char *const *endpoints; /* one per lane */
    uint32_t n_lanes;
};

/* Connects and says Hello on every lane. */
enum status kv_link_open(struct kv_link **out, const struct kv_link_options *opt, struct error *err) MUST_CHECK;
void kv_link_close(struct kv_link *l);
enum kv_link_state kv_link_state(const struct kv_link *l);
uint64_t kv_link_opened_us(const struct kv_link *l);
const struct error *kv_link_error(const struct kv_link *l); /* why it is lost */
bool kv_link_has_endpoints(const struct kv_link *l, const char *const *endpoints, uint32_t n);

/* ZeroMQ sockets to poll: lane 0, and every lane's monitor. */
#define KV_LINK_MAX_SOCKETS (1 + KV_LINK_MAX_LANES)
uint32_t kv_link_sockets(const struct kv_link *l, void *sockets[KV_LINK_MAX_SOCKETS]);
/* Notices lost lanes. */
void kv_link_watch(struct kv_link *l);
/* Loses a greeted link of which a lane has messages to read and reads none for KV_LINK_SILENCE_MS: a damaged length
 * makes TCP's other end wait for ever, and a process that stands still closes nothing. */
#define KV_LINK_SILENCE_MS 1000
void kv_link_check_silence(struct kv_link *l, uint64_t now_us);
bool kv_link_awaits(const struct kv_link *l); /* something that was sent has not been read yet, as far as is known */
/* This process stood still itself: silence is counted from now on. */
void kv_link_forgive(struct kv_link *l, uint64_t now_us);
void kv_link_lose(struct kv_link *l, const struct error *why);
/* The next message of lane 0 for the caller; HelloAck and LaneAck are handled here.  Lives in the arena. */
bool kv_link_receive(struct kv_link *l, struct codec_arena *a, Baton__Kv__KvMessage **out);
/* A message without payload, on lane 0. A failure loses the link. */
void kv_link_send(struct kv_link *l, Baton__Kv__KvMessage *m);
/* A data frame on the next lane; sets seq.  The frame is ZeroMQ's from here on, also on failure. */
void kv_link_send_data(struct kv_link *l, Baton__Kv__KvMessage *m, struct frame *f);
#endif
