/* weight_stream.h - products with weights that stay on disk: read ahead, packed and used piece by piece.
 *
 * Only a ring of raw pieces and one packed piece are in memory.  Reads run ahead in the order of a forward (layers,
 * then the head if the pass before used it), so they overlap whatever is computed; all rows of a batch share a pass. An
 * output depends on its weight row alone, so the numbers are those of resident weights. */
#ifndef MODEL_WEIGHT_STREAM_H
#define MODEL_WEIGHT_STREAM_H
#include "base/io_read.h"
#include "model/weights.h"

struct weight_stream;

/* Memory that a stream of these weights takes, its vectors and its stacks' stream included. */
uint64_t weight_stream_bytes(const struct weights *w);
/* The matrices of `w` that are no stacks, which is borrowed.  IO_MMAP is refused. */
enum status weight_stream_create(struct weight_stream **out, const struct weights *w, const struct io_options *io,
                                 struct error *err) MUST_CHECK;
void weight_stream_destroy(struct weight_stream *s); /* NULL is fine */
/* backend_ops.matmul on `on`, with a matrix of the stream.  Waits for each piece: a pass is never only enqueued.
 * ERR_IO, ERR_CORRUPT: the disk failed, or the file is not the one that was opened any more; a log line says what, and
 * the next call starts afresh. */
enum status weight_stream_matmul(struct weight_stream *s, struct stream *on, float *y, size_t ld,
                                 const struct weight *w, const struct act *x, bool accumulate) MUST_CHECK;
#endif
