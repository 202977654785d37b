/* control.h - the coordinator's end of the control plane: one ROUTER, whole messages in, whole messages out.
 *
 * Everything runs on the loop's thread.  Foreign frames are bounded and unpacked into an arena; what is no message of
 * this protocol is dropped and counted. */
#ifndef COORDINATOR_CONTROL_H
#define COORDINATOR_CONTROL_H
#include "base/error.h"
#include "proto/control.pb-c.h"

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct control;

/* `m` is valid during the call. */
typedef void (*control_message_fn)(void *ctx, const uint8_t *routing, size_t n_routing,
                                   const Baton__Control__ControlMessage *m);

enum status control_open(struct control **out, uv_loop_t *loop, const char *endpoint, uint64_t incarnation,
                         control_message_fn fn, void *ctx, struct error *err) MUST_CHECK;
void control_close(struct control *c);                 /* NULL is fine */
const char *control_endpoint(const struct control *c); /* as bound */
uint64_t control_n_garbage(const struct control *c);   /* frames that were no message */
/* Sends `m` with version and incarnations filled in.  ERR_CLOSED: no such peer; ERR_FULL: it takes nothing now. */
enum status control_send(struct control *c, const uint8_t *routing, size_t n_routing, uint64_t to_incarnation,
                         Baton__Control__ControlMessage *m) MUST_CHECK;
#endif
