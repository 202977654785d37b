/* coordinator.h - the process: it opens models, dispatcher, workers and HTTP server, and takes them apart in order.
 *
 * Everything runs on one libuv loop and its thread, but for the reading of bodies and the writing of large answers
 * (work.h). */
#ifndef COORDINATOR_COORDINATOR_H
#define COORDINATOR_COORDINATOR_H
#include "base/error.h"
#include "coordinator/services.h"

#include <stdint.h>
#include <uv.h>

struct http_server;

struct coordinator {
    struct services sv; /* what the API sees of it */
    uv_loop_t *loop;
    struct http_server *http;
    uv_timer_t tick;
    uint64_t drain_began; /* clock_now_us */
    bool stopped;
};

/* Loads the models, binds both sockets, starts to serve on `loop`.  The caller owns *out. */
enum status coordinator_create(struct coordinator **out, uv_loop_t *loop, const struct config *cfg,
                               struct error *err) MUST_CHECK;
/* Ready goes to 503, new work is refused; stops when the last call is answered, or at shutdown_timeout. */
void coordinator_drain(struct coordinator *co);
/* Ends what is left and closes every handle; the loop's run returns then. */
void coordinator_stop(struct coordinator *co);
void coordinator_destroy(struct coordinator *co); /* after the loop has run out; NULL is fine */
#endif
