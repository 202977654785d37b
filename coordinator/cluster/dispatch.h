/* dispatch.h - requests into the cluster and back: queue, nodes, control plane, deadlines.  The folder's public header.
 *
 * One thread, the loop's.  Owners submit requests and hear of them through request_events; placing them happens in a
 * stage of its own, never inside a callback (dispatch.c, on_stage).  Records are freed in that stage, too. */
#ifndef CLUSTER_DISPATCH_H
#define CLUSTER_DISPATCH_H
#include "coordinator/cluster/request.h"

#include <uv.h>

struct dispatch;
struct meters;
struct registry;

struct dispatch_options {
    uv_loop_t *loop;
    const char *control; /* endpoint to bind */
    uint64_t incarnation;
    struct served_model **models; /* borrowed */
    uint32_t n_models;
    struct meters *meters; /* borrowed */
    struct request_limits limits;
    uint32_t max_queue;
    uint64_t max_queue_bytes;
    uint32_t max_attempts;
    uint32_t heartbeat_ms, dead_after_ms; /* of nodes */
    uint64_t link_bytes;                  /* messages that a node may leave unacknowledged */
};

enum status dispatch_create(struct dispatch **out, const struct dispatch_options *opt, struct error *err) MUST_CHECK;
/* Ends every request (owners hear of it), then closes.  Memory goes with the loop's closes; NULL is fine. */
void dispatch_close(struct dispatch *d);
const char *dispatch_endpoint(const struct dispatch *d);
struct registry *dispatch_registry(struct dispatch *d);
const uint32_t *dispatch_state_counts(const struct dispatch *d); /* [REQUEST_STATE_COUNT] */

/* Whether n more requests of `bytes` in all may wait: ERR_FULL (429).  They may while no node is there: one may come.
 */
enum status dispatch_check_room(const struct dispatch *d, uint32_t n, uint64_t bytes, struct api_error *e) MUST_CHECK;
/* Queues a request behind those of its priority.  The record is the dispatcher's; the owner may use it until its `end`
 * has run. */
struct request *dispatch_submit(struct dispatch *d, const struct request_spec *spec);
/* The owner has what it wants (stop string): DONE, and nodes give everything back. */
void dispatch_finish(struct dispatch *d, struct request *r, enum finish_reason finish);
/* The owner gives up, `why` goes to `end` and the log: CANCELLED. */
void dispatch_cancel(struct dispatch *d, struct request *r, const struct api_error *why);
/* Requests whose end nodes have not confirmed yet, and those not over. */
uint32_t dispatch_n_open(const struct dispatch *d);
#endif
