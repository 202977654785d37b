/* links.h - a node's connections to its coordinators: register, heartbeat, notice loss.
 *
 * A session (wire/session.h) per coordinator over one DEALER after another, all on the loop's thread.  A link is up
 * between Welcome and the end of its session.  A coordinator's work is kept through silence, up to its lease; for
 * LINKS_SHORT_LEASE_MS when its port refuses connections or another process answers there; no longer once it has said
 * goodbye or has declared this node dead. */
#ifndef NODE_LINKS_H
#define NODE_LINKS_H
#include "base/error.h"
#include "proto/control.pb-c.h"

#include <stdbool.h>
#include <uv.h>

#define LINKS_SHORT_LEASE_MS 5000

struct links;
struct link;

struct links_options {
    uv_loop_t *loop;
    const char *endpoints; /* one, or several separated by commas; borrowed, as is hello */
    uint64_t incarnation;  /* of this process */
    const Baton__Control__Register *hello;
    void (*fill_heartbeat)(void *ctx, Baton__Control__Heartbeat *h);
    void (*on_welcome)(void *ctx, struct link *l);
    void (*on_message)(void *ctx, struct link *l, const Baton__Control__ControlMessage *m); /* while it is up */
    /* All that the coordinator with this incarnation gave is to be dropped. */
    void (*on_lost)(void *ctx, uint64_t incarnation);
    void *ctx;
    /* Half of what may be kept waits for the coordinator's acknowledgement: nothing new is to be made for it until it
     * is called with false.  NULL: nobody cares. */
    void (*on_behind)(void *ctx, uint64_t incarnation, bool behind);
    size_t kept_bytes; /* unacknowledged, of each link */
};

enum status links_open(struct links **out, const struct links_options *opt, struct error *err) MUST_CHECK;
/* Memory goes when the loop has run the closes; NULL is fine. */
void links_close(struct links *ls);
bool links_any_up(const struct links *ls);
void links_beat(struct links *ls); /* heartbeats now, not at the next tick */
/* To all coordinators: this process ends, and means to.  Each lets go of its session when it has heard it, and the link
 * stays down: links_any_up() is false then. */
void links_say_goodbye(struct links *ls, const char *reason);

uint64_t link_incarnation(const struct link *l); /* of its coordinator; 0 = not up */
/* Fills version and incarnations, and sends: it arrives, once and in order, or the link is lost, as when kept_bytes
 * wait although on_behind was obeyed. */
void link_send(struct link *l, Baton__Control__ControlMessage *m);
#endif
