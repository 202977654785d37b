/* expert_stream.h - products with stacks of matrices that stay on disk: of each stack only those that the batch's rows
 * have chosen are read.
 *
 * The chosen ones of a stack lie packed in memory while they are multiplied: at most one stack.  The host has to know
 * what was chosen, so every product waits for its route.  Numbers are those of resident weights. */
#ifndef MODEL_EXPERT_STREAM_H
#define MODEL_EXPERT_STREAM_H
#include "base/io_read.h"
#include "model/weights.h"

struct expert_stream;

/* Memory that it takes; 0: these weights have no stacks. */
uint64_t expert_stream_bytes(const struct weights *w);
/* The stacks of `w`, which is borrowed.  *out stays NULL where it has none. */
enum status expert_stream_create(struct expert_stream **out, const struct weights *w, const struct io_options *io,
                                 struct error *err) MUST_CHECK;
void expert_stream_destroy(struct expert_stream *s); /* NULL is fine */
/* backend_ops.expert_matmul on `on`.  ERR_IO, ERR_CORRUPT: the disk failed; a log line says what, and the next call
 * starts afresh. */
enum status expert_stream_matmul(struct expert_stream *s, struct stream *on, float *y, size_t ld,
                                 const struct weight *w, const struct act *x, const struct route *route,
                                 bool x_by_slot) MUST_CHECK;
#endif
