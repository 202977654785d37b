/* links.h - a node's connections to its coordinators: register, heartbeat, notice loss.
 *
 * A DEALER per coordinator, all on the loop's thread.  A link is up between Welcome and the loss of its coordinator:
 * no HeartbeatAck for its dead_after, a new incarnation in its place, or its word that it does not know this node. */
#ifndef NODE_LINKS_H
#define NODE_LINKS_H
#include "base/error.h"
#include "proto/control.pb-c.h"

#include <stdbool.h>
#include <uv.h>

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
    void (*on_lost)(void *ctx, struct link *l); /* before its incarnation is forgotten */
    void *ctx;
};

enum status links_open(struct links **out, const struct links_options *opt, struct error *err) MUST_CHECK;
/* Memory goes when the loop has run the closes; NULL is fine. */
void links_close(struct links *ls);
bool links_any_up(const struct links *ls);
void links_beat(struct links *ls); /* heartbeats now, not at the next tick */
/* To all coordinators: this process ends, and means to. */
void links_say_goodbye(struct links *ls, const char *reason);

uint64_t link_incarnation(const struct link *l); /* of its coordinator; 0 = not up */
/* Fills version and incarnations, and sends.  What is lost here is covered by the coordinator's deadlines. */
void link_send(struct link *l, Baton__Control__ControlMessage *m);
#endif
