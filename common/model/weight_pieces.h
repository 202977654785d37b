/* weight_pieces.h - the planned tensors cut into pieces of a few MiB of the file, each packed on its own.
 *
 * A piece is a run of whole rows of one tensor, a multiple of the backend's row_quantum but for the tensor's last, so
 * that its packed form is a run of the whole's.  A vector is one piece for each of its tensors. */
#ifndef MODEL_WEIGHT_PIECES_H
#define MODEL_WEIGHT_PIECES_H
#include "model/weights_plan.h"

struct weight_piece {
    const struct weight_item *item; /* borrowed from the plan */
    const struct tensor_entry *src;
    uint32_t row0, n_rows; /* of the item; elements of a vector */
    uint64_t offset;       /* in the file that src lies in */
    size_t bytes;
};

struct weight_pieces {
    struct weight_piece *at; /* owned */
    uint32_t n;
    size_t max_bytes; /* of a file, in one piece */
};

/* Appends the pieces of an item in ascending rows. */
void weight_pieces_add(struct weight_pieces *ps, const struct weight_item *item, uint32_t row_quantum);
void weight_pieces_fini(struct weight_pieces *ps);
/* Where a piece's packed form begins in its item's. */
size_t weight_piece_place(struct backend *b, const struct weight_piece *p);
/* Packs a piece whose bytes are at src; dst is device memory, at weight_piece_place() of its item.
 * src is needed until the stream has come so far. */
enum status weight_piece_pack(struct backend *b, struct stream *s, const struct weight_piece *p, const uint8_t *src,
                              void *dst) MUST_CHECK;
#endif
