/* dispatch_internal.h - the dispatcher's parts among themselves.
 *
 *   dispatch.c  queue, placing, ends, deadlines      orders.c    messages to nodes
 *   members.c   joins, heartbeats, dead nodes        events.c    messages from nodes about requests
 *   recovery.c  new epochs                            peers.c     nodes are told of each other */
#ifndef CLUSTER_DISPATCH_INTERNAL_H
#define CLUSTER_DISPATCH_INTERNAL_H
#include "coordinator/cluster/control.h"
#include "coordinator/cluster/dispatch.h"
#include "coordinator/cluster/pairs.h"
#include "coordinator/cluster/queue.h"
#include "coordinator/cluster/registry.h"

#define DISPATCH_MAX_MODELS 64

struct dispatch {
    struct dispatch_options opt;
    struct control *control;
    struct registry registry;
    struct pairs pairs;
    struct queue queue;
    struct request *by_id; /* uthash */
    struct request *reap;  /* over and without holds: freed in the stage */
    uint64_t last_id;
    uint32_t counts[REQUEST_STATE_COUNT];
    uint64_t lacking_since[DISPATCH_MAX_MODELS]; /* by model: no node can serve it since then; 0: one can */
    uv_idle_t stage;                             /* active only while there is something to place or free */
    uv_timer_t tick;
    uint64_t last_tick;  /* uv_hrtime() / 1000 */
    uint64_t judge_from; /* the same: before, nobody is declared dead */
    int n_handles;
    bool closing;
};

/* dispatch.c */
void dispatch_kick(struct dispatch *d); /* places and frees in the next round of the loop */
void dispatch_fail(struct dispatch *d, struct request *r, enum status st, const char *code, const char *text);
void dispatch_close_hold(struct dispatch *d, struct request *r, struct hold *h);
/* The decode node is done and nothing is on its way any more: DONE.  `late`: do not wait any longer. */
void dispatch_try_complete(struct dispatch *d, struct request *r, bool late);
/* The pairs to be passed over, as rows of a snapshot; returns their number. */
uint32_t dispatch_broken_pairs(const struct dispatch *d, struct node *const *from, uint32_t n,
                               struct router_pair out[PAIRS_MAX]);
void dispatch_requeue(struct dispatch *d, struct request *r);

/* orders.c: ERR_FULL: too much waits for the node's acknowledgement; ERR_CLOSED: it is not a member any more.  A node
 * that is only disconnected hears it later. */
enum status orders_send_reserve(struct dispatch *d, struct request *r) MUST_CHECK;
enum status orders_send_prefill(struct dispatch *d, struct request *r, uint64_t credit, ProtobufCBinaryData key,
                                uint32_t hit_tokens) MUST_CHECK;
enum status orders_send_rebind(struct dispatch *d, struct request *r, uint32_t old_epoch) MUST_CHECK;
/* Repeated until acknowledged; a hold that its node never heard of is closed at once. */
void orders_send_cancel(struct dispatch *d, struct request *r, struct hold *h);
void orders_cancel_unknown(struct dispatch *d, struct node *n, uint64_t id, uint32_t epoch);
enum status orders_send(struct dispatch *d, struct node *n, Baton__Control__ControlMessage *m) MUST_CHECK;
/* A new hold of `n` for this epoch, and the name for people. */
void orders_take_decode(struct request *r, struct node *n);
void orders_take_prefill(struct request *r, struct node *n);
uint32_t orders_reserve_tokens(const struct request *r);

/* members.c */
extern const struct control_events members_events;    /* ctx is the dispatch */
void members_check(struct dispatch *d, uint64_t now); /* declares silent nodes dead */
void members_say_goodbye(struct dispatch *d);         /* to all nodes: this coordinator ends */

/* peers.c: who joined, came back or went is told to the other role's nodes of its model, and they to it. */
void peers_changed(struct dispatch *d, struct node *n);
void peers_tell(struct dispatch *d); /* those that could not be told before */

/* events.c */
void events_message(struct dispatch *d, struct node *n, const Baton__Control__ControlMessage *m);

/* recovery.c
 *
 * An attempt is counted when a node that had taken the request on fails, stalls or dies: one that was asked and
 * declines, does not answer or cannot be told has taken nothing on. */
/* The computing side failed while the decode node keeps its reservation: another prefill node, or none. */
void recovery_prefill_lost(struct dispatch *d, struct request *r, enum status st, const char *why);
/* The decode side failed: replay on another one. */
void recovery_decode_lost(struct dispatch *d, struct request *r, enum status st, const char *why);
/* `n` was asked and declines: the request waits in front of others, and asks anew after a moment. */
void recovery_refused(struct dispatch *d, struct request *r, struct node *n, enum status st, const char *why);
/* The prefill node could not be told of the prompt: another one, or none. */
void recovery_prefill_unready(struct dispatch *d, struct request *r);
/* `n` could not be reached: no new work until it is heard. */
void recovery_doubt(struct dispatch *d, struct node *n, const char *why);
/* Nothing is heard of `n`, and others are there: no new work, and what is cheap to begin elsewhere goes there at once:
 * prompts that it reads and reservations that it has not answered.  Streams that it decodes wait until it is dead. */
void recovery_silent(struct dispatch *d, struct node *n);
/* It is heard again: what it does is due from now on. */
void recovery_undoubt(struct dispatch *d, struct node *n);
bool recovery_is_no_room(enum status st);
/* One more failure ends the request: better without a hand-off, then. */
bool recovery_is_last_attempt(const struct dispatch *d, const struct request *r);
void recovery_stalled(struct dispatch *d, struct request *r);
/* It is not used any more, and its requests go on elsewhere. */
void recovery_node_gone(struct dispatch *d, struct node *n, const char *why);
#endif
