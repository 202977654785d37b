/* session.h - one end of a control link: messages that outlive connections.
 *
 * Both ends number their messages, acknowledge what came in order and keep what is not acknowledged.  A frame has a
 * header of its own with XXH3-64 over header and body.  A gap, a wrong sum, a lost connection or silence is answered by
 * a new connection of the same session, on which the rest is sent again in order; what came twice is dropped by its
 * number.  The node dials, the coordinator accepts; each connection has a rising number, which fences what an older one
 * still brings.
 *
 * A pure state machine: the caller owns the sockets and the clock.  It hands in each frame that came (session_receive)
 * and the time (session_tick), and sends what session_next() says after each call. */
#ifndef WIRE_SESSION_H
#define WIRE_SESSION_H
#include "base/bytes.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SESSION_HEADER       48
#define SESSION_KEEPALIVE_MS 400  /* something is said at least this often */
#define SESSION_SILENCE_MS   1500 /* a connection on which nothing came for so long is given up */
#define SESSION_ACK_MS       100  /* what came is acknowledged within, */
#define SESSION_ACK_MESSAGES 64   /* or after so many messages */

enum session_kind {
    SESSION_HELLO = 1, /* dialler: this connection is the session's from now on; acknowledges */
    SESSION_READY,     /* acceptor's answer; acknowledges: each side sends the rest again after the other's word */
    SESSION_DATA,      /* a numbered message */
    SESSION_NOTE,      /* a message that need not arrive; only the newest matters */
    SESSION_ACK,
    SESSION_REOPEN, /* acceptor: something was lost on this connection, dial anew; id 0: on whatever session it was */
    SESSION_RESET,  /* the session is not known (any more): begin a new one */
    SESSION_KINDS
};

#define SESSION_FRESH 1 /* HELLO: nothing has come from the other side yet, so the session may be new to it */
#define SESSION_PING  2 /* ACK: answer at once */

struct session_frame {
    enum session_kind kind;
    uint8_t flags;
    uint64_t id;         /* of the session, random, by the dialler */
    uint32_t connection; /* 1, 2, ... */
    uint64_t seq;        /* DATA: its number; NOTE and ACK: of the last one sent before it on this connection */
    uint64_t ack;        /* all up to this one have come */
    struct bytes body;   /* DATA and NOTE */
};

/* ERR_PARSE: no frame, or a damaged one; ERR_MISMATCH: of another version of the protocol (*version). */
enum status session_parse(struct bytes raw, struct session_frame *out, uint32_t *version) MUST_CHECK;
void session_pack_header(const struct session_frame *f, uint8_t out[SESSION_HEADER]);

struct session_message {
    uint8_t *p;
    size_t n;
};

enum session_state {
    SESSION_DOWN,    /* no connection */
    SESSION_OPENING, /* dialler: HELLO is said, READY has not come */
    SESSION_OPEN,
    SESSION_BROKEN, /* acceptor: something was lost on the connection: nothing counts before the next HELLO */
};

struct session {
    bool dials;
    enum session_state state;
    uint64_t id;
    uint32_t connection;
    /* out */
    struct session_message *ring; /* not acknowledged: numbers acked + 1 .. acked + n */
    size_t cap, head, n;
    size_t bytes, max_bytes;
    bool behind;          /* see session_is_behind() */
    uint64_t acked, next; /* next: number that goes out next on this connection */
    struct session_message note;
    /* in */
    uint64_t received; /* all up to this one */
    uint64_t told;     /* the ack said last */
    bool greeted;      /* dialler: READY has come once */
    bool hello_due, ready_due, reopen_due, ping_due, answer_due;
    uint64_t heard_ms, spoke_ms, unacked_ms; /* unacked_ms: since when something waits for our ack */
    uint64_t asked_ms;                       /* acceptor: last REOPEN for silence */
    struct {
        uint64_t connections, gaps, duplicates, stale;
    } count;
};

void session_init(struct session *s, bool dials, uint64_t id, size_t max_bytes, uint64_t now_ms);
void session_fini(struct session *s);

/* Room for the next message of n bytes, to be filled before the next call.  NULL: max_bytes are kept already (one
 * message alone always fits). */
uint8_t *session_add(struct session *s, size_t n);
uint8_t *session_add_note(struct session *s, size_t n); /* takes the place of one that is not out yet */
/* Back-pressure: past half of max_bytes, until a quarter is left, whoever makes messages holds back what can wait.
 * The other half is for what is said of work under way. */
bool session_is_behind(const struct session *s);
void session_ping(struct session *s); /* asks for a word at once */
bool session_all_acked(const struct session *s);

/* Dialler: a new connection is being made. */
void session_dial(struct session *s, uint64_t now_ms);
/* The connection is known to be gone. */
void session_lost(struct session *s);
/* This process was held up itself: silence until now does not count. */
void session_forgive(struct session *s, uint64_t now_ms);

enum session_verdict {
    SESSION_NOTHING, /* nothing to do */
    SESSION_DELIVER, /* the frame's body is the next message, or a note */
    SESSION_TAKEN,   /* acceptor: the session is on this connection now */
    SESSION_DIAL,    /* dialler: give the connection up and dial anew */
    SESSION_OVER,    /* the other side does not know the session, or talks nonsense */
};
enum session_verdict session_receive(struct session *s, const struct session_frame *f, uint64_t now_ms);
enum session_verdict session_tick(struct session *s, uint64_t now_ms); /* NOTHING or DIAL */

/* The next frame to send, if any; once it is out, session_sent().  Its body is valid until then. */
bool session_next(const struct session *s, uint64_t now_ms, struct session_frame *out);
void session_sent(struct session *s, const struct session_frame *f, uint64_t now_ms);
#endif
