/* frame_pool.h - a fixed number of payload buffers that ZeroMQ reads from until they are on the wire.
 *
 * One thread takes; ZeroMQ's I/O threads give back. */
#ifndef NODE_FRAME_POOL_H
#define NODE_FRAME_POOL_H
#include "compute/backend.h"

#include <stddef.h>
#include <stdint.h>

struct frame_pool;
struct frame; /* one buffer */

/* Its memory is the backend's host_alloc(): what the backend packs into fastest. */
enum status frame_pool_create(struct frame_pool **out, struct backend *backend, uint32_t n_frames,
                              size_t frame_bytes) MUST_CHECK;
/* Waits until ZeroMQ has given back every buffer: close the sockets before. */
void frame_pool_destroy(struct frame_pool *p);
/* NULL when all are in flight; then frame_pool_fd() becomes readable once one is back. */
struct frame *frame_pool_take(struct frame_pool *p);
uint8_t *frame_bytes(struct frame *f);
void frame_give_back(void *data, void *frame); /* a zmq_free_fn */
int frame_pool_fd(const struct frame_pool *p);
void frame_pool_clear_fd(struct frame_pool *p);
#endif
