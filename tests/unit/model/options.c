/* Unit: words of options, and what a backend is made for. */
#include "model/model.h"

#include <criterion/criterion.h>
#include <string.h>

Test(options, options_have_words)
{
    static const struct {
        const char *weights, *io;
        enum weights_mode mode;
        enum io_kind kind;
        const char *says; /* NULL: fine */
    } rows[] = {
        { "resident", "auto", WEIGHTS_RESIDENT, IO_AUTO, NULL },
        { "stream", "uring", WEIGHTS_STREAM, IO_URING, NULL },
        { "auto", "pread", WEIGHTS_AUTO, IO_PREAD, NULL },
        { "auto", "mmap", WEIGHTS_AUTO, IO_MMAP, NULL },
        { "here", "mmap", 0, 0, "weights is \"here\", allowed are resident, stream and auto" },
        { "auto", "aio", 0, 0, "io is \"aio\", allowed are auto, uring, pread and mmap" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct model_options opt = { 0 };
        struct error err = { OK, "" };
        const enum status st = model_options_words(&opt, rows[i].weights, rows[i].io, &err);
        cr_assert_eq(st, rows[i].says ? ERR_INVALID : OK);
        if (rows[i].says) cr_assert_str_eq(err.text, rows[i].says);
        if (!rows[i].says) cr_assert(opt.weights == rows[i].mode && opt.io == rows[i].kind);
    }
}

Test(options, limits_leave_room_for_logit_rows)
{
    const struct model_info info = { .limits = { .max_cols = 7, .max_heads = 3, .max_head_dim = 16 } };
    static const uint32_t rows[][2] = { { 1, MODEL_MAX_LOGIT_ROWS },
                                        { MODEL_MAX_LOGIT_ROWS, MODEL_MAX_LOGIT_ROWS },
                                        { MODEL_MAX_LOGIT_ROWS + 1, MODEL_MAX_LOGIT_ROWS + 1 } };
    for (int i = 0; i < 3; i++) {
        const struct backend_limits l = model_limits(&info, rows[i][0], 99);
        cr_assert(l.max_rows == rows[i][1] && l.max_context == 99 && l.max_cols == 7 && l.max_heads == 3);
    }
}
