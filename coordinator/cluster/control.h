/* control.h - the coordinator's end of the control plane: one ROUTER, a session (wire/session.h) per node.
 *
 * Everything runs on the loop's thread.  Foreign frames are bounded and unpacked into an arena; what is no message of
 * this protocol is dropped and counted.  A stranger gets a session that holds little and makes room for the next. */
#ifndef CLUSTER_CONTROL_H
#define CLUSTER_CONTROL_H
#include "base/error.h"
#include "proto/control.pb-c.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct control;
struct control_peer; /* the other end of one session */

struct control_events {
    /* `m` is valid during the call, in which the peer may be forgotten. */
    void (*message)(void *ctx, struct control_peer *p, const Baton__Control__ControlMessage *m);
    void (*heard)(void *ctx, struct control_peer *p);       /* anything at all came from it; comes before its message */
    void (*unreachable)(void *ctx, struct control_peer *p); /* it has no connection now */
    void (*over)(void *ctx, struct control_peer *p);        /* the session has ended; forgotten after the call */
    /* A connection was lost, of whom is not known: call control_probe() for each peer.  Comes several times, as it
     * takes the socket a while until it names a peer unreachable. */
    void (*disconnected)(void *ctx);
};

struct control_options {
    uv_loop_t *loop;
    const char *endpoint;
    uint64_t incarnation;
    size_t kept_bytes; /* that a peer which joined may leave unacknowledged */
};

enum status control_open(struct control **out, const struct control_options *opt, const struct control_events *events,
                         void *ctx, struct error *err) MUST_CHECK;
void control_close(struct control *c);                 /* NULL is fine */
const char *control_endpoint(const struct control *c); /* as bound */
uint64_t control_n_garbage(const struct control *c);   /* frames that were no message */

/* Queues `m` with version and incarnations filled in; it arrives, once and in order, or the peer is `over`.  ERR_FULL:
 * too much waits for its acknowledgement; ERR_CLOSED: the peer is NULL. */
enum status control_send(struct control *c, struct control_peer *p, uint64_t to_incarnation,
                         Baton__Control__ControlMessage *m) MUST_CHECK;
/* The same for what need not arrive, of which only the newest matters. */
enum status control_send_note(struct control *c, struct control_peer *p, uint64_t to_incarnation,
                              Baton__Control__ControlMessage *m) MUST_CHECK;
/* Half of what may wait for its acknowledgement does: what can wait should.  False for NULL. */
bool control_is_behind(const struct control_peer *p);
/* Asks for a word at once: `heard` or `unreachable` follow, or silence. */
void control_probe(struct control *c, struct control_peer *p);
/* A peer that joined is kept and may have more under way; `owner` is the caller's. */
void control_adopt(struct control *c, struct control_peer *p, void *owner);
void *control_owner(const struct control_peer *p);
/* Ends the session: the other side will have to begin a new one.  NULL is fine. */
void control_forget(struct control *c, struct control_peer *p);
/* This process was held up: silence until now is nobody's fault. */
void control_forgive(struct control *c);
#endif
