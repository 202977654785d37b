/* Unit: tensors cut into pieces of rows, as the backend packs them. */
#include "model/weight_pieces.h"

#include <criterion/criterion.h>

#define COLS 4096u
#define ROWS 5000u

/* All rows once, in order, each piece but the last a multiple of the backend's rows. */
Test(weight_pieces, follow_the_backends_quantum)
{
    const uint32_t quanta[] = { 1, 16, 48, 128, 3000 };
    const struct tensor_entry t = {
        .type = DTYPE_F32, .ne = { COLS, ROWS, 1, 1 }, .offset = 640, .bytes = (uint64_t)COLS * ROWS * 4
    };
    const struct weight_item item = {
        .src = { weight_src_whole(&t, ROWS) }, .n_src = 1, .n_rows = ROWS, .n_cols = COLS, .dtype = DTYPE_F32
    };
    for (size_t k = 0; k < sizeof(quanta) / sizeof(quanta[0]); k++) {
        struct weight_pieces ps = { 0 };
        uint32_t next = 0;
        weight_pieces_add(&ps, &item, quanta[k]);
        for (uint32_t i = 0; i < ps.n; i++) {
            const struct weight_piece *p = &ps.at[i];
            cr_assert_eq(p->row0, next);
            cr_assert_eq(p->row0 % quanta[k], 0, "piece %u begins at row %u", i, p->row0);
            cr_assert_eq(p->offset, t.offset + (uint64_t)next * COLS * 4);
            cr_assert_eq(p->bytes, (size_t)p->n_rows * COLS * 4);
            cr_assert(p->n_rows >= quanta[k] || i + 1 == ps.n, "piece %u has %u rows", i, p->n_rows);
            next += p->n_rows;
        }
        cr_assert_eq(next, ROWS);
        cr_assert_gt(ps.n, 1);
        weight_pieces_fini(&ps);
    }
}
